#include "tenants/cardinality/rules.h"

#include <stdlib.h>

#include "dataplane/otlp/text.h"

#include "config/rows.h"

static const char *const signal_choices[] = {"any", "traces", "metrics", "logs", NULL};
static const char *const over_choices[] = {"observe", "drop_attribute", "drop_item", NULL};

static const struct sl_setting rows[] = {
	WHERE(sl_cardinality_config),
	ROW(sl_cardinality_config, attribute, "attribute", STRING,
	    .help = "The attribute of spans, data points and log records (not of their resource) "
		    "whose different values are counted."),
	ROW(sl_cardinality_config, resource_attribute, "resource_attribute", STRING,
	    .help = "Or the attribute of their resources. drop_attribute cuts it out of the "
		    "resource, drop_item loses all items in it."),
	ROW(sl_cardinality_config, series, "series", BOOL, .preset = "false",
	    .help = "Count metric series instead: metric name, attributes, scope and resource."),
	ROW(sl_cardinality_config, signal, "signal", ENUM, .choices = signal_choices,
	    .preset = "any", .help = "Whose attributes; they are counted together."),
	ROW(sl_cardinality_config, limit, "limit", COUNT, .min = 1, .max = SL_DISTINCT_LIMIT_MAX,
	    .required = true,
	    .help = "Different values in a window, over all shards of the instance. Values that "
		    "are known pass when it is reached, new ones are over."),
	ROW(sl_cardinality_config, window_ns, "window", DURATION, .min = 1e9, .max = 8.64e13,
	    .preset = "1h", .help = "After which all are forgotten."),
	ROW(sl_cardinality_config, over, "over", ENUM, .choices = over_choices, .preset = "observe",
	    .help = "What becomes of an item with a value that is over. observe: it is counted. "
		    "drop_attribute: the attribute is cut out of it. drop_item: it is lost, and "
		    "counted in partial_success."),
};

static void check(const void *object, struct sl_errors *errors)
{
	const struct sl_cardinality_config *config = object;

	const char *key = config->attribute ? config->attribute : config->resource_attribute;

	if (config->series + (config->attribute != NULL) + (config->resource_attribute != NULL) !=
	    1)
		sl_errors_add(errors, &config->where,
			      "cardinality: expected one of attribute, resource_attribute and "
			      "series: true");
	if (config->series && config->over == SL_OVER_DROP_ATTRIBUTE)
		sl_errors_add(errors, &config->where,
			      "cardinality: of series there is no attribute to drop; drop_item?");
	if (config->series && config->signal && config->signal != SL_METRICS + 1)
		sl_errors_add(errors, &config->where, "cardinality: only metrics have series");
	if (key && (!*key || strlen(key) > SL_CARDINALITY_KEY_MAX))
		sl_errors_add(errors, &config->where, "cardinality: expected 1-%d bytes",
			      SL_CARDINALITY_KEY_MAX);
	// Sampling writes these two into log records: it must find them.
	if (config->attribute && (strcmp(config->attribute, "sampling.threshold") == 0 ||
				  strcmp(config->attribute, "sampling.randomness") == 0))
		sl_errors_add(errors, &config->where, "cardinality: %s belongs to sampling",
			      config->attribute);
}

const struct sl_settings sl_cardinality_settings = SETTINGS(
	"cardinality", sl_cardinality_config, rows, .check = check,
	.help = "A limit on different values. Counted exactly up to the limit, and estimated "
		"beyond it; `/tenants/{id}` names the offenders. It takes 12 to 24 bytes a value "
		"of the limit, and 8 KiB.");

// --- a tenant's ----------------------------------------------------------------------------------

static uint8_t signals_of(const struct sl_cardinality_config *config)
{
	if (config->series)
		return 1u << SL_METRICS;
	return config->signal ? (uint8_t)(1u << (config->signal - 1)) : (1u << SL_SIGNALS) - 1;
}

static bool is_same(const struct sl_cardinality_rule *one, const struct sl_cardinality_rule *other)
{
	return one->key_bytes == other->key_bytes && one->signals == other->signals &&
	       one->resource == other->resource &&
	       memcmp(one->key, other->key, one->key_bytes) == 0;
}

static struct sl_distinct *continue_or_begin(const struct sl_cardinality_rule *rule,
					     const struct sl_cardinality_config *config,
					     const struct sl_cardinality *before,
					     struct sl_distinct_block *block)
{
	for (unsigned i = 0; before && i < before->count; i++) {
		struct sl_distinct *distinct = before->rules[i].distinct;

		if (is_same(rule, &before->rules[i]) && distinct->limit == config->limit &&
		    distinct->window_ns == config->window_ns) {
			distinct->references++;
			return distinct;
		}
	}
	return block ? sl_distinct_create_in(block, config->limit, config->window_ns)
		     : sl_distinct_create(config->limit, config->window_ns);
}

struct sl_cardinality *sl_cardinality_create(const struct sl_list *configs,
					     const struct sl_cardinality *before, uint64_t *bytes,
					     struct sl_distinct_block *blocks)
{
	const struct sl_cardinality_config *config = configs->items;
	struct sl_cardinality *made;

	assert(configs->count <= SL_CARDINALITY_RULES_MAX);
	made = calloc(1, sizeof(*made) + configs->count * sizeof(made->rules[0]));
	for (size_t i = 0; made && i < configs->count; i++) {
		struct sl_cardinality_rule *rule = &made->rules[i];

		if (!config[i].series) {
			const char *key = config[i].attribute ? config[i].attribute
							      : config[i].resource_attribute;

			rule->key_bytes = (uint8_t)strlen(key);
			memcpy(rule->key, key, rule->key_bytes);
			rule->resource = !config[i].attribute;
		}
		rule->signals = signals_of(&config[i]);
		rule->over = (uint8_t)config[i].over;
		rule->distinct = continue_or_begin(rule, &config[i], before,
						   blocks ? &blocks[i] : NULL);
		if (!rule->distinct) {
			sl_cardinality_destroy(made);
			return NULL;
		}
		*bytes += sl_distinct_bytes(config[i].limit);
		made->signals |= rule->signals;
		made->count++;
	}
	return made;
}

void sl_cardinality_destroy(struct sl_cardinality *cardinality)
{
	if (!cardinality)
		return;
	for (unsigned i = 0; i < cardinality->count; i++)
		sl_distinct_put(cardinality->rules[i].distinct);
	free(cardinality);
}

void sl_cardinality_reset(struct sl_cardinality *cardinality)
{
	for (unsigned i = 0; i < cardinality->count; i++)
		sl_distinct_reset(cardinality->rules[i].distinct);
}

// --- for people ----------------------------------------------------------------------------------

static void print_text(FILE *out, struct sl_bytes text)
{
	uint8_t character[SL_JSON_ESCAPE_MAX];

	fputc('"', out);
	for (size_t at = 0; at < text.size;) {
		const unsigned size = sl_json_escape(character, text, &at);

		fwrite(character, 1, size, out);
	}
	fputc('"', out);
}

const char *sl_cardinality_kind(const struct sl_cardinality_rule *rule)
{
	return !rule->key_bytes ? "series" : rule->resource ? "resource_attribute" : "attribute";
}

static int by_count(const void *a, const void *b)
{
	const struct sl_distinct_name *one = a, *other = b;

	return (one->count < other->count) - (one->count > other->count);
}

static void describe_notes(struct sl_distinct_notes *notes, FILE *out)
{
	const uint32_t samples = SL_MIN(notes->sample_count, SL_DISTINCT_SAMPLES);

	qsort(notes->names, notes->name_count, sizeof(notes->names[0]), by_count);
	fputs(",\"names\":[", out);
	for (uint32_t i = 0; i < notes->name_count; i++) {
		const struct sl_distinct_name *name = &notes->names[i];

		fputs(i ? ",{\"name\":" : "{\"name\":", out);
		print_text(out, sl_bytes(name->name.text, name->name.bytes));
		fprintf(out, ",\"estimate\":%.0f}",
			sl_hll_estimate(name->registers, SL_DISTINCT_NAME_BITS));
	}
	fputs("],\"refused\":[", out);
	for (uint32_t i = 0; i < samples; i++) {
		const uint32_t at = notes->sample_count - 1 - i; // the newest first
		const struct sl_distinct_text *text = &notes->samples[at % SL_DISTINCT_SAMPLES];

		if (i)
			fputc(',', out);
		print_text(out, sl_bytes(text->text, text->bytes));
	}
	fputc(']', out);
}

void sl_cardinality_describe(const struct sl_cardinality *cardinality, uint64_t now_ns, FILE *out)
{
	struct sl_distinct_notes notes;

	fputc('[', out);
	for (unsigned i = 0; i < cardinality->count; i++) {
		const struct sl_cardinality_rule *rule = &cardinality->rules[i];
		struct sl_distinct *distinct = rule->distinct;
		const struct sl_distinct_count count = sl_distinct_count(distinct);

		fputs(i ? ",{" : "{", out);
		if (rule->key_bytes) {
			fprintf(out, "\"%s\":", sl_cardinality_kind(rule));
			print_text(out, sl_bytes(rule->key, rule->key_bytes));
		} else {
			fputs("\"series\":true", out);
		}
		fprintf(out,
			",\"limit\":%llu,\"window_seconds\":%.15g,\"over\":\"%s\",\"current\":%s,"
			"\"admitted\":%llu,\"estimate\":%.0f,\"cut\":%llu,\"memory_bytes\":%zu",
			(unsigned long long)distinct->limit, (double)distinct->window_ns / 1e9,
			over_choices[rule->over],
			count.window == sl_distinct_window(distinct, now_ns) ? "true" : "false",
			(unsigned long long)count.admitted, count.all,
			(unsigned long long)__atomic_load_n(&distinct->cut, __ATOMIC_RELAXED),
			distinct->memory_bytes);
		if (sl_distinct_notes(distinct, &notes))
			describe_notes(&notes, out);
		fputc('}', out);
	}
	fputc(']', out);
}
