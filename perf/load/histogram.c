#include "perf/load/histogram.h"

// Values below 32 have a bucket each; above, the top six bits choose.
static unsigned bucket_of(uint64_t value)
{
	if (value < 32)
		return (unsigned)value;

	const unsigned top = 63 - (unsigned)__builtin_clzl(value);

	return (top - 4) * 32 + (unsigned)((value >> (top - 5)) & 31);
}

static uint64_t upper_bound(unsigned bucket)
{
	if (bucket < 32)
		return bucket;

	const unsigned top = bucket / 32 + 4;

	return (((uint64_t)(bucket % 32) + 33) << (top - 5)) - 1;
}

void sl_latency_add(struct sl_latency *latency, uint64_t value_ns)
{
	latency->buckets[bucket_of(value_ns)]++;
	latency->count++;
	latency->sum_ns += (double)value_ns;
	if (value_ns > latency->max_ns)
		latency->max_ns = value_ns;
}

uint64_t sl_latency_at(const struct sl_latency *latency, double quantile)
{
	const double want = quantile * (double)latency->count;
	uint64_t seen = 0;

	for (unsigned i = 0; i < SL_LATENCY_BUCKETS; i++) {
		seen += latency->buckets[i];
		if (latency->buckets[i] && (double)seen >= want)
			return SL_MIN(upper_bound(i), latency->max_ns);
	}
	return 0;
}
