#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/http/http.h"

// A server whose events are written down as text, and hand-written frames to feed it.

struct wire {
	struct sl_memory memory;
	struct sl_http_server *server;
	struct sl_http_server_options options;
	struct sl_http_response response;
	bool answers_early, answers, expects;
	char log[8192];
	size_t log_bytes;
	bool in_data; // runs of one body are one word of the log
	uint8_t out[1 << 18];
	size_t out_bytes;
	int result; // of the last feed
	uint64_t now_ns;
	unsigned heads, gones;
	struct sl_http_stream *stream; // the newest
	uint8_t *bodies;               // where set, bodies go there instead of the log
	size_t bodies_bytes;
};

static inline void wire_note(struct wire *wire, const char *text, struct sl_bytes bytes)
{
	wire->log_bytes += (size_t)snprintf(
		wire->log + wire->log_bytes, sizeof(wire->log) - wire->log_bytes, "%s%.*s", text,
		(int)bytes.size, bytes.size ? (const char *)bytes.data : "");
	assert_true(wire->log_bytes < sizeof(wire->log));
}

static inline void wire_head(void *owner, struct sl_http_stream *stream,
			     const struct sl_http_head *head, uint64_t now_ns)
{
	struct wire *wire = owner;

	assert_int_equal(now_ns, wire->now_ns);
	wire->heads++;
	wire->stream = stream;
	wire->in_data = false;
	wire_note(wire, "|head ", head->method);
	wire_note(wire, " ", head->path);
	wire_note(wire, " ", head->content_type);
	if (head->end)
		wire_note(wire, " end", SL_BYTES_NONE);
	if (wire->answers_early)
		sl_http_stream_respond(stream, &wire->response);
}

static inline void wire_data(void *owner, struct sl_http_stream *stream, struct sl_bytes bytes,
			     uint64_t now_ns)
{
	struct wire *wire = owner;

	(void)now_ns;
	if (wire->bodies) {
		memcpy(wire->bodies + wire->bodies_bytes, bytes.data, bytes.size);
		wire->bodies_bytes += bytes.size;
		sl_http_stream_consume(stream, bytes.size);
		return;
	}
	if (!wire->in_data)
		wire_note(wire, "|data ", SL_BYTES_NONE);
	wire->in_data = true;
	wire_note(wire, "", bytes);
	sl_http_stream_consume(stream, bytes.size);
}

static inline void wire_end(void *owner, struct sl_http_stream *stream, uint64_t now_ns)
{
	struct wire *wire = owner;

	(void)now_ns;
	wire->in_data = false;
	wire_note(wire, "|end", SL_BYTES_NONE);
	if (wire->answers)
		sl_http_stream_respond(stream, &wire->response);
}

static inline void wire_gone(void *owner, struct sl_http_stream *stream, bool complete)
{
	struct wire *wire = owner;

	if (wire->stream == stream)
		wire->stream = NULL;
	wire->gones++;
	wire->in_data = false;
	wire_note(wire, complete ? "|gone" : "|lost", SL_BYTES_NONE);
}

static inline void wire_refused(void *owner, struct sl_http_stream *stream, uint16_t status,
				struct sl_bytes content_type, uint64_t now_ns)
{
	const struct sl_http_response response = {
		.status = status, .content_type = content_type, .body = SL_LITERAL("no")};
	struct wire *wire = owner;
	char text[32];

	assert_int_equal(now_ns, wire->now_ns);
	wire->in_data = false;
	snprintf(text, sizeof(text), "|refused %u", status);
	wire_note(wire, text, SL_BYTES_NONE);
	if (content_type.size)
		wire_note(wire, " ", content_type);
	if (stream)
		sl_http_stream_respond(stream, &response);
}

static const struct sl_http_server_upcalls wire_upcalls = {wire_head, wire_data, wire_end,
							   wire_gone, wire_refused};

static inline void wire_open(struct wire *wire, bool http2)
{
	assert_int_equal(sl_memory_init(&wire->memory, 64 * SL_MIB), 0);
	if (!wire->options.streams_max)
		wire->options.streams_max = 100;
	if (!wire->options.header_bytes_max)
		wire->options.header_bytes_max = 8 * SL_KIB;
	if (!wire->options.stream_window)
		wire->options.stream_window = 1 * SL_MIB;
	if (!wire->options.connection_window)
		wire->options.connection_window = 16 * SL_MIB;
	if (!wire->options.glitches_max)
		wire->options.glitches_max = 100;
	wire->options.pings_without_data_max = 2;
	if (!wire->response.status)
		wire->response = (struct sl_http_response){.status = 200,
							   .content_type = SL_LITERAL("a/b"),
							   .body = SL_LITERAL("fine")};
	wire->now_ns = SL_S;
	wire->server = sl_http_server_create(http2, &wire->options, &wire_upcalls, wire,
					     &wire->memory);
	assert_non_null(wire->server);
}

static inline void wire_pull(struct wire *wire)
{
	struct iovec pieces[8];
	size_t count;

	while ((count = sl_http_server_pull(wire->server, pieces, 8))) {
		for (size_t i = 0; i < count; i++) {
			assert_true(wire->out_bytes + pieces[i].iov_len < sizeof(wire->out));
			memcpy(wire->out + wire->out_bytes, pieces[i].iov_base, pieces[i].iov_len);
			wire->out_bytes += pieces[i].iov_len;
		}
		sl_http_server_pulled(wire->server);
	}
	wire->out[wire->out_bytes] = 0;
	assert_false(sl_http_server_wants_pull(wire->server));
}

static inline void wire_feed(struct wire *wire, const void *data, size_t size)
{
	const int result = sl_http_server_feed(wire->server, sl_bytes(data, size), wire->now_ns);

	wire->result = wire->result ? wire->result : result;
}

static inline void wire_close(struct wire *wire)
{
	sl_http_server_destroy(wire->server);
	wire->server = NULL;
	assert_int_equal(wire->heads, wire->gones);
	assert_int_equal(wire->memory.used_bytes, 0);
	sl_memory_fini(&wire->memory);
}
