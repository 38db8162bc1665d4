#pragma once

#include "dataplane/base/base.h"

// Timers of one shard: a wheel of 4 ms ticks with an overflow list, so arming, moving and
// cancelling cost O(1). A timer fires at its time or up to one tick later, never before.
//
// Threading: owned by one shard. Memory: a timer is embedded in its owner, which must cancel it
// before it goes. Time: passed in.
struct sl_timer {
	struct sl_timer *next, **link; // link is NULL when idle
	uint64_t at_ns;
	void (*fire)(struct sl_timer *timer, uint64_t now_ns);
};

#define SL_TIMER_TICK_NS (4 * SL_MS)
#define SL_TIMER_SLOTS   1024 // about 4 s; what lies further waits in `far`

struct sl_timers {
	uint64_t tick; // the first tick not yet run
	uint32_t armed;
	struct sl_timer *slots[SL_TIMER_SLOTS];
	struct sl_timer *far;
	uint64_t far_sorted_tick; // when `far` is looked through again
};

void sl_timers_init(struct sl_timers *timers, uint64_t now_ns);

// Arms or moves; `fire` runs with the timer idle and may arm it again.
void sl_timer_set(struct sl_timers *timers, struct sl_timer *timer, uint64_t at_ns);
void sl_timer_cancel(struct sl_timers *timers, struct sl_timer *timer);

SL_INLINE bool sl_timer_armed(const struct sl_timer *timer)
{
	return timer->link != NULL;
}

// Fires what is due. Returns how many fired.
unsigned sl_timers_run(struct sl_timers *timers, uint64_t now_ns);

// How long a poll may wait from `now_ns` so that no timer is late; at most `most_ns`.
uint64_t sl_timers_wait_ns(const struct sl_timers *timers, uint64_t now_ns, uint64_t most_ns);
