#pragma once

#include "dataplane/io/dpdk/dpdk.h"
#include "dataplane/io/dpdk/stack.h"

// The configuration as the stack and the ports want it; without a port, so in every build. The form
// of one port is one interface.
//
// Threading: any. Memory: names are the configuration's.
struct sl_dpdk_plan {
	struct sl_stack_config stack;
	struct sl_dpdk_place {      // of the stack's interfaces
		const char *device; // NULL: the first
		uint16_t vlan;
	} places[SL_STACK_INTERFACES_MAX];
};

// Packet buffers, over so many ports; and the room of one frame in each.
uint32_t sl_dpdk_packets(const struct sl_dpdk_config *config, uint32_t shards, uint32_t ports);
uint32_t sl_dpdk_frame_room(const struct sl_dpdk_plan *plan);

// Return 0, or -EINVAL with a text for the operator.
int sl_dpdk_make_plan(const struct sl_dpdk_config *config, struct sl_dpdk_plan *plan, char *error,
		      size_t error_size);
// Ports are counted by name and may all be on memory nodes of their own, each with a pool.
int sl_dpdk_check_packets(const struct sl_dpdk_config *config, const struct sl_dpdk_plan *plan,
			  uint32_t shards, char *error, size_t error_size);
