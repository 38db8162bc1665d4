#include "sampling/sampler.h"
#include "tests/unit/test.h"

#include <math.h>

#include "dataplane/base/random.h"
#include "sampling/hash_seed.h"

static uint64_t threshold_of(const char *text)
{
	uint64_t threshold;

	assert_true(sl_threshold_parse(sl_bytes_of(text), &threshold));
	return threshold;
}

static void unhex(const char *text, uint8_t bytes[16])
{
	uint64_t half;

	for (unsigned i = 0; i < 16; i++) {
		assert_true(sl_threshold_parse(sl_bytes(text + 2 * i, 2), &half));
		bytes[i] = (uint8_t)(half >> 48);
	}
}

static void test_hash_vectors(void **unused)
{
	static const struct {
		const char *why, *id;
		uint32_t seed;
		double rate;
		uint32_t hash, scaled;
		uint64_t randomness; // 0: drop
		const char *threshold;
	} rows[] = {
		{"15 %", "4bf92f3577b34da6a3ce929d0e0e4736", 0, 0.15, 0x3420408d, 2457,
		 0xfdc80d0b42008d, "d99c"},
		{"another seed", "4bf92f3577b34da6a3ce929d0e0e4736", 22, 0.15, 0x5610306b, 2457, 0,
		 NULL},
		{"half", "5b8efff798038103d269b633813fc60c", 0, 0.5, 0x245dd6df, 8192,
		 0xa480091545d6df, "8"},
		{"10 %", "0123456789abcdef0123456789abcdef", 0, 0.1, 0x3944a215, 1638, 0, NULL},
		{"25 %", "000102030405060708090a0b0c0d0e0f", 0, 0.25, 0x1995bd65, 4096, 0, NULL},
		{"an attribute, 10 %", NULL, 0, 0.1, 0xc1038a9c, 1638, 0, NULL},
		{"an attribute, 25 %", NULL, 0, 0.25, 0xc1038a9c, 4096, 0xd58c304c100a9c, "c"},
	};

	(void)unused;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_sample sample = {.hashed = SL_LITERAL("pod-7")};
		struct sl_sampler sampler;
		enum sl_verdict verdict;
		uint8_t id[16];

		if (rows[i].id) {
			unhex(rows[i].id, id);
			sample.hashed = sl_bytes(id, sizeof(id));
		}
		sl_sampler_init(&sampler, SL_SAMPLING_HASH_SEED, rows[i].rate, 4, rows[i].seed,
				true);
		if (sl_hash_seed_of(rows[i].seed, sample.hashed) != rows[i].hash ||
		    sampler.scaled != rows[i].scaled)
			fail_msg("%s: hash or scale", rows[i].why);
		verdict = sl_sampler_decide(&sampler, &sample);
		if (verdict != (rows[i].randomness ? SL_VERDICT_REWRITE : SL_VERDICT_DROP))
			fail_msg("%s: verdict %d", rows[i].why, verdict);
		if (rows[i].randomness && (sample.randomness != rows[i].randomness ||
					   sample.threshold != threshold_of(rows[i].threshold)))
			fail_msg("%s: wrote %lx %lx", rows[i].why, sample.randomness,
				 sample.threshold);
	}
	assert_int_equal(sl_hash_seed_scaled(0.01), 163);
	assert_int_equal(sl_hash_seed_scaled(0.33), 5406);
	assert_int_equal(sl_hash_seed_scaled(0.001), 16);
	assert_int_equal(sl_hash_seed_threshold(163), threshold_of("fd74"));
	assert_int_equal(sl_hash_seed_threshold(5406), threshold_of("ab88"));
	assert_int_equal(sl_hash_seed_threshold(16), threshold_of("ffc"));
}

static void test_consistent(void **unused)
{
	static const struct {
		const char *why;
		enum sl_sampling_mode mode;
		double rate;
		const char *threshold; // NULL: none
		uint64_t randomness;
		enum sl_verdict verdict;
		const char *want; // NULL: erased
	} rows[] = {
		{"c x 0.5", SL_SAMPLING_PROPORTIONAL, 0.5, "c", SL_RANDOMNESS_MASK,
		 SL_VERDICT_REWRITE, "e"},
		{"8 x 0.25", SL_SAMPLING_PROPORTIONAL, 0.25, "8", SL_RANDOMNESS_MASK,
		 SL_VERDICT_REWRITE, "e"},
		{"fd70a x 0.1", SL_SAMPLING_PROPORTIONAL, 0.1, "fd70a", SL_RANDOMNESS_MASK,
		 SL_VERDICT_REWRITE, "ffbe76"},
		{"e666 x 0.33", SL_SAMPLING_PROPORTIONAL, 0.33, "e666", SL_RANDOMNESS_MASK,
		 SL_VERDICT_REWRITE, "f78d3"},
		{"8 x 0.25, randomness below e", SL_SAMPLING_PROPORTIONAL, 0.25, "8",
		 0xce929d0e0e4736, SL_VERDICT_DROP, NULL},
		{"56 %, at the border", SL_SAMPLING_PROPORTIONAL, 0.56, NULL, 0x70a40000000000,
		 SL_VERDICT_REWRITE, "70a4"},
		{"56 %, one below", SL_SAMPLING_PROPORTIONAL, 0.56, NULL, 0x70a3ffffffffff,
		 SL_VERDICT_DROP, NULL},
		{"56 % of the specification's rv", SL_SAMPLING_PROPORTIONAL, 0.56, NULL,
		 0x6e6d1a75832a2f, SL_VERDICT_DROP, NULL},
		{"56.9 %", SL_SAMPLING_PROPORTIONAL, 0.569, NULL, 0x6e6d1a75832a2f,
		 SL_VERDICT_REWRITE, "6e56"},
		{"equalizing raises c", SL_SAMPLING_EQUALIZING, 0.1, "c", 0xf0000000000000,
		 SL_VERDICT_REWRITE, "e666"},
		{"equalizing raises c, not enough randomness", SL_SAMPLING_EQUALIZING, 0.1, "c",
		 0xe665ffffffffff, SL_VERDICT_DROP, NULL},
		{"equalizing lets what is rarer pass", SL_SAMPLING_EQUALIZING, 0.1, "fd70a",
		 SL_RANDOMNESS_MASK, SL_VERDICT_KEEP, "fd70a"},
		{"equalizing lets the equal pass", SL_SAMPLING_EQUALIZING, 0.1, "e666",
		 SL_RANDOMNESS_MASK, SL_VERDICT_KEEP, "e666"},
		{"below its own threshold: th goes", SL_SAMPLING_EQUALIZING, 0.5, "fd70a",
		 0xc0000000000000, SL_VERDICT_REWRITE, NULL},
		{"below its own and ours", SL_SAMPLING_PROPORTIONAL, 0.1, "fd70a", 0xc0000000000000,
		 SL_VERDICT_DROP, NULL},
		{"below the smallest probability", SL_SAMPLING_PROPORTIONAL, 0.1, "ffffffffffffff",
		 SL_RANDOMNESS_MASK, SL_VERDICT_DROP, NULL},
		{"0 %", SL_SAMPLING_EQUALIZING, 0, NULL, SL_RANDOMNESS_MASK, SL_VERDICT_DROP, NULL},
		{"100 %", SL_SAMPLING_EQUALIZING, 1, "8", 0, SL_VERDICT_KEEP, "8"},
	};

	(void)unused;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_sample sample = {.has_randomness = true,
					   .randomness = rows[i].randomness,
					   .has_threshold = rows[i].threshold != NULL};
		struct sl_sampler sampler;

		if (rows[i].threshold)
			sample.threshold = threshold_of(rows[i].threshold);
		sl_sampler_init(&sampler, rows[i].mode, rows[i].rate, 4, 0, true);
		if (sl_sampler_decide(&sampler, &sample) != rows[i].verdict)
			fail_msg("%s: verdict", rows[i].why);
		if (rows[i].verdict == SL_VERDICT_DROP)
			continue;
		if (sample.has_threshold != (rows[i].want != NULL) ||
		    (rows[i].want && sample.threshold != threshold_of(rows[i].want)))
			fail_msg("%s: wrote %lx", rows[i].why, sample.threshold);
		assert_int_equal(sample.randomness, rows[i].randomness);
	}
}

static void test_nothing_to_decide_by(void **unused)
{
	static const struct {
		const char *why;
		enum sl_sampling_mode mode;
		bool fail_closed, has_threshold;
		enum sl_verdict verdict;
		enum sl_sample_note note;
	} rows[] = {
		{"kept", SL_SAMPLING_PROPORTIONAL, true, false, SL_VERDICT_KEEP,
		 SL_SAMPLE_NO_RANDOMNESS},
		{"the Collector's hash drops", SL_SAMPLING_HASH_SEED, true, false, SL_VERDICT_DROP,
		 SL_SAMPLE_NO_RANDOMNESS},
		{"unless told", SL_SAMPLING_HASH_SEED, false, false, SL_VERDICT_KEEP,
		 SL_SAMPLE_NO_RANDOMNESS},
		{"sampled before, then hashed", SL_SAMPLING_HASH_SEED, true, true, SL_VERDICT_DROP,
		 SL_SAMPLE_INCONSISTENT},
	};

	(void)unused;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_sample sample = {.has_threshold = rows[i].has_threshold};
		struct sl_sampler sampler;

		sl_sampler_init(&sampler, rows[i].mode, 0.1, 4, 0, rows[i].fail_closed);
		if (sl_sampler_decide(&sampler, &sample) != rows[i].verdict ||
		    sample.note != rows[i].note)
			fail_msg("%s", rows[i].why);
	}
}

#define ITEMS 200000

// Over uniform randomness: the kept share is the rate, adjusted counts add up to what came, and a
// second stage at the same equalizing rate changes nothing.
static void test_properties(void **unused)
{
	static const double rates[] = {0.9, 0.5, 0.33, 0.1, 0.01};
	struct sl_random random;

	(void)unused;
	sl_random_init(&random, 7);
	for (size_t r = 0; r < SL_COUNT_OF(rates); r++) {
		struct sl_sampler half, own;
		double adjusted = 0, twice = 0;
		uint32_t kept = 0;

		sl_sampler_init(&half, SL_SAMPLING_PROPORTIONAL, 0.5, 4, 0, true);
		sl_sampler_init(&own, SL_SAMPLING_EQUALIZING, rates[r], 4, 0, true);
		for (uint32_t i = 0; i < ITEMS; i++) {
			struct sl_sample sample = {.has_id = true,
						   .id_low = sl_random_next(&random)};
			struct sl_sample other = sample;

			if (sl_sampler_decide(&own, &sample) == SL_VERDICT_DROP)
				continue;
			kept++;
			adjusted += 1 / sl_threshold_probability(sample.threshold);
			assert_int_equal(sl_sampler_decide(&own, &sample), SL_VERDICT_KEEP);
			if (sl_sampler_decide(&half, &sample) == SL_VERDICT_DROP)
				continue;
			twice += 1 / sl_threshold_probability(sample.threshold);
			// Consistency: whoever passes the lower probability passes the higher.
			if (rates[r] < 0.5)
				assert_int_equal(sl_sampler_decide(&half, &other),
						 SL_VERDICT_REWRITE);
		}
		// Five standard deviations of a binomial.
		if (fabs(kept - rates[r] * ITEMS) >
		    5 * sqrt(ITEMS * rates[r] * (1 - rates[r])) + ITEMS * 1e-4)
			fail_msg("rate %g kept %u", rates[r], kept);
		if (fabs(adjusted / ITEMS - 1) > 5 * sqrt((1 - rates[r]) / rates[r] / ITEMS) ||
		    fabs(twice / ITEMS - 1) > 5 * sqrt(2 / rates[r] / ITEMS))
			fail_msg("rate %g counts %g, %g", rates[r], adjusted, twice);
	}
}

// The hash's written-back state says of itself what the hash decided.
static void test_hash_is_consistent(void **unused)
{
	struct sl_random random;

	(void)unused;
	sl_random_init(&random, 9);
	for (uint32_t i = 0; i < 20000; i++) {
		const uint64_t id[2] = {sl_random_next(&random), sl_random_next(&random)};
		const uint32_t scaled = (uint32_t)sl_random_below(&random, 0x4000) + 1;
		const uint32_t hash = sl_hash_seed_of(0, sl_bytes(id, sizeof(id)));

		assert_int_equal((hash & 0x3fff) < scaled,
				 sl_hash_seed_randomness(hash) >= sl_hash_seed_threshold(scaled));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hash_vectors),         cmocka_unit_test(test_consistent),
		cmocka_unit_test(test_nothing_to_decide_by), cmocka_unit_test(test_properties),
		cmocka_unit_test(test_hash_is_consistent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
