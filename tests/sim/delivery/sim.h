#pragma once

#include <sys/uio.h>

#include "dataplane/base/base.h"

// What the simulation's files share.
#define SL_SIM_PLACES   4    // destinations a, b, c, and d for dead letters
#define SL_SIM_UIDS_MAX 2048 // items of one record

// Says what does not hold, and how to see it again; ends the program.
__attribute__((format(printf, 1, 2), noreturn)) void sl_sim_broken(const char *format, ...);
// Whether the run is told on stdout.
bool sl_sim_tells(void);

// Every span bears a number of its own: those of a body, in its order.
uint32_t sl_sim_uids(const struct iovec *pieces, uint32_t piece_count, uint32_t *uids);

// spools.c: what each spool was given, and must give back.

// For the run's spools: as their store has them, in place of what the settings say.
struct sl_sim_spool_limits {
	uint64_t bytes_max, segment_bytes, age_max_ns;
	bool drops; // the oldest, when full
};

void sl_sim_spools_init(const struct sl_sim_spool_limits *limits);
// The process was ended. What the spool has not synced may be lost with the power.
void sl_sim_spools_restart(bool power);
// All spools are empty: nothing is missing.
void sl_sim_spools_check_empty(void);
uint64_t sl_sim_spools_out(void); // entries that came out, of all

// main.c: this item may be lost there, as its entry was neither synced nor kept by a limit.
void sl_sim_excuse(unsigned place, uint32_t uid);
