#include "dataplane/base/outage.h"

void sl_outage_more(struct sl_outage *outage, const char *cause, uint64_t count, uint64_t now_ns)
{
	if (!outage->cause && cause) {
		outage->cause = cause;
		outage->began_ns = now_ns;
		outage->count = 0;
		outage->told = false;
	}
	if (outage->cause)
		outage->count += count;
}

bool sl_outage_tell(struct sl_outage *outage, uint64_t now_ns)
{
	if (!outage->cause || outage->told ||
	    (outage->told_ns && now_ns - outage->told_ns < SL_OUTAGE_NS))
		return false;
	outage->told = true;
	outage->told_ns = now_ns;
	return true;
}

bool sl_outage_lasts(struct sl_outage *outage, uint64_t now_ns)
{
	if (!outage->cause || !outage->told || now_ns - outage->told_ns < SL_OUTAGE_NS)
		return false;
	outage->told_ns = now_ns;
	return true;
}

bool sl_outage_end(struct sl_outage *outage)
{
	if (!outage->cause)
		return false;
	outage->cause = NULL;
	outage->untold = outage->told ? 0 : outage->untold + 1;
	return outage->told;
}
