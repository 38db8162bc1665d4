#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tenants/redis.h"
#include "tenants/source.h"

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

// One that takes connections and says nothing: its listener and its address.
static int listen_silently(char *address, size_t address_size)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(at);
	const int silent = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	assert_int_equal(bind(silent, (struct sockaddr *)&at, size), 0);
	assert_int_equal(listen(silent, 8), 0);
	assert_int_equal(getsockname(silent, (struct sockaddr *)&at, &size), 0);
	snprintf(address, address_size, "127.0.0.1:%u", ntohs(at.sin_port));
	return silent;
}

// Whoever ends meanwhile does not wait for it.
static void nobody_waits_any_more(void **state)
{
	char address[40];
	const int silent = listen_silently(address, sizeof(address));
	const struct sl_quota_redis_config redis = {.address = address, .password = "secret"};
	const uint32_t stop = 1;
	struct sl_redis asked = {.stop = &stop};

	(void)state;
	assert_true(sl_redis_open(&asked, &redis) < 0);
	assert_string_equal(asked.problem, "it was not waited for");
	assert_int_equal(sl_redis_fd(&asked), -1);
	close(silent);
}

// A connection that was kept is made anew when it was closed; who is silent is not asked twice.
static void a_silent_one_is_asked_once(void **state)
{
	char address[40], problem[200];
	const int silent = listen_silently(address, sizeof(address));
	const struct sl_tenants_redis_config config = {
		.redis = {.address = address, .prefix = "p"}};
	struct sl_redis redis = {.answer_ns = 20 * SL_MS};
	struct sl_source_text *text;

	(void)state;
	for (unsigned closed = 0; closed < 2; closed++) {
		int first, second;

		assert_int_equal(sl_redis_open(&redis, &config.redis), 0);
		first = accept(silent, NULL, NULL);
		assert_true(first >= 0);
		if (closed)
			close(first);
		assert_true(sl_source_fetch(&config, &redis, NULL, &text, problem,
					    sizeof(problem)) < 0);
		assert_string_equal(problem, "it does not answer");
		second = accept(silent, NULL, NULL);
		assert_int_equal(second >= 0, closed);
		close(closed ? second : first);
		sl_redis_close(&redis);
	}
	close(silent);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(places),
		cmocka_unit_test(a_host_that_is_too_long),
		cmocka_unit_test(nobody_waits_any_more),
		cmocka_unit_test(a_silent_one_is_asked_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
