#include "tenants/limits.h"

#include <math.h>

static const char *const dimension_names[SL_DIMENSIONS] = {
	"bytes",
	"spans",
	"points",
	"log_records",
	"requests",
	"in_flight_bytes",
	"in_flight_requests",
};
const struct sl_label sl_label_dimension = {"dimension", dimension_names, SL_DIMENSIONS};

#define NONE                                                                                       \
	{                                                                                          \
		.burst = SL_UNLIMITED                                                              \
	}
const struct sl_limits sl_limits_none = {
	.dimensions = {NONE, NONE, NONE, NONE, NONE, NONE, NONE},
};

struct sl_limit sl_limit_rate(double per_s, uint64_t burst_ns)
{
	struct sl_limit limit = NONE;

	if (per_s <= 0)
		return limit;

	const double burst = ceil(per_s * ((double)burst_ns / (double)SL_S));

	limit.per_s = per_s;
	// The largest set limit stays below SL_UNLIMITED, which means that there is none.
	limit.burst = burst < 1                             ? 1
		      : burst >= (double)(SL_UNLIMITED / 2) ? SL_UNLIMITED / 2
							    : (int64_t)burst;
	return limit;
}

struct sl_limit sl_limit_in_flight(uint64_t most)
{
	return (struct sl_limit){.burst = most == 0 ? SL_UNLIMITED
						    : (int64_t)SL_MIN(most, SL_UNLIMITED / 2)};
}
