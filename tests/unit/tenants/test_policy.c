#include "tests/unit/tenants/fixture.h"

#include <unistd.h>

#include "config/internal.h"
#include "tenants/classes.h"

// Classes that extend others, and tenants in a folder of files.

static struct sl_tenants *build_on(const char *text, const struct sl_build *build)
{
	struct sl_loaded loaded = {0};
	struct sl_tenants *tenants = NULL;

	if (!sl_settings_load_text(sl_tenants_module.settings, SL_TEST_FOLDER "/test.yaml", text,
				   strlen(text), &loaded, build->errors))
		tenants = sl_tenants_module.build(loaded.object, build);
	for (uint32_t i = 0; i < sl_errors_count(build->errors); i++)
		print_message("%s\n", sl_errors_line(build->errors, i));
	sl_loaded_fini(&loaded);
	return tenants;
}

static struct sl_tenants *build_text(const char *text, struct sl_errors *errors)
{
	return build_on(text, &(struct sl_build){.errors = errors});
}

static const struct sl_tenant_entry *entry_of(const struct sl_tenants *tenants, const char *name)
{
	sl_tenant_id tenant;

	assert_true(sl_tenants_find(tenants, sl_bytes_of(name), &tenant));
	return &tenants->entries[tenant];
}

static void test_inheritance(void **state)
{
	static const char text[] =
		"tenants:\n"
		"  classes:\n"
		"    trial: {extends: free, quota: {points: 7/s}} # before what it extends\n"
		"    base: {priority: 5, body: 2MiB, quota: {bytes: 1MiB/s, spans: 100/s, burst: "
		"2s, mode: observe}}\n"
		"    free: {extends: base, priority: 2, quota: {spans: 10/s}}\n"
		"  list:\n"
		"    a: {class: trial}\n"
		"    b: {class: trial, body: 4MiB, quota: {burst: 4s}}\n";
	struct sl_errors *errors = sl_errors_create();
	struct sl_tenants *tenants = build_text(text, errors);
	const struct sl_tenant_entry *a, *b;

	(void)state;
	assert_non_null(tenants);
	a = entry_of(tenants, "a");
	b = entry_of(tenants, "b");
	assert_int_equal(a->limits->dimensions[SL_DIMENSION_BYTES].burst, 2 * SL_MIB);
	assert_int_equal(a->limits->dimensions[SL_DIMENSION_SPANS].burst, 20);
	assert_int_equal(a->limits->dimensions[SL_DIMENSION_POINTS].burst, 14);
	assert_int_equal(a->limits->dimensions[SL_DIMENSION_REQUESTS].burst, SL_UNLIMITED);
	assert_true(a->limits->observe);
	assert_int_equal(a->body_bytes_max, 2 * SL_MIB);
	assert_int_equal(b->limits->dimensions[SL_DIMENSION_SPANS].burst, 40);
	assert_int_equal(b->limits->dimensions[SL_DIMENSION_POINTS].burst, 28);
	assert_int_equal(b->body_bytes_max, 4 * SL_MIB);
	assert_int_equal(tenants->classes[a->class_index].config.priority, 2);
	sl_tenants_module.destroy(tenants);
	sl_errors_destroy(errors);
}

static void test_wrong_classes(void **state)
{
	static const struct {
		const char *why, *text, *want;
	} rows[] = {
		{"it extends itself", "tenants:\n  classes:\n    a: {extends: a}\n",
		 "test.yaml:3:9: classes in a circle: a extends a"},
		{"a circle of three, told once",
		 "tenants:\n  classes:\n    a: {extends: b}\n    b: {extends: c}\n    c: {extends: "
		 "a}\n    d: {extends: a}\n",
		 "test.yaml:3:9: classes in a circle: a extends b extends c extends a"},
		{"it extends nothing that is there",
		 "tenants:\n  classes:\n    gold: {}\n    b: {extends: golf}\n",
		 "test.yaml:4:9: class b: there is no class golf; did you mean gold?"},
		{"a tenant's class",
		 "tenants:\n  classes: {gold: {}}\n  list:\n    a:\n      class: golt\n",
		 "test.yaml:5:7: tenant a: there is no class golt; did you mean gold?"},
		{"the default tenant", "tenants:\n  default: acne\n  list:\n    acme: {}\n",
		 "test.yaml:2:3: tenants.default: there is no tenant acne; did you mean acme?"},
		{"a name that the ledger has", "tenants:\n  list:\n    a: {}\n    _other: {}\n",
		 "test.yaml:4:5: _other is no name of a tenant: the ledger's own account has it"},
		{"and the other one", "tenants:\n  list:\n    _unknown: {}\n",
		 "test.yaml:3:5: _unknown is no name of a tenant: the ledger's own account has it"},
		{"the tenant of unknown calls",
		 "tenants:\n  unknown: nobody\n  list:\n    acme: {}\n",
		 "test.yaml:2:3: tenants.unknown: there is no tenant nobody"},
	};

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_errors *errors = sl_errors_create();

		print_message("%s\n", rows[i].why);
		assert_null(build_text(rows[i].text, errors));
		assert_int_equal(sl_errors_count(errors), 1);
		assert_non_null(strstr(sl_errors_line(errors, 0), rows[i].want));
		sl_errors_destroy(errors);
	}
}

// However long a chain of classes is.
static void test_long_chain(void **state)
{
	struct sl_text text = {0};
	struct sl_errors *errors = sl_errors_create();
	struct sl_tenants *tenants;

	(void)state;
	sl_text_print(&text, "tenants:\n  list: {t: {class: c%d}}\n  classes:\n",
		      SL_CLASSES_MAX - 1);
	for (unsigned i = SL_CLASSES_MAX - 1; i > 0; i--)
		sl_text_print(&text, "    c%u: {extends: c%u}\n", i, i - 1);
	sl_text_print(&text, "    c0: {body: 1234}\n");
	tenants = build_text(text.data, errors);
	assert_non_null(tenants);
	assert_int_equal(entry_of(tenants, "t")->body_bytes_max, 1234);
	sl_tenants_module.destroy(tenants);
	sl_errors_destroy(errors);
	free(text.data);
}

static void put_file(const char *folder, const char *name, const char *text)
{
	char path[200];
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void test_directory(void **state)
{
	char folder[] = "/tmp/sluice-tenants-XXXXXX", text[300], want[300];
	static const char *const names[] = {"1.yaml", "2.yml", "note.txt", ".3.yaml"};
	struct sl_errors *errors = sl_errors_create();
	struct sl_tenants *tenants;

	(void)state;
	assert_non_null(mkdtemp(folder));
	put_file(folder, names[0], "classes: {c: {body: 1000}}\ntenants: {a: {}, b: {}}\n");
	put_file(folder, names[1], "tenants: {d: {class: c}}\n");
	put_file(folder, names[2], "none of ours: [\n");
	put_file(folder, names[3], "nor this: [\n");
	snprintf(text, sizeof(text), "tenants: {directory: %s, list: {e: {class: c}}}\n", folder);
	tenants = build_text(text, errors);
	assert_non_null(tenants);
	assert_int_equal(sl_tenants_count(tenants), 4);
	assert_int_equal(entry_of(tenants, "d")->body_bytes_max, 1000);
	sl_tenants_module.destroy(tenants);

	// Two files are wrong: both are told of, with the place.
	put_file(folder, names[0], "classes: {c: {body: 1000}}\ntenants: {a: {bady: 1}, b: {}}\n");
	put_file(folder, names[1], "tenants:\n  d:\n    class: [c]\n");
	assert_null(build_text(text, errors));
	assert_int_equal(sl_errors_count(errors), 2);
	snprintf(want, sizeof(want), "%s/1.yaml:2:15: tenants.a: unknown key \"bady\"", folder);
	assert_non_null(strstr(sl_errors_line(errors, 0), want));
	snprintf(want, sizeof(want), "%s/2.yml:3:12: tenants.d.class: expected", folder);
	assert_non_null(strstr(sl_errors_line(errors, 1), want));
	for (unsigned i = 0; i < SL_COUNT_OF(names); i++) {
		snprintf(want, sizeof(want), "%s/%s", folder, names[i]);
		unlink(want);
	}
	rmdir(folder);
	sl_errors_destroy(errors);
	errors = sl_errors_create();
	assert_null(build_text(text, errors));
	assert_non_null(strstr(sl_errors_line(errors, 0), "tenants.directory: /tmp/sluice-"));
	sl_errors_destroy(errors);
}

static struct sl_tenants *build_list(const char *names, const struct sl_tenants *before)
{
	char text[800];
	struct sl_loaded loaded = {0};
	struct sl_snapshot snapshot = {.parts = {[SL_MODULE_TENANTS] = (void *)before}};
	struct sl_errors *errors = sl_errors_create();
	const struct sl_build build = {.errors = errors, .before = before ? &snapshot : NULL};
	struct sl_tenants *tenants;

	snprintf(text, sizeof(text), "tenants: {list: {%s}}\n", names);
	assert_int_equal(sl_settings_load_text(sl_tenants_module.settings, "t.yaml", text,
					       strlen(text), &loaded, errors),
			 0);
	tenants = sl_tenants_module.build(loaded.object, &build);
	assert_non_null(tenants);
	sl_loaded_fini(&loaded);
	sl_errors_destroy(errors);
	return tenants;
}

// The next configuration is in force, and the one before has gone.
static struct sl_tenants *replace(struct sl_tenants *tenants, const char *names)
{
	struct sl_tenants *next = build_list(names, tenants);

	sl_tenants_destroy(tenants);
	return next;
}

static sl_tenant_id number_of(const struct sl_tenants *tenants, const char *name)
{
	sl_tenant_id tenant;

	assert_true(sl_tenants_find(tenants, sl_bytes_of(name), &tenant));
	return tenant;
}

// A number is used again only when no request of its last tenant is left, and starts anew then.
static void test_numbers_are_used_again(void **state)
{
	struct sl_tenants *tenants = build_list("a: {quota: {requests: 5/s}}, b: {}", NULL);
	struct sl_tenants_shard *shards[2];
	const sl_tenant_id a = number_of(tenants, "a"), b = number_of(tenants, "b");
	struct fake *fake = make_fake();
	uint64_t now_ns = SL_S;
	uint8_t phase;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		shards[i] = sl_tenants_shard_create(i, 2, NULL);
		sl_tenants_shard_turn(shards[i], tenants, now_ns);
	}
	phase = sl_tenants_take_request(shards[1]);
	assert_int_equal(send_part(fake, shards[1], a, SL_TRACES, 1, 1), 0);

	// Whatever is reloaded meanwhile: it is not used.
	tenants = replace(tenants, "b: {}");
	for (unsigned i = 0; i < 5; i++) {
		char names[40];

		for (unsigned j = 0; j < 4; j++)
			for (unsigned k = 0; k < 2; k++)
				sl_tenants_shard_turn(shards[k], tenants, now_ns += SL_MS);
		sl_tenants_tick(tenants, now_ns);
		snprintf(names, sizeof(names), "b: {}, n%u: {}", i);
		tenants = replace(tenants, names);
		assert_int_equal(number_of(tenants, "b"), b);
		snprintf(names, sizeof(names), "n%u", i);
		assert_int_not_equal(number_of(tenants, names), a);
	}

	// Its request has ended. n0 to n4 had numbers too, which go round.
	sl_tenants_give_request(shards[1], phase);
	bool again = false;

	for (unsigned i = 0; i < 12; i++) {
		char names[60];

		for (unsigned j = 0; j < 4; j++)
			for (unsigned k = 0; k < 2; k++)
				sl_tenants_shard_turn(shards[k], tenants, now_ns += SL_MS);
		for (unsigned j = 0; j < 30; j++)
			sl_tenants_tick(tenants, now_ns += SL_QUOTA_TICK_NS);
		snprintf(names, sizeof(names), "b: {}, m%u: {quota: {requests: 9/s}}", i);
		tenants = replace(tenants, names);
		snprintf(names, sizeof(names), "m%u", i);
		if (number_of(tenants, names) == a) {
			again = true;
			assert_int_equal(sl_quota_pool_level(tenants->entries[a].pool,
							     SL_DIMENSION_REQUESTS),
					 9);
		}
		assert_int_equal(number_of(tenants, "b"), b);
	}
	assert_true(again);
	assert_true(tenants->registry->count <= 12);
	for (unsigned i = 0; i < 2; i++)
		sl_tenants_shard_destroy(shards[i]);
	sl_tenants_destroy(tenants);
	free(fake);
}

// 16,000 names come and go: as many numbers as there were at a time.
static void test_churn(void **state)
{
	struct sl_tenants *tenants = build_list("a: {}", NULL);
	struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 1, NULL);
	uint64_t now_ns = SL_S;

	(void)state;
	for (unsigned i = 0; i < 2000; i++) {
		char names[700];
		int used = snprintf(names, sizeof(names), "a: {}");

		for (unsigned j = 0; j < 8; j++)
			used += snprintf(names + used, sizeof(names) - (size_t)used,
					 ", t%u-%u: {quota: {spans: %u/s}}", i, j, i + 1);
		for (unsigned j = 0; j < 4; j++)
			sl_tenants_shard_turn(shard, tenants, now_ns += SL_MS);
		sl_tenants_tick(tenants, now_ns);
		tenants = replace(tenants, names);
	}
	assert_true(tenants->registry->count <= 1 + 8 * 5);
	sl_tenants_shard_destroy(shard);
	sl_tenants_destroy(tenants);
}

// --- tenants from a template ---------------------------------------------------------------------

struct world {
	struct sl_tenants *tenants;
	struct sl_tenants_shard *shard;
	uint64_t now_ns;
};

static struct world make_world(const char *more)
{
	char text[500];
	struct sl_errors *errors = sl_errors_create();
	struct world world = {.now_ns = SL_S};

	snprintf(text, sizeof(text),
		 "tenants:\n"
		 "  identify: [credential, {header: x-tenant}, certificate]\n"
		 "  classes: {trial: {body: 777, quota: {requests: 5/s}}}\n"
		 "  list: {known: {}, other: {}}\n"
		 "  unknown: create\n"
		 "  template: trial\n"
		 "  created_max: 4\n"
		 "  idle: 10s\n"
		 "%s",
		 more);
	world.tenants = build_text(text, errors);
	assert_non_null(world.tenants);
	sl_errors_destroy(errors);
	world.shard = sl_tenants_shard_create(0, 1, NULL);
	sl_tenants_shard_turn(world.shard, world.tenants, world.now_ns);
	return world;
}

static void end_world(struct world *world)
{
	sl_tenants_shard_destroy(world->shard);
	sl_tenants_destroy(world->tenants);
}

static struct sl_identity call(struct world *world, const char *name, const char *certificate)
{
	struct sl_address peer;
	const struct sl_http_header header = {SL_LITERAL("x-tenant"), sl_bytes_of(name)};
	const struct sl_identity_claim claim = {.headers = &header,
						.header_count = name ? 1 : 0,
						.peer = &peer,
						.certificate_name = certificate};

	assert_int_equal(sl_address_parse(&peer, "127.0.0.1:1"), 0);
	return sl_tenants_identify(world->shard, &claim, 1);
}

static struct sl_tenants_created pass(struct world *world, uint64_t ns)
{
	struct sl_tenants_created created;

	for (unsigned i = 0; i < 10; i++) {
		world->now_ns += ns / 10;
		sl_tenants_tick(world->tenants, world->now_ns);
		sl_tenants_create(world->tenants, world->now_ns, &created);
		sl_tenants_shard_turn(world->shard, world->tenants, world->now_ns);
	}
	return created;
}

static void test_template(void **state)
{
	struct world world = make_world("");
	struct sl_identity first = call(&world, "new-one", NULL), second;
	struct sl_tenant_info info;

	(void)state;
	// Admitted at once, under its name, on the account of all newcomers.
	assert_int_equal(first.reason, SL_REASON_NONE);
	assert_int_equal(first.tenant, world.tenants->created->newcomers);
	assert_true(first.borrowed && sl_bytes_equal(first.name, SL_LITERAL("new-one")));
	assert_int_equal(call(&world, "another", NULL).tenant, first.tenant);
	assert_true(sl_tenants_info(world.tenants, first.tenant, &info));
	assert_int_equal(info.body_bytes_max, 777);

	assert_int_equal(pass(&world, SL_S).live, 2);
	first = call(&world, "new-one", NULL);
	second = call(&world, "another", NULL);
	assert_int_not_equal(first.tenant, second.tenant);
	assert_true(!first.borrowed && sl_bytes_equal(first.name, SL_LITERAL("new-one")));
	assert_true(sl_tenants_info(world.tenants, first.tenant, &info));
	assert_true(sl_bytes_equal(info.class_name, SL_LITERAL("trial")));
	assert_true(sl_bytes_equal(info.name, SL_LITERAL("new-one")));

	// Each has a quota of its own.
	struct fake *fake = make_fake();
	unsigned admitted = 0;

	while (send_part(fake, world.shard, first.tenant, SL_TRACES, 1, 1) == 0)
		admitted++;
	assert_int_equal(admitted, 5);
	assert_int_equal(send_part(fake, world.shard, second.tenant, SL_TRACES, 1, 1), 0);

	// Names that are none, and those of tenants that are known, make nobody.
	assert_int_equal(call(&world, "..", NULL).reason, SL_REASON_UNKNOWN_TENANT);
	assert_int_equal(call(&world, "_other", NULL).reason, SL_REASON_UNKNOWN_TENANT);
	assert_int_equal(call(&world, NULL, "_unknown").reason, SL_REASON_UNKNOWN_TENANT);
	assert_int_equal(call(&world, "a:b", NULL).reason, SL_REASON_UNKNOWN_TENANT);
	assert_int_equal(call(&world, "known", NULL).tenant, number_of(world.tenants, "known"));
	assert_int_equal(pass(&world, SL_S).made, 2);
	free(fake);
	end_world(&world);
}

static void test_template_certificates(void **state)
{
	struct world world = make_world("");

	(void)state;
	assert_int_equal(call(&world, NULL, "client-7").tenant, world.tenants->created->newcomers);
	assert_int_equal(pass(&world, SL_S).live, 1);
	assert_true(sl_bytes_equal(call(&world, NULL, "client-7").name, SL_LITERAL("client-7")));
	// It must not become a tenant that lists other certificates, or none.
	assert_int_equal(call(&world, NULL, "known").reason, SL_REASON_UNKNOWN_TENANT);
	assert_int_equal(call(&world, NULL, "no name:").reason, SL_REASON_UNKNOWN_TENANT);
	end_world(&world);
}

// However many names come, there are created_max at most, and who was there first stays.
static void test_template_flood(void **state)
{
	struct world world = make_world("  overflow: other\n");
	char name[32];

	(void)state;
	call(&world, "first", NULL);
	pass(&world, SL_S);
	for (unsigned i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "x%u", i);
		assert_int_equal(call(&world, name, NULL).reason, SL_REASON_NONE);
		if (i % 100 == 0) {
			call(&world, "first", NULL);
			assert_true(pass(&world, 10 * SL_MS).live <= 4);
		}
	}
	assert_int_equal(call(&world, "late", NULL).tenant, number_of(world.tenants, "other"));
	assert_true(sl_bytes_equal(call(&world, "first", NULL).name, SL_LITERAL("first")));
	assert_int_equal(pass(&world, SL_MS).made, 4);
	end_world(&world);

	world = make_world("");
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "x%u", i);
		call(&world, name, NULL);
		pass(&world, SL_MS);
	}
	assert_int_equal(call(&world, "late", NULL).reason, SL_REASON_TENANTS_FULL);
	assert_int_equal(call(&world, "..", NULL).reason, SL_REASON_UNKNOWN_TENANT);
	end_world(&world);
}

// An idle one goes, and its seat is another's only when no request of its is left.
static void test_template_expiry(void **state)
{
	struct world world = make_world("");
	static const char *const names[] = {"a", "b", "c", "d"};
	struct sl_tenants_created created;
	struct sl_identity a;
	uint8_t phase;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		call(&world, names[i], NULL);
		pass(&world, SL_MS);
	}
	phase = sl_tenants_take_request(world.shard);
	a = call(&world, "a", NULL);
	for (unsigned i = 0; i < 15; i++) {
		call(&world, "d", NULL); // is not idle
		created = pass(&world, SL_S);
	}
	assert_int_equal(created.live, 1);
	assert_int_equal(created.expired, 3);
	assert_int_equal(call(&world, "d", NULL).reason, SL_REASON_NONE);
	// The request of `a` is there still: none of the three seats is free.
	assert_int_equal(call(&world, "e", NULL).reason, SL_REASON_TENANTS_FULL);
	assert_memory_equal(a.name.data, "a", 1);
	sl_tenants_give_request(world.shard, phase);
	pass(&world, SL_S);
	assert_int_equal(call(&world, "e", NULL).reason, SL_REASON_NONE);
	created = pass(&world, SL_S);
	assert_int_equal(created.live, 2);
	assert_int_equal(created.made, 5);
	assert_true(sl_bytes_equal(call(&world, "e", NULL).name, SL_LITERAL("e")));
	end_world(&world);
}

// A reload that does not take effect leaves no seats: neither one that its own tenants refuse, nor
// one that another module does.
static void test_seats_of_a_refused_reload(void **state)
{
	static const char text[] = "tenants:\n  unknown: create\n  created_max: %u\n%s";
	struct sl_errors *errors = sl_errors_create();
	const struct sl_build first = {.errors = errors};
	struct sl_snapshot before = {0};
	const struct sl_build build = {.errors = errors, .before = &before};
	struct sl_tenants *tenants, *next;
	char wrong[200], good[200];
	uint32_t numbers;

	(void)state;
	tenants = build_on("tenants: {list: {a: {}}}\n", &first);
	assert_non_null(tenants);
	before.parts[SL_MODULE_TENANTS] = tenants;
	numbers = tenants->registry->count;
	for (unsigned i = 0; i < 20; i++) {
		snprintf(wrong, sizeof(wrong), text, 7, "  default: nobody\n");
		assert_null(build_on(wrong, &build));
		snprintf(good, sizeof(good), text, 5, "");
		next = build_on(good, &build);
		assert_non_null(next);
		sl_tenants_module.destroy(next); // another module refused it
	}
	assert_true(tenants->registry->count <= numbers + 9);
	snprintf(good, sizeof(good), text, 3, "");
	next = build_on(good, &build);
	assert_non_null(next);
	assert_int_equal(next->created->seat_count, 3);
	sl_tenants_module.destroy(tenants);
	// One that took effect keeps what it has: shards may use it.
	before.parts[SL_MODULE_TENANTS] = next;
	snprintf(good, sizeof(good), text, 6, "");
	tenants = build_on(good, &build);
	assert_non_null(tenants);
	assert_ptr_equal(tenants->created, next->created);
	sl_tenants_module.destroy(next);
	assert_int_equal(tenants->created->seat_count, 3);
	sl_tenants_module.destroy(tenants);
	sl_errors_destroy(errors);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inheritance),
		cmocka_unit_test(test_wrong_classes),
		cmocka_unit_test(test_long_chain),
		cmocka_unit_test(test_directory),
		cmocka_unit_test(test_numbers_are_used_again),
		cmocka_unit_test(test_churn),
		cmocka_unit_test(test_template),
		cmocka_unit_test(test_template_certificates),
		cmocka_unit_test(test_template_flood),
		cmocka_unit_test(test_template_expiry),
		cmocka_unit_test(test_seats_of_a_refused_reload),
	};

	sl_hash_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
