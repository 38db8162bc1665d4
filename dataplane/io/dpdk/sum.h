#pragma once

#include "dataplane/base/base.h"

// The Internet checksum's sum (RFC 1071) over bytes anywhere in memory, by the widest vectors that
// the machine has. What a shard receives without a device that sums up passes through it whole.
//
// Threading: any. Memory: nothing is kept. Time: none.

// The folded sum, not inverted, of 16-bit words as they lie in memory; an odd last byte counts as
// if a zero followed it. `size` is at most 1 MiB.
uint16_t sl_sum(const void *data, size_t size);

// The same word by word: what the machine need not have. For tests.
uint16_t sl_sum_scalar(const void *data, size_t size);
