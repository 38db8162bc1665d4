#include "tests/unit/tenants/fixture.h"

#include "dataplane/base/random.h"
#include "dataplane/otlp/splice.h"
#include "tests/oracle/oracle.pb-c.h"
#include "tests/oracle/random.h"

// `excess: cut`: random requests against random levels. What stays is decoded by protobuf-c and
// held against the first items of what came; what is charged, against the pool.

#define START     (1000 * SL_S)
#define BODY_MAX  (32 * SL_KIB)
#define ITEMS_MAX 4096

static struct sl_memory memory;

static int set_up(void **state)
{
	(void)state;
	return sl_memory_init(&memory, 64 * SL_MIB);
}

static int tear_down(void **state)
{
	(void)state;
	sl_memory_fini(&memory);
	return 0;
}

// --- protobuf-c's view ---------------------------------------------------------------------------

static const ProtobufCMessageDescriptor *const requests[SL_SIGNALS] = {
	[SL_TRACES] = &oracle__traces__descriptor,
	[SL_METRICS] = &oracle__metrics__descriptor,
	[SL_LOGS] = &oracle__logs__descriptor,
};

// Whether the messages of a repeated field are items.
static bool is_item(const ProtobufCMessage *message)
{
	const ProtobufCMessageDescriptor *of = message->descriptor;

	return of == &oracle__span__descriptor || of == &oracle__log_record__descriptor ||
	       of == &oracle__number_point__descriptor ||
	       of == &oracle__histogram_point__descriptor ||
	       of == &oracle__exponential_point__descriptor ||
	       of == &oracle__summary_point__descriptor;
}

struct list {
	const ProtobufCMessage *items[ITEMS_MAX];
	uint32_t count;
};

static void collect(const ProtobufCMessage *message, struct list *list)
{
	const ProtobufCMessageDescriptor *of = message->descriptor;

	if (is_item(message)) {
		assert_true(list->count < ITEMS_MAX);
		list->items[list->count++] = message;
		return;
	}
	for (unsigned i = 0; i < of->n_fields; i++) {
		const ProtobufCFieldDescriptor *field = &of->fields[i];
		const uint8_t *at = (const uint8_t *)message + field->offset;
		const uint8_t *number = (const uint8_t *)message + field->quantifier_offset;

		if (field->type != PROTOBUF_C_TYPE_MESSAGE)
			continue;
		if (field->label == PROTOBUF_C_LABEL_REPEATED) {
			for (size_t j = 0; j < *(const size_t *)(const void *)number; j++)
				collect((*(ProtobufCMessage *const *const *)(const void *)at)[j],
					list);
		} else if (*(const ProtobufCMessage *const *)(const void *)at &&
			   (!(field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) ||
			    *(const uint32_t *)(const void *)number == field->id)) {
			collect(*(const ProtobufCMessage *const *)(const void *)at, list);
		}
	}
}

static void check_same(const ProtobufCMessage *one, const ProtobufCMessage *other)
{
	static uint8_t a[BODY_MAX], b[BODY_MAX];
	const size_t size = protobuf_c_message_get_packed_size(one);

	assert_true(size <= BODY_MAX && size == protobuf_c_message_get_packed_size(other));
	protobuf_c_message_pack(one, a);
	protobuf_c_message_pack(other, b);
	assert_memory_equal(a, b, size);
}

// `out` holds the first `kept` of those items of `body` that `offered` has (NULL: all).
static void check_body(enum sl_signal signal, struct sl_bytes body, const uint64_t *offered,
		       struct sl_bytes out, uint32_t kept)
{
	static struct list came, went;
	ProtobufCMessage *before, *after;
	uint32_t at = 0;

	before = protobuf_c_message_unpack(requests[signal], NULL, body.size, body.data);
	after = protobuf_c_message_unpack(requests[signal], NULL, out.size, out.data);
	assert_non_null(before);
	assert_non_null(after);
	came.count = went.count = 0;
	collect(before, &came);
	collect(after, &went);
	assert_int_equal(went.count, kept);
	for (uint32_t i = 0; i < went.count; i++, at++) {
		while (!sl_keep_has(offered, at))
			at++;
		assert_true(at < came.count);
		check_same(came.items[at], went.items[i]);
	}
	protobuf_c_message_free_unpacked(before, NULL);
	protobuf_c_message_free_unpacked(after, NULL);
}

// --- the world -----------------------------------------------------------------------------------

struct world {
	struct sl_tenants *tenants;
	struct sl_tenants_shard *shard;
	struct sl_request request;
	struct sl_part *part;
	struct sl_batch batch;
	uint64_t offered[SL_KEEP_WORDS(ITEMS_MAX)];
	uint8_t body[BODY_MAX + SL_BODY_SLACK], out[BODY_MAX + SL_BODY_SLACK];
};

static void begin(struct world *world, struct sl_quota_config quota)
{
	quota.excess = SL_EXCESS_CUT;
	quota.burst_ns = SL_S;
	quota.window_ns = SL_S;
	world->tenants = make_quota(quota, NULL);
	world->shard = sl_tenants_shard_create(0, 2, NULL);
	assert_non_null(world->tenants);
	assert_non_null(world->shard);
	sl_tenants_tick(world->tenants, START);
	sl_tenants_shard_turn(world->shard, world->tenants, START);
}

static void end(struct world *world)
{
	sl_tenants_shard_destroy(world->shard);
	sl_tenants_destroy(world->tenants);
}

// What is left of a dimension, in the pool and the shard's chunk.
static int64_t level(const struct world *world, unsigned dimension)
{
	const struct sl_quota_pool *pool = world->tenants->entries[0].pool;
	const uint32_t slot = *SL_BY_TENANT(&world->shard->slot_of, uint32_t, 0);

	return sl_quota_pool_level(pool, dimension) +
	       (slot ? world->shard->slots[slot - 1].chunk[dimension] : 0);
}

static bool scan(struct world *world, enum sl_signal signal, size_t size)
{
	static const struct sl_view_limits limits = {.items_max = ITEMS_MAX, .depth_max = 16};
	struct sl_request *request = &world->request;

	memset(request, 0, sizeof(*request));
	sl_arena_init(&request->arena, &memory);
	request->signal = signal;
	request->tenant_name = SL_LITERAL("t");
	if (sl_view_scan(&request->view, signal, sl_bytes(world->body, size), &limits,
			 &request->arena, NULL) != SL_VIEW_OK)
		return false;
	assert_int_equal(sl_tenants_make_parts(world->shard, request), SL_REASON_NONE);
	world->part = request->parts;
	return true;
}

// The part owns some of the items only, as one of several tenants does.
static void share(struct world *world, struct sl_random *random)
{
	struct sl_part *part = world->part;

	assert_true(sl_part_own_keep(part));
	for (uint32_t i = 0; i < part->offered_items; i++)
		if (sl_random_below(random, 3) == 0) {
			part->keep[i / 64] &= ~(UINT64_C(1) << (i % 64));
			part->kept_items--;
		}
	part->offered_items = part->kept_items;
	memcpy(world->offered, part->keep,
	       SL_KEEP_WORDS(world->request.view.item_count) * sizeof(uint64_t));
}

static void judge(struct world *world)
{
	world->batch = (struct sl_batch){.now_ns = START, .count = 1, .parts = {world->part}};
	sl_tenants_quota_stage(world->shard, &world->batch);
	assert_int_equal(world->batch.count + world->batch.refused_count, 1);
}

// The bytes of the first `count` items that `offered` has; filled in into world->out.
static size_t splice_first(struct world *world, const uint64_t *offered, uint32_t count)
{
	static uint64_t keep[SL_KEEP_WORDS(ITEMS_MAX)];
	struct sl_pieces pieces;
	size_t size = 0;

	memset(keep, 0, sizeof(keep));
	for (uint32_t i = 0; i < world->request.view.item_count && count; i++)
		if (sl_keep_has(offered, i)) {
			keep[i / 64] |= UINT64_C(1) << (i % 64);
			count--;
		}
	assert_int_equal(count, 0);
	assert_int_equal(
		sl_splice(&world->request.view, keep, NULL, &world->request.arena, &pieces), 0);
	for (uint32_t i = 0; i < pieces.count; i++) {
		memcpy(world->out + size, pieces.pieces[i].iov_base, pieces.pieces[i].iov_len);
		size += pieces.pieces[i].iov_len;
	}
	return size;
}

// --- tests ---------------------------------------------------------------------------------------

struct seen {
	unsigned whole, cut, by_bytes, refused;
};

// Length prefixes may become shorter: five bytes an envelope at the very most.
static uint64_t slack(const struct world *world)
{
	return 5 * (uint64_t)world->request.view.envelope_count;
}

static void check_cut(struct world *world, const uint64_t *offered, const int64_t before[2],
		      struct seen *seen)
{
	const struct sl_part *part = world->part;
	const unsigned item = SL_DIMENSION_SPANS + world->request.signal;
	const uint32_t kept = part->kept_items;
	size_t bytes;

	assert_int_equal(kept + part->cut_items[SL_CUT_QUOTA], part->offered_items);
	assert_int_equal(part->charge.items, kept);
	assert_int_equal(level(world, item), before[1] - kept);
	assert_int_equal(level(world, SL_DIMENSION_BYTES), before[0] - (int64_t)part->charge.bytes);
	assert_true(level(world, item) >= 0 && level(world, SL_DIMENSION_BYTES) >= 0);
	bytes = splice_first(world, offered, kept);
	check_body(world->request.signal, world->request.view.body, offered,
		   sl_bytes(world->out, bytes), kept);
	for (uint32_t i = 0, rest = kept; i < world->request.view.item_count; i++)
		if (sl_keep_has(offered, i)) {
			assert_int_equal(sl_keep_has(part->keep, i), rest > 0);
			rest -= rest > 0;
		}
	if (!part->cut_items[SL_CUT_QUOTA]) {
		seen->whole++;
		return;
	}
	assert_in_range(part->charge.bytes, bytes, bytes + slack(world));
	assert_int_equal(part->cut_bytes, part->offered_bytes - part->charge.bytes);
	seen->cut++;
	// One more would not have fitted.
	if (kept + 1 > (uint64_t)before[1])
		return;
	seen->by_bytes++;
	assert_int_equal(part->limit, SL_DIMENSION_BYTES);
	assert_true(splice_first(world, offered, kept + 1) + slack(world) > (uint64_t)before[0]);
}

static void test_exactly_what_fits(void **state)
{
	struct world *world = calloc(1, sizeof(*world));
	struct seen seen = {0};
	struct sl_random random;

	(void)state;
	sl_random_init(&random, 7);
	for (uint64_t seed = 1; seed <= 1500; seed++) {
		const enum sl_signal signal = seed % SL_SIGNALS;
		const double items = (double)(1 + sl_random_below(&random, 30));
		const size_t size = sl_random_request(world->body, BODY_MAX, signal, 0, seed * 31);
		const uint64_t *offered = NULL;
		int64_t before[2];

		begin(world, (struct sl_quota_config){
				     .bytes = (double)(1 + sl_random_below(&random, 2 * size + 1)),
				     .spans = items,
				     .points = items,
				     .log_records = items});
		assert_true(scan(world, signal, size));
		if (sl_random_below(&random, 2)) {
			share(world, &random);
			offered = world->offered;
		}
		before[0] = level(world, SL_DIMENSION_BYTES);
		before[1] = level(world, SL_DIMENSION_SPANS + signal);
		judge(world);
		if (world->batch.refused_count) {
			// Not even one fits (or there is none, and the body is too long).
			assert_true(!world->part->offered_items ||
				    splice_first(world, offered, 1) + slack(world) >
					    (uint64_t)before[0]);
			assert_true(world->part->retry_after_ns > 0);
			assert_int_equal(sl_part_cut_items(world->part), 0);
			assert_int_equal(level(world, SL_DIMENSION_BYTES), before[0]);
			assert_int_equal(level(world, SL_DIMENSION_SPANS + signal), before[1]);
			seen.refused++;
		} else if (world->part->kept_items == 1 && level(world, SL_DIMENSION_BYTES) < 0) {
			// One item that is longer than the burst: in debt, as a request would be.
			assert_true(splice_first(world, offered, 1) + slack(world) >
				    (uint64_t)before[0]);
		} else {
			check_cut(world, offered, before, &seen);
		}
		sl_tenants_refund(world->shard, world->part);
		assert_int_equal(level(world, SL_DIMENSION_BYTES), before[0]);
		assert_int_equal(level(world, SL_DIMENSION_SPANS + signal), before[1]);
		sl_arena_fini(&world->request.arena);
		end(world);
	}
	print_message("%u whole, %u cut (%u by bytes), %u refused\n", seen.whole, seen.cut,
		      seen.by_bytes, seen.refused);
	assert_true(seen.whole > 100 && seen.cut > 200 && seen.by_bytes > 100);
	free(world);
}

// One request after the other: together they are admitted what there is, to the last item.
static void test_to_the_last_item(void **state)
{
	static const struct {
		const char *why;
		struct sl_quota_config quota;
	} rows[] = {
		{"token bucket", {.spans = 100}},
		{"sliding window", {.spans = 100, .algorithm = SL_ALGORITHM_SLIDING_WINDOW}},
		{"leaky: its bucket of 20 ms, and what may wait",
		 {.spans = 100, .algorithm = SL_ALGORITHM_LEAKY, .delay_max_ns = 980 * SL_MS}},
	};
	struct world *world = calloc(1, sizeof(*world));

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		uint32_t kept = 0, cut = 0, offered = 0;

		print_message("%s\n", rows[i].why);
		begin(world, rows[i].quota);
		for (uint64_t seed = 1; offered < 400; seed++) {
			const size_t size = sl_random_request(world->body, BODY_MAX, SL_TRACES, 0,
							      seed);

			assert_true(scan(world, SL_TRACES, size));
			judge(world);
			offered += world->part->offered_items;
			if (world->batch.count) {
				kept += world->part->kept_items;
				cut += sl_part_cut_items(world->part);
			} else {
				assert_int_equal(kept, 100);
				cut += world->part->offered_items;
			}
			sl_arena_fini(&world->request.arena);
		}
		assert_int_equal(kept, 100);
		assert_int_equal(kept + cut, offered);
		end(world);
	}
	free(world);
}

// Those who did not choose to lose items lose none, and requests a second are never cut.
static void test_who_is_not_cut(void **state)
{
	struct world *world = calloc(1, sizeof(*world));
	struct sl_tenants *tenants;
	struct fake *fake = make_fake();

	(void)state;
	tenants = make_quota((struct sl_quota_config){.spans = 10, .burst_ns = SL_S}, NULL);
	world->shard = sl_tenants_shard_create(0, 1, NULL);
	sl_tenants_shard_turn(world->shard, tenants, START);
	assert_int_equal(send_part(fake, world->shard, 0, SL_TRACES, 100, 9), 0);
	assert_true(send_part(fake, world->shard, 0, SL_TRACES, 100, 4) > 0);
	sl_tenants_shard_destroy(world->shard);
	sl_tenants_destroy(tenants);

	begin(world, (struct sl_quota_config){.spans = 1000, .requests = 1});
	for (unsigned i = 0; i < 2; i++) {
		const size_t size = sl_random_request(world->body, BODY_MAX, SL_TRACES, 0, 3);

		assert_true(scan(world, SL_TRACES, size));
		judge(world);
		assert_int_equal(world->batch.refused_count, i);
		assert_int_equal(sl_part_cut_items(world->part), 0);
		sl_arena_fini(&world->request.arena);
	}
	end(world);
	free(fake);
	free(world);
}

#define NOON (UINT64_C(20000) * 86400 * SL_S + 43200 * SL_S)

static struct sl_tenants *make_volume(struct sl_quota_config quota)
{
	struct sl_tenant_config tenant = {.name = "t", .class_name = "c"};
	struct sl_class_config class = {.name = "c", .priority = 1, .quota = quota};
	const struct sl_tenants_module_config config = {
		.tenants = {.inline_ = {.classes = {&class, 1}, .tenants = {&tenant, 1}},
			    .unknown = "t"},
		.quotas = {.volume_file = "somewhere"}};

	return make_tenants(&config, NULL);
}

// A volume's hard mark is passed by nothing, on several shards at once and with refunds between
// them; and what there is is used up to the last item that fits.
static void test_volume_to_the_mark(void **state)
{
	static const struct {
		const char *why;
		struct sl_quota_config quota;
		unsigned dimension;
	} rows[] = {
		{"items", {.volume = {.spans = 500}}, SL_DIMENSION_SPANS},
		{"bytes", {.volume = {.bytes = 60000}}, SL_DIMENSION_BYTES},
		{"both, and a rate beside them",
		 {.spans = 1000, .volume = {.spans = 500, .bytes = 1000000}},
		 SL_DIMENSION_SPANS},
	};
	struct world *world = calloc(1, sizeof(*world));
	struct sl_tenants_shard *shards[4];

	(void)state;
	for (unsigned row = 0; row < SL_COUNT_OF(rows); row++) {
		struct sl_quota_config quota = rows[row].quota;
		const struct sl_volume_config *volume = &quota.volume;
		const uint64_t hard = volume->spans ? volume->spans : volume->bytes;
		uint64_t used = 0, now_ns = START, refused = 0, cut = 0;
		struct sl_random random;

		print_message("%s\n", rows[row].why);
		sl_random_init(&random, row + 1);
		quota.excess = SL_EXCESS_CUT;
		quota.burst_ns = SL_S;
		quota.volume.soft = 1;
		world->tenants = make_volume(quota);
		for (uint32_t i = 0; i < 4; i++)
			shards[i] = sl_tenants_shard_create(i, 4, NULL);
		for (uint64_t seed = 1; refused < 300; seed++) {
			size_t size;

			if (seed % 4 == 1) {
				sl_tenants_tick(world->tenants, now_ns);
				sl_tenants_tick_volumes(world->tenants, now_ns, NOON);
				now_ns += 10 * SL_MS;
			}
			world->shard = shards[sl_random_below(&random, 4)];
			sl_tenants_shard_turn(world->shard, world->tenants, now_ns);
			size = sl_random_request(world->body, BODY_MAX, SL_TRACES, 0, seed);
			assert_true(scan(world, SL_TRACES, size));
			judge(world);
			if (world->batch.refused_count) {
				refused += used + 2000 > hard;
			} else if (seed % 3 == 0) {
				sl_tenants_refund(world->shard, world->part);
			} else {
				used += volume->spans ? world->part->charge.items
						      : world->part->charge.bytes;
				cut += world->part->cut_items[SL_CUT_VOLUME];
			}
			assert_true(used <= hard);
			sl_arena_fini(&world->request.arena);
		}
		assert_true(cut > 0);
		if (volume->spans)
			assert_int_equal(used, hard);
		else
			assert_in_range(used, hard - 100, hard);
		for (uint32_t i = 0; i < 4; i++)
			sl_tenants_shard_destroy(shards[i]);

		int64_t counted[SL_DIMENSION_RATES];

		sl_volume_used(world->tenants->entries[0].pool->volume, counted);
		assert_int_equal(counted[rows[row].dimension], used);
		sl_tenants_destroy(world->tenants);
	}
	free(world);
}

// What is cut is told as the volume's; what does not fit at all is refused until the period ends.
static void test_volume_is_told(void **state)
{
	struct world *world = calloc(1, sizeof(*world));
	size_t size;

	(void)state;
	world->tenants = make_volume((struct sl_quota_config){
		.excess = SL_EXCESS_CUT, .burst_ns = SL_S, .volume = {.spans = 3, .soft = 1}});
	world->shard = sl_tenants_shard_create(0, 1, NULL);
	sl_tenants_tick_volumes(world->tenants, START, NOON);
	sl_tenants_shard_turn(world->shard, world->tenants, START);
	for (uint64_t seed = 1;; seed++) {
		size = sl_random_request(world->body, BODY_MAX, SL_TRACES, 0, seed);
		assert_true(scan(world, SL_TRACES, size));
		if (world->request.view.item_count > 3)
			break;
		sl_arena_fini(&world->request.arena);
	}
	judge(world);
	assert_int_equal(world->batch.count, 1);
	assert_int_equal(world->part->kept_items, 3);
	assert_int_equal(world->part->cut_items[SL_CUT_VOLUME], world->part->offered_items - 3);
	assert_int_equal(world->part->cut_items[SL_CUT_QUOTA], 0);
	assert_int_equal(world->part->limit, SL_TENANTS_LIMIT_VOLUME + SL_DIMENSION_SPANS);
	assert_int_equal(world->shard->counters.volume_cut[SL_DIMENSION_SPANS],
			 world->part->offered_items - 3);
	sl_arena_fini(&world->request.arena);
	assert_true(scan(world, SL_TRACES, size));
	judge(world);
	assert_int_equal(world->batch.refused_count, 1);
	assert_int_equal(world->part->reason, SL_REASON_VOLUME_EXCEEDED);
	assert_true(world->part->retry_after_ns >= 3600 * SL_S);
	sl_arena_fini(&world->request.arena);
	end(world);
	free(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exactly_what_fits), cmocka_unit_test(test_to_the_last_item),
		cmocka_unit_test(test_who_is_not_cut),    cmocka_unit_test(test_volume_to_the_mark),
		cmocka_unit_test(test_volume_is_told),
	};

	sl_hash_seed();
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
