#include "routing/spool/spool.h"

#include <poll.h>
#include <sched.h>
#include <stdlib.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/log.h"
#include "routing/spool/running.h"

#define RING_COUNT     4096 // records of one shard with the thread
#define GROUP_BYTES    (16 * SL_MIB)
#define TICK_NS        SL_S
#define BACKOFF_MAX_NS (5 * SL_S)
#define REFUSE_NS      SL_S // after a failure nothing is handed over for so long

// --- the thread: in ------------------------------------------------------------------------------

// Another side is the first next time.
static void rotate_sides(struct sl_spool *spool)
{
	struct sl_spool_side *first = spool->sides, **last = &spool->sides;

	if (!first || !first->next)
		return;
	while (*last)
		last = &(*last)->next;
	*last = first;
	spool->sides = first->next;
	first->next = NULL;
}

// A share for each shard, so that busy ones do not starve the others.
static uint32_t collect(struct sl_spool *spool, bool *sync)
{
	const uint64_t bytes_max = SL_MIN(GROUP_BYTES, spool->now.bytes_max / 4);
	uint32_t count = 0;
	uint64_t bytes = 0;

	*sync = spool->now.fsync == SL_SPOOL_FSYNC_ALWAYS;
	for (struct sl_spool_side *side = spool->sides; side; side = side->next) {
		for (uint32_t i = 0;
		     i < SL_SPOOL_GROUP_MAX / 4 && count < SL_SPOOL_GROUP_MAX && bytes < bytes_max;
		     i++) {
			struct sl_record *record = sl_ring_pop(&side->todo);

			if (!record)
				break;
			*sync |= record->driver_data != NULL;
			bytes += record->bytes;
			spool->group[count++] = (struct sl_spool_handed){record, side};
		}
	}
	rotate_sides(spool);
	return count;
}

static int append(struct sl_spool *spool, uint32_t count, bool sync)
{
	const uint64_t wall_ns = sl_clock_wall_ns();
	int failed;

	for (uint32_t i = 0; i < count; i++) {
		const struct sl_record *record = spool->group[i].record;

		spool->writes[i] = (struct sl_spool_write){
			.entry = {.signal = record->signal,
				  .items = record->items,
				  .body_bytes = (uint32_t)record->bytes,
				  .wall_ns = wall_ns,
				  .tenant = record->tenant_name,
				  .key = record->key},
			.pieces = record->pieces,
			.piece_count = record->piece_count,
		};
	}
	failed = sl_spool_store_append(spool->store, spool->writes, count, sync);
	spool->dirty |= !failed && !sync;
	return failed;
}

static void tell_failure(struct sl_spool *spool, int failed)
{
	if (failed)
		__atomic_store_n(&spool->refuse_until_ns, sl_clock_now_ns() + REFUSE_NS,
				 __ATOMIC_RELAXED);
	if (!!failed == spool->refusing)
		return;
	spool->refusing = failed != 0;
	if (failed)
		sl_log(SL_LOG_ERROR, "spool_refuses", "folder=\"%s\" reason=\"%s\"", spool->path,
		       strerror(-failed));
	else
		sl_log(SL_LOG_INFO, "spool_takes_again", "folder=\"%s\"", spool->path);
}

// One append and at most one sync for all that shards have handed over meanwhile.
static bool take_records(struct sl_spool *spool)
{
	bool sync;
	const uint32_t count = collect(spool, &sync);
	int failed;

	if (!count)
		return false;
	failed = append(spool, count, sync);
	tell_failure(spool, failed);
	for (uint32_t i = 0; i < count; i++) {
		struct sl_spool_handed *entry = &spool->group[i];

		entry->record->driver_data = failed ? NULL : entry->record;
		// A shard has no more with the thread than the ring holds.
		if (!sl_ring_push(&entry->side->done, entry->record))
			abort();
		entry->side->told = 1;
	}
	return true;
}

// --- the thread: out -----------------------------------------------------------------------------

// One that fails while others are delivered goes to the end: it must not hold up what is behind it.
static bool put_last(struct sl_spool *spool, const struct sl_spool_read *read)
{
	const struct iovec piece = {(void *)(uintptr_t)read->body.data, read->body.size};
	const struct sl_spool_write write = {
		.entry = read->entry, .pieces = &piece, .piece_count = 1};

	if (!spool->delivered || sl_spool_store_append(spool->store, &write, 1, true) < 0)
		return false;
	sl_log(SL_LOG_WARN, "spool_put_last",
	       "folder=\"%s\" items=%u reason=\"fails while others "
	       "are delivered\"",
	       spool->path, read->entry.items);
	return true;
}

static void judge(struct sl_spool *spool, bool gone)
{
	const uint64_t now_ns = sl_clock_now_ns();

	spool->delivered = gone;
	if (gone) {
		spool->failing = false;
		spool->backoff_ns = SL_SPOOL_BACKOFF_MIN_NS;
	} else if (!spool->failing || now_ns >= spool->try_ns) {
		spool->failing = true;
		spool->try_ns = now_ns + spool->backoff_ns;
		spool->backoff_ns = SL_MIN(spool->backoff_ns * 2, BACKOFF_MAX_NS);
	}
}

static void end_replay(struct sl_spool *spool, struct sl_spool_replay *replay)
{
	const enum sl_spool_end end = replay->end;

	spool->out_count--;
	spool->out_bytes -= replay->read->body.size;
	replay->side->out_count--;
	sl_spool_store_end(spool->store, replay->read->slot,
			   end == SL_SPOOL_END_GONE ||
				   (end == SL_SPOOL_END_FAILED && put_last(spool, replay->read)));
	if (end != SL_SPOOL_END_UNTRIED)
		judge(spool, end == SL_SPOOL_END_GONE);
	free(replay->read);
	free(replay);
}

static bool take_ends(struct sl_spool *spool)
{
	bool any = false;

	for (struct sl_spool_side *side = spool->sides; side; side = side->next) {
		struct sl_spool_replay *replay;

		while ((replay = sl_ring_pop(&side->ended))) {
			end_replay(spool, replay);
			any = true;
		}
	}
	return any;
}

static struct sl_spool_side *next_side(struct sl_spool *spool)
{
	struct sl_spool_side *side = spool->turn;

	for (unsigned rounds = 0; rounds < 2; side = NULL, rounds++) {
		for (side = side ? side->next : spool->sides; side; side = side->next) {
			if (__atomic_load_n(&side->retired, __ATOMIC_RELAXED) ||
			    __atomic_load_n(&side->leaving, __ATOMIC_RELAXED))
				continue;
			spool->turn = side;
			return side;
		}
	}
	return NULL;
}

static bool send_replay(struct sl_spool *spool)
{
	struct sl_spool_side *side;
	struct sl_spool_replay *replay;

	spool->held = spool->failing && !spool->out_count && sl_clock_now_ns() < spool->try_ns;
	if (spool->out_bytes >= SL_SPOOL_OUT_BYTES || spool->out_count >= SL_SPOOL_OUT_MAX ||
	    (spool->failing && spool->out_count) || spool->held)
		return false;
	side = next_side(spool);
	replay = side ? malloc(sizeof(*replay)) : NULL;
	if (!replay)
		return false;
	// While it fails, it may be the fault of the one that came back: others have their turn.
	replay->read = sl_spool_store_next(spool->store, spool->failing && spool->probes++ % 2);
	replay->side = side;
	replay->end = SL_SPOOL_END_UNTRIED; // until its shard says more
	if (!replay->read) {
		free(replay);
		return false;
	}
	spool->out_count++;
	spool->out_bytes += replay->read->body.size;
	side->out_count++;
	side->told = 1;
	if (!sl_ring_push(&side->out, replay)) // holds as many as may be out
		abort();
	return true;
}

// --- the thread ----------------------------------------------------------------------------------

static void wake_sides(struct sl_spool *spool)
{
	for (struct sl_spool_side *side = spool->sides; side; side = side->next) {
		if (!side->told)
			continue;
		side->told = 0;
		__atomic_store_n(&side->busy, 1, __ATOMIC_SEQ_CST);
		if (!__atomic_load_n(&side->leaving, __ATOMIC_SEQ_CST))
			sl_waker_wake(side->waker);
		__atomic_store_n(&side->busy, 0, __ATOMIC_SEQ_CST);
	}
}

static void free_side(struct sl_spool_side *side)
{
	sl_ring_fini(&side->todo);
	sl_ring_fini(&side->done);
	sl_ring_fini(&side->out);
	sl_ring_fini(&side->ended);
	free(side);
}

// Takes what shards have opened, frees what they have closed.
static void update_sides(struct sl_spool *spool)
{
	struct sl_spool_side *side = __atomic_exchange_n(&spool->opened, NULL, __ATOMIC_ACQUIRE);
	struct sl_spool_side *next;

	for (; side; side = next) {
		next = side->next;
		side->next = spool->sides;
		spool->sides = side;
	}
	for (struct sl_spool_side **link = &spool->sides; (side = *link);) {
		struct sl_spool_replay *replay;

		if (!__atomic_load_n(&side->closed, __ATOMIC_ACQUIRE)) {
			link = &side->next;
			continue;
		}
		while ((replay = sl_ring_pop(&side->ended)))
			end_replay(spool, replay);
		while ((replay = sl_ring_pop(&side->out))) // never seen by its shard
			end_replay(spool, replay);
		assert(!side->out_count);
		*link = side->next;
		if (spool->turn == side)
			spool->turn = NULL;
		free_side(side);
	}
}

// Under settings_lock: the teller may be going.
static void wake_teller(struct sl_spool *spool)
{
	struct sl_spool_side *teller = spool->teller ? spool->teller : spool->sides;

	if (teller)
		teller->told = 1;
}

void sl_spool_publish(struct sl_spool *spool)
{
	const struct sl_spool_figures *figures = sl_spool_store_figures(spool->store);
	struct sl_spool_figures *told = &spool->told;

	__atomic_store_n(&spool->behind, !sl_spool_store_is_empty(spool->store), __ATOMIC_RELEASE);
	if (memcmp(figures, told, sizeof(*told)) == 0)
		return;
	pthread_mutex_lock(&spool->settings_lock);
	spool->news.bytes = figures->bytes;
	spool->news.age_ns = figures->age_ns;
	for (unsigned i = 0; i < SL_SIGNALS; i++) {
		spool->news.items[i] = figures->items[i];
		spool->news.dropped_items[i] += figures->dropped_items[i] - told->dropped_items[i];
		spool->news.recovered_items[i] += figures->recovered_items[i] -
						  told->recovered_items[i];
	}
	spool->news.damaged += figures->damaged - told->damaged;
	spool->news.read_errors += figures->read_errors - told->read_errors;
	spool->untold = true;
	wake_teller(spool);
	pthread_mutex_unlock(&spool->settings_lock);
	*told = *figures;
}

static void take_settings(struct sl_spool *spool)
{
	struct sl_spool_limits limits;

	if (__atomic_load_n(&spool->config_version, __ATOMIC_ACQUIRE) == spool->now_version)
		return;
	pthread_mutex_lock(&spool->settings_lock);
	spool->now = spool->config;
	spool->now_version = spool->config_version;
	pthread_mutex_unlock(&spool->settings_lock);
	limits = sl_spool_limits_of(&spool->now);
	sl_spool_store_limit(spool->store, &limits);
}

static void tick(struct sl_spool *spool, uint64_t now_ns)
{
	if (spool->dirty && spool->now.fsync == SL_SPOOL_FSYNC_INTERVAL &&
	    now_ns - spool->synced_ns >= spool->now.fsync_interval_ns) {
		const int failed = sl_spool_store_sync(spool->store);

		if (failed)
			sl_log(SL_LOG_ERROR, "spool_not_synced", "folder=\"%s\" reason=\"%s\"",
			       spool->path, strerror(-failed));
		spool->dirty = false;
		spool->synced_ns = now_ns;
	}
	if (now_ns - spool->ticked_ns < TICK_NS)
		return;
	spool->ticked_ns = now_ns;
	sl_spool_store_tick(spool->store, sl_clock_wall_ns());
	// A shard that was told so a moment ago has not looked again.
	pthread_mutex_lock(&spool->settings_lock);
	if (spool->untold)
		wake_teller(spool);
	pthread_mutex_unlock(&spool->settings_lock);
}

static int wait_ms(const struct sl_spool *spool, uint64_t now_ns)
{
	uint64_t due_ns = spool->ticked_ns + TICK_NS;

	if (spool->dirty && spool->now.fsync == SL_SPOOL_FSYNC_INTERVAL)
		due_ns = SL_MIN(due_ns, spool->synced_ns + spool->now.fsync_interval_ns);
	if (spool->held)
		due_ns = SL_MIN(due_ns, spool->try_ns);
	return due_ns <= now_ns ? 1 : (int)((due_ns - now_ns) / SL_MS) + 1;
}

void *sl_spool_thread(void *argument)
{
	struct sl_spool *spool = argument;

	for (;;) {
		struct pollfd wait = {.fd = spool->waker.fd, .events = POLLIN};
		const bool stop = __atomic_load_n(&spool->stop, __ATOMIC_ACQUIRE);
		bool worked;

		sl_waker_clear(&spool->waker);
		take_settings(spool);
		update_sides(spool);
		worked = take_records(spool);
		worked |= take_ends(spool);
		for (unsigned i = 0; i < SL_SPOOL_OUT_MAX / 8 && send_replay(spool); i++)
			worked = true;
		tick(spool, sl_clock_now_ns());
		sl_spool_publish(spool);
		wake_sides(spool);
		if (worked)
			continue;
		if (stop && !spool->sides)
			break;
		poll(&wait, 1, wait_ms(spool, sl_clock_now_ns()));
	}
	return NULL;
}

// --- a shard's side ------------------------------------------------------------------------------

struct sl_spool_side *sl_spool_side_open(struct sl_spool *spool, struct sl_waker *waker)
{
	struct sl_spool_side *side = NULL;

	if (posix_memalign((void **)&side, SL_CACHE_LINE, sizeof(*side)) != 0)
		return NULL;
	memset(side, 0, sizeof(*side));
	side->spool = spool;
	side->waker = waker;
	if (sl_ring_init(&side->todo, RING_COUNT) < 0 ||
	    sl_ring_init(&side->done, RING_COUNT) < 0 ||
	    sl_ring_init(&side->out, SL_SPOOL_OUT_MAX) < 0 ||
	    sl_ring_init(&side->ended, SL_SPOOL_OUT_MAX) < 0) {
		free_side(side);
		return NULL;
	}
	side->next = __atomic_load_n(&spool->opened, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&spool->opened, &side->next, side, true,
					    __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
	sl_waker_wake(&spool->waker);
	return side;
}

void sl_spool_side_close(struct sl_spool_side *side)
{
	struct sl_spool *spool = side->spool;

	assert(!side->in_flight && !side->replays);
	pthread_mutex_lock(&spool->settings_lock);
	if (spool->teller == side)
		spool->teller = NULL;
	pthread_mutex_unlock(&spool->settings_lock);
	__atomic_store_n(&side->leaving, 1, __ATOMIC_SEQ_CST);
	// The thread may be about to wake a shard that goes.
	while (__atomic_load_n(&side->busy, __ATOMIC_SEQ_CST))
		sched_yield();
	__atomic_store_n(&side->closed, 1, __ATOMIC_RELEASE); // the thread frees it
	sl_waker_wake(&spool->waker);
}

bool sl_spool_side_take(struct sl_spool_side *side, struct sl_record *record, bool sync,
			uint64_t now_ns)
{
	if (side->in_flight == RING_COUNT ||
	    now_ns < __atomic_load_n(&side->spool->refuse_until_ns, __ATOMIC_RELAXED))
		return false;
	record->driver_data = sync ? record : NULL;
	if (!sl_ring_push(&side->todo, record))
		return false;
	side->in_flight++;
	side->pushed = true;
	return true;
}

struct sl_record *sl_spool_side_confirmed(struct sl_spool_side *side, bool *kept)
{
	struct sl_record *record = sl_ring_pop(&side->done);

	if (!record)
		return NULL;
	side->in_flight--;
	*kept = record->driver_data != NULL;
	return record;
}

struct sl_spool_replay *sl_spool_side_replay(struct sl_spool_side *side)
{
	struct sl_spool_replay *replay = sl_ring_pop(&side->out);

	side->replays += replay != NULL;
	return replay;
}

void sl_spool_side_retire(struct sl_spool_side *side, bool retired)
{
	__atomic_store_n(&side->retired, retired, __ATOMIC_RELAXED);
}

void sl_spool_side_end(struct sl_spool_replay *replay, enum sl_spool_end end)
{
	struct sl_spool_side *side = replay->side;

	replay->end = end;
	side->replays--;
	side->pushed = true;
	if (!sl_ring_push(&side->ended, replay)) // holds as many as may be out
		abort();
}

void sl_spool_side_flush(struct sl_spool_side *side)
{
	if (!side->pushed)
		return;
	side->pushed = false;
	sl_waker_wake(&side->spool->waker);
}

bool sl_spool_side_is_behind(const struct sl_spool_side *side)
{
	return __atomic_load_n(&side->spool->behind, __ATOMIC_ACQUIRE);
}

bool sl_spool_side_news(struct sl_spool_side *side, struct sl_spool_news *news)
{
	struct sl_spool *spool = side->spool;
	bool teller;

	if (pthread_mutex_trylock(&spool->settings_lock) != 0)
		return false; // next time
	if (!spool->teller)
		spool->teller = side;
	teller = spool->teller == side;
	if (teller) {
		*news = spool->news;
		spool->untold = false;
		memset(spool->news.recovered_items, 0, sizeof(spool->news.recovered_items));
		memset(spool->news.dropped_items, 0, sizeof(spool->news.dropped_items));
		spool->news.damaged = spool->news.read_errors = 0;
	}
	pthread_mutex_unlock(&spool->settings_lock);
	return teller;
}
