// C11 threads as pthreads, for ThreadSanitizer: its runtime sees pthread_ calls only. A thread made
// behind its back (librdkafka's, by thrd_create) crashes in the first malloc, and what is handed
// over under a mutex that it does not see looks like a race. In glibc mtx_t and cnd_t have the
// size and alignment of their pthread brothers, so that one may be made of the other.

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <threads.h>

static_assert(sizeof(mtx_t) == sizeof(pthread_mutex_t), "a mutex in the other's place");
static_assert(sizeof(cnd_t) == sizeof(pthread_cond_t), "a condition in the other's place");

struct start {
	thrd_start_t run;
	void *argument;
};

static int outcome(int error)
{
	switch (error) {
	case 0:
		return thrd_success;
	case ENOMEM:
		return thrd_nomem;
	case ETIMEDOUT:
		return thrd_timedout;
	case EBUSY:
		return thrd_busy;
	default:
		return thrd_error;
	}
}

static void *begin(void *memory)
{
	const struct start start = *(struct start *)memory;

	free(memory);
	return (void *)(intptr_t)start.run(start.argument);
}

int thrd_create(thrd_t *thread, thrd_start_t run, void *argument)
{
	struct start *start = malloc(sizeof(*start));
	int error;

	if (!start)
		return thrd_nomem;
	*start = (struct start){run, argument};
	error = pthread_create(thread, NULL, begin, start);
	if (error)
		free(start);
	return outcome(error);
}

int thrd_join(thrd_t thread, int *result)
{
	void *value = NULL;
	const int error = pthread_join(thread, &value);

	if (result)
		*result = (int)(intptr_t)value;
	return outcome(error);
}

int thrd_detach(thrd_t thread)
{
	return outcome(pthread_detach(thread));
}

int mtx_init(mtx_t *mutex, int type)
{
	pthread_mutexattr_t attributes;
	int error;

	pthread_mutexattr_init(&attributes);
	if (type & mtx_recursive)
		pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
	error = pthread_mutex_init((pthread_mutex_t *)mutex, &attributes);
	pthread_mutexattr_destroy(&attributes);
	return outcome(error);
}

int mtx_lock(mtx_t *mutex)
{
	return outcome(pthread_mutex_lock((pthread_mutex_t *)mutex));
}

int mtx_trylock(mtx_t *mutex)
{
	return outcome(pthread_mutex_trylock((pthread_mutex_t *)mutex));
}

int mtx_unlock(mtx_t *mutex)
{
	return outcome(pthread_mutex_unlock((pthread_mutex_t *)mutex));
}

void mtx_destroy(mtx_t *mutex)
{
	pthread_mutex_destroy((pthread_mutex_t *)mutex);
}

int cnd_init(cnd_t *condition)
{
	return outcome(pthread_cond_init((pthread_cond_t *)condition, NULL));
}

int cnd_signal(cnd_t *condition)
{
	return outcome(pthread_cond_signal((pthread_cond_t *)condition));
}

int cnd_broadcast(cnd_t *condition)
{
	return outcome(pthread_cond_broadcast((pthread_cond_t *)condition));
}

int cnd_wait(cnd_t *condition, mtx_t *mutex)
{
	return outcome(pthread_cond_wait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex));
}

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until)
{
	return outcome(pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex,
					      until));
}

void cnd_destroy(cnd_t *condition)
{
	pthread_cond_destroy((pthread_cond_t *)condition);
}
