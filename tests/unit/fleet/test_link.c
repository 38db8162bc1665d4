#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "tenants/fleet/link.h"
#include "tests/sim/fleet/bucket.h"

// A link against bytes: greeting, calls, and everything a Redis may say that it should not.

#define SHA       "$40\r\n0123456789012345678901234567890123456789\r\n"
#define AT_MS(ms) (SL_S + (uint64_t)(ms)*SL_MS)

static struct {
	uint32_t answered, lost, unheard;
	double granted;
} ends;

static void ended(void *owner, struct sl_fleet_link *link, struct sl_fleet_call *call,
		  enum sl_fleet_end end, const struct sl_fleet_reply *reply, uint64_t now_ns)
{
	struct sl_fleet_answer answer;

	(void)owner;
	(void)link;
	(void)now_ns;
	ends.answered += end == SL_FLEET_ANSWERED;
	ends.lost += end == SL_FLEET_LOST;
	ends.unheard += end == SL_FLEET_UNHEARD;
	if (end == SL_FLEET_ANSWERED && call->count &&
	    sl_fleet_parse_answer(reply, 0, call->wants[0], &answer) == 0)
		ends.granted += answer.granted;
}

static struct sl_fleet_link *make_link(const struct sl_fleet_link_options *options)
{
	struct sl_fleet_link *link = calloc(1, sizeof(*link));

	assert_non_null(link);
	memset(&ends, 0, sizeof(ends));
	assert_int_equal(
		sl_fleet_link_init(link, options ? options : &(struct sl_fleet_link_options){0}, 1),
		0);
	link->ended = ended;
	return link;
}

static void drop_link(struct sl_fleet_link *link)
{
	sl_fleet_link_fini(link);
	free(link);
}

static void say(struct sl_fleet_link *link, const char *text, uint64_t now_ns)
{
	sl_fleet_link_received(link, sl_bytes_of(text), now_ns);
}

static void drain(struct sl_fleet_link *link)
{
	sl_fleet_link_sent(link, sl_fleet_link_output(link).size);
}

static struct sl_fleet_link *make_up(void)
{
	struct sl_fleet_link *link = make_link(NULL);

	assert_true(sl_fleet_link_tick(link, AT_MS(0)));
	sl_fleet_link_connected(link, AT_MS(0));
	drain(link);
	say(link, SHA, AT_MS(1));
	assert_int_equal(link->state, SL_FLEET_LINK_UP);
	return link;
}

static void call(struct sl_fleet_link *link, uint64_t now_ns)
{
	const struct sl_fleet_ask ask = {.want = 10, .per_s = 100, .burst = 100, .floor_s = -1};
	const struct sl_bytes field = SL_LITERAL("1acme");
	struct sl_fleet_call *one = sl_fleet_link_begin(link);

	assert_non_null(one);
	one->count = 1;
	sl_fleet_link_call(link, one, &ask, &field, now_ns);
}

// The twin's answer to a call with that id, as Redis would write it.
static size_t answer(uint8_t *out, uint64_t id, double granted)
{
	static struct buckets twin;
	uint8_t argument[256], reply[256];
	const struct sl_fleet_ask ask = {
		.want = granted, .per_s = 100, .burst = 100, .floor_s = -1};
	const struct sl_fleet_head head = {.id = id, .count = 1};
	size_t size = sl_fleet_pack_head(argument, &head);

	memset(&twin, 0, sizeof(twin));
	size += sl_fleet_pack_ask(argument + size, SL_LITERAL("1acme"), &ask);
	size = buckets_call(&twin, sl_bytes(argument, size), 1e15, reply);
	const int head_bytes = sprintf((char *)out, "$%zu\r\n", size);

	memcpy(out + head_bytes, reply, size);
	memcpy(out + head_bytes + size, "\r\n", 2);
	return (size_t)head_bytes + size + 2;
}

static void test_greeting(void **state)
{
	static const struct {
		const char *why;
		struct sl_fleet_link_options options;
		const char *begins, *replies;
	} rows[] = {
		{"nothing to say but the script", {0}, "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n", SHA},
		{"a password",
		 {.password = "secret"},
		 "*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n*3\r\n",
		 "+OK\r\n" SHA},
		{"a user and a password",
		 {.user = "me", .password = "secret"},
		 "*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$6\r\nsecret\r\n*3\r\n",
		 "+OK\r\n" SHA},
		{"a database",
		 {.database = 7},
		 "*2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n*3\r\n",
		 "+OK\r\n" SHA},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_fleet_link *link = make_link(&rows[i].options);
		struct sl_bytes out;

		assert_true(sl_fleet_link_tick(link, AT_MS(0)));
		sl_fleet_link_connected(link, AT_MS(0));
		out = sl_fleet_link_output(link);
		if (!sl_bytes_start(out, sl_bytes_of(rows[i].begins)))
			fail_msg("%s: %.60s", rows[i].why, (const char *)out.data);
		say(link, rows[i].replies, AT_MS(1));
		assert_int_equal(link->state, SL_FLEET_LINK_UP);
		drop_link(link);
	}
}

// Wherever the stream is cut, the same happens.
static void test_cuts(void **state)
{
	uint8_t bytes[600];
	size_t size = 0;

	(void)state;
	size += answer(bytes + size, 1, 7);
	size += answer(bytes + size, 2, 9);
	for (size_t cut = 0; cut <= size; cut++) {
		struct sl_fleet_link *link = make_up();

		call(link, AT_MS(2));
		call(link, AT_MS(2));
		assert_null(sl_fleet_link_begin(link)); // two are under way
		sl_fleet_link_received(link, sl_bytes(bytes, cut), AT_MS(3));
		sl_fleet_link_received(link, sl_bytes(bytes + cut, size - cut), AT_MS(3));
		assert_int_equal(ends.answered, 2);
		assert_true(ends.granted == 16);
		assert_int_equal(link->state, SL_FLEET_LINK_UP);
		drop_link(link);
	}
}

static void test_wrong_answers(void **state)
{
	static const struct {
		const char *why, *text;
	} rows[] = {
		{"an error", "-WRONGPASS go away\r\n"},
		{"busy", "-BUSY Redis is busy running a script.\r\n"},
		{"read only", "-READONLY You can't write against a read only replica.\r\n"},
		{"not Redis at all", "HTTP/1.1 400 Bad Request\r\n\r\n"},
		{"an array", "*1\r\n$2\r\nhi\r\n"},
		{"an array of a thousand million", "*1000000000\r\n"},
		{"an endless array", "*4294967295\r\n"},
		{"a negative array", "*-7\r\n"},
		{"an integer", ":5\r\n"},
		{"nil", "$-1\r\n"},
		{"an empty string", "$0\r\n\r\n"},
		{"a short string", "$5\r\nhello\r\n"},
		{"a status", "+OK\r\n"},
		{"a length that is none", "$abc\r\n"},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_fleet_link *link = make_up();

		call(link, AT_MS(2));
		say(link, rows[i].text, AT_MS(3));
		if (ends.lost != 1 || link->state != SL_FLEET_LINK_DOWN || !link->hang_up)
			fail_msg("%s: lost %u, state %d", rows[i].why, ends.lost, link->state);
		drop_link(link);
	}
}

static void test_wrong_numbers(void **state)
{
	uint8_t bytes[300];

	(void)state;
	// An answer to another call.
	struct sl_fleet_link *link = make_up();
	size_t size = answer(bytes, 2, 5);

	call(link, AT_MS(2));
	sl_fleet_link_received(link, sl_bytes(bytes, size), AT_MS(3));
	assert_int_equal(ends.lost, 1);
	assert_int_equal(link->state, SL_FLEET_LINK_DOWN);
	drop_link(link);

	// More granted than wanted: whatever Redis says, nobody spends it.
	link = make_up();
	size = answer(bytes, 1, 11);
	call(link, AT_MS(2));
	sl_fleet_link_received(link, sl_bytes(bytes, size), AT_MS(3));
	assert_int_equal(ends.answered, 1);
	assert_true(ends.granted == 0);
	drop_link(link);

	// An answer that never ends.
	static char flood[40 * 1024];

	memset(flood, 'x', sizeof(flood) - 1);
	link = make_up();
	call(link, AT_MS(2));
	say(link, "$500000000\r\n", AT_MS(3));
	say(link, flood, AT_MS(3));
	assert_int_equal(link->state, SL_FLEET_LINK_DOWN);
	drop_link(link);

	// An answer that nobody asked for.
	link = make_up();
	say(link, "+OK\r\n", AT_MS(3));
	assert_int_equal(link->state, SL_FLEET_LINK_DOWN);
	drop_link(link);
}

static void test_noscript(void **state)
{
	struct sl_fleet_link *link = make_up();
	uint8_t bytes[300];
	struct sl_bytes out;

	(void)state;
	call(link, AT_MS(2));
	call(link, AT_MS(2));
	drain(link);
	say(link, "-NOSCRIPT No matching script.\r\n", AT_MS(3));
	say(link, "-NOSCRIPT No matching script.\r\n", AT_MS(3));
	assert_int_equal(ends.unheard, 2);
	assert_int_equal(link->state, SL_FLEET_LINK_GREETING);
	assert_null(sl_fleet_link_begin(link));
	out = sl_fleet_link_output(link);
	assert_true(sl_bytes_start(out, SL_LITERAL("*3\r\n$6\r\nSCRIPT\r\n")));
	assert_true(out.size < 2 * strlen(sl_fleet_quota_script)); // loaded once
	drain(link);
	say(link, SHA, AT_MS(4));
	call(link, AT_MS(5));
	sl_fleet_link_received(link, sl_bytes(bytes, answer(bytes, 3, 4)), AT_MS(6));
	assert_int_equal(ends.answered, 1);
	assert_true(ends.granted == 4);
	drop_link(link);
}

static void test_silence_and_backoff(void **state)
{
	struct sl_fleet_link *link = make_up();
	uint64_t now_ns = AT_MS(2), last_ns, longest_ns = 0;

	(void)state;
	call(link, now_ns);
	assert_false(sl_fleet_link_tick(link, now_ns + 190 * SL_MS));
	assert_int_equal(link->state, SL_FLEET_LINK_UP);
	sl_fleet_link_tick(link, now_ns + 220 * SL_MS);
	assert_int_equal(link->state, SL_FLEET_LINK_DOWN);
	assert_int_equal(ends.lost, 1);
	assert_true(link->hang_up);
	assert_string_equal(link->problem, "no answer in time");
	// Dials again, later each time, but never later than half a second.
	last_ns = now_ns += 220 * SL_MS;
	for (unsigned dials = 0; dials < 12; now_ns += 5 * SL_MS) {
		if (!sl_fleet_link_tick(link, now_ns))
			continue;
		longest_ns = SL_MAX(longest_ns, now_ns - last_ns);
		last_ns = now_ns;
		dials++;
		sl_fleet_link_failed(link, "connection refused", now_ns);
	}
	assert_in_range(longest_ns, 250 * SL_MS, 510 * SL_MS);
	// A connection that is made and then silent, and one that is never made.
	for (unsigned made = 0; made < 2; made++) {
		while (!sl_fleet_link_tick(link, now_ns))
			now_ns += 5 * SL_MS;
		if (made)
			sl_fleet_link_connected(link, now_ns);
		sl_fleet_link_tick(link, now_ns += 3 * SL_S);
		assert_int_equal(link->state, SL_FLEET_LINK_DOWN);
	}
	drop_link(link);
}

static void test_homes(void **state)
{
	uint32_t counts[8] = {0};

	(void)state;
	for (unsigned i = 0; i < 8000; i++) {
		char name[16];

		snprintf(name, sizeof(name), "tenant-%u", i);
		counts[sl_fleet_home(sl_bytes_of(name), 8)]++;
	}
	for (unsigned i = 0; i < 8; i++)
		assert_in_range(counts[i], 800, 1200);
	// Part of the protocol: another version has to find the same.
	assert_int_equal(sl_fleet_home(SL_LITERAL("acme"), 1), 0);
	assert_int_equal(sl_fleet_home(SL_LITERAL("acme"), 16), 12);
}

// It greets and then refuses every call: down all the while, and dialled ever more slowly.
static void test_one_that_refuses_every_call(void **state)
{
	struct sl_fleet_link *link = make_up();
	uint8_t bytes[512];
	uint64_t now_ns = AT_MS(2), waited_ns = 0;

	(void)state;
	assert_false(link->answered);
	call(link, now_ns);
	drain(link);
	sl_fleet_link_received(link, sl_bytes(bytes, answer(bytes, link->last_id, 1)), now_ns);
	assert_true(link->answered);
	for (unsigned i = 0; i < 8; i++) {
		call(link, now_ns);
		drain(link);
		say(link, "-OOM command not allowed\r\n", now_ns);
		assert_false(link->answered);
		link->hang_up = false;
		for (waited_ns = 0; !sl_fleet_link_tick(link, now_ns); waited_ns += SL_MS)
			now_ns += SL_MS;
		sl_fleet_link_connected(link, now_ns);
		drain(link);
		say(link, SHA, now_ns);
		assert_int_equal(link->state, SL_FLEET_LINK_UP);
		assert_false(link->answered);
	}
	assert_true(waited_ns >= 200 * SL_MS);
	assert_int_equal(ends.lost, 8);
	call(link, now_ns);
	drain(link);
	sl_fleet_link_received(link, sl_bytes(bytes, answer(bytes, link->last_id, 1)), now_ns);
	assert_true(link->answered);
	drop_link(link);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_that_refuses_every_call),
		cmocka_unit_test(test_greeting),
		cmocka_unit_test(test_cuts),
		cmocka_unit_test(test_wrong_answers),
		cmocka_unit_test(test_wrong_numbers),
		cmocka_unit_test(test_noscript),
		cmocka_unit_test(test_silence_and_backoff),
		cmocka_unit_test(test_homes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
