#pragma once

#include "dataplane/otlp/signal.h"

// The books of one destination on one shard; the block bears `destination="name"`.
//   taken + unspooled = delivered + rejected + dropped + returned + lost + moved +
//                       dead-lettered + spooled + put_back + in flight
//   spool_recovered + spooled + put_back = unspooled + spool_dropped + spool_items
// Threading: the shard writes, any thread may read.

extern const struct sl_label sl_label_breaker; // enum sl_breaker_state
#define SL_LABEL_COUNT_breaker 3

//      field             kind       name                              labels  help
#define SL_DESTINATION_COUNTERS(X)                                                                 \
	X(taken, COUNTER, "sluice_taken_items", signal, "Items given to the destination.")         \
	X(delivered, COUNTER, "sluice_delivered_items", signal,                                    \
	  "Items that the destination has confirmed.")                                             \
	X(rejected, COUNTER, "sluice_rejected_items", signal,                                      \
	  "Items that the destination refused for good.")                                          \
	X(dropped, COUNTER, "sluice_dropped_items", signal,                                        \
	  "Best-effort items given up: its cap was reached or its retries were used up.")          \
	X(returned, COUNTER, "sluice_returned_items", signal,                                      \
	  "Items not delivered whose sender was told to send again.")                              \
	X(lost, COUNTER, "sluice_lost_items", signal,                                              \
	  "Items acknowledged early and then given up.")                                           \
	X(moved, COUNTER, "sluice_moved_items", signal,                                            \
	  "Items that its failover group has given to another destination.")                       \
	X(dead_lettered, COUNTER, "sluice_dead_lettered_items", signal,                            \
	  "Items refused for good that were given to its dead-letter destination.")                \
	X(spooled, COUNTER, "sluice_spooled_items", signal,                                        \
	  "Items written to the destination's spool, each once.")                                  \
	X(unspooled, COUNTER, "sluice_unspooled_items", signal,                                    \
	  "Items that came out of the spool to be delivered, those of each attempt.")              \
	X(put_back, COUNTER, "sluice_put_back_items", signal,                                      \
	  "Items that came out of the spool, were not delivered, and are in it again.")            \
	X(spool_recovered, COUNTER, "sluice_spool_recovered_items", signal,                        \
	  "Items found in the spool that another process, or a run before, has left there.")       \
	X(spool_dropped, COUNTER, "sluice_spool_dropped_items", signal,                            \
	  "Items that the spool dropped: full, too old, or damaged.")                              \
	X(spool_items, GAUGE, "sluice_spool_items", signal, "Items in the spool.")                 \
	X(in_flight, GAUGE, "sluice_destination_in_flight_items", signal,                          \
	  "Items taken and not ended.")                                                            \
	X(partial, COUNTER, "sluice_partially_rejected_items", signal,                             \
	  "Delivered items that an upstream refused in a partial success: a mark, in no sum.")     \
	X(lost_letters, COUNTER, "sluice_lost_dead_letter_items", signal,                          \
	  "Items that came to it as dead letters and were not kept: a mark, in no sum.")           \
	X(delivered_bytes, COUNTER, "sluice_delivered_bytes", none,                                \
	  "Bytes of records that the destination has confirmed, before its own compression.")      \
	X(spool_bytes, GAUGE, "sluice_spool_bytes", none, "Bytes of the spool's files.")           \
	X(spool_age, GAUGE, "sluice_spool_oldest_age_seconds", none,                               \
	  "Seconds since the oldest record in the spool was written to it.")                       \
	X(spool_damaged, COUNTER, "sluice_spool_damaged", none,                                    \
	  "Damaged places in the spool's files.")                                                  \
	X(spool_read_errors, COUNTER, "sluice_spool_read_errors", none,                            \
	  "Reads of the spool's files that the disk failed; they are tried again.")                \
	X(spool_unread, GAUGE, "sluice_spool_unread_files", none,                                  \
	  "Segments that the disk does not give, put aside to be tried again.")                    \
	X(spool_refusing, GAUGE, "sluice_spool_refusing", none,                                    \
	  "1: the spool takes nothing, or not all: it is full, or its disk fails.")                \
	X(stalled, GAUGE, "sluice_destination_stalled_shards", none,                               \
	  "Shards on which records wait and none has been confirmed or refused for 10 s.")         \
	X(retried_records, COUNTER, "sluice_retried_records", none, "Records tried once more.")    \
	X(held_retries, COUNTER, "sluice_held_retries", none,                                      \
	  "Times that the retry budget made a record wait.")                                       \
	X(breakers, GAUGE, "sluice_breaker_shards", breaker,                                       \
	  "Breakers by state: one a shard, of OTLP one a shard and endpoint. An open one is half " \
	  "open as soon as a probe may go.")                                                       \
	X(breaker_opened, COUNTER, "sluice_breaker_opened", none, "Times that a breaker opened.")  \
	X(merged_records, COUNTER, "sluice_merged_records", none,                                  \
	  "Records or calls that carry several requests.")                                         \
	X(taken_apart, COUNTER, "sluice_merged_taken_apart", none,                                 \
	  "Merged records refused for good, whose requests were then sent alone.")                 \
	X(replaced, COUNTER, "sluice_replaced_producers", none,                                    \
	  "Kafka producers replaced after a fatal error.")                                         \
	X(refused_parts, COUNTER, "sluice_egress_full_parts", none,                                \
	  "Parts refused because a required destination was at its cap.")                          \
	X(records, GAUGE, "sluice_queue_records", none, "Records taken and not ended.")            \
	X(pinned_bytes, GAUGE, "sluice_pinned_bytes", none,                                        \
	  "Memory held until the destination has confirmed.")

SL_COUNTERS(destination, SL_DESTINATION_COUNTERS)
extern const struct sl_metric_row sl_delivery_duration_rows[1];

// What the metrics say of a breaker: the state that it was told in, or nothing.
#define SL_BREAKER_UNTOLD (-1)
void sl_breaker_tell(struct sl_destination_counters *counters, int *told, int state);
