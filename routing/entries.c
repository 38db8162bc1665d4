#include "routing/entries.h"

#include <yajl/yajl_tree.h>

#include "dataplane/base/varint.h"
#include "routing/spool/format.h"

// The headers of a line, {...}: they come first, as sl_dead_letter_json() wrote them.
static struct sl_bytes headers_of(struct sl_bytes line)
{
	static const char key[] = "{\"sluiceDeadLetter\":";
	const size_t from = sizeof(key) - 1;
	bool inside = false;

	if (line.size <= from || memcmp(line.data, key, from) != 0)
		return SL_BYTES_NONE;
	for (size_t i = from; i < line.size; i++) {
		const uint8_t c = line.data[i];

		if (inside && c == '\\')
			i++;
		else if (c == '"')
			inside = !inside;
		else if (c == '}' && !inside)
			return sl_bytes(line.data + from, i + 1 - from);
	}
	return SL_BYTES_NONE;
}

static int64_t read_line(struct sl_bytes rest, struct sl_entry *entry)
{
	const uint8_t *end = memchr(rest.data, '\n', rest.size);

	if (!end)
		return -1;
	entry->body = sl_bytes(rest.data, (size_t)(end - rest.data));
	entry->letter = headers_of(entry->body);
	return (int64_t)entry->body.size + 1;
}

static int64_t read_delimited(struct sl_bytes rest, struct sl_entry *entry)
{
	struct sl_bytes values[SL_DEAD_LETTER_HEADERS];
	uint64_t size;
	const int used = sl_varint_get(rest.data, rest.size, &size);
	size_t headers;

	if (used <= 0 || size > rest.size - (size_t)used)
		return -1;
	entry->body = sl_bytes(rest.data + used, size);
	headers = sl_dead_letter_read(entry->body, values);
	if (headers && values[0].size) // without a reason they only stand before a sender's own
		entry->letter = sl_bytes(entry->body.data, headers);
	entry->body = sl_bytes(entry->body.data + headers, size - headers);
	return used + (int64_t)size;
}

bool sl_entries_is_segment(struct sl_bytes file)
{
	uint64_t salt;

	return file.size >= SL_SPOOL_SEGMENT_HEAD && sl_spool_get_segment(file.data, &salt);
}

// The bytes of a whole entry at the beginning of `rest`; 0: it is damaged.
static uint64_t whole_entry(struct sl_bytes rest, uint64_t salt, struct sl_entry *entry)
{
	struct sl_spool_entry found;
	uint64_t bytes;

	if (rest.size < SL_SPOOL_ENTRY_HEAD || !sl_spool_get_entry(rest.data, salt, &found))
		return 0;
	bytes = sl_spool_entry_bytes(&found);
	if (bytes > rest.size || !sl_spool_get_rest(rest.data, salt,
						    sl_bytes(rest.data + SL_SPOOL_ENTRY_HEAD,
							     bytes - SL_SPOOL_ENTRY_HEAD),
						    &found, &entry->body))
		return 0;
	if (found.letter) {
		struct sl_bytes values[SL_DEAD_LETTER_HEADERS];
		const size_t headers = sl_dead_letter_read(entry->body, values);

		entry->letter = sl_bytes(entry->body.data, headers);
		entry->body = sl_bytes(entry->body.data + headers, entry->body.size - headers);
	}
	entry->tenant = found.tenant;
	entry->signal = found.signal;
	return bytes;
}

static int64_t read_segment(struct sl_bytes file, uint64_t at, struct sl_entry *entry)
{
	const uint64_t from = SL_MAX(at, (uint64_t)SL_SPOOL_SEGMENT_HEAD);
	struct sl_bytes rest;
	uint64_t salt, bytes;

	if (file.size < SL_SPOOL_SEGMENT_HEAD || !sl_spool_get_segment(file.data, &salt))
		return -1;
	rest = sl_bytes(file.data + from, file.size - from);
	if (!rest.size)
		return (int64_t)(from - at); // a segment without entries
	bytes = whole_entry(rest, salt, entry);
	entry->damaged = !bytes;
	if (!bytes)
		bytes = sl_spool_find(rest, 1, salt);
	return (int64_t)(from - at + bytes);
}

int64_t sl_entry_read(struct sl_bytes file, uint64_t at, enum sl_entries kind,
		      struct sl_entry *entry)
{
	struct sl_bytes rest;

	assert(at <= file.size);
	rest = sl_bytes(file.data + at, file.size - at);
	*entry = (struct sl_entry){.json = kind == SL_ENTRIES_LINES};
	if (!rest.size)
		return 0;
	if (kind == SL_ENTRIES_SEGMENT)
		return read_segment(file, at, entry);
	return entry->json ? read_line(rest, entry) : read_delimited(rest, entry);
}

static size_t copy(char *out, size_t size, struct sl_bytes text)
{
	const size_t count = SL_MIN(text.size, size - 1);

	memcpy(out, text.data, count);
	out[count] = 0;
	return count;
}

static bool json_tenant(struct sl_bytes headers, char *tenant, size_t size)
{
	const char *path[] = {"tenant", NULL};
	char text[SL_DEAD_LETTER_JSON_BYTES];
	yajl_val tree, value;
	const char *name;

	if (headers.size >= sizeof(text))
		return false;
	copy(text, sizeof(text), headers);
	tree = yajl_tree_parse(text, NULL, 0);
	value = tree ? yajl_tree_get(tree, path, yajl_t_string) : NULL;
	name = value ? YAJL_GET_STRING(value) : NULL;
	if (name)
		copy(tenant, size, sl_bytes_of(name));
	yajl_tree_free(tree);
	return name != NULL;
}

bool sl_entry_tenant(const struct sl_entry *entry, char *tenant, size_t size)
{
	struct sl_bytes values[SL_DEAD_LETTER_HEADERS];

	if (entry->tenant.data) {
		copy(tenant, size, entry->tenant);
		return true;
	}
	if (!entry->letter.size)
		return false;
	if (entry->json)
		return json_tenant(entry->letter, tenant, size);
	if (!sl_dead_letter_read(entry->letter, values))
		return false;
	copy(tenant, size, values[1]);
	return true;
}
