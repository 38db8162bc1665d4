#include "dataplane/base/thread.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

struct start {
	const char *name;
	void *(*run)(void *);
	void *argument;
};

// By itself: one that nobody joins may be over before its maker could name it.
static void *begin(void *memory)
{
	const struct start start = *(struct start *)memory;

	free(memory);
	pthread_setname_np(pthread_self(), start.name);
	return start.run(start.argument);
}

int sl_thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *argument)
{
	struct start *start = malloc(sizeof(*start));
	pthread_attr_t attributes;
	sigset_t all, before;
	pthread_t detached;
	cpu_set_t cpus;
	int error;

	if (!start)
		return -ENOMEM;
	*start = (struct start){name, run, argument};
	error = pthread_attr_init(&attributes);
	if (error) {
		free(start);
		return -error;
	}
	// The main thread's id is the process'.
	if (sched_getaffinity(getpid(), sizeof(cpus), &cpus) == 0)
		pthread_attr_setaffinity_np(&attributes, sizeof(cpus), &cpus);
	if (!thread)
		pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(thread ? thread : &detached, &attributes, begin, start);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	if (error)
		free(start);
	return -error;
}
