#include "sampling/rules.h"

#include <errno.h>
#include <stdlib.h>

#include "config/rows.h"

static const char *const status_choices[] = {"any", "error", NULL};
static const char *const signal_choices[] = {"any", "traces", "metrics", "logs", NULL};
static const char *const mode_choices[] = {"proportional", "equalizing", "hash_seed", NULL};

static const struct sl_setting keep_rows[] = {
	ROW(sl_sampling_keep, status, "status", ENUM, .preset = "any", .choices = status_choices,
	    .help = "`error`: spans with status error, log records from severity ERROR up."),
	ROW(sl_sampling_keep, slower_than_ns, "slower_than", DURATION,
	    .help = "Spans that took longer."),
	WHERE(sl_sampling_keep),
};

static void check_keep(const void *object, struct sl_errors *errors)
{
	const struct sl_sampling_keep *keep = object;

	if (keep->status == 0 && keep->slower_than_ns == 0)
		sl_errors_add(errors, &keep->where, "keep: names neither a status nor slower_than");
}

static const struct sl_settings keep_settings = {
	.name = "sampling.keep",
	.help = "What a rule keeps at keep_rate; all that is named must hold.",
	.bytes = sizeof(struct sl_sampling_keep),
	.rows = keep_rows,
	.row_count = SL_COUNT_OF(keep_rows),
	.check = check_keep,
};

static const struct sl_setting match_rows[] = {
	ROW(sl_sampling_match, tenant, "tenant", STRING,
	    .help = "Pattern of tenant names; unset: all."),
	ROW(sl_sampling_match, class_name, "class", STRING,
	    .where_offset = offsetof(struct sl_sampling_match, class_where),
	    .help = "Pattern of their class' name; unset: all."),
	ROW(sl_sampling_match, signal, "signal", ENUM, .preset = "any", .choices = signal_choices,
	    .help = "traces or logs; metrics are never sampled. any: both."),
	ROW(sl_sampling_match, service, "service", STRING,
	    .help = "Pattern of the resource attribute service.name; unset: all."),
};

static const struct sl_settings match_settings = {
	.name = "sampling.match",
	.help = "What a rule is for; all that is named must match.",
	.bytes = sizeof(struct sl_sampling_match),
	.rows = match_rows,
	.row_count = SL_COUNT_OF(match_rows),
};

static const struct sl_setting rule_rows[] = {
	ROW(sl_sampling_rule_config, match, "match", OBJECT, .object = &match_settings,
	    .help = "What the rule is for; unset: everything."),
	ROW(sl_sampling_rule_config, mode, "mode", ENUM, .required = true, .choices = mode_choices,
	    .help = "proportional: keep this share of what arrives. equalizing: bring all to "
		    "this probability, what is rarer passes. hash_seed: the Collector's hash."),
	ROW(sl_sampling_rule_config, rate, "rate", RATIO, .min = 0, .max = 1, .required = true,
	    .help = "Share of items that is kept; 100 % leaves them untouched."),
	ROW(sl_sampling_rule_config, keep, "keep", LIST, .element = SL_TYPE_CHOICE,
	    .object = &keep_settings, .shorthand = "status",
	    .help = "Items that are kept at keep_rate instead: `error`, `{slower_than: 2s}`."),
	ROW(sl_sampling_rule_config, keep_rate, "keep_rate", RATIO, .only = "keep", .min = 0,
	    .max = 1, .preset = "100%",
	    .help = "Rate of what `keep` names; at 100 % it passes with the threshold it came "
		    "with."),
	ROW(sl_sampling_rule_config, precision, "precision", COUNT, .min = 1,
	    .max = SL_THRESHOLD_DIGITS, .preset = "4",
	    .help = "Hex digits of a threshold that is written."),
	ROW(sl_sampling_rule_config, seed, "seed", COUNT, .only = "mode: hash_seed", .min = 0,
	    .max = UINT32_MAX, .preset = "0",
	    .help = "hash_seed: all stages that shall agree need the same."),
	ROW(sl_sampling_rule_config, fail_closed, "fail_closed", BOOL, .preset = "true",
	    .help = "Drop items whose sampling state cannot be read (hash_seed: or that are "
		    "sampled already, or have no id), else keep them as they are."),
	ROW(sl_sampling_rule_config, priority, "priority", STRING,
	    .help = "Attribute that overrules the rate. Of a span: 0 drops, more keeps, less "
		    "leaves it to the rate (hash_seed looks for sampling.priority by itself). "
		    "Of a log record: the percentage to use."),
	ROW(sl_sampling_rule_config, attribute, "attribute", STRING,
	    .help = "hash_seed of logs: hash this attribute instead of the trace id."),
	WHERE(sl_sampling_rule_config),
};

static void check_rule(const void *object, struct sl_errors *errors)
{
	const struct sl_sampling_rule_config *rule = object;

	if (rule->match.signal == SL_METRICS + 1)
		sl_errors_add(errors, &rule->where, "match.signal: metrics are never sampled");
	if (rule->attribute && rule->mode != SL_SAMPLING_HASH_SEED)
		sl_errors_add(errors, &rule->where, "attribute: only mode hash_seed has it");
	if (rule->keep.count > SL_SAMPLING_KEEPS_MAX)
		sl_errors_add(errors, &rule->where, "keep: more than %d entries",
			      SL_SAMPLING_KEEPS_MAX);
}

static const struct sl_settings rule_settings = {
	.name = "sampling.rule",
	.help = "One sampling rule; the first that matches wins, no rule leaves items untouched.",
	.bytes = sizeof(struct sl_sampling_rule_config),
	.rows = rule_rows,
	.row_count = SL_COUNT_OF(rule_rows),
	.check = check_rule,
};

static const struct sl_setting rows[] = {
	ROW(sl_sampling_config, rules, "sampling", LIST, .element = SL_TYPE_OBJECT,
	    .object = &rule_settings, .help = "Sampling rules, in order."),
};

static const struct sl_settings settings = {
	.name = "sampling",
	.help = "Consistent probability sampling by trace id.",
	.bytes = sizeof(struct sl_sampling_config),
	.rows = rows,
	.row_count = SL_COUNT_OF(rows),
};

static void *build(const void *object, const struct sl_build *build)
{
	const struct sl_sampling_config *config = object;
	struct sl_sampling *sampling;

	if (config->rules.count > SL_SAMPLING_RULES_MAX) {
		sl_errors_add(build->errors, NULL, "sampling: more than %d rules",
			      SL_SAMPLING_RULES_MAX);
		return NULL;
	}
	sampling = sl_sampling_compile(config);
	if (!sampling)
		sl_errors_add(build->errors, NULL, "sampling: %s", strerror(ENOMEM));
	return sampling;
}

static void destroy(void *part)
{
	free(part);
}

const struct sl_module sl_sampling_module = {
	.id = SL_MODULE_SAMPLING,
	.name = "sampling",
	.settings = &settings,
	.build = build,
	.destroy = destroy,
};
