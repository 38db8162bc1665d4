#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dataplane/io/dpdk/stack.h"

// The loader shares an object by its inode: a memfd for each copy keeps their globals apart.
extern const uint8_t sl_stack_image[], sl_stack_image_end[];

static bool write_all(int fd, const uint8_t *data, size_t size)
{
	while (size) {
		const ssize_t done = write(fd, data, size);

		if (done <= 0)
			return false;
		data += done;
		size -= (size_t)done;
	}
	return true;
}

const struct sl_stack_ops *sl_stack_load(char *error, size_t error_size)
{
	const struct sl_stack_ops *ops = NULL;
	char path[64];
	void *object;
	const int fd = memfd_create("lwip", MFD_CLOEXEC);

	if (fd < 0 ||
	    !write_all(fd, sl_stack_image, (size_t)(sl_stack_image_end - sl_stack_image))) {
		snprintf(error, error_size, "a copy of the TCP/IP stack: %s", strerror(errno));
		goto end;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	ops = object ? dlsym(object, SL_STACK_SYMBOL) : NULL;
	if (!ops)
		snprintf(error, error_size, "a copy of the TCP/IP stack: %s", dlerror());
end:
	// The loader also knows an object by its path: one that works keeps its descriptor.
	if (fd >= 0 && !ops)
		close(fd);
	return ops;
}
