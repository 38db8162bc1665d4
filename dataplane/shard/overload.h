#pragma once

#include "dataplane/base/base.h"

// What a shard does when it has more to do than it can: it climbs, a step at a time, and comes back
// the same way once it is calm. With R ranks of tenants (by priority, 0 the lowest) and H halvings:
//
//   step 1 ... H        rank 0 is sampled at 1/2 ... 1/2^H of its rate
//   ... R*H             then rank 1, and so on up to the highest
//   R*H + 1 ...         rank 0 is refused from the headers, then rank 1; the highest never is
//
// Sampling rewrites thresholds, so that counts made from what is kept stay right.
//
// Threading: plain value of one shard. Memory: none. Time: passed in.
struct sl_overload_limits {
	bool on;
	double busy, memory; // shares, 0..1: above either it climbs
	double calm;         // below this share of both it comes down
	uint64_t after_ns;   // how long above (or below) before each step
	uint32_t halvings;   // H, at most SL_SAMPLING_THINNINGS
	bool refuse;         // whether the last steps are taken
};

struct sl_overload {
	uint32_t step;
	uint64_t above_since_ns, below_since_ns; // 0: not now
};

// Tells the shares that were measured since the last call. Returns whether the step changed.
bool sl_overload_observe(struct sl_overload *overload, const struct sl_overload_limits *limits,
			 uint32_t ranks, double busy, double memory, uint64_t now_ns);

// How often the rate of a rank is halved at the present step.
uint32_t sl_overload_thinning(const struct sl_overload *overload,
			      const struct sl_overload_limits *limits, uint32_t rank);

// Whether calls of the rank are refused.
bool sl_overload_refuses(const struct sl_overload *overload,
			 const struct sl_overload_limits *limits, uint32_t ranks, uint32_t rank);
