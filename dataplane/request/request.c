#include "dataplane/request/request.h"

#include "dataplane/request/delivery.h"

static const char *const protocol_names[SL_PROTOCOLS] = {"grpc", "http/protobuf", "http/json"};
const struct sl_label sl_label_protocol = {
	.name = "protocol", .values = protocol_names, .count = SL_PROTOCOLS};

const enum sl_reason sl_cut_reasons[SL_CUTS] = {
	[SL_CUT_QUOTA] = SL_REASON_QUOTA_EXCEEDED,
	[SL_CUT_VOLUME] = SL_REASON_VOLUME_EXCEEDED,
	[SL_CUT_CARDINALITY] = SL_REASON_CARDINALITY_EXCEEDED,
};

void sl_request_let_go(struct sl_request *request, bool required)
{
	assert(request->references > 0 && (!required || request->required_open > 0));
	// The answer comes before the memory goes: `settled` may still read the request.
	if (required && --request->required_open == 0)
		request->owner->settled(request);
	if (--request->references == 0)
		request->owner->released(request);
}

void sl_request_refuse(struct sl_request *request, enum sl_reason reason, uint64_t retry_after_ns)
{
	const bool retry = sl_reasons[reason].retry;

	if (request->reason != SL_REASON_NONE && (sl_reasons[request->reason].retry || !retry)) {
		if (retry && retry_after_ns > request->retry_after_ns)
			request->retry_after_ns = retry_after_ns;
		return;
	}
	request->reason = reason;
	request->retry_after_ns = retry_after_ns;
}

void sl_batch_refuse(struct sl_batch *batch, struct sl_part *part, enum sl_reason reason,
		     uint64_t retry_after_ns)
{
	assert(reason != SL_REASON_NONE && part->reason == SL_REASON_NONE);
	assert(batch->refused_count < SL_BATCH_MAX);
	part->reason = reason;
	part->retry_after_ns = retry_after_ns;
	batch->refused[batch->refused_count++] = part;
}

bool sl_part_own_keep(struct sl_part *part)
{
	const uint32_t items = part->request->view.item_count;
	const size_t words = SL_KEEP_WORDS(items);

	if (part->keep)
		return true;
	part->keep = sl_arena_alloc(&part->request->arena, words * sizeof(uint64_t));
	if (!part->keep)
		return false;
	memset(part->keep, 0xff, words * sizeof(uint64_t));
	if (items % 64)
		part->keep[words - 1] = (UINT64_C(1) << (items % 64)) - 1;
	return true;
}

// Nothing of the request is left that somebody took: each part was refused before, or all that was
// routed of it was rejected.
static bool is_all_rejected(const struct sl_request *request)
{
	for (uint16_t i = 0; i < request->part_count; i++) {
		const struct sl_part *part = &request->parts[i];

		if (part->reason == SL_REASON_NONE &&
		    (!part->routed_items || part->rejected_items < part->routed_items))
			return false;
	}
	return true;
}

// What a required delivery's end means for its request. Only all of it refused for good is a
// refusal: a rest that was delivered makes it a partial success (OTLP, "Partial Success").
static void end_required(struct sl_delivery *delivery)
{
	struct sl_part *part = delivery->part;
	struct sl_request *request = part->request;
	const uint32_t before = delivery->share_rejected ? *delivery->share_rejected : 0;

	if (delivery->worst == SL_OUTCOME_RETRYABLE)
		sl_request_refuse(request, SL_REASON_UNDELIVERED, delivery->ended_retry_after_ns);
	if (delivery->rejected_items <= before)
		return;
	part->rejected_items += delivery->rejected_items - before;
	if (delivery->share_rejected)
		*delivery->share_rejected = delivery->rejected_items;
	if (delivery->worst == SL_OUTCOME_REJECTED && is_all_rejected(request))
		sl_request_refuse(request, SL_REASON_REJECTED, 0);
}

void sl_record_end(struct sl_record *record, enum sl_outcome outcome, uint64_t retry_after_ns)
{
	struct sl_delivery *delivery = record->delivery;
	const bool required = delivery->required;

	assert(delivery->open_records > 0);
	if (outcome > delivery->worst)
		delivery->worst = outcome;
	if (outcome == SL_OUTCOME_REJECTED)
		delivery->rejected_items += record->items;
	if (retry_after_ns > delivery->ended_retry_after_ns)
		delivery->ended_retry_after_ns = retry_after_ns;
	if (--delivery->open_records > 0)
		return;
	if (required)
		end_required(delivery);
	sl_request_let_go(delivery->part->request, required);
}
