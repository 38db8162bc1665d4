#pragma once

#include "config/module.h"
#include "dataplane/base/metrics.h"

// The quota thread: the authority's tick every SL_QUOTA_TICK_NS, of this instance alone or, with
// quotas.redis, as one of a fleet, whose links it carries. A thread of its own, because a reload
// of many tenants and /metrics keep the control thread for longer than a tick.
//
// Who owns what: pools' levels and the registry's authority are this thread's, names and numbers
// of the registry the control thread's; it sees them by the snapshot, of which it is a reader.
//
// Threading: made and destroyed by the control thread, before and after all shards.
struct sl_quota_thread;

// Starts it. `reader` is its number among the snapshots' readers. NULL with errno set, after a log
// line.
struct sl_quota_thread *sl_quota_thread_create(struct sl_snapshots *snapshots, uint32_t reader,
					       struct sl_metrics *metrics);
void sl_quota_thread_destroy(struct sl_quota_thread *quota); // NULL is fine
// Now and then, from the control thread's loop: writes quotas.volume_file when it is time.
void sl_quota_thread_save(struct sl_quota_thread *quota, uint64_t now_ns);
