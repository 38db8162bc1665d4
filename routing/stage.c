#include <errno.h>

#include "routing/internal.h"

// The stage: plan all parts (routes, records, caps) before anything of a request is submitted, then
// submit those whose request has no refused part.

// A route's share of a part.
struct share {
	struct sl_part *part;
	const uint64_t *keep;
	uint32_t items;
	uint32_t *rejected; // what all its deliveries share; in the arena
	struct sl_flow ***last;
};

static struct sl_flow *make_flow(struct sl_routing_shard *self, const struct share *share,
				 const struct sl_route_target *target, struct sl_egress *egress)
{
	struct sl_flow *flow = sl_arena_zalloc(&share->part->request->arena, sizeof(*flow));

	if (!flow)
		return NULL;
	flow->delivery = (struct sl_delivery){
		.part = share->part,
		.destination = target->destination,
		.required = target->required,
		.items = share->items,
		.share_rejected = share->rejected,
	};
	flow->egress = egress;
	flow->failover = self->failover_by_index[target->destination];
	flow->began_ns = self->now_ns;
	flow->tenant = share->part->tenant;
	flow->best_effort = !target->required;
	flow->waits = target->required && self->routing->acknowledge != SL_ACKNOWLEDGE_QUEUED;
	flow->acknowledged = target->required && !flow->waits;
	flow->delivery.required = flow->waits;
	return flow;
}

// Of a failover group the one in use.
static struct sl_egress *egress_of(struct sl_routing_shard *self, uint32_t index)
{
	if (SL_UNLIKELY(!self->by_index))
		return NULL;
	if (SL_UNLIKELY(self->failover_by_index[index]))
		return sl_failover_current(self->failover_by_index[index]);
	return self->by_index[index];
}

static enum sl_reason plan_target(struct sl_routing_shard *self, const struct share *share,
				  const struct sl_route_target *target)
{
	struct sl_egress *egress = egress_of(self, target->destination);
	struct sl_flow *flow = egress ? make_flow(self, share, target, egress) : NULL;

	if (!flow)
		return SL_REASON_MEMORY_FULL;
	if (!sl_egress_pin(flow)) {
		sl_refusals_count(&egress->meter->refusals, SL_ANSWER_NONE, SL_REASON_EGRESS_FULL);
		if (target->required) {
			sl_count(&egress->meter->counters.refused_parts[0], 1);
			return SL_REASON_EGRESS_FULL;
		}
		flow->full = true;
	}
	**share->last = flow;
	*share->last = &flow->next;
	if (flow->full || sl_records_make(flow, share->keep, &flow->records) == 0)
		return SL_REASON_NONE;
	sl_refusals_count(&egress->meter->refusals, SL_ANSWER_NONE, SL_REASON_MEMORY_FULL);
	if (target->required)
		return SL_REASON_MEMORY_FULL;
	// Best effort does not refuse a request that the others can take.
	sl_egress_unpin(flow);
	flow->full = true;
	return SL_REASON_NONE;
}

static enum sl_reason plan_route(struct sl_routing_shard *self, struct share *share,
				 const struct sl_route *route)
{
	enum sl_reason reason = SL_REASON_NONE;

	share->rejected = sl_arena_zalloc(&share->part->request->arena, sizeof(uint32_t));
	if (!share->rejected)
		return SL_REASON_MEMORY_FULL;
	if (route->target_count)
		share->part->routed_items += share->items;
	for (uint32_t i = 0; i < route->target_count && reason == SL_REASON_NONE; i++)
		reason = plan_target(self, share, &route->targets[i]);
	return reason;
}

// The part's items of the resources from `from` on that take the same route; marks them done.
static int take_route(const struct sl_part *part, uint32_t *routes, uint32_t from,
		      struct share *share)
{
	struct sl_request *request = part->request;
	const struct sl_view *view = &request->view;
	const uint32_t route = routes[from];
	uint64_t *keep = sl_arena_zalloc(&request->arena,
					 SL_KEEP_WORDS(view->item_count) * sizeof(uint64_t));

	if (!keep)
		return -ENOMEM;
	share->items = 0;
	for (uint32_t i = from; i < view->envelope_count; i++) {
		const struct sl_envelope *envelope = &view->envelopes[i];

		if (routes[i] != route)
			continue;
		routes[i] = UINT32_MAX;
		for (uint32_t j = envelope->first_item;
		     j < envelope->first_item + envelope->item_count; j++) {
			if (!sl_keep_has(part->keep, j))
				continue;
			keep[j / 64] |= UINT64_C(1) << (j % 64);
			share->items++;
		}
	}
	share->keep = keep;
	return 0;
}

// Attributes decide: each resource finds its own route.
static enum sl_reason plan_by_resource(struct sl_routing_shard *self, struct share *share)
{
	const struct sl_routing *routing = self->routing;
	struct sl_part *part = share->part;
	const struct sl_view *view = &part->request->view;
	uint32_t *routes = sl_arena_alloc(&part->request->arena,
					  view->envelope_count * sizeof(uint32_t));
	uint32_t first = UINT32_MAX;
	bool several = false;

	if (!routes)
		return SL_REASON_MEMORY_FULL;
	for (uint32_t i = 0; i < view->envelope_count; i++) {
		routes[i] = UINT32_MAX;
		if (view->envelopes[i].kind != SL_ENVELOPE_RESOURCE ||
		    !view->envelopes[i].item_count)
			continue;
		routes[i] = sl_route_find_resource(routing, part, i);
		several |= first != UINT32_MAX && first != routes[i];
		first = routes[i];
	}
	if (first == UINT32_MAX)
		return SL_REASON_NONE;
	if (!several)
		return plan_route(self, share, &routing->routes[first]);
	for (uint32_t i = 0; i < view->envelope_count; i++) {
		enum sl_reason reason;

		if (routes[i] == UINT32_MAX)
			continue;

		const struct sl_route *route = &routing->routes[routes[i]];

		if (take_route(part, routes, i, share) < 0)
			return SL_REASON_MEMORY_FULL;
		reason = share->items ? plan_route(self, share, route) : SL_REASON_NONE;
		if (reason != SL_REASON_NONE)
			return reason;
	}
	return SL_REASON_NONE;
}

static enum sl_reason plan_part(struct sl_routing_shard *self, struct sl_part *part,
				struct sl_flow **flows)
{
	const struct sl_routing *routing = self->routing;
	struct sl_flow **last = flows;
	struct share share = {
		.part = part, .keep = part->keep, .items = part->kept_items, .last = &last};
	uint32_t index;

	*flows = NULL;
	part->routed_items = 0;
	if (!part->kept_items)
		return SL_REASON_NONE;
	index = sl_route_find(routing, part, 0);
	assert(index < routing->route_count); // the last rule takes everything
	if (routing->routes[index].attribute_count)
		return plan_by_resource(self, &share);
	return plan_route(self, &share, &routing->routes[index]);
}

static void submit_flows(struct sl_flow *flow)
{
	for (; flow; flow = flow->next) {
		struct sl_destination_counters *counters = &flow->egress->meter->counters;
		const struct sl_delivery *delivery = &flow->delivery;
		const enum sl_signal signal = delivery->part->request->signal;

		sl_count(&counters->taken[signal], delivery->items);
		if (flow->full) {
			sl_count(&counters->dropped[signal], delivery->items);
			sl_egress_note(flow->egress, flow, SL_END_DROPPED, delivery->items, 0, 0);
		} else if (flow->records) {
			sl_egress_submit(flow);
		} else {
			sl_egress_unpin(flow);
		}
	}
}

// What a request holds until its deliveries have ended.
static void weigh(struct sl_request *request)
{
	const struct sl_view *view = &request->view;

	if (request->pins)
		return; // by what it was pinned with it is unpinned
	request->pinned_bytes = request->body_capacity + request->inflated_capacity +
				view->item_count * sizeof(struct sl_item) +
				view->envelope_count * sizeof(struct sl_envelope);
	if (request->origin.protocol == SL_PROTOCOL_HTTP_JSON)
		request->pinned_bytes += view->body.size;
}

void sl_routing_stage(void *state, struct sl_batch *batch)
{
	struct sl_routing_shard *self = state;
	struct sl_flow *flows[SL_BATCH_MAX];
	struct sl_request *refused[SL_BATCH_MAX];
	struct sl_part *parts[SL_BATCH_MAX];
	const uint16_t offered = batch->count;
	uint16_t refused_count = 0, kept = 0;

	self->now_ns = batch->now_ns;
	sl_failover_choose_all(self);
	memcpy(parts, batch->parts, offered * sizeof(*parts));
	for (uint16_t i = 0; i < offered; i++) {
		enum sl_reason reason;

		flows[i] = NULL;
		if (refused_count && refused[refused_count - 1] == parts[i]->request) {
			batch->parts[kept++] = parts[i];
			continue;
		}
		weigh(parts[i]->request);
		reason = plan_part(self, parts[i], &flows[i]);
		if (reason == SL_REASON_NONE) {
			batch->parts[kept++] = parts[i];
			continue;
		}
		refused[refused_count++] = parts[i]->request;
		sl_batch_refuse(batch, parts[i], reason, 0);
	}
	batch->count = kept;

	for (uint16_t i = 0; i < offered; i++) {
		bool go = true;

		for (uint16_t j = 0; j < refused_count && go; j++)
			go = refused[j] != parts[i]->request;
		if (go)
			submit_flows(flows[i]);
		for (struct sl_flow *flow = go ? NULL : flows[i]; flow; flow = flow->next)
			sl_egress_unpin(flow);
	}
}
