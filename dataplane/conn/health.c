#include "dataplane/conn/session.h"

// grpc.health.v1.Health/Check on our own listeners: whether traffic should come here, as /readyz
// has it. It needs no tenant and counts against no quota. Watch is not served: clients then take
// the server for healthy, or use Check (UNIMPLEMENTED, as the protocol's text has it).
#define SERVING     1
#define NOT_SERVING 2
#define NOT_FOUND   5 // a gRPC status
#define CANCEL      8 // HTTP/2 error code

bool sl_call_begin_health(struct sl_call *call, const struct sl_http_head *head)
{
	if (head->http1 || sl_media_of(head->content_type) != SL_MEDIA_GRPC ||
	    !sl_bytes_equal(head->path, SL_LITERAL("/grpc.health.v1.Health/Check")) ||
	    !sl_bytes_equal(head->method, SL_LITERAL("POST")) ||
	    (head->grpc_encoding.size &&
	     !sl_bytes_equal(head->grpc_encoding, SL_LITERAL("identity"))))
		return false;
	call->protocol = SL_PROTOCOL_GRPC;
	call->health = true;
	return true;
}

void sl_call_health_data(struct sl_call *call, struct sl_bytes bytes)
{
	struct sl_bytes data;
	enum sl_grpc_event event;

	while ((event = sl_grpc_next(&call->deframer, &bytes, &data)) != SL_GRPC_NEED_MORE) {
		if (event == SL_GRPC_BAD || sl_grpc_is_compressed(&call->deframer)) {
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

// HealthCheckRequest: service (1), which is the whole server when empty, or one of OTLP's.
static bool is_ours(const struct sl_call *call)
{
	struct sl_bytes service;

	if (!call->asked_bytes)
		return true;
	if (call->asked_bytes > sizeof(call->asked) || call->asked_bytes < 2 ||
	    call->asked[0] != (1 << 3 | 2) || call->asked[1] != call->asked_bytes - 2)
		return false;
	service = sl_bytes(call->asked + 2, call->asked[1]);
	for (unsigned i = 0; i < SL_SIGNALS; i++) {
		const struct sl_bytes path = sl_signal_grpc_paths[i]; // "/service/Export"

		if (path.size == service.size + 8 &&
		    memcmp(path.data + 1, service.data, service.size) == 0)
			return true;
	}
	return !service.size;
}

void sl_call_answer_health(struct sl_call *call)
{
	const struct sl_server *server = call->session->server;
	const bool unready = server->draining ||
			     (server->env.unready &&
			      __atomic_load_n(server->env.unready, __ATOMIC_RELAXED));
	const uint8_t body[] = {1 << 3, unready ? NOT_SERVING : SERVING};
	struct sl_http_response response = {
		.status = 200, .grpc = true, .content_type = SL_LITERAL("application/grpc")};

	if (is_ours(call)) {
		response.body = sl_bytes(body, sizeof(body));
	} else {
		response.grpc_status = NOT_FOUND;
		response.grpc_message = SL_LITERAL("No such service.");
	}
	call->answered = true;
	call->progress_ns = server->now_ns;
	sl_http_stream_respond(call->stream, &response);
	sl_session_mark(call->session);
}
