#pragma once

#include "dataplane/base/base.h"
#include "dataplane/otlp/signal.h"

// The bodies of answers: Export*ServiceResponse and google.rpc.Status with RetryInfo, in protobuf
// (protobuf-c) and JSON. Reference items 3, 5-8, 20-22, 38, 39, 47.
//
// Threading: any. Memory: written into the caller's buffer; SL_REPLY_BYTES_MAX always suffices.
#define SL_REPLY_MESSAGE_MAX 512 // longer messages are cut at a UTF-8 border
#define SL_REPLY_BYTES_MAX   2048

// What an accepted request is told: nothing (0 bytes, or "{}") when `rejected` is 0 and `message`
// empty. `rejected` counts items. Returns the bytes written.
size_t sl_reply_success(uint8_t *out, bool json, enum sl_signal signal, uint64_t rejected,
			struct sl_bytes message);

// google.rpc.Status; with `retry_after_ns` > 0 a RetryInfo, with `bad_field` non-empty a BadRequest
// of that one field. `code` is the gRPC code.
size_t sl_reply_status(uint8_t *out, bool json, int code, struct sl_bytes message,
		       uint64_t retry_after_ns, struct sl_bytes bad_field);

// base64 without padding (grpc-status-details-bin). `out` holds (size + 2) / 3 * 4. Returns bytes.
size_t sl_reply_base64(char *out, struct sl_bytes bytes);
