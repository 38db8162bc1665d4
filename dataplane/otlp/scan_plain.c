#include "dataplane/otlp/scan.h"

// The order of fields that SDKs write, as straight-line code. Each step asks for one tag and goes
// on when it is not there; whoever then stands elsewhere than at the end declines. Tags and most
// lengths are one byte. A step is entered with `at` at most 20 bytes behind `end`, so nothing
// behind the slack is touched, and what was read behind `end` is declined.

#define CONTINUED 0x80 // a varint goes on behind this byte

// A length of any form at `at`, its payload inside `end`.
SL_INLINE const uint8_t *data_at(const uint8_t *at, const uint8_t *end, uint32_t *length)
{
	const uint8_t *next = sl_wire_u32(at, length);

	if (SL_UNLIKELY(!next || next > end || *length > (size_t)(end - next)))
		return NULL;
	return next;
}

// Steps over a field of two bytes, like a small varint.
SL_INLINE const uint8_t *small(const uint8_t *at, uint8_t tag)
{
	return at[0] == tag && at[1] < CONTINUED ? at + 2 : at;
}

SL_INLINE const uint8_t *fixed64(const uint8_t *at, uint8_t tag)
{
	return at + (at[0] == tag ? 9 : 0);
}

// A value of `bytes` bytes, at least 2, behind its tag and length, that is one scalar.
SL_INLINE bool plain_scalar(const uint8_t *at, uint32_t bytes)
{
	if (sl_wire_load_u16(at) != (0x12 | bytes << 8))
		return false;
	if (at[2] == 0x18 || at[2] == 0x10) // int, bool
		return sl_wire_is_varint(at + 3, bytes - 1);
	return at[2] == 0x21 && bytes == 9; // double
}

// Attributes of the form
//     tag <length> 0a <key's length> key 12 <value's length> <one member>
// with lengths below 128, up to the first of another form. Their common member, a string, is one
// comparison: all four bytes before it follow from the two lengths before the key.
SL_INLINE const uint8_t *plain_attributes(const uint8_t *at, const uint8_t *end, uint8_t tag)
{
	for (;;) {
		const uint32_t head = sl_wire_load_u32(at);
		const size_t length = at[1], key = at[3];
		const uint8_t *const value = at + 4 + key, *const next = at + 2 + length;
		const uint32_t rest = (uint32_t)(length - key); // the value with 4 bytes more

		if ((head & 0x80ff80ff) != (UINT32_C(0x000a0000) | tag))
			return at;
		// The value's tag and length, its member's tag and one byte more lie inside.
		if (SL_UNLIKELY(next > end || (int32_t)rest < 6))
			return at;

		// 12 <rest - 4> 0a <rest - 6>
		const uint32_t member = sl_wire_load_u32(value);

		if (SL_UNLIKELY(member != rest * UINT32_C(0x01000100) + UINT32_C(0xfa09fc12)) &&
		    !plain_scalar(value, rest - 4))
			return at;
		at = next;
	}
}

// An AnyValue of one string, or none.
static bool plain_any_value(const uint8_t *at, const uint8_t *end)
{
	uint32_t length = 0;

	if (at == end)
		return true;
	if (at[0] != 0x0a)
		return false;
	at = data_at(at + 1, end, &length);
	return at && at + length == end;
}

bool sl_scan_plain_key_value(const uint8_t *at, const uint8_t *end)
{
	uint32_t length = 0;

	if (at == end || at[0] != 0x0a)
		return false;
	at = data_at(at + 1, end, &length);
	if (!at)
		return false;
	at += length;
	if (at == end || at[0] != 0x12)
		return false;
	at = data_at(at + 1, end, &length);
	if (!at || at + length != end)
		return false;
	if (length >= 2 && (at[0] == 0x10 || at[0] == 0x18))
		return sl_wire_is_varint(at + 1, length - 1);
	if (length == 9 && at[0] == 0x21)
		return true;
	return plain_any_value(at, end);
}

// One attribute of another form.
static __attribute__((noinline)) const uint8_t *attribute(struct sl_scan *scan, const uint8_t *at,
							  const uint8_t *end)
{
	uint32_t length = 0;

	at = data_at(at + 1, end, &length);
	return at ? sl_scan_key_value(scan, at, at + length) : NULL;
}

SL_INLINE const uint8_t *attributes(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
				    uint8_t tag)
{
	for (;;) {
		at = plain_attributes(at, end, tag);
		if (SL_LIKELY(at == end || at[0] != tag))
			return at;
		at = attribute(scan, at, end);
		if (!at)
			return NULL;
	}
}

const uint8_t *sl_scan_plain_resource(const uint8_t *at, const uint8_t *end)
{
	return plain_attributes(at, end, 0x0a);
}

const uint8_t *sl_scan_plain_strings(const uint8_t *at, const uint8_t *end, uint8_t last)
{
	while (at < end && at[0] <= last && (at[0] & 7) == 2 && at[0] >= 0x0a &&
	       at[1] < CONTINUED && at[1] <= end - at - 2)
		at += 2 + at[1];
	return at;
}

// time, name, attributes, dropped
static bool plain_event(struct sl_scan *scan, const uint8_t *at, const uint8_t *end)
{
	uint32_t length = 0;

	at = fixed64(at, 0x09);
	if (at < end && at[0] == 0x12) {
		at = data_at(at + 1, end, &length);
		if (!at)
			return false;
		at += length;
	}
	if (at > end)
		return false;
	at = attributes(scan, at, end, 0x1a);
	return at && (at == end || small(at, 0x20) == end);
}

// ids, tracestate, attributes, dropped, flags
static bool plain_link(struct sl_scan *scan, const uint8_t *at, const uint8_t *end)
{
	uint32_t length = 0;

	if (end - at < 28 || sl_wire_load_u16(at) != 0x100a || sl_wire_load_u16(at + 18) != 0x0812)
		return false;
	at += 28;
	if (at < end && at[0] == 0x1a) {
		at = data_at(at + 1, end, &length);
		if (!at)
			return false;
		at += length;
	}
	at = attributes(scan, at, end, 0x22);
	if (!at)
		return false;
	if (at < end)
		at = small(at, 0x28);
	if (at < end && at[0] == 0x35)
		at += 5;
	return at == end;
}

// Steps over fields `tag` that `plain` knows; the others of that tag are walked.
SL_INLINE const uint8_t *each(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			      uint8_t tag, const struct sl_message *parent,
			      bool (*plain)(struct sl_scan *scan, const uint8_t *at,
					    const uint8_t *end))
{
	uint32_t length = 0;

	while (at < end && at[0] == tag) {
		at = data_at(at + 1, end, &length);
		if (!at)
			return NULL;
		if (!plain(scan, at, at + length) &&
		    !sl_scan_message(scan, at, at + length,
				     sl_schema_field(parent, tag >> 3)->message, 0))
			return NULL;
		at += length;
	}
	return at;
}

// message, code
static bool plain_status(const uint8_t *at, const uint8_t *end, uint8_t *code)
{
	uint32_t length = 0;

	if (at < end && at[0] == 0x12) {
		at = data_at(at + 1, end, &length);
		if (!at)
			return false;
		at += length;
	}
	if (at < end && at[0] == 0x18 && at[1] < CONTINUED) {
		*code = at[1];
		at += 2;
	}
	return at == end;
}

// What a span holds behind its attributes.
SL_INLINE const uint8_t *span_tail(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
				   struct sl_item *item)
{
	at = small(at, 0x50); // dropped attributes
	at = each(scan, at, end, 0x5a, &sl_schema_span, plain_event);
	if (!at)
		return NULL;
	if (at < end)
		at = small(at, 0x60); // dropped events
	at = each(scan, at, end, 0x6a, &sl_schema_span, plain_link);
	if (!at)
		return NULL;
	if (at < end)
		at = small(at, 0x70); // dropped links
	if (at < end && at[0] == 0x7a) {
		const uint8_t *next = at + 2 + at[1];

		if (at[1] >= CONTINUED || next > end || !plain_status(at + 2, next, &item->status))
			return NULL;
		at = next;
	}
	if (at < end && sl_wire_load_u16(at) == 0x0185) // flags
		at += 6;
	return at;
}

const uint8_t *sl_scan_plain_span(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
				  struct sl_item *item)
{
	uint64_t start_ns = 0, end_ns = 0;
	uint8_t flags = SL_ITEM_IS_ROOT;

	if (end - at < 28 || sl_wire_load_u16(at) != 0x100a || sl_wire_load_u16(at + 18) != 0x0812)
		return NULL;
	item->trace_at = (uint16_t)(at + 2 - scan->body - item->at);
	item->trace_low = __builtin_bswap64(sl_wire_load_u64(at + 10));
	at += 28;
	if (at[0] == 0x1a) { // tracestate
		uint32_t length = 0;

		at = data_at(at + 1, end, &length);
		if (!at)
			return NULL;
		flags |= length ? SL_ITEM_HAS_TRACE_STATE : 0;
		at += length;
	}
	if (at[0] == 0x22) { // parent
		const uint32_t length = at[1];

		if (length != 8 && length != 0) // empty, from the Collector
			return NULL;
		flags = length ? flags & (uint8_t)~SL_ITEM_IS_ROOT : flags;
		at += 2 + length;
	}
	if (at[0] == 0x2a && at[1] < CONTINUED) // name
		at += 2 + at[1];
	if (SL_UNLIKELY(at > end))
		return NULL;
	at = small(at, 0x30); // kind
	if (at[0] == 0x39) {
		start_ns = sl_wire_load_u64(at + 1);
		at += 9;
	}
	if (at[0] == 0x41) {
		end_ns = sl_wire_load_u64(at + 1);
		at += 9;
	}
	if (SL_UNLIKELY(at > end))
		return NULL;
	at = attributes(scan, at, end, 0x4a);
	if (at && at != end)
		at = span_tail(scan, at, end, item);
	item->flags = flags;
	item->duration_us = sl_scan_duration_us(start_ns, end_ns);
	return at == end ? at : NULL;
}

const uint8_t *sl_scan_plain_log(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
				 struct sl_item *item)
{
	const uint8_t *observed = NULL; // behind the time of observation, where that comes early
	uint32_t length = 0;

	at = fixed64(at, 0x09);
	// Java writes field 11 here: its records are out of order.
	if (at[0] == 0x59)
		observed = at += 9;
	if (at[0] == 0x10 && at[1] < CONTINUED) {
		item->status = at[1];
		at += 2;
	}
	if (at[0] == 0x1a && at[1] < CONTINUED) // severity's text
		at += 2 + at[1];
	if (SL_UNLIKELY(at > end))
		return NULL;
	if (at < end && at[0] == 0x2a) { // body
		at = data_at(at + 1, end, &length);
		if (!at || (!plain_any_value(at, at + length) &&
			    !sl_scan_message(scan, at, at + length, &sl_schema_any_value, 0)))
			return NULL;
		at += length;
	}
	at = attributes(scan, at, end, 0x32);
	if (SL_UNLIKELY(!at))
		return NULL;
	at = small(at, 0x38); // dropped attributes
	at += at[0] == 0x45 ? 5 : 0;
	if (SL_UNLIKELY(at > end))
		return NULL;
	if (SL_LIKELY(sl_wire_load_u16(at) == 0x104a)) { // trace id
		const size_t offset = (size_t)(at + 2 - scan->body) - item->at;

		if (end - at < 18)
			return NULL;
		item->trace_low = __builtin_bswap64(sl_wire_load_u64(at + 10));
		item->trace_at = offset < SL_TRACE_AT_UNKNOWN ? (uint16_t)offset
							      : SL_TRACE_AT_UNKNOWN;
		at += 18;
	} else if (sl_wire_load_u16(at) == 0x004a) {
		at += 2;
	}
	if (at[0] == 0x52 && (at[1] == 8 || at[1] == 0)) // span id
		at += 2 + at[1];
	if (observed)
		item->flags = at != observed ? SL_ITEM_GENERAL : 0;
	else
		at = fixed64(at, 0x59);
	if (at < end && at[0] == 0x62 && at[1] < CONTINUED) // event's name
		at += 2 + at[1];
	return at == end ? at : NULL;
}

// bucket counts, bounds: whole 64-bit values
SL_INLINE const uint8_t *packed64(const uint8_t *at, const uint8_t *end, uint8_t tag)
{
	uint32_t length = 0;

	if (at >= end || at[0] != tag)
		return at;
	at = data_at(at + 1, end, &length);
	return at && length % 8 == 0 ? at + length : NULL;
}

// An Exemplar has no common form: it is walked.
static bool plain_exemplar(struct sl_scan *scan, const uint8_t *at, const uint8_t *end)
{
	(void)scan;
	return at == end;
}

// Nothing is taken from a point, so its fields may come in any order: round by round, each of them
// straight on.
static const uint8_t *number_point(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
				   const struct sl_message *point)
{
	const uint8_t *from;

	do {
		from = at;
		at = fixed64(at, 0x11); // start
		at = fixed64(at, 0x19); // time
		if (SL_UNLIKELY(at > end))
			return NULL;
		at = fixed64(at, 0x21); // double
		at = each(scan, at, end, 0x2a, point, plain_exemplar);
		if (SL_UNLIKELY(!at))
			return NULL;
		at = fixed64(at, 0x31); // int
		if (SL_UNLIKELY(at > end))
			return NULL;
		at = attributes(scan, at, end, 0x3a);
		if (SL_LIKELY(at == end))
			return at;
		if (SL_UNLIKELY(!at))
			return NULL;
		at = small(at, 0x40); // flags
	} while (at < end && at != from);
	return at == end ? at : NULL;
}

static const uint8_t *histogram_point(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
				      const struct sl_message *point)
{
	const uint8_t *from;

	do {
		from = at;
		at = fixed64(at, 0x11); // start
		at = fixed64(at, 0x19); // time
		if (SL_UNLIKELY(at > end))
			return NULL;
		at = fixed64(at, 0x21); // count
		at = fixed64(at, 0x29); // sum
		at = packed64(at, end, 0x32);
		at = at ? packed64(at, end, 0x3a) : NULL;
		at = at ? each(scan, at, end, 0x42, point, plain_exemplar) : NULL;
		if (SL_UNLIKELY(!at || at > end))
			return NULL;
		at = attributes(scan, at, end, 0x4a);
		if (SL_UNLIKELY(!at))
			return NULL;
		if (at == end)
			return at;
		at = small(at, 0x50);   // flags
		at = fixed64(at, 0x59); // min
		at = fixed64(at, 0x61); // max
	} while (at < end && at != from);
	return at == end ? at : NULL;
}

const uint8_t *sl_scan_plain_point(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
				   uint32_t field, const struct sl_message *point)
{
	switch (field) {
	case 5: // Gauge
	case 7: // Sum
		return number_point(scan, at, end, point);
	case 9:
		return histogram_point(scan, at, end, point);
	}
	return NULL;
}
