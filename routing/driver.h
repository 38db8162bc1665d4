#pragma once

#include "dataplane/request/delivery.h"
#include "routing/answers.h"
#include "routing/settings.h"

// What carries records away. A driver is made for each destination on the control thread and has a
// side in every shard; it sees records only, and ends each one it has taken exactly once.
//
//   create (control) -> open (each shard) -> submit* poll* -> close (each shard) -> destroy
//   (control)
//
// Threading: submit, poll and close belong to the shard that opened. A driver's own threads are
// made by create(), so that they do not inherit a shard's core; they speak to shards by rings and
// wake them by `waker`.
// Memory: a record, its pieces and what they point to stay as they are until the record ends; a
// driver's thread may read them where they lie. The configuration goes with its snapshot: create()
// copies what it needs.
struct sl_io;
struct sl_codec;
struct sl_timers;
struct sl_waker;
struct sl_metrics;
struct sl_random;
struct sl_destination_counters;

struct sl_driver_env {
	uint32_t shard, shards;
	struct sl_memory *memory;
	struct sl_timers *timers;
	struct sl_waker *waker;
	struct sl_io *io;
	struct sl_codec *codec;
	struct sl_random *random;
	struct sl_metrics *metrics;
	struct sl_destination_counters *counters; // the shard's; they outlive the side
	uint64_t now_ns;
};

struct sl_driver {
	const char *name;
	// Reports problems to `errors` with the destination's place and returns NULL. `check_only`:
	// opens no file and connects nowhere.
	void *(*create)(const struct sl_destination_config *config, bool check_only,
			struct sl_errors *errors);
	// All shards have closed it. May block, for what it waits for (threads, a flush): then
	// `lingers`, and a thread of its own does it.
	void (*destroy)(void *self);
	bool lingers;
	// A shard's side, or NULL when out of memory.
	void *(*open)(void *self, const struct sl_driver_env *env);
	void (*close)(void *side); // no record of this shard is with the driver
	// Takes the record (SL_REASON_NONE) or refuses it untouched, to be offered again:
	// SL_REASON_EGRESS_FULL, no other has a place either; any other reason is this record's. It
	// may end a record before it returns.
	enum sl_reason (*submit)(void *side, struct sl_record *record);
	// Once a turn: brings ends in, writes what the turn gathered.
	void (*poll)(void *side, uint64_t now_ns);
	// What it holds at most beside the shards' budgets, over all of them. NULL: nothing to
	// speak of.
	uint64_t (*memory_max)(void *self);
	// The longest record it carries in one piece; 0: any. Longer ones are split at item
	// borders.
	uint64_t (*record_bytes_max)(void *self);
	// Records are keyed and split by trace id.
	bool (*by_trace)(void *self);
	// 0: it may be offered records; else until when it shall be spared. NULL: the destination's
	// breaker decides that, which then has no other.
	uint64_t (*until)(void *side, uint64_t now_ns);
	// Records are split by who owns their keys: what the key is (`attribute`: its name), who
	// owns one now (never 0), and whether that still is so. All or none.
	enum sl_spread (*spread)(void *self, struct sl_bytes *attribute);
	uint32_t (*owner)(void *side, struct sl_bytes key);
	bool (*owns)(void *side, uint32_t owner);
};

extern const struct sl_driver sl_driver_blackhole, sl_driver_file, sl_driver_kafka, sl_driver_otlp;

// The end of a record that a driver has taken. A retryable one is tried again or ends for good, as
// its destination's retry settings say; `retry_after_ns` is the least wait, 0 when nobody said.
void sl_egress_end(struct sl_record *record, enum sl_outcome outcome, uint64_t retry_after_ns);
// Before that end, or where the driver itself tries anew: what was answered instead of success, and
// what it means for the record.
void sl_egress_answered(const struct sl_record *record, enum sl_answer answer,
			enum sl_outcome outcome);
