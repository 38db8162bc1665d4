#include "dataplane/http/internal.h"

#include <strings.h>

// What both protocols know about fields. nghttp2's own checks are switched off for speed on the
// server; RFC 9113, section 8.2 and 8.3 is kept here.

#define CONTINUE "100-continue"

enum { METHOD = 1, SCHEME = 2, AUTHORITY = 4, PATH = 8, STATUS = 16, LENGTH = 32 };

// Token characters (RFC 9110, section 5.6.2), without upper case.
static const uint8_t token[256] = {
	['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1,         ['&'] = 1,         ['\''] = 1,
	['*'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1,         ['^'] = 1,         ['_'] = 1,
	['`'] = 1, ['|'] = 1, ['~'] = 1, ['0' ... '9'] = 1, ['a' ... 'z'] = 1,
};

bool sl_http_name_is_valid(struct sl_bytes name)
{
	uint8_t all = 1;

	for (size_t i = 0; i < name.size; i++)
		all &= token[name.data[i]];
	return name.size && all;
}

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

// The top bit of each byte that is a control and not HTAB. No sum carries into the next byte.
static uint64_t controls(uint64_t word)
{
	const uint64_t low = word & EACH(0x7f);
	const uint64_t below_space = ~(low + EACH(0x60)), not_tab = (low ^ EACH('\t')) + EACH(0x7f);
	const uint64_t is_delete = low + EACH(1);

	return ~word & ((below_space & not_tab) | is_delete) & EACH(0x80);
}

// Eight bytes at a time; the last may overlap those before, and so may the halves of a short value.
bool sl_http_value_is_valid(struct sl_bytes value)
{
	uint64_t word = EACH(' '), found = 0;
	uint32_t half[2];

	if (value.size >= sizeof(word)) {
		const size_t last = value.size - sizeof(word);

		for (size_t at = 0; at < last; at += sizeof(word)) {
			memcpy(&word, value.data + at, sizeof(word));
			found |= controls(word);
		}
		memcpy(&word, value.data + last, sizeof(word));
	} else if (value.size >= sizeof(half[0])) {
		memcpy(&half[0], value.data, sizeof(half[0]));
		memcpy(&half[1], value.data + value.size - sizeof(half[1]), sizeof(half[1]));
		memcpy(&word, half, sizeof(word));
	} else {
		for (size_t i = 0; i < value.size; i++)
			word = word << 8 | value.data[i];
	}
	return !(found | controls(word));
}

static bool is_blank(uint8_t byte)
{
	return byte == ' ' || byte == '\t';
}

bool sl_http_number_parse(struct sl_bytes text, uint64_t *value)
{
	uint64_t number = 0;

	// 18 digits cannot overflow; no body is that long.
	if (text.size == 0 || text.size > 18)
		return false;
	for (size_t i = 0; i < text.size; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return false;
		number = number * 10 + (text.data[i] - '0');
	}
	*value = number;
	return true;
}

size_t sl_http_number_print(uint8_t out[20], uint64_t value)
{
	uint8_t digits[20];
	size_t count = 0;

	do {
		digits[count++] = (uint8_t)('0' + value % 10);
		value /= 10;
	} while (value);
	for (size_t i = 0; i < count; i++)
		out[i] = digits[count - 1 - i];
	return count;
}

struct sl_bytes sl_http_path_of(struct sl_bytes target)
{
	const uint8_t *query = target.size ? memchr(target.data, '?', target.size) : NULL;

	return query ? sl_bytes(target.data, (size_t)(query - target.data)) : target;
}

struct sl_http_block *sl_http_block_take(struct sl_memory *memory, uint32_t bytes_max)
{
	struct sl_http_block *block;
	size_t capacity;

	block = sl_memory_take_reserve(memory, sizeof(*block) + bytes_max, &capacity);
	if (!block)
		return NULL;
	memset(block, 0, offsetof(struct sl_http_block, headers));
	block->capacity = capacity;
	block->bytes_max = bytes_max;
	block->head.headers = block->headers;
	block->head.content_length = SL_HTTP_NO_LENGTH;
	return block;
}

void sl_http_block_give(struct sl_memory *memory, struct sl_http_block *block)
{
	if (block)
		sl_memory_give(memory, block, block->capacity);
}

#define IS(text) (memcmp(name.data, text, sizeof(text) - 1) == 0)

static void set_once(struct sl_bytes *field, struct sl_bytes value)
{
	if (!field->data)
		*field = value;
}

// Content-Length is one number, once: anything else is how requests are smuggled (RFC 9112, 6.3).
static void note_length(struct sl_http_block *block, struct sl_bytes value)
{
	uint64_t length;

	if ((block->pseudo & LENGTH) || !sl_http_number_parse(value, &length)) {
		block->bad = true;
		return;
	}
	block->pseudo |= LENGTH;
	block->head.content_length = length;
}

static void note_named(struct sl_http_block *block, struct sl_bytes name, struct sl_bytes value)
{
	struct sl_http_head *head = &block->head;

	switch (name.size) {
	case 2:
		if (IS("te"))
			set_once(&head->te, value);
		break;
	case 4:
		if (IS("host")) {
			block->bad |= block->has_host;
			block->has_host = true;
			block->host = value;
		}
		break;
	case 6:
		if (IS("origin"))
			set_once(&head->origin, value);
		else if (IS("expect"))
			head->expects_continue = value.size == sizeof(CONTINUE) - 1 &&
						 strncasecmp((const char *)value.data, CONTINUE,
							     value.size) == 0;
		break;
	case 12:
		if (IS("content-type"))
			set_once(&head->content_type, value);
		else if (IS("grpc-timeout"))
			set_once(&head->grpc_timeout, value);
		break;
	case 13:
		if (IS("grpc-encoding"))
			set_once(&head->grpc_encoding, value);
		break;
	case 14:
		if (IS("content-length"))
			note_length(block, value);
		break;
	case 15:
		if (IS("accept-encoding"))
			set_once(&head->accept_encoding, value);
		break;
	case 16:
		if (IS("content-encoding"))
			set_once(&head->content_encoding, value);
		break;
	}
}

void sl_http_block_note(struct sl_http_block *block, struct sl_bytes name, struct sl_bytes value)
{
	block->list_bytes += (uint32_t)(name.size + value.size + 32);
	if (block->head.header_count == SL_HTTP_HEADERS_MAX ||
	    block->list_bytes > block->bytes_max) {
		block->too_large = true;
		return;
	}
	block->headers[block->head.header_count++] = (struct sl_http_header){name, value};
	if (!block->trailers)
		note_named(block, name, value);
}

// Fields that belong to one HTTP/1 hop make an HTTP/2 message malformed (RFC 9113, 8.2.2).
static bool is_hop_field(struct sl_bytes name, struct sl_bytes value)
{
	switch (name.size) {
	case 2:
		return IS("te") && !sl_bytes_equal(value, SL_LITERAL("trailers"));
	case 7:
		return IS("upgrade");
	case 10:
		return IS("connection") || IS("keep-alive");
	case 16:
		return IS("proxy-connection");
	case 17:
		return IS("transfer-encoding");
	}
	return false;
}

static struct sl_bytes keep(struct sl_http_block *block, struct sl_bytes bytes)
{
	uint8_t *at = block->bytes + block->used;

	memcpy(at, bytes.data, bytes.size);
	block->used += (uint32_t)bytes.size;
	return sl_bytes(at, bytes.size);
}

// A pseudo field: known, once, before all regular ones, never in trailers (RFC 9113, 8.3).
static void add_pseudo(struct sl_http_block *block, struct sl_bytes name, struct sl_bytes value)
{
	struct sl_http_head *head = &block->head;
	struct sl_bytes *field = NULL;
	uint8_t bit = 0;

	if (name.size == 5 && IS(":path")) {
		bit = PATH;
		field = &head->path;
	} else if (name.size == 7 && IS(":method")) {
		bit = METHOD;
		field = &head->method;
	} else if (name.size == 7 && IS(":scheme")) {
		bit = SCHEME;
		field = &block->scheme;
	} else if (name.size == 10 && IS(":authority")) {
		bit = AUTHORITY;
		field = &head->authority;
	}
	if (!bit || (block->pseudo & bit) || block->regular || block->trailers) {
		block->bad = true;
		return;
	}
	block->pseudo |= bit;
	block->list_bytes += (uint32_t)(name.size + value.size + 32);
	if (block->list_bytes > block->bytes_max) {
		block->too_large = true;
		return;
	}
	*field = keep(block, value);
}

// Of a head that is too large the refusal wants the content type, wherever it stands.
static void add_to_refused(struct sl_http_block *block, struct sl_bytes name, struct sl_bytes value)
{
	if (sl_bytes_equal(name, SL_LITERAL("content-type")) && !block->head.content_type.data &&
	    value.size <= block->bytes_max - block->used)
		block->head.content_type = keep(block, value);
}

void sl_http_block_add(struct sl_http_block *block, struct sl_bytes name, struct sl_bytes value)
{
	if (block->bad || block->too_large) {
		add_to_refused(block, name, value);
		return;
	}
	if (!sl_http_value_is_valid(value) ||
	    (value.size && (is_blank(value.data[0]) || is_blank(value.data[value.size - 1])))) {
		block->bad = true;
		return;
	}
	if (name.size && name.data[0] == ':') {
		add_pseudo(block, name, value);
		return;
	}
	block->regular = true;
	if (!sl_http_name_is_valid(name) || is_hop_field(name, value)) {
		block->bad = true;
		return;
	}
	if (block->list_bytes + name.size + value.size + 32 > block->bytes_max) {
		block->too_large = true;
		return;
	}
	name = keep(block, name);
	sl_http_block_note(block, name, keep(block, value));
}

bool sl_http_block_is_request(struct sl_http_block *block)
{
	struct sl_http_head *head = &block->head;

	if (block->bad || (block->pseudo & (METHOD | SCHEME | PATH)) != (METHOD | SCHEME | PATH) ||
	    !head->method.size || !block->scheme.size || !head->path.size)
		return false;
	if (head->path.data[0] != '/' && !sl_bytes_equal(head->path, SL_LITERAL("*")))
		return false;
	// An authority and a host that differ are a way around a router (RFC 9113, 8.3.1).
	if ((block->pseudo & AUTHORITY) && block->has_host &&
	    !sl_bytes_equal(head->authority, block->host))
		return false;
	if (!(block->pseudo & AUTHORITY))
		head->authority = block->host;
	head->path = sl_http_path_of(head->path);
	return true;
}

static void put_two(char *out, unsigned value)
{
	out[0] = (char)('0' + value / 10 % 10);
	out[1] = (char)('0' + value % 10);
}

void sl_http_date_print(char date[SL_HTTP_DATE_BYTES], uint64_t seconds)
{
	static const char days[] = "ThuFriSatSunMonTueWed"; // the epoch was a Thursday
	static const char months[] = "MarAprMayJunJulAugSepOctNovDecJanFeb";
	const uint64_t day = seconds / 86400;
	const unsigned second = (unsigned)(seconds % 86400);
	// Years that begin in March have their odd day at their end: an era of 400 of them is
	// 146097 days, a month the fifth part of 153 in turn.
	const uint64_t since = day + 719468;
	const unsigned of_era = (unsigned)(since % 146097);
	const unsigned year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	const unsigned of_year = of_era - (365 * year + year / 4 - year / 100);
	const unsigned month = (5 * of_year + 2) / 153;
	const unsigned number = (unsigned)(since / 146097 * 400) + year + (month >= 10);

	memcpy(date, "date: ddd, dd mmm yyyy hh:mm:ss GMT\r\n", SL_HTTP_DATE_BYTES);
	memcpy(date + 6, days + 3 * (day % 7), 3);
	put_two(date + 11, of_year - (153 * month + 2) / 5 + 1);
	memcpy(date + 14, months + (size_t)3 * month, 3);
	put_two(date + 18, number / 100);
	put_two(date + 20, number % 100);
	put_two(date + 23, second / 3600);
	put_two(date + 26, second / 60 % 60);
	put_two(date + 29, second % 60);
}
