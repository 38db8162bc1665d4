#include "config/control/ledger.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "config/control/ledger_usage.h"
#include "config/control/metrics.h"
#include "config/control/process.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/disk.h"
#include "dataplane/base/log.h"
#include "dataplane/base/thread.h"
#include "routing/kafka_conf.h"
#include "tenants/registry.h"

#include "config/rows.h"

#define END_WAIT_NS (5 * SL_S) // for the last usage records' confirmation

#define SL_LEDGER_THREAD_COUNTERS(X)                                                               \
	X(saves, COUNTER, "sluice_ledger_saves", none,                                             \
	  "Times that the ledger's file was written.")                                             \
	X(save_failures, COUNTER, "sluice_ledger_save_failures", none,                             \
	  "Times that it could not be written.")                                                   \
	X(saved, GAUGE, "sluice_ledger_saved_timestamp_seconds", none,                             \
	  "When it was written last; 0: not since the start.")                                     \
	X(usage_records, COUNTER, "sluice_ledger_usage_records", none,                             \
	  "Usage records that Kafka has confirmed.")                                               \
	X(usage_failures, COUNTER, "sluice_ledger_usage_failures", none,                           \
	  "Times that one was not confirmed, and is sent again.")                                  \
	X(usage_pending, GAUGE, "sluice_ledger_usage_pending_records", none,                       \
	  "Usage records of the last interval that are not confirmed.")                            \
	X(accounts, GAUGE, "sluice_ledger_accounts", none, "Tenants that have an account.")        \
	X(departed, COUNTER, "sluice_ledger_departed_accounts", none,                              \
	  "Accounts of tenants that a template made and that left, added to _departed:CLASS.")     \
	X(rows, GAUGE, "sluice_ledger_active_rows", none,                                          \
	  "Tenants and signals that shards count for at this time.")                               \
	X(overflows, COUNTER, "sluice_ledger_overflows", none,                                     \
	  "Parts and deliveries counted under _other: ledger.accounts is too small.")
SL_COUNTERS(ledger_thread, SL_LEDGER_THREAD_COUNTERS)
#define SL_COUNTER_STRUCT_ struct sl_ledger_thread_counters
SL_COUNTER_ROWS(ledger_thread, SL_LEDGER_THREAD_COUNTERS)

// What a snapshot says; from the control thread to ours.
struct settings {
	rd_kafka_conf_t *conf; // NULL: none
	char *topic, *path;
	uint64_t save_ns, cut_ns, departed_ns;
	uint32_t export_max;
};

struct sl_ledger_thread {
	struct sl_ledger *ledger;
	struct sl_metrics *metrics;
	struct sl_ledger_thread_counters counters;
	struct settings settings; // in force
	pthread_mutex_t lock;
	struct settings next; // under `lock`
	bool has_next;        // under `lock`
	struct sl_usage_sender sender;
	uint64_t save_due_ns, cut_due_ns, rank_due_ns;
	uint64_t retry_due_ns; // a save that failed: not at each tick
	bool safe;             // the last cut is on disk
	bool running;
	uint32_t stop; // writer: the control thread
	int wake_fd;
	pthread_t thread;
};

// --- settings ------------------------------------------------------------------------------------

static const struct sl_setting usage_rows[] = {
	WHERE(sl_ledger_usage_config),
	ROW(sl_ledger_usage_config, destination, "destination", STRING,
	    .help = "A Kafka destination whose brokers and security it shares."),
	ROW(sl_ledger_usage_config, kafka, "kafka", OPTIONAL, .object = &sl_kafka_settings,
	    .help = "Or a cluster of its own; as in destinations, but for its topic."),
	ROW(sl_ledger_usage_config, topic, "topic", STRING, .preset = "sluice_usage",
	    .help = "The records' topic; keep it compacted by key, or drop keys seen before."),
	ROW(sl_ledger_usage_config, interval_ns, "interval", DURATION, .min = 1e8, .max = 8.64e13,
	    .preset = "1m", .help = "A record a tenant and signal that was active, so often."),
};

static void check_usage(const void *object, struct sl_errors *errors)
{
	const struct sl_ledger_usage_config *usage = object;

	if (!usage->destination == !usage->kafka)
		sl_errors_add(errors, &usage->where,
			      "ledger.usage: say one of destination and kafka");
	if (!usage->topic || !usage->topic[0] || strlen(usage->topic) > 249)
		sl_errors_add(errors, &usage->where,
			      "ledger.usage.topic: names are 1 to 249 bytes long");
}
static const struct sl_settings usage_settings = SETTINGS("ledger.usage", sl_ledger_usage_config,
							  usage_rows, .check = check_usage,
							  .help = "Records for billing.");

static const struct sl_setting ledger_rows[] = {
	WHERE(sl_ledger_config),
	ROW(sl_ledger_config, path, "path", PATH, .apply = SL_APPLY_RESTART,
	    .help = "File that keeps the accounts over restarts; without it they begin anew. "
		    "One process has it at a time (PATH.lock)."),
	ROW(sl_ledger_config, interval_ns, "interval", DURATION, .only = "path", .min = 1e8,
	    .max = 3.6e12, .preset = "10s",
	    .help = "It is written so often, and at the end: what a crash loses at most."),
	ROW(sl_ledger_config, accounts, "accounts", COUNT, .min = 64, .max = 1e6,
	    .apply = SL_APPLY_RESTART, .preset = "32768",
	    .help = "Tenants and signals that one shard counts for at a time; what is beyond is "
		    "counted as _other."),
	ROW(sl_ledger_config, export_max, "export", COUNT, .max = 10000, .preset = "100",
	    .help = "Tenants with series of their own at /metrics, by volume; the rest is _other."),
	ROW(sl_ledger_config, departed_ns, "departed", DURATION, .min = 1e9, .max = 3.2e16,
	    .preset = "1h",
	    .help = "How long the account of a tenant that a template made is kept by name after "
		    "it "
		    "was used last; then it is added to _departed:CLASS. Sooner, where more than "
		    "32,768 such have left."),
	ROW(sl_ledger_config, usage, "usage", OPTIONAL, .object = &usage_settings,
	    .apply = SL_APPLY_RESTART, .help = "Sends what each tenant used to Kafka."),
};

static void check_ledger(const void *object, struct sl_errors *errors)
{
	const struct sl_ledger_config *config = object;

	if (config->usage && !config->path)
		sl_errors_add(errors, &config->usage->where,
			      "ledger.usage needs ledger.path: records are kept there until they "
			      "are confirmed");
}
const struct sl_settings sl_ledger_settings = SETTINGS("ledger", sl_ledger_config, ledger_rows,
						       .check = check_ledger,
						       .help = "What each tenant sent and what "
							       "became of it, to the item.");

static const struct sl_kafka_config *kafka_of(const struct sl_snapshot *snapshot,
					      const struct sl_ledger_usage_config *usage)
{
	const struct sl_routing_config *routing = snapshot->configs[SL_MODULE_ROUTING];
	const struct sl_destination_config *destination;

	if (usage->kafka)
		return usage->kafka;
	destination = routing ? sl_destination_find(routing, usage->destination) : NULL;
	return destination ? destination->kafka : NULL;
}

static const struct sl_ledger_config *config_of(const struct sl_snapshot *snapshot)
{
	return &((const struct sl_process_config *)snapshot->configs[SL_MODULE_PROCESS])->ledger;
}

static rd_kafka_conf_t *conf_of(const struct sl_snapshot *snapshot, struct sl_errors *errors)
{
	const struct sl_ledger_usage_config *usage = config_of(snapshot)->usage;
	const struct sl_kafka_config *kafka = usage ? kafka_of(snapshot, usage) : NULL;

	if (!usage)
		return NULL;
	if (!kafka) {
		sl_errors_add(errors, &usage->where,
			      "ledger.usage: no kafka destination is named \"%s\"",
			      usage->destination);
		return NULL;
	}
	if (kafka->acks != 0) {
		sl_errors_add(errors, &usage->where,
			      "ledger.usage: what is confirmed by less than acks: all can be lost");
		return NULL;
	}
	return sl_kafka_conf(kafka, UINT64_MAX, errors);
}

const struct sl_kafka_config *sl_control_usage_kafka(const struct sl_snapshot *snapshot)
{
	const struct sl_ledger_usage_config *usage = config_of(snapshot)->usage;

	return usage ? kafka_of(snapshot, usage) : NULL;
}

void sl_control_check_ledger(const struct sl_snapshot *snapshot, struct sl_errors *errors)
{
	rd_kafka_conf_t *conf = conf_of(snapshot, errors);

	if (conf)
		rd_kafka_conf_destroy(conf);
}

// --- opening -------------------------------------------------------------------------------------

static int save(struct sl_ledger *ledger, const char *path)
{
	size_t size;
	char *text = sl_ledger_write(ledger, &size);
	const int failed = text ? sl_disk_replace(path, sl_bytes(text, size)) : -ENOMEM;

	free(text);
	if (failed)
		sl_log(SL_LOG_ERROR, "ledger_not_saved", "path=%s reason=\"%s\"", path,
		       strerror(-failed));
	return failed;
}

// Whether the path can be written is known at start, not when there is something to lose. But that
// the disk is full: it may be the spools that fill it, which only a process that runs can empty.
// The thread tries again.
static int load(struct sl_ledger *ledger, const char *path)
{
	char error[200] = "", why[SL_DISK_WHY];
	struct sl_ledger_stats stats;
	int saved, loaded = sl_ledger_lock(ledger, path, why);

	if (loaded) {
		sl_log(SL_LOG_ERROR, "ledger_not_opened", "path=%s reason=\"%s\"", path, why);
		return loaded;
	}
	loaded = sl_ledger_load(ledger, path, sl_clock_wall_ns(), error, sizeof(error));
	if (loaded == -EINVAL) {
		sl_log(SL_LOG_ERROR, "ledger_refused",
		       "path=%s reason=\"%s\" kept=%s.refused-* accounts=0", path, error, path);
	} else if (loaded < 0) {
		sl_log(SL_LOG_ERROR, "ledger_not_read", "path=%s reason=\"%s\"", path,
		       strerror(-loaded));
		return loaded;
	}
	sl_ledger_stats(ledger, &stats);
	sl_log(SL_LOG_INFO, "ledger_opened", "path=%s accounts=%u instance=%s pending=%u", path,
	       stats.accounts, stats.instance, stats.pending);
	saved = save(ledger, path);
	return saved == -ENOSPC || saved == -EDQUOT ? 0 : saved;
}

struct sl_ledger *sl_control_open_ledger(const struct sl_process_config *config, uint32_t shards)
{
	const struct sl_ledger_config *ledger_config = &config->ledger;
	struct sl_ledger_options options = {
		.shards = shards,
		.rows_max = (uint32_t)ledger_config->accounts,
		.tenants_max = SL_TENANTS_MAX,
		.export_max = (uint32_t)ledger_config->export_max,
		.usage = ledger_config->usage != NULL,
		.wall_ns = sl_clock_wall_ns(),
	};
	struct sl_ledger *ledger;
	int failed = 0;

	if (getrandom(options.instance, sizeof(options.instance), 0) != sizeof(options.instance))
		return NULL;
	ledger = sl_ledger_create(&options);
	if (!ledger) {
		sl_log(SL_LOG_ERROR, "ledger_not_opened", "reason=\"no memory\"");
		errno = ENOMEM;
		return NULL;
	}
	if (ledger_config->path)
		failed = load(ledger, ledger_config->path);
	if (!failed) {
		sl_ledger_rank(ledger, options.export_max, sl_clock_now_ns());
		return ledger;
	}
	sl_ledger_destroy(ledger);
	errno = -failed;
	return NULL;
}

// --- the thread ----------------------------------------------------------------------------------

static void drop_settings(struct settings *settings)
{
	if (settings->conf)
		rd_kafka_conf_destroy(settings->conf);
	free(settings->topic);
	free(settings->path);
	*settings = (struct settings){0};
}

void sl_ledger_thread_configure(struct sl_ledger_thread *self, const struct sl_snapshot *snapshot)
{
	const struct sl_ledger_config *config = config_of(snapshot);
	struct sl_errors *errors = sl_errors_create();
	struct settings settings = {
		.save_ns = config->interval_ns,
		.departed_ns = config->departed_ns,
		.export_max = (uint32_t)config->export_max,
		.path = config->path ? strdup(config->path) : NULL,
		.topic = config->usage ? strdup(config->usage->topic) : NULL,
		.cut_ns = config->usage ? config->usage->interval_ns : 0,
	};

	if (errors)
		settings.conf = conf_of(snapshot, errors); // checked with the snapshot
	sl_errors_destroy(errors);
	pthread_mutex_lock(&self->lock);
	drop_settings(&self->next);
	self->next = settings;
	self->has_next = true;
	pthread_mutex_unlock(&self->lock);
}

static void take_settings(struct sl_ledger_thread *self, uint64_t now_ns)
{
	struct settings *settings = &self->settings;

	pthread_mutex_lock(&self->lock);
	if (self->has_next) {
		drop_settings(settings);
		*settings = self->next;
		self->next = (struct settings){0};
		self->has_next = false;
		sl_usage_sender_configure(&self->sender, settings->conf, settings->topic);
		settings->conf = NULL; // the sender's
		self->save_due_ns = SL_MIN(self->save_due_ns, now_ns + settings->save_ns);
		self->cut_due_ns = SL_MIN(self->cut_due_ns, now_ns + settings->cut_ns);
		self->rank_due_ns = now_ns;
	}
	pthread_mutex_unlock(&self->lock);
}

// A cut is sent only once it is on disk.
static void save_now(struct sl_ledger_thread *self, uint64_t now_ns)
{
	const bool failed = save(self->ledger, self->settings.path) != 0;

	sl_count(failed ? self->counters.save_failures : self->counters.saves, 1);
	self->retry_due_ns = failed ? now_ns + SL_S : 0;
	if (failed)
		return;
	self->safe = true;
	sl_gauge(self->counters.saved, sl_clock_wall_ns() / SL_S);
}

static void show(struct sl_ledger_thread *self)
{
	struct sl_ledger_stats stats;

	sl_ledger_stats(self->ledger, &stats);
	sl_gauge(self->counters.usage_records, self->sender.confirmed);
	sl_gauge(self->counters.usage_failures, self->sender.failures);
	sl_gauge(self->counters.usage_pending, stats.pending);
	sl_gauge(self->counters.accounts, stats.accounts);
	sl_gauge(self->counters.departed, stats.departed);
	sl_gauge(self->counters.rows, stats.rows);
	sl_gauge(self->counters.overflows, stats.overflows);
}

static void cut(struct sl_ledger_thread *self)
{
	if (sl_ledger_cut(self->ledger, sl_clock_wall_ns()))
		self->safe = false;
}

// Returns how long the next one may wait, in ns.
static uint64_t tick(struct sl_ledger_thread *self, uint64_t now_ns)
{
	const struct settings *settings = &self->settings;
	uint64_t wait_ns;

	take_settings(self, now_ns);
	wait_ns = sl_ledger_fold(self->ledger, true);
	sl_ledger_depart(self->ledger, settings->departed_ns, now_ns);
	if (now_ns >= self->rank_due_ns) {
		sl_ledger_rank(self->ledger, settings->export_max, now_ns);
		self->rank_due_ns = now_ns + SL_LEDGER_RANK_NS;
	}
	if (settings->cut_ns && now_ns >= self->cut_due_ns) {
		cut(self);
		self->cut_due_ns = now_ns + settings->cut_ns;
	}
	if (settings->path &&
	    (now_ns >= self->save_due_ns || (!self->safe && now_ns >= self->retry_due_ns))) {
		save_now(self, now_ns);
		self->save_due_ns = now_ns + settings->save_ns;
	}
	if (self->safe)
		sl_usage_sender_run(&self->sender, now_ns, 0);
	show(self);
	return wait_ns;
}

// Sends until all is confirmed, or time is over. Returns whether all is.
static bool send_all(struct sl_ledger_thread *self, uint64_t end_ns)
{
	struct sl_ledger_stats stats;

	for (;;) {
		const uint64_t now_ns = sl_clock_now_ns();

		sl_ledger_stats(self->ledger, &stats);
		if (!stats.pending || !self->safe || !self->sender.conf || now_ns >= end_ns)
			return !stats.pending;
		sl_usage_sender_run(&self->sender, now_ns, 50);
	}
}

// The shards have ended. What is sent and confirmed now need not be sent after a restart; what is
// not is in the file.
static void finish(struct sl_ledger_thread *self)
{
	const uint64_t end_ns = sl_clock_now_ns() + END_WAIT_NS;

	take_settings(self, sl_clock_now_ns());
	sl_ledger_close(self->ledger);
	if (!self->settings.path)
		return;
	save_now(self, sl_clock_now_ns());
	if (!self->settings.cut_ns)
		return;
	// The last interval's records first: while one of them is open there is no other cut.
	if (send_all(self, end_ns)) {
		cut(self);
		save_now(self, sl_clock_now_ns());
		send_all(self, end_ns);
	}
	save_now(self, sl_clock_now_ns());
}

static void *run(void *argument)
{
	struct sl_ledger_thread *self = argument;

	while (!__atomic_load_n(&self->stop, __ATOMIC_ACQUIRE)) {
		struct pollfd fd = {.fd = self->wake_fd, .events = POLLIN};

		const struct timespec time = {0, (long)tick(self, sl_clock_now_ns())};

		ppoll(&fd, 1, &time, NULL);
	}
	finish(self);
	return NULL;
}

static int start(struct sl_ledger_thread *self)
{
	const int failed = sl_thread_start(&self->thread, "ledger", run, self);

	self->running = !failed;
	return failed;
}

struct sl_ledger_thread *sl_ledger_thread_create(struct sl_ledger *ledger,
						 struct sl_metrics *metrics,
						 const struct sl_snapshot *snapshot)
{
	struct sl_ledger_thread *self = calloc(1, sizeof(*self));
	int error = 0;

	if (!self)
		return NULL;
	self->ledger = self->sender.ledger = ledger;
	self->metrics = metrics;
	self->safe = true; // what is pending came from the file
	self->save_due_ns = self->cut_due_ns = UINT64_MAX;
	pthread_mutex_init(&self->lock, NULL);
	self->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (self->wake_fd < 0)
		error = -errno;
	sl_ledger_thread_configure(self, snapshot);
	if (!error)
		error = sl_metrics_add(metrics, sl_ledger_thread_counter_rows,
				       sl_ledger_thread_counter_row_count, &self->counters, -1,
				       NULL);
	if (!error)
		error = start(self);
	if (!error)
		return self;
	sl_ledger_thread_destroy(self);
	errno = -error;
	return NULL;
}

void sl_ledger_thread_destroy(struct sl_ledger_thread *self)
{
	const uint64_t one = 1;

	if (!self)
		return;
	if (self->running) {
		__atomic_store_n(&self->stop, 1, __ATOMIC_RELEASE);
		if (write(self->wake_fd, &one, sizeof(one)) < 0)
			sl_log(SL_LOG_DEBUG, "ledger_thread", "reason=awake");
		pthread_join(self->thread, NULL);
	}
	sl_usage_sender_fini(&self->sender);
	drop_settings(&self->settings);
	drop_settings(&self->next);
	sl_metrics_remove(self->metrics, &self->counters);
	pthread_mutex_destroy(&self->lock);
	if (self->wake_fd >= 0)
		close(self->wake_fd);
	free(self);
}
