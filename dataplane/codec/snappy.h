#pragma once

#include "dataplane/codec/codec.h"

// Snappy, read only: one block, as HTTP has it, or a framed stream of blocks, as gRPC and
// x-snappy-framed have it. A stream begins with a chunk that no block can begin with, so the bytes
// themselves tell which it is. Sources: format_description.txt and framing_format.txt of Snappy.
//
// Threading and memory: pure functions over the caller's bytes.

// The best case: a copy of 64 bytes out of 3.
#define SL_SNAPPY_RATIO_MAX 22

// What `in` says that it inflates to, never more than SL_SNAPPY_RATIO_MAX times its size. 0: that,
// or it is malformed.
uint64_t sl_snappy_size(struct sl_bytes in);

// Inflates all of `in` into `room` bytes at `out`; `*size` is what came of it.
enum sl_codec_result sl_snappy_inflate(struct sl_bytes in, uint8_t *out, size_t room, size_t *size);
