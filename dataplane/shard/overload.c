#include "dataplane/shard/overload.h"

static uint32_t highest(const struct sl_overload_limits *limits, uint32_t ranks)
{
	if (!limits->on)
		return 0;
	return ranks * limits->halvings + (limits->refuse ? ranks - 1 : 0);
}

// Whether `*since_ns`, which starts when `now` holds, is long enough ago; starts it again if so.
static bool lasted(uint64_t *since_ns, bool now, uint64_t now_ns, uint64_t after_ns)
{
	if (!now) {
		*since_ns = 0;
		return false;
	}
	if (!*since_ns)
		*since_ns = now_ns;
	if (now_ns - *since_ns < after_ns)
		return false;
	*since_ns = now_ns;
	return true;
}

bool sl_overload_observe(struct sl_overload *overload, const struct sl_overload_limits *limits,
			 uint32_t ranks, double busy, double memory, uint64_t now_ns)
{
	const uint32_t before = overload->step, most = highest(limits, ranks);
	const bool above = busy > limits->busy || memory > limits->memory;
	const bool below = busy < limits->busy * limits->calm &&
			   memory < limits->memory * limits->calm;

	// A reload may have left fewer steps.
	overload->step = SL_MIN(overload->step, most);
	if (lasted(&overload->above_since_ns, above, now_ns, limits->after_ns))
		overload->step = SL_MIN(overload->step + 1, most);
	if (lasted(&overload->below_since_ns, below, now_ns, limits->after_ns) && overload->step)
		overload->step--;
	return overload->step != before;
}

uint32_t sl_overload_thinning(const struct sl_overload *overload,
			      const struct sl_overload_limits *limits, uint32_t rank)
{
	const uint32_t begins = rank * limits->halvings;

	return overload->step > begins ? SL_MIN(overload->step - begins, limits->halvings) : 0;
}

bool sl_overload_refuses(const struct sl_overload *overload,
			 const struct sl_overload_limits *limits, uint32_t ranks, uint32_t rank)
{
	return overload->step > ranks * limits->halvings + rank;
}
