#include "tenants/cardinality/cut.h"

#include <stdio.h>

#include "dataplane/base/hash.h"
#include "dataplane/base/log.h"

// Fields of opentelemetry-proto (reference: otlp.md).
enum {
	METRIC_NAME = 1,
	SCOPE_SCOPE = 1,
	LENGTH_DELIMITED = 2,
};

struct pass {
	const struct sl_cardinality *cardinality; // NULL: none
	const struct sl_trim_limits *trim;        // NULL: none
	bool trims_items;                         // else only what is around them
	bool edited;                              // by somebody before us
	struct sl_part *part;
	const struct sl_view *view;
	uint64_t now_ns;
	struct sl_cardinality_counts *counts;
	uint32_t windows[SL_CARDINALITY_RULES_MAX];
	bool series, attributes;   // somebody asks for them
	bool items;                // somebody asks for items
	bool resources;            // or for their resources' attributes
	bool lost;                 // the resource at work has one that is over: all in it goes
	uint64_t lost_hash;        // attributes that were cut out of it: its series have them not
	uint32_t resource, metric; // whose hashes these are; SL_TOP: none yet
	uint64_t resource_hash, metric_hash;
	struct sl_bytes metric_name;
};

static const struct sl_trim_limits no_trim;

// --- telling -------------------------------------------------------------------------------------

static void tell(const struct pass *pass, const struct sl_cardinality_rule *rule, unsigned which)
{
	const struct sl_part *part = pass->part;

	char kind[32];

	if (!sl_distinct_tell(rule->distinct, pass->windows[which]))
		return;
	snprintf(kind, sizeof(kind), "%s%s", sl_cardinality_kind(rule), rule->key_bytes ? "=" : "");
	sl_log(SL_LOG_WARN, "cardinality_exceeded", "tenant=%.*s %s%.*s limit=%llu window_s=%llu",
	       (int)part->tenant_name.size, part->tenant_name.data, kind, (int)rule->key_bytes,
	       rule->key, (unsigned long long)rule->distinct->limit,
	       (unsigned long long)(rule->distinct->window_ns / SL_S));
}

static void explain(struct sl_part *part, const struct sl_cardinality_rule *rule)
{
	char text[SL_TENANT_NAME_MAX + SL_CARDINALITY_KEY_MAX + 96];
	int size;

	if (part->cut_message.size)
		return;
	size = snprintf(text, sizeof(text), "Tenant %.*s has more than %llu %s%.*s in %llu s.",
			(int)part->tenant_name.size, part->tenant_name.data,
			(unsigned long long)rule->distinct->limit,
			!rule->key_bytes ? "metric series"
			: rule->resource ? "values of resources' "
					 : "values of ",
			(int)rule->key_bytes, rule->key,
			(unsigned long long)(rule->distinct->window_ns / SL_S));
	part->cut_message = sl_arena_copy(&part->request->arena, sl_bytes(text, (size_t)size));
}

static struct sl_bytes value_of(const struct sl_any *any, char number[32])
{
	if (any->type == SL_ANY_STRING)
		return any->text;
	if (any->type == SL_ANY_INT)
		return sl_bytes(number, (size_t)snprintf(number, 32, "%lld", (long long)any->bits));
	return SL_LITERAL("(no text)");
}

// Whether what has that hash is one too many. `value`: an attribute's, written out only to be
// noted; NULL: a series.
static bool is_over(struct pass *pass, unsigned which, uint64_t hash, const struct sl_any *value)
{
	const struct sl_cardinality_rule *rule = &pass->cardinality->rules[which];
	const struct sl_bytes name = rule->key_bytes ? SL_BYTES_NONE : pass->metric_name;
	const enum sl_seen seen = sl_distinct_see(rule->distinct, hash, pass->windows[which]);
	char number[32];

	if (SL_LIKELY(seen == SL_SEEN_KNOWN))
		return false;
	if (seen == SL_SEEN_OVER || name.data)
		sl_distinct_note(rule->distinct, pass->windows[which], hash, name,
				 value && seen == SL_SEEN_OVER ? value_of(value, number)
							       : SL_BYTES_NONE);
	if (seen == SL_SEEN_NEW)
		return false;
	tell(pass, rule, which);
	if (rule->over == SL_OVER_OBSERVE) {
		pass->counts->observed++;
		return false;
	}
	__atomic_fetch_add(&rule->distinct->cut, 1, __ATOMIC_RELAXED);
	return true;
}

// --- series --------------------------------------------------------------------------------------

// The sum over the attributes: their order says nothing.
static uint64_t hash_resource(const struct sl_view *view, uint32_t resource)
{
	struct sl_attributes walk = sl_view_attributes(view, resource);
	struct sl_bytes key;
	struct sl_any any;
	uint64_t sum = 0;

	while (sl_attributes_next(&walk, &key, &any))
		sum += sl_hash(walk.pair.data);
	return sum;
}

static struct sl_bytes first_field(struct sl_bytes payload, uint32_t number)
{
	struct sl_wire_field field;
	uint32_t offset = 0;

	while (sl_wire_next(payload, &offset, &field))
		if (field.number == number && field.wire_type == LENGTH_DELIMITED)
			return field.data;
	return SL_LITERAL("");
}

// Hashes what the item is in, once for all of its neighbours.
static void enter_metric(struct pass *pass, uint32_t index)
{
	const struct sl_view *view = pass->view;
	uint32_t metric = pass->view->items[index].envelope, scope, resource;
	struct sl_bytes about;

	while (view->envelopes[metric].kind != SL_ENVELOPE_METRIC)
		metric = view->envelopes[metric].parent;
	if (metric == pass->metric)
		return;
	scope = view->envelopes[metric].parent;
	resource = view->envelopes[scope].parent;
	if (resource != pass->resource) {
		pass->resource = resource;
		pass->resource_hash = hash_resource(view, resource) - pass->lost_hash;
	}
	pass->metric = metric;
	pass->metric_name = first_field(sl_view_envelope_payload(view, metric), METRIC_NAME);
	about = first_field(sl_view_envelope_payload(view, scope), SCOPE_SCOPE);
	pass->metric_hash = pass->resource_hash + 3 * sl_hash(pass->metric_name) +
			    5 * sl_hash(about);
}

static uint64_t mix(uint64_t a, uint64_t b)
{
	const uint64_t both[2] = {a, b};

	return sl_hash(sl_bytes(both, sizeof(both)));
}

// --- items ---------------------------------------------------------------------------------------

enum fate { FATE_KEEP, FATE_CUT, FATE_DROP, FATE_NO_MEMORY };

// One attribute against all rules that are for it. CUT: it has to go.
static enum fate judge_pair(struct pass *pass, struct sl_bytes pair, bool resource)
{
	const struct sl_cardinality *cardinality = pass->cardinality;
	const uint8_t signal = (uint8_t)(1u << pass->view->signal);
	struct sl_bytes key;
	struct sl_any any;

	sl_wire_key_value(pair, &key, &any);
	for (unsigned i = 0; i < cardinality->count; i++) {
		const struct sl_cardinality_rule *rule = &cardinality->rules[i];

		if (!rule->key_bytes || rule->resource != resource || !(rule->signals & signal) ||
		    !sl_bytes_equal(key, sl_bytes(rule->key, rule->key_bytes)) ||
		    !is_over(pass, i, sl_hash(pair), &any))
			continue;
		if (rule->over == SL_OVER_DROP_ITEM) {
			explain(pass->part, rule);
			return FATE_DROP;
		}
		pass->counts->attributes++;
		return FATE_CUT;
	}
	return FATE_KEEP;
}

// Counted by all rules for series until one is over: an hour's and a day's limit stand together.
static enum fate judge_series(struct pass *pass, uint32_t index, uint64_t attributes)
{
	const struct sl_cardinality *cardinality = pass->cardinality;
	uint64_t hash;

	enter_metric(pass, index);
	hash = mix(pass->metric_hash, attributes);
	for (unsigned i = 0; i < cardinality->count; i++) {
		const struct sl_cardinality_rule *rule = &cardinality->rules[i];

		if (rule->key_bytes || !is_over(pass, i, hash, NULL))
			continue;
		explain(pass->part, rule);
		return FATE_DROP;
	}
	return FATE_KEEP;
}

// An item's attribute against everything; what is left of it goes into the series' `sum`.
static enum fate judge_attribute(struct pass *pass, struct sl_trim *trim, uint32_t at,
				 const struct sl_wire_field *field, uint64_t *sum)
{
	struct sl_bytes pair = field->data, put = SL_BYTES_NONE;
	enum fate fate = FATE_KEEP;

	if (trim->limits) {
		const enum sl_trimmed trimmed = sl_trim_pair(trim, at, field, &pair, &put);

		if (trimmed != SL_TRIM_KEPT)
			return trimmed == SL_TRIM_DROPPED ? FATE_CUT : FATE_NO_MEMORY;
	}
	if (pass->attributes)
		fate = judge_pair(pass, pair, false);
	if (fate == FATE_CUT && sl_edits_add(&pass->part->edits, &pass->part->request->arena, at,
					     field->bytes, SL_BYTES_NONE))
		return FATE_NO_MEMORY;
	if (fate != FATE_KEEP)
		return fate;
	if (pass->series)
		*sum += sl_hash(pair);
	return !trim->limits || sl_trim_keep(trim, at, field->bytes, put) ? FATE_KEEP
									  : FATE_NO_MEMORY;
}

static enum fate judge_item(struct pass *pass, uint32_t index)
{
	const struct sl_bytes payload = sl_view_item_payload(pass->view, index);
	const uint32_t base = (uint32_t)(payload.data - pass->view->body.data);
	const struct sl_item *item = &pass->view->items[index];
	const struct sl_trim_shape *shape = sl_trim_item(
		pass->view->signal, pass->view->envelopes[item->envelope].field);
	struct sl_trim trim = {.limits = pass->trims_items ? pass->trim : NULL,
			       .shape = shape,
			       .part = pass->part,
			       .counts = &pass->counts->trimmed};
	struct sl_wire_field field;
	uint32_t offset = 0;
	uint64_t sum = 0;

	trim.most = pass->trims_items ? pass->trim->attributes : 0;
	while (sl_wire_next(payload, &offset, &field)) {
		enum fate fate;

		if (field.number != shape->attributes || field.wire_type != LENGTH_DELIMITED) {
			if (trim.limits && !sl_trim_field(&trim, base, &field))
				return FATE_NO_MEMORY;
			continue;
		}
		fate = judge_attribute(pass, &trim, base + field.at, &field, &sum);
		if (fate == FATE_DROP || fate == FATE_NO_MEMORY)
			return fate;
	}
	if (trim.limits && !sl_trim_end(&trim))
		return FATE_NO_MEMORY;
	return pass->series ? judge_series(pass, index, sum) : FATE_KEEP;
}

// Takes an item out; false: no memory.
static bool lose_item(struct pass *pass, uint32_t index)
{
	struct sl_part *part = pass->part;

	if (!sl_part_own_keep(part))
		return false;
	part->keep[index / 64] &= ~(UINT64_C(1) << (index % 64));
	pass->counts->items++;
	return true;
}

// False: no memory.
static bool hold_item(struct pass *pass, uint32_t index)
{
	const struct sl_trim_counts before = pass->counts->trimmed;
	struct sl_part *part = pass->part;
	enum fate fate;

	if (!sl_keep_has(part->keep, index))
		return true;
	fate = judge_item(pass, index);
	if (SL_LIKELY(fate == FATE_KEEP))
		return true;
	pass->counts->trimmed = before; // of what is lost, nothing was trimmed
	return fate != FATE_NO_MEMORY && lose_item(pass, index);
}

// --- envelopes -----------------------------------------------------------------------------------

// A Resource or scope in the envelope's own fields: those before its children, or those behind. So
// edits come in the body's order, each to the end of the list.
static bool trim_about(struct pass *pass, struct sl_trim *trim, uint32_t index, bool behind)
{
	const struct sl_envelope *envelope = &pass->view->envelopes[index];
	const struct sl_bytes payload = sl_view_envelope_payload(pass->view, index);
	const uint32_t base = (uint32_t)(payload.data - pass->view->body.data);
	const bool dense = envelope->flags & SL_ENVELOPE_DENSE;
	uint32_t offset = 0;
	struct sl_wire_field field;

	if (behind)
		offset = (dense ? envelope->children_end : envelope->children_at) - base;
	while (sl_wire_next(payload, &offset, &field)) {
		if (!behind && base + field.at >= envelope->children_at)
			break;
		if (field.number == SCOPE_SCOPE && field.wire_type == LENGTH_DELIMITED &&
		    !sl_trim_message(trim, base + field.at, &field))
			return false;
	}
	return true;
}

// A resource's attribute. False: it has to go, or all that is in the resource has.
static bool judge_resource(void *self, struct sl_bytes pair, struct sl_bytes whole)
{
	struct pass *pass = self;
	const enum fate fate = judge_pair(pass, pair, true);

	pass->lost |= fate == FATE_DROP;
	if (fate == FATE_CUT)
		pass->lost_hash += sl_hash(whole);
	return fate == FATE_KEEP;
}

// What is left of it goes. False: no memory.
static bool lose_resource(struct pass *pass, const struct sl_envelope *envelope,
			  const struct sl_trim_counts *before)
{
	const uint32_t end = envelope->first_item + envelope->item_count;

	if (SL_LIKELY(!pass->lost))
		return true;
	pass->counts->trimmed = *before;
	for (uint32_t i = envelope->first_item; i < end; i++)
		if (sl_keep_has(pass->part->keep, i) && !lose_item(pass, i))
			return false;
	return true;
}

// Whether some of its items are the part's.
static bool is_ours(const struct pass *pass, const struct sl_envelope *envelope)
{
	uint32_t i = envelope->first_item;
	const uint32_t end = i + envelope->item_count;

	while (i < end && !sl_keep_has(pass->part->keep, i))
		i++;
	return i < end;
}

// An envelope with all that is in it, at most four deep. `*next` goes to the one behind it. False:
// no memory. A Resource behind its items (nobody writes one so) is judged after they were: its
// series are then those of all of it.
static bool hold_envelope(struct pass *pass, uint32_t *next)
{
	const struct sl_view *view = pass->view;
	const uint32_t index = (*next)++;
	const struct sl_envelope *envelope = &view->envelopes[index];
	const bool resource = envelope->kind == SL_ENVELOPE_RESOURCE;
	const bool judged = resource && pass->resources;
	const bool about = (judged ||
			    (pass->trim && (resource || envelope->kind == SL_ENVELOPE_SCOPE))) &&
			   is_ours(pass, envelope);
	const struct sl_trim_counts before = pass->counts->trimmed;
	struct sl_trim trim = {.limits = pass->trim ? pass->trim : &no_trim,
			       .shape = resource ? &sl_trim_resource : &sl_trim_scope,
			       .part = pass->part,
			       .counts = &pass->counts->trimmed,
			       .edited = pass->edited,
			       .judge = judged ? judge_resource : NULL,
			       .judge_self = pass};
	const uint32_t end = envelope->first_item + envelope->item_count;

	if (resource)
		pass->lost = false, pass->lost_hash = 0;
	if (about)
		trim.most = resource ? trim.limits->resource_attributes
				     : trim.limits->scope_attributes;
	if (about &&
	    (!trim_about(pass, &trim, index, false) || !lose_resource(pass, envelope, &before)))
		return false;
	if (*next == view->envelope_count || view->envelopes[*next].parent != index)
		for (uint32_t i = envelope->first_item; pass->items && i < end; i++)
			if (!hold_item(pass, i))
				return false;
	while (*next < view->envelope_count && view->envelopes[*next].parent == index)
		if (!hold_envelope(pass, next))
			return false;
	return !about ||
	       (trim_about(pass, &trim, index, true) && lose_resource(pass, envelope, &before));
}

static void prepare(struct pass *pass)
{
	const struct sl_cardinality *cardinality = pass->cardinality;
	const uint8_t signal = (uint8_t)(1u << pass->view->signal);

	pass->trims_items = pass->trim && (pass->view->signal != SL_METRICS || pass->trim->points);
	for (unsigned i = 0; cardinality && i < cardinality->count; i++) {
		const struct sl_cardinality_rule *rule = &cardinality->rules[i];

		pass->windows[i] = sl_distinct_window(rule->distinct, pass->now_ns);
		if (!(rule->signals & signal))
			continue;
		if (rule->resource)
			pass->resources = true;
		else if (rule->key_bytes)
			pass->attributes = true;
		else
			pass->series = true;
	}
	pass->items = pass->trims_items || pass->attributes || pass->series;
}

bool sl_cardinality_cut(const struct sl_cardinality *cardinality, const struct sl_trim_limits *trim,
			struct sl_part *part, uint64_t now_ns, struct sl_cardinality_counts *counts)
{
	struct pass pass = {
		.cardinality = cardinality,
		.trim = trim,
		.part = part,
		.view = &part->request->view,
		.edited = part->edits.count > 0,
		.now_ns = now_ns,
		.counts = counts,
		.resource = SL_TOP,
		.metric = SL_TOP,
	};

	*counts = (struct sl_cardinality_counts){0};
	prepare(&pass);
	for (uint32_t next = 0; next < pass.view->envelope_count;)
		if (!hold_envelope(&pass, &next))
			return false;
	part->cut_items[SL_CUT_CARDINALITY] = (uint32_t)counts->items;
	part->kept_items -= (uint32_t)counts->items;
	return true;
}
