#include "tests/unit/routing/rig.h"

// Retries, give-ups, caps and books, with a driver that does as it is told and a clock of its own.

static struct {
	bool closed;             // open() fails
	bool full;               // submit() refuses
	enum sl_outcome outcome; // how held ones end
	uint64_t retry_after_ns;
	struct sl_record *held[256];
	unsigned count, submits, opens, closes;
} fake;

static void *fake_open(void *self, const struct sl_driver_env *env)
{
	(void)self;
	assert_non_null(env->counters);
	fake.opens++;
	return fake.closed ? NULL : &fake;
}

static void fake_close(void *side)
{
	assert_ptr_equal(side, &fake);
	fake.closes++;
}

static enum sl_reason fake_submit(void *side, struct sl_record *record)
{
	assert_ptr_equal(side, &fake);
	fake.submits++;
	if (fake.full)
		return SL_REASON_EGRESS_FULL;
	fake.held[fake.count++] = record;
	return SL_REASON_NONE;
}

static void fake_poll(void *side, uint64_t now_ns)
{
	(void)side, (void)now_ns;
}

static void fake_destroy(void *self)
{
	(void)self;
}

static const struct sl_driver driver = {
	.name = "fake",
	.destroy = fake_destroy,
	.open = fake_open,
	.close = fake_close,
	.submit = fake_submit,
	.poll = fake_poll,
};

// Ends what the driver holds.
static void end_all(enum sl_outcome outcome, uint64_t retry_after_ns)
{
	const unsigned count = fake.count;

	fake.count = 0;
	for (unsigned i = 0; i < count; i++)
		sl_egress_end(fake.held[i], outcome, retry_after_ns);
}

static void at(struct rig *rig, uint64_t now_ns)
{
	rig->now_ns = now_ns;
	sl_routing_poll(rig->shard, now_ns);
}

static void begin(struct rig *rig, const char *yaml)
{
	memset(&fake, 0, sizeof(fake));
	*rig = (struct rig){.driver = &driver, .now_ns = 100 * SL_S};
	set_up(rig, yaml);
}

static void check_books(const struct rig *rig, const char *name, uint64_t taken)
{
	static const char *const ends[] = {"delivered", "rejected", "dropped", "returned", "lost"};
	uint64_t sum = count(rig, "sluice_destination_in_flight_items", name);

	for (size_t i = 0; i < SL_COUNT_OF(ends); i++) {
		char metric[64];

		snprintf(metric, sizeof(metric), "sluice_%s_items", ends[i]);
		sum += count(rig, metric, name);
	}
	assert_int_equal(count(rig, "sluice_taken_items", name), taken);
	assert_int_equal(sum, taken);
	assert_int_equal(count(rig, "sluice_pinned_bytes", name), 0);
	assert_int_equal(count(rig, "sluice_queue_records", name), 0);
}

#define ONE TRACES(RESOURCE("x", SPAN(ID1)))
#define REQUIRED                                                                                   \
	"destinations: {d: {blackhole: {}, retry: {initial: 100ms, max: 1s, max_elapsed: 20s}}}\n" \
	"routes: [{to: [d]}]\n"
#define BEST_EFFORT                                                                                \
	"destinations: {d: {blackhole: {}, retry: {initial: 100ms, max: 1s, max_elapsed: 20s}}}\n" \
	"routes: [{to: [{destination: d, required: false}]}]\n"

static void test_backoff_grows_and_is_jittered(void **state)
{
	static const uint64_t whole_ms[] = {100, 200, 400, 800, 1000, 1000, 1000};
	struct rig rig;
	struct call call;

	(void)state;
	begin(&rig, BEST_EFFORT);
	offer(&rig, &call, "t", SL_TRACES, ONE);
	for (size_t i = 0; i < SL_COUNT_OF(whole_ms); i++) {
		const uint64_t whole_ns = whole_ms[i] * SL_MS, from = rig.now_ns;

		assert_int_equal(fake.count, 1);
		end_all(SL_OUTCOME_RETRYABLE, 0);
		at(&rig, from + whole_ns / 2 - 1);
		assert_int_equal(fake.count, 0); // half of it is always waited
		at(&rig, from + whole_ns);
	}
	assert_int_equal(fake.count, 1);
	end_all(SL_OUTCOME_DELIVERED, 0);
	assert_int_equal(call.released, 1);
	assert_int_equal(count(&rig, "sluice_retried_records", "d"), SL_COUNT_OF(whole_ms));
	check_books(&rig, "d", 1);
	tear_down(&rig);
}

static void test_the_upstream_says_when(void **state)
{
	struct rig rig;
	struct call call;

	(void)state;
	begin(&rig, BEST_EFFORT);
	offer(&rig, &call, "t", SL_TRACES, ONE);
	end_all(SL_OUTCOME_RETRYABLE, 5 * SL_S);
	at(&rig, rig.now_ns + 5 * SL_S - 1);
	assert_int_equal(fake.count, 0);
	at(&rig, rig.now_ns + 1);
	assert_int_equal(fake.count, 1);
	end_all(SL_OUTCOME_DELIVERED, 0);
	check_books(&rig, "d", 1);
	tear_down(&rig);
}

static void test_ends(void **state)
{
	static const struct {
		const char *why, *route, *acknowledge;
		enum sl_outcome end;
		uint64_t after_ns; // when it ends
		const char *counter;
		enum sl_reason reason;
		bool settled_at_once;
	} rows[] = {
		{"confirmed", "d", "delivered", SL_OUTCOME_DELIVERED, 0, "delivered",
		 SL_REASON_NONE, false},
		{"refused for good", "d", "delivered", SL_OUTCOME_REJECTED, 0, "rejected",
		 SL_REASON_REJECTED, false},
		{"no time left for another attempt: the sender tries again", "d", "delivered",
		 SL_OUTCOME_RETRYABLE, 3990 * SL_MS, "returned", SL_REASON_UNDELIVERED, false},
		{"best effort, refused for good", "{destination: d, required: false}", "delivered",
		 SL_OUTCOME_REJECTED, 0, "rejected", SL_REASON_NONE, true},
		{"best effort, out of time", "{destination: d, required: false}", "delivered",
		 SL_OUTCOME_RETRYABLE, 20 * SL_S, "dropped", SL_REASON_NONE, true},
		{"acknowledged early, confirmed", "d", "queued", SL_OUTCOME_DELIVERED, 0,
		 "delivered", SL_REASON_NONE, true},
		{"acknowledged early, out of time: lost, and said so", "d", "queued",
		 SL_OUTCOME_RETRYABLE, 20 * SL_S, "lost", SL_REASON_NONE, true},
		{"acknowledged early, refused for good", "d", "queued", SL_OUTCOME_REJECTED, 0,
		 "rejected", SL_REASON_NONE, true},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		char yaml[512], counter[64];
		struct rig rig;
		struct call call;

		snprintf(yaml, sizeof(yaml),
			 "acknowledge: %s\n"
			 "destinations: {d: {blackhole: {}, retry: {max_elapsed: 20s}}}\n"
			 "routes: [{to: [%s]}]\n",
			 rows[i].acknowledge, rows[i].route);
		begin(&rig, yaml);
		offer(&rig, &call, "t", SL_TRACES, ONE);
		if (call.settled != rows[i].settled_at_once)
			fail_msg("%s: settled %u", rows[i].why, call.settled);
		assert_int_equal(call.released, 0);
		at(&rig, rig.now_ns + rows[i].after_ns);
		end_all(rows[i].end, 0);
		snprintf(counter, sizeof(counter), "sluice_%s_items", rows[i].counter);
		if (count(&rig, counter, "d") != 1 || call.request.reason != rows[i].reason)
			fail_msg("%s: %s %u", rows[i].why, counter, call.request.reason);
		assert_int_equal(call.settled, 1);
		assert_int_equal(call.released, 1);
		check_books(&rig, "d", 1);
		tear_down(&rig);
	}
}

static void test_a_full_driver_is_asked_again(void **state)
{
	struct rig rig;
	struct call call;

	(void)state;
	begin(&rig, REQUIRED);
	fake.full = true;
	offer(&rig, &call, "t", SL_TRACES, ONE);
	for (unsigned i = 0; i < 10; i++)
		at(&rig, rig.now_ns + 5 * SL_MS);
	assert_int_equal(fake.submits, 11);
	assert_int_equal(count(&rig, "sluice_retried_records", "d"), 0); // no attempt was made
	fake.full = false;
	at(&rig, rig.now_ns + 5 * SL_MS);
	end_all(SL_OUTCOME_DELIVERED, 0);
	assert_int_equal(call.released, 1);
	check_books(&rig, "d", 1);
	tear_down(&rig);
}

// What waits is not all held out to a driver that has just said no.
static void test_a_full_driver_is_asked_a_few_times_a_turn(void **state)
{
	struct rig rig;
	struct call calls[50];

	(void)state;
	begin(&rig, REQUIRED);
	fake.full = true;
	for (size_t i = 0; i < SL_COUNT_OF(calls); i++)
		offer(&rig, &calls[i], "t", SL_TRACES, ONE);
	fake.submits = 0;
	at(&rig, rig.now_ns + 5 * SL_MS);
	assert_true(fake.submits <= 4);
	fake.full = false;
	at(&rig, rig.now_ns + 5 * SL_MS);
	assert_int_equal(fake.count, SL_COUNT_OF(calls));
	for (size_t i = 1; i < SL_COUNT_OF(calls); i++) // in their order
		assert_ptr_equal(fake.held[i]->delivery->part, &calls[i].request.first_part);
	end_all(SL_OUTCOME_DELIVERED, 0);
	check_books(&rig, "d", SL_COUNT_OF(calls));
	tear_down(&rig);
}

// A tenant that fills the queue waits for itself: another's record is among the next few.
static void test_tenants_take_turns(void **state)
{
	struct rig rig;
	struct call calls[50], quiet[3], late;

	(void)state;
	begin(&rig, REQUIRED);
	fake.full = true;
	for (size_t i = 0; i < SL_COUNT_OF(calls); i++)
		offer(&rig, &calls[i], "t", SL_TRACES, ONE);
	for (size_t i = 0; i < SL_COUNT_OF(quiet); i++)
		offer(&rig, &quiet[i], "u", SL_TRACES, ONE);
	fake.full = false;
	offer(&rig, &late, "t", SL_TRACES, ONE); // nobody goes past those that wait
	assert_int_equal(fake.count, 0);
	at(&rig, rig.now_ns + 5 * SL_MS);
	assert_int_equal(fake.count, SL_COUNT_OF(calls) + SL_COUNT_OF(quiet) + 1);
	for (size_t i = 0; i < SL_COUNT_OF(quiet); i++) {
		unsigned index = 0;

		while (fake.held[index]->delivery->part->request->shard != &quiet[i])
			index++;
		assert_true(index < 8);
	}
	end_all(SL_OUTCOME_DELIVERED, 0);
	check_books(&rig, "d", SL_COUNT_OF(calls) + SL_COUNT_OF(quiet) + 1);
	tear_down(&rig);
}

static void test_a_driver_that_stays_full_is_given_up(void **state)
{
	struct rig rig;
	struct call call;

	(void)state;
	begin(&rig, REQUIRED);
	fake.full = true;
	offer(&rig, &call, "t", SL_TRACES, ONE);
	at(&rig, rig.now_ns + 4 * SL_S);
	assert_int_equal(call.released, 1);
	assert_int_equal(call.request.reason, SL_REASON_UNDELIVERED);
	assert_int_equal(count(&rig, "sluice_returned_items", "d"), 1);
	check_books(&rig, "d", 1);
	tear_down(&rig);
}

static void test_a_destination_that_cannot_be_opened(void **state)
{
	struct rig rig;
	struct call call;

	(void)state;
	for (int required = 0; required < 2; required++) {
		memset(&fake, 0, sizeof(fake));
		fake.closed = true;
		rig = (struct rig){.driver = &driver, .now_ns = 100 * SL_S};
		set_up(&rig, required ? REQUIRED : BEST_EFFORT);
		offer(&rig, &call, "t", SL_TRACES, ONE);
		assert_int_equal(call.released, 1);
		assert_int_equal(call.refused, required ? SL_REASON_EGRESS_FULL : SL_REASON_NONE);
		assert_int_equal(count(&rig, "sluice_dropped_items", "d"), !required);
		check_books(&rig, "d", !required);
		at(&rig, rig.now_ns + 500 * SL_MS);
		assert_int_equal(fake.opens, 1);
		fake.closed = false; // tried again each second
		at(&rig, rig.now_ns + 500 * SL_MS);
		assert_int_equal(fake.opens, 2);
		offer(&rig, &call, "t", SL_TRACES, ONE);
		assert_int_equal(call.refused, SL_REASON_NONE);
		end_all(SL_OUTCOME_DELIVERED, 0);
		assert_int_equal(count(&rig, "sluice_delivered_items", "d"), 1);
		tear_down(&rig);
		assert_int_equal(fake.closes, 1);
	}
}

static void test_caps(void **state)
{
	static const struct {
		const char *why, *caps, *tenant;
		bool taken; // of 100 kB, behind 100 kB of tenant t
	} rows[] = {
		{"within both", "pinned_bytes: 1MB", "t", true},
		{"the destination's", "pinned_bytes: 150kB, tenant_share: 100%", "u", false},
		{"the tenant's", "pinned_bytes: 300kB, tenant_share: 50%", "t", false},
		{"another tenant's share is its own", "pinned_bytes: 300kB, tenant_share: 50%", "u",
		 true},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct rig rig;
		struct call first, second;
		char yaml[256];

		snprintf(yaml, sizeof(yaml),
			 "destinations: {d: {blackhole: {}, %s}}\nroutes: [{to: [d]}]\n",
			 rows[i].caps);
		begin(&rig, yaml);
		offer(&rig, &first, "t", SL_TRACES, ONE);
		offer(&rig, &second, rows[i].tenant, SL_TRACES, ONE);
		if ((second.refused == SL_REASON_NONE) != rows[i].taken)
			fail_msg("%s: %u", rows[i].why, second.refused);
		assert_int_equal(count(&rig, "sluice_egress_full_parts", "d"), !rows[i].taken);
		end_all(SL_OUTCOME_DELIVERED, 0);
		assert_int_equal(first.released + second.released, 2);
		// What has ended makes room.
		offer(&rig, &second, rows[i].tenant, SL_TRACES, ONE);
		assert_int_equal(second.refused, SL_REASON_NONE);
		end_all(SL_OUTCOME_DELIVERED, 0);
		check_books(&rig, "d", 2 + rows[i].taken);
		tear_down(&rig);
	}
}

// All best-effort deliveries together pin at most a quarter of the budget (64 MiB here).
static void test_best_effort_shares_a_quarter(void **state)
{
	static struct call calls[200];
	struct rig rig;
	uint64_t pinned;
	unsigned made = 0;

	(void)state;
	begin(&rig, "destinations: {d: {blackhole: {}, pinned_bytes: 1GiB, tenant_share: 100%}}\n"
		    "routes: [{match: {tenant: b}, to: [{destination: d, required: false}]}, "
		    "{to: [d]}]\n");
	while (!count(&rig, "sluice_dropped_items", "d") && made < SL_COUNT_OF(calls) - 1)
		offer(&rig, &calls[made++], "b", SL_TRACES, ONE);
	pinned = count(&rig, "sluice_pinned_bytes", "d");
	assert_true(pinned <= 16 * SL_MIB && pinned > 15 * SL_MIB);
	offer(&rig, &calls[made], "t", SL_TRACES, ONE); // a required one has its own cap
	assert_int_equal(calls[made].refused, SL_REASON_NONE);
	assert_int_equal(fake.count, made);
	end_all(SL_OUTCOME_DELIVERED, 0);
	check_books(&rig, "d", made + 1);
	tear_down(&rig);
}

// However little memory is left: a required copy is refused, a best-effort one dropped, none is
// half sent.
static void test_memory_ends(void **state)
{
	struct rig rig;
	unsigned refused = 0, dropped = 0, sent = 0;

	(void)state;
	for (int required = 0; required < 2; required++) {
		begin(&rig, required ? REQUIRED : BEST_EFFORT);
		rig.routing[0]->destinations[0]->by_trace = true;
		rig.routing[0]->destinations[0]->record_bytes_max = 60;
		for (unsigned i = 0; i < 60; i++) {
			struct call call;

			rig.left = 1 + i * 4 * SL_KIB;
			offer(&rig, &call, "t", SL_TRACES,
			      TRACES(RESOURCE(
				      "x", SPAN(ID1) "," SPAN(ID2) "," SPAN(ID1) "," SPAN(ID1))));
			refused += call.refused == SL_REASON_MEMORY_FULL;
			sent += fake.count > 0;
			for (unsigned j = 0; j < fake.count; j++)
				assert_in_range(fake.held[j]->items, 1, 2);
			end_all(SL_OUTCOME_DELIVERED, 0);
			assert_int_equal(call.released, 1);
		}
		dropped += count(&rig, "sluice_dropped_items", "d") > 0;
		check_books(&rig, "d", count(&rig, "sluice_taken_items", "d"));
		assert_int_equal(count(&rig, "sluice_taken_items", "d") % 4, 0);
		tear_down(&rig);
	}
	assert_true(refused && dropped && sent);
}

static void test_a_stall_shows_and_ends(void **state)
{
	struct rig rig;
	struct call calls[3];
	uint64_t began;

	(void)state;
	begin(&rig, BEST_EFFORT);
	at(&rig, rig.now_ns + 60 * SL_S); // idle, however long, is no stall
	assert_int_equal(count(&rig, "sluice_destination_stalled_shards", "d"), 0);
	began = rig.now_ns;
	offer(&rig, &calls[0], "t", SL_TRACES, ONE);
	offer(&rig, &calls[1], "t", SL_TRACES, ONE);
	at(&rig, began + 10 * SL_S - 1);
	assert_int_equal(count(&rig, "sluice_destination_stalled_shards", "d"), 0);
	at(&rig, began + 10 * SL_S);
	at(&rig, began + 12 * SL_S);
	assert_int_equal(count(&rig, "sluice_destination_stalled_shards", "d"), 1);
	fake.count = 1; // one of two is enough
	sl_egress_end(fake.held[0], SL_OUTCOME_DELIVERED, 0);
	at(&rig, began + 13 * SL_S);
	assert_int_equal(count(&rig, "sluice_destination_stalled_shards", "d"), 0);
	at(&rig, began + 23 * SL_S);
	assert_int_equal(count(&rig, "sluice_destination_stalled_shards", "d"), 1);
	sl_egress_end(fake.held[1], SL_OUTCOME_REJECTED, 0);
	at(&rig, began + 23 * SL_S + 1);
	assert_int_equal(count(&rig, "sluice_destination_stalled_shards", "d"), 0);
	check_books(&rig, "d", 2);
	tear_down(&rig);
}

static void test_time_and_bytes_of_what_is_confirmed(void **state)
{
	struct rig rig;
	struct call calls[2];
	uint64_t began, bytes;
	size_t size;
	char *text;

	(void)state;
	begin(&rig, BEST_EFFORT);
	began = rig.now_ns;
	offer(&rig, &calls[0], "t", SL_TRACES, ONE);
	offer(&rig, &calls[1], "t", SL_TRACES, ONE);
	bytes = fake.held[0]->bytes;
	assert_true(bytes > 10);
	at(&rig, began + 3 * SL_MS);
	sl_egress_end(fake.held[1], SL_OUTCOME_REJECTED, 0); // counts for neither
	fake.count = 1;
	end_all(SL_OUTCOME_RETRYABLE, 0);
	at(&rig, began + 200 * SL_MS); // tried again: its time goes on
	at(&rig, began + 400 * SL_MS);
	assert_int_equal(count(&rig, "sluice_delivered_bytes", "d"), 0);
	end_all(SL_OUTCOME_DELIVERED, 0);
	assert_int_equal(count(&rig, "sluice_delivered_bytes", "d"), bytes);
	text = sl_metrics_render(rig.metrics, false, &size);
	assert_non_null(strstr(text, "sluice_delivery_duration_seconds_bucket{destination=\"d\","
				     "le=\"0.25\"} 0\n"));
	assert_non_null(strstr(text, "{destination=\"d\",le=\"0.5\"} 1\n"));
	assert_non_null(strstr(text, "sluice_delivery_duration_seconds_sum{destination=\"d\"} "
				     "0.400000000\n"));
	free(text);
	tear_down(&rig);
}

// An open breaker is half open when its time has come, whether or not anything is sent then; the
// shard wakes for it.
static void test_a_breaker_shows_what_it_is(void **state)
{
	struct rig rig;
	struct call call;

	(void)state;
	begin(&rig, "destinations: {d: {blackhole: {}, breaker: {failures: 1, wait: 1s},\n"
		    "  retry: {initial: 100ms, max_elapsed: 1ms}}}\n"
		    "routes: [{to: [{destination: d, required: false}]}]\n");
	at(&rig, rig.now_ns);
	assert_int_equal(count(&rig, "sluice_breaker_shards", "closed"), 1);
	offer(&rig, &call, "t", SL_TRACES, ONE);
	end_all(SL_OUTCOME_RETRYABLE, 0);
	assert_int_equal(call.released, 1); // given up: nothing is there that could be sent
	assert_int_equal(count(&rig, "sluice_breaker_shards", "open"), 1);
	at(&rig, rig.now_ns + 500 * SL_MS);
	assert_int_equal(count(&rig, "sluice_breaker_shards", "open"), 1);
	assert_int_equal(rig.shard->timer.at_ns, rig.now_ns + 500 * SL_MS);
	at(&rig, rig.now_ns + 500 * SL_MS);
	assert_int_equal(count(&rig, "sluice_breaker_shards", "open"), 0);
	assert_int_equal(count(&rig, "sluice_breaker_shards", "half_open"), 1);
	offer(&rig, &call, "t", SL_TRACES, ONE);
	end_all(SL_OUTCOME_DELIVERED, 0);
	assert_int_equal(count(&rig, "sluice_breaker_shards", "half_open"), 0);
	assert_int_equal(count(&rig, "sluice_breaker_shards", "closed"), 1);
	tear_down(&rig);
}

// Each answer that is no success, by what was said and what it is to the sender.
static void test_refusals_are_counted_by_what_was_said(void **state)
{
	struct rig rig;
	struct call calls[3];
	char *text;
	size_t size;

	(void)state;
	begin(&rig, "destinations: {d: {blackhole: {}, pinned_bytes: 250kB, tenant_share: 100%}}\n"
		    "routes: [{to: [d]}]\n");
	for (unsigned i = 0; i < 3; i++)
		offer(&rig, &calls[i], "t", SL_TRACES, ONE);
	assert_int_equal(calls[2].refused, SL_REASON_EGRESS_FULL);
	sl_egress_answered(fake.held[0], SL_ANSWER_HTTP_400, SL_OUTCOME_REJECTED);
	sl_egress_answered(fake.held[1], SL_ANSWER_HTTP_503, SL_OUTCOME_RETRYABLE);
	sl_egress_answered(fake.held[1], SL_ANSWER_HTTP_503, SL_OUTCOME_RETRYABLE);
	sl_egress_answered(fake.held[1], SL_ANSWER_TIMEOUT, SL_OUTCOME_RETRYABLE);
	sl_egress_answered(fake.held[1], SL_ANSWER_FILE_ERROR, SL_OUTCOME_RETRYABLE);
	end_all(SL_OUTCOME_DELIVERED, 0);
	text = sl_metrics_render(rig.metrics, false, &size);
	for (size_t i = 0; i < 5; i++) {
		static const char *const lines[] = {
			"answer=\"none\",reason=\"egress_full\"} 1\n",
			"answer=\"http_400\",reason=\"rejected\"} 1\n",
			"answer=\"http_503\",reason=\"undelivered\"} 2\n",
			"answer=\"timeout\",reason=\"timed_out\"} 1\n",
			"answer=\"file_error\",reason=\"undelivered\"} 1\n",
		};
		char line[160];

		snprintf(line, sizeof(line),
			 "sluice_destination_refused_records_total{destination=\"d\",%s", lines[i]);
		if (!strstr(text, line))
			fail_msg("%s in\n%s", line, text);
	}
	free(text);
	assert_int_equal(count(&rig, "sluice_destination_refused_records", "d"), 6);
	tear_down(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_backoff_grows_and_is_jittered),
		cmocka_unit_test(test_the_upstream_says_when),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_a_full_driver_is_asked_again),
		cmocka_unit_test(test_a_full_driver_is_asked_a_few_times_a_turn),
		cmocka_unit_test(test_tenants_take_turns),
		cmocka_unit_test(test_a_driver_that_stays_full_is_given_up),
		cmocka_unit_test(test_a_destination_that_cannot_be_opened),
		cmocka_unit_test(test_caps),
		cmocka_unit_test(test_best_effort_shares_a_quarter),
		cmocka_unit_test(test_memory_ends),
		cmocka_unit_test(test_a_stall_shows_and_ends),
		cmocka_unit_test(test_a_breaker_shows_what_it_is),
		cmocka_unit_test(test_refusals_are_counted_by_what_was_said),
		cmocka_unit_test(test_time_and_bytes_of_what_is_confirmed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
