#include "config/internal.h"

#include <stdio.h>
#include <stdlib.h>

#define LINES_MAX 200
#define LINE_MAX_ 1024

// Lines past LINES_MAX are counted only: a wrong file of a million lines is one mistake.
struct sl_errors {
	char **lines;
	uint32_t count, dropped;
	char more[64];
	const struct sl_where *otherwise; // where, when nobody says
};

struct sl_errors *sl_errors_create(void)
{
	struct sl_errors *errors = calloc(1, sizeof(*errors));

	if (!errors)
		return NULL;
	errors->lines = calloc(LINES_MAX, sizeof(*errors->lines));
	if (!errors->lines) {
		free(errors);
		return NULL;
	}
	return errors;
}

void sl_errors_destroy(struct sl_errors *errors)
{
	if (!errors)
		return;
	for (uint32_t i = 0; i < errors->count; i++)
		free(errors->lines[i]);
	free(errors->lines);
	free(errors);
}

void sl_errors_otherwise(struct sl_errors *errors, const struct sl_where *where)
{
	errors->otherwise = where;
}

void sl_errors_add(struct sl_errors *errors, const struct sl_where *where, const char *format, ...)
{
	char line[LINE_MAX_];
	size_t used = 0;
	va_list args;

	if (errors->count == LINES_MAX) {
		errors->dropped++;
		return;
	}
	if (!where)
		where = errors->otherwise;
	if (where && where->file && where->line)
		used = (size_t)snprintf(line, sizeof(line), "%s:%u:%u: ", where->file, where->line,
					where->column);
	else if (where && where->file)
		used = (size_t)snprintf(line, sizeof(line), "%s: ", where->file);
	used = SL_MIN(used, sizeof(line) - 1);
	va_start(args, format);
	vsnprintf(line + used, sizeof(line) - used, format, args);
	va_end(args);
	for (char *at = line; *at; at++) {
		if ((unsigned char)*at < 0x20 || *at == 0x7f)
			*at = '?'; // one problem, one line
	}
	errors->lines[errors->count] = strdup(line);
	if (errors->lines[errors->count])
		errors->count++;
	else
		errors->dropped++;
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
