#include <stdlib.h>

#include "config/module.h"

// Reclamation by quiescent states. `epoch` grows with each publication, after `current` has been
// exchanged. A reader that enters writes the epoch it saw, then reads `current`; both sides use
// sequentially consistent operations, so either the reader sees the new snapshot or the control
// thread sees the reader's old epoch. A retired snapshot is free when every reader is offline (0)
// or has entered at its epoch or later.
struct reader {
	uint64_t seen; // writer: the reader; 0: offline
	char pad[SL_CACHE_LINE - sizeof(uint64_t)];
};

struct sl_snapshots {
	struct sl_snapshot *current; // writer: control
	uint64_t epoch;              // writer: control
	struct sl_snapshot *retired; // control only
	uint32_t reader_count;
	char pad[SL_CACHE_LINE];
	struct reader readers[];
};

struct sl_snapshots *sl_snapshots_create(uint32_t readers, struct sl_snapshot *first)
{
	const size_t bytes = sizeof(struct sl_snapshots) + readers * sizeof(struct reader);
	struct sl_snapshots *snapshots = calloc(1, bytes);

	if (!snapshots)
		return NULL;
	snapshots->current = first;
	snapshots->epoch = 1;
	snapshots->reader_count = readers;
	return snapshots;
}

void sl_snapshots_destroy(struct sl_snapshots *snapshots, const struct sl_module *modules,
			  uint32_t count)
{
	if (!snapshots)
		return;
	for (uint32_t i = 0; i < snapshots->reader_count; i++)
		assert(!__atomic_load_n(&snapshots->readers[i].seen, __ATOMIC_SEQ_CST));
	sl_snapshots_reclaim(snapshots, modules, count);
	assert(!snapshots->retired);
	sl_snapshot_destroy(modules, count, snapshots->current);
	free(snapshots);
}

struct sl_snapshot *sl_snapshots_enter(struct sl_snapshots *snapshots, uint32_t reader)
{
	struct reader *self = &snapshots->readers[reader];
	const uint64_t epoch = __atomic_load_n(&snapshots->epoch, __ATOMIC_SEQ_CST);

	assert(reader < snapshots->reader_count);
	// Online at this epoch already: nothing newer was published, nothing to tell.
	if (__atomic_load_n(&self->seen, __ATOMIC_RELAXED) != epoch)
		__atomic_store_n(&self->seen, epoch, __ATOMIC_SEQ_CST);
	return __atomic_load_n(&snapshots->current, __ATOMIC_SEQ_CST);
}

void sl_snapshots_leave(struct sl_snapshots *snapshots, uint32_t reader)
{
	assert(reader < snapshots->reader_count);
	__atomic_store_n(&snapshots->readers[reader].seen, 0, __ATOMIC_RELEASE);
}

void sl_snapshots_publish(struct sl_snapshots *snapshots, struct sl_snapshot *next)
{
	struct sl_snapshot *old = __atomic_exchange_n(&snapshots->current, next, __ATOMIC_SEQ_CST);

	old->retired_epoch = __atomic_add_fetch(&snapshots->epoch, 1, __ATOMIC_SEQ_CST);
	old->next = snapshots->retired;
	snapshots->retired = old;
}

uint32_t sl_snapshots_reclaim(struct sl_snapshots *snapshots, const struct sl_module *modules,
			      uint32_t count)
{
	struct sl_snapshot **link = &snapshots->retired;
	uint64_t oldest = UINT64_MAX;
	uint32_t waiting = 0;

	for (uint32_t i = 0; i < snapshots->reader_count; i++) {
		const uint64_t seen = __atomic_load_n(&snapshots->readers[i].seen,
						      __ATOMIC_SEQ_CST);

		if (seen)
			oldest = SL_MIN(oldest, seen);
	}
	while (*link) {
		struct sl_snapshot *snapshot = *link;

		if (snapshot->retired_epoch <= oldest) {
			*link = snapshot->next;
			sl_snapshot_destroy(modules, count, snapshot);
		} else {
			link = &snapshot->next;
			waiting++;
		}
	}
	return waiting;
}

struct sl_snapshot *sl_snapshots_current(struct sl_snapshots *snapshots)
{
	return snapshots->current;
}
