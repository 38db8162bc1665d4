#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "config/module.h"
#include "dataplane/base/clock.h"
#include "dataplane/base/hash.h"
#include "dataplane/base/log.h"
#include "tenants/shard.h"

// What many tenants cost: a start, a reload, and what the shard and the quota thread feel of it.
#define HOT 1500 // tenants that are sending while it happens

static double ms(uint64_t since_ns)
{
	return (double)(sl_clock_now_ns() - since_ns) / 1e6;
}

static void write_file(const char *path, unsigned count, unsigned rate)
{
	FILE *file = fopen(path, "w");

	if (!file)
		abort();
	fprintf(file,
		"classes:\n  base: {quota: {bytes: 1GiB/s, burst: 2s}}\n"
		"  c: {extends: base, quota: {spans: %u/s}}\ntenants:\n",
		rate);
	for (unsigned i = 0; i < count; i++)
		fprintf(file, "  tenant-%u: {class: c, credentials: [\"sha256:%064x\"]}\n", i, i);
	fclose(file);
}

static struct sl_tenants *load(const char *path, struct sl_tenants *before)
{
	struct sl_tenants_module_config config = {.tenants = {.unknown = "refuse", .file = path}};
	struct sl_snapshot snapshot = {.parts = {[SL_MODULE_TENANTS] = before}};
	struct sl_errors *errors = sl_errors_create();
	const struct sl_build build = {.errors = errors, .before = before ? &snapshot : NULL};
	struct sl_tenants *tenants = sl_tenants_module.build(&config, &build);

	for (uint32_t i = 0; i < sl_errors_count(errors); i++)
		fprintf(stderr, "%s\n", sl_errors_line(errors, i));
	if (!tenants)
		abort();
	sl_errors_destroy(errors);
	return tenants;
}

static void spend(struct sl_tenants_shard *shard)
{
	static struct sl_request request = {.part_count = 1};

	for (uint32_t i = 0; i < HOT; i++) {
		struct sl_part part = {.request = &request,
				       .tenant = i,
				       .offered_items = 10,
				       .offered_bytes = 3000};
		struct sl_batch batch = {.count = 1, .parts = {&part}};

		sl_tenants_quota_stage(shard, &batch);
	}
}

static void run(const char *path, unsigned count)
{
	uint64_t at_ns = 0, began_ns;
	struct sl_tenants *tenants, *next;
	struct sl_tenants_shard *shard;
	double worst_tick = 0, loaded, reloaded, turn, gone;

	write_file(path, count, 1000);
	began_ns = sl_clock_now_ns();
	tenants = load(path, NULL);
	loaded = ms(began_ns);

	shard = sl_tenants_shard_create(0, 2, NULL);
	for (unsigned i = 0; i < 300; i++)
		sl_tenants_tick(tenants, at_ns += SL_QUOTA_TICK_NS);
	sl_tenants_shard_turn(shard, tenants, at_ns);
	spend(shard);

	write_file(path, count, 2000); // every tenant's limits change
	began_ns = sl_clock_now_ns();
	next = load(path, tenants);
	reloaded = ms(began_ns);
	began_ns = sl_clock_now_ns();
	sl_tenants_shard_turn(shard, next, at_ns);
	turn = ms(began_ns);
	for (unsigned i = 0; i < 300; i++) {
		double took;

		began_ns = sl_clock_now_ns();
		sl_tenants_tick(next, at_ns += SL_QUOTA_TICK_NS);
		took = ms(began_ns);
		worst_tick = took > worst_tick ? took : worst_tick;
	}
	began_ns = sl_clock_now_ns();
	sl_tenants_destroy(tenants);
	gone = ms(began_ns);
	printf("%7u  %8.1f  %8.1f  %10.3f  %10.3f  %8.1f\n", count, loaded, reloaded, turn,
	       worst_tick, gone);
	sl_tenants_shard_destroy(shard);
	sl_tenants_destroy(next);
}

int main(void)
{
	char path[] = "/tmp/sluice-reload-XXXXXX";
	const int fd = mkstemp(path);

	if (fd < 0)
		return 1;
	close(fd);
	sl_hash_seed();
	sl_log_set_level(SL_LOG_ERROR);
	printf("tenants   load ms  reload ms  shard turn  quota tick  free old\n"
	       "                               worst, ms   worst, ms        ms\n");
	run(path, 2000);
	run(path, 100000);
	unlink(path);
	return 0;
}
