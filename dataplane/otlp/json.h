#pragma once

#include "dataplane/base/arena.h"
#include "dataplane/otlp/schema.h"

// OTLP JSON to wire and back, by the tables of schema.h. Rules: reference items 44-49 of OTLP's
// JSON mapping and proto3 JSON: hex ids, other bytes base64 (both alphabets, padding optional),
// integers as numbers or strings, null is unset, unknown names are ignored, NaN and Infinity as
// strings, enum values as integers (names too when `lenient`).
//
// Threading: one owner a call. Memory: the result lies in the arena, with SL_BODY_SLACK behind it.
struct sl_json_limits {
	uint32_t depth_max; // of JSON nesting
	uint64_t wire_bytes_max;
	bool enum_names; // take "SPAN_KIND_SERVER" for 2
};

enum sl_json_result {
	SL_JSON_OK = 0,
	SL_JSON_MALFORMED = -1, // not JSON, or a value that its field cannot take
	SL_JSON_TOO_DEEP = -2,
	SL_JSON_TOO_LARGE = -3,
	SL_JSON_NO_MEMORY = -4,
};

// On a refusal `error` (at least 160 bytes, may be NULL) names where and what was expected, such
// as "resourceSpans[0].scopeSpans[0].spans[2].traceId: expected 32 hex digits (byte 4711)".
enum sl_json_result sl_json_to_wire(enum sl_signal signal, struct sl_bytes json,
				    const struct sl_json_limits *limits, struct sl_arena *arena,
				    struct sl_bytes *wire, char *error, size_t error_size);

// The canonical OTLP JSON of a valid Export request, one line without a newline. Appends to a
// growing malloc'ed buffer: for writers off a request's way (file destination, consoles).
struct sl_json_text {
	char *text;
	size_t size, capacity;
};
// Returns 0, -ENOMEM or -EINVAL (not valid wire).
int sl_json_from_wire(enum sl_signal signal, struct sl_bytes wire, struct sl_json_text *out);
void sl_json_text_fini(struct sl_json_text *text);
