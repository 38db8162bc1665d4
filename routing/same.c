#include "routing/settings.h"

// Whether two filled structs say the same. A reload keeps a destination whose settings did not
// change, secrets included, which a dump would not show.

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static size_t scalar_bytes(enum sl_setting_type type)
{
	switch (type) {
	case SL_TYPE_BOOL:
		return sizeof(bool);
	case SL_TYPE_ENUM:
		return sizeof(uint32_t);
	case SL_TYPE_ADDRESS:
		return sizeof(struct sl_address);
	case SL_TYPE_CIDR:
		return sizeof(struct sl_cidr);
	default:
		return sizeof(uint64_t); // counts, times, rates
	}
}

static bool same_element(enum sl_setting_type type, const struct sl_settings *object, const void *a,
			 const void *b)
{
	switch (type) {
	case SL_TYPE_STRING:
	case SL_TYPE_PATH:
	case SL_TYPE_KEY:
		return same_text(*(const char *const *)a, *(const char *const *)b);
	case SL_TYPE_OBJECT:
	case SL_TYPE_CHOICE:
	case SL_TYPE_MAP:
		return sl_settings_same(object, a, b);
	default:
		return memcmp(a, b, scalar_bytes(type)) == 0;
	}
}

static bool same_list(const struct sl_setting *row, const struct sl_list *a,
		      const struct sl_list *b)
{
	const enum sl_setting_type type = row->type == SL_TYPE_MAP ? SL_TYPE_OBJECT : row->element;
	const bool text = type == SL_TYPE_STRING || type == SL_TYPE_PATH;
	const bool object = type == SL_TYPE_OBJECT || type == SL_TYPE_CHOICE;
	const size_t bytes = object ? row->object->bytes
			     : text ? sizeof(const char *)
				    : scalar_bytes(type);

	if (a->count != b->count)
		return false;
	for (size_t i = 0; i < a->count; i++) {
		if (!same_element(type, row->object, (const char *)a->items + i * bytes,
				  (const char *)b->items + i * bytes))
			return false;
	}
	return true;
}

bool sl_settings_same(const struct sl_settings *settings, const void *a, const void *b)
{
	for (uint32_t i = 0; i < settings->row_count; i++) {
		const struct sl_setting *row = &settings->rows[i];
		const void *left = (const char *)a + row->offset;
		const void *right = (const char *)b + row->offset;

		if (row->type == SL_TYPE_WHERE)
			continue;
		if (row->type == SL_TYPE_LIST || row->type == SL_TYPE_MAP) {
			if (!same_list(row, left, right))
				return false;
		} else if (row->type == SL_TYPE_OPTIONAL) {
			const void *one = *(void *const *)left, *other = *(void *const *)right;

			if (!one != !other || (one && !sl_settings_same(row->object, one, other)))
				return false;
		} else if (!same_element(row->type, row->object, left, right)) {
			return false;
		}
	}
	return true;
}
