#include "routing/health.h"

#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/random.h"
#include "dataplane/base/varint.h"
#include "dataplane/conn/client.h"
#include "dataplane/conn/probe.h"
#include "dataplane/request/reason.h"

#define SERVING     1  // HealthCheckResponse.status
#define REPLY_BYTES 16 // gRPC prefix and a message of two bytes
#define REQUEST_MAX 160
#define PREFIX      5                // gRPC: flag, length
#define FOREVER_NS  (1000000 * SL_S) // a Watch's deadline: its end is not by the clock
// gRPC servers take it ill when they are pinged more often than every five minutes (reference 30).
#define WATCH_PING_NS (310 * SL_S)

struct sl_health {
	struct sl_health_env env;
	struct sl_health_state state;
	struct sl_client_pool *pool; // NULL: TCP only
	struct check *check;         // on its way
	uint64_t due_ns;
	bool changed;
	bool no_watch; // the server does not have it
	bool doubted;  // a call says otherwise than the Watch did: it is asked anew
	char authority[300], why[160];
};

// One check. Without a health its end is nobody's business, but its memory's.
struct check {
	union {
		struct sl_probe probe;
		struct sl_client_call call;
	} u; // first: upcalls cast back
	struct sl_health *health;
	bool watch, said, late; // said: a status has come; late: none did in time
	uint64_t began_ns;
	uint16_t status;
	int grpc_status;
	uint8_t request[REQUEST_MAX], reply[REPLY_BYTES];
	size_t reply_bytes;
	struct iovec body;
};

bool sl_health_note(struct sl_health_state *state, const struct sl_health_config *config,
		    bool succeeded)
{
	if (succeeded != state->down) {
		state->in_row = 0;
		return false;
	}
	if (++state->in_row < (state->down ? config->up : config->down))
		return false;
	state->down = !state->down;
	state->in_row = 0;
	return true;
}

// The check is over. `why` NULL: it succeeded.
static void end(struct check *check, const char *why)
{
	struct sl_health *health = check->health;

	if (health) {
		health->check = NULL;
		if (why)
			snprintf(health->why, sizeof(health->why), "%s", why);
		health->changed |= sl_health_note(&health->state, health->env.config, !why);
		if (health->state.down)
			health->no_watch = false; // it may come back as another
	}
	free(check);
}

// --- TCP -----------------------------------------------------------------------------------------

static void on_probed(struct sl_probe *probe, const char *error)
{
	end((struct check *)probe, error);
}

static int start_tcp(struct sl_health *health, struct check *check)
{
	check->u.probe.ended = on_probed;
	return sl_probe_start(&check->u.probe, health->env.io, &health->env.address,
			      health->env.config->timeout_ns);
}

// --- gRPC and HTTP -------------------------------------------------------------------------------

static void on_head(struct sl_client_call *call, uint16_t status,
		    const struct sl_http_header *headers, uint32_t count);

static void on_trailers(struct sl_client_call *call, const struct sl_http_header *headers,
			uint32_t count)
{
	struct check *check = (struct check *)call;

	for (uint32_t i = 0; i < count; i++) {
		if (!sl_bytes_equal(headers[i].name, SL_LITERAL("grpc-status")))
			continue;
		check->grpc_status = 0;
		for (size_t j = 0; j < SL_MIN(headers[i].value.size, 3); j++)
			check->grpc_status = check->grpc_status * 10 +
					     (headers[i].value.data[j] - '0');
	}
}

static void on_head(struct sl_client_call *call, uint16_t status,
		    const struct sl_http_header *headers, uint32_t count)
{
	((struct check *)call)->status = status;
	on_trailers(call, headers, count);
}

static void on_data(struct sl_client_call *call, struct sl_bytes bytes)
{
	struct check *check = (struct check *)call;
	const size_t count = SL_MIN(bytes.size, REPLY_BYTES - check->reply_bytes);

	memcpy(check->reply + check->reply_bytes, bytes.data, count);
	check->reply_bytes += count;
}

// HealthCheckResponse: status (1). 0, or none: UNKNOWN.
static uint64_t serving_of(const struct check *check)
{
	uint64_t status = 0;

	if (check->reply_bytes < 7 || check->reply[0] || check->reply[5] != (1 << 3) ||
	    sl_varint_get(check->reply + 6, SL_MIN(check->reply_bytes, REPLY_BYTES) - 6, &status) <=
		    0)
		return 0;
	return status;
}

// A Watch has a whole message: what the server says it is now.
static void hear(struct check *check)
{
	struct sl_health *health = check->health;
	const bool down = serving_of(check) != SERVING;

	check->said = true;
	if (!health)
		return;
	if (down)
		snprintf(health->why, sizeof(health->why), "health status %llu",
			 (unsigned long long)serving_of(check));
	health->changed |= health->state.down != down;
	health->state = (struct sl_health_state){.down = down};
}

static uint32_t message_bytes(const struct check *check)
{
	return (uint32_t)check->reply[1] << 24 | (uint32_t)check->reply[2] << 16 |
	       (uint32_t)check->reply[3] << 8 | check->reply[4];
}

// One message behind the other; of a long one only the beginning is kept.
static void on_watched(struct sl_client_call *call, struct sl_bytes bytes)
{
	struct check *check = (struct check *)call;

	while (bytes.size) {
		const bool framed = check->reply_bytes >= PREFIX;
		const uint64_t whole = PREFIX + (framed ? (uint64_t)message_bytes(check) : 0);
		const size_t at = SL_MIN(check->reply_bytes, REPLY_BYTES);
		const size_t take = (size_t)SL_MIN(whole - check->reply_bytes, bytes.size);

		memcpy(check->reply + at, bytes.data, SL_MIN(take, REPLY_BYTES - at));
		check->reply_bytes += take;
		bytes = sl_bytes(bytes.data + take, bytes.size - take);
		if (check->reply_bytes < PREFIX ||
		    check->reply_bytes < PREFIX + (uint64_t)message_bytes(check))
			continue;
		hear(check);
		check->reply_bytes = 0;
	}
}

static const char *judge_grpc(const struct check *check, char *text, size_t size)
{
	if (check->status == 200 && check->grpc_status == 0 && serving_of(check) == SERVING)
		return NULL;
	if (check->status == 200 && check->grpc_status == 0)
		snprintf(text, size, "health status %llu", (unsigned long long)serving_of(check));
	else
		snprintf(text, size, "http %u, grpc-status %d", check->status, check->grpc_status);
	return text;
}

// A Watch that ended without being a check that failed: Check takes its place at once, or another.
static bool watch_goes_on(struct check *check, int result, uint64_t now_ns)
{
	struct sl_health *health = check->health;
	const bool none = result == SL_CLIENT_OK &&
			  (check->grpc_status == SL_GRPC_UNIMPLEMENTED ||
			   (check->grpc_status < 0 && check->status == 404));

	if (!none && !health->doubted)
		return false;
	health->no_watch = none;
	health->doubted = false;
	health->due_ns = now_ns;
	health->check = NULL;
	free(check);
	return true;
}

static void on_ended(struct sl_client_call *call, int result, uint64_t now_ns)
{
	struct check *check = (struct check *)call;
	struct sl_health *health = check->health;
	const char *why = "timeout";
	char text[100];

	if (check->watch && health && watch_goes_on(check, result, now_ns))
		return;
	if (!health) {
		why = NULL;
	} else if (result == SL_CLIENT_OK && check->watch) {
		snprintf(text, sizeof(text), "the watch ended: http %u, grpc-status %d",
			 check->status, check->grpc_status);
		why = text;
	} else if (result == SL_CLIENT_OK && health->env.config->check != SL_HEALTH_HTTP) {
		why = judge_grpc(check, text, sizeof(text));
	} else if (result == SL_CLIENT_OK) {
		snprintf(text, sizeof(text), "http %u", check->status);
		why = check->status / 100 == 2 ? NULL : text;
	} else if (result != SL_CLIENT_TIMEOUT && !check->late) {
		why = sl_client_pool_error(health->pool);
	}
	end(check, why);
}

// HealthCheckRequest: service (1), behind gRPC's prefix.
static void fill_request(struct check *check, const char *service)
{
	const size_t name = strlen(service), message = name ? 2 + name : 0;

	assert(name <= SL_HEALTH_SERVICE_MAX);
	check->request[4] = (uint8_t)message;
	if (name) {
		check->request[5] = 1 << 3 | 2;
		check->request[6] = (uint8_t)name;
		memcpy(check->request + 7, service, name);
	}
	check->body = (struct iovec){check->request, 5 + message};
}
static_assert(7 + SL_HEALTH_SERVICE_MAX <= REQUEST_MAX && SL_HEALTH_SERVICE_MAX < 126,
	      "lengths of one byte");

static int start_call(struct sl_health *health, struct check *check, uint64_t now_ns)
{
	static const struct sl_http_header grpc[] = {
		{SL_LITERAL("content-type"), SL_LITERAL("application/grpc")},
		{SL_LITERAL("te"), SL_LITERAL("trailers")},
	};
	const struct sl_health_config *config = health->env.config;
	struct sl_client_call *call = &check->u.call;

	call->exchange.scheme = health->env.tls ? SL_LITERAL("https") : SL_LITERAL("http");
	call->exchange.authority = sl_bytes_of(health->authority);
	if (config->check != SL_HEALTH_HTTP) {
		fill_request(check, config->service ? config->service : "");
		call->exchange.method = SL_LITERAL("POST");
		call->exchange.path = check->watch ? SL_LITERAL("/grpc.health.v1.Health/Watch")
						   : SL_LITERAL("/grpc.health.v1.Health/Check");
		call->exchange.headers = grpc;
		call->exchange.header_count = SL_COUNT_OF(grpc);
		call->exchange.body = &check->body;
		call->exchange.body_count = 1;
		call->exchange.body_bytes = check->body.iov_len;
	} else {
		call->exchange.method = SL_LITERAL("GET");
		call->exchange.path = sl_bytes_of(config->path);
	}
	check->grpc_status = -1;
	call->deadline_ns = now_ns + (check->watch ? FOREVER_NS : config->timeout_ns);
	call->head = on_head;
	call->data = check->watch ? on_watched : on_data;
	call->trailers = on_trailers;
	call->ended = on_ended;
	return sl_client_call_start(health->pool, call, now_ns);
}

// --- the endpoint's ------------------------------------------------------------------------------

struct sl_health *sl_health_create(const struct sl_health_env *env, uint64_t now_ns)
{
	const struct sl_client_options options = {
		.host = env->authority,
		.address = &env->address,
		.tls = env->tls,
		.http2 = env->config->check != SL_HEALTH_HTTP,
		.connections = 1,
		.streams = 4,
		.connect_timeout_ns = env->config->timeout_ns,
		.ping_after_ns = env->config->check == SL_HEALTH_WATCH ? WATCH_PING_NS : 0,
	};
	struct sl_health *health = calloc(1, sizeof(*health));

	if (!health)
		return NULL;
	health->env = *env;
	health->due_ns = now_ns;
	snprintf(health->authority, sizeof(health->authority), "%s", env->authority);
	if (env->config->check == SL_HEALTH_TCP)
		return health;
	health->pool = sl_client_pool_create(&options, env->io, env->memory, env->timers);
	if (health->pool)
		return health;
	free(health);
	return NULL;
}

void sl_health_destroy(struct sl_health *health)
{
	struct check *check = health ? health->check : NULL;

	if (!health)
		return;
	if (check) {
		check->health = NULL;
		if (!health->pool)
			sl_probe_cancel(&check->u.probe);
	}
	sl_client_pool_destroy(health->pool, NULL, NULL);
	free(health);
}

// A Watch that says nothing, or that something speaks against, is not waited for.
static void look_at_watch(struct sl_health *health, uint64_t now_ns)
{
	struct check *check = health->check;

	if (!check->said && now_ns >= check->began_ns + health->env.config->timeout_ns)
		check->late = true;
	else if (!health->doubted || now_ns < health->due_ns)
		return;
	sl_client_call_cancel(&check->u.call);
}

static uint64_t next_ns(const struct sl_health *health)
{
	const struct check *check = health->check;

	return check && check->watch && !check->said && !check->late
		       ? SL_MIN(health->due_ns, check->began_ns + health->env.config->timeout_ns)
		       : health->due_ns;
}

uint64_t sl_health_run(struct sl_health *health, uint64_t now_ns)
{
	// What may be about to change is asked more often.
	const bool settled = !health->state.down && !health->state.in_row;
	const uint64_t wait_ns = health->env.config->interval_ns / (settled ? 1 : 5);
	struct check *check;

	if (health->check && health->check->watch)
		look_at_watch(health, now_ns);
	if (health->pool)
		sl_client_pool_flush(health->pool, now_ns);
	if (now_ns < health->due_ns)
		return next_ns(health);
	// Jittered, so that shards and gateways do not all ask at once.
	health->due_ns = now_ns + wait_ns * 9 / 10 +
			 sl_random_below(health->env.random, wait_ns / 5 + 1);
	if (health->check)
		return next_ns(health); // it ends by its own timeout
	check = calloc(1, sizeof(*check));
	if (!check)
		return health->due_ns;
	check->health = health;
	check->watch = health->env.config->check == SL_HEALTH_WATCH && !health->no_watch;
	check->began_ns = now_ns;
	health->check = check;
	if ((health->pool ? start_call(health, check, now_ns) : start_tcp(health, check)) < 0)
		end(check, "not started");
	else if (health->pool)
		sl_client_pool_flush(health->pool, now_ns);
	return next_ns(health);
}

void sl_health_fail(struct sl_health *health, const char *why, uint64_t now_ns)
{
	if (health->state.down)
		return;
	health->state = (struct sl_health_state){.down = true};
	health->changed = true;
	health->doubted = health->check && health->check->watch;
	health->due_ns = SL_MIN(health->due_ns, now_ns + health->env.config->interval_ns / 5);
	snprintf(health->why, sizeof(health->why), "%s", why);
}

bool sl_health_is_down(const struct sl_health *health)
{
	return health && health->state.down;
}

uint64_t sl_health_next_ns(const struct sl_health *health)
{
	return health->due_ns;
}

bool sl_health_changed(struct sl_health *health, const char **why)
{
	const bool changed = health->changed;

	health->changed = false;
	*why = health->why;
	return changed;
}
