#include "dataplane/otlp/signal.h"

const char *const sl_signal_names[SL_SIGNALS] = {"traces", "metrics", "logs"};
const char *const sl_signal_topic_names[SL_SIGNALS] = {"spans", "metrics", "logs"};
const char *const sl_signal_item_names[SL_SIGNALS] = {"spans", "data points", "log records"};
const struct sl_label sl_label_signal = {
	.name = "signal", .values = sl_signal_names, .count = SL_SIGNALS};
