#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

// A Redis of the test's own, on a free port of loopback.
struct redis {
	pid_t pid;
	int port;
	redisContext *context; // the test's own way to it
};

static inline int free_port(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(address);
	const int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	close(fd);
	return ntohs(address.sin_port);
}

static inline redisContext *redis_dial(const struct redis *redis)
{
	for (unsigned i = 0; i < 500; i++) {
		redisContext *context = redisConnect("127.0.0.1", redis->port);
		redisReply *reply = context && !context->err ? redisCommand(context, "PING") : NULL;
		const bool ready = reply && reply->type == REDIS_REPLY_STATUS;

		if (reply)
			freeReplyObject(reply);
		if (ready)
			return context;
		if (context)
			redisFree(context);
		usleep(10000);
	}
	return NULL;
}

static inline void redis_start(struct redis *redis)
{
	char port[16];

	if (!redis->port)
		redis->port = free_port();
	snprintf(port, sizeof(port), "%d", redis->port);
	redis->pid = fork();
	assert_true(redis->pid >= 0);
	if (redis->pid == 0) {
		execlp("redis-server", "redis-server", "--bind", "127.0.0.1", "--port", port,
		       "--save", "", "--appendonly", "no", "--dir", "/tmp", "--loglevel", "warning",
		       "--logfile", "/dev/null", NULL);
		_exit(127);
	}
	redis->context = redis_dial(redis);
	assert_non_null(redis->context);
}

// Its data goes with it.
static inline void redis_stop(struct redis *redis)
{
	if (redis->context)
		redisFree(redis->context);
	redis->context = NULL;
	if (redis->pid > 0) {
		kill(redis->pid, SIGKILL);
		waitpid(redis->pid, NULL, 0);
	}
	redis->pid = 0;
}
