#include <errno.h>

#include "dataplane/otlp/split.h"
#include "routing/internal.h"

// A delivery becomes records: the whole, one a trace, or runs of what is too long.

static int make_record(struct sl_flow *flow, struct sl_bytes key, uint32_t items,
		       const struct sl_pieces *pieces, struct sl_record ***last)
{
	struct sl_part *part = flow->delivery.part;
	struct sl_request *request = part->request;
	struct sl_record *record = sl_arena_zalloc(&request->arena, sizeof(*record));

	if (!record)
		return -ENOMEM;
	*record = (struct sl_record){
		.destination = flow->egress,
		.delivery = &flow->delivery,
		.arena = &request->arena,
		.key = key,
		.pieces = pieces->pieces,
		.piece_count = pieces->count,
		.items = items,
		.bytes = pieces->bytes,
		.signal = request->signal,
		.tenant_name = part->tenant_name,
	};
	flow->delivery.open_records++;
	**last = record;
	*last = &record->next;
	return 0;
}

// Cuts what is longer than the destination takes between items. One item that is too long alone
// goes as it is, for the destination to refuse.
static int make_runs(struct sl_flow *flow, const uint32_t *items, uint32_t count,
		     struct sl_bytes key, struct sl_record ***last)
{
	struct sl_part *part = flow->delivery.part;
	struct sl_request *request = part->request;
	struct sl_split_runs runs;
	struct sl_pieces pieces;
	int failed = sl_split_by_size(&request->view, items, count, &part->edits,
				      flow->egress->destination->record_bytes_max, &request->arena,
				      &runs);

	for (uint32_t i = 0; i < runs.count && !failed; i++) {
		const struct sl_split_run *run = &runs.runs[i];

		failed = sl_splice_items(&request->view, run->items, run->count, &part->edits,
					 &request->arena, &pieces);
		if (!failed)
			failed = make_record(flow, key, run->count, &pieces, last);
	}
	return failed;
}

static bool too_long(const struct sl_flow *flow, const struct sl_pieces *pieces, uint32_t items)
{
	const uint64_t bytes_max = flow->egress->destination->record_bytes_max;

	return bytes_max && pieces->bytes > bytes_max && items > 1;
}

static int make_whole(struct sl_flow *flow, const uint64_t *keep, struct sl_record ***last)
{
	struct sl_part *part = flow->delivery.part;
	struct sl_request *request = part->request;
	struct sl_split_group kept;
	struct sl_pieces pieces;

	if (sl_splice(&request->view, keep, &part->edits, &request->arena, &pieces) < 0)
		return -ENOMEM;
	if (!pieces.bytes)
		return 0;
	if (!too_long(flow, &pieces, flow->delivery.items))
		return make_record(flow, SL_BYTES_NONE, flow->delivery.items, &pieces, last);
	if (sl_split_kept(&request->view, keep, &request->arena, &kept) < 0)
		return -ENOMEM;
	return make_runs(flow, kept.items, kept.count, SL_BYTES_NONE, last);
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

static int make_by_trace(struct sl_flow *flow, const uint64_t *keep, struct sl_record ***last)
{
	struct sl_part *part = flow->delivery.part;
	struct sl_request *request = part->request;
	struct sl_split_groups groups;
	struct sl_pieces pieces;
	int failed = sl_split_by_trace(&request->view, keep, &request->arena, &groups);

	for (uint32_t i = 0; i < groups.count && !failed; i++) {
		const struct sl_split_group *group = &groups.groups[i];
		struct sl_bytes key;

		if (key_of(request, group->trace_id, &key) < 0 ||
		    sl_splice_items(&request->view, group->items, group->count, &part->edits,
				    &request->arena, &pieces) < 0)
			return -ENOMEM;
		failed = too_long(flow, &pieces, group->count)
				 ? make_runs(flow, group->items, group->count, key, last)
				 : make_record(flow, key, group->count, &pieces, last);
	}
	return failed;
}

int sl_records_make(struct sl_flow *flow, const uint64_t *keep, struct sl_record **records)
{
	struct sl_record **last = records;

	if (flow->egress->destination->by_trace &&
	    flow->delivery.part->request->signal != SL_METRICS)
		return make_by_trace(flow, keep, &last);
	return make_whole(flow, keep, &last);
}
