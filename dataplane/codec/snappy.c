#include "dataplane/codec/snappy.h"

#include <isa-l/crc.h>

#include "dataplane/base/varint.h"

#define CHUNK_BYTES_MAX  65536 // of a stream's chunk, inflated
#define CHUNK_HEAD_BYTES 4     // a type, and a length of three bytes
#define CHECKSUM_BYTES   4

enum chunk {
	CHUNK_COMPRESSED = 0x00,
	CHUNK_PLAIN = 0x01,
	CHUNK_SKIPPABLE = 0x80, // and all above it
	CHUNK_STREAM = 0xff,
};

enum element {
	ELEMENT_LITERAL,
	ELEMENT_COPY_1, // with an offset of 11 bits
	ELEMENT_COPY_2, // of two bytes
	ELEMENT_COPY_4, // of four bytes
};

static const uint8_t stream_head[] = {0xff, 6, 0, 0, 's', 'N', 'a', 'P', 'p', 'Y'};

static bool is_stream(struct sl_bytes in)
{
	return in.size >= sizeof(stream_head) &&
	       memcmp(in.data, stream_head, sizeof(stream_head)) == 0;
}

static uint32_t little_endian(const uint8_t *at, size_t bytes)
{
	uint32_t value = 0;

	for (size_t i = 0; i < bytes; i++)
		value |= (uint32_t)at[i] << 8 * i;
	return value;
}

static struct sl_bytes behind(struct sl_bytes in, size_t bytes)
{
	return sl_bytes(in.data + bytes, in.size - bytes);
}

// A block's length, which stands first; 0 bytes are taken where it is none, or more than the rest
// can ever make.
static size_t block_size(struct sl_bytes in, uint64_t *size)
{
	const int used = sl_varint_get(in.data, in.size, size);

	if (used <= 0 || *size > UINT32_MAX || *size > in.size * (uint64_t)SL_SNAPPY_RATIO_MAX)
		return 0;
	return (size_t)used;
}

// The run that a tag begins: how long it is, and for a copy how far behind. Returns the bytes of
// the tag and what belongs to it, 0 when they are cut.
static size_t read_tag(struct sl_bytes in, size_t *run, size_t *offset)
{
	const uint8_t tag = in.data[0];
	size_t more = 0;

	*run = (tag >> 2) + 1u;
	switch ((enum element)(tag & 3)) {
	case ELEMENT_LITERAL:
		if (tag >> 2 < 60)
			break;
		more = (tag >> 2) - 59u;
		if (more < in.size)
			*run = (size_t)little_endian(in.data + 1, more) + 1;
		break;
	case ELEMENT_COPY_1:
		more = 1;
		*run = (tag >> 2 & 7) + 4u;
		if (more < in.size)
			*offset = (size_t)(tag >> 5) << 8 | in.data[1];
		break;
	case ELEMENT_COPY_2:
	case ELEMENT_COPY_4:
		more = (tag & 3) == ELEMENT_COPY_2 ? 2 : 4;
		if (more < in.size)
			*offset = little_endian(in.data + 1, more);
		break;
	}
	return more < in.size ? more + 1 : 0;
}

// One block, of `in` all, into the `size` bytes that it said it has.
static bool inflate_block(struct sl_bytes in, uint8_t *out, size_t size)
{
	size_t made = 0;

	while (in.size) {
		const bool literal = (in.data[0] & 3) == ELEMENT_LITERAL;
		size_t run, offset = 0;
		const size_t used = read_tag(in, &run, &offset);

		if (!used || run > size - made)
			return false;
		in = behind(in, used);
		if (literal) {
			if (run > in.size)
				return false;
			memcpy(out + made, in.data, run);
			in = behind(in, run);
		} else if (offset == 0 || offset > made) {
			return false;
		} else if (offset >= run) {
			memcpy(out + made, out + made - offset, run);
		} else { // a run that repeats itself
			for (size_t i = 0; i < run; i++)
				out[made + i] = out[made + i - offset];
		}
		made += run;
	}
	return made == size;
}

// Takes the next chunk of a stream from `in`. False: it is cut, or of a type that must be known.
static bool next_chunk(struct sl_bytes *in, enum chunk *type, struct sl_bytes *chunk)
{
	size_t size;

	if (in->size < CHUNK_HEAD_BYTES)
		return false;
	*type = (enum chunk)in->data[0];
	size = little_endian(in->data + 1, 3);
	*in = behind(*in, CHUNK_HEAD_BYTES);
	if (size > in->size)
		return false;
	*chunk = sl_bytes(in->data, size);
	*in = behind(*in, size);
	if (*type == CHUNK_COMPRESSED || *type == CHUNK_PLAIN)
		return size >= CHECKSUM_BYTES;
	if (*type == CHUNK_STREAM)
		return size == sizeof(stream_head) - CHUNK_HEAD_BYTES &&
		       memcmp(chunk->data, stream_head + CHUNK_HEAD_BYTES, size) == 0;
	return *type >= CHUNK_SKIPPABLE;
}

// What a chunk holds behind its checksum: a block (`*data` without its length), or the bytes
// themselves.
static bool chunk_data(enum chunk type, struct sl_bytes chunk, struct sl_bytes *data,
		       uint64_t *size)
{
	size_t used;

	*data = behind(chunk, CHECKSUM_BYTES);
	*size = data->size;
	if (type == CHUNK_COMPRESSED) {
		used = block_size(*data, size);
		if (!used)
			return false;
		*data = behind(*data, used);
	}
	return *size <= CHUNK_BYTES_MAX;
}

uint64_t sl_snappy_size(struct sl_bytes in)
{
	struct sl_bytes chunk, data;
	uint64_t size = 0, total = 0;
	enum chunk type;

	if (!is_stream(in))
		return block_size(in, &size) ? size : 0;
	while (in.size) {
		if (!next_chunk(&in, &type, &chunk))
			return 0;
		if (type >= CHUNK_SKIPPABLE)
			continue;
		if (!chunk_data(type, chunk, &data, &size))
			return 0;
		total += size;
	}
	return total;
}

// CRC-32C, masked so that a checksum of bytes that hold checksums stays one.
static uint32_t checksum(const uint8_t *data, size_t size)
{
	uint32_t sum = UINT32_MAX;

	if (size)
		sum = crc32_iscsi((unsigned char *)(uintptr_t)data, (int)size, sum);
	sum = ~sum;
	return (sum >> 15 | sum << 17) + 0xa282ead8;
}

static enum sl_codec_result inflate_stream(struct sl_bytes in, uint8_t *out, size_t room,
					   size_t *size)
{
	struct sl_bytes chunk, data;
	enum chunk type;
	uint64_t bytes;

	while (in.size) {
		if (!next_chunk(&in, &type, &chunk))
			return SL_CODEC_CORRUPT;
		if (type >= CHUNK_SKIPPABLE)
			continue;
		if (!chunk_data(type, chunk, &data, &bytes))
			return SL_CODEC_CORRUPT;
		if (bytes > room - *size)
			return SL_CODEC_TOO_LARGE;
		if (type == CHUNK_PLAIN)
			memcpy(out + *size, data.data, bytes);
		else if (!inflate_block(data, out + *size, bytes))
			return SL_CODEC_CORRUPT;
		if (checksum(out + *size, bytes) != little_endian(chunk.data, CHECKSUM_BYTES))
			return SL_CODEC_CORRUPT;
		*size += bytes;
	}
	return SL_CODEC_OK;
}

enum sl_codec_result sl_snappy_inflate(struct sl_bytes in, uint8_t *out, size_t room, size_t *size)
{
	uint64_t bytes;
	size_t used;

	*size = 0;
	if (is_stream(in))
		return inflate_stream(in, out, room, size);
	used = block_size(in, &bytes);
	if (!used)
		return SL_CODEC_CORRUPT;
	if (bytes > room)
		return SL_CODEC_TOO_LARGE;
	if (!inflate_block(behind(in, used), out, bytes))
		return SL_CODEC_CORRUPT;
	*size = bytes;
	return SL_CODEC_OK;
}
