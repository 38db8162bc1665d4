// A spool and its thread, as a shard's side sees them.

#include "tests/unit/test.h"

#include <dirent.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "routing/spool/spool.h"

static char folder[64];

static int begin(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/sluice-spool-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int finish(void **state)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	char path[PATH_MAX];

	(void)state;
	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		unlink(path);
	}
	if (dir)
		closedir(dir);
	return rmdir(folder);
}

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

	if (!sl_spool_side_take(side, &record, false, UINT64_MAX))
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
	const struct sl_spool_config wide = {.path = folder,
					     .bytes_max = SL_MIB,
					     .segment_bytes = SL_MIB,
					     .fsync = SL_SPOOL_FSYNC_NEVER};
	struct sl_spool_config narrow = wide;
	struct sl_errors *errors = sl_errors_create();
	struct sl_spool *spool, *same;
	struct sl_spool_side *side;
	struct sl_waker waker;

	(void)state;
	narrow.bytes_max = 100;
	assert_int_equal(sl_waker_init(&waker), 0);
	spool = sl_spool_get(&wide, errors);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_settings_hold_once_they_are_in_force),
	};

	return cmocka_run_group_tests(tests, begin, finish);
}
