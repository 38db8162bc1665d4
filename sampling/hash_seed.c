#include "sampling/hash_seed.h"

static uint32_t fnv1a(uint32_t hash, const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		hash = (hash ^ data[i]) * 16777619u;
	return hash;
}

uint32_t sl_hash_seed_of(uint32_t seed, struct sl_bytes data)
{
	const uint8_t little[4] = {(uint8_t)seed, (uint8_t)(seed >> 8), (uint8_t)(seed >> 16),
				   (uint8_t)(seed >> 24)};

	return fnv1a(fnv1a(2166136261u, little, sizeof(little)), data.data, data.size);
}

uint32_t sl_hash_seed_scaled(double rate)
{
	const float percent = (float)(rate * 100);

	assert(rate >= 0 && rate <= 1);
	return (uint32_t)(percent * 163.84f);
}

uint64_t sl_hash_seed_threshold(uint32_t scaled)
{
	assert(scaled <= SL_HASH_SEED_BUCKETS);
	return (uint64_t)(SL_HASH_SEED_BUCKETS - scaled) << 42;
}

uint64_t sl_hash_seed_randomness(uint32_t hash)
{
	const uint64_t low = hash & (SL_HASH_SEED_BUCKETS - 1);
	const uint64_t high = hash >> 18;

	// The bucket leads, inverted, so that "bucket < scaled" and "randomness >= threshold"
	// agree.
	return (uint64_t)(SL_HASH_SEED_BUCKETS - 1 - low) << 42 | (high ^ high << 10) << 14 | low;
}
