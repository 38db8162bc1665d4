#include "config/control/control.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/control/internal.h"
#include "config/control/ledger.h"
#include "config/control/metrics.h"
#include "config/control/quota.h"
#include "config/control/source.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/hash.h"
#include "tenants/ledger/ledger.h"
#include "tenants/settings.h"
#include "tenants/tenants.h"

#define WATCH_NS (1 * SL_S)
#define WAIT_NS  (10 * SL_MS) // a drain ends, retired snapshots go

static const char *const result_values[] = {"success", "failure"};
const struct sl_label sl_label_reload_result = {"result", result_values,
						SL_LABEL_COUNT_reload_result};
#define SL_COUNTER_STRUCT_ struct sl_control_counters
SL_COUNTER_ROWS(control, SL_CONTROL_COUNTERS)

const struct sl_metric_row sl_build_rows[1] = {{
	.name = "sluice_build_info",
	.help = "The version that runs.",
	.kind = SL_METRIC_GAUGE,
	.count = 1,
	.labels = {&sl_label_none},
}};

static const struct sl_snapshot *current(const struct sl_control *control)
{
	return sl_snapshots_current(control->options.snapshots);
}

const struct sl_process_config *sl_control_config(const struct sl_control *control)
{
	return current(control)->configs[SL_MODULE_PROCESS];
}

static void watch(void *self, const char *path)
{
	struct sl_control *control = self;
	char **grown = realloc(control->watched, (control->watched_count + 1) * sizeof(*grown));

	if (!grown)
		return; // a change of it needs a SIGHUP then
	control->watched = grown;
	grown[control->watched_count] = strdup(path);
	if (grown[control->watched_count])
		control->watched_count++;
}

static void forget_watched(struct sl_control *control)
{
	for (uint32_t i = 0; i < control->watched_count; i++)
		free(control->watched[i]);
	free(control->watched);
	control->watched = NULL;
	control->watched_count = 0;
}

static uint64_t stamp_of(const struct stat *stat_, uint64_t salt)
{
	const uint64_t words[] = {
		salt,
		(uint64_t)stat_->st_ino,
		(uint64_t)stat_->st_size,
		(uint64_t)stat_->st_mtim.tv_sec,
		(uint64_t)stat_->st_mtim.tv_nsec,
	};

	return sl_hash(sl_bytes(words, sizeof(words)));
}

// What is in a folder; its own stamp tells who came and went, not who changed.
static uint64_t stamp_inside(const char *path)
{
	DIR *folder = opendir(path);
	const struct dirent *entry;
	uint64_t sum = 0;

	while (folder && (entry = readdir(folder))) {
		struct stat stat_;

		if (entry->d_name[0] != '.' &&
		    fstatat(dirfd(folder), entry->d_name, &stat_, 0) == 0)
			sum += stamp_of(&stat_, sl_hash(sl_bytes_of(entry->d_name)));
	}
	if (folder)
		closedir(folder);
	return sum;
}

static uint64_t stamp(const struct sl_control *control)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < control->watched_count; i++) {
		struct stat stat_ = {0};
		const bool there = stat(control->watched[i], &stat_) == 0;

		sum ^= stamp_of(&stat_, i);
		if (there && S_ISDIR(stat_.st_mode))
			sum += stamp_inside(control->watched[i]);
	}
	return sum;
}

// The files behind the current snapshot.
static void watch_files(struct sl_control *control)
{
	const struct sl_control_options *options = &control->options;

	forget_watched(control);
	watch(control, options->file);
	sl_settings_watched(sl_modules_settings(options->modules, options->module_count),
			    current(control)->loaded.object, watch, control);
}

static void took_over(struct sl_control *control)
{
	const struct sl_control_hooks *hooks = &control->options.hooks;
	const struct sl_snapshot *snapshot = current(control);
	const struct sl_process_config *config = sl_control_config(control);

	if (control->ledger)
		sl_ledger_thread_configure(control->ledger, snapshot);
	// Where it says what it said before, POST /log-level holds: reloads come by themselves.
	if (control->log_level != (int)config->log.level)
		sl_log_set_level(config->log.level);
	control->log_level = (int)config->log.level;
	sl_log_set_format(config->log.format);
	sl_gauge(control->counters.generation, snapshot->generation);
	sl_gauge(control->counters.last_reload, sl_clock_wall_ns() / SL_S);
	if (hooks->certificate_expiry)
		sl_gauge(control->counters.certificate,
			 (uint64_t)hooks->certificate_expiry(hooks->self, snapshot));
}

// One log line for each problem; the quotes of a line would end the pair they are in.
static void tell(enum sl_log_level level, const char *event, const char *what)
{
	struct sl_log_site site = {0}; // every line is wanted, however many
	char line[1024];

	snprintf(line, sizeof(line), "%s", what);
	for (char *at = line; *at; at++)
		*at = *at == '"' ? '\'' : *at;
	sl_log_write(&site, level, event, "reason=\"%s\"", line);
}

static void refused(struct sl_control *control, const struct sl_errors *errors)
{
	for (uint32_t i = 0; i < sl_errors_count(errors); i++)
		tell(SL_LOG_ERROR, "config_refused", sl_errors_line(errors, i));
	sl_count(&control->counters.reloads[SL_RELOAD_FAILURE], 1);
}

static void warned(const struct sl_errors *errors)
{
	for (uint32_t i = 0; i < sl_errors_warnings(errors); i++)
		tell(SL_LOG_WARN, "config_warning", sl_errors_warning(errors, i));
}

// What needs a restart is refused as a whole: shards know their listeners by index, and a
// configuration of which one half runs helps nobody.
static bool fits(struct sl_control *control, const struct sl_snapshot *next,
		 struct sl_errors *errors)
{
	const struct sl_control_options *options = &control->options;

	if (options->hooks.check) {
		const uint32_t before = sl_errors_count(errors);

		options->hooks.check(options->hooks.self, next, errors);
		if (sl_errors_count(errors) > before)
			return false;
	}
	return !sl_settings_restart_needed(
		sl_modules_settings(options->modules, options->module_count),
		current(control)->loaded.object, &next->loaded, options->file, errors);
}

bool sl_control_reload(struct sl_control *control, const char *why, struct sl_errors *errors)
{
	const struct sl_control_options *options = &control->options;
	const uint64_t began_ns = sl_clock_now_ns();
	char state[64];
	struct sl_snapshot *next;

	snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%llu",
		 (unsigned long long)(began_ns / SL_US));
	sl_notify(state);
	// Before the load: a file that changes while it is read is seen again.
	control->watched_stamp = stamp(control);
	next = sl_snapshot_load(options->modules, options->module_count, options->file,
				current(control), false, errors);
	if (next && !fits(control, next, errors)) {
		sl_snapshot_destroy(options->modules, options->module_count, next);
		next = NULL;
	}
	warned(errors);
	if (next) {
		sl_snapshots_publish(options->snapshots, next);
		options->hooks.published(options->hooks.self, next);
		took_over(control);
		// Other files to watch cost one reload more; a file that changed meanwhile is seen.
		watch_files(control);
		sl_count(&control->counters.reloads[SL_RELOAD_SUCCESS], 1);
		sl_log(SL_LOG_INFO, "config_reloaded", "why=%s generation=%llu ms=%llu", why,
		       (unsigned long long)next->generation,
		       (unsigned long long)((sl_clock_now_ns() - began_ns) / SL_MS));
	} else {
		refused(control, errors);
	}
	sl_notify("READY=1");
	return next != NULL;
}

static void reload(struct sl_control *control, const char *why)
{
	struct sl_errors *errors = sl_errors_create();

	if (errors)
		sl_control_reload(control, why, errors);
	sl_errors_destroy(errors);
}

void sl_control_drain(struct sl_control *control)
{
	if (control->drain_began_ns)
		return;
	control->drain_began_ns = sl_clock_now_ns();
	sl_gauge(control->counters.draining, 1);
	sl_log(SL_LOG_INFO, "draining", "delay_ms=%llu timeout_ms=%llu",
	       (unsigned long long)(sl_control_config(control)->drain_delay_ns / SL_MS),
	       (unsigned long long)(sl_control_config(control)->drain_timeout_ns / SL_MS));
}

static void end(struct sl_control *control)
{
	if (control->ending)
		control->abandoned = true; // asked twice
	// Only now: a service manager ends what says so and then stays, as after POST /drain.
	if (!control->ending)
		sl_notify("STOPPING=1");
	control->ending = true;
	sl_control_drain(control);
}

// Whether the loop is over.
static bool drained(struct sl_control *control, uint64_t now_ns)
{
	const struct sl_process_config *config = sl_control_config(control);
	const struct sl_control_hooks *hooks = &control->options.hooks;
	const uint64_t told_ns = control->drain_began_ns + config->drain_delay_ns;

	if (!control->drain_began_ns)
		return false;
	if (!control->drain_told && (now_ns >= told_ns || control->abandoned)) {
		control->drain_told = true;
		hooks->drain(hooks->self);
	}
	if (!control->ending || !control->drain_told)
		return false;
	if (hooks->is_idle(hooks->self) && !control->abandoned)
		return true;
	if (now_ns >= told_ns + config->drain_timeout_ns)
		control->abandoned = true;
	return control->abandoned;
}

static void tell_ready(struct sl_control *control)
{
	const struct sl_control_hooks *hooks = &control->options.hooks;
	char why[2048];
	const bool unready = !sl_control_is_ready(control, why, sizeof(why));

	if (unready == control->unready || !hooks->ready)
		return;
	control->unready = unready;
	hooks->ready(hooks->self, !unready);
}

static void take_signals(struct sl_control *control)
{
	struct signalfd_siginfo info;
	uint64_t woken;

	if (read(control->wake_fd, &woken, sizeof(woken)) == sizeof(woken))
		end(control);
	while (read(control->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGHUP)
			reload(control, "signal");
		else
			end(control);
	}
}

// Other tenants in Redis: they are in force with a reload, or the old ones stay.
static void take_source(struct sl_control *control)
{
	struct sl_source_text *text = sl_source_thread_take(control->source);
	struct sl_errors *errors = text ? sl_errors_create() : NULL;
	bool good = false;

	if (!text)
		return;
	sl_tenants_offer(current(control)->parts[SL_MODULE_TENANTS], text);
	if (errors)
		good = sl_control_reload(control, "tenants_redis", errors);
	sl_tenants_offer(current(control)->parts[SL_MODULE_TENANTS], NULL);
	sl_source_thread_judge(control->source, text, good, errors);
	sl_errors_destroy(errors);
}

static int start_source(struct sl_control *control)
{
	const struct sl_tenants_module_config *config =
		current(control)->configs[SL_MODULE_TENANTS];
	const struct sl_tenants *tenants = current(control)->parts[SL_MODULE_TENANTS];

	if (!config || !tenants || !config->tenants.redis)
		return 0;
	control->source = sl_source_thread_create(config->tenants.redis, sl_tenants_source(tenants),
						  control->options.metrics);
	return control->source ? 0 : -1;
}

static void watch_changes(struct sl_control *control)
{
	if (stamp(control) != control->watched_stamp)
		reload(control, "file_changed");
}

// Sleeps until something happens, one tick at most.
static void wait(struct sl_control *control, uint64_t wait_ns)
{
	struct pollfd fds[] = {
		{.fd = control->signal_fd, .events = POLLIN},
		{.fd = control->wake_fd, .events = POLLIN},
		{.fd = control->admin ? sl_admin_fd(control->admin) : -1, .events = POLLIN},
	};
	const struct timespec time = {(time_t)(wait_ns / SL_S), (long)(wait_ns % SL_S)};

	ppoll(fds, SL_COUNT_OF(fds), &time, NULL);
}

int sl_control_run(struct sl_control *control)
{
	const struct sl_control_options *options = &control->options;
	const struct sl_control_hooks *hooks = &options->hooks;
	uint64_t now_ns = sl_clock_now_ns();
	uint64_t watch_ns = now_ns + WATCH_NS, watchdog_ns = now_ns;

	sl_notify("READY=1");
	while (!drained(control, now_ns)) {
		if (now_ns >= watch_ns) {
			watch_changes(control);
			watch_ns = now_ns + WATCH_NS;
		}
		if (control->watchdog_ns && now_ns >= watchdog_ns) {
			sl_notify("WATCHDOG=1");
			watchdog_ns = now_ns + control->watchdog_ns;
		}
		sl_quota_thread_save(control->quota, now_ns);
		sl_gauge(control->counters.retired,
			 sl_snapshots_reclaim(options->snapshots, options->modules,
					      options->module_count));
		wait(control, WAIT_NS);
		take_signals(control);
		take_source(control);
		if (control->admin)
			sl_admin_run(control->admin);
		now_ns = sl_clock_now_ns();
		tell_ready(control);
	}
	sl_log(SL_LOG_INFO, control->abandoned ? "drain_abandoned" : "drained", "ms=%llu",
	       (unsigned long long)((now_ns - control->drain_began_ns) / SL_MS));
	hooks->stop(hooks->self);
	return control->abandoned ? -ETIMEDOUT : 0;
}

void sl_control_end(struct sl_control *control)
{
	const uint64_t one = 1;

	if (write(control->wake_fd, &one, sizeof(one)) < 0)
		return; // full: it is awake already
}

static void signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
}

// What other daemons take for "reopen the logs" or the like is no reason to end here. A library
// that was loaded before us may have a use for it.
static void ignore(int number)
{
	struct sigaction old;

	if (sigaction(number, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
		signal(number, SIG_IGN);
}

void sl_control_block_signals(void)
{
	sigset_t set;

	signals(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	ignore(SIGUSR1);
	ignore(SIGUSR2);
}

// The ledger and the tenants know each other for as long as the process runs.
static void keep_books(struct sl_tenants *tenants, struct sl_ledger *ledger)
{
	const struct sl_ledger_maker maker = {
		.self = sl_tenants_maker(tenants),
		.class_of = sl_tenants_made_class,
		.is_there = sl_tenants_made_is_there,
		.most = sl_tenants_made_max,
	};

	sl_tenants_kept_by(tenants, sl_ledger_keeps, ledger);
	sl_ledger_made_by(ledger, &maker);
}

struct sl_control *sl_control_create(const struct sl_control_options *options)
{
	struct sl_control *control = calloc(1, sizeof(*control));
	sigset_t set;
	int error;

	if (!control)
		return NULL;
	control->options = *options;
	control->build.info[0] = 1;
	control->log_level = -1;
	signals(&set);
	control->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	control->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	control->watchdog_ns = sl_notify_watchdog_ns();
	sl_gauge(control->counters.started, sl_clock_wall_ns() / SL_S);
	if (control->signal_fd < 0 || control->wake_fd < 0)
		goto fail;
	if (sl_metrics_add(options->metrics, sl_control_counter_rows, sl_control_counter_row_count,
			   &control->counters, -1, NULL) ||
	    sl_metrics_add(options->metrics, sl_build_rows, 1, &control->build, -1,
			   "version=\"" SL_VERSION "\""))
		goto fail;
	if (options->ledger && current(control)->parts[SL_MODULE_TENANTS])
		keep_books(current(control)->parts[SL_MODULE_TENANTS], options->ledger);
	control->quota = sl_quota_thread_create(options->snapshots, options->hooks.shards,
						options->metrics);
	if (!control->quota)
		goto fail;
	if (options->ledger) {
		control->ledger = sl_ledger_thread_create(options->ledger, options->metrics,
							  current(control));
		if (!control->ledger)
			goto fail;
	}
	if (start_source(control))
		goto fail;
	took_over(control);
	watch_files(control);
	control->watched_stamp = stamp(control);
	if (sl_control_config(control)->admin.size) {
		control->admin = sl_admin_create(control, &sl_control_config(control)->admin);
		if (!control->admin)
			goto fail;
	}
	return control;
fail:
	error = errno;
	sl_control_destroy(control);
	errno = error;
	return NULL;
}

void sl_control_destroy(struct sl_control *control)
{
	if (!control)
		return;
	sl_admin_destroy(control->admin);
	sl_source_thread_destroy(control->source);
	sl_quota_thread_destroy(control->quota);
	sl_ledger_thread_destroy(control->ledger);
	sl_metrics_remove(control->options.metrics, &control->counters);
	sl_metrics_remove(control->options.metrics, &control->build);
	forget_watched(control);
	if (control->signal_fd >= 0)
		close(control->signal_fd);
	if (control->wake_fd >= 0)
		close(control->wake_fd);
	free(control);
}

uint16_t sl_control_admin_port(const struct sl_control *control)
{
	return control->admin ? sl_admin_port(control->admin) : 0;
}
