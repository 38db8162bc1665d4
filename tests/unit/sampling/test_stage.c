#include "tests/unit/test.h"

#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/varint.h"
#include "sampling/rules.h"
#include "sampling/sampling.h"

// The whole stage: rules from YAML, a body written by hand, and the spliced result read back.

#define BODY_MAX (1 << 20)

struct body {
	uint8_t bytes[BODY_MAX + SL_BODY_SLACK];
	size_t size;
};

static void put_bytes(struct body *body, unsigned field, const void *data, size_t size)
{
	assert_true(body->size + size + 12 < BODY_MAX);
	body->size += sl_varint_put(body->bytes + body->size, field << 3 | 2);
	body->size += sl_varint_put(body->bytes + body->size, size);
	if (size)
		memcpy(body->bytes + body->size, data, size);
	body->size += size;
}

static void put_text(struct body *body, unsigned field, const char *text)
{
	put_bytes(body, field, text, strlen(text));
}

// Wraps all that stands from `start` on into one field.
static void wrap(struct body *body, unsigned field, size_t start)
{
	const size_t size = body->size - start;
	uint8_t *copy = malloc(size + 1);

	assert_non_null(copy);
	memcpy(copy, body->bytes + start, size);
	body->size = start;
	put_bytes(body, field, copy, size);
	free(copy);
}

static void put_attribute(struct body *body, unsigned field, const char *key, const char *value)
{
	const size_t start = body->size;
	size_t any;

	put_text(body, 1, key);
	any = body->size;
	put_text(body, 1, value);
	wrap(body, 2, any);
	wrap(body, field, start);
}

struct item {
	uint64_t id_low;      // 0: an all-zero trace id
	const char *state;    // traces: tracestate, NULL: none; logs: sampling.threshold
	const char *priority; // attribute sampling.priority
	uint64_t duration_ns;
	bool error, empty_state;
	unsigned states_before; // that do not count
	bool odd_randomness;    // logs: sampling.randomness is true, which is no text
};

static void put_span(struct body *body, const struct item *item)
{
	const size_t start = body->size;
	const uint64_t low = __builtin_bswap64(item->id_low), begin = 1,
		       end = 1 + item->duration_ns;
	uint8_t id[16] = {0};

	memcpy(id + 8, &low, 8);
	put_bytes(body, 1, id, 16);
	put_bytes(body, 2, "spanspan", 8);
	for (unsigned i = 0; i < item->states_before; i++)
		put_text(body, 3, "ot=th:f");
	if (item->state || item->empty_state)
		put_text(body, 3, item->state ? item->state : "");
	put_text(body, 5, "GET /");
	body->bytes[body->size++] = 7 << 3 | 1;
	memcpy(body->bytes + body->size, &begin, 8);
	body->size += 8;
	body->bytes[body->size++] = 8 << 3 | 1;
	memcpy(body->bytes + body->size, &end, 8);
	body->size += 8;
	if (item->priority)
		put_attribute(body, 9, "sampling.priority", item->priority);
	if (item->error)
		put_bytes(body, 15, (const uint8_t[]){0x18, 2}, 2);
	wrap(body, 2, start);
}

static void put_log(struct body *body, const struct item *item)
{
	const size_t start = body->size;
	const uint64_t low = __builtin_bswap64(item->id_low);
	uint8_t id[16] = {0};

	memcpy(id + 8, &low, 8);
	if (item->state)
		put_attribute(body, 6, "sampling.threshold", item->state);
	if (item->priority)
		put_attribute(body, 6, "sampling.priority", item->priority);
	if (item->odd_randomness) {
		const size_t pair = body->size;

		put_text(body, 1, "sampling.randomness");
		put_bytes(body, 2, (const uint8_t[]){2 << 3, 1}, 2);
		wrap(body, 6, pair);
	}
	put_bytes(body, 9, id, 16);
	wrap(body, 2, start);
}

// One resource of `service` with the items, appended.
static void put_resource(struct body *body, enum sl_signal signal, const char *service,
			 const struct item *items, size_t count)
{
	const size_t start = body->size;
	size_t scope;

	put_attribute(body, 1, "service.name", service);
	wrap(body, 1, start);
	scope = body->size;
	for (size_t i = 0; i < count; i++) {
		if (signal == SL_TRACES)
			put_span(body, &items[i]);
		else
			put_log(body, &items[i]);
	}
	wrap(body, 2, scope);
	wrap(body, 1, start);
}

static const struct sl_view_limits limits = {.items_max = 100000, .depth_max = 64};

struct run {
	struct sl_memory memory;
	struct sl_metrics *metrics;
	struct sl_sampling_shard *shard;
	struct sl_loaded loaded;
	void *sampling;
	struct sl_request request;
	struct sl_batch batch;
	struct sl_view after;
	bool refused;
};

// The module's rows describe the whole loaded object here: it is the only module.
static void *build(const char *yaml, struct sl_loaded *loaded, struct sl_errors *errors)
{
	const struct sl_build how = {.errors = errors};

	if (sl_settings_load_text(sl_sampling_module.settings, "test.yaml", yaml, strlen(yaml),
				  loaded, errors))
		return NULL;
	return sl_sampling_module.build(loaded->object, &how);
}

static void run_thinned(struct run *run, const char *yaml, enum sl_signal signal,
			const struct body *body, uint8_t thinning)
{
	struct sl_errors *errors = sl_errors_create();
	struct sl_request *request = &run->request;
	struct sl_part *part = &request->first_part;
	struct sl_pieces pieces;
	uint8_t *joined;

	memset(run, 0, sizeof(*run));
	assert_int_equal(sl_memory_init(&run->memory, 64 * SL_MIB), 0);
	run->metrics = sl_metrics_create();
	run->shard = sl_sampling_shard_create(0, run->metrics);
	run->sampling = build(yaml, &run->loaded, errors);
	if (!run->sampling)
		fail_msg("%s", sl_errors_line(errors, 0));
	sl_errors_destroy(errors);
	sl_arena_init(&request->arena, &run->memory);
	request->signal = signal;
	assert_int_equal(sl_view_scan(&request->view, signal, sl_bytes(body->bytes, body->size),
				      &limits, &request->arena, NULL),
			 SL_VIEW_OK);
	part->request = request;
	part->thinning = thinning;
	part->tenant_name = SL_LITERAL("acme");
	part->offered_items = part->kept_items = request->view.item_count;
	run->batch.count = 1;
	run->batch.parts[0] = part;
	sl_sampling_shard_turn(run->shard, run->sampling);
	sl_sampling_stage(run->shard, &run->batch);
	assert_int_equal(run->batch.count, 1);

	assert_int_equal(
		sl_splice(&request->view, part->keep, &part->edits, &request->arena, &pieces), 0);
	joined = sl_arena_zalloc(&request->arena, pieces.bytes + SL_BODY_SLACK);
	for (size_t i = 0, at = 0; i < pieces.count; at += pieces.pieces[i++].iov_len)
		memcpy(joined + at, pieces.pieces[i].iov_base, pieces.pieces[i].iov_len);
	assert_int_equal(sl_view_scan(&run->after, signal, sl_bytes(joined, pieces.bytes), &limits,
				      &request->arena, NULL),
			 SL_VIEW_OK);
	assert_int_equal(run->after.item_count, part->kept_items);
}

static void run_stage(struct run *run, const char *yaml, enum sl_signal signal,
		      const struct body *body)
{
	run_thinned(run, yaml, signal, body, 0);
}

static void run_fini(struct run *run)
{
	sl_arena_fini(&run->request.arena);
	sl_sampling_shard_destroy(run->shard);
	sl_metrics_destroy(run->metrics);
	sl_sampling_module.destroy(run->sampling);
	sl_loaded_fini(&run->loaded);
	sl_memory_fini(&run->memory);
}

// The tracestate of an item of the result: the last one, as a decoder sees it.
static struct sl_bytes state_after(const struct run *run, uint32_t index)
{
	const struct sl_bytes payload = sl_view_item_payload(&run->after, index);
	struct sl_bytes state = SL_BYTES_NONE;
	struct sl_wire_field field;
	uint32_t offset = 0;

	while (sl_wire_next(payload, &offset, &field)) {
		if (field.number == 3 && field.wire_type == 2)
			state = field.data;
	}
	return state;
}

#define HIGH 0xfff0000000000001u
#define LOW  0xff01000000000001u // the top byte is no randomness

static const struct {
	const char *why, *yaml;
	struct item item;
	const char *want; // the tracestate after; NULL: dropped
} span_rows[] = {
	{"plain, kept", "{mode: proportional, rate: 10%}", {.id_low = HIGH}, "ot=th:e666"},
	{"plain, dropped: the top byte does not count",
	 "{mode: proportional, rate: 10%}",
	 {.id_low = LOW},
	 NULL},
	{"at the threshold, kept (vector 3)",
	 "{mode: proportional, rate: 25%}",
	 {.id_low = 0x08c0000000000000u},
	 "ot=th:c"},
	{"one below it, dropped (vector 4)",
	 "{mode: proportional, rate: 25%}",
	 {.id_low = 0x08bfffffffffffffu},
	 NULL},
	{"a state is edited",
	 "{mode: proportional, rate: 25%}",
	 {.id_low = HIGH,
	  .state = "congo=t61rcWkgMzE,ot=th:8;rv:ffffffffffffff,rojo=00f067aa0ba902b7"},
	 "ot=rv:ffffffffffffff;th:e,congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"},
	{"rv rules, not the id",
	 "{mode: proportional, rate: 56%}",
	 {.id_low = HIGH, .state = "ot=rv:70a3ffffffffff"},
	 NULL},
	{"what is rarer stays as it was, byte for byte",
	 "{mode: equalizing, rate: 10%}",
	 {.id_low = HIGH, .state = "x=y,ot=th:fd70a;rv:ffffffffffffff"},
	 "x=y,ot=th:fd70a;rv:ffffffffffffff"},
	{"an explicit empty state does not override ours",
	 "{mode: proportional, rate: 10%}",
	 {.id_low = HIGH, .empty_state = true},
	 "ot=th:e666"},
	{"the last of two states counts, one is left",
	 "{mode: proportional, rate: 50%}",
	 {.id_low = HIGH, .state = "ot=th:8", .states_before = 1},
	 "ot=th:c"},
	{"the last of four",
	 "{mode: proportional, rate: 50%}",
	 {.id_low = HIGH, .state = "ot=th:8", .states_before = 3},
	 "ot=th:c"},
	{"the last of five, as protobuf reads it",
	 "{mode: proportional, rate: 50%}",
	 {.id_low = HIGH, .state = "ot=th:8", .states_before = 4},
	 "ot=th:c"},
	{"the last of a hundred is unreadable",
	 "{mode: proportional, rate: 50%}",
	 {.id_low = HIGH, .state = "ot=th:X", .states_before = 99},
	 NULL},
	{"of many an empty one is left where no state is",
	 "{mode: proportional, rate: 50%}",
	 {.id_low = HIGH, .state = "ot=th:ffffffff", .states_before = 20},
	 ""},
	{"inconsistent: th goes",
	 "{mode: proportional, rate: 50%}",
	 {.id_low = HIGH, .state = "a=b,ot=th:ffffffff"},
	 "a=b"},
	{"inconsistent and nothing else: the field goes",
	 "{mode: proportional, rate: 50%}",
	 {.id_low = HIGH, .state = "ot=th:ffffffff"},
	 ""},
	{"unreadable: fails closed",
	 "{mode: proportional, rate: 50%}",
	 {.id_low = HIGH, .state = "ot=th:X"},
	 NULL},
	{"unreadable: kept as it is when told",
	 "{mode: proportional, rate: 50%, fail_closed: false}",
	 {.id_low = HIGH, .state = "ot=th:X"},
	 "ot=th:X"},
	{"no id: kept", "{mode: proportional, rate: 1%}", {.id_low = 0}, ""},
	{"no id: the hash drops", "{mode: hash_seed, rate: 90%}", {.id_low = 0}, NULL},
	{"an error is kept with its threshold",
	 "{mode: proportional, rate: 10%, keep: [error]}",
	 {.id_low = LOW, .error = true, .state = "ot=th:01"},
	 "ot=th:01"},
	{"no error, no mercy",
	 "{mode: proportional, rate: 10%, keep: [error]}",
	 {.id_low = LOW},
	 NULL},
	{"a slow span is kept",
	 "{mode: proportional, rate: 10%, keep: [error, {slower_than: 2s}]}",
	 {.id_low = LOW, .duration_ns = 3000000000},
	 ""},
	{"exactly 2 s is not slower",
	 "{mode: proportional, rate: 10%, keep: [{slower_than: 2s}]}",
	 {.id_low = LOW, .duration_ns = 2000000000},
	 NULL},
	{"errors at a rate of their own",
	 "{mode: proportional, rate: 0, keep: [error], keep_rate: 50%}",
	 {.id_low = HIGH, .error = true},
	 "ot=th:8"},
	{"an error below that rate",
	 "{mode: proportional, rate: 0, keep: [error], keep_rate: 50%}",
	 {.id_low = LOW, .error = true},
	 NULL},
	{"100 % touches nothing",
	 "{mode: proportional, rate: 100%}",
	 {.id_low = LOW, .state = "ot=th:X"},
	 "ot=th:X"},
	{"another tenant's rule",
	 "{match: {tenant: 'b*'}, mode: proportional, rate: 0}",
	 {.id_low = LOW},
	 ""},
	{"another signal's rule",
	 "{match: {signal: logs}, mode: proportional, rate: 0}",
	 {.id_low = LOW},
	 ""},
	{"another service's rule",
	 "{match: {service: cart}, mode: proportional, rate: 0}",
	 {.id_low = LOW},
	 ""},
	{"the service's rule",
	 "{match: {service: 'check*'}, mode: proportional, rate: 0}",
	 {.id_low = LOW},
	 NULL},
	{"the hash: priority keeps",
	 "{mode: hash_seed, rate: 1%}",
	 {.id_low = LOW, .priority = "1"},
	 ""},
	{"a priority behind a space is no number: the rate decides",
	 "{mode: proportional, rate: 10%, priority: sampling.priority}",
	 {.id_low = LOW, .priority = " 1"},
	 NULL},
	{"nor is one in hexadecimal",
	 "{mode: proportional, rate: 10%, priority: sampling.priority}",
	 {.id_low = LOW, .priority = "0x1"},
	 NULL},
	{"a sign and an exponent are",
	 "{mode: proportional, rate: 10%, priority: sampling.priority}",
	 {.id_low = LOW, .priority = "+1e0"},
	 ""},
	{"the hash: priority drops",
	 "{mode: hash_seed, rate: 99.9%}",
	 {.id_low = LOW, .priority = "0"},
	 NULL},
	{"priority is not looked for elsewhere unless asked",
	 "{mode: proportional, rate: 10%}",
	 {.id_low = LOW, .priority = "1"},
	 NULL},
	{"asked",
	 "{mode: proportional, rate: 10%, priority: sampling.priority}",
	 {.id_low = LOW, .priority = "1"},
	 ""},
	{"the hash refuses what is sampled",
	 "{mode: hash_seed, rate: 99%}",
	 {.id_low = HIGH, .state = "ot=th:8"},
	 NULL},
};

static void test_spans(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < SL_COUNT_OF(span_rows); i++) {
		struct body *body = calloc(1, sizeof(*body));
		struct run run;
		char yaml[256];

		snprintf(yaml, sizeof(yaml), "sampling: [%s]\n", span_rows[i].yaml);
		put_resource(body, SL_TRACES, "checkout", &span_rows[i].item, 1);
		run_stage(&run, yaml, SL_TRACES, body);
		if ((run.after.item_count == 1) != (span_rows[i].want != NULL))
			fail_msg("%s: %u kept", span_rows[i].why, run.after.item_count);
		if (span_rows[i].want &&
		    !sl_bytes_equal(state_after(&run, 0), sl_bytes_of(span_rows[i].want)))
			fail_msg("%s: %.*s", span_rows[i].why, (int)state_after(&run, 0).size,
				 state_after(&run, 0).data);
		assert_int_equal(
			sl_metrics_sum(run.metrics, "sluice_sampling_dropped_items", "traces"),
			span_rows[i].want == NULL);
		run_fini(&run);
		free(body);
	}
}

static const struct {
	const char *why, *yaml;
	uint8_t thinning;
	struct item item;
	const char *want; // the tracestate after; NULL: dropped
} thinned_rows[] = {
	{"no rule at all", "", 1, {.id_low = HIGH}, "ot=th:8"},
	{"no rule, three halvings", "", 3, {.id_low = 0x00dfffffffffffffu}, NULL},
	{"no rule, three halvings, kept", "", 3, {.id_low = 0x00e0000000000000u}, "ot=th:e"},
	{"a rate is halved", "{mode: proportional, rate: 50%}", 1, {.id_low = HIGH}, "ot=th:c"},
	{"100 % is a rate too", "{mode: proportional, rate: 100%}", 2, {.id_low = HIGH}, "ot=th:c"},
	{"equalizing to half",
	 "{mode: equalizing, rate: 50%}",
	 1,
	 {.id_low = HIGH, .state = "ot=th:8"},
	 "ot=th:c"},
	{"what came sampled is sampled on",
	 "",
	 1,
	 {.id_low = HIGH, .state = "ot=th:8,a=b"},
	 "ot=th:c,a=b"},
	{"what a rule keeps stays",
	 "{mode: proportional, rate: 10%, keep: [error]}",
	 6,
	 {.id_low = LOW, .error = true},
	 ""},
	{"another tenant's rule does not shield",
	 "{match: {tenant: 'b*'}, mode: proportional, rate: 100%}",
	 1,
	 {.id_low = LOW},
	 NULL},
	{"another service's rule does not either",
	 "{match: {service: cart}, mode: proportional, rate: 100%}",
	 1,
	 {.id_low = LOW},
	 NULL},
};

static void test_thinning(void **unused)
{
	(void)unused;
	for (size_t i = 0; i < SL_COUNT_OF(thinned_rows); i++) {
		struct body *body = calloc(1, sizeof(*body));
		struct run run;
		char yaml[256];

		snprintf(yaml, sizeof(yaml), "sampling: [%s]\n", thinned_rows[i].yaml);
		put_resource(body, SL_TRACES, "checkout", &thinned_rows[i].item, 1);
		run_thinned(&run, yaml, SL_TRACES, body, thinned_rows[i].thinning);
		if ((run.after.item_count == 1) != (thinned_rows[i].want != NULL))
			fail_msg("%s: %u kept", thinned_rows[i].why, run.after.item_count);
		if (thinned_rows[i].want &&
		    !sl_bytes_equal(state_after(&run, 0), sl_bytes_of(thinned_rows[i].want)))
			fail_msg("%s: %.*s", thinned_rows[i].why, (int)state_after(&run, 0).size,
				 state_after(&run, 0).data);
		run_fini(&run);
		free(body);
	}
}

// The Collector's own line: hash_seed 0, 10 %, `vendor=1`.
static void test_hash_writes_back(void **unused)
{
	static const uint8_t id[16] = {0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6,
				       0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36};
	struct body *body = calloc(1, sizeof(*body));
	struct run run;

	(void)unused;
	put_bytes(body, 1, id, 16);
	put_text(body, 3, "vendor=1");
	wrap(body, 2, 0);
	wrap(body, 2, 0);
	wrap(body, 1, 0);
	run_stage(&run, "sampling: [{mode: hash_seed, rate: 10%}]\n", SL_TRACES, body);
	assert_int_equal(run.after.item_count, 1);
	assert_true(sl_bytes_equal(state_after(&run, 0),
				   SL_LITERAL("ot=rv:fdc80d0b42008d;th:e668,vendor=1")));
	run_fini(&run);
	free(body);
}

// Finds an attribute of a log record; how often it is there goes to `count`.
static struct sl_bytes log_attribute(const struct run *run, uint32_t index, const char *key,
				     uint32_t *count)
{
	const struct sl_bytes payload = sl_view_item_payload(&run->after, index);
	struct sl_bytes found = SL_BYTES_NONE;
	struct sl_wire_field field, pair, any;
	uint32_t offset = 0;

	*count = 0;
	while (sl_wire_next(payload, &offset, &field)) {
		uint32_t at = 0, inner = 0;

		if (field.number != 6 || !sl_wire_next(field.data, &at, &pair) ||
		    !sl_bytes_equal(pair.data, sl_bytes_of(key)))
			continue;
		assert_true(sl_wire_next(field.data, &at, &pair));
		assert_true(sl_wire_next(pair.data, &inner, &any));
		found = any.data;
		++*count;
	}
	return found;
}

static void test_logs(void **unused)
{
	static const struct {
		const char *why, *yaml;
		struct item item;
		const char *want; // sampling.threshold after; "": none; NULL: dropped
	} rows[] = {
		{"by its trace id", "{mode: proportional, rate: 10%}", {.id_low = HIGH}, "e666"},
		{"dropped", "{mode: proportional, rate: 10%}", {.id_low = LOW}, NULL},
		{"its threshold is replaced",
		 "{mode: proportional, rate: 50%}",
		 {.id_low = HIGH, .state = "8"},
		 "c"},
		{"inconsistent: the threshold goes",
		 "{mode: proportional, rate: 50%}",
		 {.id_low = HIGH, .state = "ffffffff"},
		 ""},
		{"unreadable",
		 "{mode: proportional, rate: 50%}",
		 {.id_low = HIGH, .state = "X"},
		 NULL},
		{"randomness that is no text",
		 "{mode: proportional, rate: 50%}",
		 {.id_low = HIGH, .odd_randomness = true},
		 NULL},
		{"its own percentage",
		 "{mode: proportional, rate: 1%, priority: sampling.priority}",
		 {.id_low = 0x00c0000000000000, .priority = "25"},
		 "c"},
		{"its own zero",
		 "{mode: proportional, rate: 50%, priority: sampling.priority}",
		 {.id_low = HIGH, .priority = "0"},
		 NULL},
		{"hashed by an attribute",
		 "{mode: hash_seed, rate: 25%, attribute: sampling.priority}",
		 {.id_low = LOW, .priority = "pod-7"},
		 "c"},
		{"hashed by an attribute, dropped",
		 "{mode: hash_seed, rate: 10%, attribute: sampling.priority}",
		 {.id_low = LOW, .priority = "pod-7"},
		 NULL},
	};

	(void)unused;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct body *body = calloc(1, sizeof(*body));
		struct run run;
		char yaml[256];
		uint32_t count;

		snprintf(yaml, sizeof(yaml), "sampling: [%s]\n", rows[i].yaml);
		put_resource(body, SL_LOGS, "checkout", &rows[i].item, 1);
		run_stage(&run, yaml, SL_LOGS, body);
		if ((run.after.item_count == 1) != (rows[i].want != NULL))
			fail_msg("%s: %u kept", rows[i].why, run.after.item_count);
		if (rows[i].want) {
			const struct sl_bytes got = log_attribute(&run, 0, "sampling.threshold",
								  &count);

			if (!sl_bytes_equal(got, sl_bytes_of(rows[i].want)) ||
			    count != (*rows[i].want != '\0'))
				fail_msg("%s: %.*s", rows[i].why, (int)got.size, got.data);
		}
		if (rows[i].want && strstr(rows[i].yaml, "hash_seed")) {
			assert_true(sl_bytes_equal(
				log_attribute(&run, 0, "sampling.randomness", &count),
				SL_LITERAL("d58c304c100a9c")));
		}
		run_fini(&run);
		free(body);
	}
}

// Two services, many spans: each by its rule, in words that the resources' border cuts.
static void test_services(void **unused)
{
	struct body *body = calloc(1, sizeof(*body));
	struct item items[300];
	struct run run;

	(void)unused;
	for (uint32_t i = 0; i < 300; i++)
		items[i] = (struct item){.id_low = i % 2 ? HIGH : LOW};
	put_resource(body, SL_TRACES, "cart", items, 101);
	put_resource(body, SL_TRACES, "checkout", items, 300);
	put_resource(body, SL_TRACES, "other", items, 70);
	run_stage(&run,
		  "sampling:\n"
		  "  - {match: {service: cart}, mode: proportional, rate: 0}\n"
		  "  - {match: {service: check*}, mode: proportional, rate: 50%}\n",
		  SL_TRACES, body);
	assert_int_equal(run.after.item_count, 150 + 70);
	for (uint32_t i = 0; i < 150; i++)
		assert_true(sl_bytes_equal(state_after(&run, i), SL_LITERAL("ot=th:8")));
	for (uint32_t i = 150; i < 220; i++)
		assert_int_equal(state_after(&run, i).size, 0);
	assert_int_equal(run.request.first_part.edits.count, 150);
	run_fini(&run);
	free(body);
}

// An untouched part has neither a keep set nor edits: its body goes out as one piece.
static void test_untouched(void **unused)
{
	struct body *body = calloc(1, sizeof(*body));
	const struct item item = {.id_low = HIGH, .state = "ot=th:fd70a;rv:ffffffffffffff"};
	struct run run;

	(void)unused;
	put_resource(body, SL_TRACES, "checkout", &item, 1);
	run_stage(&run, "sampling: [{mode: equalizing, rate: 10%}]\n", SL_TRACES, body);
	assert_null(run.request.first_part.keep);
	assert_int_equal(run.request.first_part.edits.count, 0);
	run_fini(&run);
	free(body);
}

static void test_budget_is_spent(void **unused)
{
	struct body *body = calloc(1, sizeof(*body));
	struct item items[1000];
	struct run run;
	struct sl_part *part = &run.request.first_part;

	(void)unused;
	for (uint32_t i = 0; i < 1000; i++)
		items[i].id_low = HIGH, items[i].state = NULL, items[i].priority = NULL,
		items[i].duration_ns = 0, items[i].error = items[i].empty_state = false,
		items[i].states_before = 0, items[i].odd_randomness = false;
	put_resource(body, SL_TRACES, "checkout", items, 1000);
	run_stage(&run, "sampling: [{mode: proportional, rate: 10%}]\n", SL_TRACES, body);
	part->keep = NULL;
	part->edits = (struct sl_edits){0};
	part->kept_items = 1000;
	while (sl_arena_alloc(&run.request.arena, 4096))
		;
	while (sl_arena_alloc(&run.request.arena, 16))
		;
	sl_sampling_stage(run.shard, &run.batch);
	assert_int_equal(run.batch.count, 0);
	assert_int_equal(run.batch.refused_count, 1);
	assert_int_equal(part->reason, SL_REASON_MEMORY_FULL);
	run_fini(&run);
	free(body);
}

static void test_config_errors(void **unused)
{
	static const struct {
		const char *why, *rule, *want;
	} rows[] = {
		{"mode is required", "{rate: 10%}", "mode"},
		{"rate is required", "{mode: proportional}", "rate"},
		{"metrics are never sampled",
		 "{match: {signal: metrics}, mode: proportional, rate: 10%}", "metrics"},
		{"no such precision", "{mode: proportional, rate: 10%, precision: 15}",
		 "precision"},
		{"more than all", "{mode: proportional, rate: 110%}", "rate"},
		{"keep names nothing", "{mode: proportional, rate: 10%, keep: [any]}", "keep"},
		{"an attribute needs the hash", "{mode: equalizing, rate: 10%, attribute: a}",
		 "attribute"},
	};

	(void)unused;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_errors *errors = sl_errors_create();
		struct sl_loaded loaded = {0};
		char yaml[256];

		snprintf(yaml, sizeof(yaml), "sampling: [%s]\n", rows[i].rule);
		if (build(yaml, &loaded, errors) || !sl_errors_count(errors))
			fail_msg("%s", rows[i].why);
		if (!strstr(sl_errors_line(errors, 0), rows[i].want))
			fail_msg("%s: %s", rows[i].why, sl_errors_line(errors, 0));
		sl_errors_destroy(errors);
	}
}

// What the kept stand for beyond themselves, in 1/256 items.
static void test_estimate(void **unused)
{
	static const struct {
		const char *why, *yaml;
		enum sl_signal signal;
		struct item items[3];
		uint64_t want;
	} rows[] = {
		{"each kept span is one of four",
		 "{mode: proportional, rate: 25%}",
		 SL_TRACES,
		 {{.id_low = HIGH}, {.id_low = LOW}, {.id_low = HIGH}},
		 2 * 3 * 256},
		{"what an earlier stage dropped counts too: one of eight",
		 "{mode: proportional, rate: 25%}",
		 SL_TRACES,
		 {{.id_low = HIGH, .state = "ot=th:8"}, {.id_low = LOW}, {.id_low = LOW}},
		 7 * 256},
		{"also where all of them go on",
		 "{mode: proportional, rate: 100%}",
		 SL_TRACES,
		 {{.id_low = HIGH, .state = "ot=th:8"}, {.id_low = LOW}, {.id_low = HIGH}},
		 256},
		{"and where no rule is for them",
		 "{match: {service: nobody}, mode: proportional, rate: 10%}",
		 SL_TRACES,
		 {{.id_low = HIGH, .state = "ot=th:c"}, {.id_low = LOW}, {.id_low = HIGH}},
		 3 * 256},
		{"log records alike",
		 "{match: {signal: logs}, mode: proportional, rate: 25%}",
		 SL_LOGS,
		 {{.id_low = HIGH}, {.id_low = LOW}, {.id_low = LOW}},
		 3 * 256},
		{"nothing is kept, nothing stands for more",
		 "{mode: proportional, rate: 25%}",
		 SL_TRACES,
		 {{.id_low = LOW}, {.id_low = LOW}, {.id_low = LOW}},
		 0},
	};

	(void)unused;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		static struct body body;
		char yaml[256];
		struct run run;

		body.size = 0;
		put_resource(&body, rows[i].signal, "shop", rows[i].items, 3);
		snprintf(yaml, sizeof(yaml), "sampling: [%s]\n", rows[i].yaml);
		run_stage(&run, yaml, rows[i].signal, &body);
		if (run.request.first_part.adjusted_q8 != rows[i].want)
			fail_msg("%s: %llu", rows[i].why,
				 (unsigned long long)run.request.first_part.adjusted_q8);
		run_fini(&run);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spans),
		cmocka_unit_test(test_thinning),
		cmocka_unit_test(test_hash_writes_back),
		cmocka_unit_test(test_logs),
		cmocka_unit_test(test_services),
		cmocka_unit_test(test_untouched),
		cmocka_unit_test(test_estimate),
		cmocka_unit_test(test_budget_is_spent),
		cmocka_unit_test(test_config_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
