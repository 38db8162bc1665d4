#pragma once

#include "tenants/fleet/wire.h"

// The script (tenants/fleet/script.c) once more, in C: what the simulation talks to, and what the
// real one is compared with in tests/unit/fleet/test_script.c.
struct bucket {
	uint8_t field[SL_FLEET_FIELD_MAX];
	size_t field_bytes;
	double tat, demand, seen; // us, tokens a second, us
};

struct bucket_instance {
	uint8_t name[SL_FLEET_INSTANCE];
	double last, alive; // id, us
};

#define BUCKETS_MAX 512
struct buckets {
	uint32_t count, instance_count;
	struct bucket buckets[BUCKETS_MAX];
	struct bucket_instance instances[64];
	uint64_t updates;
};

// Runs one argument at Redis' time. Returns the size of the reply; 0: not an argument.
size_t buckets_call(struct buckets *buckets, struct sl_bytes argument, double now_us, uint8_t *out);
