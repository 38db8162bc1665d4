#pragma once

#include "config/module.h"

// What a configuration may come to take of the machine's memory, by its own bounds: for `--check`.
//
// Threading: control thread. Memory: plain value.
struct sl_worst {
	uint32_t shards;
	uint64_t budget_bytes;     // of a shard, for bodies
	uint64_t connection_bytes; // of one, at most
	uint64_t connections_max;  // of a shard
	// Over all of them.
	uint64_t bodies, connections, drivers, spools, ledger, cardinality, ports, sum;
};
// By the listeners' limits: an inflated body, and connections of a shard; and what the ports of
// DPDK take.
struct sl_worst sl_control_worst(const struct sl_snapshot *snapshot, uint64_t body_bytes_max,
				 uint64_t connections_max, uint64_t ports_bytes);
