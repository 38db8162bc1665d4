#pragma once

#include "dataplane/base/memory.h"

// Objects of one size on a free list, in slabs from the shard's memory (its reserve: their number
// is bounded by the limits on connections, streams and requests).
//
// Threading: owned by one shard. Memory: slabs go back at fini only; objects are not zeroed.
struct sl_pool_object;
struct sl_pool_slab;

struct sl_pool {
	struct sl_memory *memory;
	size_t object_bytes;
	uint32_t used;
	struct sl_pool_object *free;
	struct sl_pool_slab *slabs;
};

void sl_pool_init(struct sl_pool *pool, struct sl_memory *memory, size_t object_bytes);
// All objects must have been given back.
void sl_pool_fini(struct sl_pool *pool);
// NULL when the machine has no memory.
void *sl_pool_take(struct sl_pool *pool);
void sl_pool_give(struct sl_pool *pool, void *object);
