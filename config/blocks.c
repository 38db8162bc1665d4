#include "config/internal.h"

#include <stdio.h>
#include <stdlib.h>

#define BLOCK_FIRST (16 * SL_KIB)
#define BLOCK_MAX   (1 * SL_MIB)

struct block {
	struct block *next;
	size_t size; // with this head
	size_t used;
	size_t spare;
};

struct sl_loaded_memory {
	struct block *blocks; // the newest first: it alone has room
	bool failed;          // a take found no memory: what was filled is not whole
};

struct sl_loaded_memory *sl_blocks_create(void)
{
	return calloc(1, sizeof(struct sl_loaded_memory));
}

void sl_blocks_destroy(struct sl_loaded_memory *blocks)
{
	struct block *block, *next;

	if (!blocks)
		return;
	for (block = blocks->blocks; block; block = next) {
		next = block->next;
		free(block);
	}
	free(blocks);
}

void *sl_blocks_take(struct sl_loaded_memory *blocks, size_t bytes)
{
	struct block *block = blocks->blocks;
	void *taken;

	bytes = (SL_MAX(bytes, 1) + 15) & ~(size_t)15;
	if (!block || block->size - block->used < bytes) {
		size_t size = block ? SL_MIN(block->size * 2, BLOCK_MAX) : BLOCK_FIRST;

		size = SL_MAX(size, bytes + sizeof(*block));
		block = calloc(1, size);
		if (!block) {
			blocks->failed = true;
			return NULL;
		}
		block->size = size;
		block->used = sizeof(*block);
		block->next = blocks->blocks;
		blocks->blocks = block;
	}
	taken = (char *)block + block->used;
	block->used += bytes;
	return taken;
}

bool sl_blocks_failed(const struct sl_loaded_memory *blocks)
{
	return blocks->failed;
}

char *sl_blocks_text(struct sl_loaded_memory *blocks, const char *text, size_t size)
{
	char *copy = sl_blocks_take(blocks, size + 1);

	if (copy && size)
		memcpy(copy, text, size);
	return copy;
}

void sl_text_add(struct sl_text *text, const char *bytes, size_t size)
{
	if (text->failed)
		return;
	if (text->size + size + 1 > text->capacity) {
		const size_t capacity = SL_MAX(text->capacity * 2, text->size + size + 256);
		char *grown = realloc(text->data, capacity);

		if (!grown) {
			text->failed = true;
			return;
		}
		text->data = grown;
		text->capacity = capacity;
	}
	memcpy(text->data + text->size, bytes, size);
	text->size += size;
	text->data[text->size] = 0;
}

void sl_text_print(struct sl_text *text, const char *format, ...)
{
	char line[1024];
	char *wide = NULL;
	va_list args;
	int size;

	va_start(args, format);
	size = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (size < (int)sizeof(line)) {
		sl_text_add(text, line, (size_t)SL_MAX(size, 0));
		return;
	}
	va_start(args, format);
	size = vasprintf(&wide, format, args);
	va_end(args);
	if (size < 0) {
		text->failed = true;
		return;
	}
	sl_text_add(text, wide, (size_t)size);
	free(wide);
}
