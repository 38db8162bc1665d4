#include "tenants/cardinality/hll.h"

#include <math.h>

bool sl_hll_add(uint8_t *registers, unsigned bits, uint64_t hash)
{
	uint8_t *at = &registers[hash >> (64 - bits)];
	// The bit behind the last stands in for a one that is not there.
	const uint64_t rest = hash << bits | UINT64_C(1) << (bits - 1);
	const uint8_t rank = (uint8_t)(__builtin_clzl(rest) + 1);
	uint8_t before = __atomic_load_n(at, __ATOMIC_RELAXED);

	assert(bits >= SL_HLL_BITS_MIN && bits <= SL_HLL_BITS_MAX);
	while (before < rank)
		if (__atomic_compare_exchange_n(at, &before, rank, true, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED))
			return true;
	return false;
}

double sl_hll_estimate(const uint8_t *registers, unsigned bits)
{
	const uint32_t count = UINT32_C(1) << bits;
	const double m = count;
	const double alpha = bits == 4   ? 0.673
			     : bits == 5 ? 0.697
			     : bits == 6 ? 0.709
					 : 0.7213 / (1 + 1.079 / m);
	double sum = 0, estimate;
	uint32_t zeros = 0;

	for (uint32_t i = 0; i < count; i++) {
		const uint8_t rank = __atomic_load_n(&registers[i], __ATOMIC_RELAXED);

		sum += ldexp(1, -rank);
		zeros += rank == 0;
	}
	estimate = alpha * m * m / sum;
	// 64-bit hashes do not run out: no correction for many.
	return estimate <= 2.5 * m && zeros ? m * log(m / zeros) : estimate;
}
