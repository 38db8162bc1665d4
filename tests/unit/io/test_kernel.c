#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataplane/base/clock.h"
#include "dataplane/io/io.h"
#include "dataplane/io/listener.h"

static struct sl_memory memory;
static struct sl_timers timers;
static struct sl_waker waker;
static struct sl_io *io;

// A connection that remembers what it was told.
struct peer {
	struct sl_conn conn;
	unsigned connected, sent, ended, closed;
	size_t received;
	uint64_t received_ns;
	enum sl_close why;
	int error;
	bool closes; // from received()
};

static void connected(struct sl_conn *conn, uint64_t now_ns)
{
	(void)now_ns;
	((struct peer *)conn)->connected++;
}

static void received(struct sl_conn *conn, struct sl_bytes bytes, uint64_t now_ns)
{
	struct peer *peer = (struct peer *)conn;

	assert_false(peer->closed);
	peer->received += bytes.size;
	peer->received_ns = now_ns;
	if (peer->closes)
		sl_io_close(conn, 0);
}

static void sent(struct sl_conn *conn, uint64_t now_ns)
{
	(void)now_ns;
	assert_false(conn->writing);
	((struct peer *)conn)->sent++;
}

static void ended(struct sl_conn *conn, uint64_t now_ns)
{
	(void)now_ns;
	((struct peer *)conn)->ended++;
}

static void closed(struct sl_conn *conn, enum sl_close why, int error)
{
	struct peer *peer = (struct peer *)conn;

	peer->closed++;
	peer->why = why;
	peer->error = error;
}

static const struct sl_io_upcalls upcalls = {
	.connected = connected,
	.received = received,
	.sent = sent,
	.closed = closed,
};
static const struct sl_io_upcalls half_upcalls = {
	.connected = connected,
	.received = received,
	.sent = sent,
	.ended = ended,
	.closed = closed,
};

static void begin(const struct sl_io_options *options)
{
	assert_int_equal(sl_memory_init(&memory, 16 * SL_MIB), 0);
	sl_timers_init(&timers, sl_clock_now_ns());
	assert_int_equal(sl_waker_init(&waker), 0);
	io = sl_io_create_kernel(options, &memory, &timers, &waker);
	assert_non_null(io);
}

static int set_up(void **state)
{
	const struct sl_io_options options = {0};

	(void)state;
	begin(&options);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	assert_int_equal(sl_io_stats(io)->connections, 0);
	sl_io_destroy(io);
	assert_int_equal(timers.armed, 0);      // no timer outlives its connection
	assert_int_equal(memory.used_bytes, 0); // no pending piece was forgotten
	sl_memory_fini(&memory);
	sl_waker_fini(&waker);
	return 0;
}

static uint64_t turn(uint64_t wait_ns)
{
	uint64_t now_ns;

	assert_true(sl_io_poll(io, wait_ns, &now_ns) >= 0);
	return now_ns;
}

// Turns until a counter moves, or for as long as a busy machine may take.
static void until(const unsigned *counter)
{
	const uint64_t end_ns = sl_clock_now_ns() + 20 * SL_S;

	while (!*counter && sl_clock_now_ns() < end_ns)
		turn(5 * SL_MS);
}

// A TCP connection over loopback: one end is the io's, the other a plain blocking socket.
static int pair(struct peer *peer, const struct sl_io_upcalls *up)
{
	struct sl_address at;
	char error[128];
	int listener, theirs, ours;

	assert_int_equal(sl_address_parse(&at, "127.0.0.1:0"), 0);
	listener = sl_io_open_listener(&at, &(struct sl_listen_options){0}, error, sizeof(error));
	assert_true(listener >= 0);
	assert_int_equal(sl_io_local_address(listener, &at), 0);
	theirs = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(theirs, &at.u.any, at.size), 0);
	do {
		ours = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	} while (ours < 0 && errno == EAGAIN);
	assert_true(ours >= 0);
	close(listener);
	*peer = (struct peer){.conn.upcalls = up};
	assert_int_equal(sl_io_adopt(io, &peer->conn, ours, &at), 0);
	return theirs;
}

static void close_now(struct peer *peer)
{
	sl_io_close(&peer->conn, 0);
	turn(0);
	assert_int_equal(peer->closed, 1);
}

static void test_partial_write(void **state)
{
	enum { PIECES = 100, PIECE = 1000 };
	static uint8_t data[PIECE];
	struct iovec pieces[PIECES];
	const int small = 16384;
	struct peer peer;
	const int theirs = pair(&peer, &upcalls);
	size_t got = 0;
	uint8_t buffer[65536];

	(void)state;
	setsockopt(peer.conn.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	setsockopt(theirs, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	for (size_t i = 0; i < PIECE; i++)
		data[i] = (uint8_t)(i % 251);
	for (size_t i = 0; i < PIECES; i++)
		pieces[i] = (struct iovec){data, PIECE};
	assert_int_equal(sl_io_write(&peer.conn, pieces, PIECES), 1);
	assert_true(peer.conn.writing);
	memset(pieces, 0, sizeof(pieces)); // the array is ours again, the memory is not
	fcntl(theirs, F_SETFL, O_NONBLOCK);
	while (got < (size_t)PIECES * PIECE) {
		const ssize_t size = recv(theirs, buffer, sizeof(buffer), 0);

		for (ssize_t i = 0; i < size; i++)
			assert_int_equal(buffer[i], (uint8_t)((got + (size_t)i) % PIECE % 251));
		got += size > 0 ? (size_t)size : 0;
		turn(size > 0 ? 0 : SL_MS);
	}
	until(&peer.sent);
	assert_int_equal(peer.sent, 1);
	assert_int_equal(memory.used_bytes, 0);
	close(theirs);
	until(&peer.closed);
	assert_int_equal(peer.why, SL_CLOSE_PEER);
}

static void test_lowat(void **state)
{
	static uint8_t data[100000];
	struct peer peer;
	const int theirs = pair(&peer, &upcalls);
	uint64_t asked_ns;

	(void)state;
	sl_io_want(&peer.conn, 50000);
	assert_int_equal(peer.conn.lowat_bytes, 50000);
	sl_io_want(&peer.conn, 50000);
	assert_int_equal(sl_io_stats(io)->lowat_changes, 1); // the same again costs nothing
	asked_ns = turn(0);
	sl_io_want(&peer.conn, 50000);
	assert_int_equal(send(theirs, data, 1000, 0), 1000);
	// A peer that stalls in mid-body is heard all the same, but after 10 ms.
	while (!peer.received && sl_clock_now_ns() < asked_ns + 20 * SL_S)
		turn(50 * SL_MS);
	assert_int_equal(peer.received, 1000);
	assert_true(peer.received_ns - asked_ns >= 9 * SL_MS);

	sl_io_want(&peer.conn, 50000);
	assert_int_equal(send(theirs, data, 60000, 0), 60000);
	turn(SL_S);
	assert_int_equal(peer.received, 61000); // one read, as soon as enough is there
	sl_io_want(&peer.conn, 1);
	assert_int_equal(peer.conn.lowat_bytes, 1);
	sl_io_want(&peer.conn, 10 * SL_MIB);
	assert_true(peer.conn.lowat_bytes <= 256 * SL_KIB); // never more than the read buffer
	close(theirs);
	until(&peer.closed);
	assert_int_equal(peer.why, SL_CLOSE_PEER); // FIN is seen through a high mark
}

static void test_pause(void **state)
{
	struct peer peer;
	const int theirs = pair(&peer, &upcalls);

	(void)state;
	sl_io_pause(&peer.conn, true);
	assert_int_equal(send(theirs, "abc", 3, 0), 3);
	turn(2 * SL_MS);
	assert_int_equal(peer.received, 0);
	sl_io_pause(&peer.conn, false);
	turn(100 * SL_MS);
	assert_int_equal(peer.received, 3);
	// A reset while paused must end it, not spin.
	sl_io_pause(&peer.conn, true);
	setsockopt(theirs, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
	close(theirs);
	until(&peer.closed);
	assert_int_equal(peer.why, SL_CLOSE_RESET);
	assert_int_equal(peer.error, ECONNRESET);
}

static void test_linger(void **state)
{
	static uint8_t data[3 * 1024 * 1024];
	struct peer peer;
	int theirs = pair(&peer, &upcalls);
	uint8_t buffer[16];
	uint64_t sent = 0;

	(void)state;
	// The answer arrives although the peer is still sending.
	assert_int_equal(send(theirs, data, 1000, 0), 1000);
	assert_int_equal(sl_io_write(&peer.conn, &(struct iovec){"answer", 6}, 1), 0);
	sl_io_close(&peer.conn, 60 * SL_S);
	assert_int_equal(peer.closed, 0); // never from inside
	turn(10 * SL_MS);
	assert_int_equal(peer.received, 0); // input is discarded
	assert_int_equal(recv(theirs, buffer, sizeof(buffer), 0), 6);
	assert_int_equal(recv(theirs, buffer, sizeof(buffer), 0), 0);
	assert_int_equal(peer.closed, 0);
	close(theirs);
	until(&peer.closed);
	assert_int_equal(peer.why, SL_CLOSE_LOCAL);

	// A peer that never ends is cut when the time is over...
	theirs = pair(&peer, &upcalls);
	sl_io_close(&peer.conn, 20 * SL_MS);
	until(&peer.closed);
	assert_int_equal(peer.closed, 1);
	close(theirs);

	// ... and one that floods when it has sent more than any body may be.
	theirs = pair(&peer, &upcalls);
	fcntl(theirs, F_SETFL, O_NONBLOCK);
	sl_io_close(&peer.conn, 60 * SL_S);
	for (unsigned i = 0; i < 10000 && !peer.closed; i++) {
		const ssize_t size = send(theirs, data, sizeof(data), MSG_NOSIGNAL);

		sent += size > 0 ? (uint64_t)size : 0;
		turn(SL_MS);
	}
	assert_int_equal(peer.closed, 1);
	assert_true(sent > SL_IO_LINGER_BYTES_MAX);
	close(theirs);
}

static void test_linger_sends_the_rest(void **state)
{
	static uint8_t data[4 * 1024 * 1024];
	struct peer peer;
	const int theirs = pair(&peer, &upcalls);
	uint8_t buffer[65536];
	size_t got = 0;
	ssize_t size = 1;

	(void)state;
	fcntl(theirs, F_SETFL, O_NONBLOCK);
	assert_int_equal(sl_io_write(&peer.conn, &(struct iovec){data, sizeof(data)}, 1), 1);
	sl_io_close(&peer.conn, 5 * SL_S);
	while (size != 0) {
		size = recv(theirs, buffer, sizeof(buffer), 0);
		got += size > 0 ? (size_t)size : 0;
		turn(size > 0 ? 0 : SL_MS);
	}
	assert_int_equal(got, sizeof(data));
	assert_int_equal(peer.sent, 0); // closing: no other upcall comes
	close(theirs);
	until(&peer.closed);
	assert_int_equal(peer.closed, 1);
}

static void test_half_close(void **state)
{
	struct peer peer;
	int theirs = pair(&peer, &half_upcalls);
	uint64_t polls;
	char buffer[8];

	(void)state;
	assert_int_equal(send(theirs, "ask", 3, 0), 3);
	shutdown(theirs, SHUT_WR);
	until(&peer.ended);
	assert_int_equal(peer.received, 3);
	assert_int_equal(peer.closed, 0);
	polls = sl_clock_now_ns();
	turn(20 * SL_MS);
	assert_true(sl_clock_now_ns() - polls > 10 * SL_MS); // a half-closed peer does not spin
	assert_int_equal(sl_io_write(&peer.conn, &(struct iovec){"told", 4}, 1), 0);
	assert_int_equal(recv(theirs, buffer, sizeof(buffer), 0), 4);
	close_now(&peer);
	close(theirs);

	// Without ended() the connection closes.
	theirs = pair(&peer, &upcalls);
	shutdown(theirs, SHUT_WR);
	until(&peer.closed);
	assert_int_equal(peer.why, SL_CLOSE_PEER);
	close(theirs);
}

static void test_reset_in_the_middle(void **state)
{
	static uint8_t data[8 * 1024 * 1024];
	struct peer peer;
	const int theirs = pair(&peer, &upcalls);

	(void)state;
	assert_int_equal(sl_io_write(&peer.conn, &(struct iovec){data, sizeof(data)}, 1), 1);
	setsockopt(theirs, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
	close(theirs);
	until(&peer.closed);
	assert_int_equal(peer.why, SL_CLOSE_RESET);
	assert_int_equal(peer.sent, 0);
	assert_int_equal(memory.used_bytes, 0);
}

static void test_write_after_reset(void **state)
{
	struct peer peer;
	const int theirs = pair(&peer, &upcalls);

	(void)state;
	setsockopt(theirs, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
	close(theirs);
	// Before the poll that tells us: the write fails, and closed() follows once.
	assert_true(sl_io_write(&peer.conn, &(struct iovec){"x", 1}, 1) < 0);
	assert_true(sl_io_write(&peer.conn, &(struct iovec){"x", 1}, 1) < 0);
	assert_int_equal(peer.closed, 0);
	turn(0);
	assert_int_equal(peer.closed, 1);
	assert_int_equal(peer.why, SL_CLOSE_RESET);
}

static void test_abort(void **state)
{
	struct peer peer;
	const int theirs = pair(&peer, &upcalls);
	char byte;

	(void)state;
	sl_io_abort(&peer.conn);
	assert_int_equal(peer.closed, 0);
	assert_int_equal(recv(theirs, &byte, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	turn(0);
	assert_int_equal(peer.closed, 1);
	close(theirs);
}

static void test_close_from_upcall(void **state)
{
	struct peer peer[2];
	int theirs[2];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		theirs[i] = pair(&peer[i], &upcalls);
		peer[i].closes = true;
		assert_int_equal(send(theirs[i], "x", 1, 0), 1);
	}
	turn(100 * SL_MS);
	assert_int_equal(peer[0].closed + peer[1].closed, 0);
	turn(0);
	turn(0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(peer[i].closed, 1);
		close(theirs[i]);
	}
}

static void test_connect(void **state)
{
	struct peer peer = {.conn.upcalls = &upcalls};
	struct sl_address at;
	char error[128];
	int listener;

	(void)state;
	assert_int_equal(sl_address_parse(&at, "127.0.0.1:0"), 0);
	listener = sl_io_open_listener(&at, &(struct sl_listen_options){0}, error, sizeof(error));
	assert_int_equal(sl_io_local_address(listener, &at), 0);
	assert_int_equal(sl_io_connect(io, &peer.conn, &at, SL_S), 0);
	assert_int_equal(sl_io_write(&peer.conn, &(struct iovec){"x", 1}, 1), -ENOTCONN);
	assert_int_equal(peer.connected, 0);
	until(&peer.connected);
	assert_int_equal(peer.connected, 1);
	close_now(&peer);

	// Nobody listens there any more.
	close(listener);
	peer = (struct peer){.conn.upcalls = &upcalls};
	if (sl_io_connect(io, &peer.conn, &at, SL_S) == 0) {
		until(&peer.closed);
		assert_int_equal(peer.why, SL_CLOSE_REFUSED);
		assert_int_equal(peer.error, ECONNREFUSED);
	}
	assert_int_equal(peer.connected, 0);
}

static void test_connect_timeout(void **state)
{
	struct peer peers[4] = {0};
	struct sl_address at;
	char error[128];
	unsigned timeouts = 0;
	int listener;

	(void)state;
	// A listener whose queue is full answers no SYN.
	assert_int_equal(sl_address_parse(&at, "127.0.0.1:0"), 0);
	listener = sl_io_open_listener(&at, &(struct sl_listen_options){.backlog = 1}, error,
				       sizeof(error));
	assert_int_equal(sl_io_local_address(listener, &at), 0);
	for (unsigned i = 0; i < 4; i++) {
		peers[i].conn.upcalls = &upcalls;
		assert_int_equal(sl_io_connect(io, &peers[i].conn, &at, 50 * SL_MS), 0);
	}
	until(&peers[3].closed);
	for (unsigned i = 0; i < 4; i++) {
		if (peers[i].closed) {
			assert_int_equal(peers[i].why, SL_CLOSE_TIMEOUT);
			timeouts++;
		} else {
			close_now(&peers[i]);
		}
	}
	assert_true(timeouts >= 1);
	close(listener);
}

static int accepted_fds[64];
static unsigned accepted_count;

static void accepted(struct sl_listener *listener, int fd, const struct sl_address *peer,
		     uint64_t now_ns)
{
	(void)listener;
	(void)now_ns;
	assert_true(peer->size > 0);
	accepted_fds[accepted_count++] = fd;
}

static void test_accept_without_descriptors(void **state)
{
	struct sl_listener listener = {.accepted = accepted};
	struct rlimit limit, low;
	struct sl_address at;
	char error[128];
	uint64_t polls, began_ns;
	int theirs;

	(void)state;
	accepted_count = 0;
	assert_int_equal(sl_address_parse(&at, "127.0.0.1:0"), 0);
	listener.fd = sl_io_open_listener(&at, &(struct sl_listen_options){0}, error,
					  sizeof(error));
	assert_int_equal(sl_io_local_address(listener.fd, &at), 0);
	assert_int_equal(sl_io_listen(io, &listener), 0);
	theirs = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(theirs, &at.u.any, at.size), 0);
	getrlimit(RLIMIT_NOFILE, &limit);
	low = (struct rlimit){(rlim_t)theirs + 1, limit.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	began_ns = sl_clock_now_ns();
	polls = sl_io_stats(io)->polls;
	while (sl_clock_now_ns() < began_ns + 50 * SL_MS)
		turn(10 * SL_MS);
	assert_int_equal(accepted_count, 0);
	assert_true(sl_io_stats(io)->polls - polls < 40); // it waits, it does not spin
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	until(&accepted_count);
	assert_int_equal(accepted_count, 1); // and comes back by itself
	close(accepted_fds[0]);
	sl_io_unlisten(io, &listener);
	close(theirs);
	close(listener.fd);
}

static void test_waker(void **state)
{
	uint64_t began_ns = sl_clock_now_ns();

	(void)state;
	sl_waker_wake(&waker);
	turn(60 * SL_S);
	assert_true(sl_clock_now_ns() - began_ns < 30 * SL_S);
	sl_waker_clear(&waker);
	began_ns = sl_clock_now_ns();
	turn(5 * SL_MS);
	assert_true(sl_clock_now_ns() - began_ns >= 5 * SL_MS);
}

static void test_modes(void **state)
{
	static const struct {
		const char *why;
		struct sl_io_options options;
		bool blocks;
	} rows[] = {
		{"plain: waits", {0}, true},
		{"busy: never blocks", {.busy = true}, false},
		{"spin: only after an event", {.spin_ns = 100 * SL_S}, true},
		{"nap: only after a recent event", {.nap_ns = 60 * SL_US}, true},
	};

	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		uint64_t shortest_ns = UINT64_MAX; // of several: a busy machine makes one long

		begin(&rows[i].options);
		for (unsigned n = 0; n < 20; n++) {
			const uint64_t began_ns = sl_clock_now_ns();

			turn(10 * SL_MS);
			shortest_ns = SL_MIN(shortest_ns, sl_clock_now_ns() - began_ns);
		}
		assert_int_equal(shortest_ns >= 8 * SL_MS, rows[i].blocks);
		tear_down(state);
	}
}

static void test_listener(void **state)
{
	struct sl_inherited inherited;
	struct sl_address at, again;
	char error[128] = "", text[16];
	int fd, second;

	(void)state;
	assert_int_equal(sl_address_parse(&at, ":0"), 0);
	fd = sl_io_open_listener(&at, &(struct sl_listen_options){0}, error, sizeof(error));
	assert_true(fd >= 0);
	assert_int_equal(sl_io_local_address(fd, &again), 0);
	assert_true(sl_address_port(&again) != 0);
	// The same address twice says so by name.
	second = sl_io_open_listener(&again, &(struct sl_listen_options){0}, error, sizeof(error));
	assert_int_equal(second, -EADDRINUSE);
	assert_non_null(strstr(error, "in use"));
	// Not ours: the variables speak of another process.
	setenv("LISTEN_FDS", "1", 1);
	snprintf(text, sizeof(text), "%d", getpid() + 1);
	setenv("LISTEN_PID", text, 1);
	sl_inherited_init(&inherited);
	assert_int_equal(inherited.count, 0);
	assert_null(getenv("LISTEN_FDS"));
	close(fd);
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void test_inherited(void **state)
{
	struct sl_address at, bound, other;
	char error[128], text[16];
	int fd, status = 0;
	pid_t child;

	(void)state;
	assert_int_equal(sl_address_parse(&at, "127.0.0.1:0"), 0);
	assert_int_equal(sl_address_parse(&other, "127.0.0.1:1"), 0);
	fd = sl_io_open_listener(&at, &(struct sl_listen_options){0}, error, sizeof(error));
	assert_int_equal(sl_io_local_address(fd, &bound), 0);
	child = fork();
	if (child == 0) {
		struct sl_inherited inherited;

		// As an older process would hand it on: descriptor 3, and 4 is no listener.
		dup2(fd, 3);
		dup2(1, 4);
		snprintf(text, sizeof(text), "%d", getpid());
		setenv("LISTEN_PID", text, 1);
		setenv("LISTEN_FDS", "2", 1);
		sl_inherited_init(&inherited);
		if (inherited.count != 1 || sl_inherited_take(&inherited, &other) != -1 ||
		    sl_inherited_take(&inherited, &bound) != 3 ||
		    sl_inherited_take(&inherited, &bound) != -1)
			_exit(1);
		sl_inherited_fini(&inherited);
		_exit(is_open(3) && is_open(4) ? 0 : 2); // what was taken or foreign stays
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_partial_write, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_lowat, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_pause, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_linger, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_linger_sends_the_rest, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_half_close, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_reset_in_the_middle, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_write_after_reset, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_abort, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_close_from_upcall, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_connect, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_connect_timeout, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_accept_without_descriptors, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_waker, set_up, tear_down),
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_listener),
		cmocka_unit_test(test_inherited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
