#include "dataplane/base/log.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "dataplane/base/clock.h"

#define LINE_BYTES 2048
#define SITE_BURST 10
#define SPELL_NS   (60 * SL_S)

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static uint32_t current_level = SL_LOG_INFO;
static uint32_t current_format = SL_LOG_LOGFMT;

void sl_log_set_level(enum sl_log_level level)
{
	__atomic_store_n(&current_level, level, __ATOMIC_RELAXED);
}

enum sl_log_level sl_log_get_level(void)
{
	return __atomic_load_n(&current_level, __ATOMIC_RELAXED);
}

void sl_log_set_format(enum sl_log_format format)
{
	__atomic_store_n(&current_format, format, __ATOMIC_RELAXED);
}

int sl_log_level_parse(const char *name)
{
	for (unsigned i = 0; i < SL_COUNT_OF(level_names); i++) {
		if (strcmp(name, level_names[i]) == 0)
			return (int)i;
	}
	return -1;
}

// Sites are shared by threads: a lost update costs a line more or less, nothing else.
static bool allowed(struct sl_log_site *site, uint32_t *suppressed)
{
	const uint64_t second = sl_clock_now_ns() / SL_S;

	if (__atomic_exchange_n(&site->second, second, __ATOMIC_RELAXED) != second) {
		const uint32_t spent = __atomic_load_n(&site->spent, __ATOMIC_RELAXED);

		__atomic_store_n(&site->spent, spent ? spent - 1 : 0, __ATOMIC_RELAXED);
	}
	if (__atomic_load_n(&site->spent, __ATOMIC_RELAXED) >= SITE_BURST) {
		__atomic_fetch_add(&site->suppressed, 1, __ATOMIC_RELAXED);
		return false;
	}
	__atomic_fetch_add(&site->spent, 1, __ATOMIC_RELAXED);
	*suppressed = __atomic_exchange_n(&site->suppressed, 0, __ATOMIC_RELAXED);
	return true;
}

uint64_t sl_log_spell_more(struct sl_log_spell *spell, uint64_t now_ns)
{
	uint64_t count;

	spell->count++;
	if (spell->told_ns && now_ns - spell->told_ns < SPELL_NS)
		return 0;
	count = spell->count;
	*spell = (struct sl_log_spell){.told_ns = now_ns};
	return count;
}

// The next `key=value` of a logfmt text; a quoted value ends at its closing quote.
static const char *next_pair(const char *at, struct sl_bytes *key, struct sl_bytes *value)
{
	const char *start;

	while (*at == ' ')
		at++;
	start = at;
	while (*at && *at != '=' && *at != ' ')
		at++;
	*key = sl_bytes(start, (size_t)(at - start));
	if (*at == '=')
		at++;
	start = at;
	if (*at == '"') {
		start = ++at;
		while (*at && !(*at == '"' && (at[1] == ' ' || at[1] == 0)))
			at++;
		*value = sl_bytes(start, (size_t)(at - start));
		return *at ? at + 1 : at;
	}
	while (*at && *at != ' ')
		at++;
	*value = sl_bytes(start, (size_t)(at - start));
	return at;
}

static size_t put_json_text(char *out, size_t size, struct sl_bytes text)
{
	size_t used = 0;

	for (size_t i = 0; i < text.size && used + 8 < size; i++) {
		const uint8_t c = text.data[i];

		if (c == '"' || c == '\\')
			used += (size_t)snprintf(out + used, size - used, "\\%c", c);
		else if (c < 0x20)
			used += (size_t)snprintf(out + used, size - used, "\\u%04x", c);
		else
			out[used++] = (char)c;
	}
	return used;
}

static size_t to_json(const char *logfmt, char *out, size_t size)
{
	struct sl_bytes key, value;
	size_t used = 1;
	const char *comma = "";

	out[0] = '{';
	while (used + 64 < size) {
		logfmt = next_pair(logfmt, &key, &value);
		if (!key.size)
			break;
		used += (size_t)snprintf(out + used, size - used, "%s\"", comma);
		used += put_json_text(out + used, size - used - 16, key);
		used += (size_t)snprintf(out + used, size - used, "\":\"");
		used += put_json_text(out + used, size - used - 16, value);
		out[used++] = '"';
		comma = ",";
	}
	out[used++] = '}';
	return used;
}

void sl_log_write(struct sl_log_site *site, enum sl_log_level level, const char *event,
		  const char *format, ...)
{
	char line[LINE_BYTES], json[LINE_BYTES + 256];
	uint32_t suppressed = 0;
	const uint64_t wall_ns = sl_clock_wall_ns();
	const time_t second = (time_t)(wall_ns / SL_S);
	struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
	const char *out = line;
	struct tm utc;
	size_t used;
	va_list args;

	if (!allowed(site, &suppressed))
		return;
	gmtime_r(&second, &utc);
	used = strftime(line, sizeof(line), "ts=%Y-%m-%dT%H:%M:%S", &utc);
	used += (size_t)snprintf(line + used, sizeof(line) - used, ".%03uZ level=%s event=%s ",
				 (unsigned)(wall_ns / SL_MS % 1000), level_names[level], event);
	if (suppressed)
		used += (size_t)snprintf(line + used, sizeof(line) - used, "suppressed=%u ",
					 suppressed);
	va_start(args, format);
	used += (size_t)vsnprintf(line + used, sizeof(line) - used, format, args);
	va_end(args);
	used = SL_MIN(used, sizeof(line) - 2);
	for (size_t i = 0; i < used; i++) {
		if (line[i] == '\n' || line[i] == '\r')
			line[i] = ' '; // one event, one line, whatever a peer put into a name
	}
	while (used && line[used - 1] == ' ')
		used--;
	line[used] = 0;
	if (__atomic_load_n(&current_format, __ATOMIC_RELAXED) == SL_LOG_JSON) {
		used = to_json(line, json, sizeof(json) - 1);
		json[used++] = '\n';
		out = json;
	} else {
		line[used++] = '\n';
	}
	// A reader that stalls must not stall a shard: what does not fit now is lost, and counted
	// with the site's next line.
	if (poll(&ready, 1, 0) != 1 || !(ready.revents & POLLOUT) ||
	    write(STDERR_FILENO, out, used) < 0)
		__atomic_fetch_add(&site->suppressed, 1, __ATOMIC_RELAXED);
}
