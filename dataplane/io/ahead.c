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
