#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/disk.h"
#include "dataplane/base/log.h"
#include "dataplane/base/sides.h"
#include "dataplane/base/varint.h"
#include "dataplane/otlp/json.h"
#include "routing/dead_letter.h"
#include "routing/driver.h"

// Files of Export requests. One writer thread a destination, to which each shard lends its records
// (base/sides.h), read where they lie. The writer writes whole groups: a group that fails is cut
// off the file again, so a file holds whole records only.
//
// Files: <path>/<signal>-<YYYYMMDDTHHMMSSZ>-<number>.binpb (each request behind its length as a
// varint) or .jsonl (one request a line); the number goes up with each file of the process. A dead
// letter has its headers in front, where readers of OTLP skip them (dead_letter.h).
#define RECORDS_MAX 4096 // of one shard with the writer
#define GROUP_MAX   256  // records written at once
#define IDLE_MS     1000 // how often age is looked at
#define PATH_BYTES  4096
#define TEXT_KEPT   (4 * SL_MIB) // a larger text buffer goes back to the machine

struct output {
	int fd; // -1: none
	uint64_t bytes, opened_ns;
};

struct file {
	char *path;
	enum sl_file_format format;
	uint64_t rotate_bytes, rotate_age_ns;
	bool fsync;
	struct sl_sides sides;
	// The writer's.
	struct output outputs[SL_SIGNALS];
	uint32_t number;
	struct sl_json_text text;
	struct iovec *pieces;
	size_t piece_count, piece_capacity;
	uint8_t *gathered;
	size_t gathered_capacity;
};

struct entry {
	struct sl_record *record;
	struct sl_side *side;
	enum sl_outcome outcome;
	uint8_t prefix[SL_VARINT_BYTES_MAX];
};

// --- the writer ----------------------------------------------------------------------------------

static void close_output(struct output *output)
{
	if (output->fd >= 0)
		close(output->fd);
	output->fd = -1;
}

static int open_output(struct file *file, enum sl_signal signal, uint64_t now_ns)
{
	struct output *output = &file->outputs[signal];
	const time_t wall = (time_t)(sl_clock_wall_ns() / SL_S);
	char path[PATH_BYTES], stamp[32];
	struct tm utc;
	int failed;

	if (output->fd >= 0 &&
	    (output->bytes >= file->rotate_bytes ||
	     (file->rotate_age_ns && now_ns - output->opened_ns >= file->rotate_age_ns)))
		close_output(output);
	if (output->fd >= 0)
		return 0;
	gmtime_r(&wall, &utc);
	strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", &utc);
	do {
		snprintf(path, sizeof(path), "%s/%s-%s-%06u.%s", file->path,
			 sl_signal_names[signal], stamp, ++file->number,
			 file->format == SL_FILE_JSON ? "jsonl" : "binpb");
		output->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
	} while (output->fd < 0 && errno == EEXIST);
	output->bytes = 0;
	output->opened_ns = now_ns;
	if (output->fd < 0)
		return -errno;
	failed = file->fsync ? sl_disk_sync_folder(file->path) : 0;
	if (failed)
		close_output(output);
	return failed;
}

static int add_piece(struct file *file, const void *data, size_t size)
{
	if (file->piece_count == file->piece_capacity) {
		const size_t capacity = file->piece_capacity ? file->piece_capacity * 2 : 1024;
		void *grown = realloc(file->pieces, capacity * sizeof(*file->pieces));

		if (!grown)
			return -ENOMEM;
		file->pieces = grown;
		file->piece_capacity = capacity;
	}
	file->pieces[file->piece_count++] = (struct iovec){(void *)(uintptr_t)data, size};
	return 0;
}

// Whether a sender's own fields stand where a dead letter's headers would.
static bool looks_dead(const struct sl_record *record)
{
	uint8_t tag[SL_VARINT_BYTES_MAX];
	size_t size = 0;
	uint64_t found;

	for (uint32_t i = 0; i < record->piece_count && size < sizeof(tag); i++) {
		const size_t more = SL_MIN(record->pieces[i].iov_len, sizeof(tag) - size);

		memcpy(tag + size, record->pieces[i].iov_base, more);
		size += more;
	}
	return sl_varint_get(tag, size, &found) > 0 && found >> 3 == SL_DEAD_LETTER_FIELD;
}

static int add_wire(struct file *file, struct entry *entry)
{
	const struct sl_record *record = entry->record;
	const size_t before = file->piece_count;
	const struct sl_bytes letter = record->letter       ? record->letter->wire
				       : looks_dead(record) ? sl_dead_letter_none
							    : SL_BYTES_NONE;
	int failed = add_piece(file, entry->prefix,
			       sl_varint_put(entry->prefix, letter.size + record->bytes));

	if (letter.size && !failed)
		failed = add_piece(file, letter.data, letter.size);

	for (uint32_t i = 0; i < record->piece_count && !failed; i++)
		failed = add_piece(file, record->pieces[i].iov_base, record->pieces[i].iov_len);
	if (failed)
		file->piece_count = before; // no half of it is written
	return failed;
}

static int grow_text(struct sl_json_text *text, size_t more)
{
	void *grown;

	if (text->capacity - text->size >= more)
		return 0;
	grown = realloc(text->text, text->size + more + 64);
	if (!grown)
		return -ENOMEM;
	text->text = grown;
	text->capacity = text->size + more + 64;
	return 0;
}

// The request's JSON; a dead letter's headers are its first member.
static int put_json(struct file *file, const struct sl_record *record, struct sl_bytes wire)
{
	struct sl_json_text *text = &file->text;
	size_t brace;
	int failed;

	if (!record->letter)
		return sl_json_from_wire(record->signal, wire, text);
	if (grow_text(text, SL_DEAD_LETTER_JSON_BYTES) < 0)
		return -ENOMEM;
	text->size += sl_dead_letter_json(record->letter, text->text + text->size);
	brace = text->size;
	failed = sl_json_from_wire(record->signal, wire, text);
	if (failed)
		return failed;
	assert(text->size >= brace + 2 && text->text[brace] == '{');
	if (text->text[brace + 1] == '}')
		text->text[--text->size - 1] = '}';
	else
		text->text[brace] = ',';
	return 0;
}

static int add_json(struct file *file, struct entry *entry)
{
	const struct sl_record *record = entry->record;
	const size_t before = file->text.size;
	size_t at = 0;
	int failed;

	if (record->bytes > file->gathered_capacity) {
		void *grown = realloc(file->gathered, record->bytes + 64);

		if (!grown)
			return -ENOMEM;
		file->gathered = grown;
		file->gathered_capacity = record->bytes;
	}
	for (uint32_t i = 0; i < record->piece_count; i++) {
		memcpy(file->gathered + at, record->pieces[i].iov_base, record->pieces[i].iov_len);
		at += record->pieces[i].iov_len;
	}
	failed = put_json(file, record, sl_bytes(file->gathered, at));
	if (!failed)
		failed = grow_text(&file->text, 1);
	if (failed)
		file->text.size = before;
	else
		file->text.text[file->text.size++] = '\n';
	return failed;
}

// Writes the group's records of one signal; sets their outcomes.
static void write_signal(struct file *file, struct entry *group, uint32_t count,
			 enum sl_signal signal)
{
	struct output *output = &file->outputs[signal];
	uint64_t bytes = 0;
	uint32_t wanted = 0;
	int failed;

	file->piece_count = file->text.size = 0;
	for (uint32_t i = 0; i < count; i++) {
		if (group[i].record->signal != signal)
			continue;
		failed = file->format == SL_FILE_JSON ? add_json(file, &group[i])
						      : add_wire(file, &group[i]);
		group[i].record->refusal = "no valid protobuf";
		group[i].outcome = failed == -EINVAL ? SL_OUTCOME_REJECTED
				   : failed          ? SL_OUTCOME_RETRYABLE
						     : SL_OUTCOME_DELIVERED;
		wanted += !failed;
	}
	if (!wanted)
		return;
	failed = file->text.size ? add_piece(file, file->text.text, file->text.size) : 0;
	for (size_t i = 0; i < file->piece_count; i++)
		bytes += file->pieces[i].iov_len;
	if (!failed)
		failed = open_output(file, signal, sl_clock_now_ns());
	if (!failed)
		failed = sl_disk_write(output->fd, file->pieces, file->piece_count);
	if (!failed && file->fsync && fdatasync(output->fd) < 0)
		failed = -errno;
	if (!failed) {
		output->bytes += bytes;
		return;
	}
	sl_log(SL_LOG_ERROR, "file_not_written", "path=\"%s\" reason=\"%s\"", file->path,
	       strerror(-failed));
	// What was begun goes; where even that fails, the next group gets a new file.
	if (output->fd >= 0 && ftruncate(output->fd, (off_t)output->bytes) < 0)
		close_output(output);
	for (uint32_t i = 0; i < count; i++) {
		if (group[i].record->signal == signal && group[i].outcome == SL_OUTCOME_DELIVERED)
			group[i].outcome = SL_OUTCOME_RETRYABLE;
	}
}

static void write_group(struct file *file, struct entry *group, uint32_t count)
{
	for (unsigned signal = 0; signal < SL_SIGNALS; signal++)
		write_signal(file, group, count, signal);
	for (uint32_t i = 0; i < count; i++) {
		group[i].record->driver_data = (void *)(uintptr_t)group[i].outcome;
		sl_helper_return(group[i].side, group[i].record);
	}
	sl_sides_wake(&file->sides);
	if (file->text.capacity > TEXT_KEPT)
		sl_json_text_fini(&file->text);
}

// A share of the group for each shard, so that busy ones do not starve the others.
static uint32_t collect(struct file *file, struct entry *group)
{
	const uint32_t share = SL_MAX(1u, GROUP_MAX / SL_MAX(4u, file->sides.count));
	uint32_t count = 0;

	for (struct sl_side *side = file->sides.first; side; side = side->next) {
		for (uint32_t i = 0; i < share && count < GROUP_MAX; i++) {
			struct sl_record *record = sl_helper_take(side);

			if (!record)
				break;
			group[count++] = (struct entry){.record = record, .side = side};
		}
	}
	return count;
}

static void *writer_main(void *argument)
{
	struct file *file = argument;
	struct entry *group = calloc(GROUP_MAX, sizeof(*group));

	if (!group)
		abort(); // at the thread's start only
	for (;;) {
		uint32_t count;

		sl_sides_turn(&file->sides);
		count = collect(file, group);
		if (count) {
			write_group(file, group, count);
			continue;
		}
		if (sl_sides_are_over(&file->sides))
			break;
		for (unsigned i = 0; i < SL_SIGNALS && file->rotate_age_ns; i++) {
			if (file->outputs[i].fd >= 0 &&
			    sl_clock_now_ns() - file->outputs[i].opened_ns >= file->rotate_age_ns)
				close_output(&file->outputs[i]);
		}
		sl_sides_wait(&file->sides, IDLE_MS);
	}
	free(group);
	return NULL;
}

// --- control thread ------------------------------------------------------------------------------

static const struct sl_sides_kind sides_kind = {
	.name = "file-writer",
	.side_bytes = sizeof(struct sl_side),
	.down = RECORDS_MAX,
};

static void destroy(void *self)
{
	struct file *file = self;

	sl_sides_end(&file->sides);
	for (unsigned i = 0; i < SL_SIGNALS; i++)
		close_output(&file->outputs[i]);
	sl_json_text_fini(&file->text);
	free(file->pieces);
	free(file->gathered);
	free(file->path);
	free(file);
}

static void *create(const struct sl_destination_config *destination, bool check_only,
		    struct sl_errors *errors)
{
	const struct sl_file_config *config = destination->file;
	struct file *file = calloc(1, sizeof(*file));
	int failed = -ENOMEM;

	if (!file)
		return NULL;
	for (unsigned i = 0; i < SL_SIGNALS; i++)
		file->outputs[i].fd = -1;
	file->format = config->format;
	file->rotate_bytes = config->rotate_bytes;
	file->rotate_age_ns = config->rotate_age_ns;
	file->fsync = config->fsync;
	file->path = strdup(config->path);
	if (!file->path)
		goto fail;
	if (check_only) {
		failed = sl_disk_look(file->path);
		if (failed)
			goto fail;
		return file;
	}
	failed = sl_disk_make_folders(file->path);
	if (!failed && access(file->path, W_OK | X_OK) < 0)
		failed = -errno;
	if (!failed)
		failed = sl_sides_init(&file->sides, &sides_kind);
	if (!failed)
		failed = sl_sides_start(&file->sides, writer_main, file);
	if (!failed)
		return file;
fail:
	sl_errors_add(errors, &config->where, "file: %s: %s", config->path, strerror(-failed));
	destroy(file);
	return NULL;
}

// --- shards --------------------------------------------------------------------------------------

static void *open_side(void *self, const struct sl_driver_env *env)
{
	struct file *file = self;

	return sl_side_open(&file->sides, env->waker);
}

static void close_side(void *side)
{
	sl_side_close(side);
}

static enum sl_reason submit(void *side, struct sl_record *record)
{
	return sl_side_give(side, record) ? SL_REASON_NONE : SL_REASON_EGRESS_FULL;
}

static void poll_side(void *side, uint64_t now_ns)
{
	struct sl_record *record;
	enum sl_outcome outcome;

	(void)now_ns;
	sl_side_flush(side);
	while ((record = sl_side_settle(side))) {
		outcome = (enum sl_outcome)(uintptr_t)record->driver_data;
		if (SL_UNLIKELY(outcome != SL_OUTCOME_DELIVERED))
			sl_egress_answered(record,
					   outcome == SL_OUTCOME_REJECTED ? SL_ANSWER_FILE_INVALID
									  : SL_ANSWER_FILE_ERROR,
					   outcome);
		sl_egress_end(record, outcome, 0);
	}
}

const struct sl_driver sl_driver_file = {
	.name = "file",
	.create = create,
	.destroy = destroy,
	.lingers = true,
	.open = open_side,
	.close = close_side,
	.submit = submit,
	.poll = poll_side,
};
