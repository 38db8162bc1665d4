#pragma once

#include "dataplane/base/base.h"

// Wakes a thread that blocks in its poll (an eventfd). Threading: wake from any thread; the
// owner waits on `fd` and clears. Many wakes before a clear cost one system call.
struct sl_waker {
	int fd;
	uint32_t pending; // 1 between a wake and the clear
};

// Returns 0 or -errno.
int sl_waker_init(struct sl_waker *waker);
void sl_waker_fini(struct sl_waker *waker);
void sl_waker_wake(struct sl_waker *waker);
// Owner: forget earlier wakes; call before looking at what was announced.
void sl_waker_clear(struct sl_waker *waker);
