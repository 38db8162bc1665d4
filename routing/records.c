#include <errno.h>

#include "routing/internal.h"

// A delivery becomes records: the whole, one a trace, or halves of what is too long.

static int make_one(struct sl_flow *flow, const uint64_t *keep, struct sl_bytes key, uint32_t items,
		    struct sl_record ***last);

// Splits what is longer than the destination takes, between items: halves until each fits. One
// item that is too long alone goes as it is, for the destination to refuse.
static int halve(struct sl_flow *flow, const uint64_t *keep, struct sl_bytes key, uint32_t items,
		 struct sl_record ***last)
{
	struct sl_request *request = flow->delivery.part->request;
	const uint32_t count = request->view.item_count;
	const size_t words = SL_KEEP_WORDS(count);
	uint64_t *half[2];
	uint32_t seen = 0;

	for (int i = 0; i < 2; i++) {
		half[i] = sl_arena_zalloc(&request->arena, words * sizeof(uint64_t));
		if (!half[i])
			return -ENOMEM;
	}
	for (uint32_t i = 0; i < count; i++) {
		if (sl_keep_has(keep, i))
			half[seen++ >= items / 2][i / 64] |= UINT64_C(1) << (i % 64);
	}

	const int failed = make_one(flow, half[0], key, items / 2, last);

	return failed ? failed : make_one(flow, half[1], key, items - items / 2, last);
}

static int make_one(struct sl_flow *flow, const uint64_t *keep, struct sl_bytes key, uint32_t items,
		    struct sl_record ***last)
{
	struct sl_part *part = flow->delivery.part;
	struct sl_request *request = part->request;
	const uint64_t bytes_max = flow->egress->destination->record_bytes_max;
	struct sl_pieces pieces;
	struct sl_record *record;

	if (sl_splice(&request->view, keep, &part->edits, &request->arena, &pieces) < 0)
		return -ENOMEM;
	if (!pieces.bytes)
		return 0;
	if (bytes_max && pieces.bytes > bytes_max && items > 1)
		return halve(flow, keep, key, items, last);
	record = sl_arena_zalloc(&request->arena, sizeof(*record));
	if (!record)
		return -ENOMEM;
	*record = (struct sl_record){
		.destination = flow->egress,
		.delivery = &flow->delivery,
		.key = key,
		.pieces = pieces.pieces,
		.piece_count = pieces.count,
		.items = items,
		.bytes = pieces.bytes,
		.signal = request->signal,
		.tenant_name = part->tenant_name,
	};
	flow->delivery.open_records++;
	**last = record;
	*last = &record->next;
	return 0;
}

struct trace {
	uint8_t id[16];
	uint32_t first, last, items; // its items, chained
};

struct traces {
	struct trace *traces;
	uint32_t *table, mask, count; // table: index + 1, open addressing
	uint32_t *next;               // by item
};

static struct trace *trace_of(struct traces *traces, const uint8_t id[16])
{
	uint64_t low;
	uint32_t at;

	memcpy(&low, id + 8, sizeof(low));
	at = (uint32_t)(low * UINT64_C(0x9e3779b97f4a7c15) >> 32) & traces->mask;
	for (; traces->table[at]; at = (at + 1) & traces->mask) {
		struct trace *trace = &traces->traces[traces->table[at] - 1];

		if (memcmp(trace->id, id, 16) == 0)
			return trace;
	}

	struct trace *trace = &traces->traces[traces->count++];

	*trace = (struct trace){.first = UINT32_MAX};
	memcpy(trace->id, id, 16);
	traces->table[at] = traces->count;
	return trace;
}

// Groups the kept items by trace id; an id of zeros stands for none.
static int group(struct sl_request *request, const uint64_t *keep, uint32_t items,
		 struct traces *traces)
{
	const struct sl_view *view = &request->view;
	uint32_t size = 8;

	while (size < 2 * items)
		size *= 2;
	traces->mask = size - 1;
	traces->table = sl_arena_zalloc(&request->arena, size * sizeof(uint32_t));
	traces->traces = sl_arena_alloc(&request->arena, items * sizeof(struct trace));
	traces->next = sl_arena_alloc(&request->arena, view->item_count * sizeof(uint32_t));
	if (!traces->table || !traces->traces || !traces->next)
		return -ENOMEM;
	for (uint32_t i = 0; i < view->item_count; i++) {
		uint8_t id[16] = {0};
		struct trace *trace;

		if (!sl_keep_has(keep, i))
			continue;
		if (!sl_view_trace_id(view, i, id))
			memset(id, 0, sizeof(id));
		trace = trace_of(traces, id);
		if (trace->first == UINT32_MAX)
			trace->first = i;
		else
			traces->next[trace->last] = i;
		trace->last = i;
		traces->next[i] = UINT32_MAX;
		trace->items++;
	}
	return 0;
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

// XXX: one splice a trace, each over the view's keep words: a request of very many traces costs
// traces * items / 64 word reads.
static int make_by_trace(struct sl_flow *flow, const uint64_t *keep, struct sl_record ***last)
{
	struct sl_request *request = flow->delivery.part->request;
	const size_t words = SL_KEEP_WORDS(request->view.item_count);
	struct traces traces = {0};
	uint64_t *one;
	int failed = group(request, keep, flow->delivery.items, &traces);

	one = sl_arena_zalloc(&request->arena, words * sizeof(uint64_t));
	if (failed || !one)
		return -ENOMEM;
	for (uint32_t i = 0; i < traces.count && !failed; i++) {
		const struct trace *trace = &traces.traces[i];
		struct sl_bytes key;

		failed = key_of(request, trace->id, &key);
		if (failed)
			break;
		if (traces.count == 1)
			return make_one(flow, keep, key, trace->items, last);
		for (uint32_t j = trace->first; j != UINT32_MAX; j = traces.next[j])
			one[j / 64] |= UINT64_C(1) << (j % 64);
		failed = make_one(flow, one, key, trace->items, last);
		for (uint32_t j = trace->first; j != UINT32_MAX; j = traces.next[j])
			one[j / 64] = 0;
	}
	return failed;
}

int sl_records_make(struct sl_flow *flow, const uint64_t *keep, struct sl_record **records)
{
	struct sl_record **last = records;

	if (flow->egress->destination->by_trace &&
	    flow->delivery.part->request->signal != SL_METRICS)
		return make_by_trace(flow, keep, &last);
	return make_one(flow, keep, SL_BYTES_NONE, flow->delivery.items, &last);
}
