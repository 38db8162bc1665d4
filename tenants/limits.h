#pragma once

#include "dataplane/base/metrics.h"
#include "tenants/cardinality/trim.h"

// What a tenant may do: a sustained rate and a burst for each dimension, and what it may have in
// flight. Plain values of a snapshot; tenants of a class without overrides share one.
//
// Threading: read-only once built.
enum sl_dimension {
	SL_DIMENSION_BYTES, // inflated body bytes
	SL_DIMENSION_SPANS, // the items of the three signals, in the order of enum sl_signal
	SL_DIMENSION_POINTS,
	SL_DIMENSION_LOG_RECORDS,
	SL_DIMENSION_REQUESTS,
	SL_DIMENSION_IN_FLIGHT_BYTES, // not refilled by time: given back
	SL_DIMENSION_IN_FLIGHT_REQUESTS,
};
#define SL_DIMENSION_RATES 5
#define SL_DIMENSIONS      7
extern const struct sl_label sl_label_dimension;
#define SL_LABEL_COUNT_dimension SL_DIMENSIONS

// More than anything will ever spend, and far from where int64_t ends.
#define SL_UNLIMITED (INT64_C(1) << 60)

// Of a dimension in flight `per_s` is 0 and `burst` is the limit.
struct sl_limit {
	double per_s;  // tokens a second; 1 an hour ... 100 GiB a second
	int64_t burst; // what a full bucket holds, >= 1; SL_UNLIMITED: no limit
};

// How rates are held to (algorithm.h).
enum sl_algorithm {
	SL_ALGORITHM_TOKEN_BUCKET,
	SL_ALGORITHM_LEAKY,
	SL_ALGORITHM_SLIDING_WINDOW,
};

// What may be sent in a period (volume.h), beside the rates.
enum sl_volume_per { SL_VOLUME_DAY, SL_VOLUME_MONTH };

struct sl_volume_limits {
	int64_t hard[SL_DIMENSION_RATES]; // 0: none
	double soft;                      // part of `hard` at which it is told
	uint8_t per;                      // enum sl_volume_per
	bool is_set;
};

struct sl_limits {
	struct sl_limit dimensions[SL_DIMENSIONS];
	uint64_t delay_max_ns; // leaky: how long a request may be held
	uint64_t window_ns;    // sliding window
	struct sl_volume_limits volume;
	struct sl_trim_limits trim; // of attributes and sizes
	uint8_t algorithm;          // enum sl_algorithm
	bool observe;               // count what would be refused, refuse nothing
	bool cut;                   // admit the items that fit, lose the others
};

extern const struct sl_limits sl_limits_none;

// A limit of `per_s` (0: none) with a burst of `burst_ns` worth of it, at least one token.
struct sl_limit sl_limit_rate(double per_s, uint64_t burst_ns);
// How long an empty bucket takes to fill: the burst as time, the window of a sliding one.
SL_INLINE uint64_t sl_limit_fill_ns(const struct sl_limit *limit)
{
	return (uint64_t)((double)limit->burst / limit->per_s * (double)SL_S);
}

// A limit on what is in flight (0: none).
struct sl_limit sl_limit_in_flight(uint64_t most);

SL_INLINE bool sl_limit_is_set(const struct sl_limit *limit)
{
	return limit->burst < SL_UNLIMITED;
}

// The level at which a request of `cost` is admitted: its cost, but never more than half of the
// burst (all of it, of what is in flight). So a request larger than the burst goes into debt
// instead of waiting for a level that traffic beside it may never let come.
SL_INLINE int64_t sl_limit_need(const struct sl_limit *limit, int64_t cost)
{
	const int64_t most = limit->per_s > 0 ? (limit->burst + 1) / 2 : limit->burst;

	return SL_MIN(cost, most);
}
