#include "config/control/source.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "config/control/metrics.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/log.h"
#include "dataplane/base/thread.h"
#include "tenants/source.h"

#define VERDICT_NS  (20 * SL_MS) // how often the control thread is asked for it
#define REFUSED_NS  (10 * SL_S)  // until what was refused is tried again
#define BACKOFF_MAX (5 * SL_S)   // while Redis does not answer
#define TOLD_NS     (60 * SL_S)  // the same failure again
#define LISTEN_NS   SL_S         // until it is tried to listen again
#define SETTLE_MS   50

static const char *const result_values[] = {"success", "failure"};
static const struct sl_label sl_label_source_result = {"result", result_values, 2};
#define SL_LABEL_COUNT_source_result 2
enum { TAKEN, REFUSED };

#define SL_SOURCE_COUNTERS(X)                                                                      \
	X(updates, COUNTER, "sluice_tenants_redis_updates", source_result,                         \
	  "Other tenants found in tenants.redis, and whether they were taken.")                    \
	X(failures, COUNTER, "sluice_tenants_redis_failures", none,                                \
	  "Times that tenants.redis could not be read, or had nothing.")                           \
	X(up, GAUGE, "sluice_tenants_redis_up", none, "Whether it could be read last.")            \
	X(tenants, GAUGE, "sluice_tenants_redis_tenants", none, "Tenants taken from there last.")
SL_COUNTERS(source, SL_SOURCE_COUNTERS)
#define SL_COUNTER_STRUCT_ struct sl_source_counters
SL_COUNTER_ROWS(source, SL_SOURCE_COUNTERS)

enum verdict { VERDICT_NONE, VERDICT_GOOD, VERDICT_BAD };

struct sl_source_thread {
	struct sl_tenants_redis_config config; // texts are its own
	struct sl_quota_tls_config tls;        // of `config`
	struct sl_redis redis, ear;            // asked, and told by
	bool heard;                            // that there is something
	struct sl_metrics *metrics;
	struct sl_source_counters counters;
	char name[400];
	char known[65];               // the version that was looked at last; "": none
	bool refused;                 // it was not taken
	uint64_t wait_ns;             // until the next look
	uint64_t told_ns;             // when a failure was last told
	uint64_t backoff_ns;          // while it does not answer
	char failure[200];            // the last one told; "": it is well
	struct sl_source_text *ready; // writer: the source thread gives, the control thread takes
	uint32_t verdict;             // enum verdict; writer: the control thread
	uint32_t stop;                // writer: the control thread
	bool running;
	int wake_fd;
	pthread_t thread;
};

struct sl_source_text *sl_source_thread_take(struct sl_source_thread *self)
{
	if (!self || !__atomic_load_n(&self->ready, __ATOMIC_RELAXED))
		return NULL;
	return __atomic_exchange_n(&self->ready, NULL, __ATOMIC_ACQUIRE);
}

// The reasons themselves are in the log, by line; here whose line the first is.
static void blame(const struct sl_source_thread *self, const struct sl_source_text *text,
		  const struct sl_errors *errors)
{
	const size_t size = strlen(self->name);

	for (uint32_t i = 0; i < sl_errors_count(errors); i++) {
		const char *line = sl_errors_line(errors, i);
		struct sl_bytes name;

		if (strncmp(line, self->name, size) != 0 || line[size] != ':')
			continue;
		name = sl_source_tenant_at(text, (uint32_t)strtoul(line + size + 1, NULL, 10));
		sl_log(SL_LOG_ERROR, "tenants_redis_refused", "from=%s version=%s tenant=%.*s",
		       self->name, text->version, (int)name.size, (const char *)name.data);
		return;
	}
}

void sl_source_thread_judge(struct sl_source_thread *self, const struct sl_source_text *text,
			    bool good, const struct sl_errors *errors)
{
	if (!good && errors)
		blame(self, text, errors);
	__atomic_store_n(&self->verdict, good ? VERDICT_GOOD : VERDICT_BAD, __ATOMIC_RELEASE);
}

static bool stopped(const struct sl_source_thread *self)
{
	return __atomic_load_n(&self->stop, __ATOMIC_ACQUIRE);
}

static bool deaf(const struct sl_source_thread *self)
{
	return self->config.notify && sl_redis_fd(&self->ear) < 0;
}

static void hear(struct sl_source_thread *self)
{
	const int count = sl_redis_heard(&self->ear);

	self->heard |= count > 0;
	if (count < 0)
		sl_redis_close(&self->ear);
}

// Before a look, so that nothing is told between the two. What was told while nobody listened is
// looked for at once.
static void listen_again(struct sl_source_thread *self)
{
	if (deaf(self))
		self->heard |= sl_source_listen(&self->config, &self->ear) == 0;
}

static void sleep_for(struct sl_source_thread *self, uint64_t ns)
{
	struct pollfd fds[2] = {{.fd = self->wake_fd, .events = POLLIN},
				{.fd = sl_redis_fd(&self->ear), .events = POLLIN}};
	const struct timespec time = {(time_t)(ns / SL_S), (long)(ns % SL_S)};

	if (ppoll(fds, 2, &time, NULL) > 0 && fds[1].revents)
		hear(self);
}

// False: the process ends.
static bool try_text(struct sl_source_thread *self, struct sl_source_text *text)
{
	uint32_t verdict = VERDICT_NONE;

	__atomic_store_n(&self->verdict, VERDICT_NONE, __ATOMIC_RELAXED);
	__atomic_store_n(&self->ready, text, __ATOMIC_RELEASE);
	while (!stopped(self) && verdict == VERDICT_NONE) {
		sleep_for(self, VERDICT_NS);
		verdict = __atomic_load_n(&self->verdict, __ATOMIC_ACQUIRE);
	}
	self->refused = verdict != VERDICT_GOOD;
	if (verdict == VERDICT_NONE)
		return false;
	sl_count(&self->counters.updates[self->refused ? REFUSED : TAKEN], 1);
	sl_log(self->refused ? SL_LOG_ERROR : SL_LOG_INFO, "tenants_redis",
	       "from=%s version=%s tenants=%u result=%s", self->name, text->version, text->count,
	       self->refused ? "refused" : "taken");
	if (!self->refused)
		sl_gauge(self->counters.tenants, text->count);
	return true;
}

static void keep(const struct sl_source_thread *self, const struct sl_source_text *text)
{
	const int error = self->config.cache ? sl_source_cache_write(self->config.cache, text) : 0;

	if (error)
		sl_log(SL_LOG_ERROR, "tenants_redis_cache", "file=%s reason=\"%s\"",
		       self->config.cache, strerror(-error));
}

// Told once a minute, or when it is another failure.
static void failed(struct sl_source_thread *self, int result, const char *error)
{
	const uint64_t now_ns = sl_clock_now_ns();
	const bool same = strcmp(self->failure, error) == 0;

	sl_count(self->counters.failures, 1);
	sl_gauge(self->counters.up, 0);
	// Who answers may have what is wrong mended soon.
	self->backoff_ns = result == -EIO
				   ? SL_MIN(SL_MAX(self->backoff_ns * 2, SL_S / 10), BACKOFF_MAX)
				   : 0;
	self->wait_ns = SL_MAX(self->config.poll_ns, self->backoff_ns);
	if (same && now_ns < self->told_ns + TOLD_NS)
		return;
	snprintf(self->failure, sizeof(self->failure), "%s", error);
	self->told_ns = now_ns;
	sl_log(SL_LOG_WARN, "tenants_redis", "from=%s reason=\"%s\" result=kept", self->name,
	       error);
}

static void look(struct sl_source_thread *self)
{
	const bool anew = self->refused || !*self->known;
	struct sl_source_text *text = NULL;
	char error[200];
	const int result = sl_source_fetch(&self->config, &self->redis, anew ? NULL : self->known,
					   &text, error, sizeof(error));

	if (result < 0) {
		if (!stopped(self))
			failed(self, result, error);
		return;
	}
	if (*self->failure)
		sl_log(SL_LOG_INFO, "tenants_redis", "from=%s result=up", self->name);
	self->failure[0] = 0;
	self->backoff_ns = 0;
	self->wait_ns = self->config.poll_ns;
	sl_gauge(self->counters.up, 1);
	if (result == 0)
		return;
	snprintf(self->known, sizeof(self->known), "%s", text->version);
	// Its reference here is the mailbox' too: the control thread takes and does not put.
	if (try_text(self, text) && !self->refused)
		keep(self, text);
	if (self->refused)
		self->wait_ns = SL_MAX(self->config.poll_ns, REFUSED_NS);
	__atomic_store_n(&self->ready, NULL, __ATOMIC_RELAXED);
	sl_source_text_put(text);
}

// What was refused is looked at at each poll as well: perhaps it has been mended.
static void wait(struct sl_source_thread *self)
{
	struct sl_source_text *text = NULL;
	uint64_t waited_ns = 0;
	char error[200];

	while (!stopped(self) && waited_ns < self->wait_ns && !self->heard) {
		const uint64_t step_ns = self->refused ? self->config.poll_ns : self->wait_ns;
		const uint64_t some_ns = SL_MIN(deaf(self) ? SL_MIN(step_ns, LISTEN_NS) : step_ns,
						self->wait_ns - waited_ns);

		sleep_for(self, some_ns);
		waited_ns += some_ns;
		if (deaf(self) && !stopped(self))
			listen_again(self);
		if (!self->refused || waited_ns >= self->wait_ns || stopped(self))
			continue;
		if (sl_source_fetch(&self->config, &self->redis, self->known, &text, error,
				    sizeof(error)))
			waited_ns = self->wait_ns;
		sl_source_text_put(text);
	}
}

// Who writes a lot is looked at now and then, and is given time to end.
static void settle(const struct sl_source_thread *self)
{
	struct pollfd fd = {.fd = self->wake_fd, .events = POLLIN};

	poll(&fd, 1, SETTLE_MS);
}

static void *run(void *argument)
{
	struct sl_source_thread *self = argument;

	while (!stopped(self)) {
		listen_again(self);
		self->heard = false;
		look(self);
		wait(self);
		if (self->heard)
			settle(self);
	}
	return NULL;
}

static char *copy(const char *text, bool *failing)
{
	char *copied = text ? strdup(text) : NULL;

	*failing |= text && !copied;
	return copied;
}

static int start(struct sl_source_thread *self)
{
	const int failed = sl_thread_start(&self->thread, "tenants", run, self);

	self->running = !failed;
	return failed;
}

struct sl_source_thread *sl_source_thread_create(const struct sl_tenants_redis_config *config,
						 const struct sl_source_text *first,
						 struct sl_metrics *metrics)
{
	struct sl_source_thread *self = calloc(1, sizeof(*self));
	bool failing = false;
	int error = 0;

	if (!self)
		return NULL;
	self->config = *config;
	self->config.redis.address = copy(config->redis.address, &failing);
	self->config.redis.user = copy(config->redis.user, &failing);
	self->config.redis.password = copy(config->redis.password, &failing);
	self->config.redis.prefix = copy(config->redis.prefix, &failing);
	self->config.cache = copy(config->cache, &failing);
	if (config->redis.tls) {
		self->tls = *config->redis.tls;
		self->tls.ca_file = copy(self->tls.ca_file, &failing);
		self->tls.certificate_file = copy(self->tls.certificate_file, &failing);
		self->tls.key_file = copy(self->tls.key_file, &failing);
		self->config.redis.tls = &self->tls;
	}
	self->redis.stop = self->ear.stop = &self->stop;
	self->wait_ns = config->poll_ns;
	snprintf(self->known, sizeof(self->known), "%s", first ? first->version : "");
	self->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (failing || self->wake_fd < 0)
		error = -ENOMEM;
	if (!error) {
		sl_source_name(&self->config, self->name);
		error = sl_metrics_add(metrics, sl_source_counter_rows, sl_source_counter_row_count,
				       &self->counters, -1, NULL);
		self->metrics = error ? NULL : metrics;
	}
	if (!error && first) {
		sl_gauge(self->counters.tenants, first->count);
		keep(self, first);
	}
	if (!error)
		error = start(self);
	if (!error)
		return self;
	sl_log(SL_LOG_ERROR, "tenants_redis", "reason=\"%s\"", strerror(-error));
	sl_source_thread_destroy(self);
	errno = -error;
	return NULL;
}

void sl_source_thread_destroy(struct sl_source_thread *self)
{
	const uint64_t one = 1;

	if (!self)
		return;
	if (self->running) {
		__atomic_store_n(&self->stop, 1, __ATOMIC_RELEASE);
		if (write(self->wake_fd, &one, sizeof(one)) < 0)
			sl_log(SL_LOG_DEBUG, "tenants_redis", "reason=awake");
		pthread_join(self->thread, NULL);
	}
	if (self->metrics)
		sl_metrics_remove(self->metrics, &self->counters);
	if (self->wake_fd >= 0)
		close(self->wake_fd);
	free((char *)self->config.redis.address);
	free((char *)self->config.redis.user);
	free((char *)self->config.redis.password);
	free((char *)self->config.redis.prefix);
	free((char *)self->config.cache);
	free((char *)self->tls.ca_file);
	free((char *)self->tls.certificate_file);
	free((char *)self->tls.key_file);
	sl_redis_close(&self->redis);
	sl_redis_close(&self->ear);
	free(self);
}
