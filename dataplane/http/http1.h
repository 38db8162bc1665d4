#pragma once

#include "dataplane/http/internal.h"

// Inside http/: reads HTTP/1.1 messages of either kind, strictly (RFC 9112). A head is gathered
// and checked line by line, parsed by http-parser when whole, and then its body is framed here:
// http-parser takes a bare LF in chunks and heads, which is how requests are smuggled.
//
// Threading: plain value, one owner. Memory: a head's buffers, only while a head is arriving.
enum sl_http1_event {
	SL_HTTP1_NEED_MORE, // all input consumed
	SL_HTTP1_HEAD,      // `block` is filled, until the next call
	SL_HTTP1_DATA,      // a run of the body
	SL_HTTP1_END,       // of the message
	SL_HTTP1_BAD,       // `status` says how to refuse it; nothing more can be read
};

enum sl_http1_state {
	SL_HTTP1_IN_HEAD,
	SL_HTTP1_AT_BODY, // a head was told, its buffers still stand
	SL_HTTP1_IN_LENGTH,
	SL_HTTP1_IN_CLOSE, // a response's body that ends with the connection
	SL_HTTP1_IN_CHUNK_SIZE,
	SL_HTTP1_IN_CHUNK_SPACE,
	SL_HTTP1_IN_CHUNK_EXTENSION,
	SL_HTTP1_IN_CHUNK_SIZE_LF,
	SL_HTTP1_IN_CHUNK,
	SL_HTTP1_IN_CHUNK_CR,
	SL_HTTP1_IN_CHUNK_LF,
	SL_HTTP1_IN_TRAILER,
	SL_HTTP1_IN_TRAILER_LINE,
	SL_HTTP1_IN_TRAILER_LF,
	SL_HTTP1_IN_LAST_LF,
	SL_HTTP1_IS_BAD,
};

struct sl_http1_reader {
	struct sl_memory *memory;
	struct sl_http_out head;
	struct sl_http_block *block;
	size_t line;       // where the newest line of the head begins
	uint64_t left;     // of the body or chunk
	uint32_t head_max; // bytes of a head, of trailers
	uint32_t line_bytes;
	uint16_t status; // of a refusal; of a response
	uint8_t state;
	bool response;
	uint8_t blanks; // empty lines that came before the head
	bool minor, chunked, keep_alive, expects_continue;
	bool bodyless; // set by the owner at HEAD: a response that has no body
};

void sl_http1_reader_init(struct sl_http1_reader *reader, struct sl_memory *memory, bool response,
			  uint32_t head_max);
void sl_http1_reader_fini(struct sl_http1_reader *reader);
// After SL_HTTP1_BAD: the content type among the lines of the head that came.
struct sl_bytes sl_http1_content_type(const struct sl_http1_reader *reader);
enum sl_http1_event sl_http1_next(struct sl_http1_reader *reader, struct sl_bytes *in,
				  struct sl_bytes *data);
