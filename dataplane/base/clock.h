#pragma once

#include "dataplane/base/base.h"

// The two clocks. Only loops read them (a shard once a turn, the control thread, tools): every
// other layer is given the time. Threading: any.

// Monotonic time in ns; never 0.
uint64_t sl_clock_now_ns(void);

// Wall time in ns since the epoch.
uint64_t sl_clock_wall_ns(void);
