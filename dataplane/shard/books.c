#include "dataplane/shard/books.h"

#define SL_COUNTER_STRUCT_ struct sl_shard_counters
SL_COUNTER_ROWS(shard, SL_SHARD_COUNTERS)

const struct sl_metric_row sl_books_rows[SL_BOOKS_ROWS] = {
	{.name = "sluice_refused_items",
	 .help = "Items whose sender was told no, by reason.",
	 .kind = SL_METRIC_COUNTER,
	 .offset = offsetof(struct sl_books, refused),
	 .count = SL_SIGNALS * SL_REASONS,
	 .labels = {&sl_label_signal, &sl_label_reason}},
	{.name = "sluice_request_duration_seconds",
	 .help = "From a call's head to its answer.",
	 .kind = SL_METRIC_HISTOGRAM,
	 .offset = offsetof(struct sl_books, duration),
	 .count = 1,
	 .labels = {&sl_label_none}},
};

int sl_books_init(struct sl_books *books, struct sl_metrics *metrics, uint32_t shard)
{
	const int failed = sl_metrics_add(metrics, sl_shard_counter_rows,
					  sl_shard_counter_row_count, &books->counters, (int)shard,
					  NULL);

	return failed ? failed
		      : sl_metrics_add(metrics, sl_books_rows, SL_BOOKS_ROWS, books, (int)shard,
				       NULL);
}

void sl_books_fini(struct sl_books *books, struct sl_metrics *metrics)
{
	// Both blocks begin at the same address.
	static_assert(offsetof(struct sl_books, counters) == 0, "one removal takes both");
	sl_metrics_remove(metrics, books);
}

void sl_books_received(struct sl_books *books, struct sl_request *request)
{
	struct sl_shard_counters *counters = &books->counters;
	const uint32_t items = request->view.item_count;

	sl_count(&counters->received_items[request->signal], items);
	sl_count(&counters->received_bytes[request->signal], request->view.body.size);
	sl_count(&counters->in_flight_items[request->signal], items);
	sl_ledger_received(books->ledger, request);
}

void sl_books_answered(struct sl_books *books, const struct sl_request *request, uint64_t now_ns)
{
	struct sl_shard_counters *counters = &books->counters;
	const enum sl_signal signal = request->signal;
	const uint32_t items = request->view.item_count;

	sl_histogram_add(&books->duration, now_ns - request->received_ns);
	sl_count(&counters->in_flight_items[signal], -(uint64_t)items);
	sl_ledger_answered(books->ledger, request);
	if (request->reason != SL_REASON_NONE) {
		sl_count(&books->refused[signal * SL_REASONS + request->reason], items);
		return;
	}
	for (uint16_t i = 0; i < request->part_count; i++) {
		const struct sl_part *part = &request->parts[i];

		if (part->reason != SL_REASON_NONE) {
			sl_count(&books->refused[signal * SL_REASONS + part->reason],
				 part->offered_items);
			continue;
		}
		const uint32_t offered = part->offered_items - sl_part_cut_items(part);

		for (unsigned j = 0; j < SL_CUTS; j++)
			sl_count(&books->refused[signal * SL_REASONS + sl_cut_reasons[j]],
				 part->cut_items[j]);
		sl_count(&books->refused[signal * SL_REASONS + SL_REASON_REJECTED],
			 part->rejected_items);
		sl_count(&counters->accepted_items[signal], offered - part->rejected_items);
		sl_count(&counters->sampled_out_items[signal], offered - part->kept_items);
		sl_count(&counters->routed_items[signal],
			 part->routed_items - part->rejected_items);
		sl_count(&counters->dropped_items[signal], part->kept_items - part->routed_items);
	}
}
