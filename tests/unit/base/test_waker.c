// Handing over and falling asleep, in every order of their steps: no wake is lost.
//
// The shard's and the thread's code runs as it is, one at a time; at each step that the other can
// see a schedule says who goes on, and at a wait whether it times out. All schedules with up to
// SWITCHES such turns are played.

#include "tests/unit/test.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "dataplane/base/sides.h"

#define ITEMS    2
#define SWITCHES 4 // where one is stopped in the middle; waits and ends come on top
#define STEPS    200
#define LOOKS    20 // of a thread that does not spin

enum { THREAD, SHARD };

static struct {
	pthread_mutex_t lock;
	pthread_cond_t turned;
	int turn, fd;
	bool ended[2];
	bool choices[STEPS]; // at each step: the other goes on
	unsigned at, count, switched;
} play = {.lock = PTHREAD_MUTEX_INITIALIZER, .turned = PTHREAD_COND_INITIALIZER, .fd = -1};
static __thread int self;

static void let_go_on(int who)
{
	play.turn = who;
	pthread_cond_broadcast(&play.turned);
	while (play.turn != self)
		pthread_cond_wait(&play.turned, &play.lock);
}

// As the schedule says; no, where it says nothing yet.
static bool choose(void)
{
	if (play.switched == SWITCHES || play.at == STEPS)
		return false;
	if (play.at == play.count)
		play.choices[play.count++] = false;
	play.switched += play.choices[play.at];
	return play.choices[play.at++];
}

static void step(void)
{
	pthread_mutex_lock(&play.lock);
	if (!play.ended[!self] && choose())
		let_go_on(!self);
	pthread_mutex_unlock(&play.lock);
}

// The other goes on until it waits or ends.
static void wait_for_other(void)
{
	pthread_mutex_lock(&play.lock);
	let_go_on(!self);
	pthread_mutex_unlock(&play.lock);
}

static void end(void)
{
	pthread_mutex_lock(&play.lock);
	play.ended[self] = true;
	play.turn = !self;
	pthread_cond_broadcast(&play.turned);
	pthread_mutex_unlock(&play.lock);
}

// The last choice that was not to switch is to switch. False: all have been played.
static bool next_schedule(void)
{
	while (play.count > 0 && play.choices[play.count - 1])
		play.count--;
	if (play.count == 0)
		return false;
	play.choices[play.count - 1] = true;
	return true;
}

// The steps of a waker: its flag is changed before its write and after its read.
ssize_t __real_read(int fd, void *to, size_t size);
ssize_t __wrap_read(int fd, void *to, size_t size);
ssize_t __wrap_read(int fd, void *to, size_t size)
{
	ssize_t got;
	int error;

	if (fd != play.fd)
		return __real_read(fd, to, size);
	step();
	got = __real_read(fd, to, size);
	error = errno;
	step();
	errno = error;
	return got;
}

ssize_t __real_write(int fd, const void *from, size_t size);
ssize_t __wrap_write(int fd, const void *from, size_t size);
ssize_t __wrap_write(int fd, const void *from, size_t size)
{
	ssize_t put;

	if (fd != play.fd)
		return __real_write(fd, from, size);
	step();
	put = __real_write(fd, from, size);
	step();
	return put;
}

static const struct sl_sides_kind kind = {
	.name = "waits",
	.side_bytes = sizeof(struct sl_side),
	.down = ITEMS,
};

static void *hand_over(void *argument)
{
	static int items[ITEMS];
	struct sl_side *side = argument;

	self = SHARD;
	wait_for_other();
	for (unsigned i = 0; i < ITEMS; i++) {
		sl_side_give(side, &items[i]);
		step();
		sl_side_flush(side);
		step();
	}
	end();
	return NULL;
}

// Takes all that is handed over, and sleeps when there is none. False: it would for ever, or never.
static bool take_all(struct sl_sides *sides, struct sl_side *side)
{
	struct pollfd wait = {.fd = sides->waker.fd, .events = POLLIN};
	unsigned taken = 0;

	for (unsigned looks = 0; looks < LOOKS; looks++) {
		sl_sides_turn(sides);
		step();
		while (sl_helper_take(side)) {
			taken++;
			step();
		}
		if (taken == ITEMS)
			return true;
		step();
		while (poll(&wait, 1, 0) == 0) {
			if (play.ended[SHARD])
				return false;
			if (choose()) // its wait has timed out
				break;
			wait_for_other();
		}
	}
	return false;
}

static bool play_schedule(void)
{
	struct sl_sides sides;
	struct sl_waker waker;
	struct sl_side *side;
	pthread_t shard;
	bool came;

	assert_int_equal(sl_waker_init(&waker), 0);
	assert_int_equal(sl_sides_init(&sides, &kind), 0);
	side = sl_side_open(&sides, &waker);
	assert_non_null(side);
	play.fd = sides.waker.fd;
	play.turn = SHARD; // which waits at its beginning
	play.at = play.switched = 0;
	play.ended[THREAD] = play.ended[SHARD] = false;
	assert_int_equal(pthread_create(&shard, NULL, hand_over, side), 0);
	pthread_mutex_lock(&play.lock);
	while (play.turn != THREAD)
		pthread_cond_wait(&play.turned, &play.lock);
	pthread_mutex_unlock(&play.lock);
	came = take_all(&sides, side);
	end();
	pthread_join(shard, NULL);
	play.fd = -1;
	while (sl_helper_take(side))
		;
	side->down.back.tail = side->down.there.head; // nothing is out: it may be closed
	sl_side_close(side);
	sl_sides_turn(&sides);
	sl_sides_end(&sides);
	sl_waker_fini(&waker);
	return came;
}

static void test_no_order_loses_a_wake(void **state)
{
	unsigned played = 0;

	(void)state;
	play.count = 0;
	do {
		assert_true(play_schedule());
		played++;
	} while (next_schedule());
	assert_in_range(played, 1000, 5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_order_loses_a_wake),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
