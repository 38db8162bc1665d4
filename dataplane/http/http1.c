#include "dataplane/http/http1.h"

#include <http_parser.h>

#define CHUNK_DIGITS_MAX 15  // no chunk is that long
#define CHUNK_LINE_MAX   256 // with extensions, which nobody uses
#define BLANKS_MAX       4   // empty lines before a head

void sl_http1_reader_init(struct sl_http1_reader *reader, struct sl_memory *memory, bool response,
			  uint32_t head_max)
{
	*reader = (struct sl_http1_reader){
		.memory = memory,
		.response = response,
		.head_max = head_max,
	};
}

static void head_give(struct sl_http1_reader *reader)
{
	sl_http_out_give(reader->memory, &reader->head);
	sl_http_block_give(reader->memory, reader->block);
	reader->block = NULL;
	reader->line = 0;
}

void sl_http1_reader_fini(struct sl_http1_reader *reader)
{
	head_give(reader);
}

static enum sl_http1_event bad(struct sl_http1_reader *reader, uint16_t status)
{
	reader->state = SL_HTTP1_IS_BAD;
	reader->status = status;
	return SL_HTTP1_BAD;
}

static uint8_t lower(uint8_t byte)
{
	return byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte;
}

static bool equal_fold(struct sl_bytes bytes, struct sl_bytes text)
{
	if (bytes.size != text.size)
		return false;
	for (size_t i = 0; i < bytes.size; i++) {
		if (lower(bytes.data[i]) != text.data[i])
			return false;
	}
	return true;
}

// Whether a comma-separated list has the token.
static bool has_token(struct sl_bytes list, struct sl_bytes text)
{
	while (list.size) {
		const uint8_t *comma = memchr(list.data, ',', list.size);
		struct sl_bytes item = {list.data, comma ? (size_t)(comma - list.data) : list.size};

		list.data += item.size + (comma != NULL);
		list.size -= item.size + (comma != NULL);
		while (item.size && (item.data[0] == ' ' || item.data[0] == '\t')) {
			item.data++;
			item.size--;
		}
		while (item.size &&
		       (item.data[item.size - 1] == ' ' || item.data[item.size - 1] == '\t'))
			item.size--;
		if (equal_fold(item, text))
			return true;
	}
	return false;
}

// --- a whole head -------------------------------------------------------------------------------

struct parse {
	struct sl_http_block *block;
	struct sl_bytes name;
	bool complete;
};

static int on_url(http_parser *parser, const char *at, size_t length)
{
	struct parse *parse = parser->data;

	parse->block->head.path = sl_bytes(at, length);
	return 0;
}

static int on_field(http_parser *parser, const char *at, size_t length)
{
	struct parse *parse = parser->data;
	uint8_t *name = (uint8_t *)(uintptr_t)at; // our own buffer

	for (size_t i = 0; i < length; i++)
		name[i] = lower(name[i]);
	parse->name = sl_bytes(name, length);
	return 0;
}

static int on_value(http_parser *parser, const char *at, size_t length)
{
	struct parse *parse = parser->data;
	struct sl_bytes value = sl_bytes(at, length);

	while (value.size &&
	       (value.data[value.size - 1] == ' ' || value.data[value.size - 1] == '\t'))
		value.size--;
	if (!sl_http_name_is_valid(parse->name) || !sl_http_value_is_valid(value))
		parse->block->bad = true;
	else
		sl_http_block_note(parse->block, parse->name, value);
	return 0;
}

static int on_complete(http_parser *parser)
{
	struct parse *parse = parser->data;

	parse->complete = true;
	return 1; // the body is framed here
}

static const http_parser_settings parser_settings = {
	.on_url = on_url,
	.on_header_field = on_field,
	.on_header_value = on_value,
	.on_headers_complete = on_complete,
};

// The fields that say how the body is framed and what becomes of the connection. Returns 0 or the
// status that refuses the message.
static uint16_t read_framing(struct sl_http1_reader *reader)
{
	const struct sl_http_block *block = reader->block;
	bool close = false, keep = false;

	reader->chunked = false;
	reader->expects_continue = false;
	for (uint32_t i = 0; i < block->head.header_count; i++) {
		const struct sl_bytes name = block->headers[i].name;
		const struct sl_bytes value = block->headers[i].value;

		if (sl_bytes_equal(name, SL_LITERAL("transfer-encoding"))) {
			// HTTP/1.0 has none, and twice is a trick (RFC 9112, section 6.1).
			if (reader->chunked || !reader->minor ||
			    !equal_fold(value, SL_LITERAL("chunked")))
				return 400;
			reader->chunked = true;
		} else if (sl_bytes_equal(name, SL_LITERAL("connection"))) {
			close |= has_token(value, SL_LITERAL("close"));
			keep |= has_token(value, SL_LITERAL("keep-alive"));
		} else if (sl_bytes_equal(name, SL_LITERAL("expect")) && !reader->response) {
			if (!equal_fold(value, SL_LITERAL("100-continue")))
				return 417;
			reader->expects_continue = reader->minor;
		}
	}
	if (reader->chunked && block->head.content_length != SL_HTTP_NO_LENGTH)
		return 400;
	reader->keep_alive = !close && (reader->minor || keep);
	return 0;
}

static uint16_t check_target(struct sl_http_block *block, bool minor)
{
	struct sl_bytes target = block->head.path;

	for (size_t i = 0; i < target.size; i++) {
		if (target.data[i] <= ' ' || target.data[i] >= 0x7f)
			return 400;
	}
	// One Host is required, even when the target is absolute (RFC 9112, section 3.2).
	if (minor && !block->has_host)
		return 400;
	block->head.authority = block->host;
	if (target.size && target.data[0] != '/' && target.data[0] != '*') {
		struct http_parser_url url;

		http_parser_url_init(&url);
		if (http_parser_parse_url((const char *)target.data, target.size, 0, &url) != 0)
			return 400;
		target = url.field_set & 1 << UF_PATH
				 ? sl_bytes(target.data + url.field_data[UF_PATH].off,
					    url.field_data[UF_PATH].len)
				 : SL_LITERAL("/");
	}
	block->head.path = sl_http_path_of(target);
	return 0;
}

static bool is_token(uint8_t byte)
{
	return byte > ' ' && byte < 0x7f && !strchr("\"(),/:;<=>?@[\\]{}", byte);
}

// Whether the head begins as a request does: a method that we have not heard of is not the same as
// what is no HTTP (RFC 9110, sections 9.1 and 15.6.2; RFC 9112, section 3).
static bool has_method(const struct sl_http1_reader *reader)
{
	static const struct sl_bytes version = SL_LITERAL(" HTTP/1.x\r");
	const struct sl_bytes head = {reader->head.data, reader->head.size};
	const uint8_t *end = memchr(head.data, '\n', head.size);
	const size_t line = end ? (size_t)(end - head.data) : 0;
	size_t size = 0;

	while (size < line && is_token(head.data[size]))
		size++;
	return size && head.data[size] == ' ' && line > size + version.size + 1 &&
	       memcmp(end - version.size, version.data, version.size - 2) == 0;
}

static enum sl_http1_event parse_head(struct sl_http1_reader *reader)
{
	struct parse parse;
	http_parser parser;
	uint16_t status;
	size_t taken;

	reader->block = sl_http_block_take(reader->memory, reader->head_max);
	if (!reader->block)
		return bad(reader, 503);
	parse = (struct parse){.block = reader->block};
	http_parser_init(&parser, reader->response ? HTTP_RESPONSE : HTTP_REQUEST);
	parser.data = &parse;
	taken = http_parser_execute(&parser, &parser_settings, (const char *)reader->head.data,
				    reader->head.size);
	if (reader->block->too_large)
		return bad(reader, 431);
	if (HTTP_PARSER_ERRNO(&parser) == HPE_INVALID_VERSION || parser.http_major > 1)
		return bad(reader, 505);
	if (HTTP_PARSER_ERRNO(&parser) == HPE_INVALID_METHOD && has_method(reader))
		return bad(reader, 501);
	if (HTTP_PARSER_ERRNO(&parser) != HPE_OK || !parse.complete || reader->block->bad ||
	    taken + 1 < reader->head.size)
		return bad(reader, 400);
	if (parser.http_major != 1 || parser.http_minor > 1)
		return bad(reader, 505);
	reader->minor = parser.http_minor == 1;
	status = read_framing(reader);
	if (!status && !reader->response)
		status = check_target(reader->block, reader->minor);
	if (status)
		return bad(reader, status);
	reader->status = (uint16_t)parser.status_code;
	reader->bodyless = false;
	if (!reader->response) {
		reader->block->head.method = sl_bytes_of(
			http_method_str((enum http_method)parser.method));
		reader->block->head.http1 = true;
		reader->block->head.expects_continue = reader->expects_continue;
		reader->block->head.end = !reader->chunked &&
					  (reader->block->head.content_length ==
						   SL_HTTP_NO_LENGTH ||
					   reader->block->head.content_length == 0);
	}
	reader->state = SL_HTTP1_AT_BODY;
	return SL_HTTP1_HEAD;
}

struct sl_bytes sl_http1_content_type(const struct sl_http1_reader *reader)
{
	static const struct sl_bytes name = SL_LITERAL("content-type:");
	struct sl_bytes rest = {reader->head.data, reader->head.size};

	while (rest.size) {
		const uint8_t *end = memchr(rest.data, '\n', rest.size);
		struct sl_bytes line = {rest.data, end ? (size_t)(end - rest.data) : 0};

		rest = end ? sl_bytes(end + 1, rest.size - line.size - 1) : SL_BYTES_NONE;
		if (line.size < name.size || !equal_fold(sl_bytes(line.data, name.size), name))
			continue;
		line = sl_bytes(line.data + name.size, line.size - name.size);
		while (line.size && (line.data[0] == ' ' || line.data[0] == '\t'))
			line = sl_bytes(line.data + 1, line.size - 1);
		while (line.size && line.data[line.size - 1] <= ' ')
			line.size--;
		return line;
	}
	return SL_BYTES_NONE;
}

// A line of the head has come whole. Returns SL_HTTP1_NEED_MORE when it may go on.
static enum sl_http1_event check_line(struct sl_http1_reader *reader)
{
	const uint8_t *line = reader->head.data + reader->line;
	const size_t size = reader->head.size - reader->line;

	if (size < 2 || line[size - 2] != '\r' || memchr(line, '\r', size - 2))
		return bad(reader, 400);
	if (line[0] == ' ' || line[0] == '\t') // a folded line, or one in disguise
		return bad(reader, 400);
	if (size > 2) {
		reader->line = reader->head.size;
		return SL_HTTP1_NEED_MORE;
	}
	if (reader->line)
		return parse_head(reader);
	// Empty lines may stand before a request (RFC 9112, section 2.2): old clients end a body
	// with one. Few are enough.
	if (reader->blanks == BLANKS_MAX || reader->response)
		return bad(reader, 400);
	reader->blanks++;
	head_give(reader);
	return SL_HTTP1_NEED_MORE;
}

static enum sl_http1_event read_head(struct sl_http1_reader *reader, struct sl_bytes *in)
{
	while (in->size) {
		const uint8_t *end = memchr(in->data, '\n', in->size);
		const size_t room = reader->head_max - reader->head.size + 1;
		const size_t take = SL_MIN(end ? (size_t)(end - in->data) + 1 : in->size, room);
		enum sl_http1_event event;

		if (!sl_http_out_add(reader->memory, &reader->head, in->data, take))
			return bad(reader, 503);
		in->data += take;
		in->size -= take;
		if (reader->head.size > reader->head_max)
			return bad(reader, 431);
		if (!end)
			return SL_HTTP1_NEED_MORE;
		event = check_line(reader);
		if (event != SL_HTTP1_NEED_MORE)
			return event;
	}
	return SL_HTTP1_NEED_MORE;
}

// --- bodies -------------------------------------------------------------------------------------

// The head's buffers go; its body begins.
static void begin_body(struct sl_http1_reader *reader)
{
	const uint64_t length = reader->block->head.content_length;

	reader->blanks = 0;
	reader->left = 0;
	if (reader->bodyless) {
		reader->state = SL_HTTP1_IN_LENGTH;
	} else if (reader->chunked) {
		reader->state = SL_HTTP1_IN_CHUNK_SIZE;
		reader->line_bytes = 0;
	} else if (length == SL_HTTP_NO_LENGTH && reader->response) {
		reader->state = SL_HTTP1_IN_CLOSE;
		reader->keep_alive = false;
	} else {
		reader->state = SL_HTTP1_IN_LENGTH;
		reader->left = length == SL_HTTP_NO_LENGTH ? 0 : length;
	}
	head_give(reader);
}

static enum sl_http1_event take_run(struct sl_http1_reader *reader, struct sl_bytes *in,
				    struct sl_bytes *data)
{
	const size_t take = (size_t)SL_MIN((uint64_t)in->size, reader->left);

	*data = sl_bytes(in->data, take);
	in->data += take;
	in->size -= take;
	reader->left -= take;
	return SL_HTTP1_DATA;
}

static int hex_of(uint8_t byte)
{
	if (byte >= '0' && byte <= '9')
		return byte - '0';
	byte = lower(byte);
	return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

static bool is_control(uint8_t byte)
{
	return (byte < ' ' && byte != '\t') || byte == 0x7f;
}

// A byte of a chunk's size line: 1*HEXDIG *( SP / HTAB ) [ ";" ... ] CRLF. White space is bad form
// that a recipient takes (RFC 9112, section 7.1.1); some writers fill a field of fixed width by it.
static bool chunk_size_byte(struct sl_http1_reader *reader, uint8_t byte)
{
	const int digit = hex_of(byte);

	reader->line_bytes++;
	if (reader->state == SL_HTTP1_IN_CHUNK_SIZE && digit >= 0) {
		reader->left = reader->left << 4 | (unsigned)digit;
		return reader->line_bytes <= CHUNK_DIGITS_MAX;
	}
	if (byte == '\r' && reader->line_bytes > 1) {
		reader->state = SL_HTTP1_IN_CHUNK_SIZE_LF;
		return true;
	}
	if (reader->state != SL_HTTP1_IN_CHUNK_EXTENSION) {
		const bool space = byte == ' ' || byte == '\t';

		reader->state = space ? SL_HTTP1_IN_CHUNK_SPACE : SL_HTTP1_IN_CHUNK_EXTENSION;
		return (space || byte == ';') && reader->line_bytes > 1 &&
		       reader->line_bytes <= CHUNK_LINE_MAX;
	}
	return !is_control(byte) && reader->line_bytes <= CHUNK_LINE_MAX;
}

// A byte between the runs of a chunked body. False: malformed.
static bool chunk_byte(struct sl_http1_reader *reader, uint8_t byte)
{
	switch (reader->state) {
	case SL_HTTP1_IN_CHUNK_SIZE:
	case SL_HTTP1_IN_CHUNK_SPACE:
	case SL_HTTP1_IN_CHUNK_EXTENSION:
		return chunk_size_byte(reader, byte);
	case SL_HTTP1_IN_CHUNK_SIZE_LF:
		reader->line_bytes = 0;
		reader->state = reader->left ? SL_HTTP1_IN_CHUNK : SL_HTTP1_IN_TRAILER;
		return byte == '\n';
	case SL_HTTP1_IN_CHUNK_CR:
		reader->state = SL_HTTP1_IN_CHUNK_LF;
		return byte == '\r';
	case SL_HTTP1_IN_CHUNK_LF:
		reader->state = SL_HTTP1_IN_CHUNK_SIZE;
		return byte == '\n';
	case SL_HTTP1_IN_TRAILER:
		if (byte == '\r') {
			reader->state = SL_HTTP1_IN_LAST_LF;
			return true;
		}
		reader->state = SL_HTTP1_IN_TRAILER_LINE;
		return ++reader->line_bytes <= reader->head_max && byte != ' ' && byte != '\t' &&
		       !is_control(byte);
	case SL_HTTP1_IN_TRAILER_LINE:
		if (byte == '\r') {
			reader->state = SL_HTTP1_IN_TRAILER_LF;
			return true;
		}
		return ++reader->line_bytes <= reader->head_max && !is_control(byte);
	case SL_HTTP1_IN_TRAILER_LF:
		reader->state = SL_HTTP1_IN_TRAILER;
		return byte == '\n';
	}
	return false;
}

enum sl_http1_event sl_http1_next(struct sl_http1_reader *reader, struct sl_bytes *in,
				  struct sl_bytes *data)
{
	*data = SL_BYTES_NONE;
	if (reader->state == SL_HTTP1_IN_HEAD)
		return read_head(reader, in);
	if (reader->state == SL_HTTP1_IS_BAD)
		return SL_HTTP1_BAD;
	if (reader->state == SL_HTTP1_AT_BODY)
		begin_body(reader);
	if (reader->state == SL_HTTP1_IN_LENGTH && !reader->left) {
		reader->state = SL_HTTP1_IN_HEAD;
		return SL_HTTP1_END;
	}
	while (in->size) {
		if (reader->state == SL_HTTP1_IN_LENGTH)
			return take_run(reader, in, data);
		if (reader->state == SL_HTTP1_IN_CLOSE) {
			*data = *in;
			*in = SL_BYTES_NONE;
			return SL_HTTP1_DATA;
		}
		if (reader->state == SL_HTTP1_IN_CHUNK) {
			if (!reader->left) {
				reader->state = SL_HTTP1_IN_CHUNK_CR;
				continue;
			}
			return take_run(reader, in, data);
		}

		const uint8_t byte = in->data[0];

		in->data++;
		in->size--;
		if (reader->state == SL_HTTP1_IN_LAST_LF && byte == '\n') {
			reader->state = SL_HTTP1_IN_HEAD;
			return SL_HTTP1_END;
		}
		if (!chunk_byte(reader, byte))
			return bad(reader, 400);
	}
	return SL_HTTP1_NEED_MORE;
}
