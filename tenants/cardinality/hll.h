#pragma once

#include "dataplane/base/base.h"

// How many different hashes there were, in one byte a register: HyperLogLog (Flajolet, Fusy,
// Gandouet, Meunier, 2007) with linear counting for few. The standard error is 1.04 / sqrt(2^bits):
// 1.6 % with 12 bits (4 KiB), 13 % with 6 (64 bytes). Registers that are zero have seen nothing.
// Debian has no C library of it; Redis' and PostgreSQL's are part of their servers.
//
// Threading: adding is atomic a register, from any thread; an estimate beside it misses some.
#define SL_HLL_BITS_MIN    4
#define SL_HLL_BITS_MAX    16
#define SL_HLL_BYTES(bits) ((size_t)1 << (bits))

// `hash` is well mixed in all its bits. Returns whether it raised a register: it was not there.
bool sl_hll_add(uint8_t *registers, unsigned bits, uint64_t hash);
double sl_hll_estimate(const uint8_t *registers, unsigned bits);
