#include "tests/unit/fleet/redis.h"

#include "dataplane/base/hash.h"
#include "dataplane/base/random.h"
#include "tenants/fleet/volumes.h"
#include "tests/sim/fleet/bucket.h"

// The script of volumes in a real Redis: lost replies, calls that come twice or late, data that is
// lost or is not ours.

#define KEY "{t}:volume:d1"

static struct redis server;
static struct buckets twin; // does the same, while nobody else writes

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

static void flush(void)
{
	freeReplyObject(redisCommand(server.context, "FLUSHALL"));
	memset(&twin, 0, sizeof(twin));
}

struct said {
	double used, heard, sum, id;
};

static size_t pack(uint8_t *out, char instance, const struct said *said)
{
	uint8_t *at = out;

	*at++ = 1;
	memset(at, 0, SL_FLEET_INSTANCE);
	*at = (uint8_t)instance;
	at = sl_fleet_put_double(at + SL_FLEET_INSTANCE, said->id);
	at = sl_fleet_put_double(at, 1000);
	*at++ = 0;
	*at++ = 1;
	*at++ = 5;
	memcpy(at, "1acme", 5);
	at = sl_fleet_put_double(at + 5, said->used);
	at = sl_fleet_put_double(at, said->heard);
	at = sl_fleet_put_double(at, said->sum);
	return (size_t)(at - out);
}

// The fleet's sum; how many fields were mended in `*mended`.
static double call(char instance, const struct said *said, unsigned *mended)
{
	uint8_t bytes[SL_FLEET_VOLUME_ARGUMENT_MAX];
	const size_t size = pack(bytes, instance, said);
	const char *words[] = {"EVAL", sl_fleet_volume_script, "1", KEY, (const char *)bytes};
	const size_t sizes[] = {4, strlen(sl_fleet_volume_script), 1, strlen(KEY), size};
	redisReply *reply = redisCommandArgv(server.context, 5, words, sizes);
	double sum;

	assert_non_null(reply);
	if (reply->type != REDIS_REPLY_STRING)
		fail_msg("%s", reply->str);
	assert_int_equal(reply->len, SL_FLEET_VOLUME_REPLY_HEAD + 8);
	sum = sl_fleet_get_double((uint8_t *)reply->str + SL_FLEET_VOLUME_REPLY_HEAD);
	if (!mended) {
		uint8_t same[SL_FLEET_VOLUME_REPLY_HEAD + 8];

		assert_int_equal(
			buckets_volume_call(&twin, "d1", sl_bytes(bytes, size), 1e15, same),
			sizeof(same));
		assert_true(sl_fleet_get_double(same + SL_FLEET_VOLUME_REPLY_HEAD) == sum);
	}
	if (mended)
		*mended = (unsigned)((uint8_t)reply->str[9] << 8 | (uint8_t)reply->str[10]);
	freeReplyObject(reply);
	return sum;
}

#define INSTANCES 4

// Random instances, replies that are lost, calls that come again or late: the sum is exact, always.
static void test_nothing_counts_twice(void **state)
{
	struct said now[INSTANCES] = {{0}}, last[INSTANCES] = {{0}}, older[INSTANCES] = {{0}};
	struct sl_random random;

	(void)state;
	flush();
	sl_random_init(&random, 9);
	for (unsigned step = 0; step < 3000; step++) {
		const unsigned i = (unsigned)sl_random_below(&random, INSTANCES);
		struct said *said = &now[i];
		double sum, told = 0;

		said->used += (double)sl_random_below(&random, 1000);
		said->id++;
		sum = call((char)('a' + i), said, NULL);
		older[i] = last[i];
		last[i] = *said;
		for (unsigned k = 0; k < INSTANCES; k++)
			told += last[k].used;
		assert_true(sum == told);
		if (sl_random_below(&random, 3)) { // else the reply is lost
			said->heard = said->used;
			said->sum = sum;
		}
		// The same again, and one that was overtaken: nothing changes.
		if (sl_random_below(&random, 4) == 0)
			assert_true(call((char)('a' + i), &last[i], NULL) == told);
		if (sl_random_below(&random, 4) == 0 && older[i].id > 0)
			assert_true(call((char)('a' + i), &older[i], NULL) == told);
	}
}

// A Redis that has lost everything takes up from what the instances know: more by what some had
// told and had no answer to at most, and less by what others had told since each of them last
// heard.
static void test_lost_data(void **state)
{
	struct sl_random random;

	(void)state;
	sl_random_init(&random, 10);
	for (unsigned round = 0; round < 200; round++) {
		struct said now[INSTANCES] = {{0}};
		double all = 0, unheard = 0, unanswered = 0, sum = 0, told[INSTANCES] = {0};

		flush();
		for (unsigned step = 0; step < 40; step++) {
			const unsigned i = step < 30 ? (unsigned)sl_random_below(&random, INSTANCES)
						     : step % INSTANCES;
			const double more = (double)sl_random_below(&random, 1000);
			double largest = 0;

			if (step == 30) {
				for (unsigned k = 0; k < INSTANCES; k++)
					largest = SL_MAX(largest, now[k].sum);
				for (unsigned k = 0; k < INSTANCES; k++) {
					unheard += largest - now[k].sum;
					unanswered += told[k] - now[k].heard;
				}
				flush();
			}
			now[i].used += more;
			all += more;
			now[i].id++;
			sum = call((char)('a' + i), &now[i], NULL);
			told[i] = now[i].used;
			assert_true(sum <= all + unanswered);
			if (sl_random_below(&random, 3)) {
				now[i].heard = now[i].used;
				now[i].sum = sum;
			}
		}
		assert_true(sum >= all - unheard - unanswered);
	}
}

static void test_wrong_data(void **state)
{
	static const struct {
		const char *why, *command;
		size_t size;
	} rows[] = {
		{"a key that is no hash", "SET " KEY " nonsense", 0},
		{"a sum that is too short", "HSET " KEY " t1acme short", 0},
		{"one that is no number", "HSET " KEY " t1acme %b", 8},
		{"an instance's that is too long", "HSET " KEY " %b 12345678901234567", 17 + 5},
	};

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		struct said said = {.used = 100, .id = 1};
		uint8_t bytes[32] = {0};
		unsigned mended = 0;

		print_message("%s\n", rows[i].why);
		flush();
		assert_true(call('a', &said, NULL) == 100);
		said = (struct said){.used = 150, .heard = 100, .sum = 100, .id = 2};
		if (rows[i].size == 8) {
			memset(bytes, 0xff, 8); // a NaN
		} else {
			bytes[0] = 'c';
			bytes[1] = 'a';
			memcpy(bytes + 17, "1acme", 5);
		}
		if (i == 0)
			freeReplyObject(redisCommand(server.context, "DEL " KEY));
		freeReplyObject(redisCommand(server.context, rows[i].command, bytes, rows[i].size));
		assert_true(call('a', &said, &mended) == 150);
		assert_int_equal(mended, 1);
		// And it goes on from there.
		said = (struct said){.used = 160, .heard = 150, .sum = 150, .id = 3};
		assert_true(call('a', &said, &mended) == 160);
		assert_int_equal(mended, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_counts_twice),
		cmocka_unit_test(test_lost_data),
		cmocka_unit_test(test_wrong_data),
	};

	sl_hash_seed();
	return cmocka_run_group_tests(tests, start, stop);
}
