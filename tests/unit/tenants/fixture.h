#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/hash.h"
#include "tenants/shard.h"

// Snapshots made of configuration structs, and parts that look like a request's.

static inline struct sl_tenants *make_tenants(const struct sl_tenants_module_config *config,
					      const struct sl_tenants *before)
{
	const struct sl_tenants_file *files[] = {&config->tenants.inline_};
	struct sl_errors *errors = sl_errors_create();
	struct sl_tenants *tenants = sl_tenants_build(config, files, 1, before, errors);

	for (uint32_t i = 0; i < sl_errors_count(errors); i++)
		fprintf(stderr, "%s\n", sl_errors_line(errors, i));
	sl_errors_destroy(errors);
	return tenants;
}

// One tenant `t` with that quota.
static inline struct sl_tenants *make_quota(struct sl_quota_config quota,
					    const struct sl_tenants *before)
{
	struct sl_tenant_config tenant = {.name = "t", .class_name = "c"};
	struct sl_class_config class = {.name = "c", .priority = 1, .quota = quota};
	const struct sl_tenants_module_config config = {
		.tenants = {.inline_ = {.classes = {&class, 1}, .tenants = {&tenant, 1}},
			    .unknown = "t"}};

	return make_tenants(&config, before);
}

struct fake {
	struct sl_request request;
	struct sl_part part;
	struct sl_batch batch;
};

static inline struct fake *make_fake(void)
{
	struct fake *fake = calloc(1, sizeof(*fake));

	assert_non_null(fake);
	return fake;
}

// Sends one part through the stage. Returns 0 when it passed, else the wait.
static inline uint64_t send_part(struct fake *fake, struct sl_tenants_shard *shard,
				 sl_tenant_id tenant, enum sl_signal signal, uint64_t bytes,
				 uint32_t items)
{
	struct sl_batch *batch = &fake->batch;

	memset(&fake->part, 0, sizeof(fake->part));
	fake->request.signal = signal;
	fake->request.view.body.size = bytes;
	fake->request.view.item_count = items;
	fake->request.part_count = 1;
	fake->part.request = &fake->request;
	fake->part.tenant = tenant;
	fake->part.offered_items = items;
	fake->part.offered_bytes = bytes;
	batch->count = 1;
	batch->parts[0] = &fake->part;
	batch->refused_count = 0;
	sl_tenants_quota_stage(shard, batch);
	assert_int_equal(batch->count + batch->refused_count, 1);
	return batch->refused_count ? fake->part.retry_after_ns : 0;
}
