#include "dataplane/shard/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "dataplane/shard/datagram.h"
#include "dataplane/tls/tls.h"
#include "sampling/sampling.h"
#include "tenants/settings.h"

#include "config/rows.h"

struct certificate_config {
	const char *certificate_file, *key_file;
};

struct tls_config {
	struct sl_where where;
	struct sl_list certificates; // struct certificate_config
	const char *client_ca_file;
	bool require_client;
	const char *min_version;
	const char *ticket_key_file;
};

struct listen_config {
	struct sl_where where;
	struct sl_address address;
	struct tls_config *tls;
};

struct limits_config {
	uint64_t body_bytes, header_bytes, connections, streams, items, value_depth, json_depth;
	uint64_t connection_share, tenant_share;
};

struct connection_config {
	uint64_t idle_timeout_ns, header_timeout_ns, body_timeout_ns, age_max_ns, age_grace_ns;
	uint64_t early_calls;
	double body_rate_min;
};

struct overload_config {
	double busy, memory, calm;
	uint64_t after_ns, halvings;
	bool refuse;
};

struct server_config {
	struct sl_list listen; // struct listen_config
	struct sl_datagrams_config *datagrams;
	uint64_t answer_within_ns;
	struct limits_config limits;
	struct connection_config connection;
	struct overload_config *overload;
	bool json_enum_names;
	struct sl_list cors_origins; // const char *
};

static const struct sl_setting certificate_rows[] = {
	ROW(certificate_config, certificate_file, "certificate_file", PATH, .required = true,
	    .watched = true, .help = "PEM file: the certificate, then its chain."),
	ROW(certificate_config, key_file, "key_file", PATH, .required = true, .watched = true,
	    .help = "PEM file with the private key."),
};
static const struct sl_settings certificate_settings = SETTINGS(
	"certificate", certificate_config, certificate_rows,
	.help = "A certificate and its key; both are read again when they change.");

static const struct sl_setting tls_rows[] = {
	{.type = SL_TYPE_WHERE, .offset = offsetof(struct tls_config, where)},
	ROW(tls_config, certificates, "certificates", LIST, .required = true,
	    .element = SL_TYPE_OBJECT, .object = &certificate_settings,
	    .help = "Certificates; SNI picks by the names they hold, the first is the default."),
	ROW(tls_config, client_ca_file, "client_ca_file", PATH, .watched = true,
	    .help = "PEM file of the authorities whose client certificates are accepted (mTLS)."),
	ROW(tls_config, require_client, "require_client", BOOL, .preset = "false",
	    .help = "Refuse clients without a certificate of client_ca_file."),
	ROW(tls_config, min_version, "min_version", STRING, .preset = "\"1.2\"",
	    .help = "Lowest TLS version: \"1.2\" or \"1.3\"."),
	ROW(tls_config, ticket_key_file, "ticket_key_file", PATH, .watched = true,
	    .help = "48 or 80 random bytes that all instances share, so that sessions resume "
		    "on any of them."),
};

static void check_tls(const void *object, struct sl_errors *errors)
{
	const struct tls_config *tls = object;

	if (!tls->certificates.count)
		sl_errors_add(errors, &tls->where, "tls: certificates must name at least one");
	if (tls->require_client && !tls->client_ca_file)
		sl_errors_add(errors, &tls->where, "tls: require_client needs client_ca_file");
	if (strcmp(tls->min_version, "1.2") != 0 && strcmp(tls->min_version, "1.3") != 0)
		sl_errors_add(errors, &tls->where,
			      "tls: min_version must be \"1.2\" or \"1.3\", got \"%s\"",
			      tls->min_version);
}

static const struct sl_settings tls_settings = SETTINGS(
	"listen.tls", tls_config, tls_rows, .check = check_tls,
	.help = "TLS of one listener. Files are read again when they change.");

static const struct sl_setting listen_rows[] = {
	{.type = SL_TYPE_WHERE, .offset = offsetof(struct listen_config, where)},
	ROW(listen_config, address, "address", ADDRESS, .required = true, .apply = SL_APPLY_RESTART,
	    .help = "Address and port. Each listener speaks gRPC, HTTP/2 and HTTP/1.1."),
	ROW(listen_config, tls, "tls", OPTIONAL, .object = &tls_settings,
	    .help = "Speak TLS here; without it the listener is plain."),
};
static const struct sl_settings listen_settings = SETTINGS("listen", listen_config, listen_rows,
							   .help = "One listening address.");

static const struct sl_setting limits_rows[] = {
	ROW(limits_config, body_bytes, "body_bytes", BYTES, .min = 1024, .max = 1e9,
	    .preset = "16MiB",
	    .help = "Largest body, as it comes and inflated. Twice it must fit half of "
		    "memory_budget."),
	ROW(limits_config, header_bytes, "header_bytes", BYTES, .min = 1024, .max = 1 << 20,
	    .preset = "8KiB",
	    .help = "Largest request head: the sum of name, value and 32 for each field."),
	ROW(limits_config, connections, "connections", COUNT, .min = 1, .max = 1e6,
	    .preset = "100k", .help = "Open connections of one shard."),
	ROW(limits_config, streams, "streams", COUNT, .min = 1, .max = 1e5, .preset = "1024",
	    .help = "Open calls on one connection: streams of HTTP/2, pipelined requests of "
		    "HTTP/1."),
	ROW(limits_config, items, "items", COUNT, .min = 0, .max = 1e8, .preset = "0",
	    .help = "Most items one request may carry; 0: body_bytes / 32."),
	ROW(limits_config, value_depth, "value_depth", COUNT, .min = 1, .max = 200, .preset = "64",
	    .help = "Deepest nesting of attribute values."),
	ROW(limits_config, json_depth, "json_depth", COUNT, .min = 8, .max = 1000, .preset = "200",
	    .help = "Deepest nesting of a JSON body."),
	ROW(limits_config, connection_share, "connection_share", COUNT, .min = 1, .max = 1000,
	    .preset = "16",
	    .help = "A connection may reserve 1/N of the budget for bodies that have not "
		    "arrived, or one body of the largest size; all together half of it."),
	ROW(limits_config, tenant_share, "tenant_share", COUNT, .min = 1, .max = 1000,
	    .preset = "4",
	    .help = "A tenant may reserve 1/N of the budget, over all connections, for bodies that "
		    "have not arrived or wait for their turn, or one body of the largest size; a "
		    "quarter more for small ones."),
};
static const struct sl_settings limits_settings = SETTINGS("limits", limits_config, limits_rows,
							   .help = "What one request may take.");

static const struct sl_setting connection_rows[] = {
	ROW(connection_config, idle_timeout_ns, "idle_timeout", DURATION, .preset = "5m",
	    .help = "A connection without an open call is closed after it; 0: never."),
	ROW(connection_config, header_timeout_ns, "header_timeout", DURATION, .min = 1e6,
	    .max = 3.6e12, .preset = "10s",
	    .help = "A TLS handshake, or a request's head, must be whole within it."),
	ROW(connection_config, body_timeout_ns, "body_timeout", DURATION, .min = 1e6, .max = 3.6e12,
	    .preset = "15s",
	    .help = "A body must make progress within it; so must a client reading answers."),
	ROW(connection_config, body_rate_min, "body_rate_min", BYTES_PER_S, .preset = "1KiB/s",
	    .help = "A body that was slower than this over body_timeout is cut."),
	ROW(connection_config, age_max_ns, "age_max", DURATION, .preset = "0s",
	    .help = "Connections are asked to go (GOAWAY) at this age, give or take a tenth; "
		    "0: never."),
	ROW(connection_config, age_grace_ns, "age_grace", DURATION, .preset = "30s",
	    .help = "How long an aged connection may finish its calls."),
	ROW(connection_config, early_calls, "early_calls", COUNT, .max = 1e9, .preset = "10k",
	    .help = "A client over its quota that comes before the time it was told is told again, "
		    "so many times a second on one connection; beyond that it is not read until "
		    "then (HTTP/1), or its streams are refused, then GOAWAY (HTTP/2). 0: told "
		    "always."),
};
static const struct sl_settings connection_settings = SETTINGS(
	"connection", connection_config, connection_rows, .help = "Timeouts of connections.");

static const struct sl_setting overload_rows[] = {
	ROW(overload_config, busy, "busy", RATIO, .min = 0.01, .max = 1, .preset = "95%",
	    .help = "Share of its time that a shard works, above which it sheds load."),
	ROW(overload_config, memory, "memory", RATIO, .min = 0.01, .max = 1, .preset = "85%",
	    .help = "Share of memory_budget in use, above which it sheds load."),
	ROW(overload_config, calm, "calm", RATIO, .min = 0, .max = 1, .preset = "80%",
	    .help = "Below this share of both marks it takes a step back."),
	ROW(overload_config, after_ns, "after", DURATION, .min = 1e8, .max = 6e11, .preset = "2s",
	    .help = "How long a mark must be passed before each step, either way."),
	ROW(overload_config, halvings, "halvings", COUNT, .min = 1, .max = SL_SAMPLING_THINNINGS,
	    .preset = "4",
	    .help = "How often a priority's sampling rate is halved before the next priority's "
		    "is."),
	ROW(overload_config, refuse, "refuse", BOOL, .preset = "true",
	    .help = "When all are sampled as hard as that, refuse calls, the lowest priority "
		    "first; the highest never."),
};
static const struct sl_settings overload_settings = SETTINGS(
	"overload", overload_config, overload_rows,
	.help = "What a shard does that has more to do than it can: spans and log records are "
		"sampled harder, lower priorities first, with thresholds that say so.");

static void check_server(const void *object, struct sl_errors *errors)
{
	const struct server_config *config = object;

	const struct listen_config *listens = config->listen.items;

	if (!config->listen.count)
		sl_errors_add(errors, NULL,
			      "listen: at least one address is needed, such as \"0.0.0.0:4317\"");
	for (size_t i = 1; i < config->listen.count; i++) {
		for (size_t j = 0; j < i; j++) {
			char text[SL_ADDRESS_TEXT_MAX];

			if (sl_address_clashes(&listens[i].address, &listens[j].address))
				sl_errors_add(errors, &listens[i].where,
					      "listen: %s is taken by "
					      "an earlier address",
					      sl_address_text(&listens[i].address, text));
		}
	}
}

static const struct sl_setting server_rows[] = {
	ROW(server_config, listen, "listen", LIST, .apply = SL_APPLY_RESTART,
	    .element = SL_TYPE_CHOICE, .object = &listen_settings, .shorthand = "address",
	    .help = "Addresses to take OTLP on: \"0.0.0.0:4317\", or {address, tls}."),
	ROW(server_config, datagrams, "datagrams", OPTIONAL, .object = &sl_datagrams_settings,
	    .apply = SL_APPLY_RESTART, .help = "Take OTLP in UDP datagrams too; unset: not."),
	ROW(server_config, answer_within_ns, "answer_within", DURATION, .min = 1e6, .max = 6e11,
	    .preset = "4s",
	    .help = "A call not confirmed by then (or by its grpc-timeout) is answered "
		    "UNAVAILABLE / 503."),
	ROW(server_config, limits, "limits", OBJECT, .object = &limits_settings,
	    .help = "What one request may take."),
	ROW(server_config, connection, "connection", OBJECT, .object = &connection_settings,
	    .help = "Timeouts of connections."),
	ROW(server_config, overload, "overload", OPTIONAL, .object = &overload_settings,
	    .help = "Shed load by priority; unset: calls wait, and are refused when memory ends."),
	ROW(server_config, json_enum_names, "json_enum_names", BOOL, .preset = "false",
	    .help = "Take names of enum values in OTLP JSON, which the specification forbids."),
	ROW(server_config, cors_origins, "cors_origins", LIST, .element = SL_TYPE_STRING,
	    .help = "Origins that browsers may send from; \"*\" is any."),
};
static const struct sl_settings server_settings = SETTINGS(
	"server", server_config, server_rows, .check = check_server,
	.help = "Listeners and the limits of their connections.");

static struct sl_tls_context *make_tls(const struct tls_config *config, uint64_t *files_hash,
				       struct sl_errors *errors)
{
	struct sl_tls_certificate *certificates;
	const struct certificate_config *from = config->certificates.items;
	struct sl_tls_context *context;
	char error[256];

	certificates = calloc(config->certificates.count, sizeof(*certificates));
	if (!certificates)
		return NULL;
	for (size_t i = 0; i < config->certificates.count; i++)
		certificates[i] = (struct sl_tls_certificate){from[i].certificate_file,
							      from[i].key_file};

	const struct sl_tls_config tls = {
		.server = true,
		.certificates = certificates,
		.certificate_count = (uint32_t)config->certificates.count,
		.ca_file = config->client_ca_file,
		.require_client = config->require_client,
		.min_version = config->min_version,
		.ticket_key_file = config->ticket_key_file,
	};

	context = sl_tls_context_create(&tls, error, sizeof(error));
	*files_hash = sl_tls_config_files_hash(&tls);
	if (!context)
		sl_errors_add(errors, &config->where, "tls: %s", error);
	free(certificates);
	return context;
}

static void destroy(void *object)
{
	struct sl_server_part *part = object;

	if (!part)
		return;
	for (uint32_t i = 0; i < part->listen_count; i++)
		sl_tls_context_put(part->listens[i].tls);
	free(part->listens);
	free(part);
}

static void fill_limits(struct sl_server_limits *limits, const struct server_config *config)
{
	*limits = (struct sl_server_limits){
		.body_bytes_max = config->limits.body_bytes,
		.header_bytes_max = config->limits.header_bytes,
		.connections_max = config->limits.connections,
		.streams_max = config->limits.streams,
		.idle_timeout_ns = config->connection.idle_timeout_ns,
		.header_timeout_ns = config->connection.header_timeout_ns,
		.body_timeout_ns = config->connection.body_timeout_ns,
		.body_rate_min_bytes_per_s = config->connection.body_rate_min,
		.age_max_ns = config->connection.age_max_ns,
		.age_grace_ns = config->connection.age_grace_ns,
		.answer_within_ns = config->answer_within_ns,
		.early_calls_max = config->connection.early_calls,
		.json_depth_max = config->limits.json_depth,
		.value_depth_max = config->limits.value_depth,
		.items_max = config->limits.items ? config->limits.items
						  : config->limits.body_bytes / 32,
		.connection_reserved_share = config->limits.connection_share,
		.tenant_reserved_share = config->limits.tenant_share,
		.json_enum_names = config->json_enum_names,
		.cors_origins = config->cors_origins.items,
		.cors_origin_count = (uint32_t)config->cors_origins.count,
	};
}

static void fill_overload(struct sl_overload_limits *limits, const struct overload_config *config)
{
	if (!config)
		return;
	*limits = (struct sl_overload_limits){
		.on = true,
		.busy = config->busy,
		.memory = config->memory,
		.calm = config->calm,
		.after_ns = config->after_ns,
		.halvings = (uint32_t)config->halvings,
		.refuse = config->refuse,
	};
}

// How a credential is to be given: the schemes that Authorization takes, else the first header that
// carries one. Of the preset list only Bearer is named: a browser would ask its user for Basic's.
static void fill_challenge(struct sl_server_part *part, const struct sl_tenants_config *tenants)
{
	const struct sl_credential_header_config *rows = tenants ? tenants->credentials.items
								 : NULL;
	const size_t count = rows ? tenants->credentials.count : 0;
	const size_t size = sizeof(part->challenge);
	size_t used = 0;

	part->limits.challenge = part->challenge;
	for (size_t i = 0; i < count && used < size; i++) {
		if (rows[i].scheme && strcasecmp(rows[i].header, "authorization") == 0)
			used += (size_t)snprintf(part->challenge + used, size - used,
						 "%s%s realm=\"sluice\"", used ? ", " : "",
						 rows[i].scheme);
	}
	// One that was cut is no challenge.
	if (used && used < size)
		return;
	if (count && !used)
		snprintf(part->challenge, size, "ApiKey realm=\"sluice\", header=\"%s\"",
			 rows[0].header);
	else
		snprintf(part->challenge, size, "Bearer realm=\"sluice\"");
}

static void *build(const void *object, const struct sl_build *build)
{
	const struct sl_tenants_module_config *tenants = build->configs[SL_MODULE_TENANTS];
	const struct server_config *config = object;
	const struct listen_config *from = config->listen.items;
	struct sl_server_part *part = calloc(1, sizeof(*part));

	if (!part)
		return NULL;
	part->listens = calloc(config->listen.count, sizeof(*part->listens));
	if (!part->listens) {
		free(part);
		return NULL;
	}
	part->listen_count = (uint32_t)config->listen.count;
	part->datagrams = config->datagrams;
	fill_limits(&part->limits, config);
	fill_challenge(part, tenants ? &tenants->tenants : NULL);
	fill_overload(&part->overload, config->overload);
	for (uint32_t i = 0; i < part->listen_count; i++) {
		struct sl_server_listen *listen = &part->listens[i];

		listen->address = from[i].address;
		if (!from[i].tls)
			continue;
		listen->tls = make_tls(from[i].tls, &listen->files_hash, build->errors);
		if (!listen->tls) {
			destroy(part);
			return NULL;
		}

		const int64_t expiry = sl_tls_context_expiry(listen->tls);

		if (expiry && (!part->certificate_expiry || expiry < part->certificate_expiry))
			part->certificate_expiry = expiry;
	}
	return part;
}

const struct sl_module sl_server_module = {
	.id = SL_MODULE_SERVER,
	.name = "server",
	.settings = &server_settings,
	.build = build,
	.destroy = destroy,
};
