#pragma once

#include "dataplane/request/request.h"
#include "tenants/cardinality/rules.h"
#include "tenants/cardinality/trim.h"

// A part's items against its tenant's limits on attributes, sizes and different values, in one
// walk: what is dropped for one limit is no value for the next, and a value that was cut counts as
// cut. The attributes that are over are cut out by edits, the items by the keep set. An item's
// series is what is left of it then. A value that is new is counted even when its item is lost for
// another.
//
// Threading: the part's shard. Memory: the request's arena.
struct sl_cardinality_counts {
	uint64_t attributes, items, observed; // cut, cut, and let pass
	struct sl_trim_counts trimmed;
};

// `cardinality`, `trim`: NULL when the tenant has no such limits for the signal. `*counts` is set.
// The part's cut_items and cut_message follow. Returns false when the budget is spent: the part is
// not to go on.
bool sl_cardinality_cut(const struct sl_cardinality *cardinality, const struct sl_trim_limits *trim,
			struct sl_part *part, uint64_t now_ns,
			struct sl_cardinality_counts *counts);
