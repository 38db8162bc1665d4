#include "tests/unit/tenants/fixture.h"

#include <math.h>

#include "dataplane/base/random.h"
#include "tenants/algorithm.h"

// Each algorithm, through the real pools, chunks and shards, against what it is in plain floating
// point. (The token bucket against its own: test_quota.c.)

#define START    (1000 * SL_S)
#define TICK_S   ((double)SL_QUOTA_TICK_NS / 1e9)
#define SENT_MAX 40000

static struct {
	double at_s, cost;
} sent[SENT_MAX];
static unsigned sent_count;

static void log_sent(double at_s, double cost)
{
	assert_true(sent_count < SENT_MAX);
	sent[sent_count].at_s = at_s;
	sent[sent_count++].cost = cost;
}

// Times of leaving are not in the order of arrival over all shards.
static void sort_sent(void)
{
	for (unsigned i = 1; i < sent_count; i++)
		for (unsigned j = i; j && sent[j].at_s < sent[j - 1].at_s; j--) {
			const __typeof__(sent[0]) swap = sent[j];

			sent[j] = sent[j - 1];
			sent[j - 1] = swap;
		}
}

// The most that lies in any window of `window_s`, ends included, beyond `rate` times it.
static double largest_excess(double rate)
{
	// max over i <= j of sum(i..j) - rate * (t_j - t_i), in one pass.
	double best = 0, open = 0, sum = 0;

	for (unsigned i = 0; i < sent_count; i++) {
		const double before = sum - rate * sent[i].at_s;

		open = i ? SL_MIN(open, before) : before;
		sum += sent[i].cost;
		best = SL_MAX(best, sum - rate * sent[i].at_s - open);
	}
	return best;
}

static void make_shards(struct sl_tenants_shard **all, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		all[i] = sl_tenants_shard_create(i, count, NULL);
}

static void drop_shards(struct sl_tenants_shard **all, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		sl_tenants_shard_destroy(all[i]);
}

static struct sl_tenants *make_leaky(double rate, uint64_t delay_max_ns)
{
	return make_quota((struct sl_quota_config){.bytes = rate,
						   .burst_ns = SL_S,
						   .algorithm = SL_ALGORITHM_LEAKY,
						   .delay_max_ns = delay_max_ns},
			  NULL);
}

// One shard, step by step: 1000 bytes a second, held for 500 ms at most.
static void test_leaky_steps(void **state)
{
	static const struct {
		const char *why;
		uint64_t at_ms, bytes;
		uint64_t want_delay_ms, want_wait_ms;
	} rows[] = {
		{"the first leaves at once", 0, 100, 0, 0},
		{"the next when it has leaked out, but for the 20 ms that were saved", 0, 100, 80,
		 0},
		{"and so on", 0, 100, 180, 0},
		{"a large one takes its turn as all do", 0, 400, 280, 0},
		{"the bound: 500 ms are exceeded by what is before it", 0, 1, 0, 180},
		{"that cost nothing: once time has passed, it fits exactly", 180, 100, 500, 0},
		{"and the next again waits for its own place", 180, 100, 0, 100},
		{"idle time is not saved", 10000, 100, 0, 0},
		{"not even this long", 10000, 100, 80, 0},
	};
	struct sl_tenants *tenants = make_leaky(1000, 500 * SL_MS);
	struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);
	struct fake *fake = make_fake();
	uint64_t now_ns = START;

	(void)state;
	sl_tenants_tick(tenants, now_ns);
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		uint64_t wait_ns, head_ns = 0;
		enum sl_reason head;

		while (now_ns < START + rows[i].at_ms * SL_MS)
			sl_tenants_tick(tenants, now_ns += SL_QUOTA_TICK_NS);
		sl_tenants_shard_turn(shard, tenants, now_ns);
		print_message("%s\n", rows[i].why);
		// Headers alone tell the same.
		head = sl_tenants_admit_head(shard, 0, SL_LOGS, rows[i].bytes, &head_ns);
		wait_ns = send_part(fake, shard, 0, SL_LOGS, rows[i].bytes, 1);
		assert_int_equal(head == SL_REASON_NONE, rows[i].want_wait_ms == 0);
		if (rows[i].want_wait_ms) {
			assert_in_range(wait_ns, rows[i].want_wait_ms * SL_MS,
					rows[i].want_wait_ms * SL_MS * 6 / 5 + 2);
			assert_in_range(head_ns, rows[i].want_wait_ms * SL_MS,
					rows[i].want_wait_ms * SL_MS * 6 / 5 + 2);
			continue;
		}
		assert_int_equal(wait_ns, 0);
		assert_in_range(fake->part.delay_ns, rows[i].want_delay_ms * SL_MS,
				rows[i].want_delay_ms * SL_MS);
		assert_int_equal(fake->batch.delayed, rows[i].want_delay_ms > 0);
		fake->batch.delayed = false;
	}
	free(fake);
	sl_tenants_shard_destroy(shard);
	sl_tenants_destroy(tenants);
}

// What is refused later, or by another dimension, takes its place in the queue back with it.
static void test_leaky_gives_back(void **state)
{
	struct sl_tenants *tenants = make_quota(
		(struct sl_quota_config){.bytes = 1e9,
					 .requests = 10,
					 .burst_ns = SL_S,
					 .algorithm = SL_ALGORITHM_LEAKY,
					 .delay_max_ns = 500 * SL_MS},
		NULL);
	struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);
	struct fake *fake = make_fake();

	(void)state;
	sl_tenants_tick(tenants, START);
	sl_tenants_shard_turn(shard, tenants, START);
	// The bucket of requests holds one; the second goes into debt, the third waits for it.
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(send_part(fake, shard, 0, SL_LOGS, 1000, 1), 0);
		assert_int_equal(fake->part.delay_ns, i < 2 ? 0 : 100 * SL_MS);
		if (i == 2)
			assert_int_equal(fake->part.limit, SL_DIMENSION_REQUESTS);
	}
	// What is given back is there for another.
	sl_tenants_refund(shard, &fake->part);
	for (unsigned i = 1; i <= 5; i++) {
		assert_int_equal(send_part(fake, shard, 0, SL_LOGS, 1000, 1), 0);
		assert_int_equal(fake->part.delay_ns, i * 100 * SL_MS);
	}
	// One request too many: the bytes that fitted are not kept.
	const int64_t before = sl_quota_pool_level(tenants->entries[0].pool, SL_DIMENSION_BYTES) +
			       shard->slots[*SL_BY_TENANT(&shard->slot_of, uint32_t, 0) - 1]
				       .chunk[SL_DIMENSION_BYTES];

	assert_in_range(send_part(fake, shard, 0, SL_LOGS, 5000, 1), 100 * SL_MS, 121 * SL_MS);
	assert_int_equal(sl_quota_pool_level(tenants->entries[0].pool, SL_DIMENSION_BYTES) +
				 shard->slots[*SL_BY_TENANT(&shard->slot_of, uint32_t, 0) - 1]
					 .chunk[SL_DIMENSION_BYTES],
			 before);
	free(fake);
	sl_tenants_shard_destroy(shard);
	sl_tenants_destroy(tenants);
}

// The model: `tat`, the time at which all that was admitted has leaked out. A request that comes
// at t leaves at max(t, tat - saved); it is refused when that is later than t + delay_max.
static void test_leaky_against_model(void **state)
{
	static const double rates[] = {20, 1000, 123456, 1e9, 100.0 * (double)SL_GIB};
	struct sl_random random;
	struct fake *fake = make_fake();

	(void)state;
	sl_random_init(&random, 7);
	for (unsigned r = 0; r < SL_COUNT_OF(rates) * 4; r++) {
		const double rate = rates[r % SL_COUNT_OF(rates)];
		const uint32_t shards = 1 + (uint32_t)sl_random_below(&random, 8);
		const double delay_max_s = r & 1 ? 0.5 : 0.05;
		struct sl_tenants *tenants = make_leaky(rate, (uint64_t)(delay_max_s * 1e9));
		const double saved_s = (double)sl_limit_rate(rate, 20 * SL_MS).burst / rate;
		const uint64_t largest = (uint64_t)(rate / (r & 2 ? 10 : 100)) + 1;
		// What shards hold unspent, and a tick, and rounding to whole tokens.
		const double slack_s = 3 * TICK_S + 2 / rate;
		struct sl_tenants_shard *all[8];
		uint64_t now_ns = START;
		double tat_s = 0, refusals = 0, held = 0;

		make_shards(all, shards);
		sl_tenants_tick(tenants, now_ns);
		sent_count = 0;
		for (unsigned tick = 0; tick < 400; tick++) {
			const double at_s = (double)(now_ns - START) / 1e9;

			// Bursts and pauses.
			for (unsigned i = 0; i < (tick % 50 < 30 ? 4 : 0); i++) {
				struct sl_tenants_shard *shard =
					all[sl_random_below(&random, shards)];
				const uint64_t bytes = 1 + sl_random_below(&random, largest);
				const double model_s = SL_MAX(0,
							      SL_MAX(tat_s, at_s) - at_s - saved_s);
				uint64_t wait_ns;

				sl_tenants_shard_turn(shard, tenants, now_ns);
				wait_ns = send_part(fake, shard, 0, SL_LOGS, bytes, 1);
				if (wait_ns) {
					refusals++;
					assert_true(model_s >= delay_max_s - slack_s);
					assert_true((double)wait_ns / 1e9 >=
						    SL_MIN(model_s, delay_max_s + 1) - delay_max_s -
							    slack_s);
					continue;
				}

				const double delay_s = (double)fake->part.delay_ns / 1e9;

				held += delay_s > 0;
				assert_true(delay_s <= delay_max_s + 1e-6);
				// A chunk that its shard drew before the queue began is spent.
				if (fabs(delay_s - model_s) > slack_s &&
				    (delay_s > 0 || (double)bytes > rate * 2 * TICK_S))
					fail_msg("rate %f, %u shards: held for %f s instead of %f",
						 rate, shards, delay_s, model_s);
				tat_s = SL_MAX(tat_s, at_s) + (double)bytes / rate;
				log_sent(at_s + delay_s, (double)bytes);
			}
			now_ns += SL_QUOTA_TICK_NS;
			sl_tenants_tick(tenants, now_ns);
		}
		assert_true(held > 0 && refusals > 0);
		sort_sent();
		assert_true(largest_excess(rate) <=
			    rate * 2 * TICK_S + (double)largest + rate * slack_s);
		drop_shards(all, shards);
		sl_tenants_destroy(tenants);
	}
	free(fake);
}

static struct sl_tenants *make_window(double rate, uint64_t window_ns)
{
	return make_quota((struct sl_quota_config){.bytes = rate,
						   .burst_ns = SL_S,
						   .algorithm = SL_ALGORITHM_SLIDING_WINDOW,
						   .window_ns = window_ns},
			  NULL);
}

// One shard, step by step: windows of 10 s with 10,000 bytes each; START is a boundary.
static void test_window_steps(void **state)
{
	static const struct {
		const char *why;
		uint64_t at_ms, bytes;
		uint64_t want_wait_ms; // without jitter; 0: admitted
	} rows[] = {
		{"all of a window at its end", 9900, 4000, 0},
		{"and the rest", 9900, 5900, 0},
		{"just after the boundary there is no second one: what is missing slides out at "
		 "the "
		 "rate it came",
		 10100, 1000, 809},
		{"but what has slid out by then", 10100, 100, 0},
		{"half a window later, half of it", 15000, 4800, 0},
		{"and no more", 15000, 1000, 809},
		{"later most of it", 18000, 3000, 0},
		{"beyond the end of the window it is this one that slides out: 2 s of 9,900, then "
		 "of "
		 "7,900",
		 18000, 4900, 5544},
		{"a window without anything: all of it", 60000, 10000, 0},
	};
	struct sl_tenants *tenants = make_window(1000, 10 * SL_S);
	struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);
	struct fake *fake = make_fake();
	uint64_t now_ns = START;

	(void)state;
	sl_tenants_tick(tenants, now_ns);
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		uint64_t wait_ns;

		while (now_ns < START + rows[i].at_ms * SL_MS)
			sl_tenants_tick(tenants, now_ns += SL_QUOTA_TICK_NS);
		sl_tenants_shard_turn(shard, tenants, now_ns);
		print_message("%s\n", rows[i].why);
		wait_ns = send_part(fake, shard, 0, SL_LOGS, rows[i].bytes, 1);
		if (rows[i].want_wait_ms)
			assert_in_range(wait_ns, rows[i].want_wait_ms * SL_MS * 97 / 100,
					rows[i].want_wait_ms * SL_MS * 130 / 100);
		else
			assert_int_equal(wait_ns, 0);
	}
	free(fake);
	sl_tenants_shard_destroy(shard);
	sl_tenants_destroy(tenants);
}

static double exact_count(double at_s, double window_s)
{
	double sum = 0;

	for (unsigned i = sent_count; i-- > 0 && sent[i].at_s > at_s - window_s;)
		sum += sent[i].cost;
	return sum;
}

// What two buckets of counts know.
struct window_model {
	uint64_t number;
	double present, before;
};

static double model_count(struct window_model *model, double at_s, double window_s)
{
	const uint64_t number = (uint64_t)(at_s / window_s + 1e-9);
	const double over = at_s / window_s - (double)number;

	if (number != model->number) {
		model->before = number == model->number + 1 ? model->present : 0;
		model->present = 0;
		model->number = number;
	}
	return model->present + model->before * (1 - SL_MAX(over, 0));
}

static void check_window(struct window_model *model, double at_s, double window_s, double level,
			 double limit, double chunks)
{
	const double count = model_count(model, at_s, window_s);
	const double over = at_s / window_s - (double)model->number;
	const double error = count - exact_count(at_s, window_s);

	// The pools and chunks are the model, but for a chunk that was drawn in one window and
	// spent in the next.
	if (fabs(limit - level - count) > 2 + chunks)
		fail_msg("at %f s: %f counted, %f in two buckets", at_s, limit - level, count);
	// And the model is wrong by no more than the header says.
	assert_true(error >= -over * model->before - 1e-6 * limit);
	assert_true(error <= (1 - over) * model->before + 1e-6 * limit);
}

static void run_window(double rate, uint32_t shards, struct sl_random *random, bool even)
{
	const double window_s = 2, limit = ceil(rate * window_s);
	struct sl_tenants *tenants = make_window(rate, 2 * SL_S);
	const uint64_t largest = (uint64_t)(rate / 20) + 1;
	const double held = rate * 2 * TICK_S + (double)largest;
	struct sl_tenants_shard *all[8];
	struct window_model model = {0};
	struct fake *fake = make_fake();
	double refused = 0, error = 0;
	uint64_t now_ns = START;

	make_shards(all, shards);
	sl_tenants_tick(tenants, now_ns);
	sent_count = 0;
	for (unsigned tick = 0; tick < 1500; tick++) {
		const double at_s = (double)(now_ns - START) / 1e9;
		const unsigned offers = even ? 1 : sl_random_below(random, 3) * (tick / 70 % 3);
		double level = 0;

		for (unsigned i = 0; i < offers; i++) {
			struct sl_tenants_shard *shard = all[sl_random_below(random, shards)];
			const uint64_t bytes = even ? (uint64_t)(rate / 120) + 1
						    : 1 + sl_random_below(random, largest);
			const double room = limit - model_count(&model, at_s, window_s);

			sl_tenants_shard_turn(shard, tenants, now_ns);
			if (send_part(fake, shard, 0, SL_LOGS, bytes, 1)) {
				refused++;
				assert_true(room < (double)bytes + held);
			} else {
				assert_true(room >= (double)bytes - 2 - rate * 2 * TICK_S);
				model.present += (double)bytes;
				log_sent(at_s, (double)bytes);
			}
		}
		for (uint32_t i = 0; i < shards; i++) {
			const uint32_t slot = *SL_BY_TENANT(&all[i]->slot_of, uint32_t, 0);

			level += slot ? (double)all[i]->slots[slot - 1].chunk[SL_DIMENSION_BYTES]
				      : 0;
		}
		level += (double)sl_quota_pool_level(tenants->entries[0].pool, SL_DIMENSION_BYTES);
		check_window(&model, at_s, window_s, level, limit, rate * 2 * TICK_S);
		if (tick > 400)
			error = SL_MAX(error, fabs(model_count(&model, at_s, window_s) -
						   exact_count(at_s, window_s)));
		now_ns += SL_QUOTA_TICK_NS;
		sl_tenants_tick(tenants, now_ns);
	}
	assert_true(even ? refused == 0 : refused > 0);
	if (even) // as exact as the stream is even
		assert_true(error <= rate / 120 + 2);
	assert_true(largest_excess(limit / window_s) <= limit + held + rate * TICK_S);
	drop_shards(all, shards);
	sl_tenants_destroy(tenants);
	free(fake);
}

static void test_window_against_model(void **state)
{
	static const double rates[] = {1000, 54321, 1e9};
	struct sl_random random;

	(void)state;
	sl_random_init(&random, 11);
	for (unsigned r = 0; r < SL_COUNT_OF(rates) * 6; r++)
		run_window(rates[r % SL_COUNT_OF(rates)], 1 + (uint32_t)sl_random_below(&random, 8),
			   &random, r % 3 == 2);
}

// The hint is true: whoever comes back then is admitted, whoever comes back at half of it is not.
static void test_window_hints(void **state)
{
	struct sl_random random;
	struct fake *fake = make_fake();

	(void)state;
	sl_random_init(&random, 5);
	for (unsigned round = 0; round < 60; round++) {
		struct sl_tenants *tenants = make_window(10000, 2 * SL_S);
		struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);
		uint64_t now_ns = START, wait_ns = 0, until_ns;

		sl_tenants_tick(tenants, now_ns);
		for (unsigned i = 0; !wait_ns || i < 100 + round * 7; i++) {
			sl_tenants_shard_turn(shard, tenants, now_ns);
			wait_ns = send_part(fake, shard, 0, SL_LOGS,
					    1 + sl_random_below(&random, 3000), 1);
			now_ns += SL_QUOTA_TICK_NS;
			sl_tenants_tick(tenants, now_ns);
		}
		sl_tenants_shard_turn(shard, tenants, now_ns);
		while (!(wait_ns = send_part(fake, shard, 0, SL_LOGS, 2000, 1)))
			;
		until_ns = now_ns + wait_ns * 4 / 10;
		while (now_ns + SL_QUOTA_TICK_NS < until_ns)
			sl_tenants_tick(tenants, now_ns += SL_QUOTA_TICK_NS);
		sl_tenants_shard_turn(shard, tenants, now_ns);
		assert_int_not_equal(send_part(fake, shard, 0, SL_LOGS, 2000, 1), 0);
		until_ns += wait_ns * 6 / 10 + SL_QUOTA_TICK_NS;
		while (now_ns < until_ns)
			sl_tenants_tick(tenants, now_ns += SL_QUOTA_TICK_NS);
		sl_tenants_shard_turn(shard, tenants, now_ns);
		assert_int_equal(send_part(fake, shard, 0, SL_LOGS, 2000, 1), 0);
		sl_tenants_shard_destroy(shard);
		sl_tenants_destroy(tenants);
	}
	free(fake);
}

// A tenant's own keys replace its class' one by one, of every key there is.
static void test_overrides(void **state)
{
	struct sl_class_config class = {.trim = {.attributes = 9, .value_bytes = 10}};
	struct sl_quota_config *const of_class = &class.quota;
	struct sl_limits limits;

	(void)state;
	*of_class = (struct sl_quota_config){.bytes = 1,
					     .spans = 2,
					     .points = 3,
					     .log_records = 4,
					     .requests = 5,
					     .burst_ns = 6 * SL_S,
					     .window_ns = 20 * SL_S,
					     .delay_max_ns = 100 * SL_MS,
					     .in_flight_bytes = 7,
					     .in_flight_requests = 8};
	limits = sl_tenants_limits(&class, NULL, false);
	assert_int_equal(limits.trim.attributes, 9);
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++) {
		assert_true(limits.dimensions[i].per_s == i + 1);
		assert_int_equal(limits.dimensions[i].burst, (i + 1) * 6);
	}
	assert_int_equal(limits.dimensions[SL_DIMENSION_IN_FLIGHT_BYTES].burst, 7);
	assert_int_equal(limits.dimensions[SL_DIMENSION_IN_FLIGHT_REQUESTS].burst, 8);

	struct sl_quota_config own_quota = {
		.points = 30,
		.spans = 99, // not named: does not count
		.in_flight_bytes = 70,
		.algorithm = SL_ALGORITHM_SLIDING_WINDOW,
		.window_ns = 1,
		.has = {.points = true, .in_flight_bytes = true, .algorithm = true}};

	struct sl_trim_config own_trim = {.value_bytes = 20,
					  .attributes = 1,
					  .mode = 1,
					  .has = {.value = true, .mode = true}};
	const struct sl_tenant_config own = {.quota = &own_quota, .trim = &own_trim};

	limits = sl_tenants_limits(&class, &own, false);
	assert_int_equal(limits.trim.attributes, 9);
	assert_int_equal(limits.trim.value_bytes, 20);
	assert_true(limits.trim.is_set && limits.trim.observe && !limits.observe);
	assert_true(limits.dimensions[SL_DIMENSION_POINTS].per_s == 30);
	assert_true(limits.dimensions[SL_DIMENSION_SPANS].per_s == 2);
	assert_int_equal(limits.dimensions[SL_DIMENSION_POINTS].burst, 600);
	assert_int_equal(limits.dimensions[SL_DIMENSION_IN_FLIGHT_BYTES].burst, 70);
	assert_int_equal(limits.dimensions[SL_DIMENSION_IN_FLIGHT_REQUESTS].burst, 8);
	assert_int_equal(limits.window_ns, 20 * SL_S);
	assert_int_equal(limits.delay_max_ns, 100 * SL_MS);
	assert_int_equal(limits.algorithm, SL_ALGORITHM_SLIDING_WINDOW);
}

// What cannot hold for a fleet is refused, not multiplied.
static void test_not_with_a_fleet(void **state)
{
	(void)state;
	for (unsigned algorithm = 0; algorithm < 3; algorithm++) {
		const char *url = "redis://127.0.0.1";
		struct sl_tenant_config tenant = {.name = "t", .class_name = "c"};
		struct sl_class_config class = {.name = "c",
						.priority = 1,
						.quota = {.spans = 10,
							  .burst_ns = SL_S,
							  .window_ns = SL_S,
							  .algorithm = algorithm}};
		const struct sl_tenants_module_config config = {
			.tenants = {.inline_ = {.classes = {&class, 1}, .tenants = {&tenant, 1}},
				    .unknown = "t"},
			.quotas = {.redis = {&url, 1}}};
		struct sl_tenants *tenants = make_tenants(&config, NULL);

		assert_int_equal(tenants != NULL, algorithm != SL_ALGORITHM_LEAKY);
		sl_tenants_destroy(tenants);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leaky_steps),
		cmocka_unit_test(test_leaky_gives_back),
		cmocka_unit_test(test_leaky_against_model),
		cmocka_unit_test(test_window_steps),
		cmocka_unit_test(test_window_against_model),
		cmocka_unit_test(test_window_hints),
		cmocka_unit_test(test_overrides),
		cmocka_unit_test(test_not_with_a_fleet),
	};

	sl_hash_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
