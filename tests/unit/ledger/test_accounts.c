#include "tests/unit/test.h"

#include <errno.h>
#include <unistd.h>

#include "dataplane/base/disk.h"
#include "tests/unit/ledger/rig.h"

char rig_names[TENANTS][8];

// --- usage ---------------------------------------------------------------------------------------

static void check_usage(struct sl_ledger *ledger, uint32_t from, const char *key, const char *part)
{
	struct sl_ledger_usage usage;

	assert_true(sl_ledger_usage_next(ledger, from, &usage));
	assert_string_equal(usage.key, key);
	assert_non_null(strstr(usage.value, part));
	free(usage.key);
	free(usage.value);
}

static void test_cut(void **state)
{
	static const char first[] = "t1/traces/0102030405060708/1000000/1";
	struct sl_ledger *ledger = make(1, 64, 10, true);
	struct sl_ledger_usage none;

	(void)state;
	assert_false(sl_ledger_cut(ledger, 1001 * SL_S)); // nobody has sent
	take(ledger, 1, 5);
	take(ledger, 2, 6);
	assert_true(sl_ledger_cut(ledger, 1002 * SL_S));
	check_usage(ledger, 0, first, "\"from\":\"1970-01-01T00:16:40.000Z\"");
	check_usage(ledger, 0, first, "\"to\":\"1970-01-01T00:16:42.000Z\"");
	// What comes meanwhile changes nothing of it, and is not cut before all is confirmed.
	take(ledger, 1, 7);
	assert_false(sl_ledger_cut(ledger, 1003 * SL_S));
	check_usage(ledger, 0, first, "\"accepted\":{\"items\":5,\"bytes\":500");
	sl_ledger_usage_confirm(ledger, 0);
	sl_ledger_usage_confirm(ledger, 0); // a duplicate's
	check_usage(ledger, 0, "t2/traces/0102030405060708/1000000/1", "{\"items\":6,");
	sl_ledger_usage_confirm(ledger, 1);
	assert_false(sl_ledger_usage_next(ledger, 0, &none));
	assert_true(sl_ledger_cut(ledger, 1004 * SL_S));
	check_usage(ledger, 0, "t1/traces/0102030405060708/1002000/2",
		    "\"accepted\":{\"items\":7,\"bytes\":700");
	sl_ledger_destroy(ledger);
}

// --- the file ------------------------------------------------------------------------------------

static struct sl_ledger *make_written(char **text, size_t *size)
{
	struct sl_ledger *ledger = make(1, 64, 10, true);
	struct sl_ledger_book *book = sl_ledger_book_of(ledger, 0);
	struct sl_request open;

	take(ledger, 1, 5);
	sl_ledger_cut(ledger, 1002 * SL_S);
	take(ledger, 1, 7);
	sl_ledger_ended(book, &(struct sl_ending){
				      .tenant = 1,
				      .tenant_name = name_of(1),
				      .destination = sl_ledger_number(ledger, "main"),
				      .items = 12,
				      .bytes = 99,
				      .records = 2,
			      });
	sl_ledger_received(book, fill(&open, 2, 9, 9));
	open.tenant = 2;
	open.tenant_name = name_of(2);
	sl_ledger_turned_away(book, &open, SL_REASON_QUOTA_EXCEEDED);
	sl_ledger_fold(ledger, false);
	*text = sl_ledger_write(ledger, size);
	assert_non_null(*text);
	return ledger;
}

static void test_round(void **state)
{
	char *text, error[200] = "", *again;
	size_t size, again_size;
	struct sl_ledger *ledger = make_written(&text, &size), *read = make(2, 64, 10, true);

	(void)state;
	sl_ledger_number(read, "other"); // numbers differ, names do not
	assert_int_equal(sl_ledger_read(read, sl_bytes(text, size), error, sizeof(error)), 0);
	free(text);
	sl_ledger_destroy(ledger);
	assert_int_equal(count_of(read, "t1", SL_LEDGER_ACCEPTED, 0).items, 12);
	assert_int_equal(
		count_of(read, "t1", SL_LEDGER_DELIVERED, sl_ledger_number(read, "main")).bytes,
		99);
	assert_int_equal(count_of(read, "t2", SL_LEDGER_UNANSWERED, 0).items, 9);
	assert_int_equal(count_of(read, "t2", SL_LEDGER_IN_FLIGHT, 0).items, 0);
	assert_int_equal(
		count_of(read, "t2", SL_LEDGER_THROTTLED, SL_REASON_QUOTA_EXCEEDED).requests, 1);
	// What was cut and not confirmed is the same record again.
	check_usage(read, 0, "t1/traces/0102030405060708/1000000/1",
		    "\"accepted\":{\"items\":5,\"bytes\":500");
	sl_ledger_usage_confirm(read, 0);
	assert_true(sl_ledger_cut(read, 1009 * SL_S));
	check_usage(read, 0, "t1/traces/0102030405060708/1002000/2",
		    "\"accepted\":{\"items\":7,\"bytes\":700");
	// What a third one makes of it is the same text.
	again = sl_ledger_write(read, &again_size);
	ledger = make(1, 64, 10, true);
	assert_int_equal(sl_ledger_read(ledger, sl_bytes(again, again_size), error, sizeof(error)),
			 0);
	text = sl_ledger_write(ledger, &size);
	assert_string_equal(text, again);
	free(text);
	free(again);
	sl_ledger_destroy(ledger);
	sl_ledger_destroy(read);
}

// A destination may be called as a kind is: what it delivered is billed once.
static void test_names_of_kinds(void **state)
{
	struct sl_ledger *ledger = make(1, 64, 10, true), *read = make(1, 64, 10, true);
	struct sl_ledger_usage usage;
	char *text, error[200];
	size_t size;

	(void)state;
	for (unsigned i = 0; i < 2; i++)
		sl_ledger_ended(sl_ledger_book_of(ledger, 0),
				&(struct sl_ending){
					.tenant = 1,
					.tenant_name = name_of(1),
					.destination = sl_ledger_number(ledger, i ? "unanswered"
										  : "in_flight"),
					.items = 12,
					.records = 1,
				});
	sl_ledger_fold(ledger, false);
	assert_true(sl_ledger_cut(ledger, 1002 * SL_S));
	assert_true(sl_ledger_usage_next(ledger, 0, &usage));
	free(usage.key);
	free(usage.value);
	sl_ledger_usage_confirm(ledger, 0);
	text = sl_ledger_write(ledger, &size);
	assert_int_equal(sl_ledger_read(read, sl_bytes(text, size), error, sizeof(error)), 0);
	assert_false(sl_ledger_cut(read, 1003 * SL_S)); // all of it has been sent
	free(text);
	sl_ledger_destroy(ledger);
	sl_ledger_destroy(read);
}

// Every cut and every changed byte is refused, and nothing of it is taken.
static void test_torn(void **state)
{
	char *text, error[200];
	size_t size;
	struct sl_ledger *ledger = make_written(&text, &size), *read = make(1, 64, 10, true);

	(void)state;
	for (size_t i = 0; i < size; i++) {
		assert_int_equal(sl_ledger_read(read, sl_bytes(text, i), error, sizeof(error)),
				 -EINVAL);
		text[i] ^= (char)(1 << i % 7);
		assert_int_equal(sl_ledger_read(read, sl_bytes(text, size), error, sizeof(error)),
				 -EINVAL);
		text[i] ^= (char)(1 << i % 7);
		assert_int_equal(read->account_count, 0);
	}
	assert_int_equal(sl_ledger_read(read, sl_bytes(text, size), error, sizeof(error)), 0);
	free(text);
	sl_ledger_destroy(ledger);
	sl_ledger_destroy(read);
}

static void test_file(void **state)
{
	char folder[] = "/tmp/ledger-XXXXXX", path[64], aside[64], *text, error[200] = "";
	struct sl_ledger *ledger, *read = make(1, 64, 10, true);
	size_t size;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/ledger", folder);
	snprintf(aside, sizeof(aside), "%s/ledger.refused-7", folder);
	assert_int_equal(sl_ledger_load(read, path, 7 * SL_MS, error, sizeof(error)), 0);
	ledger = make_written(&text, &size);
	assert_int_equal(sl_disk_replace(path, sl_bytes(text, size - 1)), 0);
	assert_int_equal(sl_ledger_load(read, path, 7 * SL_MS, error, sizeof(error)), -EINVAL);
	assert_non_null(strstr(error, "torn"));
	assert_int_not_equal(access(path, F_OK), 0);
	assert_int_equal(unlink(aside), 0); // it was kept
	assert_int_equal(sl_disk_replace(path, sl_bytes(text, size)), 0);
	assert_int_equal(sl_ledger_load(read, path, 7 * SL_MS, error, sizeof(error)), 1);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(folder), 0); // nothing else was left
	assert_true(sl_disk_replace("/nowhere/at/all", sl_bytes(text, size)) < 0);
	free(text);
	sl_ledger_destroy(ledger);
	sl_ledger_destroy(read);
}

// --- series --------------------------------------------------------------------------------------

// The value of a tenant's series; -1: it is not there.
static double series(struct sl_ledger *ledger, const char *tenant)
{
	char name[120];
	size_t size;
	char *text = sl_ledger_metrics(ledger, &size), *at;
	double value = -1;

	assert_non_null(text);
	snprintf(name, sizeof(name),
		 "sluice_tenant_received_items_total{tenant=\"%s\",signal=\"traces\"} ", tenant);
	at = strstr(text, name);
	if (at)
		value = strtod(at + strlen(name), NULL);
	free(text);
	return value;
}

static void test_export(void **state)
{
	struct sl_ledger *ledger = make(1, 64, 2, false);
	uint64_t now_ns = 100 * SL_S;

	(void)state;
	take(ledger, 1, 100);
	take(ledger, 2, 200);
	take(ledger, 3, 150);
	assert_int_equal(series(ledger, "t1"), 100);
	assert_int_equal(series(ledger, "t2"), 200);
	assert_int_equal(series(ledger, "t3"), -1);
	assert_int_equal(series(ledger, "_other"), 150);
	// Larger, but not twice as large: nobody's series ends.
	sl_ledger_rank(ledger, 2, now_ns);
	take(ledger, 3, 1);
	sl_ledger_rank(ledger, 2, now_ns += 100 * SL_S);
	assert_int_equal(series(ledger, "t3"), -1);
	// Now it is; what it had stays where it was.
	take(ledger, 3, 1000);
	sl_ledger_rank(ledger, 2, now_ns += 100 * SL_S);
	assert_int_equal(series(ledger, "t1"), -1);
	assert_int_equal(series(ledger, "_other"), 1151);
	take(ledger, 3, 5);
	take(ledger, 1, 7);
	assert_int_equal(series(ledger, "t3"), 5);
	assert_int_equal(series(ledger, "_other"), 1158);
	// Who has just come in stays, however large another is.
	take(ledger, 1, 100000);
	sl_ledger_rank(ledger, 1, now_ns += 10 * SL_S);
	assert_int_equal(series(ledger, "t1"), -1);
	// Back again, it goes on from where it was.
	sl_ledger_rank(ledger, 2, now_ns += 100 * SL_S);
	take(ledger, 1, 3);
	assert_int_equal(series(ledger, "t1"), 103);
	sl_ledger_destroy(ledger);
}

// Whoever comes and goes, no series falls, and those that are told are all there is.
static void test_monotonic(void **state)
{
	struct sl_ledger *ledger = make(1, 1024, 5, false);
	double last[31] = {0};
	struct sl_random random;

	(void)state;
	sl_random_init(&random, 5);
	for (unsigned step = 0; step < 300; step++) {
		const uint32_t base = step / 30 * 3;

		for (unsigned i = 0; i < 5; i++)
			take(ledger, (base + (uint32_t)sl_random_below(&random, 8)) % 30,
			     (uint32_t)sl_random_below(&random, 1000));
		sl_ledger_rank(ledger, 1 + step % 6, step * 20 * SL_S);
		for (unsigned t = 0; t <= 30; t++) {
			const double value = series(ledger, t < 30 ? rig_names[t] : "_other");

			assert_true(value < 0 || value >= last[t]);
			last[t] = SL_MAX(value, last[t]);
		}
	}
	assert_true(last[30] > 0);
	sl_ledger_destroy(ledger);
}

// 100,000 tenants that have sent and are idle: an account each, and no row.
static void test_many(void **state)
{
	static const enum sl_ledger_kind kinds[] = {SL_LEDGER_RECEIVED, SL_LEDGER_ACCEPTED,
						    SL_LEDGER_DELIVERED};
	struct sl_ledger *ledger = make(1, 64, 0, true);
	struct sl_ledger_counts change = {0};
	size_t bytes = 0;
	char name[16];

	(void)state;
	assert_int_equal(sl_ledger_counts_reserve(&change, 9), 0);
	for (uint32_t i = 0; i < 9; i++)
		sl_ledger_counts_add(&change,
				     sl_ledger_key(kinds[i % 3], (enum sl_signal)(i / 3), 0),
				     &(struct sl_ledger_cell){1, 2, 3});
	for (uint32_t i = 0; i < 100000; i++) {
		struct sl_ledger_account *account;

		snprintf(name, sizeof(name), "tenant-%u", i);
		account = sl_ledger_account(ledger, sl_bytes_of(name));
		assert_non_null(account);
		assert_int_equal(sl_ledger_book_change(ledger, account, &change), 0);
		sl_ledger_counts_fini(&account->unbilled); // as after a cut
		bytes += sizeof(*account) + account->name_bytes +
			 account->total.capacity * sizeof(*account->total.list);
	}
	bytes += ledger->accounts_max * (sizeof(struct sl_ledger_account *) + 2 * sizeof(uint32_t));
	print_message("%zu bytes a tenant of three signals\n", bytes / 100000);
	assert_true(bytes <= 512 * 100000);
	sl_ledger_counts_fini(&change);
	sl_ledger_destroy(ledger);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cut),    cmocka_unit_test(test_round),
		cmocka_unit_test(test_torn),   cmocka_unit_test(test_file),
		cmocka_unit_test(test_export), cmocka_unit_test(test_monotonic),
		cmocka_unit_test(test_many),   cmocka_unit_test(test_names_of_kinds),
	};

	return cmocka_run_group_tests(tests, rig_set_up, NULL);
}
