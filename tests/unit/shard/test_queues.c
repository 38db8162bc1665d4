#include "tests/unit/test.h"

#include "dataplane/base/random.h"
#include "dataplane/shard/queues.h"

static struct sl_queues queues;
static struct sl_request requests[40000];

static struct sl_request *push(unsigned number, sl_tenant_id tenant, size_t bytes, uint32_t weight)
{
	struct sl_request *request = &requests[number];

	*request = (struct sl_request){.tenant = tenant, .received.size = bytes};
	assert_true(sl_queues_reserve(&queues, request, bytes, UINT64_MAX));
	sl_queues_push(&queues, request, weight);
	return request;
}

static void set_up(void)
{
	assert_int_equal(sl_queues_init(&queues), 0);
}

// Nothing is left behind, whatever happened: every number is free.
static void tear_down(void)
{
	assert_false(sl_queues_ready(&queues));
	assert_null(sl_queues_pop(&queues));
	assert_int_equal(queues.free_count, SL_QUEUES_MAX - 1);
	assert_int_equal(queues.queues[0].waiting_bytes, 0);
	assert_int_equal(queues.ready_queues, 0);
	sl_queues_fini(&queues);
}

static void a_tenant_alone_is_served_in_order(void **state)
{
	(void)state;
	set_up();
	for (unsigned i = 0; i < 100; i++)
		push(i, 7, 100000, 1);
	for (unsigned i = 0; i < 100; i++)
		assert_ptr_equal(sl_queues_pop(&queues), &requests[i]);
	tear_down();
}

// One body behind a flood of a thousand waits for one round, not for the flood.
static void a_newcomer_does_not_wait_for_a_flood(void **state)
{
	unsigned served = 0;

	(void)state;
	set_up();
	for (unsigned i = 0; i < 1000; i++)
		push(i, 1, 3000, 1);
	for (unsigned i = 0; i < 300; i++)
		sl_queues_pop(&queues); // alone: no debt comes of it
	push(1000, 2, 3000, 1);
	while (sl_queues_pop(&queues) != &requests[1000])
		served++;
	assert_in_range(served, 0, 2);
	while (sl_queues_pop(&queues))
		;
	tear_down();
}

// Bytes served go with weights, whatever the sizes of bodies are.
static void shares_go_with_weights(void **state)
{
	static const struct {
		const char *why;
		uint32_t weights[3];
		size_t bytes[3];
		size_t charged[3]; // found out while served, as by inflating
	} rows[] = {
		{"alike", {1, 1, 1}, {3000, 3000, 3000}, {0}},
		{"by class", {1, 4, 10}, {3000, 3000, 3000}, {0}},
		{"large bodies get no more", {1, 1, 1}, {500, 5000, 100000}, {0}},
		{"large bodies and classes", {5, 2, 1}, {500, 5000, 100000}, {0}},
		{"what inflates is charged", {1, 1, 2}, {3000, 300, 3000}, {0, 60000, 0}},
	};

	(void)state;
	for (unsigned row = 0; row < SL_COUNT_OF(rows); row++) {
		uint64_t served[3] = {0}, sum = 0, weights = 0;
		unsigned count = 0;

		print_message("%s\n", rows[row].why);
		set_up();
		for (unsigned i = 0; i < 10000; i++)
			for (unsigned j = 0; j < 3; j++)
				push(count++, j, rows[row].bytes[j], rows[row].weights[j]);
		while (queues.ready_queues == 3) {
			const struct sl_request *request = sl_queues_pop(&queues);
			const size_t charged = rows[row].charged[request->tenant];

			sl_queues_charge(&queues, request->tenant, charged);
			served[request->tenant] += request->received.size + SL_QUEUE_REQUEST_BYTES +
						   charged;
		}
		for (unsigned j = 0; j < 3; j++) {
			sum += served[j];
			weights += rows[row].weights[j];
		}
		for (unsigned j = 0; j < 3; j++) {
			const double share = (double)served[j] / (double)sum;
			const double want = (double)rows[row].weights[j] / (double)weights;

			if (share < want * 0.97 || share > want * 1.03)
				fail_msg("tenant %u has %.3f, not %.3f", j, share, want);
		}
		while (sl_queues_pop(&queues))
			;
		tear_down();
	}
}

static void a_tenant_has_a_share_of_the_memory(void **state)
{
	struct sl_request *all = requests;

	(void)state;
	set_up();
	for (unsigned i = 0; i < 4; i++)
		all[i] = (struct sl_request){.tenant = i < 3 ? 5 : 6};
	assert_true(sl_queues_reserve(&queues, &all[0], 5000, 1000)); // one alone always
	assert_false(sl_queues_reserve(&queues, &all[1], 1, 1000));
	assert_true(sl_queues_reserve(&queues, &all[3], 1000, 1000)); // another tenant's is its own
	assert_true(sl_queues_reserve(&queues, &all[0], 6000, 1000)); // it grows: others have none
	sl_queues_release(&queues, &all[0]);
	assert_true(sl_queues_reserve(&queues, &all[1], 600, 1000));
	assert_true(sl_queues_reserve(&queues, &all[2], 400, 1000));
	assert_false(sl_queues_reserve(&queues, &all[2], 401, 1000)); // it keeps what it has
	sl_queues_release(&queues, &all[1]);
	assert_true(sl_queues_reserve(&queues, &all[2], 401, 1000));
	sl_queues_release(&queues, &all[2]);
	sl_queues_release(&queues, &all[2]); // twice: nothing
	sl_queues_release(&queues, &all[3]);
	tear_down();
}

// What waits for its turn counts as well, until it is taken up.
static void ready_bodies_count(void **state)
{
	struct sl_request more = {.tenant = 5};

	(void)state;
	set_up();
	push(0, 5, 900, 1);
	assert_false(sl_queues_reserve(&queues, &more, 200, 1000));
	assert_ptr_equal(sl_queues_pop(&queues), &requests[0]);
	assert_true(sl_queues_reserve(&queues, &more, 200, 1000));
	sl_queues_release(&queues, &more);
	tear_down();
}

static void requests_without_a_tenant_share_a_queue_and_have_no_share(void **state)
{
	(void)state;
	set_up();
	for (unsigned i = 0; i < 3; i++) {
		requests[i] = (struct sl_request){.tenant = SL_TENANT_NONE};
		assert_true(sl_queues_reserve(&queues, &requests[i], 1000, 10));
		sl_queues_push(&queues, &requests[i], 1);
	}
	for (unsigned i = 0; i < 3; i++)
		assert_ptr_equal(sl_queues_pop(&queues), &requests[i]);
	tear_down();
}

// More tenants at once than there are queues: the rest share one, and nothing is lost.
static void more_tenants_than_queues(void **state)
{
	const unsigned count = SL_QUEUES_MAX + 500;

	(void)state;
	set_up();
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < count; i++)
			push(i, i * 3, 100, 1);
		assert_int_equal(queues.free_count, 0);
		for (unsigned i = 0; i < count; i++) {
			struct sl_request *request = sl_queues_pop(&queues);

			assert_non_null(request);
			assert_int_equal(request->queue, 0);
			request->tenant = SL_TENANT_NONE - 1;
		}
		for (unsigned i = 0; i < count; i++)
			assert_int_equal(requests[i].tenant, SL_TENANT_NONE - 1);
	}
	tear_down();
}

// Any order of events: every request is served once, and in its tenant's order.
static void random_events(void **state)
{
	unsigned pushed = 0, popped = 0, begun[8] = {0}, seen[8] = {0};
	struct sl_random random;

	(void)state;
	sl_random_init(&random, 11);
	set_up();
	while (popped < SL_COUNT_OF(requests)) {
		const unsigned tenant = (unsigned)sl_random_below(&random, 8);

		if (pushed < SL_COUNT_OF(requests) && sl_random_below(&random, 100) < 55) {
			push(pushed, tenant, sl_random_below(&random, 9000), 1 + tenant)
				->rejected_items = begun[tenant]++;
			pushed++;
		} else {
			struct sl_request *request = sl_queues_pop(&queues);

			assert_int_equal(request != NULL, popped < pushed);
			if (!request)
				continue;
			assert_int_equal(request->rejected_items, seen[request->tenant]++);
			sl_queues_charge(&queues, request->tenant, sl_random_below(&random, 9000));
			popped++;
		}
	}
	tear_down();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_tenant_alone_is_served_in_order),
		cmocka_unit_test(a_newcomer_does_not_wait_for_a_flood),
		cmocka_unit_test(shares_go_with_weights),
		cmocka_unit_test(a_tenant_has_a_share_of_the_memory),
		cmocka_unit_test(ready_bodies_count),
		cmocka_unit_test(requests_without_a_tenant_share_a_queue_and_have_no_share),
		cmocka_unit_test(more_tenants_than_queues),
		cmocka_unit_test(random_events),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
