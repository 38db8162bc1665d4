#include "config/internal.h"

// Where the values of rows that need a restart stand in the file: few, so that a list does. They
// are looked for when a reload is refused.
#define CHUNK 32

struct place {
	const void *field;
	struct sl_where where;
};

struct sl_places {
	struct sl_places *next; // those noted before
	uint32_t count;
	struct place items[CHUNK];
};

void sl_places_note(struct sl_loaded_memory *blocks, struct sl_places **places, const void *field,
		    const struct sl_where *where)
{
	struct sl_places *chunk = *places;

	if (!chunk || chunk->count == CHUNK) {
		chunk = sl_blocks_take(blocks, sizeof(*chunk));
		if (!chunk)
			return; // the load has failed
		chunk->next = *places;
		*places = chunk;
	}
	chunk->items[chunk->count++] = (struct place){field, *where};
}

const struct sl_where *sl_places_find(const struct sl_places *places, const void *field)
{
	for (; places; places = places->next) {
		for (uint32_t i = 0; i < places->count; i++) {
			if (places->items[i].field == field)
				return &places->items[i].where;
		}
	}
	return NULL;
}
