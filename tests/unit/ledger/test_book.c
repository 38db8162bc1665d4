#include "tests/unit/test.h"

#include <pthread.h>

#include "tests/unit/ledger/rig.h"

char rig_names[TENANTS][8];

static void test_kinds(void **state)
{
	static const struct {
		const char *why;
		uint32_t items, kept, routed, rejected;
		enum sl_reason of_request, of_part;
		uint64_t accepted, sampled, dropped, throttled, refused;
		uint32_t reason; // where the last two are looked for
	} rows[] = {
		{"all is taken", 9, 9, 9, 0, 0, 0, 9, 0, 0, 0, 0, 0},
		{"sampling drops of what is accepted", 9, 4, 4, 0, 0, 0, 9, 5, 0, 0, 0, 0},
		{"a route drops what sampling kept", 9, 4, 1, 0, 0, 0, 9, 5, 3, 0, 0, 0},
		{"a destination refused some for good", 9, 9, 9, 2, 0, 0, 7, 0, 0, 0, 2,
		 SL_REASON_REJECTED},
		{"over quota is throttled", 9, 9, 9, 0, SL_REASON_QUOTA_EXCEEDED,
		 SL_REASON_QUOTA_EXCEEDED, 0, 0, 0, 9, 0, SL_REASON_QUOTA_EXCEEDED},
		{"a part alone is refused", 9, 9, 9, 0, 0, SL_REASON_SUSPENDED, 0, 0, 0, 0, 9,
		 SL_REASON_SUSPENDED},
		{"its request's reason is what the sender was told", 9, 9, 9, 0,
		 SL_REASON_TIMED_OUT, SL_REASON_QUOTA_EXCEEDED, 0, 0, 0, 0, 9, SL_REASON_TIMED_OUT},
	};

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_ledger *ledger = make(1, 64, 10, false);
		struct sl_ledger_book *book = sl_ledger_book_of(ledger, 0);
		struct sl_request request;

		print_message("%s\n", rows[i].why);
		fill(&request, 5, rows[i].items, rows[i].kept);
		request.first_part.routed_items = rows[i].routed;
		request.first_part.rejected_items = rows[i].rejected;
		request.first_part.reason = rows[i].of_part;
		sl_ledger_received(book, &request);
		sl_ledger_fold(ledger, false);
		assert_int_equal(count_of(ledger, "t5", SL_LEDGER_IN_FLIGHT, 0).items,
				 rows[i].items);
		request.reason = rows[i].of_request;
		sl_ledger_answered(book, &request);
		sl_ledger_fold(ledger, false);
		assert_int_equal(count_of(ledger, "t5", SL_LEDGER_IN_FLIGHT, 0).items, 0);
		assert_int_equal(count_of(ledger, "t5", SL_LEDGER_RECEIVED, 0).items,
				 rows[i].items);
		assert_int_equal(count_of(ledger, "t5", SL_LEDGER_RECEIVED, 0).bytes,
				 rows[i].items * 100);
		assert_int_equal(count_of(ledger, "t5", SL_LEDGER_ACCEPTED, 0).items,
				 rows[i].accepted);
		assert_int_equal(count_of(ledger, "t5", SL_LEDGER_SAMPLED_OUT, 0).items,
				 rows[i].sampled);
		assert_int_equal(count_of(ledger, "t5", SL_LEDGER_DROPPED, 0).items,
				 rows[i].dropped);
		assert_int_equal(count_of(ledger, "t5", SL_LEDGER_THROTTLED, rows[i].reason).items,
				 rows[i].throttled);
		assert_int_equal(count_of(ledger, "t5", SL_LEDGER_REFUSED, rows[i].reason).items,
				 rows[i].refused);
		sl_ledger_destroy(ledger);
	}
}

// Tenants that are being made have no number yet, but names: their accounts are theirs from the
// first request on, and the names need not outlive their requests.
static void test_newcomers(void **state)
{
	struct sl_ledger *ledger = make(1, 4096, 10, false);
	struct sl_ledger_book *book = sl_ledger_book_of(ledger, 0);
	struct sl_request request;
	uint64_t items = 0;

	(void)state;
	book->newcomers = 7;
	for (unsigned i = 0; i < SL_LEDGER_NEWCOMERS_MAX + 10; i++) {
		char name[16];

		snprintf(name, sizeof(name), "name%u", i % (SL_LEDGER_NEWCOMERS_MAX + 2));
		fill(&request, 7, 5, 5);
		request.first_part.tenant_name = sl_bytes_of(name);
		sl_ledger_received(book, &request);
		sl_ledger_answered(book, &request);
		sl_ledger_ended(book, &(struct sl_ending){.tenant = 7,
							  .tenant_name = sl_bytes_of(name),
							  .signal = SL_TRACES,
							  .end = SL_END_DELIVERED,
							  .items = 5});
		memset(name, 'x', sizeof(name));
	}
	sl_ledger_fold(ledger, false);
	assert_null(sl_ledger_find(ledger, SL_LITERAL(":new")));
	for (unsigned i = 0; i < SL_LEDGER_NEWCOMERS_MAX; i++) {
		char name[16];

		snprintf(name, sizeof(name), "name%u", i);
		assert_int_equal(count_of(ledger, name, SL_LEDGER_ACCEPTED, 0).items,
				 i < 8 ? 10 : 5);
		assert_int_equal(count_of(ledger, name, SL_LEDGER_DELIVERED, 0).items,
				 i < 8 ? 10 : 5);
		items += count_of(ledger, name, SL_LEDGER_ACCEPTED, 0).items;
	}
	// Two too many for their rows.
	assert_int_equal(count_of(ledger, "_other", SL_LEDGER_ACCEPTED, 0).items, 10);
	assert_int_equal(items + 10, 5 * (SL_LEDGER_NEWCOMERS_MAX + 10));
	// With a number of its own it goes on where it was.
	fill(&request, 8, 5, 5);
	request.first_part.tenant_name = SL_LITERAL("name9");
	sl_ledger_received(book, &request);
	sl_ledger_answered(book, &request);
	sl_ledger_fold(ledger, false);
	assert_int_equal(count_of(ledger, "name9", SL_LEDGER_ACCEPTED, 0).items, 10);
	sl_ledger_destroy(ledger);
}

// Refused before it has a tenant, parts, or a body.
static void test_unattributed(void **state)
{
	struct sl_ledger *ledger = make(1, 64, 10, false);
	struct sl_ledger_book *book = sl_ledger_book_of(ledger, 0);
	struct sl_request request = {.signal = SL_TRACES, .tenant = SL_TENANT_NONE};

	(void)state;
	request.view.item_count = 3;
	request.reason = SL_REASON_TOO_MANY_TENANTS;
	sl_ledger_received(book, &request);
	sl_ledger_answered(book, &request);
	sl_ledger_turned_away(book, &request, SL_REASON_UNKNOWN_CREDENTIAL);
	fill(&request, SL_TENANT_NONE, 4, 4);
	request.first_part.reason = SL_REASON_UNKNOWN_TENANT;
	sl_ledger_received(book, &request);
	sl_ledger_answered(book, &request);
	sl_ledger_fold(ledger, false);
	assert_int_equal(count_of(ledger, "_unknown", SL_LEDGER_RECEIVED, 0).items, 7);
	assert_int_equal(count_of(ledger, "_unknown", SL_LEDGER_RECEIVED, 0).requests, 3);
	assert_int_equal(
		count_of(ledger, "_unknown", SL_LEDGER_REFUSED, SL_REASON_TOO_MANY_TENANTS).items,
		3);
	assert_int_equal(
		count_of(ledger, "_unknown", SL_LEDGER_REFUSED, SL_REASON_UNKNOWN_TENANT).items, 4);
	assert_int_equal(
		count_of(ledger, "_unknown", SL_LEDGER_REFUSED, SL_REASON_UNKNOWN_CREDENTIAL)
			.requests,
		1);
	sl_ledger_destroy(ledger);
}

// A row that is still is given back, and its tenant finds another with its account as it was.
static void test_cold(void **state)
{
	struct sl_ledger *ledger = make(1, 64, 10, false);
	struct sl_ledger_book *book = sl_ledger_book_of(ledger, 0);
	struct sl_ledger_stats stats;
	struct sl_request open;

	(void)state;
	take(ledger, 1, 5);
	sl_ledger_received(book, fill(&open, 2, 6, 6));
	for (unsigned i = 0; i < 100; i++) {
		sl_ledger_fold(ledger, true);
		sl_ledger_book_turn(book);
	}
	sl_ledger_fold(ledger, true);
	sl_ledger_stats(ledger, &stats);
	assert_int_equal(stats.rows, 1); // what is in flight keeps its row
	assert_int_equal(book->row_of[1], 0);
	assert_int_not_equal(book->row_of[2], 0);
	take(ledger, 1, 7);
	sl_ledger_answered(book, &open);
	sl_ledger_fold(ledger, false);
	assert_int_equal(count_of(ledger, "t1", SL_LEDGER_ACCEPTED, 0).items, 12);
	assert_int_equal(count_of(ledger, "t2", SL_LEDGER_ACCEPTED, 0).items, 6);
	sl_ledger_destroy(ledger);
}

// --- shards and a folding thread at random -------------------------------------------------------

enum { RECEIVED, ACCEPTED, THROTTLED, REFUSED, DELIVERED, SAMPLED, SUMS };
static const enum sl_ledger_kind kinds[SUMS] = {SL_LEDGER_RECEIVED,  SL_LEDGER_ACCEPTED,
						SL_LEDGER_THROTTLED, SL_LEDGER_REFUSED,
						SL_LEDGER_DELIVERED, SL_LEDGER_SAMPLED_OUT};

struct worker {
	struct sl_ledger *ledger;
	uint32_t shard;
	uint64_t sums[TENANTS + 1][SUMS]; // the last: who is not named
	uint32_t *running;
	pthread_t thread;
};

#define WORKERS 3
#define OPEN    40
#define STEPS   60000

static void settle(struct worker *worker, struct sl_ledger_book *book, struct sl_request *request,
		   struct sl_random *random)
{
	struct sl_part *part = &request->first_part;
	uint64_t *sums = worker->sums[SL_MIN(part->tenant, (uint32_t)TENANTS)];
	const unsigned fate = (unsigned)sl_random_below(random, 10);

	if (fate == 0) {
		request->reason = SL_REASON_QUOTA_EXCEEDED;
		sums[THROTTLED] += part->offered_items;
	} else if (fate == 1) {
		request->reason = (enum sl_reason)(1 + sl_random_below(random, 9));
		sums[REFUSED] += part->offered_items;
	} else {
		sums[ACCEPTED] += part->offered_items;
		sums[SAMPLED] += part->offered_items - part->kept_items;
		sums[DELIVERED] += part->kept_items;
		sl_ledger_ended(book, &(struct sl_ending){
					      .tenant = part->tenant,
					      .tenant_name = part->tenant_name,
					      .signal = request->signal,
					      .destination = (uint32_t)sl_random_below(random, 6),
					      .items = part->kept_items,
					      .records = 1,
				      });
	}
	sl_ledger_answered(book, request);
	request->signal = SL_SIGNALS; // free
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	struct sl_ledger_book *book = sl_ledger_book_of(worker->ledger, worker->shard);
	struct sl_request *open = calloc(OPEN, sizeof(*open));
	struct sl_random random;

	sl_random_init(&random, worker->shard + 77);
	for (unsigned i = 0; i < OPEN; i++)
		open[i].signal = SL_SIGNALS;
	for (unsigned i = 0; i < STEPS; i++) {
		struct sl_request *request = &open[sl_random_below(&random, OPEN)];
		const uint32_t who = (uint32_t)sl_random_below(&random, TENANTS + 1);
		const uint32_t items = (uint32_t)sl_random_below(&random, 50);

		if (request->signal != SL_SIGNALS)
			settle(worker, book, request, &random);
		fill(request, who == TENANTS ? SL_TENANT_NONE : who, items,
		     (uint32_t)sl_random_below(&random, items + 1));
		request->signal = (enum sl_signal)sl_random_below(&random, SL_SIGNALS);
		sl_ledger_received(book, request);
		worker->sums[who][RECEIVED] += items;
		if (i % 16 == 0)
			sl_ledger_book_turn(book);
	}
	for (unsigned i = 0; i < OPEN; i++)
		if (open[i].signal != SL_SIGNALS)
			settle(worker, book, &open[i], &random);
	free(open);
	__atomic_sub_fetch(worker->running, 1, __ATOMIC_RELEASE);
	return NULL;
}

// At any moment each account balances, where nothing had to go to `_other`.
static void check_balance(struct sl_ledger *ledger)
{
	pthread_mutex_lock(&ledger->lock);
	for (uint32_t i = 0; i < ledger->account_count; i++) {
		const struct sl_ledger_counts *total = &ledger->accounts[i]->total;

		assert_int_equal(sl_ledger_counts_sum(total, SL_LEDGER_RECEIVED).items,
				 sl_ledger_counts_sum(total, SL_LEDGER_ACCEPTED).items +
					 sl_ledger_counts_sum(total, SL_LEDGER_THROTTLED).items +
					 sl_ledger_counts_sum(total, SL_LEDGER_REFUSED).items +
					 sl_ledger_counts_sum(total, SL_LEDGER_IN_FLIGHT).items);
	}
	pthread_mutex_unlock(&ledger->lock);
}

static void check_sums(struct sl_ledger *ledger, const struct worker *workers, bool each)
{
	uint64_t all[SUMS] = {0};

	for (uint32_t t = 0; t <= TENANTS; t++) {
		const struct sl_ledger_account *account = sl_ledger_find(
			ledger, t < TENANTS ? name_of(t) : SL_LITERAL("_unknown"));

		assert_true(account || !each);
		for (unsigned k = 0; k < SUMS; k++) {
			uint64_t sum = 0;

			for (uint32_t i = 0; i < WORKERS; i++)
				sum += workers[i].sums[t][k];
			all[k] += sum;
			if (!each)
				continue;
			assert_int_equal(sl_ledger_counts_sum(&account->total, kinds[k]).items,
					 sum);
			// What is to be billed is all of it.
			assert_int_equal(sl_ledger_counts_sum(&account->unbilled, kinds[k]).items,
					 sum);
		}
	}
	for (unsigned k = 0; k < SUMS; k++)
		assert_int_equal(sum_of(ledger, kinds[k]).items, all[k]);
	assert_int_equal(sum_of(ledger, SL_LEDGER_IN_FLIGHT).items, 0);
	assert_int_equal(sum_of(ledger, SL_LEDGER_IN_FLIGHT).requests, 0);
}

static void run_threads(uint32_t rows, bool each)
{
	struct worker *workers = calloc(WORKERS, sizeof(*workers));
	struct sl_ledger *ledger = make(WORKERS, rows, 10, true);
	uint32_t running = WORKERS, folds = 0;
	struct sl_ledger_stats stats;

	for (uint32_t i = 0; i < WORKERS; i++) {
		workers[i].ledger = ledger;
		workers[i].shard = i;
		workers[i].running = &running;
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	while (__atomic_load_n(&running, __ATOMIC_ACQUIRE)) {
		sl_ledger_fold(ledger, true);
		if (folds++ % 8 == 0 && each)
			check_balance(ledger);
	}
	for (uint32_t i = 0; i < WORKERS; i++)
		pthread_join(workers[i].thread, NULL);
	sl_ledger_close(ledger);
	if (each)
		check_balance(ledger);
	check_sums(ledger, workers, each);
	sl_ledger_stats(ledger, &stats);
	print_message("%u folds, %llu overflows\n", folds, (unsigned long long)stats.overflows);
	assert_int_equal(stats.unread, 0);
	assert_true(each == (stats.overflows == 0));
	sl_ledger_destroy(ledger);
	free(workers);
}

static void test_threads(void **state)
{
	(void)state;
	run_threads(4096, true);
}

// Far more tenants than rows: they come and go, and what finds none is in `_other`.
static void test_overflow(void **state)
{
	(void)state;
	run_threads(64, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),        cmocka_unit_test(test_newcomers),
		cmocka_unit_test(test_unattributed), cmocka_unit_test(test_cold),
		cmocka_unit_test(test_threads),      cmocka_unit_test(test_overflow),
	};

	return cmocka_run_group_tests(tests, rig_set_up, NULL);
}
