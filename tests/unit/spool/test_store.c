// Entries go in and come out in order, whatever happens to the files between: every length at which
// a tail can be torn, a flip of every byte, a disk that is full, and random use against a model.

#include "tests/unit/spool/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "routing/spool/store.h"

#define SEGMENT "0000000000000001.spool"

static const struct sl_spool_limits wide = {.bytes_max = SL_GIB, .segment_bytes = 64 * SL_MIB};

static struct sl_spool_store *must_open(const struct sl_spool_limits *limits)
{
	int error;
	struct sl_spool_store *store = sl_spool_store_open(folder, limits, &error);

	assert_non_null(store);
	return store;
}

// An entry whose body tells its number; `size` >= 16.
static int put(struct sl_spool_store *store, unsigned number, size_t size)
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

static unsigned number_of(const struct sl_spool_read *read)
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
static uint64_t drain(struct sl_spool_store *store)
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

static uint64_t first(unsigned count)
{
	return (UINT64_C(1) << count) - 1;
}

static void test_in_order_and_over_restarts(void **state)
{
	struct sl_spool_store *store = must_open(&wide);
	struct sl_spool_read *a, *b;

	(void)state;
	assert_true(sl_spool_store_is_empty(store));
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(put(store, i, 16 + i), 0);
	assert_int_equal(sl_spool_store_sync(store), 0);
	a = sl_spool_store_next(store, false);
	b = sl_spool_store_next(store, false);
	assert_int_equal(number_of(a), 0);
	assert_int_equal(number_of(b), 1);
	sl_spool_store_end(store, b->slot, true);
	sl_spool_store_end(store, a->slot, false);
	free(a);
	free(b);
	a = sl_spool_store_next(store, false); // it comes again, and first
	assert_int_equal(number_of(a), 0);
	sl_spool_store_end(store, a->slot, true);
	free(a);
	sl_spool_store_tick(store, 2000);
	sl_spool_store_close(store);

	store = must_open(&wide);
	assert_int_equal(drain(store), first(10) & ~first(2));
	sl_spool_store_tick(store, 2000);
	assert_int_equal(sl_spool_store_figures(store)->bytes, 0);
	sl_spool_store_close(store);
	empty_folder();
}

static size_t read_file(const char *name, uint8_t *to, size_t size)
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

static void write_file(const char *name, const uint8_t *from, size_t size)
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
static void write_segment(const uint8_t *from, size_t size)
{
	empty_folder();
	write_file(SEGMENT, from, size);
}

#define ENTRIES 6
#define BODY    40

// A segment of ENTRIES entries, and where each ends.
static size_t make_segment(uint8_t *to, size_t size, size_t ends[ENTRIES])
{
	struct sl_spool_store *store = must_open(&wide);

	for (unsigned i = 0; i < ENTRIES; i++) {
		assert_int_equal(put(store, i, BODY), 0);
		ends[i] = sl_spool_store_figures(store)->bytes;
	}
	sl_spool_store_close(store);
	return read_file(SEGMENT, to, size);
}

static void test_a_tail_torn_anywhere(void **state)
{
	uint8_t whole[4096];
	size_t ends[ENTRIES], size = make_segment(whole, sizeof(whole), ends);

	(void)state;
	for (size_t length = 0; length <= size; length++) {
		struct sl_spool_store *store;
		unsigned left = 0;

		write_segment(whole, length);
		while (left < ENTRIES && ends[left] <= length)
			left++;
		store = must_open(&wide);
		assert_int_equal(drain(store), first(left));
		assert_int_equal(sl_spool_store_figures(store)->damaged, 0);
		assert_int_equal(put(store, 7, BODY), 0); // and it goes on
		assert_int_equal(drain(store), 1 << 7);
		sl_spool_store_close(store);
	}
	empty_folder();
}

// A cursor that says what is not so would let go of what nobody has had: it is not believed.
static void test_a_flip_in_the_cursor(void **state)
{
	uint8_t whole[4096], cursor[64];
	size_t ends[ENTRIES], size = make_segment(whole, sizeof(whole), ends), cursor_bytes;
	struct sl_spool_store *store = must_open(&wide);
	struct sl_spool_read *read = sl_spool_store_next(store, false);

	(void)state;
	sl_spool_store_end(store, read->slot, true);
	free(read);
	sl_spool_store_close(store);
	cursor_bytes = read_file("cursor", cursor, sizeof(cursor));
	for (size_t at = 0; at < cursor_bytes * 8; at++) {
		write_segment(whole, size);
		cursor[at / 8] ^= (uint8_t)(1 << at % 8);
		write_file("cursor", cursor, cursor_bytes);
		cursor[at / 8] ^= (uint8_t)(1 << at % 8);
		store = must_open(&wide);
		assert_int_equal(drain(store), first(ENTRIES)); // the first once more
		sl_spool_store_close(store);
	}
	write_segment(whole, size);
	write_file("cursor", cursor, cursor_bytes);
	store = must_open(&wide);
	assert_int_equal(drain(store), first(ENTRIES) & ~first(1));
	sl_spool_store_close(store);
	empty_folder();
}

static void test_a_flip_anywhere(void **state)
{
	uint8_t whole[4096], flipped[4096];
	size_t ends[ENTRIES], size = make_segment(whole, sizeof(whole), ends);

	(void)state;
	for (size_t at = 0; at < size; at++) {
		struct sl_spool_store *store;
		const struct sl_spool_figures *figures;
		unsigned hit = 0;
		uint64_t found, items = 0;

		memcpy(flipped, whole, size);
		flipped[at] ^= (uint8_t)(1 << at % 8);
		write_segment(flipped, size);
		store = must_open(&wide);
		figures = sl_spool_store_figures(store);
		found = drain(store);
		while (hit < ENTRIES && ends[hit] <= at)
			hit++;
		if (at < 20) // the head of all: the file is put aside
			assert_int_equal(found, 0);
		else if (at < SL_SPOOL_SEGMENT_HEAD) // four bytes that say nothing
			assert_int_equal(found, first(ENTRIES));
		else
			assert_int_equal(found, first(ENTRIES) & ~(UINT64_C(1) << hit));
		if (found != first(ENTRIES) && hit < ENTRIES - 1)
			assert_int_equal(figures->damaged, 1);
		// Nothing is counted that is neither there nor dropped.
		for (unsigned i = 0; i < ENTRIES; i++)
			items += found >> i & 1 ? i + 1 : 0;
		for (unsigned i = 0; i < SL_SIGNALS; i++) {
			assert_int_equal(figures->items[i], 0);
			items += figures->dropped_items[i];
		}
		assert_int_equal(items, figures->recovered_items[0] + figures->recovered_items[1] +
						figures->recovered_items[2]);
		sl_spool_store_close(store);
	}
	empty_folder();
}

// Bytes that look like an entry inside a body are none: the checksums begin with a salt.
static void test_a_body_cannot_pass_for_an_entry(void **state)
{
	uint8_t forged[SL_SPOOL_ENTRY_HEAD + 64], whole[4096];
	struct sl_spool_entry entry = {.items = 1000, .body_bytes = 16};
	const struct iovec body = {forged, 16};
	struct sl_spool_store *store = must_open(&wide);
	const struct iovec piece = {forged, sizeof(forged)};
	struct sl_spool_write write = {
		.entry = {.body_bytes = sizeof(forged)}, .pieces = &piece, .piece_count = 1};
	size_t size;

	(void)state;
	memset(forged, 'x', sizeof(forged));
	sl_spool_put_entry(forged, 0, &entry, &body, 1);
	assert_int_equal(sl_spool_store_append(store, &write, 1, false), 0);
	sl_spool_store_close(store);
	size = read_file(SEGMENT, whole, sizeof(whole));
	whole[SL_SPOOL_SEGMENT_HEAD + 5] ^= 1; // the real one's head
	write_segment(whole, size);
	store = must_open(&wide);
	assert_null(sl_spool_store_next(store, false));
	sl_spool_store_close(store);
	empty_folder();
}

// --- a disk that fails ---------------------------------------------------------------------------

static int reads_left = INT_MAX; // then the disk fails
ssize_t __real_pread(int fd, void *to, size_t size, off_t at);
ssize_t __wrap_pread(int fd, void *to, size_t size, off_t at);

ssize_t __wrap_pread(int fd, void *to, size_t size, off_t at)
{
	if (reads_left > 0) {
		reads_left--;
		return __real_pread(fd, to, size, at);
	}
	errno = EIO;
	return -1;
}

#define ASIDE SEGMENT ".unread"

// Whichever read of a segment fails at open: it is put aside as it was, others go on, and all of it
// comes in, whole and counted, when the disk is well again, in this process or the next.
static void test_a_segment_that_the_disk_does_not_give(void **state)
{
	uint8_t whole[4096], after[4096];
	struct sl_spool_store *store = must_open(&wide);
	size_t size;
	unsigned aside = 0;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(put(store, i, BODY), 0);
	sl_spool_store_close(store);
	size = read_file(SEGMENT, whole, sizeof(whole));
	// A damaged head in the middle: the next one is searched behind it.
	whole[SL_SPOOL_SEGMENT_HEAD + SL_SPOOL_ENTRY_HEAD + strlen("tenant") + BODY + 12] ^= 1;
	for (int good = 1;; good++) { // the cursor's is the first
		const struct sl_spool_figures *figures;

		write_segment(whole, size);
		reads_left = good;
		store = must_open(&wide);
		figures = sl_spool_store_figures(store);
		if (!figures->aside)
			break;
		aside++;
		assert_int_equal(figures->aside, 1);
		assert_int_equal(figures->bytes, 0);
		for (unsigned i = 0; i < SL_SIGNALS; i++)
			assert_int_equal(figures->items[i] + figures->dropped_items[i], 0);
		assert_int_equal(read_file(ASIDE, after, sizeof(after)), size);
		assert_memory_equal(after, whole, size);
		assert_int_equal(put(store, 7, BODY), 0); // the others go on
		sl_spool_store_tick(store, 40 * SL_S);
		assert_int_equal(figures->aside, 1);
		reads_left = INT_MAX;
		if (good % 2) { // another process finds it
			sl_spool_store_close(store);
			store = must_open(&wide);
			figures = sl_spool_store_figures(store);
			assert_int_equal(figures->recovered_items[7 % SL_SIGNALS], 8);
		}
		sl_spool_store_tick(store, 71 * SL_S);
		assert_int_equal(figures->aside, 0);
		assert_int_equal(figures->recovered_items[0] + figures->recovered_items[2], 1 + 3);
		assert_int_equal(figures->damaged, 0);
		for (unsigned i = 0; i < 3; i++) {
			static const unsigned order[] = {7, 0, 2};
			struct sl_spool_read *read = sl_spool_store_next(store, false);

			assert_non_null(read);
			assert_int_equal(number_of(read), order[i]);
			sl_spool_store_end(store, read->slot, true);
			free(read);
		}
		assert_int_equal(figures->damaged, 1);
		assert_int_equal(drain(store), 0);
		sl_spool_store_close(store);
	}
	assert_true(aside >= 3);
	reads_left = INT_MAX;
	sl_spool_store_close(store);
	empty_folder();
}

// A cursor that cannot be read, or is none: it is kept, and what it says is gone comes again.
static void test_a_cursor_that_the_disk_does_not_give(void **state)
{
	static const uint8_t other[100] = "not ours";
	char path[PATH_MAX], aside[PATH_MAX];

	(void)state;
	snprintf(path, sizeof(path), "%s/cursor", folder);
	snprintf(aside, sizeof(aside), "%s/cursor.unread", folder);
	for (unsigned how = 0; how < 3; how++) {
		struct sl_spool_store *store = must_open(&wide);
		struct sl_spool_read *read;

		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(put(store, i, BODY), 0);
		read = sl_spool_store_next(store, false);
		sl_spool_store_end(store, read->slot, true);
		free(read);
		sl_spool_store_close(store);
		assert_int_equal(unlink(path), 0);
		if (how == 0)
			write_file("cursor", other, sizeof(other));
		else if (how == 1)
			assert_int_equal(mkdir(path, 0700), 0);
		else
			assert_int_equal(symlink(path, path), 0);
		store = must_open(&wide);
		assert_int_equal(sl_spool_store_figures(store)->read_errors, 1);
		assert_int_equal(drain(store), first(3));
		sl_spool_store_tick(store, 1); // the new one is well
		sl_spool_store_close(store);
		store = must_open(&wide);
		assert_int_equal(sl_spool_store_figures(store)->read_errors, 0);
		assert_int_equal(drain(store), 0);
		sl_spool_store_close(store);
		assert_int_equal(how == 1 ? rmdir(aside) : unlink(aside), 0);
		empty_folder();
	}
}

// The disk gives nothing at all: no file is changed, or has another name for long.
static void test_a_disk_that_gives_nothing(void **state)
{
	struct sl_spool_store *store = must_open(&wide);
	int error;

	(void)state;
	assert_int_equal(put(store, 0, BODY), 0);
	sl_spool_store_close(store);
	reads_left = 0;
	assert_null(sl_spool_store_open(folder, &wide, &error));
	assert_int_equal(error, -EIO);
	assert_null(sl_spool_store_open(folder, &wide, &error));
	reads_left = INT_MAX;
	store = must_open(&wide);
	assert_int_equal(drain(store), 1);
	sl_spool_store_close(store);
	empty_folder();
}

// Whichever read of what comes out fails: it comes out when the disk is well again.
static void test_the_disk_fails_later(void **state)
{
	(void)state;
	for (int good = 0; good < 8; good++) {
		struct sl_spool_store *store = must_open(&wide);
		struct sl_spool_read *read;
		uint64_t found = 0;

		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(put(store, i, BODY), 0);
		reads_left = good;
		while ((read = sl_spool_store_next(store, false))) {
			found |= UINT64_C(1) << number_of(read);
			sl_spool_store_end(store, read->slot, true);
			free(read);
		}
		assert_int_equal(found, first((unsigned)SL_MIN(good / 2, 3)));
		assert_int_equal(sl_spool_store_figures(store)->read_errors, good < 6);
		assert_int_equal(sl_spool_store_figures(store)->damaged, 0);
		reads_left = INT_MAX;
		assert_int_equal(found | drain(store), first(3));
		sl_spool_store_close(store);
		empty_folder();
	}
}

// What cannot be opened now is not damaged: it stays, and comes out when it can be.
static void test_no_descriptors(void **state)
{
	const struct sl_spool_limits small = {.bytes_max = SL_GIB, .segment_bytes = 100};
	struct sl_spool_store *store = must_open(&small);
	struct rlimit before, none;

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(put(store, i, 100), 0);
	sl_spool_store_close(store);
	store = must_open(&small);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_null(sl_spool_store_next(store, false));
	sl_spool_store_tick(store, 1);
	assert_false(sl_spool_store_is_empty(store));
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(drain(store), 15);
	assert_int_equal(sl_spool_store_figures(store)->damaged, 0);
	sl_spool_store_close(store);
	empty_folder();
}

// A segment that cannot be opened for what it is itself is put aside; the others come out.
static void test_a_segment_that_does_not_open(void **state)
{
	const struct sl_spool_limits small = {.bytes_max = SL_GIB, .segment_bytes = 100};
	struct sl_spool_store *store = must_open(&small);
	char first[PATH_MAX], second[PATH_MAX], kept[PATH_MAX], aside[PATH_MAX];

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(put(store, i, 100), 0);
	sl_spool_store_close(store);
	snprintf(first, sizeof(first), "%s/" SEGMENT, folder);
	snprintf(second, sizeof(second), "%s/0000000000000002.spool", folder);
	snprintf(aside, sizeof(aside), "%s/0000000000000002.spool.unread", folder);
	snprintf(kept, sizeof(kept), "%s/kept", folder);
	assert_int_equal(truncate(first, 0), 0);
	assert_int_equal(rename(second, kept), 0);
	assert_int_equal(symlink(second, second), 0);
	store = must_open(&small);
	assert_int_equal(sl_spool_store_figures(store)->aside, 1);
	assert_int_equal(drain(store), 4);
	assert_int_equal(unlink(aside), 0);
	assert_int_equal(rename(kept, aside), 0); // somebody has seen to it
	sl_spool_store_tick(store, 60 * SL_S);
	assert_int_equal(drain(store), 2);
	sl_spool_store_close(store);
	empty_folder();
}

// What cannot be put aside stays where it is, and what is aside is not written over.
static void test_a_segment_that_cannot_be_put_aside(void **state)
{
	uint8_t garbage[SL_SPOOL_SEGMENT_HEAD] = "no segment";
	struct sl_spool_store *store;
	char aside[PATH_MAX], path[PATH_MAX];
	int error;

	(void)state;
	snprintf(path, sizeof(path), "%s/" SEGMENT, folder);
	snprintf(aside, sizeof(aside), "%s/" SEGMENT ".damaged", folder);
	write_segment(garbage, sizeof(garbage));
	write_file(ASIDE, garbage, sizeof(garbage));
	write_file(SEGMENT ".damaged", garbage, sizeof(garbage));
	assert_null(sl_spool_store_open(folder, &wide, &error));
	assert_int_equal(error, -EEXIST);
	assert_int_equal(access(path, R_OK), 0);
	assert_int_equal(unlink(aside), 0);
	store = must_open(&wide);
	assert_int_equal(access(aside, R_OK), 0);
	snprintf(aside, sizeof(aside), "%s/" ASIDE ".damaged", folder);
	assert_int_equal(access(aside, R_OK), 0);                       // nor was that one
	write_file("0000000000000002.spool", garbage, sizeof(garbage)); // nor what is in the way
	assert_int_equal(put(store, 0, BODY), -EEXIST);
	assert_int_equal(put(store, 0, BODY), 0);
	assert_int_equal(unlink(strcat(strcpy(aside, folder), "/0000000000000002.spool")), 0);
	sl_spool_store_close(store);
	empty_folder();
}

static unsigned open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

// A spool may have more segments than a process has descriptors.
static void test_descriptors_are_few(void **state)
{
	const struct sl_spool_limits small = {.bytes_max = SL_GIB, .segment_bytes = 100};
	const unsigned before = open_files();
	struct sl_spool_store *store = must_open(&small);
	struct sl_spool_read *out[20];

	(void)state;
	for (unsigned i = 0; i < SL_COUNT_OF(out); i++)
		assert_int_equal(put(store, i, 100), 0);
	assert_true(open_files() <= before + 2); // the cursor's and the last one's
	for (unsigned i = 0; i < SL_COUNT_OF(out); i++)
		assert_non_null(out[i] = sl_spool_store_next(store, false));
	assert_true(open_files() <= before + 3);
	for (unsigned i = 0; i < SL_COUNT_OF(out); i++) {
		sl_spool_store_end(store, out[i]->slot, false);
		free(out[i]);
	}
	assert_int_equal(drain(store), first(SL_COUNT_OF(out)));
	sl_spool_store_close(store);
	empty_folder();
}

static void test_full(void **state)
{
	const struct sl_spool_limits small = {.bytes_max = 4096, .segment_bytes = 1024},
				     dropping = {.bytes_max = 4096,
						 .segment_bytes = 1024,
						 .drop_oldest = true};
	struct sl_spool_store *store = must_open(&small);
	unsigned count = 0;
	uint64_t found;

	(void)state;
	while (put(store, count, 400) == 0)
		count++;
	assert_int_equal(put(store, count, 400), -ENOSPC);
	assert_true(count >= 6 && sl_spool_store_figures(store)->bytes <= 4096);
	sl_spool_store_limit(store, &dropping);
	for (unsigned i = count; i < 30; i++)
		assert_int_equal(put(store, i, 400), 0);
	assert_true(sl_spool_store_figures(store)->bytes <= 4096);
	found = drain(store);
	assert_int_equal(found & (UINT64_C(1) << 29), UINT64_C(1) << 29);
	assert_int_equal(found & 1, 0);
	sl_spool_store_close(store);
	empty_folder();
}

// What is out, behind what was dropped to make room, comes out again after a restart.
static void test_dropped_while_out(void **state)
{
	const struct sl_spool_limits limits = {
		.bytes_max = 4096, .segment_bytes = 1024, .drop_oldest = true};
	struct sl_spool_store *store = must_open(&limits);

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(put(store, i, 400), 0);
	for (unsigned i = 0; i < 5; i++) {
		struct sl_spool_read *read = sl_spool_store_next(store, false);

		assert_int_equal(number_of(read), i);
		free(read);
	}
	assert_int_equal(put(store, 8, 400), 0);
	assert_int_equal(put(store, 9, 400), 0);
	assert_int_equal(put(store, 10, 5000), -ENOSPC); // for which nothing is dropped
	sl_spool_store_close(store);
	store = must_open(&limits);
	assert_int_equal(drain(store), first(10) & ~first(2));
	sl_spool_store_close(store);
	empty_folder();
}

// The age is of the first that is not gone, out or not, over restarts.
static void test_age(void **state)
{
	struct sl_spool_store *store = must_open(&wide);
	const struct sl_spool_figures *figures = sl_spool_store_figures(store);
	struct sl_spool_read *read;

	(void)state;
	sl_spool_store_tick(store, 1500);
	assert_int_equal(figures->age_ns, 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(put(store, i, 40), 0); // at 1000, 1001, 1002
	sl_spool_store_tick(store, 1500);
	assert_int_equal(figures->age_ns, 500);
	assert_non_null(read = sl_spool_store_next(store, false));
	sl_spool_store_tick(store, 1600);
	assert_int_equal(figures->age_ns, 600);
	sl_spool_store_end(store, read->slot, true);
	free(read);
	sl_spool_store_tick(store, 1600);
	assert_int_equal(figures->age_ns, 599);
	sl_spool_store_close(store);
	store = must_open(&wide);
	sl_spool_store_tick(store, 1600);
	assert_int_equal(sl_spool_store_figures(store)->age_ns, 599);
	drain(store);
	sl_spool_store_tick(store, 1600);
	assert_int_equal(sl_spool_store_figures(store)->age_ns, 0);
	sl_spool_store_close(store);
	empty_folder();
}

static void test_too_old(void **state)
{
	const struct sl_spool_limits limits = {
		.bytes_max = SL_GIB, .segment_bytes = 100, .age_max_ns = 1000};
	struct sl_spool_store *store = must_open(&limits);

	(void)state;
	for (unsigned i = 0; i < 4; i++) // a segment each, of 1000 to 1003 ns
		assert_int_equal(put(store, i, 80), 0);
	sl_spool_store_tick(store, 2000);
	assert_int_equal(sl_spool_store_figures(store)->dropped_items[0], 0);
	sl_spool_store_tick(store, 2002);
	assert_int_equal(drain(store), 1 << 2 | 1 << 3);
	assert_int_equal(sl_spool_store_figures(store)->dropped_items[0], 1);
	assert_int_equal(sl_spool_store_figures(store)->dropped_items[1], 2);
	sl_spool_store_close(store);
	empty_folder();
}

// A write that stops in the middle leaves nothing behind.
static void test_no_space_in_the_middle(void **state)
{
	struct sl_spool_store *store = must_open(&wide);
	const struct sl_spool_figures *figures = sl_spool_store_figures(store);
	struct rlimit before, limit;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = before;
	assert_int_equal(put(store, 0, 100), 0);
	for (unsigned more = 0; more < 200; more += 7) {
		const uint64_t bytes = figures->bytes;

		limit.rlim_cur = bytes + more;
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
		assert_int_equal(put(store, 1, 400), -EFBIG);
		assert_int_equal(figures->bytes, bytes);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	}
	assert_int_equal(put(store, 2, 100), 0);
	sl_spool_store_close(store);
	store = must_open(&wide);
	assert_int_equal(drain(store), 1 << 0 | 1 << 2);
	sl_spool_store_close(store);
	empty_folder();
}

// Random use against a list: nothing is lost; over a restart what was out comes again.
static void test_random_use(void **state)
{
	const struct sl_spool_limits limits = {.bytes_max = SL_GIB, .segment_bytes = 700};

	(void)state;
	for (unsigned seed = 1; seed <= 60; seed++) {
		struct sl_spool_store *store = must_open(&limits);
		struct sl_spool_read *out[SL_SPOOL_OUT_MAX] = {0};
		unsigned written = 0, out_count = 0;
		uint64_t gone = 0;

		srand(seed);
		for (unsigned step = 0; step < 300 && written < 60; step++) {
			const int what = rand() % 10;

			if (what < 4) {
				assert_int_equal(put(store, written++, 16 + (size_t)rand() % 200),
						 0);
			} else if (what < 7) {
				struct sl_spool_read *read = sl_spool_store_next(store, false);

				if (read) {
					(void)number_of(read);
					out[out_count++] = read;
				}
			} else if (what < 9 && out_count) {
				const unsigned i = (unsigned)rand() % out_count;
				const bool end = rand() % 3;

				if (end)
					gone |= UINT64_C(1) << number_of(out[i]);
				sl_spool_store_end(store, out[i]->slot, end);
				free(out[i]);
				out[i] = out[--out_count];
			} else if (rand() % 4 == 0) {
				while (out_count)
					free(out[--out_count]);
				sl_spool_store_close(store);
				store = must_open(&limits);
			}
		}
		while (out_count) {
			sl_spool_store_end(store, out[--out_count]->slot, false);
			free(out[out_count]);
		}
		gone |= drain(store);
		assert_int_equal(gone, first(written));
		sl_spool_store_close(store);
		empty_folder();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_order_and_over_restarts),
		cmocka_unit_test(test_a_tail_torn_anywhere),
		cmocka_unit_test(test_a_flip_anywhere),
		cmocka_unit_test(test_a_flip_in_the_cursor),
		cmocka_unit_test(test_a_body_cannot_pass_for_an_entry),
		cmocka_unit_test(test_a_segment_that_the_disk_does_not_give),
		cmocka_unit_test(test_a_cursor_that_the_disk_does_not_give),
		cmocka_unit_test(test_a_disk_that_gives_nothing),
		cmocka_unit_test(test_the_disk_fails_later),
		cmocka_unit_test(test_no_descriptors),
		cmocka_unit_test(test_a_segment_that_does_not_open),
		cmocka_unit_test(test_a_segment_that_cannot_be_put_aside),
		cmocka_unit_test(test_descriptors_are_few),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_dropped_while_out),
		cmocka_unit_test(test_age),
		cmocka_unit_test(test_too_old),
		cmocka_unit_test(test_no_space_in_the_middle),
		cmocka_unit_test(test_random_use),
	};

	return cmocka_run_group_tests(tests, begin, finish);
}
