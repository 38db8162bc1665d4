#include "tenants/ledger/counts.h"

#include <errno.h>
#include <stdlib.h>

void sl_ledger_counts_fini(struct sl_ledger_counts *counts)
{
	free(counts->list);
	*counts = (struct sl_ledger_counts){0};
}

int sl_ledger_counts_reserve(struct sl_ledger_counts *counts, uint32_t more)
{
	const uint32_t need = counts->count + more;
	struct sl_ledger_count *grown;

	if (need <= counts->capacity)
		return 0;
	grown = realloc(counts->list, (size_t)need * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	counts->list = grown;
	counts->capacity = need;
	return 0;
}

// Where the key is, or would be.
static uint32_t place(const struct sl_ledger_counts *counts, uint32_t key)
{
	uint32_t low = 0, high = counts->count;

	while (low < high) {
		const uint32_t middle = (low + high) / 2;

		if (counts->list[middle].key < key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool is_at(const struct sl_ledger_counts *counts, uint32_t at, uint32_t key)
{
	return at < counts->count && counts->list[at].key == key;
}

void sl_ledger_counts_add(struct sl_ledger_counts *counts, uint32_t key,
			  const struct sl_ledger_cell *more)
{
	const uint32_t at = place(counts, key);
	const bool there = is_at(counts, at, key);
	struct sl_ledger_count *count;

	if (!more->items && !more->bytes && !more->requests)
		return;
	assert(there || counts->count < counts->capacity);
	count = &counts->list[at];
	if (!there) {
		memmove(count + 1, count, (counts->count - at) * sizeof(*count));
		*count = (struct sl_ledger_count){.key = key};
		counts->count++;
	}
	count->cell.items += more->items;
	count->cell.bytes += more->bytes;
	count->cell.requests += more->requests;
	if (there && !count->cell.items && !count->cell.bytes && !count->cell.requests) {
		counts->count--;
		memmove(count, count + 1, (counts->count - at) * sizeof(*count));
	}
}

struct sl_ledger_cell sl_ledger_counts_get(const struct sl_ledger_counts *counts, uint32_t key)
{
	const uint32_t at = place(counts, key);

	return is_at(counts, at, key) ? counts->list[at].cell : (struct sl_ledger_cell){0};
}

int sl_ledger_counts_room(struct sl_ledger_counts *counts, const struct sl_ledger_counts *from)
{
	uint32_t missing = 0;

	for (uint32_t i = 0; i < from->count; i++)
		missing += !is_at(counts, place(counts, from->list[i].key), from->list[i].key);
	return sl_ledger_counts_reserve(counts, missing);
}

int sl_ledger_counts_merge(struct sl_ledger_counts *counts, const struct sl_ledger_counts *from)
{
	if (sl_ledger_counts_room(counts, from))
		return -ENOMEM;
	for (uint32_t i = 0; i < from->count; i++)
		sl_ledger_counts_add(counts, from->list[i].key, &from->list[i].cell);
	return 0;
}

struct sl_ledger_cell sl_ledger_counts_sum(const struct sl_ledger_counts *counts,
					   enum sl_ledger_kind kind)
{
	struct sl_ledger_cell sum = {0};

	for (uint32_t i = 0; i < counts->count; i++) {
		const struct sl_ledger_cell *cell = &counts->list[i].cell;

		if (sl_ledger_kind_of(counts->list[i].key) != kind)
			continue;
		sum.items += cell->items;
		sum.bytes += cell->bytes;
		sum.requests += cell->requests;
	}
	return sum;
}
