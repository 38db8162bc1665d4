#include "dataplane/conn/client_link.h"

#include <errno.h>

#define PIECES_MAX 128
#define WRITES_MAX 16 // a flush: what is more waits a turn
#define TLS_BYTES  (256 * SL_KIB)

static void push(struct sl_client_call **list, struct sl_client_call *call)
{
	call->prev = NULL;
	call->next = *list;
	if (call->next)
		call->next->prev = call;
	*list = call;
}

static void unlink_call(struct sl_client_call **list, struct sl_client_call *call)
{
	if (call->prev)
		call->prev->next = call->next;
	else
		*list = call->next;
	if (call->next)
		call->next->prev = call->prev;
	call->next = call->prev = NULL;
}

// A call is over. Plain pieces in the socket may be of its body, which must stay until they have
// gone: then its end is told later. TLS has copied them.
static void finish(struct sl_client *client, struct sl_client_call *call, int result)
{
	struct sl_client_pool *pool = client->pool;

	unlink_call(&client->calls, call);
	client->open--;
	if (!client->open)
		client->quiet_since_ns = pool->now_ns;
	client->dirty = true;
	sl_timer_cancel(pool->timers, &call->timer);
	if (!call->over)
		call->result = result;
	call->over = true;
	if (client->in_flight && !client->tls && call->exchange.body_bytes) {
		push(&client->lingering, call);
		return;
	}
	sl_client_call_end(call, call->result);
}

static void release_lingering(struct sl_client *client)
{
	while (client->lingering) {
		struct sl_client_call *call = client->lingering;

		unlink_call(&client->lingering, call);
		sl_client_call_end(call, call->result);
	}
}

// --- what http tells ----------------------------------------------------------------------------

static struct sl_client_call *call_of(struct sl_http_exchange *exchange)
{
	return SL_CONTAINER_OF(exchange, struct sl_client_call, exchange);
}

static void http_head(void *owner, struct sl_http_exchange *exchange, uint16_t status,
		      const struct sl_http_header *headers, uint32_t header_count)
{
	struct sl_client *client = owner;
	struct sl_client_call *call = call_of(exchange);

	client->answered = true;
	client->pool->backoff_ns = 0;
	if (call->head && !call->over)
		call->head(call, status, headers, header_count);
}

static void http_data(void *owner, struct sl_http_exchange *exchange, struct sl_bytes bytes)
{
	struct sl_client_call *call = call_of(exchange);

	(void)owner;
	if (call->data && !call->over)
		call->data(call, bytes);
}

static void http_trailers(void *owner, struct sl_http_exchange *exchange,
			  const struct sl_http_header *headers, uint32_t header_count)
{
	struct sl_client_call *call = call_of(exchange);

	(void)owner;
	if (call->trailers && !call->over)
		call->trailers(call, headers, header_count);
}

static void http_ended(void *owner, struct sl_http_exchange *exchange, int error, bool unprocessed)
{
	struct sl_client *client = owner;
	struct sl_client_call *call = call_of(exchange);

	finish(client, call,
	       error == 0    ? SL_CLIENT_OK
	       : unprocessed ? SL_CLIENT_UNPROCESSED
			     : SL_CLIENT_BROKEN);
}

static const struct sl_http_client_upcalls http_upcalls = {
	.head = http_head,
	.data = http_data,
	.trailers = http_trailers,
	.ended = http_ended,
};

bool sl_client_give(struct sl_client *client, struct sl_client_call *call)
{
	const uint32_t most = client->pool->options.http2 ? client->pool->options.streams : 1;

	if (client->state != SL_CLIENT_UP || client->ending || client->open >= most ||
	    !sl_http_client_room(client->http))
		return false;
	// Linked first: whatever start() does, the call's end finds it in its place.
	call->client = client;
	push(&client->calls, call);
	client->open++;
	if (sl_http_client_start(client->http, &call->exchange) < 0) {
		unlink_call(&client->calls, call);
		client->open--;
		call->client = NULL;
		return false;
	}
	client->dirty = true;
	return true;
}

void sl_client_revoke(struct sl_client *client, struct sl_client_call *call, int result)
{
	if (call->over)
		return;
	call->over = true;
	call->result = result;
	client->dirty = true;
	// ended() comes from in here, or when the reset goes out.
	sl_http_client_cancel(client->http, &call->exchange);
}

// --- the connection -----------------------------------------------------------------------------

void sl_client_close(struct sl_client *client)
{
	if (client->state == SL_CLIENT_FREE || client->state == SL_CLIENT_CLOSING)
		return;
	client->state = SL_CLIENT_CLOSING;
	sl_io_close(&client->conn, 0);
}

static void cut(struct sl_client *client)
{
	if (client->state == SL_CLIENT_FREE || client->state == SL_CLIENT_CLOSING)
		return;
	client->state = SL_CLIENT_CLOSING;
	sl_io_abort(&client->conn);
}

// Often enough for the shortest of its times.
static uint64_t tick_ns(const struct sl_client_options *options)
{
	uint64_t least_ns = options->connect_timeout_ns;

	if (options->idle_timeout_ns)
		least_ns = SL_MIN(least_ns, options->idle_timeout_ns);
	if (options->ping_after_ns)
		least_ns = SL_MIN(least_ns, options->ping_after_ns);
	return SL_MAX(SL_MIN(least_ns / 4, SL_S), 4 * SL_MS);
}

static bool is_dead(struct sl_client *client, uint64_t now_ns)
{
	const struct sl_client_options *options = &client->pool->options;

	if (client->in_flight && (client->lingering || client->open) &&
	    now_ns - client->writing_since_ns > 4 * options->connect_timeout_ns) {
		sl_client_pool_note(client->pool, "the peer takes no more bytes");
		return true;
	}
	if (!options->http2 || !options->ping_after_ns || !client->open)
		return false;
	if (client->ping_sent_ns && now_ns - client->ping_sent_ns > options->ping_after_ns) {
		sl_client_pool_note(client->pool, "no answer to a ping");
		return true;
	}
	if (!client->ping_sent_ns && now_ns - client->read_ns > options->ping_after_ns) {
		client->ping_sent_ns = now_ns;
		client->dirty = true;
		sl_http_client_ping(client->http);
	}
	return false;
}

static void tick(struct sl_timer *timer, uint64_t now_ns)
{
	struct sl_client *client = SL_CONTAINER_OF(timer, struct sl_client, timer);
	struct sl_client_pool *pool = client->pool;
	const struct sl_client_options *options = &pool->options;

	sl_client_pool_enter(pool, now_ns);
	sl_timer_set(pool->timers, timer, now_ns + tick_ns(options));
	if (client->state == SL_CLIENT_SHAKING &&
	    now_ns - client->began_ns > options->connect_timeout_ns) {
		sl_client_pool_note(pool, "tls: no handshake in time");
		cut(client);
	} else if (client->state == SL_CLIENT_UP && is_dead(client, now_ns)) {
		cut(client);
	} else if (client->state == SL_CLIENT_UP && options->idle_timeout_ns && !client->open &&
		   now_ns - client->quiet_since_ns > options->idle_timeout_ns) {
		client->ending = client->dirty = true;
	}
	sl_client_pool_leave(pool);
}

static void come_up(struct sl_client *client)
{
	struct sl_client_pool *pool = client->pool;

	client->http = sl_http_client_create(pool->options.http2, &http_upcalls, client,
					     pool->memory);
	if (!client->http) {
		sl_client_pool_note(pool, "out of memory");
		cut(client);
		return;
	}
	client->state = SL_CLIENT_UP;
	client->was_up = client->dirty = true;
	client->read_ns = client->quiet_since_ns = pool->now_ns;
	pool->attempts = 0;
	sl_client_pool_dispatch(pool);
}

// The server must speak what the pool speaks; without ALPN it is taken to speak HTTP/1.1
// (RFC 9113, section 3.3).
static bool alpn_fits(struct sl_client *client)
{
	const struct sl_bytes chosen = sl_tls_alpn(client->tls);

	if (client->pool->options.http2)
		return sl_bytes_equal(chosen, SL_LITERAL("h2"));
	return !chosen.size || sl_bytes_equal(chosen, SL_LITERAL("http/1.1"));
}

static void hands_shaken(struct sl_client *client)
{
	client->pool->handshakes[sl_tls_is_resumed(client->tls)]++;
	if (alpn_fits(client)) {
		come_up(client);
		return;
	}
	sl_client_pool_note(client->pool, "tls: the server speaks another protocol (ALPN)");
	client->ending = true;
}

static void feed_http(void *user, struct sl_bytes bytes)
{
	struct sl_client *client = user;

	// A server may speak in the same breath as it ends the handshake.
	if (client->state == SL_CLIENT_SHAKING && !client->ending)
		hands_shaken(client);
	if (!client->http || client->ending || client->state != SL_CLIENT_UP)
		return;
	if (sl_http_client_feed(client->http, bytes, client->pool->now_ns) < 0) {
		sl_client_pool_note(client->pool, "http: the peer broke the protocol");
		client->ending = true;
	}
}

static void feed_tls(struct sl_client *client, struct sl_bytes bytes)
{
	const enum sl_tls_result result = sl_tls_feed(client->tls, bytes, feed_http, client);

	client->dirty = true;
	if (result == SL_TLS_FAILED)
		sl_client_pool_note(client->pool, "tls: %s", sl_tls_error(client->tls));
	if (result != SL_TLS_OK) {
		client->ending = true;
		return;
	}
	if (client->state == SL_CLIENT_SHAKING && !client->ending && sl_tls_is_up(client->tls))
		hands_shaken(client);
}

static void connected(struct sl_conn *conn, uint64_t now_ns)
{
	struct sl_client *client = (struct sl_client *)conn;
	struct sl_client_pool *pool = client->pool;

	sl_client_pool_enter(pool, now_ns);
	client->began_ns = now_ns;
	if (pool->options.tls) {
		client->tls = sl_tls_create(pool->options.tls, pool->memory);
		client->state = SL_CLIENT_SHAKING;
		if (client->tls) {
			sl_tls_resume(client->tls, &pool->tickets);
			feed_tls(client, SL_BYTES_NONE);
		} else {
			sl_client_pool_note(pool, "out of memory");
			cut(client);
		}
	} else {
		come_up(client);
	}
	sl_client_pool_leave(pool);
}

static void received(struct sl_conn *conn, struct sl_bytes bytes, uint64_t now_ns)
{
	struct sl_client *client = (struct sl_client *)conn;

	sl_client_pool_enter(client->pool, now_ns);
	client->read_ns = now_ns;
	client->ping_sent_ns = 0;
	client->dirty = true;
	if (client->tls)
		feed_tls(client, bytes);
	else
		feed_http(client, bytes);
	// Places came free.
	sl_client_pool_dispatch(client->pool);
	sl_client_pool_leave(client->pool);
}

static void pulled(struct sl_client *client)
{
	if (client->tls)
		sl_tls_pulled(client->tls);
	else
		sl_http_client_pulled(client->http);
}

static void sent(struct sl_conn *conn, uint64_t now_ns)
{
	struct sl_client *client = (struct sl_client *)conn;

	sl_client_pool_enter(client->pool, now_ns);
	client->in_flight = false;
	client->dirty = true;
	pulled(client);
	release_lingering(client);
	sl_client_pool_leave(client->pool);
}

static void closed(struct sl_conn *conn, enum sl_close why, int error)
{
	struct sl_client *client = (struct sl_client *)conn;
	struct sl_client_pool *pool = client->pool;
	const bool failed = !client->was_up || !client->answered;
	char peer[SL_ADDRESS_TEXT_MAX];

	sl_client_pool_enter(pool, pool->now_ns);
	client->state = SL_CLIENT_CLOSING;
	if (why != SL_CLOSE_LOCAL)
		sl_client_pool_note(pool, "%s: %s", sl_address_text(&conn->peer, peer),
				    error ? strerror(error) : "closed by the peer");
	sl_timer_cancel(pool->timers, &client->timer);
	client->in_flight = false;
	sl_http_client_destroy(client->http); // its open calls end
	assert(!client->calls);
	release_lingering(client);
	// A server that could not make sense of one is not offered another.
	if (client->tls && !sl_tls_is_up(client->tls))
		sl_tls_tickets_drop(&pool->tickets);
	sl_tls_destroy(client->tls);
	client->http = NULL;
	client->tls = NULL;
	client->state = SL_CLIENT_FREE;
	if (failed && !(client->was_up && why == SL_CLOSE_LOCAL))
		sl_client_pool_failed(pool);
	else
		sl_client_pool_dispatch(pool);
	sl_client_pool_leave(pool);
}

static const struct sl_io_upcalls io_upcalls = {
	.connected = connected,
	.received = received,
	.sent = sent,
	.closed = closed,
};

int sl_client_dial(struct sl_client *client, const struct sl_address *to)
{
	struct sl_client_pool *pool = client->pool;
	int failed;

	assert(client->state == SL_CLIENT_FREE);
	*client = (struct sl_client){
		.conn.upcalls = &io_upcalls,
		.pool = pool,
		.state = SL_CLIENT_CONNECTING,
		.began_ns = pool->now_ns,
		.timer.fire = tick,
	};
	failed = sl_io_connect(pool->io, &client->conn, to, pool->options.connect_timeout_ns);
	if (failed) {
		char peer[SL_ADDRESS_TEXT_MAX];

		sl_client_pool_note(pool, "%s: %s", sl_address_text(to, peer), strerror(-failed));
		client->state = SL_CLIENT_FREE;
		return failed;
	}
	sl_timer_set(pool->timers, &client->timer, pool->now_ns + tick_ns(&pool->options));
	return 0;
}

// --- writing ------------------------------------------------------------------------------------

static size_t pull_tls(struct sl_client *client, struct iovec *pieces)
{
	struct sl_bytes cipher;
	size_t taken = 0;

	while (client->state == SL_CLIENT_UP && taken < TLS_BYTES) {
		const size_t count = sl_http_client_pull(client->http, pieces, PIECES_MAX);

		if (!count)
			break;
		for (size_t i = 0; i < count; i++)
			taken += pieces[i].iov_len;
		if (sl_tls_write(client->tls, pieces, count) != SL_TLS_OK)
			client->ending = true;
		sl_http_client_pulled(client->http);
		if (client->ending)
			break;
	}
	if (client->ending)
		sl_tls_shutdown(client->tls);
	cipher = sl_tls_pull(client->tls);
	pieces[0] = (struct iovec){(void *)(uintptr_t)cipher.data, cipher.size};
	return cipher.size != 0;
}

// Returns false when there was nothing (or nothing more can be) written.
static bool write_once(struct sl_client *client)
{
	struct iovec pieces[PIECES_MAX];
	size_t count = 0;
	int rest;

	if (client->tls)
		count = pull_tls(client, pieces);
	else if (client->http)
		count = sl_http_client_pull(client->http, pieces, PIECES_MAX);
	if (!count)
		return false;
	rest = sl_io_write(&client->conn, pieces, count);
	if (rest < 0) {
		client->state = SL_CLIENT_CLOSING; // closed() follows
		return false;
	}
	if (rest > 0) {
		client->in_flight = true;
		client->writing_since_ns = client->pool->now_ns;
		return false;
	}
	pulled(client);
	return true;
}

void sl_client_flush(struct sl_client *client)
{
	unsigned writes = 0;

	if (!client->dirty || client->in_flight ||
	    (client->state != SL_CLIENT_UP && client->state != SL_CLIENT_SHAKING))
		return;
	client->dirty = false;
	while (writes < WRITES_MAX && write_once(client))
		writes++;
	if (client->in_flight || client->state == SL_CLIENT_CLOSING)
		return;
	if (writes == WRITES_MAX) {
		client->dirty = true;
		return;
	}
	if (client->ending || (client->http && sl_http_client_is_done(client->http)))
		sl_client_close(client);
}
