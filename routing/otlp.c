#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/log.h"
#include "dataplane/base/random.h"
#include "dataplane/codec/codec.h"
#include "dataplane/conn/client.h"
#include "dataplane/tls/tls.h"
#include "routing/internal.h"
#include "routing/otlp_answer.h"

// OTLP upstreams, gRPC or HTTP, over conn/client.h: one call a record, a pool a shard.
// What came back is judged in otlp_answer.c.
#define HEADERS_MAX  16
#define IDLE_NS      (60 * SL_S)
#define CONNECT_NS   (5 * SL_S)
#define PING_NS      (10 * SL_S)     // a peer that has died silently is found out after twice of it
#define PREFIX_BYTES 5               // gRPC: flag, length
#define CALL_BYTES   (3584 * SL_KIB) // inflated: common receivers stop at 4 MiB

struct otlp {
	char *name, *host, *authority, *tenant_header;
	uint16_t port;
	bool http;
	enum sl_coding coding;
	uint64_t timeout_ns, concurrency, connections;
	char grpc_timeout[16];
	struct sl_name_value_config *headers; // copies, names in lower case
	uint32_t header_count;
	struct sl_tls_context *tls;
};

struct side {
	struct otlp *otlp;
	struct sl_client_pool *pool;
	struct sl_memory *memory;
	struct sl_codec *codec;
	uint32_t in_flight;
};

// One record's call, in the request's arena; used again for its next attempt.
struct post {
	struct sl_client_call call; // first
	struct side *side;
	struct sl_record *record;
	struct sl_buffer packed;
	struct iovec *pieces; // room for a prefix and all pieces
	struct sl_http_header headers[HEADERS_MAX + 5];
	uint8_t prefix[PREFIX_BYTES];
	struct sl_otlp_answer answer;
};

// --- answers -------------------------------------------------------------------------------------

static void on_head(struct sl_client_call *call, uint16_t status,
		    const struct sl_http_header *headers, uint32_t count)
{
	struct post *post = (struct post *)call;

	post->answer.status = status;
	sl_otlp_answer_headers(&post->answer, headers, count);
}

static void on_trailers(struct sl_client_call *call, const struct sl_http_header *headers,
			uint32_t count)
{
	sl_otlp_answer_headers(&((struct post *)call)->answer, headers, count);
}

static void on_data(struct sl_client_call *call, struct sl_bytes bytes)
{
	sl_otlp_answer_data(&((struct post *)call)->answer, bytes);
}

static void say(const struct post *post, int result)
{
	static const char *const failures[] = {
		[-SL_CLIENT_UNREACHABLE] = "unreachable",
		[-SL_CLIENT_TIMEOUT] = "timeout",
		[-SL_CLIENT_BROKEN] = "broken",
		[-SL_CLIENT_UNPROCESSED] = "unprocessed",
	};

	if (result == SL_CLIENT_OK)
		sl_log(SL_LOG_WARN, "otlp_refused", "destination=%s http=%u grpc=%d",
		       post->side->otlp->name, post->answer.status, post->answer.grpc_status);
	else
		sl_log(SL_LOG_WARN, "otlp_failed", "destination=%s how=%s last_error=\"%s\"",
		       post->side->otlp->name, failures[-result],
		       sl_client_pool_error(post->side->pool));
}

static void on_ended(struct sl_client_call *call, int result, uint64_t now_ns)
{
	struct post *post = (struct post *)call;
	struct side *side = post->side;
	struct sl_record *record = post->record;
	enum sl_outcome outcome = SL_OUTCOME_RETRYABLE;
	const uint64_t retry_after_ns = post->answer.retry_after_ns;

	(void)now_ns;
	side->in_flight--;
	sl_buffer_give(side->memory, &post->packed);
	post->packed = (struct sl_buffer){0};
	if (result == SL_CLIENT_OK)
		outcome = sl_otlp_answer_outcome(&post->answer);
	if (outcome == SL_OUTCOME_DELIVERED)
		sl_egress_partial(record, sl_otlp_answer_rejected(&post->answer));
	else
		say(post, result);
	sl_egress_end(record, outcome, retry_after_ns);
}

// --- calls ---------------------------------------------------------------------------------------

static void add_header(struct post *post, struct sl_bytes name, struct sl_bytes value)
{
	post->headers[post->call.exchange.header_count++] = (struct sl_http_header){name, value};
}

static void fill_headers(struct post *post, enum sl_coding coding)
{
	const struct otlp *otlp = post->side->otlp;
	const struct sl_bytes name = sl_bytes_of(sl_coding_names[coding]);

	if (otlp->http) {
		add_header(post, SL_LITERAL("content-type"), SL_LITERAL("application/x-protobuf"));
		if (coding != SL_CODING_IDENTITY)
			add_header(post, SL_LITERAL("content-encoding"), name);
	} else {
		add_header(post, SL_LITERAL("content-type"), SL_LITERAL("application/grpc"));
		add_header(post, SL_LITERAL("te"), SL_LITERAL("trailers"));
		add_header(post, SL_LITERAL("grpc-timeout"), sl_bytes_of(otlp->grpc_timeout));
		if (coding != SL_CODING_IDENTITY)
			add_header(post, SL_LITERAL("grpc-encoding"), name);
	}
	if (otlp->tenant_header)
		add_header(post, sl_bytes_of(otlp->tenant_header), post->record->tenant_name);
	for (uint32_t i = 0; i < otlp->header_count; i++)
		add_header(post, sl_bytes_of(otlp->headers[i].name),
			   sl_bytes_of(otlp->headers[i].value));
}

// A body that came compressed alike and was not touched; what came as JSON is compressed JSON.
static bool is_as_it_came(const struct sl_record *record, enum sl_coding coding)
{
	const struct sl_request *request;

	if (record->members)
		return false;
	request = record->delivery->part->request;
	return record->piece_count == 1 && record->bytes == request->view.body.size &&
	       record->pieces[0].iov_base == request->view.body.data && request->single_member &&
	       request->origin.coding == coding &&
	       request->origin.protocol != SL_PROTOCOL_HTTP_JSON;
}

// The body's pieces behind room for a prefix.
static int fill_body(struct post *post, enum sl_coding coding)
{
	const struct sl_record *record = post->record;
	const bool as_it_came = is_as_it_came(record, coding);
	struct sl_http_exchange *exchange = &post->call.exchange;
	const bool grpc = !post->side->otlp->http;
	uint64_t bytes = record->bytes;

	exchange->body_count = record->piece_count;
	memcpy(post->pieces + 1, record->pieces, record->piece_count * sizeof(struct iovec));
	if (coding != SL_CODING_IDENTITY) {
		struct sl_bytes body;

		if (as_it_came) {
			body = record->delivery->part->request->received;
		} else {
			if (sl_codec_deflate(post->side->codec, coding, record->pieces,
					     record->piece_count, &post->packed) != SL_CODEC_OK)
				return -1;
			body = sl_bytes(post->packed.data, post->packed.size);
		}
		post->pieces[1] = (struct iovec){(void *)(uintptr_t)body.data, body.size};
		exchange->body_count = 1;
		bytes = body.size;
	}
	exchange->body = post->pieces + 1;
	exchange->body_bytes = bytes;
	if (!grpc)
		return 0;
	post->prefix[0] = coding != SL_CODING_IDENTITY;
	for (unsigned i = 0; i < 4; i++)
		post->prefix[1 + i] = (uint8_t)(bytes >> (24 - 8 * i));
	post->pieces[0] = (struct iovec){post->prefix, PREFIX_BYTES};
	exchange->body = post->pieces;
	exchange->body_count++;
	exchange->body_bytes += PREFIX_BYTES;
	return 0;
}

static struct sl_bytes path_of(const struct otlp *otlp, enum sl_signal signal)
{
	return (otlp->http ? sl_signal_http_paths : sl_signal_grpc_paths)[signal];
}

static struct post *post_of(struct side *side, struct sl_record *record)
{
	struct post *post = record->driver_data;
	struct iovec *pieces = post ? post->pieces : NULL;

	if (!post) {
		post = sl_arena_alloc(record->arena, sizeof(*post));
		pieces = sl_arena_alloc(record->arena,
					(record->piece_count + 1) * sizeof(struct iovec));
		if (!post || !pieces)
			return NULL;
	}
	memset(post, 0, sizeof(*post));
	post->pieces = pieces;
	post->side = side;
	post->record = record;
	sl_otlp_answer_init(&post->answer, side->otlp->http);
	record->driver_data = post;
	return post;
}

static enum sl_reason submit(void *state, struct sl_record *record)
{
	struct side *side = state;
	const struct otlp *otlp = side->otlp;
	struct post *post;

	if (side->in_flight >= otlp->concurrency)
		return SL_REASON_EGRESS_FULL;
	post = post_of(side, record);
	if (!post || fill_body(post, otlp->coding) < 0)
		return SL_REASON_EGRESS_FULL;
	fill_headers(post, otlp->coding);
	post->call.exchange.method = SL_LITERAL("POST");
	post->call.exchange.scheme = otlp->tls ? SL_LITERAL("https") : SL_LITERAL("http");
	post->call.exchange.authority = sl_bytes_of(otlp->authority);
	post->call.exchange.path = path_of(otlp, record->signal);
	post->call.exchange.headers = post->headers;
	post->call.deadline_ns = sl_egress_now_ns(record) + otlp->timeout_ns;
	post->call.head = on_head;
	post->call.data = on_data;
	post->call.trailers = on_trailers;
	post->call.ended = on_ended;
	if (sl_client_call_start(side->pool, &post->call, sl_egress_now_ns(record)) < 0) {
		sl_buffer_give(side->memory, &post->packed);
		return SL_REASON_EGRESS_FULL;
	}
	side->in_flight++;
	return SL_REASON_NONE;
}

static void poll_side(void *state, uint64_t now_ns)
{
	sl_client_pool_flush(((struct side *)state)->pool, now_ns);
}

static void *open_side(void *self, const struct sl_driver_env *env)
{
	struct otlp *otlp = self;
	const struct sl_client_options options = {
		.host = otlp->host,
		.port = otlp->port,
		.tls = otlp->tls,
		.http2 = !otlp->http,
		.connections = (uint32_t)otlp->connections,
		.streams = (uint32_t)otlp->concurrency,
		.connect_timeout_ns = CONNECT_NS,
		.idle_timeout_ns = IDLE_NS,
		.ping_after_ns = PING_NS,
	};
	struct side *side = calloc(1, sizeof(*side));

	if (!side)
		return NULL;
	side->otlp = otlp;
	side->memory = env->memory;
	side->codec = env->codec;
	side->pool = sl_client_pool_create(&options, env->io, env->memory, env->timers);
	if (!side->pool) {
		free(side);
		return NULL;
	}
	return side;
}

// Connections may take a little longer to go than the side: they know nothing of it any more.
static void close_side(void *state)
{
	struct side *side = state;

	assert(side->in_flight == 0);
	sl_client_pool_destroy(side->pool, NULL, NULL);
	free(side);
}

// --- control thread ------------------------------------------------------------------------------

static void destroy(void *self)
{
	struct otlp *otlp = self;

	for (uint32_t i = 0; i < otlp->header_count; i++) {
		free((void *)(uintptr_t)otlp->headers[i].name);
		free((void *)(uintptr_t)otlp->headers[i].value);
	}
	sl_tls_context_put(otlp->tls);
	free(otlp->headers);
	free(otlp->tenant_header);
	free(otlp->authority);
	free(otlp->host);
	free(otlp->name);
	free(otlp);
}

static char *lower(const char *text)
{
	char *copy = strdup(text);

	for (char *at = copy; at && *at; at++) {
		if (*at >= 'A' && *at <= 'Z')
			*at += 'a' - 'A';
	}
	return copy;
}

static bool make_tls(struct otlp *otlp, const struct sl_otlp_config *config,
		     struct sl_errors *errors)
{
	const struct sl_otlp_tls_config none = {.verify = true};
	const struct sl_otlp_tls_config *from = config->tls ? config->tls : &none;
	const struct sl_tls_certificate certificate = {from->certificate_file, from->key_file};
	const struct sl_tls_config tls = {
		.certificates = &certificate,
		.certificate_count = from->certificate_file ? 1 : 0,
		.ca_file = from->ca_file,
		.insecure = !from->verify,
		.server_name = otlp->host,
		.alpn = otlp->http ? "http/1.1" : "h2",
	};
	char error[256];

	otlp->tls = sl_tls_context_create(&tls, error, sizeof(error));
	if (!otlp->tls)
		sl_errors_add(errors, &config->where, "otlp: %s", error);
	return otlp->tls != NULL;
}

static bool copy_headers(struct otlp *otlp, const struct sl_otlp_config *config)
{
	const struct sl_name_value_config *from = config->headers.items;

	otlp->headers = calloc(config->headers.count + 1, sizeof(*otlp->headers));
	if (!otlp->headers ||
	    (config->tenant_header && !(otlp->tenant_header = lower(config->tenant_header))))
		return false;
	for (size_t i = 0; i < config->headers.count; i++) {
		struct sl_name_value_config *to = &otlp->headers[otlp->header_count++];

		to->name = lower(from[i].name);
		to->value = strdup(from[i].value);
		if (!to->name || !to->value)
			return false;
	}
	return true;
}

static void *create(const struct sl_destination_config *destination, bool check_only,
		    struct sl_errors *errors)
{
	const struct sl_otlp_config *config = destination->otlp;
	const bool secure = strncmp(config->endpoint, "https://", 8) == 0;
	const bool plain = strncmp(config->endpoint, "http://", 7) == 0;
	struct otlp *otlp = calloc(1, sizeof(*otlp));
	char host[256];

	(void)check_only;
	if (!otlp)
		return NULL;
	otlp->http = config->protocol;
	otlp->coding = (enum sl_coding)config->compression;
	otlp->timeout_ns = config->timeout_ns;
	// At most 8 digits (item 24): the setting ends at ten minutes.
	snprintf(otlp->grpc_timeout, sizeof(otlp->grpc_timeout), "%um",
		 (unsigned)SL_MAX(config->timeout_ns / SL_MS, 1));
	otlp->concurrency = config->concurrency;
	otlp->connections = config->connections;
	otlp->authority = strdup(config->endpoint + (secure ? 8 : plain ? 7 : 0));
	if ((!secure && !plain) || !otlp->authority ||
	    sl_address_split(otlp->authority, host, &otlp->port) < 0) {
		sl_errors_add(errors, &config->where,
			      "otlp: endpoint must be http://host:port or https://host:port");
		goto fail;
	}
	if (config->headers.count > HEADERS_MAX) {
		sl_errors_add(errors, &config->where, "otlp: at most %d headers", HEADERS_MAX);
		goto fail;
	}
	otlp->host = strdup(host);
	otlp->name = strdup(destination->name);
	if (otlp->host && otlp->name && copy_headers(otlp, config) &&
	    (!secure || make_tls(otlp, config, errors)))
		return otlp;
fail:
	destroy(otlp);
	return NULL;
}

static uint64_t record_bytes_max(void *self)
{
	(void)self;
	return CALL_BYTES;
}

const struct sl_driver sl_driver_otlp = {
	.name = "otlp",
	.create = create,
	.destroy = destroy,
	.open = open_side,
	.close = close_side,
	.submit = submit,
	.poll = poll_side,
	.record_bytes_max = record_bytes_max,
};
