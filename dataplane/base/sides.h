#pragma once

#include <pthread.h>

#include "dataplane/base/ring.h"
#include "dataplane/base/waker.h"

// A helper thread and the shards that hand it work: what blocks (a disk, a library's reports) runs
// beside them. Each shard has a side, opened and closed while the thread runs.
//
//              shard                                      thread
//   down: give ──▶│there│──▶ take    the shard's items, lent to the thread,
//       settle ◀──│back │◀── return  and back, each exactly once
//   up:   take ◀──│there│◀── give    the thread's items, lent to the shard
//       return ──▶│back │──▶ settle
//                 flush ──▶ waker ──▶ sl_sides_wait        once a turn, whoever has said something
//   the shard's own ◀──── waker ◀── sl_sides_wake
//
// Bounds: a lender has at most `max` items out, refused beyond; rings hold as many, so what is
// returned always has a place. What is out is what was given less what has come back: the lender's
// own ends of two rings.
// Threading: sl_side_* by the side's shard, sl_helper_* and sl_sides_* by the thread, but for init,
// start and end: by who makes it. Memory: a side is freed by the thread; items are the lender's,
// the borrower uses them between take and return. Order: what was written before a give or return
// is seen after its take or settle (release, acquire). A wake follows what it tells of, and the
// waker is cleared before a look, so no wake is lost. Closing stores, then loads, as a wake does
// (sequentially consistent): a shard's waker is not used once its side is closed.
struct sl_loan {
	struct sl_ring there, back;
	uint32_t max; // items; 0: this way is not used
};

enum sl_side_state { SL_SIDE_OPEN, SL_SIDE_LEAVING, SL_SIDE_CLOSED };

// A user's own side begins with it.
struct sl_side {
	struct sl_side *next; // the thread's, once it has seen it
	struct sl_sides *sides;
	struct sl_waker *waker; // the shard's
	struct sl_loan down, up;
	_Alignas(SL_CACHE_LINE) uint32_t state;  // writer: the shard; of enum sl_side_state
	bool said;                               // the shard's: since the last flush
	_Alignas(SL_CACHE_LINE) uint32_t waking; // writer: the thread; the shard's waker is in use
	bool told;                               // the thread's: since the last wake
};

struct sl_sides_kind {
	const char *name;  // the thread's, at most 15 bytes
	size_t side_bytes; // of the user's own side
	uint32_t down, up; // the most items out on each way
	bool elsewhere;    // items go down by other means, which the thread also waits for
	// Thread: the side is closed and goes. All that was given up has come back, what the shard
	// never took too, and is to be settled. NULL: nothing is given up.
	void (*gone)(struct sl_sides *sides, struct sl_side *side);
};

struct sl_sides {
	const struct sl_sides_kind *kind;
	struct sl_waker waker;  // the thread's
	struct sl_side *opened; // pushed by shards, taken by the thread
	uint32_t stop;          // writer: who ends it
	bool running;
	pthread_t thread;
	// The thread's.
	struct sl_side *first;
	uint32_t count;
	bool ending; // as of the last turn
};

// `kind` is static. Returns 0 or -errno; end() is due, or harmless, after either.
int sl_sides_init(struct sl_sides *sides, const struct sl_sides_kind *kind);
// The thread, which runs until sl_sides_are_over(). Returns 0 or -errno.
int sl_sides_start(struct sl_sides *sides, void *(*run)(void *), void *argument);
// All shards have closed their sides. Waits for the thread, as long as its work takes.
void sl_sides_end(struct sl_sides *sides);

// --- a shard -------------------------------------------------------------------------------------

// A struct of the kind's `side_bytes`, zero behind its struct sl_side. `waker` outlives it. NULL:
// no memory.
void *sl_side_open(struct sl_sides *sides, struct sl_waker *waker);
// All that was given has been settled, all that was taken is returned. The side is the thread's.
void sl_side_close(struct sl_side *side);

SL_INLINE uint32_t sl_loan_out(const struct sl_loan *loan) // lender: what it has out
{
	return loan->there.head - loan->back.tail;
}

SL_INLINE bool sl_loan_give(struct sl_loan *loan, void *item, bool *news)
{
	bool pushed;

	if (SL_UNLIKELY(sl_loan_out(loan) >= loan->max))
		return false;
	pushed = sl_ring_push(&loan->there, item);
	assert(pushed);
	return *news = true;
}

SL_INLINE void sl_loan_return(struct sl_loan *loan, void *item, bool *news)
{
	const bool pushed = sl_ring_push(&loan->back, item);

	assert(pushed);
	*news = true;
}

// Lends the thread an item. False: `max` are out.
SL_INLINE bool sl_side_give(struct sl_side *side, void *item)
{
	return sl_loan_give(&side->down, item, &side->said);
}

// The same where items go elsewhere: whether one may go, and that one has gone.
SL_INLINE bool sl_side_is_full(const struct sl_side *side)
{
	return sl_loan_out(&side->down) >= side->down.max;
}

SL_INLINE void sl_side_gave(struct sl_side *side)
{
	side->down.there.head++;
}

// The next of the shard's items that has come back; NULL: none.
SL_INLINE void *sl_side_settle(struct sl_side *side)
{
	return sl_ring_pop(&side->down.back);
}

// The next item that the thread lends; NULL: none.
SL_INLINE void *sl_side_take(struct sl_side *side)
{
	return sl_ring_pop(&side->up.there);
}

SL_INLINE void sl_side_return(struct sl_side *side, void *item)
{
	sl_loan_return(&side->up, item, &side->said);
}

// Once a turn: wakes the thread if something was said.
SL_INLINE void sl_side_flush(struct sl_side *side)
{
	if (!side->said)
		return;
	side->said = false;
	sl_waker_wake(&side->sides->waker);
}

// --- the thread ----------------------------------------------------------------------------------

// Before each look at the sides: forgets earlier wakes, takes what was opened, frees what was
// closed.
void sl_sides_turn(struct sl_sides *sides);
// As of the last turn: it was to end then, and no side is left.
bool sl_sides_are_over(const struct sl_sides *sides);
// Wakes the shards that were told something. After it, wait for the next.
void sl_sides_wake(struct sl_sides *sides);
void sl_sides_wait(const struct sl_sides *sides, int wait_ms);
// The first of `first` is the last from now on.
void sl_sides_rotate(struct sl_sides *sides);
// Its shard shall look, whatever is in the rings.
void sl_helper_tell(struct sl_side *side);
// A hint: it is about to be closed.
bool sl_helper_is_leaving(const struct sl_side *side);

SL_INLINE void *sl_helper_take(struct sl_side *side)
{
	return sl_ring_pop(&side->down.there);
}

// Also of what was given elsewhere, which was never taken here.
SL_INLINE void sl_helper_return(struct sl_side *side, void *item)
{
	sl_loan_return(&side->down, item, &side->told);
}

SL_INLINE bool sl_helper_give(struct sl_side *side, void *item)
{
	return sl_loan_give(&side->up, item, &side->told);
}

SL_INLINE void *sl_helper_settle(struct sl_side *side)
{
	return sl_ring_pop(&side->up.back);
}
