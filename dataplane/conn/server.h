#pragma once

#include "dataplane/base/metrics.h"
#include "dataplane/codec/codec.h"
#include "dataplane/conn/limits.h"
#include "dataplane/http/http.h"
#include "dataplane/io/io.h"
#include "dataplane/request/request.h"

// Server sessions: one accepted connection with its stack io | tls | http, making requests out of
// calls and answers out of requests.
//
//   io.received -> tls.feed -> http.feed -> head: path, method, type, tenant, size -> sl_request
//                                        -> data: gRPC frame | body -> request's buffer
//                                        -> end:  host.ready(request)
//   sl_server_answer(request) -> http.respond -> (end of the turn) -> pull -> tls -> io.write
//
// Threading: a server belongs to one shard. Memory: sessions, calls and requests are pooled.
struct sl_tls_context;
struct sl_server;

// What the shard decides for its sessions. `self` is the shard.
struct sl_server_host {
	// Names the tenant and asks its quota, from the headers alone. Fills request->tenant and
	// tenant_name.
	enum sl_reason (*admit)(void *self, struct sl_request *request,
				const struct sl_http_head *head, const struct sl_address *peer,
				const char *certificate_name, uint64_t *retry_after_ns);
	// The tenant's bytes in flight; 0 reason when taken. Given back when the request is freed.
	enum sl_reason (*reserve)(void *self, struct sl_request *request, uint64_t bytes,
				  uint64_t *retry_after_ns);
	// A whole request: the shard owns it from here on and answers it.
	void (*ready)(void *self, struct sl_request *request);
	// The client of a request that is the shard's has gone; request->origin.call is NULL now.
	void (*abandoned)(void *self, struct sl_request *request);
	// A request that is refused before it is ready; it is given next. NULL: nobody asks.
	void (*refused)(void *self, const struct sl_request *request, enum sl_reason reason);
	// A request that never became ready, or that the shard released: free it.
	struct sl_request *(*take)(void *self);
	void (*give)(void *self, struct sl_request *request);
};

struct sl_server_env {
	struct sl_io *io;
	struct sl_memory *memory; // of bodies: the budget that refuses
	// Of connections: sessions, HTTP and TLS state, answers. Their number bounds it; apart, so
	// that many idle connections do not spend the bodies' budget.
	struct sl_memory *connection_memory;
	struct sl_timers *timers;
	struct sl_metrics *metrics;
	uint32_t shard;
	const struct sl_server_host *host;
	void *self;
	struct sl_codec *codec; // of health checks that come compressed; NULL: none do
	const bool *unready;    // for health checks; writer: another thread, atomic. NULL: never
};

struct sl_server *sl_server_create(const struct sl_server_env *env);
void sl_server_destroy(struct sl_server *server); // no session may be open

// At a turn's start: the limits this turn uses (a snapshot's; sessions copy what they keep).
void sl_server_turn(struct sl_server *server, const struct sl_server_limits *limits,
		    uint64_t now_ns);

// The wall clock, so often that answers can tell their `Date` (RFC 9110, section 6.6.1); before the
// first call they have none.
void sl_server_clock(struct sl_server *server, uint64_t wall_ns);

// An accepted socket becomes a session. `tls` NULL: plain. Closes `fd` when it cannot.
void sl_server_accept(struct sl_server *server, int fd, const struct sl_address *peer,
		      struct sl_tls_context *tls, uint64_t now_ns);

// Answers a request from its reason, rejected_items and message; does nothing when the client has
// gone. Counts it under code and protocol.
void sl_server_answer(struct sl_server *server, struct sl_request *request, uint64_t now_ns);

// Once a turn, last: every session with something to send writes once.
void sl_server_flush(struct sl_server *server, uint64_t now_ns);
// Something waits to be sent: the next turn must not block.
bool sl_server_wants_flush(const struct sl_server *server);

// Drain: GOAWAY on every session, new calls are refused (SL_REASON_DRAINING), idle ones close.
void sl_server_drain(struct sl_server *server, uint64_t now_ns);
// Answers every call whose request is still with the shard: nobody is left without one. Their
// deliveries may still end, late.
void sl_server_refuse_all(struct sl_server *server, enum sl_reason reason, uint64_t now_ns);
// Closes what is left.
void sl_server_close_all(struct sl_server *server);
uint32_t sl_server_sessions(const struct sl_server *server);
