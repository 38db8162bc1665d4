#include "dataplane/base/sides.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>

#include "dataplane/base/thread.h"

// Who ends or opens has something for a thread that may sleep.
static void wake_thread(struct sl_sides *sides)
{
	if (!sides->kind->elsewhere)
		sl_waker_wake(&sides->waker);
}

int sl_sides_init(struct sl_sides *sides, const struct sl_sides_kind *kind)
{
	assert(kind->side_bytes >= sizeof(struct sl_side));
	*sides = (struct sl_sides){.kind = kind, .waker.fd = -1};
	return kind->elsewhere ? 0 : sl_waker_init(&sides->waker);
}

int sl_sides_start(struct sl_sides *sides, void *(*run)(void *), void *argument)
{
	const int failed = sl_thread_start(&sides->thread, sides->kind->name, run, argument);

	sides->running = !failed;
	return failed;
}

void sl_sides_end(struct sl_sides *sides)
{
	if (!sides->kind)
		return;
	if (sides->running) {
		__atomic_store_n(&sides->stop, 1, __ATOMIC_RELEASE);
		wake_thread(sides);
		pthread_join(sides->thread, NULL);
		sides->running = false;
	}
	assert(!sides->first && !sides->opened);
	sl_waker_fini(&sides->waker);
}

// --- a shard -------------------------------------------------------------------------------------

static int init_loan(struct sl_loan *loan, uint32_t there, uint32_t back)
{
	loan->max = back;
	if ((there && sl_ring_init(&loan->there, there) < 0) ||
	    (back && sl_ring_init(&loan->back, back) < 0))
		return -ENOMEM;
	return 0;
}

static void fini_loan(struct sl_loan *loan)
{
	sl_ring_fini(&loan->there);
	sl_ring_fini(&loan->back);
}

static void free_side(struct sl_side *side)
{
	fini_loan(&side->down);
	fini_loan(&side->up);
	free(side);
}

void *sl_side_open(struct sl_sides *sides, struct sl_waker *waker)
{
	const struct sl_sides_kind *kind = sides->kind;
	struct sl_side *side = NULL;

	if (posix_memalign((void **)&side, SL_CACHE_LINE, kind->side_bytes) != 0)
		return NULL;
	memset(side, 0, kind->side_bytes);
	side->sides = sides;
	side->waker = waker;
	if (init_loan(&side->down, kind->elsewhere ? 0 : kind->down, kind->down) < 0 ||
	    init_loan(&side->up, kind->up, kind->up) < 0) {
		free_side(side);
		return NULL;
	}
	side->next = __atomic_load_n(&sides->opened, __ATOMIC_RELAXED);
	// Acquire: what the thread wrote before it last took what was opened is seen here.
	while (!__atomic_compare_exchange_n(&sides->opened, &side->next, side, true,
					    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		;
	wake_thread(sides);
	return side;
}

void sl_side_close(struct sl_side *side)
{
	struct sl_sides *sides = side->sides;

	assert(sl_loan_out(&side->down) == 0);
	assert(side->up.there.tail == side->up.back.head); // taken and returned
	__atomic_store_n(&side->state, SL_SIDE_LEAVING, __ATOMIC_SEQ_CST);
	// The thread may be about to use the waker of a shard that goes. It says so before it looks
	// at `state`: of the two at least one sees the other.
	while (__atomic_load_n(&side->waking, __ATOMIC_SEQ_CST))
		sched_yield();
	__atomic_store_n(&side->state, SL_SIDE_CLOSED, __ATOMIC_RELEASE);
	wake_thread(sides);
}

// --- the thread ----------------------------------------------------------------------------------

static void take_opened(struct sl_sides *sides)
{
	struct sl_side *side = __atomic_exchange_n(&sides->opened, NULL, __ATOMIC_ACQ_REL), *next;

	for (; side; side = next) {
		next = side->next;
		side->next = sides->first;
		sides->first = side;
		sides->count++;
	}
}

// The thread is both ends now: what its shard has never taken comes back as it is.
static void call_back(struct sl_side *side)
{
	void *item;

	while ((item = sl_side_take(side)))
		sl_side_return(side, item);
}

static void free_closed(struct sl_sides *sides)
{
	struct sl_side *side;

	for (struct sl_side **link = &sides->first; (side = *link);) {
		if (__atomic_load_n(&side->state, __ATOMIC_ACQUIRE) != SL_SIDE_CLOSED) {
			link = &side->next;
			continue;
		}
		*link = side->next;
		sides->count--;
		if (sides->kind->up) {
			call_back(side);
			sides->kind->gone(sides, side);
		}
		assert(sl_loan_out(&side->up) == 0);
		free_side(side);
	}
}

void sl_sides_turn(struct sl_sides *sides)
{
	// Before the sides: all were closed before it was set.
	sides->ending = __atomic_load_n(&sides->stop, __ATOMIC_ACQUIRE);
	if (!sides->kind->elsewhere)
		sl_waker_clear(&sides->waker);
	take_opened(sides);
	free_closed(sides);
}

bool sl_sides_are_over(const struct sl_sides *sides)
{
	return sides->ending && !sides->first;
}

void sl_sides_wake(struct sl_sides *sides)
{
	for (struct sl_side *side = sides->first; side; side = side->next) {
		if (!side->told)
			continue;
		side->told = false;
		__atomic_store_n(&side->waking, 1, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&side->state, __ATOMIC_SEQ_CST) == SL_SIDE_OPEN)
			sl_waker_wake(side->waker);
		__atomic_store_n(&side->waking, 0, __ATOMIC_RELEASE);
	}
}

void sl_sides_wait(const struct sl_sides *sides, int wait_ms)
{
	struct pollfd wait = {.fd = sides->waker.fd, .events = POLLIN};

	poll(&wait, 1, wait_ms);
}

void sl_sides_rotate(struct sl_sides *sides)
{
	struct sl_side *first = sides->first, **last = &sides->first;

	if (!first || !first->next)
		return;
	while (*last)
		last = &(*last)->next;
	*last = first;
	sides->first = first->next;
	first->next = NULL;
}

void sl_helper_tell(struct sl_side *side)
{
	side->told = true;
}

bool sl_helper_is_leaving(const struct sl_side *side)
{
	return __atomic_load_n(&side->state, __ATOMIC_RELAXED) != SL_SIDE_OPEN;
}
