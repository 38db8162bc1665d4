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

// A destination that keeps what it was given.
static struct {
	uint8_t bytes[1024 + SL_BODY_SLACK];
	size_t size;
} kept;

static void *open_keeper(void *self, const struct sl_driver_env *env)
{
	(void)self, (void)env;
	return &kept;
}

static void close_keeper(void *side)
{
	(void)side;
}

static enum sl_reason submit_to_keeper(void *side, struct sl_record *record)
{
	(void)side;
	for (uint32_t i = 0; i < record->piece_count; i++) {
		assert_true(kept.size + record->pieces[i].iov_len < 1024);
		memcpy(kept.bytes + kept.size, record->pieces[i].iov_base,
		       record->pieces[i].iov_len);
		kept.size += record->pieces[i].iov_len;
	}
	sl_egress_end(record, SL_OUTCOME_DELIVERED, 0);
	return SL_REASON_NONE;
}

static void poll_keeper(void *side, uint64_t now_ns)
{
	(void)side, (void)now_ns;
}

static const struct sl_driver keeper = {
	.name = "keeper",
	.destroy = close_keeper,
	.open = open_keeper,
	.close = close_keeper,
	.submit = submit_to_keeper,
	.poll = poll_keeper,
};

// Where resources go apart, each destination gets its own and nothing of the others'.
static void test_each_gets_its_own(void **state)
{
	const struct sl_view_limits limits = {.items_max = 100, .depth_max = 10};
	struct rig rig = {.driver = &keeper};
	struct sl_view view;
	struct call call;

	(void)state;
	kept.size = 0;
	set_up(&rig, "destinations: {a: {blackhole: {}}, b: {blackhole: {}}}\n"
		     "routes: [{match: {service: 'check*'}, to: [a]}, {to: [b]}]\n");
	offer(&rig, &call, "t", SL_TRACES,
	      TRACES(RESOURCE("x", SPAN(ID1)) "," RESOURCE("checkout", SPAN(ID2)) "," RESOURCE(
		      "y", SPAN(ID1) "," SPAN(ID2))));
	pump(&rig, &call);
	assert_int_equal(count(&rig, "sluice_delivered_items", "a"), 1);
	assert_int_equal(count(&rig, "sluice_delivered_items", "b"), 3);

	struct sl_arena arena;
	struct sl_any any;

	sl_arena_init(&arena, &rig.memory);
	assert_int_equal(sl_view_scan(&view, SL_TRACES, sl_bytes(kept.bytes, kept.size), &limits,
				      &arena, NULL),
			 SL_VIEW_OK);
	assert_int_equal(view.item_count, 1);
	assert_true(sl_view_resource_any(&view, 0, SL_LITERAL("service.name"), &any));
	assert_true(sl_bytes_equal(any.text, SL_LITERAL("checkout")));
	sl_arena_fini(&arena);
	tear_down(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patterns),
		cmocka_unit_test(test_attributes),
		cmocka_unit_test(test_each_gets_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
