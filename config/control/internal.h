#pragma once

#include "config/control/control.h"
#include "config/control/process.h"

extern const struct sl_label sl_label_reload_result;
#define SL_LABEL_COUNT_reload_result 2
enum { SL_RELOAD_SUCCESS, SL_RELOAD_FAILURE };

#define SL_CONTROL_COUNTERS(X)                                                                     \
	X(reloads, COUNTER, "sluice_config_reloads", reload_result,                                \
	  "Reloads of the configuration, by result.")                                              \
	X(last_reload, GAUGE, "sluice_config_last_reload_timestamp_seconds", none,                 \
	  "When the configuration that runs was loaded.")                                          \
	X(generation, GAUGE, "sluice_config_generation", none,                                     \
	  "Grows with each published configuration.")                                              \
	X(retired, GAUGE, "sluice_config_retired_snapshots", none,                                 \
	  "Old configurations that a shard may still look at.")                                    \
	X(draining, GAUGE, "sluice_draining", none, "1 from the begin of a drain.")                \
	X(started, GAUGE, "sluice_process_start_timestamp_seconds", none,                          \
	  "When the process started.")                                                             \
	X(certificate, GAUGE, "sluice_tls_certificate_expiry_timestamp_seconds", none,             \
	  "When the first of the certificates ends; 0: there is none.")
SL_COUNTERS(control, SL_CONTROL_COUNTERS)

struct sl_control_build_counters {
	uint64_t info[1];
};

struct sl_admin;
struct sl_quota_thread;

struct sl_control {
	struct sl_control_options options;
	struct sl_control_counters counters;
	struct sl_control_build_counters build;
	struct sl_admin *admin;
	struct sl_quota_thread *quota;
	struct sl_source_thread *source; // NULL: no tenants.redis
	struct sl_ledger_thread *ledger; // NULL: none is kept
	char **watched;
	uint32_t watched_count;
	uint64_t watched_stamp;
	int signal_fd, wake_fd;
	uint64_t drain_began_ns; // 0: not draining
	int log_level;           // as the configuration said last; -1: not yet
	bool unready;            // as the hook was told last
	bool drain_told, ending, abandoned;
	uint64_t watchdog_ns;
};

const struct sl_process_config *sl_control_config(const struct sl_control *control);
// Loads the file anew; lines in `errors`. Returns whether a new snapshot was published.
bool sl_control_reload(struct sl_control *control, const char *why, struct sl_errors *errors);
void sl_control_drain(struct sl_control *control);
// Whether it takes traffic; `text` says why not, a line a reason.
bool sl_control_is_ready(const struct sl_control *control, char *text, size_t size);

// Tells systemd `state` ("READY=1"); nothing when nobody asked.
void sl_notify(const char *state);
// Half of WATCHDOG_USEC in ns; 0: no watchdog.
uint64_t sl_notify_watchdog_ns(void);

struct sl_admin *sl_admin_create(struct sl_control *control, const struct sl_address *address);
void sl_admin_destroy(struct sl_admin *admin);
int sl_admin_fd(const struct sl_admin *admin);
void sl_admin_run(struct sl_admin *admin);
uint16_t sl_admin_port(const struct sl_admin *admin);
