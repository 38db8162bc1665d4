// A spool and its thread, as a shard's side sees them.

#include "tests/unit/spool/folder.h"

#include <poll.h>
#include <pthread.h>
#include <sys/stat.h>

#include "dataplane/base/clock.h"
#include "routing/spool/spool.h"

static const struct sl_spool_config plain = {
	.path = folder,
	.bytes_max = SL_MIB,
	.segment_bytes = SL_MIB,
	.fsync = SL_SPOOL_FSYNC_NEVER,
};

// Hands a record over and waits for what becomes of it.
static bool is_kept(struct sl_spool_side *side, struct sl_waker *waker)
{
	static char body[200];
	struct iovec piece = {body, sizeof(body)};
	struct sl_record record = {
		.signal = SL_TRACES,
		.items = 1,
		.bytes = sizeof(body),
		.pieces = &piece,
		.piece_count = 1,
		.tenant_name = SL_LITERAL("tenant"),
	};
	struct pollfd wait = {.fd = waker->fd, .events = POLLIN};
	bool kept = false;

	if (!sl_spool_side_take(side, &record, false, NULL, UINT64_MAX))
		return false;
	sl_spool_side_flush(side);
	while (!sl_spool_side_confirmed(side, &kept)) {
		poll(&wait, 1, 1000);
		sl_waker_clear(waker);
	}
	return kept;
}

// A reload makes its destinations before it is known whether it will be in force: until it is, the
// spool is held to what it was.
static void test_settings_hold_once_they_are_in_force(void **state)
{
	struct sl_spool_config narrow = plain;
	struct sl_errors *errors = sl_errors_create();
	struct sl_spool *spool, *same;
	struct sl_spool_side *side;
	struct sl_waker waker;

	(void)state;
	narrow.bytes_max = 100;
	assert_int_equal(sl_waker_init(&waker), 0);
	spool = sl_spool_get(&plain, errors);
	assert_non_null(spool);
	side = sl_spool_side_open(spool, &waker);
	sl_spool_side_retire(side, true); // nothing comes out
	assert_true(is_kept(side, &waker));
	same = sl_spool_get(&narrow, errors);
	assert_ptr_equal(same, spool);
	for (unsigned i = 0; i < 20; i++)
		assert_true(is_kept(side, &waker));
	sl_spool_put(same); // the reload was refused
	assert_true(is_kept(side, &waker));
	sl_spool_configure(spool, &narrow);
	// The thread may be at work with the old ones this moment.
	for (unsigned i = 0; is_kept(side, &waker); i++)
		assert_true(i < 1000);
	sl_spool_side_close(side);
	sl_spool_put(spool);
	sl_waker_fini(&waker);
	sl_errors_destroy(errors);
}

// The next replay; NULL: none came for long.
static struct sl_spool_replay *next_replay(struct sl_spool_side *side, struct sl_waker *waker)
{
	struct sl_spool_replay *replay;
	struct pollfd wait = {.fd = waker->fd, .events = POLLIN};

	for (unsigned i = 0; !(replay = sl_spool_side_replay(side)) && i < 100; i++) {
		poll(&wait, 1, 100);
		sl_waker_clear(waker);
	}
	return replay;
}

static void end(struct sl_spool_side *side, struct sl_spool_replay *replay, enum sl_spool_end how)
{
	sl_spool_side_end(replay, how);
	sl_spool_side_flush(side);
}

// A reload closes the side that replays are out with, or wait for: they come again, at once and
// together, as from a destination that takes them.
static void test_what_was_not_tried_is_no_failure(void **state)
{
	struct sl_errors *errors = sl_errors_create();
	struct sl_spool *spool = sl_spool_get(&plain, errors);
	struct sl_spool_replay *out[6];
	struct sl_spool_side *side, *other;
	struct sl_waker waker;

	(void)state;
	assert_int_equal(sl_waker_init(&waker), 0);
	side = sl_spool_side_open(spool, &waker);
	sl_spool_side_retire(side, true);
	for (unsigned i = 0; i < 1 + SL_COUNT_OF(out); i++)
		assert_true(is_kept(side, &waker));
	sl_spool_side_retire(side, false);
	assert_non_null(out[0] = next_replay(side, &waker));
	end(side, out[0], SL_SPOOL_END_GONE);
	assert_non_null(out[0] = next_replay(side, &waker));
	assert_non_null(out[1] = next_replay(side, &waker)); // the others stay in the ring
	end(side, out[0], SL_SPOOL_END_UNTRIED);
	end(side, out[1], SL_SPOOL_END_UNTRIED);
	sl_spool_side_close(side);
	other = sl_spool_side_open(spool, &waker);
	for (unsigned i = 0; i < SL_COUNT_OF(out); i++)
		assert_non_null(out[i] = next_replay(other, &waker));
	for (unsigned i = 0; i < SL_COUNT_OF(out); i++)
		end(other, out[i], SL_SPOOL_END_GONE);
	sl_spool_side_close(other);
	sl_spool_put(spool);
	sl_waker_fini(&waker);
	sl_errors_destroy(errors);
}

#define TOLD 40 // times

// Whoever passes the news on is woken for them, whichever side made them; nobody else is.
static void test_who_tells_is_woken(void **state)
{
	struct sl_errors *errors = sl_errors_create();
	struct sl_spool *spool;
	struct sl_spool_side *sides[3];
	struct sl_waker wakers[3];
	struct sl_spool_news news;
	uint64_t began_ns;

	(void)state;
	empty_folder(); // else one may come out before its side is retired
	spool = sl_spool_get(&plain, errors);
	assert_non_null(spool);
	for (unsigned i = 0; i < SL_COUNT_OF(sides); i++) {
		assert_int_equal(sl_waker_init(&wakers[i]), 0);
		sides[i] = sl_spool_side_open(spool, &wakers[i]);
		sl_spool_side_retire(sides[i], true);
		while (i == 0 && !sl_spool_side_news(sides[i], &news))
			; // its thread has the lock this moment
	}
	began_ns = sl_clock_now_ns();
	for (unsigned i = 0; i < TOLD; i++) {
		struct pollfd wait = {.fd = wakers[0].fd, .events = POLLIN};
		uint64_t had = news.items[SL_TRACES];

		assert_true(is_kept(sides[1], &wakers[1]));
		while (news.items[SL_TRACES] == had) {
			assert_int_equal(poll(&wait, 1, 5000), 1);
			sl_waker_clear(&wakers[0]);
			sl_spool_side_news(sides[0], &news);
		}
	}
	// Not by the thread's tick, which comes once a second.
	assert_true(sl_clock_now_ns() - began_ns < TOLD * SL_S / 2);
	assert_int_equal(__atomic_load_n(&wakers[2].pending, __ATOMIC_RELAXED), 0);
	for (unsigned i = 0; i < SL_COUNT_OF(sides); i++) {
		sl_spool_side_close(sides[i]);
		sl_waker_fini(&wakers[i]);
	}
	sl_spool_put(spool);
	sl_errors_destroy(errors);
}

// A disk that takes its time to sync, for the spool that syncs now and then.
static uint32_t syncing, hangs;
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

int __wrap_fdatasync(int fd)
{
	__atomic_store_n(&syncing, 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(&hangs, __ATOMIC_ACQUIRE))
		usleep(1000);
	return __real_fdatasync(fd);
}

static void *put_later(void *spool)
{
	sl_spool_put(spool);
	return NULL;
}

static void test_a_disk_that_hangs_holds_up_its_own_spool(void **state)
{
	char path[80], again[80], locked[80];
	const struct sl_spool_config slow = {.path = folder,
					     .bytes_max = SL_MIB,
					     .segment_bytes = SL_MIB,
					     .fsync = SL_SPOOL_FSYNC_INTERVAL,
					     .fsync_interval_ns = SL_MS},
				     other = {.path = path,
					      .bytes_max = SL_MIB,
					      .segment_bytes = SL_MIB};
	struct sl_errors *errors = sl_errors_create();
	struct sl_spool *spool = sl_spool_get(&slow, errors), *quick;
	struct sl_spool_side *side;
	struct sl_waker waker;
	pthread_t thread;

	(void)state;
	snprintf(path, sizeof(path), "%s/other", folder);
	snprintf(again, sizeof(again), "%s/other/cursor", folder);
	snprintf(locked, sizeof(locked), "%s/other/lock", folder);
	assert_int_equal(sl_waker_init(&waker), 0);
	side = sl_spool_side_open(spool, &waker);
	sl_spool_side_retire(side, true);
	hangs = 1;
	syncing = 0;
	assert_true(is_kept(side, &waker));
	while (!__atomic_load_n(&syncing, __ATOMIC_ACQUIRE))
		usleep(1000);
	sl_spool_side_close(side);
	assert_int_equal(pthread_create(&thread, NULL, put_later, spool), 0);
	usleep(50000); // it waits for the disk by then
	alarm(30);     // where this would wait for it, too
	quick = sl_spool_get(&other, errors);
	assert_non_null(quick);
	sl_spool_put(quick);
	alarm(0);
	__atomic_store_n(&hangs, 0, __ATOMIC_RELEASE);
	// The same folder is waited for.
	spool = sl_spool_get(&slow, errors);
	assert_non_null(spool);
	pthread_join(thread, NULL);
	sl_spool_put(spool);
	sl_waker_fini(&waker);
	sl_errors_destroy(errors);
	unlink(again);
	unlink(locked);
	rmdir(path);
}

// Left by another process, items are found; left by this one, they are what it has spooled.
static void test_what_it_left_itself_is_not_found(void **state)
{
	struct sl_errors *errors = sl_errors_create();
	struct sl_waker waker;
	uint64_t found = 0;

	(void)state;
	empty_folder();
	assert_int_equal(sl_waker_init(&waker), 0);
	for (unsigned i = 0; i < 3; i++) {
		struct sl_spool *spool = sl_spool_get(&plain, errors);
		struct sl_spool_side *side;
		struct sl_spool_news news;

		assert_non_null(spool);
		side = sl_spool_side_open(spool, &waker);
		sl_spool_side_retire(side, true);
		while (!sl_spool_side_news(side, &news))
			;
		found += news.recovered_items[SL_TRACES];
		for (unsigned j = 0; j < 2; j++)
			assert_true(is_kept(side, &waker));
		sl_spool_side_close(side);
		sl_spool_put(spool);
	}
	assert_int_equal(found, 0); // all of it was spooled here
	sl_waker_fini(&waker);
	sl_errors_destroy(errors);
}

// --- shards under reloads ------------------------------------------------------------------------

#define SHARDS 3
#define ROUNDS 40 // sides that each opens, one after the other
#define EACH   8  // records a side hands over

struct shard {
	struct sl_spool *spool;
	pthread_t thread;
	struct sl_waker waker;
	uint64_t kept, came, gone;
};

// As an egress does at its end: what it has is confirmed, and what came out is given back.
static void let_go(struct shard *shard, struct sl_spool_side *side, unsigned given)
{
	struct pollfd wait = {.fd = shard->waker.fd, .events = POLLIN};
	struct sl_spool_replay *replay;
	bool kept;

	for (;;) {
		sl_waker_clear(&shard->waker);
		while (given && sl_spool_side_confirmed(side, &kept)) {
			given--;
			shard->kept += kept;
		}
		while ((replay = sl_spool_side_replay(side))) {
			const bool gone = shard->came++ % 4 == 0;

			shard->gone += gone;
			sl_spool_side_end(replay, gone ? SL_SPOOL_END_GONE : SL_SPOOL_END_UNTRIED);
		}
		sl_spool_side_flush(side);
		if (!given)
			break;
		poll(&wait, 1, 1000);
	}
	sl_spool_side_close(side);
}

static void *open_and_close(void *argument)
{
	static char body[64];
	struct shard *shard = argument;
	struct iovec piece = {body, sizeof(body)};

	for (unsigned round = 0; round < ROUNDS; round++) {
		struct sl_spool_side *side = sl_spool_side_open(shard->spool, &shard->waker);
		struct sl_record records[EACH];
		struct sl_spool_news news;

		assert_non_null(side);
		for (unsigned i = 0; i < EACH; i++) {
			records[i] = (struct sl_record){.signal = SL_LOGS,
							.items = 1,
							.bytes = sizeof(body),
							.pieces = &piece,
							.piece_count = 1,
							.tenant_name = SL_LITERAL("tenant")};
			assert_true(sl_spool_side_take(side, &records[i], false, NULL, UINT64_MAX));
		}
		sl_spool_side_flush(side);
		sl_spool_side_news(side, &news);
		let_go(shard, side, EACH);
	}
	return NULL;
}

// Sides come and go on three threads while a fourth gets, configures and puts the spool: what was
// kept is gone or comes out in the end.
static void test_sides_open_and_close_under_reloads(void **state)
{
	struct sl_spool_config config = {.path = folder,
					 .bytes_max = 64 * SL_MIB,
					 .segment_bytes = SL_MIB,
					 .fsync = SL_SPOOL_FSYNC_NEVER};
	struct sl_errors *errors = sl_errors_create();
	struct sl_spool *spool;
	struct shard shards[SHARDS] = {0};
	struct sl_spool_side *side;
	struct sl_spool_replay *replay;
	uint64_t kept = 0, gone = 0;

	(void)state;
	empty_folder(); // of what the tests before have left
	spool = sl_spool_get(&config, errors);
	assert_non_null(spool);
	for (unsigned i = 0; i < SHARDS; i++)
		assert_int_equal(sl_waker_init(&shards[i].waker), 0);
	for (unsigned i = 0; i < SHARDS; i++) {
		shards[i].spool = spool;
		assert_int_equal(
			pthread_create(&shards[i].thread, NULL, open_and_close, &shards[i]), 0);
	}
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct sl_spool *same = sl_spool_get(&config, errors);

		assert_ptr_equal(same, spool);
		config.fsync_interval_ns = SL_MS * (1 + i);
		sl_spool_configure(same, &config);
		sl_spool_put(same);
		usleep(500);
	}
	for (unsigned i = 0; i < SHARDS; i++) {
		pthread_join(shards[i].thread, NULL);
		kept += shards[i].kept;
		gone += shards[i].gone;
	}
	assert_int_equal(kept, SHARDS * ROUNDS * EACH);
	side = sl_spool_side_open(spool, &shards[0].waker);
	for (; gone < kept; gone++) {
		assert_non_null(replay = next_replay(side, &shards[0].waker));
		end(side, replay, SL_SPOOL_END_GONE);
	}
	while (sl_spool_side_is_behind(side))
		usleep(1000); // nothing is left
	assert_null(sl_spool_side_replay(side));
	sl_spool_side_close(side);
	sl_spool_put(spool);
	for (unsigned i = 0; i < SHARDS; i++)
		sl_waker_fini(&shards[i].waker);
	sl_errors_destroy(errors);
}

// Times that threads of this process waited.
static unsigned waits(void)
{
	DIR *dir = opendir("/proc/self/task");
	struct dirent *entry;
	unsigned sum = 0;

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		char path[PATH_MAX], line[200];
		unsigned count;
		FILE *file;

		snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
		file = fopen(path, "r");
		while (file && fgets(line, sizeof(line), file)) {
			if (sscanf(line, "voluntary_ctxt_switches: %u", &count) == 1)
				sum += count;
		}
		if (file)
			fclose(file);
	}
	closedir(dir);
	return sum;
}

// With nothing on disk its thread waits for its tick.
static void test_idle(void **state)
{
	const struct sl_spool_config config = {
		.path = folder, .bytes_max = SL_MIB, .segment_bytes = SL_MIB};
	struct sl_errors *errors = sl_errors_create();
	struct sl_spool *spool = sl_spool_get(&config, errors);
	unsigned before;

	(void)state;
	assert_non_null(spool);
	usleep(20000);
	before = waits();
	usleep(300000);
	assert_in_range(waits() - before, 1, 20);
	sl_spool_put(spool);
	sl_errors_destroy(errors);
}

// Another process, here by another way to the folder: it is told who has it. A reload that keeps
// the path keeps the lock.
static void test_one_process_at_a_time(void **state)
{
	char path[80], want[64];
	struct sl_spool_config config = plain;
	struct sl_errors *errors = sl_errors_create();
	struct sl_spool *spool = sl_spool_get(&plain, errors), *same;

	(void)state;
	config.path = path;
	snprintf(path, sizeof(path), "%s/.", folder);
	snprintf(want, sizeof(want), "another process has it: %d", (int)getpid());
	assert_null(sl_spool_get(&config, errors));
	assert_non_null(strstr(sl_errors_line(errors, 0), want));
	same = sl_spool_get(&plain, errors);
	sl_spool_put(spool);
	assert_null(sl_spool_get(&config, errors));
	sl_spool_put(same);
	spool = sl_spool_get(&config, errors);
	assert_non_null(spool);
	sl_spool_put(spool);
	sl_errors_destroy(errors);
}

// Of what comes together, that has no room which has none; what is smaller is taken meanwhile.
static void test_full_for_what_does_not_fit(void **state)
{
	static const struct {
		size_t bytes;
		bool kept;
	} rows[] = {{100, true}, {3000, false}, {200, true}, {2500, false}, {100, true}};
	static char body[3000];
	struct sl_spool_config narrow = plain;
	struct sl_errors *errors = sl_errors_create();
	struct sl_record records[SL_COUNT_OF(rows)], *record;
	struct iovec pieces[SL_COUNT_OF(rows)];
	struct sl_spool *spool;
	struct sl_spool_side *side;
	struct sl_waker waker;
	unsigned left = SL_COUNT_OF(rows);

	(void)state;
	empty_folder();
	narrow.bytes_max = 3000;
	assert_int_equal(sl_waker_init(&waker), 0);
	spool = sl_spool_get(&narrow, errors);
	assert_non_null(spool);
	side = sl_spool_side_open(spool, &waker);
	sl_spool_side_retire(side, true);
	for (unsigned i = 0; i < 5; i++)
		assert_true(is_kept(side, &waker)); // 200 bytes each
	for (unsigned i = 0; i < SL_COUNT_OF(rows); i++) {
		pieces[i] = (struct iovec){body, rows[i].bytes};
		records[i] = (struct sl_record){.signal = SL_TRACES,
						.items = 1,
						.bytes = rows[i].bytes,
						.pieces = &pieces[i],
						.piece_count = 1,
						.tenant_name = SL_LITERAL("tenant")};
		assert_true(sl_spool_side_take(side, &records[i], false, NULL, UINT64_MAX));
	}
	sl_spool_side_flush(side);
	while (left) {
		struct pollfd wait = {.fd = waker.fd, .events = POLLIN};
		bool kept;

		while ((record = sl_spool_side_confirmed(side, &kept))) {
			assert_int_equal(kept, rows[record - records].kept);
			left--;
		}
		poll(&wait, 1, 100);
		sl_waker_clear(&waker);
	}
	// At time 0 it is the moment after: what is as large is not even handed over.
	assert_false(sl_spool_side_take(side, &records[1], false, NULL, 0));
	assert_true(sl_spool_side_take(side, &records[0], false, NULL, 0));
	sl_spool_side_flush(side);
	while (!sl_spool_side_confirmed(side, &(bool){false}))
		usleep(1000);
	sl_spool_side_close(side);
	sl_spool_put(spool);
	sl_waker_fini(&waker);
	sl_errors_destroy(errors);
	empty_folder();
}

// What the disk does not give makes its own spool refuse, and is tried again.
static void test_a_folder_that_cannot_be_opened(void **state)
{
	struct sl_errors *errors = sl_errors_create();
	struct sl_spool *spool;
	struct sl_spool_side *side;
	struct sl_spool_news news = {0};
	struct sl_waker waker;
	char path[80], kept[80];

	(void)state;
	empty_folder();
	snprintf(path, sizeof(path), "%s/cursor", folder);
	snprintf(kept, sizeof(kept), "%s/cursor.unread", folder);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(mkdir(kept, 0700), 0); // it cannot even be put aside
	assert_int_equal(sl_waker_init(&waker), 0);
	spool = sl_spool_get(&plain, errors);
	assert_non_null(spool);
	assert_int_equal(sl_errors_count(errors), 0);
	side = sl_spool_side_open(spool, &waker);
	sl_spool_side_retire(side, true);
	assert_false(is_kept(side, &waker));
	while (!sl_spool_side_news(side, &news))
		;
	assert_true(news.refusing);
	assert_false(sl_spool_side_is_behind(side));
	assert_int_equal(rmdir(kept), 0);
	alarm(60);
	while (!is_kept(side, &waker))
		usleep(10000);
	do
		while (!sl_spool_side_news(side, &news))
			;
	while (news.refusing || !news.items[SL_TRACES]);
	alarm(0);
	sl_spool_side_close(side);
	sl_spool_put(spool);
	sl_waker_fini(&waker);
	sl_errors_destroy(errors);
	assert_int_equal(rmdir(kept), 0);
	empty_folder();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_settings_hold_once_they_are_in_force),
		cmocka_unit_test(test_what_was_not_tried_is_no_failure),
		cmocka_unit_test(test_a_disk_that_hangs_holds_up_its_own_spool),
		cmocka_unit_test(test_who_tells_is_woken),
		cmocka_unit_test(test_what_it_left_itself_is_not_found),
		cmocka_unit_test(test_sides_open_and_close_under_reloads),
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_one_process_at_a_time),
		cmocka_unit_test(test_full_for_what_does_not_fit),
		cmocka_unit_test(test_a_folder_that_cannot_be_opened),
	};

	return cmocka_run_group_tests(tests, begin, finish);
}
