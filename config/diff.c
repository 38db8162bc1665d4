#include "config/internal.h"

#include <stdio.h>

struct diff {
	char *text;
	size_t size;
	uint32_t count;
	char path[256];
};

static void compare(struct diff *diff, const struct sl_settings *settings, const char *before,
		    const char *after, bool restart);

static void differs(struct diff *diff)
{
	if (!diff->count++ && diff->size)
		snprintf(diff->text, diff->size, "%s: needs a restart", diff->path);
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
			differs(diff);
		return;
	}
	for (size_t i = 0; i < a->count; i++) {
		const char *one = (const char *)a->items + i * bytes;
		const char *other = (const char *)b->items + i * bytes;

		if (objects) {
			compare(diff, row->object, one, other, false);
		} else if (restart && !same_scalar(row, row->element, one, other)) {
			differs(diff);
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
			differs(diff);
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
			differs(diff);
	}
}

// An embedded object's rows inherit its RESTART; for lists, maps and optional objects it stands
// for their members coming and going, and members' rows speak for themselves.
static void compare(struct diff *diff, const struct sl_settings *settings, const char *before,
		    const char *after, bool restart)
{
	const size_t length = strlen(diff->path);

	for (uint32_t i = 0; i < settings->row_count; i++) {
		const struct sl_setting *row = &settings->rows[i];

		snprintf(diff->path + length, sizeof(diff->path) - length, "%s%s",
			 length ? "." : "", row->name ? row->name : "");
		compare_row(diff, row, before + row->offset, after + row->offset,
			    restart || row->apply == SL_APPLY_RESTART);
		diff->path[length] = 0;
	}
}

uint32_t sl_settings_restart_needed(const struct sl_settings *settings, const void *before,
				    const void *after, char *text, size_t size)
{
	struct diff diff = {.text = text, .size = size};

	if (size)
		text[0] = 0;
	compare(&diff, settings, before, after, false);
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
