#pragma once

#include <stdio.h>

#include "dataplane/base/disk.h"
#include "tenants/ledger/book.h"
#include "tenants/ledger/counts.h"

// An instance's ledger: every tenant that has sent, by name, with its counts since the ledger was
// begun. Shards write books; whoever asks folds them in first, so that what is read is exact.
//
//   books of shards --fold--> accounts by name --write--> file --read--> accounts, after a restart
//                                    |--export--> Prometheus: the largest by name, the rest summed
//                                    `--cut--> usage records: what came since the last cut
//
// Threading: any thread, one lock; never a shard's (its own are in book.h), but for number().
// Memory: 112 bytes, the name and 32 bytes a count that is not zero for a tenant that has sent.
struct sl_ledger;

struct sl_ledger_options {
	uint32_t shards;
	uint32_t rows_max;    // of each shard: tenants and signals that are active at a time
	uint32_t tenants_max; // numbers that tenants may have
	uint32_t export_max;  // tenants with time series of their own
	bool usage;           // cuts will be made
	uint64_t wall_ns;
	uint8_t instance[8]; // random: the name of a ledger that begins here
};

// What one shard's rows, and their mirror, take at most.
uint64_t sl_ledger_shard_bytes(uint32_t rows_max, uint32_t tenants_max);
// What an account takes, with three signals and a destination, as README.md has it.
#define SL_LEDGER_ACCOUNT_BYTES 408
// NULL when out of memory.
struct sl_ledger *sl_ledger_create(const struct sl_ledger_options *options);
void sl_ledger_destroy(struct sl_ledger *ledger); // NULL is fine; no shard may run

struct sl_ledger_book *sl_ledger_book_of(struct sl_ledger *ledger, uint32_t shard);
// The number of a destination (sl_endings.number; `ledger` is a struct sl_ledger). Any thread.
uint32_t sl_ledger_number(void *ledger, const char *destination);

// Takes over what the books say: before anything is read. With `pass` it asks for rows that have
// been still for SL_LEDGER_COLD_NS, or, where more than half of them are in use, since the last
// pass. Returns when the next pass is due, in ns: soon where rows are few.
#define SL_LEDGER_FOLD_NS      (250 * SL_MS)
#define SL_LEDGER_FOLD_SOON_NS (20 * SL_MS)
#define SL_LEDGER_COLD_NS      (10 * SL_S)
uint64_t sl_ledger_fold(struct sl_ledger *ledger, bool pass);
// The last one: no shard runs any more.
void sl_ledger_close(struct sl_ledger *ledger);

// Who makes tenants from a template. The functions are called from any thread, and without one
// (NULL) nobody is made.
struct sl_ledger_maker {
	const void *self;
	// The class ("": none) of a number that is for tenants that are made; NULL of others.
	const char *(*class_of)(const void *self, sl_tenant_id tenant);
	bool (*is_there)(const void *self, struct sl_bytes name); // a tenant of that name now
	uint32_t (*most)(const void *self);                       // tenants at a time
};
void sl_ledger_made_by(struct sl_ledger *ledger, const struct sl_ledger_maker *maker);
// Accounts of tenants that were made and left `keep_ns` ago go into one of their class,
// `_departed:CLASS`; the sums stay. Beyond so many names (and those that are there) they go sooner,
// and new names count there at once. Looks at some of them: call it at each fold.
#define SL_LEDGER_DEPARTED_MAX 65536
void sl_ledger_depart(struct sl_ledger *ledger, uint64_t keep_ns, uint64_t now_ns);

struct sl_ledger_stats {
	uint32_t accounts, rows, exported;
	uint64_t overflows; // counted under `_other` for want of a row
	uint64_t departed;  // accounts that went into those of classes
	uint64_t unread;    // rows put off because memory was short
	uint32_t pending;   // usage records made and not confirmed
	uint64_t sequence;  // of the last cut
	char instance[17];
};
void sl_ledger_stats(struct sl_ledger *ledger, struct sl_ledger_stats *stats);

// --- what it tells; malloc'ed texts, NULL when out of memory -------------------------------------

// One tenant's account as JSON; `null` when it has none.
char *sl_ledger_describe(struct sl_ledger *ledger, struct sl_bytes tenant);
// Tenants by bytes received, the most first, from the `skip`th on.
char *sl_ledger_list(struct sl_ledger *ledger, uint32_t skip, uint32_t limit);

// Chooses whose series are exported: the largest by recent volume. Who is in stays for a minute and
// until another is twice as large; what somebody had before he came in stays in `_other`, so that
// no series runs backwards. Call every SL_LEDGER_RANK_NS.
#define SL_LEDGER_RANK_NS (10 * SL_S)
void sl_ledger_rank(struct sl_ledger *ledger, uint32_t export_max, uint64_t now_ns);
// Their names for the reference, as a table in Markdown; and their values as Prometheus' text.
void sl_ledger_print_reference(FILE *out);
char *sl_ledger_metrics(struct sl_ledger *ledger, size_t *size);

// Whether a shard has a row of that tenant, whose name and number must stay its own meanwhile. From
// any thread, without the lock.
bool sl_ledger_keeps(const void *ledger, uint32_t tenant);

// --- usage records -------------------------------------------------------------------------------

// A record is one tenant's and signal's counts of one interval. Its key never names other counts:
// a cut is made once, kept until all of it is confirmed, and written with the ledger before any of
// it is sent.
struct sl_ledger_usage {
	uint32_t index;    // for sl_ledger_usage_confirm()
	char *key, *value; // malloc'ed
};

// Ends the interval, unless records of the last one are unconfirmed. Returns whether there are
// records to send (after sl_ledger_write() has been made safe).
bool sl_ledger_cut(struct sl_ledger *ledger, uint64_t wall_ns);
// The first unconfirmed record from `index` on. False: there is none, or no memory.
bool sl_ledger_usage_next(struct sl_ledger *ledger, uint32_t index, struct sl_ledger_usage *usage);
void sl_ledger_usage_confirm(struct sl_ledger *ledger, uint32_t index);

// --- the file ------------------------------------------------------------------------------------

// The ledger as text that sl_ledger_read() takes; malloc'ed.
char *sl_ledger_write(struct sl_ledger *ledger, size_t *size);
// Into an empty ledger. Returns 0, -EINVAL with the reason in `error` (nothing is changed then), or
// -ENOMEM. What was in flight when it was written is unanswered.
int sl_ledger_read(struct sl_ledger *ledger, struct sl_bytes text, char *error, size_t error_size);

// Locks PATH.lock as long as the ledger lives: two processes that write one file would each undo
// what the other has. Returns 0 or -errno with the reason in `why`.
int sl_ledger_lock(struct sl_ledger *ledger, const char *path, char why[SL_DISK_WHY]);
// Reads a file of it, when there is one. A file that cannot be taken is kept aside as
// PATH.refused-TIME. Returns 1 when read, 0 when there is none, -EINVAL when refused (the reason in
// `error`), -errno.
int sl_ledger_load(struct sl_ledger *ledger, const char *path, uint64_t wall_ns, char *error,
		   size_t error_size);
