#include "config/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dataplane/base/hash.h"

#define FILE_BYTES_MAX  (256 * SL_MIB)
#define KEY_BYTES_MAX   200 // four bytes a character when escaped: below YAML's 1024 for a key
#define ROWS_MAX        128
#define PROTOTYPES_MAX  64
#define SHOWN_BYTES_MAX 60
#define NULL_LINE       (UINT32_C(1) << 31) // the key is there, its value is null

// A struct filled with presets only, made once a load: an entry of a map begins as its copy.
struct prototype {
	const struct sl_settings *settings;
	void *object;
};

struct loader {
	struct sl_loaded_memory *blocks;   // of what is loaded
	struct sl_loaded_memory *document; // of the tree, gone after the load
	struct sl_errors *errors;
	const char *file, *folder;
	const char *path[SL_YAML_DEPTH_MAX + 2]; // the keys around
	uint32_t path_count;
	struct prototype prototypes[PROTOTYPES_MAX];
	uint32_t prototype_count;
	struct sl_places *places;
};

static void fill_object(struct loader *loader, const struct sl_settings *settings,
			const struct sl_node *node, const struct sl_where *where, const char *key,
			const char *shorthand, void *object);
static void fill_row(struct loader *loader, const struct sl_setting *row,
		     const struct sl_node *node, const struct sl_where *where, void *field);

static struct sl_where where_of(const struct loader *loader, const struct sl_node *node)
{
	return (struct sl_where){loader->file, node->line, node->column};
}

// "a.b" of the keys around, and the last one.
static void path_text(const struct loader *loader, char *text, size_t size)
{
	size_t used = 0;

	text[0] = 0;
	for (uint32_t i = 0; i < loader->path_count && used < size - 1; i++) {
		used += (size_t)snprintf(text + used, size - used, "%s%s", used ? "." : "",
					 loader->path[i]);
	}
}

static void push(struct loader *loader, const char *name)
{
	assert(loader->path_count < SL_COUNT_OF(loader->path));
	loader->path[loader->path_count++] = name;
}

__attribute__((format(printf, 3, 4))) static void problem(struct loader *loader,
							  const struct sl_where *where,
							  const char *format, ...)
{
	char path[400], what[400];
	va_list args;

	path_text(loader, path, sizeof(path));
	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	sl_errors_add(loader->errors, where, "%s%s%s", path, path[0] ? ": " : "", what);
}

// What the file says there, for a message; a secret is not repeated.
static const char *shown(const struct sl_setting *row, const struct sl_node *node, char *text,
			 size_t size)
{
	if (node->kind == SL_NODE_MAPPING)
		return "a mapping";
	if (node->kind == SL_NODE_SEQUENCE)
		return "a list";
	if (row->secret)
		return "something else";
	snprintf(text, size, "\"%.*s%s\"", SHOWN_BYTES_MAX, node->text,
		 strlen(node->text) > SHOWN_BYTES_MAX ? "..." : "");
	return text;
}

static bool is_null(const struct sl_node *node)
{
	return node->kind == SL_NODE_SCALAR && node->plain &&
	       (!node->text[0] || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0);
}

static bool is_utf8(const char *text)
{
	const uint8_t *at = (const uint8_t *)text;

	while (*at) {
		const int more = *at < 0x80   ? 0
				 : *at < 0xc2 ? -1
				 : *at < 0xe0 ? 1
				 : *at < 0xf0 ? 2
				 : *at < 0xf5 ? 3
					      : -1;

		if (more < 0 || (*at == 0xe0 && at[1] < 0xa0) || (*at == 0xed && at[1] > 0x9f) ||
		    (*at == 0xf0 && at[1] < 0x90) || (*at == 0xf4 && at[1] > 0x8f))
			return false;
		for (int i = 1; i <= more; i++) {
			if ((at[i] & 0xc0) != 0x80)
				return false;
		}
		at += more + 1;
	}
	return true;
}

// One ${env:NAME} or ${env:NAME:-default} at `at`; returns its end, or NULL after a message.
static const char *expand_one(struct loader *loader, const struct sl_where *where, const char *at,
			      struct sl_text *out)
{
	const char *end = strchr(at, '}');
	const char *name = at + 6;
	const char *fallback, *value;
	char variable[128];
	size_t size;

	if (strncmp(at, "${env:", 6) != 0 || !end) {
		problem(loader, where,
			"expected ${env:NAME} or ${env:NAME:-default}; write $$ for $");
		return NULL;
	}
	fallback = memmem(name, (size_t)(end - name), ":-", 2);
	size = (size_t)((fallback ? fallback : end) - name);
	if (!size || size >= sizeof(variable)) {
		problem(loader, where, "${env:...} needs the name of a variable");
		return NULL;
	}
	memcpy(variable, name, size);
	variable[size] = 0;
	value = getenv(variable);
	if (value && !is_utf8(value)) {
		problem(loader, where, "environment variable %s is not UTF-8", variable);
		return NULL;
	}
	if (fallback && (!value || !*value)) {
		sl_text_add(out, fallback + 2, (size_t)(end - fallback - 2));
	} else if (value) {
		sl_text_add(out, value, strlen(value));
	} else {
		problem(loader, where, "environment variable %s is not set", variable);
		return NULL;
	}
	return end + 1;
}

// The scalar's text with references replaced, or NULL after a message. What a variable holds is
// not looked at again, so nothing grows.
static const char *expand(struct loader *loader, const struct sl_where *where, const char *text)
{
	struct sl_text out = {0};
	const char *copy = NULL;

	if (!strchr(text, '$'))
		return text;
	while (text && *text) {
		const char *dollar = strchrnul(text, '$');

		sl_text_add(&out, text, (size_t)(dollar - text));
		text = dollar;
		if (!*dollar)
			break;
		if (dollar[1] == '{') {
			text = expand_one(loader, where, dollar, &out);
		} else {
			sl_text_add(&out, "$", 1);
			text += dollar[1] == '$' ? 2 : 1;
		}
	}
	if (out.failed)
		problem(loader, where, "no memory");
	else if (text)
		copy = sl_blocks_text(loader->document, out.data ? out.data : "", out.size);
	free(out.data);
	return copy;
}

static const char *choice_name(const void *self, uint32_t index)
{
	return ((const struct sl_setting *)self)->choices[index];
}

static void wrong_choice(struct loader *loader, const struct sl_setting *row,
			 const struct sl_where *where, const char *text)
{
	char all[300] = "";
	size_t used = 0;
	uint32_t count = 0;
	const char *near;

	while (row->choices[count]) {
		if (used < sizeof(all))
			used += (size_t)snprintf(all + used, sizeof(all) - used, "%s%s",
						 count ? ", " : "", row->choices[count]);
		count++;
	}
	near = sl_nearest(text, choice_name, row, count);
	problem(loader, where, "expected one of %s, got \"%.*s\"%s%s%s", all, SHOWN_BYTES_MAX, text,
		near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static void out_of_bounds(struct loader *loader, const struct sl_setting *row,
			  enum sl_setting_type type, const struct sl_where *where, const char *text)
{
	char low[SL_VALUE_TEXT_MAX] = "0", high[SL_VALUE_TEXT_MAX] = "1";

	if (sl_value_has_min(row))
		sl_value_bound_text(type, row->min, low);
	if (sl_value_has_max(row))
		sl_value_bound_text(type, row->max, high);
	if (sl_value_has_max(row) || type == SL_TYPE_RATIO)
		problem(loader, where, "%.*s is out of bounds: %s to %s", SHOWN_BYTES_MAX, text,
			low, high);
	else
		problem(loader, where, "%.*s is out of bounds: at least %s", SHOWN_BYTES_MAX, text,
			low);
}

static const char *absolute(struct loader *loader, const char *text)
{
	const size_t folder = strlen(loader->folder), size = strlen(text);
	char *path;

	if (text[0] == '/')
		return sl_blocks_text(loader->blocks, text, size);
	path = sl_blocks_take(loader->blocks, folder + 1 + size + 1);
	if (path)
		sprintf(path, "%s/%s", folder == 1 ? "" : loader->folder, text);
	return path;
}

static void fill_scalar(struct loader *loader, const struct sl_setting *row,
			enum sl_setting_type type, const struct sl_node *node, void *field)
{
	const struct sl_where where = where_of(loader, node);
	char got[SHOWN_BYTES_MAX + 8];
	const char *text;
	int error;

	if (node->kind != SL_NODE_SCALAR) {
		problem(loader, &where, "expected %s, got %s", sl_value_expected(type),
			shown(row, node, got, sizeof(got)));
		return;
	}
	text = expand(loader, &where, node->text);
	if (!text)
		return;
	if (row->secret && strcmp(text, SL_SETTING_SECRET) == 0) {
		problem(loader, &where, "expected the secret, got what --dump writes for one");
		return;
	}
	if (type == SL_TYPE_STRING) {
		*(const char **)field = sl_blocks_text(loader->blocks, text, strlen(text));
		return;
	}
	if (type == SL_TYPE_PATH) {
		if (!*text)
			problem(loader, &where, "expected a path, got \"\"");
		else
			*(const char **)field = absolute(loader, text);
		return;
	}
	error = sl_value_parse(row, type, text, field);
	if (error == -ERANGE)
		out_of_bounds(loader, row, type, &where, text);
	else if (error && type == SL_TYPE_ENUM)
		wrong_choice(loader, row, &where, text);
	else if (error)
		problem(loader, &where, "expected %s%s%s, got %s", sl_value_expected(type),
			row->choices ? ", or " : "", row->choices ? row->choices[0] : "",
			shown(row, node, got, sizeof(got)));
}

static const struct sl_setting *find_row(const struct sl_settings *settings, const char *name)
{
	return sl_setting_named(settings, name, strlen(name));
}

// The struct with presets only, made at the table's first use in this load.
static const void *prototype(struct loader *loader, const struct sl_settings *settings)
{
	static const struct sl_where from = {"preset", 0, 0};
	void *object;

	for (uint32_t i = 0; i < loader->prototype_count; i++) {
		if (loader->prototypes[i].settings == settings)
			return loader->prototypes[i].object;
	}
	assert(loader->prototype_count < PROTOTYPES_MAX && settings->row_count <= ROWS_MAX);
	object = sl_blocks_take(loader->blocks, settings->bytes);
	if (!object)
		return NULL;
	for (uint32_t i = 0; i < settings->row_count; i++) {
		const struct sl_setting *row = &settings->rows[i];
		void *field = (char *)object + row->offset;

		if (row->type == SL_TYPE_OBJECT) {
			const void *inner = prototype(loader, row->object);

			if (inner)
				memcpy(field, inner, row->object->bytes);
		}
		if (!row->preset)
			continue;

		const struct sl_node *node = sl_yaml_parse(loader->document, "preset", row->preset,
							   strlen(row->preset), loader->errors);

		push(loader, row->name);
		if (node)
			fill_row(loader, row, node, &from, field);
		loader->path_count--;
	}
	assert(loader->prototype_count < PROTOTYPES_MAX);
	loader->prototypes[loader->prototype_count++] = (struct prototype){settings, object};
	return object;
}

static void begin_object(struct loader *loader, const struct sl_settings *settings, void *object)
{
	const void *from = prototype(loader, settings);

	if (from)
		memcpy(object, from, settings->bytes);
}

static void fill_list(struct loader *loader, const struct sl_setting *row,
		      const struct sl_node *node, struct sl_list *list)
{
	const size_t bytes = sl_element_bytes(row);
	char *item;

	list->items = node->count ? sl_blocks_take(loader->blocks, node->count * bytes) : NULL;
	list->count = list->items ? node->count : 0;
	item = list->items;
	if (!item)
		return;
	for (const struct sl_node *child = node->first; child; child = child->next, item += bytes) {
		const struct sl_where where = where_of(loader, child);

		if (is_null(child) && row->element != SL_TYPE_OBJECT) {
			problem(loader, &where, "an element is empty");
		} else if (row->element == SL_TYPE_OBJECT || row->element == SL_TYPE_CHOICE) {
			begin_object(loader, row->object, item);
			fill_object(loader, row->object, child, &where, NULL,
				    row->element == SL_TYPE_CHOICE ? row->shorthand : NULL, item);
		} else {
			fill_scalar(loader, row, row->element, child, item);
		}
	}
}

// Keys of one map, to find one that is given twice. Open addressing, at most half full.
struct seen {
	const struct sl_node **slots;
	size_t mask;
};

static const struct sl_node *seen_before(struct seen *seen, const struct sl_node *key)
{
	size_t at = sl_hash(sl_bytes(key->text, key->count)) & seen->mask;

	for (; seen->slots[at]; at = (at + 1) & seen->mask) {
		if (strcmp(seen->slots[at]->text, key->text) == 0)
			return seen->slots[at];
	}
	seen->slots[at] = key;
	return NULL;
}

static void fill_map(struct loader *loader, const struct sl_setting *row,
		     const struct sl_node *node, struct sl_list *list)
{
	const size_t bytes = row->object->bytes;
	struct seen seen = {.mask = 15};
	const struct sl_node *key = node->first, *value, *other;
	char *item;

	while (seen.mask < (size_t)node->count * 2)
		seen.mask = seen.mask * 2 + 1;
	*list = (struct sl_list){0};
	if (!node->count)
		return;
	seen.slots = calloc(seen.mask + 1, sizeof(*seen.slots));
	if (!seen.slots)
		sl_errors_add(loader->errors, NULL, "%s: no memory", loader->file);
	item = list->items = sl_blocks_take(loader->blocks, node->count * bytes);
	for (; seen.slots && item && key; key = value->next, item += bytes) {
		const struct sl_where where = where_of(loader, key);

		value = key->next;
		list->count++;
		begin_object(loader, row->object, item);
		if (key->kind != SL_NODE_SCALAR || !key->text[0] || key->count > KEY_BYTES_MAX) {
			problem(loader, &where, "a name must be a text of 1 to %d bytes",
				KEY_BYTES_MAX);
			continue;
		}
		other = seen_before(&seen, key);
		if (other) {
			problem(loader, &where, "\"%s\" is given twice, first at line %u",
				key->text, other->line);
			continue;
		}
		push(loader, key->text);
		fill_object(loader, row->object, is_null(value) ? NULL : value, &where, key->text,
			    row->shorthand, item);
		loader->path_count--;
	}
	free(seen.slots);
}

static void fill_optional(struct loader *loader, const struct sl_setting *row,
			  const struct sl_node *node, const struct sl_where *where, void **field)
{
	*field = sl_blocks_take(loader->blocks, row->object->bytes);
	if (!*field)
		return;
	begin_object(loader, row->object, *field);
	fill_object(loader, row->object, node, where, NULL, row->shorthand, *field);
}

static void fill_row(struct loader *loader, const struct sl_setting *row,
		     const struct sl_node *node, const struct sl_where *where, void *field)
{
	const struct sl_where at = where_of(loader, node);
	char got[SHOWN_BYTES_MAX + 8];

	switch (row->type) {
	case SL_TYPE_OBJECT:
	case SL_TYPE_CHOICE:
		fill_object(loader, row->object, node, where, NULL, row->shorthand, field);
		return;
	case SL_TYPE_OPTIONAL:
		fill_optional(loader, row, node, where, field);
		return;
	case SL_TYPE_LIST:
	case SL_TYPE_MAP:
		// A list of one text may do without its brackets.
		if (row->type == SL_TYPE_LIST && node->kind == SL_NODE_SCALAR &&
		    row->element == SL_TYPE_STRING) {
			struct sl_node only = *node;
			const struct sl_node list = {.first = &only, .count = 1};

			only.next = NULL;
			fill_list(loader, row, &list, field);
			return;
		}
		if (node->kind != (row->type == SL_TYPE_LIST ? SL_NODE_SEQUENCE : SL_NODE_MAPPING))
			problem(loader, &at, "expected %s, got %s", sl_value_expected(row->type),
				shown(row, node, got, sizeof(got)));
		else if (row->type == SL_TYPE_LIST)
			fill_list(loader, row, node, field);
		else
			fill_map(loader, row, node, field);
		return;
	default:
		fill_scalar(loader, row, row->type, node, field);
	}
}

static const char *row_name(const void *self, uint32_t index)
{
	return ((const struct sl_settings *)self)->rows[index].name;
}

static void unknown_key(struct loader *loader, const struct sl_settings *settings,
			const struct sl_node *key)
{
	const struct sl_where where = where_of(loader, key);
	const char *near;

	if (key->kind != SL_NODE_SCALAR) {
		problem(loader, &where, "a key must be a text");
		return;
	}
	if (strcmp(key->text, "<<") == 0) {
		problem(loader, &where, "merge keys are not taken: write the values out");
		return;
	}
	near = sl_nearest(key->text, row_name, settings, settings->row_count);
	problem(loader, &where, "unknown key \"%.*s\"%s%s%s", SHOWN_BYTES_MAX, key->text,
		near ? "; did you mean \"" : "", near ? near : "", near ? "\"?" : "");
}

// The pairs of a mapping to their rows; `lines` gets each row's line, 0: not given.
static void fill_pairs(struct loader *loader, const struct sl_settings *settings,
		       const struct sl_node *node, char *object, uint32_t lines[ROWS_MAX])
{
	const struct sl_node *value;

	for (const struct sl_node *key = node->first; key; key = value->next) {
		const struct sl_setting *row = key->kind == SL_NODE_SCALAR
						       ? find_row(settings, key->text)
						       : NULL;
		const struct sl_where where = where_of(loader, key);

		value = key->next;
		if (!row) {
			unknown_key(loader, settings, key);
			continue;
		}

		uint32_t *line = &lines[row - settings->rows];

		push(loader, row->name);
		if (*line) {
			problem(loader, &where, "given twice, first at line %u",
				*line & ~NULL_LINE);
		} else if (!is_null(value)) {
			fill_row(loader, row, value, &where, object + row->offset);
			if (row->present_offset)
				*(bool *)(object + row->present_offset) = true;
			if (row->where_offset)
				*(struct sl_where *)(object + row->where_offset) = where;
			if (row->apply == SL_APPLY_RESTART)
				sl_places_note(loader->blocks, &loader->places,
					       object + row->offset, &where);
		}
		// Null is as if the key were not there: presets hold, and required ones miss.
		if (!*line)
			*line = key->line | (is_null(value) ? NULL_LINE : 0);
		loader->path_count--;
	}
}

static void fill_missing(struct loader *loader, const struct sl_settings *settings,
			 const struct sl_where *where, char *object, const uint32_t lines[ROWS_MAX])
{
	for (uint32_t i = 0; i < settings->row_count; i++) {
		const struct sl_setting *row = &settings->rows[i];

		if (lines[i] && !(lines[i] & NULL_LINE))
			continue;
		if (row->required) {
			problem(loader, where, "missing key \"%s\"", row->name);
		} else if (row->type == SL_TYPE_OBJECT) {
			push(loader, row->name);
			fill_object(loader, row->object, NULL, where, NULL, NULL,
				    object + row->offset);
			loader->path_count--;
		}
	}
}

// Of what the file names, what has no effect: a warning each.
static void warn_of_idle(struct loader *loader, const struct sl_settings *settings,
			 const struct sl_node *node, const char *object)
{
	const char *presets = prototype(loader, settings);
	char path[400];

	for (const struct sl_node *key = node->first; presets && key; key = key->next->next) {
		const struct sl_setting *row = find_row(settings, key->text);
		const struct sl_where where = where_of(loader, key);
		struct sl_text only = {0};

		if (!sl_setting_is_idle(settings, row, object) ||
		    !sl_setting_differs(row, presets + row->offset, object + row->offset))
			continue;
		sl_setting_only_text(row, &only);
		path_text(loader, path, sizeof(path));
		sl_errors_warn(loader->errors, &where, "%s%s%s has no effect here: %s", path,
			       path[0] ? "." : "", row->name, only.data ? only.data : "");
		free(only.data);
	}
}

// What stands in the object's place is the value of one of its rows: a text, or a list's elements.
static bool is_short(const struct sl_settings *settings, const struct sl_node *node,
		     const char *shorthand)
{
	const struct sl_setting *row = shorthand ? find_row(settings, shorthand) : NULL;

	assert(row || !shorthand);
	return row && (node->kind == SL_NODE_SCALAR ||
		       (node->kind == SL_NODE_SEQUENCE && row->type == SL_TYPE_LIST));
}

// Fills an object that holds its presets. `node` NULL: an empty mapping.
static void fill_object(struct loader *loader, const struct sl_settings *settings,
			const struct sl_node *node, const struct sl_where *where, const char *key,
			const char *shorthand, void *object)
{
	const uint32_t problems = sl_errors_count(loader->errors);
	uint32_t lines[ROWS_MAX];
	char got[SHOWN_BYTES_MAX + 8];

	assert(settings->row_count <= ROWS_MAX);
	memset(lines, 0, settings->row_count * sizeof(*lines));
	for (uint32_t i = 0; i < settings->row_count; i++) {
		const struct sl_setting *row = &settings->rows[i];

		if (row->type == SL_TYPE_WHERE)
			*(struct sl_where *)((char *)object + row->offset) = *where;
		else if (row->type == SL_TYPE_KEY && key)
			*(const char **)((char *)object + row->offset) = sl_blocks_text(
				loader->blocks, key, strlen(key));
	}
	if (node && is_null(node))
		node = NULL;
	if (node && is_short(settings, node, shorthand)) {
		const struct sl_setting *row = find_row(settings, shorthand);

		fill_row(loader, row, node, where, (char *)object + row->offset);
		if (row->present_offset)
			*(bool *)((char *)object + row->present_offset) = true;
		lines[row - settings->rows] = node->line;
		if (row->apply == SL_APPLY_RESTART)
			sl_places_note(loader->blocks, &loader->places,
				       (char *)object + row->offset, where);
	} else if (node && node->kind != SL_NODE_MAPPING) {
		static const struct sl_setting none;
		const struct sl_where at = where_of(loader, node);

		problem(loader, &at, "expected a mapping, got %s",
			shown(&none, node, got, sizeof(got)));
		return;
	} else if (node) {
		fill_pairs(loader, settings, node, object, lines);
	}
	fill_missing(loader, settings, where, object, lines);
	if (node && node->kind == SL_NODE_MAPPING && problems == sl_errors_count(loader->errors))
		warn_of_idle(loader, settings, node, object);
	if (settings->check && problems == sl_errors_count(loader->errors)) {
		// What is missing has no place of its own: it is told at the object's.
		sl_errors_otherwise(loader->errors, where);
		settings->check(object, loader->errors);
		sl_errors_otherwise(loader->errors, NULL);
	}
}

// The folder that relative paths start from.
static const char *folder_of(struct sl_loaded_memory *blocks, const char *file)
{
	const char *slash = strrchr(file, '/');
	const size_t size = slash ? (size_t)(slash - file) : 0;
	char *current = NULL;
	char *folder;

	if (file[0] == '/')
		return sl_blocks_text(blocks, size ? file : "/", size ? size : 1);
	current = getcwd(NULL, 0);
	if (!current)
		return NULL;
	folder = sl_blocks_take(blocks, strlen(current) + size + 2);
	if (folder)
		sprintf(folder, "%s%s%.*s", current, size ? "/" : "", (int)size, file);
	free(current);
	return folder;
}

int sl_settings_load_text(const struct sl_settings *settings, const char *name, const char *text,
			  size_t size, struct sl_loaded *loaded, struct sl_errors *errors)
{
	struct loader loader = {
		.blocks = sl_blocks_create(), .document = sl_blocks_create(), .errors = errors};
	const uint32_t problems = sl_errors_count(errors);
	struct sl_node *node = NULL;
	int error = -ENOMEM;

	*loaded = (struct sl_loaded){0};
	if (loader.blocks && loader.document) {
		loader.file = sl_blocks_text(loader.blocks, name, strlen(name));
		loader.folder = folder_of(loader.blocks, name);
	}
	if (!loader.file || !loader.folder) {
		sl_errors_add(errors, NULL, "%s: no memory", name);
		goto done;
	}
	error = -EINVAL;
	node = sl_yaml_parse(loader.document, loader.file, text, size, errors);
	if (node) {
		const struct sl_where where = where_of(&loader, node);

		loaded->object = sl_blocks_take(loader.blocks, settings->bytes);
		if (loaded->object) {
			begin_object(&loader, settings, loaded->object);
			fill_object(&loader, settings, node, &where, NULL, NULL, loaded->object);
		}
	}
	if (sl_blocks_failed(loader.blocks) || sl_blocks_failed(loader.document))
		sl_errors_add(errors, NULL, "%s: no memory", name);
	if (loaded->object && problems == sl_errors_count(errors))
		error = 0;
done:
	sl_blocks_destroy(loader.document);
	loaded->memory = loader.blocks;
	loaded->places = loader.places;
	if (error)
		sl_loaded_fini(loaded);
	return error;
}

static int read_file(const char *file, char **text, size_t *size)
{
	struct stat stat;
	int error = 0;
	const int fd = open(file, O_RDONLY | O_CLOEXEC);

	*text = NULL;
	*size = 0;
	if (fd < 0)
		return -errno;
	if (fstat(fd, &stat) < 0)
		error = -errno;
	else if (S_ISDIR(stat.st_mode))
		error = -EISDIR;
	while (!error) {
		// One byte more than it has: the read that finds the end needs no second buffer.
		const size_t room = (*size ? *size * 2 : (size_t)stat.st_size) + 4096;
		char *grown = room > FILE_BYTES_MAX ? NULL : realloc(*text, room);

		if (!grown) {
			error = room > FILE_BYTES_MAX ? -EFBIG : -ENOMEM;
			break;
		}
		*text = grown;

		const ssize_t got = read(fd, *text + *size, room - *size);

		if (got < 0 && errno != EINTR)
			error = -errno;
		if (got == 0)
			break;
		*size += got > 0 ? (size_t)got : 0;
	}
	close(fd);
	return error;
}

int sl_settings_load(const struct sl_settings *settings, const char *file, struct sl_loaded *loaded,
		     struct sl_errors *errors)
{
	size_t size;
	char *text;
	int error = read_file(file, &text, &size);

	*loaded = (struct sl_loaded){0};
	if (error)
		sl_errors_add(errors, NULL, "%s: cannot be read: %s", file, strerror(-error));
	else
		error = sl_settings_load_text(settings, file, text, size, loaded, errors);
	free(text);
	return error;
}

void sl_loaded_fini(struct sl_loaded *loaded)
{
	sl_blocks_destroy(loaded->memory);
	*loaded = (struct sl_loaded){0};
}
