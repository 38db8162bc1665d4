#pragma once

#include "tenants/fleet/fleet.h"

// The fleet's volumes (tenants/volume.h): what each instance has admitted in a period is told to
// Redis in the background, and what all have comes back. One script call of up to 256 dimensions a
// link at a time; the period is part of the key, by Redis' clock.
//
// A tenant that nobody sends for costs nothing; one that is sent for is told once a second, and
// sooner when at the fleet's pace a quarter of that would reach the mark. Lost calls are told again
// in the next one: sums, never differences (volume.lua). After a time without Redis all are told
// anew, for it may have lost its data: then the sum is wrong by what was under way at that moment,
// told and not answered, in either direction, and by nothing else.
//
// Without Redis an instance goes on with what it last heard of the others and its own count; what
// it admits meanwhile is told when Redis is back. One that never heard counts by its own clock.
//
// Threading: the quota thread.
struct sl_fleet_volume_entry {
	struct sl_volume *volume;
	unsigned dimension;
	int64_t used;
};

// The call of one link.
struct sl_fleet_volumes {
	struct sl_fleet_volume_entry entries[SL_FLEET_VOLUME_CALL_MAX];
	uint32_t count;
	uint64_t period; // its id
	uint64_t last_id;
	uint8_t argument[SL_FLEET_VOLUME_ARGUMENT_MAX];
	size_t size;
};

// At each tick, after the quotas'. `wall_ns` is this machine's clock, for periods until Redis has
// told the time.
void sl_fleet_tick_volumes(struct sl_fleet *fleet, const struct sl_tenants *tenants,
			   uint64_t now_ns, uint64_t wall_ns);
// The link's call has ended: `reply` is SL_BYTES_NONE when it is lost.
void sl_fleet_volumes_ended(struct sl_fleet *fleet, struct sl_fleet_link *link,
			    struct sl_bytes reply, uint64_t now_ns);
