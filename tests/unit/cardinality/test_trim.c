#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/base/random.h"
#include "tests/oracle/oracle.pb-c.h"
#include "tests/unit/cardinality/ours.h"

// Requests of protobuf-c's, held to limits on attributes and sizes by us and by a plain model over
// protobuf-c's own structures: both come out alike, for random values, limits and shapes.

#define BODY_MAX  (512 * SL_KIB)
#define ITEMS_MAX 6
#define PAIRS_MAX 6
#define TEXT_MAX  40

static struct sl_memory memory;
static struct sl_random generator;

static int set_up(void **state)
{
	(void)state;
	sl_random_init(&generator, 5);
	return sl_memory_init(&memory, 64 * SL_MIB);
}

static int tear_down(void **state)
{
	(void)state;
	sl_memory_fini(&memory);
	return 0;
}

static unsigned below(unsigned most)
{
	return (unsigned)sl_random_below(&generator, most);
}

// --- requests, in memory that each round takes anew ----------------------------------------------

static uint8_t pool[4 * SL_MIB];
static size_t pool_used;

static void *take(size_t bytes)
{
	void *memory_ = pool + pool_used;

	pool_used += (bytes + 15) & ~(size_t)15;
	assert_true(pool_used <= sizeof(pool));
	return memory_;
}

// Characters of one to four bytes.
static char *make_text(void)
{
	static const char *const characters[] = {"a", "\xc3\xa9", "\xe2\x82\xac",
						 "\xf0\x9f\x98\x80"};
	const unsigned count = below(TEXT_MAX / 4);
	char *text = take(TEXT_MAX + 1);

	*text = '\0';
	for (unsigned i = 0; i < count; i++)
		strcat(text, characters[below(4)]);
	return text;
}

static Oracle__KeyValue *make_pair(unsigned depth);

static Oracle__Any *make_any(unsigned depth)
{
	Oracle__Any *any = take(sizeof(*any));

	oracle__any__init(any);
	switch (below(depth < 3 ? 5 : 3)) {
	case 0:
		any->value_case = ORACLE__ANY__VALUE_INTEGER;
		any->integer = below(1000);
		break;
	case 1:
		any->value_case = ORACLE__ANY__VALUE_BLOB;
		any->blob.len = below(TEXT_MAX);
		any->blob.data = take(TEXT_MAX);
		memset(any->blob.data, 0x80, TEXT_MAX); // no UTF-8: cut anywhere
		break;
	case 2:
		any->value_case = ORACLE__ANY__VALUE_TEXT;
		any->text = make_text();
		break;
	case 3:
		any->value_case = ORACLE__ANY__VALUE_ARRAY;
		any->array = take(sizeof(*any->array));
		oracle__array__init(any->array);
		any->array->n_values = below(4);
		any->array->values = take(4 * sizeof(void *));
		for (size_t i = 0; i < any->array->n_values; i++)
			any->array->values[i] = make_any(depth + 1);
		break;
	default:
		any->value_case = ORACLE__ANY__VALUE_LIST;
		any->list = take(sizeof(*any->list));
		oracle__list__init(any->list);
		any->list->n_values = below(4);
		any->list->values = take(4 * sizeof(void *));
		for (size_t i = 0; i < any->list->n_values; i++)
			any->list->values[i] = make_pair(depth + 1);
	}
	return any;
}

static Oracle__KeyValue *make_pair(unsigned depth)
{
	Oracle__KeyValue *pair = take(sizeof(*pair));

	oracle__key_value__init(pair);
	pair->key = make_text();
	pair->value = make_any(depth);
	return pair;
}

static Oracle__KeyValue **make_pairs(size_t *count)
{
	Oracle__KeyValue **pairs = take(PAIRS_MAX * sizeof(*pairs));

	*count = below(PAIRS_MAX + 1);
	for (size_t i = 0; i < *count; i++)
		pairs[i] = make_pair(0);
	return pairs;
}

static uint32_t make_dropped(void)
{
	return below(3) ? 0 : below(300);
}

static Oracle__Span *make_span(void)
{
	Oracle__Span *span = take(sizeof(*span));

	oracle__span__init(span);
	span->name = make_text();
	span->kind = 2;
	span->attributes = make_pairs(&span->n_attributes);
	span->dropped = make_dropped();
	span->n_events = below(3);
	span->events = take(2 * sizeof(void *));
	for (size_t i = 0; i < span->n_events; i++) {
		Oracle__Event *event = span->events[i] = take(sizeof(*event));

		oracle__event__init(event);
		event->name = make_text();
		event->attributes = make_pairs(&event->n_attributes);
		event->dropped = make_dropped();
	}
	span->n_links = below(3);
	span->links = take(2 * sizeof(void *));
	for (size_t i = 0; i < span->n_links; i++) {
		Oracle__Link *link = span->links[i] = take(sizeof(*link));

		oracle__link__init(link);
		link->trace_state = make_text();
		link->attributes = make_pairs(&link->n_attributes);
		link->dropped = make_dropped();
	}
	return span;
}

static Oracle__LogRecord *make_record(void)
{
	Oracle__LogRecord *record = take(sizeof(*record));

	oracle__log_record__init(record);
	record->severity_text = make_text();
	record->body = make_any(0);
	record->attributes = make_pairs(&record->n_attributes);
	record->dropped = make_dropped();
	record->flags = 1;
	return record;
}

static Oracle__Resource *make_resource(void)
{
	Oracle__Resource *resource = take(sizeof(*resource));

	oracle__resource__init(resource);
	resource->attributes = make_pairs(&resource->n_attributes);
	resource->dropped = make_dropped();
	return resource;
}

static Oracle__Scope *make_scope(void)
{
	Oracle__Scope *scope = take(sizeof(*scope));

	oracle__scope__init(scope);
	scope->name = make_text();
	scope->attributes = make_pairs(&scope->n_attributes);
	scope->dropped = make_dropped();
	return scope;
}

// Two resources of one scope each; what is empty is left out, as the splicer leaves it out.
static Oracle__Traces *make_traces(void)
{
	Oracle__Traces *traces = take(sizeof(*traces));

	oracle__traces__init(traces);
	traces->n_resources = 2;
	traces->resources = take(2 * sizeof(void *));
	for (size_t i = 0; i < 2; i++) {
		Oracle__ResourceSpans *of = traces->resources[i] = take(sizeof(*of));
		Oracle__ScopeSpans *scope = take(sizeof(*scope));

		oracle__resource_spans__init(of);
		oracle__scope_spans__init(scope);
		of->resource = make_resource();
		of->n_scopes = 1;
		of->scopes = take(sizeof(void *));
		of->scopes[0] = scope;
		scope->scope = make_scope();
		scope->n_spans = 1 + below(ITEMS_MAX);
		scope->spans = take(ITEMS_MAX * sizeof(void *));
		for (size_t j = 0; j < scope->n_spans; j++)
			scope->spans[j] = make_span();
	}
	return traces;
}

static Oracle__Logs *make_logs(void)
{
	Oracle__Logs *logs = take(sizeof(*logs));

	oracle__logs__init(logs);
	logs->n_resources = 2;
	logs->resources = take(2 * sizeof(void *));
	for (size_t i = 0; i < 2; i++) {
		Oracle__ResourceLogs *of = logs->resources[i] = take(sizeof(*of));
		Oracle__ScopeLogs *scope = take(sizeof(*scope));

		oracle__resource_logs__init(of);
		oracle__scope_logs__init(scope);
		of->resource = make_resource();
		of->n_scopes = 1;
		of->scopes = take(sizeof(void *));
		of->scopes[0] = scope;
		scope->scope = make_scope();
		scope->n_records = 1 + below(ITEMS_MAX);
		scope->records = take(ITEMS_MAX * sizeof(void *));
		for (size_t j = 0; j < scope->n_records; j++)
			scope->records[j] = make_record();
	}
	return logs;
}

// --- the plain model -----------------------------------------------------------------------------

static struct sl_trim_counts counted;

static void model_text(char *text, uint32_t most)
{
	size_t size = 0;

	if (!most || strlen(text) <= most)
		return;
	for (;;) { // whole characters, as long as they fit
		const uint8_t first = (uint8_t)text[size];
		const size_t bytes = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;

		if (size + bytes > most)
			break;
		size += bytes;
	}
	text[size] = '\0';
	counted.values++;
}

static void model_any(Oracle__Any *any, uint32_t most)
{
	if (!most)
		return;
	if (any->value_case == ORACLE__ANY__VALUE_TEXT)
		model_text(any->text, most);
	if (any->value_case == ORACLE__ANY__VALUE_BLOB && any->blob.len > most) {
		any->blob.len = most;
		counted.values++;
	}
	for (size_t i = 0; any->value_case == ORACLE__ANY__VALUE_ARRAY && i < any->array->n_values;
	     i++)
		model_any(any->array->values[i], most);
	for (size_t i = 0; any->value_case == ORACLE__ANY__VALUE_LIST && i < any->list->n_values;
	     i++)
		model_any(any->list->values[i]->value, most);
}

static void model_pairs(Oracle__KeyValue **pairs, size_t *count, uint32_t *dropped, uint32_t most,
			uint32_t value_bytes)
{
	if (most && *count > most) {
		*dropped += (uint32_t)*count - most;
		counted.attributes += *count - most;
		*count = most;
	}
	for (size_t i = 0; i < *count; i++)
		model_any(pairs[i]->value, value_bytes);
}

static void model_about(Oracle__Resource *resource, Oracle__Scope *scope,
			const struct sl_trim_limits *limits)
{
	model_pairs(resource->attributes, &resource->n_attributes, &resource->dropped,
		    limits->resource_attributes, limits->value_bytes);
	model_pairs(scope->attributes, &scope->n_attributes, &scope->dropped,
		    limits->scope_attributes, limits->value_bytes);
}

static void model_span(Oracle__Span *span, const struct sl_trim_limits *limits)
{
	model_text(span->name, limits->name_bytes);
	model_pairs(span->attributes, &span->n_attributes, &span->dropped, limits->attributes,
		    limits->value_bytes);
	for (size_t i = 0; i < span->n_events; i++) {
		Oracle__Event *event = span->events[i];

		model_text(event->name, limits->name_bytes);
		model_pairs(event->attributes, &event->n_attributes, &event->dropped,
			    limits->attributes, limits->value_bytes);
	}
	for (size_t i = 0; i < span->n_links; i++) {
		Oracle__Link *link = span->links[i];

		model_pairs(link->attributes, &link->n_attributes, &link->dropped,
			    limits->attributes, limits->value_bytes);
	}
}

// Packs a request of either signal, after the model if `limits` is set.
static size_t pack(void *request, enum sl_signal signal, const struct sl_trim_limits *limits,
		   uint8_t *out)
{
	Oracle__Traces *traces = request;
	Oracle__Logs *logs = request;

	for (size_t i = 0; limits && i < 2; i++) {
		if (signal == SL_TRACES) {
			Oracle__ScopeSpans *scope = traces->resources[i]->scopes[0];

			model_about(traces->resources[i]->resource, scope->scope, limits);
			for (size_t j = 0; j < scope->n_spans; j++)
				model_span(scope->spans[j], limits);
			continue;
		}

		Oracle__ScopeLogs *scope = logs->resources[i]->scopes[0];

		model_about(logs->resources[i]->resource, scope->scope, limits);
		for (size_t j = 0; j < scope->n_records; j++) {
			Oracle__LogRecord *record = scope->records[j];

			model_any(record->body, limits->body_bytes);
			model_pairs(record->attributes, &record->n_attributes, &record->dropped,
				    limits->attributes, limits->value_bytes);
		}
	}
	return signal == SL_TRACES ? oracle__traces__pack(traces, out)
				   : oracle__logs__pack(logs, out);
}

// --- tests ---------------------------------------------------------------------------------------

static uint8_t body[BODY_MAX + SL_BODY_SLACK], out[BODY_MAX], wanted[BODY_MAX];

// What the limits make of `body`, in `out`.
static size_t trim_ours(const struct sl_trim_limits *limits, size_t size, enum sl_signal signal,
			struct sl_cardinality_counts *counts, uint32_t *edits)
{
	struct ours ours;

	ours_cut(&ours, &memory, sl_bytes(body, size), signal, NULL, limits, counts);
	assert_int_equal(ours.part.kept_items, ours.part.offered_items);
	*edits = ours.part.edits.count;
	return ours_written(&ours, out);
}

static void test_as_the_model_trims(void **state)
{
	struct sl_trim_counts all = {0};

	(void)state;
	for (unsigned round = 0; round < 1500; round++) {
		const enum sl_signal signal = round % 2 ? SL_TRACES : SL_LOGS;
		struct sl_trim_limits limits = {
			.attributes = below(PAIRS_MAX),
			.resource_attributes = below(PAIRS_MAX),
			.scope_attributes = below(PAIRS_MAX),
			.value_bytes = below(TEXT_MAX),
			// An empty name is none to protobuf-c: at least one character.
			.name_bytes = below(4) ? 4 + below(TEXT_MAX) : 0,
			.body_bytes = below(TEXT_MAX),
			.is_set = true,
		};
		struct sl_cardinality_counts counts;
		size_t size, got, want;
		void *request;
		uint32_t edits;

		pool_used = 0;
		memset(&counted, 0, sizeof(counted));
		request = signal == SL_TRACES ? (void *)make_traces() : (void *)make_logs();
		size = pack(request, signal, NULL, body);
		assert_true(size < BODY_MAX);
		want = pack(request, signal, &limits, wanted);
		got = trim_ours(&limits, size, signal, &counts, &edits);
		assert_int_equal(counts.trimmed.attributes, counted.attributes);
		assert_int_equal(counts.trimmed.values, counted.values);
		assert_int_equal(counts.trimmed.observed, 0);
		assert_int_equal(got, want);
		assert_memory_equal(out, wanted, got);
		all.attributes += counted.attributes;
		all.values += counted.values;
		// Once more: nothing is left to do. And who only observes finds as much, and
		// changes nothing. (What is dropped may have had values too long.)
		memcpy(body, out, got);
		assert_int_equal(trim_ours(&limits, got, signal, &counts, &edits), got);
		assert_int_equal(edits, 0);
		limits.observe = true;
		size = pack(request, signal, NULL, body);
		assert_int_equal(trim_ours(&limits, size, signal, &counts, &edits), size);
		assert_int_equal(edits, 0);
	}
	assert_true(all.attributes > 5000 && all.values > 5000);
}

// A scope without limits of its own, a resource behind its scopes, two Resources that merge: the
// limit holds for both together.
static void test_odd_forms(void **state)
{
	static const struct sl_trim_limits limits = {
		.resource_attributes = 1, .value_bytes = 2, .is_set = true};
	// resource_spans { scopes {spans {name "n"}} resource {a: "xyz", b: 1} resource {c: 1} }
	static const uint8_t odd[] = {
		0x0a, 0x2d,                              // ResourceSpans
		0x12, 0x05, 0x12, 0x03, 0x2a, 0x01, 'n', // scopes
		0x0a, 0x16,                              // resource
		0x0a, 0x0a, 0x0a, 0x01, 'a',  0x12, 0x05, 0x0a, 0x03, 'x',  'y', 'z', // a
		0x0a, 0x08, 0x0a, 0x02, 'b',  'b',  0x12, 0x02, 0x18, 0x01,           // b
		0x0a, 0x0c,                                                           // resource
		0x0a, 0x08, 0x0a, 0x02, 'c',  'c',  0x12, 0x02, 0x18, 0x01,           // c
		0x10, 0x05,                                                           // dropped: 5
	};
	static const uint8_t want[] = {
		0x0a, 0x1a,                                                     //
		0x12, 0x05, 0x12, 0x03, 0x2a, 0x01, 'n',                        //
		0x0a, 0x0d,                                                     //
		0x0a, 0x09, 0x0a, 0x01, 'a',  0x12, 0x04, 0x0a, 0x02, 'x', 'y', // cut
		0x10, 0x01,                                                     // for b
		0x0a, 0x02, 0x10, 0x07,                                         // with c
	};
	struct sl_cardinality_counts counts;
	uint32_t edits;

	(void)state;
	memcpy(body, odd, sizeof(odd));
	assert_int_equal(trim_ours(&limits, sizeof(odd), SL_TRACES, &counts, &edits), sizeof(want));
	assert_memory_equal(out, want, sizeof(want));
	assert_int_equal(counts.trimmed.attributes, 2);
	assert_int_equal(counts.trimmed.values, 1);
}

// What sampling writes into log records is not touched, whatever the limits.
static void test_sampling_keeps_its_own(void **state)
{
	static const struct sl_trim_limits limits = {
		.attributes = 1, .value_bytes = 1, .is_set = true};
	static char threshold[] = "sampling.threshold", a[] = "a", b[] = "b", text[] = "c8";
	Oracle__Logs *logs;
	Oracle__LogRecord *record;
	struct sl_cardinality_counts counts;
	size_t size, want;
	uint32_t edits;

	(void)state;
	pool_used = 0;
	logs = make_logs();
	for (size_t i = 0; i < 2; i++) {
		logs->resources[i]->resource->n_attributes = 0;
		logs->resources[i]->scopes[0]->scope->n_attributes = 0;
		logs->resources[i]->scopes[0]->n_records = 1;
		record = logs->resources[i]->scopes[0]->records[0];
		record->dropped = 0;
		record->n_attributes = 3;
		for (size_t j = 0; j < 3; j++) {
			record->attributes[j] = make_pair(0);
			record->attributes[j]->key = j == 0 ? a : j == 1 ? b : threshold;
			record->attributes[j]->value->value_case = ORACLE__ANY__VALUE_TEXT;
			record->attributes[j]->value->text = text;
		}
	}
	size = pack(logs, SL_LOGS, NULL, body);
	for (size_t i = 0; i < 2; i++) {
		record = logs->resources[i]->scopes[0]->records[0];
		record->n_attributes = 2;
		record->attributes[1] = record->attributes[2];
	}
	want = oracle__logs__get_packed_size(logs) + 2 * 2 - 2; // two counts, two texts cut by one
	assert_true(trim_ours(&limits, size, SL_LOGS, &counts, &edits) == want);
	assert_int_equal(counts.trimmed.attributes, 2);
	assert_int_equal(counts.trimmed.values, 2);
}

// Data points only where it is asked for; they have no count of what was dropped.
static void test_points(void **state)
{
	struct sl_trim_limits limits = {.attributes = 1, .is_set = true};
	// metrics {name "m" gauge {points {a: 1, b: 1}}}
	static const uint8_t two[] = {
		0x0a, 0x1d, 0x12, 0x1b, 0x12, 0x19, 0x0a, 0x01, 'm',  0x2a, 0x14, //
		0x0a, 0x12,                                                       //
		0x3a, 0x07, 0x0a, 0x01, 'a',  0x12, 0x02, 0x18, 0x01,             //
		0x3a, 0x07, 0x0a, 0x01, 'b',  0x12, 0x02, 0x18, 0x01,             //
	};
	struct sl_cardinality_counts counts;
	uint32_t edits;

	(void)state;
	memcpy(body, two, sizeof(two));
	assert_int_equal(trim_ours(&limits, sizeof(two), SL_METRICS, &counts, &edits), sizeof(two));
	assert_int_equal(edits, 0);
	limits.points = true;
	assert_int_equal(trim_ours(&limits, sizeof(two), SL_METRICS, &counts, &edits),
			 sizeof(two) - 9);
	assert_memory_equal(out + 13, two + 13, 9);
	assert_int_equal(counts.trimmed.attributes, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_as_the_model_trims),
		cmocka_unit_test(test_odd_forms),
		cmocka_unit_test(test_sampling_keeps_its_own),
		cmocka_unit_test(test_points),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
