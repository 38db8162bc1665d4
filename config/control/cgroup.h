#pragma once

#include "dataplane/base/base.h"

// What the cgroup (version 2) leaves us: the least of cpu.max and memory.max from our own group up
// to the mount. Threading: any. Memory: none.
#define SL_CGROUP_MOUNT "/sys/fs/cgroup"
#define SL_CGROUP_SELF  "/proc/self/cgroup"

struct sl_cgroup_limits {
	double cpus;           // 0: no limit
	uint64_t memory_bytes; // 0: no limit
};

// `self` names the file with our group's path ("0::/a/b"). What cannot be read is no limit.
struct sl_cgroup_limits sl_cgroup_limits(const char *mount, const char *self);
