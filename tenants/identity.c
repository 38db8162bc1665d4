#include "tenants/identity.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <xxhash.h>

#include "dataplane/base/hash.h"
#include "tenants/table.h"

// A decoded `Authorization: Basic` is at most this long; longer ones are unknown.
#define BASIC_BYTES_MAX 512

static const struct {
	const char *header, *scheme;
} presets[] = {
	{"authorization", "bearer"},
	{"authorization", "basic"},
	{"authorization", "apikey"},
	{"authorization", "api-token"},
	{"authorization", "api-key"},
	{"x-api-key", NULL},
	{"api-key", NULL},
	{"x-honeycomb-team", NULL},
	{"dd-api-key", NULL},
	{"signoz-ingestion-key", NULL},
	{"x-sf-token", NULL},
};

// --- rules ---------------------------------------------------------------------------------------

static char *lower(const char *text)
{
	char *copy = strdup(text);

	for (char *at = copy; copy && *at; at++)
		*at = (char)tolower((unsigned char)*at);
	return copy;
}

// A header's name: an HTTP token of at most 63 bytes (the size is a bit in header_sizes).
static bool is_header_name(const char *name)
{
	const size_t size = strlen(name);

	if (size == 0 || size > 63)
		return false;
	for (size_t i = 0; i < size; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("!#$%&'*+-.^_`|~", name[i]))
			return false;
	return true;
}

static void add_credential(struct sl_identity_rules *rules, const char *header, const char *scheme,
			   const struct sl_where *where, struct sl_errors *errors)
{
	struct sl_identity_credential *to = &rules->credential[rules->credential_count];

	if (!is_header_name(header) || (scheme && !is_header_name(scheme))) {
		sl_errors_add(errors, where, "%s is not a header name or scheme of 1-63 bytes",
			      is_header_name(header) ? scheme : header);
		return;
	}
	if (rules->credential_count == SL_IDENTITY_HEADERS_MAX) {
		sl_errors_add(errors, where, "more than %d headers with credentials",
			      SL_IDENTITY_HEADERS_MAX);
		return;
	}
	rules->credential_count++;
	to->header = lower(header);
	to->scheme = scheme ? lower(scheme) : NULL;
	if (!to->header || (scheme && !to->scheme)) {
		sl_errors_add(errors, where, "out of memory");
		return;
	}
	to->header_bytes = (uint8_t)strlen(to->header);
	to->scheme_bytes = to->scheme ? (uint8_t)strlen(to->scheme) : 0;
	to->basic = to->scheme && strcmp(to->scheme, "basic") == 0;
	rules->header_sizes |= UINT64_C(1) << to->header_bytes;
}

static void add_trust(struct sl_identity_claim_rule *rule, const char *text,
		      const struct sl_where *where, struct sl_errors *errors)
{
	if (strcmp(text, "mtls") == 0) {
		rule->mtls = true;
		return;
	}
	if (rule->cidr_count == SL_IDENTITY_TRUST_MAX)
		sl_errors_add(errors, where, "more than %d blocks in trusted_from",
			      SL_IDENTITY_TRUST_MAX);
	else if (sl_cidr_parse(&rule->cidrs[rule->cidr_count], text))
		sl_errors_add(errors, where, "trusted_from: %s is neither a CIDR block nor mtls",
			      text);
	else
		rule->cidr_count++;
}

static void add_attributes(struct sl_identity_rules *rules, struct sl_identity_claim_rule *rule,
			   const struct sl_identify_config *from, struct sl_errors *errors)
{
	static const char *const usual[] = {"tenant.id", "tenant"};
	const bool own = from->resource.count != 0;
	const char *const *keys = own ? from->resource.items : usual;
	const size_t count = own ? from->resource.count : SL_COUNT_OF(usual);

	if (count > SL_IDENTITY_ATTRIBUTES_MAX) {
		sl_errors_add(errors, &from->where, "more than %d resource attributes",
			      SL_IDENTITY_ATTRIBUTES_MAX);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (!*keys[i] || strlen(keys[i]) > SL_IDENTITY_KEY_BYTES_MAX) {
			sl_errors_add(errors, &from->where,
				      "a resource attribute's key has 1-%d bytes",
				      SL_IDENTITY_KEY_BYTES_MAX);
			return;
		}
		rule->attributes[i] = strdup(keys[i]);
		if (!rule->attributes[i]) {
			sl_errors_add(errors, &from->where, "out of memory");
			return;
		}
		rule->attribute_count++;
		rules->attribute_count++;
	}
}

static void add_claim(struct sl_identity_rules *rules, const struct sl_identify_config *from,
		      struct sl_errors *errors)
{
	static const char *const loopback[] = {"127.0.0.0/8", "::1"};
	const char *const *trusted = from->trusted_from.items;
	struct sl_identity_claim_rule *rule = &rules->claims[rules->claim_count];

	const bool resource = from->resource.count || from->by == SL_IDENTIFY_RESOURCE;

	if (resource ? from->header != NULL : !from->header || !is_header_name(from->header)) {
		sl_errors_add(errors, &from->where,
			      "an entry of identify is credential, certificate, or has either a "
			      "header or resource attributes");
		return;
	}
	if (rules->claim_count == SL_IDENTITY_CLAIMS_MAX) {
		sl_errors_add(errors, &from->where, "more than %d ways to claim a tenant's name",
			      SL_IDENTITY_CLAIMS_MAX);
		return;
	}
	rules->claim_count++;
	if (resource)
		add_attributes(rules, rule, from, errors);
	else
		rule->header = lower(from->header);
	if (!resource && !rule->header) {
		sl_errors_add(errors, &from->where, "out of memory");
		return;
	}
	rule->header_bytes = rule->header ? (uint8_t)strlen(rule->header) : 0;
	rule->open = from->open;
	for (size_t i = 0; i < from->trusted_from.count; i++)
		add_trust(rule, trusted[i], &from->where, errors);
	for (size_t i = 0; i < SL_COUNT_OF(loopback) && !from->trusted_from.count; i++)
		add_trust(rule, loopback[i], &from->where, errors);
}

void sl_identity_rules_build(struct sl_identity_rules *rules,
			     const struct sl_tenants_config *config, struct sl_errors *errors)
{
	const struct sl_identify_config *identify = config->identify.items;
	const struct sl_credential_header_config *headers = config->credentials.items;

	rules->credentials = config->identify.count == 0;
	for (size_t i = 0; i < config->identify.count; i++) {
		const bool claim = identify[i].header || identify[i].resource.count ||
				   identify[i].by == SL_IDENTIFY_CLAIM ||
				   identify[i].by == SL_IDENTIFY_RESOURCE;

		if (claim)
			add_claim(rules, &identify[i], errors);
		else if (identify[i].by == SL_IDENTIFY_CREDENTIAL)
			rules->credentials = true;
		else
			rules->certificate = true;
	}
	for (size_t i = 0; i < config->credentials.count; i++)
		add_credential(rules, headers[i].header, headers[i].scheme, &headers[i].where,
			       errors);
	for (size_t i = 0; i < SL_COUNT_OF(presets) && !config->credentials.count; i++)
		add_credential(rules, presets[i].header, presets[i].scheme, &config->where, errors);
}

void sl_identity_rules_fini(struct sl_identity_rules *rules)
{
	for (uint32_t i = 0; i < rules->credential_count; i++) {
		free(rules->credential[i].header);
		free(rules->credential[i].scheme);
	}
	for (uint32_t i = 0; i < rules->claim_count; i++) {
		free(rules->claims[i].header);
		for (uint32_t j = 0; j < rules->claims[i].attribute_count; j++)
			free(rules->claims[i].attributes[j]);
	}
}

// --- credentials ---------------------------------------------------------------------------------

struct sl_identity_cache *sl_identity_cache_create(void)
{
	struct sl_identity_cache *cache = mmap(NULL, sizeof(*cache), PROT_READ | PROT_WRITE,
					       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (cache == MAP_FAILED)
		return NULL;
	if (getrandom(cache->secret, sizeof(cache->secret), 0) == sizeof(cache->secret))
		return cache;
	sl_identity_cache_destroy(cache);
	return NULL;
}

void sl_identity_cache_destroy(struct sl_identity_cache *cache)
{
	if (cache)
		munmap(cache, sizeof(*cache));
}

// Standard or URL alphabet, padding optional. Returns the size, or -1.
static int decode_base64(struct sl_bytes text, uint8_t out[BASIC_BYTES_MAX])
{
	uint32_t bits = 0, have = 0;
	int size = 0;

	while (text.size && text.data[text.size - 1] == '=')
		text.size--;
	if (text.size % 4 == 1 || text.size / 4 * 3 + 2 > BASIC_BYTES_MAX)
		return -1;
	for (size_t i = 0; i < text.size; i++) {
		const uint8_t c = text.data[i];
		uint32_t value;

		if (c >= 'A' && c <= 'Z')
			value = c - 'A';
		else if (c >= 'a' && c <= 'z')
			value = c - 'a' + 26u;
		else if (c >= '0' && c <= '9')
			value = c - '0' + 52u;
		else if (c == '+' || c == '-')
			value = 62;
		else if (c == '/' || c == '_')
			value = 63;
		else
			return -1;
		bits = bits << 6 | value;
		have += 6;
		if (have >= 8) {
			have -= 8;
			out[size++] = (uint8_t)(bits >> have);
		}
	}
	return size;
}

static struct sl_bytes skip(struct sl_bytes bytes, size_t size)
{
	return sl_bytes(bytes.data + size, bytes.size - size);
}

static struct sl_bytes trim(struct sl_bytes value)
{
	while (value.size && (value.data[0] == ' ' || value.data[0] == '\t'))
		value = skip(value, 1);
	while (value.size &&
	       (value.data[value.size - 1] == ' ' || value.data[value.size - 1] == '\t'))
		value.size--;
	return value;
}

// Takes the scheme word and what parts it from the secret: blanks, or %20 from clients that send
// OTEL_EXPORTER_OTLP_HEADERS without decoding it. False: another scheme.
static bool take_scheme(const struct sl_identity_credential *rule, struct sl_bytes *value)
{
	if (!rule->scheme)
		return true;
	if (value->size <= rule->scheme_bytes)
		return false;
	for (size_t i = 0; i < rule->scheme_bytes; i++)
		if (tolower(value->data[i]) != (uint8_t)rule->scheme[i])
			return false;

	struct sl_bytes rest = skip(*value, rule->scheme_bytes);
	const size_t before = rest.size;

	for (;;) {
		if (rest.size && (rest.data[0] == ' ' || rest.data[0] == '\t'))
			rest = skip(rest, 1);
		else if (sl_bytes_start(rest, SL_LITERAL("%20")))
			rest = skip(rest, 3);
		else
			break;
	}
	if (rest.size == before)
		return false;
	*value = rest;
	return true;
}

// What is asked for first of a tenant that nobody has asked for lately: the misses overlap.
static void prefetch_tenant(const struct sl_tenants *tenants, sl_tenant_id tenant)
{
	const struct sl_quota_pool *pool = sl_registry_pool(tenants->registry, tenant);

	sl_prefetch(&tenants->entries[tenant]);
	sl_prefetch(pool);
	sl_prefetch(&pool->awake);
}

// The tenant that owns a secret, or SL_TENANT_NONE.
static sl_tenant_id owner(const struct sl_tenants *tenants, struct sl_identity_cache *cache,
			  struct sl_bytes secret, uint64_t wall_ns)
{
	const XXH128_hash_t hash = XXH3_128bits_withSecret(secret.data, secret.size, cache->secret,
							   sizeof(cache->secret));
	const uint64_t want[2] = {hash.low64, hash.high64};
	struct sl_identity_cached *set = cache->sets[hash.low64 % SL_IDENTITY_SETS];
	const uint32_t generation = (uint32_t)tenants->generation;
	const struct sl_credential *credential;
	uint8_t digest[32];

	cache->lookups++;
	for (unsigned i = 0; i < 2; i++)
		if (set[i].generation == generation && set[i].expires_ns > wall_ns &&
		    ((set[i].hash[0] ^ want[0]) | (set[i].hash[1] ^ want[1])) == 0) {
			cache->hits++;
			prefetch_tenant(tenants, set[i].tenant);
			return set[i].tenant;
		}
	sl_hash_sha256(secret, digest);
	credential = sl_tenants_credential(tenants, digest, wall_ns);
	if (!credential)
		return SL_TENANT_NONE;
	set[1] = set[0];
	set[0] = (struct sl_identity_cached){
		.hash = {want[0], want[1]},
		.expires_ns = credential->expires_ns,
		.tenant = credential->tenant,
		.generation = generation,
	};
	return credential->tenant;
}

static sl_tenant_id owner_of_value(const struct sl_tenants *tenants,
				   struct sl_identity_cache *cache,
				   const struct sl_identity_credential *rule,
				   struct sl_bytes secret, uint64_t wall_ns)
{
	uint8_t decoded[BASIC_BYTES_MAX];

	if (rule->basic) {
		const int size = decode_base64(secret, decoded);

		if (size <= 0)
			return SL_TENANT_NONE;
		secret = sl_bytes(decoded, (size_t)size);
	}
	return secret.size ? owner(tenants, cache, secret, wall_ns) : SL_TENANT_NONE;
}

enum found { FOUND_NOTHING, FOUND_TENANT, FOUND_UNKNOWN };

// Looks at one header. Listed with schemes only, and of another scheme: a credential all the same,
// and nobody's.
static enum found judge_header(const struct sl_tenants *tenants, struct sl_identity_cache *cache,
			       const struct sl_http_header *header, uint64_t wall_ns,
			       sl_tenant_id *tenant)
{
	const struct sl_identity_rules *rules = &tenants->rules;
	bool listed = false;

	for (uint32_t i = 0; i < rules->credential_count; i++) {
		const struct sl_identity_credential *rule = &rules->credential[i];
		struct sl_bytes value = trim(header->value);

		if (!sl_bytes_equal(header->name, sl_bytes(rule->header, rule->header_bytes)))
			continue;
		listed = true;
		if (!take_scheme(rule, &value))
			continue;
		*tenant = owner_of_value(tenants, cache, rule, value, wall_ns);
		return *tenant == SL_TENANT_NONE ? FOUND_UNKNOWN : FOUND_TENANT;
	}
	return listed ? FOUND_UNKNOWN : FOUND_NOTHING;
}

// All credentials of the call must be known, and agree.
static enum found by_credential(const struct sl_tenants *tenants, struct sl_identity_cache *cache,
				const struct sl_identity_claim *claim, uint64_t wall_ns,
				sl_tenant_id *tenant)
{
	enum found found = FOUND_NOTHING;

	for (uint32_t i = 0; i < claim->header_count; i++) {
		const struct sl_http_header *header = &claim->headers[i];
		sl_tenant_id one = SL_TENANT_NONE;

		if (header->name.size > 63 ||
		    !(tenants->rules.header_sizes >> header->name.size & 1))
			continue;

		const enum found this = judge_header(tenants, cache, header, wall_ns, &one);

		if (this == FOUND_NOTHING)
			continue;
		if (this == FOUND_UNKNOWN || (found == FOUND_TENANT && one != *tenant))
			return FOUND_UNKNOWN;
		found = FOUND_TENANT;
		*tenant = one;
	}
	return found;
}

// --- claims --------------------------------------------------------------------------------------

bool sl_identity_trusts(const struct sl_identity_claim_rule *rule, const struct sl_address *peer,
			bool certified)
{
	if (rule->open || (rule->mtls && certified))
		return true;
	for (uint32_t i = 0; i < rule->cidr_count && peer; i++)
		if (sl_cidr_has(&rule->cidrs[i], peer))
			return true;
	return false;
}

// A header that occurs twice must say the same: what is behind us may read the other one.
static enum found by_claim(const struct sl_identity_claim_rule *rule,
			   const struct sl_identity_claim *claim, struct sl_bytes *name)
{
	enum found found = FOUND_NOTHING;

	for (uint32_t i = 0; i < claim->header_count; i++) {
		const struct sl_http_header *header = &claim->headers[i];

		if (!sl_bytes_equal(header->name, sl_bytes(rule->header, rule->header_bytes)))
			continue;

		const struct sl_bytes value = trim(header->value);

		if (!sl_tenant_name_valid(value) ||
		    (found == FOUND_TENANT && !sl_bytes_equal(*name, value)))
			return FOUND_UNKNOWN;
		*name = value;
		found = FOUND_TENANT;
	}
	return found;
}

// --- all together --------------------------------------------------------------------------------

static struct sl_identity refuse(enum sl_reason reason)
{
	return (struct sl_identity){.tenant = SL_TENANT_NONE, .reason = reason};
}

static struct sl_identity admit(const struct sl_tenants *tenants, sl_tenant_id tenant)
{
	const struct sl_tenant_entry *entry = &tenants->entries[tenant];

	assert(tenant < tenants->entry_count && entry->limits);
	return (struct sl_identity){
		.tenant = tenant,
		.name = sl_tenants_entry_name(entry),
		.reason = entry->suspended ? SL_REASON_SUSPENDED : SL_REASON_NONE,
	};
}

// By a claimed name: one of a tenant that is being made is not kept anywhere else yet.
static struct sl_identity admit_claimed(const struct sl_tenants *tenants, sl_tenant_id tenant,
					struct sl_bytes name)
{
	const struct sl_tenant_entry *entry = &tenants->entries[tenant];
	struct sl_identity identity = admit(tenants, tenant);

	if (entry->created) {
		identity.name.size = name.size; // also when its seat has been left just now
	} else if (tenants->creates && tenant == tenants->created->newcomers) {
		identity.name = name;
		identity.borrowed = true;
	}
	return identity;
}

sl_tenant_id sl_identity_of_name(const struct sl_tenants *tenants, struct sl_bytes name)
{
	sl_tenant_id tenant;

	if (sl_tenants_find(tenants, name, &tenant))
		return tenant;
	if (tenants->creates)
		return sl_created_name_to_tenant(tenants->created, name, tenants->overflow);
	return tenants->unknown;
}

enum sl_reason sl_identity_no_tenant(const struct sl_tenants *tenants)
{
	return tenants->creates ? SL_REASON_TENANTS_FULL : SL_REASON_UNKNOWN_TENANT;
}

// By the claims that count, in order. A header before any attribute decides at once; one behind
// them is for the resources that name nobody. An attribute may name no one in a body that has not
// come yet, so the default stands behind it too.
static struct sl_identity by_claims(const struct sl_tenants *tenants,
				    const struct sl_identity_claim *claim)
{
	const struct sl_identity_rules *rules = &tenants->rules;
	struct sl_identity identity = {.tenant = SL_TENANT_NONE, .otherwise = tenants->fallback};

	for (uint32_t i = 0; i < rules->claim_count; i++) {
		const struct sl_identity_claim_rule *rule = &rules->claims[i];
		struct sl_bytes name = SL_BYTES_NONE;
		sl_tenant_id tenant;
		enum found found;

		if (!sl_identity_trusts(rule, claim->peer, claim->certificate_name != NULL))
			continue;
		if (!rule->header) {
			identity.by_resource = true;
			continue;
		}
		found = by_claim(rule, claim, &name);
		if (found == FOUND_NOTHING)
			continue;
		tenant = found == FOUND_TENANT ? sl_identity_of_name(tenants, name)
					       : SL_TENANT_NONE;
		if (tenant == SL_TENANT_NONE)
			return refuse(found == FOUND_TENANT ? sl_identity_no_tenant(tenants)
							    : SL_REASON_UNKNOWN_TENANT);
		if (!identity.by_resource)
			return admit_claimed(tenants, tenant, name);
		identity.otherwise = tenant;
		if (tenants->creates && tenant == tenants->created->newcomers) {
			identity.name = name;
			identity.borrowed = true;
		}
		break;
	}
	if (identity.by_resource)
		return identity;
	if (tenants->fallback == SL_TENANT_NONE)
		return refuse(SL_REASON_NO_CREDENTIAL);
	return admit(tenants, tenants->fallback);
}

// A verified name that nobody lists becomes a tenant of that name, but never one that is
// configured: whose certificates those are is said there.
static struct sl_identity by_unknown_certificate(const struct sl_tenants *tenants,
						 struct sl_bytes name)
{
	sl_tenant_id tenant;

	if (!sl_tenant_name_valid(name) || sl_tenants_find(tenants, name, &tenant))
		return refuse(SL_REASON_UNKNOWN_TENANT);
	tenant = sl_identity_of_name(tenants, name);
	return tenant == SL_TENANT_NONE ? refuse(sl_identity_no_tenant(tenants))
					: admit_claimed(tenants, tenant, name);
}

struct sl_identity sl_identity_find(const struct sl_tenants *tenants,
				    struct sl_identity_cache *cache,
				    const struct sl_identity_claim *claim, uint64_t wall_ns)
{
	const struct sl_identity_rules *rules = &tenants->rules;
	sl_tenant_id tenant = SL_TENANT_NONE;

	if (rules->credentials) {
		switch (by_credential(tenants, cache, claim, wall_ns, &tenant)) {
		case FOUND_TENANT:
			return admit(tenants, tenant);
		case FOUND_UNKNOWN:
			return refuse(SL_REASON_UNKNOWN_CREDENTIAL);
		case FOUND_NOTHING:
			break;
		}
	}
	if (rules->certificate && claim->certificate_name) {
		const struct sl_certificate *certificate = sl_tenants_certificate(
			tenants, sl_bytes_of(claim->certificate_name));

		if (certificate)
			return admit(tenants, certificate->tenant);
		if (tenants->creates)
			return by_unknown_certificate(tenants,
						      sl_bytes_of(claim->certificate_name));
	}
	return by_claims(tenants, claim);
}
