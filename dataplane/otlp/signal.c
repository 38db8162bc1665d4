#include "dataplane/otlp/signal.h"

const char *const sl_signal_names[SL_SIGNALS] = {"traces", "metrics", "logs"};
const char *const sl_signal_topic_names[SL_SIGNALS] = {"spans", "metrics", "logs"};
const char *const sl_signal_item_names[SL_SIGNALS] = {"spans", "data points", "log records"};

#define SERVICE(package, name)                                                                     \
	SL_LITERAL("/opentelemetry.proto.collector." package ".v1." name "Service/Export")
const struct sl_bytes sl_signal_grpc_paths[SL_SIGNALS] = {
	SERVICE("trace", "Trace"), SERVICE("metrics", "Metrics"), SERVICE("logs", "Logs")};
const struct sl_bytes sl_signal_http_paths[SL_SIGNALS] = {
	SL_LITERAL("/v1/traces"), SL_LITERAL("/v1/metrics"), SL_LITERAL("/v1/logs")};

const struct sl_label sl_label_signal = {
	.name = "signal", .values = sl_signal_names, .count = SL_SIGNALS};
