#include <net/if.h>
#include <rte_ethdev.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/base/log.h"
#include "dataplane/io/dpdk/internal.h"

// The port as an operator sees it: link, what the device counts, packet buffers. Looked at ten
// times a second by the first lane's shard; some drivers ask the kernel.

// Drivers over an interface of the kernel's (af_xdp) call their link up whatever that one is.
static bool interface_is_up(const struct sl_dpdk *dpdk)
{
	struct ifreq request = {.ifr_ifindex = (int)dpdk->interface};

	if (dpdk->interface_fd < 0 || ioctl(dpdk->interface_fd, SIOCGIFNAME, &request) < 0 ||
	    ioctl(dpdk->interface_fd, SIOCGIFFLAGS, &request) < 0)
		return true;
	return request.ifr_flags & IFF_RUNNING;
}

static void look_at_link(struct sl_dpdk *dpdk)
{
	struct sl_dpdk_port_counters *counters = &dpdk->counters;
	// Of a driver that cannot tell, as if it were there.
	struct rte_eth_link link = {.link_status = RTE_ETH_LINK_UP,
				    .link_speed = RTE_ETH_SPEED_NUM_UNKNOWN};
	uint64_t speed = 0;
	bool up;

	(void)rte_eth_link_get_nowait(dpdk->port, &link);
	up = link.link_status && interface_is_up(dpdk);
	if (up && link.link_speed != RTE_ETH_SPEED_NUM_UNKNOWN)
		speed = (uint64_t)link.link_speed * 1000000;
	sl_gauge(&counters->link_speed[0], speed);
	if (up == (bool)counters->link_up[0])
		return;
	sl_gauge(&counters->link_up[0], up);
	sl_log(up ? SL_LOG_INFO : SL_LOG_WARN, up ? "dpdk_link_up" : "dpdk_link_down",
	       "port=%s mbit_per_s=%lu", dpdk->name, speed / 1000000);
}

void sl_dpdk_look(struct sl_dpdk *dpdk)
{
	struct sl_dpdk_port_counters *counters = &dpdk->counters;
	const uint32_t free_count = rte_mempool_avail_count(dpdk->pool);
	struct rte_eth_stats stats;

	look_at_link(dpdk);
	sl_gauge(&counters->pool_free[0], free_count);
	sl_gauge(&counters->pool_used[0], dpdk->packets - SL_MIN(free_count, dpdk->packets));
	if (rte_eth_stats_get(dpdk->port, &stats) < 0)
		return;
	sl_gauge(&counters->rx_packets[0], stats.ipackets);
	sl_gauge(&counters->rx_bytes[0], stats.ibytes);
	sl_gauge(&counters->tx_packets[0], stats.opackets);
	sl_gauge(&counters->tx_bytes[0], stats.obytes);
	sl_gauge(&counters->rx_errors[0], stats.ierrors);
	sl_gauge(&counters->tx_errors[0], stats.oerrors);
	sl_gauge(&counters->no_buffer[0], stats.rx_nombuf);
	sl_gauge(&counters->missed[0], stats.imissed + stats.rx_nombuf);
}

int sl_dpdk_watch(struct sl_dpdk *dpdk, uint32_t interface)
{
	char labels[80];

	dpdk->interface = interface;
	dpdk->interface_fd = interface ? socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
	snprintf(labels, sizeof(labels), "port=\"%s\"", dpdk->name);
	sl_dpdk_look(dpdk);
	return sl_metrics_add(dpdk->metrics, sl_dpdk_port_counter_rows,
			      sl_dpdk_port_counter_row_count, &dpdk->counters, -1, labels);
}

void sl_dpdk_unwatch(struct sl_dpdk *dpdk)
{
	sl_metrics_remove(dpdk->metrics, &dpdk->counters);
	if (dpdk->interface_fd >= 0)
		close(dpdk->interface_fd);
}
