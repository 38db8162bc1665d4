#include "tests/oracle/random.h"

#include "dataplane/base/varint.h"

static void message(struct sl_random_wire *wire, const struct sl_message *of);

static bool chance(struct sl_random_wire *wire, unsigned percent)
{
	return sl_random_below(&wire->random, 100) < percent;
}

static void put(struct sl_random_wire *wire, const void *data, size_t size)
{
	if ((size_t)(wire->end - wire->at) < size)
		wire->full = true;
	if (wire->full || !size)
		return;
	memcpy(wire->at, data, size);
	wire->at += size;
}

static void varint(struct sl_random_wire *wire, uint64_t value)
{
	uint8_t scratch[SL_VARINT_BYTES_MAX];

	put(wire, scratch, sl_varint_put(scratch, value));
}

static uint8_t *opened(struct sl_random_wire *wire)
{
	static const uint8_t room[5];

	put(wire, room, sizeof(room));
	return wire->at;
}

// Closes a length: minimal, or sometimes with more bytes than it needs.
static void closed(struct sl_random_wire *wire, uint8_t *payload)
{
	const size_t size = (size_t)(wire->at - payload);
	unsigned count = sl_varint_bytes(size);

	if (wire->full)
		return;
	sl_varint_put(payload - 5, size);
	if (chance(wire, wire->odd / 8)) {
		payload[-5 + (int)count - 1] |= 0x80;
		payload[-5 + (int)count++] = 0;
	}
	memmove(payload - 5 + count, payload, size);
	wire->at = payload - 5 + count + size;
}

static uint64_t number(struct sl_random_wire *wire)
{
	const uint64_t value = sl_random_next(&wire->random);

	return value >> sl_random_below(&wire->random, 64);
}

static void scalar(struct sl_random_wire *wire, const struct sl_field *field)
{
	uint64_t value = number(wire);

	switch (sl_schema_wire_type(field)) {
	case 0:
		if (field->type == SL_FIELD_ENUM)
			value = chance(wire, 90) ? value % 4 : (uint64_t)-1;
		if (field->type == SL_FIELD_BOOL)
			value &= 1;
		varint(wire, value);
		break;
	case 1:
		put(wire, &value, 8);
		break;
	case 5:
		put(wire, &value, 4);
		break;
	}
}

static void text(struct sl_random_wire *wire, const struct sl_field *field)
{
	static const char letters[] = "service.name=abcdefghijklmnopqrstuvwxyz0123456789";
	size_t size = sl_random_below(&wire->random, chance(wire, 4) ? 300 : 12);
	uint8_t *payload = opened(wire);

	if (field->type == SL_FIELD_ID && !chance(wire, wire->odd / 4))
		size = chance(wire, 80) ? field->id_bytes : 0;
	for (size_t i = 0; i < size; i++)
		put(wire, &letters[sl_random_below(&wire->random, sizeof(letters) - 1)], 1);
	closed(wire, payload);
}

void sl_random_unknown(struct sl_random_wire *wire)
{
	static const uint8_t zeros[8];

	switch (sl_random_below(&wire->random, 3)) {
	case 0:
		varint(wire, 1000 << 3);
		varint(wire, number(wire));
		break;
	case 1:
		varint(wire, 17 << 3 | 2);
		varint(wire, 8);
		put(wire, zeros, 8);
		break;
	case 2:
		varint(wire, UINT64_C(0x1fffffff) << 3 | 5);
		put(wire, zeros, 4);
		break;
	}
}

void sl_random_field(struct sl_random_wire *wire, const struct sl_field *field)
{
	const bool packable = field->repeated && sl_schema_wire_type(field) != 2;

	if (packable && chance(wire, 70)) {
		varint(wire, (unsigned)field->number << 3 | 2);
		uint8_t *payload = opened(wire);

		for (uint64_t left = sl_random_below(&wire->random, 4); left; left--)
			scalar(wire, field);
		closed(wire, payload);
		return;
	}
	varint(wire, (unsigned)field->number << 3 | sl_schema_wire_type(field));
	if (field->type == SL_FIELD_MESSAGE) {
		uint8_t *payload = opened(wire);

		message(wire, field->message);
		closed(wire, payload);
	} else if (sl_schema_wire_type(field) == 2) {
		text(wire, field);
	} else {
		scalar(wire, field);
	}
}

// Whether a field leads towards items: those come often, or requests would be empty.
static bool is_path(const struct sl_field *field)
{
	return field->number < 3 && field->repeated && field->message &&
	       field->message != &sl_schema_any_value && field->message != &sl_schema_key_value;
}

static void message(struct sl_random_wire *wire, const struct sl_message *of)
{
	const bool any = of == &sl_schema_any_value;
	const unsigned member = (unsigned)sl_random_below(&wire->random, 16);
	const bool odd = chance(wire, wire->odd);
	unsigned members = 0;

	for (unsigned i = 0; i < of->field_count; i++)
		members += of->fields[i].oneof != 0;
	if (any && ++wire->depth > 4) {
		wire->depth--;
		return;
	}
	for (unsigned i = 0, seen = 0; i < of->field_count; i++) {
		const unsigned at = odd ? (unsigned)sl_random_below(&wire->random, of->field_count)
					: i;
		const struct sl_field *field = &of->fields[at];
		unsigned count = field->repeated ? (unsigned)sl_random_below(&wire->random, 3)
						 : chance(wire, 70);

		if (field->oneof && !odd)
			count = seen++ == member % members;
		if (is_path(field))
			count = (unsigned)sl_random_below(&wire->random, 4);
		while (count--)
			sl_random_field(wire, field);
		if (odd && chance(wire, 20))
			sl_random_unknown(wire);
	}
	wire->depth -= any;
}

size_t sl_random_request(uint8_t *out, size_t size, enum sl_signal signal, unsigned odd,
			 uint64_t seed)
{
	struct sl_random_wire wire = {.at = out, .end = out + size, .odd = odd};

	sl_random_init(&wire.random, seed);
	message(&wire, sl_schema_requests[signal]);
	return wire.full ? 0 : (size_t)(wire.at - out);
}
