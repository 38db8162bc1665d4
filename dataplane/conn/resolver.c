#include "dataplane/conn/resolver.h"

#include <ares.h>
#include <errno.h>
#include <ifaddrs.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "dataplane/base/thread.h"

#define LOOKUPS_MAX 64   // at a time; others wait
#define TRY_MS      2000 // of one server
#define TRIES       2    // of each

struct sl_lookup {
	struct sl_lookup *next;
	char *host;
	uint16_t port;
	uint32_t references; // the asker's and the resolver's
	uint32_t done;       // writer: the resolver; what lies below is valid once it is 1
	int count;
	const char *error;
	struct sl_address addresses[SL_LOOKUP_ADDRESSES_MAX];
	ares_channel channel; // the resolver's
	bool ended;
};

static struct {
	pthread_once_t once;
	pthread_mutex_t lock;
	struct sl_lookup *first, **last; // asked and not begun
	int wake_fd;
	bool running;
	struct sl_lookup *active[LOOKUPS_MAX]; // the thread's
	unsigned active_count;
} resolver = {
	.once = PTHREAD_ONCE_INIT,
	.lock = PTHREAD_MUTEX_INITIALIZER,
};

void sl_lookup_drop(struct sl_lookup *lookup)
{
	if (!lookup || __atomic_sub_fetch(&lookup->references, 1, __ATOMIC_ACQ_REL))
		return;
	free(lookup->host);
	free(lookup);
}

// Whether the machine has an IPv6 address but the loopback's: without one those of others lead
// nowhere, and would only be tried in vain (RFC 3493, AI_ADDRCONFIG; c-ares has the flag and does
// not look at it).
static bool has_ipv6(void)
{
	struct ifaddrs *all = NULL;
	bool found = false;

	if (getifaddrs(&all) < 0)
		return true;
	for (const struct ifaddrs *at = all; at && !found; at = at->ifa_next) {
		const struct sockaddr_in6 *address = (const void *)at->ifa_addr;

		found = address && address->sin6_family == AF_INET6 &&
			!IN6_IS_ADDR_LOOPBACK(&address->sin6_addr);
	}
	freeifaddrs(all);
	return found;
}

static void take(struct sl_lookup *lookup, const struct ares_addrinfo *found, int family)
{
	const struct ares_addrinfo_node *at = found->nodes;

	for (; at && lookup->count < SL_LOOKUP_ADDRESSES_MAX; at = at->ai_next) {
		struct sl_address *address = &lookup->addresses[lookup->count];

		if (at->ai_family != family || at->ai_addrlen > sizeof(address->u))
			continue;
		memcpy(&address->u, at->ai_addr, at->ai_addrlen);
		address->size = at->ai_addrlen;
		if (family == AF_INET)
			address->u.v4.sin_port = htons(lookup->port);
		else
			address->u.v6.sin6_port = htons(lookup->port);
		lookup->count++;
	}
}

static void on_answer(void *user, int status, int timeouts, struct ares_addrinfo *found)
{
	struct sl_lookup *lookup = user;

	(void)timeouts;
	lookup->ended = true;
	if (status == ARES_SUCCESS) {
		take(lookup, found, AF_INET);
		if (!lookup->count || has_ipv6())
			take(lookup, found, AF_INET6);
	}
	ares_freeaddrinfo(found);
	if (!lookup->count) {
		lookup->error = status == ARES_SUCCESS ? "no address" : ares_strerror(status);
		lookup->count = -1;
	}
	__atomic_store_n(&lookup->done, 1, __ATOMIC_RELEASE);
}

// Each lookup has a channel of its own: it sees resolv.conf as it is now.
static void begin(struct sl_lookup *lookup)
{
	// The variable CARES_HOSTS may name another file than /etc/hosts.
	const struct ares_addrinfo_hints hints = {
		.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = ARES_AI_ENVHOSTS};
	struct ares_options options = {.timeout = TRY_MS, .tries = TRIES};
	const int failed = ares_init_options(&lookup->channel, &options,
					     ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES);

	resolver.active[resolver.active_count++] = lookup;
	if (failed) {
		lookup->channel = NULL;
		on_answer(lookup, failed, 0, NULL);
		return;
	}
	ares_getaddrinfo(lookup->channel, lookup->host, NULL, &hints, on_answer, lookup);
}

static void begin_asked(void)
{
	struct sl_lookup *lookup;

	for (;;) {
		pthread_mutex_lock(&resolver.lock);
		lookup = resolver.active_count < LOOKUPS_MAX ? resolver.first : NULL;
		if (lookup) {
			resolver.first = lookup->next;
			if (!resolver.first)
				resolver.last = &resolver.first;
		}
		pthread_mutex_unlock(&resolver.lock);
		if (!lookup)
			return;
		// Perhaps nobody waits any more: its owner has gone meanwhile.
		if (__atomic_load_n(&lookup->references, __ATOMIC_ACQUIRE) > 1)
			begin(lookup);
		else
			sl_lookup_drop(lookup);
	}
}

static void let_ended_go(void)
{
	for (unsigned i = 0; i < resolver.active_count;) {
		struct sl_lookup *lookup = resolver.active[i];

		if (!lookup->ended) {
			i++;
			continue;
		}
		if (lookup->channel)
			ares_destroy(lookup->channel);
		resolver.active[i] = resolver.active[--resolver.active_count];
		sl_lookup_drop(lookup);
	}
}

#define FDS_MAX (1 + LOOKUPS_MAX * ARES_GETSOCK_MAXNUM)

// Waits for sockets and timeouts of all that is active, and lets c-ares see to them.
static void serve(void)
{
	static struct pollfd fds[FDS_MAX]; // the thread's
	unsigned owners[FDS_MAX], count = 1;
	uint64_t woken;
	int wait_ms = -1;

	fds[0] = (struct pollfd){.fd = resolver.wake_fd, .events = POLLIN};
	for (unsigned i = 0; i < resolver.active_count; i++) {
		ares_channel channel = resolver.active[i]->channel;
		ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
		const unsigned mask = (unsigned)ares_getsock(channel, sockets, ARES_GETSOCK_MAXNUM);
		struct timeval most = {.tv_sec = 60}, left;
		const struct timeval *wait = ares_timeout(channel, &most, &left);
		const int ms = (int)(wait->tv_sec * 1000 + wait->tv_usec / 1000 + 1);

		wait_ms = wait_ms < 0 ? ms : SL_MIN(wait_ms, ms);
		for (unsigned j = 0; j < ARES_GETSOCK_MAXNUM; j++) {
			// As ARES_GETSOCK_READABLE and _WRITABLE, whose shift overflows an int.
			const bool reads = mask >> j & 1;
			const bool writes = mask >> (j + ARES_GETSOCK_MAXNUM) & 1;

			if (!reads && !writes)
				continue;
			owners[count] = i;
			fds[count++] = (struct pollfd){
				.fd = sockets[j],
				.events = (short)((reads ? POLLIN : 0) | (writes ? POLLOUT : 0))};
		}
	}
	poll(fds, count, wait_ms);
	if (fds[0].revents && read(resolver.wake_fd, &woken, sizeof(woken)) < 0)
		assert(errno == EAGAIN || errno == EINTR);
	for (unsigned i = 1; i < count; i++) {
		const bool broken = fds[i].revents & (POLLERR | POLLHUP);

		if (fds[i].revents)
			ares_process_fd(resolver.active[owners[i]]->channel,
					fds[i].revents & POLLIN || broken ? fds[i].fd
									  : ARES_SOCKET_BAD,
					fds[i].revents & POLLOUT ? fds[i].fd : ARES_SOCKET_BAD);
	}
	for (unsigned i = 0; i < resolver.active_count; i++)
		ares_process_fd(resolver.active[i]->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

static void *thread_main(void *argument)
{
	(void)argument;
	for (;;) {
		unsigned count;

		do { // some end at once, and leave their places
			begin_asked();
			count = resolver.active_count;
			let_ended_go();
		} while (resolver.active_count < count);
		serve();
		let_ended_go();
	}
	return NULL;
}

static void start_thread(void)
{
	resolver.last = &resolver.first;
	resolver.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (resolver.wake_fd < 0 || ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
		return;
	resolver.running = sl_thread_start(NULL, "resolver", thread_main, NULL) == 0;
}

struct sl_lookup *sl_lookup_start(const char *host, uint16_t port)
{
	const uint64_t one = 1;
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
	pthread_mutex_unlock(&resolver.lock);
	if (write(resolver.wake_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN); // it is awake
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
