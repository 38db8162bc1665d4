#pragma once

#include "dataplane/base/metrics.h"

// The tables of what the control thread and its helpers count: for the reference.
//
// Threading: constants.
extern const struct sl_metric_row sl_build_rows[1]; // bears `version`
extern const struct sl_metric_row sl_quota_thread_counter_rows[];
extern const uint32_t sl_quota_thread_counter_row_count;
extern const struct sl_metric_row sl_ledger_thread_counter_rows[];
extern const uint32_t sl_ledger_thread_counter_row_count;
extern const struct sl_metric_row sl_source_counter_rows[];
extern const uint32_t sl_source_counter_row_count;
