#include "routing/spool/spool.h"

#include <stdlib.h>

#include "routing/dead_letter.h"
#include "routing/internal.h"

// A shard's way to and from its destinations' spools. What goes to disk ends for its sender when
// the spool has confirmed it; what comes back from disk is a record like others, of a request of
// its own that nobody waits for.

#define NEWS_NS (100 * SL_MS)

static_assert(SL_KEY_MAX <= SL_SPOOL_TEXT_MAX && SL_TENANT_NAME_MAX <= SL_SPOOL_TEXT_MAX,
	      "the spool keeps them whole");

struct replay {
	struct sl_request request; // first: `released` is told of it
	struct sl_flow flow;
	struct sl_record record;
	struct iovec piece;
	struct sl_dead_letter letter; // of one that was kept there as such
	struct sl_spool_replay *from;
};

struct sl_spill {
	struct sl_spool_side *side;
	uint64_t news_due_ns;
	bool teller;
};

struct sl_spill *sl_spill_open(const struct sl_destination *destination, struct sl_waker *waker)
{
	struct sl_spill *spill = calloc(1, sizeof(*spill));

	if (!spill)
		return NULL;
	spill->side = sl_spool_side_open(destination->spool, waker);
	if (!spill->side) {
		free(spill);
		return NULL;
	}
	// Only now: a snapshot with this destination has been published.
	sl_spool_configure(destination->spool, &destination->spooling);
	return spill;
}

static void set_gauges(struct sl_egress *egress, const struct sl_spool_news *news)
{
	struct sl_destination_counters *counters = &egress->meter->counters;

	sl_gauge(&counters->spool_bytes[0], news->bytes);
	sl_gauge(&counters->spool_age[0], news->age_ns / SL_S);
	sl_gauge(&counters->spool_unread[0], news->aside);
	sl_gauge(&counters->spool_refusing[0], news->refusing);
	for (unsigned i = 0; i < SL_SIGNALS; i++)
		sl_gauge(&counters->spool_items[i], news->items[i]);
}

void sl_spill_close(struct sl_egress *egress)
{
	const struct sl_spool_news none = {0};

	if (!egress->spill)
		return;
	if (egress->spill->teller)
		set_gauges(egress, &none);
	sl_spool_side_close(egress->spill->side);
	free(egress->spill);
}

bool sl_spill(struct sl_record *record, const char *cause)
{
	const struct sl_flow *flow = (struct sl_flow *)record->delivery;
	struct sl_egress *egress = record->destination;
	const size_t front = record->letter ? record->letter->wire.size : 0;
	// A letter may have been acknowledged and on the disk: it leaves that for no less.
	const bool sync = front || egress->shard->routing->acknowledge == SL_ACKNOWLEDGE_SPOOLED;

	if (!egress->spill || sl_egress_is_home(egress, flow) ||
	    !sl_spool_fits(egress->destination->spooling.bytes_max, front + record->bytes))
		return false;
	if (record->owner && !record->key.data)
		sl_record_key(record);
	return sl_spool_side_take(egress->spill->side, record, sync, cause, egress->shard->now_ns);
}

bool sl_spill_first(struct sl_record *record)
{
	const struct sl_flow *flow = (struct sl_flow *)record->delivery;
	struct sl_egress *egress = record->destination;
	const bool to_disk = flow->to_disk && !record->letter;
	bool must;

	if (sl_egress_is_home(egress, flow))
		return false;
	// Of a letter, what its flow has to do was of the destination that refused it.
	must = to_disk || sl_spool_side_is_behind(egress->spill->side);
	if (!must && (record->letter || !flow->waits ||
		      egress->shard->routing->acknowledge != SL_ACKNOWLEDGE_SPOOLED))
		return false;
	if (sl_spill(record, to_disk ? "above the cap of pinned bytes" : NULL))
		return true;
	// It neither passes what waits on the disk nor waits for what fails; a letter may, as it
	// would be lost.
	must &= !record->letter;
	if (must)
		sl_egress_spilled(record, false);
	return must;
}

// --- replays -------------------------------------------------------------------------------------

// Given back then, a replay says nothing of the destination.
static bool is_going(const struct sl_egress *egress)
{
	return egress->retired || egress->shard->draining;
}

static void released(struct sl_request *request)
{
	struct replay *replay = (struct replay *)request;
	const struct sl_egress *egress = replay->flow.egress;
	const struct sl_routing_env *env = &egress->shard->env;
	const enum sl_outcome outcome = replay->flow.delivery.worst;

	sl_spool_side_end(replay->from,
			  outcome == SL_OUTCOME_DELIVERED || outcome == SL_OUTCOME_REJECTED
				  ? SL_SPOOL_END_GONE
			  : is_going(egress) ? SL_SPOOL_END_UNTRIED
					     : SL_SPOOL_END_FAILED);
	if (env->tenant_of)
		env->give_request(env->tenants, request->tenants_phase);
	sl_arena_fini(&request->arena);
	free(replay);
}

static const struct sl_request_owner owner = {.released = released};

static void fill(struct replay *replay, struct sl_egress *egress)
{
	const struct sl_spool_read *read = replay->from->read;
	const struct sl_routing_env *env = &egress->shard->env;
	struct sl_request *request = &replay->request;
	size_t front = 0;

	request->owner = &owner;
	request->signal = read->entry.signal;
	request->tenant_name = read->entry.tenant;
	request->tenants_phase = env->tenant_of ? env->take_request(env->tenants) : 0;
	request->tenant = env->tenant_of ? env->tenant_of(env->tenants, &request->tenant_name)
					 : SL_TENANT_NONE;
	request->first_part.tenant = request->tenant;
	request->first_part.tenant_name = request->tenant_name;
	request->parts = &request->first_part;
	request->part_count = 1;
	request->first_part.request = request;
	sl_arena_init(&request->arena, env->memory);
	if (read->entry.letter) // its texts stay in what was read
		front = sl_dead_letter_read(read->body, replay->letter.values);
	replay->letter.wire = sl_bytes(read->body.data, front);
	replay->piece = (struct iovec){(void *)(uintptr_t)(read->body.data + front),
				       read->body.size - front};
	replay->flow = (struct sl_flow){
		.delivery = {.part = &request->first_part,
			     .items = read->entry.items,
			     .open_records = 1},
		.egress = egress,
		.tenant = request->tenant,
		.records = &replay->record,
		.began_ns = egress->shard->now_ns,
		.best_effort = true,
		.replay = true,
	};
	replay->record = (struct sl_record){
		.destination = egress,
		.delivery = &replay->flow.delivery,
		.arena = &request->arena,
		.alone = true,
		.key = read->entry.key,
		.pieces = &replay->piece,
		.piece_count = 1,
		.items = read->entry.items,
		.bytes = read->body.size - front,
		.letter = front ? &replay->letter : NULL,
		.signal = read->entry.signal,
		.tenant_name = read->entry.tenant,
	};
}

static void start(struct sl_egress *egress, struct sl_spool_replay *from)
{
	// A request of its own for each: there are at most SL_SPOOL_OUT_MAX, and the shard's pool
	// of requests is for those who wait.
	const bool going = is_going(egress);
	struct replay *replay = going || !egress->side ? NULL : calloc(1, sizeof(*replay));

	if (!replay) {
		sl_spool_side_end(from, going ? SL_SPOOL_END_UNTRIED : SL_SPOOL_END_FAILED);
		return;
	}
	replay->from = from;
	fill(replay, egress);
	replay->record.owner = sl_egress_owner(egress, &replay->record);
	sl_count(&egress->meter->counters.unspooled[replay->record.signal], replay->record.items);
	sl_egress_submit(&replay->flow);
}

// --- the turn ------------------------------------------------------------------------------------

static void tell_news(struct sl_egress *egress)
{
	struct sl_destination_counters *counters = &egress->meter->counters;
	struct sl_spill *spill = egress->spill;
	struct sl_spool_news news;

	if (egress->shard->now_ns < spill->news_due_ns)
		return;
	spill->news_due_ns = egress->shard->now_ns + NEWS_NS;
	spill->teller = sl_spool_side_news(spill->side, &news);
	if (!spill->teller)
		return;
	set_gauges(egress, &news);
	sl_count(&counters->spool_damaged[0], news.damaged);
	sl_count(&counters->spool_read_errors[0], news.read_errors);
	for (unsigned i = 0; i < SL_SIGNALS; i++) {
		sl_count(&counters->spool_recovered[i], news.recovered_items[i]);
		sl_count(&counters->spool_dropped[i], news.dropped_items[i]);
	}
}

void sl_spill_poll(struct sl_egress *egress)
{
	struct sl_spool_side *side = egress->spill->side;
	struct sl_spool_replay *replay;
	struct sl_record *record;
	bool kept;

	while ((record = sl_spool_side_confirmed(side, &kept)))
		sl_egress_spilled(record, kept);
	sl_spool_side_retire(side, is_going(egress));
	while ((replay = sl_spool_side_replay(side)))
		start(egress, replay);
	sl_spool_side_flush(side);
	tell_news(egress);
}
