#include "dataplane/base/varint.h"
#include "dataplane/conn/session.h"

// grpc.health.v1.Health on our own listeners: whether traffic should come here, as /readyz has it.
// It needs no tenant and counts against no quota. Check answers once. Watch answers, stays open,
// and tells each change; it ends with its connection (UNAVAILABLE: clients ask anew elsewhere), and
// is no reason to keep one.
#define SERVING         1
#define NOT_SERVING     2
#define SERVICE_UNKNOWN 3 // of Watch only: it waits for the service to come
#define CANCEL          8 // HTTP/2 error code
#define SERVICE_TAG     (1 << 3 | 2)
#define WATCHES_MAX     8 // of one connection: each costs memory for as long as it likes

bool sl_call_begin_health(struct sl_call *call, const struct sl_http_head *head)
{
	const enum sl_coding coding = sl_coding_parse(head->grpc_encoding);
	const bool watch = sl_bytes_equal(head->path, SL_LITERAL("/grpc.health.v1.Health/Watch"));

	if (head->http1 || sl_media_of(head->content_type) != SL_MEDIA_GRPC ||
	    (!watch && !sl_bytes_equal(head->path, SL_LITERAL("/grpc.health.v1.Health/Check"))) ||
	    !sl_bytes_equal(head->method, SL_LITERAL("POST")) || coding == SL_CODING_UNKNOWN)
		return false;
	call->protocol = SL_PROTOCOL_GRPC;
	call->coding = coding;
	call->health = true;
	call->watch = watch;
	return true;
}

void sl_call_health_data(struct sl_call *call, struct sl_bytes bytes)
{
	struct sl_bytes data;
	enum sl_grpc_event event;

	while ((event = sl_grpc_next(&call->deframer, &bytes, &data)) != SL_GRPC_NEED_MORE) {
		if (event == SL_GRPC_BAD) {
			sl_http_stream_reset(call->stream, CANCEL);
			sl_session_mark(call->session);
			return;
		}
		if (event != SL_GRPC_DATA)
			continue;
		// What is longer names no service of ours.
		if (call->asked_bytes + data.size > sizeof(call->asked)) {
			call->asked_bytes = sizeof(call->asked) + 1;
			continue;
		}
		memcpy(call->asked + call->asked_bytes, data.data, data.size);
		call->asked_bytes += (uint8_t)data.size;
	}
}

// Inflates the message in place. Returns 0 or a gRPC status.
static uint8_t inflate(struct sl_call *call)
{
	const struct sl_server_env *env = &call->session->server->env;
	struct sl_buffer out;

	if (!sl_grpc_is_compressed(&call->deframer))
		return 0;
	if (!env->codec || call->coding == SL_CODING_IDENTITY ||
	    sl_codec_inflate(env->codec, call->coding, sl_bytes(call->asked, call->asked_bytes),
			     sizeof(call->asked), 0, &out) != SL_CODEC_OK)
		return SL_GRPC_INTERNAL;
	if (out.size)
		memcpy(call->asked, out.data, out.size);
	call->asked_bytes = (uint8_t)out.size;
	sl_buffer_give(env->memory, &out);
	return 0;
}

// HealthCheckRequest: service (1), of which the last counts; other fields are passed over. False
// when it does not decode.
static bool service_of(struct sl_bytes message, struct sl_bytes *service)
{
	static const uint8_t fixed[8] = {[1] = 8, [5] = 4};

	*service = SL_BYTES_NONE;
	while (message.size) {
		uint64_t tag, value = 0;
		int used = sl_varint_get(message.data, message.size, &tag);

		if (used <= 0)
			return false;
		message = sl_bytes(message.data + used, message.size - (size_t)used);
		if ((tag & 7) == 0 || (tag & 7) == 2) {
			used = sl_varint_get(message.data, message.size, &value);
			if (used <= 0)
				return false;
			message = sl_bytes(message.data + used, message.size - (size_t)used);
			value = (tag & 7) == 0 ? 0 : value;
		} else {
			value = fixed[tag & 7];
			if (!value)
				return false;
		}
		if (value > message.size)
			return false;
		if (tag == SERVICE_TAG)
			*service = sl_bytes(message.data, value);
		message = sl_bytes(message.data + value, message.size - value);
	}
	return true;
}

// The whole server when empty, or one of OTLP's services.
static bool is_ours(struct sl_bytes service)
{
	for (unsigned i = 0; i < SL_SIGNALS; i++) {
		const struct sl_bytes path = sl_signal_grpc_paths[i]; // "/service/Export"

		if (path.size == service.size + 8 &&
		    memcmp(path.data + 1, service.data, service.size) == 0)
			return true;
	}
	return !service.size;
}

// What the call is told: 0 or a gRPC status.
static uint8_t verdict(struct sl_call *call)
{
	struct sl_bytes service;
	uint8_t status;

	if (!sl_grpc_is_whole(&call->deframer))
		return SL_GRPC_UNIMPLEMENTED; // item 20
	if (call->asked_bytes > sizeof(call->asked))
		return SL_GRPC_NOT_FOUND;
	status = inflate(call);
	if (status)
		return status;
	if (!service_of(sl_bytes(call->asked, call->asked_bytes), &service))
		return SL_GRPC_INTERNAL;
	return is_ours(service) ? 0 : SL_GRPC_NOT_FOUND;
}

bool sl_server_is_unready(const struct sl_server *server)
{
	return server->draining ||
	       (server->env.unready && __atomic_load_n(server->env.unready, __ATOMIC_RELAXED));
}

// What goes on from its answer is the call's: of a watch SERVICE_UNKNOWN is no error.
static void begin_watch(struct sl_call *call, struct sl_http_response *response)
{
	struct sl_session *session = call->session;

	if (response->grpc_status == SL_GRPC_NOT_FOUND)
		response->grpc_status = 0;
	if (!response->grpc_status && session->watches == WATCHES_MAX)
		response->grpc_status = SL_GRPC_RESOURCE_EXHAUSTED;
	if (response->grpc_status)
		return;
	response->more = true;
	call->watching = true;
	session->watches++;
	session->server->watches++;
	session->quiet_since_ns = session->server->now_ns;
}

void sl_call_forget_watch(struct sl_call *call)
{
	if (!call->watching)
		return;
	call->watching = false;
	call->session->watches--;
	call->session->server->watches--;
}

void sl_call_tell_watch(struct sl_call *call)
{
	struct sl_session *session = call->session;
	const struct sl_server *server = session->server;
	uint8_t body[] = {1 << 3, sl_server_is_unready(server) ? NOT_SERVING : SERVING};

	if (!call->watching)
		return;
	if (call->told != SERVICE_UNKNOWN && call->told != body[1]) {
		if (sl_http_stream_message(call->stream, sl_bytes(body, sizeof(body)))) {
			call->told = body[1];
			sl_session_mark(session);
		} // else at the next tick
	}
	if (!session->going_away)
		return;
	// It must not hold up the end of its connection.
	sl_call_forget_watch(call);
	call->progress_ns = server->now_ns;
	sl_http_stream_finish(call->stream, SL_GRPC_UNAVAILABLE);
	sl_session_mark(session);
}

void sl_call_answer_health(struct sl_call *call)
{
	const struct sl_server *server = call->session->server;
	const uint8_t status = verdict(call);
	const uint8_t told = status == SL_GRPC_NOT_FOUND    ? SERVICE_UNKNOWN
			     : sl_server_is_unready(server) ? NOT_SERVING
							    : SERVING;
	const uint8_t body[] = {1 << 3, told};
	struct sl_http_response response = {
		.status = 200,
		.grpc = true,
		.grpc_status = status,
		.content_type = SL_LITERAL("application/grpc"),
	};

	call->told = told;
	if (call->watch)
		begin_watch(call, &response);
	if (!response.grpc_status)
		response.body = sl_bytes(body, sizeof(body));
	else if (response.grpc_status == SL_GRPC_NOT_FOUND)
		response.grpc_message = SL_LITERAL("No such service.");
	else if (response.grpc_status == SL_GRPC_RESOURCE_EXHAUSTED)
		response.grpc_message = SL_LITERAL("The connection has as many watches as it may.");
	else
		response.grpc_message = SL_LITERAL("The message does not decode.");
	call->answered = true;
	call->progress_ns = server->now_ns;
	sl_http_stream_respond(call->stream, &response);
	sl_session_mark(call->session);
	sl_call_tell_watch(call); // where its connection is on its way out
}
