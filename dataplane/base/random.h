#pragma once

#include "dataplane/base/base.h"

// Fast random numbers for jitter and choice (xorshift64*); never for secrets.
// Threading: one owner each.
struct sl_random {
	uint64_t state; // never 0
};

SL_INLINE void sl_random_init(struct sl_random *random, uint64_t seed)
{
	random->state = seed * 0x9e3779b97f4a7c15u | 1;
}

SL_INLINE uint64_t sl_random_next(struct sl_random *random)
{
	uint64_t x = random->state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	random->state = x;
	return x * 0x2545f4914f6cdd1du;
}

// A number in [0, below), without a division; 0 when `below` is 0.
SL_INLINE uint64_t sl_random_below(struct sl_random *random, uint64_t below)
{
	return (uint64_t)(((unsigned __int128)sl_random_next(random) * below) >> 64);
}
