// Loaded before the C library: while the file that SYNC_FAILS names is there, nothing reaches the
// disk.

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
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
