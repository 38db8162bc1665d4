#include "routing/spool/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "dataplane/base/disk.h"
#include "dataplane/base/log.h"
#include "routing/spool/internal.h"

int sl_spool_path(const struct sl_spool_store *store, const char *name, char path[PATH_MAX])
{
	return snprintf(path, PATH_MAX, "%s/%s", store->folder, name) < PATH_MAX ? 0
										 : -ENAMETOOLONG;
}

int sl_spool_segment_fd(struct sl_spool_store *store, struct sl_spool_segment *segment)
{
	char path[PATH_MAX];

	if (segment->fd < 0 && sl_spool_path(store, segment->name, path) == 0)
		segment->fd = open(path, O_RDWR | O_CLOEXEC);
	return segment->fd;
}

struct sl_spool_segment *sl_spool_segment_make(const struct sl_spool_cursor *from)
{
	struct sl_spool_segment *segment = calloc(1, sizeof(*segment));

	if (!segment)
		return NULL;
	segment->number = from->number;
	segment->fd = -1;
	segment->bytes = SL_SPOOL_SEGMENT_HEAD;
	sl_spool_name(segment->name, from, "");
	return segment;
}

void sl_spool_segment_add(struct sl_spool_store *store, struct sl_spool_segment *segment)
{
	*store->last = segment;
	store->last = &segment->next;
	store->newest = SL_MAX(store->newest, segment->number);
	store->figures.bytes += segment->bytes;
	for (unsigned i = 0; i < SL_SIGNALS; i++)
		store->figures.items[i] += segment->items[i];
}

// Until it is read, or read again: a spool may have thousands.
void sl_spool_segment_close(struct sl_spool_segment *segment)
{
	if (segment->fd >= 0)
		close(segment->fd);
	segment->fd = -1;
}

static void skip_gone(struct sl_spool_store *store)
{
	while (store->first != store->end &&
	       store->slots[store->first % SL_SPOOL_OUT_MAX].state == SL_SPOOL_GONE)
		store->first++;
}

static void drop_slots(struct sl_spool_store *store, const struct sl_spool_segment *segment)
{
	for (uint32_t i = store->first; i != store->end; i++) {
		struct sl_spool_slot *slot = &store->slots[i % SL_SPOOL_OUT_MAX];

		if (slot->segment != segment)
			continue;
		slot->segment = NULL;
		if (slot->state == SL_SPOOL_BACK) {
			slot->state = SL_SPOOL_GONE;
			store->back_count--;
		}
	}
	skip_gone(store);
}

void sl_spool_drop_file(const struct sl_spool_store *store, const char *name)
{
	char path[PATH_MAX];

	if (sl_spool_path(store, name, path) == 0)
		unlink(path);
}

void sl_spool_segment_free(struct sl_spool_segment *segment)
{
	sl_spool_segment_close(segment);
	free(segment);
}

void sl_spool_segment_unlist(struct sl_spool_store *store, struct sl_spool_segment *segment)
{
	struct sl_spool_segment **link = &store->segments;

	drop_slots(store, segment);
	if (store->active == segment)
		store->active = NULL;
	if (store->reading == segment)
		store->reading = segment->next;
	while (*link != segment)
		link = &(*link)->next;
	*link = segment->next;
	if (!segment->next)
		store->last = link;
	store->figures.bytes -= segment->bytes;
	store->moved = true;
}

// The file goes; what it still held is dropped.
static void remove_segment(struct sl_spool_store *store, struct sl_spool_segment *segment)
{
	for (unsigned i = 0; i < SL_SIGNALS; i++) {
		store->figures.dropped_items[i] += segment->items[i];
		store->figures.items[i] -= segment->items[i];
	}
	sl_spool_segment_unlist(store, segment);
	sl_spool_drop_file(store, segment->name);
	sl_spool_segment_free(segment);
}

// Segments from which nothing can come any more; the one that is appended to only when `idle`.
static void remove_read(struct sl_spool_store *store, bool idle)
{
	struct sl_spool_segment *segment = store->segments, *next;

	for (; segment; segment = next) {
		next = segment->next;
		if (segment->sick)
			continue; // in nobody's way
		if (segment->out || segment->read < segment->bytes ||
		    (segment == store->active && !idle))
			return;
		remove_segment(store, segment);
	}
}

// What has gone, over a restart.

// The first place that is not gone. Neither slots nor segments are in order by that alone: a sick
// one comes after those behind it, when it is read again where it is.
static struct sl_spool_cursor cursor_of(const struct sl_spool_store *store)
{
	struct sl_spool_cursor cursor = {.number = store->newest + 1};
	const struct sl_spool_segment *segment = store->segments;

	while (segment && segment->read == segment->bytes)
		segment = segment->next;
	if (!segment)
		segment = store->reading;
	if (segment)
		cursor = (struct sl_spool_cursor){segment->number, segment->read};
	for (uint32_t i = store->first; i != store->end; i++) {
		const struct sl_spool_slot *slot = &store->slots[i % SL_SPOOL_OUT_MAX];

		// One whose segment was dropped does not come out again.
		if (slot->state == SL_SPOOL_GONE || !slot->segment)
			continue;
		if (slot->segment->number < cursor.number ||
		    (slot->segment->number == cursor.number && slot->at < cursor.at))
			cursor = (struct sl_spool_cursor){slot->segment->number, slot->at};
	}
	return cursor;
}

// Nobody waits for it to be on the disk: an old one only means that some come out twice.
static void write_cursor(struct sl_spool_store *store)
{
	char text[SL_SPOOL_CURSOR_BYTES + 1];
	struct sl_spool_cursor cursor;

	if (!store->moved)
		return;
	store->moved = false;
	cursor = cursor_of(store);
	sl_spool_put_cursor(text, &cursor);
	if (pwrite(store->cursor, text, SL_SPOOL_CURSOR_BYTES, 0) != SL_SPOOL_CURSOR_BYTES)
		sl_log(SL_LOG_WARN, "spool_cursor_not_written", "folder=\"%s\" reason=\"%s\"",
		       store->folder, strerror(errno));
}

void sl_spool_store_close(struct sl_spool_store *store)
{
	if (!store)
		return;
	if (store->cursor >= 0) {
		write_cursor(store);
		close(store->cursor);
	}
	while (store->segments) {
		struct sl_spool_segment *segment = store->segments;

		store->segments = segment->next;
		sl_spool_segment_free(segment);
	}
	free(store->asides);
	free(store->heads);
	free(store->pieces);
	free(store->folder);
	free(store);
}

void sl_spool_store_limit(struct sl_spool_store *store, const struct sl_spool_limits *limits)
{
	store->limits = *limits;
}

// --- in ------------------------------------------------------------------------------------------

// A file of that name may be there, and is not ours to write to or to take away: the next try has
// another number.
static int create_segment(struct sl_spool_store *store, struct sl_spool_segment **made)
{
	const struct sl_spool_cursor from = {.number = store->newest + 1};
	struct sl_spool_segment *segment = sl_spool_segment_make(&from);
	char path[PATH_MAX];
	int failed;

	if (!segment)
		return -ENOMEM;
	failed = sl_spool_path(store, segment->name, path);
	if (!failed) {
		segment->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		failed = segment->fd < 0 ? -errno : 0;
	}
	if (failed) {
		store->newest = segment->number;
		free(segment);
		return failed;
	}
	sl_spool_segment_add(store, segment);
	*made = segment;
	return 0;
}

static int begin_segment(struct sl_spool_store *store)
{
	uint8_t head[SL_SPOOL_SEGMENT_HEAD];
	struct sl_spool_segment *segment;
	int failed = create_segment(store, &segment);

	if (failed)
		return failed;
	if (!store->reading)
		store->reading = segment;
	segment->read = SL_SPOOL_SEGMENT_HEAD;
	failed = sl_spool_salt(&segment->salt);
	if (!failed) {
		sl_spool_put_segment(head, segment->salt);
		if (pwrite(segment->fd, head, sizeof(head), 0) != sizeof(head))
			failed = errno ? -errno : -EIO;
	}
	if (!failed)
		failed = sl_disk_sync_folder(store->folder);
	if (failed) {
		remove_segment(store, segment);
		return failed;
	}
	store->active = segment;
	return 0;
}

int sl_spool_store_sync(struct sl_spool_store *store)
{
	int failed;

	if (!store->active || fdatasync(store->active->fd) == 0)
		return 0;
	failed = -errno;
	store->active = NULL; // nobody knows what of it is on the disk: the next goes elsewhere
	return failed;
}

int sl_spool_retire(struct sl_spool_store *store)
{
	struct sl_spool_segment *active = store->active;
	const int failed = sl_spool_store_sync(store);

	store->active = NULL;
	if (active)
		sl_spool_segment_close(active);
	return failed;
}

// The oldest segment goes for room: of those that are not read, too. False: there is none.
static bool drop_oldest(struct sl_spool_store *store)
{
	const struct sl_spool_segment *first = store->segments;

	if (store->figures.aside && (!first || store->asides[0].from.number < first->number))
		return sl_spool_drop_aside(store);
	if (!first)
		return false;
	sl_log(SL_LOG_WARN, "spool_dropped", "folder=\"%s\" segment=%s reason=full", store->folder,
	       first->name);
	remove_segment(store, store->segments);
	return true;
}

static bool has_room(const struct sl_spool_store *store, uint64_t bytes)
{
	return store->figures.bytes + store->aside_bytes + SL_SPOOL_SEGMENT_HEAD + bytes <=
	       store->limits.bytes_max;
}

// Room for so many bytes: by a new segment, by dropping old ones, or none, and nothing is changed.
static int make_room(struct sl_spool_store *store, uint64_t bytes)
{
	const struct sl_spool_limits *limits = &store->limits;
	int failed = 0;

	if (2 * SL_SPOOL_SEGMENT_HEAD + bytes > limits->bytes_max)
		return -ENOSPC; // dropping all the others would not help
	if (!has_room(store, bytes))
		remove_read(store, true); // all of the active one may be gone
	if (!has_room(store, bytes) && !limits->drop_oldest)
		return -ENOSPC;
	if (store->active && store->active->bytes + bytes > limits->segment_bytes &&
	    store->active->bytes > SL_SPOOL_SEGMENT_HEAD)
		failed = sl_spool_retire(store); // later ones are of the next
	while (!failed && !has_room(store, bytes)) {
		if (!drop_oldest(store))
			failed = -ENOSPC;
	}
	if (failed)
		return failed;
	return store->active ? 0 : begin_segment(store);
}

static int reserve(struct sl_spool_store *store, uint32_t writes, size_t pieces)
{
	void *grown;

	if (writes > store->head_capacity) {
		grown = realloc(store->heads, writes * sizeof(*store->heads));
		if (!grown)
			return -ENOMEM;
		store->heads = grown;
		store->head_capacity = writes;
	}
	if (pieces > store->piece_capacity) {
		grown = realloc(store->pieces, pieces * sizeof(*store->pieces));
		if (!grown)
			return -ENOMEM;
		store->pieces = grown;
		store->piece_capacity = pieces;
	}
	return 0;
}

static size_t gather(struct sl_spool_store *store, const struct sl_spool_write *writes,
		     uint32_t count)
{
	struct iovec *out = store->pieces;

	for (uint32_t i = 0; i < count; i++) {
		const struct sl_spool_write *write = &writes[i];
		const struct sl_bytes texts[] = {write->entry.tenant, write->entry.key};

		const struct iovec *body;

		*out++ = (struct iovec){store->heads[i], SL_SPOOL_ENTRY_HEAD};
		for (unsigned j = 0; j < SL_COUNT_OF(texts); j++)
			if (texts[j].size)
				*out++ = (struct iovec){(void *)(uintptr_t)texts[j].data,
							texts[j].size};
		body = out;
		if (write->front.size)
			*out++ = (struct iovec){(void *)(uintptr_t)write->front.data,
						write->front.size};
		memcpy(out, write->pieces, write->piece_count * sizeof(*out));
		out += write->piece_count;
		sl_spool_put_entry(store->heads[i], store->active->salt, &write->entry, body,
				   (uint32_t)(out - body));
	}
	return (size_t)(out - store->pieces);
}

int sl_spool_store_append(struct sl_spool_store *store, const struct sl_spool_write *writes,
			  uint32_t count, bool sync)
{
	struct sl_spool_segment *active;
	uint64_t bytes = 0;
	size_t pieces = 0;
	int failed;

	for (uint32_t i = 0; i < count; i++) {
		bytes += sl_spool_entry_bytes(&writes[i].entry);
		pieces += 4 + writes[i].piece_count;
	}
	failed = reserve(store, count, pieces);
	if (!failed)
		failed = make_room(store, bytes);
	if (failed)
		return failed;
	active = store->active;
	if (lseek(active->fd, (off_t)active->bytes, SEEK_SET) < 0)
		return -errno;
	failed = sl_disk_write(active->fd, store->pieces, gather(store, writes, count));
	if (!failed && sync)
		failed = sl_spool_store_sync(store);
	if (failed) {
		// Where even that fails, the rest of the file is left to the next open.
		if (ftruncate(active->fd, (off_t)active->bytes) < 0)
			store->active = NULL;
		return failed;
	}
	active->bytes += bytes;
	store->figures.bytes += bytes;
	for (uint32_t i = 0; i < count; i++) {
		const struct sl_spool_entry *entry = &writes[i].entry;

		active->items[entry->signal] += entry->items;
		store->figures.items[entry->signal] += entry->items;
		active->newest_ns = SL_MAX(active->newest_ns, entry->wall_ns);
	}
	return 0;
}

static bool is_old(const struct sl_spool_store *store, uint64_t wall_ns)
{
	return store->limits.age_max_ns && wall_ns &&
	       store->wall_ns > wall_ns + store->limits.age_max_ns;
}

// --- out -----------------------------------------------------------------------------------------

static struct sl_spool_slot *slot_back(struct sl_spool_store *store)
{
	for (uint32_t i = store->first; i != store->end && store->back_count; i++) {
		struct sl_spool_slot *slot = &store->slots[i % SL_SPOOL_OUT_MAX];

		if (slot->state == SL_SPOOL_BACK && !slot->segment->sick)
			return slot;
	}
	return NULL;
}

static void book(struct sl_spool_store *store, struct sl_spool_slot *slot, bool out)
{
	struct sl_spool_segment *segment = slot->segment;
	const uint64_t more = out ? -(uint64_t)slot->items : slot->items;

	if (segment) {
		segment->items[slot->signal] += more;
		store->figures.items[slot->signal] += more;
	} else if (!out) {
		store->figures.dropped_items[slot->signal] += slot->items;
	}
}

static void end_slot(struct sl_spool_store *store, struct sl_spool_slot *slot)
{
	slot->state = SL_SPOOL_GONE;
	if (slot->segment)
		slot->segment->out--;
	slot->segment = NULL;
	skip_gone(store);
	store->moved = true;
}

// One that came back, again; `*wait`: there is no memory or descriptor for it now.
static struct sl_spool_read *next_back(struct sl_spool_store *store, bool *wait)
{
	struct sl_spool_slot *slot;

	*wait = false;
	while ((slot = slot_back(store))) {
		bool gone;
		struct sl_spool_read *read = sl_spool_load(store, slot, &gone);

		if (slot->segment->sick) {
			sl_spool_leave(store, slot->segment);
			continue;
		}
		*wait = !read && !gone;
		if (*wait)
			return NULL;
		store->back_count--;
		if (read) {
			read->slot = (uint32_t)(slot - store->slots);
			return read;
		}
		end_slot(store, slot);
	}
	return NULL;
}

static struct sl_spool_read *next_new(struct sl_spool_store *store)
{
	while (store->end - store->first < SL_SPOOL_OUT_MAX && store->reading) {
		struct sl_spool_segment *segment = store->reading;
		struct sl_spool_slot *slot = &store->slots[store->end % SL_SPOOL_OUT_MAX];
		struct sl_spool_read *read;
		bool ended;

		if (segment->sick) {
			store->reading = segment->next;
			continue;
		}
		read = sl_spool_load_next(store, segment, slot, &ended);
		if (segment->sick) {
			sl_spool_leave(store, segment);
			continue;
		}
		if (read) {
			store->end++;
			segment->out++;
			read->slot = (uint32_t)(slot - store->slots);
			return read;
		}
		if (!ended || !segment->next)
			return NULL;
		sl_spool_segment_close(segment);
		store->reading = segment->next;
	}
	return NULL;
}

static struct sl_spool_read *next(struct sl_spool_store *store, bool new_first)
{
	struct sl_spool_read *read = new_first ? next_new(store) : NULL;
	bool wait = false;

	if (!read)
		read = next_back(store, &wait);
	if (!read && !wait && !new_first)
		read = next_new(store);
	return read;
}

struct sl_spool_read *sl_spool_store_next(struct sl_spool_store *store, bool new_first)
{
	struct sl_spool_read *read;

	while ((read = next(store, new_first))) {
		struct sl_spool_slot *slot = &store->slots[read->slot];

		slot->state = SL_SPOOL_OUT;
		book(store, slot, true);
		if (!is_old(store, slot->wall_ns))
			return read;
		// Its segment may be kept for others: one that was put last is as old as it is.
		sl_log(SL_LOG_WARN, "spool_dropped", "folder=\"%s\" items=%u reason=age",
		       store->folder, slot->items);
		store->figures.dropped_items[slot->signal] += slot->items;
		end_slot(store, slot);
		free(read);
	}
	remove_read(store, false);
	return NULL;
}

void sl_spool_store_end(struct sl_spool_store *store, uint32_t number, bool gone)
{
	struct sl_spool_slot *slot = &store->slots[number];
	struct sl_spool_segment *segment = slot->segment;

	assert(slot->state == SL_SPOOL_OUT);
	if (!gone)
		book(store, slot, false);
	gone |= !segment; // what was dropped meanwhile does not come out again
	if (gone) {
		end_slot(store, slot);
	} else {
		slot->state = SL_SPOOL_BACK;
		store->back_count++;
	}
	if (segment && segment->sick)
		sl_spool_leave(store, segment);
	if (gone)
		remove_read(store, false);
}

bool sl_spool_store_is_empty(const struct sl_spool_store *store)
{
	const struct sl_spool_segment *reading = store->reading;

	return store->first == store->end &&
	       (!reading || (reading->read == reading->bytes && !reading->next));
}

// Entries may be out of order by what was put last: the first in the file counts.
static uint64_t oldest_ns(struct sl_spool_store *store)
{
	for (uint32_t i = store->first; i != store->end; i++) {
		const struct sl_spool_slot *slot = &store->slots[i % SL_SPOOL_OUT_MAX];

		if (slot->state != SL_SPOOL_GONE && slot->segment)
			return slot->wall_ns;
	}
	for (struct sl_spool_segment *segment = store->reading; segment; segment = segment->next) {
		if (segment->read < segment->bytes)
			return sl_spool_peek(store, segment);
	}
	return 0;
}

void sl_spool_store_tick(struct sl_spool_store *store, uint64_t wall_ns)
{
	uint64_t oldest;

	store->wall_ns = wall_ns;
	while (store->segments && is_old(store, store->segments->newest_ns)) {
		sl_log(SL_LOG_WARN, "spool_dropped", "folder=\"%s\" segment=%s reason=age",
		       store->folder, store->segments->name);
		remove_segment(store, store->segments);
	}
	remove_read(store, true);
	sl_spool_try_aside(store, wall_ns);
	write_cursor(store);
	oldest = oldest_ns(store);
	store->figures.age_ns = oldest && oldest < wall_ns ? wall_ns - oldest : 0;
}

const struct sl_spool_figures *sl_spool_store_figures(const struct sl_spool_store *store)
{
	return &store->figures;
}
