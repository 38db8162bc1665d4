#pragma once

#include "routing/spool/format.h"

// A folder of segments: entries go in at one end and come out at the other, in order. What has come
// out stays on disk until it is told gone; a cursor file remembers how far that was.
//
//   gone ... | cursor: OUT BACK GONE OUT | not read yet ... | appended
//
// At open, a tail that was torn by a crash is cut; damage in the middle is stepped over when it is
// read, named in the log, and counted. What the disk fails to read is neither: such a file is put
// aside, and the others go on without it. A cursor as cursor.unread, so that what it says is gone
// comes again. A segment, at open or as soon as it fails and none of its entries is out, as
// NAME.PLACE.unread, what is before that place (hexadecimal; none: the beginning) being gone; it
// is looked at again at every open and now and then, and comes in behind the others once it can be
// read, under a number of its own and with that place. One that cannot be put aside is passed over
// where it is, meanwhile. No byte of a file that was not read is changed. What is aside takes room,
// and is dropped as the others are, oldest first.
//
// Threading: one thread, which may block; figures are plain, for that thread to publish. Whoever
// opens a folder has seen to it that nobody else has it.
// Errors: -errno. An append that fails leaves nothing behind.

struct sl_spool_limits {
	uint64_t bytes_max;     // of all segments
	uint64_t segment_bytes; // a new one begins when this has so many
	uint64_t
		age_max_ns; // older segments, and entries when they come out, are dropped; 0: never
	bool drop_oldest;   // when full; false: appends fail with -ENOSPC
};

struct sl_spool_write {
	struct sl_spool_entry entry;
	struct sl_bytes front;      // of the body; size 0: none
	const struct iovec *pieces; // the rest of it
	uint32_t piece_count;
};

// An entry that came out; free() it. `entry` and `body` point into it.
struct sl_spool_read {
	uint32_t slot; // for sl_spool_store_end()
	struct sl_spool_entry entry;
	struct sl_bytes body;
};

struct sl_spool_figures {
	uint64_t bytes;             // on disk
	uint64_t items[SL_SIGNALS]; // on disk and not out
	uint64_t age_ns;            // of the oldest entry that is not gone, at the last tick
	uint64_t aside;             // files that the disk does not give
	// Since the store was opened.
	uint64_t recovered_items[SL_SIGNALS]; // found at open
	uint64_t dropped_items[SL_SIGNALS];   // for room, by age, or damaged
	uint64_t damaged;                     // places stepped over
	uint64_t read_errors;                 // of the disk; what is there is tried again
};

#define SL_SPOOL_OUT_MAX 256 // entries that are out, at a time

struct sl_spool_store;

// `folder` must be there. NULL: -errno in `*error`.
struct sl_spool_store *sl_spool_store_open(const char *folder, const struct sl_spool_limits *limits,
					   int *error);
// What is out comes out again after the next open.
void sl_spool_store_close(struct sl_spool_store *store);
// Other limits, from now on.
void sl_spool_store_limit(struct sl_spool_store *store, const struct sl_spool_limits *limits);

// All of them or none; on the disk with `sync`, else in the page cache. Returns 0 or -errno.
int sl_spool_store_append(struct sl_spool_store *store, const struct sl_spool_write *writes,
			  uint32_t count, bool sync);
// What was appended is on the disk. Returns 0 or -errno.
int sl_spool_store_sync(struct sl_spool_store *store);

// The first entry that came back, else the next one, or with `new_first` the other way round. NULL:
// there is none, SL_SPOOL_OUT_MAX are out, there is no memory or descriptor, or the disk does not
// give it now.
struct sl_spool_read *sl_spool_store_next(struct sl_spool_store *store, bool new_first);
// What became of it. Not gone: it is the next to come out.
void sl_spool_store_end(struct sl_spool_store *store, uint32_t slot, bool gone);
// Whether nothing is there, or out.
bool sl_spool_store_is_empty(const struct sl_spool_store *store);

// Now and then: drops what is too old, from now on by that time, and writes the cursor.
void sl_spool_store_tick(struct sl_spool_store *store, uint64_t wall_ns);
const struct sl_spool_figures *sl_spool_store_figures(const struct sl_spool_store *store);
