#include "tests/unit/routing/rig.h"

// Patterns, and resource attributes of every kind against them.

static const struct {
	const char *why, *pattern, *text;
	enum sl_match_kind kind;
	bool match;
} patterns[] = {
	{"a plain word is compared", "abc", "abc", SL_MATCH_EQUAL, true},
	{"to its end", "abc", "abcd", SL_MATCH_EQUAL, false},
	{"and from its beginning", "abc", "ab", SL_MATCH_EQUAL, false},
	{"a star at the end is a prefix", "ab*", "abcd", SL_MATCH_PREFIX, true},
	{"which may be all", "ab*", "ab", SL_MATCH_PREFIX, true},
	{"or too long", "ab*", "a", SL_MATCH_PREFIX, false},
	{"a star alone is any", "*", "", SL_MATCH_PREFIX, true},
	{"two stars are a glob", "a**", "abc", SL_MATCH_GLOB, true},
	{"a star in front is a glob", "*c", "abc", SL_MATCH_GLOB, true},
	{"a star within", "a*c", "abbc", SL_MATCH_GLOB, true},
	{"that does not match", "a*c", "abbd", SL_MATCH_GLOB, false},
	{"one byte", "a?c", "abc", SL_MATCH_GLOB, true},
	{"exactly one", "a?c", "ac", SL_MATCH_GLOB, false},
	{"an escaped star is a star", "a\\*", "a*", SL_MATCH_GLOB, true},
	{"and no prefix", "a\\*", "ab", SL_MATCH_GLOB, false},
};

static void test_patterns(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(patterns); i++) {
		const struct sl_pattern pattern = sl_pattern_of(patterns[i].pattern);

		if (pattern.kind != patterns[i].kind ||
		    sl_pattern_match(&pattern, sl_bytes_of(patterns[i].text)) != patterns[i].match)
			fail_msg("%s: %s %s", patterns[i].why, patterns[i].pattern,
				 patterns[i].text);
	}
}

static const struct {
	const char *why, *value, *pattern; // of resource attribute k, as OTLP JSON
	bool match;
} attributes[] = {
	{"a text", "{\"stringValue\":\"eu\"}", "eu", true},
	{"another text", "{\"stringValue\":\"us\"}", "eu", false},
	{"an empty text is there", "{\"stringValue\":\"\"}", "*", true},
	{"true", "{\"boolValue\":true}", "\"true\"", true},
	{"false", "{\"boolValue\":false}", "\"false\"", true},
	{"true is not false", "{\"boolValue\":true}", "\"false\"", false},
	{"a number", "{\"intValue\":\"42\"}", "\"42\"", true},
	{"below nothing", "{\"intValue\":\"-9223372036854775808\"}", "\"-9223372036854775808\"",
	 true},
	{"by a prefix", "{\"intValue\":\"42\"}", "4*", true},
	{"another number", "{\"intValue\":\"42\"}", "\"43\"", false},
	{"a double", "{\"doubleValue\":0.5}", "\"0.5\"", true},
	{"a double without a fraction", "{\"doubleValue\":3}", "\"3\"", true},
	{"another double", "{\"doubleValue\":0.25}", "\"0.5\"", false},
	{"a list is there", "{\"arrayValue\":{\"values\":[{\"intValue\":1}]}}", "*", true},
	{"but is no text", "{\"arrayValue\":{\"values\":[{\"intValue\":1}]}}", "\"1\"", false},
	{"nor is a map", "{\"kvlistValue\":{\"values\":[]}}", "\"0\"", false},
	{"bytes are no text", "{\"bytesValue\":\"ZXU=\"}", "eu", false},
};

static uint64_t taken_by_a(const char *resource, const char *match)
{
	struct rig rig = {0};
	struct call call;
	uint64_t items;
	char yaml[512], json[512];

	snprintf(yaml, sizeof(yaml),
		 "destinations: {a: {blackhole: {}}, b: {blackhole: {}}}\n"
		 "routes: [{match: {resource: [%s]}, to: [a]}, {to: [b]}]\n",
		 match);
	snprintf(json, sizeof(json),
		 "{\"resourceSpans\":[{\"resource\":{\"attributes\":[%s]},\"scopeSpans\":"
		 "[{\"spans\":[" SPAN(ID1) "]}]}]}",
		 resource);
	set_up(&rig, yaml);
	offer(&rig, &call, "t", SL_TRACES, json);
	pump(&rig, &call);
	items = count(&rig, "sluice_delivered_items", "a");
	assert_int_equal(items + count(&rig, "sluice_delivered_items", "b"), 1);
	tear_down(&rig);
	return items;
}

static void test_attributes(void **state)
{
	char resource[256], match[128];

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(attributes); i++) {
		snprintf(resource, sizeof(resource), "{\"key\":\"k\",\"value\":%s}",
			 attributes[i].value);
		snprintf(match, sizeof(match), "{name: k, value: %s}",
			 attributes[i].pattern[0] == '*' ? "'*'" : attributes[i].pattern);
		if (taken_by_a(resource, match) != attributes[i].match)
			fail_msg("%s: %s %s", attributes[i].why, attributes[i].value, match);
	}
	assert_int_equal(taken_by_a("", "{name: k, value: '*'}"), 0);
	assert_int_equal(taken_by_a("{\"key\":\"k\",\"value\":{}}", "k"), 1); // present is enough
	assert_int_equal(taken_by_a("{\"key\":\"k\",\"value\":{\"stringValue\":\"1\"}}",
				    "{name: k, value: '1'}, {name: l}"),
			 0); // all must match
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patterns),
		cmocka_unit_test(test_attributes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
