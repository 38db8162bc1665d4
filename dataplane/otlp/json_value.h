#pragma once

#include "dataplane/otlp/schema.h"

// Single values of OTLP JSON, from the text of a number or of a string's content.
//
// Threading: any. Each returns false when the text is no such value.

// A decimal without a fraction's worth: "5", "-5", "5.0", "1e3" (item 48).
bool sl_json_integer(struct sl_bytes text, bool *negative, uint64_t *magnitude);
// The value in the wire's form (varint value, or the 4 or 8 bytes' value) of an integer field;
// false out of the type's range too.
bool sl_json_integer_of(enum sl_field_type type, struct sl_bytes text, uint64_t *value);
// A decimal, or with `quoted` also NaN, Infinity and -Infinity. One readable byte, not a digit, has
// to stand behind the text.
bool sl_json_double(struct sl_bytes text, bool quoted, uint64_t *value);
// Hex digits; `out` takes text.size / 2 bytes.
bool sl_json_hex(struct sl_bytes text, uint8_t *out);
// Both alphabets, padding optional; `out` takes text.size / 4 * 3 + 3 bytes.
bool sl_json_base64(struct sl_bytes text, uint8_t *out, size_t *size);
