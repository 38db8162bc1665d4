#include "perf/micro/micro.h"

#include "perf/payload.h"
#include "sampling/hash_seed.h"
#include "sampling/rules.h"
#include "sampling/sampling.h"

// ns an item: the stage over 1000 realistic spans, at several rates and modes, and its parts.

#define SPANS 1000

struct bench {
	struct sl_sampling_shard *shard;
	struct sl_request request;
	struct sl_batch batch;
	uint64_t keep[SL_KEEP_WORDS(SPANS)];
	struct sl_edit edits[SPANS];
};

// One pass in memory that is used again, so that only the stage is timed.
static void pass(struct bench *bench)
{
	struct sl_part *part = &bench->request.first_part;

	memset(bench->keep, 0xff, sizeof(bench->keep));
	bench->keep[SPANS / 64] = (UINT64_C(1) << SPANS % 64) - 1;
	part->keep = bench->keep;
	part->edits = (struct sl_edits){.edits = bench->edits, .capacity = SPANS};
	part->kept_items = SPANS;
	sl_sampling_stage(bench->shard, &bench->batch);
	if (bench->batch.count != 1)
		abort();
}

static double stage_ns(struct bench *bench, uint32_t mode, double rate)
{
	struct sl_sampling_rule_config rule = {
		.mode = mode, .rate = rate, .keep_rate = 1, .precision = 4, .fail_closed = true};
	const struct sl_sampling_config config = {.rules = {&rule, 1}};
	struct sl_sampling *sampling = sl_sampling_compile(&config);
	struct sl_memory *memory = bench->request.arena.memory;
	struct sl_arena whole = bench->request.arena;
	double ns;

	sl_sampling_shard_turn(bench->shard, sampling);
	SL_MICRO(ns, {
		sl_arena_init(&bench->request.arena, memory);
		pass(bench);
		sl_arena_fini(&bench->request.arena);
	});
	bench->request.arena = whole;
	sl_sampling_module.destroy(sampling);
	return ns / SPANS;
}

int main(void)
{
	static const struct sl_view_limits limits = {.items_max = SPANS, .depth_max = 64};
	static const struct {
		const char *name;
		uint32_t mode;
		double rate;
	} rows[] = {
		{"proportional 0.1 %", SL_SAMPLING_PROPORTIONAL, 0.001},
		{"proportional 1 %", SL_SAMPLING_PROPORTIONAL, 0.01},
		{"proportional 10 %", SL_SAMPLING_PROPORTIONAL, 0.1},
		{"proportional 50 %", SL_SAMPLING_PROPORTIONAL, 0.5},
		{"hash_seed 10 %", SL_SAMPLING_HASH_SEED, 0.1},
	};
	const size_t room = SL_PAYLOAD_BYTES(SPANS) + SL_BODY_SLACK;
	struct sl_metrics *metrics = sl_metrics_create();
	struct bench *bench = calloc(1, sizeof(*bench));
	uint8_t *body = calloc(1, room);
	struct sl_memory memory;
	uint8_t id[16] = {1, 2, 3, 4};
	volatile uint32_t seed = 0;
	size_t size;
	double ns;

	if (!metrics || !bench || !body || sl_memory_init(&memory, 64 * SL_MIB))
		return 1;
	size = sl_payload_build(body, room, SL_TRACES, SPANS, 1);
	sl_arena_init(&bench->request.arena, &memory);
	bench->shard = sl_sampling_shard_create(0, metrics);
	if (!bench->shard || sl_view_scan(&bench->request.view, SL_TRACES, sl_bytes(body, size),
					  &limits, &bench->request.arena, NULL) != SL_VIEW_OK)
		return 1;
	bench->request.signal = SL_TRACES;
	bench->request.first_part.request = &bench->request;
	bench->batch.count = 1;
	bench->batch.parts[0] = &bench->request.first_part;
	printf("sampling, ns a span\n");
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		ns = stage_ns(bench, rows[i].mode, rows[i].rate);
		printf("%s: %.2f (%u kept)\n", rows[i].name, ns,
		       bench->request.first_part.kept_items);
	}
	SL_MICRO(ns, {
		id[0]++;
		SL_MICRO_USE(sl_hash_seed_of(seed, sl_bytes(id, sizeof(id))));
	});
	printf("hash of a trace id: %.2f\n", ns);
	SL_MICRO(ns, SL_MICRO_USE(sl_threshold_of(0.1 + seed, 4)));
	printf("threshold of a probability: %.2f\n", ns);
	return 0;
}
