#include "dataplane/conn/hint.h"

static bool is_about(const struct sl_hint *hint, sl_tenant_id tenant, enum sl_signal signal)
{
	return hint->until_ns && hint->tenant == tenant && hint->signal == signal;
}

bool sl_hint_is_early(struct sl_hint *hint, sl_tenant_id tenant, enum sl_signal signal,
		      uint64_t grace_ns, uint64_t now_ns)
{
	if (!is_about(hint, tenant, signal))
		return false;
	if (now_ns < hint->until_ns)
		return now_ns > hint->told_ns + grace_ns;
	*hint = (struct sl_hint){0}; // it has waited: all is forgotten
	return false;
}

bool sl_hint_told(struct sl_hint *hint, sl_tenant_id tenant, enum sl_signal signal, bool early,
		  uint64_t early_max, uint64_t retry_after_ns, uint64_t now_ns)
{
	bool struck;

	// The first time told stands until it is over: what is told again meanwhile is no news.
	if (!is_about(hint, tenant, signal) || now_ns >= hint->until_ns)
		*hint = (struct sl_hint){.tenant = tenant,
					 .signal = (uint8_t)signal,
					 .told_ns = now_ns,
					 .until_ns = now_ns + retry_after_ns};
	hint->early_calls += early;
	struck = early && early_max &&
		 hint->early_calls > early_max * (1 + (now_ns - hint->told_ns) / SL_S);
	hint->strikes += struck;
	return struck;
}

void sl_hint_served(struct sl_hint *hint, sl_tenant_id tenant)
{
	if (hint->tenant != tenant)
		*hint = (struct sl_hint){0};
}
