#pragma once

#include "config/module.h"
#include "dataplane/base/memory.h"
#include "dataplane/base/metrics.h"
#include "dataplane/base/timer.h"
#include "dataplane/base/waker.h"
#include "dataplane/request/delivery.h"
#include "dataplane/request/ending.h"

// Where parts go: match rules -> deliveries -> records -> drivers (kafka, otlp, file, blackhole),
// with retry, caps on pinned bytes, and the ends back to the request.
//
// Threading: a shard's side belongs to it; drivers own what is shared (producers, writers) and
// speak to shards by rings. Memory: records and pieces lie in the request's arena.
extern const struct sl_module sl_routing_module; // keys `destinations`, `routes`

struct sl_routing;       // the snapshot's part: routes and destinations
struct sl_routing_shard; // one shard's queues and drivers
struct sl_io;
struct sl_codec;

struct sl_routing_env {
	uint32_t shard, shards;
	struct sl_memory *memory;
	struct sl_timers *timers;
	struct sl_waker *waker; // wakes the shard: drivers' threads use it
	struct sl_io *io;       // for drivers that dial
	struct sl_codec *codec;
	struct sl_metrics *metrics;
	struct sl_random *random;
	struct sl_endings endings; // who keeps books by tenant
	// The tenant of that name now, or SL_TENANT_NONE; the name becomes one that lasts. NULL:
	// nobody knows.
	sl_tenant_id (*tenant_of)(void *tenants, struct sl_bytes *name);
	// Around a request that is not the shard's: its tenant's number stays its own meanwhile.
	uint8_t (*take_request)(void *tenants);
	void (*give_request)(void *tenants, uint8_t phase);
	void *tenants;
};

struct sl_routing_shard *sl_routing_shard_create(const struct sl_routing_env *env);
void sl_routing_shard_destroy(struct sl_routing_shard *self); // nothing may be in flight

// At a turn's start; a snapshot with other destinations opens and retires drivers.
void sl_routing_shard_turn(struct sl_routing_shard *self, const struct sl_routing *routing,
			   uint64_t now_ns);

// Stage: finds each part's route, makes its deliveries and records and submits them. A part that a
// rule drops, or with nothing kept, goes on without deliveries. A required destination at its cap
// refuses the part (SL_REASON_EGRESS_FULL); a best-effort one drops and counts.
// Parts leave the batch as accepted: `batch->parts` stays as it is.
void sl_routing_stage(void *self, struct sl_batch *batch);

// Once a turn, after the stages: due retries, drivers' ends, one flush a destination.
void sl_routing_poll(struct sl_routing_shard *self, uint64_t now_ns);
// Records submitted and not ended, on this shard.
uint64_t sl_routing_in_flight(const struct sl_routing_shard *self);

// The shard is about to end: nothing comes out of spools any more.
void sl_routing_drain(struct sl_routing_shard *self);

// What the snapshot's destinations hold at most beside the shards' budgets: their drivers, and the
// records that come out of spools, one of which may be `body_bytes` long.
struct sl_routing_memory {
	uint64_t driver_bytes, spool_bytes;
};
struct sl_routing_memory sl_routing_memory_max(const struct sl_routing *routing,
					       uint64_t body_bytes);

// Destinations that reloads took away are closed by threads of their own, once no shard has them
// open, as are those whose end may block: waits for these, but not for what a drain that was given
// up left open. When no shard runs any more, once, before the process ends: what they write last
// must not be cut off.
void sl_routing_wait_closed(void);
uint32_t sl_routing_closing(void); // how many are being closed so, now
// A reload with a new destination is refused when so many are, and as many more as it may change.
#define SL_ROUTING_CLOSING_MAX 8

// `acknowledge: queued` counts a delivery as ended for the answer once its driver has taken it,
// `spooled` once it is on the disk of its destination's spool, by which all of it goes.
enum sl_acknowledge {
	SL_ACKNOWLEDGE_DELIVERED,
	SL_ACKNOWLEDGE_QUEUED,
	SL_ACKNOWLEDGE_SPOOLED,
};
