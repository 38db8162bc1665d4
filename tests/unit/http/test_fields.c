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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_byte_everywhere),
		cmocka_unit_test(test_nothing_is_valid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
