#include "tests/unit/routing/rig.h"

// A group on a shard: who gets a request's records, with drivers that do as they are told.

static struct fake {
	unsigned asked, away_at; // until() says no at that call; 0: never
	struct sl_record *held[16];
	unsigned count;
} fakes[2];

static void *fake_open(void *self, const struct sl_driver_env *env)
{
	(void)env;
	return self;
}

static void fake_close(void *side)
{
	(void)side;
}

static enum sl_reason fake_submit(void *side, struct sl_record *record)
{
	struct fake *fake = side;

	fake->held[fake->count++] = record;
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

static uint64_t fake_until(void *side, uint64_t now_ns)
{
	struct fake *fake = side;

	return ++fake->asked == fake->away_at ? now_ns + 10 * SL_MS : 0;
}

static const struct sl_driver driver = {
	.name = "fake",
	.destroy = fake_destroy,
	.open = fake_open,
	.close = fake_close,
	.submit = fake_submit,
	.poll = fake_poll,
	.until = fake_until,
};

static void use_fakes(struct sl_routing *routing)
{
	for (unsigned i = 0; i < 2; i++) {
		struct sl_destination *destination = routing->destinations[i];

		destination->driver->destroy(destination->self);
		destination->driver = &driver;
		destination->self = &fakes[i];
	}
}

static void at(struct rig *rig, uint64_t now_ns)
{
	rig->now_ns = now_ns;
	sl_routing_poll(rig->shard, now_ns);
}

static void end_all(struct fake *fake)
{
	const unsigned count = fake->count;

	fake->count = 0;
	for (unsigned i = 0; i < count; i++)
		sl_egress_end(fake->held[i], SL_OUTCOME_DELIVERED, 0);
}

static const char yaml[] = "destinations:\n"
			   "  a: {blackhole: {}, retry: {initial: 1ms}}\n"
			   "  b: {blackhole: {}, retry: {initial: 1ms}}\n"
			   "  g: {failover: {to: [a, b], return_after: 1s}}\n"
			   "routes: [{match: {service: x}, to: [g]}, {to: [g]}]\n";

// Two rules take a resource each. The one in use is not to be had for one look only, the second:
// if each rule looked for itself they would go to different places.
static void test_a_request_stays_together(void **state)
{
	struct rig rig = {.adjust = use_fakes, .now_ns = 100 * SL_S};
	struct call call;

	(void)state;
	memset(fakes, 0, sizeof(fakes));
	set_up(&rig, yaml);
	at(&rig, 101 * SL_S);
	fakes[0].away_at = fakes[0].asked + 2;
	offer(&rig, &call, "t", SL_TRACES,
	      TRACES(RESOURCE("x", SPAN(ID1)) "," RESOURCE("y", SPAN(ID2))));
	assert_int_equal(count(&rig, "sluice_taken_items", "a"), 2);
	assert_int_equal(count(&rig, "sluice_taken_items", "b"), 0);
	at(&rig, 102 * SL_S);
	assert_int_equal(fakes[0].count, 2); // the one that was put off, too
	end_all(&fakes[0]);
	assert_int_equal(call.released, 1);
	assert_int_equal(count(&rig, "sluice_failover_switches", NULL), 0);
	tear_down(&rig);
}

// What is so at the next request decides about that one, and the way back waits.
static void test_the_next_request_is_looked_at_anew(void **state)
{
	static const struct {
		const char *why;
		bool away;
		uint64_t after_ns;
		unsigned to;
	} rows[] = {
		{"the first is there", false, 0, 0},
		{"it has gone", true, SL_MS, 1},
		{"it is back, but not for long", false, 500 * SL_MS, 1},
		{"it has been for a second, doubled as it failed soon", false, 2 * SL_S, 0},
	};
	struct rig rig = {.adjust = use_fakes, .now_ns = 100 * SL_S};

	(void)state;
	memset(fakes, 0, sizeof(fakes));
	set_up(&rig, yaml);
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct call call;

		rig.now_ns += rows[i].after_ns;
		fakes[0].away_at = rows[i].away ? fakes[0].asked + 1 : 0;
		offer(&rig, &call, "t", SL_TRACES,
		      TRACES(RESOURCE("x", SPAN(ID1)) "," RESOURCE("y", SPAN(ID2))));
		if (fakes[rows[i].to].count != 2)
			fail_msg("%s", rows[i].why);
		end_all(&fakes[rows[i].to]);
		assert_int_equal(call.released, 1);
	}
	tear_down(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_request_stays_together),
		cmocka_unit_test(test_the_next_request_is_looked_at_anew),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
