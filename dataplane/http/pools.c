#include "dataplane/http/internal.h"

// One allocator for all sessions of a shard: nghttp2 frees without a size, so each block has a
// header of 16 bytes. Blocks of up to 1 KiB come from slabs and go round on free lists by steps of
// 32 bytes; larger ones come from the shard's memory, which has free lists of its own.

#define SLAB_BYTES  (16 * SL_KIB)
#define SMALL_MAX   ((SL_HTTP_SMALL_CLASSES - 1) * SL_HTTP_SMALL_STEP)
#define CLASS_LARGE UINT64_MAX

struct block {
	uint64_t class;
	size_t capacity; // of the whole, when it is large; else of the payload
};

static_assert(sizeof(struct block) == 16, "payloads stay aligned to 16");

static _Thread_local struct sl_http_pools *thread_pools;

static void *small_take(struct sl_http_pools *pools, unsigned class)
{
	const size_t payload = (size_t) class * SL_HTTP_SMALL_STEP;
	const size_t bytes = sizeof(struct block) + payload;
	struct sl_http_small *object = pools->small[class];
	struct block *block;

	if (SL_LIKELY(object != NULL)) {
		pools->small[class] = object->next;
		return object;
	}
	if ((size_t)(pools->fresh_end - pools->fresh) < bytes) {
		struct sl_http_slab *slab;
		size_t capacity;

		slab = sl_memory_take_reserve(pools->memory, SLAB_BYTES, &capacity);
		if (!slab)
			return NULL;
		*slab = (struct sl_http_slab){.next = pools->slabs, .capacity = capacity};
		pools->slabs = slab;
		pools->fresh = (uint8_t *)(slab + 1);
		pools->fresh_end = (uint8_t *)slab + capacity;
	}
	block = (struct block *)pools->fresh;
	pools->fresh += bytes;
	*block = (struct block){.class = class, .capacity = payload};
	return block + 1;
}

static void *mem_malloc(size_t size, void *user)
{
	struct sl_http_pools *pools = user;
	struct block *block;
	size_t capacity;

	if (SL_LIKELY(size <= SMALL_MAX))
		return small_take(pools, size ? (unsigned)((size + SL_HTTP_SMALL_STEP - 1) /
							   SL_HTTP_SMALL_STEP)
					      : 1);
	if (size > SIZE_MAX / 2)
		return NULL;
	block = sl_memory_take_reserve(pools->memory, sizeof(*block) + size, &capacity);
	if (!block)
		return NULL;
	*block = (struct block){.class = CLASS_LARGE, .capacity = capacity};
	return block + 1;
}

static void mem_free(void *pointer, void *user)
{
	struct sl_http_pools *pools = user;
	struct block *block;

	if (!pointer)
		return;
	block = (struct block *)pointer - 1;
	if (SL_LIKELY(block->class != CLASS_LARGE)) {
		struct sl_http_small *object = pointer;

		object->next = pools->small[block->class];
		pools->small[block->class] = object;
		return;
	}
	sl_memory_give(pools->memory, block, block->capacity);
}

static void *mem_calloc(size_t count, size_t size, void *user)
{
	size_t bytes;
	void *pointer;

	if (__builtin_mul_overflow(count, size, &bytes))
		return NULL;
	pointer = mem_malloc(bytes, user);
	return pointer ? memset(pointer, 0, bytes) : NULL;
}

static void *mem_realloc(void *pointer, size_t size, void *user)
{
	struct block *block;
	size_t room;
	void *moved;

	if (!pointer)
		return mem_malloc(size, user);
	block = (struct block *)pointer - 1;
	room = block->class == CLASS_LARGE ? block->capacity - sizeof(*block) : block->capacity;
	if (size <= room && size > room / 2)
		return pointer;
	moved = mem_malloc(size, user);
	if (!moved)
		return NULL;
	memcpy(moved, pointer, SL_MIN(size, room));
	mem_free(pointer, user);
	return moved;
}

struct sl_http_pools *sl_http_pools_get(struct sl_memory *memory)
{
	struct sl_http_pools *pools = thread_pools;
	size_t capacity;

	while (pools && pools->memory != memory)
		pools = pools->next;
	if (pools) {
		pools->references++;
		return pools;
	}
	pools = sl_memory_take_reserve(memory, sizeof(*pools), &capacity);
	if (!pools)
		return NULL;
	*pools = (struct sl_http_pools){
		.memory = memory,
		.next = thread_pools,
		.references = 1,
		.mem = {pools, mem_malloc, mem_free, mem_calloc, mem_realloc},
	};
	sl_pool_init(&pools->sessions, memory, SL_HTTP_SESSION_BYTES);
	sl_pool_init(&pools->streams, memory, SL_HTTP_STREAM_BYTES);
	thread_pools = pools;
	return pools;
}

void sl_http_pools_put(struct sl_http_pools *pools)
{
	struct sl_http_pools **link = &thread_pools;

	if (!pools || --pools->references)
		return;
	while (*link && *link != pools)
		link = &(*link)->next;
	assert(*link); // made and given back by the same thread
	*link = pools->next;
	sl_pool_fini(&pools->sessions);
	sl_pool_fini(&pools->streams);
	while (pools->slabs) {
		struct sl_http_slab *slab = pools->slabs;

		pools->slabs = slab->next;
		sl_memory_give(pools->memory, slab, slab->capacity);
	}
	sl_memory_give(pools->memory, pools, sl_memory_class_bytes(sizeof(*pools)));
}

bool sl_http_out_add(struct sl_memory *memory, struct sl_http_out *out, const void *data,
		     size_t size)
{
	if (SL_UNLIKELY(out->size + size > out->capacity)) {
		const size_t want = SL_MAX(out->size + size, SL_MAX(out->capacity * 2, 2 * SL_KIB));
		size_t capacity;
		uint8_t *grown = sl_memory_take_reserve(memory, want, &capacity);

		if (!grown)
			return false;
		if (out->size)
			memcpy(grown, out->data, out->size);
		sl_memory_give(memory, out->data, out->capacity);
		out->data = grown;
		out->capacity = capacity;
	}
	if (size)
		memcpy(out->data + out->size, data, size);
	out->size += size;
	return true;
}

void sl_http_out_give(struct sl_memory *memory, struct sl_http_out *out)
{
	sl_memory_give(memory, out->data, out->capacity);
	*out = (struct sl_http_out){0};
}
