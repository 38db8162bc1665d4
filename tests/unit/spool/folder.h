#pragma once

#include "tests/unit/test.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// A folder of the test's own for a spool: a group's set-up and tear-down.

static char folder[64];

static inline void empty_folder(void)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	char path[PATH_MAX];

	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		unlink(path);
	}
	if (dir)
		closedir(dir);
}

static inline int begin(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/sluice-spool-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static inline int finish(void **state)
{
	(void)state;
	empty_folder();
	return rmdir(folder);
}
