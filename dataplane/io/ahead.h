#pragma once

#include "dataplane/io/io.h"

// Of thousands of connections each event meets a cold one, and would wait for memory at each
// pointer. Here some of them take each step together, so that they wait together.
//
// Threading: the io's. Memory: only fetched, never changed; a connection that an upcall closes
//            meanwhile is there until its closed(), in a later turn.
void sl_io_fetch(struct sl_conn *const *conns, unsigned count);
