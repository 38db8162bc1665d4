#include "tests/unit/test.h"

#include <errno.h>

#include "tests/unit/ledger/rig.h"

// The ledger with the n-th allocation of its code failing, for every n: nothing is lost, nothing is
// counted twice. The linker brings its allocations here (--wrap).
char rig_names[TENANTS][8];

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *pointer, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *pointer, size_t size);

static int countdown; // allocations until the one that fails; 0: none does

static bool fails(void)
{
	return countdown && --countdown == 0;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *pointer, size_t size)
{
	return fails() ? NULL : __real_realloc(pointer, size);
}

// Whether the n-th allocation was reached: else there are fewer.
static bool disarm(void)
{
	const bool reached = countdown == 0;

	countdown = 0;
	return reached;
}

static void test_create(void **state)
{
	const struct sl_ledger_options options = {
		.shards = 2, .rows_max = 64, .tenants_max = 64, .export_max = 3};
	int n = 0;

	(void)state;
	for (bool more = true; more;) {
		struct sl_ledger *ledger;

		countdown = ++n;
		ledger = sl_ledger_create(&options);
		more = disarm();
		assert_true(more == (ledger == NULL));
		sl_ledger_destroy(ledger);
	}
	assert_true(n > 3);
}

static void send_one(struct sl_ledger *ledger, sl_tenant_id tenant, uint32_t items)
{
	struct sl_ledger_book *book = sl_ledger_book_of(ledger, 0);
	struct sl_request request;

	sl_ledger_received(book, fill(&request, tenant, items, items));
	sl_ledger_answered(book, &request);
}

// What a fold could not take over for want of memory, the next one does.
static void test_fold(void **state)
{
	int n = 0;

	(void)state;
	for (bool more = true; more;) {
		struct sl_ledger *ledger = make(1, 64, 2, true);
		uint64_t rest = 0;

		for (uint32_t i = 0; i < 6; i++)
			send_one(ledger, i, 10 + i);
		countdown = ++n;
		sl_ledger_fold(ledger, false);
		more = disarm();
		sl_ledger_fold(ledger, false);
		for (uint32_t i = 0; i < 6; i++) {
			const struct sl_ledger_account *account = sl_ledger_find(ledger,
										 name_of(i));

			assert_int_equal(
				count_of(ledger, rig_names[i], SL_LEDGER_ACCEPTED, 0).items,
				10 + i);
			assert_int_equal(
				sl_ledger_counts_sum(&account->unbilled, SL_LEDGER_ACCEPTED).items,
				10 + i);
		}
		// All but those of the two that are exported, whoever came first.
		for (uint32_t i = 0; i < ledger->account_count; i++)
			rest += ledger->accounts[i]->exported
					? 0
					: sl_ledger_counts_sum(&ledger->accounts[i]->total,
							       SL_LEDGER_ACCEPTED)
						  .items;
		assert_int_equal(ledger->exported, 2);
		assert_int_equal(sl_ledger_counts_sum(&ledger->other, SL_LEDGER_ACCEPTED).items,
				 rest);
		sl_ledger_destroy(ledger);
	}
	assert_true(n > 6);
}

// What has been cut and what has not are all there is.
static uint64_t billed(const struct sl_ledger *ledger)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < ledger->account_count; i++)
		sum += sl_ledger_counts_sum(&ledger->accounts[i]->unbilled, SL_LEDGER_ACCEPTED)
			       .items;
	for (uint32_t i = 0; i < ledger->record_count; i++)
		sum += sl_ledger_counts_sum(&ledger->records[i].counts, SL_LEDGER_ACCEPTED).items;
	return sum;
}

static void test_cut(void **state)
{
	int n = 0;

	(void)state;
	for (bool more = true; more;) {
		struct sl_ledger *ledger = make(1, 64, 2, true);

		for (uint32_t i = 0; i < 6; i++)
			take(ledger, i, 10 + i);
		countdown = ++n;
		sl_ledger_cut(ledger, 2000 * SL_S);
		more = disarm();
		assert_int_equal(billed(ledger), 75);
		sl_ledger_destroy(ledger);
	}
	assert_true(n > 6);
}

static void test_read(void **state)
{
	struct sl_ledger *ledger = make(1, 64, 2, true);
	char *text, error[200];
	size_t size;
	int n = 0;

	(void)state;
	for (uint32_t i = 0; i < 6; i++)
		take(ledger, i, 10 + i);
	sl_ledger_cut(ledger, 2000 * SL_S);
	take(ledger, 3, 100);
	text = sl_ledger_write(ledger, &size);
	for (bool more = true; more;) {
		struct sl_ledger *read = make(1, 64, 2, true);
		int failed;

		countdown = ++n;
		failed = sl_ledger_read(read, sl_bytes(text, size), error, sizeof(error));
		more = disarm();
		assert_true(more == (failed != 0));
		// No memory is no fault of the file, which would be put aside.
		assert_true(!failed || failed == -ENOMEM);
		assert_int_equal(read->account_count, failed ? 0 : 6);
		assert_int_equal(billed(read), failed ? 0 : 175);
		sl_ledger_destroy(read);
	}
	assert_true(n > 20);
	free(text);
	sl_ledger_destroy(ledger);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_fold),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_read),
	};

	return cmocka_run_group_tests(tests, rig_set_up, NULL);
}
