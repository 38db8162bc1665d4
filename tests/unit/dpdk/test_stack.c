#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/base/hash.h"
#include "tests/unit/dpdk/wire.h"

// The echo's server: what was read is written back; what does not fit waits.
struct echo {
	uint8_t *data;
	size_t size, sent, capacity;
};

static void echo_some(struct sl_stream *stream)
{
	struct echo *echo = stream->owner;
	const struct iovec rest = {echo->data + echo->sent, echo->size - echo->sent};
	ssize_t sent;

	if (!rest.iov_len)
		return;
	sent = ends[0].ops->write(stream, &rest, 1);
	assert_true(sent >= 0);
	echo->sent += (size_t)sent;
}

static void serve_echo(struct echo *echo)
{
	const struct sl_stack_ops *ops = ends[0].ops;
	struct sl_stream *stream;
	struct sl_bytes bytes;

	while ((stream = ops->next_ready(ends[0].stack))) {
		stream->events = 0;
		stream->owner = echo;
		while (ops->peek(stream, &bytes)) {
			assert_true(echo->size + bytes.size <= echo->capacity);
			memcpy(echo->data + echo->size, bytes.data, bytes.size);
			echo->size += bytes.size;
			ops->eat(stream);
		}
		ops->ate(stream);
		echo_some(stream);
	}
}

static void put_seq(uint8_t *at, uint32_t value)
{
	for (unsigned i = 0; i < 4; i++)
		at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void exchange_from(uint16_t port, size_t size)
{
	const struct sl_stack_ops *ops = ends[1].ops;
	struct echo echo = {.data = malloc(size), .capacity = size};
	uint8_t *sample = malloc(size), *back = malloc(size);
	struct sl_endpoint from = client_at;
	size_t sent = 0, got = 0;
	struct sl_stream *stream;
	bool connected = false;

	assert_true(echo.data && sample && back);
	for (size_t i = 0; i < size; i++)
		sample[i] = (uint8_t)wire_draw();
	from.port = port;
	assert_non_null(ops->connect(ends[1].stack, &from, &server_at));
	for (unsigned turn = 0; got < size; turn++) {
		struct sl_bytes bytes;

		assert_true(turn < 100000);
		wire_step(10 * SL_MS);
		serve_echo(&echo);
		while ((stream = ops->next_ready(ends[1].stack))) {
			assert_false(stream->events & SL_STREAM_FAILED);
			connected |= (stream->events & SL_STREAM_CONNECTED) != 0;
			stream->events = 0;
			while (ops->peek(stream, &bytes)) {
				assert_true(got + bytes.size <= size);
				memcpy(back + got, bytes.data, bytes.size);
				got += bytes.size;
				ops->eat(stream);
			}
			ops->ate(stream);
			if (connected && sent < size) {
				const struct iovec rest = {sample + sent, size - sent};
				const ssize_t some = ops->write(stream, &rest, 1);

				assert_true(some >= 0);
				sent += (size_t)some;
			}
		}
	}
	assert_memory_equal(back, sample, size);
	// The last acknowledgement is under way, or lost.
	for (unsigned turn = 0; ends[0].ops->owes(ends[0].stack); turn++) {
		assert_true(turn < 10000);
		wire_step(10 * SL_MS);
		while ((stream = ops->next_ready(ends[1].stack)))
			stream->events = 0;
	}
	free(echo.data);
	free(sample);
	free(back);
}

static void exchange(size_t size)
{
	exchange_from(30000, size);
}

static void test_a_narrow_path(void **state)
{
	const struct sl_stack_stats *stats = ends[0].ops->stats(ends[0].stack);
	unsigned before;

	(void)state;
	wire.narrow = 700;
	exchange(SL_MIB);
	assert_in_range(stats->smaller_mtu, 1, 200);
	before = wire.told;
	assert_in_range(before, 2, 200);
	exchange_from(30001, SL_MIB);
	assert_int_equal(wire.told, before); // who has been told begins with it
}

// A router's word counts only about what is under way.
static void test_a_narrow_path_that_is_not(void **state)
{
	const struct sl_stack_stats *stats = ends[0].ops->stats(ends[0].stack);
	uint8_t lie[14 + 20 + 8 + 28] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0};

	(void)state;
	exchange(SL_KIB);
	memcpy(lie + 14, (uint8_t[]){0x45, 0, 0,  56, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0,
				     0,    9, 10, 0,  0, 1, 3, 4, 0,  0, 0, 0, 2,  88},
	       28);
	memcpy(lie + 42,
	       (uint8_t[]){0x45, 0, 5, 220, 0,         0,          64,         0,
			   64,   6, 0, 0,   10,        0,          0,          1,
			   10,   0, 0, 2,   PORT >> 8, PORT & 255, 30000 >> 8, 30000 & 255},
	       24);
	for (unsigned i = 0; i < 200; i++) {
		put_seq(lie + 66, wire_draw());
		wire_push(&ends[0], lie, sizeof(lie));
		wire_step(SL_MS);
	}
	assert_int_equal(stats->smaller_mtu, 0);
}

static void test_echo(void **state)
{
	(void)state;
	exchange(4 * SL_MIB);
}

static void test_echo_over_a_bad_wire(void **state)
{
	(void)state;
	wire.lose = 2;
	wire.repeat = 2;
	wire.reorder = 5;
	exchange(SL_MIB);
}

// Whatever end an event belongs to, some other connection is dropped from it: its lists are another
// bucket's than those lwIP had last.
#define MANY 10000
static void test_many_with_cross_aborts(void **state)
{
	static struct sl_stream *open[2][2 * MANY];
	uint32_t count[2] = {0, 0}, opened = 0, accepted = 0, longest = 0;

	(void)state;
	for (unsigned turn = 0; turn < 2000; turn++) {
		for (unsigned i = 0; i < 40 && opened < MANY; i++, opened++) {
			struct sl_endpoint from = client_at;

			from.port = (uint16_t)(20000 + opened);
			assert_non_null(ends[1].ops->connect(ends[1].stack, &from, &server_at));
		}
		wire_step(10 * SL_MS);
		for (unsigned i = 0; i < 2; i++) {
			const struct sl_stack_ops *ops = ends[i].ops;
			struct sl_stream *stream;

			while ((stream = ops->next_ready(ends[i].stack))) {
				const uint8_t events = stream->events;

				stream->events = 0;
				if (events & (SL_STREAM_ACCEPTED | SL_STREAM_CONNECTED)) {
					accepted += i == 0;
					stream->owner = (void *)(uintptr_t)(count[i] + 1);
					open[i][count[i]++] = stream;
				}
				if ((events & (SL_STREAM_FAILED | SL_STREAM_ENDED)) &&
				    stream->owner) {
					const uint32_t at = (uint32_t)(uintptr_t)stream->owner - 1;

					open[i][at] = open[i][--count[i]];
					open[i][at]->owner = (void *)(uintptr_t)(at + 1);
					ops->drop(stream, false);
				}
				// Once all are there: another one goes, by FIN or by RST.
				if (count[i] && opened == MANY && wire_happens(50)) {
					const uint32_t at = (uint32_t)sl_random_below(&wire.chance,
										      count[i]);
					struct sl_stream *other = open[i][at];

					open[i][at] = open[i][--count[i]];
					open[i][at]->owner = (void *)(uintptr_t)(at + 1);
					ops->drop(other, wire_happens(50));
				}
			}
		}
		if (opened == MANY && accepted == MANY && !longest) {
			const uint32_t used = ends[0].ops->buckets(ends[0].stack, &longest);

			assert_true(used > 3000); // of 4096: spread, not heaped
			assert_true(longest < 20);
		}
		// The first to go: the others follow from its events and from what they drop.
		for (unsigned n = 0; n < 16 && accepted == MANY && count[1]; n++) {
			struct sl_stream *first = open[1][--count[1]];

			ends[1].ops->drop(first, wire_happens(50));
		}
		if (accepted == MANY && !count[0] && !count[1])
			break;
	}
	assert_int_equal(accepted, MANY);
	assert_int_equal(count[0] + count[1], 0);
	assert_int_equal(ends[0].ops->stats(ends[0].stack)->streams, 0);
	assert_int_equal(ends[1].ops->stats(ends[1].stack)->streams, 0);
}

// SYNs from addresses that never answer fill the backlog; they stay few.
// More is written at once than lwIP has memory for, and some get none of it: they have nothing in
// flight that would be acknowledged, and are told all the same.
#define HUNGRY       6000
#define HUNGRY_BYTES 4000
static void test_writes_without_memory(void **state)
{
	static struct sl_stream *open[HUNGRY];
	static uint8_t sample[HUNGRY_BYTES];
	static size_t sent[HUNGRY];
	const struct sl_stack_ops *client = ends[1].ops, *server = ends[0].ops;
	uint32_t dialled = 0, connected = 0, empty = 0;
	struct sl_stream *stream;
	struct sl_bytes bytes;
	size_t got = 0, whole = 0;

	(void)state;
	for (unsigned turn = 0; got < (size_t)HUNGRY * HUNGRY_BYTES; turn++) {
		assert_true(turn < 5000);
		for (unsigned i = 0; i < 40 && dialled < HUNGRY; i++, dialled++) {
			struct sl_endpoint from = client_at;

			from.port = (uint16_t)(20000 + dialled);
			stream = client->connect(ends[1].stack, &from, &server_at);
			assert_non_null(stream);
			open[dialled] = stream;
			stream->owner = &sent[dialled];
		}
		wire_step(SL_MS);
		while ((stream = server->next_ready(ends[0].stack))) {
			stream->events = 0;
			while (server->peek(stream, &bytes)) {
				got += bytes.size;
				server->eat(stream);
			}
			server->ate(stream);
		}
		while ((stream = client->next_ready(ends[1].stack))) {
			const uint8_t events = stream->events;
			size_t *done = stream->owner;
			const struct iovec rest = {sample + *done, HUNGRY_BYTES - *done};

			stream->events = 0;
			assert_false(events & SL_STREAM_FAILED);
			connected += (events & SL_STREAM_CONNECTED) != 0;
			if ((events & SL_STREAM_WRITABLE) && rest.iov_len)
				*done += (size_t)client->write(stream, &rest, 1);
			whole += *done == HUNGRY_BYTES;
		}
		// All at once, with nothing delivered in between.
		for (uint32_t i = 0; connected == HUNGRY && !whole && i < HUNGRY; i++) {
			const struct iovec all = {sample, HUNGRY_BYTES};

			sent[i] = (size_t)client->write(open[i], &all, 1);
			empty += sent[i] == 0;
		}
		whole += connected == HUNGRY;
	}
	assert_true(empty > 100); // else it shows nothing
	for (uint32_t i = 0; i < HUNGRY; i++)
		assert_int_equal(sent[i], HUNGRY_BYTES);
}

// Takes in all frames that wait for the server, without the turn's end.
static void take_in(void)
{
	struct end *end = &ends[0];

	while (end->head != end->tail) {
		struct frame *frame = end->in[end->head++ % FRAMES_MAX];

		end->ops->input(end->stack, frame, frame->room, frame->data, frame->bytes, 0);
	}
}

// What came in one turn is acknowledged by one frame: the answer, or one at the turn's end.
static void test_one_acknowledgement_a_turn(void **state)
{
	static char request[4000], head[] = "an", body[] = "answer";
	const struct iovec pieces[] = {{head, 2}, {body, 6}}, all = {request, sizeof(request)};
	struct sl_endpoint from = client_at;
	struct sl_stream *stream, *accepted = NULL;
	struct sl_bytes bytes;

	(void)state;
	from.port = 30000;
	stream = ends[1].ops->connect(ends[1].stack, &from, &server_at);
	for (unsigned i = 0; i < 10; i++)
		wire_step(SL_MS);
	for (unsigned answers = 0; answers < 2; answers++) {
		uint32_t before;

		assert_int_equal(ends[1].ops->write(stream, &all, 1), sizeof(request));
		assert_true(ends[0].tail - ends[0].head >= 3); // segments
		before = ends[1].tail;
		take_in();
		assert_int_equal(ends[1].tail, before);
		accepted = ends[0].ops->next_ready(ends[0].stack);
		assert_non_null(accepted);
		while (ends[0].ops->peek(accepted, &bytes))
			ends[0].ops->eat(accepted);
		if (answers)
			assert_int_equal(ends[0].ops->write(accepted, pieces, 2), 8);
		ends[0].ops->acknowledge(ends[0].stack);
		ends[0].ops->acknowledge(ends[0].stack);
		assert_int_equal(ends[1].tail, before + 1);
		wire_step(SL_MS);
		wire_step(SL_MS);
	}
	while ((accepted = ends[1].ops->next_ready(ends[1].stack)) != stream)
		assert_non_null(accepted);
	assert_true(ends[1].ops->peek(stream, &bytes));
	assert_int_equal(bytes.size, 8);
	assert_memory_equal(bytes.data, "ananswer", 8);
	ends[1].ops->eat(stream);
}

// Damage is found, by lwIP or by the device, and what was damaged is sent again.
static void test_echo_over_a_wire_that_damages(void **state)
{
	(void)state;
	wire.damage = 3;
	wire.lose = 1;
	exchange(SL_MIB);
	assert_int_equal(wire.refused > 20, wire.device_sums != 0);
	exchange_from(30001, 1000); // of an odd size each, and some of one segment
	exchange_from(30002, 1);
}

static int set_up_device(void **state)
{
	wire.device_sums = SL_SUM_IP | SL_SUM_TCP;
	return wire_set_up(state);
}

static int tear_down_device(void **state)
{
	wire.device_sums = 0;
	return wire_tear_down(state);
}

// What the device has found right is not summed up again; what nobody has looked at is.
static void test_a_sum_is_trusted_or_computed(void **state)
{
	static char request[100];
	const struct iovec all = {request, sizeof(request)};
	struct end *server = &ends[0];
	struct sl_endpoint from = client_at;
	struct sl_stream *stream, *accepted;
	struct sl_bytes bytes;

	(void)state;
	from.port = 30000;
	stream = ends[1].ops->connect(ends[1].stack, &from, &server_at);
	for (unsigned i = 0; i < 10; i++)
		wire_step(SL_MS);
	accepted = server->ops->next_ready(server->stack);
	assert_non_null(accepted);
	accepted->events = 0;
	for (unsigned fine = 0; fine < 2; fine++) {
		struct frame *frame;

		assert_int_equal(ends[1].ops->write(stream, &all, 1), sizeof(request));
		assert_int_equal(server->tail - server->head, 1);
		frame = server->in[server->head++ % FRAMES_MAX];
		frame->data[14 + 20 + 16] ^= 1;
		server->ops->input(server->stack, frame, frame->room, frame->data, frame->bytes,
				   fine ? SL_INPUT_TCP_FINE : 0);
		assert_int_equal(server->ops->peek(accepted, &bytes), fine);
		// What was not taken comes again.
		for (unsigned i = 0; i < 100 && !server->ops->peek(accepted, &bytes); i++)
			wire_step(100 * SL_MS);
		assert_true(server->ops->peek(accepted, &bytes));
		assert_int_equal(bytes.size, sizeof(request));
		server->ops->eat(accepted);
		for (unsigned i = 0; i < 10; i++)
			wire_step(SL_MS);
	}
}

// Who ends first waits, here the server; its peer may use the port again at once (RFC
// 1122, 4.2.2.13).
static void test_a_port_in_time_wait_is_used_again(void **state)
{
	const struct sl_stack_ops *server = ends[0].ops, *client = ends[1].ops;
	struct sl_endpoint from = client_at;

	(void)state;
	from.port = 30000;
	for (unsigned turn = 0; turn < 10; turn++) {
		struct sl_stream *there = client->connect(ends[1].stack, &from, &server_at), *here;

		assert_non_null(there);
		for (unsigned i = 0; i < 4; i++)
			wire_step(SL_MS);
		here = server->next_ready(ends[0].stack);
		assert_true(here && (here->events & SL_STREAM_ACCEPTED));
		assert_ptr_equal(client->next_ready(ends[1].stack), there);
		assert_int_equal(there->events, SL_STREAM_CONNECTED);
		server->drop(here, false);
		wire_step(SL_MS);
		assert_ptr_equal(client->next_ready(ends[1].stack), there);
		assert_true(there->events & SL_STREAM_ENDED);
		client->drop(there, false);
		for (unsigned i = 0; i < 4; i++) // initial numbers count time
			wire_step((50 + turn * 10) * SL_MS);
	}
}

static void test_half_open_is_bounded(void **state)
{
	struct sl_endpoint from = client_at;
	uint32_t longest;

	(void)state;
	exchange(SL_KIB);
	for (unsigned i = 0; i < 3000; i++) {
		from.port = (uint16_t)(40000 + i);
		assert_non_null(ends[1].ops->connect(ends[1].stack, &from, &server_at));
		// Nobody answers the server.
		wire_deliver(&ends[0]);
		while (ends[1].head != ends[1].tail)
			wire_release(ends[1].in[ends[1].head++ % FRAMES_MAX]);
	}
	assert_in_range(ends[0].ops->buckets(ends[0].stack, &longest), 200, 256);
	assert_int_equal(ends[0].ops->stats(ends[0].stack)->half_open_full, 3000 - 255);
	assert_false(ends[0].ops->owes(ends[0].stack)); // nothing to those who never answered
}

// Anything may come over a wire: it is dropped or answered, never more.
static void test_noise(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		static const uint8_t types[][2] = {{8, 0}, {8, 6}, {0x86, 0xdd}, {0x81, 0}};
		uint8_t data[128];
		const size_t bytes = sl_random_below(&wire.chance, sizeof(data));
		const uint8_t *type = types[i % SL_COUNT_OF(types)];

		for (size_t k = 0; k < sizeof(data); k++)
			data[k] = (uint8_t)wire_draw();
		memcpy(data, (uint8_t[]){2, 0, 0, 0, 0, 1}, 6);
		data[12] = type[0];
		data[13] = type[1];
		data[14] = type[0] == 8 ? 0x45 : 0x60;
		if (wire_happens(50))
			data[23] = 6; // TCP, or for IPv6 a part of an address
		wire_push(&ends[0], data, bytes);
		wire_step(SL_MS);
	}
	exchange(SL_KIB); // and it still works
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_echo, wire_set_up, wire_tear_down),
		cmocka_unit_test_setup_teardown(test_a_narrow_path, wire_set_up, wire_tear_down),
		cmocka_unit_test_setup_teardown(test_a_narrow_path_that_is_not, wire_set_up,
						wire_tear_down),
		cmocka_unit_test_setup_teardown(test_echo_over_a_bad_wire, wire_set_up,
						wire_tear_down),
		cmocka_unit_test_setup_teardown(test_many_with_cross_aborts, wire_set_up,
						wire_tear_down),
		cmocka_unit_test_setup_teardown(test_one_acknowledgement_a_turn, wire_set_up,
						wire_tear_down),
		cmocka_unit_test_setup_teardown(test_writes_without_memory, wire_set_up,
						wire_tear_down),
		cmocka_unit_test_setup_teardown(test_half_open_is_bounded, wire_set_up,
						wire_tear_down),
		cmocka_unit_test_setup_teardown(test_a_port_in_time_wait_is_used_again, wire_set_up,
						wire_tear_down),
		cmocka_unit_test_setup_teardown(test_a_sum_is_trusted_or_computed, wire_set_up,
						wire_tear_down),
		cmocka_unit_test_setup_teardown(test_echo_over_a_wire_that_damages, wire_set_up,
						wire_tear_down),
		cmocka_unit_test_setup_teardown(test_echo, set_up_device, tear_down_device),
		cmocka_unit_test_setup_teardown(test_echo_over_a_wire_that_damages, set_up_device,
						tear_down_device),
		cmocka_unit_test_setup_teardown(test_noise, wire_set_up, wire_tear_down),
	};

	sl_hash_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
