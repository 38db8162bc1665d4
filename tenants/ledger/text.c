#include <errno.h>
#include <inttypes.h>
#include <libdeflate.h>
#include <stdlib.h>

#include "tenants/ledger/internal.h"

// The ledger as text: a line a count, by names, so that another version with other numbers reads
// the same, and a checksum at its end.
//
//   sluice-ledger 1
//   instance 0011223344556677
//   cut SEQUENCE FROM TO
//   destination NAME                                    in the order of their numbers
//   tenant NAME
//   made CLASS                                          from a template; its class may be empty
//   total SIGNAL KIND LABEL ITEMS BYTES REQUESTS        LABEL: reason, destination, or -
//   unbilled ...
//   record NAME SIGNAL                                  of the last cut, not confirmed
//   sent ...
//   crc32 01234567

#define FIRST      "sluice-ledger 1\n"
#define LAST       "crc32 "
#define LAST_BYTES (sizeof(LAST) - 1 + 8 + 1)

static void put_counts(const struct sl_ledger *ledger, FILE *out, const char *what,
		       const struct sl_ledger_counts *counts)
{
	for (uint32_t i = 0; i < counts->count; i++) {
		const struct sl_ledger_count *count = &counts->list[i];
		const char *label = sl_ledger_label(ledger, count->key);

		fprintf(out, "%s %s %s %s %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", what,
			sl_signal_names[sl_ledger_signal_of(count->key)],
			sl_ledger_kinds[sl_ledger_kind_of(count->key)].label, *label ? label : "-",
			count->cell.items, count->cell.bytes, count->cell.requests);
	}
}

static void note_used(const struct sl_ledger_counts *counts, bool *used)
{
	for (uint32_t i = 0; i < counts->count; i++) {
		const uint32_t key = counts->list[i].key;

		if (sl_ledger_kinds[sl_ledger_kind_of(key)].by == SL_LEDGER_BY_DESTINATION)
			used[sl_ledger_index_of(key)] = true;
	}
}

// Those that something is counted for: the others' numbers are free after a restart.
static void put_destinations(struct sl_ledger *ledger, FILE *out)
{
	bool used[SL_LEDGER_DESTINATIONS_MAX] = {false};

	for (uint32_t i = 0; i < ledger->account_count; i++) {
		note_used(&ledger->accounts[i]->total, used);
		note_used(&ledger->accounts[i]->unbilled, used);
	}
	for (uint32_t i = 0; i < ledger->record_count; i++)
		note_used(&ledger->records[i].counts, used);
	pthread_mutex_lock(&ledger->names_lock);
	for (uint32_t i = 1; i < ledger->destination_count; i++)
		if (used[i])
			fprintf(out, "destination %s\n", ledger->destinations[i]);
	pthread_mutex_unlock(&ledger->names_lock);
}

static void put_all(struct sl_ledger *ledger, FILE *out)
{
	fputs(FIRST "instance ", out);
	for (unsigned i = 0; i < sizeof(ledger->options.instance); i++)
		fprintf(out, "%02x", ledger->options.instance[i]);
	fprintf(out, "\ncut %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", ledger->sequence,
		ledger->cut_ns, ledger->since_ns);
	put_destinations(ledger, out);
	for (uint32_t i = 0; i < ledger->account_count; i++) {
		const struct sl_ledger_account *account = ledger->accounts[i];

		fprintf(out, "tenant %.*s\n", (int)account->name_bytes, account->name);
		if (account->made)
			fprintf(out, "made %s\n", ledger->classes[account->made - 1]);
		put_counts(ledger, out, "total", &account->total);
		put_counts(ledger, out, "unbilled", &account->unbilled);
	}
	for (uint32_t i = 0; i < ledger->record_count; i++) {
		const struct sl_ledger_record *record = &ledger->records[i];

		if (record->confirmed)
			continue;
		fprintf(out, "record %.*s %s\n", (int)record->account->name_bytes,
			record->account->name, sl_signal_names[record->signal]);
		put_counts(ledger, out, "sent", &record->counts);
	}
}

char *sl_ledger_write(struct sl_ledger *ledger, size_t *size)
{
	char *text = NULL, *whole;
	FILE *out = open_memstream(&text, size);

	if (!out)
		return NULL;
	pthread_mutex_lock(&ledger->lock);
	put_all(ledger, out);
	pthread_mutex_unlock(&ledger->lock);
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	whole = realloc(text, *size + LAST_BYTES + 1);
	if (!whole) {
		free(text);
		return NULL;
	}
	*size += (size_t)sprintf(whole + *size, LAST "%08x\n", libdeflate_crc32(0, whole, *size));
	return whole;
}

// --- reading -------------------------------------------------------------------------------------

struct reader {
	struct sl_ledger *ledger;
	struct sl_ledger_account *account; // of the last `tenant`
	struct sl_ledger_record *record;   // of the last `record`
	uint32_t records_max, line;
	const char *problem;
	bool no_memory; // the file may be fine
};

static bool fail_memory(struct reader *reader)
{
	reader->no_memory = true;
	reader->problem = "finds no memory";
	return false;
}

static bool fail(struct reader *reader, const char *problem)
{
	reader->problem = problem;
	return false;
}

static bool to_number(const char *text, uint64_t *number)
{
	char *end;

	errno = 0;
	*number = text && *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : 0;
	return text && *text >= '0' && *text <= '9' && !*end && !errno;
}

static int index_of(const char *const *names, unsigned count, const char *name)
{
	for (unsigned i = 0; name && i < count; i++)
		if (names[i] && strcmp(names[i], name) == 0)
			return (int)i;
	return -1;
}

static int kind_of(const char *name)
{
	for (unsigned i = 0; name && i < SL_LEDGER_KIND_COUNT; i++)
		if (strcmp(sl_ledger_kinds[i].label, name) == 0)
			return (int)i;
	return -1;
}

static int reason_of(const char *name)
{
	for (unsigned i = 0; i < SL_REASONS; i++)
		if (sl_reasons[i].name && strcmp(sl_reasons[i].name, name) == 0)
			return (int)i;
	return -1;
}

// SIGNAL KIND LABEL ITEMS BYTES REQUESTS. What was in flight when the process ended nobody will
// answer; `*in_flight` tells that it was.
static bool read_count(struct reader *reader, char **rest, uint32_t *key,
		       struct sl_ledger_cell *cell, bool *in_flight)
{
	const int signal = index_of(sl_signal_names, SL_SIGNALS, strsep(rest, " "));
	const int kind = kind_of(strsep(rest, " "));
	const char *label = strsep(rest, " ");
	int index = 0;

	if (signal < 0 || kind < 0 || !label || !*label ||
	    !to_number(strsep(rest, " "), &cell->items) ||
	    !to_number(strsep(rest, " "), &cell->bytes) ||
	    !to_number(strsep(rest, " "), &cell->requests) || *rest)
		return fail(reader, "is no count");
	if (sl_ledger_kinds[kind].by == SL_LEDGER_BY_REASON)
		index = reason_of(label);
	else if (sl_ledger_kinds[kind].by == SL_LEDGER_BY_DESTINATION)
		index = (int)sl_ledger_number(reader->ledger, label);
	if (index < 0)
		return fail(reader, "has an unknown reason");
	*in_flight = kind == SL_LEDGER_IN_FLIGHT;
	*key = sl_ledger_key(*in_flight ? SL_LEDGER_UNANSWERED : (enum sl_ledger_kind)kind,
			     (enum sl_signal)signal, (uint32_t)index);
	return true;
}

static bool add_to(struct reader *reader, struct sl_ledger_counts *counts, uint32_t key,
		   const struct sl_ledger_cell *cell)
{
	if (sl_ledger_counts_reserve(counts, 1))
		return fail_memory(reader);
	sl_ledger_counts_add(counts, key, cell);
	return true;
}

static bool read_total(struct reader *reader, char *rest)
{
	struct sl_ledger_account *account = reader->account;
	struct sl_ledger_cell cell;
	bool in_flight;
	uint32_t key;

	if (!account)
		return fail(reader, "is no tenant's");
	if (!read_count(reader, &rest, &key, &cell, &in_flight) ||
	    !add_to(reader, &account->total, key, &cell))
		return false;
	if (sl_ledger_kind_of(key) == SL_LEDGER_RECEIVED)
		account->score += (double)(cell.bytes + cell.requests);
	return !in_flight || !reader->ledger->options.usage ||
	       add_to(reader, &account->unbilled, key, &cell);
}

static bool read_unbilled(struct reader *reader, char *rest)
{
	struct sl_ledger_cell cell;
	bool in_flight;
	uint32_t key;

	if (!reader->account)
		return fail(reader, "is no tenant's");
	return read_count(reader, &rest, &key, &cell, &in_flight) &&
	       add_to(reader, &reader->account->unbilled, key, &cell);
}

static bool read_sent(struct reader *reader, char *rest)
{
	struct sl_ledger_cell cell;
	bool in_flight;
	uint32_t key;

	if (!reader->record)
		return fail(reader, "is no record's");
	return read_count(reader, &rest, &key, &cell, &in_flight) &&
	       add_to(reader, &reader->record->counts, key, &cell);
}

static bool read_tenant(struct reader *reader, char *rest)
{
	const struct sl_bytes name = sl_bytes_of(rest);

	if (!name.size || name.size > SL_LEDGER_NAME_MAX || sl_ledger_find(reader->ledger, name))
		return fail(reader, "is no new tenant");
	reader->account = sl_ledger_account(reader->ledger, name);
	return reader->account || fail_memory(reader);
}

static bool read_made(struct reader *reader, char *rest)
{
	if (!reader->account || strlen(rest) > SL_TENANT_NAME_MAX || strchr(rest, ' '))
		return fail(reader, "is no class of a tenant");
	sl_ledger_mark(reader->ledger, reader->account, rest);
	return reader->account->made || reader->account->rest || fail_memory(reader);
}

static bool read_record(struct reader *reader, char *rest)
{
	struct sl_ledger *ledger = reader->ledger;
	struct sl_ledger_account *account = sl_ledger_find(ledger, sl_bytes_of(strsep(&rest, " ")));
	const int signal = index_of(sl_signal_names, SL_SIGNALS, rest);

	if (!account || signal < 0)
		return fail(reader, "is no record");
	if (ledger->record_count == reader->records_max) {
		const uint32_t max = SL_MAX(64u, reader->records_max * 2);
		struct sl_ledger_record *grown = realloc(ledger->records, max * sizeof(*grown));

		if (!grown)
			return fail_memory(reader);
		ledger->records = grown;
		reader->records_max = max;
	}
	reader->record = &ledger->records[ledger->record_count++];
	*reader->record = (struct sl_ledger_record){.account = account,
						    .signal = (enum sl_signal)signal};
	account->billing = true;
	return true;
}

static bool read_instance(struct reader *reader, char *rest)
{
	uint8_t *instance = reader->ledger->options.instance;
	const size_t bytes = sizeof(reader->ledger->options.instance);

	if (strlen(rest) != 2 * bytes || rest[strspn(rest, "0123456789abcdef")])
		return fail(reader, "is no instance");
	for (unsigned i = 0; i < bytes; i++)
		sscanf(rest + 2 * i, "%2hhx", &instance[i]);
	return true;
}

static bool read_cut(struct reader *reader, char *rest)
{
	struct sl_ledger *ledger = reader->ledger;

	return (to_number(strsep(&rest, " "), &ledger->sequence) &&
		to_number(strsep(&rest, " "), &ledger->cut_ns) &&
		to_number(strsep(&rest, " "), &ledger->since_ns) && !rest) ||
	       fail(reader, "is no cut");
}

// Numbers are given in the order of the names: what is written next has the same one.
static bool read_destination(struct reader *reader, char *rest)
{
	if (!*rest || strchr(rest, ' '))
		return fail(reader, "is no destination");
	sl_ledger_number(reader->ledger, rest);
	return true;
}

static bool read_line(struct reader *reader, char *line)
{
	static const struct {
		const char *word;
		bool (*read)(struct reader *reader, char *rest);
	} words[] = {
		{"total", read_total},   {"unbilled", read_unbilled},
		{"tenant", read_tenant}, {"record", read_record},
		{"sent", read_sent},     {"instance", read_instance},
		{"cut", read_cut},       {"destination", read_destination},
		{"made", read_made},
	};
	char *rest = line;
	const char *word = strsep(&rest, " ");

	for (unsigned i = 0; rest && i < SL_COUNT_OF(words); i++)
		if (strcmp(words[i].word, word) == 0)
			return words[i].read(reader, rest);
	return fail(reader, "is not understood");
}

static void clear(struct sl_ledger *ledger)
{
	sl_ledger_drop_records(ledger);
	for (uint32_t i = 0; i < ledger->account_count; i++) {
		sl_ledger_counts_fini(&ledger->accounts[i]->total);
		sl_ledger_counts_fini(&ledger->accounts[i]->unbilled);
		free(ledger->accounts[i]);
	}
	free(ledger->accounts);
	free(ledger->index);
	ledger->accounts = NULL;
	ledger->index = NULL;
	ledger->account_count = ledger->accounts_max = ledger->index_mask = ledger->made = 0;
	sl_ledger_counts_fini(&ledger->other);
	ledger->sequence = ledger->cut_ns = 0;
}

// The checksum is of all before it, and nothing follows it.
static bool is_whole(struct sl_bytes text)
{
	char last[LAST_BYTES + 1];

	if (text.size < sizeof(FIRST) - 1 + LAST_BYTES ||
	    memcmp(text.data, FIRST, sizeof(FIRST) - 1) != 0 || memchr(text.data, 0, text.size))
		return false;
	snprintf(last, sizeof(last), LAST "%08x\n",
		 libdeflate_crc32(0, text.data, text.size - LAST_BYTES));
	return memcmp(last, text.data + text.size - LAST_BYTES, LAST_BYTES) == 0;
}

static int read_all(struct sl_ledger *ledger, char *text, char *error, size_t error_size)
{
	struct reader reader = {.ledger = ledger, .line = 1};
	const struct sl_ledger_options options = ledger->options;
	const uint64_t since_ns = ledger->since_ns;
	char *line;

	ledger->options.export_max = 0; // who is largest is known when all is read
	while ((line = strsep(&text, "\n")) && *line) {
		reader.line++;
		if (!read_line(&reader, line))
			break;
	}
	for (uint32_t i = 0; !reader.problem && i < ledger->account_count; i++)
		if (sl_ledger_counts_merge(&ledger->other, &ledger->accounts[i]->total))
			fail_memory(&reader);
	ledger->options.export_max = options.export_max;
	if (!reader.problem)
		return 0;
	snprintf(error, error_size, "line %u %s", reader.line, reader.problem);
	clear(ledger);
	ledger->options = options;
	ledger->since_ns = since_ns;
	return reader.no_memory ? -ENOMEM : -EINVAL;
}

int sl_ledger_read(struct sl_ledger *ledger, struct sl_bytes text, char *error, size_t error_size)
{
	char *copy;
	int failed;

	if (!is_whole(text)) {
		snprintf(error, error_size, "it is torn, or no ledger of this version");
		return -EINVAL;
	}
	copy = strndup((const char *)text.data + sizeof(FIRST) - 1,
		       text.size - LAST_BYTES - (sizeof(FIRST) - 1));
	if (!copy)
		return -ENOMEM;
	pthread_mutex_lock(&ledger->lock);
	assert(!ledger->account_count && !ledger->records);
	failed = read_all(ledger, copy, error, error_size);
	pthread_mutex_unlock(&ledger->lock);
	free(copy);
	return failed;
}
