#pragma once

#include "dataplane/base/base.h"

// A bounded queue of pointers between two threads: one producer, one consumer, no lock.
//
// Threading: push from one thread, pop from one other. Memory: slots belong to the ring.
struct sl_ring {
	void **slots;
	uint32_t mask;
	_Alignas(SL_CACHE_LINE) uint32_t head; // writer: the producer
	uint32_t tail_seen;                    // the producer's copy of tail
	_Alignas(SL_CACHE_LINE) uint32_t tail; // writer: the consumer
	uint32_t head_seen;                    // the consumer's copy of head
};

// `count` is rounded up to a power of two. Returns 0 or -ENOMEM.
int sl_ring_init(struct sl_ring *ring, uint32_t count);
void sl_ring_fini(struct sl_ring *ring);

// Returns false when the ring is full.
SL_INLINE bool sl_ring_push(struct sl_ring *ring, void *item)
{
	const uint32_t head = ring->head;

	if (SL_UNLIKELY(head - ring->tail_seen > ring->mask)) {
		ring->tail_seen = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
		if (head - ring->tail_seen > ring->mask)
			return false;
	}
	ring->slots[head & ring->mask] = item;
	__atomic_store_n(&ring->head, head + 1, __ATOMIC_RELEASE);
	return true;
}

// Returns NULL when the ring is empty.
SL_INLINE void *sl_ring_pop(struct sl_ring *ring)
{
	const uint32_t tail = ring->tail;
	void *item;

	if (tail == ring->head_seen) {
		ring->head_seen = __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE);
		if (tail == ring->head_seen)
			return NULL;
	}
	item = ring->slots[tail & ring->mask];
	__atomic_store_n(&ring->tail, tail + 1, __ATOMIC_RELEASE);
	return item;
}
