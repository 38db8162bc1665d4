#include "tests/unit/fleet/redis.h"

#include <math.h>

#include "dataplane/base/random.h"
#include "tests/sim/fleet/bucket.h"

// The script in a real Redis: what it grants, what it refuses to do twice, what it makes of data
// that is not its own, and that its twin, which the simulation runs, does the same.

#define HASH  "{t}:quota"
#define ALIVE "{t}:alive"

static struct redis server;
static uint8_t argument[SL_FLEET_ARGUMENT_MAX];
static struct sl_bytes last_argument;

static int start(void **state)
{
	(void)state;
	redis_start(&server);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	redis_stop(&server);
	return 0;
}

static int clear(void **state)
{
	(void)state;
	freeReplyObject(redisCommand(server.context, "FLUSHALL"));
	return 0;
}

static redisReply *eval(struct sl_bytes bytes)
{
	const char *words[] = {"EVAL", sl_fleet_quota_script,   "2", HASH,
			       ALIVE,  (const char *)bytes.data};
	const size_t sizes[] = {
		4, strlen(sl_fleet_quota_script), 1, strlen(HASH), strlen(ALIVE), bytes.size};
	redisReply *reply = redisCommandArgv(server.context, 6, words, sizes);

	assert_non_null(reply);
	last_argument = bytes;
	return reply;
}

struct one {
	enum sl_fleet_status status;
	struct sl_fleet_answer answer;
	struct sl_fleet_reply reply;
};

// One account's call.
static struct one call(const char *instance, uint64_t id, const char *field,
		       const struct sl_fleet_ask *ask, bool beat)
{
	struct sl_fleet_head head = {.id = id, .beat = beat, .count = 1};
	struct one one = {0};
	redisReply *reply;
	size_t size;

	strncpy((char *)head.instance, instance, SL_FLEET_INSTANCE);
	size = sl_fleet_pack_head(argument, &head);
	size += sl_fleet_pack_ask(argument + size, sl_bytes_of(field), ask);
	reply = eval(sl_bytes(argument, size));
	if (reply->type != REDIS_REPLY_STRING)
		print_error("%s\n", reply->str);
	assert_int_equal(reply->type, REDIS_REPLY_STRING);
	assert_int_equal(sl_fleet_parse_reply(sl_bytes(reply->str, (size_t)reply->len), &one.reply),
			 0);
	assert_int_equal(one.reply.id, id);
	one.status = one.reply.status;
	if (one.status == SL_FLEET_DONE)
		assert_int_equal(
			sl_fleet_parse_answer(&one.reply, 0, (int64_t)ask->want, &one.answer), 0);
	one.reply.answers = NULL;
	freeReplyObject(reply);
	return one;
}

// R = 1 token an hour, so that time adds nothing while the test runs; B = 100.
static const struct sl_fleet_ask slow = {.per_s = 1.0 / 3600, .burst = 100, .floor_s = -1};

static void test_grants(void **state)
{
	static const struct {
		const char *why;
		double owed, give, want, granted, room;
	} rows[] = {
		{"a new bucket is full, and gives what is wanted", 0, 0, 30, 30, 70},
		{"what is left, and no more", 0, 0, 200, 70, 0},
		{"an empty one gives nothing", 0, 0, 1, 0, 0},
		{"what is given back can be had again", 0, 10, 4, 4, 6},
		{"more than was taken comes back as a full bucket", 0, 1000, 0, 0, 100},
		{"what is owed is taken, beyond the bucket too", 130, 0, 5, 0, -30},
		{"debt is paid before anything is granted", 0, 40, 20, 10, 0},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_fleet_ask ask = slow;
		struct one one;

		ask.owed = rows[i].owed;
		ask.give = rows[i].give;
		ask.want = rows[i].want;
		one = call("a", i + 1, "1acme", &ask, false);
		if (one.answer.granted != rows[i].granted ||
		    fabs(one.answer.room - rows[i].room) > 0.01)
			fail_msg("%s: granted %f, room %f", rows[i].why, one.answer.granted,
				 one.answer.room);
	}
}

// After a time without Redis, on a bucket that was lost meanwhile and on one that was not.
static void test_floor(void **state)
{
	static const struct {
		const char *why;
		double before, owed, floor_s, room;
	} rows[] = {
		{"a lost bucket is no fuller than it was seen", 0, 0, 50 * 3600.0, 50},
		{"one that is emptier stays so", 80, 0, 50 * 3600.0, 20},
		{"what was spent alone is paid as far as the bucket goes", 0, 500, 0, 0},
		{"and as far as it was spent", 10, 30, 0, 60},
		{"without digging into debt any deeper", 130, 30, 0, -30},
	};

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_fleet_ask ask = slow;
		struct one one;

		clear(state);
		ask.owed = rows[i].before;
		call("a", 1, "1acme", &ask, false);
		ask.owed = rows[i].owed;
		ask.floor_s = rows[i].floor_s;
		one = call("a", 2, "1acme", &ask, false);
		if (fabs(one.answer.room - rows[i].room) > 0.01)
			fail_msg("%s: room %f", rows[i].why, one.answer.room);
	}
}

static void test_duplicates(void **state)
{
	struct sl_fleet_ask ask = slow;
	struct one one;

	(void)state;
	ask.owed = 10;
	one = call("a", 5, "1acme", &ask, false);
	assert_int_equal(one.status, SL_FLEET_DONE);
	one = call("a", 5, "1acme", &ask, false);
	assert_int_equal(one.status, SL_FLEET_DUPLICATE);
	one = call("a", 4, "1acme", &ask, false);
	assert_int_equal(one.status, SL_FLEET_DUPLICATE);
	one = call("b", 4, "1acme", &ask, false); // another instance counts by itself
	assert_int_equal(one.status, SL_FLEET_DONE);
	assert_true(fabs(one.answer.room - 80) < 0.01); // twice 10, not four times
	one = call("a", 6, "1acme", &ask, false);
	assert_true(fabs(one.answer.room - 70) < 0.01);
}

static void test_time(void **state)
{
	struct sl_fleet_ask ask = {.per_s = 1000, .burst = 100, .want = 1000, .floor_s = -1};
	struct one one = call("a", 1, "1acme", &ask, false);
	double granted = one.answer.granted;
	const uint64_t began_us = one.reply.now_us;
	uint64_t id = 1;

	(void)state;
	// admitted(W) <= R W + B, to the token, however often one asks.
	do {
		one = call("a", ++id, "1acme", &ask, false);
		granted += one.answer.granted;
		assert_true(granted <= 100 + (double)(one.reply.now_us - began_us) / 1000 + 1e-6);
	} while (one.reply.now_us < began_us + 150000);
	assert_true(granted >= 100 + 150 - 2 - (double)id / 1000);
}

static void test_demand_and_instances(void **state)
{
	struct sl_fleet_ask ask = slow;
	struct one one;

	(void)state;
	ask.rate = ask.more = 1000;
	one = call("a", 1, "1acme", &ask, true);
	assert_int_equal(one.reply.alive, 1);
	assert_true(one.answer.demand == 1000);
	ask.rate = ask.more = 500;
	one = call("b", 1, "1acme", &ask, true);
	assert_int_equal(one.reply.alive, 2);
	assert_true(one.answer.demand > 1490 && one.answer.demand <= 1500);
	one = call("b", 2, "1acme", &ask, false);
	assert_int_equal(one.reply.alive, 0); // not asked for
	ask.more = -1e9;
	one = call("a", 2, "1acme", &ask, false);
	assert_true(one.answer.demand == 500); // at least one's own
}

// A tenant that is full and silent leaves nothing behind.
static void test_forgets(void **state)
{
	struct sl_fleet_ask ask = slow;
	redisReply *reply;

	(void)state;
	ask.want = 1;
	call("a", 1, "1acme", &ask, true);
	ask.want = 0;
	ask.give = 1;
	call("a", 2, "1acme", &ask, false);
	reply = redisCommand(server.context, "HEXISTS %s 1acme", HASH);
	assert_int_equal(reply->integer, 0);
	freeReplyObject(reply);
	reply = redisCommand(server.context, "TTL %s", HASH);
	assert_true(reply->integer > 86400);
	freeReplyObject(reply);
}

static void set_doubles(const char *field, double a, double b, double c)
{
	const double values[] = {a, b, c};
	uint64_t bits[3];

	memcpy(bits, values, sizeof(bits));
	for (unsigned i = 0; i < 3; i++)
		bits[i] = __builtin_bswap64(bits[i]);
	freeReplyObject(
		redisCommand(server.context, "HSET %s %s %b", HASH, field, bits, sizeof(bits)));
}

// A Redis whose clock was set back, or another with an earlier one: what is missing from a bucket
// is what was, not the time between the clocks beside it.
static void test_clock_set_back(void **state)
{
	const double ahead_us = 3600e6;
	struct sl_fleet_ask ask = {.per_s = 1000, .burst = 1000, .floor_s = -1};
	struct one one = call("a", 1, "1acme", &ask, false);
	const double then_us = (double)one.reply.now_us + ahead_us;

	(void)state;
	set_doubles("1acme", then_us + 800e3, 0, then_us);
	one = call("a", 2, "1acme", &ask, false);
	assert_true(fabs(one.answer.room - 200) < 1);
	one = call("a", 3, "1acme", &ask, false);
	assert_true(one.answer.room >= 199);
}

// Whatever lies there: at most one more burst, never an error for ever, never without a limit.
static void test_damage(void **state)
{
	static const struct {
		const char *why, *command;
		uint16_t mended;
	} rows[] = {
		{"a string where the hash belongs", "SET " HASH " hello", 1},
		{"a list where the instances belong", "RPUSH " ALIVE " x", 1},
		{"a field of another length", "HSET " HASH " 1acme short", 1},
		{"an empty field", "HSET " HASH " 1acme ''", 1},
	};
	static const struct {
		const char *why;
		double tat, demand, seen;
		uint16_t mended;
	} numbers[] = {
		{"no number at all", NAN, 0, 0, 1},
		{"a bucket that is never full again", INFINITY, 0, 0, 1},
		{"nor before the year 2500", 1e17, 0, 0, 1},
		{"time before time", -1e15, 0, 0, 1},
		{"demand below nothing", 0, -5, 0, 1},
		{"endless demand", 0, INFINITY, 0, 1},
		{"a clock that was ahead", 0, 10, 8e15, 0},
		{"old but sound", 0, 0, 0, 0},
	};
	struct sl_fleet_ask ask = slow;
	struct one one;

	ask.want = 1000;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		clear(state);
		freeReplyObject(redisCommand(server.context, rows[i].command));
		one = call("a", 1, "1acme", &ask, true);
		if (one.answer.granted != 100 || one.reply.mended != rows[i].mended)
			fail_msg("%s: granted %f, mended %u", rows[i].why, one.answer.granted,
				 one.reply.mended);
		one = call("a", 2, "1acme", &ask, true);
		if (one.answer.granted != 0 || one.reply.mended != 0)
			fail_msg("%s: still granted %f, mended %u", rows[i].why, one.answer.granted,
				 one.reply.mended);
	}
	// An instance's last call that is no number.
	clear(state);
	freeReplyObject(redisCommand(server.context, "HSET %s %b x", HASH,
				     "!a\0\0\0\0\0\0\0\0\0\0\0\0\0\0", (size_t)17));
	one = call("a", 1, "1acme", &ask, true);
	assert_int_equal(one.reply.mended, 1);
	assert_int_equal(call("a", 1, "1acme", &ask, true).status, SL_FLEET_DUPLICATE);
	for (size_t i = 0; i < SL_COUNT_OF(numbers); i++) {
		clear(state);
		set_doubles("1acme", numbers[i].tat, numbers[i].demand, numbers[i].seen);
		one = call("a", 1, "1acme", &ask, false);
		if (one.answer.granted != 100 || one.reply.mended != numbers[i].mended)
			fail_msg("%s: granted %f, mended %u", numbers[i].why, one.answer.granted,
				 one.reply.mended);
		one = call("a", 2, "1acme", &ask, false);
		assert_true(one.answer.granted == 0);
	}
}

// Of a window's five numbers each: it begins anew, as a window or as a bucket.
static void test_damaged_windows(void **state)
{
	struct sl_fleet_ask ask = slow;
	struct one one;

	ask.want = 1000;
	for (unsigned k = 0; k < 5; k++) {
		double values[5] = {100, 0, 1, 0, 1};
		uint64_t bits[5];

		clear(state);
		values[k] = k == 2 ? INFINITY : NAN;
		memcpy(bits, values, sizeof(bits));
		for (unsigned i = 0; i < 5; i++)
			bits[i] = __builtin_bswap64(bits[i]);
		freeReplyObject(
			redisCommand(server.context, "HSET %s 1acme %b", HASH, bits, sizeof(bits)));
		ask.sliding = k % 2;
		one = call("a", 1, "1acme", &ask, true);
		assert_true(one.answer.granted == 100 && one.reply.mended == 1);
	}
}

// A window of 100 tokens, too long to end while the test runs.
static void test_window(void **state)
{
	static const struct {
		const char *why;
		double owed, give, want, floor_s, granted, room;
	} rows[] = {
		{"a new one is empty, and gives what is wanted", 0, 0, 30, -1, 30, 70},
		{"what is left, and no more", 0, 0, 200, -1, 70, 0},
		{"a full one gives nothing", 0, 0, 1, -1, 0, 0},
		{"what is given back can be had again", 0, 10, 4, -1, 4, 6},
		{"more than was taken leaves it empty", 0, 1000, 0, -1, 0, 100},
		{"what is owed counts, beyond the limit too", 130, 0, 5, -1, 0, -30},
		{"and is paid before anything is granted", 0, 40, 20, -1, 10, 0},
		{"emptied, for what follows", 0, 1000, 0, -1, 0, 100},
		{"one that was lost has what was seen in it", 0, 0, 0, 50 * 3600.0, 0, 50},
		{"spent alone: as far as the limit goes", 500, 0, 0, 0, 0, 0},
	};
	struct sl_fleet_ask ask = slow;
	struct one one;

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		ask.sliding = true;
		ask.owed = rows[i].owed;
		ask.give = rows[i].give;
		ask.want = rows[i].want;
		ask.floor_s = rows[i].floor_s;
		one = call("a", i + 1, "1acme", &ask, false);
		if (one.answer.granted != rows[i].granted ||
		    fabs(one.answer.room - rows[i].room) > 0.01)
			fail_msg("%s: granted %f, room %f", rows[i].why, one.answer.granted,
				 one.answer.room);
	}
	// A reload that makes it a bucket, and back: what was taken is taken.
	ask = slow;
	ask.give = 40;
	ask.sliding = true;
	assert_true(fabs(call("a", 20, "1acme", &ask, false).answer.room - 40) < 0.01);
	ask.give = 0;
	for (unsigned i = 0; i < 2; i++) {
		ask.sliding = i;
		one = call("a", 21 + i, "1acme", &ask, false);
		assert_true(fabs(one.answer.room - 40) < 0.01 && one.reply.mended == 0);
	}
}

// Of the window before the part counts that is not over yet; what both have is the limit.
static void test_window_slides(void **state)
{
	// 1000 in 100 ms.
	struct sl_fleet_ask ask = {
		.per_s = 10000, .burst = 1000, .want = 1000, .floor_s = -1, .sliding = true};
	struct one one;
	double begin_us, granted = 0, last_us, gap_us = 0;
	uint64_t id = 1;

	(void)state;
	one = call("a", 1, "1acme", &ask, false);
	assert_true(one.answer.granted == 1000);
	begin_us = last_us = (double)one.reply.now_us;
	while (last_us < begin_us + 350e3) {
		const double before_us = last_us;

		one = call("a", ++id, "1acme", &ask, false);
		last_us = (double)one.reply.now_us;
		gap_us = fmax(gap_us, last_us - before_us);
		granted += one.answer.granted;
		// Nothing more in the window itself, then as what was spent in it slides out.
		assert_true(granted <= fmax(last_us - begin_us - 100e3, 0) / 100 + 1e-6);
	}
	if (gap_us < 5e3) // else windows were left out
		assert_true(granted > 2300);
}

static void test_refuses_bad_asks(void **state)
{
	static const struct {
		const char *why;
		size_t offset; // of the double in struct sl_fleet_ask
		double value;
	} rows[] = {
		{"no rate", offsetof(struct sl_fleet_ask, per_s), 0},
		{"a rate that is no number", offsetof(struct sl_fleet_ask, per_s), NAN},
		{"no bucket", offsetof(struct sl_fleet_ask, burst), 0},
		{"a window that is no number", offsetof(struct sl_fleet_ask, burst), NAN},
		{"an endless window", offsetof(struct sl_fleet_ask, burst), -INFINITY},
		{"an endless bucket", offsetof(struct sl_fleet_ask, burst), INFINITY},
		{"owing less than nothing", offsetof(struct sl_fleet_ask, owed), -100},
		{"giving back less than nothing", offsetof(struct sl_fleet_ask, give), -100},
		{"wanting less than nothing", offsetof(struct sl_fleet_ask, want), -1},
		{"no number wanted", offsetof(struct sl_fleet_ask, want), NAN},
		{"no number as demand", offsetof(struct sl_fleet_ask, more), NAN},
	};
	struct sl_fleet_head head = {.id = 1, .count = 1};
	redisReply *reply;
	size_t size;

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_fleet_ask ask = slow;

		memcpy((char *)&ask + rows[i].offset, &rows[i].value, sizeof(double));
		size = sl_fleet_pack_head(argument, &head);
		size += sl_fleet_pack_ask(argument + size, SL_LITERAL("1acme"), &ask);
		reply = eval(sl_bytes(argument, size));
		if (reply->type != REDIS_REPLY_ERROR)
			fail_msg("%s is taken", rows[i].why);
		freeReplyObject(reply);
	}
	// Every cut of a good one is refused, and changes nothing.
	size = sl_fleet_pack_head(argument, &head);
	size += sl_fleet_pack_ask(argument + size, SL_LITERAL("1acme"), &slow);
	for (size_t cut = 0; cut < size; cut++) {
		reply = eval(sl_bytes(argument, cut));
		assert_int_equal(reply->type, REDIS_REPLY_ERROR);
		freeReplyObject(reply);
	}
	reply = redisCommand(server.context, "EXISTS %s", HASH);
	assert_int_equal(reply->integer, 0);
	freeReplyObject(reply);
}

// Random calls: the twin that is given Redis' time says the same, bit for bit but for exp().
static void test_twin(void **state)
{
	static struct buckets twin;
	static uint8_t want[SL_FLEET_REPLY_HEAD + SL_FLEET_CALL_MAX * SL_FLEET_REPLY_EACH];
	struct sl_random random;
	uint64_t ids[3] = {0};

	(void)state;
	memset(&twin, 0, sizeof(twin));
	sl_random_init(&random, 7);
	for (unsigned i = 0; i < 400; i++) {
		const unsigned instance = (unsigned)sl_random_below(&random, 3);
		const bool again = ids[instance] && sl_random_below(&random, 10) == 0;
		struct sl_fleet_head head = {.beat = sl_random_below(&random, 2),
					     .count = (uint16_t)sl_random_below(&random, 20)};
		struct sl_fleet_reply got, twins;
		redisReply *reply;
		size_t size;

		head.instance[0] = (uint8_t)('a' + instance);
		head.id = again ? ids[instance] : ++ids[instance];
		size = sl_fleet_pack_head(argument, &head);
		for (unsigned k = 0; k < head.count; k++) {
			const struct sl_fleet_ask ask = {
				.owed = (double)sl_random_below(&random, 300),
				.give = (double)sl_random_below(&random, 100),
				.want = (double)sl_random_below(&random, 500),
				.rate = (double)sl_random_below(&random, 5000),
				.more = (double)sl_random_below(&random, 5000) - 2500,
				.floor_s = (double)sl_random_below(&random, 9) / 20 - 0.2,
				.per_s = 1000 + 777 * k,
				.burst = 200 + 100 * k,
				// Some change from time to time, as by a reload.
				.sliding = k % 3 == 2 ? i / 50 % 2 : k % 3,
			};
			char field[8];

			snprintf(field, sizeof(field), "1t%u", k);
			size += sl_fleet_pack_ask(argument + size, sl_bytes_of(field), &ask);
		}
		reply = eval(sl_bytes(argument, size));
		assert_int_equal(reply->type, REDIS_REPLY_STRING);
		assert_int_equal(
			sl_fleet_parse_reply(sl_bytes(reply->str, (size_t)reply->len), &got), 0);
		size = buckets_call(&twin, last_argument, (double)got.now_us, want);
		assert_int_equal(sl_fleet_parse_reply(sl_bytes(want, size), &twins), 0);
		assert_int_equal(got.status, again ? SL_FLEET_DUPLICATE : SL_FLEET_DONE);
		assert_int_equal(got.status, twins.status);
		assert_int_equal(got.count, twins.count);
		assert_int_equal(got.alive, twins.alive);
		assert_int_equal(got.mended, 0);
		for (unsigned k = 0; k < got.count; k++) {
			struct sl_fleet_answer a, b;

			assert_int_equal(sl_fleet_parse_answer(&got, k, 500, &a), 0);
			assert_int_equal(sl_fleet_parse_answer(&twins, k, 500, &b), 0);
			assert_true(a.granted == b.granted);
			assert_true(fabs(a.room - b.room) < 1e-6);
			assert_true(fabs(a.demand - b.demand) < 1e-6);
		}
		freeReplyObject(reply);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_grants, clear),
		cmocka_unit_test_setup(test_floor, clear),
		cmocka_unit_test_setup(test_duplicates, clear),
		cmocka_unit_test_setup(test_time, clear),
		cmocka_unit_test_setup(test_demand_and_instances, clear),
		cmocka_unit_test_setup(test_forgets, clear),
		cmocka_unit_test_setup(test_clock_set_back, clear),
		cmocka_unit_test_setup(test_damage, clear),
		cmocka_unit_test_setup(test_damaged_windows, clear),
		cmocka_unit_test_setup(test_window, clear),
		cmocka_unit_test_setup(test_window_slides, clear),
		cmocka_unit_test_setup(test_refuses_bad_asks, clear),
		cmocka_unit_test_setup(test_twin, clear),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
