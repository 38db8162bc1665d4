#pragma once

#include <sys/uio.h>

#include "dataplane/base/base.h"
#include "dataplane/otlp/signal.h"

// How records lie in a spool's files: a segment is a head and entries, all integers little endian.
//
//   segment   8 magic "SLSPOOL1" | 8 salt | 4 CRC of both | 4 zero
//   entry     4 magic | 4 CRC of the head from here on | 4 CRC of the rest | 4 bytes of the body |
//             4 items | 8 wall time in ns | 1 signal | 1 flags | 1 bytes of the tenant |
//             1 bytes of the key, then tenant, key, body. Flags: 1, there is a key; 2, the body
//             begins with a dead letter's headers (routing/dead_letter.h)
//
//   cursor    text: 16 digits a segment's number, 16 a place in it, 8 CRC of both; all hexadecimal,
//             a blank before each but the first, a line's end behind the last
//
// CRC is CRC32C (RFC 3720, B.4), begun with the segment's salt: what a body holds cannot be taken
// for an entry by whoever looks for the next one behind a damaged place.
//
// Threading: any; nothing here allocates, blocks or reads a clock.
#define SL_SPOOL_SEGMENT_HEAD 24
#define SL_SPOOL_ENTRY_HEAD   32
#define SL_SPOOL_TEXT_MAX     255 // of a tenant's name, and of a key

struct sl_spool_entry {
	enum sl_signal signal;
	uint32_t items, body_bytes;
	uint64_t wall_ns; // when it was spooled
	struct sl_bytes tenant;
	struct sl_bytes key; // data NULL: none
	bool letter;
};

// Bytes that an entry takes on disk.
SL_INLINE uint64_t sl_spool_entry_bytes(const struct sl_spool_entry *entry)
{
	return SL_SPOOL_ENTRY_HEAD + entry->tenant.size + entry->key.size + entry->body_bytes;
}

// Whether a body of that many bytes has room in an empty spool of `spool_bytes`: beside it are two
// segments' heads and the longest texts. One that has none must not be given to the spool: it would
// be told full, and so would others.
SL_INLINE bool sl_spool_fits(uint64_t spool_bytes, uint64_t bytes)
{
	return bytes <= UINT32_MAX &&
	       2 * SL_SPOOL_SEGMENT_HEAD + SL_SPOOL_ENTRY_HEAD + 2 * SL_SPOOL_TEXT_MAX + bytes <=
		       spool_bytes;
}

void sl_spool_put_segment(uint8_t head[SL_SPOOL_SEGMENT_HEAD], uint64_t salt);
// Returns false when it is no segment's head.
bool sl_spool_get_segment(const uint8_t head[SL_SPOOL_SEGMENT_HEAD], uint64_t *salt);

// The head of an entry whose body is `pieces`; tenant and key follow it, then the body.
void sl_spool_put_entry(uint8_t head[SL_SPOOL_ENTRY_HEAD], uint64_t salt,
			const struct sl_spool_entry *entry, const struct iovec *pieces,
			uint32_t piece_count);
// What a head says, tenant and key by their sizes only. Returns false when it is damaged, or none.
bool sl_spool_get_entry(const uint8_t head[SL_SPOOL_ENTRY_HEAD], uint64_t salt,
			struct sl_spool_entry *entry);
// Whether tenant, key and body, which lie behind the head as `rest`, are what was written; sets the
// entry's texts and `*body`.
bool sl_spool_get_rest(const uint8_t head[SL_SPOOL_ENTRY_HEAD], uint64_t salt, struct sl_bytes rest,
		       struct sl_spool_entry *entry, struct sl_bytes *body);

// Everything before that place is gone.
struct sl_spool_cursor {
	uint64_t number, at; // of a segment; the place in its file
};
#define SL_SPOOL_CURSOR_BYTES 43
void sl_spool_put_cursor(char text[SL_SPOOL_CURSOR_BYTES + 1],
			 const struct sl_spool_cursor *cursor);
// Returns false when it is not whole, or none.
bool sl_spool_get_cursor(const char text[SL_SPOOL_CURSOR_BYTES + 1],
			 struct sl_spool_cursor *cursor);

// Where in `bytes` the next whole head begins, from `from` on; its size when there is none.
size_t sl_spool_find(struct sl_bytes bytes, size_t from, uint64_t salt);
