#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/io/dpdk/sum.h"

#define PLACES 33 // every distance from a vector's bound, and one
#define MOST   (64 * SL_KIB + 100)

static uint32_t drawn = 1;

static uint8_t draw(void)
{
	drawn = drawn * 1664525 + 1013904223;
	return (uint8_t)(drawn >> 24);
}

// RFC 1071, 4.1, byte by byte.
static uint16_t by_the_book(const uint8_t *data, size_t size)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < size; i++) {
		sum += i % 2 ? (uint32_t)data[i] << 8 : data[i];
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return (uint16_t)sum;
}

enum { NOTHING, ONES, HIGH, DRAWN, KINDS };

static void fill(uint8_t *data, size_t size, int kind)
{
	for (size_t i = 0; i < size; i++)
		data[i] = kind == NOTHING ? 0 : kind == ONES ? 0xff : kind == HIGH ? 0x80 : draw();
}

static void test_agrees(void **state)
{
	static const size_t large[] = {1448, 1460, 2048, 8948, 65535, MOST - PLACES};
	uint8_t *data = malloc(MOST);

	(void)state;
	for (int kind = 0; kind < KINDS; kind++) {
		fill(data, MOST, kind);
		for (size_t at = 0; at < PLACES; at++) {
			for (size_t size = 0; size < 400; size++) {
				const uint16_t want = by_the_book(data + at, size);

				assert_int_equal(sl_sum(data + at, size), want);
				assert_int_equal(sl_sum_scalar(data + at, size), want);
			}
		}
		for (size_t i = 0; i < SL_COUNT_OF(large); i++) {
			const uint16_t want = by_the_book(data + i, large[i]);

			assert_int_equal(sl_sum(data + i, large[i]), want);
			assert_int_equal(sl_sum_scalar(data + i, large[i]), want);
		}
	}
	free(data);
}

// The memory ends with the bytes: a sanitizer would see a look beyond.
static void test_stays_inside(void **state)
{
	(void)state;
	for (size_t size = 1; size < 300; size++) {
		uint8_t *data = malloc(size);

		fill(data, size, DRAWN);
		assert_int_equal(sl_sum(data, size), by_the_book(data, size));
		free(data);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_agrees),
		cmocka_unit_test(test_stays_inside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
