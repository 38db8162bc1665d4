// What many tenants cost a real Redis: instances of this process, each with its shard's quota
// stage, pools, accounts and link, over sockets and in real time.
//
//   fleet_load PORT [TENANTS] [INSTANCES] [REQUESTS/S of a tenant over all] [R / that]
//
// Prints calls, updates and Redis' CPU a second, after two seconds of warming up.
#include <arpa/inet.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/hash.h"
#include "dataplane/base/log.h"
#include "dataplane/base/random.h"
#include "tenants/fleet/volumes.h"
#include "tenants/shard.h"

#define ITEMS     10
#define WARM_S    2.0
#define MEASURE_S 6.0

struct instance {
	struct sl_tenants *tenants;
	struct sl_tenants_shard *shard;
	struct sl_fleet *fleet;
	int fd;
};

static struct sl_random randomness;
static unsigned port, tenant_count = 10000, instance_count = 4;
static double per_s = 2, headroom = 10;

static void make(struct instance *instance, unsigned number)
{
	const char *url = "redis://127.0.0.1";
	struct sl_tenant_config *tenants = calloc(tenant_count, sizeof(*tenants));
	char(*names)[16] = calloc(tenant_count, sizeof(*names));
	struct sl_class_config class = {
		.name = "c",
		.priority = 1,
		.quota = {.spans = per_s * ITEMS * headroom,
			  .burst_ns = SL_S,
			  .volume = {.spans = UINT64_C(1) << 50, .soft = 1}}};
	const struct sl_tenants_module_config config = {
		.tenants = {.inline_ = {.classes = {&class, 1},
					.tenants = {tenants, tenant_count}}},
		.quotas = {.redis = {&url, 1}},
	};
	const struct sl_tenants_file *files[] = {&config.tenants.inline_};
	struct sl_fleet_options options = {
		.link_count = 1, .seed = number + 1, .instances = instance_count};
	struct sl_errors *errors = sl_errors_create();

	for (unsigned i = 0; i < tenant_count; i++) {
		snprintf(names[i], sizeof(names[i]), "t%u", i);
		tenants[i] = (struct sl_tenant_config){.name = names[i], .class_name = "c"};
	}
	instance->tenants = sl_tenants_build(&config, files, 1, NULL, errors);
	instance->shard = sl_tenants_shard_create(0, 1, NULL);
	options.links[0].instance[0] = (uint8_t)('a' + number);
	instance->fleet = sl_fleet_create(&options);
	instance->fd = -1;
	if (!instance->tenants || !instance->shard || !instance->fleet)
		exit(1);
	sl_errors_destroy(errors);
	free(tenants);
	free(names);
}

static void dial(struct instance *instance, uint64_t now_ns)
{
	const struct sockaddr_in address = {.sin_family = AF_INET,
					    .sin_port = htons((uint16_t)port),
					    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	if (instance->fd >= 0)
		close(instance->fd);
	instance->fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(instance->fd, (const void *)&address, sizeof(address))) {
		sl_fleet_link_failed(&instance->fleet->links[0], "connect", now_ns);
		return;
	}
	fcntl(instance->fd, F_SETFL, O_NONBLOCK);
	sl_fleet_link_connected(&instance->fleet->links[0], now_ns);
}

static void carry(struct instance *instance, bool tick)
{
	struct sl_fleet_link *link = &instance->fleet->links[0];
	const uint64_t now_ns = sl_clock_now_ns();
	uint8_t bytes[16384];
	struct sl_bytes out;
	ssize_t size;

	if (tick && sl_fleet_link_tick(link, now_ns))
		dial(instance, now_ns);
	while (instance->fd >= 0 && (size = read(instance->fd, bytes, sizeof(bytes))) > 0)
		sl_fleet_link_received(link, sl_bytes(bytes, (size_t)size), now_ns);
	if (tick) {
		sl_fleet_tick(instance->fleet, instance->tenants, now_ns);
		sl_fleet_tick_volumes(instance->fleet, instance->tenants, now_ns, 0);
	}
	out = sl_fleet_link_output(link);
	if (instance->fd >= 0 && out.size) {
		size = write(instance->fd, out.data, out.size);
		sl_fleet_link_sent(link, size > 0 ? (size_t)size : 0);
	}
}

static bool send_one(struct instance *instance)
{
	static struct sl_request request;
	static struct sl_part part;
	static struct sl_batch batch;

	sl_tenants_shard_turn(instance->shard, instance->tenants, sl_clock_now_ns());
	memset(&part, 0, sizeof(part));
	request.signal = SL_TRACES;
	part.request = &request;
	part.tenant = (sl_tenant_id)sl_random_below(&randomness, tenant_count);
	part.offered_items = ITEMS;
	part.offered_bytes = 3000;
	batch.count = 1;
	batch.parts[0] = &part;
	batch.refused_count = 0;
	sl_tenants_quota_stage(instance->shard, &batch);
	return batch.count;
}

struct totals {
	uint64_t calls, updates, volume_calls, volume_updates, sent, admitted, late;
};

// Redis' own count, in s.
static double redis_cpu(void)
{
	redisContext *context = redisConnect("127.0.0.1", (int)port);
	redisReply *reply = redisCommand(context, "INFO cpu");
	const char *user = strstr(reply->str, "used_cpu_user:"),
		   *system = strstr(reply->str, "used_cpu_sys:");
	const double seconds = atof(user + 14) + atof(system + 13);

	freeReplyObject(reply);
	redisFree(context);
	return seconds;
}

static struct totals totals_of(const struct instance *instance, const struct totals *running)
{
	const struct sl_fleet_counters *counters = &instance->fleet->counters;
	struct totals all = *running;

	all.calls = counters->calls[0];
	all.updates = counters->updates[0];
	all.volume_calls = counters->volume_calls[0];
	all.volume_updates = counters->volume_updates[0];
	return all;
}

// One instance's life; its share of the load. What it did after warming up goes to `measured`.
static void live(unsigned number, uint64_t began_ns, struct totals *measured)
{
	struct instance instance;
	struct totals running = {0}, begin = {0}, end;
	const uint64_t end_ns = began_ns + (uint64_t)((WARM_S + MEASURE_S) * 1e9);
	const double share_per_s = per_s * tenant_count / instance_count;
	uint64_t tick_ns = 0, now_ns;

	sl_random_init(&randomness, number + 1);
	make(&instance, number);
	while ((now_ns = sl_clock_now_ns()) < end_ns) {
		const double passed_s = now_ns > began_ns ? (double)(now_ns - began_ns) / 1e9 : 0;
		const bool tick = now_ns >= tick_ns + SL_QUOTA_TICK_NS;

		running.late += tick && tick_ns && now_ns > tick_ns + 2 * SL_QUOTA_TICK_NS;
		carry(&instance, tick);
		if (tick)
			tick_ns = now_ns;
		for (; (double)running.sent < passed_s * share_per_s; running.sent++)
			running.admitted += send_one(&instance);
		if (!begin.sent && passed_s >= WARM_S)
			begin = totals_of(&instance, &running);
		usleep(500);
	}
	end = totals_of(&instance, &running);
	for (unsigned i = 0; i < sizeof(end) / sizeof(uint64_t); i++)
		((uint64_t *)measured)[i] = ((uint64_t *)&end)[i] - ((uint64_t *)&begin)[i];
}

int main(int argc, char **argv)
{
	struct totals *measured = mmap(NULL, 16 * sizeof(*measured), PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct totals all = {0};
	uint64_t began_ns;
	double cpu_s;

	port = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
	tenant_count = argc > 2 ? (unsigned)atoi(argv[2]) : tenant_count;
	instance_count = argc > 3 ? (unsigned)atoi(argv[3]) : instance_count;
	per_s = argc > 4 ? atof(argv[4]) : per_s;
	headroom = argc > 5 ? atof(argv[5]) : headroom;
	if (!port || !tenant_count || instance_count < 1 || instance_count > 16 ||
	    measured == MAP_FAILED)
		return 64;
	sl_hash_seed();
	sl_log_set_level(SL_LOG_ERROR);
	began_ns = sl_clock_now_ns() + SL_S; // made by then
	for (unsigned i = 0; i < instance_count; i++) {
		if (fork() == 0) {
			live(i, began_ns, &measured[i]);
			_exit(0);
		}
	}
	usleep((useconds_t)((1 + WARM_S) * 1e6));
	cpu_s = redis_cpu();
	usleep((useconds_t)(MEASURE_S * 0.95 * 1e6));
	cpu_s = redis_cpu() - cpu_s;
	while (wait(NULL) > 0)
		;
	for (unsigned i = 0; i < instance_count; i++)
		for (unsigned k = 0; k < sizeof(all) / sizeof(uint64_t); k++)
			((uint64_t *)&all)[k] += ((uint64_t *)&measured[i])[k];
	printf("%u tenants, %u instances, %.2g requests/s each, %.3g of the quota (%.2f %% "
	       "refused, "
	       "%llu late ticks): %.0f calls/s, %.0f updates/s; of volumes %.0f, %.0f; Redis %.1f "
	       "%% "
	       "of a core\n",
	       tenant_count, instance_count, per_s, 1 / headroom,
	       100 - 100 * (double)all.admitted / (double)all.sent, (unsigned long long)all.late,
	       (double)all.calls / MEASURE_S, (double)all.updates / MEASURE_S,
	       (double)all.volume_calls / MEASURE_S, (double)all.volume_updates / MEASURE_S,
	       cpu_s / MEASURE_S / 0.95 * 100);
	return 0;
}
