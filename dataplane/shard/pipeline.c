#include <stdio.h>

#include "dataplane/base/log.h"
#include "dataplane/otlp/json.h"
#include "dataplane/shard/internal.h"

// What a turn takes up, about: half a millisecond where tenants compete; a whole turn's reads of
// some connections where there is nobody to wait for.
#define TURN_BYTES       (512 * SL_KIB)
#define TURN_BYTES_ALONE (2 * SL_MIB)
#define SMALL_SHARE      256 // a body below 1/256 of the budget is small
#define JSON_COST        4   // a byte of JSON takes about as long as four of protobuf

// A request's way through its shard: taken when its head arrives, ready when its body has,
// decoded (inflate, JSON, scan), judged as parts by the stages, answered when its required
// deliveries have ended, freed when all have.

static struct sl_request *host_take(void *self)
{
	struct sl_shard *shard = self;
	struct sl_request *request = NULL;

	// Requests that are open but have no body yet count as well.
	if (shard->memory.used_bytes < shard->memory.budget_bytes)
		request = sl_pool_take(&shard->requests);
	if (!request)
		return NULL;
	memset(request, 0, sizeof(*request));
	request->owner = &sl_shard_request_owner;
	request->shard = shard;
	request->tenant = SL_TENANT_NONE;
	request->tenants_phase = sl_tenants_take_request(shard->tenants);
	sl_arena_init(&request->arena, &shard->memory);
	return request;
}

static void host_give(void *self, struct sl_request *request)
{
	struct sl_shard *shard = self;

	assert(!request->held);
	sl_timer_cancel(&shard->timers, &request->timer);
	sl_queues_release(&shard->queues, request);
	if (request->in_flight)
		sl_tenants_give_in_flight(shard->tenants, request->tenant,
					  request->in_flight_bytes);
	sl_tenants_end_parts(shard->tenants, request);
	sl_tenants_give_request(shard->tenants, request->tenants_phase);
	sl_memory_give(&shard->memory, request->inflated_buffer, request->inflated_capacity);
	sl_memory_give(&shard->memory, request->body_buffer, request->body_capacity);
	sl_arena_fini(&request->arena);
	sl_pool_give(&shard->requests, request);
}

static void explain(struct sl_shard *shard, struct sl_request *request, sl_tenant_id tenant,
		    struct sl_bytes name, uint8_t limit)
{
	if (!request->message.size)
		request->message = sl_tenants_explain(shard->tenants, tenant, name, limit,
						      &request->arena);
}

static void explain_cut(struct sl_shard *shard, struct sl_request *request,
			const struct sl_part *part)
{
	if (part->cut_items[SL_CUT_QUOTA] || part->cut_items[SL_CUT_VOLUME])
		explain(shard, request, part->tenant, part->tenant_name, part->limit);
	else if (!request->message.size)
		request->message = part->cut_message;
}

// What of a request that is taken is not: its parts that were refused, what was cut from others,
// and what destinations refused for good.
static void sum_rejected(struct sl_request *request)
{
	struct sl_shard *shard = request->shard;

	for (uint16_t i = 0; i < request->part_count; i++) {
		const struct sl_part *part = &request->parts[i];
		const bool refused = part->reason != SL_REASON_NONE;
		const uint32_t items = refused ? part->offered_items : part->rejected_items;

		request->rejected_items += items;
		if (SL_UNLIKELY(!refused && sl_part_cut_items(part))) {
			request->rejected_items += sl_part_cut_items(part);
			if (request->reason == SL_REASON_NONE)
				explain_cut(shard, request, part);
		}
		if ((items || refused) && !request->message.size)
			request->message = sl_bytes_of(
				sl_reasons[refused ? part->reason : SL_REASON_REJECTED].help);
	}
}

static void answer(struct sl_request *request)
{
	struct sl_shard *shard = request->shard;

	if (request->answered)
		return;
	request->answered = true;
	sum_rejected(request);
	sl_timer_cancel(&shard->timers, &request->timer);
	sl_books_answered(&shard->books, request, shard->now_ns);
	if (request->origin.datagram)
		sl_shard_datagrams_answered(shard, request->reason);
	else
		sl_server_answer(shard->server, request, shard->now_ns);
}

static void settled(struct sl_request *request)
{
	struct sl_shard *shard = request->shard;

	if (request->answered)
		sl_count(&shard->books.counters.late_requests[0], 1);
	answer(request);
}

static void released(struct sl_request *request)
{
	struct sl_shard *shard = request->shard;

	shard->late_requests -= request->late;
	host_give(request->shard, request);
}

const struct sl_request_owner sl_shard_request_owner = {.settled = settled, .released = released};

// Takes a whole request off the shard's own hold: it may be answered and freed here.
static void leave_stages(struct sl_request *request)
{
	if (!request->staged)
		return;
	request->staged = false;
	sl_request_let_go(request, true);
}

// One that a leaky bucket holds does not go on: nobody is charged for it.
static void refuse_held(struct sl_request *request, enum sl_reason reason)
{
	struct sl_shard *shard = request->shard;

	sl_shard_unhold(shard, request);
	for (uint16_t i = 0; i < request->part_count; i++)
		sl_tenants_refund(shard->tenants, &request->parts[i]);
	sl_request_refuse(request, reason, 0);
	leave_stages(request);
}

void sl_shard_refuse_held(struct sl_shard *shard, enum sl_reason reason)
{
	while (shard->held)
		refuse_held(shard->held, reason);
	while (shard->leaving)
		refuse_held(shard->leaving, reason);
}

// The answer's time is over: deliveries go on, what ends later is late.
static void answer_due(struct sl_timer *timer, uint64_t now_ns)
{
	struct sl_request *request = SL_CONTAINER_OF(timer, struct sl_request, timer);

	((struct sl_shard *)request->shard)->now_ns = now_ns;
	if (request->held) {
		refuse_held(request, SL_REASON_TIMED_OUT);
		return;
	}
	sl_log(SL_LOG_WARN, "answer_timed_out", "tenant=%.*s signal=%s waited_ms=%llu items=%u",
	       (int)request->tenant_name.size, request->tenant_name.data,
	       sl_signal_names[request->signal],
	       (unsigned long long)((now_ns - request->received_ns) / SL_MS),
	       request->view.item_count);
	sl_request_refuse(request, SL_REASON_TIMED_OUT, 0);
	request->late = true;
	((struct sl_shard *)request->shard)->late_requests++;
	answer(request);
}

static const struct sl_overload_limits *overload_limits(const struct sl_shard *shard)
{
	return &((const struct sl_server_part *)shard->snapshot->parts[SL_MODULE_SERVER])->overload;
}

static uint32_t rank_of(const struct sl_shard *shard, sl_tenant_id tenant)
{
	struct sl_tenant_info info = {.rank = 0};

	sl_tenants_info(shard->snapshot->parts[SL_MODULE_TENANTS], tenant, &info);
	return info.rank;
}

// Whether the shard has so much to do that it refuses calls of this tenant.
static bool is_overloaded_for(const struct sl_shard *shard, sl_tenant_id tenant)
{
	const struct sl_tenants *tenants = shard->snapshot->parts[SL_MODULE_TENANTS];

	return shard->overload.step &&
	       sl_overload_refuses(&shard->overload, overload_limits(shard),
				   sl_tenants_ranks(tenants), rank_of(shard, tenant));
}

enum sl_reason sl_shard_admit(struct sl_shard *shard, struct sl_request *request,
			      const struct sl_identity *identity, uint64_t bytes,
			      const struct sl_address *peer, bool certified,
			      uint64_t *retry_after_ns)
{
	struct sl_tenant_info info;
	enum sl_reason reason;

	request->tenant = identity->tenant; // also of who is suspended, for the books
	request->tenant_name = identity->name;
	if (identity->reason != SL_REASON_NONE)
		return identity->reason;
	if (SL_UNLIKELY(identity->borrowed)) {
		request->tenant_name = sl_arena_copy(&request->arena, identity->name);
		if (!request->tenant_name.size)
			return SL_REASON_MEMORY_FULL;
	}
	if (SL_UNLIKELY(!identity->by_resource && is_overloaded_for(shard, identity->tenant))) {
		*retry_after_ns = overload_limits(shard)->after_ns;
		return SL_REASON_OVERLOADED;
	}
	// A tenant's own limit, where it is the lower.
	if (sl_tenants_info(shard->snapshot->parts[SL_MODULE_TENANTS], identity->tenant, &info) &&
	    info.body_bytes_max && info.body_bytes_max < request->body_bytes_max)
		request->body_bytes_max = info.body_bytes_max;
	if (identity->by_resource) {
		request->claimant = sl_arena_alloc(&request->arena, sizeof(*request->claimant));
		if (!request->claimant)
			return SL_REASON_MEMORY_FULL;
		*request->claimant = (struct sl_claimant){
			.peer = *peer,
			.certified = certified,
			.otherwise = identity->otherwise,
			.otherwise_name = identity->borrowed ? request->tenant_name : SL_BYTES_NONE,
		};
		return SL_REASON_NONE; // what its tenants may send is judged part by part
	}
	reason = sl_tenants_admit_head(shard->tenants, identity->tenant, request->signal, bytes,
				       retry_after_ns);
	if (reason == SL_REASON_QUOTA_EXCEEDED || reason == SL_REASON_VOLUME_EXCEEDED)
		explain(shard, request, identity->tenant, request->tenant_name,
			sl_tenants_last_limit(shard->tenants));
	return reason;
}

static enum sl_reason host_admit(void *self, struct sl_request *request,
				 const struct sl_http_head *head, const struct sl_address *peer,
				 const char *certificate_name, uint64_t *retry_after_ns)
{
	struct sl_shard *shard = self;
	const struct sl_identity_claim claim = {
		.headers = head->headers,
		.header_count = head->header_count,
		.peer = peer,
		.certificate_name = certificate_name,
	};
	const struct sl_identity identity = sl_tenants_identify(shard->tenants, &claim,
								shard->wall_ns);

	return sl_shard_admit(shard, request, &identity,
			      head->content_length == SL_HTTP_NO_LENGTH ? 0 : head->content_length,
			      peer, certificate_name != NULL, retry_after_ns);
}

static enum sl_reason host_reserve(void *self, struct sl_request *request, uint64_t bytes,
				   uint64_t *retry_after_ns)
{
	struct sl_shard *shard = self;
	uint64_t share_bytes = shard->tenant_share_bytes;
	enum sl_reason reason;

	// A tenant's own slow and large bodies do not lock out its small ones.
	if (bytes <= shard->memory.budget_bytes / SMALL_SHARE)
		share_bytes += share_bytes / 4;
	if (!sl_queues_reserve(&shard->queues, request, bytes, share_bytes))
		return SL_REASON_MEMORY_FULL;
	if (request->claimant)
		return SL_REASON_NONE; // its parts will be
	if (request->in_flight) {
		sl_tenants_give_in_flight(shard->tenants, request->tenant,
					  request->in_flight_bytes);
		request->in_flight = false;
	}
	reason = sl_tenants_take_in_flight(shard->tenants, request->tenant, bytes, retry_after_ns);
	if (reason != SL_REASON_NONE) {
		explain(shard, request, request->tenant, request->tenant_name,
			sl_tenants_last_limit(shard->tenants));
		return reason;
	}
	request->in_flight = true;
	request->in_flight_bytes = bytes;
	return SL_REASON_NONE;
}

static void host_ready(void *self, struct sl_request *request)
{
	struct sl_shard *shard = self;

	sl_queues_push(
		&shard->queues, request,
		sl_tenants_weight(shard->snapshot->parts[SL_MODULE_TENANTS], request->tenant));
}

static void host_abandoned(void *self, struct sl_request *request)
{
	struct sl_shard *shard = self;

	// Nobody waits any more; what was submitted ends as it will.
	(void)request;
	sl_count(&shard->books.counters.abandoned_requests[0], 1);
}

static void host_refused(void *self, const struct sl_request *request, enum sl_reason reason)
{
	struct sl_shard *shard = self;

	sl_ledger_turned_away(shard->books.ledger, request, reason);
}

const struct sl_server_host sl_shard_host = {
	.admit = host_admit,
	.reserve = host_reserve,
	.ready = host_ready,
	.abandoned = host_abandoned,
	.refused = host_refused,
	.take = host_take,
	.give = host_give,
};

static enum sl_reason inflate(struct sl_shard *shard, struct sl_request *request,
			      struct sl_bytes *body)
{
	struct sl_buffer buffer = {0};

	if (request->origin.coding == SL_CODING_IDENTITY) {
		*body = request->received;
		return SL_REASON_NONE;
	}
	switch (sl_codec_inflate(shard->codec, request->origin.coding, request->received,
				 request->body_bytes_max, SL_BODY_SLACK, &buffer)) {
	case SL_CODEC_OK:
		break;
	case SL_CODEC_CORRUPT:
		return SL_REASON_CORRUPT;
	case SL_CODEC_TOO_LARGE:
		return SL_REASON_BODY_TOO_LARGE;
	case SL_CODEC_NO_MEMORY:
		return SL_REASON_MEMORY_FULL;
	}
	request->inflated_buffer = buffer.data;
	request->inflated_capacity = buffer.capacity;
	request->single_member = buffer.single;
	*body = sl_bytes(buffer.data, buffer.size);
	return SL_REASON_NONE;
}

static enum sl_reason transcode(struct sl_request *request, const struct sl_server_limits *limits,
				struct sl_bytes *body)
{
	const struct sl_json_limits json = {
		.depth_max = (uint32_t)limits->json_depth_max,
		.wire_bytes_max = request->body_bytes_max,
		.enum_names = limits->json_enum_names,
	};
	char error[256] = "";
	const struct sl_bytes text = *body;

	switch (sl_json_to_wire(request->signal, text, &json, &request->arena, body, error,
				sizeof(error))) {
	case SL_JSON_OK:
		return SL_REASON_NONE;
	case SL_JSON_MALFORMED:
		request->message = sl_arena_copy(&request->arena, sl_bytes_of(error));
		return SL_REASON_MALFORMED;
	case SL_JSON_TOO_DEEP:
		return SL_REASON_TOO_DEEP;
	case SL_JSON_TOO_LARGE:
		return SL_REASON_BODY_TOO_LARGE;
	case SL_JSON_NO_MEMORY:
		return SL_REASON_MEMORY_FULL;
	}
	return SL_REASON_MALFORMED;
}

static enum sl_reason scan(struct sl_request *request, const struct sl_server_limits *limits,
			   struct sl_bytes body)
{
	const struct sl_view_limits view = {
		.items_max = (uint32_t)limits->items_max,
		.depth_max = (uint32_t)limits->value_depth_max,
	};
	uint32_t error_at = 0;
	char text[96];

	switch (sl_view_scan(&request->view, request->signal, body, &view, &request->arena,
			     &error_at)) {
	case SL_VIEW_OK:
		return SL_REASON_NONE;
	case SL_VIEW_MALFORMED:
		snprintf(text, sizeof(text),
			 "Body does not decode as the export request (near byte %u of %zu).",
			 error_at, body.size);
		request->message = sl_arena_copy(&request->arena, sl_bytes_of(text));
		return SL_REASON_MALFORMED;
	case SL_VIEW_TOO_DEEP:
		return SL_REASON_TOO_DEEP;
	case SL_VIEW_TOO_MANY_ITEMS:
		return SL_REASON_TOO_MANY_ITEMS;
	case SL_VIEW_NO_MEMORY:
		return SL_REASON_MEMORY_FULL;
	}
	return SL_REASON_MALFORMED;
}

static enum sl_reason decode(struct sl_shard *shard, struct sl_request *request)
{
	static const uint8_t nothing[SL_BODY_SLACK] = {0};
	const struct sl_server_part *part = shard->snapshot->parts[SL_MODULE_SERVER];
	struct sl_bytes body;
	enum sl_reason reason;

	if (request->answer_by_ns <= shard->now_ns)
		return SL_REASON_TIMED_OUT;
	reason = inflate(shard, request, &body);
	if (reason == SL_REASON_NONE && request->origin.protocol == SL_PROTOCOL_HTTP_JSON)
		reason = transcode(request, &part->limits, &body);
	if (reason == SL_REASON_NONE) {
		if (!body.data)
			body.data = nothing; // an empty body: legal, no items (item 4)
		reason = scan(request, &part->limits, body);
	}
	if (reason != SL_REASON_NONE)
		request->view.item_count = 0;
	return reason;
}

// Memory was short. A request that by itself has taken half of the budget will not fit another time
// either: telling its sender to come back would only make it come for ever.
static enum sl_reason for_good(const struct sl_shard *shard, struct sl_request *request,
			       enum sl_reason reason)
{
	const uint64_t own = sl_arena_bytes(&request->arena) + request->body_capacity +
			     request->inflated_capacity;

	if (reason != SL_REASON_MEMORY_FULL || own < shard->memory.budget_bytes / 2)
		return reason;
	request->message = SL_LITERAL("The request needs more memory than a shard has: send fewer "
				      "items at a time.");
	return SL_REASON_BODY_TOO_LARGE;
}

// Whether a refused part takes its whole request along: one that may be sent again does, since
// nobody can send a part of it again; but for a tenant over its quota under mixed: partial.
static bool refuses_all(const struct sl_shard *shard, const struct sl_part *part)
{
	const bool over = part->reason == SL_REASON_QUOTA_EXCEEDED ||
			  part->reason == SL_REASON_VOLUME_EXCEEDED ||
			  part->reason == SL_REASON_IN_FLIGHT_EXCEEDED;

	// A seat may come free in an hour, and here only: tenants that have one do not wait for it.
	return sl_reasons[part->reason].retry && part->reason != SL_REASON_TENANTS_FULL &&
	       !(over && sl_tenants_partial(shard->snapshot->parts[SL_MODULE_TENANTS]));
}

// Parts of the request that are in the batch still leave it: what they were charged goes back.
static void withdraw(struct sl_shard *shard, struct sl_batch *batch,
		     const struct sl_request *request)
{
	uint16_t kept = 0;

	for (uint16_t i = 0; i < batch->count; i++) {
		if (batch->parts[i]->request == request)
			sl_tenants_refund(shard->tenants, batch->parts[i]);
		else
			batch->parts[kept++] = batch->parts[i];
	}
	batch->count = kept;
}

static bool goes_on(const struct sl_batch *batch, const struct sl_request *request)
{
	for (uint16_t i = 0; i < batch->count; i++)
		if (batch->parts[i]->request == request)
			return true;
	return false;
}

// Some parts of a request were refused in this stage. Those alone (the answer counts them in
// partial_success), or all of it: for one that refuses all, and when no part is left.
static void settle_request(struct sl_shard *shard, struct sl_batch *batch,
			   struct sl_part *const *refused, uint16_t count)
{
	struct sl_request *request = refused[0]->request;
	bool all = !goes_on(batch, request);

	for (uint16_t i = 0; i < count; i++) {
		sl_tenants_refund(shard->tenants, refused[i]); // a later stage: it was charged
		// As the stage gave it: of what is retryable it has undone the whole request, also
		// where the client is then told not to come again.
		all = all || refuses_all(shard, refused[i]);
		refused[i]->reason = for_good(shard, request, refused[i]->reason);
		if (refused[i]->reason == SL_REASON_QUOTA_EXCEEDED ||
		    refused[i]->reason == SL_REASON_VOLUME_EXCEEDED)
			explain(shard, request, refused[i]->tenant, refused[i]->tenant_name,
				refused[i]->limit);
	}
	if (!all)
		return;
	withdraw(shard, batch, request);
	for (uint16_t i = 0; i < request->part_count; i++) {
		const struct sl_part *part = &request->parts[i];

		if (part->reason != SL_REASON_NONE)
			sl_request_refuse(request, part->reason, part->retry_after_ns);
	}
	leave_stages(request);
}

// A request's parts lie side by side in every batch.
static void settle_refused(struct sl_shard *shard, struct sl_batch *batch)
{
	for (uint16_t i = 0, end; i < batch->refused_count; i = end) {
		end = i + 1;
		while (end < batch->refused_count &&
		       batch->refused[end]->request == batch->refused[i]->request)
			end++;
		settle_request(shard, batch, &batch->refused[i], end - i);
	}
	batch->refused_count = 0;
}

// Takes the requests out of the batch that are to be held: those that the quota has delayed, and
// those of tenants that have others held, which they must not overtake. All parts of one go.
static void hold_delayed(struct sl_shard *shard, struct sl_batch *batch)
{
	uint16_t kept = 0;

	for (uint16_t i = 0, end; i < batch->count; i = end) {
		struct sl_request *request = batch->parts[i]->request;
		uint64_t leaves_ns = sl_queues_held_until(&shard->queues, request->tenant);
		uint64_t delay_ns = 0;

		for (end = i; end < batch->count && batch->parts[end]->request == request; end++)
			delay_ns = SL_MAX(delay_ns, batch->parts[end]->delay_ns);
		leaves_ns = SL_MAX(leaves_ns, shard->now_ns + delay_ns);
		if (leaves_ns > shard->now_ns && sl_shard_hold(shard, request, leaves_ns))
			continue;
		for (; i < end; i++) {
			if (leaves_ns > shard->now_ns)
				sl_batch_refuse(batch, batch->parts[i], SL_REASON_QUOTA_EXCEEDED,
						leaves_ns - shard->now_ns);
			else
				batch->parts[kept++] = batch->parts[i];
		}
	}
	batch->count = kept;
	batch->delayed = false;
}

enum stage { STAGE_QUOTA, STAGE_CARDINALITY, STAGE_SAMPLING, STAGE_ROUTING, STAGES };

static void run_stages(struct sl_shard *shard, struct sl_batch *batch, enum stage first)
{
	const struct {
		sl_stage run;
		void *self;
	} stages[STAGES] = {
		[STAGE_QUOTA] = {sl_tenants_quota_stage, shard->tenants},
		[STAGE_CARDINALITY] = {sl_tenants_cardinality_stage, shard->tenants},
		[STAGE_SAMPLING] = {sl_sampling_stage, shard->sampling},
		[STAGE_ROUTING] = {sl_routing_stage, shard->routing},
	};

	if (SL_UNLIKELY(batch->refused_count))
		settle_refused(shard, batch); // before any stage
	for (unsigned i = first; i < STAGES && batch->count; i++) {
		stages[i].run(stages[i].self, batch);
		if (SL_UNLIKELY(batch->refused_count))
			settle_refused(shard, batch);
		if (SL_UNLIKELY(i == STAGE_QUOTA && (batch->delayed || shard->held))) {
			hold_delayed(shard, batch);
			settle_refused(shard, batch);
		}
	}
	// On its last part: the request may be gone afterwards.
	for (uint16_t i = 0; i < batch->count; i++) {
		struct sl_request *request = batch->parts[i]->request;

		if (i + 1 == batch->count || batch->parts[i + 1]->request != request)
			leave_stages(request);
	}
	batch->count = 0;
}

// A part of a shard that has more to do than it can. What was named from the headers was refused
// there.
static void press(struct sl_shard *shard, struct sl_part *part)
{
	if (is_overloaded_for(shard, part->tenant)) {
		part->reason = SL_REASON_OVERLOADED;
		part->retry_after_ns = overload_limits(shard)->after_ns;
		return;
	}
	part->thinning = (uint8_t)sl_overload_thinning(&shard->overload, overload_limits(shard),
						       rank_of(shard, part->tenant));
	sl_count(&shard->books.counters.thinned_requests[0], part->thinning > 0);
}

// All parts of a request are in one batch.
static void join(struct sl_shard *shard, struct sl_batch *batch, struct sl_request *request)
{
	if (batch->count + batch->refused_count + request->part_count > SL_BATCH_MAX)
		run_stages(shard, batch, STAGE_QUOTA);
	for (uint16_t i = 0; i < request->part_count; i++) {
		struct sl_part *part = &request->parts[i];

		if (SL_UNLIKELY(shard->overload.step && part->reason == SL_REASON_NONE))
			press(shard, part);
		if (SL_LIKELY(part->reason == SL_REASON_NONE))
			batch->parts[batch->count++] = part;
		else
			batch->refused[batch->refused_count++] = part;
	}
}

// Decodes a request and puts its parts into the batch. Returns what that cost, in bytes.
static uint64_t take_up(struct sl_shard *shard, struct sl_batch *batch, struct sl_request *request)
{
	const uint64_t received = request->received.size;
	const sl_tenant_id tenant = request->tenant;
	const bool json = request->origin.protocol == SL_PROTOCOL_HTTP_JSON;
	enum sl_reason reason;
	uint64_t cost;

	request->references = request->required_open = 1;
	request->staged = true;
	reason = decode(shard, request);
	cost = json ? received * JSON_COST : SL_MAX(received, request->view.body.size);
	if (reason == SL_REASON_NONE)
		reason = sl_tenants_make_parts(shard->tenants, request);
	sl_books_received(&shard->books, request);
	if (reason != SL_REASON_NONE) {
		sl_request_refuse(request, for_good(shard, request, reason), 0);
		leave_stages(request);
	} else {
		request->timer.fire = answer_due;
		sl_timer_set(&shard->timers, &request->timer, request->answer_by_ns);
		join(shard, batch, request);
	}
	// What it was received as has been charged.
	if (cost > received)
		sl_queues_charge(&shard->queues, tenant, cost - received);
	return cost + SL_QUEUE_REQUEST_BYTES;
}

// Those that a leaky bucket lets go now.
static void run_leaving(struct sl_shard *shard)
{
	struct sl_batch batch = {.now_ns = shard->now_ns};
	struct sl_request *request;

	while ((request = sl_shard_next_leaving(shard))) {
		if (batch.count + request->part_count > SL_BATCH_MAX)
			run_stages(shard, &batch, STAGE_CARDINALITY);
		for (uint16_t i = 0; i < request->part_count; i++)
			if (request->parts[i].reason == SL_REASON_NONE)
				batch.parts[batch.count++] = &request->parts[i];
	}
	if (batch.count)
		run_stages(shard, &batch, STAGE_CARDINALITY);
}

// Not all that is ready: the rest waits for the next turn, so that answers go out, and a tenant
// whose body arrives meanwhile takes its place in the round.
void sl_shard_run_ready(struct sl_shard *shard)
{
	struct sl_batch batch = {.now_ns = shard->now_ns};
	struct sl_request *request;
	uint64_t cost = 0;

	if (SL_UNLIKELY(shard->leaving))
		run_leaving(shard);
	while (cost < (shard->queues.ready_queues > 1 ? TURN_BYTES : TURN_BYTES_ALONE) &&
	       (request = sl_queues_pop(&shard->queues)))
		cost += take_up(shard, &batch, request);
	if (batch.count || batch.refused_count)
		run_stages(shard, &batch, STAGE_QUOTA);
}
