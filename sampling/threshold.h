#pragma once

#include "dataplane/base/base.h"

// Thresholds and randomness of consistent probability sampling, as 56-bit numbers.
// https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
//
//   keep an item  <=>  randomness >= threshold        p = (2^56 - threshold) / 2^56
//
// Threading: pure functions. Memory: none. Time: none.
#define SL_THRESHOLD_DIGITS 14
#define SL_THRESHOLD_NEVER  (UINT64_C(1) << 56) // no randomness reaches it; never written
#define SL_RANDOMNESS_MASK  (SL_THRESHOLD_NEVER - 1)

// The threshold of `probability`, rounded to `precision` hex digits (1..14); leading 0 or f digits
// do not count, so that the relative error stays small at both ends. Below 2^-56: never.
uint64_t sl_threshold_of(double probability, unsigned precision);

// The probability that a threshold stands for.
double sl_threshold_probability(uint64_t threshold);

// What an item kept at it stands for beyond itself: 1/p - 1; 0 when nothing is kept.
double sl_threshold_excess(uint64_t threshold);

// Reads 1..14 lowercase hex digits, as if zeros followed. Returns false on anything else.
bool sl_threshold_parse(struct sl_bytes text, uint64_t *threshold);

// Writes a threshold without its trailing zeros ("0" for zero). Returns the digits written.
unsigned sl_threshold_format(uint64_t threshold, uint8_t text[SL_THRESHOLD_DIGITS]);

// Randomness is always exactly 14 lowercase hex digits.
bool sl_randomness_parse(struct sl_bytes text, uint64_t *randomness);
void sl_randomness_format(uint64_t randomness, uint8_t text[SL_THRESHOLD_DIGITS]);
