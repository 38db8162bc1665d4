#include "dataplane/base/metrics.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

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

// Blocks that make the same lines are summed: same rows, same labels, and by shard the same shard.
// Sorted so that such blocks stand together, the whole exposition reads each word once.
struct group {
	const struct sl_metric_block *const *blocks;
	size_t count;
};

static int compare_labels(const void *left, const void *right)
{
	const struct sl_metric_block *a = *(const struct sl_metric_block *const *)left;
	const struct sl_metric_block *b = *(const struct sl_metric_block *const *)right;
	const int labels = strcmp(a->labels, b->labels);

	if (a->rows != b->rows)
		return (uintptr_t)a->rows < (uintptr_t)b->rows ? -1 : 1;
	if (labels)
		return labels;
	if (a->shard != b->shard)
		return a->shard < b->shard ? -1 : 1;
	return a < b ? -1 : a > b;
}

static bool alike(const struct sl_metric_block *a, const struct sl_metric_block *b, bool by_shard)
{
	return a->rows == b->rows && (!by_shard || a->shard == b->shard) &&
	       strcmp(a->labels, b->labels) == 0;
}

static uint64_t sum_of(const struct group *group, const struct sl_metric_row *row, uint32_t index)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < group->count; i++)
		sum += word(group->blocks[i], row, index);
	return sum;
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

static void print_histogram(FILE *out, const struct group *group, const struct sl_metric_row *row,
			    bool by_shard)
{
	const struct sl_metric_block *block = group->blocks[0];
	uint64_t seen = 0;
	char labels[256], le[32];

	for (uint32_t i = 0; i < SL_HISTOGRAM_BUCKETS; i++) {
		seen += sum_of(group, row, i);
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
		(double)sum_of(group, row, SL_HISTOGRAM_BUCKETS) / 1e9, row->name, labels,
		(unsigned long long)seen);
}

static void print_row(FILE *out, const struct group *group, const struct sl_metric_row *row,
		      bool by_shard)
{
	const char *tail = row->kind == SL_METRIC_COUNTER ? "_total" : "";
	char labels[256];

	if (row->kind == SL_METRIC_HISTOGRAM) {
		print_histogram(out, group, row, by_shard);
		return;
	}
	for (uint32_t i = 0; i < row->count; i++) {
		const uint64_t sum = sum_of(group, row, i);

		// Of a matrix of labels only what has happened is shown: most of it never does.
		if (!sum && row->labels[1])
			continue;
		label_set(labels, sizeof(labels), group->blocks[0], row, i, by_shard, NULL);
		fprintf(out, "%s%s%s %llu\n", row->name, tail, labels, (unsigned long long)sum);
	}
}

// What one exposition works on: the blocks sorted, and the first block of each table of rows. There
// are few tables, however many blocks.
struct rendering {
	FILE *out;
	bool by_shard;
	const struct sl_metric_block **blocks;
	size_t block_count;
	size_t *tables;
	size_t table_count;
};

static const char *const kinds[] = {"counter", "gauge", "histogram"};

// What a value counts, as the name says it last; "" where that is no unit.
static const char *unit_of(const char *name)
{
	static const char *const units[] = {
		"accounts", "bytes",     "calls",   "connections", "datagrams", "failures",
		"files",    "instances", "items",   "links",       "packets",   "parts",
		"percent",  "permille",  "records", "requests",    "rows",      "seconds",
		"shards",   "tenants",   "ticks",   "turns",
	};
	const char *last = strrchr(name, '_') + 1;

	for (size_t i = 0; i < SL_COUNT_OF(units); i++) {
		if (strcmp(last, units[i]) == 0)
			return units[i];
	}
	return "";
}

void sl_metrics_print_reference(FILE *out, const char *title, const struct sl_metric_row *rows,
				uint32_t row_count, const char *labels)
{
	if (title)
		fprintf(out,
			"\n## %s\n\n| Metric | Type | Labels | Unit | Meaning |\n"
			"|---|---|---|---|---|\n",
			title);
	for (uint32_t i = 0; i < row_count; i++) {
		const struct sl_metric_row *row = &rows[i];
		const bool labelled = row->labels[0] && row->labels[0]->name;

		fprintf(out, "| `%s%s` | %s | %s%s", row->name,
			row->kind == SL_METRIC_COUNTER ? "_total" : "", kinds[row->kind], labels,
			*labels && labelled ? ", " : "");
		for (unsigned k = 0; k < 2 && row->labels[k] && row->labels[k]->name; k++)
			fprintf(out, "%s%s", k ? ", " : "", row->labels[k]->name);
		fprintf(out, " | %s | %s |\n", unit_of(row->name), row->help);
	}
}

static void print_family(const struct rendering *self, const struct sl_metric_row *row)
{
	const char *tail = row->kind == SL_METRIC_COUNTER ? "_total" : "";

	fprintf(self->out, "# HELP %s%s %s\n# TYPE %s%s %s\n", row->name, tail, row->help,
		row->name, tail, kinds[row->kind]);
	for (size_t table = 0; table < self->table_count; table++) {
		const struct sl_metric_block *first = self->blocks[self->tables[table]];

		for (uint32_t j = 0; j < first->row_count; j++) {
			struct group group = {.blocks = self->blocks + self->tables[table]};
			const struct sl_metric_block *const *end = self->blocks + self->block_count;

			if (strcmp(first->rows[j].name, row->name) != 0)
				continue;
			for (; group.blocks < end && group.blocks[0]->rows == first->rows;
			     group.blocks += group.count) {
				for (group.count = 1;
				     group.blocks + group.count < end &&
				     alike(group.blocks[0], group.blocks[group.count],
					   self->by_shard);)
					group.count++;
				print_row(self->out, &group, &first->rows[j], self->by_shard);
			}
		}
	}
}

// Whether an earlier table or row has printed the whole family of that name.
static bool family_printed(const struct rendering *self, size_t table, uint32_t row)
{
	const char *name = self->blocks[self->tables[table]]->rows[row].name;

	for (size_t i = 0; i <= table; i++) {
		const struct sl_metric_block *block = self->blocks[self->tables[i]];
		const uint32_t rows = i == table ? row : block->row_count;

		for (uint32_t j = 0; j < rows; j++) {
			if (strcmp(block->rows[j].name, name) == 0)
				return true;
		}
	}
	return false;
}

static void render(struct rendering *self)
{
	for (size_t i = 0; i < self->block_count; i++) {
		if (i == 0 || self->blocks[i]->rows != self->blocks[i - 1]->rows)
			self->tables[self->table_count++] = i;
	}
	for (size_t i = 0; i < self->table_count; i++) {
		const struct sl_metric_block *block = self->blocks[self->tables[i]];

		for (uint32_t j = 0; j < block->row_count; j++) {
			if (!family_printed(self, i, j))
				print_family(self, &block->rows[j]);
		}
	}
}

char *sl_metrics_render(const struct sl_metrics *metrics, bool by_shard, size_t *size)
{
	struct rendering self = {.by_shard = by_shard};
	char *text = NULL;

	self.out = open_memstream(&text, size);
	if (!self.out)
		return NULL;
	pthread_mutex_lock((pthread_mutex_t *)&metrics->lock);
	self.block_count = metrics->count;
	self.blocks = calloc(metrics->count + 1, sizeof(*self.blocks));
	self.tables = calloc(metrics->count + 1, sizeof(*self.tables));
	if (self.blocks && self.tables) {
		for (size_t i = 0; i < metrics->count; i++)
			self.blocks[i] = &metrics->blocks[i];
		qsort(self.blocks, metrics->count, sizeof(*self.blocks), compare_labels);
		render(&self);
	}
	pthread_mutex_unlock((pthread_mutex_t *)&metrics->lock);

	const bool failed = !self.blocks || !self.tables;

	free(self.blocks);
	free(self.tables);
	if (fclose(self.out) != 0 || failed) {
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

// --- OpenMetrics ---------------------------------------------------------------------------------

// A counter's family is named without what its samples end in.
static void copy_head(FILE *out, const char *line, size_t size)
{
	static const char tail[] = "_total";
	const char *name = line + sizeof("# HELP ") - 1;
	const char *end = memchr(name, ' ', size - (size_t)(name - line));

	const char *cut = end - (sizeof(tail) - 1);

	if (cut <= name || memcmp(cut, tail, sizeof(tail) - 1) != 0)
		cut = end;
	fwrite(line, 1, (size_t)(cut - line), out);
	fwrite(end, 1, size - (size_t)(end - line), out);
}

char *sl_metrics_to_open(char *text, size_t *size)
{
	const char *at = text, *const end = text + *size;
	char *open = NULL;
	FILE *out = open_memstream(&open, size);

	while (out && at < end) {
		const char *next = memchr(at, '\n', (size_t)(end - at));
		const size_t line = next ? (size_t)(next + 1 - at) : (size_t)(end - at);

		if (line > 7 && (memcmp(at, "# HELP ", 7) == 0 || memcmp(at, "# TYPE ", 7) == 0))
			copy_head(out, at, line);
		else
			fwrite(at, 1, line, out);
		at += line;
	}
	if (out)
		fputs("# EOF\n", out);
	free(text);
	if (out && fclose(out) == 0)
		return open;
	free(open);
	return NULL;
}

// The weight of the media type among what is accepted, 0 to 1 (RFC 9110, section 12.4.2).
static double weight_of(const char *accept, const char *type)
{
	double most = 0;

	while (*accept) {
		const size_t item = strcspn(accept, ",");
		const size_t size = strcspn(accept, ",; \t");
		const char *q = memmem(accept, item, "q=", 2);
		const double weight = q ? strtod(q + 2, NULL) : 1;

		if (size == strlen(type) && strncasecmp(accept, type, size) == 0 && weight > most)
			most = weight;
		accept += item;
		accept += strspn(accept, ", \t");
	}
	return most;
}

bool sl_metrics_wants_open(const char *accept)
{
	const double open = accept ? weight_of(accept, "application/openmetrics-text") : 0;

	return open > 0 && open >= weight_of(accept, "text/plain");
}
