#pragma once

#include <errno.h>
#include <sys/uio.h>

#include "dataplane/base/arena.h"
#include "dataplane/otlp/view.h"

// Changes to a body as an edit script, and the one splicer that applies it: unchanged bytes go out
// by reference, only the length prefixes of touched envelopes and items are written anew. A body
// that nobody touched is one piece. An envelope whose items are all dropped goes, and so do those
// that never had any (reference item 4: never emit them); of a body that has such it is many.
//
// Threading: one owner. Memory: pieces point into the body, the edits' bytes and the arena.

// Replace `cut` bytes at `at` of the body by `put`. An edit lies inside one item or one envelope's
// own fields, at the border of whole fields (or inside one scalar's payload when its length stays):
// it never crosses an item's or envelope's tag or length. `cut` 0 inserts, an empty `put` removes.
// An insertion where an item or envelope ends belongs to it, the innermost one, not to what begins
// there. A message inside an item (a KeyValue) is replaced whole: its length is the editor's.
struct sl_edit {
	uint32_t at, cut;
	struct sl_bytes put;
};

// A growing list of edits, kept sorted by `at`; edits never overlap.
struct sl_edits {
	struct sl_edit *edits;
	uint32_t count, capacity;
};

// Adds one edit, in any order (in order is O(1)). Returns 0, -ENOMEM (budget), or -EEXIST when it
// overlaps an edit already there.
int sl_edits_add(struct sl_edits *edits, struct sl_arena *arena, uint32_t at, uint32_t cut,
		 struct sl_bytes put);

// The edit that replaces exactly these bytes (`cut` > 0), or NULL. Valid until the next is added.
struct sl_edit *sl_edits_find(const struct sl_edits *edits, uint32_t at, uint32_t cut);

// One bit an item, in words of 64; NULL keeps all.
SL_INLINE bool sl_keep_has(const uint64_t *keep, uint32_t item)
{
	return !keep || (keep[item / 64] >> (item % 64) & 1);
}
#define SL_KEEP_WORDS(items) (((items) + 63) / 64)

struct sl_pieces {
	struct iovec *pieces; // in the arena
	uint32_t count;
	uint64_t bytes; // their sum; 0 when nothing is left
};

// Applies `keep` and `edits` to the view's body. Edits inside dropped items or envelopes are
// ignored. Returns 0, or -ENOMEM when the budget is spent.
int sl_splice(const struct sl_view *view, const uint64_t *keep, const struct sl_edits *edits,
	      struct sl_arena *arena, struct sl_pieces *out);

// The same for a list of items, rising: the cost goes with what is kept, not with the view.
int sl_splice_items(const struct sl_view *view, const uint32_t *items, uint32_t count,
		    const struct sl_edits *edits, struct sl_arena *arena, struct sl_pieces *out);
