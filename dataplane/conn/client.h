#pragma once

#include "dataplane/http/http.h"
#include "dataplane/io/io.h"

// Outgoing calls: dial, pool, TLS, HTTP/1 or HTTP/2. Used by routing's OTLP driver and by the
// control thread. A pool belongs to one shard and one upstream; it holds up to `connections`
// connections over all resolved addresses and gives a call to the one with the fewest in flight.
//
// Threading: one shard (or the control thread) with its own io. Names are resolved off the shard,
// by one thread of the process (conn/resolver.h); a shard never blocks in getaddrinfo.
// Memory: a call is embedded in its owner and must stay until ended().
struct sl_tls_context;
struct sl_client_pool;

struct sl_client_options {
	const char *host; // name or address
	uint16_t port;
	const struct sl_address
		*address;           // that one alone, whatever the name means; copied. May be NULL
	struct sl_tls_context *tls; // NULL: plain
	bool http2;
	uint32_t connections; // at most
	uint32_t streams;     // a connection, at most
	uint64_t connect_timeout_ns;
	uint64_t idle_timeout_ns; // an idle connection is closed after it; 0: never
	uint64_t ping_after_ns;   // HTTP/2 keepalive while calls wait; 0: never
};

struct sl_client_call {
	struct sl_http_exchange exchange; // filled in by the caller
	uint64_t deadline_ns;             // ends with SL_CLIENT_TIMEOUT
	void *user;
	// `status` 0 when there was none; headers and trailers are valid during the upcall.
	void (*head)(struct sl_client_call *call, uint16_t status,
		     const struct sl_http_header *headers, uint32_t header_count);
	void (*data)(struct sl_client_call *call, struct sl_bytes bytes);
	void (*trailers)(struct sl_client_call *call, const struct sl_http_header *headers,
			 uint32_t header_count);
	// Always comes, exactly once, after a start that returned 0. While bytes of the body lie in
	// the socket it waits for them: only then is their memory the caller's again.
	void (*ended)(struct sl_client_call *call, int result, uint64_t now_ns);
	// The pool's.
	struct sl_client_call *next, *prev;
	struct sl_client_pool *pool; // NULL: not open
	struct sl_client *client;    // NULL: queued
	struct sl_timer timer;
	int result;
	bool over; // its end is decided; ended() is still to come
};

enum sl_client_result {
	SL_CLIENT_OK = 0,           // a whole response came
	SL_CLIENT_UNREACHABLE = -1, // no connection: refused, unresolved, TLS failed
	SL_CLIENT_TIMEOUT = -2,
	SL_CLIENT_BROKEN = -3,      // the connection or stream broke; it may have been processed
	SL_CLIENT_UNPROCESSED = -4, // the peer says it was not: safe to send again at once
};

// Options are copied (and the context referenced). Returns NULL when out of memory.
struct sl_client_pool *sl_client_pool_create(const struct sl_client_options *options,
					     struct sl_io *io, struct sl_memory *memory,
					     struct sl_timers *timers);
// Open calls end with SL_CLIENT_BROKEN; connections close. `done(user)` follows when the last one
// has gone, perhaps at once. Polls of the io go on until then.
void sl_client_pool_destroy(struct sl_client_pool *pool, void (*done)(void *user), void *user);

// Starts a call, or queues it while connections come up. Returns 0, or -EAGAIN when the pool has
// as many as it may: connections * streams (on HTTP/1 a stream is a place in the queue).
int sl_client_call_start(struct sl_client_pool *pool, struct sl_client_call *call, uint64_t now_ns);
// Ends a call with SL_CLIENT_BROKEN: no head(), data() or trailers() comes any more; ended() comes
// before this returns, or later when its body lies in the socket. Nothing when it is not open.
void sl_client_call_cancel(struct sl_client_call *call);
// Writes what the turn has gathered: one system call a connection. Call once a turn.
void sl_client_pool_flush(struct sl_client_pool *pool, uint64_t now_ns);
// TLS handshakes that have come to their end: those that resumed a session, and the others.
uint64_t sl_client_pool_handshakes(const struct sl_client_pool *pool, bool resumed);
// Why the last connection failed, for log lines and metrics; "" when none did.
const char *sl_client_pool_error(const struct sl_client_pool *pool);
