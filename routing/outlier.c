#include "routing/outlier.h"

#define TIMES_MAX 16 // doublings that are counted; the longest wait bounds them before

static double rate_of(uint64_t failed, uint64_t ended)
{
	return ended ? (double)failed / (double)ended : 0;
}

static void eject(struct sl_outlier *outlier, const struct sl_outlier_config *config,
		  uint64_t now_ns)
{
	uint64_t wait_ns = config->wait_ns;

	for (uint32_t i = 0; i < outlier->times && wait_ns < config->wait_max_ns; i++)
		wait_ns *= 2;
	outlier->until_ns = now_ns + SL_MIN(wait_ns, config->wait_max_ns);
	outlier->times = SL_MIN(outlier->times + 1, (uint32_t)TIMES_MAX);
}

struct sums {
	uint64_t ended, failed;
};

// The worst of those that stand out from the rest of `all`; NULL: nobody does.
static struct sl_outlier *worst(struct sl_outlier **outliers, uint32_t count,
				const struct sl_outlier_config *config, const struct sums *all,
				uint64_t now_ns)
{
	struct sl_outlier *found = NULL;
	double most = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct sl_outlier *one = outliers[i];
		const double rate = rate_of(one->failed, one->ended);
		const double others = rate_of(all->failed - one->failed, all->ended - one->ended);

		if (sl_outlier_is_out(one, now_ns) || one->ended < config->calls_min ||
		    all->ended == one->ended || rate < config->error_rate + others || rate <= most)
			continue;
		most = rate;
		found = one;
	}
	return found;
}

uint32_t sl_outliers_judge(struct sl_outlier **outliers, uint32_t count,
			   const struct sl_outlier_config *config, uint64_t now_ns)
{
	const uint32_t most = (uint32_t)(config->share_max * count);
	uint32_t out = 0, ejected = 0;
	struct sl_outlier *one;
	struct sums all = {0};

	for (uint32_t i = 0; i < count; i++) {
		one = outliers[i];
		// One that was out for part of the interval says little about the rest.
		if (sl_outlier_is_out(one, now_ns))
			out++;
		else if (one->times && one->ended && !one->failed)
			one->times--;
		all.ended += one->ended;
		all.failed += one->failed;
	}
	while (out < most && (one = worst(outliers, count, config, &all, now_ns))) {
		eject(one, config, now_ns);
		// The next one is held against those that stay.
		all.ended -= one->ended;
		all.failed -= one->failed;
		out++;
		ejected++;
	}
	for (uint32_t i = 0; i < count; i++)
		outliers[i]->ended = outliers[i]->failed = 0;
	return ejected;
}
