#include "dataplane/shard/shard.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/log.h"
#include "dataplane/io/backend.h"
#include "dataplane/shard/internal.h"
#include "tenants/ledger/ledger.h"

#define WAIT_MOST_NS (100 * SL_MS) // a turn at least so often: gauges, timeouts, drain
#define HANDED_COUNT 1024
#define MEASURE_NS   (100 * SL_MS)
#define FULL_SHARE   20 // less than 1/20 of the budget free counts as full

struct sl_shard *sl_shard_create(const struct sl_shard_options *options)
{
	struct sl_shard *shard = NULL;

	if (posix_memalign((void **)&shard, SL_CACHE_LINE, sizeof(*shard)) != 0) {
		errno = ENOMEM; // it tells by its result alone
		return NULL;
	}
	memset(shard, 0, sizeof(*shard));
	shard->options = *options;
	shard->waker.fd = -1;
	shard->memory.arena = shard->connection_memory.arena = -1;
	if (posix_memalign((void **)&shard->handed, SL_CACHE_LINE,
			   options->count * sizeof(*shard->handed)) != 0)
		goto fail;
	memset(shard->handed, 0, options->count * sizeof(*shard->handed));
	shard->listeners = calloc(options->listen_count, sizeof(*shard->listeners));
	if (!shard->listeners || sl_waker_init(&shard->waker) < 0)
		goto fail;
	for (uint32_t i = 0; i < options->count; i++) {
		if (sl_ring_init(&shard->handed[i], HANDED_COUNT) < 0)
			goto fail;
	}
	return shard;
fail:
	sl_shard_destroy(shard);
	errno = ENOMEM;
	return NULL;
}

static void age_memory(struct sl_timer *timer, uint64_t now_ns)
{
	struct sl_shard *shard = SL_CONTAINER_OF(timer, struct sl_shard, aging);

	sl_memory_age(&shard->memory);
	sl_memory_age(&shard->connection_memory);
	sl_timer_set(&shard->timers, timer, now_ns + SL_MEMORY_AGE_NS);
}

static void measure(struct sl_timer *timer, uint64_t now_ns)
{
	struct sl_shard *shard = SL_CONTAINER_OF(timer, struct sl_shard, measuring);
	struct sl_shard_counters *counters = &shard->books.counters;
	const struct sl_server_part *part = shard->snapshot->parts[SL_MODULE_SERVER];
	const uint64_t idle_ns = sl_io_stats(shard->io)->idle_ns;
	const uint64_t passed_ns = now_ns - shard->measured_ns;
	const uint64_t rested_ns = SL_MIN(idle_ns - shard->idle_ns, passed_ns);
	const double busy = 1 - (double)rested_ns / (double)SL_MAX(passed_ns, 1);

	shard->measured_ns = now_ns;
	shard->idle_ns = idle_ns;
	sl_gauge(&counters->busy_percent[0], (uint64_t)(100 * busy + 0.5));
	sl_shard_datagrams_measure(shard);
	if (sl_overload_observe(&shard->overload, &part->overload,
				sl_tenants_ranks(shard->snapshot->parts[SL_MODULE_TENANTS]), busy,
				(double)shard->memory.used_bytes /
					(double)shard->memory.budget_bytes,
				now_ns)) {
		sl_gauge(&counters->overload_step[0], shard->overload.step);
		sl_log(SL_LOG_WARN, "overload", "shard=%u step=%u busy_percent=%llu",
		       shard->options.index, shard->overload.step,
		       (unsigned long long)counters->busy_percent[0]);
	}
	sl_timer_set(&shard->timers, timer, now_ns + MEASURE_NS);
}

static sl_tenant_id tenant_of(void *self, struct sl_bytes *name)
{
	const struct sl_shard *shard = self;
	const struct sl_tenants *tenants = shard->snapshot->parts[SL_MODULE_TENANTS];
	struct sl_tenant_info info;
	sl_tenant_id tenant;

	if (!sl_tenants_known(tenants, *name, &tenant) || !sl_tenants_info(tenants, tenant, &info))
		return SL_TENANT_NONE;
	*name = info.name;
	return tenant;
}

static uint8_t take_request(void *self)
{
	return sl_tenants_take_request(((const struct sl_shard *)self)->tenants);
}

static void give_request(void *self, uint8_t phase)
{
	sl_tenants_give_request(((const struct sl_shard *)self)->tenants, phase);
}

static void set_timers(struct sl_shard *shard)
{
	sl_timers_init(&shard->timers, shard->now_ns);
	shard->aging.fire = age_memory;
	sl_timer_set(&shard->timers, &shard->aging, shard->now_ns + SL_MEMORY_AGE_NS);
	shard->measuring.fire = measure;
	shard->measured_ns = shard->now_ns;
	sl_timer_set(&shard->timers, &shard->measuring, shard->now_ns + MEASURE_NS);
}

// Everything a turn needs, before the thread starts.
static int set_up(struct sl_shard *shard)
{
	const struct sl_shard_options *options = &shard->options;
	int failed = sl_memory_init(&shard->memory, options->memory_budget_bytes);

	// Here the budget bounds only what is kept for later connections.
	if (!failed)
		failed = sl_memory_init(&shard->connection_memory, options->memory_budget_bytes);
	if (failed)
		return failed;
	shard->now_ns = sl_clock_now_ns();
	shard->wall_ns = sl_clock_wall_ns();
	set_timers(shard);
	sl_random_init(&shard->random, shard->now_ns + options->index);
	sl_pool_init(&shard->requests, &shard->memory, sizeof(struct sl_request));
	failed = sl_queues_init(&shard->queues);
	if (failed)
		return failed;
	shard->io = sl_io_create_kernel(&options->io, &shard->connection_memory, &shard->timers,
					&shard->waker);
	if (!shard->io)
		return -errno;
	if (options->backend)
		sl_io_attach(shard->io, options->backend);

	if (options->ledger)
		shard->books.ledger = sl_ledger_book_of(options->ledger, options->index);

	shard->codec = sl_codec_create(&shard->memory);

	const struct sl_server_env server = {
		.io = shard->io,
		.memory = &shard->memory,
		.connection_memory = &shard->connection_memory,
		.timers = &shard->timers,
		.metrics = options->metrics,
		.shard = options->index,
		.host = &sl_shard_host,
		.self = shard,
		.codec = shard->codec,
		.unready = options->unready,
	};
	const struct sl_routing_env routing = {
		.shard = options->index,
		.shards = options->count,
		.memory = &shard->memory,
		.timers = &shard->timers,
		.waker = &shard->waker,
		.io = shard->io,
		.codec = shard->codec,
		.metrics = options->metrics,
		.random = &shard->random,
		.endings = {.self = shard->books.ledger,
			    .names = options->ledger,
			    .number = sl_ledger_number,
			    .ended = options->ledger ? sl_ledger_ended : NULL},
		.tenant_of = tenant_of,
		.take_request = take_request,
		.give_request = give_request,
		.tenants = shard,
	};

	shard->server = sl_server_create(&server);
	shard->tenants = sl_tenants_shard_create(options->index, options->count, options->metrics);
	shard->sampling = sl_sampling_shard_create(options->index, options->metrics);
	shard->routing = sl_routing_shard_create(&routing);
	if (!shard->codec || !shard->server || !shard->tenants || !shard->sampling ||
	    !shard->routing)
		return -ENOMEM;
	sl_server_clock(shard->server, shard->wall_ns);
	sl_gauge(&shard->books.counters.budget_bytes[0], options->memory_budget_bytes);
	return sl_books_init(&shard->books, options->metrics, options->index);
}

static int listen_all(struct sl_shard *shard)
{
	for (uint32_t i = 0; i < shard->options.listen_count; i++) {
		struct sl_shard_listener *listener = &shard->listeners[i];
		int failed;

		*listener = (struct sl_shard_listener){
			.listener = {.fd = shard->options.listen_fds[i],
				     .address = shard->options.listen_addresses[i],
				     .accepted = sl_shard_accepted},
			.shard = shard,
			.index = i,
		};
		failed = sl_io_listen(shard->io, &listener->listener);
		if (failed < 0)
			return failed;
		listener->listening = true;
	}
	return sl_shard_datagrams_start(shard, shard->options.datagrams);
}

static void unlisten_all(struct sl_shard *shard)
{
	for (uint32_t i = 0; i < shard->options.listen_count; i++) {
		if (shard->listeners[i].listening)
			sl_io_unlisten(shard->io, &shard->listeners[i].listener);
		shard->listeners[i].listening = false;
	}
	sl_shard_datagrams_leave(shard);
}

// The snapshot of this turn goes to every module.
static void begin_turn(struct sl_shard *shard)
{
	struct sl_snapshot *snapshot = sl_snapshots_enter(shard->options.snapshots,
							  shard->options.index);
	const struct sl_server_part *part = snapshot->parts[SL_MODULE_SERVER];

	shard->snapshot = snapshot;
	// One body of the largest size always may come.
	shard->tenant_share_bytes = SL_MAX(shard->memory.budget_bytes /
						   part->limits.tenant_reserved_share,
					   part->limits.body_bytes_max);
	sl_server_turn(shard->server, &part->limits, shard->now_ns);
	// They have requests under way also when the next snapshot makes no tenants any more.
	if (shard->books.ledger && shard->books.ledger->newcomers == SL_TENANT_NONE)
		shard->books.ledger->newcomers = sl_tenants_newcomers(
			snapshot->parts[SL_MODULE_TENANTS]);
	sl_tenants_shard_turn(shard->tenants, snapshot->parts[SL_MODULE_TENANTS], shard->now_ns);
	sl_sampling_shard_turn(shard->sampling, snapshot->parts[SL_MODULE_SAMPLING]);
	sl_routing_shard_turn(shard->routing, snapshot->parts[SL_MODULE_ROUTING], shard->now_ns);
}

static void update_gauges(struct sl_shard *shard)
{
	struct sl_shard_counters *counters = &shard->books.counters;
	const struct sl_memory *memory = &shard->memory;
	const struct sl_io_stats *stats = sl_io_stats(shard->io);
	const bool full = memory->used_bytes >
			  memory->budget_bytes - memory->budget_bytes / FULL_SHARE;
	// What is late was never acknowledged: its sender tries again, elsewhere.
	const bool idle = shard->draining && !sl_server_sessions(shard->server) &&
			  shard->requests.used == shard->late_requests;

	sl_count(&counters->turns[0], 1);
	sl_gauge(&counters->budget_bytes[0], memory->budget_bytes);
	sl_gauge(&counters->used_bytes[0], memory->used_bytes);
	sl_gauge(&counters->connection_bytes[0], shard->connection_memory.used_bytes);
	sl_gauge(&counters->memory_misses[0], memory->misses + shard->connection_memory.misses);
	sl_gauge(&counters->reads[0], stats->reads);
	sl_gauge(&counters->writes[0], stats->writes);
	if (!full)
		sl_gauge(&shard->full_since_ns, 0);
	else if (!shard->full_since_ns)
		sl_gauge(&shard->full_since_ns, shard->now_ns);
	__atomic_store_n(&shard->session_count, sl_server_sessions(shard->server),
			 __ATOMIC_RELAXED);
	__atomic_store_n(&shard->idle, idle, __ATOMIC_RELEASE);
}

static void begin_drain(struct sl_shard *shard)
{
	shard->draining = true;
	unlisten_all(shard);
	sl_server_drain(shard->server, shard->now_ns);
}

static void run(struct sl_shard *shard)
{
	while (!__atomic_load_n(&shard->want_stop, __ATOMIC_ACQUIRE)) {
		const bool more = sl_server_wants_flush(shard->server) ||
				  sl_queues_ready(&shard->queues);

		begin_turn(shard);
		if (sl_io_poll(shard->io, more ? 0 : WAIT_MOST_NS, &shard->now_ns) < 0)
			sl_log(SL_LOG_ERROR, "poll_failed", "shard=%u", shard->options.index);
		shard->wall_ns = sl_clock_wall_ns();
		sl_server_clock(shard->server, shard->wall_ns);
		sl_waker_clear(&shard->waker);
		sl_shard_take_handed(shard);
		if (!shard->draining && __atomic_load_n(&shard->want_drain, __ATOMIC_ACQUIRE))
			begin_drain(shard);
		sl_shard_run_ready(shard);
		sl_routing_poll(shard->routing, shard->now_ns);
		sl_server_flush(shard->server, shard->now_ns);
		sl_ledger_book_turn(shard->books.ledger);
		update_gauges(shard);
	}
}

// Ends what is still open, so that every object goes the way it came.
static void tear_down(struct sl_shard *shard)
{
	unlisten_all(shard);
	sl_routing_drain(shard->routing);
	sl_server_refuse_all(shard->server, SL_REASON_DRAINING, shard->now_ns);
	sl_shard_refuse_held(shard, SL_REASON_DRAINING);
	sl_server_flush(shard->server, shard->now_ns);
	sl_server_close_all(shard->server);
	for (unsigned i = 0; i < 1000 && (sl_server_sessions(shard->server) ||
					  sl_routing_in_flight(shard->routing));
	     i++) {
		begin_turn(shard);
		sl_io_poll(shard->io, SL_MS, &shard->now_ns);
		sl_waker_clear(&shard->waker);
		sl_shard_run_ready(shard);
		sl_routing_poll(shard->routing, shard->now_ns);
		sl_server_flush(shard->server, shard->now_ns);
	}
	update_gauges(shard);
	if (!sl_routing_in_flight(shard->routing)) {
		// Its upstreams' connections belong to this thread; their last upcalls come from
		// the io.
		sl_routing_shard_destroy(shard->routing);
		shard->routing = NULL;
		for (unsigned i = 0; i < 1000 && sl_io_stats(shard->io)->connections; i++)
			sl_io_poll(shard->io, SL_MS, &shard->now_ns);
	}
	sl_snapshots_leave(shard->options.snapshots, shard->options.index);
}

static void *thread_main(void *argument)
{
	struct sl_shard *shard = argument;

	if (shard->options.cpu >= 0) {
		cpu_set_t cpus;

		CPU_ZERO(&cpus);
		CPU_SET(shard->options.cpu, &cpus);
		if (sched_setaffinity(0, sizeof(cpus), &cpus) < 0)
			sl_log(SL_LOG_WARN, "shard_not_pinned", "shard=%u cpu=%d",
			       shard->options.index, shard->options.cpu);
	}
	run(shard);
	tear_down(shard);
	return NULL;
}

int sl_shard_start(struct sl_shard *shard)
{
	char name[16];
	int failed = set_up(shard);

	if (!failed)
		failed = listen_all(shard);
	if (failed)
		return failed;
	failed = pthread_create(&shard->thread, NULL, thread_main, shard);
	if (failed)
		return -failed;
	shard->started = true;
	snprintf(name, sizeof(name), "shard-%u", shard->options.index);
	pthread_setname_np(shard->thread, name);
	return 0;
}

void sl_shard_join(struct sl_shard *shard)
{
	if (shard && shard->started && !shard->joined)
		shard->joined = pthread_join(shard->thread, NULL) == 0;
}

void sl_shard_destroy(struct sl_shard *shard)
{
	if (!shard)
		return;
	assert(!shard->started || shard->joined);
	// After a stop with deliveries open all of it stays: helpers' threads bring them back and
	// wake it. The process is about to end.
	if (shard->started && (sl_server_sessions(shard->server) || shard->requests.used ||
			       sl_routing_in_flight(shard->routing)))
		return;

	// Of a set-up that failed any part may be missing.
	sl_shard_datagrams_fini(shard);
	sl_books_fini(&shard->books, shard->options.metrics);
	sl_routing_shard_destroy(shard->routing);
	sl_sampling_shard_destroy(shard->sampling);
	sl_tenants_shard_destroy(shard->tenants);
	sl_server_destroy(shard->server);
	sl_codec_destroy(shard->codec);
	sl_io_destroy(shard->io);
	sl_pool_fini(&shard->requests);
	sl_memory_fini(&shard->memory);
	sl_memory_fini(&shard->connection_memory);
	sl_queues_fini(&shard->queues);
	sl_waker_fini(&shard->waker);
	for (uint32_t i = 0; shard->handed && i < shard->options.count; i++)
		sl_ring_fini(&shard->handed[i]);
	free(shard->handed);
	free(shard->listeners);
	free(shard);
}

void sl_shard_wake(struct sl_shard *shard)
{
	sl_waker_wake(&shard->waker);
}

void sl_shard_drain(struct sl_shard *shard)
{
	__atomic_store_n(&shard->want_drain, 1, __ATOMIC_RELEASE);
	sl_waker_wake(&shard->waker);
}

void sl_shard_stop(struct sl_shard *shard)
{
	__atomic_store_n(&shard->want_stop, 1, __ATOMIC_RELEASE);
	sl_waker_wake(&shard->waker);
}

bool sl_shard_is_idle(const struct sl_shard *shard)
{
	return __atomic_load_n(&shard->idle, __ATOMIC_ACQUIRE);
}

uint64_t sl_shard_full_since_ns(const struct sl_shard *shard)
{
	return __atomic_load_n(&shard->full_since_ns, __ATOMIC_RELAXED);
}
