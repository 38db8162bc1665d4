#include "tenants/partial.h"

#include "dataplane/otlp/split.h"

bool sl_partial_fit(const struct sl_part *part, uint64_t items_room, uint64_t bytes_room,
		    struct sl_partial *fit)
{
	const struct sl_view *view = &part->request->view;
	struct sl_arena *arena = &part->request->arena;
	struct sl_split_group kept;
	struct sl_split_runs runs;
	uint32_t most;

	*fit = (struct sl_partial){0};
	if (sl_split_kept(view, part->keep, arena, &kept))
		return false;
	fit->list = kept.items;
	fit->count = kept.count;
	most = (uint32_t)SL_MIN(items_room, kept.count);
	if (!most)
		return true;
	// The first of the pieces that such a room cuts it into: the same sum as routing's.
	if (sl_split_by_size(view, kept.items, most, NULL, bytes_room, arena, &runs))
		return false;
	if (runs.runs[0].too_big) {
		fit->first_bytes = runs.runs[0].bytes;
		fit->by_bytes = true;
		return true;
	}
	fit->fits = runs.runs[0].count;
	fit->bytes = runs.runs[0].bytes;
	fit->by_bytes = fit->fits < most;
	return true;
}

void sl_partial_cut(struct sl_part *part, const struct sl_partial *fit, enum sl_cut cut,
		    uint32_t items, uint64_t bytes)
{
	assert(part->keep && items <= fit->count && fit->count == part->kept_items);
	if (items == fit->count)
		return;
	for (uint32_t i = items; i < fit->count; i++)
		part->keep[fit->list[i] / 64] &= ~(UINT64_C(1) << (fit->list[i] % 64));
	part->cut_items[cut] = fit->count - items;
	part->cut_bytes = part->offered_bytes - SL_MIN(bytes, part->offered_bytes);
	part->kept_items = items;
}
