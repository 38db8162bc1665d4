#pragma once

#include "config/module.h"
#include "dataplane/base/metrics.h"
#include "dataplane/io/io.h"

// One shard: a thread on a core of its own with its own io, memory, buckets and queues, running
// requests to completion. The loop of one turn:
//
//   poll io        timers, reads -> sessions -> whole requests in `ready`
//   stages         decode -> quota -> sample -> route, in batches of up to 64 parts
//   routing        due retries, drivers' ends -> answers
//   flush          one write for each session that has something to say
//
// Threading: created, started and destroyed by the main thread; its own thread runs the loop.
// Other threads may call what is marked so.
struct sl_shard;

struct sl_shard_options {
	uint32_t index, count;
	int cpu; // to pin to; -1: not pinned
	uint64_t memory_budget_bytes;
	struct sl_io_options io;
	struct sl_io_backend *backend; // beside the kernel's sockets, or NULL; goes with the shard
	struct sl_snapshots *snapshots;
	struct sl_metrics *metrics;
	struct sl_ledger *ledger; // books by tenant; NULL: not kept
	const int *listen_fds;    // in the order of the server module's listeners
	const bool *unready;      // what health checks are told; writer: the control thread
	const struct sl_address *listen_addresses;
	uint32_t listen_count;
	const struct sl_datagrams_config *datagrams; // of the first snapshot; NULL: none
	const int *datagram_fds; // this shard's, in the order of datagrams.listen
	struct sl_shard **peers; // all shards, for handing over sockets; filled before any starts
};

// Returns NULL with errno set.
struct sl_shard *sl_shard_create(const struct sl_shard_options *options);
int sl_shard_start(struct sl_shard *shard);
// Waits for the thread's end. The shard must have been told to stop. All shards are joined before
// the first is destroyed: they look at each other until their last turn.
void sl_shard_join(struct sl_shard *shard);
// Frees, unless it was stopped with calls or deliveries open: those still use it, until the process
// ends. NULL is fine.
void sl_shard_destroy(struct sl_shard *shard);

// Something changed that a blocked shard should see (a snapshot).
void sl_shard_wake(struct sl_shard *shard);
// Begin to drain: no new connections or calls, GOAWAY; the loop goes on until nothing is open.
void sl_shard_drain(struct sl_shard *shard);
// Leave the loop at once; what is open is abandoned.
void sl_shard_stop(struct sl_shard *shard);
// Drained: no session, no request, no record in flight.
bool sl_shard_is_idle(const struct sl_shard *shard);
// Since when the budget has been nearly full, in ns of the monotonic clock; 0: it is not.
uint64_t sl_shard_full_since_ns(const struct sl_shard *shard);
