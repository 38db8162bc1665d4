#pragma once

#include "config/settings.h"
#include "dataplane/otlp/signal.h"
#include "sampling/sampler.h"
#include "sampling/sampling.h"

// The rules as configured and as the stage reads them; in order, the first that matches wins.
//
// Threading: built by the control thread, then read-only. Memory: strings lie in the configuration,
// which lives as long as its snapshot.
#define SL_SAMPLING_RULES_MAX 256
#define SL_SAMPLING_KEEPS_MAX 8
#define SL_SAMPLING_PRECISION 4 // hex digits of a threshold that is written

// What a rule keeps at its keep_rate: all that is named must hold.
struct sl_sampling_keep {
	uint32_t status; // 0: any, 1: error
	uint64_t slower_than_ns;
	struct sl_where where;
};

struct sl_sampling_match {
	const char *tenant, *class_name, *service; // globs; NULL: any
	struct sl_where class_where;
	uint32_t signal; // 0: any, else enum sl_signal + 1
};

struct sl_sampling_rule_config {
	struct sl_sampling_match match;
	uint32_t mode;
	double rate, keep_rate;
	uint64_t precision, seed;
	bool fail_closed;
	const char *priority, *attribute;
	struct sl_list keep; // struct sl_sampling_keep
	struct sl_where where;
};

struct sl_sampling_config {
	struct sl_list rules; // struct sl_sampling_rule_config
};

struct sl_sampling_rule {
	struct sl_bytes tenant, class_name, service; // globs; empty: any
	bool signals[SL_SIGNALS];
	struct sl_sampler rate, keep_rate;
	struct sl_bytes priority[SL_SIGNALS]; // the attribute's key; empty: not looked for
	struct sl_bytes attribute;            // hash_seed of logs: hashed instead of the trace id
	uint32_t keep_count;
	struct {
		bool error;
		uint32_t slower_than_us;
	} keeps[SL_SAMPLING_KEEPS_MAX];
	uint8_t field[32]; // the trace_state field of a kept span that had none
	uint8_t field_bytes;
};

// Set 0 is what was configured. Set n is the same at 1/2^n of every rate (but keep_rate: what a
// rule keeps, it keeps), with a proportional rule at the end for whatever none is for.
struct sl_sampling_set {
	uint32_t count;
	struct sl_sampling_rule *rules;
};

struct sl_sampling {
	struct sl_sampling_set sets[SL_SAMPLING_THINNINGS + 1];
	struct sl_sampling_rule rules[]; // of all sets
};

// NULL when memory is short.
struct sl_sampling *sl_sampling_compile(const struct sl_sampling_config *config);
