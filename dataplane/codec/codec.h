#pragma once

#include "dataplane/base/base.h"
#include "dataplane/base/memory.h"

// Content codings, both ways, bounded: whole bodies in and out (bodies are contiguous and capped).
// gzip by libdeflate (many members are read), zstd by libzstd (many frames). "deflate" is one zlib
// stream (RFC 9110, section 8.4.1.2), snappy a block or a framed stream: both are only read. Some
// SDKs and Collectors send them, nobody needs them from us.
//
// Threading: a codec belongs to one shard. Memory: results come from the shard's memory and are
// given back by the caller. What is inflated never passes `limit`: a bomb costs at most that.
enum sl_coding {
	SL_CODING_IDENTITY,
	SL_CODING_GZIP,
	SL_CODING_ZSTD,
	SL_CODING_DEFLATE,
	SL_CODING_SNAPPY,
	SL_CODING_UNKNOWN
};
#define SL_CODINGS 3                                  // those that are written too
extern const char *const sl_coding_names[SL_CODINGS]; // "identity", "gzip", "zstd"

// A token of Content-Encoding or grpc-encoding, case-insensitively; empty is identity. "zlib" is
// how Collectors spell deflate, "x-snappy-framed" what they call a stream of snappy in HTTP.
enum sl_coding sl_coding_parse(struct sl_bytes name);

enum sl_codec_result {
	SL_CODEC_OK = 0,
	SL_CODEC_CORRUPT = -1,   // not of this coding, truncated, wrong checksum, trailing garbage
	SL_CODEC_TOO_LARGE = -2, // would pass `limit`
	SL_CODEC_NO_MEMORY = -3, // the shard's budget is spent
};

struct sl_codec;

// Returns NULL when out of memory. Keeps one inflater, and compressors at their fast levels.
struct sl_codec *sl_codec_create(struct sl_memory *memory);
void sl_codec_destroy(struct sl_codec *codec);

struct sl_buffer {
	uint8_t *data;
	size_t size, capacity;
	bool single; // inflated from exactly one gzip member or zstd frame (may be forwarded as is)
};

// Inflates `in` whole. `slack` readable bytes are allocated behind the result. An empty result
// has size 0 and may have data NULL.
enum sl_codec_result sl_codec_inflate(struct sl_codec *codec, enum sl_coding coding,
				      struct sl_bytes in, size_t limit, size_t slack,
				      struct sl_buffer *out);

// Compresses the pieces, in order, into one member or frame (gzip: ISA-L level 1; zstd: level 1).
// `coding` is below SL_CODINGS.
struct iovec;
enum sl_codec_result sl_codec_deflate(struct sl_codec *codec, enum sl_coding coding,
				      const struct iovec *pieces, size_t count,
				      struct sl_buffer *out);
void sl_buffer_give(struct sl_memory *memory, struct sl_buffer *buffer);
