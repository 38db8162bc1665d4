#include <errno.h>
#ifdef SL_JEMALLOC
#include <jemalloc/jemalloc.h>
#else
#include <malloc.h>
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/dpdk/wire.h"

// An hour of a stack in its own time: connections come, talk, lie idle and go in every way, over a
// wire whose weather changes, from few ports, so that these are soon used again. Each byte is
// checked. At the end nothing is left: no connection, window, packet or object of lwIP's pools, and
// the process has grown by nothing since its first quarter.
//
// SOAK_SECONDS of the stack's time (preset: SHORT_S). `make soak-dpdk` runs an hour.
#define SHORT_S     120
#define STEP_NS     (10 * SL_MS)
#define SLOTS       300
#define PORTS       500 // one in TIME_WAIT is not free
#define PORT_FIRST  20000
#define BYTES_MIN   3000
#define BYTES_MAX   60000
#define SERVED_MAX  2000 // bytes of a request that the server ends
#define ANSWER_EACH 64   // bytes of a request for one of the answer
#define SERIAL      4    // bytes that begin a request
#define WRITE_BYTES 8192
#define SETTLE_S    900 // a dark peer is given up: retransmissions, or keep-alives, and TIME_WAIT
#define GROWTH_MAX  (128 * SL_KIB) // what frames under way may make of it

enum how { BY_FIN, BY_FIN_EARLY, BY_RESET, BY_SERVER, BY_SERVER_RESET, GOES_DARK, HOWS };
static const char *const how_names[HOWS] = {"its end",          "a half-close",       "a reset",
					    "the server's end", "the server's reset", "darkness"};

struct client {
	struct sl_stream *stream; // NULL: free
	uint16_t port;
	bool connected, shut;
	enum how how;
	uint32_t serial, sent, got, size, pause_at; // bytes
	uint64_t wake_ns;                           // idle until then
};

struct served {
	uint32_t serial, received, answered;
	enum how how;
	bool ended, shut;
};

static struct client clients[SLOTS];
static bool dark[PORTS];
static uint32_t serials, live_served;
static struct {
	uint64_t opened, refused, finished[HOWS], failed, bytes, idle_spells, reused;
} seen;
static bool used[PORTS];

// A request's byte, and an answer's, by connection and place.
static uint8_t asked(uint32_t serial, uint32_t at)
{
	return at < SERIAL ? (uint8_t)(serial >> (8 * at)) : (uint8_t)(serial * 31 + at * 7);
}

static uint8_t answered(uint32_t serial, uint32_t at)
{
	return (uint8_t)(serial * 17 + at * 13 + 5);
}

static enum how how_of(uint32_t serial)
{
	return (enum how)(serial % 11 < HOWS ? serial % 11 : BY_FIN);
}

// Nothing reaches or leaves a port that has gone dark.
static bool swallows(const uint8_t *frame)
{
	const uint8_t *tcp = frame + 34;

	if (frame[12] != 0x08 || frame[13] != 0x00 || frame[23] != 6)
		return false;
	for (unsigned i = 0; i < 2; i++) {
		const unsigned port = (unsigned)(tcp[2 * i] << 8 | tcp[2 * i + 1]) - PORT_FIRST;

		if (port < PORTS && dark[port])
			return true;
	}
	return false;
}

static void change_weather(void)
{
	static const struct {
		unsigned lose, repeat, reorder, damage;
	} weather[] = {
		{0, 0, 0, 0}, {1, 1, 2, 0},  {0, 0, 0, 0}, {3, 0, 0, 1},
		{0, 5, 0, 0}, {0, 0, 10, 0}, {0, 0, 0, 0}, {8, 3, 10, 2},
	};
	const unsigned at = (unsigned)sl_random_below(&wire.chance, SL_COUNT_OF(weather));

	wire.lose = weather[at].lose;
	wire.repeat = weather[at].repeat;
	wire.reorder = weather[at].reorder;
	wire.damage = weather[at].damage;
}

// --- the client's side --------------------------------------------------------------------------

static void forget(struct client *client)
{
	*client = (struct client){0};
}

static void dial(struct client *client)
{
	const uint16_t at = (uint16_t)sl_random_below(&wire.chance, PORTS);
	struct sl_endpoint from = client_at;

	from.port = (uint16_t)(PORT_FIRST + at);
	for (unsigned i = 0; i < SLOTS; i++) {
		if (clients[i].stream && clients[i].port == from.port)
			return;
	}
	// Whoever gave up on it is gone by now, or the stack says no.
	dark[at] = false;
	client->stream = ends[1].ops->connect(ends[1].stack, &from, &server_at);
	if (!client->stream) {
		seen.refused++; // in TIME_WAIT
		return;
	}
	seen.opened++;
	seen.reused += used[at];
	used[at] = true;
	client->stream->owner = client;
	client->port = from.port;
	client->serial = ++serials;
	client->how = how_of(client->serial);
	client->size = BYTES_MIN + (uint32_t)sl_random_below(&wire.chance, BYTES_MAX);
	if (wire_happens(30)) {
		client->pause_at = (uint32_t)sl_random_below(&wire.chance, client->size);
		seen.idle_spells++;
	}
}

static void leave(struct client *client, bool reset)
{
	seen.finished[client->how]++;
	client->stream->owner = NULL;
	ends[1].ops->drop(client->stream, reset);
	forget(client);
}

static void say(struct client *client)
{
	const uint32_t until = client->pause_at ? client->pause_at : client->size;
	uint8_t data[WRITE_BYTES];

	while (client->sent < until) {
		const uint32_t some = SL_MIN(until - client->sent, (uint32_t)WRITE_BYTES);
		const struct iovec piece = {data, some};
		ssize_t taken;

		for (uint32_t i = 0; i < some; i++)
			data[i] = asked(client->serial, client->sent + i);
		taken = ends[1].ops->write(client->stream, &piece, 1);
		assert_true(taken >= 0);
		client->sent += (uint32_t)taken;
		if ((uint32_t)taken < some)
			return;
	}
	if (client->pause_at) { // seconds, or longer than keep-alives wait
		client->wake_ns = wire.now_ns + SL_S + sl_random_below(&wire.chance, 150 * SL_S);
		client->pause_at = 0;
		if (client->how == GOES_DARK)
			dark[client->port - PORT_FIRST] = true;
	} else if (client->how == BY_FIN_EARLY && !client->shut) {
		client->shut = ends[1].ops->shut(client->stream) == 0;
	} else if (client->how == GOES_DARK) {
		dark[client->port - PORT_FIRST] = true;
	}
}

static void hear(struct client *client)
{
	const struct sl_stack_ops *ops = ends[1].ops;
	struct sl_bytes bytes;

	while (ops->peek(client->stream, &bytes)) {
		for (size_t i = 0; i < bytes.size; i++)
			assert_int_equal(bytes.data[i],
					 answered(client->serial, client->got + (uint32_t)i));
		client->got += (uint32_t)bytes.size;
		ops->eat(client->stream);
	}
	ops->ate(client->stream);
}

static void client_events(struct sl_stream *stream)
{
	struct client *client = stream->owner;
	const uint8_t events = stream->events;

	stream->events = 0;
	if (!client)
		return;
	if (events & SL_STREAM_CONNECTED)
		client->connected = true;
	hear(client);
	if (events & SL_STREAM_FAILED) {
		// Only who is dark, whom the server resets, or who met such weather at a dial.
		assert_true(client->how == GOES_DARK || client->how == BY_SERVER_RESET ||
			    client->how == BY_SERVER || stream->error == ETIMEDOUT);
		seen.failed += client->how != GOES_DARK && client->how != BY_SERVER_RESET;
		leave(client, true);
		return;
	}
	if (events & SL_STREAM_ENDED) {
		if (client->how == BY_FIN_EARLY)
			assert_int_equal(client->got, client->size / ANSWER_EACH);
		leave(client, false);
		return;
	}
	if (client->connected && !client->wake_ns && !client->shut)
		say(client);
	if (client->sent == client->size && client->got == client->size / ANSWER_EACH &&
	    (client->how == BY_FIN || client->how == BY_RESET))
		leave(client, client->how == BY_RESET);
}

static void client_turn(bool open)
{
	struct sl_stream *stream;

	while ((stream = ends[1].ops->next_ready(ends[1].stack)))
		client_events(stream);
	for (unsigned i = 0; i < SLOTS; i++) {
		struct client *client = &clients[i];

		if (!client->stream) {
			if (open && wire_happens(2))
				dial(client);
		} else if (client->wake_ns && wire.now_ns >= client->wake_ns) {
			client->wake_ns = 0;
			ends[1].ops->again(client->stream);
		}
	}
}

// --- the server's side --------------------------------------------------------------------------

static void part(struct sl_stream *stream, bool reset)
{
	free(stream->owner);
	stream->owner = NULL;
	live_served--;
	ends[0].ops->drop(stream, reset);
}

static void take(struct served *served, struct sl_stream *stream)
{
	const struct sl_stack_ops *ops = ends[0].ops;
	struct sl_bytes bytes;

	while (ops->peek(stream, &bytes)) {
		for (size_t i = 0; i < bytes.size; i++, served->received++) {
			if (served->received < SERIAL)
				served->serial |= (uint32_t)bytes.data[i] << (8 * served->received);
			else
				assert_int_equal(bytes.data[i],
						 asked(served->serial, served->received));
		}
		seen.bytes += bytes.size;
		ops->eat(stream);
	}
	ops->ate(stream);
	if (served->received >= SERIAL)
		served->how = how_of(served->serial);
}

static void answer(struct served *served, struct sl_stream *stream)
{
	uint8_t data[(BYTES_MIN + BYTES_MAX) / ANSWER_EACH + 1];
	const uint32_t due = served->received / ANSWER_EACH - served->answered;
	const struct iovec piece = {data, due};
	ssize_t taken;

	if (!due || served->received < SERIAL)
		return;
	for (uint32_t i = 0; i < due; i++)
		data[i] = answered(served->serial, served->answered + i);
	taken = ends[0].ops->write(stream, &piece, 1);
	assert_true(taken >= 0);
	served->answered += (uint32_t)taken;
}

static void server_events(struct sl_stream *stream)
{
	struct served *served = stream->owner;
	const uint8_t events = stream->events;

	stream->events = 0;
	if (events & SL_STREAM_ACCEPTED) {
		served = stream->owner = calloc(1, sizeof(*served));
		assert_non_null(served);
		live_served++;
	}
	if (!served)
		return;
	take(served, stream);
	served->ended |= (events & SL_STREAM_ENDED) != 0;
	if (events & SL_STREAM_FAILED) {
		part(stream, true);
		return;
	}
	answer(served, stream);
	if (served->received > SERVED_MAX &&
	    (served->how == BY_SERVER || served->how == BY_SERVER_RESET))
		part(stream, served->how == BY_SERVER_RESET);
	else if (served->ended && served->answered == served->received / ANSWER_EACH)
		part(stream, false);
}

static void server_turn(void)
{
	struct sl_stream *stream;

	while ((stream = ends[0].ops->next_ready(ends[0].stack)))
		server_events(stream);
}

// --- the hour -----------------------------------------------------------------------------------

static bool is_quiet(const uint32_t held[2])
{
	for (unsigned i = 0; i < 2; i++) {
		const struct sl_stack_stats *stats = ends[i].ops->stats(ends[i].stack);

		if (stats->streams || stats->granted_bytes || ends[i].ops->held() != held[i] ||
		    ends[i].head != ends[i].tail)
			return false;
	}
	return wire.frames_alive == 0;
}

static void run(uint64_t seconds, bool open)
{
	const uint64_t until_ns = wire.now_ns + seconds * SL_S;

	while (wire.now_ns < until_ns) {
		if (open && wire.now_ns % (20 * SL_S) == 0)
			change_weather();
		wire_step(STEP_NS);
		server_turn();
		client_turn(open);
	}
}

// What the process has from its allocator; the sanitizers' does not tell (0).
static size_t allocated(void)
{
#ifdef SL_JEMALLOC
	uint64_t epoch = 1;
	size_t bytes = 0, size = sizeof(epoch);

	mallctl("epoch", NULL, NULL, &epoch, size); // else it says what was
	size = sizeof(bytes);
	assert_int_equal(mallctl("stats.allocated", &bytes, &size, NULL, 0), 0);
	return bytes;
#else
	return mallinfo2().uordblks;
#endif
}

static void tell(uint64_t seconds)
{
	printf("%lu s: %lu connections (%lu on a used port, %lu dials on one that was not free), "
	       "%lu MB, %lu frames, %lu idle spells, %lu given up;",
	       seconds, seen.opened, seen.reused, seen.refused, seen.bytes / 1000000, wire.frames,
	       seen.idle_spells, seen.failed);
	for (unsigned i = 0; i < HOWS; i++)
		printf("%s %lu by %s", i ? "," : "", seen.finished[i], how_names[i]);
	printf("\n");
}

static void test_soak(void **state)
{
	const char *given = getenv("SOAK_SECONDS");
	const uint64_t seconds = given ? strtoull(given, NULL, 10) : SHORT_S;
	const uint32_t held[2] = {ends[0].ops->held(), ends[1].ops->held()};
	size_t before, after;

	(void)state;
	wire.swallows = swallows;
	run(seconds / 4, true);
	before = allocated();
	run(seconds - seconds / 4, true);
	after = allocated();
	wire.lose = wire.repeat = wire.reorder = wire.damage = 0;
	for (unsigned i = 0; i < SETTLE_S / 10 && !is_quiet(held); i++)
		run(10, false);
	tell(seconds);
	printf("allocated: %zu KB after a quarter, %zu KB at the end, %zu KB when all had gone\n",
	       before / 1000, after / 1000, allocated() / 1000);
	for (unsigned i = 0; i < 2; i++) {
		const struct sl_stack_stats *stats = ends[i].ops->stats(ends[i].stack);

		assert_int_equal(stats->streams, 0);
		assert_int_equal(stats->granted_bytes, 0);
		assert_int_equal(ends[i].ops->held(), held[i]);
	}
	assert_int_equal(wire.frames_alive, 0);
	assert_int_equal(live_served, 0);
	assert_in_range(after, 0, before + GROWTH_MAX);
	assert_in_range(allocated(), 0, before);
	// Each way to go was gone, often.
	for (unsigned i = 0; i < HOWS; i++)
		assert_in_range(seen.finished[i], seconds / 10, UINT32_MAX);
	assert_in_range(seen.reused, seconds, UINT32_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_soak, wire_set_up, wire_tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
