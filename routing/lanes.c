#include "routing/lanes.h"

void sl_lanes_init(struct sl_lanes *lanes)
{
	*lanes = (struct sl_lanes){0};
	for (unsigned i = 0; i < SL_LANES; i++)
		lanes->lanes[i].last = &lanes->lanes[i].first;
}

void sl_lanes_push(struct sl_lanes *lanes, uint32_t tenant, struct sl_record *record)
{
	struct sl_lane *lane = &lanes->lanes[tenant % SL_LANES];

	record->next = NULL;
	*lane->last = record;
	lane->last = &record->next;
	lanes->count++;
}

static uint64_t cost(const struct sl_record *record)
{
	return SL_LANE_COST + record->bytes;
}

// What a lane saves up is a turn's worth, or its first record's.
static void next_lane(struct sl_lanes *lanes)
{
	struct sl_lane *lane = &lanes->lanes[lanes->at = (lanes->at + 1) % SL_LANES];

	if (lane->first)
		lane->deficit = SL_MIN(lane->deficit + SL_LANE_QUANTUM,
				       SL_MAX(SL_LANE_QUANTUM, cost(lane->first)));
}

struct sl_record *sl_lanes_pop(struct sl_lanes *lanes)
{
	struct sl_lane *lane;
	struct sl_record *record;

	if (!lanes->count)
		return NULL;
	for (;;) {
		lane = &lanes->lanes[lanes->at];
		if (lane->first && lane->deficit >= cost(lane->first))
			break;
		if (!lane->first)
			lane->deficit = 0; // an idle one saves nothing up
		next_lane(lanes);
	}
	record = lane->first;
	lane->first = record->next;
	if (!lane->first)
		lane->last = &lane->first;
	lane->deficit -= cost(record);
	lanes->count--;
	record->next = NULL;
	return record;
}

void sl_lanes_put_back(struct sl_lanes *lanes, struct sl_record *record)
{
	struct sl_lane *lane = &lanes->lanes[lanes->at];

	record->next = lane->first;
	if (!lane->first)
		lane->last = &record->next;
	lane->first = record;
	lane->deficit += cost(record);
	lanes->count++;
}

void sl_lanes_return(struct sl_lanes *lanes, struct sl_record *record)
{
	sl_lanes_put_back(lanes, record);
	next_lane(lanes);
}

struct sl_record *sl_lanes_take_all(struct sl_lanes *lanes)
{
	struct sl_record *all = NULL, **last = &all;

	for (unsigned i = 0; i < SL_LANES; i++) {
		struct sl_lane *lane = &lanes->lanes[i];

		if (!lane->first)
			continue;
		*last = lane->first;
		last = lane->last;
		lane->first = NULL;
		lane->last = &lane->first;
	}
	lanes->count = 0;
	return all;
}
