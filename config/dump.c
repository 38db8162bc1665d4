#include "config/internal.h"

#include <stdlib.h>

#define SECRET "\"" SL_SETTING_SECRET "\""

static void dump_rows(struct sl_text *text, const struct sl_settings *settings, const char *object,
		      unsigned depth, bool inline_first);

static void indent(struct sl_text *text, unsigned depth)
{
	for (unsigned i = 0; i < depth; i++)
		sl_text_add(text, "  ", 2);
}

// One character of valid UTF-8 and its size.
static unsigned decode(const uint8_t *at, uint32_t *code)
{
	const unsigned size = *at < 0x80 ? 1 : *at < 0xe0 ? 2 : *at < 0xf0 ? 3 : 4;

	*code = size == 1 ? *at : *at & (0x7f >> size);
	for (unsigned i = 1; i < size; i++)
		*code = *code << 6 | (at[i] & 0x3f);
	return size;
}

static bool printable(uint32_t code)
{
	return (code >= 0x20 && code < 0x7f) || (code >= 0xa0 && code < 0x2028) ||
	       (code > 0x2029 && code <= 0xfffd && code != 0xfeff) || code >= 0x10000;
}

// In double quotes, escaped; `$` doubled where the loader looks for references.
static void put_text(struct sl_text *text, const char *value, bool dollars)
{
	uint32_t code;

	sl_text_add(text, "\"", 1);
	for (const uint8_t *at = (const uint8_t *)value; *at;) {
		const unsigned size = decode(at, &code);

		if (code == '"' || code == '\\')
			sl_text_print(text, "\\%c", (char)code);
		else if (code == '$' && dollars)
			sl_text_add(text, "$$", 2);
		else if (code == '\n')
			sl_text_add(text, "\\n", 2);
		else if (printable(code))
			sl_text_add(text, (const char *)at, size);
		else if (code < 0x100)
			sl_text_print(text, "\\x%02X", code);
		else
			sl_text_print(text, "\\u%04X", code);
		at += size;
	}
	sl_text_add(text, "\"", 1);
}

static void put_key(struct sl_text *text, const char *key)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
	static const char others[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
				     "0123456789-.";

	if (strspn(key, letters) && strspn(key, others) == strlen(key))
		sl_text_add(text, key, strlen(key));
	else
		put_text(text, key, false);
	sl_text_add(text, ":", 1);
}

static void put_scalar(struct sl_text *text, const struct sl_setting *row,
		       enum sl_setting_type type, const void *field)
{
	char value[SL_VALUE_TEXT_MAX];

	if (type == SL_TYPE_STRING || type == SL_TYPE_PATH) {
		const char *string = *(const char *const *)field;

		if (!string)
			sl_text_add(text, "null", 4);
		else if (row->secret)
			sl_text_add(text, SECRET, sizeof(SECRET) - 1);
		else
			put_text(text, string, true);
		return;
	}
	sl_value_text(row, type, field, value);
	sl_text_add(text, value, strlen(value));
}

// A mapping behind its key, or "{}" when nothing is in it.
static void put_object(struct sl_text *text, const struct sl_settings *settings, const char *object,
		       unsigned depth)
{
	size_t before;

	sl_text_add(text, "\n", 1);
	before = text->size;
	dump_rows(text, settings, object, depth, false);
	if (text->size == before && !text->failed) {
		text->size--;
		sl_text_add(text, " {}\n", 4);
	}
}

static const char *key_of(const struct sl_settings *settings, const char *object)
{
	for (uint32_t i = 0; i < settings->row_count; i++) {
		if (settings->rows[i].type == SL_TYPE_KEY)
			return *(const char *const *)(object + settings->rows[i].offset);
	}
	return "";
}

static void put_list(struct sl_text *text, const struct sl_setting *row, const struct sl_list *list,
		     unsigned depth)
{
	const bool objects = row->element == SL_TYPE_OBJECT || row->element == SL_TYPE_CHOICE;
	const size_t bytes = sl_element_bytes(row);

	if (!list->count) {
		sl_text_add(text, row->type == SL_TYPE_MAP ? " {}\n" : " []\n", 4);
		return;
	}
	sl_text_add(text, "\n", 1);
	for (size_t i = 0; i < list->count; i++) {
		const char *item = (const char *)list->items + i * bytes;

		indent(text, depth);
		if (row->type == SL_TYPE_MAP) {
			put_key(text, key_of(row->object, item));
			put_object(text, row->object, item, depth + 1);
			continue;
		}
		sl_text_add(text, "- ", 2);

		const size_t before = text->size;

		if (!objects) {
			put_scalar(text, row, row->element, item);
			sl_text_add(text, "\n", 1);
			continue;
		}
		dump_rows(text, row->object, item, depth + 1, true);
		if (text->size == before)
			sl_text_add(text, "{}\n", 3);
	}
}

static void dump_row(struct sl_text *text, const struct sl_setting *row, const char *field,
		     unsigned depth)
{
	put_key(text, row->name);
	switch (row->type) {
	case SL_TYPE_OBJECT:
	case SL_TYPE_CHOICE:
		put_object(text, row->object, field, depth + 1);
		break;
	case SL_TYPE_OPTIONAL:
		put_object(text, row->object, *(const char *const *)field, depth + 1);
		break;
	case SL_TYPE_LIST:
	case SL_TYPE_MAP:
		put_list(text, row, (const struct sl_list *)field, depth + 1);
		break;
	default:
		sl_text_add(text, " ", 1);
		put_scalar(text, row, row->type, field);
		sl_text_add(text, "\n", 1);
	}
}

static void dump_rows(struct sl_text *text, const struct sl_settings *settings, const char *object,
		      unsigned depth, bool inline_first)
{
	for (uint32_t i = 0; i < settings->row_count; i++) {
		const struct sl_setting *row = &settings->rows[i];
		const char *field = object + row->offset;

		if (!row->name ||
		    (row->present_offset && !*(const bool *)(object + row->present_offset)) ||
		    (row->unless_offset && *(void *const *)(object + row->unless_offset)))
			continue;
		if (row->type == SL_TYPE_OPTIONAL && !*(const void *const *)field)
			continue;
		if (!inline_first)
			indent(text, depth);
		inline_first = false;
		dump_row(text, row, field, depth);
	}
}

char *sl_settings_dump(const struct sl_settings *settings, const void *object)
{
	struct sl_text text = {0};

	dump_rows(&text, settings, object, 0, false);
	if (!text.size)
		sl_text_add(&text, "{}\n", 3);
	if (!text.failed)
		return text.data;
	free(text.data);
	return NULL;
}
