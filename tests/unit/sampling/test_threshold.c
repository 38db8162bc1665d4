#include "sampling/threshold.h"
#include "tests/unit/test.h"

#include <math.h>

static const char *text_of(uint64_t threshold)
{
	static char text[SL_THRESHOLD_DIGITS + 1];

	text[sl_threshold_format(threshold, (uint8_t *)text)] = '\0';
	return text;
}

static void test_of_probability(void **state)
{
	static const struct {
		const char *why;
		double probability;
		unsigned precision;
		const char *want;
	} rows[] = {
		{"all", 1, 4, "0"},
		{"a half needs one digit", 0.5, 4, "8"},
		{"1 in 3", 1.0 / 3, 4, "aaab"},
		{"1 in 5", 0.2, 4, "cccd"},
		{"1 in 10", 0.1, 4, "e666"},
		{"1 in 100: a digit more for the leading f", 0.01, 4, "fd70a"},
		{"1 in 1000: two digits more", 0.001, 4, "ffbe77"},
		{"56 %", 0.56, 4, "70a4"},
		{"56.9 %", 0.569, 4, "6e56"},
		{"one digit", 0.1, 1, "e"},
		{"near 1 the leading zeros do not count either", 0.999, 4, "004189"},
		{"the smallest probability", 0x1p-56, 4, "ffffffffffffff"},
		{"full precision is exact", 0.75, 14, "4"},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		const uint64_t got = sl_threshold_of(rows[i].probability, rows[i].precision);

		if (strcmp(text_of(got), rows[i].want) != 0)
			fail_msg("%s: %s, not %s", rows[i].why, text_of(got), rows[i].want);
	}
	assert_int_equal(sl_threshold_of(0, 4), SL_THRESHOLD_NEVER);
	assert_int_equal(sl_threshold_of(0x1p-57, 4), SL_THRESHOLD_NEVER);
	assert_int_equal(sl_threshold_of(-1, 4), SL_THRESHOLD_NEVER);
	assert_int_equal(sl_threshold_of(NAN, 4), SL_THRESHOLD_NEVER);
}

static void test_parse(void **state)
{
	static const struct {
		const char *why, *text;
		bool want;
		uint64_t threshold;
	} rows[] = {
		{"zeros follow", "c", true, 0xc0000000000000},
		{"zero", "0", true, 0},
		{"fourteen digits", "ffffffffffffff", true, 0xffffffffffffff},
		{"trailing zeros may be written", "8000", true, 0x80000000000000},
		{"none", "", false, 0},
		{"fifteen digits", "000000000000000", false, 0},
		{"upper case", "C", false, 0},
		{"no hex", "g", false, 0},
		{"a sign", "-1", false, 0},
	};
	uint64_t randomness;

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		uint64_t threshold = 0;
		const bool got = sl_threshold_parse(sl_bytes_of(rows[i].text), &threshold);

		if (got != rows[i].want || (got && threshold != rows[i].threshold))
			fail_msg("%s", rows[i].why);
	}
	assert_true(sl_randomness_parse(SL_LITERAL("6e6d1a75832a2f"), &randomness));
	assert_int_equal(randomness, 0x6e6d1a75832a2f);
	assert_false(sl_randomness_parse(SL_LITERAL("6e6d1a75832a2"), &randomness));
}

// The spec's worked examples: keep iff randomness >= threshold, adjusted count 1 / p.
static void test_decisions(void **state)
{
	static const struct {
		const char *why;
		uint64_t randomness;
		const char *threshold;
		bool keep;
		double adjusted;
	} rows[] = {
		{"1: above", 0xce929d0e0e4736, "c", true, 4},
		{"2: below", 0xce929d0e0e4736, "d", false, 16.0 / 3},
		{"3: equal", 0xc0000000000000, "c", true, 4},
		{"4: one below", 0xbfffffffffffff, "c", false, 4},
		{"5: below", 0x69b633813fc60c, "8", false, 2},
		{"5: above", 0x69b633813fc60c, "6", true, 1.6},
		{"6: p .56", 0x6e6d1a75832a2f, "70a4", false, 1 / 0.56},
		{"6: p .569", 0x6e6d1a75832a2f, "6e56", true, 1 / 0.569},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		uint64_t threshold;
		double adjusted;

		assert_true(sl_threshold_parse(sl_bytes_of(rows[i].threshold), &threshold));
		adjusted = 1 / sl_threshold_probability(threshold);
		if ((rows[i].randomness >= threshold) != rows[i].keep ||
		    fabs(adjusted - rows[i].adjusted) > 1e-3)
			fail_msg("%s: adjusted count %f", rows[i].why, adjusted);
	}
}

// What is written reads back as the same, and rounding keeps the relative error within half a
// digit.
static void test_round_trip(void **state)
{
	(void)state;
	for (unsigned precision = 1; precision <= SL_THRESHOLD_DIGITS; precision++) {
		for (double p = 0.9999; p > 1e-15; p *= 0.71) {
			const uint64_t threshold = sl_threshold_of(p, precision);
			const double got = sl_threshold_probability(threshold);
			uint64_t back = 1;

			if (threshold == SL_THRESHOLD_NEVER) // one digit may round up to never
				continue;
			assert_true(sl_threshold_parse(sl_bytes_of(text_of(threshold)), &back));
			assert_int_equal(back, threshold);
			if (precision >= 3 &&
			    fabs(got / p - 1) > pow(16, 2 - (int)precision) + 0x1p-56 / p)
				fail_msg("p %g at precision %u became %g", p, precision, got);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_of_probability),
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_decisions),
		cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
