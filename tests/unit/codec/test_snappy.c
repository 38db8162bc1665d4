#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/codec/snappy.h"

#define ROOM 200

#define HEAD "\xff\x06\0\0sNaPpY"
// Chunks as golang/snappy writes them: "abcdefgh" plain, 60 times "ab" compressed.
#define LETTERS                                                                                    \
	"\x01\x0c\0\0\0\0\xf1\xe5"                                                                 \
	"abcdefgh"
#define PAIRS                                                                                      \
	"\0\x0e\0\0\xcf\xb7\x2c\x0b\x78\x04"                                                       \
	"ab\xfe\x02\0\xd6\x02\0"
#define PADDING "\xfe\x02\0\0??"

static const struct {
	const char *why;
	struct sl_bytes in;
	enum sl_codec_result result;
	const char *want; // where OK: this, `times` times
	size_t times;
} rows[] = {
	{"nothing in a block", SL_LITERAL("\0"), SL_CODEC_OK, "", 1},
	{"a literal",
	 SL_LITERAL("\x08\x1c"
		    "abcdefgh"),
	 SL_CODEC_OK, "abcdefgh", 1},
	{"copies that repeat themselves",
	 SL_LITERAL("\x78\x04"
		    "ab\xfe\x02\0\xd6\x02\0"),
	 SL_CODEC_OK, "ab", 60},
	{"a short copy",
	 SL_LITERAL("\x08\x0c"
		    "abcd\x01\x04"),
	 SL_CODEC_OK, "abcd", 2},
	{"a copy with an offset of four bytes",
	 SL_LITERAL("\x08\x0c"
		    "abcd\x0f\x04\0\0\0"),
	 SL_CODEC_OK, "abcd", 2},
	{"a literal's length in one byte",
	 SL_LITERAL("\x08\xf0\x07"
		    "abcdefgh"),
	 SL_CODEC_OK, "abcdefgh", 1},
	{"in four",
	 SL_LITERAL("\x08\xfc\x07\0\0\0"
		    "abcdefgh"),
	 SL_CODEC_OK, "abcdefgh", 1},
	{"no length", SL_LITERAL("\x80"), SL_CODEC_CORRUPT, NULL, 0},
	{"a length beyond 32 bits", SL_LITERAL("\x80\x80\x80\x80\x10\0"), SL_CODEC_CORRUPT, NULL,
	 0},
	{"a length that the rest cannot make",
	 SL_LITERAL("\xff\xff\x03\x04"
		    "ab"),
	 SL_CODEC_CORRUPT, NULL, 0},
	{"more than was said",
	 SL_LITERAL("\x07\x1c"
		    "abcdefgh"),
	 SL_CODEC_CORRUPT, NULL, 0},
	{"less than was said",
	 SL_LITERAL("\x09\x1c"
		    "abcdefgh"),
	 SL_CODEC_CORRUPT, NULL, 0},
	{"a literal beyond the end",
	 SL_LITERAL("\x09\x20"
		    "abcdefgh"),
	 SL_CODEC_CORRUPT, NULL, 0},
	{"a literal of 4 GiB",
	 SL_LITERAL("\x08\xfc\xff\xff\xff\xff"
		    "abcdefgh"),
	 SL_CODEC_CORRUPT, NULL, 0},
	{"a literal's length is cut", SL_LITERAL("\x08\xf4\x07"), SL_CODEC_CORRUPT, NULL, 0},
	{"a copy from before the start",
	 SL_LITERAL("\x08\x0c"
		    "abcd\x01\x05"),
	 SL_CODEC_CORRUPT, NULL, 0},
	{"a copy of what is to come",
	 SL_LITERAL("\x08\x0c"
		    "abcd\x01\0"),
	 SL_CODEC_CORRUPT, NULL, 0},
	{"a copy is cut",
	 SL_LITERAL("\x08\x0c"
		    "abcd\x01"),
	 SL_CODEC_CORRUPT, NULL, 0},
	{"a copy beyond the end",
	 SL_LITERAL("\x08\x0c"
		    "abcd\x05\x04"),
	 SL_CODEC_CORRUPT, NULL, 0},
	{"more than there is room for",
	 SL_LITERAL("\xc9\x01\0a\xfe\x01\0\xfe\x01\0\xfe\x01\0\x1e\x01\0"), SL_CODEC_TOO_LARGE,
	 NULL, 0},
	{"a stream of nothing", SL_LITERAL(HEAD), SL_CODEC_OK, "", 1},
	{"a plain chunk", SL_LITERAL(HEAD LETTERS), SL_CODEC_OK, "abcdefgh", 1},
	{"a compressed chunk", SL_LITERAL(HEAD PAIRS), SL_CODEC_OK, "ab", 60},
	{"chunks, with what may be skipped between",
	 SL_LITERAL(HEAD PADDING LETTERS "\x80\0\0\0" LETTERS), SL_CODEC_OK, "abcdefgh", 2},
	{"streams in a row", SL_LITERAL(HEAD LETTERS HEAD LETTERS), SL_CODEC_OK, "abcdefgh", 2},
	{"another stream's head", SL_LITERAL(HEAD LETTERS "\xff\x06\0\0SNAPPY"), SL_CODEC_CORRUPT,
	 NULL, 0},
	{"a chunk that must be known", SL_LITERAL(HEAD LETTERS "\x02\0\0\0"), SL_CODEC_CORRUPT,
	 NULL, 0},
	{"a chunk without room for its checksum", SL_LITERAL(HEAD "\x01\x03\0\0???"),
	 SL_CODEC_CORRUPT, NULL, 0},
	{"a compressed chunk of more than 64 KiB", SL_LITERAL(HEAD "\0\x08\0\0????\x81\x80\x04\0"),
	 SL_CODEC_CORRUPT, NULL, 0},
	{"chunks beyond the room", SL_LITERAL(HEAD PAIRS PAIRS), SL_CODEC_TOO_LARGE, NULL, 0},
	{"a chunk without a head", SL_LITERAL(LETTERS), SL_CODEC_CORRUPT, NULL, 0},
};

// Where nothing stands behind the input and the room, a sanitizer sees each byte too far.
static enum sl_codec_result inflate(struct sl_bytes in, uint8_t *out, size_t room, size_t *size)
{
	uint8_t *copy = malloc(in.size ? in.size : 1), *exact = malloc(room ? room : 1);
	enum sl_codec_result result;

	if (in.size)
		memcpy(copy, in.data, in.size);
	result = sl_snappy_inflate(sl_bytes(copy, in.size), exact, room, size);
	if (result == SL_CODEC_OK) {
		assert_true(*size <= room);
		assert_true(sl_snappy_size(sl_bytes(copy, in.size)) == *size);
		memcpy(out, exact, *size);
	}
	free(copy);
	free(exact);
	return result;
}

static void test_forms(void **state)
{
	(void)state;
	uint8_t out[ROOM];
	size_t size;

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		print_message("%s\n", rows[i].why);
		assert_int_equal(inflate(rows[i].in, out, ROOM, &size), rows[i].result);
		if (rows[i].result != SL_CODEC_OK)
			continue;
		const size_t bytes = strlen(rows[i].want);

		assert_int_equal(size, bytes * rows[i].times);
		for (size_t n = 0; n < rows[i].times; n++)
			assert_memory_equal(out + n * bytes, rows[i].want, bytes);
	}
}

// The room is what it makes, or it does not fit: no byte is written behind it.
static void test_room(void **state)
{
	(void)state;
	uint8_t out[ROOM];
	size_t size, less;

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		if (rows[i].result != SL_CODEC_OK)
			continue;
		assert_int_equal(inflate(rows[i].in, out, ROOM, &size), SL_CODEC_OK);
		assert_int_equal(inflate(rows[i].in, out, size, &less), SL_CODEC_OK);
		assert_int_equal(less, size);
		if (size)
			assert_int_equal(inflate(rows[i].in, out, size - 1, &less),
					 SL_CODEC_TOO_LARGE);
	}
}

// Cut anywhere, a block is refused and a stream is what its whole chunks were; a bit that changes a
// chunk's bytes is found by its length or its checksum.
static void test_cuts_and_flips(void **state)
{
	(void)state;
	static const struct sl_bytes block = SL_LITERAL("\x78\x04"
							"ab\xfe\x02\0\xd6\x02\0");
	static const struct sl_bytes stream = SL_LITERAL(HEAD LETTERS PAIRS);
	const size_t head = sizeof(HEAD) - 1, second = head + sizeof(LETTERS) - 1;
	uint8_t out[ROOM], whole[ROOM], changed[64];
	size_t size, whole_size;

	for (size_t cut = 0; cut < block.size; cut++)
		assert_int_not_equal(inflate(sl_bytes(block.data, cut), out, ROOM, &size),
				     SL_CODEC_OK);
	for (size_t cut = 0; cut < stream.size; cut++)
		assert_int_equal(inflate(sl_bytes(stream.data, cut), out, ROOM, &size) ==
					 SL_CODEC_OK,
				 cut == head || cut == second);
	assert_int_equal(inflate(stream, whole, ROOM, &whole_size), SL_CODEC_OK);
	assert_true(stream.size <= sizeof(changed));
	for (size_t bit = head * 8; bit < stream.size * 8; bit++) {
		memcpy(changed, stream.data, stream.size);
		changed[bit / 8] ^= (uint8_t)(1u << bit % 8);
		// But for the types: what may be skipped is. And "ab" may be copied from two "ab"
		// before.
		if (bit / 8 != head && bit / 8 != second &&
		    inflate(sl_bytes(changed, stream.size), out, ROOM, &size) == SL_CODEC_OK) {
			assert_int_equal(size, whole_size);
			assert_memory_equal(out, whole, size);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_cuts_and_flips),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
