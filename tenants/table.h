#pragma once

#include "tenants/created.h"
#include "tenants/identity.h"
#include "tenants/registry.h"
#include "tenants/settings.h"
#include "tenants/tenants.h"

// A snapshot's tenants: by number what each may do, and by name and by credential who it is.
//
// Threading: built by the control thread, read by shards. Memory: one block an array; limits are
// shared by the tenants of a class that override nothing.
struct sl_tenant_entry {
	const struct sl_limits *limits; // NULL: not in this snapshot
	struct sl_quota_pool *pool;
	const void *name; // `created`: a struct sl_created_seat
	uint64_t body_bytes_max;
	uint16_t class_index; // UINT16_MAX: none
	uint8_t name_bytes;
	bool suspended;
	bool counted; // the registry knows that this snapshot has it
	bool created; // made from a template, or free to be made
};

// A class, as tenants see it.
struct sl_tenant_class {
	const char *name;              // as long as the registry
	uint32_t rank;                 // of the priority, from 0
	uint16_t extends;              // another class' index; UINT16_MAX: none
	struct sl_class_config config; // with all that it extends; no text of it lives
	struct sl_limits limits;
};

struct sl_credential {
	uint8_t digest[32];
	uint64_t expires_ns; // wall time; UINT64_MAX: never
	sl_tenant_id tenant;
};

struct sl_certificate {
	char *name;
	sl_tenant_id tenant;
};

// Open addressing, at most half full: a hash -> number + 1 of whatever is indexed.
struct sl_table_index {
	uint32_t *slots;
	uint32_t mask;
};

int sl_table_index_init(struct sl_table_index *index, size_t count); // 0 or -ENOMEM

struct sl_tenants {
	struct sl_registry *registry;
	uint64_t generation;
	struct sl_tenant_entry *entries; // by id: all that the registry knew when this was built
	uint32_t entry_count;
	uint32_t tenant_count;
	struct sl_table_index by_name, by_digest, by_certificate;
	struct sl_credential *credentials;
	uint32_t credential_count;
	struct sl_certificate *certificates;
	uint32_t certificate_count;
	struct sl_tenant_class *classes;
	uint32_t class_count;
	uint32_t ranks;                // different priorities
	struct sl_limits **own_limits; // of tenants that override
	uint32_t own_limits_count;
	struct sl_identity_rules rules;
	sl_tenant_id unknown, fallback; // SL_TENANT_NONE: refuse
	// Unknown names become tenants of the template's class.
	bool creates;
	struct sl_created *created; // NULL: none so far
	sl_tenant_id overflow;      // where no seat is free; SL_TENANT_NONE: refuse
	uint64_t created_idle_ns;
	struct sl_source_text *source;       // what Redis said; NULL: nothing
	struct sl_cardinality **cardinality; // by id; NULL: nobody has such limits
	uint64_t cardinality_bytes;          // what they may take
	bool observe, partial;
	bool trims;      // somebody has limits on attributes or sizes
	uint8_t claimed; // enum sl_claimed
};

// Builds from the main configuration and the given lists of classes and tenants. NULL: problems in
// `errors`.
struct sl_tenants *sl_tenants_build(const struct sl_tenants_module_config *config,
				    const struct sl_tenants_file *const *files, uint32_t count,
				    const struct sl_tenants *before, struct sl_errors *errors);
void sl_tenants_destroy(struct sl_tenants *tenants);

// Whether the number is a tenant's in this snapshot.
bool sl_tenants_has(const struct sl_tenants *tenants, sl_tenant_id tenant);
// Its name; empty: none now.
struct sl_bytes sl_tenants_entry_name(const struct sl_tenant_entry *entry);

// The live credential with that digest at `wall_ns`, or NULL. Compared in constant time.
const struct sl_credential *sl_tenants_credential(const struct sl_tenants *tenants,
						  const uint8_t digest[32], uint64_t wall_ns);
const struct sl_certificate *sl_tenants_certificate(const struct sl_tenants *tenants,
						    struct sl_bytes name);

// The class of those that a template makes; NULL: none, or nobody is made.
const struct sl_tenant_class *sl_tenants_template(const struct sl_tenants *tenants);

// distinct.c: limits on different values, of the tenants that a snapshot has. 0 or -ENOMEM;
// problems in `errors`.
int sl_tenants_build_cardinality(struct sl_tenants *tenants,
				 const struct sl_tenants_file *const *files, uint32_t count,
				 const struct sl_quotas_config *config,
				 const struct sl_tenants *before, struct sl_errors *errors);
void sl_tenants_destroy_cardinality(struct sl_tenants *tenants);

// What a tenant's limits are: its class' (NULL: none), with the keys that `own` names (NULL: none)
// replaced.
struct sl_limits sl_tenants_limits(const struct sl_class_config *of_class,
				   const struct sl_tenant_config *own, bool observe);

// What of the quota that was written there (`own`) has no effect under the limits it is part of.
void sl_tenants_check_quota(const struct sl_quota_config *own, const struct sl_limits *limits,
			    const char *what, const struct sl_where *where,
			    struct sl_errors *errors);

// The limits of a number that a registry has given: none when this snapshot does not know it.
SL_INLINE const struct sl_limits *sl_tenants_limits_of(const struct sl_tenants *tenants,
						       sl_tenant_id tenant)
{
	const struct sl_limits *limits = tenant < tenants->entry_count
						 ? tenants->entries[tenant].limits
						 : NULL;

	return limits ? limits : &sl_limits_none;
}

// The quota thread's: the newest snapshot's limits are in force; at each tick, before all else.
void sl_tenants_adopt(const struct sl_tenants *tenants);

// RFC 3339 -> ns since the epoch. Returns 0 or -EINVAL.
int sl_tenants_parse_time(const char *text, uint64_t *wall_ns);
// "sha256:<64 hex>". Returns 0 or -EINVAL.
int sl_tenants_parse_digest(const char *text, uint8_t digest[32]);
