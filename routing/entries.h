#pragma once

#include "dataplane/base/base.h"
#include "routing/dead_letter.h"

// What a file destination or a spool has written, read again: Export requests one after the other,
// each perhaps behind a dead letter's headers.
//
// Threading: any. Memory: all that is returned points into the file's bytes.
enum sl_entries {
	SL_ENTRIES_DELIMITED, // .binpb: each request behind its length as a varint
	SL_ENTRIES_LINES,     // .jsonl: one request a line
	SL_ENTRIES_SEGMENT,   // of a spool (spool/format.h)
};

struct sl_entry {
	struct sl_bytes body;   // the request, without a dead letter's headers if it is protobuf
	struct sl_bytes letter; // a dead letter's headers as they stand; none: size 0
	bool json;
	// Of a segment: the tenant, the signal, and whether this is a damaged place, which has no
	// body.
	struct sl_bytes tenant;
	enum sl_signal signal;
	bool damaged;
};

// Whether the file is a spool's segment.
bool sl_entries_is_segment(struct sl_bytes file);

// The entry at `at`. Returns its bytes in the file, 0 at the file's end, or < 0 where the file ends
// inside it or its length is no varint: nothing behind can be found then. In a segment the next
// whole entry is, and what lies before it is told as one damaged place.
int64_t sl_entry_read(struct sl_bytes file, uint64_t at, enum sl_entries kind,
		      struct sl_entry *entry);

// The tenant of a dead letter or of a segment's entry, at most `size` - 1 bytes of it; false: it is
// neither.
bool sl_entry_tenant(const struct sl_entry *entry, char *tenant, size_t size);
