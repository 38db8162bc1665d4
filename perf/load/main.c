// sluice-load: OTLP over gRPC from N connections of M streams. Open loop at a set rate (a request
// is due at its time whether earlier ones have ended or not; its latency counts from then, so a
// stall of the server is not hidden), or closed loop, as fast as answers come.

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "dataplane/base/clock.h"
#include "dataplane/codec/codec.h"
#include "perf/load/client.h"
#include "perf/payload.h"

#include <sys/uio.h>

#define BODIES 32 // requests with other ids, sent in turn
#define SIGNAL_PATHS                                                                               \
	{                                                                                          \
		"/opentelemetry.proto.collector.trace.v1.TraceService/Export",                     \
			"/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",         \
			"/opentelemetry.proto.collector.logs.v1.LogsService/Export"                \
	}

struct options {
	char host[256];
	char port[8];
	uint32_t connections, streams, items;
	enum sl_signal signal;
	enum sl_coding coding;
	double seconds, warm_up, rate;
	uint64_t requests; // 0: until the time is over
	int cpu;
	int pid;
	bool json, sleep;
	const char *headers[SL_LOAD_HEADERS_MAX];
	size_t header_count;
};

struct loop {
	const struct options *options;
	struct sl_load_run run;
	struct sl_load_client **clients;
	bool *blocked; // the socket is full
	int epoll;
	uint32_t next_client;
	uint64_t begin_ns, measure_ns, end_ns;
	double due_ns, gap_ns; // open loop
	uint64_t started;
	uint32_t lost; // connections that broke
};

static const char usage[] =
	"usage: sluice-load --target HOST:PORT [options]\n"
	"  --connections N   (8)      --streams M   concurrent calls on each (10)\n"
	"  --items K         spans, points or records a request (100)\n"
	"  --signal S        traces, metrics or logs (traces)\n"
	"  --coding C        identity, gzip or zstd (identity)\n"
	"  --rate R          requests/s, open loop; 0: as fast as answers come (0)\n"
	"  --seconds T       measured time (10)    --warm-up T   before it (1)\n"
	"  --requests N      stop after N (no limit)\n"
	"  --header 'n: v'   on every call, up to 8 times\n"
	"  --cpu C           pin to a core          --json       print one JSON object\n"
	"  --pid PID         of the server: its CPU in the measured time is told\n"
	"  --sleep           open loop: sleep until the next is due, for generators that share a "
	"core\n"
	"Exit code 1 when no call succeeded.\n";

static void fail(const char *text)
{
	fprintf(stderr, "sluice-load: %s\n%s", text, usage);
	exit(64);
}

static void parse_target(struct options *options, const char *text)
{
	const char *colon = strrchr(text, ':');

	if (!colon || (size_t)(colon - text) >= sizeof(options->host) || strlen(colon + 1) > 5)
		fail("--target wants HOST:PORT");
	snprintf(options->host, sizeof(options->host), "%.*s", (int)(colon - text), text);
	snprintf(options->port, sizeof(options->port), "%s", colon + 1);
}

static enum sl_signal parse_signal(const char *text)
{
	for (unsigned i = 0; i < SL_SIGNALS; i++) {
		if (strcmp(text, sl_signal_names[i]) == 0)
			return (enum sl_signal)i;
	}
	fail("--signal wants traces, metrics or logs");
	return SL_TRACES;
}

// One option; `letter` is the short form that getopt gives.
static void take_option(struct options *options, int letter, const char *value)
{
	switch (letter) {
	case 't':
		parse_target(options, value);
		break;
	case 'c':
		options->connections = (uint32_t)strtoul(value, NULL, 10);
		break;
	case 'm':
		options->streams = (uint32_t)strtoul(value, NULL, 10);
		break;
	case 'i':
		options->items = (uint32_t)strtoul(value, NULL, 10);
		break;
	case 's':
		options->signal = parse_signal(value);
		break;
	case 'z':
		options->coding = sl_coding_parse(sl_bytes_of(value));
		break;
	case 'r':
		options->rate = atof(value);
		break;
	case 'd':
		options->seconds = atof(value);
		break;
	case 'w':
		options->warm_up = atof(value);
		break;
	case 'n':
		options->requests = strtoull(value, NULL, 10);
		break;
	case 'H':
		if (options->header_count == SL_LOAD_HEADERS_MAX)
			fail("too many --header");
		options->headers[options->header_count++] = value;
		break;
	case 'p':
		options->cpu = atoi(value);
		break;
	case 'P':
		options->pid = atoi(value);
		break;
	case 'j':
		options->json = true;
		break;
	case 's' + 128:
		options->sleep = true;
		break;
	case 'h':
		fputs(usage, stdout);
		exit(0);
	default:
		fail("unknown option");
	}
}

static void parse(struct options *options, int argc, char **argv)
{
	static const struct option longs[] = {{"target", 1, NULL, 't'},
					      {"connections", 1, NULL, 'c'},
					      {"streams", 1, NULL, 'm'},
					      {"items", 1, NULL, 'i'},
					      {"signal", 1, NULL, 's'},
					      {"coding", 1, NULL, 'z'},
					      {"rate", 1, NULL, 'r'},
					      {"seconds", 1, NULL, 'd'},
					      {"warm-up", 1, NULL, 'w'},
					      {"requests", 1, NULL, 'n'},
					      {"header", 1, NULL, 'H'},
					      {"cpu", 1, NULL, 'p'},
					      {"json", 0, NULL, 'j'},
					      {"help", 0, NULL, 'h'},
					      {"sleep", 0, NULL, 's' + 128},
					      {"pid", 1, NULL, 'P'},
					      {NULL, 0, NULL, 0}};
	int letter;

	*options = (struct options){.connections = 8,
				    .streams = 10,
				    .items = 100,
				    .seconds = 10,
				    .warm_up = 1,
				    .cpu = -1};
	while ((letter = getopt_long(argc, argv, "", longs, NULL)) != -1)
		take_option(options, letter, optarg);
	if (!options->host[0] || !options->connections || !options->streams ||
	    options->coding >= SL_CODINGS)
		fail("--target, --connections, --streams or --coding");
}

// BODIES requests that differ in their ids, framed and, if asked, compressed.
static void prepare_bodies(struct sl_load_run *run, const struct options *options)
{
	const size_t room = 4096 + (size_t)options->items * 1024;
	uint8_t *plain = malloc(room);
	struct sl_memory memory;
	struct sl_codec *codec;

	sl_memory_init(&memory, 4 * SL_GIB);
	codec = sl_codec_create(&memory);
	run->bodies = calloc(BODIES, sizeof(*run->bodies));
	run->body_count = BODIES;
	if (!plain || !codec || !run->bodies)
		fail("out of memory");
	for (unsigned i = 0; i < BODIES; i++) {
		size_t size = sl_payload_build(plain, room, options->signal, options->items, i + 1);
		const bool packed = options->coding != SL_CODING_IDENTITY;
		const uint8_t *message = plain;
		struct sl_buffer buffer = {0};
		uint8_t *body;

		if (packed) {
			const struct iovec piece = {plain, size};

			if (sl_codec_deflate(codec, options->coding, &piece, 1, &buffer) !=
			    SL_CODEC_OK)
				fail("compressing failed");
			message = buffer.data;
			size = buffer.size;
		}
		body = malloc(size + 5);
		if (!body)
			fail("out of memory");
		body[0] = packed;
		body[1] = (uint8_t)(size >> 24);
		body[2] = (uint8_t)(size >> 16);
		body[3] = (uint8_t)(size >> 8);
		body[4] = (uint8_t)size;
		memcpy(body + 5, message, size);
		run->bodies[i] = (struct sl_load_body){body, size + 5};
		sl_buffer_give(&memory, &buffer);
	}
	if (options->coding != SL_CODING_IDENTITY)
		run->coding = sl_coding_names[options->coding];
	sl_codec_destroy(codec);
	free(plain);
}

static void prepare_headers(struct sl_load_run *run, const struct options *options)
{
	for (size_t i = 0; i < options->header_count; i++) {
		char *name = strdup(options->headers[i]);
		char *colon = name ? strchr(name, ':') : NULL;

		if (!colon)
			fail("--header wants 'name: value'");
		*colon++ = 0;
		while (*colon == ' ')
			colon++;
		run->headers[run->header_count++] = (nghttp2_nv){(uint8_t *)name, (uint8_t *)colon,
								 strlen(name), strlen(colon),
								 NGHTTP2_NV_FLAG_NONE};
	}
}

static void connect_all(struct loop *loop)
{
	const struct options *options = loop->options;

	loop->epoll = epoll_create1(0);
	loop->clients = calloc(options->connections, sizeof(struct sl_load_client *));
	loop->blocked = calloc(options->connections, sizeof(bool));
	for (uint32_t i = 0; i < options->connections; i++) {
		struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};

		loop->clients[i] = sl_load_client_create(&loop->run, options->host, options->port,
							 options->streams);
		if (!loop->clients[i]) {
			fprintf(stderr, "sluice-load: %s:%s: %s\n", options->host, options->port,
				strerror(errno));
			exit(1);
		}
		epoll_ctl(loop->epoll, EPOLL_CTL_ADD, sl_load_client_fd(loop->clients[i]), &event);
	}
}

static bool may_start(const struct loop *loop)
{
	return loop->run.now_ns < loop->end_ns &&
	       (!loop->options->requests || loop->started < loop->options->requests);
}

// The next connection with room, in turn; NULL when all are full.
static struct sl_load_client *pick(struct loop *loop)
{
	const uint32_t count = loop->options->connections;

	for (uint32_t i = 0; i < count; i++) {
		struct sl_load_client *client = loop->clients[loop->next_client++ % count];

		if (client && sl_load_client_room(client))
			return client;
	}
	return NULL;
}

static void start_due(struct loop *loop)
{
	struct sl_load_client *client;

	while (may_start(loop)) {
		const bool open_loop = loop->gap_ns > 0;

		if (open_loop && loop->due_ns > (double)loop->run.now_ns)
			return;
		client = pick(loop);
		if (!client)
			return;
		sl_load_client_start(client, open_loop ? (uint64_t)loop->due_ns : loop->run.now_ns);
		loop->started++;
		loop->due_ns += loop->gap_ns;
	}
}

static void drop(struct loop *loop, uint32_t index)
{
	loop->lost++;
	sl_load_client_destroy(loop->clients[index]); // its open calls count as failed
	loop->clients[index] = NULL;
}

static void write_all(struct loop *loop)
{
	for (uint32_t i = 0; i < loop->options->connections; i++) {
		int rest;

		if (!loop->clients[i] || loop->blocked[i])
			continue;
		rest = sl_load_client_write(loop->clients[i]);
		if (rest < 0) {
			drop(loop, i);
		} else if (rest > 0) {
			struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.u32 = i};

			loop->blocked[i] = true;
			epoll_ctl(loop->epoll, EPOLL_CTL_MOD, sl_load_client_fd(loop->clients[i]),
				  &event);
		}
	}
}

static void take_events(struct loop *loop, uint64_t wait_ns)
{
	struct epoll_event ready[64];
	const struct timespec wait = {.tv_sec = (time_t)(wait_ns / SL_S),
				      .tv_nsec = (long)(wait_ns % SL_S)};
	const int count = epoll_pwait2(loop->epoll, ready, 64, &wait, NULL);

	loop->run.now_ns = sl_clock_now_ns();
	for (int i = 0; i < count; i++) {
		const uint32_t index = ready[i].data.u32;

		if (!loop->clients[index])
			continue;
		if (ready[i].events & EPOLLOUT) {
			struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};

			loop->blocked[index] = false;
			epoll_ctl(loop->epoll, EPOLL_CTL_MOD,
				  sl_load_client_fd(loop->clients[index]), &event);
		}
		if ((ready[i].events & ~(uint32_t)EPOLLOUT) &&
		    sl_load_client_read(loop->clients[index]) < 0)
			drop(loop, index);
	}
}

static uint32_t open_calls(const struct loop *loop)
{
	uint32_t open = 0;

	for (uint32_t i = 0; i < loop->options->connections; i++)
		open += loop->clients[i] ? sl_load_client_open(loop->clients[i]) : 0;
	return open;
}

// Spinning tells most exactly; asleep, the time from when a request was due counts all the same.
static uint64_t wait_for(const struct loop *loop, bool more)
{
	const double now_ns = (double)loop->run.now_ns;

	if (loop->gap_ns <= 0 || !more)
		return 10 * SL_MS;
	if (!loop->options->sleep || loop->due_ns <= now_ns)
		return 0;
	return (uint64_t)(loop->due_ns - now_ns);
}

static void run(struct loop *loop)
{
	const struct options *options = loop->options;

	prctl(PR_SET_TIMERSLACK, 1UL);
	loop->begin_ns = loop->run.now_ns = sl_clock_now_ns();
	loop->measure_ns = loop->begin_ns + (uint64_t)(options->warm_up * 1e9);
	loop->end_ns = loop->measure_ns + (uint64_t)(options->seconds * 1e9);
	loop->gap_ns = options->rate > 0 ? 1e9 / options->rate : 0;
	loop->due_ns = (double)loop->begin_ns;
	while (loop->lost < options->connections) {
		const bool more = may_start(loop);

		if (!loop->run.measuring && loop->run.now_ns >= loop->measure_ns)
			sl_load_measure(&loop->run);
		start_due(loop);
		write_all(loop);
		// What is open gets ten seconds after the end.
		if (!more && (!open_calls(loop) || loop->run.now_ns > loop->end_ns + 10 * SL_S))
			break;
		if (loop->run.now_ns >= loop->end_ns)
			sl_load_measured(&loop->run);
		take_events(loop, wait_for(loop, more));
	}
	sl_load_measured(&loop->run);
}

static double cpu_seconds(void)
{
	struct rusage used;

	getrusage(RUSAGE_SELF, &used);
	return (double)used.ru_utime.tv_sec + (double)used.ru_stime.tv_sec +
	       (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void print_results(const struct loop *loop, double cpu)
{
	const struct sl_load_totals *totals = &loop->run.totals;
	const struct options *options = loop->options;
	const double seconds = (double)(SL_MIN(loop->run.now_ns, loop->end_ns) - loop->measure_ns) /
			       1e9;
	const double wall = (double)(loop->run.now_ns - loop->begin_ns) / 1e9;
	const double quantiles[] = {0.5, 0.9, 0.99, 0.999};
	double ms[4];

	for (unsigned i = 0; i < 4; i++)
		ms[i] = (double)sl_latency_at(&totals->latency, quantiles[i]) / 1e6;
	if (options->json) {
		printf("{\"seconds\": %.3f, \"requests_sent\": %lu, \"requests_ok\": %lu, "
		       "\"requests_failed\": %lu, \"items_ok\": %lu, \"bytes_sent\": %lu, "
		       "\"connections_lost\": %u, \"p50_ms\": %.3f, \"p90_ms\": %.3f, "
		       "\"p99_ms\": %.3f, \"p999_ms\": %.3f, \"max_ms\": %.3f, "
		       "\"generator_busy\": %.3f, \"cpu_seconds\": %.3f, \"answered\": %lu, "
		       "\"grpc_status\": {",
		       seconds, totals->sent, totals->ok, totals->failed,
		       totals->ok * options->items, totals->sent_bytes, loop->lost, ms[0], ms[1],
		       ms[2], ms[3], (double)totals->latency.max_ns / 1e6, cpu / wall,
		       loop->run.cpu_seconds, loop->run.answered);
	} else {
		printf("%.1f s: %lu sent, %lu ok, %lu failed, %u connections lost\n"
		       "%.0f requests/s, %.0f items/s, %.1f MiB/s\n"
		       "latency ms: p50 %.3f  p90 %.3f  p99 %.3f  p99.9 %.3f  max %.3f\n"
		       "generator busy %.0f %% (at 100 %% it is the limit, not the server)\n",
		       seconds, totals->sent, totals->ok, totals->failed, loop->lost,
		       (double)totals->ok / seconds,
		       (double)(totals->ok * options->items) / seconds,
		       (double)totals->sent_bytes / seconds / (double)SL_MIB, ms[0], ms[1], ms[2],
		       ms[3], (double)totals->latency.max_ns / 1e6, 100 * cpu / wall);
	}

	const char *comma = "";

	for (unsigned i = 0; i < SL_COUNT_OF(totals->by_status); i++) {
		if (!totals->by_status[i])
			continue;
		printf(options->json ? "%s\"%u\": %lu" : "%sgrpc-status %u: %lu\n", comma, i,
		       totals->by_status[i]);
		comma = options->json ? ", " : "";
	}
	if (options->json)
		printf("}, \"resets\": %lu, \"no_status\": %lu}\n", totals->resets,
		       totals->no_status);
	else
		printf("streams reset %lu, without a status %lu\n", totals->resets,
		       totals->no_status);
}

int main(int argc, char **argv)
{
	static const char *const paths[SL_SIGNALS] = SIGNAL_PATHS;
	struct options options;
	struct loop loop = {.options = &options};
	double cpu;

	parse(&options, argc, argv);
	if (options.cpu >= 0) {
		cpu_set_t cpus;

		CPU_ZERO(&cpus);
		CPU_SET(options.cpu, &cpus);
		if (sched_setaffinity(0, sizeof(cpus), &cpus) < 0)
			fail("--cpu: no such core");
	}
	loop.run.pid = options.pid;
	loop.run.authority = options.host;
	loop.run.path = paths[options.signal];
	prepare_bodies(&loop.run, &options);
	prepare_headers(&loop.run, &options);
	connect_all(&loop);
	cpu = cpu_seconds();
	run(&loop);
	print_results(&loop, cpu_seconds() - cpu);
	return loop.run.totals.ok ? 0 : 1;
}
