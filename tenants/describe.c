#include "tenants/table.h"

#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/clock.h"

static void print_volume(FILE *out, const struct sl_tenant_entry *entry)
{
	const struct sl_volume_limits *limits = &entry->limits->volume;
	int64_t used[SL_DIMENSION_RATES];

	sl_volume_used(entry->pool->volume, used);
	fprintf(out, ",\"volume\":{\"per\":\"%s\",\"soft\":%.15g",
		limits->per == SL_VOLUME_DAY ? "day" : "month", limits->soft);
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
		if (limits->hard[i])
			fprintf(out, ",\"%s\":{\"used\":%lld,\"hard\":%lld}",
				sl_label_dimension.values[i], (long long)SL_MAX(used[i], 0),
				(long long)limits->hard[i]);
	fputc('}', out);
}

static void print_trim(FILE *out, const struct sl_tenant_entry *entry)
{
	const struct sl_trim_limits *limits = &entry->limits->trim;
	const struct sl_trim_counts *counts = entry->pool->trimmed;
	const struct {
		const char *name;
		uint32_t most;
	} rows[] = {
		{"attributes", limits->attributes},
		{"resource_attributes", limits->resource_attributes},
		{"scope_attributes", limits->scope_attributes},
		{"value", limits->value_bytes},
		{"name", limits->name_bytes},
		{"body", limits->body_bytes},
	};

	fprintf(out, ",\"limits\":{\"mode\":\"%s\"", limits->observe ? "observe" : "enforce");
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++)
		if (rows[i].most)
			fprintf(out, ",\"%s\":%u", rows[i].name, rows[i].most);
	fprintf(out,
		",\"points\":%s,\"dropped_attributes\":%llu,\"cut_values\":%llu,"
		"\"observed\":%llu}",
		limits->points ? "true" : "false",
		(unsigned long long)__atomic_load_n(&counts->attributes, __ATOMIC_RELAXED),
		(unsigned long long)__atomic_load_n(&counts->values, __ATOMIC_RELAXED),
		(unsigned long long)__atomic_load_n(&counts->observed, __ATOMIC_RELAXED));
}

// Names of tenants and classes are made of characters that JSON takes as they are.
char *sl_tenants_describe(const struct sl_tenants *tenants, sl_tenant_id tenant)
{
	struct sl_tenant_info info;
	char *text = NULL;
	size_t size;
	FILE *out;

	if (!sl_tenants_info(tenants, tenant, &info))
		return NULL;
	out = open_memstream(&text, &size);
	if (!out)
		return NULL;

	const struct sl_tenant_entry *entry = &tenants->entries[tenant];

	fprintf(out, "{\"tenant\":\"%.*s\",\"suspended\":%s", (int)info.name.size,
		(const char *)info.name.data, info.suspended ? "true" : "false");
	if (entry->created)
		fprintf(out, ",\"created\":true");
	if (info.class_name.size)
		fprintf(out, ",\"class\":\"%s\",\"priority\":%llu",
			(const char *)info.class_name.data,
			(unsigned long long)tenants->classes[entry->class_index].config.priority);
	if (info.class_name.size && tenants->classes[entry->class_index].extends != UINT16_MAX)
		fprintf(out, ",\"extends\":\"%s\"",
			tenants->classes[tenants->classes[entry->class_index].extends].name);
	if (info.body_bytes_max)
		fprintf(out, ",\"body\":%llu", (unsigned long long)info.body_bytes_max);
	fprintf(out, ",\"mode\":\"%s\"", entry->limits->observe ? "observe" : "enforce");
	if (entry->limits->algorithm == SL_ALGORITHM_LEAKY)
		fprintf(out, ",\"algorithm\":\"leaky\",\"delay_max_seconds\":%.15g",
			(double)entry->limits->delay_max_ns / (double)SL_S);
	else if (entry->limits->algorithm == SL_ALGORITHM_SLIDING_WINDOW)
		fprintf(out, ",\"algorithm\":\"sliding_window\",\"window_seconds\":%.15g",
			(double)entry->limits->window_ns / (double)SL_S);
	if (entry->limits->cut)
		fputs(",\"excess\":\"cut\"", out);
	fputs(",\"quota\":{", out);
	for (unsigned i = 0, printed = 0; i < SL_DIMENSIONS; i++) {
		const struct sl_limit *limit = &entry->limits->dimensions[i];
		const long long level = (long long)sl_quota_pool_level(entry->pool, i);

		if (!sl_limit_is_set(limit))
			continue;
		fprintf(out, "%s\"%s\":{", printed++ ? "," : "", sl_label_dimension.values[i]);
		if (limit->per_s > 0)
			fprintf(out, "\"per_second\":%.15g,\"burst\":%lld,\"level\":%lld}",
				limit->per_s, (long long)limit->burst, level);
		else
			fprintf(out, "\"limit\":%lld,\"free\":%lld}", (long long)limit->burst,
				level);
	}
	fputc('}', out);
	if (entry->limits->volume.is_set)
		print_volume(out, entry);
	if (entry->limits->trim.is_set)
		print_trim(out, entry);
	if (tenants->cardinality && tenants->cardinality[tenant]) {
		fputs(",\"cardinality\":", out);
		sl_cardinality_describe(tenants->cardinality[tenant], sl_clock_now_ns(), out);
	}
	fprintf(out, ",\"refused_requests\":%llu}",
		(unsigned long long)__atomic_load_n(&entry->pool->refused_requests,
						    __ATOMIC_RELAXED));
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}
