#pragma once

#include "tenants/limits.h"

struct sl_tenants;

// What a tenant may send in a day or a month. Counted by the shards as they admit, compared by the
// quota thread: nothing of it is drawn from anywhere, so a request's way does not change.
//
//   shard: pending --every ms--> spent (one number for the instance)
//   quota thread, a tick: used = spent - begun + others;  soft mark: told once;  hard mark: `over`
//
// `others` is what this instance did not count itself: what a file says that was used before it
// began (volume_file.h), or what the rest of the fleet has used (fleet/volumes.h).
//
// Overshoot beyond the hard mark, of one instance of M shards with requests of up to q: what each
// shard has not told yet, and one request each:
//
//   used <= hard + M * (min(R * 1 ms, hard / 4096) + q)
//
// With `excess: cut` it is hard and no more: of the request that would pass it the items that fit
// are taken (sl_volume_take).
//
// Of a fleet: beside that, what all admit while it tells each other, D * (pause + round trip +
// tick), with a pause of 1 s that shrinks to 50 ms as the mark comes near.
//
// Threading and Memory: one for each tenant that ever had a volume, freed with the registry. Fields
// by their writers. Time: `now_ns` monotonic; a period is of UTC, by the wall clock that the owner
// passes in: this machine's, or Redis'.

// Beginnings of periods: days since 1970, months since January 1970; and which of the two.
struct sl_volume_period {
	uint64_t id;             // grows; 0: not known
	uint64_t begin_s, end_s; // since the epoch
};
struct sl_volume_period sl_volume_period_at(enum sl_volume_per per, uint64_t wall_s);

struct sl_volume {
	// writer: shards, atomically
	int64_t spent[SL_DIMENSION_RATES]; // since the process began
	// writer: the quota thread; shards read, and set bits of `over`
	int64_t hard_at[SL_DIMENSION_RATES] __attribute__((aligned(SL_CACHE_LINE))); // of spent
	int64_t step[SL_DIMENSION_RATES]; // what a shard may keep for itself
	uint64_t ends_ns;                 // when the period ends
	uint32_t over;                    // bits: dimensions that are used up
	// writer: the quota thread; the control thread reads
	uint64_t period __attribute__((aligned(SL_CACHE_LINE))); // its id; 0: not known yet
	int64_t begun[SL_DIMENSION_RATES];                       // of spent, when it began
	int64_t others[SL_DIMENSION_RATES];
	uint32_t told; // bits: dimensions whose soft mark was told
	// never changes
	uint32_t tenant;
	struct sl_volume *next;
	// the fleet's (fleet/volumes.h)
	int64_t heard[SL_DIMENSION_RATES]; // of spent - begun, as Redis has answered
	int64_t last[SL_DIMENSION_RATES];  // what the whole fleet had used then
	double pace[SL_DIMENSION_RATES];   // of the fleet, a ns
	uint64_t due_ns, answered_ns;
	uint64_t failures;      // of its link, when it was answered
	uint32_t home;          // its link + 1; 0: not looked up yet
	bool asking, own_clock; // own_clock: its period is this machine's, not Redis'
};

// All of a registry.
struct sl_volumes {
	struct sl_volume *first; // writer: the control thread, atomically
	// writer: the quota thread
	struct sl_volume *at;            // where the next tick begins
	uint64_t soft_marks, hard_marks; // that were passed
};

// NULL when memory is short. Control thread.
struct sl_volume *sl_volumes_add(struct sl_volumes *volumes, uint32_t tenant);
void sl_volumes_fini(struct sl_volumes *volumes);

// The quota thread, at each tick, of an instance by itself: compares some of them, all within a
// second for 100,000.
void sl_volumes_tick(struct sl_volumes *volumes, const struct sl_tenants *tenants, uint64_t now_ns,
		     uint64_t wall_ns);
// One of them. A period that is not the one it is in begins it anew.
void sl_volume_look(struct sl_volumes *volumes, struct sl_volume *volume,
		    const struct sl_tenants *tenants, const struct sl_volume_period *period,
		    uint64_t ends_ns);

// What is used in the period, and which that is: a pair that belongs together. Any thread.
uint64_t sl_volume_used(const struct sl_volume *volume, int64_t used[SL_DIMENSION_RATES]);

// Whether something of it is used in a period that goes on: its tenant may come back.
bool sl_volume_is_used(const struct sl_volume *volume, uint64_t wall_s);
// Another tenant's from now on; no snapshot has the last one.
void sl_volume_reset(struct sl_volume *volume);

// A shard's, of a tenant that would rather lose items than send them again (`excess: cut`): takes
// from what all shards have left at this moment, or nothing. So they pass the hard mark by nothing
// but what a fleet's others use meanwhile. Costs three atomic operations.
bool sl_volume_take(struct sl_volume *volume, uint64_t bytes, uint64_t items, unsigned item);
// Gives it back.
void sl_volume_give(struct sl_volume *volume, uint64_t bytes, uint64_t items, unsigned item);
// What is left of a dimension.
uint64_t sl_volume_room(const struct sl_volume *volume, unsigned dimension);

// A shard's own count of one tenant.
struct sl_volume_count {
	int64_t pending[SL_DIMENSION_RATES];
	uint64_t told_ns;
};
void sl_volume_count_flush(struct sl_volume_count *count, struct sl_volume *volume);

// Adds one request's, or takes it back: `sign` is 1 or -1. What is taken back is told at once:
// where it was what passed the mark, no request of its tenant would come through that tells it
// later.
SL_INLINE void sl_volume_count(struct sl_volume_count *count, struct sl_volume *volume,
			       uint64_t bytes, uint64_t items, unsigned item, int64_t sign,
			       uint64_t now_ns)
{
	const unsigned which[3] = {SL_DIMENSION_BYTES, item, SL_DIMENSION_REQUESTS};
	const int64_t cost[3] = {(int64_t)SL_MIN(bytes, (uint64_t)SL_UNLIMITED / 4), (int64_t)items,
				 1};
	bool tell = sign < 0 || now_ns >= count->told_ns + SL_MS;

	for (unsigned i = 0; i < 3; i++) {
		count->pending[which[i]] += sign * cost[i];
		tell |= count->pending[which[i]] >= volume->step[which[i]];
	}
	if (!tell)
		return;
	count->told_ns = now_ns;
	sl_volume_count_flush(count, volume);
}

// Which dimension of a request with items of `item` is used up; SL_DIMENSIONS: none.
SL_INLINE unsigned sl_volume_over(const struct sl_volume *volume, unsigned item)
{
	const uint32_t over = __atomic_load_n(&volume->over, __ATOMIC_RELAXED) &
			      (1u << SL_DIMENSION_BYTES | 1u << item | 1u << SL_DIMENSION_REQUESTS);

	return SL_LIKELY(!over) ? SL_DIMENSIONS : (unsigned)__builtin_ctz(over);
}
