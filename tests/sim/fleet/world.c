#include "tests/sim/fleet/world.h"

#include <hiredis/hiredis.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tenants/fleet/volumes.h"
#include "tenants/shard.h"

#define INSTANCES_MAX 16
#define SHARDS_MAX    8
#define SAMPLE_NS     (50 * SL_MS)
#define SAMPLES_MAX   4096

enum kind { ARRIVE, TICK, DIALED, REFUSED, TO_REDIS, FROM_REDIS, SAMPLE, FAULT, REPAIR, MOVE, CUT };

struct event {
	uint64_t at_ns, order;
	enum kind kind;
	uint32_t instance, shard, epoch;
	uint8_t *bytes;
	size_t size;
};

struct instance {
	bool dead;
	uint32_t epoch; // of its connection
	uint32_t life;
	struct sl_tenants *tenants;
	struct sl_tenants_shard *shards[SHARDS_MAX];
	sl_tenant_id tenant;
	struct sl_fleet *fleet;
	redisReader *server; // Redis' side of the connection
	double weight;
};

static struct {
	const struct scenario *scenario;
	uint64_t now_ns, order, redis_busy_until_ns;
	struct event *heap;
	size_t heap_count, heap_max;
	struct instance instances[INSTANCES_MAX];
	struct buckets *redis;
	bool redis_down;
	uint64_t paused_until_ns;
	struct sl_random random;
	double admitted, offered, refused;
	double level, ideal_refused; // one bucket for all, without any delay
	double ideal_before;         // of one window for all
	uint64_t level_ns;
	double samples[SAMPLES_MAX];
	uint32_t sample_count;
	uint64_t requests, updates_at_warm;
	struct sl_request request;
	struct sl_part part;
	struct sl_batch batch;
} world;

static bool sooner(const struct event *a, const struct event *b)
{
	return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->order < b->order);
}

static void post(struct event event)
{
	size_t at = world.heap_count++;

	if (world.heap_count > world.heap_max) {
		world.heap_max = world.heap_max ? 2 * world.heap_max : 1024;
		world.heap = realloc(world.heap, world.heap_max * sizeof(*world.heap));
		assert(world.heap);
	}
	event.order = world.order++;
	while (at && sooner(&event, &world.heap[(at - 1) / 2])) {
		world.heap[at] = world.heap[(at - 1) / 2];
		at = (at - 1) / 2;
	}
	world.heap[at] = event;
}

static struct event take(void)
{
	const struct event first = world.heap[0], last = world.heap[--world.heap_count];
	size_t at = 0;

	for (;;) {
		size_t child = 2 * at + 1;

		if (child >= world.heap_count)
			break;
		if (child + 1 < world.heap_count &&
		    sooner(&world.heap[child + 1], &world.heap[child]))
			child++;
		if (!sooner(&world.heap[child], &last))
			break;
		world.heap[at] = world.heap[child];
		at = child;
	}
	world.heap[at] = last;
	return first;
}

static double uniform(void)
{
	return ((double)(sl_random_next(&world.random) >> 11) + 0.5) / 9007199254740992.0;
}

static uint64_t half_trip_ns(void)
{
	return (uint64_t)(world.scenario->rtt_ms / 2 * (0.8 + 0.4 * uniform()) * (double)SL_MS);
}

// Birth and death of an instance.

static void start(uint32_t index)
{
	const struct scenario *scenario = world.scenario;
	struct instance *instance = &world.instances[index];
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
		.link_count = 1, .without = scenario->without, .instances = scenario->instances};

	class.quota.spans = scenario->per_s;
	class.quota.has.spans = true;
	class.quota.burst_ns = (uint64_t)(scenario->burst_s * (double)SL_S);
	class.quota.has.burst = true;
	class.quota.algorithm = scenario->algorithm;
	class.quota.window_ns = class.quota.burst_ns;
	class.quota.volume = (struct sl_volume_config){
		.spans = (uint64_t)(scenario->volume_s * scenario->per_s),
		.per = SL_VOLUME_DAY,
		.soft = 0.8,
	};
	instance->tenants = sl_tenants_build(&config, files, 1, NULL, errors);
	assert(instance->tenants);
	sl_errors_destroy(errors);
	assert(sl_tenants_find(instance->tenants, SL_LITERAL("acme"), &instance->tenant));
	for (uint32_t i = 0; i < scenario->shards; i++) {
		instance->shards[i] = sl_tenants_shard_create(i, scenario->shards, NULL);
		assert(instance->shards[i]);
		sl_random_init(&instance->shards[i]->random, sl_random_next(&world.random));
	}
	snprintf((char *)options.links[0].instance, SL_FLEET_INSTANCE, "%u.%u", index,
		 ++instance->life);
	options.seed = sl_random_next(&world.random);
	instance->fleet = sl_fleet_create(&options);
	assert(instance->fleet);
	instance->dead = false;
	post((struct event){.at_ns = world.now_ns + sl_random_below(&world.random, 10 * SL_MS),
			    .kind = TICK,
			    .instance = index,
			    .epoch = instance->life});
}

static void stop(uint32_t index)
{
	struct instance *instance = &world.instances[index];

	instance->dead = true;
	instance->epoch++;
	sl_fleet_destroy(instance->fleet);
	for (uint32_t i = 0; i < world.scenario->shards; i++)
		sl_tenants_shard_destroy(instance->shards[i]);
	sl_tenants_destroy(instance->tenants);
	if (instance->server)
		redisReaderFree(instance->server);
	instance->server = NULL;
}

// Load.

static double weight_of(uint32_t index)
{
	double sum = 0;

	for (uint32_t i = 0; i < world.scenario->instances; i++)
		if (!world.instances[i].dead)
			sum += world.instances[i].weight;
	return world.instances[index].dead ? 0 : world.instances[index].weight / sum;
}

static void post_arrival(uint32_t index, uint32_t shard)
{
	const struct scenario *scenario = world.scenario;
	const double per_s = scenario->load * scenario->per_s / scenario->request *
			     weight_of(index) / scenario->shards;
	const uint64_t look_ns = 20 * SL_MS;
	const double wait_ns = per_s > 0 ? -log(uniform()) / per_s * (double)SL_S : 1e18;

	// What lies far ahead is drawn anew (the process has no memory), as weights may change.
	if (wait_ns > (double)look_ns)
		post((struct event){.at_ns = world.now_ns + look_ns,
				    .kind = ARRIVE,
				    .instance = index,
				    .shard = shard,
				    .epoch = 1});
	else
		post((struct event){.at_ns = world.now_ns + (uint64_t)wait_ns,
				    .kind = ARRIVE,
				    .instance = index,
				    .shard = shard});
}

// Two counts for all, without any delay.
static bool ideal_window_admits(double items)
{
	const double length_ns = world.scenario->burst_s * (double)SL_S;
	const double ended = floor((double)(world.now_ns - world.level_ns) / length_ns);
	const double limit = world.scenario->per_s * world.scenario->burst_s;
	double over;

	if (ended > 0) {
		world.ideal_before = ended > 1 ? 0 : world.level;
		world.level = 0;
		world.level_ns += (uint64_t)(ended * length_ns);
	}
	over = (double)(world.now_ns - world.level_ns) / length_ns;
	if (world.level + world.ideal_before * (1 - over) + items > limit)
		return false;
	world.level += items;
	return true;
}

static bool ideal_admits(double items)
{
	const double earned = world.scenario->per_s * (double)(world.now_ns - world.level_ns) / 1e9;

	world.level = fmin(world.level + earned, world.scenario->per_s * world.scenario->burst_s);
	world.level_ns = world.now_ns;
	if (world.level < items)
		return false;
	world.level -= items;
	return true;
}

static void arrive(const struct event *event)
{
	struct instance *instance = &world.instances[event->instance];
	const uint32_t items = world.scenario->request;
	bool ideal;

	post_arrival(event->instance, event->shard);
	if (event->epoch || instance->dead)
		return;
	sl_tenants_shard_turn(instance->shards[event->shard], instance->tenants, world.now_ns);
	memset(&world.part, 0, sizeof(world.part));
	world.request.signal = SL_TRACES;
	world.request.view.body.size = (size_t)items * 300;
	world.request.view.item_count = items;
	world.request.part_count = 1;
	world.part.request = &world.request;
	world.part.tenant = instance->tenant;
	world.part.offered_items = items;
	world.part.offered_bytes = world.request.view.body.size;
	world.batch.count = 1;
	world.batch.parts[0] = &world.part;
	world.batch.refused_count = 0;
	sl_tenants_quota_stage(instance->shards[event->shard], &world.batch);
	world.requests++;
	if (world.batch.count)
		world.admitted += items;
	ideal = world.scenario->algorithm == SL_ALGORITHM_SLIDING_WINDOW
			? ideal_window_admits(items)
			: ideal_admits(items);
	if (world.now_ns < (uint64_t)(WARM_S * SL_S))
		return;
	world.offered += items;
	if (!ideal)
		world.ideal_refused += items;
	if (!world.batch.count)
		world.refused += items;
}

// The network and Redis.

static void flush(uint32_t index)
{
	struct instance *instance = &world.instances[index];
	struct sl_fleet_link *link = &instance->fleet->links[0];
	const struct sl_bytes out = sl_fleet_link_output(link);
	uint8_t *copy;

	if (link->hang_up) {
		link->hang_up = false;
		instance->epoch++;
		return;
	}
	if (out.size == 0)
		return;
	copy = malloc(out.size);
	assert(copy);
	memcpy(copy, out.data, out.size);
	post((struct event){.at_ns = world.now_ns + half_trip_ns(),
			    .kind = TO_REDIS,
			    .instance = index,
			    .epoch = instance->epoch,
			    .bytes = copy,
			    .size = out.size});
	sl_fleet_link_sent(link, out.size);
}

static void tick(const struct event *event)
{
	struct instance *instance = &world.instances[event->instance];

	if (instance->dead || event->epoch != instance->life)
		return;
	if (sl_fleet_link_tick(&instance->fleet->links[0], world.now_ns))
		post((struct event){.at_ns = world.now_ns + half_trip_ns(),
				    .kind = world.redis_down ? REFUSED : DIALED,
				    .instance = event->instance,
				    .epoch = ++instance->epoch});
	sl_fleet_tick(instance->fleet, instance->tenants, world.now_ns);
	// Its own clock is of no use: each instance has another day.
	sl_fleet_tick_volumes(instance->fleet, instance->tenants, world.now_ns,
			      (event->instance + 1) * 86400 * SL_S + world.now_ns);
	flush(event->instance);
	post((struct event){.at_ns = world.now_ns + SL_QUOTA_TICK_NS,
			    .kind = TICK,
			    .instance = event->instance,
			    .epoch = instance->life});
}

static size_t append(uint8_t *out, const void *bytes, size_t size)
{
	memcpy(out, bytes, size);
	return size;
}

// Redis' clock: 1,000,000,000 s after 1970, or as long before the end of a day as is wanted.
static double redis_us(void)
{
	const double begin = world.scenario->midnight_s > 0
				     ? 1e4 * 86400 - world.scenario->midnight_s
				     : 1e9;

	return begin * 1e6 + (double)(world.now_ns / 1000);
}

static size_t run_script(const redisReply *command, uint8_t *reply)
{
	const redisReply *last = command->element[command->elements - 1];
	const struct sl_bytes argument = sl_bytes(last->str, (size_t)last->len);

	if (command->elements == 5) // one key: that of a period
		return buckets_volume_call(world.redis, strrchr(command->element[3]->str, ':') + 1,
					   argument, redis_us(), reply);
	return buckets_call(world.redis, argument, redis_us(), reply);
}

// All whole commands of a message, answered together.
static size_t serve(struct instance *instance, const struct event *event, uint8_t *out)
{
	size_t size = 0;
	void *object;

	redisReaderFeed(instance->server, (const char *)event->bytes, event->size);
	while (redisReaderGetReply(instance->server, &object) == REDIS_OK && object) {
		const redisReply *command = object;
		uint8_t reply[SL_FLEET_REPLY_HEAD + SL_FLEET_CALL_MAX * SL_FLEET_REPLY_EACH];
		size_t bytes;

		if (command->elements == 3) {
			size += append(out + size,
				       "$40\r\n0123456789012345678901234567890123456789\r\n", 47);
		} else {
			bytes = run_script(command, reply);
			assert(bytes);
			size += (size_t)sprintf((char *)out + size, "$%zu\r\n", bytes);
			size += append(out + size, reply, bytes);
			size += append(out + size, "\r\n", 2);
		}
		freeReplyObject(object);
	}
	return size;
}

static void to_redis(struct event *event)
{
	struct instance *instance = &world.instances[event->instance];
	static uint8_t out[65536];
	redisReader *own = NULL;
	size_t size;

	if (world.redis_down) {
		free(event->bytes);
		return;
	}
	if (world.now_ns < world.paused_until_ns) { // it lies in the socket
		event->at_ns = world.paused_until_ns;
		post(*event);
		return;
	}
	// What came on a connection that is closed by now is heard all the same.
	if (event->epoch != instance->epoch || !instance->server) {
		own = instance->server;
		instance->server = redisReaderCreate();
	}
	size = serve(instance, event, out);
	free(event->bytes);
	if (event->epoch != instance->epoch || own) {
		redisReaderFree(instance->server);
		instance->server = own;
		return;
	}
	event->bytes = malloc(size + 1);
	assert(event->bytes);
	memcpy(event->bytes, out, size);
	post((struct event){.at_ns = world.now_ns + half_trip_ns(),
			    .kind = FROM_REDIS,
			    .instance = event->instance,
			    .epoch = event->epoch,
			    .bytes = event->bytes,
			    .size = size});
}

static void from_redis(const struct event *event)
{
	struct instance *instance = &world.instances[event->instance];
	const size_t cut = event->size > 1 ? 1 + sl_random_below(&world.random, event->size - 1)
					   : 0;

	if (!instance->dead && event->epoch == instance->epoch) {
		struct sl_fleet_link *link = &instance->fleet->links[0];

		sl_fleet_link_received(link, sl_bytes(event->bytes, cut), world.now_ns);
		sl_fleet_link_received(link, sl_bytes(event->bytes + cut, event->size - cut),
				       world.now_ns);
		flush(event->instance);
	}
	free(event->bytes);
}

static void dialed(const struct event *event)
{
	struct instance *instance = &world.instances[event->instance];
	struct sl_fleet_link *link;

	if (instance->dead || event->epoch != instance->epoch)
		return;
	link = &instance->fleet->links[0];
	if (link->state != SL_FLEET_LINK_DIALING)
		return;
	if (event->kind == REFUSED) {
		sl_fleet_link_failed(link, "connection refused", world.now_ns);
		flush(event->instance);
		return;
	}
	if (instance->server)
		redisReaderFree(instance->server);
	instance->server = redisReaderCreate();
	sl_fleet_link_connected(link, world.now_ns);
	flush(event->instance);
}

static void cut(uint32_t index)
{
	struct instance *instance = &world.instances[index];

	if (instance->dead)
		return;
	sl_fleet_link_failed(&instance->fleet->links[0], "connection reset", world.now_ns);
	flush(index);
}

// What happens to it all.

static void weigh(uint32_t turn)
{
	for (uint32_t i = 0; i < world.scenario->instances; i++) {
		double *weight = &world.instances[i].weight;

		*weight = 1;
		if (world.scenario->skew == THREE_ONE)
			*weight = i % 4 == 0 ? 3 : 1;
		else if (world.scenario->skew == ONE_MOVES)
			*weight = i == turn % world.scenario->instances ? 1 : 1e-6;
		if (world.scenario->fault == GONE_MOVING && turn)
			*weight = i % 4 == 1 ? 3 : 1;
	}
}

static void fault(void)
{
	const uint64_t until_ns = world.now_ns + (uint64_t)(FAULT_FOR_S * SL_S);
	const struct event repair = {.at_ns = until_ns, .kind = REPAIR};

	switch (world.scenario->fault) {
	case NONE:
		return;
	case CRASH:
		stop(0);
		post(repair);
		return;
	case GONE_MOVING:
		post((struct event){.at_ns = world.now_ns + SL_S, .kind = MOVE, .shard = 1});
		// fall through
	case GONE:
		world.redis_down = true;
		break;
	case EMPTIED:
		world.redis_down = true;
		memset(world.redis, 0, offsetof(struct buckets, updates));
		post((struct event){.at_ns = world.now_ns + 100 * SL_MS, .kind = REPAIR});
		for (uint32_t i = 0; i < world.scenario->instances; i++)
			cut(i);
		return;
	case PAUSED:
		world.paused_until_ns = world.now_ns + 2 * SL_S;
		return;
	case LOSSY:
		post((struct event){.at_ns = world.now_ns + 300 * SL_MS, .kind = CUT});
		return;
	}
	post(repair);
	for (uint32_t i = 0; i < world.scenario->instances; i++)
		cut(i);
}

static void handle(struct event *event)
{
	switch (event->kind) {
	case ARRIVE:
		arrive(event);
		return;
	case TICK:
		tick(event);
		return;
	case DIALED:
	case REFUSED:
		dialed(event);
		return;
	case TO_REDIS:
		to_redis(event);
		return;
	case FROM_REDIS:
		from_redis(event);
		return;
	case SAMPLE:
		assert(world.sample_count < SAMPLES_MAX);
		world.samples[world.sample_count++] = world.admitted;
		if (world.now_ns == (uint64_t)(WARM_S * SL_S))
			world.updates_at_warm = world.redis->updates;
		event->at_ns += SAMPLE_NS;
		post(*event);
		return;
	case FAULT:
		fault();
		return;
	case REPAIR:
		world.redis_down = false;
		if (world.scenario->fault == CRASH)
			start(0);
		return;
	case MOVE:
		weigh(event->shard);
		if (world.scenario->skew == ONE_MOVES)
			post((struct event){.at_ns = world.now_ns + 3 * SL_S,
					    .kind = MOVE,
					    .shard = event->shard + 1});
		return;
	case CUT:
		cut((uint32_t)sl_random_below(&world.random, world.scenario->instances));
		post((struct event){.at_ns = world.now_ns + 300 * SL_MS, .kind = CUT});
		return;
	}
}

// What the samples say.

static void windows(double window_s, bool faulty, double *over, double *under)
{
	const uint32_t n = (uint32_t)(window_s * (double)SL_S / (double)SAMPLE_NS);
	const double full = world.scenario->per_s * window_s;

	*over = *under = 0;
	for (uint32_t i = 0; i + n < world.sample_count; i++) {
		const double from_s = (double)(i * SAMPLE_NS) / (double)SL_S;
		const bool touches = world.scenario->fault != NONE &&
				     from_s + window_s > FAULT_AT_S;
		const double part = (world.samples[i + n] - world.samples[i]) / full - 1;

		if (from_s < WARM_S || touches != faulty)
			continue;
		*over = fmax(*over, part);
		*under = fmin(*under, part);
	}
}

static double excess(void)
{
	const double per_sample = world.scenario->per_s * (double)SAMPLE_NS / (double)SL_S;
	double least = 0, most = 0;

	for (uint32_t i = 0; i < world.sample_count; i++) {
		const double ahead = world.samples[i] - per_sample * i;

		least = fmin(least, ahead);
		most = fmax(most, ahead - least);
	}
	return most / world.scenario->per_s - world.scenario->burst_s;
}

void simulate(const struct scenario *scenario, uint64_t seed, struct outcome *outcome)
{
	const uint64_t end_ns = SL_S + (uint64_t)(scenario->seconds * (double)SL_S);

	memset(&world, 0, sizeof(world));
	world.scenario = scenario;
	world.now_ns = SL_S; // monotonic time is never 0
	world.redis = calloc(1, sizeof(*world.redis));
	assert(world.redis);
	sl_random_init(&world.random, seed);
	for (uint32_t i = 0; i < scenario->instances; i++)
		start(i);
	weigh(0);
	for (uint32_t i = 0; i < scenario->instances; i++)
		for (uint32_t k = 0; k < scenario->shards; k++)
			post_arrival(i, k);
	post((struct event){.at_ns = SL_S, .kind = SAMPLE});
	post((struct event){.at_ns = SL_S + (uint64_t)(FAULT_AT_S * SL_S), .kind = FAULT});
	if (scenario->skew == ONE_MOVES)
		post((struct event){.at_ns = 4 * SL_S, .kind = MOVE, .shard = 1});
	for (;;) {
		struct event event = take();

		world.now_ns = event.at_ns;
		if (world.now_ns > end_ns) {
			free(event.bytes);
			break;
		}
		handle(&event);
	}
	*outcome = (struct outcome){
		.excess = excess(),
		.refused = world.offered > 0 ? world.refused / world.offered : 0,
		.ideal_refused = world.offered > 0 ? world.ideal_refused / world.offered : 0,
		.updates_per_s = (double)(world.redis->updates - world.updates_at_warm) /
				 (scenario->seconds + 1 - WARM_S),
		.requests = world.requests,
		.volume_over = world.admitted / scenario->per_s -
			       scenario->volume_s * (scenario->midnight_s > 0 ? 2 : 1),
		.volume_updates_per_s = (double)world.redis->volume_updates /
					SL_MAX(scenario->volume_s, 1),
	};
	windows(10, false, &outcome->over_10s, &outcome->under_10s);
	windows(1, false, &outcome->over_1s, &outcome->under_1s);
	windows(10, true, &outcome->over_fault, &outcome->under_fault);
	for (uint32_t i = 0; i < scenario->instances; i++)
		if (!world.instances[i].dead)
			stop(i);
	for (size_t i = 0; i < world.heap_count; i++)
		free(world.heap[i].bytes);
	free(world.heap);
	free(world.redis);
}
