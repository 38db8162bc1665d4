// An outage's beginning and end are told as a pair, and pairs a minute apart.

#include "tests/unit/test.h"

#include "routing/spool/outage.h"

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
	struct sl_spool_outage outage = {0};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		const uint64_t now_ns = rows[i].at_s * SL_S;

		if (!rows[i].over)
			sl_spool_outage_more(&outage, rows[i].cause, 2, now_ns);
		if (sl_spool_outage_tell(&outage, now_ns) != rows[i].begins ||
		    (rows[i].over && sl_spool_outage_end(&outage) != rows[i].ends) ||
		    outage.untold != rows[i].untold)
			fail_msg("%s", rows[i].why);
	}
	assert_string_equal(outage.cause, "a");
	assert_int_equal(outage.began_ns, 222 * SL_S);
	assert_int_equal(outage.items, 2);
	sl_spool_outage_more(&outage, "b", 3, 223 * SL_S);
	assert_string_equal(outage.cause, "a"); // what it began with
	assert_int_equal(outage.items, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_told_as_pairs)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
