#pragma once

#include "dataplane/otlp/splice.h"

// Lists of items for sl_splice_items: a view's kept items, one list a trace, or cut so that what is
// spliced from each stays below a limit.
//
// Threading: one owner. Memory: lists lie in the arena. Lists are rising.
struct sl_split_group {
	uint8_t trace_id[16]; // zeros: no valid one
	const uint32_t *items;
	uint32_t count;
};

struct sl_split_groups {
	struct sl_split_group *groups; // by their first items, rising
	uint32_t count;
};

// The kept items (NULL: all) by trace id. Those without a valid one (16 bytes, not all zero; every
// data point) are one group. Expected linear, whatever ids a sender chooses.
// Returns 0, or -ENOMEM when the budget is spent.
int sl_split_by_trace(const struct sl_view *view, const uint64_t *keep, struct sl_arena *arena,
		      struct sl_split_groups *out);

// The kept items as one list. Returns 0, or -ENOMEM.
int sl_split_kept(const struct sl_view *view, const uint64_t *keep, struct sl_arena *arena,
		  struct sl_split_group *out);

struct sl_split_run {
	const uint32_t *items; // inside the list that was cut
	uint32_t count;
	bool too_big;   // a single item that passes the limit, with its envelopes
	uint64_t bytes; // what is spliced from it is at most so long
};

struct sl_split_runs {
	struct sl_split_run *runs;
	uint32_t count;
};

// Cuts a list between items into the fewest runs whose splice with `edits` (may be NULL) takes at
// most `bytes_max`, each with its envelopes. The sum is exact but for length prefixes, which may
// shrink, and for edits: what they add to envelopes is charged to every run.
// Returns 0, or -ENOMEM.
int sl_split_by_size(const struct sl_view *view, const uint32_t *items, uint32_t count,
		     const struct sl_edits *edits, uint64_t bytes_max, struct sl_arena *arena,
		     struct sl_split_runs *out);
