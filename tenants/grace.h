#pragma once

#include "dataplane/base/base.h"

// When a tenant's number may be used for another one: when no shard has a request left that was
// taken before the number was withdrawn. Whoever withdraws numbers (they are no longer found by any
// name) asks for an epoch; each shard tells, at the begin of a turn, up to which epoch all of its
// requests are younger.
//
//   withdraw n --> e = ask() --> ... each shard: the last request taken before e ends ... -->
//   over(e)
//
// A shard counts its requests in two phases. A phase begins at the newest epoch when the one before
// the last is empty; so requests of the phase at work are never older than its begin.
//
// Threading: ask and over from any thread; a side belongs to its shard. Memory: part of its owners.
#define SL_GRACE_SHARDS_MAX 256

struct sl_grace_shard {
	uint64_t over; // writer: the shard
	char pad[SL_CACHE_LINE - sizeof(uint64_t)];
};

struct sl_grace {
	uint64_t epoch;       // the newest; from 1
	uint32_t shard_count; // writer: shards, at their first turn; all the same
	char pad[SL_CACHE_LINE];
	struct sl_grace_shard shards[SL_GRACE_SHARDS_MAX];
};

struct sl_grace_side {
	uint64_t began, told; // epochs: of the phase at work, and the last one told
	uint64_t open[2];     // requests, by phase
	uint8_t phase;
};

void sl_grace_init(struct sl_grace *grace);
// A new epoch: what was withdrawn before the call is younger than nothing that begins after it.
uint64_t sl_grace_ask(struct sl_grace *grace);
// Whether no request is left that any shard took before it saw that epoch.
bool sl_grace_over(const struct sl_grace *grace, uint64_t epoch);

// At a turn's begin. Returns whether an epoch is over on this shard: the caller then lets go of
// what it keeps of withdrawn tenants and calls tell().
bool sl_grace_turn(struct sl_grace_side *side, const struct sl_grace *grace);
void sl_grace_tell(struct sl_grace_side *side, struct sl_grace *grace, uint32_t shard,
		   uint32_t shards);

// A request begins; what it returns is said again when it ends.
SL_INLINE uint8_t sl_grace_take(struct sl_grace_side *side)
{
	side->open[side->phase]++;
	return side->phase;
}

SL_INLINE void sl_grace_give(struct sl_grace_side *side, uint8_t phase)
{
	assert(side->open[phase] > 0);
	side->open[phase]--;
}
