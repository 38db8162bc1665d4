#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/clock.h"
#include "perf/payload.h"
#include "perf/pktgen/pktgen.h"

// gRPC calls over TCP connections of our own stack, from one port of DPDK.
#define PORT_FIRST     1024
#define CONNECTING_MAX 64 // at a time: the gateway bounds half-open ones
#define GRACE_NS       (10 * SL_S)

struct connection {
	struct sl_load_client *client;
	struct sl_stream *stream; // NULL: lost
	bool up;
};

struct calls {
	const struct sl_pktgen_options *options;
	struct sl_lane *lane;
	struct sl_load_run run;
	struct connection *connections;
	uint32_t dialled, connecting, up, lost, next;
	uint64_t started, due_count, begin_ns, measure_ns, end_ns;
};

static void prepare_bodies(struct calls *calls)
{
	const struct sl_pktgen_options *options = calls->options;
	const size_t room = SL_PAYLOAD_BYTES(options->items);

	calls->run.bodies = calloc(SL_PKTGEN_BODIES, sizeof(*calls->run.bodies));
	calls->run.body_count = SL_PKTGEN_BODIES;
	for (uint32_t i = 0; i < SL_PKTGEN_BODIES; i++) {
		uint8_t *body = malloc(room + 5);
		const size_t size = sl_payload_build(body + 5, room, options->signal,
						     options->items, i + 1);
		const uint8_t prefix[5] = {0, (uint8_t)(size >> 24), (uint8_t)(size >> 16),
					   (uint8_t)(size >> 8), (uint8_t)size};

		memcpy(body, prefix, 5);
		calls->run.bodies[i] = (struct sl_load_body){body, size + 5};
	}
}

static void endpoint(struct sl_endpoint *to, const uint8_t v4[4], uint32_t port)
{
	*to = (struct sl_endpoint){.port = (uint16_t)port};
	to->address[10] = to->address[11] = 0xff;
	memcpy(to->address + 12, v4, 4);
}

static void dial_more(struct calls *calls)
{
	const struct sl_stack_ops *ops = calls->lane->ops;

	while (calls->dialled < calls->options->connections && calls->connecting < CONNECTING_MAX) {
		struct connection *one = &calls->connections[calls->dialled];
		struct sl_endpoint from, to;

		endpoint(&from, calls->options->source, PORT_FIRST + calls->dialled);
		endpoint(&to, calls->options->to, calls->options->port);
		one->client = sl_load_client_create_bare(&calls->run, calls->options->streams);
		one->stream = one->client ? ops->connect(calls->lane->stack, &from, &to) : NULL;
		if (!one->stream) {
			fprintf(stderr, "sluice-pktgen: no memory for connection %u\n",
				calls->dialled);
			exit(1);
		}
		one->stream->owner = one;
		calls->dialled++;
		calls->connecting++;
	}
}

static void lose(struct calls *calls, struct connection *one)
{
	calls->lost++;
	calls->connecting -= !one->up;
	calls->up -= one->up;
	one->stream->owner = NULL;
	calls->lane->ops->drop(one->stream, true);
	one->stream = NULL;
}

static void send_some(struct calls *calls, struct connection *one)
{
	for (;;) {
		const struct sl_bytes bytes = sl_load_client_pull(one->client);
		const struct iovec piece = {(void *)bytes.data, bytes.size};
		const ssize_t sent = bytes.size ? calls->lane->ops->write(one->stream, &piece, 1)
						: 0;

		if (sent < 0)
			lose(calls, one);
		if (sent <= 0)
			return;
		sl_load_client_sent(one->client, (size_t)sent);
		if ((size_t)sent < bytes.size)
			return; // WRITABLE comes
	}
}

static bool may_start(const struct calls *calls)
{
	return calls->run.now_ns < calls->end_ns;
}

static void start(struct calls *calls, struct connection *one, uint64_t due_ns)
{
	if (sl_load_client_start(one->client, due_ns) == 0)
		calls->started++;
}

// Closed loop: an answer makes room for the next call.
static void refill(struct calls *calls, struct connection *one)
{
	while (calls->options->rate <= 0 && may_start(calls) && sl_load_client_room(one->client))
		start(calls, one, calls->run.now_ns);
}

static void start_due(struct calls *calls)
{
	const double rate = calls->options->rate;
	const double passed = (double)(SL_MIN(calls->run.now_ns, calls->end_ns) - calls->begin_ns);

	if (rate <= 0 || !may_start(calls))
		return;
	while ((double)calls->due_count < passed / 1e9 * rate) {
		const uint64_t due_ns = calls->begin_ns +
					(uint64_t)((double)calls->due_count / rate * 1e9);
		struct connection *one = NULL;

		for (uint32_t i = 0; i < calls->dialled && !one; i++) {
			struct connection *next =
				&calls->connections[calls->next++ % calls->dialled];

			if (next->stream && sl_load_client_room(next->client))
				one = next;
		}
		if (!one)
			return; // all are full: it stays due
		calls->due_count++;
		start(calls, one, due_ns);
		send_some(calls, one);
	}
}

static void take_event(struct calls *calls, struct sl_stream *stream)
{
	const struct sl_stack_ops *ops = calls->lane->ops;
	struct connection *one = stream->owner;
	const uint8_t events = stream->events;
	struct sl_bytes bytes;
	int failed = 0;

	stream->events = 0;
	if (!one)
		return;
	if (events & SL_STREAM_CONNECTED) {
		one->up = true;
		calls->up++;
		calls->connecting--;
	}
	if (events & SL_STREAM_READABLE) {
		while (!failed && ops->peek(stream, &bytes)) {
			failed = sl_load_client_feed(one->client, bytes);
			ops->eat(stream);
		}
		ops->ate(stream);
	}
	if (failed || (events & (SL_STREAM_FAILED | SL_STREAM_ENDED))) {
		lose(calls, one);
		return;
	}
	refill(calls, one);
	send_some(calls, one);
}

static void turn(struct calls *calls)
{
	struct sl_lane *lane = calls->lane;
	struct sl_stream *stream;

	calls->run.now_ns = sl_clock_now_ns();
	sl_lane_receive(lane, calls->run.now_ns);
	lane->ops->tick(lane->stack, calls->run.now_ns);
	while ((stream = lane->ops->next_ready(lane->stack)))
		take_event(calls, stream);
	start_due(calls);
	sl_lane_send(lane);
}

static uint32_t open_calls(const struct calls *calls)
{
	uint32_t open = 0;

	for (uint32_t i = 0; i < calls->dialled; i++)
		open += calls->connections[i].stream
				? sl_load_client_open(calls->connections[i].client)
				: 0;
	return open;
}

static void run(struct calls *calls)
{
	const struct sl_pktgen_options *options = calls->options;
	uint64_t look_ns;

	// Before its end is known nothing begins: all connections come first.
	while (calls->up + calls->lost < options->connections) {
		dial_more(calls);
		turn(calls);
	}
	calls->begin_ns = calls->run.now_ns;
	calls->measure_ns = calls->begin_ns + (uint64_t)(options->warm_up * 1e9);
	calls->end_ns = calls->measure_ns + (uint64_t)(options->seconds * 1e9);
	if (options->warm_up <= 0)
		sl_load_measure(&calls->run);
	for (uint32_t i = 0; i < calls->dialled; i++) {
		struct connection *one = &calls->connections[i];

		if (!one->stream)
			continue;
		refill(calls, one);
		send_some(calls, one);
		if (i % 64 == 0)
			turn(calls);
	}
	look_ns = calls->end_ns;
	while (calls->lost < options->connections) {
		if (!calls->run.measuring && calls->run.now_ns >= calls->measure_ns)
			sl_load_measure(&calls->run);
		turn(calls);
		if (calls->run.now_ns >= calls->end_ns)
			sl_load_measured(&calls->run);
		if (calls->run.now_ns < look_ns)
			continue;
		look_ns = calls->run.now_ns + SL_MS;
		if (!open_calls(calls) || calls->run.now_ns > calls->end_ns + GRACE_NS)
			break;
	}
	sl_load_measured(&calls->run);
}

int sl_pktgen_call(const struct sl_pktgen_options *options, struct sl_dpdk *dpdk,
		   struct sl_pktgen_results *results)
{
	static const char *const services[SL_SIGNALS] = {"trace.v1.Trace", "metrics.v1.Metrics",
							 "logs.v1.Logs"};
	struct calls calls = {.options = options, .lane = dpdk->lanes[0]};
	char path[128];

	snprintf(path, sizeof(path), "/opentelemetry.proto.collector.%sService/Export",
		 services[options->signal]);
	calls.run.pid = options->pid;
	calls.run.authority = options->target;
	calls.run.path = path;
	calls.connections = calloc(options->connections, sizeof(*calls.connections));
	if (!calls.connections)
		return -ENOMEM;
	prepare_bodies(&calls);
	run(&calls);
	results->seconds = (double)calls.run.measured_ns / 1e9;
	results->cpu_seconds = calls.run.cpu_seconds;
	results->answered = calls.run.answered;
	results->totals = calls.run.totals;
	results->offered = options->rate > 0 ? (uint64_t)(options->rate * options->seconds)
					     : calls.run.totals.sent;
	results->sent = calls.run.totals.sent;
	results->received = calls.run.totals.ok;
	results->counted = true;
	results->lost_connections = calls.lost;
	return calls.run.totals.ok ? 0 : -EIO;
}
