#include <math.h>
#include <stdlib.h>

#include "tenants/ledger/internal.h"

// Time series: the largest tenants by name, the rest summed as `_other`. A tenant's series is what
// it has had while it was exported, `_other` what all others have had while they were not: so each
// only grows, whoever comes and goes, and together they are everything that those who are shown
// and those who never were have had.

#define STAYS_NS (60 * SL_S)
#define LEAD     2.0    // who comes in is so many times as large as who goes
#define DECAY    0.9772 // a rank: half in five minutes

struct candidate {
	struct sl_ledger_account *account;
	double weight;
};

static int by_weight(const void *a, const void *b)
{
	const struct candidate *one = a, *other = b;

	if (one->weight != other->weight)
		return one->weight < other->weight ? 1 : -1;
	// The same order every time.
	return (one->account > other->account) - (one->account < other->account);
}

// What it has had so far stays in `_other`, once something has been told.
static bool enter(struct sl_ledger *ledger, struct sl_ledger_account *account, uint64_t now_ns)
{
	if (!account->begun && ledger->told) {
		if (sl_ledger_counts_merge(&account->elsewhere, &account->total))
			return false;
	} else if (!account->begun) {
		for (uint32_t i = 0; i < account->total.count; i++) {
			const struct sl_ledger_count *count = &account->total.list[i];
			const struct sl_ledger_cell less = {-count->cell.items, -count->cell.bytes,
							    -count->cell.requests};

			if (sl_ledger_kind_of(count->key) != SL_LEDGER_IN_FLIGHT)
				sl_ledger_counts_add(&ledger->other, count->key, &less);
		}
	}
	account->begun = account->exported = true;
	account->exported_ns = now_ns;
	ledger->exported++;
	return true;
}

static uint32_t gather(struct sl_ledger *ledger, struct candidate *list, uint64_t now_ns)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < ledger->account_count; i++) {
		struct sl_ledger_account *account = ledger->accounts[i];
		double weight = account->score;

		account->score *= DECAY;
		if (account->exported)
			weight = now_ns < account->exported_ns + STAYS_NS ? INFINITY
									  : weight * LEAD;
		if (account->rest)
			continue;
		if (weight > 0 || account->exported)
			list[count++] = (struct candidate){account, weight};
	}
	return count;
}

void sl_ledger_rank(struct sl_ledger *ledger, uint32_t export_max, uint64_t now_ns)
{
	struct candidate *list;
	uint32_t count;

	pthread_mutex_lock(&ledger->lock);
	ledger->options.export_max = export_max;
	list = malloc((ledger->account_count + 1) * sizeof(*list));
	if (list) {
		count = gather(ledger, list, now_ns);
		qsort(list, count, sizeof(*list), by_weight);
		for (uint32_t i = export_max; i < count; i++) {
			ledger->exported -= list[i].account->exported;
			list[i].account->exported = false;
		}
		for (uint32_t i = 0; i < SL_MIN(count, export_max); i++)
			if (!list[i].account->exported)
				enter(ledger, list[i].account, now_ns);
		free(list);
	}
	pthread_mutex_unlock(&ledger->lock);
}

// --- the text ------------------------------------------------------------------------------------

enum unit { ITEMS, BYTES, REQUESTS };
#define ESTIMATED "What kept items stand for: 1/p each."
static const char *const unit_names[] = {"items", "bytes", "requests"};

static uint64_t number_of(const struct sl_ledger_cell *cell, enum unit unit)
{
	return unit == ITEMS ? cell->items : unit == BYTES ? cell->bytes : cell->requests;
}

static void put_series(const struct sl_ledger *ledger, FILE *out, enum unit unit,
		       struct sl_bytes tenant, uint32_t key, uint64_t value)
{
	const struct sl_ledger_kind_row *row = &sl_ledger_kinds[sl_ledger_kind_of(key)];

	fprintf(out, "sluice_tenant_%s_%s_total{tenant=\"%.*s\",signal=\"%s\"", row->label,
		unit_names[unit], (int)tenant.size, (const char *)tenant.data,
		sl_signal_names[sl_ledger_signal_of(key)]);
	if (row->by != SL_LEDGER_BY_NONE)
		fprintf(out, ",%s=\"%s\"",
			row->by == SL_LEDGER_BY_REASON ? "reason" : "destination",
			sl_ledger_label(ledger, key));
	fprintf(out, "} %llu\n", (unsigned long long)value);
}

static void put_counts(const struct sl_ledger *ledger, FILE *out, enum sl_ledger_kind kind,
		       enum unit unit, struct sl_bytes tenant,
		       const struct sl_ledger_counts *counts,
		       const struct sl_ledger_counts *elsewhere)
{
	for (uint32_t i = 0; i < counts->count; i++) {
		const struct sl_ledger_count *count = &counts->list[i];
		struct sl_ledger_cell less = {0};
		uint64_t value;

		if (sl_ledger_kind_of(count->key) != kind)
			continue;
		if (elsewhere)
			less = sl_ledger_counts_get(elsewhere, count->key);
		value = number_of(&count->cell, unit) - number_of(&less, unit);
		if (value)
			put_series(ledger, out, unit, tenant, count->key, value);
	}
}

static void put_family(const struct sl_ledger *ledger, FILE *out,
		       struct sl_ledger_account *const *list, enum sl_ledger_kind kind,
		       enum unit unit)
{
	const struct sl_ledger_kind_row *row = &sl_ledger_kinds[kind];

	fprintf(out,
		"# HELP sluice_tenant_%s_%s_total %s\n# TYPE sluice_tenant_%s_%s_total counter\n",
		row->label, unit_names[unit], row->help, row->label, unit_names[unit]);
	for (uint32_t i = 0; i < ledger->exported; i++)
		put_counts(ledger, out, kind, unit, sl_bytes(list[i]->name, list[i]->name_bytes),
			   &list[i]->total, &list[i]->elsewhere);
	put_counts(ledger, out, kind, unit, SL_LITERAL(SL_LEDGER_REST), &ledger->other, NULL);
}

static void put_estimate(FILE *out, struct sl_bytes tenant, const struct sl_ledger_counts *counts,
			 const struct sl_ledger_counts *elsewhere)
{
	for (unsigned i = 0; i < SL_SIGNALS; i++) {
		const double value = sl_ledger_estimate(counts, (enum sl_signal)i) -
				     (elsewhere ? sl_ledger_estimate(elsewhere, (enum sl_signal)i)
						: 0);

		if (value > 0)
			fprintf(out,
				"sluice_tenant_estimated_items_total{tenant=\"%.*s\",signal=\"%s\"}"
				" "
				"%.3f\n",
				(int)tenant.size, (const char *)tenant.data, sl_signal_names[i],
				value);
	}
}

static void put_estimates(const struct sl_ledger *ledger, FILE *out,
			  struct sl_ledger_account *const *list)
{
	fputs("# HELP sluice_tenant_estimated_items_total " ESTIMATED "\n"
	      "# TYPE sluice_tenant_estimated_items_total counter\n",
	      out);
	for (uint32_t i = 0; i < ledger->exported; i++)
		put_estimate(out, sl_bytes(list[i]->name, list[i]->name_bytes), &list[i]->total,
			     &list[i]->elsewhere);
	put_estimate(out, SL_LITERAL(SL_LEDGER_REST), &ledger->other, NULL);
}

// Whether accounts have a family of it, but for what a family of its own estimates.
static bool has_family(enum sl_ledger_kind kind, enum unit unit)
{
	const struct sl_ledger_kind_row *row = &sl_ledger_kinds[kind];

	if (kind == SL_LEDGER_IN_FLIGHT || kind == SL_LEDGER_ADJUSTED)
		return false;
	return unit == ITEMS || (unit == BYTES && row->units & SL_LEDGER_BYTES) ||
	       (unit == REQUESTS && row->units & SL_LEDGER_REQUESTS &&
		row->by != SL_LEDGER_BY_DESTINATION);
}

void sl_ledger_print_reference(FILE *out)
{
	fputs("\n## Metrics of tenants with `ledger.export`\n\n"
	      "| Metric | Type | Labels | Unit | Meaning |\n|---|---|---|---|---|\n",
	      out);
	for (unsigned kind = 0; kind < SL_LEDGER_KIND_COUNT; kind++) {
		const struct sl_ledger_kind_row *row = &sl_ledger_kinds[kind];

		if (kind == SL_LEDGER_ADJUSTED)
			fputs("| `sluice_tenant_estimated_items_total` | counter | tenant, signal "
			      "| items | " ESTIMATED " |\n",
			      out);
		for (unsigned unit = ITEMS; unit <= REQUESTS; unit++) {
			if (has_family((enum sl_ledger_kind)kind, (enum unit)unit))
				fprintf(out,
					"| `sluice_tenant_%s_%s_total` | counter | tenant, "
					"signal%s | %s | %s |\n",
					row->label, unit_names[unit],
					row->by == SL_LEDGER_BY_NONE     ? ""
					: row->by == SL_LEDGER_BY_REASON ? ", reason"
									 : ", destination",
					unit_names[unit], row->help);
		}
	}
}

static void put_all(const struct sl_ledger *ledger, FILE *out,
		    struct sl_ledger_account *const *list)
{
	for (unsigned i = 0; i < SL_LEDGER_KIND_COUNT; i++) {
		const enum sl_ledger_kind kind = (enum sl_ledger_kind)i;

		if (kind == SL_LEDGER_ADJUSTED)
			put_estimates(ledger, out, list);
		for (unsigned unit = ITEMS; unit <= REQUESTS; unit++)
			if (has_family(kind, (enum unit)unit))
				put_family(ledger, out, list, kind, (enum unit)unit);
	}
}

char *sl_ledger_metrics(struct sl_ledger *ledger, size_t *size)
{
	struct sl_ledger_account **list;
	uint32_t count = 0;
	char *text = NULL;
	FILE *out;

	*size = 0;
	out = open_memstream(&text, size);
	if (!out)
		return NULL;
	pthread_mutex_lock(&ledger->lock);
	list = malloc((ledger->exported + 1) * sizeof(*list));
	for (uint32_t i = 0; list && i < ledger->account_count; i++)
		if (ledger->accounts[i]->exported)
			list[count++] = ledger->accounts[i];
	if (list) {
		assert(count == ledger->exported);
		ledger->told = true;
		put_all(ledger, out, list);
	}
	pthread_mutex_unlock(&ledger->lock);
	free(list);
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}
