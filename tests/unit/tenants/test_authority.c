#include "tests/unit/test.h"

#include "dataplane/base/hash.h"
#include "tenants/algorithm.h"
#include "tenants/authority.h"

// The instance's authority by itself: what time earns, who sleeps, who is awake.

#define START (1000 * SL_S)

// Spans at 1000/s with a burst of 2000, requests at 10/s with a burst of 10; the rest unlimited.
static struct sl_limits limits_of(void)
{
	struct sl_limits limits = sl_limits_none;

	limits.dimensions[SL_DIMENSION_SPANS] = sl_limit_rate(1000, 2 * SL_S);
	limits.dimensions[SL_DIMENSION_REQUESTS] = sl_limit_rate(10, SL_S);
	return limits;
}

static void levels_of(struct sl_quota_pool *pool, int64_t spans, int64_t requests)
{
	memset(pool, 0, sizeof(*pool));
	pool->filled_ns = START;
	pool->tokens[SL_DIMENSION_SPANS] = spans;
	pool->tokens[SL_DIMENSION_REQUESTS] = requests;
}

static const struct {
	const char *why;
	int64_t spans, requests;
	uint64_t after_ns;
	int64_t want_spans, want_requests;
	bool full;
} fills[] = {
	{"a full pool stays full", 2000, 10, SL_S, 2000, 10, true},
	{"and is full without any time too", 2000, 10, 0, 2000, 10, true},
	{"time becomes tokens", 0, 0, SL_S / 2, 500, 5, false},
	{"to the burst and no further", 0, 0, 5 * SL_S, 2000, 10, true},
	{"just to the burst is full", 1000, 0, SL_S, 2000, 10, true},
	{"one token less is not", 999, 0, SL_S, 1999, 10, false},
	{"one dimension that lacks keeps it awake", 2000, 0, SL_S / 2, 2000, 5, false},
	{"the other alike", 0, 10, SL_S, 1000, 10, false},
	{"a debt is paid first", -500, 10, SL_S, 500, 10, false},
	{"what is above a smaller burst is cut", 2500, 10, SL_MS, 2000, 10, true},
};

static void test_fill(void **state)
{
	const struct sl_limits limits = limits_of();

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(fills); i++) {
		struct sl_quota_pool pool;
		bool full;

		levels_of(&pool, fills[i].spans, fills[i].requests);
		full = sl_algorithm_fill(&pool, &limits, START + fills[i].after_ns);
		if (full != fills[i].full ||
		    pool.tokens[SL_DIMENSION_SPANS] != fills[i].want_spans ||
		    pool.tokens[SL_DIMENSION_REQUESTS] != fills[i].want_requests)
			fail_msg("%s: %d, %lld, %lld", fills[i].why, full,
				 (long long)pool.tokens[SL_DIMENSION_SPANS],
				 (long long)pool.tokens[SL_DIMENSION_REQUESTS]);
		assert_int_equal(pool.filled_ns, START + fills[i].after_ns);
		for (unsigned d = 0; d < SL_DIMENSIONS; d++) // an unlimited one is left alone
			if (d != SL_DIMENSION_SPANS && d != SL_DIMENSION_REQUESTS)
				assert_int_equal(pool.tokens[d], 0);
	}
}

// Parts of a token are kept, so that slow rates come true; a clock that stands or goes back earns
// nothing.
static void test_fractions(void **state)
{
	const struct sl_limits limits = limits_of();
	struct sl_quota_pool pool;

	(void)state;
	levels_of(&pool, 2000, 0);
	for (unsigned i = 1; i <= 9; i++) {
		sl_algorithm_fill(&pool, &limits, START + i * 10 * SL_MS);
		assert_int_equal(pool.tokens[SL_DIMENSION_REQUESTS], 0);
	}
	sl_algorithm_fill(&pool, &limits, START + 101 * SL_MS);
	assert_int_equal(pool.tokens[SL_DIMENSION_REQUESTS], 1);
	sl_algorithm_fill(&pool, &limits, START);
	assert_int_equal(pool.tokens[SL_DIMENSION_REQUESTS], 1);
	assert_int_equal(pool.filled_ns, START + 101 * SL_MS);
}

static void test_sleep(void **state)
{
	const struct sl_limits limits = limits_of();
	struct sl_quota_woken woken = {NULL};
	struct sl_quota_pool pool;

	(void)state;
	levels_of(&pool, 2000, 10);
	pool.awake = 1;
	assert_true(sl_authority_sleep(&pool, &limits));
	assert_int_equal(pool.awake, 0);
	sl_quota_pool_wake(&pool, &woken); // so its shard finds it asleep
	assert_ptr_equal(woken.first, &pool);
	for (unsigned i = 0; i < 2; i++) { // drawn from: it stays, and is awake
		levels_of(&pool, 2000 - (i == 0), 10 - (i == 1));
		pool.awake = 1;
		assert_false(sl_authority_sleep(&pool, &limits));
		assert_int_equal(pool.awake, 1);
	}
}

static void test_begin(void **state)
{
	struct sl_authority authority = {.tick_ns = 0};
	struct sl_quota_pool pools[3], *at;
	unsigned seen = 0;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		levels_of(&pools[i], 0, 0);
		sl_quota_pool_wake(&pools[i], &authority.woken);
		sl_quota_pool_wake(&pools[i], &authority.woken); // twice is once
		if (i == 0) // one is awake before the others come
			sl_authority_begin(&authority, START);
	}
	sl_authority_begin(&authority, START + SL_S);
	for (at = authority.awake; at && seen < 10; at = at->next) {
		// What it earned in its sleep is nothing: it was full at the last tick.
		assert_int_equal(at->filled_ns, START);
		seen++;
	}
	assert_int_equal(seen, 3);
	assert_null(authority.woken.first);
	assert_int_equal(authority.tick_ns, START + SL_S);
}

static void test_introduce_and_adopt(void **state)
{
	struct sl_authority authority = {.tick_ns = 0};
	struct sl_limits limits = limits_of();
	struct sl_quota_pool pool = {.tenant = 0};

	(void)state;
	limits.dimensions[SL_DIMENSION_IN_FLIGHT_BYTES] = sl_limit_in_flight(1000);
	sl_authority_introduce(&pool, &limits);
	assert_int_equal(pool.tokens[SL_DIMENSION_SPANS], 2000);
	assert_int_equal(pool.tokens[SL_DIMENSION_REQUESTS], 10);
	assert_int_equal(pool.tokens[SL_DIMENSION_IN_FLIGHT_BYTES], 1000);
	pool.tokens[SL_DIMENSION_SPANS] = 5;
	sl_authority_introduce(&pool, &limits); // once only
	assert_int_equal(pool.tokens[SL_DIMENSION_SPANS], 5);
	pool.tokens[SL_DIMENSION_SPANS] = 2000;

	sl_authority_adopt(&authority, &pool, &limits);
	assert_null(authority.woken.first);               // full by the new limits: nothing to do
	pool.tokens[SL_DIMENSION_IN_FLIGHT_BYTES] -= 300; // in flight
	limits.dimensions[SL_DIMENSION_IN_FLIGHT_BYTES] = sl_limit_in_flight(400);
	limits.dimensions[SL_DIMENSION_SPANS] = sl_limit_rate(1000, 3 * SL_S);
	sl_authority_adopt(&authority, &pool, &limits);
	assert_int_equal(pool.tokens[SL_DIMENSION_IN_FLIGHT_BYTES], 100);
	assert_int_equal(pool.tokens[SL_DIMENSION_SPANS], 3000); // it sleeps: full, also by these
	assert_null(authority.woken.first);

	pool.awake = 1; // it spends: the next ticks cut it, or fill it
	limits.dimensions[SL_DIMENSION_SPANS] = sl_limit_rate(1000, 4 * SL_S);
	sl_authority_adopt(&authority, &pool, &limits);
	assert_int_equal(pool.tokens[SL_DIMENSION_SPANS], 3000);
	assert_null(authority.woken.first);

	pool.awake = 0;
	limits.algorithm = SL_ALGORITHM_SLIDING_WINDOW; // keeps books of its levels
	sl_authority_adopt(&authority, &pool, &limits);
	assert_int_equal(pool.tokens[SL_DIMENSION_SPANS], 3000);
	assert_ptr_equal(authority.woken.first, &pool);
}

// A leaky bucket's queue is no debt of what a reload makes of it; nor does a reload that leaves it
// as it is forgive anything.
static void test_a_queue_goes_with_its_bucket(void **state)
{
	struct sl_authority authority = {.tick_ns = 0};
	struct sl_limits limits = limits_of();
	struct sl_quota_pool pool = {.tenant = 0, .awake = 1};

	(void)state;
	limits.algorithm = SL_ALGORITHM_LEAKY;
	limits.delay_max_ns = 2 * SL_S;
	pool.tokens[SL_DIMENSION_REQUESTS] = 10;
	pool.tokens[SL_DIMENSION_SPANS] = -5000; // a large one: more than the others may wait
	sl_authority_adopt(&authority, &pool, &limits);
	sl_authority_adopt(&authority, &pool, &limits);
	assert_int_equal(pool.tokens[SL_DIMENSION_SPANS], -5000);
	limits.dimensions[SL_DIMENSION_SPANS].per_s = 100; // 50 s of queue would be
	sl_authority_adopt(&authority, &pool, &limits);
	assert_int_equal(pool.tokens[SL_DIMENSION_SPANS], -200);
	assert_int_equal(pool.tokens[SL_DIMENSION_REQUESTS], 10);
	limits.algorithm = SL_ALGORITHM_TOKEN_BUCKET;
	sl_authority_adopt(&authority, &pool, &limits);
	assert_int_equal(pool.tokens[SL_DIMENSION_SPANS], 0);
	pool.tokens[SL_DIMENSION_SPANS] = -300; // a token bucket's is paid
	limits.dimensions[SL_DIMENSION_SPANS].per_s = 50;
	sl_authority_adopt(&authority, &pool, &limits);
	assert_int_equal(pool.tokens[SL_DIMENSION_SPANS], -300);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fill),
		cmocka_unit_test(test_fractions),
		cmocka_unit_test(test_sleep),
		cmocka_unit_test(test_begin),
		cmocka_unit_test(test_introduce_and_adopt),
		cmocka_unit_test(test_a_queue_goes_with_its_bucket),
	};

	sl_hash_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
