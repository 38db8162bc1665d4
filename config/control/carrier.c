#include "config/control/carrier.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/uio.h>
#include <unistd.h>

#include "dataplane/base/log.h"
#include "dataplane/conn/resolver.h"
#include "dataplane/tls/tls.h"
#include "tenants/settings.h"

#define READS_MAX 64 // a turn; a Redis that never stops talking must not keep the thread

static void hang_up(struct sl_carrier *carrier)
{
	sl_lookup_drop(carrier->lookup);
	carrier->lookup = NULL;
	sl_tls_destroy(carrier->tls);
	carrier->tls = NULL;
	carrier->pulled = 0;
	carrier->connected = false;
	if (carrier->fd >= 0)
		close(carrier->fd);
	carrier->fd = -1;
	carrier->link->hang_up = false;
}

void sl_carrier_fini(struct sl_carrier *carrier)
{
	if (carrier->link)
		hang_up(carrier);
	sl_tls_context_put(carrier->tls_context);
}

static void failed(struct sl_carrier *carrier, const char *problem)
{
	sl_fleet_link_failed(carrier->link, problem, carrier->now_ns);
}

static void dial(struct sl_carrier *carrier)
{
	struct sl_address addresses[SL_LOOKUP_ADDRESSES_MAX];
	const char *error = NULL;
	const int count = sl_lookup_look(carrier->lookup, addresses, &error);
	const int on = 1;

	if (count == 0)
		return;
	sl_lookup_drop(carrier->lookup);
	carrier->lookup = NULL;
	if (count < 0) {
		failed(carrier, error);
		return;
	}

	const struct sl_address *to = &addresses[carrier->dials++ % (uint32_t)count];

	carrier->fd = socket(to->u.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (carrier->fd < 0) {
		failed(carrier, strerror(errno));
		return;
	}
	setsockopt(carrier->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(carrier->fd, &to->u.any, to->size) < 0 && errno != EINPROGRESS)
		failed(carrier, strerror(errno));
}

static void take_plain(void *user, struct sl_bytes bytes)
{
	struct sl_carrier *carrier = user;

	sl_fleet_link_received(carrier->link, bytes, carrier->now_ns);
}

static void feed_tls(struct sl_carrier *carrier, struct sl_bytes bytes)
{
	switch (sl_tls_feed(carrier->tls, bytes, take_plain, carrier)) {
	case SL_TLS_OK:
		break;
	case SL_TLS_CLOSED:
		failed(carrier, "closed by Redis");
		return;
	case SL_TLS_FAILED:
		failed(carrier, sl_tls_error(carrier->tls));
		return;
	}
	if (carrier->link->state == SL_FLEET_LINK_DIALING && sl_tls_is_up(carrier->tls))
		sl_fleet_link_connected(carrier->link, carrier->now_ns);
}

// The handshake of TCP is over, one way or the other.
static void finish_connect(struct sl_carrier *carrier)
{
	struct pollfd fd = {.fd = carrier->fd, .events = POLLOUT};
	socklen_t size = sizeof(int);
	int error = 0;

	if (poll(&fd, 1, 0) <= 0)
		return;
	getsockopt(carrier->fd, SOL_SOCKET, SO_ERROR, &error, &size);
	if (error) {
		failed(carrier, strerror(error));
		return;
	}
	carrier->connected = true;
	if (!carrier->tls_context) {
		sl_fleet_link_connected(carrier->link, carrier->now_ns);
		return;
	}
	carrier->tls = sl_tls_create(carrier->tls_context, carrier->memory);
	if (carrier->tls)
		feed_tls(carrier, SL_BYTES_NONE);
	else
		failed(carrier, "no memory");
}

static void read_all(struct sl_carrier *carrier)
{
	uint8_t bytes[16 * SL_KIB];

	for (int i = 0; i < READS_MAX && !carrier->link->hang_up; i++) {
		const ssize_t got = recv(carrier->fd, bytes, sizeof(bytes), 0);

		if (got > 0 && carrier->tls)
			feed_tls(carrier, sl_bytes(bytes, (size_t)got));
		else if (got > 0)
			take_plain(carrier, sl_bytes(bytes, (size_t)got));
		else if (got == 0)
			failed(carrier, "closed by Redis");
		else if (errno != EAGAIN && errno != EINTR)
			failed(carrier, strerror(errno));
		if (got < 0)
			return;
	}
}

// Returns how many went; fails the link when it cannot.
static size_t send_some(struct sl_carrier *carrier, struct sl_bytes bytes)
{
	const ssize_t sent = send(carrier->fd, bytes.data, bytes.size, MSG_NOSIGNAL);

	if (sent >= 0)
		return (size_t)sent;
	if (errno != EAGAIN && errno != EINTR)
		failed(carrier, strerror(errno));
	return 0;
}

static void write_tls(struct sl_carrier *carrier)
{
	for (;;) {
		struct sl_bytes cipher = sl_tls_pull(carrier->tls);

		if (cipher.size) {
			carrier->pulled += send_some(carrier,
						     sl_bytes(cipher.data + carrier->pulled,
							      cipher.size - carrier->pulled));
			if (carrier->pulled < cipher.size)
				return;
			carrier->pulled = 0;
			sl_tls_pulled(carrier->tls);
			continue;
		}
		if (!sl_tls_is_up(carrier->tls))
			return;

		const struct sl_bytes plain = sl_fleet_link_output(carrier->link);
		const struct iovec piece = {(void *)plain.data, plain.size};

		if (plain.size == 0)
			return;
		if (sl_tls_write(carrier->tls, &piece, 1) != SL_TLS_OK) {
			failed(carrier, sl_tls_error(carrier->tls));
			return;
		}
		sl_fleet_link_sent(carrier->link, plain.size);
	}
}

static void write_all(struct sl_carrier *carrier)
{
	if (carrier->tls) {
		write_tls(carrier);
		return;
	}

	const struct sl_bytes bytes = sl_fleet_link_output(carrier->link);

	if (bytes.size)
		sl_fleet_link_sent(carrier->link, SL_MIN(send_some(carrier, bytes),
							 sl_fleet_link_output(carrier->link).size));
}

// What a server says may hold anything.
static void tell(struct sl_carrier *carrier)
{
	const struct sl_fleet_link *link = carrier->link;
	char problem[sizeof(link->problem)];
	uint64_t count;

	if (link->failures != carrier->told_failures) {
		carrier->told_failures = link->failures;
		snprintf(problem, sizeof(problem), "%s", link->problem);
		for (char *at = problem; *at; at++)
			*at = (uint8_t)*at < ' ' || *at == '"' || *at == 0x7f ? '\'' : *at;
		count = sl_log_spell_more(&carrier->lost, carrier->now_ns);
		if (count)
			sl_log(SL_LOG_WARN, "quota_redis_lost", "redis=%s reason=\"%s\" count=%llu",
			       carrier->address, problem, (unsigned long long)count);
		if (!carrier->down_ns)
			carrier->down_ns = carrier->now_ns;
		carrier->told_up = false;
	}
	if (link->answered && !carrier->told_up) {
		carrier->told_up = true;
		carrier->lost = (struct sl_log_spell){0};
		sl_log(SL_LOG_INFO, "quota_redis_up", "redis=%s after_ms=%llu", carrier->address,
		       (unsigned long long)(carrier->down_ns
						    ? (carrier->now_ns - carrier->down_ns) / SL_MS
						    : 0));
		carrier->down_ns = 0;
	}
}

void sl_carrier_tick(struct sl_carrier *carrier, uint64_t now_ns)
{
	carrier->now_ns = now_ns;
	if (sl_fleet_link_tick(carrier->link, now_ns)) {
		hang_up(carrier);
		carrier->lookup = sl_lookup_start(carrier->host, carrier->port);
		if (!carrier->lookup)
			failed(carrier, "no memory");
	}
	if (carrier->lookup && carrier->link->state == SL_FLEET_LINK_DIALING)
		dial(carrier);
	if (carrier->link->hang_up)
		hang_up(carrier);
	tell(carrier);
}

short sl_carrier_events(const struct sl_carrier *carrier)
{
	const bool writes = !carrier->connected || sl_fleet_link_output(carrier->link).size ||
			    carrier->pulled;

	return (short)(writes ? POLLIN | POLLOUT : POLLIN);
}

void sl_carrier_run(struct sl_carrier *carrier, uint64_t now_ns)
{
	carrier->now_ns = now_ns;
	if (carrier->fd >= 0 && !carrier->connected && !carrier->link->hang_up)
		finish_connect(carrier);
	if (carrier->connected && !carrier->link->hang_up)
		read_all(carrier);
	if (carrier->connected && !carrier->link->hang_up)
		write_all(carrier);
	if (carrier->link->hang_up)
		hang_up(carrier);
	tell(carrier);
}
