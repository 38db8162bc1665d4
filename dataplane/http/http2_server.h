#pragma once

#include "dataplane/http/internal.h"

// Inside http/: the HTTP/2 server's state, shared by http2_server.c (frames in, bytes out) and
// http2_respond.c (answers).
//
// Threading: one shard. Memory: pooled.
#define SL_HTTP2_REPLY_INLINE 96 // replies up to this need no buffer: nearly all do

struct sl_http2_server {
	struct sl_http_server base;
	nghttp2_session *session;
	struct sl_http_block *block; // the head that is arriving
	struct sl_http2_stream *streams, *finished;
	struct sl_http2_stream *receiving; // those whose requests are not whole
	struct sl_http2_stream *last;      // that had an event: spares nghttp2's map
	struct sl_http_out out;
	uint64_t now_ns, glitches_since_ns, ping_ns;
	uint32_t active; // streams nghttp2 has not closed
	uint32_t glitches, strikes;
	bool refused;      // the block in `block` belongs to a stream past streams_max
	bool pulling;      // inside pull(): gone() waits for pulled()
	bool settled;      // our SETTINGS were pulled
	bool greeted;      // the peer's preface is whole: the first SETTINGS came
	bool dying;        // GOAWAY with an error was submitted
	bool notice;       // the first GOAWAY waits to be written
	bool noticed;      // it was
	bool final;        // the last GOAWAY was submitted
	bool peer_going;   // the peer sent one
	int32_t begun_max; // the highest id that a HEADERS frame had
	int32_t cut_max;   // the highest id of a stream that we ended before its peer did: 0, none
	int32_t peer_cut;  // the stream that the peer resets now
	const char *debug; // of the two
};

struct sl_http2_stream {
	struct sl_http_stream base;
	struct sl_http2_stream *prev, *next;                     // all
	struct sl_http2_stream *receiving_prev, *receiving_next; // not whole
	struct sl_http2_stream *finished_next;
	int32_t id;
	bool told;     // head() was called: gone() is owed
	bool ended;    // the request is whole
	bool over;     // reset by us, or closed: the caller's words have no effect
	bool answered; // respond() was called
	bool sent_end; // END_STREAM of the answer was sent
	bool grpc;     // trailers follow the body
	bool more;     // further messages do, first
	bool is_head;  // its answer has no body
	bool complete;
	uint8_t grpc_status; // of the trailers
	uint64_t content_length, received, expected;
	uint32_t unconsumed;
	uint32_t reply_bytes, reply_sent;
	uint8_t *reply;
	size_t reply_capacity; // 0: inline
	uint8_t inline_reply[SL_HTTP2_REPLY_INLINE];
};

bool sl_http2_message(struct sl_http_stream *stream, struct sl_bytes body);
void sl_http2_finish(struct sl_http_stream *stream, uint8_t grpc_status);
void sl_http2_respond(struct sl_http_stream *stream, const struct sl_http_response *response);
