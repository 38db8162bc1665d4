#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataplane/base/log.h"
#include "routing/spool/internal.h"

#define CHUNK_BYTES (16 * SL_KIB)

int sl_spool_salt(uint64_t *salt)
{
	return getrandom(salt, sizeof(*salt), 0) == sizeof(*salt) ? 0 : -EIO;
}

void sl_spool_name(char name[SL_SPOOL_NAME_BYTES], const struct sl_spool_cursor *from,
		   const char *suffix)
{
	char place[SL_SPOOL_NAME_BYTES] = "";

	if (from->at > SL_SPOOL_SEGMENT_HEAD)
		snprintf(place, sizeof(place), ".%llx", (unsigned long long)from->at);
	snprintf(name, SL_SPOOL_NAME_BYTES, SL_SPOOL_NAME "%.18s%.10s",
		 (unsigned long long)from->number, place, suffix);
}

// Whether a file has such a name.
static bool is_named(const char *file, const char *suffix, struct sl_spool_cursor *from)
{
	unsigned long long number, at = 0;
	char name[SL_SPOOL_NAME_BYTES];

	if (sscanf(file, "%16llx.spool.%16llx", &number, &at) < 1)
		return false;
	*from = (struct sl_spool_cursor){number, at};
	sl_spool_name(name, from, suffix);
	if (strcmp(name, file) == 0)
		return true;
	from->at = 0; // a suffix may begin as a number does
	sl_spool_name(name, from, suffix);
	return strcmp(name, file) == 0;
}

int sl_spool_list(const char *folder, const char *suffix, struct sl_spool_cursor **found,
		  uint32_t *count)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	uint32_t capacity = 0;
	int failed;

	*found = NULL;
	*count = 0;
	if (!dir)
		return -errno;
	while (errno = 0, (entry = readdir(dir))) {
		struct sl_spool_cursor from;

		if (!is_named(entry->d_name, suffix, &from))
			continue;
		if (*count == capacity) {
			void *grown;

			capacity = capacity ? capacity * 2 : 64;
			grown = realloc(*found, capacity * sizeof(**found));
			if (!grown) {
				errno = ENOMEM;
				break;
			}
			*found = grown;
		}
		(*found)[(*count)++] = from;
	}
	failed = -errno; // a folder that is not read to its end would hide segments
	if (failed)
		free(*found);
	closedir(dir);
	return failed;
}

// All of it, at that place: 1; 0: the file ends before; -errno: nobody knows what is there.
static int read_at(int fd, void *to, size_t size, uint64_t at)
{
	for (size_t done = 0; done < size;) {
		const ssize_t got = pread(fd, (char *)to + done, size - done, (off_t)(at + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : 0;
		done += (size_t)got;
	}
	return 1;
}

// 1; 0: there is none, or it is damaged; -errno.
static int read_head(int fd, const struct sl_spool_segment *segment, uint64_t at, uint64_t end,
		     uint8_t head[SL_SPOOL_ENTRY_HEAD], struct sl_spool_entry *entry)
{
	const int got = at + SL_SPOOL_ENTRY_HEAD <= end ? read_at(fd, head, SL_SPOOL_ENTRY_HEAD, at)
							: 0;

	return got <= 0 ? got : sl_spool_get_entry(head, segment->salt, entry);
}

// Where the next whole head is from `at` on; `end` when there is none. Returns 0 or -errno.
static int find_head(int fd, const struct sl_spool_segment *segment, uint64_t at, uint64_t end,
		     uint64_t *next)
{
	uint8_t chunk[CHUNK_BYTES];

	*next = end;
	while (at + SL_SPOOL_ENTRY_HEAD <= end) {
		const size_t size = (size_t)SL_MIN(CHUNK_BYTES, end - at);
		const int got = read_at(fd, chunk, size, at);
		size_t found;

		if (got <= 0)
			return got;
		found = sl_spool_find(sl_bytes(chunk, size), 0, segment->salt);
		if (found < size) {
			*next = at + found;
			return 0;
		}
		at += size - SL_SPOOL_ENTRY_HEAD + 1; // one may begin in this chunk's end
	}
	return 0;
}

static void damaged(struct sl_spool_store *store, const struct sl_spool_segment *segment,
		    uint64_t at, uint64_t bytes)
{
	store->figures.damaged++;
	sl_log(SL_LOG_ERROR, "spool_damaged", "file=\"%s/%s\" offset=%llu bytes=%llu",
	       store->folder, segment->name, (unsigned long long)at, (unsigned long long)bytes);
}

// Counts what can be read from `*at` on, and moves it to where the last whole entry ends. Returns 0
// or -errno.
static int count_entries(struct sl_spool_segment *segment, uint64_t *at, uint64_t size)
{
	uint8_t head[SL_SPOOL_ENTRY_HEAD];
	struct sl_spool_entry entry;

	while (*at < size) {
		int got = read_head(segment->fd, segment, *at, size, head, &entry);

		if (got == 0) {
			uint64_t next;

			got = find_head(segment->fd, segment, *at + 1, size, &next);
			if (got < 0 || next == size)
				return got;
			*at = next; // told when it is read
			continue;
		}
		if (got < 0)
			return got;
		if (sl_spool_entry_bytes(&entry) > size - *at)
			return 0;
		*at += sl_spool_entry_bytes(&entry);
		segment->items[entry.signal] += entry.items;
		segment->newest_ns = SL_MAX(segment->newest_ns, entry.wall_ns);
	}
	return 0;
}

static int unreadable(struct sl_spool_store *store, struct sl_spool_segment *segment, int failed)
{
	store->figures.read_errors++;
	segment->sick = sl_spool_is_the_file_s(failed);
	sl_log(SL_LOG_ERROR, "spool_not_read", "file=\"%s/%s\" reason=\"%s\"", store->folder,
	       segment->name, strerror(-failed));
	return failed;
}

// A file that is no segment, or of a head that cannot be trusted, is kept for whoever looks.
static int not_ours(struct sl_spool_store *store, struct sl_spool_segment *segment)
{
	char other[SL_SPOOL_NAME_BYTES + sizeof(SL_SPOOL_DAMAGED)];
	int failed;

	snprintf(other, sizeof(other), "%s" SL_SPOOL_DAMAGED, segment->name);
	failed = sl_spool_put_aside(store, segment->name, other);
	if (failed)
		return unreadable(store, segment, failed);
	store->figures.damaged++;
	sl_log(SL_LOG_ERROR, "spool_segment_unreadable", "file=\"%s/%s\" kept_as=\"%s\"",
	       store->folder, segment->name, other);
	return 0;
}

int sl_spool_scan(struct sl_spool_store *store, struct sl_spool_segment *segment, uint64_t from)
{
	const int fd = sl_spool_segment_fd(store, segment);
	uint8_t head[SL_SPOOL_ENTRY_HEAD];
	struct sl_spool_entry entry;
	struct stat found;
	uint64_t size, end;
	int got;

	if (fd < 0 || fstat(fd, &found) < 0)
		return unreadable(store, segment, -errno);
	got = read_at(fd, head, SL_SPOOL_SEGMENT_HEAD, 0);
	if (got < 0)
		return unreadable(store, segment, got);
	if (!got || !sl_spool_get_segment(head, &segment->salt))
		return found.st_size >= SL_SPOOL_SEGMENT_HEAD ? not_ours(store, segment) : 0;
	size = (uint64_t)found.st_size;
	segment->read = SL_SPOOL_SEGMENT_HEAD;
	got = from > SL_SPOOL_SEGMENT_HEAD && from < size
		      ? read_head(fd, segment, from, size, head, &entry)
		      : from == size;
	if (got > 0)
		segment->read = from;
	end = segment->read;
	if (got >= 0)
		got = count_entries(segment, &end, size);
	if (got < 0)
		return unreadable(store, segment, got); // the file stays as it is
	if (end < size) {
		sl_log(SL_LOG_WARN, "spool_tail_cut", "file=\"%s/%s\" offset=%llu bytes=%llu",
		       store->folder, segment->name, (unsigned long long)end,
		       (unsigned long long)(size - end));
		if (ftruncate(fd, (off_t)end) < 0)
			sl_log(SL_LOG_WARN, "spool_tail_stays", "file=\"%s/%s\" reason=\"%s\"",
			       store->folder, segment->name, strerror(errno));
	}
	segment->bytes = end;
	sl_spool_segment_close(segment); // a spool may have thousands
	return segment->read < end;
}

// LATER: there is no memory or no descriptor for it, or the disk does not give it now, which says
// nothing of what is on it.
enum loaded { LOADED, LATER, DAMAGED };

static enum loaded load(struct sl_spool_store *store, struct sl_spool_segment *segment, uint64_t at,
			struct sl_spool_entry *entry, struct sl_spool_read **read)
{
	const int fd = sl_spool_segment_fd(store, segment);
	uint8_t head[SL_SPOOL_ENTRY_HEAD], *rest;
	size_t size;
	int got;

	*entry = (struct sl_spool_entry){0};
	got = fd >= 0           ? read_head(fd, segment, at, segment->bytes, head, entry)
	      : errno != ENOENT ? -errno
				: 0;
	if (got < 0) {
		unreadable(store, segment, got);
		return LATER;
	}
	if (!got)
		return DAMAGED;
	size = sl_spool_entry_bytes(entry) - SL_SPOOL_ENTRY_HEAD;
	if (size > segment->bytes - at - SL_SPOOL_ENTRY_HEAD)
		return DAMAGED;
	*read = malloc(sizeof(**read) + size);
	if (!*read)
		return LATER;
	rest = (uint8_t *)(*read + 1);
	(*read)->entry = *entry;
	got = read_at(fd, rest, size, at + SL_SPOOL_ENTRY_HEAD);
	if (got > 0 && sl_spool_get_rest(head, segment->salt, sl_bytes(rest, size), &(*read)->entry,
					 &(*read)->body))
		return LOADED;
	free(*read);
	*read = NULL;
	if (got < 0) {
		unreadable(store, segment, got);
		return LATER;
	}
	return DAMAGED;
}

// Items of a place that cannot be read any more.
static void lose(struct sl_spool_store *store, struct sl_spool_segment *segment,
		 enum sl_signal signal, uint64_t items)
{
	items = SL_MIN(items, segment->items[signal]);
	segment->items[signal] -= items;
	store->figures.items[signal] -= items;
	store->figures.dropped_items[signal] += items;
}

struct sl_spool_read *sl_spool_load(struct sl_spool_store *store, struct sl_spool_slot *slot,
				    bool *gone)
{
	struct sl_spool_read *read = NULL;
	struct sl_spool_entry entry;

	*gone = load(store, slot->segment, slot->at, &entry, &read) == DAMAGED;
	if (*gone) {
		damaged(store, slot->segment, slot->at, 0);
		lose(store, slot->segment, slot->signal, slot->items);
	}
	return read;
}

uint64_t sl_spool_peek(struct sl_spool_store *store, struct sl_spool_segment *segment)
{
	const int fd = sl_spool_segment_fd(store, segment);
	uint8_t head[SL_SPOOL_ENTRY_HEAD];
	struct sl_spool_entry entry;

	return fd >= 0 && read_head(fd, segment, segment->read, segment->bytes, head, &entry) > 0
		       ? entry.wall_ns
		       : 0;
}

struct sl_spool_read *sl_spool_load_next(struct sl_spool_store *store,
					 struct sl_spool_segment *segment,
					 struct sl_spool_slot *slot, bool *ended)
{
	struct sl_spool_read *read = NULL;
	struct sl_spool_entry entry;

	*ended = false;
	while (segment->read < segment->bytes) {
		const uint64_t at = segment->read;
		uint64_t next = segment->bytes;
		const enum loaded loaded = load(store, segment, at, &entry, &read);

		if (loaded == LATER)
			return NULL;
		if (loaded == LOADED) {
			*slot = (struct sl_spool_slot){.segment = segment,
						       .at = at,
						       .wall_ns = read->entry.wall_ns,
						       .items = read->entry.items,
						       .signal = read->entry.signal};
			segment->read += sl_spool_entry_bytes(&read->entry);
			return read;
		}
		if (entry.body_bytes && sl_spool_entry_bytes(&entry) <= segment->bytes - at) {
			segment->read += sl_spool_entry_bytes(&entry); // its head is whole
			lose(store, segment, entry.signal, entry.items);
		} else {
			const int fd = sl_spool_segment_fd(store, segment);
			const int failed =
				fd < 0 ? 0 : find_head(fd, segment, at + 1, segment->bytes, &next);

			if (failed) {
				unreadable(store, segment, failed);
				return NULL;
			}
			segment->read = next;
		}
		damaged(store, segment, at, segment->read - at);
	}
	*ended = true;
	return NULL;
}
