// An outage's beginning and end are told as a pair, and pairs a minute apart.

#include "tests/unit/test.h"

#include "dataplane/base/outage.h"

static void test_told_as_pairs(void **state)
{
	static const struct {
		const char *why;
		uint64_t at_s;
		const char *cause; // something goes to disk
		bool over;         // nothing is left there
		bool begins, ends; // what is told
		uint32_t untold;
	} rows[] = {
		{"what goes to disk as a matter of course is none", 100, NULL, false, false, false,
		 0},
		{"nor is its end", 100, NULL, true, false, false, 0},
		{"the first is told at once", 101, "a", false, true, false, 0},
		{"once", 102, "b", false, false, false, 0},
		{"and its end", 103, NULL, true, false, true, 0},
		{"once", 104, NULL, true, false, false, 0},
		{"the next one is too soon", 110, "a", false, false, false, 0},
		{"and so is its end", 111, NULL, true, false, false, 1},
		{"another that goes on", 150, "a", false, false, false, 1},
		{"is told when the minute is over", 161, NULL, false, true, false, 1},
		{"with its end, though that is soon", 162, NULL, true, false, true, 0},
		{"a minute later all is new", 222, "a", false, true, false, 0},
	};
	struct sl_outage outage = {0};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		const uint64_t now_ns = rows[i].at_s * SL_S;

		if (!rows[i].over)
			sl_outage_more(&outage, rows[i].cause, 2, now_ns);
		if (sl_outage_tell(&outage, now_ns) != rows[i].begins ||
		    (rows[i].over && sl_outage_end(&outage) != rows[i].ends) ||
		    outage.untold != rows[i].untold)
			fail_msg("%s", rows[i].why);
	}
	assert_string_equal(outage.cause, "a");
	assert_int_equal(outage.began_ns, 222 * SL_S);
	assert_int_equal(outage.count, 2);
	sl_outage_more(&outage, "b", 3, 223 * SL_S);
	assert_string_equal(outage.cause, "a"); // what it began with
	assert_int_equal(outage.count, 5);
}

static void test_told_that_it_lasts(void **state)
{
	struct sl_outage outage = {0};

	(void)state;
	sl_outage_more(&outage, "a", 1, 100 * SL_S);
	assert_false(sl_outage_lasts(&outage, 200 * SL_S)); // its beginning comes first
	assert_true(sl_outage_tell(&outage, 200 * SL_S));
	assert_false(sl_outage_lasts(&outage, 259 * SL_S));
	assert_true(sl_outage_lasts(&outage, 260 * SL_S));
	assert_false(sl_outage_lasts(&outage, 261 * SL_S));
	assert_true(sl_outage_lasts(&outage, 320 * SL_S));
	assert_true(sl_outage_end(&outage));
	assert_false(sl_outage_lasts(&outage, 400 * SL_S));
	sl_outage_more(&outage, "a", 1, 370 * SL_S); // a minute from the last line, whatever it was
	assert_false(sl_outage_tell(&outage, 379 * SL_S));
	assert_true(sl_outage_tell(&outage, 380 * SL_S));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_told_as_pairs),
		cmocka_unit_test(test_told_that_it_lasts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
