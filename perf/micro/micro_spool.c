// What a spool writes and reads a second, beside plain writes of the same bytes to the same folder:
// micro_spool [FOLDER ...]. Groups of 32 entries of 100 spans each, a sync after so many groups.

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "perf/micro/micro.h"
#include "perf/payload.h"
#include "routing/spool/store.h"

#define GROUP  32
#define GROUPS 300 // some 335 MB
#define SYNC   100 // groups: about what comes in a second

static double seconds_since(uint64_t from_ns)
{
	return (double)(sl_clock_now_ns() - from_ns) / (double)SL_S;
}

static double plain_mib(const char *folder, struct sl_bytes body)
{
	struct iovec pieces[GROUP];
	char path[4096];
	uint64_t from;
	double spent;
	int fd;

	snprintf(path, sizeof(path), "%s/plain", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		abort();
	from = sl_clock_now_ns();
	for (unsigned i = 0; i < GROUPS; i++) {
		for (unsigned j = 0; j < GROUP; j++)
			pieces[j] = (struct iovec){(void *)(uintptr_t)body.data, body.size};
		if (writev(fd, pieces, GROUP) != (ssize_t)(GROUP * body.size))
			abort();
		if (i % SYNC == SYNC - 1 && fdatasync(fd) < 0)
			abort();
	}
	spent = seconds_since(from);
	close(fd);
	unlink(path);
	return (double)body.size * GROUP * GROUPS / (double)SL_MIB / spent;
}

static void append_all(struct sl_spool_store *store, struct sl_bytes body)
{
	const struct iovec piece = {(void *)(uintptr_t)body.data, body.size};
	struct sl_spool_write writes[GROUP];

	for (unsigned j = 0; j < GROUP; j++)
		writes[j] = (struct sl_spool_write){.entry = {.items = 100,
							      .body_bytes = (uint32_t)body.size,
							      .tenant = SL_LITERAL("tenant")},
						    .pieces = &piece,
						    .piece_count = 1};
	for (unsigned i = 0; i < GROUPS; i++) {
		if (sl_spool_store_append(store, writes, GROUP, false) < 0 ||
		    (i % SYNC == SYNC - 1 && sl_spool_store_sync(store) < 0))
			abort();
	}
}

static void read_all(struct sl_spool_store *store)
{
	struct sl_spool_read *read;

	while ((read = sl_spool_store_next(store, false))) {
		sl_spool_store_end(store, read->slot, true);
		free(read);
	}
}

static void spool_mib(const char *folder, struct sl_bytes body, double *in, double *out)
{
	static const struct sl_spool_limits limits = {.bytes_max = 64 * SL_GIB,
						      .segment_bytes = 64 * SL_MIB};
	const double all = (double)body.size * GROUP * GROUPS / (double)SL_MIB;
	struct sl_spool_store *store;
	char path[4096];
	uint64_t from;
	int error;

	snprintf(path, sizeof(path), "%s/spool-XXXXXX", folder);
	if (!mkdtemp(path) || !(store = sl_spool_store_open(path, &limits, &error)))
		abort();
	from = sl_clock_now_ns();
	append_all(store, body);
	*in = all / seconds_since(from);
	from = sl_clock_now_ns();
	read_all(store);
	*out = all / seconds_since(from);
	sl_spool_store_tick(store, 0);
	sl_spool_store_close(store);
	strcat(path, "/cursor");
	unlink(path);
	path[strlen(path) - strlen("/cursor")] = '\0';
	rmdir(path);
}

int main(int argc, char **argv)
{
	static char *folders[] = {"/dev/shm", "/tmp"};
	const size_t room = SL_MIB;
	uint8_t *plain = malloc(room);
	const struct sl_bytes body = sl_bytes(plain,
					      sl_payload_build(plain, room, SL_TRACES, 100, 1));
	char **given = argc > 1 ? argv + 1 : folders;
	const int count = argc > 1 ? argc - 1 : 2;

	printf("| folder | plain writes MiB/s | spool in MiB/s | share | spool out MiB/s |\n"
	       "|---|---|---|---|---|\n");
	for (int i = 0; i < count; i++) {
		double best = 0, best_in = 0, best_out = 0, in, out;

		for (unsigned round = 0; round < 3; round++) {
			best = SL_MAX(best, plain_mib(given[i], body));
			spool_mib(given[i], body, &in, &out);
			best_in = SL_MAX(best_in, in);
			best_out = SL_MAX(best_out, out);
		}
		printf("| %s | %.0f | %.0f | %.2f | %.0f |\n", given[i], best, best_in,
		       best_in / best, best_out);
	}
	free(plain);
	return 0;
}
