#pragma once

#include "config/module.h"
#include "dataplane/base/metrics.h"

// The control thread: signals, reload (SIGHUP, POST /reload, and when the file or a file it names
// changes), reclamation of snapshots, the admin HTTP server, systemd's
// notifications, and an orderly end. Admin calls are served by the same loop between its other
// duties, so nothing here needs a lock.
//
// Threading: sl_control_run() is the calling thread's; hooks are called from it. The module table
// must hold sl_process_module. Memory: `options` is copied, what it points to must live on.
struct sl_control_hooks {
	void *self;
	uint32_t shards;
	// Rules between modules: reports to `errors` what start would refuse. May be NULL.
	void (*check)(void *self, const struct sl_snapshot *snapshot, struct sl_errors *errors);
	// A snapshot was published: wake shards that block.
	void (*published)(void *self, const struct sl_snapshot *snapshot);
	// No new connections or calls, GOAWAY.
	void (*drain)(void *self);
	// Abandon what is open, leave the loops.
	void (*stop)(void *self);
	bool (*is_idle)(void *self);
	// Whether /readyz says so, where the data comes in: told when it changes. May be NULL.
	void (*ready)(void *self, bool ready);
	// Since when the shard's budget has been full, monotonic; 0: it is not.
	uint64_t (*full_since_ns)(void *self, uint32_t shard);
	// The first certificate's end, seconds since the epoch; 0: none. May be NULL.
	int64_t (*certificate_expiry)(void *self, const struct sl_snapshot *snapshot);
};

struct sl_control_options {
	const struct sl_module *modules;
	uint32_t module_count;
	struct sl_snapshots *snapshots; // with hooks.shards + 1 readers
	struct sl_metrics *metrics;
	struct sl_ledger *ledger; // or NULL; outlives the control
	const char *file;         // the configuration's
	struct sl_control_hooks hooks;
};

struct sl_control;

// Blocks the signals that the loop takes (SIGHUP, SIGTERM, SIGINT) and ignores SIGPIPE: call it
// before the first thread starts.
void sl_control_block_signals(void);

// Whether the classes that routes and sampling rules name are there. Where tenants come from Redis
// too, their classes are not known beforehand.
void sl_control_check_classes(const struct sl_snapshot *snapshot, struct sl_errors *errors);
// Reports what quotas.redis names and cannot be used (TLS files), as start would.
void sl_control_check_quotas(const struct sl_snapshot *snapshot, struct sl_errors *errors);

// Opens the admin server. NULL with errno set (EADDRINUSE ...), after a log line.
struct sl_control *sl_control_create(const struct sl_control_options *options);
void sl_control_destroy(struct sl_control *control);
// Runs until drained after SIGTERM, SIGINT or sl_control_end(). Returns 0, or -ETIMEDOUT when
// something was abandoned at drain_timeout (or at a second signal).
int sl_control_run(struct sl_control *control);
// From any thread, as SIGTERM.
void sl_control_end(struct sl_control *control);
// The admin server's port; 0: none.
uint16_t sl_control_admin_port(const struct sl_control *control);
