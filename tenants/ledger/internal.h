#pragma once

#include <pthread.h>
#include <stdio.h>

#include "tenants/ledger/ledger.h"

// What the files of ledger/ share. Everything is under `lock`, but what says otherwise.
//
// Threading: under the lock. Memory: accounts live as long as the ledger.
#define SL_LEDGER_NAME_MAX 255
#define SL_LEDGER_DEPARTED "_departed:" // no tenant's name has a colon
#define SL_LEDGER_IMAGE_EXTRAS                                                                     \
	(SL_REASONS + SL_LEDGER_DESTINATION_KINDS * SL_LEDGER_DESTINATIONS_MAX)

struct sl_ledger_account {
	struct sl_ledger_counts total;
	struct sl_ledger_counts unbilled;  // since the last cut
	struct sl_ledger_counts elsewhere; // of `total`, what went into `other`; see `begun`
	uint64_t exported_ns;              // since when
	double score;                      // recent volume
	uint64_t changed_ns;
	uint32_t rows; // of shards, that are added to it: of a class that left, all there are
	uint16_t made; // from a template: its class' number + 1; 0: it is configured
	bool billing;  // some records of the last cut are its
	bool exported;
	bool rest;  // SL_LEDGER_REST, or of those that left: never exported by name
	bool begun; // was exported once: `elsewhere` counts. Else all of it went into `other`
	uint8_t name_bytes;
	char name[];
};

// A row as it was read last.
struct sl_ledger_seen {
	struct sl_ledger_account *account; // NULL: not since it has been another's
	uint32_t stamp, extra, still;      // still: folds without a change
	bool asked;
	struct sl_ledger_cell received, accepted, in_flight;
	uint64_t adjusted, sampled_out, dropped;
};

struct sl_ledger_seen_extra {
	uint32_t row; // whose it is; 0: nobody's
	uint32_t next;
	struct sl_ledger_cell cell;
};

struct sl_ledger_mirror {
	struct sl_ledger_book *book;
	struct sl_ledger_seen *rows;
	struct sl_ledger_seen_extra *extras;
	uint32_t asked, live; // rows asked for; that are somebody's
};

// A consistent copy of one row.
struct sl_ledger_image {
	uint32_t stamp;
	const uint8_t *name;
	uint8_t name_bytes;
	sl_tenant_id tenant;
	enum sl_signal signal;
	struct sl_ledger_cell received, accepted, in_flight;
	uint64_t adjusted, sampled_out, dropped;
	uint32_t extra, extra_count;
	struct {
		uint32_t index, key;
		struct sl_ledger_cell cell;
	} extras[SL_LEDGER_IMAGE_EXTRAS];
};

struct sl_ledger_record {
	struct sl_ledger_account *account;
	enum sl_signal signal;
	bool confirmed;
	struct sl_ledger_counts counts;
};

struct sl_ledger {
	struct sl_ledger_options options;
	pthread_mutex_t lock, names_lock;
	int file_lock;                                  // -1: none
	char *destinations[SL_LEDGER_DESTINATIONS_MAX]; // names_lock; set once each
	uint32_t hashes[SL_LEDGER_DESTINATIONS_MAX];    // of them: a name is sought among these
	uint32_t destination_count;                     // names_lock
	struct sl_ledger_mirror *mirrors;               // by shard
	struct sl_ledger_account **accounts;            // in the order they came
	uint32_t account_count, accounts_max;
	uint32_t *index; // name's hash -> number + 1; at most half full
	uint32_t index_mask;
	struct sl_ledger_counts other; // of those that are not exported
	uint32_t exported;
	bool told; // series have been rendered: they may not run backwards
	bool closed;
	uint32_t hurry; // passes for which rows that are still go at once
	uint64_t unread;
	uint64_t sequence, since_ns;      // of the last cut; when it was made
	uint64_t cut_ns;                  // when the one before it was: the pending records' begin
	struct sl_ledger_record *records; // of the last cut; NULL: all confirmed
	uint32_t record_count, confirmed;
	struct sl_ledger_maker maker;
	uint64_t now_ns, began_ns; // of the last depart(), and the first; 0: none yet
	char **classes;            // names, of those that were made
	uint32_t class_count;
	uint32_t made, hand;            // accounts of such; the next one to look at
	uint64_t departed;              // accounts that went since the start
	struct sl_ledger_image image;   // scratch
	struct sl_ledger_counts change; // scratch
};

SL_INLINE struct sl_bytes sl_ledger_name(const struct sl_ledger_account *account)
{
	return sl_bytes(account->name, account->name_bytes);
}

// The account of a name, new or known; NULL when out of memory.
struct sl_ledger_account *sl_ledger_account(struct sl_ledger *ledger, struct sl_bytes name);
struct sl_ledger_account *sl_ledger_find(const struct sl_ledger *ledger, struct sl_bytes name);
// Out of the list and freed; nothing refers to it.
void sl_ledger_remove(struct sl_ledger *ledger, struct sl_ledger_account *account);
// departed.c: the account of a row: by name, or of those that left where there are too many names.
struct sl_ledger_account *sl_ledger_account_of(struct sl_ledger *ledger,
					       const struct sl_ledger_image *image);
// SL_LEDGER_DEPARTED and a class, if it had one.
bool sl_ledger_is_departed(struct sl_bytes name);
// Made from a template of that class; NULL: configured.
void sl_ledger_mark(struct sl_ledger *ledger, struct sl_ledger_account *account,
		    const char *class_name);
// What a key's index is called: a reason, a destination, or "".
const char *sl_ledger_label(const struct sl_ledger *ledger, uint32_t key);
// Adds to an account and all that is made of it. Returns 0, or -ENOMEM and has changed nothing.
int sl_ledger_book_change(struct sl_ledger *ledger, struct sl_ledger_account *account,
			  const struct sl_ledger_counts *change);
// What a signal's kept items stand for: those of sampling kept at p count 1/p each.
double sl_ledger_estimate(const struct sl_ledger_counts *counts, enum sl_signal signal);
// json.c: the members of one signal's object, of counts that are sorted.
void sl_ledger_put_signal(const struct sl_ledger *ledger, FILE *out,
			  const struct sl_ledger_counts *counts, enum sl_signal signal);
// The last cut is over: confirmed, or there was none.
void sl_ledger_drop_records(struct sl_ledger *ledger);
