#include "tenants/fleet/volumes.h"

#include <stdio.h>

#define LOOKS 2048 // of volumes, a tick
// How often one is told: when its mark is far, and at most.
#define PAUSE_NS     SL_S
#define PAUSE_MIN_NS (50 * SL_MS)
// Part of the time there is until the mark, at the pace of the fleet.
#define HASTE     4
#define SUM_MAX   1e17
#define PACE_KEPT 0.9
// How long Redis keeps a period's hash after the last call about it.
#define KEEP_DAY_S   (3.0 * 86400)
#define KEEP_MONTH_S (40.0 * 86400)

// The time of the period: of the link's Redis as soon as it has told any.
static uint64_t wall_of(const struct sl_fleet_link *link, uint64_t now_ns, uint64_t wall_ns)
{
	return link->told_us ? link->told_us * SL_US + (now_ns - link->told_ns) : wall_ns;
}

static int64_t here(const struct sl_volume *volume, unsigned i)
{
	const int64_t used = __atomic_load_n(&volume->spent[i], __ATOMIC_RELAXED) -
			     volume->begun[i];

	return SL_MAX(used, volume->heard[i]); // what was given back since is not told as less
}

// Something was used since, or Redis may have lost what it was told: it was away.
static bool has_news(const struct sl_volume *volume, const struct sl_volume_limits *limits,
		     uint64_t failures)
{
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++) {
		if (!limits->hard[i])
			continue;
		if (here(volume, i) != volume->heard[i] ||
		    (volume->last[i] && volume->failures != failures))
			return true;
	}
	return false;
}

static size_t pack_head(uint8_t *out, const struct sl_fleet_link *link, uint64_t id, bool month,
			uint32_t count)
{
	uint8_t *at = out;

	*at++ = 1;
	memcpy(at, link->instance, SL_FLEET_INSTANCE);
	at = sl_fleet_put_double(at + SL_FLEET_INSTANCE, (double)id);
	at = sl_fleet_put_double(at, month ? KEEP_MONTH_S : KEEP_DAY_S);
	*at++ = (uint8_t)(count >> 8);
	*at++ = (uint8_t)count;
	return (size_t)(at - out);
}

// Adds one's dimensions to the link's call. The first tells of which period the call is.
static void add(struct sl_fleet_volumes *call, struct sl_volume *volume,
		const struct sl_volume_limits *limits, struct sl_bytes name)
{
	if (!call->count)
		call->period = volume->period;
	for (unsigned i = 0; i < SL_DIMENSION_RATES; i++) {
		uint8_t *at = call->argument + call->size;

		if (!limits->hard[i])
			continue;
		call->entries[call->count] = (struct sl_fleet_volume_entry){volume, i,
									    here(volume, i)};
		*at = (uint8_t)sl_fleet_field(at + 1, name, i);
		at += 1 + *at;
		at = sl_fleet_put_double(at, (double)call->entries[call->count].used);
		at = sl_fleet_put_double(at, (double)volume->heard[i]);
		at = sl_fleet_put_double(at, (double)volume->last[i]);
		call->size = (size_t)(at - call->argument);
		call->count++;
	}
	volume->asking = true;
}

static void look(struct sl_fleet *fleet, const struct sl_tenants *tenants, struct sl_volume *volume,
		 const bool *open, uint64_t wall_ns)
{
	const struct sl_limits *limits = sl_tenants_limits_of(tenants, volume->tenant);
	struct sl_bytes name;
	struct sl_fleet_volumes *call;
	struct sl_volume_period period;
	uint32_t home;
	uint64_t now_wall_ns;

	if (!limits->volume.is_set)
		return;
	name = sl_tenants_entry_name(&tenants->entries[volume->tenant]);
	if (!volume->home)
		volume->home = 1 + sl_fleet_home(name, fleet->link_count);
	home = volume->home - 1;
	if (fleet->links[home].told_us && volume->own_clock)
		__atomic_store_n(&volume->period, 0, __ATOMIC_RELAXED); // what it was is not sure
	volume->own_clock = !fleet->links[home].told_us;
	now_wall_ns = wall_of(&fleet->links[home], fleet->now_ns, wall_ns);
	period = sl_volume_period_at(limits->volume.per, now_wall_ns / SL_S);
	sl_volume_look(&tenants->registry->volumes, volume, tenants, &period,
		       fleet->now_ns + period.end_s * SL_S - now_wall_ns);
	call = &fleet->volumes[home];
	if (!open[home] || volume->asking || fleet->now_ns < volume->due_ns ||
	    call->count + SL_DIMENSION_RATES > SL_FLEET_VOLUME_CALL_MAX ||
	    (call->count && call->period != volume->period) ||
	    !has_news(volume, &limits->volume, fleet->links[home].failures))
		return;
	add(call, volume, &limits->volume, name);
}

static void send_call(struct sl_fleet *fleet, uint32_t k)
{
	struct sl_fleet_volumes *call = &fleet->volumes[k];
	struct sl_fleet_link *link = &fleet->links[k];
	const bool month = call->period >> 32;
	char period[24];

	snprintf(period, sizeof(period), "%c%u", month ? 'm' : 'd', (uint32_t)call->period - 1);
	pack_head(call->argument, link, ++call->last_id, month, call->count);
	sl_count(&fleet->counters.volume_calls[0], 1);
	sl_count(&fleet->counters.volume_updates[0], call->count);
	sl_fleet_link_volume_call(link, period, sl_bytes(call->argument, call->size),
				  fleet->now_ns);
}

void sl_fleet_tick_volumes(struct sl_fleet *fleet, const struct sl_tenants *tenants,
			   uint64_t now_ns, uint64_t wall_ns)
{
	struct sl_volumes *volumes = &tenants->registry->volumes;
	struct sl_volume *first = __atomic_load_n(&volumes->first, __ATOMIC_ACQUIRE);
	bool open[SL_FLEET_LINKS_MAX];

	if (!first)
		return;
	fleet->now_ns = SL_MAX(fleet->now_ns, now_ns);
	for (uint32_t k = 0; k < fleet->link_count; k++) {
		// Until Redis has told the time, it is not known which period a call is of.
		open[k] = sl_fleet_link_volume_begin(&fleet->links[k]) && fleet->links[k].told_us;
		if (open[k]) {
			fleet->volumes[k].count = 0;
			fleet->volumes[k].size = SL_FLEET_VOLUME_HEAD;
		}
	}
	for (unsigned i = 0; i < LOOKS; i++) {
		struct sl_volume *volume = volumes->at ? volumes->at : first;

		look(fleet, tenants, volume, open, wall_ns);
		volumes->at = volume->next;
		if (!volumes->at)
			break; // all of them
	}
	for (uint32_t k = 0; k < fleet->link_count; k++)
		if (open[k] && fleet->volumes[k].count)
			send_call(fleet, k);
}

// What the others have is the fleet's sum without what was told of here.
static uint64_t take(struct sl_volume *volume, const struct sl_fleet_volume_entry *entry,
		     double sum, uint64_t now_ns)
{
	const unsigned i = entry->dimension;
	const int64_t total = (int64_t)sum;
	const int64_t left = __atomic_load_n(&volume->hard_at[i], __ATOMIC_RELAXED) -
			     volume->begun[i] + volume->others[i] - total;
	const double seen = volume->answered_ns && total > volume->last[i]
				    ? (double)(total - volume->last[i]) /
					      (double)SL_MAX(now_ns - volume->answered_ns, 1)
				    : 0;
	// A time in which some did not tell looks slower than it is.
	const double pace = SL_MAX(seen, volume->pace[i] * PACE_KEPT);
	// What others have not told yet is as much as all send in a pause at most, and in one more
	// until they hear of this.
	const double until_ns = pace > 0              ? ((double)left / pace - 2 * PAUSE_NS) / HASTE
				: volume->answered_ns ? PAUSE_NS
						      : PAUSE_MIN_NS; // the pace is not known yet

	volume->pace[i] = pace;
	__atomic_store_n(&volume->others[i], SL_MAX(total - entry->used, 0), __ATOMIC_RELAXED);
	volume->heard[i] = entry->used;
	volume->last[i] = total;
	return until_ns < PAUSE_MIN_NS ? PAUSE_MIN_NS
				       : (uint64_t)SL_MIN(until_ns, (double)PAUSE_NS);
}

void sl_fleet_volumes_ended(struct sl_fleet *fleet, struct sl_fleet_link *link,
			    struct sl_bytes reply, uint64_t now_ns)
{
	struct sl_fleet_volumes *call = &fleet->volumes[link - fleet->links];
	const uint8_t *at = reply.data + SL_FLEET_VOLUME_REPLY_HEAD;
	const bool good = reply.size == SL_FLEET_VOLUME_REPLY_HEAD + 8 * (size_t)call->count;

	for (uint32_t i = 0, end; i < call->count; i = end) {
		struct sl_volume *volume = call->entries[i].volume;
		uint64_t pause_ns = PAUSE_NS;

		for (end = i; end < call->count && call->entries[end].volume == volume; end++) {
			const double sum = good ? sl_fleet_get_double(at + 8 * (size_t)end) : -1;

			if (!(sum >= 0 && sum <= SUM_MAX)) {
				sl_count(&fleet->counters.damaged[0], good);
				continue;
			}
			// A period that has ended meanwhile is over.
			if (volume->period == call->period) {
				const uint64_t one_ns = take(volume, &call->entries[end], sum,
							     now_ns);

				pause_ns = SL_MIN(pause_ns, one_ns);
			}
		}
		volume->asking = false;
		if (good) {
			volume->answered_ns = now_ns;
			volume->failures = link->failures;
		}
		volume->due_ns = now_ns + pause_ns;
	}
	if (good)
		link->mended += (uint64_t)(reply.data[9] << 8 | reply.data[10]);
	else
		sl_count(&fleet->counters.lost[0], 1);
	call->count = 0;
}
