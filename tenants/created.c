#include "tenants/created.h"

#include <stdlib.h>

#include "dataplane/base/hash.h"
#include "tenants/table.h"

#define LOOKED_AT 256  // seats that a tick looks at, to find idle ones
#define USED_NS   SL_S // how exactly their last use is known

enum { ASK_NONE, ASK_WRITING, ASK_READY };

static void add_number(struct sl_created *created, sl_tenant_id tenant)
{
	created->numbers[tenant / 64] |= UINT64_C(1) << (tenant % 64);
}

struct sl_created *sl_created_create(struct sl_registry *registry, uint32_t count)
{
	struct sl_created *created = calloc(1, sizeof(*created));
	uint32_t size = 8;

	assert(count > 0 && count <= SL_CREATED_MAX);
	if (!created)
		return NULL;
	created->references = 1;
	created->newcomers = SL_TENANT_NONE;
	while (size < count * 2)
		size *= 2;
	created->index_mask = size - 1;
	created->index = calloc(size, sizeof(*created->index));
	created->seats = calloc(count, sizeof(*created->seats));
	if (!created->index || !created->seats ||
	    sl_registry_add_nameless(registry, &created->newcomers))
		goto fail;
	for (; created->seat_count < count; created->seat_count++) {
		struct sl_created_seat *seat = &created->seats[created->seat_count];

		if (sl_registry_add_nameless(registry, &seat->tenant))
			goto fail;
		seat->next = created->free;
		created->free = created->seat_count + 1;
	}
	created->free_count = count;
	created->number_count = registry->count;
	created->numbers = calloc(registry->count / 64 + 1, sizeof(*created->numbers));
	if (!created->numbers)
		goto fail;
	add_number(created, created->newcomers);
	for (uint32_t i = 0; i < count; i++)
		add_number(created, created->seats[i].tenant);
	return created;
fail:
	sl_created_put(created, registry);
	return NULL;
}

struct sl_created *sl_created_get(struct sl_created *created)
{
	created->references++;
	return created;
}

void sl_created_put(struct sl_created *created, struct sl_registry *registry)
{
	if (!created || --created->references)
		return;
	for (uint32_t i = 0; i < created->seat_count; i++)
		sl_registry_remove_nameless(registry, created->seats[i].tenant);
	if (created->newcomers != SL_TENANT_NONE)
		sl_registry_remove_nameless(registry, created->newcomers);
	free(created->index);
	free(created->seats);
	free(created->numbers);
	free(created);
}

// --- from any thread -----------------------------------------------------------------------------

struct sl_bytes sl_created_name(const struct sl_created_seat *seat)
{
	return sl_bytes(seat->name, __atomic_load_n(&seat->name_bytes, __ATOMIC_ACQUIRE));
}

// What moves in the index meanwhile may be missed: it is asked for once more, to no effect.
static struct sl_created_seat *find(const struct sl_created *created, struct sl_bytes name,
				    uint64_t hash)
{
	uint32_t at = (uint32_t)hash & created->index_mask;

	for (;; at = (at + 1) & created->index_mask) {
		const uint32_t slot = __atomic_load_n(&created->index[at], __ATOMIC_ACQUIRE);

		if (!slot)
			return NULL;
		if (sl_bytes_equal(sl_created_name(&created->seats[slot - 1]), name))
			return &created->seats[slot - 1];
	}
}

sl_tenant_id sl_created_find(const struct sl_created *created, struct sl_bytes name)
{
	const struct sl_created_seat *seat = name.size ? find(created, name, sl_hash(name)) : NULL;

	return seat ? seat->tenant : SL_TENANT_NONE;
}

bool sl_created_is(const struct sl_created *created, sl_tenant_id tenant)
{
	return tenant < created->number_count &&
	       (created->numbers[tenant / 64] >> (tenant % 64) & 1);
}

static const struct sl_created *created_of(const void *maker)
{
	const struct sl_registry *registry = maker;

	return __atomic_load_n(&registry->created, __ATOMIC_ACQUIRE);
}

const void *sl_tenants_maker(const struct sl_tenants *tenants)
{
	return tenants->registry;
}

const char *sl_tenants_made_class(const void *maker, sl_tenant_id tenant)
{
	const struct sl_created *created = created_of(maker);

	return created && sl_created_is(created, tenant)
		       ? __atomic_load_n(&created->class_name, __ATOMIC_ACQUIRE)
		       : NULL;
}

bool sl_tenants_made_is_there(const void *maker, struct sl_bytes name)
{
	const struct sl_created *created = created_of(maker);

	return created && sl_created_find(created, name) != SL_TENANT_NONE;
}

uint32_t sl_tenants_made_max(const void *maker)
{
	const struct sl_created *created = created_of(maker);

	return created ? created->seat_count : 0;
}

// A name has one place to wait in; who finds it taken comes again with the next request.
static void ask(struct sl_created *created, struct sl_bytes name, uint64_t hash)
{
	struct sl_created_ask *to = &created->asks[hash % SL_CREATED_ASKS];
	uint32_t none = ASK_NONE;

	if (__atomic_load_n(&to->state, __ATOMIC_RELAXED) != ASK_NONE ||
	    !__atomic_compare_exchange_n(&to->state, &none, ASK_WRITING, false, __ATOMIC_ACQUIRE,
					 __ATOMIC_RELAXED))
		return;
	to->name_bytes = (uint8_t)name.size;
	memcpy(to->name, name.data, name.size);
	__atomic_store_n(&to->state, ASK_READY, __ATOMIC_RELEASE);
}

sl_tenant_id sl_created_name_to_tenant(struct sl_created *created, struct sl_bytes name,
				       sl_tenant_id overflow)
{
	const uint64_t hash = sl_hash(name);
	struct sl_created_seat *seat = find(created, name, hash);

	assert(name.size <= SL_TENANT_NAME_MAX);
	if (seat) {
		const uint64_t now_ns = __atomic_load_n(&created->tick_ns, __ATOMIC_RELAXED);

		if (now_ns > __atomic_load_n(&seat->used_ns, __ATOMIC_RELAXED) + USED_NS)
			__atomic_store_n(&seat->used_ns, now_ns, __ATOMIC_RELAXED);
		return seat->tenant;
	}
	if (!__atomic_load_n(&created->free_count, __ATOMIC_RELAXED))
		return overflow;
	ask(created, name, hash);
	return created->newcomers;
}

const struct sl_tenant_class *sl_tenants_template(const struct sl_tenants *tenants)
{
	uint16_t class_index = UINT16_MAX;

	if (tenants->creates)
		class_index = tenants->entries[tenants->created->newcomers].class_index;
	return class_index == UINT16_MAX ? NULL : &tenants->classes[class_index];
}

void sl_created_set_class(struct sl_created *created, const struct sl_tenants *tenants)
{
	const struct sl_tenant_class *class = sl_tenants_template(tenants);

	__atomic_store_n(&created->class_name, class ? class->name : "", __ATOMIC_RELEASE);
}

// --- the quota thread ----------------------------------------------------------------------------

static void push(struct sl_created *created, uint32_t *list, uint32_t number)
{
	created->seats[number].next = *list;
	*list = number + 1;
}

static uint32_t pop(struct sl_created *created, uint32_t *list)
{
	const uint32_t number = *list - 1;

	*list = created->seats[number].next;
	return number;
}

static void put(struct sl_created *created, uint32_t at, uint32_t slot)
{
	__atomic_store_n(&created->index[at], slot, __ATOMIC_RELEASE);
}

static void seat_name(struct sl_created *created, const struct sl_tenants *tenants,
		      struct sl_bytes name, uint64_t now_ns)
{
	const uint64_t hash = sl_hash(name);
	uint32_t at = (uint32_t)hash & created->index_mask, number;
	struct sl_created_seat *seat;
	sl_tenant_id known;

	if (!created->free || sl_tenants_find(tenants, name, &known) || find(created, name, hash))
		return;
	number = pop(created, &created->free);
	seat = &created->seats[number];
	if (seat->tenant >= tenants->entry_count || !tenants->entries[seat->tenant].limits) {
		push(created, &created->free, number); // the snapshot creates none
		return;
	}
	sl_authority_introduce(tenants->entries[seat->tenant].pool,
			       tenants->entries[seat->tenant].limits);
	memcpy(seat->name, name.data, name.size);
	seat->state = SL_CREATED_LIVE;
	__atomic_store_n(&seat->used_ns, now_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&seat->name_bytes, (uint8_t)name.size, __ATOMIC_RELEASE);
	while (created->index[at])
		at = (at + 1) & created->index_mask;
	put(created, at, number + 1);
	__atomic_fetch_sub(&created->free_count, 1, __ATOMIC_RELAXED);
	created->live++;
	created->made++;
}

// Those behind the hole move up, as nothing marks what is gone.
static void unindex(struct sl_created *created, uint32_t number)
{
	uint32_t hole = (uint32_t)sl_hash(sl_created_name(&created->seats[number])) &
			created->index_mask;

	while (created->index[hole] != number + 1)
		hole = (hole + 1) & created->index_mask;
	for (uint32_t at = hole;;) {
		at = (at + 1) & created->index_mask;
		if (!created->index[at])
			break;

		const struct sl_created_seat *seat = &created->seats[created->index[at] - 1];
		const uint32_t home = (uint32_t)sl_hash(sl_created_name(seat)) &
				      created->index_mask;

		if (((at - home) & created->index_mask) < ((at - hole) & created->index_mask))
			continue;
		put(created, hole, created->index[at]);
		hole = at;
	}
	put(created, hole, 0);
}

static void look_for_idle(struct sl_created *created, uint64_t idle_ns, uint64_t now_ns)
{
	const uint32_t count = SL_MIN(LOOKED_AT, created->seat_count);

	for (uint32_t i = 0; i < count; i++) {
		const uint32_t number = created->hand;
		struct sl_created_seat *seat = &created->seats[number];

		created->hand = (number + 1) % created->seat_count;
		if (seat->state != SL_CREATED_LIVE ||
		    now_ns < __atomic_load_n(&seat->used_ns, __ATOMIC_RELAXED) + idle_ns + USED_NS)
			continue;
		unindex(created, number);
		seat->state = SL_CREATED_LEAVING;
		push(created, &created->leaving, number);
		created->live--;
		created->expired++;
	}
}

// Seats that left are free when no request of theirs is left and their pool is at rest.
static void settle_leaving(struct sl_created *created, const struct sl_tenants *tenants)
{
	struct sl_grace *grace = &tenants->registry->grace;
	uint32_t list = created->waiting;

	if (list && !sl_grace_over(grace, created->waiting_epoch))
		return;
	created->waiting = 0;
	while (list) {
		const uint32_t number = pop(created, &list);
		struct sl_created_seat *seat = &created->seats[number];
		struct sl_quota_pool *pool = tenants->entries[seat->tenant].pool;

		if (!sl_registry_rests(tenants->registry, pool)) {
			push(created, &created->leaving, number);
			continue;
		}
		sl_registry_reset_pool(pool);
		if (tenants->cardinality && tenants->cardinality[seat->tenant])
			sl_cardinality_reset(tenants->cardinality[seat->tenant]);
		seat->state = SL_CREATED_FREE;
		push(created, &created->free, number);
		__atomic_fetch_add(&created->free_count, 1, __ATOMIC_RELAXED);
	}
	if (!created->leaving)
		return;
	// No name from here on: shards let go of what they keep of it.
	while (created->leaving) {
		const uint32_t number = pop(created, &created->leaving);

		__atomic_store_n(&created->seats[number].name_bytes, 0, __ATOMIC_RELEASE);
		push(created, &created->waiting, number);
	}
	created->waiting_epoch = sl_grace_ask(grace);
}

void sl_created_tick(struct sl_created *created, const struct sl_tenants *tenants, uint64_t now_ns)
{
	__atomic_store_n(&created->tick_ns, now_ns, __ATOMIC_RELAXED);
	if (tenants->creates)
		sl_created_set_class(created, tenants);
	for (uint32_t i = 0; i < SL_CREATED_ASKS; i++) {
		struct sl_created_ask *from = &created->asks[i];

		if (__atomic_load_n(&from->state, __ATOMIC_ACQUIRE) != ASK_READY)
			continue;
		if (tenants->creates)
			seat_name(created, tenants, sl_bytes(from->name, from->name_bytes), now_ns);
		__atomic_store_n(&from->state, ASK_NONE, __ATOMIC_RELEASE);
	}
	look_for_idle(created, tenants->created_idle_ns, now_ns);
	settle_leaving(created, tenants);
}

void sl_tenants_create(const struct sl_tenants *tenants, uint64_t now_ns,
		       struct sl_tenants_created *counts)
{
	struct sl_created *created = tenants->created;

	*counts = (struct sl_tenants_created){0};
	if (!created)
		return;
	__atomic_store_n(&tenants->registry->created, created, __ATOMIC_RELEASE);
	sl_created_tick(created, tenants, now_ns);
	*counts = (struct sl_tenants_created){created->live, created->made, created->expired};
}
