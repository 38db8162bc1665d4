#pragma once

#include "dataplane/base/base.h"
#include "dataplane/otlp/signal.h"

// The messages of OTLP as tables: one description serves the scan's generic walk, JSON in both
// directions, and the tests' random requests. Source: opentelemetry-proto v1.11.
//
// Threading: constants. Unknown fields are legal everywhere and survive.
enum sl_field_type {
	SL_FIELD_UINT32, // varint
	SL_FIELD_UINT64, // varint; a string in JSON
	SL_FIELD_INT32,  // varint, sign-extended to 64 bits; also enums
	SL_FIELD_INT64,  // varint; a string in JSON
	SL_FIELD_ENUM,   // varint; `names` gives the values' names
	SL_FIELD_SINT32, // zigzag varint
	SL_FIELD_BOOL,   // varint
	SL_FIELD_FIXED32,
	SL_FIELD_FIXED64,  // a string in JSON
	SL_FIELD_SFIXED64, // a string in JSON
	SL_FIELD_DOUBLE,
	SL_FIELD_STRING, // UTF-8
	SL_FIELD_BYTES,  // base64 in JSON
	SL_FIELD_ID,     // bytes, hex in JSON; empty or `id_bytes` long
	SL_FIELD_MESSAGE,
};

struct sl_message;

struct sl_field {
	const char *name; // lowerCamelCase, as in JSON
	uint8_t number;   // OTLP has none above 16 (1000, reserved, is unknown to us)
	uint8_t type;
	bool repeated;    // scalars: packed and unpacked are both read; packed is written
	bool optional;    // presence matters (`optional`, or a member of a oneof)
	uint8_t oneof;    // 0: none; members of one oneof share a number
	uint8_t id_bytes; // SL_FIELD_ID
	const struct sl_message *message;
	const struct sl_enum_name *names; // SL_FIELD_ENUM; ends with a NULL name
};

struct sl_enum_name {
	const char *name;
	int32_t value;
};

struct sl_message {
	const char *name;              // "Span"
	const struct sl_field *fields; // by number, rising
	uint8_t field_count;
	uint8_t by_number[20]; // field number -> index + 1 in fields; 0: unknown
};

// The Export request of each signal.
extern const struct sl_message *const sl_schema_requests[SL_SIGNALS];

extern const struct sl_message sl_schema_any_value, sl_schema_key_value, sl_schema_span,
	sl_schema_log_record, sl_schema_metric, sl_schema_resource, sl_schema_scope;

// NULL when the message has no field of that number or name.
const struct sl_field *sl_schema_field(const struct sl_message *message, uint64_t number);
const struct sl_field *sl_schema_field_named(const struct sl_message *message,
					     struct sl_bytes name);

// The wire type that the field is written with: 0 varint, 1 64-bit, 2 length, 5 32-bit.
unsigned sl_schema_wire_type(const struct sl_field *field);
