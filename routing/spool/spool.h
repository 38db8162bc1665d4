#pragma once

#include "dataplane/base/waker.h"
#include "routing/driver.h"
#include "routing/spool/store.h"

// A destination's spool: shards hand records to its thread, which keeps them on disk and hands them
// back as replays when the destination may take them.
//
//   shard -- record --> [ring] --> thread: append, sync a group at once --> [ring] --> confirmed
//   shard <-- replay -- [ring] <-- thread: read in order <-- disk           told gone, or not
//
// While the destination fails, one replay at a time goes out, backing off; when one is delivered
// the window opens.
//
// Threading: get and put by any one thread at a time that builds or ends destinations; a side
// belongs to its shard. Memory: a record stays as it is until it is confirmed; replays are the
// thread's, at most SL_SPOOL_OUT_MAX and SL_SPOOL_OUT_BYTES of them, outside the shards' budgets.
#define SL_SPOOL_OUT_BYTES (8 * SL_MIB)

struct sl_spool;
struct sl_spool_side;

// The spool in that folder, made, or shared with whoever has it open, whose settings then stay: who
// asks may be a reload that is refused. NULL: the problem is in `errors`.
struct sl_spool *sl_spool_get(const struct sl_spool_config *config, struct sl_errors *errors);
// Settings that are in force, from now on; their path is not looked at. Any thread.
void sl_spool_configure(struct sl_spool *spool, const struct sl_spool_config *config);
// No side of this holder is open any more. The last one ends it; what is on disk stays. May block.
void sl_spool_put(struct sl_spool *spool);

enum sl_spool_end {
	SL_SPOOL_END_GONE,
	SL_SPOOL_END_FAILED,  // the destination did not take it
	SL_SPOOL_END_UNTRIED, // nothing of the destination: who should try it goes
};

// What comes out, until it is told its end.
struct sl_spool_replay {
	struct sl_spool_read *read;
	struct sl_spool_side *side;
	enum sl_spool_end end;
};

// NULL: no memory.
struct sl_spool_side *sl_spool_side_open(struct sl_spool *spool, struct sl_waker *waker);
// Nothing is handed over and not confirmed, and no replay is out.
void sl_spool_side_close(struct sl_spool_side *side);
// Hands a record over; `sync`: confirmed only once it is on the disk, whatever the settings say.
// False: the spool is full, fails or has no room in the ring. When full, what is smaller than all
// that had no room is still tried. `cause`: why it does not go to the destination itself, for the
// log; static; NULL: it goes to disk first as a matter of course, which is no outage.
bool sl_spool_side_take(struct sl_spool_side *side, struct sl_record *record, bool sync,
			const char *cause, uint64_t now_ns);
// The next record that is confirmed, or was not kept (`*kept` false); NULL: none.
struct sl_record *sl_spool_side_confirmed(struct sl_spool_side *side, bool *kept);
// The next replay; NULL: none. `retired`: it shall be given no more.
struct sl_spool_replay *sl_spool_side_replay(struct sl_spool_side *side);
void sl_spool_side_retire(struct sl_spool_side *side, bool retired);
// Its end; the replay is the thread's again.
void sl_spool_side_end(struct sl_spool_replay *replay, enum sl_spool_end end);
// Once a turn, when all is said.
void sl_spool_side_flush(struct sl_spool_side *side);
// Something is on disk that has not been delivered.
bool sl_spool_side_is_behind(const struct sl_spool_side *side);

// What the spool has to tell: gauges as they are, and counts since whoever asked last.
struct sl_spool_news {
	uint64_t bytes, age_ns, items[SL_SIGNALS];
	uint64_t recovered_items[SL_SIGNALS], dropped_items[SL_SIGNALS], damaged, read_errors;
	uint32_t aside; // files that cannot be read, kept to be tried again
	bool refusing;
};
// True for one side at a time; the others leave the spool's counters alone.
bool sl_spool_side_news(struct sl_spool_side *side, struct sl_spool_news *news);
