#include "dataplane/conn/session.h"

#define PIECES_MAX 64
#define LINGER_NS  SL_S
#define WANT_MIN   (16 * SL_KIB) // below it a wake-up more costs less than the system call

void sl_session_mark(struct sl_session *session)
{
	if (session->dirty || session->closing)
		return;
	session->dirty = true;
	session->next_dirty = session->server->dirty;
	session->server->dirty = session;
}

void sl_session_close(struct sl_session *session, uint64_t linger_ns)
{
	if (session->closing)
		return;
	session->closing = true;
	if (session->paused)
		sl_io_pause(&session->conn, false); // lingering reads
	sl_io_close(&session->conn, linger_ns);
}

void sl_session_pause(struct sl_session *session, uint64_t wait_ns)
{
	struct sl_server *server = session->server;

	if (session->closing || session->ending)
		return;
	session->paused = true;
	sl_count(&server->counters->paused_reads[0], 1);
	sl_io_pause(&session->conn, true);
	sl_timer_set(server->env.timers, &session->resume,
		     server->now_ns + SL_MIN(wait_ns, SL_HINT_WAIT_MAX_NS));
}

static bool start_http(struct sl_session *session, bool http2)
{
	struct sl_server *server = session->server;

	session->http2 = http2;
	session->http = sl_http_server_create(http2, &server->http_options, &sl_call_upcalls,
					      session, server->env.connection_memory);
	if (session->http && session->going_away)
		sl_http_server_goaway(session->http, "max_age");
	return session->http != NULL;
}

static void feed_http(struct sl_session *session, struct sl_bytes bytes)
{
	struct sl_server *server = session->server;

	if (sl_http_server_feed(session->http, bytes, server->now_ns) < 0) {
		sl_count(&server->counters->protocol_errors[0], 1);
		session->ending = true;
	}
	sl_session_mark(session);
	// A whole head has set it to zero: what is left belongs to the next one.
	if (!sl_http_server_in_head(session->http))
		session->partial_since_ns = 0;
	else if (!session->partial_since_ns)
		session->partial_since_ns = server->now_ns;
}

// Plain bytes of the connection: the first of them tell which HTTP it speaks.
static void feed_plain(struct sl_session *session, struct sl_bytes bytes)
{
	if (SL_LIKELY(session->http != NULL)) {
		feed_http(session, bytes);
		return;
	}

	const size_t take = SL_MIN(bytes.size, sizeof(session->sniff) - session->sniffed);
	int http2;

	memcpy(session->sniff + session->sniffed, bytes.data, take);
	session->sniffed += (uint8_t)take;
	http2 = sl_http_is_http2(sl_bytes(session->sniff, session->sniffed));
	if (http2 < 0)
		return;
	if (!start_http(session, http2 > 0)) {
		session->ending = true;
		sl_session_mark(session);
		return;
	}
	feed_http(session, sl_bytes(session->sniff, session->sniffed));
	if (bytes.size > take && !session->ending)
		feed_http(session, sl_bytes(bytes.data + take, bytes.size - take));
}

static void plain_bytes(void *user, struct sl_bytes bytes)
{
	struct sl_session *session = user;

	if (!session->ending && bytes.size)
		feed_plain(session, bytes);
}

// The peer sends no more. On HTTP/1 it may wait for the answers to what came whole (RFC 9112,
// section 9.6); HTTP/2 cannot live without both directions.
static void peer_ended(struct sl_session *session)
{
	if (session->http && !session->http2)
		session->peer_ended = true;
	else
		session->ending = true;
	sl_session_mark(session);
}

static void feed_tls(struct sl_session *session, struct sl_bytes bytes)
{
	const enum sl_tls_result result = sl_tls_feed(session->tls, bytes, plain_bytes, session);

	if (result == SL_TLS_FAILED) {
		sl_count(&session->server->counters->tls_failures[0], 1);
		session->ending = true;
	} else if (result == SL_TLS_CLOSED) {
		peer_ended(session);
	}
	sl_session_mark(session);
}

static void fetch(struct sl_conn *conn, unsigned step)
{
	const struct sl_session *session = (const struct sl_session *)conn;

	if (step == 0)
		sl_prefetch_all(session, sizeof(*session));
	else if (session->http)
		sl_http_server_fetch(session->http, step - 1);
}

static void received(struct sl_conn *conn, struct sl_bytes bytes, uint64_t now_ns)
{
	struct sl_session *session = (struct sl_session *)conn;

	session->server->now_ns = now_ns;
	if (session->closing || session->ending)
		return;
	if (session->tls) {
		feed_tls(session, bytes);
		return;
	}
	feed_plain(session, bytes);
	if (session->http && !session->ending) {
		const size_t outstanding = sl_http_server_outstanding(session->http);

		sl_io_want(conn, outstanding >= WANT_MIN ? outstanding : 1);
	}
}

// All pieces have gone: their memory belongs to http or tls again.
static void pulled(struct sl_session *session)
{
	if (session->tls)
		sl_tls_pulled(session->tls);
	else if (session->http)
		sl_http_server_pulled(session->http);
}

static void sent(struct sl_conn *conn, uint64_t now_ns)
{
	struct sl_session *session = (struct sl_session *)conn;

	session->server->now_ns = now_ns;
	session->in_flight = false;
	pulled(session);
	sl_session_mark(session);
}

static void ended(struct sl_conn *conn, uint64_t now_ns)
{
	struct sl_session *session = (struct sl_session *)conn;

	session->server->now_ns = now_ns;
	if (!session->closing)
		peer_ended(session);
}

static void closed(struct sl_conn *conn, enum sl_close why, int error)
{
	struct sl_session *session = (struct sl_session *)conn;

	(void)why;
	(void)error;
	session->closing = true;
	// Streams that are still open get gone(): their calls and requests learn of it there.
	sl_http_server_destroy(session->http);
	assert(!session->calls);
	sl_tls_destroy(session->tls);
	sl_server_forget(session);
}

const struct sl_io_upcalls sl_session_upcalls = {
	.received = received,
	.fetch = fetch,
	.sent = sent,
	.ended = ended,
	.closed = closed,
};

// Whether some call still has an answer to come. Those whose requests are not whole never will.
static bool is_awaited(const struct sl_session *session)
{
	for (const struct sl_call *call = session->calls; call; call = call->next) {
		if (call->with_shard && !call->answered)
			return true;
	}
	return false;
}

// Whether nothing is left to say but what waits to be sent.
static bool is_over(const struct sl_session *session)
{
	return session->ending || (session->http && sl_http_server_is_done(session->http)) ||
	       (session->peer_ended && !is_awaited(session));
}

// Encrypts what http has to say; tls holds the cipher bytes until they are gone.
static size_t pull_tls(struct sl_session *session, struct iovec *pieces)
{
	struct sl_bytes cipher;

	if (session->http && sl_tls_is_up(session->tls)) {
		const size_t count = sl_http_server_pull(session->http, pieces, PIECES_MAX);

		if (count) {
			const enum sl_tls_result result = sl_tls_write(session->tls, pieces, count);

			sl_http_server_pulled(session->http);
			if (result == SL_TLS_FAILED)
				session->ending = true;
		}
	}
	// Without it the peer takes the end for a cut (RFC 8446, section 6.1).
	if (is_over(session) && (!session->http || !sl_http_server_wants_pull(session->http)))
		sl_tls_shutdown(session->tls);
	cipher = sl_tls_pull(session->tls);
	if (!cipher.size)
		return 0;
	pieces[0] = (struct iovec){(void *)cipher.data, cipher.size};
	return 1;
}

// One write a turn: what did not fit is told by sent(), and flushed in a later turn.
void sl_session_flush(struct sl_session *session)
{
	struct iovec pieces[PIECES_MAX];
	size_t count = 0;
	int rest;

	if (session->closing || session->in_flight)
		return;
	if (session->tls)
		count = pull_tls(session, pieces);
	else if (session->http)
		count = sl_http_server_pull(session->http, pieces, PIECES_MAX);
	if (count) {
		rest = sl_io_write(&session->conn, pieces, count);
		if (rest < 0) {
			session->closing = true; // closed() follows
			return;
		}
		if (rest > 0) {
			session->in_flight = true;
			session->writing_since_ns = session->server->now_ns;
			return;
		}
		pulled(session);
	}
	if (session->http && sl_http_server_wants_pull(session->http)) {
		sl_session_mark(session);
		return;
	}
	if (is_over(session))
		sl_session_close(session, LINGER_NS);
}
