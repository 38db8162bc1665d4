#include "dataplane/codec/codec.h"

#include <isa-l/igzip_lib.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/uio.h>
#define ZSTD_STATIC_LINKING_ONLY // ZSTD_getFrameHeader: the window before anything is decoded
#include <zstd.h>
#include <zstd_errors.h>

#include "dataplane/codec/snappy.h"

// Deflate's best case: 258 bytes for two bits. A claim beyond it is a lie.
#define DEFLATE_RATIO_MAX 1032
// zstd's best case: a block of one repeated byte, 128 KiB out of 4.
#define ZSTD_RATIO_MAX (128 * SL_KIB / 4)
// What every streaming decoder takes without being asked to. We decode into the result itself, so
// a window costs nothing here, but a frame beyond this is nothing an exporter sends.
#define ZSTD_WINDOW_MAX (UINT64_C(1) << 27)
// RFC 9659: what the next hop must be able to take.
#define ZSTD_WINDOW_FORWARD_MAX (8 * SL_MIB)
#define GZIP_MEMBER_BYTES_MIN   18
#define FIRST_BYTES_MIN         SL_KIB

const char *const sl_coding_names[SL_CODINGS] = {"identity", "gzip", "zstd"};

struct sl_codec {
	struct sl_memory *memory;
	struct libdeflate_decompressor *inflater;
	ZSTD_DCtx *zstd_reader;
	ZSTD_CCtx *zstd_writer;
	uint8_t *gzip_levels; // ISA-L's work space for level 1
	struct isal_zstream gzip_writer;
};

enum sl_coding sl_coding_parse(struct sl_bytes name)
{
	static const struct {
		const char *name;
		enum sl_coding coding;
	} rows[] = {
		{"", SL_CODING_IDENTITY},
		{"identity", SL_CODING_IDENTITY},
		{"gzip", SL_CODING_GZIP},
		{"x-gzip", SL_CODING_GZIP}, // RFC 9110, section 8.4.1.3
		{"zstd", SL_CODING_ZSTD},
		{"deflate", SL_CODING_DEFLATE},
		{"zlib", SL_CODING_DEFLATE},
		{"snappy", SL_CODING_SNAPPY},
		{"x-snappy-framed", SL_CODING_SNAPPY},
	};

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++)
		if (strlen(rows[i].name) == name.size &&
		    (name.size == 0 ||
		     strncasecmp(rows[i].name, (const char *)name.data, name.size) == 0))
			return rows[i].coding;
	return SL_CODING_UNKNOWN;
}

struct sl_codec *sl_codec_create(struct sl_memory *memory)
{
	struct sl_codec *codec = calloc(1, sizeof(*codec));

	if (!codec)
		return NULL;
	codec->memory = memory;
	codec->inflater = libdeflate_alloc_decompressor();
	codec->zstd_reader = ZSTD_createDCtx();
	codec->zstd_writer = ZSTD_createCCtx();
	codec->gzip_levels = malloc(ISAL_DEF_LVL1_DEFAULT);
	if (!codec->inflater || !codec->zstd_reader || !codec->zstd_writer || !codec->gzip_levels ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(codec->zstd_writer, ZSTD_c_compressionLevel, 1)))
		goto fail;
	isal_deflate_init(&codec->gzip_writer);
	codec->gzip_writer.level = 1;
	codec->gzip_writer.level_buf = codec->gzip_levels;
	codec->gzip_writer.level_buf_size = ISAL_DEF_LVL1_DEFAULT;
	return codec;
fail:
	sl_codec_destroy(codec);
	return NULL;
}

void sl_codec_destroy(struct sl_codec *codec)
{
	if (!codec)
		return;
	libdeflate_free_decompressor(codec->inflater);
	ZSTD_freeDCtx(codec->zstd_reader);
	ZSTD_freeCCtx(codec->zstd_writer);
	free(codec->gzip_levels);
	free(codec);
}

void sl_buffer_give(struct sl_memory *memory, struct sl_buffer *buffer)
{
	sl_memory_give(memory, buffer->data, buffer->capacity);
	*buffer = (struct sl_buffer){0};
}

// One attempt to inflate all of `in` into `room` bytes. Returns SL_CODEC_TOO_LARGE when they do
// not suffice.
static enum sl_codec_result gzip_attempt(struct sl_codec *codec, struct sl_bytes in,
					 struct sl_buffer *out, size_t room)
{
	size_t members = 0;

	out->size = 0;
	do {
		size_t used = 0, made = 0;

		switch (libdeflate_gzip_decompress_ex(codec->inflater, in.data, in.size,
						      out->data + out->size, room - out->size,
						      &used, &made)) {
		case LIBDEFLATE_SUCCESS:
			break;
		case LIBDEFLATE_INSUFFICIENT_SPACE:
			return SL_CODEC_TOO_LARGE;
		default:
			return SL_CODEC_CORRUPT;
		}
		assert(used >= GZIP_MEMBER_BYTES_MIN && used <= in.size);
		in = sl_bytes(in.data + used, in.size - used);
		out->size += made;
		members++;
	} while (in.size);
	out->single = members == 1;
	return SL_CODEC_OK;
}

// One zlib stream (RFC 1950), and nothing behind it.
static enum sl_codec_result zlib_attempt(struct sl_codec *codec, struct sl_bytes in,
					 struct sl_buffer *out, size_t room)
{
	size_t used = 0;

	switch (libdeflate_zlib_decompress_ex(codec->inflater, in.data, in.size, out->data, room,
					      &used, &out->size)) {
	case LIBDEFLATE_SUCCESS:
		return used == in.size ? SL_CODEC_OK : SL_CODEC_CORRUPT;
	case LIBDEFLATE_INSUFFICIENT_SPACE:
		return SL_CODEC_TOO_LARGE;
	default:
		return SL_CODEC_CORRUPT;
	}
}

static bool zstd_is_skippable(struct sl_bytes in)
{
	uint32_t magic;

	if (in.size < sizeof(magic))
		return false;
	memcpy(&magic, in.data, sizeof(magic));
	return (magic & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START;
}

static enum sl_codec_result zstd_attempt(struct sl_codec *codec, struct sl_bytes in,
					 struct sl_buffer *out, size_t room)
{
	size_t frames = 0;
	bool forwardable = true;

	out->size = 0;
	do {
		const size_t used = ZSTD_findFrameCompressedSize(in.data, in.size);
		ZSTD_frameHeader header;
		size_t made;

		if (ZSTD_isError(used))
			return SL_CODEC_CORRUPT;
		frames++;
		if (zstd_is_skippable(in)) {
			in = sl_bytes(in.data + used, in.size - used);
			continue;
		}
		// The formats before 1.0 have other magics, and their decoders are not ours to
		// trust.
		if (ZSTD_getFrameHeader(&header, in.data, in.size) != 0 ||
		    header.windowSize > ZSTD_WINDOW_MAX)
			return SL_CODEC_CORRUPT;
		forwardable = forwardable && header.windowSize <= ZSTD_WINDOW_FORWARD_MAX;
		made = ZSTD_decompressDCtx(codec->zstd_reader, out->data + out->size,
					   room - out->size, in.data, used);
		if (ZSTD_isError(made))
			return ZSTD_getErrorCode(made) == ZSTD_error_dstSize_tooSmall
				       ? SL_CODEC_TOO_LARGE
				       : SL_CODEC_CORRUPT;
		in = sl_bytes(in.data + used, in.size - used);
		out->size += made;
	} while (in.size);
	out->single = frames == 1 && forwardable;
	return SL_CODEC_OK;
}

static enum sl_codec_result snappy_attempt(struct sl_codec *codec, struct sl_bytes in,
					   struct sl_buffer *out, size_t room)
{
	(void)codec;
	return sl_snappy_inflate(in, out->data, room, &out->size);
}

// What the last gzip member says of its size. A hint: the client wrote it, it is modulo 2^32, and
// other members may stand before.
static uint64_t gzip_hint(struct sl_bytes in)
{
	uint32_t size;

	if (in.size < GZIP_MEMBER_BYTES_MIN)
		return 0;
	memcpy(&size, in.data + in.size - sizeof(size), sizeof(size));
	return size;
}

// A zlib stream does not say.
static uint64_t zlib_hint(struct sl_bytes in)
{
	return in.size * 4;
}

static uint64_t zstd_hint(struct sl_bytes in)
{
	const unsigned long long size = ZSTD_getFrameContentSize(in.data, in.size);

	if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR)
		return in.size * 4;
	return size;
}

static const struct {
	uint32_t ratio_max; // of what comes out
	uint64_t (*hint)(struct sl_bytes in);
	enum sl_codec_result (*attempt)(struct sl_codec *codec, struct sl_bytes in,
					struct sl_buffer *out, size_t room);
} inflaters[] = {
	[SL_CODING_GZIP] = {DEFLATE_RATIO_MAX, gzip_hint, gzip_attempt},
	[SL_CODING_ZSTD] = {ZSTD_RATIO_MAX, zstd_hint, zstd_attempt},
	[SL_CODING_DEFLATE] = {DEFLATE_RATIO_MAX, zlib_hint, zlib_attempt},
	[SL_CODING_SNAPPY] = {SL_SNAPPY_RATIO_MAX, sl_snappy_size, snappy_attempt},
};

// Inflates by whole attempts into one buffer, twice as large each time: the hint makes the first
// one fit, and where it lied all attempts together cost no more than twice the last. The buffer
// before is given back first, so that no more than the limit is ever held.
static enum sl_codec_result inflate(struct sl_codec *codec, enum sl_coding coding,
				    struct sl_bytes in, size_t limit, size_t slack,
				    struct sl_buffer *out)
{
	const uint64_t possible = in.size * (uint64_t)inflaters[coding].ratio_max;
	const uint64_t hint = inflaters[coding].hint(in);
	size_t room = SL_MIN(hint > possible ? in.size * 4 : hint, limit);
	enum sl_codec_result result;

	for (room = SL_MIN(SL_MAX(room, FIRST_BYTES_MIN), limit);;
	     room = SL_MIN(room > limit / 2 ? limit : room * 2, limit)) {
		out->data = sl_memory_take(codec->memory, SL_MAX(room + slack, 1), &out->capacity);
		if (!out->data)
			return SL_CODEC_NO_MEMORY;
		room = SL_MIN(out->capacity - slack, limit);
		result = inflaters[coding].attempt(codec, in, out, room);
		if (result == SL_CODEC_OK)
			return result;
		sl_buffer_give(codec->memory, out);
		if (result == SL_CODEC_CORRUPT || room == limit)
			return result;
	}
}

enum sl_codec_result sl_codec_inflate(struct sl_codec *codec, enum sl_coding coding,
				      struct sl_bytes in, size_t limit, size_t slack,
				      struct sl_buffer *out)
{
	*out = (struct sl_buffer){0};
	switch (coding) {
	case SL_CODING_GZIP:
	case SL_CODING_ZSTD:
	case SL_CODING_DEFLATE:
	case SL_CODING_SNAPPY:
		// Nothing is not a member or frame.
		return in.size ? inflate(codec, coding, in, limit, slack, out) : SL_CODEC_CORRUPT;
	case SL_CODING_IDENTITY:
		if (in.size > limit)
			return SL_CODEC_TOO_LARGE;
		out->data = sl_memory_take(codec->memory, SL_MAX(in.size + slack, 1),
					   &out->capacity);
		if (!out->data)
			return SL_CODEC_NO_MEMORY;
		if (in.size)
			memcpy(out->data, in.data, in.size);
		out->size = in.size;
		return SL_CODEC_OK;
	case SL_CODING_UNKNOWN:
		break;
	}
	return SL_CODEC_CORRUPT;
}

// Doubles a full output buffer. Returns false when the budget is spent; `out` stays.
static bool grow(struct sl_codec *codec, struct sl_buffer *out)
{
	size_t capacity;
	uint8_t *data = sl_memory_take(codec->memory, out->capacity * 2, &capacity);

	if (!data)
		return false;
	memcpy(data, out->data, out->size);
	sl_memory_give(codec->memory, out->data, out->capacity);
	out->data = data;
	out->capacity = capacity;
	return true;
}

static enum sl_codec_result gzip_deflate(struct sl_codec *codec, const struct iovec *pieces,
					 size_t count, struct sl_buffer *out)
{
	struct isal_zstream *stream = &codec->gzip_writer;

	isal_deflate_reset(stream);
	stream->gzip_flag = IGZIP_GZIP; // the writing of the header changes it
	stream->flush = NO_FLUSH;
	stream->end_of_stream = count == 0;
	stream->avail_in = 0;
	for (size_t i = 0; i < SL_MAX(count, 1); i++) {
		if (count) {
			assert(pieces[i].iov_len <= UINT32_MAX);
			stream->next_in = pieces[i].iov_base;
			stream->avail_in = (uint32_t)pieces[i].iov_len;
			stream->end_of_stream = i == count - 1;
		}
		do {
			const size_t room = SL_MIN(out->capacity - out->size, UINT32_MAX);

			stream->next_out = out->data + out->size;
			stream->avail_out = (uint32_t)room;
			if (isal_deflate(stream) != COMP_OK)
				return SL_CODEC_CORRUPT;
			out->size += room - stream->avail_out;
			if (stream->avail_out == 0 && !grow(codec, out))
				return SL_CODEC_NO_MEMORY;
		} while (stream->avail_in ||
			 (stream->end_of_stream && stream->internal_state.state != ZSTATE_END));
	}
	return SL_CODEC_OK;
}

static enum sl_codec_result zstd_deflate(struct sl_codec *codec, const struct iovec *pieces,
					 size_t count, uint64_t total, struct sl_buffer *out)
{
	ZSTD_CCtx *stream = codec->zstd_writer;

	// Told the size, the frame carries it: the reader takes one buffer of the right size.
	ZSTD_CCtx_reset(stream, ZSTD_reset_session_only);
	ZSTD_CCtx_setPledgedSrcSize(stream, total);
	for (size_t i = 0; i < SL_MAX(count, 1); i++) {
		ZSTD_inBuffer in = {count ? pieces[i].iov_base : NULL,
				    count ? pieces[i].iov_len : 0, 0};
		const bool last = i + 1 >= count;
		size_t left;

		do {
			ZSTD_outBuffer room = {out->data, out->capacity, out->size};

			left = ZSTD_compressStream2(stream, &room, &in,
						    last ? ZSTD_e_end : ZSTD_e_continue);
			if (ZSTD_isError(left))
				return ZSTD_getErrorCode(left) == ZSTD_error_memory_allocation
					       ? SL_CODEC_NO_MEMORY
					       : SL_CODEC_CORRUPT;
			out->size = room.pos;
			if (room.pos == room.size && !grow(codec, out))
				return SL_CODEC_NO_MEMORY;
		} while (last ? left != 0 : in.pos < in.size);
	}
	return SL_CODEC_OK;
}

enum sl_codec_result sl_codec_deflate(struct sl_codec *codec, enum sl_coding coding,
				      const struct iovec *pieces, size_t count,
				      struct sl_buffer *out)
{
	enum sl_codec_result result = SL_CODEC_CORRUPT;
	uint64_t total = 0;

	assert(coding < SL_CODINGS);
	*out = (struct sl_buffer){.single = true};
	for (size_t i = 0; i < count; i++)
		total += pieces[i].iov_len;
	// Telemetry shrinks to a tenth; a quarter and a little fits nearly always.
	out->data = sl_memory_take(codec->memory,
				   coding == SL_CODING_IDENTITY ? SL_MAX(total, 1)
								: total / 4 + FIRST_BYTES_MIN,
				   &out->capacity);
	if (!out->data) {
		out->capacity = 0;
		return SL_CODEC_NO_MEMORY;
	}
	switch (coding) {
	case SL_CODING_GZIP:
		result = gzip_deflate(codec, pieces, count, out);
		break;
	case SL_CODING_ZSTD:
		result = zstd_deflate(codec, pieces, count, total, out);
		break;
	default:
		for (size_t i = 0; i < count; i++) {
			memcpy(out->data + out->size, pieces[i].iov_base, pieces[i].iov_len);
			out->size += pieces[i].iov_len;
		}
		result = SL_CODEC_OK;
	}
	if (result != SL_CODEC_OK)
		sl_buffer_give(codec->memory, out);
	return result;
}
