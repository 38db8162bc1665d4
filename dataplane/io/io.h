#pragma once

#include <sys/uio.h>

#include "dataplane/base/address.h"
#include "dataplane/base/memory.h"
#include "dataplane/base/timer.h"
#include "dataplane/base/waker.h"

// The narrow interface between byte streams and everything above: one instance a shard, over the
// kernel (kernel.c) or another backend. A shard's loop calls sl_io_poll(); upcalls come from there.
//
// Threading: an io and its connections belong to one shard; only its waker may be used from others.
// Memory:    a connection is embedded in its owner (session or client), which must keep it until
//            `closed`. Received bytes are valid during the upcall only and are consumed at once.
// Time:      upcalls carry the turn's time; nothing above reads a clock.
// Errors:    negative errno.
struct sl_io;
struct sl_io_backend;
struct sl_conn;

enum sl_close {
	SL_CLOSE_LOCAL,   // we asked for it
	SL_CLOSE_PEER,    // orderly end by the peer
	SL_CLOSE_RESET,   // connection reset, broken pipe
	SL_CLOSE_REFUSED, // connect failed
	SL_CLOSE_TIMEOUT,
};

#define SL_IO_FETCH_STEPS 3

struct sl_io_upcalls {
	// An outgoing connection is up.
	void (*connected)(struct sl_conn *conn, uint64_t now_ns);
	void (*received)(struct sl_conn *conn, struct sl_bytes bytes, uint64_t now_ns);
	// All pieces given to the last write() are gone: their memory may be reused, and write()
	// may be called again. Not called when write() took everything at once (it then returned
	// 0).
	void (*sent)(struct sl_conn *conn, uint64_t now_ns);
	// The peer has ended its direction (a half-close): nothing more will be received, writing
	// still works, and closing is the owner's. Optional: without it the connection closes, with
	// SL_CLOSE_PEER, once what is pending has gone.
	void (*ended)(struct sl_conn *conn, uint64_t now_ns);
	// Optional: bytes of this connection are about to be received. Fetches into the cache what
	// received() will look at, as far as pointers can be followed in `step` of
	// SL_IO_FETCH_STEPS: each step may read what the one before has fetched. Many connections
	// take a step together, so that they wait for memory together. Changes nothing.
	void (*fetch)(struct sl_conn *conn, unsigned step);
	// The last upcall: the backend has let go of the connection and of all memory. `error` is
	// the errno behind it, or 0.
	void (*closed)(struct sl_conn *conn, enum sl_close why, int error);
};

struct sl_conn {
	struct sl_io *io;
	const struct sl_io_upcalls *upcalls;
	struct sl_address peer;
	// The backend's.
	const struct sl_io_backend *backend; // NULL: a kernel socket
	void *stream;                        // of the other backend
	int fd;
	uint16_t state;
	uint8_t interest, why; // what epoll watches for; the closed() that is due
	int error;
	uint32_t lowat_bytes; // as set on the socket; 1 when never set
	bool writing;         // a write is pending: write() must not be called before sent()
	bool read_paused;
	bool later;            // the owner's: served after all others, a few a turn
	struct iovec *pending; // what the socket did not take; from the shard's memory
	uint32_t pending_count, pending_index;
	size_t pending_capacity;
	uint32_t discarded_bytes;    // while lingering
	struct sl_conn *prev, *next; // in the io's list of connections
	struct sl_timer timer;
};

// A listening socket that this shard accepts from (shared with other shards: EPOLLEXCLUSIVE).
// `accepted` owns `fd` and passes it on: to sl_io_adopt here, or to another shard by ring.
// With `fd` SL_IO_FD_BACKEND the attached backend listens, on `address`; its accepted() passes that
// same value on, only to sl_io_adopt here and before it returns: what is not adopted is closed.
#define SL_IO_FD_BACKEND (-2)
struct sl_listener {
	int fd;
	struct sl_address address; // for the backend only
	void (*accepted)(struct sl_listener *listener, int fd, const struct sl_address *peer,
			 uint64_t now_ns);
};

struct sl_io_options {
	uint64_t spin_ns;  // poll without blocking for so long after the last event
	bool busy;         // never block
	uint64_t nap_ns;   // sleep so long before waiting when the last turn was recent; 0: never
	size_t read_bytes; // the shard's one read buffer (preset 256 KiB)
	uint32_t connections_max;
};

struct sl_io_stats { // of this io, for tests and metrics; writer: the shard
	uint64_t polls, reads, writes, read_bytes, written_bytes, accepts, lowat_changes;
	uint64_t connections; // now
	uint64_t idle_ns;     // time in which there was nothing to do
};

// Kernel backend. `memory` serves pending pieces, `timers` lingering and connect timeouts.
// Returns NULL with errno set.
struct sl_io *sl_io_create_kernel(const struct sl_io_options *options, struct sl_memory *memory,
				  struct sl_timers *timers, struct sl_waker *waker);
// All connections must have been closed before.
void sl_io_destroy(struct sl_io *io);
const struct sl_io_stats *sl_io_stats(const struct sl_io *io);

// One turn: wait for at most `wait_ns` (less when a timer is due), read the clock, run the timers,
// then deliver events: at most one read a connection. `now_ns` gets the turn's time.
// Returns the number of events, or -errno.
int sl_io_poll(struct sl_io *io, uint64_t wait_ns, uint64_t *now_ns);

int sl_io_listen(struct sl_io *io, struct sl_listener *listener);
void sl_io_unlisten(struct sl_io *io, struct sl_listener *listener);

// A descriptor of the neighbours' (datagram.c) that is watched for reading, until it is closed.
struct sl_io_watch {
	int fd;
	void (*ready)(struct sl_io_watch *watch, uint64_t now_ns);
};
int sl_io_watch(struct sl_io *io, struct sl_io_watch *watch);

// Makes `conn` the owner of an accepted socket. `upcalls` must be set. On failure `fd` is closed.
int sl_io_adopt(struct sl_io *io, struct sl_conn *conn, int fd, const struct sl_address *peer);

// Starts to connect; ends in connected() or closed(). A failure at once is returned and has no
// upcall.
int sl_io_connect(struct sl_io *io, struct sl_conn *conn, const struct sl_address *to,
		  uint64_t timeout_ns);

// Writes the pieces with one system call. Returns 0 when all went, 1 when a rest is pending (the
// pieces' memory, not the array, must stay until sent()), or -errno after which closed() follows.
// Must not be called while conn->writing. `now_ns` as in the upcall.
int sl_io_write(struct sl_conn *conn, const struct iovec *pieces, size_t count);

// More than `bytes` are still to come before anything can be done: wake up only then (SO_RCVLOWAT,
// bounded by the read buffer, and by a 10 ms timer so that control frames are not held back).
// 1 ends it. A system call only when the value changes.
void sl_io_want(struct sl_conn *conn, size_t bytes);

// Stop and start reading (back-pressure on HTTP/1; never used on HTTP/2).
void sl_io_pause(struct sl_conn *conn, bool paused);

// What a lingering connection hears out: many clients look for an answer only when they have
// written all, and a close before that resets them. As large as OTLP's own limit of a body.
#define SL_IO_LINGER_BYTES_MAX (64 * SL_MIB)

// Closes. With `linger_ns` the write side is shut down, further input is discarded (at most
// SL_IO_LINGER_BYTES_MAX) until the peer closes or the time is over. closed() follows in a later
// turn, never from inside; until then no other upcall comes.
void sl_io_close(struct sl_conn *conn, uint64_t linger_ns);
// Resets: no TIME_WAIT, pending bytes are dropped.
void sl_io_abort(struct sl_conn *conn);
