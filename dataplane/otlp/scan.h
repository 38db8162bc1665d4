#pragma once

#include "dataplane/otlp/schema.h"
#include "dataplane/otlp/view.h"
#include "dataplane/otlp/wire.h"

// The scan's halves: view.c finds envelopes and items, scan_message.c checks what is inside them;
// scan_item.c does so for items, scan_plain.c the same straight on for the common form. Functions
// return where reading goes on, or NULL after sl_scan_fail.
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
	bool generic; // no straight-line code
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

// Checks a KeyValue.
const uint8_t *sl_scan_key_value(struct sl_scan *scan, const uint8_t *at, const uint8_t *end);

SL_INLINE uint32_t sl_scan_duration_us(uint64_t start_ns, uint64_t end_ns)
{
	const uint64_t us = end_ns > start_ns ? (end_ns - start_ns) / 1000 : 0;

	return (uint32_t)SL_MIN(us, UINT32_MAX);
}

// Checks an item and fills what policies need.
const uint8_t *sl_scan_span(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			    struct sl_item *item);
const uint8_t *sl_scan_log(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			   struct sl_item *item);

// Straight-line code for the order and forms that SDKs write (scan_plain.c). It never refuses: it
// steps over what it knows to be right, or it declines (NULL) and the walk above decides from the
// start, so both give the same. What is read lies at most SL_BODY_SLACK bytes behind `end`.
const uint8_t *sl_scan_plain_span(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
				  struct sl_item *item);
const uint8_t *sl_scan_plain_log(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
				 struct sl_item *item);
const uint8_t *sl_scan_plain_point(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
				   uint32_t field, const struct sl_message *point);

// Steps over a Resource's first attributes, and over the first short strings of a message whose
// fields up to the tag `last` are strings, as far as they are plain: what is left is walked.
const uint8_t *sl_scan_plain_resource(const uint8_t *at, const uint8_t *end);
const uint8_t *sl_scan_plain_strings(const uint8_t *at, const uint8_t *end, uint8_t last);

// A KeyValue, from behind its own tag and length, whose only fields are a key and a string or a
// scalar, of any length.
bool sl_scan_plain_key_value(const uint8_t *at, const uint8_t *end);

// sl_view_scan; `generic` leaves the straight-line code out, for tests to compare.
enum sl_view_result sl_scan_request(struct sl_view *view, enum sl_signal signal,
				    struct sl_bytes body, const struct sl_view_limits *limits,
				    struct sl_arena *arena, bool generic, uint32_t *error_at);
