#pragma once

#include <hiredis/read.h>

#include "tenants/settings.h"

// A connection to one Redis for those who may wait for it, plain or TLS, and what TLS any of them
// wants (the fleet's links, which never wait, are in fleet/link.h).
//
// Threading: one thread at a time; calls block, for seconds when Redis is silent: never a shard's,
// nor the quota thread's; whoever sets `stop` is not waited for longer than a tenth of one. Memory:
// a zeroed one is closed; close() frees all.
struct sl_tls_context;

struct sl_redis {
	struct sl_redis_stream *stream; // NULL: closed
	const uint32_t *stop;           // not 0: nobody waits any more; NULL: never. The caller's
	char problem[200];              // why the last call failed
	bool silent;                    // ... for want of an answer
	uint64_t answer_ns;             // how long one may take; 0: five seconds
};

// What TLS it wants. Returns 0; or -EINVAL with `error`. `*context` NULL: none.
int sl_redis_tls(const struct sl_quota_redis_config *config, struct sl_tls_context **context,
		 char *error, size_t error_size);

// Connects, within two seconds an address, and greets: password, database. Returns 0 or -errno.
int sl_redis_open(struct sl_redis *redis, const struct sl_quota_redis_config *config);
void sl_redis_close(struct sl_redis *redis);

// Says a command and waits up to five seconds for its answer (hiredis.h: freeReplyObject). NULL:
// the connection is of no use any more.
struct redisReply *sl_redis_call(struct sl_redis *redis, int count, const char **words);

// What it says by itself, after a SUBSCRIBE: the socket to wait for, -1 when it is closed; and how
// many messages have come, without waiting. Negative: the connection is of no use any more.
int sl_redis_fd(const struct sl_redis *redis);
int sl_redis_heard(struct sl_redis *redis);
