#include "dataplane/base/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES 4096

int sl_disk_write(int fd, struct iovec *pieces, size_t count)
{
	while (count) {
		ssize_t wrote = writev(fd, pieces, (int)SL_MIN(count, (size_t)IOV_MAX));

		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote < 0)
			return -errno;
		for (; count && (size_t)wrote >= pieces->iov_len; pieces++, count--)
			wrote -= (ssize_t)pieces->iov_len;
		if (count) {
			pieces->iov_base = (char *)pieces->iov_base + wrote;
			pieces->iov_len -= (size_t)wrote;
		}
	}
	return 0;
}

int sl_disk_sync_folder(const char *folder)
{
	const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const int failed = fd < 0 || fsync(fd) < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return failed;
}

static int write_file(const char *path, struct sl_bytes bytes)
{
	struct iovec piece = {(void *)(uintptr_t)bytes.data, bytes.size};
	const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int failed;

	if (fd < 0)
		return -errno;
	failed = sl_disk_write(fd, &piece, 1);
	if (!failed && fsync(fd) < 0)
		failed = -errno;
	if (close(fd) < 0 && !failed)
		failed = -errno;
	return failed;
}

int sl_disk_replace(const char *path, struct sl_bytes bytes)
{
	char fresh[PATH_BYTES];
	int failed;

	if (snprintf(fresh, sizeof(fresh), "%s.new", path) >= (int)sizeof(fresh))
		return -ENAMETOOLONG;
	failed = write_file(fresh, bytes);
	if (!failed && rename(fresh, path) < 0)
		failed = -errno;
	if (failed) {
		unlink(fresh);
		return failed;
	}
	return sl_disk_sync_folder(dirname(fresh));
}

int sl_disk_make_folders(char *path)
{
	for (char *at = path + 1; *at; at++) {
		if (*at != '/')
			continue;
		*at = 0;
		if (mkdir(path, 0755) < 0 && errno != EEXIST) {
			*at = '/';
			return -errno;
		}
		*at = '/';
	}
	return mkdir(path, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

int sl_disk_look(const char *path)
{
	char folder[PATH_BYTES];
	struct stat found;
	size_t size;

	if (strlen(path) >= sizeof(folder))
		return -ENAMETOOLONG;
	strcpy(folder, path);
	while (stat(folder, &found) < 0) {
		if (errno != ENOENT)
			return -errno;
		size = strlen(folder);
		while (size > 1 && folder[--size] != '/')
			;
		folder[size ? size : 1] = '\0';
	}
	if (!S_ISDIR(found.st_mode))
		return -ENOTDIR;
	return access(folder, W_OK | X_OK) < 0 ? -errno : 0;
}

int sl_disk_lock(const char *path, char why[SL_DISK_WHY])
{
	const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int failed = fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
	char text[16] = "";

	if (!failed) {
		dprintf(fd, "%-10d\n", (int)getpid()); // for whoever comes; a full disk matters not
		return fd;
	}
	if (failed != -EWOULDBLOCK) {
		snprintf(why, SL_DISK_WHY, "%s", strerror(-failed));
	} else {
		failed = -EBUSY;
		if (pread(fd, text, sizeof(text) - 1, 0) <= 0)
			text[0] = '\0';
		snprintf(why, SL_DISK_WHY, "another process has it: %d", atoi(text));
	}
	if (fd >= 0)
		close(fd);
	return failed;
}
