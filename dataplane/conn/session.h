#pragma once

#include "dataplane/base/pool.h"
#include "dataplane/base/random.h"
#include "dataplane/conn/hint.h"
#include "dataplane/conn/server.h"
#include "dataplane/http/grpc.h"
#include "dataplane/tls/tls.h"

// Inside conn/: what server.c, session.c and call.c share.
//
// Threading: one shard. Memory: sessions and calls are pooled by their server.

#define SL_SNIFF_BYTES 24 // HTTP/2's connection preface

struct sl_server {
	struct sl_server_env env;
	struct sl_server_limits limits; // of this turn
	struct sl_http_server_options http_options;
	uint64_t now_ns;
	struct sl_pool sessions_pool, calls_pool;
	struct sl_session *sessions; // all
	struct sl_session *dirty;    // have something to send
	uint32_t session_count;
	uint64_t unread_bytes; // the sessions' together
	uint32_t watches;      // the sessions' together
	bool draining;
	bool unready; // as the watches were told
	struct sl_random random;
	struct sl_conn_counters *counters;
	uint64_t date_s; // whose `date` is written; 0: none yet
	char date[SL_HTTP_DATE_BYTES];
};

struct sl_session {
	struct sl_conn conn; // first: upcalls cast back
	struct sl_server *server;
	struct sl_tls *tls;          // NULL: plain
	struct sl_http_server *http; // NULL until the first bytes told which
	struct sl_session *prev, *next;
	struct sl_session *next_dirty;
	struct sl_call *calls; // open, newest first
	uint32_t open_calls;   // watches too
	uint32_t watches;      // of them, those that only wait for news of our health
	uint8_t sniff[SL_SNIFF_BYTES];
	uint8_t sniffed;
	bool dirty, in_flight; // in_flight: pieces given to io are not all sent
	bool closing;          // sl_io_close was called
	bool ending;           // send what is left, then close
	bool peer_ended;       // HTTP/1: it sends no more, and may still read its answers
	bool going_away, final_sent, http2;
	uint64_t opened_ns;
	uint64_t quiet_since_ns;   // when the last call ended, or the session began
	uint64_t partial_since_ns; // part of a head, or of a handshake, came; 0: none
	uint64_t writing_since_ns; // while in_flight
	uint64_t age_at_ns;        // GOAWAY then; 0: never
	uint64_t unread_bytes;     // reserved for bodies that have not arrived
	struct sl_timer timer;
	struct sl_hint hint; // what its client was told to wait for
	bool paused;         // HTTP/1: not read until `resume` fires
	struct sl_timer resume;
};

// One HTTP request of a session.
struct sl_call {
	struct sl_session *session;
	struct sl_http_stream *stream;
	struct sl_request *request; // NULL: refused, answered, or not an Export call
	struct sl_call *prev, *next;
	struct sl_grpc_deframer deframer;
	uint8_t protocol; // enum sl_protocol
	uint8_t coding;   // enum sl_coding as announced
	bool with_shard;  // ready() was called: the request is the shard's
	bool answered;
	bool early;                      // it came before the time its client was told
	bool from_browser;               // it has an Origin
	bool health;                     // of the health service: what it asked for is in `asked`
	bool watch;                      // Watch, not Check
	bool watching;                   // it was answered, and may be told more
	uint8_t told;                    // what it was told last
	uint8_t asked_bytes, asked[128]; // more than that: one more
	uint16_t cors;                   // number of its configured origin, from 1; 0: not allowed
	uint64_t began_ns;               // the call; its body's rate is measured since
	uint64_t progress_ns;            // the last bytes of the body; then: the answer
	uint64_t deadline_ns;            // grpc-timeout; UINT64_MAX: none
	uint64_t body_bytes;             // since began_ns, as received
	size_t reserved;                 // part of session->unread_bytes
};

// What a method and path mean.
enum sl_service {
	SL_SERVICE_UNKNOWN,
	SL_SERVICE_EXPORT_GRPC,
	SL_SERVICE_EXPORT_HTTP,
};
enum sl_service sl_service_of(struct sl_bytes path, enum sl_signal *signal);

// Content types (RFC 9110, section 8.3: parameters and case do not matter).
enum sl_media { SL_MEDIA_OTHER, SL_MEDIA_GRPC, SL_MEDIA_PROTOBUF, SL_MEDIA_JSON };
enum sl_media sl_media_of(struct sl_bytes content_type);

// session.c
extern const struct sl_io_upcalls sl_session_upcalls;
void sl_session_flush(struct sl_session *session);
void sl_session_mark(struct sl_session *session);                    // has something to send
void sl_session_pause(struct sl_session *session, uint64_t wait_ns); // HTTP/1: not read meanwhile
void sl_session_close(struct sl_session *session, uint64_t linger_ns);

// call.c
extern const struct sl_http_server_upcalls sl_call_upcalls;
void sl_call_answer(struct sl_call *call, struct sl_request *request, enum sl_reason reason,
		    uint64_t retry_after_ns);
// Cuts bodies that came to a standstill or are too slow; `now_ns` is the server's.
void sl_call_check_progress(struct sl_call *call);

// health.c
// Whether the head is of grpc.health.v1.Health; the call is one then, and has no request.
bool sl_call_begin_health(struct sl_call *call, const struct sl_http_head *head);
void sl_call_health_data(struct sl_call *call, struct sl_bytes bytes);
void sl_call_answer_health(struct sl_call *call);
// Tells a watch what has changed, if anything has; ends it when its connection is to go.
void sl_call_tell_watch(struct sl_call *call);
void sl_call_forget_watch(struct sl_call *call);
// Whether traffic should go elsewhere, as /readyz has it.
bool sl_server_is_unready(const struct sl_server *server);

// server.c
// GOAWAY, the close when its calls have ended.
void sl_session_go_away(struct sl_session *session, const char *debug);
void sl_server_forget(struct sl_session *session);

// counters: requests by protocol and code
#define SL_CODES 36
struct sl_conn_counters {
	uint64_t requests[SL_PROTOCOLS * SL_CODES];
	uint64_t refused[SL_REASONS];
	uint64_t connections[1];
	uint64_t connections_open[1];
	uint64_t connections_refused[1];
	uint64_t tls_failures[1];
	uint64_t protocol_errors[1];
	uint64_t slow_bodies[1];
	uint64_t paused_reads[1];
	uint64_t hint_refused_streams[1];
};
extern const struct sl_metric_row sl_conn_counter_rows[];
extern const uint32_t sl_conn_counter_row_count;
void sl_conn_count_request(struct sl_conn_counters *counters, enum sl_protocol protocol, bool grpc,
			   unsigned code);
