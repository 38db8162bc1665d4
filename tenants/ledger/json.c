#include <stdlib.h>

#include "tenants/ledger/internal.h"

// Accounts and usage records as JSON. Names of tenants, reasons and destinations are made of
// characters that JSON takes as they are.

static void put_cell(FILE *out, const struct sl_ledger_cell *cell,
		     const struct sl_ledger_kind_row *row)
{
	fprintf(out, "{\"items\":%llu", (unsigned long long)cell->items);
	if (row->units & SL_LEDGER_BYTES)
		fprintf(out, ",\"bytes\":%llu", (unsigned long long)cell->bytes);
	if (row->units & SL_LEDGER_REQUESTS)
		fprintf(out, ",\"%s\":%llu",
			row->by == SL_LEDGER_BY_DESTINATION ? "records" : "requests",
			(unsigned long long)cell->requests);
	fputc('}', out);
}

double sl_ledger_estimate(const struct sl_ledger_counts *counts, enum sl_signal signal)
{
	const struct sl_ledger_cell accepted = sl_ledger_counts_get(
					    counts, sl_ledger_key(SL_LEDGER_ACCEPTED, signal, 0)),
				    out = sl_ledger_counts_get(
					    counts,
					    sl_ledger_key(SL_LEDGER_SAMPLED_OUT, signal, 0)),
				    more = sl_ledger_counts_get(
					    counts, sl_ledger_key(SL_LEDGER_ADJUSTED, signal, 0));

	return (double)(accepted.items - out.items) + (double)more.items / 256;
}

void sl_ledger_put_signal(const struct sl_ledger *ledger, FILE *out,
			  const struct sl_ledger_counts *counts, enum sl_signal signal)
{
	unsigned open = SL_LEDGER_KIND_COUNT; // the kind whose object is open

	fprintf(out, "\"estimated_items\":%.3f", sl_ledger_estimate(counts, signal));
	// Sorted by signal, kind, index: what belongs together follows each other.
	for (uint32_t i = 0; i < counts->count; i++) {
		const struct sl_ledger_count *count = &counts->list[i];
		const enum sl_ledger_kind kind = sl_ledger_kind_of(count->key);
		const struct sl_ledger_kind_row *row = &sl_ledger_kinds[kind];

		if (sl_ledger_signal_of(count->key) != signal || kind == SL_LEDGER_ADJUSTED)
			continue;
		if (open != SL_LEDGER_KIND_COUNT && open != kind)
			fputc('}', out);
		if (open == kind) {
			fputc(',', out);
		} else {
			fprintf(out, ",\"%s\":%s", row->label,
				row->by == SL_LEDGER_BY_NONE ? "" : "{");
			open = row->by == SL_LEDGER_BY_NONE ? SL_LEDGER_KIND_COUNT : kind;
		}
		if (row->by != SL_LEDGER_BY_NONE)
			fprintf(out, "\"%s\":", sl_ledger_label(ledger, count->key));
		put_cell(out, &count->cell, row);
	}
	if (open != SL_LEDGER_KIND_COUNT)
		fputc('}', out);
}

static void put_instance(const struct sl_ledger *ledger, FILE *out)
{
	fputs("\"instance\":\"", out);
	for (unsigned i = 0; i < sizeof(ledger->options.instance); i++)
		fprintf(out, "%02x", ledger->options.instance[i]);
	fputc('"', out);
}

static bool has_signal(const struct sl_ledger_counts *counts, enum sl_signal signal)
{
	for (uint32_t i = 0; i < counts->count; i++)
		if (sl_ledger_signal_of(counts->list[i].key) == signal)
			return true;
	return false;
}

static void put_account(const struct sl_ledger *ledger, FILE *out,
			const struct sl_ledger_account *account)
{
	bool first = true;

	fprintf(out, "{\"tenant\":\"%.*s\",", (int)account->name_bytes, account->name);
	put_instance(ledger, out);
	fputs(",\"signals\":{", out);
	for (unsigned i = 0; i < SL_SIGNALS; i++) {
		if (!has_signal(&account->total, (enum sl_signal)i))
			continue;
		fprintf(out, "%s\"%s\":{", first ? "" : ",", sl_signal_names[i]);
		sl_ledger_put_signal(ledger, out, &account->total, (enum sl_signal)i);
		fputc('}', out);
		first = false;
	}
	fputs("}}", out);
}

static char *text_of(FILE *out, char **text)
{
	if (fclose(out) == 0)
		return *text;
	free(*text);
	return NULL;
}

char *sl_ledger_describe(struct sl_ledger *ledger, struct sl_bytes tenant)
{
	const struct sl_ledger_account *account;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	pthread_mutex_lock(&ledger->lock);
	account = sl_ledger_find(ledger, tenant);
	if (account)
		put_account(ledger, out, account);
	else
		fputs("null", out);
	pthread_mutex_unlock(&ledger->lock);
	return text_of(out, &text);
}

// --- the list ------------------------------------------------------------------------------------

struct listed {
	const struct sl_ledger_account *account;
	uint64_t bytes;
};

static int by_bytes(const void *a, const void *b)
{
	const struct listed *one = a, *other = b;
	const size_t size = SL_MIN(one->account->name_bytes, other->account->name_bytes);
	int names;

	if (one->bytes != other->bytes)
		return one->bytes < other->bytes ? 1 : -1;
	names = memcmp(one->account->name, other->account->name, size);
	return names ? names : (int)one->account->name_bytes - (int)other->account->name_bytes;
}

static void put_listed(FILE *out, const struct sl_ledger_account *account)
{
	static const enum sl_ledger_kind kinds[] = {
		SL_LEDGER_RECEIVED,   SL_LEDGER_ACCEPTED,  SL_LEDGER_SAMPLED_OUT,
		SL_LEDGER_DROPPED,    SL_LEDGER_THROTTLED, SL_LEDGER_REFUSED,
		SL_LEDGER_UNANSWERED, SL_LEDGER_IN_FLIGHT, SL_LEDGER_DELIVERED,
	};

	fprintf(out, "{\"tenant\":\"%.*s\"", (int)account->name_bytes, account->name);
	for (unsigned i = 0; i < SL_COUNT_OF(kinds); i++) {
		const struct sl_ledger_cell sum = sl_ledger_counts_sum(&account->total, kinds[i]);

		fprintf(out, ",\"%s\":", sl_ledger_kinds[kinds[i]].label);
		put_cell(out, &sum, &sl_ledger_kinds[kinds[i]]);
	}
	fputc('}', out);
}

char *sl_ledger_list(struct sl_ledger *ledger, uint32_t skip, uint32_t limit)
{
	struct listed *list;
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	pthread_mutex_lock(&ledger->lock);
	list = malloc((ledger->account_count + 1) * sizeof(*list));
	for (uint32_t i = 0; list && i < ledger->account_count; i++)
		list[i] = (struct listed){
			ledger->accounts[i],
			sl_ledger_counts_sum(&ledger->accounts[i]->total, SL_LEDGER_RECEIVED)
				.bytes};
	fprintf(out, "{\"tenants\":%u,\"skip\":%u,\"list\":[", ledger->account_count, skip);
	if (list)
		qsort(list, ledger->account_count, sizeof(*list), by_bytes);
	for (uint32_t i = skip; list && i < ledger->account_count && i - skip < limit; i++) {
		if (i > skip)
			fputc(',', out);
		put_listed(out, list[i].account);
	}
	fputs("]}", out);
	pthread_mutex_unlock(&ledger->lock);
	if (!list) {
		fclose(out);
		free(text);
		return NULL;
	}
	free(list);
	return text_of(out, &text);
}
