#pragma once

#include "dataplane/otlp/schema.h"
#include "dataplane/otlp/view.h"
#include "dataplane/otlp/wire.h"

// The scan's two halves: view.c finds envelopes and items, scan_message.c checks what is inside
// them. Functions return where reading goes on, or NULL after sl_scan_fail.
//
// Threading: one owner. For this folder alone.
struct sl_scan {
	struct sl_view *view;
	const uint8_t *body;
	struct sl_arena *arena;
	const struct sl_view_limits *limits;
	uint32_t envelope_capacity, item_capacity;
	const void *newest; // the array that can be shrunk
	enum sl_view_result result;
	uint32_t error_at;
};

const uint8_t *sl_scan_fail(struct sl_scan *scan, const uint8_t *at, enum sl_view_result result);

// The tag at `at`; its field number is not 0.
SL_INLINE const uint8_t *sl_scan_tag(struct sl_scan *scan, const uint8_t *at, uint32_t *tag)
{
	const uint8_t *next = sl_wire_u32(at, tag);

	if (SL_UNLIKELY(!next || *tag < 8))
		return sl_scan_fail(scan, at, SL_VIEW_MALFORMED);
	return next;
}

// The length at `at`; its payload lies inside `end`.
SL_INLINE const uint8_t *sl_scan_length(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
					uint32_t *length)
{
	const uint8_t *next = sl_wire_u32(at, length);

	if (SL_UNLIKELY(!next || next > end || *length > (size_t)(end - next)))
		return sl_scan_fail(scan, at, SL_VIEW_MALFORMED);
	return next;
}

// Steps over the value of a field that `message` (NULL: nothing known) may know, checking it.
const uint8_t *sl_scan_value(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			     uint32_t tag, const struct sl_message *message, uint32_t depth);

// Checks one whole message.
const uint8_t *sl_scan_message(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			       const struct sl_message *message, uint32_t depth);

// Checks a KeyValue: straight on for the form that every SDK writes.
const uint8_t *sl_scan_key_value(struct sl_scan *scan, const uint8_t *at, const uint8_t *end);

// key: 0a <length> ...  value: 12 <length> <one member>, lengths below 128, filling it exactly.
SL_INLINE bool sl_scan_plain_key_value(const uint8_t *at, const uint8_t *end)
{
	uint64_t value;

	if (end - at < 4 || at[0] != 0x0a || at[1] >= 0x80)
		return false;
	at += 2 + at[1];
	if (end - at < 2 || at[0] != 0x12 || at[1] >= 0x80 || at[1] != end - at - 2)
		return false;
	at += 2;
	if (at == end)
		return true;
	switch (at[0]) {
	case 0x0a:
		return end - at >= 2 && at[1] < 0x80 && at[1] == end - at - 2;
	case 0x10:
	case 0x18:
		return sl_wire_u64(at + 1, &value) == end;
	case 0x21:
		return end - at == 9;
	}
	return false;
}

// Steps over attributes in that form, one after the other, up to the first that is not.
SL_INLINE const uint8_t *sl_scan_plain_attributes(const uint8_t *at, const uint8_t *end,
						  uint8_t tag)
{
	while (end - at >= 2 && at[0] == tag && at[1] < 0x80 && at[1] <= end - at - 2 &&
	       sl_scan_plain_key_value(at + 2, at + 2 + at[1]))
		at += 2 + at[1];
	return at;
}

// Checks an item and fills what policies need.
const uint8_t *sl_scan_span(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			    struct sl_item *item);
const uint8_t *sl_scan_log(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			   struct sl_item *item);
