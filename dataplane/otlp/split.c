#include "dataplane/otlp/split.h"

#include "dataplane/otlp/wire.h"

struct trace_id {
	uint64_t high, low; // as they lie in memory; both 0: none
};

static struct trace_id trace_id_of(const struct sl_view *view, uint32_t index)
{
	const struct sl_item *item = &view->items[index];
	uint8_t bytes[16] = {0};
	const uint8_t *at = bytes;

	if (SL_LIKELY(item->trace_at != SL_TRACE_AT_UNKNOWN))
		at = view->body.data + item->at + item->trace_at;
	else if (!sl_view_trace_id(view, index, bytes))
		memset(bytes, 0, sizeof(bytes));
	return (struct trace_id){sl_wire_load_u64(at), sl_wire_load_u64(at + 8)};
}

static uint32_t count_kept(const struct sl_view *view, const uint64_t *keep)
{
	uint32_t count = 0;

	if (!keep)
		return view->item_count;
	for (uint32_t word = 0; word < view->item_count / 64; word++)
		count += (uint32_t)__builtin_popcountl(keep[word]);
	for (uint32_t item = view->item_count & ~63u; item < view->item_count; item++)
		count += sl_keep_has(keep, item);
	return count;
}

int sl_split_kept(const struct sl_view *view, const uint64_t *keep, struct sl_arena *arena,
		  struct sl_split_group *out)
{
	const uint32_t count = count_kept(view, keep);
	uint32_t *items = sl_arena_alloc(arena, count * sizeof(*items)), next = 0;

	*out = (struct sl_split_group){.items = items, .count = count};
	if (!items)
		return -ENOMEM;
	for (uint32_t item = 0; item < view->item_count; item++) {
		if (sl_keep_has(keep, item))
			items[next++] = item;
	}
	assert(next == count);
	return 0;
}

struct table {
	uint32_t *slots; // group + 1, open addressing
	uint32_t mask;
	struct trace_id seed;
	struct trace_id *ids; // by group
	uint32_t count;
};

// The group of an id, made when it is new.
static uint32_t group_of(struct table *table, struct trace_id id)
{
	const __uint128_t product = (__uint128_t)(id.low ^ table->seed.low) *
				    (id.high ^ table->seed.high);
	uint32_t at = (uint32_t)(product >> 64 ^ product) & table->mask;

	for (; table->slots[at]; at = (at + 1) & table->mask) {
		const uint32_t group = table->slots[at] - 1;

		if (table->ids[group].low == id.low && table->ids[group].high == id.high)
			return group;
	}
	table->ids[table->count] = id;
	table->slots[at] = ++table->count;
	return table->count - 1;
}

static int make_table(struct table *table, uint32_t items, struct sl_arena *arena)
{
	uint32_t size = 8;

	while (size < 2 * items)
		size *= 2;
	*table = (struct table){
		.slots = sl_arena_zalloc(arena, size * sizeof(*table->slots)),
		.mask = size - 1,
		.ids = sl_arena_alloc(arena, items * sizeof(*table->ids)),
	};
	// Where memory lies is not known to who chooses the ids, so neither is what collides.
	table->seed.low = (uintptr_t)table->slots * UINT64_C(0xd1342543de82ef95);
	table->seed.high = ((uintptr_t)&make_table ^ table->seed.low) *
			   UINT64_C(0x9e3779b97f4a7c15);
	return table->slots && table->ids ? 0 : -ENOMEM;
}

int sl_split_by_trace(const struct sl_view *view, const uint64_t *keep, struct sl_arena *arena,
		      struct sl_split_groups *out)
{
	struct sl_split_group kept;
	struct table table;
	uint32_t *group, *sorted, group_now = 0, at = 0;
	struct trace_id now = {0, 0};

	*out = (struct sl_split_groups){0};
	if (sl_split_kept(view, keep, arena, &kept) != 0)
		return -ENOMEM;
	if (kept.count == 0)
		return 0;
	sorted = sl_arena_alloc(arena, kept.count * sizeof(*sorted));
	group = sl_arena_alloc(arena, kept.count * sizeof(*group));
	if (!sorted || !group || make_table(&table, kept.count, arena) != 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < kept.count; i++) {
		const struct trace_id id = trace_id_of(view, kept.items[i]);

		// A trace's spans often come in a row.
		if (i == 0 || id.low != now.low || id.high != now.high)
			group_now = group_of(&table, id);
		now = id;
		group[i] = group_now;
	}

	out->groups = sl_arena_zalloc(arena, table.count * sizeof(*out->groups));
	if (!out->groups)
		return -ENOMEM;
	out->count = table.count;
	for (uint32_t i = 0; i < kept.count; i++)
		out->groups[group[i]].count++;
	for (uint32_t i = 0; i < table.count; i++) {
		memcpy(out->groups[i].trace_id, &table.ids[i], 16);
		out->groups[i].items = sorted + at;
		at += out->groups[i].count;
		out->groups[i].count = 0;
	}
	for (uint32_t i = 0; i < kept.count; i++) {
		struct sl_split_group *to = &out->groups[group[i]];

		sorted[to->items - sorted + to->count++] = kept.items[i];
	}
	return 0;
}

struct cut {
	const struct sl_view *view;
	const struct sl_edits *edits;
	struct sl_arena *arena;
	struct sl_split_runs *out;
	uint32_t capacity;
	uint64_t base;         // of every run: the top level's own bytes, edits of envelopes
	uint32_t prefix_grows; // how much longer an envelope's length may become
};

// The first edit at or behind `at`.
static uint32_t edit_at(const struct sl_edits *edits, uint32_t at)
{
	uint32_t low = 0, high = edits->count;

	while (low < high) {
		const uint32_t middle = (low + high) / 2;

		if (edits->edits[middle].at < at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

// Whether an edit is an item's: an insertion where it ends is, one where it begins is not.
static bool is_of(const struct sl_edit *edit, const struct sl_item *item)
{
	const uint32_t end = item->at + item->bytes;

	return edit->at > item->at && (edit->at < end || (edit->at == end && !edit->cut));
}

static uint64_t item_bytes(const struct cut *cut, uint32_t index)
{
	const struct sl_item *item = &cut->view->items[index];
	int64_t grown = 0;

	if (!cut->edits)
		return item->bytes;
	for (uint32_t i = edit_at(cut->edits, item->at + 1); i < cut->edits->count; i++) {
		const struct sl_edit *edit = &cut->edits->edits[i];

		if (!is_of(edit, item))
			break;
		grown += (int64_t)edit->put.size - edit->cut;
	}
	// The length of a payload that changes is written anew, in five bytes at most.
	return (uint64_t)(item->bytes + grown) + (grown ? SL_WIRE_SHORT_MAX - 1 : 0);
}

// The bytes of an envelope that stay whichever of its children do. A metric whose members merge
// keeps all of them, emptied.
static uint64_t own_bytes(const struct cut *cut, uint32_t index)
{
	const struct sl_view *view = cut->view;
	const struct sl_envelope *envelope = &view->envelopes[index];
	const uint32_t end = envelope->at + envelope->bytes;
	uint64_t own = envelope->bytes + cut->prefix_grows;

	if (envelope->kind == SL_ENVELOPE_POINTS &&
	    !(view->envelopes[envelope->parent].flags & SL_ENVELOPE_DENSE))
		return cut->prefix_grows; // counted with the metric
	if (envelope->flags & SL_ENVELOPE_DENSE)
		return own - (envelope->children_end - envelope->children_at);
	if (envelope->kind == SL_ENVELOPE_RESOURCE ||
	    (envelope->kind == SL_ENVELOPE_SCOPE && view->signal == SL_METRICS)) {
		for (uint32_t i = index + 1; i < view->envelope_count; i++) {
			if (view->envelopes[i].at >= end)
				break;
			if (view->envelopes[i].parent == index)
				own -= view->envelopes[i].bytes;
		}
		return own;
	}
	for (uint32_t i = 0; i < envelope->item_count; i++)
		own -= view->items[envelope->first_item + i].bytes;
	if (envelope->kind == SL_ENVELOPE_METRIC)
		for (uint32_t i = index + 1; i < view->envelope_count; i++) {
			if (view->envelopes[i].at >= end)
				break;
			own += cut->prefix_grows;
		}
	return own;
}

// What an item adds to a run that ends with the item `before` (SL_TOP: to a new one).
static uint64_t added_bytes(const struct cut *cut, uint32_t before, uint32_t index)
{
	const struct sl_view *view = cut->view;
	uint64_t bytes = item_bytes(cut, index);

	for (uint32_t i = view->items[index].envelope; i != SL_TOP; i = view->envelopes[i].parent) {
		if (before != SL_TOP && view->envelopes[i].at <= view->items[before].at)
			break; // begins before both and ends behind both: it is there already
		bytes += own_bytes(cut, i);
	}
	return bytes;
}

static bool inside_item(const struct sl_view *view, const struct sl_edit *edit)
{
	uint32_t low = 0, high = view->item_count;

	// The last item that begins before the edit.
	while (low < high) {
		const uint32_t middle = (low + high) / 2;

		if (view->items[middle].at < edit->at)
			low = middle + 1;
		else
			high = middle;
	}
	return low && is_of(edit, &view->items[low - 1]);
}

static uint64_t base_bytes(struct cut *cut)
{
	const struct sl_view *view = cut->view;
	uint64_t bytes = 0;

	if (!view->only_field_1) {
		bytes = view->body.size;
		for (uint32_t i = 0; i < view->envelope_count; i++)
			if (view->envelopes[i].parent == SL_TOP)
				bytes -= view->envelopes[i].bytes;
	}
	for (uint32_t i = 0; cut->edits && i < cut->edits->count; i++) {
		const struct sl_edit *edit = &cut->edits->edits[i];

		if (edit->put.size > edit->cut && !inside_item(view, edit))
			bytes += edit->put.size - edit->cut;
	}
	return bytes;
}

static struct sl_split_run *new_run(struct cut *cut, const uint32_t *items)
{
	struct sl_split_runs *runs = cut->out;

	if (runs->count == cut->capacity) {
		const uint32_t capacity = SL_MAX(8, cut->capacity * 2);
		struct sl_split_run *more = sl_arena_alloc(cut->arena, capacity * sizeof(*more));

		if (!more)
			return NULL;
		if (runs->count)
			memcpy(more, runs->runs, runs->count * sizeof(*more));
		runs->runs = more;
		cut->capacity = capacity;
	}
	runs->runs[runs->count] = (struct sl_split_run){.items = items, .bytes = cut->base};
	return &runs->runs[runs->count++];
}

int sl_split_by_size(const struct sl_view *view, const uint32_t *items, uint32_t count,
		     const struct sl_edits *edits, uint64_t bytes_max, struct sl_arena *arena,
		     struct sl_split_runs *out)
{
	const bool edited = edits && edits->count;
	// All items without edits are the body itself, byte for byte, unless it has empty
	// envelopes.
	const bool as_it_is = !edited && !view->has_empty;
	const bool whole = count == view->item_count && as_it_is && view->body.size > bytes_max;
	const uint32_t count_max = whole ? SL_MAX(count, 2) - 1 : count;
	struct cut cut = {
		.view = view,
		.edits = edited ? edits : NULL,
		.arena = arena,
		.out = out,
		.prefix_grows = edited ? SL_WIRE_SHORT_MAX - 1 : 0,
	};
	struct sl_split_run *run = NULL;

	*out = (struct sl_split_runs){0};
	cut.base = base_bytes(&cut);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t more = 0;

		if (run && run->count < count_max) {
			more = added_bytes(&cut, items[i - 1], items[i]);
			if (run->bytes + more > bytes_max)
				run = NULL;
		} else {
			run = NULL;
		}
		if (!run) {
			run = new_run(&cut, &items[i]);
			if (!run)
				return -ENOMEM;
			more = added_bytes(&cut, SL_TOP, items[i]);
		}
		run->count++;
		run->bytes += more;
		run->too_big = run->bytes > bytes_max;
	}
	if (run && run->count == view->item_count && as_it_is) {
		run->bytes = SL_MAX(run->bytes, view->body.size);
		run->too_big = run->bytes > bytes_max;
	}
	return 0;
}
