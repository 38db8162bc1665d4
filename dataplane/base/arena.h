#pragma once

#include "dataplane/base/base.h"
#include "dataplane/base/memory.h"

// Bump allocation for one request: blocks from the shard's memory, all given back at once.
//
// Threading: owned by one shard. Memory: nothing is freed singly; pointers live until fini.
struct sl_arena_block;

struct sl_arena {
	struct sl_memory *memory;
	struct sl_arena_block *blocks; // newest first
	uint8_t *next, *end;           // room in the newest block
};

// Takes nothing yet.
void sl_arena_init(struct sl_arena *arena, struct sl_memory *memory);

// Gives every block back; the arena can be used again.
void sl_arena_fini(struct sl_arena *arena);

// What its blocks take of the shard's memory.
uint64_t sl_arena_bytes(const struct sl_arena *arena);

// `bytes` of memory, aligned to 16, not zeroed; NULL when the shard's budget is spent.
void *sl_arena_alloc(struct sl_arena *arena, size_t bytes);

// The same, zeroed.
void *sl_arena_zalloc(struct sl_arena *arena, size_t bytes);

// A copy; `data` is NULL when the budget is spent (and only then, for a size of 0 too).
struct sl_bytes sl_arena_copy(struct sl_arena *arena, struct sl_bytes bytes);

// Gives back the tail of the newest allocation, which was `bytes` long, down to `keep`.
void sl_arena_shrink(struct sl_arena *arena, void *newest, size_t bytes, size_t keep);
