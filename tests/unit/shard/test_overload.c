#include "tests/unit/test.h"

#include "dataplane/shard/overload.h"

#define AFTER SL_S

static const struct sl_overload_limits limits = {
	.on = true,
	.busy = 0.9,
	.memory = 0.8,
	.calm = 0.5,
	.after_ns = AFTER,
	.halvings = 2,
	.refuse = true,
};

// One step up or down.
static void push(struct sl_overload *overload, double busy, uint64_t *now_ns, uint32_t ranks)
{
	sl_overload_observe(overload, &limits, ranks, busy, 0, *now_ns);
	*now_ns += AFTER;
	sl_overload_observe(overload, &limits, ranks, busy, 0, *now_ns);
	// Neither above nor below: both times begin anew.
	sl_overload_observe(overload, &limits, ranks, 0.6, 0, *now_ns);
}

static void ranks_are_thinned_then_refused_from_below(void **state)
{
	static const struct {
		uint32_t thinning[3];
		bool refused[3];
	} wanted[] = {
		{{0, 0, 0}, {false, false, false}}, {{1, 0, 0}, {false, false, false}},
		{{2, 0, 0}, {false, false, false}}, {{2, 1, 0}, {false, false, false}},
		{{2, 2, 0}, {false, false, false}}, {{2, 2, 1}, {false, false, false}},
		{{2, 2, 2}, {false, false, false}}, {{2, 2, 2}, {true, false, false}},
		{{2, 2, 2}, {true, true, false}}, // the highest is never refused
		{{2, 2, 2}, {true, true, false}},
	};
	struct sl_overload overload = {0};
	uint64_t now_ns = SL_S;

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(wanted); i++) {
		for (uint32_t rank = 0; rank < 3; rank++) {
			assert_int_equal(sl_overload_thinning(&overload, &limits, rank),
					 wanted[i].thinning[rank]);
			assert_int_equal(sl_overload_refuses(&overload, &limits, 3, rank),
					 wanted[i].refused[rank]);
		}
		push(&overload, 0.95, &now_ns, 3);
	}
	assert_int_equal(overload.step, 8);
	for (uint32_t step = 8; step-- > 0;) {
		push(&overload, 0.1, &now_ns, 3);
		assert_int_equal(overload.step, step);
	}
	push(&overload, 0.1, &now_ns, 3);
	assert_int_equal(overload.step, 0);
}

static void a_step_takes_its_time(void **state)
{
	struct sl_overload overload = {0};
	const uint64_t start = 5 * SL_S;

	(void)state;
	assert_false(sl_overload_observe(&overload, &limits, 1, 0.95, 0, start));
	assert_false(sl_overload_observe(&overload, &limits, 1, 0.95, 0, start + AFTER - 1));
	// A moment below the mark, and the time begins anew.
	assert_false(sl_overload_observe(&overload, &limits, 1, 0.85, 0, start + AFTER));
	assert_false(sl_overload_observe(&overload, &limits, 1, 0.95, 0, start + AFTER + 1));
	assert_true(sl_overload_observe(&overload, &limits, 1, 0.95, 0, start + 2 * AFTER + 1));
	// Between the two marks it stays (hysteresis), however long.
	assert_false(sl_overload_observe(&overload, &limits, 1, 0.5, 0, start + 90 * AFTER));
	assert_false(sl_overload_observe(&overload, &limits, 1, 0.5, 0, start + 99 * AFTER));
	assert_int_equal(overload.step, 1);
}

static void memory_counts_like_time(void **state)
{
	struct sl_overload overload = {0};

	(void)state;
	sl_overload_observe(&overload, &limits, 1, 0, 0.81, SL_S);
	assert_true(sl_overload_observe(&overload, &limits, 1, 0, 0.81, SL_S + AFTER));
	// Calm in one is not enough.
	sl_overload_observe(&overload, &limits, 1, 0, 0.5, SL_S + 2 * AFTER);
	assert_false(sl_overload_observe(&overload, &limits, 1, 0, 0.5, SL_S + 9 * AFTER));
	sl_overload_observe(&overload, &limits, 1, 0, 0.39, SL_S + 10 * AFTER);
	assert_true(sl_overload_observe(&overload, &limits, 1, 0, 0.39, SL_S + 11 * AFTER));
}

static void a_reload_takes_steps_away(void **state)
{
	struct sl_overload_limits off = limits, without_refusal = limits;
	struct sl_overload overload = {.step = 8};

	(void)state;
	without_refusal.refuse = false;
	assert_true(sl_overload_observe(&overload, &without_refusal, 3, 0.6, 0, SL_S));
	assert_int_equal(overload.step, 6);
	off.on = false;
	assert_true(sl_overload_observe(&overload, &off, 3, 1, 1, SL_S));
	assert_int_equal(overload.step, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranks_are_thinned_then_refused_from_below),
		cmocka_unit_test(a_step_takes_its_time),
		cmocka_unit_test(memory_counts_like_time),
		cmocka_unit_test(a_reload_takes_steps_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
