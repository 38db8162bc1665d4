#pragma once

#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/hash.h"
#include "dataplane/base/random.h"
#include "tenants/ledger/internal.h"

// What the ledger's tests share: ledgers of some shards, and requests of tenants t0, t1 ...
// Threading: each test's own. Memory: the caller destroys what make() gives.
#define TENANTS 400

SL_INLINE struct sl_ledger *make(uint32_t shards, uint32_t rows, uint32_t export_max, bool usage)
{
	const struct sl_ledger_options options = {
		.shards = shards,
		.rows_max = rows,
		.tenants_max = 4096,
		.export_max = export_max,
		.usage = usage,
		.wall_ns = 1000 * SL_S,
		.instance = {1, 2, 3, 4, 5, 6, 7, 8},
	};
	struct sl_ledger *ledger = sl_ledger_create(&options);

	assert_non_null(ledger);
	return ledger;
}

extern char rig_names[TENANTS][8];
SL_INLINE struct sl_bytes name_of(sl_tenant_id tenant)
{
	return tenant == SL_TENANT_NONE ? SL_BYTES_NONE : sl_bytes_of(rig_names[tenant]);
}

// Before the first test.
SL_INLINE int rig_set_up(void **state)
{
	(void)state;
	sl_hash_seed();
	for (unsigned i = 0; i < TENANTS; i++)
		snprintf(rig_names[i], sizeof(rig_names[i]), "t%u", i);
	return 0;
}

// A decoded request of one part.
SL_INLINE struct sl_request *fill(struct sl_request *request, sl_tenant_id tenant, uint32_t items,
				  uint32_t kept)
{
	*request = (struct sl_request){.signal = SL_TRACES, .part_count = 1};
	request->parts = &request->first_part;
	request->first_part = (struct sl_part){
		.request = request,
		.tenant = tenant,
		.tenant_name = name_of(tenant),
		.offered_items = items,
		.offered_bytes = items * 100,
		.kept_items = kept,
		.routed_items = kept,
	};
	return request;
}

// One that is accepted.
SL_INLINE void take(struct sl_ledger *ledger, sl_tenant_id tenant, uint32_t items)
{
	struct sl_ledger_book *book = sl_ledger_book_of(ledger, 0);
	struct sl_request request;

	sl_ledger_received(book, fill(&request, tenant, items, items));
	sl_ledger_answered(book, &request);
	sl_ledger_fold(ledger, false);
}

SL_INLINE struct sl_ledger_cell count_of(struct sl_ledger *ledger, const char *tenant,
					 enum sl_ledger_kind kind, uint32_t index)
{
	const struct sl_ledger_account *account = sl_ledger_find(ledger, sl_bytes_of(tenant));

	if (!account)
		return (struct sl_ledger_cell){0};
	return sl_ledger_counts_get(&account->total, sl_ledger_key(kind, SL_TRACES, index));
}

// Over all tenants and signals.
static inline struct sl_ledger_cell sum_of(struct sl_ledger *ledger, enum sl_ledger_kind kind)
{
	struct sl_ledger_cell sum = {0};

	pthread_mutex_lock(&ledger->lock);
	for (uint32_t i = 0; i < ledger->account_count; i++) {
		const struct sl_ledger_cell one = sl_ledger_counts_sum(&ledger->accounts[i]->total,
								       kind);

		sum.items += one.items;
		sum.bytes += one.bytes;
		sum.requests += one.requests;
	}
	pthread_mutex_unlock(&ledger->lock);
	return sum;
}
