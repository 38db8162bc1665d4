#pragma once

#include <stdio.h>

#include "dataplane/base/base.h"

// Counters: plain words with one writer each, described by one list a module, summed by the
// reader. The list gives the struct, the Prometheus names and units, and the help.
//
//   //      field     kind       name                           labels  help
//   #define SL_QUOTA_COUNTERS(X)
//           X(refused, COUNTER, "sluice_quota_refused_requests", signal, "Requests over ...")
//   SL_COUNTERS(quota, SL_QUOTA_COUNTERS)     // in the header: struct sl_quota_counters
//   SL_COUNTER_ROWS(quota, SL_QUOTA_COUNTERS) // in the .c: sl_quota_counter_rows[]
//
// A field with labels is an array, its last index running fastest: with labels `signal` it is
// `uint64_t refused[SL_LABEL_COUNT_signal]`; the label's values are named once, by
// SL_LABEL_VALUES_signal. `none` is an array of one: counters->refused[0].
// A COUNTER's name gets "_total" behind it in the exposition.
//
// Threading: each struct has one writing core (sl_count, sl_gauge); any thread may read.

enum sl_metric_kind { SL_METRIC_COUNTER, SL_METRIC_GAUGE, SL_METRIC_HISTOGRAM };

// One label and its values, in the order of its index.
struct sl_label {
	const char *name;
	const char *const *values;
	uint32_t count;
};

struct sl_metric_row {
	const char *name; // without "_total"
	const char *help;
	enum sl_metric_kind kind;
	uint32_t offset;                  // of the first word in its struct
	uint32_t count;                   // words
	const struct sl_label *labels[2]; // NULL or sl_label_none: none
};

// A latency histogram's buckets, in seconds: 100 us ... 10 s, and +Inf; then sum_ns.
#define SL_HISTOGRAM_BUCKETS 17
struct sl_histogram {
	uint64_t buckets[SL_HISTOGRAM_BUCKETS]; // not cumulative
	uint64_t sum_ns;
};
extern const uint64_t sl_histogram_bounds_ns[SL_HISTOGRAM_BUCKETS - 1];
void sl_histogram_add(struct sl_histogram *histogram, uint64_t value_ns);

extern const struct sl_label sl_label_none;
#define SL_LABEL_COUNT_none 1

#define SL_COUNTER_FIELD_(field, kind, name, label, help) uint64_t field[SL_LABEL_COUNT_##label];
#define SL_COUNTER_ROW_(field_, kind_, name_, label_, help_)                                       \
	{.name = name_,                                                                            \
	 .help = help_,                                                                            \
	 .kind = SL_METRIC_##kind_,                                                                \
	 .offset = offsetof(SL_COUNTER_STRUCT_, field_),                                           \
	 .count = SL_LABEL_COUNT_##label_,                                                         \
	 .labels = {&sl_label_##label_}},
#define SL_COUNTERS(module, LIST)                                                                  \
	struct sl_##module##_counters {                                                            \
		LIST(SL_COUNTER_FIELD_)                                                            \
	};                                                                                         \
	extern const struct sl_metric_row sl_##module##_counter_rows[];                            \
	extern const uint32_t sl_##module##_counter_row_count;
// Before it: #define SL_COUNTER_STRUCT_ struct sl_quota_counters
#define SL_COUNTER_ROWS(module, LIST)                                                              \
	const struct sl_metric_row sl_##module##_counter_rows[] = {LIST(SL_COUNTER_ROW_)};         \
	const uint32_t sl_##module##_counter_row_count = (uint32_t)SL_COUNT_OF(                    \
		sl_##module##_counter_rows);

// One struct of counters as registered: its rows, where it lies, and labels that all of it bears.
struct sl_metric_block {
	const struct sl_metric_row *rows;
	uint32_t row_count;
	const void *base;
	int shard;        // -1: the process'
	char labels[160]; // `destination="main"`, or empty
};

// The process' list of blocks. Threading: any thread, under a lock: shards add and remove at set-up
// and reloads only.
struct sl_metrics;
struct sl_metrics *sl_metrics_create(void);
void sl_metrics_destroy(struct sl_metrics *metrics);
// `labels` may be NULL. Returns 0 or -ENOMEM.
int sl_metrics_add(struct sl_metrics *metrics, const struct sl_metric_row *rows, uint32_t row_count,
		   const void *base, int shard, const char *labels);
void sl_metrics_remove(struct sl_metrics *metrics, const void *base);
// The Prometheus text exposition (format 0.0.4), summed over shards, or with a `shard` label.
// Returns a malloc'ed, terminated text (the caller frees), or NULL.
char *sl_metrics_render(const struct sl_metrics *metrics, bool by_shard, size_t *size);
// The same text as OpenMetrics 1.0 has it; takes and gives malloc'ed memory, NULL without any.
#define SL_METRICS_PLAIN "text/plain; version=0.0.4; charset=utf-8"
#define SL_METRICS_OPEN  "application/openmetrics-text; version=1.0.0; charset=utf-8"
char *sl_metrics_to_open(char *text, size_t *size);
// Whether who sends this Accept header (NULL: none) rather has that.
bool sl_metrics_wants_open(const char *accept);
// Prints a module's rows as a table of the reference, `title` NULL: as more of the one before.
void sl_metrics_print_reference(FILE *out, const char *title, const struct sl_metric_row *rows,
				uint32_t row_count, const char *labels);
// The sum over all blocks of rows with that name and that one label value (NULL: all values).
uint64_t sl_metrics_sum(const struct sl_metrics *metrics, const char *name, const char *value);
