#include "tests/unit/routing/rig.h"

// The breaker's states and the budget of retries, in virtual time.

static const struct sl_breaker_config config = {
	.failures = 3,
	.calls_min = 10,
	.probes = 1,
	.wait_ns = SL_S,
	.wait_max_ns = 3 * SL_S,
	.error_rate = 0.5,
};

static void test_what_opens_it(void **state)
{
	static const struct {
		const char *why, *ends; // x failed, . did not
		bool open;
	} rows[] = {
		{"two in a row are not three", "xx", false},
		{"three are", "xxx", true},
		{"a success between begins anew", "xx.xx", false},
		{"half failed, of too few to tell", ".x.x.x.x", false},
		{"half failed, of enough", ".x.x.x.x.x", true},
		{"less than half", "..x..x..x..x..x", false},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_breaker breaker;
		bool changed = false;

		sl_breaker_init(&breaker, &config);
		for (const char *at = rows[i].ends; *at; at++) {
			assert_true(sl_breaker_lets(&breaker, SL_S));
			changed = sl_breaker_heard(&breaker, *at == 'x', SL_S);
		}
		if (changed != rows[i].open || sl_breaker_lets(&breaker, SL_S) == rows[i].open)
			fail_msg("%s", rows[i].why);
	}
}

static void open_at(struct sl_breaker *breaker, uint64_t now_ns)
{
	sl_breaker_init(breaker, &config);
	for (unsigned i = 0; i < config.failures; i++)
		sl_breaker_heard(breaker, true, now_ns);
	assert_int_equal(breaker->state, SL_BREAKER_OPEN);
}

static void test_probes_close_it(void **state)
{
	struct sl_breaker breaker;

	(void)state;
	open_at(&breaker, 0);
	assert_false(sl_breaker_heard(&breaker, false, SL_S / 2)); // of what was sent before
	assert_false(sl_breaker_lets(&breaker, SL_S - 1));
	assert_true(sl_breaker_lets(&breaker, SL_S));
	sl_breaker_sent(&breaker);
	assert_false(sl_breaker_lets(&breaker, SL_S)); // one at a time
	sl_breaker_unsent(&breaker);
	assert_true(sl_breaker_lets(&breaker, SL_S)); // it was not taken
	sl_breaker_sent(&breaker);
	assert_true(sl_breaker_heard(&breaker, false, SL_S));
	assert_int_equal(breaker.state, SL_BREAKER_CLOSED);
	assert_false(sl_breaker_heard(&breaker, true, SL_S)); // and begins anew
}

static void test_the_wait_doubles(void **state)
{
	static const uint64_t waits_s[] = {1, 2, 3, 3};
	struct sl_breaker breaker;
	uint64_t now_ns = 0;

	(void)state;
	open_at(&breaker, 0);
	for (size_t i = 0; i < SL_COUNT_OF(waits_s); i++) {
		assert_false(sl_breaker_lets(&breaker, now_ns + waits_s[i] * SL_S - 1));
		now_ns += waits_s[i] * SL_S;
		assert_true(sl_breaker_lets(&breaker, now_ns));
		sl_breaker_sent(&breaker);
		assert_true(sl_breaker_heard(&breaker, true, now_ns));
	}
	now_ns += 3 * SL_S;
	assert_true(sl_breaker_lets(&breaker, now_ns));
	sl_breaker_heard(&breaker, false, now_ns);
	for (unsigned i = 0; i < config.failures; i++)
		sl_breaker_heard(&breaker, true, now_ns);
	assert_true(sl_breaker_lets(&breaker, now_ns + SL_S)); // a success made it short again
}

static void test_without_one_all_is_tried(void **state)
{
	static const struct sl_breaker_config none;
	struct sl_breaker breaker;

	(void)state;
	sl_breaker_init(&breaker, &none);
	for (unsigned i = 0; i < 1000; i++)
		assert_false(sl_breaker_heard(&breaker, true, i));
	assert_true(sl_breaker_lets(&breaker, SL_S));
}

// 1000 records a second whose retries all fail: a fifth and 10/s of them are tried, after 100.
static void test_retries_are_a_share(void **state)
{
	struct sl_retry_budget budget;
	unsigned tried = 0;

	(void)state;
	sl_retry_budget_init(&budget, 0);
	for (uint64_t ms = 0; ms < 10000; ms++) {
		sl_retry_budget_add(&budget, SL_RETRY_TOKEN / 5);
		tried += sl_retry_budget_spend(&budget, ms * SL_MS);
		tried += sl_retry_budget_spend(&budget, ms * SL_MS);
	}
	assert_in_range(tried, 2190, 2200);
}

// After an outage what succeeds costs nothing: any backlog goes.
static void test_retries_that_succeed_cost_nothing(void **state)
{
	struct sl_retry_budget budget;

	(void)state;
	sl_retry_budget_init(&budget, 0);
	for (unsigned i = 0; i < 100000; i++) {
		assert_true(sl_retry_budget_spend(&budget, 0));
		sl_retry_budget_add(&budget, SL_RETRY_TOKEN);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_opens_it),
		cmocka_unit_test(test_probes_close_it),
		cmocka_unit_test(test_the_wait_doubles),
		cmocka_unit_test(test_without_one_all_is_tried),
		cmocka_unit_test(test_retries_are_a_share),
		cmocka_unit_test(test_retries_that_succeed_cost_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
