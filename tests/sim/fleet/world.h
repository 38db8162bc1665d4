#pragma once

#include "tests/sim/fleet/bucket.h"

// A fleet in virtual time: instances with the real shards' quota stage, pools, leases, accounts,
// links and bytes; a network with a round trip; a Redis that is a twin of the script. Load comes
// as Poisson streams, one a shard.

enum skew { EVEN, THREE_ONE, ONE_MOVES };
enum fault {
	NONE,
	CRASH,       // instance 0 dies with all it held, others take its load; back after a while
	EMPTIED,     // Redis restarts without its data
	GONE,        // nobody listens for 5 s
	GONE_MOVING, // and load moves meanwhile
	PAUSED,      // Redis reads nothing for 2 s, then all that was sent
	LOSSY,       // connections are cut every now and then, calls under way vanish or not
};

struct scenario {
	const char *name;
	uint32_t instances, shards;
	double per_s;     // R
	double burst_s;   // B / R
	uint32_t request; // q
	double load;      // of R
	double rtt_ms;
	enum skew skew;
	enum fault fault;
	double seconds;
	uint32_t without;            // enum sl_fleet_without
	double volume_s;             // the volume of a day, in s of R; 0: none
	double midnight_s;           // when a day ends; 0: far away
	enum sl_algorithm algorithm; // a window of burst_s
};

#define FAULT_AT_S  12.0
#define FAULT_FOR_S 5.0
#define WARM_S      4.0

struct outcome {
	double over_10s,
		under_10s; // largest deviations over any 10 s after warming up, in parts of R
	double over_1s, under_1s;
	double over_fault, under_fault; // any 10 s that touch the fault
	double excess;                  // max of admitted(W) - R W - B over all W, in s of R
	double refused;                 // part of what was offered, after warming up
	double ideal_refused;           // by one bucket for all, without any delay
	double updates_per_s;
	double volume_over;          // admitted beyond the volumes there were, in s of R
	double volume_updates_per_s; // while there is volume left, about
	uint64_t requests;
};

void simulate(const struct scenario *scenario, uint64_t seed, struct outcome *outcome);
