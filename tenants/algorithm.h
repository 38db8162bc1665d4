#pragma once

#include "tenants/quota_pool.h"

// What an algorithm decides about a rate; pools, chunks and a request's way are the same for all.
//
//                   at which level of the pool    an admitted one      the authority's tick
//                   a request is admitted         is held              adds
//   token bucket    its cost, half a burst most   never                rate * elapsed, to the burst
//   leaky           -rate * delay_max             level below 0, as    the same; its burst is two
//                                                 time at the rate     ticks' worth
//   sliding window  as token bucket, of `limit`   never                before * elapsed / window
//
// Leaky bucket. The pool below 0 is the queue: a request takes its cost at once, and leaves when
// what was before it has leaked out. So requests leave at the rate, one after the other, whichever
// shard they came to, and none waits for more than delay_max; one that would have to is refused
// with the time after which it would not.
//
//   left(W) <= R * (W + 2T) + q                           T = SL_QUOTA_TICK_NS, q the largest
//
// Sliding window. Of `limit` = rate * window tokens, those of the window before the present one
// count by the part of it that a window ending now still covers, as if they had come evenly:
//
//   count(now) = present + before * (1 - f)               f: the part of the present that is over
//
// The error against an exact log of the last window: with e of the `before` tokens really in it,
// count - exact = before * (1 - f) - e, so it lies within [-f * before, (1 - f) * before], and is 0
// for an even stream. As a bucket, it is one of size `limit` that refills at the rate at which the
// window before was spent, and that is at most `limit` a window (a request larger than half of it,
// and what shards hold, aside):
//
//   admitted(W) <= limit * (1 + W / window) + max(0, q - limit / 2) + R * 3T
//
// Around a boundary there are no two limits: what is admitted shortly after one is what has
// slid out by then.
//
// Threading: fill: the quota thread; the others: shards. Time: passed in, monotonic.
struct sl_quota_window {
	uint64_t number, window_ns; // the present window, and how long windows are
	double present[SL_DIMENSION_RATES], before[SL_DIMENSION_RATES];
	int64_t level[SL_DIMENSION_RATES]; // what the last fill left, of dimensions that are
					   // `known`
	uint32_t known;                    // bits
};

// A limit of `per_s` (0: none) as the algorithm wants it.
struct sl_limit sl_algorithm_limit(enum sl_algorithm algorithm, double per_s, uint64_t burst_ns,
				   uint64_t window_ns);

// The level of the pool from which a request is admitted whose shard has `own` of its `cost`. In a
// fleet all of the cost must be there: going into debt is borrowing, which has bounds of its own.
SL_INLINE int64_t sl_algorithm_need(const struct sl_limits *limits, unsigned dimension, int64_t own,
				    int64_t cost, bool leased)
{
	const struct sl_limit *limit = &limits->dimensions[dimension];

	if (dimension >= SL_DIMENSION_RATES)
		return sl_limit_need(limit, cost) - own;
	if (SL_UNLIKELY(limits->algorithm == SL_ALGORITHM_LEAKY))
		return -(int64_t)(limit->per_s * ((double)limits->delay_max_ns / (double)SL_S));
	return (leased ? cost : sl_limit_need(limit, cost)) - own;
}

// How long a request is held that the pool has admitted at `level`.
SL_INLINE uint64_t sl_algorithm_delay_ns(const struct sl_limits *limits, unsigned dimension,
					 int64_t level)
{
	if (SL_LIKELY(limits->algorithm != SL_ALGORITHM_LEAKY || level >= 0 ||
		      dimension >= SL_DIMENSION_RATES))
		return 0;
	return (uint64_t)((double)-level / limits->dimensions[dimension].per_s * (double)SL_S);
}

// When a pool that lacks `missing` tokens of a rate will have them, in ns from now.
double sl_algorithm_wait_ns(const struct sl_limits *limits, const struct sl_quota_pool *pool,
			    unsigned dimension, int64_t missing, uint64_t now_ns);

// Turns the time since the last fill into tokens. Returns true when every limited rate is full: the
// pool may sleep.
bool sl_algorithm_fill(struct sl_quota_pool *pool, const struct sl_limits *limits, uint64_t now_ns);
