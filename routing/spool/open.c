#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataplane/base/disk.h"
#include "dataplane/base/log.h"
#include "routing/spool/internal.h"

#define CURSOR        "cursor"
#define ASIDE_LOOK_NS (30 * SL_S)

// Whether an error is of that one file: others of the folder may be well. What the process or the
// whole disk has run out of says nothing of a file.
static bool is_the_file_s(int failed)
{
	switch (-failed) {
	case ENOMEM:
	case EMFILE:
	case ENFILE:
	case ENOSPC:
	case EDQUOT:
	case EROFS:
		return false;
	default:
		return true;
	}
}

int sl_spool_put_aside(const struct sl_spool_store *store, const char *name, const char *suffix)
{
	char from[PATH_MAX], to[PATH_MAX];
	struct stat found;

	if (sl_spool_path(store, name, from) < 0 ||
	    snprintf(to, sizeof(to), "%s%s", from, suffix) >= (int)sizeof(to))
		return -ENAMETOOLONG;
	if (lstat(to, &found) == 0)
		return -EEXIST; // it is kept, too
	if (rename(from, to) < 0)
		return -errno;
	// A cursor that passes it must not be on the disk before it has another name there.
	return sl_disk_sync_folder(store->folder);
}

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
	if (!failed || !is_the_file_s(failed))
		return failed;
	store->figures.read_errors++;
	aside = sl_spool_put_aside(store, CURSOR, SL_SPOOL_UNREAD);
	sl_log(SL_LOG_ERROR, "spool_cursor_not_read",
	       "file=\"%s\" reason=\"%s\" kept_as=" CURSOR SL_SPOOL_UNREAD, path,
	       strerror(-failed));
	if (store->cursor >= 0)
		close(store->cursor);
	return aside ? aside : read_cursor(store, path, cursor);
}

// --- segments ------------------------------------------------------------------------------------

static void drop_file(const struct sl_spool_store *store, const char *name)
{
	char path[PATH_MAX];

	if (sl_spool_path(store, name, path) == 0)
		unlink(path);
}

// Of a segment that was not added.
static void free_segment(struct sl_spool_segment *segment)
{
	sl_spool_segment_close(segment);
	free(segment);
}

static int put_unread(struct sl_spool_store *store, const struct sl_spool_segment *segment)
{
	const int failed = sl_spool_put_aside(store, segment->name, SL_SPOOL_UNREAD);

	if (failed)
		return failed;
	store->newest = SL_MAX(store->newest, segment->number); // its name stays its own
	store->figures.aside++;
	sl_log(SL_LOG_ERROR, "spool_segment_put_aside",
	       "file=\"%s/%s\" kept_as=\"%s" SL_SPOOL_UNREAD "\"", store->folder, segment->name,
	       segment->name);
	return 0;
}

static int take_segment(struct sl_spool_store *store, uint64_t number,
			const struct sl_spool_cursor *cursor)
{
	struct sl_spool_segment *segment = sl_spool_segment_make(number);
	int found = 0;

	if (!segment)
		return -ENOMEM;
	if (number >= cursor->number)
		found = sl_spool_scan(store, segment, number == cursor->number ? cursor->at : 0);
	if (found > 0) {
		sl_spool_segment_add(store, segment);
		return 0;
	}
	if (found == 0) {
		store->newest = SL_MAX(store->newest, number);
		drop_file(store, segment->name);
	} else if (is_the_file_s(found)) {
		found = put_unread(store, segment);
	}
	free_segment(segment);
	return found;
}

// One that was aside: in behind all others, under a number of its own. Returns 1; 0: it cannot be
// read yet.
static int take_unread(struct sl_spool_store *store, uint64_t number)
{
	struct sl_spool_segment *segment = sl_spool_segment_make(store->newest + 1);
	char from[PATH_MAX], to[PATH_MAX], name[sizeof(segment->name)];
	int found, failed;

	if (!segment)
		return 0;
	strcpy(name, segment->name);
	snprintf(segment->name, sizeof(segment->name), SL_SPOOL_NAME SL_SPOOL_UNREAD,
		 (unsigned long long)number);
	found = sl_spool_scan(store, segment, 0);
	// Where the folder is not synced it has the name that it had, and all of it comes again.
	if (found > 0 && (sl_spool_path(store, segment->name, from) < 0 ||
			  sl_spool_path(store, name, to) < 0 || rename(from, to) < 0))
		found = -EIO;
	if (found == 0)
		drop_file(store, segment->name);
	if (found <= 0) {
		free_segment(segment);
		return found == 0;
	}
	sl_log(SL_LOG_WARN, "spool_segment_read_again", "file=\"%s/%s\" was=\"%s\"", store->folder,
	       name, segment->name);
	strcpy(segment->name, name);
	(void)sl_disk_sync_folder(store->folder);
	failed = sl_spool_retire(store); // what is appended comes behind it
	if (failed)
		sl_log(SL_LOG_ERROR, "spool_not_synced", "folder=\"%s\" reason=\"%s\"",
		       store->folder, strerror(-failed));
	sl_spool_segment_add(store, segment);
	if (!store->reading)
		store->reading = segment;
	for (unsigned i = 0; i < SL_SIGNALS; i++)
		store->figures.recovered_items[i] += segment->items[i];
	return 1;
}

static int by_number(const void *a, const void *b)
{
	const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

// In the order they were written. Returns 0 or -errno.
static int list(const struct sl_spool_store *store, const char *suffix, uint64_t **numbers,
		uint32_t *count)
{
	const int failed = sl_spool_list(store->folder, suffix, numbers, count);

	if (!failed && *count)
		qsort(*numbers, *count, sizeof(**numbers), by_number);
	return failed;
}

void sl_spool_try_aside(struct sl_spool_store *store, uint64_t wall_ns)
{
	uint64_t *numbers;
	uint32_t count;

	if (!store->figures.aside || wall_ns < store->aside_due_ns)
		return;
	store->aside_due_ns = wall_ns + ASIDE_LOOK_NS;
	if (list(store, SL_SPOOL_UNREAD, &numbers, &count) < 0)
		return;
	store->figures.aside = count;
	for (uint32_t i = 0; i < count; i++)
		store->figures.aside -= (uint32_t)take_unread(store, numbers[i]);
	free(numbers);
}

// Numbers of what is aside are not used again.
static int pass_aside(struct sl_spool_store *store, const char *suffix, uint64_t *found)
{
	uint64_t *numbers;
	uint32_t count;
	const int failed = list(store, suffix, &numbers, &count);

	if (failed)
		return failed;
	if (count)
		store->newest = SL_MAX(store->newest, numbers[count - 1]);
	if (found)
		*found = count;
	free(numbers);
	return 0;
}

static int take_over(struct sl_spool_store *store, const struct sl_spool_cursor *cursor)
{
	uint64_t *numbers;
	uint32_t count;
	int failed = list(store, "", &numbers, &count);

	if (failed)
		return failed;
	for (uint32_t i = 0; i < count && !failed; i++)
		failed = take_segment(store, numbers[i], cursor);
	free(numbers);
	store->reading = store->segments;
	store->newest = SL_MAX(store->newest, cursor->number);
	if (!failed)
		failed = pass_aside(store, SL_SPOOL_DAMAGED, NULL);
	return failed ? failed : pass_aside(store, SL_SPOOL_UNREAD, &store->figures.aside);
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
