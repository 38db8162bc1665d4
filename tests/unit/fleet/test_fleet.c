#include "tests/unit/fleet/redis.h"

#include <fcntl.h>
#include <poll.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/hash.h"
#include "dataplane/base/random.h"
#include "tenants/fleet/fleet.h"
#include "tenants/shard.h"

// Two instances over sockets with a real Redis, in real time: what they admit together, when Redis
// loses its data, loses the script, holds garbage under our keys, or is no Redis at all.

#define PER_S   20000
#define BURST_S 0.1
#define ITEMS   20

struct instance {
	struct sl_tenants *tenants;
	struct sl_tenants_shard *shard;
	struct sl_fleet *fleet;
	sl_tenant_id tenant;
	int fd;
};

static struct redis server;
static struct instance instances[2];

static void make(struct instance *instance, unsigned number, uint32_t without)
{
	const char *url = "redis://127.0.0.1";
	struct sl_class_config class = {.name = "c"};
	struct sl_tenant_config tenant = {.name = "acme", .class_name = "c"};
	struct sl_tenants_module_config config = {
		.tenants = {.inline_ = {.classes = {&class, 1}, .tenants = {&tenant, 1}},
			    .unknown = "acme"},
		.quotas = {.redis = {&url, 1}},
	};
	const struct sl_tenants_file *files[] = {&config.tenants.inline_};
	struct sl_errors *errors = sl_errors_create();
	struct sl_fleet_options options = {
		.link_count = 1, .seed = number + 1, .without = without, .instances = 2};

	class.quota.spans = PER_S;
	class.quota.has.spans = true;
	class.quota.burst_ns = (uint64_t)(BURST_S * (double)SL_S);
	class.quota.has.burst = true;
	instance->tenants = sl_tenants_build(&config, files, 1, NULL, errors);
	assert_non_null(instance->tenants);
	sl_errors_destroy(errors);
	assert_true(sl_tenants_find(instance->tenants, SL_LITERAL("acme"), &instance->tenant));
	instance->shard = sl_tenants_shard_create(0, 1, NULL);
	assert_non_null(instance->shard);
	options.links[0].instance[0] = (uint8_t)('a' + number);
	instance->fleet = sl_fleet_create(&options);
	assert_non_null(instance->fleet);
	instance->fd = -1;
}

static void drop(struct instance *instance)
{
	if (instance->fd >= 0)
		close(instance->fd);
	sl_fleet_destroy(instance->fleet);
	sl_tenants_shard_destroy(instance->shard);
	sl_tenants_destroy(instance->tenants);
}

// The control thread's part: the socket.
static void carry(struct instance *instance, bool tick)
{
	struct sl_fleet_link *link = &instance->fleet->links[0];
	const uint64_t now_ns = sl_clock_now_ns();
	uint8_t bytes[4096];
	struct sl_bytes out;
	ssize_t got;

	if (tick && sl_fleet_link_tick(link, now_ns)) {
		const struct sockaddr_in address = {.sin_family = AF_INET,
						    .sin_port = htons((uint16_t)server.port),
						    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

		if (instance->fd >= 0)
			close(instance->fd);
		instance->fd = socket(AF_INET, SOCK_STREAM, 0);
		if (connect(instance->fd, (const void *)&address, sizeof(address))) {
			sl_fleet_link_failed(link, "connect", now_ns);
		} else {
			fcntl(instance->fd, F_SETFL, O_NONBLOCK);
			sl_fleet_link_connected(link, now_ns);
		}
	}
	while (instance->fd >= 0 && (got = read(instance->fd, bytes, sizeof(bytes))) != -1) {
		if (got == 0) {
			sl_fleet_link_failed(link, "closed", now_ns);
			break;
		}
		sl_fleet_link_received(link, sl_bytes(bytes, (size_t)got), now_ns);
	}
	if (tick)
		sl_fleet_tick(instance->fleet, instance->tenants, now_ns);
	if (link->hang_up && instance->fd >= 0) {
		close(instance->fd);
		instance->fd = -1;
		link->hang_up = false;
	}
	out = sl_fleet_link_output(link);
	if (instance->fd >= 0 && out.size) {
		got = write(instance->fd, out.data, out.size);
		if (got > 0)
			sl_fleet_link_sent(link, (size_t)got);
	}
}

static uint32_t send_one(struct instance *instance, struct sl_request *request,
			 struct sl_part *part, struct sl_batch *batch)
{
	sl_tenants_shard_turn(instance->shard, instance->tenants, sl_clock_now_ns());
	memset(part, 0, sizeof(*part));
	request->signal = SL_TRACES;
	request->view.body.size = 1000;
	request->view.item_count = ITEMS;
	request->part_count = 1;
	part->request = request;
	part->tenant = instance->tenant;
	part->offered_items = ITEMS;
	part->offered_bytes = request->view.body.size;
	batch->count = 1;
	batch->parts[0] = part;
	batch->refused_count = 0;
	sl_tenants_quota_stage(instance->shard, batch);
	return batch->count ? ITEMS : 0;
}

// Offers three times the quota, the first instance three times as much as the second. Returns what
// was admitted, in seconds of R.
static double offer(double seconds)
{
	static struct sl_request request;
	static struct sl_part part;
	static struct sl_batch batch;
	const uint64_t began_ns = sl_clock_now_ns();
	uint64_t offered = 0, tick_ns = 0, now_ns;
	double admitted = 0;

	while ((now_ns = sl_clock_now_ns()) < began_ns + (uint64_t)(seconds * (double)SL_S)) {
		const bool tick = now_ns >= tick_ns + SL_QUOTA_TICK_NS;

		for (unsigned i = 0; i < 2; i++)
			carry(&instances[i], tick);
		if (tick)
			tick_ns = now_ns;
		for (; offered * ITEMS < 3 * PER_S * (now_ns - began_ns) / SL_S; offered++)
			admitted += send_one(&instances[offered % 4 == 0], &request, &part, &batch);
		usleep(500);
	}
	return admitted / PER_S;
}

// R W + B, and what instances may be ahead by, hold however slow the machine is.
static void check_most(double admitted_s, double elapsed_s, double extra_s)
{
	const double most = elapsed_s + BURST_S + 0.11 + extra_s;

	if (admitted_s > most)
		fail_msg("%f s of the quota in %f s: %f are right", admitted_s, elapsed_s, most);
}

// How little it may be does not hold where the machine stands still: once of so many times.
#define TRIES 30

static void check(double seconds, double least, double extra_s)
{
	double admitted_s = 0;

	for (unsigned i = 0; i < TRIES; i++) {
		const uint64_t began_ns = sl_clock_now_ns();

		admitted_s = offer(seconds);
		check_most(admitted_s, (double)(sl_clock_now_ns() - began_ns) / (double)SL_S,
			   extra_s);
		if (admitted_s >= least * seconds)
			return;
	}
	fail_msg("%f s of the quota in %f s: at least %f are right", admitted_s, seconds,
		 least * seconds);
}

// No call is given up, the command notwithstanding; where the machine stands still replies are
// late.
static void check_none_lost(const char *command)
{
	for (unsigned i = 0; i < TRIES; i++) {
		const uint64_t before = instances[0].fleet->counters.lost[0];

		if (command)
			freeReplyObject(redisCommand(server.context, command));
		offer(0.3);
		if (instances[0].fleet->counters.lost[0] == before)
			return;
	}
	fail_msg("calls are given up");
}

static int setup(void **state)
{
	(void)state;
	sl_hash_seed();
	redis_start(&server);
	for (unsigned i = 0; i < 2; i++)
		make(&instances[i], i, SL_FLEET_LAST_SHARE);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++)
		drop(&instances[i]);
	redis_stop(&server);
	return 0;
}

static void test_one_quota(void **state)
{
	(void)state;
	check(1.2, 0.9, 0);
	check_none_lost(NULL);
	assert_int_equal(instances[0].fleet->counters.instances[0], 2);
	assert_int_equal(instances[0].fleet->counters.damaged[0], 0);
}

static void test_script_lost(void **state)
{
	(void)state;
	offer(0.2);
	freeReplyObject(redisCommand(server.context, "SCRIPT FLUSH"));
	check(0.5, 0.8, 0);
	check_none_lost("SCRIPT FLUSH");
}

static void test_data_lost(void **state)
{
	(void)state;
	offer(0.4);
	redis_stop(&server);
	check(0.3, 0.7, 0.1); // alone, at the last share
	assert_int_equal(instances[0].fleet->counters.down[0], 1);
	redis_start(&server);
	check(0.9, 0.6, 0.3); // some are back before others
	assert_int_equal(instances[0].fleet->counters.down[0], 0);
}

// Somebody else writes under our keys, all the time: counted, mended, and never without a limit
// (each time a bucket begins anew it is full).
static void test_damage(void **state)
{
	double admitted_s = 0;

	(void)state;
	offer(0.3);
	for (unsigned i = 0; i < TRIES && admitted_s < 0.8 * 0.8; i++) {
		const uint64_t began_ns = sl_clock_now_ns();

		admitted_s = 0;
		for (unsigned j = 0; j < 4; j++) {
			const char *commands[] = {"SET {sluice}:quota nonsense",
						  "HSET {sluice}:quota 1acme xx",
						  "SET {sluice}:alive nonsense", "FLUSHALL"};

			freeReplyObject(redisCommand(server.context, commands[j]));
			admitted_s += offer(0.2);
		}
		check_most(admitted_s, (double)(sl_clock_now_ns() - began_ns) / (double)SL_S,
			   4 * BURST_S + 0.1);
	}
	assert_true(admitted_s >= 0.8 * 0.8);
	assert_true(instances[0].fleet->counters.mended[0] +
			    instances[1].fleet->counters.mended[0] >=
		    2);
}

// What listens there speaks another protocol.
static void test_no_redis(void **state)
{
	struct redis *redis = &server;

	(void)state;
	freeReplyObject(redisCommand(redis->context, "CONFIG SET requirepass secret"));
	check(0.5, 0.5, 0.4); // the N-th part each, and what waking up allows
	assert_true(instances[0].fleet->counters.failures[0] >= 1);
	assert_string_equal(instances[0].fleet->links[0].problem,
			    "NOAUTH Authentication required.");
}

static int setup_closed(void **state)
{
	setup(state);
	teardown(state);
	for (unsigned i = 0; i < 2; i++)
		make(&instances[i], i, SL_FLEET_CLOSED);
	return 0;
}

static int setup_open(void **state)
{
	setup(state);
	teardown(state);
	for (unsigned i = 0; i < 2; i++)
		make(&instances[i], i, SL_FLEET_OPEN);
	return 0;
}

static void test_closed(void **state)
{
	(void)state;
	assert_true(offer(0.3) <= 0.03); // what waking up allows, once
}

static void test_open(void **state)
{
	(void)state;
	for (unsigned i = 0; i < TRIES; i++)
		if (offer(0.3) > 0.8) // all of three times the quota
			return;
	fail_msg("it is not open");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_one_quota, setup, teardown),
		cmocka_unit_test_setup_teardown(test_script_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_data_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_redis, setup, teardown),
		cmocka_unit_test_setup_teardown(test_closed, setup_closed, teardown),
		cmocka_unit_test_setup_teardown(test_open, setup_open, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
