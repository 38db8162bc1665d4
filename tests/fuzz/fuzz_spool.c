// A segment of valid entries in which any bytes were changed: opening and reading it neither
// crashes nor calls anything an entry that is none, and each item is delivered or dropped.

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "dataplane/base/log.h"
#include "routing/spool/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags);

#define SALT     UINT64_C(0x5a17)
#define FILE_MAX 8192

static char folder[64], path[128];

// What is drawn or dated would make two runs over the same inputs differ.
ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags)
{
	(void)flags;
	memset(out, 0x5a, size);
	return (ssize_t)size;
}

static void forget(void)
{
	char cursor[160];

	snprintf(cursor, sizeof(cursor), "%s/cursor", folder);
	unlink(cursor);
	unlink(path);
	snprintf(cursor, sizeof(cursor), "%s.damaged", path);
	unlink(cursor);
}

static void leave(void)
{
	forget();
	rmdir(folder);
}

// The first half of the input says how long entries are and what they hold, the second what
// changes.
static size_t make(const uint8_t *data, size_t size, uint8_t *file)
{
	size_t at = SL_SPOOL_SEGMENT_HEAD, half = size / 2;

	sl_spool_put_segment(file, SALT);
	for (size_t i = 0; i + 1 < half;) {
		const size_t body = SL_MIN((size_t)data[i] % 64, half - i - 1);
		const struct iovec piece = {(void *)(uintptr_t)(data + i + 1), body};
		const struct sl_spool_entry entry = {
			.signal = (enum sl_signal)(data[i] % SL_SIGNALS),
			.items = data[i],
			.body_bytes = (uint32_t)body};

		if (at + SL_SPOOL_ENTRY_HEAD + body > FILE_MAX)
			break;
		sl_spool_put_entry(file + at, SALT, &entry, &piece, 1);
		memcpy(file + at + SL_SPOOL_ENTRY_HEAD, data + i + 1, body);
		at += SL_SPOOL_ENTRY_HEAD + body;
		i += 1 + body;
	}
	for (size_t i = half; i + 2 < size; i += 3)
		file[(data[i] | (size_t)data[i + 1] << 8) % at] ^= data[i + 2];
	return size % 7 ? at : at - at % 5;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct sl_spool_limits limits = {.bytes_max = SL_GIB, .segment_bytes = SL_MIB};
	const struct sl_spool_figures *figures;
	struct sl_spool_store *store;
	struct sl_spool_read *read;
	uint8_t file[FILE_MAX];
	uint64_t found[SL_SIGNALS] = {0};
	int fd, error;

	if (!folder[0]) {
		sl_log_set_level(SL_LOG_ERROR + 1); // none
		strcpy(folder, "/tmp/sluice-fuzz-XXXXXX");
		if (!mkdtemp(folder))
			abort();
		snprintf(path, sizeof(path), "%s/0000000000000001.spool", folder);
		atexit(leave);
	}
	forget();
	size = make(data, size, file);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, file, size) != (ssize_t)size)
		abort();
	close(fd);
	store = sl_spool_store_open(folder, &limits, &error);
	if (!store)
		abort();
	while ((read = sl_spool_store_next(store, false))) {
		found[read->entry.signal] += read->entry.items;
		sl_spool_store_end(store, read->slot, true);
		free(read);
	}
	figures = sl_spool_store_figures(store);
	for (unsigned i = 0; i < SL_SIGNALS; i++) {
		if (figures->items[i] ||
		    found[i] + figures->dropped_items[i] != figures->recovered_items[i])
			abort();
	}
	sl_spool_store_close(store);
	return 0;
}
