#include "tenants/ledger/ledger.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "dataplane/base/hash.h"
#include "tenants/ledger/internal.h"

// Accounts by name, destinations by number, and the ledger's own life.

static int make_mirror(struct sl_ledger *ledger, struct sl_ledger_mirror *mirror)
{
	const struct sl_ledger_options *options = &ledger->options;

	mirror->book = sl_ledger_book_create(options->rows_max, options->tenants_max);
	if (!mirror->book)
		return -ENOMEM;
	mirror->rows = calloc(mirror->book->rows_max, sizeof(*mirror->rows));
	mirror->extras = calloc(mirror->book->extras_max, sizeof(*mirror->extras));
	return mirror->rows && mirror->extras ? 0 : -ENOMEM;
}

struct sl_ledger *sl_ledger_create(const struct sl_ledger_options *options)
{
	struct sl_ledger *ledger = calloc(1, sizeof(*ledger));

	if (!ledger)
		return NULL;
	ledger->options = *options;
	ledger->file_lock = -1;
	ledger->since_ns = options->wall_ns;
	pthread_mutex_init(&ledger->lock, NULL);
	pthread_mutex_init(&ledger->names_lock, NULL);
	ledger->destinations[0] = strdup(SL_LEDGER_REST);
	ledger->hashes[0] = (uint32_t)sl_hash(SL_LITERAL(SL_LEDGER_REST));
	ledger->destination_count = 1;
	ledger->mirrors = calloc(options->shards, sizeof(*ledger->mirrors));
	if (!ledger->destinations[0] || !ledger->mirrors)
		goto fail;
	for (uint32_t i = 0; i < options->shards; i++)
		if (make_mirror(ledger, &ledger->mirrors[i]))
			goto fail;
	return ledger;
fail:
	sl_ledger_destroy(ledger);
	return NULL;
}

void sl_ledger_destroy(struct sl_ledger *ledger)
{
	if (!ledger)
		return;
	for (uint32_t i = 0; ledger->mirrors && i < ledger->options.shards; i++) {
		sl_ledger_book_destroy(ledger->mirrors[i].book);
		free(ledger->mirrors[i].rows);
		free(ledger->mirrors[i].extras);
	}
	free(ledger->mirrors);
	sl_ledger_drop_records(ledger);
	for (uint32_t i = 0; i < ledger->account_count; i++) {
		sl_ledger_counts_fini(&ledger->accounts[i]->total);
		sl_ledger_counts_fini(&ledger->accounts[i]->unbilled);
		sl_ledger_counts_fini(&ledger->accounts[i]->elsewhere);
		free(ledger->accounts[i]);
	}
	free(ledger->accounts);
	if (ledger->file_lock >= 0)
		close(ledger->file_lock);
	free(ledger->index);
	for (uint32_t i = 0; i < ledger->class_count; i++)
		free(ledger->classes[i]);
	free(ledger->classes);
	for (uint32_t i = 0; i < ledger->destination_count; i++)
		free(ledger->destinations[i]);
	sl_ledger_counts_fini(&ledger->other);
	sl_ledger_counts_fini(&ledger->change);
	pthread_mutex_destroy(&ledger->lock);
	pthread_mutex_destroy(&ledger->names_lock);
	free(ledger);
}

struct sl_ledger_book *sl_ledger_book_of(struct sl_ledger *ledger, uint32_t shard)
{
	assert(shard < ledger->options.shards);
	return ledger->mirrors[shard].book;
}

uint32_t sl_ledger_number(void *self, const char *destination)
{
	struct sl_ledger *ledger = self;
	const uint32_t hash = (uint32_t)sl_hash(sl_bytes_of(destination));
	uint32_t i = 0;

	pthread_mutex_lock(&ledger->names_lock);
	while (i < ledger->destination_count &&
	       (ledger->hashes[i] != hash || strcmp(ledger->destinations[i], destination) != 0))
		i++;
	if (i == ledger->destination_count) {
		char *name = i < SL_LEDGER_DESTINATIONS_MAX ? strdup(destination) : NULL;

		if (name) {
			ledger->hashes[i] = hash;
			ledger->destinations[ledger->destination_count++] = name;
		} else {
			i = 0;
		}
	}
	pthread_mutex_unlock(&ledger->names_lock);
	return i;
}

// A number that somebody has got is there: who counts with it has passed it on by a book.
const char *sl_ledger_label(const struct sl_ledger *ledger, uint32_t key)
{
	const uint32_t index = sl_ledger_index_of(key);

	switch (sl_ledger_kinds[sl_ledger_kind_of(key)].by) {
	case SL_LEDGER_BY_REASON:
		return sl_reasons[index].name;
	case SL_LEDGER_BY_DESTINATION:
		return ledger->destinations[index];
	default:
		return "";
	}
}

// --- accounts ------------------------------------------------------------------------------------

static uint32_t *slot(const struct sl_ledger *ledger, struct sl_bytes name)
{
	uint32_t at = (uint32_t)sl_hash(name) & ledger->index_mask;

	while (ledger->index[at]) {
		const struct sl_ledger_account *account = ledger->accounts[ledger->index[at] - 1];

		if (sl_bytes_equal(sl_ledger_name(account), name))
			break;
		at = (at + 1) & ledger->index_mask;
	}
	return &ledger->index[at];
}

static int grow(struct sl_ledger *ledger)
{
	const uint32_t max = SL_MAX(256u, ledger->accounts_max * 2);
	struct sl_ledger_account **accounts;
	uint32_t *index;

	if (ledger->account_count < ledger->accounts_max)
		return 0;
	accounts = realloc(ledger->accounts, max * sizeof(*accounts));
	if (!accounts)
		return -ENOMEM;
	ledger->accounts = accounts;
	index = calloc((size_t)max * 2, sizeof(*index));
	if (!index)
		return -ENOMEM;
	free(ledger->index);
	ledger->index = index;
	ledger->index_mask = max * 2 - 1;
	ledger->accounts_max = max;
	for (uint32_t i = 0; i < ledger->account_count; i++)
		*slot(ledger, sl_bytes(accounts[i]->name, accounts[i]->name_bytes)) = i + 1;
	return 0;
}

struct sl_ledger_account *sl_ledger_find(const struct sl_ledger *ledger, struct sl_bytes name)
{
	const uint32_t at = ledger->index ? *slot(ledger, name) : 0;

	return at ? ledger->accounts[at - 1] : NULL;
}

struct sl_ledger_account *sl_ledger_account(struct sl_ledger *ledger, struct sl_bytes name)
{
	struct sl_ledger_account *account = sl_ledger_find(ledger, name);

	assert(name.size <= SL_LEDGER_NAME_MAX);
	if (account)
		return account;
	account = grow(ledger) ? NULL : malloc(sizeof(*account) + name.size);
	if (!account)
		return NULL;
	*account = (struct sl_ledger_account){.name_bytes = (uint8_t)name.size};
	memcpy(account->name, name.data, name.size);
	// Where there is room it is exported from its first item on.
	account->changed_ns = ledger->now_ns;
	account->rest = sl_bytes_equal(name, SL_LITERAL(SL_LEDGER_REST)) ||
			sl_ledger_is_departed(name);
	if (!account->rest && ledger->exported < ledger->options.export_max) {
		account->exported = account->begun = true;
		ledger->exported++;
	}
	*slot(ledger, name) = ledger->account_count + 1;
	ledger->accounts[ledger->account_count++] = account;
	return account;
}

// Those behind the hole move up; the last account takes the number that is free.
void sl_ledger_remove(struct sl_ledger *ledger, struct sl_ledger_account *account)
{
	uint32_t *index = ledger->index, mask = ledger->index_mask;
	uint32_t hole = (uint32_t)(slot(ledger, sl_ledger_name(account)) - index);
	const uint32_t number = index[hole] - 1;

	assert(index[hole] && ledger->accounts[number] == account);
	for (uint32_t at = (hole + 1) & mask; index[at]; at = (at + 1) & mask) {
		const uint32_t home =
			(uint32_t)sl_hash(sl_ledger_name(ledger->accounts[index[at] - 1])) & mask;

		if (((at - home) & mask) < ((at - hole) & mask))
			continue;
		index[hole] = index[at];
		hole = at;
	}
	index[hole] = 0;
	ledger->account_count--;
	if (number < ledger->account_count) {
		struct sl_ledger_account *last = ledger->accounts[ledger->account_count];

		*slot(ledger, sl_ledger_name(last)) = number + 1;
		ledger->accounts[number] = last;
	}
	ledger->exported -= account->exported;
	ledger->made -= account->made != 0;
	sl_ledger_counts_fini(&account->total);
	sl_ledger_counts_fini(&account->unbilled);
	sl_ledger_counts_fini(&account->elsewhere);
	free(account);
}

int sl_ledger_book_change(struct sl_ledger *ledger, struct sl_ledger_account *account,
			  const struct sl_ledger_counts *change)
{
	struct sl_ledger_counts *unbilled = ledger->options.usage ? &account->unbilled : NULL;
	struct sl_ledger_counts *other = account->exported ? NULL : &ledger->other;
	struct sl_ledger_counts *elsewhere = other && account->begun ? &account->elsewhere : NULL;

	if (sl_ledger_counts_room(&account->total, change) ||
	    (unbilled && sl_ledger_counts_room(unbilled, change)) ||
	    (other && sl_ledger_counts_room(other, change)) ||
	    (elsewhere && sl_ledger_counts_room(elsewhere, change)))
		return -ENOMEM;
	account->changed_ns = ledger->now_ns;
	for (uint32_t i = 0; i < change->count; i++) {
		const uint32_t key = change->list[i].key;
		const struct sl_ledger_cell *cell = &change->list[i].cell;

		sl_ledger_counts_add(&account->total, key, cell);
		if (sl_ledger_kind_of(key) == SL_LEDGER_RECEIVED)
			account->score += (double)(cell->bytes + cell->requests);
		if (sl_ledger_kind_of(key) == SL_LEDGER_IN_FLIGHT)
			continue; // no counter: it falls
		if (unbilled)
			sl_ledger_counts_add(unbilled, key, cell);
		if (other)
			sl_ledger_counts_add(other, key, cell);
		if (elsewhere)
			sl_ledger_counts_add(elsewhere, key, cell);
	}
	return 0;
}

void sl_ledger_stats(struct sl_ledger *ledger, struct sl_ledger_stats *stats)
{
	*stats = (struct sl_ledger_stats){0};
	pthread_mutex_lock(&ledger->lock);
	stats->accounts = ledger->account_count;
	stats->departed = ledger->departed;
	stats->exported = ledger->exported;
	stats->unread = ledger->unread;
	stats->pending = ledger->record_count - ledger->confirmed;
	stats->sequence = ledger->sequence;
	for (uint32_t i = 0; i < ledger->options.shards; i++) {
		stats->rows += ledger->mirrors[i].live;
		stats->overflows += __atomic_load_n(&ledger->mirrors[i].book->overflows,
						    __ATOMIC_RELAXED);
	}
	for (unsigned i = 0; i < sizeof(ledger->options.instance); i++)
		snprintf(stats->instance + 2 * i, 3, "%02x", ledger->options.instance[i]);
	pthread_mutex_unlock(&ledger->lock);
}

bool sl_ledger_keeps(const void *self, uint32_t tenant)
{
	const struct sl_ledger *ledger = self;

	for (uint32_t i = 0; i < ledger->options.shards; i++)
		if (__atomic_load_n(&ledger->mirrors[i].book->row_of[tenant], __ATOMIC_ACQUIRE))
			return true;
	return false;
}
