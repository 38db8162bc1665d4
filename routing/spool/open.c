#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataplane/base/disk.h"
#include "dataplane/base/log.h"
#include "routing/spool/internal.h"

#define CURSOR "cursor"

// --- the cursor ----------------------------------------------------------------------------------

// Half of one, a damaged one, or none at all: as if nothing had gone. Returns 0 or -errno.
static int read_cursor(struct sl_spool_store *store, const char *path,
		       struct sl_spool_cursor *cursor)
{
	char text[SL_SPOOL_CURSOR_BYTES + 2] = {0};
	ssize_t got;

	*cursor = (struct sl_spool_cursor){0};
	store->cursor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	got = store->cursor < 0 ? -1 : pread(store->cursor, text, sizeof(text) - 1, 0);
	if (got < 0)
		return -errno;
	if (got > SL_SPOOL_CURSOR_BYTES)
		return -EBADMSG; // not ours
	if (got < SL_SPOOL_CURSOR_BYTES || !sl_spool_get_cursor(text, cursor))
		*cursor = (struct sl_spool_cursor){0};
	return 0;
}

static int open_cursor(struct sl_spool_store *store, struct sl_spool_cursor *cursor)
{
	char path[PATH_MAX];
	int failed = sl_spool_path(store, CURSOR, path), aside;

	if (!failed)
		failed = read_cursor(store, path, cursor);
	if (!failed || !sl_spool_is_the_file_s(failed))
		return failed;
	store->figures.read_errors++;
	aside = sl_spool_put_aside(store, CURSOR, CURSOR SL_SPOOL_UNREAD);
	sl_log(SL_LOG_ERROR, "spool_cursor_not_read",
	       "file=\"%s\" reason=\"%s\" kept_as=" CURSOR SL_SPOOL_UNREAD, path,
	       strerror(-failed));
	if (store->cursor >= 0)
		close(store->cursor);
	return aside ? aside : read_cursor(store, path, cursor);
}

// --- segments ------------------------------------------------------------------------------------

static int take_segment(struct sl_spool_store *store, const struct sl_spool_cursor *named,
			const struct sl_spool_cursor *cursor)
{
	struct sl_spool_segment *segment = sl_spool_segment_make(named);
	// A cursor without a place was there before the segment.
	const uint64_t from = named->number == cursor->number && cursor->at ? cursor->at
									    : named->at;
	int found = 0;

	if (!segment)
		return -ENOMEM;
	if (named->number >= cursor->number)
		found = sl_spool_scan(store, segment, from);
	if (found > 0) {
		sl_spool_segment_add(store, segment);
		return 0;
	}
	if (found == 0) {
		store->newest = SL_MAX(store->newest, named->number);
		sl_spool_drop_file(store, segment->name);
	} else if (sl_spool_is_the_file_s(found)) {
		found = sl_spool_put_unread(store, segment, from);
	}
	sl_spool_segment_free(segment);
	return found;
}

static int by_number(const void *a, const void *b)
{
	const uint64_t left = ((const struct sl_spool_cursor *)a)->number;
	const uint64_t right = ((const struct sl_spool_cursor *)b)->number;

	return left < right ? -1 : left > right;
}

// In the order they were written. Returns 0 or -errno.
static int list(struct sl_spool_store *store, const char *suffix, struct sl_spool_cursor **found,
		uint32_t *count)
{
	const int failed = sl_spool_list(store->folder, suffix, found, count);

	if (failed || !*count)
		return failed;
	qsort(*found, *count, sizeof(**found), by_number);
	// What comes next has a number of its own, whatever becomes of these.
	store->newest = SL_MAX(store->newest, (*found)[*count - 1].number);
	return 0;
}

static int find_damaged(struct sl_spool_store *store)
{
	struct sl_spool_cursor *found;
	uint32_t count;
	const int failed = list(store, SL_SPOOL_DAMAGED, &found, &count);

	if (!failed)
		free(found);
	return failed;
}

static int find_unread(struct sl_spool_store *store)
{
	struct sl_spool_cursor *found;
	uint32_t count;
	int failed = list(store, SL_SPOOL_UNREAD, &found, &count);

	if (failed)
		return failed;
	for (uint32_t i = 0; i < count && !failed; i++)
		failed = sl_spool_know_aside(store, &found[i]);
	free(found);
	return failed;
}

static int take_over(struct sl_spool_store *store, const struct sl_spool_cursor *cursor)
{
	struct sl_spool_cursor *found;
	uint32_t count;
	int failed = find_unread(store);

	if (!failed)
		failed = find_damaged(store);
	if (!failed)
		failed = list(store, "", &found, &count);
	if (failed)
		return failed;
	for (uint32_t i = 0; i < count && !failed; i++)
		failed = take_segment(store, &found[i], cursor);
	free(found);
	store->reading = store->segments;
	store->newest = SL_MAX(store->newest, cursor->number);
	return failed;
}

struct sl_spool_store *sl_spool_store_open(const char *folder, const struct sl_spool_limits *limits,
					   int *error)
{
	struct sl_spool_store *store = calloc(1, sizeof(*store));
	struct sl_spool_cursor cursor;

	*error = -ENOMEM;
	if (!store)
		return NULL;
	store->last = &store->segments;
	store->limits = *limits;
	store->cursor = -1;
	store->folder = strdup(folder);
	if (!store->folder)
		goto fail;
	*error = open_cursor(store, &cursor);
	if (!*error)
		*error = take_over(store, &cursor);
	if (*error)
		goto fail;
	memcpy(store->figures.recovered_items, store->figures.items, sizeof(store->figures.items));
	sl_spool_try_aside(store, 0);
	return store;
fail:
	store->moved = false; // the cursor stays: how far it reaches is not known
	sl_spool_store_close(store);
	return NULL;
}
