#pragma once

#include "tenants/limits.h"

struct sl_quota_lease;
struct sl_quota_window;
struct sl_trim_counts;
struct sl_volume;

// The tokens of one tenant in this instance, for each dimension one number that all shards share.
// The authority's grants go in; shards draw chunks with one atomic operation and return what they
// did not spend. A negative number is debt: spent already, and paid by the next grants.
//
//   authority --grant--> pool --draw--> shard's chunk --spend--> admitted
//                             <-return-
//
// A full pool costs nobody anything: it sleeps, until a draw puts it on the authority's list.
//
// In a fleet the grants come from Redis, a little at a time, and a pool has leases beside it
// (quota_lease.h).
//
// Threading: `tokens` and `awake` are atomic; the rest belongs to the quota thread, but for what
// introduce() sets before a snapshot with the tenant is published (the control thread).
// Memory: 192 bytes a tenant, never freed or moved while the process' registry lives.
struct sl_quota_pool {
	int64_t tokens[SL_DIMENSIONS]; // writer: all shards and the quota thread, atomically
	struct sl_quota_pool *next;    // in the list of the woken, or of those awake
	uint32_t awake;                // on a list
	uint32_t tenant;
	struct sl_quota_lease *leases;  // by dimension; NULL: no fleet. Never changes
	struct sl_quota_window *window; // algorithm.h; NULL: never had a sliding window
	struct sl_volume *volume;       // volume.h; NULL: never had one
	struct sl_trim_counts *trimmed; // writer: shards, atomically; NULL: never had such limits
	// writer: the quota thread (authority.h)
	uint32_t filled_once; // bits: dimensions that have had their first burst
	uint32_t leaky;       // which leaky bucket a debt is the queue of; 0: it is none's
	uint64_t filled_ns;   // up to when time was turned into tokens
	double fractions[SL_DIMENSION_RATES];
	int64_t in_flight_limits[2]; // what `tokens` in flight were made of
	// writer: shards, atomically, for each refusal
	uint64_t refused_requests;
} __attribute__((aligned(SL_CACHE_LINE)));
static_assert(sizeof(struct sl_quota_pool) == 3 * SL_CACHE_LINE, "192 bytes a tenant");

// Those that woke since the authority's last tick.
struct sl_quota_woken {
	struct sl_quota_pool *first; // writer: all shards, atomically
};

// Draws for a request that lacks tokens: its shard has `own` of the `cost`, and it is admitted when
// the pool's level is `need` or more. Takes what is missing and up to `extra` more (never more than
// a share of 1 / 2^share_shift of the pool), or nothing.
//
// Returns what was taken, >= 0, or -1: refused. `*level` is what the pool held before.
int64_t sl_quota_pool_draw(struct sl_quota_pool *pool, enum sl_dimension dimension, int64_t need,
			   int64_t own, int64_t cost, int64_t extra, uint32_t share_shift,
			   int64_t *level);

SL_INLINE struct sl_quota_lease *sl_quota_pool_leases(const struct sl_quota_pool *pool)
{
	return pool->leases;
}

SL_INLINE int64_t sl_quota_pool_level(const struct sl_quota_pool *pool, enum sl_dimension dimension)
{
	return __atomic_load_n(&pool->tokens[dimension], __ATOMIC_RELAXED);
}

SL_INLINE void sl_quota_pool_return(struct sl_quota_pool *pool, enum sl_dimension dimension,
				    int64_t tokens)
{
	__atomic_fetch_add(&pool->tokens[dimension], tokens, __ATOMIC_RELAXED);
}

// Whether the quota thread has let go of it.
SL_INLINE bool sl_quota_pool_rests(const struct sl_quota_pool *pool)
{
	return !__atomic_load_n(&pool->awake, __ATOMIC_ACQUIRE);
}

// After a draw: if the pool slept, it is put on the list.
void sl_quota_pool_wake(struct sl_quota_pool *pool, struct sl_quota_woken *woken);
