#include "tests/unit/test.h"

#include "dataplane/base/random.h"
#include "dataplane/base/timer.h"

struct probe {
	struct sl_timer timer;
	struct sl_timers *timers;
	uint64_t fired_ns;
	unsigned fired, again;
};

static void fire(struct sl_timer *timer, uint64_t now_ns)
{
	struct probe *probe = SL_CONTAINER_OF(timer, struct probe, timer);

	assert_true(now_ns >= timer->at_ns);
	probe->fired_ns = now_ns;
	probe->fired++;
	if (probe->again) {
		probe->again--;
		sl_timer_set(probe->timers, timer, now_ns + 10 * SL_MS);
	}
}

static void never_early_and_at_most_two_ticks_late(void **state)
{
	static struct probe probes[500];
	struct sl_timers timers;
	struct sl_random random;
	const uint64_t start_ns = 12345 * SL_MS + 678;

	(void)state;
	sl_random_init(&random, 3);
	sl_timers_init(&timers, start_ns);
	for (unsigned i = 0; i < SL_COUNT_OF(probes); i++) {
		probes[i] = (struct probe){.timer.fire = fire, .timers = &timers};
		sl_timer_set(&timers, &probes[i].timer,
			     start_ns + sl_random_below(&random, 20 * SL_S));
	}
	for (uint64_t now_ns = start_ns; now_ns < start_ns + 21 * SL_S;) {
		sl_timers_run(&timers, now_ns);
		// Sleeping as long as it says must miss nothing.
		now_ns += SL_MAX(sl_timers_wait_ns(&timers, now_ns, 50 * SL_MS), 100 * SL_US);
	}
	for (unsigned i = 0; i < SL_COUNT_OF(probes); i++) {
		assert_int_equal(probes[i].fired, 1);
		assert_true(probes[i].fired_ns - probes[i].timer.at_ns <= 2 * SL_TIMER_TICK_NS);
	}
	assert_int_equal(timers.armed, 0);
}

static void cancelled_and_moved_timers(void **state)
{
	struct sl_timers timers;
	struct probe gone = {.timer.fire = fire}, moved = {.timer.fire = fire};

	(void)state;
	sl_timers_init(&timers, 0);
	sl_timer_set(&timers, &gone.timer, 20 * SL_MS);
	sl_timer_set(&timers, &moved.timer, 20 * SL_MS);
	sl_timer_set(&timers, &moved.timer, 10 * SL_S);
	sl_timer_cancel(&timers, &gone.timer);
	sl_timer_cancel(&timers, &gone.timer); // twice is fine
	sl_timers_run(&timers, 5 * SL_S);
	assert_int_equal(gone.fired + moved.fired, 0);
	sl_timers_run(&timers, 11 * SL_S);
	assert_int_equal(moved.fired, 1);
	assert_false(sl_timer_armed(&moved.timer));
}

static void a_timer_may_arm_itself_again(void **state)
{
	struct sl_timers timers;
	struct probe probe = {.timer.fire = fire, .timers = &timers, .again = 5};

	(void)state;
	sl_timers_init(&timers, 0);
	sl_timer_set(&timers, &probe.timer, 10 * SL_MS);
	for (uint64_t now_ns = 0; now_ns < SL_S; now_ns += SL_MS)
		sl_timers_run(&timers, now_ns);
	assert_int_equal(probe.fired, 6);
}

static void a_stall_of_an_hour_fires_all(void **state)
{
	struct sl_timers timers;
	struct probe near = {.timer.fire = fire}, far = {.timer.fire = fire};

	(void)state;
	sl_timers_init(&timers, 0);
	sl_timer_set(&timers, &near.timer, SL_MS);
	sl_timer_set(&timers, &far.timer, 1800 * SL_S);
	sl_timers_run(&timers, 3600 * SL_S);
	assert_int_equal(near.fired, 1);
	assert_int_equal(far.fired, 1);
}

static void nothing_armed_waits_as_long_as_asked(void **state)
{
	struct sl_timers timers;

	(void)state;
	sl_timers_init(&timers, SL_S);
	assert_int_equal(sl_timers_wait_ns(&timers, SL_S, 70 * SL_MS), 70 * SL_MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(never_early_and_at_most_two_ticks_late),
		cmocka_unit_test(cancelled_and_moved_timers),
		cmocka_unit_test(a_timer_may_arm_itself_again),
		cmocka_unit_test(a_stall_of_an_hour_fires_all),
		cmocka_unit_test(nothing_armed_waits_as_long_as_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
