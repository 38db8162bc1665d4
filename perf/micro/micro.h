#pragma once

#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/clock.h"

// Timing of one call in a loop: rounds of at least 20 ms, the best of seven, so that what else the
// machine does is left out. Threading: one thread.

// Runs `body` (a statement using nothing but what is in scope) and gives ns a run in `result`.
#define SL_MICRO(result, body)                                                                     \
	do {                                                                                       \
		double best_ = 1e18;                                                               \
		uint64_t count_ = 1;                                                               \
		for (unsigned round_ = 0; round_ < 7; round_++) {                                  \
			uint64_t spent_;                                                           \
			for (;;) {                                                                 \
				const uint64_t from_ = sl_clock_now_ns();                          \
				for (uint64_t i_ = 0; i_ < count_; i_++) {                         \
					body;                                                      \
				}                                                                  \
				spent_ = sl_clock_now_ns() - from_;                                \
				if (spent_ >= 20 * SL_MS)                                          \
					break;                                                     \
				count_ *= 2;                                                       \
			}                                                                          \
			if ((double)spent_ / (double)count_ < best_)                               \
				best_ = (double)spent_ / (double)count_;                           \
		}                                                                                  \
		(result) = best_;                                                                  \
	} while (0)

// Keeps the compiler from dropping a value.
#define SL_MICRO_USE(value) __asm__ volatile("" : : "r,m"(value) : "memory")
