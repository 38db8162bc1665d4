#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataplane/base/disk.h"
#include "dataplane/base/log.h"
#include "routing/spool/internal.h"

// What the disk does not give is kept under a name that tells how far it had come, so that nothing
// has to be read from a disk that fails to know it:
//
//   0000000000000001.spool ──▶ 0000000000000001.spool.1f40.unread ──▶ 0000000000000007.spool.1f40
//
// It keeps that place when it is read again: the cursor tells of one segment alone.

#define LOOK_NS (30 * SL_S)

// What the process or the whole disk has run out of says nothing of a file.
bool sl_spool_is_the_file_s(int failed)
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

int sl_spool_put_aside(const struct sl_spool_store *store, const char *name, const char *other)
{
	char from[PATH_MAX], to[PATH_MAX];
	struct stat found;
	int failed;

	if (sl_spool_path(store, name, from) < 0 || sl_spool_path(store, other, to) < 0)
		return -ENAMETOOLONG;
	if (lstat(to, &found) == 0)
		return -EEXIST; // it is kept, too
	if (rename(from, to) < 0)
		return -errno;
	// A cursor that passes it must not be on the disk before it has another name there.
	failed = sl_disk_sync_folder(store->folder);
	if (failed && rename(to, from) < 0)
		return 0; // it has that name, whatever the disk knows of it
	return failed;
}

static struct sl_spool_aside *one_more(struct sl_spool_store *store)
{
	if (store->figures.aside == store->aside_capacity) {
		const uint32_t capacity = store->aside_capacity ? store->aside_capacity * 2 : 16;
		void *grown = realloc(store->asides, capacity * sizeof(*store->asides));

		if (!grown)
			return NULL;
		store->asides = grown;
		store->aside_capacity = capacity;
	}
	return &store->asides[store->figures.aside];
}

static void add(struct sl_spool_store *store, const struct sl_spool_aside *aside)
{
	uint64_t at = store->figures.aside;

	for (; at && store->asides[at - 1].from.number > aside->from.number; at--)
		store->asides[at] = store->asides[at - 1];
	store->asides[at] = *aside;
	store->figures.aside++;
	store->aside_bytes += aside->bytes;
}

static void forget(struct sl_spool_store *store, uint64_t at)
{
	store->aside_bytes -= store->asides[at].bytes;
	store->figures.aside--;
	memmove(&store->asides[at], &store->asides[at + 1],
		(store->figures.aside - at) * sizeof(*store->asides));
}

int sl_spool_know_aside(struct sl_spool_store *store, const struct sl_spool_cursor *from)
{
	struct sl_spool_aside aside = {.from = *from};
	char name[SL_SPOOL_NAME_BYTES], path[PATH_MAX];
	struct stat found;

	if (!one_more(store))
		return -ENOMEM;
	sl_spool_name(name, from, SL_SPOOL_UNREAD);
	if (sl_spool_path(store, name, path) == 0 && lstat(path, &found) == 0)
		aside.bytes = (uint64_t)found.st_size;
	add(store, &aside);
	return 0;
}

int sl_spool_put_unread(struct sl_spool_store *store, const struct sl_spool_segment *segment,
			uint64_t at)
{
	const struct sl_spool_cursor from = {segment->number, at};
	char other[SL_SPOOL_NAME_BYTES];
	int failed;

	if (!one_more(store))
		return -ENOMEM;
	sl_spool_name(other, &from, SL_SPOOL_UNREAD);
	failed = sl_spool_put_aside(store, segment->name, other);
	if (failed)
		return failed;
	store->newest = SL_MAX(store->newest, segment->number); // its name stays its own
	sl_log(SL_LOG_ERROR, "spool_segment_put_aside", "file=\"%s/%s\" kept_as=\"%s\"",
	       store->folder, segment->name, other);
	return sl_spool_know_aside(store, &from);
}

static void retire(struct sl_spool_store *store)
{
	const int failed = sl_spool_retire(store);

	if (failed)
		sl_log(SL_LOG_ERROR, "spool_not_synced", "folder=\"%s\" reason=\"%s\"",
		       store->folder, strerror(-failed));
}

// From where nothing of it is gone. False: one of its entries is out, and may be gone soon.
static bool place_of(const struct sl_spool_store *store, const struct sl_spool_segment *segment,
		     uint64_t *at)
{
	*at = segment->read;
	for (uint32_t i = store->first; i != store->end; i++) {
		const struct sl_spool_slot *slot = &store->slots[i % SL_SPOOL_OUT_MAX];

		if (slot->segment != segment)
			continue;
		if (slot->state == SL_SPOOL_OUT)
			return false;
		*at = SL_MIN(*at, slot->at);
	}
	return true;
}

void sl_spool_leave(struct sl_spool_store *store, struct sl_spool_segment *segment)
{
	uint64_t at;

	if (store->active == segment)
		retire(store); // what is appended is not to wait behind it
	if (!place_of(store, segment, &at) || sl_spool_put_unread(store, segment, at) < 0)
		return; // passed over where it is, and tried again
	for (uint64_t i = 0; i < store->figures.aside; i++) {
		if (store->asides[i].from.number == segment->number)
			memcpy(store->asides[i].items, segment->items, sizeof(segment->items));
	}
	sl_spool_segment_unlist(store, segment);
	sl_spool_segment_free(segment);
}

// What was counted when it was put aside, and what is found now: more is recovered, less is lost.
static void book(struct sl_spool_store *store, const struct sl_spool_aside *aside,
		 const uint64_t found[SL_SIGNALS])
{
	struct sl_spool_figures *figures = &store->figures;

	for (unsigned i = 0; i < SL_SIGNALS; i++) {
		figures->items[i] -= aside->items[i];
		if (found[i] > aside->items[i])
			figures->recovered_items[i] += found[i] - aside->items[i];
		else
			figures->dropped_items[i] += aside->items[i] - found[i];
	}
}

// In behind all others, under a number of its own. Returns whether it is not aside any more.
static bool take_unread(struct sl_spool_store *store, const struct sl_spool_aside *aside)
{
	static const uint64_t none[SL_SIGNALS];
	const struct sl_spool_cursor next = {store->newest + 1, aside->from.at};
	struct sl_spool_segment *segment = sl_spool_segment_make(&next);
	char name[sizeof(segment->name)], was[SL_SPOOL_NAME_BYTES], from[PATH_MAX], to[PATH_MAX];
	int found;

	if (!segment)
		return false;
	strcpy(name, segment->name);
	sl_spool_name(was, &aside->from, SL_SPOOL_UNREAD);
	strcpy(segment->name, was);
	found = sl_spool_scan(store, segment, aside->from.at);
	segment->sick = false;
	// Where the folder is not synced it has the name that it had, and comes again.
	if (found > 0 && (sl_spool_path(store, was, from) < 0 ||
			  sl_spool_path(store, name, to) < 0 || rename(from, to) < 0))
		found = -EIO;
	if (found == 0) {
		sl_spool_drop_file(store, was);
		book(store, aside, none);
	}
	if (found <= 0) {
		sl_spool_segment_free(segment);
		return found == 0;
	}
	sl_log(SL_LOG_WARN, "spool_segment_read_again", "file=\"%s/%s\" was=\"%s\"", store->folder,
	       name, was);
	strcpy(segment->name, name);
	(void)sl_disk_sync_folder(store->folder);
	retire(store); // what is appended comes behind it
	book(store, aside, segment->items);
	sl_spool_segment_add(store, segment);
	if (!store->reading)
		store->reading = segment;
	return true;
}

// Those that could not be put aside: aside, or read again where they are.
static void try_sick(struct sl_spool_store *store)
{
	struct sl_spool_segment *segment = store->segments, *next, *first = NULL;

	for (; segment; segment = next) {
		next = segment->next;
		if (segment->sick)
			sl_spool_leave(store, segment);
	}
	for (segment = store->segments; segment; segment = segment->next) {
		if (segment->sick && !first)
			first = segment;
		segment->sick = false;
	}
	if (first)
		store->reading = first;
}

void sl_spool_try_aside(struct sl_spool_store *store, uint64_t wall_ns)
{
	if (wall_ns < store->aside_due_ns)
		return;
	store->aside_due_ns = wall_ns + LOOK_NS;
	for (uint64_t i = 0; i < store->figures.aside;) {
		const struct sl_spool_aside aside = store->asides[i];

		if (take_unread(store, &aside))
			forget(store, i);
		else
			i++;
	}
	try_sick(store);
}

bool sl_spool_drop_aside(struct sl_spool_store *store)
{
	static const uint64_t none[SL_SIGNALS];
	char name[SL_SPOOL_NAME_BYTES];

	if (!store->figures.aside)
		return false;
	sl_spool_name(name, &store->asides[0].from, SL_SPOOL_UNREAD);
	sl_log(SL_LOG_WARN, "spool_dropped", "folder=\"%s\" segment=%s reason=full", store->folder,
	       name);
	sl_spool_drop_file(store, name);
	book(store, &store->asides[0], none);
	forget(store, 0);
	return true;
}
