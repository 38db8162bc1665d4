#include <errno.h>

#include "dataplane/http/internal.h"

// HTTP/2, client side. nghttp2 checks responses; a call's end waits for pulled() when it comes to
// light inside pull(). Bodies are not copied: what is pulled is a list of pieces, in which frames'
// heads and short pieces lie in `out` and the long ones where they are.
//
//   out     [HEADERS, DATA's head]             [DATA's head]
//   pieces  ^---------------------|  body's  |  ^-----------|  body's  |

#define PULL_MAX       (256 * SL_KIB)
#define COPY_MAX       512 // shorter pieces are copied: a piece costs the kernel more
#define FRAME_PIECES   4   // a DATA frame is begun where that many are left
#define FIELDS_MAX     64
#define ROOM_PRESET    100 // until the peer's SETTINGS tell
#define HEAD_BYTES_MAX (16 * SL_KIB)

struct client {
	struct sl_http_client base;
	nghttp2_session *session;
	struct sl_http_block *block;
	struct sl_http_exchange *open, *finished;
	struct sl_http_out out;
	struct iovec *pieces; // inside pull(): the caller's; a NULL base is the next of `out`
	size_t piece_count, piece_max, pulled_bytes;
	bool pulling, going, settled;
};

static void finish(struct client *client, struct sl_http_exchange *exchange)
{
	client->base.open--;
	client->base.upcalls->ended(client->base.owner, exchange, exchange->error,
				    exchange->unprocessed);
}

// Takes an exchange out of the open ones; it is the caller's again when ended() was called.
static void close_exchange(struct client *client, struct sl_http_exchange *exchange, int error,
			   bool unprocessed)
{
	if (exchange->prev)
		exchange->prev->next = exchange->next;
	else
		client->open = exchange->next;
	if (exchange->next)
		exchange->next->prev = exchange->prev;
	exchange->error = error;
	exchange->unprocessed = unprocessed;
	exchange->stream_id = 0; // it is no stream's any more
	if (client->pulling) {
		exchange->next = client->finished;
		client->finished = exchange;
		return;
	}
	finish(client, exchange);
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
	struct sl_http_exchange *exchange = nghttp2_session_get_stream_user_data(session, id);

	if (!exchange)
		return 0;
	// A whole answer counts, whatever the peer says of the rest (item 19).
	if (exchange->end_seen)
		code = NGHTTP2_NO_ERROR;
	else if (code == NGHTTP2_NO_ERROR)
		code = NGHTTP2_PROTOCOL_ERROR;
	close_exchange(user, exchange, (int)code, code == NGHTTP2_REFUSED_STREAM);
	return 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct client *client = user;

	(void)session;
	(void)frame;
	sl_http_block_give(client->base.memory, client->block);
	client->block = sl_http_block_take(client->base.memory, HEAD_BYTES_MAX);
	return client->block ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_bytes, const uint8_t *value, size_t value_bytes, uint8_t flags,
		     void *user)
{
	struct client *client = user;
	uint64_t status = 0;

	(void)session;
	(void)frame;
	(void)flags;
	if (!client->block)
		return 0;
	if (name_bytes == 7 && memcmp(name, ":status", 7) == 0) {
		sl_http_number_parse(sl_bytes(value, value_bytes), &status);
		client->block->status = (uint16_t)SL_MIN(status, 999);
		return 0;
	}
	client->block->trailers = true; // nothing is named in a response
	sl_http_block_add(client->block, sl_bytes(name, name_bytes), sl_bytes(value, value_bytes));
	return 0;
}

static void headers_end(struct client *client, const nghttp2_frame *frame,
			struct sl_http_exchange *exchange)
{
	const struct sl_http_client_upcalls *upcalls = client->base.upcalls;
	struct sl_http_block *block = client->block;
	const uint32_t count = block ? block->head.header_count : 0;

	client->block = NULL;
	if (!exchange || !block) {
		sl_http_block_give(client->base.memory, block);
		return;
	}
	if (block->bad || block->too_large) {
		nghttp2_submit_rst_stream(client->session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
					  NGHTTP2_PROTOCOL_ERROR);
	} else if (exchange->head_seen) {
		upcalls->trailers(client->base.owner, exchange, block->headers, count);
	} else if (block->status >= 200) {
		exchange->head_seen = true;
		upcalls->head(client->base.owner, exchange, block->status, block->headers, count);
	}
	sl_http_block_give(client->base.memory, block);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
		   size_t length, void *user)
{
	struct client *client = user;
	struct sl_http_exchange *exchange = nghttp2_session_get_stream_user_data(session, id);

	(void)flags;
	if (exchange)
		client->base.upcalls->data(client->base.owner, exchange, sl_bytes(data, length));
	return 0;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
	struct client *client = user;
	const int32_t id = frame->hd.stream_id;
	struct sl_http_exchange *exchange;

	if (frame->hd.type == NGHTTP2_GOAWAY)
		client->going = true;
	if (frame->hd.type == NGHTTP2_SETTINGS)
		client->settled = true;
	if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
		return 0;
	if (frame->hd.type == NGHTTP2_HEADERS)
		headers_end(client, frame, nghttp2_session_get_stream_user_data(session, id));
	if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	// An upcall may have cancelled it.
	exchange = nghttp2_session_get_stream_user_data(session, id);
	if (!exchange)
		return 0;
	exchange->end_seen = exchange->head_seen;
	// The answer is whole: the rest of the request serves nobody.
	if (exchange->body_left)
		nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
	return 0;
}

// --- bodies -------------------------------------------------------------------------------------

static bool put_copy(struct client *client, const void *data, size_t size)
{
	struct iovec *last = client->pieces + client->piece_count - 1;

	if (!sl_http_out_add(client->base.memory, &client->out, data, size))
		return false;
	if (!client->piece_count || last->iov_base)
		client->pieces[client->piece_count++] = (struct iovec){NULL, size};
	else
		last->iov_len += size;
	client->pulled_bytes += size;
	return true;
}

// The last place is for copies: there is always a way on.
static bool put_piece(struct client *client, void *data, size_t size)
{
	if (size <= COPY_MAX || client->piece_count + 2 > client->piece_max)
		return put_copy(client, data, size);
	client->pieces[client->piece_count++] = (struct iovec){data, size};
	client->pulled_bytes += size;
	return true;
}

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t length,
			 uint32_t *flags, nghttp2_data_source *source, void *user)
{
	const struct sl_http_exchange *exchange = nghttp2_session_get_stream_user_data(session, id);

	(void)buffer;
	(void)source;
	(void)user;
	if (!exchange)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (exchange->body_left <= length)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)SL_MIN(length, exchange->body_left);
}

// The frame that read_body() promised. Frames are not padded.
static int send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
		     size_t length, nghttp2_data_source *source, void *user)
{
	struct client *client = user;
	struct sl_http_exchange *exchange = nghttp2_session_get_stream_user_data(
		session, frame->hd.stream_id);

	(void)source;
	if (!exchange)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	if (client->pulled_bytes >= PULL_MAX ||
	    (client->piece_count && client->piece_count + FRAME_PIECES > client->piece_max))
		return NGHTTP2_ERR_WOULDBLOCK;
	if (!put_copy(client, head, 9))
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	exchange->body_left -= length;
	while (length) {
		const struct iovec *piece = &exchange->body[exchange->body_index];
		const size_t take = SL_MIN(length, piece->iov_len - exchange->body_offset);

		if (take &&
		    !put_piece(client, (uint8_t *)piece->iov_base + exchange->body_offset, take))
			return NGHTTP2_ERR_CALLBACK_FAILURE;
		length -= take;
		exchange->body_offset += take;
		if (exchange->body_offset == piece->iov_len) {
			exchange->body_index++;
			exchange->body_offset = 0;
		}
	}
	return 0;
}

static uint32_t room(const struct sl_http_client *base)
{
	const struct client *client = (const struct client *)base;
	uint32_t most = ROOM_PRESET;

	if (client->going || !nghttp2_session_check_request_allowed(client->session))
		return 0;
	if (client->settled)
		most = nghttp2_session_get_remote_settings(client->session,
							   NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
	return most > base->open ? most - base->open : 0;
}

static void add(nghttp2_nv *list, size_t *count, struct sl_bytes name, struct sl_bytes value)
{
	if (value.size || name.data[0] != ':')
		list[(*count)++] = (nghttp2_nv){(uint8_t *)(uintptr_t)name.data,
						(uint8_t *)(uintptr_t)value.data, name.size,
						value.size, NGHTTP2_NV_FLAG_NONE};
}

static int start(struct sl_http_client *base, struct sl_http_exchange *exchange)
{
	struct client *client = (struct client *)base;
	const nghttp2_data_provider provider = {{.ptr = NULL}, read_body};
	nghttp2_nv list[FIELDS_MAX];
	size_t count = 0;
	int32_t id;

	if (exchange->header_count > FIELDS_MAX - 4)
		return -E2BIG;
	if (!room(base))
		return -EAGAIN;
	add(list, &count, SL_LITERAL(":method"), exchange->method);
	add(list, &count, SL_LITERAL(":scheme"), exchange->scheme);
	add(list, &count, SL_LITERAL(":authority"), exchange->authority);
	add(list, &count, SL_LITERAL(":path"), exchange->path);
	for (uint32_t i = 0; i < exchange->header_count; i++)
		add(list, &count, exchange->headers[i].name, exchange->headers[i].value);
	exchange->body_index = 0;
	exchange->body_offset = 0;
	exchange->body_left = exchange->body_bytes;
	exchange->head_seen = exchange->end_seen = exchange->unprocessed = false;
	id = nghttp2_submit_request(client->session, NULL, list, count,
				    exchange->body_bytes ? &provider : NULL, exchange);
	if (id < 0) {
		client->going |= id == NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE;
		return id == NGHTTP2_ERR_NOMEM ? -ENOMEM : -EAGAIN;
	}
	exchange->stream_id = id;
	exchange->prev = NULL;
	exchange->next = client->open;
	if (exchange->next)
		exchange->next->prev = exchange;
	client->open = exchange;
	base->open++;
	return 0;
}

static void cancel(struct sl_http_client *base, struct sl_http_exchange *exchange)
{
	struct client *client = (struct client *)base;

	if (!exchange->stream_id)
		return; // ended() is on its way
	nghttp2_session_set_stream_user_data(client->session, exchange->stream_id, NULL);
	nghttp2_submit_rst_stream(client->session, NGHTTP2_FLAG_NONE, exchange->stream_id,
				  NGHTTP2_CANCEL);
	close_exchange(client, exchange, NGHTTP2_CANCEL, false);
}

static int feed(struct sl_http_client *base, struct sl_bytes bytes, uint64_t now_ns)
{
	struct client *client = (struct client *)base;

	(void)now_ns;
	if (nghttp2_session_mem_recv(client->session, bytes.data, bytes.size) < 0) {
		client->going = true;
		return -1;
	}
	// nghttp2 gave up: its GOAWAY waits.
	if (!client->going && !nghttp2_session_want_read(client->session)) {
		client->going = true;
		return -1;
	}
	return 0;
}

static size_t pull(struct sl_http_client *base, struct iovec *pieces, size_t count)
{
	struct client *client = (struct client *)base;
	uint8_t *next;
	const uint8_t *frame;
	ssize_t size = 0;

	if (!count)
		return 0;
	client->pieces = pieces;
	client->piece_count = client->pulled_bytes = 0;
	client->piece_max = count;
	client->pulling = true;
	while (client->pulled_bytes < PULL_MAX &&
	       (size = nghttp2_session_mem_send(client->session, &frame)) > 0) {
		if (!put_copy(client, frame, (size_t)size)) {
			size = NGHTTP2_ERR_NOMEM;
			break;
		}
	}
	client->pulling = false;
	client->going |= size < 0;
	next = client->out.data;
	for (size_t i = 0; i < client->piece_count; i++) {
		if (pieces[i].iov_base)
			continue;
		pieces[i].iov_base = next;
		next += pieces[i].iov_len;
	}
	return client->piece_count;
}

static void end_finished(struct client *client)
{
	while (client->finished) {
		struct sl_http_exchange *exchange = client->finished;

		client->finished = exchange->next;
		finish(client, exchange);
	}
}

static void pulled(struct sl_http_client *base)
{
	struct client *client = (struct client *)base;

	sl_http_out_give(base->memory, &client->out);
	end_finished(client);
}

static void ping(struct sl_http_client *base)
{
	nghttp2_submit_ping(((struct client *)base)->session, NGHTTP2_FLAG_NONE, NULL);
}

static bool is_done(const struct sl_http_client *base)
{
	return base->open == 0 && ((const struct client *)base)->going;
}

static void destroy(struct sl_http_client *base)
{
	struct client *client = (struct client *)base;

	end_finished(client);
	client->going = true;
	while (client->open)
		close_exchange(client, client->open, client->open->end_seen ? NGHTTP2_NO_ERROR : -1,
			       false);
	nghttp2_session_del(client->session);
	sl_http_block_give(base->memory, client->block);
	sl_http_out_give(base->memory, &client->out);
}

static const struct sl_http_client_ops ops = {
	.feed = feed,
	.pull = pull,
	.pulled = pulled,
	.room = room,
	.start = start,
	.cancel = cancel,
	.ping = ping,
	.is_done = is_done,
	.destroy = destroy,
};

static_assert(sizeof(struct client) <= SL_HTTP_SESSION_BYTES, "fits its pool");

static int session_new(struct client *client, struct sl_http_pools *pools)
{
	const nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEAD_BYTES_MAX},
	};
	nghttp2_session_callbacks *callbacks = NULL;
	nghttp2_option *option = NULL;
	int failed = -1;

	if (nghttp2_session_callbacks_new(&callbacks) || nghttp2_option_new(&option))
		goto done;
	nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
	nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
	nghttp2_option_set_no_closed_streams(option, 1);
	failed = nghttp2_session_client_new3(&client->session, callbacks, client, option,
					     &pools->mem);
	if (!failed)
		failed = nghttp2_submit_settings(client->session, NGHTTP2_FLAG_NONE, settings,
						 SL_COUNT_OF(settings));
done:
	nghttp2_option_del(option);
	nghttp2_session_callbacks_del(callbacks);
	return failed;
}

struct sl_http_client *sl_http2_client_create(struct sl_http_pools *pools)
{
	struct client *client = sl_pool_take(&pools->sessions);

	if (!client)
		return NULL;
	*client = (struct client){
		.base = {.ops = &ops, .memory = pools->memory, .pools = pools},
	};
	if (session_new(client, pools) == 0)
		return &client->base;
	nghttp2_session_del(client->session);
	sl_pool_give(&pools->sessions, client);
	return NULL;
}
