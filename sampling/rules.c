#include "sampling/rules.h"

#include <stdlib.h>

#include "dataplane/base/varint.h"

static void compile(struct sl_sampling_rule *rule, const struct sl_sampling_rule_config *config)
{
	const struct sl_sampling_keep *keeps = config->keep.items;
	struct sl_tracestate state = {.has_threshold = true};
	uint8_t text[SL_TRACESTATE_WRITE_MAX];
	size_t size;

	rule->tenant = sl_bytes_of(config->match.tenant);
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
	sl_sampler_init(&rule->rate, config->mode, config->rate, (unsigned)config->precision,
			(uint32_t)config->seed, config->fail_closed);
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
	const struct sl_sampling_rule_config *rules = config->rules.items;
	struct sl_sampling *sampling = calloc(
		1, sizeof(*sampling) + config->rules.count * sizeof(sampling->rules[0]));

	if (!sampling)
		return NULL;
	sampling->rule_count = (uint32_t)config->rules.count;
	for (uint32_t i = 0; i < sampling->rule_count; i++)
		compile(&sampling->rules[i], &rules[i]);
	return sampling;
}
