#pragma once

#include <pthread.h>

#include "dataplane/base/base.h"

// Threads beside the shards: no signal is delivered to them, and they run where the main thread may
// run, whoever starts them (a shard has a core of its own).
//
// Threading: any.

// `name` has at most 15 bytes and static storage. `*thread` is to be joined; NULL: nobody joins it.
// Returns 0 or -errno.
int sl_thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *argument);
