#include <errno.h>
#include <stdlib.h>

#include "dataplane/base/log.h"
#include "routing/dead_letter.h"
#include "routing/internal.h"

// A shard's side: opens and retires destinations with the snapshots, pins bytes, submits records,
// tries again, and keeps the destination's books.

#define STALLED_NS         (10 * SL_S)
#define QUEUE_FULL_WAIT_NS (5 * SL_MS) // a driver that had no room is asked again after it
#define SPOOL_FULL_NS      SL_S        // what a sender is told when not even the disk has room
#define BUDGET_WAIT_NS     (100 * SL_MS)
#define REFUSALS_MAX       4    // a turn: more than one, as the cause may be the record's own
#define OPEN_AGAIN_NS      SL_S // a side that could not be opened is tried again after it

struct sl_routing_shard *sl_routing_shard_create(const struct sl_routing_env *env)
{
	struct sl_routing_shard *self = calloc(1, sizeof(*self));

	if (!self)
		return NULL;
	self->env = *env;
	// Best-effort deliveries pin at most a quarter in all.
	self->best_effort_pinned_max = env->memory->budget_bytes / 4;
	return self;
}

static void close_egress(struct sl_egress *egress)
{
	assert(egress->records == 0 && egress->pinned_bytes == 0);
	sl_breaker_tell(&egress->meter->counters, &egress->told, SL_BREAKER_UNTOLD);
	if (egress->side)
		egress->destination->driver->close(egress->side);
	sl_merger_destroy(egress->merger);
	sl_spill_close(egress);
	sl_by_tenant_fini(&egress->tenant_pinned);
	sl_dead_letter_set(egress, NULL);
	// The last: whoever counts them frees the destination, and its spool with it.
	__atomic_sub_fetch(&egress->destination->sides, 1, __ATOMIC_ACQ_REL);
	free(egress);
}

// Opens the driver's side; without one nothing can be pinned, so the destination is as if full.
static void open_side(struct sl_egress *egress)
{
	const struct sl_routing_env *env = &egress->shard->env;
	const struct sl_driver_env driver = {
		.shard = env->shard,
		.shards = env->shards,
		.memory = env->memory,
		.timers = env->timers,
		.waker = env->waker,
		.io = env->io,
		.codec = env->codec,
		.random = env->random,
		.metrics = env->metrics,
		.counters = &egress->meter->counters,
		.now_ns = egress->shard->now_ns,
	};
	struct sl_destination *destination = egress->destination;

	if (destination->merge.requests && !egress->merger)
		egress->merger = sl_merger_create();
	if (destination->spool && !egress->spill)
		egress->spill = sl_spill_open(destination, env->waker);
	if ((egress->merger || !destination->merge.requests) &&
	    (egress->spill || !destination->spool))
		egress->side = destination->driver->open(destination->self, &driver);
	if (egress->side)
		return;
	egress->open_due_ns = egress->shard->now_ns + OPEN_AGAIN_NS;
	sl_log(SL_LOG_ERROR, "destination_not_opened", "destination=%s shard=%u", destination->name,
	       env->shard);
}

static struct sl_egress *make_egress(struct sl_routing_shard *self,
				     struct sl_destination *destination)
{
	struct sl_egress *egress = calloc(1, sizeof(*egress));
	struct sl_meter *meter = sl_meter_of(self, destination->name);

	if (!egress || !meter || sl_by_tenant_init(&egress->tenant_pinned, sizeof(uint64_t))) {
		free(egress);
		return NULL;
	}
	egress->shard = self;
	egress->destination = destination;
	egress->meter = meter;
	egress->waiting_last = &egress->waiting;
	egress->waiting_due_ns = UINT64_MAX;
	egress->heard_ns = self->now_ns;
	sl_lanes_init(&egress->lanes);
	egress->ask_due_ns = egress->expire_due_ns = UINT64_MAX;
	sl_breaker_init(&egress->breaker, &destination->breaker);
	egress->told = SL_BREAKER_UNTOLD;
	sl_retry_budget_init(&egress->budget, self->now_ns);
	open_side(egress);
	__atomic_add_fetch(&destination->sides, 1, __ATOMIC_ACQ_REL);
	egress->next = self->egresses;
	self->egresses = egress;
	return egress;
}

// Half of the budget for one destination; several share three quarters of it, so that all of them
// dead still leave room for the bodies of what is healthy.
static void set_caps(struct sl_egress *egress, uint32_t destinations)
{
	const struct sl_routing_env *env = &egress->shard->env;
	const struct sl_destination *destination = egress->destination;
	const uint64_t budget = env->memory->budget_bytes;
	const uint64_t share = SL_MIN(budget / 2, budget * 3 / 4 / SL_MAX(destinations, 1));

	egress->pinned_bytes_max = destination->pinned_bytes_max
					   ? destination->pinned_bytes_max / env->shards
					   : share;
	egress->tenant_bytes_max = (uint64_t)((double)egress->pinned_bytes_max *
					      destination->tenant_share);
}

static struct sl_egress *find_egress(struct sl_routing_shard *self,
				     const struct sl_destination *destination)
{
	struct sl_egress *egress = self->egresses;

	while (egress && egress->destination != destination)
		egress = egress->next;
	return egress;
}

// Without memory for a destination, or for all, parts that go there are refused, and the next turn
// tries again.
void sl_routing_shard_turn(struct sl_routing_shard *self, const struct sl_routing *routing,
			   uint64_t now_ns)
{
	bool whole = true;

	self->now_ns = now_ns;
	self->routing = routing;
	if (SL_LIKELY(self->generation == routing->generation))
		return;
	free(self->by_index); // the ids in it are another snapshot's
	free(self->failover_by_index);
	self->by_index = calloc(routing->destination_count + 1, sizeof(struct sl_egress *));
	self->failover_by_index = calloc(routing->destination_count + 1,
					 sizeof(struct sl_failover *));
	if (!self->by_index || !self->failover_by_index) {
		free(self->by_index);
		self->by_index = NULL;
		return;
	}
	sl_failover_retire_all(self);
	for (struct sl_egress *egress = self->egresses; egress; egress = egress->next)
		egress->retired = true;
	for (uint32_t i = 0; i < routing->destination_count; i++) {
		struct sl_egress *egress;

		if (!routing->destinations[i]->driver)
			continue; // a failover group
		egress = find_egress(self, routing->destinations[i]);
		if (!egress)
			egress = make_egress(self, routing->destinations[i]);
		self->by_index[i] = egress;
		if (!egress) {
			whole = false;
			continue;
		}
		egress->retired = false;
		set_caps(egress, routing->destination_count - routing->failover_count);
	}
	for (uint32_t i = 0; i < routing->destination_count; i++) {
		if (!routing->destinations[i]->driver)
			whole &= sl_failover_bind(self, routing, i);
	}
	if (!whole)
		return;
	sl_dead_letter_link(self);
	self->generation = routing->generation;
}

void sl_routing_shard_destroy(struct sl_routing_shard *self)
{
	if (!self)
		return;
	assert(self->in_flight == 0);
	for (struct sl_egress *egress = self->egresses; egress; egress = egress->next)
		sl_dead_letter_set(egress, NULL);
	while (self->egresses) {
		struct sl_egress *egress = self->egresses;

		self->egresses = egress->next;
		close_egress(egress);
	}
	sl_meters_free(self);
	sl_timer_cancel(self->env.timers, &self->timer);
	sl_failover_destroy_all(self);
	free(self->failover_by_index);
	free(self->by_index);
	free(self);
}

void sl_routing_drain(struct sl_routing_shard *self)
{
	if (!self)
		return;
	self->draining = true;
	for (struct sl_egress *egress = self->egresses; egress; egress = egress->next)
		egress->expire_due_ns = 0; // what came out of spools goes back
}

uint64_t sl_routing_in_flight(const struct sl_routing_shard *self)
{
	return self ? self->in_flight : 0;
}

// --- ends ----------------------------------------------------------------------------------------

void sl_egress_note(const struct sl_egress *egress, const struct sl_flow *flow, enum sl_end end,
		    uint64_t items, uint64_t bytes, uint64_t records)
{
	const struct sl_endings *endings = &egress->shard->env.endings;
	const struct sl_part *part = flow->delivery.part;

	if (!endings->ended)
		return;
	endings->ended(endings->self, &(struct sl_ending){
					      .tenant = part->tenant,
					      .tenant_name = part->tenant_name,
					      .signal = part->request->signal,
					      .end = end,
					      .destination = egress->meter->number,
					      .items = items,
					      .bytes = bytes,
					      .records = records,
				      });
}

static enum sl_end end_of(const struct sl_flow *flow, enum sl_outcome outcome)
{
	switch (outcome) {
	case SL_OUTCOME_DELIVERED:
		return SL_END_DELIVERED;
	case SL_OUTCOME_REJECTED:
		return SL_END_REJECTED;
	case SL_OUTCOME_RETRYABLE:
		return SL_END_RETURNED;
	default:
		if (flow->replay)
			return SL_END_SPOOLED; // put back
		return flow->acknowledged ? SL_END_LOST : SL_END_DROPPED;
	}
}

// The end of a record, booked and passed on; the record may be gone afterwards.
static void leave(struct sl_record *record, enum sl_end end, enum sl_outcome outcome,
		  uint64_t retry_after_ns)
{
	struct sl_flow *flow = (struct sl_flow *)record->delivery;
	struct sl_egress *egress = record->destination;
	struct sl_destination_counters *counters = &egress->meter->counters;
	const bool home = sl_egress_is_home(egress, flow);
	uint64_t *by_end[] = {
		[SL_END_DELIVERED] = counters->delivered,
		[SL_END_REJECTED] = counters->rejected,
		[SL_END_DROPPED] = counters->dropped,
		[SL_END_RETURNED] = counters->returned,
		[SL_END_LOST] = counters->lost,
		[SL_END_SPOOLED] = home ? counters->put_back : counters->spooled,
	};

	assert(egress->records > 0 && egress->shard->in_flight > 0);
	egress->records--;
	egress->shard->in_flight--;
	sl_count(&by_end[end][record->signal], record->items);
	if (end != SL_END_SPOOLED || !home)
		sl_egress_note(egress, flow,
			       record->letter && end == SL_END_DELIVERED ? SL_END_DEAD_LETTERED
									 : end,
			       record->items, record->bytes, 1);
	sl_gauge(&counters->in_flight[record->signal],
		 counters->in_flight[record->signal] - record->items);
	sl_gauge(&counters->records[0], egress->records);
	if (flow->delivery.open_records == 1)
		sl_egress_unpin(flow);
	sl_record_end(record, outcome, retry_after_ns);
}

static void settle(struct sl_record *record, enum sl_outcome outcome, uint64_t retry_after_ns)
{
	const struct sl_flow *flow = (struct sl_flow *)record->delivery;
	struct sl_egress *egress = record->destination;

	if (outcome == SL_OUTCOME_DELIVERED || outcome == SL_OUTCOME_REJECTED) {
		egress->heard_ns = egress->shard->now_ns;
		egress->failing_since_ns = 0;
		if (record->paid)
			sl_retry_budget_add(&egress->budget, SL_RETRY_TOKEN);
	}
	if (outcome == SL_OUTCOME_REJECTED)
		flow->delivery.part->request->denied |= record->denied;
	if (outcome == SL_OUTCOME_REJECTED && sl_dead_letter_take(record))
		return;
	// What came out of a spool goes back into it until the dead letters' place can take it.
	if (outcome == SL_OUTCOME_REJECTED && flow->replay && egress->dead_letter &&
	    !record->letter)
		outcome = SL_OUTCOME_DROPPED;
	if (SL_UNLIKELY(record->letter))
		outcome = sl_dead_letter_end(record, outcome);
	if (outcome == SL_OUTCOME_DELIVERED) {
		sl_count(&egress->meter->counters.delivered_bytes[0], record->bytes);
		sl_histogram_add(&egress->meter->duration, egress->shard->now_ns - flow->began_ns);
	}
	leave(record, end_of(flow, outcome), outcome, retry_after_ns);
}

// Until when a record is tried again: while its sender waits, or for max_elapsed; with a spool for
// a moment only, and what came out of it once.
static uint64_t give_up_ns(const struct sl_record *record)
{
	const struct sl_flow *flow = (struct sl_flow *)record->delivery;
	const struct sl_egress *egress = record->destination;
	const uint64_t until_ns = flow->waits
					  ? flow->delivery.part->request->answer_by_ns
					  : flow->began_ns +
						    flow->egress->destination->retry.max_elapsed_ns;

	if (SL_LIKELY(!egress->spill))
		return until_ns;
	return flow->replay
		       ? 0
		       : SL_MIN(until_ns, flow->began_ns + egress->destination->spooling.after_ns);
}

// Until when it waits for the driver to have room. What came out of a spool goes back only if
// nothing moves there: a destination that is busy is none that fails.
static uint64_t give_up_room_ns(const struct sl_record *record)
{
	const struct sl_flow *flow = (struct sl_flow *)record->delivery;
	const struct sl_egress *egress = record->destination;

	if (SL_LIKELY(!flow->replay))
		return give_up_ns(record);
	if (egress->shard->draining || egress->failing_since_ns)
		return 0;
	return SL_MAX(flow->began_ns, egress->heard_ns) + STALLED_NS;
}

// For good, as nothing else is left to try.
static void return_or_drop(struct sl_record *record, uint64_t retry_after_ns)
{
	const struct sl_flow *flow = (struct sl_flow *)record->delivery;

	settle(record, flow->waits ? SL_OUTCOME_RETRYABLE : SL_OUTCOME_DROPPED, retry_after_ns);
}

static void give_up(struct sl_record *record, uint64_t retry_after_ns)
{
	if (!sl_spill(record, "not delivered in time"))
		return_or_drop(record, retry_after_ns);
}

void sl_egress_spilled(struct sl_record *record, bool kept)
{
	if (!kept) {
		return_or_drop(record, SPOOL_FULL_NS);
		return;
	}
	if (SL_UNLIKELY(record->letter))
		sl_dead_letter_end(record, SL_OUTCOME_DELIVERED);
	leave(record, SL_END_SPOOLED, SL_OUTCOME_DELIVERED, 0);
}

void sl_egress_wait(struct sl_egress *egress, struct sl_record *record, uint64_t wait_ns)
{
	struct sl_routing_shard *self = egress->shard;

	record->due_ns = self->now_ns + wait_ns;
	record->next = NULL;
	*egress->waiting_last = record;
	egress->waiting_last = &record->next;
	egress->waiting_due_ns = SL_MIN(egress->waiting_due_ns, record->due_ns);
}

// The wait before the next attempt: exponential, its upper half random.
static uint64_t backoff_ns(const struct sl_egress *egress, uint32_t attempts)
{
	const struct sl_retry_config *retry = &egress->destination->retry;
	double wait = (double)retry->initial_ns;

	for (uint32_t i = 0; i < attempts && wait < (double)retry->max_ns; i++)
		wait *= retry->multiplier;

	const uint64_t whole = (uint64_t)SL_MIN(wait, (double)retry->max_ns);

	return whole / 2 + sl_random_below(egress->shard->env.random, whole / 2 + 1);
}

static void retry(struct sl_egress *egress, struct sl_record *record, uint64_t wait_ns,
		  uint64_t retry_after_ns)
{
	if (sl_failover_take(record))
		return;
	if (egress->shard->now_ns + wait_ns >= give_up_ns(record)) {
		give_up(record, retry_after_ns);
		return;
	}
	record->attempts++;
	record->paid = false;
	sl_count(&egress->meter->counters.retried_records[0], 1);
	sl_egress_wait(egress, record, wait_ns);
}

// Each member has the end that it would have had alone. A refusal for good may be the fault of one
// of them: they are sent alone before anything is called permanent.
static void end_merged(struct sl_record *merged, enum sl_outcome outcome, uint64_t retry_after_ns)
{
	struct sl_egress *egress = merged->destination;
	struct sl_record *member = sl_merged_open(merged), *next;
	uint64_t wait_ns = 0;

	if (outcome == SL_OUTCOME_REJECTED)
		sl_count(&egress->meter->counters.taken_apart[0], 1);
	if (outcome == SL_OUTCOME_RETRYABLE) // one wait, so that they can go together again
		wait_ns = SL_MAX(backoff_ns(egress, member->attempts), retry_after_ns);
	for (; member; member = next) {
		next = member->next;
		if (outcome == SL_OUTCOME_REJECTED) {
			member->alone = true;
			sl_egress_wait(egress, member, 0);
		} else if (outcome == SL_OUTCOME_RETRYABLE) {
			retry(egress, member, wait_ns, retry_after_ns);
		} else {
			settle(member, outcome, retry_after_ns);
		}
	}
}

static void hear(struct sl_egress *egress, bool failed)
{
	struct sl_destination_counters *counters = &egress->meter->counters;

	if (SL_LIKELY(!sl_breaker_heard(&egress->breaker, failed, egress->shard->now_ns)))
		return;
	sl_count(&counters->breaker_opened[0], failed);
	sl_breaker_tell(counters, &egress->told, (int)egress->breaker.state);
	sl_log(SL_LOG_WARN, failed ? "breaker_open" : "breaker_closed", "destination=%s shard=%u",
	       egress->destination->name, egress->shard->env.shard);
}

void sl_egress_end(struct sl_record *record, enum sl_outcome outcome, uint64_t retry_after_ns)
{
	struct sl_egress *egress = record->destination;

	// Who says when to come again is there.
	hear(egress, outcome == SL_OUTCOME_RETRYABLE && !retry_after_ns);
	if (outcome == SL_OUTCOME_RETRYABLE && !egress->failing_since_ns) {
		egress->failing_since_ns = egress->shard->now_ns;
		egress->expire_due_ns = 0; // what came out of a spool goes back
	}
	if (record->members)
		end_merged(record, outcome, retry_after_ns);
	else if (outcome == SL_OUTCOME_RETRYABLE)
		retry(egress, record, SL_MAX(backoff_ns(egress, record->attempts), retry_after_ns),
		      retry_after_ns);
	else
		settle(record, outcome, retry_after_ns);
}

uint64_t sl_egress_now_ns(const struct sl_record *record)
{
	return ((const struct sl_egress *)record->destination)->shard->now_ns;
}

// Whose items they were cannot be told: the senders are told that some were (items 7 and 8).
static void warn_members(const struct sl_record *merged, uint32_t items)
{
	const struct sl_egress *egress = merged->destination;

	sl_log(SL_LOG_WARN, "merged_partial_success", "destination=%s items=%u of=%u",
	       egress->destination->name, items, merged->items);
	for (struct sl_record *member = merged->members; member; member = member->next) {
		struct sl_request *request = member->delivery->part->request;

		if (!request->message.size)
			request->message = SL_LITERAL(
				"An upstream refused some items of a call that carried this "
				"request with others.");
	}
}

void sl_egress_partial(const struct sl_record *record, uint64_t rejected_items)
{
	const struct sl_egress *egress = record->destination;
	const uint32_t items = (uint32_t)SL_MIN(rejected_items, (uint64_t)record->items);

	sl_count(&egress->meter->counters.partial[record->signal], items);
	if (!record->members)
		record->delivery->rejected_items += items;
	else if (items)
		warn_members(record, items);
}

// A record, or a merged one's members, that cannot go now. Who waits longer than its sender will
// is given back at once.
static void put_off(struct sl_egress *egress, struct sl_record *record, uint64_t wait_ns)
{
	struct sl_record *next;

	for (record = record->members ? sl_merged_open(record) : record; record; record = next) {
		next = record->next;
		if (sl_failover_take(record))
			continue;
		if (egress->shard->now_ns + wait_ns >= give_up_ns(record))
			give_up(record, wait_ns);
		else
			sl_egress_wait(egress, record, wait_ns);
	}
}

void sl_egress_line_up(struct sl_egress *egress, struct sl_record *record)
{
	const struct sl_flow *flow = (struct sl_flow *)record->delivery;

	// One owner that has no room must not stand before the others of its tenant.
	sl_lanes_push(&egress->lanes, flow->tenant + (record->owner & 0xff) * 7, record);
}

// Into its tenant's lane, until the driver has room.
static void line_up(struct sl_egress *egress, struct sl_record *record)
{
	sl_egress_line_up(egress, record);
	egress->ask_due_ns = SL_MIN(egress->ask_due_ns, egress->shard->now_ns + QUEUE_FULL_WAIT_NS);
	egress->expire_due_ns = SL_MIN(egress->expire_due_ns, give_up_room_ns(record));
}

enum verdict { TAKEN, HELD, REFUSED, FULL };

// How long it shall be spared; 0: not.
static uint64_t spared_ns(struct sl_egress *egress)
{
	const uint64_t now_ns = egress->shard->now_ns;
	const struct sl_driver *driver = egress->destination->driver;
	struct sl_breaker *breaker = &egress->breaker;
	uint64_t until_ns;

	if (driver->until) {
		until_ns = driver->until(egress->side, now_ns);
		return until_ns ? SL_MAX(until_ns - now_ns, SL_MS) : 0;
	}
	if (SL_LIKELY(sl_breaker_lets(breaker, now_ns)))
		return 0;
	return breaker->state == SL_BREAKER_OPEN ? breaker->until_ns - now_ns : QUEUE_FULL_WAIT_NS;
}

bool sl_egress_is_available(const struct sl_egress *egress)
{
	const uint64_t now_ns = egress->shard->now_ns;
	const struct sl_driver *driver = egress->destination->driver;

	if (driver->until)
		return driver->until(egress->side, now_ns) == 0;
	return egress->breaker.state != SL_BREAKER_OPEN || now_ns >= egress->breaker.until_ns;
}

// Offers to the driver; what is to be spared waits, what it has no room for is untouched.
static enum verdict try_driver(struct sl_egress *egress, struct sl_record *record)
{
	struct sl_breaker *breaker = &egress->breaker;
	const uint64_t wait_ns = spared_ns(egress);
	enum sl_reason reason;

	if (SL_UNLIKELY(wait_ns)) {
		put_off(egress, record, wait_ns);
		return HELD;
	}
	if (SL_UNLIKELY(record->owner) && sl_egress_deal(egress, record))
		return HELD;
	sl_breaker_sent(breaker);
	reason = egress->destination->driver->submit(egress->side, record);
	if (reason == SL_REASON_NONE)
		return TAKEN;
	sl_breaker_unsent(breaker);
	return reason == SL_REASON_EGRESS_FULL ? FULL : REFUSED;
}

void sl_egress_offer(struct sl_egress *egress, struct sl_record *record)
{
	const enum verdict verdict = try_driver(egress, record);
	struct sl_record *next;

	if (verdict < REFUSED)
		return;
	egress->refusals += verdict == FULL ? REFUSALS_MAX : 1;
	for (record = record->members ? sl_merged_open(record) : record; record; record = next) {
		next = record->next;
		line_up(egress, record);
	}
}

// Whether a record may be tried again as the budget has it.
static bool pay(struct sl_egress *egress, struct sl_record *record)
{
	if (!record->attempts || record->paid)
		return true;
	record->paid = sl_retry_budget_spend(&egress->budget, egress->shard->now_ns);
	sl_count(&egress->meter->counters.held_retries[0], !record->paid);
	return record->paid;
}

static bool merges(struct sl_egress *egress, struct sl_record *record)
{
	record->next = NULL;
	return egress->merger && !record->alone && sl_merger_take(egress, record);
}

// Behind what waits for room already, or nobody would ever get his turn.
void sl_egress_again(struct sl_egress *egress, struct sl_record *record)
{
	if (SL_UNLIKELY(egress->spill != NULL) && sl_spill_first(record))
		return;
	if (egress->lanes.count)
		line_up(egress, record);
	else if (!merges(egress, record))
		sl_egress_offer(egress, record);
}

void sl_egress_submit(struct sl_flow *flow)
{
	struct sl_egress *egress = flow->egress;
	struct sl_destination_counters *counters = &egress->meter->counters;
	struct sl_record *record = flow->records, *next;

	sl_request_hold(flow->delivery.part->request, flow->waits);
	egress->records += flow->delivery.open_records;
	sl_retry_budget_add(&egress->budget,
			    (uint64_t)(egress->destination->retry.budget * SL_RETRY_TOKEN) *
				    flow->delivery.open_records);
	egress->shard->in_flight += flow->delivery.open_records;
	sl_gauge(&counters->records[0], egress->records);
	sl_gauge(&counters->in_flight[record->signal],
		 counters->in_flight[record->signal] + flow->delivery.items);
	for (; record; record = next) {
		next = record->next;
		sl_egress_again(egress, record);
	}
}

// --- the turn ------------------------------------------------------------------------------------

static void run_waiting(struct sl_egress *egress, uint64_t now_ns)
{
	struct sl_record *record = egress->waiting, *next;

	egress->waiting = NULL;
	egress->waiting_last = &egress->waiting;
	egress->waiting_due_ns = UINT64_MAX;
	for (; record; record = next) {
		next = record->next;
		if (now_ns >= give_up_ns(record))
			give_up(record, 0);
		else if (now_ns < record->due_ns)
			sl_egress_wait(egress, record, record->due_ns - now_ns);
		else if (!pay(egress, record))
			sl_egress_wait(egress, record, BUDGET_WAIT_NS);
		else
			sl_egress_again(egress, record);
	}
}

static void expire(struct sl_egress *egress, uint64_t now_ns)
{
	struct sl_record *record = sl_lanes_take_all(&egress->lanes), *next;

	egress->expire_due_ns = UINT64_MAX;
	for (; record; record = next) {
		next = record->next;
		if (now_ns >= give_up_room_ns(record))
			give_up(record, 0);
		else
			line_up(egress, record);
	}
}

// Serves the lanes until the driver is full, or has said no a few times; to one record once.
static void run_lanes(struct sl_egress *egress, uint64_t now_ns)
{
	const struct sl_record *returned[REFUSALS_MAX] = {0};
	struct sl_record *record;
	enum verdict verdict;
	unsigned count = 0; // of them; merging spends refusals too

	if (now_ns >= egress->expire_due_ns)
		expire(egress, now_ns);
	if (now_ns < egress->ask_due_ns)
		return;
	egress->refusals = 0;
	while (egress->refusals < REFUSALS_MAX && (record = sl_lanes_pop(&egress->lanes))) {
		bool again = false;

		for (unsigned i = 0; i < count; i++)
			again |= returned[i] == record;
		if (again) {
			sl_lanes_return(&egress->lanes, record);
			break;
		}
		verdict = merges(egress, record) ? TAKEN : try_driver(egress, record);
		if (verdict < REFUSED)
			continue;
		if (verdict == FULL) {
			sl_lanes_put_back(&egress->lanes, record); // its turn comes again
			break;
		}
		egress->refusals++;
		returned[count++] = record;
		sl_lanes_return(&egress->lanes, record);
	}
	egress->ask_due_ns = egress->lanes.count ? now_ns + QUEUE_FULL_WAIT_NS : UINT64_MAX;
	if (!egress->lanes.count)
		egress->expire_due_ns = UINT64_MAX;
}

// A destination that neither takes nor refuses shows before its senders' answers are due, and when
// nobody waits for one.
static void look_for_stall(struct sl_egress *egress, uint64_t now_ns)
{
	bool stalled;

	if (!egress->records)
		egress->heard_ns = now_ns;
	stalled = now_ns - egress->heard_ns >= STALLED_NS;
	if (SL_LIKELY(stalled == egress->stalled))
		return;
	egress->stalled = stalled;
	sl_count(&egress->meter->counters.stalled[0], stalled ? 1 : UINT64_MAX);
	sl_log(SL_LOG_WARN, stalled ? "destination_stalled" : "destination_stall_over",
	       "destination=%s shard=%u records=%llu", egress->destination->name,
	       egress->shard->env.shard, (unsigned long long)egress->records);
}

// An open breaker shows as half open in time, whether or not anything waits for it. Returns when.
static uint64_t look_at_breaker(struct sl_egress *egress, uint64_t now_ns)
{
	if (SL_LIKELY(!egress->destination->breaker.failures))
		return UINT64_MAX;
	sl_breaker_tell(&egress->meter->counters, &egress->told,
			(int)sl_breaker_now(&egress->breaker, now_ns));
	return sl_breaker_due_ns(&egress->breaker);
}

static void nothing(struct sl_timer *timer, uint64_t now_ns)
{
	(void)timer, (void)now_ns;
}

void sl_routing_poll(struct sl_routing_shard *self, uint64_t now_ns)
{
	uint64_t due_ns = UINT64_MAX;

	self->now_ns = now_ns;
	for (struct sl_egress **link = &self->egresses, *egress; (egress = *link);) {
		if (now_ns >= egress->waiting_due_ns)
			run_waiting(egress, now_ns);
		run_lanes(egress, now_ns);
		if (egress->merger && egress->side)
			due_ns = SL_MIN(due_ns, sl_merger_run(egress));
		if (SL_LIKELY(egress->side))
			egress->destination->driver->poll(egress->side, now_ns);
		else if (now_ns >= egress->open_due_ns)
			open_side(egress);
		if (SL_UNLIKELY(egress->spill != NULL))
			sl_spill_poll(egress);
		look_for_stall(egress, now_ns);
		due_ns = SL_MIN(due_ns, look_at_breaker(egress, now_ns));
		if (SL_UNLIKELY(egress->retired && !egress->records && !egress->pinned_bytes &&
				!egress->dead_letter_of)) {
			*link = egress->next;
			close_egress(egress);
			continue;
		}
		due_ns = SL_MIN(due_ns, SL_MIN(egress->waiting_due_ns, egress->ask_due_ns));
		link = &egress->next;
	}
	due_ns = SL_MIN(due_ns, sl_failover_run(self));
	if (due_ns == UINT64_MAX)
		return;
	self->timer.fire = nothing;
	sl_timer_set(self->env.timers, &self->timer, due_ns);
}
