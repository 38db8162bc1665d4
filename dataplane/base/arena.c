#include "dataplane/base/arena.h"

#define ALIGN       16
#define BLOCK_BYTES (4 * SL_KIB)

struct sl_arena_block {
	struct sl_arena_block *next;
	size_t capacity;
};

static_assert(sizeof(struct sl_arena_block) % ALIGN == 0, "a block's payload must stay aligned");

static size_t round_up(size_t bytes)
{
	return (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

void sl_arena_init(struct sl_arena *arena, struct sl_memory *memory)
{
	*arena = (struct sl_arena){.memory = memory};
}

void sl_arena_fini(struct sl_arena *arena)
{
	while (arena->blocks) {
		struct sl_arena_block *block = arena->blocks;

		arena->blocks = block->next;
		sl_memory_give(arena->memory, block, block->capacity);
	}
	arena->next = arena->end = NULL;
}

// A block for `bytes`. A large one of its own goes behind the newest, whose room stays in use.
static void *alloc_slow(struct sl_arena *arena, size_t bytes)
{
	const bool large = bytes > BLOCK_BYTES / 4 && arena->blocks;
	const size_t want = sizeof(struct sl_arena_block) + bytes;
	struct sl_arena_block *block;
	size_t capacity;

	block = sl_memory_take(arena->memory, SL_MAX(want, large ? 0 : BLOCK_BYTES), &capacity);
	if (!block)
		return NULL;
	block->capacity = capacity;
	if (large) {
		block->next = arena->blocks->next;
		arena->blocks->next = block;
		return block + 1;
	}
	block->next = arena->blocks;
	arena->blocks = block;
	arena->next = (uint8_t *)(block + 1) + bytes;
	arena->end = (uint8_t *)block + capacity;
	return block + 1;
}

uint64_t sl_arena_bytes(const struct sl_arena *arena)
{
	uint64_t bytes = 0;

	for (const struct sl_arena_block *block = arena->blocks; block; block = block->next)
		bytes += block->capacity;
	return bytes;
}

void *sl_arena_alloc(struct sl_arena *arena, size_t bytes)
{
	uint8_t *at = arena->next;

	if (SL_UNLIKELY(bytes > SIZE_MAX / 2))
		return NULL;
	bytes = round_up(bytes ? bytes : 1);
	if (SL_LIKELY((size_t)(arena->end - at) >= bytes)) {
		arena->next = at + bytes;
		return at;
	}
	return alloc_slow(arena, bytes);
}

void *sl_arena_zalloc(struct sl_arena *arena, size_t bytes)
{
	void *at = sl_arena_alloc(arena, bytes);

	return at ? memset(at, 0, bytes) : NULL;
}

struct sl_bytes sl_arena_copy(struct sl_arena *arena, struct sl_bytes bytes)
{
	void *at = sl_arena_alloc(arena, bytes.size);

	if (!at)
		return SL_BYTES_NONE;
	if (bytes.size)
		memcpy(at, bytes.data, bytes.size);
	return sl_bytes(at, bytes.size);
}

void sl_arena_shrink(struct sl_arena *arena, void *newest, size_t bytes, size_t keep)
{
	uint8_t *at = newest;

	bytes = round_up(bytes ? bytes : 1);
	keep = round_up(keep ? keep : 1);
	assert(keep <= bytes);
	// Only the newest block's last allocation can shrink; a large one has a block of its own.
	if (at + bytes == arena->next)
		arena->next = at + keep;
}
