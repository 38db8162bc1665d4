#pragma once

#include "dataplane/base/by_tenant.h"
#include "dataplane/base/random.h"
#include "routing/answers.h"
#include "routing/breaker.h"
#include "routing/counters.h"
#include "routing/driver.h"
#include "routing/failover.h"
#include "routing/lanes.h"
#include "routing/routing.h"
#include "routing/spool/spool.h"

// What the files of routing/ share: the snapshot's part, a shard's side, and a delivery's own.

#define DESTINATION_NAME_MAX 64
#define SL_KEY_MAX           255 // bytes; more of an attribute does not say where it goes

// Shared by all snapshots that name it with the same settings.
struct sl_destination {
	char name[DESTINATION_NAME_MAX + 1];
	const struct sl_driver *driver; // NULL: a failover group
	void *self;                     // the driver's; NULL under --check
	struct sl_retry_config retry;
	uint64_t pinned_bytes_max;
	double tenant_share;
	uint64_t record_bytes_max;
	struct sl_merge_config merge;     // requests 0: none
	struct sl_breaker_config breaker; // failures 0: none
	struct sl_spool *spool;           // NULL: none
	struct sl_spool_config spooling;  // its texts go with the snapshot
	bool by_trace;
	enum sl_spread spread;            // over its endpoints: by the hash of what
	struct sl_bytes spread_attribute; // the driver's
	uint64_t files;                   // stamp of the files that its settings name
	bool lingers;                     // to be freed by a thread of its own
	uint32_t references;              // snapshots; the control thread's
	uint32_t sides;                   // shards that have it open; atomic
};

struct sl_pattern {
	struct sl_bytes text; // data NULL: anything
	enum sl_match_kind kind;
};

struct sl_route_attribute {
	struct sl_bytes name;
	struct sl_pattern value;
};

struct sl_route_target {
	uint32_t destination; // index
	bool required;
};

struct sl_route {
	struct sl_pattern tenant, class_name;
	uint32_t signal; // enum sl_signal + 1; 0: any
	struct sl_route_attribute *attributes;
	uint32_t attribute_count;
	struct sl_route_target *targets; // none: drop
	uint32_t target_count;
};

struct sl_routing {
	uint64_t generation;
	enum sl_acknowledge acknowledge;
	const struct sl_destination_config *configs; // as long as the snapshot
	struct sl_destination **destinations;
	uint32_t destination_count, failover_count; // groups among them
	uint32_t *dead_letters;                     // by destination; UINT32_MAX: none
	// By destination; of groups only.
	struct sl_failover_indices {
		uint32_t members[SL_FAILOVER_MAX];
	} * failovers;
	struct sl_route *routes;
	uint32_t route_count;
};

// A destination's counters live as long as the shard, so that they never run backwards.
struct sl_meter {
	struct sl_meter *next;
	char name[DESTINATION_NAME_MAX + 1];
	struct sl_destination_counters counters;
	struct sl_refusals refusals;
	struct sl_histogram duration;
	uint32_t number; // as the books by tenant have it
};

// One destination on one shard.
struct sl_egress {
	struct sl_egress *next;
	struct sl_routing_shard *shard;
	struct sl_destination *destination;
	void *side; // NULL: could not be opened yet
	uint64_t open_due_ns;
	struct sl_meter *meter;
	bool retired; // no snapshot of this shard names it any more
	uint64_t pinned_bytes, pinned_bytes_max, tenant_bytes_max;
	struct sl_by_tenant tenant_pinned; // uint64_t
	uint64_t records;                  // taken and not ended
	struct sl_merger *merger;          // NULL: each record by itself
	struct sl_spill *spill;            // NULL: no spool
	struct sl_breaker breaker;
	int told; // of the breaker, in the meter
	struct sl_retry_budget budget;
	struct sl_record *waiting, **waiting_last;
	uint64_t waiting_due_ns;       // the first's of all
	struct sl_lanes lanes;         // refused by a driver that is full, and what came behind
	uint32_t refusals;             // by the driver, since the lanes were last served
	uint64_t ask_due_ns;           // when the driver is asked for them
	uint64_t expire_due_ns;        // when one of them has to be given up, at the earliest
	uint64_t heard_ns;             // when it last gave a verdict, or had nothing to do
	uint64_t failing_since_ns;     // all that ended since is to be tried again; 0: not
	bool stalled;                  // counted in the meter
	struct sl_egress *dead_letter; // where what it refuses for good goes; NULL: back
	uint32_t dead_letter_of;       // egresses that name it so
};

struct sl_routing_shard {
	struct sl_routing_env env;
	const struct sl_routing *routing; // this turn's
	uint64_t generation, now_ns;
	struct sl_egress *egresses;
	struct sl_egress **by_index; // by the snapshot's index; NULL, or one: no memory for it yet
	struct sl_failover **failover_by_index;
	struct sl_failover *failovers;
	struct sl_meter *meters;
	struct sl_timer timer; // only ends a wait: poll() does the work
	uint64_t in_flight;    // records
	bool draining;         // nothing comes out of spools any more
	uint64_t best_effort_pinned, best_effort_pinned_max;
	uint64_t letter_ns;   // the turn that the time of dead letters is of
	char letter_time[32]; // as they have it; empty: none was made
};

// A delivery as the stage makes it, in the request's arena.
struct sl_flow {
	struct sl_delivery delivery; // first: a record points to it
	struct sl_flow *next;
	struct sl_egress *egress;     // where it is pinned
	struct sl_failover *failover; // whose records may go elsewhere; NULL: none
	struct sl_record *records;
	uint64_t began_ns;
	struct sl_pin *pin; // NULL: none
	sl_tenant_id tenant;
	bool waits;        // the answer waits for it
	bool best_effort;  // by its route
	bool acknowledged; // required, but answered early
	bool full;         // best-effort at its cap: only counted
	bool to_disk;      // above its destination's cap: at once to its spool
	bool replay;       // came out of a spool
};

// Compiles a pattern: without wildcards equal, with one trailing * prefix, else glob.
struct sl_pattern sl_pattern_of(const char *text);
bool sl_pattern_match(const struct sl_pattern *pattern, struct sl_bytes text);
// The first route from `first` on that matches but for its attributes; route_count: none.
uint32_t sl_route_find(const struct sl_routing *routing, const struct sl_part *part,
		       uint32_t first);
// The route of one resource envelope.
uint32_t sl_route_find_resource(const struct sl_routing *routing, const struct sl_part *part,
				uint32_t envelope);
// A resource's attribute as text: integers, numbers and booleans as JSON writes them, in `scratch`.
// False: absent.
bool sl_route_attribute_text(const struct sl_view *view, uint32_t resource, struct sl_bytes name,
			     char scratch[32], struct sl_bytes *value);
// Records of what `keep` leaves of the part, `*records` being a list. Returns 0 or -ENOMEM.
int sl_records_make(struct sl_flow *flow, const uint64_t *keep, struct sl_record **records);
// Gives a record that has an owner the key of its first item, to be found again by it.
void sl_record_key(struct sl_record *record);
// The same items as records for `egress`, in place of the one that is neither merged nor with a
// driver: as a list, and how many. Of the books only the delivery's open records change. On
// -ENOMEM nothing has changed.
int sl_records_remake(struct sl_record *record, struct sl_egress *egress,
		      struct sl_record **records, uint32_t *count);

// Records that wait for others of their key (merge.c). NULL when out of memory.
struct sl_merger *sl_merger_create(void);
void sl_merger_destroy(struct sl_merger *merger); // nothing waits in it
// Takes the record to be sent with others, perhaps at once; false: it goes by itself.
bool sl_merger_take(struct sl_egress *egress, struct sl_record *record);
// Sends what has waited long enough, and returns when the next will have: UINT64_MAX, never.
uint64_t sl_merger_run(struct sl_egress *egress);
// Frees a merged record and returns its members.
struct sl_record *sl_merged_open(struct sl_record *merged);
// A destination's counters on this shard, made when they are not there. NULL: no memory.
struct sl_meter *sl_meter_of(struct sl_routing_shard *self, const char *name);
void sl_meters_free(struct sl_routing_shard *self);

// The way to and from a destination's spool, whose settings are in force with the first that opens
// it (spill.c). NULL when out of memory.
struct sl_spill *sl_spill_open(const struct sl_destination *destination, struct sl_waker *waker);
void sl_spill_close(struct sl_egress *egress);
// Hands a record that is neither merged nor with a driver to the spool: its end is told when it is
// on disk. False: there is none, or it does not take it. `cause` is the log's; NULL: none is new.
bool sl_spill(struct sl_record *record, const char *cause);
// The same, before anything is tried, where it has to go there first: behind what is there already,
// above a cap, or because answers wait for the disk only. True: it is dealt with, perhaps given
// back.
bool sl_spill_first(struct sl_record *record);
// Once a turn: what is on disk, and what comes back from it.
void sl_spill_poll(struct sl_egress *egress);
// Whether a flow came out of that destination's own spool.
SL_INLINE bool sl_egress_is_home(const struct sl_egress *egress, const struct sl_flow *flow)
{
	return flow->replay && flow->egress == egress;
}
// The end of a record that was handed to the spool.
void sl_egress_spilled(struct sl_record *record, bool kept);

// Whether records may be offered to it now: it is not spared.
bool sl_egress_is_available(const struct sl_egress *egress);
// A record that is not merged: to be tried now, and after a time.
void sl_egress_again(struct sl_egress *egress, struct sl_record *record);
void sl_egress_wait(struct sl_egress *egress, struct sl_record *record, uint64_t wait_ns);
// Into the lane of its tenant and owner.
void sl_egress_line_up(struct sl_egress *egress, struct sl_record *record);
// Makes a record that is neither merged nor with a driver anew for that destination, perhaps the
// same, and offers it there. False: it stays as and where it is.
bool sl_egress_move(struct sl_record *record, struct sl_egress *to);
// When the keys of a record, or of a merged one's members, have other owners now: deals them anew
// and offers them. False: the record stays.
bool sl_egress_deal(struct sl_egress *egress, struct sl_record *record);
// The books of a record that leaves one destination and is so many of another.
void sl_egress_rebook(const struct sl_record *record, struct sl_egress *from, struct sl_egress *to,
		      uint32_t count);
// Who owns what came out of a spool: by its first item's key. 0: anybody.
uint32_t sl_egress_owner(const struct sl_egress *egress, const struct sl_record *record);
// Sends what waits there of failover groups to where they are now.
void sl_egress_sweep(struct sl_egress *egress);
// Offers a record, alone or merged, to the driver; what it does not take waits.
void sl_egress_offer(struct sl_egress *egress, struct sl_record *record);

// Tells the books by tenant how a destination got rid of items.
void sl_egress_note(const struct sl_egress *egress, const struct sl_flow *flow, enum sl_end end,
		    uint64_t items, uint64_t bytes, uint64_t records);

// Pins the memory of a flow's request, or returns false at a cap (pins.c).
bool sl_egress_pin(struct sl_flow *flow);
void sl_egress_unpin(struct sl_flow *flow);
// Submits all records of a flow that is pinned and held.
void sl_egress_submit(struct sl_flow *flow);
// The shard's time, for drivers.
uint64_t sl_egress_now_ns(const struct sl_record *record);
// A destination took a record but for so many items: its sender, where it waits, is told so.
void sl_egress_partial(const struct sl_record *record, uint64_t rejected_items);
