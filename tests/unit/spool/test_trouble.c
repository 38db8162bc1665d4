// A disk that fails: what it does not give is neither lost nor changed.

#include "tests/unit/spool/entries.h"

#include <sys/resource.h>

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

// Nothing here ends the machine: some thousands of syncs of a busy disk would take minutes.
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);

int __wrap_fsync(int fd)
{
	(void)fd;
	return 0;
}

int __wrap_fdatasync(int fd)
{
	(void)fd;
	return 0;
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

// Whichever read of what comes out fails: its segment is put aside at once, with what of it is
// gone, what comes behind it goes on, and it comes in again when the disk is well, each entry once.
static void test_the_disk_fails_later(void **state)
{
	(void)state;
	for (int good = 0; good < 8; good++) {
		struct sl_spool_store *store = must_open(&wide);
		const struct sl_spool_figures *figures = sl_spool_store_figures(store);
		const uint64_t gone = first((unsigned)SL_MIN(good / 2, 3));
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
		assert_int_equal(found, gone);
		assert_int_equal(figures->read_errors, good < 6);
		assert_int_equal(figures->aside, good < 6);
		assert_int_equal(figures->damaged, 0);
		assert_true(sl_spool_store_is_empty(store)); // nothing waits behind it
		for (unsigned i = 0; i < 3; i++)             // which are counted still
			assert_int_equal(figures->items[i], gone >> i & 1 ? 0 : i + 1);
		reads_left = INT_MAX;
		assert_int_equal(put(store, 4, BODY), 0);
		assert_int_equal(drain(store), 1 << 4);
		assert_int_equal(figures->aside, good < 6);
		if (good % 2) { // another process finds it, and how far it was
			sl_spool_store_close(store);
			store = must_open(&wide);
			figures = sl_spool_store_figures(store);
		} else {
			sl_spool_store_tick(store, 31 * SL_S);
		}
		assert_int_equal(figures->aside, 0);
		assert_int_equal(drain(store), first(3) & ~gone);
		for (unsigned i = 0; i < 3; i++) {
			assert_int_equal(figures->items[i] + figures->dropped_items[i], 0);
			assert_true(good % 2 || !figures->recovered_items[i]);
		}
		sl_spool_store_close(store);
		empty_folder();
	}
}

// The next to come out is that one, and then gone.
static void comes(struct sl_spool_store *store, unsigned number)
{
	struct sl_spool_read *read = sl_spool_store_next(store, false);

	assert_non_null(read);
	assert_int_equal(number_of(read), number);
	sl_spool_store_end(store, read->slot, true);
	free(read);
}

static unsigned files_in_folder(void)
{
	DIR *dir = opendir(folder);
	unsigned count = 0;

	assert_non_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count - 2; // itself and the one above
}

// Two of four are gone when the disk fails; the rest comes in again, behind another one or alone,
// and some of that comes out. The process ends, or is killed with the cursor of before or after it
// came in. Nothing that the cursor or the place knows to be gone comes out of the next.
static void fail_and_restart(unsigned ahead, unsigned come, bool later, unsigned killed, bool again)
{
	static const unsigned order[] = {4, 2, 3};
	const unsigned *rest = &order[1 - ahead], count = 2 + ahead;
	struct sl_spool_store *store = must_open(&wide);
	uint8_t cursors[2][256];
	size_t size;

	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(put(store, i, BODY), 0);
	comes(store, 0);
	comes(store, 1);
	reads_left = 0;
	assert_null(sl_spool_store_next(store, false));
	reads_left = INT_MAX;
	assert_int_equal(sl_spool_store_figures(store)->aside, 1);
	if (ahead)
		assert_int_equal(put(store, 4, BODY), 0);
	sl_spool_store_tick(store, 1); // not looked at yet
	(void)read_file("cursor", cursors[0], sizeof(cursors[0]));
	if (later) {
		sl_spool_store_close(store);
		store = must_open(&wide);
	}
	sl_spool_store_tick(store, 31 * SL_S);
	assert_int_equal(sl_spool_store_figures(store)->aside, 0);
	size = read_file("cursor", cursors[1], sizeof(cursors[1]));
	for (unsigned i = 0; i < come; i++)
		comes(store, rest[i]);
	sl_spool_store_close(store);
	if (killed)
		write_file("cursor", cursors[killed - 1], size);
	if (again) {
		reads_left = 1; // the cursor's
		store = must_open(&wide);
		reads_left = INT_MAX;
		assert_int_equal(sl_spool_store_figures(store)->aside, files_in_folder() - 1);
		sl_spool_store_close(store);
	}
	store = must_open(&wide);
	if (killed && come < count) // the files that are there, from their beginning or place
		come = come < ahead ? 0 : ahead;
	for (unsigned i = come; i < count; i++)
		comes(store, rest[i]);
	assert_int_equal(drain(store), 0);
	sl_spool_store_tick(store, 60 * SL_S);
	assert_int_equal(files_in_folder(), 1);
	sl_spool_store_close(store);
	empty_folder();
}

static void test_what_is_gone_stays_gone(void **state)
{
	(void)state;
	for (unsigned ahead = 0; ahead < 2; ahead++) {
		for (unsigned come = 0; come <= 2 + ahead; come++) {
			for (unsigned how = 0; how < 12; how++)
				fail_and_restart(ahead, come, how & 1, how / 4, how & 2);
		}
	}
}

// The next to come out, which has not been gone yet; gone, or not.
static bool take_one(struct sl_spool_store *store, bool gone, uint64_t *found)
{
	struct sl_spool_read *read = sl_spool_store_next(store, false);
	uint64_t bit;

	if (!read)
		return false;
	bit = UINT64_C(1) << number_of(read);
	assert_false(*found & bit);
	*found |= gone ? bit : 0;
	sl_spool_store_end(store, read->slot, gone);
	free(read);
	return true;
}

// Of a disk that fails now and then, over clean restarts: what is gone before the next is asked for
// does not come again.
static void test_each_is_gone_once(void **state)
{
	const struct sl_spool_limits limits = {.bytes_max = SL_GIB, .segment_bytes = 700};

	(void)state;
	for (unsigned seed = 1; seed <= 100; seed++) {
		struct sl_spool_store *store = must_open(&limits);
		uint64_t found = 0, wall_ns = SL_S;
		unsigned written = 0;

		srand(seed);
		for (unsigned i = 0; i < 400; i++) {
			const int what = rand() % 10;

			reads_left = rand() % 4 ? INT_MAX : 1 + rand() % 8;
			if (what < 3 && written < 60) {
				assert_int_equal(put(store, written++, 16 + (size_t)rand() % 200),
						 0);
			} else if (what < 7) {
				(void)take_one(store, rand() % 3, &found);
			} else if (what < 9) {
				wall_ns += (uint64_t)(rand() % 20) * SL_S;
				sl_spool_store_tick(store, wall_ns);
			} else {
				sl_spool_store_close(store);
				store = must_open(&limits);
			}
		}
		reads_left = INT_MAX;
		sl_spool_store_close(store);
		store = must_open(&limits);
		while (take_one(store, true, &found))
			;
		assert_int_equal(found, first(written));
		sl_spool_store_close(store);
		empty_folder();
	}
}

// What is out of a segment that fails goes on; what of it comes back, comes again with the rest of
// it, and while one is out its file stays, as what becomes of it is not known.
static void test_the_disk_fails_what_is_out(void **state)
{
	(void)state;
	for (unsigned back = 0; back < 8; back++) { // which of three come back
		struct sl_spool_store *store = must_open(&wide);
		const struct sl_spool_figures *figures = sl_spool_store_figures(store);
		struct sl_spool_read *out[3];
		unsigned first_back = 3;

		for (unsigned i = 0; i < 4; i++)
			assert_int_equal(put(store, i, BODY), 0);
		for (unsigned i = 0; i < 3; i++)
			out[i] = sl_spool_store_next(store, false);
		reads_left = 0;
		assert_null(sl_spool_store_next(store, false));
		reads_left = INT_MAX;
		assert_int_equal(put(store, 5, BODY), 0); // not into the one that fails
		sl_spool_store_tick(store, 1000);         // nothing of it is removed, or passed
		for (unsigned i = 0; i < 3; i++) {
			assert_int_equal(figures->aside, 0);
			sl_spool_store_end(store, out[i]->slot, !(back >> i & 1));
			free(out[i]);
			if (back >> i & 1)
				first_back = SL_MIN(first_back, i);
		}
		assert_int_equal(figures->aside, 1);
		assert_int_equal(drain(store), 1 << 5);
		if (back & 1) { // the books without a process between
			sl_spool_store_tick(store, 31 * SL_S);
		} else {
			sl_spool_store_close(store);
			store = must_open(&wide);
			figures = sl_spool_store_figures(store);
		}
		assert_int_equal(drain(store), first(4) & ~first(first_back));
		for (unsigned i = 0; i < SL_SIGNALS; i++)
			assert_int_equal(figures->items[i], 0);
		if (back == 5) // the one between came twice, and is found once more
			assert_int_equal(figures->recovered_items[1], 2);
		sl_spool_store_close(store);
		empty_folder();
	}
}

// One that cannot be put aside is passed over where it is: what is behind it comes out, it is not
// removed nor passed by the cursor, and it is tried again where it is.
static void test_a_segment_that_fails_and_stays(void **state)
{
	const struct sl_spool_limits small = {.bytes_max = SL_GIB, .segment_bytes = 100};
	static const uint8_t kept[] = "kept";

	(void)state;
	for (unsigned how = 0; how < 2; how++) {
		struct sl_spool_store *store = must_open(&small);
		struct sl_spool_read *read;

		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(put(store, i, 100), 0);
		write_file(ASIDE, kept, sizeof(kept)); // not to be written over
		reads_left = 0;
		read = sl_spool_store_next(store, false);
		assert_null(read);
		reads_left = INT_MAX;
		assert_int_equal(sl_spool_store_figures(store)->aside, 2);
		assert_int_equal(put(store, 5, BODY), 0);
		assert_int_equal(drain(store), 1 << 5);
		sl_spool_store_tick(store, 1000);
		if (how) {
			sl_spool_store_tick(store, 31 * SL_S);
		} else { // what is aside is not lost, nor is what was not
			sl_spool_store_close(store);
			store = must_open(&small);
		}
		assert_int_equal(drain(store), first(3));
		sl_spool_store_close(store);
		empty_folder();
	}
}

// What is aside takes the room that it took; the oldest first is dropped for new ones.
static void test_what_is_aside_takes_room(void **state)
{
	(void)state;
	for (unsigned drop = 0; drop < 2; drop++) {
		const struct sl_spool_limits limits = {
			.bytes_max = 800, .segment_bytes = 200, .drop_oldest = drop};
		struct sl_spool_store *store = must_open(&limits);
		const struct sl_spool_figures *figures = sl_spool_store_figures(store);
		unsigned kept = 0;

		while (kept < 3 && put(store, kept, 150) == 0)
			kept++;
		assert_int_equal(kept, 3);
		reads_left = 0;
		assert_null(sl_spool_store_next(store, false));
		reads_left = INT_MAX;
		assert_int_equal(figures->aside, 3);
		assert_int_equal(put(store, 3, 150), drop ? 0 : -ENOSPC);
		assert_int_equal(figures->aside, drop ? 2 : 3);
		assert_int_equal(figures->dropped_items[0], drop ? 1 : 0);
		sl_spool_store_tick(store, 31 * SL_S);
		assert_int_equal(figures->aside, 0);
		assert_int_equal(figures->recovered_items[0] + figures->recovered_items[1], 0);
		for (unsigned left = 3; left; left--) {
			struct sl_spool_read *read = sl_spool_store_next(store, false);

			assert_non_null(read);
			sl_spool_store_end(store, read->slot, true);
			free(read);
		}
		assert_int_equal(drain(store), 0);
		sl_spool_store_close(store);
		empty_folder();
	}
}

// spool_recovered + put = gone + dropped + what is there or out; nothing is lost.
struct books {
	uint64_t put, gone; // as items
	uint64_t found;     // numbers
	struct sl_spool_read *out[SL_SPOOL_OUT_MAX];
	unsigned out_count;
};

static void check_books(const struct sl_spool_store *store, const struct books *books)
{
	const struct sl_spool_figures *figures = sl_spool_store_figures(store);
	uint64_t in = books->put, rest = books->gone;

	for (unsigned i = 0; i < SL_SIGNALS; i++) {
		in += figures->recovered_items[i];
		rest += figures->items[i];
		assert_int_equal(figures->dropped_items[i], 0);
	}
	for (unsigned i = 0; i < books->out_count; i++)
		rest += books->out[i]->entry.items;
	assert_int_equal(in, rest);
}

static void end_one(struct sl_spool_store *store, struct books *books, unsigned which, bool gone)
{
	struct sl_spool_read *read = books->out[which];

	books->gone += gone ? read->entry.items : 0;
	if (gone)
		books->found |= UINT64_C(1) << number_of(read);
	sl_spool_store_end(store, read->slot, gone);
	free(read);
	books->out[which] = books->out[--books->out_count];
}

// One step with a disk that fails now and then.
static void step(struct sl_spool_store *store, struct books *books, unsigned *written)
{
	const int what = rand() % 10;

	reads_left = rand() % 4 ? INT_MAX : rand() % 4;
	if (what < 3 && *written < 60) {
		assert_int_equal(put(store, *written, 16 + (size_t)rand() % 200), 0);
		books->put += ++*written;
	} else if (what < 6) {
		struct sl_spool_read *read = sl_spool_store_next(store, rand() % 2);

		if (read)
			books->out[books->out_count++] = read;
	} else if (what < 9 && books->out_count) {
		end_one(store, books, (unsigned)rand() % books->out_count, rand() % 3);
	} else if (what == 9) {
		static uint64_t wall_ns = SL_S;

		wall_ns += (uint64_t)(rand() % 20) * SL_S;
		sl_spool_store_tick(store, wall_ns);
	}
	reads_left = INT_MAX;
}

static void test_random_use_of_a_disk_that_fails(void **state)
{
	const struct sl_spool_limits limits = {.bytes_max = SL_GIB, .segment_bytes = 700};

	(void)state;
	for (unsigned seed = 1; seed <= 100; seed++) {
		struct sl_spool_store *store = must_open(&limits);
		struct books books = {0};
		struct sl_spool_read *read;
		unsigned written = 0;

		srand(seed);
		for (unsigned i = 0; i < 400; i++) {
			step(store, &books, &written);
			check_books(store, &books);
		}
		while (books.out_count)
			end_one(store, &books, 0, false);
		check_books(store, &books);
		sl_spool_store_close(store);
		store = must_open(&limits); // a disk that is well again
		assert_int_equal(sl_spool_store_figures(store)->aside, 0);
		while ((read = sl_spool_store_next(store, false))) {
			books.out[books.out_count++] = read;
			end_one(store, &books, 0, true);
		}
		assert_int_equal(books.found, first(written));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_segment_that_the_disk_does_not_give),
		cmocka_unit_test(test_a_cursor_that_the_disk_does_not_give),
		cmocka_unit_test(test_a_disk_that_gives_nothing),
		cmocka_unit_test(test_the_disk_fails_later),
		cmocka_unit_test(test_what_is_gone_stays_gone),
		cmocka_unit_test(test_each_is_gone_once),
		cmocka_unit_test(test_the_disk_fails_what_is_out),
		cmocka_unit_test(test_a_segment_that_fails_and_stays),
		cmocka_unit_test(test_what_is_aside_takes_room),
		cmocka_unit_test(test_random_use_of_a_disk_that_fails),
		cmocka_unit_test(test_no_descriptors),
		cmocka_unit_test(test_a_segment_that_does_not_open),
		cmocka_unit_test(test_a_segment_that_cannot_be_put_aside),
	};

	return cmocka_run_group_tests(tests, begin, finish);
}
