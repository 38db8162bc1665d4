#include "tenants/shard.h"

#include "tenants/algorithm.h"
#include "tenants/partial.h"
#include "tenants/quota_lease.h"

#include <stdlib.h>

// What shards hold unspent: together two ticks' worth of the rate, or 1/8 of a limit in flight.
#define LEASE_S               0.02
#define LEASE_IN_FLIGHT_SHIFT 3
// How long a shard sums up what it refused before it tells.
#define UNMET_NS  SL_MS
#define ADOPT_MAX 1024 // pools that take over new limits in one tick
// How often what fits is looked for again, when other shards spend meanwhile.
#define CUT_TRIES 4
// What is in flight ends when it ends; nobody knows when.
#define IN_FLIGHT_WAIT_NS (100 * SL_MS)
#define WAIT_MIN_NS       SL_MS
#define WAIT_MAX_NS       (3600 * SL_S)

// --- spending ------------------------------------------------------------------------------------

// How much a chunk may hold beyond what is spent at once.
static int64_t chunk_max(const struct sl_tenants_shard *self, const struct sl_limit *limit)
{
	if (limit->per_s > 0)
		return (int64_t)(limit->per_s * LEASE_S) >> self->shard_shift;
	return limit->burst >> (LEASE_IN_FLIGHT_SHIFT + self->shard_shift);
}

// When the pool has what this request needs, a little later for each one who asks, so that they do
// not all come back at once.
static uint64_t wait_for(struct sl_tenants_shard *self, const struct sl_tenants_slot *slot,
			 unsigned i, int64_t missing)
{
	const double ns = i >= SL_DIMENSION_RATES ? (double)IN_FLIGHT_WAIT_NS
						  : sl_algorithm_wait_ns(slot->limits, slot->pool,
									 i, missing, self->now_ns);
	uint64_t wait_ns = ns >= (double)WAIT_MAX_NS ? WAIT_MAX_NS : (uint64_t)ns + 1;

	wait_ns = SL_MAX(wait_ns, WAIT_MIN_NS);
	return wait_ns + sl_random_below(&self->random, wait_ns / 5 + 1);
}

static void tell_unmet(const struct sl_tenants_shard *self, struct sl_tenants_slot *slot,
		       struct sl_quota_lease *leases, unsigned dimension, int64_t cost)
{
	slot->unmet[dimension] += cost;
	if (self->now_ns < slot->told_ns + UNMET_NS)
		return;
	slot->told_ns = self->now_ns;
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++) {
		if (slot->unmet[i])
			__atomic_fetch_add(&leases[i].refused, slot->unmet[i], __ATOMIC_RELAXED);
		slot->unmet[i] = 0;
	}
}

// The pool is short and the fleet has granted no more yet. What is refused here is demand all the
// same, told to the lease now and then: it decides this instance's share.
static int64_t borrow(struct sl_tenants_shard *self, struct sl_tenants_slot *slot, unsigned i,
		      int64_t own, int64_t cost, bool exact)
{
	const struct sl_limit *limit = &slot->limits->dimensions[i];
	struct sl_quota_lease *leases = sl_quota_pool_leases(slot->pool);
	const bool fits = !exact ||
			  cost - own <= sl_quota_lease_room(slot->pool, i, limit, self->now_ns);
	const bool lent = fits &&
			  sl_quota_lease_borrow(slot->pool, i, limit, cost - own, self->now_ns,
						(uint32_t)sl_random_next(&self->random));

	sl_quota_lease_saw(&leases[i], cost);
	sl_quota_pool_wake(slot->pool, &self->tenants->registry->authority.woken);
	if (lent)
		return cost - own;
	slot->last[i] = cost;
	if (!exact) // else spend_some() tells, once it is known what is taken
		tell_unmet(self, slot, leases, i, cost);
	return -1;
}

// The level from which a request is admitted that shall not go into debt: a leaky bucket's queue is
// none.
static int64_t exact_need(const struct sl_limits *limits, unsigned i, int64_t missing)
{
	return limits->algorithm == SL_ALGORITHM_LEAKY
		       ? missing + sl_algorithm_need(limits, i, 0, 0, false)
		       : missing;
}

// Spends from the chunk, filling it from the pool first when it is short. `exact`: only what is
// there. 0, or the wait in ns.
static __attribute__((noinline)) uint64_t spend_slowly(struct sl_tenants_shard *self,
						       struct sl_tenants_slot *slot, unsigned i,
						       int64_t cost, bool exact)
{
	const struct sl_limit *limit = &slot->limits->dimensions[i];
	const bool leased = i < SL_DIMENSION_RATES && sl_quota_pool_leases(slot->pool);
	int64_t *own = &slot->chunk[i], need, level, took;
	uint64_t delay_ns;

	if (*own >= cost) {
		*own -= cost;
		return 0;
	}
	need = exact ? exact_need(slot->limits, i, cost - *own)
		     : sl_algorithm_need(slot->limits, i, *own, cost, leased);
	took = sl_quota_pool_draw(slot->pool, i, need, *own, cost, chunk_max(self, limit),
				  1 + self->shard_shift, &level);
	if (leased) {
		if (took < 0)
			took = borrow(self, slot, i, *own, cost, exact);
		else
			sl_quota_lease_saw(&sl_quota_pool_leases(slot->pool)[i], cost);
	}
	if (took < 0)
		return wait_for(self, slot, i, (exact ? SL_MIN(need, limit->burst) : need) - level);
	delay_ns = sl_algorithm_delay_ns(slot->limits, i, level);
	if (SL_UNLIKELY(delay_ns > self->delay_ns)) {
		self->delay_ns = delay_ns;
		slot->delayed = (uint8_t)i;
	}
	sl_count(&self->counters.draws[0], 1);
	*own += took - cost;
	if (i < SL_DIMENSION_RATES)
		sl_quota_pool_wake(slot->pool, &self->tenants->registry->authority.woken);
	return 0;
}

static int64_t as_tokens(uint64_t amount)
{
	return (int64_t)SL_MIN(amount, (uint64_t)SL_UNLIMITED / 4);
}

// All of the charge or none. Returns 0, or the longest wait and its dimension.
SL_INLINE uint64_t spend(struct sl_tenants_shard *self, struct sl_tenants_slot *slot,
			 const struct sl_charge *charge, unsigned item, bool exact,
			 unsigned *dimension)
{
	const unsigned which[3] = {SL_DIMENSION_BYTES, item, SL_DIMENSION_REQUESTS};
	const int64_t cost[3] = {as_tokens(charge->bytes), as_tokens(charge->items),
				 as_tokens(charge->requests)};
	uint64_t wait_ns = 0;
	unsigned spent = 0;

	self->delay_ns = 0;
	if (SL_LIKELY(slot->chunk[which[0]] >= cost[0] && slot->chunk[which[1]] >= cost[1] &&
		      slot->chunk[which[2]] >= cost[2])) {
		for (unsigned i = 0; i < 3; i++)
			slot->chunk[which[i]] -= cost[i];
		return 0;
	}
	for (unsigned i = 0; i < 3; i++) {
		const uint64_t one_ns = spend_slowly(self, slot, which[i], cost[i], exact);

		if (one_ns == 0)
			spent |= 1u << i;
		if (one_ns > wait_ns) {
			wait_ns = one_ns;
			*dimension = which[i];
		}
	}
	if (wait_ns == 0)
		return 0;
	// What was spent and the fragments go back to the pool, where every shard sees them.
	for (unsigned i = 0; i < 3; i++) {
		if (spent & 1u << i)
			slot->chunk[which[i]] += cost[i];
		if (sl_limit_is_set(&slot->limits->dimensions[which[i]]))
			sl_tenants_return_chunk(self, slot, which[i]);
	}
	return wait_ns;
}

// What a request could spend of a rate without going into debt.
static uint64_t room(const struct sl_tenants_shard *self, const struct sl_tenants_slot *slot,
		     unsigned i)
{
	const struct sl_limit *limit = &slot->limits->dimensions[i];
	int64_t more;

	if (!sl_limit_is_set(limit))
		return INT64_MAX;
	more = sl_quota_pool_level(slot->pool, i) - exact_need(slot->limits, i, 0);
	if (sl_quota_pool_leases(slot->pool))
		more = SL_MAX(more, sl_quota_lease_room(slot->pool, i, limit, self->now_ns));
	return (uint64_t)SL_MAX(slot->chunk[i] + more, 0);
}

static void cut_part(struct sl_tenants_shard *self, struct sl_part *part,
		     const struct sl_partial *fit, const struct sl_charge *charge, bool by_volume)
{
	const enum sl_cut cut = by_volume ? SL_CUT_VOLUME : SL_CUT_QUOTA;

	sl_partial_cut(part, fit, cut, (uint32_t)charge->items, charge->bytes);
	sl_count(by_volume ? &self->counters.volume_cut[part->limit]
			   : &self->counters.cut[part->limit],
		 part->cut_items[cut]);
	part->limit += by_volume ? SL_TENANTS_LIMIT_VOLUME : 0;
}

// It comes back at the period's end, all at once: who asks again is told so, in an hour at most.
static uint64_t wait_for_period(struct sl_tenants_shard *self, const struct sl_volume *volume)
{
	const uint64_t ends_ns = __atomic_load_n(&volume->ends_ns, __ATOMIC_RELAXED);
	uint64_t wait_ns = ends_ns > self->now_ns ? ends_ns - self->now_ns : 0;

	wait_ns = SL_MAX(SL_MIN(wait_ns, WAIT_MAX_NS), SL_S);
	return wait_ns + sl_random_below(&self->random, wait_ns / 5);
}

// The fleet's leases hear of what was not taken.
static void tell_cut(const struct sl_tenants_shard *self, struct sl_tenants_slot *slot,
		     unsigned item, const struct sl_charge *offered, const struct sl_charge *taken)
{
	const unsigned which[2] = {SL_DIMENSION_BYTES, item};
	const int64_t lost[2] = {as_tokens(offered->bytes - taken->bytes),
				 as_tokens(offered->items - taken->items)};
	struct sl_quota_lease *leases = sl_quota_pool_leases(slot->pool);

	for (unsigned i = 0; leases && i < 2; i++)
		if (lost[i] > 0 && sl_limit_is_set(&slot->limits->dimensions[which[i]]))
			tell_unmet(self, slot, leases, which[i], lost[i]);
}

// What a part may have, and whether it is the volume of the period that says so.
struct rooms {
	uint64_t items, bytes;
	bool items_volume, bytes_volume;
};

static uint64_t least_room(const struct sl_tenants_shard *self, const struct sl_tenants_slot *slot,
			   unsigned i, bool *by_volume)
{
	const uint64_t quota = room(self, slot, i);
	const uint64_t volume = slot->volume ? sl_volume_room(slot->volume, i) : UINT64_MAX;

	*by_volume = volume < quota;
	return SL_MIN(volume, quota);
}

// Takes the charge from volume and quota, or from neither.
static uint64_t spend_both(struct sl_tenants_shard *self, struct sl_tenants_slot *slot,
			   const struct sl_charge *charge, unsigned item, bool exact,
			   unsigned *dimension)
{
	uint64_t wait_ns;

	if (slot->volume && !sl_volume_take(slot->volume, charge->bytes, charge->items, item)) {
		*dimension = item;
		return WAIT_MIN_NS;
	}
	wait_ns = spend(self, slot, charge, item, exact, dimension);
	if (wait_ns && slot->volume)
		sl_volume_give(slot->volume, charge->bytes, charge->items, item);
	return wait_ns;
}

// There is not room for one item: of whose limit it is told, and until when.
static uint64_t wait_for_one(struct sl_tenants_shard *self, const struct sl_tenants_slot *slot,
			     unsigned short_of, bool by_volume, unsigned *dimension)
{
	const int64_t need = exact_need(slot->limits, short_of, 1);

	*dimension = short_of + (by_volume ? SL_TENANTS_LIMIT_VOLUME : 0);
	return by_volume ? wait_for_period(self, slot->volume)
			 : wait_for(self, slot, short_of,
				    need - sl_quota_pool_level(slot->pool, short_of));
}

// The tenant has less left than the part needs, and would rather lose items than send them again:
// as many as fit are charged. An item that no bucket ever holds goes into debt when it is the
// first. Returns 0, or the wait when there is not room for one.
static __attribute__((noinline)) uint64_t spend_some(struct sl_tenants_shard *self,
						     struct sl_tenants_slot *slot,
						     struct sl_part *part, struct sl_charge *charge,
						     unsigned item, unsigned *dimension,
						     uint64_t wait_ns)
{
	const struct sl_charge offered = *charge;
	struct sl_partial fit;
	struct rooms rooms;
	bool by_volume = false, exact = true;

	*charge = (struct sl_charge){0};
	if (!sl_part_own_keep(part))
		return wait_ns;
	for (unsigned tries = 0; wait_ns && tries < CUT_TRIES; tries++) {
		rooms.items = least_room(self, slot, item, &rooms.items_volume);
		rooms.bytes = least_room(self, slot, SL_DIMENSION_BYTES, &rooms.bytes_volume);
		if (!least_room(self, slot, SL_DIMENSION_REQUESTS, &by_volume)) {
			wait_ns = wait_for_one(self, slot, SL_DIMENSION_REQUESTS, by_volume,
					       dimension);
			break;
		}
		if (!sl_partial_fit(part, rooms.items, rooms.bytes, &fit))
			break;
		exact = fit.fits > 0;
		by_volume = fit.by_bytes ? rooms.bytes_volume : rooms.items_volume;
		if (!exact && (by_volume || !fit.first_bytes ||
			       (int64_t)fit.first_bytes <=
				       slot->limits->dimensions[SL_DIMENSION_BYTES].burst)) {
			wait_ns = wait_for_one(self, slot, fit.by_bytes ? SL_DIMENSION_BYTES : item,
					       by_volume, dimension);
			break;
		}
		*charge = (struct sl_charge){exact ? fit.bytes : fit.first_bytes,
					     SL_MAX(fit.fits, 1), 1};
		part->limit = (uint8_t)(fit.by_bytes ? SL_DIMENSION_BYTES : item);
		wait_ns = spend_both(self, slot, charge, item, exact, dimension);
	}
	if (wait_ns)
		*charge = (struct sl_charge){0};
	if (!by_volume)
		tell_cut(self, slot, item, &offered, charge);
	if (!wait_ns)
		cut_part(self, part, &fit, charge, by_volume);
	return wait_ns;
}

// More in the chunk than a shard should hold: the pool gets it.
SL_INLINE void spill(struct sl_tenants_shard *self, struct sl_tenants_slot *slot, unsigned i)
{
	const struct sl_limit *limit = &slot->limits->dimensions[i];

	if (SL_UNLIKELY(slot->chunk[i] > 2 * chunk_max(self, limit)) &&
	    (i >= SL_DIMENSION_RATES || sl_limit_is_set(limit)))
		sl_tenants_return_chunk(self, slot, i);
}

static enum sl_reason refuse(struct sl_tenants_shard *self, struct sl_tenants_slot *slot,
			     unsigned dimension, enum sl_reason reason)
{
	const bool volume = reason == SL_REASON_VOLUME_EXCEEDED;

	if (slot->limits->observe) {
		sl_count(&self->counters.observed[dimension], 1);
		return SL_REASON_NONE;
	}
	sl_count(volume ? &self->counters.used_up[dimension] : &self->counters.refused[dimension],
		 1);
	self->refused_dimension = (uint8_t)(dimension + (volume ? SL_TENANTS_LIMIT_VOLUME : 0));
	__atomic_fetch_add(&slot->pool->refused_requests, 1, __ATOMIC_RELAXED);
	return reason;
}

// Over a limit, as parts' `limit`. False: it only observes.
static bool refuse_for(struct sl_tenants_shard *self, struct sl_tenants_slot *slot, unsigned limit,
		       struct sl_batch *batch, struct sl_part *part, uint64_t wait_ns)
{
	const bool volume = limit >= SL_TENANTS_LIMIT_VOLUME;
	const enum sl_reason reason = refuse(
		self, slot, limit - (volume ? SL_TENANTS_LIMIT_VOLUME : 0),
		volume ? SL_REASON_VOLUME_EXCEEDED : SL_REASON_QUOTA_EXCEEDED);

	if (reason == SL_REASON_NONE)
		return false;
	part->limit = (uint8_t)limit;
	sl_batch_refuse(batch, part, reason, wait_ns);
	return true;
}

// Whether the volume of the period is used up.
static enum sl_reason refuse_volume(struct sl_tenants_shard *self, struct sl_tenants_slot *slot,
				    unsigned item, uint64_t *wait_ns)
{
	const unsigned dimension = sl_volume_over(slot->volume, item);

	if (SL_LIKELY(dimension == SL_DIMENSIONS))
		return SL_REASON_NONE;
	*wait_ns = wait_for_period(self, slot->volume);
	return refuse(self, slot, dimension, SL_REASON_VOLUME_EXCEEDED);
}

void sl_tenants_quota_stage(void *state, struct sl_batch *batch)
{
	struct sl_tenants_shard *self = state;
	struct sl_tenants_slot *slots[SL_BATCH_MAX];
	const uint16_t offered = batch->count;
	uint16_t kept = 0;

	assert(offered <= SL_BATCH_MAX);
	self->stamp++; // none of these slots may take another's place
	// What slots that are to be made begin with: the misses of all overlap.
	for (uint16_t i = 0; i < offered; i++) {
		if (SL_UNLIKELY(!*sl_tenants_number_of(self, batch->parts[i]->tenant)))
			sl_prefetch(&self->tenants->entries[batch->parts[i]->tenant]);
	}
	for (uint16_t i = 0; i < offered; i++) {
		slots[i] = sl_tenants_slot_of(self, batch->parts[i]->tenant);
		sl_prefetch(slots[i]);
	}
	for (uint16_t i = 0; i < offered; i++) {
		struct sl_part *part = batch->parts[i];
		const bool cut = slots[i]->limits->cut && !slots[i]->limits->observe;
		struct sl_charge charge = {part->offered_bytes, part->offered_items, 1};
		const unsigned item = SL_DIMENSION_SPANS + part->request->signal;
		unsigned dimension = 0;
		uint64_t wait_ns;

		if (SL_UNLIKELY(slots[i]->volume) &&
		    refuse_volume(self, slots[i], item, &wait_ns) != SL_REASON_NONE) {
			part->limit = self->refused_dimension;
			sl_batch_refuse(batch, part, SL_REASON_VOLUME_EXCEEDED, wait_ns);
			continue;
		}
		wait_ns = SL_UNLIKELY(cut)
				  ? spend_both(self, slots[i], &charge, item, cut, &dimension)
				  : spend(self, slots[i], &charge, item, cut, &dimension);
		if (SL_UNLIKELY(wait_ns && cut))
			wait_ns = spend_some(self, slots[i], part, &charge, item, &dimension,
					     wait_ns);
		if (SL_LIKELY(wait_ns == 0)) {
			if (SL_UNLIKELY(slots[i]->volume && !cut))
				sl_volume_count(&slots[i]->count, slots[i]->volume, charge.bytes,
						charge.items, item, 1, self->now_ns);
			part->counted = slots[i]->volume != NULL;
			part->charge = charge;
			part->charged_generation = (uint32_t)self->generation;
			// Who may not overtake others is held for what they are held for.
			if (!sl_part_cut_items(part))
				part->limit = slots[i]->delayed;
			if (SL_UNLIKELY(self->delay_ns && !slots[i]->limits->observe)) {
				part->delay_ns = self->delay_ns;
				batch->delayed = true;
			}
		} else if (refuse_for(self, slots[i], dimension, batch, part, wait_ns)) {
			continue;
		}
		batch->parts[kept++] = part;
	}
	batch->count = kept;
}

// To the volume that counted it, whatever its limits have become: the period goes on over reloads.
static void refund_volume(struct sl_tenants_shard *self, struct sl_part *part, unsigned item)
{
	struct sl_tenants_slot *slot = sl_tenants_only_slot_of(self, part->tenant);
	const struct sl_charge *charge = &part->charge;

	part->counted = false;
	if (slot->volume)
		sl_volume_count(&slot->count, slot->volume, charge->bytes, charge->items, item, -1,
				self->now_ns);
	else
		sl_volume_give(slot->pool->volume, charge->bytes, charge->items, item);
}

void sl_tenants_refund(struct sl_tenants_shard *self, struct sl_part *part)
{
	const unsigned item = SL_DIMENSION_SPANS + part->request->signal;
	struct sl_tenants_slot *slot;

	if (SL_UNLIKELY(part->counted))
		refund_volume(self, part, item);
	if (part->charged_generation != (uint32_t)self->generation)
		return; // not charged, or before a reload: other limits
	slot = sl_tenants_only_slot_of(self, part->tenant);
	slot->chunk[SL_DIMENSION_BYTES] += as_tokens(part->charge.bytes);
	slot->chunk[item] += as_tokens(part->charge.items);
	slot->chunk[SL_DIMENSION_REQUESTS] += as_tokens(part->charge.requests);
	spill(self, slot, SL_DIMENSION_BYTES);
	spill(self, slot, item);
	spill(self, slot, SL_DIMENSION_REQUESTS);
	part->charge = (struct sl_charge){0};
	part->charged_generation = 0;
}

// --- at the head ---------------------------------------------------------------------------------

struct sl_identity sl_tenants_identify(struct sl_tenants_shard *self,
				       const struct sl_identity_claim *claim, uint64_t wall_ns)
{
	const struct sl_identity identity = sl_identity_find(self->tenants, self->cache, claim,
							     wall_ns);

	sl_gauge(&self->counters.lookups[0], self->cache->lookups);
	sl_gauge(&self->counters.hits[0], self->cache->hits);
	if (identity.reason != SL_REASON_NONE)
		sl_count(&self->counters.unknown[0], 1);
	return identity;
}

enum sl_reason sl_tenants_admit_head(struct sl_tenants_shard *self, sl_tenant_id tenant,
				     enum sl_signal signal, uint64_t body_bytes_min,
				     uint64_t *retry_after_ns)
{
	struct sl_tenants_slot *slot = sl_tenants_only_slot_of(self, tenant);
	const struct {
		unsigned dimension;
		int64_t cost;
	} least[] = {
		// Of a body that may be cut, some of it will do.
		{SL_DIMENSION_BYTES, slot->limits->cut ? 1 : as_tokens(SL_MAX(body_bytes_min, 1))},
		{SL_DIMENSION_SPANS + signal, 1},
		{SL_DIMENSION_REQUESTS, 1},
	};

	if (self->tenants->entries[tenant].suspended)
		return SL_REASON_SUSPENDED;
	if (slot->limits->observe)
		return SL_REASON_NONE; // counted once, by the stage
	if (SL_UNLIKELY(slot->volume) &&
	    refuse_volume(self, slot, SL_DIMENSION_SPANS + signal, retry_after_ns))
		return SL_REASON_VOLUME_EXCEEDED;
	for (unsigned i = 0; i < SL_COUNT_OF(least); i++) {
		const unsigned dimension = least[i].dimension;
		const struct sl_limit *limit = &slot->limits->dimensions[dimension];

		if (SL_LIKELY(slot->chunk[dimension] >= least[i].cost))
			continue;

		const int64_t level = slot->chunk[dimension] +
				      sl_quota_pool_level(slot->pool, dimension);
		const int64_t need = sl_algorithm_need(slot->limits, dimension, 0, least[i].cost,
						       false);

		struct sl_quota_lease *leases = sl_quota_pool_leases(slot->pool);

		if (level >= need)
			continue;
		if (leases &&
		    sl_quota_lease_open(slot->pool, dimension, limit, least[i].cost, self->now_ns))
			continue;
		// What the body would have cost is not known: as much as the last one.
		if (leases)
			tell_unmet(self, slot, leases, dimension,
				   SL_MAX(least[i].cost, slot->last[dimension]));
		*retry_after_ns = wait_for(self, slot, dimension, need - level);
		return refuse(self, slot, dimension, SL_REASON_QUOTA_EXCEEDED);
	}
	return SL_REASON_NONE;
}

enum sl_reason sl_tenants_take_in_flight(struct sl_tenants_shard *self, sl_tenant_id tenant,
					 uint64_t bytes, uint64_t *retry_after_ns)
{
	struct sl_tenants_slot *slot = sl_tenants_only_slot_of(self, tenant);
	int64_t *own = slot->chunk;
	const int64_t cost = as_tokens(bytes);
	uint64_t wait_ns;
	unsigned dimension = SL_DIMENSION_IN_FLIGHT_REQUESTS;

	wait_ns = spend_slowly(self, slot, dimension, 1, false);
	if (wait_ns == 0) {
		dimension = SL_DIMENSION_IN_FLIGHT_BYTES;
		wait_ns = spend_slowly(self, slot, dimension, cost, false);
		if (SL_LIKELY(wait_ns == 0))
			return SL_REASON_NONE;
		own[SL_DIMENSION_IN_FLIGHT_REQUESTS]++;
	}
	sl_tenants_return_chunk(self, slot, SL_DIMENSION_IN_FLIGHT_REQUESTS);
	sl_tenants_return_chunk(self, slot, SL_DIMENSION_IN_FLIGHT_BYTES);
	if (refuse(self, slot, dimension, SL_REASON_IN_FLIGHT_EXCEEDED)) {
		*retry_after_ns = wait_ns;
		return SL_REASON_IN_FLIGHT_EXCEEDED;
	}
	// Observed only: it is in flight all the same, so the pool owes it.
	sl_quota_pool_return(slot->pool, SL_DIMENSION_IN_FLIGHT_REQUESTS, -1);
	sl_quota_pool_return(slot->pool, SL_DIMENSION_IN_FLIGHT_BYTES, -cost);
	return SL_REASON_NONE;
}

void sl_tenants_give_in_flight(struct sl_tenants_shard *self, sl_tenant_id tenant, uint64_t bytes)
{
	struct sl_tenants_slot *slot = sl_tenants_only_slot_of(self, tenant);

	slot->chunk[SL_DIMENSION_IN_FLIGHT_BYTES] += as_tokens(bytes);
	slot->chunk[SL_DIMENSION_IN_FLIGHT_REQUESTS]++;
	spill(self, slot, SL_DIMENSION_IN_FLIGHT_BYTES);
	spill(self, slot, SL_DIMENSION_IN_FLIGHT_REQUESTS);
}

// --- the quota thread ----------------------------------------------------------------------------

// Pools of the new snapshot take over its limits; those whose level does not fit wake. A part of
// them at a tick, as each costs two misses of the cache: 100,000 tenants must not delay one.
void sl_tenants_adopt(const struct sl_tenants *tenants)
{
	struct sl_registry *registry = tenants->registry;
	uint32_t end;

	if (registry->adopted == tenants->generation)
		return;
	if (registry->adopting != tenants->generation) {
		registry->adopting = tenants->generation;
		registry->adopting_at = 0;
	}
	end = SL_MIN(registry->adopting_at + ADOPT_MAX, tenants->entry_count);
	for (; registry->adopting_at < end; registry->adopting_at++) {
		const struct sl_tenant_entry *entry = &tenants->entries[registry->adopting_at];

		if (!entry->limits)
			continue;
		if (entry->created) // others were when the snapshot was built
			sl_authority_introduce(entry->pool, entry->limits);
		sl_authority_adopt(&registry->authority, entry->pool, entry->limits);
	}
	if (registry->adopting_at == tenants->entry_count)
		registry->adopted = tenants->generation;
}

void sl_tenants_tick(struct sl_tenants *tenants, uint64_t now_ns)
{
	struct sl_registry *registry = tenants->registry;
	struct sl_authority *authority = &registry->authority;
	struct sl_quota_pool **at = &authority->awake;

	sl_tenants_adopt(tenants);
	sl_authority_begin(authority, now_ns);
	while (*at) {
		struct sl_quota_pool *pool = *at, *next = pool->next;
		const struct sl_limits *limits = sl_tenants_limits_of(tenants, pool->tenant);

		// Once it sleeps, a shard may put it on the list of the woken: `next` is read
		// before.
		if (sl_algorithm_fill(pool, limits, now_ns) && sl_authority_sleep(pool, limits))
			*at = next;
		else
			at = &pool->next;
	}
}
