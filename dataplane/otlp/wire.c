#include "dataplane/otlp/wire.h"

#include "dataplane/otlp/view.h"

// Walks over bytes that the scan has checked; what it would have refused ends the walk.

static const uint8_t *varint(const uint8_t *at, const uint8_t *end, uint64_t *value)
{
	const int bytes = sl_varint_get(at, (size_t)(end - at), value);

	return bytes > 0 ? at + bytes : NULL;
}

static const uint8_t *value_of(const uint8_t *at, const uint8_t *end, struct sl_wire_field *field)
{
	uint32_t half;

	switch (field->wire_type) {
	case 0:
		return varint(at, end, &field->value);
	case 1:
		if (end - at < 8)
			return NULL;
		memcpy(&field->value, at, 8);
		return at + 8;
	case 2:
		at = varint(at, end, &field->value);
		if (!at || field->value > (size_t)(end - at))
			return NULL;
		field->data = sl_bytes(at, (size_t)field->value);
		field->value = 0;
		return at + field->data.size;
	case 5:
		if (end - at < 4)
			return NULL;
		memcpy(&half, at, 4);
		field->value = half;
		return at + 4;
	}
	return NULL;
}

bool sl_wire_next_any(struct sl_bytes payload, uint32_t *offset, struct sl_wire_field *field)
{
	if (*offset >= payload.size)
		return false;

	const uint8_t *const start = payload.data + *offset, *const end = payload.data +
									  payload.size;
	const uint8_t *at = start;
	uint32_t open = 0; // groups
	uint64_t tag;

	*field = (struct sl_wire_field){.at = *offset};
	do {
		struct sl_wire_field inside = {.wire_type = 3};

		at = varint(at, end, &tag);
		if (!at)
			return false;
		inside.wire_type = tag & 7;
		inside.number = (uint32_t)(tag >> 3);
		if (inside.wire_type == 3)
			open++;
		else if (inside.wire_type == 4 && open)
			open--;
		else
			at = value_of(at, end, &inside);
		if (!at)
			return false;
		if (field->number == 0) {
			inside.at = *offset;
			*field = inside;
		}
	} while (open);
	field->bytes = (uint32_t)(at - start);
	*offset += field->bytes;
	return true;
}

struct sl_bytes sl_view_item_payload(const struct sl_view *view, uint32_t item)
{
	assert(item < view->item_count);

	const struct sl_item *found = &view->items[item];
	struct sl_bytes field = sl_bytes(view->body.data + found->at, found->bytes);
	struct sl_wire_field whole;
	uint32_t offset = 0;

	return sl_wire_next(field, &offset, &whole) ? whole.data : SL_BYTES_NONE;
}

struct sl_bytes sl_view_envelope_payload(const struct sl_view *view, uint32_t envelope)
{
	assert(envelope < view->envelope_count);

	const struct sl_envelope *found = &view->envelopes[envelope];

	return sl_bytes(view->body.data + found->at + found->head, found->bytes - found->head);
}

bool sl_view_trace_id(const struct sl_view *view, uint32_t item, uint8_t trace_id[16])
{
	assert(item < view->item_count);

	const struct sl_item *found = &view->items[item];
	const uint32_t number = view->signal == SL_TRACES ? 1 : 9;
	struct sl_bytes last = SL_BYTES_NONE;
	struct sl_wire_field field;
	uint32_t offset = 0;

	if (view->signal == SL_METRICS)
		return false;
	if (found->trace_at != SL_TRACE_AT_UNKNOWN) {
		memcpy(trace_id, view->body.data + found->at + found->trace_at, 16);
		return true;
	}

	const struct sl_bytes payload = sl_view_item_payload(view, item);

	while (sl_wire_next(payload, &offset, &field))
		if (field.number == number && field.wire_type == 2)
			last = field.data;
	if (last.size != 16)
		return false;
	memcpy(trace_id, last.data, 16);
	return true;
}

uint32_t sl_view_resource_of(const struct sl_view *view, uint32_t envelope)
{
	assert(envelope < view->envelope_count);
	while (view->envelopes[envelope].parent != SL_TOP)
		envelope = view->envelopes[envelope].parent;
	return envelope;
}

// A KeyValue's key and value, by protobuf's rules: the last key counts; a value given twice merges,
// so the members of both are looked at in wire order, and the last of the oneof counts; a known
// number of another wire type is an unknown field.
void sl_wire_key_value(struct sl_bytes pair, struct sl_bytes *key, struct sl_any *any)
{
	static const uint8_t types[] = {9, 2, 0, 0, 1, 2, 2, 2, 0};
	struct sl_wire_field field, member;
	uint32_t offset = 0;

	*key = SL_BYTES_NONE;
	*any = (struct sl_any){.type = SL_ANY_NONE};
	while (sl_wire_next(pair, &offset, &field)) {
		if (field.wire_type != 2)
			continue;
		if (field.number == 1)
			*key = field.data;
		if (field.number != 2)
			continue;
		for (uint32_t inner = 0; sl_wire_next(field.data, &inner, &member);) {
			if (member.number >= sizeof(types) ||
			    member.wire_type != types[member.number])
				continue;
			any->type = (enum sl_any_type)member.number;
			any->text = member.number == 1 ? member.data : SL_BYTES_NONE;
			any->bits = member.value;
		}
	}
}

struct sl_attributes sl_view_attributes(const struct sl_view *view, uint32_t resource)
{
	assert(view->envelopes[resource].kind == SL_ENVELOPE_RESOURCE);
	return (struct sl_attributes){.payload = sl_view_envelope_payload(view, resource)};
}

bool sl_attributes_next(struct sl_attributes *walk, struct sl_bytes *key, struct sl_any *any)
{
	for (;;) {
		while (sl_wire_next(walk->about.data, &walk->inner, &walk->pair)) {
			if (walk->pair.number != 1 || walk->pair.wire_type != 2)
				continue;
			sl_wire_key_value(walk->pair.data, key, any);
			return true;
		}
		do {
			if (!sl_wire_next(walk->payload, &walk->outer, &walk->about))
				return false;
		} while (walk->about.number != 1 || walk->about.wire_type != 2);
		walk->inner = 0;
	}
}

bool sl_view_resource_any(const struct sl_view *view, uint32_t resource, struct sl_bytes key,
			  struct sl_any *any)
{
	struct sl_attributes walk = sl_view_attributes(view, resource);
	bool found = false;
	struct sl_bytes name;
	struct sl_any value;

	while (sl_attributes_next(&walk, &name, &value)) {
		if (!sl_bytes_equal(name, key))
			continue;
		found = true;
		*any = value;
	}
	return found;
}

bool sl_view_resource_attribute(const struct sl_view *view, uint32_t resource, struct sl_bytes key,
				struct sl_bytes *value)
{
	struct sl_any any;

	if (!sl_view_resource_any(view, resource, key, &any) || any.type != SL_ANY_STRING)
		return false;
	*value = any.text;
	return true;
}
