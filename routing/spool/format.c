#include "routing/spool/format.h"

#include <isa-l/crc.h>
#include <stdio.h>

#define SEGMENT_MAGIC UINT64_C(0x314c4f4f50534c53) // "SLSPOOL1"
#define ENTRY_MAGIC   0x7e45c5a1u
#define CHECKED_AT    8 // the head's checksum is of what follows it

enum { FLAG_KEY = 1, FLAG_LETTER = 2 };

static uint32_t checksum(uint64_t salt, const void *data, size_t size)
{
	uint32_t sum = (uint32_t)(salt ^ (salt >> 32));
	const uint8_t *at = data;

	for (; size; at += SL_MIN(size, SL_GIB), size -= SL_MIN(size, SL_GIB))
		sum = crc32_iscsi((unsigned char *)(uintptr_t)at, (int)SL_MIN(size, SL_GIB), sum);
	return sum;
}

static uint32_t more(uint32_t sum, struct sl_bytes bytes)
{
	return bytes.size
		       ? crc32_iscsi((unsigned char *)(uintptr_t)bytes.data, (int)bytes.size, sum)
		       : sum;
}

static void put32(uint8_t *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value)); // little endian machines only, as all of Sluice
}

static void put64(uint8_t *at, uint64_t value)
{
	memcpy(at, &value, sizeof(value));
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

void sl_spool_put_segment(uint8_t head[SL_SPOOL_SEGMENT_HEAD], uint64_t salt)
{
	put64(head, SEGMENT_MAGIC);
	put64(head + 8, salt);
	put32(head + 16, checksum(0, head, 16));
	put32(head + 20, 0);
}

bool sl_spool_get_segment(const uint8_t head[SL_SPOOL_SEGMENT_HEAD], uint64_t *salt)
{
	*salt = get64(head + 8);
	return get64(head) == SEGMENT_MAGIC && get32(head + 16) == checksum(0, head, 16);
}

void sl_spool_put_entry(uint8_t head[SL_SPOOL_ENTRY_HEAD], uint64_t salt,
			const struct sl_spool_entry *entry, const struct iovec *pieces,
			uint32_t piece_count)
{
	uint32_t rest = more(checksum(salt, NULL, 0), entry->tenant);

	assert(entry->tenant.size <= SL_SPOOL_TEXT_MAX && entry->key.size <= SL_SPOOL_TEXT_MAX);
	rest = more(rest, entry->key);
	for (uint32_t i = 0; i < piece_count; i++)
		rest = more(rest, sl_bytes(pieces[i].iov_base, pieces[i].iov_len));
	put32(head, ENTRY_MAGIC);
	put32(head + 8, rest);
	put32(head + 12, entry->body_bytes);
	put32(head + 16, entry->items);
	put64(head + 20, entry->wall_ns);
	head[28] = (uint8_t)entry->signal;
	head[29] = (uint8_t)((entry->key.data ? FLAG_KEY : 0) | (entry->letter ? FLAG_LETTER : 0));
	head[30] = (uint8_t)entry->tenant.size;
	head[31] = (uint8_t)entry->key.size;
	put32(head + 4, checksum(salt, head + CHECKED_AT, SL_SPOOL_ENTRY_HEAD - CHECKED_AT));
}

bool sl_spool_get_entry(const uint8_t head[SL_SPOOL_ENTRY_HEAD], uint64_t salt,
			struct sl_spool_entry *entry)
{
	static const uint8_t present[1];

	if (get32(head) != ENTRY_MAGIC || head[28] >= SL_SIGNALS ||
	    get32(head + 4) != checksum(salt, head + CHECKED_AT, SL_SPOOL_ENTRY_HEAD - CHECKED_AT))
		return false;
	*entry = (struct sl_spool_entry){
		.body_bytes = get32(head + 12),
		.items = get32(head + 16),
		.wall_ns = get64(head + 20),
		.signal = (enum sl_signal)head[28],
		.tenant = {.size = head[30]},
		.key = {.data = head[29] & FLAG_KEY ? present : NULL, .size = head[31]},
		.letter = head[29] & FLAG_LETTER,
	};
	return true;
}

bool sl_spool_get_rest(const uint8_t head[SL_SPOOL_ENTRY_HEAD], uint64_t salt, struct sl_bytes rest,
		       struct sl_spool_entry *entry, struct sl_bytes *body)
{
	const bool keyed = entry->key.data != NULL;

	if (rest.size != sl_spool_entry_bytes(entry) - SL_SPOOL_ENTRY_HEAD ||
	    get32(head + 8) != checksum(salt, rest.data, rest.size))
		return false;
	entry->tenant.data = rest.data;
	entry->key.data = keyed ? rest.data + entry->tenant.size : NULL;
	*body = sl_bytes(rest.data + entry->tenant.size + entry->key.size, entry->body_bytes);
	return true;
}

size_t sl_spool_find(struct sl_bytes bytes, size_t from, uint64_t salt)
{
	struct sl_spool_entry entry;

	for (; from + SL_SPOOL_ENTRY_HEAD <= bytes.size; from++) {
		if (get32(bytes.data + from) == ENTRY_MAGIC &&
		    sl_spool_get_entry(bytes.data + from, salt, &entry))
			return from;
	}
	return bytes.size;
}

void sl_spool_put_cursor(char text[SL_SPOOL_CURSOR_BYTES + 1], const struct sl_spool_cursor *cursor)
{
	const int size = snprintf(text, SL_SPOOL_CURSOR_BYTES + 1, "%016llx %016llx",
				  (unsigned long long)cursor->number,
				  (unsigned long long)cursor->at);

	snprintf(text + size, SL_SPOOL_CURSOR_BYTES + 1 - (size_t)size, " %08x\n",
		 checksum(0, text, (size_t)size));
}

bool sl_spool_get_cursor(const char text[SL_SPOOL_CURSOR_BYTES + 1], struct sl_spool_cursor *cursor)
{
	char again[SL_SPOOL_CURSOR_BYTES + 1];
	unsigned long long number, at;

	if (sscanf(text, "%16llx %16llx", &number, &at) != 2)
		return false;
	*cursor = (struct sl_spool_cursor){number, at};
	sl_spool_put_cursor(again, cursor);
	return memcmp(again, text, SL_SPOOL_CURSOR_BYTES) == 0;
}
