#pragma once

#include "dataplane/base/varint.h"

// Reading protobuf where up to SL_BODY_SLACK bytes behind the body may be touched: a tag and a
// varint are read without looking at the end, which is compared once, after the field. What lies
// behind the end cannot change a verdict: a field that reaches there is refused.
//
// Threading: any. For this folder alone.

// Both decoders we compare with read a tag and a length from at most five bytes.
#define SL_WIRE_SHORT_MAX 5

// A tag or length: at most five bytes and 32 bits; NULL when it is longer or larger.
SL_INLINE const uint8_t *sl_wire_u32(const uint8_t *at, uint32_t *value)
{
	uint64_t result = *at++;

	if (SL_LIKELY(result < 0x80)) {
		*value = (uint32_t)result;
		return at;
	}
	*value = 0;
	result &= 0x7f;
	for (unsigned shift = 7; shift < 7 * SL_WIRE_SHORT_MAX; shift += 7) {
		const uint8_t byte = *at++;

		result |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*value = (uint32_t)result;
			return result <= UINT32_MAX ? at : NULL;
		}
	}
	return NULL;
}

// A varint of 64 bits; NULL when it is longer than ten bytes or does not fit.
SL_INLINE const uint8_t *sl_wire_u64(const uint8_t *at, uint64_t *value)
{
	*value = 0;

	const int bytes = sl_varint_get(at, SL_VARINT_BYTES_MAX, value);

	return SL_LIKELY(bytes > 0) ? at + bytes : NULL;
}

SL_INLINE uint16_t sl_wire_load_u16(const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

SL_INLINE uint32_t sl_wire_load_u32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

SL_INLINE uint64_t sl_wire_load_u64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

// Whether the `bytes` bytes at `at` are exactly one varint; up to 10 are touched.
SL_INLINE bool sl_wire_is_varint(const uint8_t *at, uint32_t bytes)
{
	// The first byte without a continuation bit is the last: moved to the top, it stands alone.
	if (SL_LIKELY(bytes - 1 < 8))
		return (~sl_wire_load_u64(at) & UINT64_C(0x8080808080808080)) << (64 - 8 * bytes) ==
		       UINT64_C(1) << 63;

	uint64_t value;
	const uint8_t *next = sl_wire_u64(at, &value);

	return next && next == at + bytes;
}
