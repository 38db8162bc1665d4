#include "tenants/volume.h"

#include <stdlib.h>
#include <time.h>

#include "dataplane/base/log.h"
#include "tenants/table.h"

// Of them a tick: 100,000 in less than half a second, 20 us a tick.
#define LOOKS 2048
// What a shard may have counted and not told, of a hard mark.
#define STEP_SHIFT 12

struct sl_volume_period sl_volume_period_at(enum sl_volume_per per, uint64_t wall_s)
{
	const uint64_t day = wall_s / 86400;
	const time_t now = (time_t)wall_s;
	struct tm tm;
	uint64_t number, begin_s, end_s;

	if (per == SL_VOLUME_DAY)
		return (struct sl_volume_period){1 + day, day * 86400, (day + 1) * 86400};
	gmtime_r(&now, &tm);
	number = (uint64_t)(tm.tm_year - 70) * 12 + (uint64_t)tm.tm_mon;
	tm = (struct tm){.tm_year = tm.tm_year, .tm_mon = tm.tm_mon, .tm_mday = 1};
	begin_s = (uint64_t)timegm(&tm);
	tm.tm_mon++;
	end_s = (uint64_t)timegm(&tm);
	return (struct sl_volume_period){(UINT64_C(1) << 32) + 1 + number, begin_s, end_s};
}

struct sl_volume *sl_volumes_add(struct sl_volumes *volumes, uint32_t tenant)
{
	struct sl_volume *volume = aligned_alloc(SL_CACHE_LINE, sizeof(*volume));

	if (!volume)
		return NULL;
	memset(volume, 0, sizeof(*volume));
	volume->tenant = tenant;
	volume->next = volumes->first;
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
		volume->hard_at[i] = volume->step[i] = INT64_MAX;
	__atomic_store_n(&volumes->first, volume, __ATOMIC_RELEASE);
	return volume;
}

void sl_volumes_fini(struct sl_volumes *volumes)
{
	for (struct sl_volume *volume = volumes->first, *next; volume; volume = next) {
		next = volume->next;
		free(volume);
	}
	*volumes = (struct sl_volumes){0};
}

static int64_t load(const int64_t *from)
{
	return __atomic_load_n(from, __ATOMIC_RELAXED);
}

static bool take(struct sl_volume *volume, unsigned i, int64_t cost)
{
	int64_t spent = load(&volume->spent[i]);

	do {
		if (spent + cost > load(&volume->hard_at[i]))
			return false;
	} while (!__atomic_compare_exchange_n(&volume->spent[i], &spent, spent + cost, true,
					      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	return true;
}

struct cost {
	unsigned which[3];
	int64_t of[3];
};

static struct cost cost_of(uint64_t bytes, uint64_t items, unsigned item)
{
	return (struct cost){
		{SL_DIMENSION_BYTES, item, SL_DIMENSION_REQUESTS},
		{(int64_t)SL_MIN(bytes, (uint64_t)SL_UNLIMITED / 4), (int64_t)items, 1},
	};
}

bool sl_volume_take(struct sl_volume *volume, uint64_t bytes, uint64_t items, unsigned item)
{
	const struct cost cost = cost_of(bytes, items, item);

	for (unsigned i = 0; i < 3; i++) {
		if (take(volume, cost.which[i], cost.of[i]))
			continue;
		while (i-- > 0)
			__atomic_fetch_sub(&volume->spent[cost.which[i]], cost.of[i],
					   __ATOMIC_RELAXED);
		return false;
	}
	for (unsigned i = 0; i < 3; i++)
		if (load(&volume->spent[cost.which[i]]) >= load(&volume->hard_at[cost.which[i]]))
			__atomic_fetch_or(&volume->over, 1u << cost.which[i], __ATOMIC_RELAXED);
	return true;
}

// That it is over no more is found by the next tick.
void sl_volume_give(struct sl_volume *volume, uint64_t bytes, uint64_t items, unsigned item)
{
	const struct cost cost = cost_of(bytes, items, item);

	for (unsigned i = 0; i < 3; i++)
		__atomic_fetch_sub(&volume->spent[cost.which[i]], cost.of[i], __ATOMIC_RELAXED);
}

uint64_t sl_volume_room(const struct sl_volume *volume, unsigned dimension)
{
	return (uint64_t)SL_MAX(load(&volume->hard_at[dimension]) - load(&volume->spent[dimension]),
				0);
}

void sl_volume_count_flush(struct sl_volume_count *count, struct sl_volume *volume)
{
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++) {
		if (!count->pending[i])
			continue;
		// Whoever passes the mark says so at once: no shard waits for the next tick.
		if (__atomic_add_fetch(&volume->spent[i], count->pending[i], __ATOMIC_RELAXED) >=
		    __atomic_load_n(&volume->hard_at[i], __ATOMIC_RELAXED))
			__atomic_fetch_or(&volume->over, 1u << i, __ATOMIC_RELAXED);
		count->pending[i] = 0;
	}
}

uint64_t sl_volume_used(const struct sl_volume *volume, int64_t used[SL_DIMENSION_RATES])
{
	uint64_t before, after;

	// While the period changes it is 0; that takes some nanoseconds.
	do {
		before = __atomic_load_n(&volume->period, __ATOMIC_ACQUIRE);
		for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
			used[i] = load(&volume->spent[i]) - load(&volume->begun[i]) +
				  load(&volume->others[i]);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		after = __atomic_load_n(&volume->period, __ATOMIC_RELAXED);
	} while (before != after);
	return before;
}

bool sl_volume_is_used(const struct sl_volume *volume, uint64_t wall_s)
{
	int64_t used[SL_DIMENSION_RATES];
	const uint64_t id = sl_volume_used(volume, used);
	const enum sl_volume_per per = id >> 32 ? SL_VOLUME_MONTH : SL_VOLUME_DAY;

	if (volume->asking)
		return true;
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
		if (used[i] > 0)
			return !id || sl_volume_period_at(per, wall_s).id <= id;
	return false;
}

void sl_volume_reset(struct sl_volume *volume)
{
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++) {
		volume->begun[i] = load(&volume->spent[i]);
		volume->others[i] = volume->heard[i] = volume->last[i] = 0;
		volume->hard_at[i] = volume->step[i] = INT64_MAX;
	}
	volume->told = volume->over = 0;
	volume->period = 0;
	volume->home = 0;
	volume->answered_ns = volume->due_ns = 0;
	volume->own_clock = false;
}

// What was counted before any period was known belongs to the first.
static void begin(struct sl_volume *volume, uint64_t period)
{
	const bool first = volume->period == 0;

	__atomic_store_n(&volume->period, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	for (unsigned i = 0; i < SL_DIMENSION_RATES && !first; i++) {
		__atomic_store_n(&volume->begun[i], load(&volume->spent[i]), __ATOMIC_RELAXED);
		__atomic_store_n(&volume->others[i], 0, __ATOMIC_RELAXED);
		volume->heard[i] = volume->last[i] = 0;
		volume->pace[i] = 0;
	}
	volume->told = 0;
	__atomic_store_n(&volume->over, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&volume->period, period, __ATOMIC_RELEASE);
}

static void tell(const struct sl_volume *volume, const struct sl_tenants *tenants, unsigned i,
		 const char *event, int64_t used, const struct sl_volume_limits *limits)
{
	const struct sl_bytes name = sl_tenants_entry_name(&tenants->entries[volume->tenant]);

	sl_log(SL_LOG_WARN, event, "tenant=%.*s volume=%s per=%s used=%lld hard=%lld",
	       (int)name.size, (const char *)name.data, sl_label_dimension.values[i],
	       limits->per == SL_VOLUME_DAY ? "day" : "month", (long long)used,
	       (long long)limits->hard[i]);
}

// One dimension: where its marks are, and whether they are passed.
static void compare(struct sl_volumes *volumes, struct sl_volume *volume,
		    const struct sl_tenants *tenants, const struct sl_volume_limits *limits,
		    unsigned i)
{
	const uint32_t bit = 1u << i;
	const int64_t hard = limits->hard[i];
	const int64_t used = load(&volume->spent[i]) - volume->begun[i] + volume->others[i];
	const bool over = hard && used >= hard;

	__atomic_store_n(&volume->hard_at[i],
			 hard ? volume->begun[i] + hard - volume->others[i] : INT64_MAX,
			 __ATOMIC_RELAXED);
	__atomic_store_n(&volume->step[i], hard ? (hard >> STEP_SHIFT) + 1 : INT64_MAX,
			 __ATOMIC_RELAXED);
	if (hard && !(volume->told & bit) && (double)used >= limits->soft * (double)hard) {
		volume->told |= bit;
		volumes->soft_marks++;
		tell(volume, tenants, i, "volume_soft_mark", used, limits);
	}
	if (!over) {
		__atomic_fetch_and(&volume->over, ~bit, __ATOMIC_RELAXED);
		volume->told &= ~(bit << 16);
		return;
	}
	__atomic_fetch_or(&volume->over, bit, __ATOMIC_RELAXED);
	if (volume->told & bit << 16)
		return;
	volume->told |= bit << 16;
	volumes->hard_marks++;
	tell(volume, tenants, i, "volume_used_up", used, limits);
}

void sl_volume_look(struct sl_volumes *volumes, struct sl_volume *volume,
		    const struct sl_tenants *tenants, const struct sl_volume_period *period,
		    uint64_t ends_ns)
{
	const struct sl_volume_limits *limits = &tenants->entries[volume->tenant].limits->volume;

	// A clock that is set back does not bring a period back.
	if (period->id > volume->period || period->id >> 32 != volume->period >> 32)
		begin(volume, period->id);
	__atomic_store_n(&volume->ends_ns, ends_ns, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++)
		compare(volumes, volume, tenants, limits, i);
}

void sl_volumes_tick(struct sl_volumes *volumes, const struct sl_tenants *tenants, uint64_t now_ns,
		     uint64_t wall_ns)
{
	struct sl_volume_period periods[2];
	struct sl_volume *first = __atomic_load_n(&volumes->first, __ATOMIC_ACQUIRE);

	if (!first)
		return;
	for (unsigned i = 0; i < 2; i++)
		periods[i] = sl_volume_period_at(i, wall_ns / SL_S);
	for (unsigned i = 0; i < LOOKS; i++) {
		struct sl_volume *volume = volumes->at ? volumes->at : first;
		const struct sl_limits *limits = sl_tenants_limits_of(tenants, volume->tenant);

		if (limits->volume.is_set) {
			const struct sl_volume_period *period = &periods[limits->volume.per];

			sl_volume_look(volumes, volume, tenants, period,
				       now_ns + period->end_s * SL_S - wall_ns);
		}
		volumes->at = volume->next;
		if (!volumes->at)
			return; // all of them
	}
}

void sl_tenants_tick_volumes(struct sl_tenants *tenants, uint64_t now_ns, uint64_t wall_ns)
{
	sl_volumes_tick(&tenants->registry->volumes, tenants, now_ns, wall_ns);
}

void sl_tenants_volume_marks(const struct sl_tenants *tenants, uint64_t *soft, uint64_t *hard)
{
	*soft = tenants->registry->volumes.soft_marks;
	*hard = tenants->registry->volumes.hard_marks;
}
