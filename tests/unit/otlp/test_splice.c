#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/otlp/splice.h"
#include "tests/oracle/model.h"
#include "tests/oracle/random.h"

#define BODY_MAX (64 * SL_KIB)
#define ROUNDS   600

static struct sl_memory memory;

static int set_up(void **state)
{
	(void)state;
	return sl_memory_init(&memory, 256 * SL_MIB);
}

static int tear_down(void **state)
{
	(void)state;
	sl_memory_fini(&memory);
	return 0;
}

static uint8_t *exact(const void *bytes, size_t size)
{
	uint8_t *copy = malloc(size + SL_BODY_SLACK);

	assert_non_null(copy);
	if (size)
		memcpy(copy, bytes, size);
	memset(copy + size, 0x01, SL_BODY_SLACK);
	return copy;
}

static const struct {
	const char *why;
	unsigned odd, edits, keep;
} mixes[] = {
	{"nothing changes: one piece", 0, 0, 100},
	{"nothing changes in a rare form either", 30, 0, 100},
	{"items go, nothing else", 30, 0, 60},
	{"few items stay", 10, 0, 8},
	{"nothing stays", 0, 3, 0},
	{"fields change, all items stay", 0, 6, 100},
	{"fields change in rare forms", 30, 6, 100},
	{"both", 0, 8, 70},
	{"both in rare forms", 30, 8, 60},
	{"many edits", 10, 40, 80},
};

// decode(splice(body)) is edit(decode(body)), for every mix of keeping and editing.
static void random_edits(void **state)
{
	uint8_t *scratch = malloc(BODY_MAX);

	(void)state;
	for (unsigned mix = 0; mix < SL_COUNT_OF(mixes); mix++) {
		struct sl_model_counts counts = {0};

		for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
			const enum sl_signal signal = seed % SL_SIGNALS;
			const size_t size = sl_random_request(scratch, BODY_MAX, signal,
							      mixes[mix].odd, seed * 977 + mix);
			uint8_t *body = exact(scratch, size);
			struct sl_random random;
			const char *problem;

			sl_random_init(&random, seed + 1000 * mix);
			problem = sl_model_round(signal, sl_bytes(body, size), mixes[mix].edits,
						 mixes[mix].keep, &random, &memory, &counts);
			if (problem)
				fail_msg("%s, seed %u: %s", mixes[mix].why, (unsigned)seed,
					 problem);
			free(body);
		}
		// The rounds were not about nothing.
		assert_int_equal(counts.refused, 0);
		assert_int_equal(counts.rounds, ROUNDS);
		assert_true(counts.items > 3 * ROUNDS);
		if (!mixes[mix].edits)
			continue;
		assert_true(counts.removed > ROUNDS / 10);
		assert_true(counts.replaced > ROUNDS / 8);
		assert_true(counts.inserted > ROUNDS / 8);
		assert_true(counts.unknown > ROUNDS / 20);
		assert_true(counts.in_items > ROUNDS / 2);
		assert_true(counts.in_envelopes > ROUNDS / 8);
	}
	free(scratch);
}

static const struct {
	const char *why;
	uint32_t at, cut;
	int want;
} added[] = {
	{"the first", 100, 20, 0},
	{"behind it", 120, 5, 0},
	{"before it", 90, 10, 0},
	{"the same again", 100, 20, -EEXIST},
	{"its last byte", 119, 1, -EEXIST},
	{"over its beginning", 95, 6, -EEXIST},
	{"around it", 99, 40, -EEXIST},
	{"an insertion inside it", 110, 0, -EEXIST},
	{"an insertion at a border", 125, 0, 0},
	{"far behind", 500, 1, 0},
};

static void overlapping_edits_are_refused(void **state)
{
	struct sl_edits edits = {0};
	struct sl_arena arena;

	(void)state;
	sl_arena_init(&arena, &memory);
	for (size_t i = 0; i < SL_COUNT_OF(added); i++) {
		const int got = sl_edits_add(&edits, &arena, added[i].at, added[i].cut,
					     SL_LITERAL("new"));

		if (got != added[i].want)
			fail_msg("%s: %d", added[i].why, got);
	}
	for (uint32_t i = 1; i < edits.count; i++)
		assert_true(edits.edits[i - 1].at + edits.edits[i - 1].cut <= edits.edits[i].at);
	assert_int_equal(edits.count, 5);
	sl_arena_fini(&arena);
}

// Tags that take more bytes than they need come out as they came; only the lengths are ours.
static void overlong_tags_stay(void **state)
{
	static const uint8_t bodies[][16] = {
		{0x8a, 0x00, 0x06, 0x12, 0x04, 0x12, 0x00, 0x12, 0x00},
		{0x8a, 0x80, 0x00, 0x06, 0x12, 0x04, 0x12, 0x00, 0x12, 0x00},
		{0x8a, 0x80, 0x80, 0x00, 0x06, 0x12, 0x04, 0x12, 0x00, 0x12, 0x00},
	};
	const struct sl_view_limits limits = {.items_max = 10, .depth_max = 10};
	const uint64_t keep = 1;

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(bodies); i++) {
		const size_t tag = i + 2, size = tag + 7;
		uint8_t *body = exact(bodies[i], size), want[16], got[16];
		struct sl_pieces pieces;
		struct sl_arena arena;
		struct sl_view view;
		size_t bytes = 0;

		memcpy(want, body, tag);
		memcpy(want + tag, "\x04\x12\x02\x12\x00", 5);
		sl_arena_init(&arena, &memory);
		assert_int_equal(
			sl_view_scan(&view, SL_TRACES, sl_bytes(body, size), &limits, &arena, NULL),
			SL_VIEW_OK);
		assert_int_equal(view.item_count, 2);
		assert_int_equal(sl_splice(&view, &keep, NULL, &arena, &pieces), 0);
		assert_int_equal(pieces.bytes, tag + 5);
		for (uint32_t j = 0; j < pieces.count; j++) {
			memcpy(got + bytes, pieces.pieces[j].iov_base, pieces.pieces[j].iov_len);
			bytes += pieces.pieces[j].iov_len;
		}
		assert_memory_equal(got, want, tag + 5);
		sl_arena_fini(&arena);
		free(body);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_edits),
		cmocka_unit_test(overlapping_edits_are_refused),
		cmocka_unit_test(overlong_tags_stay),
	};

	return cmocka_run_group_tests_name("splice", tests, set_up, tear_down);
}
