#pragma once

#include "dataplane/base/metrics.h"

// What the system says of this process, under the names that Prometheus' clients agree on
// (process_cpu_seconds_total and so on).
//
// Threading: any. Memory: the caller's. Time: the system's.
#define SL_USAGE_TEXT_MAX 2048
#define SL_USAGE_ROWS     6
extern const struct sl_metric_row sl_usage_rows[SL_USAGE_ROWS]; // names, for the reference

// Writes the metrics as text; what the system does not say is left out. Returns the bytes written.
size_t sl_usage_metrics(char text[SL_USAGE_TEXT_MAX]);
