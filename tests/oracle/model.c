#include "tests/oracle/model.h"

#include <stdlib.h>

#include "tests/oracle/merged.h"
#include "tests/oracle/oracle.pb-c.h"
#include "tests/oracle/random.h"

#define FIELD_BYTES_MAX 4096
#define BOUNDARIES_MAX  2048

static const ProtobufCMessageDescriptor *const requests[SL_SIGNALS] = {
	[SL_TRACES] = &oracle__traces__descriptor,
	[SL_METRICS] = &oracle__metrics__descriptor,
	[SL_LOGS] = &oracle__logs__descriptor,
};

static const struct sl_view_limits limits = {.items_max = 100000, .depth_max = 16};

// Everything that protobuf-c takes comes from the arena: changed messages share parts, so nothing
// may be freed singly.
static void *take(void *arena, size_t size)
{
	void *taken = sl_arena_alloc(arena, size);

	assert(taken);
	return taken;
}

static void leave(void *arena, void *pointer)
{
	(void)arena;
	(void)pointer;
}

static ProtobufCMessage *decode(struct sl_model *model, const ProtobufCMessageDescriptor *as,
				const struct sl_message *schema, struct sl_bytes bytes)
{
	ProtobufCAllocator allocator = {take, leave, model->arena};

	bytes = sl_merged(schema, bytes, model->arena);
	return protobuf_c_message_unpack(as, &allocator, bytes.size, bytes.data);
}

static struct sl_bytes encode(struct sl_model *model, const ProtobufCMessage *message)
{
	uint8_t *out = take(model->arena, protobuf_c_message_get_packed_size(message) + 1);

	return sl_bytes(out, protobuf_c_message_pack(message, out));
}

static void *at_offset(ProtobufCMessage *message, unsigned offset)
{
	return (uint8_t *)message + offset;
}

static const ProtobufCFieldDescriptor *descriptor_of(const ProtobufCMessage *message,
						     uint32_t number)
{
	return protobuf_c_message_descriptor_get_field(message->descriptor, number);
}

// The decoded children of a message: its repeated field `number`.
static ProtobufCMessage **children_of(ProtobufCMessage *message, uint32_t number, size_t **count)
{
	const ProtobufCFieldDescriptor *field = descriptor_of(message, number);

	assert(field && field->label == PROTOBUF_C_LABEL_REPEATED);
	*count = at_offset(message, field->quantifier_offset);
	return *(ProtobufCMessage ***)at_offset(message, field->offset);
}

// The message in a Metric's oneof; NULL without.
static ProtobufCMessage *data_of(ProtobufCMessage *metric)
{
	const ProtobufCFieldDescriptor *field = descriptor_of(metric, 5);
	const uint32_t member = *(uint32_t *)at_offset(metric, field->quantifier_offset);

	return member ? *(ProtobufCMessage **)at_offset(metric, field->offset) : NULL;
}

static ProtobufCMessage *nth(struct sl_model *model, ProtobufCMessage *parent, uint32_t number,
			     uint32_t index)
{
	size_t *count;
	ProtobufCMessage **children = children_of(parent, number, &count);

	if (index < *count)
		return children[index];
	model->problem = "the scan found a child that protobuf-c did not";
	return NULL;
}

// Members that merge are one message: their points are counted together, in the metric's counter.
static uint32_t *counter_of(const struct sl_view *view, uint32_t *counters, uint32_t envelope)
{
	if (envelope == SL_TOP)
		return &counters[view->envelope_count];
	if (view->envelopes[envelope].kind == SL_ENVELOPE_POINTS)
		envelope = view->envelopes[envelope].parent;
	return &counters[envelope];
}

// Finds each envelope's and each item's message by its place among its siblings.
static void map(struct sl_model *model)
{
	const struct sl_view *view = model->view;
	uint32_t *counters = sl_arena_zalloc(model->arena, (view->envelope_count + 1) * 4);

	model->envelopes = take(model->arena, view->envelope_count * sizeof(void *));
	model->items = take(model->arena, view->item_count * sizeof(void *));
	for (uint32_t i = 0; i < view->envelope_count && !model->problem; i++) {
		const struct sl_envelope *envelope = &view->envelopes[i];
		ProtobufCMessage *parent = envelope->parent == SL_TOP
						   ? model->decoded
						   : model->envelopes[envelope->parent];

		if (envelope->kind == SL_ENVELOPE_POINTS)
			model->envelopes[i] = data_of(parent);
		else
			model->envelopes[i] = nth(
				model, parent, envelope->parent == SL_TOP ? 1 : 2,
				(*counter_of(view, counters, envelope->parent))++);
		if (!model->envelopes[i])
			model->problem = "an envelope is not in the decoded request";
	}
	for (uint32_t i = 0; i < view->item_count && !model->problem; i++) {
		const uint32_t envelope = view->items[i].envelope;

		model->items[i] = nth(model, model->envelopes[envelope],
				      view->signal == SL_METRICS ? 1 : 2,
				      (*counter_of(view, counters, envelope))++);
	}
}

// The decoded request without what was dropped; returns the items it still holds.
static size_t filter(ProtobufCMessage *message, unsigned level, enum sl_signal signal,
		     const uint64_t *keep, uint32_t *item)
{
	const unsigned levels = signal == SL_METRICS ? 4 : 2;
	size_t *count, kept = 0, items = 0;
	ProtobufCMessage **children;

	if (level == 3) { // a metric's data
		message = data_of(message);
		if (!message)
			return 0;
	}
	children = children_of(message, level == 0 || level == 3 ? 1 : 2, &count);
	for (size_t i = 0; i < *count; i++) {
		const bool leaf = level == levels || level == 3;
		const size_t inside = leaf ? sl_keep_has(keep, (*item)++)
					   : filter(children[i], level + 1, signal, keep, item);

		if (inside)
			children[kept++] = children[i];
		items += inside;
	}
	*count = kept;
	return items;
}

static size_t element_bytes(const ProtobufCFieldDescriptor *field)
{
	switch (field->type) {
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return 8;
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	default:
		return 4;
	}
}

// Behind `old`'s elements come `more`'s.
static void append(struct sl_model *model, void *old, size_t *old_count, const void *more,
		   size_t more_count, size_t element)
{
	uint8_t *joined = take(model->arena, (*old_count + more_count) * element);

	if (*old_count)
		memcpy(joined, *(void **)old, *old_count * element);
	if (more_count)
		memcpy(joined + *old_count * element, *(void *const *)more, more_count * element);
	*(void **)old = joined;
	*old_count += more_count;
}

// The change on the decoded side: `put` holds at most one field, of this number.
static void change_message(struct sl_model *model, ProtobufCMessage *message,
			   const struct sl_message *schema, uint32_t number,
			   enum sl_model_change change, struct sl_bytes put)
{
	const ProtobufCFieldDescriptor *field = descriptor_of(message, number);
	ProtobufCMessage *fresh = decode(model, message->descriptor, schema, put);

	assert(fresh);
	if (!field) { // unknown: only ever inserted, at the end
		size_t unknown = message->n_unknown_fields;

		append(model, &message->unknown_fields, &unknown, &fresh->unknown_fields,
		       fresh->n_unknown_fields, sizeof(ProtobufCMessageUnknownField));
		message->n_unknown_fields = (unsigned)unknown;
		return;
	}

	void *old = at_offset(message, field->offset), *new = at_offset(fresh, field->offset);

	if (field->label == PROTOBUF_C_LABEL_REPEATED) {
		size_t *old_count = at_offset(message, field->quantifier_offset);
		const size_t *new_count = at_offset(fresh, field->quantifier_offset);

		if (change != SL_MODEL_INSERT)
			*old_count = 0;
		append(model, old, old_count, new, *new_count, element_bytes(field));
		return;
	}
	memcpy(old, new, element_bytes(field));
	if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		memcpy(at_offset(message, field->quantifier_offset),
		       at_offset(fresh, field->quantifier_offset), sizeof(uint32_t));
}

// One message whose fields are changed: an item, or an envelope's own fields.
struct target {
	ProtobufCMessage *decoded;
	const struct sl_message *schema;
	struct sl_bytes payload;
	uint32_t at; // where the payload begins in the body
	enum sl_envelope_kind kind;
	bool item;
	bool merged; // a metric's member that comes twice: one decoded message, two payloads
};

static const struct sl_message *child_schema(const struct sl_message *message, uint32_t number)
{
	return sl_schema_field(message, number)->message;
}

static const struct sl_message *schema_of(const struct sl_view *view, uint32_t envelope)
{
	const struct sl_envelope *at = &view->envelopes[envelope];

	return child_schema(at->parent == SL_TOP ? sl_schema_requests[view->signal]
						 : schema_of(view, at->parent),
			    at->field);
}

static bool is_merged(const struct sl_view *view, uint32_t envelope)
{
	const struct sl_envelope *self = &view->envelopes[envelope];

	return self->kind == SL_ENVELOPE_POINTS &&
	       (self[-1].kind == SL_ENVELOPE_POINTS ||
		(envelope + 1 < view->envelope_count && self[1].kind == SL_ENVELOPE_POINTS));
}

static struct target pick(struct sl_model *model, struct sl_random *random)
{
	const struct sl_view *view = model->view;
	struct target target = {0};

	if (view->item_count && sl_random_below(random, 3)) {
		const uint32_t item = (uint32_t)sl_random_below(random, view->item_count);

		target.item = true;
		target.decoded = model->items[item];
		target.payload = sl_view_item_payload(view, item);
		target.schema = child_schema(schema_of(view, view->items[item].envelope),
					     view->signal == SL_METRICS ? 1 : 2);
	} else {
		const uint32_t envelope = (uint32_t)sl_random_below(random, view->envelope_count);

		target.decoded = model->envelopes[envelope];
		target.payload = sl_view_envelope_payload(view, envelope);
		target.schema = schema_of(view, envelope);
		target.kind = view->envelopes[envelope].kind;
		target.merged = is_merged(view, envelope);
	}
	target.at = (uint32_t)(target.payload.data - view->body.data);
	return target;
}

// Whether a field holds an envelope's children (or data forgotten for a later member): no edit's
// business.
static bool is_child(const struct target *target, uint32_t number)
{
	const struct sl_field *field = sl_schema_field(target->schema, number);

	if (target->item)
		return false;
	if (target->kind == SL_ENVELOPE_METRIC)
		return field && field->oneof;
	return number == (target->kind == SL_ENVELOPE_POINTS ? 1 : 2);
}

// Fields that a change of `field` has to take away: those of its number, and of its oneof.
static bool same(const struct target *target, const struct sl_field *field, uint32_t number)
{
	const struct sl_field *other = sl_schema_field(target->schema, number);

	return other == field || (other && other->oneof && other->oneof == field->oneof);
}

// Writes one random field; its bytes are the arena's.
static struct sl_bytes random_field(struct sl_model *model, const struct sl_field *field,
				    struct sl_random *random)
{
	uint8_t *out = take(model->arena, FIELD_BYTES_MAX);
	struct sl_random_wire wire = {.at = out, .end = out + FIELD_BYTES_MAX, .odd = 10};

	sl_random_init(&wire.random, sl_random_next(random));
	if (field)
		sl_random_field(&wire, field);
	else
		sl_random_unknown(&wire);
	return wire.full ? SL_BYTES_NONE : sl_bytes(out, (size_t)(wire.at - out));
}

// The edits of one change: cuts of all fields like `field`, and `put` where it may stand. An
// insertion behind a child would belong to the child, so it needs another place.
static unsigned make_edits(struct sl_model *model, const struct target *target,
			   const struct sl_field *field, enum sl_model_change change,
			   struct sl_bytes put, struct sl_edit *edits, struct sl_random *random)
{
	uint32_t boundaries[BOUNDARIES_MAX], boundary_count = 0, offset = 0;
	struct sl_wire_field wire;
	unsigned count = 0;

	boundaries[boundary_count++] = 0;
	while (sl_wire_next(target->payload, &offset, &wire)) {
		if (count + 2 >= BOUNDARIES_MAX || boundary_count + 2 >= BOUNDARIES_MAX)
			return 0;
		const bool like = field ? same(target, field, wire.number)
					: !sl_schema_field(target->schema, wire.number);

		if (like && change != SL_MODEL_INSERT) {
			edits[count++] = (struct sl_edit){target->at + wire.at, wire.bytes,
							  SL_BYTES_NONE};
			continue;
		}
		if (like)
			boundary_count = 0; // behind the last of its number
		if (!is_child(target, wire.number))
			boundaries[boundary_count++] = offset;
	}
	if (!put.size)
		return count;
	if (count && change == SL_MODEL_REPLACE) {
		edits[0].put = put;
		return count;
	}
	if (!boundary_count)
		return 0;
	edits[count++] = (struct sl_edit){
		target->at + boundaries[sl_random_below(random, boundary_count)], 0, put};
	(void)model;
	return count;
}

static bool changed_before(ProtobufCMessage **done, uint32_t *numbers, unsigned count,
			   ProtobufCMessage *message, uint32_t number)
{
	for (unsigned i = 0; i < count; i++)
		if (done[i] == message && (numbers[i] == number || !number))
			return true;
	return false;
}

// Up to `edits_max` changes, each to another field, added to the list in a random order.
static unsigned change(struct sl_model *model, struct sl_edits *list, unsigned edits_max,
		       struct sl_random *random, struct sl_model_counts *counts)
{
	struct sl_edit *made = take(model->arena, BOUNDARIES_MAX * sizeof(*made) * (edits_max + 1));
	ProtobufCMessage **done = take(model->arena, edits_max * sizeof(*done) + 1);
	uint32_t *numbers = take(model->arena, edits_max * sizeof(*numbers) + 1);
	unsigned total = 0, changes = 0;

	for (unsigned i = 0; i < edits_max && model->view->envelope_count; i++) {
		const struct target target = pick(model, random);
		const unsigned which = (unsigned)sl_random_below(random,
								 target.schema->field_count + 1u);
		const struct sl_field *field = which < target.schema->field_count
						       ? &target.schema->fields[which]
						       : NULL;
		enum sl_model_change how = (enum sl_model_change)sl_random_below(random, 3);
		struct sl_bytes put = SL_BYTES_NONE;
		// A oneof's members count as one field, by the number of the first.
		uint32_t number = field ? field->number : 1000;

		for (unsigned f = 0; field && field->oneof && f < target.schema->field_count; f++)
			if (target.schema->fields[f].oneof == field->oneof)
				number = SL_MIN(number, target.schema->fields[f].number);
		if (changed_before(done, numbers, changes, target.decoded, number) ||
		    (field && is_child(&target, field->number)))
			continue;
		// Singular messages merge, and a oneof's member would: those are replaced.
		if (!field)
			how = SL_MODEL_INSERT;
		else if (how == SL_MODEL_INSERT && !field->repeated &&
			 (field->message || field->oneof))
			how = SL_MODEL_REPLACE;
		if (target.merged)
			continue;
		if (how != SL_MODEL_REMOVE)
			put = random_field(model, field, random);
		if (how != SL_MODEL_REMOVE && !put.size)
			continue;

		const unsigned count = make_edits(model, &target, field, how, put, made + total,
						  random);

		if (!count)
			continue;
		change_message(model, target.decoded, target.schema, field ? field->number : 1000,
			       how, put);
		done[changes] = target.decoded;
		numbers[changes++] = number;
		total += count;
		counts->removed += how == SL_MODEL_REMOVE;
		counts->replaced += how == SL_MODEL_REPLACE;
		counts->inserted += how == SL_MODEL_INSERT;
		counts->unknown += !field;
		counts->in_items += target.item;
		counts->in_envelopes += !target.item;
	}
	for (unsigned left = total; left; left--) {
		const unsigned at = (unsigned)sl_random_below(random, left);
		const struct sl_edit edit = made[at];

		if (sl_edits_add(list, model->arena, edit.at, edit.cut, edit.put) != 0)
			model->problem = "an edit was refused";
		made[at] = made[left - 1];
	}
	for (uint32_t i = 1; i < list->count; i++)
		if (list->edits[i - 1].at + list->edits[i - 1].cut > list->edits[i].at)
			model->problem = "the list is not sorted";
	return total;
}

static struct sl_bytes join(struct sl_model *model, const struct sl_pieces *pieces)
{
	uint8_t *out = take(model->arena, pieces->bytes + SL_BODY_SLACK);
	size_t size = 0;

	for (uint32_t i = 0; i < pieces->count; i++) {
		memcpy(out + size, pieces->pieces[i].iov_base, pieces->pieces[i].iov_len);
		size += pieces->pieces[i].iov_len;
	}
	memset(out + size, 0xff, SL_BODY_SLACK);
	if (size != pieces->bytes)
		model->problem = "the pieces' sum is wrong";
	return sl_bytes(out, size);
}

// What is left scans again, and holds what was kept.
static void check_again(struct sl_model *model, struct sl_bytes spliced, uint32_t kept)
{
	struct sl_view again;

	if (sl_view_scan(&again, model->view->signal, spliced, &limits, model->arena, NULL) !=
	    SL_VIEW_OK)
		model->problem = "the result does not scan";
	else if (again.item_count != kept)
		model->problem = "the result holds other items";
}

static void check_list(struct sl_model *model, const uint64_t *keep, const struct sl_edits *edits,
		       uint32_t kept, struct sl_bytes want)
{
	uint32_t *items = take(model->arena, kept * sizeof(*items) + 1), count = 0;
	struct sl_pieces pieces;

	for (uint32_t i = 0; i < model->view->item_count; i++)
		if (sl_keep_has(keep, i))
			items[count++] = i;
	if (sl_splice_items(model->view, items, count, edits, model->arena, &pieces) != 0 ||
	    !sl_bytes_equal(join(model, &pieces), want))
		model->problem = "a list of items gives other bytes than bits";
}

static void compare(struct sl_model *model, const uint64_t *keep, const struct sl_edits *edits,
		    uint32_t kept, struct sl_model_counts *counts)
{
	const struct sl_view *view = model->view;
	const bool whole = kept == view->item_count && edits->count == 0 && !view->has_empty;
	struct sl_pieces pieces;
	struct sl_bytes spliced;
	ProtobufCMessage *left;
	uint32_t item = 0;

	if (sl_splice(view, keep, edits, model->arena, &pieces) != 0) {
		model->problem = "no memory";
		return;
	}
	spliced = join(model, &pieces);
	if (whole) {
		counts->identical++;
		if (view->body.size &&
		    (pieces.count != 1 || pieces.pieces[0].iov_base != view->body.data ||
		     pieces.bytes != view->body.size))
			model->problem = "an untouched body is not one piece";
	} else if (filter(model->decoded, 0, view->signal, keep, &item) == 0) {
		counts->emptied++;
		if (pieces.bytes)
			model->problem = "something is left of nothing";
		return;
	}
	left = decode(model, requests[view->signal], sl_schema_requests[view->signal], spliced);
	if (!left)
		model->problem = "the result does not decode";
	else if (!sl_bytes_equal(encode(model, left), encode(model, model->decoded)))
		model->problem = "the result decodes to something else";
	check_again(model, spliced, kept);
	check_list(model, keep, edits, kept, spliced);
}

const char *sl_model_round(enum sl_signal signal, struct sl_bytes body, unsigned edits_max,
			   unsigned keep_percent, struct sl_random *random,
			   struct sl_memory *memory, struct sl_model_counts *counts)
{
	struct sl_edits edits = {0};
	struct sl_arena arena;
	struct sl_view view;
	struct sl_model model = {.view = &view, .arena = &arena};
	uint32_t kept = 0;

	sl_arena_init(&arena, memory);
	if (sl_view_scan(&view, signal, body, &limits, &arena, NULL) != SL_VIEW_OK) {
		counts->refused++;
		goto done;
	}
	model.decoded = decode(&model, requests[signal], sl_schema_requests[signal], body);
	if (!model.decoded) {
		counts->refused++;
		goto done;
	}
	map(&model);
	if (model.problem)
		goto done;

	uint64_t *keep = sl_arena_zalloc(&arena, SL_KEEP_WORDS(view.item_count) * 8 + 8);

	for (uint32_t i = 0; i < view.item_count; i++) {
		const uint64_t stays = sl_random_below(random, 100) < keep_percent;

		keep[i / 64] |= stays << (i % 64);
		kept += (uint32_t)stays;
	}
	change(&model, &edits, edits_max, random, counts);
	compare(&model, kept == view.item_count ? NULL : keep, &edits, kept, counts);
	counts->rounds++;
	counts->items += view.item_count;
	counts->kept += kept;
done:
	sl_arena_fini(&arena);
	return model.problem;
}
