#include "tenants/cardinality/trim.h"

#include "dataplane/base/varint.h"

#include "config/rows.h"

#define LENGTH_DELIMITED 2
#define HEAD_MAX         (1 + SL_VARINT_BYTES_MAX) // all numbers here are below 16

#define NAMED(field_) .present_offset = offsetof(struct sl_trim_config, has.field_)
#define COUNT_MAX     1e6
#define BYTES_MAX     ((double)SL_GIB)

static const char *const modes[] = {"enforce", "observe", NULL};

static const struct sl_setting rows[] = {
	ROW(sl_trim_config, attributes, "attributes", COUNT, NAMED(attributes), .max = COUNT_MAX,
	    .help = "Attributes of a span, of each of its events and links, and of a log record. "
		    "0: no limit."),
	ROW(sl_trim_config, resource_attributes, "resource_attributes", COUNT,
	    NAMED(resource_attributes), .max = COUNT_MAX,
	    .help = "Attributes of a resource. 0: no limit."),
	ROW(sl_trim_config, scope_attributes, "scope_attributes", COUNT, NAMED(scope_attributes),
	    .max = COUNT_MAX, .help = "Attributes of an instrumentation scope. 0: no limit."),
	ROW(sl_trim_config, value_bytes, "value", BYTES, NAMED(value), .max = BYTES_MAX,
	    .help = "A string or bytes as an attribute's value, also in its arrays and maps; of "
		    "resources and scopes too. 0: no limit."),
	ROW(sl_trim_config, name_bytes, "name", BYTES, NAMED(name), .max = BYTES_MAX,
	    .help = "The name of a span and of its events. 0: no limit."),
	ROW(sl_trim_config, body_bytes, "body", BYTES, NAMED(body), .max = BYTES_MAX,
	    .help = "A string or bytes in a log record's body. 0: no limit."),
	ROW(sl_trim_config, points, "points", BOOL, NAMED(points), .preset = "false",
	    .help = "Hold data points to `attributes` and `value` too. They cannot say what was "
		    "dropped, and series that differ in nothing else become one."),
	ROW(sl_trim_config, mode, "mode", ENUM, NAMED(mode), .choices = modes, .preset = "enforce",
	    .help = "enforce, or observe: count what would be dropped or cut, and change nothing. "
		    "Unset: as quotas.mode says."),
};
const struct sl_settings sl_trim_settings = SETTINGS(
	"limits", sl_trim_config, rows,
	.help = "Limits on attributes and sizes, as the SDKs have them. The first attributes stay; "
		"the others are dropped and counted in their dropped_attributes_count. Longer "
		"texts are cut, in UTF-8 between characters. A tenant's own keys replace its "
		"class' one by one.");

struct sl_trim_limits sl_trim_limits(const struct sl_trim_config *config, bool observe)
{
	struct sl_trim_limits limits = {
		.attributes = (uint32_t)config->attributes,
		.resource_attributes = (uint32_t)config->resource_attributes,
		.scope_attributes = (uint32_t)config->scope_attributes,
		.value_bytes = (uint32_t)config->value_bytes,
		.name_bytes = (uint32_t)config->name_bytes,
		.body_bytes = (uint32_t)config->body_bytes,
		.points = config->points,
		.observe = config->has.mode ? config->mode == 1 : observe,
	};

	limits.is_set = limits.attributes || limits.resource_attributes ||
			limits.scope_attributes || limits.value_bytes || limits.name_bytes ||
			limits.body_bytes;
	return limits;
}

// --- messages ------------------------------------------------------------------------------------

const struct sl_trim_shape sl_trim_resource = {.attributes = 1, .dropped = 2};
const struct sl_trim_shape sl_trim_scope = {.attributes = 3, .dropped = 4};
static const struct sl_trim_shape event = {.attributes = 3, .dropped = 4, .name = 2};
static const struct sl_trim_shape link = {.attributes = 4, .dropped = 5};

const struct sl_trim_shape *sl_trim_item(enum sl_signal signal, uint32_t envelope_field)
{
	static const struct sl_trim_shape span = {
		.attributes = 9, .dropped = 10, .name = 5, .events = 11, .links = 13};
	static const struct sl_trim_shape record = {.attributes = 6, .dropped = 7, .body = 5};
	static const struct sl_trim_shape histogram = {.attributes = 9};
	static const struct sl_trim_shape exponential = {.attributes = 1};
	static const struct sl_trim_shape number = {.attributes = 7}; // and summary

	if (signal == SL_TRACES)
		return &span;
	if (signal == SL_LOGS)
		return &record;
	return envelope_field == 9 ? &histogram : envelope_field == 10 ? &exponential : &number;
}

// --- values --------------------------------------------------------------------------------------

// What a field's payload is made of.
enum level { LEVEL_OTHER, LEVEL_PAIR, LEVEL_ANY, LEVEL_ARRAY, LEVEL_MAP, LEVEL_TEXT, LEVEL_BLOB };

static enum level level_of(enum level around, const struct sl_wire_field *field)
{
	static const enum level of_any[8] = {
		[1] = LEVEL_TEXT, [5] = LEVEL_ARRAY, [6] = LEVEL_MAP, [7] = LEVEL_BLOB};

	if (field->wire_type != LENGTH_DELIMITED)
		return LEVEL_OTHER;
	if (around == LEVEL_PAIR)
		return field->number == 2 ? LEVEL_ANY : LEVEL_OTHER;
	if (around == LEVEL_ANY)
		return field->number < 8 ? of_any[field->number] : LEVEL_OTHER;
	if (field->number != 1)
		return LEVEL_OTHER;
	return around == LEVEL_ARRAY ? LEVEL_ANY : LEVEL_PAIR;
}

// How much of a text stays: no character is cut in two, if it is UTF-8.
static uint32_t text_size(struct sl_bytes text, uint32_t most, bool utf8)
{
	if (text.size <= most)
		return (uint32_t)text.size;
	for (uint32_t back = 0; utf8 && back < 4 && back <= most; back++)
		if ((text.data[most - back] & 0xc0) != 0x80)
			return most - back;
	return most;
}

// Writes a message with its texts cut; NULL: only its size. It never grows. `*cuts` counts them.
// Each level asks those inside it for their size first: as deep as the scan allows.
static size_t cut_texts(struct sl_bytes in, enum level level, uint32_t most, uint8_t *out,
			uint64_t *cuts)
{
	struct sl_wire_field field;
	uint32_t offset = 0;
	uint64_t nobody = 0;
	size_t size = 0;

	if (level == LEVEL_TEXT || level == LEVEL_BLOB) {
		size = text_size(in, most, level == LEVEL_TEXT);
		*cuts += size < in.size;
		if (out)
			memcpy(out, in.data, size);
		return size;
	}
	while (sl_wire_next(in, &offset, &field)) {
		const enum level inside = level_of(level, &field);
		size_t bytes;

		if (inside == LEVEL_OTHER) {
			if (out)
				memcpy(out + size, in.data + field.at, field.bytes);
			size += field.bytes;
			continue;
		}
		bytes = cut_texts(field.data, inside, most, NULL, cuts);
		if (out) {
			out[size] = (uint8_t)(field.number << 3 | LENGTH_DELIMITED);
			sl_varint_put(out + size + 1, bytes);
		}
		size += 1 + sl_varint_bytes(bytes);
		if (out)
			cut_texts(field.data, inside, most, out + size, &nobody);
		size += bytes;
	}
	return size;
}

// A field with its texts cut: `*put` is all of it and `*inside` its payload, or none when nothing
// is too long.
static bool cut_field(struct sl_trim *trim, const struct sl_wire_field *field, enum level level,
		      uint32_t most, struct sl_bytes *put, struct sl_bytes *inside)
{
	uint64_t cuts = 0;
	size_t size;
	uint8_t *out;
	unsigned head;

	// What is shorter as a whole has nothing longer in it.
	if (SL_LIKELY(!most || field->data.size <= most))
		return true;
	size = cut_texts(field->data, level, most, NULL, &cuts);
	if (!cuts)
		return true;
	if (trim->limits->observe) {
		trim->counts->observed += cuts;
		return true;
	}
	out = sl_arena_alloc(&trim->part->request->arena, HEAD_MAX + size);
	if (!out)
		return false;
	trim->counts->values += cuts;
	cuts = 0;
	out[0] = (uint8_t)(field->number << 3 | LENGTH_DELIMITED);
	head = 1 + sl_varint_put(out + 1, size);
	cut_texts(field->data, level, most, out + head, &cuts);
	*put = sl_bytes(out, head + size);
	*inside = sl_bytes(out + head, size);
	return true;
}

// --- edits ---------------------------------------------------------------------------------------

static bool edit(struct sl_trim *trim, uint32_t at, uint32_t cut, struct sl_bytes put)
{
	trim->grown += (int64_t)put.size - cut;
	return sl_edits_add(&trim->part->edits, &trim->part->request->arena, at, cut, put) == 0;
}

static struct sl_bytes count_field(struct sl_trim *trim)
{
	const uint64_t count = SL_MIN(trim->before + trim->dropped, UINT32_MAX);
	uint8_t *out = sl_arena_alloc(&trim->part->request->arena, HEAD_MAX);

	if (!out)
		return SL_BYTES_NONE;
	out[0] = (uint8_t)(trim->shape->dropped << 3);
	return sl_bytes(out, 1 + sl_varint_put(out + 1, count));
}

static bool end_run(struct sl_trim *trim, struct sl_bytes put)
{
	const uint32_t size = trim->run_size;

	trim->run_size = 0;
	return !size || edit(trim, trim->run_at, size, put);
}

// --- attributes ----------------------------------------------------------------------------------

// Sampling writes these two into log records, and must find them as they are.
static bool is_samplings(const struct sl_trim *trim, struct sl_bytes pair)
{
	struct sl_bytes key;
	struct sl_any any;

	if (trim->part->request->signal != SL_LOGS)
		return false;
	sl_wire_key_value(pair, &key, &any);
	return sl_bytes_equal(key, SL_LITERAL("sampling.threshold")) ||
	       sl_bytes_equal(key, SL_LITERAL("sampling.randomness"));
}

enum sl_trimmed sl_trim_pair(struct sl_trim *trim, uint32_t at, const struct sl_wire_field *field,
			     struct sl_bytes *pair, struct sl_bytes *put)
{
	const bool full = trim->most && trim->kept >= trim->most;

	*pair = field->data;
	*put = SL_BYTES_NONE;
	if (SL_LIKELY(!full &&
		      (!trim->limits->value_bytes || pair->size <= trim->limits->value_bytes)))
		return SL_TRIM_KEPT;
	if (is_samplings(trim, *pair) ||
	    (trim->edited && sl_edits_find(&trim->part->edits, at, field->bytes)))
		return SL_TRIM_KEPT;
	if (full && trim->limits->observe) {
		trim->counts->observed++;
		return SL_TRIM_KEPT;
	}
	if (!full)
		return cut_field(trim, field, LEVEL_PAIR, trim->limits->value_bytes, put, pair)
			       ? SL_TRIM_KEPT
			       : SL_TRIM_NO_MEMORY;
	if (trim->run_size && trim->run_at + trim->run_size != at && !end_run(trim, SL_BYTES_NONE))
		return SL_TRIM_NO_MEMORY;
	if (!trim->run_size)
		trim->run_at = at;
	trim->run_size += field->bytes;
	trim->dropped++;
	trim->counts->attributes++;
	return SL_TRIM_DROPPED;
}

bool sl_trim_keep(struct sl_trim *trim, uint32_t at, uint32_t bytes, struct sl_bytes put)
{
	trim->kept++;
	return !put.size || edit(trim, at, bytes, put);
}

// The splicer knows items and envelopes; the length of what lies in them is ours. Claims that were
// overwritten (tenants/parts.c) may have changed it already.
static bool put_head(struct sl_trim *trim, uint32_t at, const struct sl_wire_field *field,
		     int64_t grown)
{
	const uint32_t head_size = field->bytes - (uint32_t)field->data.size;
	struct sl_edit *known = sl_edits_find(&trim->part->edits, at, head_size);
	uint64_t size = field->data.size;
	uint8_t *head;
	unsigned bytes;

	if (!grown)
		return true;
	head = sl_arena_alloc(&trim->part->request->arena, HEAD_MAX);
	if (!head)
		return false;
	if (known)
		sl_varint_get(known->put.data + 1, known->put.size - 1, &size);
	head[0] = (uint8_t)(field->number << 3 | LENGTH_DELIMITED);
	bytes = 1 + sl_varint_put(head + 1, (uint64_t)((int64_t)size + grown));
	if (known) {
		known->put = sl_bytes(head, bytes);
		return true;
	}
	return edit(trim, at, head_size, sl_bytes(head, bytes));
}

bool sl_trim_field(struct sl_trim *trim, uint32_t base, const struct sl_wire_field *field)
{
	const struct sl_trim_shape *shape = trim->shape;
	struct sl_bytes put = SL_BYTES_NONE, inside;
	const uint32_t at = base + field->at;
	bool done = true;

	if (field->number == shape->dropped && field->wire_type == 0) {
		trim->before = (uint32_t)field->value; // the last one counts
		trim->old_at = at;
		trim->old_size = field->bytes;
		return true;
	}
	if (field->wire_type != LENGTH_DELIMITED)
		return true;
	if (field->number == shape->name)
		done = cut_field(trim, field, LEVEL_TEXT, trim->limits->name_bytes, &put, &inside);
	else if (field->number == shape->body)
		done = cut_field(trim, field, LEVEL_ANY, trim->limits->body_bytes, &put, &inside);
	else if (field->number == shape->events || field->number == shape->links) {
		struct sl_trim child = {
			.limits = trim->limits,
			.shape = field->number == shape->events ? &event : &link,
			.part = trim->part,
			.counts = trim->counts,
			.most = trim->most,
		};

		return sl_trim_message(&child, at, field);
	}
	return done && (!put.size || edit(trim, at, field->bytes, put));
}

bool sl_trim_end(struct sl_trim *trim)
{
	struct sl_bytes put = SL_BYTES_NONE;

	if (SL_LIKELY(!trim->dropped))
		return true;
	if (trim->shape->dropped) {
		put = count_field(trim);
		if (!put.size)
			return false;
	}
	if (!trim->old_size)
		return end_run(trim, put);
	return end_run(trim, SL_BYTES_NONE) && edit(trim, trim->old_at, trim->old_size, put);
}

// What somebody edited before is not what it says.
static bool may_stay(struct sl_trim *trim, uint32_t at, const struct sl_wire_field *field,
		     struct sl_bytes pair)
{
	return !trim->judge ||
	       (trim->edited && sl_edits_find(&trim->part->edits, at, field->bytes)) ||
	       trim->judge(trim->judge_self, pair, field->data);
}

bool sl_trim_message(struct sl_trim *trim, uint32_t at, const struct sl_wire_field *whole)
{
	const uint32_t base = at + whole->bytes - (uint32_t)whole->data.size;
	struct sl_bytes pair, put;
	struct sl_wire_field field;
	uint32_t offset = 0;

	trim->grown = 0;
	trim->old_size = 0;
	while (sl_wire_next(whole->data, &offset, &field)) {
		const uint32_t field_at = base + field.at;
		enum sl_trimmed trimmed;

		if (field.number != trim->shape->attributes ||
		    field.wire_type != LENGTH_DELIMITED) {
			if (!sl_trim_field(trim, base, &field))
				return false;
			continue;
		}
		trimmed = sl_trim_pair(trim, field_at, &field, &pair, &put);
		if (trimmed == SL_TRIM_DROPPED)
			continue;
		if (trimmed == SL_TRIM_NO_MEMORY)
			return false;
		if (!may_stay(trim, field_at, &field, pair)) {
			if (!edit(trim, field_at, field.bytes, SL_BYTES_NONE))
				return false;
		} else if (!sl_trim_keep(trim, field_at, field.bytes, put)) {
			return false;
		}
	}
	return sl_trim_end(trim) && put_head(trim, at, whole, trim->grown);
}
