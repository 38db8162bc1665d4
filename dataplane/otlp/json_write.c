#include "dataplane/otlp/json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/varint.h"
#include "dataplane/otlp/text.h"

// A message's fields stand on the wire in any order, singular ones twice, repeated ones scattered:
// so each message is first read into a list of its known fields, and written field by field.
//
// Cost: a message of n wire fields is walked once for each kind of field that it has, at most 16.

#define DEPTH_MAX 400 // of messages; what the scan lets through is far less

// A growing text, with the first failure kept: writers need not look after every byte.
struct writer {
	struct sl_json_text *out;
	int failure;
};

struct wire_field {
	uint64_t number;
	unsigned type;
	uint64_t value;
	struct sl_bytes data;
};

static void put(struct writer *writer, const void *data, size_t size)
{
	struct sl_json_text *out = writer->out;

	if (writer->failure)
		return;
	if (out->capacity - out->size < size) {
		const size_t capacity = SL_MAX(out->capacity * 2, out->size + size + 256);
		char *text = realloc(out->text, capacity);

		if (!text) {
			writer->failure = -ENOMEM;
			return;
		}
		out->text = text;
		out->capacity = capacity;
	}
	if (size)
		memcpy(out->text + out->size, data, size);
	out->size += size;
}

static void put_string(struct writer *writer, struct sl_bytes text)
{
	put(writer, "\"", 1);
	for (size_t at = 0; at < text.size;) {
		uint8_t escaped[SL_JSON_ESCAPE_MAX];
		size_t plain = at;

		while (plain < text.size && text.data[plain] >= 0x20 && text.data[plain] < 0x80 &&
		       text.data[plain] != '"' && text.data[plain] != '\\')
			plain++;
		put(writer, text.data + at, plain - at);
		at = plain;
		if (at < text.size) {
			const unsigned count = sl_json_escape(escaped, text, &at);

			put(writer, escaped, count);
		}
	}
	put(writer, "\"", 1);
}

static void put_hex(struct writer *writer, struct sl_bytes bytes)
{
	put(writer, "\"", 1);
	for (size_t i = 0; i < bytes.size; i++) {
		static const char digits[] = "0123456789abcdef";
		const char pair[2] = {digits[bytes.data[i] >> 4], digits[bytes.data[i] & 15]};

		put(writer, pair, 2);
	}
	put(writer, "\"", 1);
}

static void put_base64(struct writer *writer, struct sl_bytes bytes)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	put(writer, "\"", 1);
	for (size_t i = 0; i < bytes.size; i += 3) {
		const size_t left = SL_MIN(bytes.size - i, 3);
		uint32_t bits = (uint32_t)bytes.data[i] << 16;
		char four[4] = {'=', '=', '=', '='};

		if (left > 1)
			bits |= (uint32_t)bytes.data[i + 1] << 8;
		if (left > 2)
			bits |= bytes.data[i + 2];
		for (size_t k = 0; k <= left; k++)
			four[k] = alphabet[bits >> (18 - 6 * k) & 63];
		put(writer, four, 4);
	}
	put(writer, "\"", 1);
}

static void put_double(struct writer *writer, uint64_t bits)
{
	char text[40];
	double value;

	memcpy(&value, &bits, sizeof(value));
	if (isnan(value)) {
		put(writer, "\"NaN\"", 5);
		return;
	}
	if (isinf(value)) {
		put(writer, value < 0 ? "\"-Infinity\"" : "\"Infinity\"", value < 0 ? 11 : 10);
		return;
	}
	if (value == 0) { // readers that take "-0" for an integer lose its sign
		put(writer, signbit(value) ? "-0.0" : "0", signbit(value) ? 4 : 1);
		return;
	}
	// The shortest of the forms that read back as the same number.
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, value);
		if (strtod(text, NULL) == value)
			break;
	}
	put(writer, text, strlen(text));
}

static void put_number(struct writer *writer, const struct sl_field *field, uint64_t value)
{
	char text[32];

	switch ((enum sl_field_type)field->type) {
	case SL_FIELD_BOOL:
		put(writer, value ? "true" : "false", value ? 4 : 5);
		return;
	case SL_FIELD_DOUBLE:
		put_double(writer, value);
		return;
	case SL_FIELD_UINT32:
	case SL_FIELD_FIXED32:
		snprintf(text, sizeof(text), "%u", (uint32_t)value);
		break;
	case SL_FIELD_INT32:
	case SL_FIELD_ENUM:
		snprintf(text, sizeof(text), "%d", (int32_t)value);
		break;
	case SL_FIELD_SINT32:
		snprintf(text, sizeof(text), "%d",
			 (int32_t)((uint32_t)value >> 1 ^ -((uint32_t)value & 1)));
		break;
	case SL_FIELD_UINT64:
	case SL_FIELD_FIXED64:
		snprintf(text, sizeof(text), "\"%llu\"", (unsigned long long)value);
		break;
	default:
		snprintf(text, sizeof(text), "\"%lld\"", (long long)value);
	}
	put(writer, text, strlen(text));
}

// What of a varint's 64 bits counts for the field.
static bool is_default(const struct sl_field *field, uint64_t value)
{
	switch ((enum sl_field_type)field->type) {
	case SL_FIELD_UINT32:
	case SL_FIELD_INT32:
	case SL_FIELD_ENUM:
	case SL_FIELD_SINT32:
		return (uint32_t)value == 0;
	default:
		return value == 0;
	}
}

static uint64_t little_endian(const uint8_t *at, size_t size)
{
	uint64_t value = 0;

	memcpy(&value, at, size);
	return value;
}

// One field off the front of `wire`. Returns 1, 0 at the end, -EINVAL when malformed.
static int next_field(struct sl_bytes *wire, struct wire_field *field, unsigned depth)
{
	uint64_t tag = 0;
	int used;

	*field = (struct wire_field){0};
	if (wire->size == 0)
		return 0;
	used = sl_varint_get(wire->data, wire->size, &tag);
	if (used <= 0 || tag >> 3 == 0 || tag >> 32)
		return -EINVAL;
	*wire = sl_bytes(wire->data + used, wire->size - (size_t)used);
	field->number = tag >> 3;
	field->type = tag & 7;
	switch (field->type) {
	case 0:
	case 2:
		used = sl_varint_get(wire->data, wire->size, &field->value);
		if (used <= 0)
			return -EINVAL;
		*wire = sl_bytes(wire->data + used, wire->size - (size_t)used);
		if (field->type == 0)
			return 1;
		if (field->value > wire->size)
			return -EINVAL;
		field->data = sl_bytes(wire->data, field->value);
		*wire = sl_bytes(wire->data + field->value, wire->size - field->value);
		return 1;
	case 1:
	case 5:
		used = field->type == 1 ? 8 : 4;
		if (wire->size < (size_t)used)
			return -EINVAL;
		field->value = little_endian(wire->data, (size_t)used);
		*wire = sl_bytes(wire->data + used, wire->size - (size_t)used);
		return 1;
	case 3: { // a group: stepped over, to its end
		struct wire_field inner;
		int result;

		if (depth > DEPTH_MAX)
			return -EINVAL;
		while ((result = next_field(wire, &inner, depth + 1)) > 0 && inner.type != 4) {
		}
		return result > 0 && inner.number == field->number ? 1 : -EINVAL;
	}
	case 4:
		return depth ? 1 : -EINVAL;
	}
	return -EINVAL;
}

// What one message has of one field.
struct summary {
	uint32_t count;
	size_t from; // offset of the first that counts
	uint64_t value;
	struct sl_bytes data; // of the last
};

static bool fits(const struct sl_field *field, unsigned wire_type)
{
	const unsigned own = sl_schema_wire_type(field);

	return wire_type == own || (wire_type == 2 && field->repeated);
}

// Singular fields: the last wins, and of a oneof's members the last one's.
static int summarise(const struct sl_message *message, struct sl_bytes wire,
		     struct summary *summaries)
{
	const uint8_t *const start = wire.data;
	struct wire_field found;
	int result;

	for (;;) {
		const size_t from = (size_t)(wire.data - start);
		const struct sl_field *field;
		struct summary *summary;

		result = next_field(&wire, &found, 0);
		if (result <= 0)
			return result;
		field = sl_schema_field(message, found.number);
		if (!field)
			continue;
		if (!fits(field, found.type))
			return -EINVAL;
		summary = &summaries[field - message->fields];
		for (unsigned i = 0; field->oneof && i < message->field_count; i++)
			if (&summaries[i] != summary && message->fields[i].oneof == field->oneof)
				summaries[i].count = 0;
		if (summary->count++ == 0)
			summary->from = from;
		summary->value = found.value;
		summary->data = found.data;
	}
}

static void put_message(struct writer *writer, const struct sl_message *message,
			struct sl_bytes wire, unsigned depth);

static void put_data(struct writer *writer, const struct sl_field *field, struct sl_bytes data,
		     unsigned depth)
{
	switch ((enum sl_field_type)field->type) {
	case SL_FIELD_STRING:
		put_string(writer, data);
		break;
	case SL_FIELD_BYTES:
		put_base64(writer, data);
		break;
	case SL_FIELD_ID:
		put_hex(writer, data);
		break;
	default:
		put_message(writer, field->message, data, depth + 1);
	}
}

// A sub-message that came in several parts is the concatenation of them.
static void put_merged(struct writer *writer, const struct sl_field *field,
		       const struct summary *summary, struct sl_bytes wire, unsigned depth)
{
	uint8_t *whole = malloc(wire.size);
	struct wire_field found;
	size_t size = 0;

	if (!whole) {
		writer->failure = -ENOMEM;
		return;
	}
	wire = sl_bytes(wire.data + summary->from, wire.size - summary->from);
	while (next_field(&wire, &found, 0) > 0) {
		if (found.number == field->number && found.data.size) {
			memcpy(whole + size, found.data.data, found.data.size);
			size += found.data.size;
		}
	}
	put_message(writer, field->message, sl_bytes(whole, size), depth + 1);
	free(whole);
}

// The numbers of one packed run.
static void put_packed(struct writer *writer, const struct sl_field *field, struct sl_bytes run,
		       bool *first)
{
	const unsigned wire_type = sl_schema_wire_type(field);

	while (run.size) {
		uint64_t value = 0;
		int used = wire_type == 1 ? 8 : 4;

		if (wire_type == 0)
			used = sl_varint_get(run.data, run.size, &value);
		if (used <= 0 || (size_t)used > run.size) {
			writer->failure = -EINVAL;
			return;
		}
		if (wire_type != 0)
			value = little_endian(run.data, (size_t)used);
		put(writer, ",", !*first);
		*first = false;
		put_number(writer, field, value);
		run = sl_bytes(run.data + used, run.size - (size_t)used);
	}
}

static void put_repeated(struct writer *writer, const struct sl_field *field,
			 const struct summary *summary, struct sl_bytes wire, unsigned depth)
{
	struct wire_field found;
	bool first = true;

	wire = sl_bytes(wire.data + summary->from, wire.size - summary->from);
	put(writer, "[", 1);
	while (!writer->failure && next_field(&wire, &found, 0) > 0) {
		if (found.number != field->number)
			continue;
		if (found.type == 2 && sl_schema_wire_type(field) != 2) {
			put_packed(writer, field, found.data, &first);
			continue;
		}
		put(writer, ",", !first);
		first = false;
		if (found.type == 2)
			put_data(writer, field, found.data, depth);
		else
			put_number(writer, field, found.value);
	}
	put(writer, "]", 1);
}

static bool is_absent(const struct sl_field *field, const struct summary *summary)
{
	if (summary->count == 0)
		return true;
	if (field->optional || field->repeated || field->type == SL_FIELD_MESSAGE)
		return false;
	return sl_schema_wire_type(field) == 2 ? summary->data.size == 0
					       : is_default(field, summary->value);
}

static void put_message(struct writer *writer, const struct sl_message *message,
			struct sl_bytes wire, unsigned depth)
{
	struct summary summaries[SL_COUNT_OF(message->by_number)] = {0};
	bool first = true;
	int result;

	if (writer->failure)
		return;
	result = depth > DEPTH_MAX ? -EINVAL : summarise(message, wire, summaries);
	if (result < 0) {
		writer->failure = result;
		return;
	}
	put(writer, "{", 1);
	for (unsigned i = 0; i < message->field_count; i++) {
		const struct sl_field *field = &message->fields[i];
		const struct summary *summary = &summaries[i];

		if (is_absent(field, summary))
			continue;
		put(writer, ",", !first);
		put(writer, "\"", 1);
		put(writer, field->name, strlen(field->name));
		put(writer, "\":", 2);
		first = false;
		if (field->repeated)
			put_repeated(writer, field, summary, wire, depth);
		else if (sl_schema_wire_type(field) != 2)
			put_number(writer, field, summary->value);
		else if (field->type == SL_FIELD_MESSAGE && summary->count > 1)
			put_merged(writer, field, summary, wire, depth);
		else
			put_data(writer, field, summary->data, depth);
	}
	put(writer, "}", 1);
}

int sl_json_from_wire(enum sl_signal signal, struct sl_bytes wire, struct sl_json_text *out)
{
	struct writer writer = {.out = out};
	const size_t before = out->size;

	put_message(&writer, sl_schema_requests[signal], wire, 0);
	if (writer.failure)
		out->size = before;
	return writer.failure;
}

void sl_json_text_fini(struct sl_json_text *text)
{
	free(text->text);
	*text = (struct sl_json_text){0};
}
