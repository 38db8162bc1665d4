#pragma once

#include "dataplane/base/address.h"

// Listening sockets: opened here, or inherited from a service manager or an older process by the
// LISTEN_FDS convention (sd_listen_fds(3)), so that a new process takes over without a gap.
//
// Threading: main, before the shards start. Memory: descriptors belong to the caller.
// Errors:    negative errno, and a text for the operator ("listen 0.0.0.0:4317: in use ...").
struct sl_listen_options {
	int backlog;           // 0: as many as the system allows
	bool reuse_port;       // several sockets on one address, each with its own queue
	bool datagrams;        // UDP instead of TCP
	uint64_t buffer_bytes; // of datagrams that wait; as many as the system allows
};

// Opens a non-blocking listener; an unspecified IPv6 address (":4317") takes IPv4 as well, and
// becomes 0.0.0.0 where the system has no IPv6. Port 0 picks a free one (sl_io_local_address).
int sl_io_open_listener(const struct sl_address *address, const struct sl_listen_options *options,
			char *error, size_t error_size);

// The address a socket is bound to. Returns 0 or -errno.
int sl_io_local_address(int fd, struct sl_address *address);

#define SL_INHERITED_MAX 64

struct sl_inherited {
	int fds[SL_INHERITED_MAX]; // -1: taken
	struct sl_address addresses[SL_INHERITED_MAX];
	uint32_t count;
};

// Finds the listeners this process was started with and forgets the environment's variables, so
// that children do not take them for theirs. What is not a listening TCP socket is left alone.
void sl_inherited_init(struct sl_inherited *inherited);
// The inherited listener of `address`, which is the caller's from now on; -1: there is none.
int sl_inherited_take(struct sl_inherited *inherited, const struct sl_address *address);
// Closes what nobody took.
void sl_inherited_fini(struct sl_inherited *inherited);
