#pragma once

#include "dataplane/io/io.h"

// Datagrams (UDP) as they come, beside the connections of io.h: from kernel sockets here, or from
// the attached backend's port. Nothing is ever sent.
//
// Threading: a source belongs to one shard; each shard has a socket of its own on the same address
//            (SO_REUSEPORT), over which the kernel spreads flows.
// Memory:    bytes and peer are valid during the upcall only. A source is embedded in its owner,
//            which keeps it until leave.
// Time:      passed up. Errors: negative errno.
#define SL_DATAGRAM_BYTES_MAX 65507 // what UDP over IPv4 carries
#define SL_DATAGRAMS_A_TURN   64    // of one source

struct sl_datagram_source {
	struct sl_io_watch watch; // .fd: a UDP socket, or SL_IO_FD_BACKEND
	struct sl_address address;
	uint32_t bytes_max; // what is longer comes cut, with `truncated`
	void (*received)(struct sl_datagram_source *source, const struct sl_address *peer,
			 struct sl_bytes bytes, bool truncated, uint64_t now_ns);
	// The backend's.
	struct sl_datagram_room *room; // NULL: of the other backend, or not joined
};

// Takes datagrams from now on. `backend` is the one attached to `io`, or NULL.
int sl_datagrams_join(struct sl_io *io, struct sl_io_backend *backend,
		      struct sl_datagram_source *source);
// Takes no more; the descriptor is closed. Twice does nothing.
void sl_datagrams_leave(struct sl_io_backend *backend, struct sl_datagram_source *source);
// How many the kernel has dropped since the socket's buffer was full. A system call.
uint64_t sl_datagrams_missed(const struct sl_datagram_source *source);
