#include "tests/unit/test.h"

#include <errno.h>

#include "tenants/settings.h"

static struct sl_quota_tls_config tls = {.verify = true};

// Where a Redis is, by what is configured.
static const struct {
	const char *address;
	uint64_t database;
	bool tls;
	struct sl_quota_redis_place want; // no port: refused
} rows[] = {
	{"r1:6380", 0, false, {"r1", 6380, 0, false}},
	{"r1:6380", 3, true, {"r1", 6380, 3, true}},
	{"[::1]:6379", 0, false, {"::1", 6379, 0, false}},
	{"redis://127.0.0.1:6379/0", 0, false, {"127.0.0.1", 6379, 0, false}},
	{"redis://r1", 0, false, {"r1", 6379, 0, false}},
	{"redis://r1/", 2, false, {"r1", 6379, 2, false}},
	{"redis://r1/7", 2, false, {"r1", 6379, 7, false}},
	{"redis://[::1]/7", 0, false, {"::1", 6379, 7, false}},
	{"rediss://r1:7000", 0, false, {"r1", 7000, 0, true}},
	{"r1", 0, false, {.port = 0}},
	{"r1:6379/0", 0, false, {.port = 0}},
	{"r1:0", 0, false, {.port = 0}},
	{":6379", 0, false, {.port = 0}},
	{"", 0, false, {.port = 0}},
	{"redis://", 0, false, {.port = 0}},
	{"redis://r1/x", 0, false, {.port = 0}},
	{"redis://r1/1/2", 0, false, {.port = 0}},
	{"redis://r1/9999999", 0, false, {.port = 0}},
	{"redis://u:p@r1:6379", 0, false, {.port = 0}},
	{"http://r1:6379", 0, false, {.port = 0}},
};

static void places(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		const struct sl_quota_redis_config redis = {.address = rows[i].address,
							    .database = rows[i].database,
							    .tls = rows[i].tls ? &tls : NULL};
		struct sl_quota_redis_place place = {.port = 0};
		const int error = sl_quota_redis_place(&redis, &place);

		print_message("%s\n", rows[i].address);
		assert_int_equal(error, rows[i].want.port ? 0 : -EINVAL);
		if (error)
			continue;
		assert_string_equal(place.host, rows[i].want.host);
		assert_int_equal(place.port, rows[i].want.port);
		assert_int_equal(place.database, rows[i].want.database);
		assert_int_equal(place.tls, rows[i].want.tls);
	}
}

static void a_host_that_is_too_long(void **state)
{
	char address[400] = "redis://";
	const struct sl_quota_redis_config redis = {.address = address};
	struct sl_quota_redis_place place;

	(void)state;
	memset(address + 8, 'a', sizeof(address) - 9);
	assert_int_equal(sl_quota_redis_place(&redis, &place), -EINVAL);
	address[8 + 250] = 0;
	assert_int_equal(sl_quota_redis_place(&redis, &place), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(places),
		cmocka_unit_test(a_host_that_is_too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
