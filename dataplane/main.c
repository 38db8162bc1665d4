// sluice: what the process is made of, in the order in which it comes up and goes down.
//
//   configuration -> listeners -> shards -> control loop (until SIGTERM) -> shards end

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/control/control.h"
#include "config/control/process.h"
#include "config/control/worst.h"
#include "dataplane/base/hash.h"
#include "dataplane/base/log.h"
#include "dataplane/io/dpdk/dpdk.h"
#include "dataplane/io/listener.h"
#include "dataplane/metrics_reference.h"
#include "dataplane/options.h"
#include "dataplane/replay.h"
#include "dataplane/shard/datagram.h"
#include "dataplane/shard/settings.h"
#include "dataplane/shard/shard.h"
#include "routing/routing.h"
#include "sampling/sampling.h"
#include "tenants/ledger/ledger.h"
#include "tenants/tenants.h"

#define BACKLOG 4096

struct process {
	struct sl_metrics *metrics;
	struct sl_snapshots *snapshots;
	struct sl_process_config config; // of the first snapshot: what needs a restart
	int *listen_fds;
	struct sl_address *listen_addresses;
	struct sl_ledger *ledger;
	struct sl_dpdk *dpdk; // or NULL
	uint32_t listen_count;
	const struct sl_datagrams_config *datagrams; // of the first snapshot
	int *datagram_fds;                           // [shards][datagrams->listen.count]
	bool *listen_inherited;                      // another process may serve them when we drain
	struct sl_shard **shards;
	uint32_t shard_count;
	bool unready; // writer: the control loop; shards read
};

// The one table of modules: what is configurable at the top level, and what a snapshot holds.
static struct sl_module modules[SL_MODULES];

static void fill_modules(void)
{
	modules[0] = sl_process_module;
	modules[1] = sl_server_module;
	modules[2] = sl_tenants_module;
	modules[3] = sl_sampling_module;
	modules[4] = sl_routing_module;
}

// What concerns several modules. Two of the largest bodies, one as it came and one inflated, must
// fit half of a shard's budget: else a body that the limits allow could never be taken.
static void check_whole(void *self, const struct sl_snapshot *snapshot, struct sl_errors *errors)
{
	const struct sl_process_config *config = snapshot->parts[SL_MODULE_PROCESS];
	const struct sl_server_part *server = snapshot->parts[SL_MODULE_SERVER];
	const uint64_t budget = sl_process_memory_budget(config, sl_process_shards(config));
	char text[SL_ADDRESS_TEXT_MAX];

	(void)self;
	sl_control_check_classes(snapshot, errors);
	sl_control_check_quotas(snapshot, errors);
	sl_control_check_ledger(snapshot, errors);
	for (uint32_t i = 0; i < server->listen_count; i++) {
		if (sl_address_clashes(&server->listens[i].address, &config->admin))
			sl_errors_add(errors,
				      config->admin_where.line ? &config->admin_where
							       : &config->where,
				      "admin: %s is an address of listen, too",
				      sl_address_text(&config->admin, text));
	}
	if (2 * server->limits.body_bytes_max > budget / 2)
		sl_errors_add(errors, &config->where,
			      "limits.body_bytes of %.4g MiB needs a memory_budget of at least "
			      "%.4g MiB a shard, which is %.4g MiB",
			      (double)server->limits.body_bytes_max / (double)SL_MIB,
			      4 * (double)server->limits.body_bytes_max / (double)SL_MIB,
			      (double)budget / (double)SL_MIB);
}

// The list is the caller's to free. Returns 0, or -ENOMEM: without its interfaces it would be
// another configuration.
static int dpdk_config(const struct sl_process_config *config, struct sl_dpdk_config *dpdk,
		       struct sl_dpdk_interface **list)
{
	const struct sl_process_interface *listed = config->dpdk.interfaces.items;
	const size_t count = config->dpdk.interfaces.count;

	*list = calloc(count + 1, sizeof(**list));
	if (!*list)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		(*list)[i] = (struct sl_dpdk_interface){
			.device = listed[i].device,
			.addresses = listed[i].addresses.items,
			.address_count = listed[i].addresses.count,
			.gateway4 = listed[i].gateway4,
			.gateway6 = listed[i].gateway6,
			.mtu = (uint32_t)listed[i].mtu,
			.vlan = (uint16_t)listed[i].vlan,
		};
	*dpdk = (struct sl_dpdk_config){
		.eal = config->dpdk.eal.items,
		.eal_count = config->dpdk.eal.count,
		.only = {.device = config->dpdk.device,
			 .addresses = config->dpdk.addresses.items,
			 .address_count = config->dpdk.addresses.count,
			 .gateway4 = config->dpdk.gateway4,
			 .gateway6 = config->dpdk.gateway6,
			 .mtu = (uint32_t)config->dpdk.mtu,
			 .vlan = (uint16_t)config->dpdk.vlan},
		.interfaces = *list,
		.interface_count = count,
		.packets = (uint32_t)config->dpdk.packets,
		.idle_ns = config->dpdk.idle_ns,
		.offloads = config->dpdk.offloads,
		.segmentation = config->dpdk.segmentation,
	};
	return 0;
}

static void check_dpdk(const struct sl_snapshot *snapshot, struct sl_errors *errors)
{
	const struct sl_process_config *config = snapshot->parts[SL_MODULE_PROCESS];
	struct sl_dpdk_interface *interfaces;
	struct sl_dpdk_config dpdk;
	char error[512];

	if (config->io != SL_PROCESS_IO_DPDK)
		return;
	if (dpdk_config(config, &dpdk, &interfaces) < 0) {
		sl_errors_add(errors, &config->where, "dpdk: no memory");
		return;
	}
	if (sl_dpdk_check(&dpdk, sl_process_shards(config), error, sizeof(error)) < 0)
		sl_errors_add(errors, &config->where, "%s", error);
	free(interfaces);
}

static struct sl_snapshot *load(const char *file, bool check_only)
{
	struct sl_errors *errors = sl_errors_create();
	struct sl_snapshot *snapshot;

	snapshot = sl_snapshot_load(modules, SL_MODULES, file, NULL, check_only, errors);
	if (snapshot) {
		check_whole(NULL, snapshot, errors);
		check_dpdk(snapshot, errors);
	}
	if (snapshot && sl_errors_count(errors)) {
		sl_snapshot_destroy(modules, SL_MODULES, snapshot);
		snapshot = NULL;
	}
	for (uint32_t i = 0; i < sl_errors_count(errors); i++)
		fprintf(stderr, "%s\n", sl_errors_line(errors, i));
	for (uint32_t i = 0; i < sl_errors_warnings(errors); i++)
		fprintf(stderr, "%s\n", sl_errors_warning(errors, i));
	sl_errors_destroy(errors);
	return snapshot;
}

// Returns 0, or -ENOMEM.
static int dpdk_bytes(const struct sl_snapshot *snapshot, uint64_t *bytes)
{
	const struct sl_process_config *config = snapshot->parts[SL_MODULE_PROCESS];
	struct sl_dpdk_interface *interfaces;
	struct sl_dpdk_config dpdk;

	*bytes = 0;
	if (config->io != SL_PROCESS_IO_DPDK)
		return 0;
	if (dpdk_config(config, &dpdk, &interfaces) < 0)
		return -ENOMEM;
	*bytes = sl_dpdk_memory_bytes(&dpdk, sl_process_shards(config));
	free(interfaces);
	return 0;
}

static int check(const char *file)
{
	struct sl_snapshot *snapshot = load(file, true);
	const double mib = (double)SL_MIB;
	const struct sl_server_part *server;
	struct sl_worst worst;
	uint64_t ports;

	if (!snapshot)
		return SL_EXIT_CONFIG;
	if (dpdk_bytes(snapshot, &ports) < 0) {
		sl_snapshot_destroy(modules, SL_MODULES, snapshot);
		fprintf(stderr, "sluice: no memory\n");
		return SL_EXIT_FAILURE;
	}
	server = snapshot->parts[SL_MODULE_SERVER];
	worst = sl_control_worst(snapshot, server->limits.body_bytes_max,
				 server->limits.connections_max, ports);
	printf("%s: fine\n"
	       "memory at worst: %u shards of %.0f MiB for bodies, and at most %.0f KiB for each "
	       "connection (%llu a shard)\n"
	       "  MiB: %.1f bodies, %.1f connections, %.1f Kafka's queues, %.1f out of spools, "
	       "%.1f ledger, %.1f limits on different values, %.1f ports of DPDK: %.1f in all\n",
	       file, worst.shards, (double)worst.budget_bytes / mib,
	       (double)worst.connection_bytes / (double)SL_KIB,
	       (unsigned long long)worst.connections_max, (double)worst.bodies / mib,
	       (double)worst.connections / mib, (double)worst.drivers / mib,
	       (double)worst.spools / mib, (double)worst.ledger / mib,
	       (double)worst.cardinality / mib, (double)worst.ports / mib, (double)worst.sum / mib);
	sl_snapshot_destroy(modules, SL_MODULES, snapshot);
	return 0;
}

static int dump(const char *file)
{
	const struct sl_settings *settings = sl_modules_settings(modules, SL_MODULES);
	struct sl_errors *errors = sl_errors_create();
	struct sl_loaded loaded = {0};
	char *text = NULL;
	const int failed = file ? sl_settings_load(settings, file, &loaded, errors)
				: sl_settings_load_text(settings, "presets", "", 0, &loaded,
							errors);

	for (uint32_t i = 0; i < sl_errors_count(errors); i++)
		fprintf(stderr, "%s\n", sl_errors_line(errors, i));
	if (!failed) {
		text = sl_settings_dump(settings, loaded.object);
		fputs(text ? text : "", stdout);
		free(text);
	}
	sl_loaded_fini(&loaded);
	sl_errors_destroy(errors);
	return failed ? SL_EXIT_CONFIG : 0;
}

static int print_reference(void)
{
	char *text = sl_settings_reference(sl_modules_settings(modules, SL_MODULES));

	fputs(text ? text : "", stdout);
	free(text);
	sl_metrics_reference(stdout);
	return 0;
}

static int open_ports(struct process *process)
{
	struct sl_dpdk_interface *interfaces;
	struct sl_dpdk_config config;
	char error[512];

	if (process->config.io != SL_PROCESS_IO_DPDK)
		return 0;
	if (dpdk_config(&process->config, &config, &interfaces) < 0) {
		fprintf(stderr, "sluice: dpdk: no memory\n");
		return -ENOMEM;
	}
	process->dpdk = sl_dpdk_open(&config, process->shard_count, process->metrics, error,
				     sizeof(error));
	free(interfaces);
	if (process->dpdk)
		return 0;
	fprintf(stderr, "sluice: %s\n", error);
	return -ENODEV;
}

static int open_listeners(struct process *process, const struct sl_server_part *server)
{
	const struct sl_listen_options options = {.backlog = BACKLOG};
	char text[SL_ADDRESS_TEXT_MAX], error[256];
	struct sl_inherited inherited;

	process->listen_fds = calloc(server->listen_count, sizeof(int));
	process->listen_inherited = calloc(server->listen_count, sizeof(bool));
	process->listen_addresses = calloc(server->listen_count, sizeof(struct sl_address));
	if (!process->listen_addresses || !process->listen_fds || !process->listen_inherited)
		return -ENOMEM;
	sl_inherited_init(&inherited);
	for (uint32_t i = 0; i < server->listen_count; i++) {
		const struct sl_address *address = &server->listens[i].address;
		const bool on_port = process->dpdk && sl_dpdk_serves(process->dpdk, address);
		int fd = on_port ? SL_IO_FD_BACKEND : sl_inherited_take(&inherited, address);

		process->listen_addresses[i] = *address;
		process->listen_inherited[i] = fd >= 0;
		if (fd < 0 && !on_port)
			fd = sl_io_open_listener(address, &options, error, sizeof(error));
		if (fd < 0 && !on_port) {
			fprintf(stderr, "sluice: %s\n", error);
			sl_inherited_fini(&inherited);
			return fd;
		}
		process->listen_fds[process->listen_count++] = fd;
		sl_log(SL_LOG_INFO, "listening", "address=%s tls=%s io=%s",
		       sl_address_text(address, text), server->listens[i].tls ? "yes" : "no",
		       on_port ? "dpdk" : "kernel");
	}
	sl_inherited_fini(&inherited);
	return 0;
}

// A socket for each shard on the same address: the kernel spreads flows over them.
static int open_datagrams(struct process *process, const struct sl_server_part *server)
{
	const struct sl_datagrams_config *config = process->datagrams = server->datagrams;
	const struct sl_datagram_listen_config *listens = config ? config->listen.items : NULL;
	const size_t each = config ? config->listen.count : 0;
	char text[SL_ADDRESS_TEXT_MAX], error[256];

	process->datagram_fds = calloc(each * process->shard_count + 1, sizeof(int));
	if (!process->datagram_fds)
		return -ENOMEM;
	for (size_t i = 0; i < each * process->shard_count; i++) {
		const struct sl_address *address = &listens[i % each].address;
		const struct sl_listen_options options = {
			.reuse_port = true, .datagrams = true, .buffer_bytes = config->buffer};
		const bool on_port = process->dpdk && sl_dpdk_serves(process->dpdk, address);
		const int fd = on_port ? SL_IO_FD_BACKEND
				       : sl_io_open_listener(address, &options, error,
							     sizeof(error));

		if (fd < 0 && !on_port) {
			fprintf(stderr, "sluice: datagrams: %s\n", error);
			return fd;
		}
		process->datagram_fds[i] = fd; // the shard's from its start on
		if (i < each)
			sl_log(SL_LOG_INFO, "listening", "address=%s datagrams=%s io=%s",
			       sl_address_text(address, text), sl_signal_names[listens[i].signal],
			       on_port ? "dpdk" : "kernel");
	}
	return 0;
}

// The n-th core that this process may use.
static int nth_cpu(uint32_t n)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return -1;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &set) && n-- == 0)
			return cpu;
	}
	return -1; // more shards than cores: not pinned
}

static int start_shards(struct process *process)
{
	const struct sl_process_config *config = &process->config;
	struct sl_shard_options options = {
		.count = process->shard_count,
		.memory_budget_bytes = sl_process_memory_budget(config, process->shard_count),
		.io = {.spin_ns = config->poll.spin_ns,
		       .busy = config->poll.busy,
		       .nap_ns = config->poll.nap_ns,
		       .read_bytes = 256 * SL_KIB},
		.snapshots = process->snapshots,
		.metrics = process->metrics,
		.ledger = process->ledger,
		.unready = &process->unready,
		.listen_fds = process->listen_fds,
		.listen_addresses = process->listen_addresses,
		.listen_count = process->listen_count,
		.datagrams = process->datagrams,
		.peers = process->shards,
	};

	for (uint32_t i = 0; i < process->shard_count; i++) {
		options.index = i;
		options.datagram_fds = process->datagram_fds +
				       i * (process->datagrams ? process->datagrams->listen.count
							       : 0);
		options.cpu = nth_cpu(i);
		options.backend = process->dpdk ? sl_dpdk_backend(process->dpdk, i) : NULL;
		process->shards[i] = sl_shard_create(&options);
		if (!process->shards[i])
			return -errno;
	}
	for (uint32_t i = 0; i < process->shard_count; i++) {
		const int failed = sl_shard_start(process->shards[i]);

		if (failed)
			return failed;
	}
	return 0;
}

static void on_published(void *self, const struct sl_snapshot *snapshot)
{
	struct process *process = self;

	(void)snapshot;
	for (uint32_t i = 0; i < process->shard_count; i++)
		sl_shard_wake(process->shards[i]);
}

// A connection made during the drain would wait in the kernel's queue for nobody: our own sockets
// stop listening, so that clients and balancers turn elsewhere at once.
static void on_drain(void *self)
{
	struct process *process = self;

	for (uint32_t i = 0; i < process->listen_count; i++) {
		if (!process->listen_inherited[i] && process->listen_fds[i] >= 0)
			shutdown(process->listen_fds[i], SHUT_RDWR);
	}
	for (uint32_t i = 0; i < process->shard_count; i++)
		sl_shard_drain(process->shards[i]);
}

static void on_stop(void *self)
{
	struct process *process = self;

	for (uint32_t i = 0; i < process->shard_count; i++) {
		if (process->shards[i])
			sl_shard_stop(process->shards[i]);
	}
}

static bool is_idle(void *self)
{
	struct process *process = self;

	for (uint32_t i = 0; i < process->shard_count; i++) {
		if (!sl_shard_is_idle(process->shards[i]))
			return false;
	}
	return true;
}

static uint64_t full_since_ns(void *self, uint32_t shard)
{
	struct process *process = self;

	return sl_shard_full_since_ns(process->shards[shard]);
}

static void ready(void *self, bool is)
{
	__atomic_store_n(&((struct process *)self)->unready, !is, __ATOMIC_RELAXED);
}

static int64_t certificate_expiry(void *self, const struct sl_snapshot *snapshot)
{
	const struct sl_server_part *server = snapshot->parts[SL_MODULE_SERVER];

	(void)self;
	return server->certificate_expiry;
}

// Runs until the control loop ends; then the shards are stopped.
static int serve(struct process *process, const char *file)
{
	const struct sl_control_options options = {
		.modules = modules,
		.module_count = SL_MODULES,
		.snapshots = process->snapshots,
		.metrics = process->metrics,
		.ledger = process->ledger,
		.file = file,
		.hooks = {.self = process,
			  .shards = process->shard_count,
			  .check = check_whole,
			  .published = on_published,
			  .drain = on_drain,
			  .stop = on_stop,
			  .is_idle = is_idle,
			  .ready = ready,
			  .full_since_ns = full_since_ns,
			  .certificate_expiry = certificate_expiry},
	};
	struct sl_control *control = sl_control_create(&options);
	int failed, code;

	if (!control)
		return SL_EXIT_LISTEN;
	failed = start_shards(process);
	if (failed) {
		fprintf(stderr, "sluice: shards: %s\n", strerror(-failed));
		code = SL_EXIT_FAILURE;
	} else {
		sl_log(SL_LOG_INFO, "started", "version=%s shards=%u", SL_VERSION,
		       process->shard_count);
		failed = sl_control_run(control);
		code = failed ? 1 : 0;
	}
	on_stop(process); // those that did start, when not all could
	for (uint32_t i = 0; i < process->shard_count; i++)
		sl_shard_join(process->shards[i]);
	for (uint32_t i = 0; i < process->shard_count; i++) {
		sl_shard_destroy(process->shards[i]);
		process->shards[i] = NULL;
	}
	sl_dpdk_finish(process->dpdk);
	sl_control_destroy(control);
	sl_log(SL_LOG_INFO, "stopped", "drained=%s", failed ? "no" : "yes");
	return code;
}

// As many descriptors as the system grants: each connection is one.
static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static int run(const char *file)
{
	struct process process = {0};
	struct sl_snapshot *snapshot;
	int code;

	raise_file_limit();
	sl_control_block_signals();
	snapshot = load(file, false);
	if (!snapshot) {
		sl_routing_wait_closed(); // what was made before the mistake was found
		return SL_EXIT_CONFIG;
	}
	process.config = *(const struct sl_process_config *)snapshot->parts[SL_MODULE_PROCESS];
	process.shard_count = sl_process_shards(&process.config);
	sl_log_set_level(process.config.log.level);
	sl_log_set_format(process.config.log.format);
	process.metrics = sl_metrics_create();
	process.shards = calloc(process.shard_count, sizeof(struct sl_shard *));
	process.snapshots = sl_snapshots_create(process.shard_count + 1, snapshot);
	process.ledger = sl_control_open_ledger(&process.config, process.shard_count);
	if (!process.metrics || !process.shards || !process.snapshots || !process.ledger)
		return SL_EXIT_FAILURE;
	code = open_ports(&process) < 0 ||
			       open_listeners(&process, snapshot->parts[SL_MODULE_SERVER]) < 0 ||
			       open_datagrams(&process, snapshot->parts[SL_MODULE_SERVER]) < 0
		       ? SL_EXIT_LISTEN
		       : serve(&process, file);
	for (uint32_t i = 0; i < process.listen_count; i++) {
		if (process.listen_fds[i] >= 0)
			close(process.listen_fds[i]);
	}
	sl_ledger_destroy(process.ledger);
	sl_dpdk_close(process.dpdk);
	sl_snapshots_destroy(process.snapshots, modules, SL_MODULES);
	sl_routing_wait_closed();
	sl_metrics_destroy(process.metrics);
	free(process.listen_fds);
	free(process.listen_inherited);
	free(process.listen_addresses);
	free(process.datagram_fds);
	free(process.shards);
	return code;
}

// What was printed must have gone out: half a file on a full disk is no success.
static int printed(int code)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	fprintf(stderr, "sluice: standard output: %s\n", strerror(errno));
	return code ? code : SL_EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	struct sl_replay_options replay;
	struct sl_options options;
	int code;

	sl_options_parse(&options, argc, argv);
	sl_hash_seed();
	fill_modules();
	switch (options.command) {
	case SL_COMMAND_RUN:
		return run(options.config);
	case SL_COMMAND_CHECK:
		return printed(check(options.config));
	case SL_COMMAND_DUMP:
		return printed(dump(options.config));
	case SL_COMMAND_REFERENCE:
		return printed(print_reference());
	case SL_COMMAND_REPLAY:
		return sl_replay_parse(&replay, argc, argv, &code)
			       ? sl_replay(&replay, modules, SL_MODULES)
			       : code;
	case SL_COMMAND_DONE:
		return printed(0);
	case SL_COMMAND_WRONG:
		return SL_EXIT_USAGE;
	}
	return SL_EXIT_FAILURE;
}
