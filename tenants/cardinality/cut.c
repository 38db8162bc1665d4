#include "tenants/cardinality/cut.h"

#include <stdio.h>

#include "dataplane/base/hash.h"
#include "dataplane/base/log.h"

// Fields of opentelemetry-proto (reference: otlp.md).
enum {
	SPAN_ATTRIBUTES = 9,
	LOG_ATTRIBUTES = 6,
	METRIC_NAME = 1,
	SCOPE_SCOPE = 1,
	LENGTH_DELIMITED = 2,
};

struct pass {
	const struct sl_cardinality *cardinality;
	struct sl_part *part;
	const struct sl_view *view;
	uint64_t now_ns;
	struct sl_cardinality_counts *counts;
	uint32_t windows[SL_CARDINALITY_RULES_MAX];
	bool series, attributes;   // somebody asks for them
	uint32_t resource, metric; // whose hashes these are; SL_TOP: none yet
	uint64_t resource_hash, metric_hash;
	struct sl_bytes metric_name;
};

// Where data points of a Metric's kind have their attributes.
static uint32_t point_attributes(uint8_t field)
{
	switch (field) {
	case 9: // histogram
		return 9;
	case 10: // exponential histogram
		return 1;
	default: // gauge, sum, summary
		return 7;
	}
}

static uint32_t attributes_field(const struct sl_view *view, uint32_t index)
{
	if (view->signal == SL_TRACES)
		return SPAN_ATTRIBUTES;
	if (view->signal == SL_LOGS)
		return LOG_ATTRIBUTES;
	return point_attributes(view->envelopes[view->items[index].envelope].field);
}

// --- telling -------------------------------------------------------------------------------------

static void tell(const struct pass *pass, const struct sl_cardinality_rule *rule, unsigned which)
{
	const struct sl_part *part = pass->part;

	if (!sl_distinct_tell(rule->distinct, pass->windows[which]))
		return;
	sl_log(SL_LOG_WARN, "cardinality_exceeded", "tenant=%.*s %s%.*s limit=%llu window_s=%llu",
	       (int)part->tenant_name.size, part->tenant_name.data,
	       rule->key_bytes ? "attribute=" : "series", (int)rule->key_bytes, rule->key,
	       (unsigned long long)rule->distinct->limit,
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
			rule->key_bytes ? "values of " : "metric series", (int)rule->key_bytes,
			rule->key, (unsigned long long)(rule->distinct->window_ns / SL_S));
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
		pass->resource_hash = hash_resource(view, resource);
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

// One attribute against all rules that are for it. CUT: it is gone.
static enum fate judge_pair(struct pass *pass, struct sl_bytes pair, uint32_t at, uint32_t bytes)
{
	const struct sl_cardinality *cardinality = pass->cardinality;
	const uint8_t signal = (uint8_t)(1u << pass->view->signal);
	struct sl_bytes key;
	struct sl_any any;

	sl_wire_key_value(pair, &key, &any);
	for (unsigned i = 0; i < cardinality->count; i++) {
		const struct sl_cardinality_rule *rule = &cardinality->rules[i];

		if (!rule->key_bytes || !(rule->signals & signal) ||
		    !sl_bytes_equal(key, sl_bytes(rule->key, rule->key_bytes)) ||
		    !is_over(pass, i, sl_hash(pair), &any))
			continue;
		if (rule->over == SL_OVER_DROP_ITEM) {
			explain(pass->part, rule);
			return FATE_DROP;
		}
		if (sl_edits_add(&pass->part->edits, &pass->part->request->arena, at, bytes,
				 SL_BYTES_NONE))
			return FATE_NO_MEMORY;
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

static enum fate judge_item(struct pass *pass, uint32_t index)
{
	const struct sl_bytes payload = sl_view_item_payload(pass->view, index);
	const uint32_t base = (uint32_t)(payload.data - pass->view->body.data);
	const uint32_t number = attributes_field(pass->view, index);
	struct sl_wire_field field;
	uint32_t offset = 0;
	uint64_t sum = 0;

	while (sl_wire_next(payload, &offset, &field)) {
		enum fate fate = FATE_KEEP;

		if (field.number != number || field.wire_type != LENGTH_DELIMITED)
			continue;
		if (pass->attributes)
			fate = judge_pair(pass, field.data, base + field.at, field.bytes);
		if (fate == FATE_DROP || fate == FATE_NO_MEMORY)
			return fate;
		if (pass->series && fate == FATE_KEEP)
			sum += sl_hash(field.data);
	}
	return pass->series ? judge_series(pass, index, sum) : FATE_KEEP;
}

static void prepare(struct pass *pass)
{
	const struct sl_cardinality *cardinality = pass->cardinality;
	const uint8_t signal = (uint8_t)(1u << pass->view->signal);

	for (unsigned i = 0; i < cardinality->count; i++) {
		const struct sl_cardinality_rule *rule = &cardinality->rules[i];

		pass->windows[i] = (uint32_t)(pass->now_ns / rule->distinct->window_ns);
		if (!(rule->signals & signal))
			continue;
		if (rule->key_bytes)
			pass->attributes = true;
		else
			pass->series = true;
	}
}

bool sl_cardinality_cut(const struct sl_cardinality *cardinality, struct sl_part *part,
			uint64_t now_ns, struct sl_cardinality_counts *counts)
{
	struct pass pass = {
		.cardinality = cardinality,
		.part = part,
		.view = &part->request->view,
		.now_ns = now_ns,
		.counts = counts,
		.resource = SL_TOP,
		.metric = SL_TOP,
	};

	*counts = (struct sl_cardinality_counts){0};
	prepare(&pass);
	for (uint32_t i = 0; i < pass.view->item_count; i++) {
		enum fate fate;

		if (!sl_keep_has(part->keep, i))
			continue;
		fate = judge_item(&pass, i);
		if (SL_LIKELY(fate == FATE_KEEP))
			continue;
		if (fate == FATE_NO_MEMORY || !sl_part_own_keep(part))
			return false;
		part->keep[i / 64] &= ~(UINT64_C(1) << (i % 64));
		counts->items++;
	}
	part->cut_items[SL_CUT_CARDINALITY] = (uint32_t)counts->items;
	part->kept_items -= (uint32_t)counts->items;
	return true;
}
