#pragma once

#include "tenants/fleet/link.h"
#include "tenants/table.h"

// The fleet's quotas of one instance: its tenants' accounts, the Redis they are kept in, and what
// is said between them. It replaces sl_tenants_tick() where quotas hold for many instances (the
// registry says `fleet`). The owner carries the bytes of each link (link.h) and calls the tick.
//
//   pools, leases --tick--> accounts --packed, 256 a call--> link --bytes--> owner's socket
//
// Threading: the quota thread (config/control/quota.h). Memory: 2 KiB a tenant that is awake. Time:
// passed in.
#define SL_FLEET_LINKS_MAX SL_QUOTA_REDIS_MAX

//      field       kind     name                                 labels  help
#define SL_FLEET_COUNTERS(X)                                                                       \
	X(calls, COUNTER, "sluice_fleet_calls", none, "Calls to Redis about quotas.")              \
	X(updates, COUNTER, "sluice_fleet_updates", none,                                          \
	  "Tenants' dimensions settled, up to 256 in a call.")                                     \
	X(lost, COUNTER, "sluice_fleet_lost_calls", none,                                          \
	  "Calls without an answer: what they may have granted is not spent.")                     \
	X(damaged, COUNTER, "sluice_fleet_damaged_answers", none,                                  \
	  "Numbers from Redis that cannot be true, and were not taken.")                           \
	X(mended, COUNTER, "sluice_fleet_mended_fields", none,                                     \
	  "What lay in Redis under our keys was not ours, and was begun anew.")                    \
	X(failures, COUNTER, "sluice_fleet_link_failures", none,                                   \
	  "Connections to Redis that failed or fell silent.")                                      \
	X(down, GAUGE, "sluice_fleet_links_down", none,                                            \
	  "Redis that do not answer: their tenants go on as without_redis says.")                  \
	X(outage, COUNTER, "sluice_fleet_outage_seconds", none,                                    \
	  "Seconds without an answering Redis, added up over all of them.")                        \
	X(volume_calls, COUNTER, "sluice_fleet_volume_calls", none,                                \
	  "Calls to Redis about volumes.")                                                         \
	X(volume_updates, COUNTER, "sluice_fleet_volume_updates", none,                            \
	  "Tenants' dimensions told in them, up to 256 in a call.")                                \
	X(instances, GAUGE, "sluice_fleet_instances", none, "Instances alive, as Redis counts.")   \
	X(awake, GAUGE, "sluice_fleet_awake_tenants", none, "Tenants that are being settled.")
SL_COUNTERS(fleet, SL_FLEET_COUNTERS)

struct sl_fleet_options {
	struct sl_fleet_link_options links[SL_FLEET_LINKS_MAX]; // in the same order everywhere
	uint32_t link_count;
	uint32_t without;   // enum sl_fleet_without
	uint32_t instances; // until Redis has counted; 0: one
	uint64_t seed;
};

struct sl_fleet_tenant {
	struct sl_quota_pool *pool;
	struct sl_bytes name;
	uint32_t home;  // its link
	uint32_t known; // bits: dimensions with an account
	struct sl_fleet_account accounts[SL_DIMENSION_RATES];
};

struct sl_fleet_volumes;

struct sl_fleet {
	struct sl_fleet_link *links;
	struct sl_fleet_volumes *volumes; // by link
	uint32_t link_count;
	uint32_t without, instances;
	struct sl_fleet_tenant **awake;
	uint32_t awake_count, awake_max, first; // first: where the next tick begins
	uint64_t now_ns, counted_ns, outage_ns;
	struct sl_fleet_ask *asks; // of the call that is being made
	struct sl_bytes *fields;
	uint8_t *names;
	struct sl_fleet_counters counters;
};

// NULL when memory is short. `instance` of all links is the same 16 random bytes, drawn at start.
struct sl_fleet *sl_fleet_create(const struct sl_fleet_options *options);
void sl_fleet_destroy(struct sl_fleet *fleet);

// Every SL_QUOTA_TICK_NS: adopts the snapshot's limits, looks at all that are awake, makes calls.
// Before it, sl_fleet_link_tick() of each link; after it, their output is to be written.
void sl_fleet_tick(struct sl_fleet *fleet, const struct sl_tenants *tenants, uint64_t now_ns);
