#include "tenants/registry.h"

#include <errno.h>
#include <stdlib.h>

#include "dataplane/base/hash.h"
#include "tenants/quota_lease.h"

// Names are kept in large pieces: a malloc each would cost more than the name.
#define TEXT_BYTES (64 * 1024)
struct sl_registry_text {
	struct sl_registry_text *next;
	uint32_t used;
	uint8_t bytes[TEXT_BYTES];
};

bool sl_tenant_name_valid(struct sl_bytes name)
{
	if (name.size == 0 || name.size > SL_TENANT_NAME_MAX)
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
	struct sl_registry *registry = calloc(1, sizeof(*registry));

	if (registry)
		registry->references = 1;
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
	for (struct sl_registry_text *text = registry->texts, *next; text; text = next) {
		next = text->next;
		free(text);
	}
	for (struct sl_registry_class *class = registry->classes, *next; class; class = next) {
		next = class->next;
		free(class);
	}
	sl_volumes_fini(&registry->volumes);
	for (uint32_t i = 0; i < registry->count; i++)
		free(sl_registry_pool(registry, i)->window);
	for (uint32_t i = 0; i * SL_REGISTRY_BLOCK < registry->count; i++) {
		free(registry->pools[i]->leases);
		free(registry->pools[i]);
	}
	free(registry->pools);
	free(registry->names);
	free(registry->index);
	free(registry);
}

static uint32_t *find(const struct sl_registry *registry, struct sl_bytes name)
{
	uint32_t at = (uint32_t)sl_hash(name) & registry->index_mask;

	while (registry->index[at] &&
	       !sl_bytes_equal(registry->names[registry->index[at] - 1], name))
		at = (at + 1) & registry->index_mask;
	return &registry->index[at];
}

// Room for one more: the index at most half full, names and blocks in step with it.
static int grow(struct sl_registry *registry)
{
	if (registry->index && registry->count < (registry->index_mask + 1) / 2)
		return 0;

	const uint32_t size = registry->index ? (registry->index_mask + 1) * 2 : 1024;
	const uint32_t most = size / 2;
	uint32_t *index = calloc(size, sizeof(*index));
	struct sl_bytes *names = realloc(registry->names, most * sizeof(*names));
	struct sl_quota_pool **pools;

	if (names)
		registry->names = names;
	pools = realloc(registry->pools, most / SL_REGISTRY_BLOCK * sizeof(struct sl_quota_pool *));
	if (pools)
		registry->pools = pools;
	if (!index || !names || !pools) {
		free(index);
		return -ENOMEM;
	}
	free(registry->index);
	registry->index = index;
	registry->index_mask = size - 1;
	for (uint32_t i = 0; i < registry->count; i++)
		*find(registry, registry->names[i]) = i + 1;
	return 0;
}

static const uint8_t *keep_text(struct sl_registry *registry, struct sl_bytes name)
{
	struct sl_registry_text *text = registry->texts;

	if (!text || text->used + name.size > TEXT_BYTES) {
		text = malloc(sizeof(*text));
		if (!text)
			return NULL;
		text->next = registry->texts;
		text->used = 0;
		registry->texts = text;
	}

	uint8_t *kept = text->bytes + text->used;

	memcpy(kept, name.data, name.size);
	text->used += (uint32_t)name.size;
	return kept;
}

// The leases of a block of pools, one block too.
static int make_leases(struct sl_quota_pool *pools)
{
	const size_t count = SL_REGISTRY_BLOCK * SL_DIMENSION_RATES;
	struct sl_quota_lease *leases = aligned_alloc(SL_CACHE_LINE, count * sizeof(*leases));

	if (!leases)
		return -ENOMEM;
	memset(leases, 0, count * sizeof(*leases));
	for (uint32_t i = 0; i < count; i++)
		leases[i].thin = UINT32_MAX;
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
			return -ENOMEM;
		}
	}
	(*block)[tenant % SL_REGISTRY_BLOCK].tenant = tenant;
	return 0;
}

int sl_registry_add(struct sl_registry *registry, struct sl_bytes name, sl_tenant_id *tenant)
{
	assert(sl_tenant_name_valid(name));
	if (grow(registry))
		return -ENOMEM;

	uint32_t *slot = find(registry, name);

	if (*slot) {
		*tenant = *slot - 1;
		return 0;
	}
	if (registry->count == SL_TENANTS_MAX)
		return -ENOSPC;

	const uint8_t *kept = keep_text(registry, name);

	if (!kept || make_pool(registry, registry->count))
		return -ENOMEM;
	registry->names[registry->count] = sl_bytes(kept, name.size);
	*tenant = registry->count++;
	*slot = *tenant + 1;
	return 0;
}

struct sl_quota_pool *sl_registry_pool(const struct sl_registry *registry, sl_tenant_id tenant)
{
	assert(tenant < registry->count);
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
