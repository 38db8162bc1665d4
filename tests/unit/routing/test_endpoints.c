#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/base/random.h"
#include "routing/failover.h"
#include "routing/health.h"
#include "routing/outlier.h"

// Who is left out, by their errors, by checks, and by groups: rows that say why, and runs of chance
// against what must always hold.

static const struct sl_outlier_config outliers = {
	.interval_ns = 10 * SL_S,
	.calls_min = 10,
	.wait_ns = 30 * SL_S,
	.wait_max_ns = 300 * SL_S,
	.error_rate = 0.3,
	.share_max = 0.5,
};

static void test_who_stands_out(void **state)
{
	static const struct {
		const char *why;
		uint32_t ended[4], failed[4];
		unsigned out; // a bit each
	} rows[] = {
		{"all well", {100, 100, 100, 100}, {0, 0, 0, 0}, 0},
		{"one fails always", {100, 100, 100, 100}, {0, 100, 0, 0}, 2},
		{"all fail alike: nobody stands out", {100, 100, 100, 100}, {90, 90, 90, 90}, 0},
		{"below the difference", {100, 100, 100, 100}, {29, 0, 0, 0}, 0},
		{"at the difference", {100, 100, 100, 100}, {30, 0, 0, 0}, 1},
		{"too few calls to say", {9, 100, 100, 100}, {9, 0, 0, 0}, 0},
		{"two of four are the most", {100, 100, 100, 100}, {100, 0, 100, 0}, 5},
		{"the worst go first", {100, 100, 1000, 100}, {90, 80, 0, 70}, 3},
		{"nobody to compare with", {100, 0, 0, 0}, {100, 0, 0, 0}, 0},
	};

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_outlier all[4] = {0}, *list[4];
		unsigned out = 0;

		for (unsigned j = 0; j < 4; j++) {
			all[j].ended = rows[i].ended[j];
			all[j].failed = rows[i].failed[j];
			list[j] = &all[j];
		}
		sl_outliers_judge(list, 4, &outliers, 1000 * SL_S);
		for (unsigned j = 0; j < 4; j++) {
			out |= (unsigned)sl_outlier_is_out(&all[j], 1000 * SL_S) << j;
			assert_int_equal(all[j].ended, 0); // the next interval begins
		}
		if (out != rows[i].out)
			fail_msg("%s: %x", rows[i].why, out);
	}
}

static void test_the_wait_doubles_and_is_forgotten(void **state)
{
	static const uint64_t want_s[] = {30, 60, 120, 240, 300, 300};
	struct sl_outlier bad = {0}, good = {0}, *list[] = {&bad, &good};
	uint64_t now_ns = 1000 * SL_S;

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(want_s); i++) {
		bad.ended = bad.failed = good.ended = 50;
		good.failed = 0;
		assert_int_equal(sl_outliers_judge(list, 2, &outliers, now_ns), 1);
		assert_int_equal(bad.until_ns - now_ns, want_s[i] * SL_S);
		now_ns = bad.until_ns;
		assert_false(sl_outlier_is_out(&bad, now_ns));
	}
	for (unsigned i = 0; i < 6; i++) { // six intervals without a failure
		bad.ended = good.ended = 50;
		sl_outliers_judge(list, 2, &outliers, now_ns += 10 * SL_S);
	}
	bad.ended = bad.failed = good.ended = 50;
	assert_int_equal(sl_outliers_judge(list, 2, &outliers, now_ns), 1);
	assert_int_equal(bad.until_ns - now_ns, 30 * SL_S);
}

// Never more than the share; who is out failed more than each one who could be and stays.
static void test_outliers_by_chance(void **state)
{
	struct sl_random random;

	(void)state;
	sl_random_init(&random, 5);
	for (unsigned run = 0; run < 300; run++) {
		struct sl_outlier all[20] = {0}, *list[20];
		const uint32_t count = 1 + (uint32_t)sl_random_below(&random, 20);
		uint64_t now_ns = 1000 * SL_S;

		for (uint32_t i = 0; i < count; i++)
			list[i] = &all[i];
		for (unsigned turn = 0; turn < 20; turn++) {
			struct sl_outlier before[20];
			uint32_t out = 0;

			for (uint32_t i = 0; i < count; i++) {
				all[i].ended = (uint32_t)sl_random_below(&random, 100);
				all[i].failed = (uint32_t)sl_random_below(&random,
									  all[i].ended + 1);
			}
			memcpy(before, all, sizeof(all));
			sl_outliers_judge(list, count, &outliers, now_ns);
			for (uint32_t i = 0; i < count; i++) {
				const bool new = all[i].until_ns != before[i].until_ns;

				out += sl_outlier_is_out(&all[i], now_ns);
				if (!new)
					continue;
				assert_true(before[i].ended >= outliers.calls_min);
				assert_true(before[i].failed >= 0.3 * before[i].ended);
				assert_true(all[i].until_ns - now_ns <= outliers.wait_max_ns);
			}
			assert_true(out <= count / 2);
			now_ns += sl_random_below(&random, 40 * SL_S);
		}
	}
}

static void test_checks(void **state)
{
	static const struct sl_health_config config = {.up = 2, .down = 3};
	static const struct {
		const char *why;
		const char *results; // + success, - failure
		bool down;
	} rows[] = {
		{"healthy before anything is known", "", false},
		{"two failures are not three", "--", false},
		{"three are", "---", true},
		{"only in a row", "--+--", false},
		{"one success is not two", "---+", true},
		{"two are", "---++", false},
		{"only in a row", "---+-+", true},
		{"and down again", "---++---", true},
	};

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_health_state health = {0};

		for (const char *at = rows[i].results; *at; at++) {
			const bool was = health.down;
			const bool changed = sl_health_note(&health, &config, *at == '+');

			assert_int_equal(changed, was != health.down);
		}
		if (health.down != rows[i].down)
			fail_msg("%s: \"%s\"", rows[i].why, rows[i].results);
	}
}

// --- failover ------------------------------------------------------------------------------------

static const struct sl_failover_config group = {.after_ns = 2 * SL_S, .return_after_ns = 30 * SL_S};

static void test_a_group(void **state)
{
	enum { GOOD, FAILS, AWAY, SPOOLS }; // spools: is away, and has a spool
	// What holds at a time of the members a, b, c, and who is to be in use then.
	static const struct {
		const char *why;
		uint64_t at_ms;
		int is[3];
		uint32_t want;
	} rows[] = {
		{"the first at first", 1000, {GOOD, GOOD, GOOD}, 0},
		{"it begins to fail", 2000, {FAILS, GOOD, GOOD}, 0},
		{"not yet for long enough", 3900, {FAILS, GOOD, GOOD}, 0},
		{"the next", 4000, {FAILS, GOOD, GOOD}, 1},
		{"that one is not to be had: at once", 4100, {AWAY, AWAY, GOOD}, 2},
		{"the better one is back, but not for long", 10000, {AWAY, GOOD, GOOD}, 2},
		{"it was away meanwhile: its time begins anew", 30000, {AWAY, AWAY, GOOD}, 2},
		{"and now", 31000, {AWAY, GOOD, GOOD}, 2},
		{"not for twice 30 s yet: it had failed soon after it was taken",
		 90900,
		 {AWAY, GOOD, GOOD},
		 2},
		{"but now", 91000, {AWAY, GOOD, GOOD}, 1},
		{"the first can be tried again", 100000, {GOOD, GOOD, GOOD}, 1},
		{"it had relapsed, too: twice 30 s", 159900, {GOOD, GOOD, GOOD}, 1},
		{"it is used", 160000, {GOOD, GOOD, GOOD}, 0},
		{"all are away: it may as well stay", 161000, {AWAY, AWAY, AWAY}, 0},
		{"the last comes first", 162000, {AWAY, AWAY, GOOD}, 2},
		{"it goes, too, and one has a disk", 163000, {AWAY, SPOOLS, AWAY}, 1},
		{"who has a disk in use stays", 164000, {SPOOLS, SPOOLS, AWAY}, 1},
		{"until somebody can deliver", 165000, {AWAY, SPOOLS, GOOD}, 2},
	};
	struct sl_failover_choice choice = {.count = 3};
	uint64_t failing_since_ns[3] = {0};

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		const uint64_t now_ns = rows[i].at_ms * SL_MS;
		struct sl_failover_member members[3];

		for (unsigned j = 0; j < 3; j++) {
			if (rows[i].is[j] != FAILS)
				failing_since_ns[j] = 0;
			else if (!failing_since_ns[j])
				failing_since_ns[j] = now_ns;
			members[j] = (struct sl_failover_member){
				.available = rows[i].is[j] < AWAY,
				.spools = rows[i].is[j] == SPOOLS,
				.failing_since_ns = failing_since_ns[j],
			};
		}
		sl_failover_choose(&choice, &group, members, now_ns);
		if (choice.current != rows[i].want)
			fail_msg("%s: %u", rows[i].why, choice.current);
	}
}

// Whatever happens: none that is away is gone over to; one that is away is left if any is there;
// and it goes back no sooner than it may.
static void test_groups_by_chance(void **state)
{
	struct sl_random random;

	(void)state;
	sl_random_init(&random, 9);
	for (unsigned run = 0; run < 500; run++) {
		const uint32_t count = 2 + (uint32_t)sl_random_below(&random, 7);
		struct sl_failover_choice choice = {.count = count};
		struct sl_failover_member members[SL_FAILOVER_MAX] = {0};
		uint64_t good_since_ns[SL_FAILOVER_MAX] = {0}, now_ns = 1000 * SL_S;

		for (unsigned step = 0; step < 200; step++) {
			const uint32_t was = choice.current;
			bool any = false, bad;

			for (uint32_t i = 0; i < count; i++) {
				if (sl_random_below(&random, 10) == 0)
					members[i].available = !members[i].available;
				if (sl_random_below(&random, 10) == 0)
					members[i].failing_since_ns = members[i].failing_since_ns
									      ? 0
									      : now_ns;
				if (!members[i].available || i == was)
					good_since_ns[i] = 0;
				else if (!good_since_ns[i])
					good_since_ns[i] = now_ns;
				any |= members[i].available;
			}
			bad = !members[was].available || members[was].failing_since_ns;
			sl_failover_choose(&choice, &group, members, now_ns);
			assert_true(choice.current < count);
			if (any)
				assert_true(members[choice.current].available);
			if (choice.current != was && !bad) {
				assert_true(choice.current < was);
				assert_true(now_ns - good_since_ns[choice.current] >=
					    group.return_after_ns);
			}
			// Nothing moves twice at one time: records would go round.
			if (choice.used_since_ns == now_ns)
				assert_false(sl_failover_choose(&choice, &group, members, now_ns));
			now_ns += 1 + sl_random_below(&random, 20 * SL_S);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_stands_out),
		cmocka_unit_test(test_the_wait_doubles_and_is_forgotten),
		cmocka_unit_test(test_outliers_by_chance),
		cmocka_unit_test(test_checks),
		cmocka_unit_test(test_a_group),
		cmocka_unit_test(test_groups_by_chance),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
