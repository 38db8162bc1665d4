#include "config/control/usage.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

struct writer {
	char *text;
	size_t size;
};

enum { CPU, VIRTUAL, RESIDENT, OPEN_FDS, MAX_FDS, START };

const struct sl_metric_row sl_usage_rows[SL_USAGE_ROWS] = {
	[CPU] = {.name = "process_cpu_seconds",
		 .help = "CPU time of all threads, user and system.",
		 .kind = SL_METRIC_COUNTER},
	[VIRTUAL] = {.name = "process_virtual_memory_bytes",
		     .help = "Address space in use.",
		     .kind = SL_METRIC_GAUGE},
	[RESIDENT] = {.name = "process_resident_memory_bytes",
		      .help = "Memory resident.",
		      .kind = SL_METRIC_GAUGE},
	[OPEN_FDS] = {.name = "process_open_fds",
		      .help = "Open file descriptors.",
		      .kind = SL_METRIC_GAUGE},
	[MAX_FDS] = {.name = "process_max_fds",
		     .help = "How many there may be.",
		     .kind = SL_METRIC_GAUGE},
	[START] = {.name = "process_start_time_seconds",
		   .help = "When the process began, since the epoch.",
		   .kind = SL_METRIC_GAUGE},
};

static void put(struct writer *writer, unsigned index, double value)
{
	const struct sl_metric_row *row = &sl_usage_rows[index];
	const bool counter = row->kind == SL_METRIC_COUNTER;
	const size_t room = SL_USAGE_TEXT_MAX - writer->size;
	const char *tail = counter ? "_total" : "";
	const int size = snprintf(writer->text + writer->size, room,
				  "# HELP %s%s %s\n# TYPE %s%s %s\n%s%s %.15g\n", row->name, tail,
				  row->help, row->name, tail, counter ? "counter" : "gauge",
				  row->name, tail, value);

	assert(size > 0 && (size_t)size < room);
	writer->size += (size_t)size;
}

// Two numbers of a line: "total resident" of statm.
static bool read_memory(unsigned long pages[2])
{
	FILE *file = fopen("/proc/self/statm", "re");
	const bool found = file && fscanf(file, "%lu %lu", &pages[0], &pages[1]) == 2;

	if (file)
		fclose(file);
	return found;
}

// The machine's start and, since then, ours in clock ticks (proc(5): field 22, behind a name that
// may hold blanks and brackets).
static double read_start(void)
{
	FILE *stat = fopen("/proc/self/stat", "re"), *system = fopen("/proc/stat", "re");
	char line[1024] = "", *at = NULL;
	unsigned long long began = 0, ticks = 0;

	if (stat && fgets(line, sizeof(line), stat))
		at = strrchr(line, ')');
	for (unsigned field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	if (at)
		sscanf(at, "%llu", &ticks);
	while (system && fgets(line, sizeof(line), system) &&
	       sscanf(line, "btime %llu", &began) != 1)
		;
	if (stat)
		fclose(stat);
	if (system)
		fclose(system);
	return began && ticks ? (double)began + (double)ticks / (double)sysconf(_SC_CLK_TCK) : 0;
}

static uint32_t count_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	uint32_t count = 0;

	if (!folder)
		return 0;
	for (const struct dirent *entry; (entry = readdir(folder));)
		count += entry->d_name[0] != '.';
	closedir(folder);
	return count - 1; // the folder's own
}

size_t sl_usage_metrics(char text[SL_USAGE_TEXT_MAX])
{
	struct writer writer = {.text = text};
	unsigned long pages[2];
	struct rusage usage;
	struct rlimit limit;
	const uint32_t descriptors = count_descriptors();
	const double start = read_start();

	if (getrusage(RUSAGE_SELF, &usage) == 0)
		put(&writer, CPU,
		    (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
			    (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	if (read_memory(pages)) {
		const double page = (double)sysconf(_SC_PAGESIZE);

		put(&writer, VIRTUAL, (double)pages[0] * page);
		put(&writer, RESIDENT, (double)pages[1] * page);
	}
	if (descriptors)
		put(&writer, OPEN_FDS, descriptors);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
		put(&writer, MAX_FDS, (double)limit.rlim_cur);
	if (start > 0)
		put(&writer, START, start);
	return writer.size;
}
