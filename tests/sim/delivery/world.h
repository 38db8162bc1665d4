#pragma once

#include "tests/sim/delivery/sim.h"
#include "tests/unit/routing/rig.h"

// What the run (main.c) and its destinations (places.c) look at.

#define CALLS        60
#define STEPS        300
#define HELD         512
#define DESTINATIONS 3 // of requests; the last place is for dead letters
#define LETTERS      DESTINATIONS
#define ITEMS        65536

enum mood { GOOD, SLOW, FLAKY, DOWN, FULL, MOODS };

struct one {
	struct call call; // first
	uint32_t items, confirmed[DESTINATIONS];
	unsigned required; // a bit a destination
	unsigned group;    // of these, all of it at one or shared between them
	bool bad, offered, checked;
	uint32_t first; // item; the others follow
};

// One item, over all that becomes of it. Bits of destinations.
struct item {
	uint8_t required, group; // as acknowledged; group: at one of them
	uint8_t delivered, lettered, spooled, refused, excused;
	bool bad;
};

struct place {
	unsigned index;
	enum mood mood;
	uint32_t generation, owners; // of its keys, where it has endpoints of its own
};

// A place as one snapshot's destination sees it.
struct side {
	struct place *place;
	struct {
		struct sl_record *record;
		uint64_t due_ns;
	} held[HELD];
	unsigned count;
};

struct world {
	uint64_t seed;
	unsigned step;
	bool tells, queued, dead; // dead: what the process does has no effect
	bool spools[SL_SIM_PLACES], letters[DESTINATIONS];
	const char *acknowledge, *fsync;
	uint64_t letters_kept; // items, of this process
	struct item items[ITEMS];
	uint32_t item_count;
	struct sl_random random;
	struct place places[SL_SIM_PLACES];
	struct one ones[CALLS];
	struct rig rig;
	uint64_t opened, merged, apart, retried, moved, ends[4], spooled, lettered, letters_spooled,
		crashes[3];
};

extern struct world sl_sim;

static inline uint64_t below(uint64_t most)
{
	return sl_random_below(&sl_sim.random, most);
}

static inline bool one_in(unsigned n)
{
	return below(n) == 0;
}

// places.c: the destinations of a snapshot are these, before a shard sees it.
void sl_sim_adjust(struct sl_routing *routing);
