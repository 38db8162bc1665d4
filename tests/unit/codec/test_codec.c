#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>

#include <cmocka.h>

#include "dataplane/codec/codec.h"

#include <libdeflate.h>

#define LIMIT (1 * SL_MIB)
#define SLACK 32

static struct sl_memory memory;
static struct sl_codec *codec;
static uint8_t text[300000]; // compresses to about a tenth, as telemetry does

static int set_up(void **state)
{
	(void)state;
	assert_int_equal(sl_memory_init(&memory, 64 * SL_MIB), 0);
	codec = sl_codec_create(&memory);
	assert_non_null(codec);
	for (size_t i = 0, n = 0; i + 32 < sizeof(text); n++)
		i += (size_t)sprintf((char *)text + i, "GET /cart/%zu?user=%zu;", n % 100,
				     n * 7919 % 1000);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sl_codec_destroy(codec);
	assert_int_equal(memory.used_bytes, 0); // nothing was kept
	sl_memory_fini(&memory);
	return 0;
}

static struct sl_bytes bytes_of(const struct sl_buffer *buffer)
{
	return sl_bytes(buffer->data, buffer->size);
}

static struct sl_buffer pack(enum sl_coding coding, const void *data, size_t size)
{
	struct iovec piece = {(void *)(uintptr_t)data, size};
	struct sl_buffer out;

	assert_int_equal(sl_codec_deflate(codec, coding, &piece, 1, &out), SL_CODEC_OK);
	assert_true(out.single);
	return out;
}

static enum sl_codec_result unpack(enum sl_coding coding, struct sl_bytes in, struct sl_buffer *out)
{
	const enum sl_codec_result result = sl_codec_inflate(codec, coding, in, LIMIT, SLACK, out);

	if (result == SL_CODEC_OK && out->data) {
		assert_true(out->capacity >= out->size + SLACK);
		memset(out->data + out->size, 0xa5, SLACK); // the slack is ours to touch
	} else {
		assert_null(out->data);
	}
	return result;
}

static void check_unpacks(enum sl_coding coding, struct sl_bytes in, struct sl_bytes want,
			  bool single)
{
	struct sl_buffer out;

	assert_int_equal(unpack(coding, in, &out), SL_CODEC_OK);
	assert_true(sl_bytes_equal(bytes_of(&out), want));
	assert_int_equal(out.single, single);
	sl_buffer_give(&memory, &out);
}

static const enum sl_coding packed[] = {SL_CODING_GZIP, SL_CODING_ZSTD};

static void test_names(void **state)
{
	(void)state;
	static const struct {
		const char *why, *name;
		enum sl_coding want;
	} rows[] = {
		{"absent is identity", "", SL_CODING_IDENTITY},
		{"case does not matter", "IdEntity", SL_CODING_IDENTITY},
		{"item 1", "gzip", SL_CODING_GZIP},
		{"RFC 9110, 8.4.1.3", "X-GZIP", SL_CODING_GZIP},
		{"item 15", "zstd", SL_CODING_ZSTD},
		{"RFC 9110, 8.4.1.2", "deflate", SL_CODING_DEFLATE},
		{"the same, as Collectors spell it", "zlib", SL_CODING_DEFLATE},
		{"as Collectors send", "snappy", SL_CODING_SNAPPY},
		{"the same, framed, in HTTP", "x-snappy-framed", SL_CODING_SNAPPY},
		{"not offered", "br", SL_CODING_UNKNOWN},
		{"a list is the caller's to split", "gzip, gzip", SL_CODING_UNKNOWN},
		{"a prefix is no name", "gzi", SL_CODING_UNKNOWN},
	};

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		print_message("%s\n", rows[i].why);
		assert_int_equal(sl_coding_parse(sl_bytes_of(rows[i].name)), rows[i].want);
	}
}

static void test_round_trip(void **state)
{
	(void)state;
	static const size_t sizes[] = {0, 1, 2, 31, 1024, 65535, 65536, 65537, sizeof(text)};

	for (size_t c = 0; c < SL_COUNT_OF(packed); c++) {
		for (size_t i = 0; i < SL_COUNT_OF(sizes); i++) {
			struct sl_buffer out = pack(packed[c], text, sizes[i]);

			check_unpacks(packed[c], bytes_of(&out), sl_bytes(text, sizes[i]), true);
			sl_buffer_give(&memory, &out);
		}
	}
}

// Noise does not compress: the first guess of the output's size is too small, and grows.
static void test_noise(void **state)
{
	(void)state;
	uint8_t *noise = malloc(200000);
	uint32_t seed = 1;

	for (size_t i = 0; i < 200000; i++)
		noise[i] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
	for (size_t c = 0; c < SL_COUNT_OF(packed); c++) {
		struct sl_buffer out = pack(packed[c], noise, 200000);

		assert_in_range(out.size, 190000, 201000);
		check_unpacks(packed[c], bytes_of(&out), sl_bytes(noise, 200000), true);
		sl_buffer_give(&memory, &out);
	}
	free(noise);
}

static void test_pieces(void **state)
{
	(void)state;
	struct iovec pieces[64];
	size_t at = 0;

	for (size_t i = 0; i < SL_COUNT_OF(pieces); i++) {
		pieces[i] = (struct iovec){text + at, i % 5 == 0 ? 0 : i * 97};
		at += pieces[i].iov_len;
	}
	assert_true(at < sizeof(text));
	for (size_t count = 0; count <= SL_COUNT_OF(pieces); count += 16) {
		for (size_t c = 0; c < SL_COUNT_OF(packed); c++) {
			size_t total = 0;
			struct sl_buffer out;

			for (size_t i = 0; i < count; i++)
				total += pieces[i].iov_len;
			assert_int_equal(sl_codec_deflate(codec, packed[c], pieces, count, &out),
					 SL_CODEC_OK);
			check_unpacks(packed[c], bytes_of(&out), sl_bytes(text, total), true);
			sl_buffer_give(&memory, &out);
		}
	}
}

// Every proper prefix is refused; so is the whole with anything behind it.
static void test_cuts(void **state)
{
	(void)state;
	for (size_t c = 0; c < SL_COUNT_OF(packed); c++) {
		struct sl_buffer whole = pack(packed[c], text, 5000);
		uint8_t *copy = malloc(whole.size + 1), *exact;
		struct sl_buffer out;

		memcpy(copy, whole.data, whole.size);
		for (size_t cut = 0; cut < whole.size; cut++) {
			exact = malloc(SL_MAX(cut, 1)); // a sanitizer sees a read past the cut
			memcpy(exact, whole.data, cut);
			assert_int_equal(unpack(packed[c], sl_bytes(exact, cut), &out),
					 SL_CODEC_CORRUPT);
			free(exact);
		}
		for (unsigned garbage = 0; garbage < 256; garbage += 15) {
			copy[whole.size] = (uint8_t)garbage;
			assert_int_equal(unpack(packed[c], sl_bytes(copy, whole.size + 1), &out),
					 SL_CODEC_CORRUPT);
		}
		free(copy);
		sl_buffer_give(&memory, &whole);
	}
}

static void test_members(void **state)
{
	(void)state;
	for (size_t c = 0; c < SL_COUNT_OF(packed); c++) {
		struct sl_buffer a = pack(packed[c], text, 150000);
		struct sl_buffer b = pack(packed[c], text + 150000, 10);
		struct sl_buffer none = pack(packed[c], text, 0);
		uint8_t *joined = malloc(a.size + b.size + none.size), *at = joined;

		memcpy(at, a.data, a.size);
		memcpy(at += a.size, none.data, none.size);
		memcpy(at += none.size, b.data, b.size);
		at += b.size;
		check_unpacks(packed[c], sl_bytes(joined, (size_t)(at - joined)),
			      sl_bytes(text, 150010), false);
		free(joined);
		sl_buffer_give(&memory, &a);
		sl_buffer_give(&memory, &b);
		sl_buffer_give(&memory, &none);
	}
}

static void test_zstd_forms(void **state)
{
	(void)state;
	static const struct {
		const char *why;
		struct sl_bytes in;
		enum sl_codec_result want;
		const char *text;
		bool single;
	} rows[] = {
		{"a raw block, size unknown",
		 SL_LITERAL("\x28\xb5\x2f\xfd\x00\x00\x19\x00\x00\x61\x62\x63"), SL_CODEC_OK, "abc",
		 true},
		{"a skippable frame before it",
		 SL_LITERAL("\x50\x2a\x4d\x18\x02\x00\x00\x00xy"
			    "\x28\xb5\x2f\xfd\x00\x00\x19\x00\x00\x61\x62\x63"),
		 SL_CODEC_OK, "abc", false},
		{"a skippable frame after it",
		 SL_LITERAL("\x28\xb5\x2f\xfd\x00\x00\x19\x00\x00\x61\x62\x63"
			    "\x5f\x2a\x4d\x18\x00\x00\x00\x00"),
		 SL_CODEC_OK, "abc", false},
		{"a skippable frame that is cut",
		 SL_LITERAL("\x28\xb5\x2f\xfd\x00\x00\x19\x00\x00\x61\x62\x63"
			    "\x5f\x2a\x4d\x18\x01\x00\x00\x00"),
		 SL_CODEC_CORRUPT, "", false},
		{"a content size that is a lie",
		 SL_LITERAL("\x28\xb5\x2f\xfd\x20\x04\x19\x00\x00\x61\x62\x63"), SL_CODEC_CORRUPT,
		 "", false},
		{"a content size beyond all limits",
		 SL_LITERAL("\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\x00"
			    "\x19\x00\x00\x61\x62\x63"),
		 SL_CODEC_CORRUPT, "", false},
		{"a window of 16 MiB is read, but not forwarded as it is",
		 SL_LITERAL("\x28\xb5\x2f\xfd\x00\x70\x19\x00\x00\x61\x62\x63"), SL_CODEC_OK, "abc",
		 false},
		{"a window beyond 128 MiB",
		 SL_LITERAL("\x28\xb5\x2f\xfd\x00\x89\x19\x00\x00\x61\x62\x63"), SL_CODEC_CORRUPT,
		 "", false},
		{"a dictionary that we do not have",
		 SL_LITERAL("\x28\xb5\x2f\xfd\x01\x00\x07\x19\x00\x00\x61\x62\x63"),
		 SL_CODEC_CORRUPT, "", false},
		{"a format before 1.0", SL_LITERAL("\x27\xb5\x2f\xfd\x00\x00\x19\x00\x00\x61"),
		 SL_CODEC_CORRUPT, "", false},
	};

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_buffer out;

		print_message("%s\n", rows[i].why);
		assert_int_equal(unpack(SL_CODING_ZSTD, rows[i].in, &out), rows[i].want);
		if (rows[i].want == SL_CODEC_OK) {
			assert_true(sl_bytes_equal(bytes_of(&out), sl_bytes_of(rows[i].text)));
			assert_int_equal(out.single, rows[i].single);
			sl_buffer_give(&memory, &out);
		}
	}
}

// RFC 1950. Some senders mean raw deflate by that name (RFC 9110, section 8.4.1.2): not ours.
static void test_zlib_forms(void **state)
{
	(void)state;
	static const struct {
		const char *why;
		struct sl_bytes in;
		enum sl_codec_result want;
	} rows[] = {
		{"a stream", SL_LITERAL("\x78\x9c\x4b\x4c\x4a\x06\x00\x02\x4d\x01\x27"),
		 SL_CODEC_OK},
		{"a stored block",
		 SL_LITERAL("\x78\x01\x01\x03\x00\xfc\xff\x61\x62\x63\x02\x4d\x01\x27"),
		 SL_CODEC_OK},
		{"a wrong checksum", SL_LITERAL("\x78\x9c\x4b\x4c\x4a\x06\x00\x02\x4d\x01\x28"),
		 SL_CODEC_CORRUPT},
		{"no whole checksum", SL_LITERAL("\x78\x9c\x4b\x4c\x4a\x06\x00\x02\x4d\x01"),
		 SL_CODEC_CORRUPT},
		{"a second stream",
		 SL_LITERAL("\x78\x9c\x4b\x4c\x4a\x06\x00\x02\x4d\x01\x27"
			    "\x78\x9c\x4b\x4c\x4a\x06\x00\x02\x4d\x01\x27"),
		 SL_CODEC_CORRUPT},
		{"raw deflate", SL_LITERAL("\x4b\x4c\x4a\x06\x00"), SL_CODEC_CORRUPT},
		{"a dictionary that we do not have",
		 SL_LITERAL("\x78\xbb\x02\x4d\x01\x27\x4b\x4c\x4a\x06\x00\x02\x4d\x01\x27"),
		 SL_CODEC_CORRUPT},
		{"nothing", SL_BYTES_NONE, SL_CODEC_CORRUPT},
	};
	struct sl_buffer out;

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		print_message("%s\n", rows[i].why);
		assert_int_equal(unpack(SL_CODING_DEFLATE, rows[i].in, &out), rows[i].want);
		if (rows[i].want == SL_CODEC_OK) {
			assert_true(sl_bytes_equal(bytes_of(&out), SL_LITERAL("abc")));
			assert_false(out.single); // never forwarded as it came
			sl_buffer_give(&memory, &out);
		}
	}
	assert_int_equal(sl_codec_inflate(codec, SL_CODING_DEFLATE, rows[0].in, 2, 0, &out),
			 SL_CODEC_TOO_LARGE);
}

// A bomb costs no more memory than the limit, and what grows is inflated whole.
static void test_zlib_limit(void **state)
{
	(void)state;
	struct libdeflate_compressor *writer = libdeflate_alloc_compressor(6);
	uint8_t *zeroes = calloc(1, 4 * LIMIT), *packet = malloc(4 * LIMIT);
	const struct {
		size_t bytes;
		enum sl_codec_result want;
	} rows[] = {{0, SL_CODEC_OK},
		    {LIMIT, SL_CODEC_OK},
		    {LIMIT + 1, SL_CODEC_TOO_LARGE},
		    {4 * LIMIT, SL_CODEC_TOO_LARGE}};
	const uint64_t before = memory.used_bytes;
	struct sl_buffer out;

	memory.peak_bytes = before;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		const size_t size = libdeflate_zlib_compress(writer, zeroes, rows[i].bytes, packet,
							     4 * LIMIT);

		assert_int_equal(unpack(SL_CODING_DEFLATE, sl_bytes(packet, size), &out),
				 rows[i].want);
		if (rows[i].want != SL_CODEC_OK)
			continue;
		assert_true(sl_bytes_equal(bytes_of(&out), sl_bytes(zeroes, rows[i].bytes)));
		sl_buffer_give(&memory, &out);
	}
	assert_true(memory.peak_bytes - before <= sl_memory_class_bytes(LIMIT + SLACK));
	assert_int_equal(memory.used_bytes, before);
	libdeflate_free_compressor(writer);
	free(packet);
	free(zeroes);
}

// Item 2: the limit holds for what is inflated, exactly; a bomb costs no more memory than that.
static void test_limit(void **state)
{
	(void)state;
	uint8_t *zeroes = calloc(1, 16 * LIMIT);

	for (size_t c = 0; c < SL_COUNT_OF(packed); c++) {
		struct sl_buffer bomb = pack(packed[c], zeroes, 16 * LIMIT);
		struct sl_buffer fits = pack(packed[c], zeroes, LIMIT);
		struct sl_buffer over = pack(packed[c], zeroes, LIMIT + 1);
		struct sl_buffer out;
		const uint64_t before = memory.used_bytes;

		assert_true(16 * LIMIT / bomb.size > 200);
		memory.peak_bytes = before;
		assert_int_equal(unpack(packed[c], bytes_of(&bomb), &out), SL_CODEC_TOO_LARGE);
		assert_int_equal(unpack(packed[c], bytes_of(&over), &out), SL_CODEC_TOO_LARGE);
		assert_true(memory.peak_bytes - before <= sl_memory_class_bytes(LIMIT + SLACK));
		assert_int_equal(memory.used_bytes, before);
		check_unpacks(packed[c], bytes_of(&fits), sl_bytes(zeroes, LIMIT), true);
		sl_buffer_give(&memory, &bomb);
		sl_buffer_give(&memory, &fits);
		sl_buffer_give(&memory, &over);
	}
	free(zeroes);
}

// The trailer's size is the client's word: too small costs attempts, too large costs nothing.
static void test_lying_trailer(void **state)
{
	(void)state;
	struct sl_buffer packet = pack(SL_CODING_GZIP, text, 200000);
	struct sl_buffer out;
	const uint64_t before = memory.used_bytes;

	for (unsigned i = 0; i < 2; i++) {
		memset(packet.data + packet.size - 4, i ? 0xff : 0, 4);
		assert_int_equal(unpack(SL_CODING_GZIP, bytes_of(&packet), &out), SL_CODEC_CORRUPT);
		assert_int_equal(memory.used_bytes, before);
	}
	sl_buffer_give(&memory, &packet);
}

static void test_flipped_bits(void **state)
{
	(void)state;
	struct sl_buffer packet = pack(SL_CODING_GZIP, text, 500);
	struct sl_buffer out;

	for (size_t i = 10 * 8; i < packet.size * 8; i++) { // the header's MTIME may be anything
		packet.data[i / 8] ^= (uint8_t)(1 << i % 8);
		assert_int_not_equal(unpack(SL_CODING_GZIP, bytes_of(&packet), &out), SL_CODEC_OK);
		packet.data[i / 8] ^= (uint8_t)(1 << i % 8);
	}
	check_unpacks(SL_CODING_GZIP, bytes_of(&packet), sl_bytes(text, 500), true);
	sl_buffer_give(&memory, &packet);
}

static void test_budget(void **state)
{
	(void)state;
	struct sl_buffer packet[2] = {pack(SL_CODING_GZIP, text, 200000),
				      pack(SL_CODING_ZSTD, text, 200000)};
	const uint64_t budget = memory.budget_bytes;
	struct iovec piece = {text, sizeof(text)};
	struct sl_buffer out;

	for (size_t c = 0; c < SL_COUNT_OF(packed); c++) {
		memory.budget_bytes = memory.used_bytes + 100000;
		assert_int_equal(unpack(packed[c], bytes_of(&packet[c]), &out), SL_CODEC_NO_MEMORY);
		memory.budget_bytes = memory.used_bytes + 1024;
		assert_int_equal(sl_codec_deflate(codec, packed[c], &piece, 1, &out),
				 SL_CODEC_NO_MEMORY);
		assert_null(out.data);
		memory.budget_bytes = budget;
		// A failure leaves nothing behind in the contexts.
		check_unpacks(packed[c], bytes_of(&packet[c]), sl_bytes(text, 200000), true);
	}
	sl_buffer_give(&memory, &packet[0]);
	sl_buffer_give(&memory, &packet[1]);
}

static void test_identity(void **state)
{
	(void)state;
	struct sl_buffer out;

	check_unpacks(SL_CODING_IDENTITY, sl_bytes(text, 1000), sl_bytes(text, 1000), false);
	check_unpacks(SL_CODING_IDENTITY, SL_BYTES_NONE, SL_BYTES_NONE, false);
	assert_int_equal(unpack(SL_CODING_UNKNOWN, sl_bytes(text, 10), &out), SL_CODEC_CORRUPT);
	assert_int_equal(
		sl_codec_inflate(codec, SL_CODING_IDENTITY, sl_bytes(text, 10), 9, 0, &out),
		SL_CODEC_TOO_LARGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),         cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_noise),         cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_cuts),          cmocka_unit_test(test_members),
		cmocka_unit_test(test_zstd_forms),    cmocka_unit_test(test_limit),
		cmocka_unit_test(test_lying_trailer), cmocka_unit_test(test_flipped_bits),
		cmocka_unit_test(test_budget),        cmocka_unit_test(test_identity),
		cmocka_unit_test(test_zlib_forms),    cmocka_unit_test(test_zlib_limit),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
