#include "tests/unit/test.h"

#include <stdlib.h>

#include "dataplane/base/varint.h"
#include "dataplane/otlp/splice.h"
#include "tests/oracle/oracle.pb-c.h"
#include "tests/oracle/random.h"

#define BODY_MAX (64 * SL_KIB)
#define BUDGET   (64 * SL_MIB)

static const struct sl_view_limits limits = {.items_max = 100000, .depth_max = 16};
static struct sl_memory memory;

static int set_up(void **state)
{
	(void)state;
	return sl_memory_init(&memory, BUDGET);
}

static int tear_down(void **state)
{
	(void)state;
	sl_memory_fini(&memory);
	return 0;
}

// A copy with exactly the slack of the contract, filled with `fill`: a byte read behind it is a
// sanitizer's find, one that matters inside it changes a verdict.
static uint8_t *exact(const void *bytes, size_t size, uint8_t fill)
{
	uint8_t *copy = malloc(size + SL_BODY_SLACK);

	assert_non_null(copy);
	if (size)
		memcpy(copy, bytes, size);
	memset(copy + size, fill, SL_BODY_SLACK);
	return copy;
}

static enum sl_view_result scan(enum sl_signal signal, const void *bytes, size_t size, uint8_t fill,
				uint32_t *items)
{
	uint8_t *body = exact(bytes, size, fill);
	struct sl_arena arena;
	struct sl_view view;
	uint32_t error_at = 0;
	enum sl_view_result result;

	sl_arena_init(&arena, &memory);
	result = sl_view_scan(&view, signal, sl_bytes(body, size), &limits, &arena, &error_at);
	assert_true(error_at <= size);
	*items = view.item_count;
	sl_arena_fini(&arena);
	free(body);
	return result;
}

// Random requests behind each other, which are one request too, of at least `least` bytes.
static size_t request_of(uint8_t *out, enum sl_signal signal, unsigned odd, size_t least,
			 uint64_t seed)
{
	size_t size = 0;

	while (size < least)
		size += sl_random_request(out + size, BODY_MAX - size, signal, odd, ++seed);
	return size;
}

static bool protobuf_takes(enum sl_signal signal, const uint8_t *body, size_t size)
{
	static const ProtobufCMessageDescriptor *const requests[SL_SIGNALS] = {
		[SL_TRACES] = &oracle__traces__descriptor,
		[SL_METRICS] = &oracle__metrics__descriptor,
		[SL_LOGS] = &oracle__logs__descriptor,
	};
	ProtobufCMessage *decoded = protobuf_c_message_unpack(requests[signal], NULL, size, body);

	if (decoded)
		protobuf_c_message_free_unpacked(decoded, NULL);
	return decoded != NULL;
}

// Every cut of one body. A prefix is valid where a top-level field ends and nowhere else; what lies
// behind the cut never changes a verdict.
static unsigned cut_everywhere(enum sl_signal signal, const uint8_t *body, size_t size, bool oracle)
{
	static const uint8_t fills[] = {0x00, 0x01, 0x80, 0xff};
	struct sl_wire_field field;
	unsigned taken = 0;
	uint32_t border = 0;

	for (size_t cut = 0; cut < size; cut++) {
		uint32_t items;
		enum sl_view_result got;

		if (cut > border)
			assert_true(sl_wire_next(sl_bytes(body, size), &border, &field));
		got = scan(signal, body, cut, fills[cut % SL_COUNT_OF(fills)], &items);
		if (got != (cut == border ? SL_VIEW_OK : SL_VIEW_MALFORMED))
			fail_msg("cut at %zu of %zu: %d", cut, size, got);
		if (oracle)
			assert_int_equal(got == SL_VIEW_OK, protobuf_takes(signal, body, cut));
		taken += got == SL_VIEW_OK;
	}
	return taken;
}

static void prefixes(void **state)
{
	static const struct {
		const char *why;
		unsigned odd;
		size_t least;
		unsigned bodies;
		bool oracle; // rare forms make protobuf-c read where it must not
	} rows[] = {
		{"large and plain, as protobuf-c sees them", 0, 8200, 1, true},
		{"small and plain", 0, 600, 4, true},
		{"rare forms", 40, 1500, 3, false},
		{"large, rare forms", 40, 8200, 1, false},
	};
	uint8_t *body = malloc(BODY_MAX);
	unsigned taken = 0, cuts = 0;

	(void)state;
	for (unsigned row = 0; row < SL_COUNT_OF(rows); row++) {
		for (unsigned i = 0; i < rows[row].bodies * SL_SIGNALS; i++) {
			const enum sl_signal signal = i % SL_SIGNALS;
			const size_t size = request_of(body, signal, rows[row].odd, rows[row].least,
						       i * 1000 + row);
			uint32_t items;

			assert_int_equal(scan(signal, body, size, 0xff, &items), SL_VIEW_OK);
			assert_true(items > 0);
			taken += cut_everywhere(signal, body, size, rows[row].oracle);
			cuts += (unsigned)size;
		}
	}
	assert_true(cuts > 60000);
	assert_true(taken > 30 && taken < cuts / 100);
	free(body);
}

// The same body with every slack: same verdict, same items.
static void slack(void **state)
{
	uint8_t *body = malloc(BODY_MAX);
	unsigned refused = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 300; seed++) {
		const enum sl_signal signal = seed % SL_SIGNALS;
		size_t size = sl_random_request(body, BODY_MAX, signal, 30, seed);
		struct sl_random random;
		uint32_t first, other;
		enum sl_view_result want;

		if (!size)
			continue;
		sl_random_init(&random, seed);
		body[sl_random_below(&random, size)] = (uint8_t)sl_random_next(&random);
		size -= sl_random_below(&random, SL_MIN(size, 20u));
		want = scan(signal, body, size, 0x00, &first);
		refused += want != SL_VIEW_OK;
		for (unsigned fill = 1; fill < 256; fill += 21) {
			assert_int_equal(scan(signal, body, size, (uint8_t)fill, &other), want);
			if (want == SL_VIEW_OK)
				assert_int_equal(first, other);
		}
	}
	assert_true(refused > 50);
	free(body);
}

// Attributes whose value is `levels` arrays (or lists, or both by turns) in each other.
static size_t deep(uint8_t *out, unsigned levels, unsigned lists_of_ten)
{
	uint8_t pieces[2][4096];
	size_t size = 0;
	unsigned now = 0;

	for (unsigned level = 0; level < levels; level++) {
		const bool list = level % 10 < lists_of_ten;
		uint8_t *at = pieces[!now];
		uint8_t heads[16];
		unsigned head = 0;
		size_t inner = size;

		if (list) { // kvlist { values { value { ... } } }
			heads[head++] = 0x12;
			head += sl_varint_put(heads + head, inner);
			inner += head;
		}
		*at++ = list ? 0x32 : 0x2a;
		at += sl_varint_put(at, 1 + sl_varint_bytes(inner) + inner);
		*at++ = 0x0a;
		at += sl_varint_put(at, inner);
		memcpy(at, heads, head);
		memcpy(at + head, pieces[now], size);
		size = (size_t)(at + head + size - pieces[!now]);
		now = !now;
	}

	// resource_spans, scope_spans, span, attribute, value: lengths of three bytes each.
	static const uint8_t tags[] = {0x0a, 0x12, 0x12, 0x4a, 0x12};
	uint8_t *at = out;

	for (unsigned i = 0; i < sizeof(tags); i++) {
		const size_t inside = size + 4 * (sizeof(tags) - 1 - i);

		*at++ = tags[i];
		*at++ = (uint8_t)(inside | 0x80);
		*at++ = (uint8_t)(inside >> 7 | 0x80);
		*at++ = (uint8_t)(inside >> 14);
	}
	memcpy(at, pieces[now], size);
	return (size_t)(at - out) + size;
}

static void too_deep(void **state)
{
	static const unsigned caps[] = {0, 1, 2, 5, 16, 40};
	uint8_t bytes[4200];

	(void)state;
	for (unsigned lists = 0; lists <= 10; lists += 5) {
		for (unsigned cap = 0; cap < SL_COUNT_OF(caps); cap++) {
			for (unsigned levels = 0; levels < 60; levels++) {
				const struct sl_view_limits capped = {10, caps[cap]};
				const size_t size = deep(bytes, levels, lists);
				uint8_t *body = exact(bytes, size, 0xff);
				struct sl_arena arena;
				struct sl_view view;

				sl_arena_init(&arena, &memory);
				assert_int_equal(
					sl_view_scan(&view, SL_TRACES, sl_bytes(body, size),
						     &capped, &arena, NULL),
					levels <= caps[cap] ? SL_VIEW_OK : SL_VIEW_TOO_DEEP);
				sl_arena_fini(&arena);
				free(body);
			}
		}
	}
}

// One item more than items_max is too many, at every place of the last one.
static void too_many_items(void **state)
{
	uint8_t *bytes = malloc(BODY_MAX);
	unsigned seen = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		const enum sl_signal signal = seed % SL_SIGNALS;
		const size_t size = sl_random_request(bytes, BODY_MAX, signal, 0, seed);
		uint8_t *body = exact(bytes, size, 0xff);
		uint32_t items;

		assert_int_equal(scan(signal, bytes, size, 0, &items), SL_VIEW_OK);
		for (uint32_t max = 0; max <= items; max++) {
			const struct sl_view_limits capped = {max, 16};
			struct sl_arena arena;
			struct sl_view view;

			sl_arena_init(&arena, &memory);
			assert_int_equal(sl_view_scan(&view, signal, sl_bytes(body, size), &capped,
						      &arena, NULL),
					 max < items ? SL_VIEW_TOO_MANY_ITEMS : SL_VIEW_OK);
			assert_true(view.item_count <= max);
			sl_arena_fini(&arena);
		}
		seen += items;
		free(body);
	}
	assert_true(seen > 120);
	free(bytes);
}

// 3000 spans of no bytes, in one scope: the guess of one item in 256 bytes is far too small.
static size_t many(uint8_t *out, unsigned items)
{
	const size_t inside = 2u * items;
	uint8_t *at = out;

	*at++ = 0x0a;
	at += sl_varint_put(at, 1 + sl_varint_bytes(inside) + inside);
	*at++ = 0x12;
	at += sl_varint_put(at, inside);
	for (unsigned i = 0; i < items; i++) {
		*at++ = 0x12;
		*at++ = 0x00;
	}
	return (size_t)(at - out);
}

// The budget ends at every block in turn: refused as that, all given back, and in the end it fits.
static void no_memory_for_the_view(void **state)
{
	uint8_t *bytes = malloc(BODY_MAX);
	const size_t size = many(bytes, 3000);
	uint8_t *body = exact(bytes, size, 0xff);
	enum sl_view_result got = SL_VIEW_NO_MEMORY;
	unsigned refused = 0;

	(void)state;
	for (uint64_t budget = 0; got != SL_VIEW_OK; budget += 512) {
		struct sl_arena arena;
		struct sl_view view;

		assert_true(budget < SL_MIB);
		memory.budget_bytes = budget;
		sl_arena_init(&arena, &memory);
		got = sl_view_scan(&view, SL_TRACES, sl_bytes(body, size), &limits, &arena, NULL);
		if (got == SL_VIEW_OK)
			assert_int_equal(view.item_count, 3000);
		else
			assert_int_equal(got, SL_VIEW_NO_MEMORY);
		refused += got != SL_VIEW_OK;
		sl_arena_fini(&arena);
		assert_int_equal(memory.used_bytes, 0);
	}
	assert_true(refused > 100);
	memory.budget_bytes = BUDGET;
	free(body);
	free(bytes);
}

static void no_memory_for_the_splice(void **state)
{
	static const uint8_t name[] = {0x2a, 0x01, 'x'};
	uint8_t *bytes = malloc(BODY_MAX);
	const size_t size = many(bytes, 3000);
	uint8_t *body = exact(bytes, size, 0xff);
	uint64_t keep[SL_KEEP_WORDS(3000)];
	unsigned refused[2] = {0}, done = 0;
	struct sl_arena view_arena;
	struct sl_view view;

	(void)state;
	memset(keep, 0x55, sizeof(keep));
	sl_arena_init(&view_arena, &memory);
	assert_int_equal(
		sl_view_scan(&view, SL_TRACES, sl_bytes(body, size), &limits, &view_arena, NULL),
		SL_VIEW_OK);
	for (uint64_t room = 0; !done; room += 512) {
		const uint64_t used = memory.used_bytes;
		struct sl_edits edits = {0};
		struct sl_pieces pieces;
		struct sl_arena arena;
		int added = 0, spliced;

		assert_true(room < 4 * SL_MIB);
		memory.budget_bytes = used + room;
		sl_arena_init(&arena, &memory);
		for (uint32_t i = 0; i < 3000 && added == 0; i += 4)
			added = sl_edits_add(&edits, &arena, view.items[i].at + 2, 0,
					     sl_bytes(name, sizeof(name)));
		spliced = added ? added : sl_splice(&view, keep, &edits, &arena, &pieces);
		assert_true(spliced == 0 || spliced == -ENOMEM);
		refused[0] += added != 0;
		refused[1] += !added && spliced;
		done = spliced == 0;
		if (done) // 1500 spans of two bytes, 750 of them with a name, and three prefixes
			assert_int_equal(pieces.bytes, 3000 + 750 * 3 + 3 + 3);
		sl_arena_fini(&arena);
		assert_int_equal(memory.used_bytes, used);
	}
	assert_true(refused[0] > 10 && refused[1] > 10);
	memory.budget_bytes = BUDGET;
	sl_arena_fini(&view_arena);
	free(body);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prefixes),
		cmocka_unit_test(slack),
		cmocka_unit_test(too_deep),
		cmocka_unit_test(too_many_items),
		cmocka_unit_test(no_memory_for_the_view),
		cmocka_unit_test(no_memory_for_the_splice),
	};

	return cmocka_run_group_tests_name("limits", tests, set_up, tear_down);
}
