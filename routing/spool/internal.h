#pragma once

#include <limits.h>

#include "routing/spool/store.h"

// What the files of a store share.

#define SL_SPOOL_NAME       "%016llx.spool"
#define SL_SPOOL_NAME_BYTES 64 // with a place and a suffix
#define SL_SPOOL_UNREAD     ".unread"
#define SL_SPOOL_DAMAGED    ".damaged"

struct sl_spool_segment {
	struct sl_spool_segment *next;  // newer
	uint64_t number;                // its name
	char name[SL_SPOOL_NAME_BYTES]; // of its file: a place is in it when it was aside
	int fd;                         // -1: not open
	uint64_t salt;
	uint64_t bytes;             // whole entries end here
	uint64_t read;              // the next entry that has not come out
	uint64_t items[SL_SIGNALS]; // in it and not out
	uint64_t newest_ns;         // wall time of its newest entry
	uint32_t out;               // of its entries, those that came back included
	bool sick;                  // the disk does not give it: passed over until it is aside
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

// A segment whose file is kept as one that was not read.
struct sl_spool_aside {
	struct sl_spool_cursor from; // what is before that place is gone
	uint64_t bytes;
	uint64_t items[SL_SIGNALS]; // of them, so many are among the figures' still
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
	uint64_t wall_ns;              // of the last tick; 0: none was
	uint64_t aside_due_ns;         // wall time when what is aside is looked at again
	struct sl_spool_aside *asides; // figures.aside of them, oldest first
	uint32_t aside_capacity;
	uint64_t aside_bytes;
	// Of an append.
	uint8_t (*heads)[SL_SPOOL_ENTRY_HEAD];
	uint32_t head_capacity;
	struct iovec *pieces;
	size_t piece_capacity;
};

int sl_spool_segment_fd(struct sl_spool_store *store, struct sl_spool_segment *segment);
// The path of a file in the folder. Returns 0 or -ENAMETOOLONG.
int sl_spool_path(const struct sl_spool_store *store, const char *name, char path[PATH_MAX]);
// Of that number, with the place in its name, empty. NULL: no memory.
struct sl_spool_segment *sl_spool_segment_make(const struct sl_spool_cursor *from);
// Behind all others, with what is in it.
void sl_spool_segment_add(struct sl_spool_store *store, struct sl_spool_segment *segment);
void sl_spool_segment_close(struct sl_spool_segment *segment);
// What is appended next begins a segment. Returns 0, or -errno: what was appended may not be on the
// disk.
int sl_spool_retire(struct sl_spool_store *store);

// Out of the list; its slots let go of it, its file stays.
void sl_spool_segment_unlist(struct sl_spool_store *store, struct sl_spool_segment *segment);
// One that is not in the list.
void sl_spool_segment_free(struct sl_spool_segment *segment);
void sl_spool_drop_file(const struct sl_spool_store *store, const char *name);

// aside.c: files that the disk does not give.

// Whether an error is of that one file: others of the folder may be well.
bool sl_spool_is_the_file_s(int failed);
// The file gets another name, on the disk. Returns 0 or -errno: it is where it was.
int sl_spool_put_aside(const struct sl_spool_store *store, const char *name, const char *other);
// A segment of the folder whose entries before `at` are gone becomes one that was not read. Returns
// 0 or -errno: it is where it was.
int sl_spool_put_unread(struct sl_spool_store *store, const struct sl_spool_segment *segment,
			uint64_t at);
// One was found. Returns 0 or -ENOMEM.
int sl_spool_know_aside(struct sl_spool_store *store, const struct sl_spool_cursor *from);
// A sick segment goes out of the others' way as soon as none of its entries is out.
void sl_spool_leave(struct sl_spool_store *store, struct sl_spool_segment *segment);
// Takes what was aside and can be read now, when it is time.
void sl_spool_try_aside(struct sl_spool_store *store, uint64_t wall_ns);
// Drops the oldest of them for room. False: there is none.
bool sl_spool_drop_aside(struct sl_spool_store *store);

// load.c: what is read.

// The segments in a folder, malloc'ed: those with `suffix` behind their name, and the place that it
// tells (0: none). Returns 0 or -errno.
int sl_spool_list(const char *folder, const char *suffix, struct sl_spool_cursor **found,
		  uint32_t *count);
// The name of a segment with that suffix ("": one that is read), and the place before which all is
// gone.
void sl_spool_name(char name[SL_SPOOL_NAME_BYTES], const struct sl_spool_cursor *from,
		   const char *suffix);
// A segment of an earlier process, not added yet: its items from `from` on (0: all), its end; a
// torn tail is cut. 1; 0: nothing in it can be read; -errno: nobody knows.
int sl_spool_scan(struct sl_spool_store *store, struct sl_spool_segment *segment, uint64_t from);
// The slot's entry again. NULL: no memory or descriptor, or its segment is sick, or it is `*gone`:
// damaged since.
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
