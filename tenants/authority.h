#pragma once

#include "tenants/quota_pool.h"

// Who grants tokens: one bucket a tenant and dimension for the whole instance. What it has is all
// in the pool (the instance has no one to share it with), so a grant is what time has earned since
// the last one (algorithm.h); of a token bucket, up to the burst:
//
//   level' = min(burst, level + rate * elapsed)
//
// Its bound, whatever the number of shards M, over any time W, with q the largest request:
//
//   admitted(W) <= R * (W + 3T) + B + max(0, q - B/2)          T = SL_QUOTA_TICK_NS
//
// B is in the pool at most after a tick; the shards' unspent chunks are at most R * 2T together;
// a tick may turn T before W into tokens; and the one request that finds the level positive but
// below its cost goes into debt by at most q - B/2, which is nothing for requests of up to B/2.
//
// Threading: the quota thread, but for introduce(), the control thread's. Time: passed in.
struct sl_authority {
	struct sl_quota_woken woken; // writer: shards
	struct sl_quota_pool *awake; // those being refilled
	uint64_t tick_ns;            // of the last tick; 0: none yet
};

// Moves the woken to those awake. What a full pool earned while it slept is nothing.
void sl_authority_begin(struct sl_authority *authority, uint64_t now_ns);
// Takes a full pool off the list; false when a shard has drawn meanwhile and it must stay.
bool sl_authority_sleep(struct sl_quota_pool *pool, const struct sl_limits *limits);
// New limits: gives dimensions that are limited for the first time their burst. Also for a pool
// that no shard knows yet.
void sl_authority_introduce(struct sl_quota_pool *pool, const struct sl_limits *limits);
// New limits are in force: what may be in flight changes by the difference; a pool that sleeps is
// full under the new ones too; the levels of others stay, and are cut or filled by the next ticks.
void sl_authority_adopt(struct sl_authority *authority, struct sl_quota_pool *pool,
			const struct sl_limits *limits);
