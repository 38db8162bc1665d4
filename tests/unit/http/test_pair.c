#include "tests/unit/http/wire.h"

#include "dataplane/base/random.h"
#include "dataplane/http/grpc.h"

// The two faces against each other, bytes carried a few at a time.

static struct seen {
	unsigned heads, trailers, ended, status;
	int error;
	bool unprocessed;
	char text[4096];
	size_t text_bytes;
	char grpc_status[8], grpc_message[64];
} seen;

static void on_head(void *owner, struct sl_http_exchange *exchange, uint16_t status,
		    const struct sl_http_header *headers, uint32_t count)
{
	(void)owner;
	(void)exchange;
	seen.heads++;
	seen.status = status;
	for (uint32_t i = 0; i < count; i++) {
		const int size = (int)headers[i].value.size;
		const char *value = (const char *)headers[i].value.data;

		if (sl_bytes_equal(headers[i].name, SL_LITERAL("grpc-status")))
			snprintf(seen.grpc_status, sizeof(seen.grpc_status), "%.*s", size, value);
		if (sl_bytes_equal(headers[i].name, SL_LITERAL("grpc-message")))
			snprintf(seen.grpc_message, sizeof(seen.grpc_message), "%.*s", size, value);
	}
}

static void on_data(void *owner, struct sl_http_exchange *exchange, struct sl_bytes bytes)
{
	(void)owner;
	(void)exchange;
	assert_true(seen.text_bytes + bytes.size < sizeof(seen.text));
	memcpy(seen.text + seen.text_bytes, bytes.data, bytes.size);
	seen.text_bytes += bytes.size;
}

static void on_trailers(void *owner, struct sl_http_exchange *exchange,
			const struct sl_http_header *headers, uint32_t count)
{
	seen.trailers++;
	seen.heads--;
	on_head(owner, exchange, (uint16_t)seen.status, headers, count);
}

static void on_ended(void *owner, struct sl_http_exchange *exchange, int error, bool unprocessed)
{
	(void)owner;
	(void)exchange;
	seen.ended++;
	seen.error = error;
	seen.unprocessed = unprocessed;
}

static const struct sl_http_client_upcalls upcalls = {on_head, on_data, on_trailers, on_ended};

static void feed_server(struct wire *wire, const struct iovec *pieces, size_t count, size_t step)
{
	for (size_t i = 0; i < count; i++) {
		for (size_t at = 0; at < pieces[i].iov_len; at += step)
			wire_feed(wire, (uint8_t *)pieces[i].iov_base + at,
				  SL_MIN(step, pieces[i].iov_len - at));
	}
}

static size_t pieces_a_pull = 8;

static void carry(struct wire *wire, struct sl_http_client *client, size_t step)
{
	struct iovec pieces[40];
	size_t count;
	bool moved = true;

	while (moved) {
		moved = false;
		while ((count = sl_http_client_pull(client, pieces, pieces_a_pull))) {
			feed_server(wire, pieces, count, step);
			sl_http_client_pulled(client);
			moved = true;
		}
		wire->out_bytes = 0;
		wire_pull(wire);
		for (size_t at = 0; at < wire->out_bytes; at += step) {
			sl_http_client_feed(
				client,
				sl_bytes(wire->out + at, SL_MIN(step, wire->out_bytes - at)), 1);
			moved = true;
		}
	}
}

static uint8_t body[300000];

static struct sl_http_exchange exchange_of(const struct iovec *pieces, uint32_t count)
{
	struct sl_http_exchange exchange = {
		.method = SL_LITERAL("POST"),
		.scheme = SL_LITERAL("http"),
		.authority = SL_LITERAL("a"),
		.path = SL_LITERAL("/p"),
		.body = pieces,
		.body_count = count,
	};

	for (uint32_t i = 0; i < count; i++)
		exchange.body_bytes += pieces[i].iov_len;
	return exchange;
}

static void round_trip(bool http2, size_t step, size_t bytes, struct sl_http_response response)
{
	const struct iovec pieces[] = {{body, bytes / 3}, {body + bytes / 3, bytes - bytes / 3}};
	struct sl_http_exchange exchange = exchange_of(pieces, 2);
	struct wire *wire = calloc(1, sizeof(*wire));
	struct sl_http_client *client;

	memset(&seen, 0, sizeof(seen));
	memset(body, 0, sizeof(body)); // prints as nothing
	wire->answers = true;
	wire->response = response;
	wire->options.stream_window = 70000;
	wire_open(wire, http2);
	client = sl_http_client_create(http2, &upcalls, NULL, &wire->memory);
	for (int i = 0; i < 3; i++) {
		assert_true(sl_http_client_room(client) > 0);
		assert_int_equal(sl_http_client_start(client, &exchange), 0);
		carry(wire, client, step);
		assert_int_equal(seen.ended, i + 1);
		assert_int_equal(seen.error, 0);
		assert_int_equal(seen.heads, i + 1);
	}
	assert_int_equal(wire->result, 0);
	sl_http_client_destroy(client);
	wire_close(wire);
	free(wire);
}

static void calls_go_there_and_back(void **state)
{
	static const size_t steps[] = {1, 2, 7, 1000, 1 << 20};
	static const size_t sizes[] = {3, 100, 200000};
	const struct sl_http_response plain = {
		.status = 429, .body = SL_LITERAL("fine"), .retry_after_s = 3};
	const struct sl_http_response grpc = {
		.status = 200, .grpc = true, .content_type = SL_LITERAL("application/grpc")};
	const struct sl_http_response wrong = {.status = 200,
					       .grpc = true,
					       .grpc_status = 14,
					       .grpc_message = SL_LITERAL("50% \xc3\xa9")};
	(void)state;

	for (size_t s = 0; s < SL_COUNT_OF(steps); s++) {
		for (size_t b = 0; b < SL_COUNT_OF(sizes); b++) {
			round_trip(false, steps[s], sizes[b], plain);
			assert_memory_equal(seen.text, "finefinefine", 12);
			round_trip(true, steps[s], sizes[b], plain);
			assert_int_equal(seen.status, 429);
			assert_memory_equal(seen.text, "finefinefine", 12);
			round_trip(true, steps[s], sizes[b], grpc);
			assert_int_equal(seen.text_bytes, 15);
			assert_memory_equal(seen.text, "\0\0\0\0\0", 5);
			assert_int_equal(seen.trailers, 3);
			assert_string_equal(seen.grpc_status, "0");
			round_trip(true, steps[s], sizes[b], wrong);
			assert_int_equal(seen.text_bytes, 0);
			assert_int_equal(seen.trailers, 0);
			assert_string_equal(seen.grpc_status, "14");
			assert_string_equal(seen.grpc_message, "50%25 %C3%A9");
		}
	}
}

// Bodies of pieces of all sizes arrive as they were, however few pieces a pull may have: what is
// copied and what is sent from its place keep their order, over frames and windows.
static void bodies_of_many_pieces(void **state)
{
	static uint8_t arrived[sizeof(body) + 1];
	const struct sl_http_response fine = {.status = 200, .body = SL_LITERAL("fine")};
	struct sl_random random;

	(void)state;
	sl_random_init(&random, 1);
	for (unsigned round = 0; round < 300; round++) {
		const size_t longest = round % 3 ? 3000 : 60;
		struct iovec pieces[400];
		struct sl_http_exchange exchange;
		struct wire *wire = calloc(1, sizeof(*wire));
		struct sl_http_client *client;
		size_t used = 0;
		uint32_t count = 0;

		while (count < SL_COUNT_OF(pieces) && used + longest < sizeof(body)) {
			const size_t size = sl_random_below(&random, longest + 1);

			pieces[count++] = (struct iovec){body + used, size};
			for (size_t i = 0; i < size; i++)
				body[used + i] = (uint8_t)sl_random_below(&random, 256);
			used += size;
		}
		memset(&seen, 0, sizeof(seen));
		exchange = exchange_of(pieces, count);
		wire->answers = true;
		wire->response = fine;
		wire->options.stream_window = 70000;
		wire->bodies = arrived;
		wire_open(wire, round % 4 != 0);
		client = sl_http_client_create(round % 4 != 0, &upcalls, NULL, &wire->memory);
		pieces_a_pull = 1 + sl_random_below(&random, 40);
		assert_int_equal(sl_http_client_start(client, &exchange), 0);
		carry(wire, client, 100000);
		assert_int_equal(seen.ended, 1);
		assert_int_equal(seen.error, 0);
		assert_int_equal(wire->bodies_bytes, used);
		assert_memory_equal(arrived, body, used);
		sl_http_client_destroy(client);
		wire_close(wire);
		free(wire);
	}
	pieces_a_pull = 8;
}

static void every_exchange_ends_once(void **state)
{
	(void)state;
	for (int http2 = 0; http2 < 2; http2++) {
		struct wire *wire = calloc(1, sizeof(*wire));
		const struct iovec piece = {body, 10};
		struct sl_http_exchange first = exchange_of(&piece, 1), second = first;
		struct sl_http_client *client;

		memset(&seen, 0, sizeof(seen));
		wire_open(wire, http2);
		client = sl_http_client_create(http2, &upcalls, NULL, &wire->memory);
		assert_int_equal(sl_http_client_start(client, &first), 0);
		carry(wire, client, 100);
		if (http2) {
			assert_int_equal(sl_http_client_start(client, &second), 0);
			sl_http_client_cancel(client, &second);
			assert_int_equal(seen.ended, 1);
			assert_int_equal(seen.error, 8);
			carry(wire, client, 100);
			assert_int_equal(sl_http_client_open(client), 1);
		}
		sl_http_client_destroy(client);
		assert_int_equal(seen.ended, 1 + http2);
		assert_int_equal(seen.error, -1);
		wire_close(wire);
		free(wire);
	}
}

static void grpc_frames_at_every_cut(void **state)
{
	static const uint8_t stream[] = {1, 0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 0, 0};
	(void)state;

	for (size_t cut = 0; cut <= sizeof(stream); cut++) {
		struct sl_grpc_deframer deframer = {0};
		unsigned begun = 0, whole = 0;
		size_t bytes = 0;

		for (int half = 0; half < 2; half++) {
			struct sl_bytes in = half ? sl_bytes(stream + cut, sizeof(stream) - cut)
						  : sl_bytes(stream, cut);
			enum sl_grpc_event event;
			struct sl_bytes data;

			while ((event = sl_grpc_next(&deframer, &in, &data)) != SL_GRPC_NEED_MORE) {
				begun += event == SL_GRPC_BEGIN;
				whole += event == SL_GRPC_MESSAGE;
				bytes += data.size;
				assert_int_not_equal(event, SL_GRPC_BAD);
			}
			if (half == 0)
				assert_int_equal(sl_grpc_is_whole(&deframer), cut == 8);
		}
		assert_int_equal(begun, 2);
		assert_int_equal(whole, 2);
		assert_int_equal(bytes, 3);
		assert_false(sl_grpc_is_whole(&deframer)); // two are not one
	}
}

static void grpc_timeouts(void **state)
{
	static const struct {
		const char *why, *text;
		bool fine;
		uint64_t ns;
	} rows[] = {
		{"milliseconds", "100m", true, 100 * SL_MS},
		{"hours", "2H", true, 7200 * SL_S},
		{"the longest fits or saturates", "99999999H", true, UINT64_MAX},
		{"nine digits", "999999999n", false, 0},
		{"no unit", "100", false, 0},
		{"no digits", "m", false, 0},
		{"an unknown unit", "1x", false, 0},
		{"a sign", "-1m", false, 0},
	};
	(void)state;

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		uint64_t ns = 0;

		if (sl_grpc_timeout_parse(sl_bytes_of(rows[i].text), &ns) != rows[i].fine ||
		    ns != rows[i].ns)
			fail_msg("%s: %lu", rows[i].why, (unsigned long)ns);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_go_there_and_back),
		cmocka_unit_test(bodies_of_many_pieces),
		cmocka_unit_test(every_exchange_ends_once),
		cmocka_unit_test(grpc_frames_at_every_cut),
		cmocka_unit_test(grpc_timeouts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
