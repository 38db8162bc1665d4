#include "config/control/process.h"

#include <sched.h>
#include <unistd.h>

#include "config/control/cgroup.h"

#include "config/rows.h"

#define BUDGET_PRESET (64 * SL_MIB)
#define BUDGET_LEAST  (16 * SL_MIB)
#define BUDGET_MOST   (1 * SL_GIB)
#define SHARDS_MAX    256

// Rows of a nested struct without a name: its offsets begin at its first field.
#define IN(base_, field_, name_, type_, ...)                                                       \
	{                                                                                          \
		.name = name_, .type = SL_TYPE_##type_,                                            \
		.offset = offsetof(struct sl_process_config, base_.field_) -                       \
			  offsetof(struct sl_process_config, base_),                               \
		__VA_ARGS__                                                                        \
	}

static const char *const auto_word[] = {"auto", NULL};
static const char *const io_choices[] = {"kernel", "dpdk", NULL};
static const char *const level_choices[] = {"debug", "info", "warn", "error", NULL};
static const char *const format_choices[] = {"logfmt", "json", NULL};

static const struct sl_setting poll_rows[] = {
	IN(poll, spin_ns, "spin", DURATION, .only = "!busy", .max = 1e9, .preset = "0s",
	   .apply = SL_APPLY_RESTART, .help = "A shard looks for work this long before it blocks."),
	IN(poll, busy, "busy", BOOL, .preset = "false", .apply = SL_APPLY_RESTART,
	   .help = "Shards never block: the lowest latency, a whole core each."),
	IN(poll, nap_ns, "nap", DURATION, .max = 1e9, .preset = "0s", .apply = SL_APPLY_RESTART,
	   .help = "A shard that found little work sleeps this long to gather more."),
};
static const struct sl_settings poll_settings = {
	.name = "poll",
	.help = "How shards wait.",
	.bytes = sizeof(((struct sl_process_config *)0)->poll),
	.rows = poll_rows,
	.row_count = SL_COUNT_OF(poll_rows),
};

static const struct sl_setting interface_rows[] = {
	WHERE(sl_process_interface),
	ROW(sl_process_interface, device, "device", STRING, .apply = SL_APPLY_RESTART,
	    .help = "Its port by name; without it the first."),
	ROW(sl_process_interface, vlan, "vlan", COUNT, .max = 4094, .preset = "0",
	    .apply = SL_APPLY_RESTART,
	    .help = "Its VLAN of the port; 0: frames without a tag. A port may have several."),
	ROW(sl_process_interface, addresses, "addresses", LIST, .element = SL_TYPE_STRING,
	    .apply = SL_APPLY_RESTART,
	    .help = "Addresses with prefixes. No two interfaces may be in one subnet; one address "
		    "of several interfaces is a VIP (/32, /128)."),
	ROW(sl_process_interface, gateway4, "gateway4", STRING, .apply = SL_APPLY_RESTART,
	    .help = "Next hop of what leaves by it to IPv4 beyond its prefix."),
	ROW(sl_process_interface, gateway6, "gateway6", STRING, .apply = SL_APPLY_RESTART,
	    .help = "Next hop of what leaves by it to IPv6 beyond its prefixes."),
	ROW(sl_process_interface, mtu, "mtu", BYTES, .max = 9000, .preset = "0",
	    .apply = SL_APPLY_RESTART,
	    .help = "Largest IP packet, 1280 at least; 0: dpdk.mtu. A port takes the largest of "
		    "its interfaces'."),
};
static const struct sl_settings interface_settings = SETTINGS(
	"dpdk.interface", sl_process_interface, interface_rows,
	.help = "One way to the wire of `io: dpdk`: a port, or one VLAN of it. An answer "
		"leaves by the interface that its call came in on.");

static const struct sl_setting dpdk_rows[] = {
	IN(dpdk, eal, "eal", LIST, .element = SL_TYPE_STRING, .apply = SL_APPLY_RESTART,
	   .help = "Arguments of DPDK's environment: devices, memory, cores."),
	IN(dpdk, device, "device", STRING, .apply = SL_APPLY_RESTART,
	   .help = "The port by name (\"net_af_xdp0\", \"0000:03:00.0\"); without it the first."),
	IN(dpdk, addresses, "addresses", LIST, .element = SL_TYPE_STRING, .apply = SL_APPLY_RESTART,
	   .help = "Addresses with prefixes: \"10.0.0.2/24\", \"fd00::2/64\". The first of IPv4 is "
		   "the port's; more of them are VIPs (/32), as on a loopback. Beside "
		   "`interfaces`: VIPs of all of them."),
	IN(dpdk, interfaces, "interfaces", LIST, .element = SL_TYPE_OBJECT,
	   .object = &interface_settings, .apply = SL_APPLY_RESTART,
	   .help = "Several ports, or VLANs of a port, instead of device, vlan, gateway4 and "
		   "gateway6 here; at most 8."),
	IN(dpdk, gateway4, "gateway4", STRING, .apply = SL_APPLY_RESTART,
	   .help = "Next hop of IPv4 beyond the prefixes."),
	IN(dpdk, gateway6, "gateway6", STRING, .apply = SL_APPLY_RESTART,
	   .help = "Next hop of IPv6 beyond the prefixes; without it there is nothing beyond "
		   "them: router advertisements are not believed."),
	IN(dpdk, mtu, "mtu", BYTES, .min = 1280, .max = 9000, .preset = "1500",
	   .apply = SL_APPLY_RESTART, .help = "Largest IP packet."),
	IN(dpdk, vlan, "vlan", COUNT, .max = 4094, .preset = "0", .apply = SL_APPLY_RESTART,
	   .help = "VLAN that the port is in (802.1Q); frames of others are dropped. 0: frames "
		   "without a tag. A tag's four bytes are not part of the mtu."),
	IN(dpdk, packets, "packets", COUNT, .max = 16e6, .preset = "0", .apply = SL_APPLY_RESTART,
	   .help = "Packet buffers of all shards; for each port at least 4096, and 512 a shard. "
		   "0: 16384 a shard, and 4096 for each further port."),
	IN(dpdk, idle_ns, "idle", DURATION, .max = 1e7, .preset = "50us", .apply = SL_APPLY_RESTART,
	   .help = "A shard without traffic sleeps this long between looks; 0: never, a whole "
		   "core each."),
	IN(dpdk, offloads, "offloads", BOOL, .preset = "true", .apply = SL_APPLY_RESTART,
	   .help = "The device checks and computes checksums, those that it offers to."),
	IN(dpdk, segmentation, "segmentation", BOOL, .preset = "true", .apply = SL_APPLY_RESTART,
	   .only = "offloads",
	   .help = "The device cuts the segments of TCP that are sent and joins those that are "
		   "received (TSO, LRO), where it offers to."),
};
static const struct sl_settings dpdk_settings = {
	.name = "dpdk",
	.help = "The DPDK ports of `io: dpdk`.",
	.bytes = sizeof(((struct sl_process_config *)0)->dpdk),
	.rows = dpdk_rows,
	.row_count = SL_COUNT_OF(dpdk_rows),
};

static const struct sl_setting log_rows[] = {
	IN(log, level, "level", ENUM, .choices = level_choices, .preset = "info",
	   .help = "Lines below it are not written."),
	IN(log, format, "format", ENUM, .choices = format_choices, .preset = "logfmt",
	   .help = "How lines are written."),
};
static const struct sl_settings log_settings = {
	.name = "log",
	.help = "Log lines on stderr.",
	.bytes = sizeof(((struct sl_process_config *)0)->log),
	.rows = log_rows,
	.row_count = SL_COUNT_OF(log_rows),
};

static const struct sl_setting process_rows[] = {
	WHERE(sl_process_config),
	ROW(sl_process_config, shards, "shards", COUNT, .min = 1, .max = SHARDS_MAX,
	    .choices = auto_word, .preset = "auto", .apply = SL_APPLY_RESTART,
	    .help = "Threads that carry traffic, each on its core; auto: one a usable core."),
	ROW(sl_process_config, io, "io", ENUM, .choices = io_choices, .preset = "kernel",
	    .apply = SL_APPLY_RESTART,
	    .help = "Where bytes come from: kernel sockets, or ports of DPDK beside them."),
	ROW(sl_process_config, dpdk, "dpdk", OBJECT, .only = "io: dpdk", .object = &dpdk_settings,
	    .help = "The ports of `io: dpdk`."),
	ROW(sl_process_config, poll, "poll", OBJECT, .object = &poll_settings,
	    .help = "How shards wait."),
	ROW(sl_process_config, admin, "admin", ADDRESS,
	    .where_offset = offsetof(struct sl_process_config, admin_where),
	    .preset = "127.0.0.1:8080", .apply = SL_APPLY_RESTART,
	    .help = "Address of the admin HTTP server; \"\" for none."),
	ROW(sl_process_config, log, "log", OBJECT, .object = &log_settings, .help = "Log lines."),
	ROW(sl_process_config, memory_budget_bytes, "memory_budget", BYTES, .min = 1 << 20,
	    .max = 0x1p40, .choices = auto_word, .preset = "64MiB", .apply = SL_APPLY_RESTART,
	    .help = "Memory of one shard for bodies; auto: a quarter of the cgroup's limit, "
		    "over all shards."),
	ROW(sl_process_config, drain_delay_ns, "drain_delay", DURATION, .max = 3.6e12,
	    .preset = "0s", .help = "/readyz fails this long before connections are asked to go."),
	ROW(sl_process_config, drain_timeout_ns, "drain_timeout", DURATION, .max = 3.6e12,
	    .preset = "30s",
	    .help = "What is still open this long after drain_delay is abandoned."),
	ROW(sl_process_config, ledger, "ledger", OBJECT, .object = &sl_ledger_settings,
	    .help = "What each tenant sent and what became of it."),
};
static const struct sl_settings process_settings = {
	.name = "process",
	.help = "What belongs to the whole process.",
	.bytes = sizeof(struct sl_process_config),
	.rows = process_rows,
	.row_count = SL_COUNT_OF(process_rows),
};

static void *build(const void *config, const struct sl_build *build)
{
	(void)build;
	return (void *)(uintptr_t)config; // the snapshot owns it
}

const struct sl_module sl_process_module = {
	.id = SL_MODULE_PROCESS,
	.name = "process",
	.settings = &process_settings,
	.build = build,
};

uint32_t sl_process_shards(const struct sl_process_config *config)
{
	const struct sl_cgroup_limits limits = sl_cgroup_limits(SL_CGROUP_MOUNT, SL_CGROUP_SELF);
	uint32_t cores = 1;
	cpu_set_t set;

	if (config->shards)
		return (uint32_t)config->shards;
	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		cores = (uint32_t)CPU_COUNT(&set);
	// A fraction of a core that is left over would only throttle its shard.
	if (limits.cpus > 0 && limits.cpus < cores)
		cores = (uint32_t)limits.cpus;
	return SL_MIN(SL_MAX(cores, 1), SHARDS_MAX);
}

uint64_t sl_process_memory_budget(const struct sl_process_config *config, uint32_t shards)
{
	const struct sl_cgroup_limits limits = sl_cgroup_limits(SL_CGROUP_MOUNT, SL_CGROUP_SELF);
	uint64_t share;

	if (config->memory_budget_bytes)
		return config->memory_budget_bytes;
	if (!limits.memory_bytes)
		return BUDGET_PRESET;
	share = limits.memory_bytes / 4 / SL_MAX(shards, 1);
	return SL_MIN(SL_MAX(share, BUDGET_LEAST), BUDGET_MOST);
}
