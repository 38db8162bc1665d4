#include <time.h>

#include "tests/unit/test.h"

#include "dataplane/http/internal.h"

// Field values are looked at eight bytes at a time: every byte at every place of every length
// around that, among neighbours that could carry into it, gives what RFC 9110, section 5.5 says.

#define LONGEST 27

static bool allowed(unsigned byte)
{
	return byte == '\t' || (byte >= 0x20 && byte != 0x7f);
}

static void test_every_byte_everywhere(void **state)
{
	static const uint8_t neighbours[] = {'\t', ' ', '~', 0x80, 0x89, 0xff};

	(void)state;
	for (size_t size = 1; size <= LONGEST; size++) {
		for (size_t row = 0; row < SL_COUNT_OF(neighbours); row++) {
			// On its own memory: a read behind the end is the sanitizer's to find.
			uint8_t *value = malloc(size);

			assert_non_null(value);
			memset(value, neighbours[row], size);
			assert_true(sl_http_value_is_valid(sl_bytes(value, size)));
			for (size_t at = 0; at < size; at++) {
				for (unsigned byte = 0; byte < 256; byte++) {
					value[at] = (uint8_t)byte;
					assert_int_equal(
						sl_http_value_is_valid(sl_bytes(value, size)),
						allowed(byte));
				}
				value[at] = neighbours[row];
			}
			free(value);
		}
	}
}

static void test_nothing_is_valid(void **state)
{
	(void)state;
	assert_true(sl_http_value_is_valid(SL_BYTES_NONE));
}

static const struct {
	const char *why;
	uint64_t seconds;
	const char *want;
} dates[] = {
	{"the epoch", 0, "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"},
	{"RFC 9110's example", 784111777, "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"},
	{"a day before a leap day", 951782399, "date: Mon, 28 Feb 2000 23:59:59 GMT\r\n"},
	{"the leap day of a century", 951782400, "date: Tue, 29 Feb 2000 00:00:00 GMT\r\n"},
	{"the day after it", 951868800, "date: Wed, 01 Mar 2000 00:00:00 GMT\r\n"},
	{"a year's last second", 1798761599, "date: Thu, 31 Dec 2026 23:59:59 GMT\r\n"},
	{"a century without one", 4107542400, "date: Mon, 01 Mar 2100 00:00:00 GMT\r\n"},
	{"the last that has four digits", 253402300799, "date: Fri, 31 Dec 9999 23:59:59 GMT\r\n"},
};

static void test_dates(void **state)
{
	char date[SL_HTTP_DATE_BYTES + 1] = "", want[SL_HTTP_DATE_BYTES + 1];

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(dates); i++) {
		sl_http_date_print(date, dates[i].seconds);
		if (strcmp(date, dates[i].want) != 0)
			fail_msg("%s: %s", dates[i].why, date);
	}
	// Every day of four centuries is what the C library makes of it.
	for (time_t second = 12345; second < (time_t)146100 * 86400; second += 86400) {
		struct tm utc;

		gmtime_r(&second, &utc);
		strftime(want, sizeof(want), "date: %a, %d %b %Y %H:%M:%S GMT\r\n", &utc);
		sl_http_date_print(date, (uint64_t)second);
		assert_string_equal(date, want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_byte_everywhere),
		cmocka_unit_test(test_nothing_is_valid),
		cmocka_unit_test(test_dates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
