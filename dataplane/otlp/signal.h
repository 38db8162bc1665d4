#pragma once

#include "dataplane/base/metrics.h"

// The signals of OTLP. Profiles are refused (reason.def) until a later version.
enum sl_signal { SL_TRACES, SL_METRICS, SL_LOGS };
#define SL_SIGNALS 3

// "traces", "metrics", "logs": metric labels and configuration.
extern const char *const sl_signal_names[SL_SIGNALS];
// "spans", "metrics", "logs": the Kafka topic's {signal} (reference: Collector's kafka exporter).
extern const char *const sl_signal_topic_names[SL_SIGNALS];
// What an item is called: "spans", "data points", "log records".
extern const char *const sl_signal_item_names[SL_SIGNALS];

// Paths of the Export calls (reference items 12 and 34). Case matters in both.
extern const struct sl_bytes sl_signal_grpc_paths[SL_SIGNALS];
extern const struct sl_bytes sl_signal_http_paths[SL_SIGNALS];

extern const struct sl_label sl_label_signal;
#define SL_LABEL_COUNT_signal SL_SIGNALS
