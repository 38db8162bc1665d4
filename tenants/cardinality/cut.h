#pragma once

#include "dataplane/request/request.h"
#include "tenants/cardinality/rules.h"

// A part's items against its tenant's limits on different values: the attributes that are over are
// cut out by edits, the items by the keep set. An item's series is what is left of it then. A value
// that is new is counted even when its item is lost for another.
//
// Threading: the part's shard. Memory: the request's arena.
struct sl_cardinality_counts {
	uint64_t attributes, items, observed; // cut, cut, and let pass
};

// `*counts` is set. The part's cut_items and cut_message follow. Returns false when the budget is
// spent: the part is not to go on.
bool sl_cardinality_cut(const struct sl_cardinality *cardinality, struct sl_part *part,
			uint64_t now_ns, struct sl_cardinality_counts *counts);
