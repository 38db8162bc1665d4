#pragma once

#include "config/control/ledger.h"
#include "config/module.h"
#include "dataplane/base/log.h"

// The PROCESS module: what belongs to the whole process. Threading: read-only once built. Keys
// `shards`, `io`, `dpdk`, `poll`, `admin`, `log`, `memory_budget`, `drain_delay`,
// `drain_timeout`, `ledger`.
// Its part is the struct itself.
enum sl_process_io { SL_PROCESS_IO_KERNEL, SL_PROCESS_IO_DPDK };

struct sl_process_interface {
	struct sl_where where;
	struct sl_list addresses; // const char *
	const char *device, *gateway4, *gateway6;
	uint64_t mtu, vlan;
};

struct sl_process_config {
	struct sl_where where;
	uint64_t shards; // 0: auto, one a usable core
	uint32_t io;
	struct {
		struct sl_list eal, addresses; // const char *
		struct sl_list interfaces;     // struct sl_process_interface
		const char *device, *gateway4, *gateway6;
		uint64_t mtu, vlan, packets, idle_ns;
		bool offloads, segmentation;
	} dpdk;
	struct {
		uint64_t spin_ns, nap_ns;
		bool busy;
	} poll;
	struct sl_address admin; // size 0: none
	struct sl_where admin_where;
	struct {
		uint32_t level, format; // enum sl_log_level, sl_log_format
	} log;
	uint64_t memory_budget_bytes; // of a shard; 0: auto
	uint64_t drain_delay_ns, drain_timeout_ns;
	struct sl_ledger_config ledger;
};

extern const struct sl_module sl_process_module;

// What `auto` means here: cores of the affinity mask, cut to the cgroup's cpu.max; the budget is
// a quarter of the cgroup's memory.max over all shards, 16 MiB to 1 GiB, 64 MiB without a limit.
uint32_t sl_process_shards(const struct sl_process_config *config);
uint64_t sl_process_memory_budget(const struct sl_process_config *config, uint32_t shards);
