#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dataplane/otlp/reply.h"

#define RETRY "type.googleapis.com/google.rpc.RetryInfo"
#define BAD   "type.googleapis.com/google.rpc.BadRequest"

static void check(const uint8_t *out, size_t size, struct sl_bytes want)
{
	assert_true(size <= SL_REPLY_BYTES_MAX);
	if (size != want.size || memcmp(out, want.data, size) != 0)
		print_error("got  %.*s\nwant %.*s\n", (int)size, (const char *)out, (int)want.size,
			    (const char *)want.data);
	assert_int_equal(size, want.size);
	assert_memory_equal(out, want.data, size);
}

static void test_success(void **state)
{
	(void)state;
	static const struct {
		const char *why;
		enum sl_signal signal;
		uint64_t rejected;
		struct sl_bytes message, protobuf, json;
	} rows[] = {
		{"item 5: full success is empty", SL_TRACES, 0, SL_LITERAL(""), SL_LITERAL(""),
		 SL_LITERAL("{}")},
		{"item 6: rejected spans", SL_TRACES, 3, SL_LITERAL("too old"),
		 SL_LITERAL("\x0a\x0b\x08\x03\x12\x07too old"),
		 SL_LITERAL("{\"partialSuccess\":{\"rejectedSpans\":\"3\",\"errorMessage\":\"too "
			    "old\"}}")},
		{"item 6: metrics count data points", SL_METRICS, 300, SL_LITERAL(""),
		 SL_LITERAL("\x0a\x03\x08\xac\x02"),
		 SL_LITERAL("{\"partialSuccess\":{\"rejectedDataPoints\":\"300\"}}")},
		{"item 7: a warning", SL_LOGS, 0, SL_LITERAL("old SDK"),
		 SL_LITERAL("\x0a\x09\x12\x07old SDK"),
		 SL_LITERAL("{\"partialSuccess\":{\"errorMessage\":\"old SDK\"}}")},
		{"item 47: a string, up to int64's end", SL_LOGS, UINT64_MAX, SL_LITERAL(""),
		 SL_LITERAL("\x0a\x0a\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
		 SL_LITERAL(
			 "{\"partialSuccess\":{\"rejectedLogRecords\":\"9223372036854775807\"}}")},
		{"quotes, controls and foreign letters", SL_LOGS, 0,
		 SL_LITERAL("\"\\\n\x01\xc3\xa4"), SL_LITERAL("\x0a\x08\x12\x06\"\\\n\x01\xc3\xa4"),
		 SL_LITERAL(
			 "{\"partialSuccess\":{\"errorMessage\":\"\\\"\\\\\\n\\u0001\xc3\xa4\"}}")},
		{"what is not UTF-8 is replaced", SL_LOGS, 0, SL_LITERAL("a\xff\xc3"),
		 SL_LITERAL("\x0a\x09\x12\x07"
			    "a\xef\xbf\xbd\xef\xbf\xbd"),
		 SL_LITERAL(
			 "{\"partialSuccess\":{\"errorMessage\":\"a\xef\xbf\xbd\xef\xbf\xbd\"}}")},
	};
	uint8_t out[SL_REPLY_BYTES_MAX];

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		print_message("%s\n", rows[i].why);
		check(out,
		      sl_reply_success(out, false, rows[i].signal, rows[i].rejected,
				       rows[i].message),
		      rows[i].protobuf);
		check(out,
		      sl_reply_success(out, true, rows[i].signal, rows[i].rejected,
				       rows[i].message),
		      rows[i].json);
	}
}

static void test_status(void **state)
{
	(void)state;
	static const struct {
		const char *why;
		int code;
		struct sl_bytes message;
		uint64_t retry_after_ns;
		struct sl_bytes field, protobuf, json;
	} rows[] = {
		{"item 38: code and message", 3, SL_LITERAL("bad"), 0, SL_LITERAL(""),
		 SL_LITERAL("\x08\x03\x12\x03"
			    "bad"),
		 SL_LITERAL("{\"code\":3,\"message\":\"bad\"}")},
		{"item 22: 30 s is 0A 02 08 1E", 8, SL_LITERAL("slow"), 30 * SL_S, SL_LITERAL(""),
		 SL_LITERAL("\x08\x08\x12\x04slow\x1a\x30\x0a\x28" RETRY
			    "\x12\x04\x0a\x02\x08\x1e"),
		 SL_LITERAL("{\"code\":8,\"message\":\"slow\",\"details\":[{\"@type\":\"" RETRY
			    "\",\"retryDelay\":\"30s\"}]}")},
		{"items 21, 39: the field that is wrong", 3, SL_LITERAL("odd"), 0,
		 SL_LITERAL("x.y"),
		 SL_LITERAL("\x08\x03\x12\x03odd\x1a\x39\x0a\x29" BAD
			    "\x12\x0c\x0a\x0a\x0a\x03x.y\x12\x03odd"),
		 SL_LITERAL("{\"code\":3,\"message\":\"odd\",\"details\":[{\"@type\":\"" BAD
			    "\",\"fieldViolations\":[{\"field\":\"x.y\",\"description\":\"odd\"}]}]"
			    "}")},
		{"both details, and half a second", 14, SL_LITERAL(""), SL_S / 2, SL_LITERAL("x"),
		 SL_LITERAL("\x08\x0e\x1a\x34\x0a\x28" RETRY
			    "\x12\x08\x0a\x06\x10\x80\xca\xb5\xee\x01"
			    "\x1a\x32\x0a\x29" BAD "\x12\x05\x0a\x03\x0a\x01x"),
		 SL_LITERAL("{\"code\":14,\"message\":\"\",\"details\":[{\"@type\":\"" RETRY
			    "\",\"retryDelay\":\"0.500s\"},{\"@type\":\"" BAD
			    "\",\"fieldViolations\":[{\"field\":\"x\",\"description\":\"\"}]}]}")},
	};
	uint8_t out[SL_REPLY_BYTES_MAX];

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		print_message("%s\n", rows[i].why);
		check(out,
		      sl_reply_status(out, false, rows[i].code, rows[i].message,
				      rows[i].retry_after_ns, rows[i].field),
		      rows[i].protobuf);
		check(out,
		      sl_reply_status(out, true, rows[i].code, rows[i].message,
				      rows[i].retry_after_ns, rows[i].field),
		      rows[i].json);
	}
}

// Canonical durations have 0, 3, 6 or 9 digits of fraction.
static void test_durations(void **state)
{
	(void)state;
	static const struct {
		uint64_t ns;
		const char *want;
	} rows[] = {
		{1, "\"0.000000001s\""},
		{1500 * SL_MS, "\"1.500s\""},
		{1500 * SL_US, "\"0.001500s\""},
		{2 * SL_S, "\"2s\""},
		{UINT64_MAX, "\"18446744073.709551615s\""},
	};
	uint8_t out[SL_REPLY_BYTES_MAX];

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		const size_t size = sl_reply_status(out, true, 8, SL_LITERAL("m"), rows[i].ns,
						    SL_BYTES_NONE);

		assert_non_null(memmem(out, size, rows[i].want, strlen(rows[i].want)));
	}
}

// Item 3: whatever the message is, the answer fits, and a cut leaves whole characters.
static void test_long_messages(void **state)
{
	(void)state;
	static const char *const units[] = {
		"a", "\"", "\x01", "\xff", "\xe2\x82\xac", "\xf0\x9f\x90\x8c", "\n\xc3\xa4"};
	uint8_t out[SL_REPLY_BYTES_MAX], text[4096];

	for (size_t i = 0; i < SL_COUNT_OF(units); i++) {
		const size_t unit = strlen(units[i]);

		for (size_t at = 0; at + unit <= sizeof(text); at += unit)
			memcpy(text + at, units[i], unit);

		const struct sl_bytes message = sl_bytes(text, sizeof(text) / unit * unit);
		size_t size = sl_reply_status(out, true, INT32_MAX, message, UINT64_MAX, message);

		assert_in_range(size, 1000, SL_REPLY_BYTES_MAX);
		assert_memory_equal(out + size - 5, "}]}]}", 5);
		size = sl_reply_status(out, false, -1, message, UINT64_MAX, message);
		assert_in_range(size, 1000, SL_REPLY_BYTES_MAX);
		size = sl_reply_success(out, false, SL_LOGS, 1, message);
		assert_in_range(size, SL_REPLY_MESSAGE_MAX - 4, SL_REPLY_MESSAGE_MAX + 10);
		if (units[i][0] == '\xe2') // 512 is 170 of these and two bytes
			assert_memory_equal(out + size - 3, units[i], 3);
	}
}

static void test_base64(void **state)
{
	(void)state;
	static const char *const rows[][2] = {
		{"", ""},
		{"f", "Zg"},
		{"fo", "Zm8"},
		{"foo", "Zm9v"},
		{"foob", "Zm9vYg"},
		{"fooba", "Zm9vYmE"},
		{"foobar", "Zm9vYmFy"},
		{"\xff\xff\xbe", "//++"},
	};
	char out[64];

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) // RFC 4648, section 10; item 22: unpadded
		check((uint8_t *)out, sl_reply_base64(out, sl_bytes_of(rows[i][0])),
		      sl_bytes_of(rows[i][1]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_success),   cmocka_unit_test(test_status),
		cmocka_unit_test(test_durations), cmocka_unit_test(test_long_messages),
		cmocka_unit_test(test_base64),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
