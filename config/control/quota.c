#include "config/control/quota.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "config/control/carrier.h"
#include "config/control/control.h"
#include "config/control/metrics.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/disk.h"
#include "dataplane/base/log.h"
#include "dataplane/base/memory.h"
#include "dataplane/base/thread.h"
#include "dataplane/tls/tls.h"
#include "tenants/fleet/volumes.h"
#include "tenants/redis.h"
#include "tenants/tenants.h"
#include "tenants/volume_file.h"

// How often the volumes are written, and what part of the control thread's time that may take.
#define SAVE_NS          SL_S
#define SAVE_SHARE       20
#define TLS_MEMORY_BYTES (16 * SL_MIB)

#define SL_QUOTA_THREAD_COUNTERS(X)                                                                \
	X(ticks, COUNTER, "sluice_quota_ticks", none,                                              \
	  "Ticks of the quotas' authority, 100 a second.")                                         \
	X(late, COUNTER, "sluice_quota_late_ticks", none,                                          \
	  "Of them, those that came more than a tick late.")                                       \
	X(soft_marks, COUNTER, "sluice_volume_soft_marks", none,                                   \
	  "Tenants that passed the soft mark of a volume.")                                        \
	X(hard_marks, COUNTER, "sluice_volume_hard_marks", none, "Tenants that used up a volume.") \
	X(file_failures, COUNTER, "sluice_volume_file_failures", none,                             \
	  "Times quotas.volume_file could not be read or written.")                                \
	X(created, GAUGE, "sluice_tenants_created", none,                                          \
	  "Tenants that were made from the template and are there.")                               \
	X(made, COUNTER, "sluice_tenants_made", none, "Tenants made from the template.")           \
	X(expired, COUNTER, "sluice_tenants_expired", none,                                        \
	  "Of them, those that were idle and have gone.")
SL_COUNTERS(quota_thread, SL_QUOTA_THREAD_COUNTERS)
#define SL_COUNTER_STRUCT_ struct sl_quota_thread_counters
SL_COUNTER_ROWS(quota_thread, SL_QUOTA_THREAD_COUNTERS)

struct sl_quota_thread {
	struct sl_snapshots *snapshots;
	struct sl_metrics *metrics;
	uint32_t reader;
	struct sl_quota_thread_counters counters;
	struct sl_fleet *fleet; // NULL: quotas of this instance alone
	struct sl_carrier carriers[SL_FLEET_LINKS_MAX];
	char *addresses[SL_FLEET_LINKS_MAX];
	uint32_t carrier_count;
	struct sl_memory memory; // of TLS
	bool has_memory, running;
	uint32_t stop; // writer: the control thread
	// The control thread's.
	char *volume_path; // NULL: none
	int volume_lock;   // -1: none
	uint64_t save_ns, saved_stamp;
	int wake_fd;
	pthread_t thread;
};

static const struct sl_quotas_config *config_of(const struct sl_snapshot *snapshot)
{
	const struct sl_tenants_module_config *config = snapshot->configs[SL_MODULE_TENANTS];

	return config ? &config->quotas : NULL;
}

void sl_control_check_quotas(const struct sl_snapshot *snapshot, struct sl_errors *errors)
{
	const struct sl_quotas_config *config = config_of(snapshot);
	const struct sl_quota_redis_config *redis = config ? config->redis.items : NULL;

	for (size_t i = 0; config && i < config->redis.count; i++) {
		struct sl_tls_context *context;
		char error[256];

		if (sl_redis_tls(&redis[i], &context, error, sizeof(error)))
			sl_errors_add(errors, &redis[i].where, "quotas.redis: %s", error);
		sl_tls_context_put(context);
	}
}

static int make_carriers(struct sl_quota_thread *quota, const struct sl_quota_redis_config *redis)
{
	for (; quota->carrier_count < quota->fleet->link_count; quota->carrier_count++) {
		const uint32_t i = quota->carrier_count;
		struct sl_carrier *carrier = &quota->carriers[i];
		struct sl_quota_redis_place place;
		char error[256];

		quota->addresses[i] = strdup(redis[i].address);
		if (!quota->addresses[i])
			return -ENOMEM;
		*carrier = (struct sl_carrier){
			.link = &quota->fleet->links[i],
			.address = quota->addresses[i],
			.memory = &quota->memory,
			.fd = -1,
		};
		if (sl_quota_redis_place(&redis[i], &place))
			return -EINVAL;
		snprintf(carrier->host, sizeof(carrier->host), "%s", place.host);
		carrier->port = place.port;
		if (sl_redis_tls(&redis[i], &carrier->tls_context, error, sizeof(error))) {
			sl_log(SL_LOG_ERROR, "quota_redis_tls", "redis=%s reason=\"%s\"",
			       carrier->address, error);
			return -EINVAL;
		}
	}
	return 0;
}

static int make_fleet(struct sl_quota_thread *quota, const struct sl_quotas_config *config)
{
	const struct sl_quota_redis_config *redis = config->redis.items;
	struct sl_fleet_options options = {
		.link_count = (uint32_t)config->redis.count,
		.without = config->without_redis,
		.instances = (uint32_t)config->instances,
	};
	uint8_t instance[SL_FLEET_INSTANCE];
	int error;

	if (getrandom(instance, sizeof(instance), 0) != sizeof(instance) ||
	    getrandom(&options.seed, sizeof(options.seed), 0) != sizeof(options.seed))
		return -EIO;
	for (uint32_t i = 0; i < options.link_count; i++) {
		struct sl_quota_redis_place place;

		if (sl_quota_redis_place(&redis[i], &place))
			return -EINVAL;
		options.links[i] = (struct sl_fleet_link_options){
			.user = redis[i].user,
			.password = redis[i].password,
			.database = place.database,
			.prefix = redis[i].prefix,
		};
		memcpy(options.links[i].instance, instance, sizeof(instance));
	}
	error = sl_memory_init(&quota->memory, TLS_MEMORY_BYTES);
	if (error)
		return error;
	quota->has_memory = true;
	quota->fleet = sl_fleet_create(&options);
	if (!quota->fleet)
		return -ENOMEM;
	error = make_carriers(quota, redis);
	if (error)
		return error;
	return sl_metrics_add(quota->metrics, sl_fleet_counter_rows, sl_fleet_counter_row_count,
			      &quota->fleet->counters, -1, NULL);
}

static void count_marks(struct sl_quota_thread *quota, const struct sl_tenants *tenants)
{
	uint64_t soft, hard;

	sl_tenants_volume_marks(tenants, &soft, &hard);
	sl_gauge(&quota->counters.soft_marks[0], soft);
	sl_gauge(&quota->counters.hard_marks[0], hard);
}

static void tick_alone(struct sl_quota_thread *quota, struct sl_tenants *tenants, uint64_t now_ns)
{
	sl_tenants_tick(tenants, now_ns);
	sl_tenants_tick_volumes(tenants, now_ns, sl_clock_wall_ns());
	count_marks(quota, tenants);
}

static void make_tenants(struct sl_quota_thread *quota, const struct sl_tenants *tenants,
			 uint64_t now_ns)
{
	struct sl_tenants_created created;

	sl_tenants_create(tenants, now_ns, &created);
	sl_gauge(&quota->counters.created[0], created.live);
	sl_gauge(&quota->counters.made[0], created.made);
	sl_gauge(&quota->counters.expired[0], created.expired);
}

static void tick_fleet(struct sl_quota_thread *quota, struct sl_tenants *tenants, uint64_t now_ns)
{
	sl_fleet_tick(quota->fleet, tenants, now_ns);
	sl_fleet_tick_volumes(quota->fleet, tenants, now_ns, sl_clock_wall_ns());
	count_marks(quota, tenants);
}

static void tick(struct sl_quota_thread *quota, uint64_t now_ns)
{
	const struct sl_snapshot *snapshot = sl_snapshots_enter(quota->snapshots, quota->reader);
	struct sl_tenants *tenants = snapshot->parts[SL_MODULE_TENANTS];

	for (uint32_t i = 0; i < quota->carrier_count; i++)
		sl_carrier_tick(&quota->carriers[i], now_ns);
	if (quota->fleet)
		tick_fleet(quota, tenants, now_ns);
	else if (tenants)
		tick_alone(quota, tenants, now_ns);
	if (tenants)
		make_tenants(quota, tenants, now_ns);
	sl_snapshots_leave(quota->snapshots, quota->reader);
	sl_count(&quota->counters.ticks[0], 1);
}

static void wait(struct sl_quota_thread *quota, uint64_t wait_ns)
{
	struct pollfd fds[1 + SL_FLEET_LINKS_MAX] = {{.fd = quota->wake_fd, .events = POLLIN}};
	const struct timespec time = {0, (long)wait_ns};

	assert(wait_ns < SL_S);
	for (uint32_t i = 0; i < quota->carrier_count; i++) {
		fds[1 + i].fd = quota->carriers[i].fd;
		fds[1 + i].events = sl_carrier_events(&quota->carriers[i]);
	}
	ppoll(fds, 1 + quota->carrier_count, &time, NULL);
}

static void *run(void *argument)
{
	struct sl_quota_thread *quota = argument;
	uint64_t now_ns = sl_clock_now_ns(), tick_ns = now_ns;

	while (!__atomic_load_n(&quota->stop, __ATOMIC_ACQUIRE)) {
		if (now_ns >= tick_ns) {
			if (now_ns > tick_ns + SL_QUOTA_TICK_NS)
				sl_count(&quota->counters.late[0], 1);
			tick(quota, now_ns);
			tick_ns = SL_MAX(tick_ns + SL_QUOTA_TICK_NS, now_ns);
		}
		for (uint32_t i = 0; i < quota->carrier_count; i++)
			sl_carrier_run(&quota->carriers[i], now_ns);
		now_ns = sl_clock_now_ns();
		if (now_ns < tick_ns)
			wait(quota, tick_ns - now_ns);
		now_ns = sl_clock_now_ns();
	}
	return NULL;
}

static const struct sl_tenants *tenants_of(const struct sl_quota_thread *quota)
{
	return sl_snapshots_current(quota->snapshots)->parts[SL_MODULE_TENANTS];
}

// What was used before this start. A file that is not whole is kept aside: what could be read of it
// is in force, the rest is an operator's to look at.
static int load_volumes(struct sl_quota_thread *quota, const char *path)
{
	char aside[4096], why[SL_DISK_WHY];
	int taken;

	quota->volume_path = strdup(path);
	if (!quota->volume_path ||
	    snprintf(aside, sizeof(aside), "%s.lock", path) >= (int)sizeof(aside))
		return -ENOMEM;
	// Two processes that write one file would each undo what the other has counted.
	quota->volume_lock = sl_disk_lock(aside, why);
	if (quota->volume_lock < 0) {
		sl_log(SL_LOG_ERROR, "volumes_not_opened", "file=%s reason=\"%s\"", path, why);
		return quota->volume_lock;
	}
	taken = sl_volume_file_read(path, tenants_of(quota));
	if (taken >= 0) {
		sl_log(SL_LOG_INFO, "volumes_read", "file=%s tenants=%d", path, taken);
	} else if (taken != -ENOENT) {
		sl_count(&quota->counters.file_failures[0], 1);
		sl_log(SL_LOG_ERROR, "volumes_not_read", "file=%s reason=\"%s\"", path,
		       strerror(-taken));
		if (taken == -EBADMSG &&
		    snprintf(aside, sizeof(aside), "%s.bad", path) < (int)sizeof(aside) &&
		    rename(path, aside))
			sl_log(SL_LOG_WARN, "volumes_not_kept", "reason=\"%s\"", strerror(errno));
	}
	return 0;
}

static void save(struct sl_quota_thread *quota)
{
	const uint64_t stamp = sl_volume_file_stamp(tenants_of(quota));
	int error;

	if (stamp == quota->saved_stamp)
		return;
	error = sl_volume_file_write(quota->volume_path, tenants_of(quota));
	if (!error) {
		quota->saved_stamp = stamp;
		return;
	}
	sl_count(&quota->counters.file_failures[0], 1);
	sl_log(SL_LOG_ERROR, "volumes_not_written", "file=%s reason=\"%s\"", quota->volume_path,
	       strerror(-error));
}

void sl_quota_thread_save(struct sl_quota_thread *quota, uint64_t now_ns)
{
	uint64_t took_ns;

	if (!quota->volume_path || now_ns < quota->save_ns)
		return;
	save(quota);
	took_ns = sl_clock_now_ns() - now_ns;
	quota->save_ns = now_ns + took_ns + SL_MAX(SAVE_NS, SAVE_SHARE * took_ns);
}

static int start(struct sl_quota_thread *quota)
{
	const int failed = sl_thread_start(&quota->thread, "quota", run, quota);

	quota->running = !failed;
	return failed;
}

struct sl_quota_thread *sl_quota_thread_create(struct sl_snapshots *snapshots, uint32_t reader,
					       struct sl_metrics *metrics)
{
	struct sl_quota_thread *quota = calloc(1, sizeof(*quota));
	const struct sl_quotas_config *config = config_of(sl_snapshots_current(snapshots));
	int error = 0;

	if (!quota)
		return NULL;
	quota->snapshots = snapshots;
	quota->reader = reader;
	quota->metrics = metrics;
	quota->volume_lock = -1;
	quota->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (quota->wake_fd < 0)
		error = -errno;
	if (!error)
		error = sl_metrics_add(metrics, sl_quota_thread_counter_rows,
				       sl_quota_thread_counter_row_count, &quota->counters, -1,
				       NULL);
	if (!error && config && config->redis.count)
		error = make_fleet(quota, config);
	if (!error && config && config->volume_file && !config->redis.count)
		error = load_volumes(quota, config->volume_file);
	if (!error)
		error = start(quota);
	if (error) {
		sl_log(SL_LOG_ERROR, "quota_thread", "reason=\"%s\"", strerror(-error));
		sl_quota_thread_destroy(quota);
		errno = -error;
		return NULL;
	}
	return quota;
}

void sl_quota_thread_destroy(struct sl_quota_thread *quota)
{
	const uint64_t one = 1;

	if (!quota)
		return;
	if (quota->running) {
		__atomic_store_n(&quota->stop, 1, __ATOMIC_RELEASE);
		if (write(quota->wake_fd, &one, sizeof(one)) < 0)
			sl_log(SL_LOG_DEBUG, "quota_thread", "reason=awake");
		pthread_join(quota->thread, NULL);
		// The shards have ended, and told the rest.
		if (quota->volume_path)
			save(quota);
	}
	free(quota->volume_path);
	if (quota->volume_lock >= 0)
		close(quota->volume_lock);
	for (uint32_t i = 0; i < quota->carrier_count; i++)
		sl_carrier_fini(&quota->carriers[i]);
	for (uint32_t i = 0; i < SL_FLEET_LINKS_MAX; i++)
		free(quota->addresses[i]);
	if (quota->fleet)
		sl_metrics_remove(quota->metrics, &quota->fleet->counters);
	sl_fleet_destroy(quota->fleet);
	if (quota->has_memory)
		sl_memory_fini(&quota->memory);
	sl_metrics_remove(quota->metrics, &quota->counters);
	if (quota->wake_fd >= 0)
		close(quota->wake_fd);
	free(quota);
}
