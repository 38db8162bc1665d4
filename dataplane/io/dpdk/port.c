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

#define AF_PACKET_FRAME 2048 // preset of its framesz
#define AF_PACKET_HEAD  80   // the kernel's header, Ethernet's, a tag
#define RX_DESCRIPTORS  1024
#define TX_DESCRIPTORS  1024

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
	else if (failed == EALREADY)
		snprintf(error, error_size,
			 "dpdk: the EAL did not start: another process of DPDK has its files: give "
			 "each "
			 "a name of its own in dpdk.eal, --file-prefix=NAME");
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
	rte_errno = 0;
	failed = 0;
	if (rte_eal_init(count, arguments) < 0) // its lock is all that it refuses without a number
		failed = rte_errno ? rte_errno : EALREADY;
	sched_setaffinity(0, sizeof(cpus), &cpus);
	if (failed)
		tell_eal(failed, error, error_size);
	return -failed;
}

static int find_id(const char *device, uint16_t *id, char *error, size_t error_size)
{
	if (device && rte_eth_dev_get_port_by_name(device, id) == 0)
		return 0;
	if (!device) {
		RTE_ETH_FOREACH_DEV(*id)
		return 0;
	}
	snprintf(error, error_size,
		 "dpdk: there is no port%s%s: dpdk.eal must name a device (--vdev=net_af_xdp0,"
		 "iface=eth1, or -a 0000:03:00.0 bound to vfio-pci by dpdk-devbind.py), its "
		 "driver's "
		 "package (librte-net-...) must be installed, and it must open: the EAL's lines "
		 "above tell of an interface that is missing, or of rights",
		 device ? " " : "", device ? device : "");
	return -ENODEV;
}

// The interfaces of one device are one port's, whatever name they have for it.
static int find_ports(struct sl_dpdk *dpdk, char *error, size_t error_size)
{
	const struct sl_dpdk_plan *plan = &dpdk->plan;

	for (uint32_t i = 0; i < plan->stack.interface_count; i++) {
		const uint16_t vlan = plan->places[i].vlan;
		struct sl_port *port = dpdk->ports;
		uint16_t id;
		const int failed = find_id(plan->places[i].device, &id, error, error_size);

		if (failed < 0)
			return failed;
		while (port < dpdk->ports + dpdk->port_count && port->id != id)
			port++;
		if (port == dpdk->ports + dpdk->port_count) {
			dpdk->port_count++;
			port->id = id;
			port->beneath_fd = -1;
			rte_eth_dev_get_name_by_port(id, port->name);
		}
		for (uint32_t k = 0; k < port->interface_count; k++) {
			if (port->vlans[k] != vlan)
				continue;
			snprintf(error, error_size,
				 "dpdk: interfaces %u and %u are the same port, %s, and VLAN, %u",
				 port->interfaces[k] + 1u, i + 1, port->name, vlan);
			return -EINVAL;
		}
		port->interfaces[port->interface_count] = (uint8_t)i;
		port->vlans[port->interface_count++] = vlan;
		port->mtu = SL_MAX(port->mtu, plan->stack.interfaces[i].mtu);
		dpdk->port_of[i] = (uint8_t)(port - dpdk->ports);
	}
	return 0;
}

static int tell_port(const struct sl_port *port, const char *what, int failed, char *error,
		     size_t error_size)
{
	snprintf(error, error_size, "dpdk: %s: %s: %s", port->name, what, rte_strerror(-failed));
	return failed;
}

// RSS by flow where the device has it, with the table filled evenly by us. False: the device has
// its own.
static bool fill_table(const struct sl_port *port, const struct rte_eth_dev_info *info)
{
	struct rte_eth_rss_reta_entry64 table[8] = {0};

	if (!info->reta_size || info->reta_size > 512)
		return false;
	for (uint16_t i = 0; i < info->reta_size; i++) {
		table[i / 64].mask |= UINT64_C(1) << (i % 64);
		table[i / 64].reta[i % 64] = i % port->queues;
	}
	return rte_eth_dev_rss_reta_update(port->id, table, info->reta_size) == 0;
}

// What a frame of net_af_packet holds: it tells in its device's options only.
static uint32_t frame_bytes(const struct sl_dpdk *dpdk, const struct sl_port *port)
{
	static const char option[] = "framesz=";

	for (size_t i = 0; i < dpdk->config.eal_count; i++) {
		const char *device = strstr(dpdk->config.eal[i], port->name);
		const char *at = device ? strstr(device, option) : NULL;

		if (at)
			return (uint32_t)strtoul(at + sizeof(option) - 1, NULL, 10);
	}
	return AF_PACKET_FRAME;
}

static int set_mtu(const struct sl_dpdk *dpdk, const struct sl_port *port,
		   const struct rte_eth_dev_info *info, char *error, size_t error_size)
{
	int failed;

	// It claims 1,518 bytes whatever its frames hold; the interface's own MTU is what counts.
	if (strcmp(info->driver_name, "net_af_packet") == 0) {
		if (frame_bytes(dpdk, port) >= (uint32_t)port->mtu + AF_PACKET_HEAD)
			return 0;
		snprintf(error, error_size,
			 "dpdk: mtu %u: the frames of %s hold %u bytes: add framesz=9216,"
			 "blocksz=36864 to its --vdev, and give its interface that MTU",
			 port->mtu, port->name, frame_bytes(dpdk, port));
		return -EINVAL;
	}
	failed = rte_eth_dev_set_mtu(port->id, port->mtu);
	if (failed == -ENOTSUP || failed == 0)
		return 0;
	snprintf(error, error_size, "dpdk: mtu %u: %s; the port %s takes at most %u", port->mtu,
		 rte_strerror(-failed), port->name, info->max_mtu);
	return failed;
}

static int set_up_queues(const struct sl_port *port, const struct rte_eth_dev_info *info,
			 char *error, size_t error_size)
{
	const int socket = rte_eth_dev_socket_id(port->id);
	uint16_t rx = RX_DESCRIPTORS, tx = TX_DESCRIPTORS;
	int failed = rte_eth_dev_adjust_nb_rx_tx_desc(port->id, &rx, &tx);

	if (failed < 0)
		return tell_port(port, "descriptors", failed, error, error_size);
	if ((uint64_t)rx * port->queues >= port->pool->count / port->pool->ports) {
		snprintf(error, error_size,
			 "dpdk: %s: its %u queues of %u frames would hold all of its %u packet "
			 "buffers; raise dpdk.packets, or leave it out",
			 port->name, port->queues, rx, port->pool->count / port->pool->ports);
		return -EINVAL;
	}
	for (uint16_t i = 0; i < port->queues; i++) {
		struct rte_eth_rxconf rxconf = info->default_rxconf;
		struct rte_eth_txconf txconf = info->default_txconf;

		failed = rte_eth_rx_queue_setup(port->id, i, rx, (unsigned)socket, &rxconf,
						port->pool->packets);
		if (failed < 0)
			return tell_port(port, "receive queue", failed, error, error_size);
		failed = rte_eth_tx_queue_setup(port->id, i, tx, (unsigned)socket, &txconf);
		if (failed < 0)
			return tell_port(port, "send queue", failed, error, error_size);
	}
	return 0;
}

#define RX_SUMS                                                                                    \
	(RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM |                            \
	 RTE_ETH_RX_OFFLOAD_TCP_CKSUM)
#define TX_SUMS (RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM)

// No UDP is sent by the stack.
static void ask_for_offloads(const struct sl_dpdk *dpdk, struct sl_port *port,
			     const struct rte_eth_dev_info *info, struct rte_eth_conf *conf)
{
	if (!dpdk->config.offloads)
		return;
	conf->rxmode.offloads |= info->rx_offload_capa & RX_SUMS;
	conf->txmode.offloads |= info->tx_offload_capa & TX_SUMS;
	port->trusted = conf->rxmode.offloads & RX_SUMS;
	if (conf->txmode.offloads & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM)
		port->device_sums |= SL_SUM_IP;
	if (conf->txmode.offloads & RTE_ETH_TX_OFFLOAD_TCP_CKSUM)
		port->device_sums |= SL_SUM_TCP;
	if (dpdk->config.segmentation)
		sl_port_ask_for_large(port, info, conf);
}

#define SPREAD (RTE_ETH_RSS_TCP | RTE_ETH_RSS_IP)

static void ask_for_spread(const struct sl_port *port, const struct rte_eth_dev_info *info,
			   struct rte_eth_conf *conf)
{
	struct rte_eth_rss_conf *rss = &conf->rx_adv_conf.rss_conf;

	if (!port->hashed)
		return;
	for (size_t i = 0; i < sizeof(symmetric_key); i++)
		symmetric_key[i] = i % 2 ? 0x5a : 0x6d;
	conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
	rss->rss_hf = info->flow_type_rss_offloads & SPREAD;
	rss->rss_key = info->hash_key_size > sizeof(symmetric_key) ? NULL : symmetric_key;
	rss->rss_key_len = info->hash_key_size ? info->hash_key_size : 40;
}

static int start_port(struct sl_dpdk *dpdk, struct sl_port *port, char *error, size_t error_size)
{
	struct rte_eth_conf conf = {.rxmode = {.mq_mode = RTE_ETH_MQ_RX_NONE}};
	struct rte_eth_dev_info info;
	int failed = rte_eth_dev_info_get(port->id, &info);
	uint16_t most;

	if (failed < 0)
		return tell_port(port, "the port's properties", failed, error, error_size);
	most = SL_MIN(info.max_rx_queues, info.max_tx_queues);
	port->hashed = dpdk->shards > 1 && most >= dpdk->shards &&
		       (info.flow_type_rss_offloads & SPREAD);
	// Queues that nothing spreads flows over would stand empty.
	port->queues = port->hashed ? (uint16_t)dpdk->shards : 1;
	port->beneath = info.if_index;
	ask_for_spread(port, &info, &conf);
	ask_for_offloads(dpdk, port, &info, &conf);
	failed = rte_eth_dev_configure(port->id, port->queues, port->queues, &conf);
	if (failed < 0 && port->joins) { // what it offers it may not have with the rest
		port->joins = false;
		conf.rxmode.offloads &= ~(RTE_ETH_RX_OFFLOAD_TCP_LRO | RTE_ETH_RX_OFFLOAD_SCATTER);
		failed = rte_eth_dev_configure(port->id, port->queues, port->queues, &conf);
	}
	if (failed < 0)
		return tell_port(port, "configuring the port", failed, error, error_size);
	failed = set_mtu(dpdk, port, &info, error, error_size);
	if (failed < 0)
		return failed;
	failed = set_up_queues(port, &info, error, error_size);
	if (failed < 0)
		return failed;
	failed = rte_eth_dev_start(port->id);
	if (failed < 0)
		return tell_port(port, "starting the port", failed, error, error_size);
	port->started = true;
	port->tabled = port->hashed && fill_table(port, &info) && conf.rx_adv_conf.rss_conf.rss_key;
	(void)rte_eth_promiscuous_disable(port->id);
	(void)rte_eth_allmulticast_enable(port->id); // neighbour discovery
	return 0;
}

// What the stack is to know of the ports.
static int tell_stack(struct sl_dpdk *dpdk, char *error, size_t error_size)
{
	for (uint32_t i = 0; i < dpdk->plan.stack.interface_count; i++) {
		struct sl_stack_interface *interface = &dpdk->plan.stack.interfaces[i];
		const struct sl_port *port = sl_dpdk_port_of(dpdk, i);
		struct rte_ether_addr mac;
		const int failed = rte_eth_macaddr_get(port->id, &mac);

		if (failed < 0)
			return tell_port(port, "the port's address", failed, error, error_size);
		memcpy(interface->mac, mac.addr_bytes, 6);
		interface->device_sums = port->device_sums;
	}
	return 0;
}

// A flow that a router moves from one port to another must come to the same shard. Ports that
// spread by the same key over the same table do that; of others the keyed hash decides.
static bool spread_alike(const struct sl_dpdk *dpdk)
{
	struct rte_eth_dev_info first, info;

	for (uint32_t i = 0; i < dpdk->port_count; i++) {
		if (!dpdk->ports[i].hashed ||
		    rte_eth_dev_info_get(dpdk->ports[i].id, i ? &info : &first) < 0)
			return false;
		if (dpdk->port_count > 1 && !dpdk->ports[i].tabled)
			return false;
		if (i && (info.reta_size != first.reta_size ||
			  info.hash_key_size != first.hash_key_size ||
			  info.flow_type_rss_offloads != first.flow_type_rss_offloads ||
			  strcmp(info.driver_name, first.driver_name) != 0))
			return false;
	}
	return true;
}

static int start_ports(struct sl_dpdk *dpdk, char *error, size_t error_size)
{
	int failed = 0;

	for (uint32_t i = 0; i < dpdk->port_count && !failed; i++)
		failed = start_port(dpdk, &dpdk->ports[i], error, error_size);
	if (!failed)
		failed = tell_stack(dpdk, error, error_size);
	if (failed)
		return failed;
	dpdk->steered = spread_alike(dpdk);
	failed = sl_dpdk_watch(dpdk);
	if (failed)
		snprintf(error, error_size, "dpdk: no memory for the ports' counters");
	return failed;
}

static void say_started(const struct sl_dpdk *dpdk, const struct sl_port *port)
{
	static const char *const sums[] = {"software", "port:ip", "port:tcp", "port:ip,tcp"};
	const uint8_t *mac = dpdk->plan.stack.interfaces[port->interfaces[0]].mac;

	sl_log(SL_LOG_INFO, "dpdk_started",
	       "port=%s queues=%u mac=%02x:%02x:%02x:%02x:%02x:%02x mtu=%u interfaces=%u "
	       "buffers=%u spread=%s sums_in=%s sums_out=%s cuts=%s joins=%s",
	       port->name, port->queues, mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], port->mtu,
	       port->interface_count, dpdk->packets, dpdk->steered ? "port" : "software",
	       port->trusted ? "port" : "software", sums[port->device_sums],
	       port->cuts ? "port" : "software", port->joins ? "port" : "software");
}

struct sl_dpdk *sl_dpdk_open(const struct sl_dpdk_config *config, uint32_t shards,
			     struct sl_metrics *metrics, char *error, size_t error_size)
{
	struct sl_dpdk *dpdk = calloc(1, sizeof(*dpdk));

	if (!dpdk) {
		snprintf(error, error_size, "dpdk: no memory");
		return NULL;
	}
	dpdk->config = *config;
	dpdk->config.interfaces = NULL; // the plan has them
	dpdk->shards = shards;
	dpdk->metrics = metrics;
	dpdk->lanes = calloc(shards, sizeof(struct sl_lane *));
	if (!dpdk->lanes || sl_dpdk_make_plan(config, &dpdk->plan, error, error_size) < 0 ||
	    sl_dpdk_check_packets(config, &dpdk->plan, shards, error, error_size) < 0 ||
	    start_eal(dpdk, error, error_size) < 0 || find_ports(dpdk, error, error_size) < 0 ||
	    sl_dpdk_make_pools(dpdk, error, error_size) < 0 ||
	    start_ports(dpdk, error, error_size) < 0) {
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
	for (uint32_t i = 0; i < dpdk->port_count; i++)
		say_started(dpdk, &dpdk->ports[i]);
	return dpdk;
}

void sl_dpdk_close(struct sl_dpdk *dpdk)
{
	if (!dpdk)
		return;
	for (uint32_t i = 0; dpdk->lanes && i < dpdk->shards; i++)
		sl_lane_end(dpdk->lanes[i]);
	for (uint32_t i = 0; dpdk->lanes && i < dpdk->shards; i++)
		sl_lane_destroy(dpdk->lanes[i]);
	sl_dpdk_unwatch(dpdk);
	for (uint32_t i = 0; i < dpdk->port_count; i++) {
		if (!dpdk->ports[i].started)
			continue;
		rte_eth_dev_stop(dpdk->ports[i].id);
		rte_eth_dev_close(dpdk->ports[i].id);
	}
	sl_dpdk_free_pools(dpdk);
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
	for (uint32_t i = 0; i < dpdk->plan.stack.interface_count; i++) {
		if (sl_stack_owns(&dpdk->plan.stack.interfaces[i], at))
			return true;
	}
	return false;
}

struct sl_io_backend *sl_dpdk_backend(struct sl_dpdk *dpdk, uint32_t shard)
{
	return &dpdk->lanes[shard]->backend;
}
