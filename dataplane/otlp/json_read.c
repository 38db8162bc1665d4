#include "dataplane/otlp/json.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdio.h>
#include <yajl/yajl_parse.h>

#include "dataplane/base/varint.h"
#include "dataplane/otlp/json_value.h"
#include "dataplane/otlp/text.h"
#include "dataplane/otlp/view.h"

// The draft is the wire without the lengths of nested messages: they are known only at a message's
// end. Each leaves a hole, in the order of their places; at the end one pass copies the draft into
// the arena and fills the holes. So no byte moves more than once, however deep the nesting.
//
//   draft  |tag|tag|field|field|tag|field|           holes  {1, size} {2, size} {5, size}
//              ^   ^               ^
struct hole {
	uint32_t at;    // in the draft
	uint32_t bytes; // of the payload, with the lengths inside it
};

// Of a length: a body is below 2^31 bytes.
#define LENGTH_BYTES_MAX 5

enum frame_kind { FRAME_OBJECT, FRAME_ARRAY };

struct frame {
	const struct sl_message *message; // of the object; of an array: its elements' owner
	const struct sl_field *field;     // whose value comes next; NULL: an unknown one
	uint32_t kind;
	uint32_t seen;    // bits by field number
	uint32_t hole;    // index; of an object, or of a packed array
	uint32_t at;      // of the tag in the draft
	uint32_t lengths; // bytes that the lengths inside will take
	uint32_t index;   // of the next element
};

struct reader {
	const struct sl_message *root;
	const struct sl_json_limits *limits;
	struct sl_arena *arena;
	struct frame *frames;
	uint32_t depth; // frames in use
	uint32_t depth_max;
	uint32_t skip_depth; // inside the value of an unknown name, how deep
	bool done;           // the root has ended
	uint8_t *draft;
	size_t draft_size, draft_capacity;
	struct hole *holes;
	size_t hole_count, hole_capacity; // capacity in bytes
	uint64_t lengths;                 // bytes of all finished lengths
	uint64_t bytes_max;
	enum sl_json_result result;
	const char *expected; // what was not found
	jmp_buf no_memory;    // yajl cannot take NULL from its allocator
};

static int refuse(struct reader *reader, enum sl_json_result result, const char *expected)
{
	reader->result = result;
	reader->expected = expected;
	return 0;
}

static int malformed(struct reader *reader, const char *expected)
{
	return refuse(reader, SL_JSON_MALFORMED, expected);
}

// yajl's memory: the arena, each block with its size in front. Nothing is freed singly.
static void *yajl_take(void *context, size_t size)
{
	struct reader *reader = context;
	uint8_t *block = sl_arena_alloc(reader->arena, size + 16);

	if (!block)
		longjmp(reader->no_memory, 1);
	memcpy(block, &size, sizeof(size));
	return block + 16;
}

static void *yajl_resize(void *context, void *old, size_t size)
{
	uint8_t *block;
	size_t old_size = 0;

	if (old)
		memcpy(&old_size, (uint8_t *)old - 16, sizeof(old_size));
	if (size <= old_size)
		return old;
	block = yajl_take(context, size);
	if (old)
		memcpy(block, old, old_size);
	return block;
}

static void yajl_give(void *context, void *block)
{
	(void)context;
	(void)block;
}

// Room for `more` bytes in a growing buffer of the shard's memory.
static bool make_room(struct sl_memory *memory, void **buffer, size_t used, size_t more,
		      size_t *capacity)
{
	size_t larger;
	void *grown;

	if (*capacity - used >= more)
		return true;
	grown = sl_memory_take(memory, SL_MAX(*capacity * 2, used + more), &larger);
	if (!grown)
		return false;
	if (used)
		memcpy(grown, *buffer, used);
	sl_memory_give(memory, *buffer, *capacity);
	*buffer = grown;
	*capacity = larger;
	return true;
}

// Where `more` bytes can be written at the draft's end; NULL after a refusal.
static uint8_t *draft_room(struct reader *reader, size_t more)
{
	void *buffer = reader->draft;

	if (reader->draft_size + reader->lengths > reader->bytes_max) {
		refuse(reader, SL_JSON_TOO_LARGE, "less");
		return NULL;
	}
	if (!make_room(reader->arena->memory, &buffer, reader->draft_size, more,
		       &reader->draft_capacity)) {
		refuse(reader, SL_JSON_NO_MEMORY, "memory");
		return NULL;
	}
	reader->draft = buffer;
	return reader->draft + reader->draft_size;
}

static bool put_tag(struct reader *reader, const struct sl_field *field, unsigned wire_type)
{
	uint8_t *at = draft_room(reader, 2);

	if (!at)
		return false;
	reader->draft_size += sl_varint_put(at, (uint64_t)field->number << 3 | wire_type);
	return true;
}

// Opens a frame that has a length: an object, or a packed array.
static bool open_hole(struct reader *reader, struct frame *frame)
{
	void *buffer = reader->holes;
	const size_t used = reader->hole_count * sizeof(struct hole);

	if (!make_room(reader->arena->memory, &buffer, used, sizeof(struct hole),
		       &reader->hole_capacity))
		return refuse(reader, SL_JSON_NO_MEMORY, "memory");
	reader->holes = buffer;
	frame->hole = (uint32_t)reader->hole_count++;
	reader->holes[frame->hole] = (struct hole){.at = (uint32_t)reader->draft_size};
	return true;
}

static bool close_hole(struct reader *reader, struct frame *frame, struct frame *parent)
{
	struct hole *hole = &reader->holes[frame->hole];
	unsigned length;

	hole->bytes = (uint32_t)(reader->draft_size - hole->at) + frame->lengths;
	length = sl_varint_bytes(hole->bytes);
	parent->lengths += frame->lengths + length;
	reader->lengths += length;
	return draft_room(reader, 0) != NULL;
}

// The field that a value which begins now is for; NULL with *skip for an unknown name, NULL alone
// after a refusal.
static const struct sl_field *value_field(struct reader *reader, bool *skip)
{
	struct frame *frame;

	*skip = false;
	if (reader->depth == 0) {
		malformed(reader, "an object");
		return NULL;
	}
	frame = &reader->frames[reader->depth - 1];
	*skip = reader->skip_depth || !frame->field;
	return *skip ? NULL : frame->field;
}

// Counts an element; marks a field seen. Refuses a second member of a oneof, as proto3 JSON does.
static bool note_value(struct reader *reader, const struct sl_field *field, bool *again)
{
	struct frame *frame = &reader->frames[reader->depth - 1];
	const uint32_t bit = UINT32_C(1) << field->number;

	if (frame->kind == FRAME_ARRAY) {
		*again = true; // elements are written whatever their value
		return true;
	}
	*again = frame->seen & bit;
	if (field->oneof && !*again)
		for (unsigned i = 0; i < frame->message->field_count; i++)
			if (frame->message->fields[i].oneof == field->oneof &&
			    frame->seen >> frame->message->fields[i].number & 1)
				return malformed(reader, "no second value in a choice of one");
	frame->seen |= bit;
	return true;
}

static void next_element(struct reader *reader)
{
	struct frame *frame = &reader->frames[reader->depth - 1];

	if (frame->kind == FRAME_ARRAY)
		frame->index++;
}

static bool in_array(const struct reader *reader)
{
	return reader->frames[reader->depth - 1].kind == FRAME_ARRAY;
}

// A number's value in the wire's form. Defaults are left out, as canonical protobuf does, unless
// they replace an earlier value of the same name.
static int put_number(struct reader *reader, const struct sl_field *field, uint64_t value,
		      bool again)
{
	const unsigned wire_type = sl_schema_wire_type(field);
	const bool packed = field->repeated;
	uint8_t *at;

	if (value == 0 && !again && !field->optional)
		return 1;
	if (!packed && !put_tag(reader, field, wire_type))
		return 0;
	at = draft_room(reader, SL_VARINT_BYTES_MAX);
	if (!at)
		return 0;
	if (wire_type == 0) {
		reader->draft_size += sl_varint_put(at, value);
	} else {
		const size_t size = wire_type == 1 ? 8 : 4;

		memcpy(at, &value, size); // little-endian, as is all that we run on
		reader->draft_size += size;
	}
	next_element(reader);
	return 1;
}

static const char *expectation(const struct sl_field *field)
{
	switch ((enum sl_field_type)field->type) {
	case SL_FIELD_UINT32:
	case SL_FIELD_FIXED32:
		return "an unsigned 32-bit integer";
	case SL_FIELD_UINT64:
	case SL_FIELD_FIXED64:
		return "an unsigned 64-bit integer, as a number or a string";
	case SL_FIELD_INT32:
	case SL_FIELD_SINT32:
		return "a 32-bit integer";
	case SL_FIELD_INT64:
	case SL_FIELD_SFIXED64:
		return "a 64-bit integer, as a number or a string";
	case SL_FIELD_ENUM:
		return "an enum's number";
	case SL_FIELD_BOOL:
		return "true or false";
	case SL_FIELD_DOUBLE:
		return "a number";
	case SL_FIELD_STRING:
		return "a string";
	case SL_FIELD_BYTES:
		return "base64";
	case SL_FIELD_ID:
		return field->id_bytes == 16 ? "32 hex digits" : "16 hex digits";
	case SL_FIELD_MESSAGE:
		return "an object";
	}
	return "something else";
}

static bool enum_named(const struct sl_field *field, struct sl_bytes name, uint64_t *value)
{
	for (const struct sl_enum_name *row = field->names; row->name; row++) {
		if (sl_bytes_equal(sl_bytes_of(row->name), name)) {
			*value = (uint64_t)(int64_t)row->value;
			return true;
		}
	}
	return false;
}

// A number, or a string that stands for one.
static int on_numeric(struct reader *reader, const struct sl_field *field, struct sl_bytes text,
		      bool quoted, bool again)
{
	uint64_t value;
	bool valid;

	if (field->type == SL_FIELD_DOUBLE)
		valid = sl_json_double(text, quoted, &value);
	else if (field->type == SL_FIELD_ENUM && quoted && reader->limits->enum_names &&
		 enum_named(field, text, &value))
		valid = true;
	else
		valid = sl_json_integer_of((enum sl_field_type)field->type, text, &value);
	if (!valid)
		return malformed(reader, expectation(field));
	return put_number(reader, field, value, again);
}

// A string, bytes or an id.
static int put_text(struct reader *reader, const struct sl_field *field, struct sl_bytes text,
		    bool again)
{
	uint8_t *at;
	size_t size = text.size;

	if (size == 0 && !again && !field->optional)
		return 1;
	if (field->type == SL_FIELD_ID && size && size != (size_t)field->id_bytes * 2)
		return malformed(reader, expectation(field));
	if (!put_tag(reader, field, 2))
		return 0;
	at = draft_room(reader, size + LENGTH_BYTES_MAX + 3);
	if (!at)
		return 0;
	if (field->type == SL_FIELD_STRING) {
		at += sl_varint_put(at, size);
		if (size)
			memcpy(at, text.data, size);
	} else if (field->type == SL_FIELD_ID) {
		at += sl_varint_put(at, size /= 2);
		if (!sl_json_hex(text, at))
			return malformed(reader, expectation(field));
	} else { // the length is known after decoding
		if (!sl_json_base64(text, at + LENGTH_BYTES_MAX, &size))
			return malformed(reader, expectation(field));
		memmove(at + sl_varint_bytes(size), at + LENGTH_BYTES_MAX, size);
		at += sl_varint_put(at, size);
	}
	reader->draft_size = (size_t)(at - reader->draft) + size;
	next_element(reader);
	return 1;
}

static int on_text(void *context, struct sl_bytes text, bool quoted)
{
	struct reader *reader = context;
	bool skip, again;
	const struct sl_field *field = value_field(reader, &skip);

	if (!field)
		return skip;
	if ((field->repeated && !in_array(reader)))
		return malformed(reader, "an array");
	if (!note_value(reader, field, &again))
		return 0;
	switch ((enum sl_field_type)field->type) {
	case SL_FIELD_STRING:
	case SL_FIELD_BYTES:
	case SL_FIELD_ID:
		if (!quoted)
			return malformed(reader, expectation(field));
		return put_text(reader, field, text, again);
	case SL_FIELD_BOOL:
	case SL_FIELD_MESSAGE:
		return malformed(reader, expectation(field));
	default:
		return on_numeric(reader, field, text, quoted, again);
	}
}

static int on_number(void *context, const char *text, size_t size)
{
	return on_text(context, sl_bytes(text, size), false);
}

// JSON is UTF-8 (RFC 8259, section 8.1), in what we ignore too.
static int on_string(void *context, const unsigned char *text, size_t size)
{
	if (!sl_utf8_valid(sl_bytes(text, size)))
		return malformed(context, "UTF-8");
	return on_text(context, sl_bytes(text, size), true);
}

static int on_boolean(void *context, int value)
{
	struct reader *reader = context;
	bool skip, again;
	const struct sl_field *field = value_field(reader, &skip);

	if (!field)
		return skip;
	if (field->type != SL_FIELD_BOOL)
		return malformed(reader, field->repeated && !in_array(reader) ? "an array"
									      : expectation(field));
	return note_value(reader, field, &again) && put_number(reader, field, value != 0, again);
}

static int on_null(void *context)
{
	struct reader *reader = context;
	bool skip;
	const struct sl_field *field = value_field(reader, &skip);

	if (field && in_array(reader))
		return malformed(reader, expectation(field));
	return field || skip;
}

static struct frame *push(struct reader *reader, enum frame_kind kind,
			  const struct sl_message *message, const struct sl_field *field)
{
	struct frame *frame = &reader->frames[reader->depth++];

	*frame = (struct frame){.kind = kind,
				.message = message,
				.field = field,
				.at = (uint32_t)reader->draft_size};
	return frame;
}

// Counts one level of nesting, known or not.
static bool deeper(struct reader *reader)
{
	if (reader->depth + reader->skip_depth >= reader->depth_max)
		return refuse(reader, SL_JSON_TOO_DEEP, "less nesting");
	return true;
}

static int on_object(void *context)
{
	struct reader *reader = context;
	const struct sl_field *field;
	bool skip, again;
	uint32_t at = (uint32_t)reader->draft_size;
	struct frame *frame;

	if (!deeper(reader))
		return 0;
	if (reader->depth == 0) {
		push(reader, FRAME_OBJECT, reader->root, NULL);
		return 1;
	}
	field = value_field(reader, &skip);
	if (!field) {
		reader->skip_depth++;
		return skip;
	}
	if (field->repeated && !in_array(reader))
		return malformed(reader, "an array");
	if (field->type != SL_FIELD_MESSAGE)
		return malformed(reader, expectation(field));
	if (!note_value(reader, field, &again) || !put_tag(reader, field, 2))
		return 0;
	frame = push(reader, FRAME_OBJECT, field->message, NULL);
	frame->at = at;
	return open_hole(reader, frame);
}

static int on_object_end(void *context)
{
	struct reader *reader = context;
	struct frame *frame = &reader->frames[reader->depth - 1];

	if (reader->skip_depth) {
		reader->skip_depth--;
		return 1;
	}
	if (--reader->depth == 0) {
		reader->done = true;
		return 1;
	}
	if (!close_hole(reader, frame, frame - 1))
		return 0;
	next_element(reader);
	return 1;
}

static int on_key(void *context, const unsigned char *name, size_t size)
{
	struct reader *reader = context;
	struct frame *frame = &reader->frames[reader->depth - 1];

	if (!sl_utf8_valid(sl_bytes(name, size)))
		return malformed(reader, "UTF-8");
	if (!reader->skip_depth)
		frame->field = sl_schema_field_named(frame->message, sl_bytes(name, size));
	return 1;
}

static bool is_packed(const struct sl_field *field)
{
	return sl_schema_wire_type(field) != 2;
}

static int on_array(void *context)
{
	struct reader *reader = context;
	const struct sl_field *field;
	bool skip, again;
	struct frame *frame;

	if (!deeper(reader))
		return 0;
	field = value_field(reader, &skip);
	if (!field) {
		reader->skip_depth++;
		return skip;
	}
	if (!field->repeated || in_array(reader))
		return malformed(reader, expectation(field));
	if (!note_value(reader, field, &again))
		return 0;
	frame = push(reader, FRAME_ARRAY, reader->frames[reader->depth - 1].message, field);
	return !is_packed(field) || (put_tag(reader, field, 2) && open_hole(reader, frame));
}

static int on_array_end(void *context)
{
	struct reader *reader = context;
	struct frame *frame = &reader->frames[reader->depth - 1];

	if (reader->skip_depth) {
		reader->skip_depth--;
		return 1;
	}
	reader->depth--;
	if (!is_packed(frame->field)) {
		frame[-1].lengths += frame->lengths;
		return 1;
	}
	if (frame->index == 0) { // an empty array leaves nothing
		reader->draft_size = frame->at;
		reader->hole_count--;
		return 1;
	}
	return close_hole(reader, frame, frame - 1);
}

static const yajl_callbacks callbacks = {
	.yajl_null = on_null,
	.yajl_boolean = on_boolean,
	.yajl_number = on_number,
	.yajl_string = on_string,
	.yajl_start_map = on_object,
	.yajl_map_key = on_key,
	.yajl_end_map = on_object_end,
	.yajl_start_array = on_array,
	.yajl_end_array = on_array_end,
};

// "resourceSpans[0].scopeSpans[0].spans[2].traceId: expected 32 hex digits (byte 4711)". A path too
// long gives way to what was wrong.
static void explain(const struct reader *reader, const char *syntax, size_t at, char *error,
		    size_t error_size)
{
	char wrong[128];
	size_t size = 0, room;

	if (!error || error_size == 0)
		return;
	if (reader->expected)
		snprintf(wrong, sizeof(wrong), "expected %s (byte %zu)", reader->expected, at);
	else
		snprintf(wrong, sizeof(wrong), "%.*s (byte %zu)",
			 (int)SL_MIN(strcspn(syntax, "\n"), 90), syntax, at);
	room = error_size > strlen(wrong) + 3 ? error_size - strlen(wrong) - 2 : 1;
	error[0] = '\0';
	for (uint32_t i = 0; i < reader->depth && size + 1 < room; i++) {
		const struct frame *frame = &reader->frames[i];
		int more = 0;

		if (frame->kind == FRAME_ARRAY)
			more = snprintf(error + size, room - size, "[%u]", frame->index);
		else if (frame->field)
			more = snprintf(error + size, room - size, "%s%s", i ? "." : "",
					frame->field->name);
		size = SL_MIN(size + (size_t)more, room - 1);
	}
	snprintf(error + size, error_size - size, "%s%s", size ? ": " : "", wrong);
}

#define UNIT_BYTES 6 // \uXXXX

// The UTF-16 code unit that is written there; -1: none.
static int32_t unit_at(struct sl_bytes json, size_t at)
{
	int32_t unit = 0;

	if (json.size < UNIT_BYTES || at > json.size - UNIT_BYTES || json.data[at] != '\\' ||
	    json.data[at + 1] != 'u')
		return -1;
	for (size_t i = 2; i < UNIT_BYTES; i++) {
		const uint8_t byte = json.data[at + i];

		if (!isxdigit(byte))
			return -1;
		unit = unit << 4 | (byte <= '9' ? byte - '0' : (byte & 7) + 9);
	}
	return unit;
}

// Where the next half of a surrogate pair stands alone; json.size: nowhere.
static size_t lone_surrogate(struct sl_bytes json, size_t at)
{
	const uint8_t *escape;

	while (at < json.size && (escape = memchr(json.data + at, '\\', json.size - at))) {
		int32_t unit;

		at = (size_t)(escape - json.data);
		unit = unit_at(json, at);
		if (unit < 0xd800 || unit > 0xdfff)
			at += unit < 0 ? 2 : UNIT_BYTES;
		else if (unit <= 0xdbff && (unit_at(json, at + UNIT_BYTES) & ~0x3ff) == 0xdc00)
			at += 2 * UNIT_BYTES;
		else
			return at;
	}
	return json.size;
}

// Feeds yajl. JavaScript writes a string that was cut within a pair with its lone half as an escape
// (RFC 8259, section 8.2): U+FFFD takes its place, as in the Collector, rather than that one such
// name costs the whole batch. Returns with what was consumed in `*at`.
static yajl_status feed(yajl_handle handle, struct sl_bytes json, size_t *at)
{
	static const uint8_t replacement[] = "\\ufffd";
	yajl_status status;
	size_t from = 0;

	for (;;) {
		const size_t lone = lone_surrogate(json, from);

		status = yajl_parse(handle, json.data + from, lone - from);
		*at = from + yajl_get_bytes_consumed(handle);
		if (status != yajl_status_ok || lone == json.size)
			return status;
		status = yajl_parse(handle, replacement, UNIT_BYTES);
		from = lone + UNIT_BYTES;
		if (status != yajl_status_ok)
			return status;
	}
}

static enum sl_json_result parse(struct reader *reader, struct sl_bytes json, char *error,
				 size_t error_size)
{
	yajl_alloc_funcs memory = {yajl_take, yajl_resize, yajl_give, reader};
	yajl_handle handle;
	yajl_status status;
	size_t at = 0;

	if (setjmp(reader->no_memory)) {
		reader->expected = "memory";
		explain(reader, "", 0, error, error_size);
		return SL_JSON_NO_MEMORY;
	}
	handle = yajl_alloc(&callbacks, &memory, reader);
	// Its check lets overlong forms and surrogates through; put_text() looks itself.
	yajl_config(handle, yajl_dont_validate_strings, 1);
	status = feed(handle, json, &at);
	if (status == yajl_status_ok)
		status = yajl_complete_parse(handle);
	if (status == yajl_status_ok && reader->done)
		return SL_JSON_OK;
	if (reader->result == SL_JSON_OK)
		reader->result = SL_JSON_MALFORMED;
	explain(reader, (const char *)yajl_get_error(handle, 0, json.data, json.size), at, error,
		error_size);
	return reader->result;
}

// The draft with its holes filled.
static enum sl_json_result finish(struct reader *reader, struct sl_bytes *wire)
{
	const size_t total = reader->draft_size + reader->lengths;
	size_t from = 0, to = 0;
	uint8_t *out;

	if (total > reader->bytes_max)
		return SL_JSON_TOO_LARGE;
	out = sl_arena_alloc(reader->arena, total + SL_BODY_SLACK);
	if (!out)
		return SL_JSON_NO_MEMORY;
	for (size_t i = 0; i < reader->hole_count; i++) {
		const struct hole *hole = &reader->holes[i];

		memcpy(out + to, reader->draft + from, hole->at - from);
		to += hole->at - from;
		from = hole->at;
		to += sl_varint_put(out + to, hole->bytes);
	}
	if (reader->draft_size > from)
		memcpy(out + to, reader->draft + from, reader->draft_size - from);
	to += reader->draft_size - from;
	assert(to == total);
	memset(out + total, 0, SL_BODY_SLACK);
	*wire = sl_bytes(out, total);
	return SL_JSON_OK;
}

#define DEPTH_MAX 4096

enum sl_json_result sl_json_to_wire(enum sl_signal signal, struct sl_bytes json,
				    const struct sl_json_limits *limits, struct sl_arena *arena,
				    struct sl_bytes *wire, char *error, size_t error_size)
{
	struct reader reader = {
		.root = sl_schema_requests[signal],
		.limits = limits,
		.arena = arena,
		.depth_max = SL_MIN(limits->depth_max, DEPTH_MAX),
		.bytes_max = SL_MIN(limits->wire_bytes_max, SL_BODY_BYTES_MAX),
	};
	enum sl_json_result result = SL_JSON_NO_MEMORY;

	reader.frames = sl_arena_alloc(arena, (reader.depth_max + 1) * sizeof(struct frame));
	if (reader.frames)
		result = parse(&reader, json, error, error_size);
	else
		explain(&reader, "no memory", 0, error, error_size);
	if (result == SL_JSON_OK) {
		result = finish(&reader, wire);
		if (result != SL_JSON_OK)
			explain(&reader, result == SL_JSON_TOO_LARGE ? "too large" : "no memory",
				json.size, error, error_size);
	}
	sl_memory_give(arena->memory, reader.draft, reader.draft_capacity);
	sl_memory_give(arena->memory, reader.holes, reader.hole_capacity);
	return result;
}
