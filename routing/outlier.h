#pragma once

#include "dataplane/base/base.h"
#include "routing/settings.h"

// Which of a destination's endpoints stand out by their errors and are left out for a time: it
// doubles each time, and shrinks again while an endpoint behaves. Never more than a share of them.
//
// Threading: one owner. Memory: plain value, one an endpoint. Time: passed in.
struct sl_outlier {
	uint32_t ended, failed; // since it was judged last
	uint32_t times;         // ejections that are not forgotten
	uint64_t until_ns;      // left out until then; 0: not
};

// One that was left out comes back when its time is over. Returns whether it is out.
SL_INLINE bool sl_outlier_is_out(const struct sl_outlier *outlier, uint64_t now_ns)
{
	return now_ns < outlier->until_ns;
}

// Looks at what ended since the last look (once an interval), begins the next and ejects: whose
// share of failures is at least `error_rate` and so much above that of all others together. The
// worst go first. Returns how many were ejected.
uint32_t sl_outliers_judge(struct sl_outlier **outliers, uint32_t count,
			   const struct sl_outlier_config *config, uint64_t now_ns);
