#pragma once

#include "dataplane/base/random.h"
#include "routing/spool/store.h"

// A disk, a clock and a scheduler for the spool, which is the real one: the linker sends its system
// calls here (CMakeLists.txt), and its thread runs as a coroutine that stops where it would wait.
//
//   what is written ──▶ `now`, as the process sees it ──sync──▶ `kept`, what a power cut leaves
//
// Calls are slow, fail, write halves or find the disk full as a seed says. A crash may come in the
// middle of one: from then on none has any effect. A power cut keeps what was synced, and of the
// rest any sectors; a sync that failed lets go of what it should have kept, as Linux does.
//
// Threading: one. Memory: until sl_sim_disk_fini().
#define SL_SIM_FOLDER "/simulated" // all below is on this disk

struct sl_sim_disk_config {
	uint64_t bytes_max;                  // of all files; 0: any
	unsigned slow, failing, open;        // one call in so many; 0: none
	uint64_t calls_to_crash;             // 0: none
	uint64_t segment_bytes, spool_bytes; // in place of the spool's own limits
};

void sl_sim_disk_init(uint64_t seed, const struct sl_sim_disk_config *config);
void sl_sim_disk_fini(void);
// Other faults, from now on.
void sl_sim_disk_set(const struct sl_sim_disk_config *config);
// The process is dead: nothing that it does has an effect any more.
void sl_sim_disk_crash(void);
bool sl_sim_disk_crashed(void);
// What the next process finds. `power`: the machine failed with it.
void sl_sim_disk_restart(bool power);

// The time that the spool sees; what is due by it runs, each spool's thread until it waits.
void sl_sim_disk_run(uint64_t now_ns);

// Figures over all that has been, for whoever reads a run's outcome.
struct sl_sim_disk_figures {
	uint64_t syncs, failed, full, torn, lost_sectors;
};
extern struct sl_sim_disk_figures sl_sim_disk_figures;
