#include "config/internal.h"

#include <stdio.h>
#include <stdlib.h>

#define SHOWN_MAX 200 // bytes of one value, roughly

struct diff {
	struct sl_errors *errors; // NULL: they are only counted
	const struct sl_loaded *loaded;
	struct sl_where where; // of what is compared, or around it
	uint32_t count;
	char path[256];
};

static void compare(struct diff *diff, const struct sl_settings *settings, const char *before,
		    const char *after, bool restart);

static void show_text(struct sl_text *text, const char *value)
{
	if (value)
		sl_text_print(text, "\"%s\"", value);
	else
		sl_text_print(text, "unset");
}

static void show(struct sl_text *text, const struct sl_setting *row, enum sl_setting_type type,
		 const void *field);

// As far as one line bears it; of elements with a short form that alone.
static void show_list(struct sl_text *text, const struct sl_setting *row,
		      const struct sl_list *list)
{
	const struct sl_setting *one = row;
	enum sl_setting_type type = row->element;
	size_t offset = 0;

	if (row->object) {
		one = row->shorthand ? sl_setting_named(row->object, row->shorthand,
							strlen(row->shorthand))
				     : NULL;
		if (!one || one->type == SL_TYPE_LIST) {
			sl_text_print(text, "%zu of them", list->count);
			return;
		}
		type = one->type;
		offset = one->offset;
	}
	sl_text_print(text, "[");
	for (size_t i = 0; i < list->count && text->size < SHOWN_MAX; i++) {
		sl_text_print(text, i ? ", " : "");
		show(text, one, type,
		     (const char *)list->items + i * sl_element_bytes(row) + offset);
	}
	sl_text_print(text, text->size < SHOWN_MAX ? "]" : ", ...]");
}

static void show(struct sl_text *text, const struct sl_setting *row, enum sl_setting_type type,
		 const void *field)
{
	char value[SL_VALUE_TEXT_MAX];

	switch (type) {
	case SL_TYPE_STRING:
	case SL_TYPE_PATH:
	case SL_TYPE_KEY:
		show_text(text, *(const char *const *)field);
		break;
	case SL_TYPE_OPTIONAL:
		sl_text_print(text, *(const void *const *)field ? "set" : "unset");
		break;
	case SL_TYPE_LIST:
	case SL_TYPE_MAP:
		show_list(text, row, field);
		break;
	default:
		sl_value_text(row, type, field, value);
		sl_text_print(text, "%s", *value ? value : "\"\"");
	}
}

static void differs(struct diff *diff, const struct sl_setting *row, const void *before,
		    const void *after)
{
	struct sl_text was = {0}, is = {0};

	diff->count++;
	if (!diff->errors)
		return;
	show(&was, row, row->type, before);
	show(&is, row, row->type, after);
	if (row->secret || was.failed || is.failed || !was.data || !is.data)
		sl_errors_add(diff->errors, &diff->where, "%s: needs a restart", diff->path);
	else
		sl_errors_add(diff->errors, &diff->where,
			      "%s: needs a restart: it is %.*s now, and would be %.*s", diff->path,
			      SHOWN_MAX + 90, was.data, SHOWN_MAX + 90, is.data);
	free(was.data);
	free(is.data);
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool same_scalar(const struct sl_setting *row, enum sl_setting_type type, const void *a,
			const void *b)
{
	char one[SL_VALUE_TEXT_MAX], other[SL_VALUE_TEXT_MAX];

	if (type == SL_TYPE_STRING || type == SL_TYPE_PATH || type == SL_TYPE_KEY)
		return same_text(*(const char *const *)a, *(const char *const *)b);
	sl_value_text(row, type, a, one);
	sl_value_text(row, type, b, other);
	return strcmp(one, other) == 0;
}

static void compare_list(struct diff *diff, const struct sl_setting *row, const struct sl_list *a,
			 const struct sl_list *b, bool restart)
{
	const bool objects = row->type == SL_TYPE_MAP || row->element == SL_TYPE_OBJECT ||
			     row->element == SL_TYPE_CHOICE;
	const size_t bytes = sl_element_bytes(row);

	if (a->count != b->count) {
		if (restart)
			differs(diff, row, a, b);
		return;
	}
	for (size_t i = 0; i < a->count; i++) {
		const char *one = (const char *)a->items + i * bytes;
		const char *other = (const char *)b->items + i * bytes;

		if (objects) {
			compare(diff, row->object, one, other, false);
		} else if (restart && !same_scalar(row, row->element, one, other)) {
			differs(diff, row, a, b);
			return;
		}
	}
}

static void compare_row(struct diff *diff, const struct sl_setting *row, const char *a,
			const char *b, bool restart)
{
	const char *one, *other;

	switch (row->type) {
	case SL_TYPE_OBJECT:
	case SL_TYPE_CHOICE:
		compare(diff, row->object, a, b, restart);
		break;
	case SL_TYPE_OPTIONAL:
		one = *(const char *const *)a;
		other = *(const char *const *)b;
		if (one && other)
			compare(diff, row->object, one, other, false);
		else if (one != other && restart)
			differs(diff, row, a, b);
		break;
	case SL_TYPE_LIST:
	case SL_TYPE_MAP:
		compare_list(diff, row, (const struct sl_list *)a, (const struct sl_list *)b,
			     restart);
		break;
	case SL_TYPE_WHERE:
		break;
	default:
		if (restart && !same_scalar(row, row->type, a, b))
			differs(diff, row, a, b);
	}
}

// An embedded object's rows inherit its RESTART; for lists, maps and optional objects it stands
// for their members coming and going, and members' rows speak for themselves.
static void compare(struct diff *diff, const struct sl_settings *settings, const char *before,
		    const char *after, bool restart)
{
	const size_t length = strlen(diff->path);
	const struct sl_where around = diff->where;

	for (uint32_t i = 0; i < settings->row_count; i++) {
		const struct sl_setting *row = &settings->rows[i];
		const char *field = after + row->offset;
		const struct sl_where *where = diff->errors
						       ? sl_places_find(diff->loaded->places, field)
						       : NULL;

		if (where)
			diff->where = *where;
		snprintf(diff->path + length, sizeof(diff->path) - length, "%s%s",
			 length ? "." : "", row->name ? row->name : "");
		compare_row(diff, row, before + row->offset, field,
			    restart || row->apply == SL_APPLY_RESTART);
		diff->path[length] = 0;
		diff->where = around;
	}
}

uint32_t sl_settings_restart_needed(const struct sl_settings *settings, const void *before,
				    const struct sl_loaded *after, const char *file,
				    struct sl_errors *errors)
{
	struct diff diff = {.errors = errors, .loaded = after, .where = {.file = file}};

	compare(&diff, settings, before, after->object, false);
	return diff.count;
}

bool sl_setting_differs(const struct sl_setting *row, const void *before, const void *after)
{
	struct diff diff = {.errors = NULL};

	compare_row(&diff, row, before, after, true);
	return diff.count;
}

static void each_path(const struct sl_settings *settings, const char *object,
		      void (*path)(void *self, const char *path), void *self)
{
	for (uint32_t i = 0; i < settings->row_count; i++) {
		const struct sl_setting *row = &settings->rows[i];
		const char *field = object + row->offset;
		const struct sl_list *list = (const struct sl_list *)field;

		if (row->type == SL_TYPE_PATH && row->watched && *(const char *const *)field)
			path(self, *(const char *const *)field);
		else if (row->type == SL_TYPE_OBJECT)
			each_path(row->object, field, path, self);
		else if (row->type == SL_TYPE_OPTIONAL && *(const char *const *)field)
			each_path(row->object, *(const char *const *)field, path, self);
		else if ((row->type == SL_TYPE_LIST || row->type == SL_TYPE_MAP) && row->object)
			for (size_t j = 0; j < list->count; j++)
				each_path(row->object,
					  (const char *)list->items + j * row->object->bytes, path,
					  self);
	}
}

void sl_settings_watched(const struct sl_settings *settings, const void *object,
			 void (*path)(void *self, const char *path), void *self)
{
	each_path(settings, object, path, self);
}
