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

// Checks an item and fills what policies need.
const uint8_t *sl_scan_span(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			    struct sl_item *item);
const uint8_t *sl_scan_log(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			   struct sl_item *item);
