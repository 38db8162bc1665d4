#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/base/random.h"
#include "routing/hash_ring.h"

// Who owns what: properties over sets of every size.
#define KEYS  20000
#define BOUND 1.25

static char storage[SL_RING_MEMBERS_MAX + 1][32];
static const char *names[SL_RING_MEMBERS_MAX + 1];

static void name_all(const char *prefix)
{
	for (unsigned i = 0; i <= SL_RING_MEMBERS_MAX; i++) {
		snprintf(storage[i], sizeof(storage[i]), "%s%u:4317", prefix, i);
		names[i] = storage[i];
	}
}

static void owners(const struct sl_ring *ring, uint32_t out[KEYS])
{
	for (uint64_t i = 0; i < KEYS; i++)
		out[i] = sl_ring_owner(ring, sl_bytes(&i, sizeof(i)));
}

static void test_balance(void **state)
{
	static uint32_t now[KEYS];

	(void)state;
	name_all("10.0.0.");
	for (uint32_t count = 1; count <= SL_RING_MEMBERS_MAX; count++) {
		struct sl_ring *ring = sl_ring_create(names, count, BOUND);
		uint32_t of[SL_RING_MEMBERS_MAX] = {0}, sum = 0;

		owners(ring, now);
		for (unsigned i = 0; i < KEYS; i++)
			of[now[i]]++;
		for (uint32_t i = 0; i < count; i++) {
			const double mean = 1000.0 / count;

			assert_true(sl_ring_share(ring, i) <= mean * BOUND + 1);
			assert_true(sl_ring_share(ring, i) >= (count == 1 ? 1000 : mean / 2));
			assert_true(of[i] > 0);
			sum += sl_ring_share(ring, i);
		}
		assert_true(sum > 1000 - count && sum <= 1000);
		sl_ring_destroy(ring);
	}
}

// Whatever goes down and comes back, in whatever order: the bound holds, an owner is up, and what
// is owned follows from who is up alone.
static void test_who_is_up_decides(void **state)
{
	static uint32_t full[KEYS], now[KEYS], again[KEYS];
	struct sl_random random;

	(void)state;
	name_all("tail-");
	sl_random_init(&random, 7);
	for (unsigned round = 0; round < 60; round++) {
		const uint32_t count = 2 + (uint32_t)sl_random_below(&random, 30);
		struct sl_ring *ring = sl_ring_create(names, count, BOUND);
		struct sl_ring *fresh = sl_ring_create(names, count, BOUND);
		uint64_t up = 0;

		owners(ring, full);
		for (unsigned step = 0; step < 8; step++) {
			uint32_t moved = 0, theirs = 0, live;

			up = sl_random_below(&random, (UINT64_C(1) << count));
			sl_ring_set_up(ring, up);
			live = (uint32_t)__builtin_popcountl(up);
			owners(ring, now);
			for (unsigned i = 0; i < KEYS; i++) {
				if (!live) {
					assert_int_equal(now[i], SL_RING_NONE);
					continue;
				}
				assert_true(up >> now[i] & 1);
				theirs += !(up >> full[i] & 1);
				moved += now[i] != full[i];
			}
			assert_int_equal(moved, theirs); // nobody else's
			for (uint32_t i = 0; i < count && live; i++)
				assert_true(sl_ring_share(ring, i) <= 1000.0 / live * BOUND + 1);
		}
		sl_ring_set_up(fresh, up);
		owners(fresh, again);
		assert_memory_equal(now, again, sizeof(now));
		sl_ring_set_up(ring, UINT64_MAX);
		owners(ring, now);
		assert_memory_equal(now, full, sizeof(now)); // all return
		assert_false(sl_ring_set_up(ring, UINT64_MAX));
		sl_ring_destroy(ring);
		sl_ring_destroy(fresh);
	}
}

static void test_the_order_of_names_does_not_matter(void **state)
{
	static uint32_t one[KEYS], other[KEYS];
	const char *turned[12];

	(void)state;
	name_all("b");
	for (unsigned i = 0; i < 12; i++)
		turned[i] = names[11 - i];

	struct sl_ring *a = sl_ring_create(names, 12, BOUND);
	struct sl_ring *b = sl_ring_create(turned, 12, BOUND);

	for (unsigned i = 0; i < 2; i++) {
		owners(a, one);
		owners(b, other);
		for (unsigned j = 0; j < KEYS; j++)
			assert_int_equal(one[j], 11 - other[j]);
		sl_ring_set_up(a, ~UINT64_C(1));
		sl_ring_set_up(b, ~(UINT64_C(1) << 11));
	}
	sl_ring_destroy(a);
	sl_ring_destroy(b);
}

// One more takes about its share, and hardly anything moves between the others: only what was, or
// is now, beyond somebody's bound.
static void test_one_more(void **state)
{
	static uint32_t before[KEYS], after[KEYS];

	(void)state;
	name_all("n");
	for (uint32_t count = 1; count < SL_RING_MEMBERS_MAX; count++) {
		struct sl_ring *few = sl_ring_create(names, count, BOUND);
		struct sl_ring *more = sl_ring_create(names, count + 1, BOUND);
		unsigned taken = 0, stirred = 0;

		owners(few, before);
		owners(more, after);
		for (unsigned i = 0; i < KEYS; i++) {
			taken += after[i] == count;
			stirred += after[i] != count && after[i] != before[i];
		}
		assert_true(taken <= KEYS * BOUND * 1.1 / (count + 1));
		assert_true(stirred <= KEYS / 100);
		sl_ring_destroy(few);
		sl_ring_destroy(more);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_balance),
		cmocka_unit_test(test_who_is_up_decides),
		cmocka_unit_test(test_the_order_of_names_does_not_matter),
		cmocka_unit_test(test_one_more),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
