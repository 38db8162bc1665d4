#pragma once

#include "tenants/ledger/kinds.h"

// A sorted list of counts: what one tenant has, without what it has none of.
//
// Threading: one owner. Memory: one malloc'ed block, 32 bytes a count.
struct sl_ledger_count {
	uint32_t key; // sl_ledger_key()
	struct sl_ledger_cell cell;
};

struct sl_ledger_counts {
	struct sl_ledger_count *list;
	uint32_t count, capacity;
};

void sl_ledger_counts_fini(struct sl_ledger_counts *counts);
// Room for `more` keys that are not there yet. Returns 0 or -ENOMEM.
int sl_ledger_counts_reserve(struct sl_ledger_counts *counts, uint32_t more);
// Adds; modulo 2^64, so that what is in flight can fall. There must be room. What becomes 0 goes.
void sl_ledger_counts_add(struct sl_ledger_counts *counts, uint32_t key,
			  const struct sl_ledger_cell *cell);
// The cell of a key; zeroes when there is none.
struct sl_ledger_cell sl_ledger_counts_get(const struct sl_ledger_counts *counts, uint32_t key);
// Room for the keys of `from` that are not there yet. Returns 0 or -ENOMEM.
int sl_ledger_counts_room(struct sl_ledger_counts *counts, const struct sl_ledger_counts *from);
// Adds all of `from`, whose keys differ. Returns 0, or -ENOMEM and has changed nothing.
int sl_ledger_counts_merge(struct sl_ledger_counts *counts, const struct sl_ledger_counts *from);
// The sum of a kind over all signals, reasons and destinations.
struct sl_ledger_cell sl_ledger_counts_sum(const struct sl_ledger_counts *counts,
					   enum sl_ledger_kind kind);
