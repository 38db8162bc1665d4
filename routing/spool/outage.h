#pragma once

#include "dataplane/base/base.h"

// When a spool begins to take what its destination does not, and when all of that has come out
// again: told as a pair, one pair an outage, and pairs a minute apart. An outage that begins sooner
// is told when the minute is over, if it is not over itself.
//
// Threading: the spool's thread. Memory: plain value; zeroed: nothing was. Time: passed in.
struct sl_spool_outage {
	const char *cause; // static; NULL: none goes on
	uint64_t began_ns, told_ns;
	uint64_t items;  // that went to disk in it
	uint32_t untold; // since the last one that was told
	bool told;
};
#define SL_SPOOL_OUTAGE_NS (60 * SL_S)

// So many items are on disk, because of `cause` (NULL: no new one).
void sl_spool_outage_more(struct sl_spool_outage *outage, const char *cause, uint64_t items,
			  uint64_t now_ns);
// Whether its beginning shall be told now, with how many were not told before it.
bool sl_spool_outage_tell(struct sl_spool_outage *outage, uint64_t now_ns);
// Nothing is on disk any more. Whether its end shall be told.
bool sl_spool_outage_end(struct sl_spool_outage *outage);
