#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "config/control/process.h"
#include "dataplane/io/listener.h"
#include "dataplane/shard/internal.h"
#include "dataplane/shard/settings.h"
#include "dataplane/shard/shard.h"
#include "routing/routing.h"
#include "sampling/sampling.h"
#include "tenants/tenants.h"

// A shard with the n-th allocation of our code failing, for every n: while it is made, and while it
// serves a connection. The linker brings our libraries' allocations here (--wrap).
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *pointer, size_t size);
void *__real_reallocarray(void *pointer, size_t count, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **pointer, size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *pointer, size_t size);
void *__wrap_reallocarray(void *pointer, size_t count, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_posix_memalign(void **pointer, size_t alignment, size_t size);
#ifdef SL_JEMALLOC
void *__real_mallocx(size_t size, int flags);
void *__wrap_mallocx(size_t size, int flags);
#endif

static _Thread_local bool test_thread;
static bool in_shard; // whose allocations fail: the shard's thread's, or the test's
static int countdown; // allocations until the one that fails; 0: none does
static int failures;

static bool fails(void)
{
	int left = __atomic_load_n(&countdown, __ATOMIC_RELAXED);

	if (test_thread == in_shard || !left)
		return false;
	left = __atomic_sub_fetch(&countdown, 1, __ATOMIC_RELAXED);
	if (left != 0)
		return false;
	__atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
	errno = ENOMEM; // as malloc does
	return true;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *pointer, size_t size)
{
	return fails() ? NULL : __real_realloc(pointer, size);
}

void *__wrap_reallocarray(void *pointer, size_t count, size_t size)
{
	return fails() ? NULL : __real_reallocarray(pointer, count, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
	return fails() ? NULL : __real_aligned_alloc(alignment, size);
}

int __wrap_posix_memalign(void **pointer, size_t alignment, size_t size)
{
	return fails() ? ENOMEM : __real_posix_memalign(pointer, alignment, size);
}

#ifdef SL_JEMALLOC
void *__wrap_mallocx(size_t size, int flags)
{
	return fails() ? NULL : __real_mallocx(size, flags);
}
#endif

static void arm(int nth)
{
	__atomic_store_n(&failures, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&countdown, nth, __ATOMIC_RELAXED);
}

static bool disarm(void)
{
	__atomic_store_n(&countdown, 0, __ATOMIC_RELAXED);
	return __atomic_load_n(&failures, __ATOMIC_RELAXED) > 0;
}

static struct sl_module modules[SL_MODULES];
static struct sl_metrics *metrics;
static struct sl_snapshots *snapshots;
static struct sl_shard *shards[1];
static int listen_fd;
static uint16_t port;

static const char config[] = "listen: [\"127.0.0.1:0\"]\n"
			     "tenants: {file: tenants.yaml, default: demo}\n"
			     // What is tried again stays open, however slow the machine is.
			     "answer_within: 10m\n"
			     "destinations: {nowhere: {blackhole: {}},\n"
			     "               gone: {otlp: {endpoint: \"http://127.0.0.1:1\"}}}\n"
			     "routes: [{match: {signal: logs}, to: [gone]}, {to: [nowhere]}]\n";

static int set_up(void **state)
{
	struct sl_errors *errors = sl_errors_create();
	const struct sl_listen_options listen = {.backlog = 16};
	char folder[] = "/tmp/sluice-unit-XXXXXX", path[64], error[256];
	struct sl_address address;
	struct sl_snapshot *snapshot;
	FILE *file;

	(void)state;
	modules[0] = sl_process_module;
	modules[1] = sl_server_module;
	modules[2] = sl_tenants_module;
	modules[3] = sl_sampling_module;
	modules[4] = sl_routing_module;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/tenants.yaml", folder);
	file = fopen(path, "w");
	fputs("tenants: {demo: {}}\n", file);
	fclose(file);
	snprintf(path, sizeof(path), "%s/config.yaml", folder);
	file = fopen(path, "w");
	fputs(config, file);
	fclose(file);
	snapshot = sl_snapshot_load(modules, SL_MODULES, path, NULL, false, errors);
	if (!snapshot)
		fail_msg("%s", sl_errors_line(errors, 0));
	sl_errors_destroy(errors);
	unlink(path);
	snprintf(path, sizeof(path), "%s/tenants.yaml", folder);
	unlink(path);
	rmdir(folder);
	metrics = sl_metrics_create();
	snapshots = sl_snapshots_create(1, snapshot);
	assert_int_equal(sl_address_parse(&address, "127.0.0.1:0"), 0);
	listen_fd = sl_io_open_listener(&address, &listen, error, sizeof(error));
	assert_true(listen_fd >= 0);
	assert_int_equal(sl_io_local_address(listen_fd, &address), 0);
	port = ntohs(address.u.v4.sin_port);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	close(listen_fd);
	sl_snapshots_destroy(snapshots, modules, SL_MODULES);
	sl_metrics_destroy(metrics);
	return 0;
}

// Returns 0 or -errno, as main does; the shard runs when it is 0.
static int begin(void)
{
	const struct sl_shard_options options = {
		.count = 1,
		.cpu = -1,
		.memory_budget_bytes = 64 * SL_MIB,
		.io = {.read_bytes = 256 * SL_KIB},
		.snapshots = snapshots,
		.metrics = metrics,
		.listen_fds = &listen_fd,
		.listen_addresses = &(struct sl_address){.size = 0},
		.listen_count = 1,
		.peers = shards,
	};

	shards[0] = sl_shard_create(&options);
	return shards[0] ? sl_shard_start(shards[0]) : -errno;
}

static void finish(void)
{
	if (shards[0])
		sl_shard_stop(shards[0]);
	sl_shard_join(shards[0]);
	sl_shard_destroy(shards[0]);
	shards[0] = NULL;
}

// What is half made goes again, and leaves no metrics behind that would be read after it.
static void test_create(void **state)
{
	int nth = 1, failed;
	bool reached;
	char *text;
	size_t size;

	(void)state;
	do {
		arm(nth++);
		failed = begin();
		reached = disarm();
		if (reached)
			assert_int_equal(failed, -ENOMEM);
		finish();
		text = sl_metrics_render(metrics, false, &size);
		assert_non_null(text);
		assert_null(strstr(text, "sluice_"));
		free(text);
		assert_true(nth < 1000);
	} while (reached);
	assert_int_equal(failed, 0);
	assert_true(nth > 15);
}

// Runs, with its first turn behind it: what a new snapshot needs may end the process.
static void begin_and_turn(void)
{
	assert_int_equal(begin(), 0);
	while (!sl_metrics_sum(metrics, "sluice_shard_turns", NULL)) {
		sl_shard_wake(shards[0]);
		usleep(100);
	}
}

static int dial(void)
{
	const struct sockaddr_in address = {.sin_family = AF_INET,
					    .sin_port = htons(port),
					    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	const struct timeval patience = {.tv_sec = 5};
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static const char reset[] = "\0\0\4\3\0\0\0\0\1"; // RST_STREAM of stream 1
static const char trailers[] = "\1\5\0\0\0\1";    // HEADERS that end it

// Sends, then reads until the peer closes or `last` has come; false after 5 s of nothing.
static bool converse(const void *data, size_t size, const char *last, size_t last_size)
{
	const int fd = dial();
	char got[4096];
	size_t used = 0;
	ssize_t more;
	bool done = false;

	(void)!send(fd, data, size, MSG_NOSIGNAL);
	while (!done) {
		more = recv(fd, got + used, sizeof(got) - used, 0);
		if (more <= 0) {
			done = more == 0 || errno == ECONNRESET;
			break;
		}
		used += (size_t)more;
		done = memmem(got, used, last, last_size) || used == sizeof(got) ||
		       memmem(got, used, reset, sizeof(reset) - 1);
	}
	close(fd);
	return done;
}

#define BODY "\x0a\x02\x12\x00" // one resource with one empty scope
static const char http1[] = "POST /v1/traces HTTP/1.1\r\nHost: x\r\n"
			    "Content-Type: application/x-protobuf\r\n"
			    "Content-Length: 4\r\n\r\n" BODY;
static const char json[] = "POST /v1/traces HTTP/1.1\r\nHost: x\r\n"
			   "Content-Type: application/json\r\n"
			   "Transfer-Encoding: chunked\r\n\r\n"
			   "14\r\n{\"resourceSpans\":[]}\r\n0\r\n\r\n";
static const char http2[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
			    "\0\0\0\x04\0\0\0\0\0"       // SETTINGS
			    "\0\0\x61\x01\x04\0\0\0\x01" // HEADERS, END_HEADERS, stream 1
			    "\x83\x86\x41\x01x"          // POST, http, :authority
			    "\x44\x3b"                   // :path
			    "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
			    "\x5f\x10" // content-type
			    "application/grpc"
			    "\x40\x02te\x08trailers"
			    "\0\0\x09\x00\x01\0\0\0\x01" // DATA, END_STREAM
			    "\0\0\0\0\x04" BODY;

// Whatever fails on a connection's way, it ends or is answered, and the next one is served.
static void serve(const char *data, size_t size, const char *last, size_t last_size,
		  const char *code)
{
	int nth = 1;
	bool reached;

	in_shard = true;
	begin_and_turn();
	do {
		arm(nth++);
		if (!converse(data, size, last, last_size))
			fail_msg("allocation %d: neither answered nor closed", nth - 1);
		reached = disarm();
		if (!converse(http1, sizeof(http1) - 1, "200 OK", 6))
			fail_msg("after allocation %d: not served", nth - 1);
		// Free lists would spare the next round its allocations.
		finish();
		begin_and_turn();
		assert_true(nth < 1000);
	} while (reached);
	assert_true(converse(data, size, last, last_size)); // and with nothing failing it is fine
	assert_true(sl_metrics_sum(metrics, "sluice_requests", code) > 0);
	finish();
	in_shard = false;
	assert_true(nth > 4);
}

static void test_http1(void **state)
{
	(void)state;
	serve(http1, sizeof(http1) - 1, "HTTP/1.1 ", 9, "200");
}

static void test_json(void **state)
{
	(void)state;
	serve(json, sizeof(json) - 1, "HTTP/1.1 ", 9, "200");
}

static void test_http2(void **state)
{
	(void)state;
	serve(http2, sizeof(http2) - 1, trailers, sizeof(trailers) - 1, "OK");
}

// Stopped while a delivery is tried again: whoever brings it back may still wake the shard.
static void test_left_behind(void **state)
{
	static const char call[] = "POST /v1/logs HTTP/1.1\r\nHost: x\r\n"
				   "Content-Type: application/x-protobuf\r\n"
				   "Content-Length: 6\r\n\r\n\x0a\x04\x12\x02\x12\x00";
	int fd, waker;

	(void)state;
	begin_and_turn();
	fd = dial();
	assert_int_equal(send(fd, call, sizeof(call) - 1, 0), sizeof(call) - 1);
	while (!sl_metrics_sum(metrics, "sluice_taken_items", NULL))
		usleep(100);
	waker = shards[0]->waker.fd;
	sl_shard_stop(shards[0]);
	sl_shard_join(shards[0]);
	sl_shard_destroy(shards[0]);
	assert_true(fcntl(waker, F_GETFD) >= 0);
	sl_shard_wake(shards[0]);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),      cmocka_unit_test(test_http1),
		cmocka_unit_test(test_json),        cmocka_unit_test(test_http2),
		cmocka_unit_test(test_left_behind),
	};

	test_thread = true;
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
