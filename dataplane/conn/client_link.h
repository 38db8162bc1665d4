#pragma once

#include "dataplane/base/random.h"
#include "dataplane/conn/client.h"
#include "dataplane/conn/resolver.h"
#include "dataplane/tls/tls.h"

// Inside conn/: what client.c (pool, queue, dialling) and client_link.c (one connection with its
// stack io | tls | http) share.
//
// Threading: one shard. Memory: clients are slots of their pool.
enum sl_client_state {
	SL_CLIENT_FREE,
	SL_CLIENT_CONNECTING,
	SL_CLIENT_SHAKING, // hands, by TLS
	SL_CLIENT_UP,
	SL_CLIENT_CLOSING, // closed() follows
};

struct sl_client {
	struct sl_conn conn; // first: upcalls cast back
	struct sl_client_pool *pool;
	enum sl_client_state state;
	struct sl_tls *tls;
	struct sl_http_client *http;
	struct sl_client_call *calls;     // in flight
	struct sl_client_call *lingering; // over, but their bodies lie in the socket
	uint32_t open;
	bool dirty, in_flight; // something may be to be sent; pieces are in the socket
	bool ending;           // send what is left, then close
	bool was_up, answered;
	uint64_t began_ns, read_ns, quiet_since_ns, writing_since_ns;
	uint64_t ping_sent_ns; // 0: none is out
	struct sl_timer timer;
};

struct sl_client_pool {
	struct sl_client_options options; // host is ours
	struct sl_io *io;
	struct sl_memory *memory;
	struct sl_timers *timers;
	struct sl_client *clients; // options.connections slots
	struct sl_client_call *queue, *queue_last;
	uint32_t open_calls, calls_max;
	uint32_t depth; // entries into the pool below us: it is freed at 0 only
	struct sl_address addresses[SL_LOOKUP_ADDRESSES_MAX];
	uint32_t address_count, address_next, attempts;
	bool numeric, closing;
	uint64_t resolved_ns, retry_ns, backoff_ns;
	struct sl_lookup *lookup;
	struct sl_timer timer; // lookups and retries
	struct sl_random random;
	uint64_t now_ns;
	void (*done)(void *user);
	void *user;
	char error[160];
	struct sl_tls_tickets tickets;
	uint64_t handshakes[2]; // whole, resumed
};

// client.c
void sl_client_pool_enter(struct sl_client_pool *pool, uint64_t now_ns);
void sl_client_pool_leave(struct sl_client_pool *pool);
void sl_client_pool_dispatch(struct sl_client_pool *pool);
// A dial came to nothing.
void sl_client_pool_failed(struct sl_client_pool *pool);
void sl_client_pool_note(struct sl_client_pool *pool, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
// The call's end as its owner sees it.
void sl_client_call_end(struct sl_client_call *call, int result);

// client_link.c
int sl_client_dial(struct sl_client *client, const struct sl_address *to);
// Gives a call to an open connection. False: it takes none now.
bool sl_client_give(struct sl_client *client, struct sl_client_call *call);
// Takes a call off its connection (RST_STREAM, or the end of an HTTP/1 connection) and ends it.
void sl_client_revoke(struct sl_client *client, struct sl_client_call *call, int result);
void sl_client_flush(struct sl_client *client);
void sl_client_close(struct sl_client *client);
