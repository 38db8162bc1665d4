#pragma once

#include "tenants/fleet/wire.h"

// The script (tenants/fleet/quota.lua) once more, in C: what the simulation talks to, and what the
// real one is compared with in tests/unit/fleet/test_script.c.
struct bucket {
	uint8_t field[SL_FLEET_FIELD_MAX];
	size_t field_bytes;
	double tat, demand, seen; // us, tokens a second, us
	bool sliding;
	double present, before, begin; // tokens, tokens, us
};

struct bucket_instance {
	uint8_t name[SL_FLEET_INSTANCE];
	double last, alive; // id, us
};

// What a period's hash has: a sum, or what an instance has said of it.
struct volume_field {
	char period[16];
	uint8_t name[1 + SL_FLEET_INSTANCE + SL_FLEET_FIELD_MAX];
	size_t name_bytes;
	double used, id; // of a sum: the sum, 0
};

#define VOLUME_FIELDS_MAX 512
#define BUCKETS_MAX       512
struct buckets {
	uint32_t count, instance_count;
	struct bucket buckets[BUCKETS_MAX];
	struct bucket_instance instances[64];
	uint32_t field_count;
	struct volume_field fields[VOLUME_FIELDS_MAX];
	uint64_t updates, volume_updates;
};

// Runs one argument at Redis' time. Returns the size of the reply; 0: not an argument.
size_t buckets_call(struct buckets *buckets, struct sl_bytes argument, double now_us, uint8_t *out);
// The same of tenants/fleet/volume.lua, about the period that its key ends with.
size_t buckets_volume_call(struct buckets *buckets, const char *period, struct sl_bytes argument,
			   double now_us, uint8_t *out);
