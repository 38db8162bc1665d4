#pragma once

#include "dataplane/base/base.h"
#include "routing/dead_letter.h"

// What a file destination has written, read again: Export requests one after the other, each
// perhaps behind a dead letter's headers.
//
// Threading: any. Memory: all that is returned points into the file's bytes.
enum sl_entries {
	SL_ENTRIES_DELIMITED, // .binpb: each request behind its length as a varint
	SL_ENTRIES_LINES,     // .jsonl: one request a line
};

struct sl_entry {
	struct sl_bytes body;   // the request, without a dead letter's headers if it is protobuf
	struct sl_bytes letter; // a dead letter's headers as they stand; none: size 0
	bool json;
};

// The entry at `at`. Returns its bytes in the file, 0 at the file's end, or < 0 where the file ends
// inside it or its length is no varint: nothing behind can be found then.
int64_t sl_entry_read(struct sl_bytes file, uint64_t at, enum sl_entries kind,
		      struct sl_entry *entry);

// The tenant of a dead letter, at most `size` - 1 bytes of it; false: it is none.
bool sl_entry_tenant(const struct sl_entry *entry, char *tenant, size_t size);
