// Any bytes inflate within the limit or are refused, and hold no memory afterwards; what was
// inflated, or the bytes themselves, come back from a round trip. The first byte chooses.

#include <stdlib.h>
#include <sys/uio.h>

#include "dataplane/codec/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LIMIT (256 * SL_KIB)

static void check(bool holds)
{
	if (!holds)
		abort();
}

static void round_trip(struct sl_codec *codec, struct sl_memory *memory, enum sl_coding coding,
		       struct sl_bytes bytes)
{
	const size_t half = bytes.size / 2;
	const struct iovec pieces[] = {
		{(void *)(uintptr_t)bytes.data, half},
		{(void *)(uintptr_t)(bytes.data + half), bytes.size - half},
	};
	struct sl_buffer small, whole;

	check(sl_codec_deflate(codec, coding, pieces, 2, &small) == SL_CODEC_OK);
	check(sl_codec_inflate(codec, coding, sl_bytes(small.data, small.size), bytes.size, 32,
			       &whole) == SL_CODEC_OK);
	check(whole.single);
	check(sl_bytes_equal(sl_bytes(whole.data, whole.size), bytes));
	sl_buffer_give(memory, &whole);
	if (bytes.size) {
		check(sl_codec_inflate(codec, coding, sl_bytes(small.data, small.size),
				       bytes.size - 1, 32, &whole) == SL_CODEC_TOO_LARGE);
		// A decoder may run out of room before it runs out of input.
		check(sl_codec_inflate(codec, coding, sl_bytes(small.data, small.size - 1),
				       bytes.size, 32, &whole) != SL_CODEC_OK);
	}
	sl_buffer_give(memory, &small);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct sl_memory memory;
	static struct sl_codec *codec;
	struct sl_buffer out;

	if (!codec) {
		check(sl_memory_init(&memory, 16 * SL_MIB) == 0);
		codec = sl_codec_create(&memory);
		check(codec != NULL);
	}
	if (size == 0)
		return 0;

	const enum sl_coding coding = data[0] & 1   ? SL_CODING_GZIP
				      : data[0] & 2 ? SL_CODING_DEFLATE
				      : data[0] & 4 ? SL_CODING_SNAPPY
						    : SL_CODING_ZSTD;
	const enum sl_coding back = coding < SL_CODINGS ? coding : SL_CODING_GZIP;
	const struct sl_bytes in = sl_bytes(data + 1, size - 1);

	memory.peak_bytes = 0;
	if (sl_codec_inflate(codec, coding, in, LIMIT, 32, &out) == SL_CODEC_OK) {
		check(out.size <= LIMIT);
		round_trip(codec, &memory, back, sl_bytes(out.data, out.size));
		sl_buffer_give(&memory, &out);
	} else {
		check(out.data == NULL);
		check(memory.peak_bytes <= sl_memory_class_bytes(LIMIT + 32));
		round_trip(codec, &memory, back, in);
	}
	check(memory.used_bytes == 0);
	return 0;
}
