#include "tests/unit/tenants/fixture.h"

#include <sys/mman.h>
#include <unistd.h>

#include "dataplane/base/clock.h"
#include "tenants/quota_lease.h"

// The module as the process uses it: settings tables, the tenants file, build().

static struct sl_tenants *build_text(const char *text, size_t size, struct sl_errors *errors)
{
	struct sl_loaded loaded = {0};
	const struct sl_build build = {.errors = errors};
	struct sl_tenants *tenants = NULL;

	if (!sl_settings_load_text(sl_tenants_module.settings, SL_TEST_FOLDER "/test.yaml", text,
				   size, &loaded, errors))
		tenants = sl_tenants_module.build(loaded.object, &build);
	for (uint32_t i = 0; i < sl_errors_count(errors); i++)
		print_message("%s\n", sl_errors_line(errors, i));
	sl_loaded_fini(&loaded);
	return tenants;
}

static void test_embedded(void **state)
{
	static const char text[] =
		"tenants: {file: ../../../config/examples/embedded-tenants.yaml, default: demo}\n"
		"quotas: {mode: enforce}\n";
	struct sl_errors *errors = sl_errors_create();
	struct sl_tenants *tenants = build_text(text, sizeof(text) - 1, errors);
	sl_tenant_id free_id, demo;

	(void)state;
	assert_non_null(tenants);
	assert_int_equal(sl_tenants_count(tenants), 3);
	assert_true(sl_tenants_find(tenants, SL_LITERAL("free"), &free_id));
	assert_true(sl_tenants_find(tenants, SL_LITERAL("demo"), &demo));
	assert_int_equal(tenants->fallback, demo);
	assert_int_equal(tenants->entries[free_id].limits->dimensions[SL_DIMENSION_SPANS].burst,
			 1000);
	assert_ptr_equal(tenants->entries[demo].limits, &sl_limits_none);

	char *json = sl_tenants_describe(tenants, free_id);

	assert_string_equal(json, "{\"tenant\":\"free\",\"suspended\":false,\"class\":\"free\","
				  "\"priority\":1,\"mode\":\"enforce\",\"quota\":{\"spans\":{"
				  "\"per_second\":1000,\"burst\":1000,\"level\":1000}},"
				  "\"refused_requests\":0}");
	free(json);
	sl_tenants_module.destroy(tenants);
	sl_errors_destroy(errors);
}

static void test_inline(void **state)
{
	static const struct {
		const char *why, *text;
		bool good;
	} rows[] = {
		{"nothing at all", "{}", true},
		{"all ways to name a tenant",
		 "tenants:\n"
		 "  identify: [credential, certificate, {header: X-Scope-OrgID, trusted_from: "
		 "[10.0.0.0/8, mtls]}]\n"
		 "  credentials: [{header: Authorization, scheme: Bearer}, X-Api-Key]\n"
		 "  unknown: a\n"
		 "  list: {a: {certificates: [client.example]}}\n",
		 true},
		{"a credential that expires",
		 "tenants: {list: {a: {credentials: [{digest: \"sha256:"
		 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\", expires: "
		 "\"2030-01-01T00:00:00Z\"}]}}}",
		 true},
		{"an unknown key", "tenants: {lists: {a: {}}}", false},
		{"resource attributes, the preset ones, and what becomes of claims",
		 "tenants: {identify: [{resource: [tenant.id], open: true}, resource], claimed: "
		 "strip, list: {a: {}}}",
		 true},
		{"a header and an attribute at once",
		 "tenants: {identify: [{resource: [tenant.id], header: x}], list: {a: {}}}", false},
		{"an attribute without a name",
		 "tenants: {identify: [{resource: [\"\"]}], list: {a: {}}}", false},
		{"a delay of a token bucket",
		 "tenants: {list: {a: {quota: {spans: 1/s, delay_max: 1s}}}}", false},
		{"a window of a leaky bucket",
		 "tenants: {classes: {c: {quota: {spans: 1/s, algorithm: leaky, window: 5s}}}, "
		 "list: {a: {class: c}}}",
		 false},
		{"a delay whose class says leaky",
		 "tenants: {classes: {c: {quota: {spans: 1/s, algorithm: leaky}}}, "
		 "list: {a: {class: c, quota: {delay_max: 1s}}}}",
		 true},
		{"a volume of nothing", "tenants: {list: {a: {quota: {volume: {per: day}}}}}",
		 false},
		{"trust in nonsense",
		 "tenants: {identify: [{header: x, trusted_from: [nonsense]}], list: {a: {}}}",
		 false},
	};

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_errors *errors = sl_errors_create();
		struct sl_tenants *tenants = build_text(rows[i].text, strlen(rows[i].text), errors);

		print_message("%s\n", rows[i].why);
		assert_int_equal(tenants != NULL, rows[i].good);
		assert_int_equal(sl_errors_count(errors) == 0, rows[i].good);
		sl_tenants_module.destroy(tenants);
		sl_errors_destroy(errors);
	}
}

// The override of one key leaves the class' others, through the file as well.
static void test_override(void **state)
{
	static const char text[] =
		"tenants:\n"
		"  classes: {c: {quota: {bytes: 1MiB/s, spans: 10/s, burst: 2s}}}\n"
		"  list: {a: {class: c, quota: {spans: 7/s}}}\n";
	struct sl_errors *errors = sl_errors_create();
	struct sl_tenants *tenants = build_text(text, sizeof(text) - 1, errors);

	(void)state;
	assert_non_null(tenants);
	const struct sl_limits *limits = tenants->entries[0].limits;

	assert_int_equal(limits->dimensions[SL_DIMENSION_SPANS].burst, 14);
	assert_int_equal(limits->dimensions[SL_DIMENSION_BYTES].burst, 2 * 1024 * 1024);
	sl_tenants_module.destroy(tenants);
	sl_errors_destroy(errors);
}

// What of the fleet's leases has pages.
static size_t resident_leases(const struct sl_registry *registry)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	const size_t bytes = SL_REGISTRY_BLOCK * SL_DIMENSION_RATES * sizeof(struct sl_quota_lease);
	unsigned char pages[64];
	size_t resident = 0;

	assert_true(bytes / page <= sizeof(pages));
	for (uint32_t i = 0; i * SL_REGISTRY_BLOCK < registry->count; i++) {
		if (!registry->pools[i]->leases)
			continue;
		assert_int_equal(mincore(registry->pools[i]->leases, bytes, pages), 0);
		for (size_t j = 0; j < bytes / page; j++)
			resident += pages[j] & 1 ? page : 0;
	}
	return resident;
}

// All arrays that grow with tenants, and the names.
static size_t bytes_of(const struct sl_tenants *tenants)
{
	const struct sl_registry *registry = tenants->registry;

	return resident_leases(registry) +
	       (size_t)tenants->entry_count *
		       (sizeof(struct sl_tenant_entry) + sizeof(struct sl_quota_pool) +
			sizeof(struct sl_registry_number) + 32 /* a name */) +
	       (registry->index_mask + 1) * sizeof(uint32_t) +
	       (tenants->by_name.mask + tenants->by_digest.mask + 2) * sizeof(uint32_t) +
	       tenants->credential_count * sizeof(struct sl_credential);
}

// 100,000 tenants load in under 2 s, and idle ones cost at most 512 bytes each; in a fleet too,
// where one that was active costs a page of leases more, which its neighbours share.
static void load_many(bool fleet)
{
	enum { COUNT = 100000 };
	struct sl_quota_redis_config redis = {.address = "127.0.0.1:1"};
	const struct sl_tenants_module_config none = {.tenants = {.unknown = "refuse"}};
	char path[] = "/tmp/sluice-tenants-XXXXXX";
	FILE *file = fdopen(mkstemp(path), "w");
	struct sl_errors *errors = sl_errors_create();
	struct sl_tenants_module_config config = none;

	if (fleet)
		config.quotas.redis = (struct sl_list){&redis, 1};
	fprintf(file, "classes: {c: {quota: {spans: 1000/s}}}\ntenants:\n");
	for (unsigned i = 0; i < COUNT; i++)
		fprintf(file, "  tenant-%u: {class: c, credentials: [\"sha256:%064x\"]}\n", i, i);
	fclose(file);
	config.tenants.file = path;

	const struct sl_build build = {.errors = errors};
	const uint64_t begun_ns = sl_clock_now_ns();
	struct sl_tenants *tenants = sl_tenants_module.build(&config, &build);
	const uint64_t took_ns = sl_clock_now_ns() - begun_ns;

	unlink(path);
	for (uint32_t i = 0; i < sl_errors_count(errors); i++)
		print_message("%s\n", sl_errors_line(errors, i));
	assert_non_null(tenants);
	assert_int_equal(sl_tenants_count(tenants), COUNT);

	const size_t bytes = bytes_of(tenants);

	print_message("%llu ms, %zu bytes a tenant\n", (unsigned long long)(took_ns / SL_MS),
		      bytes / COUNT);
	assert_true(bytes <= 512 * COUNT);
	if (fleet) {
		struct sl_quota_pool *pool = tenants->entries[COUNT / 2].pool;

		pool->leases[SL_DIMENSION_SPANS].largest = 1;
		assert_true(bytes_of(tenants) > bytes && bytes_of(tenants) <= bytes + 4096);
		sl_registry_reset_pool(pool);
		assert_int_equal(pool->leases[SL_DIMENSION_SPANS].largest, 0);
		sl_registry_reset_pool(tenants->entries[0].pool); // takes no page
		assert_true(bytes_of(tenants) <= bytes + 2 * 4096);
	}
	assert_true(took_ns < 60 * SL_S); // a second, where nothing else runs; never a square
	sl_tenants_module.destroy(tenants);
	sl_errors_destroy(errors);
}

static void test_many(void **state)
{
	(void)state;
	load_many(false);
}

static void test_many_in_a_fleet(void **state)
{
	(void)state;
	load_many(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_embedded),        cmocka_unit_test(test_inline),
		cmocka_unit_test(test_override),        cmocka_unit_test(test_many),
		cmocka_unit_test(test_many_in_a_fleet),
	};

	sl_hash_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
