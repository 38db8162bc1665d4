#include <stdlib.h>
#include <time.h>

#include "tenants/ledger/internal.h"

// Usage records: what came since the last cut. There is one cut at a time: while some of it is
// unconfirmed the next interval goes on, and grows longer. So a record's key always stands for the
// same counts, and what waits for Kafka is bounded by what tenants there are.

void sl_ledger_drop_records(struct sl_ledger *ledger)
{
	for (uint32_t i = 0; i < ledger->record_count; i++) {
		ledger->records[i].account->billing = false;
		sl_ledger_counts_fini(&ledger->records[i].counts);
	}
	free(ledger->records);
	ledger->records = NULL;
	ledger->record_count = ledger->confirmed = 0;
}

// Counts of one signal: a run, as they are sorted by it.
static struct sl_ledger_counts run_of(struct sl_ledger_counts *counts, uint32_t first)
{
	const enum sl_signal signal = sl_ledger_signal_of(counts->list[first].key);
	uint32_t last = first + 1;

	while (last < counts->count && sl_ledger_signal_of(counts->list[last].key) == signal)
		last++;
	return (struct sl_ledger_counts){.list = counts->list + first, .count = last - first};
}

static uint32_t count_runs(struct sl_ledger *ledger)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < ledger->account_count; i++) {
		struct sl_ledger_counts *unbilled = &ledger->accounts[i]->unbilled;

		for (uint32_t at = 0; at < unbilled->count; at += run_of(unbilled, at).count)
			count++;
	}
	return count;
}

// Moves an account's counts into records; what finds no memory stays for the next cut.
static void cut_account(struct sl_ledger *ledger, struct sl_ledger_account *account)
{
	struct sl_ledger_counts *unbilled = &account->unbilled;
	const uint32_t before = ledger->record_count;

	for (uint32_t at = 0; at < unbilled->count;) {
		const struct sl_ledger_counts run = run_of(unbilled, at);
		struct sl_ledger_record *record = &ledger->records[ledger->record_count++];

		*record = (struct sl_ledger_record){
			.account = account,
			.signal = sl_ledger_signal_of(run.list[0].key),
		};
		if (sl_ledger_counts_merge(&record->counts, &run)) {
			while (ledger->record_count > before)
				sl_ledger_counts_fini(
					&ledger->records[--ledger->record_count].counts);
			return;
		}
		at += run.count;
	}
	account->billing |= unbilled->count > 0;
	sl_ledger_counts_fini(unbilled);
}

bool sl_ledger_cut(struct sl_ledger *ledger, uint64_t wall_ns)
{
	bool made = false;
	uint32_t count;

	pthread_mutex_lock(&ledger->lock);
	if (!ledger->records) {
		count = count_runs(ledger);
		ledger->records = count ? calloc(count, sizeof(*ledger->records)) : NULL;
		for (uint32_t i = 0; ledger->records && i < ledger->account_count; i++)
			cut_account(ledger, ledger->accounts[i]);
		made = ledger->record_count > 0;
		if (made) {
			ledger->sequence++;
			ledger->cut_ns = ledger->since_ns;
			// The clock may have been put back: an interval does not end before it
			// began.
			ledger->since_ns = SL_MAX(wall_ns, ledger->since_ns);
		} else {
			sl_ledger_drop_records(ledger);
		}
	}
	pthread_mutex_unlock(&ledger->lock);
	return made;
}

static void put_time(FILE *out, const char *name, uint64_t wall_ns)
{
	const time_t seconds = (time_t)(wall_ns / SL_S);
	struct tm tm;

	gmtime_r(&seconds, &tm);
	fprintf(out, ",\"%s\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\"", name, tm.tm_year + 1900,
		tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
		(int)(wall_ns % SL_S / SL_MS));
}

static bool write_record(const struct sl_ledger *ledger, const struct sl_ledger_record *record,
			 struct sl_ledger_usage *usage)
{
	const struct sl_ledger_account *account = record->account;
	char instance[2 * sizeof(ledger->options.instance) + 1];
	size_t size;
	FILE *out = open_memstream(&usage->value, &size);

	for (unsigned i = 0; i < sizeof(ledger->options.instance); i++)
		snprintf(instance + 2 * i, 3, "%02x", ledger->options.instance[i]);
	if (!out)
		return false;
	fprintf(out, "{\"tenant\":\"%.*s\",\"signal\":\"%s\",\"instance\":\"%s\",\"sequence\":%llu",
		(int)account->name_bytes, account->name, sl_signal_names[record->signal], instance,
		(unsigned long long)ledger->sequence);
	put_time(out, "from", ledger->cut_ns);
	put_time(out, "to", ledger->since_ns);
	fputc(',', out);
	sl_ledger_put_signal(ledger, out, &record->counts, record->signal);
	fputc('}', out);
	if (fclose(out)) {
		free(usage->value);
		return false;
	}
	if (asprintf(&usage->key, "%.*s/%s/%s/%llu/%llu", (int)account->name_bytes, account->name,
		     sl_signal_names[record->signal], instance,
		     (unsigned long long)(ledger->cut_ns / SL_MS),
		     (unsigned long long)ledger->sequence) < 0) {
		free(usage->value);
		return false;
	}
	return true;
}

bool sl_ledger_usage_next(struct sl_ledger *ledger, uint32_t index, struct sl_ledger_usage *usage)
{
	bool made = false;

	pthread_mutex_lock(&ledger->lock);
	while (index < ledger->record_count && ledger->records[index].confirmed)
		index++;
	usage->index = index;
	if (index < ledger->record_count)
		made = write_record(ledger, &ledger->records[index], usage);
	pthread_mutex_unlock(&ledger->lock);
	return made;
}

void sl_ledger_usage_confirm(struct sl_ledger *ledger, uint32_t index)
{
	pthread_mutex_lock(&ledger->lock);
	assert(index < ledger->record_count);
	ledger->confirmed += !ledger->records[index].confirmed;
	ledger->records[index].confirmed = true;
	if (ledger->confirmed == ledger->record_count)
		sl_ledger_drop_records(ledger);
	pthread_mutex_unlock(&ledger->lock);
}
