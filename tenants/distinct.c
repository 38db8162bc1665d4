#include <errno.h>
#include <stdlib.h>

#include "tenants/cardinality/cut.h"
#include "tenants/shard.h"

// Limits on different values: a snapshot's; and the stage that holds parts to them and to the
// limits on attributes and sizes.

static const struct sl_list *configs_of(const struct sl_tenants *tenants,
					const struct sl_tenant_config *from, sl_tenant_id tenant)
{
	const uint16_t class_index = tenants->entries[tenant].class_index;

	if (from->has_cardinality)
		return &from->cardinality;
	return class_index == UINT16_MAX ? NULL : &tenants->classes[class_index].config.cardinality;
}

static int add(struct sl_tenants *tenants, const struct sl_tenant_config *from,
	       const struct sl_tenants *before, struct sl_errors *errors)
{
	const struct sl_cardinality *known = NULL;
	const struct sl_list *configs;
	sl_tenant_id tenant;

	if (!sl_tenants_find(tenants, sl_bytes_of(from->name), &tenant))
		return 0; // told already
	configs = configs_of(tenants, from, tenant);
	if (!configs || !configs->count)
		return 0;
	if (configs->count > SL_CARDINALITY_RULES_MAX) {
		sl_errors_add(errors, &from->where, "tenant %s: cardinality: at most %d limits",
			      from->name, SL_CARDINALITY_RULES_MAX);
		return 0;
	}
	if (!tenants->cardinality)
		tenants->cardinality = calloc(tenants->entry_count,
					      sizeof(struct sl_cardinality *));
	if (!tenants->cardinality)
		return -ENOMEM;
	if (before && before->cardinality && tenant < before->entry_count)
		known = before->cardinality[tenant];
	if (!tenants->cardinality[tenant])
		tenants->cardinality[tenant] = sl_cardinality_create(
			configs, known, &tenants->cardinality_bytes, NULL);
	return tenants->cardinality[tenant] ? 0 : -ENOMEM;
}

// Of all that the template makes: in one mapping a limit, however many there may be.
static int add_made(struct sl_tenants *tenants, const struct sl_tenants *before,
		    struct sl_distinct_block *blocks)
{
	const struct sl_created *created = tenants->created;
	const struct sl_tenant_class *class = sl_tenants_template(tenants);
	const struct sl_list *configs = class ? &class->config.cardinality : NULL;

	if (!configs || !configs->count || configs->count > SL_CARDINALITY_RULES_MAX)
		return 0;
	if (!tenants->cardinality)
		tenants->cardinality = calloc(tenants->entry_count,
					      sizeof(struct sl_cardinality *));
	if (!tenants->cardinality)
		return -ENOMEM;
	for (size_t i = 0; i < configs->count; i++)
		blocks[i] = (struct sl_distinct_block){.most = created->seat_count};
	for (uint32_t i = 0; i < created->seat_count; i++) {
		const sl_tenant_id tenant = created->seats[i].tenant;
		const struct sl_cardinality *known = NULL;

		if (before && before->cardinality && tenant < before->entry_count)
			known = before->cardinality[tenant];
		tenants->cardinality[tenant] = sl_cardinality_create(
			configs, known, &tenants->cardinality_bytes, blocks);
		if (!tenants->cardinality[tenant])
			return -ENOMEM;
	}
	return 0;
}

int sl_tenants_build_cardinality(struct sl_tenants *tenants,
				 const struct sl_tenants_file *const *files, uint32_t count,
				 const struct sl_quotas_config *config,
				 const struct sl_tenants *before, struct sl_errors *errors)
{
	struct sl_distinct_block blocks[SL_CARDINALITY_RULES_MAX] = {0};
	int error = add_made(tenants, before, blocks);

	for (unsigned i = 0; i < SL_CARDINALITY_RULES_MAX; i++)
		sl_distinct_block_end(&blocks[i]);
	for (uint32_t i = 0; i < count; i++) {
		const struct sl_tenant_config *from = files[i]->tenants.items;

		for (size_t j = 0; j < files[i]->tenants.count && !error; j++)
			error = add(tenants, &from[j], before, errors);
	}
	if (config->cardinality_bytes && tenants->cardinality_bytes > config->cardinality_bytes)
		sl_errors_add(
			errors, &config->where,
			"cardinality_memory: limits of all tenants may take %llu MiB together, "
			"more than its %llu MiB; raise it or lower limits",
			(unsigned long long)(tenants->cardinality_bytes / SL_MIB + 1),
			(unsigned long long)(config->cardinality_bytes / SL_MIB));
	return error;
}

void sl_tenants_destroy_cardinality(struct sl_tenants *tenants)
{
	for (uint32_t i = 0; tenants->cardinality && i < tenants->entry_count; i++)
		sl_cardinality_destroy(tenants->cardinality[i]);
	free(tenants->cardinality);
}

static void tell_trimmed(struct sl_tenants_shard *self, const struct sl_part *part,
			 const struct sl_trim_counts *counts)
{
	struct sl_trim_counts *of_tenant = self->tenants->entries[part->tenant].pool->trimmed;
	const enum sl_signal signal = part->request->signal;

	if (SL_LIKELY(!counts->attributes && !counts->values && !counts->observed))
		return;
	sl_count(&self->counters.attributes_dropped[signal], counts->attributes);
	sl_count(&self->counters.values_cut[signal], counts->values);
	sl_count(&self->counters.limits_observed[signal], counts->observed);
	__atomic_fetch_add(&of_tenant->attributes, counts->attributes, __ATOMIC_RELAXED);
	__atomic_fetch_add(&of_tenant->values, counts->values, __ATOMIC_RELAXED);
	__atomic_fetch_add(&of_tenant->observed, counts->observed, __ATOMIC_RELAXED);
}

static bool hold_to_limits(struct sl_tenants_shard *self, struct sl_part *part)
{
	const struct sl_tenants *tenants = self->tenants;
	const struct sl_trim_limits *trim = &sl_tenants_limits_of(tenants, part->tenant)->trim;
	const struct sl_cardinality *cardinality = tenants->cardinality
							   ? tenants->cardinality[part->tenant]
							   : NULL;
	const enum sl_signal signal = part->request->signal;
	struct sl_cardinality_counts counts;
	bool done;

	if (cardinality && !(cardinality->signals >> signal & 1))
		cardinality = NULL;
	if (!trim->is_set)
		trim = NULL;
	if (SL_LIKELY(!cardinality && !trim))
		return true;
	done = sl_cardinality_cut(cardinality, trim, part, self->now_ns, &counts);
	sl_count(&self->counters.attributes_cut[signal], counts.attributes);
	sl_count(&self->counters.items_cut[signal], counts.items);
	sl_count(&self->counters.distinct_observed[signal], counts.observed);
	if (trim)
		tell_trimmed(self, part, &counts.trimmed);
	return done;
}

void sl_tenants_cardinality_stage(void *state, struct sl_batch *batch)
{
	struct sl_tenants_shard *self = state;
	const uint16_t offered = batch->count;
	uint16_t kept = 0;

	assert(offered <= SL_BATCH_MAX);
	if (SL_LIKELY(!self->tenants->cardinality && !self->tenants->trims))
		return;
	for (uint16_t i = 0; i < offered; i++) {
		struct sl_part *part = batch->parts[i];

		assert(part->tenant < self->tenants->entry_count);
		if (SL_LIKELY(hold_to_limits(self, part)))
			batch->parts[kept++] = part;
		else
			sl_batch_refuse(batch, part, SL_REASON_MEMORY_FULL, SL_S);
	}
	batch->count = kept;
}
