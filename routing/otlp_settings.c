#include "routing/settings.h"

#include "config/rows.h"

// The settings of OTLP upstreams.

static const struct sl_setting otlp_tls_rows[] = {
	ROW(sl_otlp_tls_config, ca_file, "ca_file", PATH, .watched = true,
	    .help = "PEM file of the authorities; without it the system's."),
	ROW(sl_otlp_tls_config, certificate_file, "certificate_file", PATH, .watched = true,
	    .help = "PEM file: the client's certificate."),
	ROW(sl_otlp_tls_config, key_file, "key_file", PATH, .watched = true,
	    .help = "PEM file: its key."),
	ROW(sl_otlp_tls_config, verify, "verify", BOOL, .preset = "true",
	    .help = "Check the upstream's certificate and name."),
};
static const struct sl_settings otlp_tls_settings = SETTINGS(
	"destination.otlp.tls", sl_otlp_tls_config, otlp_tls_rows, .help = "TLS to the upstream.");

static const char *const hashes[] = {"trace_id", "tenant", "attribute", NULL};
static const struct sl_setting balance_rows[] = {
	WHERE(sl_balance_config),
	ROW(sl_balance_config, hash, "hash", ENUM, .choices = hashes, .required = true,
	    .help = "trace_id: whole traces to one endpoint, for tail samplers; a request is split "
		    "by their owners, and what has no trace id goes anywhere. tenant; or "
		    "attribute: "
		    "the value of a resource attribute."),
	ROW(sl_balance_config, attribute, "attribute", STRING,
	    .help = "The attribute's name; resources without it are one key."),
	ROW(sl_balance_config, bound, "bound", NUMBER, .min = 1.05, .max = 10, .preset = "1.25",
	    .help = "No endpoint owns more than so many times the mean share of keys."),
};
static void check_balance(const void *object, struct sl_errors *errors)
{
	const struct sl_balance_config *balance = object;

	if ((balance->hash + 1 == SL_SPREAD_ATTRIBUTE) != (balance->attribute != NULL))
		sl_errors_add(errors, &balance->where,
			      "balance: hash: attribute and attribute: NAME belong together");
}
static const struct sl_settings balance_settings = SETTINGS(
	"destination.otlp.balance", sl_balance_config, balance_rows, .check = check_balance,
	.help = "By the hash of a key (a ring, the same in all shards and gateways that know the "
		"same endpoints): when an endpoint leaves, its keys alone move.");

static const char *const checks[] = {"tcp", "grpc", "http", "grpc_watch", NULL};
static const struct sl_setting health_rows[] = {
	WHERE(sl_health_config),
	ROW(sl_health_config, check, "check", ENUM, .choices = checks, .preset = "tcp",
	    .help = "tcp: a connect. grpc: grpc.health.v1.Health/Check says SERVING. http: a GET "
		    "is answered with 2xx. grpc_watch: Watch, whose every word counts at once; "
		    "where "
		    "the server has none, as grpc."),
	ROW(sl_health_config, interval_ns, "interval", DURATION, .min = 1e7, .max = 3.6e12,
	    .preset = "5s",
	    .help = "Between checks, of each shard; a fifth of it while a verdict is pending or "
		    "the "
		    "endpoint is down."),
	ROW(sl_health_config, timeout_ns, "timeout", DURATION, .min = 1e6, .max = 6e11,
	    .preset = "1s", .help = "Of one check."),
	ROW(sl_health_config, up, "up", COUNT, .min = 1, .max = 1000, .preset = "2",
	    .help = "Healthy after so many successes in a row."),
	ROW(sl_health_config, down, "down", COUNT, .min = 1, .max = 1000, .preset = "3",
	    .help = "Unhealthy after so many failures in a row; at once, where there are others, "
		    "when a call does not reach it."),
	ROW(sl_health_config, port, "port", COUNT, .max = 65535, .preset = "0",
	    .help = "Where it is checked, without TLS; 0: where calls go, and as they do."),
	ROW(sl_health_config, service, "service", STRING, .only = "check: grpc|grpc_watch",
	    .help = "grpc, grpc_watch: the service that is asked for; without it the whole "
		    "server."),
	ROW(sl_health_config, path, "path", STRING, .only = "check: http", .preset = "/",
	    .help = "http: what is got."),
};
static void check_health(const void *object, struct sl_errors *errors)
{
	const struct sl_health_config *health = object;

	if (health->service && strlen(health->service) > SL_HEALTH_SERVICE_MAX)
		sl_errors_add(errors, &health->where, "health: service is at most %u bytes long",
			      SL_HEALTH_SERVICE_MAX);
	if (health->path[0] != '/')
		sl_errors_add(errors, &health->where, "health: path must begin with /");
}
static const struct sl_settings health_settings = SETTINGS(
	"destination.otlp.health", sl_health_config, health_rows, .check = check_health,
	.help = "Unhealthy endpoints are left out, and their records wait when no other is there.");

static const struct sl_setting outlier_rows[] = {
	ROW(sl_outlier_config, interval_ns, "interval", DURATION, .min = 1e7, .max = 3.6e12,
	    .preset = "10s", .help = "How often endpoints are compared, by what ended since."),
	ROW(sl_outlier_config, calls_min, "min_calls", COUNT, .min = 1, .max = 1e6, .preset = "20",
	    .help = "Of those with so many calls."),
	ROW(sl_outlier_config, error_rate, "error_rate", RATIO, .min = 0.01, .max = 1,
	    .preset = "30%",
	    .help = "Out goes whose share of failed calls (refused for good, too) is so much above "
		    "that of all others together."),
	ROW(sl_outlier_config, wait_ns, "wait", DURATION, .min = 1e6, .max = 3.6e12,
	    .preset = "30s", .help = "For so long; twice as long each further time."),
	ROW(sl_outlier_config, wait_max_ns, "wait_max", DURATION, .min = 1e6, .max = 8.64e13,
	    .preset = "5m", .help = "The longest of these waits."),
	ROW(sl_outlier_config, share_max, "max_share", RATIO, .min = 0, .max = 0.9, .preset = "50%",
	    .help = "Never more than this share of the endpoints, rounded down."),
};
static const struct sl_settings outlier_settings = SETTINGS(
	"destination.otlp.outlier", sl_outlier_config, outlier_rows,
	.help = "Each shard judges by its own calls.");

static const char *const otlp_protocols[] = {"grpc", "http", NULL};
static const char *const otlp_compressions[] = {"none", "gzip", "zstd", NULL};
static const struct sl_setting otlp_rows[] = {
	WHERE(sl_otlp_config),
	ROW(sl_otlp_config, endpoint, "endpoint", STRING,
	    .help = "http://host:port or https://host:port. Each address that the name has is an "
		    "endpoint; it is resolved again every 30 s, and when one is not reached."),
	ROW(sl_otlp_config, endpoints, "endpoints", LIST, .element = SL_TYPE_STRING,
	    .help = "Several of them, instead of endpoint; all http or all https."),
	ROW(sl_otlp_config, balance, "balance", OPTIONAL, .object = &balance_settings,
	    .shorthand = "hash",
	    .help = "Which endpoint gets what; without it the one with the fewest calls in "
		    "flight."),
	ROW(sl_otlp_config, health, "health", OPTIONAL, .object = &health_settings,
	    .shorthand = "check",
	    .help = "Active checks of each endpoint; without them one is avoided after calls that "
		    "did not reach it (with balance: TCP checks)."),
	ROW(sl_otlp_config, outlier, "outlier", OPTIONAL, .object = &outlier_settings,
	    .help = "Leaves out endpoints that stand out by their errors; without it none."),
	ROW(sl_otlp_config, protocol, "protocol", ENUM, .choices = otlp_protocols, .preset = "grpc",
	    .help = "grpc, or http (HTTP/1.1 with protobuf)."),
	ROW(sl_otlp_config, compression, "compression", ENUM, .choices = otlp_compressions,
	    .preset = "none",
	    .help = "Compression; a body that came with the same and was not changed goes as it "
		    "came."),
	ROW(sl_otlp_config, timeout_ns, "timeout", DURATION, .min = 1e6, .max = 6e11,
	    .preset = "10s", .help = "Of one call."),
	ROW(sl_otlp_config, concurrency, "concurrency", COUNT, .min = 1, .max = 10000,
	    .preset = "100",
	    .help = "Calls at a time, each shard. With balance an endpoint gets at most its share "
		    "of them, and the bound more."),
	ROW(sl_otlp_config, connections, "connections", COUNT, .min = 1, .max = 1000, .preset = "2",
	    .help = "Connections to an endpoint, each shard."),
	ROW(sl_otlp_config, call_bytes_max, "max_call_bytes", BYTES, .min = 1000, .max = 1e9,
	    .preset = "3.5MiB",
	    .help = "Longer calls (inflated) are split between items: common receivers stop at 4 "
		    "MiB."),
	ROW(sl_otlp_config, merge_compressed, "merge_compressed", BOOL, .preset = "false",
	    .help = "Where requests are merged: those that came compressed alike and were not "
		    "changed go as one body of several gzip members or zstd frames. Go's receivers "
		    "read it; gRPC C-core refuses it, and some read the first member only."),
	ROW(sl_otlp_config, tenant_header, "tenant_header", STRING,
	    .help = "Header that carries the tenant's name, such as X-Scope-OrgID."),
	ROW(sl_otlp_config, headers, "headers", MAP, .object = &sl_header_settings,
	    .shorthand = "value", .help = "More headers, the same on every call."),
	ROW(sl_otlp_config, tls, "tls", OPTIONAL, .object = &otlp_tls_settings,
	    .help = "How to speak TLS, where the endpoint is https."),
};
static bool starts(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

static void check_otlp(const void *object, struct sl_errors *errors)
{
	const struct sl_otlp_config *otlp = object;
	const char *const *endpoints = otlp->endpoints.items;
	const struct sl_health_config *health = otlp->health;
	const char *first = otlp->endpoint          ? otlp->endpoint
			    : otlp->endpoints.count ? endpoints[0]
						    : "";

	if (!otlp->endpoint == !otlp->endpoints.count)
		sl_errors_add(errors, &otlp->where, "otlp: say either endpoint or endpoints");
	if (otlp->endpoints.count > SL_ENDPOINTS_MAX)
		sl_errors_add(errors, &otlp->where, "otlp: at most %u endpoints", SL_ENDPOINTS_MAX);
	for (size_t i = 1; i < otlp->endpoints.count; i++) {
		if (starts(endpoints[i], "https:") != starts(first, "https:"))
			sl_errors_add(errors, &otlp->where,
				      "otlp: endpoints are all http or all https");
		for (size_t j = 0; j < i; j++)
			if (strcmp(endpoints[i], endpoints[j]) == 0)
				sl_errors_add(errors, &otlp->where,
					      "otlp: endpoint \"%s\" is named twice", endpoints[i]);
	}
	if (otlp->tls && starts(first, "http:"))
		sl_errors_warn(errors, &otlp->where,
			       "otlp: tls has no effect here: only with https, and \"%s\" is plain",
			       first);
	// ALPN has said already what the connection speaks.
	if (health && !health->port && starts(first, "https:") &&
	    (((health->check == SL_HEALTH_GRPC || health->check == SL_HEALTH_WATCH) &&
	      otlp->protocol) ||
	     (health->check == SL_HEALTH_HTTP && !otlp->protocol)))
		sl_errors_add(errors, &health->where,
			      "health: over https on the same port the check speaks the "
			      "destination's protocol: %s",
			      otlp->protocol ? "http or tcp" : "grpc or tcp");
}
const struct sl_settings sl_otlp_settings = SETTINGS("destination.otlp", sl_otlp_config, otlp_rows,
						     .check = check_otlp,
						     .help = "An OTLP upstream.");
