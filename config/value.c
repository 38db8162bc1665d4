#include "config/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct unit {
	const char *name;
	double scale;
};

// Of each kind the first that divides a value evenly writes it.
static const struct unit count_units[] = {{"", 1}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {NULL, 0}};
static const struct unit bytes_units[] = {{"TiB", 0x1p40}, {"GiB", 0x1p30}, {"MiB", 0x1p20},
					  {"KiB", 0x1p10}, {"", 1},         {"B", 1},
					  {"kB", 1e3},     {"KB", 1e3},     {"MB", 1e6},
					  {"GB", 1e9},     {"TB", 1e12},    {NULL, 0}};
static const struct unit duration_units[] = {{"d", 86400e9}, {"h", 3600e9}, {"m", 60e9}, {"s", 1e9},
					     {"ms", 1e6},    {"us", 1e3},   {"ns", 1},   {NULL, 0}};
static const struct unit per_units[] = {
	{"/s", 1}, {"/m", 1 / 60.0}, {"/h", 1 / 3600.0}, {"/d", 1 / 86400.0}, {NULL, 0}};

size_t sl_value_bytes(enum sl_setting_type type)
{
	switch (type) {
	case SL_TYPE_BOOL:
		return sizeof(bool);
	case SL_TYPE_ENUM:
		return sizeof(uint32_t);
	case SL_TYPE_STRING:
	case SL_TYPE_PATH:
	case SL_TYPE_KEY:
	case SL_TYPE_OPTIONAL:
		return sizeof(void *);
	case SL_TYPE_ADDRESS:
		return sizeof(struct sl_address);
	case SL_TYPE_CIDR:
		return sizeof(struct sl_cidr);
	case SL_TYPE_WHERE:
		return sizeof(struct sl_where);
	case SL_TYPE_LIST:
	case SL_TYPE_MAP:
		return sizeof(struct sl_list);
	default:
		return sizeof(uint64_t);
	}
}

const char *sl_value_expected(enum sl_setting_type type)
{
	static const char *const expected[] = {
		[SL_TYPE_BOOL] = "true or false",
		[SL_TYPE_COUNT] = "a count such as 17 or 100k",
		[SL_TYPE_BYTES] = "a size such as 4096, 64KiB or 10MB",
		[SL_TYPE_DURATION] = "a duration such as 250ms",
		[SL_TYPE_PER_S] = "a rate such as 100k/s or 90/m",
		[SL_TYPE_BYTES_PER_S] = "a rate such as 50MiB/s",
		[SL_TYPE_RATIO] = "a ratio such as 10% or 0.1",
		[SL_TYPE_NUMBER] = "a number such as 0.5",
		[SL_TYPE_STRING] = "a text",
		[SL_TYPE_PATH] = "a path",
		[SL_TYPE_ENUM] = "a word",
		[SL_TYPE_ADDRESS] = "an address such as 127.0.0.1:4317 or [::1]:4317",
		[SL_TYPE_CIDR] = "an address range such as 10.0.0.0/8",
		[SL_TYPE_OBJECT] = "a mapping",
		[SL_TYPE_OPTIONAL] = "a mapping",
		[SL_TYPE_LIST] = "a list",
		[SL_TYPE_MAP] = "a mapping of names",
		[SL_TYPE_KEY] = "a name",
		[SL_TYPE_WHERE] = "nothing",
		[SL_TYPE_CHOICE] = "a text or a mapping",
	};

	return expected[type];
}

// The number at the text's start: digits, point, exponent; no sign unless `negative`, no names.
static const char *number(const char *text, bool negative, long double *value)
{
	const char *digits = text + (negative && *text == '-');
	char *end;

	if (!((*digits >= '0' && *digits <= '9') || *digits == '.'))
		return NULL;
	if (digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X'))
		return NULL;
	*value = strtold(text, &end);
	if (end == text || !isfinite(*value))
		return NULL;
	return end;
}

static const struct unit *find_unit(const struct unit *units, const char *name)
{
	while (units->name && strcmp(units->name, name) != 0)
		units++;
	return units->name ? units : NULL;
}

// A whole number with a unit. Plain digits are taken exactly, beyond what a double holds.
static int whole(const char *text, const struct unit *units, bool bare, uint64_t *value)
{
	const struct unit *unit;
	long double read;
	const char *rest;

	if (strspn(text, "0123456789") == strlen(text) && *text) {
		errno = 0;
		*value = strtoull(text, NULL, 10);
		return errno || !(bare || *value == 0) ? -EINVAL : 0;
	}
	rest = number(text, false, &read);
	unit = rest ? find_unit(units, rest) : NULL;
	if (!unit)
		return -EINVAL;
	read *= unit->scale;
	if (read >= 0x1p64L || fabsl(read - roundl(read)) > 1e-6L)
		return -EINVAL;
	read = roundl(read);
	*value = read >= 0x1p64L ? UINT64_MAX : (uint64_t)read;
	return 0;
}

// 100k/s, 50MiB/s, 90/m.
static int rate(const char *text, const struct unit *units, double *value)
{
	const char *slash = strchr(text, '/');
	const struct unit *unit, *per;
	long double read;
	const char *rest;
	char name[8];

	if (!slash) {
		if (strcmp(text, "0") != 0)
			return -EINVAL;
		*value = 0;
		return 0;
	}
	rest = number(text, false, &read);
	if (!rest || rest > slash || (size_t)(slash - rest) >= sizeof(name))
		return -EINVAL;
	memcpy(name, rest, (size_t)(slash - rest));
	name[slash - rest] = 0;
	unit = find_unit(units, name);
	per = find_unit(per_units, slash);
	if (!unit || !per)
		return -EINVAL;
	// The division is done in wide numbers, then rounded once: 90/m is 1.5/s.
	*value = (double)(read * unit->scale / roundl(1 / per->scale));
	return isfinite(*value) ? 0 : -EINVAL;
}

static int real(const char *text, bool ratio, double *value)
{
	long double read;
	const char *rest = number(text, true, &read);

	if (!rest)
		return -EINVAL;
	if (ratio && strcmp(rest, "%") == 0)
		read /= 100;
	else if (*rest)
		return -EINVAL;
	*value = (double)read;
	if (*value == 0)
		*value = 0; // -0 is 0
	return isfinite(*value) ? 0 : -EINVAL;
}

bool sl_value_has_min(const struct sl_setting *row)
{
	return row->min != 0 || row->max != 0;
}

bool sl_value_has_max(const struct sl_setting *row)
{
	return row->max != 0 || row->min < 0;
}

static int bounded(const struct sl_setting *row, double value)
{
	if (sl_value_has_min(row) && value < row->min)
		return -ERANGE;
	return sl_value_has_max(row) && value > row->max ? -ERANGE : 0;
}

static int parse_enum(const struct sl_setting *row, const char *text, uint32_t *value)
{
	for (uint32_t i = 0; row->choices && row->choices[i]; i++) {
		if (strcmp(row->choices[i], text) == 0) {
			*value = i;
			return 0;
		}
	}
	return -EINVAL;
}

int sl_value_parse(const struct sl_setting *row, enum sl_setting_type type, const char *text,
		   void *field)
{
	uint64_t *wide = field;
	double *value = field;
	int error;

	// Words beside the numbers: the index is the value, and no bound holds for it.
	if (type == SL_TYPE_COUNT || type == SL_TYPE_BYTES || type == SL_TYPE_DURATION) {
		for (uint32_t i = 0; row->choices && row->choices[i]; i++) {
			if (strcmp(row->choices[i], text) == 0) {
				*wide = i;
				return 0;
			}
		}
	}

	switch (type) {
	case SL_TYPE_BOOL:
		if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
			return -EINVAL;
		*(bool *)field = *text == 't';
		return 0;
	case SL_TYPE_ENUM:
		return parse_enum(row, text, field);
	case SL_TYPE_ADDRESS:
		if (!*text && !row->required && row->type == SL_TYPE_ADDRESS) {
			*(struct sl_address *)field = (struct sl_address){0};
			return 0;
		}
		return sl_address_parse(field, text);
	case SL_TYPE_CIDR:
		return sl_cidr_parse(field, text);
	case SL_TYPE_COUNT:
		error = whole(text, count_units, true, wide);
		return error ? error : bounded(row, (double)*wide);
	case SL_TYPE_BYTES:
		error = whole(text, bytes_units, true, wide);
		return error ? error : bounded(row, (double)*wide);
	case SL_TYPE_DURATION:
		error = whole(text, duration_units, false, wide);
		return error ? error : bounded(row, (double)*wide);
	case SL_TYPE_PER_S:
		error = rate(text, count_units, value);
		return error ? error : bounded(row, *value);
	case SL_TYPE_BYTES_PER_S:
		error = rate(text, bytes_units, value);
		return error ? error : bounded(row, *value);
	case SL_TYPE_RATIO:
		error = real(text, true, value);
		if (!error && !sl_value_has_min(row) && (*value < 0 || *value > 1))
			return -ERANGE;
		return error ? error : bounded(row, *value);
	case SL_TYPE_NUMBER:
		error = real(text, false, value);
		return error ? error : bounded(row, *value);
	default:
		return -EINVAL;
	}
}

// The shortest text that reads back as the same double.
static void real_text(double value, char *text, size_t size)
{
	for (int digits = 6; digits <= 17; digits++) {
		snprintf(text, size, "%.*g", digits, value);
		if (strtod(text, NULL) == value)
			return;
	}
}

static void whole_text(uint64_t value, const struct unit *units, char *text)
{
	while (units[1].name &&
	       (value == 0 || value % (uint64_t)units->scale != 0 || value < units->scale)) {
		if (units->scale == 1)
			break;
		units++;
	}
	snprintf(text, SL_VALUE_TEXT_MAX, "%llu%s",
		 (unsigned long long)(value / (uint64_t)units->scale), units->name);
}

static void rate_text(double value, bool bytes, char *text)
{
	char digits[40];
	const char *unit = "";

	for (const struct unit *at = bytes_units; bytes && at->scale > 1; at++) {
		if (value >= at->scale && value / at->scale == floor(value / at->scale)) {
			value /= at->scale;
			unit = at->name;
			break;
		}
	}
	real_text(value, digits, sizeof(digits));
	snprintf(text, SL_VALUE_TEXT_MAX, "%s%s/s", digits, unit);
}

static void cidr_text(const struct sl_cidr *cidr, char *text)
{
	static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	char host[INET6_ADDRSTRLEN] = "";
	unsigned prefix = cidr->prefix;

	if (prefix >= 96 && memcmp(cidr->bytes, mapped, sizeof(mapped)) == 0) {
		inet_ntop(AF_INET, cidr->bytes + 12, host, sizeof(host));
		prefix -= 96;
	} else {
		inet_ntop(AF_INET6, cidr->bytes, host, sizeof(host));
	}
	snprintf(text, SL_VALUE_TEXT_MAX, "\"%s/%u\"", host, prefix);
}

void sl_value_text(const struct sl_setting *row, enum sl_setting_type type, const void *field,
		   char text[SL_VALUE_TEXT_MAX])
{
	const uint64_t *wide = field;
	const double *value = field;
	char address[SL_ADDRESS_TEXT_MAX];

	if (row && (type == SL_TYPE_COUNT || type == SL_TYPE_BYTES || type == SL_TYPE_DURATION)) {
		for (uint32_t i = 0; row->choices && row->choices[i]; i++) {
			if (i == *wide) {
				strcpy(text, row->choices[i]);
				return;
			}
		}
	}
	switch (type) {
	case SL_TYPE_BOOL:
		strcpy(text, *(const bool *)field ? "true" : "false");
		break;
	case SL_TYPE_COUNT:
		whole_text(*wide, count_units, text);
		break;
	case SL_TYPE_BYTES:
		whole_text(*wide, bytes_units, text);
		break;
	case SL_TYPE_DURATION:
		if (*wide)
			whole_text(*wide, duration_units, text);
		else
			strcpy(text, "0s");
		break;
	case SL_TYPE_PER_S:
	case SL_TYPE_BYTES_PER_S:
		rate_text(*value, type == SL_TYPE_BYTES_PER_S, text);
		break;
	case SL_TYPE_RATIO:
	case SL_TYPE_NUMBER:
		real_text(*value, text, SL_VALUE_TEXT_MAX);
		break;
	case SL_TYPE_ENUM:
		snprintf(text, SL_VALUE_TEXT_MAX, "%s", row->choices[*(const uint32_t *)field]);
		break;
	case SL_TYPE_ADDRESS:
		if (((const struct sl_address *)field)->size)
			snprintf(text, SL_VALUE_TEXT_MAX, "\"%s\"",
				 sl_address_text(field, address));
		else
			strcpy(text, "\"\"");
		break;
	case SL_TYPE_CIDR:
		cidr_text(field, text);
		break;
	default:
		text[0] = 0;
	}
}

void sl_value_bound_text(enum sl_setting_type type, double bound, char text[SL_VALUE_TEXT_MAX])
{
	const uint64_t wide = bound >= 0x1p64 ? UINT64_MAX : bound > 0 ? (uint64_t)bound : 0;

	if (type == SL_TYPE_COUNT || type == SL_TYPE_BYTES || type == SL_TYPE_DURATION)
		sl_value_text(NULL, type, &wide, text);
	else
		sl_value_text(NULL, type, &bound, text);
}

size_t sl_element_bytes(const struct sl_setting *row)
{
	if (row->type == SL_TYPE_MAP || row->element == SL_TYPE_OBJECT ||
	    row->element == SL_TYPE_CHOICE)
		return row->object->bytes;
	return sl_value_bytes(row->element);
}

// Edits (insert, delete, replace) from `a` to `b`; names are short.
#define NEAR_MAX 48
static uint32_t distance(const char *a, const char *b)
{
	const size_t n = strlen(a), m = strlen(b);
	uint32_t row[NEAR_MAX + 1];

	if (n > NEAR_MAX || m > NEAR_MAX)
		return UINT32_MAX;
	for (uint32_t j = 0; j <= m; j++)
		row[j] = j;
	for (uint32_t i = 1; i <= n; i++) {
		uint32_t corner = row[0];

		row[0] = i;
		for (uint32_t j = 1; j <= m; j++) {
			const uint32_t above = row[j];
			const uint32_t edit = corner + (a[i - 1] != b[j - 1]);

			row[j] = SL_MIN(edit, SL_MIN(above, row[j - 1]) + 1);
			corner = above;
		}
	}
	return row[m];
}

const char *sl_nearest(const char *text, const char *(*name)(const void *self, uint32_t index),
		       const void *self, uint32_t count)
{
	// Two letters that changed places are two edits: from four letters on so many are taken.
	const size_t size = strlen(text), edits_max = size < 4 ? 1 : SL_MAX(size / 3, 2);
	uint32_t best = (uint32_t)edits_max + 1;
	const char *nearest = NULL;

	for (uint32_t i = 0; i < count; i++) {
		const char *candidate = name(self, i);
		const uint32_t edits = candidate ? distance(text, candidate) : UINT32_MAX;

		if (edits < best) {
			best = edits;
			nearest = candidate;
		}
	}
	return nearest;
}
