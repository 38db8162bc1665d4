#pragma once

#include "config/module.h"
#include "dataplane/base/address.h"
#include "dataplane/base/header.h"
#include "dataplane/base/metrics.h"
#include "dataplane/request/request.h"

// Who a call belongs to, and whether its tenant may send now. Two halves:
//   identity   headers -> tenant        (a table in the snapshot; any shard reads it)
//   quota      tenant, cost -> admit    (pools of the instance, chunks of the shard)
//
// Threading: as said at each part. Memory: a cold tenant costs a shard 8 bytes.
extern const struct sl_module sl_tenants_module; // keys `tenants`, `quotas`

struct sl_tenants;       // the snapshot's part: identities, limits
struct sl_source_text;   // source.h
struct sl_tenants_shard; // one shard's chunks and counters

// What identity looks at. Header names in lower case.
struct sl_identity_claim {
	const struct sl_http_header *headers;
	uint32_t header_count;
	const struct sl_address *peer;
	const char *certificate_name; // verified by mTLS; NULL: none
};

struct sl_identity {
	sl_tenant_id tenant;
	struct sl_bytes name;   // lives as long as the id is in use
	bool borrowed;          // but this name lies in the claim: copy it
	enum sl_reason reason;  // SL_REASON_NONE: admitted so far
	bool by_resource;       // the resources of the body name their tenants; `tenant` is NONE
	sl_tenant_id otherwise; // then: of those that name nobody; SL_TENANT_NONE: refused
};

// Limits of one tenant that others need. Pointers live a turn.
struct sl_tenant_info {
	struct sl_bytes name, class_name;
	uint64_t body_bytes_max; // 0: the server's
	uint32_t rank;           // of its priority among all that classes have; 0 is the lowest
	bool suspended;
};
bool sl_tenants_info(const struct sl_tenants *tenants, sl_tenant_id tenant,
		     struct sl_tenant_info *info);
// Its class' weight among tenants that compete for a shard; 1: no class, or no tenant.
uint32_t sl_tenants_weight(const struct sl_tenants *tenants, sl_tenant_id tenant);
bool sl_tenants_find(const struct sl_tenants *tenants, struct sl_bytes name, sl_tenant_id *tenant);
// Also those that were made from a template.
bool sl_tenants_known(const struct sl_tenants *tenants, struct sl_bytes name, sl_tenant_id *tenant);
uint32_t sl_tenants_count(const struct sl_tenants *tenants);
// How many different priorities there are: ranks go from 0 to one less. At least 1.
uint32_t sl_tenants_ranks(const struct sl_tenants *tenants);
// A tenant's effective settings and counters as JSON, for /tenants/{id}; malloc'ed, control thread.
char *sl_tenants_describe(const struct sl_tenants *tenants, sl_tenant_id tenant);

// --- a shard's side ------------------------------------------------------------------------------
struct sl_tenants_shard *sl_tenants_shard_create(uint32_t shard, uint32_t shards,
						 struct sl_metrics *metrics);
void sl_tenants_shard_destroy(struct sl_tenants_shard *self);
// At a turn's start: the snapshot's part that this turn uses, and the turn's times.
void sl_tenants_shard_turn(struct sl_tenants_shard *self, const struct sl_tenants *tenants,
			   uint64_t now_ns);

// The shard takes a request that may refer to tenants, and gives it back when nothing of it is
// left: meanwhile no tenant's number gets another meaning. What take says is said again.
uint8_t sl_tenants_take_request(struct sl_tenants_shard *self);
void sl_tenants_give_request(struct sl_tenants_shard *self, uint8_t phase);

// Somebody outside keeps numbers of tenants for longer than a request lives, until keeps() says
// that it does not: from any thread. Before the first shard starts.
void sl_tenants_kept_by(struct sl_tenants *tenants,
			bool (*keeps)(const void *keeper, uint32_t tenant), const void *keeper);
// The next snapshot takes its tenants of tenants.redis from `text`, not from where the last one did
// (NULL: from there after all). Control thread.
void sl_tenants_offer(struct sl_tenants *tenants, struct sl_source_text *text);
// What is in force, its reference the snapshot's; NULL: nothing of Redis.
const struct sl_source_text *sl_tenants_source(const struct sl_tenants *tenants);
// Whose requests have names of their own: the account of tenants that are being made. Else NONE.
sl_tenant_id sl_tenants_newcomers(const struct sl_tenants *tenants);

// What the template makes, for who keeps accounts of it (ledger.h): a maker lives as long as any
// snapshot does. From any thread.
const void *sl_tenants_maker(const struct sl_tenants *tenants);
// The class ("": none; lives as the maker does) of a number that is for tenants that are made; NULL
// of others.
const char *sl_tenants_made_class(const void *maker, sl_tenant_id tenant);
// Whether one of that name is there now, and how many there may be.
bool sl_tenants_made_is_there(const void *maker, struct sl_bytes name);
uint32_t sl_tenants_made_max(const void *maker);

// Names the tenant from a call's headers. A credential that is present and unknown is refused,
// never skipped; trusted headers count from trusted_from only; else the default tenant or a
// refusal. `wall_ns` is for credentials that expire. Not a system call, not an allocation.
// With `by_resource` the body decides: sl_tenants_make_parts().
struct sl_identity sl_tenants_identify(struct sl_tenants_shard *self,
				       const struct sl_identity_claim *claim, uint64_t wall_ns);

// Splits a decoded request into its parts. A tenant known from the headers: one part, and claims in
// resource attributes are overwritten or stripped as configured. Else a part for each tenant that
// resources name; those of them whose tenant cannot send (unknown, suspended, too much in flight)
// have a reason already. Not NONE: the whole request is refused with it and has no parts.
enum sl_reason sl_tenants_make_parts(struct sl_tenants_shard *self, struct sl_request *request);
// Gives back what its parts have in flight; at the request's end.
void sl_tenants_end_parts(struct sl_tenants_shard *self, struct sl_request *request);
// Whether a part over its quota goes alone and leaves the others (quotas.mixed).
bool sl_tenants_partial(const struct sl_tenants *tenants);

// From the headers alone: is the tenant suspended, exhausted for `signal`, or is `body_bytes_min`
// (a Content-Length, a lower bound; 0 unknown) more than its quota has now? Charges nothing.
enum sl_reason sl_tenants_admit_head(struct sl_tenants_shard *self, sl_tenant_id tenant,
				     enum sl_signal signal, uint64_t body_bytes_min,
				     uint64_t *retry_after_ns);
// One more request in flight, with `bytes`: taken when a body is reserved, given back (with all of
// its bytes) when its request ends. Refused with SL_REASON_IN_FLIGHT_EXCEEDED.
enum sl_reason sl_tenants_take_in_flight(struct sl_tenants_shard *self, sl_tenant_id tenant,
					 uint64_t bytes, uint64_t *retry_after_ns);
void sl_tenants_give_in_flight(struct sl_tenants_shard *self, sl_tenant_id tenant, uint64_t bytes);

// Which limit it was, for the client and (a few lines a second) the log: the one that the stage
// noted in a part, or that admit_head() or take_in_flight() has just met. `name` is what the
// request calls the tenant, which may have no number of its own yet. Empty when the budget is
// spent.
struct sl_bytes sl_tenants_explain(struct sl_tenants_shard *self, sl_tenant_id tenant,
				   struct sl_bytes name, uint8_t limit, struct sl_arena *arena);
uint8_t sl_tenants_last_limit(const struct sl_tenants_shard *self);

// Stage: charges each part (bytes of view.body, items of its signal, one request) to its tenant,
// all dimensions or none; refuses with SL_REASON_QUOTA_EXCEEDED and the bucket's own refill time,
// jittered. A leaky bucket's are charged at once and carry the time to hold them for. `self` is a
// struct sl_tenants_shard. Mode `observe` counts, and neither refuses nor holds.
// Charges are for what is offered, before sampling. With `excess: cut` a part that needs more than
// is left loses its last items: the first k stay, k the largest for which every dimension has room
// in this shard's chunk and the pool, and they alone are charged (bytes: theirs and those of the
// envelopes around them); what is refunded later is that. Cut before sampling looks, so a cut and
// a sampled stream is a sample of its beginning.
void sl_tenants_quota_stage(void *self, struct sl_batch *batch);
// Stage, behind the quota: holds parts to their tenants' limits on different values
// (cardinality/distinct.h): known ones pass, what is new and over is cut out of the items, or the
// items are, as configured. One compare a batch where nobody has such limits. The same `self`.
void sl_tenants_cardinality_stage(void *self, struct sl_batch *batch);
// The bounds over any time and any number of shards: authority.h, algorithm.h.
// Gives a part's charge back (it, or another part of its request, was refused after the charge).
// Doing it twice, or for a part that was not charged, does nothing.
void sl_tenants_refund(struct sl_tenants_shard *self, struct sl_part *part);

// --- the quota thread's side ---------------------------------------------------------------------
// The authority's tick: refills the pools of tenants that spend. Call every SL_QUOTA_TICK_NS.
#define SL_QUOTA_TICK_NS (10 * SL_MS)
void sl_tenants_tick(struct sl_tenants *tenants, uint64_t now_ns);
// The volumes' of an instance by itself (volume.h), beside it.
void sl_tenants_tick_volumes(struct sl_tenants *tenants, uint64_t now_ns, uint64_t wall_ns);
// How many marks of volumes were passed since the start.
void sl_tenants_volume_marks(const struct sl_tenants *tenants, uint64_t *soft, uint64_t *hard);

// Makes tenants of new names and ends idle ones (unknown: create); at each tick too.
struct sl_tenants_created {
	uint64_t live, made, expired;
};
void sl_tenants_create(const struct sl_tenants *tenants, uint64_t now_ns,
		       struct sl_tenants_created *created);
