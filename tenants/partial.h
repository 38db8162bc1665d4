#pragma once

#include "dataplane/request/request.h"

// Which items of a part fit into what its tenant has left (`excess: cut`): of tenants who would
// rather lose some than send all of them again. It is about one part; quotas.mixed, about what a
// part that is refused does to the others of its request.
//
// Threading: the part's shard. Memory: the request's arena.
struct sl_partial {
	const uint32_t *list; // the part's items, rising
	uint32_t count;
	uint32_t fits;        // so many of them, from the first one: the most there is room for
	uint64_t bytes;       // what those take, with the envelopes around them (split.h: at most)
	uint64_t first_bytes; // what the first takes alone; 0 unless it is too long by itself
	bool by_bytes;        // what the next one lacks is bytes, not items
};

// `fits` is the largest number for which neither items nor bytes pass the room. Returns false when
// the budget is spent.
bool sl_partial_fit(const struct sl_part *part, uint64_t items_room, uint64_t bytes_room,
		    struct sl_partial *fit);

// Takes all items but the first `items` out of a part that has a keep set of its own, and counts
// them as `cut`. The part was charged `bytes`.
void sl_partial_cut(struct sl_part *part, const struct sl_partial *fit, enum sl_cut cut,
		    uint32_t items, uint64_t bytes);
