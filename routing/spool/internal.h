#pragma once

#include <limits.h>

#include "routing/spool/store.h"

// What the files of a store share.

#define SL_SPOOL_NAME    "%016llx.spool"
#define SL_SPOOL_UNREAD  ".unread"
#define SL_SPOOL_DAMAGED ".damaged"

struct sl_spool_segment {
	struct sl_spool_segment *next; // newer
	uint64_t number;               // its name
	char name[40];
	int fd; // -1: not open
	uint64_t salt;
	uint64_t bytes;             // whole entries end here
	uint64_t read;              // the next entry that has not come out
	uint64_t items[SL_SIGNALS]; // in it and not out
	uint64_t newest_ns;         // wall time of its newest entry
	uint32_t out;               // of its entries, those that came back included
};

enum sl_spool_state { SL_SPOOL_OUT, SL_SPOOL_BACK, SL_SPOOL_GONE };

// An entry between its first coming out and being gone.
struct sl_spool_slot {
	struct sl_spool_segment *segment; // NULL: dropped meanwhile
	uint64_t at, wall_ns;
	uint32_t items;
	enum sl_signal signal;
	enum sl_spool_state state;
};

struct sl_spool_store {
	char *folder;
	struct sl_spool_limits limits;
	struct sl_spool_figures figures;
	int cursor;                                // its file
	bool moved;                                // since the cursor was written
	uint64_t newest;                           // number of a segment
	struct sl_spool_segment *segments, **last; // oldest first
	struct sl_spool_segment *active;           // appended to; NULL: a new one
	struct sl_spool_segment *reading;          // NULL: none
	struct sl_spool_slot slots[SL_SPOOL_OUT_MAX];
	uint32_t first, end; // of the slots in use, counted on; in the order of the file
	uint32_t back_count;
	uint64_t wall_ns;      // of the last tick; 0: none was
	uint64_t aside_due_ns; // wall time when what is aside is looked at again
	// Of an append.
	uint8_t (*heads)[SL_SPOOL_ENTRY_HEAD];
	uint32_t head_capacity;
	struct iovec *pieces;
	size_t piece_capacity;
};

int sl_spool_segment_fd(struct sl_spool_store *store, struct sl_spool_segment *segment);
// The path of a file in the folder. Returns 0 or -ENAMETOOLONG.
int sl_spool_path(const struct sl_spool_store *store, const char *name, char path[PATH_MAX]);
// Of that number, empty. NULL: no memory.
struct sl_spool_segment *sl_spool_segment_make(uint64_t number);
// Behind all others, with what is in it.
void sl_spool_segment_add(struct sl_spool_store *store, struct sl_spool_segment *segment);
void sl_spool_segment_close(struct sl_spool_segment *segment);
// What is appended next begins a segment. Returns 0, or -errno: what was appended may not be on the
// disk.
int sl_spool_retire(struct sl_spool_store *store);

// open.c: what another process has left.

// The file gets `suffix` behind its name, on the disk. Returns 0 or -errno: it may be where it was.
int sl_spool_put_aside(const struct sl_spool_store *store, const char *name, const char *suffix);
// Takes what was aside and can be read now, when it is time.
void sl_spool_try_aside(struct sl_spool_store *store, uint64_t wall_ns);

// load.c: what is read.

// Numbers of the segments in a folder, malloc'ed: of those with `suffix` behind their name. Returns
// 0 or -errno.
int sl_spool_list(const char *folder, const char *suffix, uint64_t **numbers, uint32_t *count);
// A segment of an earlier process, not added yet: its items from `from` on (0: all), its end; a
// torn tail is cut. 1; 0: nothing in it can be read; -errno: nobody knows.
int sl_spool_scan(struct sl_spool_store *store, struct sl_spool_segment *segment, uint64_t from);
// The slot's entry again. NULL: no memory or descriptor, or it cannot be read now, or it is
// `*gone`: damaged since.
struct sl_spool_read *sl_spool_load(struct sl_spool_store *store, struct sl_spool_slot *slot,
				    bool *gone);
// The segment's next entry, stepping over damage; the slot is told where it lies. NULL: `*ended`
// tells whether the segment has, else it is as above.
struct sl_spool_read *sl_spool_load_next(struct sl_spool_store *store,
					 struct sl_spool_segment *segment,
					 struct sl_spool_slot *slot, bool *ended);
// When the segment's next entry was spooled; 0: there is none, or nobody knows now.
uint64_t sl_spool_peek(struct sl_spool_store *store, struct sl_spool_segment *segment);
int sl_spool_salt(uint64_t *salt);
