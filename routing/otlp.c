#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/log.h"
#include "dataplane/codec/codec.h"
#include "dataplane/tls/tls.h"
#include "routing/dead_letter.h"
#include "routing/endpoints.h"
#include "routing/internal.h"
#include "routing/otlp_answer.h"

// OTLP upstreams, gRPC or HTTP, over conn/client.h: one call a record, a pool a shard.
// What came back is judged in otlp_answer.c.
#define HEADERS_MAX  16
#define IDLE_NS      (60 * SL_S)
#define CONNECT_NS   (5 * SL_S)
#define PING_NS      (10 * SL_S) // a peer that has died silently is found out after twice of it
#define PREFIX_BYTES 5           // gRPC: flag, length

struct otlp {
	char *name, *tenant_header, *attribute, *health_service, *health_path;
	bool http, secure, merge_compressed;
	enum sl_coding coding;
	uint64_t timeout_ns, concurrency, call_bytes_max;
	char grpc_timeout[16];
	struct sl_name_value_config *headers; // copies, names in lower case
	uint32_t header_count;
	struct sl_endpoints_config endpoints;
};

struct side {
	struct otlp *otlp;
	struct sl_endpoints endpoints;
	struct sl_memory *memory;
	struct sl_codec *codec;
	uint32_t in_flight;
};

// One record's call, in the request's arena; used again for its next attempt.
struct post {
	struct sl_client_call call; // first
	struct side *side;
	struct sl_endpoint *endpoint;
	uint32_t hops;   // to other endpoints, as the ones before were not reached
	bool sent_again; // as the peer had not looked at it
	struct sl_record *record;
	struct sl_buffer packed;
	struct iovec *pieces; // room for a prefix and all pieces
	struct sl_http_header headers[HEADERS_MAX + 5 + SL_DEAD_LETTER_HEADERS];
	char refusal[32];
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

// What is to be tried again: a line when it begins, one a minute while it lasts, one when something
// is delivered. Alike for all that an endpoint answers or fails meanwhile: each has its counter.
static void tell_failed(const struct post *post, int result, uint64_t now_ns)
{
	static const char *const failures[] = {
		[-SL_CLIENT_OK] = "refused",
		[-SL_CLIENT_UNREACHABLE] = "unreachable",
		[-SL_CLIENT_TIMEOUT] = "timeout",
		[-SL_CLIENT_BROKEN] = "broken",
		[-SL_CLIENT_UNPROCESSED] = "unprocessed",
	};
	struct sl_endpoint *endpoint = post->endpoint;
	struct sl_outage *outage = &endpoint->outage;
	const bool answered = result == SL_CLIENT_OK;

	sl_outage_more(outage, failures[-result], 1, now_ns);
	if (!sl_outage_tell(outage, now_ns) && !sl_outage_lasts(outage, now_ns))
		return;
	sl_log(SL_LOG_WARN, "otlp_failed",
	       "destination=%s endpoint=%s how=%s http=%u grpc=%d last_error=\"%s\" count=%llu "
	       "untold=%u",
	       post->side->otlp->name, endpoint->name, failures[-result], post->answer.status,
	       post->answer.grpc_status,
	       answered ? post->answer.message : sl_client_pool_error(endpoint->pool),
	       (unsigned long long)outage->count, outage->untold);
}

static void tell_delivered(const struct post *post, uint64_t now_ns)
{
	struct sl_endpoint *endpoint = post->endpoint;
	struct sl_outage *outage = &endpoint->outage;

	if (SL_UNLIKELY(outage->cause != NULL) && sl_outage_end(outage))
		sl_log(SL_LOG_INFO, "otlp_delivers_again",
		       "destination=%s endpoint=%s seconds=%llu count=%llu", post->side->otlp->name,
		       endpoint->name, (unsigned long long)((now_ns - outage->began_ns) / SL_S),
		       (unsigned long long)outage->count);
}

// Refused for good: each is another record's, and the log itself thins out many.
static void tell_refused(const struct post *post)
{
	sl_log(SL_LOG_WARN, "otlp_refused",
	       "destination=%s endpoint=%s http=%u grpc=%d message=\"%s\"", post->side->otlp->name,
	       post->endpoint->name, post->answer.status, post->answer.grpc_status,
	       post->answer.message);
}

static enum sl_answer answer_of(const struct post *post, int result)
{
	switch (result) {
	case SL_CLIENT_OK:
		return sl_otlp_answer_word(&post->answer);
	case SL_CLIENT_UNREACHABLE:
		return SL_ANSWER_UNREACHABLE;
	case SL_CLIENT_TIMEOUT:
		return SL_ANSWER_TIMEOUT;
	case SL_CLIENT_UNPROCESSED:
		return SL_ANSWER_UNPROCESSED;
	default:
		return SL_ANSWER_BROKEN;
	}
}

static int start(struct post *post, struct sl_endpoint *endpoint, uint64_t now_ns);

// What the peer says it has not looked at, as when it closes an old connection, goes again at once,
// one time: that is no attempt of the record, and does not speak against the endpoint.
static bool goes_again(const struct post *post, int result)
{
	return result == SL_CLIENT_UNPROCESSED && !post->sent_again;
}

// What no endpoint has seen goes to another at once; that is no attempt of the record.
static bool go_elsewhere(struct post *post, int result, uint64_t now_ns)
{
	struct sl_endpoints *endpoints = &post->side->endpoints;
	struct sl_endpoint *endpoint;

	if (goes_again(post, result)) {
		post->sent_again = true;
		return start(post, post->endpoint, now_ns) == 0;
	}
	if (result != SL_CLIENT_UNREACHABLE || post->record->owner ||
	    ++post->hops >= endpoints->count)
		return false;
	endpoint = sl_endpoints_pick(endpoints, 0, now_ns);
	if (!endpoint || endpoint == post->endpoint)
		return false;
	return start(post, endpoint, now_ns) == 0;
}

static void on_ended(struct sl_client_call *call, int result, uint64_t now_ns)
{
	struct post *post = (struct post *)call;
	struct side *side = post->side;
	struct sl_record *record = post->record;
	enum sl_outcome outcome = SL_OUTCOME_RETRYABLE;
	uint64_t retry_after_ns = post->answer.retry_after_ns;

	// Counted from now: the shard's time is that of the turn before, which may have slept
	// since.
	if (retry_after_ns)
		retry_after_ns += now_ns - SL_MIN(now_ns, sl_egress_now_ns(record));
	side->in_flight--;
	if (result == SL_CLIENT_OK)
		outcome = sl_otlp_answer_outcome(&post->answer);
	sl_endpoint_heard(post->endpoint,
			  (struct sl_endpoint_verdict){
				  .delivered = outcome == SL_OUTCOME_DELIVERED,
				  // Who says when to come again is there.
				  .failing = outcome == SL_OUTCOME_RETRYABLE && !retry_after_ns,
				  .unreachable = result == SL_CLIENT_UNREACHABLE,
				  .passed_on = goes_again(post, result),
			  },
			  now_ns);
	if (outcome == SL_OUTCOME_DELIVERED)
		tell_delivered(post, now_ns);
	if (outcome == SL_OUTCOME_REJECTED)
		tell_refused(post);
	if (outcome == SL_OUTCOME_RETRYABLE)
		tell_failed(post, result, now_ns);
	if (outcome != SL_OUTCOME_DELIVERED) {
		sl_egress_answered(record, answer_of(post, result), outcome);
		if (go_elsewhere(post, result, now_ns))
			return;
	}
	sl_buffer_give(side->memory, &post->packed);
	post->packed = (struct sl_buffer){0};
	if (outcome == SL_OUTCOME_DELIVERED)
		sl_egress_partial(record, sl_otlp_answer_rejected(&post->answer));
	if (outcome == SL_OUTCOME_REJECTED) {
		const bool answered = sl_otlp_answer_is_grpc(&post->answer);

		snprintf(post->refusal, sizeof(post->refusal), answered ? "grpc %d" : "http %d",
			 answered ? post->answer.grpc_status : (int)post->answer.status);
		record->refusal = post->refusal;
		record->denied = sl_otlp_answer_denied(&post->answer);
	}
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
	for (uint32_t i = 0; post->record->letter && i < SL_DEAD_LETTER_HEADERS; i++)
		add_header(post, sl_dead_letter_names[i], post->record->letter->values[i]);
}

// A body that came compressed alike and was not touched; what came as JSON is compressed JSON.
static bool is_as_it_came(const struct sl_record *record, enum sl_coding coding)
{
	const struct sl_request *request = record->delivery->part->request;

	return record->piece_count == 1 && record->bytes == request->view.body.size &&
	       record->pieces[0].iov_base == request->view.body.data && request->single_member &&
	       request->origin.coding == coding &&
	       request->origin.protocol != SL_PROTOCOL_HTTP_JSON;
}

static struct iovec received_of(const struct sl_record *record)
{
	const struct sl_bytes body = record->delivery->part->request->received;

	return (struct iovec){(void *)(uintptr_t)body.data, body.size};
}

// The bodies of a record whose requests all came so, one behind the other: a body of several
// members (or frames) where the destination takes such. Returns how many; 0: it is packed anew.
static uint32_t take_received(struct post *post, enum sl_coding coding)
{
	const struct sl_record *record = post->record;
	uint32_t count = 0;

	if (!record->members) {
		post->pieces[1] = received_of(record);
		return is_as_it_came(record, coding);
	}
	if (!post->side->otlp->merge_compressed)
		return 0;
	for (const struct sl_record *member = record->members; member; member = member->next) {
		if (!is_as_it_came(member, coding))
			return 0;
		post->pieces[1 + count++] = received_of(member);
	}
	return count;
}

// The compressed body's pieces behind room for a prefix.
static int pack(struct post *post, enum sl_coding coding)
{
	const struct sl_record *record = post->record;
	struct sl_http_exchange *exchange = &post->call.exchange;

	exchange->body_count = take_received(post, coding);
	if (!exchange->body_count) {
		if (sl_codec_deflate(post->side->codec, coding, record->pieces, record->piece_count,
				     &post->packed) != SL_CODEC_OK)
			return -1;
		post->pieces[1] = (struct iovec){post->packed.data, post->packed.size};
		exchange->body_count = 1;
	}
	exchange->body_bytes = 0;
	for (uint32_t i = 0; i < exchange->body_count; i++)
		exchange->body_bytes += post->pieces[1 + i].iov_len;
	return 0;
}

// The body's pieces behind room for a prefix.
static int fill_body(struct post *post, enum sl_coding coding)
{
	const struct sl_record *record = post->record;
	struct sl_http_exchange *exchange = &post->call.exchange;
	const bool grpc = !post->side->otlp->http;

	if (coding != SL_CODING_IDENTITY) {
		if (pack(post, coding) < 0)
			return -1;
	} else {
		memcpy(post->pieces + 1, record->pieces,
		       record->piece_count * sizeof(struct iovec));
		exchange->body_count = record->piece_count;
		exchange->body_bytes = record->bytes;
	}
	exchange->body = post->pieces + 1;
	if (!grpc)
		return 0;
	post->prefix[0] = coding != SL_CODING_IDENTITY;
	for (unsigned i = 0; i < 4; i++)
		post->prefix[1 + i] = (uint8_t)(exchange->body_bytes >> (24 - 8 * i));
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
	record->driver_data = post;
	return post;
}

// Gives the call to an endpoint: anew each time, but for its body and headers.
static int start(struct post *post, struct sl_endpoint *endpoint, uint64_t now_ns)
{
	struct side *side = post->side;
	const struct otlp *otlp = side->otlp;
	const struct sl_http_exchange was = post->call.exchange;
	const uint64_t deadline_ns = post->call.deadline_ns;
	int failed;

	sl_otlp_answer_init(&post->answer, otlp->http);
	post->endpoint = endpoint;
	post->call = (struct sl_client_call){
		.exchange =
			{
				.method = SL_LITERAL("POST"),
				.scheme = otlp->secure ? SL_LITERAL("https") : SL_LITERAL("http"),
				.authority = sl_bytes_of(endpoint->target->authority),
				.path = path_of(otlp, post->record->signal),
				.headers = post->headers,
				.header_count = was.header_count,
				.body = was.body,
				.body_count = was.body_count,
				.body_bytes = was.body_bytes,
			},
		.deadline_ns = deadline_ns,
		.head = on_head,
		.data = on_data,
		.trailers = on_trailers,
		.ended = on_ended,
	};
	// Counted first: it may end before this returns.
	sl_endpoint_sent(endpoint);
	side->in_flight++;
	failed = sl_client_call_start(endpoint->pool, &post->call, now_ns);
	if (failed) {
		side->in_flight--;
		sl_endpoint_unsent(endpoint);
	}
	return failed;
}

static enum sl_reason submit(void *state, struct sl_record *record)
{
	struct side *side = state;
	const struct otlp *otlp = side->otlp;
	const uint64_t now_ns = sl_egress_now_ns(record);
	struct sl_endpoint *endpoint;
	struct post *post;

	if (side->in_flight >= otlp->concurrency)
		return SL_REASON_EGRESS_FULL;
	endpoint = sl_endpoints_pick(&side->endpoints, record->owner, now_ns);
	if (!endpoint)
		return record->owner ? SL_REASON_OVERLOADED : SL_REASON_EGRESS_FULL;
	post = post_of(side, record);
	if (!post || fill_body(post, otlp->coding) < 0)
		return SL_REASON_MEMORY_FULL;
	fill_headers(post, otlp->coding);
	post->call.deadline_ns = now_ns + otlp->timeout_ns;
	if (start(post, endpoint, now_ns) < 0) {
		sl_buffer_give(side->memory, &post->packed);
		return SL_REASON_OVERLOADED;
	}
	return SL_REASON_NONE;
}

static void poll_side(void *state, uint64_t now_ns)
{
	sl_endpoints_poll(&((struct side *)state)->endpoints, now_ns);
}

static uint64_t until(void *state, uint64_t now_ns)
{
	return sl_endpoints_until(&((struct side *)state)->endpoints, now_ns);
}

static uint32_t owner_of(void *state, struct sl_bytes key)
{
	return sl_endpoints_owner(&((struct side *)state)->endpoints, key);
}

static bool owns(void *state, uint32_t owner)
{
	return sl_endpoints_owns(&((struct side *)state)->endpoints, owner);
}

static void *open_side(void *self, const struct sl_driver_env *env)
{
	struct otlp *otlp = self;
	struct side *side = calloc(1, sizeof(*side));

	if (!side)
		return NULL;
	side->otlp = otlp;
	side->memory = env->memory;
	side->codec = env->codec;
	if (sl_endpoints_init(&side->endpoints, &otlp->endpoints, env, env->now_ns) < 0) {
		free(side);
		return NULL;
	}
	return side;
}

static void close_side(void *state)
{
	struct side *side = state;

	assert(side->in_flight == 0);
	sl_endpoints_fini(&side->endpoints);
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
	for (uint32_t i = 0; i < otlp->endpoints.target_count; i++) {
		sl_tls_context_put(otlp->endpoints.targets[i].tls);
		free(otlp->endpoints.targets[i].authority);
		free(otlp->endpoints.targets[i].host);
	}
	free(otlp->endpoints.targets);
	free(otlp->headers);
	free(otlp->tenant_header);
	free(otlp->attribute);
	free(otlp->health_service);
	free(otlp->health_path);
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

static bool make_tls(struct sl_endpoint_target *target, const struct sl_otlp_config *config,
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
		.server_name = target->host,
		.alpn = config->protocol ? "http/1.1" : "h2",
	};
	char error[256];

	target->tls = sl_tls_context_create(&tls, error, sizeof(error));
	if (!target->tls)
		sl_errors_add(errors, &config->where, "otlp: %s", error);
	return target->tls != NULL;
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

static bool make_target(struct otlp *otlp, const struct sl_otlp_config *config, const char *url,
			struct sl_errors *errors)
{
	struct sl_endpoint_target *target = &otlp->endpoints.targets[otlp->endpoints.target_count];
	const bool secure = strncmp(url, "https://", 8) == 0;
	const bool plain = strncmp(url, "http://", 7) == 0;
	char host[256];

	otlp->endpoints.target_count++;
	otlp->secure = secure;
	target->authority = strdup(url + (secure ? 8 : plain ? 7 : 0));
	if (!target->authority)
		return false;
	if ((!secure && !plain) || sl_address_split(target->authority, host, &target->port) < 0) {
		sl_errors_add(errors, &config->where,
			      "otlp: endpoint must be http://host:port or https://host:port");
		return false;
	}
	target->host = strdup(host);
	return target->host && (!secure || make_tls(target, config, errors));
}

static bool make_targets(struct otlp *otlp, const struct sl_otlp_config *config,
			 struct sl_errors *errors)
{
	const char *const *endpoints = config->endpoints.items;

	otlp->endpoints.targets = calloc(config->endpoints.count + 1,
					 sizeof(*otlp->endpoints.targets));
	if (!otlp->endpoints.targets)
		return false;
	if (config->endpoint)
		return make_target(otlp, config, config->endpoint, errors);
	for (size_t i = 0; i < config->endpoints.count; i++) {
		if (!make_target(otlp, config, endpoints[i], errors))
			return false;
	}
	return true;
}

static bool copy_text(char **to, const char *from)
{
	*to = from ? strdup(from) : NULL;
	return !from == !*to;
}

// Who is chosen, spared and checked. Keys need to know who is there: checked at least by TCP.
static bool make_endpoints(struct otlp *otlp, const struct sl_destination_config *destination,
			   struct sl_errors *errors)
{
	static const struct sl_health_config tcp = {.check = SL_HEALTH_TCP,
						    .interval_ns = 5 * SL_S,
						    .timeout_ns = SL_S,
						    .up = 2,
						    .down = 3};
	const struct sl_otlp_config *config = destination->otlp;
	const struct sl_balance_config *balance = config->balance;
	struct sl_endpoints_config *endpoints = &otlp->endpoints;

	endpoints->destination = otlp->name;
	endpoints->listed = config->endpoints.count > 0;
	endpoints->http2 = !otlp->http;
	endpoints->connections = (uint32_t)config->connections;
	endpoints->concurrency = (uint32_t)config->concurrency;
	endpoints->connect_ns = CONNECT_NS;
	endpoints->idle_ns = IDLE_NS;
	endpoints->ping_ns = PING_NS;
	if (destination->breaker)
		endpoints->breaker = *destination->breaker;
	if (config->outlier)
		endpoints->outlier = *config->outlier;
	if (balance) {
		endpoints->spread = (enum sl_spread)(balance->hash + 1);
		endpoints->bound = balance->bound;
	}
	endpoints->checked = config->health || balance;
	endpoints->health = config->health ? *config->health : tcp;
	if (!copy_text(&otlp->attribute, balance ? balance->attribute : NULL) ||
	    !copy_text(&otlp->health_service, endpoints->health.service) ||
	    !copy_text(&otlp->health_path, endpoints->health.path))
		return false;
	endpoints->health.service = otlp->health_service;
	endpoints->health.path = otlp->health_path;
	return make_targets(otlp, config, errors);
}

static void *create(const struct sl_destination_config *destination, bool check_only,
		    struct sl_errors *errors)
{
	const struct sl_otlp_config *config = destination->otlp;
	struct otlp *otlp = calloc(1, sizeof(*otlp));

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
	otlp->call_bytes_max = config->call_bytes_max;
	otlp->merge_compressed = config->merge_compressed;
	if (config->headers.count > HEADERS_MAX) {
		sl_errors_add(errors, &config->where, "otlp: at most %d headers", HEADERS_MAX);
		goto fail;
	}
	otlp->name = strdup(destination->name);
	if (otlp->name && copy_headers(otlp, config) && make_endpoints(otlp, destination, errors))
		return otlp;
fail:
	destroy(otlp);
	return NULL;
}

static uint64_t record_bytes_max(void *self)
{
	return ((struct otlp *)self)->call_bytes_max;
}

static enum sl_spread spread(void *self, struct sl_bytes *attribute)
{
	const struct otlp *otlp = self;

	*attribute = sl_bytes_of(otlp->attribute);
	return otlp->endpoints.spread;
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
	.until = until,
	.spread = spread,
	.owner = owner_of,
	.owns = owns,
};
