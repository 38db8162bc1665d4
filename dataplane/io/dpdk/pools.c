#include <errno.h>
#include <rte_errno.h>
#include <stdio.h>

#include "dataplane/io/dpdk/internal.h"

// Packet buffers: one pool for each memory node (NUMA) that a port is on, as a device writes into
// its own node's memory and a frame leaves by it. Most machines' ports are on one.

#define CACHE_PACKETS 256
#define LOW_SHARE     4 // below 1/4 of a pool free, frames are copied out of it

static struct sl_pool *pool_on(struct sl_dpdk *dpdk, int socket)
{
	for (uint32_t i = 0; i < dpdk->pool_count; i++) {
		if (dpdk->pools[i].socket == socket)
			return &dpdk->pools[i];
	}
	dpdk->pools[dpdk->pool_count].socket = socket;
	return &dpdk->pools[dpdk->pool_count++];
}

// On its node, else (an EAL without huge pages has memory on one only) wherever there is some.
static struct rte_mempool *create(const struct sl_pool *pool, const char *name, uint16_t room)
{
	const int sockets[] = {pool->socket, SOCKET_ID_ANY};
	struct rte_mempool *made = NULL;

	for (size_t i = 0; i < SL_COUNT_OF(sockets) && !made; i++)
		made = rte_pktmbuf_pool_create(name, pool->count, CACHE_PACKETS,
					       SL_STACK_ROOM_BYTES, room, sockets[i]);
	return made;
}

int sl_dpdk_make_pools(struct sl_dpdk *dpdk, char *error, size_t error_size)
{
	const uint32_t room = sl_dpdk_frame_room(&dpdk->plan);
	const uint32_t packets = sl_dpdk_packets(&dpdk->config, dpdk->shards, dpdk->port_count);
	uint32_t mtu = UINT16_MAX, least = UINT32_MAX;

	for (uint32_t i = 0; i < dpdk->port_count; i++) {
		struct sl_port *port = &dpdk->ports[i];

		port->pool = pool_on(dpdk, rte_eth_dev_socket_id(port->id));
		port->pool->ports++;
	}
	for (uint32_t i = 0; i < dpdk->pool_count; i++) {
		struct sl_pool *pool = &dpdk->pools[i];
		char name[32];

		snprintf(name, sizeof(name), "sluice%u", i);
		pool->count = (uint32_t)((uint64_t)packets * pool->ports / dpdk->port_count);
		pool->packets = create(pool, name, (uint16_t)(room + RTE_PKTMBUF_HEADROOM));
		if (!pool->packets) {
			snprintf(error, error_size, "dpdk: %u packet buffers of %u bytes: %s; %s",
				 pool->count, room, rte_strerror(rte_errno),
				 rte_errno == ENOMEM ? "give the EAL more memory (-m, or "
						       "hugepages), or lower dpdk.packets"
						     : "see the EAL's lines above");
			return -ENOMEM;
		}
		dpdk->packets += pool->count;
		least = SL_MIN(least, pool->count);
	}
	for (uint32_t i = 0; i < dpdk->plan.stack.interface_count; i++)
		mtu = SL_MIN(mtu, (uint32_t)dpdk->plan.stack.interfaces[i].mtu);
	// Half of the memory for windows, a shard its part of it: of the smallest pool, as all
	// peers may come by its ports.
	dpdk->plan.stack.window_budget = (uint64_t)least * mtu / 2 / dpdk->shards;
	return 0;
}

void sl_dpdk_free_pools(struct sl_dpdk *dpdk)
{
	for (uint32_t i = 0; i < dpdk->pool_count; i++)
		rte_mempool_free(dpdk->pools[i].packets);
}

uint32_t sl_dpdk_free_packets(const struct sl_dpdk *dpdk, bool *low)
{
	uint32_t sum = 0;

	*low = false;
	for (uint32_t i = 0; i < dpdk->pool_count; i++) {
		const uint32_t free_count = rte_mempool_avail_count(dpdk->pools[i].packets);

		sum += free_count;
		*low |= free_count < dpdk->pools[i].count / LOW_SHARE;
	}
	return sum;
}
