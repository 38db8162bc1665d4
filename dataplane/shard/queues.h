#pragma once

#include "dataplane/base/by_tenant.h"
#include "dataplane/request/request.h"

// Bodies that wait, by tenant: those that are still being read (their share of the memory budget),
// those that are ready (served by deficit round robin, weighted by class), and requests that a
// leaky bucket holds (hold.c).
//
//   by tenant: 4 bytes -> queue (only while something of it waits)
//   ready -> [a: 3 requests, deficit] -> [b: 1] -> ...     the first with a deficit above 0 serves
//
// A body's cost is known only when it has been inflated, so a tenant is served while its deficit is
// above 0 and may go below it by one request; what is below is paid in the next rounds.
//
// Threading: owned by one shard. Memory: taken at creation; address space for every number.
#define SL_QUEUES_MAX 4096 // tenants with waiting bodies; more of them share one queue
// Credit of a round and unit of weight; a small request costs less.
#define SL_QUEUE_QUANTUM       (UINT64_C(4) * SL_KIB)
#define SL_QUEUE_REQUEST_BYTES 1024 // what a request costs beside its bytes

struct sl_queue {
	sl_tenant_id tenant;
	uint32_t weight;
	int64_t deficit;
	struct sl_request *first, **last;
	struct sl_queue *next;  // in the round
	uint64_t waiting_bytes; // reserved for bodies that have not been taken up, or are held
	uint64_t leaves_ns;     // when the last of those held goes on
};

struct sl_queues {
	struct sl_by_tenant queue_of; // uint32_t: number + 1; 0: none
	struct sl_queue
		*queues; // [0] is of requests without a tenant, and of those beyond the most
	uint16_t *free;  // numbers
	uint32_t free_count;
	uint32_t ready_queues;          // in the round
	struct sl_queue *round, **tail; // who serves next
};

// Returns 0 or -ENOMEM.
int sl_queues_init(struct sl_queues *queues);
void sl_queues_fini(struct sl_queues *queues);

// The request's body will take `bytes` in all (at least what it said before). Refuses when others
// of its tenant wait and all together would pass `share_bytes`. Requests whose tenant the body
// names have no share.
bool sl_queues_reserve(struct sl_queues *queues, struct sl_request *request, uint64_t bytes,
		       uint64_t share_bytes);
// A request that has been taken up waits once more, for its memory of `bytes`, until `*leaves_ns`,
// which becomes later when others of its tenant leave later: their order stays. Refuses as
// reserve() does. Released by sl_queues_release().
bool sl_queues_hold(struct sl_queues *queues, struct sl_request *request, uint64_t bytes,
		    uint64_t share_bytes, uint64_t *leaves_ns);
// Until when others of the tenant are held; 0: none are.
uint64_t sl_queues_held_until(const struct sl_queues *queues, sl_tenant_id tenant);
// It waits no more: taken up, or given up before it was ready. Twice does nothing.
void sl_queues_release(struct sl_queues *queues, struct sl_request *request);

// A whole request waits for its turn. `weight` >= 1 is its tenant's.
void sl_queues_push(struct sl_queues *queues, struct sl_request *request, uint32_t weight);
// The next to serve, released, or NULL.
struct sl_request *sl_queues_pop(struct sl_queues *queues);
// What serving the tenant has cost, once known. Nothing when none of it waits any more.
void sl_queues_charge(struct sl_queues *queues, sl_tenant_id tenant, uint64_t bytes);

SL_INLINE bool sl_queues_ready(const struct sl_queues *queues)
{
	return queues->round != NULL;
}
