#include <sched.h>
#include <stdlib.h>

#include "tenants/ledger/internal.h"

// From the shards' books to the accounts: what a row has more than when it was read last.
//
// A row that is asked for is not read until the shard has answered: then it is either still what it
// was, or empty and perhaps somebody else's. Its counts had been taken over when it was asked for:
// the shard gives it back only at that very stamp.
//
//   read at stamp s ... still -> asked(row, s) -> shard: stamp is s? cleared : kept -> given(row)

#define TRIES      64
#define STILL_MOST (SL_LEDGER_COLD_NS / SL_LEDGER_FOLD_NS)
// For ten seconds after rows were few: it is the haste that makes them many.
#define HURRY_PASSES (10 * SL_S / SL_LEDGER_FOLD_SOON_NS)
#define ASKED_MOST   16000 // less than the rings hold

static uint64_t take(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static uint32_t take32(const uint32_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static struct sl_ledger_cell take_cell(const struct sl_ledger_cell *cell)
{
	return (struct sl_ledger_cell){take(&cell->items), take(&cell->bytes),
				       take(&cell->requests)};
}

// Words that may belong to different states, where the row changes meanwhile: indexes are valid
// all the same, and the stamp tells.
static void copy_row(const struct sl_ledger_book *book, const struct sl_ledger_row *row,
		     struct sl_ledger_image *image)
{
	image->name = __atomic_load_n(&row->name, __ATOMIC_ACQUIRE);
	image->tenant = __atomic_load_n(&row->tenant, __ATOMIC_ACQUIRE);
	image->name_bytes = __atomic_load_n(&row->name_bytes, __ATOMIC_ACQUIRE);
	image->signal = (enum sl_signal)__atomic_load_n(&row->signal, __ATOMIC_ACQUIRE);
	image->received = take_cell(&row->received);
	image->accepted = take_cell(&row->accepted);
	image->in_flight = take_cell(&row->in_flight);
	image->adjusted = take(&row->adjusted);
	image->sampled_out = take(&row->sampled_out);
	image->dropped = take(&row->dropped);
	image->extra = take32(&row->extra);
	image->extra_count = 0;
	for (uint32_t i = image->extra; i && image->extra_count < SL_LEDGER_IMAGE_EXTRAS;
	     i = take32(&book->extras[i].next)) {
		const uint32_t at = image->extra_count++;

		image->extras[at].index = i;
		image->extras[at].key = take32(&book->extras[i].key);
		image->extras[at].cell = take_cell(&book->extras[i].cell);
	}
}

static bool read_row(const struct sl_ledger_book *book, uint32_t index,
		     struct sl_ledger_image *image)
{
	const struct sl_ledger_row *row = &book->rows[index];

	for (unsigned i = 0; i < TRIES; i++) {
		image->stamp = take32(&row->stamp);
		if (image->stamp & 1) {
			sched_yield();
			continue;
		}
		copy_row(book, row, image);
		if (__atomic_load_n(&row->stamp, __ATOMIC_RELAXED) == image->stamp)
			return true;
	}
	return false; // the next fold will
}

static void note(struct sl_ledger_counts *change, uint32_t key, struct sl_ledger_cell now,
		 struct sl_ledger_cell before)
{
	const struct sl_ledger_cell cell = {now.items - before.items, now.bytes - before.bytes,
					    now.requests - before.requests};

	if (!cell.items && !cell.bytes && !cell.requests)
		return;
	assert(change->count < change->capacity);
	change->list[change->count++] = (struct sl_ledger_count){.key = key, .cell = cell};
}

// What the image has more than what was seen. False: an extra is still another row's, whose answer
// has not been read.
static bool compare(const struct sl_ledger_mirror *mirror, uint32_t index,
		    const struct sl_ledger_image *image, struct sl_ledger_counts *change)
{
	static const struct sl_ledger_cell none;
	const struct sl_ledger_seen *seen = &mirror->rows[index];
	const enum sl_signal signal = image->signal;

	change->count = 0;
	note(change, sl_ledger_key(SL_LEDGER_RECEIVED, signal, 0), image->received, seen->received);
	note(change, sl_ledger_key(SL_LEDGER_IN_FLIGHT, signal, 0), image->in_flight,
	     seen->in_flight);
	note(change, sl_ledger_key(SL_LEDGER_ACCEPTED, signal, 0), image->accepted, seen->accepted);
	note(change, sl_ledger_key(SL_LEDGER_SAMPLED_OUT, signal, 0),
	     (struct sl_ledger_cell){.items = image->sampled_out - seen->sampled_out}, none);
	note(change, sl_ledger_key(SL_LEDGER_DROPPED, signal, 0),
	     (struct sl_ledger_cell){.items = image->dropped - seen->dropped}, none);
	note(change, sl_ledger_key(SL_LEDGER_ADJUSTED, signal, 0),
	     (struct sl_ledger_cell){.items = image->adjusted - seen->adjusted}, none);
	for (uint32_t i = 0; i < image->extra_count; i++) {
		const struct sl_ledger_seen_extra *extra = &mirror->extras[image->extras[i].index];

		if (extra->row && extra->row != index)
			return false;
		note(change, image->extras[i].key, image->extras[i].cell, extra->cell);
	}
	return true;
}

static void remember(struct sl_ledger_mirror *mirror, uint32_t index,
		     const struct sl_ledger_image *image)
{
	struct sl_ledger_seen *seen = &mirror->rows[index];

	seen->stamp = image->stamp;
	seen->still = 0;
	seen->received = image->received;
	seen->accepted = image->accepted;
	seen->in_flight = image->in_flight;
	seen->adjusted = image->adjusted;
	seen->sampled_out = image->sampled_out;
	seen->dropped = image->dropped;
	seen->extra = image->extra;
	for (uint32_t i = 0; i < image->extra_count; i++)
		mirror->extras[image->extras[i].index] = (struct sl_ledger_seen_extra){
			.row = index,
			.next = i + 1 < image->extra_count ? image->extras[i + 1].index : 0,
			.cell = image->extras[i].cell,
		};
}

static void fold_row(struct sl_ledger *ledger, struct sl_ledger_mirror *mirror, uint32_t index)
{
	struct sl_ledger_seen *seen = &mirror->rows[index];
	struct sl_ledger_image *image = &ledger->image;

	if (!read_row(mirror->book, index, image))
		return;
	if (!image->name) { // free
		seen->stamp = image->stamp;
		return;
	}
	if (!compare(mirror, index, image, &ledger->change))
		return;
	if (!seen->account && !ledger->change.count) {
		seen->stamp = image->stamp;
		return;
	}
	if (!seen->account) {
		seen->account = sl_ledger_account_of(ledger, image);
		mirror->live += seen->account != NULL;
		if (seen->account)
			seen->account->rows++;
	}
	// Without memory it stays unseen: the next fold takes it over.
	if (!seen->account || sl_ledger_book_change(ledger, seen->account, &ledger->change)) {
		ledger->unread++;
		return;
	}
	remember(mirror, index, image);
}

// The shard has given the row back: whoever has it now begins at 0.
static void forget(struct sl_ledger_mirror *mirror, uint32_t index)
{
	struct sl_ledger_seen *seen = &mirror->rows[index];

	for (uint32_t i = seen->extra; i;) {
		const uint32_t next = mirror->extras[i].next;

		mirror->extras[i] = (struct sl_ledger_seen_extra){0};
		i = next;
	}
	assert(seen->account->rows > 0);
	seen->account->rows--;
	*seen = (struct sl_ledger_seen){.stamp = seen->stamp};
	mirror->live--;
}

static void take_given(struct sl_ledger_mirror *mirror)
{
	void *given;

	while ((given = sl_ring_pop(&mirror->book->given))) {
		const uint64_t word = (uint64_t)(uintptr_t)given;
		const uint32_t index = (uint32_t)(word >> 1);

		assert(mirror->rows[index].asked);
		mirror->asked--;
		mirror->rows[index].asked = false;
		mirror->rows[index].still = 0;
		if (word & 1)
			forget(mirror, index);
	}
}

static void ask(struct sl_ledger_mirror *mirror, uint32_t index)
{
	struct sl_ledger_seen *seen = &mirror->rows[index];
	const uint64_t word = (uint64_t)seen->stamp << 32 | index;

	if (index < SL_LEDGER_FIXED_ROWS || !seen->account || seen->in_flight.requests ||
	    mirror->asked == ASKED_MOST)
		return;
	if (!sl_ring_push(&mirror->book->asked, (void *)(uintptr_t)word))
		return;
	seen->asked = true;
	mirror->asked++;
}

static bool is_short(const struct sl_ledger_mirror *mirror)
{
	return mirror->live > mirror->book->rows_max / 2;
}

static void fold_book(struct sl_ledger *ledger, struct sl_ledger_mirror *mirror, bool pass)
{
	const uint32_t high = take32(&mirror->book->rows_high);
	// Where rows are few they are given back sooner.
	const uint64_t still = ledger->hurry ? 1 : STILL_MOST;

	take_given(mirror);
	for (uint32_t i = SL_LEDGER_UNKNOWN; i < high; i++) {
		struct sl_ledger_seen *seen = &mirror->rows[i];

		if (seen->asked && !ledger->closed)
			continue;
		if (take32(&mirror->book->rows[i].stamp) != seen->stamp)
			fold_row(ledger, mirror, i);
		else if (pass && ++seen->still >= still)
			ask(mirror, i);
	}
}

static void fold(struct sl_ledger *ledger, bool pass)
{
	if (sl_ledger_counts_reserve(&ledger->change, 6 + SL_LEDGER_IMAGE_EXTRAS)) {
		ledger->unread++;
		return;
	}
	for (uint32_t i = 0; i < ledger->options.shards; i++)
		fold_book(ledger, &ledger->mirrors[i], pass);
}

uint64_t sl_ledger_fold(struct sl_ledger *ledger, bool pass)
{
	uint64_t wait_ns;

	pthread_mutex_lock(&ledger->lock);
	ledger->change.count = 0;
	fold(ledger, pass && !ledger->closed);
	ledger->hurry -= pass && ledger->hurry;
	for (uint32_t i = 0; i < ledger->options.shards; i++)
		if (is_short(&ledger->mirrors[i]))
			ledger->hurry = HURRY_PASSES;
	wait_ns = ledger->hurry ? SL_LEDGER_FOLD_SOON_NS : SL_LEDGER_FOLD_NS;
	pthread_mutex_unlock(&ledger->lock);
	return wait_ns;
}

void sl_ledger_close(struct sl_ledger *ledger)
{
	pthread_mutex_lock(&ledger->lock);
	ledger->closed = true;
	ledger->change.count = 0;
	fold(ledger, false);
	pthread_mutex_unlock(&ledger->lock);
}
