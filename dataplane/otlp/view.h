#pragma once

#include "dataplane/base/arena.h"
#include "dataplane/otlp/signal.h"

// A flat view of one Export request, made by one scan of its wire bytes. Envelopes (resource,
// scope, metric, points) and items (span, data point, log record) are arrays in wire order; an
// item knows its innermost envelope, an envelope its parent.
//
//   body    |resource_spans ......................................|resource_spans ...
//            |resource|scope_spans .................|scope_spans .
//                      |scope|span|span|span|
//   envelopes  0: RESOURCE parent TOP    1: SCOPE parent 0    2: SCOPE parent 0
//   items      0: in 1    1: in 1 ...
//
// Threading: one owner. Memory: arrays lie in the request's arena; `body` is the caller's and must
// have SL_BODY_SLACK readable bytes behind it. Time: none.
#define SL_TOP              UINT32_MAX
#define SL_BODY_SLACK       32
#define SL_TRACE_AT_UNKNOWN UINT16_MAX
#define SL_BODY_BYTES_MAX   (UINT32_MAX / 2) // offsets are 32 bits

enum sl_envelope_kind {
	SL_ENVELOPE_RESOURCE, // ResourceSpans, ResourceMetrics, ResourceLogs
	SL_ENVELOPE_SCOPE,    // ScopeSpans, ScopeMetrics, ScopeLogs
	SL_ENVELOPE_METRIC,   // Metric
	SL_ENVELOPE_POINTS,   // Gauge, Sum, Histogram, ExponentialHistogram, Summary
};

// `at` is the offset of the field's tag in the body, `bytes` its length with tag and length prefix.
// Its payload begins `head` bytes after `at`.
struct sl_envelope {
	uint32_t at, bytes;
	uint32_t parent; // index, or SL_TOP
	uint8_t kind;
	uint8_t head;
	uint8_t field;                   // the field's number in its parent message
	uint8_t flags;                   // enum sl_envelope_flags
	uint32_t first_item, item_count; // items inside it, at any depth (they are contiguous)
	// Where its children (envelopes or items) begin and end; both the payload's end without
	// any.
	uint32_t children_at, children_end;
};
static_assert(sizeof(struct sl_envelope) == 32, "two envelopes a cache line");

enum sl_envelope_flags {
	SL_ENVELOPE_DENSE = 1, // nothing but children between children_at and children_end
};

enum sl_item_flags {
	SL_ITEM_HAS_TRACE_STATE = 1, // a span with a non-empty tracestate
	SL_ITEM_IS_ROOT = 2,         // a span without a parent span id
	SL_ITEM_GENERAL = 4, // its fields come in a rare form (twice, out of order): look closely
};

// A span, a log record, a data point. Unset values are 0.
struct sl_item {
	uint32_t at, bytes; // as in an envelope
	uint32_t envelope;  // the innermost around it
	uint16_t trace_at;  // offset of the 16-byte trace id's first byte from `at`;
			    // SL_TRACE_AT_UNKNOWN: none, not 16 bytes long, or further than that
	uint8_t status;     // a span's status code: 0 unset, 1 ok, 2 error; a log record's severity
	uint8_t flags;      // enum sl_item_flags
	uint64_t trace_low; // last 8 bytes of the trace id, big-endian; 0 if none
	uint32_t duration_us; // a span's end - start, saturating at UINT32_MAX; 0 if negative
	uint32_t spare;
};
static_assert(sizeof(struct sl_item) == 32, "two items a cache line");

struct sl_view {
	enum sl_signal signal;
	struct sl_bytes body;
	struct sl_envelope *envelopes;
	struct sl_item *items;
	uint32_t envelope_count, item_count;
	bool only_field_1; // nothing else at top level: bodies can be merged by concatenation
	bool has_empty;    // some envelope has no items: what leaves us leaves it out (item 4)
};

struct sl_view_limits {
	uint32_t items_max;
	uint32_t depth_max; // nesting of AnyValue: arrays and key-value lists in each other
};

enum sl_view_result {
	SL_VIEW_OK = 0,
	SL_VIEW_MALFORMED = -1, // not protobuf, or not this message
	SL_VIEW_TOO_DEEP = -2,  // AnyValue nested beyond depth_max
	SL_VIEW_TOO_MANY_ITEMS = -3,
	SL_VIEW_NO_MEMORY = -4, // the shard's budget is spent
};

// Scans `body` once, to full depth: tags, wire types of known fields, lengths, varints, groups
// balanced, nesting. Every proper prefix of a body is refused or is itself a valid body.
// On a refusal `*error_at` (may be NULL) is the offset where reading stopped.
enum sl_view_result sl_view_scan(struct sl_view *view, enum sl_signal signal, struct sl_bytes body,
				 const struct sl_view_limits *limits, struct sl_arena *arena,
				 uint32_t *error_at);

// An item's payload (the message without tag and length).
struct sl_bytes sl_view_item_payload(const struct sl_view *view, uint32_t item);
struct sl_bytes sl_view_envelope_payload(const struct sl_view *view, uint32_t envelope);

// The 16 bytes of an item's trace id, wherever it lies; false when it has none of 16 bytes.
bool sl_view_trace_id(const struct sl_view *view, uint32_t item, uint8_t trace_id[16]);

// Whether all strings of a body that the scan took are UTF-8. The scan does not ask: a strict
// receiver refuses a whole message for one bad string, so only what is merged with others is looked
// at.
bool sl_view_text_valid(const struct sl_view *view);

// Walking the fields of any message of the body (which the scan has checked).
struct sl_wire_field {
	uint32_t number;
	uint8_t wire_type;
	uint32_t at, bytes;   // the whole field, from the walked payload's start
	uint64_t value;       // wire types 0, 1, 5
	struct sl_bytes data; // wire type 2
};
bool sl_wire_next_any(struct sl_bytes payload, uint32_t *offset, struct sl_wire_field *field);

// `*offset` starts at 0. Returns false at the end (groups are stepped over whole, wire_type 3).
// What nearly all fields are is read here: a tag of one byte, a length of at most two.
SL_INLINE bool sl_wire_next(struct sl_bytes payload, uint32_t *offset, struct sl_wire_field *field)
{
	const uint8_t *at;
	uint32_t head = 2, bytes;
	size_t left;

	if (*offset >= payload.size)
		return false;
	at = payload.data + *offset;
	left = payload.size - *offset;
	if (SL_UNLIKELY(left < 3 || at[0] >= 0x80))
		return sl_wire_next_any(payload, offset, field);
	switch (at[0] & 7) {
	case 0:
		if (at[1] >= 0x80)
			return sl_wire_next_any(payload, offset, field);
		*field = (struct sl_wire_field){.bytes = 2, .value = at[1]};
		break;
	case 1:
		if (left < 9)
			return sl_wire_next_any(payload, offset, field);
		*field = (struct sl_wire_field){.wire_type = 1, .bytes = 9};
		memcpy(&field->value, at + 1, 8);
		break;
	case 2:
		bytes = at[1];
		if (bytes >= 0x80 && at[2] < 0x80) {
			bytes = (bytes & 0x7f) | (uint32_t)at[2] << 7;
			head = 3;
		}
		if (at[head - 1] >= 0x80 || bytes > left - head)
			return sl_wire_next_any(payload, offset, field);
		*field = (struct sl_wire_field){
			.wire_type = 2,
			.bytes = head + bytes,
			.data = sl_bytes(at + head, bytes),
		};
		break;
	default:
		return sl_wire_next_any(payload, offset, field);
	}
	field->number = at[0] >> 3;
	field->at = *offset;
	*offset += field->bytes;
	return true;
}

// What an AnyValue holds, named after its field number; NONE: nothing.
enum sl_any_type {
	SL_ANY_NONE,
	SL_ANY_STRING,
	SL_ANY_BOOL,
	SL_ANY_INT,
	SL_ANY_DOUBLE,
	SL_ANY_ARRAY,
	SL_ANY_MAP,
	SL_ANY_BYTES,
	SL_ANY_STRING_INDEX,
};
struct sl_any {
	enum sl_any_type type;
	struct sl_bytes text; // STRING
	uint64_t bits;        // BOOL, INT; DOUBLE as its IEEE 754 bits
};

// The key of a KeyValue in its usual form, a short key and then a value; NONE: ask the next.
SL_INLINE struct sl_bytes sl_wire_plain_key(struct sl_bytes pair)
{
	const uint8_t *const at = pair.data, *const end = at + pair.size, *value;
	uint32_t head = 2, length;

	if (pair.size < 4 || at[0] != 0x0a || at[1] >= 0x80 || end - at - 2 - at[1] < 2)
		return SL_BYTES_NONE;
	value = at + 2 + at[1];
	length = value[1];
	if (length >= 0x80 && end - value > 2 && value[2] < 0x80) {
		length = (length & 0x7f) | (uint32_t)value[2] << 7;
		head = 3;
	}
	if (value[0] != 0x12 || (ptrdiff_t)head + length != end - value)
		return SL_BYTES_NONE;
	return sl_bytes(at + 2, at[1]);
}

// The one reader of a KeyValue: the last key, the merged value.
void sl_wire_key_value(struct sl_bytes pair, struct sl_bytes *key, struct sl_any *any);

// Walking all attributes of a resource in wire order, those of a second Resource field too: a
// parser merges them. `resource` is the RESOURCE envelope's index.
struct sl_attributes {
	struct sl_bytes payload;    // the envelope's
	struct sl_wire_field about; // the Resource field at work; offsets are the payload's
	struct sl_wire_field pair;  // the KeyValue's field; offsets are about.data's
	uint32_t outer, inner;
};
struct sl_attributes sl_view_attributes(const struct sl_view *view, uint32_t resource);
bool sl_attributes_next(struct sl_attributes *walk, struct sl_bytes *key, struct sl_any *any);

// An attribute of the resource that an item or envelope lies in: the last one of that key wins.
// Returns false when absent. `resource` is the RESOURCE envelope's index.
bool sl_view_resource_any(const struct sl_view *view, uint32_t resource, struct sl_bytes key,
			  struct sl_any *any);
// A string attribute of the resource that an item or envelope lies in: the last one of that key
// wins. Returns false when absent or not a string. `resource` is the RESOURCE envelope's index.
bool sl_view_resource_attribute(const struct sl_view *view, uint32_t resource, struct sl_bytes key,
				struct sl_bytes *value);
// The RESOURCE envelope of an envelope.
uint32_t sl_view_resource_of(const struct sl_view *view, uint32_t envelope);
