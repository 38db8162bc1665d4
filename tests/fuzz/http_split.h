#pragma once

#include <stdio.h>
#include <stdlib.h>

#include "dataplane/http/http.h"

// Feeds bytes to a server whole and in two pieces: the events must be the same. The first byte
// says how the caller behaves, the second where to cut.

struct log {
	uint64_t hash; // of all events; a body's runs count byte by byte
	uint32_t heads, gones;
	int result;
	unsigned manners;
	bool left; // the peer said goodbye: what it sends afterwards is not read
};

static inline void check(bool holds)
{
	if (!holds)
		abort();
}

static inline void mix(struct log *log, struct sl_bytes bytes)
{
	for (size_t i = 0; i < bytes.size; i++)
		log->hash = (log->hash ^ bytes.data[i]) * UINT64_C(0x100000001b3);
}

static inline void mix_field(struct log *log, struct sl_bytes bytes)
{
	mix(log, sl_bytes(&bytes.size, sizeof(bytes.size)));
	mix(log, bytes);
}

static inline void answer(struct log *log, struct sl_http_stream *stream, bool http1)
{
	const struct sl_http_response response = {
		.status = 200,
		.content_type = SL_LITERAL("application/grpc"),
		.grpc = !http1 && (log->manners & 4),
		.body = SL_LITERAL("fine"),
	};

	sl_http_stream_respond(stream, &response);
}

static inline void on_head(void *owner, struct sl_http_stream *stream,
			   const struct sl_http_head *head, uint64_t now_ns)
{
	struct log *log = owner;

	(void)now_ns;
	log->heads++;
	sl_http_stream_set_user(stream, head->http1 ? stream : NULL);
	mix_field(log, head->method);
	mix_field(log, head->path);
	mix_field(log, head->authority);
	mix_field(log, head->content_type);
	mix_field(log, sl_bytes(&head->content_length, sizeof(head->content_length)));
	for (uint32_t i = 0; i < head->header_count; i++) {
		mix_field(log, head->headers[i].name);
		mix_field(log, head->headers[i].value);
	}
	if (head->expects_continue)
		sl_http_stream_continue(stream);
	if (log->manners & 1)
		answer(log, stream, head->http1);
}

static inline void on_data(void *owner, struct sl_http_stream *stream, struct sl_bytes bytes,
			   uint64_t now_ns)
{
	(void)now_ns;
	mix(owner, bytes);
	sl_http_stream_consume(stream, bytes.size);
}

static inline void on_end(void *owner, struct sl_http_stream *stream, uint64_t now_ns)
{
	struct log *log = owner;

	(void)now_ns;
	mix_field(log, SL_LITERAL("end"));
	if (log->manners & 2)
		answer(log, stream, sl_http_stream_user(stream) != NULL);
}

static inline void on_gone(void *owner, struct sl_http_stream *stream, bool complete)
{
	struct log *log = owner;

	(void)stream;
	log->gones++;
	mix_field(log, sl_bytes(&complete, 1));
}

static inline void on_refused(void *owner, struct sl_http_stream *stream, uint16_t status,
			      struct sl_bytes content_type, uint64_t now_ns)
{
	const struct sl_http_response response = {.status = status, .body = SL_LITERAL("no")};
	struct log *log = owner;

	(void)now_ns;
	mix_field(log, sl_bytes(&status, sizeof(status)));
	mix_field(log, content_type);
	if (stream && (log->manners & 3))
		sl_http_stream_respond(stream, &response);
}

static inline struct log run(bool http2, unsigned manners, struct sl_bytes bytes, size_t cut)
{
	static const struct sl_http_server_upcalls upcalls = {on_head, on_data, on_end, on_gone,
							      on_refused};
	static const struct sl_http_server_options options = {
		.streams_max = 4,
		.header_bytes_max = 1024,
		.stream_window = 100,
		.connection_window = 1 << 17,
		.pings_without_data_max = 2,
		.glitches_max = 20,
	};
	struct log log = {.manners = manners};
	struct sl_http_server *server;
	struct sl_memory memory;
	struct iovec pieces[4];
	size_t count;

	check(sl_memory_init(&memory, 16 * SL_MIB) == 0);
	server = sl_http_server_create(http2, &options, &upcalls, &log, &memory);
	check(server != NULL);
	if (sl_http_server_feed(server, sl_bytes(bytes.data, cut), 1) < 0 ||
	    sl_http_server_feed(server, sl_bytes(bytes.data + cut, bytes.size - cut), 1) < 0)
		log.result = -1;
	(void)sl_http_server_outstanding(server);
	while ((count = sl_http_server_pull(server, pieces, 4))) {
		for (size_t i = 0; i < count; i++)
			mix(&log, sl_bytes(pieces[i].iov_base, pieces[i].iov_len));
		sl_http_server_pulled(server);
	}
	check(!sl_http_server_wants_pull(server));
	log.left = http2 && !log.result && sl_http_server_is_done(server);
	sl_http_server_destroy(server);
	check(log.heads == log.gones); // gone() comes exactly once
	check(memory.used_bytes == 0);
	sl_memory_fini(&memory);
	return log;
}

static inline void check_split(bool http2, const uint8_t *data, size_t size)
{
	if (size < 2)
		return;

	const struct sl_bytes bytes = sl_bytes(data + 2, size - 2);
	const unsigned manners = (data[0] & 3) == 3 ? data[0] & 6u : data[0] & 7u; // answers once
	const struct log whole = run(http2, manners, bytes, bytes.size);
	const struct log split = run(http2, manners, bytes, data[1] * bytes.size / 256);

	if (whole.left || split.left)
		return;
	check(whole.hash == split.hash && whole.heads == split.heads);
	check(whole.result == split.result);
}
