#include "dataplane/shard/queues.h"

#include <errno.h>
#include <stdlib.h>

int sl_queues_init(struct sl_queues *queues)
{
	*queues = (struct sl_queues){.tail = &queues->round};
	queues->queues = calloc(SL_QUEUES_MAX, sizeof(*queues->queues));
	queues->free = calloc(SL_QUEUES_MAX, sizeof(*queues->free));
	if (sl_by_tenant_init(&queues->queue_of, sizeof(uint32_t)) || !queues->queues ||
	    !queues->free) {
		sl_queues_fini(queues);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < SL_QUEUES_MAX; i++)
		queues->queues[i].last = &queues->queues[i].first;
	queues->queues[0].tenant = SL_TENANT_NONE;
	for (uint32_t i = SL_QUEUES_MAX - 1; i > 0; i--)
		queues->free[queues->free_count++] = (uint16_t)i;
	return 0;
}

void sl_queues_fini(struct sl_queues *queues)
{
	sl_by_tenant_fini(&queues->queue_of);
	free(queues->queues);
	free(queues->free);
	*queues = (struct sl_queues){0};
}

SL_INLINE uint32_t *queue_of(const struct sl_queues *queues, sl_tenant_id tenant)
{
	return SL_BY_TENANT(&queues->queue_of, uint32_t, tenant);
}

SL_INLINE struct sl_queue *find(const struct sl_queues *queues, sl_tenant_id tenant)
{
	const uint32_t number = tenant == SL_TENANT_NONE ? 0 : *queue_of(queues, tenant);

	return &queues->queues[number ? number - 1 : 0];
}

// A tenant's queue, made when nothing of it has waited so far.
SL_INLINE struct sl_queue *make(struct sl_queues *queues, sl_tenant_id tenant)
{
	struct sl_queue *queue = find(queues, tenant);

	if (tenant == SL_TENANT_NONE || queue->tenant == tenant)
		return queue;
	if (!queues->free_count)
		return queue;
	queue = &queues->queues[queues->free[--queues->free_count]];
	queue->tenant = tenant;
	queue->weight = 1;
	queue->deficit = 0;
	queue->leaves_ns = 0;
	*queue_of(queues, tenant) = (uint32_t)(queue - queues->queues) + 1;
	return queue;
}

// Nothing waits in it: another tenant may have it.
SL_INLINE void drop(struct sl_queues *queues, struct sl_queue *queue)
{
	if (queue->tenant == SL_TENANT_NONE || queue->waiting_bytes || queue->first)
		return;
	*queue_of(queues, queue->tenant) = 0;
	queue->tenant = SL_TENANT_NONE;
	queues->free[queues->free_count++] = (uint16_t)(queue - queues->queues);
}

bool sl_queues_reserve(struct sl_queues *queues, struct sl_request *request, uint64_t bytes,
		       uint64_t share_bytes)
{
	struct sl_queue *queue = request->queue ? &queues->queues[request->queue - 1]
						: make(queues, request->tenant);
	const uint64_t others = queue->waiting_bytes - request->waiting_bytes;

	if (others && others + bytes > share_bytes && queue->tenant != SL_TENANT_NONE)
		return false;
	queue->waiting_bytes = others + bytes;
	request->waiting_bytes = bytes;
	request->queue = (uint16_t)(queue - queues->queues + 1);
	return true;
}

void sl_queues_release(struct sl_queues *queues, struct sl_request *request)
{
	if (!request->queue)
		return;

	struct sl_queue *queue = &queues->queues[request->queue - 1];

	queue->waiting_bytes -= request->waiting_bytes;
	request->waiting_bytes = 0;
	request->queue = 0;
	drop(queues, queue);
}

bool sl_queues_hold(struct sl_queues *queues, struct sl_request *request, uint64_t bytes,
		    uint64_t share_bytes, uint64_t *leaves_ns)
{
	struct sl_queue *queue;

	if (!sl_queues_reserve(queues, request, SL_MAX(bytes, 1), share_bytes))
		return false;
	queue = &queues->queues[request->queue - 1];
	if (queue->tenant == SL_TENANT_NONE)
		return true; // of many tenants
	queue->leaves_ns = SL_MAX(queue->leaves_ns + 1, *leaves_ns);
	*leaves_ns = queue->leaves_ns;
	return true;
}

uint64_t sl_queues_held_until(const struct sl_queues *queues, sl_tenant_id tenant)
{
	const struct sl_queue *queue = find(queues, tenant);

	return queue->tenant == tenant ? queue->leaves_ns : 0;
}

void sl_queues_push(struct sl_queues *queues, struct sl_request *request, uint32_t weight)
{
	struct sl_queue *queue = request->queue ? &queues->queues[request->queue - 1]
						: make(queues, request->tenant);

	request->queue = (uint16_t)(queue - queues->queues + 1);
	request->next = NULL;
	queue->weight = queue->tenant == SL_TENANT_NONE ? 1 : weight;
	if (!queue->first) {
		queue->next = NULL;
		*queues->tail = queue;
		queues->tail = &queue->next;
		queues->ready_queues++;
	}
	*queue->last = request;
	queue->last = &request->next;
}

// The first of the round becomes its last.
static void rotate(struct sl_queues *queues)
{
	struct sl_queue *queue = queues->round;

	if (!queue->next)
		return;
	queues->round = queue->next;
	queue->next = NULL;
	*queues->tail = queue;
	queues->tail = &queue->next;
}

struct sl_request *sl_queues_pop(struct sl_queues *queues)
{
	struct sl_queue *queue = queues->round;
	struct sl_request *request;

	if (!queue)
		return NULL;
	if (!queue->next)
		queue->deficit = 0; // alone it owes nobody
	// A round's credit for each that has nothing left.
	while (queue->next && queue->deficit <= 0) {
		queue->deficit += (int64_t)(SL_QUEUE_QUANTUM * queue->weight);
		if (queue->deficit > 0)
			break;
		rotate(queues);
		queue = queues->round;
	}
	request = queue->first;
	queue->first = request->next;
	queue->deficit -= (int64_t)(request->received.size + SL_QUEUE_REQUEST_BYTES);
	if (!queue->first) {
		queue->last = &queue->first;
		queues->round = queue->next;
		if (!queues->round)
			queues->tail = &queues->round;
		queues->ready_queues--;
		// What it saved up is lost; what it owes stands while anything of it is read.
		queue->deficit = SL_MIN(queue->deficit, 0);
	} else if (queue->deficit <= 0) {
		rotate(queues);
	}
	sl_queues_release(queues, request);
	return request;
}

void sl_queues_charge(struct sl_queues *queues, sl_tenant_id tenant, uint64_t bytes)
{
	struct sl_queue *queue = find(queues, tenant);

	if (queue->tenant != tenant)
		return;

	const bool serves = queue == queues->round && queue->deficit > 0;

	queue->deficit -= (int64_t)bytes;
	if (serves && queue->deficit <= 0)
		rotate(queues);
}
