#pragma once

#include "dataplane/base/base.h"

// Something that fails: told when it begins and when it is over, as a pair, one pair an outage, and
// pairs a minute apart. An outage that begins sooner is told when the minute is over, if it is not
// over itself.
//
// Threading: one thread's. Memory: plain value; zeroed: nothing was. Time: passed in.
struct sl_outage {
	const char *cause; // static; NULL: none goes on
	uint64_t began_ns, told_ns;
	uint64_t count;  // of what its user counts, since it began
	uint32_t untold; // since the last one that was told
	bool told;
};
#define SL_OUTAGE_NS (60 * SL_S)

// So many more failed, because of `cause` (NULL: no new one).
void sl_outage_more(struct sl_outage *outage, const char *cause, uint64_t count, uint64_t now_ns);
// Whether its beginning shall be told now, with how many were not told before it.
bool sl_outage_tell(struct sl_outage *outage, uint64_t now_ns);
// Whether it shall be told that it goes on: a minute after it was told last.
bool sl_outage_lasts(struct sl_outage *outage, uint64_t now_ns);
// It is over. Whether that shall be told.
bool sl_outage_end(struct sl_outage *outage);
