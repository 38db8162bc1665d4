#include "tests/unit/tenants/fixture.h"

#include <errno.h>
#include <unistd.h>

#include "dataplane/base/random.h"
#include "tenants/volume_file.h"

// Volumes of an instance by itself: periods, marks, how far beyond them, and the file.

#define START (1000 * SL_S)
#define DAY_S UINT64_C(86400)
#define NOON  ((20000 * DAY_S + DAY_S / 2) * SL_S) // of 2024-10-04

static struct sl_tenants *make_with(struct sl_quota_config quota, const struct sl_tenants *before)
{
	struct sl_tenant_config tenant = {.name = "t", .class_name = "c"};
	struct sl_class_config class = {.name = "c", .priority = 1, .quota = quota};
	const struct sl_tenants_module_config config = {
		.tenants = {.inline_ = {.classes = {&class, 1}, .tenants = {&tenant, 1}},
			    .unknown = "t"},
		.quotas = {.volume_file = "somewhere"}};

	return make_tenants(&config, before);
}

static struct sl_tenants *make(struct sl_volume_config volume, const struct sl_tenants *before)
{
	return make_with((struct sl_quota_config){.burst_ns = SL_S, .volume = volume}, before);
}

static void tick(struct sl_tenants *tenants, uint64_t now_ns, uint64_t wall_ns)
{
	sl_tenants_tick(tenants, now_ns);
	sl_tenants_tick_volumes(tenants, now_ns, wall_ns);
}

static int64_t used(const struct sl_tenants *tenants, enum sl_dimension dimension)
{
	int64_t all[SL_DIMENSION_RATES];

	sl_volume_used(tenants->entries[0].pool->volume, all);
	return all[dimension];
}

static void test_periods(void **state)
{
	static const struct {
		const char *why;
		uint32_t per;
		uint64_t wall_s, begin_s, end_s;
	} rows[] = {
		{"the first second of a day", SL_VOLUME_DAY, DAY_S * 5, DAY_S * 5, DAY_S * 6},
		{"its last", SL_VOLUME_DAY, DAY_S * 6 - 1, DAY_S * 5, DAY_S * 6},
		{"January 1970", SL_VOLUME_MONTH, 0, 0, 31 * DAY_S},
		{"February 2024 has 29 days", SL_VOLUME_MONTH, 1707955200, 1706745600, 1709251200},
		{"and its last second is its own", SL_VOLUME_MONTH, 1709251199, 1706745600,
		 1709251200},
		{"December ends with the year", SL_VOLUME_MONTH, 1735603200, 1733011200,
		 1735689600},
	};
	uint64_t last = 0;

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		const struct sl_volume_period period = sl_volume_period_at(rows[i].per,
									   rows[i].wall_s);

		print_message("%s\n", rows[i].why);
		assert_int_equal(period.begin_s, rows[i].begin_s);
		assert_int_equal(period.end_s, rows[i].end_s);
	}
	// Numbers grow by one a period, for 130 years.
	for (uint64_t wall_s = 0; wall_s < 130 * 366 * DAY_S;) {
		const struct sl_volume_period period = sl_volume_period_at(SL_VOLUME_MONTH, wall_s);

		assert_true(!last || period.id == last + 1);
		assert_true(period.begin_s <= wall_s && wall_s < period.end_s);
		last = period.id;
		wall_s = period.end_s;
	}
}

// What passed the mark and was refused by another: its tenant has used nothing, and may send.
static void test_a_refund_that_opens_again(void **state)
{
	struct sl_tenants *tenants = make(
		(struct sl_volume_config){.spans = 100, .per = SL_VOLUME_MONTH, .soft = 0.8}, NULL);
	struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);
	struct fake *fake = make_fake();
	uint64_t now_ns = START;

	(void)state;
	tick(tenants, now_ns, NOON);
	sl_tenants_shard_turn(shard, tenants, now_ns);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(send_part(fake, shard, 0, SL_TRACES, 10, 100), 0);
		assert_int_equal(used(tenants, SL_DIMENSION_SPANS), 100);
		sl_tenants_refund(shard, &fake->part);
		assert_int_equal(used(tenants, SL_DIMENSION_SPANS), 0);
		tick(tenants, now_ns += 10 * SL_MS, NOON);
		sl_tenants_shard_turn(shard, tenants, now_ns);
	}
	sl_tenants_shard_destroy(shard);
	free(fake);
	sl_tenants_destroy(tenants);
}

// A charge goes back to the volume that counted it, and to no other, over any reload.
static void test_a_refund_over_a_reload(void **state)
{
	static const struct {
		const char *why;
		struct sl_volume_config before, after;
		int64_t left;
	} rows[] = {
		{"the same limits", {.spans = 100}, {.spans = 100}, 0},
		{"another mark", {.spans = 100}, {.spans = 50}, 0},
		{"no volume any more", {.spans = 100}, {.per = SL_VOLUME_MONTH}, 0},
		{"none then: nothing was counted", {.per = SL_VOLUME_MONTH}, {.spans = 100}, 0},
	};
	struct fake *fake = make_fake();

	(void)state;
	for (unsigned i = 0; i < 2 * SL_COUNT_OF(rows); i++) {
		const bool cut = i % 2;
		struct sl_quota_config quota = {.burst_ns = SL_S,
						.excess = cut ? SL_EXCESS_CUT : 0,
						.volume = rows[i / 2].before};
		struct sl_tenants *before, *after, *last;
		struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);

		print_message("%s%s\n", rows[i / 2].why, cut ? ", cut" : "");
		quota.volume.per = SL_VOLUME_MONTH;
		quota.volume.soft = 0.8;
		before = make_with(quota, NULL);
		tick(before, START, NOON);
		sl_tenants_shard_turn(shard, before, START);
		assert_int_equal(send_part(fake, shard, 0, SL_TRACES, 10, 30), 0);
		quota.volume = rows[i / 2].after;
		quota.volume.per = SL_VOLUME_MONTH;
		quota.volume.soft = 0.8;
		after = make_with(quota, before);
		tick(after, START + SL_MS, NOON);
		sl_tenants_shard_turn(shard, after, START + SL_MS);
		for (unsigned twice = 0; twice < 2; twice++)
			sl_tenants_refund(shard, &fake->part);
		quota.volume = (struct sl_volume_config){
			.spans = 70, .per = SL_VOLUME_MONTH, .soft = 0.8};
		last = make_with(quota, after);
		tick(last, START + 2 * SL_MS, NOON);
		sl_tenants_shard_turn(shard, last, START + 2 * SL_MS);
		assert_int_equal(used(last, SL_DIMENSION_SPANS), rows[i / 2].left);
		assert_int_equal(used(last, SL_DIMENSION_REQUESTS), rows[i / 2].left);
		sl_tenants_shard_destroy(shard);
		sl_tenants_destroy(before);
		sl_tenants_destroy(after);
		sl_tenants_destroy(last);
	}
	free(fake);
}

static void test_marks(void **state)
{
	struct sl_tenants *tenants = make(
		(struct sl_volume_config){
			.bytes = 10000, .spans = 100, .per = SL_VOLUME_DAY, .soft = 0.8},
		NULL);
	const struct sl_volumes *volumes = &tenants->registry->volumes;
	struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);
	struct fake *fake = make_fake();
	uint64_t now_ns = START, wall_ns = NOON, wait_ns = 0;

	(void)state;
	tick(tenants, now_ns, wall_ns);
	sl_tenants_shard_turn(shard, tenants, now_ns);
	assert_int_equal(send_part(fake, shard, 0, SL_TRACES, 1000, 79), 0);
	tick(tenants, now_ns += 10 * SL_MS, wall_ns);
	assert_int_equal(volumes->soft_marks, 0);
	// The soft mark changes nothing but what is told, and that once.
	for (unsigned i = 0; i < 3; i++) {
		sl_tenants_shard_turn(shard, tenants, now_ns);
		assert_int_equal(send_part(fake, shard, 0, SL_TRACES, 10, 1), 0);
		tick(tenants, now_ns += 10 * SL_MS, wall_ns);
		assert_int_equal(volumes->soft_marks, 1);
	}
	// What a later stage refuses is not used.
	sl_tenants_shard_turn(shard, tenants, now_ns);
	assert_int_equal(send_part(fake, shard, 0, SL_TRACES, 10, 15), 0);
	sl_tenants_refund(shard, &fake->part);
	sl_tenants_refund(shard, &fake->part);
	tick(tenants, now_ns += 10 * SL_MS, wall_ns);
	// The one that passes the hard mark is the last: its shard knows at once.
	sl_tenants_shard_turn(shard, tenants, now_ns);
	assert_int_equal(send_part(fake, shard, 0, SL_TRACES, 10, 30), 0);
	assert_in_range(send_part(fake, shard, 0, SL_TRACES, 10, 1), 3600 * SL_S, 4320 * SL_S);
	assert_int_equal(fake->part.reason, SL_REASON_VOLUME_EXCEEDED);
	assert_int_equal(sl_tenants_admit_head(shard, 0, SL_TRACES, 0, &wait_ns),
			 SL_REASON_VOLUME_EXCEEDED);
	assert_in_range(wait_ns, 3600 * SL_S, 4320 * SL_S);
	assert_int_equal(shard->counters.used_up[SL_DIMENSION_SPANS], 2);
	// Metrics are not spans, and bytes are left.
	assert_int_equal(send_part(fake, shard, 0, SL_METRICS, 10, 1000), 0);
	tick(tenants, now_ns += 10 * SL_MS, wall_ns);
	assert_int_equal(volumes->hard_marks, 1);
	assert_int_equal(used(tenants, SL_DIMENSION_SPANS), 112);
	// Near midnight the hint is what is left; after it all is as new. The clock that is set
	// back does not bring the day back.
	wall_ns = 20001 * DAY_S * SL_S - 60 * SL_S;
	tick(tenants, now_ns += 10 * SL_MS, wall_ns);
	sl_tenants_shard_turn(shard, tenants, now_ns);
	assert_in_range(send_part(fake, shard, 0, SL_TRACES, 10, 1), 60 * SL_S, 72 * SL_S);
	for (unsigned i = 0; i < 2; i++) {
		tick(tenants, now_ns += 10 * SL_MS, wall_ns + (i ? 0 : 60 * SL_S));
		assert_int_equal(used(tenants, SL_DIMENSION_SPANS), i ? 50 : 0);
		sl_tenants_shard_turn(shard, tenants, now_ns);
		assert_int_equal(send_part(fake, shard, 0, SL_TRACES, 10, 50), 0);
		now_ns += 2 * SL_MS;
	}
	free(fake);
	sl_tenants_shard_destroy(shard);
	sl_tenants_destroy(tenants);
}

// Random requests on 1 to 8 shards: never more than the bound of volume.h, and all of the volume.
static void test_bound(void **state)
{
	struct sl_random random;
	struct fake *fake = make_fake();

	(void)state;
	sl_random_init(&random, 3);
	for (unsigned round = 0; round < 40; round++) {
		const uint64_t hard = UINT64_C(100000) << sl_random_below(&random, 20);
		const uint64_t largest = 1 + hard / (UINT64_C(10) << sl_random_below(&random, 10));
		const uint32_t shards = 1 + (uint32_t)sl_random_below(&random, 8);
		struct sl_tenants *tenants = make(
			(struct sl_volume_config){.bytes = hard, .soft = 1}, NULL);
		struct sl_tenants_shard *all[8];
		uint64_t admitted = 0, now_ns = START, refused = 0;

		for (uint32_t i = 0; i < shards; i++)
			all[i] = sl_tenants_shard_create(i, shards, NULL);
		tick(tenants, now_ns, NOON);
		while (refused < 1000) {
			struct sl_tenants_shard *shard = all[sl_random_below(&random, shards)];
			const uint64_t bytes = 1 + sl_random_below(&random, largest);

			sl_tenants_shard_turn(shard, tenants, now_ns);
			if (send_part(fake, shard, 0, SL_LOGS, bytes, 1))
				refused++;
			else
				admitted += bytes;
			now_ns += sl_random_below(&random, 100 * SL_US);
			if (sl_random_below(&random, 100) == 0)
				tick(tenants, now_ns, NOON);
		}
		assert_true(admitted >= hard);
		assert_true(admitted <= hard + shards * (hard / 4096 + 1 + largest));
		for (uint32_t i = 0; i < shards; i++)
			sl_tenants_shard_destroy(all[i]);
		// To the byte, once the shards have told all.
		assert_int_equal(used(tenants, SL_DIMENSION_BYTES), admitted);
		sl_tenants_destroy(tenants);
	}
	free(fake);
}

static void test_file(void **state)
{
	const struct sl_volume_config volume = {.bytes = 1000, .per = SL_VOLUME_DAY, .soft = 0.8};
	char path[] = "/tmp/sluice-volumes-XXXXXX";
	struct fake *fake = make_fake();
	uint64_t now_ns = START;

	(void)state;
	close(mkstemp(path));
	for (unsigned life = 0; life < 3; life++) {
		struct sl_tenants *tenants = make(volume, NULL);
		struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);

		assert_int_equal(sl_volume_file_read(path, tenants), life ? 1 : -EBADMSG);
		tick(tenants, now_ns, NOON);
		assert_int_equal(used(tenants, SL_DIMENSION_BYTES), life * 400);
		sl_tenants_shard_turn(shard, tenants, now_ns);
		assert_int_equal(send_part(fake, shard, 0, SL_LOGS, 400, 1), 0);
		sl_tenants_shard_destroy(shard);
		assert_int_equal(sl_volume_file_write(path, tenants), 0);
		sl_tenants_destroy(tenants);
	}

	// Used up before the start is used up after it, from the first request on; but tomorrow.
	struct sl_tenants *tenants = make(volume, NULL);
	struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);

	assert_int_equal(sl_volume_file_read(path, tenants), 1);
	tick(tenants, now_ns, NOON);
	sl_tenants_shard_turn(shard, tenants, now_ns);
	assert_int_not_equal(send_part(fake, shard, 0, SL_LOGS, 1, 1), 0);
	tick(tenants, now_ns, NOON + DAY_S * SL_S);
	assert_int_equal(send_part(fake, shard, 0, SL_LOGS, 1, 1), 0);
	sl_tenants_shard_destroy(shard);
	sl_tenants_destroy(tenants);
	unlink(path);
	free(fake);
}

static void test_bad_files(void **state)
{
	static const struct {
		const char *why, *text;
		int want;
	} rows[] = {
		{"nothing in it", "", -EBADMSG},
		{"another file", "root:x:0:0\n", -EBADMSG},
		{"another version", "sluice-volumes 2\nend 0\n", -EBADMSG},
		{"nobody has used anything", "sluice-volumes 1\nend 0\n", 0},
		{"one who is gone", "sluice-volumes 1\ngone day 20000 1 0 0 0 0\nend 1\n", 1},
		{"cut short", "sluice-volumes 1\nt day 20000 1 0 0 0 0\n", -EBADMSG},
		{"a line is missing", "sluice-volumes 1\nt day 20000 1 0 0 0 0\nend 2\n", -EBADMSG},
		{"a number is missing", "sluice-volumes 1\nt day 20000 1 0 0 0\nend 1\n", -EBADMSG},
		{"a negative one", "sluice-volumes 1\nt day 20000 -1 0 0 0 0\nend 1\n", -EBADMSG},
		{"no period we know", "sluice-volumes 1\nt week 9 1 0 0 0 0\nend 1\n", -EBADMSG},
		{"a tenant named end", "sluice-volumes 1\nend day 20000 1 0 0 0 0\nend 1\n", 1},
	};
	char path[] = "/tmp/sluice-volumes-XXXXXX";
	struct sl_tenants *tenants = make((struct sl_volume_config){.bytes = 1000}, NULL);

	(void)state;
	close(mkstemp(path));
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		FILE *file = fopen(path, "w");

		print_message("%s\n", rows[i].why);
		assert_non_null(file);
		fputs(rows[i].text, file);
		fclose(file);
		assert_int_equal(sl_volume_file_read(path, tenants), rows[i].want);
	}
	unlink(path);
	assert_int_equal(sl_volume_file_read(path, tenants), -ENOENT);
	assert_int_equal(sl_volume_file_write("/nowhere/at/all", tenants), -ENOENT);
	sl_tenants_destroy(tenants);
}

// Without a place to keep it, a restart would give it anew: refused.
static void test_needs_a_place(void **state)
{
	(void)state;
	assert_null(make_quota((struct sl_quota_config){.burst_ns = SL_S, .volume = {.bytes = 1}},
			       NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_periods),
		cmocka_unit_test(test_marks),
		cmocka_unit_test(test_a_refund_that_opens_again),
		cmocka_unit_test(test_a_refund_over_a_reload),
		cmocka_unit_test(test_bound),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_bad_files),
		cmocka_unit_test(test_needs_a_place),
	};

	sl_hash_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
