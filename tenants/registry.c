#include "tenants/registry.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/hash.h"
#include "tenants/algorithm.h"
#include "tenants/created.h"
#include "tenants/ledger/kinds.h"
#include "tenants/quota_lease.h"
#include "tenants/source.h"

#define LEASES_BYTES (SL_REGISTRY_BLOCK * SL_DIMENSION_RATES * sizeof(struct sl_quota_lease))

bool sl_tenant_name_reserved(struct sl_bytes name)
{
	return sl_bytes_equal(name, SL_LITERAL(SL_LEDGER_REST)) ||
	       sl_bytes_equal(name, SL_LITERAL(SL_LEDGER_NAMELESS));
}

bool sl_tenant_name_valid(struct sl_bytes name)
{
	if (name.size == 0 || name.size > SL_TENANT_NAME_MAX || sl_tenant_name_reserved(name))
		return false;
	for (size_t i = 0; i < name.size; i++) {
		const uint8_t c = name.data[i];
		const bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';

		if (!letter && !(c >= '0' && c <= '9') && !(c && strchr("!-_.*'()", c)))
			return false;
	}
	return !sl_bytes_equal(name, SL_LITERAL(".")) && !sl_bytes_equal(name, SL_LITERAL(".."));
}

struct sl_registry_class {
	struct sl_registry_class *next;
	char name[SL_TENANT_NAME_MAX + 1];
};

struct sl_registry *sl_registry_create(void)
{
	struct sl_registry *registry;

	// Whose size need not be a multiple of a line, as aligned_alloc() would have it.
	if (posix_memalign((void **)&registry, SL_CACHE_LINE, sizeof(*registry)) != 0)
		return NULL;
	memset(registry, 0, sizeof(*registry));
	registry->references = 1;
	sl_grace_init(&registry->grace);
	return registry;
}

void sl_registry_get(struct sl_registry *registry)
{
	registry->references++;
}

void sl_registry_put(struct sl_registry *registry)
{
	if (!registry || --registry->references)
		return;
	for (struct sl_registry_class *class = registry->classes, *next; class; class = next) {
		next = class->next;
		free(class);
	}
	sl_volumes_fini(&registry->volumes);
	for (uint32_t i = 0; i < registry->count; i++) {
		free((void *)registry->numbers[i].name.data);
		free(sl_registry_pool(registry, i)->window);
		free(sl_registry_pool(registry, i)->trimmed);
	}
	for (uint32_t i = 0; i * SL_REGISTRY_BLOCK < registry->count; i++) {
		if (registry->pools[i]->leases)
			munmap(registry->pools[i]->leases, LEASES_BYTES);
		free(registry->pools[i]);
	}
	sl_source_text_put(registry->offered);
	free(registry->numbers);
	free(registry->index);
	free(registry);
}

static uint32_t *find(const struct sl_registry *registry, struct sl_bytes name)
{
	uint32_t at = (uint32_t)sl_hash(name) & registry->index_mask;

	while (registry->index[at] &&
	       !sl_bytes_equal(registry->numbers[registry->index[at] - 1].name, name))
		at = (at + 1) & registry->index_mask;
	return &registry->index[at];
}

// Open addressing without marks for what is gone: those behind it move up.
static void forget(struct sl_registry *registry, struct sl_bytes name)
{
	uint32_t hole = (uint32_t)(find(registry, name) - registry->index);

	assert(registry->index[hole]);
	for (uint32_t at = hole;;) {
		at = (at + 1) & registry->index_mask;
		if (!registry->index[at])
			break;

		const uint32_t home = (uint32_t)sl_hash(
					      registry->numbers[registry->index[at] - 1].name) &
				      registry->index_mask;

		// Whether its home lies behind the hole: then it is found without moving.
		if (((at - home) & registry->index_mask) < ((at - hole) & registry->index_mask))
			continue;
		registry->index[hole] = registry->index[at];
		hole = at;
	}
	registry->index[hole] = 0;
	registry->named--;
}

// Room for one more: the index at most half full, numbers in step with it.
static int grow(struct sl_registry *registry)
{
	if (registry->index && registry->count < (registry->index_mask + 1) / 2)
		return 0;

	const uint32_t size = registry->index ? (registry->index_mask + 1) * 2 : 1024;
	const uint32_t most = size / 2;
	uint32_t *index = calloc(size, sizeof(*index));
	struct sl_registry_number *numbers = realloc(registry->numbers, most * sizeof(*numbers));

	if (numbers)
		registry->numbers = numbers;
	if (!index || !numbers) {
		free(index);
		return -ENOMEM;
	}
	free(registry->index);
	registry->index = index;
	registry->index_mask = size - 1;
	for (uint32_t i = 0; i < registry->count; i++)
		if (registry->numbers[i].name.size)
			*find(registry, registry->numbers[i].name) = i + 1;
	return 0;
}

// The leases of a block of pools, one block too, whose pages come when tenants are active: small
// ones, since a huge one would come whole.
static int make_leases(struct sl_quota_pool *pools)
{
	struct sl_quota_lease *leases = mmap(NULL, LEASES_BYTES, PROT_READ | PROT_WRITE,
					     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (leases == MAP_FAILED)
		return -ENOMEM;
	madvise(leases, LEASES_BYTES, MADV_NOHUGEPAGE);
	for (uint32_t i = 0; i < SL_REGISTRY_BLOCK; i++)
		pools[i].leases = &leases[i * SL_DIMENSION_RATES];
	return 0;
}

static int make_pool(struct sl_registry *registry, uint32_t tenant)
{
	struct sl_quota_pool **block = &registry->pools[tenant / SL_REGISTRY_BLOCK];

	if (tenant % SL_REGISTRY_BLOCK == 0) {
		*block = aligned_alloc(SL_CACHE_LINE, SL_REGISTRY_BLOCK * sizeof(**block));
		if (!*block)
			return -ENOMEM;
		memset(*block, 0, SL_REGISTRY_BLOCK * sizeof(**block));
		if (registry->fleet && make_leases(*block)) {
			free(*block);
			*block = NULL;
			return -ENOMEM;
		}
	}
	(*block)[tenant % SL_REGISTRY_BLOCK].tenant = tenant;
	return 0;
}

static void push(struct sl_registry *registry, uint32_t *list, uint32_t tenant)
{
	registry->numbers[tenant].next = *list;
	*list = tenant + 1;
}

static uint32_t pop(struct sl_registry *registry, uint32_t *list)
{
	const uint32_t tenant = *list - 1;

	*list = registry->numbers[tenant].next;
	return tenant;
}

// A number that is free, or a new one.
static int take_number(struct sl_registry *registry, sl_tenant_id *tenant)
{
	if (registry->free) {
		*tenant = pop(registry, &registry->free);
	} else {
		if (registry->count == SL_TENANTS_MAX)
			return -ENOSPC;
		if (make_pool(registry, registry->count))
			return -ENOMEM;
		*tenant = registry->count++;
	}
	registry->numbers[*tenant] = (struct sl_registry_number){0};
	return 0;
}

int sl_registry_add_nameless(struct sl_registry *registry, sl_tenant_id *tenant)
{
	return grow(registry) ? -ENOMEM : take_number(registry, tenant);
}

void sl_registry_remove_nameless(struct sl_registry *registry, sl_tenant_id tenant)
{
	sl_registry_reset_pool(sl_registry_pool(registry, tenant));
	push(registry, &registry->free, tenant);
}

int sl_registry_add(struct sl_registry *registry, struct sl_bytes name, sl_tenant_id *tenant)
{
	uint32_t *slot;
	uint8_t *kept;
	int error;

	assert(sl_tenant_name_valid(name));
	if (grow(registry))
		return -ENOMEM;
	slot = find(registry, name);
	if (*slot) {
		*tenant = *slot - 1;
		return 0;
	}
	kept = malloc(name.size + 1);
	if (!kept)
		return -ENOMEM;
	memcpy(kept, name.data, name.size);
	kept[name.size] = 0;
	error = take_number(registry, tenant);
	if (error) {
		free(kept);
		return error;
	}
	registry->numbers[*tenant].name = sl_bytes(kept, name.size);
	registry->named++;
	*slot = *tenant + 1;
	return 0;
}

void sl_registry_use(struct sl_registry *registry, sl_tenant_id tenant)
{
	struct sl_registry_number *number = &registry->numbers[tenant];

	assert(tenant < registry->count && number->snapshots < UINT16_MAX);
	number->snapshots++;
	number->returned = number->listed;
}

void sl_registry_leave(struct sl_registry *registry, sl_tenant_id tenant)
{
	struct sl_registry_number *number = &registry->numbers[tenant];

	assert(tenant < registry->count && number->snapshots > 0);
	if (--number->snapshots || number->listed)
		return;
	number->listed = true;
	number->returned = false;
	push(registry, &registry->left, tenant);
}

bool sl_registry_rests(const struct sl_registry *registry, const struct sl_quota_pool *pool)
{
	return sl_quota_pool_rests(pool) &&
	       !(registry->keeps && registry->keeps(registry->keeper, pool->tenant));
}

// What the control thread sets up stays: it may be at it.
void sl_registry_reset_pool(struct sl_quota_pool *pool)
{
	for (unsigned i = 0; i < SL_DIMENSIONS; i++)
		__atomic_store_n(&pool->tokens[i], 0, __ATOMIC_RELAXED);
	memset(pool->fractions, 0, sizeof(pool->fractions));
	memset(pool->in_flight_limits, 0, sizeof(pool->in_flight_limits));
	pool->filled_once = 0;
	pool->filled_ns = 0;
	__atomic_store_n(&pool->refused_requests, 0, __ATOMIC_RELAXED);
	if (pool->volume)
		sl_volume_reset(pool->volume);
	if (pool->window)
		memset(pool->window, 0, sizeof(*pool->window));
	if (pool->trimmed)
		*pool->trimmed = (struct sl_trim_counts){0};
	for (unsigned i = 0; pool->leases && i < SL_DIMENSION_RATES; i++) {
		static const struct sl_quota_lease fresh;

		if (memcmp(&pool->leases[i], &fresh, sizeof(fresh)) != 0) // no page for nothing
			pool->leases[i] = fresh;
	}
}

// What waited long enough: free, back in use, or not at rest yet.
static void settle(struct sl_registry *registry, uint32_t tenant)
{
	struct sl_registry_number *number = &registry->numbers[tenant];
	struct sl_quota_pool *pool = sl_registry_pool(registry, tenant);

	if (number->snapshots) {
		number->listed = false;
	} else if (number->returned) {
		number->returned = false; // requests came with it meanwhile
		push(registry, &registry->left, tenant);
	} else if (!sl_registry_rests(registry, pool) ||
		   (pool->volume && sl_volume_is_used(pool->volume, sl_clock_wall_ns() / SL_S))) {
		push(registry, &registry->waiting, tenant);
	} else {
		forget(registry, number->name);
		free((void *)number->name.data);
		*number = (struct sl_registry_number){0};
		sl_registry_reset_pool(pool);
		push(registry, &registry->free, tenant);
	}
}

void sl_registry_collect(struct sl_registry *registry)
{
	uint32_t list = registry->waiting;

	if (list && !sl_grace_over(&registry->grace, registry->waiting_epoch))
		return;
	registry->waiting = 0;
	while (list)
		settle(registry, pop(registry, &list));
	// Those that are not at rest wait once more, with those that left.
	if (!registry->left && !registry->waiting)
		return;
	while (registry->left)
		push(registry, &registry->waiting, pop(registry, &registry->left));
	registry->waiting_epoch = sl_grace_ask(&registry->grace);
}

struct sl_quota_pool *sl_registry_pool(const struct sl_registry *registry, sl_tenant_id tenant)
{
	assert(registry->pools[tenant / SL_REGISTRY_BLOCK]);
	return &registry->pools[tenant / SL_REGISTRY_BLOCK][tenant % SL_REGISTRY_BLOCK];
}

// Few names, looked up when a configuration is loaded.
const char *sl_registry_class_name(struct sl_registry *registry, struct sl_bytes name)
{
	struct sl_registry_class *class = registry->classes;

	assert(sl_tenant_name_valid(name));
	while (class && !sl_bytes_equal(sl_bytes_of(class->name), name))
		class = class->next;
	if (class)
		return class->name;
	class = calloc(1, sizeof(*class));
	if (!class)
		return NULL;
	memcpy(class->name, name.data, name.size);
	class->next = registry->classes;
	registry->classes = class;
	return class->name;
}
