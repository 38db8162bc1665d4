#pragma once

#include <nghttp2/nghttp2.h>

#include "dataplane/base/pool.h"
#include "dataplane/http/http.h"

// Inside http/: what the two protocols and the two faces share.
//
// Threading: one shard. Memory: see struct sl_http_pools.

// Free lists of one thread for one sl_memory: nghttp2's allocations and our objects. The first
// session makes them, the last one to go gives them back.
#define SL_HTTP_SMALL_STEP    32
#define SL_HTTP_SMALL_CLASSES 33 // up to 1 KiB of payload

struct sl_http_small {
	struct sl_http_small *next;
};

struct sl_http_slab {
	struct sl_http_slab *next;
	size_t capacity;
};

struct sl_http_pools {
	struct sl_memory *memory;
	struct sl_http_pools *next;
	uint32_t references;
	struct sl_http_small *small[SL_HTTP_SMALL_CLASSES];
	struct sl_http_slab *slabs;
	uint8_t *fresh, *fresh_end; // of the newest slab
	nghttp2_mem mem;
	struct sl_pool sessions, streams;
};

// NULL when the machine has no memory.
struct sl_http_pools *sl_http_pools_get(struct sl_memory *memory);
void sl_http_pools_put(struct sl_http_pools *pools);
// Bounds on what the pools above hold; each face asserts that its objects fit.
#define SL_HTTP_SESSION_BYTES       512
#define SL_HTTP_STREAM_BYTES        320
#define SL_HTTP_SESSION_FETCH_BYTES 256 // of a session's, what a request touches

// The fields of one head or trailer section while they arrive.
struct sl_http_block {
	struct sl_http_head head;
	size_t capacity;    // of this object
	uint32_t bytes_max; // limit of the list, as item 25 counts it
	uint32_t list_bytes;
	uint32_t used;
	uint16_t status; // of a response
	uint8_t pseudo;  // those that were seen, one bit each
	bool trailers, response;
	bool bad, too_large, regular, has_host;
	struct sl_bytes scheme, host;
	struct sl_http_header headers[SL_HTTP_HEADERS_MAX];
	uint8_t bytes[];
};

struct sl_http_block *sl_http_block_take(struct sl_memory *memory, uint32_t bytes_max);
void sl_http_block_give(struct sl_memory *memory, struct sl_http_block *block);
// A field of HTTP/2 (RFC 9113, section 8.2): checked, copied, noted in the head.
void sl_http_block_add(struct sl_http_block *block, struct sl_bytes name, struct sl_bytes value);
// Whether what came makes a request.
bool sl_http_block_is_request(struct sl_http_block *block);
// A regular field whose bytes stay where they are; the name is in lower case. Sets `bad`.
void sl_http_block_note(struct sl_http_block *block, struct sl_bytes name, struct sl_bytes value);
// The path without its query.
struct sl_bytes sl_http_path_of(struct sl_bytes target);

bool sl_http_name_is_valid(struct sl_bytes name);   // lower-case token
bool sl_http_value_is_valid(struct sl_bytes value); // no controls but HTAB
bool sl_http_number_parse(struct sl_bytes text, uint64_t *value);
size_t sl_http_number_print(uint8_t out[20], uint64_t value);

struct sl_http_server_ops {
	int (*feed)(struct sl_http_server *server, struct sl_bytes bytes, uint64_t now_ns);
	size_t (*pull)(struct sl_http_server *server, struct iovec *pieces, size_t count);
	void (*fetch)(const struct sl_http_server *server); // optional
	void (*pulled)(struct sl_http_server *server);
	bool (*wants_pull)(const struct sl_http_server *server);
	bool (*is_done)(const struct sl_http_server *server);
	bool (*in_head)(const struct sl_http_server *server);
	size_t (*outstanding)(const struct sl_http_server *server);
	void (*goaway)(struct sl_http_server *server, const char *debug);
	void (*goaway_final)(struct sl_http_server *server);
	void (*destroy)(struct sl_http_server *server);
	void (*consume)(struct sl_http_stream *stream, size_t bytes);
	void (*proceed)(struct sl_http_stream *stream);
	void (*expect)(struct sl_http_stream *stream, size_t bytes);
	void (*respond)(struct sl_http_stream *stream, const struct sl_http_response *response);
	bool (*message)(struct sl_http_stream *stream, struct sl_bytes body); // HTTP/2 only
	void (*finish)(struct sl_http_stream *stream, uint8_t grpc_status);   // HTTP/2 only
	void (*reset)(struct sl_http_stream *stream, uint32_t code);
};

// First in both protocols' servers, and in their streams.
struct sl_http_server {
	const struct sl_http_server_ops *ops;
	const struct sl_http_server_options *options;
	const struct sl_http_server_upcalls *upcalls;
	void *owner;
	struct sl_memory *memory;
	struct sl_http_pools *pools;
	uint32_t open_streams; // between head() and gone()
};

struct sl_http_stream {
	struct sl_http_server *server;
	void *user;
};

struct sl_http_client_ops {
	int (*feed)(struct sl_http_client *client, struct sl_bytes bytes, uint64_t now_ns);
	size_t (*pull)(struct sl_http_client *client, struct iovec *pieces, size_t count);
	void (*pulled)(struct sl_http_client *client);
	uint32_t (*room)(const struct sl_http_client *client);
	int (*start)(struct sl_http_client *client, struct sl_http_exchange *exchange);
	void (*cancel)(struct sl_http_client *client, struct sl_http_exchange *exchange);
	void (*ping)(struct sl_http_client *client);
	bool (*is_done)(const struct sl_http_client *client);
	void (*destroy)(struct sl_http_client *client);
};

struct sl_http_client {
	const struct sl_http_client_ops *ops;
	const struct sl_http_client_upcalls *upcalls;
	void *owner;
	struct sl_memory *memory;
	struct sl_http_pools *pools;
	uint32_t open;
};

struct sl_http_server *sl_http1_server_create(struct sl_http_pools *pools);
struct sl_http_server *sl_http2_server_create(struct sl_http_pools *pools,
					      const struct sl_http_server_options *options);
struct sl_http_client *sl_http1_client_create(struct sl_http_pools *pools);
struct sl_http_client *sl_http2_client_create(struct sl_http_pools *pools);

// Bytes on their way out, in one buffer that grows; given back when they were sent.
struct sl_http_out {
	uint8_t *data;
	size_t size, capacity;
};
bool sl_http_out_add(struct sl_memory *memory, struct sl_http_out *out, const void *data,
		     size_t size);
void sl_http_out_give(struct sl_memory *memory, struct sl_http_out *out);
