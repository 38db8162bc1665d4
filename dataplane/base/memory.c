#include "dataplane/base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#ifdef SL_JEMALLOC
#include <jemalloc/jemalloc.h>
#endif

struct sl_memory_free {
	struct sl_memory_free *next;
};

// Class 0 is 1 KiB; class 4n + q is 2^(10+n) * (1 + q/4).
static unsigned class_of(size_t bytes)
{
	if (bytes <= SL_MEMORY_CLASS_MIN)
		return 0;

	const unsigned top = 63 - (unsigned)__builtin_clzl(bytes - 1);
	const size_t step = (size_t)1 << (top - 2);
	const size_t over = bytes - 1 - ((size_t)1 << top);

	return (top - 10) * 4 + (unsigned)(over / step) + 1;
}

static size_t bytes_of(unsigned class)
{
	const size_t base = (size_t)SL_MEMORY_CLASS_MIN << (class / 4);

	return base + base / 4 * (class % 4);
}

static void *raw_take(struct sl_memory *memory, size_t bytes)
{
#ifdef SL_JEMALLOC
	return mallocx(bytes, MALLOCX_ARENA((unsigned)memory->arena) | MALLOCX_TCACHE_NONE);
#else
	(void)memory;
	return malloc(bytes);
#endif
}

static void raw_give(void *buffer)
{
#ifdef SL_JEMALLOC
	dallocx(buffer, MALLOCX_TCACHE_NONE);
#else
	free(buffer);
#endif
}

int sl_memory_init(struct sl_memory *memory, uint64_t budget_bytes)
{
	*memory = (struct sl_memory){.budget_bytes = budget_bytes, .arena = -1};
#ifdef SL_JEMALLOC
	unsigned index = 0;
	size_t size = sizeof(index);
	const int failed = mallctl("arenas.create", &index, &size, NULL, 0);

	if (failed)
		return -failed;
	memory->arena = (int)index;
#endif
	return 0;
}

static struct sl_memory_free *pop(struct sl_memory *memory, unsigned index)
{
	struct sl_memory_class *class = &memory->classes[index];
	struct sl_memory_free *buffer = class->first;

	class->first = buffer->next;
	class->count--;
	class->least = SL_MIN(class->least, class->count);
	memory->cached_bytes -= bytes_of(index);
	return buffer;
}

// Frees cached buffers, the largest first, until at most `keep` bytes stay cached.
static void trim(struct sl_memory *memory, uint64_t keep)
{
	for (unsigned index = SL_MEMORY_CLASSES; index-- > 0 && memory->cached_bytes > keep;) {
		while (memory->classes[index].first && memory->cached_bytes > keep)
			raw_give(pop(memory, index));
	}
}

void sl_memory_age(struct sl_memory *memory)
{
	for (unsigned index = 0; index < SL_MEMORY_CLASSES; index++) {
		struct sl_memory_class *class = &memory->classes[index];

		for (uint32_t unused = class->least; unused > 0; unused--)
			raw_give(pop(memory, index));
		class->least = class->count;
	}
#ifdef SL_JEMALLOC
	// Pages go back by jemalloc's own decay, which else waits for the arena's next call.
	char name[32];

	snprintf(name, sizeof(name), "arena.%d.decay", memory->arena);
	mallctl(name, NULL, NULL, NULL, 0);
#endif
}

void sl_memory_fini(struct sl_memory *memory)
{
	trim(memory, 0);
#ifdef SL_JEMALLOC
	if (memory->arena >= 0) {
		char name[32];

		assert(memory->used_bytes == 0);
		snprintf(name, sizeof(name), "arena.%d.destroy", memory->arena);
		mallctl(name, NULL, NULL, NULL, 0);
		memory->arena = -1;
	}
#endif
}

void *sl_memory_take_reserve(struct sl_memory *memory, size_t bytes, size_t *capacity)
{
	const unsigned index = class_of(bytes);
	struct sl_memory_free *buffer;

	if (index >= SL_MEMORY_CLASSES)
		return NULL;
	*capacity = bytes_of(index);
	if (SL_LIKELY(memory->classes[index].first != NULL)) {
		buffer = pop(memory, index);
	} else {
		memory->misses++;
		// Cached and used together stay within the budget: what is cached in other
		// classes goes back first.
		if (memory->used_bytes + memory->cached_bytes + *capacity > memory->budget_bytes)
			trim(memory, memory->budget_bytes > memory->used_bytes + *capacity
					     ? memory->budget_bytes - memory->used_bytes - *capacity
					     : 0);
		buffer = raw_take(memory, *capacity);
		if (!buffer)
			return NULL;
	}
	sl_gauge(&memory->used_bytes, memory->used_bytes + *capacity);
	if (memory->used_bytes > memory->peak_bytes)
		sl_gauge(&memory->peak_bytes, memory->used_bytes);
	return buffer;
}

void *sl_memory_take(struct sl_memory *memory, size_t bytes, size_t *capacity)
{
	if (SL_UNLIKELY(bytes > memory->budget_bytes ||
			memory->used_bytes + sl_memory_class_bytes(bytes) > memory->budget_bytes))
		return NULL;
	return sl_memory_take_reserve(memory, bytes, capacity);
}

void sl_memory_give(struct sl_memory *memory, void *buffer, size_t capacity)
{
	if (!buffer)
		return;

	const unsigned index = class_of(capacity);
	struct sl_memory_class *class = &memory->classes[index];
	struct sl_memory_free *free_buffer = buffer;

	assert(bytes_of(index) == capacity && memory->used_bytes >= capacity);
	sl_gauge(&memory->used_bytes, memory->used_bytes - capacity);
	free_buffer->next = class->first;
	class->first = free_buffer;
	class->count++;
	memory->cached_bytes += capacity;
}

size_t sl_memory_class_bytes(size_t bytes)
{
	return bytes_of(class_of(bytes));
}
