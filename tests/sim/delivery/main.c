#include <signal.h>

#include "dataplane/base/log.h"
#include "tests/sim/delivery/disk.h"
#include "tests/sim/delivery/world.h"

// Delivery in virtual time: the real routing code, destinations that fail as a seed says, and the
// books after every step; spools over a disk that fails, and processes that die (disk.h).
// `sim_delivery --seed N` plays one seed again and says what it does.
//
// What must hold, always: each destination's books close to the item; bodies that merge are the
// concatenation of their members and scan to the sum of their items; nobody is told success before
// all required destinations have confirmed all items; nothing is refused for good but what is bad;
// at the end every request has been answered once and freed once, and no memory is left. What was
// acknowledged is delivered or a dead letter in the end, at each required destination, whoever died
// meanwhile: but for what the settings let a power cut or a limit of the spool take.

struct world sl_sim;

void sl_sim_broken(const char *format, ...)
{
	va_list list;

	printf("seed %llu, step %u: ", (unsigned long long)sl_sim.seed, sl_sim.step);
	va_start(list, format);
	vprintf(format, list);
	va_end(list);
	printf("\nagain: sim_delivery --seed %llu\n", (unsigned long long)sl_sim.seed);
	fflush(stdout);
	_exit(1);
}

bool sl_sim_tells(void)
{
	return sl_sim.tells;
}

static void on_abort(int number)
{
	sl_sim_broken("signal %d", number);
}

// --- the books -----------------------------------------------------------------------------------

static void check_meter(const struct sl_meter *meter)
{
	const struct sl_destination_counters *counters = &meter->counters;

	for (unsigned signal = 0; signal < SL_SIGNALS; signal++) {
		const uint64_t sum = counters->delivered[signal] + counters->rejected[signal] +
				     counters->dropped[signal] + counters->returned[signal] +
				     counters->lost[signal] + counters->moved[signal] +
				     counters->dead_lettered[signal] + counters->spooled[signal] +
				     counters->put_back[signal] + counters->in_flight[signal];
		const uint64_t taken = counters->taken[signal] + counters->unspooled[signal];

		if (taken != sum)
			sl_sim_broken("%s: taken %llu, but %llu are accounted for", meter->name,
				      (unsigned long long)taken, (unsigned long long)sum);
	}
}

// From now on its items must not be lost. Of those that a destination has refused for good, or all
// of a group, no more are missing than a partial success says.
static void oblige(const struct one *one)
{
	const uint8_t sets[] = {1, 2, 4, (uint8_t)one->group};

	for (unsigned i = one->group ? 3 : 0; i < (one->group ? 4 : 3); i++) {
		uint32_t told = one->call.request.first_part.rejected_items;

		for (uint32_t j = 0; j < one->items; j++) {
			struct item *item = &sl_sim.items[one->first + j];
			const uint8_t safe = item->delivered | item->lettered | item->spooled |
					     item->refused;

			item->required = (uint8_t)one->required;
			item->group = (uint8_t)one->group;
			if (safe & sets[i] || !((one->required | one->group) & sets[i]))
				continue;
			if (!item->bad || !told--)
				sl_sim_broken("item %u is acknowledged and not safe: %x of %x",
					      one->first + j, safe, sets[i]);
			item->refused |= sets[i];
		}
	}
}

static void check_one(struct one *one)
{
	const struct call *call = &one->call;
	uint32_t group = 0;

	if (call->settled > 1 || call->released > 1)
		sl_sim_broken("answered %u times, freed %u times", call->settled, call->released);
	if (!call->settled || one->checked)
		return;
	one->checked = true;
	if (!one->bad && call->request.reason == SL_REASON_REJECTED)
		sl_sim_broken("refused for good, and was not bad");
	if (call->refused != SL_REASON_NONE || call->request.reason != SL_REASON_NONE ||
	    sl_sim.queued)
		return;
	oblige(one);
	if (one->bad)
		return;
	for (unsigned i = 0; i < DESTINATIONS; i++)
		group += one->group >> i & 1 ? one->confirmed[i] : 0;
	if (one->group && group != one->items)
		sl_sim_broken("acknowledged with %u of %u items in the group", group, one->items);
	for (unsigned i = 0; i < DESTINATIONS; i++) {
		if (!(one->required >> i & 1))
			continue;
		if (one->confirmed[i] != one->items)
			sl_sim_broken("acknowledged with %u of %u items at %u", one->confirmed[i],
				      one->items, i);
	}
}

static void check_letters(void)
{
	uint64_t given = 0, taken = 0, kept = 0, rejected = 0, lost = 0;

	for (const struct sl_meter *meter = sl_sim.rig.shard->meters; meter; meter = meter->next) {
		const struct sl_destination_counters *counters = &meter->counters;

		given += counters->dead_lettered[SL_TRACES];
		lost += counters->lost_letters[SL_TRACES];
		if (meter->name[0] != 'a' + LETTERS)
			continue;
		taken = counters->taken[SL_TRACES];
		kept = counters->delivered[SL_TRACES];
		rejected = counters->rejected[SL_TRACES];
	}
	if (given != taken || kept != sl_sim.letters_kept || lost != rejected)
		sl_sim_broken("dead letters: %llu given, %llu taken; %llu kept, %llu delivered; "
			      "%llu lost, %llu rejected",
			      (unsigned long long)given, (unsigned long long)taken,
			      (unsigned long long)kept, (unsigned long long)sl_sim.letters_kept,
			      (unsigned long long)lost, (unsigned long long)rejected);
}

static void check(void)
{
	uint64_t records = 0, open = 0;

	if (sl_sim.dead)
		return;
	check_letters();
	for (const struct sl_meter *meter = sl_sim.rig.shard->meters; meter; meter = meter->next) {
		check_meter(meter);
		open += meter->counters.breakers[SL_BREAKER_OPEN] +
			meter->counters.breakers[SL_BREAKER_HALF_OPEN];
	}
	for (const struct sl_egress *egress = sl_sim.rig.shard->egresses; egress;
	     egress = egress->next) {
		records += egress->records;
		open -= egress->told > SL_BREAKER_CLOSED;
		if ((egress->told > SL_BREAKER_CLOSED) !=
		    (egress->breaker.state != SL_BREAKER_CLOSED))
			sl_sim_broken("the breaker is not as its metric says");
	}
	if (records != sl_routing_in_flight(sl_sim.rig.shard))
		sl_sim_broken("records in flight");
	if (open)
		sl_sim_broken("breakers that are counted and not there");
	for (unsigned i = 0; i < CALLS; i++) {
		if (sl_sim.ones[i].offered)
			check_one(&sl_sim.ones[i]);
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
	one->first = sl_sim.item_count;
	sl_sim.item_count += one->items;
	assert(sl_sim.item_count <= ITEMS);
	at += sprintf(at, "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[");
	for (uint32_t i = 0; i < one->items; i++) {
		sl_sim.items[one->first + i] = (struct item){.bad = one->bad};
		at += sprintf(at, "%s{\"traceId\":\"%032x\",\"spanId\":\"d51afe77%08x\"}",
			      i ? "," : "", 1 + (unsigned)below(4), one->first + i);
	}
	sprintf(at, "]}]}]}");
	sl_sim.rig.left = one_in(20) ? 1 + below(32 * SL_KIB) : 0; // memory ends somewhere
	offer(&sl_sim.rig, &one->call, kinds[kind].tenant, SL_TRACES, json);
	if (sl_sim.tells)
		printf("%u: %s sends %u from %u on%s: %u\n", sl_sim.step, kinds[kind].tenant,
		       one->items, one->first, one->bad ? " bad" : "", one->call.refused);
}

static void change(void)
{
	if (one_in(15)) {
		struct place *place = &sl_sim.places[below(SL_SIM_PLACES)];

		place->mood = (enum mood)below(MOODS);
		if (sl_sim.tells)
			printf("%u: %u is %u\n", sl_sim.step, place->index, place->mood);
	}
	if (one_in(10)) {
		struct place *place = &sl_sim.places[below(SL_SIM_PLACES)];

		place->generation++;
		place->owners = 1 + (uint32_t)below(4);
	}
}

static void turn(uint64_t ns)
{
	struct rig *rig = &sl_sim.rig;

	rig->now_ns += ns;
	sl_routing_poll(rig->shard, rig->now_ns);
	check();
	sl_sim_disk_run(rig->now_ns);
}

static void step(void)
{
	change();
	for (unsigned i = 0; i < CALLS && one_in(2); i++) {
		struct one *one = &sl_sim.ones[below(CALLS)];

		if (!one->offered || (one->call.released && one->checked))
			send_one(one);
		check();
	}
	turn(one_in(10) ? below(3 * SL_S) : below(30 * SL_MS));
}

// Other settings for one destination: it is closed when what it has in flight has ended.
static void describe(char *yaml, size_t size, const char *elapsed)
{
	char more[SL_SIM_PLACES][128] = {""};

	for (unsigned i = 0; i < SL_SIM_PLACES; i++) {
		char *at = more[i];

		if (i < DESTINATIONS && sl_sim.letters[i])
			at = stpcpy(at, ", dead_letter: d");
		if (sl_sim.spools[i])
			sprintf(at,
				", spool: {path: " SL_SIM_FOLDER
				"/%c, fsync: %s, fsync_interval: 100ms, after: 200ms}",
				'a' + (int)i, sl_sim.fsync);
	}
	snprintf(yaml, size,
		 "acknowledge: %s\n"
		 "destinations:\n"
		 "  a: {blackhole: {}%s, retry: {initial: 10ms, max: 500ms, max_elapsed: 20s}}\n"
		 "  b: {blackhole: {}%s, pinned_bytes: 1MB, retry: {max_elapsed: %s}}\n"
		 "  c: {blackhole: {}%s, retry: {max_elapsed: 2s}}\n"
		 "  d: {blackhole: {}%s, retry: {max_elapsed: 2s}}\n"
		 "  g: {failover: {to: [b, c], after: 300ms, return_after: 500ms}}\n"
		 "routes:\n"
		 "  - {match: {tenant: group}, to: [g]}\n"
		 "  - {match: {tenant: two}, to: [a, b]}\n"
		 "  - {match: {tenant: best}, to: [a, {destination: c, required: false}]}\n"
		 "  - {match: {tenant: only}, to: [{destination: b, required: false}]}\n"
		 "  - {to: [a]}\n",
		 sl_sim.acknowledge, more[0], more[1], elapsed, more[2], more[LETTERS]);
}

static void reload(void)
{
	char yaml[2048];

	describe(yaml, sizeof(yaml), "29s");
	if (!build(&sl_sim.rig, 1, yaml))
		sl_sim_broken("%s", sl_errors_line(sl_sim.rig.errors, 0));
	sl_routing_shard_turn(sl_sim.rig.shard, sl_sim.rig.routing[1], sl_sim.rig.now_ns);
}

// --- processes -----------------------------------------------------------------------------------

static const struct sl_sim_disk_config calm;

static void begin_process(void)
{
	struct rig *rig = &sl_sim.rig;
	char yaml[2048];

	*rig = (struct rig){.now_ns = rig->now_ns, .adjust = sl_sim_adjust};
	sl_sim.dead = false;
	sl_sim.letters_kept = 0;
	memset(sl_sim.ones, 0, sizeof(sl_sim.ones));
	sl_sim_disk_run(rig->now_ns);
	describe(yaml, sizeof(yaml), "30s");
	set_up(rig, yaml);
	sl_random_init(&rig->random, sl_sim.seed + 1 + sl_sim.step);
}

static bool is_behind(void)
{
	const struct sl_egress *egress = sl_sim.rig.shard->egresses;

	while (egress &&
	       !(egress->spill && sl_spool_side_is_behind(*(struct sl_spool_side **)egress->spill)))
		egress = egress->next;
	return egress != NULL;
}

// What is in flight ends by itself: nobody waits longer than the settings say.
static void settle_all(bool spools)
{
	struct rig *rig = &sl_sim.rig;

	for (unsigned i = 0; sl_routing_in_flight(rig->shard) || (spools && is_behind());
	     i++, sl_sim.step++) {
		turn(100 * SL_MS);
		if (i > 5000 || (i > 1000 && !spools))
			sl_sim_broken("%llu records never end%s",
				      (unsigned long long)sl_routing_in_flight(rig->shard),
				      is_behind() ? ", and a spool is not empty" : "");
	}
	for (unsigned i = 0; i < CALLS; i++) {
		const struct call *call = &sl_sim.ones[i].call;

		if (sl_sim.ones[i].offered && (call->settled != 1 || call->released != 1))
			sl_sim_broken("request %u: answered %u times, freed %u times", i,
				      call->settled, call->released);
	}
}

static void end_process(void)
{
	struct rig *rig = &sl_sim.rig;

	for (const struct sl_meter *meter = rig->shard->meters; meter; meter = meter->next) {
		sl_sim.opened += meter->counters.breaker_opened[0];
		sl_sim.merged += meter->counters.merged_records[0];
		sl_sim.apart += meter->counters.taken_apart[0];
		sl_sim.retried += meter->counters.retried_records[0];
		sl_sim.moved += meter->counters.moved[SL_TRACES];
	}
	tear_down(rig);
}

enum crash { STOP, KILL, POWER };

// The process ends in one of these ways, and the next one begins. A dead one is let run out, so
// that its memory is given back; nothing that it does counts.
static void crash(enum crash how)
{
	const struct rig *rig = &sl_sim.rig;

	if (sl_sim.tells)
		printf("%u: the process ends by %u\n", sl_sim.step, how);
	sl_sim.crashes[how]++;
	sl_sim_disk_set(&calm);
	if (how != STOP) {
		sl_sim.dead = true;
		sl_sim_disk_crash();
		sl_sim_spools_restart(how == POWER);
	}
	for (unsigned i = 0; i < SL_SIM_PLACES; i++)
		sl_sim.places[i].mood = GOOD;
	sl_routing_drain(rig->shard);
	settle_all(false);
	end_process();
	if (how == STOP)
		sl_sim_spools_restart(false);
	sl_sim_disk_restart(how == POWER);
	begin_process();
}

static void check_items(void)
{
	sl_sim_spools_check_empty();
	for (uint32_t i = 0; i < sl_sim.item_count; i++) {
		const struct item *item = &sl_sim.items[i];
		const uint8_t there = item->delivered | item->lettered;
		const uint8_t well = there | item->refused | item->excused;

		if (item->refused && !item->bad)
			sl_sim_broken("item %u was refused for good, and was not bad", i);
		if ((item->required & well) != item->required ||
		    (item->group && !(item->group & well)))
			sl_sim_broken("item %u was acknowledged and is lost: %x of %x, %x", i, well,
				      item->required, item->group);
	}
}

static struct sl_sim_disk_config faults(void)
{
	struct sl_sim_disk_config config = {0};

	if (one_in(3))
		return config;
	config.slow = one_in(2) ? 2 + (unsigned)below(20) : 0;
	config.failing = one_in(2) ? 5 + (unsigned)below(100) : 0;
	config.open = one_in(4) ? 5 + (unsigned)below(50) : 0;
	config.bytes_max = one_in(3) ? 2000 + below(40000) : 0;
	config.calls_to_crash = one_in(2) ? 1 + below(3000) : 0;
	return config;
}

static void choose(void)
{
	static const char *const modes[] = {"delivered", "delivered", "queued", "spooled"};
	static const char *const fsyncs[] = {"always", "interval", "never"};
	const struct sl_sim_spool_limits limits = {
		.bytes_max = one_in(2) ? SL_MIB : 4000 + below(60000),
		.segment_bytes = 400 + below(8000),
		.age_max_ns = one_in(5) ? SL_S + below(20 * SL_S) : 0,
		.drops = one_in(4),
	};

	sl_sim.acknowledge = modes[below(SL_COUNT_OF(modes))];
	sl_sim.queued = strcmp(sl_sim.acknowledge, "queued") == 0;
	sl_sim.fsync = fsyncs[below(SL_COUNT_OF(fsyncs))];
	for (unsigned i = 0; i < DESTINATIONS; i++) {
		sl_sim.spools[i] = strcmp(sl_sim.acknowledge, "spooled") == 0 || one_in(2);
		sl_sim.letters[i] = one_in(2);
	}
	sl_sim.spools[LETTERS] = one_in(2);
	sl_sim_spools_init(&limits);
}

static void run(uint64_t seed)
{
	struct sl_sim_disk_config config;
	unsigned turn_at;

	sl_sim.seed = seed;
	sl_sim.step = 0;
	sl_random_init(&sl_sim.random, seed);
	memset(sl_sim.places, 0, sizeof(sl_sim.places));
	sl_sim.item_count = 0;
	for (unsigned i = 0; i < SL_SIM_PLACES; i++)
		sl_sim.places[i] = (struct place){.index = i, .generation = 1, .owners = 2};
	choose();
	config = faults();
	sl_sim_disk_init(seed + 7, &config);
	sl_sim.rig.now_ns = 100 * SL_S;
	begin_process();
	turn_at = (unsigned)below(2 * STEPS);
	for (unsigned i = 0; i < STEPS; i++, sl_sim.step++) {
		if (i == turn_at)
			reload();
		step();
		if (!sl_sim_disk_crashed() && !one_in(150))
			continue;
		crash(sl_sim_disk_crashed() ? (enum crash)(KILL + below(2)) : (enum crash)below(3));
		if (turn_at <= i) // once a process
			turn_at = i + 1 + (unsigned)below(STEPS);
		config = faults();
		sl_sim_disk_set(&config);
	}
	sl_sim_disk_set(&calm);
	for (unsigned i = 0; i < SL_SIM_PLACES; i++)
		sl_sim.places[i].mood = one_in(2) ? GOOD : SLOW;
	if (sl_sim_disk_crashed())
		crash(KILL);
	settle_all(true);
	check_items();
	end_process();
	sl_sim_disk_fini();
}

int main(int argc, char **argv)
{
	const uint64_t number = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
	uint64_t first = 1, last = number;

	if (argc != 3 || (strcmp(argv[1], "--seed") && strcmp(argv[1], "--seeds"))) {
		printf("usage: sim_delivery --seeds COUNT | --seed SEED\n");
		return 2;
	}
	sl_sim.tells = strcmp(argv[1], "--seed") == 0;
	if (sl_sim.tells)
		first = number;
	signal(SIGABRT, on_abort);
	signal(SIGSEGV, on_abort);
	sl_log_set_level(SL_LOG_ERROR + 1);
	for (uint64_t seed = first; seed <= last; seed++)
		run(seed);
	printf("%llu seeds: ends delivered %llu, refused %llu, retryable %llu; retried %llu, "
	       "merged "
	       "%llu, taken apart %llu; breakers opened %llu; items moved %llu, spooled %llu, dead "
	       "letters %llu, in a spool of theirs %llu; entries out of spools %llu\n",
	       (unsigned long long)(last - first + 1), (unsigned long long)sl_sim.ends[0],
	       (unsigned long long)sl_sim.ends[SL_OUTCOME_REJECTED],
	       (unsigned long long)sl_sim.ends[SL_OUTCOME_RETRYABLE],
	       (unsigned long long)sl_sim.retried, (unsigned long long)sl_sim.merged,
	       (unsigned long long)sl_sim.apart, (unsigned long long)sl_sim.opened,
	       (unsigned long long)sl_sim.moved, (unsigned long long)sl_sim.spooled,
	       (unsigned long long)sl_sim.lettered, (unsigned long long)sl_sim.letters_spooled,
	       (unsigned long long)sl_sim_spools_out());
	printf("processes stopped %llu, killed %llu, lost with the power %llu; disk: syncs %llu, "
	       "calls failed %llu, full %llu, writes torn %llu, sectors lost %llu\n",
	       (unsigned long long)sl_sim.crashes[STOP], (unsigned long long)sl_sim.crashes[KILL],
	       (unsigned long long)sl_sim.crashes[POWER],
	       (unsigned long long)sl_sim_disk_figures.syncs,
	       (unsigned long long)sl_sim_disk_figures.failed,
	       (unsigned long long)sl_sim_disk_figures.full,
	       (unsigned long long)sl_sim_disk_figures.torn,
	       (unsigned long long)sl_sim_disk_figures.lost_sectors);
	return !(sl_sim.tells ||
		 (sl_sim.merged && sl_sim.apart && sl_sim.retried && sl_sim.opened &&
		  sl_sim.moved && sl_sim.spooled && sl_sim.lettered && sl_sim.letters_spooled &&
		  sl_sim.crashes[STOP] && sl_sim.crashes[KILL] && sl_sim.crashes[POWER]));
}
