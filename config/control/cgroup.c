#include "config/control/cgroup.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool read_text(const char *path, char *text, size_t size)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return false;
	got = read(fd, text, size - 1);
	close(fd);
	text[got > 0 ? got : 0] = 0;
	return got > 0;
}

// One group's limits: "max 100000" and "max" are none.
static void take(const char *folder, struct sl_cgroup_limits *limits)
{
	char path[PATH_MAX + 32], text[128];
	unsigned long long quota, period;

	snprintf(path, sizeof(path), "%s/cpu.max", folder);
	if (read_text(path, text, sizeof(text)) &&
	    sscanf(text, "%llu %llu", &quota, &period) == 2 && quota && period) {
		const double cpus = (double)quota / (double)period;

		limits->cpus = limits->cpus > 0 ? SL_MIN(limits->cpus, cpus) : cpus;
	}
	snprintf(path, sizeof(path), "%s/memory.max", folder);
	if (read_text(path, text, sizeof(text)) && sscanf(text, "%llu", &quota) == 1 && quota)
		limits->memory_bytes = limits->memory_bytes ? SL_MIN(limits->memory_bytes, quota)
							    : quota;
}

struct sl_cgroup_limits sl_cgroup_limits(const char *mount, const char *self)
{
	struct sl_cgroup_limits limits = {0};
	char folder[PATH_MAX], text[PATH_MAX];
	const size_t top = strlen(mount);
	char *group;

	if (!read_text(self, text, sizeof(text)))
		return limits;
	group = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
	if (!group)
		return limits;
	group += *group == '\n' ? 4 : 3;
	group[strcspn(group, "\n")] = 0;
	if ((size_t)snprintf(folder, sizeof(folder), "%s%s", mount, group) >= sizeof(folder))
		return limits;
	for (;;) {
		take(folder, &limits);

		char *slash = strrchr(folder, '/');

		if (!slash || (size_t)(slash - folder) < top)
			return limits;
		*slash = 0;
	}
}
