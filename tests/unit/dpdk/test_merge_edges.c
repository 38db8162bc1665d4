#include "tests/unit/dpdk/twins.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

// A burst of mostly full segments, whatever window the stack has left.
static void press(unsigned flow, bool reads)
{
	static struct made frames[BURST];
	const unsigned limit = 2 + twins_below(60);

	for (unsigned n = 0; n < limit; n++) {
		struct words words = twins_plain(flow,
						 twins_below(4) ? 1448 : 1 + twins_below(1448));

		words.window = (uint16_t)(60000 - twins_below(2));
		twins_make(&frames[n], flow, &words);
		peers[flow].seq += (uint32_t)words.size;
	}
	twins_burst(frames, limit, 0);
	twins_end_turn(reads, false);
}

// The window shuts, as the owner does not read: some of a run may fit. A window that was read from
// grows, so it is a connection's beginning that shows it: two go along, then the next two.
static void test_window_edge(void **state)
{
	for (unsigned seed = 1; seed <= 4; seed++) {
		sl_random_init(&chance, seed);
		for (unsigned pair = 0; pair < FLOWS; pair += 2) {
			const uint32_t from[2] = {peers[pair].seq, peers[pair + 1].seq};

			for (unsigned turn = 0; turn < 30; turn++) {
				const unsigned which = twins_below(2), flow = pair + which;

				if (peers[flow].taken - from[which] + 160 * SL_KIB > STREAM_MAX)
					break;
				press(flow, twins_below(3) == 0);
				if (twins_below(3) == 0) // sends again what was not taken
					peers[flow].seq = peers[flow].taken;
			}
		}
		assert_in_range(twins_merged(), 1, 1000000);
		twins_tear_down(state);
		twins_set_up(state);
	}
}

// What the last of a run says of its window is the newest: an old segment does not take it back.
static void test_newest_window(void **state)
{
	static struct made frames[3];
	struct made old;
	struct words words;

	(void)state;
	for (unsigned n = 0; n < 3; n++) {
		words = twins_plain(0, 100);
		words.window = 400;
		twins_make(&frames[n], 0, &words);
		peers[0].seq += 100;
	}
	twins_burst(frames, 3, 0);
	twins_end_turn(false, false);
	assert_int_equal(twins_merged(), 2);
	words = twins_plain(0, 100); // the second once more, which came late
	words.seq -= 200;
	words.window = 1;
	twins_make(&old, 0, &words);
	twins_burst(&old, 1, 0);
	twins_end_turn(false, false);
	for (unsigned t = 0; t < 2; t++)
		twins_say(&twins[t], 0, 3000);
	assert_true(twins[0].sent_bytes[0] > 1000); // the old one has room for 128
	twins_end_turn(false, false);
}

// Gives both three segments in order; `how[n]` comes with the n-th, and the second may be damaged.
static void give_three(unsigned flow, const unsigned how[3], bool damaged)
{
	struct made made;

	for (unsigned n = 0; n < 3; n++) {
		struct words words = twins_plain(flow, 100);

		words.seq += n * 100;
		words.damaged = damaged && n == 1;
		twins_make(&made, flow, &words);
		for (unsigned t = 0; t < 2; t++)
			twins_give(&twins[t], &made, how[n] | (t ? 0 : SL_INPUT_MORE));
	}
	for (unsigned t = 0; t < 2; t++)
		twins[t].ops->flush(twins[t].stack);
	twins_end_turn(true, false);
}

// A run's frames come in different ways: one unchecked is checked, and with memory low copied.
static void test_mixed_ways(void **state)
{
	const unsigned fine = SL_INPUT_IP_FINE | SL_INPUT_TCP_FINE;
	uint64_t copied;

	(void)state;
	give_three(0, (unsigned[]){fine, 0, fine}, true);
	assert_int_equal(twins[0].read_bytes[0], 100);
	copied = twins[0].ops->stats(twins[0].stack)->copied_packets;
	give_three(1, (unsigned[]){0, SL_INPUT_COPY, SL_INPUT_COPY}, false);
	assert_int_equal(twins[0].ops->stats(twins[0].stack)->copied_packets - copied, 2);
	assert_int_equal(twins[0].read_bytes[1], 300);
}

static void act(struct twin *twin, unsigned flow)
{
	struct sl_stream *stream = twin->streams[flow];

	switch (twins_below(6)) {
	case 0:
		if (stream && twins_below(5) == 0) {
			twin->ops->drop(stream, twins_below(2));
			twin->streams[flow] = NULL;
		}
		break;
	case 1:
		twins_say(twin, flow, 1 + twins_below(2000));
		break;
	case 2:
		twins_take_events(twin);
		break;
	case 3:
		twins_read_on(twin, flow);
		break;
	case 4:
		if (stream && twins_below(6) == 0)
			twin->ops->shut(stream);
		break;
	default:
		now_ns += 250 * SL_MS;
		twin->ops->tick(twin->stack, now_ns);
	}
}

// Each byte that was read is the next of its stream; `at` is their numbers.
static void check_read(struct twin *twin, uint32_t at[FLOWS])
{
	for (unsigned flow = 0; flow < FLOWS; flow++) {
		for (size_t i = 0; i < twin->read_bytes[flow]; i++)
			assert_int_equal(twin->read[flow][i], twins_byte(at[flow]++));
		twin->read_bytes[flow] = 0;
	}
}

static void act_between(uint32_t at[FLOWS])
{
	static struct made frames[BURST];
	struct twin *twin = &twins[0];
	unsigned count = 0;

	for (unsigned flow = 0; flow < FLOWS; flow++) {
		if (twins_below(3) == 0) // sends again what was not taken
			peers[flow].seq = peers[flow].taken;
	}
	while (count < BURST)
		twins_add(frames, &count, twins_below(FLOWS), 5);
	for (unsigned i = 0; i < count; i++) {
		twins_give(twin, &frames[i],
			   (twins_below(5) ? SL_INPUT_MORE : 0) |
				   (twins_below(8) ? 0 : SL_INPUT_COPY));
		if (twins_below(6) == 0)
			act(twin, twins_below(FLOWS));
	}
	twin->ops->flush(twin->stack);
	twins_take_events(twin);
	twin->ops->acknowledge(twin->stack);
	now_ns += 10 * SL_MS;
	twin->ops->tick(twin->stack, now_ns);
	twins_take_note();
	check_read(twin, at);
}

// The owner reads, writes, shuts and drops while segments are held: their order among these is not
// the other stack's, but each stream's bytes are right, and every packet comes back.
static void test_owner_between(void **state)
{
	for (unsigned seed = 1; seed <= 16; seed++) {
		uint32_t at[FLOWS];

		sl_random_init(&chance, seed);
		for (unsigned i = 0; i < FLOWS; i++)
			at[i] = peers[i].seq;
		for (unsigned turn = 0; turn < 40; turn++)
			act_between(at);
		assert_in_range(twins_merged(), 1, 1000000);
		twins_take_events(&twins[0]);
		twins_tear_down(state);
		twins_set_up(state);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_window_edge, twins_set_up, twins_tear_down),
		cmocka_unit_test_setup_teardown(test_newest_window, twins_set_up, twins_tear_down),
		cmocka_unit_test_setup_teardown(test_mixed_ways, twins_set_up, twins_tear_down),
		cmocka_unit_test_setup_teardown(test_owner_between, twins_set_up, twins_tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
