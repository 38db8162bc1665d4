#include "dataplane/base/timer.h"

// A timer lies in the slot of the tick at which it may fire: the first that begins at or after
// its time. Every SL_TIMER_SLOTS / 2 ticks what has come near moves from `far` into the wheel.
#define FAR_EVERY (SL_TIMER_SLOTS / 2)

static uint64_t tick_of(uint64_t at_ns)
{
	return (at_ns + SL_TIMER_TICK_NS - 1) / SL_TIMER_TICK_NS;
}

static void link_in(struct sl_timer **list, struct sl_timer *timer)
{
	timer->next = *list;
	if (timer->next)
		timer->next->link = &timer->next;
	timer->link = list;
	*list = timer;
}

static void link_out(struct sl_timer *timer)
{
	*timer->link = timer->next;
	if (timer->next)
		timer->next->link = timer->link;
	timer->link = NULL;
}

void sl_timers_init(struct sl_timers *timers, uint64_t now_ns)
{
	memset(timers, 0, sizeof(*timers));
	timers->tick = now_ns / SL_TIMER_TICK_NS;
	timers->far_sorted_tick = timers->tick + FAR_EVERY;
}

static void place(struct sl_timers *timers, struct sl_timer *timer)
{
	uint64_t tick = tick_of(timer->at_ns);

	if (tick < timers->tick)
		tick = timers->tick;
	if (tick - timers->tick < SL_TIMER_SLOTS)
		link_in(&timers->slots[tick % SL_TIMER_SLOTS], timer);
	else
		link_in(&timers->far, timer);
}

void sl_timer_set(struct sl_timers *timers, struct sl_timer *timer, uint64_t at_ns)
{
	assert(timer->fire);
	if (timer->link)
		link_out(timer);
	else
		timers->armed++;
	timer->at_ns = at_ns;
	place(timers, timer);
}

void sl_timer_cancel(struct sl_timers *timers, struct sl_timer *timer)
{
	if (!timer->link)
		return;
	link_out(timer);
	timers->armed--;
}

static void bring_near(struct sl_timers *timers)
{
	struct sl_timer *next;

	for (struct sl_timer *timer = timers->far; timer; timer = next) {
		next = timer->next;
		if (tick_of(timer->at_ns) < timers->tick + SL_TIMER_SLOTS) {
			link_out(timer);
			place(timers, timer);
		}
	}
	timers->far_sorted_tick = timers->tick + FAR_EVERY;
}

unsigned sl_timers_run(struct sl_timers *timers, uint64_t now_ns)
{
	const uint64_t now_tick = now_ns / SL_TIMER_TICK_NS;
	unsigned fired = 0;

	if (!timers->armed && timers->tick <= now_tick) {
		timers->tick = now_tick + 1;
		timers->far_sorted_tick = timers->tick + FAR_EVERY;
		return 0;
	}
	while (timers->tick <= now_tick) {
		struct sl_timer *due = timers->slots[timers->tick % SL_TIMER_SLOTS];

		// Detached first: what fires may arm timers, which then wait for a later tick.
		timers->slots[timers->tick % SL_TIMER_SLOTS] = NULL;
		if (due)
			due->link = &due;
		timers->tick++;
		if (timers->tick >= timers->far_sorted_tick)
			bring_near(timers);
		while (due) {
			struct sl_timer *timer = due;

			link_out(timer);
			timers->armed--;
			fired++;
			timer->fire(timer, now_ns);
		}
	}
	return fired;
}

uint64_t sl_timers_wait_ns(const struct sl_timers *timers, uint64_t now_ns, uint64_t most_ns)
{
	const uint64_t ticks_max = most_ns / SL_TIMER_TICK_NS + 1;
	uint64_t tick = timers->tick;
	uint64_t at_ns;

	if (!timers->armed)
		return most_ns;
	for (uint64_t i = 0; i < SL_TIMER_SLOTS && i <= ticks_max; i++, tick++) {
		if (timers->slots[tick % SL_TIMER_SLOTS] || tick + 1 >= timers->far_sorted_tick)
			break;
	}
	at_ns = tick * SL_TIMER_TICK_NS;
	if (at_ns <= now_ns)
		return 0;
	return SL_MIN(at_ns - now_ns, most_ns);
}
