#include "tests/unit/tenants/fixture.h"

#include <math.h>
#include <pthread.h>

#include "dataplane/base/clock.h"

#define START (1000 * SL_S)

static void test_limits(void **state)
{
	static const struct {
		const char *why;
		double per_s;
		uint64_t burst_ns;
		int64_t want_burst;
	} rows[] = {
		{"no rate is no limit", 0, SL_S, SL_UNLIMITED},
		{"a burst is worth its time", 1000, 2 * SL_S, 2000},
		{"one item an hour has a burst of one", 1 / 3600.0, SL_S, 1},
		{"100 GiB/s for an hour fits", 100.0 * (double)SL_GIB, 3600 * SL_S,
		 INT64_C(386547056640000)},
		{"part of a token is rounded up", 1.5, SL_S, 2},
	};

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		const struct sl_limit limit = sl_limit_rate(rows[i].per_s, rows[i].burst_ns);

		print_message("%s\n", rows[i].why);
		assert_int_equal(limit.burst, rows[i].want_burst);
		assert_int_equal(sl_limit_is_set(&limit), rows[i].want_burst != SL_UNLIMITED);
		assert_true(sl_limit_need(&limit, 1) == 1);
	}
}

// One shard, one step after the other, at 1000 spans/s and a burst of 1 s.
static void test_steps(void **state)
{
	static const struct {
		const char *why;
		uint64_t at_ms;
		uint32_t spans;
		uint64_t want_wait_ms; // without jitter; 0: admitted
	} rows[] = {
		{"an idle quota admits its whole burst at once", 0, 400, 0},
		{"and the rest of it", 0, 600, 0},
		{"then the next request waits for its own refill", 0, 100, 100},
		{"a smaller one waits less", 0, 10, 10},
		{"refusals cost nothing: in time it fits", 100, 100, 0},
		{"a request beyond the burst waits for half a burst, not for ever", 100, 5000, 500},
		{"and goes into debt then", 600, 5000, 0},
		{"which those after it wait for", 600, 100, 4600},
		{"until it is paid", 5190, 100, 10},
		{"to the last token", 5200, 100, 0},
		{"idle time beyond the burst is not saved: 1000", 60000, 1000, 0},
		{"and not one more", 60000, 1, 1},
	};
	struct sl_tenants *tenants = make_quota(
		(struct sl_quota_config){.spans = 1000, .burst_ns = SL_S}, NULL);
	struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);
	struct fake *fake = make_fake();
	uint64_t now_ns = START;

	(void)state;
	assert_non_null(tenants);
	sl_tenants_tick(tenants, now_ns);
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		while (now_ns < START + rows[i].at_ms * SL_MS)
			sl_tenants_tick(tenants, now_ns += SL_QUOTA_TICK_NS);
		sl_tenants_shard_turn(shard, tenants, now_ns);
		print_message("%s\n", rows[i].why);

		const uint64_t wait_ns = send_part(fake, shard, 0, SL_TRACES, 100, rows[i].spans);

		if (!rows[i].want_wait_ms) {
			assert_int_equal(wait_ns, 0);
			continue;
		}
		// Jitter goes upward only, by at most a fifth.
		assert_in_range(wait_ns, rows[i].want_wait_ms * SL_MS,
				rows[i].want_wait_ms * SL_MS * 12 / 10 + SL_MS / 100);
		assert_int_equal(fake->part.reason, SL_REASON_QUOTA_EXCEEDED);
	}
	free(fake);
	sl_tenants_shard_destroy(shard);
	sl_tenants_destroy(tenants);
}

// Each dimension limits by itself, and a refusal by one leaves the others as they were.
static void test_all_or_none(void **state)
{
	static const struct {
		const char *why;
		struct sl_quota_config quota;
		enum sl_signal signal;
		unsigned want; // requests of 1000 bytes and 10 items until refused; 20: never
	} rows[] = {
		{"bytes", {.bytes = 5000}, SL_TRACES, 5},
		{"spans", {.spans = 70}, SL_TRACES, 7},
		{"spans do not limit metrics", {.spans = 70}, SL_METRICS, 20},
		{"points", {.points = 40}, SL_METRICS, 4},
		{"log records", {.log_records = 30}, SL_LOGS, 3},
		{"requests", {.requests = 6}, SL_LOGS, 6},
		{"the tightest of all", {.bytes = 9000, .spans = 50, .requests = 8}, SL_TRACES, 5},
		{"no quota at all", {.bytes = 0}, SL_TRACES, 20},
	};
	struct fake *fake = make_fake();

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_quota_config quota = rows[i].quota;

		print_message("%s\n", rows[i].why);
		quota.burst_ns = SL_S;

		struct sl_tenants *tenants = make_quota(quota, NULL);
		struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 4, NULL);
		unsigned admitted = 0;

		sl_tenants_shard_turn(shard, tenants, START);
		while (admitted < 20 && !send_part(fake, shard, 0, rows[i].signal, 1000, 10))
			admitted++;
		assert_int_equal(admitted, rows[i].want);
		if (admitted < 20 && quota.bytes > 0) {
			const struct sl_tenants_slot *slot =
				&shard->slots[*SL_BY_TENANT(&shard->slot_of, uint32_t, 0) - 1];
			const int64_t left = slot->chunk[SL_DIMENSION_BYTES] +
					     sl_quota_pool_level(slot->pool, SL_DIMENSION_BYTES);

			assert_int_equal(left, (int64_t)quota.bytes - 1000 * (int64_t)admitted);
		}
		sl_tenants_shard_destroy(shard);
		sl_tenants_destroy(tenants);
	}
	free(fake);
}

static void test_head_and_refund(void **state)
{
	struct sl_tenants *tenants = make_quota(
		(struct sl_quota_config){.bytes = 10000, .spans = 100, .burst_ns = SL_S}, NULL);
	struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);
	struct fake *fake = make_fake();
	uint64_t wait_ns = 0;

	(void)state;
	sl_tenants_shard_turn(shard, tenants, START);
	// Content-Length beyond what is there, but within half the burst's need: fits.
	assert_int_equal(sl_tenants_admit_head(shard, 0, SL_TRACES, 20000, &wait_ns), 0);
	assert_int_equal(send_part(fake, shard, 0, SL_TRACES, 6000, 100), 0);
	assert_int_equal(sl_tenants_admit_head(shard, 0, SL_TRACES, 0, &wait_ns),
			 SL_REASON_QUOTA_EXCEEDED);
	assert_in_range(wait_ns, 10 * SL_MS, 13 * SL_MS);
	// Spans are spent; metrics are not spans.
	assert_int_equal(sl_tenants_admit_head(shard, 0, SL_METRICS, 4000, &wait_ns), 0);
	assert_int_equal(sl_tenants_admit_head(shard, 0, SL_METRICS, 4500, &wait_ns),
			 SL_REASON_QUOTA_EXCEEDED);
	assert_in_range(wait_ns, 50 * SL_MS, 61 * SL_MS);
	// The charge comes back once, and only once.
	sl_tenants_refund(shard, &fake->part);
	sl_tenants_refund(shard, &fake->part);
	assert_int_equal(send_part(fake, shard, 0, SL_TRACES, 5000, 100), 0);
	assert_int_not_equal(send_part(fake, shard, 0, SL_TRACES, 1, 1), 0);
	free(fake);
	sl_tenants_shard_destroy(shard);
	sl_tenants_destroy(tenants);
}

// Each dimension that a request was charged for gets its charge back.
static void test_refund_of_each(void **state)
{
	static const struct {
		const char *why;
		struct sl_quota_config quota;
	} rows[] = {
		{"bytes", {.bytes = 100, .burst_ns = SL_S}},
		{"items", {.spans = 10, .burst_ns = SL_S}},
		{"requests", {.requests = 1, .burst_ns = SL_S}},
		{"all of them", {.bytes = 100, .spans = 10, .requests = 1, .burst_ns = SL_S}},
	};

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_tenants *tenants = make_quota(rows[i].quota, NULL);
		struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);
		struct fake *fake = make_fake();

		print_message("%s\n", rows[i].why);
		sl_tenants_shard_turn(shard, tenants, START);
		for (unsigned j = 0; j < 5; j++) {
			assert_int_equal(send_part(fake, shard, 0, SL_TRACES, 100, 10), 0);
			sl_tenants_refund(shard, &fake->part);
		}
		assert_int_equal(send_part(fake, shard, 0, SL_TRACES, 100, 10), 0);
		assert_int_not_equal(send_part(fake, shard, 0, SL_TRACES, 100, 10), 0);
		free(fake);
		sl_tenants_shard_destroy(shard);
		sl_tenants_destroy(tenants);
	}
}

static void test_observe(void **state)
{
	struct sl_tenants *tenants = make_quota((struct sl_quota_config){.spans = 10,
									 .in_flight_requests = 1,
									 .in_flight_bytes = 150,
									 .burst_ns = SL_S,
									 .mode = SL_QUOTA_OBSERVE,
									 .has = {.mode = true}},
						NULL);
	struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);
	struct fake *fake = make_fake();
	uint64_t wait_ns = 0;

	(void)state;
	sl_tenants_shard_turn(shard, tenants, START);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(send_part(fake, shard, 0, SL_TRACES, 1, 10), 0);
		assert_int_equal(sl_tenants_take_in_flight(shard, 0, 100, &wait_ns), 0);
	}
	assert_int_equal(shard->counters.observed[SL_DIMENSION_SPANS], 4);
	assert_int_equal(shard->counters.observed[SL_DIMENSION_IN_FLIGHT_REQUESTS], 4);
	assert_int_equal(shard->counters.refused[SL_DIMENSION_SPANS], 0);
	for (unsigned i = 0; i < 5; i++)
		sl_tenants_give_in_flight(shard, 0, 100);

	const struct sl_tenants_slot *slot =
		&shard->slots[*SL_BY_TENANT(&shard->slot_of, uint32_t, 0) - 1];

	assert_int_equal(slot->chunk[SL_DIMENSION_IN_FLIGHT_REQUESTS] +
				 sl_quota_pool_level(slot->pool, SL_DIMENSION_IN_FLIGHT_REQUESTS),
			 1);
	// What was let in beyond the limit was owed: given back, it makes no room beyond the limit.
	assert_int_equal(slot->chunk[SL_DIMENSION_IN_FLIGHT_BYTES] +
				 sl_quota_pool_level(slot->pool, SL_DIMENSION_IN_FLIGHT_BYTES),
			 150);
	free(fake);
	sl_tenants_shard_destroy(shard);
	sl_tenants_destroy(tenants);
}

static void test_in_flight(void **state)
{
	struct sl_tenants *tenants = make_quota((struct sl_quota_config){.in_flight_bytes = 1000,
									 .in_flight_requests = 3,
									 .burst_ns = SL_S},
						NULL);
	struct sl_tenants_shard *a = sl_tenants_shard_create(0, 2, NULL);
	struct sl_tenants_shard *b = sl_tenants_shard_create(1, 2, NULL);
	uint64_t wait_ns = 0;

	(void)state;
	sl_tenants_shard_turn(a, tenants, START);
	sl_tenants_shard_turn(b, tenants, START);
	assert_int_equal(sl_tenants_take_in_flight(a, 0, 100, &wait_ns), 0);
	assert_int_equal(sl_tenants_take_in_flight(b, 0, 100, &wait_ns), 0);
	// Bytes are short though a request is free, and the request is not kept.
	assert_int_equal(sl_tenants_take_in_flight(a, 0, 900, &wait_ns),
			 SL_REASON_IN_FLIGHT_EXCEEDED);
	assert_true(wait_ns >= SL_MS);
	assert_int_equal(sl_tenants_take_in_flight(a, 0, 100, &wait_ns), 0);
	assert_int_equal(sl_tenants_take_in_flight(b, 0, 0, &wait_ns),
			 SL_REASON_IN_FLIGHT_EXCEEDED);
	// A reload that lifts a limit, and one that sets it again, lose nothing that is in flight.
	struct sl_tenants *lifted = make_quota((struct sl_quota_config){.burst_ns = SL_S}, tenants);

	sl_tenants_tick(lifted, START);
	sl_tenants_shard_turn(a, lifted, START);
	sl_tenants_shard_turn(b, lifted, START);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(sl_tenants_take_in_flight(b, 0, 100, &wait_ns), 0);

	struct sl_tenants *again = make_quota(
		(struct sl_quota_config){.in_flight_requests = 8, .burst_ns = SL_S}, lifted);

	sl_tenants_tick(again, START);
	sl_tenants_shard_turn(a, again, START);
	sl_tenants_shard_turn(b, again, START);
	assert_int_equal(sl_tenants_take_in_flight(a, 0, 1, &wait_ns),
			 SL_REASON_IN_FLIGHT_EXCEEDED);
	sl_tenants_give_in_flight(b, 0, 100);
	assert_int_equal(sl_tenants_take_in_flight(a, 0, 1, &wait_ns), 0);
	sl_tenants_shard_destroy(a);
	sl_tenants_shard_destroy(b);
	sl_tenants_destroy(again);
	sl_tenants_destroy(lifted);
	sl_tenants_destroy(tenants);
}

// Rates change live, levels stay: nobody gets a second burst by a reload.
static void test_reload(void **state)
{
	struct sl_tenants *slow = make_quota(
		(struct sl_quota_config){.spans = 100, .burst_ns = SL_S}, NULL);
	struct sl_tenants *fast = make_quota(
		(struct sl_quota_config){.spans = 1000, .burst_ns = SL_S}, slow);
	struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);
	struct fake *fake = make_fake();
	unsigned admitted = 0;
	uint64_t now_ns = START;

	(void)state;
	sl_tenants_tick(slow, now_ns);
	sl_tenants_shard_turn(shard, slow, now_ns);
	while (!send_part(fake, shard, 0, SL_TRACES, 1, 10))
		admitted++;
	assert_int_equal(admitted, 10);
	sl_tenants_tick(fast, now_ns);
	sl_tenants_shard_turn(shard, fast, now_ns);
	assert_int_not_equal(send_part(fake, shard, 0, SL_TRACES, 1, 10), 0);
	sl_tenants_tick(fast, now_ns += SL_QUOTA_TICK_NS);
	sl_tenants_shard_turn(shard, fast, now_ns);
	assert_int_equal(send_part(fake, shard, 0, SL_TRACES, 1, 10), 0);
	assert_int_not_equal(send_part(fake, shard, 0, SL_TRACES, 1, 10), 0);
	// Back to slow: a level above the new burst is cut.
	for (unsigned i = 0; i < 200; i++)
		sl_tenants_tick(fast, now_ns += SL_QUOTA_TICK_NS);

	struct sl_tenants *slow_again = make_quota(
		(struct sl_quota_config){.spans = 100, .burst_ns = SL_S}, fast);

	sl_tenants_tick(slow_again, now_ns);
	sl_tenants_shard_turn(shard, slow_again, now_ns);
	for (admitted = 0; !send_part(fake, shard, 0, SL_TRACES, 1, 10);)
		admitted++;
	assert_in_range(admitted, 10, 12); // and at most a chunk of 20 ms at the old rate
	free(fake);
	sl_tenants_shard_destroy(shard);
	sl_tenants_destroy(slow_again);
	sl_tenants_destroy(fast);
	sl_tenants_destroy(slow);
}

// Against a bucket in plain floating point: random requests on 1 to 8 shards never get more than
// the bound over any stretch from the start, and a tenant that keeps asking gets all of it.
static void test_against_model(void **state)
{
	static const double rates[] = {
		1 / 3600.0, 0.5, 100, 12345, 1e6, 1e9, 100.0 * (double)SL_GIB};
	struct sl_random random;
	struct fake *fake = make_fake();

	(void)state;
	sl_random_init(&random, 42);
	for (unsigned r = 0; r < SL_COUNT_OF(rates) * 4; r++) {
		const double rate = rates[r % SL_COUNT_OF(rates)];
		const uint32_t shards = 1 + (uint32_t)sl_random_below(&random, 8);
		struct sl_tenants *tenants = make_quota(
			(struct sl_quota_config){.bytes = rate, .burst_ns = SL_S}, NULL);
		struct sl_tenants_shard *all[8];
		const double burst = (double)sl_limit_rate(rate, SL_S).burst;
		const double largest = r & 1 ? ceil(burst / 3) : burst * 2 + 1;
		double admitted = 0, bound;
		uint64_t now_ns = START;

		for (uint32_t i = 0; i < shards; i++)
			all[i] = sl_tenants_shard_create(i, shards, NULL);
		sl_tenants_tick(tenants, now_ns);
		for (unsigned tick = 0; tick < 600; tick++) {
			for (unsigned i = 0; i < 2 * shards; i++) {
				struct sl_tenants_shard *shard =
					all[sl_random_below(&random, shards)];
				const uint64_t bytes = 1 +
						       sl_random_below(&random, (uint64_t)largest);

				sl_tenants_shard_turn(shard, tenants, now_ns);
				if (!send_part(fake, shard, 0, SL_LOGS, bytes, 1))
					admitted += (double)bytes;
			}
			now_ns += SL_QUOTA_TICK_NS - sl_random_below(&random, SL_MS);
			sl_tenants_tick(tenants, now_ns);
			bound = rate * ((double)(now_ns - START) / 1e9 + 0.03) + burst +
				SL_MAX(0, largest - floor(burst / 2));
			assert_true(admitted <= bound + 1);
		}
		const double earned = rate * ((double)(now_ns - START) / 1e9 - 0.03);

		// What it has not taken is less than one request's need, or chunks.
		if (rate >= 100)
			assert_true(admitted >= earned - SL_MIN(largest, burst / 2));
		for (uint32_t i = 0; i < shards; i++)
			sl_tenants_shard_destroy(all[i]);
		sl_tenants_destroy(tenants);
	}
	free(fake);
}

struct worker {
	pthread_t thread;
	struct sl_tenants_shard *shard;
	struct sl_tenants *tenants;
	const uint64_t *now_ns; // writer: the main thread; 0: stop
	uint64_t drained_ns;    // the last time at which it was refused; writer: the worker
	uint64_t admitted;
};

static void *work(void *argument)
{
	struct worker *worker = argument;
	struct fake *fake = make_fake();
	uint64_t now_ns;

	while ((now_ns = __atomic_load_n(worker->now_ns, __ATOMIC_ACQUIRE)) != 0) {
		bool refused = false;

		sl_tenants_shard_turn(worker->shard, worker->tenants, now_ns);
		for (unsigned i = 0; i < 50 && !refused; i++) {
			refused = send_part(fake, worker->shard, 0, SL_TRACES, 100, 7);
			worker->admitted += refused ? 0 : 7;
		}
		if (refused)
			__atomic_store_n(&worker->drained_ns, now_ns, __ATOMIC_RELEASE);
		sched_yield();
	}
	free(fake);
	return NULL;
}

#define TICKS 15

// Real threads over a clock of the test's own, which moves on once every shard has been refused:
// what `count` shards admit together is what the one quota allows, however busy the machine.
static uint64_t run_threads(unsigned count)
{
	struct sl_tenants *tenants = make_quota(
		(struct sl_quota_config){.spans = 100000, .burst_ns = SL_S / 5}, NULL);
	struct worker workers[4] = {0};
	uint64_t now_ns = START, total = 0;

	sl_tenants_tick(tenants, now_ns);
	for (unsigned i = 0; i < count; i++) {
		workers[i] = (struct worker){.shard = sl_tenants_shard_create(i, count, NULL),
					     .tenants = tenants,
					     .now_ns = &now_ns};
		pthread_create(&workers[i].thread, NULL, work, &workers[i]);
	}
	for (unsigned tick = 0; tick <= TICKS; tick++) {
		const uint64_t next_ns = now_ns + SL_QUOTA_TICK_NS;

		for (unsigned i = 0; i < count; i++) {
			while (__atomic_load_n(&workers[i].drained_ns, __ATOMIC_ACQUIRE) != now_ns)
				sched_yield();
		}
		if (tick < TICKS)
			sl_tenants_tick(tenants, next_ns);
		__atomic_store_n(&now_ns, tick < TICKS ? next_ns : 0, __ATOMIC_RELEASE);
	}
	for (unsigned i = 0; i < count; i++) {
		pthread_join(workers[i].thread, NULL);
		total += workers[i].admitted;
		sl_tenants_shard_destroy(workers[i].shard);
	}
	sl_tenants_destroy(tenants);
	return total;
}

static void test_threads(void **state)
{
	(void)state;
	for (unsigned count = 1; count <= 4; count += 3) {
		const double total = (double)run_threads(count);
		const double earned = 20000 + 100000 * (double)TICKS * SL_QUOTA_TICK_NS / 1e9;

		assert_true(total <= earned + 100000 * 0.03 + 7);
		// No shard's own share: all of it is had, but for what lies in their chunks.
		assert_true(total >= earned - 100000 * 0.03);
	}
}

// More tenants than slots: chunks go back to the pools, and nothing is lost or made.
static void test_many_tenants(void **state)
{
	enum { COUNT = 3 * SL_TENANTS_SLOTS };
	struct sl_tenant_config *configs = calloc(COUNT, sizeof(*configs));
	char(*names)[16] = calloc(COUNT, sizeof(*names));
	struct sl_class_config class = {
		.name = "c", .priority = 1, .quota = {.spans = 100000, .burst_ns = SL_S}};
	const struct sl_tenants_module_config config = {
		.tenants = {.inline_ = {.classes = {&class, 1}, .tenants = {configs, COUNT}}}};
	struct fake *fake = make_fake();

	(void)state;
	for (unsigned i = 0; i < COUNT; i++) {
		snprintf(names[i], sizeof(names[i]), "t%u", i);
		configs[i] = (struct sl_tenant_config){.name = names[i], .class_name = "c"};
	}

	struct sl_tenants *tenants = make_tenants(&config, NULL);
	struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);

	assert_int_equal(sl_tenants_count(tenants), COUNT);
	sl_tenants_shard_turn(shard, tenants, START);
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = 0; i < COUNT; i++)
			assert_int_equal(send_part(fake, shard, i, SL_TRACES, 1, 10), 0);
	for (unsigned i = 0; i < COUNT; i++) {
		const uint32_t slot = *SL_BY_TENANT(&shard->slot_of, uint32_t, i);
		const int64_t own = slot ? shard->slots[slot - 1].chunk[SL_DIMENSION_SPANS] : 0;

		assert_int_equal(
			own + sl_quota_pool_level(tenants->entries[i].pool, SL_DIMENSION_SPANS),
			100000 - 30);
	}
	sl_tenants_shard_destroy(shard);
	sl_tenants_destroy(tenants);
	free(fake);
	free(names);
	free(configs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits),         cmocka_unit_test(test_steps),
		cmocka_unit_test(test_all_or_none),    cmocka_unit_test(test_head_and_refund),
		cmocka_unit_test(test_refund_of_each), cmocka_unit_test(test_observe),
		cmocka_unit_test(test_in_flight),      cmocka_unit_test(test_reload),
		cmocka_unit_test(test_against_model),  cmocka_unit_test(test_threads),
		cmocka_unit_test(test_many_tenants),
	};

	sl_hash_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
