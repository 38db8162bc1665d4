#pragma once

#include "dataplane/otlp/signal.h"

// What a shard counts of sampling. Threading: one writer, any reader.
#define SL_SAMPLING_COUNTERS(X)                                                                    \
	X(sampled_out, COUNTER, "sluice_sampling_dropped_items", signal,                           \
	  "Items that sampling dropped.")                                                          \
	X(without_id, COUNTER, "sluice_sampling_without_id_items", signal,                         \
	  "Items that a rule was for, without a trace id or attribute to decide by.")              \
	X(inconsistent, COUNTER, "sluice_sampling_inconsistent_items", signal,                     \
	  "Items whose earlier threshold contradicts their randomness or the rule's mode.")        \
	X(unreadable, COUNTER, "sluice_sampling_unreadable_items", signal,                         \
	  "Items whose sampling state does not parse.")
SL_COUNTERS(sampling, SL_SAMPLING_COUNTERS)
