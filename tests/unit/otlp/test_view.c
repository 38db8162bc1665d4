#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/otlp/splice.h"
#include "tests/oracle/merged.h"
#include "tests/oracle/oracle.pb-c.h"
#include "tests/oracle/random.h"

#define BODY_MAX (64 * SL_KIB)
#define ROUNDS   400

static const struct sl_view_limits limits = {.items_max = 100000, .depth_max = 16};
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

// A copy with exactly the slack that the contract promises: one byte more read is one too many.
static uint8_t *exact(const void *bytes, size_t size)
{
	uint8_t *copy = malloc(size + SL_BODY_SLACK);

	assert_non_null(copy);
	if (size)
		memcpy(copy, bytes, size);
	memset(copy + size, 0x01, SL_BODY_SLACK);
	return copy;
}

#define BYTES(text) sizeof(text) - 1, text

static const struct {
	const char *why;
	enum sl_signal signal;
	enum sl_view_result want;
	uint32_t items;
	size_t size;
	const char *bytes;
} rows[] = {
	{"an empty request is valid", SL_TRACES, SL_VIEW_OK, 0, BYTES("")},
	{"one span without fields", SL_TRACES, SL_VIEW_OK, 1, BYTES("\x0a\x04\x12\x02\x12\x00")},
	{"field number 0 is no field", SL_TRACES, SL_VIEW_MALFORMED, 0, BYTES("\x00\x00")},
	{"wire type 6 does not exist", SL_TRACES, SL_VIEW_MALFORMED, 0, BYTES("\x0e\x00")},
	{"an end without its group", SL_TRACES, SL_VIEW_MALFORMED, 0, BYTES("\x0c")},
	{"a group is an unknown field (protobuf-c refuses it, Python does not)", SL_TRACES,
	 SL_VIEW_OK, 0, BYTES("\x7b\x08\x01\x7c")},
	{"a group ends with its own number", SL_TRACES, SL_VIEW_MALFORMED, 0, BYTES("\x7b\x74")},
	{"a group that does not end", SL_TRACES, SL_VIEW_MALFORMED, 0, BYTES("\x7b\x08\x01")},
	{"a length beyond the body", SL_TRACES, SL_VIEW_MALFORMED, 0, BYTES("\x0a\x05\x12")},
	{"a length beyond its parent", SL_TRACES, SL_VIEW_MALFORMED, 0,
	 BYTES("\x0a\x03\x12\x02\x12\x00\x0a\x00")},
	{"a tag needs five bytes at most", SL_TRACES, SL_VIEW_MALFORMED, 0,
	 BYTES("\x8a\x80\x80\x80\x80\x00\x00")},
	{"an overlong tag is that tag", SL_TRACES, SL_VIEW_OK, 1,
	 BYTES("\x8a\x00\x04\x12\x02\x12\x00")},
	{"field numbers end at 2^29 - 1", SL_TRACES, SL_VIEW_OK, 0,
	 BYTES("\xf8\xff\xff\xff\x0f\x01")},
	{"2^29 is refused", SL_TRACES, SL_VIEW_MALFORMED, 0, BYTES("\x80\x80\x80\x80\x10\x01")},
	{"a negative int32 takes ten bytes", SL_TRACES, SL_VIEW_OK, 1,
	 BYTES("\x0a\x0f\x12\x0d\x12\x0b\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")},
	{"65 bits are too many (Go refuses them, and may be who we merge for)", SL_TRACES,
	 SL_VIEW_MALFORMED, 0,
	 BYTES("\x0a\x0f\x12\x0d\x12\x0b\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02")},
	{"a known field of an unexpected type is unknown", SL_TRACES, SL_VIEW_OK, 0,
	 BYTES("\x08\x01")},
	{"a metric's last member counts, the gauge before it is forgotten", SL_METRICS, SL_VIEW_OK,
	 1, BYTES("\x0a\x0e\x12\x0c\x12\x0a\x2a\x04\x0a\x00\x0a\x00\x3a\x02\x0a\x00")},
	{"the same member twice merges", SL_METRICS, SL_VIEW_OK, 2,
	 BYTES("\x0a\x0c\x12\x0a\x12\x08\x3a\x02\x0a\x00\x3a\x02\x0a\x00")},
	{"packed 64-bit values come in eights", SL_METRICS, SL_VIEW_MALFORMED, 0,
	 BYTES("\x0a\x0b\x12\x09\x12\x07\x4a\x05\x0a\x03\x32\x01\x00")},
};

static void table(void **state)
{
	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		uint8_t *body = exact(rows[i].bytes, rows[i].size);
		struct sl_arena arena;
		struct sl_view view;

		sl_arena_init(&arena, &memory);

		const enum sl_view_result got = sl_view_scan(
			&view, rows[i].signal, sl_bytes(body, rows[i].size), &limits, &arena, NULL);

		if (got != rows[i].want || (got == SL_VIEW_OK && view.item_count != rows[i].items))
			fail_msg("%s: result %d, %u items", rows[i].why, got, view.item_count);
		sl_arena_fini(&arena);
		free(body);
	}
}

static const ProtobufCMessageDescriptor *const requests[SL_SIGNALS] = {
	[SL_TRACES] = &oracle__traces__descriptor,
	[SL_METRICS] = &oracle__metrics__descriptor,
	[SL_LOGS] = &oracle__logs__descriptor,
};

// The decoded request with only the kept spans or records, written again. An envelope without
// items goes when anything does.
#define FILTER(Request, Resource, Scope, items)                                                    \
	static void filter_##items(Request *request, const uint64_t *keep)                         \
	{                                                                                          \
		size_t resources = 0;                                                              \
		uint32_t item = 0;                                                                 \
		for (size_t r = 0; r < request->n_resources; r++) {                                \
			Resource *resource = request->resources[r];                                \
			size_t scopes = 0;                                                         \
			for (size_t s = 0; s < resource->n_scopes; s++) {                          \
				Scope *scope = resource->scopes[s];                                \
				size_t kept = 0;                                                   \
				for (size_t i = 0; i < scope->n_##items; i++)                      \
					if (sl_keep_has(keep, item++))                             \
						scope->items[kept++] = scope->items[i];            \
				scope->n_##items = kept;                                           \
				if (kept)                                                          \
					resource->scopes[scopes++] = scope;                        \
			}                                                                          \
			resource->n_scopes = scopes;                                               \
			if (scopes)                                                                \
				request->resources[resources++] = resource;                        \
		}                                                                                  \
		request->n_resources = resources;                                                  \
	}
FILTER(Oracle__Traces, Oracle__ResourceSpans, Oracle__ScopeSpans, spans)
FILTER(Oracle__Logs, Oracle__ResourceLogs, Oracle__ScopeLogs, records)

// Everything that protobuf-c takes from its allocator, given back at once: filtering drops
// messages without freeing them.
static void *take(void *data, size_t size)
{
	void *taken = sl_arena_alloc(data, size);

	assert_non_null(taken);
	return taken;
}

static void leave(void *data, void *pointer)
{
	(void)data;
	(void)pointer;
}

static void compare(enum sl_signal signal, struct sl_bytes body, const uint64_t *keep, bool all,
		    const struct sl_pieces *pieces, struct sl_arena *arena)
{
	ProtobufCAllocator allocator = {take, leave, arena};
	uint8_t *spliced = malloc(pieces->bytes + 1), *left, *right;
	size_t size = 0, left_size, right_size;
	ProtobufCMessage *want, *got;
	struct sl_bytes plain;

	for (uint32_t i = 0; i < pieces->count; i++) {
		memcpy(spliced + size, pieces->pieces[i].iov_base, pieces->pieces[i].iov_len);
		size += pieces->pieces[i].iov_len;
	}
	assert_int_equal(size, pieces->bytes);
	body = sl_merged(sl_schema_requests[signal], body, arena);
	plain = sl_merged(sl_schema_requests[signal], sl_bytes(spliced, size), arena);
	want = protobuf_c_message_unpack(requests[signal], &allocator, body.size, body.data);
	got = protobuf_c_message_unpack(requests[signal], &allocator, plain.size, plain.data);
	assert_non_null(want);
	assert_non_null(got);
	if (!all && signal == SL_TRACES)
		filter_spans((Oracle__Traces *)want, keep);
	else if (!all)
		filter_records((Oracle__Logs *)want, keep);
	left_size = protobuf_c_message_get_packed_size(want);
	right_size = protobuf_c_message_get_packed_size(got);
	left = malloc(left_size + 1);
	right = malloc(right_size + 1);
	protobuf_c_message_pack(want, left);
	protobuf_c_message_pack(got, right);
	if (all || pieces->bytes) { // nothing left: the rest of the request goes too
		assert_int_equal(left_size, right_size);
		assert_memory_equal(left, right, left_size);
	}
	free(left);
	free(right);
	free(spliced);
}

// Random valid requests are accepted, protobuf-c agrees, and a splice of any items is what
// protobuf-c makes of dropping the others.
static void random_requests(void **state)
{
	uint8_t *scratch = malloc(BODY_MAX);
	uint32_t spans = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		const enum sl_signal signal = seed & 1 ? SL_TRACES : SL_LOGS;
		const size_t size = sl_random_request(scratch, BODY_MAX, signal, seed % 3 ? 0 : 30,
						      seed);
		uint8_t *body = exact(scratch, size);
		uint64_t keep[SL_KEEP_WORDS(BODY_MAX)];
		struct sl_random random;
		struct sl_pieces pieces;
		struct sl_arena arena;
		struct sl_view view;
		bool all;

		sl_arena_init(&arena, &memory);
		assert_int_equal(
			sl_view_scan(&view, signal, sl_bytes(body, size), &limits, &arena, NULL),
			SL_VIEW_OK);
		all = !view.has_empty;
		sl_random_init(&random, seed);
		for (uint32_t i = 0; i < SL_KEEP_WORDS(view.item_count); i++)
			keep[i] = sl_random_next(&random);
		for (uint32_t i = 0; i < view.item_count; i++)
			all = all && sl_keep_has(keep, i);
		spans += view.item_count;
		assert_int_equal(sl_splice(&view, keep, NULL, &arena, &pieces), 0);
		if (all && size) {
			assert_int_equal(pieces.count, 1);
			assert_ptr_equal(pieces.pieces[0].iov_base, body);
		}
		compare(signal, sl_bytes(body, size), keep, all, &pieces, &arena);
		sl_arena_fini(&arena);
		free(body);
	}
	assert_true(spans > ROUNDS);
	free(scratch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table),
		cmocka_unit_test(random_requests),
	};

	return cmocka_run_group_tests_name("view", tests, set_up, tear_down);
}
