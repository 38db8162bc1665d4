#pragma once

#include "dataplane/request/request.h"
#include "tenants/authority.h"
#include "tenants/volume.h"

// Every tenant that this process has known: its number, its name and its pool, for as long as the
// process runs, so that a reload changes limits but no number, no level and nothing in flight.
// Numbers are never used again; there are at most SL_TENANTS_MAX.
//
// Threading: changed by the control thread, but `authority`, `volumes` and `adopted` by the quota
// thread; shards follow pointers that a published snapshot has. Memory: counted references, one a
// snapshot. Names and pools never move.
#define SL_TENANTS_MAX (UINT32_C(1) << 20)

struct sl_registry {
	struct sl_authority authority;
	struct sl_volumes volumes;
	uint64_t generation; // the last snapshot's
	uint64_t adopted;    // whose limits the authority has taken over
	bool fleet; // quotas hold for many instances: pools have leases; set before the first add
	uint32_t references;
	uint32_t count;
	uint32_t *index; // name's hash -> id + 1; 0: free
	uint32_t index_mask;
	struct sl_bytes *names;       // by id
	struct sl_quota_pool **pools; // blocks of SL_REGISTRY_BLOCK
	struct sl_registry_text *texts;
	struct sl_registry_class *classes; // of all snapshots so far
};
#define SL_REGISTRY_BLOCK 256

// NULL when memory is short.
struct sl_registry *sl_registry_create(void);
void sl_registry_get(struct sl_registry *registry);
void sl_registry_put(struct sl_registry *registry); // NULL is fine

// The number of a name, new or known. Returns 0, -ENOSPC or -ENOMEM.
int sl_registry_add(struct sl_registry *registry, struct sl_bytes name, sl_tenant_id *tenant);
// A class' name that lives as long as the registry: parts carry it over turns. NULL: no memory.
const char *sl_registry_class_name(struct sl_registry *registry, struct sl_bytes name);
struct sl_quota_pool *sl_registry_pool(const struct sl_registry *registry, sl_tenant_id tenant);

// 1-150 bytes of [0-9A-Za-z] and ! - _ . * ' ( ), and neither "." nor ".." (reference/tenancy 2).
bool sl_tenant_name_valid(struct sl_bytes name);
