#include "tenants/fleet/fleet.h"

#include <stdlib.h>

#include "tenants/fleet/volumes.h"

// What one Redis may be asked to do by the whole fleet; beyond it, pauses grow.
#define UPDATES_PER_S 200000.0

#define SL_COUNTER_STRUCT_ struct sl_fleet_counters
SL_COUNTER_ROWS(fleet, SL_FLEET_COUNTERS)

static struct sl_fleet_terms terms_of(const struct sl_fleet *fleet,
				      const struct sl_fleet_link *link)
{
	const double instances = link->alive ? link->alive : SL_MAX(fleet->instances, 1);

	return (struct sl_fleet_terms){
		.now_ns = fleet->now_ns,
		.instances = instances,
		.rtt_s = link->rtt_s,
		.pause_s = instances * fleet->awake_count / fleet->link_count / UPDATES_PER_S,
		.without = fleet->without,
	};
}

static void call_ended(void *owner, struct sl_fleet_link *link, struct sl_fleet_call *call,
		       enum sl_fleet_end end, const struct sl_fleet_reply *reply, uint64_t now_ns)
{
	struct sl_fleet *fleet = owner;

	fleet->now_ns = SL_MAX(fleet->now_ns, now_ns);

	const struct sl_fleet_terms terms = terms_of(fleet, link);

	for (uint32_t i = 0; i < call->count; i++) {
		struct sl_fleet_account *account = call->accounts[i];
		struct sl_fleet_answer answer;

		if (end == SL_FLEET_UNHEARD) {
			sl_fleet_account_undo(account);
		} else if (end == SL_FLEET_LOST) {
			sl_fleet_account_lose(account);
			sl_fleet_account_cut(account, &terms);
		} else if (sl_fleet_parse_answer(reply, i, call->wants[i], &answer)) {
			sl_count(&fleet->counters.damaged[0], 1);
			sl_fleet_account_lose(account);
			sl_fleet_account_cut(account, &terms);
		} else {
			sl_fleet_account_answer(account, &terms, &answer);
		}
	}
	if (end == SL_FLEET_LOST)
		sl_count(&fleet->counters.lost[0], 1);
}

static void volume_ended(void *owner, struct sl_fleet_link *link, struct sl_bytes reply,
			 uint64_t now_ns)
{
	sl_fleet_volumes_ended(owner, link, reply, now_ns);
}

struct sl_fleet *sl_fleet_create(const struct sl_fleet_options *options)
{
	struct sl_fleet *fleet = calloc(1, sizeof(*fleet));

	assert(options->link_count >= 1 && options->link_count <= SL_FLEET_LINKS_MAX);
	if (!fleet)
		return NULL;
	fleet->without = options->without;
	fleet->instances = options->instances;
	fleet->links = calloc(options->link_count, sizeof(*fleet->links));
	fleet->volumes = calloc(options->link_count, sizeof(*fleet->volumes));
	fleet->asks = calloc(SL_FLEET_CALL_MAX, sizeof(*fleet->asks));
	fleet->fields = calloc(SL_FLEET_CALL_MAX, sizeof(*fleet->fields));
	fleet->names = calloc(SL_FLEET_CALL_MAX, SL_FLEET_FIELD_MAX);
	if (!fleet->links || !fleet->volumes || !fleet->asks || !fleet->fields || !fleet->names)
		goto fail;
	for (; fleet->link_count < options->link_count; fleet->link_count++) {
		struct sl_fleet_link *link = &fleet->links[fleet->link_count];

		if (sl_fleet_link_init(link, &options->links[fleet->link_count],
				       options->seed + fleet->link_count))
			goto fail;
		link->ended = call_ended;
		link->volume_ended = volume_ended;
		link->owner = fleet;
	}
	return fleet;
fail:
	sl_fleet_destroy(fleet);
	return NULL;
}

void sl_fleet_destroy(struct sl_fleet *fleet)
{
	if (!fleet)
		return;
	for (uint32_t i = 0; i < fleet->link_count; i++)
		sl_fleet_link_fini(&fleet->links[i]);
	for (uint32_t i = 0; i < fleet->awake_count; i++)
		free(fleet->awake[i]);
	free(fleet->awake);
	free(fleet->links);
	free(fleet->volumes);
	free(fleet->asks);
	free(fleet->fields);
	free(fleet->names);
	free(fleet);
}

// Returns false when memory is short or its tenant is newer than the snapshot: the pool waits for
// the next tick.
static bool wake(struct sl_fleet *fleet, const struct sl_tenants *tenants,
		 struct sl_quota_pool *pool)
{
	struct sl_fleet_tenant *tenant;

	assert(pool->leases);
	if (pool->tenant >= tenants->entry_count)
		return false;
	if (fleet->awake_count == fleet->awake_max) {
		const uint32_t more = fleet->awake_max ? 2 * fleet->awake_max : 64;
		struct sl_fleet_tenant **awake = realloc(fleet->awake, more * sizeof(*awake));

		if (!awake)
			return false;
		fleet->awake = awake;
		fleet->awake_max = more;
	}
	tenant = calloc(1, sizeof(*tenant));
	if (!tenant)
		return false;
	tenant->pool = pool;
	// As long as the registry lives, whichever snapshot says it.
	tenant->name = sl_tenants_entry_name(&tenants->entries[pool->tenant]);
	tenant->home = sl_fleet_home(tenant->name, fleet->link_count);
	fleet->awake[fleet->awake_count++] = tenant;
	return true;
}

static void wake_all(struct sl_fleet *fleet, const struct sl_tenants *tenants)
{
	struct sl_quota_woken *woken = &tenants->registry->authority.woken;
	struct sl_quota_pool *pool = __atomic_exchange_n(&woken->first, NULL, __ATOMIC_ACQUIRE);

	while (pool) {
		struct sl_quota_pool *next = pool->next;

		if (!wake(fleet, tenants, pool)) {
			__atomic_store_n(&pool->awake, 0, __ATOMIC_SEQ_CST);
			sl_quota_pool_wake(pool, woken);
		}
		pool = next;
	}
}

// Everything is settled and nobody spends. Returns whether it is gone.
static bool sleep_if_quiet(struct sl_fleet_tenant *tenant)
{
	uint32_t asleep = 0;

	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
		if (tenant->known & 1u << i &&
		    (tenant->accounts[i].asking || !tenant->accounts[i].asleep))
			return false;
	__atomic_store_n(&tenant->pool->awake, 0, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
		if (tenant->known & 1u << i &&
		    __atomic_load_n(&tenant->pool->tokens[i], __ATOMIC_SEQ_CST) ==
			    tenant->accounts[i].base)
			asleep |= 1u << i;
	if (asleep == tenant->known)
		return true;
	// Drawn from since. If its shard has put it on the list of the woken, it comes back.
	asleep = 0;
	return !__atomic_compare_exchange_n(&tenant->pool->awake, &asleep, 1, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static void make_call(struct sl_fleet *fleet, struct sl_fleet_link *link,
		      struct sl_fleet_call *call)
{
	sl_count(&fleet->counters.calls[0], 1);
	sl_count(&fleet->counters.updates[0], call->count);
	sl_fleet_link_call(link, call, fleet->asks, fleet->fields, fleet->now_ns);
}

// One tenant at a link's turn; its due dimensions join the call. Returns the call, or NULL when the
// link takes no more.
static struct sl_fleet_call *turn(struct sl_fleet *fleet, struct sl_fleet_tenant *tenant,
				  const struct sl_limits *limits, struct sl_fleet_call *call,
				  const struct sl_fleet_terms *terms)
{
	struct sl_fleet_link *link = &fleet->links[tenant->home];

	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++) {
		struct sl_fleet_account *account = &tenant->accounts[i];
		const uint32_t bit = 1u << i;

		if (!sl_limit_is_set(&limits->dimensions[i])) {
			if (tenant->known & bit && !account->asking)
				tenant->known &= ~bit;
			continue;
		}
		if (!(tenant->known & bit))
			sl_fleet_account_init(account, tenant->pool, i, &limits->dimensions[i],
					      terms);
		tenant->known |= bit;
		account->limit = limits->dimensions[i];
		account->sliding = limits->algorithm == SL_ALGORITHM_SLIDING_WINDOW;
		if (link->state < SL_FLEET_LINK_GREETING)
			sl_fleet_account_cut(account, terms);
		if (!sl_fleet_account_tick(account, terms) || !call)
			continue;

		const uint32_t at = call->count++;
		uint8_t *name = fleet->names + (size_t)at * SL_FLEET_FIELD_MAX;

		fleet->fields[at] = sl_bytes(name, sl_fleet_field(name, tenant->name, i));
		call->accounts[at] = account;
		sl_fleet_account_ask(account, terms, &fleet->asks[at]);
		if (call->count == SL_FLEET_CALL_MAX) {
			make_call(fleet, link, call);
			call = sl_fleet_link_begin(link);
		}
	}
	return call;
}

static void count(struct sl_fleet *fleet)
{
	uint64_t mended = 0, failures = 0, down = 0, alive = 0;

	for (uint32_t i = 0; i < fleet->link_count; i++) {
		const struct sl_fleet_link *link = &fleet->links[i];

		mended += link->mended;
		failures += link->failures;
		if (!link->answered) {
			down++;
			if (fleet->counted_ns)
				fleet->outage_ns += fleet->now_ns - fleet->counted_ns;
		}
		alive = SL_MAX(alive, link->alive);
	}
	fleet->counted_ns = fleet->now_ns;
	sl_gauge(&fleet->counters.outage[0], fleet->outage_ns / SL_S);
	sl_gauge(&fleet->counters.mended[0], mended);
	sl_gauge(&fleet->counters.failures[0], failures);
	sl_gauge(&fleet->counters.down[0], down);
	sl_gauge(&fleet->counters.instances[0], alive);
	sl_gauge(&fleet->counters.awake[0], fleet->awake_count);
}

void sl_fleet_tick(struct sl_fleet *fleet, const struct sl_tenants *tenants, uint64_t now_ns)
{
	assert(tenants->registry->fleet);
	fleet->now_ns = SL_MAX(fleet->now_ns, now_ns);
	sl_tenants_adopt(tenants);
	wake_all(fleet, tenants);
	for (uint32_t k = 0; k < fleet->link_count; k++) {
		struct sl_fleet_link *link = &fleet->links[k];
		const struct sl_fleet_terms terms = terms_of(fleet, link);
		struct sl_fleet_call *call = sl_fleet_link_begin(link);

		// Whoever did not fit into a tick's calls is due at the next, where another begins.
		for (uint32_t i = 0; i < fleet->awake_count; i++) {
			struct sl_fleet_tenant *tenant =
				fleet->awake[(fleet->first + i) % fleet->awake_count];

			if (tenant->home == k)
				call = turn(fleet, tenant,
					    sl_tenants_limits_of(tenants, tenant->pool->tenant),
					    call, &terms);
		}
		// Also to say that this instance lives.
		if (call && (call->count || fleet->now_ns >= link->beat_ns))
			make_call(fleet, link, call);
	}
	if (fleet->awake_count)
		fleet->first = (fleet->first + SL_FLEET_CALL_MAX) % fleet->awake_count;
	for (uint32_t i = 0; i < fleet->awake_count;) {
		struct sl_fleet_tenant *tenant = fleet->awake[i];

		if (sleep_if_quiet(tenant)) {
			fleet->awake[i] = fleet->awake[--fleet->awake_count];
			free(tenant);
		} else {
			i++;
		}
	}
	count(fleet);
}
