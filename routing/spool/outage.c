#include "routing/spool/outage.h"

void sl_spool_outage_more(struct sl_spool_outage *outage, const char *cause, uint64_t items,
			  uint64_t now_ns)
{
	if (!outage->cause && cause) {
		outage->cause = cause;
		outage->began_ns = now_ns;
		outage->items = 0;
		outage->told = false;
	}
	if (outage->cause)
		outage->items += items;
}

bool sl_spool_outage_tell(struct sl_spool_outage *outage, uint64_t now_ns)
{
	if (!outage->cause || outage->told ||
	    (outage->told_ns && now_ns - outage->told_ns < SL_SPOOL_OUTAGE_NS))
		return false;
	outage->told = true;
	outage->told_ns = now_ns;
	return true;
}

bool sl_spool_outage_end(struct sl_spool_outage *outage)
{
	if (!outage->cause)
		return false;
	outage->cause = NULL;
	outage->untold = outage->told ? 0 : outage->untold + 1;
	return outage->told;
}
