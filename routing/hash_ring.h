#pragma once

#include "dataplane/base/base.h"

// Consistent hashing over a set of named members: keys fall on slots, slots on members by a ring of
// points (xxHash of name and number), and no member owns more than `bound` times the mean of them.
//
// It is a function of the names and of which of them are up, of nothing else: not of their order,
// nor of what was before. So shards, and gateways side by side, agree on who owns a key. When a
// member goes down its slots alone move, to the next on the ring that have room; when it comes back
// they return. A member that is added takes its share and leaves the rest (nearly, see the tests)
// where it was.
//
// Threading: one owner. Memory: by malloc; about 4 KiB a member and 32 KiB. Time: none.
#define SL_RING_MEMBERS_MAX 64
#define SL_RING_NONE        UINT32_MAX

struct sl_ring;

// `bound` is at least 1.01. NULL when out of memory. All are up at first.
struct sl_ring *sl_ring_create(const char *const *names, uint32_t count, double bound);
void sl_ring_destroy(struct sl_ring *ring); // NULL is fine
// A bit a member, by its place in `names`. Returns whether anything changed.
bool sl_ring_set_up(struct sl_ring *ring, uint64_t up);
// Who owns a key, as its place in `names`; SL_RING_NONE when nobody is up.
uint32_t sl_ring_owner(const struct sl_ring *ring, struct sl_bytes key);
// How many of a thousand keys it owns.
uint32_t sl_ring_share(const struct sl_ring *ring, uint32_t member);
