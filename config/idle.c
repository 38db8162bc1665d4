#include "config/internal.h"

#include <stdio.h>

// Settings that have no effect where they stand: what a row's `only` says of the rows beside it.

static bool is_set(const struct sl_setting *row, const void *field)
{
	switch (row->type) {
	case SL_TYPE_BOOL:
		return *(const bool *)field;
	case SL_TYPE_STRING:
	case SL_TYPE_PATH:
	case SL_TYPE_OPTIONAL:
		return *(const void *const *)field != NULL;
	case SL_TYPE_LIST:
	case SL_TYPE_MAP:
		return ((const struct sl_list *)field)->count != 0;
	default:
		assert(sl_value_bytes(row->type) == sizeof(uint64_t));
		return *(const uint64_t *)field != 0;
	}
}

// Whether the field's text is one of "a|b".
static bool is_one_of(const struct sl_setting *row, const void *field, const char *words)
{
	char value[SL_VALUE_TEXT_MAX] = "";
	const char *text = value;

	if (row->type == SL_TYPE_STRING)
		text = *(const char *const *)field;
	else
		sl_value_text(row, row->type, field, value);
	for (size_t size; text && *words; words += size + (words[size] == '|')) {
		size = strcspn(words, "|");
		if (strlen(text) == size && memcmp(text, words, size) == 0)
			return true;
	}
	return false;
}

const struct sl_setting *sl_setting_named(const struct sl_settings *settings, const char *name,
					  size_t size)
{
	for (uint32_t i = 0; i < settings->row_count; i++) {
		const char *other = settings->rows[i].name;

		if (other && strlen(other) == size && memcmp(other, name, size) == 0)
			return &settings->rows[i];
	}
	return NULL;
}

// Whether one condition of `size` bytes holds.
static bool holds(const struct sl_settings *settings, const char *only, size_t size,
		  const char *object)
{
	const bool without = only[0] == '!';
	const char *name = only + without;
	const size_t name_size = strcspn(name, ":;");
	const struct sl_setting *row = sl_setting_named(settings, name, name_size);
	char words[SL_ONLY_TEXT_MAX];

	assert(row);
	// What this object does not say another may say for it: a class for its tenants.
	if (row->present_offset && !*(const bool *)(object + row->present_offset))
		return true;
	if (name[name_size] != ':')
		return is_set(row, object + row->offset) != without;
	snprintf(words, sizeof(words), "%.*s", (int)(only + size - name - name_size - 2),
		 name + name_size + 2);
	return is_one_of(row, object + row->offset, words);
}

bool sl_setting_is_idle(const struct sl_settings *settings, const struct sl_setting *row,
			const char *object)
{
	const char *only = row->only;

	for (size_t size; only && *only; only += size + strspn(only + size, "; ")) {
		size = strcspn(only, ";");
		if (!holds(settings, only, size, object))
			return true;
	}
	return false;
}

void sl_setting_only_text(const struct sl_setting *row, struct sl_text *text)
{
	const char *only = row->only;

	for (size_t size; *only; only += size + strspn(only + size, "; ")) {
		const bool without = *only == '!';

		size = strcspn(only, ";");
		sl_text_print(text, "%s%s with `", only == row->only ? "" : ", ",
			      without ? "not" : "only");
		for (size_t i = without; i < size; i++) {
			if (only[i] == '|')
				sl_text_print(text, "` or `");
			else
				sl_text_add(text, only + i, 1);
		}
		sl_text_print(text, "`");
	}
}
