#include <errno.h>
#include <unistd.h>

#include "dataplane/base/clock.h"
#include "dataplane/io/ahead.h"
#include "dataplane/io/dpdk/internal.h"

// Streams of the stack as connections of io.h: the same states and the same upcalls as kernel.c has
// over sockets, in the same order. Whatever ends a connection lets go of its stream at once and
// puts it on `closing`; closed() comes from the next poll.
#define FINISH_NS (2 * SL_S)

enum { OPEN = 1, LINGERING = 4, CLOSING = 8, ENDED = 16, SHUT = 32 };

static struct sl_lane *lane_of(const struct sl_conn *conn)
{
	return SL_CONTAINER_OF(conn->backend, struct sl_lane, backend);
}

static void end(struct sl_conn *conn, enum sl_close why, int error, bool reset)
{
	struct sl_lane *lane = lane_of(conn);
	struct sl_stream *stream = conn->stream;

	assert(!(conn->state & CLOSING));
	sl_timer_cancel(lane->backend.timers, &conn->timer);
	stream->owner = NULL;
	lane->ops->drop(stream, reset);
	conn->stream = NULL;
	conn->state = CLOSING;
	conn->why = (uint8_t)why;
	conn->error = error;
	sl_conn_unlink(&lane->open, conn);
	sl_conn_link(&lane->closing, conn);
}

static void release_pending(struct sl_conn *conn)
{
	sl_memory_give(conn->backend->memory, conn->pending, conn->pending_capacity);
	conn->pending = NULL;
	conn->pending_count = conn->pending_index = 0;
	conn->writing = false;
}

static void finish_closing(struct sl_lane *lane)
{
	struct sl_conn *conn = lane->closing;

	lane->closing = NULL;
	while (conn) {
		struct sl_conn *next = conn->next;
		struct sl_io_stats *stats = lane->backend.stats;

		release_pending(conn);
		conn->next = conn->prev = NULL;
		conn->state = 0;
		sl_gauge(&stats->connections, stats->connections - 1);
		conn->upcalls->closed(conn, (enum sl_close)conn->why, conn->error);
		conn = next;
	}
}

static void linger_over(struct sl_timer *timer, uint64_t now_ns)
{
	struct sl_conn *conn = SL_CONTAINER_OF(timer, struct sl_conn, timer);

	(void)now_ns;
	end(conn, SL_CLOSE_LOCAL, 0, conn->writing);
}

static void address_of(struct sl_address *address, const struct sl_endpoint *endpoint)
{
	*address = (struct sl_address){.size = sizeof(address->u.v6)};
	if (sl_endpoint_is_v4(endpoint->address)) {
		address->size = sizeof(address->u.v4);
		address->u.v4.sin_family = AF_INET;
		address->u.v4.sin_port = htons(endpoint->port);
		memcpy(&address->u.v4.sin_addr, endpoint->address + 12, 4);
	} else {
		address->u.v6.sin6_family = AF_INET6;
		address->u.v6.sin6_port = htons(endpoint->port);
		memcpy(&address->u.v6.sin6_addr, endpoint->address, 16);
	}
}

static int adopt(struct sl_io_backend *backend, struct sl_conn *conn)
{
	struct sl_lane *lane = SL_CONTAINER_OF(backend, struct sl_lane, backend);
	struct sl_stream *stream = lane->accepting;

	assert(stream && conn->upcalls && conn->upcalls->closed);
	if (backend->connections_max && backend->stats->connections >= backend->connections_max)
		return -EMFILE;
	lane->accepting = NULL;
	lane->fetch = sl_io_fetch;
	stream->owner = conn;
	conn->io = backend->io;
	conn->backend = backend;
	conn->stream = stream;
	address_of(&conn->peer, &stream->peer);
	conn->fd = -1;
	conn->state = OPEN;
	conn->writing = conn->read_paused = false;
	conn->pending = NULL;
	conn->pending_capacity = 0;
	conn->pending_count = conn->pending_index = conn->discarded_bytes = 0;
	conn->timer = (struct sl_timer){.fire = linger_over};
	sl_conn_link(&lane->open, conn);
	sl_gauge(&backend->stats->connections, backend->stats->connections + 1);
	return 0;
}

// --- writing ------------------------------------------------------------------------------------

static ssize_t send_pieces(struct sl_conn *conn, const struct iovec *pieces, size_t count)
{
	struct sl_lane *lane = lane_of(conn);
	const ssize_t sent = lane->ops->write(conn->stream, pieces, count);

	sl_count(&lane->backend.stats->writes, 1);
	if (sent > 0)
		sl_count(&lane->backend.stats->written_bytes, (uint64_t)sent);
	return sent;
}

static int write_some(struct sl_conn *conn, const struct iovec *pieces, size_t count)
{
	size_t first = 0, sent;
	ssize_t result;

	if (!(conn->state & OPEN))
		return -EPIPE;
	result = send_pieces(conn, pieces, count);
	if (result < 0) {
		end(conn, SL_CLOSE_RESET, (int)-result, true);
		return (int)result;
	}
	sent = (size_t)result;
	while (first < count && sent >= pieces[first].iov_len)
		sent -= pieces[first++].iov_len;
	if (first == count)
		return 0;
	conn->pending = sl_memory_take_reserve(
		conn->backend->memory, (count - first) * sizeof(*pieces), &conn->pending_capacity);
	if (!conn->pending) {
		end(conn, SL_CLOSE_LOCAL, ENOMEM, true);
		return -ENOMEM;
	}
	memcpy(conn->pending, pieces + first, (count - first) * sizeof(*pieces));
	conn->pending_count = (uint32_t)(count - first);
	conn->pending_index = sl_pieces_advance(conn->pending, 0, conn->pending_count, sent);
	conn->writing = true;
	return 1;
}

static void shut(struct sl_conn *conn)
{
	// Without memory for a FIN the lingering's end resets: rare, and no worse.
	(void)lane_of(conn)->ops->shut(conn->stream);
	conn->state |= SHUT;
	if (conn->state & ENDED)
		end(conn, SL_CLOSE_LOCAL, 0, false);
}

static void writable(struct sl_conn *conn, uint64_t now_ns)
{
	const uint32_t left = conn->pending_count - conn->pending_index;
	const ssize_t sent = send_pieces(conn, conn->pending + conn->pending_index, left);

	if (sent < 0) {
		end(conn, conn->state & LINGERING ? SL_CLOSE_LOCAL : SL_CLOSE_RESET, (int)-sent,
		    true);
		return;
	}
	conn->pending_index = sl_pieces_advance(conn->pending, conn->pending_index,
						conn->pending_count, (size_t)sent);
	if (conn->pending_index < conn->pending_count)
		return;
	if (conn->state & LINGERING) {
		// The pieces' memory is the owner's again at closed(), as nobody told it earlier.
		conn->writing = false;
		shut(conn);
		return;
	}
	release_pending(conn);
	if ((conn->state & ENDED) && !conn->upcalls->ended)
		end(conn, SL_CLOSE_PEER, 0, false);
	else
		conn->upcalls->sent(conn, now_ns);
}

// --- reading ------------------------------------------------------------------------------------

static void readable(struct sl_conn *conn, uint64_t now_ns)
{
	struct sl_lane *lane = lane_of(conn);
	struct sl_stream *stream = conn->stream;
	size_t room = conn->later ? SL_IO_LATER_READ_BYTES : SIZE_MAX;
	struct sl_bytes bytes;

	// What the upcall closes has no stream any more.
	while (conn->stream == stream && !(conn->state & CLOSING) &&
	       (!conn->read_paused || (conn->state & LINGERING)) &&
	       lane->ops->peek(stream, &bytes)) {
		const size_t size = bytes.size;
		const bool lingering = conn->state & LINGERING;

		sl_count(&lane->backend.stats->reads, 1);
		sl_count(&lane->backend.stats->read_bytes, size);
		if (!lingering && size)
			conn->upcalls->received(conn, bytes, now_ns);
		if (conn->state & CLOSING)
			return;
		lane->ops->eat(stream);
		if (SL_UNLIKELY(size >= room)) {
			lane->ops->again(stream); // the rest in its next turn
			break;
		}
		room -= size;
		if (!lingering)
			continue;
		conn->discarded_bytes += (uint32_t)size;
		if (conn->discarded_bytes > SL_IO_LINGER_BYTES_MAX) {
			end(conn, SL_CLOSE_LOCAL, 0, true);
			return;
		}
	}
	lane->ops->ate(stream);
}

static void peer_ended(struct sl_conn *conn, uint64_t now_ns)
{
	conn->state |= ENDED;
	if (conn->state & LINGERING) {
		if (conn->state & SHUT)
			end(conn, SL_CLOSE_LOCAL, 0, false);
	} else if (conn->upcalls->ended) {
		conn->upcalls->ended(conn, now_ns);
	} else if (!conn->writing) {
		end(conn, SL_CLOSE_PEER, 0, false);
	}
}

static bool has_unread(struct sl_conn *conn)
{
	struct sl_bytes bytes;

	return lane_of(conn)->ops->peek(conn->stream, &bytes);
}

static void conn_event(struct sl_conn *conn, uint8_t events, uint64_t now_ns)
{
	struct sl_stream *stream = conn->stream;

	if (events & SL_STREAM_READABLE)
		readable(conn, now_ns);
	if (conn->state & CLOSING)
		return;
	if (events & SL_STREAM_FAILED) {
		const int error = stream->error;

		end(conn,
		    conn->state & LINGERING ? SL_CLOSE_LOCAL
		    : error == ETIMEDOUT    ? SL_CLOSE_TIMEOUT
					    : SL_CLOSE_RESET,
		    error, true);
		return;
	}
	if ((events & SL_STREAM_WRITABLE) && conn->writing)
		writable(conn, now_ns);
	if (conn->state & CLOSING)
		return;
	// Behind the last byte, which a paused connection has yet to take.
	if ((events & SL_STREAM_ENDED) && has_unread(conn))
		stream->events |= SL_STREAM_ENDED;
	else if (events & SL_STREAM_ENDED)
		peer_ended(conn, now_ns);
}

static void accepted(struct sl_lane *lane, struct sl_stream *stream, uint64_t now_ns)
{
	struct sl_listener *listener = stream->listener;
	struct sl_address peer;

	address_of(&peer, &stream->peer);
	sl_count(&lane->backend.stats->accepts, 1);
	lane->accepting = stream;
	listener->accepted(listener, SL_IO_FD_BACKEND, &peer, now_ns);
	if (lane->accepting)
		lane->ops->drop(stream, false); // refused: nobody adopted it
	lane->accepting = NULL;
}

// Of a connection that is served later: not before all others have been. It goes to the queue's
// end, and when it comes from there SL_IO_LATER_MAX may pass; the rest stay for the next turn.
static bool comes_later(struct sl_lane *lane, struct sl_stream *stream, unsigned *passed)
{
	const struct sl_conn *conn = stream->owner;

	if (SL_LIKELY(!conn || !conn->later))
		return false;
	if (stream->turn == lane->turn && *passed < SL_IO_LATER_MAX) {
		++*passed;
		return false;
	}
	lane->ops->again(stream);
	return true;
}

static unsigned poll(struct sl_io_backend *backend, uint64_t now_ns)
{
	struct sl_lane *lane = SL_CONTAINER_OF(backend, struct sl_lane, backend);
	unsigned events = sl_lane_receive(lane, now_ns), later = 0;
	struct sl_stream *stream;

	finish_closing(lane);
	lane->ops->tick(lane->stack, now_ns);
	lane->turn++;
	while ((stream = lane->ops->next_ready(lane->stack))) {
		uint8_t happened = stream->events;

		events++;
		if (comes_later(lane, stream, &later)) {
			if (stream->turn == lane->turn)
				break;
			stream->turn = lane->turn;
			continue;
		}
		stream->events = 0;
		if (happened & SL_STREAM_ACCEPTED) {
			if (happened & SL_STREAM_FAILED) {
				lane->ops->drop(stream, true);
				continue;
			}
			accepted(lane, stream, now_ns);
			if (!stream->owner)
				continue;
		}
		if (stream->owner)
			conn_event(stream->owner, happened, now_ns);
	}
	events += lane->closing != NULL;
	sl_count(events ? &lane->counters.busy[0] : &lane->counters.idle[0], 1);
	return events;
}

// --- the owner's wishes -------------------------------------------------------------------------

static bool is_over(const struct sl_conn *conn)
{
	return conn->state == 0 || (conn->state & CLOSING);
}

static void pause_reading(struct sl_conn *conn, bool paused)
{
	struct sl_lane *lane = lane_of(conn);

	if (!(conn->state & OPEN) || conn->read_paused == paused)
		return;
	conn->read_paused = paused;
	if (!paused && (has_unread(conn) || ((struct sl_stream *)conn->stream)->events))
		lane->ops->again(conn->stream);
}

static void close_conn(struct sl_conn *conn, uint64_t linger_ns)
{
	struct sl_lane *lane = lane_of(conn);

	if (is_over(conn) || (linger_ns && (conn->state & LINGERING)))
		return;
	if (!linger_ns || !(conn->state & OPEN)) {
		end(conn, SL_CLOSE_LOCAL, 0, false);
		return;
	}
	conn->state = (uint16_t)((conn->state & ~OPEN) | LINGERING);
	sl_timer_set(lane->backend.timers, &conn->timer, lane->now_ns + linger_ns);
	if (has_unread(conn))
		lane->ops->again(conn->stream);
	if (!conn->writing)
		shut(conn);
}

static void abort_conn(struct sl_conn *conn)
{
	if (!is_over(conn))
		end(conn, SL_CLOSE_LOCAL, 0, true);
}

static int listen_at(struct sl_io_backend *backend, struct sl_listener *listener)
{
	struct sl_lane *lane = SL_CONTAINER_OF(backend, struct sl_lane, backend);
	const struct sl_address *address = &listener->address;
	struct sl_endpoint at = {.port = sl_address_port(address)};

	for (unsigned i = 0; i < SL_COUNT_OF(lane->listening); i++) {
		if (lane->listening[i].listener)
			continue;
		if (address->u.any.sa_family == AF_INET6) {
			memcpy(at.address, &address->u.v6.sin6_addr, 16);
		} else if (address->u.v4.sin_addr.s_addr) {
			at.address[10] = at.address[11] = 0xff;
			memcpy(at.address + 12, &address->u.v4.sin_addr, 4);
		}
		lane->listening[i].handle = lane->ops->listen(lane->stack, &at, listener);
		if (!lane->listening[i].handle)
			return -EADDRINUSE;
		lane->listening[i].listener = listener;
		return 0;
	}
	return -ENOSPC;
}

static void unlisten(struct sl_io_backend *backend, struct sl_listener *listener)
{
	struct sl_lane *lane = SL_CONTAINER_OF(backend, struct sl_lane, backend);

	for (unsigned i = 0; i < SL_COUNT_OF(lane->listening); i++) {
		if (lane->listening[i].listener != listener)
			continue;
		lane->ops->unlisten(lane->stack, lane->listening[i].handle);
		lane->listening[i].listener = NULL;
	}
}

static void flush(struct sl_io_backend *backend)
{
	sl_lane_send(SL_CONTAINER_OF(backend, struct sl_lane, backend));
}

static bool any_link(const struct sl_dpdk *dpdk)
{
	bool up = false;

	for (uint32_t i = 0; i < dpdk->port_count; i++)
		up = up || sl_port_is_up(&dpdk->ports[i]);
	return up;
}

// What a shard left open when it was stopped ends in order, as sockets do with their process;
// nobody is there any more for upcalls. Main is a thread of the EAL's.
static void leave(struct sl_lane *lane)
{
	lane->registered = true;
	lane->datagram_count = 0;
	for (struct sl_conn *conn = lane->open; conn; conn = conn->next) {
		struct sl_stream *stream = conn->stream;

		stream->owner = NULL;
		lane->ops->drop(stream, false);
	}
	lane->open = NULL;
}

static void turn(struct sl_lane *lane, uint64_t now_ns)
{
	struct sl_stream *stream;

	sl_lane_receive(lane, now_ns);
	lane->ops->tick(lane->stack, now_ns);
	while ((stream = lane->ops->next_ready(lane->stack)))
		lane->ops->drop(stream, true); // came too late
	sl_lane_send(lane);
}

static bool any_owes(const struct sl_dpdk *dpdk)
{
	for (uint32_t i = 0; i < dpdk->shards; i++) {
		if (dpdk->lanes[i]->ops->owes(dpdk->lanes[i]->stack))
			return true;
	}
	return false;
}

// A socket that is closed still delivers what was written to it. Here nobody else would: the last
// answers and FINs of a drain are seen through, as long as their peers acknowledge. Without a link
// nobody does. All lanes turn, as one's frames come and go by another's queue; those with a queue
// are the first ones and come last, with what the others have just given them.
void sl_dpdk_finish(struct sl_dpdk *dpdk)
{
	const uint64_t until_ns = sl_clock_now_ns() + FINISH_NS;
	uint64_t now_ns;

	for (uint32_t i = 0; dpdk && i < dpdk->shards; i++)
		leave(dpdk->lanes[i]);
	while (dpdk) {
		now_ns = sl_clock_now_ns();
		for (uint32_t i = dpdk->shards; i-- > 0;)
			turn(dpdk->lanes[i], now_ns);
		if (now_ns >= until_ns || !any_link(dpdk) || !any_owes(dpdk))
			return;
		usleep(100);
	}
}

// The lane stays: its neighbours need its queue and its rings.
static void destroy(struct sl_io_backend *backend)
{
	struct sl_lane *lane = SL_CONTAINER_OF(backend, struct sl_lane, backend);

	assert(!lane->open && !lane->closing);
	backend->io = NULL;
	backend->stats = NULL;
	backend->memory = NULL;
	backend->timers = NULL;
}

const struct sl_io_backend_ops sl_dpdk_backend_ops = {
	.flush = flush,
	.poll = poll,
	.listen = listen_at,
	.unlisten = unlisten,
	.adopt = adopt,
	.write = write_some,
	.pause = pause_reading,
	.close = close_conn,
	.abort = abort_conn,
	.take_datagrams = sl_lane_take_datagrams,
	.leave_datagrams = sl_lane_leave_datagrams,
	.destroy = destroy,
};
