#include "tests/unit/routing/rig.h"

// What is merged has one key, whatever happens while a bucket is closed.

// A driver whose endpoints own tenants; it holds what it is given.
static struct {
	uint32_t generation; // of who owns what
	struct sl_record *held[16];
	unsigned count;
} fake;

static void *fake_open(void *self, const struct sl_driver_env *env)
{
	(void)self, (void)env;
	return &fake;
}

static void fake_close(void *side)
{
	(void)side;
}

static enum sl_reason fake_submit(void *side, struct sl_record *record)
{
	(void)side;
	assert_true(fake.count < SL_COUNT_OF(fake.held));
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

// Two tenants whose buckets are the same, by merge.c: 31 more in number, 3 less in owner.
static uint32_t fake_owner(void *side, struct sl_bytes key)
{
	(void)side;
	return fake.generation << 8 | (key.data[0] == 'B' ? 4 : 1);
}

static bool fake_owns(void *side, uint32_t of)
{
	(void)side;
	return of >> 8 == fake.generation;
}

static const struct sl_driver driver = {
	.name = "fake",
	.destroy = fake_destroy,
	.open = fake_open,
	.close = fake_close,
	.submit = fake_submit,
	.poll = fake_poll,
	.owner = fake_owner,
	.owns = fake_owns,
};

static void merge_by_owner(struct sl_routing *routing)
{
	struct sl_destination *destination = routing->destinations[0];

	destination->spread = SL_SPREAD_TENANT;
	destination->merge = (struct sl_merge_config){
		.requests = 8, .bytes = SL_MIB, .delay_ns = 10 * SL_MS};
}

#define ONE  TRACES(RESOURCE("x", SPAN(ID1)))
#define YAML "destinations: {d: {blackhole: {}}}\nroutes: [{to: [d]}]\n"

static void end_all(void)
{
	for (unsigned i = 0; i < fake.count; i++)
		sl_egress_end(fake.held[i], SL_OUTCOME_DELIVERED, 0);
	fake.count = 0;
}

// The first tenant's record waits when its owner changes; the second one's, of another key, closes
// the bucket: the first is dealt anew and falls into the very bucket again.
static void test_a_bucket_that_fills_while_it_closes(void **state)
{
	struct rig rig = {.driver = &driver, .adjust = merge_by_owner, .now_ns = 100 * SL_S};
	struct call calls[3];
	unsigned items = 0;

	(void)state;
	memset(&fake, 0, sizeof(fake));
	fake.generation = 1;
	set_up(&rig, YAML);
	offer(&rig, &calls[0], "B", SL_TRACES, ONE);
	assert_int_equal(fake.count, 0);
	fake.generation = 2;
	offer(&rig, &calls[1], "a", SL_TRACES, ONE);
	offer(&rig, &calls[2], "a", SL_TRACES, ONE);
	rig.now_ns += 10 * SL_MS;
	sl_routing_poll(rig.shard, rig.now_ns);
	for (unsigned i = 0; i < fake.count; i++) {
		const struct sl_record *record = fake.held[i];

		items += record->items;
		assert_true(fake_owns(NULL, record->owner));
		for (const struct sl_record *one = record->members; one; one = one->next) {
			assert_true(sl_bytes_equal(one->tenant_name, record->tenant_name));
			assert_int_equal(one->owner, record->owner);
		}
	}
	assert_int_equal(items, 3);
	assert_int_equal(fake.count, 2); // the first alone, the others together
	end_all();
	for (unsigned i = 0; i < SL_COUNT_OF(calls); i++)
		assert_int_equal(calls[i].released, 1);
	tear_down(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_bucket_that_fills_while_it_closes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
