#include "tenants/table.h"

#include <errno.h>
#include <time.h>

// The values of the tenants file that no setting's type knows.

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int sl_tenants_parse_digest(const char *text, uint8_t digest[32])
{
	static const char prefix[] = "sha256:";

	if (strncmp(text, prefix, sizeof(prefix) - 1) != 0)
		return -EINVAL;
	text += sizeof(prefix) - 1;
	for (unsigned i = 0; i < 32; i++) {
		const int high = hex(text[2 * i]), low = high < 0 ? -1 : hex(text[2 * i + 1]);

		if (low < 0)
			return -EINVAL;
		digest[i] = (uint8_t)(high << 4 | low);
	}
	return text[64] ? -EINVAL : 0;
}

// `count` digits at `*text`, at most `most`.
static bool take_digits(const char **text, unsigned count, int most, int *value)
{
	*value = 0;
	for (unsigned i = 0; i < count; i++, (*text)++) {
		if (**text < '0' || **text > '9')
			return false;
		*value = *value * 10 + (**text - '0');
	}
	return *value <= most;
}

static bool take(const char **text, const char *any)
{
	if (!**text || !strchr(any, **text))
		return false;
	(*text)++;
	return true;
}

static int days_in(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

	return days[month - 1] + (leap && month == 2);
}

// RFC 3339 section 5.6. A leap second is the next second.
int sl_tenants_parse_time(const char *text, uint64_t *wall_ns)
{
	struct tm tm = {0};
	int hours = 0, minutes = 0, sign = 0;

	if (!take_digits(&text, 4, 2261, &tm.tm_year) || !take(&text, "-") ||
	    !take_digits(&text, 2, 12, &tm.tm_mon) || !take(&text, "-") ||
	    !take_digits(&text, 2, 31, &tm.tm_mday) || !take(&text, "Tt ") ||
	    !take_digits(&text, 2, 23, &tm.tm_hour) || !take(&text, ":") ||
	    !take_digits(&text, 2, 59, &tm.tm_min) || !take(&text, ":") ||
	    !take_digits(&text, 2, 60, &tm.tm_sec))
		return -EINVAL;
	if (tm.tm_year < 1970 || tm.tm_mon < 1 || tm.tm_mday < 1 ||
	    tm.tm_mday > days_in(tm.tm_year, tm.tm_mon))
		return -EINVAL;
	if (take(&text, ".")) {
		int digit;

		if (!take_digits(&text, 1, 9, &digit))
			return -EINVAL;
		while (take_digits(&text, 1, 9, &digit))
			;
	}
	if (*text == '+' || *text == '-') {
		sign = *text++ == '+' ? 1 : -1;
		if (!take_digits(&text, 2, 23, &hours) || !take(&text, ":") ||
		    !take_digits(&text, 2, 59, &minutes))
			return -EINVAL;
	} else if (!take(&text, "Zz")) {
		return -EINVAL;
	}
	if (*text)
		return -EINVAL;

	tm.tm_year -= 1900;
	tm.tm_mon--;

	const time_t seconds = timegm(&tm);
	const int64_t at = (int64_t)seconds - sign * (hours * 3600 + minutes * 60);

	if (at < 0)
		return -EINVAL;
	*wall_ns = (uint64_t)at * SL_S;
	return 0;
}
