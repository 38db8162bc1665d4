#include "dataplane/http/http1.h"

#include <errno.h>

// HTTP/1.1, client side: one exchange at a time, its body sent from where it lies.

#define HEAD_BYTES_MAX (16 * SL_KIB)

struct client {
	struct sl_http_client base;
	struct sl_http1_reader reader;
	struct sl_http_exchange *exchange;
	struct sl_http_out head; // of the request
	uint32_t flying;         // pieces of the body that pull() gave
	bool head_flying, head_sent;
	bool interim; // the response being read is a 1xx
	bool done;    // the connection takes no more
	bool ending;  // ended() waits for pulled(): pieces of the body are on their way
};

static bool body_sent(const struct client *client)
{
	return client->head_sent && client->exchange->body_index == client->exchange->body_count;
}

static void end(struct client *client, int error)
{
	struct sl_http_exchange *exchange = client->exchange;

	exchange->error = error;
	// A request that was not sent whole leaves the connection in its midst.
	if (error || !body_sent(client) || !client->reader.keep_alive)
		client->done = true;
	if (client->head_flying || client->flying) {
		client->ending = true;
		return;
	}
	client->ending = false;
	client->exchange = NULL;
	sl_http_out_give(client->base.memory, &client->head);
	client->base.open--;
	client->base.upcalls->ended(client->base.owner, exchange, error, false);
}

static void on_head(struct client *client)
{
	struct sl_http1_reader *reader = &client->reader;
	struct sl_http_exchange *exchange = client->exchange;

	client->interim = reader->status < 200;
	reader->bodyless = client->interim || reader->status == 204 || reader->status == 304 ||
			   sl_bytes_equal(exchange->method, SL_LITERAL("HEAD"));
	if (client->interim)
		return;
	exchange->head_seen = true;
	client->base.upcalls->head(client->base.owner, exchange, reader->status,
				   reader->block->headers, reader->block->head.header_count);
}

static int feed(struct sl_http_client *base, struct sl_bytes bytes, uint64_t now_ns)
{
	struct client *client = (struct client *)base;
	struct sl_bytes data;

	(void)now_ns;
	for (;;) {
		// Bytes that nobody asked for: another's answer would be taken for ours.
		if (!client->exchange || client->ending) {
			client->done |= bytes.size != 0;
			return bytes.size ? -1 : 0;
		}
		switch (sl_http1_next(&client->reader, &bytes, &data)) {
		case SL_HTTP1_NEED_MORE:
			return client->done ? -1 : 0;
		case SL_HTTP1_HEAD:
			on_head(client);
			break;
		case SL_HTTP1_DATA:
			base->upcalls->data(base->owner, client->exchange, data);
			break;
		case SL_HTTP1_END:
			if (client->interim)
				break;
			client->exchange->end_seen = true;
			end(client, 0);
			break;
		case SL_HTTP1_BAD:
			client->done = true;
			end(client, NGHTTP2_PROTOCOL_ERROR);
			return -1;
		}
	}
}

static size_t pull(struct sl_http_client *base, struct iovec *pieces, size_t count)
{
	struct client *client = (struct client *)base;
	struct sl_http_exchange *exchange = client->exchange;
	size_t used = 0;

	if (!exchange || client->ending)
		return 0;
	if (!client->head_sent && count) {
		pieces[used++] = (struct iovec){client->head.data, client->head.size};
		client->head_flying = true;
	}
	client->flying = 0;
	while (used < count && exchange->body_index + client->flying < exchange->body_count)
		pieces[used++] = exchange->body[exchange->body_index + client->flying++];
	return used;
}

static void pulled(struct sl_http_client *base)
{
	struct client *client = (struct client *)base;

	if (!client->exchange)
		return;
	client->head_sent |= client->head_flying;
	client->head_flying = false;
	client->exchange->body_index += client->flying;
	client->flying = 0;
	if (client->ending)
		end(client, client->exchange->error);
}

static uint32_t room(const struct sl_http_client *base)
{
	const struct client *client = (const struct client *)base;

	return !client->exchange && !client->done;
}

static bool put(struct client *client, struct sl_bytes bytes)
{
	return sl_http_out_add(client->base.memory, &client->head, bytes.data, bytes.size);
}

static bool put_field(struct client *client, struct sl_bytes name, struct sl_bytes value)
{
	return put(client, name) && put(client, SL_LITERAL(": ")) && put(client, value) &&
	       put(client, SL_LITERAL("\r\n"));
}

static bool write_head(struct client *client, const struct sl_http_exchange *exchange)
{
	const bool get = sl_bytes_equal(exchange->method, SL_LITERAL("GET")) ||
			 sl_bytes_equal(exchange->method, SL_LITERAL("HEAD"));
	uint8_t digits[20];
	bool fine = put(client, exchange->method) && put(client, SL_LITERAL(" ")) &&
		    put(client, exchange->path) && put(client, SL_LITERAL(" HTTP/1.1\r\n")) &&
		    put_field(client, SL_LITERAL("host"), exchange->authority);

	for (uint32_t i = 0; fine && i < exchange->header_count; i++)
		fine = put_field(client, exchange->headers[i].name, exchange->headers[i].value);
	if (fine && (exchange->body_bytes || !get))
		fine = put_field(
			client, SL_LITERAL("content-length"),
			sl_bytes(digits, sl_http_number_print(digits, exchange->body_bytes)));
	return fine && put(client, SL_LITERAL("\r\n"));
}

// A line end in a field would let its value write the request.
static bool is_writable(const struct sl_http_exchange *exchange)
{
	if (!sl_http_value_is_valid(exchange->path) || !sl_http_value_is_valid(exchange->authority))
		return false;
	for (uint32_t i = 0; i < exchange->header_count; i++) {
		if (!sl_http_name_is_valid(exchange->headers[i].name) ||
		    !sl_http_value_is_valid(exchange->headers[i].value))
			return false;
	}
	return true;
}

static int start(struct sl_http_client *base, struct sl_http_exchange *exchange)
{
	struct client *client = (struct client *)base;

	if (!room(base))
		return -EAGAIN;
	if (!is_writable(exchange))
		return -EINVAL;
	if (!write_head(client, exchange)) {
		sl_http_out_give(base->memory, &client->head);
		return -ENOMEM;
	}
	exchange->body_index = 0;
	exchange->head_seen = exchange->end_seen = exchange->unprocessed = false;
	client->exchange = exchange;
	client->head_flying = client->head_sent = false;
	client->flying = 0;
	base->open++;
	return 0;
}

static void cancel(struct sl_http_client *base, struct sl_http_exchange *exchange)
{
	struct client *client = (struct client *)base;

	if (client->exchange != exchange || client->ending)
		return;
	client->done = true;
	end(client, NGHTTP2_CANCEL);
}

static void ping(struct sl_http_client *base)
{
	(void)base; // HTTP/1 has none
}

static bool is_done(const struct sl_http_client *base)
{
	const struct client *client = (const struct client *)base;

	return client->done && !client->exchange;
}

static void destroy(struct sl_http_client *base)
{
	struct client *client = (struct client *)base;

	client->head_flying = false;
	client->flying = 0;
	// A body without a length ends so (RFC 9112, section 6.3): its answer is whole.
	if (client->exchange)
		end(client, client->ending                              ? client->exchange->error
			    : client->reader.state == SL_HTTP1_IN_CLOSE ? 0
									: -1);
	sl_http1_reader_fini(&client->reader);
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

struct sl_http_client *sl_http1_client_create(struct sl_http_pools *pools)
{
	struct client *client = sl_pool_take(&pools->sessions);

	if (!client)
		return NULL;
	*client = (struct client){
		.base = {.ops = &ops, .memory = pools->memory, .pools = pools},
	};
	sl_http1_reader_init(&client->reader, pools->memory, true, HEAD_BYTES_MAX);
	return &client->base;
}
