#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <pthread.h>

#include <cmocka.h>

#include "config/control/cgroup.h"
#include "config/control/control.h"
#include "config/control/process.h"
#include "dataplane/base/clock.h"

// A whole control thread with the process module alone, over its admin server.
struct fixture {
	char file[64];
	struct sl_module modules[1];
	struct sl_errors *errors;
	struct sl_metrics *metrics;
	struct sl_snapshots *snapshots;
	struct sl_control *control;
	pthread_t thread;
	uint64_t full_since_ns;
	bool told, stopped, busy;
	int result;
};

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void published(void *self, const struct sl_snapshot *snapshot)
{
	(void)self, (void)snapshot;
}

static void drain(void *self)
{
	((struct fixture *)self)->told = true;
}

static void stop(void *self)
{
	((struct fixture *)self)->stopped = true;
}

static bool is_idle(void *self)
{
	return !((struct fixture *)self)->busy;
}

static uint64_t full_since(void *self, uint32_t shard)
{
	(void)shard;
	return __atomic_load_n(&((struct fixture *)self)->full_since_ns, __ATOMIC_RELAXED);
}

static int64_t expiry(void *self, const struct sl_snapshot *snapshot)
{
	(void)self, (void)snapshot;
	return 4102444800;
}

static void *run(void *self)
{
	struct fixture *fixture = self;

	fixture->result = sl_control_run(fixture->control);
	return NULL;
}

static void begin(struct fixture *fixture, const char *text)
{
	struct sl_snapshot *first;

	*fixture = (struct fixture){.file = "/tmp/sluice-unit-XXXXXX"};
	fixture->modules[0] = sl_process_module;
	close(mkstemp(fixture->file));
	write_file(fixture->file, text);
	fixture->errors = sl_errors_create();
	fixture->metrics = sl_metrics_create();
	first = sl_snapshot_load(fixture->modules, 1, fixture->file, NULL, false, fixture->errors);
	if (!first)
		fail_msg("%s", sl_errors_line(fixture->errors, 0));
	fixture->snapshots = sl_snapshots_create(2, first);
	fixture->control = sl_control_create(&(struct sl_control_options){
		.modules = fixture->modules,
		.module_count = 1,
		.snapshots = fixture->snapshots,
		.metrics = fixture->metrics,
		.file = fixture->file,
		.hooks = {.self = fixture,
			  .shards = 1,
			  .published = published,
			  .drain = drain,
			  .stop = stop,
			  .is_idle = is_idle,
			  .full_since_ns = full_since,
			  .certificate_expiry = expiry},
	});
	assert_non_null(fixture->control);
	assert_int_equal(pthread_create(&fixture->thread, NULL, run, fixture), 0);
}

static void finish(struct fixture *fixture)
{
	sl_control_end(fixture->control);
	pthread_join(fixture->thread, NULL);
	sl_control_destroy(fixture->control);
	sl_snapshots_destroy(fixture->snapshots, fixture->modules, 1);
	sl_metrics_destroy(fixture->metrics);
	sl_errors_destroy(fixture->errors);
	unlink(fixture->file);
}

// The whole answer to one call, by a socket of its own.
static const char *call(struct fixture *fixture, const char *method, const char *target,
			const char *body)
{
	static char answer[65536];
	struct sl_address address;
	char text[64], request[512];
	size_t used = 0;
	ssize_t got;
	int fd;

	snprintf(text, sizeof(text), "127.0.0.1:%u", sl_control_admin_port(fixture->control));
	assert_int_equal(sl_address_parse(&address, text), 0);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, &address.u.any, address.size), 0);
	snprintf(request, sizeof(request),
		 "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
		 method, target, strlen(body), body);
	assert_int_equal(write(fd, request, strlen(request)), strlen(request));
	while (used < sizeof(answer) - 1 &&
	       (got = read(fd, answer + used, sizeof(answer) - 1 - used)) > 0)
		used += (size_t)got;
	answer[used] = 0;
	close(fd);
	return answer;
}

#define CONFIG "admin: 127.0.0.1:0\nlog: {level: error}\n"

static void test_admin(void **state)
{
	static const struct {
		const char *why, *method, *target, *body, *status, *want;
	} rows[] = {
		{"index", "GET", "/", "", "200", "/metrics"},
		{"health", "GET", "/healthz", "", "200", "ok"},
		{"health by HEAD", "HEAD", "/healthz", "", "200", "Content-Length: 3"},
		{"ready", "GET", "/readyz", "", "200", "ready"},
		{"the version", "GET", "/metrics", "", "200", "sluice_build_info{version="},
		{"the certificate", "GET", "/metrics?by=shard", "", "200",
		 "sluice_tls_certificate_expiry_timestamp_seconds 4102444800"},
		{"the effective configuration", "GET", "/config", "", "200", "shards: auto"},
		{"no tenants here", "GET", "/tenants/acme", "", "404", "no such tenant"},
		{"no such path", "GET", "/nonsense", "", "404", "{\"error\":\"not found\"}"},
		{"no such method", "DELETE", "/metrics", "", "405", "Allow: GET, HEAD"},
		{"a drain is not read", "GET", "/drain", "", "405", "Allow: POST"},
		{"level by query", "POST", "/log-level?level=warn", "", "200", "ok"},
		{"level by body", "PUT", "/log-level", "error\n", "200", "ok"},
		{"no such level", "POST", "/log-level?level=loud", "", "422", "expected level"},
		{"reload", "POST", "/reload", "", "200", "reloaded"},
		{"counted", "GET", "/metrics", "", "200",
		 "sluice_config_reloads_total{result=\"success\"} 1"},
	};
	struct fixture fixture;

	(void)state;
	begin(&fixture, CONFIG);
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		const char *answer = call(&fixture, rows[i].method, rows[i].target, rows[i].body);

		if (strncmp(answer + 9, rows[i].status, 3) != 0 || !strstr(answer, rows[i].want))
			fail_msg("%s: %s", rows[i].why, answer);
	}
	finish(&fixture);
	assert_int_equal(fixture.result, 0);
	assert_true(fixture.told && fixture.stopped);
}

// A level that was asked for stays over reloads, which come with any file or tenant that changes.
static void test_log_level(void **state)
{
	struct fixture fixture;

	(void)state;
	begin(&fixture, CONFIG);
	assert_int_equal(sl_log_get_level(), SL_LOG_ERROR);
	call(&fixture, "POST", "/log-level?level=warn", "");
	call(&fixture, "POST", "/reload", "");
	assert_int_equal(sl_log_get_level(), SL_LOG_WARN);
	write_file(fixture.file, "admin: 127.0.0.1:0\nlog: {level: info}\n");
	call(&fixture, "POST", "/reload", "");
	assert_int_equal(sl_log_get_level(), SL_LOG_INFO);
	write_file(fixture.file, CONFIG);
	call(&fixture, "POST", "/reload", "");
	assert_int_equal(sl_log_get_level(), SL_LOG_ERROR);
	finish(&fixture);
}

static void test_reload_refused(void **state)
{
	struct fixture fixture;
	const char *answer;

	(void)state;
	begin(&fixture, CONFIG);
	write_file(fixture.file, CONFIG "drain_timeout: soon\nworld: 1\n");
	answer = call(&fixture, "POST", "/reload", "");
	assert_memory_equal(answer + 9, "422", 3);
	assert_non_null(strstr(answer, ":3:16: drain_timeout: expected a duration"));
	assert_non_null(strstr(answer, ":4:1: unknown key \"world\""));
	// What needs a restart is refused whole, and the old goes on.
	write_file(fixture.file, CONFIG "shards: 3\npoll: {nap: 1ms, busy: true, spin: 2ms}\n");
	answer = call(&fixture, "POST", "/reload", "");
	assert_non_null(strstr(answer, ":3:1: shards: needs a restart: it is auto now, and would "
				       "be 3\n"));
	assert_non_null(strstr(answer, ":4:18: poll.busy: needs a restart: it is false now, and "
				       "would be true\n"));
	assert_non_null(strstr(answer, ":4:8: poll.nap: needs a restart"));
	assert_null(strstr(answer, "admin: needs")); // where it is the same by a preset
	assert_non_null(strstr(call(&fixture, "GET", "/config", ""), "shards: auto"));
	assert_non_null(strstr(call(&fixture, "GET", "/metrics", ""),
			       "sluice_config_reloads_total{result=\"failure\"} 2"));
	finish(&fixture);
}

static void test_changed_file(void **state)
{
	struct fixture fixture;

	(void)state;
	begin(&fixture, CONFIG);
	write_file(fixture.file, CONFIG "drain_timeout: 7s\n");
	for (int i = 0; i < 2000; i++) {
		if (strstr(call(&fixture, "GET", "/config", ""), "drain_timeout: 7s"))
			break;
		usleep(10000);
	}
	assert_non_null(strstr(call(&fixture, "GET", "/config", ""), "drain_timeout: 7s"));
	finish(&fixture);
}

static void test_ready_and_drain(void **state)
{
	struct fixture fixture;
	const char *answer;

	(void)state;
	begin(&fixture, CONFIG "drain_delay: 1h\ndrain_timeout: 1ms\n");
	__atomic_store_n(&fixture.full_since_ns, sl_clock_now_ns() - 11 * SL_S, __ATOMIC_RELAXED);
	answer = call(&fixture, "GET", "/readyz", "");
	assert_memory_equal(answer + 9, "503", 3);
	assert_non_null(strstr(answer, "shard 0: memory budget full"));
	__atomic_store_n(&fixture.full_since_ns, sl_clock_now_ns() - 5 * SL_S, __ATOMIC_RELAXED);
	assert_memory_equal(call(&fixture, "GET", "/readyz", "") + 9, "200", 3);
	assert_memory_equal(call(&fixture, "POST", "/drain", "") + 9, "202", 3);
	answer = call(&fixture, "GET", "/readyz", "");
	assert_memory_equal(answer + 9, "503", 3);
	assert_non_null(strstr(answer, "draining"));
	assert_false(fixture.told); // not before drain_delay
	sl_control_end(fixture.control);
	usleep(50000);
	finish(&fixture); // asked twice: at once
	assert_int_equal(fixture.result, -ETIMEDOUT);
	assert_true(fixture.stopped);
}

static void test_drain_timeout(void **state)
{
	struct fixture fixture;

	(void)state;
	begin(&fixture, CONFIG "drain_timeout: 30ms\n");
	fixture.busy = true;
	finish(&fixture);
	assert_int_equal(fixture.result, -ETIMEDOUT);
	assert_true(fixture.told);
}

static void test_notify(void **state)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	static const char *const want[] = {"READY=1", "WATCHDOG=1",
					   "RELOADING=1\nMONOTONIC_USEC=", "STOPPING=1"};
	bool found[SL_COUNT_OF(want)] = {false};
	struct fixture fixture;
	char text[128];
	ssize_t got;

	(void)state;
	snprintf(at.sun_path, sizeof(at.sun_path), "/tmp/sluice-unit-notify-%d", (int)getpid());
	unlink(at.sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	setenv("NOTIFY_SOCKET", at.sun_path, 1);
	setenv("WATCHDOG_USEC", "10000000", 1);
	begin(&fixture, CONFIG);
	call(&fixture, "POST", "/reload", "");
	finish(&fixture);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("WATCHDOG_USEC");
	while ((got = recv(fd, text, sizeof(text) - 1, 0)) > 0) {
		text[got] = 0;
		for (size_t i = 0; i < SL_COUNT_OF(want); i++)
			found[i] |= strncmp(text, want[i], strlen(want[i])) == 0;
	}
	for (size_t i = 0; i < SL_COUNT_OF(want); i++) {
		if (!found[i])
			fail_msg("%s was not told", want[i]);
	}
	close(fd);
	unlink(at.sun_path);
}

static void test_cgroup(void **state)
{
	char folder[] = "/tmp/sluice-unit-XXXXXX", path[128];
	struct sl_cgroup_limits limits;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/self", folder);
	write_file(path, "1:name=x:/\n0::/a/b\n");
	snprintf(path, sizeof(path), "%s/a", folder);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/a/b", folder);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/a/cpu.max", folder);
	write_file(path, "250000 100000\n");
	snprintf(path, sizeof(path), "%s/a/b/cpu.max", folder);
	write_file(path, "max 100000\n");
	snprintf(path, sizeof(path), "%s/a/memory.max", folder);
	write_file(path, "max\n");
	snprintf(path, sizeof(path), "%s/a/b/memory.max", folder);
	write_file(path, "1073741824\n");
	snprintf(path, sizeof(path), "%s/self", folder);
	limits = sl_cgroup_limits(folder, path);
	assert_true(limits.cpus == 2.5); // the parent's, as ours has none
	assert_int_equal(limits.memory_bytes, 1073741824);
	limits = sl_cgroup_limits(folder, "/nonexistent");
	assert_true(limits.cpus == 0 && limits.memory_bytes == 0);
	snprintf(path, sizeof(path), "rm -r %s", folder);
	assert_int_equal(system(path), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_admin),           cmocka_unit_test(test_log_level),
		cmocka_unit_test(test_reload_refused),  cmocka_unit_test(test_changed_file),
		cmocka_unit_test(test_ready_and_drain), cmocka_unit_test(test_drain_timeout),
		cmocka_unit_test(test_cgroup),          cmocka_unit_test(test_notify),
	};

	sl_control_block_signals();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
