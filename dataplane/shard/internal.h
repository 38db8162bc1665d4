#pragma once

#include <pthread.h>

#include "dataplane/base/pool.h"
#include "dataplane/base/random.h"
#include "dataplane/base/ring.h"
#include "dataplane/codec/codec.h"
#include "dataplane/conn/server.h"
#include "dataplane/shard/books.h"
#include "dataplane/shard/datagram.h"
#include "dataplane/shard/queues.h"
#include "dataplane/shard/settings.h"
#include "dataplane/shard/shard.h"
#include "routing/routing.h"
#include "sampling/sampling.h"
#include "tenants/tenants.h"

// Inside shard/: what shard.c (the loop), pipeline.c (a request's way) and handoff.c (sockets
// between shards) share.
//
// Threading: the shard's own thread, but for the fields marked with their writer.

struct sl_shard_listener {
	struct sl_listener listener; // first: the upcall casts back
	struct sl_shard *shard;
	uint32_t index; // in the server module's list
	bool listening;
};

struct sl_shard {
	struct sl_shard_options options;
	pthread_t thread;
	bool started, joined;
	int failed; // writer: the shard before it is ready; -errno of its set-up

	struct sl_memory memory;            // bodies, views, edits: the budget
	struct sl_memory connection_memory; // what open connections cost
	struct sl_timers timers;
	struct sl_timer aging;     // of both memories
	struct sl_timer measuring; // of how busy it is
	struct sl_overload overload;
	uint64_t measured_ns, idle_ns; // at the last measuring: its time, the io's idle time
	struct sl_waker waker;
	struct sl_random random;
	struct sl_io *io;
	struct sl_codec *codec;
	struct sl_server *server;
	struct sl_tenants_shard *tenants;
	struct sl_sampling_shard *sampling;
	struct sl_routing_shard *routing;
	struct sl_pool requests;
	struct sl_books books;

	struct sl_snapshot *snapshot; // of this turn
	uint64_t snapshot_seen;       // its generation
	uint64_t now_ns, wall_ns;     // of this turn

	uint32_t late_requests; // their senders were told to try again: nothing waits for them

	uint64_t tenant_share_bytes; // of this turn: what bodies of a tenant that wait may take
	struct sl_queues queues;     // of bodies that are read, or ready and not yet decoded
	struct sl_request *held;     // by leaky buckets
	struct sl_request *leaving;  // those whose time has come, in order

	struct sl_shard_listener *listeners;
	struct sl_shard_datagrams datagrams;
	struct sl_ring *handed; // sockets from each other shard; [from]

	uint32_t want_drain, want_stop; // writer: the main thread
	bool draining;
	uint64_t full_since_ns; // writer: the shard
	uint32_t session_count; // writer: the shard; peers and the main thread read
	uint32_t handed_count;  // sockets in its rings, atomically: peers add, the shard subtracts
	uint32_t idle;          // writer: the shard
};

// pipeline.c
extern const struct sl_server_host sl_shard_host;
extern const struct sl_request_owner sl_shard_request_owner;
// What a named tenant may send: fills the request's tenant. `bytes` is what its body has at least.
enum sl_reason sl_shard_admit(struct sl_shard *shard, struct sl_request *request,
			      const struct sl_identity *identity, uint64_t bytes,
			      const struct sl_address *peer, bool certified,
			      uint64_t *retry_after_ns);
// Takes everything that is ready through the stages.
void sl_shard_run_ready(struct sl_shard *shard);

// Ends what is held, as refused.
void sl_shard_refuse_held(struct sl_shard *shard, enum sl_reason reason);

// hold.c
// Holds a request that is in no batch until `leaves_ns`. False: its tenant has as much waiting as
// it may, or it would leave too late to be answered.
bool sl_shard_hold(struct sl_shard *shard, struct sl_request *request, uint64_t leaves_ns);
// It is held no more. Nothing when it was not.
void sl_shard_unhold(struct sl_shard *shard, struct sl_request *request);
// The next whose time has come, no longer held, or NULL.
struct sl_request *sl_shard_next_leaving(struct sl_shard *shard);

// handoff.c
void sl_shard_accepted(struct sl_listener *listener, int fd, const struct sl_address *peer,
		       uint64_t now_ns);
void sl_shard_take_handed(struct sl_shard *shard);
