#pragma once

#include <sys/uio.h>

#include "dataplane/base/header.h"
#include "dataplane/base/memory.h"

// HTTP/1.1 (http-parser, strict) and HTTP/2 (nghttp2) behind one face: bytes in by feed(), upcalls
// for streams, bytes out by pull(). No sockets, no clocks. Servers answer whole messages (a status,
// few headers, a short body, trailers); clients send whole requests.
//
//   wire bytes -> feed() -> head() data()* end()      respond() -> pull() -> wire bytes
//
// nghttp2 and http-parser push, so events are upcalls: nothing is queued or copied in between.
//
// Threading: owned by one shard. Memory: nghttp2's comes from free lists of the process' shard;
// bytes in upcalls are valid during the upcall. Time: passed in.

#define SL_HTTP_NO_LENGTH   UINT64_MAX
#define SL_HTTP_HEADERS_MAX 128

// A request's head. The fields most calls have are named; `headers` holds all regular fields.
struct sl_http_head {
	struct sl_bytes method, path; // path without its query
	struct sl_bytes authority;
	struct sl_bytes content_type, content_encoding;
	struct sl_bytes grpc_encoding, grpc_timeout;
	struct sl_bytes accept_encoding, te, origin;
	const struct sl_http_header *headers;
	uint32_t header_count;
	uint64_t content_length; // SL_HTTP_NO_LENGTH: not said
	bool http1;
	bool expects_continue; // a body is held back until sl_http_stream_continue()
	bool end;              // no body follows
};

struct sl_http_server;
struct sl_http_stream; // one request on a server connection; valid from head() to gone()

struct sl_http_server_upcalls {
	// The stream's user pointer starts as NULL; set it with sl_http_stream_set_user().
	void (*head)(void *owner, struct sl_http_stream *stream, const struct sl_http_head *head,
		     uint64_t now_ns);
	// A run of the body. On HTTP/2 the connection's window is given back at once, the stream's
	// when sl_http_stream_consume() is called.
	void (*data)(void *owner, struct sl_http_stream *stream, struct sl_bytes bytes,
		     uint64_t now_ns);
	// The request is whole (END_STREAM, or the last chunk).
	void (*end)(void *owner, struct sl_http_stream *stream, uint64_t now_ns);
	// The stream is over: its response has been pulled whole (`complete`), or it was reset or
	// its connection fails. The stream is invalid afterwards. Comes exactly once after head().
	void (*gone)(void *owner, struct sl_http_stream *stream, bool complete);
	// A request that HTTP itself forbids, with the status that says why: 400 framing, 417, 431,
	// 501 no such method, 503 no room for one more, 505. `content_type` as far as it could be
	// read. May be answered by sl_http_stream_respond() before it returns, but on
	//  - HTTP/2, after head(): the stream is reset already;
	//  - NULL: HTTP/2 refuses the stream without an answer.
	// gone() comes only to those that had head(); the stream's user pointer is NULL for others.
	void (*refused)(void *owner, struct sl_http_stream *stream, uint16_t status,
			struct sl_bytes content_type, uint64_t now_ns);
};

struct sl_http_server_options {
	uint32_t streams_max;            // concurrent, preset 1024
	uint32_t header_bytes_max;       // sum of name + value + 32, preset 8 KiB (item 25)
	uint32_t stream_window;          // bytes, preset 1 MiB
	uint32_t connection_window;      // bytes, preset 16 MiB
	uint32_t pings_without_data_max; // ping strikes before GOAWAY ENHANCE_YOUR_CALM (item 30)
	uint32_t glitches_max; // legal but suspicious events (empty frames, resets, ...) a second
	// SL_HTTP_DATE_BYTES by sl_http_date_print(), of all answers but gRPC's; NULL: none have
	// it.
	const char *date;
};

// "date: Sat, 21 Nov 2026 18:32:23 GMT\r\n" of a time in seconds since the epoch, up to the year
// 9999 (RFC 9110, section 5.6.7), which is written once a second for all answers. Not terminated.
#define SL_HTTP_DATE_BYTES 37
void sl_http_date_print(char date[SL_HTTP_DATE_BYTES], uint64_t seconds);

// Options point to something that outlives the server. `memory` may go past its budget for what a
// connection needs to answer. `http2`: false HTTP/1, true HTTP/2.
struct sl_http_server *sl_http_server_create(bool http2,
					     const struct sl_http_server_options *options,
					     const struct sl_http_server_upcalls *upcalls,
					     void *owner, struct sl_memory *memory);
// Streams still open get gone(complete = false).
void sl_http_server_destroy(struct sl_http_server *server);

// Whether a connection that begins with `bytes` speaks HTTP/2 with prior knowledge: 1 yes, 0 no,
// -1 too short to tell (at most 24 bytes are needed, usually 3).
int sl_http_is_http2(struct sl_bytes bytes);

// Takes bytes from the wire. Returns 0, or -1 when the connection is beyond repair: pull and send
// what is left (GOAWAY, or a 400), then close.
int sl_http_server_feed(struct sl_http_server *server, struct sl_bytes bytes, uint64_t now_ns);

// Fetches into the cache what feed() will look at: first the object itself (`step` 0), then what
// that points to (1).
void sl_http_server_fetch(const struct sl_http_server *server, unsigned step);

// What is to be sent, as pieces; at most `count`. The memory stays until sl_http_server_pulled().
// Returns the number of pieces; 0 when there is nothing.
size_t sl_http_server_pull(struct sl_http_server *server, struct iovec *pieces, size_t count);
// What pull() gave has been sent; fires gone() of finished streams.
void sl_http_server_pulled(struct sl_http_server *server);
bool sl_http_server_wants_pull(const struct sl_http_server *server);
// Nothing more will ever be sent or read: the connection can be closed after the last pull.
bool sl_http_server_is_done(const struct sl_http_server *server);
// Part of a head has come and its rest is owed.
bool sl_http_server_in_head(const struct sl_http_server *server);
// Bytes that the peer may still send on open bodies before the next event matters: for SO_RCVLOWAT.
// 0 when unknown. Bounded by the windows granted, less the part of a frame already held.
size_t sl_http_server_outstanding(const struct sl_http_server *server);

// Graceful end, in two steps on HTTP/2 (item 29): GOAWAY with id 2^31-1 and `debug` ("max_age"),
// then, when the peer has had a round trip (its PING came back, or sl_http_server_goaway_final() is
// called), GOAWAY with the real id. HTTP/1: the next answer says "Connection: close".
void sl_http_server_goaway(struct sl_http_server *server, const char *debug);
void sl_http_server_goaway_final(struct sl_http_server *server);

void *sl_http_stream_user(const struct sl_http_stream *stream);
void sl_http_stream_set_user(struct sl_http_stream *stream, void *user);
// Gives back `bytes` of the stream's receive window.
void sl_http_stream_consume(struct sl_http_stream *stream, size_t bytes);
// Sends "100 Continue"; on HTTP/1 only if the client still waits for it.
void sl_http_stream_continue(struct sl_http_stream *stream);
// A lower bound of the whole body's size, from its first byte (gRPC prefix); feeds outstanding().
void sl_http_stream_expect(struct sl_http_stream *stream, size_t bytes);

// A whole answer. `content_type` and header values are copied when they are not constants: all
// bytes are taken over before the call returns. Trailers are for gRPC (HTTP/2 only).
struct sl_http_response {
	uint16_t status;
	struct sl_bytes content_type; // empty: none
	struct sl_bytes content_encoding;
	struct sl_bytes body; // at most 64 KiB
	bool grpc;            // DATA + trailers; without a body Trailers-Only (item 17)
	uint8_t grpc_status;
	struct sl_bytes grpc_message;         // UTF-8; percent-encoded here (item 18)
	struct sl_bytes grpc_details;         // base64 of google.rpc.Status; empty: none
	uint32_t retry_after_s;               // 0: no Retry-After
	const struct sl_http_header *headers; // more fields (allow, grpc-accept-encoding, CORS)
	uint32_t header_count;
	bool close; // HTTP/1: "Connection: close", and the rest is discarded
	bool more;  // gRPC: the call stays open behind this message (sl_http_stream_message)
};
// Answers a stream, once. Before the request's end HTTP/2 follows it by RST_STREAM(NO_ERROR)
// (item 19); HTTP/1 closes after it unless the rest is short.
void sl_http_stream_respond(struct sl_http_stream *stream, const struct sl_http_response *response);
// Another message of an answer that had `more`. False: the last one has not gone yet (the client's
// window is shut), and this one is not taken.
bool sl_http_stream_message(struct sl_http_stream *stream, struct sl_bytes body);
// Ends such an answer, behind what has not gone yet, with a gRPC status.
void sl_http_stream_finish(struct sl_http_stream *stream, uint8_t grpc_status);
// RST_STREAM with an HTTP/2 error code (8 CANCEL, 7 REFUSED_STREAM); HTTP/1 closes.
void sl_http_stream_reset(struct sl_http_stream *stream, uint32_t code);

// --- client -------------------------------------------------------------------------------------
struct sl_http_client;

// One outgoing request and what comes back. Embedded in the caller's call; must stay until ended().
struct sl_http_exchange {
	struct sl_bytes method, scheme, authority, path;
	const struct sl_http_header *headers; // without those above
	uint32_t header_count;
	const struct iovec *body; // it and what it points to stay until ended(), and what was
				  // pulled of it until pulled(); may be sent in many pulls
	uint32_t body_count;
	uint64_t body_bytes;
	void *user;
	// The layer's.
	struct sl_http_exchange *next, *prev;
	int32_t stream_id;
	uint32_t body_index;
	size_t body_offset;
	uint64_t body_left;
	bool head_seen, end_seen, unprocessed;
	int error;
};

struct sl_http_client_upcalls {
	void (*head)(void *owner, struct sl_http_exchange *exchange, uint16_t status,
		     const struct sl_http_header *headers, uint32_t header_count);
	void (*data)(void *owner, struct sl_http_exchange *exchange, struct sl_bytes bytes);
	void (*trailers)(void *owner, struct sl_http_exchange *exchange,
			 const struct sl_http_header *headers, uint32_t header_count);
	// Comes exactly once. `error` 0: whole; else an HTTP/2 error code, or -1 when the
	// connection went. `unprocessed`: the peer says it has not looked at it (REFUSED_STREAM,
	// GOAWAY).
	void (*ended)(void *owner, struct sl_http_exchange *exchange, int error, bool unprocessed);
};

struct sl_http_client *sl_http_client_create(bool http2,
					     const struct sl_http_client_upcalls *upcalls,
					     void *owner, struct sl_memory *memory);
void sl_http_client_destroy(struct sl_http_client *client); // ended(-1) for what is open
int sl_http_client_feed(struct sl_http_client *client, struct sl_bytes bytes, uint64_t now_ns);
size_t sl_http_client_pull(struct sl_http_client *client, struct iovec *pieces, size_t count);
void sl_http_client_pulled(struct sl_http_client *client);
// How many more exchanges it would take now (0 after GOAWAY; 1 at a time on HTTP/1).
uint32_t sl_http_client_room(const struct sl_http_client *client);
uint32_t sl_http_client_open(const struct sl_http_client *client);
int sl_http_client_start(struct sl_http_client *client, struct sl_http_exchange *exchange);
void sl_http_client_cancel(struct sl_http_client *client, struct sl_http_exchange *exchange);
// A PING (HTTP/2) to see whether the peer still lives; its answer shows in feed().
void sl_http_client_ping(struct sl_http_client *client);
// No more exchanges will be taken and none is open.
bool sl_http_client_is_done(const struct sl_http_client *client);
