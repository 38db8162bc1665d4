#pragma once

#include <nghttp2/nghttp2.h>

#include "perf/load/histogram.h"

// One HTTP/2 connection of the load generator: sends prepared gRPC bodies, counts what comes back.
//
// Threading: one thread. Memory: bodies are the run's. Time: passed in.
#define SL_LOAD_STREAMS_MAX 1024
#define SL_LOAD_HEADERS_MAX 8

struct sl_load_body {
	uint8_t *data; // gRPC prefix and message
	size_t size;
};

struct sl_load_totals {
	uint64_t sent, ok, failed; // requests; ok: grpc-status 0
	uint64_t by_status[17];    // [grpc-status]
	uint64_t resets, no_status, sent_bytes;
	struct sl_latency latency; // from when a request was due to its last byte
};

struct sl_load_run {
	const char *authority;
	const char *path;
	const char *coding; // grpc-encoding; NULL: identity
	nghttp2_nv headers[SL_LOAD_HEADERS_MAX];
	size_t header_count;
	struct sl_load_body *bodies;
	uint32_t body_count;
	struct sl_load_totals totals;
	uint64_t now_ns;      // of this turn
	bool measuring;       // the warm-up is over
	int pid;              // of the server; 0: not told
	bool measured;        // its end has come
	double cpu_seconds;   // the server's, while it was measured
	uint64_t measured_ns; // how long that was
	uint64_t answered;    // with success in that time, whenever they were sent
};

struct sl_load_client;

// CPU seconds that a process has used until now; 0 for pid 0, or when there is none.
double sl_load_cpu_of(int pid);
// From here to there the server's CPU is counted, and the answers. Reads the clock.
void sl_load_measure(struct sl_load_run *run);
void sl_load_measured(struct sl_load_run *run);

// Connects (blocking) and says hello. NULL with errno set.
struct sl_load_client *sl_load_client_create(struct sl_load_run *run, const char *host,
					     const char *port, uint32_t streams);
// Without a socket: its bytes are carried by the caller, by the three calls below.
struct sl_load_client *sl_load_client_create_bare(struct sl_load_run *run, uint32_t streams);
void sl_load_client_destroy(struct sl_load_client *client);
int sl_load_client_fd(const struct sl_load_client *client);

// Bytes that came. Returns -1 when they are not HTTP/2.
int sl_load_client_feed(struct sl_load_client *client, struct sl_bytes bytes);
// What waits to be sent; empty: nothing. The same until it is told to be sent.
struct sl_bytes sl_load_client_pull(struct sl_load_client *client);
void sl_load_client_sent(struct sl_load_client *client, size_t bytes);

// How many more requests it takes now.
uint32_t sl_load_client_room(const struct sl_load_client *client);
uint32_t sl_load_client_open(const struct sl_load_client *client);
// Starts one request, due at `due_ns` (latency counts from there).
int sl_load_client_start(struct sl_load_client *client, uint64_t due_ns);

// Reads what has come. Returns -1 when the connection is gone.
int sl_load_client_read(struct sl_load_client *client);
// Writes what waits: 1 when the socket is full (wait for it), 0 when all went, -1 when gone.
int sl_load_client_write(struct sl_load_client *client);
