#include <nghttp2/nghttp2.h>

#include "tests/unit/http/wire.h"

#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Frames written by hand.
struct script {
	uint8_t bytes[1 << 16];
	size_t size;
};

static void frame(struct script *script, uint8_t type, uint8_t flags, uint32_t id, const void *data,
		  size_t size)
{
	const uint8_t head[9] = {
		(uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size,      type,       flags,
		(uint8_t)(id >> 24),   (uint8_t)(id >> 16),  (uint8_t)(id >> 8), (uint8_t)id};

	assert_true(script->size + 9 + size < sizeof(script->bytes));
	memcpy(script->bytes + script->size, head, 9);
	if (size)
		memcpy(script->bytes + script->size + 9, data, size);
	script->size += 9 + size;
}

static void begin(struct script *script)
{
	script->size = sizeof(PREFACE) - 1;
	memcpy(script->bytes, PREFACE, script->size);
	frame(script, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
}

// "name=value;name=value;" as literal fields that are not indexed.
static size_t block_of(uint8_t *out, const char *fields)
{
	size_t size = 0;

	while (*fields) {
		const char *equals = strchr(fields, '='), *end = strchr(fields, ';');
		const size_t name = (size_t)(equals - fields), value = (size_t)(end - equals - 1);

		out[size++] = 0;
		out[size++] = (uint8_t)name;
		memcpy(out + size, fields, name);
		size += name;
		out[size++] = (uint8_t)value;
		memcpy(out + size, equals + 1, value);
		size += value;
		fields = end + 1;
	}
	return size;
}

static void headers(struct script *script, uint32_t id, uint8_t flags, const char *fields)
{
	uint8_t block[4096];

	frame(script, NGHTTP2_HEADERS, flags, id, block, block_of(block, fields));
}

#define EH   NGHTTP2_FLAG_END_HEADERS
#define ES   NGHTTP2_FLAG_END_STREAM
#define POST ":method=POST;:scheme=http;:path=/v1/traces?q;:authority=a;"

// Whether a frame was sent; `code` is compared with the last 4 bytes' place of its kind.
static bool sent(const struct wire *wire, uint8_t type, uint32_t id, int64_t code)
{
	for (size_t at = 0; at + 9 <= wire->out_bytes;) {
		const uint8_t *head = wire->out + at;
		const size_t size = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
		const uint32_t stream = (uint32_t)head[5] << 24 | (uint32_t)head[6] << 16 |
					(uint32_t)head[7] << 8 | head[8];
		const size_t place = type == NGHTTP2_GOAWAY ? 13 : 9;

		if (head[3] == type && stream == id &&
		    (code < 0 || head[place + 3] == (uint8_t)code))
			return true;
		at += 9 + size;
	}
	return false;
}

static void legal_forms(struct script *script)
{
	static const uint8_t padded[] = {3, 'a', 'b', 0, 0, 0};
	uint8_t block[4096];
	size_t size;

	begin(script);
	// Its head in three frames, its data padded and followed by an empty end.
	size = block_of(block, POST "content-type=t/u;content-length=4;");
	frame(script, NGHTTP2_HEADERS, 0, 1, block, 1);
	frame(script, NGHTTP2_CONTINUATION, 0, 1, block + 1, 0);
	frame(script, NGHTTP2_CONTINUATION, EH, 1, block + 1, size - 1);
	frame(script, NGHTTP2_DATA, NGHTTP2_FLAG_PADDED, 1, padded, sizeof(padded));
	frame(script, NGHTTP2_PING, 0, 0, "12345678", 8);
	frame(script, NGHTTP2_DATA, 0, 1, "cd", 2);
	frame(script, NGHTTP2_DATA, ES, 1, NULL, 0);
	// Trailers; a frame of an unknown type between.
	headers(script, 3, EH, POST "te=trailers;");
	frame(script, NGHTTP2_DATA, 0, 3, "x", 1);
	frame(script, 0xbe, 0, 3, "?", 1);
	headers(script, 3, EH | ES, "grpc-odd=1;");
	headers(script, 5, EH | ES, ":method=GET;:scheme=http;:path=/;host=a;");
}

static void every_cut_gives_the_same(void **state)
{
	static const char events[] = "|head POST /v1/traces t/u|data abcd|end"
				     "|head POST /v1/traces |data x|end|head GET /  end|end";
	static struct script script;
	struct wire *wire = calloc(1, sizeof(*wire));
	(void)state;

	legal_forms(&script);
	for (size_t cut = 0; cut <= script.size; cut++) {
		memset(wire, 0, sizeof(*wire));
		wire->answers = true;
		wire_open(wire, true);
		wire_feed(wire, script.bytes, cut);
		wire_feed(wire, script.bytes + cut, script.size - cut);
		wire_pull(wire);
		assert_int_equal(wire->result, 0);
		assert_int_equal(wire->gones, 3);
		if (strncmp(wire->log, events, strlen(events)) != 0 || strstr(wire->log, "lost"))
			fail_msg("cut at %zu: %s", cut, wire->log);
		assert_true(sent(wire, NGHTTP2_PING, 0, '1' + 3)); // echoed exactly
		assert_true(sent(wire, NGHTTP2_DATA, 1, -1));
		wire_close(wire);
	}
	free(wire);
}

static const struct {
	const char *why, *fields;
} malformed[] = {
	{"no path", ":method=POST;:scheme=http;"},
	{"no method", ":scheme=http;:path=/;"},
	{"an empty path", ":method=POST;:scheme=http;:path=;"},
	{"a pseudo field twice", POST ":path=/;"},
	{"a pseudo field after a regular one", ":method=POST;:scheme=http;a=b;:path=/;"},
	{"an unknown pseudo field", POST ":status=200;"},
	{"upper case", POST "Abc=d;"},
	{"a connection field", POST "connection=close;"},
	{"an upgrade", POST "upgrade=h3;"},
	{"a transfer coding", POST "transfer-encoding=chunked;"},
	{"te other than trailers", POST "te=gzip;"},
	{"a value with a line end", POST "a=b\r\nc;"},
	{"a value with blanks around", POST "a= b;"},
	{"a name with a blank", POST "a b=c;"},
	{"an empty name", POST "=c;"},
	{"a host that is another", POST "host=b;"},
	{"two lengths", POST "content-length=1;content-length=1;"},
	{"a length that is no number", POST "content-length=-1;"},
};

static void malformed_heads_reset_their_stream(void **state)
{
	static struct script script;
	struct wire *wire = calloc(1, sizeof(*wire));
	(void)state;

	for (size_t row = 0; row < SL_COUNT_OF(malformed); row++) {
		memset(wire, 0, sizeof(*wire));
		wire_open(wire, true);
		begin(&script);
		headers(&script, 1, EH, malformed[row].fields);
		headers(&script, 3, EH | ES, POST);
		wire_feed(wire, script.bytes, script.size);
		wire_pull(wire);
		if (!sent(wire, NGHTTP2_RST_STREAM, 1, NGHTTP2_PROTOCOL_ERROR) ||
		    strcmp(wire->log, "|refused 400|head POST /v1/traces  end|end") != 0)
			fail_msg("%s: %s", malformed[row].why, wire->log);
		wire_close(wire);
	}
	free(wire);
}

static void lengths_must_agree(void **state)
{
	static struct script script;
	struct wire *wire = calloc(1, sizeof(*wire));
	(void)state;

	for (int size = 1; size <= 3; size++) {
		memset(wire, 0, sizeof(*wire));
		wire_open(wire, true);
		begin(&script);
		headers(&script, 1, EH, POST "content-length=2;");
		frame(&script, NGHTTP2_DATA, ES, 1, "abc", (size_t)size);
		wire_feed(wire, script.bytes, script.size);
		wire_pull(wire);
		assert_int_equal(strstr(wire->log, "|end") != NULL, size == 2);
		assert_int_equal(sent(wire, NGHTTP2_RST_STREAM, 1, NGHTTP2_PROTOCOL_ERROR),
				 size != 2);
		wire_close(wire);
	}
	free(wire);
}

static void floods_end_the_connection(void **state)
{
	static struct script script;
	struct wire *wire = calloc(1, sizeof(*wire));
	(void)state;

	for (int kind = 0; kind < 4; kind++) {
		memset(wire, 0, sizeof(*wire));
		wire_open(wire, true);
		begin(&script);
		headers(&script, 1, EH, POST);
		for (uint32_t i = 0; i < 150; i++) {
			if (kind == 0) {
				frame(&script, NGHTTP2_SETTINGS, 0, 0, NULL, 0);
			} else if (kind == 1) {
				frame(&script, NGHTTP2_DATA, 0, 1, NULL, 0);
			} else if (kind == 2) {
				headers(&script, 3 + 2 * i, EH, POST);
				frame(&script, NGHTTP2_RST_STREAM, 0, 3 + 2 * i, "\0\0\0\10", 4);
			} else {
				frame(&script, NGHTTP2_PING, 0, 0, "12345678", 8);
			}
		}
		wire_feed(wire, script.bytes, script.size);
		assert_int_equal(wire->result, -1);
		wire_pull(wire);
		assert_true(sent(wire, NGHTTP2_GOAWAY, 0, NGHTTP2_ENHANCE_YOUR_CALM));
		assert_true(sl_http_server_is_done(wire->server));
		wire_close(wire);
	}
	free(wire);
}

static void limits_are_held(void **state)
{
	static struct script script;
	struct wire *wire = calloc(1, sizeof(*wire));
	char fields[4096] = POST;
	(void)state;

	wire->options.streams_max = 2;
	wire->options.header_bytes_max = 1024;
	wire_open(wire, true);
	begin(&script);
	for (int i = 0; i < 40; i++)
		strcat(fields, "abcdefgh=abcdefgh;");
	headers(&script, 1, EH, fields);
	headers(&script, 3, EH, POST);
	headers(&script, 5, EH, POST);
	wire_feed(wire, script.bytes, script.size);
	wire_pull(wire);
	assert_int_equal(wire->result, 0);
	assert_int_equal(wire->heads, 1);
	assert_string_equal(wire->log, "|refused 431|head POST /v1/traces |refused 503");
	assert_true(sent(wire, NGHTTP2_HEADERS, 1, -1)); // 431
	assert_true(sent(wire, NGHTTP2_RST_STREAM, 1, NGHTTP2_NO_ERROR));
	assert_true(sent(wire, NGHTTP2_RST_STREAM, 5, NGHTTP2_REFUSED_STREAM));
	wire_close(wire);
	free(wire);
}

static void an_early_answer_is_followed_by_a_reset(void **state)
{
	static struct script script;
	struct wire *wire = calloc(1, sizeof(*wire));
	(void)state;

	wire->answers_early = true;
	wire->response = (struct sl_http_response){.status = 200, .grpc = true, .grpc_status = 8};
	wire_open(wire, true);
	begin(&script);
	headers(&script, 1, EH, POST);
	frame(&script, NGHTTP2_DATA, 0, 1, "abc", 3);
	wire_feed(wire, script.bytes, script.size);
	wire_pull(wire);
	assert_true(sent(wire, NGHTTP2_RST_STREAM, 1, NGHTTP2_NO_ERROR));
	assert_string_equal(wire->log, "|head POST /v1/traces |gone");
	wire_close(wire);
	free(wire);
}

static void goaway_comes_in_two_steps(void **state)
{
	static struct script script;
	struct wire *wire = calloc(1, sizeof(*wire));
	uint8_t ack[8];
	(void)state;

	wire->answers = true;
	wire_open(wire, true);
	begin(&script);
	wire_feed(wire, script.bytes, script.size);
	sl_http_server_goaway(wire->server, "max_age");
	wire_pull(wire);
	assert_true(sent(wire, NGHTTP2_GOAWAY, 0, NGHTTP2_NO_ERROR));
	assert_false(sl_http_server_is_done(wire->server));
	memcpy(ack, wire->out + wire->out_bytes - 8, 8);
	script.size = 0;
	headers(&script, 1, EH | ES, POST); // crossed the first GOAWAY: it is served
	frame(&script, NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, ack, 8);
	wire->out_bytes = 0;
	wire_feed(wire, script.bytes, script.size);
	wire_pull(wire);
	assert_string_equal(wire->log, "|head POST /v1/traces  end|end|gone");
	assert_true(sent(wire, NGHTTP2_GOAWAY, 0, NGHTTP2_NO_ERROR));
	assert_true(sl_http_server_is_done(wire->server));
	wire_close(wire);
	free(wire);
}

static void outstanding_is_a_lower_bound(void **state)
{
	static struct script script;
	struct wire *wire = calloc(1, sizeof(*wire));
	(void)state;

	wire->options.stream_window = 50000;
	wire_open(wire, true);
	begin(&script);
	frame(&script, NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, NULL, 0);
	wire_pull(wire);
	headers(&script, 1, EH, POST);
	frame(&script, NGHTTP2_DATA, 0, 1, "abcde", 5);
	wire_feed(wire, script.bytes, script.size);
	assert_int_equal(sl_http_server_outstanding(wire->server), 0);
	sl_http_stream_expect(wire->stream, 1005);
	assert_int_equal(sl_http_server_outstanding(wire->server), 1000);
	sl_http_stream_expect(wire->stream, 1 << 20);
	assert_int_equal(sl_http_server_outstanding(wire->server), 49995);
	wire_close(wire);
	free(wire);
}

static void an_idle_connection_is_small(void **state)
{
	struct wire *wire = calloc(1, sizeof(*wire));
	struct sl_http_server *servers[64];
	static struct script script;
	uint64_t before;
	(void)state;

	wire_open(wire, true);
	begin(&script);
	wire_feed(wire, script.bytes, script.size);
	wire_pull(wire);
	before = wire->memory.used_bytes;
	for (size_t i = 0; i < SL_COUNT_OF(servers); i++) {
		struct iovec pieces[1];

		servers[i] = sl_http_server_create(true, &wire->options, &wire_upcalls, wire,
						   &wire->memory);
		sl_http_server_feed(servers[i], sl_bytes(script.bytes, script.size), 1);
		sl_http_server_pull(servers[i], pieces, 1);
		sl_http_server_pulled(servers[i]);
	}
	before = (wire->memory.used_bytes - before) / SL_COUNT_OF(servers);
	printf("idle: %u bytes a connection\n", (unsigned)before);
	assert_true(before <= 36 * SL_KIB);
	for (size_t i = 0; i < SL_COUNT_OF(servers); i++)
		sl_http_server_destroy(servers[i]);
	wire_close(wire);
	free(wire);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_cut_gives_the_same),
		cmocka_unit_test(malformed_heads_reset_their_stream),
		cmocka_unit_test(lengths_must_agree),
		cmocka_unit_test(floods_end_the_connection),
		cmocka_unit_test(limits_are_held),
		cmocka_unit_test(an_early_answer_is_followed_by_a_reset),
		cmocka_unit_test(goaway_comes_in_two_steps),
		cmocka_unit_test(outstanding_is_a_lower_bound),
		cmocka_unit_test(an_idle_connection_is_small),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
