#include "dataplane/otlp/scan.h"

// Spans and log records: the fields that policies look at are taken on the way. The last
// occurrence of a scalar wins; a Status given twice merges, so its last code wins too.

// Protobuf truncates an enum to 32 bits; what does not fit the item saturates, negative is unset.
static uint8_t small_enum(uint64_t value)
{
	const int32_t number = (int32_t)value;

	return (uint8_t)SL_MIN(SL_MAX(number, 0), UINT8_MAX);
}

static void set_trace(struct sl_scan *scan, struct sl_item *item, const uint8_t *at,
		      uint32_t length)
{
	const size_t offset = (size_t)(at - scan->body) - item->at;

	item->trace_low = length == 16 ? __builtin_bswap64(sl_wire_load_u64(at + 8)) : 0;
	item->trace_at = length == 16 && offset < SL_TRACE_AT_UNKNOWN ? (uint16_t)offset
								      : SL_TRACE_AT_UNKNOWN;
}

static const uint8_t *status(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			     struct sl_item *item)
{
	while (at < end) {
		uint32_t tag = 0;
		uint64_t code = 0;

		at = sl_scan_tag(scan, at, &tag);
		if (!at)
			return NULL;
		if (tag == 0x18 && sl_wire_u64(at, &code))
			item->status = small_enum(code);
		if (at > end)
			return sl_scan_fail(scan, end, SL_VIEW_MALFORMED);
		at = sl_scan_value(scan, at, end, tag, NULL, 0);
		if (!at)
			return NULL;
	}
	return at;
}

const uint8_t *sl_scan_span(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			    struct sl_item *item)
{
	uint64_t times[2] = {0, 0};
	uint32_t tag = 0, length = 0, before = 0, seen = 0;

	item->flags = SL_ITEM_IS_ROOT;
	while (at < end) {
		at = sl_scan_tag(scan, at, &tag);
		if (SL_UNLIKELY(!at))
			return NULL;
		if (SL_UNLIKELY(at > end))
			return sl_scan_fail(scan, end, SL_VIEW_MALFORMED);

		const uint32_t number = tag >> 3;

		// Repeated fields (9, 11, 13) may come often; all others once and in order.
		if (SL_UNLIKELY(number < before || (number < 16 && number != 9 && number != 11 &&
						    number != 13 && seen >> number & 1)))
			item->flags |= SL_ITEM_GENERAL;
		before = number;
		seen |= number < 32 ? UINT32_C(1) << number : 0;

		switch (tag) {
		case 0x39: // start_time_unix_nano
		case 0x41: // end_time_unix_nano
			if (SL_UNLIKELY(end - at < 8))
				return sl_scan_fail(scan, at, SL_VIEW_MALFORMED);
			times[tag == 0x41] = sl_wire_load_u64(at);
			at += 8;
			continue;
		case 0x0a:
		case 0x1a:
		case 0x22:
		case 0x4a:
		case 0x7a:
			break;
		default:
			at = sl_scan_value(scan, at, end, tag, &sl_schema_span, 0);
			if (SL_UNLIKELY(!at))
				return NULL;
			continue;
		}

		at = sl_scan_length(scan, at, end, &length);
		if (SL_UNLIKELY(!at))
			return NULL;
		if (SL_LIKELY(tag == 0x4a)) {
			if (SL_UNLIKELY(!sl_scan_key_value(scan, at, at + length)))
				return NULL;
		} else if (tag == 0x0a) {
			set_trace(scan, item, at, length);
		} else if (tag == 0x1a) {
			item->flags &= (uint8_t)~SL_ITEM_HAS_TRACE_STATE;
			item->flags |= length ? SL_ITEM_HAS_TRACE_STATE : 0;
		} else if (tag == 0x22) {
			item->flags &= (uint8_t)~SL_ITEM_IS_ROOT;
			item->flags |= length ? 0 : SL_ITEM_IS_ROOT;
		} else if (!status(scan, at, at + length, item)) {
			return NULL;
		}
		at += length;
	}
	item->duration_us = sl_scan_duration_us(times[0], times[1]);
	return at;
}

const uint8_t *sl_scan_log(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			   struct sl_item *item)
{
	uint32_t tag = 0, length = 0, before = 0, seen = 0;
	uint64_t value;

	while (at < end) {
		at = sl_scan_tag(scan, at, &tag);
		if (SL_UNLIKELY(!at))
			return NULL;
		if (SL_UNLIKELY(at > end))
			return sl_scan_fail(scan, end, SL_VIEW_MALFORMED);

		const uint32_t number = tag >> 3;

		if (SL_UNLIKELY(number < before ||
				(number < 16 && number != 6 && seen >> number & 1)))
			item->flags |= SL_ITEM_GENERAL;
		before = number;
		seen |= number < 32 ? UINT32_C(1) << number : 0;

		if (tag == 0x4a) { // trace_id
			at = sl_scan_length(scan, at, end, &length);
			if (SL_UNLIKELY(!at))
				return NULL;
			set_trace(scan, item, at, length);
			at += length;
			continue;
		}
		if (tag == 0x10 && sl_wire_u64(at, &value)) // severity_number
			item->status = small_enum(value);
		at = sl_scan_value(scan, at, end, tag, &sl_schema_log_record, 0);
		if (SL_UNLIKELY(!at))
			return NULL;
	}
	return at;
}
