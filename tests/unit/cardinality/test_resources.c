#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <stdio.h>

#include "dataplane/base/hash.h"
#include "dataplane/base/log.h"
#include "dataplane/base/random.h"
#include "tests/oracle/oracle.pb-c.h"
#include "tests/unit/cardinality/ours.h"

// Limits on the values of resources' attributes: requests made by protobuf-c, cut by a plain model
// and by us, come out alike, with a limit on how many attributes there may be beside them. And
// counters that lie in one mapping.

#define BODY_MAX      (64 * SL_KIB)
#define RESOURCES_MAX 5
#define PAIRS_MAX     4
#define SPANS_MAX     3
#define VALUES        8
#define KEYS          3

static struct sl_memory memory;

static int set_up(void **state)
{
	(void)state;
	sl_hash_seed();
	return sl_memory_init(&memory, 64 * SL_MIB);
}

static int tear_down(void **state)
{
	(void)state;
	sl_memory_fini(&memory);
	return 0;
}

struct resource {
	Oracle__ResourceSpans spans;
	Oracle__Resource about;
	Oracle__ScopeSpans scope;
	Oracle__ScopeSpans *scopes;
	Oracle__Span span[SPANS_MAX];
	Oracle__Span *list[SPANS_MAX];
	Oracle__KeyValue pairs[PAIRS_MAX];
	Oracle__Any any[PAIRS_MAX];
	Oracle__KeyValue *attributes[PAIRS_MAX];
	unsigned key[PAIRS_MAX], value[PAIRS_MAX], pair_count;
	bool lost;
};

struct body {
	struct resource resources[RESOURCES_MAX];
	unsigned count;
	uint8_t bytes[BODY_MAX + SL_BODY_SLACK];
};

static char keys[KEYS][8] = {"host", "pod", "zone"};
static char texts[VALUES][16];

static void make_body(struct body *body, struct sl_random *random)
{
	body->count = 1 + (unsigned)sl_random_below(random, RESOURCES_MAX);
	for (unsigned i = 0; i < body->count; i++) {
		struct resource *resource = &body->resources[i];

		oracle__resource_spans__init(&resource->spans);
		oracle__resource__init(&resource->about);
		oracle__scope_spans__init(&resource->scope);
		resource->spans.resource = &resource->about;
		resource->scopes = &resource->scope;
		resource->spans.scopes = &resource->scopes;
		resource->spans.n_scopes = 1;
		resource->scope.spans = resource->list;
		resource->scope.n_spans = 1 + sl_random_below(random, SPANS_MAX);
		for (unsigned j = 0; j < SPANS_MAX; j++) {
			oracle__span__init(&resource->span[j]);
			resource->span[j].name = texts[j];
			resource->list[j] = &resource->span[j];
		}
		resource->pair_count = (unsigned)sl_random_below(random, PAIRS_MAX + 1);
		resource->about.attributes = resource->attributes;
		resource->about.n_attributes = resource->pair_count;
		resource->about.dropped = (uint32_t)sl_random_below(random, 2);
		resource->lost = false;
		for (unsigned j = 0; j < resource->pair_count; j++) {
			oracle__key_value__init(&resource->pairs[j]);
			oracle__any__init(&resource->any[j]);
			resource->key[j] = (unsigned)sl_random_below(random, KEYS);
			resource->value[j] = (unsigned)sl_random_below(random, VALUES);
			resource->pairs[j].key = keys[resource->key[j]];
			resource->pairs[j].value = &resource->any[j];
			resource->any[j].value_case = ORACLE__ANY__VALUE_TEXT;
			resource->any[j].text = texts[resource->value[j]];
			resource->attributes[j] = &resource->pairs[j];
		}
	}
}

static size_t write_body(struct body *body)
{
	Oracle__Traces traces = ORACLE__TRACES__INIT;
	Oracle__ResourceSpans *list[RESOURCES_MAX];

	traces.resources = list;
	for (unsigned i = 0; i < body->count; i++)
		if (!body->resources[i].lost)
			list[traces.n_resources++] = &body->resources[i].spans;
	return oracle__traces__pack(&traces, body->bytes);
}

struct model {
	bool known[KEYS][VALUES];
	unsigned admitted[KEYS];
	uint64_t attributes, items, observed;
};

static bool is_over(struct model *model, unsigned key, unsigned value, uint64_t limit)
{
	if (model->known[key][value])
		return false;
	if (model->admitted[key] >= limit)
		return true;
	model->known[key][value] = true;
	model->admitted[key]++;
	return false;
}

// First the number of attributes, then what is left against the limits on values.
static void model_cut(struct model *model, const struct sl_cardinality_config *rules,
		      unsigned count, unsigned most, struct body *body)
{
	for (unsigned i = 0; i < body->count; i++) {
		struct resource *resource = &body->resources[i];
		size_t left = 0;

		for (unsigned j = 0; j < resource->pair_count; j++) {
			const unsigned key = resource->key[j];
			bool gone = false;

			if (most && left >= most) {
				resource->about.dropped++;
				continue;
			}
			if (key < count &&
			    is_over(model, key, resource->value[j], rules[key].limit)) {
				gone = rules[key].over != SL_OVER_OBSERVE;
				model->attributes += rules[key].over == SL_OVER_DROP_ATTRIBUTE;
				resource->lost |= rules[key].over == SL_OVER_DROP_ITEM;
				model->observed += rules[key].over == SL_OVER_OBSERVE;
			}
			if (!gone)
				resource->attributes[left++] = &resource->pairs[j];
		}
		resource->about.n_attributes = left;
		model->items += resource->lost ? resource->scope.n_spans : 0;
	}
}

static void test_as_the_model_cuts(void **state)
{
	static struct body body;
	static uint8_t out[BODY_MAX];
	struct model seen = {0};
	struct sl_random random;

	(void)state;
	for (unsigned i = 0; i < VALUES; i++)
		snprintf(texts[i], sizeof(texts[i]), "%.*s", (int)(1 + i), "abcdefghijkl");
	sl_random_init(&random, 12);
	for (unsigned round = 0; round < 400; round++) {
		struct sl_cardinality_config rules[KEYS] = {0};
		const unsigned count = 1 + (unsigned)sl_random_below(&random, KEYS);
		const unsigned most = (unsigned)sl_random_below(&random, 3);
		const struct sl_trim_limits trim = {.resource_attributes = most, .is_set = true};
		const struct sl_list list = {rules, count};
		struct sl_cardinality *cardinality;
		struct model model = {0};
		uint64_t bytes = 0;

		for (unsigned i = 0; i < count; i++)
			rules[i] = (struct sl_cardinality_config){
				.resource_attribute = keys[i],
				.limit = 1 + sl_random_below(&random, VALUES),
				.window_ns = 3600 * SL_S,
				.over = (uint32_t)sl_random_below(&random, 3),
			};
		cardinality = sl_cardinality_create(&list, NULL, &bytes, NULL);
		assert_non_null(cardinality);
		for (unsigned i = 0; i < 6; i++) {
			const struct model before = model;
			struct sl_cardinality_counts counts;
			struct ours ours;
			size_t got;

			make_body(&body, &random);
			ours_cut(&ours, &memory, sl_bytes(body.bytes, write_body(&body)), SL_TRACES,
				 cardinality, most ? &trim : NULL, &counts);
			assert_int_equal(ours.part.cut_items[SL_CUT_CARDINALITY], counts.items);
			assert_int_equal(ours.part.kept_items,
					 ours.part.offered_items - counts.items);
			got = ours_written(&ours, out);
			model_cut(&model, rules, count, most, &body);
			assert_int_equal(counts.items, model.items - before.items);
			assert_int_equal(counts.observed, model.observed - before.observed);
			assert_int_equal(counts.attributes, model.attributes - before.attributes);
			assert_int_equal(got, write_body(&body));
			assert_memory_equal(out, body.bytes, got);
		}
		seen.items += model.items;
		seen.attributes += model.attributes;
		seen.observed += model.observed;
		sl_cardinality_destroy(cardinality);
	}
	assert_true(seen.items > 500 && seen.attributes > 500 && seen.observed > 500);
}

static unsigned admitted(struct sl_distinct *distinct, unsigned count)
{
	unsigned known = 0;

	for (unsigned i = 0; i < count; i++)
		known += sl_distinct_see(distinct, sl_hash(sl_bytes(&i, sizeof(i))), 7) !=
			 SL_SEEN_OVER;
	return known;
}

// Many of one mapping count apart, one that begins anew has forgotten all, and the mapping goes
// with the last of them.
static void test_one_mapping(void **state)
{
	enum { MOST = 1000, LIMIT = 600 };
	struct sl_distinct_block block = {.most = MOST};
	static struct sl_distinct *all[MOST];
	struct sl_distinct_notes notes;

	(void)state;
	for (unsigned i = 0; i < MOST; i++) {
		all[i] = sl_distinct_create_in(&block, LIMIT, SL_S);
		assert_non_null(all[i]);
	}
	sl_distinct_block_end(&block);
	for (unsigned i = 0; i < MOST; i += 99)
		assert_int_equal(admitted(all[i], LIMIT + i), LIMIT);
	sl_distinct_note(all[99], 7, 1, SL_LITERAL("metric"), SL_LITERAL("value"));
	assert_int_equal(sl_distinct_count(all[98]).admitted, 0);
	sl_distinct_reset(all[99]);
	assert_int_equal(sl_distinct_count(all[99]).admitted, 0);
	assert_true(sl_distinct_notes(all[99], &notes));
	assert_int_equal(notes.sample_count + notes.name_count, 0);
	assert_int_equal(admitted(all[99], 10), 10);
	assert_int_equal(sl_distinct_count(all[99]).admitted, 10);
	assert_int_equal(sl_distinct_count(all[0]).admitted, LIMIT);
	for (unsigned i = 0; i < MOST; i++)
		sl_distinct_put(all[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_the_model_cuts),
		cmocka_unit_test(test_one_mapping),
	};

	sl_log_set_level(SL_LOG_ERROR);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
