#pragma once

#include "dataplane/base/header.h"
#include "dataplane/request/reason.h"
#include "dataplane/request/request.h"
#include "routing/answers.h"

// What an OTLP upstream's answer says about a record (reference items 6, 22, 23, 38-41): gathered
// as it comes, judged at its end.
//
// Threading: one owner. Memory: plain value. Time: none.
#define SL_OTLP_MESSAGE_KEPT 96 // of grpc-message, for the log
#define SL_OTLP_REPLY_KEPT   64 // of the body: partial_success begins with its count

struct sl_otlp_answer {
	bool http;       // OTLP over HTTP, else gRPC
	bool asked;      // RetryInfo or Retry-After came
	bool foreign;    // its content type is not the protocol's: some proxy's words
	uint16_t status; // of HTTP
	int grpc_status; // -1: none came
	char message[SL_OTLP_MESSAGE_KEPT]; // of gRPC; printable, without quotes
	uint64_t retry_after_ns;
	int64_t retry_at_s, now_s; // dates of Retry-After and of the answer; 0: none
	uint8_t reply[SL_OTLP_REPLY_KEPT];
	size_t reply_bytes;
};

void sl_otlp_answer_init(struct sl_otlp_answer *answer, bool http);
// Headers or trailers.
void sl_otlp_answer_headers(struct sl_otlp_answer *answer, const struct sl_http_header *headers,
			    uint32_t count);
void sl_otlp_answer_data(struct sl_otlp_answer *answer, struct sl_bytes bytes);
// Whether gRPC's status is what it says: there is one, and the answer is gRPC's.
bool sl_otlp_answer_is_grpc(const struct sl_otlp_answer *answer);
enum sl_outcome sl_otlp_answer_outcome(const struct sl_otlp_answer *answer);
// Of one that is not delivered, the metric's word.
enum sl_answer sl_otlp_answer_word(const struct sl_otlp_answer *answer);
// Of a rejected one: whether it was for who sends it, as any other would be.
bool sl_otlp_answer_denied(const struct sl_otlp_answer *answer);
// Items of a delivered record that a partial success refused.
uint64_t sl_otlp_answer_rejected(const struct sl_otlp_answer *answer);
