#include "dataplane/base/metrics.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

const struct sl_label sl_label_none = {.name = NULL, .values = NULL, .count = 1};

const uint64_t sl_histogram_bounds_ns[SL_HISTOGRAM_BUCKETS - 1] = {
	100 * SL_US, 250 * SL_US,  500 * SL_US, 1 * SL_MS,   2500 * SL_US, 5 * SL_MS,
	10 * SL_MS,  25 * SL_MS,   50 * SL_MS,  100 * SL_MS, 250 * SL_MS,  500 * SL_MS,
	1 * SL_S,    2500 * SL_MS, 5 * SL_S,    10 * SL_S,
};

struct sl_metrics {
	pthread_mutex_t lock; // never taken on a request's way
	struct sl_metric_block *blocks;
	size_t count, capacity;
};

void sl_histogram_add(struct sl_histogram *histogram, uint64_t value_ns)
{
	unsigned i = 0;

	while (i < SL_HISTOGRAM_BUCKETS - 1 && value_ns > sl_histogram_bounds_ns[i])
		i++;
	sl_count(&histogram->buckets[i], 1);
	sl_count(&histogram->sum_ns, value_ns);
}

struct sl_metrics *sl_metrics_create(void)
{
	struct sl_metrics *metrics = calloc(1, sizeof(*metrics));

	if (metrics)
		pthread_mutex_init(&metrics->lock, NULL);
	return metrics;
}

void sl_metrics_destroy(struct sl_metrics *metrics)
{
	if (!metrics)
		return;
	pthread_mutex_destroy(&metrics->lock);
	free(metrics->blocks);
	free(metrics);
}

int sl_metrics_add(struct sl_metrics *metrics, const struct sl_metric_row *rows, uint32_t row_count,
		   const void *base, int shard, const char *labels)
{
	struct sl_metric_block *block;

	pthread_mutex_lock(&metrics->lock);
	if (metrics->count == metrics->capacity) {
		const size_t capacity = metrics->capacity ? metrics->capacity * 2 : 16;
		void *grown = realloc(metrics->blocks, capacity * sizeof(*metrics->blocks));

		if (!grown) {
			pthread_mutex_unlock(&metrics->lock);
			return -ENOMEM;
		}
		metrics->blocks = grown;
		metrics->capacity = capacity;
	}
	block = &metrics->blocks[metrics->count++];
	*block = (struct sl_metric_block){
		.rows = rows, .row_count = row_count, .base = base, .shard = shard};
	snprintf(block->labels, sizeof(block->labels), "%s", labels ? labels : "");
	pthread_mutex_unlock(&metrics->lock);
	return 0;
}

void sl_metrics_remove(struct sl_metrics *metrics, const void *base)
{
	size_t kept = 0;

	pthread_mutex_lock(&metrics->lock);
	for (size_t i = 0; i < metrics->count; i++) {
		if (metrics->blocks[i].base != base)
			metrics->blocks[kept++] = metrics->blocks[i];
	}
	metrics->count = kept;
	pthread_mutex_unlock(&metrics->lock);
}

// A word of a block, read while its writer goes on.
static uint64_t word(const struct sl_metric_block *block, const struct sl_metric_row *row,
		     uint32_t index)
{
	const uint64_t *words = (const uint64_t *)((const char *)block->base + row->offset);

	return __atomic_load_n(&words[index], __ATOMIC_RELAXED);
}

// One output line of one row: which other blocks share name and labels is summed in.
static uint64_t sum_like(const struct sl_metrics *metrics, size_t first,
			 const struct sl_metric_row *row, uint32_t index, bool by_shard)
{
	const struct sl_metric_block *like = &metrics->blocks[first];
	uint64_t sum = 0;

	for (size_t i = first; i < metrics->count; i++) {
		const struct sl_metric_block *block = &metrics->blocks[i];

		if (block->rows != like->rows || strcmp(block->labels, like->labels) != 0 ||
		    (by_shard && block->shard != like->shard))
			continue;
		sum += word(block, row, index);
	}
	return sum;
}

// Whether an earlier block has already printed the lines of this one.
static bool printed(const struct sl_metrics *metrics, size_t index, bool by_shard)
{
	const struct sl_metric_block *block = &metrics->blocks[index];

	for (size_t i = 0; i < index; i++) {
		const struct sl_metric_block *other = &metrics->blocks[i];

		if (other->rows == block->rows && strcmp(other->labels, block->labels) == 0 &&
		    (!by_shard || other->shard == block->shard))
			return true;
	}
	return false;
}

// The label set of one word, with `extra` (a histogram's le) last; "" when there is none.
static void label_set(char *out, size_t size, const struct sl_metric_block *block,
		      const struct sl_metric_row *row, uint32_t index, bool by_shard,
		      const char *extra)
{
	char *at = out;
	char *const end = out + size;
	const char *comma = "";

	at += snprintf(at, (size_t)(end - at), "{");
	if (block->labels[0]) {
		at += snprintf(at, (size_t)(end - at), "%s", block->labels);
		comma = ",";
	}
	for (unsigned i = 0; i < 2 && row->labels[i] && row->labels[i]->name; i++) {
		const struct sl_label *inner = i == 0 ? row->labels[1] : NULL;
		const uint32_t value = inner && inner->name ? index / inner->count
							    : index % row->labels[i]->count;

		at += snprintf(at, (size_t)(end - at), "%s%s=\"%s\"", comma, row->labels[i]->name,
			       row->labels[i]->values[value]);
		comma = ",";
	}
	if (by_shard && block->shard >= 0) {
		at += snprintf(at, (size_t)(end - at), "%sshard=\"%d\"", comma, block->shard);
		comma = ",";
	}
	if (extra)
		at += snprintf(at, (size_t)(end - at), "%s%s", comma, extra);
	snprintf(at, (size_t)(end - at), "}");
	if (strcmp(out, "{}") == 0)
		out[0] = 0;
}

static void print_histogram(FILE *out, const struct sl_metrics *metrics, size_t index,
			    const struct sl_metric_row *row, bool by_shard)
{
	const struct sl_metric_block *block = &metrics->blocks[index];
	uint64_t seen = 0;
	char labels[256], le[32];

	for (uint32_t i = 0; i < SL_HISTOGRAM_BUCKETS; i++) {
		seen += sum_like(metrics, index, row, i, by_shard);
		if (i < SL_HISTOGRAM_BUCKETS - 1)
			snprintf(le, sizeof(le), "le=\"%g\"",
				 (double)sl_histogram_bounds_ns[i] / 1e9);
		else
			snprintf(le, sizeof(le), "le=\"+Inf\"");
		label_set(labels, sizeof(labels), block, row, 0, by_shard, le);
		fprintf(out, "%s_bucket%s %llu\n", row->name, labels, (unsigned long long)seen);
	}
	label_set(labels, sizeof(labels), block, row, 0, by_shard, NULL);
	fprintf(out, "%s_sum%s %.9f\n%s_count%s %llu\n", row->name, labels,
		(double)sum_like(metrics, index, row, SL_HISTOGRAM_BUCKETS, by_shard) / 1e9,
		row->name, labels, (unsigned long long)seen);
}

static void print_row(FILE *out, const struct sl_metrics *metrics, size_t index,
		      const struct sl_metric_row *row, bool by_shard)
{
	const struct sl_metric_block *block = &metrics->blocks[index];
	const char *tail = row->kind == SL_METRIC_COUNTER ? "_total" : "";
	char labels[256];

	if (row->kind == SL_METRIC_HISTOGRAM) {
		print_histogram(out, metrics, index, row, by_shard);
		return;
	}
	for (uint32_t i = 0; i < row->count; i++) {
		const uint64_t sum = sum_like(metrics, index, row, i, by_shard);

		// Of a matrix of labels only what has happened is shown: most of it never does.
		if (!sum && row->labels[1])
			continue;
		label_set(labels, sizeof(labels), block, row, i, by_shard, NULL);
		fprintf(out, "%s%s%s %llu\n", row->name, tail, labels, (unsigned long long)sum);
	}
}

// Whether an earlier block or row has printed the whole family of that name.
static bool family_printed(const struct sl_metrics *metrics, size_t index, uint32_t row_index)
{
	const char *name = metrics->blocks[index].rows[row_index].name;

	for (size_t i = 0; i <= index; i++) {
		const struct sl_metric_block *block = &metrics->blocks[i];
		const uint32_t rows = i == index ? row_index : block->row_count;

		if (i < index && block->rows == metrics->blocks[index].rows)
			return true;
		for (uint32_t j = 0; j < rows; j++) {
			if (strcmp(block->rows[j].name, name) == 0)
				return true;
		}
	}
	return false;
}

static void print_family(FILE *out, const struct sl_metrics *metrics, const char *name,
			 bool by_shard)
{
	for (size_t i = 0; i < metrics->count; i++) {
		const struct sl_metric_block *block = &metrics->blocks[i];

		if (printed(metrics, i, by_shard))
			continue;
		for (uint32_t j = 0; j < block->row_count; j++) {
			if (strcmp(block->rows[j].name, name) == 0)
				print_row(out, metrics, i, &block->rows[j], by_shard);
		}
	}
}

char *sl_metrics_render(const struct sl_metrics *metrics, bool by_shard, size_t *size)
{
	static const char *const kinds[] = {"counter", "gauge", "histogram"};
	char *text = NULL;
	FILE *out = open_memstream(&text, size);

	if (!out)
		return NULL;
	pthread_mutex_lock((pthread_mutex_t *)&metrics->lock);
	for (size_t i = 0; i < metrics->count; i++) {
		const struct sl_metric_block *block = &metrics->blocks[i];

		for (uint32_t j = 0; j < block->row_count; j++) {
			const struct sl_metric_row *row = &block->rows[j];
			const char *tail = row->kind == SL_METRIC_COUNTER ? "_total" : "";

			if (family_printed(metrics, i, j))
				continue;
			fprintf(out, "# HELP %s%s %s\n# TYPE %s%s %s\n", row->name, tail, row->help,
				row->name, tail, kinds[row->kind]);
			print_family(out, metrics, row->name, by_shard);
		}
	}
	pthread_mutex_unlock((pthread_mutex_t *)&metrics->lock);
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	return text;
}

static bool has_value(const struct sl_metric_block *block, const struct sl_metric_row *row,
		      uint32_t index, const char *value)
{
	char labels[256], quoted[128];

	if (!value)
		return true;
	snprintf(quoted, sizeof(quoted), "=\"%s\"", value);
	label_set(labels, sizeof(labels), block, row, index, false, NULL);
	return strstr(labels, quoted) != NULL;
}

uint64_t sl_metrics_sum(const struct sl_metrics *metrics, const char *name, const char *value)
{
	uint64_t sum = 0;

	pthread_mutex_lock((pthread_mutex_t *)&metrics->lock);
	for (size_t i = 0; i < metrics->count; i++) {
		const struct sl_metric_block *block = &metrics->blocks[i];

		for (uint32_t j = 0; j < block->row_count; j++) {
			const struct sl_metric_row *row = &block->rows[j];

			if (strcmp(row->name, name) != 0)
				continue;
			for (uint32_t k = 0; k < row->count; k++)
				sum += has_value(block, row, k, value) ? word(block, row, k) : 0;
		}
	}
	pthread_mutex_unlock((pthread_mutex_t *)&metrics->lock);
	return sum;
}
