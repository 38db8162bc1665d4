// The limit: the least that a server of OTLP over gRPC can do on kernel sockets. It reads up to
// 256 KiB at a time, lets nghttp2 frame it, throws bodies away, answers each call with success at
// its end, and writes once a wake-up. Everything Sluice does beyond it is measured against it.
//
//   sluice-limit PORT      serves until it is killed

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/base/base.h"

#define READ_BYTES (256 * 1024)
#define OUT_BYTES  (256 * 1024)

struct session {
	nghttp2_session *h2;
	int fd;
};

static uint8_t in[READ_BYTES], out[OUT_BYTES];
static nghttp2_session_callbacks *callbacks;

#define FIELD(name_, value_)                                                                       \
	{                                                                                          \
		(uint8_t *)(name_), (uint8_t *)(value_), sizeof(name_) - 1, sizeof(value_) - 1,    \
			NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE               \
	}

static ssize_t read_reply(nghttp2_session *h2, int32_t stream_id, uint8_t *buffer, size_t length,
			  uint32_t *flags, nghttp2_data_source *source, void *user)
{
	static const nghttp2_nv trailers[] = {FIELD("grpc-status", "0")};

	(void)source;
	(void)user;
	assert(length >= 5);
	memset(buffer, 0, 5); // an empty message
	*flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
	nghttp2_submit_trailer(h2, stream_id, trailers, 1);
	return 5;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
	static const nghttp2_nv head[] = {FIELD(":status", "200"),
					  FIELD("content-type", "application/grpc")};
	const nghttp2_data_provider provider = {.read_callback = read_reply};

	(void)user;
	if ((frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) &&
	    (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		nghttp2_submit_response(h2, frame->hd.stream_id, head, 2, &provider);
	return 0;
}

static void accept_one(int epoll, int listener)
{
	const nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1024},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20},
	};
	struct session *session = calloc(1, sizeof(*session));
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = session};
	const int one = 1;

	assert(session);
	session->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	if (session->fd < 0) {
		free(session);
		return;
	}
	setsockopt(session->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	nghttp2_session_server_new(&session->h2, callbacks, session);
	nghttp2_submit_settings(session->h2, 0, settings, SL_COUNT_OF(settings));
	nghttp2_session_set_local_window_size(session->h2, 0, 0, 16 << 20);
	epoll_ctl(epoll, EPOLL_CTL_ADD, session->fd, &event);
}

static void end(struct session *session)
{
	nghttp2_session_del(session->h2);
	close(session->fd);
	free(session);
}

// One read, the frames in it, one write.
static void serve(struct session *session)
{
	const ssize_t got = read(session->fd, in, sizeof(in));
	size_t size = 0;
	const uint8_t *frame;
	ssize_t more;

	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0 || nghttp2_session_mem_recv(session->h2, in, (size_t)got) < 0) {
		end(session);
		return;
	}
	while (size < sizeof(out) - 32 * 1024 &&
	       (more = nghttp2_session_mem_send(session->h2, &frame)) > 0) {
		memcpy(out + size, frame, (size_t)more);
		size += (size_t)more;
	}
	// Replies are a few bytes a call: a socket that cannot take them belongs to a dead client.
	if (size && write(session->fd, out, size) != (ssize_t)size)
		end(session);
}

static int open_listener(const char *port)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				      .sin_port = htons((uint16_t)atoi(port))};
	const int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 1024) < 0)
		return -1;
	return fd;
}

int main(int argc, char **argv)
{
	const int epoll = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN}, ready[64];
	const int listener = argc == 2 ? open_listener(argv[1]) : -1;

	if (listener < 0) {
		fprintf(stderr, "usage: sluice-limit PORT (a free one on loopback)\n");
		return 64;
	}
	nghttp2_session_callbacks_new(&callbacks);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
	for (;;) {
		const int count = epoll_wait(epoll, ready, SL_COUNT_OF(ready), -1);

		for (int i = 0; i < count; i++) {
			if (!ready[i].data.ptr)
				accept_one(epoll, listener);
			else
				serve(ready[i].data.ptr);
		}
	}
}
