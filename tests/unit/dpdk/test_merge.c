#include "tests/unit/dpdk/twins.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

// As a device says that it found the checksums right, it is not asked again.
static void test_each_reason(void **state)
{
	struct made frames[3];
	unsigned flow = 0;

	for (size_t i = 0; i < BENDS; i++) {
		for (unsigned v6 = 0; v6 < 2; v6++, flow++) {
			const uint64_t before = twins_merged();
			uint32_t at;

			if (flow == FLOWS) { // each leaves its connection as it may be
				twins_tear_down(state);
				twins_set_up(state);
				flow = 0;
				v6 = 0;
				i--;
				break;
			}
			at = peers[flow].seq;
			for (unsigned n = 0; n < 3; n++) {
				struct words words = twins_plain(flow, 100);

				words.seq = at + n * 100;
				if (n == 1)
					bends[i].bend(&words);
				twins_make(&frames[n], flow, &words);
			}
			twins_burst(frames, 3, 0);
			twins_end_turn(true, false);
			if (twins_merged() - before != bends[i].want[v6])
				fail_msg("%s (IPv%d): %d", bends[i].why, v6 ? 6 : 4,
					 (int)(twins_merged() - before));
		}
	}
}

// A device that has found them right is believed, though these are wrong.
static void test_device_sums(void **state)
{
	struct made frames[2];

	(void)state;
	for (unsigned n = 0; n < 2; n++) {
		struct words words = twins_plain(0, 100);

		words.seq += n * 100;
		words.damaged = words.damaged_ip = true;
		twins_make(&frames[n], 0, &words);
	}
	twins_burst(frames, 2, SL_INPUT_IP_FINE | SL_INPUT_TCP_FINE);
	twins_end_turn(true, false);
	assert_int_equal(twins_merged(), 1);
	assert_int_equal(twins[0].read_bytes[0], 200);
}

// lwIP's count of a packet's bytes has 16 bits: 45 segments of 1,448 fit, with headers, once.
static void test_as_large_as_can_be(void **state)
{
	static struct made frames[BURST];

	(void)state;
	// The window first grows beyond 64 KiB.
	for (unsigned turn = 0; turn < 2; turn++) {
		const uint64_t before = twins_merged();
		const unsigned count = turn ? 46 : 20;

		for (unsigned n = 0; n < count; n++) {
			const struct words words = twins_plain(0, 1448);

			twins_make(&frames[n], 0, &words);
			peers[0].seq += 1448;
		}
		twins_burst(frames, count, 0);
		twins_end_turn(true, false);
		assert_int_equal(twins_merged() - before, turn ? 44 : 19);
	}
	assert_int_equal(twins[0].read_bytes[0], 66 * 1448);
}

static void play(unsigned turns, unsigned trouble, unsigned flows, bool talks)
{
	static struct made frames[BURST];

	for (unsigned turn = 0; turn < turns; turn++) {
		const unsigned limit = 1 + twins_below(BURST);
		unsigned count = 0, flow = twins_below(flows);

		while (count < limit) {
			if (twins_below(4) == 0)
				flow = twins_below(flows);
			if (twins[0].read_bytes[flow] + 80 * SL_KIB > STREAM_MAX)
				break;
			twins_add(frames, &count, flow, trouble);
		}
		twins_burst(frames, count, 0);
		twins_end_turn(twins_below(4) != 0, talks);
		if (twins_below(10) == 0)
			now_ns += 300 * SL_MS;
	}
}

static void test_any_order(void **state)
{
	static const struct {
		unsigned trouble, flows;
	} kinds[] = {{0, 4}, {0, FLOWS}, {2, 8}, {10, 3}, {10, FLOWS}, {40, 5}};

	for (size_t i = 0; i < SL_COUNT_OF(kinds); i++) {
		for (uint64_t seed = 1; seed <= 2; seed++) {
			sl_random_init(&chance, seed * 97 + i);
			play(60, kinds[i].trouble, kinds[i].flows, seed % 2);
			if (kinds[i].trouble < 40)
				assert_in_range(twins_merged(), 1, 1000000);
			twins_tear_down(state);
			twins_set_up(state);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_each_reason, twins_set_up, twins_tear_down),
		cmocka_unit_test_setup_teardown(test_device_sums, twins_set_up, twins_tear_down),
		cmocka_unit_test_setup_teardown(test_as_large_as_can_be, twins_set_up,
						twins_tear_down),
		cmocka_unit_test_setup_teardown(test_any_order, twins_set_up, twins_tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
