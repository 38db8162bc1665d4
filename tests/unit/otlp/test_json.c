#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/otlp/json.h"
#include "dataplane/otlp/view.h"

static struct sl_memory memory;

static int set_up(void **state)
{
	(void)state;
	return sl_memory_init(&memory, 64 * SL_MIB);
}

static int tear_down(void **state)
{
	(void)state;
	assert_int_equal(memory.used_bytes, 0);
	sl_memory_fini(&memory);
	return 0;
}

static enum sl_json_result read_json(enum sl_signal signal, struct sl_bytes json, bool names,
				     struct sl_arena *arena, struct sl_bytes *wire, char *error,
				     size_t error_size)
{
	const struct sl_json_limits limits = {32, 100000, names};

	sl_arena_init(arena, &memory);
	return sl_json_to_wire(signal, json, &limits, arena, wire, error, error_size);
}

#define SPAN(body) "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{" body "}]}]}]}"
#define ANY(body)  SPAN("\"attributes\":[{\"value\":{" body "}}]")
#define AT         "resourceSpans[0].scopeSpans[0].spans[0]."
#define AT_ANY     AT "attributes[0].value."

// What is accepted, as canonical JSON: the writer is the reader's witness, and the oracle of both
// is protobuf (tests/conform).
static const struct {
	const char *why, *json, *want;
} accepted[] = {
	{"item 4: nothing", "{}", "{}"},
	{"white space", " { \"resourceSpans\" : [ ] } \n", "{}"},
	{"item 44: ids in either case",
	 SPAN("\"traceId\":\"0102030405060708090A0B0c0d0e0f10\",\"parentSpanId\":"
	      "\"00000000000"
	      "0000a\""),
	 SPAN("\"traceId\":\"0102030405060708090a0b0c0d0e0f10\",\"parentSpanId\":"
	      "\"00000000000"
	      "0000a\"")},
	{"item 49: an empty id is none", SPAN("\"traceId\":\"\",\"name\":\"n\""),
	 SPAN("\"name\":\"n\"")},
	{"item 44: links' ids too", SPAN("\"links\":[{\"spanId\":\"FFfffffffffffffe\"}]"),
	 SPAN("\"links\":[{\"spanId\":\"fffffffffffffffe\"}]")},
	{"item 44: other bytes are base64", ANY("\"bytesValue\":\"+/8=\""),
	 ANY("\"bytesValue\":\"+/8=\"")},
	{"item 48: the other alphabet, unpadded", ANY("\"bytesValue\":\"-_8\""),
	 ANY("\"bytesValue\":\"+/8=\"")},
	{"item 45: enums are integers", SPAN("\"kind\":3"), SPAN("\"kind\":3")},
	{"an enum's number that is new to us", SPAN("\"kind\":99"), SPAN("\"kind\":99")},
	{"item 46: unknown names, however deep",
	 SPAN("\"a\":[[{\"traceId\":5}],null,1e9],\"b\":{\"name\":{}},\"kind\":1,\"c\":"
	      "true"),
	 SPAN("\"kind\":1")},
	{"item 46: names have one case", SPAN("\"trace_id\":\"x\",\"Name\":1"), SPAN("")},
	{"item 47: 64 bits as a number", SPAN("\"startTimeUnixNano\":18446744073709551615"),
	 SPAN("\"startTimeUnixNano\":\"18446744073709551615\"")},
	{"item 47: 64 bits as a string", ANY("\"intValue\":\"-9223372036854775808\""),
	 ANY("\"intValue\":\"-9223372036854775808\"")},
	{"item 48: null is unset", SPAN("\"name\":null,\"attributes\":null,\"status\":null"),
	 SPAN("")},
	{"item 48: an integer with a fraction", ANY("\"intValue\":5.0"), ANY("\"intValue\":\"5\"")},
	{"item 48: with an exponent", ANY("\"intValue\":1e3"), ANY("\"intValue\":\"1000\"")},
	{"item 48: in a string", ANY("\"intValue\":\"1e3\""), ANY("\"intValue\":\"1000\"")},
	{"an exponent that takes the fraction", ANY("\"intValue\":1.50e1"),
	 ANY("\"intValue\":\"15\"")},
	{"zero at any exponent", ANY("\"intValue\":0e99999999999"), ANY("\"intValue\":\"0\"")},
	{"item 48: not a number", ANY("\"doubleValue\":\"NaN\""), ANY("\"doubleValue\":\"NaN\"")},
	{"item 48: infinity", ANY("\"doubleValue\":\"-Infinity\""),
	 ANY("\"doubleValue\":\"-Infinity\"")},
	{"a double in a string", ANY("\"doubleValue\":\"1.5e-3\""), ANY("\"doubleValue\":0.0015")},
	{"minus zero keeps its sign", ANY("\"doubleValue\":-0.0"), ANY("\"doubleValue\":-0.0")},
	{"17 digits where they are needed", ANY("\"doubleValue\":0.30000000000000004"),
	 ANY("\"doubleValue\":0.30000000000000004")},
	{"item 9: empty values stay", ANY("\"stringValue\":\"\""), ANY("\"stringValue\":\"\"")},
	{"item 9: an empty array stays", ANY("\"arrayValue\":{}"), ANY("\"arrayValue\":{}")},
	{"null is no second member", ANY("\"stringValue\":null,\"boolValue\":false"),
	 ANY("\"boolValue\":false")},
	{"item 10: known, though it means nothing", ANY("\"stringValueStrindex\":-1"),
	 ANY("\"stringValueStrindex\":-1")},
	{"of a name that comes twice, the last",
	 SPAN("\"kind\":1,\"name\":\"a\",\"name\":\"\",\"kind\":0"), SPAN("")},
	{"escapes", SPAN("\"name\":\"\\u00e4\\ud83d\\udc0c\\/\\n\\u0000\""),
	 SPAN("\"name\":\"\xc3\xa4\xf0\x9f\x90\x8c/\\n\\u0000\"")},
};

static void test_accepted(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(accepted); i++) {
		char error[160] = "";
		struct sl_json_text text = {0};
		struct sl_arena arena;
		struct sl_bytes wire;

		print_message("%s\n", accepted[i].why);
		assert_int_equal(read_json(SL_TRACES, sl_bytes_of(accepted[i].json), false, &arena,
					   &wire, error, sizeof(error)),
				 SL_JSON_OK);
		assert_int_equal(sl_json_from_wire(SL_TRACES, wire, &text), 0);
		if (!sl_bytes_equal(sl_bytes(text.text, text.size), sl_bytes_of(accepted[i].want)))
			fail_msg("%.*s", (int)text.size, text.text);
		sl_json_text_fini(&text);
		sl_arena_fini(&arena);
	}
}

static const struct {
	const char *why, *json, *error;
} refused[] = {
	{"item 49: a short id", SPAN("\"traceId\":\"01\""), AT "traceId: expected 32 hex digits"},
	{"item 49: a span id as long as a trace id",
	 SPAN("\"spanId\":\"0102030405060708090a0b0c0d0e0f10\""),
	 AT "spanId: expected 16 hex digits"},
	{"item 44: base64 is no id", SPAN("\"spanId\":\"AAAAAAAAAAAAAAA=\""),
	 AT "spanId: expected 16 hex digits"},
	{"item 45: an enum's name", SPAN("\"kind\":\"SPAN_KIND_SERVER\""),
	 AT "kind: expected an enum's number"},
	{"an integer with a fraction", SPAN("\"kind\":2.5"), AT "kind: expected an enum's number"},
	{"33 bits", SPAN("\"flags\":4294967296"), AT "flags: expected an unsigned 32-bit integer"},
	{"a negative count", SPAN("\"droppedEventsCount\":-1"),
	 AT "droppedEventsCount: expected an unsigned 32-bit integer"},
	{"65 bits", ANY("\"intValue\":\"9223372036854775808\""), AT_ANY "intValue: expected"},
	{"an exponent beyond 64 bits", ANY("\"intValue\":1e20"), AT_ANY "intValue: expected"},
	{"an exponent below one", ANY("\"intValue\":1e-1"), AT_ANY "intValue: expected"},
	{"an empty number", ANY("\"intValue\":\"\""), AT_ANY "intValue: expected"},
	{"a number with a space", ANY("\"intValue\":\" 1\""), AT_ANY "intValue: expected"},
	{"hexadecimal", ANY("\"doubleValue\":\"0x10\""), AT_ANY "doubleValue: expected a number"},
	{"no double is that large", ANY("\"doubleValue\":1e999"),
	 AT_ANY "doubleValue: expected a number"},
	{"infinity has one name", ANY("\"doubleValue\":\"inf\""),
	 AT_ANY "doubleValue: expected a number"},
	{"base64 of one digit", ANY("\"bytesValue\":\"A\""), AT_ANY "bytesValue: expected base64"},
	{"padding that does not fill", ANY("\"bytesValue\":\"AA=\""),
	 AT_ANY "bytesValue: expected base64"},
	{"a boolean is no string", ANY("\"boolValue\":\"true\""),
	 AT_ANY "boolValue: expected true or false"},
	{"a string is no number", SPAN("\"name\":5"), AT "name: expected a string"},
	{"a string is no object", SPAN("\"name\":{}"), AT "name: expected a string"},
	{"an array is not one", SPAN("\"name\":[\"a\"]"), AT "name: expected a string"},
	{"one is no array", SPAN("\"attributes\":{}"), AT "attributes: expected an array"},
	{"null is no element", SPAN("\"attributes\":[{},null]"),
	 AT "attributes[1]: expected an object"},
	{"arrays do not nest", SPAN("\"attributes\":[[]]"), AT "attributes[0]: expected an object"},
	{"two of a choice of one", ANY("\"stringValue\":\"a\",\"intValue\":1"),
	 AT_ANY "intValue: expected no second value"},
	{"overlong UTF-8", SPAN("\"name\":\"\xc0\xaf\""), AT "name: expected UTF-8"},
	{"a surrogate in UTF-8", SPAN("\"name\":\"\xed\xa0\x80\""), AT "name: expected UTF-8"},
	{"an array is no request", "[]", "expected an object"},
	{"null is no request", "null", "expected an object"},
	{"nothing is no request", "", "parse error"},
	{"two requests", "{}{}", "parse error: trailing garbage"},
	{"a comma too many", "{\"a\":1,}", "parse error"},
};

static void test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(refused); i++) {
		char error[160] = "";
		struct sl_arena arena;
		struct sl_bytes wire;

		print_message("%s\n", refused[i].why);
		assert_int_equal(read_json(SL_TRACES, sl_bytes_of(refused[i].json), false, &arena,
					   &wire, error, sizeof(error)),
				 SL_JSON_MALFORMED);
		if (strncmp(error, refused[i].error, strlen(refused[i].error)) != 0)
			fail_msg("%s", error);
		sl_arena_fini(&arena);
	}
}

static void test_enum_names(void **state)
{
	(void)state;
	struct sl_arena arena;
	struct sl_bytes wire;
	char error[160];

	assert_int_equal(read_json(SL_TRACES,
				   SL_LITERAL(SPAN("\"kind\":\"SPAN_KIND_SERVER\",\"status\":{"
						   "\"code\":\"STATUS_CODE_ERROR\"}")),
				   true, &arena, &wire, error, sizeof(error)),
			 SL_JSON_OK);
	assert_true(sl_bytes_equal(wire,
				   SL_LITERAL("\x0a\x0a\x12\x08\x12\x06\x30\x02\x7a\x02\x18\x02")));
	sl_arena_fini(&arena);
	assert_int_equal(read_json(SL_TRACES, SL_LITERAL(SPAN("\"kind\":\"SERVER\"")), true, &arena,
				   &wire, error, sizeof(error)),
			 SL_JSON_MALFORMED);
	sl_arena_fini(&arena);
}

// The lengths of nested messages take one, two and three bytes; packed runs have one too.
static void test_metrics_wire(void **state)
{
	(void)state;
	static const char json[] =
		"{\"resourceMetrics\":[{\"scopeMetrics\":[{\"metrics\":[{\"histogram\":{"
		"\"dataPoints\":"
		"[{\"bucketCounts\":[1,\"0\"],\"explicitBounds\":[],\"sum\":0}]}}]}]}]}";
	static const uint8_t want[] = "\x0a\x23\x12\x21\x12\x1f\x4a\x1d\x0a\x1b"
				      "\x32\x10\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
				      "\x29\0\0\0\0\0\0\0";
	struct sl_arena arena;
	struct sl_bytes wire;
	char error[160];

	assert_int_equal(read_json(SL_METRICS, sl_bytes_of(json), false, &arena, &wire, error,
				   sizeof(error)),
			 SL_JSON_OK);
	assert_int_equal(wire.size, sizeof(want));
	assert_memory_equal(wire.data, want, sizeof(want));
	sl_arena_fini(&arena);
}

static void test_limits(void **state)
{
	(void)state;
	static const char open[] = "{\"resourceLogs\":[{\"x\":";
	struct sl_json_limits limits = {16, 100, false};
	char json[400], error[160];
	struct sl_arena arena;
	struct sl_bytes wire;

	for (unsigned depth = 10; depth < 16; depth++) { // three are in `open`
		int size = snprintf(json, sizeof(json), "%s", open);

		for (unsigned i = 0; i < depth; i++)
			size += snprintf(json + size, sizeof(json) - (size_t)size, "[");
		for (unsigned i = 0; i < depth; i++)
			size += snprintf(json + size, sizeof(json) - (size_t)size, "]");
		snprintf(json + size, sizeof(json) - (size_t)size, "}]}");
		sl_arena_init(&arena, &memory);
		assert_int_equal(sl_json_to_wire(SL_LOGS, sl_bytes_of(json), &limits, &arena, &wire,
						 error, sizeof(error)),
				 depth + 3 <= 16 ? SL_JSON_OK : SL_JSON_TOO_DEEP);
		sl_arena_fini(&arena);
	}
	for (unsigned size = 90; size < 110; size++) {
		snprintf(json, sizeof(json), "{\"resourceLogs\":[{\"schemaUrl\":\"%0*d\"}]}",
			 (int)size, 0);
		sl_arena_init(&arena, &memory);
		assert_int_equal(sl_json_to_wire(SL_LOGS, sl_bytes_of(json), &limits, &arena, &wire,
						 error, sizeof(error)),
				 size + 4 <= 100 ? SL_JSON_OK : SL_JSON_TOO_LARGE);
		sl_arena_fini(&arena);
	}
}

// The n-th allocation fails, for every n: refused, and nothing is kept.
static void test_no_memory(void **state)
{
	(void)state;
	static const char item[] = "{\"name\":\"\\u00e4 long name with an escape in it\"},";
	const uint64_t budget = memory.budget_bytes;
	char *json = malloc(200000), error[160];
	const struct sl_json_limits limits = {32, 1 << 20, false};
	enum sl_json_result result = SL_JSON_NO_MEMORY;
	struct sl_bytes wire;
	size_t at;

	at = (size_t)sprintf(json, "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[");
	for (unsigned i = 0; i < 2000; i++)
		at += (size_t)sprintf(json + at, "%s", item);
	sprintf(json + at - 1, "]}]}]}");
	for (memory.budget_bytes = 0; result != SL_JSON_OK; memory.budget_bytes += 3000) {
		struct sl_arena arena;

		assert_true(memory.budget_bytes < SL_MIB);
		sl_arena_init(&arena, &memory);
		result = sl_json_to_wire(SL_TRACES, sl_bytes_of(json), &limits, &arena, &wire,
					 error, sizeof(error));
		assert_true(result == SL_JSON_OK || result == SL_JSON_NO_MEMORY);
		sl_arena_fini(&arena);
		assert_int_equal(memory.used_bytes, 0);
	}
	memory.budget_bytes = budget;
	free(json);
}

// Legal wire that no exporter of ours would write.
static void test_odd_wire(void **state)
{
	(void)state;
	static const struct {
		const char *why;
		struct sl_bytes wire;
		int result;
		const char *json;
	} rows[] = {
		{"a sub-message in two parts merges",
		 SL_LITERAL("\x0a\x08\x0a\x02\x10\x05\x0a\x02\x10\x06"), 0,
		 "{\"resourceSpans\":[{\"resource\":{\"droppedAttributesCount\":6}}]}"},
		{"item 9: unknown fields and groups are stepped over",
		 SL_LITERAL("\xf8\x01\x05\xa3\x01\x08\x01\xa4\x01\x0a\x00"), 0,
		 "{\"resourceSpans\":[{}]}"},
		{"a default is not written", SL_LITERAL("\x0a\x04\x0a\x02\x10\x00"), 0,
		 "{\"resourceSpans\":[{\"resource\":{}}]}"},
		{"what is not UTF-8 is replaced", SL_LITERAL("\x0a\x03\x1a\x01\xff"), 0,
		 "{\"resourceSpans\":[{\"schemaUrl\":\"\xef\xbf\xbd\"}]}"},
		{"a length beyond the end", SL_LITERAL("\x0a\x05\x0a"), -EINVAL, ""},
		{"a known field of another wire type", SL_LITERAL("\x08\x01"), -EINVAL, ""},
		{"an end without its group", SL_LITERAL("\xa4\x01"), -EINVAL, ""},
		{"a group without its end", SL_LITERAL("\xa3\x01"), -EINVAL, ""},
		{"field 0", SL_LITERAL("\x02\x00"), -EINVAL, ""},
	};

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_json_text text = {0};

		print_message("%s\n", rows[i].why);
		assert_int_equal(sl_json_from_wire(SL_TRACES, rows[i].wire, &text), rows[i].result);
		if (!sl_bytes_equal(sl_bytes(text.text, text.size), sl_bytes_of(rows[i].json)))
			fail_msg("%.*s", (int)text.size, text.text);
		sl_json_text_fini(&text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepted),   cmocka_unit_test(test_refused),
		cmocka_unit_test(test_enum_names), cmocka_unit_test(test_metrics_wire),
		cmocka_unit_test(test_limits),     cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_odd_wire),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
