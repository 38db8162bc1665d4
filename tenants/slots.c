#include "tenants/shard.h"

#include <stdlib.h>

// A shard's slots: who has one, who has to give it up, and the shard's own life.

// A chunk that nobody spends from goes back to the pool after two ticks.
#define UNUSED_NS (2 * SL_QUOTA_TICK_NS)

#define SL_COUNTER_STRUCT_ struct sl_tenants_counters
SL_COUNTER_ROWS(tenants, SL_TENANTS_COUNTERS)

// --- slots ---------------------------------------------------------------------------------------

void sl_tenants_return_chunk(struct sl_tenants_shard *self, struct sl_tenants_slot *slot,
			     unsigned i)
{
	if (slot->chunk[i] == 0)
		return;
	// Tokens of a rate without a limit were made up, not drawn. Their number tells, not the
	// limits, which may be an older snapshot's and gone.
	if (i >= SL_DIMENSION_RATES || slot->chunk[i] < SL_UNLIMITED) {
		sl_quota_pool_return(slot->pool, i, slot->chunk[i]);
		sl_count(&self->counters.returns[0], 1);
	}
	slot->chunk[i] = 0;
}

static void drop_slot(struct sl_tenants_shard *self, struct sl_tenants_slot *slot)
{
	for (unsigned i = 0; i < SL_DIMENSIONS; i++)
		sl_tenants_return_chunk(self, slot, i);
	if (slot->volume)
		sl_volume_count_flush(&slot->count, slot->volume);
	memset(slot->unmet, 0, sizeof(slot->unmet));
	memset(slot->last, 0, sizeof(slot->last));
	slot->pool = NULL;
	*sl_tenants_number_of(self, slot->tenant) = 0;
}

// One of the next to lose its place: its chunks go back to a pool that nobody has touched lately.
SL_INLINE void prefetch_leaving(const struct sl_tenants_shard *self)
{
	const struct sl_tenants_slot *slot = &self->slots[(self->hand + 3) % SL_TENANTS_SLOTS];

	if (!slot->pool)
		return;
	sl_prefetch(slot->pool);
	sl_prefetch(sl_tenants_number_of(self, slot->tenant));
}

struct sl_tenants_slot *sl_tenants_make_slot(struct sl_tenants_shard *self, sl_tenant_id tenant)
{
	const struct sl_tenant_entry *entry = &self->tenants->entries[tenant];
	struct sl_tenants_slot *slot;

	assert(tenant < self->tenants->entry_count);
	do
		slot = &self->slots[self->hand++ % SL_TENANTS_SLOTS];
	while (slot->pool && slot->stamp == self->stamp);
	prefetch_leaving(self);
	if (slot->pool)
		drop_slot(self, slot);
	// A tenant that is gone may still have requests under way: they are nobody's quota.
	slot->limits = entry->limits ? entry->limits : &sl_limits_none;
	slot->pool = entry->pool;
	slot->volume = slot->limits->volume.is_set ? entry->pool->volume : NULL;
	slot->tenant = tenant;
	// Its tokens and whether it is awake: the chunk is empty, so both are about to be asked
	// for.
	sl_prefetch(entry->pool);
	sl_prefetch(&entry->pool->awake);
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
		if (!sl_limit_is_set(&slot->limits->dimensions[i]))
			slot->chunk[i] = INT64_MAX / 2;
	*sl_tenants_number_of(self, tenant) = (uint32_t)(slot - self->slots) + 1;
	return slot;
}

struct sl_tenants_shard *sl_tenants_shard_create(uint32_t shard, uint32_t shards,
						 struct sl_metrics *metrics)
{
	struct sl_tenants_shard *self = calloc(1, sizeof(*self));

	if (!self)
		return NULL;
	self->shard = shard;
	self->shards = shards;
	while (UINT32_C(1) << self->shard_shift < shards)
		self->shard_shift++;
	self->slots = calloc(SL_TENANTS_SLOTS, sizeof(*self->slots));
	self->cache = sl_identity_cache_create();
	if (!self->slots || !self->cache || sl_by_tenant_init(&self->slot_of, sizeof(uint32_t)))
		goto fail;
	sl_random_init(&self->random,
		       sl_random_next(&(struct sl_random){shard + 1}) ^ (uint64_t)(uintptr_t)self);
	if (metrics) {
		if (sl_metrics_add(metrics, sl_tenants_counter_rows, sl_tenants_counter_row_count,
				   &self->counters, (int)shard, NULL))
			goto fail;
		self->metrics = metrics;
	}
	return self;
fail:
	sl_tenants_shard_destroy(self);
	return NULL;
}

// What the chunks hold goes with the pools: the process ends, or its snapshots do. What was sent is
// told, for the volumes outlive the process.
void sl_tenants_shard_destroy(struct sl_tenants_shard *self)
{
	if (!self)
		return;
	for (uint32_t i = 0; self->slots && i < SL_TENANTS_SLOTS; i++)
		if (self->slots[i].pool && self->slots[i].volume)
			sl_volume_count_flush(&self->slots[i].count, self->slots[i].volume);
	if (self->metrics)
		sl_metrics_remove(self->metrics, &self->counters);
	sl_by_tenant_fini(&self->slot_of);
	free(self->slots);
	sl_identity_cache_destroy(self->cache);
	free(self);
}

// What is kept of tenants that are gone goes back to their pools: all their requests have ended.
static void let_go(struct sl_tenants_shard *self)
{
	for (uint32_t i = 0; i < SL_TENANTS_SLOTS; i++) {
		struct sl_tenants_slot *slot = &self->slots[i];

		if (slot->pool && !sl_tenants_has(self->tenants, slot->tenant))
			drop_slot(self, slot);
	}
	sl_grace_tell(&self->grace, &self->tenants->registry->grace, self->shard, self->shards);
}

uint8_t sl_tenants_take_request(struct sl_tenants_shard *self)
{
	return sl_grace_take(&self->grace);
}

void sl_tenants_give_request(struct sl_tenants_shard *self, uint8_t phase)
{
	sl_grace_give(&self->grace, phase);
}

void sl_tenants_shard_turn(struct sl_tenants_shard *self, const struct sl_tenants *tenants,
			   uint64_t now_ns)
{
	self->tenants = tenants;
	self->now_ns = now_ns;
	if (SL_UNLIKELY(self->generation != tenants->generation)) {
		// Limits changed: chunks were cut by the old ones.
		for (uint32_t i = 0; i < SL_TENANTS_SLOTS && self->generation; i++) {
			struct sl_tenants_slot *slot = &self->slots[i];

			if (slot->pool)
				drop_slot(self, slot);
		}
		self->generation = tenants->generation;
		if (self->shard == 0)
			sl_gauge(&self->counters.tenants[0], tenants->tenant_count);
		if (self->shard == 0)
			sl_gauge(&self->counters.cardinality_bytes[0], tenants->cardinality_bytes);
	}
	if (SL_UNLIKELY(sl_grace_turn(&self->grace, &tenants->registry->grace)))
		let_go(self);
	for (unsigned i = 0; i < 2; i++) {
		struct sl_tenants_slot *slot = &self->slots[self->hand++ % SL_TENANTS_SLOTS];

		if (slot->pool && slot->used_ns + UNUSED_NS < now_ns)
			drop_slot(self, slot);
	}
}
