#include <errno.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/log.h"
#include "dataplane/io/dpdk/config.h"
#include "dataplane/io/dpdk/internal.h"

#define RX_DESCRIPTORS  1024
#define TX_DESCRIPTORS  1024
#define PACKETS_A_SHARD 16384
#define CACHE_PACKETS   256
#define FRAME_ROOM      (RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN + 4)

// Two bytes over and over give a flow and its way back the same hash (symmetric RSS).
static uint8_t symmetric_key[52];

bool sl_dpdk_is_built_in(void)
{
	return true;
}

static void tell_eal(int failed, char *error, size_t error_size)
{
	static const char memory[] = "reserve hugepages (dpdk-hugepages.py --setup 1G), or add "
				     "--no-huge, -m, 512 to dpdk.eal";
	static const char rights[] = "run as root, or with CAP_IPC_LOCK, CAP_NET_RAW and "
				     "CAP_NET_ADMIN";
	const bool denied = failed == EACCES || failed == EPERM;

	// It says EACCES where there are no hugepages, too.
	if (denied || failed == ENOMEM || failed == ENOENT)
		snprintf(error, error_size, "dpdk: the EAL did not start (%s): %s%s%s",
			 rte_strerror(failed), memory, denied ? "; " : "", denied ? rights : "");
	else
		snprintf(error, error_size,
			 "dpdk: the EAL did not start (%s): see its lines above for the argument "
			 "of dpdk.eal it does not like",
			 rte_strerror(failed));
}

// The EAL binds its caller to a core and that is not its business here: shards pin themselves.
static int start_eal(struct sl_dpdk *dpdk, char *error, size_t error_size)
{
	const struct sl_dpdk_config *config = &dpdk->config;
	char *arguments[SL_EAL_ARGUMENTS_MAX + 2] = {(char *)"sluice"};
	cpu_set_t cpus;
	int count = 1, failed;

	if (config->eal_count > SL_EAL_ARGUMENTS_MAX) {
		snprintf(error, error_size, "dpdk: eal has more than %d arguments",
			 SL_EAL_ARGUMENTS_MAX);
		return -EINVAL;
	}
	for (size_t i = 0; i < config->eal_count; i++)
		arguments[count++] = dpdk->arguments[i] = strdup(config->eal[i]);
	sched_getaffinity(0, sizeof(cpus), &cpus);
	failed = rte_eal_init(count, arguments) < 0 ? rte_errno : 0;
	sched_setaffinity(0, sizeof(cpus), &cpus);
	if (failed)
		tell_eal(failed, error, error_size);
	return -failed;
}

static int find_port(struct sl_dpdk *dpdk, char *error, size_t error_size)
{
	const char *device = dpdk->config.device;

	if (device && rte_eth_dev_get_port_by_name(device, &dpdk->port) == 0)
		return rte_eth_dev_get_name_by_port(dpdk->port, dpdk->name);
	if (!device) {
		RTE_ETH_FOREACH_DEV(dpdk->port)
		return rte_eth_dev_get_name_by_port(dpdk->port, dpdk->name);
	}
	snprintf(error, error_size,
		 "dpdk: there is no port%s%s: dpdk.eal must name a device (--vdev=net_af_xdp0,"
		 "iface=eth1, or -a 0000:03:00.0 bound to vfio-pci by dpdk-devbind.py), and its "
		 "driver's package (librte-net-...) must be installed",
		 device ? " " : "", device ? device : "");
	return -ENODEV;
}

static int tell_port(const char *what, int failed, char *error, size_t error_size)
{
	snprintf(error, error_size, "dpdk: %s: %s", what, rte_strerror(-failed));
	return failed;
}

// RSS by flow where the device has it, with the table filled evenly by us.
static void fill_table(const struct sl_dpdk *dpdk, const struct rte_eth_dev_info *info)
{
	struct rte_eth_rss_reta_entry64 table[8] = {0};

	if (!info->reta_size || info->reta_size > 512)
		return;
	for (uint16_t i = 0; i < info->reta_size; i++) {
		table[i / 64].mask |= UINT64_C(1) << (i % 64);
		table[i / 64].reta[i % 64] = i % dpdk->queues;
	}
	(void)rte_eth_dev_rss_reta_update(dpdk->port, table, info->reta_size);
}

static int set_mtu(const struct sl_dpdk *dpdk, const struct rte_eth_dev_info *info, char *error,
		   size_t error_size)
{
	int failed;

	// It claims 1,518 bytes whatever its frames hold; the interface's own MTU is what counts.
	if (strcmp(info->driver_name, "net_af_packet") == 0)
		return 0;
	failed = rte_eth_dev_set_mtu(dpdk->port, dpdk->stack.mtu);
	if (failed == -ENOTSUP || failed == 0)
		return 0;
	snprintf(error, error_size, "dpdk: mtu %u: %s; this port takes at most %u", dpdk->stack.mtu,
		 rte_strerror(-failed), info->max_mtu);
	return failed;
}

static int set_up_queues(struct sl_dpdk *dpdk, const struct rte_eth_dev_info *info, char *error,
			 size_t error_size)
{
	const int socket = rte_eth_dev_socket_id(dpdk->port);
	uint16_t rx = RX_DESCRIPTORS, tx = TX_DESCRIPTORS;
	int failed = rte_eth_dev_adjust_nb_rx_tx_desc(dpdk->port, &rx, &tx);

	if (failed < 0)
		return tell_port("descriptors", failed, error, error_size);
	for (uint16_t i = 0; i < dpdk->queues; i++) {
		struct rte_eth_rxconf rxconf = info->default_rxconf;
		struct rte_eth_txconf txconf = info->default_txconf;

		failed = rte_eth_rx_queue_setup(dpdk->port, i, rx, (unsigned)socket, &rxconf,
						dpdk->pool);
		if (failed < 0)
			return tell_port("receive queue", failed, error, error_size);
		failed = rte_eth_tx_queue_setup(dpdk->port, i, tx, (unsigned)socket, &txconf);
		if (failed < 0)
			return tell_port("send queue", failed, error, error_size);
	}
	return 0;
}

#define RX_SUMS                                                                                    \
	(RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM |                            \
	 RTE_ETH_RX_OFFLOAD_TCP_CKSUM)
#define TX_SUMS (RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM)

// No UDP is sent by the stack. Segments are not left to the device: README.md, Limits.
static void ask_for_sums(struct sl_dpdk *dpdk, const struct rte_eth_dev_info *info,
			 struct rte_eth_conf *conf)
{
	if (!dpdk->config.offloads)
		return;
	conf->rxmode.offloads |= info->rx_offload_capa & RX_SUMS;
	conf->txmode.offloads |= info->tx_offload_capa & TX_SUMS;
	dpdk->trusted = conf->rxmode.offloads & RX_SUMS;
	if (conf->txmode.offloads & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM)
		dpdk->stack.device_sums |= SL_SUM_IP;
	if (conf->txmode.offloads & RTE_ETH_TX_OFFLOAD_TCP_CKSUM)
		dpdk->stack.device_sums |= SL_SUM_TCP;
}

static int start_port(struct sl_dpdk *dpdk, char *error, size_t error_size)
{
	struct rte_eth_conf conf = {.rxmode = {.mq_mode = RTE_ETH_MQ_RX_NONE}};
	struct rte_eth_dev_info info;
	struct rte_ether_addr mac;
	int failed = rte_eth_dev_info_get(dpdk->port, &info);
	uint16_t most;

	if (failed < 0)
		return tell_port("the port's properties", failed, error, error_size);
	most = SL_MIN(info.max_rx_queues, info.max_tx_queues);
	dpdk->hashed = dpdk->shards > 1 && most >= dpdk->shards &&
		       (info.flow_type_rss_offloads & (RTE_ETH_RSS_TCP | RTE_ETH_RSS_IP));
	// Queues that nothing spreads flows over would stand empty.
	dpdk->queues = dpdk->hashed ? (uint16_t)dpdk->shards : 1;
	if (dpdk->hashed) {
		for (size_t i = 0; i < sizeof(symmetric_key); i++)
			symmetric_key[i] = i % 2 ? 0x5a : 0x6d;
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = info.flow_type_rss_offloads &
						   (RTE_ETH_RSS_TCP | RTE_ETH_RSS_IP);
		conf.rx_adv_conf.rss_conf.rss_key = symmetric_key;
		conf.rx_adv_conf.rss_conf.rss_key_len = info.hash_key_size ? info.hash_key_size
									   : 40;
		if (info.hash_key_size > sizeof(symmetric_key))
			conf.rx_adv_conf.rss_conf.rss_key = NULL;
	}
	ask_for_sums(dpdk, &info, &conf);
	failed = rte_eth_dev_configure(dpdk->port, dpdk->queues, dpdk->queues, &conf);
	if (failed < 0)
		return tell_port("configuring the port", failed, error, error_size);
	failed = set_mtu(dpdk, &info, error, error_size);
	if (failed < 0)
		return failed;
	failed = set_up_queues(dpdk, &info, error, error_size);
	if (failed < 0)
		return failed;
	failed = rte_eth_dev_start(dpdk->port);
	if (failed < 0)
		return tell_port("starting the port", failed, error, error_size);
	dpdk->started = true;
	failed = sl_dpdk_watch(dpdk, info.if_index);
	if (failed < 0)
		return tell_port("its counters", failed, error, error_size);
	if (dpdk->hashed)
		fill_table(dpdk, &info);
	(void)rte_eth_promiscuous_disable(dpdk->port);
	(void)rte_eth_allmulticast_enable(dpdk->port); // neighbour discovery
	failed = rte_eth_macaddr_get(dpdk->port, &mac);
	if (failed < 0)
		return tell_port("the port's address", failed, error, error_size);
	memcpy(dpdk->stack.mac, mac.addr_bytes, 6);
	return 0;
}

static int make_pool(struct sl_dpdk *dpdk, char *error, size_t error_size)
{
	// Devices count a buffer's room in KiB, down: one frame is to fit whole.
	const uint32_t frame = ((uint32_t)dpdk->stack.mtu + FRAME_ROOM + 1023) & ~1023u;
	const uint32_t room = SL_MAX(frame, 2048u);

	dpdk->packets = dpdk->config.packets ? dpdk->config.packets
					     : dpdk->shards * PACKETS_A_SHARD;
	dpdk->pool = rte_pktmbuf_pool_create(
		"sluice", dpdk->packets, CACHE_PACKETS, SL_STACK_ROOM_BYTES,
		(uint16_t)(room + RTE_PKTMBUF_HEADROOM), (int)rte_socket_id());
	if (!dpdk->pool) {
		snprintf(
			error, error_size,
			"dpdk: %u packet buffers of %u bytes: %s; give the EAL more memory (-m, or "
			"hugepages), or lower dpdk.packets",
			dpdk->packets, room, rte_strerror(rte_errno));
		return -ENOMEM;
	}
	// Half of the memory for windows; a shard its part of it.
	dpdk->stack.window_budget = (uint64_t)dpdk->packets * dpdk->stack.mtu / 2 / dpdk->shards;
	return 0;
}

struct sl_dpdk *sl_dpdk_open(const struct sl_dpdk_config *config, uint32_t shards,
			     struct sl_metrics *metrics, char *error, size_t error_size)
{
	static const char *const sums[] = {"software", "port:ip", "port:tcp", "port:ip,tcp"};
	struct sl_dpdk *dpdk = calloc(1, sizeof(*dpdk));

	if (!dpdk) {
		snprintf(error, error_size, "dpdk: no memory");
		return NULL;
	}
	dpdk->config = *config;
	dpdk->shards = shards;
	dpdk->metrics = metrics;
	dpdk->lanes = calloc(shards, sizeof(struct sl_lane *));
	if (!dpdk->lanes || sl_dpdk_stack_config(config, &dpdk->stack, error, error_size) < 0 ||
	    start_eal(dpdk, error, error_size) < 0 || find_port(dpdk, error, error_size) < 0 ||
	    make_pool(dpdk, error, error_size) < 0 || start_port(dpdk, error, error_size) < 0) {
		sl_dpdk_close(dpdk);
		return NULL;
	}
	// All lanes before any shard runs: they hand each other frames.
	for (uint32_t i = 0; i < shards; i++) {
		dpdk->lanes[i] = sl_lane_create(dpdk, i);
		if (!dpdk->lanes[i]) {
			snprintf(error, error_size, "dpdk: no memory for shard %u", i);
			sl_dpdk_close(dpdk);
			return NULL;
		}
	}
	sl_log(SL_LOG_INFO, "dpdk_started",
	       "port=%u queues=%u mac=%02x:%02x:%02x:%02x:%02x:%02x mtu=%u buffers=%u spread=%s "
	       "sums_in=%s sums_out=%s",
	       dpdk->port, dpdk->queues, dpdk->stack.mac[0], dpdk->stack.mac[1], dpdk->stack.mac[2],
	       dpdk->stack.mac[3], dpdk->stack.mac[4], dpdk->stack.mac[5], dpdk->stack.mtu,
	       dpdk->packets, dpdk->hashed ? "port" : "software",
	       dpdk->trusted ? "port" : "software", sums[dpdk->stack.device_sums]);
	return dpdk;
}

void sl_dpdk_close(struct sl_dpdk *dpdk)
{
	if (!dpdk)
		return;
	for (uint32_t i = 0; dpdk->lanes && i < dpdk->shards; i++)
		sl_lane_destroy(dpdk->lanes[i]);
	if (dpdk->started) {
		sl_dpdk_unwatch(dpdk);
		rte_eth_dev_stop(dpdk->port);
		rte_eth_dev_close(dpdk->port);
	}
	rte_mempool_free(dpdk->pool);
	rte_eal_cleanup();
	for (size_t i = 0; i < SL_EAL_ARGUMENTS_MAX; i++)
		free(dpdk->arguments[i]);
	free(dpdk->lanes);
	free(dpdk);
}

bool sl_dpdk_serves(const struct sl_dpdk *dpdk, const struct sl_address *address)
{
	static const uint8_t none[16];
	uint8_t at[16] = {0};

	if (address->u.any.sa_family == AF_INET6) {
		memcpy(at, &address->u.v6.sin6_addr, 16);
	} else {
		if (!address->u.v4.sin_addr.s_addr)
			return true;
		at[10] = at[11] = 0xff;
		memcpy(at + 12, &address->u.v4.sin_addr, 4);
	}
	if (memcmp(at, none, sizeof(none)) == 0)
		return true;
	for (uint32_t i = 0; i < dpdk->stack.address_count; i++) {
		if (memcmp(at, dpdk->stack.addresses[i].address, sizeof(at)) == 0)
			return true;
	}
	return false;
}

struct sl_io_backend *sl_dpdk_backend(struct sl_dpdk *dpdk, uint32_t shard)
{
	return &dpdk->lanes[shard]->backend;
}
