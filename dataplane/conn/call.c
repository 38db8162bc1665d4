#include "dataplane/codec/codec.h"
#include "dataplane/conn/session.h"
#include "dataplane/otlp/reply.h"

// One HTTP request: its head is judged, its body assembled into the request's one buffer, its
// answer written. A refusal known from the head is answered before any body is read.

#define BODY_FIRST      (16 * SL_KIB) // a body of unknown length begins with
#define SMALL_SHARE     256           // a body below 1/256 of the budget is small
#define CANCEL          8             // HTTP/2 error code, RFC 9113 section 7
#define REFUSED_STREAM  7             // the same
#define RETRY_PRESET_NS SL_S
#define CORS_FIELDS_MAX 3

// How much memory waits for bytes of this body that have not arrived.
static void set_reserved(struct sl_call *call, size_t bytes)
{
	const uint64_t change = bytes - call->reserved; // may wrap: it is added

	call->session->unread_bytes += change;
	call->session->server->unread_bytes += change;
	call->reserved = bytes;
}

static void call_free(struct sl_call *call)
{
	struct sl_session *session = call->session;

	if (call->prev)
		call->prev->next = call->next;
	else
		session->calls = call->next;
	if (call->next)
		call->next->prev = call->prev;
	session->open_calls--;
	sl_call_forget_watch(call);
	set_reserved(call, 0);
	if (session->open_calls == session->watches)
		session->quiet_since_ns = session->server->now_ns;
	sl_pool_give(&session->server->calls_pool, call);
}

static struct sl_call *call_new(struct sl_session *session, struct sl_http_stream *stream)
{
	struct sl_server *server = session->server;
	struct sl_call *call = sl_pool_take(&server->calls_pool);

	if (!call)
		return NULL;
	*call = (struct sl_call){
		.session = session,
		.stream = stream,
		.next = session->calls,
		.began_ns = server->now_ns,
		.progress_ns = server->now_ns,
		.deadline_ns = UINT64_MAX,
	};
	if (call->next)
		call->next->prev = call;
	session->calls = call;
	session->open_calls++;
	session->partial_since_ns = 0;
	sl_http_stream_set_user(stream, call);
	return call;
}

// The message a client reads: the request's own, or its reason's.
static struct sl_bytes message_of(const struct sl_request *request, enum sl_reason reason)
{
	if (request && request->message.size)
		return request->message;
	return sl_bytes_of(sl_reasons[reason].help);
}

// What a BadRequest names: of data that is bad for good, all of it (items 21 and 39).
static struct sl_bytes field_of(enum sl_reason reason)
{
	return sl_reasons[reason].grpc == SL_GRPC_INVALID_ARGUMENT ? SL_LITERAL("body")
								   : SL_BYTES_NONE;
}

static void fill_grpc(struct sl_http_response *response, const struct sl_request *request,
		      enum sl_reason reason, uint64_t retry_after_ns, uint8_t *body, char *details)
{
	const struct sl_reason_row *row = &sl_reasons[reason];

	// The header list is too large for gRPC to be spoken: HTTP says so too (RFC 6585).
	response->status = reason == SL_REASON_HEADERS_TOO_LARGE ? row->http : 200;
	response->grpc = true;
	response->grpc_status = row->grpc;
	response->content_type = SL_LITERAL("application/grpc");
	if (reason == SL_REASON_NONE) {
		response->body = sl_bytes(body, sl_reply_success(body, false, request->signal,
								 request->rejected_items,
								 request->message));
		return;
	}
	// The details repeat code and message: Go clients insist (item 22).
	response->grpc_message = message_of(request, reason);
	if (response->grpc_message.size > SL_REPLY_MESSAGE_MAX)
		response->grpc_message.size = SL_REPLY_MESSAGE_MAX;
	if (row->retry || row->grpc == SL_GRPC_INVALID_ARGUMENT) {
		const size_t size = sl_reply_status(body, false, row->grpc, response->grpc_message,
						    row->retry ? SL_MAX(retry_after_ns, 1) : 0,
						    field_of(reason));

		response->grpc_details = sl_bytes(details,
						  sl_reply_base64(details, sl_bytes(body, size)));
	}
}

static void fill_http(struct sl_http_response *response, const struct sl_request *request,
		      enum sl_reason reason, uint64_t retry_after_ns, bool json, uint8_t *body)
{
	const struct sl_reason_row *row = &sl_reasons[reason];
	size_t size;

	response->status = row->http;
	response->content_type = json ? SL_LITERAL("application/json")
				      : SL_LITERAL("application/x-protobuf");
	if (reason == SL_REASON_NONE) {
		size = sl_reply_success(body, json, request->signal, request->rejected_items,
					request->message);
	} else {
		size = sl_reply_status(body, json, row->grpc, message_of(request, reason),
				       row->retry ? SL_MAX(retry_after_ns, 1) : 0,
				       field_of(reason));
		// Whole seconds, rounded up, at least one (item 41).
		if (row->retry)
			response->retry_after_s = (uint32_t)SL_MIN(
				SL_MAX((retry_after_ns + SL_S - 1) / SL_S, 1), 86400);
	}
	response->body = sl_bytes(body, size);
}

// Which of the configured origins is the call's, counted from 1; 0: none. Names go before "*".
static uint16_t origin_of(const struct sl_server_limits *limits, struct sl_bytes origin)
{
	uint16_t found = 0;

	for (uint32_t i = 0; origin.size && i < limits->cors_origin_count; i++) {
		const struct sl_bytes allowed = sl_bytes_of(limits->cors_origins[i]);

		if (sl_bytes_equal(allowed, origin))
			return (uint16_t)(i + 1);
		if (sl_bytes_equal(allowed, SL_LITERAL("*")))
			found = (uint16_t)(i + 1);
	}
	return found;
}

// What a browser (Fetch, section 3.2) and the caches on the way must know of the answer to a call
// that names its origin. After a reload the number may stand for another origin that is allowed
// now: then the browser refuses the answer. A script sees a retry hint only if it is exposed.
// Returns the fields written, at most CORS_FIELDS_MAX.
static uint32_t put_cors(const struct sl_call *call, bool hint, struct sl_http_header *headers)
{
	const struct sl_server_limits *limits = &call->session->server->limits;
	struct sl_bytes origin = SL_BYTES_NONE;
	uint32_t count = 0;

	if (!call->from_browser || !limits->cors_origin_count)
		return 0;
	if (call->cors && call->cors <= limits->cors_origin_count) {
		origin = sl_bytes_of(limits->cors_origins[call->cors - 1]);
		headers[count++] = (struct sl_http_header){
			SL_LITERAL("access-control-allow-origin"), origin};
		if (hint)
			headers[count++] = (struct sl_http_header){
				SL_LITERAL("access-control-expose-headers"),
				SL_LITERAL("retry-after")};
	}
	if (!sl_bytes_equal(origin, SL_LITERAL("*")))
		headers[count++] = (struct sl_http_header){SL_LITERAL("vary"),
							   SL_LITERAL("origin")};
	return count;
}

static void count_answer(const struct sl_session *session, enum sl_protocol protocol,
			 enum sl_reason reason)
{
	struct sl_conn_counters *counters = session->server->counters;
	const struct sl_reason_row *row = &sl_reasons[reason];
	const bool grpc = protocol == SL_PROTOCOL_GRPC;

	sl_conn_count_request(counters, protocol, grpc, grpc ? row->grpc : row->http);
	if (reason != SL_REASON_NONE)
		sl_count(&counters->refused[reason], 1);
}

// The client is told when to come again; on HTTP/1 who floods is not heard until then.
static void note_hint(struct sl_call *call, const struct sl_request *request, enum sl_reason reason,
		      uint64_t retry_after_ns)
{
	struct sl_session *session = call->session;

	if (!request || request->tenant == SL_TENANT_NONE)
		return;
	if (reason == SL_REASON_NONE) {
		sl_hint_served(&session->hint, request->tenant);
		session->conn.later = session->hint.until_ns != 0;
	}
	if (reason != SL_REASON_QUOTA_EXCEEDED && reason != SL_REASON_IN_FLIGHT_EXCEEDED)
		return;
	session->conn.later = true; // behind the connections of those within their quota
	if (sl_hint_told(&session->hint, request->tenant, request->signal, call->early,
			 session->server->limits.early_calls_max, retry_after_ns,
			 session->server->now_ns) &&
	    !session->http2)
		sl_session_pause(session, retry_after_ns);
}

void sl_call_answer(struct sl_call *call, struct sl_request *request, enum sl_reason reason,
		    uint64_t retry_after_ns)
{
	static const struct sl_http_header allow = {SL_LITERAL("allow"), SL_LITERAL("POST")};
	// What would have been taken: items 15 and 37 (RFC 9110, section 12.5.3).
	static const struct sl_http_header codings[] = {
		{SL_LITERAL("accept-encoding"), SL_LITERAL("gzip, zstd, deflate, snappy")},
		{SL_LITERAL("grpc-accept-encoding"),
		 SL_LITERAL("identity,gzip,zstd,deflate,snappy")},
	};
	struct sl_session *session = call->session;
	const bool grpc = call->protocol == SL_PROTOCOL_GRPC;
	struct sl_http_header headers[CORS_FIELDS_MAX + 3];
	struct sl_http_response response = {.headers = headers};
	uint8_t body[SL_REPLY_BYTES_MAX];
	char details[SL_REPLY_BYTES_MAX * 4 / 3 + 4];

	assert(!call->answered);
	call->answered = true;
	call->progress_ns = session->server->now_ns;
	if (sl_reasons[reason].retry && retry_after_ns == 0)
		retry_after_ns = RETRY_PRESET_NS;
	if (grpc)
		fill_grpc(&response, request, reason, retry_after_ns, body, details);
	else
		fill_http(&response, request, reason, retry_after_ns,
			  call->protocol == SL_PROTOCOL_HTTP_JSON, body);
	if (reason == SL_REASON_METHOD && !grpc)
		headers[response.header_count++] = allow;
	if (response.status == 401 && session->server->limits.challenge)
		headers[response.header_count++] = (struct sl_http_header){
			SL_LITERAL("www-authenticate"),
			sl_bytes_of(session->server->limits.challenge)};
	if (reason == SL_REASON_CODING)
		headers[response.header_count++] = codings[grpc];
	response.header_count += put_cors(call, sl_reasons[reason].retry,
					  headers + response.header_count);
	// Of a body that came too slowly nobody waits for the rest.
	response.close = session->server->draining || session->going_away ||
			 reason == SL_REASON_TOO_SLOW;
	count_answer(session, call->protocol, reason);
	sl_http_stream_respond(call->stream, &response);
	sl_session_mark(session);
	note_hint(call, request, reason, retry_after_ns);
}

static void note_refused(const struct sl_server_env *env, const struct sl_request *request,
			 enum sl_reason reason)
{
	if (env->host->refused)
		env->host->refused(env->self, request, reason);
}

// Refuses a call whose request, if there is one, has not gone to the shard.
static void refuse(struct sl_call *call, enum sl_reason reason, uint64_t retry_after_ns)
{
	const struct sl_server_env *env = &call->session->server->env;
	struct sl_request *request = call->request;

	assert(!call->with_shard);
	set_reserved(call, 0);
	if (request) {
		request->origin.call = NULL;
		call->request = NULL;
		note_refused(env, request, reason);
	}
	sl_call_answer(call, request, reason, retry_after_ns);
	if (request)
		env->host->give(env->self, request);
}

// HTTP/2, and a client that floods before its time: no answer any more, and then GOAWAY.
static bool turn_away(struct sl_call *call)
{
	struct sl_session *session = call->session;
	const struct sl_server_env *env = &session->server->env;
	struct sl_request *request = call->request;

	if (!call->early || !session->http2 || session->hint.strikes < SL_HINT_ANSWERED)
		return false;
	set_reserved(call, 0);
	request->origin.call = NULL;
	call->request = NULL;
	call->answered = true;
	note_refused(env, request, SL_REASON_QUOTA_EXCEEDED);
	count_answer(session, call->protocol, SL_REASON_QUOTA_EXCEEDED);
	sl_count(&session->server->counters->hint_refused_streams[0], 1);
	env->host->give(env->self, request);
	sl_http_stream_reset(call->stream, REFUSED_STREAM);
	if (++session->hint.strikes == SL_HINT_ANSWERED + SL_HINT_REFUSED)
		sl_session_go_away(session, "retry_hint_ignored");
	sl_session_mark(session);
	return true;
}

// Makes room for a body of `bytes` in all, of which `body_bytes` have come. What is reserved and
// unread is bounded for a connection, though one body of the largest size always may come.
static enum sl_reason reserve(struct sl_call *call, uint64_t bytes, uint64_t *retry_after_ns)
{
	struct sl_session *session = call->session;
	struct sl_server *server = session->server;
	const struct sl_server_limits *limits = &server->limits;
	struct sl_request *request = call->request;
	struct sl_memory *memory = server->env.memory;
	const uint64_t share = memory->budget_bytes / limits->connection_reserved_share;
	const uint64_t others = session->unread_bytes - call->reserved; // of its other calls
	size_t capacity;
	uint8_t *buffer;

	if (bytes > request->body_bytes_max)
		return SL_REASON_BODY_TOO_LARGE;
	if (others && others + bytes > SL_MAX(share, limits->body_bytes_max))
		return SL_REASON_MEMORY_FULL;
	// Large bodies that are slow to come leave half of the budget to what is there, and to
	// small ones: some clients with bad lines lock nobody out.
	if (bytes > memory->budget_bytes / SMALL_SHARE &&
	    server->unread_bytes - call->reserved + bytes > memory->budget_bytes / 2)
		return SL_REASON_MEMORY_FULL;
	if (!request->in_flight || bytes > request->in_flight_bytes) {
		const enum sl_reason reason = server->env.host->reserve(server->env.self, request,
									bytes, retry_after_ns);

		if (reason != SL_REASON_NONE)
			return reason;
	}
	buffer = sl_memory_take(memory, bytes + SL_BODY_SLACK, &capacity);
	if (!buffer)
		return SL_REASON_MEMORY_FULL;
	if (request->body_buffer) {
		memcpy(buffer, request->body_buffer, request->received.size);
		sl_memory_give(memory, request->body_buffer, request->body_capacity);
	}
	request->body_buffer = buffer;
	request->body_capacity = capacity;
	request->received.data = buffer;
	set_reserved(call, bytes - request->received.size);
	return SL_REASON_NONE;
}

// Appends to the body; grows by doubling when its length was not announced.
static enum sl_reason append(struct sl_call *call, struct sl_bytes bytes, uint64_t *retry_after_ns)
{
	struct sl_request *request = call->request;
	const uint64_t need = request->received.size + bytes.size;

	if (need > request->body_bytes_max)
		return SL_REASON_BODY_TOO_LARGE;
	if (need + SL_BODY_SLACK > request->body_capacity) {
		const uint64_t most = request->body_bytes_max;
		const uint64_t grown = SL_MAX(SL_MAX(need, BODY_FIRST), request->body_capacity * 2);
		const enum sl_reason reason = reserve(call, SL_MIN(grown, most), retry_after_ns);

		if (reason != SL_REASON_NONE)
			return reason;
	}
	memcpy(request->body_buffer + request->received.size, bytes.data, bytes.size);
	request->received.size = need;

	set_reserved(call, call->reserved - SL_MIN(bytes.size, call->reserved));
	return SL_REASON_NONE;
}

// A browser's preflight (item 43).
static void answer_preflight(struct sl_call *call)
{
	struct sl_http_header headers[CORS_FIELDS_MAX + 3] = {
		{SL_LITERAL("access-control-allow-methods"), SL_LITERAL("POST")},
		{SL_LITERAL("access-control-allow-headers"), SL_LITERAL("*, authorization")},
		{SL_LITERAL("access-control-max-age"), SL_LITERAL("7200")},
	};
	const struct sl_http_response response = {
		.status = 204,
		.headers = headers,
		.header_count = 3 + put_cors(call, false, headers + 3)};

	call->answered = true;
	sl_conn_count_request(call->session->server->counters, call->protocol, false, 204);
	sl_http_stream_respond(call->stream, &response);
	sl_session_mark(call->session);
}

static enum sl_protocol protocol_of(enum sl_media media, bool http1)
{
	if (media == SL_MEDIA_GRPC && !http1)
		return SL_PROTOCOL_GRPC;
	return media == SL_MEDIA_JSON ? SL_PROTOCOL_HTTP_JSON : SL_PROTOCOL_HTTP_PROTOBUF;
}

// What the path, the method and the content type say; on success the call's protocol and the
// signal are known. A content type is believed before a path is: it says how to answer.
static enum sl_reason judge(struct sl_call *call, const struct sl_http_head *head,
			    enum sl_signal *signal)
{
	const enum sl_media media = sl_media_of(head->content_type);
	const enum sl_service service = sl_service_of(head->path, signal);

	call->protocol = protocol_of(media, head->http1);
	if (call->protocol == SL_PROTOCOL_GRPC) {
		if (service != SL_SERVICE_EXPORT_GRPC)
			return SL_REASON_UNKNOWN_PATH;
		if (!sl_bytes_equal(head->method, SL_LITERAL("POST")))
			return SL_REASON_METHOD;
		call->coding = sl_coding_parse(head->grpc_encoding);
		if (head->grpc_timeout.size) {
			uint64_t ns;

			if (!sl_grpc_timeout_parse(head->grpc_timeout, &ns))
				return SL_REASON_BAD_REQUEST;
			call->deadline_ns = ns > UINT64_MAX - call->began_ns ? UINT64_MAX
									     : call->began_ns + ns;
		}
	} else {
		if (service == SL_SERVICE_UNKNOWN)
			return SL_REASON_UNKNOWN_PATH;
		if (!sl_bytes_equal(head->method, SL_LITERAL("POST")))
			return SL_REASON_METHOD;
		if (service == SL_SERVICE_EXPORT_GRPC ||
		    (media != SL_MEDIA_PROTOBUF && media != SL_MEDIA_JSON))
			return SL_REASON_CONTENT_TYPE;
		call->coding = sl_coding_parse(head->content_encoding);
	}
	if (call->coding == SL_CODING_UNKNOWN)
		return SL_REASON_CODING;
	return SL_REASON_NONE;
}

// The request behind a call whose head is fine so far.
static enum sl_reason begin_request(struct sl_call *call, const struct sl_http_head *head,
				    enum sl_signal signal, uint64_t *retry_after_ns)
{
	struct sl_session *session = call->session;
	struct sl_server *server = session->server;
	struct sl_request *request;
	enum sl_reason reason;

	if (server->draining)
		return SL_REASON_DRAINING;
	request = server->env.host->take(server->env.self);
	if (!request)
		return SL_REASON_MEMORY_FULL;
	call->request = request;
	request->signal = signal;
	request->origin = (struct sl_origin){
		.call = call, .protocol = call->protocol, .coding = call->coding};
	request->received_ns = server->now_ns;
	request->body_bytes_max = server->limits.body_bytes_max;
	request->answer_by_ns = SL_MIN(call->deadline_ns,
				       server->now_ns + server->limits.answer_within_ns);
	reason = server->env.host->admit(server->env.self, request, head, &session->conn.peer,
					 session->tls ? sl_tls_peer_name(session->tls) : NULL,
					 retry_after_ns);
	call->early = sl_hint_is_early(&session->hint, request->tenant, signal,
				       session->http2 ? SL_HINT_GRACE_HTTP2_NS : SL_HINT_GRACE_NS,
				       server->now_ns);
	if (reason != SL_REASON_NONE)
		return reason;
	if (head->content_length == SL_HTTP_NO_LENGTH || call->protocol == SL_PROTOCOL_GRPC)
		return SL_REASON_NONE;
	reason = reserve(call, head->content_length, retry_after_ns);
	if (reason == SL_REASON_NONE)
		sl_http_stream_expect(call->stream, head->content_length);
	return reason;
}

static void on_head(void *owner, struct sl_http_stream *stream, const struct sl_http_head *head,
		    uint64_t now_ns)
{
	struct sl_session *session = owner;
	uint64_t retry_after_ns = 0;
	enum sl_signal signal = SL_TRACES;
	enum sl_reason reason;
	struct sl_call *call;

	session->server->now_ns = now_ns;
	call = call_new(session, stream);
	if (!call) {
		sl_http_stream_reset(stream, CANCEL);
		return;
	}
	call->from_browser = head->origin.size != 0;
	call->cors = origin_of(&session->server->limits, head->origin);
	if (call->cors && sl_bytes_equal(head->method, SL_LITERAL("OPTIONS"))) {
		answer_preflight(call);
		return;
	}
	if (sl_call_begin_health(call, head))
		return;
	reason = judge(call, head, &signal);
	if (reason == SL_REASON_NONE)
		reason = begin_request(call, head, signal, &retry_after_ns);
	if (SL_UNLIKELY(call->early) && turn_away(call))
		return;
	if (reason != SL_REASON_NONE) {
		refuse(call, reason, retry_after_ns);
		return;
	}
	if (head->expects_continue)
		sl_http_stream_continue(stream);
}

static enum sl_reason feed_grpc(struct sl_call *call, struct sl_bytes bytes,
				uint64_t *retry_after_ns)
{
	enum sl_reason reason = SL_REASON_NONE;
	struct sl_bytes data;

	while (reason == SL_REASON_NONE) {
		switch (sl_grpc_next(&call->deframer, &bytes, &data)) {
		case SL_GRPC_NEED_MORE:
			return SL_REASON_NONE;
		case SL_GRPC_BEGIN:
			if (call->deframer.messages > 1)
				return SL_REASON_MESSAGE_COUNT;
			// Item 15: a compressed message under no coding is the client's mistake.
			if (sl_grpc_is_compressed(&call->deframer) &&
			    call->coding == SL_CODING_IDENTITY)
				return SL_REASON_FRAME;
			if (!sl_grpc_is_compressed(&call->deframer))
				call->request->origin.coding = SL_CODING_IDENTITY;
			reason = reserve(call, call->deframer.message_bytes, retry_after_ns);
			if (reason == SL_REASON_NONE)
				sl_http_stream_expect(call->stream, call->deframer.message_bytes);
			break;
		case SL_GRPC_DATA:
			reason = append(call, data, retry_after_ns);
			break;
		case SL_GRPC_MESSAGE:
			break;
		case SL_GRPC_BAD:
			return SL_REASON_FRAME;
		}
	}
	return reason;
}

static void on_data(void *owner, struct sl_http_stream *stream, struct sl_bytes bytes,
		    uint64_t now_ns)
{
	struct sl_call *call = sl_http_stream_user(stream);
	uint64_t retry_after_ns = 0;
	enum sl_reason reason;

	(void)owner;
	// Memory is ours already or the rest is thrown away: the window goes back at once.
	sl_http_stream_consume(stream, bytes.size);
	if (call && call->health)
		sl_call_health_data(call, bytes);
	if (!call || !call->request)
		return;
	call->session->server->now_ns = now_ns;
	call->progress_ns = now_ns;
	call->body_bytes += bytes.size;
	reason = call->protocol == SL_PROTOCOL_GRPC ? feed_grpc(call, bytes, &retry_after_ns)
						    : append(call, bytes, &retry_after_ns);
	if (reason != SL_REASON_NONE)
		refuse(call, reason, retry_after_ns);
}

static void on_end(void *owner, struct sl_http_stream *stream, uint64_t now_ns)
{
	struct sl_session *session = owner;
	struct sl_server *server = session->server;
	struct sl_call *call = sl_http_stream_user(stream);

	server->now_ns = now_ns;
	if (call && call->health)
		sl_call_answer_health(call);
	if (!call || !call->request)
		return;
	if (call->protocol == SL_PROTOCOL_GRPC && !sl_grpc_is_whole(&call->deframer)) {
		// Item 20: no message at all, or one that was cut, be it in its prefix.
		const bool begun = call->deframer.messages || call->deframer.prefix_bytes;

		refuse(call, begun ? SL_REASON_FRAME : SL_REASON_MESSAGE_COUNT, 0);
		return;
	}
	set_reserved(call, 0);
	call->with_shard = true;
	call->request->whole = true;
	server->env.host->ready(server->env.self, call->request);
}

static enum sl_reason reason_of(uint16_t status)
{
	switch (status) {
	case 417:
		return SL_REASON_EXPECTATION;
	case 431:
		return SL_REASON_HEADERS_TOO_LARGE;
	case 501:
		return SL_REASON_UNKNOWN_METHOD;
	case 503:
		return SL_REASON_TOO_MANY_CALLS;
	case 505:
		return SL_REASON_HTTP_VERSION;
	}
	return SL_REASON_BAD_REQUEST;
}

static void on_refused(void *owner, struct sl_http_stream *stream, uint16_t status,
		       struct sl_bytes content_type, uint64_t now_ns)
{
	struct sl_session *session = owner;
	struct sl_call *call = stream ? sl_http_stream_user(stream) : NULL;
	// What no call was made of is answered all the same, in its own encoding (item 38).
	struct sl_call none = {.session = session, .stream = stream};

	session->server->now_ns = now_ns;
	if (call) {
		if (!call->answered && !call->with_shard)
			refuse(call, reason_of(status), 0);
		return;
	}
	none.protocol = protocol_of(sl_media_of(content_type), !session->http2);
	if (stream)
		sl_call_answer(&none, NULL, reason_of(status), 0);
	else
		count_answer(session, none.protocol, reason_of(status));
}

static void on_gone(void *owner, struct sl_http_stream *stream, bool complete)
{
	struct sl_session *session = owner;
	const struct sl_server_env *env = &session->server->env;
	struct sl_call *call = sl_http_stream_user(stream);
	struct sl_request *request;

	(void)complete;
	if (!call)
		return;
	request = call->request;
	if (!call->answered && !call->health) {
		const bool grpc = call->protocol == SL_PROTOCOL_GRPC;
		const struct sl_reason_row *row = &sl_reasons[SL_REASON_ABANDONED];

		sl_conn_count_request(session->server->counters, call->protocol, grpc,
				      grpc ? row->grpc : row->http);
	}
	if (request) {
		const bool with_shard = call->with_shard;

		request->origin.call = NULL;
		call->request = NULL;
		if (with_shard)
			env->host->abandoned(env->self, request);
		else
			env->host->give(env->self, request);
	}
	call_free(call);
}

const struct sl_http_server_upcalls sl_call_upcalls = {
	.head = on_head,
	.data = on_data,
	.end = on_end,
	.gone = on_gone,
	.refused = on_refused,
};

void sl_call_check_progress(struct sl_call *call)
{
	struct sl_session *session = call->session;
	struct sl_server *server = session->server;
	const struct sl_server_limits *limits = &server->limits;
	const uint64_t now_ns = server->now_ns;
	const uint64_t age_ns = now_ns - call->began_ns;

	if (SL_UNLIKELY(call->watching)) {
		sl_call_tell_watch(call);
		return;
	}
	// HTTP/2: an answer that no window lets out is held only so long (RFC 9113, section 10.5).
	if (call->answered && session->http2 && !session->in_flight &&
	    now_ns - call->progress_ns > limits->body_timeout_ns) {
		sl_http_stream_reset(call->stream, CANCEL);
		sl_session_mark(session);
		return;
	}
	if (call->health && !call->answered && age_ns > limits->body_timeout_ns) {
		sl_http_stream_reset(call->stream, CANCEL);
		sl_session_mark(session);
	}
	if (!call->request || call->with_shard)
		return;
	if (now_ns >= call->deadline_ns) {
		// Item 24: the client's own time is over and its request is not whole.
		sl_http_stream_reset(call->stream, CANCEL);
		sl_session_mark(session);
		return;
	}
	if (now_ns - call->progress_ns > limits->body_timeout_ns ||
	    (age_ns > limits->body_timeout_ns &&
	     (double)call->body_bytes * 1e9 < limits->body_rate_min_bytes_per_s * (double)age_ns)) {
		sl_count(&server->counters->slow_bodies[0], 1);
		refuse(call, SL_REASON_TOO_SLOW, 0);
	} else if (age_ns > limits->body_timeout_ns) {
		// Measured anew: what came fast at first is no credit for a trickle.
		call->began_ns = now_ns;
		call->body_bytes = 0;
	}
}
