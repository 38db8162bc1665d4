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

// Requests made, changed and written by protobuf-c, and the same cut by us: both come out alike,
// for random values, limits and ways to be over.

#define BODY_MAX  (64 * SL_KIB)
#define ITEMS_MAX 24
#define PAIRS_MAX 4
#define VALUES    12
#define KEYS      3

static struct sl_memory memory;

static int set_up(void **state)
{
	(void)state;
	return sl_memory_init(&memory, 64 * SL_MIB);
}

static int tear_down(void **state)
{
	(void)state;
	sl_memory_fini(&memory);
	return 0;
}

// --- a request of protobuf-c's -------------------------------------------------------------------

struct pair {
	Oracle__KeyValue pair;
	Oracle__Any any;
	unsigned key, value;
};

struct item {
	struct pair pairs[PAIRS_MAX];
	Oracle__KeyValue *list[PAIRS_MAX];
	size_t count;
	Oracle__Span span;
	Oracle__LogRecord record;
};

struct body {
	struct item items[ITEMS_MAX];
	unsigned count;
	Oracle__Span *spans[ITEMS_MAX];
	Oracle__LogRecord *records[ITEMS_MAX];
	uint8_t bytes[BODY_MAX + SL_BODY_SLACK];
};

static char keys[KEYS][8] = {"user.id", "path", "zone"};
static char texts[VALUES][16];

static void make_items(struct body *body, struct sl_random *random)
{
	body->count = 1 + (unsigned)sl_random_below(random, ITEMS_MAX);
	for (unsigned i = 0; i < body->count; i++) {
		struct item *item = &body->items[i];

		item->count = sl_random_below(random, PAIRS_MAX + 1);
		for (size_t j = 0; j < item->count; j++) {
			struct pair *pair = &item->pairs[j];

			oracle__key_value__init(&pair->pair);
			oracle__any__init(&pair->any);
			pair->key = (unsigned)sl_random_below(random, KEYS);
			pair->value = (unsigned)sl_random_below(random, VALUES);
			pair->pair.key = keys[pair->key];
			pair->pair.value = &pair->any;
			pair->any.value_case = ORACLE__ANY__VALUE_TEXT;
			pair->any.text = texts[pair->value];
			item->list[j] = &pair->pair;
		}
	}
}

// The items of `keep` as one request.
static size_t write_body(struct body *body, enum sl_signal signal, const bool *keep)
{
	Oracle__Traces traces = ORACLE__TRACES__INIT;
	Oracle__ResourceSpans resource_spans = ORACLE__RESOURCE_SPANS__INIT;
	Oracle__ScopeSpans scope_spans = ORACLE__SCOPE_SPANS__INIT;
	Oracle__Logs logs = ORACLE__LOGS__INIT;
	Oracle__ResourceLogs resource_logs = ORACLE__RESOURCE_LOGS__INIT;
	Oracle__ScopeLogs scope_logs = ORACLE__SCOPE_LOGS__INIT;
	size_t count = 0;

	for (unsigned i = 0; i < body->count; i++) {
		struct item *item = &body->items[i];

		if (!keep[i])
			continue;
		oracle__span__init(&item->span);
		oracle__log_record__init(&item->record);
		item->span.attributes = item->record.attributes = item->list;
		item->span.n_attributes = item->record.n_attributes = item->count;
		item->span.name = texts[i % VALUES];
		body->spans[count] = &item->span;
		body->records[count++] = &item->record;
	}
	if (!count)
		return 0;
	if (signal == SL_TRACES) {
		scope_spans.spans = body->spans;
		scope_spans.n_spans = count;
		resource_spans.scopes = &(Oracle__ScopeSpans *){&scope_spans};
		resource_spans.n_scopes = 1;
		traces.resources = &(Oracle__ResourceSpans *){&resource_spans};
		traces.n_resources = 1;
		return oracle__traces__pack(&traces, body->bytes);
	}
	scope_logs.records = body->records;
	scope_logs.n_records = count;
	resource_logs.scopes = &(Oracle__ScopeLogs *){&scope_logs};
	resource_logs.n_scopes = 1;
	logs.resources = &(Oracle__ResourceLogs *){&resource_logs};
	logs.n_resources = 1;
	return oracle__logs__pack(&logs, body->bytes);
}

// --- the plain model -----------------------------------------------------------------------------

struct model {
	bool known[KEYS][VALUES];
	unsigned admitted[KEYS];
	uint64_t attributes, items, observed;
};

static bool model_is_over(struct model *model, const struct pair *pair, uint64_t limit)
{
	if (model->known[pair->key][pair->value])
		return false;
	if (model->admitted[pair->key] >= limit)
		return true;
	model->known[pair->key][pair->value] = true;
	model->admitted[pair->key]++;
	return false;
}

// Cuts the body as the rules say; `keep` becomes what stays.
static void model_cut(struct model *model, const struct sl_cardinality_config *rules,
		      unsigned count, struct body *body, bool *keep)
{
	for (unsigned i = 0; i < body->count; i++) {
		struct item *item = &body->items[i];
		size_t left = 0;

		keep[i] = true;
		for (size_t j = 0; j < item->count && keep[i]; j++) {
			const struct pair *pair = SL_CONTAINER_OF(item->list[j], struct pair, pair);
			bool gone = false;

			if (pair->key < count &&
			    model_is_over(model, pair, rules[pair->key].limit)) {
				gone = rules[pair->key].over == SL_OVER_DROP_ATTRIBUTE;
				keep[i] = rules[pair->key].over != SL_OVER_DROP_ITEM;
				model->observed += rules[pair->key].over == SL_OVER_OBSERVE;
			}
			model->attributes += gone;
			if (!gone)
				item->list[left++] = item->list[j];
		}
		item->count = left;
		model->items += !keep[i];
	}
}

// --- tests ---------------------------------------------------------------------------------------

static size_t cut_ours(const struct sl_cardinality *cardinality, struct body *body, size_t size,
		       enum sl_signal signal, uint8_t *out, struct sl_cardinality_counts *counts)
{
	struct ours ours;

	ours_cut(&ours, &memory, sl_bytes(body->bytes, size), signal, cardinality, NULL, counts);
	assert_int_equal(ours.part.cut_items[SL_CUT_CARDINALITY], counts->items);
	assert_int_equal(ours.part.kept_items, ours.part.offered_items - counts->items);
	assert_int_equal(ours.part.cut_message.size > 0, counts->items > 0);
	return ours_written(&ours, out);
}

static void test_as_the_model_cuts(void **state)
{
	static struct body body;
	static uint8_t out[BODY_MAX];
	struct model seen = {0};
	struct sl_random random;

	(void)state;
	sl_random_init(&random, 11);
	for (unsigned round = 0; round < 300; round++) {
		struct sl_cardinality_config rules[KEYS] = {0};
		const unsigned count = 1 + (unsigned)sl_random_below(&random, KEYS);
		const struct sl_list list = {rules, count};
		struct sl_cardinality *cardinality;
		struct model model = {0};
		uint64_t bytes = 0;

		for (unsigned i = 0; i < count; i++)
			rules[i] = (struct sl_cardinality_config){
				.attribute = keys[i],
				.limit = 1 + sl_random_below(&random, VALUES + 2),
				.window_ns = 3600 * SL_S,
				.over = (uint32_t)sl_random_below(&random, 3),
			};
		cardinality = sl_cardinality_create(&list, NULL, &bytes, NULL);
		assert_non_null(cardinality);
		assert_true(bytes >= count * 4096);
		for (unsigned i = 0; i < 6; i++) {
			const enum sl_signal signal = i % 2 ? SL_TRACES : SL_LOGS;
			const struct model before = model;
			bool keep[ITEMS_MAX];
			struct sl_cardinality_counts counts;
			size_t size, got;

			make_items(&body, &random);
			memset(keep, true, sizeof(keep));
			size = write_body(&body, signal, keep);
			got = cut_ours(cardinality, &body, size, signal, out, &counts);
			model_cut(&model, rules, count, &body, keep);
			assert_int_equal(counts.items, model.items - before.items);
			assert_int_equal(counts.observed, model.observed - before.observed);
			assert_int_equal(counts.attributes, model.attributes - before.attributes);
			assert_int_equal(got, write_body(&body, signal, keep));
			assert_memory_equal(out, body.bytes, got);
		}
		seen.items += model.items;
		seen.attributes += model.attributes;
		seen.observed += model.observed;
		sl_cardinality_destroy(cardinality);
	}
	assert_true(seen.items > 500 && seen.attributes > 500 && seen.observed > 500);
}

// One metric of one point, of the kind of that number in the order of the oneof. Returns its bytes.
static size_t write_point(uint8_t *out, unsigned kind, const char *name, struct item *item)
{
	Oracle__Metrics metrics = ORACLE__METRICS__INIT;
	Oracle__ResourceMetrics resource = ORACLE__RESOURCE_METRICS__INIT;
	Oracle__ScopeMetrics scope = ORACLE__SCOPE_METRICS__INIT;
	Oracle__Metric metric = ORACLE__METRIC__INIT;
	Oracle__NumberPoint number = ORACLE__NUMBER_POINT__INIT;
	Oracle__HistogramPoint histogram = ORACLE__HISTOGRAM_POINT__INIT;
	Oracle__ExponentialPoint exponential = ORACLE__EXPONENTIAL_POINT__INIT;
	Oracle__SummaryPoint summary = ORACLE__SUMMARY_POINT__INIT;
	Oracle__Gauge gauges = ORACLE__GAUGE__INIT;
	Oracle__Sum sums = ORACLE__SUM__INIT;
	Oracle__Histogram histograms = ORACLE__HISTOGRAM__INIT;
	Oracle__Exponential exponentials = ORACLE__EXPONENTIAL__INIT;
	Oracle__Summary summaries = ORACLE__SUMMARY__INIT;
	void *const data[] = {&gauges, &sums, &histograms, &exponentials, &summaries};
	static const Oracle__Metric__DataCase cases[] = {
		ORACLE__METRIC__DATA_GAUGE, ORACLE__METRIC__DATA_SUM,
		ORACLE__METRIC__DATA_HISTOGRAM, ORACLE__METRIC__DATA_EXPONENTIAL,
		ORACLE__METRIC__DATA_SUMMARY};

	number.attributes = histogram.attributes = item->list;
	exponential.attributes = summary.attributes = item->list;
	number.n_attributes = histogram.n_attributes = item->count;
	exponential.n_attributes = summary.n_attributes = item->count;
	gauges.points = sums.points = &(Oracle__NumberPoint *){&number};
	histograms.points = &(Oracle__HistogramPoint *){&histogram};
	exponentials.points = &(Oracle__ExponentialPoint *){&exponential};
	summaries.points = &(Oracle__SummaryPoint *){&summary};
	gauges.n_points = sums.n_points = histograms.n_points = 1;
	exponentials.n_points = summaries.n_points = 1;
	metric.name = (char *)(uintptr_t)name;
	metric.data_case = cases[kind];
	metric.gauge = data[kind]; // the members of the oneof lie at one place
	scope.metrics = &(Oracle__Metric *){&metric};
	scope.n_metrics = 1;
	resource.scopes = &(Oracle__ScopeMetrics *){&scope};
	resource.n_scopes = 1;
	metrics.resources = &(Oracle__ResourceMetrics *){&resource};
	metrics.n_resources = 1;
	return oracle__metrics__pack(&metrics, out);
}

static void make_pairs(struct item *item, bool turned, unsigned value)
{
	item->count = 2;
	for (unsigned i = 0; i < 2; i++) {
		struct pair *pair = &item->pairs[i];

		oracle__key_value__init(&pair->pair);
		oracle__any__init(&pair->any);
		pair->pair.key = keys[i];
		pair->pair.value = &pair->any;
		pair->any.value_case = ORACLE__ANY__VALUE_TEXT;
		pair->any.text = texts[value];
		item->list[i ^ (unsigned)turned] = &pair->pair;
	}
}

// A series of each kind of points, known in any order of its attributes; then new ones. A wider
// limit beside it changes nothing, and counts what the narrow one lets pass.
static void test_series_of_every_kind(void **state)
{
	static struct body body;
	static const struct sl_view_limits limits = {.items_max = 1000, .depth_max = 10};
	struct sl_cardinality_config rules[] = {
		{.series = true, .limit = 5, .window_ns = SL_S, .over = SL_OVER_DROP_ITEM},
		{.series = true, .limit = 9, .window_ns = 9 * SL_S, .over = SL_OVER_DROP_ITEM},
	};
	const struct sl_list list = {rules, SL_COUNT_OF(rules)};
	uint64_t bytes = 0;
	struct sl_cardinality *cardinality = sl_cardinality_create(&list, NULL, &bytes, NULL);

	(void)state;
	for (unsigned i = 0; i < 40; i++) {
		struct sl_request request = {.signal = SL_METRICS};
		struct sl_part part = {.request = &request, .kept_items = 1};
		struct sl_cardinality_counts counts;
		size_t size;

		make_pairs(&body.items[0], i / 5 % 2, i < 20 ? 0 : 1);
		size = write_point(body.bytes, i % 5, texts[i % 5], &body.items[0]);
		sl_arena_init(&request.arena, &memory);
		assert_int_equal(sl_view_scan(&request.view, SL_METRICS, sl_bytes(body.bytes, size),
					      &limits, &request.arena, NULL),
				 SL_VIEW_OK);
		assert_int_equal(request.view.item_count, 1);
		assert_true(sl_cardinality_cut(cardinality, NULL, &part, SL_S, &counts));
		assert_int_equal(counts.items, i < 20 ? 0 : 1);
		sl_arena_fini(&request.arena);
	}
	for (unsigned i = 0; i < SL_COUNT_OF(rules); i++)
		assert_int_equal(sl_distinct_count(cardinality->rules[i].distinct).admitted, 5);
	sl_cardinality_destroy(cardinality);
}

// What was counted goes on where the limit is as it was, and begins anew where it is not.
static void test_over_a_reload(void **state)
{
	struct sl_cardinality_config rules[2] = {
		{.attribute = keys[0], .limit = 10, .window_ns = SL_S},
		{.series = true, .limit = 10, .window_ns = SL_S},
	};
	const struct sl_list list = {rules, 2};
	uint64_t bytes = 0;
	struct sl_cardinality *first = sl_cardinality_create(&list, NULL, &bytes, NULL), *second;

	(void)state;
	sl_distinct_see(first->rules[0].distinct, 77, 1);
	sl_distinct_see(first->rules[1].distinct, 77, 1);
	rules[0].over = SL_OVER_DROP_ITEM;
	rules[1].limit = 11;
	second = sl_cardinality_create(&list, first, &bytes, NULL);
	sl_cardinality_destroy(first);
	assert_int_equal(sl_distinct_see(second->rules[0].distinct, 77, 1), SL_SEEN_KNOWN);
	assert_int_equal(sl_distinct_see(second->rules[1].distinct, 77, 1), SL_SEEN_NEW);
	sl_cardinality_destroy(second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_the_model_cuts),
		cmocka_unit_test(test_series_of_every_kind),
		cmocka_unit_test(test_over_a_reload),
	};

	sl_hash_seed();
	sl_log_set_level(SL_LOG_ERROR);
	for (unsigned i = 0; i < VALUES; i++)
		snprintf(texts[i], sizeof(texts[i]), "value %u", i);
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
