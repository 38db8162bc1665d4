#pragma once

#include "dataplane/base/base.h"

// The hash that the OpenTelemetry Collector's probabilistic_sampler decides by in mode hash_seed:
// FNV-1a of seed and id, of which the low 14 bits are the bucket.
//
// Threading: pure functions. Memory: none. Time: none.
#define SL_HASH_SEED_BUCKETS 0x4000u

// FNV-1a 32 over the seed (4 bytes, little-endian), then `data`.
uint32_t sl_hash_seed_of(uint32_t seed, struct sl_bytes data);

// How many of the buckets are kept at `rate` (0..1); 0: never. The Collector multiplies a 32-bit
// float of the percentage, and so do we.
uint32_t sl_hash_seed_scaled(double rate);

// What is written back, so that later stages can sample consistently.
uint64_t sl_hash_seed_threshold(uint32_t scaled);
uint64_t sl_hash_seed_randomness(uint32_t hash);
