#include "tests/oracle/merged.h"

#include "dataplane/base/varint.h"
#include "dataplane/otlp/view.h"

#define NUMBERS 17 // OTLP has no field above 16

struct out {
	uint8_t *start, *at;
};

static void put(struct out *out, struct sl_bytes bytes)
{
	if (bytes.size)
		memcpy(out->at, bytes.data, bytes.size);
	out->at += bytes.size;
}

static struct out take(struct sl_arena *arena, size_t size)
{
	uint8_t *start = sl_arena_alloc(arena, size + 16);

	assert(start);
	return (struct out){start, start};
}

static struct sl_bytes written(const struct out *out)
{
	return sl_bytes(out->start, (size_t)(out->at - out->start));
}

static void put_message(struct out *out, const struct sl_field *field, struct sl_bytes payload,
			struct sl_arena *arena)
{
	const struct sl_bytes merged = sl_merged(field->message, payload, arena);

	out->at += sl_varint_put(out->at, (unsigned)field->number << 3 | 2);
	out->at += sl_varint_put(out->at, merged.size);
	put(out, merged);
}

// What the fields that come once hold: a message's payloads joined, or a oneof's whole field.
struct once {
	const struct sl_field *field;
	struct sl_bytes value;
};

static void merge(struct once *all, const struct sl_field *field, struct sl_bytes whole,
		  struct sl_bytes payload, struct sl_arena *arena)
{
	struct once *once = &all[field->number];
	struct sl_bytes before = once->field ? once->value : SL_BYTES_NONE;
	struct out joined = take(arena, before.size + whole.size);

	for (unsigned i = 0; field->oneof && i < NUMBERS; i++)
		if (all[i].field && all[i].field != field && all[i].field->oneof == field->oneof)
			all[i].field = NULL;
	if (field->message)
		put(&joined, before);
	put(&joined, field->message ? payload : whole);
	*once = (struct once){field, written(&joined)};
}

struct sl_bytes sl_merged(const struct sl_message *message, struct sl_bytes bytes,
			  struct sl_arena *arena)
{
	// A length that was minimal cannot grow; one more level of ours adds at most its own.
	struct out out = take(arena, bytes.size);
	struct once once[NUMBERS] = {0};
	struct sl_wire_field wire;
	uint32_t offset = 0;

	while (sl_wire_next(bytes, &offset, &wire)) {
		const struct sl_field *field = sl_schema_field(message, wire.number);
		const struct sl_bytes whole = sl_bytes(bytes.data + wire.at, wire.bytes);

		if (field && sl_schema_wire_type(field) == wire.wire_type && !field->repeated &&
		    (field->message || field->oneof))
			merge(once, field, whole, wire.data, arena);
		else if (field && field->message && wire.wire_type == 2)
			put_message(&out, field, wire.data, arena);
		else
			put(&out, whole);
	}
	for (unsigned i = 0; i < NUMBERS; i++) {
		if (once[i].field && once[i].field->message)
			put_message(&out, once[i].field, once[i].value, arena);
		else if (once[i].field)
			put(&out, once[i].value);
	}
	assert((size_t)(out.at - out.start) <= bytes.size);
	return written(&out);
}
