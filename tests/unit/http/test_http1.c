#include "tests/unit/http/wire.h"

#define HOST "Host: a\r\n"

static const struct {
	const char *why, *in, *events;
	const char *out; // its beginning
} rows[] = {
	{"a body of known length",
	 "POST /v1/traces?x=1 HTTP/1.1\r\n" HOST
	 "Content-Type: t/u\r\nContent-Length: 3\r\n\r\nabc",
	 "|head POST /v1/traces t/u|data abc|end|gone",
	 "HTTP/1.1 200 OK\r\ncontent-type: a/b\r\ncontent-length: 4\r\n\r\nfine"},
	{"chunks with extensions and trailers",
	 "POST / HTTP/1.1\r\n" HOST
	 "Transfer-Encoding: Chunked\r\n\r\n1\r\na\r\n02;x=y\r\nbc\r\n0\r\nT: v\r\n\r\n",
	 "|head POST / |data abc|end|gone", "HTTP/1.1 200 OK\r\n"},
	{"white space behind a chunk's size, before an extension or the end",
	 "POST / HTTP/1.1\r\n" HOST
	 "Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n02 \t ; x = y\r\nbc\r\n0 \r\n\r\n",
	 "|head POST / |data abc|end|gone", "HTTP/1.1 200 OK\r\n"},
	{"two pipelined requests, answered in order",
	 "GET /a HTTP/1.1\r\n" HOST "\r\nGET /b HTTP/1.1\r\n" HOST "\r\n",
	 "|head GET /a  end|end|head GET /b  end|end|gone|gone", "HTTP/1.1 200 OK\r\n"},
	{"one empty line may precede a request", "\r\nGET / HTTP/1.1\r\n" HOST "\r\n",
	 "|head GET /  end|end|gone", "HTTP/1.1 200 OK\r\n"},
	{"four empty lines do too", "\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n",
	 "|head GET /  end|end|gone", "HTTP/1.1 200 OK\r\n"},
	{"five are a flood", "\r\n\r\n\r\n\r\n\r\n", "|refused 400", "HTTP/1.1 400 "},
	{"an absolute target", "GET http://a/p?q HTTP/1.1\r\n" HOST "\r\n",
	 "|head GET /p  end|end|gone", "HTTP/1.1 200 OK\r\n"},
	{"HTTP/1.0 closes", "GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n",
	 "|head GET /  end|end|gone",
	 "HTTP/1.1 200 OK\r\ncontent-type: a/b\r\ncontent-length: 4\r\nconnection: "
	 "close\r\n\r\nfine"},
	{"HTTP/1.0 that keeps alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	 "|head GET /  end|end|gone",
	 "HTTP/1.1 200 OK\r\ncontent-type: a/b\r\ncontent-length: 4\r\nconnection: "
	 "keep-alive\r\n\r\nfine"},
	{"HEAD has no body", "HEAD / HTTP/1.1\r\n" HOST "\r\n", "|head HEAD /  end|end|gone",
	 "HTTP/1.1 200 OK\r\ncontent-type: a/b\r\ncontent-length: 4\r\n\r\n"},
	{"length and chunks together",
	 "POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
	 "|refused 400", "HTTP/1.1 400 "},
	{"chunks and length together",
	 "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
	 "|refused 400", "HTTP/1.1 400 "},
	{"two lengths, though they agree",
	 "POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
	 "|refused 400", "HTTP/1.1 400 "},
	{"a list of lengths", "POST / HTTP/1.1\r\n" HOST "Content-Length: 3, 3\r\n\r\nabc",
	 "|refused 400", "HTTP/1.1 400 "},
	{"a signed length", "POST / HTTP/1.1\r\n" HOST "Content-Length: +3\r\n\r\nabc",
	 "|refused 400", "HTTP/1.1 400 "},
	{"a folded field", "GET / HTTP/1.1\r\n" HOST "X: a\r\n b\r\n\r\n", "|refused 400",
	 "HTTP/1.1 400 "},
	{"a bare LF", "GET / HTTP/1.1\r\n" HOST "X: a\nY: b\r\n\r\n", "|refused 400",
	 "HTTP/1.1 400 "},
	{"a head of bare LFs", "GET / HTTP/1.1\nHost: a\n\n", "|refused 400", "HTTP/1.1 400 "},
	{"a bare CR", "GET / HTTP/1.1\r\n" HOST "X: a\rY: b\r\n\r\n", "|refused 400",
	 "HTTP/1.1 400 "},
	{"a coding other than chunked",
	 "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n", "|refused 400",
	 "HTTP/1.1 400 "},
	{"chunked twice",
	 "POST / HTTP/1.1\r\n" HOST
	 "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
	 "|refused 400", "HTTP/1.1 400 "},
	{"chunks in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
	 "|refused 400", "HTTP/1.1 400 "},
	{"a blank before the colon", "GET / HTTP/1.1\r\n" HOST "X : a\r\n\r\n", "|refused 400",
	 "HTTP/1.1 400 "},
	{"a refusal knows the content type",
	 "POST / HTTP/1.1\r\ncontent-TYPE: \tt/u \r\nX: a\r\n b\r\n\r\n", "|refused 400 t/u",
	 "HTTP/1.1 400 Bad Request\r\ncontent-type: t/u\r\ncontent-length: 2\r\n"
	 "connection: close\r\n\r\nno"},
	{"no host", "GET / HTTP/1.1\r\n\r\n", "|refused 400", "HTTP/1.1 400 "},
	{"two hosts", "GET / HTTP/1.1\r\n" HOST HOST "\r\n", "|refused 400", "HTTP/1.1 400 "},
	{"another version", "GET / HTTP/2.1\r\n" HOST "\r\n", "|refused 505", "HTTP/1.1 505 "},
	{"an expectation nobody knows", "POST / HTTP/1.1\r\n" HOST "Expect: tea\r\n\r\n",
	 "|refused 417", "HTTP/1.1 417 "},
	{"a method that nobody knows", "BREW /pot HTTP/1.1\r\n" HOST "\r\n", "|refused 501",
	 "HTTP/1.1 501 Not Implemented\r\n"},
	{"one that begins as a known one does", "GETX / HTTP/1.1\r\n" HOST "\r\n", "|refused 501",
	 "HTTP/1.1 501 "},
	{"methods are told apart by case", "get / HTTP/1.1\r\n" HOST "\r\n", "|refused 501",
	 "HTTP/1.1 501 "},
	{"a method that is no token", "G@T / HTTP/1.1\r\n" HOST "\r\n", "|refused 400",
	 "HTTP/1.1 400 "},
	{"another protocol", "SSH-2.0-OpenSSH_9.2\r\n\r\n", "|refused 400", "HTTP/1.1 400 "},
	{"no target", "BREW HTTP/1.1\r\n" HOST "\r\n", "|refused 400", "HTTP/1.1 400 "},
	{"no method", " / HTTP/1.1\r\n" HOST "\r\n", "|refused 400", "HTTP/1.1 400 "},
	{"white space before a chunk's size",
	 "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n 1\r\na\r\n0\r\n\r\n",
	 "|head POST / |refused 400|gone", "HTTP/1.1 400 "},
	{"a chunk's size in two",
	 "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1 1\r\na\r\n0\r\n\r\n",
	 "|head POST / |refused 400|gone", "HTTP/1.1 400 "},
	{"a chunk's size with a bare LF",
	 "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
	 "|head POST / |refused 400|gone", "HTTP/1.1 400 "},
	{"a chunk longer than it says",
	 "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
	 "|head POST / |data a|refused 400|gone", "HTTP/1.1 400 "},
	{"a chunk size that overflows",
	 "POST / HTTP/1.1\r\n" HOST
	 "Transfer-Encoding: chunked\r\n\r\n10000000000000001\r\na\r\n0\r\n\r\n",
	 "|head POST / |refused 400|gone", "HTTP/1.1 400 "},
};

static void run(size_t row, size_t cut)
{
	struct wire *wire = calloc(1, sizeof(*wire));
	const size_t size = strlen(rows[row].in);

	wire->answers = true;
	wire_open(wire, false);
	wire_feed(wire, rows[row].in, cut);
	wire_feed(wire, rows[row].in + cut, size - cut);
	wire_pull(wire);
	if (strcmp(wire->log, rows[row].events) != 0 ||
	    strncmp((char *)wire->out, rows[row].out, strlen(rows[row].out)) != 0)
		fail_msg("%s, cut at %zu: events %s, out %s", rows[row].why, cut, wire->log,
			 wire->out);
	if (rows[row].out[9] != '2')
		assert_true(sl_http_server_is_done(wire->server));
	wire_close(wire);
	free(wire);
}

static void every_cut_gives_the_same(void **state)
{
	(void)state;
	for (size_t row = 0; row < SL_COUNT_OF(rows); row++) {
		for (size_t cut = 0; cut <= strlen(rows[row].in); cut++)
			run(row, cut);
	}
}

static struct wire *open_wire(void)
{
	struct wire *wire = calloc(1, sizeof(*wire));

	wire_open(wire, false);
	return wire;
}

static void feed_text(struct wire *wire, const char *text)
{
	wire_feed(wire, text, strlen(text));
}

static void large_heads_are_refused(void **state)
{
	struct wire *wire = open_wire();
	(void)state;

	feed_text(wire, "GET / HTTP/1.1\r\n" HOST);
	for (int i = 0; i < 300 && !wire->result; i++)
		feed_text(wire, "X-Field-That-Is-Long: and a value that is longer\r\n");
	assert_int_equal(wire->result, -1);
	wire_pull(wire);
	assert_int_equal(strncmp((char *)wire->out, "HTTP/1.1 431 ", 13), 0);
	wire_close(wire);

	memset(wire, 0, sizeof(*wire));
	wire_open(wire, false);
	feed_text(wire, "GET / HTTP/1.1\r\n" HOST);
	for (int i = 0; i < SL_HTTP_HEADERS_MAX; i++)
		feed_text(wire, "a:b\r\n");
	feed_text(wire, "\r\n");
	wire_pull(wire);
	assert_int_equal(strncmp((char *)wire->out, "HTTP/1.1 431 ", 13), 0);
	wire_close(wire);
	free(wire);
}

static void continue_is_sent_when_the_caller_says_so(void **state)
{
	struct wire *wire = open_wire();
	(void)state;

	feed_text(wire,
		  "POST / HTTP/1.1\r\n" HOST "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
	wire_pull(wire);
	assert_int_equal(wire->out_bytes, 0);
	assert_int_equal(sl_http_server_outstanding(wire->server), 0);
	sl_http_stream_continue(wire->stream);
	wire_pull(wire);
	assert_string_equal((char *)wire->out, "HTTP/1.1 100 Continue\r\n\r\n");
	assert_int_equal(sl_http_server_outstanding(wire->server), 2);
	feed_text(wire, "ab");
	assert_string_equal(wire->log, "|head POST / |data ab|end");
	wire_close(wire);
	free(wire);
}

static void an_early_answer_discards_a_short_rest(void **state)
{
	struct wire *wire = calloc(1, sizeof(*wire));
	(void)state;

	wire->answers_early = true;
	wire_open(wire, false);
	feed_text(wire, "POST /a HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nab");
	wire_pull(wire);
	assert_string_equal(wire->log, "|head POST /a |gone");
	assert_null(strstr((char *)wire->out, "connection: close"));
	feed_text(wire, "cdeGET /b HTTP/1.1\r\n" HOST "\r\n");
	wire_pull(wire);
	assert_string_equal(wire->log, "|head POST /a |gone|head GET /b  end|gone");
	feed_text(wire, "POST /c HTTP/1.1\r\n" HOST "Content-Length: 5000000\r\n\r\nab");
	wire_pull(wire);
	assert_non_null(strstr((char *)wire->out, "connection: close"));
	assert_true(sl_http_server_is_done(wire->server));
	wire_close(wire);
	free(wire);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_cut_gives_the_same),
		cmocka_unit_test(large_heads_are_refused),
		cmocka_unit_test(continue_is_sent_when_the_caller_says_so),
		cmocka_unit_test(an_early_answer_discards_a_short_rest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
