#pragma once

#include "dataplane/base/metrics.h"
#include "routing/settings.h"

// A failover group: destinations in order of preference. One is in use; when it is not to be had,
// or fails for `after`, the first after it in the order that is takes its place; the more preferred
// ones get it back when they have been to be had for `return_after`, twice as long each time that
// they fail again at once.
//
// Threading: one shard's. Memory: a choice is a plain value; a group lives as long as its shard.
// Time: passed in.
#define SL_FAILOVER_MAX 8 // members

// What a member looks like from outside.
struct sl_failover_member {
	bool available;            // may be offered records now
	bool spools;               // has a spool: takes them all the same, as the last resort
	uint64_t failing_since_ns; // it has only failed since; 0: not
};

struct sl_failover_choice {
	uint32_t current, count;
	uint64_t good_since_ns[SL_FAILOVER_MAX]; // a preferred one that is not in use; 0: not good
	uint32_t relapses[SL_FAILOVER_MAX];
	uint64_t used_since_ns; // the current one
};

// Returns whether the current one changed.
bool sl_failover_choose(struct sl_failover_choice *choice, const struct sl_failover_config *config,
			const struct sl_failover_member *members, uint64_t now_ns);

//      field      kind     name                             labels  help
#define SL_FAILOVER_COUNTERS(X)                                                                    \
	X(away, GAUGE, "sluice_failover_away_shards", none,                                        \
	  "Shards on which a failover group uses another destination than its first.")             \
	X(switches, COUNTER, "sluice_failover_switches", none,                                     \
	  "Times that a shard went over to another destination of the group.")
SL_COUNTERS(failover, SL_FAILOVER_COUNTERS)

// --- on a shard ----------------------------------------------------------------------------------
struct sl_routing;
struct sl_routing_shard;
struct sl_egress;
struct sl_record;
struct sl_failover;

// Gives the group at that place of the snapshot its members; false: not all of them are there yet.
bool sl_failover_bind(struct sl_routing_shard *shard, const struct sl_routing *routing,
		      uint32_t index);
// No group is in the snapshot until it is bound again: nothing moves.
void sl_failover_retire_all(struct sl_routing_shard *shard);
void sl_failover_destroy_all(struct sl_routing_shard *shard);
// Chooses for all groups, before the parts of a batch are planned: those of one request, which come
// in one batch, then all go the same way.
void sl_failover_choose_all(struct sl_routing_shard *shard);
// Where its records go, as chosen last. NULL: retired, or no member is there yet.
struct sl_egress *sl_failover_current(const struct sl_failover *failover);
// Once a turn: chooses and moves what waits at those that were left. Returns when to come again.
uint64_t sl_failover_run(struct sl_routing_shard *shard);
// Sends a record that is neither merged nor with a driver to where its group is now. False: it
// stays.
bool sl_failover_take(struct sl_record *record);
