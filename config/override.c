#include "config/internal.h"

void sl_settings_override(const struct sl_settings *settings, void *base, const void *own)
{
	for (uint32_t i = 0; i < settings->row_count; i++) {
		const struct sl_setting *row = &settings->rows[i];
		const char *from = (const char *)own + row->offset;
		char *to = (char *)base + row->offset;

		if (row->type == SL_TYPE_OBJECT)
			sl_settings_override(row->object, to, from);
		if (!row->present_offset || !*((const bool *)own + row->present_offset))
			continue;
		if (row->type != SL_TYPE_OBJECT)
			memcpy(to, from, sl_value_bytes(row->type));
		*((bool *)base + row->present_offset) = true;
	}
}
