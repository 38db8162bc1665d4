#include "dataplane/conn/resolver.h"

#include <netdb.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

struct sl_lookup {
	struct sl_lookup *next;
	char *host;
	uint16_t port;
	uint32_t references; // the asker's and the resolver's
	uint32_t done;       // writer: the resolver; what lies below is valid once it is 1
	int count;
	const char *error;
	struct sl_address addresses[SL_LOOKUP_ADDRESSES_MAX];
};

static struct {
	pthread_once_t once;
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct sl_lookup *first, **last;
	bool running;
} resolver = {
	.once = PTHREAD_ONCE_INIT,
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.work = PTHREAD_COND_INITIALIZER,
};

void sl_lookup_drop(struct sl_lookup *lookup)
{
	if (!lookup || __atomic_sub_fetch(&lookup->references, 1, __ATOMIC_ACQ_REL))
		return;
	free(lookup->host);
	free(lookup);
}

static void resolve(struct sl_lookup *lookup)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
	struct addrinfo *found = NULL;
	char port[8];
	int failed;

	snprintf(port, sizeof(port), "%u", lookup->port);
	failed = getaddrinfo(lookup->host, port, &hints, &found);
	for (struct addrinfo *at = found; at && lookup->count < SL_LOOKUP_ADDRESSES_MAX;
	     at = at->ai_next) {
		struct sl_address *address = &lookup->addresses[lookup->count];

		if (at->ai_addrlen > sizeof(address->u))
			continue;
		memcpy(&address->u, at->ai_addr, at->ai_addrlen);
		address->size = at->ai_addrlen;
		lookup->count++;
	}
	if (found)
		freeaddrinfo(found);
	if (!lookup->count) {
		lookup->error = failed ? gai_strerror(failed) : "no address";
		lookup->count = -1;
	}
	__atomic_store_n(&lookup->done, 1, __ATOMIC_RELEASE);
}

static void *thread_main(void *argument)
{
	(void)argument;
	for (;;) {
		struct sl_lookup *lookup;

		pthread_mutex_lock(&resolver.lock);
		while (!resolver.first)
			pthread_cond_wait(&resolver.work, &resolver.lock);
		lookup = resolver.first;
		resolver.first = lookup->next;
		if (!resolver.first)
			resolver.last = &resolver.first;
		pthread_mutex_unlock(&resolver.lock);
		// Nobody waits any more: its owner has gone meanwhile.
		if (__atomic_load_n(&lookup->references, __ATOMIC_ACQUIRE) > 1)
			resolve(lookup);
		sl_lookup_drop(lookup);
	}
	return NULL;
}

// A thread inherits its maker's core and signals; this one must have neither a shard's core nor
// anybody's signals.
static void start_thread(void)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	cpu_set_t cpus;
	pthread_t thread;

	resolver.last = &resolver.first;
	memset(&cpus, 0xff, sizeof(cpus));
	sigfillset(&all);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setaffinity_np(&attributes, sizeof(cpus), &cpus);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	resolver.running = pthread_create(&thread, &attributes, thread_main, NULL) == 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	if (resolver.running)
		pthread_setname_np(thread, "resolver");
}

struct sl_lookup *sl_lookup_start(const char *host, uint16_t port)
{
	struct sl_lookup *lookup;

	pthread_once(&resolver.once, start_thread);
	if (!resolver.running)
		return NULL;
	lookup = calloc(1, sizeof(*lookup));
	if (!lookup)
		return NULL;
	lookup->host = strdup(host);
	lookup->port = port;
	lookup->references = 2;
	if (!lookup->host) {
		free(lookup);
		return NULL;
	}
	pthread_mutex_lock(&resolver.lock);
	*resolver.last = lookup;
	resolver.last = &lookup->next;
	pthread_cond_signal(&resolver.work);
	pthread_mutex_unlock(&resolver.lock);
	return lookup;
}

int sl_lookup_look(struct sl_lookup *lookup, struct sl_address addresses[SL_LOOKUP_ADDRESSES_MAX],
		   const char **error)
{
	if (!__atomic_load_n(&lookup->done, __ATOMIC_ACQUIRE))
		return 0;
	*error = lookup->error;
	if (lookup->count > 0)
		memcpy(addresses, lookup->addresses, (size_t)lookup->count * sizeof(addresses[0]));
	return lookup->count;
}
