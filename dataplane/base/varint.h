#pragma once

#include "dataplane/base/base.h"

// Protocol buffers' base-128 varints.
// https://protobuf.dev/programming-guides/encoding/#varints

#define SL_VARINT_BYTES_MAX 10

// Decodes one varint. Returns the bytes consumed (1..10), 0 when `size` cuts it, -1 when it is
// longer than ten bytes or does not fit 64 bits.
SL_INLINE int sl_varint_get(const uint8_t *at, size_t size, uint64_t *value)
{
	uint64_t result = 0;

	if (SL_LIKELY(size && at[0] < 0x80)) {
		*value = at[0];
		return 1;
	}
	for (unsigned i = 0; i < SL_VARINT_BYTES_MAX; i++) {
		if (i == size)
			return 0;
		if (i == 9 && at[i] > 1)
			return -1;
		result |= (uint64_t)(at[i] & 0x7f) << (7 * i);
		if (at[i] < 0x80) {
			*value = result;
			return (int)i + 1;
		}
	}
	return -1;
}

// The bytes that `value` takes.
SL_INLINE unsigned sl_varint_bytes(uint64_t value)
{
	return (unsigned)(63 - __builtin_clzl(value | 1)) / 7 + 1;
}

// Writes `value`; room for sl_varint_bytes(value) is the caller's. Returns the bytes written.
SL_INLINE unsigned sl_varint_put(uint8_t *at, uint64_t value)
{
	unsigned count = 0;

	while (value >= 0x80) {
		at[count++] = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	at[count++] = (uint8_t)value;
	return count;
}
