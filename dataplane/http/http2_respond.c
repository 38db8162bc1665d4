#include "dataplane/http/http2_server.h"

#include "dataplane/http/grpc.h"

// Answers on HTTP/2. Fields that are constants stay indexed: after the first answer a connection
// sends each in one byte.

#define FIELDS_MAX  48
#define MESSAGE_MAX (2 * SL_KIB) // of grpc-message, before it is encoded

#define CONSTANT (NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE)
#define FIELD(name, value)                                                                         \
	{                                                                                          \
		(uint8_t *)(uintptr_t)(name), (uint8_t *)(uintptr_t)(value), sizeof(name) - 1,     \
			sizeof(value) - 1, CONSTANT                                                \
	}

static const nghttp2_nv status_200 = FIELD(":status", "200");
static const nghttp2_nv content_types[] = {
	FIELD("content-type", "application/grpc"),
	FIELD("content-type", "application/x-protobuf"),
	FIELD("content-type", "application/json"),
};
static const nghttp2_nv grpc_ok = FIELD("grpc-status", "0");

struct fields {
	nghttp2_nv list[FIELDS_MAX];
	size_t count;
};

// A field whose name is a constant and whose value is copied by nghttp2.
static void add(struct fields *fields, struct sl_bytes name, struct sl_bytes value, uint8_t flags)
{
	assert(fields->count < FIELDS_MAX);
	fields->list[fields->count++] = (nghttp2_nv){(uint8_t *)(uintptr_t)name.data,
						     (uint8_t *)(uintptr_t)value.data, name.size,
						     value.size, flags};
}

static void add_content_type(struct fields *fields, struct sl_bytes value)
{
	if (!value.size)
		return;
	for (size_t i = 0; i < SL_COUNT_OF(content_types); i++) {
		if (content_types[i].valuelen == value.size &&
		    memcmp(content_types[i].value, value.data, value.size) == 0) {
			fields->list[fields->count++] = content_types[i];
			return;
		}
	}
	add(fields, SL_LITERAL("content-type"), value, NGHTTP2_NV_FLAG_NO_COPY_NAME);
}

static int submit_trailer(nghttp2_session *session, int32_t id, uint8_t grpc_status)
{
	uint8_t digits[20];
	nghttp2_nv field = grpc_ok;

	if (SL_LIKELY(!grpc_status))
		return nghttp2_submit_trailer(session, id, &grpc_ok, 1);
	field.value = digits;
	field.valuelen = sl_http_number_print(digits, grpc_status);
	field.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME;
	return nghttp2_submit_trailer(session, id, &field, 1);
}

static ssize_t read_reply(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t length,
			  uint32_t *flags, nghttp2_data_source *source, void *user)
{
	struct sl_http2_stream *stream = source->ptr;
	const size_t take = SL_MIN(length, (size_t)(stream->reply_bytes - stream->reply_sent));

	(void)user;
	memcpy(buffer, stream->reply + stream->reply_sent, take);
	stream->reply_sent += (uint32_t)take;
	if (stream->reply_sent < stream->reply_bytes)
		return (ssize_t)take;
	if (SL_UNLIKELY(stream->more))
		return take ? (ssize_t)take : NGHTTP2_ERR_DEFERRED;
	*flags |= NGHTTP2_DATA_FLAG_EOF;
	if (stream->grpc) {
		*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
		if (submit_trailer(session, id, stream->grpc_status) != 0)
			return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	}
	return (ssize_t)take;
}

// Takes the body over, behind a message prefix when it is gRPC's.
static bool keep_body(struct sl_http2_stream *stream, struct sl_bytes body, bool grpc)
{
	const size_t prefix = grpc ? SL_GRPC_PREFIX_BYTES : 0;
	const size_t bytes = prefix + body.size;

	stream->reply = stream->inline_reply;
	if (bytes > sizeof(stream->inline_reply)) {
		stream->reply = sl_memory_take_reserve(stream->base.server->memory, bytes,
						       &stream->reply_capacity);
		if (!stream->reply)
			return false;
	}
	if (grpc)
		sl_grpc_prefix(stream->reply, false, (uint32_t)body.size);
	if (body.size)
		memcpy(stream->reply + prefix, body.data, body.size);
	stream->reply_bytes = (uint32_t)bytes;
	stream->grpc = grpc;
	return true;
}

static void add_more(struct fields *fields, const struct sl_http_response *response)
{
	if (response->content_encoding.size)
		add(fields, SL_LITERAL("content-encoding"), response->content_encoding,
		    NGHTTP2_NV_FLAG_NO_COPY_NAME);
	assert(response->header_count <= FIELDS_MAX - 8);
	for (uint32_t i = 0; i < response->header_count; i++)
		add(fields, response->headers[i].name, response->headers[i].value, 0);
}

void sl_http2_respond(struct sl_http_stream *base, const struct sl_http_response *response)
{
	struct sl_http2_stream *stream = (struct sl_http2_stream *)base;
	struct sl_http2_server *server = (struct sl_http2_server *)base->server;
	const bool grpc_error = response->grpc && response->grpc_status != 0;
	const nghttp2_data_provider provider = {{.ptr = stream}, read_reply};
	const bool body = !grpc_error && !stream->is_head &&
			  (response->grpc || response->body.size);
	uint8_t message[3 * MESSAGE_MAX], status[20], grpc_status[20], retry[20];
	struct fields fields = {.count = 0};

	if (stream->over)
		return;
	assert(!stream->answered && response->body.size <= 64 * SL_KIB);
	assert(!response->more || (response->grpc && !grpc_error));
	stream->answered = true;
	stream->more = response->more;
	if (SL_LIKELY(response->status == 200))
		fields.list[fields.count++] = status_200;
	else
		add(&fields, SL_LITERAL(":status"),
		    sl_bytes(status, sl_http_number_print(status, response->status)),
		    NGHTTP2_NV_FLAG_NO_COPY_NAME);
	// gRPC lists what its answers begin with, and hands all else to the caller as metadata: as
	// its own servers do, none is told there.
	if (base->server->options->date && !response->grpc)
		add(&fields, SL_LITERAL("date"), sl_bytes(base->server->options->date + 6, 29),
		    CONSTANT);
	add_content_type(&fields, response->content_type);
	if (grpc_error) {
		struct sl_bytes text = response->grpc_message;

		text.size = SL_MIN(text.size, (size_t)MESSAGE_MAX);
		add(&fields, SL_LITERAL("grpc-status"),
		    sl_bytes(grpc_status, sl_http_number_print(grpc_status, response->grpc_status)),
		    NGHTTP2_NV_FLAG_NO_COPY_NAME);
		if (text.size)
			add(&fields, SL_LITERAL("grpc-message"),
			    sl_bytes(message, sl_grpc_message_encode(message, text)),
			    NGHTTP2_NV_FLAG_NO_COPY_NAME);
		if (response->grpc_details.size)
			add(&fields, SL_LITERAL("grpc-status-details-bin"), response->grpc_details,
			    NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_INDEX);
	}
	if (response->retry_after_s)
		add(&fields, SL_LITERAL("retry-after"),
		    sl_bytes(retry, sl_http_number_print(retry, response->retry_after_s)),
		    NGHTTP2_NV_FLAG_NO_COPY_NAME);
	add_more(&fields, response);
	if ((body && !keep_body(stream, response->body, response->grpc)) ||
	    nghttp2_submit_response(server->session, stream->id, fields.list, fields.count,
				    body ? &provider : NULL) != 0)
		base->server->ops->reset(base, NGHTTP2_INTERNAL_ERROR);
}

bool sl_http2_message(struct sl_http_stream *base, struct sl_bytes body)
{
	struct sl_http2_stream *stream = (struct sl_http2_stream *)base;
	struct sl_http2_server *server = (struct sl_http2_server *)base->server;

	if (stream->over)
		return true; // nobody hears it
	assert(stream->more);
	if (stream->reply_sent < stream->reply_bytes)
		return false;
	if (stream->reply_capacity)
		sl_memory_give(base->server->memory, stream->reply, stream->reply_capacity);
	stream->reply_capacity = 0;
	stream->reply_sent = stream->reply_bytes = 0;
	if (!keep_body(stream, body, true))
		return false;
	nghttp2_session_resume_data(server->session, stream->id);
	return true;
}

void sl_http2_finish(struct sl_http_stream *base, uint8_t grpc_status)
{
	struct sl_http2_stream *stream = (struct sl_http2_stream *)base;
	struct sl_http2_server *server = (struct sl_http2_server *)base->server;

	if (stream->over)
		return;
	assert(stream->more);
	stream->more = false;
	stream->grpc_status = grpc_status;
	// Fails where it is not waiting: then it comes to the end by itself.
	nghttp2_session_resume_data(server->session, stream->id);
}
