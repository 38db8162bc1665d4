#pragma once

#include "dataplane/request/delivery.h"

// Records that could go if their driver had room, in lanes by tenant, served round robin by deficit
// of bytes and records: a tenant that fills the queue waits for itself. Tenants whose ids fall on
// one lane share it.
//
// Threading: one owner. Memory: links records by `next`; zeroed is not enough, see init.
#define SL_LANES        64
#define SL_LANE_QUANTUM (16 * SL_KIB) // a turn
#define SL_LANE_COST    (4 * SL_KIB)  // of a record, and its bytes

struct sl_lane {
	struct sl_record *first, **last;
	uint64_t deficit;
};

struct sl_lanes {
	uint32_t count; // records in all
	uint32_t at;    // the lane whose turn it is
	struct sl_lane lanes[SL_LANES];
};

void sl_lanes_init(struct sl_lanes *lanes);
void sl_lanes_push(struct sl_lanes *lanes, uint32_t tenant, struct sl_record *record);
// The next to be served, which leaves its lane; NULL when there is none.
struct sl_record *sl_lanes_pop(struct sl_lanes *lanes);
// Gives back what was popped last: it is the first of its lane again, and goes next.
void sl_lanes_put_back(struct sl_lanes *lanes, struct sl_record *record);
// The same, but it could not go: it is another lane's turn.
void sl_lanes_return(struct sl_lanes *lanes, struct sl_record *record);
// Takes all out, lane by lane, as a list.
struct sl_record *sl_lanes_take_all(struct sl_lanes *lanes);
