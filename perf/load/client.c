#include "perf/load/client.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/base/clock.h"

#define READ_BYTES  (256 * 1024)
#define WRITE_BYTES (512 * 1024)

struct stream {
	struct stream *next_free;
	const struct sl_load_body *body;
	size_t sent;
	uint64_t due_ns;
	int status; // grpc-status; -1: none seen
	bool measured;
};

struct sl_load_client {
	struct sl_load_run *run;
	nghttp2_session *session;
	int fd;
	uint32_t streams_max, open;
	uint32_t next_body;
	struct stream *free;
	struct stream streams[SL_LOAD_STREAMS_MAX];
	uint8_t *out;
	size_t out_size, out_sent;
	uint8_t *in;
};

static ssize_t read_body(nghttp2_session *session, int32_t stream_id, uint8_t *buffer,
			 size_t length, uint32_t *flags, nghttp2_data_source *source, void *user)
{
	struct stream *stream = source->ptr;
	const size_t take = SL_MIN(length, stream->body->size - stream->sent);

	(void)session;
	(void)stream_id;
	(void)user;
	memcpy(buffer, stream->body->data + stream->sent, take);
	stream->sent += take;
	if (stream->sent == stream->body->size)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)take;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
		     size_t name_size, const uint8_t *value, size_t value_size, uint8_t flags,
		     void *user)
{
	struct stream *stream = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

	(void)flags;
	(void)user;
	if (stream && name_size == 11 && memcmp(name, "grpc-status", 11) == 0) {
		stream->status = 0;
		for (size_t i = 0; i < value_size; i++)
			stream->status = stream->status * 10 + (value[i] - '0');
	}
	return 0;
}

static int on_close(nghttp2_session *session, int32_t stream_id, uint32_t error, void *user)
{
	struct sl_load_client *client = user;
	struct sl_load_totals *totals = &client->run->totals;
	struct stream *stream = nghttp2_session_get_stream_user_data(session, stream_id);

	if (!stream)
		return 0;
	client->open--;
	stream->next_free = client->free;
	client->free = stream;
	if (client->run->measuring && !client->run->measured)
		client->run->answered += !error && stream->status == 0;
	if (!stream->measured)
		return 0;
	if (error)
		totals->resets++;
	else if (stream->status < 0 || stream->status > 16)
		totals->no_status++;
	else
		totals->by_status[stream->status]++;
	if (!error && stream->status == 0) {
		totals->ok++;
		sl_latency_add(&totals->latency, client->run->now_ns - stream->due_ns);
	} else {
		totals->failed++;
	}
	return 0;
}

static int dial(const char *host, const char *port)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct addrinfo *found;
	const int one = 1;
	int fd;

	if (getaddrinfo(host, port, &hints, &found) != 0) {
		errno = EHOSTUNREACH;
		return -1;
	}
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) < 0) {
		close(fd);
		fd = -1;
	}
	freeaddrinfo(found);
	if (fd < 0)
		return -1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static int start_session(struct sl_load_client *client)
{
	const nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20},
	};
	nghttp2_session_callbacks *callbacks;
	nghttp2_option *option;
	int failed;

	if (nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&option) != 0)
		return -ENOMEM;
	nghttp2_option_set_no_closed_streams(option, 1);
	nghttp2_option_set_peer_max_concurrent_streams(option, client->streams_max);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
	failed = nghttp2_session_client_new2(&client->session, callbacks, client, option);
	nghttp2_session_callbacks_del(callbacks);
	nghttp2_option_del(option);
	if (failed)
		return -ENOMEM;
	nghttp2_submit_settings(client->session, NGHTTP2_FLAG_NONE, settings,
				SL_COUNT_OF(settings));
	nghttp2_session_set_local_window_size(client->session, NGHTTP2_FLAG_NONE, 0, 16 << 20);
	return 0;
}

struct sl_load_client *sl_load_client_create_bare(struct sl_load_run *run, uint32_t streams)
{
	struct sl_load_client *client = calloc(1, sizeof(*client));

	if (!client)
		return NULL;
	client->run = run;
	client->fd = -1;
	client->streams_max = SL_MIN(streams, SL_LOAD_STREAMS_MAX);
	for (uint32_t i = 0; i < client->streams_max; i++) {
		client->streams[i].next_free = client->free;
		client->free = &client->streams[i];
	}
	client->out = malloc(WRITE_BYTES);
	if (!client->out || start_session(client) < 0) {
		sl_load_client_destroy(client);
		errno = ENOMEM;
		return NULL;
	}
	return client;
}

struct sl_load_client *sl_load_client_create(struct sl_load_run *run, const char *host,
					     const char *port, uint32_t streams)
{
	struct sl_load_client *client = sl_load_client_create_bare(run, streams);

	if (!client)
		return NULL;
	client->fd = dial(host, port);
	client->in = malloc(READ_BYTES);
	if (client->fd < 0 || !client->in) {
		const int kept = errno;

		sl_load_client_destroy(client);
		errno = kept;
		return NULL;
	}
	return client;
}

void sl_load_client_destroy(struct sl_load_client *client)
{
	if (!client)
		return;
	nghttp2_session_del(client->session);
	if (client->fd >= 0)
		close(client->fd);
	free(client->in);
	free(client->out);
	free(client);
}

int sl_load_client_fd(const struct sl_load_client *client)
{
	return client->fd;
}

uint32_t sl_load_client_room(const struct sl_load_client *client)
{
	return client->streams_max - client->open;
}

uint32_t sl_load_client_open(const struct sl_load_client *client)
{
	return client->open;
}

#define FIELD(name_, value_, size_)                                                                \
	(nghttp2_nv)                                                                               \
	{                                                                                          \
		(uint8_t *)(name_), (uint8_t *)(value_), sizeof(name_) - 1, (size_),               \
			NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE               \
	}

int sl_load_client_start(struct sl_load_client *client, uint64_t due_ns)
{
	struct sl_load_run *run = client->run;
	nghttp2_nv fields[8 + SL_LOAD_HEADERS_MAX];
	nghttp2_data_provider provider = {.read_callback = read_body};
	struct stream *stream = client->free;
	size_t count = 0;

	if (!stream)
		return -EAGAIN;
	client->free = stream->next_free;
	*stream = (struct stream){
		.body = &run->bodies[client->next_body++ % run->body_count],
		.due_ns = due_ns,
		.status = -1,
		.measured = run->measuring,
	};
	fields[count++] = FIELD(":method", "POST", 4);
	fields[count++] = FIELD(":scheme", "http", 4);
	fields[count++] = FIELD(":path", run->path, strlen(run->path));
	fields[count++] = FIELD(":authority", run->authority, strlen(run->authority));
	fields[count++] = FIELD("content-type", "application/grpc", 16);
	fields[count++] = FIELD("te", "trailers", 8);
	fields[count++] = FIELD("user-agent", "sluice-load", 11);
	if (run->coding)
		fields[count++] = FIELD("grpc-encoding", run->coding, strlen(run->coding));
	for (size_t i = 0; i < run->header_count; i++)
		fields[count++] = run->headers[i];
	provider.source.ptr = stream;
	if (nghttp2_submit_request(client->session, NULL, fields, count, &provider, stream) < 0) {
		stream->next_free = client->free;
		client->free = stream;
		return -EIO;
	}
	client->open++;
	if (run->measuring) {
		run->totals.sent++;
		run->totals.sent_bytes += stream->body->size;
	}
	return 0;
}

int sl_load_client_read(struct sl_load_client *client)
{
	const ssize_t got = read(client->fd, client->in, READ_BYTES);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got <= 0)
		return -1;
	return nghttp2_session_mem_recv(client->session, client->in, (size_t)got) < 0 ? -1 : 0;
}

// Gathers frames until the buffer is well filled, so that one write carries many.
static void gather(struct sl_load_client *client)
{
	const uint8_t *frame;
	ssize_t size;

	client->out_size = client->out_sent = 0;
	while (client->out_size < WRITE_BYTES - 32 * 1024) {
		size = nghttp2_session_mem_send(client->session, &frame);
		if (size <= 0)
			break;
		memcpy(client->out + client->out_size, frame, (size_t)size);
		client->out_size += (size_t)size;
	}
}

int sl_load_client_feed(struct sl_load_client *client, struct sl_bytes bytes)
{
	return nghttp2_session_mem_recv(client->session, bytes.data, bytes.size) < 0 ? -1 : 0;
}

struct sl_bytes sl_load_client_pull(struct sl_load_client *client)
{
	if (client->out_sent == client->out_size)
		gather(client);
	return sl_bytes(client->out + client->out_sent, client->out_size - client->out_sent);
}

void sl_load_client_sent(struct sl_load_client *client, size_t bytes)
{
	client->out_sent += bytes;
}

int sl_load_client_write(struct sl_load_client *client)
{
	for (;;) {
		ssize_t wrote;

		if (client->out_sent == client->out_size)
			gather(client);
		if (client->out_sent == client->out_size)
			return 0;
		wrote = write(client->fd, client->out + client->out_sent,
			      client->out_size - client->out_sent);
		if (wrote < 0)
			return errno == EAGAIN || errno == EINTR ? 1 : -1;
		client->out_sent += (size_t)wrote;
	}
}

double sl_load_cpu_of(int pid)
{
	unsigned long user = 0, system = 0;
	char path[64], line[1024];
	const char *rest;
	FILE *file;

	if (!pid)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "r");
	// The name in parentheses may hold anything (proc(5)).
	rest = file && fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
	if (rest)
		sscanf(rest, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
		       &system);
	if (file)
		fclose(file);
	return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

void sl_load_measure(struct sl_load_run *run)
{
	run->measuring = true;
	run->measured_ns = sl_clock_now_ns();
	run->cpu_seconds = sl_load_cpu_of(run->pid);
}

void sl_load_measured(struct sl_load_run *run)
{
	if (!run->measuring || run->measured)
		return;
	run->measured = true;
	run->cpu_seconds = sl_load_cpu_of(run->pid) - run->cpu_seconds;
	run->measured_ns = sl_clock_now_ns() - run->measured_ns;
}
