#include "tests/unit/test.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dataplane/base/disk.h"

// A file is replaced as a whole, or stays.

static char folder[64], path[96], fresh[104];

static int begin(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/sluice-disk-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/file", folder);
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	return 0;
}

static int finish(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(folder); // nothing else was left
}

static void check_content(const char *want)
{
	char text[32] = "";
	FILE *file = fopen(path, "re");

	assert_non_null(file);
	assert_int_equal(fread(text, 1, sizeof(text) - 1, file), strlen(want));
	assert_string_equal(text, want);
	fclose(file);
}

static void test_replaced(void **state)
{
	struct stat found;

	(void)state;
	assert_int_equal(sl_disk_replace(path, SL_LITERAL("first")), 0);
	check_content("first");
	assert_int_equal(stat(path, &found), 0);
	assert_int_equal(found.st_mode & 0777, 0600);
	assert_int_equal(sl_disk_replace(path, SL_LITERAL("2nd")), 0);
	check_content("2nd");
	assert_int_equal(sl_disk_replace(path, SL_BYTES_NONE), 0);
	check_content("");
}

static void test_stays(void **state)
{
	(void)state;
	assert_int_equal(sl_disk_replace(path, SL_LITERAL("first")), 0);
	assert_int_equal(mkdir(fresh, 0700), 0); // in the way
	assert_int_equal(sl_disk_replace(path, SL_LITERAL("2nd")), -EISDIR);
	check_content("first");
	assert_int_equal(rmdir(fresh), 0);
	assert_int_equal(sl_disk_replace("/nowhere/at/all", SL_LITERAL("x")), -ENOENT);
	assert_int_equal(sl_disk_sync_folder(path), -ENOTDIR);
	assert_int_equal(sl_disk_sync_folder(folder), 0);
}

// Who has it is told; it is free again when that one is gone, even by SIGKILL.
static void test_locked(void **state)
{
	char why[SL_DISK_WHY] = "", want[SL_DISK_WHY];
	int ready[2], fd;
	pid_t child;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (child == 0) {
		char theirs[SL_DISK_WHY];

		alarm(60); // should the test not come to its end
		if (sl_disk_lock(path, theirs) < 0 || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_true(child > 0);
	assert_int_equal(read(ready[0], want, 1), 1);
	assert_int_equal(sl_disk_lock(path, why), -EBUSY);
	snprintf(want, sizeof(want), "another process has it: %d", (int)child);
	assert_string_equal(why, want);
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, NULL, 0), child);
	fd = sl_disk_lock(path, why);
	assert_true(fd >= 0);
	assert_int_equal(sl_disk_lock(path, why), -EBUSY); // nor twice of one process
	close(fd);
	close(ready[0]);
	close(ready[1]);
	assert_int_equal(sl_disk_lock("/nowhere/at/all", why), -ENOENT);
	assert_string_equal(why, "No such file or directory");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_replaced),
		cmocka_unit_test(test_stays),
		cmocka_unit_test(test_locked),
	};

	return cmocka_run_group_tests(tests, begin, finish);
}
