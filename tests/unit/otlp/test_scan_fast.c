#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/otlp/scan.h"
#include "perf/payload.h"
#include "tests/oracle/random.h"

// The straight-line scan against the generic walk: the same verdict, the same place of the fault,
// the same view, whatever the bytes.

#define BODY_MAX  (16 * SL_KIB)
#define ROUNDS    2000
#define MUTATIONS 24

static const struct sl_view_limits limits = {.items_max = 300, .depth_max = 4};
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

// Scans a copy with exactly the slack of the contract behind it, filled by `slack`: what lies there
// must not change anything.
static enum sl_view_result compare(enum sl_signal signal, const uint8_t *bytes, size_t size,
				   uint8_t slack, struct sl_view *fast)
{
	uint8_t *body = malloc(size + SL_BODY_SLACK);
	uint32_t error_at[2] = {0, 0};
	struct sl_arena arena;
	struct sl_view generic;

	assert_non_null(body);
	if (size)
		memcpy(body, bytes, size);
	memset(body + size, slack, SL_BODY_SLACK);
	sl_arena_init(&arena, &memory);

	const enum sl_view_result want = sl_scan_request(&generic, signal, sl_bytes(body, size),
							 &limits, &arena, true, &error_at[0]);
	const enum sl_view_result got = sl_scan_request(fast, signal, sl_bytes(body, size), &limits,
							&arena, false, &error_at[1]);

	assert_int_equal(got, want);
	assert_int_equal(error_at[1], error_at[0]);
	if (want == SL_VIEW_OK) {
		assert_int_equal(fast->only_field_1, generic.only_field_1);
		assert_int_equal(fast->envelope_count, generic.envelope_count);
		assert_int_equal(fast->item_count, generic.item_count);
		assert_memory_equal(fast->envelopes, generic.envelopes,
				    generic.envelope_count * sizeof(struct sl_envelope));
		assert_memory_equal(fast->items, generic.items,
				    generic.item_count * sizeof(struct sl_item));
	}
	sl_arena_fini(&arena);
	free(body);
	return want;
}

// The bytes as they are, with one byte changed (lengths by one, tags, continuation bits), cut.
static void mutate(enum sl_signal signal, uint8_t *bytes, size_t size, struct sl_random *random)
{
	struct sl_view view;

	compare(signal, bytes, size, 0x00, &view);
	for (unsigned i = 0; i < MUTATIONS && size; i++) {
		uint8_t *at = &bytes[sl_random_below(random, size)];
		const uint8_t was = *at;

		switch (sl_random_below(random, 5)) {
		case 0:
			*at = (uint8_t)(was + 1);
			break;
		case 1:
			*at = (uint8_t)(was - 1);
			break;
		case 2:
			*at ^= 0x80;
			break;
		case 3:
			*at ^= (uint8_t)(1 << sl_random_below(random, 8));
			break;
		case 4:
			*at = (uint8_t)sl_random_next(random);
			break;
		}
		compare(signal, bytes, size, (uint8_t)sl_random_next(random), &view);
		*at = was;
	}
}

// Any order, any form: what declines, and what only nearly fits.
static void random_requests(void **state)
{
	static uint8_t bytes[BODY_MAX];
	struct sl_random random;

	(void)state;
	sl_random_init(&random, 1);
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		const enum sl_signal signal = seed % SL_SIGNALS;
		const size_t size = sl_random_request(bytes, sizeof(bytes), signal, seed % 3 * 20,
						      seed);

		mutate(signal, bytes, size, &random);
	}
}

// What SDKs send, and all its neighbours.
static void plain_requests(void **state)
{
	static uint8_t bytes[SL_PAYLOAD_BYTES(12)];
	struct sl_random random;
	struct sl_view view;

	(void)state;
	sl_random_init(&random, 2);
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		const enum sl_signal signal = seed % SL_SIGNALS;
		const uint32_t items = (uint32_t)(seed % 12);
		const size_t size = sl_payload_build(bytes, sizeof(bytes), signal, items, seed);

		assert_int_equal(compare(signal, bytes, size, 0x4a, &view), SL_VIEW_OK);
		assert_int_equal(view.item_count, items);
		mutate(signal, bytes, size, &random);
	}
}

// Every prefix of a request in the common form ends alike, whatever stands behind it.
static void prefixes(void **state)
{
	static uint8_t bytes[SL_PAYLOAD_BYTES(3)];
	static const uint8_t slacks[] = {0x00, 0x12, 0x1a, 0x7a, 0xff};
	struct sl_view view;

	(void)state;
	for (unsigned signal = 0; signal < SL_SIGNALS; signal++) {
		const size_t size = sl_payload_build(bytes, sizeof(bytes), signal, 3, 7);

		for (size_t cut = 0; cut < size; cut++)
			assert_int_equal(
				compare(signal, bytes, cut, slacks[cut % sizeof(slacks)], &view),
				cut ? SL_VIEW_MALFORMED : SL_VIEW_OK);
	}
}

#define TRACE                                                                                      \
	"\x0a\x10"                                                                                 \
	"0123456789abcdef"
#define IDS                                                                                        \
	TRACE "\x12\x08"                                                                           \
	      "spanspan"
#define STRING "\x0a\x01k\x12\x03\x0a\x01v"
#define TIME   "12345678"

// One item in its envelopes: forms at the border of what is plain.
static const struct {
	enum sl_view_result want;
	const char *why;
	enum sl_signal signal;
	size_t size;
	const char *bytes;
} rows[] = {
#define ROW(why, signal, bytes)                                                                    \
	{                                                                                          \
		SL_VIEW_OK, why, signal, sizeof(bytes) - 1, bytes                                  \
	}
#define BAD(why, bytes)                                                                            \
	{                                                                                          \
		SL_VIEW_MALFORMED, why, SL_TRACES, sizeof(bytes) - 1, bytes                        \
	}
	ROW("ids alone", SL_TRACES, IDS),
	ROW("no ids", SL_TRACES, ""),
	ROW("an empty parent is none (the Collector writes it)", SL_TRACES, IDS "\x22\x00"),
	ROW("a parent", SL_TRACES, IDS "\x22\x08parentid\x2a\x01n"),
	ROW("an empty tracestate is none", SL_TRACES, IDS "\x1a\x00"),
	ROW("a tracestate", SL_TRACES,
	    IDS "\x1a\x03"
		"a=b"
		"\x22\x08parentid"),
	ROW("out of order", SL_TRACES, IDS "\x2a\x01n\x22\x08parentid"),
	ROW("an id of 15 bytes", SL_TRACES,
	    "\x0a\x0f"
	    "0123456789abcde"
	    "\x12\x08spanspan"),
	ROW("the trace id twice", SL_TRACES, IDS TRACE),
	ROW("times", SL_TRACES, IDS "\x39" TIME "\x41" TIME),
	ROW("times that run backwards", SL_TRACES,
	    IDS "\x39"
		"12345678"
		"\x41"
		"02345678"),
	ROW("an end without a start", SL_TRACES, IDS "\x41" TIME),
	ROW("attributes", SL_TRACES, IDS "\x4a\x08" STRING "\x4a\x08" STRING),
	ROW("an empty key", SL_TRACES, IDS "\x4a\x07\x0a\x00\x12\x03\x0a\x01v"),
	ROW("an empty string", SL_TRACES, IDS "\x4a\x07\x0a\x01k\x12\x02\x0a\x00"),
	ROW("an empty value", SL_TRACES, IDS "\x4a\x05\x0a\x01k\x12\x00"),
	ROW("no value", SL_TRACES, IDS "\x4a\x03\x0a\x01k"),
	ROW("an empty attribute", SL_TRACES, IDS "\x4a\x00\x4a\x08" STRING),
	ROW("a bool", SL_TRACES, IDS "\x4a\x07\x0a\x01k\x12\x02\x10\x01"),
	ROW("an int of 1", SL_TRACES, IDS "\x4a\x07\x0a\x01k\x12\x02\x18\x01"),
	ROW("an int of 8 bytes", SL_TRACES,
	    IDS "\x4a\x0e\x0a\x01k\x12\x09\x18\xff\xff\xff\xff\xff\xff\xff\x01"),
	ROW("an int of 9 bytes", SL_TRACES,
	    IDS "\x4a\x0f\x0a\x01k\x12\x0a\x18\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
	ROW("a negative int", SL_TRACES,
	    IDS "\x4a\x10\x0a\x01k\x12\x0b\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
	ROW("a double", SL_TRACES, IDS "\x4a\x0e\x0a\x01k\x12\x09\x21" TIME),
	ROW("bytes", SL_TRACES, IDS "\x4a\x08\x0a\x01k\x12\x03\x3a\x01v\x4a\x08" STRING),
	ROW("an array, then a string", SL_TRACES,
	    IDS "\x4a\x0c\x0a\x01k\x12\x07\x2a\x05\x0a\x03\x0a\x01v\x4a\x08" STRING),
	ROW("a string twice in one value", SL_TRACES,
	    IDS "\x4a\x0b\x0a\x01k\x12\x06\x0a\x01v\x0a\x01w"),
	ROW("a value before its key", SL_TRACES, IDS "\x4a\x08\x12\x03\x0a\x01v\x0a\x01k"),
	ROW("an overlong length", SL_TRACES, IDS "\x4a\x88\x00" STRING),
	ROW("events", SL_TRACES,
	    IDS "\x5a\x16\x09" TIME "\x12\x01"
		"e\x1a\x08" STRING "\x5a\x00\x60\x02"),
	ROW("an event in another order", SL_TRACES,
	    IDS "\x5a\x0c\x12\x01"
		"e\x09" TIME),
	ROW("links", SL_TRACES,
	    IDS "\x6a\x2f" IDS "\x22\x08" STRING "\x28\x01\x35\x01\x00\x00\x00\x6a\x00\x70\x01"),
	ROW("a link with a tracestate", SL_TRACES,
	    IDS "\x6a\x21" IDS "\x1a\x03"
		"a=b"),
	ROW("an empty status", SL_TRACES, IDS "\x7a\x00"),
	ROW("an error", SL_TRACES, IDS "\x7a\x05\x12\x01m\x18\x02\x85\x01\x01\x01\x00\x00"),
	ROW("a code before its message", SL_TRACES, IDS "\x7a\x05\x18\x02\x12\x01m"),
	ROW("a status that cannot be", SL_TRACES, IDS "\x7a\x02\x18\x7f"),
	ROW("a large code", SL_TRACES, IDS "\x7a\x03\x18\x80\x10"),
	ROW("two states merge", SL_TRACES, IDS "\x7a\x02\x18\x02\x7a\x03\x12\x01m"),
	ROW("flags alone", SL_TRACES, IDS "\x85\x01\x01\x01\x00\x00"),
	ROW("flags twice", SL_TRACES, IDS "\x85\x01\x01\x01\x00\x00\x85\x01\x01\x01\x00\x00"),
	ROW("an unknown field at the end", SL_TRACES, IDS "\x7a\x00\x88\x01\x01"),
	ROW("an empty record", SL_LOGS, ""),
	ROW("a record in order", SL_LOGS,
	    "\x09" TIME "\x10\x09\x1a\x01I\x2a\x03\x0a\x01"
	    "b\x32\x08" STRING "\x38\x01\x45\x01\x00\x00\x00\x4a\x10"
	    "0123456789abcdef"
	    "\x52\x08spanspan\x59" TIME "\x62\x01n"),
	ROW("Java's order", SL_LOGS, "\x09" TIME "\x59" TIME "\x10\x09\x1a\x01I\x62\x01n"),
	ROW("Java's order, nothing between", SL_LOGS, "\x09" TIME "\x59" TIME "\x62\x01n"),
	ROW("observed twice", SL_LOGS, "\x09" TIME "\x59" TIME "\x10\x09\x59" TIME),
	ROW("empty ids (the Collector writes them)", SL_LOGS, "\x10\x09\x4a\x00\x52\x00"),
	ROW("an empty body", SL_LOGS, "\x2a\x00"),
	ROW("a body that is a list", SL_LOGS, "\x2a\x0c\x32\x0a\x0a\x08" STRING),
	ROW("a severity of two bytes", SL_LOGS, "\x10\x80\x01"),
	ROW("a trace id of 15 bytes", SL_LOGS,
	    "\x4a\x0f"
	    "0123456789abcde"),
	BAD("a member cut behind its tag", IDS "\x4a\x06\x0a\x01k\x12\x01\x0a"),
	BAD("a value cut behind its tag", IDS "\x4a\x04\x0a\x01k\x12"),
	BAD("a key longer than its attribute", IDS "\x4a\x04\x0a\x03k\x12"),
	BAD("a string longer than its value", IDS "\x4a\x08\x0a\x01k\x12\x03\x0a\x02v"),
	BAD("an int that goes on behind its value", IDS "\x4a\x07\x0a\x01k\x12\x02\x18\x81"),
	BAD("an int of 65 bits",
	    IDS "\x4a\x10\x0a\x01k\x12\x0b\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
	BAD("a double of 7 bytes", IDS "\x4a\x0d\x0a\x01k\x12\x08\x21"
				       "1234567"),
	BAD("an attribute longer than its span", IDS "\x4a\x09" STRING),
	BAD("a name longer than its span", IDS "\x2a\x02n"),
	BAD("a time cut short", IDS "\x39"
				    "1234567"),
	BAD("a status longer than its span", IDS "\x7a\x03\x18\x02"),
	BAD("flags cut short", IDS "\x85\x01\x01\x01\x00"),
	BAD("an event longer than its span", IDS "\x5a\x0a\x09" TIME),
	BAD("a link's flags cut short", IDS "\x6a\x1f" IDS "\x35\x01\x00"),
#undef ROW
#undef BAD
};

static size_t wrap(uint8_t *out, uint8_t tag, size_t size)
{
	uint8_t head[1 + SL_VARINT_BYTES_MAX] = {tag};
	const unsigned bytes = 1 + sl_varint_put(head + 1, size);

	memmove(out + bytes, out, size);
	memcpy(out, head, bytes);
	return size + bytes;
}

static void table(void **state)
{
	// What stands behind the item in its scope: nothing, a schema's URL, a sibling.
	static const char *const behind[] = {"", "\x1a\x01u", "\x12\x04\x1a\x02no"};
	uint8_t bytes[256];
	struct sl_view view;

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		for (unsigned j = 0; j < SL_COUNT_OF(behind); j++) {
			memcpy(bytes, rows[i].bytes, rows[i].size);

			size_t size = wrap(bytes, 0x12, rows[i].size);

			memcpy(bytes + size, behind[j], strlen(behind[j]));
			size = wrap(bytes, 0x12, size + strlen(behind[j]));
			size = wrap(bytes, 0x0a, size);
			for (unsigned slack = 0; slack < 256; slack++)
				if (compare(rows[i].signal, bytes, size, (uint8_t)slack, &view) !=
				    rows[i].want)
					fail_msg("%s: not %d", rows[i].why, rows[i].want);
		}
	}
}

// More items and envelopes than the first arrays hold, small ones first: the guess is wrong.
static void growth(void **state)
{
	static const struct sl_view_limits many = {.items_max = 100000, .depth_max = 4};
	const uint32_t small = 200, large = 300;
	const size_t size_max = small * 4 + large * 600;
	uint8_t *body = calloc(1, size_max + SL_BODY_SLACK);
	size_t size = 0;
	struct sl_arena arena;
	struct sl_view view;

	(void)state;
	assert_non_null(body);
	for (uint32_t i = 0; i < small + large; i++) {
		// Each in a resource and a scope of its own; the large ones have a name.
		const size_t name = i < small ? 0 : 500;
		uint8_t *at = body + size;
		size_t bytes = 0;

		if (name) {
			memset(at, 'n', name);
			bytes = wrap(at, 0x2a, name);
		}
		bytes = wrap(at, 0x12, bytes);
		if (name) {
			bytes = wrap(at, 0x12, bytes);
			bytes = wrap(at, 0x0a, bytes);
		} else {
			bytes = wrap(at, 0x12, 0);
			bytes = wrap(at, 0x0a, bytes);
		}
		size += bytes;
	}
	assert_true(size <= size_max);
	sl_arena_init(&arena, &memory);
	assert_int_equal(sl_view_scan(&view, SL_TRACES, sl_bytes(body, size), &many, &arena, NULL),
			 SL_VIEW_OK);
	assert_int_equal(view.item_count, large);
	assert_int_equal(view.envelope_count, 2 * (small + large));
	assert_int_equal(view.items[large - 1].envelope, view.envelope_count - 1);
	sl_arena_fini(&arena);
	free(body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table),          cmocka_unit_test(prefixes),
		cmocka_unit_test(plain_requests), cmocka_unit_test(random_requests),
		cmocka_unit_test(growth),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
