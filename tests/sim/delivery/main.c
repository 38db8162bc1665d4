#include <signal.h>

#include "dataplane/base/log.h"
#include "tests/unit/routing/rig.h"

// Delivery in virtual time: the real routing code, destinations that fail as a seed says, and the
// books after every step. `sim_delivery --seed N` plays one seed again and says what it does.
//
// What must hold, always: each destination's books close to the item; bodies that merge are the
// concatenation of their members and scan to the sum of their items; nobody is told success before
// all required destinations have confirmed all items; nothing is refused for good but what is bad;
// at the end every request has been answered once and freed once, and no memory is left.

#define CALLS        60
#define STEPS        300
#define HELD         512
#define DESTINATIONS 3

enum mood { GOOD, SLOW, FLAKY, DOWN, FULL, MOODS };

struct one {
	struct call call; // first
	uint32_t items, confirmed[DESTINATIONS], refused[DESTINATIONS];
	unsigned required; // a bit a destination
	unsigned group;    // of these, all of it at one or shared between them
	bool bad, offered, checked;
};

struct place {
	unsigned index;
	enum mood mood;
	uint32_t generation, owners; // of its keys, where it has endpoints of its own
};

// A place as one snapshot's destination sees it.
struct side {
	struct place *place;
	struct {
		struct sl_record *record;
		uint64_t due_ns;
	} held[HELD];
	unsigned count;
};

static struct {
	uint64_t seed;
	unsigned step;
	bool tells, queued;
	struct sl_random random;
	struct place places[DESTINATIONS];
	struct one ones[CALLS];
	struct rig rig;
	uint64_t opened, merged, apart, retried, moved, ends[4];
} world;

__attribute__((format(printf, 1, 2), noreturn)) static void broken(const char *format, ...)
{
	va_list list;

	printf("seed %llu, step %u: ", (unsigned long long)world.seed, world.step);
	va_start(list, format);
	vprintf(format, list);
	va_end(list);
	printf("\nagain: sim_delivery --seed %llu\n", (unsigned long long)world.seed);
	fflush(stdout);
	_exit(1);
}

static void on_abort(int number)
{
	broken("signal %d", number);
}

static uint64_t below(uint64_t most)
{
	return sl_random_below(&world.random, most);
}

static bool one_in(unsigned n)
{
	return below(n) == 0;
}

// --- a destination -------------------------------------------------------------------------------

static struct one *one_of(const struct sl_record *record)
{
	return record->delivery->part->request->shard;
}

static bool is_bad(const struct sl_record *record)
{
	bool bad = false;

	if (!record->members)
		return one_of(record)->bad;
	for (const struct sl_record *member = record->members; member; member = member->next)
		bad |= one_of(member)->bad;
	return bad;
}

static void note(struct place *place, const struct sl_record *record, enum sl_outcome outcome)
{
	struct one *one = one_of(record);

	uint32_t sum = 0;

	if (outcome == SL_OUTCOME_DELIVERED)
		one->confirmed[place->index] += record->items;
	for (unsigned i = 0; i < DESTINATIONS; i++) {
		if (one->confirmed[i] > one->items)
			broken("%u has %u of %u items", i, one->confirmed[i], one->items);
		sum += one->group >> i & 1 ? one->confirmed[i] : 0;
	}
	if (sum > one->items)
		broken("the group has %u of %u items", sum, one->items);
	if (outcome == SL_OUTCOME_REJECTED)
		one->refused[place->index] += record->items;
}

// What lies on the wire is sound, and as many items as it says.
static void check_bytes(const struct sl_record *record)
{
	static uint8_t bytes[SL_MIB];
	const struct sl_view_limits limits = {.items_max = 10000, .depth_max = 64};
	const uint64_t budget_bytes = world.rig.memory.budget_bytes;
	struct sl_arena arena;
	struct sl_view view;
	size_t at = 0;

	for (uint32_t i = 0; i < record->piece_count; i++) {
		memcpy(bytes + at, record->pieces[i].iov_base, record->pieces[i].iov_len);
		at += record->pieces[i].iov_len;
	}
	if (at != record->bytes)
		broken("%zu bytes, not %llu", at, (unsigned long long)record->bytes);
	world.rig.memory.budget_bytes = 64 * SL_MIB; // looking is not what memory ends for
	sl_arena_init(&arena, &world.rig.memory);
	if (sl_view_scan(&view, record->signal, sl_bytes(bytes, at), &limits, &arena, NULL) !=
		    SL_VIEW_OK ||
	    view.item_count != record->items)
		broken("a record of %u items is not", record->items);
	sl_arena_fini(&arena);
	world.rig.memory.budget_bytes = budget_bytes;
}

static void end(struct place *place, struct sl_record *record)
{
	enum sl_outcome outcome = SL_OUTCOME_DELIVERED;
	uint64_t retry_after_ns = 0;

	check_bytes(record);
	if (place->mood == DOWN || (place->mood == FLAKY && one_in(2))) {
		outcome = SL_OUTCOME_RETRYABLE;
		retry_after_ns = one_in(4) ? below(SL_S) : 0;
	} else if (is_bad(record)) {
		outcome = SL_OUTCOME_REJECTED;
	}
	world.ends[outcome]++;
	if (world.tells)
		printf("%u: %u ends %u items%s as %u\n", world.step, place->index, record->items,
		       record->members ? " merged" : "", outcome);
	if (!record->members)
		note(place, record, outcome);
	for (const struct sl_record *member = record->members;
	     member && outcome == SL_OUTCOME_DELIVERED; member = member->next)
		note(place, member, outcome);
	sl_egress_end(record, outcome, retry_after_ns);
}

static void *place_open(void *self, const struct sl_driver_env *env)
{
	struct side *side = one_in(20) ? NULL : calloc(1, sizeof(*side));

	(void)env;
	if (side)
		side->place = self;
	return side;
}

static void place_close(void *side)
{
	if (((struct side *)side)->count)
		broken("closed with records");
	free(side);
}

static void place_destroy(void *self)
{
	(void)self;
}

// Whole traces: what carries several keys carries keys of one owner.
static uint32_t place_owner(void *state, struct sl_bytes key)
{
	const struct place *place = ((struct side *)state)->place;

	return place->generation << 8 | key.data[key.size - 1] % place->owners;
}

static bool place_owns(void *state, uint32_t of)
{
	return of >> 8 == ((struct side *)state)->place->generation;
}

static enum sl_reason place_submit(void *state, struct sl_record *record)
{
	struct side *side = state;
	struct place *place = side->place;
	uint64_t wait_ns;

	if (((struct sl_egress *)record->destination)->breaker.state == SL_BREAKER_OPEN)
		broken("sent while the breaker is open");
	if (record->owner && !place_owns(side, record->owner))
		broken("sent to an owner of before");
	if (record->owner && one_in(10))
		return SL_REASON_OVERLOADED; // that one
	if (side->count == HELD || (place->mood == FULL && !one_in(20)))
		return SL_REASON_EGRESS_FULL;
	if (place->mood == GOOD && one_in(3)) {
		end(place, record);
		return SL_REASON_NONE;
	}
	wait_ns = below(place->mood == SLOW ? 10 * SL_S : 50 * SL_MS);
	side->held[side->count].record = record;
	side->held[side->count++].due_ns = world.rig.now_ns + wait_ns;
	return SL_REASON_NONE;
}

static void place_poll(void *state, uint64_t now_ns)
{
	struct side *side = state;

	for (unsigned i = 0; i < side->count;) {
		struct sl_record *record = side->held[i].record;

		if (now_ns < side->held[i].due_ns) {
			i++;
			continue;
		}
		side->held[i] = side->held[--side->count];
		end(side->place, record);
	}
}

static const struct sl_driver place_driver = {
	.name = "place",
	.destroy = place_destroy,
	.open = place_open,
	.close = place_close,
	.submit = place_submit,
	.poll = place_poll,
	.owner = place_owner,
	.owns = place_owns,
};

static void adjust(struct sl_routing *routing)
{
	for (uint32_t i = 0; i < routing->destination_count; i++) {
		struct sl_destination *destination = routing->destinations[i];

		if (destination->driver == &place_driver || !destination->driver)
			continue; // shared with the snapshot before; a failover group
		destination->driver = &place_driver;
		destination->self = &world.places[destination->name[0] - 'a'];
		destination->by_trace = one_in(3);
		if (!destination->by_trace && one_in(2))
			destination->spread = one_in(2) ? SL_SPREAD_TRACE : SL_SPREAD_TENANT;
		destination->record_bytes_max = one_in(3) ? 60 + below(300) : 0;
		if (one_in(2))
			destination->breaker = (struct sl_breaker_config){
				.failures = 1 + below(6),
				.calls_min = 1 + below(20),
				.probes = 1 + below(3),
				.wait_ns = SL_MS + below(SL_S),
				.wait_max_ns = 2 * SL_S,
				.error_rate = 0.3,
			};
		destination->retry.budget = one_in(2) ? 0.2 : 0;
		if (one_in(3))
			continue;
		destination->merge = (struct sl_merge_config){
			.bytes = 100 + below(2000),
			.requests = 2 + below(8),
			.delay_ns = one_in(4) ? 0 : below(200 * SL_MS),
		};
	}
}

// --- the books -----------------------------------------------------------------------------------

static void check_meter(const struct sl_meter *meter)
{
	const struct sl_destination_counters *counters = &meter->counters;

	for (unsigned signal = 0; signal < SL_SIGNALS; signal++) {
		const uint64_t sum = counters->delivered[signal] + counters->rejected[signal] +
				     counters->dropped[signal] + counters->returned[signal] +
				     counters->lost[signal] + counters->moved[signal] +
				     counters->dead_lettered[signal] + counters->in_flight[signal];

		if (counters->taken[signal] != sum)
			broken("%s: taken %llu, but %llu are accounted for", meter->name,
			       (unsigned long long)counters->taken[signal],
			       (unsigned long long)sum);
	}
}

static void check_one(struct one *one)
{
	const struct call *call = &one->call;
	uint32_t group = 0;

	if (call->settled > 1 || call->released > 1)
		broken("answered %u times, freed %u times", call->settled, call->released);
	if (!call->settled || one->checked)
		return;
	one->checked = true;
	if (!one->bad && call->request.reason == SL_REASON_REJECTED)
		broken("refused for good, and was not bad");
	if (call->refused != SL_REASON_NONE || call->request.reason != SL_REASON_NONE ||
	    world.queued)
		return;
	for (unsigned i = 0; i < DESTINATIONS; i++)
		group += one->group >> i & 1 ? one->confirmed[i] : 0;
	if (one->group && group != one->items)
		broken("acknowledged with %u of %u items in the group", group, one->items);
	for (unsigned i = 0; i < DESTINATIONS; i++) {
		if (!(one->required >> i & 1))
			continue;
		if (one->confirmed[i] != one->items)
			broken("acknowledged with %u of %u items at %u", one->confirmed[i],
			       one->items, i);
	}
}

static void check(void)
{
	uint64_t records = 0, open = 0;

	for (const struct sl_meter *meter = world.rig.shard->meters; meter; meter = meter->next) {
		check_meter(meter);
		open += meter->counters.breaker_open[0];
	}
	for (const struct sl_egress *egress = world.rig.shard->egresses; egress;
	     egress = egress->next) {
		records += egress->records;
		open -= egress->broken;
		if (egress->broken != (egress->breaker.state != SL_BREAKER_CLOSED))
			broken("the breaker is not as its metric says");
	}
	if (records != sl_routing_in_flight(world.rig.shard))
		broken("records in flight");
	if (open)
		broken("breakers that are counted and not there");
	for (unsigned i = 0; i < CALLS; i++) {
		if (world.ones[i].offered)
			check_one(&world.ones[i]);
	}
}

// --- a run ---------------------------------------------------------------------------------------

static void send_one(struct one *one)
{
	static const struct {
		const char *tenant;
		unsigned required, group;
	} kinds[] = {{"one", 1, 0}, {"two", 3, 0}, {"best", 1, 0}, {"only", 0, 0}, {"group", 0, 6}};
	const unsigned kind = (unsigned)below(SL_COUNT_OF(kinds));
	char json[2000], *at = json;

	memset(one, 0, sizeof(*one));
	one->offered = true;
	one->bad = one_in(10);
	one->required = kinds[kind].required;
	one->group = kinds[kind].group;
	one->items = 1 + (uint32_t)below(6);
	at += sprintf(at, "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[");
	for (uint32_t i = 0; i < one->items; i++)
		at += sprintf(at, "%s" SPAN("%032x"), i ? "," : "", 1 + (unsigned)below(4));
	sprintf(at, "]}]}]}");
	world.rig.left = one_in(20) ? 1 + below(32 * SL_KIB) : 0; // memory ends somewhere
	offer(&world.rig, &one->call, kinds[kind].tenant, SL_TRACES, json);
	if (world.tells)
		printf("%u: %s sends %u%s: %u\n", world.step, kinds[kind].tenant, one->items,
		       one->bad ? " bad" : "", one->call.refused);
}

static void step(void)
{
	struct rig *rig = &world.rig;

	if (one_in(15)) {
		struct place *place = &world.places[below(DESTINATIONS)];

		place->mood = (enum mood)below(MOODS);
		if (world.tells)
			printf("%u: %u is %u\n", world.step, place->index, place->mood);
	}
	if (one_in(10)) {
		struct place *place = &world.places[below(DESTINATIONS)];

		place->generation++;
		place->owners = 1 + (uint32_t)below(4);
	}
	for (unsigned i = 0; i < CALLS && one_in(2); i++) {
		struct one *one = &world.ones[below(CALLS)];

		if (!one->offered || (one->call.released && one->checked))
			send_one(one);
		check();
	}
	rig->now_ns += one_in(10) ? below(3 * SL_S) : below(30 * SL_MS);
	sl_routing_poll(rig->shard, rig->now_ns);
	check();
}

// Other settings for one destination: it is closed when what it has in flight has ended.
static void reload(const char *yaml)
{
	if (!build(&world.rig, 1, yaml))
		broken("%s", sl_errors_line(world.rig.errors, 0));
	sl_routing_shard_turn(world.rig.shard, world.rig.routing[1], world.rig.now_ns);
}

static void describe(char *yaml, size_t size, const char *elapsed)
{
	snprintf(yaml, size,
		 "acknowledge: %s\n"
		 "destinations:\n"
		 "  a: {blackhole: {}, retry: {initial: 10ms, max: 500ms, max_elapsed: 20s}}\n"
		 "  b: {blackhole: {}, pinned_bytes: 1MB, retry: {max_elapsed: %s}}\n"
		 "  c: {blackhole: {}, retry: {max_elapsed: 2s}}\n"
		 "  g: {failover: {to: [b, c], after: 300ms, return_after: 500ms}}\n"
		 "routes:\n"
		 "  - {match: {tenant: group}, to: [g]}\n"
		 "  - {match: {tenant: two}, to: [a, b]}\n"
		 "  - {match: {tenant: best}, to: [a, {destination: c, required: false}]}\n"
		 "  - {match: {tenant: only}, to: [{destination: b, required: false}]}\n"
		 "  - {to: [a]}\n",
		 world.queued ? "queued" : "delivered", elapsed);
}

static void run(uint64_t seed)
{
	struct rig *rig = &world.rig;
	char yaml[1024];
	unsigned turn_at;

	world.seed = seed;
	sl_random_init(&world.random, seed);
	memset(world.places, 0, sizeof(world.places));
	memset(world.ones, 0, sizeof(world.ones));
	for (unsigned i = 0; i < DESTINATIONS; i++)
		world.places[i] = (struct place){.index = i, .generation = 1, .owners = 2};
	world.queued = one_in(4);
	*rig = (struct rig){.now_ns = 100 * SL_S, .adjust = adjust};
	describe(yaml, sizeof(yaml), "30s");
	set_up(rig, yaml);
	sl_random_init(&rig->random, seed + 1);
	turn_at = (unsigned)below(2 * STEPS);
	for (world.step = 0; world.step < STEPS; world.step++) {
		if (world.step == turn_at) {
			describe(yaml, sizeof(yaml), "29s");
			reload(yaml);
		}
		step();
	}
	for (unsigned i = 0; i < DESTINATIONS; i++)
		world.places[i].mood = (enum mood)below(DOWN);
	// What is in flight ends by itself: nobody waits longer than the settings say.
	for (unsigned i = 0; sl_routing_in_flight(rig->shard); i++, world.step++) {
		rig->now_ns += 100 * SL_MS;
		sl_routing_poll(rig->shard, rig->now_ns);
		check();
		if (i > 1000)
			broken("%llu records never end",
			       (unsigned long long)sl_routing_in_flight(rig->shard));
	}
	for (unsigned i = 0; i < CALLS; i++) {
		const struct call *call = &world.ones[i].call;

		if (world.ones[i].offered && (call->settled != 1 || call->released != 1))
			broken("request %u: answered %u times, freed %u times", i, call->settled,
			       call->released);
	}
	for (const struct sl_meter *meter = rig->shard->meters; meter; meter = meter->next) {
		world.opened += meter->counters.breaker_opened[0];
		world.merged += meter->counters.merged_records[0];
		world.apart += meter->counters.taken_apart[0];
		world.retried += meter->counters.retried_records[0];
		world.moved += meter->counters.moved[SL_TRACES];
	}
	tear_down(rig);
}

int main(int argc, char **argv)
{
	const uint64_t number = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
	uint64_t first = 1, last = number;

	if (argc != 3 || (strcmp(argv[1], "--seed") && strcmp(argv[1], "--seeds"))) {
		printf("usage: sim_delivery --seeds COUNT | --seed SEED\n");
		return 2;
	}
	world.tells = strcmp(argv[1], "--seed") == 0;
	if (world.tells)
		first = number;
	signal(SIGABRT, on_abort);
	signal(SIGSEGV, on_abort);
	sl_log_set_level(SL_LOG_ERROR + 1);
	for (uint64_t seed = first; seed <= last; seed++)
		run(seed);
	printf("%llu seeds: ends delivered %llu, refused %llu, retryable %llu; retried %llu, "
	       "merged "
	       "%llu, taken apart %llu; breakers opened %llu; items moved %llu\n",
	       (unsigned long long)(last - first + 1), (unsigned long long)world.ends[0],
	       (unsigned long long)world.ends[SL_OUTCOME_REJECTED],
	       (unsigned long long)world.ends[SL_OUTCOME_RETRYABLE],
	       (unsigned long long)world.retried, (unsigned long long)world.merged,
	       (unsigned long long)world.apart, (unsigned long long)world.opened,
	       (unsigned long long)world.moved);
	return !(world.tells ||
		 (world.merged && world.apart && world.retried && world.opened && world.moved));
}
