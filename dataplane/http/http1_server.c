#include "dataplane/http/http1.h"

#include <http_parser.h>

// HTTP/1.1, server side. Pipelined requests are told as they come and may be answered in any
// order; the answers leave in the order of their requests.

#define DISCARD_MAX (1 * SL_MIB) // of a body that was answered early; more closes the connection
#define CONTINUE    "HTTP/1.1 100 Continue\r\n\r\n"

struct stream {
	struct sl_http_stream base;
	struct stream *next;
	struct sl_http_out out;
	bool told;  // head() was called: gone() is owed
	bool whole; // its request has ended
	bool answered, reset, flying;
	bool close; // after the answer
	bool keep_alive, http10, is_head;
	bool wants_continue; // the client waits and the caller has said yes
	bool awaits;         // the client waits for "100 Continue"
	bool continue_flying;
	uint64_t content_length, received;
};

struct server {
	struct sl_http_server base;
	struct sl_http1_reader reader;
	struct stream *first, *last; // in the order of their requests
	struct stream *reading;      // NULL between requests, and while a rest is discarded
	uint64_t now_ns, discarded;
	bool ready;  // the reader knows its limits
	bool closed; // no more requests are read
	bool finished;
	bool going_away;
};

static struct stream *stream_new(struct server *server)
{
	struct stream *stream = sl_pool_take(&server->base.pools->streams);

	if (!stream)
		return NULL;
	*stream = (struct stream){.base.server = &server->base};
	if (server->last)
		server->last->next = stream;
	else
		server->first = stream;
	server->last = stream;
	return stream;
}

// Takes the first stream off the queue.
static void pop(struct server *server, bool complete)
{
	struct stream *stream = server->first;

	if (stream->told) {
		server->base.upcalls->gone(server->base.owner, &stream->base, complete);
		server->base.open_streams--;
	}
	server->first = stream->next;
	if (!server->first)
		server->last = NULL;
	if (server->reading == stream)
		server->reading = NULL;
	sl_http_out_give(server->base.memory, &stream->out);
	sl_pool_give(&server->base.pools->streams, stream);
}

// --- answers ------------------------------------------------------------------------------------

static void put(struct stream *stream, struct sl_bytes bytes)
{
	// Without memory the answer is cut, and the connection with it.
	if (!sl_http_out_add(stream->base.server->memory, &stream->out, bytes.data, bytes.size))
		stream->reset = true;
}

static void put_field(struct stream *stream, struct sl_bytes name, struct sl_bytes value)
{
	put(stream, name);
	put(stream, SL_LITERAL(": "));
	put(stream, value);
	put(stream, SL_LITERAL("\r\n"));
}

static void put_number(struct stream *stream, struct sl_bytes name, uint64_t value)
{
	uint8_t digits[20];

	put_field(stream, name, sl_bytes(digits, sl_http_number_print(digits, value)));
}

static void put_status(struct stream *stream, uint16_t status)
{
	const char *phrase = http_status_str((enum http_status)status);
	uint8_t digits[20];

	put(stream, SL_LITERAL("HTTP/1.1 "));
	put(stream, sl_bytes(digits, sl_http_number_print(digits, status)));
	put(stream, SL_LITERAL(" "));
	put(stream, phrase[0] == '<' ? SL_BYTES_NONE : sl_bytes_of(phrase));
	put(stream, SL_LITERAL("\r\n"));
}

// Whether the connection must end after this answer: by wish, or because the rest of the request
// is long, of unknown length, or may never be sent (RFC 9110, section 10.1.1).
static bool must_close(const struct server *server, const struct stream *stream,
		       const struct sl_http_response *response)
{
	if (!stream->keep_alive || response->close || server->going_away)
		return true;
	if (stream->whole)
		return false;
	if (stream->content_length == SL_HTTP_NO_LENGTH)
		return true;
	return (stream->awaits && !stream->received) ||
	       stream->content_length - stream->received > DISCARD_MAX;
}

static void respond(struct sl_http_stream *base, const struct sl_http_response *response)
{
	struct stream *stream = (struct stream *)base;
	struct server *server = (struct server *)base->server;
	const bool bodyless = response->status == 204 || response->status == 304;

	if (stream->reset)
		return;
	assert(!stream->answered && !response->grpc);
	stream->answered = true;
	stream->close = must_close(server, stream, response);
	if (stream->close)
		server->closed = true;
	put_status(stream, response->status);
	if (base->server->options->date)
		put(stream, sl_bytes(base->server->options->date, SL_HTTP_DATE_BYTES));
	if (response->content_type.size)
		put_field(stream, SL_LITERAL("content-type"), response->content_type);
	if (response->content_encoding.size)
		put_field(stream, SL_LITERAL("content-encoding"), response->content_encoding);
	if (!bodyless)
		put_number(stream, SL_LITERAL("content-length"), response->body.size);
	if (response->retry_after_s)
		put_number(stream, SL_LITERAL("retry-after"), response->retry_after_s);
	for (uint32_t i = 0; i < response->header_count; i++)
		put_field(stream, response->headers[i].name, response->headers[i].value);
	if (stream->close)
		put(stream, SL_LITERAL("connection: close\r\n"));
	else if (stream->http10)
		put(stream, SL_LITERAL("connection: keep-alive\r\n"));
	put(stream, SL_LITERAL("\r\n"));
	if (!bodyless && !stream->is_head)
		put(stream, response->body);
}

static void reset(struct sl_http_stream *base, uint32_t code)
{
	struct stream *stream = (struct stream *)base;
	struct server *server = (struct server *)base->server;

	(void)code;
	stream->reset = true;
	server->closed = true;
}

// Refuses what cannot be read, or not now, in its turn.
static int refuse(struct server *server, uint16_t status)
{
	struct sl_bytes content_type = SL_BYTES_NONE;
	struct stream *stream = server->reading;

	server->closed = true;
	if (stream) {
		// In the midst of a body.
		if (stream->answered)
			return 0;
	} else {
		stream = stream_new(server);
		if (!stream)
			return -1;
		content_type = sl_http1_content_type(&server->reader);
	}
	stream->keep_alive = false;
	server->base.upcalls->refused(server->base.owner, &stream->base, status, content_type,
				      server->now_ns);
	if (!stream->answered)
		stream->reset = true;
	return stream == server->first ? -1 : 0;
}

// --- requests -----------------------------------------------------------------------------------

static int on_head(struct server *server)
{
	const struct sl_http1_reader *reader = &server->reader;
	struct stream *stream;

	if (server->base.open_streams >= server->base.options->streams_max)
		return refuse(server, 503);
	stream = stream_new(server);
	if (!stream)
		return refuse(server, 503);
	stream->told = true;
	stream->keep_alive = reader->keep_alive;
	stream->http10 = !reader->minor;
	stream->is_head = sl_bytes_equal(reader->block->head.method, SL_LITERAL("HEAD"));
	stream->whole = reader->block->head.end;
	stream->awaits = reader->expects_continue && !stream->whole;
	reader->block->head.expects_continue = stream->awaits;
	stream->content_length = reader->block->head.content_length;
	server->reading = stream;
	server->discarded = 0;
	server->base.open_streams++;
	server->base.upcalls->head(server->base.owner, &stream->base, &reader->block->head,
				   server->now_ns);
	return 0;
}

static void on_data(struct server *server, struct sl_bytes data)
{
	struct stream *stream = server->reading;

	if (stream) {
		stream->received += data.size;
		stream->awaits = stream->continue_flying; // it did not wait
	}
	if (stream && !stream->answered && !stream->reset) {
		server->base.upcalls->data(server->base.owner, &stream->base, data, server->now_ns);
		return;
	}
	server->discarded += data.size;
	if (server->discarded > DISCARD_MAX) {
		server->closed = true;
		server->finished = !server->first;
	}
}

static void on_end(struct server *server)
{
	struct stream *stream = server->reading;

	// What comes after a last request is not looked at.
	if (!server->reader.keep_alive)
		server->closed = true;
	server->reading = NULL;
	if (!stream)
		return;
	stream->whole = true;
	if (!stream->answered && !stream->reset)
		server->base.upcalls->end(server->base.owner, &stream->base, server->now_ns);
}

static int feed(struct sl_http_server *base, struct sl_bytes bytes, uint64_t now_ns)
{
	struct server *server = (struct server *)base;
	struct sl_bytes data;

	server->now_ns = now_ns;
	if (!server->ready) {
		sl_http1_reader_init(&server->reader, base->memory, false,
				     base->options->header_bytes_max);
		server->ready = true;
	}
	while (!server->closed) {
		switch (sl_http1_next(&server->reader, &bytes, &data)) {
		case SL_HTTP1_NEED_MORE:
			return 0;
		case SL_HTTP1_HEAD:
			if (on_head(server) < 0)
				return -1;
			break;
		case SL_HTTP1_DATA:
			on_data(server, data);
			break;
		case SL_HTTP1_END:
			on_end(server);
			break;
		case SL_HTTP1_BAD:
			return refuse(server, server->reader.status);
		}
	}
	return 0;
}

// --- the face -----------------------------------------------------------------------------------

static size_t pull(struct sl_http_server *base, struct iovec *pieces, size_t count)
{
	struct server *server = (struct server *)base;
	size_t used = 0;

	for (struct stream *stream = server->first; stream && used < count; stream = stream->next) {
		if (stream->reset)
			break;
		if (!stream->answered || stream->continue_flying) {
			if (stream->wants_continue || stream->continue_flying) {
				pieces[used++] = (struct iovec){(void *)(uintptr_t)CONTINUE,
								sizeof(CONTINUE) - 1};
				stream->wants_continue = false;
				stream->continue_flying = true;
			}
			break;
		}
		stream->flying = true;
		pieces[used++] = (struct iovec){stream->out.data, stream->out.size};
		if (stream->close)
			break;
	}
	return used;
}

static void pulled(struct sl_http_server *base)
{
	struct server *server = (struct server *)base;

	while (server->first && server->first->flying) {
		server->finished |= server->first->close;
		pop(server, true);
	}
	if (server->first && server->first->continue_flying) {
		server->first->continue_flying = false;
		server->first->awaits = false;
	}
	if (!server->first && server->closed)
		server->finished = true;
}

static bool wants_pull(const struct sl_http_server *base)
{
	const struct stream *stream = ((const struct server *)base)->first;

	return stream && !stream->reset && !((const struct server *)base)->finished &&
	       (stream->answered || stream->wants_continue || stream->continue_flying);
}

static bool is_done(const struct sl_http_server *base)
{
	const struct server *server = (const struct server *)base;

	return server->finished || (server->first && server->first->reset);
}

static bool in_head(const struct sl_http_server *base)
{
	const struct server *server = (const struct server *)base;

	return !server->closed && server->reader.state == SL_HTTP1_IN_HEAD &&
	       (server->reader.head.size || server->reader.blanks);
}

// All of a body of known length must come before anything else does.
static size_t outstanding(const struct sl_http_server *base)
{
	const struct server *server = (const struct server *)base;

	if (!server->reading || server->closed || server->reading->awaits)
		return 0;
	switch (server->reader.state) {
	case SL_HTTP1_AT_BODY:
		return server->reading->content_length == SL_HTTP_NO_LENGTH
			       ? 0
			       : server->reading->content_length;
	case SL_HTTP1_IN_LENGTH:
	case SL_HTTP1_IN_CHUNK:
		return server->reader.left;
	}
	return 0;
}

static void goaway(struct sl_http_server *base, const char *debug)
{
	struct server *server = (struct server *)base;

	(void)debug;
	server->going_away = true;
	// Nothing is open and no head has begun: the connection can end now.
	if (!server->first && server->reader.state == SL_HTTP1_IN_HEAD &&
	    !server->reader.head.size) {
		server->closed = true;
		server->finished = true;
	}
}

static void goaway_final(struct sl_http_server *base)
{
	goaway(base, NULL);
}

static void destroy(struct sl_http_server *base)
{
	struct server *server = (struct server *)base;

	while (server->first)
		pop(server, false);
	sl_http1_reader_fini(&server->reader);
}

static void consume(struct sl_http_stream *stream, size_t bytes)
{
	(void)stream; // TCP's window is all there is
	(void)bytes;
}

static void proceed(struct sl_http_stream *base)
{
	struct stream *stream = (struct stream *)base;

	if (stream->awaits && !stream->answered && !stream->received)
		stream->wants_continue = true;
	else
		stream->awaits = false;
}

static void expect(struct sl_http_stream *stream, size_t bytes)
{
	(void)stream; // Content-Length says it
	(void)bytes;
}

static const struct sl_http_server_ops ops = {
	.feed = feed,
	.pull = pull,
	.pulled = pulled,
	.wants_pull = wants_pull,
	.is_done = is_done,
	.in_head = in_head,
	.outstanding = outstanding,
	.goaway = goaway,
	.goaway_final = goaway_final,
	.destroy = destroy,
	.consume = consume,
	.proceed = proceed,
	.expect = expect,
	.respond = respond,
	.reset = reset,
};

static_assert(sizeof(struct server) <= SL_HTTP_SESSION_BYTES, "fits its pool");
static_assert(sizeof(struct stream) <= SL_HTTP_STREAM_BYTES, "fits its pool");

struct sl_http_server *sl_http1_server_create(struct sl_http_pools *pools)
{
	struct server *server = sl_pool_take(&pools->sessions);

	if (!server)
		return NULL;
	*server = (struct server){
		.base = {.ops = &ops, .memory = pools->memory, .pools = pools},
	};
	return &server->base;
}
