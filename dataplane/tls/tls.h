#pragma once

#include "dataplane/base/memory.h"

// TLS 1.2 and 1.3 by OpenSSL over memory: bytes in, bytes out; it never touches a socket.
//
// Threading: a context is shared by all shards (read-only, counted references); a session belongs
// to one shard. Memory: sessions by OpenSSL; output buffers from the shard's memory.
// Time: passed in where needed.
struct sl_tls_context;
struct sl_tls;

struct sl_tls_certificate {
	const char *certificate_file; // PEM chain
	const char *key_file;
};

struct sl_tls_config {
	bool server;
	const struct sl_tls_certificate *certificates; // SNI picks by the names they hold; the
	uint32_t certificate_count;                    // first is the default
	const char *ca_file;         // whom to trust; NULL: the system's store (client)
	bool require_client;         // mTLS: a client without a certificate of `ca_file` is refused
	bool insecure;               // client: do not verify (never the preset)
	const char *server_name;     // client: SNI, and the name that is verified
	const char *min_version;     // "1.2" (preset) or "1.3"
	const char *ticket_key_file; // 48 or 80 bytes, shared by the fleet; NULL: keys of our own
	const char *alpn;            // client: "h2" or "http/1.1"; server: takes both, h2 first
};

// Reads the files. Returns NULL and writes `error` ("certificate_file a.pem: no start line").
struct sl_tls_context *sl_tls_context_create(const struct sl_tls_config *config, char *error,
					     size_t error_size);
struct sl_tls_context *sl_tls_context_get(struct sl_tls_context *context);
void sl_tls_context_put(struct sl_tls_context *context); // NULL is fine

// Seconds since the epoch at which the first of its certificates expires; 0 when it has none.
int64_t sl_tls_context_expiry(const struct sl_tls_context *context);

// A fingerprint of the files it was made of (contents), to see whether they changed.
uint64_t sl_tls_config_files_hash(const struct sl_tls_config *config);

// A session. NULL when out of memory.
struct sl_tls *sl_tls_create(struct sl_tls_context *context, struct sl_memory *memory);
void sl_tls_destroy(struct sl_tls *tls);

enum sl_tls_result {
	SL_TLS_OK = 0,
	SL_TLS_CLOSED = 1, // the peer sent close_notify
	SL_TLS_FAILED =
		-1, // handshake or record error; what pull() gives (an alert) should be sent
};

// Takes cipher bytes from the wire. Plain bytes are given to `plain` (valid during the call), in
// order, as they become known. A client calls it with no bytes to start its handshake.
enum sl_tls_result sl_tls_feed(struct sl_tls *tls, struct sl_bytes cipher,
			       void (*plain)(void *user, struct sl_bytes bytes), void *user);

// Encrypts the pieces behind what is already waiting for pull(). Only after the handshake.
struct iovec;
enum sl_tls_result sl_tls_write(struct sl_tls *tls, const struct iovec *pieces, size_t count);

// The cipher bytes that wait to be sent, whole; they stay valid and unchanged until
// sl_tls_pulled(). Empty when there are none.
struct sl_bytes sl_tls_pull(struct sl_tls *tls);
// They have gone; their buffer may be given back.
void sl_tls_pulled(struct sl_tls *tls);

// Queues close_notify.
void sl_tls_shutdown(struct sl_tls *tls);

bool sl_tls_is_up(const struct sl_tls *tls); // the handshake is complete

// What an upstream lets a client resume (RFC 8446, section 2.2; RFC 5246, 7.3): the newest few
// sessions, for an hour, each of TLS 1.3 once. One for each endpoint: all who use it have the same
// context. Plain value; drop() leaves an empty one.
#define SL_TLS_TICKETS_MAX 4
struct sl_tls_tickets {
	void *sessions[SL_TLS_TICKETS_MAX]; // the oldest first
	uint32_t count;
};
void sl_tls_tickets_drop(struct sl_tls_tickets *tickets);
// For a client that has not begun: it offers one of them, and those it is given are kept there.
// They outlive it.
void sl_tls_resume(struct sl_tls *tls, struct sl_tls_tickets *tickets);
bool sl_tls_is_resumed(const struct sl_tls *tls); // after the handshake
// After the handshake: "h2", "http/1.1" or empty.
struct sl_bytes sl_tls_alpn(const struct sl_tls *tls);
// The verified client's name: the first SAN URI or DNS name, else the common name. NULL: none.
const char *sl_tls_peer_name(const struct sl_tls *tls);
// Why it failed, for a log line; a constant or the session's.
const char *sl_tls_error(const struct sl_tls *tls);
