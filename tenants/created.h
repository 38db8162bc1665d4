#pragma once

#include "dataplane/base/base.h"
#include "dataplane/request/request.h"

// Tenants that are made from a template when their name first comes: a fixed number of seats, each
// with a number, a pool and room for a name, all taken when the configuration first asks for them.
// So a flood of names costs no memory, and takes no seat from who has one.
//
//   shard: unknown name --ask--> quota thread: a free seat gets the name --index--> shards find it
//                                live --idle for long--> leaving --grace, pool at rest--> free
//
// Until its seat is there a name's requests are the account's of newcomers, which has the
// template's limits once, for all of them together.
//
// Threading: made by the control thread; seats, index and asks are changed by the quota thread;
// shards find, ask (one word each, atomically) and note when a seat was last used. Time: the quota
// thread's ticks. Memory: 200 bytes a seat beside its pool.
#define SL_CREATED_MAX  500000
#define SL_CREATED_ASKS 256 // names that wait for the next tick

enum sl_created_state { SL_CREATED_FREE, SL_CREATED_LIVE, SL_CREATED_LEAVING };

struct sl_created_seat {
	uint64_t used_ns; // writer: shards, atomically, once a second
	sl_tenant_id tenant;
	uint32_t next;      // in the list of free or leaving ones: number + 1
	uint8_t state;      // enum sl_created_state
	uint8_t name_bytes; // 0: free; atomic
	uint8_t name[SL_TENANT_NAME_MAX];
};

struct sl_created_ask {
	uint32_t state; // atomic
	uint8_t name_bytes;
	uint8_t name[SL_TENANT_NAME_MAX];
};

struct sl_created {
	uint32_t references; // snapshots; the control thread's
	uint32_t seat_count, index_mask;
	sl_tenant_id newcomers;
	uint64_t *numbers; // bits: the seats' and newcomers'
	uint32_t number_count;
	const char *class_name; // the template's, "" without one; atomic
	struct sl_created_seat *seats;
	uint32_t *index;              // name's hash -> seat + 1; atomic
	uint32_t free_count;          // atomic
	uint64_t tick_ns;             // atomic: the quota thread's time
	uint32_t free, leaving, hand; // lists: seat + 1; the next seat to look at
	uint32_t waiting;             // those whose epoch is asked for
	uint64_t waiting_epoch;
	uint64_t made, expired; // since the start
	uint32_t live;
	struct sl_created_ask asks[SL_CREATED_ASKS];
};

struct sl_registry;
struct sl_tenants;

// Seats for `count` tenants, with numbers of the registry. NULL: no memory, or no numbers left.
// Each snapshot holds a reference; with that of a refused one, which no shard has seen, the numbers
// go back.
struct sl_created *sl_created_create(struct sl_registry *registry, uint32_t count);
struct sl_created *sl_created_get(struct sl_created *created);
void sl_created_put(struct sl_created *created, struct sl_registry *registry); // NULL is fine

// The seat's name; empty: it is free.
struct sl_bytes sl_created_name(const struct sl_created_seat *seat);
// The number of the tenant of that name, or SL_TENANT_NONE. From any thread.
sl_tenant_id sl_created_find(const struct sl_created *created, struct sl_bytes name);
// Whether the number is a seat's, or newcomers'. From any thread.
bool sl_created_is(const struct sl_created *created, sl_tenant_id tenant);
// A shard's find(), but the seat is used from now on, and a name that has none is asked for.
// Returns its number, `created->newcomers` until then, or `overflow` when no seat is free. `name`
// is valid.
sl_tenant_id sl_created_name_to_tenant(struct sl_created *created, struct sl_bytes name,
				       sl_tenant_id overflow);

// The class of those that are made from now on is the snapshot's template's.
void sl_created_set_class(struct sl_created *created, const struct sl_tenants *tenants);

// The quota thread's, at each tick: gives names seats, and ends those that were idle for long.
void sl_created_tick(struct sl_created *created, const struct sl_tenants *tenants, uint64_t now_ns);
