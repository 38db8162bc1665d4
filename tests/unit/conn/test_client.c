#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <unistd.h>

#include "dataplane/base/clock.h"
#include "dataplane/conn/client_link.h"
#include "dataplane/io/listener.h"
#include "dataplane/tls/tls.h"

// A pool against a small server of the HTTP library's, on one io.
static struct sl_memory memory;
static struct sl_timers timers;
static struct sl_waker waker;
static struct sl_io *io;
static uint64_t now_ns;

enum behaviour { ANSWER, SILENT, SLAM }; // SLAM: closes when a request's head comes

static struct {
	struct sl_listener listener;
	uint16_t port;
	enum behaviour behaviour;
	bool http2;
	struct sl_tls_context *tls;
	unsigned sessions, requests;
	size_t body_bytes;
} server;

struct session {
	struct sl_conn conn;
	struct sl_http_server *http;
	struct sl_tls *tls;
	bool in_flight;
	struct session *next;
};
static struct session *sessions;

static void on_head(void *owner, struct sl_http_stream *stream, const struct sl_http_head *head,
		    uint64_t now)
{
	struct session *session = owner;

	(void)stream;
	(void)head;
	(void)now;
	server.requests++;
	if (server.behaviour == SLAM)
		sl_io_abort(&session->conn);
}

static void on_data(void *owner, struct sl_http_stream *stream, struct sl_bytes bytes, uint64_t now)
{
	(void)owner;
	(void)now;
	server.body_bytes += bytes.size;
	sl_http_stream_consume(stream, bytes.size);
}

static void on_end(void *owner, struct sl_http_stream *stream, uint64_t now)
{
	const struct sl_http_response response = {.status = 200, .body = SL_LITERAL("fine")};

	(void)owner;
	(void)now;
	if (server.behaviour == ANSWER)
		sl_http_stream_respond(stream, &response);
}

static void on_gone(void *owner, struct sl_http_stream *stream, bool complete)
{
	(void)owner;
	(void)stream;
	(void)complete;
}

static void on_refused(void *owner, struct sl_http_stream *stream, uint16_t status,
		       struct sl_bytes content_type, uint64_t now)
{
	(void)owner;
	(void)stream;
	(void)content_type;
	(void)now;
	fail_msg("a client's request was refused: %u", status);
}

static const struct sl_http_server_upcalls server_upcalls = {on_head, on_data, on_end, on_gone,
							     on_refused};
static const struct sl_http_server_options server_options = {
	.streams_max = 100,
	.header_bytes_max = 8192,
	.stream_window = 1 << 20,
	.connection_window = 1 << 24,
	.pings_without_data_max = 100,
	.glitches_max = 1000,
};

static void session_plain(void *user, struct sl_bytes bytes)
{
	sl_http_server_feed(((struct session *)user)->http, bytes, now_ns);
}

static void session_received(struct sl_conn *conn, struct sl_bytes bytes, uint64_t now)
{
	struct session *session = (struct session *)conn;

	if (session->tls)
		sl_tls_feed(session->tls, bytes, session_plain, session);
	else
		sl_http_server_feed(session->http, bytes, now);
}

static void session_sent(struct sl_conn *conn, uint64_t now)
{
	struct session *session = (struct session *)conn;

	(void)now;
	session->in_flight = false;
	if (session->tls)
		sl_tls_pulled(session->tls);
	else
		sl_http_server_pulled(session->http);
}

static void session_closed(struct sl_conn *conn, enum sl_close why, int error)
{
	struct session *session = (struct session *)conn, **link = &sessions;

	(void)why;
	(void)error;
	while (*link != session)
		link = &(*link)->next;
	*link = session->next;
	sl_http_server_destroy(session->http);
	sl_tls_destroy(session->tls);
	free(session);
}

static const struct sl_io_upcalls session_upcalls = {
	.received = session_received, .sent = session_sent, .closed = session_closed};

static void accepted(struct sl_listener *listener, int fd, const struct sl_address *peer,
		     uint64_t now)
{
	struct session *session = calloc(1, sizeof(*session));

	(void)listener;
	(void)now;
	session->conn.upcalls = &session_upcalls;
	session->http = sl_http_server_create(server.http2, &server_options, &server_upcalls,
					      session, &memory);
	session->tls = server.tls ? sl_tls_create(server.tls, &memory) : NULL;
	assert_int_equal(sl_io_adopt(io, &session->conn, fd, peer), 0);
	session->next = sessions;
	sessions = session;
	server.sessions++;
}

static void flush_tls(struct session *session)
{
	struct iovec pieces[64];
	struct sl_bytes cipher;
	size_t count;

	while (sl_tls_is_up(session->tls) &&
	       (count = sl_http_server_pull(session->http, pieces, 64))) {
		sl_tls_write(session->tls, pieces, count);
		sl_http_server_pulled(session->http);
	}
	cipher = sl_tls_pull(session->tls);
	if (!cipher.size)
		return;
	pieces[0] = (struct iovec){(void *)(uintptr_t)cipher.data, cipher.size};
	session->in_flight = sl_io_write(&session->conn, pieces, 1) > 0;
	if (!session->in_flight)
		sl_tls_pulled(session->tls);
}

static void flush_sessions(void)
{
	for (struct session *session = sessions; session; session = session->next) {
		struct iovec pieces[64];
		size_t count;

		if (session->in_flight)
			continue;
		if (session->tls) {
			flush_tls(session);
			continue;
		}
		while ((count = sl_http_server_pull(session->http, pieces, 64))) {
			const int rest = sl_io_write(&session->conn, pieces, count);

			session->in_flight = rest > 0;
			if (rest)
				break;
			sl_http_server_pulled(session->http);
		}
	}
}

static void begin(bool http2, enum behaviour behaviour)
{
	struct sl_address at;
	char error[128];

	assert_int_equal(sl_memory_init(&memory, 64 * SL_MIB), 0);
	now_ns = sl_clock_now_ns();
	sl_timers_init(&timers, now_ns);
	assert_int_equal(sl_waker_init(&waker), 0);
	io = sl_io_create_kernel(&(struct sl_io_options){0}, &memory, &timers, &waker);
	memset(&server, 0, sizeof(server));
	server.http2 = http2;
	server.behaviour = behaviour;
	server.listener.accepted = accepted;
	assert_int_equal(sl_address_parse(&at, "127.0.0.1:0"), 0);
	server.listener.fd = sl_io_open_listener(&at, &(struct sl_listen_options){0}, error,
						 sizeof(error));
	assert_int_equal(sl_io_local_address(server.listener.fd, &at), 0);
	server.port = sl_address_port(&at);
	assert_int_equal(sl_io_listen(io, &server.listener), 0);
}

static void end(void)
{
	if (server.listener.fd >= 0) {
		sl_io_unlisten(io, &server.listener);
		close(server.listener.fd);
	}
	for (struct session *session = sessions; session; session = session->next)
		sl_io_close(&session->conn, 0);
	sl_io_poll(io, 0, &now_ns);
	assert_int_equal(sl_io_stats(io)->connections, 0);
	sl_io_destroy(io);
	assert_int_equal(timers.armed, 0);
	assert_int_equal(memory.used_bytes, 0);
	sl_memory_fini(&memory);
	sl_waker_fini(&waker);
}

struct call {
	struct sl_client_call call;
	unsigned ended;
	int result;
	uint16_t status;
	size_t data;
};

static void call_head(struct sl_client_call *base, uint16_t status,
		      const struct sl_http_header *headers, uint32_t count)
{
	(void)headers;
	(void)count;
	((struct call *)base)->status = status;
}

static void call_data(struct sl_client_call *base, struct sl_bytes bytes)
{
	((struct call *)base)->data += bytes.size;
}

static void call_ended(struct sl_client_call *base, int result, uint64_t now)
{
	struct call *call = (struct call *)base;

	(void)now;
	call->ended++;
	call->result = result;
}

static void prepare(struct call *call, const struct iovec *body, uint64_t within_ns)
{
	*call = (struct call){.call = {.exchange = {.method = SL_LITERAL("POST"),
						    .scheme = SL_LITERAL("http"),
						    .authority = SL_LITERAL("upstream.example"),
						    .path = SL_LITERAL("/v1/traces"),
						    .body = body,
						    .body_count = body != NULL,
						    .body_bytes = body ? body->iov_len : 0},
				       .deadline_ns = sl_clock_now_ns() + within_ns,
				       .head = call_head,
				       .data = call_data,
				       .ended = call_ended}};
}

static struct sl_client_pool *make_pool(const char *host, uint32_t connections, uint32_t streams)
{
	const struct sl_client_options options = {
		.host = host,
		.port = server.port,
		.http2 = server.http2,
		.connections = connections,
		.streams = streams,
		.connect_timeout_ns = 20 * SL_S,
	};

	return sl_client_pool_create(&options, io, &memory, &timers);
}

static void turn(struct sl_client_pool *pool)
{
	assert_true(sl_io_poll(io, 5 * SL_MS, &now_ns) >= 0);
	if (pool)
		sl_client_pool_flush(pool, now_ns);
	flush_sessions();
}

static void until(struct sl_client_pool *pool, const unsigned *flag)
{
	const uint64_t end_ns = sl_clock_now_ns() + 20 * SL_S;

	while (!*flag && sl_clock_now_ns() < end_ns)
		turn(pool);
	assert_int_equal(*flag, 1);
}

static void note_done(void *user)
{
	(*(unsigned *)user)++;
}

static void destroy(struct sl_client_pool *pool)
{
	unsigned done = 0;

	sl_client_pool_destroy(pool, note_done, &done);
	for (unsigned i = 0; i < 10 && !done; i++)
		turn(NULL);
	assert_int_equal(done, 1);
}

static void test_calls(void **state)
{
	static uint8_t data[3 * 1024 * 1024];
	static const struct {
		const char *why, *host;
		bool http2;
		uint32_t connections, calls;
		size_t body;
		unsigned sessions_max;
	} rows[] = {
		{"HTTP/1, one after the other", "127.0.0.1", false, 1, 5, 100, 1},
		{"HTTP/1, side by side", "127.0.0.1", false, 3, 12, 100, 3},
		{"HTTP/2, all on one", "127.0.0.1", true, 1, 50, 100, 1},
		{"HTTP/2, a few connections", "127.0.0.1", true, 4, 50, 100, 4},
		{"no body", "127.0.0.1", true, 1, 2, 0, 1},
		{"HTTP/2, more than the socket holds", "127.0.0.1", true, 2, 8, sizeof(data), 2},
		{"HTTP/1, more than the socket holds", "127.0.0.1", false, 2, 4, sizeof(data), 2},
		{"a name", "localhost", true, 1, 2, 10, 1},
	};
	static struct call calls[64];

	(void)state;
	for (size_t row = 0; row < SL_COUNT_OF(rows); row++) {
		const struct iovec body = {data, rows[row].body};
		struct sl_client_pool *pool;

		begin(rows[row].http2, ANSWER);
		pool = make_pool(rows[row].host, rows[row].connections, 64);
		for (uint32_t i = 0; i < rows[row].calls; i++) {
			prepare(&calls[i], rows[row].body ? &body : NULL, 20 * SL_S);
			assert_int_equal(sl_client_call_start(pool, &calls[i].call, now_ns), 0);
		}
		for (uint32_t i = 0; i < rows[row].calls; i++) {
			until(pool, &calls[i].ended);
			assert_int_equal(calls[i].result, SL_CLIENT_OK);
			assert_int_equal(calls[i].status, 200);
			assert_int_equal(calls[i].data, 4);
		}
		assert_int_equal(server.body_bytes, rows[row].calls * rows[row].body);
		assert_true(server.sessions >= 1 && server.sessions <= rows[row].sessions_max);
		assert_int_equal(pool->open_calls, 0);
		destroy(pool);
		end();
	}
}

static void test_refused(void **state)
{
	struct sl_client_pool *pool;
	struct call call;

	(void)state;
	for (int http2 = 0; http2 < 2; http2++) {
		begin(http2, ANSWER);
		sl_io_unlisten(io, &server.listener);
		close(server.listener.fd);
		server.listener.fd = -1;
		pool = make_pool("127.0.0.1", 2, 8);
		prepare(&call, NULL, 20 * SL_S);
		assert_int_equal(sl_client_call_start(pool, &call.call, now_ns), 0);
		until(pool, &call.ended);
		assert_int_equal(call.result, SL_CLIENT_UNREACHABLE);
		assert_non_null(strstr(sl_client_pool_error(pool), "refused"));
		// In the backoff a call waits, and ends at its deadline at the latest.
		prepare(&call, NULL, 20 * SL_MS);
		assert_int_equal(sl_client_call_start(pool, &call.call, now_ns), 0);
		until(pool, &call.ended);
		assert_true(call.result == SL_CLIENT_TIMEOUT ||
			    call.result == SL_CLIENT_UNREACHABLE);
		destroy(pool);
		end();
	}
}

static void test_unresolved(void **state)
{
	struct sl_client_pool *pool;
	struct call call;

	(void)state;
	begin(true, ANSWER);
	pool = make_pool("a..b", 1, 8); // an empty label: no resolver asks anybody for it
	prepare(&call, NULL, 20 * SL_S);
	assert_int_equal(sl_client_call_start(pool, &call.call, now_ns), 0);
	until(pool, &call.ended);
	assert_int_equal(call.result, SL_CLIENT_UNREACHABLE);
	assert_non_null(strstr(sl_client_pool_error(pool), "resolve a..b"));
	destroy(pool);
	end();
}

static void test_ways_to_fail(void **state)
{
	static const struct {
		const char *why;
		enum behaviour behaviour;
		bool http2, cancel;
		int result;
	} rows[] = {
		{"HTTP/1: no answer in time", SILENT, false, false, SL_CLIENT_TIMEOUT},
		{"HTTP/2: no answer in time", SILENT, true, false, SL_CLIENT_TIMEOUT},
		{"HTTP/1: reset in mid-call", SLAM, false, false, SL_CLIENT_BROKEN},
		{"HTTP/2: reset in mid-call", SLAM, true, false, SL_CLIENT_BROKEN},
		{"HTTP/1: cancelled", SILENT, false, true, SL_CLIENT_BROKEN},
		{"HTTP/2: cancelled", SILENT, true, true, SL_CLIENT_BROKEN},
	};
	static uint8_t data[100000];
	const struct iovec body = {data, sizeof(data)};

	(void)state;
	for (size_t row = 0; row < SL_COUNT_OF(rows); row++) {
		struct sl_client_pool *pool;
		struct call call;

		begin(rows[row].http2, rows[row].behaviour);
		pool = make_pool("127.0.0.1", 1, 8);
		prepare(&call, &body, rows[row].behaviour == SLAM ? 20 * SL_S : 100 * SL_MS);
		assert_int_equal(sl_client_call_start(pool, &call.call, now_ns), 0);
		until(pool, &server.requests);
		if (rows[row].cancel)
			sl_client_call_cancel(&call.call);
		until(pool, &call.ended);
		assert_int_equal(call.result, rows[row].result);
		assert_int_equal(call.status, 0);
		sl_client_call_cancel(&call.call); // nothing to cancel any more

		// The pool goes on: the next call has its answer.
		server.behaviour = ANSWER;
		prepare(&call, &body, 20 * SL_S);
		assert_int_equal(sl_client_call_start(pool, &call.call, now_ns), 0);
		until(pool, &call.ended);
		assert_int_equal(call.result, SL_CLIENT_OK);
		destroy(pool);
		end();
	}
}

static void test_full_and_destroy(void **state)
{
	struct sl_client_pool *pool;
	struct call calls[5];

	(void)state;
	begin(true, SILENT);
	pool = make_pool("127.0.0.1", 2, 2);
	for (unsigned i = 0; i < 5; i++) {
		prepare(&calls[i], NULL, 20 * SL_S);
		assert_int_equal(sl_client_call_start(pool, &calls[i].call, now_ns),
				 i < 4 ? 0 : -EAGAIN);
	}
	assert_int_equal(pool->open_calls, 4);
	for (unsigned i = 0; i < 5; i++)
		turn(pool);
	destroy(pool); // with calls in flight
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(calls[i].ended, 1);
		assert_int_equal(calls[i].result, SL_CLIENT_BROKEN);
	}
	pool = make_pool("localhost", 2, 2); // with a name on its way
	prepare(&calls[0], NULL, 20 * SL_S);
	assert_int_equal(sl_client_call_start(pool, &calls[0].call, now_ns), 0);
	destroy(pool);
	assert_int_equal(calls[0].result, SL_CLIENT_BROKEN);
	end();
}

// Its times: an idle connection goes after one, and a peer that answers nothing, not even a PING,
// after the other.
static void test_times(void **state)
{
	struct sl_client_options options = {
		.host = "127.0.0.1",
		.http2 = true,
		.connections = 1,
		.streams = 8,
		.connect_timeout_ns = 20 * SL_S,
	};
	struct sl_client_pool *pool;
	struct call call;
	uint64_t end_ns;

	(void)state;
	begin(true, ANSWER);
	options.port = server.port;
	options.idle_timeout_ns = 30 * SL_MS;
	pool = sl_client_pool_create(&options, io, &memory, &timers);
	prepare(&call, NULL, 20 * SL_S);
	assert_int_equal(sl_client_call_start(pool, &call.call, now_ns), 0);
	until(pool, &call.ended);
	assert_int_equal(call.result, SL_CLIENT_OK);
	assert_int_equal(sl_io_stats(io)->connections, 2); // both ends are ours
	end_ns = sl_clock_now_ns() + 20 * SL_S;
	while (sl_io_stats(io)->connections > 1 && sl_clock_now_ns() < end_ns)
		turn(pool);
	assert_int_equal(sl_io_stats(io)->connections, 1);
	destroy(pool);
	end();

	begin(true, SILENT);
	options.port = server.port;
	options.idle_timeout_ns = 0;
	options.ping_after_ns = 60 * SL_MS;
	pool = sl_client_pool_create(&options, io, &memory, &timers);
	prepare(&call, NULL, 250 * SL_MS);
	assert_int_equal(sl_client_call_start(pool, &call.call, now_ns), 0);
	until(pool, &call.ended);
	assert_int_equal(call.result, SL_CLIENT_TIMEOUT); // its PINGs were answered
	assert_int_equal(server.sessions, 1);
	server.requests = 0;
	prepare(&call, NULL, 20 * SL_S);
	assert_int_equal(sl_client_call_start(pool, &call.call, now_ns), 0);
	until(pool, &server.requests);
	sl_io_pause(&sessions->conn, true); // from here on it is as good as dead
	until(pool, &call.ended);
	assert_int_equal(call.result, SL_CLIENT_BROKEN);
	assert_non_null(strstr(sl_client_pool_error(pool), "ping"));
	destroy(pool);
	end();
}

// A certificate of localhost that vouches for itself.
static void make_certificate(const char *certificate_file, const char *key_file)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	X509_EXTENSION *extension;
	FILE *file;

	X509_set_version(certificate, 2);
	X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
	X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
	X509_set_pubkey(certificate, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
				   (const uint8_t *)"test", -1, -1, 0);
	X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
	extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:localhost");
	X509_add_ext(certificate, extension, -1);
	X509_EXTENSION_free(extension);
	assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
	file = fopen(certificate_file, "w");
	PEM_write_X509(file, certificate);
	fclose(file);
	file = fopen(key_file, "w");
	PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
	fclose(file);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

static void test_tls(void **state)
{
	static const struct {
		const char *why, *name, *alpn;
		bool http2;
		int result;
	} rows[] = {
		{"HTTP/2", "localhost", "h2", true, SL_CLIENT_OK},
		{"HTTP/1", "localhost", "http/1.1", false, SL_CLIENT_OK},
		{"HTTP/1 without ALPN", "localhost", NULL, false, SL_CLIENT_OK},
		{"HTTP/2 needs ALPN", "localhost", NULL, true, SL_CLIENT_UNREACHABLE},
		{"another name's server", "bank.example", "h2", true, SL_CLIENT_UNREACHABLE},
	};
	static uint8_t data[1 << 20];
	const struct iovec body = {data, sizeof(data)};
	char folder[] = "/tmp/sl_client_XXXXXX", certificate_file[64], key_file[64], error[256];

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(certificate_file, sizeof(certificate_file), "%s/a.pem", folder);
	snprintf(key_file, sizeof(key_file), "%s/a.key", folder);
	make_certificate(certificate_file, key_file);
	for (size_t row = 0; row < SL_COUNT_OF(rows); row++) {
		const struct sl_tls_certificate files = {certificate_file, key_file};
		const struct sl_tls_config ours = {
			.server = true, .certificates = &files, .certificate_count = 1};
		const struct sl_tls_config theirs = {.ca_file = certificate_file,
						     .server_name = rows[row].name,
						     .alpn = rows[row].alpn};
		struct sl_client_options options = {.host = "127.0.0.1",
						    .http2 = rows[row].http2,
						    .connections = 1,
						    .streams = 8,
						    .connect_timeout_ns = 20 * SL_S};
		struct sl_client_pool *pool;
		struct call call;

		begin(rows[row].http2, ANSWER);
		server.tls = sl_tls_context_create(&ours, error, sizeof(error));
		options.tls = sl_tls_context_create(&theirs, error, sizeof(error));
		options.port = server.port;
		pool = sl_client_pool_create(&options, io, &memory, &timers);
		sl_tls_context_put(options.tls); // the pool has its own reference
		prepare(&call, &body, 20 * SL_S);
		assert_int_equal(sl_client_call_start(pool, &call.call, now_ns), 0);
		until(pool, &call.ended);
		assert_int_equal(call.result, rows[row].result);
		if (call.result == SL_CLIENT_OK)
			assert_int_equal(server.body_bytes, sizeof(data));
		else
			assert_non_null(strstr(sl_client_pool_error(pool), "tls"));
		destroy(pool);
		sl_tls_context_put(server.tls);
		end();
	}
	unlink(certificate_file);
	unlink(key_file);
	rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_unresolved),
		cmocka_unit_test(test_ways_to_fail),
		cmocka_unit_test(test_full_and_destroy),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_tls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
