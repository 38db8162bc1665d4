#include "dataplane/io/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LISTEN_FDS_START 3 // by the convention

static bool is_any(const struct sl_address *address)
{
	return address->u.any.sa_family == AF_INET6 &&
	       IN6_IS_ADDR_UNSPECIFIED(&address->u.v6.sin6_addr);
}

static int tell(const struct sl_address *address, int failed, char *error, size_t error_size)
{
	char text[SL_ADDRESS_TEXT_MAX];

	snprintf(error, error_size, "listen %s: %s", sl_address_text(address, text),
		 failed == EADDRINUSE      ? "in use by another socket"
		 : failed == EACCES        ? "no permission for this port"
		 : failed == EADDRNOTAVAIL ? "not an address of this machine"
					   : strerror(failed));
	return -failed;
}

static int open_socket(const struct sl_address *address, bool datagrams)
{
	return socket(address->u.any.sa_family,
		      (datagrams ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

// A buffer above the system's limit needs CAP_NET_ADMIN; without it the limit is what there is.
static int make_ready(int fd, const struct sl_listen_options *options)
{
	const int bytes = (int)SL_MIN(options->buffer_bytes, SL_GIB);

	if (!options->datagrams)
		return listen(fd, options->backlog > 0 ? options->backlog : SOMAXCONN);
	if (bytes && setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0)
		return setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	return 0;
}

int sl_io_open_listener(const struct sl_address *address, const struct sl_listen_options *options,
			char *error, size_t error_size)
{
	const int one = 1, not_only_v6 = 0;
	struct sl_address at = *address;
	int fd = open_socket(&at, options->datagrams);
	int failed;

	if (fd < 0 && errno == EAFNOSUPPORT && is_any(address)) {
		at = (struct sl_address){.size = sizeof(at.u.v4)};
		at.u.v4.sin_family = AF_INET;
		at.u.v4.sin_port = htons(sl_address_port(address));
		fd = open_socket(&at, options->datagrams);
	}
	if (fd < 0)
		return tell(&at, errno, error, error_size);
	// Sockets of the last process in TIME_WAIT must not keep the next one out.
	if (!options->datagrams && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0)
		goto fail;
	if (options->reuse_port && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) < 0)
		goto fail;
	if (is_any(&at) &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &not_only_v6, sizeof(not_only_v6)) < 0)
		goto fail;
	if (bind(fd, &at.u.any, at.size) < 0 || make_ready(fd, options) < 0)
		goto fail;
	return fd;
fail:
	failed = errno;
	close(fd);
	return tell(&at, failed, error, error_size);
}

int sl_io_local_address(int fd, struct sl_address *address)
{
	*address = (struct sl_address){.size = sizeof(address->u)};
	return getsockname(fd, &address->u.any, &address->size) < 0 ? -errno : 0;
}

static bool is_listener(int fd)
{
	int type = 0, listening = 0;
	socklen_t size = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM)
		return false;
	size = sizeof(listening);
	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening;
}

void sl_inherited_init(struct sl_inherited *inherited)
{
	const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
	const int fds = count ? atoi(count) : 0;

	inherited->count = 0;
	// A new process image that an older one started cannot know its pid beforehand: a missing
	// LISTEN_PID is taken as ours, a wrong one is a parent's.
	if (!pid || atoi(pid) == getpid()) {
		for (int i = 0; i < fds && i < SL_INHERITED_MAX; i++) {
			const int fd = LISTEN_FDS_START + i;
			struct sl_address address;

			if (!is_listener(fd) || sl_io_local_address(fd, &address) < 0)
				continue;
			fcntl(fd, F_SETFD, FD_CLOEXEC);
			fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
			inherited->fds[inherited->count] = fd;
			inherited->addresses[inherited->count++] = address;
		}
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
}

static bool same_address(const struct sl_address *a, const struct sl_address *b)
{
	if (a->u.any.sa_family != b->u.any.sa_family || sl_address_port(a) != sl_address_port(b))
		return false;
	if (a->u.any.sa_family == AF_INET)
		return a->u.v4.sin_addr.s_addr == b->u.v4.sin_addr.s_addr;
	return a->u.any.sa_family == AF_INET6 &&
	       memcmp(&a->u.v6.sin6_addr, &b->u.v6.sin6_addr, sizeof(a->u.v6.sin6_addr)) == 0;
}

int sl_inherited_take(struct sl_inherited *inherited, const struct sl_address *address)
{
	for (uint32_t i = 0; i < inherited->count; i++) {
		const int fd = inherited->fds[i];

		if (fd >= 0 && same_address(&inherited->addresses[i], address)) {
			inherited->fds[i] = -1;
			return fd;
		}
	}
	return -1;
}

void sl_inherited_fini(struct sl_inherited *inherited)
{
	for (uint32_t i = 0; i < inherited->count; i++) {
		if (inherited->fds[i] >= 0)
			close(inherited->fds[i]);
		inherited->fds[i] = -1;
	}
}
