#pragma once

#include "dataplane/base/by_tenant.h"
#include "dataplane/request/request.h"
#include "tenants/authority.h"
#include "tenants/grace.h"
#include "tenants/volume.h"

// Every tenant that this process knows: its number, its name and its pool, so that a reload changes
// limits but no number, no level and nothing in flight.
//
// A number that no snapshot has any more is withdrawn, and used again when nobody refers to it:
//
//   known --last snapshot with it goes--> left --grace--> nothing in flight, pool at rest --> free
//
// There are at most SL_TENANTS_MAX at a time.
//
// Threading: changed by the control thread, but `authority`, `volumes`, `adopted` and `adopting`
// by the quota thread and `grace` by all; shards follow pointers that a published snapshot has.
// Memory: counted references, one a snapshot. Names and pools do not move while in use.
struct sl_registry_number {
	struct sl_bytes name; // malloc'ed; empty: free, or one of those made from a template
	uint32_t next;        // in the one list it is in: number + 1
	uint16_t snapshots;   // that have it
	bool listed;          // as left or waiting
	bool returned;        // came back since it is listed
};

#define SL_REGISTRY_BLOCK 256

struct sl_registry {
	struct sl_authority authority;
	struct sl_volumes volumes;
	struct sl_grace grace;
	uint64_t generation; // the last snapshot's
	uint64_t adopted;    // whose limits the authority has taken over
	uint64_t adopting;   // of what it is taking over: the generation, and the next entry
	uint32_t adopting_at;
	bool fleet; // quotas hold for many instances: pools have leases; set before the first add
	uint32_t references;
	uint32_t count;  // numbers so far, also free ones
	uint32_t *index; // name's hash -> id + 1; 0: free
	uint32_t index_mask, named;
	struct sl_registry_number *numbers;
	uint32_t free, left, waiting; // lists: number + 1
	uint64_t waiting_epoch;
	// Blocks, which neither move nor go: shards find those of their snapshot's tenants here.
	struct sl_quota_pool *pools[SL_TENANTS_MAX / SL_REGISTRY_BLOCK];
	struct sl_registry_class *classes; // of all snapshots so far
	// Who else keeps numbers, until it says that it does not.
	bool (*keeps)(const void *keeper, uint32_t tenant);
	const void *keeper;
	struct sl_source_text *offered; // from Redis: for the next snapshot; the control thread's
	struct sl_created *created;     // of a snapshot that took effect; writer: the quota thread
};

// NULL when memory is short.
struct sl_registry *sl_registry_create(void);
void sl_registry_get(struct sl_registry *registry);
void sl_registry_put(struct sl_registry *registry); // NULL is fine

// The number of a name, new or known. Returns 0, -ENOSPC or -ENOMEM.
int sl_registry_add(struct sl_registry *registry, struct sl_bytes name, sl_tenant_id *tenant);
// A number that no name finds, for good, unless no shard has ever seen it.
int sl_registry_add_nameless(struct sl_registry *registry, sl_tenant_id *tenant);
void sl_registry_remove_nameless(struct sl_registry *registry, sl_tenant_id tenant);
// A snapshot has the number, and has it no more.
void sl_registry_use(struct sl_registry *registry, sl_tenant_id tenant);
void sl_registry_leave(struct sl_registry *registry, sl_tenant_id tenant);
// Frees the numbers that nobody refers to any more; before names are added.
void sl_registry_collect(struct sl_registry *registry);
// A class' name that lives as long as the registry: parts carry it over turns. NULL: no memory.
const char *sl_registry_class_name(struct sl_registry *registry, struct sl_bytes name);
struct sl_quota_pool *sl_registry_pool(const struct sl_registry *registry, sl_tenant_id tenant);

// Nobody refers to it beside requests: the quota thread rests, and no keeper has it.
bool sl_registry_rests(const struct sl_registry *registry, const struct sl_quota_pool *pool);
// As new: nobody spends from it, and it is not awake.
void sl_registry_reset_pool(struct sl_quota_pool *pool);

// 1-150 bytes of [0-9A-Za-z] and ! - _ . * ' ( ), and neither "." nor ".." (reference/tenancy 2),
// nor what the ledger calls accounts of its own.
bool sl_tenant_name_valid(struct sl_bytes name);
bool sl_tenant_name_reserved(struct sl_bytes name);
