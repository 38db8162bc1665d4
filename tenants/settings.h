#pragma once

#include "config/module.h"
#include "tenants/cardinality/rules.h"
#include "tenants/cardinality/trim.h"

// The configuration as loaded: what the tables in settings.c fill. The tenants file has the keys
// `classes` and `tenants`; the main file `tenants` (with the same two inside, for small set-ups)
// and `quotas`.
//
// Threading: control thread.
#define SL_PRIORITY_MAX     1000
#define SL_QUOTA_REDIS_MAX  16
#define SL_QUOTA_PREFIX_MAX 40

enum sl_quota_mode { SL_QUOTA_ENFORCE, SL_QUOTA_OBSERVE };

// What becomes of a request with more than its tenant has left.
enum sl_quota_excess { SL_EXCESS_REFUSE, SL_EXCESS_CUT };

struct sl_volume_config {
	uint64_t bytes, spans, points, log_records, requests; // 0: no limit
	uint32_t per;                                         // enum sl_volume_per
	double soft;
	struct {
		bool bytes, spans, points, log_records, requests, per, soft;
	} has;
};

struct sl_quota_config {
	double bytes, spans, points, log_records, requests; // a second; 0: no limit
	uint64_t burst_ns;
	uint32_t algorithm; // enum sl_algorithm
	uint64_t window_ns, delay_max_ns;
	uint64_t in_flight_bytes, in_flight_requests; // 0: no limit
	struct sl_volume_config volume;
	uint32_t excess; // enum sl_quota_excess
	uint32_t mode;   // enum sl_quota_mode
	struct {         // which keys the file names
		bool bytes, spans, points, log_records, requests, burst, algorithm, window,
			delay_max, in_flight_bytes, in_flight_requests, excess, mode;
	} has;
};

struct sl_class_config {
	const char *name;
	struct sl_where where;
	const char *extends; // another class; NULL: none
	struct sl_where extends_where;
	uint64_t priority; // 1..SL_PRIORITY_MAX
	uint64_t body_bytes;
	struct {
		bool priority, body, cardinality;
	} has;                      // which keys the file names
	struct sl_list cardinality; // struct sl_cardinality_config
	struct sl_trim_config trim;
	struct sl_quota_config quota;
};
extern const struct sl_settings sl_class_settings, sl_quota_settings;

struct sl_credential_config {
	struct sl_where where;
	const char *digest;  // "sha256:<64 hex digits>"
	const char *expires; // RFC 3339; NULL: never
};

struct sl_tenant_config {
	const char *name;
	struct sl_where where;
	const char *class_name;
	struct sl_where class_where;
	struct sl_list credentials;  // struct sl_credential_config
	struct sl_list certificates; // const char *
	bool suspended;
	uint64_t body_bytes;
	bool has_body_bytes;
	struct sl_list cardinality; // struct sl_cardinality_config
	bool has_cardinality;
	struct sl_trim_config *trim;   // only the keys it names count
	struct sl_quota_config *quota; // only the keys it names count
};

// The tenants file.
struct sl_tenants_file {
	struct sl_list classes; // struct sl_class_config
	struct sl_list tenants; // struct sl_tenant_config
};
extern const struct sl_settings sl_tenants_file_settings;

enum sl_identify_by {
	SL_IDENTIFY_CREDENTIAL,
	SL_IDENTIFY_CERTIFICATE,
	SL_IDENTIFY_CLAIM,
	SL_IDENTIFY_RESOURCE,
};

// What becomes of a claim in a resource whose request's tenant is known otherwise.
enum sl_claimed { SL_CLAIMED_OVERWRITE, SL_CLAIMED_STRIP, SL_CLAIMED_KEEP };

// One part refused for now: its whole request is, or it alone.
enum sl_mixed { SL_MIXED_REFUSE_ALL, SL_MIXED_PARTIAL };

struct sl_identify_config {
	struct sl_where where;
	uint32_t by;                 // enum sl_identify_by
	const char *header;          // a trusted header
	struct sl_list resource;     // const char *: attributes
	struct sl_list trusted_from; // const char *: CIDRs or "mtls"
	bool open;
};

struct sl_credential_header_config {
	struct sl_where where;
	const char *header;
	const char *scheme; // NULL: the whole value
};

struct sl_tenants_config {
	struct sl_where where;
	const char *file;
	struct sl_list identify;    // struct sl_identify_config
	struct sl_list credentials; // struct sl_credential_header_config
	const char *directory;      // of files like `file`
	struct sl_tenants_redis_config *redis;
	const char *unknown;       // "refuse" or a tenant
	const char *fallback;      // of calls that name nobody; NULL: as `unknown`
	const char *template_name; // of unknown: create: the class of those that are made
	const char *overflow;      // "refuse" or a tenant: where created_max are there
	uint64_t created_max, created_idle_ns;
	struct sl_where unknown_where, fallback_where, template_where, overflow_where;
	uint32_t claimed; // enum sl_claimed
	struct sl_tenants_file inline_;
};

struct sl_quota_tls_config {
	const char *ca_file, *certificate_file, *key_file;
	bool verify;
};

// One Redis that keeps a part of the tenants' quotas.
#define SL_QUOTA_DATABASE_MAX 1000000

struct sl_quota_redis_config {
	struct sl_where where;
	const char *address; // host:port
	const char *user, *password;
	const char *prefix;
	uint64_t database;
	struct sl_quota_tls_config *tls; // NULL: plain
};

// A Redis that a control plane writes tenants to.
struct sl_tenants_redis_config {
	struct sl_quota_redis_config redis;
	uint64_t poll_ns;
	bool notify;
	const char *cache; // a file with what was good last; NULL: none
	bool required;
};

// Where that is: of the address as host:port, or as redis://host[:port][/database], which beside it
// may say what `database` and `tls` say (rediss:). No user and password in it: a configuration is
// shown, with secrets hidden by their keys.
struct sl_quota_redis_place {
	char host[256];
	uint16_t port;
	uint32_t database;
	bool tls;
};
// Returns 0 or -EINVAL.
int sl_quota_redis_place(const struct sl_quota_redis_config *redis,
			 struct sl_quota_redis_place *place);

struct sl_quotas_config {
	struct sl_where where;
	uint32_t mode;
	uint32_t mixed;             // enum sl_mixed
	struct sl_list redis;       // struct sl_quota_redis_config; empty: each instance by itself
	uint32_t without_redis;     // enum sl_fleet_without
	const char *volume_file;    // NULL: none
	uint64_t instances;         // that there are, until Redis has told; 0: not known
	uint64_t cardinality_bytes; // what all limits on different values may take
};

// What the module's rows fill.
struct sl_tenants_module_config {
	struct sl_tenants_config tenants;
	struct sl_quotas_config quotas;
};
