#include "tests/unit/test.h"

#include <stdlib.h>

#include "dataplane/otlp/schema.h"
#include "dataplane/otlp/view.h"
#include "tests/oracle/random.h"

// Whether a body's text is UTF-8, beside a plain walk over each field.

#define ROUNDS     4000
#define BODY_BYTES (16 * SL_KIB)

static const struct sl_view_limits limits = {.items_max = 100000, .depth_max = 32};

// RFC 3629, section 4, from the characters' values.
static bool is_utf8(struct sl_bytes text)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};

	for (size_t at = 0; at < text.size;) {
		const uint8_t first = text.data[at];
		const unsigned count = first < 0x80   ? 1
				       : first < 0xc0 ? 0
				       : first < 0xe0 ? 2
				       : first < 0xf0 ? 3
				       : first < 0xf8 ? 4
						      : 0;
		uint32_t value = count == 1 ? first : first & (0x7fu >> count);

		if (!count || count > text.size - at)
			return false;
		for (unsigned i = 1; i < count; i++) {
			if (text.data[at + i] >> 6 != 2)
				return false;
			value = value << 6 | (text.data[at + i] & 0x3f);
		}
		if (value < least[count] || value > 0x10ffff || value >> 11 == 0xd800 >> 11)
			return false;
		at += count;
	}
	return true;
}

static bool plain_walk(const struct sl_message *message, struct sl_bytes payload)
{
	struct sl_wire_field wire;
	uint32_t offset = 0;

	while (sl_wire_next(payload, &offset, &wire)) {
		const struct sl_field *field = sl_schema_field(message, wire.number);

		if (!field || wire.wire_type != 2)
			continue;
		if (field->type == SL_FIELD_STRING && !is_utf8(wire.data))
			return false;
		if (field->type == SL_FIELD_MESSAGE && !plain_walk(field->message, wire.data))
			return false;
	}
	return true;
}

// Random requests, rare forms among them, with a few bytes overwritten: those that the scan still
// takes have the plain walk's verdict.
static void test_random(void **state)
{
	uint8_t *body = calloc(1, BODY_BYTES + SL_BODY_SLACK);
	struct sl_memory memory;
	struct sl_arena arena;
	struct sl_random random;
	unsigned verdicts[2] = {0};

	(void)state;
	assert_int_equal(sl_memory_init(&memory, 4 * SL_MIB), 0);
	sl_random_init(&random, 1);
	for (unsigned round = 0; round < ROUNDS; round++) {
		const enum sl_signal signal = round % SL_SIGNALS;
		const size_t size = sl_random_request(body, BODY_BYTES, signal, round % 40,
						      round + 1);
		struct sl_view view;

		for (uint64_t i = sl_random_below(&random, 4); size && i; i--)
			body[sl_random_below(&random, size)] = (uint8_t)sl_random_below(&random,
											256);
		sl_arena_init(&arena, &memory);
		if (sl_view_scan(&view, signal, sl_bytes(body, size), &limits, &arena, NULL) ==
		    SL_VIEW_OK) {
			const bool want = plain_walk(sl_schema_requests[signal], view.body);

			if (sl_view_text_valid(&view) != want)
				fail_msg("round %u: want %d", round, want);
			verdicts[want]++;
		}
		sl_arena_fini(&arena);
	}
	sl_memory_fini(&memory);
	free(body);
	assert_true(verdicts[0] > ROUNDS / 20 && verdicts[1] > ROUNDS / 20);
}

// One attribute's value of each length, with its highest bit set at each place.
static void test_each_place(void **state)
{
	struct sl_memory memory;

	(void)state;
	assert_int_equal(sl_memory_init(&memory, SL_MIB), 0);
	for (unsigned length = 0; length <= 70; length++) {
		for (unsigned bad = 0; bad <= length; bad++) {
			// resource_spans { resource { attributes { "k": "xxx" } } }
			uint8_t body[128 + SL_BODY_SLACK] = {
				0x0a,
				(uint8_t)(length + 11),
				0x0a,
				(uint8_t)(length + 9),
				0x0a,
				(uint8_t)(length + 7),
				0x0a,
				1,
				'k',
				0x12,
				(uint8_t)(length + 2),
				0x0a,
				(uint8_t)length,
			};
			struct sl_arena arena;
			struct sl_view view;

			memset(body + 13, 'x', length);
			body[13 + bad] = 0xff; // behind the text when bad == length
			sl_arena_init(&arena, &memory);
			assert_int_equal(sl_view_scan(&view, SL_TRACES, sl_bytes(body, 13 + length),
						      &limits, &arena, NULL),
					 SL_VIEW_OK);
			assert_int_equal(sl_view_text_valid(&view), bad == length);
			sl_arena_fini(&arena);
		}
	}
	sl_memory_fini(&memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_each_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
