#include <stdio.h>

#include "dataplane/base/glob.h"
#include "dataplane/base/varint.h"
#include "routing/internal.h"

// Which route a part, or one resource of it, takes.

struct sl_pattern sl_pattern_of(const char *text)
{
	struct sl_pattern pattern = {.text = sl_bytes_of(text), .kind = SL_MATCH_GLOB};
	size_t plain;

	if (!text)
		return pattern;
	plain = strcspn(text, "*?\\");
	if (!text[plain]) {
		pattern.kind = SL_MATCH_EQUAL;
	} else if (text[plain] == '*' && !text[plain + 1]) {
		pattern.kind = SL_MATCH_PREFIX;
		pattern.text.size = plain;
	}
	return pattern;
}

bool sl_pattern_match(const struct sl_pattern *pattern, struct sl_bytes text)
{
	if (!pattern->text.data)
		return true;
	switch (pattern->kind) {
	case SL_MATCH_EQUAL:
		return sl_bytes_equal(pattern->text, text);
	case SL_MATCH_PREFIX:
		return sl_bytes_start(text, pattern->text);
	case SL_MATCH_GLOB:
		break;
	}
	return sl_glob_match(pattern->text, text);
}

uint32_t sl_route_find(const struct sl_routing *routing, const struct sl_part *part, uint32_t first)
{
	const uint32_t signal = part->request->signal + 1;

	for (uint32_t i = first; i < routing->route_count; i++) {
		const struct sl_route *route = &routing->routes[i];

		if ((!route->signal || route->signal == signal) &&
		    sl_pattern_match(&route->tenant, part->tenant_name))
			return i;
	}
	return routing->route_count;
}

// --- attributes of a resource: fields of a scanned body, so every length is sound ----------------

bool sl_routing_field_next(struct sl_bytes *in, struct sl_routing_field *field)
{
	static const uint8_t fixed[8] = {[1] = 8, [5] = 4};
	uint64_t tag, size;
	int used = sl_varint_get(in->data, in->size, &tag);

	if (used <= 0)
		return false;
	*in = sl_bytes(in->data + used, in->size - (size_t)used);
	field->number = tag >> 3;
	field->wire = tag & 7;
	field->bytes = SL_BYTES_NONE;
	if (field->wire == 0 || field->wire == 2) {
		used = sl_varint_get(in->data, in->size, &size);
		if (used <= 0)
			return false;
		*in = sl_bytes(in->data + used, in->size - (size_t)used);
		field->value = size;
		if (field->wire == 0)
			return true;
	} else {
		size = fixed[field->wire];
		if (!size)
			return false; // a group: unknown to OTLP, what follows it is not read
	}
	if (size > in->size)
		return false;
	field->bytes = sl_bytes(in->data, size);
	*in = sl_bytes(in->data + size, in->size - size);
	return true;
}

// AnyValue: string 1, bool 2, int 3; the last member given counts.
static bool any_value(struct sl_bytes message, char scratch[32], struct sl_bytes *value)
{
	struct sl_routing_field field;
	bool found = false;

	while (sl_routing_field_next(&message, &field)) {
		found = field.number <= 3;
		if (field.number == 1) {
			*value = field.bytes;
		} else if (field.number == 2) {
			*value = sl_bytes_of(field.value ? "true" : "false");
		} else if (field.number == 3) {
			snprintf(scratch, 32, "%lld", (long long)field.value);
			*value = sl_bytes_of(scratch);
		}
	}
	return found;
}

static bool key_value(struct sl_bytes message, struct sl_bytes name, char scratch[32],
		      struct sl_bytes *value)
{
	struct sl_bytes key = SL_BYTES_NONE, any = SL_BYTES_NONE;
	struct sl_routing_field field;

	while (sl_routing_field_next(&message, &field)) {
		if (field.number == 1)
			key = field.bytes;
		else if (field.number == 2)
			any = field.bytes;
	}
	if (!sl_bytes_equal(key, name))
		return false;
	*value = SL_BYTES_NONE;
	// A value that is no text is still there: only the empty pattern and "*" match it.
	any_value(any, scratch, value);
	return true;
}

bool sl_resource_attribute(struct sl_bytes resource_field, struct sl_bytes name, char scratch[32],
			   struct sl_bytes *value)
{
	struct sl_routing_field resource, attribute;

	while (sl_routing_field_next(&resource_field, &resource)) {
		if (resource.number != 1 || resource.wire != 2)
			continue;
		while (sl_routing_field_next(&resource.bytes, &attribute)) {
			if (attribute.number == 1 && attribute.wire == 2 &&
			    key_value(attribute.bytes, name, scratch, value))
				return true;
		}
	}
	return false;
}

uint32_t sl_route_find_resource(const struct sl_routing *routing, const struct sl_part *part,
				uint32_t envelope)
{
	const struct sl_view *view = &part->request->view;
	const struct sl_envelope *at = &view->envelopes[envelope];
	const struct sl_bytes payload = sl_bytes(view->body.data + at->at + at->head,
						 at->bytes - at->head);
	uint32_t index = sl_route_find(routing, part, 0);

	for (; index < routing->route_count; index = sl_route_find(routing, part, index + 1)) {
		const struct sl_route *route = &routing->routes[index];
		bool matched = true;

		for (uint32_t i = 0; i < route->attribute_count && matched; i++) {
			struct sl_bytes value;
			char scratch[32];

			matched = sl_resource_attribute(payload, route->attributes[i].name, scratch,
							&value) &&
				  sl_pattern_match(&route->attributes[i].value, value);
		}
		if (matched)
			return index;
	}
	return index;
}
