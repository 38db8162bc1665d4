#include "tests/unit/test.h"

#include "dataplane/request/delivery.h"

static struct sl_memory memory;
static unsigned settled_count, released_count;

static void settled(struct sl_request *request)
{
	assert_int_equal(request->required_open, 0);
	assert_true(request->references > 0); // the memory is still there
	settled_count++;
}

static void released(struct sl_request *request)
{
	assert_int_equal(request->required_open, 0);
	released_count++;
}

static const struct sl_request_owner owner = {.settled = settled, .released = released};

static void begin(struct sl_request *request)
{
	settled_count = released_count = 0;
	*request = (struct sl_request){.owner = &owner, .references = 1, .required_open = 1};
	sl_arena_init(&request->arena, &memory);
}

static void the_answer_waits_for_required_deliveries_only(void **state)
{
	struct sl_request request;

	(void)state;
	begin(&request);
	sl_request_hold(&request, true);
	sl_request_hold(&request, false);
	sl_request_let_go(&request, true); // the shard's own
	assert_int_equal(settled_count, 0);
	sl_request_let_go(&request, true);
	assert_int_equal(settled_count, 1);
	assert_int_equal(released_count, 0); // best-effort still holds the memory
	sl_request_let_go(&request, false);
	assert_int_equal(released_count, 1);
}

static const struct {
	const char *why;
	enum sl_reason reasons[3], want;
} refusals[] = {
	{"the first refusal stays", {SL_REASON_MALFORMED, SL_REASON_REJECTED}, SL_REASON_MALFORMED},
	{"a retryable one is never hidden by one for good",
	 {SL_REASON_REJECTED, SL_REASON_UNDELIVERED},
	 SL_REASON_UNDELIVERED},
	{"nor replaced by one", {SL_REASON_UNDELIVERED, SL_REASON_REJECTED}, SL_REASON_UNDELIVERED},
};

static void refusals_are_ranked(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(refusals); i++) {
		struct sl_request request;

		begin(&request);
		for (unsigned j = 0; refusals[i].reasons[j] != SL_REASON_NONE; j++)
			sl_request_refuse(&request, refusals[i].reasons[j], (j + 1) * SL_S);
		if (request.reason != refusals[i].want)
			fail_msg("%s: %s", refusals[i].why, sl_reasons[request.reason].name);
	}
}

static void a_delivery_ends_with_the_worst_of_its_records(void **state)
{
	struct sl_request request;
	struct sl_part part = {.request = &request, .routed_items = 3};
	struct sl_delivery delivery = {
		.part = &part, .required = true, .open_records = 3, .items = 3};
	struct sl_record records[3];

	(void)state;
	begin(&request);
	sl_request_hold(&request, true);
	for (unsigned i = 0; i < 3; i++)
		records[i] = (struct sl_record){.delivery = &delivery, .items = 1};
	sl_record_end(&records[0], SL_OUTCOME_DELIVERED, 0);
	sl_record_end(&records[1], SL_OUTCOME_RETRYABLE, 2 * SL_S);
	assert_int_equal(request.reason, SL_REASON_NONE); // not before its last record
	sl_record_end(&records[2], SL_OUTCOME_REJECTED, 0);
	assert_int_equal(request.reason, SL_REASON_UNDELIVERED); // never a partial success
	assert_int_equal(request.retry_after_ns, 2 * SL_S);
	assert_int_equal(request.references, 1);
	sl_request_let_go(&request, true);
	assert_int_equal(settled_count + released_count, 2);
}

static const struct {
	const char *why;
	uint32_t rejected; // of 10 items, in the second of two records
	enum sl_reason want;
	uint32_t want_rejected;
} partials[] = {
	{"nothing refused", 0, SL_REASON_NONE, 0},
	{"a rest was delivered: partial success", 4, SL_REASON_NONE, 4},
	{"all refused for good", 10, SL_REASON_REJECTED, 10},
};

static void what_is_refused_for_good_is_counted(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(partials); i++) {
		struct sl_request request;
		struct sl_part part = {.request = &request, .routed_items = 10};
		struct sl_delivery delivery = {
			.part = &part, .required = true, .open_records = 2, .items = 10};
		struct sl_record good = {.delivery = &delivery, .items = 10 - partials[i].rejected};
		struct sl_record bad = {.delivery = &delivery, .items = partials[i].rejected};

		begin(&request);
		request.parts = &part;
		request.part_count = 1;
		sl_request_hold(&request, true);
		sl_record_end(&good, SL_OUTCOME_DELIVERED, 0);
		sl_record_end(&bad,
			      partials[i].rejected ? SL_OUTCOME_REJECTED : SL_OUTCOME_DELIVERED, 0);
		if (request.reason != partials[i].want ||
		    part.rejected_items != partials[i].want_rejected)
			fail_msg("%s: %s, %u", partials[i].why, sl_reasons[request.reason].name,
				 part.rejected_items);
	}
}

// Items 0-3 go to A and B, items 4-9 to C: what A and B refuse is the same, what C refuses is more.
static void refusals_of_other_items_add_up(void **state)
{
	struct sl_request request;
	struct sl_part part = {.request = &request, .routed_items = 10};
	uint32_t first = 0, second = 0;
	struct sl_delivery deliveries[] = {
		{.part = &part, .items = 4, .share_rejected = &first},
		{.part = &part, .items = 4, .share_rejected = &first},
		{.part = &part, .items = 6, .share_rejected = &second},
	};

	(void)state;
	begin(&request);
	request.parts = &part;
	request.part_count = 1;
	for (unsigned i = 0; i < 3; i++) {
		struct sl_record record = {.delivery = &deliveries[i],
					   .items = deliveries[i].items};

		deliveries[i].required = true;
		deliveries[i].open_records = 1;
		sl_request_hold(&request, true);
		assert_int_equal(request.reason, SL_REASON_NONE);
		sl_record_end(&record, SL_OUTCOME_REJECTED, 0);
		assert_int_equal(part.rejected_items, i < 2 ? 4 : 10);
	}
	assert_int_equal(request.reason, SL_REASON_REJECTED);
}

// One tenant's destination refuses all of its part for good: the others' parts are delivered all
// the same, and so is the request, unless nothing else of it was taken.
static void a_part_rejected_is_not_the_request(void **state)
{
	static const struct {
		const char *why;
		uint32_t routed, rejected; // of the other part
		enum sl_reason reason, want;
	} rows[] = {
		{"the other is delivered", 5, 0, SL_REASON_NONE, SL_REASON_NONE},
		{"in part", 5, 4, SL_REASON_NONE, SL_REASON_NONE},
		{"the other is sampled out", 0, 0, SL_REASON_NONE, SL_REASON_NONE},
		{"the other is rejected too", 5, 5, SL_REASON_NONE, SL_REASON_REJECTED},
		{"the other was refused", 5, 0, SL_REASON_SUSPENDED, SL_REASON_REJECTED},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_request request;
		struct sl_part parts[2] = {{.request = &request, .routed_items = 10},
					   {.request = &request,
					    .routed_items = rows[i].routed,
					    .rejected_items = rows[i].rejected,
					    .reason = rows[i].reason}};
		struct sl_delivery delivery = {
			.part = parts, .required = true, .open_records = 1, .items = 10};
		struct sl_record record = {.delivery = &delivery, .items = 10};

		begin(&request);
		request.parts = parts;
		request.part_count = 2;
		sl_request_hold(&request, true);
		sl_record_end(&record, SL_OUTCOME_REJECTED, 0);
		if (request.reason != rows[i].want || parts[0].rejected_items != 10)
			fail_msg("%s: %s", rows[i].why, sl_reasons[request.reason].name);
	}
}

static void best_effort_never_refuses(void **state)
{
	struct sl_request request;
	struct sl_part part = {.request = &request};
	struct sl_delivery delivery = {.part = &part, .required = false, .open_records = 1};
	struct sl_record record = {.delivery = &delivery};

	(void)state;
	begin(&request);
	sl_request_hold(&request, false);
	sl_record_end(&record, SL_OUTCOME_RETRYABLE, SL_S);
	assert_int_equal(request.reason, SL_REASON_NONE);
	sl_request_let_go(&request, true);
	assert_int_equal(released_count, 1);
}

static void a_keep_set_of_its_own_has_exactly_the_items(void **state)
{
	static const uint32_t counts[] = {1, 63, 64, 65, 128, 1000};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(counts); i++) {
		struct sl_request request;
		struct sl_part part = {.request = &request};
		uint32_t kept = 0;

		begin(&request);
		request.view.item_count = counts[i];
		assert_true(sl_part_own_keep(&part));
		for (size_t word = 0; word < SL_KEEP_WORDS(counts[i]); word++)
			kept += (uint32_t)__builtin_popcountl(part.keep[word]);
		assert_int_equal(kept, counts[i]);
		assert_true(sl_keep_has(part.keep, counts[i] - 1));
		sl_arena_fini(&request.arena);
	}
}

// Reference items 23 and 40: what a client may retry carries a delay, what it may not does not.
static void statuses_agree_with_what_clients_retry(void **state)
{
	(void)state;
	for (unsigned i = SL_REASON_NONE + 1; i < SL_REASONS; i++) {
		const struct sl_reason_row *row = &sl_reasons[i];
		const bool http_retried = row->http == 429 || row->http == 503;
		const bool grpc_retried = row->grpc == SL_GRPC_UNAVAILABLE ||
					  row->grpc == SL_GRPC_RESOURCE_EXHAUSTED;

		if (row->retry && !(http_retried && grpc_retried))
			fail_msg("%s: clients would not come back", row->name);
		if (!row->retry && (http_retried || row->grpc == SL_GRPC_UNAVAILABLE))
			fail_msg("%s: clients would come back for ever", row->name);
	}
}

static int set_up(void **state)
{
	(void)state;
	return sl_memory_init(&memory, SL_MIB);
}

static int tear_down(void **state)
{
	(void)state;
	sl_memory_fini(&memory);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_answer_waits_for_required_deliveries_only),
		cmocka_unit_test(refusals_are_ranked),
		cmocka_unit_test(a_delivery_ends_with_the_worst_of_its_records),
		cmocka_unit_test(what_is_refused_for_good_is_counted),
		cmocka_unit_test(refusals_of_other_items_add_up),
		cmocka_unit_test(a_part_rejected_is_not_the_request),
		cmocka_unit_test(best_effort_never_refuses),
		cmocka_unit_test(a_keep_set_of_its_own_has_exactly_the_items),
		cmocka_unit_test(statuses_agree_with_what_clients_retry),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
