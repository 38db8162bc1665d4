#include "routing/hash_ring.h"

#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#define SLOT_BITS 13
#define SLOTS     (1u << SLOT_BITS) // 128 for each of the most members
#define POINTS    256               // of a member: its share of the ring is off by about 6 %
#define SEED      UINT64_C(0x51c1ce)

static_assert(SL_RING_MEMBERS_MAX <= 64, "a bit each");

struct point {
	uint64_t at;
	uint32_t member;
};

struct sl_ring {
	uint32_t count, point_count;
	double bound;
	uint64_t up;
	uint8_t base[SLOTS];   // owners while all are up
	uint8_t owner[SLOTS];  // now
	uint16_t first[SLOTS]; // the point where a slot's walk begins
	uint32_t owned[SL_RING_MEMBERS_MAX];
	char *names[SL_RING_MEMBERS_MAX];
	struct point points[];
};

static int by_place(const void *a, const void *b, void *user)
{
	const struct point *left = a, *right = b;
	const struct sl_ring *ring = user;

	if (left->at != right->at)
		return left->at < right->at ? -1 : 1;
	// Two names' points on one place: the order of the names must not matter.
	return strcmp(ring->names[left->member], ring->names[right->member]);
}

static void place_points(struct sl_ring *ring)
{
	char text[300];

	for (uint32_t i = 0; i < ring->count; i++) {
		for (uint32_t j = 0; j < POINTS; j++) {
			const int size = snprintf(text, sizeof(text), "%s#%u", ring->names[i], j);

			ring->points[ring->point_count++] = (struct point){
				XXH3_64bits_withSeed(text, (size_t)size, SEED), i};
		}
	}
	qsort_r(ring->points, ring->point_count, sizeof(*ring->points), by_place, ring);
	for (uint32_t slot = 0, at = 0; slot < SLOTS; slot++) {
		while (at < ring->point_count && ring->points[at].at < (uint64_t)slot
									       << (64 - SLOT_BITS))
			at++;
		ring->first[slot] = (uint16_t)(at % ring->point_count);
	}
}

// The next on the ring that is up and has room.
static uint8_t walk(const struct sl_ring *ring, uint32_t slot, uint64_t up, uint32_t most)
{
	uint32_t at = ring->first[slot];

	for (uint32_t i = 0; i < ring->point_count; i++) {
		const uint32_t member = ring->points[at].member;

		if (up >> member & 1 && ring->owned[member] < most)
			return (uint8_t)member;
		at = at + 1 < ring->point_count ? at + 1 : 0;
	}
	assert(!"the bound leaves room for all");
	return 0;
}

static uint32_t most_of(const struct sl_ring *ring, uint64_t up)
{
	const double mean = (double)SLOTS / __builtin_popcountl(up);

	return (uint32_t)(mean * ring->bound) + 1;
}

static uint64_t all_of(const struct sl_ring *ring)
{
	return ring->count == 64 ? UINT64_MAX : (UINT64_C(1) << ring->count) - 1;
}

static void assign_all(struct sl_ring *ring)
{
	const uint32_t most = most_of(ring, ring->up);

	for (uint32_t slot = 0; slot < SLOTS; slot++) {
		ring->base[slot] = walk(ring, slot, ring->up, most);
		ring->owned[ring->base[slot]]++;
	}
	memcpy(ring->owner, ring->base, sizeof(ring->owner));
}

// What those that are down own when all are up goes to the others.
static void assign_orphans(struct sl_ring *ring)
{
	const uint32_t most = ring->up ? most_of(ring, ring->up) : 0;

	memset(ring->owned, 0, sizeof(ring->owned));
	for (uint32_t slot = 0; slot < SLOTS; slot++)
		ring->owned[ring->base[slot]] += ring->up >> ring->base[slot] & 1;
	for (uint32_t slot = 0; slot < SLOTS && ring->up; slot++) {
		ring->owner[slot] = ring->base[slot];
		if (ring->up >> ring->base[slot] & 1)
			continue;
		ring->owner[slot] = walk(ring, slot, ring->up, most);
		ring->owned[ring->owner[slot]]++;
	}
}

struct sl_ring *sl_ring_create(const char *const *names, uint32_t count, double bound)
{
	struct sl_ring *ring = calloc(1, sizeof(*ring) + count * POINTS * sizeof(struct point));

	assert(count && count <= SL_RING_MEMBERS_MAX && bound >= 1.01);
	if (!ring)
		return NULL;
	for (ring->count = 0; ring->count < count; ring->count++) {
		ring->names[ring->count] = strdup(names[ring->count]);
		if (!ring->names[ring->count]) {
			sl_ring_destroy(ring);
			return NULL;
		}
	}
	ring->bound = bound;
	ring->up = all_of(ring);
	place_points(ring);
	assign_all(ring);
	return ring;
}

void sl_ring_destroy(struct sl_ring *ring)
{
	if (!ring)
		return;
	for (uint32_t i = 0; i < ring->count; i++)
		free(ring->names[i]);
	free(ring);
}

bool sl_ring_set_up(struct sl_ring *ring, uint64_t up)
{
	up &= all_of(ring);
	if (up == ring->up)
		return false;
	ring->up = up;
	assign_orphans(ring);
	return true;
}

uint32_t sl_ring_owner(const struct sl_ring *ring, struct sl_bytes key)
{
	if (SL_UNLIKELY(!ring->up))
		return SL_RING_NONE;
	return ring->owner[XXH3_64bits_withSeed(key.data, key.size, SEED) >> (64 - SLOT_BITS)];
}

uint32_t sl_ring_share(const struct sl_ring *ring, uint32_t member)
{
	return ring->owned[member] * 1000 / SLOTS;
}
