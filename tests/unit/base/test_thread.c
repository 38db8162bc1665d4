// Threads beside the shards: whoever starts them, no signal and no shard's core.

#include "tests/unit/test.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "dataplane/base/thread.h"

struct seen {
	sigset_t signals;
	cpu_set_t cpus;
	char name[16];
	int ended[2]; // a pipe
};

static void *look(void *argument)
{
	struct seen *seen = argument;

	pthread_sigmask(SIG_SETMASK, NULL, &seen->signals);
	sched_getaffinity(0, sizeof(seen->cpus), &seen->cpus);
	pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name));
	return write(seen->ended[1], "", 1) == 1 ? seen : NULL;
}

static void check(struct seen *seen, const cpu_set_t *cpus)
{
	char byte;

	assert_int_equal(read(seen->ended[0], &byte, 1), 1);
	assert_int_equal(sigismember(&seen->signals, SIGTERM), 1);
	assert_int_equal(sigismember(&seen->signals, SIGUSR1), 1);
	assert_true(CPU_EQUAL(&seen->cpus, cpus));
	assert_string_equal(seen->name, "looks");
}

// On a core of its own, as a shard.
static void *start_others(void *argument)
{
	const cpu_set_t *cpus = argument;
	struct seen seen = {0};
	pthread_t thread;
	cpu_set_t one;
	void *result;
	int cpu = 0;

	assert_int_equal(pipe(seen.ended), 0);
	while (!CPU_ISSET(cpu, cpus))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
	assert_int_equal(sl_thread_start(&thread, "looks", look, &seen), 0);
	check(&seen, cpus);
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_ptr_equal(result, &seen);
	assert_int_equal(sl_thread_start(NULL, "looks", look, &seen), 0);
	check(&seen, cpus);
	close(seen.ended[0]);
	close(seen.ended[1]);
	return NULL;
}

static void test_nothing_of_its_maker(void **state)
{
	sigset_t mask;
	cpu_set_t cpus;
	pthread_t thread;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
	assert_int_equal(pthread_create(&thread, NULL, start_others, &cpus), 0);
	pthread_join(thread, NULL);
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	assert_int_equal(sigismember(&mask, SIGUSR1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_of_its_maker),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
