#include "dataplane/otlp/text.h"

#include "dataplane/otlp/schema.h"
#include "dataplane/otlp/view.h"
#include "dataplane/otlp/wire.h"

// Whether a body's strings are UTF-8. Nearly all of them are ASCII, and so are the tags and lengths
// between those of a short attribute: a string, or a whole message, that ends before the next byte
// with its highest bit set needs no look. The walk goes forward, and so does that byte's search.
struct walk {
	const uint8_t *high, *end; // the next such byte, or the body's end
};

#define HIGH_BITS UINT64_C(0x8080808080808080)

static const uint8_t *next_high(const uint8_t *at, const uint8_t *end)
{
	static_assert(SL_BODY_SLACK >= 32, "whole steps may be read");
	for (; at < end; at += 32) {
		const uint64_t words[] = {sl_wire_load_u64(at), sl_wire_load_u64(at + 8),
					  sl_wire_load_u64(at + 16), sl_wire_load_u64(at + 24)};

		if (((words[0] | words[1] | words[2] | words[3]) & HIGH_BITS) == 0)
			continue;
		for (unsigned i = 0; i < SL_COUNT_OF(words); i++)
			if (words[i] & HIGH_BITS)
				return at + 8 * i + __builtin_ctzll(words[i] & HIGH_BITS) / 8;
	}
	return end;
}

SL_INLINE bool is_ascii(struct walk *walk, struct sl_bytes bytes)
{
	if (walk->high < bytes.data)
		walk->high = next_high(bytes.data, walk->end);
	return walk->high >= bytes.data + bytes.size;
}

// As deep as the scan lets AnyValues nest.
static bool message_valid(struct walk *walk, const struct sl_message *message,
			  struct sl_bytes payload)
{
	struct sl_wire_field wire;
	uint32_t offset = 0;

	while (sl_wire_next(payload, &offset, &wire)) {
		const struct sl_field *field;

		if (wire.wire_type != 2 || is_ascii(walk, wire.data))
			continue;
		field = sl_schema_field(message, wire.number);
		if (!field)
			continue;
		if (field->type == SL_FIELD_STRING && !sl_utf8_valid(wire.data))
			return false;
		if (field->type == SL_FIELD_MESSAGE &&
		    !message_valid(walk, field->message, wire.data))
			return false;
	}
	return true;
}

bool sl_view_text_valid(const struct sl_view *view)
{
	const uint8_t *const end = view->body.data + view->body.size;
	struct walk walk = {.high = next_high(view->body.data, end), .end = end};

	return message_valid(&walk, sl_schema_requests[view->signal], view->body);
}
