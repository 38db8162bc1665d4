#include "dataplane/http/internal.h"

// The faces: each call goes to its protocol through a table.

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

int sl_http_is_http2(struct sl_bytes bytes)
{
	const size_t size = SL_MIN(bytes.size, sizeof(PREFACE) - 1);

	if (size && memcmp(bytes.data, PREFACE, size) != 0)
		return 0;
	// No HTTP/1 method but one nobody uses begins like this.
	return size >= 3 ? 1 : -1;
}

struct sl_http_server *sl_http_server_create(bool http2,
					     const struct sl_http_server_options *options,
					     const struct sl_http_server_upcalls *upcalls,
					     void *owner, struct sl_memory *memory)
{
	struct sl_http_pools *pools = sl_http_pools_get(memory);
	struct sl_http_server *server;

	if (!pools)
		return NULL;
	server = http2 ? sl_http2_server_create(pools, options) : sl_http1_server_create(pools);
	if (!server) {
		sl_http_pools_put(pools);
		return NULL;
	}
	server->options = options;
	server->upcalls = upcalls;
	server->owner = owner;
	return server;
}

void sl_http_server_destroy(struct sl_http_server *server)
{
	struct sl_http_pools *pools;

	if (!server)
		return;
	pools = server->pools;
	server->ops->destroy(server);
	assert(server->open_streams == 0);
	sl_pool_give(&pools->sessions, server);
	sl_http_pools_put(pools);
}

int sl_http_server_feed(struct sl_http_server *server, struct sl_bytes bytes, uint64_t now_ns)
{
	return server->ops->feed(server, bytes, now_ns);
}

size_t sl_http_server_pull(struct sl_http_server *server, struct iovec *pieces, size_t count)
{
	return server->ops->pull(server, pieces, count);
}

void sl_http_server_fetch(const struct sl_http_server *server, unsigned step)
{
	if (step == 0)
		sl_prefetch_all(server, SL_HTTP_SESSION_FETCH_BYTES);
	else if (server->ops->fetch)
		server->ops->fetch(server);
}

void sl_http_server_pulled(struct sl_http_server *server)
{
	server->ops->pulled(server);
}

bool sl_http_server_wants_pull(const struct sl_http_server *server)
{
	return server->ops->wants_pull(server);
}

bool sl_http_server_is_done(const struct sl_http_server *server)
{
	return server->ops->is_done(server);
}

bool sl_http_server_in_head(const struct sl_http_server *server)
{
	return server->ops->in_head(server);
}

size_t sl_http_server_outstanding(const struct sl_http_server *server)
{
	return server->ops->outstanding(server);
}

void sl_http_server_goaway(struct sl_http_server *server, const char *debug)
{
	server->ops->goaway(server, debug);
}

void sl_http_server_goaway_final(struct sl_http_server *server)
{
	server->ops->goaway_final(server);
}

void *sl_http_stream_user(const struct sl_http_stream *stream)
{
	return stream->user;
}

void sl_http_stream_set_user(struct sl_http_stream *stream, void *user)
{
	stream->user = user;
}

void sl_http_stream_consume(struct sl_http_stream *stream, size_t bytes)
{
	stream->server->ops->consume(stream, bytes);
}

void sl_http_stream_continue(struct sl_http_stream *stream)
{
	stream->server->ops->proceed(stream);
}

void sl_http_stream_expect(struct sl_http_stream *stream, size_t bytes)
{
	stream->server->ops->expect(stream, bytes);
}

void sl_http_stream_respond(struct sl_http_stream *stream, const struct sl_http_response *response)
{
	stream->server->ops->respond(stream, response);
}

bool sl_http_stream_message(struct sl_http_stream *stream, struct sl_bytes body)
{
	return stream->server->ops->message(stream, body);
}

void sl_http_stream_finish(struct sl_http_stream *stream, uint8_t grpc_status)
{
	stream->server->ops->finish(stream, grpc_status);
}

void sl_http_stream_reset(struct sl_http_stream *stream, uint32_t code)
{
	stream->server->ops->reset(stream, code);
}

struct sl_http_client *sl_http_client_create(bool http2,
					     const struct sl_http_client_upcalls *upcalls,
					     void *owner, struct sl_memory *memory)
{
	struct sl_http_pools *pools = sl_http_pools_get(memory);
	struct sl_http_client *client;

	if (!pools)
		return NULL;
	client = http2 ? sl_http2_client_create(pools) : sl_http1_client_create(pools);
	if (!client) {
		sl_http_pools_put(pools);
		return NULL;
	}
	client->upcalls = upcalls;
	client->owner = owner;
	return client;
}

void sl_http_client_destroy(struct sl_http_client *client)
{
	struct sl_http_pools *pools;

	if (!client)
		return;
	pools = client->pools;
	client->ops->destroy(client);
	assert(client->open == 0);
	sl_pool_give(&pools->sessions, client);
	sl_http_pools_put(pools);
}

int sl_http_client_feed(struct sl_http_client *client, struct sl_bytes bytes, uint64_t now_ns)
{
	return client->ops->feed(client, bytes, now_ns);
}

size_t sl_http_client_pull(struct sl_http_client *client, struct iovec *pieces, size_t count)
{
	return client->ops->pull(client, pieces, count);
}

void sl_http_client_pulled(struct sl_http_client *client)
{
	client->ops->pulled(client);
}

uint32_t sl_http_client_room(const struct sl_http_client *client)
{
	return client->ops->room(client);
}

uint32_t sl_http_client_open(const struct sl_http_client *client)
{
	return client->open;
}

int sl_http_client_start(struct sl_http_client *client, struct sl_http_exchange *exchange)
{
	return client->ops->start(client, exchange);
}

void sl_http_client_cancel(struct sl_http_client *client, struct sl_http_exchange *exchange)
{
	client->ops->cancel(client, exchange);
}

void sl_http_client_ping(struct sl_http_client *client)
{
	client->ops->ping(client);
}

bool sl_http_client_is_done(const struct sl_http_client *client)
{
	return client->ops->is_done(client);
}
