#include <stdlib.h>
#include <unistd.h>

#include "dataplane/shard/internal.h"

// Connections are few and long-lived, so a hash over flows would leave cores idle: whoever accepts
// a socket hands it to the shard with the fewest sessions.

struct handed_socket {
	int fd;
	uint32_t listen_index;
	struct sl_address peer;
};

static struct sl_shard *least_loaded(struct sl_shard *shard)
{
	struct sl_shard *best = shard;
	uint32_t fewest = __atomic_load_n(&shard->session_count, __ATOMIC_RELAXED);

	for (uint32_t i = 0; i < shard->options.count; i++) {
		struct sl_shard *peer = shard->options.peers[i];
		const uint32_t count = __atomic_load_n(&peer->session_count, __ATOMIC_RELAXED) +
				       __atomic_load_n(&peer->handed_count, __ATOMIC_RELAXED);

		// What is on its way counts, or a burst would all go to one.
		if (count < fewest && !__atomic_load_n(&peer->want_drain, __ATOMIC_RELAXED)) {
			fewest = count;
			best = peer;
		}
	}
	return best;
}

static void begin_session(struct sl_shard *shard, int fd, uint32_t listen_index,
			  const struct sl_address *peer)
{
	const struct sl_server_part *part = shard->snapshot->parts[SL_MODULE_SERVER];
	struct sl_tls_context *tls = listen_index < part->listen_count
					     ? part->listens[listen_index].tls
					     : NULL;

	sl_server_accept(shard->server, fd, peer, tls, shard->now_ns);
	__atomic_store_n(&shard->session_count, sl_server_sessions(shard->server),
			 __ATOMIC_RELAXED);
}

void sl_shard_accepted(struct sl_listener *listener, int fd, const struct sl_address *peer,
		       uint64_t now_ns)
{
	struct sl_shard_listener *self = (struct sl_shard_listener *)listener;
	struct sl_shard *shard = self->shard;
	// A flow of the backend has come to the shard it belongs to.
	struct sl_shard *owner = fd == SL_IO_FD_BACKEND ? shard : least_loaded(shard);
	struct handed_socket *socket;

	shard->now_ns = now_ns;
	if (owner == shard) {
		begin_session(shard, fd, self->index, peer);
		return;
	}
	socket = malloc(sizeof(*socket)); // once a connection, not a request
	if (socket) {
		*socket = (struct handed_socket){fd, self->index, *peer};
		__atomic_fetch_add(&owner->handed_count, 1, __ATOMIC_RELAXED);
		if (sl_ring_push(&owner->handed[shard->options.index], socket)) {
			sl_waker_wake(&owner->waker);
			return;
		}
		__atomic_fetch_sub(&owner->handed_count, 1, __ATOMIC_RELAXED);
		free(socket);
	}
	begin_session(shard, fd, self->index, peer); // its ring is full: keep it
}

void sl_shard_take_handed(struct sl_shard *shard)
{
	for (uint32_t from = 0; from < shard->options.count; from++) {
		struct handed_socket *socket;

		while ((socket = sl_ring_pop(&shard->handed[from]))) {
			begin_session(shard, socket->fd, socket->listen_index, &socket->peer);
			__atomic_fetch_sub(&shard->handed_count, 1, __ATOMIC_RELAXED);
			free(socket);
		}
	}
}
