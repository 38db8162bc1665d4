#include "tests/unit/test.h"

#include "dataplane/base/arena.h"
#include "dataplane/base/pool.h"
#include "dataplane/base/random.h"

static void classes_waste_at_most_a_fifth(void **state)
{
	(void)state;
	for (size_t bytes = 1; bytes < 100 * SL_MIB; bytes += bytes / 7 + 1) {
		const size_t capacity = sl_memory_class_bytes(bytes);

		assert_true(capacity >= bytes);
		if (bytes > SL_MEMORY_CLASS_MIN)
			assert_true(capacity - bytes <= capacity / 5 + 1);
		assert_int_equal(sl_memory_class_bytes(capacity), capacity);
	}
}

static void aging_gives_back_what_a_peak_left(void **state)
{
	struct sl_memory memory;
	void *peak[32], *buffer;
	size_t capacity = 0;

	(void)state;
	assert_int_equal(sl_memory_init(&memory, 64 * SL_MIB), 0);
	for (unsigned i = 0; i < SL_COUNT_OF(peak); i++)
		peak[i] = sl_memory_take(&memory, 100000, &capacity);
	for (unsigned i = 0; i < SL_COUNT_OF(peak); i++)
		sl_memory_give(&memory, peak[i], capacity);
	assert_int_equal(memory.cached_bytes, SL_COUNT_OF(peak) * capacity);
	sl_memory_age(&memory); // the peak was within this time
	assert_int_equal(memory.cached_bytes, SL_COUNT_OF(peak) * capacity);
	for (unsigned i = 0; i < 100; i++) { // the steady state goes through three
		for (unsigned k = 0; k < 3; k++)
			peak[k] = sl_memory_take(&memory, 100000, &capacity);
		for (unsigned k = 0; k < 3; k++)
			sl_memory_give(&memory, peak[k], capacity);
	}
	sl_memory_age(&memory);
	assert_int_equal(memory.cached_bytes, 3 * capacity);
	buffer = sl_memory_take(&memory, 100000, &capacity);
	assert_int_equal(memory.misses, SL_COUNT_OF(peak));
	sl_memory_give(&memory, buffer, capacity);
	sl_memory_age(&memory);
	assert_int_equal(memory.cached_bytes, capacity);
	sl_memory_age(&memory);
	assert_int_equal(memory.cached_bytes, 0);
	sl_memory_fini(&memory);
}

static void the_budget_is_never_passed(void **state)
{
	struct sl_memory memory;
	struct sl_random random;
	struct {
		void *buffer;
		size_t capacity;
	} held[64] = {0};
	unsigned refused = 0;

	(void)state;
	sl_random_init(&random, 7);
	assert_int_equal(sl_memory_init(&memory, SL_MIB), 0);
	for (unsigned i = 0; i < 20000; i++) {
		const size_t slot = sl_random_below(&random, SL_COUNT_OF(held));

		if (held[slot].buffer) {
			sl_memory_give(&memory, held[slot].buffer, held[slot].capacity);
			held[slot].buffer = NULL;
			continue;
		}

		const size_t want = 1 + sl_random_below(&random, 100000);

		held[slot].buffer = sl_memory_take(&memory, want, &held[slot].capacity);
		if (!held[slot].buffer)
			refused++;
		else
			memset(held[slot].buffer, 0xa5, held[slot].capacity);
		assert_true(memory.used_bytes <= memory.budget_bytes);
		assert_true(memory.used_bytes + memory.cached_bytes <= memory.budget_bytes);
	}
	assert_true(refused > 0);
	for (size_t i = 0; i < SL_COUNT_OF(held); i++) {
		if (held[i].buffer)
			sl_memory_give(&memory, held[i].buffer, held[i].capacity);
	}
	assert_int_equal(memory.used_bytes, 0);
	sl_memory_fini(&memory);
}

static void a_steady_state_allocates_nothing(void **state)
{
	struct sl_memory memory;
	uint64_t misses = 0;

	(void)state;
	assert_int_equal(sl_memory_init(&memory, SL_MIB), 0);
	for (unsigned turn = 0; turn < 100; turn++) {
		void *buffers[8];
		size_t capacities[8];

		for (unsigned i = 0; i < 8; i++)
			buffers[i] = sl_memory_take(&memory, 3000 * (i + 1), &capacities[i]);
		for (unsigned i = 0; i < 8; i++)
			sl_memory_give(&memory, buffers[i], capacities[i]);
		if (turn == 0)
			misses = memory.misses;
	}
	assert_int_equal(memory.misses, misses);
	sl_memory_fini(&memory);
}

static void the_reserve_passes_the_budget(void **state)
{
	struct sl_memory memory;
	size_t capacity;
	void *buffer;

	(void)state;
	assert_int_equal(sl_memory_init(&memory, 4096), 0);
	assert_null(sl_memory_take(&memory, 8192, &capacity));
	buffer = sl_memory_take_reserve(&memory, 8192, &capacity);
	assert_non_null(buffer);
	assert_null(sl_memory_take(&memory, 1, &capacity));
	sl_memory_give(&memory, buffer, 8192);
	sl_memory_fini(&memory);
}

static void arenas_give_all_back(void **state)
{
	struct sl_memory memory;
	struct sl_arena arena;

	(void)state;
	assert_int_equal(sl_memory_init(&memory, SL_MIB), 0);
	sl_arena_init(&arena, &memory);
	assert_int_equal(memory.used_bytes, 0);
	for (size_t bytes = 0; bytes < 20000; bytes = bytes * 3 / 2 + 1) {
		uint8_t *at = sl_arena_alloc(&arena, bytes);

		assert_non_null(at);
		assert_int_equal((uintptr_t)at % 16, 0);
		memset(at, 1, bytes);
	}
	assert_null(sl_arena_alloc(&arena, 2 * SL_MIB));
	assert_null(sl_arena_alloc(&arena, SIZE_MAX - 3));
	sl_arena_fini(&arena);
	assert_int_equal(memory.used_bytes, 0);
	sl_memory_fini(&memory);
}

static void a_shrunk_allocation_gives_its_tail_to_the_next(void **state)
{
	struct sl_memory memory;
	struct sl_arena arena;
	uint8_t *first, *second;

	(void)state;
	assert_int_equal(sl_memory_init(&memory, SL_MIB), 0);
	sl_arena_init(&arena, &memory);
	first = sl_arena_alloc(&arena, 256);
	sl_arena_shrink(&arena, first, 256, 16);
	second = sl_arena_alloc(&arena, 16);
	assert_ptr_equal(second, first + 16);
	sl_arena_fini(&arena);
	sl_memory_fini(&memory);
}

static void pools_hand_out_distinct_objects(void **state)
{
	struct sl_memory memory;
	struct sl_pool pool;
	uint64_t *objects[1000];

	(void)state;
	assert_int_equal(sl_memory_init(&memory, SL_MIB), 0);
	sl_pool_init(&pool, &memory, 200);
	for (unsigned i = 0; i < SL_COUNT_OF(objects); i++) {
		objects[i] = sl_pool_take(&pool);
		assert_non_null(objects[i]);
		*objects[i] = i;
	}
	for (unsigned i = 0; i < SL_COUNT_OF(objects); i++) {
		assert_int_equal(*objects[i], i);
		sl_pool_give(&pool, objects[i]);
	}
	assert_int_equal(pool.used, 0);
	sl_pool_fini(&pool);
	assert_int_equal(memory.used_bytes, 0);
	sl_memory_fini(&memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(classes_waste_at_most_a_fifth),
		cmocka_unit_test(aging_gives_back_what_a_peak_left),
		cmocka_unit_test(the_budget_is_never_passed),
		cmocka_unit_test(a_steady_state_allocates_nothing),
		cmocka_unit_test(the_reserve_passes_the_budget),
		cmocka_unit_test(arenas_give_all_back),
		cmocka_unit_test(a_shrunk_allocation_gives_its_tail_to_the_next),
		cmocka_unit_test(pools_hand_out_distinct_objects),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
