#include "tenants/shard.h"

#include <stdio.h>

#include "dataplane/base/clock.h"
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

// How many refusals of that tenant by that limit to tell now; 0: none.
static uint64_t count_of(struct sl_tenants_shard *self, sl_tenant_id tenant, unsigned limit)
{
	const uint64_t key = (uint64_t)tenant << 8 | limit;
	const uint64_t place = (key * 0x9e3779b97f4a7c15u) >> 58;

	static_assert(SL_COUNT_OF(self->told) == 64, "as many as the shift leaves");
	if (sl_log_get_level() > SL_LOG_WARN)
		return 0;
	if (self->told[place].key != key) {
		memset(&self->told[place], 0, sizeof(self->told[place]));
		self->told[place].key = key;
	}
	return sl_log_spell_more(&self->told[place].spell, sl_clock_now_ns());
}

static struct sl_bytes explain_volume(struct sl_tenants_shard *self,
				      const struct sl_tenant_entry *entry, struct sl_bytes name,
				      unsigned dimension, uint64_t count, struct sl_arena *arena)
{
	const struct sl_volume_limits *volume = &entry->limits->volume;
	const char *per = volume->per == SL_VOLUME_DAY ? "day" : "month";
	char text[SL_TENANT_NAME_MAX + 96];
	const int size = snprintf(text, sizeof(text),
				  "Tenant %.*s has used up its volume of %lld %s a %s.",
				  (int)name.size, (const char *)name.data,
				  (long long)volume->hard[dimension], things[dimension], per);

	if (count)
		sl_log_write(&self->refusals, SL_LOG_WARN, "volume_exceeded",
			     "tenant=%.*s volume=%s per=%s hard=%lld count=%llu", (int)name.size,
			     (const char *)name.data, sl_label_dimension.values[dimension], per,
			     (long long)volume->hard[dimension], (unsigned long long)count);
	return sl_arena_copy(arena, sl_bytes(text, (size_t)size));
}

struct sl_bytes sl_tenants_explain(struct sl_tenants_shard *self, sl_tenant_id tenant,
				   struct sl_bytes name, uint8_t dimension, struct sl_arena *arena)
{
	const struct sl_tenant_entry *entry = &self->tenants->entries[tenant];
	const struct sl_limit *limit;
	char text[SL_TENANT_NAME_MAX + 96];
	double quota;
	uint64_t count;
	int size;

	if (!entry->limits)
		return SL_BYTES_NONE; // gone with a reload
	count = count_of(self, tenant, dimension);
	if (dimension >= SL_TENANTS_LIMIT_VOLUME)
		return explain_volume(self, entry, name, dimension - SL_TENANTS_LIMIT_VOLUME, count,
				      arena);
	limit = &entry->limits->dimensions[dimension];
	quota = limit->per_s > 0 ? limit->per_s : (double)limit->burst;
	size = snprintf(text, sizeof(text), "Tenant %.*s is over its quota of %.15g %s.",
			(int)name.size, (const char *)name.data, quota, units[dimension]);
	if (count)
		sl_log_write(&self->refusals, SL_LOG_WARN, "quota_exceeded",
			     "tenant=%.*s limit=%s quota=%.15g count=%llu", (int)name.size,
			     (const char *)name.data, sl_label_dimension.values[dimension], quota,
			     (unsigned long long)count);
	return sl_arena_copy(arena, sl_bytes(text, (size_t)size));
}
