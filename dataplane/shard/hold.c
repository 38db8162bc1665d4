#include "dataplane/shard/internal.h"

// Requests that a leaky bucket has admitted for later: charged, decoded, with all their memory,
// which counts against the shard's budget and their tenant's share of it like a body that is read.
//
//   quota stage --delay--> held, a timer each --time--> leaving, in order --> the next stage
//
// Nothing sleeps: timers of the shard's wheel fire within one of its ticks.

// What is left of the answer's time has to suffice for the delivery.
#define ANSWER_NS (50 * SL_MS)

static void link_in(struct sl_request **at, struct sl_request *request)
{
	request->next = *at;
	request->held = at;
	if (request->next)
		request->next->held = &request->next;
	*at = request;
}

static void link_out(struct sl_request *request)
{
	*request->held = request->next;
	if (request->next)
		request->next->held = request->held;
	request->held = NULL;
	request->next = NULL;
}

// Timers of one tick fire in any order; as a rule the last armed first, so that its place is the
// first one.
static void leave_due(struct sl_timer *timer, uint64_t now_ns)
{
	struct sl_request *request = SL_CONTAINER_OF(timer, struct sl_request, leave);
	struct sl_shard *shard = request->shard;
	struct sl_request **at = &shard->leaving;

	(void)now_ns;
	link_out(request);
	while (*at && (*at)->leave.at_ns < timer->at_ns)
		at = &(*at)->next;
	link_in(at, request);
}

bool sl_shard_hold(struct sl_shard *shard, struct sl_request *request, uint64_t leaves_ns)
{
	const uint64_t bytes = sl_arena_bytes(&request->arena) + request->body_capacity +
			       request->inflated_capacity;

	assert(!request->held && !request->queue);
	if (leaves_ns + ANSWER_NS > request->answer_by_ns ||
	    !sl_queues_hold(&shard->queues, request, bytes, shard->tenant_share_bytes, &leaves_ns))
		return false;
	request->leave.fire = leave_due;
	sl_timer_set(&shard->timers, &request->leave, leaves_ns);
	link_in(&shard->held, request);
	return true;
}

void sl_shard_unhold(struct sl_shard *shard, struct sl_request *request)
{
	if (!request->held)
		return;
	sl_timer_cancel(&shard->timers, &request->leave);
	link_out(request);
	sl_queues_release(&shard->queues, request);
}

struct sl_request *sl_shard_next_leaving(struct sl_shard *shard)
{
	struct sl_request *request = shard->leaving;

	if (request)
		sl_shard_unhold(shard, request);
	return request;
}
