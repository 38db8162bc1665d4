// What an upstream's answer says does not depend on how it came in pieces, asks for no more than a
// day, and no answer without a clear status is a success.
//
// Input: flags, a cut, the size of the details' text, that text (in base64 below), the body.

#include <stdlib.h>

#include "routing/otlp_answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

// Raw bytes as base64, so that mutations reach the messages inside.
static size_t encode(struct sl_bytes in, uint8_t *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				     "0123456789+/";
	uint32_t bits = 0;
	unsigned held = 0;
	size_t count = 0;

	for (size_t i = 0; i < in.size; i++) {
		bits = bits << 8 | in.data[i];
		for (held += 8; held >= 6; held -= 6)
			out[count++] = (uint8_t)digits[bits >> (held - 6) & 63];
	}
	if (held)
		out[count++] = (uint8_t)digits[bits << (6 - held) & 63];
	return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sl_otlp_answer whole, split;
	uint8_t text[512];

	if (size < 3)
		return 0;

	const bool http = data[0] & 1, raw = data[0] & 2;
	const size_t details_bytes = SL_MIN((size_t)data[2], size - 3);
	const struct sl_bytes details = sl_bytes(data + 3, details_bytes);
	const struct sl_bytes body = sl_bytes(data + 3 + details_bytes, size - 3 - details_bytes);
	const size_t cut = data[1] * body.size / 256;
	const struct sl_bytes coded = sl_bytes(text, encode(details, text));
	const struct sl_http_header headers[] = {
		{SL_LITERAL("grpc-status-details-bin"), raw ? details : coded},
		{data[0] & 4 ? SL_LITERAL("retry-after") : SL_LITERAL("grpc-status"), details},
	};

	sl_otlp_answer_init(&whole, http);
	sl_otlp_answer_init(&split, http);
	whole.status = split.status = data[0] & 8 ? 503 : 200;
	sl_otlp_answer_headers(&whole, headers, 2);
	sl_otlp_answer_headers(&split, headers, 1);
	sl_otlp_answer_headers(&split, headers + 1, 1);
	sl_otlp_answer_data(&whole, body);
	sl_otlp_answer_data(&split, sl_bytes(body.data, cut));
	sl_otlp_answer_data(&split, sl_bytes(body.data + cut, body.size - cut));
	check(whole.asked == split.asked && whole.retry_after_ns == split.retry_after_ns);
	check(whole.retry_after_ns <= 86400 * SL_S && (whole.asked || !whole.retry_after_ns));
	check(sl_otlp_answer_rejected(&whole) == sl_otlp_answer_rejected(&split));
	check(sl_otlp_answer_rejected(&whole) <= INT64_MAX);
	if (!http && sl_otlp_answer_outcome(&whole) == SL_OUTCOME_DELIVERED) {
		check(details.size && !(data[0] & 4));
		for (size_t i = 0; i < details.size; i++)
			check(details.data[i] == '0');
	}
	return 0;
}
