#pragma once

#include "dataplane/base/address.h"
#include "dataplane/base/arena.h"
#include "dataplane/base/timer.h"
#include "dataplane/otlp/splice.h"
#include "dataplane/otlp/view.h"
#include "dataplane/request/reason.h"

// The currency of stages: a request, its parts (one tenant's share of it), a part's deliveries, the
// records that deliveries become, and batches of parts: who waits for what.
//
//   request --parts--> part --deliveries--> delivery <--> record --driver--> broker, upstream, disk
//
// The answer goes out when `required_open` reaches 0 or `answer_by_ns` passes; the memory goes when
// `references` reaches 0. Both counters are the shard's own.
//
// Threading: a request and all that hangs on it belong to one shard. What must leave it is spliced
// into memory of its own and travels by ring.
// Memory: requests are pooled by the shard; parts, deliveries, edits and pieces lie in its arena.

typedef uint32_t sl_tenant_id; // index in arrays by tenant; stable while anything is in flight
#define SL_TENANT_NONE     UINT32_MAX
#define SL_TENANT_NAME_MAX 150

enum sl_protocol { SL_PROTOCOL_GRPC, SL_PROTOCOL_HTTP_PROTOBUF, SL_PROTOCOL_HTTP_JSON };
#define SL_PROTOCOLS 3
extern const struct sl_label sl_label_protocol; // "grpc", "http/protobuf", "http/json"
#define SL_LABEL_COUNT_protocol SL_PROTOCOLS

struct sl_request;
struct sl_session;
struct sl_call;

// Who asked and how to answer. `call` is NULL once the client has gone.
struct sl_origin {
	struct sl_call *call; // conn/session.h; NULL: nobody waits for the answer
	uint8_t protocol;     // enum sl_protocol
	uint8_t coding;       // enum sl_coding of the body as received
	bool datagram;        // one, whose sender hears nothing
};

// One quota charge, so that it can be given back (mixed verdicts).
struct sl_charge {
	uint64_t bytes, items, requests;
};

// Items that a part loses while the rest of it goes on: refused for good, and told to the client in
// partial_success. Each way is a reason in the books.
enum sl_cut { SL_CUT_QUOTA, SL_CUT_VOLUME, SL_CUT_CARDINALITY, SL_CUTS };
extern const enum sl_reason sl_cut_reasons[SL_CUTS];

// One tenant's share of one request: what policies judge.
struct sl_part {
	struct sl_request *request;
	sl_tenant_id tenant;
	struct sl_bytes tenant_name; // lives as long as the tenant's id is in use
	const char *class_name;      // its class', "" without one; lives as long as the process
	uint64_t *keep;              // a bit an item; NULL: all of the request's items
	struct sl_edits edits;
	uint64_t offered_bytes; // of the body: all of it, or its resources'
	bool in_flight;         // counted against its tenant's limits, with offered_bytes
	uint32_t offered_items; // its items before any policy
	uint32_t cut_items[SL_CUTS];
	uint64_t cut_bytes;          // of offered_bytes, what was cut
	struct sl_bytes cut_message; // cardinality: why, for the client; in the arena
	uint32_t kept_items;         // still set in `keep`
	uint32_t routed_items;       // routing: of those kept, how many went to some destination
	uint32_t
		rejected_items; // of those routed, how many a required destination refused for good
	enum sl_reason reason;  // SL_REASON_NONE while kept
	uint64_t retry_after_ns;
	uint64_t delay_ns; // tenants/: admitted, but to be held for so long
	struct sl_charge charge;
	uint32_t charged_generation; // tenants/: which bucket state was charged
	bool counted;                // tenants/: `charge` is in its tenant's volume
	uint16_t index;              // in request->parts
	uint8_t limit;               // tenants/: over quota, of which dimension
	uint8_t thinning;            // sampling keeps 1/2^n of what it would: overload
	uint32_t account;            // tenants/ledger: the row that it was received in
	uint64_t adjusted_q8;        // sampling: sum of 1/p - 1 over what is kept, in 1/256 items
};

enum sl_outcome { // worse is larger; a delivery's outcome is the worst of its records'
	SL_OUTCOME_DELIVERED,
	SL_OUTCOME_DROPPED,   // given up where nobody waits: best-effort, or acknowledged early
	SL_OUTCOME_REJECTED,  // the destination refused it for good
	SL_OUTCOME_RETRYABLE, // not delivered; the client shall try again
};

// What the head told of a request whose tenants its resources name; in its arena.
struct sl_claimant {
	struct sl_address peer;
	bool certified;         // mutual TLS has verified a client certificate
	sl_tenant_id otherwise; // the tenant of resources that name none; SL_TENANT_NONE: refused
	struct sl_bytes otherwise_name; // empty: as the tenant is called
};

#define SL_PARTS_MAX 64 // tenants in one request; a batch holds all of them

struct sl_request {
	struct sl_request *next; // in the one list it is in
	const struct sl_request_owner *owner;
	void *shard; // the owner's
	struct sl_origin origin;
	enum sl_signal signal;
	bool answered, whole; // whole: the body has arrived
	sl_tenant_id tenant;  // named from the headers; SL_TENANT_NONE: by resource attribute
	struct sl_bytes tenant_name;
	struct sl_claimant *claimant; // NULL: the headers named the tenant

	struct sl_arena arena;
	struct sl_bytes received; // the body as it came (perhaps compressed)
	uint8_t *body_buffer;     // owns `received`; from the shard's memory
	size_t body_capacity;
	uint8_t *inflated_buffer; // owns `view.body` when it was compressed
	size_t inflated_capacity;
	bool single_member; // `received` is one gzip member or zstd frame: may go out as it is
	struct sl_view view;

	struct sl_part *parts;
	struct sl_part first_part; // nearly always the only one: `parts` points here
	uint16_t part_count;

	uint32_t required_open; // required deliveries that have not ended, plus 1 while in a stage
	uint32_t
		references; // deliveries that have not ended, plus 1 while in a stage or unanswered
	uint64_t received_ns;  // when its head arrived
	uint64_t answer_by_ns; // min(grpc-timeout, answer_within)

	enum sl_reason reason; // the worst so far; what the answer will say
	uint64_t retry_after_ns;
	uint64_t rejected_items; // refused for good in parts: partial success
	struct sl_bytes message; // why, for the client; in the arena or constant
	uint64_t pinned_bytes;   // its memory while deliveries are open, for caps
	struct sl_pin *pins;     // routing's: who pins it
	enum { SL_TEXT_UNKNOWN, SL_TEXT_VALID, SL_TEXT_INVALID } text; // its strings, once asked

	struct sl_timer timer;    // the shard's: fires at answer_by_ns
	struct sl_timer leave;    // the shard's: fires when a held one goes on
	struct sl_request **held; // who points to it among those held; NULL: it is not
	bool late;                // answered as timed out while deliveries are open
	bool denied;              // some was refused for who sends it, not for what it is
	bool staged;              // the shard's own hold stands
	bool in_flight;           // counted against its tenant's limits, with in_flight_bytes
	uint64_t in_flight_bytes;
	uint64_t body_bytes_max; // the tenant's, or the server's
	uint64_t
		waiting_bytes; // until it is taken up: the shard's queues count them for its tenant
	uint16_t queue;        // there: its number + 1; 0: it does not wait
	uint8_t tenants_phase; // tenants/: what it told when the request was taken
};

// What the shard does at the two ends. Both may be called from inside any function below.
struct sl_request_owner {
	void (*settled)(struct sl_request *request);  // required_open reached 0: answer it
	void (*released)(struct sl_request *request); // references reached 0: free it
};

// Take and leave; the counters start at 1 each for the shard's own hold.
SL_INLINE void sl_request_hold(struct sl_request *request, bool required)
{
	request->references++;
	request->required_open += required;
}
void sl_request_let_go(struct sl_request *request, bool required);

// Notes a refusal of the whole request: the first one stays, unless a later one is retryable.
void sl_request_refuse(struct sl_request *request, enum sl_reason reason, uint64_t retry_after_ns);

#define SL_BATCH_MAX SL_PARTS_MAX
struct sl_batch {
	uint64_t now_ns;
	uint16_t count;
	struct sl_part *parts[SL_BATCH_MAX];
	bool delayed;           // some have a delay_ns
	uint16_t refused_count; // refused in this turn, to be settled by the shard
	struct sl_part *refused[SL_BATCH_MAX];
};

// A stage looks at every part of the batch and compacts `parts` to those that go on.
typedef void (*sl_stage)(void *self, struct sl_batch *batch);

// The part leaves the batch with a reason. The caller does not keep it in `parts`.
void sl_batch_refuse(struct sl_batch *batch, struct sl_part *part, enum sl_reason reason,
		     uint64_t retry_after_ns);

// Clears items from a part's keep set, making the set when there is none. Returns false when the
// budget is spent.
bool sl_part_own_keep(struct sl_part *part);

// All that was cut from a part.
SL_INLINE uint32_t sl_part_cut_items(const struct sl_part *part)
{
	uint32_t items = 0;

	for (unsigned i = 0; i < SL_CUTS; i++)
		items += part->cut_items[i];
	return items;
}
