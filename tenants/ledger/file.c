#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tenants/ledger/internal.h"

// The ledger's file as it is found at start; sl_disk_replace() writes it, never in place.

static int read_file(const char *path, char **text, size_t *size)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat stat_;
	int failed = 0;

	if (fd < 0)
		return -errno;
	*text = NULL;
	*size = 0;
	if (fstat(fd, &stat_) < 0)
		failed = -errno;
	else if (!S_ISREG(stat_.st_mode))
		failed = -EISDIR;
	else if (!(*text = malloc((size_t)stat_.st_size + 1)))
		failed = -ENOMEM;
	while (!failed && *size < (size_t)stat_.st_size) {
		const ssize_t more = read(fd, *text + *size, (size_t)stat_.st_size - *size);

		if (more < 0 && errno != EINTR)
			failed = -errno;
		else if (more == 0)
			break; // shorter than it was: its checksum tells
		else if (more > 0)
			*size += (size_t)more;
	}
	close(fd);
	if (failed)
		free(*text);
	return failed;
}

int sl_ledger_lock(struct sl_ledger *ledger, const char *path, char why[SL_DISK_WHY])
{
	char lock[PATH_MAX];

	if (snprintf(lock, sizeof(lock), "%s.lock", path) >= (int)sizeof(lock)) {
		snprintf(why, SL_DISK_WHY, "%s", strerror(ENAMETOOLONG));
		return -ENAMETOOLONG;
	}
	ledger->file_lock = sl_disk_lock(lock, why);
	return SL_MIN(ledger->file_lock, 0);
}

int sl_ledger_load(struct sl_ledger *ledger, const char *path, uint64_t wall_ns, char *error,
		   size_t error_size)
{
	char aside[PATH_MAX], *text;
	size_t size;
	int failed = read_file(path, &text, &size);

	if (failed)
		return failed == -ENOENT ? 0 : failed;
	failed = sl_ledger_read(ledger, sl_bytes(text, size), error, error_size);
	free(text);
	if (failed != -EINVAL)
		return failed ? failed : 1;
	if (snprintf(aside, sizeof(aside), "%s.refused-%llu", path,
		     (unsigned long long)(wall_ns / SL_MS)) >= (int)sizeof(aside))
		return -ENAMETOOLONG;
	return rename(path, aside) < 0 ? -errno : -EINVAL;
}
