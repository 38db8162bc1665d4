#include "config/internal.h"

#include <ctype.h>
#include <stdlib.h>

#define TABLES_MAX 256

struct reference {
	struct sl_text text;
	const struct sl_settings *tables[TABLES_MAX];
	uint32_t count;
};

// Each table is written once, after the one that first names it.
static void note(struct reference *reference, const struct sl_settings *settings)
{
	for (uint32_t i = 0; i < reference->count; i++) {
		if (reference->tables[i] == settings)
			return;
	}
	assert(reference->count < TABLES_MAX);
	reference->tables[reference->count++] = settings;
}

static void put_cell(struct sl_text *text, const char *value)
{
	for (; *value; value++) {
		if (*value == '|')
			sl_text_add(text, "\\", 1);
		sl_text_add(text, *value == '\n' ? " " : value, 1);
	}
}

static void put_link(struct reference *reference, const struct sl_settings *settings)
{
	struct sl_text *text = &reference->text;

	note(reference, settings);
	sl_text_print(text, "[%s](#", settings->name);
	for (const char *at = settings->name; *at; at++) {
		if (*at == ' ')
			sl_text_add(text, "-", 1);
		else if (isalnum((unsigned char)*at) || *at == '_' || *at == '-')
			sl_text_print(text, "%c", tolower((unsigned char)*at));
	}
	sl_text_add(text, ")", 1);
}

static void put_type(struct reference *reference, const struct sl_setting *row,
		     enum sl_setting_type type)
{
	static const char *const words[] = {
		[SL_TYPE_BOOL] = "`true` or `false`",
		[SL_TYPE_COUNT] = "count",
		[SL_TYPE_BYTES] = "bytes",
		[SL_TYPE_DURATION] = "duration",
		[SL_TYPE_PER_S] = "rate",
		[SL_TYPE_BYTES_PER_S] = "bytes a second",
		[SL_TYPE_RATIO] = "ratio",
		[SL_TYPE_NUMBER] = "number",
		[SL_TYPE_STRING] = "text",
		[SL_TYPE_PATH] = "path",
		[SL_TYPE_ADDRESS] = "address",
		[SL_TYPE_CIDR] = "address range",
		[SL_TYPE_CHOICE] = NULL,
	};
	struct sl_text *text = &reference->text;

	switch (type) {
	case SL_TYPE_ENUM:
		for (uint32_t i = 0; row->choices[i]; i++)
			sl_text_print(text, "%s`%s`", i ? ", " : "", row->choices[i]);
		break;
	case SL_TYPE_LIST:
		sl_text_print(text, "list of ");
		put_type(reference, row, row->element);
		break;
	case SL_TYPE_MAP:
		sl_text_print(text, "map of names to ");
		put_link(reference, row->object);
		break;
	case SL_TYPE_OBJECT:
	case SL_TYPE_OPTIONAL:
	case SL_TYPE_CHOICE:
		put_link(reference, row->object);
		break;
	default:
		sl_text_print(text, "%s", words[type]);
		for (uint32_t i = 0; row->choices && row->choices[i]; i++)
			sl_text_print(text, " or `%s`", row->choices[i]);
	}
	if (row->shorthand && type == row->type && type != SL_TYPE_LIST)
		sl_text_print(text, ", or its `%s` alone", row->shorthand);
	else if (row->shorthand && type == SL_TYPE_CHOICE)
		sl_text_print(text, ", or its `%s` alone", row->shorthand);
}

static void put_bounds(struct sl_text *text, const struct sl_setting *row)
{
	const enum sl_setting_type type = row->type == SL_TYPE_LIST ? row->element : row->type;
	char low[SL_VALUE_TEXT_MAX], high[SL_VALUE_TEXT_MAX];

	if (!sl_value_has_min(row)) {
		if (type == SL_TYPE_RATIO)
			sl_text_print(text, "0 to 1");
		return;
	}
	sl_value_bound_text(type, row->min, low);
	sl_value_bound_text(type, row->max, high);
	if (sl_value_has_max(row))
		sl_text_print(text, "%s to %s", low, high);
	else
		sl_text_print(text, "at least %s", low);
}

static void put_row(struct reference *reference, const struct sl_setting *row)
{
	struct sl_text *text = &reference->text;

	sl_text_print(text, "| `%s` | ", row->name);
	put_type(reference, row, row->type);
	sl_text_print(text, " | ");
	if (row->required)
		sl_text_print(text, "**required**");
	else if (row->preset) {
		sl_text_print(text, "`");
		put_cell(text, row->preset);
		sl_text_print(text, "`");
	}
	sl_text_print(text, " | ");
	put_bounds(text, row);
	sl_text_print(text, " | %s | ", row->apply == SL_APPLY_RESTART ? "restart" : "live");
	put_cell(text, row->help ? row->help : "");
	if (row->only) {
		const size_t at = text->size + 1;

		sl_text_print(text, " ");
		sl_setting_only_text(row, text);
		if (!text->failed)
			text->data[at] = (char)toupper((unsigned char)text->data[at]);
		sl_text_print(text, ".");
	}
	sl_text_print(text, "%s |\n", row->secret ? " Never shown." : "");
}

static void put_table(struct reference *reference, const struct sl_settings *settings)
{
	struct sl_text *text = &reference->text;

	sl_text_print(text, "\n## %s\n\n", settings->name);
	if (settings->help)
		sl_text_print(text, "%s\n\n", settings->help);
	sl_text_print(text, "| Key | Type | Preset | Bounds | Change | Meaning |\n"
			    "|---|---|---|---|---|---|\n");
	for (uint32_t i = 0; i < settings->row_count; i++) {
		if (settings->rows[i].name)
			put_row(reference, &settings->rows[i]);
	}
}

char *sl_settings_reference(const struct sl_settings *settings)
{
	struct reference reference = {.tables = {settings}, .count = 1};
	struct sl_text *text = &reference.text;

	sl_text_print(
		text,
		"# Reference of the configuration\n\n"
		"Made of the tables in the code by `sluice --reference`. One YAML document; "
		"unknown "
		"and duplicate keys are errors.\n\n"
		"Counts are written `17`, `100k`, `2M`; bytes `4096`, `64KiB`, `10MB`; durations "
		"`250ms`, `4s`, `5m`, `2h`, `1d`; rates `100k/s`, `90/m`, `50MiB/s`; ratios `10%%` "
		"or `0.1`; paths from the file's folder. Every value may hold `${env:NAME}` or "
		"`${env:NAME:-default}`; `$$` is one `$`. \"live\" changes with a reload, "
		"\"restart\" with the next start: a reload that changes one is refused as a "
		"whole.\n");
	for (uint32_t i = 0; i < reference.count; i++)
		put_table(&reference, reference.tables[i]);
	if (!text->failed)
		return text->data;
	free(text->data);
	return NULL;
}
