#include "tests/unit/test.h"

#include "routing/otlp_answer.h"

// What upstreams' answers mean: the retry table of reference/otlp.md, RetryInfo, Retry-After,
// partial success.

static struct sl_http_header header(const char *name, const char *value)
{
	return (struct sl_http_header){sl_bytes_of(name), sl_bytes_of(value)};
}

// An answer's head; `grpc_status` NULL: none.
static struct sl_otlp_answer answered(bool http, uint16_t status, const char *grpc_status)
{
	struct sl_otlp_answer answer;
	struct sl_http_header one;

	sl_otlp_answer_init(&answer, http);
	answer.status = status;
	if (grpc_status) {
		one = header("grpc-status", grpc_status);
		sl_otlp_answer_headers(&answer, &one, 1);
	}
	return answer;
}

#define GOOD  SL_OUTCOME_DELIVERED
#define BAD   SL_OUTCOME_REJECTED
#define AGAIN SL_OUTCOME_RETRYABLE

static void test_outcomes(void **state)
{
	static const struct {
		const char *why;
		bool http;
		uint16_t status;
		const char *grpc_status, *retry_after;
		enum sl_outcome want;
	} rows[] = {
		{"http success", true, 200, NULL, NULL, GOOD},
		{"http success without a body", true, 204, NULL, NULL, GOOD},
		{"a redirection is not followed", true, 301, NULL, NULL, BAD},
		{"bad data", true, 400, NULL, NULL, BAD},
		{"no leave", true, 401, NULL, NULL, BAD},
		{"no path", true, 404, NULL, NULL, BAD},
		{"too large", true, 413, NULL, NULL, BAD},
		{"throttled", true, 429, NULL, NULL, AGAIN},
		{"a broken server is for good", true, 500, NULL, NULL, BAD},
		{"even when it names a time", true, 500, NULL, "1", BAD},
		{"bad gateway", true, 502, NULL, NULL, AGAIN},
		{"unavailable", true, 503, NULL, "1", AGAIN},
		{"gateway timeout", true, 504, NULL, NULL, AGAIN},
		{"another 5xx", true, 505, NULL, NULL, BAD},
		{"http looks at no grpc-status", true, 200, "14", NULL, GOOD},
		{"grpc OK", false, 200, "0", NULL, GOOD},
		{"CANCELLED", false, 200, "1", NULL, AGAIN},
		{"UNKNOWN", false, 200, "2", NULL, BAD},
		{"INVALID_ARGUMENT", false, 200, "3", NULL, BAD},
		{"DEADLINE_EXCEEDED", false, 200, "4", NULL, AGAIN},
		{"NOT_FOUND", false, 200, "5", NULL, BAD},
		{"ALREADY_EXISTS", false, 200, "6", NULL, BAD},
		{"PERMISSION_DENIED", false, 200, "7", NULL, BAD},
		{"RESOURCE_EXHAUSTED without RetryInfo", false, 200, "8", NULL, BAD},
		{"FAILED_PRECONDITION", false, 200, "9", NULL, BAD},
		{"ABORTED", false, 200, "10", NULL, AGAIN},
		{"OUT_OF_RANGE", false, 200, "11", NULL, AGAIN},
		{"UNIMPLEMENTED", false, 200, "12", NULL, BAD},
		{"INTERNAL", false, 200, "13", NULL, BAD},
		{"UNAVAILABLE", false, 200, "14", NULL, AGAIN},
		{"DATA_LOSS", false, 200, "15", NULL, AGAIN},
		{"UNAUTHENTICATED", false, 200, "16", NULL, BAD},
		{"a status of the future", false, 200, "17", NULL, BAD},
		{"a status that is empty is no success", false, 200, "", NULL, BAD},
		{"a status that is no number is no success", false, 200, "zero", NULL, BAD},
		{"a sign is no digit", false, 200, "-0", NULL, BAD},
		{"a number is read to its end", false, 200, "00000000000014", NULL, AGAIN},
		{"no status at all is UNKNOWN", false, 200, NULL, NULL, BAD},
		{"nor does another 2xx help", false, 204, NULL, NULL, BAD},
		{"a proxy's 503", false, 503, NULL, NULL, AGAIN},
		{"a proxy's 502", false, 502, NULL, NULL, AGAIN},
		{"a proxy's 404 is UNIMPLEMENTED", false, 404, NULL, NULL, BAD},
		{"grpc-status wins over the HTTP status", false, 503, "3", NULL, BAD},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_otlp_answer answer = answered(rows[i].http, rows[i].status,
							rows[i].grpc_status);
		struct sl_http_header one;

		if (rows[i].retry_after) {
			one = header("retry-after", rows[i].retry_after);
			sl_otlp_answer_headers(&answer, &one, 1);
		}
		if (sl_otlp_answer_outcome(&answer) != rows[i].want)
			fail_msg("%s: %u", rows[i].why, sl_otlp_answer_outcome(&answer));
	}
}

// google.rpc.Status as base64, made by hand:
//   0A02081E         RetryInfo, 30 s          -> item 22
//   08081A 30 0A28 "type.googleapis.com/google.rpc.RetryInfo" 1204 0A02081E
#define RETRY_INFO_30S "CAgaMAoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIECgIIHg"
// The same with 315,576,000,000 s, the longest Duration: 1209 0A07 0880BCAECE9709.
#define RETRY_INFO_HUGE                                                                            \
	"CAgaNQoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIJCgcIgLyuzpcJ"

static void test_waits(void **state)
{
	static const struct {
		const char *why, *name, *value;
		bool asked;
		uint64_t wait_ns;
	} rows[] = {
		{"RetryInfo", "grpc-status-details-bin", RETRY_INFO_30S, true, 30 * SL_S},
		{"padded, too", "grpc-status-details-bin", RETRY_INFO_30S "==", true, 30 * SL_S},
		{"more than 2^31 seconds: a day, too", "grpc-status-details-bin", RETRY_INFO_HUGE,
		 true, 86400 * SL_S},
		{"cut short: nothing is known", "grpc-status-details-bin", "CAgaMAoodHlwZS5nb2",
		 false, 0},
		{"not base64", "grpc-status-details-bin", "!!!", false, 0},
		{"empty", "grpc-status-details-bin", "", false, 0},
		{"seconds", "retry-after", "7", true, 7 * SL_S},
		{"a date asks without a time", "retry-after", "Fri, 31 Dec 2027 23:59:59 GMT", true,
		 0},
		{"no wait is longer than a day", "retry-after", "99999999999999999999", true,
		 86400 * SL_S},
		{"another header", "x-retry-after", "7", false, 0},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_http_header one = header(rows[i].name, rows[i].value);
		struct sl_otlp_answer answer;

		sl_otlp_answer_init(&answer, false);
		sl_otlp_answer_headers(&answer, &one, 1);
		if (answer.asked != rows[i].asked || answer.retry_after_ns != rows[i].wait_ns)
			fail_msg("%s: %d %llu", rows[i].why, answer.asked,
				 (unsigned long long)answer.retry_after_ns);
		answer.status = 200;
		answer.grpc_status = SL_GRPC_RESOURCE_EXHAUSTED;
		assert_int_equal(sl_otlp_answer_outcome(&answer),
				 rows[i].asked ? SL_OUTCOME_RETRYABLE : SL_OUTCOME_REJECTED);
	}
}

// The word that the metrics have for an answer that delivers nothing.
static void test_words(void **state)
{
	static const struct {
		const char *why;
		bool http;
		uint16_t status;
		const char *grpc_status;
		enum sl_answer want;
	} rows[] = {
		{"a status by name", true, 429, NULL, SL_ANSWER_HTTP_429},
		{"one of its class", true, 418, NULL, SL_ANSWER_HTTP_4XX},
		{"a redirection", true, 307, NULL, SL_ANSWER_HTTP_3XX},
		{"a server's", true, 599, NULL, SL_ANSWER_HTTP_5XX},
		{"no class", true, 600, NULL, SL_ANSWER_HTTP_OTHER},
		{"nor this", true, 99, NULL, SL_ANSWER_HTTP_OTHER},
		{"http looks at no grpc-status", true, 503, "3", SL_ANSWER_HTTP_503},
		{"gRPC", false, 200, "8", SL_ANSWER_GRPC_RESOURCE_EXHAUSTED},
		{"the last that has a name", false, 200, "16", SL_ANSWER_GRPC_UNAUTHENTICATED},
		{"one of the future", false, 200, "17", SL_ANSWER_GRPC_OTHER},
		{"any number", false, 200, "4000000000", SL_ANSWER_GRPC_OTHER},
		{"no number", false, 200, "-1", SL_ANSWER_GRPC_UNKNOWN},
		{"a proxy's", false, 502, NULL, SL_ANSWER_HTTP_502},
		{"none at all", false, 200, NULL, SL_ANSWER_HTTP_2XX},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		const struct sl_otlp_answer answer = answered(rows[i].http, rows[i].status,
							      rows[i].grpc_status);

		if (sl_otlp_answer_word(&answer) != rows[i].want)
			fail_msg("%s: %u", rows[i].why, sl_otlp_answer_word(&answer));
	}
}

// Not the protocol's own words: some proxy's. And a date is one beside the peer's own.
static const struct {
	const char *why;
	bool http;
	uint16_t status;
	const char *headers[6]; // names and values
	enum sl_outcome want;
	uint64_t wait_ns;
} beside[] = {
	{"gRPC's",
	 false,
	 200,
	 {"content-type", "application/grpc+proto", "grpc-status", "0"},
	 GOOD,
	 0},
	{"a page with a status that is not its own",
	 false,
	 200,
	 {"content-type", "text/html", "grpc-status", "0"},
	 BAD,
	 0},
	{"a proxy's page says when", false, 503, {"content-type", "text/html"}, AGAIN, 0},
	{"one that echoes a status",
	 false,
	 503,
	 {"content-type", "text/plain", "grpc-status", "3"},
	 AGAIN,
	 0},
	{"OK goes with 200 only",
	 false,
	 503,
	 {"content-type", "application/grpc", "grpc-status", "0"},
	 AGAIN,
	 0},
	{"a date beside the peer's own",
	 true,
	 503,
	 {"retry-after", "Sun, 06 Nov 1994 08:49:47 GMT", "date", "Sun, 06 Nov 1994 08:49:37 GMT"},
	 AGAIN,
	 10 * SL_S},
	{"in whatever order and form",
	 true,
	 429,
	 {"date", "Sunday, 06-Nov-94 08:49:37 GMT", "retry-after", "Sun Nov  6 08:50:37 1994"},
	 AGAIN,
	 60 * SL_S},
	{"one that is over",
	 true,
	 503,
	 {"date", "Sun, 06 Nov 1994 08:49:37 GMT", "retry-after", "Sun, 06 Nov 1994 08:49:36 GMT"},
	 AGAIN,
	 0},
	{"a far one is a day at most",
	 true,
	 503,
	 {"date", "Sun, 06 Nov 1994 08:49:37 GMT", "retry-after", "Sun, 06 Nov 2094 08:49:36 GMT"},
	 AGAIN,
	 86400 * SL_S},
	{"no date at all",
	 true,
	 503,
	 {"date", "Sun, 06 Nov 1994 08:49:37 GMT", "retry-after", "soon"},
	 AGAIN,
	 0},
	{"one with something behind it",
	 true,
	 503,
	 {"date", "Sun, 06 Nov 1994 08:49:37 GMT", "retry-after",
	  "Sun, 06 Nov 1994 08:49:47 GMT+1"},
	 AGAIN,
	 0},
};

static void test_what_stands_beside(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(beside); i++) {
		struct sl_otlp_answer answer;
		struct sl_http_header list[3];
		uint32_t count = 0;

		for (; count < 3 && beside[i].headers[2 * count]; count++)
			list[count] = header(beside[i].headers[2 * count],
					     beside[i].headers[2 * count + 1]);
		sl_otlp_answer_init(&answer, beside[i].http);
		answer.status = beside[i].status;
		sl_otlp_answer_headers(&answer, list, count);
		if (sl_otlp_answer_outcome(&answer) != beside[i].want ||
		    answer.retry_after_ns != beside[i].wait_ns)
			fail_msg("%s: %u, %llu", beside[i].why, sl_otlp_answer_outcome(&answer),
				 (unsigned long long)answer.retry_after_ns);
	}
}

#define BYTES(text) sl_bytes(text, sizeof(text) - 1)

static void test_partial_success(void **state)
{
	char whole[5 + 5 + 300];
	const struct {
		const char *why;
		bool http;
		struct sl_bytes body;
		uint64_t want;
	} rows[] = {
		{"nothing", true, BYTES(""), 0},
		{"an empty message", false, BYTES("\0\0\0\0\0"), 0},
		{"three of them", true, BYTES("\x0a\x02\x08\x03"), 3},
		{"three of them, framed", false, BYTES("\0\0\0\0\4\x0a\x02\x08\x03"), 3},
		{"a warning only", true, BYTES("\x0a\x03\x12\x01z"), 0},
		{"a message behind the count that is longer than what is kept", false,
		 sl_bytes(whole, sizeof(whole)), 5},
		{"garbage", true, BYTES("\xff\xff\xff\xff"), 0},
		{"a count below zero", true,
		 BYTES("\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), 0},
		{"compressed, which nobody asked for", false, BYTES("\1\0\0\0\4\x0a\x02\x08\x03"),
		 0},
	};

	(void)state;
	memset(whole, 'm', sizeof(whole));
	memcpy(whole, "\0\0\0\x01\x31\x0a\xae\x02\x08\x05", 10);
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		for (size_t step = 1; step < 400; step = step * 3) {
			struct sl_otlp_answer answer;

			sl_otlp_answer_init(&answer, rows[i].http);
			for (size_t at = 0; at < rows[i].body.size; at += step)
				sl_otlp_answer_data(&answer,
						    sl_bytes(rows[i].body.data + at,
							     SL_MIN(step, rows[i].body.size - at)));
			if (sl_otlp_answer_rejected(&answer) != rows[i].want)
				fail_msg("%s: %llu", rows[i].why,
					 (unsigned long long)sl_otlp_answer_rejected(&answer));
		}
	}
}

// It goes between the quotes of a log line, of which it can take no more than is kept.
static void test_message(void **state)
{
	struct sl_http_header one = header("grpc-message", "Over \"5\"\x01\\ items%0A");
	struct sl_otlp_answer answer;
	char text[400];

	(void)state;
	sl_otlp_answer_init(&answer, false);
	assert_string_equal(answer.message, "");
	sl_otlp_answer_headers(&answer, &one, 1);
	assert_string_equal(answer.message, "Over ?5??? items%0A");
	memset(text, 'x', sizeof(text));
	one.value = sl_bytes(text, sizeof(text));
	sl_otlp_answer_headers(&answer, &one, 1);
	assert_int_equal(strlen(answer.message), SL_OTLP_MESSAGE_KEPT - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_outcomes),        cmocka_unit_test(test_waits),
		cmocka_unit_test(test_partial_success), cmocka_unit_test(test_message),
		cmocka_unit_test(test_words),           cmocka_unit_test(test_what_stands_beside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
