#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/log.h"
#include "dataplane/io/backend.h"
#include "dataplane/io/socket.h"

// The kernel's sockets by epoll, level-triggered: one read a connection and turn leaves the rest to
// the next turn without a list of our own, and SO_RCVLOWAT decides what counts as readable.
//
// A connection goes CONNECTING -> OPEN -> (LINGERING ->) CLOSING. Whatever ends it puts it on
// `closing`; closed() is called from the next poll only, before new events are taken. So no event
// can meet a connection whose memory has gone.
#define EVENTS_MAX      256
#define ACCEPTS_MAX     16   // a listener and turn: the others wait for their bytes
#define PIECES_MAX      1024 // IOV_MAX
#define RECENT_NS       (240 * SL_US)
#define LOWAT_MIN       (16 * SL_KIB)
#define LOWAT_PATIENCE  (10 * SL_MS)
#define LOOK_NS         (100 * SL_US) // sockets beside a busy backend: a call costs some packets
#define ACCEPT_AGAIN_NS (100 * SL_MS)
#define READ_BYTES      (256 * SL_KIB)

enum { OPEN = 1, CONNECTING = 2, LINGERING = 4, CLOSING = 8, ENDED = 16, SHUT = 32 };

// What an event's pointer points to is told by its low bits.
enum { TAG_CONN = 0, TAG_LISTENER = 1, TAG_WAKER = 2, TAG_WATCH = 3, TAG_MASK = 3 };

struct io_listener {
	struct sl_listener *listener; // NULL: free
	bool waiting;                 // taken out of epoll until descriptors are to be had
};

struct sl_io {
	struct sl_io_options options;
	struct sl_memory *memory;
	struct sl_timers *timers;
	struct sl_waker *waker;
	int epoll;
	bool no_pwait2;                              // the kernel is older than 5.11
	bool slack_set;                              // of the thread that polls
	uint32_t low_count;                          // connections with a SO_RCVLOWAT
	uint64_t now_ns, event_ns, turn_ns, look_ns; // look: when epoll is asked at the latest
	bool idle;                                   // the last poll had no event
	struct sl_conn *open, *closing;
	struct io_listener *listeners;
	uint32_t listener_count;
	struct sl_timer accept_timer;
	struct sl_io_stats stats;
	struct sl_io_backend *backend; // or NULL
	unsigned backend_events;       // of its last poll
	uint8_t *buffer;
	struct epoll_event events[EVENTS_MAX];
	uint32_t later_at; // whose turn it is among those served later
	bool deferred;     // some of them wait
};

// --- set-up -------------------------------------------------------------------------------------

static void accept_again(struct sl_timer *timer, uint64_t now_ns);

static int watch(struct sl_io *io, int fd, uint32_t events, void *pointer, unsigned tag)
{
	struct epoll_event event = {.events = events,
				    .data.ptr = (void *)((uintptr_t)pointer | tag)};

	return epoll_ctl(io->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

struct sl_io *sl_io_create_kernel(const struct sl_io_options *options, struct sl_memory *memory,
				  struct sl_timers *timers, struct sl_waker *waker)
{
	struct sl_io *io = calloc(1, sizeof(*io));
	int failed;

	if (!io)
		return NULL;
	io->options = *options;
	if (!io->options.read_bytes)
		io->options.read_bytes = READ_BYTES;
	io->memory = memory;
	io->timers = timers;
	io->waker = waker;
	io->accept_timer.fire = accept_again;
	io->now_ns = sl_clock_now_ns();
	io->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (io->epoll < 0)
		goto fail;
	io->buffer = aligned_alloc(4096, (io->options.read_bytes + 4095) & ~(size_t)4095);
	if (!io->buffer)
		goto fail;
	failed = waker ? watch(io, waker->fd, EPOLLIN, waker, TAG_WAKER) : 0;
	if (!failed)
		return io;
	errno = -failed;
fail:
	failed = errno;
	sl_io_destroy(io);
	errno = failed;
	return NULL;
}

void sl_io_destroy(struct sl_io *io)
{
	if (!io)
		return;
	assert(!io->open && !io->closing);
	if (io->backend)
		io->backend->ops->destroy(io->backend);
	sl_timer_cancel(io->timers, &io->accept_timer);
	if (io->epoll >= 0)
		close(io->epoll);
	free(io->buffer);
	free(io->listeners);
	free(io);
}

void sl_io_attach(struct sl_io *io, struct sl_io_backend *backend)
{
	assert(!io->backend);
	io->backend = backend;
	backend->io = io;
	backend->stats = &io->stats;
	backend->connections_max = io->options.connections_max;
	backend->memory = io->memory;
	backend->timers = io->timers;
}

const struct sl_io_stats *sl_io_stats(const struct sl_io *io)
{
	return &io->stats;
}

// --- a connection's state -----------------------------------------------------------------------

// Tells epoll what is of interest now; a system call only when that changed.
static void update_interest(struct sl_conn *conn)
{
	const bool reads = (conn->state & LINGERING) ||
			   ((conn->state & OPEN) && !conn->read_paused);
	const uint8_t wanted = (reads && !(conn->state & ENDED) ? EPOLLIN : 0) |
			       (conn->writing || (conn->state & CONNECTING) ? EPOLLOUT : 0);
	struct epoll_event event = {.events = wanted, .data.ptr = conn};

	if (wanted == conn->interest)
		return;
	// Memory can fail a MOD only where it could an ADD; the fd and epoll are ours.
	(void)epoll_ctl(conn->io->epoll, EPOLL_CTL_MOD, conn->fd, &event);
	conn->interest = wanted;
}

static void set_lowat(struct sl_conn *conn, uint32_t bytes)
{
	const int value = (int)bytes;

	if (conn->lowat_bytes == bytes)
		return;
	if (setsockopt(conn->fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value)) < 0)
		return;
	conn->io->low_count += (bytes > 1) - (conn->lowat_bytes > 1);
	conn->lowat_bytes = bytes;
	sl_count(&conn->io->stats.lowat_changes, 1);
}

static void release_pending(struct sl_conn *conn)
{
	sl_memory_give(conn->io->memory, conn->pending, conn->pending_capacity);
	conn->pending = NULL;
	conn->pending_count = conn->pending_index = 0;
	conn->writing = false;
}

// The end of the socket; closed() is due at the next poll.
static void end(struct sl_conn *conn, enum sl_close why, int error)
{
	struct sl_io *io = conn->io;

	assert(!(conn->state & CLOSING));
	sl_timer_cancel(io->timers, &conn->timer);
	io->low_count -= conn->lowat_bytes > 1;
	conn->lowat_bytes = 1;
	close(conn->fd); // leaves epoll by itself
	conn->fd = -1;
	conn->state = CLOSING;
	conn->why = (uint8_t)why;
	conn->error = error;
	sl_conn_unlink(&io->open, conn);
	sl_conn_link(&io->closing, conn);
}

static void finish_closing(struct sl_io *io)
{
	struct sl_conn *conn = io->closing;

	// What these upcalls close waits for the next turn.
	io->closing = NULL;
	assert(!conn || !conn->prev);
	while (conn) {
		struct sl_conn *next = conn->next;

		release_pending(conn);
		conn->next = conn->prev = NULL;
		conn->state = 0;
		sl_gauge(&io->stats.connections, io->stats.connections - 1);
		conn->upcalls->closed(conn, (enum sl_close)conn->why, conn->error);
		conn = next;
	}
}

// One timer serves the three times a connection can wait for; its state tells which it is.
static void conn_timer(struct sl_timer *timer, uint64_t now_ns)
{
	struct sl_conn *conn = SL_CONTAINER_OF(timer, struct sl_conn, timer);

	(void)now_ns;
	if (conn->state & CONNECTING)
		end(conn, SL_CLOSE_TIMEOUT, ETIMEDOUT);
	else if (conn->state & LINGERING)
		end(conn, SL_CLOSE_LOCAL, 0);
	else
		set_lowat(conn, 1); // what lies in the socket now makes it readable
}

static int begin(struct sl_io *io, struct sl_conn *conn, int fd, const struct sl_address *peer,
		 uint16_t state)
{
	const uint32_t events = state == OPEN ? EPOLLIN : EPOLLOUT;
	int failed;

	assert(conn->upcalls && conn->upcalls->closed);
	if (io->options.connections_max && io->stats.connections >= io->options.connections_max)
		return -EMFILE;
	failed = watch(io, fd, events, conn, TAG_CONN);
	if (failed)
		return failed;
	conn->io = io;
	conn->backend = NULL;
	conn->peer = *peer;
	conn->fd = fd;
	conn->state = state;
	conn->interest = (uint8_t)events;
	conn->lowat_bytes = 1;
	conn->writing = conn->read_paused = false;
	conn->pending = NULL;
	conn->pending_count = conn->pending_index = conn->discarded_bytes = 0;
	conn->timer = (struct sl_timer){.fire = conn_timer};
	sl_conn_link(&io->open, conn);
	sl_gauge(&io->stats.connections, io->stats.connections + 1);
	return 0;
}

int sl_io_adopt(struct sl_io *io, struct sl_conn *conn, int fd, const struct sl_address *peer)
{
	int failed;

	if (fd == SL_IO_FD_BACKEND)
		return io->backend->ops->adopt(io->backend, conn);
	failed = begin(io, conn, fd, peer, OPEN);
	if (failed) {
		close(fd);
		return failed;
	}
	sl_socket_set_options(fd);
	return 0;
}

int sl_io_connect(struct sl_io *io, struct sl_conn *conn, const struct sl_address *to,
		  uint64_t timeout_ns)
{
	const int fd = socket(to->u.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int failed = 0;

	if (fd < 0)
		return -errno;
	sl_socket_set_options(fd);
	if (connect(fd, &to->u.any, to->size) < 0 && errno != EINPROGRESS)
		failed = -errno;
	if (!failed)
		failed = begin(io, conn, fd, to, CONNECTING);
	if (failed) {
		close(fd);
		return failed;
	}
	sl_timer_set(io->timers, &conn->timer, sl_clock_now_ns() + timeout_ns);
	return 0;
}

// --- writing ------------------------------------------------------------------------------------

// One sendmsg. Returns the bytes taken (0: the socket is full) or -errno.
static ssize_t send_pieces(struct sl_conn *conn, const struct iovec *pieces, size_t count)
{
	const struct msghdr message = {.msg_iov = (struct iovec *)pieces,
				       .msg_iovlen = SL_MIN(count, (size_t)PIECES_MAX)};
	struct sl_io *io = conn->io;
	ssize_t sent;

	do {
		sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (sent < 0 && errno == EINTR);
	sl_count(&io->stats.writes, 1);
	if (sent < 0)
		return errno == EAGAIN || errno == ENOBUFS ? 0 : -errno;
	sl_count(&io->stats.written_bytes, (uint64_t)sent);
	return sent;
}

static int keep_rest(struct sl_conn *conn, const struct iovec *pieces, size_t count, size_t sent)
{
	size_t first = 0;

	while (first < count && sent >= pieces[first].iov_len)
		sent -= pieces[first++].iov_len;
	if (first == count)
		return 0;
	conn->pending = sl_memory_take_reserve(conn->io->memory, (count - first) * sizeof(*pieces),
					       &conn->pending_capacity);
	if (!conn->pending)
		return -ENOMEM;
	memcpy(conn->pending, pieces + first, (count - first) * sizeof(*pieces));
	conn->pending_count = (uint32_t)(count - first);
	conn->pending_index = sl_pieces_advance(conn->pending, 0, conn->pending_count, sent);
	conn->writing = true;
	update_interest(conn);
	return 1;
}

int sl_io_write(struct sl_conn *conn, const struct iovec *pieces, size_t count)
{
	ssize_t sent;
	int rest;

	assert(!conn->writing);
	if (conn->backend)
		return conn->backend->ops->write(conn, pieces, count);
	if (!(conn->state & OPEN))
		return conn->state & CONNECTING ? -ENOTCONN : -EPIPE;
	sent = send_pieces(conn, pieces, count);
	rest = sent < 0 ? (int)sent : keep_rest(conn, pieces, count, (size_t)sent);
	if (rest < 0)
		end(conn, rest == -ENOMEM ? SL_CLOSE_LOCAL : SL_CLOSE_RESET, -rest);
	return rest;
}

static void shut(struct sl_conn *conn)
{
	shutdown(conn->fd, SHUT_WR);
	conn->state |= SHUT;
	if (conn->state & ENDED)
		end(conn, SL_CLOSE_LOCAL, 0);
}

static void writable(struct sl_conn *conn, uint64_t now_ns)
{
	const uint32_t left = conn->pending_count - conn->pending_index;
	const ssize_t sent = send_pieces(conn, conn->pending + conn->pending_index, left);

	if (sent < 0) {
		end(conn, conn->state & LINGERING ? SL_CLOSE_LOCAL : SL_CLOSE_RESET, (int)-sent);
		return;
	}
	conn->pending_index = sl_pieces_advance(conn->pending, conn->pending_index,
						conn->pending_count, (size_t)sent);
	if (conn->pending_index < conn->pending_count)
		return;
	if (conn->state & LINGERING) {
		// The pieces' memory is the owner's again at closed(), as nobody told it earlier.
		conn->writing = false;
		update_interest(conn);
		shut(conn);
		return;
	}
	release_pending(conn);
	update_interest(conn);
	if ((conn->state & ENDED) && !conn->upcalls->ended)
		end(conn, SL_CLOSE_PEER, 0);
	else
		conn->upcalls->sent(conn, now_ns);
}

// --- reading ------------------------------------------------------------------------------------

static void peer_ended(struct sl_conn *conn, uint64_t now_ns)
{
	conn->state |= ENDED;
	if (conn->state & LINGERING) {
		if (conn->state & SHUT)
			end(conn, SL_CLOSE_LOCAL, 0);
		else
			update_interest(conn);
		return;
	}
	if (conn->upcalls->ended) {
		update_interest(conn);
		conn->upcalls->ended(conn, now_ns);
	} else if (conn->writing) {
		update_interest(conn);
	} else {
		end(conn, SL_CLOSE_PEER, 0);
	}
}

static void discard(struct sl_conn *conn, size_t bytes)
{
	conn->discarded_bytes += (uint32_t)bytes;
	if (conn->discarded_bytes > SL_IO_LINGER_BYTES_MAX)
		end(conn, SL_CLOSE_LOCAL, 0);
}

static void readable(struct sl_conn *conn, uint64_t now_ns)
{
	struct sl_io *io = conn->io;
	ssize_t got;

	do {
		got = recv(conn->fd, io->buffer,
			   conn->later ? SL_MIN(io->options.read_bytes, SL_IO_LATER_READ_BYTES)
				       : io->options.read_bytes,
			   MSG_DONTWAIT);
	} while (got < 0 && errno == EINTR);
	sl_count(&io->stats.reads, 1);
	if (got > 0) {
		sl_count(&io->stats.read_bytes, (uint64_t)got);
		if (conn->state & LINGERING)
			discard(conn, (size_t)got);
		else
			conn->upcalls->received(conn, sl_bytes(io->buffer, (size_t)got), now_ns);
	} else if (got == 0) {
		peer_ended(conn, now_ns);
	} else if (errno != EAGAIN) {
		const int error = errno;

		if (conn->state & LINGERING)
			end(conn, SL_CLOSE_LOCAL, 0);
		else
			end(conn, error == ETIMEDOUT ? SL_CLOSE_TIMEOUT : SL_CLOSE_RESET, error);
	}
}

static void connect_ended(struct sl_conn *conn, uint64_t now_ns)
{
	const int error = sl_socket_error(conn->fd);

	if (error) {
		end(conn, error == ETIMEDOUT ? SL_CLOSE_TIMEOUT : SL_CLOSE_REFUSED, error);
		return;
	}
	sl_timer_cancel(conn->io->timers, &conn->timer);
	conn->state = OPEN;
	update_interest(conn);
	conn->upcalls->connected(conn, now_ns);
}

static void conn_event(struct sl_conn *conn, uint32_t events, uint64_t now_ns)
{
	const uint32_t broken = events & (EPOLLERR | EPOLLHUP);

	// An upcall of an earlier event may have closed it.
	if (conn->state & CLOSING)
		return;
	if (conn->state & CONNECTING) {
		connect_ended(conn, now_ns);
		return;
	}
	if ((events & (EPOLLOUT | broken)) && conn->writing)
		writable(conn, now_ns);
	if (conn->state & CLOSING)
		return;
	if ((events & EPOLLIN) && (conn->interest & EPOLLIN)) {
		readable(conn, now_ns);
	} else if (broken) {
		// Epoll reports these always: a paused connection would spin on them.
		const int error = sl_socket_error(conn->fd);

		end(conn, conn->state & LINGERING ? SL_CLOSE_LOCAL : SL_CLOSE_RESET,
		    error ? error : EPIPE);
	}
}

// --- accepting ----------------------------------------------------------------------------------

// Exclusive: of all shards that wait for this listener, the kernel wakes one.
static int watch_listener(struct sl_io *io, struct io_listener *entry)
{
	const uint32_t index = (uint32_t)(entry - io->listeners);

	return watch(io, entry->listener->fd, EPOLLIN | EPOLLEXCLUSIVE,
		     (void *)((uintptr_t)index << 2), TAG_LISTENER);
}

int sl_io_listen(struct sl_io *io, struct sl_listener *listener)
{
	struct io_listener *entry = NULL;

	if (listener->fd == SL_IO_FD_BACKEND)
		return io->backend->ops->listen(io->backend, listener);
	for (uint32_t i = 0; i < io->listener_count && !entry; i++) {
		if (!io->listeners[i].listener)
			entry = &io->listeners[i];
	}
	if (!entry) {
		entry = reallocarray(io->listeners, io->listener_count + 1, sizeof(*entry));
		if (!entry)
			return -ENOMEM;
		io->listeners = entry;
		entry += io->listener_count++;
	}
	*entry = (struct io_listener){.listener = listener};

	const int failed = watch_listener(io, entry);

	if (failed)
		entry->listener = NULL;
	return failed;
}

void sl_io_unlisten(struct sl_io *io, struct sl_listener *listener)
{
	if (listener->fd == SL_IO_FD_BACKEND)
		io->backend->ops->unlisten(io->backend, listener);
	for (uint32_t i = 0; i < io->listener_count; i++) {
		if (io->listeners[i].listener != listener)
			continue;
		if (!io->listeners[i].waiting)
			epoll_ctl(io->epoll, EPOLL_CTL_DEL, listener->fd, NULL);
		io->listeners[i].listener = NULL;
	}
}

static void accept_again(struct sl_timer *timer, uint64_t now_ns)
{
	struct sl_io *io = SL_CONTAINER_OF(timer, struct sl_io, accept_timer);

	for (uint32_t i = 0; i < io->listener_count; i++) {
		struct io_listener *entry = &io->listeners[i];

		if (!entry->listener || !entry->waiting)
			continue;
		entry->waiting = watch_listener(io, entry) < 0;
		if (entry->waiting)
			sl_timer_set(io->timers, timer, now_ns + ACCEPT_AGAIN_NS);
	}
}

// Out of descriptors or memory: a level-triggered listener would make every poll return at once, so
// it leaves epoll for a while; clients wait in its queue.
static void accept_later(struct sl_io *io, struct io_listener *entry, int error, uint64_t now_ns)
{
	sl_log(SL_LOG_WARN, "accept_failed", "error=\"%s\"", strerror(error));
	epoll_ctl(io->epoll, EPOLL_CTL_DEL, entry->listener->fd, NULL);
	entry->waiting = true;
	sl_timer_set(io->timers, &io->accept_timer, now_ns + ACCEPT_AGAIN_NS);
}

static void accept_event(struct sl_io *io, uint32_t index, uint64_t now_ns)
{
	for (unsigned i = 0; i < ACCEPTS_MAX; i++) {
		// Looked up each time: an upcall may take the listener away, or add one.
		struct io_listener *entry = &io->listeners[index];
		struct sl_address peer = {.size = sizeof(peer.u)};
		int fd;

		if (!entry->listener || entry->waiting)
			return;
		fd = accept4(entry->listener->fd, &peer.u.any, &peer.size,
			     SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			sl_count(&io->stats.accepts, 1);
			entry->listener->accepted(entry->listener, fd, &peer, now_ns);
			continue;
		}
		switch (errno) {
		case EAGAIN:
			return;
		case EMFILE:
		case ENFILE:
		case ENOBUFS:
		case ENOMEM:
			accept_later(io, entry, errno, now_ns);
			return;
		default: // of that one connection (accept(2), "Error handling")
			break;
		}
	}
}

int sl_io_watch(struct sl_io *io, struct sl_io_watch *watched)
{
	return watch(io, watched->fd, EPOLLIN, watched, TAG_WATCH);
}

// --- the turn -----------------------------------------------------------------------------------

// A load that comes in a stream of small turns is cheaper in fewer, larger ones. Where SO_RCVLOWAT
// gathers bytes already, napping would only add to the wait.
static void nap(struct sl_io *io, uint64_t now_ns)
{
	const struct timespec time = {.tv_nsec = (long)io->options.nap_ns};

	if (!io->options.nap_ns || io->low_count || now_ns - io->turn_ns >= RECENT_NS ||
	    io->event_ns != io->turn_ns)
		return;
	if (!io->slack_set) {
		prctl(PR_SET_TIMERSLACK, 1000ul); // the preset of 50 us would double the nap
		io->slack_set = true;
	}
	nanosleep(&time, NULL);
}

static int wait_events(struct sl_io *io, uint64_t wait_ns)
{
	const struct timespec time = {(time_t)(wait_ns / SL_S), (long)(wait_ns % SL_S)};
	int count;

	if (wait_ns == 0 || io->no_pwait2)
		count = epoll_wait(io->epoll, io->events, EVENTS_MAX,
				   (int)SL_MIN((wait_ns + SL_MS - 1) / SL_MS, UINT64_C(60000)));
	else
		count = epoll_pwait2(io->epoll, io->events, EVENTS_MAX, &time, NULL);
	if (count < 0 && errno == ENOSYS && !io->no_pwait2) {
		io->no_pwait2 = true;
		return wait_events(io, wait_ns);
	}
	return count < 0 && errno == EINTR ? 0 : count < 0 ? -errno : count;
}

// The first `count` events are of connections that are served later. What is left comes again with
// the next wait, in the same order: so the place to begin moves on.
static void serve_later(struct sl_io *io, uint32_t count)
{
	const uint32_t some = SL_MIN(count, SL_IO_LATER_MAX);

	for (uint32_t i = 0; i < some; i++) {
		const struct epoll_event *event = &io->events[(io->later_at + i) % count];

		conn_event((struct sl_conn *)event->data.ptr, event->events, io->now_ns);
	}
	io->later_at += some;
	io->deferred = some < count;
}

static void serve(struct sl_io *io, int count)
{
	uint32_t later = 0;

	for (int i = 0; i < count; i++) {
		const uintptr_t pointer = (uintptr_t)io->events[i].data.ptr;

		if ((pointer & TAG_MASK) == TAG_CONN) {
			if (SL_UNLIKELY(((struct sl_conn *)pointer)->later))
				io->events[later++] = io->events[i];
			else
				conn_event((struct sl_conn *)pointer, io->events[i].events,
					   io->now_ns);
		} else if ((pointer & TAG_MASK) == TAG_LISTENER) {
			accept_event(io, (uint32_t)(pointer >> 2), io->now_ns);
		} else if ((pointer & TAG_MASK) == TAG_WATCH) {
			struct sl_io_watch *watched = (void *)(pointer & ~(uintptr_t)TAG_MASK);

			watched->ready(watched, io->now_ns);
		}
		// The waker's owner clears it, before it looks at what was announced.
	}
	io->deferred = false;
	if (SL_UNLIKELY(later))
		serve_later(io, later);
}

int sl_io_poll(struct sl_io *io, uint64_t wait_ns, uint64_t *now_ns)
{
	uint64_t before_ns, begin_ns;
	bool looks;
	int count;

	finish_closing(io);
	begin_ns = before_ns = sl_clock_now_ns();
	if (io->backend) {
		io->backend->ops->flush(io->backend);
		wait_ns = io->backend_events ? 0 : SL_MIN(wait_ns, io->backend->idle_ns);
	}
	if (io->options.busy || io->closing || io->deferred ||
	    before_ns - io->event_ns < io->options.spin_ns)
		wait_ns = 0;
	if (wait_ns) {
		wait_ns = sl_timers_wait_ns(io->timers, before_ns, wait_ns);
		nap(io, before_ns);
	}
	looks = !io->backend || wait_ns || before_ns >= io->look_ns;
	count = looks ? wait_events(io, wait_ns) : 0;
	// While it spins, the turns between two empty polls are idle as well.
	if (count <= 0 && io->idle)
		begin_ns = io->now_ns;
	io->now_ns = *now_ns = looks ? sl_clock_now_ns() : before_ns;
	io->turn_ns = io->now_ns;
	if (looks)
		io->look_ns = io->now_ns + (count > 0 ? 0 : LOOK_NS);
	if (wait_ns || count <= 0)
		sl_count(&io->stats.idle_ns, io->now_ns - begin_ns);
	io->idle = count <= 0;
	if (count > 0)
		io->event_ns = io->now_ns;
	sl_count(&io->stats.polls, 1);
	sl_timers_run(io->timers, io->now_ns);
	if (looks)
		serve(io, count);
	if (io->backend) {
		io->backend_events = io->backend->ops->poll(io->backend, io->now_ns);
		if (io->backend_events) {
			io->event_ns = io->now_ns;
			io->idle = false;
		}
		if (count >= 0)
			count += (int)io->backend_events;
	}
	return count;
}

// --- the owner's wishes -------------------------------------------------------------------------

void sl_io_want(struct sl_conn *conn, size_t bytes)
{
	struct sl_io *io = conn->io;

	// The other backend reads in place: it has nothing to gather, and no system call to save.
	if (conn->backend || !(conn->state & OPEN))
		return;
	if (bytes < LOWAT_MIN) {
		if (SL_UNLIKELY(conn->lowat_bytes > 1)) {
			set_lowat(conn, 1);
			sl_timer_cancel(io->timers, &conn->timer);
		}
		return;
	}
	set_lowat(conn, (uint32_t)SL_MIN(bytes, io->options.read_bytes));
	if (conn->lowat_bytes > 1)
		sl_timer_set(io->timers, &conn->timer, io->now_ns + LOWAT_PATIENCE);
}

void sl_io_pause(struct sl_conn *conn, bool paused)
{
	if (conn->backend) {
		conn->backend->ops->pause(conn, paused);
		return;
	}
	if (!(conn->state & OPEN))
		return;
	conn->read_paused = paused;
	update_interest(conn);
}

// Never begun, or its closed() is due or done.
static bool is_over(const struct sl_conn *conn)
{
	return conn->state == 0 || (conn->state & CLOSING);
}

void sl_io_close(struct sl_conn *conn, uint64_t linger_ns)
{
	if (conn->backend) {
		conn->backend->ops->close(conn, linger_ns);
		return;
	}
	if (is_over(conn) || (linger_ns && (conn->state & LINGERING)))
		return;
	if (!linger_ns || !(conn->state & OPEN)) {
		end(conn, SL_CLOSE_LOCAL, 0);
		return;
	}
	set_lowat(conn, 1);
	conn->state = (uint16_t)((conn->state & ~OPEN) | LINGERING);
	sl_timer_set(conn->io->timers, &conn->timer, conn->io->now_ns + linger_ns);
	update_interest(conn);
	if (!conn->writing)
		shut(conn);
}

void sl_io_abort(struct sl_conn *conn)
{
	const struct linger reset = {.l_onoff = 1};

	if (conn->backend) {
		conn->backend->ops->abort(conn);
		return;
	}
	if (is_over(conn))
		return;
	(void)setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	end(conn, SL_CLOSE_LOCAL, 0);
}
