#include "tests/unit/test.h"

#include <stdlib.h>

#include "dataplane/otlp/view.h"

static struct sl_memory memory;

static int set_up(void **state)
{
	(void)state;
	return sl_memory_init(&memory, SL_MIB);
}

static int tear_down(void **state)
{
	(void)state;
	sl_memory_fini(&memory);
	return 0;
}

#define BYTES(text) sizeof(text) - 1, text

static const struct {
	const char *why;
	size_t size;
	const char *bytes;
	uint32_t number, wire_type, taken; // of the first field; `taken` 0: none
	uint64_t value;
	size_t data;
} fields[] = {
	{"nothing holds no field", BYTES(""), 0, 0, 0, 0, 0},
	{"a varint", BYTES("\x08\x96\x01\xff"), 1, 0, 3, 150, 0},
	{"64 bits", BYTES("\x39\x01\0\0\0\0\0\0\x80\xff"), 7, 1, 9, UINT64_C(1) << 63 | 1, 0},
	{"32 bits", BYTES("\x85\x01\x02\0\0\x80\xff"), 16, 5, 6, UINT64_C(0x80000002), 0},
	{"bytes", BYTES("\x2a\x02hi\xff"), 5, 2, 4, 0, 2},
	{"no bytes", BYTES("\x2a\x00"), 5, 2, 2, 0, 0},
	{"an overlong length", BYTES("\x2a\x82\x00hi"), 5, 2, 5, 0, 2},
	{"a group is stepped over whole", BYTES("\x7b\x08\x01\x7c\x08"), 15, 3, 4, 0, 0},
	{"so are groups in it", BYTES("\x7b\x83\x01\x0a\x01x\x84\x01\x7c"), 15, 3, 9, 0, 0},
	{"a cut varint ends the walk", BYTES("\x08\x96"), 0, 0, 0, 0, 0},
	{"a cut tag too", BYTES("\x85"), 0, 0, 0, 0, 0},
	{"and cut bits", BYTES("\x39\x01"), 0, 0, 0, 0, 0},
	{"and a length beyond", BYTES("\x2a\x03hi"), 0, 0, 0, 0, 0},
	{"and an open group", BYTES("\x7b\x08\x01"), 0, 0, 0, 0, 0},
	{"and an end without its group", BYTES("\x7c"), 0, 0, 0, 0, 0},
};

static void walk(void **state)
{
	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(fields); i++) {
		struct sl_wire_field field = {0};
		uint32_t offset = 0;
		const bool got = sl_wire_next(sl_bytes(fields[i].bytes, fields[i].size), &offset,
					      &field);

		if (got != (fields[i].taken != 0) || offset != fields[i].taken)
			fail_msg("%s: %d, %u bytes", fields[i].why, got, offset);
		if (!got)
			continue;
		if (field.number != fields[i].number || field.wire_type != fields[i].wire_type ||
		    field.bytes != fields[i].taken || field.at != 0 ||
		    (field.wire_type != 3 && field.value != fields[i].value) ||
		    (field.wire_type == 2 && field.data.size != fields[i].data))
			fail_msg("%s: field %u", fields[i].why, field.number);
	}
}

static const struct {
	const char *why;
	enum sl_signal signal;
	size_t size;
	const char *item; // one item's payload
	uint8_t first;    // of the trace id; 0: has none
} traces[] = {
	{"a span's field 1", SL_TRACES,
	 BYTES("\x0a\x10"
	       "abcdefghijklmnop"),
	 'a'},
	{"a log record's field 9", SL_LOGS,
	 BYTES("\x4a\x10"
	       "abcdefghijklmnop"),
	 'a'},
	{"a log record's field 1 is a time", SL_LOGS,
	 BYTES("\x0a\x10"
	       "abcdefghijklmnop"),
	 0},
	{"a span's field 9 is an attribute", SL_TRACES, BYTES("\x4a\x02\x12\x00"), 0},
	{"none", SL_TRACES, BYTES("\x2a\x01n"), 0},
	{"15 bytes are none", SL_TRACES,
	 BYTES("\x0a\x0f"
	       "abcdefghijklmno"),
	 0},
	{"the last one counts", SL_TRACES,
	 BYTES("\x0a\x10"
	       "abcdefghijklmnop"
	       "\x0a\x10"
	       "bcdefghijklmnopq"),
	 'b'},
	{"even if it is none", SL_TRACES,
	 BYTES("\x0a\x10"
	       "abcdefghijklmnop"
	       "\x0a\x00"),
	 0},
	{"behind other fields", SL_TRACES,
	 BYTES("\x2a\x01n\x0a\x10"
	       "abcdefghijklmnop"),
	 'a'},
	{"a number of that field is not it", SL_TRACES,
	 BYTES("\x0a\x10"
	       "abcdefghijklmnop"
	       "\x08\x01"),
	 'a'},
};

// Scans one item inside one resource and scope; all lengths are below 128.
static void scan_item(struct sl_view *view, struct sl_arena *arena, enum sl_signal signal,
		      uint8_t *body, const char *item, size_t size)
{
	static const struct sl_view_limits limits = {10, 16};
	const uint8_t head[] = {0x0a, (uint8_t)(size + 4), 0x12, (uint8_t)(size + 2),
				0x12, (uint8_t)size};

	memcpy(body, head, sizeof(head));
	memcpy(body + sizeof(head), item, size);
	assert_int_equal(sl_view_scan(view, signal, sl_bytes(body, sizeof(head) + size), &limits,
				      arena, NULL),
			 SL_VIEW_OK);
	assert_int_equal(view->item_count, 1);
}

static void trace_ids(void **state)
{
	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(traces); i++) {
		uint8_t body[128 + SL_BODY_SLACK] = {0}, id[16] = {0};
		struct sl_arena arena;
		struct sl_view view;
		bool got;

		sl_arena_init(&arena, &memory);
		scan_item(&view, &arena, traces[i].signal, body, traces[i].item, traces[i].size);
		got = sl_view_trace_id(&view, 0, id);
		if (got != (traces[i].first != 0) || (got && id[0] != traces[i].first) ||
		    (got && id[15] != traces[i].first + 15))
			fail_msg("%s", traces[i].why);
		sl_arena_fini(&arena);
	}
}

static const struct {
	const char *why;
	size_t size;
	const char *resource; // ResourceSpans' payload
	const char *value;    // NULL: not found
} attributes[] = {
	{"a string", BYTES("\x0a\x0a\x0a\x08\x0a\x01k\x12\x03\x0a\x01v"), "v"},
	{"an empty one", BYTES("\x0a\x09\x0a\x07\x0a\x01k\x12\x02\x0a\x00"), ""},
	{"another key", BYTES("\x0a\x0a\x0a\x08\x0a\x01j\x12\x03\x0a\x01v"), NULL},
	{"a number is no string", BYTES("\x0a\x09\x0a\x07\x0a\x01k\x12\x02\x18\x05"), NULL},
	{"no value", BYTES("\x0a\x05\x0a\x03\x0a\x01k"), NULL},
	{"no resource", BYTES(""), NULL},
	{"the last of a key wins",
	 BYTES("\x0a\x14\x0a\x08\x0a\x01k\x12\x03\x0a\x01v\x0a\x08\x0a\x01k\x12\x03\x0a\x01w"),
	 "w"},
	{"even if it is no string",
	 BYTES("\x0a\x13\x0a\x08\x0a\x01k\x12\x03\x0a\x01v\x0a\x07\x0a\x01k\x12\x02\x18\x05"),
	 NULL},
	{"a resource twice merges",
	 BYTES("\x0a\x0a\x0a\x08\x0a\x01k\x12\x03\x0a\x01v\x0a\x02\x10\x01"), "v"},
	{"the value before the key", BYTES("\x0a\x0a\x0a\x08\x12\x03\x0a\x01v\x0a\x01k"), "v"},
	{"a value's last member wins", BYTES("\x0a\x0c\x0a\x0a\x0a\x01k\x12\x05\x18\x05\x0a\x01v"),
	 "v"},
	{"a dropped count of that number is no attribute",
	 BYTES("\x0a\x0c\x08\x01\x0a\x08\x0a\x01k\x12\x03\x0a\x01v"), "v"},
};

static void resource_attributes(void **state)
{
	static const struct sl_view_limits limits = {10, 16};

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(attributes); i++) {
		uint8_t body[128 + SL_BODY_SLACK] = {0x0a, (uint8_t)attributes[i].size};
		struct sl_bytes value = SL_BYTES_NONE;
		struct sl_arena arena;
		struct sl_view view;
		bool got;

		memcpy(body + 2, attributes[i].resource, attributes[i].size);
		sl_arena_init(&arena, &memory);
		assert_int_equal(sl_view_scan(&view, SL_TRACES,
					      sl_bytes(body, attributes[i].size + 2), &limits,
					      &arena, NULL),
				 SL_VIEW_OK);
		got = sl_view_resource_attribute(&view, 0, sl_bytes("k", 1), &value);
		if (got != (attributes[i].value != NULL) ||
		    (got && (value.size != strlen(attributes[i].value) ||
			     memcmp(value.data, attributes[i].value, value.size) != 0)))
			fail_msg("%s", attributes[i].why);
		sl_arena_fini(&arena);
	}
}

// Two resources, a metric with a gauge of one point in each.
static void resource_of(void **state)
{
	static const char one[] = "\x0a\x08\x12\x06\x12\x04\x2a\x02\x0a\x00";
	static const struct sl_view_limits limits = {10, 16};
	static const uint32_t want[] = {0, 0, 0, 0, 4, 4, 4, 4};
	uint8_t body[64 + SL_BODY_SLACK] = {0};
	struct sl_arena arena;
	struct sl_view view;

	(void)state;
	memcpy(body, one, 10);
	memcpy(body + 10, one, 10);
	sl_arena_init(&arena, &memory);
	assert_int_equal(sl_view_scan(&view, SL_METRICS, sl_bytes(body, 20), &limits, &arena, NULL),
			 SL_VIEW_OK);
	assert_int_equal(view.envelope_count, SL_COUNT_OF(want));
	assert_int_equal(view.item_count, 2);
	for (uint32_t i = 0; i < view.envelope_count; i++)
		assert_int_equal(sl_view_resource_of(&view, i), want[i]);
	sl_arena_fini(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(walk),
		cmocka_unit_test(trace_ids),
		cmocka_unit_test(resource_attributes),
		cmocka_unit_test(resource_of),
	};

	return cmocka_run_group_tests_name("walk", tests, set_up, tear_down);
}
