#pragma once

#include "dataplane/base/base.h"

// A shard's budgeted memory for bodies, views and edits: size classes with free lists over the
// shard's own jemalloc arena (plain malloc in sanitizer builds). In a steady state nothing is
// allocated: buffers go round through the free lists.
//
// Threading: owned by one shard; a buffer that another thread needs travels by ring and comes back.
// Memory:    classes are 2^n and its quarter steps (1024, 1280, 1536, 1792, 2048, 2560, ...), so
//            at most a fifth is slack. Free buffers count as unused; they are kept up to `budget`
//            while a peak lasts, and given back by aging once it has passed.
// Time:      none; the owner says when SL_MEMORY_AGE_NS have passed.
#define SL_MEMORY_CLASS_MIN 1024
#define SL_MEMORY_CLASSES   84 // 1 KiB ... 2 GiB
#define SL_MEMORY_AGE_NS    (10 * SL_S)

struct sl_memory_free;

struct sl_memory_class {
	struct sl_memory_free *first;
	uint32_t count; // free buffers
	uint32_t least; // the fewest since the last aging: so many were never needed
};

struct sl_memory {
	uint64_t budget_bytes;
	uint64_t used_bytes; // writer: the shard; readers: metrics
	uint64_t peak_bytes;
	uint64_t cached_bytes; // on the free lists
	uint64_t misses;       // takes that no free list could serve
	int arena;             // jemalloc's index; -1 without jemalloc
	struct sl_memory_class classes[SL_MEMORY_CLASSES];
};

// Returns 0, or -errno when no arena could be made.
int sl_memory_init(struct sl_memory *memory, uint64_t budget_bytes);

// Gives the free lists back. All buffers must have been given back before.
void sl_memory_fini(struct sl_memory *memory);

// A buffer of at least `bytes`, its real size in `*capacity`; NULL when it would pass the budget
// (that is the caller's refusal: SL_REASON_MEMORY_FULL). Aligned to 16.
void *sl_memory_take(struct sl_memory *memory, size_t bytes, size_t *capacity);

// The same, but allowed past the budget: replies and control frames, whose number is bounded.
void *sl_memory_take_reserve(struct sl_memory *memory, size_t bytes, size_t *capacity);

// Gives a buffer back; `capacity` as it was told by take. NULL is fine.
void sl_memory_give(struct sl_memory *memory, void *buffer, size_t capacity);

// Gives back to the machine what lay free through all of the time since the last call. A steady
// state loses nothing: what it goes through was not free all the time.
void sl_memory_age(struct sl_memory *memory);

// The capacity that a take of `bytes` would have; what to reserve for it.
size_t sl_memory_class_bytes(size_t bytes);
