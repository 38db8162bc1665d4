#include "dataplane/http/http2_server.h"

// HTTP/2, server side: nghttp2 does frames, HPACK and windows; heads, floods and GOAWAY are ours.

#define PULL_MAX              (128 * SL_KIB) // bytes one pull gathers at most, roughly
#define STREAMS_NO_MAX        0x7fffffffu
#define RECEIVING_MAX         16 // more than this many bodies at once: outstanding() does not look
#define NGHTTP2_SESSION_BYTES 2928 // of nghttp2 1.52, which does not tell; it is only prefetched
#define PING_QUIET_NS         (5 * 60 * SL_S)
#define PING_IDLE_NS          (2 * 3600 * SL_S)
// What a connection keeps of the fields it has sent, as HPACK counts: those of the usual answer,
// and some seconds' dates. The peer's 4 KiB would fill with dates, for nothing.
#define FIELDS_KEPT_BYTES 512

static const uint8_t notice_ping[8] = {'s', 'l', ' ', 'g', 'o', 'n', 'e', '?'};

static struct sl_http2_stream *find(struct sl_http2_server *server, int32_t id)
{
	if (SL_LIKELY(server->last && server->last->id == id))
		return server->last;

	struct sl_http2_stream *stream = nghttp2_session_get_stream_user_data(server->session, id);

	if (stream)
		server->last = stream;
	return stream;
}

// --- ends of streams ----------------------------------------------------------------------------

static void not_receiving(struct sl_http2_server *server, struct sl_http2_stream *stream)
{
	if (stream->ended)
		return;
	stream->ended = true;
	if (stream->receiving_prev)
		stream->receiving_prev->receiving_next = stream->receiving_next;
	else
		server->receiving = stream->receiving_next;
	if (stream->receiving_next)
		stream->receiving_next->receiving_prev = stream->receiving_prev;
}

static void stream_free(struct sl_http2_server *server, struct sl_http2_stream *stream)
{
	if (stream->told)
		server->base.upcalls->gone(server->base.owner, &stream->base, stream->complete);
	if (stream->prev)
		stream->prev->next = stream->next;
	else
		server->streams = stream->next;
	if (stream->next)
		stream->next->prev = stream->prev;
	if (stream->reply_capacity)
		sl_memory_give(server->base.memory, stream->reply, stream->reply_capacity);
	server->base.open_streams--;
	sl_pool_give(&server->base.pools->streams, stream);
}

static void reset(struct sl_http_stream *base, uint32_t code)
{
	struct sl_http2_stream *stream = (struct sl_http2_stream *)base;
	struct sl_http2_server *server = (struct sl_http2_server *)base->server;

	if (stream->over)
		return;
	stream->over = true;
	not_receiving(server, stream);
	nghttp2_submit_rst_stream(server->session, NGHTTP2_FLAG_NONE, stream->id, code);
}

// GOAWAY with an error: the connection is beyond repair.
static void die(struct sl_http2_server *server, uint32_t code, const char *debug)
{
	if (server->dying)
		return;
	server->dying = true;
	nghttp2_submit_goaway(server->session, NGHTTP2_FLAG_NONE,
			      nghttp2_session_get_last_proc_stream_id(server->session), code,
			      (const uint8_t *)debug, strlen(debug));
}

// Legal but suspicious: so many a second are a peer's clumsiness, more are an attack.
static void glitch(struct sl_http2_server *server)
{
	if (server->now_ns - server->glitches_since_ns >= SL_S) {
		server->glitches_since_ns = server->now_ns;
		server->glitches = 0;
	}
	if (++server->glitches > server->base.options->glitches_max)
		die(server, NGHTTP2_ENHANCE_YOUR_CALM, "too_many_glitches");
}

// Refuses a stream that has no object. `block` is NULL when there was no memory for it.
static void refuse(struct sl_http2_server *server, const struct sl_http_block *block, int32_t id,
		   uint32_t code)
{
	server->base.upcalls->refused(
		server->base.owner, NULL, code == NGHTTP2_REFUSED_STREAM ? 503 : 400,
		block ? block->head.content_type : SL_BYTES_NONE, server->now_ns);
	server->cut_max = SL_MAX(server->cut_max, id);
	nghttp2_submit_rst_stream(server->session, NGHTTP2_FLAG_NONE, id, code);
	glitch(server);
}

static void malformed(struct sl_http2_server *server, struct sl_http2_stream *stream)
{
	reset(&stream->base, NGHTTP2_PROTOCOL_ERROR);
	if (!stream->answered)
		server->base.upcalls->refused(server->base.owner, &stream->base, 400, SL_BYTES_NONE,
					      server->now_ns);
	glitch(server);
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
	struct sl_http2_server *server = user;
	struct sl_http2_stream *stream = find(server, id);

	(void)code;
	if (id != server->peer_cut && !nghttp2_session_get_stream_remote_close(session, id))
		server->cut_max = SL_MAX(server->cut_max, id);
	if (!stream)
		return 0;
	if (server->last == stream)
		server->last = NULL;
	server->active--;
	not_receiving(server, stream);
	stream->over = true;
	stream->complete = stream->sent_end;
	if (server->pulling) {
		stream->finished_next = server->finished;
		server->finished = stream;
	} else {
		stream_free(server, stream);
	}
	return 0;
}

// A head on a stream that has ended, or whose number was passed over. Where we ended it, the peer
// may not have heard of that; all else breaks RFC 9113, section 5.1. nghttp2 keeps no closed
// streams, so it cannot tell. XXX: of DATA there, which it passes over, it tells nobody.
static int late_head(struct sl_http2_server *server, int32_t id)
{
	if (id <= server->cut_max || server->final)
		return 0;
	die(server, NGHTTP2_STREAM_CLOSED, "stream_closed");
	return NGHTTP2_ERR_CALLBACK_FAILURE;
}

// Before anything of a frame is read. What nghttp2 does not check: late heads, and PRIORITY on no
// stream, as its priorities are off (RFC 9113, section 6.3).
static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *user)
{
	struct sl_http2_server *server = user;

	(void)session;
	if (SL_LIKELY(hd->type == NGHTTP2_DATA))
		return 0;
	if (hd->type == NGHTTP2_HEADERS && hd->stream_id > server->begun_max)
		server->begun_max = hd->stream_id;
	else if (hd->type == NGHTTP2_HEADERS && !find(server, hd->stream_id))
		return late_head(server, hd->stream_id);
	if (hd->type == NGHTTP2_PRIORITY && hd->stream_id == 0) {
		die(server, NGHTTP2_PROTOCOL_ERROR, "priority_of_no_stream");
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	}
	return 0;
}

// --- heads --------------------------------------------------------------------------------------

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct sl_http2_server *server = user;

	(void)session;
	sl_http_block_give(server->base.memory, server->block);
	server->block = NULL;
	server->refused = frame->headers.cat == NGHTTP2_HCAT_REQUEST &&
			  server->active >= server->base.options->streams_max;
	if (server->dying)
		return 0;
	server->block = sl_http_block_take(server->base.memory,
					   server->base.options->header_bytes_max);
	if (!server->block)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	server->block->trailers = frame->headers.cat != NGHTTP2_HCAT_REQUEST;
	return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_bytes, const uint8_t *value, size_t value_bytes, uint8_t flags,
		     void *user)
{
	struct sl_http2_server *server = user;

	(void)session;
	(void)frame;
	(void)flags;
	if (SL_LIKELY(server->block != NULL))
		sl_http_block_add(server->block, sl_bytes(name, name_bytes),
				  sl_bytes(value, value_bytes));
	return 0;
}

// The last bytes of a request: its length must be what its head said (RFC 9113, 8.1.1).
static void request_end(struct sl_http2_server *server, struct sl_http2_stream *stream)
{
	if (!stream || stream->ended)
		return;
	not_receiving(server, stream);
	if (stream->over || stream->answered)
		return;
	if (stream->content_length != SL_HTTP_NO_LENGTH &&
	    stream->content_length != stream->received) {
		malformed(server, stream);
		return;
	}
	server->base.upcalls->end(server->base.owner, &stream->base, server->now_ns);
}

static struct sl_http2_stream *stream_new(struct sl_http2_server *server, int32_t id)
{
	struct sl_http2_stream *stream = sl_pool_take(&server->base.pools->streams);

	if (!stream)
		return NULL;
	memset(stream, 0, offsetof(struct sl_http2_stream, inline_reply));
	stream->base.server = &server->base;
	stream->id = id;
	stream->next = server->streams;
	if (stream->next)
		stream->next->prev = stream;
	server->streams = stream;
	stream->receiving_next = server->receiving;
	if (stream->receiving_next)
		stream->receiving_next->receiving_prev = stream;
	server->receiving = stream;
	server->active++;
	server->base.open_streams++;
	server->last = stream;
	nghttp2_session_set_stream_user_data(server->session, id, stream);
	return stream;
}

static void request_head(struct sl_http2_server *server, struct sl_http_block *block, int32_t id,
			 bool end)
{
	struct sl_http2_stream *stream;

	if (!block->too_large && !sl_http_block_is_request(block)) {
		refuse(server, block, id, NGHTTP2_PROTOCOL_ERROR);
		return;
	}
	stream = stream_new(server, id);
	if (!stream) {
		refuse(server, block, id, NGHTTP2_REFUSED_STREAM);
		return;
	}
	if (block->too_large) {
		server->base.upcalls->refused(server->base.owner, &stream->base, 431,
					      block->head.content_type, server->now_ns);
		glitch(server);
		return;
	}
	stream->told = true;
	stream->content_length = block->head.content_length;
	stream->is_head = sl_bytes_equal(block->head.method, SL_LITERAL("HEAD"));
	block->head.end = end;
	block->head.expects_continue &= !end; // no body waits
	server->base.upcalls->head(server->base.owner, &stream->base, &block->head, server->now_ns);
	if (end)
		request_end(server, stream);
}

static void headers_end(struct sl_http2_server *server, const nghttp2_frame *frame)
{
	const bool end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
	struct sl_http_block *block = server->block;
	const int32_t id = frame->hd.stream_id;
	struct sl_http2_stream *stream;

	server->block = NULL;
	if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
		if (server->refused)
			refuse(server, block, id, NGHTTP2_REFUSED_STREAM);
		else if (block)
			request_head(server, block, id, end);
	} else if ((stream = find(server, id))) {
		// Trailers end a request and have no pseudo fields (RFC 9113, 8.1).
		if (!end || !block || block->bad)
			malformed(server, stream);
		else
			request_end(server, stream);
	}
	sl_http_block_give(server->base.memory, block);
}

// --- bodies and other frames --------------------------------------------------------------------

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
		   size_t length, void *user)
{
	struct sl_http2_server *server = user;
	struct sl_http2_stream *stream = find(server, id);

	(void)flags;
	// The connection's window comes back at once: no stream can starve another.
	nghttp2_session_consume_connection(session, length);
	if (!stream || stream->over || stream->answered || server->dying)
		return 0;
	stream->received += length;
	if (stream->received > stream->content_length) {
		malformed(server, stream);
		return server->dying ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
	}
	server->base.upcalls->data(server->base.owner, &stream->base, sl_bytes(data, length),
				   server->now_ns);
	return 0;
}

static void on_ping(struct sl_http2_server *server, const nghttp2_frame *frame)
{
	const uint64_t quiet_ns = server->active ? PING_QUIET_NS : PING_IDLE_NS;

	if (frame->hd.flags & NGHTTP2_FLAG_ACK) {
		if (server->noticed && !memcmp(frame->ping.opaque_data, notice_ping, 8))
			server->base.ops->goaway_final(&server->base);
		return;
	}
	// Item 30. The first PING has no predecessor to be too close to.
	if (server->ping_ns && server->now_ns - server->ping_ns < quiet_ns &&
	    ++server->strikes > server->base.options->pings_without_data_max)
		die(server, NGHTTP2_ENHANCE_YOUR_CALM, "too_many_pings");
	server->ping_ns = SL_MAX(server->now_ns, 1);
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct sl_http2_server *server = user;

	(void)session;
	if (server->dying)
		return 0;
	switch (frame->hd.type) {
	case NGHTTP2_DATA:
		if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
			request_end(server, find(server, frame->hd.stream_id));
		else if (frame->hd.length == frame->data.padlen)
			glitch(server);
		break;
	case NGHTTP2_HEADERS:
		headers_end(server, frame);
		break;
	case NGHTTP2_PING:
		on_ping(server, frame);
		break;
	case NGHTTP2_SETTINGS:
		if (frame->hd.flags & NGHTTP2_FLAG_ACK)
			break;
		server->greeted = true;
		glitch(server);
		break;
	case NGHTTP2_GOAWAY:
		server->peer_going = true;
		break;
	case NGHTTP2_WINDOW_UPDATE:
		break;
	case NGHTTP2_RST_STREAM:
		server->peer_cut = frame->hd.stream_id;
		glitch(server);
		break;
	default: // PRIORITY and what nobody uses
		glitch(server);
	}
	// Nothing more of a dying connection is read.
	return server->dying ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct sl_http2_server *server = user;
	const int32_t id = frame->hd.stream_id;
	struct sl_http2_stream *stream;

	if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR)
		server->dying = true;
	if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
		return 0;
	server->strikes = 0;
	if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	stream = find(server, id);
	if (stream)
		stream->sent_end = true;
	// An answer before the request's end: the client need not send the rest (item 19).
	if (stream ? !stream->ended : !nghttp2_session_get_stream_remote_close(session, id))
		nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR);
	return 0;
}

// --- the face -----------------------------------------------------------------------------------

static int feed(struct sl_http_server *base, struct sl_bytes bytes, uint64_t now_ns)
{
	struct sl_http2_server *server = (struct sl_http2_server *)base;
	ssize_t taken;

	if (server->dying)
		return -1;
	server->now_ns = now_ns;
	taken = nghttp2_session_mem_recv(server->session, bytes.data, bytes.size);
	if (taken < 0)
		die(server,
		    taken == NGHTTP2_ERR_FLOODED ? NGHTTP2_ENHANCE_YOUR_CALM
						 : NGHTTP2_PROTOCOL_ERROR,
		    nghttp2_strerror((int)taken));
	// nghttp2 has written its own GOAWAY when it gave up. It also wants no more when the peer
	// said goodbye, which is no error.
	if (!server->final && !server->peer_going && !nghttp2_session_want_read(server->session))
		server->dying = true;
	return server->dying ? -1 : 0;
}

// The limit on streams is told to the peer but kept by us: nghttp2 would end the connection where
// the stream is to be refused. So it knows no limit, and its first SETTINGS frame is amended.
static void amend_settings(struct sl_http2_server *server, uint8_t *frame, size_t size)
{
	const uint32_t max = server->base.options->streams_max;

	for (size_t at = 9; at + 6 <= size; at += 6) {
		if (frame[at] == 0 && frame[at + 1] == NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS) {
			frame[at + 2] = (uint8_t)(max >> 24);
			frame[at + 3] = (uint8_t)(max >> 16);
			frame[at + 4] = (uint8_t)(max >> 8);
			frame[at + 5] = (uint8_t)max;
		}
	}
	server->settled = true;
}

// The first GOAWAY names the last id there can be, then a PING measures the round trip (item 29).
// nghttp2 would refuse streams after a GOAWAY with text: so these frames are written here.
static void write_notice(struct sl_http2_server *server)
{
	const size_t text = strlen(server->debug);
	uint8_t goaway[17 + 255] = {
		0, 0, (uint8_t)(8 + text), NGHTTP2_GOAWAY, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff};
	uint8_t ping[17] = {0, 0, 8, NGHTTP2_PING};

	memcpy(goaway + 17, server->debug, text);
	memcpy(ping + 9, notice_ping, sizeof(notice_ping));
	if (sl_http_out_add(server->base.memory, &server->out, goaway, 17 + text) &&
	    sl_http_out_add(server->base.memory, &server->out, ping, sizeof(ping)))
		server->noticed = true;
	server->notice = false;
}

static size_t pull(struct sl_http_server *base, struct iovec *pieces, size_t count)
{
	struct sl_http2_server *server = (struct sl_http2_server *)base;
	struct sl_http_out *out = &server->out;
	const uint8_t *frame;
	ssize_t size = 1;

	// What was pulled before and not told as sent stays as it is.
	if (!out->size) {
		server->pulling = true;
		while (out->size < PULL_MAX &&
		       (size = nghttp2_session_mem_send(server->session, &frame)) > 0) {
			if (!sl_http_out_add(base->memory, out, frame, (size_t)size)) {
				size = NGHTTP2_ERR_NOMEM;
				break;
			}
			if (SL_UNLIKELY(!server->settled) && frame[3] == NGHTTP2_SETTINGS &&
			    !(frame[4] & NGHTTP2_FLAG_ACK))
				amend_settings(server, out->data + out->size - size, (size_t)size);
		}
		server->pulling = false;
		if (size < 0)
			server->dying = true;
		if (size == 0 && server->notice)
			write_notice(server);
	}
	if (!out->size || !count)
		return 0;
	pieces[0] = (struct iovec){out->data, out->size};
	return 1;
}

static void fetch(const struct sl_http_server *base)
{
	const struct sl_http2_server *server = (const struct sl_http2_server *)base;

	sl_prefetch_all(server->session, NGHTTP2_SESSION_BYTES);
}

static void pulled(struct sl_http_server *base)
{
	struct sl_http2_server *server = (struct sl_http2_server *)base;

	sl_http_out_give(base->memory, &server->out);
	while (server->finished) {
		struct sl_http2_stream *stream = server->finished;

		server->finished = stream->finished_next;
		stream_free(server, stream);
	}
}

static bool wants_pull(const struct sl_http_server *base)
{
	const struct sl_http2_server *server = (const struct sl_http2_server *)base;

	return server->out.size || server->notice || nghttp2_session_want_write(server->session);
}

static bool is_done(const struct sl_http_server *base)
{
	const struct sl_http2_server *server = (const struct sl_http2_server *)base;

	if (wants_pull(base))
		return false;
	// After the peer's GOAWAY nghttp2 reads no further once the last stream has ended.
	return server->dying || (server->final && base->open_streams == 0) ||
	       (server->peer_going && base->open_streams == 0 &&
		!nghttp2_session_want_read(server->session));
}

static bool in_head(const struct sl_http_server *base)
{
	const struct sl_http2_server *server = (const struct sl_http2_server *)base;

	return server->block != NULL || !server->greeted; // a preface is owed like a head
}

// The next event that matters is the end of some body: at least the shortest rest must come before
// it. A body of unknown length, or many at once: unknown.
static size_t outstanding(const struct sl_http_server *base)
{
	const struct sl_http2_server *server = (const struct sl_http2_server *)base;
	uint64_t least = UINT64_MAX;
	unsigned count = 0;

	for (const struct sl_http2_stream *stream = server->receiving; stream;
	     stream = stream->receiving_next) {
		const uint64_t whole = SL_MAX(
			stream->expected,
			stream->content_length == SL_HTTP_NO_LENGTH ? 0 : stream->content_length);
		int32_t window;

		if (whole <= stream->received || ++count > RECEIVING_MAX)
			return 0;
		window = nghttp2_session_get_stream_local_window_size(server->session, stream->id);
		least = SL_MIN(least, whole - stream->received);
		least = SL_MIN(least, (uint64_t)SL_MAX(window, 0));
	}
	if (!count)
		return 0;
	return SL_MIN(least,
		      (uint64_t)SL_MAX(nghttp2_session_get_local_window_size(server->session), 0));
}

static void goaway(struct sl_http_server *base, const char *debug)
{
	struct sl_http2_server *server = (struct sl_http2_server *)base;

	if (server->notice || server->noticed || server->final || server->dying)
		return;
	assert(strlen(debug) < 200);
	server->debug = debug;
	server->notice = true;
}

static void goaway_final(struct sl_http_server *base)
{
	struct sl_http2_server *server = (struct sl_http2_server *)base;
	const char *debug = server->debug ? server->debug : "";

	if (server->final || server->dying)
		return;
	server->final = true;
	nghttp2_submit_goaway(server->session, NGHTTP2_FLAG_NONE,
			      nghttp2_session_get_last_proc_stream_id(server->session),
			      NGHTTP2_NO_ERROR, (const uint8_t *)debug, strlen(debug));
}

static void destroy(struct sl_http_server *base)
{
	struct sl_http2_server *server = (struct sl_http2_server *)base;

	while (server->streams) {
		server->streams->over = true;
		stream_free(server, server->streams);
	}
	nghttp2_session_del(server->session);
	sl_http_block_give(base->memory, server->block);
	sl_http_out_give(base->memory, &server->out);
}

// Window is given back a quarter at a time: most bodies never ask for more.
static void consume(struct sl_http_stream *base, size_t bytes)
{
	struct sl_http2_stream *stream = (struct sl_http2_stream *)base;
	struct sl_http2_server *server = (struct sl_http2_server *)base->server;

	stream->unconsumed += (uint32_t)bytes;
	if (stream->over || stream->ended ||
	    stream->unconsumed <= base->server->options->stream_window / 4)
		return;
	nghttp2_session_consume_stream(server->session, stream->id, stream->unconsumed);
	stream->unconsumed = 0;
}

// Few clients wait for it on HTTP/2, but those that do are owed it (RFC 9110, section 10.1.1).
static void proceed(struct sl_http_stream *base)
{
	static const nghttp2_nv go_on = {(uint8_t *)(uintptr_t) ":status",
					 (uint8_t *)(uintptr_t) "100", 7, 3, NGHTTP2_NV_FLAG_NONE};
	struct sl_http2_stream *stream = (struct sl_http2_stream *)base;
	struct sl_http2_server *server = (struct sl_http2_server *)base->server;

	if (!stream->over && !stream->ended)
		nghttp2_submit_headers(server->session, NGHTTP2_FLAG_NONE, stream->id, NULL, &go_on,
				       1, NULL);
}

static void expect(struct sl_http_stream *base, size_t bytes)
{
	((struct sl_http2_stream *)base)->expected = bytes;
}

static const struct sl_http_server_ops ops = {
	.feed = feed,
	.pull = pull,
	.fetch = fetch,
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
	.respond = sl_http2_respond,
	.message = sl_http2_message,
	.finish = sl_http2_finish,
	.reset = reset,
};

static_assert(sizeof(struct sl_http2_server) <= SL_HTTP_SESSION_BYTES, "fits its pool");
static_assert(sizeof(struct sl_http2_stream) <= SL_HTTP_STREAM_BYTES, "fits its pool");

static int session_new(struct sl_http2_server *server, struct sl_http_pools *pools)
{
	nghttp2_session_callbacks *callbacks = NULL;
	nghttp2_option *option = NULL;
	int failed = -1;

	if (nghttp2_session_callbacks_new(&callbacks) || nghttp2_option_new(&option))
		goto done;
	nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
	nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
	nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
	nghttp2_option_set_no_auto_window_update(option, 1);
	nghttp2_option_set_no_http_messaging(option, 1);
	nghttp2_option_set_no_closed_streams(option, 1);
	nghttp2_option_set_max_deflate_dynamic_table_size(option, FIELDS_KEPT_BYTES);
	failed = nghttp2_session_server_new3(&server->session, callbacks, server, option,
					     &pools->mem);
done:
	nghttp2_option_del(option);
	nghttp2_session_callbacks_del(callbacks);
	return failed;
}

struct sl_http_server *sl_http2_server_create(struct sl_http_pools *pools,
					      const struct sl_http_server_options *options)
{
	struct sl_http2_server *server = sl_pool_take(&pools->sessions);
	const nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_NO_MAX},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options->stream_window},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, options->header_bytes_max},
		{NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
	};

	if (!server)
		return NULL;
	*server = (struct sl_http2_server){
		.base = {.ops = &ops, .memory = pools->memory, .pools = pools},
	};
	if (session_new(server, pools) != 0)
		goto fail;
	if (nghttp2_submit_settings(server->session, NGHTTP2_FLAG_NONE, settings,
				    SL_COUNT_OF(settings)) != 0 ||
	    nghttp2_session_set_local_window_size(server->session, NGHTTP2_FLAG_NONE, 0,
						  (int32_t)options->connection_window) != 0)
		goto fail;
	return &server->base;
fail:
	nghttp2_session_del(server->session);
	sl_pool_give(&pools->sessions, server);
	return NULL;
}
