#pragma once

#include "tenants/quota_pool.h"

// Spending before the fleet has granted it: where one quota holds for many instances, a pool has
// little or nothing in it, and what it lacks is borrowed. A borrowed token makes the pool negative,
// and the next call to the fleet's authority settles it. How much may be borrowed is the credit,
// which each of the authority's answers sets anew.
//
// An instance that has heard nothing for SL_QUOTA_LEASE_FRESH_NS knows no credit. Its first
// request is admitted all the same, once, if it owes nothing and by the last answer the bucket must
// have room for it by now: quiet tenants never wait, and cost the fleet nothing.
//
// Threading: shards borrow; the quota thread sets. `credit`, `refused`, `largest` and `woken` are
// atomic; the others are single words that one thread writes.
//
// Memory: a tenant that is quiet since the start has leases that are all zero, in pages that nobody
// has touched: 320 bytes of address space.
#define SL_QUOTA_LEASE_FRESH_NS SL_S

struct sl_quota_lease {
	int64_t credit;  // writer: shards and the quota thread
	int64_t refused; // tokens refused since the start; writer: shards
	int64_t largest; // request since the quota thread last looked; writer: shards
	uint32_t woken;  // 1: the one request of a quiet tenant has been admitted
	// writer: the quota thread
	uint32_t deaf;       // chance of 2^32 that a borrower is not heard: it stops herds
	int64_t room;        // what the authority's bucket held at seen_ns
	uint64_t seen_ns;    // the last answer; 0: never
	int64_t wake_credit; // what waking up allows in all
	uint32_t sliding;    // 1: a sliding window, of which time alone gives back nothing for sure
} __attribute__((aligned(SL_CACHE_LINE)));
static_assert(sizeof(struct sl_quota_lease) == SL_CACHE_LINE, "one line a tenant and dimension");

// Would `amount` be lent now?
bool sl_quota_lease_open(const struct sl_quota_pool *pool, enum sl_dimension dimension,
			 const struct sl_limit *limit, int64_t amount, uint64_t now_ns);
// The most that would be lent now, >= 0.
int64_t sl_quota_lease_room(const struct sl_quota_pool *pool, enum sl_dimension dimension,
			    const struct sl_limit *limit, uint64_t now_ns);
// Lends the pool `amount` tokens: they are taken from it, and it may be negative after. `chance` is
// a random number. Returns whether it did.
bool sl_quota_lease_borrow(struct sl_quota_pool *pool, enum sl_dimension dimension,
			   const struct sl_limit *limit, int64_t amount, uint64_t now_ns,
			   uint32_t chance);

// A shard tells the largest request that it could not pay from its chunk.
SL_INLINE void sl_quota_lease_saw(struct sl_quota_lease *lease, int64_t cost)
{
	if (SL_UNLIKELY(cost > __atomic_load_n(&lease->largest, __ATOMIC_RELAXED)))
		__atomic_store_n(&lease->largest, cost, __ATOMIC_RELAXED);
}
