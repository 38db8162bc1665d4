#include "routing/internal.h"

// Records that change their place: to another destination of their failover group, or to who owns
// their keys now. Their items are made records anew, as the other place wants them; nothing of them
// is with a driver meanwhile, so nothing can end twice.

#define DEAL_AGAIN_NS (100 * SL_MS) // there was no memory for it

// What came out of a spool is the whole of it: there is no request to make it of again.
static int make_anew(struct sl_record *record, struct sl_egress *to, struct sl_record **moved,
		     uint32_t *count)
{
	if (!((struct sl_flow *)record->delivery)->replay)
		return sl_records_remake(record, to, moved, count);
	record->destination = to;
	record->driver_data = NULL; // was the other driver's
	record->owner = sl_egress_owner(to, record);
	record->next = NULL;
	*moved = record;
	*count = 1;
	return 0;
}

uint32_t sl_egress_owner(const struct sl_egress *egress, const struct sl_record *record)
{
	const struct sl_destination *destination = egress->destination;

	if (destination->spread == SL_SPREAD_LEAST || !record->key.size)
		return 0;
	return destination->driver->owner(egress->side, record->key);
}

void sl_egress_rebook(const struct sl_record *record, struct sl_egress *from, struct sl_egress *to,
		      uint32_t count)
{
	struct sl_destination_counters *left = &from->meter->counters;
	struct sl_destination_counters *taken = &to->meter->counters;
	const enum sl_signal signal = record->signal;

	from->records--;
	to->records += count;
	to->shard->in_flight += count - 1;
	sl_gauge(&left->records[0], from->records);
	sl_gauge(&taken->records[0], to->records);
	if (to == from)
		return;
	sl_count(&(record->letter ? left->dead_lettered : left->moved)[signal], record->items);
	sl_count(&taken->taken[signal], record->items);
	sl_gauge(&left->in_flight[signal], left->in_flight[signal] - record->items);
	sl_gauge(&taken->in_flight[signal], taken->in_flight[signal] + record->items);
}

bool sl_egress_move(struct sl_record *record, struct sl_egress *to)
{
	struct sl_egress *from = record->destination;
	struct sl_record *moved, *next;
	uint32_t count;

	if (!to->side || make_anew(record, to, &moved, &count) < 0)
		return false;
	sl_egress_rebook(record, from, to, count);
	for (; moved; moved = next) {
		next = moved->next;
		moved->next = NULL;
		sl_egress_again(to, moved);
	}
	return true;
}

bool sl_egress_deal(struct sl_egress *egress, struct sl_record *record)
{
	struct sl_record *next;

	if (egress->destination->driver->owns(egress->side, record->owner))
		return false;
	for (record = record->members ? sl_merged_open(record) : record; record; record = next) {
		next = record->next;
		record->next = NULL;
		if (!sl_egress_move(record, egress))
			sl_egress_wait(egress, record, DEAL_AGAIN_NS);
	}
	return true;
}

static bool goes(const struct sl_record *record)
{
	return ((const struct sl_flow *)record->delivery)->failover != NULL;
}

// What waits, and what waits for room, of flows that belong to failover groups, as a list.
static struct sl_record *take_waiting(struct sl_egress *egress)
{
	struct sl_record *all = NULL, **last = &all, *lined_up, *next;
	struct sl_record **link = &egress->waiting;

	for (struct sl_record *record = *link; record; record = next) {
		next = record->next;
		if (goes(record)) {
			*link = next;
			*last = record;
			last = &record->next;
		} else {
			link = &record->next;
		}
	}
	egress->waiting_last = link;
	*last = NULL;
	lined_up = sl_lanes_take_all(&egress->lanes);
	for (struct sl_record *record = lined_up; record; record = next) {
		next = record->next;
		record->next = NULL;
		if (goes(record)) {
			*last = record;
			last = &record->next;
		} else {
			sl_egress_line_up(egress, record);
		}
	}
	return all;
}

void sl_egress_sweep(struct sl_egress *egress)
{
	struct sl_record *record = take_waiting(egress), *next;

	for (; record; record = next) {
		next = record->next;
		record->next = NULL;
		if (!sl_failover_take(record))
			sl_egress_wait(egress, record, SL_MS);
	}
}
