#pragma once

#include "tenants/settings.h"
#include "tenants/tenants.h"

// The rules that name a call's tenant from its headers, and a shard's cache of credentials.
//
// Threading: rules are a snapshot's; a cache belongs to one shard.
#define SL_IDENTITY_HEADERS_MAX    32
#define SL_IDENTITY_CLAIMS_MAX     8
#define SL_IDENTITY_TRUST_MAX      16
#define SL_IDENTITY_ATTRIBUTES_MAX 8
#define SL_IDENTITY_KEY_BYTES_MAX  255

struct sl_identity_credential {
	char *header; // lower case
	char *scheme; // lower case; NULL: none
	uint8_t header_bytes, scheme_bytes;
	bool basic; // base64 inside
};

// A claim in a header, or in resource attributes.
struct sl_identity_claim_rule {
	char *header; // lower case; NULL: attributes
	char *attributes[SL_IDENTITY_ATTRIBUTES_MAX];
	uint32_t attribute_count;
	uint8_t header_bytes;
	bool open, mtls;
	uint32_t cidr_count;
	struct sl_cidr cidrs[SL_IDENTITY_TRUST_MAX];
};

struct sl_identity_rules {
	bool credentials, certificate;
	uint32_t attribute_count; // of all claims together
	uint64_t header_sizes;    // bit n: some credential's header is n bytes long
	uint32_t credential_count, claim_count;
	struct sl_identity_credential credential[SL_IDENTITY_HEADERS_MAX];
	struct sl_identity_claim_rule claims[SL_IDENTITY_CLAIMS_MAX];
};

// Fills the rules; problems go to `errors`.
void sl_identity_rules_build(struct sl_identity_rules *rules,
			     const struct sl_tenants_config *config, struct sl_errors *errors);
void sl_identity_rules_fini(struct sl_identity_rules *rules);

// Credentials seen before: a keyed 128-bit hash of the secret instead of a SHA-256. Unknown ones
// are not kept, so that guessing evicts nobody. A line of the processor's cache has two, so that of
// 100,000 that all send 93 in 100 are there, and of 20,000 all: 8 MiB of address space a shard,
// whose pages come with those who send.
#define SL_IDENTITY_SETS (UINT32_C(1) << 17)
struct sl_identity_cached {
	uint64_t hash[2];
	uint64_t expires_ns;
	sl_tenant_id tenant;
	uint32_t generation; // the snapshot's; 0: free
};
struct sl_identity_cache {
	struct sl_identity_cached sets[SL_IDENTITY_SETS][2]; // of a hash: the newer one first
	uint8_t secret[192];
	uint64_t lookups, hits; // since the owner last took them
};
static_assert(sizeof(struct sl_identity_cached) == SL_CACHE_LINE / 2, "a set is a line");
struct sl_identity_cache *sl_identity_cache_create(void);        // NULL, errno
void sl_identity_cache_destroy(struct sl_identity_cache *cache); // NULL is fine

// Whether a claim counts that comes from there.
bool sl_identity_trusts(const struct sl_identity_claim_rule *rule, const struct sl_address *peer,
			bool certified);
// The tenant of a name that was claimed: as it is known, or what `unknown` says. SL_TENANT_NONE:
// refused.
sl_tenant_id sl_identity_of_name(const struct sl_tenants *tenants, struct sl_bytes name);
// Why a valid name is no tenant's.
enum sl_reason sl_identity_no_tenant(const struct sl_tenants *tenants);

struct sl_identity sl_identity_find(const struct sl_tenants *tenants,
				    struct sl_identity_cache *cache,
				    const struct sl_identity_claim *claim, uint64_t wall_ns);
