#pragma once

#include "tenants/cardinality/hll.h"

// The different values of one thing in a window: exact up to a limit, and which of them are known;
// an estimate of what came beyond. One for all shards, so a value that two of them see counts once,
// and the limit holds to the value, whichever shard it comes to.
//
//   slot   |48 bits of the hash|16 bits: the window|     another window's is as good as free, so a
//                                                        window's end clears nothing
//   state  |window's number|values in it|                a new value takes its place here first
//
// A known value costs a look or two into the table; a new one two atomic operations; there is no
// lock and no system call. Two values are taken for one with a chance of values / 2^48. Where
// shards find the same new value at once, one of them lets its place go again: for that moment one
// value less is admitted at the limit, never one more.
//
// Beside it, who it was: names with what they brought, and values that were refused lately, under a
// flag. Who finds it taken goes on without noting.
//
// Threading: as said; made and freed by the control thread. Memory: address space for the table, 12
// to 24 bytes a value of the limit, whose pages come when touched; 4 KiB for the estimate, 3 KiB
// for the names. Time: windows are counted by the caller.
#define SL_DISTINCT_LIMIT_MAX 1000000
#define SL_DISTINCT_HLL_BITS  12
#define SL_DISTINCT_NAME_BITS 6
#define SL_DISTINCT_NAMES     16
#define SL_DISTINCT_SAMPLES   8
#define SL_DISTINCT_TEXT_MAX  63

struct sl_distinct_text {
	uint8_t bytes;
	uint8_t text[SL_DISTINCT_TEXT_MAX]; // its beginning
};

struct sl_distinct_name {
	uint64_t hash, count; // count: new ones, and more than there are for names that came late
	uint8_t registers[SL_HLL_BYTES(SL_DISTINCT_NAME_BITS)];
	struct sl_distinct_text name;
};

// What came in a window.
struct sl_distinct_notes {
	uint32_t window, name_count, sample_count;
	struct sl_distinct_name names[SL_DISTINCT_NAMES];     // the heaviest, by Space-Saving
	struct sl_distinct_text samples[SL_DISTINCT_SAMPLES]; // a ring; the newest is the last
};

struct sl_distinct {
	uint64_t state;  // writer: shards, atomically
	uint64_t *slots; // writer: shards, atomically
	uint64_t mask, limit;
	uint8_t *registers; // of what was over the limit
	struct sl_distinct_notes *notes;
	uint32_t busy;       // atomic: somebody has the notes
	uint32_t told;       // atomic: the window that the log has heard of, and 1
	uint64_t window_ns;  // how long a window is
	uint64_t per_ns_q64; // 1 / window_ns, rounded down: a window's number takes no division
	uint64_t cut;        // writer: shards, atomically; since it was made
	uint32_t references; // control thread
	size_t memory_bytes;
	struct sl_distinct_memory *memory; // it lies in
};

// Of many that are alike, one mapping: the kernel counts those, too.
struct sl_distinct_block {
	uint32_t most; // of them; set by the caller
	uint32_t used;
	struct sl_distinct_memory *memory; // NULL: none was needed yet
};

enum sl_seen { SL_SEEN_KNOWN, SL_SEEN_NEW, SL_SEEN_OVER };

// What one takes of the budget, all of it touched: whole pages.
size_t sl_distinct_bytes(uint64_t limit);
// NULL: no memory. One reference.
struct sl_distinct *sl_distinct_create(uint64_t limit, uint64_t window_ns);
// The next one of a block, all of whose have the same limit.
struct sl_distinct *sl_distinct_create_in(struct sl_distinct_block *block, uint64_t limit,
					  uint64_t window_ns);
// No more of them: what is in use stays.
void sl_distinct_block_end(struct sl_distinct_block *block);
// As new, and its pages go. Nobody uses it meanwhile.
void sl_distinct_reset(struct sl_distinct *distinct);
void sl_distinct_put(struct sl_distinct *distinct); // NULL is fine

// The number of the window that a time is in.
SL_INLINE uint32_t sl_distinct_window(const struct sl_distinct *distinct, uint64_t now_ns)
{
	// Too small by less than now_ns / 2^64 and what the shift cuts off: by one at most.
	uint64_t window = (uint64_t)((unsigned __int128)now_ns * distinct->per_ns_q64 >> 64);

	window += now_ns - window * distinct->window_ns >= distinct->window_ns;
	return (uint32_t)window;
}

// A value came in a window (its number's low 32 bits). Older windows count as the newest.
enum sl_seen sl_distinct_see(struct sl_distinct *distinct, uint64_t hash, uint32_t window);
// What came of it, for those who ask: `name` is whose it is (a metric's, or none), `value` what was
// refused (or none).
void sl_distinct_note(struct sl_distinct *distinct, uint32_t window, uint64_t hash,
		      struct sl_bytes name, struct sl_bytes value);
// Whether nobody has told the log of this window yet.
bool sl_distinct_tell(struct sl_distinct *distinct, uint32_t window);

// The newest window with traffic: its number, how many values were admitted, and all that came,
// which is exact up to the limit.
struct sl_distinct_count {
	uint32_t window;
	uint64_t admitted;
	double all;
};
struct sl_distinct_count sl_distinct_count(const struct sl_distinct *distinct);
// A copy of the notes; false: they were taken all the while.
bool sl_distinct_notes(struct sl_distinct *distinct, struct sl_distinct_notes *notes);
