#pragma once

#include "tests/unit/spool/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "routing/spool/store.h"

// Entries that tell their number, in the folder of the test, and its files as bytes.

#define BODY    40
#define SEGMENT "0000000000000001.spool"

static const struct sl_spool_limits wide = {.bytes_max = SL_GIB, .segment_bytes = 64 * SL_MIB};

static inline struct sl_spool_store *must_open(const struct sl_spool_limits *limits)
{
	int error;
	struct sl_spool_store *store = sl_spool_store_open(folder, limits, &error);

	assert_non_null(store);
	return store;
}

// An entry whose body tells its number; `size` >= 16.
static inline int put(struct sl_spool_store *store, unsigned number, size_t size)
{
	char *body = malloc(size + 1);
	int failed;

	memset(body, 'a' + (int)(number % 26), size);
	memcpy(body, &number, sizeof(number));

	const struct iovec pieces[] = {{body, 7}, {body + 7, size - 7}};
	const struct sl_spool_write write = {
		.entry = {.signal = (enum sl_signal)(number % SL_SIGNALS),
			  .items = number + 1,
			  .body_bytes = (uint32_t)size,
			  .wall_ns = 1000 + number,
			  .tenant = SL_LITERAL("tenant"),
			  .key = number % 2 ? SL_LITERAL("key") : SL_BYTES_NONE},
		.pieces = pieces,
		.piece_count = 2,
	};

	failed = sl_spool_store_append(store, &write, 1, false);
	free(body);
	return failed;
}

static inline unsigned number_of(const struct sl_spool_read *read)
{
	unsigned number;

	assert_true(read->body.size >= sizeof(number));
	memcpy(&number, read->body.data, sizeof(number));
	assert_int_equal(read->entry.items, number + 1);
	assert_int_equal(read->entry.signal, number % SL_SIGNALS);
	assert_true(sl_bytes_equal(read->entry.tenant, SL_LITERAL("tenant")));
	assert_int_equal(read->entry.key.size, number % 2 ? 3 : 0);
	assert_int_equal(read->entry.key.data != NULL, number % 2);
	for (size_t i = sizeof(number); i < read->body.size; i++)
		assert_int_equal(read->body.data[i], 'a' + number % 26);
	return number;
}

// All that comes out, told gone, as bits; ascending.
static inline uint64_t drain(struct sl_spool_store *store)
{
	struct sl_spool_read *read;
	uint64_t found = 0;
	int last = -1;

	while ((read = sl_spool_store_next(store, false))) {
		const unsigned number = number_of(read);

		assert_true((int)number > last);
		last = (int)number;
		found |= UINT64_C(1) << number;
		sl_spool_store_end(store, read->slot, true);
		free(read);
	}
	assert_true(sl_spool_store_is_empty(store));
	return found;
}

static inline uint64_t first(unsigned count)
{
	return (UINT64_C(1) << count) - 1;
}

static inline size_t read_file(const char *name, uint8_t *to, size_t size)
{
	char path[PATH_MAX];
	int fd;
	ssize_t got;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	got = read(fd, to, size);
	assert_true(got > 0);
	close(fd);
	return (size_t)got;
}

static inline void write_file(const char *name, const uint8_t *from, size_t size)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, from, size), size);
	close(fd);
}

// The segment alone.
static inline void write_segment(const uint8_t *from, size_t size)
{
	empty_folder();
	write_file(SEGMENT, from, size);
}
