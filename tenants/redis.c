#include "tenants/redis.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "dataplane/base/clock.h"
#include "dataplane/tls/tls.h"

#define CONNECT_NS   (2 * SL_S)
#define ANSWER_NS    (5 * SL_S)
#define STOP_NS      (100 * SL_MS) // how often it is looked whether somebody still waits
#define MEMORY_BYTES (4 * SL_MIB)  // of TLS

struct sl_redis_stream {
	int fd;
	redisReader *reader;
	struct sl_tls *tls; // NULL: plain
	struct sl_tls_context *context;
	struct sl_memory memory; // of `tls`
};

int sl_redis_tls(const struct sl_quota_redis_config *config, struct sl_tls_context **context,
		 char *error, size_t error_size)
{
	static const struct sl_quota_tls_config presets = {.verify = true};
	const struct sl_quota_tls_config *from = config->tls ? config->tls : &presets;
	struct sl_quota_redis_place place;

	*context = NULL;
	if (sl_quota_redis_place(config, &place) || !place.tls)
		return 0;

	const struct sl_tls_certificate certificate = {from->certificate_file, from->key_file};
	const struct sl_tls_config tls = {
		.certificates = &certificate,
		.certificate_count = certificate.certificate_file ? 1 : 0,
		.ca_file = from->ca_file,
		.insecure = !from->verify,
		.server_name = place.host,
	};

	*context = sl_tls_context_create(&tls, error, error_size);
	return *context ? 0 : -EINVAL;
}

static int fail(struct sl_redis *redis, int error, const char *problem)
{
	snprintf(redis->problem, sizeof(redis->problem), "%s", problem);
	return error;
}

// --- bytes ---------------------------------------------------------------------------------------

static int wait_until(struct sl_redis *redis, short events, uint64_t end_ns)
{
	struct pollfd fd = {.fd = redis->stream->fd, .events = events};
	uint64_t left_ns = 1;
	int ready = 0;

	while (left_ns && (ready == 0 || (ready < 0 && errno == EINTR))) {
		const uint64_t now_ns = sl_clock_now_ns();

		if (redis->stop && __atomic_load_n(redis->stop, __ATOMIC_RELAXED))
			return fail(redis, -ECANCELED, "it was not waited for");
		left_ns = now_ns < end_ns ? end_ns - now_ns : 0;
		ready = poll(&fd, 1,
			     left_ns ? (int)(SL_MIN(left_ns, (uint64_t)STOP_NS) / SL_MS) + 1 : 0);
	}
	if (ready < 0)
		return fail(redis, -errno, strerror(errno));
	redis->silent = ready == 0;
	return ready == 0 ? fail(redis, -EIO, "it does not answer") : 0;
}

static int send_all(struct sl_redis *redis, struct sl_bytes bytes, uint64_t end_ns)
{
	while (bytes.size) {
		const ssize_t sent = send(redis->stream->fd, bytes.data, bytes.size, MSG_NOSIGNAL);
		int error = 0;

		if (sent >= 0) {
			bytes.data += sent;
			bytes.size -= (size_t)sent;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return fail(redis, -EIO, strerror(errno));
		error = wait_until(redis, POLLOUT, end_ns);
		if (error)
			return error;
	}
	return 0;
}

// What TLS has to say: its handshake, its records.
static int send_tls(struct sl_redis *redis, uint64_t end_ns)
{
	struct sl_tls *tls = redis->stream->tls;
	struct sl_bytes cipher;

	while ((cipher = sl_tls_pull(tls)).size) {
		const int error = send_all(redis, cipher, end_ns);

		sl_tls_pulled(tls);
		if (error)
			return error;
	}
	return 0;
}

static void take_plain(void *user, struct sl_bytes bytes)
{
	struct sl_redis *redis = user;

	redisReaderFeed(redis->stream->reader, (const char *)bytes.data, bytes.size);
}

static int feed_tls(struct sl_redis *redis, struct sl_bytes bytes, uint64_t end_ns)
{
	const enum sl_tls_result result = sl_tls_feed(redis->stream->tls, bytes, take_plain, redis);
	const int error = send_tls(redis, end_ns); // an alert, too

	if (result == SL_TLS_OK)
		return error;
	return fail(redis, -EIO,
		    result == SL_TLS_CLOSED ? "closed by Redis" : sl_tls_error(redis->stream->tls));
}

// Some more of what it says.
static int receive(struct sl_redis *redis, uint64_t end_ns)
{
	uint8_t bytes[16 * SL_KIB];
	const ssize_t got = recv(redis->stream->fd, bytes, sizeof(bytes), 0);

	if (got == 0)
		return fail(redis, -EIO, "closed by Redis");
	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? wait_until(redis, POLLIN, end_ns)
							 : fail(redis, -EIO, strerror(errno));
	if (redis->stream->tls)
		return feed_tls(redis, sl_bytes(bytes, (size_t)got), end_ns);
	take_plain(redis, sl_bytes(bytes, (size_t)got));
	return 0;
}

static int say(struct sl_redis *redis, struct sl_bytes bytes, uint64_t end_ns)
{
	const struct iovec piece = {(void *)(uintptr_t)bytes.data, bytes.size};

	if (!redis->stream->tls)
		return send_all(redis, bytes, end_ns);
	if (sl_tls_write(redis->stream->tls, &piece, 1) != SL_TLS_OK)
		return fail(redis, -EIO, sl_tls_error(redis->stream->tls));
	return send_tls(redis, end_ns);
}

// --- calls ---------------------------------------------------------------------------------------

struct redisReply *sl_redis_call(struct sl_redis *redis, int count, const char **words)
{
	const uint64_t end_ns = sl_clock_now_ns() +
				(redis->answer_ns ? redis->answer_ns : ANSWER_NS);
	char *command = NULL;
	void *reply = NULL;
	const int size = redisFormatCommandArgv(&command, count, words, NULL);
	int error = size < 0 ? fail(redis, -ENOMEM, "out of memory")
			     : say(redis, sl_bytes(command, (size_t)size), end_ns);

	if (size >= 0)
		redisFreeCommand(command);
	while (!error && !reply) {
		if (redisReaderGetReply(redis->stream->reader, &reply) != REDIS_OK)
			error = fail(redis, -EIO, redis->stream->reader->errstr);
		else if (!reply)
			error = receive(redis, end_ns);
	}
	return reply;
}

int sl_redis_fd(const struct sl_redis *redis)
{
	return redis->stream ? redis->stream->fd : -1;
}

int sl_redis_heard(struct sl_redis *redis)
{
	struct pollfd fd = {.fd = redis->stream->fd, .events = POLLIN};
	void *reply;
	int count = 0, error = 0;

	while (!error && poll(&fd, 1, 0) > 0)
		error = receive(redis, sl_clock_now_ns());
	while (!error && redisReaderGetReply(redis->stream->reader, &reply) == REDIS_OK && reply) {
		freeReplyObject(reply);
		count++;
	}
	if (redis->stream->reader->err)
		error = fail(redis, -EIO, redis->stream->reader->errstr);
	return error ? error : count;
}

// --- opening -------------------------------------------------------------------------------------

static int dial(struct sl_redis *redis, const struct addrinfo *to)
{
	const uint64_t end_ns = sl_clock_now_ns() + CONNECT_NS;
	socklen_t size = sizeof(int);
	const int on = 1;
	int error = 0;

	redis->stream->fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (redis->stream->fd < 0)
		return fail(redis, -errno, strerror(errno));
	setsockopt(redis->stream->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(redis->stream->fd, to->ai_addr, to->ai_addrlen) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return fail(redis, -EIO, strerror(errno));
	error = wait_until(redis, POLLOUT, end_ns);
	if (error)
		return error;
	getsockopt(redis->stream->fd, SOL_SOCKET, SO_ERROR, &error, &size);
	return error ? fail(redis, -EIO, strerror(error)) : 0;
}

static int connect_any(struct sl_redis *redis, const struct sl_quota_redis_place *place)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
	struct addrinfo *found = NULL;
	char port[8];
	int error;

	snprintf(port, sizeof(port), "%u", place->port);
	error = getaddrinfo(place->host, port, &hints, &found);
	if (error)
		return fail(redis, -EIO, gai_strerror(error));
	error = -EIO;
	for (const struct addrinfo *to = found; to && error; to = to->ai_next) {
		error = dial(redis, to);
		if (error && redis->stream->fd >= 0) {
			close(redis->stream->fd);
			redis->stream->fd = -1;
		}
	}
	freeaddrinfo(found);
	return error;
}

static int begin_tls(struct sl_redis *redis, const struct sl_quota_redis_config *config)
{
	const uint64_t end_ns = sl_clock_now_ns() + ANSWER_NS;
	struct sl_redis_stream *stream = redis->stream;
	int error = sl_redis_tls(config, &stream->context, redis->problem, sizeof(redis->problem));

	if (error || !stream->context)
		return error;
	error = sl_memory_init(&stream->memory, MEMORY_BYTES);
	if (error)
		return fail(redis, error, "out of memory");
	stream->tls = sl_tls_create(stream->context, &stream->memory);
	if (!stream->tls) {
		sl_memory_fini(&stream->memory);
		return fail(redis, -ENOMEM, "out of memory");
	}
	error = feed_tls(redis, SL_BYTES_NONE, end_ns);
	while (!error && !sl_tls_is_up(stream->tls))
		error = receive(redis, end_ns);
	return error;
}

static int greet(struct sl_redis *redis, int count, const char **words)
{
	redisReply *reply = sl_redis_call(redis, count, words);
	const int error = !reply                             ? -EIO
			  : reply->type == REDIS_REPLY_ERROR ? fail(redis, -EIO, reply->str)
							     : 0;

	freeReplyObject(reply);
	return error;
}

static int open_stream(struct sl_redis *redis, const struct sl_quota_redis_config *config)
{
	struct sl_quota_redis_place place;
	char number[16];
	int error;

	if (sl_quota_redis_place(config, &place))
		return fail(redis, -EINVAL, "no address");
	redis->stream->reader = redisReaderCreate();
	if (!redis->stream->reader)
		return fail(redis, -ENOMEM, "out of memory");
	error = connect_any(redis, &place);
	if (!error)
		error = begin_tls(redis, config);
	if (!error && config->password && config->user)
		error = greet(redis, 3, (const char *[]){"AUTH", config->user, config->password});
	else if (!error && config->password)
		error = greet(redis, 2, (const char *[]){"AUTH", config->password});
	snprintf(number, sizeof(number), "%u", place.database);
	if (!error && place.database)
		error = greet(redis, 2, (const char *[]){"SELECT", number});
	return error;
}

int sl_redis_open(struct sl_redis *redis, const struct sl_quota_redis_config *config)
{
	int error;

	assert(!redis->stream);
	redis->stream = calloc(1, sizeof(*redis->stream));
	if (!redis->stream)
		return fail(redis, -ENOMEM, "out of memory");
	redis->stream->fd = -1;
	error = open_stream(redis, config);
	if (error)
		sl_redis_close(redis);
	return error;
}

void sl_redis_close(struct sl_redis *redis)
{
	struct sl_redis_stream *stream = redis->stream;

	if (!stream)
		return;
	if (stream->tls) {
		sl_tls_destroy(stream->tls);
		sl_memory_fini(&stream->memory);
	}
	sl_tls_context_put(stream->context);
	if (stream->fd >= 0)
		close(stream->fd);
	if (stream->reader)
		redisReaderFree(stream->reader);
	free(stream);
	redis->stream = NULL;
}
