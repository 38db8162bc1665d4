#include <net/if.h>
#include <rte_ethdev.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/base/log.h"
#include "dataplane/io/dpdk/internal.h"

// The ports as an operator sees them: link, what the device counts, packet buffers. Looked at ten
// times a second by the first lane's shard; some drivers ask the kernel.

// Drivers over an interface of the kernel's (af_xdp) call their link up whatever that one is.
static bool beneath_is_up(const struct sl_port *port)
{
	struct ifreq request = {.ifr_ifindex = (int)port->beneath};

	if (port->beneath_fd < 0 || ioctl(port->beneath_fd, SIOCGIFNAME, &request) < 0 ||
	    ioctl(port->beneath_fd, SIOCGIFFLAGS, &request) < 0)
		return true;
	return request.ifr_flags & IFF_RUNNING;
}

static void look_at_link(struct sl_port *port)
{
	struct sl_dpdk_port_counters *counters = &port->counters;
	// Of a driver that cannot tell, as if it were there.
	struct rte_eth_link link = {.link_status = RTE_ETH_LINK_UP,
				    .link_speed = RTE_ETH_SPEED_NUM_UNKNOWN};
	uint64_t speed = 0;
	bool up;

	(void)rte_eth_link_get_nowait(port->id, &link);
	up = link.link_status && beneath_is_up(port);
	if (up && link.link_speed != RTE_ETH_SPEED_NUM_UNKNOWN)
		speed = (uint64_t)link.link_speed * 1000000;
	sl_gauge(&counters->link_speed[0], speed);
	if (up == (bool)counters->link_up[0])
		return;
	sl_gauge(&counters->link_up[0], up);
	sl_log(up ? SL_LOG_INFO : SL_LOG_WARN, up ? "dpdk_link_up" : "dpdk_link_down",
	       "port=%s mbit_per_s=%lu", port->name, speed / 1000000);
}

static void look_at_port(struct sl_port *port)
{
	struct sl_dpdk_port_counters *counters = &port->counters;
	struct rte_eth_stats stats;

	look_at_link(port);
	if (rte_eth_stats_get(port->id, &stats) < 0)
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

void sl_dpdk_look(struct sl_dpdk *dpdk)
{
	bool low;
	const uint32_t free_count = sl_dpdk_free_packets(dpdk, &low);

	for (uint32_t i = 0; i < dpdk->port_count; i++)
		look_at_port(&dpdk->ports[i]);
	sl_gauge(&dpdk->counters.pool_free[0], free_count);
	sl_gauge(&dpdk->counters.pool_used[0], dpdk->packets - SL_MIN(free_count, dpdk->packets));
}

int sl_dpdk_watch(struct sl_dpdk *dpdk)
{
	int failed = sl_metrics_add(dpdk->metrics, sl_dpdk_pool_counter_rows,
				    sl_dpdk_pool_counter_row_count, &dpdk->counters, -1, NULL);

	for (uint32_t i = 0; i < dpdk->port_count && !failed; i++) {
		struct sl_port *port = &dpdk->ports[i];
		char labels[80];

		port->beneath_fd = port->beneath ? socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
						 : -1;
		snprintf(labels, sizeof(labels), "port=\"%s\"", port->name);
		failed = sl_metrics_add(dpdk->metrics, sl_dpdk_port_counter_rows,
					sl_dpdk_port_counter_row_count, &port->counters, -1,
					labels);
	}
	if (!failed)
		sl_dpdk_look(dpdk);
	return failed;
}

void sl_dpdk_unwatch(struct sl_dpdk *dpdk)
{
	sl_metrics_remove(dpdk->metrics, &dpdk->counters);
	for (uint32_t i = 0; i < dpdk->port_count; i++) {
		sl_metrics_remove(dpdk->metrics, &dpdk->ports[i].counters);
		if (dpdk->ports[i].beneath_fd >= 0)
			close(dpdk->ports[i].beneath_fd);
	}
}
