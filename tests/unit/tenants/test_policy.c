#include "tests/unit/tenants/fixture.h"

#include <unistd.h>

#include "config/internal.h"
#include "tenants/classes.h"

// Classes that extend others, and tenants in a folder of files.

static struct sl_tenants *build_text(const char *text, struct sl_errors *errors)
{
	struct sl_loaded loaded = {0};
	const struct sl_build build = {.errors = errors};
	struct sl_tenants *tenants = NULL;

	if (!sl_settings_load_text(sl_tenants_module.settings, SL_TEST_FOLDER "/test.yaml", text,
				   strlen(text), &loaded, errors))
		tenants = sl_tenants_module.build(loaded.object, &build);
	for (uint32_t i = 0; i < sl_errors_count(errors); i++)
		print_message("%s\n", sl_errors_line(errors, i));
	sl_loaded_fini(&loaded);
	return tenants;
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inheritance),
		cmocka_unit_test(test_wrong_classes),
		cmocka_unit_test(test_long_chain),
		cmocka_unit_test(test_directory),
	};

	sl_hash_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
