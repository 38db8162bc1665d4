#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/hash.h"
#include "dataplane/base/log.h"
#include "tenants/shard.h"

// Nanoseconds a call: naming a tenant by its credential, and deciding its quota.
#define ROUNDS 400000

static char (*names)[24], (*digests)[80];

static struct sl_tenants *make(unsigned count, double spans, uint32_t algorithm, bool volume)
{
	struct sl_tenant_config *tenants = calloc(count, sizeof(*tenants));
	struct sl_credential_config *credentials = calloc(count, sizeof(*credentials));
	struct sl_class_config class = {
		.name = "c",
		.priority = 1,
		.quota = {.spans = spans,
			  .bytes = 1e11,
			  .requests = 1e9,
			  .burst_ns = SL_S,
			  .window_ns = SL_S,
			  .delay_max_ns = SL_S,
			  .algorithm = algorithm,
			  .volume = {.spans = volume ? UINT64_C(1) << 50 : 0, .soft = 1}}};
	const struct sl_tenants_module_config config = {
		.tenants = {.inline_ = {.classes = {&class, 1}, .tenants = {tenants, count}}},
		.quotas = {.volume_file = "nowhere"}};
	const struct sl_tenants_file *files[] = {&config.tenants.inline_};
	struct sl_errors *errors = sl_errors_create();

	for (unsigned i = 0; i < count; i++) {
		uint8_t digest[32];

		snprintf(names[i], sizeof(names[i]), "tenant%u", i);
		sl_hash_sha256(sl_bytes_of(names[i]), digest);
		snprintf(digests[i], sizeof(digests[i]), "sha256:");
		for (unsigned j = 0; j < 32; j++)
			snprintf(digests[i] + 7 + 2 * j, 3, "%02x", digest[j]);
		credentials[i].digest = digests[i];
		tenants[i] = (struct sl_tenant_config){
			.name = names[i], .class_name = "c", .credentials = {&credentials[i], 1}};
	}

	const uint64_t begun_ns = sl_clock_now_ns();
	struct sl_tenants *made = sl_tenants_build(&config, files, 1, NULL, errors);

	printf("build of %6u tenants  %8.1f ms\n", count,
	       (double)(sl_clock_now_ns() - begun_ns) / 1e6);
	sl_errors_destroy(errors);
	free(credentials);
	free(tenants);
	return made;
}

// What each call comes with; the last names the tenant.
static struct sl_http_header headers[] = {
	{SL_LITERAL("content-type"), SL_LITERAL("application/grpc")},
	{SL_LITERAL("te"), SL_LITERAL("trailers")},
	{SL_LITERAL("user-agent"), SL_LITERAL("OTel Go 1.0")},
	{SL_LITERAL("x-api-key"), SL_BYTES_NONE},
};
static const struct sl_identity_claim claim = {.headers = headers, .header_count = 4};

// `used` of the tenants in turn, so that the cache of credentials holds or misses.
static void identify(struct sl_tenants_shard *shard, unsigned count, unsigned used)
{
	uint64_t named = 0;
	const uint64_t begun_ns = sl_clock_now_ns();

	for (unsigned i = 0; i < ROUNDS; i++) {
		headers[3].value = sl_bytes_of(names[i % used]);
		named += sl_tenants_identify(shard, &claim, 1).reason == SL_REASON_NONE;
	}
	printf("identify, %6u tenants, %6u used  %6.1f ns\n", count, used,
	       (double)(sl_clock_now_ns() - begun_ns) / (double)named);
}

static void decide(struct sl_tenants_shard *shard, unsigned used, uint32_t items, const char *what)
{
	static struct sl_request request;
	static struct sl_part parts[SL_BATCH_MAX];
	static struct sl_batch batch;
	uint64_t admitted = 0, seed = 1;
	const uint64_t begun_ns = sl_clock_now_ns();

	request.part_count = 1;
	request.view.body.size = 3000;
	for (unsigned i = 0; i < ROUNDS / 16; i++) {
		for (unsigned j = 0; j < 16; j++) {
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			parts[j] = (struct sl_part){.request = &request,
						    .tenant = (uint32_t)(seed >> 33) % used,
						    .offered_items = items,
						    .offered_bytes = 3000};
			batch.parts[j] = &parts[j];
		}
		batch.count = 16;
		batch.refused_count = 0;
		sl_tenants_quota_stage(shard, &batch);
		admitted += batch.count;
	}
	printf("decide, %-28s %6.1f ns  (%5.1f %% admitted)\n", what,
	       (double)(sl_clock_now_ns() - begun_ns) / ROUNDS, (double)admitted * 100 / ROUNDS);
}

// What a refusal from the headers costs beyond HTTP: naming the tenant, its quota, and what the
// client is told.
static void refuse_head(struct sl_tenants_shard *shard, unsigned used)
{
	struct sl_memory memory;
	uint64_t refused = 0, wait_ns;
	uint64_t begun_ns;

	if (sl_memory_init(&memory, 16 * SL_MIB))
		return;
	begun_ns = sl_clock_now_ns();
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct sl_identity identity;
		struct sl_arena arena;

		sl_arena_init(&arena, &memory);
		headers[3].value = sl_bytes_of(names[i % used]);
		identity = sl_tenants_identify(shard, &claim, 1);
		if (sl_tenants_admit_head(shard, identity.tenant, SL_TRACES, 30000, &wait_ns)) {
			refused++;
			sl_tenants_explain(shard, identity.tenant, identity.name,
					   sl_tenants_last_limit(shard), &arena);
		}
		sl_arena_fini(&arena);
	}
	printf("refuse from the headers, %3u tenants    %6.1f ns  (%5.1f %% refused)\n", used,
	       (double)(sl_clock_now_ns() - begun_ns) / ROUNDS, (double)refused * 100 / ROUNDS);
	sl_memory_fini(&memory);
}

static void algorithms(void)
{
	static const struct {
		const char *what;
		uint32_t algorithm;
		bool volume;
	} rows[] = {
		{"leaky (hot)", SL_ALGORITHM_LEAKY, false},
		{"sliding window (hot)", SL_ALGORITHM_SLIDING_WINDOW, false},
		{"with a volume (hot)", SL_ALGORITHM_TOKEN_BUCKET, true},
	};

	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		struct sl_tenants *tenants = make(10, 1e10, rows[i].algorithm, rows[i].volume);
		struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 4, NULL);

		sl_tenants_tick(tenants, 1);
		sl_tenants_shard_turn(shard, tenants, 1);
		decide(shard, 10, 100, rows[i].what);
		sl_tenants_shard_destroy(shard);
		sl_tenants_destroy(tenants);
	}
}

// --- all that tenants cost a request -------------------------------------------------------------

#define PATH_ROUNDS 9 // interleaved: what else the machine does falls on all rows alike
#define PATH_CALLS  65536
#define BODIES      (8 * SL_MIB) // what is read passes through the caches, as in the process
#define BODY_BYTES  3000
#define REQUEST_NS  4500.0 // a whole call of 8 spans (RESULTS.md)

struct path {
	const char *what;
	unsigned count;
	bool skewed; // the n-th tenant sends 1/n of what the first does; else all as much
	struct sl_tenants *tenants;
	struct sl_tenants_shard *shard;
	uint32_t *calls; // whose
	double ns[PATH_ROUNDS];
};

static void prepare_path(struct path *path)
{
	double *sums = calloc(path->count, sizeof(*sums)), sum = 0;
	uint64_t seed = 1;

	path->tenants = make(path->count, 1e10, 0, false);
	path->shard = sl_tenants_shard_create(0, 4, NULL);
	path->calls = calloc(PATH_CALLS, sizeof(*path->calls));
	for (unsigned i = 0; i < path->count; i++)
		sums[i] = sum += path->skewed ? 1 / (double)(i + 1) : 1;
	for (unsigned i = 0; i < PATH_CALLS; i++) {
		double at;
		uint32_t low = 0, high = path->count - 1;

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		at = (double)(seed >> 33) / (double)(1u << 31) * sum;
		while (low < high) {
			const uint32_t middle = (low + high) / 2;

			if (sums[middle] < at)
				low = middle + 1;
			else
				high = middle;
		}
		// Numbers are given in the file's order, which is not that of who sends most.
		path->calls[i] = (uint32_t)(low * 7919u % path->count);
	}
	free(sums);
	sl_tenants_shard_turn(path->shard, path->tenants, 1);
	sl_tenants_tick(path->tenants, 1);
}

// Of this thread: what else runs on the machine does not count, but for what it does to the caches.
static uint64_t cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * SL_S + (uint64_t)now.tv_nsec;
}

// As names[] has it, but warm: a call's head has just been read.
static struct sl_bytes secret_of(uint32_t number, uint8_t secret[16])
{
	uint8_t *at = secret + 16;

	do
		*--at = (uint8_t)('0' + number % 10);
	while (number /= 10);
	at -= 6;
	memcpy(at, "tenant", 6);
	return sl_bytes(at, (size_t)(secret + 16 - at));
}

// A turn of 16 calls: each is named, judged from its head and counted in flight, its body read; all
// are charged; all end. Returns ns a call.
static double run_path(const struct path *path, uint8_t *bodies)
{
	static struct sl_request request;
	static struct sl_part parts[16];
	static struct sl_batch batch;
	const uint64_t begun_ns = cpu_ns();
	uint64_t wait_ns, read = 0;
	uint8_t secret[16];
	size_t at = 0;

	request.part_count = 1;
	for (unsigned i = 0; i < PATH_CALLS; i += 16) {
		for (unsigned j = 0; j < 16; j++) {
			struct sl_identity identity;

			headers[3].value = secret_of(path->calls[i + j], secret);
			identity = sl_tenants_identify(path->shard, &claim, 1);
			if (sl_tenants_admit_head(path->shard, identity.tenant, SL_TRACES,
						  BODY_BYTES, &wait_ns) ||
			    sl_tenants_take_in_flight(path->shard, identity.tenant, BODY_BYTES,
						      &wait_ns))
				abort(); // there is quota for all
			for (size_t k = 0; k < BODY_BYTES; k += SL_CACHE_LINE)
				read += bodies[at + k];
			at = (at + BODY_BYTES) % (BODIES - BODY_BYTES);
			parts[j] = (struct sl_part){.request = &request,
						    .tenant = identity.tenant,
						    .offered_items = 8,
						    .offered_bytes = BODY_BYTES};
			batch.parts[j] = &parts[j];
		}
		batch.count = 16;
		batch.refused_count = 0;
		sl_tenants_quota_stage(path->shard, &batch);
		for (unsigned j = 0; j < 16; j++)
			sl_tenants_give_in_flight(path->shard, parts[j].tenant, BODY_BYTES);
	}
	bodies[0] = (uint8_t)read;
	return (double)(cpu_ns() - begun_ns) / PATH_CALLS;
}

static int by_value(const void *a, const void *b)
{
	const double one = *(const double *)a, other = *(const double *)b;

	return (one > other) - (one < other);
}

static void whole_path(void)
{
	static struct path rows[] = {
		{.what = "10 tenants", .count = 10, .skewed = true},
		{.what = "100,000, each 1/n of the first", .count = 100000, .skewed = true},
		{.what = "100,000, all alike", .count = 100000},
	};
	uint8_t *bodies = calloc(1, BODIES);
	double base = 0;

	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++)
		prepare_path(&rows[i]);
	for (unsigned round = 0; round < PATH_ROUNDS; round++)
		for (unsigned i = 0; i < SL_COUNT_OF(rows); i++)
			rows[i].ns[round] = run_path(&rows[i], bodies);
	printf("| who sends | CPU ns a request, median of %d | more than with 10 | of a request of "
	       "%.0f ns |\n|---|---|---|---|\n",
	       PATH_ROUNDS, REQUEST_NS);
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		struct path *path = &rows[i];
		double median;

		qsort(path->ns, PATH_ROUNDS, sizeof(path->ns[0]), by_value);
		median = path->ns[PATH_ROUNDS / 2];
		base = i ? base : median;
		printf("| %s | %.0f | %.0f | %.1f %% |\n", path->what, median, median - base,
		       (median - base) * 100 / REQUEST_NS);
		sl_tenants_shard_destroy(path->shard);
		sl_tenants_destroy(path->tenants);
		free(path->calls);
	}
	free(bodies);
}

int main(void)
{
	static const unsigned counts[] = {10, 100000};

	sl_hash_seed();
	sl_log_set_level(SL_LOG_ERROR);
	names = calloc(100000, sizeof(*names));
	digests = calloc(100000, sizeof(*digests));
	for (unsigned i = 0; i < SL_COUNT_OF(counts); i++) {
		struct sl_tenants *tenants = make(counts[i], 1e10, 0, false);
		struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 4, NULL);

		sl_tenants_shard_turn(shard, tenants, 1);
		identify(shard, counts[i], 10);
		if (counts[i] > 10)
			identify(shard, counts[i], counts[i]);
		decide(shard, 10, 100, "chunks (hot)");
		if (counts[i] > 10)
			decide(shard, 1500, 100, "1,500 tenants");
		if (counts[i] > 10)
			decide(shard, counts[i], 100, "100,000 tenants (all cold)");
		sl_tenants_shard_destroy(shard);
		sl_tenants_destroy(tenants);
	}

	struct sl_tenants *tenants = make(10, 1000, 0, false);
	struct sl_tenants_shard *shard = sl_tenants_shard_create(0, 4, NULL);

	sl_tenants_shard_turn(shard, tenants, 1);
	decide(shard, 10, 100, "over quota (refusals)");
	refuse_head(shard, 10);
	sl_tenants_shard_destroy(shard);
	sl_tenants_destroy(tenants);
	algorithms();
	whole_path();
	free(names);
	free(digests);
	return 0;
}
