// Scan, look at the text, splice of realistic requests: ns an item, GB/s.

#include "dataplane/otlp/splice.h"
#include "perf/micro/micro.h"
#include "perf/payload.h"

static const struct sl_view_limits limits = {.items_max = 1000000, .depth_max = 32};

static void scan(struct sl_view *view, enum sl_signal signal, struct sl_bytes body,
		 struct sl_arena *arena)
{
	if (sl_view_scan(view, signal, body, &limits, arena, NULL) != SL_VIEW_OK)
		abort();
	SL_MICRO_USE(view->item_count);
}

// One span of ten stays, with a tracestate put in behind its ids.
static void splice(const struct sl_view *view, const uint64_t *keep, struct sl_arena *arena,
		   struct sl_pieces *pieces)
{
	struct sl_edits edits = {0};

	for (uint32_t i = 0; i < view->item_count; i += 10)
		if (sl_edits_add(&edits, arena,
				 view->items[i].at + view->items[i].trace_at + 16 + 10, 0,
				 SL_LITERAL("\x1a\x0aot=th:e66")) != 0)
			abort();
	if (sl_splice(view, keep, &edits, arena, pieces) != 0)
		abort();
	SL_MICRO_USE(pieces->bytes);
}

int main(void)
{
	static const uint32_t counts[] = {8, 100, 1000};
	struct sl_memory memory;
	struct sl_arena arena;

	if (sl_memory_init(&memory, 64 * SL_MIB) != 0)
		return 1;
	sl_arena_init(&arena, &memory);
	for (unsigned signal = 0; signal < SL_SIGNALS; signal++) {
		for (unsigned i = 0; i < SL_COUNT_OF(counts); i++) {
			const uint32_t items = counts[i];
			uint8_t *bytes = calloc(1, SL_PAYLOAD_BYTES(items) + SL_BODY_SLACK);
			const size_t size = sl_payload_build(bytes, SL_PAYLOAD_BYTES(items), signal,
							     items, 1);
			uint64_t keep[SL_KEEP_WORDS(1000)] = {0};
			struct sl_pieces pieces = {0};
			struct sl_view view;
			double scan_ns, text_ns, splice_ns = 0;

			SL_MICRO(scan_ns, {
				sl_arena_fini(&arena);
				scan(&view, signal, sl_bytes(bytes, size), &arena);
			});
			SL_MICRO(text_ns, { SL_MICRO_USE(sl_view_text_valid(&view)); });
			for (uint32_t item = 0; item < items; item += 10)
				keep[item / 64] |= UINT64_C(1) << (item % 64);
			if (signal == SL_TRACES) {
				struct sl_arena edits;

				sl_arena_init(&edits, &memory);
				SL_MICRO(splice_ns, {
					sl_arena_fini(&edits);
					splice(&view, keep, &edits, &pieces);
				});
				sl_arena_fini(&edits);
			}
			printf("%-8s %5u items %7zu bytes  scan %8.0f ns %6.1f ns/item %5.1f GB/s"
			       "  text %6.1f ns/item",
			       sl_signal_names[signal], items, size, scan_ns, scan_ns / items,
			       (double)size / scan_ns, text_ns / items);
			if (signal == SL_TRACES)
				printf("  splice %6.0f ns %5.2f ns/item %u pieces", splice_ns,
				       splice_ns / items, pieces.count);
			printf("\n");
			free(bytes);
		}
	}
	sl_arena_fini(&arena);
	sl_memory_fini(&memory);
	return 0;
}
