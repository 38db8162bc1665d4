#pragma once

#include "dataplane/base/base.h"

// UTF-8 and the escapes of JSON strings, for this folder's writers. Threading: any.

// The bytes of the character at `at` (1..4, RFC 3629: no surrogates, no overlong forms), or 0 when
// no valid one begins there.
SL_INLINE unsigned sl_utf8_bytes(struct sl_bytes text, size_t at)
{
	const uint8_t *byte = text.data + at;
	const size_t left = text.size - at;
	unsigned low = 0x80, high = 0xbf, count;

	if (byte[0] < 0x80)
		return 1;
	if (byte[0] >= 0xc2 && byte[0] <= 0xdf) {
		count = 2;
	} else if ((byte[0] & 0xf0) == 0xe0) {
		count = 3;
		low = byte[0] == 0xe0 ? 0xa0 : 0x80;
		high = byte[0] == 0xed ? 0x9f : 0xbf;
	} else if (byte[0] >= 0xf0 && byte[0] <= 0xf4) {
		count = 4;
		low = byte[0] == 0xf0 ? 0x90 : 0x80;
		high = byte[0] == 0xf4 ? 0x8f : 0xbf;
	} else {
		return 0;
	}
	if (left < count || byte[1] < low || byte[1] > high)
		return 0;
	for (unsigned i = 2; i < count; i++)
		if ((byte[i] & 0xc0) != 0x80)
			return 0;
	return count;
}

SL_INLINE bool sl_utf8_valid(struct sl_bytes text)
{
	size_t at = 0;

	while (at < text.size) {
		uint64_t eight;
		unsigned count;

		if (text.size - at >= sizeof(eight)) {
			memcpy(&eight, text.data + at, sizeof(eight));
			if ((eight & UINT64_C(0x8080808080808080)) == 0) {
				at += sizeof(eight);
				continue;
			}
		}
		count = sl_utf8_bytes(text, at);
		if (count == 0)
			return false;
		at += count;
	}
	return true;
}

#define SL_JSON_ESCAPE_MAX 6

// Writes the character at `*at` as it stands inside a JSON string and steps over it; what is not
// UTF-8 becomes U+FFFD. Returns the bytes written, at most SL_JSON_ESCAPE_MAX.
SL_INLINE unsigned sl_json_escape(uint8_t *out, struct sl_bytes text, size_t *at)
{
	static const char short_forms[] = "btn?fr"; // 0x08..0x0d
	static const char hex[] = "0123456789abcdef";
	const uint8_t byte = text.data[*at];
	const unsigned count = sl_utf8_bytes(text, *at);

	if (count == 0) {
		*at += 1;
		memcpy(out, "\xef\xbf\xbd", 3);
		return 3;
	}
	memcpy(out, text.data + *at, count);
	*at += count;
	if (byte == '"' || byte == '\\') {
		out[0] = '\\';
		out[1] = byte;
		return 2;
	}
	if (byte >= 0x20)
		return count;
	memcpy(out, "\\u00", 4);
	if (byte >= 0x08 && byte <= 0x0d && byte != 0x0b) {
		out[1] = (uint8_t)short_forms[byte - 0x08];
		return 2;
	}
	out[4] = (uint8_t)hex[byte >> 4];
	out[5] = (uint8_t)hex[byte & 0xf];
	return 6;
}
