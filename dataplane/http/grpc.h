#pragma once

#include "dataplane/base/base.h"

// gRPC's message framing: flag byte, u32 big-endian length, message (reference items 14, 15, 20).
// Incremental and independent of DATA frames: any cut of the input gives the same.
//
// Threading: plain value, one owner. Memory: none; message bytes are passed through.
struct sl_grpc_deframer {
	uint8_t prefix[5];
	uint8_t prefix_bytes; // so far
	uint8_t messages;     // begun; more than 1 is the caller's refusal
	uint32_t message_bytes, message_seen;
};

enum sl_grpc_event {
	SL_GRPC_NEED_MORE, // all input consumed
	SL_GRPC_BEGIN,     // a message begins: flag and length are known
	SL_GRPC_DATA,      // a run of it, in `data`
	SL_GRPC_MESSAGE,   // it is complete
	SL_GRPC_BAD,       // a flag other than 0 and 1
};

// Takes from the front of `*in`, which moves on. Call until SL_GRPC_NEED_MORE.
enum sl_grpc_event sl_grpc_next(struct sl_grpc_deframer *deframer, struct sl_bytes *in,
				struct sl_bytes *data);
// At the stream's end: true when exactly one message came, whole.
bool sl_grpc_is_whole(const struct sl_grpc_deframer *deframer);
bool sl_grpc_is_compressed(const struct sl_grpc_deframer *deframer);

#define SL_GRPC_PREFIX_BYTES 5
void sl_grpc_prefix(uint8_t out[SL_GRPC_PREFIX_BYTES], bool compressed, uint32_t message_bytes);

// "100m" -> ns, saturating (item 24); false when it is not 1-8 digits and one of H M S m u n.
bool sl_grpc_timeout_parse(struct sl_bytes value, uint64_t *ns);

// Percent-encodes a grpc-message (item 18); `out` takes up to three times its size. Returns bytes.
size_t sl_grpc_message_encode(uint8_t *out, struct sl_bytes message);
