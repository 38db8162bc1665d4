#include "tenants/shard.h"

#include <stdio.h>

#include "dataplane/base/log.h"

// What a client that is over its tenant's limits is told, and what the log says of it.

static const char *const units[SL_DIMENSIONS] = {
	[SL_DIMENSION_BYTES] = "bytes a second",
	[SL_DIMENSION_SPANS] = "spans a second",
	[SL_DIMENSION_POINTS] = "data points a second",
	[SL_DIMENSION_LOG_RECORDS] = "log records a second",
	[SL_DIMENSION_REQUESTS] = "requests a second",
	[SL_DIMENSION_IN_FLIGHT_BYTES] = "bytes in flight",
	[SL_DIMENSION_IN_FLIGHT_REQUESTS] = "requests in flight",
};

uint8_t sl_tenants_last_limit(const struct sl_tenants_shard *self)
{
	return self->refused_dimension;
}

static const char *const things[SL_DIMENSION_RATES] = {
	[SL_DIMENSION_BYTES] = "bytes",        [SL_DIMENSION_SPANS] = "spans",
	[SL_DIMENSION_POINTS] = "data points", [SL_DIMENSION_LOG_RECORDS] = "log records",
	[SL_DIMENSION_REQUESTS] = "requests",
};

static struct sl_bytes explain_volume(struct sl_tenants_shard *self,
				      const struct sl_tenant_entry *entry, struct sl_bytes name,
				      unsigned dimension, struct sl_arena *arena)
{
	const struct sl_volume_limits *volume = &entry->limits->volume;
	const char *per = volume->per == SL_VOLUME_DAY ? "day" : "month";
	char text[SL_TENANT_NAME_MAX + 96];
	const int size = snprintf(text, sizeof(text),
				  "Tenant %.*s has used up its volume of %lld %s a %s.",
				  (int)name.size, (const char *)name.data,
				  (long long)volume->hard[dimension], things[dimension], per);

	if (sl_log_get_level() <= SL_LOG_WARN)
		sl_log_write(&self->refusals, SL_LOG_WARN, "volume_exceeded",
			     "tenant=%.*s volume=%s per=%s hard=%lld", (int)name.size,
			     (const char *)name.data, sl_label_dimension.values[dimension], per,
			     (long long)volume->hard[dimension]);
	return sl_arena_copy(arena, sl_bytes(text, (size_t)size));
}

struct sl_bytes sl_tenants_explain(struct sl_tenants_shard *self, sl_tenant_id tenant,
				   struct sl_bytes name, uint8_t dimension, struct sl_arena *arena)
{
	const struct sl_tenant_entry *entry = &self->tenants->entries[tenant];
	const struct sl_limit *limit;
	char text[SL_TENANT_NAME_MAX + 96];
	double quota;
	int size;

	if (!entry->limits)
		return SL_BYTES_NONE; // gone with a reload
	if (dimension >= SL_TENANTS_LIMIT_VOLUME)
		return explain_volume(self, entry, name, dimension - SL_TENANTS_LIMIT_VOLUME,
				      arena);
	limit = &entry->limits->dimensions[dimension];
	quota = limit->per_s > 0 ? limit->per_s : (double)limit->burst;
	size = snprintf(text, sizeof(text), "Tenant %.*s is over its quota of %.15g %s.",
			(int)name.size, (const char *)name.data, quota, units[dimension]);
	if (sl_log_get_level() <= SL_LOG_WARN)
		sl_log_write(&self->refusals, SL_LOG_WARN, "quota_exceeded",
			     "tenant=%.*s limit=%s quota=%.15g", (int)name.size,
			     (const char *)name.data, sl_label_dimension.values[dimension], quota);
	return sl_arena_copy(arena, sl_bytes(text, (size_t)size));
}
