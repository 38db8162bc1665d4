#pragma once

#include "dataplane/base/metrics.h"
#include "dataplane/request/reason.h"

// What a destination said when it did not take a record, as two labels of a metric: its answer in
// its own words (a status, or that none came), and what that is to the sender, a row of reason.def.
// Both are bounded: statuses that nobody names here share the word of their class.
//
// Threading: constants and pure functions.

//        answer             label
#define SL_ANSWERS(X)                                                                              \
	X(NONE, "none") /* it was not asked */                                                     \
	X(UNREACHABLE, "unreachable")                                                              \
	X(TIMEOUT, "timeout")                                                                      \
	X(BROKEN, "broken")                                                                        \
	X(UNPROCESSED, "unprocessed")                                                              \
	X(HTTP_1XX, "http_1xx")                                                                    \
	X(HTTP_2XX, "http_2xx") /* of gRPC, without its status */                                  \
	X(HTTP_3XX, "http_3xx")                                                                    \
	X(HTTP_400, "http_400")                                                                    \
	X(HTTP_401, "http_401")                                                                    \
	X(HTTP_403, "http_403")                                                                    \
	X(HTTP_404, "http_404")                                                                    \
	X(HTTP_413, "http_413")                                                                    \
	X(HTTP_415, "http_415")                                                                    \
	X(HTTP_429, "http_429")                                                                    \
	X(HTTP_431, "http_431")                                                                    \
	X(HTTP_4XX, "http_4xx")                                                                    \
	X(HTTP_500, "http_500")                                                                    \
	X(HTTP_502, "http_502")                                                                    \
	X(HTTP_503, "http_503")                                                                    \
	X(HTTP_504, "http_504")                                                                    \
	X(HTTP_5XX, "http_5xx")                                                                    \
	X(HTTP_OTHER, "http_other")                                                                \
	X(GRPC_OK, "grpc_ok") /* with an answer that does not hold */                              \
	X(GRPC_CANCELLED, "grpc_cancelled")                                                        \
	X(GRPC_UNKNOWN, "grpc_unknown")                                                            \
	X(GRPC_INVALID_ARGUMENT, "grpc_invalid_argument")                                          \
	X(GRPC_DEADLINE_EXCEEDED, "grpc_deadline_exceeded")                                        \
	X(GRPC_NOT_FOUND, "grpc_not_found")                                                        \
	X(GRPC_ALREADY_EXISTS, "grpc_already_exists")                                              \
	X(GRPC_PERMISSION_DENIED, "grpc_permission_denied")                                        \
	X(GRPC_RESOURCE_EXHAUSTED, "grpc_resource_exhausted")                                      \
	X(GRPC_FAILED_PRECONDITION, "grpc_failed_precondition")                                    \
	X(GRPC_ABORTED, "grpc_aborted")                                                            \
	X(GRPC_OUT_OF_RANGE, "grpc_out_of_range")                                                  \
	X(GRPC_UNIMPLEMENTED, "grpc_unimplemented")                                                \
	X(GRPC_INTERNAL, "grpc_internal")                                                          \
	X(GRPC_UNAVAILABLE, "grpc_unavailable")                                                    \
	X(GRPC_DATA_LOSS, "grpc_data_loss")                                                        \
	X(GRPC_UNAUTHENTICATED, "grpc_unauthenticated")                                            \
	X(GRPC_OTHER, "grpc_other")                                                                \
	X(KAFKA_TOO_LARGE, "kafka_too_large")                                                      \
	X(KAFKA_UNKNOWN_TOPIC, "kafka_unknown_topic")                                              \
	X(KAFKA_DENIED, "kafka_denied")                                                            \
	X(KAFKA_INVALID, "kafka_invalid")                                                          \
	X(KAFKA_REPLICAS, "kafka_replicas") /* too few in sync, or no leader */                    \
	X(KAFKA_TIMED_OUT, "kafka_timed_out")                                                      \
	X(KAFKA_OTHER, "kafka_other")                                                              \
	X(FILE_INVALID, "file_invalid")                                                            \
	X(FILE_ERROR, "file_error")

enum sl_answer {
#define SL_ANSWER_(name, label) SL_ANSWER_##name,
	SL_ANSWERS(SL_ANSWER_)
#undef SL_ANSWER_
		SL_ANSWER_COUNT
};

enum sl_answer sl_answer_of_http(uint16_t status);
enum sl_answer sl_answer_of_grpc(int status); // >= 0

// The rows of reason.def that a destination can be the cause of.
#define SL_ANSWER_REASONS(X)   X(REJECTED) X(UNDELIVERED) X(TIMED_OUT) X(EGRESS_FULL) X(MEMORY_FULL)
#define SL_ANSWER_REASON_COUNT 5

struct sl_refusals {
	uint64_t records[SL_ANSWER_COUNT * SL_ANSWER_REASON_COUNT];
};
extern const struct sl_metric_row sl_refusal_rows[1];
// `reason` is one of the above.
void sl_refusals_count(struct sl_refusals *refusals, enum sl_answer answer, enum sl_reason reason);
