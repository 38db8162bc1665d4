#include "dataplane/base/waker.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

int sl_waker_init(struct sl_waker *waker)
{
	*waker = (struct sl_waker){.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
	return waker->fd < 0 ? -errno : 0;
}

void sl_waker_fini(struct sl_waker *waker)
{
	if (waker->fd >= 0)
		close(waker->fd);
	waker->fd = -1;
}

void sl_waker_wake(struct sl_waker *waker)
{
	const uint64_t one = 1;

	if (__atomic_exchange_n(&waker->pending, 1, __ATOMIC_ACQ_REL))
		return;
	// The counter cannot overflow: one write a clear. An interrupted write is repeated.
	while (write(waker->fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void sl_waker_clear(struct sl_waker *waker)
{
	uint64_t count;

	if (!__atomic_load_n(&waker->pending, __ATOMIC_ACQUIRE))
		return;
	while (read(waker->fd, &count, sizeof(count)) < 0) {
		// The wake that set `pending` has not written yet. Cleared now, its write would
		// leave the descriptor readable with nobody to read it.
		if (errno != EINTR)
			return;
	}
	// A wake between the read and here finds `pending` set and writes nothing, but what it
	// announced was pushed before its exchange, which this one synchronizes with.
	__atomic_exchange_n(&waker->pending, 0, __ATOMIC_ACQ_REL);
}
