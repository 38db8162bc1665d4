#include "tests/unit/test.h"

#include "tests/unit/ledger/rig.h"

// Accounts of tenants that a template made and that left: what they had is in their class' account,
// no sum has changed, and no usage record is made twice. Destinations by the hundred.
char rig_names[TENANTS][8];

#define MADE_FROM 100 // tenants with these numbers are made; those from 200 on of another class

static bool there[TENANTS];

static const char *class_of(const void *self, sl_tenant_id tenant)
{
	(void)self;
	if (tenant == SL_TENANT_NONE || tenant < MADE_FROM)
		return NULL;
	return tenant < 200 ? "free" : "";
}

static bool is_there(const void *self, struct sl_bytes name)
{
	(void)self;
	for (unsigned i = 0; i < TENANTS; i++)
		if (there[i] && sl_bytes_equal(sl_bytes_of(rig_names[i]), name))
			return true;
	return false;
}

static uint32_t most(const void *self)
{
	(void)self;
	return 4;
}

static struct sl_ledger *make_maker(bool usage)
{
	static const struct sl_ledger_maker maker = {NULL, class_of, is_there, most};
	struct sl_ledger *ledger = make(1, 4096, 10, usage);

	memset(there, 0, sizeof(there));
	sl_ledger_made_by(ledger, &maker);
	return ledger;
}

// The shard gives its rows back.
static void rest(struct sl_ledger *ledger)
{
	for (unsigned i = 0; i < 2 * SL_LEDGER_COLD_NS / SL_LEDGER_FOLD_NS; i++) {
		sl_ledger_fold(ledger, true);
		sl_ledger_book_turn(sl_ledger_book_of(ledger, 0));
	}
	sl_ledger_fold(ledger, true);
}

// Looks at all: one that goes leaves its place to another.
static void depart(struct sl_ledger *ledger, uint64_t keep_ns, uint64_t now_ns)
{
	for (unsigned i = 0; i < 3; i++)
		sl_ledger_depart(ledger, keep_ns, now_ns);
}

static void test_leaves(void **state)
{
	struct sl_ledger *ledger = make_maker(false);
	struct sl_ledger_stats stats;

	(void)state;
	depart(ledger, 10 * SL_S, 1000 * SL_S);
	take(ledger, 1, 5);
	take(ledger, 101, 7);
	take(ledger, 102, 11);
	take(ledger, 201, 13);
	there[102] = true;
	depart(ledger, 10 * SL_S, 1020 * SL_S);
	assert_int_equal(count_of(ledger, "t101", SL_LEDGER_ACCEPTED, 0).items, 7); // has a row
	rest(ledger);
	depart(ledger, 30 * SL_S, 1025 * SL_S);
	assert_int_equal(count_of(ledger, "t101", SL_LEDGER_ACCEPTED, 0).items, 7); // too soon
	depart(ledger, 10 * SL_S, 1025 * SL_S);
	assert_null(sl_ledger_find(ledger, SL_LITERAL("t101")));
	assert_null(sl_ledger_find(ledger, SL_LITERAL("t201")));
	assert_int_equal(count_of(ledger, "_departed:free", SL_LEDGER_ACCEPTED, 0).bytes, 700);
	assert_int_equal(count_of(ledger, "_departed:", SL_LEDGER_ACCEPTED, 0).items, 13);
	// Who is configured, or there, stays.
	assert_int_equal(count_of(ledger, "t1", SL_LEDGER_ACCEPTED, 0).items, 5);
	assert_int_equal(count_of(ledger, "t102", SL_LEDGER_ACCEPTED, 0).items, 11);
	there[102] = false;
	// Who comes again begins anew, and goes into the same account.
	take(ledger, 101, 1);
	assert_int_equal(count_of(ledger, "t101", SL_LEDGER_ACCEPTED, 0).items, 1);
	rest(ledger);
	depart(ledger, 10 * SL_S, 1040 * SL_S);
	assert_int_equal(count_of(ledger, "_departed:free", SL_LEDGER_ACCEPTED, 0).items, 19);
	assert_int_equal(sum_of(ledger, SL_LEDGER_ACCEPTED).items, 5 + 7 + 11 + 13 + 1);
	sl_ledger_stats(ledger, &stats);
	assert_int_equal(stats.accounts, 3);
	assert_int_equal(stats.departed, 4);
	assert_int_equal(ledger->made, 0);
	sl_ledger_destroy(ledger);
}

// A name that the configuration has by now is a tenant's own.
static void test_configured(void **state)
{
	struct sl_ledger *ledger = make_maker(false);
	struct sl_request request;
	struct sl_ledger_book *book = sl_ledger_book_of(ledger, 0);

	(void)state;
	take(ledger, 101, 7);
	fill(&request, 5, 3, 3);
	request.first_part.tenant_name = name_of(101);
	sl_ledger_received(book, &request);
	sl_ledger_answered(book, &request);
	rest(ledger);
	depart(ledger, SL_S, 1000 * SL_S);
	depart(ledger, SL_S, 2000 * SL_S);
	assert_int_equal(count_of(ledger, "t101", SL_LEDGER_ACCEPTED, 0).items, 10);
	sl_ledger_destroy(ledger);
}

// Bills are by name, and once: what is not cut, or not confirmed, keeps its account; and what has
// been billed is not billed again for where it lies now.
static void test_usage(void **state)
{
	struct sl_ledger *ledger = make_maker(true), *read;
	struct sl_ledger_usage usage;
	char *text, error[200] = "";
	size_t size;

	(void)state;
	depart(ledger, SL_S, 1000 * SL_S);
	take(ledger, 101, 7);
	rest(ledger);
	depart(ledger, SL_S, 2000 * SL_S);
	assert_int_equal(count_of(ledger, "t101", SL_LEDGER_ACCEPTED, 0).items, 7);
	assert_true(sl_ledger_cut(ledger, 1002 * SL_S));
	depart(ledger, SL_S, 3000 * SL_S);
	assert_int_equal(count_of(ledger, "t101", SL_LEDGER_ACCEPTED, 0).items, 7);
	// A restart between the cut and its confirmation changes nothing of it.
	text = sl_ledger_write(ledger, &size);
	sl_ledger_destroy(ledger);
	read = make_maker(true);
	assert_int_equal(sl_ledger_read(read, sl_bytes(text, size), error, sizeof(error)), 0);
	free(text);
	assert_int_equal(read->made, 1);
	depart(read, SL_S, 4000 * SL_S);
	depart(read, SL_S, 5000 * SL_S);
	assert_int_equal(count_of(read, "t101", SL_LEDGER_ACCEPTED, 0).items, 7);
	assert_true(sl_ledger_usage_next(read, 0, &usage));
	assert_string_equal(usage.key, "t101/traces/0102030405060708/1000000/1");
	assert_non_null(strstr(usage.value, "\"accepted\":{\"items\":7,"));
	free(usage.key);
	free(usage.value);
	sl_ledger_usage_confirm(read, 0);
	depart(read, SL_S, 6000 * SL_S);
	assert_null(sl_ledger_find(read, SL_LITERAL("t101")));
	assert_false(sl_ledger_cut(read, 1003 * SL_S)); // nothing new
	// The class' account is in the file as any other.
	text = sl_ledger_write(read, &size);
	sl_ledger_destroy(read);
	read = make_maker(true);
	assert_int_equal(sl_ledger_read(read, sl_bytes(text, size), error, sizeof(error)), 0);
	free(text);
	assert_int_equal(count_of(read, "_departed:free", SL_LEDGER_ACCEPTED, 0).items, 7);
	assert_false(sl_ledger_cut(read, 1004 * SL_S));
	sl_ledger_destroy(read);
}

// What was there before a restart is kept by name for as long as it would have been after its end.
static void test_restart(void **state)
{
	struct sl_ledger *ledger = make_maker(false), *read = make_maker(false);
	char *text, error[200] = "";
	size_t size;

	(void)state;
	take(ledger, 101, 7);
	text = sl_ledger_write(ledger, &size);
	assert_non_null(strstr(text, "tenant t101\nmade free\n"));
	assert_int_equal(sl_ledger_read(read, sl_bytes(text, size), error, sizeof(error)), 0);
	free(text);
	sl_ledger_destroy(ledger);
	depart(read, 10 * SL_S, 1000 * SL_S);
	depart(read, 10 * SL_S, 1009 * SL_S);
	assert_non_null(sl_ledger_find(read, SL_LITERAL("t101")));
	depart(read, 10 * SL_S, 1010 * SL_S);
	assert_null(sl_ledger_find(read, SL_LITERAL("t101")));
	sl_ledger_destroy(read);
}

// Names without end, none of which is there for long: the accounts are bounded, whatever the time
// they are kept for, and every item is in one of them.
static void test_bounded(void **state)
{
	enum { NAMES = SL_LEDGER_DEPARTED_MAX + 20000 };
	struct sl_ledger *ledger = make_maker(false);
	struct sl_ledger_book *book = sl_ledger_book_of(ledger, 0);
	struct sl_ledger_stats stats;
	struct sl_request request;
	uint64_t now_ns = SL_S;
	char name[16];

	(void)state;
	book->newcomers = 150;
	for (uint32_t i = 0; i < NAMES; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		fill(&request, 150, 1, 1);
		request.first_part.tenant_name = sl_bytes_of(name);
		sl_ledger_received(book, &request);
		sl_ledger_answered(book, &request);
		if (i % SL_LEDGER_NEWCOMERS_MAX < SL_LEDGER_NEWCOMERS_MAX - 1)
			continue;
		ledger->hurry = 2; // rows are given back at the next pass
		for (unsigned j = 0; j < 3; j++) {
			sl_ledger_fold(ledger, true);
			sl_ledger_book_turn(book);
		}
		// With nobody looking for those that left it is bounded as well.
		if (i > NAMES / 2)
			sl_ledger_depart(ledger, 3600 * SL_S, now_ns++);
		assert_true(ledger->made <= SL_LEDGER_DEPARTED_MAX + 4);
	}
	rest(ledger);
	for (unsigned i = 0; i < 30; i++)
		sl_ledger_depart(ledger, 3600 * SL_S, now_ns++);
	sl_ledger_stats(ledger, &stats);
	print_message("%u accounts of %u names\n", stats.accounts, NAMES);
	assert_true(stats.accounts <= SL_LEDGER_DEPARTED_MAX / 2 + 8);
	assert_int_equal(sum_of(ledger, SL_LEDGER_ACCEPTED).items, NAMES);
	for (unsigned i = 0; i < 40; i++)
		sl_ledger_depart(ledger, SL_S, now_ns + 10 * SL_S);
	assert_int_equal(ledger->made, 0);
	assert_int_equal(count_of(ledger, "_departed:free", SL_LEDGER_ACCEPTED, 0).items +
				 count_of(ledger, "_other", SL_LEDGER_ACCEPTED, 0).items,
			 NAMES);
	sl_ledger_destroy(ledger);
}

// With nobody looking for those that left, new names count with their class at the bound.
static void test_full(void **state)
{
	struct sl_ledger *ledger = make_maker(false);
	char name[16];

	(void)state;
	for (uint32_t i = 0; i < SL_LEDGER_DEPARTED_MAX + 4; i++) {
		struct sl_ledger_account *account;

		snprintf(name, sizeof(name), "n%u", i);
		account = sl_ledger_account(ledger, sl_bytes_of(name));
		assert_non_null(account);
		sl_ledger_mark(ledger, account, "free");
	}
	take(ledger, 101, 7);
	take(ledger, 1, 5);
	assert_null(sl_ledger_find(ledger, SL_LITERAL("t101")));
	assert_int_equal(count_of(ledger, "_departed:free", SL_LEDGER_ACCEPTED, 0).items, 7);
	assert_int_equal(count_of(ledger, "t1", SL_LEDGER_ACCEPTED, 0).items, 5);
	sl_ledger_destroy(ledger);
}

// Every account is found after any other has gone.
static void test_index(void **state)
{
	struct sl_ledger *ledger = make_maker(false);
	bool gone[TENANTS] = {false};
	struct sl_random random;

	(void)state;
	sl_random_init(&random, 7);
	for (unsigned i = 0; i < TENANTS; i++)
		assert_non_null(sl_ledger_account(ledger, sl_bytes_of(rig_names[i])));
	for (unsigned round = 0; round < TENANTS; round++) {
		const unsigned at = (unsigned)sl_random_below(&random, TENANTS);

		if (!gone[at])
			sl_ledger_remove(ledger, sl_ledger_find(ledger, name_of(at)));
		gone[at] = true;
		for (unsigned i = 0; i < TENANTS; i++) {
			struct sl_ledger_account *account = sl_ledger_find(ledger, name_of(i));

			assert_true(!account == gone[i]);
			assert_true(!account ||
				    sl_bytes_equal(sl_ledger_name(account), name_of(i)));
		}
	}
	sl_ledger_destroy(ledger);
}

// --- destinations --------------------------------------------------------------------------------

static void end_at(struct sl_ledger *ledger, sl_tenant_id tenant, uint32_t destination)
{
	sl_ledger_ended(sl_ledger_book_of(ledger, 0), &(struct sl_ending){
							      .tenant = tenant,
							      .tenant_name = name_of(tenant),
							      .destination = destination,
							      .items = destination + 1,
							      .records = 1,
						      });
}

// A life has had many destinations: each has its own count, of a tenant, of those without one, and
// after a restart; and a name that nothing is counted for gives its number back there.
static void test_destinations(void **state)
{
	struct sl_ledger *ledger = make(1, 4096, 10, false), *read = make(1, 64, 10, false);
	char name[16], error[200] = "", *text;
	uint64_t sum = 0;
	size_t size;

	(void)state;
	for (uint32_t i = 1; i <= 200; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		assert_int_equal(sl_ledger_number(ledger, name), i);
		if (i % 2)
			continue; // nothing ever goes there
		end_at(ledger, 1, i);
		end_at(ledger, SL_TENANT_NONE, i);
		sum += 2 * (i + 1);
	}
	sl_ledger_fold(ledger, false);
	assert_int_equal(count_of(ledger, "t1", SL_LEDGER_DELIVERED, 200).items, 201);
	assert_int_equal(count_of(ledger, "_unknown", SL_LEDGER_DELIVERED, 198).items, 199);
	text = sl_ledger_write(ledger, &size);
	assert_int_equal(sl_ledger_read(read, sl_bytes(text, size), error, sizeof(error)), 0);
	free(text);
	assert_int_equal(sum_of(read, SL_LEDGER_DELIVERED).items, sum);
	assert_int_equal(sl_ledger_number(read, "d200"), 100);
	assert_int_equal(sl_ledger_number(read, "d199"), 101);
	assert_int_equal(count_of(read, "t1", SL_LEDGER_DELIVERED, 100).items, 201);
	sl_ledger_destroy(ledger);
	sl_ledger_destroy(read);
}

// What finds no number, or no room in a row that everybody shares, is `_other`, and nothing is
// lost.
static void test_destinations_full(void **state)
{
	struct sl_ledger *ledger = make(1, 64, 10, false);
	uint64_t sum = 0;
	char name[16];

	(void)state;
	for (uint32_t i = 1; i < SL_LEDGER_DESTINATIONS_MAX + 10; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		const uint32_t number = sl_ledger_number(ledger, name);

		assert_int_equal(number, i < SL_LEDGER_DESTINATIONS_MAX ? i : 0);
		end_at(ledger, SL_TENANT_NONE, number);
		end_at(ledger, 1, number);
		sum += 2 * (number + 1);
	}
	sl_ledger_turned_away(sl_ledger_book_of(ledger, 0),
			      &(struct sl_request){.tenant = SL_TENANT_NONE}, SL_REASON_MALFORMED);
	sl_ledger_fold(ledger, false);
	assert_int_equal(sum_of(ledger, SL_LEDGER_DELIVERED).items, sum);
	assert_true(count_of(ledger, "_unknown", SL_LEDGER_DELIVERED, 0).items > 0);
	assert_int_equal(
		count_of(ledger, "_unknown", SL_LEDGER_REFUSED, SL_REASON_MALFORMED).requests, 1);
	sl_ledger_destroy(ledger);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_leaves),
		cmocka_unit_test(test_configured),
		cmocka_unit_test(test_usage),
		cmocka_unit_test(test_restart),
		cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_index),
		cmocka_unit_test(test_destinations),
		cmocka_unit_test(test_destinations_full),
	};

	return cmocka_run_group_tests(tests, rig_set_up, NULL);
}
