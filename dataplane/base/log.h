#pragma once

#include "dataplane/base/base.h"

// Structured log lines on stderr: logfmt or JSON, one write(2) a line, rate-limited per call site.
//
//   sl_log(SL_LOG_WARN, "config_refused", "file=%s line=%d", path, line) is written as
//   ts=2026-01-02T03:04:05.678Z level=warn event=config_refused file=/etc/x line=7
//
// Threading: any thread; never on a request's way. Memory: none kept.
enum sl_log_level { SL_LOG_DEBUG, SL_LOG_INFO, SL_LOG_WARN, SL_LOG_ERROR };
enum sl_log_format { SL_LOG_LOGFMT, SL_LOG_JSON };

// One call site's allowance: a burst of 10 lines, then one a second; what was held back is
// said with the next line as suppressed=N.
struct sl_log_site {
	uint64_t second;
	uint32_t spent, suppressed;
};

void sl_log_set_level(enum sl_log_level level);
enum sl_log_level sl_log_get_level(void);
void sl_log_set_format(enum sl_log_format format);
// "debug" ... "error" -> level, or -1.
int sl_log_level_parse(const char *name);

// `event` in snake_case; `format` gives the rest as logfmt pairs: "file=%s line=%d". A value with
// spaces is put in quotes by its caller: "reason=\"%s\"". Lines end at 2,000 bytes.
void sl_log_write(struct sl_log_site *site, enum sl_log_level level, const char *event,
		  const char *format, ...) __attribute__((format(printf, 4, 5)));

// What is told when it begins, and while it goes on at most once a minute, with how often it was
// since (`count=N`, last). Threading: one thread. Zeroed: nothing was told.
struct sl_log_spell {
	uint64_t told_ns;
	uint64_t count; // since then
};

// Counts one more. Returns how many the caller shall tell now, this one included; 0: none.
uint64_t sl_log_spell_more(struct sl_log_spell *spell, uint64_t now_ns);

#define sl_log(level, event, ...)                                                                  \
	do {                                                                                       \
		static struct sl_log_site sl_log_site_;                                            \
		if ((level) >= sl_log_get_level())                                                 \
			sl_log_write(&sl_log_site_, (level), (event), __VA_ARGS__);                \
	} while (0)
