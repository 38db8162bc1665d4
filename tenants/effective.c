#include "tenants/algorithm.h"
#include "tenants/table.h"

// What a tenant's limits are, of what its class and its own entry say.

static struct sl_limit rate_of(const struct sl_quota_config *quota, double per_s)
{
	return sl_algorithm_limit(quota->algorithm, per_s, quota->burst_ns, quota->window_ns);
}

static struct sl_volume_limits volume_of(const struct sl_volume_config *volume)
{
	struct sl_volume_limits limits = {
		.hard = {(int64_t)volume->bytes, (int64_t)volume->spans, (int64_t)volume->points,
			 (int64_t)volume->log_records, (int64_t)volume->requests},
		.soft = volume->soft,
		.per = (uint8_t)volume->per,
	};

	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
		limits.is_set |= limits.hard[i] > 0;
	return limits;
}

struct sl_limits sl_tenants_limits(const struct sl_class_config *of_class,
				   const struct sl_tenant_config *own, bool observe)
{
	static const struct sl_quota_config nothing = {
		.burst_ns = SL_S,
		.window_ns = 10 * SL_S,
		.delay_max_ns = SL_S / 2,
		.volume = {.per = SL_VOLUME_MONTH, .soft = 0.8},
	};
	struct sl_quota_config quota = of_class ? of_class->quota : nothing;
	struct sl_trim_config trim = of_class ? of_class->trim : (struct sl_trim_config){0};

	if (own && own->quota)
		sl_settings_override(&sl_quota_settings, &quota, own->quota);
	if (own && own->trim)
		sl_settings_override(&sl_trim_settings, &trim, own->trim);
	return (struct sl_limits){
		.dimensions =
			{
				rate_of(&quota, quota.bytes),
				rate_of(&quota, quota.spans),
				rate_of(&quota, quota.points),
				rate_of(&quota, quota.log_records),
				rate_of(&quota, quota.requests),
				sl_limit_in_flight(quota.in_flight_bytes),
				sl_limit_in_flight(quota.in_flight_requests),
			},
		.delay_max_ns = quota.delay_max_ns,
		.window_ns = quota.window_ns,
		.volume = volume_of(&quota.volume),
		.trim = sl_trim_limits(&trim, observe),
		.algorithm = (uint8_t)quota.algorithm,
		.cut = quota.excess == SL_EXCESS_CUT,
		.observe = quota.has.mode ? quota.mode == SL_QUOTA_OBSERVE : observe,
	};
}

void sl_tenants_check_quota(const struct sl_quota_config *own, const struct sl_limits *limits,
			    const char *what, const struct sl_where *where,
			    struct sl_errors *errors)
{
	if (own->has.delay_max && limits->algorithm != SL_ALGORITHM_LEAKY)
		sl_errors_add(errors, where, "%s: delay_max is of algorithm: leaky", what);
	if (own->has.window && limits->algorithm != SL_ALGORITHM_SLIDING_WINDOW)
		sl_errors_add(errors, where, "%s: window is of algorithm: sliding_window", what);
	if ((own->volume.has.per || own->volume.has.soft) && !limits->volume.is_set)
		sl_errors_add(errors, where, "%s: a volume of nothing: say how many bytes or items",
			      what);
}
