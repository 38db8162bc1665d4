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

int sl_spool_list(const char *folder, uint64_t **numbers, uint32_t *count)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	uint32_t capacity = 0;

	*numbers = NULL;
	*count = 0;
	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		unsigned long long number;
		char name[32];

		if (sscanf(entry->d_name, "%16llx", &number) != 1)
			continue;
		snprintf(name, sizeof(name), SL_SPOOL_NAME, number);
		if (strcmp(name, entry->d_name) != 0)
			continue;
		if (*count == capacity) {
			void *grown;

			capacity = capacity ? capacity * 2 : 64;
			grown = realloc(*numbers, capacity * sizeof(**numbers));
			if (!grown) {
				free(*numbers);
				closedir(dir);
				return -ENOMEM;
			}
			*numbers = grown;
		}
		(*numbers)[(*count)++] = number;
	}
	closedir(dir);
	return 0;
}

// All of it, at that place.
static bool read_at(int fd, void *to, size_t size, uint64_t at)
{
	for (size_t done = 0; done < size;) {
		const ssize_t got = pread(fd, (char *)to + done, size - done, (off_t)(at + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		done += (size_t)got;
	}
	return true;
}

static bool read_head(int fd, const struct sl_spool_segment *segment, uint64_t at, uint64_t end,
		      uint8_t head[SL_SPOOL_ENTRY_HEAD], struct sl_spool_entry *entry)
{
	return at + SL_SPOOL_ENTRY_HEAD <= end && read_at(fd, head, SL_SPOOL_ENTRY_HEAD, at) &&
	       sl_spool_get_entry(head, segment->salt, entry);
}

// The next whole head from `at` on; `end` when there is none.
static uint64_t find_head(int fd, const struct sl_spool_segment *segment, uint64_t at, uint64_t end)
{
	uint8_t chunk[CHUNK_BYTES];

	while (at + SL_SPOOL_ENTRY_HEAD <= end) {
		const size_t size = (size_t)SL_MIN(CHUNK_BYTES, end - at);
		size_t found;

		if (!read_at(fd, chunk, size, at))
			break;
		found = sl_spool_find(sl_bytes(chunk, size), 0, segment->salt);
		if (found < size)
			return at + found;
		at += size - SL_SPOOL_ENTRY_HEAD + 1; // one may begin in this chunk's end
	}
	return end;
}

static void damaged(struct sl_spool_store *store, const struct sl_spool_segment *segment,
		    uint64_t at, uint64_t bytes)
{
	store->figures.damaged++;
	sl_log(SL_LOG_ERROR, "spool_damaged", "file=\"%s/%s\" offset=%llu bytes=%llu",
	       store->folder, segment->name, (unsigned long long)at, (unsigned long long)bytes);
}

// A file that is no segment, or of a head that cannot be trusted, is kept for whoever looks.
// Returns 0 or -errno: then it is where it was.
static int put_aside(struct sl_spool_store *store, const struct sl_spool_segment *segment)
{
	char from[PATH_MAX], to[PATH_MAX];

	if (snprintf(from, sizeof(from), "%s/%s", store->folder, segment->name) >= PATH_MAX ||
	    snprintf(to, sizeof(to), "%s/%s.damaged", store->folder, segment->name) >= PATH_MAX)
		return -ENAMETOOLONG;
	if (rename(from, to) < 0)
		return -errno;
	store->figures.damaged++;
	sl_log(SL_LOG_ERROR, "spool_segment_unreadable", "file=\"%s/%s\" kept_as=\"%s.damaged\"",
	       store->folder, segment->name, segment->name);
	return 0;
}

// Counts what can be read from `at` on; returns where the last whole entry ends.
static uint64_t count_entries(struct sl_spool_store *store, struct sl_spool_segment *segment,
			      uint64_t at, uint64_t size)
{
	uint8_t head[SL_SPOOL_ENTRY_HEAD];
	struct sl_spool_entry entry;

	while (at < size) {
		if (!read_head(segment->fd, segment, at, size, head, &entry)) {
			const uint64_t next = find_head(segment->fd, segment, at + 1, size);

			if (next == size)
				return at;
			at = next; // told when it is read
			continue;
		}
		if (sl_spool_entry_bytes(&entry) > size - at)
			return at;
		at += sl_spool_entry_bytes(&entry);
		segment->items[entry.signal] += entry.items;
		store->figures.items[entry.signal] += entry.items;
		segment->newest_ns = SL_MAX(segment->newest_ns, entry.wall_ns);
	}
	return at;
}

int sl_spool_scan(struct sl_spool_store *store, struct sl_spool_segment *segment, uint64_t from)
{
	const int fd = sl_spool_segment_fd(store, segment);
	uint8_t head[SL_SPOOL_ENTRY_HEAD];
	struct sl_spool_entry entry;
	struct stat found;
	uint64_t size, end;

	if (fd < 0 || fstat(fd, &found) < 0)
		return -errno;
	if (!read_at(fd, head, SL_SPOOL_SEGMENT_HEAD, 0) ||
	    !sl_spool_get_segment(head, &segment->salt)) {
		return found.st_size >= SL_SPOOL_SEGMENT_HEAD ? put_aside(store, segment) : 0;
	}
	size = (uint64_t)found.st_size;
	segment->read = SL_SPOOL_SEGMENT_HEAD;
	if (from == size ||
	    (from > SL_SPOOL_SEGMENT_HEAD && read_head(fd, segment, from, size, head, &entry)))
		segment->read = from;
	end = count_entries(store, segment, segment->read, size);
	if (end < size) {
		sl_log(SL_LOG_WARN, "spool_tail_cut", "file=\"%s/%s\" offset=%llu bytes=%llu",
		       store->folder, segment->name, (unsigned long long)end,
		       (unsigned long long)(size - end));
		if (ftruncate(fd, (off_t)end) < 0)
			sl_log(SL_LOG_WARN, "spool_tail_stays", "file=\"%s/%s\" reason=\"%s\"",
			       store->folder, segment->name, strerror(errno));
	}
	store->figures.bytes += end - segment->bytes;
	segment->bytes = end;
	close(segment->fd); // a spool may have thousands
	segment->fd = -1;
	return segment->read < end;
}

// LATER: there is no memory or no descriptor for it now, which says nothing of what is on disk.
enum loaded { LOADED, LATER, DAMAGED };

static enum loaded load(struct sl_spool_store *store, struct sl_spool_segment *segment, uint64_t at,
			struct sl_spool_entry *entry, struct sl_spool_read **read)
{
	const int fd = sl_spool_segment_fd(store, segment);
	uint8_t head[SL_SPOOL_ENTRY_HEAD], *rest;
	size_t size;

	*entry = (struct sl_spool_entry){0};
	if (fd < 0 && errno != ENOENT) {
		sl_log(SL_LOG_WARN, "spool_not_read", "file=\"%s/%s\" reason=\"%s\"", store->folder,
		       segment->name, strerror(errno));
		return LATER;
	}
	if (fd < 0 || !read_head(fd, segment, at, segment->bytes, head, entry))
		return DAMAGED;
	size = sl_spool_entry_bytes(entry) - SL_SPOOL_ENTRY_HEAD;
	if (size > segment->bytes - at - SL_SPOOL_ENTRY_HEAD)
		return DAMAGED;
	*read = malloc(sizeof(**read) + size);
	if (!*read)
		return LATER;
	rest = (uint8_t *)(*read + 1);
	(*read)->entry = *entry;
	if (read_at(fd, rest, size, at + SL_SPOOL_ENTRY_HEAD) &&
	    sl_spool_get_rest(head, segment->salt, sl_bytes(rest, size), &(*read)->entry,
			      &(*read)->body))
		return LOADED;
	free(*read);
	*read = NULL;
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

struct sl_spool_read *sl_spool_load_next(struct sl_spool_store *store,
					 struct sl_spool_segment *segment,
					 struct sl_spool_slot *slot, bool *ended)
{
	struct sl_spool_read *read = NULL;
	struct sl_spool_entry entry;

	*ended = false;
	while (segment->read < segment->bytes) {
		const uint64_t at = segment->read;
		const enum loaded loaded = load(store, segment, at, &entry, &read);

		if (loaded == LATER)
			return NULL;
		if (loaded == LOADED) {
			*slot = (struct sl_spool_slot){.segment = segment,
						       .at = at,
						       .items = read->entry.items,
						       .signal = read->entry.signal};
			segment->read += sl_spool_entry_bytes(&read->entry);
			return read;
		}
		if (entry.body_bytes && sl_spool_entry_bytes(&entry) <= segment->bytes - at) {
			segment->read += sl_spool_entry_bytes(&entry); // its head is whole
			lose(store, segment, entry.signal, entry.items);
		} else {
			segment->read = find_head(sl_spool_segment_fd(store, segment), segment,
						  at + 1, segment->bytes);
		}
		damaged(store, segment, at, segment->read - at);
	}
	*ended = true;
	return NULL;
}
