#pragma once

#include "dataplane/io/io.h"

// Whether somebody listens: a TCP connection that comes up and is reset again, with nothing said.
//
// Threading: one shard. Memory: embedded in its owner, who must keep it until ended().
struct sl_probe {
	struct sl_conn conn; // first: upcalls cast back
	bool up;
	// Exactly once, after a start that returned 0. `error` NULL: it came up; else why not.
	void (*ended)(struct sl_probe *probe, const char *error);
};

// `ended` is set. Returns 0 or -errno.
int sl_probe_start(struct sl_probe *probe, struct sl_io *io, const struct sl_address *to,
		   uint64_t timeout_ns);
void sl_probe_cancel(struct sl_probe *probe); // ended() follows in a later turn
