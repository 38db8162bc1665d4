#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>

#include "dataplane/base/random.h"
#include "tenants/cardinality/distinct.h"

// A hash that is the same in every run (splitmix64's): bounds on an estimate hold nearly always,
// not always, and a test's verdict must not depend on what the process drew at its start.
static uint64_t value(uint64_t number)
{
	uint64_t hash = number * 0x9e3779b97f4a7c15;

	hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9;
	hash = (hash ^ hash >> 27) * 0x94d049bb133111eb;
	return hash ^ hash >> 31;
}

// The error over many sizes lies where 1.04 / sqrt(m) says it does: seldom beyond twice, never
// beyond five times of it.
static void test_estimate(void **state)
{
	static const unsigned bits[] = {SL_DISTINCT_NAME_BITS, SL_DISTINCT_HLL_BITS};
	static uint8_t registers[SL_HLL_BYTES(SL_DISTINCT_HLL_BITS)];

	(void)state;
	for (unsigned b = 0; b < SL_COUNT_OF(bits); b++) {
		const double error = 1.04 / sqrt((double)(1u << bits[b]));
		unsigned far = 0, looks = 0;
		double squares = 0;

		for (uint64_t round = 0; round < 40; round++) {
			uint64_t next = 10;

			memset(registers, 0, sizeof(registers));
			for (uint64_t i = 1; i <= 100000; i++) {
				const uint64_t hash = value(round << 32 | i);
				double off;

				sl_hll_add(registers, bits[b], hash);
				assert_false(sl_hll_add(registers, bits[b], hash));
				if (i != next)
					continue;
				next = next * 3 / 2;
				off = sl_hll_estimate(registers, bits[b]) / (double)i - 1;
				squares += off * off;
				looks++;
				far += fabs(off) > 2 * error;
				// Few values: one more or less is more than the error.
				assert_true(fabs(off) < 5 * error || i < 30);
			}
		}
		print_message("%u bits: %.2f %% of %.2f %%, %u of %u beyond twice that\n", bits[b],
			      100 * sqrt(squares / looks), 100 * error, far, looks);
		assert_true(sqrt(squares / looks) < 1.25 * error);
		assert_true(far < looks / 6);
	}
	memset(registers, 0, sizeof(registers));
	assert_true(sl_hll_estimate(registers, SL_DISTINCT_HLL_BITS) == 0);
}

// Random streams beside a plain list: what is known, what is new and what is over agree to the
// value, in every window.
static void test_exact(void **state)
{
	static const uint64_t limits[] = {1, 2, 63, 64, 1000, 10000};
	static uint8_t known[40000];

	(void)state;
	for (unsigned l = 0; l < SL_COUNT_OF(limits); l++) {
		struct sl_distinct *distinct = sl_distinct_create(limits[l], SL_S);
		struct sl_random random;

		sl_random_init(&random, l + 1);
		for (uint32_t window = 0; window < 70000; window += 23333) {
			const uint64_t values = SL_MIN(limits[l] * 3, sizeof(known));
			uint64_t admitted = 0, first = 0;

			memset(known, 0, sizeof(known));
			for (uint64_t i = 0; i < values * 4; i++) {
				const uint64_t number = sl_random_below(&random, values);
				const enum sl_seen want = known[number]          ? SL_SEEN_KNOWN
							  : admitted < limits[l] ? SL_SEEN_NEW
										 : SL_SEEN_OVER;

				assert_int_equal(sl_distinct_see(distinct, value(number), window),
						 want);
				known[number] |= want == SL_SEEN_NEW;
				first = want == SL_SEEN_NEW && !admitted ? number : first;
				admitted += want == SL_SEEN_NEW;
			}
			assert_int_equal(sl_distinct_count(distinct).admitted, admitted);
			assert_int_equal(sl_distinct_count(distinct).window, window);
			assert_true(sl_distinct_count(distinct).all >= (double)limits[l]);
			// What comes late, of the window before, belongs to this one.
			if (window)
				assert_int_equal(
					sl_distinct_see(distinct, value(first), window - 1),
					SL_SEEN_KNOWN);
		}
		sl_distinct_put(distinct);
	}
}

// Beyond the limit the sum is exact values and an estimate of the others.
static void test_all_that_came(void **state)
{
	struct sl_distinct *distinct = sl_distinct_create(5000, SL_S);

	(void)state;
	for (uint64_t i = 0; i < 105000; i++)
		sl_distinct_see(distinct, value(i % 52500), 7);
	assert_int_equal(sl_distinct_count(distinct).admitted, 5000);
	assert_true(fabs(sl_distinct_count(distinct).all / 52500 - 1) < 0.06);
	sl_distinct_see(distinct, value(1), 8);
	assert_int_equal(sl_distinct_count(distinct).admitted, 1);
	assert_true(sl_distinct_count(distinct).all < 2);
	sl_distinct_put(distinct);
}

#define THREADS 4
#define LIMIT   3000
#define VALUES  9000

struct worker {
	pthread_t thread;
	struct sl_distinct *distinct;
	uint64_t seed, admitted, was_over;
};

static void *work(void *argument)
{
	struct worker *worker = argument;
	struct sl_random random;

	sl_random_init(&random, worker->seed);
	for (unsigned i = 0; i < 60000; i++) {
		const uint64_t hash = value(sl_random_below(&random, VALUES));
		const enum sl_seen seen = sl_distinct_see(worker->distinct, hash, 3);

		worker->admitted += seen == SL_SEEN_NEW;
		worker->was_over += seen == SL_SEEN_OVER;
		// What passed once passes from now on, on every thread.
		if (seen == SL_SEEN_NEW)
			assert_int_equal(sl_distinct_see(worker->distinct, hash, 3), SL_SEEN_KNOWN);
		if (seen == SL_SEEN_OVER)
			sl_distinct_note(worker->distinct, 3, hash, SL_LITERAL("n"),
					 SL_LITERAL("v"));
	}
	return NULL;
}

// Each value counts once, whoever sees it, and together they admit the limit and no more.
static void test_threads(void **state)
{
	struct sl_distinct *distinct = sl_distinct_create(LIMIT, SL_S);
	struct worker workers[THREADS];
	uint64_t admitted = 0, known = 0;
	struct sl_distinct_notes notes;

	(void)state;
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){.distinct = distinct, .seed = i + 1};
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(workers[i].thread, NULL);
		admitted += workers[i].admitted;
		assert_true(workers[i].was_over > 0);
	}
	assert_int_equal(admitted, LIMIT);
	assert_int_equal(sl_distinct_count(distinct).admitted, LIMIT);
	for (uint64_t i = 0; i < VALUES; i++)
		known += sl_distinct_see(distinct, value(i), 3) == SL_SEEN_KNOWN;
	assert_int_equal(known, LIMIT);
	assert_true(sl_distinct_notes(distinct, &notes));
	assert_int_equal(notes.name_count, 1);
	assert_true(notes.sample_count > 0);
	sl_distinct_put(distinct);
}

// The heavy ones stay on the list, whatever crowd of light ones passes by.
static void test_names(void **state)
{
	struct sl_distinct *distinct = sl_distinct_create(10, SL_S);
	struct sl_distinct_notes notes;
	char name[128];
	unsigned found = 0;

	(void)state;
	for (uint64_t i = 0; i < 5000; i++) {
		const int heavy = snprintf(name, sizeof(name), "heavy%u", (unsigned)(i % 3));

		sl_distinct_note(distinct, 1, value(i), sl_bytes(name, (size_t)heavy),
				 SL_BYTES_NONE);
		if (i % 8)
			continue;
		const int light = snprintf(name, sizeof(name), "light%u %090u", (unsigned)i, 7u);

		sl_distinct_note(distinct, 1, value(i << 32), sl_bytes(name, (size_t)light),
				 sl_bytes(name, (size_t)light));
	}
	assert_true(sl_distinct_notes(distinct, &notes));
	assert_int_equal(notes.name_count, SL_DISTINCT_NAMES);
	for (uint32_t i = 0; i < notes.name_count; i++) {
		const struct sl_distinct_name *one = &notes.names[i];
		const double estimate = sl_hll_estimate(one->registers, SL_DISTINCT_NAME_BITS);

		if (memcmp(one->name.text, "heavy", 5) == 0) {
			assert_int_equal(one->name.bytes, 6);
			assert_true(fabs(estimate / (5000.0 / 3) - 1) < 0.5);
			found++;
		} else {
			assert_int_equal(one->name.bytes, SL_DISTINCT_TEXT_MAX); // its beginning
		}
	}
	assert_int_equal(found, 3);
	sl_distinct_note(distinct, 2, value(1), SL_LITERAL("other"), SL_LITERAL("v"));
	assert_true(sl_distinct_notes(distinct, &notes));
	assert_int_equal(notes.name_count, 1); // a window's own
	assert_true(sl_distinct_tell(distinct, 2) && !sl_distinct_tell(distinct, 2));
	assert_true(sl_distinct_tell(distinct, 3));
	sl_distinct_put(distinct);
}

// What is refused again and again is listed once, and pushes nobody off the list.
static void test_samples(void **state)
{
	struct sl_distinct *distinct = sl_distinct_create(10, SL_S);
	struct sl_distinct_notes notes;
	uint8_t text[200];

	(void)state;
	memset(text, 'x', sizeof(text));
	sl_distinct_note(distinct, 1, value(1), SL_BYTES_NONE, SL_LITERAL("first"));
	for (uint64_t i = 0; i < 100; i++) {
		sl_distinct_note(distinct, 1, value(2), SL_BYTES_NONE, SL_LITERAL("again"));
		sl_distinct_note(distinct, 1, value(3 + i), SL_BYTES_NONE,
				 sl_bytes(text, sizeof(text) - i)); // as told all the same
	}
	assert_true(sl_distinct_notes(distinct, &notes));
	assert_int_equal(notes.sample_count, 3);
	assert_memory_equal(notes.samples[0].text, "first", 5);
	assert_memory_equal(notes.samples[1].text, "again", 5);
	// The newest is the last, also where the ring has begun anew.
	for (uint64_t i = 0; i < 12; i++) {
		const uint8_t letter = (uint8_t)('a' + i);

		sl_distinct_note(distinct, 1, value(i), SL_BYTES_NONE, sl_bytes(&letter, 1));
	}
	sl_distinct_note(distinct, 1, value(1), SL_BYTES_NONE, SL_LITERAL("f"));
	assert_true(sl_distinct_notes(distinct, &notes));
	assert_int_equal(notes.sample_count, 15);
	for (unsigned i = 0; i < SL_DISTINCT_SAMPLES; i++)
		assert_int_equal(notes.samples[(15 - 8 + i) % SL_DISTINCT_SAMPLES].text[0],
				 "eghijklf"[i]);
	sl_distinct_put(distinct);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_estimate),      cmocka_unit_test(test_exact),
		cmocka_unit_test(test_all_that_came), cmocka_unit_test(test_threads),
		cmocka_unit_test(test_names),         cmocka_unit_test(test_samples),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
