#pragma once

#include "dataplane/base/metrics.h"
#include "dataplane/request/request.h"
#include "tenants/ledger/book.h"

// A shard's books: what clients sent and what became of it, to the item.
//   received = accepted + refused + in flight
//   accepted = sampled out + dropped by rule + routed
// An item is counted under accepted, sampled out, dropped and routed when its request's answer is
// decided, all at once: so the sums hold at every moment.
//
// Threading: one shard writes; any thread may read.

//      field                kind       name                              labels  help
#define SL_SHARD_COUNTERS(X)                                                                       \
	X(received_items, COUNTER, "sluice_received_items", signal,                                \
	  "Items (spans, data points, log records) in requests that could be read.")               \
	X(accepted_items, COUNTER, "sluice_accepted_items", signal,                                \
	  "Items whose sender was told success.")                                                  \
	X(sampled_out_items, COUNTER, "sluice_sampled_out_items", signal,                          \
	  "Accepted items that sampling dropped.")                                                 \
	X(dropped_items, COUNTER, "sluice_dropped_by_rule_items", signal,                          \
	  "Accepted items that a route drops.")                                                    \
	X(routed_items, COUNTER, "sluice_routed_items", signal,                                    \
	  "Accepted items that went to at least one destination.")                                 \
	X(in_flight_items, GAUGE, "sluice_in_flight_items", signal,                                \
	  "Items received and not yet answered.")                                                  \
	X(received_bytes, COUNTER, "sluice_received_bytes", signal,                                \
	  "Inflated bytes of requests that could be read.")                                        \
	X(late_requests, COUNTER, "sluice_late_requests", none,                                    \
	  "Requests whose deliveries ended after they had been answered as timed out.")            \
	X(abandoned_requests, COUNTER, "sluice_abandoned_requests", none,                          \
	  "Requests whose client went away before the answer.")                                    \
	X(budget_bytes, GAUGE, "sluice_memory_budget_bytes", none,                                 \
	  "Memory budget for bodies, views and edits.")                                            \
	X(used_bytes, GAUGE, "sluice_memory_used_bytes", none, "Memory of that budget in use.")    \
	X(connection_bytes, GAUGE, "sluice_connection_memory_bytes", none,                         \
	  "Memory that open connections take, beside that budget.")                                \
	X(memory_misses, COUNTER, "sluice_memory_allocations", none,                               \
	  "Buffers that no free list could serve: flat in a steady state.")                        \
	X(busy_percent, GAUGE, "sluice_shard_busy_percent", none,                                  \
	  "Share of the last tenth of a second in which the shard had work.")                      \
	X(overload_step, GAUGE, "sluice_overload_step", none,                                      \
	  "How far the shard has gone in shedding load; 0: not at all.")                           \
	X(thinned_requests, COUNTER, "sluice_overload_thinned_requests", none,                     \
	  "Requests that were sampled harder because of overload.")                                \
	X(turns, COUNTER, "sluice_shard_turns", none, "Turns of the shard's loop.")                \
	X(reads, COUNTER, "sluice_io_reads", none, "Read system calls.")                           \
	X(writes, COUNTER, "sluice_io_writes", none, "Write system calls.")

SL_COUNTERS(shard, SL_SHARD_COUNTERS)
#define SL_BOOKS_ROWS 2
extern const struct sl_metric_row sl_books_rows[SL_BOOKS_ROWS]; // what has two labels, or buckets

struct sl_books {
	struct sl_shard_counters counters;
	uint64_t refused[SL_SIGNALS * SL_REASONS];
	struct sl_histogram duration;
	struct sl_ledger_book *ledger; // the same by tenant; NULL: not kept
};

// Registers the books under the shard's number. Returns 0 or -ENOMEM.
int sl_books_init(struct sl_books *books, struct sl_metrics *metrics, uint32_t shard);
void sl_books_fini(struct sl_books *books, struct sl_metrics *metrics);

// A request was read and has its parts, or was refused before it had any: its items are in flight.
void sl_books_received(struct sl_books *books, struct sl_request *request);
// Its answer is decided (once a request).
void sl_books_answered(struct sl_books *books, const struct sl_request *request, uint64_t now_ns);
