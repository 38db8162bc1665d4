#include "sampling/sampler.h"

#include "sampling/hash_seed.h"

void sl_sampler_init(struct sl_sampler *sampler, enum sl_sampling_mode mode, double rate,
		     unsigned precision, uint32_t seed, bool fail_closed)
{
	*sampler = (struct sl_sampler){
		.mode = (uint8_t)mode,
		.all = rate >= 1,
		.fail_closed = fail_closed,
		.precision = (uint8_t)precision,
		.seed = seed,
		.scaled = sl_hash_seed_scaled(rate),
		.rate = rate,
		.threshold = sl_threshold_of(rate, precision),
	};
	sampler->excess = sl_threshold_excess(sampler->threshold);
}

static enum sl_verdict decide_hash(const struct sl_sampler *sampler, struct sl_sample *sample)
{
	uint32_t hash;

	if (!sampler->scaled)
		return SL_VERDICT_DROP;
	// What was sampled consistently cannot be sampled by a hash: the two are independent.
	if (sample->has_threshold || sample->has_randomness)
		sample->note = SL_SAMPLE_INCONSISTENT;
	else if (!sample->hashed.size)
		sample->note = SL_SAMPLE_NO_RANDOMNESS;
	if (sample->note != SL_SAMPLE_PLAIN)
		return sampler->fail_closed ? SL_VERDICT_DROP : SL_VERDICT_KEEP;
	hash = sl_hash_seed_of(sampler->seed, sample->hashed);
	if ((hash & (SL_HASH_SEED_BUCKETS - 1)) >= sampler->scaled)
		return SL_VERDICT_DROP;
	sample->has_threshold = sample->has_randomness = true;
	sample->threshold = sl_hash_seed_threshold(sampler->scaled);
	sample->randomness = sl_hash_seed_randomness(hash);
	return SL_VERDICT_REWRITE;
}

// The threshold that a consistent mode asks of an item which arrived with one.
static uint64_t wanted_threshold(const struct sl_sampler *sampler, uint64_t arrived)
{
	uint64_t wanted = sampler->threshold;

	if (sampler->mode == SL_SAMPLING_PROPORTIONAL)
		wanted = sl_threshold_of(sampler->rate * sl_threshold_probability(arrived),
					 sampler->precision);
	// A later stage may raise a threshold, never lower it (rounding must not either).
	return SL_MAX(wanted, arrived);
}

static enum sl_verdict decide_consistent(const struct sl_sampler *sampler, struct sl_sample *sample)
{
	uint64_t randomness, wanted = sampler->threshold;

	if (!sample->has_randomness && !sample->has_id) {
		sample->note = SL_SAMPLE_NO_RANDOMNESS;
		return SL_VERDICT_KEEP;
	}
	randomness = sample->has_randomness ? sample->randomness
					    : sample->id_low & SL_RANDOMNESS_MASK;
	// It cannot have been sampled by its threshold: its probability is unknown, and stays so.
	if (sample->has_threshold && randomness < sample->threshold) {
		sample->note = SL_SAMPLE_INCONSISTENT;
		sample->has_threshold = false;
		return randomness >= wanted ? SL_VERDICT_REWRITE : SL_VERDICT_DROP;
	}
	if (sample->has_threshold)
		wanted = wanted_threshold(sampler, sample->threshold);
	if (randomness < wanted)
		return SL_VERDICT_DROP;
	if (sample->has_threshold && sample->threshold == wanted)
		return SL_VERDICT_KEEP;
	sample->has_threshold = true;
	sample->threshold = wanted;
	return SL_VERDICT_REWRITE;
}

enum sl_verdict sl_sampler_decide(const struct sl_sampler *sampler, struct sl_sample *sample)
{
	sample->note = SL_SAMPLE_PLAIN;
	if (sampler->all)
		return SL_VERDICT_KEEP;
	if (sampler->rate <= 0)
		return SL_VERDICT_DROP;
	return sampler->mode == SL_SAMPLING_HASH_SEED ? decide_hash(sampler, sample)
						      : decide_consistent(sampler, sample);
}
