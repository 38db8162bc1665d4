#pragma once

#include "config/module.h"
#include "dataplane/base/metrics.h"
#include "tenants/ledger/ledger.h"

// The ledger's settings and its thread: it folds the shards' books, keeps the file, and sends usage
// records. A thread of its own, since it waits for disks, and walks over all tenants.
//
// Threading: made and destroyed by the control thread, before and after all shards; configured by
// it at each published snapshot.
struct sl_kafka_config;
struct sl_process_config;

struct sl_ledger_usage_config {
	struct sl_where where;
	const char *destination, *topic;
	struct sl_kafka_config *kafka; // NULL: that of `destination`
	uint64_t interval_ns;
};

struct sl_ledger_config {
	struct sl_where where;
	const char *path; // NULL: in memory only
	uint64_t interval_ns, accounts, export_max, departed_ns;
	struct sl_ledger_usage_config *usage; // NULL: none
};

extern const struct sl_settings sl_ledger_settings;

// Reports what start would refuse: a destination that is not there or no Kafka, its settings.
void sl_control_check_ledger(const struct sl_snapshot *snapshot, struct sl_errors *errors);

// What usage records are sent with; NULL: none are.
const struct sl_kafka_config *sl_control_usage_kafka(const struct sl_snapshot *snapshot);

// The ledger as configured, with what its file has. A file that cannot be taken is kept aside, with
// a line in the log. NULL with errno set, after a log line: no memory, or a path that cannot be
// written.
struct sl_ledger *sl_control_open_ledger(const struct sl_process_config *config, uint32_t shards);

struct sl_ledger_thread;
// NULL with errno set. `ledger` outlives it.
struct sl_ledger_thread *sl_ledger_thread_create(struct sl_ledger *ledger,
						 struct sl_metrics *metrics,
						 const struct sl_snapshot *snapshot);
// A snapshot has been published.
void sl_ledger_thread_configure(struct sl_ledger_thread *self, const struct sl_snapshot *snapshot);
// All shards have ended: the last fold, cut and save. NULL is fine.
void sl_ledger_thread_destroy(struct sl_ledger_thread *self);
