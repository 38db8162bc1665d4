#include "config/internal.h"

#include <stdio.h>
#include <stdlib.h>

#define LINES_MAX 200
#define LINE_MAX_ 1024

// Lines past LINES_MAX are counted only: a wrong file of a million lines is one mistake.
struct sl_errors {
	char **lines, **warnings;
	uint32_t count, dropped, warning_count;
	char more[64];
	const struct sl_where *otherwise; // where, when nobody says
};

struct sl_errors *sl_errors_create(void)
{
	struct sl_errors *errors = calloc(1, sizeof(*errors));

	if (!errors)
		return NULL;
	errors->lines = calloc(LINES_MAX, sizeof(*errors->lines));
	errors->warnings = calloc(LINES_MAX, sizeof(*errors->warnings));
	if (errors->lines && errors->warnings)
		return errors;
	sl_errors_destroy(errors);
	return NULL;
}

void sl_errors_destroy(struct sl_errors *errors)
{
	if (!errors)
		return;
	for (uint32_t i = 0; i < errors->count; i++)
		free(errors->lines[i]);
	for (uint32_t i = 0; i < errors->warning_count; i++)
		free(errors->warnings[i]);
	free(errors->lines);
	free(errors->warnings);
	free(errors);
}

void sl_errors_otherwise(struct sl_errors *errors, const struct sl_where *where)
{
	errors->otherwise = where;
}

// One line, malloc'ed; NULL without memory.
static char *line_of(const struct sl_errors *errors, const struct sl_where *where, const char *kind,
		     const char *format, va_list args)
{
	char line[LINE_MAX_];
	size_t used = 0;

	if (!where)
		where = errors->otherwise;
	if (where && where->file && where->line)
		used = (size_t)snprintf(line, sizeof(line), "%s:%u:%u: ", where->file, where->line,
					where->column);
	else if (where && where->file)
		used = (size_t)snprintf(line, sizeof(line), "%s: ", where->file);
	used = SL_MIN(used, sizeof(line) - 1);
	used += (size_t)snprintf(line + used, sizeof(line) - used, "%s", kind);
	used = SL_MIN(used, sizeof(line) - 1);
	vsnprintf(line + used, sizeof(line) - used, format, args);
	for (char *at = line; *at; at++) {
		if ((unsigned char)*at < 0x20 || *at == 0x7f)
			*at = '?'; // one problem, one line
	}
	return strdup(line);
}

void sl_errors_add(struct sl_errors *errors, const struct sl_where *where, const char *format, ...)
{
	va_list args;

	if (errors->count == LINES_MAX) {
		errors->dropped++;
		return;
	}
	va_start(args, format);
	errors->lines[errors->count] = line_of(errors, where, "", format, args);
	va_end(args);
	if (errors->lines[errors->count])
		errors->count++;
	else
		errors->dropped++;
}

void sl_errors_warn(struct sl_errors *errors, const struct sl_where *where, const char *format, ...)
{
	va_list args;

	if (errors->warning_count == LINES_MAX)
		return;
	va_start(args, format);
	errors->warnings[errors->warning_count] = line_of(errors, where, "warning: ", format, args);
	va_end(args);
	if (errors->warnings[errors->warning_count])
		errors->warning_count++;
}

uint32_t sl_errors_warnings(const struct sl_errors *errors)
{
	return errors->warning_count;
}

const char *sl_errors_warning(const struct sl_errors *errors, uint32_t index)
{
	return errors->warnings[index];
}

uint32_t sl_errors_count(const struct sl_errors *errors)
{
	return errors->count + (errors->dropped ? 1 : 0);
}

const char *sl_errors_line(const struct sl_errors *errors, uint32_t index)
{
	if (index < errors->count)
		return errors->lines[index];
	snprintf(((struct sl_errors *)(uintptr_t)errors)->more, sizeof(errors->more),
		 "and %u more problems", errors->dropped);
	return errors->more;
}
