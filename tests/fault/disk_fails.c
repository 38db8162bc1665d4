// Loaded before the C library: while the file that SYNC_FAILS names is there, nothing reaches the
// disk; while the one that READ_FAILS names is there, no file comes from it whose name begins with
// what it holds.

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int sync_by(const char *name, int fd)
{
	int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
	const char *flag = getenv("SYNC_FAILS");

	if (!flag || access(flag, F_OK) < 0)
		return real(fd);
	errno = EIO;
	return -1;
}

int fsync(int fd)
{
	return sync_by("fsync", fd);
}

int fdatasync(int fd)
{
	return sync_by("fdatasync", fd);
}

static bool is_sick(int fd)
{
	const char *flag = getenv("READ_FAILS"), *name;
	char sick[64] = "", link[64], path[4096] = "";
	const int told = flag ? open(flag, O_RDONLY | O_CLOEXEC) : -1;
	ssize_t got;

	if (told < 0)
		return false;
	got = read(told, sick, sizeof(sick) - 1);
	close(told);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (got <= 0 || readlink(link, path, sizeof(path) - 1) < 0)
		return false;
	name = strrchr(path, '/');
	return name && strncmp(name + 1, sick, strlen(sick)) == 0;
}

ssize_t pread(int fd, void *to, size_t size, off_t at)
{
	ssize_t (*real)(int, void *, size_t,
			off_t) = (ssize_t(*)(int, void *, size_t, off_t))dlsym(RTLD_NEXT, "pread");

	if (!is_sick(fd))
		return real(fd, to, size, at);
	errno = EIO;
	return -1;
}
