#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/base/clock.h"
#include "tests/fuzz/config_sample.h"

static struct sl_errors *errors;

static int load(const char *text, struct sl_loaded *loaded)
{
	sl_errors_destroy(errors);
	errors = sl_errors_create();
	return sl_settings_load_text(&sample_table, "/etc/x.yaml", text, strlen(text), loaded,
				     errors);
}

// A dump shows no secret, and what it shows instead is none: another must be given.
static void give_secret(char *dump)
{
	char *at = strstr(dump, SL_SETTING_SECRET);
	struct sl_loaded loaded;

	if (!at)
		return;
	assert_int_not_equal(load(dump, &loaded), 0);
	sl_loaded_fini(&loaded);
	memcpy(at, "unsecret", sizeof(SL_SETTING_SECRET) - 1);
}

static void test_values(void **state)
{
	static const struct {
		const char *why, *text, *want;
	} rows[] = {
		{"an empty file is all presets", "", "flag: false\n"},
		{"presets of every kind", "", "address: \"127.0.0.1:8080\"\n"},
		{"one text needs no brackets", "texts: a\n", "texts:\n  - \"a\"\n"},
		{"presets may be lists", "", "texts:\n  - \"a\"\n  - \"b c\"\n"},
		{"presets reach nested objects", "", "  bytes: 64KiB\n  duration: 250ms\n"},
		{"null is as if unset", "address: ~\n", "address: \"127.0.0.1:8080\"\n"},
		{"an empty address is none", "address: \"\"\n", "address: \"\"\n"},
		{"thousands", "inner: {count: 100k}\n", "count: 100000\n"},
		{"a decimal with a unit", "inner: {count: 1.5k}\n", "count: 1500\n"},
		{"decimal megabytes", "inner: {bytes: 10MB}\n", "bytes: 10000000\n"},
		{"a count beyond a double", "inner: {bytes: 9007199254740993}\n",
		 "bytes: 9007199254740993\n"},
		{"minutes", "inner: {duration: 1m}\n", "duration: 1m\n"},
		{"a fraction of a second", "inner: {duration: 0.1s}\n", "duration: 100ms\n"},
		{"a rate a minute", "inner: {per_s: 90/m}\n", "per_s: 1.5/s\n"},
		{"a rate of thousands", "inner: {per_s: 100k/s}\n", "per_s: 100000/s\n"},
		{"a million a day", "inner: {per_s: 1M/d}\n", "per_s: 11.574074074074074/s\n"},
		{"bytes a second", "inner: {bytes_per_s: 2MiB/s}\n", "bytes_per_s: 2MiB/s\n"},
		{"percent", "inner: {ratio: 12.5%}\n", "ratio: 0.125\n"},
		{"ratio", "inner: {ratio: 0.1}\n", "ratio: 0.1\n"},
		{"negative numbers", "inner: {number: -1.5}\n", "number: -1.5\n"},
		{"enum", "word: observe\n", "word: observe\n"},
		{"paths start at the file's folder", "path: a/b\n", "path: \"/etc/a/b\"\n"},
		{"absolute paths stay", "path: /a\n", "path: \"/a\"\n"},
		{"secrets are not shown", "secret: hush\n", "secret: \"<secret>\"\n"},
		{"a choice by its shorthand", "choices: [main]\n",
		 "choices:\n  - destination: \"main\"\n    required: true\n"},
		{"a choice in full", "choices: [{destination: x, required: false}]\n",
		 "choices:\n  - destination: \"x\"\n    required: false\n"},
		{"names of a map, null for presets", "map: {acme: }\n", "map:\n  acme:\n"},
		{"an odd name is quoted", "map: {\"a b\": {}}\n", "map:\n  \"a b\":\n"},
		{"environment", "inner: {text: \"<${env:SL_TEST_SET}>\"}\n", "text: \"<yes>\"\n"},
		{"environment's default", "inner: {text: \"${env:SL_TEST_UNSET:-no}\"}\n",
		 "text: \"no\"\n"},
		{"what a variable holds is not expanded", "inner: {text: \"${env:SL_TEST_REF}\"}\n",
		 "text: \"$${env:X}\"\n"},
		{"numbers come from the environment too", "inner:\n  count: ${env:SL_TEST_N:-5}\n",
		 "count: 5\n"},
		{"two dollars are one", "inner: {text: a$$b}\n", "text: \"a$$b\"\n"},
		{"a preset does not count as given", "optional: {}\n",
		 "optional:\n  text: null\n"
		 "  bytes"},
	};

	(void)state;
	setenv("SL_TEST_SET", "yes", 1);
	setenv("SL_TEST_REF", "${env:X}", 1);
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_loaded loaded, again;
		char *dump, *other;

		if (load(rows[i].text, &loaded))
			fail_msg("%s: %s", rows[i].why, sl_errors_line(errors, 0));
		dump = sl_settings_dump(&sample_table, loaded.object);
		if (!strstr(dump, rows[i].want))
			fail_msg("%s: not in\n%s", rows[i].why, dump);
		give_secret(dump);
		if (load(dump, &again))
			fail_msg("%s: dump: %s", rows[i].why, sl_errors_line(errors, 0));
		other = sl_settings_dump(&sample_table, again.object);
		give_secret(other);
		assert_string_equal(dump, other);
		free(dump);
		free(other);
		sl_loaded_fini(&loaded);
		sl_loaded_fini(&again);
	}
}

static const struct {
	const char *why, *text, *want;
} mistakes[] = {
	{"unknown key", "flags: true\n",
	 "/etc/x.yaml:1:1: unknown key \"flags\"; did you mean \"flag\"?"},
	{"a tab indents", "map:\n\ta: {}\n",
	 "/etc/x.yaml:2:1: a tab: expected blanks, YAML is not indented with tabs"},
	{"a tab behind a text that is not ASCII", "map: # \u00e4\u4e16\n  a: {}\n\tb: {}\n",
	 "/etc/x.yaml:3:1: a tab: expected blanks"},
	{"bytes that are no text, in the second line", "flag: true\nword: \"\xc3\xa4\xe4\"\n",
	 "/etc/x.yaml:2:10: invalid trailing UTF-8 octet"},
	{"what was not closed, where it began", "inner: {bytes: 1MiB\n",
	 ":2:1: did not find expected ',' or '}' while parsing a flow mapping that begins "
	 "at "
	 "1:8"},
	{"no blank behind a colon", "flag: true\nword:enforce\nflag: true\n",
	 "could not find expected ':' while scanning a simple key that begins at 2:1"},
	{"nothing is near", "zebra: 1\n", ":1:1: unknown key \"zebra\""},
	{"twice", "flag: true\nflag: true\n", ":2:1: flag: given twice, first at line 1"},
	{"twice, though once null", "flag:\nflag: true\n", ":2:1: flag: given twice"},
	{"twice in a map", "map:\n  a: {}\n  b: {}\n  a: {}\n",
	 ":4:3: map: \"a\" is given twice, first at line 2"},
	{"a duration", "inner:\n  duration: abc\n",
	 ":2:13: inner.duration: expected a duration such as 250ms, got \"abc\""},
	{"a duration needs its unit", "inner: {duration: 4}\n", "expected a duration"},
	{"bounds with their unit", "inner: {duration: 2h}\n",
	 "inner.duration: 2h is out of bounds: 1ms to 1m"},
	{"ratio has bounds of its own", "inner: {ratio: 101%}\n", "0 to 1"},
	{"counts are whole", "inner: {count: 1.5}\n", "expected a count"},
	{"counts are positive", "inner: {count: -1}\n", "expected a count"},
	{"no hexadecimal", "inner: {number: 0x10}\n", "expected a number"},
	{"no infinity", "inner: {number: inf}\n", "expected a number"},
	{"too large for us", "inner: {bytes: 99999999999999999999}\n", "expected a size"},
	{"enum", "word: enforced\n",
	 "word: expected one of enforce, observe, got \"enforced\"; did you mean enforce?"},
	{"bool", "flag: yes\n", "flag: expected true or false, got \"yes\""},
	{"a list for a text", "inner: {text: [a]}\n", "expected a text, got a list"},
	{"a mapping for a list", "texts: {a: b}\n", "texts: expected a list, got a mapping"},
	{"a text for a mapping", "inner: a\n", ":1:8: inner: expected a mapping, got \"a\""},
	{"a secret is not repeated", "address: x\nsecret: [a]\n", "expected a text"},
	{"required", "choices:\n  - {required: false}\n",
	 ":2:5: choices: missing key \"destination\""},
	{"required, though null", "choices:\n  - {destination: }\n", "missing key"},
	{"variable", "inner: {text: \"${env:SL_NOT_THERE}\"}\n",
	 "environment variable SL_NOT_THERE is not set"},
	{"another reference", "inner: {text: \"${file:x}\"}\n", "expected ${env:NAME}"},
	{"anchor", "texts: &a [x]\n", ":1:8: anchors are not taken"},
	{"alias", "texts: *a\n", "aliases are not taken"},
	{"merge key", "inner: {<<: {}}\n", "merge keys are not taken"},
	{"tag", "flag: !!bool true\n", "tags are not taken"},
	{"two documents", "flag: true\n---\nflag: true\n", ":2:1: a second document"},
	{"not YAML", "texts: [\n", ":2:1: "},
	{"depth", "a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
	 "nested too deeply"},
	{"a null element", "texts: [~]\n", "an element is empty"},
	{"a zero byte", "inner: {text: \"a\\0b\"}\n", "zero byte"},
};

static void test_mistakes(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(mistakes); i++) {
		struct sl_loaded loaded;
		bool found = false;

		assert_int_equal(load(mistakes[i].text, &loaded), -EINVAL);
		for (uint32_t j = 0; j < sl_errors_count(errors); j++)
			found |= strstr(sl_errors_line(errors, j), mistakes[i].want) != NULL;
		if (!found)
			fail_msg("%s: got %s", mistakes[i].why, sl_errors_line(errors, 0));
	}
}

static void test_all_mistakes_at_once(void **state)
{
	struct sl_loaded loaded;

	(void)state;
	load("flag: 1\nword: x\nworld: 1\ninner: {count: a, number: b}\n", &loaded);
	assert_int_equal(sl_errors_count(errors), 5);
}

static void test_file_errors(void **state)
{
	struct sl_loaded loaded;

	(void)state;
	sl_errors_destroy(errors);
	errors = sl_errors_create();
	assert_int_equal(sl_settings_load(&sample_table, "/nonexistent/x", &loaded, errors),
			 -ENOENT);
	assert_non_null(strstr(sl_errors_line(errors, 0), "/nonexistent/x: cannot be read"));
	assert_int_equal(sl_settings_load(&sample_table, "/", &loaded, errors), -EISDIR);
}

static void test_where(void **state)
{
	struct sl_loaded loaded;
	const struct sample *sample;

	(void)state;
	assert_int_equal(load("map:\n  a: {}\n  b:\n    count: 1\n", &loaded), 0);
	sample = loaded.object;

	const struct sample_inner *inner = sample->map.items;

	assert_int_equal(sample->map.count, 2);
	assert_string_equal(inner[1].name, "b");
	assert_int_equal(inner[1].where.line, 3); // the entry's key, not what is in it
	assert_string_equal(inner[1].where.file, "/etc/x.yaml");
	assert_true(inner[1].has_count);
	assert_false(inner[0].has_count);
	sl_loaded_fini(&loaded);
}

static void test_restart(void **state)
{
	static const struct {
		const char *why, *before, *after;
		uint32_t want;
		const char *first, *second; // of the lines
	} rows[] = {
		{"live rows change freely", "flag: true\n", "flag: false\n", 0, NULL, NULL},
		{"a restart row, and where it is now", "word: enforce\n",
		 "flag: true\nword: observe\n", 1,
		 "/etc/x.yaml:2:1: word: needs a restart: it is enforce now, and would be observe",
		 NULL},
		{"one that is there no more", "word: observe\n", "", 1,
		 "/etc/x.yaml: word: needs a restart: it is observe now, and would be enforce",
		 NULL},
		{"members of a restart list", "choices: [a]\n", "choices: [a, b]\n", 1,
		 ":1:1: choices: needs a restart: it is [\"a\"] now, and would be [\"a\", \"b\"]",
		 NULL},
		{"all of them", "word: enforce\n", "choices: [a]\n\nword: observe\n", 2,
		 ":3:1: word: needs", ":1:1: choices: needs a restart: it is [] now"},
		{"inside a member rows speak for themselves", "choices: [a]\n", "choices: [b]\n", 0,
		 NULL, NULL},
		{"the same in other words", "word: enforce\n", "# x\nword: \"enforce\"\n", 0, NULL,
		 NULL},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_loaded before, after;

		assert_int_equal(load(rows[i].before, &before), 0);
		assert_int_equal(load(rows[i].after, &after), 0);
		if (sl_settings_restart_needed(&sample_table, before.object, &after, "/etc/x.yaml",
					       errors) != rows[i].want ||
		    sl_errors_count(errors) != rows[i].want)
			fail_msg("%s: %u lines", rows[i].why, sl_errors_count(errors));
		if ((rows[i].first && !strstr(sl_errors_line(errors, 0), rows[i].first)) ||
		    (rows[i].second && !strstr(sl_errors_line(errors, 1), rows[i].second)))
			fail_msg("%s: %s", rows[i].why, sl_errors_line(errors, 0));
		sl_loaded_fini(&before);
		sl_loaded_fini(&after);
	}
}

// What stands where it has no effect is told, unless it says what holds anyway.
static void test_idle(void **state)
{
	static const struct {
		const char *why, *text, *want; // NULL: nothing to tell
	} rows[] = {
		{"a word beside it is another", "word: enforce\nwatch: true\n",
		 "/etc/x.yaml:2:1: warning: watch has no effect here: only with `word: observe`"},
		{"it is that", "word: observe\nwatch: true\n", NULL},
		{"as its preset", "word: enforce\nwatch: false\n", NULL},
		{"what must be set is not", "objects: [{suffix: x}]\n",
		 ":1:12: warning: objects.suffix has no effect here: only with `text`, not with "
		 "`number`"},
		{"it is set", "objects: [{text: a, suffix: x}]\n", NULL},
		{"what must not be set is", "objects: [{text: a, number: 1, suffix: x}]\n",
		 "objects.suffix has no effect"},
		{"a whole object", "idle: {count: 1}\n", ":1:1: warning: idle has no effect here"},
		{"whose values are presets", "idle: {count: 17}\n", NULL},
		{"a mistake first", "flags: 1\nwatch: true\n", NULL},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_loaded loaded;

		load(rows[i].text, &loaded);
		if (sl_errors_warnings(errors) != (rows[i].want != NULL) ||
		    (rows[i].want && !strstr(sl_errors_warning(errors, 0), rows[i].want)))
			fail_msg("%s: %u warnings, %s", rows[i].why, sl_errors_warnings(errors),
				 sl_errors_warnings(errors) ? sl_errors_warning(errors, 0) : "");
		sl_loaded_fini(&loaded);
	}
}

static void test_reference(void **state)
{
	char *text = sl_settings_reference(&sample_table);

	(void)state;
	assert_non_null(
		strstr(text, "| `duration` | duration | `250ms` | 1ms to 1m | live | Help. |"));
	assert_non_null(strstr(text, "| `destination` | text | **required** |"));
	assert_non_null(strstr(text, "| Help. Only with `text`, not with `number`. |"));
	assert_non_null(strstr(text, "list of [choice](#choice), or its `destination` alone"));
	assert_null(strstr(strstr(text, "\n## inner\n") + 1, "\n## inner\n"));
	free(text);
}

static void test_many_tenants(void **state)
{
	const size_t count = 100000;
	char *text = malloc(count * 128);
	struct sl_loaded loaded;
	uint64_t began;
	size_t used = (size_t)sprintf(text, "map:\n");

	(void)state;
	for (size_t i = 0; i < count; i++)
		used += (size_t)sprintf(text + used,
					"  tenant-%06zu:\n    text: \"sha256:%040zu\"\n"
					"    count: 100k\n    per_s: 1000/s\n",
					i, i);
	began = sl_clock_now_ns();
	assert_int_equal(load(text, &loaded), 0);
	print_message("%zu bytes, %zu entries: %.0f ms\n", used, count,
		      (double)(sl_clock_now_ns() - began) / 1e6);
	assert_int_equal(((struct sample *)loaded.object)->map.count, count);
	sl_loaded_fini(&loaded);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),       cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_file_errors),  cmocka_unit_test(test_all_mistakes_at_once),
		cmocka_unit_test(test_where),        cmocka_unit_test(test_restart),
		cmocka_unit_test(test_idle),         cmocka_unit_test(test_reference),
		cmocka_unit_test(test_many_tenants),
	};
	const int failed = cmocka_run_group_tests(tests, NULL, NULL);

	sl_errors_destroy(errors);
	return failed;
}
