// Entries go in and come out in order, whatever happens to the files between: every length at which
// a tail can be torn, a flip of every byte, a disk that is full, and random use against a model.

#include "tests/unit/spool/entries.h"

#include <signal.h>
#include <sys/resource.h>

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

#define ENTRIES 6

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

// An old one whose segment is kept for newer ones is dropped when its turn comes, though it was put
// there last.
static void test_too_old_among_others(void **state)
{
	const struct sl_spool_limits limits = {
		.bytes_max = SL_GIB, .segment_bytes = SL_MIB, .age_max_ns = 1000};
	struct sl_spool_store *store = must_open(&limits);
	const struct sl_spool_figures *figures = sl_spool_store_figures(store);
	struct sl_spool_read *read;

	(void)state;
	for (unsigned i = 0; i < 6; i++) // of 1000 to 1005 ns
		assert_int_equal(put(store, i, 80), 0);
	assert_non_null(read = sl_spool_store_next(store, false));
	sl_spool_store_end(store, read->slot, false); // it came back
	free(read);
	assert_int_equal(put(store, 0, 80), 0); // as one that is put last
	sl_spool_store_tick(store, 2003);
	assert_int_equal(figures->dropped_items[0] + figures->dropped_items[1], 0);
	assert_int_equal(drain(store), first(6) & ~first(3));
	assert_int_equal(figures->dropped_items[0], 1 + 1);
	assert_int_equal(figures->dropped_items[1], 2);
	assert_int_equal(figures->dropped_items[2], 3);
	for (unsigned i = 0; i < SL_SIGNALS; i++)
		assert_int_equal(figures->items[i], 0);
	sl_spool_store_tick(store, 2003);
	assert_int_equal(figures->bytes, 0);
	sl_spool_store_close(store);
	empty_folder();
}

// What does not fit changes nothing: a smaller one goes on in the segment that was appended to.
static void test_no_room_changes_nothing(void **state)
{
	const struct sl_spool_limits limits = {.bytes_max = 600, .segment_bytes = 250};
	struct sl_spool_store *store = must_open(&limits);
	struct sl_spool_read *read;
	uint64_t before;

	(void)state;
	assert_int_equal(put(store, 0, 200), 0);
	assert_int_equal(put(store, 1, 60), 0);
	before = sl_spool_store_figures(store)->bytes;
	assert_int_equal(put(store, 2, 170), -ENOSPC);
	assert_int_equal(put(store, 2, 20), 0);
	assert_int_equal(sl_spool_store_figures(store)->bytes, // no segment was begun for it
			 before + SL_SPOOL_ENTRY_HEAD + strlen("tenant") + 20);
	// All that is out of the one that is appended to makes room at once.
	while ((read = sl_spool_store_next(store, false))) {
		sl_spool_store_end(store, read->slot, true);
		free(read);
	}
	assert_int_equal(put(store, 3, 450), 0);
	assert_int_equal(drain(store), 1 << 3);
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
		cmocka_unit_test(test_descriptors_are_few),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_dropped_while_out),
		cmocka_unit_test(test_age),
		cmocka_unit_test(test_too_old),
		cmocka_unit_test(test_too_old_among_others),
		cmocka_unit_test(test_no_room_changes_nothing),
		cmocka_unit_test(test_no_space_in_the_middle),
		cmocka_unit_test(test_random_use),
	};

	return cmocka_run_group_tests(tests, begin, finish);
}
