#include "dataplane/io/datagram.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <stdlib.h>
#include <unistd.h>

#include "dataplane/base/clock.h"
#include "dataplane/io/backend.h"

// One recvmmsg a turn and source; level-triggered, so what is left comes with the next turn.
#define LEAVE_TURNS_MAX 1024 // while others go on sending

struct sl_datagram_room {
	struct mmsghdr messages[SL_DATAGRAMS_A_TURN];
	struct iovec pieces[SL_DATAGRAMS_A_TURN];
	struct sl_address peers[SL_DATAGRAMS_A_TURN];
	uint8_t *bytes;
};

static int take(struct sl_datagram_source *source, uint64_t now_ns)
{
	struct sl_datagram_room *room = source->room;
	int count;

	for (unsigned i = 0; i < SL_DATAGRAMS_A_TURN; i++)
		room->messages[i].msg_hdr.msg_namelen = sizeof(room->peers[i].u);
	do {
		count = recvmmsg(source->watch.fd, room->messages, SL_DATAGRAMS_A_TURN,
				 MSG_DONTWAIT, NULL);
	} while (count < 0 && errno == EINTR);
	for (int i = 0; i < count; i++) {
		const struct mmsghdr *message = &room->messages[i];

		room->peers[i].size = message->msg_hdr.msg_namelen;
		source->received(source, &room->peers[i],
				 sl_bytes(room->pieces[i].iov_base, message->msg_len),
				 message->msg_hdr.msg_flags & MSG_TRUNC, now_ns);
	}
	return count;
}

static void readable(struct sl_io_watch *watch, uint64_t now_ns)
{
	(void)take(SL_CONTAINER_OF(watch, struct sl_datagram_source, watch), now_ns);
}

static void room_destroy(struct sl_datagram_room *room)
{
	if (room)
		free(room->bytes);
	free(room);
}

static struct sl_datagram_room *room_create(uint32_t bytes_max)
{
	const size_t each = (bytes_max + 63) & ~(size_t)63;
	struct sl_datagram_room *room = calloc(1, sizeof(*room));

	if (room)
		room->bytes = malloc(each * SL_DATAGRAMS_A_TURN);
	if (!room || !room->bytes) {
		room_destroy(room);
		return NULL;
	}
	for (unsigned i = 0; i < SL_DATAGRAMS_A_TURN; i++) {
		room->pieces[i] = (struct iovec){room->bytes + i * each, bytes_max};
		room->messages[i].msg_hdr = (struct msghdr){
			.msg_name = &room->peers[i].u,
			.msg_iov = &room->pieces[i],
			.msg_iovlen = 1,
		};
	}
	return room;
}

int sl_datagrams_join(struct sl_io *io, struct sl_io_backend *backend,
		      struct sl_datagram_source *source)
{
	int failed;

	assert(source->received && source->bytes_max <= SL_DATAGRAM_BYTES_MAX && !source->room);
	if (source->watch.fd == SL_IO_FD_BACKEND)
		return backend->ops->take_datagrams(backend, source);
	source->room = room_create(source->bytes_max);
	if (!source->room)
		return -ENOMEM;
	source->watch.ready = readable;
	failed = sl_io_watch(io, &source->watch);
	if (failed) {
		room_destroy(source->room);
		source->room = NULL;
	}
	return failed;
}

void sl_datagrams_leave(struct sl_io_backend *backend, struct sl_datagram_source *source)
{
	unsigned turns = 0;

	if (source->watch.fd == SL_IO_FD_BACKEND) {
		backend->ops->leave_datagrams(backend, source);
		return;
	}
	if (!source->room)
		return;
	// What has come before the end is still taken: its senders do not know of it.
	while (take(source, sl_clock_now_ns()) > 0 && turns < LEAVE_TURNS_MAX)
		turns++;
	close(source->watch.fd); // leaves epoll by itself
	source->watch.fd = -1;
	room_destroy(source->room);
	source->room = NULL;
}

uint64_t sl_datagrams_missed(const struct sl_datagram_source *source)
{
	uint32_t info[SK_MEMINFO_VARS] = {0};
	socklen_t size = sizeof(info);

	if (!source->room || getsockopt(source->watch.fd, SOL_SOCKET, SO_MEMINFO, info, &size) < 0)
		return 0;
	return info[SK_MEMINFO_DROPS];
}
