// The straight-line scan and the generic walk agree on any bytes: verdict, place of the fault,
// view.

#include <stdlib.h>

#include "dataplane/otlp/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct sl_view_limits limits = {.items_max = 1024, .depth_max = 4};
	static struct sl_memory memory;
	enum sl_view_result results[2];
	uint32_t error_at[2] = {0};
	struct sl_view views[2];
	struct sl_arena arena;

	if (!memory.budget_bytes && sl_memory_init(&memory, 64 * SL_MIB) != 0)
		abort();
	if (size == 0)
		return 0;

	// Behind the body stands what the input chooses, as far as the contract lets it be read.
	uint8_t *body = malloc(size - 1 + SL_BODY_SLACK);

	if (!body)
		abort();
	memcpy(body, data + 1, size - 1);
	memset(body + size - 1, data[0] / SL_SIGNALS, SL_BODY_SLACK);
	sl_arena_init(&arena, &memory);
	for (int generic = 0; generic < 2; generic++)
		results[generic] = sl_scan_request(&views[generic], data[0] % SL_SIGNALS,
						   sl_bytes(body, size - 1), &limits, &arena,
						   generic, &error_at[generic]);
	if (results[0] != results[1] || error_at[0] != error_at[1])
		abort();
	if (results[0] == SL_VIEW_OK &&
	    (views[0].item_count != views[1].item_count ||
	     views[0].envelope_count != views[1].envelope_count ||
	     views[0].only_field_1 != views[1].only_field_1 ||
	     memcmp(views[0].items, views[1].items, views[0].item_count * sizeof(struct sl_item)) !=
		     0 ||
	     memcmp(views[0].envelopes, views[1].envelopes,
		    views[0].envelope_count * sizeof(struct sl_envelope)) != 0))
		abort();
	sl_arena_fini(&arena);
	free(body);
	return 0;
}
