#include "sampling/rules.h"

#include <stdlib.h>

#include "dataplane/base/varint.h"

static void compile(struct sl_sampling_rule *rule, const struct sl_sampling_rule_config *config,
		    double share)
{
	const struct sl_sampling_keep *keeps = config->keep.items;
	struct sl_tracestate state = {.has_threshold = true};
	uint8_t text[SL_TRACESTATE_WRITE_MAX];
	size_t size;

	rule->tenant = sl_bytes_of(config->match.tenant);
	rule->class_name = sl_bytes_of(config->match.class_name);
	rule->service = sl_bytes_of(config->match.service);
	for (uint32_t signal = 0; signal < SL_SIGNALS; signal++) {
		rule->signals[signal] = signal != SL_METRICS &&
					(config->match.signal == 0 ||
					 config->match.signal == signal + 1);
		rule->priority[signal] = sl_bytes_of(config->priority);
	}
	// The Collector looks for it in every span; in the other modes only who asks pays for it.
	if (config->mode == SL_SAMPLING_HASH_SEED && !config->priority)
		rule->priority[SL_TRACES] = SL_LITERAL("sampling.priority");
	rule->attribute = sl_bytes_of(config->attribute);
	sl_sampler_init(&rule->rate, config->mode, config->rate * share,
			(unsigned)config->precision, (uint32_t)config->seed, config->fail_closed);
	sl_sampler_init(&rule->keep_rate, config->mode, config->keep_rate,
			(unsigned)config->precision, (uint32_t)config->seed, config->fail_closed);
	assert(config->keep.count <= SL_SAMPLING_KEEPS_MAX);
	rule->keep_count = (uint32_t)config->keep.count;
	for (uint32_t i = 0; i < rule->keep_count; i++) {
		// Rounded up: zero says that the time does not matter.
		const uint64_t us = (keeps[i].slower_than_ns + SL_US - 1) / SL_US;

		rule->keeps[i].error = keeps[i].status == 1;
		// UINT32_MAX is the view's "that or longer".
		rule->keeps[i].slower_than_us = (uint32_t)SL_MIN(us, UINT32_MAX - 1);
	}
	if (rule->rate.threshold == SL_THRESHOLD_NEVER)
		return;
	state.threshold = rule->rate.threshold;
	size = sl_tracestate_write(&state, text);
	assert(size + 2 <= sizeof(rule->field));
	rule->field[0] = 3 << 3 | 2;
	rule->field[1] = (uint8_t)size;
	memcpy(rule->field + 2, text, size);
	rule->field_bytes = (uint8_t)(size + 2);
}

struct sl_sampling *sl_sampling_compile(const struct sl_sampling_config *config)
{
	static const struct sl_sampling_rule_config rest = {
		.mode = SL_SAMPLING_PROPORTIONAL,
		.rate = 1,
		.keep_rate = 1,
		.precision = SL_SAMPLING_PRECISION,
	};
	const struct sl_sampling_rule_config *from = config->rules.items;
	const uint32_t count = (uint32_t)config->rules.count;
	struct sl_sampling_rule *rule;
	struct sl_sampling *sampling;

	sampling = calloc(1, sizeof(*sampling) +
				     (SL_SAMPLING_THINNINGS + 1) * (count + 1) * sizeof(*rule));
	if (!sampling)
		return NULL;
	rule = sampling->rules;
	for (uint32_t n = 0; n <= SL_SAMPLING_THINNINGS; n++) {
		const double share = 1.0 / (1u << n);

		sampling->sets[n] = (struct sl_sampling_set){count + (n > 0), rule};
		for (uint32_t i = 0; i < count; i++)
			compile(rule++, &from[i], share);
		if (n > 0)
			compile(rule++, &rest, share);
	}
	return sampling;
}
