#pragma once

#include "dataplane/base/metrics.h"

// Why traffic is refused: the one place that knows status codes is reason.def.
// Threading: constants.
enum sl_reason {
	SL_REASON_NONE,
#define SL_REASON(name, label, http, grpc, retry, help) SL_REASON_##name,
#include "dataplane/request/reason.def"
#undef SL_REASON
	SL_REASONS
};

// gRPC status codes (https://grpc.github.io/grpc/core/md_doc_statuscodes.html).
enum sl_grpc_code {
	SL_GRPC_OK,
	SL_GRPC_CANCELLED,
	SL_GRPC_UNKNOWN,
	SL_GRPC_INVALID_ARGUMENT,
	SL_GRPC_DEADLINE_EXCEEDED,
	SL_GRPC_NOT_FOUND,
	SL_GRPC_ALREADY_EXISTS,
	SL_GRPC_PERMISSION_DENIED,
	SL_GRPC_RESOURCE_EXHAUSTED,
	SL_GRPC_FAILED_PRECONDITION,
	SL_GRPC_ABORTED,
	SL_GRPC_OUT_OF_RANGE,
	SL_GRPC_UNIMPLEMENTED,
	SL_GRPC_INTERNAL,
	SL_GRPC_UNAVAILABLE,
	SL_GRPC_DATA_LOSS,
	SL_GRPC_UNAUTHENTICATED,
};

struct sl_reason_row {
	const char *name; // lower case: the metric's label
	const char *help; // what the client reads
	uint16_t http;
	uint8_t grpc; // enum sl_grpc_code
	bool retry;
};
extern const struct sl_reason_row sl_reasons[SL_REASONS];

extern const struct sl_label sl_label_reason;
#define SL_LABEL_COUNT_reason SL_REASONS
