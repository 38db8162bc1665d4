// Entries tile a file from wherever reading begins, lie inside it, and end: whatever it holds.
//
// Input: the kind, then the file.

#include <stdlib.h>

#include "routing/entries.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

static bool inside(struct sl_bytes part, struct sl_bytes file)
{
	return !part.size ||
	       (part.data >= file.data && part.data + part.size <= file.data + file.size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sl_entry entry;
	struct sl_bytes file;
	char tenant[8];
	uint8_t *copy; // of its own size: what is read beyond it is seen
	int64_t bytes;
	uint64_t at = 0;

	if (!size)
		return 0;
	copy = malloc(size);
	check(copy != NULL);
	memcpy(copy, data + 1, size - 1);
	file = sl_bytes(copy, size - 1);
	while ((bytes = sl_entry_read(file, at, data[0] % 3, &entry)) > 0) {
		check((uint64_t)bytes <= file.size - at);
		check(inside(entry.body, file) && inside(entry.letter, file) &&
		      inside(entry.tenant, file));
		check(!entry.damaged || !entry.body.size);
		memset(tenant, 'x', sizeof(tenant));
		if (sl_entry_tenant(&entry, tenant, sizeof(tenant)))
			check(memchr(tenant, 0, sizeof(tenant)) != NULL);
		at += (uint64_t)bytes;
	}
	check(bytes < 0 || at == file.size);
	free(copy);
	return 0;
}
