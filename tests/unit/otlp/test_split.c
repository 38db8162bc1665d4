#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/base/random.h"
#include "dataplane/otlp/split.h"
#include "perf/payload.h"
#include "tests/oracle/random.h"

#define BODY_MAX (32 * SL_KIB)
#define ROUNDS   600
#define ITEMS    4096

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

// Every kept item is in exactly one group; its id is the group's; no two groups have one id.
static void check_groups(const struct sl_view *view, const uint64_t *keep,
			 const struct sl_split_groups *groups)
{
	static const uint8_t zeros[16];
	uint8_t seen[ITEMS] = {0};
	uint32_t kept = 0, found = 0;

	assert_true(view->item_count <= ITEMS);
	for (uint32_t i = 0; i < view->item_count; i++)
		kept += sl_keep_has(keep, i);
	for (uint32_t i = 0; i < groups->count; i++) {
		const struct sl_split_group *group = &groups->groups[i];

		assert_true(group->count > 0);
		if (i > 0)
			assert_true(group->items[0] > group[-1].items[0]);
		for (uint32_t j = 0; j < i; j++)
			assert_memory_not_equal(group->trace_id, groups->groups[j].trace_id, 16);
		for (uint32_t j = 0; j < group->count; j++) {
			const uint32_t item = group->items[j];
			uint8_t id[16];

			assert_true(item < view->item_count && sl_keep_has(keep, item));
			assert_int_equal(seen[item]++, 0);
			if (j > 0)
				assert_true(item > group->items[j - 1]);
			if (!sl_view_trace_id(view, item, id))
				memset(id, 0, sizeof(id));
			assert_memory_equal(id, group->trace_id, 16);
			if (view->items[item].trace_low == 0 &&
			    view->items[item].trace_at == SL_TRACE_AT_UNKNOWN)
				assert_memory_equal(group->trace_id, zeros, 16);
			found++;
		}
	}
	assert_int_equal(found, kept);
}

static void random_keep(struct sl_random *random, uint64_t keep[SL_KEEP_WORDS(ITEMS)])
{
	const uint64_t percent = sl_random_below(random, 101);

	for (uint32_t i = 0; i < ITEMS; i++) {
		const uint64_t bit = UINT64_C(1) << (i % 64);

		keep[i / 64] = sl_random_below(random, 100) < percent ? keep[i / 64] | bit
								      : keep[i / 64] & ~bit;
	}
}

// Gives some items the trace id of others, so that groups have more than one.
static void share_ids(struct sl_random *random, const struct sl_view *view, uint8_t *body)
{
	for (uint32_t i = 1; i < view->item_count; i++) {
		const struct sl_item *to = &view->items[i];
		const struct sl_item *from = &view->items[sl_random_below(random, i)];
		uint8_t *id = body + to->at + to->trace_at;

		if (to->trace_at == SL_TRACE_AT_UNKNOWN || from->trace_at == SL_TRACE_AT_UNKNOWN)
			continue;
		switch (sl_random_below(random, 5)) {
		case 0:
		case 1:
			memcpy(id, body + from->at + from->trace_at, 16);
			break;
		case 2: // the last 8 bytes alone do not make a trace
			memcpy(id + 8, body + from->at + from->trace_at + 8, 8);
			break;
		case 3:
			memset(id, 0, 16);
			break;
		}
	}
}

static size_t build(uint8_t *body, enum sl_signal signal, uint64_t seed)
{
	if (seed % 2)
		return sl_payload_build(body, BODY_MAX, signal, (uint32_t)(seed % 40), seed);
	return sl_random_request(body, BODY_MAX, signal, seed % 3 * 25, seed);
}

static void by_trace(void **state)
{
	static uint8_t body[BODY_MAX + SL_BODY_SLACK];
	static uint64_t keep[SL_KEEP_WORDS(ITEMS)];
	struct sl_random random;

	(void)state;
	sl_random_init(&random, 1);
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		const enum sl_signal signal = seed % 3;
		const size_t size = build(body, signal, seed);
		struct sl_split_groups groups;
		struct sl_arena arena;
		struct sl_view view;

		sl_arena_init(&arena, &memory);
		for (int again = 0; again < 2; again++) {
			assert_int_equal(sl_view_scan(&view, signal, sl_bytes(body, size), &limits,
						      &arena, NULL),
					 SL_VIEW_OK);
			if (!again)
				share_ids(&random, &view, body);
		}
		random_keep(&random, keep);
		assert_int_equal(sl_split_by_trace(&view, keep, &arena, &groups), 0);
		check_groups(&view, keep, &groups);
		assert_int_equal(sl_split_by_trace(&view, NULL, &arena, &groups), 0);
		check_groups(&view, NULL, &groups);
		if (signal == SL_METRICS)
			assert_true(groups.count <= 1);
		sl_arena_fini(&arena);
	}
}

// Edits where transforms make them: behind an item's first field, at its end, its last byte cut
// (nobody scans the result here), behind an envelope's children.
// Returns what is put into envelopes.
static uint64_t random_edits(struct sl_random *random, const struct sl_view *view,
			     struct sl_arena *arena, struct sl_edits *edits)
{
	static uint8_t put[300];
	uint64_t bytes = 0;

	memset(put, 'p', sizeof(put));
	for (uint32_t i = 0; i < view->item_count; i++) {
		const struct sl_item *item = &view->items[i];
		const uint32_t end = item->at + item->bytes;
		const size_t size = sl_random_below(random, sl_random_below(random, 9) ? 9 : 300);

		switch (sl_random_below(random, 6)) {
		case 0:
			sl_edits_add(edits, arena, end, 0, sl_bytes(put, size));
			break;
		case 1:
			if (sl_view_item_payload(view, i).size > 0)
				sl_edits_add(edits, arena, end - 1, 1, sl_bytes(put, size));
			break;
		}
	}
	for (uint32_t i = 0; i < view->envelope_count; i++) {
		const struct sl_envelope *envelope = &view->envelopes[i];

		if (sl_random_below(random, 10) == 0) {
			const size_t size = sl_random_below(random, 40);

			sl_edits_add(edits, arena, envelope->at + envelope->bytes, 0,
				     sl_bytes(put, size));
			bytes += size;
		}
	}
	return bytes;
}

static uint64_t spliced(const struct sl_view *view, const uint32_t *items, uint32_t count,
			const struct sl_edits *edits, struct sl_arena *arena)
{
	struct sl_pieces pieces;

	assert_int_equal(sl_splice_items(view, items, count, edits, arena, &pieces), 0);
	return pieces.bytes;
}

// The runs are the list; none is longer than it says, nor than the limit unless it is one item; and
// what it says is not much more than it is, so that another item would not have fitted. `added` is
// what `edits` put into envelopes.
static void check_runs(const struct sl_view *view, const struct sl_split_group *list,
		       const struct sl_edits *edits, uint64_t added, uint64_t bytes_max,
		       struct sl_arena *arena)
{
	struct sl_split_runs runs;
	uint32_t done = 0;

	assert_int_equal(
		sl_split_by_size(view, list->items, list->count, edits, bytes_max, arena, &runs),
		0);
	for (uint32_t i = 0; i < runs.count; i++) {
		const struct sl_split_run *run = &runs.runs[i];
		const uint64_t bytes = spliced(view, run->items, run->count, edits, arena);
		// Five lengths of at most five bytes may have become shorter; with edits each
		// length counts as five.
		const uint64_t spare = edits ? added + 8 * (run->count + view->envelope_count)
					     : 5 * 4;

		assert_true(run->count > 0);
		assert_ptr_equal(run->items, list->items + done);
		done += run->count;
		assert_true(bytes <= run->bytes);
		assert_true(run->bytes - bytes <= spare);
		assert_int_equal(run->too_big, run->bytes > bytes_max);
		if (run->too_big)
			assert_int_equal(run->count, 1);
		if (done < list->count)
			assert_true(spliced(view, run->items, run->count + 1, edits, arena) +
					    spare + 8 * 5 >
				    bytes_max);
	}
	assert_int_equal(done, list->count);
}

static void by_size(void **state)
{
	static uint8_t body[BODY_MAX + SL_BODY_SLACK];
	static uint64_t keep[SL_KEEP_WORDS(ITEMS)];
	struct sl_random random;

	(void)state;
	sl_random_init(&random, 2);
	for (uint64_t seed = 1; seed <= ROUNDS; seed++) {
		const enum sl_signal signal = seed % 3;
		const size_t size = build(body, signal, seed);
		struct sl_edits edits = {0};
		struct sl_split_group list;
		struct sl_arena arena;
		struct sl_view view;

		sl_arena_init(&arena, &memory);
		assert_int_equal(
			sl_view_scan(&view, signal, sl_bytes(body, size), &limits, &arena, NULL),
			SL_VIEW_OK);
		const uint64_t added = random_edits(&random, &view, &arena, &edits);
		for (int all = 0; all < 2; all++) {
			random_keep(&random, keep);
			assert_int_equal(sl_split_kept(&view, all ? NULL : keep, &arena, &list), 0);
			for (unsigned i = 0; i < 4; i++) {
				const uint64_t bytes_max = sl_random_below(&random, size + 64);

				check_runs(&view, &list, NULL, 0, bytes_max, &arena);
				check_runs(&view, &list, &edits, added, bytes_max, &arena);
			}
			check_runs(&view, &list, NULL, 0, UINT64_MAX, &arena);
		}
		sl_arena_fini(&arena);
	}
}

// Lengths of one byte become two: of items, then of envelopes alone.
static void lengths_grow(void **state)
{
	static uint8_t body[8 * SL_KIB + SL_BODY_SLACK], put[2000];

	(void)state;
	memset(put, 'p', sizeof(put));
	for (int inside = 0; inside < 2; inside++) {
		const size_t spans = 30;
		struct sl_edits edits = {0};
		struct sl_split_group list;
		struct sl_split_runs runs;
		struct sl_arena arena;
		struct sl_view view;
		uint8_t *at = body;

		*at++ = 0x0a;
		*at++ = (uint8_t)(2 + spans * 2);
		*at++ = 0x12;
		*at++ = (uint8_t)(spans * 2);
		for (size_t i = 0; i < spans; i++) {
			*at++ = 0x12;
			*at++ = 0;
		}
		sl_arena_init(&arena, &memory);
		assert_int_equal(sl_view_scan(&view, SL_TRACES, sl_bytes(body, (size_t)(at - body)),
					      &limits, &arena, NULL),
				 SL_VIEW_OK);
		for (uint32_t i = 0; inside && i < view.item_count; i++)
			sl_edits_add(&edits, &arena, view.items[i].at + view.items[i].bytes, 0,
				     sl_bytes(put, 200));
		if (!inside)
			sl_edits_add(&edits, &arena, view.envelopes[1].children_at, 0,
				     sl_bytes(put, sizeof(put)));
		assert_int_equal(sl_split_kept(&view, NULL, &arena, &list), 0);
		assert_int_equal(sl_split_by_size(&view, list.items, list.count, &edits, 1 << 20,
						  &arena, &runs),
				 0);
		assert_int_equal(runs.count, 1);
		assert_true(spliced(&view, list.items, list.count, &edits, &arena) <=
			    runs.runs[0].bytes);
		sl_arena_fini(&arena);
	}
}

#define SPAN "\x12\x04\x2a\x02no"

static const struct {
	const char *why;
	uint64_t bytes_max;
	uint32_t runs, first; // runs, and items in the first
	bool too_big;         // the first
	struct sl_bytes body;
} rows[] = {
	{"two spans of 6 bytes in 4 of envelopes fit",
	 16,
	 1,
	 2,
	 false,
	 {(const uint8_t *)"\x0a\x0e\x12\x0c" SPAN SPAN, 16}},
	{"one byte less takes two",
	 15,
	 2,
	 1,
	 false,
	 {(const uint8_t *)"\x0a\x0e\x12\x0c" SPAN SPAN, 16}},
	{"one span just fits",
	 10,
	 2,
	 1,
	 false,
	 {(const uint8_t *)"\x0a\x0e\x12\x0c" SPAN SPAN, 16}},
	{"nothing fits", 9, 2, 1, true, {(const uint8_t *)"\x0a\x0e\x12\x0c" SPAN SPAN, 16}},
	{"an empty resource counts for nothing",
	 16,
	 1,
	 2,
	 false,
	 {(const uint8_t *)"\x0a\x00\x0a\x0e\x12\x0c" SPAN SPAN, 18}},
	{"one byte less, and it is two",
	 15,
	 2,
	 1,
	 false,
	 {(const uint8_t *)"\x0a\x00\x0a\x0e\x12\x0c" SPAN SPAN, 18}},
	{"one span is too much",
	 9,
	 1,
	 1,
	 true,
	 {(const uint8_t *)"\x0a\x00\x0a\x08\x12\x06" SPAN, 12}},
	{"no items, no runs", 0, 0, 0, false, {(const uint8_t *)"\x0a\x00", 2}},
};

static void size_table(void **state)
{
	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		uint8_t body[64] = {0};
		struct sl_split_runs runs;
		struct sl_split_group list;
		struct sl_arena arena;
		struct sl_view view;

		memcpy(body, rows[i].body.data, rows[i].body.size);
		sl_arena_init(&arena, &memory);
		assert_int_equal(sl_view_scan(&view, SL_TRACES, sl_bytes(body, rows[i].body.size),
					      &limits, &arena, NULL),
				 SL_VIEW_OK);
		assert_int_equal(sl_split_kept(&view, NULL, &arena, &list), 0);
		assert_int_equal(sl_split_by_size(&view, list.items, list.count, NULL,
						  rows[i].bytes_max, &arena, &runs),
				 0);
		if (runs.count != rows[i].runs ||
		    (runs.count && (runs.runs[0].count != rows[i].first ||
				    runs.runs[0].too_big != rows[i].too_big)))
			fail_msg("%s: %u runs", rows[i].why, runs.count);
		sl_arena_fini(&arena);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_trace),
		cmocka_unit_test(by_size),
		cmocka_unit_test(lengths_grow),
		cmocka_unit_test(size_table),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
