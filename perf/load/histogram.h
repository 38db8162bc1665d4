#pragma once

#include "dataplane/base/base.h"

// Latencies in logarithmic buckets, 32 a power of two: at most 3 % wide.
//
// Threading: one owner. Memory: plain value. Time: values are ns.
#define SL_LATENCY_BUCKETS 1920

struct sl_latency {
	uint64_t buckets[SL_LATENCY_BUCKETS];
	uint64_t count, max_ns;
	double sum_ns;
};

void sl_latency_add(struct sl_latency *latency, uint64_t value_ns);
// The value at `quantile` (0..1): the upper bound of its bucket; 0 when empty.
uint64_t sl_latency_at(const struct sl_latency *latency, double quantile);
