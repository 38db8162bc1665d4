#include "tenants/settings.h"

#include <stdio.h>
#include <stdlib.h>

#include "tenants/sources.h"
#include "tenants/table.h"
#include "tenants/tenants.h"

#include "config/rows.h"

#define NAMED(field_) .present_offset = offsetof(struct sl_quota_config, has.field_)

static const char *const algorithms[] = {"token_bucket", "leaky", "sliding_window", NULL};
static const char *const excesses[] = {"refuse", "cut", NULL};
static const char *const modes[] = {"enforce", "observe", NULL};

#define PER_S_MAX       1e11 // items; a bucket's arithmetic holds far more
#define BYTES_PER_S_MAX (100.0 * (double)SL_GIB)

#define VOLUME(field_) .present_offset = offsetof(struct sl_volume_config, has.field_)
#define VOLUME_MAX     1e17

static const char *const periods[] = {"day", "month", NULL};

static const struct sl_setting volume_rows[] = {
	ROW(sl_volume_config, bytes, "bytes", BYTES, VOLUME(bytes), .max = VOLUME_MAX,
	    .help = "Inflated body bytes in a period. 0: no limit."),
	ROW(sl_volume_config, spans, "spans", COUNT, VOLUME(spans), .max = VOLUME_MAX,
	    .help = "Spans in a period. 0: no limit."),
	ROW(sl_volume_config, points, "points", COUNT, VOLUME(points), .max = VOLUME_MAX,
	    .help = "Metric data points in a period. 0: no limit."),
	ROW(sl_volume_config, log_records, "log_records", COUNT, VOLUME(log_records),
	    .max = VOLUME_MAX, .help = "Log records in a period. 0: no limit."),
	ROW(sl_volume_config, requests, "requests", COUNT, VOLUME(requests), .max = VOLUME_MAX,
	    .help = "Export requests in a period. 0: no limit."),
	ROW(sl_volume_config, per, "per", ENUM, VOLUME(per), .choices = periods, .preset = "month",
	    .help = "day or month, of UTC."),
	ROW(sl_volume_config, soft, "soft", RATIO, VOLUME(soft), .max = 1, .preset = "80%",
	    .help = "The part at which the log and a counter tell; answers do not change."),
};
static const struct sl_settings volume_settings = SETTINGS(
	"volume", sl_volume_config, volume_rows,
	.help = "What a tenant may send in a day or a month, over all instances with quotas.redis, "
		"else this one, with quotas.volume_file. Beyond it calls are refused with 429 / "
		"RESOURCE_EXHAUSTED until the period ends (told to come back in an hour at most).");

static const struct sl_setting quota_rows[] = {
	ROW(sl_quota_config, bytes, "bytes", BYTES_PER_S, NAMED(bytes), .max = BYTES_PER_S_MAX,
	    .help = "Inflated body bytes a second, as received. 0: no limit."),
	ROW(sl_quota_config, spans, "spans", PER_S, NAMED(spans), .max = PER_S_MAX,
	    .help = "Spans a second, over all connections and shards. 0: no limit."),
	ROW(sl_quota_config, points, "points", PER_S, NAMED(points), .max = PER_S_MAX,
	    .help = "Metric data points a second. 0: no limit."),
	ROW(sl_quota_config, log_records, "log_records", PER_S, NAMED(log_records),
	    .max = PER_S_MAX, .help = "Log records a second. 0: no limit."),
	ROW(sl_quota_config, requests, "requests", PER_S, NAMED(requests), .max = PER_S_MAX,
	    .help = "Export requests a second. 0: no limit."),
	ROW(sl_quota_config, burst_ns, "burst", DURATION, .only = "algorithm: token_bucket",
	    NAMED(burst), .min = 2e8, .max = 3.6e12, .preset = "1s",
	    .help = "How long the sustained rates may be saved up: an idle tenant may send this "
		    "much at once. A request larger than the burst is taken into debt. Of "
		    "token_bucket "
		    "only."),
	ROW(sl_quota_config, algorithm, "algorithm", ENUM, NAMED(algorithm), .choices = algorithms,
	    .preset = "token_bucket",
	    .help = "token_bucket: idle time is saved up as `burst`. leaky: requests leave at the "
		    "rate, one after the other; one that comes too early is held for up to "
		    "`delay_max` and refused beyond that. sliding_window: rate times `window` in "
		    "any window, the one before counted by the part that is still covered. A leaky "
		    "bucket holds for one instance, so it cannot be had with quotas.redis."),
	ROW(sl_quota_config, delay_max_ns, "delay_max", DURATION, .only = "algorithm: leaky",
	    NAMED(delay_max), .min = 1e6, .max = 1e10, .preset = "500ms",
	    .help = "leaky: how long a request may be held. It stays within the time there is for "
		    "its answer."),
	ROW(sl_quota_config, window_ns, "window", DURATION, .only = "algorithm: sliding_window",
	    NAMED(window), .min = 1e9, .max = 8.64e13, .preset = "10s",
	    .help = "sliding_window: how long it is."),
	ROW(sl_quota_config, in_flight_bytes, "in_flight_bytes", BYTES, NAMED(in_flight_bytes),
	    .help = "Body bytes of requests that have not ended. 0: no limit."),
	ROW(sl_quota_config, in_flight_requests, "in_flight_requests", COUNT,
	    NAMED(in_flight_requests), .help = "Requests that have not ended. 0: no limit."),
	ROW(sl_quota_config, volume, "volume", OBJECT, .object = &volume_settings,
	    .help = "What it may send in a day or a month, beside the rates."),
	ROW(sl_quota_config, excess, "excess", ENUM, NAMED(excess), .choices = excesses,
	    .preset = "refuse",
	    .help = "A request with more bytes or items than the tenant has left. refuse: all of "
		    "it, to be sent again. cut: its first items, as many as fit, are taken, and "
		    "the rest is lost and counted in partial_success; where not one fits it is "
		    "refused. Nothing goes into debt then but an item larger than the burst. For "
		    "requests of several tenants see quotas.mixed."),
	ROW(sl_quota_config, mode, "mode", ENUM, NAMED(mode), .choices = modes, .preset = "enforce",
	    .help = "enforce, or observe: count what would be refused and refuse nothing. Unset: "
		    "as quotas.mode says."),
};
const struct sl_settings sl_quota_settings = SETTINGS(
	"quota", sl_quota_config, quota_rows,
	.help = "What a tenant may send. A tenant's own keys replace its class' one by "
		"one.");

static const struct sl_setting class_rows[] = {
	ROW(sl_class_config, name, NULL, KEY),
	ROW(sl_class_config, where, NULL, WHERE),
	ROW(sl_class_config, extends, "extends", STRING,
	    .where_offset = offsetof(struct sl_class_config, extends_where),
	    .help = "Another class: all that is not named here is as there."),
	ROW(sl_class_config, priority, "priority", COUNT, .min = 1, .max = SL_PRIORITY_MAX,
	    .preset = "1", .present_offset = offsetof(struct sl_class_config, has.priority),
	    .help = "Weight among tenants that compete for a shard: their bodies that are ready "
		    "are served in turn, so many times 4 KiB of each. In overload lower ones are "
		    "sampled harder first."),
	ROW(sl_class_config, body_bytes, "body", BYTES, .max = (double)SL_GIB,
	    .present_offset = offsetof(struct sl_class_config, has.body),
	    .help = "Largest inflated body. 0: the server's limit."),
	ROW(sl_class_config, cardinality, "cardinality", LIST, .element = SL_TYPE_OBJECT,
	    .object = &sl_cardinality_settings,
	    .present_offset = offsetof(struct sl_class_config, has.cardinality),
	    .help = "Limits on different values of attributes and on metric series, each "
		    "tenant's own. Not of tenants that are made from a template."),
	ROW(sl_class_config, trim, "limits", OBJECT, .object = &sl_trim_settings,
	    .help = "Limits on attributes and sizes of each tenant of the class."),
	ROW(sl_class_config, quota, "quota", OBJECT, .object = &sl_quota_settings,
	    .help = "The quota of each tenant of the class."),
};
const struct sl_settings sl_class_settings = SETTINGS("class", sl_class_config, class_rows,
						      .help = "What tenants have in common.");

static const struct sl_setting credential_rows[] = {
	ROW(sl_credential_config, where, NULL, WHERE),
	ROW(sl_credential_config, digest, "digest", STRING, .required = true,
	    .help = "sha256: and the 64 hexadecimal digits of the secret's SHA-256. The secret is "
		    "what follows the scheme word; of Basic, the decoded user:password."),
	ROW(sl_credential_config, expires, "expires", STRING,
	    .help = "RFC 3339 time after which it is unknown, as 2027-01-31T00:00:00Z."),
};
static const struct sl_settings credential_settings = SETTINGS(
	"tenant.credential", sl_credential_config, credential_rows, .help = "One live secret.");

static const struct sl_setting tenant_rows[] = {
	ROW(sl_tenant_config, name, NULL, KEY),
	ROW(sl_tenant_config, where, NULL, WHERE),
	ROW(sl_tenant_config, class_name, "class", STRING,
	    .where_offset = offsetof(struct sl_tenant_config, class_where),
	    .help = "Its class; unset: no limits."),
	ROW(sl_tenant_config, credentials, "credentials", LIST, .element = SL_TYPE_CHOICE,
	    .object = &credential_settings, .shorthand = "digest",
	    .help = "Its secrets; several may be live at once."),
	ROW(sl_tenant_config, certificates, "certificates", LIST, .element = SL_TYPE_STRING,
	    .help = "Names of client certificates that are this tenant (identify: certificate)."),
	ROW(sl_tenant_config, suspended, "suspended", BOOL, .preset = "false",
	    .help = "Known, but refused with 403 / PERMISSION_DENIED."),
	ROW(sl_tenant_config, body_bytes, "body", BYTES, .max = (double)SL_GIB,
	    .present_offset = offsetof(struct sl_tenant_config, has_body_bytes),
	    .help = "Largest inflated body. 0: the server's limit. Unset: the class'."),
	ROW(sl_tenant_config, cardinality, "cardinality", LIST, .element = SL_TYPE_OBJECT,
	    .object = &sl_cardinality_settings,
	    .present_offset = offsetof(struct sl_tenant_config, has_cardinality),
	    .help = "Replaces the class' list; []: none."),
	ROW(sl_tenant_config, trim, "limits", OPTIONAL, .object = &sl_trim_settings,
	    .help = "Replaces the class' limits, only in the keys that are named here."),
	ROW(sl_tenant_config, quota, "quota", OPTIONAL, .object = &sl_quota_settings,
	    .help = "Replaces the class' quota, only in the keys that are named here."),
};
static const struct sl_settings tenant_settings = SETTINGS(
	"tenant", sl_tenant_config, tenant_rows,
	.help = "One tenant: 1-150 bytes of letters, digits and ! - _ . * ' ( ).");

#define FILE_ROWS(struct_, in_, tenants_key_)                                                      \
	ROW(struct_, in_ classes, "classes", MAP, .object = &sl_class_settings,                    \
	    .help = "Classes by name."),                                                           \
		ROW(struct_, in_ tenants, tenants_key_, MAP, .object = &tenant_settings,           \
		    .help = "Tenants by name.")

static const struct sl_setting file_rows[] = {FILE_ROWS(sl_tenants_file, , "tenants")};
const struct sl_settings sl_tenants_file_settings = SETTINGS(
	"tenants file", sl_tenants_file, file_rows,
	.help = "The file that tenants.file names. It is read again when it changes.");

static const char *const by_choices[] = {"credential", "certificate", "claim", "resource", NULL};

static const struct sl_setting identify_rows[] = {
	ROW(sl_identify_config, where, NULL, WHERE),
	ROW(sl_identify_config, by, "by", ENUM, .choices = by_choices, .preset = "claim",
	    .help = "credential: a secret in a header that `credentials` lists. certificate: the "
		    "name that mutual TLS has verified. claim: `header` or `resource` says. "
		    "resource: "
		    "as claim, with the preset attributes."),
	ROW(sl_identify_config, header, "header", STRING, .only = "by: claim",
	    .help = "The header whose value is the tenant's name, as X-Scope-OrgID."),
	ROW(sl_identify_config, resource, "resource", LIST, .only = "by: claim|resource",
	    .element = SL_TYPE_STRING,
	    .help = "Resource attributes whose value is the tenant's name, the first that is set. "
		    "One body then splits into a part for each tenant, 64 at most. Unset with by: "
		    "resource: [tenant.id, tenant]."),
	ROW(sl_identify_config, trusted_from, "trusted_from", LIST,
	    .only = "by: claim|resource; !open", .element = SL_TYPE_STRING,
	    .help = "Who may name tenants: CIDR blocks, or mtls for any verified client "
		    "certificate. Unset: loopback."),
	ROW(sl_identify_config, open, "open", BOOL, .only = "by: claim|resource", .preset = "false",
	    .help = "Believe everyone."),
};
static const struct sl_settings identify_settings = SETTINGS(
	"tenants.identify", sl_identify_config, identify_rows,
	.help = "One way to name a tenant. What is authenticated (credential, certificate) "
		"wins over what is claimed, whatever the order.");

static const struct sl_setting credential_header_rows[] = {
	ROW(sl_credential_header_config, where, NULL, WHERE),
	ROW(sl_credential_header_config, header, "header", STRING, .required = true,
	    .help = "Header name, in any case."),
	ROW(sl_credential_header_config, scheme, "scheme", STRING,
	    .help = "The word before the secret, in any case, as Bearer. Unset: none."),
};
static const struct sl_settings credential_header_settings = SETTINGS(
	"tenants.credentials", sl_credential_header_config, credential_header_rows,
	.help = "A header that carries a secret.");

static const char *const claimed_choices[] = {"overwrite", "strip", "keep", NULL};

static bool skip(const char **text, const char *prefix)
{
	const size_t size = strlen(prefix);

	if (strncmp(*text, prefix, size) != 0)
		return false;
	*text += size;
	return true;
}

int sl_quota_redis_place(const struct sl_quota_redis_config *redis,
			 struct sl_quota_redis_place *place)
{
	const char *text = redis->address;
	const bool tls = skip(&text, "rediss://"), url = tls || skip(&text, "redis://");
	char address[sizeof(place->host) + 8];
	const size_t size = strcspn(text, "/");
	char *end = NULL;

	place->tls = tls || redis->tls;
	place->database = (uint32_t)redis->database;
	if (size >= sizeof(place->host) || (text[size] && !url))
		return -EINVAL;
	if (text[size] && text[size + 1]) {
		const unsigned long number = strtoul(text + size + 1, &end, 10);

		if (*end || number > SL_QUOTA_DATABASE_MAX)
			return -EINVAL;
		place->database = (uint32_t)number;
	}
	snprintf(address, sizeof(address), "%.*s", (int)size, text);
	if (url && (!strrchr(address, ':') || address[size - 1] == ']'))
		strcat(address, ":6379");
	if (strchr(address, '@') || sl_address_split(address, place->host, &place->port) ||
	    !place->port || !*place->host)
		return -EINVAL;
	return 0;
}

static void check_redis(const void *object, struct sl_errors *errors)
{
	const struct sl_quota_redis_config *redis = object;
	struct sl_quota_redis_place place;

	if (redis->address && strchr(redis->address, '@'))
		sl_errors_add(errors, &redis->where,
			      "address: expected no user and password in it; they have keys of "
			      "their own");
	else if (redis->address && sl_quota_redis_place(redis, &place))
		sl_errors_add(errors, &redis->where,
			      "%s: expected host:port or redis://host:port/database",
			      redis->address);
	if (redis->user && !redis->password)
		sl_errors_add(errors, &redis->where, "user: needs a password");
	if (redis->prefix && (!*redis->prefix || strlen(redis->prefix) > SL_QUOTA_PREFIX_MAX ||
			      strpbrk(redis->prefix, "{}")))
		sl_errors_add(errors, &redis->where, "prefix: expected 1-%d bytes without braces",
			      SL_QUOTA_PREFIX_MAX);
	if (redis->tls && !redis->tls->certificate_file != !redis->tls->key_file)
		sl_errors_add(errors, &redis->where,
			      "tls: certificate_file and key_file go together");
}

static const struct sl_setting redis_tls_rows[] = {
	ROW(sl_quota_tls_config, ca_file, "ca_file", PATH,
	    .help = "Whom to trust, as PEM. Unset: the system's certificates."),
	ROW(sl_quota_tls_config, certificate_file, "certificate_file", PATH,
	    .help = "Our certificate chain, for mutual TLS."),
	ROW(sl_quota_tls_config, key_file, "key_file", PATH, .help = "Its private key."),
	ROW(sl_quota_tls_config, verify, "verify", BOOL, .preset = "true",
	    .help = "Whether the certificate and its name are checked."),
};
static const struct sl_settings redis_tls_settings = SETTINGS(
	"redis.tls", sl_quota_tls_config, redis_tls_rows, .help = "TLS to this Redis.");

static void check_source(const void *object, struct sl_errors *errors)
{
	const struct sl_tenants_redis_config *source = object;

	check_redis(&source->redis, errors);
}

static const struct sl_setting source_rows[] = {
	ROW(sl_tenants_redis_config, redis.where, NULL, WHERE),
	ROW(sl_tenants_redis_config, redis.address, "address", STRING, .required = true,
	    .apply = SL_APPLY_RESTART,
	    .help = "host:port, or redis://host:port/database (rediss: TLS)."),
	ROW(sl_tenants_redis_config, redis.tls, "tls", OPTIONAL, .object = &redis_tls_settings,
	    .apply = SL_APPLY_RESTART, .help = "Set, even to {}: TLS."),
	ROW(sl_tenants_redis_config, redis.user, "user", STRING, .apply = SL_APPLY_RESTART,
	    .help = "Unset: Redis' default user."),
	ROW(sl_tenants_redis_config, redis.password, "password", STRING, .secret = true,
	    .apply = SL_APPLY_RESTART, .help = "As ${env:REDIS_PASSWORD}."),
	ROW(sl_tenants_redis_config, redis.database, "database", COUNT,
	    .max = SL_QUOTA_DATABASE_MAX, .preset = "0", .apply = SL_APPLY_RESTART,
	    .help = "Its number."),
	ROW(sl_tenants_redis_config, redis.prefix, "prefix", STRING, .preset = "sluice",
	    .apply = SL_APPLY_RESTART,
	    .help = "Of the two keys: PREFIX:tenants, a hash with a field for each tenant whose "
		    "value is what the tenants file would say of it (JSON or YAML), and "
		    "PREFIX:tenants:version, to be changed after it."),
	ROW(sl_tenants_redis_config, poll_ns, "poll", DURATION, .min = 5e7, .max = 3.6e12,
	    .preset = "1s", .apply = SL_APPLY_RESTART,
	    .help = "How often the version is looked at."),
	ROW(sl_tenants_redis_config, notify, "notify", BOOL, .preset = "false",
	    .apply = SL_APPLY_RESTART,
	    .help = "Look as soon as Redis tells that the version is another one, too. It has to "
		    "be told to (notify-keyspace-events K$), and a user of ours needs +subscribe "
		    "and the channel."),
	ROW(sl_tenants_redis_config, cache, "cache", PATH, .apply = SL_APPLY_RESTART,
	    .help = "A file that keeps what was good last: a start without Redis takes it."),
	ROW(sl_tenants_redis_config, required, "required", BOOL, .preset = "true",
	    .apply = SL_APPLY_RESTART,
	    .help = "Whether a start with neither Redis nor cache is refused; else the tenants of "
		    "the files begin alone."),
};
static const struct sl_settings source_settings = SETTINGS(
	"tenants.redis", sl_tenants_redis_config, source_rows, .check = check_source,
	.help = "Tenants that a control plane writes to Redis. What is wrong there is not taken, "
		"and what was good before stays.");

static const struct sl_setting tenants_rows[] = {
	ROW(sl_tenants_config, where, NULL, WHERE),
	ROW(sl_tenants_config, file, "file", PATH, .watched = true,
	    .help = "The tenants file (keys classes, tenants); read again when it changes."),
	ROW(sl_tenants_config, directory, "directory", PATH, .watched = true,
	    .help = "A folder of such files, all that end in .yaml or .yml; a change of any of "
		    "them counts. Names are unique over all of them."),
	ROW(sl_tenants_config, redis, "redis", OPTIONAL, .object = &source_settings,
	    .shorthand = "address", .apply = SL_APPLY_RESTART,
	    .help = "Tenants from Redis, beside those of the files; names are unique over all of "
		    "them."),
	ROW(sl_tenants_config, identify, "identify", LIST, .element = SL_TYPE_CHOICE,
	    .object = &identify_settings, .shorthand = "by",
	    .help = "Ways to name a call's tenant, in order. Unset: [credential]."),
	ROW(sl_tenants_config, credentials, "credentials", LIST, .element = SL_TYPE_CHOICE,
	    .object = &credential_header_settings, .shorthand = "header",
	    .help = "Headers that carry secrets. Unset: Authorization with Bearer, Basic, ApiKey, "
		    "Api-Token and Api-Key, and x-api-key, api-key, x-honeycomb-team, dd-api-key, "
		    "signoz-ingestion-key, x-sf-token."),
	ROW(sl_tenants_config, unknown, "unknown", STRING, .preset = "refuse",
	    .where_offset = offsetof(struct sl_tenants_config, unknown_where),
	    .help = "Calls that name no tenant we know: refuse, the tenant they belong to, or "
		    "create: one is made of the name, as `template` says. An unknown credential "
		    "is refused always."),
	ROW(sl_tenants_config, template_name, "template", STRING, .only = "unknown: create",
	    .where_offset = offsetof(struct sl_tenants_config, template_where),
	    .help = "unknown: create: the class of tenants that are made. Unset: no limits. All "
		    "that "
		    "are new share one such quota, for the moment until each "
		    "has its own."),
	ROW(sl_tenants_config, created_max, "created_max", COUNT, .only = "unknown: create",
	    .min = 1, .max = SL_CREATED_MAX, .preset = "1000", .apply = SL_APPLY_RESTART,
	    .help = "unknown: create: so many at a time, in each instance. Their memory is taken "
		    "at once, so that made-up names cost none."),
	ROW(sl_tenants_config, created_idle_ns, "idle", DURATION, .only = "unknown: create",
	    .min = 1e9, .max = 3.2e16, .preset = "1h",
	    .help = "unknown: create: who sends nothing for so long makes room for another."),
	ROW(sl_tenants_config, overflow, "overflow", STRING, .only = "unknown: create",
	    .preset = "refuse", .where_offset = offsetof(struct sl_tenants_config, overflow_where),
	    .help = "unknown: create: what becomes of new names when created_max are there: "
		    "refuse, or the tenant they belong to."),
	ROW(sl_tenants_config, fallback, "default", STRING,
	    .where_offset = offsetof(struct sl_tenants_config, fallback_where),
	    .help = "The tenant of calls without any credential or claim. Unset: as unknown says."),
	ROW(sl_tenants_config, claimed, "claimed", ENUM, .choices = claimed_choices,
	    .preset = "overwrite",
	    .help = "What becomes of the attributes that `identify` lists under resource when a "
		    "credential, a certificate, a header or the default has named the tenant: "
		    "overwrite them with its name, strip them, or keep them. Every occurrence."),
	FILE_ROWS(sl_tenants_config, inline_., "list"),
};
static const struct sl_settings tenants_settings = SETTINGS(
	"tenants", sl_tenants_config, tenants_rows,
	.help = "Who calls belong to. With no tenants at all, every call belongs to one "
		"tenant named default.");

static const struct sl_setting redis_rows[] = {
	ROW(sl_quota_redis_config, where, NULL, WHERE),
	ROW(sl_quota_redis_config, address, "address", STRING, .required = true,
	    .help = "host:port, or redis://host:port/database (rediss: TLS). A name is resolved "
		    "anew at each connection."),
	ROW(sl_quota_redis_config, tls, "tls", OPTIONAL, .object = &redis_tls_settings,
	    .help = "Set, even to {}: TLS."),
	ROW(sl_quota_redis_config, user, "user", STRING, .help = "Unset: Redis' default user."),
	ROW(sl_quota_redis_config, password, "password", STRING, .secret = true,
	    .help = "As ${env:REDIS_PASSWORD}."),
	ROW(sl_quota_redis_config, database, "database", COUNT, .max = SL_QUOTA_DATABASE_MAX,
	    .preset = "0", .help = "Its number."),
	ROW(sl_quota_redis_config, prefix, "prefix", STRING, .preset = "sluice",
	    .help = "What our keys begin with, the same on all instances."),
};
static const struct sl_settings redis_settings = SETTINGS(
	"quotas.redis", sl_quota_redis_config, redis_rows, .check = check_redis,
	.help = "One Redis that keeps the quotas of its share of the tenants.");

static void check_quotas(const void *object, struct sl_errors *errors)
{
	const struct sl_quotas_config *quotas = object;

	if (quotas->redis.count > SL_QUOTA_REDIS_MAX)
		sl_errors_add(errors, &quotas->where, "redis: at most %d", SL_QUOTA_REDIS_MAX);
}

static const char *const without_choices[] = {"last_share", "open", "closed", "equal_share", NULL};
static const char *const mixed_choices[] = {"refuse_all", "partial", NULL};

static const struct sl_setting quotas_rows[] = {
	ROW(sl_quotas_config, where, NULL, WHERE),
	ROW(sl_quotas_config, redis, "redis", LIST, .element = SL_TYPE_CHOICE,
	    .object = &redis_settings, .shorthand = "address", .apply = SL_APPLY_RESTART,
	    .help = "Redis that hold one quota for all instances that name the same ones in the "
		    "same order; tenants are spread over them. No request waits for them. Unset: "
		    "quotas hold for each instance by itself."),
	ROW(sl_quotas_config, without_redis, "without_redis", ENUM, .only = "redis",
	    .choices = without_choices, .preset = "last_share", .apply = SL_APPLY_RESTART,
	    .help = "While a tenant's Redis does not answer: last_share goes on at this "
		    "instance's last share of the quota, open admits everything, closed only "
		    "what was granted before, equal_share the N-th part of the quota."),
	ROW(sl_quotas_config, instances, "instances", COUNT, .only = "redis", .max = 1000,
	    .preset = "0", .apply = SL_APPLY_RESTART,
	    .help = "How many instances there are, until Redis has counted them. 0: one."),
	ROW(sl_quotas_config, volume_file, "volume_file", PATH, .only = "!redis",
	    .apply = SL_APPLY_RESTART,
	    .help = "Where this instance keeps what its tenants have used of their `volume`, so "
		    "that a restart does not give it anew. Written every second in which something "
		    "changed. Not used with `redis`, which keeps the volumes of all instances."),
	ROW(sl_quotas_config, mixed, "mixed", ENUM, .choices = mixed_choices,
	    .preset = "refuse_all",
	    .help = "A request of several tenants, one of which is over its quota. refuse_all: "
		    "all of it is refused, to be sent again, and nobody is charged. partial: the "
		    "others' items are taken, its own are lost and counted in partial_success."),
	ROW(sl_quotas_config, cardinality_bytes, "cardinality_memory", BYTES, .preset = "1GiB",
	    .help = "What the limits on different values (cardinality) of all tenants may take "
		    "together when all are reached; a configuration that could take more is "
		    "refused. Memory is taken as values come. 0: no limit."),
	ROW(sl_quotas_config, mode, "mode", ENUM, .choices = modes, .preset = "enforce",
	    .help = "For tenants that do not say: enforce, or observe: count what would be "
		    "refused and refuse nothing."),
};
static const struct sl_settings quotas_settings = SETTINGS(
	"quotas", sl_quotas_config, quotas_rows, .check = check_quotas,
	.help = "How quotas work, for all tenants.");

static const struct sl_setting module_rows[] = {
	ROW(sl_tenants_module_config, tenants, "tenants", OBJECT, .object = &tenants_settings,
	    .help = "Who calls belong to."),
	ROW(sl_tenants_module_config, quotas, "quotas", OBJECT, .object = &quotas_settings,
	    .help = "How quotas work."),
};
static const struct sl_settings module_settings = SETTINGS("tenants module",
							   sl_tenants_module_config, module_rows,
							   .help = "Tenants and their quotas.");

static void *build(const void *object, const struct sl_build *build)
{
	const struct sl_tenants_module_config *config = object;
	const struct sl_tenants *before = build->before ? build->before->parts[SL_MODULE_TENANTS]
							: NULL;
	struct sl_sources sources;
	struct sl_tenants *tenants = NULL;

	if (!sl_sources_load(&sources, &config->tenants, before, build->check_only, build->errors))
		tenants = sl_tenants_build(config, sources.files, sources.count, before,
					   build->errors);
	if (tenants && sources.text)
		tenants->source = sl_source_text_get(sources.text);
	sl_sources_fini(&sources);
	return tenants;
}

static void destroy(void *part)
{
	sl_tenants_destroy(part);
}

const struct sl_module sl_tenants_module = {
	.id = SL_MODULE_TENANTS,
	.name = "tenants",
	.settings = &module_settings,
	.build = build,
	.destroy = destroy,
};
