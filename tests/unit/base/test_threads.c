#include "tests/unit/test.h"

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "dataplane/base/ring.h"
#include "dataplane/base/waker.h"

#define ITEMS 100000

struct shared {
	struct sl_ring ring;
	struct sl_waker waker;
};

static void *produce(void *argument)
{
	struct shared *shared = argument;

	for (uintptr_t i = 1; i <= ITEMS; i++) {
		while (!sl_ring_push(&shared->ring, (void *)i))
			sched_yield();
		sl_waker_wake(&shared->waker);
	}
	return NULL;
}

// The consumer sleeps on the waker whenever the ring is empty: a lost wake-up would hang it.
static void everything_arrives_in_order_and_no_wake_is_lost(void **state)
{
	struct shared shared;
	pthread_t thread;
	uintptr_t next = 1;

	(void)state;
	assert_int_equal(sl_ring_init(&shared.ring, 64), 0);
	assert_int_equal(sl_waker_init(&shared.waker), 0);
	assert_int_equal(pthread_create(&thread, NULL, produce, &shared), 0);
	while (next <= ITEMS) {
		struct pollfd wait = {.fd = shared.waker.fd, .events = POLLIN};
		void *item;

		assert_int_equal(poll(&wait, 1, 10000), 1);
		sl_waker_clear(&shared.waker);
		while ((item = sl_ring_pop(&shared.ring))) {
			assert_int_equal((uintptr_t)item, next);
			next++;
		}
	}
	pthread_join(thread, NULL);
	sl_ring_fini(&shared.ring);
	sl_waker_fini(&shared.waker);
}

static void a_full_ring_says_so(void **state)
{
	struct sl_ring ring;
	int item;

	(void)state;
	assert_int_equal(sl_ring_init(&ring, 3), 0); // rounded up to 4
	for (unsigned i = 0; i < 4; i++)
		assert_true(sl_ring_push(&ring, &item));
	assert_false(sl_ring_push(&ring, &item));
	assert_ptr_equal(sl_ring_pop(&ring), &item);
	assert_true(sl_ring_push(&ring, &item));
	for (unsigned i = 0; i < 4; i++)
		assert_non_null(sl_ring_pop(&ring));
	assert_null(sl_ring_pop(&ring));
	sl_ring_fini(&ring);
}

// A wake is a flag, then a write: cleared between the two, it does not leave the descriptor
// readable.
static void a_clear_inside_a_wake(void **state)
{
	const uint64_t one = 1;
	struct sl_waker waker;
	struct pollfd ready;

	(void)state;
	assert_int_equal(sl_waker_init(&waker), 0);
	ready = (struct pollfd){.fd = waker.fd, .events = POLLIN};
	waker.pending = 1;
	sl_waker_clear(&waker);
	assert_int_equal(write(waker.fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(poll(&ready, 1, 0), 1);
	sl_waker_clear(&waker);
	assert_int_equal(poll(&ready, 1, 0), 0);
	assert_int_equal(waker.pending, 0);
	sl_waker_fini(&waker);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_arrives_in_order_and_no_wake_is_lost),
		cmocka_unit_test(a_full_ring_says_so),
		cmocka_unit_test(a_clear_inside_a_wake),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
