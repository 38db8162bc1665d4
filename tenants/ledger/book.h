#pragma once

#include "dataplane/base/ring.h"
#include "dataplane/request/ending.h"
#include "dataplane/request/request.h"
#include "tenants/ledger/kinds.h"

// A shard's side of the ledger: a row for each tenant and signal that is active, written by this
// shard only and read by whoever folds it into the instance's ledger (ledger.h).
//
//   by tenant: 4 bytes -> row -sibling-> row of another signal ...
//                          \-extra-> counts by reason and destination, and what is rare
//
// A row that has been still for a while is asked for by the folding thread, by ring, with the stamp
// at which it was read; the shard gives it back unless it has changed since. So rows are bounded by
// what is active, and nothing is lost: who finds no row is counted under `_other`, who cannot be
// named under `_unknown`. Both have rows and extras of their own that cannot run out.
//
// A row is consistent at every moment for its reader: the stamp is odd while the shard writes.
//
// Threading: the shard's thread; fold.c says how others read.
// Memory: address space for all rows at creation; pages come as rows do.
#define SL_LEDGER_ROWS_MIN   64
#define SL_LEDGER_FIXED_ROWS 7 // 0 is none, then `_unknown` and `_other` by signal
#define SL_LEDGER_UNKNOWN    1
#define SL_LEDGER_OTHER      4

// Names that may have rows under the number of those whose tenants are being made, at a time; more
// are counted under `_other`.
#define SL_LEDGER_NEWCOMERS_MAX 256

struct sl_ledger_extra {
	uint32_t key;  // sl_ledger_key()
	uint32_t next; // 0: the last
	struct sl_ledger_cell cell;
};

struct sl_ledger_row {
	uint32_t stamp; // odd: being written
	sl_tenant_id tenant;
	const uint8_t *name; // lives as long as the tenant has a row; NULL: the row is free
	uint8_t name_bytes, signal;
	uint32_t extra;   // the first of its list
	uint32_t sibling; // the tenant's row of another signal; of a free row, the next free one
	struct sl_ledger_cell received;
	uint64_t adjusted;
	// A line of the cache on.
	struct sl_ledger_cell accepted, in_flight;
	uint64_t sampled_out, dropped;
};
static_assert(sizeof(struct sl_ledger_row) == 128, "two lines of the cache");

struct sl_ledger_book {
	uint32_t *row_of;       // by tenant; 0: none. Others look whether there is one
	sl_tenant_id newcomers; // whose requests have names of their own: a row for each name
	uint32_t newcomer_count;
	uint8_t (*names)[SL_TENANT_NAME_MAX]; // by row: of newcomers, whose requests take theirs
					      // away
	struct sl_ledger_row *rows;
	struct sl_ledger_extra *extras; // 0 is none
	uint32_t row_count, extra_count, free_row, free_extra;
	uint32_t rows_max, extras_max;
	uint32_t extras_shared, extras_named; // beyond: of the fixed rows only; without names
	uint32_t rows_high;                   // writer: the shard; rows used so far
	uint64_t overflows;          // writer: the shard; parts and ends counted under `_other`
	struct sl_ring asked, given; // rows with their stamps; with their answers
	size_t row_of_bytes, rows_bytes, extras_bytes, names_bytes;
};

// `rows_max`: beside the fixed ones. `tenants_max`: numbers that tenants may have. NULL when out of
// memory.
struct sl_ledger_book *sl_ledger_book_create(uint32_t rows_max, uint32_t tenants_max);
void sl_ledger_book_destroy(struct sl_ledger_book *book); // NULL is fine

// All of these take NULL for no ledger.

// A request was read and, unless it was refused before, has its parts: all is in flight.
void sl_ledger_received(struct sl_ledger_book *book, struct sl_request *request);
// Its answer is decided (once a request). All its parts end as its sender was told.
void sl_ledger_answered(struct sl_ledger_book *book, const struct sl_request *request);
// Refused before it was read: counted as a request without items.
void sl_ledger_turned_away(struct sl_ledger_book *book, const struct sl_request *request,
			   enum sl_reason reason);
// A destination is rid of items; as in struct sl_endings.
void sl_ledger_ended(void *book, const struct sl_ending *ending);
// Once a turn: gives back rows that are asked for.
void sl_ledger_book_turn(struct sl_ledger_book *book);
