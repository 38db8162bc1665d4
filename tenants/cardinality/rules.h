#pragma once

#include <stdio.h>

#include "config/settings.h"
#include "dataplane/otlp/signal.h"
#include "tenants/cardinality/distinct.h"

// Limits on how many different values an attribute may have, and metric series there may be: what
// the file says, and what a tenant has of it.
//
// Threading: built by the control thread, read by shards; `distinct` as distinct.h says. Memory: a
// block a tenant that has limits; what is counted outlives a reload that leaves the limit as it is.
#define SL_CARDINALITY_RULES_MAX 8
#define SL_CARDINALITY_KEY_MAX   128

enum sl_cardinality_over {
	SL_OVER_OBSERVE,
	SL_OVER_DROP_ATTRIBUTE,
	SL_OVER_DROP_ITEM,
};

// One entry of the list, as loaded.
struct sl_cardinality_config {
	struct sl_where where;
	const char *attribute, *resource_attribute; // NULL: not of such
	bool series;
	uint32_t signal; // 0: all, else enum sl_signal + 1
	uint64_t limit, window_ns;
	uint32_t over; // enum sl_cardinality_over
};
extern const struct sl_settings sl_cardinality_settings;

struct sl_cardinality_rule {
	uint8_t key_bytes; // 0: series
	bool resource;     // the key is a resource's
	char key[SL_CARDINALITY_KEY_MAX];
	uint8_t signals; // bits
	uint8_t over;
	struct sl_distinct *distinct; // holds a reference
};

// What a tenant has.
struct sl_cardinality {
	uint8_t signals; // of any rule
	uint8_t count;
	struct sl_cardinality_rule rules[];
};

// The name of a rule for people, as `attribute=KEY`.
const char *sl_cardinality_kind(const struct sl_cardinality_rule *rule);

// From a list of configurations; what `before` (the tenant's in the snapshot before; NULL: none)
// has counted goes on under the same limits. `*bytes` grows by what it may take. `blocks`: of those
// who are made alike, by rule; NULL: of one alone. NULL: no memory.
struct sl_cardinality *sl_cardinality_create(const struct sl_list *configs,
					     const struct sl_cardinality *before, uint64_t *bytes,
					     struct sl_distinct_block *blocks);
void sl_cardinality_destroy(struct sl_cardinality *cardinality); // NULL is fine

// As new: another tenant's from now on. Nobody uses it meanwhile.
void sl_cardinality_reset(struct sl_cardinality *cardinality);

// A JSON list of its limits with what was counted in the newest window, and who brought it.
void sl_cardinality_describe(const struct sl_cardinality *cardinality, uint64_t now_ns, FILE *out);
