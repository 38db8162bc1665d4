#include "sampling/item.h"

#include <math.h>
#include <stdlib.h>

#include "dataplane/base/varint.h"

// Fields of Span and LogRecord, of KeyValue and AnyValue (reference: otlp.md).
enum {
	SPAN_TRACE_STATE = 3,
	SPAN_ATTRIBUTES = 9,
	LOG_ATTRIBUTES = 6,
	LENGTH_DELIMITED = 2,
	LOG_SEVERITY_ERROR = 17,
};

#define KEY_THRESHOLD  SL_LITERAL("sampling.threshold")
#define KEY_RANDOMNESS SL_LITERAL("sampling.randomness")

#define PLACES_MAX 4 // of one field, repeated by a careless or hostile writer, that are listed

// Where a piece of the state lies in the body: written anew, all of them go, or of very many the
// first few and the last, which is the one that counts.
struct places {
	uint32_t count;
	bool more; // some before the last are not listed
	struct {
		uint32_t at, bytes;
	} list[PLACES_MAX];
};

struct value {
	enum { VALUE_NONE, VALUE_TEXT, VALUE_NUMBER, VALUE_OTHER } type; // NONE: no attribute
	struct sl_bytes text;
	double number;
};

// What one walk over an item finds.
struct found {
	struct places trace_state, threshold; // traces; logs
	struct sl_bytes trace_state_text;
	struct value threshold_value, randomness_value, priority, attribute;
};

static void add_place(struct places *places, uint32_t at, uint32_t bytes)
{
	if (places->count == PLACES_MAX) {
		places->more = true;
		places->count--;
	}
	places->list[places->count].at = at;
	places->list[places->count++].bytes = bytes;
}

static struct value value_of(const struct sl_any *any)
{
	struct value value = {.type = VALUE_OTHER};

	if (any->type == SL_ANY_STRING) {
		value = (struct value){.type = VALUE_TEXT, .text = any->text};
	} else if (any->type == SL_ANY_INT) {
		value.type = VALUE_NUMBER;
		value.number = (double)(int64_t)any->bits;
	} else if (any->type == SL_ANY_DOUBLE) {
		value.type = VALUE_NUMBER;
		memcpy(&value.number, &any->bits, sizeof(value.number));
	}
	return value;
}

// Whether an attribute of this key is read: few are.
static bool is_asked(const struct sl_sampling_rule *rule, enum sl_signal signal,
		     struct sl_bytes key)
{
	return sl_bytes_equal(key, rule->priority[signal]) ||
	       (signal == SL_LOGS &&
		(sl_bytes_equal(key, rule->attribute) || sl_bytes_equal(key, KEY_THRESHOLD) ||
		 sl_bytes_equal(key, KEY_RANDOMNESS)));
}

static void read_attribute(const struct sl_sampling_rule *rule, enum sl_signal signal,
			   const struct sl_wire_field *attribute, uint32_t base,
			   struct found *found)
{
	struct sl_bytes key = sl_wire_plain_key(attribute->data);
	struct sl_any any;

	if (key.size && !is_asked(rule, signal, key))
		return;
	sl_wire_key_value(attribute->data, &key, &any);
	if (rule->priority[signal].size && sl_bytes_equal(key, rule->priority[signal]))
		found->priority = value_of(&any);
	if (signal != SL_LOGS)
		return;
	if (rule->attribute.size && sl_bytes_equal(key, rule->attribute))
		found->attribute = value_of(&any);
	if (sl_bytes_equal(key, KEY_THRESHOLD)) {
		found->threshold_value = value_of(&any);
		add_place(&found->threshold, base + attribute->at, attribute->bytes);
	} else if (sl_bytes_equal(key, KEY_RANDOMNESS)) {
		found->randomness_value = value_of(&any);
	}
}

static void walk(const struct sl_sampling_rule *rule, enum sl_signal signal,
		 struct sl_bytes payload, uint32_t base, struct found *found)
{
	const uint32_t attributes = signal == SL_TRACES ? SPAN_ATTRIBUTES : LOG_ATTRIBUTES;
	struct sl_wire_field field;
	uint32_t offset = 0;

	while (sl_wire_next(payload, &offset, &field)) {
		if (field.wire_type != LENGTH_DELIMITED)
			continue;
		if (signal == SL_TRACES && field.number == SPAN_TRACE_STATE) {
			found->trace_state_text = field.data;
			add_place(&found->trace_state, base + field.at, field.bytes);
		} else if (field.number == attributes) {
			read_attribute(rule, signal, &field, base, found);
		}
	}
}

static bool to_number(const struct value *value, double *number)
{
	char text[32], *end;

	if (value->type == VALUE_NUMBER) {
		*number = value->number;
		return !isnan(*number);
	}
	if (value->type != VALUE_TEXT || !value->text.size || value->text.size >= sizeof(text))
		return false;
	memcpy(text, value->text.data, value->text.size);
	text[value->text.size] = '\0';
	// White space and hexadecimal digits, which strtod() takes, make no number elsewhere: the
	// stages of one pipeline shall agree.
	if (text[0] <= ' ' || strpbrk(text, "xX"))
		return false;
	*number = strtod(text, &end);
	return end == text + value->text.size && !isnan(*number);
}

// The state that a log record carries in its attributes. An attribute that is no string is
// malformed.
static bool read_log_state(const struct found *found, struct sl_tracestate *state)
{
	(void)sl_tracestate_parse(SL_BYTES_NONE, state);
	state->has_threshold = found->threshold.count > 0;
	state->has_randomness = found->randomness_value.type != VALUE_NONE;
	if (state->has_threshold &&
	    (found->threshold_value.type != VALUE_TEXT ||
	     !sl_threshold_parse(found->threshold_value.text, &state->threshold)))
		return false;
	return !state->has_randomness ||
	       (found->randomness_value.type == VALUE_TEXT &&
		sl_randomness_parse(found->randomness_value.text, &state->randomness));
}

// A KeyValue with a short string, as field 6 of a log record.
static size_t put_attribute(uint8_t *at, struct sl_bytes key, const uint8_t *text, size_t size)
{
	uint8_t *start = at;

	*at++ = LOG_ATTRIBUTES << 3 | LENGTH_DELIMITED;
	*at++ = (uint8_t)(2 + key.size + 4 + size);
	*at++ = 1 << 3 | LENGTH_DELIMITED;
	*at++ = (uint8_t)key.size;
	memcpy(at, key.data, key.size);
	at += key.size;
	*at++ = 2 << 3 | LENGTH_DELIMITED;
	*at++ = (uint8_t)(2 + size);
	*at++ = 1 << 3 | LENGTH_DELIMITED;
	*at++ = (uint8_t)size;
	memcpy(at, text, size);
	return (size_t)(at + size - start);
}

// Replaces what lies at `places` by `size` bytes of `put`, the last of them, or inserts them at
// `at`.
static bool replace(struct sl_part *part, const struct places *places, uint32_t at,
		    const uint8_t *put, size_t size)
{
	struct sl_arena *arena = &part->request->arena;
	struct sl_bytes bytes = SL_BYTES_NONE;

	if (size) {
		bytes = sl_arena_copy(arena, sl_bytes(put, size));
		if (!bytes.data)
			return false;
	}
	if (!places->count)
		return !size || sl_edits_add(&part->edits, arena, at, 0, bytes) == 0;
	for (uint32_t i = 0; i < places->count; i++) {
		if (sl_edits_add(&part->edits, arena, places->list[i].at, places->list[i].bytes,
				 i + 1 == places->count ? bytes : SL_BYTES_NONE))
			return false;
	}
	return true;
}

static bool write_span(struct sl_part *part, const struct found *found,
		       const struct sl_tracestate *state, uint32_t at)
{
	uint8_t put[SL_TRACESTATE_WRITE_MAX + 4], text[SL_TRACESTATE_WRITE_MAX];
	const size_t size = sl_tracestate_write(state, text);
	size_t head = 0;

	// The last field of several is the one that counts (protobuf): where earlier ones stay, an
	// empty one must say that there is no state.
	if (size || found->trace_state.more) {
		put[head++] = SPAN_TRACE_STATE << 3 | LENGTH_DELIMITED;
		head += sl_varint_put(put + head, size);
		memcpy(put + head, text, size);
	}
	return replace(part, &found->trace_state, at, put, head + size);
}

// Randomness that came is never touched; it is written only where the hash made it.
static bool write_log(struct sl_part *part, const struct found *found,
		      const struct sl_tracestate *state, uint32_t at)
{
	uint8_t put[128], text[SL_THRESHOLD_DIGITS];
	size_t size = 0;

	if (state->has_threshold) {
		const unsigned digits = sl_threshold_format(state->threshold, text);

		size = put_attribute(put, KEY_THRESHOLD, text, digits);
	}
	if (state->has_randomness && found->randomness_value.type == VALUE_NONE) {
		sl_randomness_format(state->randomness, text);
		size += put_attribute(put + size, KEY_RANDOMNESS, text, sizeof(text));
	}
	return replace(part, &found->threshold, at, put, size);
}

static const struct sl_sampler *sampler_of(const struct sl_sampling_rule *rule,
					   enum sl_signal signal, const struct sl_item *item)
{
	const bool error = signal == SL_TRACES ? item->status == 2
					       : item->status >= LOG_SEVERITY_ERROR;

	for (uint32_t i = 0; i < rule->keep_count; i++) {
		if ((!rule->keeps[i].error || error) &&
		    (!rule->keeps[i].slower_than_us ||
		     item->duration_us > rule->keeps[i].slower_than_us))
			return &rule->keep_rate;
	}
	return &rule->rate;
}

// What an item's own priority says: a span's sign, a log record's percentage. Returns the sampler
// to use, `own` filled where it is the item's; NULL: drop.
static const struct sl_sampler *prioritise(const struct sl_sampler *sampler, enum sl_signal signal,
					   const struct value *priority, struct sl_sampler *own)
{
	double number;

	if (priority->type == VALUE_NONE || !to_number(priority, &number))
		return sampler;
	if (signal == SL_TRACES && number < 0)
		return sampler;
	if (number <= 0)
		return NULL;
	sl_sampler_init(own, sampler->mode, signal == SL_TRACES || number >= 100 ? 1 : number / 100,
			sampler->precision, sampler->seed, sampler->fail_closed);
	return own;
}

static bool read_state(enum sl_signal signal, const struct found *found,
		       struct sl_tracestate *state)
{
	return signal == SL_TRACES ? sl_tracestate_parse(found->trace_state_text, state)
				   : read_log_state(found, state);
}

double sl_sampling_excess(const struct sl_view *view, uint32_t index)
{
	static const struct sl_sampling_rule nothing; // asks for no attribute of its own
	const struct sl_bytes payload = sl_view_item_payload(view, index);
	struct sl_tracestate state;
	struct found found = {0};

	if (view->signal == SL_METRICS)
		return 0;
	walk(&nothing, view->signal, payload, (uint32_t)(payload.data - view->body.data), &found);
	return read_state(view->signal, &found, &state) && state.has_threshold
		       ? sl_threshold_excess(state.threshold)
		       : 0;
}

struct sl_sampled sl_sampling_item(const struct sl_sampling_rule *rule, struct sl_part *part,
				   uint32_t index)
{
	const struct sl_view *view = &part->request->view;
	const struct sl_item *item = &view->items[index];
	const struct sl_bytes payload = sl_view_item_payload(view, index);
	const uint32_t base = (uint32_t)(payload.data - view->body.data);
	const struct sl_sampler *sampler = sampler_of(rule, view->signal, item);
	struct sl_sampled sampled = {.verdict = SL_VERDICT_KEEP};
	struct sl_tracestate state;
	struct sl_sample sample = {0};
	struct sl_sampler own;
	struct found found = {0};
	uint8_t trace_id[16];
	bool readable;

	// Kept as it came, whatever it carries.
	if (sampler->all && !rule->priority[view->signal].size) {
		sampled.excess = sl_sampling_excess(view, index);
		return sampled;
	}
	walk(rule, view->signal, payload, base, &found);
	sampler = prioritise(sampler, view->signal, &found.priority, &own);
	if (!sampler) {
		sampled.verdict = SL_VERDICT_DROP;
		return sampled;
	}
	readable = read_state(view->signal, &found, &state);
	sampled.excess = readable && state.has_threshold ? sl_threshold_excess(state.threshold) : 0;
	if (sampler->all)
		return sampled;
	if (!readable || found.threshold.more) {
		sampled.unreadable = true;
		if (sampler->fail_closed)
			sampled.verdict = SL_VERDICT_DROP;
		return sampled;
	}
	sample.has_threshold = state.has_threshold;
	sample.threshold = state.threshold;
	sample.has_randomness = state.has_randomness;
	sample.randomness = state.randomness;
	sample.has_id = sl_view_trace_id(view, index, trace_id) &&
			memcmp(trace_id, (const uint8_t[16]){0}, 16) != 0;
	sample.id_low = item->trace_low;
	if (view->signal == SL_LOGS && rule->attribute.size)
		sample.hashed = found.attribute.type == VALUE_TEXT ? found.attribute.text
								   : SL_BYTES_NONE;
	else if (sample.has_id)
		sample.hashed = sl_bytes(trace_id, sizeof(trace_id));
	sampled.verdict = sl_sampler_decide(sampler, &sample);
	sampled.note = sample.note;
	sampled.excess = sample.has_threshold ? sl_threshold_excess(sample.threshold) : 0;
	if (sampled.verdict != SL_VERDICT_REWRITE)
		return sampled;
	state.has_threshold = sample.has_threshold;
	state.threshold = sample.threshold;
	state.has_randomness = sample.has_randomness;
	state.randomness = sample.randomness;
	sampled.no_memory = view->signal == SL_TRACES ? !write_span(part, &found, &state, base)
						      : !write_log(part, &found, &state, base);
	return sampled;
}
