// Any bytes are refused or scanned, without reading beyond the slack; what is spliced from them
// scans again and holds as many items as were kept.

#include <stdlib.h>

#include "dataplane/otlp/splice.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t *exact(const void *data, size_t size)
{
	uint8_t *copy = calloc(1, size + SL_BODY_SLACK);

	if (!copy)
		abort();
	if (size)
		memcpy(copy, data, size);
	return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct sl_view_limits limits = {.items_max = 4096, .depth_max = 16};
	static struct sl_memory memory;
	struct sl_pieces pieces;
	struct sl_arena arena;
	struct sl_view view;

	if (!memory.budget_bytes && sl_memory_init(&memory, 64 * SL_MIB) != 0)
		abort();
	if (size == 0)
		return 0;

	const enum sl_signal signal = data[0] % SL_SIGNALS;
	uint64_t keep[4096 / 64];
	uint8_t *body = exact(data + 1, size - 1), *left;
	uint32_t kept = 0;
	size_t at = 0;

	sl_arena_init(&arena, &memory);
	memset(keep, data[0], sizeof(keep));
	if (sl_view_scan(&view, signal, sl_bytes(body, size - 1), &limits, &arena, NULL) ==
	    SL_VIEW_OK) {
		for (uint32_t i = 0; i < view.item_count; i++)
			kept += sl_keep_has(keep, i);
		if (sl_splice(&view, keep, NULL, &arena, &pieces) != 0)
			abort();
		left = calloc(1, pieces.bytes + SL_BODY_SLACK);
		for (uint32_t i = 0; left && i < pieces.count; i++) {
			memcpy(left + at, pieces.pieces[i].iov_base, pieces.pieces[i].iov_len);
			at += pieces.pieces[i].iov_len;
		}
		if (!left || at != pieces.bytes ||
		    sl_view_scan(&view, signal, sl_bytes(left, at), &limits, &arena, NULL) !=
			    SL_VIEW_OK ||
		    view.item_count != kept)
			abort();
		free(left);
	}
	sl_arena_fini(&arena);
	free(body);
	return 0;
}
