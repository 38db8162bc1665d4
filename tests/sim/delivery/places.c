#include "routing/dead_letter.h"
#include "tests/sim/delivery/world.h"

// Destinations that take, refuse, keep waiting and fail as the seed says, and what has become of
// each item there.

// Span ids begin so, and end with the item's number.
#define UID_MARK "\x12\x08\xd5\x1a\xfe\x77"

uint32_t sl_sim_uids(const struct iovec *pieces, uint32_t piece_count, uint32_t *uids)
{
	static uint8_t bytes[SL_MIB];
	const uint8_t *at = bytes, *mark;
	size_t size = 0;
	uint32_t count = 0;

	for (uint32_t i = 0; i < piece_count; i++) {
		memcpy(bytes + size, pieces[i].iov_base, pieces[i].iov_len);
		size += pieces[i].iov_len;
	}
	while ((mark = memmem(at, (size_t)(bytes + size - at), UID_MARK, 6))) {
		uids[count++] = (uint32_t)mark[6] << 24 | (uint32_t)mark[7] << 16 |
				(uint32_t)mark[8] << 8 | mark[9];
		at = mark + 10;
		if (uids[count - 1] >= sl_sim.item_count || count == SL_SIM_UIDS_MAX)
			sl_sim_broken("an item that nobody sent");
	}
	return count;
}

// The items of a record.
static uint32_t items_of(const struct sl_record *record, struct item **items)
{
	static uint32_t uids[SL_SIM_UIDS_MAX];
	const uint32_t count = sl_sim_uids(record->pieces, record->piece_count, uids);

	for (uint32_t i = 0; i < count; i++)
		items[i] = &sl_sim.items[uids[i]];
	return count;
}

static struct item *found[SL_SIM_UIDS_MAX];

static bool is_bad(const struct sl_record *record)
{
	const uint32_t count = items_of(record, found);
	bool bad = false;

	for (uint32_t i = 0; i < count; i++)
		bad |= found[i]->bad;
	return bad;
}

static bool is_replay(const struct sl_record *record)
{
	return ((const struct sl_flow *)record->delivery)->replay;
}

// So many items of a request have reached what counts as safe.
static void confirm(const struct sl_record *record, unsigned index)
{
	struct one *one = record->delivery->part->request->shard;
	uint32_t sum = 0;

	if (is_replay(record)) // its sender was told before
		return;
	one->confirmed[index] += record->items;
	for (unsigned i = 0; i < DESTINATIONS; i++) {
		if (one->confirmed[i] > one->items)
			sl_sim_broken("%u has %u of %u items", i, one->confirmed[i], one->items);
		sum += one->group >> i & 1 ? one->confirmed[i] : 0;
	}
	if (sum > one->items)
		sl_sim_broken("the group has %u of %u items", sum, one->items);
}

// The end of a record that is not merged.
static void note(struct place *place, const struct sl_record *record, enum sl_outcome outcome)
{
	const struct sl_dead_letter *letter = record->letter;
	const unsigned index = letter ? (unsigned)letter->values[3].data[0] - 'a' : place->index;
	const uint32_t count = items_of(record, found);
	const uint8_t bit = (uint8_t)(1U << index);

	if (sl_sim.dead)
		return;
	if ((place->index == LETTERS) != (letter != NULL) || count != record->items)
		sl_sim_broken("%u has what is not its own", place->index);
	if (outcome == SL_OUTCOME_DELIVERED)
		confirm(record, index);
	for (uint32_t i = 0; i < count; i++) {
		if (outcome == SL_OUTCOME_DELIVERED)
			*(letter ? &found[i]->lettered : &found[i]->delivered) |= bit;
		else if (outcome == SL_OUTCOME_REJECTED && (letter || !sl_sim.letters[index]))
			found[i]->refused |= bit;
	}
	if (outcome == SL_OUTCOME_DELIVERED && letter) {
		sl_sim.letters_kept += count;
		sl_sim.lettered += count;
	}
}

void __real_sl_egress_spilled(struct sl_record *record, bool kept);
void __wrap_sl_egress_spilled(struct sl_record *record, bool kept)
{
	const struct sl_egress *egress = record->destination;
	const struct sl_dead_letter *letter = record->letter;
	const unsigned index =
		(unsigned)(letter ? letter->values[3].data[0] : egress->destination->name[0]) - 'a';
	const uint32_t count = items_of(record, found);

	if (sl_sim.tells)
		printf("%u: the spool of %c has %s%u items%s\n", sl_sim.step,
		       egress->destination->name[0], kept ? "" : "no room for ", record->items,
		       letter ? " as a letter" : "");
	if (kept && !sl_sim.dead) {
		confirm(record, index);
		for (uint32_t i = 0; i < count; i++)
			found[i]->spooled |= (uint8_t)(1U << index);
		sl_sim.spooled += count;
		sl_sim.letters_spooled += letter ? count : 0;
	}
	__real_sl_egress_spilled(record, kept);
}

void sl_sim_excuse(unsigned place, uint32_t uid)
{
	sl_sim.items[uid].excused |= (uint8_t)(1U << place);
}

// What lies on the wire is sound, and as many items as it says.
static void check_bytes(const struct sl_record *record)
{
	static uint8_t bytes[SL_MIB];
	const struct sl_view_limits limits = {.items_max = 10000, .depth_max = 64};
	const uint64_t budget_bytes = sl_sim.rig.memory.budget_bytes;
	struct sl_arena arena;
	struct sl_view view;
	size_t at = 0;

	for (uint32_t i = 0; i < record->piece_count; i++) {
		memcpy(bytes + at, record->pieces[i].iov_base, record->pieces[i].iov_len);
		at += record->pieces[i].iov_len;
	}
	if (at != record->bytes)
		sl_sim_broken("%zu bytes, not %llu", at, (unsigned long long)record->bytes);
	sl_sim.rig.memory.budget_bytes = 64 * SL_MIB; // looking is not what memory ends for
	sl_arena_init(&arena, &sl_sim.rig.memory);
	if (sl_view_scan(&view, record->signal, sl_bytes(bytes, at), &limits, &arena, NULL) !=
		    SL_VIEW_OK ||
	    view.item_count != record->items)
		sl_sim_broken("a record of %u items is not", record->items);
	sl_arena_fini(&arena);
	sl_sim.rig.memory.budget_bytes = budget_bytes;
}

static void end(struct place *place, struct sl_record *record)
{
	enum sl_outcome outcome = SL_OUTCOME_DELIVERED;
	uint64_t retry_after_ns = 0;

	check_bytes(record);
	if (place->mood == DOWN || (place->mood == FLAKY && one_in(2))) {
		outcome = SL_OUTCOME_RETRYABLE;
		retry_after_ns = one_in(4) ? below(SL_S) : 0;
	} else if (record->letter ? one_in(20) : is_bad(record)) {
		outcome = SL_OUTCOME_REJECTED;
	}
	sl_sim.ends[outcome]++;
	if (sl_sim.tells)
		printf("%u: %u ends %u items from %u on%s%s%s as %u\n", sl_sim.step, place->index,
		       record->items,
		       items_of(record, found) ? (unsigned)(found[0] - sl_sim.items) : 0,
		       record->members ? " merged" : "",
		       !record->members && is_replay(record) ? " of its spool" : "",
		       record->letter ? " as a letter" : "", outcome);
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
		sl_sim_broken("closed with records");
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
		sl_sim_broken("sent while the breaker is open");
	if (record->owner && !place_owns(side, record->owner))
		sl_sim_broken("sent to an owner of before");
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
	side->held[side->count++].due_ns = sl_sim.rig.now_ns + wait_ns;
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

void sl_sim_adjust(struct sl_routing *routing)
{
	for (uint32_t i = 0; i < routing->destination_count; i++) {
		struct sl_destination *destination = routing->destinations[i];

		if (destination->driver == &place_driver || !destination->driver)
			continue; // shared with the snapshot before; a failover group
		destination->driver = &place_driver;
		destination->self = &sl_sim.places[destination->name[0] - 'a'];
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
