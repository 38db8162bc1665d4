#include "tests/unit/tenants/fixture.h"

#include "dataplane/otlp/view.h"

// Requests are written field by field here and read back by a walker of this file's own, so that
// the splitting is not its own judge.

static struct sl_memory memory;

// --- writing -------------------------------------------------------------------------------------

struct text {
	uint8_t bytes[1 << 18];
	size_t size;
};

static void put(struct text *text, uint8_t tag, const void *data, size_t size)
{
	text->bytes[text->size++] = tag;
	for (size_t rest = size;; rest >>= 7) {
		text->bytes[text->size++] = (uint8_t)((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
		if (rest <= 0x7f)
			break;
	}
	assert_true(text->size + size + SL_BODY_SLACK <= sizeof(text->bytes));
	if (size)
		memcpy(text->bytes + text->size, data, size);
	text->size += size;
}

static void put_text(struct text *text, uint8_t tag, const struct text *inner)
{
	put(text, tag, inner->bytes, inner->size);
}

// A KeyValue of a string; of an int when `value` is NULL.
static void put_pair(struct text *to, const char *key, const char *value)
{
	static struct text any, pair;

	any.size = pair.size = 0;
	if (value) {
		put(&any, 0x0a, value, strlen(value));
	} else {
		any.bytes[any.size++] = 3 << 3;
		any.bytes[any.size++] = 7;
	}
	put(&pair, 0x0a, key, strlen(key));
	put_text(&pair, 0x12, &any);
	put_text(to, 0x0a, &pair);
}

// One ResourceSpans: the attributes in pairs (a key "|" begins a second Resource field), then spans
// whose names carry `mark` and a number.
static void put_resource(struct text *body, const char *const *pairs, unsigned spans, char mark)
{
	static struct text about, scope, outer, span;

	about.size = scope.size = outer.size = 0;
	for (; pairs && pairs[0]; pairs += 2) {
		if (strcmp(pairs[0], "|") == 0) {
			put_text(&outer, 0x0a, &about);
			about.size = 0;
		} else {
			put_pair(&about, pairs[0], pairs[1]);
		}
	}
	put_text(&outer, 0x0a, &about);
	for (unsigned i = 0; i < spans; i++) {
		char name[16];

		span.size = 0;
		put(&span, 0x2a, name, (size_t)sprintf(name, "%c%u", mark, i));
		put_text(&scope, 0x12, &span);
	}
	put_text(&outer, 0x12, &scope);
	put_text(body, 0x0a, &outer);
}

// --- the world -----------------------------------------------------------------------------------

struct world {
	struct sl_tenants *tenants;
	struct sl_tenants_shard *shard;
	struct sl_request request;
	struct text body, out;
	uint64_t used_before;
};

static const struct sl_tenants_config preset = {.unknown = "refuse"};

static struct world *make_world(struct sl_tenants_config config, bool partial)
{
	static struct sl_tenant_config tenants[80];
	static char names[64][8];
	static struct sl_identify_config identify[] = {
		{.by = SL_IDENTIFY_CREDENTIAL},
		{.by = SL_IDENTIFY_RESOURCE, .open = true},
	};
	struct world *world = calloc(1, sizeof(*world));
	unsigned count = 0;

	world->used_before = memory.used_bytes;
	tenants[count++] = (struct sl_tenant_config){.name = "a"};
	tenants[count++] = (struct sl_tenant_config){.name = "b"};
	tenants[count++] = (struct sl_tenant_config){.name = "shut", .suspended = true};
	tenants[count++] = (struct sl_tenant_config){
		.name = "short", .body_bytes = 50, .has_body_bytes = true};
	for (unsigned i = 0; i < 64; i++) {
		sprintf(names[i], "t%u", i);
		tenants[count++] = (struct sl_tenant_config){.name = names[i]};
	}
	if (!config.identify.count)
		config.identify = (struct sl_list){identify, 2};
	config.inline_.tenants = (struct sl_list){tenants, count};

	const struct sl_tenants_module_config module = {
		.tenants = config, .quotas = {.mixed = partial ? SL_MIXED_PARTIAL : 0}};

	world->tenants = make_tenants(&module, NULL);
	assert_non_null(world->tenants);
	world->shard = sl_tenants_shard_create(0, 1, NULL);
	sl_tenants_shard_turn(world->shard, world->tenants, SL_S);
	return world;
}

static void end_request(struct world *world)
{
	sl_tenants_end_parts(world->shard, &world->request);
	sl_arena_fini(&world->request.arena);
	memset(&world->request, 0, sizeof(world->request));
	world->body.size = 0;
}

static void end_world(struct world *world)
{
	end_request(world);
	assert_int_equal(memory.used_bytes, world->used_before);
	sl_tenants_shard_destroy(world->shard);
	sl_tenants_destroy(world->tenants);
	free(world);
}

// Decodes the body and splits it: of a client on loopback that is `tenant`, or whom nobody knows.
static enum sl_reason split(struct world *world, const char *tenant)
{
	static const struct sl_view_limits limits = {.items_max = 100000, .depth_max = 10};
	struct sl_request *request = &world->request;
	const struct sl_address none = {0};
	const struct sl_identity_claim claim = {.peer = &none};
	struct sl_tenant_info info;

	sl_arena_init(&request->arena, &memory);
	assert_int_equal(sl_view_scan(&request->view, SL_TRACES,
				      sl_bytes(world->body.bytes, world->body.size), &limits,
				      &request->arena, NULL),
			 SL_VIEW_OK);
	if (tenant) {
		assert_true(sl_tenants_find(world->tenants, sl_bytes_of(tenant), &request->tenant));
		assert_true(sl_tenants_info(world->tenants, request->tenant, &info));
		request->tenant_name = info.name;
	} else {
		const struct sl_identity identity = sl_tenants_identify(world->shard, &claim, 1);

		assert_true(identity.by_resource);
		assert_int_equal(identity.reason, SL_REASON_NONE);
		request->claimant = sl_arena_zalloc(&request->arena, sizeof(*request->claimant));
		request->claimant->otherwise = identity.otherwise;
	}
	return sl_tenants_make_parts(world->shard, request);
}

static const struct sl_part *part_of(const struct world *world, const char *name)
{
	for (unsigned i = 0; i < world->request.part_count; i++)
		if (sl_bytes_equal(world->request.parts[i].tenant_name, sl_bytes_of(name)))
			return &world->request.parts[i];
	fail_msg("there is no part of %s", name);
	return NULL;
}

static const struct sl_part *part_for(const struct world *world, enum sl_reason reason)
{
	for (unsigned i = 0; i < world->request.part_count; i++)
		if (world->request.parts[i].reason == reason)
			return &world->request.parts[i];
	fail_msg("no part is refused as %s", sl_reasons[reason].name);
	return NULL;
}

// What goes out for a part.
static struct sl_bytes splice(struct world *world, const struct sl_part *part)
{
	struct sl_pieces pieces;

	assert_int_equal(sl_splice(&world->request.view, part->keep, &part->edits,
				   &world->request.arena, &pieces),
			 0);
	world->out.size = 0;
	for (uint32_t i = 0; i < pieces.count; i++) {
		memcpy(world->out.bytes + world->out.size, pieces.pieces[i].iov_base,
		       pieces.pieces[i].iov_len);
		world->out.size += pieces.pieces[i].iov_len;
	}
	assert_int_equal(world->out.size, pieces.bytes);
	memset(world->out.bytes + world->out.size, 0, SL_BODY_SLACK);
	return sl_bytes(world->out.bytes, world->out.size);
}

// --- tests ---------------------------------------------------------------------------------------

#define PAIRS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_who_owns_a_resource(void **state)
{
	const struct {
		const char *why;
		const char *const *pairs;
		const char *want;
		enum sl_reason reason; // instead
		const char *unknown, *fallback;
	} rows[] = {
		{"tenant.id", PAIRS("x", "y", "tenant.id", "a"), "a", 0, 0, 0},
		{"tenant", PAIRS("tenant", "b"), "b", 0, 0, 0},
		{"the first key of the list, wherever it stands",
		 PAIRS("tenant", "b", "tenant.id", "a"), "a", 0, 0, 0},
		{"in the other order", PAIRS("tenant.id", "a", "tenant", "b"), "a", 0, 0, 0},
		{"the second Resource field counts as the first",
		 PAIRS("x", "y", "|", "", "tenant", "a"), "a", 0, 0, 0},
		{"twice the same", PAIRS("tenant", "a", "tenant", "a"), "a", 0, 0, 0},
		{"twice, and different", PAIRS("tenant", "a", "tenant", "b"), NULL,
		 SL_REASON_UNKNOWN_TENANT, 0, 0},
		{"in two Resource fields", PAIRS("tenant", "a", "|", "", "tenant", "b"), NULL,
		 SL_REASON_UNKNOWN_TENANT, 0, 0},
		{"one of no string", PAIRS("tenant", NULL), NULL, SL_REASON_UNKNOWN_TENANT, 0, 0},
		{"never skipped for the next key", PAIRS("tenant.id", NULL, "tenant", "a"), NULL,
		 SL_REASON_UNKNOWN_TENANT, 0, 0},
		{"no name", PAIRS("tenant", ""), NULL, SL_REASON_UNKNOWN_TENANT, 0, 0},
		{"a path, though unknown ones have a tenant", PAIRS("tenant", ".."), NULL,
		 SL_REASON_UNKNOWN_TENANT, "b", 0},
		{"a control byte", PAIRS("tenant", "a\n"), NULL, SL_REASON_UNKNOWN_TENANT, "b", 0},
		{"a list", PAIRS("tenant", "a|b"), NULL, SL_REASON_UNKNOWN_TENANT, "b", 0},
		{"a tenant that is not", PAIRS("tenant", "who"), NULL, SL_REASON_UNKNOWN_TENANT, 0,
		 0},
		{"whom unknown names", PAIRS("tenant", "who"), "b", 0, "b", "a"},
		{"nobody", PAIRS("x", "y"), NULL, SL_REASON_NO_CREDENTIAL, 0, 0},
		{"nobody, and a default", PAIRS("x", "y"), "a", 0, 0, "a"},
		{"no attributes at all", NULL, "a", 0, 0, "a"},
		{"a suspended tenant", PAIRS("tenant", "shut"), "shut", SL_REASON_SUSPENDED, 0, 0},
		{"a body longer than the tenant may send", PAIRS("tenant", "short"), "short",
		 SL_REASON_BODY_TOO_LARGE, 0, 0},
	};

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_tenants_config config = preset;

		print_message("%s\n", rows[i].why);
		if (rows[i].unknown)
			config.unknown = rows[i].unknown;
		config.fallback = rows[i].fallback;

		struct world *world = make_world(config, false);

		put_resource(&world->body, rows[i].pairs, 20, 'x');
		assert_int_equal(split(world, NULL), SL_REASON_NONE);
		assert_int_equal(world->request.part_count, 1);

		const struct sl_part *part = world->request.parts;

		assert_int_equal(part->reason, rows[i].reason);
		assert_int_equal(part->offered_items, 20);
		assert_int_equal(part->offered_bytes, world->body.size);
		assert_null(part->keep); // one tenant: nothing is taken apart
		assert_int_equal(part->edits.count, 0);
		if (rows[i].want)
			assert_true(sl_bytes_equal(part->tenant_name, sl_bytes_of(rows[i].want)));
		end_world(world);
	}
}

// A name of 10 kB and one of 151 bytes are refused, one of 150 is a name.
static void test_long_names(void **state)
{
	static const unsigned sizes[] = {150, 151, 10240};
	static char name[10241];

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(sizes); i++) {
		struct sl_tenants_config config = preset;

		config.unknown = "a";

		struct world *world = make_world(config, false);

		memset(name, 'n', sizes[i]);
		name[sizes[i]] = 0;
		put_resource(&world->body, PAIRS("tenant", name), 1, 'x');
		assert_int_equal(split(world, NULL), SL_REASON_NONE);
		assert_int_equal(world->request.parts[0].reason,
				 i ? SL_REASON_UNKNOWN_TENANT : SL_REASON_NONE);
		end_world(world);
	}
}

static void test_parts_of_one_body(void **state)
{
	struct world *world = make_world(preset, false);
	struct sl_view view;
	struct sl_arena arena;
	static const struct sl_view_limits limits = {.items_max = 1000, .depth_max = 10};

	(void)state;
	put_resource(&world->body, PAIRS("tenant", "a"), 70, 'a');
	put_resource(&world->body, PAIRS("tenant", "b"), 3, 'b');
	put_resource(&world->body, PAIRS("tenant", "who"), 2, 'w');
	put_resource(&world->body, PAIRS("tenant", "c"), 0, 'c'); // empty: nobody's
	put_resource(&world->body, PAIRS("tenant", "a"), 5, 'A');
	put_resource(&world->body, PAIRS("x", "y"), 1, 'n');
	assert_int_equal(split(world, NULL), SL_REASON_NONE);
	assert_int_equal(world->request.part_count, 4);
	assert_int_equal(part_of(world, "a")->offered_items, 75);
	assert_int_equal(part_of(world, "b")->offered_items, 3);
	assert_int_equal(part_for(world, SL_REASON_UNKNOWN_TENANT)->offered_items, 2);
	assert_int_equal(part_for(world, SL_REASON_NO_CREDENTIAL)->offered_items, 1);

	const struct sl_bytes out = splice(world, part_of(world, "a"));

	sl_arena_init(&arena, &memory);
	assert_int_equal(sl_view_scan(&view, SL_TRACES, out, &limits, &arena, NULL), SL_VIEW_OK);
	assert_int_equal(view.item_count, 75);
	for (uint32_t i = 0; i < view.item_count; i++) {
		const struct sl_bytes span = sl_view_item_payload(&view, i);

		assert_int_equal(span.data[2], i < 70 ? 'a' : 'A');
	}
	sl_arena_fini(&arena);
	end_world(world);
}

static void test_at_most_64(void **state)
{
	(void)state;
	for (unsigned count = 63; count <= 65; count++) {
		struct world *world = make_world(preset, false);
		uint32_t items = 0;

		for (unsigned i = 0; i < count; i++) {
			char name[8];

			sprintf(name, "t%u", i % 65);
			put_resource(&world->body, PAIRS("tenant", name), 1 + i % 3, 'x');
		}
		// t64 is nobody: his part is one as well.
		assert_int_equal(split(world, NULL),
				 count <= 64 ? SL_REASON_NONE : SL_REASON_TOO_MANY_TENANTS);
		assert_int_equal(world->request.part_count, count <= 64 ? count : 0);
		for (unsigned i = 0; i < world->request.part_count; i++)
			items += world->request.parts[i].offered_items;
		if (count <= 64)
			assert_int_equal(items, world->request.view.item_count);
		end_world(world);
	}
}

static void test_an_empty_body(void **state)
{
	struct sl_tenants_config config = preset;
	struct world *world = make_world(config, false);

	(void)state;
	assert_int_equal(split(world, NULL), SL_REASON_NONE);
	assert_int_equal(world->request.parts[0].reason, SL_REASON_NO_CREDENTIAL);
	end_request(world);
	put_resource(&world->body, PAIRS("tenant", "a"), 0, 'x');
	assert_int_equal(split(world, NULL), SL_REASON_NONE);
	assert_int_equal(world->request.parts[0].reason, SL_REASON_NONE);
	assert_int_equal(part_of(world, "a")->offered_items, 0);
	end_world(world);
}

// What is in flight is a part's, and goes back with it: one more always fits afterwards.
static void test_in_flight_goes_back(void **state)
{
	static struct sl_quota_config quota = {.in_flight_requests = 1,
					       .has = {.in_flight_requests = true}};
	static struct sl_tenant_config tenants[] = {{.name = "a", .quota = &quota}, {.name = "b"}};
	static struct sl_identify_config identify = {.by = SL_IDENTIFY_RESOURCE, .open = true};
	const struct sl_tenants_module_config config = {
		.tenants = {.unknown = "refuse",
			    .identify = {&identify, 1},
			    .inline_ = {.tenants = {tenants, 2}}}};
	struct world *world = calloc(1, sizeof(*world));

	(void)state;
	world->tenants = make_tenants(&config, NULL);
	world->shard = sl_tenants_shard_create(0, 1, NULL);
	sl_tenants_shard_turn(world->shard, world->tenants, SL_S);
	for (unsigned i = 0; i < 5; i++) {
		struct world other = {.tenants = world->tenants, .shard = world->shard};

		put_resource(&world->body, PAIRS("tenant", "a"), 1, 'x');
		put_resource(&world->body, PAIRS("tenant", "b"), 1, 'x');
		assert_int_equal(split(world, NULL), SL_REASON_NONE);
		assert_int_equal(part_of(world, "a")->reason, SL_REASON_NONE);
		put_resource(&other.body, PAIRS("tenant", "a"), 1, 'x');
		assert_int_equal(split(&other, NULL), SL_REASON_NONE);
		assert_int_equal(part_of(&other, "a")->reason, SL_REASON_IN_FLIGHT_EXCEEDED);
		assert_true(part_of(&other, "a")->retry_after_ns > 0);
		end_request(&other);
		end_request(world);
	}
	end_world(world);
}

static const struct {
	const char *why;
	const char *const *pairs;
	const char *const *want[3]; // overwrite, strip, keep
	uint32_t edits;             // of overwrite; 0: the body goes as it came
} rewrites[] = {
	{"none", PAIRS("x", "y"), {PAIRS("x", "y"), PAIRS("x", "y"), PAIRS("x", "y")}, 0},
	{"a true one",
	 PAIRS("tenant.id", "a"),
	 {PAIRS("tenant.id", "a"), (const char *const[]){NULL}, PAIRS("tenant.id", "a")},
	 0},
	{"a false one",
	 PAIRS("x", "y", "tenant.id", "bb", "z", "w"),
	 {PAIRS("x", "y", "tenant.id", "a", "z", "w"), PAIRS("x", "y", "z", "w"),
	  PAIRS("x", "y", "tenant.id", "bb", "z", "w")},
	 2},
	{"of the same length",
	 PAIRS("tenant", "b"),
	 {PAIRS("tenant", "a"), (const char *const[]){NULL}, PAIRS("tenant", "b")},
	 1},
	{"every occurrence of every key",
	 PAIRS("tenant", "b", "tenant.id", "c", "tenant", "d1"),
	 {PAIRS("tenant", "a", "tenant.id", "a", "tenant", "a"), (const char *const[]){NULL},
	  PAIRS("tenant", "b", "tenant.id", "c", "tenant", "d1")},
	 4},
	{"in both Resource fields",
	 PAIRS("tenant", "b1", "|", "", "tenant", "b22"),
	 {PAIRS("tenant", "a", "|", "", "tenant", "a"), PAIRS("|", ""),
	  PAIRS("tenant", "b1", "|", "", "tenant", "b22")},
	 4},
	{"one of no string",
	 PAIRS("tenant", NULL),
	 {PAIRS("tenant", "a"), (const char *const[]){NULL}, PAIRS("tenant", NULL)},
	 2},
	{"one that shortens the length's varint",
	 PAIRS("tenant", "0123456789012345678901234567890123456789012345678901234567890123456789"
			 "012345678901234567890123456789012345678901234567890123456789"),
	 {PAIRS("tenant", "a"), (const char *const[]){NULL},
	  PAIRS("tenant", "0123456789012345678901234567890123456789012345678901234567890123456789"
			  "012345678901234567890123456789012345678901234567890123456789")},
	 2},
};

// A credential has named the tenant `a`.
static void test_claims_are_rewritten(void **state)
{
	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rewrites); i++) {
		for (unsigned claimed = 0; claimed < 3; claimed++) {
			static struct text want;
			struct sl_tenants_config config = preset;

			print_message("%s, %u\n", rewrites[i].why, claimed);
			config.claimed = claimed;

			struct world *world = make_world(config, false);

			want.size = 0;
			for (unsigned j = 0; j < 3; j++) {
				put_resource(&world->body, rewrites[i].pairs, j, 'x');
				if (j) // an envelope without items goes
					put_resource(&want, rewrites[i].want[claimed], j, 'x');
			}
			assert_int_equal(split(world, "a"), SL_REASON_NONE);
			assert_int_equal(world->request.part_count, 1);
			if (claimed == 0)
				assert_int_equal(world->request.parts[0].edits.count,
						 3 * rewrites[i].edits);

			const struct sl_bytes out = splice(world, world->request.parts);

			assert_int_equal(out.size, want.size);
			assert_memory_equal(out.data, want.bytes, want.size);
			end_world(world);
		}
	}
}

// Random bodies: every item is in exactly one part, and a part has nothing of another's.
static void test_random(void **state)
{
	struct sl_random random;
	struct world *world = make_world(preset, false);

	(void)state;
	sl_random_init(&random, 7);
	for (unsigned round = 0; round < 300; round++) {
		const unsigned resources = 1 + (unsigned)sl_random_below(&random, 40);
		unsigned want[70] = {0};
		uint32_t items = 0;
		uint64_t bytes = 0;

		for (unsigned i = 0; i < resources; i++) {
			const unsigned who = (unsigned)sl_random_below(&random, 1 + round % 60);
			const unsigned spans = (unsigned)sl_random_below(&random, 9);
			char name[8];

			sprintf(name, "t%u", who);
			want[who] += spans;
			items += spans;
			put_resource(&world->body, PAIRS("x", "y", "tenant", name), spans,
				     (char)(32 + who));
		}
		assert_int_equal(split(world, NULL), SL_REASON_NONE);
		for (unsigned i = 0; items && i < world->request.part_count; i++) {
			const struct sl_part *part = &world->request.parts[i];
			const unsigned who = (unsigned)atoi((const char *)part->tenant_name.data +
							    1);
			const struct sl_view_limits limits = {.items_max = 1000, .depth_max = 10};
			struct sl_view view;

			assert_int_equal(part->offered_items, want[who]);
			assert_int_equal(part->index, i);
			assert_int_equal(sl_view_scan(&view, SL_TRACES, splice(world, part),
						      &limits, &world->request.arena, NULL),
					 SL_VIEW_OK);
			assert_int_equal(view.item_count, want[who]);
			for (uint32_t j = 0; j < view.item_count; j++)
				assert_int_equal(sl_view_item_payload(&view, j).data[2], 32 + who);
			items -= part->offered_items;
			bytes += part->offered_bytes;
		}
		assert_int_equal(items, 0);
		assert_true(bytes <= world->body.size);
		end_request(world);
	}
	end_world(world);
}

// Every allocation of the split may fail: memory full, nothing leaks, nothing stays in flight.
static void test_no_memory(void **state)
{
	struct world *world = make_world(preset, false);

	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		char name[8];

		sprintf(name, "t%u", i % 64);
		put_resource(&world->body, PAIRS("tenant", name), 1, 'x');
	}

	const size_t size = world->body.size;
	bool failed = false, done = false;

	for (uint64_t room = 0; !done; room += 16 * SL_KIB) {
		struct sl_request *request = &world->request;
		const struct sl_view_limits limits = {.items_max = 10000, .depth_max = 10};
		enum sl_reason reason;

		world->body.size = size;
		sl_arena_init(&request->arena, &memory);
		assert_int_equal(sl_view_scan(&request->view, SL_TRACES,
					      sl_bytes(world->body.bytes, size), &limits,
					      &request->arena, NULL),
				 SL_VIEW_OK);
		request->claimant = &(struct sl_claimant){.otherwise = SL_TENANT_NONE};
		memory.budget_bytes = memory.used_bytes + room;
		reason = sl_tenants_make_parts(world->shard, request);
		memory.budget_bytes = 64 * SL_MIB;
		done = reason == SL_REASON_NONE;
		failed = failed || !done;
		if (!done)
			assert_int_equal(reason, SL_REASON_MEMORY_FULL);
		end_request(world);
	}
	assert_true(failed);
	end_world(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_owns_a_resource),
		cmocka_unit_test(test_long_names),
		cmocka_unit_test(test_parts_of_one_body),
		cmocka_unit_test(test_at_most_64),
		cmocka_unit_test(test_an_empty_body),
		cmocka_unit_test(test_in_flight_goes_back),
		cmocka_unit_test(test_claims_are_rewritten),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_no_memory),
	};
	int failed;

	assert_int_equal(sl_memory_init(&memory, 64 * SL_MIB), 0);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	sl_memory_fini(&memory);
	return failed;
}
