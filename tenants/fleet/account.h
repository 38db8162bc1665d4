#pragma once

#include "tenants/quota_lease.h"

// One tenant's quota of one dimension, as an instance of the fleet keeps it: how much is asked for
// and when, what may be spent on credit meanwhile, and how to go on when nobody answers.
//
//   shards --draw, borrow--> pool + lease --tick--> ask --(Redis)--> answer --> pool + lease
//
// In the names of tests/sim/fleet/README.md: R the rate, B the burst, N the instances that live,
// D what all of them are offered, q the largest request, s this instance's share of D.
//
// Threading: the quota thread; shards touch pool and lease only. Time: passed in, monotonic.

// What to do while the authority does not answer.
enum sl_fleet_without {
	SL_FLEET_LAST_SHARE, // go on at the last share of the quota
	SL_FLEET_OPEN,       // admit everything
	SL_FLEET_CLOSED,     // admit what was granted before, and nothing else
	SL_FLEET_LIMIT_N,    // the N-th part of the quota
};

// What holds for all accounts at a tick.
struct sl_fleet_terms {
	uint64_t now_ns;
	double instances; // N >= 1
	double rtt_s;     // of calls, smoothed
	double pause_s;   // the shortest pause between two calls for one account
	uint32_t without; // enum sl_fleet_without
};

// One account's part of a call.
struct sl_fleet_ask {
	double owed, give, want; // tokens, whole
	double rate;             // offered here, tokens a second
	double more;             // what to add to D for it
	double floor_s;          // the level that was last seen, in s of R; < 0: none
	double per_s, burst;     // R, B
	bool sliding;            // a window of B tokens in B / R
};

struct sl_fleet_answer {
	double granted, room; // tokens
	double demand;        // D
};

struct sl_fleet_account {
	struct sl_quota_pool *pool;
	enum sl_dimension dimension;
	struct sl_limit limit;
	bool sliding; // a window of that burst; the owner's, like `limit`
	bool known;   // has been answered

	// As answered.
	double room, demand, usual; // usual: D, smoothed
	uint64_t answered_ns;

	// As offered.
	int64_t base, refused; // of pool and lease, at the last look
	uint64_t born_ns, ticked_ns, active_ns;
	double rate, fast;            // tokens a second: smoothed, and over the last few requests
	double largest, next_largest; // q
	double slow_rate, slow_demand;
	double counted; // tokens since counted_ns
	uint64_t counted_ns, largest_ns;
	double share;
	uint64_t hot_until_ns, woke_ns, returned_ns;

	// The plan of the last tick.
	bool woken, postpaid, quiet;
	double target, want;

	// Calls.
	bool asking, asleep, unsettled; // unsettled: has spent without an authority
	uint64_t asked_ns;
	int64_t owed, wanted, gave;
	int64_t credit; // as last set
	double told_rate;
	uint64_t told_ns;

	// Without an authority.
	bool cut;
	double own_share, fraction;
	uint64_t filled_ns;
};

// The first time: what the pool holds is taken back, the fleet decides.
void sl_fleet_account_init(struct sl_fleet_account *account, struct sl_quota_pool *pool,
			   enum sl_dimension dimension, const struct sl_limit *limit,
			   const struct sl_fleet_terms *terms);
// The quota thread's look, every SL_QUOTA_TICK_NS. Returns whether a call is due.
bool sl_fleet_account_tick(struct sl_fleet_account *account, const struct sl_fleet_terms *terms);
// Makes this account's part of a call and regards it as sent.
void sl_fleet_account_ask(struct sl_fleet_account *account, const struct sl_fleet_terms *terms,
			  struct sl_fleet_ask *ask);
void sl_fleet_account_answer(struct sl_fleet_account *account, const struct sl_fleet_terms *terms,
			     const struct sl_fleet_answer *answer);
// The call is lost: it may have been heard or not. What is owed stays owed, what was given back is
// not spent again, and what it may have granted is nobody's.
void sl_fleet_account_lose(struct sl_fleet_account *account);
// The call was certainly not heard: what was given back is still here.
void sl_fleet_account_undo(struct sl_fleet_account *account);
// No authority from here on, until the next answer.
void sl_fleet_account_cut(struct sl_fleet_account *account, const struct sl_fleet_terms *terms);
