#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/control/internal.h"
#include "config/control/usage.h"
#include "dataplane/base/clock.h"
#include "tenants/ledger/ledger.h"
#include "tenants/tenants.h"

// The admin HTTP server, run by the control loop: libmicrohttpd gives an epoll descriptor and
// works only inside sl_admin_run().
#define CONNECTIONS_MAX 64
#define TIMEOUT_S       10
#define BODY_BYTES_MAX  64
#define FULL_NS         (10 * SL_S)
#define LIST_PRESET     100
#define LIST_MOST       1000

struct sl_admin {
	struct sl_control *control;
	struct MHD_Daemon *daemon;
	uint16_t port;
};

// One call: its body is kept as far as any handler wants it, and read to its end.
struct call {
	char body[BODY_BYTES_MAX];
	size_t size;
};

struct answer {
	unsigned status;
	const char *type;
	char *text; // malloc'ed; NULL: no memory
};

#define JSON  "application/json"
#define PLAIN "text/plain; charset=utf-8"

static struct answer plain(unsigned status, const char *text)
{
	return (struct answer){status, PLAIN, strdup(text)};
}

static struct answer mistake(unsigned status, const char *what)
{
	char text[200];

	snprintf(text, sizeof(text), "{\"error\":\"%s\"}\n", what);
	return (struct answer){status, JSON, strdup(text)};
}

static struct answer get_index(struct sl_control *control, struct MHD_Connection *connection,
			       const char *path, const struct call *call)
{
	(void)control, (void)connection, (void)path, (void)call;
	return plain(
		200,
		"sluice " SL_VERSION "\n\n"
		"GET  /metrics       Prometheus; ?by=shard for each shard\n"
		"GET  /healthz       the process lives; /livez too\n"
		"GET  /readyz        it takes traffic\n"
		"GET  /config        the effective configuration\n"
		"GET  /tenants       accounts of those who sent, the largest first; "
		"?skip=0&limit=100\n"
		"GET  /tenants/{id}  one tenant's settings and counters\n"
		"GET  /tenants/{id}/ledger\n"
		"                    its whole account\n"
		"POST /reload        load the configuration anew\n"
		"POST /drain         fail /readyz, then let connections go; the process stays\n"
		"POST /log-level     ?level=debug|info|warn|error\n"
		"POST works from this machine only.\n");
}

static struct answer get_metrics(struct sl_control *control, struct MHD_Connection *connection,
				 const char *path, const struct call *call)
{
	const char *by = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "by");
	const char *accept = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Accept");
	char usage[SL_USAGE_TEXT_MAX], *text, *whole = NULL, *tenants = NULL;
	const size_t more = sl_usage_metrics(usage);
	size_t size = 0, tenants_size = 0;

	(void)path, (void)call;
	if (control->options.ledger) {
		sl_ledger_fold(control->options.ledger, false);
		tenants = sl_ledger_metrics(control->options.ledger, &tenants_size);
	}
	text = sl_metrics_render(control->options.metrics, by && strcmp(by, "shard") == 0, &size);
	whole = text ? realloc(text, size + more + tenants_size + 1) : NULL;
	if (whole) {
		memcpy(whole + size, usage, more);
		if (tenants)
			memcpy(whole + size + more, tenants, tenants_size);
		whole[size + more + (tenants ? tenants_size : 0)] = '\0';
	} else {
		free(text);
	}
	free(tenants);
	if (whole && sl_metrics_wants_open(accept)) {
		size += more + tenants_size;
		return (struct answer){200, SL_METRICS_OPEN, sl_metrics_to_open(whole, &size)};
	}
	return (struct answer){200, SL_METRICS_PLAIN, whole};
}

static struct answer get_health(struct sl_control *control, struct MHD_Connection *connection,
				const char *path, const struct call *call)
{
	(void)control, (void)connection, (void)path, (void)call;
	return plain(200, "ok\n");
}

bool sl_control_is_ready(const struct sl_control *control, char *text, size_t size)
{
	const struct sl_control_hooks *hooks = &control->options.hooks;
	const uint64_t now_ns = sl_clock_now_ns();
	size_t used = 0;

	text[0] = '\0';
	if (control->drain_began_ns)
		used = (size_t)snprintf(text, size, "draining\n");
	for (uint32_t i = 0; i < hooks->shards && used + 64 < size; i++) {
		const uint64_t since_ns = hooks->full_since_ns(hooks->self, i);

		if (since_ns && now_ns > since_ns + FULL_NS)
			used += (size_t)snprintf(text + used, size - used,
						 "shard %u: memory budget full for %llu s\n", i,
						 (unsigned long long)((now_ns - since_ns) / SL_S));
	}
	return !used;
}

static struct answer get_ready(struct sl_control *control, struct MHD_Connection *connection,
			       const char *path, const struct call *call)
{
	char text[2048];

	(void)connection, (void)path, (void)call;
	return sl_control_is_ready(control, text, sizeof(text)) ? plain(200, "ready\n")
								: plain(503, text);
}

static struct answer get_config(struct sl_control *control, struct MHD_Connection *connection,
				const char *path, const struct call *call)
{
	const struct sl_control_options *options = &control->options;

	(void)connection, (void)path, (void)call;
	return (struct answer){
		200, "application/yaml",
		sl_settings_dump(sl_modules_settings(options->modules, options->module_count),
				 sl_snapshots_current(options->snapshots)->loaded.object)};
}

// A number of the query; `otherwise` when it is not there or none.
static uint32_t number_of(struct MHD_Connection *connection, const char *name, uint32_t otherwise)
{
	const char *text = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, name);
	unsigned long long value;
	char *end;

	if (!text || *text < '0' || *text > '9')
		return otherwise;
	value = strtoull(text, &end, 10);
	return *end ? otherwise : (uint32_t)SL_MIN(value, UINT32_MAX);
}

static struct answer get_tenants(struct sl_control *control, struct MHD_Connection *connection,
				 const char *path, const struct call *call)
{
	struct sl_ledger *ledger = control->options.ledger;
	const uint32_t limit = number_of(connection, "limit", LIST_PRESET);

	(void)path, (void)call;
	if (!ledger)
		return mistake(404, "no ledger is kept");
	sl_ledger_fold(ledger, false);
	return (struct answer){
		200, JSON,
		sl_ledger_list(ledger, number_of(connection, "skip", 0), SL_MIN(limit, LIST_MOST))};
}

static char *ledger_of(struct sl_control *control, struct sl_bytes tenant)
{
	struct sl_ledger *ledger = control->options.ledger;

	if (!ledger)
		return strdup("null");
	sl_ledger_fold(ledger, false);
	return sl_ledger_describe(ledger, tenant);
}

// Tenants that the configuration has no more keep their accounts.
static struct answer get_account(struct sl_control *control, struct sl_bytes tenant, bool known)
{
	char *text = ledger_of(control, tenant);

	if (text && strcmp(text, "null") == 0 && !known) {
		free(text);
		return mistake(404, "no such tenant");
	}
	return (struct answer){200, JSON, text};
}

// {"tenant": ...} with "ledger": {...} in it.
static char *with_ledger(char *settings, char *ledger)
{
	const size_t size = settings ? strlen(settings) : 0;
	char *text = NULL;

	if (size && ledger &&
	    asprintf(&text, "%.*s,\"ledger\":%s}", (int)(size - 1), settings, ledger) < 0)
		text = NULL;
	free(settings);
	free(ledger);
	return text;
}

static struct answer get_tenant(struct sl_control *control, struct MHD_Connection *connection,
				const char *path, const struct call *call)
{
	static const struct sl_bytes suffix = {(const uint8_t *)"/ledger", 7};
	const struct sl_tenants *tenants =
		sl_snapshots_current(control->options.snapshots)->parts[SL_MODULE_TENANTS];
	struct sl_bytes name = sl_bytes_of(path);
	const bool all = name.size > suffix.size &&
			 memcmp(name.data + name.size - suffix.size, suffix.data, suffix.size) == 0;
	sl_tenant_id tenant;
	bool known;

	(void)connection, (void)call;
	name.size -= all ? suffix.size : 0;
	known = tenants && sl_tenants_known(tenants, name, &tenant);
	if (all)
		return get_account(control, name, known);
	if (!known)
		return mistake(404, "no such tenant");
	return (struct answer){
		200, JSON,
		with_ledger(sl_tenants_describe(tenants, tenant), ledger_of(control, name))};
}

static struct answer post_drain(struct sl_control *control, struct MHD_Connection *connection,
				const char *path, const struct call *call)
{
	(void)connection, (void)path, (void)call;
	sl_control_drain(control);
	return plain(202, "draining\n");
}

static struct answer post_reload(struct sl_control *control, struct MHD_Connection *connection,
				 const char *path, const struct call *call)
{
	struct sl_errors *errors = sl_errors_create();
	struct answer answer;
	char *text = NULL;
	size_t size;
	FILE *out;

	(void)connection, (void)path, (void)call;
	if (!errors)
		return mistake(500, "no memory");
	if (sl_control_reload(control, "admin", errors)) {
		answer = plain(200, "reloaded\n");
	} else {
		out = open_memstream(&text, &size);
		for (uint32_t i = 0; out && i < sl_errors_count(errors); i++)
			fprintf(out, "%s\n", sl_errors_line(errors, i));
		if (out)
			fclose(out);
		answer = (struct answer){422, PLAIN, text};
	}
	sl_errors_destroy(errors);
	return answer;
}

static struct answer post_log_level(struct sl_control *control, struct MHD_Connection *connection,
				    const char *path, const struct call *call)
{
	const char *name = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "level");
	char text[BODY_BYTES_MAX];
	int level;

	(void)control, (void)path;
	if (!name) {
		snprintf(text, sizeof(text), "%.*s", (int)call->size, call->body);
		text[strcspn(text, " \r\n")] = 0;
		name = text;
	}
	level = sl_log_level_parse(name);
	if (level < 0)
		return mistake(422, "expected level debug, info, warn or error");
	sl_log_set_level((enum sl_log_level)level);
	return plain(200, "ok\n");
}

static const struct {
	const char *path;
	bool prefix; // what follows goes to the handler
	const char *methods;
	struct answer (*handle)(struct sl_control *control, struct MHD_Connection *connection,
				const char *path, const struct call *call);
} routes[] = {
	{"/", false, "GET, HEAD", get_index},
	{"/metrics", false, "GET, HEAD", get_metrics},
	{"/healthz", false, "GET, HEAD", get_health},
	{"/livez", false, "GET, HEAD", get_health},
	{"/readyz", false, "GET, HEAD", get_ready},
	{"/config", false, "GET, HEAD", get_config},
	{"/tenants", false, "GET, HEAD", get_tenants},
	{"/tenants/", true, "GET, HEAD", get_tenant},
	{"/drain", false, "POST", post_drain},
	{"/reload", false, "POST", post_reload},
	{"/log-level", false, "POST, PUT", post_log_level},
};

static bool allows(const char *methods, const char *method)
{
	const size_t size = strlen(method);

	for (const char *at = strstr(methods, method); at; at = strstr(at + 1, method)) {
		if ((at == methods || at[-1] == ' ') && (at[size] == ',' || !at[size]))
			return true;
	}
	return false;
}

// Whether the caller is on this machine: only it may change what runs.
static bool is_local(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(
		connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	struct sl_address address = {0};

	if (!info || !info->client_addr)
		return false;
	if (info->client_addr->sa_family == AF_INET)
		memcpy(&address.u.v4, info->client_addr, sizeof(address.u.v4));
	else if (info->client_addr->sa_family == AF_INET6)
		memcpy(&address.u.v6, info->client_addr, sizeof(address.u.v6));
	else
		return false;
	return sl_address_is_loopback(&address);
}

static struct answer route(struct sl_control *control, struct MHD_Connection *connection,
			   const char *url, const char *method, const struct call *call,
			   const char **allow)
{
	for (size_t i = 0; i < SL_COUNT_OF(routes); i++) {
		const size_t size = strlen(routes[i].path);

		if (routes[i].prefix ? strncmp(url, routes[i].path, size) != 0
				     : strcmp(url, routes[i].path) != 0)
			continue;
		if (allows(routes[i].methods, "POST") && !is_local(connection))
			return mistake(403, "only from this machine (loopback)");
		if (allows(routes[i].methods, method))
			return routes[i].handle(control, connection, url + size, call);
		*allow = routes[i].methods;
		return mistake(405, "method not allowed");
	}
	return mistake(404, "not found");
}

static enum MHD_Result reply(struct MHD_Connection *connection, struct answer answer,
			     const char *allow)
{
	struct MHD_Response *response;
	enum MHD_Result result;

	if (!answer.text)
		return MHD_NO; // no memory: the connection ends
	response = MHD_create_response_from_buffer(strlen(answer.text), answer.text,
						   MHD_RESPMEM_MUST_FREE);
	if (!response) {
		free(answer.text);
		return MHD_NO;
	}
	MHD_add_response_header(response, "Content-Type", answer.type);
	MHD_add_response_header(response, "Cache-Control", "no-store");
	if (allow)
		MHD_add_response_header(response, "Allow", allow);
	result = MHD_queue_response(connection, answer.status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result handle(void *self, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *version, const char *data,
			      size_t *data_size, void **state)
{
	struct sl_admin *admin = self;
	struct call *call = *state;
	const char *allow = NULL;

	(void)version;
	if (!call) {
		*state = calloc(1, sizeof(*call));
		return *state ? MHD_YES : MHD_NO;
	}
	if (*data_size) {
		const size_t more = SL_MIN(*data_size, sizeof(call->body) - call->size);

		memcpy(call->body + call->size, data, more);
		call->size += more;
		*data_size = 0;
		return MHD_YES;
	}

	const struct answer answer = route(admin->control, connection, url, method, call, &allow);

	return reply(connection, answer, allow);
}

static void completed(void *self, struct MHD_Connection *connection, void **state,
		      enum MHD_RequestTerminationCode code)
{
	(void)self, (void)connection, (void)code;
	free(*state);
	*state = NULL;
}

static int listen_at(const struct sl_address *address, uint16_t *port)
{
	const int fd = socket(address->u.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
			      0);
	struct sl_address bound = {.size = sizeof(bound.u)};
	const int one = 1;
	int error;

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, &address->u.any, address->size) < 0 || listen(fd, 64) < 0 ||
	    getsockname(fd, &bound.u.any, &bound.size) < 0) {
		error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	*port = sl_address_port(&bound);
	return fd;
}

struct sl_admin *sl_admin_create(struct sl_control *control, const struct sl_address *address)
{
	struct sl_admin *admin = calloc(1, sizeof(*admin));
	char text[SL_ADDRESS_TEXT_MAX];
	int fd, error;

	if (!admin)
		return NULL;
	admin->control = control;
	fd = listen_at(address, &admin->port);
	if (fd >= 0)
		admin->daemon = MHD_start_daemon(
			MHD_USE_EPOLL, 0, NULL, NULL, handle, admin, MHD_OPTION_LISTEN_SOCKET, fd,
			MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
			MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)TIMEOUT_S,
			MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_END);
	if (admin->daemon)
		return admin;
	error = fd < 0 ? errno : ENOMEM;
	sl_log(SL_LOG_ERROR, "admin_failed", "address=%s reason=\"%s\"",
	       sl_address_text(address, text), strerror(error));
	if (fd >= 0)
		close(fd);
	free(admin);
	errno = error;
	return NULL;
}

void sl_admin_destroy(struct sl_admin *admin)
{
	if (!admin)
		return;
	MHD_stop_daemon(admin->daemon);
	free(admin);
}

int sl_admin_fd(const struct sl_admin *admin)
{
	return MHD_get_daemon_info(admin->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
}

void sl_admin_run(struct sl_admin *admin)
{
	MHD_run(admin->daemon);
}

uint16_t sl_admin_port(const struct sl_admin *admin)
{
	return admin->port;
}
