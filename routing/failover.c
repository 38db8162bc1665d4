#include "routing/failover.h"

#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/log.h"
#include "routing/internal.h"

#define SL_COUNTER_STRUCT_ struct sl_failover_counters
SL_COUNTER_ROWS(failover, SL_FAILOVER_COUNTERS)

#define RELAPSES_MAX 5             // the wait is at most 32 times as long
#define LOOK_NS      (100 * SL_MS) // while another than the first is in use, or something fails

// --- the choice ----------------------------------------------------------------------------------

static bool is_bad(const struct sl_failover_member *member, const struct sl_failover_config *config,
		   uint64_t now_ns)
{
	return !member->available ||
	       (member->failing_since_ns && now_ns - member->failing_since_ns >= config->after_ns);
}

static uint64_t wait_ns(const struct sl_failover_choice *choice,
			const struct sl_failover_config *config, uint32_t member)
{
	return config->return_after_ns << choice->relapses[member];
}

static void use(struct sl_failover_choice *choice, uint32_t member, uint64_t now_ns)
{
	choice->current = member;
	choice->used_since_ns = now_ns;
	choice->good_since_ns[member] = 0;
}

// Who takes its place: the first that is good; else the first that can be tried, whatever it did
// when it was in use last; else, unless the one in use has a spool, the first that has. Nobody is
// to be had: it may as well stay.
static uint32_t successor(const struct sl_failover_choice *choice,
			  const struct sl_failover_config *config,
			  const struct sl_failover_member *members, uint64_t now_ns)
{
	uint32_t found = choice->current, spools = choice->current;

	for (uint32_t i = 0; i < choice->count; i++) {
		if (i == choice->current)
			continue;
		if (!is_bad(&members[i], config, now_ns))
			return i;
		if (found == choice->current && members[i].available)
			found = i;
		if (!members[spools].spools)
			spools = members[i].spools ? i : spools;
	}
	return found == choice->current ? spools : found;
}

static bool leave(struct sl_failover_choice *choice, const struct sl_failover_config *config,
		  const struct sl_failover_member *members, uint64_t now_ns)
{
	const uint32_t left = choice->current, to = successor(choice, config, members, now_ns);
	const bool soon = now_ns - choice->used_since_ns < wait_ns(choice, config, left);

	if (to == left)
		return false;
	choice->relapses[left] = soon ? SL_MIN(choice->relapses[left] + 1, (uint32_t)RELAPSES_MAX)
				      : 0;
	choice->good_since_ns[left] = 0;
	use(choice, to, now_ns);
	return true;
}

bool sl_failover_choose(struct sl_failover_choice *choice, const struct sl_failover_config *config,
			const struct sl_failover_member *members, uint64_t now_ns)
{
	struct sl_failover_member current;
	bool gone;

	if (choice->used_since_ns == now_ns)
		return false; // one step at a time, whatever ends meanwhile
	// What failed has no calls any more that could say that it is well: it must be to be had.
	for (uint32_t i = 0; i < choice->count; i++) {
		if (i == choice->current || !members[i].available)
			choice->good_since_ns[i] = 0;
		else if (!choice->good_since_ns[i])
			choice->good_since_ns[i] = now_ns;
	}
	current = members[choice->current];
	// What it did before it was in use is not held against it.
	if (current.failing_since_ns)
		current.failing_since_ns = SL_MAX(current.failing_since_ns, choice->used_since_ns);
	gone = is_bad(&current, config, now_ns);
	for (uint32_t i = 0; i < choice->current; i++) {
		if (!choice->good_since_ns[i] ||
		    now_ns - choice->good_since_ns[i] < wait_ns(choice, config, i))
			continue;
		use(choice, i, now_ns);
		return true;
	}
	return gone && leave(choice, config, members, now_ns);
}

// --- on a shard ----------------------------------------------------------------------------------

struct sl_failover {
	struct sl_failover *next;
	struct sl_routing_shard *shard;
	char name[DESTINATION_NAME_MAX + 1];
	struct sl_failover_config config; // of times only
	struct sl_failover_choice choice;
	bool live; // this turn's snapshot has it
	struct sl_egress *members[SL_FAILOVER_MAX];
	struct sl_failover_counters counters;
};

// The group of that name, made when it is new. NULL when out of memory.
static struct sl_failover *find(struct sl_routing_shard *shard, const char *name)
{
	struct sl_failover *failover = shard->failovers;
	char labels[96];

	while (failover && strcmp(failover->name, name) != 0)
		failover = failover->next;
	if (failover)
		return failover;
	failover = calloc(1, sizeof(*failover));
	if (!failover)
		return NULL;
	failover->shard = shard;
	snprintf(failover->name, sizeof(failover->name), "%s", name);
	snprintf(labels, sizeof(labels), "group=\"%s\"", name);
	if (sl_metrics_add(shard->env.metrics, sl_failover_counter_rows,
			   sl_failover_counter_row_count, &failover->counters,
			   (int)shard->env.shard, labels) < 0) {
		free(failover);
		return NULL;
	}
	failover->next = shard->failovers;
	shard->failovers = failover;
	return failover;
}

static void set_members(struct sl_failover *failover, const struct sl_failover_config *config,
			struct sl_egress *const *members, uint32_t count)
{
	struct sl_failover_choice *choice = &failover->choice;
	const struct sl_egress *current = choice->count ? failover->members[choice->current] : NULL;

	assert(count && count <= SL_FAILOVER_MAX);
	failover->live = true;
	failover->config = *config;
	failover->config.to = (struct sl_list){0}; // goes with the snapshot
	memcpy(failover->members, members, count * sizeof(*members));
	*choice = (struct sl_failover_choice){.count = count,
					      .used_since_ns = failover->shard->now_ns};
	// What was in use stays so: a reload is no reason to go back to what fails.
	for (uint32_t i = 0; i < count; i++) {
		if (members[i] == current)
			choice->current = i;
	}
	sl_gauge(&failover->counters.away[0], choice->current != 0);
}

bool sl_failover_bind(struct sl_routing_shard *shard, const struct sl_routing *routing,
		      uint32_t index)
{
	const struct sl_destination *destination = routing->destinations[index];
	const struct sl_failover_config *config = routing->configs[index].failover;
	struct sl_failover *failover = find(shard, destination->name);
	struct sl_egress *members[SL_FAILOVER_MAX];
	bool whole = failover != NULL;

	for (uint32_t i = 0; i < config->to.count; i++) {
		members[i] = shard->by_index[routing->failovers[index].members[i]];
		whole &= members[i] != NULL;
	}
	if (whole)
		set_members(failover, config, members, (uint32_t)config->to.count);
	shard->failover_by_index[index] = whole ? failover : NULL;
	return whole;
}

void sl_failover_retire_all(struct sl_routing_shard *shard)
{
	for (struct sl_failover *one = shard->failovers; one; one = one->next) {
		one->live = false;
		sl_gauge(&one->counters.away[0], 0);
	}
}

void sl_failover_destroy_all(struct sl_routing_shard *shard)
{
	while (shard->failovers) {
		struct sl_failover *failover = shard->failovers;

		shard->failovers = failover->next;
		sl_metrics_remove(shard->env.metrics, &failover->counters);
		free(failover);
	}
}

static struct sl_failover_member look_at(const struct sl_egress *egress)
{
	const uint64_t now_ns = egress->shard->now_ns;
	struct sl_failover_member member = {
		.available = egress->side && sl_egress_is_available(egress),
		.spools = egress->side && egress->spill,
		.failing_since_ns = egress->failing_since_ns,
	};

	// One that neither takes nor refuses fails, too.
	if (egress->records && !member.failing_since_ns && egress->heard_ns < now_ns)
		member.failing_since_ns = egress->heard_ns;
	return member;
}

static void say(const struct sl_failover *failover, uint32_t from,
		const struct sl_failover_member *was)
{
	const uint32_t to = failover->choice.current;
	const bool bad = is_bad(was, &failover->config, failover->shard->now_ns);

	sl_log(SL_LOG_WARN, "failover", "group=%s shard=%u from=%s to=%s why=%s", failover->name,
	       failover->shard->env.shard, failover->members[from]->destination->name,
	       failover->members[to]->destination->name,
	       !was->available ? "not_available"
	       : bad           ? "fails"
			       : "returns");
}

static void choose(struct sl_failover *failover)
{
	struct sl_failover_choice *choice = &failover->choice;
	struct sl_failover_member members[SL_FAILOVER_MAX];
	const uint32_t was = choice->current;
	struct sl_egress *now;

	for (uint32_t i = 0; i < choice->count; i++)
		members[i] = look_at(failover->members[i]);
	if (SL_LIKELY(!sl_failover_choose(choice, &failover->config, members,
					  failover->shard->now_ns)))
		return;
	now = failover->members[choice->current];
	now->failing_since_ns = 0; // of before: it is tried anew
	sl_count(&failover->counters.switches[0], 1);
	sl_gauge(&failover->counters.away[0], choice->current != 0);
	say(failover, was, &members[was]);
	sl_egress_sweep(failover->members[was]);
}

void sl_failover_choose_all(struct sl_routing_shard *shard)
{
	for (struct sl_failover *one = shard->failovers; one; one = one->next) {
		if (one->live)
			choose(one);
	}
}

struct sl_egress *sl_failover_current(const struct sl_failover *failover)
{
	return failover->live ? failover->members[failover->choice.current] : NULL;
}

uint64_t sl_failover_run(struct sl_routing_shard *shard)
{
	uint64_t due_ns = UINT64_MAX;

	sl_failover_choose_all(shard);
	for (struct sl_failover *one = shard->failovers; one; one = one->next) {
		const struct sl_egress *current = sl_failover_current(one);

		if (current && (one->choice.current || current->records))
			due_ns = shard->now_ns + LOOK_NS;
	}
	return due_ns;
}

bool sl_failover_take(struct sl_record *record)
{
	const struct sl_flow *flow = (struct sl_flow *)record->delivery;
	struct sl_egress *to;

	if (!flow->failover || record->letter || !flow->failover->live)
		return false;
	choose(flow->failover); // it has just failed, or cannot go: by what is so now
	to = sl_failover_current(flow->failover);
	return to && to != record->destination && sl_egress_move(record, to);
}
