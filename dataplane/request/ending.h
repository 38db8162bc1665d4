#pragma once

#include "dataplane/request/request.h"

// How a destination got rid of items: what routing tells whoever keeps books by tenant.
//
// Threading: the shard's. Memory: the ending is the caller's, for the call.
enum sl_end {
	SL_END_DELIVERED,
	SL_END_REJECTED,
	SL_END_DROPPED, // best-effort, given up
	SL_END_RETURNED,
	SL_END_LOST, // acknowledged early, then given up
	SL_END_SPOOLED,
	SL_END_DEAD_LETTERED,
	SL_ENDS
};

struct sl_ending {
	sl_tenant_id tenant;
	struct sl_bytes tenant_name;
	enum sl_signal signal;
	enum sl_end end;
	uint32_t destination; // what number() gave
	uint64_t items, bytes, records;
};

// Who is told. `ended` NULL: nobody.
struct sl_endings {
	void *self, *names;
	// The number of a destination's name, for the process' life; locks.
	uint32_t (*number)(void *names, const char *destination);
	void (*ended)(void *self, const struct sl_ending *ending);
};
