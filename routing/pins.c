#include <stdlib.h>

#include "routing/internal.h"

// Memory that deliveries hold until they have ended, by destination and by tenant in it. A
// request's memory is one: it counts once for each destination, however many of its parts, tenants
// and routes go there, and once for each tenant.
struct sl_pin {
	struct sl_pin *next; // of the request
	struct sl_egress *egress;
	sl_tenant_id tenant;
	bool best_effort;
	uint32_t flows;
};

// What goes to a spool at once may take it so far over the caps: it is there for moments.
#define SPOOL_FACTOR 1.5

static uint64_t *tenant_pinned(const struct sl_egress *egress, sl_tenant_id tenant)
{
	return SL_BY_TENANT(&egress->tenant_pinned, uint64_t, tenant);
}

// What the request counts for already, without `but`.
struct held {
	bool here, by_tenant, best_effort;
};

static struct held held_of(const struct sl_flow *flow, const struct sl_pin *but)
{
	struct held held = {0};

	for (const struct sl_pin *pin = flow->delivery.part->request->pins; pin; pin = pin->next) {
		if (pin == but || !pin->flows || pin->egress != flow->egress)
			continue;
		held.here = true;
		held.by_tenant |= pin->tenant == flow->tenant;
		held.best_effort |= pin->best_effort;
	}
	return held;
}

static struct sl_pin *pin_of(const struct sl_flow *flow)
{
	struct sl_request *request = flow->delivery.part->request;
	struct sl_pin *pin = request->pins;

	while (pin && (pin->egress != flow->egress || pin->tenant != flow->tenant ||
		       pin->best_effort != flow->best_effort))
		pin = pin->next;
	if (pin)
		return pin;
	pin = sl_arena_zalloc(&request->arena, sizeof(*pin));
	if (!pin)
		return NULL;
	pin->egress = flow->egress;
	pin->tenant = flow->tenant;
	pin->best_effort = flow->best_effort;
	pin->next = request->pins;
	request->pins = pin;
	return pin;
}

// Whether `more` fits; what is alone always does, or a request above the cap would never pass.
static bool fits(uint64_t pinned, uint64_t more, uint64_t max)
{
	return !pinned || pinned + more <= max;
}

// Under the caps of the destination and of the tenant there, or so many times them.
static bool has_room(const struct sl_egress *egress, const struct held *held, uint64_t more,
		     uint64_t tenant, double times)
{
	return (held->here || fits(egress->pinned_bytes, more,
				   (uint64_t)(times * (double)egress->pinned_bytes_max))) &&
	       (held->by_tenant ||
		fits(tenant, more, (uint64_t)(times * (double)egress->tenant_bytes_max)));
}

bool sl_egress_pin(struct sl_flow *flow)
{
	struct sl_egress *egress = flow->egress;
	struct sl_routing_shard *self = egress->shard;
	const uint64_t more = flow->delivery.part->request->pinned_bytes;
	uint64_t *tenant = tenant_pinned(egress, flow->tenant);
	struct sl_pin *pin = egress->side ? pin_of(flow) : NULL;

	if (!pin)
		return false;
	if (!pin->flows) {
		const struct held held = held_of(flow, pin);
		const bool best_effort = flow->best_effort && !held.best_effort;

		if (best_effort &&
		    !fits(self->best_effort_pinned, more, self->best_effort_pinned_max))
			return false;
		flow->to_disk = !has_room(egress, &held, more, *tenant, 1);
		if (flow->to_disk &&
		    (!egress->spill || !has_room(egress, &held, more, *tenant, SPOOL_FACTOR)))
			return false;
		self->best_effort_pinned += best_effort ? more : 0;
		*tenant += held.by_tenant ? 0 : more;
		egress->pinned_bytes += held.here ? 0 : more;
		sl_gauge(&egress->meter->counters.pinned_bytes[0], egress->pinned_bytes);
	}
	pin->flows++;
	flow->pin = pin;
	return true;
}

void sl_egress_unpin(struct sl_flow *flow)
{
	struct sl_egress *egress = flow->egress;
	const uint64_t bytes = flow->delivery.part->request->pinned_bytes;
	struct sl_pin *pin = flow->pin;
	struct held held;

	if (!pin)
		return;
	flow->pin = NULL;
	assert(pin->flows > 0);
	if (--pin->flows)
		return;
	held = held_of(flow, pin);
	assert(held.here || egress->pinned_bytes >= bytes);
	if (flow->best_effort && !held.best_effort)
		egress->shard->best_effort_pinned -= bytes;
	*tenant_pinned(egress, flow->tenant) -= held.by_tenant ? 0 : bytes;
	egress->pinned_bytes -= held.here ? 0 : bytes;
	sl_gauge(&egress->meter->counters.pinned_bytes[0], egress->pinned_bytes);
}
