#include "dataplane/base/pool.h"

#define SLAB_BYTES (32 * SL_KIB)
#define ALIGN      64

struct sl_pool_object {
	struct sl_pool_object *next;
};

struct sl_pool_slab {
	struct sl_pool_slab *next;
	size_t capacity;
};

void sl_pool_init(struct sl_pool *pool, struct sl_memory *memory, size_t object_bytes)
{
	*pool = (struct sl_pool){
		.memory = memory,
		.object_bytes = (object_bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1),
	};
}

void sl_pool_fini(struct sl_pool *pool)
{
	assert(pool->used == 0);
	while (pool->slabs) {
		struct sl_pool_slab *slab = pool->slabs;

		pool->slabs = slab->next;
		sl_memory_give(pool->memory, slab, slab->capacity);
	}
	pool->free = NULL;
}

static bool grow(struct sl_pool *pool)
{
	const size_t want = SL_MAX(SLAB_BYTES, ALIGN + pool->object_bytes);
	struct sl_pool_slab *slab;
	size_t capacity;

	slab = sl_memory_take_reserve(pool->memory, want, &capacity);
	if (!slab)
		return false;
	slab->next = pool->slabs;
	slab->capacity = capacity;
	pool->slabs = slab;
	for (size_t at = ALIGN; at + pool->object_bytes <= capacity; at += pool->object_bytes) {
		struct sl_pool_object *object = (void *)((uint8_t *)slab + at);

		object->next = pool->free;
		pool->free = object;
	}
	return true;
}

void *sl_pool_take(struct sl_pool *pool)
{
	struct sl_pool_object *object;

	if (SL_UNLIKELY(!pool->free) && !grow(pool))
		return NULL;
	object = pool->free;
	pool->free = object->next;
	pool->used++;
	return object;
}

void sl_pool_give(struct sl_pool *pool, void *object)
{
	struct sl_pool_object *given = object;

	assert(pool->used > 0);
	pool->used--;
	given->next = pool->free;
	pool->free = given;
}
