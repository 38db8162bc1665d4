#pragma once

#include "dataplane/base/log.h"
#include "dataplane/base/random.h"
#include "tenants/identity.h"
#include "tenants/table.h"

// A shard's side: for each tenant it serves a chunk of tokens of its own, so that most requests
// touch no memory that another core writes.
//
//   by tenant: 4 bytes -> slot (hot tenants only): chunk[dimension] <-draw/return-> pool
//
// Threading: owned by one shard. Memory: all taken at creation; a tenant beyond the slots takes the
// place of one that the batch at work does not use.
#define SL_TENANTS_SLOTS 2048 // a power of two, and far more than a batch touches

//      field             kind     name                                labels     help
#define SL_TENANTS_COUNTERS(X)                                                                     \
	X(refused, COUNTER, "sluice_quota_refused_requests", dimension,                            \
	  "Requests refused over a tenant's quota, by the dimension that was short.")              \
	X(used_up, COUNTER, "sluice_volume_refused_requests", dimension,                           \
	  "Requests refused because a tenant's volume of the day or month is used up.")            \
	X(observed, COUNTER, "sluice_quota_observed_requests", dimension,                          \
	  "Requests over quota that mode observe let pass.")                                       \
	X(cut, COUNTER, "sluice_quota_cut_items", dimension,                                       \
	  "Items over a tenant's quota that were cut from requests whose rest was taken.")         \
	X(volume_cut, COUNTER, "sluice_volume_cut_items", dimension,                               \
	  "Items beyond a tenant's volume that were cut from the request that would pass it.")     \
	X(attributes_cut, COUNTER, "sluice_cardinality_cut_attributes", signal,                    \
	  "Attributes cut out of items: more different values than the tenant may have.")          \
	X(items_cut, COUNTER, "sluice_cardinality_cut_items", signal,                              \
	  "Items lost for such a value, or for a metric series too many.")                         \
	X(distinct_observed, COUNTER, "sluice_cardinality_observed", signal,                       \
	  "Values and series over a limit that only observes.")                                    \
	X(cardinality_bytes, GAUGE, "sluice_cardinality_memory_bytes", none,                       \
	  "What limits on different values may take when all are reached.")                        \
	X(attributes_dropped, COUNTER, "sluice_limits_dropped_attributes", signal,                 \
	  "Attributes dropped: more than the tenant's items, resources or scopes may have.")       \
	X(values_cut, COUNTER, "sluice_limits_cut_values", signal,                                 \
	  "Attribute values, names and bodies that were cut to the tenant's limit.")               \
	X(limits_observed, COUNTER, "sluice_limits_observed", signal,                              \
	  "Attributes and texts over a limit that only observes.")                                 \
	X(draws, COUNTER, "sluice_quota_draws", none, "Chunks of tokens taken from the pools.")    \
	X(returns, COUNTER, "sluice_quota_returns", none, "Chunks of tokens given back.")          \
	X(lookups, COUNTER, "sluice_credential_lookups", none, "Secrets looked up.")               \
	X(hits, COUNTER, "sluice_credential_cache_hits", none,                                     \
	  "Secrets that were known without a SHA-256.")                                            \
	X(unknown, COUNTER, "sluice_identity_refused_requests", none,                              \
	  "Calls whose tenant could not be named or is suspended.")                                \
	X(tenants, GAUGE, "sluice_tenants", none, "Tenants in the configuration.")
SL_COUNTERS(tenants, SL_TENANTS_COUNTERS)

// A part's `limit` is a dimension, of the quota or, that much higher, of the volume.
#define SL_TENANTS_LIMIT_VOLUME SL_DIMENSIONS

struct sl_tenants_slot {
	int64_t chunk[SL_DIMENSIONS]; // >= 0
	const struct sl_limits *limits;
	struct sl_quota_pool *pool; // NULL: the slot is free
	struct sl_volume *volume;   // NULL: none
	uint64_t used_ns;
	sl_tenant_id tenant;
	uint32_t stamp;   // the call that touched it last
	uint8_t delayed;  // leaky: the dimension whose queue its requests were in last
	uint64_t told_ns; // when the fleet's leases last heard of `unmet`
	int64_t unmet[SL_DIMENSION_RATES];
	int64_t last[SL_DIMENSION_RATES]; // cost of a request that was refused
	struct sl_volume_count count;     // of `volume`, what is not told yet
};

struct sl_tenants_shard {
	const struct sl_tenants *tenants;
	uint64_t generation; // of the snapshot that the slots' limits point into
	uint64_t now_ns;
	uint64_t delay_ns; // leaky: how long the request that was spent for last is to be held
	struct sl_by_tenant slot_of; // uint32_t: slot + 1; 0: cold
	struct sl_grace_side grace;
	struct sl_tenants_slot *slots;
	uint32_t hand;        // the next slot to look at
	uint32_t stamp;       // of the batch at work
	uint32_t shard_shift; // 2^shard_shift >= the number of shards
	uint32_t shard, shards;
	struct sl_random random;
	struct sl_metrics *metrics;
	struct sl_identity_cache *cache;
	struct sl_tenants_counters counters;
	uint8_t refused_dimension; // of the last refusal, as parts' `limit`
	struct {
		uint64_t key; // tenant and limit
		struct sl_log_spell spell;
	} told[64];                  // by key: who was refused, as the log tells it
	struct sl_log_site refusals; // the shard's own: no line of the cache is shared
};

// What of a chunk is not spent goes back to the pool.
void sl_tenants_return_chunk(struct sl_tenants_shard *self, struct sl_tenants_slot *slot,
			     unsigned i);
// A slot for a tenant that has none; another one's, which no part of the batch at work uses.
struct sl_tenants_slot *sl_tenants_make_slot(struct sl_tenants_shard *self, sl_tenant_id tenant);

SL_INLINE uint32_t *sl_tenants_number_of(const struct sl_tenants_shard *self, sl_tenant_id tenant)
{
	return SL_BY_TENANT(&self->slot_of, uint32_t, tenant);
}

SL_INLINE struct sl_tenants_slot *sl_tenants_slot_of(struct sl_tenants_shard *self,
						     sl_tenant_id tenant)
{
	const uint32_t at = *sl_tenants_number_of(self, tenant);
	struct sl_tenants_slot *slot = at ? &self->slots[at - 1]
					  : sl_tenants_make_slot(self, tenant);

	slot->used_ns = self->now_ns;
	slot->stamp = self->stamp;
	return slot;
}

// For calls about one tenant, outside of a batch.
SL_INLINE struct sl_tenants_slot *sl_tenants_only_slot_of(struct sl_tenants_shard *self,
							  sl_tenant_id tenant)
{
	self->stamp++;
	return sl_tenants_slot_of(self, tenant);
}
