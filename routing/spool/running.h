#pragma once

#include <pthread.h>

#include "dataplane/base/disk.h"
#include "dataplane/base/log.h"
#include "dataplane/base/outage.h"
#include "dataplane/base/sides.h"
#include "routing/spool/spool.h"

// What the files of a spool with its thread share: spool.c, the thread and the shards' sides;
// holders.c, who has it open.
//
// Threading: as each field says; open, refuses and publish are the thread's, and its starter's
// before it runs.

#define SL_SPOOL_GROUP_MAX      256 // records appended at once
#define SL_SPOOL_BACKOFF_MIN_NS (100 * SL_MS)

// Records go down to the thread, replays come up from it.
struct sl_spool_side {
	struct sl_side base;
	uint32_t retired; // writer: the shard
};

struct sl_spool_handed {
	struct sl_record *record;
	struct sl_side *side;
};

struct sl_spool {
	struct sl_spool *next; // under `lock`
	uint32_t references;   // under `lock`
	bool changing;         // under `lock`: it is opened or ended by the thread that said so
	char *path;
	struct sl_sides sides;
	uint32_t behind;
	uint64_t refuse_until_ns, refuse_bytes; // writer: the thread; and of at least so many bytes
	const char *cause; // writers: the shards; the thread takes it. Why records come
	pthread_mutex_t settings_lock;
	struct sl_spool_config config; // under settings_lock
	uint32_t config_version;
	// News, under settings_lock; `teller` is the side that passes them on.
	struct sl_spool_news news;
	struct sl_side *teller;
	bool untold; // under settings_lock: nobody has asked since they changed
	// The thread's.
	struct sl_spool_config now;
	uint32_t now_version;
	struct sl_spool_store *store; // NULL: the disk has not let us open it yet
	int lock_fd;                  // of the folder; -1: none
	struct sl_spool_figures told;
	struct sl_side *turn;
	struct sl_spool_handed group[SL_SPOOL_GROUP_MAX];
	struct sl_spool_write writes[SL_SPOOL_GROUP_MAX];
	uint64_t kept_items; // of the group
	struct sl_outage outage;
	bool dirty, refusing, told_refusing;
	uint64_t synced_ns, ticked_ns, open_due_ns;
	struct sl_log_spell not_opened;
	uint32_t out_count;
	uint64_t out_bytes;
	bool failing, delivered; // delivered: the last one that ended
	bool held;               // until try_ns
	uint32_t probes;
	uint64_t try_ns, backoff_ns;
};

// Takes the folder and opens the store. Returns 0 or -errno with the reason in `why`.
int sl_spool_open(struct sl_spool *spool, char why[SL_DISK_WHY]);
// Says so, once; shards hand over nothing of so many bytes or more for a moment.
void sl_spool_refuses(struct sl_spool *spool, uint64_t bytes, const char *why);
extern const struct sl_sides_kind sl_spool_sides;
void *sl_spool_thread(void *spool);
// What the store's figures have become, for whoever tells them.
void sl_spool_publish(struct sl_spool *spool);
struct sl_spool_limits sl_spool_limits_of(const struct sl_spool_config *config);
