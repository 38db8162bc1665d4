#include <errno.h>

#include "dataplane/otlp/split.h"
#include "routing/dead_letter.h"
#include "routing/internal.h"

// A delivery becomes records: the whole, one a trace, one an owner of keys, or runs of what is too
// long.

// Who makes them, of what, and what all of them share.
struct maker {
	struct sl_flow *flow;
	struct sl_egress *egress;
	const uint64_t *keep;
	uint32_t items;     // that `keep` leaves
	uint64_t bytes_max; // of a record; 0: any
	struct sl_bytes key;
	uint32_t owner;
	struct sl_record **last;
	uint32_t count;
};

// `list` NULL: all that the maker keeps.
static int make_record(struct maker *maker, const uint32_t *list, uint32_t items,
		       const struct sl_pieces *pieces)
{
	struct sl_part *part = maker->flow->delivery.part;
	struct sl_request *request = part->request;
	struct sl_record *record = sl_arena_zalloc(&request->arena, sizeof(*record));

	if (!record)
		return -ENOMEM;
	*record = (struct sl_record){
		.destination = maker->egress,
		.delivery = &maker->flow->delivery,
		.arena = &request->arena,
		.key = maker->key,
		.owner = maker->owner,
		.keep = maker->keep,
		.list = list,
		.pieces = pieces->pieces,
		.piece_count = pieces->count,
		.items = items,
		.bytes = pieces->bytes,
		.signal = request->signal,
		.tenant_name = part->tenant_name,
	};
	*maker->last = record;
	maker->last = &record->next;
	maker->count++;
	return 0;
}

// Cuts what is longer than the destination takes between items. One item that is too long alone
// goes as it is, for the destination to refuse.
static int make_runs(struct maker *maker, const uint32_t *items, uint32_t count)
{
	struct sl_part *part = maker->flow->delivery.part;
	struct sl_request *request = part->request;
	struct sl_split_runs runs;
	struct sl_pieces pieces;
	int failed = sl_split_by_size(&request->view, items, count, &part->edits, maker->bytes_max,
				      &request->arena, &runs);

	for (uint32_t i = 0; i < runs.count && !failed; i++) {
		const struct sl_split_run *run = &runs.runs[i];

		failed = sl_splice_items(&request->view, run->items, run->count, &part->edits,
					 &request->arena, &pieces);
		if (!failed)
			failed = make_record(maker, run->items, run->count, &pieces);
	}
	return failed;
}

static bool too_long(const struct maker *maker, const struct sl_pieces *pieces, uint32_t items)
{
	return maker->bytes_max && pieces->bytes > maker->bytes_max && items > 1;
}

static int make_whole(struct maker *maker)
{
	struct sl_part *part = maker->flow->delivery.part;
	struct sl_request *request = part->request;
	struct sl_split_group kept;
	struct sl_pieces pieces;

	if (sl_splice(&request->view, maker->keep, &part->edits, &request->arena, &pieces) < 0)
		return -ENOMEM;
	if (!pieces.bytes)
		return 0;
	if (!too_long(maker, &pieces, maker->items))
		return make_record(maker, NULL, maker->items, &pieces);
	if (sl_split_kept(&request->view, maker->keep, &request->arena, &kept) < 0)
		return -ENOMEM;
	return make_runs(maker, kept.items, kept.count);
}

static int make_group(struct maker *maker, const uint32_t *items, uint32_t count)
{
	struct sl_part *part = maker->flow->delivery.part;
	struct sl_request *request = part->request;
	struct sl_pieces pieces;

	if (sl_splice_items(&request->view, items, count, &part->edits, &request->arena, &pieces) <
	    0)
		return -ENOMEM;
	return too_long(maker, &pieces, count) ? make_runs(maker, items, count)
					       : make_record(maker, items, count, &pieces);
}

// 32 lowercase hex digits; without an id an empty key for spans and none for logs (Kafka item 3).
static int key_of(struct sl_request *request, const uint8_t id[16], struct sl_bytes *key)
{
	static const uint8_t none[16];
	uint8_t *hex;

	*key = SL_BYTES_NONE;
	if (memcmp(id, none, sizeof(none)) == 0) {
		if (request->signal == SL_TRACES)
			*key = sl_bytes("", 0);
		return 0;
	}
	hex = sl_arena_alloc(&request->arena, 32);
	if (!hex)
		return -ENOMEM;
	for (unsigned i = 0; i < 16; i++) {
		hex[2 * i] = (uint8_t) "0123456789abcdef"[id[i] >> 4];
		hex[2 * i + 1] = (uint8_t) "0123456789abcdef"[id[i] & 15];
	}
	*key = sl_bytes(hex, 32);
	return 0;
}

static int make_by_trace(struct maker *maker)
{
	struct sl_request *request = maker->flow->delivery.part->request;
	struct sl_split_groups groups;
	int failed = sl_split_by_trace(&request->view, maker->keep, &request->arena, &groups);

	for (uint32_t i = 0; i < groups.count && !failed; i++) {
		const struct sl_split_group *group = &groups.groups[i];

		failed = key_of(request, group->trace_id, &maker->key);
		if (!failed)
			failed = make_group(maker, group->items, group->count);
	}
	return failed;
}

// --- by who owns the keys ------------------------------------------------------------------------

static uint32_t ask_owner(const struct maker *maker, struct sl_bytes key)
{
	return maker->egress->destination->driver->owner(maker->egress->side, key);
}

// What the items before had, asked once.
struct last {
	uint8_t trace_id[16];
	uint32_t resource, owner;
};

static uint32_t owner_of(const struct maker *maker, uint32_t item, struct last *last)
{
	const struct sl_view *view = &maker->flow->delivery.part->request->view;
	const struct sl_destination *destination = maker->egress->destination;
	static const uint8_t none[16];
	uint8_t trace_id[16];
	uint32_t resource;
	struct sl_bytes value = SL_BYTES_NONE;
	char scratch[32];

	if (destination->spread == SL_SPREAD_TRACE) {
		if (!sl_view_trace_id(view, item, trace_id) || !memcmp(trace_id, none, 16))
			return 0;
		if (last->owner && !memcmp(trace_id, last->trace_id, 16))
			return last->owner;
		memcpy(last->trace_id, trace_id, 16);
		return last->owner = ask_owner(maker, sl_bytes(trace_id, 16));
	}
	resource = sl_view_resource_of(view, view->items[item].envelope);
	if (last->owner && resource == last->resource)
		return last->owner;
	last->resource = resource;
	if (!sl_route_attribute_text(view, resource, destination->spread_attribute, scratch,
				     &value))
		value = SL_BYTES_NONE;
	value.size = SL_MIN(value.size, SL_KEY_MAX);
	return last->owner = ask_owner(maker, value);
}

void sl_record_key(struct sl_record *record)
{
	const struct sl_egress *egress = record->destination;
	const struct sl_part *part = record->delivery->part;
	struct sl_request *request = part->request;
	uint8_t *copy;
	struct sl_bytes key = part->tenant_name;
	char scratch[32];
	uint8_t trace_id[16];
	uint32_t item = record->list ? record->list[0] : 0;

	while (!record->list && !sl_keep_has(record->keep, item))
		item++;
	if (egress->destination->spread == SL_SPREAD_TRACE) {
		if (!sl_view_trace_id(&request->view, item, trace_id))
			return;
		key = sl_bytes(trace_id, sizeof(trace_id));
	} else if (egress->destination->spread == SL_SPREAD_ATTRIBUTE) {
		const struct sl_view *view = &request->view;

		if (!sl_route_attribute_text(view,
					     sl_view_resource_of(view, view->items[item].envelope),
					     egress->destination->spread_attribute, scratch, &key))
			return;
		key.size = SL_MIN(key.size, SL_KEY_MAX);
	}
	copy = sl_arena_alloc(&request->arena, key.size);
	if (!copy)
		return;
	memcpy(copy, key.data, key.size);
	record->key = sl_bytes(copy, key.size);
}

// The items of each owner, in their order. There are as many owners as endpoints, and none.
struct owned {
	uint32_t owners[SL_ENDPOINTS_MAX + 2], first[SL_ENDPOINTS_MAX + 3];
	uint32_t count;
};

static uint32_t place_of(struct owned *owned, uint32_t owner)
{
	uint32_t i = 0;

	while (i < owned->count && owned->owners[i] != owner)
		i++;
	if (i == owned->count) {
		assert(i < SL_COUNT_OF(owned->owners));
		owned->owners[owned->count++] = owner;
	}
	return i;
}

static int make_by_owner(struct maker *maker)
{
	struct sl_request *request = maker->flow->delivery.part->request;
	struct sl_split_group kept;
	struct owned owned = {0};
	struct last last = {0};
	uint32_t *sorted;
	uint8_t *place;
	int failed = 0;

	if (sl_split_kept(&request->view, maker->keep, &request->arena, &kept) < 0)
		return -ENOMEM;
	sorted = sl_arena_alloc(&request->arena, kept.count * sizeof(*sorted));
	place = sl_arena_alloc(&request->arena, kept.count);
	if (!sorted || !place)
		return -ENOMEM;
	for (uint32_t i = 0; i < kept.count; i++) {
		place[i] = (uint8_t)place_of(&owned, owner_of(maker, kept.items[i], &last));
		owned.first[place[i] + 1]++;
	}
	if (owned.count == 1) { // nothing is cut: as it came
		maker->owner = owned.owners[0];
		return make_whole(maker);
	}
	for (uint32_t i = 1; i <= owned.count; i++)
		owned.first[i] += owned.first[i - 1];
	for (uint32_t i = 0; i < kept.count; i++)
		sorted[owned.first[place[i]]++] = kept.items[i];
	// Each first is now where the next one's began.
	for (uint32_t i = 0, from = 0; i < owned.count && !failed; from = owned.first[i++]) {
		maker->owner = owned.owners[i];
		failed = make_group(maker, sorted + from, owned.first[i] - from);
	}
	return failed;
}

static int make(struct maker *maker)
{
	const struct sl_part *part = maker->flow->delivery.part;
	const struct sl_destination *destination = maker->egress->destination;

	if (destination->by_trace && part->request->signal != SL_METRICS)
		return make_by_trace(maker);
	switch (destination->spread) {
	case SL_SPREAD_LEAST:
		break;
	case SL_SPREAD_TENANT:
		maker->owner = ask_owner(maker, part->tenant_name);
		break;
	case SL_SPREAD_TRACE:
		if (part->request->signal == SL_METRICS)
			break;
		return make_by_owner(maker);
	case SL_SPREAD_ATTRIBUTE:
		return make_by_owner(maker);
	}
	return make_whole(maker);
}

int sl_records_make(struct sl_flow *flow, const uint64_t *keep, struct sl_record **records)
{
	struct maker maker = {.flow = flow,
			      .egress = flow->egress,
			      .bytes_max = flow->egress->destination->record_bytes_max,
			      .keep = keep,
			      .items = flow->delivery.items,
			      .last = records};
	const int failed = make(&maker);

	flow->delivery.open_records += maker.count;
	return failed;
}

// A list as the set that it is.
static const uint64_t *keep_of(const struct sl_record *record, struct sl_request *request)
{
	uint64_t *keep;

	if (!record->list)
		return record->keep;
	keep = sl_arena_zalloc(&request->arena,
			       SL_KEEP_WORDS(request->view.item_count) * sizeof(*keep));
	for (uint32_t i = 0; keep && i < record->items; i++)
		keep[record->list[i] / 64] |= UINT64_C(1) << (record->list[i] % 64);
	return keep;
}

int sl_records_remake(struct sl_record *record, struct sl_egress *egress,
		      struct sl_record **records, uint32_t *count)
{
	struct sl_delivery *delivery = record->delivery;
	struct maker maker = {.flow = (struct sl_flow *)delivery,
			      .egress = egress,
			      .bytes_max = egress->destination->record_bytes_max,
			      .keep = keep_of(record, delivery->part->request),
			      .items = record->items,
			      .last = records};

	assert(!record->members);
	if (record->letter && maker.bytes_max > 2 * SL_DEAD_LETTER_BYTES)
		maker.bytes_max -= SL_DEAD_LETTER_BYTES; // its headers go along
	*records = NULL;
	if ((record->list && !maker.keep) || make(&maker) < 0)
		return -ENOMEM;
	assert(maker.count > 0);
	for (struct sl_record *one = *records; one; one = one->next) {
		one->attempts = record->attempts;
		one->paid = record->paid;
		one->alone = record->alone;
		one->letter = record->letter;
	}
	delivery->open_records += maker.count - 1;
	*count = maker.count;
	return 0;
}
