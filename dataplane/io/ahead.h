#pragma once

#include <sys/epoll.h>

#include "dataplane/io/io.h"

// Of thousands of connections each event meets a cold one, and would wait for memory at each
// pointer. Here some of them take each step together, so that they wait together.
//
// Threading: the io's. Memory: only fetched, never changed; a connection that an upcall closes
//            meanwhile is there until its closed(), in a later turn.
#define SL_IO_FETCH_MAX 32

void sl_io_fetch(struct sl_conn *const *conns, unsigned count);
// The connections of at most SL_IO_FETCH_MAX events. Their pointers are those without a tag.
#define SL_IO_EVENT_TAGS 3
void sl_io_fetch_events(const struct epoll_event *events, unsigned count);
