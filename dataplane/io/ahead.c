#include "dataplane/io/ahead.h"

void sl_io_fetch(struct sl_conn *const *conns, unsigned count)
{
	for (unsigned step = 0; step < SL_IO_FETCH_STEPS; step++) {
		for (unsigned i = 0; i < count; i++) {
			if (conns[i]->upcalls->fetch)
				conns[i]->upcalls->fetch(conns[i], step);
		}
	}
}

void sl_io_fetch_events(const struct epoll_event *events, unsigned count)
{
	struct sl_conn *conns[SL_IO_FETCH_MAX];
	unsigned conn_count = 0;

	assert(count <= SL_IO_FETCH_MAX);
	for (unsigned i = 0; i < count; i++) {
		if ((uintptr_t)events[i].data.ptr & SL_IO_EVENT_TAGS)
			continue;
		conns[conn_count] = events[i].data.ptr;
		sl_prefetch(conns[conn_count++]);
	}
	sl_io_fetch(conns, conn_count);
}
