#include "sampling/sampling.h"

#include <stdlib.h>

#include "dataplane/base/glob.h"
#include "sampling/counters.h"
#include "sampling/item.h"
#include "sampling/rules.h"

#define SL_COUNTER_STRUCT_ struct sl_sampling_counters
SL_COUNTER_ROWS(sampling, SL_SAMPLING_COUNTERS)

struct sl_sampling_shard {
	struct sl_sampling_counters counters; // writer: this shard
	const struct sl_sampling *sampling;   // of this turn
	struct sl_metrics *metrics;
};

struct sl_sampling_shard *sl_sampling_shard_create(uint32_t shard, struct sl_metrics *metrics)
{
	struct sl_sampling_shard *self = calloc(1, sizeof(*self));

	if (!self)
		return NULL;
	if (sl_metrics_add(metrics, sl_sampling_counter_rows, sl_sampling_counter_row_count,
			   &self->counters, (int)shard, NULL)) {
		free(self);
		return NULL;
	}
	self->metrics = metrics;
	return self;
}

void sl_sampling_shard_destroy(struct sl_sampling_shard *self)
{
	if (!self)
		return;
	sl_metrics_remove(self->metrics, &self->counters);
	free(self);
}

void sl_sampling_shard_turn(struct sl_sampling_shard *self, const struct sl_sampling *sampling)
{
	self->sampling = sampling;
}

// One part on its way through its rules; counted only when it got through.
struct pass {
	struct sl_part *part;
	const struct sl_item *items;
	const struct sl_sampling_rule *field_of; // whose field is copied to the arena
	struct sl_bytes field;
	uint64_t dropped, without_id, inconsistent, unreadable;
	double excess; // what its kept items stand for beyond themselves
};

static bool rule_is_for(const struct sl_sampling_rule *rule, const struct sl_part *part)
{
	return rule->signals[part->request->signal] &&
	       (!rule->tenant.size || sl_glob_match(rule->tenant, part->tenant_name)) &&
	       (!rule->class_name.size ||
		sl_glob_match(rule->class_name, sl_bytes_of(part->class_name)));
}

// What rests on the view alone: spans of a consistent mode, without a state of their own.
static bool is_plain(const struct sl_sampling_rule *rule, enum sl_signal signal)
{
	return signal == SL_TRACES && rule->rate.mode != SL_SAMPLING_HASH_SEED &&
	       !rule->priority[signal].size;
}

// An explicit empty trace_state behind the ids would override one that is inserted before it; the
// view does not tell it from none. Fields are in order here, or the item were GENERAL.
static bool state_follows(const uint8_t *span, uint32_t at, uint32_t end)
{
	if (at + 1 < end && span[at] == (2 << 3 | 2)) {
		if (span[at + 1] >= 0x80)
			return true;
		at += 2u + span[at + 1];
	}
	return at < end && (span[at] == (3 << 3 | 2) || span[at] >= 0x80);
}

// The field that all plain spans of a rule share, where it lives as long as the request.
static bool copy_field(struct pass *pass, const struct sl_sampling_rule *rule)
{
	if (pass->field_of == rule)
		return true;
	pass->field = sl_arena_copy(&pass->part->request->arena,
				    sl_bytes(rule->field, rule->field_bytes));
	pass->field_of = rule;
	return pass->field.data != NULL;
}

// Decides one item closely. Returns false when the budget is spent.
static bool look_closely(struct pass *pass, const struct sl_sampling_rule *rule, uint32_t index,
			 bool *kept)
{
	const struct sl_sampled sampled = sl_sampling_item(rule, pass->part, index);

	if (sampled.no_memory)
		return false;
	pass->without_id += sampled.note == SL_SAMPLE_NO_RANDOMNESS;
	pass->inconsistent += sampled.note == SL_SAMPLE_INCONSISTENT;
	pass->unreadable += sampled.unreadable;
	*kept = sampled.verdict != SL_VERDICT_DROP;
	if (*kept)
		pass->excess += sampled.excess;
	return true;
}

// The kept of one word of `keep`: a threshold to write into each, or a closer look.
static bool settle_word(struct pass *pass, const struct sl_sampling_rule *rule, uint32_t word,
			uint64_t kept, uint64_t close)
{
	struct sl_part *part = pass->part;
	const uint8_t *body = part->request->view.body.data;

	// In order of the body, so that each edit goes to the end of the list.
	for (uint64_t left = kept; left; left &= left - 1) {
		const unsigned bit = (unsigned)__builtin_ctzl(left);
		const uint32_t index = word * 64 + bit;
		const struct sl_item *item = &pass->items[index];
		const uint32_t behind_id = item->trace_at + 16u;

		if (close >> bit & 1 || state_follows(body + item->at, behind_id, item->bytes)) {
			bool keep;

			if (!look_closely(pass, rule, index, &keep))
				return false;
			if (!keep) {
				part->keep[word] &= ~(UINT64_C(1) << bit);
				pass->dropped++;
			}
			continue;
		}
		if (!copy_field(pass, rule) || sl_edits_add(&part->edits, &part->request->arena,
							    item->at + behind_id, 0, pass->field))
			return false;
		pass->excess += rule->rate.excess;
	}
	return true;
}

// What a rule asks of plain items, in registers.
struct asked {
	uint64_t threshold;
	uint32_t slower_us; // a closer look beyond; UINT32_MAX: never
	uint32_t status;    // a closer look at this one; UINT32_MAX: never
};

static struct asked asked_by(const struct sl_sampling_rule *rule)
{
	struct asked asked = {rule->rate.threshold, UINT32_MAX, UINT32_MAX};

	for (uint32_t i = 0; i < rule->keep_count; i++) {
		if (rule->keeps[i].error)
			asked.status = 2;
		if (rule->keeps[i].slower_than_us)
			asked.slower_us = SL_MIN(asked.slower_us, rule->keeps[i].slower_than_us);
	}
	return asked;
}

SL_INLINE uint32_t needs_look(const struct sl_item *item, const struct asked *asked, bool keeps)
{
	uint32_t look = (item->flags & (SL_ITEM_HAS_TRACE_STATE | SL_ITEM_GENERAL)) |
			(uint32_t)(item->trace_at == SL_TRACE_AT_UNKNOWN) |
			(uint32_t)(item->trace_low == 0);

	if (keeps)
		look |= (uint32_t)(item->status == asked->status) |
			(uint32_t)(item->duration_us > asked->slower_us);
	return look;
}

// Up to 64 items at once, without a branch: a bit for each whose randomness reaches the threshold,
// and in `close` (found in a second loop, since there is rarely one) for each to look at.
SL_INLINE uint64_t decide_word(const struct sl_item *items, uint32_t count,
			       const struct asked *asked, bool keeps, uint64_t *close)
{
	uint64_t above = 0;
	uint32_t any = 0;

	for (uint32_t i = 0; i < count; i++) {
		above |= (uint64_t)((items[i].trace_low & SL_RANDOMNESS_MASK) >= asked->threshold)
			 << i;
		any |= needs_look(&items[i], asked, keeps);
	}
	*close = 0;
	for (uint32_t i = 0; any && i < count; i++)
		*close |= (uint64_t)(needs_look(&items[i], asked, keeps) != 0) << i;
	return above;
}

// Applies a rule to items [first, end). Returns false when the budget is spent.
static bool sample(struct pass *pass, const struct sl_sampling_rule *rule, uint32_t first,
		   uint32_t end)
{
	const bool plain = is_plain(rule, pass->part->request->signal);
	const struct asked asked = asked_by(rule);
	uint64_t *keep = pass->part->keep;

	while (first < end) {
		const uint32_t word = first / 64, low = first % 64;
		const uint32_t count = SL_MIN(64 - low, end - first);
		const uint64_t mask = (count == 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1)
				      << low;
		const uint64_t candidates = keep[word] & mask;
		uint64_t above = 0, close = UINT64_MAX, kept;

		if (!candidates) { // another tenant's
			first += count;
			continue;
		}
		if (plain && rule->keep_count)
			above = decide_word(&pass->items[first], count, &asked, true, &close);
		else if (plain)
			above = decide_word(&pass->items[first], count, &asked, false, &close);
		close = close << low & candidates;
		kept = close | (above << low & candidates);
		pass->dropped += (uint64_t)__builtin_popcountl(candidates & ~kept);
		keep[word] = (keep[word] & ~mask) | kept;
		if (!settle_word(pass, rule, word, kept, close))
			return false;
		first += count;
	}
	return true;
}

// The rules that are for the part's tenant and signal, up to the first that asks for no service.
static uint32_t find_rules(const struct sl_sampling_set *set, const struct sl_part *part,
			   const struct sl_sampling_rule *rules[SL_SAMPLING_RULES_MAX + 1])
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < set->count; i++) {
		if (!rule_is_for(&set->rules[i], part))
			continue;
		rules[count++] = &set->rules[i];
		if (!rules[count - 1]->service.size)
			break;
	}
	return count;
}

// Items that no rule looked at: spans that were sampled before say so. Of log records it would
// take a walk over each, which only rules are worth.
static double excess_of(const struct sl_part *part, uint32_t first, uint32_t end)
{
	const struct sl_view *view = &part->request->view;
	const uint8_t states = SL_ITEM_HAS_TRACE_STATE | SL_ITEM_GENERAL;
	uint8_t any = 0;
	double excess = 0;

	if (view->signal != SL_TRACES)
		return 0;
	for (uint32_t i = first; i < end; i++)
		any |= view->items[i].flags;
	for (uint32_t i = first; any & states && i < end; i++)
		if (view->items[i].flags & states && sl_keep_has(part->keep, i))
			excess += sl_sampling_excess(view, i);
	return excess;
}

// A part's estimate is one of many: half of 1/256 item does not show.
static void set_adjusted(struct sl_part *part, double excess)
{
	part->adjusted_q8 = (uint64_t)(SL_MIN(excess, 0x1p50) * 256 + 0.5);
}

static bool sample_resources(struct pass *pass, const struct sl_sampling_rule *const *rules,
			     uint32_t count)
{
	const struct sl_view *view = &pass->part->request->view;

	for (uint32_t i = 0; i < view->envelope_count; i++) {
		const struct sl_envelope *resource = &view->envelopes[i];
		const uint32_t end = resource->first_item + resource->item_count;
		struct sl_bytes service = SL_BYTES_NONE;
		uint32_t j = 0;

		if (resource->kind != SL_ENVELOPE_RESOURCE || !resource->item_count)
			continue;
		sl_view_resource_attribute(view, i, SL_LITERAL("service.name"), &service);
		while (j < count && rules[j]->service.size &&
		       !sl_glob_match(rules[j]->service, service))
			j++;
		if (j == count || rules[j]->rate.all)
			pass->excess += excess_of(pass->part, resource->first_item, end);
		else if (!sample(pass, rules[j], resource->first_item, end))
			return false;
	}
	return true;
}

// Returns false when the budget is spent.
static bool sample_part(struct sl_sampling_shard *self, struct sl_part *part)
{
	const struct sl_sampling_set *set = &self->sampling->sets[part->thinning];
	const struct sl_sampling_rule *rules[SL_SAMPLING_RULES_MAX + 1];
	const uint32_t count = find_rules(set, part, rules);
	const enum sl_signal signal = part->request->signal;
	const bool had_keep = part->keep != NULL;
	struct pass pass = {.part = part, .items = part->request->view.items};
	bool done;

	if (!count || (!rules[0]->service.size && rules[0]->rate.all)) {
		set_adjusted(part, excess_of(part, 0, part->request->view.item_count));
		return true;
	}
	if (!sl_part_own_keep(part))
		return false;
	done = rules[0]->service.size ? sample_resources(&pass, rules, count)
				      : sample(&pass, rules[0], 0, part->request->view.item_count);
	if (!done)
		return false;
	if (!pass.dropped && !had_keep)
		part->keep = NULL;
	set_adjusted(part, pass.excess);
	assert(pass.dropped <= part->kept_items);
	part->kept_items -= (uint32_t)pass.dropped;
	sl_count(&self->counters.sampled_out[signal], pass.dropped);
	sl_count(&self->counters.without_id[signal], pass.without_id);
	sl_count(&self->counters.inconsistent[signal], pass.inconsistent);
	sl_count(&self->counters.unreadable[signal], pass.unreadable);
	return true;
}

void sl_sampling_stage(void *state, struct sl_batch *batch)
{
	struct sl_sampling_shard *self = state;
	const uint16_t offered = batch->count;
	uint16_t kept = 0;

	assert(offered <= SL_BATCH_MAX);
	if (!self->sampling)
		return;
	for (uint16_t i = 0; i < offered; i++) {
		struct sl_part *part = batch->parts[i];

		if (sample_part(self, part))
			batch->parts[kept++] = part;
		else
			sl_batch_refuse(batch, part, SL_REASON_MEMORY_FULL, SL_S);
	}
	batch->count = kept;
}
