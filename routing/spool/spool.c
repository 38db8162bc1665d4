#include "routing/spool/spool.h"

#include <errno.h>
#include <stdlib.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/log.h"
#include "routing/dead_letter.h"
#include "routing/spool/running.h"

#define RECORDS_MAX    4096 // of one shard with the thread
#define GROUP_BYTES    (16 * SL_MIB)
#define TICK_NS        SL_S
#define BACKOFF_MAX_NS (5 * SL_S)
#define OPEN_AGAIN_NS  (2 * SL_S)
#define FORGET_NS      (10 * SL_S) // what is as large did not come again
#define REFUSE_NS      SL_S        // after a failure nothing is handed over for so long

// --- the thread: in ------------------------------------------------------------------------------

// A share for each shard, so that busy ones do not starve the others.
static uint32_t collect(struct sl_spool *spool, bool *sync)
{
	const uint64_t bytes_max = SL_MIN(GROUP_BYTES, spool->now.bytes_max / 4);
	uint32_t count = 0;
	uint64_t bytes = 0;

	*sync = spool->now.fsync == SL_SPOOL_FSYNC_ALWAYS;
	for (struct sl_side *side = spool->sides.first; side; side = side->next) {
		for (uint32_t i = 0;
		     i < SL_SPOOL_GROUP_MAX / 4 && count < SL_SPOOL_GROUP_MAX && bytes < bytes_max;
		     i++) {
			struct sl_record *record = sl_helper_take(side);

			if (!record)
				break;
			*sync |= record->driver_data != NULL;
			bytes += record->bytes;
			spool->group[count++] = (struct sl_spool_handed){record, side};
		}
	}
	sl_sides_rotate(&spool->sides);
	return count;
}

static void prepare(struct sl_spool *spool, uint32_t count)
{
	const uint64_t wall_ns = sl_clock_wall_ns();

	for (uint32_t i = 0; i < count; i++) {
		const struct sl_record *record = spool->group[i].record;
		const struct sl_bytes front = record->letter ? record->letter->wire : SL_BYTES_NONE;

		spool->writes[i] = (struct sl_spool_write){
			.entry = {.signal = record->signal,
				  .items = record->items,
				  .body_bytes = (uint32_t)(front.size + record->bytes),
				  .wall_ns = wall_ns,
				  .tenant = record->tenant_name,
				  .key = record->key,
				  .letter = record->letter != NULL},
			.front = front,
			.pieces = record->pieces,
			.piece_count = record->piece_count,
		};
	}
}

void sl_spool_refuses(struct sl_spool *spool, uint64_t bytes, const char *why)
{
	const uint64_t now_ns = sl_clock_now_ns();

	if (now_ns >= spool->refuse_until_ns || bytes < spool->refuse_bytes)
		__atomic_store_n(&spool->refuse_bytes, bytes, __ATOMIC_RELAXED);
	__atomic_store_n(&spool->refuse_until_ns, now_ns + REFUSE_NS, __ATOMIC_RELAXED);
	if (!spool->refusing)
		sl_log(SL_LOG_ERROR, "spool_refuses", "destination=%s folder=\"%s\" reason=\"%s\"",
		       spool->now.destination, spool->path, why);
	spool->refusing = true;
}

static void take_again(struct sl_spool *spool)
{
	if (spool->refusing)
		sl_log(SL_LOG_INFO, "spool_takes_again", "destination=%s folder=\"%s\"",
		       spool->now.destination, spool->path);
	spool->refusing = false;
}

// That a small one has found room says nothing of those that had none.
static void took(struct sl_spool *spool, uint64_t bytes)
{
	const uint64_t now_ns = spool->refusing ? sl_clock_now_ns() : 0;

	if (now_ns >= spool->refuse_until_ns &&
	    (bytes >= spool->refuse_bytes || now_ns - spool->refuse_until_ns >= FORGET_NS))
		take_again(spool);
}

// All of it at once, with one sync; where there is no room for that, what there is room for.
static void append(struct sl_spool *spool, uint32_t first, uint32_t count, bool sync)
{
	const struct sl_spool_write *writes = spool->writes + first;
	const int failed = spool->store ? sl_spool_store_append(spool->store, writes, count, sync)
					: -ENODEV;
	const bool full = failed == -ENOSPC || failed == -EDQUOT;
	uint64_t most = 0;

	if (full && count > 1) {
		append(spool, first, count / 2, sync);
		append(spool, first + count / 2, count - count / 2, sync);
		return;
	}
	spool->dirty |= !failed && !sync;
	for (uint32_t i = 0; i < count; i++) {
		struct sl_record *record = spool->group[first + i].record;

		record->driver_data = failed ? NULL : record;
		most = SL_MAX(most, (uint64_t)writes[i].entry.body_bytes);
		spool->kept_items += failed ? 0 : record->items;
	}
	if (failed) {
		sl_spool_refuses(spool, full ? most : 0, strerror(-failed));
		return;
	}
	// Before shards hear of it: nothing passes what they know to be there.
	__atomic_store_n(&spool->behind, 1, __ATOMIC_RELEASE);
	took(spool, most);
}

// A disk that did not let it open the folder may do so later.
static void open_again(struct sl_spool *spool, uint64_t now_ns)
{
	char why[SL_DISK_WHY];
	uint64_t tries;

	if (now_ns < spool->open_due_ns)
		return;
	spool->open_due_ns = now_ns + OPEN_AGAIN_NS;
	if (sl_spool_open(spool, why) == 0) {
		take_again(spool);
		return;
	}
	tries = sl_log_spell_more(&spool->not_opened, now_ns);
	if (tries)
		sl_log(SL_LOG_ERROR, "spool_not_opened", "folder=\"%s\" reason=\"%s\" count=%llu",
		       spool->path, why, (unsigned long long)tries);
}

// One append and at most one sync for all that shards have handed over meanwhile, while there is
// room.
static bool take_records(struct sl_spool *spool)
{
	bool sync;
	const uint32_t count = collect(spool, &sync);
	const char *cause;

	if (!count)
		return false;
	spool->kept_items = 0;
	prepare(spool, count);
	append(spool, 0, count, sync);
	cause = __atomic_exchange_n(&spool->cause, NULL, __ATOMIC_RELAXED);
	if (spool->kept_items)
		sl_outage_more(&spool->outage, cause, spool->kept_items, sl_clock_now_ns());
	for (uint32_t i = 0; i < count; i++) {
		struct sl_spool_handed *entry = &spool->group[i];

		sl_helper_return(entry->side, entry->record);
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
	if (!gone)
		sl_outage_more(&spool->outage, "not delivered from the disk", 0, now_ns);
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

	for (struct sl_side *side = spool->sides.first; side; side = side->next) {
		struct sl_spool_replay *replay;

		while ((replay = sl_helper_settle(side))) {
			end_replay(spool, replay);
			any = true;
		}
	}
	return any;
}

static struct sl_side *next_side(struct sl_spool *spool)
{
	struct sl_side *side = spool->turn;

	for (unsigned rounds = 0; rounds < 2; side = NULL, rounds++) {
		for (side = side ? side->next : spool->sides.first; side; side = side->next) {
			const struct sl_spool_side *own = (struct sl_spool_side *)side;

			if (__atomic_load_n(&own->retired, __ATOMIC_RELAXED) ||
			    sl_helper_is_leaving(side))
				continue;
			spool->turn = side;
			return side;
		}
	}
	return NULL;
}

static bool send_replay(struct sl_spool *spool)
{
	struct sl_spool_replay *replay;
	struct sl_side *side;
	bool given;

	spool->held = spool->failing && !spool->out_count && sl_clock_now_ns() < spool->try_ns;
	if (!spool->store || spool->out_bytes >= SL_SPOOL_OUT_BYTES ||
	    spool->out_count >= SL_SPOOL_OUT_MAX || (spool->failing && spool->out_count) ||
	    spool->held)
		return false;
	side = next_side(spool);
	replay = side ? malloc(sizeof(*replay)) : NULL;
	if (!replay)
		return false;
	// While it fails, it may be the fault of the one that came back: others have their turn.
	replay->read = sl_spool_store_next(spool->store, spool->failing && spool->probes++ % 2);
	replay->side = (struct sl_spool_side *)side;
	replay->end = SL_SPOOL_END_UNTRIED; // until its shard says more
	if (!replay->read) {
		free(replay);
		return false;
	}
	spool->out_count++;
	spool->out_bytes += replay->read->body.size;
	given = sl_helper_give(side, replay);
	assert(given); // a side may have as many as may be out
	return true;
}

// --- the thread ----------------------------------------------------------------------------------

// A side goes; its shard may have left replays in the ring.
static void side_gone(struct sl_sides *sides, struct sl_side *side)
{
	struct sl_spool *spool = SL_CONTAINER_OF(sides, struct sl_spool, sides);
	struct sl_spool_replay *replay;

	while ((replay = sl_helper_settle(side)))
		end_replay(spool, replay);
	if (spool->turn == side)
		spool->turn = NULL;
}

const struct sl_sides_kind sl_spool_sides = {
	.name = "spool",
	.side_bytes = sizeof(struct sl_spool_side),
	.down = RECORDS_MAX,
	.up = SL_SPOOL_OUT_MAX,
	.gone = side_gone,
};

// Under settings_lock: the teller may be going.
static void wake_teller(struct sl_spool *spool)
{
	struct sl_side *teller = spool->teller ? spool->teller : spool->sides.first;

	if (teller)
		sl_helper_tell(teller);
}

void sl_spool_publish(struct sl_spool *spool)
{
	static const struct sl_spool_figures none;
	const struct sl_spool_figures *figures = spool->store ? sl_spool_store_figures(spool->store)
							      : &none;
	struct sl_spool_figures *told = &spool->told;
	const bool behind = spool->store && !sl_spool_store_is_empty(spool->store);

	__atomic_store_n(&spool->behind, behind, __ATOMIC_RELEASE);
	if (memcmp(figures, told, sizeof(*told)) == 0 && spool->told_refusing == spool->refusing)
		return;
	pthread_mutex_lock(&spool->settings_lock);
	spool->news.bytes = figures->bytes;
	spool->news.age_ns = figures->age_ns;
	spool->news.aside = figures->aside;
	spool->news.refusing = spool->refusing;
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
	spool->told_refusing = spool->refusing;
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
	if (spool->store)
		sl_spool_store_limit(spool->store, &limits);
}

// Where nothing comes any more nothing is refused: at once if there is room for all, else in a
// while.
static void stop_refusing(struct sl_spool *spool, uint64_t now_ns)
{
	if (!spool->refusing || !spool->store || now_ns < spool->refuse_until_ns)
		return;
	if (sl_spool_store_is_empty(spool->store) || now_ns - spool->refuse_until_ns >= FORGET_NS)
		take_again(spool);
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
	if (!spool->store)
		open_again(spool, now_ns);
	if (spool->store)
		sl_spool_store_tick(spool->store, sl_clock_wall_ns());
	stop_refusing(spool, now_ns);
	// A shard that was told so a moment ago has not looked again.
	pthread_mutex_lock(&spool->settings_lock);
	if (spool->untold)
		wake_teller(spool);
	pthread_mutex_unlock(&spool->settings_lock);
}

static void tell_outage(struct sl_spool *spool, uint64_t now_ns)
{
	struct sl_outage *outage = &spool->outage;

	if (sl_outage_tell(outage, now_ns))
		sl_log(SL_LOG_WARN, "spool_begins",
		       "destination=%s folder=\"%s\" cause=\"%s\" untold=%u",
		       spool->now.destination, spool->path, outage->cause, outage->untold);
	if (!spool->behind && sl_outage_end(outage))
		sl_log(SL_LOG_INFO, "spool_empty",
		       "destination=%s folder=\"%s\" seconds=%llu items=%llu",
		       spool->now.destination, spool->path,
		       (unsigned long long)((now_ns - outage->began_ns) / SL_S),
		       (unsigned long long)outage->count);
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
		bool worked;

		sl_sides_turn(&spool->sides);
		take_settings(spool);
		worked = take_records(spool);
		worked |= take_ends(spool);
		for (unsigned i = 0; i < SL_SPOOL_OUT_MAX / 8 && send_replay(spool); i++)
			worked = true;
		tick(spool, sl_clock_now_ns());
		sl_spool_publish(spool);
		if (spool->outage.cause)
			tell_outage(spool, sl_clock_now_ns());
		sl_sides_wake(&spool->sides);
		if (worked)
			continue;
		if (sl_sides_are_over(&spool->sides))
			break;
		sl_sides_wait(&spool->sides, wait_ms(spool, sl_clock_now_ns()));
	}
	return NULL;
}

// --- a shard's side ------------------------------------------------------------------------------

static struct sl_spool *spool_of(const struct sl_spool_side *side)
{
	return SL_CONTAINER_OF(side->base.sides, struct sl_spool, sides);
}

struct sl_spool_side *sl_spool_side_open(struct sl_spool *spool, struct sl_waker *waker)
{
	return sl_side_open(&spool->sides, waker);
}

void sl_spool_side_close(struct sl_spool_side *side)
{
	struct sl_spool *spool = spool_of(side);

	pthread_mutex_lock(&spool->settings_lock);
	if (spool->teller == &side->base)
		spool->teller = NULL;
	pthread_mutex_unlock(&spool->settings_lock);
	sl_side_close(&side->base);
}

bool sl_spool_side_take(struct sl_spool_side *side, struct sl_record *record, bool sync,
			const char *cause, uint64_t now_ns)
{
	struct sl_spool *spool = spool_of(side);

	if (sl_side_is_full(&side->base) ||
	    (now_ns < __atomic_load_n(&spool->refuse_until_ns, __ATOMIC_RELAXED) &&
	     record->bytes >= __atomic_load_n(&spool->refuse_bytes, __ATOMIC_RELAXED)))
		return false;
	if (cause)
		__atomic_store_n(&spool->cause, cause, __ATOMIC_RELAXED);
	record->driver_data = sync ? record : NULL;
	return sl_side_give(&side->base, record);
}

struct sl_record *sl_spool_side_confirmed(struct sl_spool_side *side, bool *kept)
{
	struct sl_record *record = sl_side_settle(&side->base);

	if (record)
		*kept = record->driver_data != NULL;
	return record;
}

struct sl_spool_replay *sl_spool_side_replay(struct sl_spool_side *side)
{
	return sl_side_take(&side->base);
}

void sl_spool_side_retire(struct sl_spool_side *side, bool retired)
{
	__atomic_store_n(&side->retired, retired, __ATOMIC_RELAXED);
}

void sl_spool_side_end(struct sl_spool_replay *replay, enum sl_spool_end end)
{
	replay->end = end;
	sl_side_return(&replay->side->base, replay);
}

void sl_spool_side_flush(struct sl_spool_side *side)
{
	sl_side_flush(&side->base);
}

bool sl_spool_side_is_behind(const struct sl_spool_side *side)
{
	return __atomic_load_n(&spool_of(side)->behind, __ATOMIC_ACQUIRE);
}

bool sl_spool_side_news(struct sl_spool_side *side, struct sl_spool_news *news)
{
	struct sl_spool *spool = spool_of(side);
	bool teller;

	if (pthread_mutex_trylock(&spool->settings_lock) != 0)
		return false; // next time
	if (!spool->teller)
		spool->teller = &side->base;
	teller = spool->teller == &side->base;
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
