#pragma once

#include "dataplane/io/io.h"

// A second source of connections beside a shard's kernel sockets (the DPDK port). The kernel's io
// stays the one that blocks and keeps time; it passes on what concerns a connection of the other.
//
// Threading: as the io it is attached to. Memory: belongs to the io once attached.
// Errors:    negative errno.
struct sl_io_backend;
struct sl_datagram_source;

// Of connections that are served later (sl_conn.later): so many a turn, and so much of each.
// Whoever is not one of them waits for no more than that.
#define SL_IO_LATER_MAX        2
#define SL_IO_LATER_READ_BYTES (64 * SL_KIB)

struct sl_io_backend_ops {
	// What was written leaves the machine now, before anything blocks.
	void (*flush)(struct sl_io_backend *backend);
	// Takes what has come, runs the upcalls. Returns the number of events.
	unsigned (*poll)(struct sl_io_backend *backend, uint64_t now_ns);
	int (*listen)(struct sl_io_backend *backend, struct sl_listener *listener);
	void (*unlisten)(struct sl_io_backend *backend, struct sl_listener *listener);
	// Makes `conn` the owner of the connection that accepted() is being called for.
	int (*adopt)(struct sl_io_backend *backend, struct sl_conn *conn);
	int (*write)(struct sl_conn *conn, const struct iovec *pieces, size_t count);
	void (*pause)(struct sl_conn *conn, bool paused);
	void (*close)(struct sl_conn *conn, uint64_t linger_ns);
	void (*abort)(struct sl_conn *conn);
	// datagram.h
	int (*take_datagrams)(struct sl_io_backend *backend, struct sl_datagram_source *source);
	void (*leave_datagrams)(struct sl_io_backend *backend, struct sl_datagram_source *source);
	void (*destroy)(struct sl_io_backend *backend);
};

struct sl_io_backend {
	const struct sl_io_backend_ops *ops;
	struct sl_io *io;          // set by attach, as are the two below
	struct sl_io_stats *stats; // of the io; writer: the shard
	uint32_t connections_max;  // 0: no bound
	uint64_t idle_ns;          // an idle shard may block so long; 0: never
	struct sl_memory *memory;  // for pending pieces
	struct sl_timers *timers;
};

// At most one, before the first poll.
void sl_io_attach(struct sl_io *io, struct sl_io_backend *backend);

// What both kinds of connection do alike: their lists, and the rest of a write.
SL_INLINE void sl_conn_link(struct sl_conn **list, struct sl_conn *conn)
{
	conn->prev = NULL;
	conn->next = *list;
	if (conn->next)
		conn->next->prev = conn;
	*list = conn;
}

SL_INLINE void sl_conn_unlink(struct sl_conn **list, struct sl_conn *conn)
{
	if (conn->prev)
		conn->prev->next = conn->next;
	else
		*list = conn->next;
	if (conn->next)
		conn->next->prev = conn->prev;
}

// Moves `index` past `sent` bytes and shortens the piece it stops in.
SL_INLINE uint32_t sl_pieces_advance(struct iovec *pieces, uint32_t index, uint32_t count,
				     size_t sent)
{
	while (index < count && sent >= pieces[index].iov_len)
		sent -= pieces[index++].iov_len;
	if (sent) {
		assert(index < count);
		pieces[index].iov_base = (uint8_t *)pieces[index].iov_base + sent;
		pieces[index].iov_len -= sent;
	}
	return index;
}
