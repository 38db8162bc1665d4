#include "dataplane/otlp/scan.h"

// Only wire type 2 asks what a field means: a message is entered, packed scalars are counted out.
// All else has one legal form for each wire type, and a known field of an unexpected wire type is
// an unknown field, as the protobuf guide says.

const uint8_t *sl_scan_fail(struct sl_scan *scan, const uint8_t *at, enum sl_view_result result)
{
	scan->result = result;
	scan->error_at = (uint32_t)SL_MIN((size_t)(at - scan->body), scan->view->body.size);
	return NULL;
}

static const uint8_t *malformed(struct sl_scan *scan, const uint8_t *at)
{
	return sl_scan_fail(scan, at, SL_VIEW_MALFORMED);
}

// A group's fields up to its end tag. Groups nest at most depth_max deep: decoders recurse here.
static const uint8_t *group(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			    uint32_t number, uint32_t depth)
{
	if (depth >= scan->limits->depth_max)
		return sl_scan_fail(scan, at, SL_VIEW_TOO_DEEP);
	while (at < end) {
		uint32_t tag = 0;

		at = sl_scan_tag(scan, at, &tag);
		if (!at)
			return NULL;
		if ((tag & 7) == 4)
			return tag >> 3 == number && at <= end ? at : malformed(scan, at);
		at = sl_scan_value(scan, at, end, tag, NULL, depth + 1);
		if (!at)
			return NULL;
	}
	return malformed(scan, at);
}

static bool packed(const uint8_t *at, const uint8_t *end, const struct sl_field *field)
{
	uint64_t value;

	switch (sl_schema_wire_type(field)) {
	case 1:
		return (end - at) % 8 == 0;
	case 5:
		return (end - at) % 4 == 0;
	case 0:
		while (at && at < end)
			at = sl_wire_u64(at, &value);
		return at == end;
	}
	return true; // repeated strings
}

const uint8_t *sl_scan_value(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			     uint32_t tag, const struct sl_message *message, uint32_t depth)
{
	const uint8_t *from = at;
	const struct sl_field *field;
	uint32_t length = 0;
	uint64_t value;

	switch (tag & 7) {
	case 0:
		at = sl_wire_u64(at, &value);
		if (SL_UNLIKELY(!at))
			return malformed(scan, from);
		break;
	case 1:
		at += 8;
		break;
	case 5:
		at += 4;
		break;
	case 2:
		at = sl_scan_length(scan, at, end, &length);
		if (SL_UNLIKELY(!at))
			return NULL;
		field = message ? sl_schema_field(message, tag >> 3) : NULL;
		if (!field)
			return at + length;
		if (field->message) {
			// An AnyValue's messages are its arrays and lists: they alone recurse.
			const bool deeper = message == &sl_schema_any_value;

			if (deeper && depth >= scan->limits->depth_max)
				return sl_scan_fail(scan, from, SL_VIEW_TOO_DEEP);
			if (field->message == &sl_schema_key_value && depth == 0)
				return sl_scan_key_value(scan, at, at + length);
			return sl_scan_message(scan, at, at + length, field->message,
					       depth + deeper);
		}
		if (field->repeated && !packed(at, at + length, field))
			return malformed(scan, from);
		return at + length;
	case 3:
		return group(scan, at, end, tag >> 3, depth);
	default:
		return malformed(scan, from);
	}
	return SL_LIKELY(at <= end) ? at : malformed(scan, from);
}

const uint8_t *sl_scan_message(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			       const struct sl_message *message, uint32_t depth)
{
	while (at < end) {
		uint32_t tag = 0;

		at = sl_scan_tag(scan, at, &tag);
		if (SL_UNLIKELY(!at))
			return NULL;
		// A tag that the end cuts: what was read of it lies behind the message.
		if (SL_UNLIKELY(at > end))
			return malformed(scan, end);
		at = sl_scan_value(scan, at, end, tag, message, depth);
		if (SL_UNLIKELY(!at))
			return NULL;
	}
	return at;
}

const uint8_t *sl_scan_key_value(struct sl_scan *scan, const uint8_t *at, const uint8_t *end)
{
	if (SL_LIKELY(!scan->generic && sl_scan_plain_key_value(at, end)))
		return end;
	return sl_scan_message(scan, at, end, &sl_schema_key_value, 0);
}
