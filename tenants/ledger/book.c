#include "tenants/ledger/book.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "tenants/ledger/internal.h"

#define EXTRAS_A_ROW 4 // what a row has beside its columns: destinations, reasons
// Of the fixed rows: what cannot run out, and what can. Then it is counted under destination 0.
#define EXTRAS_FIXED (SL_LEDGER_FIXED_ROWS * (SL_REASONS + SL_LEDGER_DESTINATION_KINDS))
#define EXTRAS_NAMED (SL_LEDGER_FIXED_ROWS * SL_LEDGER_DESTINATION_KINDS * 256)
#define ASKED_COUNT  16384
#define GIVEN_A_TURN 64

const struct sl_ledger_kind_row sl_ledger_kinds[SL_LEDGER_KIND_COUNT] = {
#define SL_LEDGER_KIND_(kind, label_, by_, units_, help_)                                          \
	{.label = label_, .help = help_, .by = SL_LEDGER_BY_##by_, .units = SL_LEDGER_##units_},
	SL_LEDGER_KINDS(SL_LEDGER_KIND_)
#undef SL_LEDGER_KIND_
};

// Address space; pages come with the first write.
static void *take_pages(size_t bytes)
{
	void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return pages == MAP_FAILED ? NULL : pages;
}

static void give_pages(void *pages, size_t bytes)
{
	if (pages)
		munmap(pages, bytes);
}

// --- writing a row -------------------------------------------------------------------------------

// Every word of a row is stored with release and read with acquire: who sees one of a change sees
// the odd stamp before it. No fence is needed, which TSan would not see.
static void put(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static void add(uint64_t *word, uint64_t more)
{
	put(word, *word + more);
}

static void put32(uint32_t *word, uint32_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static void add_cell(struct sl_ledger_cell *cell, uint64_t items, uint64_t bytes, uint64_t requests)
{
	add(&cell->items, items);
	add(&cell->bytes, bytes);
	add(&cell->requests, requests);
}

static void begin(struct sl_ledger_row *row)
{
	__atomic_store_n(&row->stamp, row->stamp + 1, __ATOMIC_RELAXED);
}

static void end(struct sl_ledger_row *row)
{
	put32(&row->stamp, row->stamp + 1);
}

static void own_row(struct sl_ledger_row *row, sl_tenant_id tenant, struct sl_bytes name,
		    enum sl_signal signal)
{
	begin(row);
	__atomic_store_n(&row->tenant, tenant, __ATOMIC_RELEASE);
	__atomic_store_n(&row->name, name.data, __ATOMIC_RELEASE);
	__atomic_store_n(&row->name_bytes, (uint8_t)name.size, __ATOMIC_RELEASE);
	__atomic_store_n(&row->signal, (uint8_t)signal, __ATOMIC_RELEASE);
	end(row);
}

static void measure(struct sl_ledger_book *book, uint32_t rows_max, uint32_t tenants_max)
{
	book->rows_max = SL_MAX(rows_max, SL_LEDGER_ROWS_MIN) + SL_LEDGER_FIXED_ROWS;
	book->extras_shared = book->rows_max * EXTRAS_A_ROW;
	book->extras_named = book->extras_shared + EXTRAS_NAMED;
	book->extras_max = book->extras_named + EXTRAS_FIXED;
	book->row_of_bytes = tenants_max * sizeof(*book->row_of);
	book->rows_bytes = book->rows_max * sizeof(*book->rows);
	book->extras_bytes = book->extras_max * sizeof(*book->extras);
	book->names_bytes = book->rows_max * sizeof(*book->names);
}

uint64_t sl_ledger_shard_bytes(uint32_t rows_max, uint32_t tenants_max)
{
	struct sl_ledger_book book = {0};

	measure(&book, rows_max, tenants_max);
	return book.row_of_bytes + book.rows_bytes + book.extras_bytes + book.names_bytes +
	       book.rows_max * sizeof(struct sl_ledger_seen) +
	       book.extras_max * sizeof(struct sl_ledger_seen_extra);
}

struct sl_ledger_book *sl_ledger_book_create(uint32_t rows_max, uint32_t tenants_max)
{
	struct sl_ledger_book *book = NULL;

	if (posix_memalign((void **)&book, SL_CACHE_LINE, sizeof(*book)) != 0)
		return NULL;
	memset(book, 0, sizeof(*book));
	measure(book, rows_max, tenants_max);
	book->row_of = take_pages(book->row_of_bytes);
	book->names = take_pages(book->names_bytes);
	book->rows = take_pages(book->rows_bytes);
	book->extras = take_pages(book->extras_bytes);
	if (!book->row_of || !book->rows || !book->extras || !book->names ||
	    sl_ring_init(&book->asked, ASKED_COUNT) < 0 ||
	    sl_ring_init(&book->given, ASKED_COUNT) < 0) {
		sl_ledger_book_destroy(book);
		return NULL;
	}
	for (unsigned i = 0; i < SL_SIGNALS; i++) {
		own_row(&book->rows[SL_LEDGER_UNKNOWN + i], SL_TENANT_NONE,
			SL_LITERAL(SL_LEDGER_NAMELESS), (enum sl_signal)i);
		own_row(&book->rows[SL_LEDGER_OTHER + i], SL_TENANT_NONE,
			SL_LITERAL(SL_LEDGER_REST), (enum sl_signal)i);
	}
	static_assert(SL_LEDGER_OTHER + SL_SIGNALS == SL_LEDGER_FIXED_ROWS, "a row a signal");
	book->newcomers = SL_TENANT_NONE;
	book->row_count = SL_LEDGER_FIXED_ROWS;
	book->extra_count = 1;
	put32(&book->rows_high, book->row_count);
	return book;
}

void sl_ledger_book_destroy(struct sl_ledger_book *book)
{
	if (!book)
		return;
	sl_ring_fini(&book->asked);
	sl_ring_fini(&book->given);
	give_pages(book->names, book->names_bytes);
	give_pages(book->row_of, book->row_of_bytes);
	give_pages(book->rows, book->rows_bytes);
	give_pages(book->extras, book->extras_bytes);
	free(book);
}

// --- rows and extras -----------------------------------------------------------------------------

static __attribute__((noinline)) uint32_t open_row(struct sl_ledger_book *book, sl_tenant_id tenant,
						   struct sl_bytes name, enum sl_signal signal)
{
	const bool newcomer = tenant == book->newcomers;
	uint32_t index = book->free_row;

	if (newcomer && (!name.size || book->newcomer_count == SL_LEDGER_NEWCOMERS_MAX)) {
		sl_count(&book->overflows, 1);
		return SL_LEDGER_OTHER + signal;
	}
	if (index) {
		book->free_row = book->rows[index].sibling;
	} else if (book->row_count < book->rows_max) {
		index = book->row_count++;
		put32(&book->rows_high, book->row_count);
	} else {
		sl_count(&book->overflows, 1);
		return SL_LEDGER_OTHER + signal;
	}
	if (newcomer) {
		assert(name.size <= SL_TENANT_NAME_MAX);
		memcpy(book->names[index], name.data, name.size);
		name.data = book->names[index];
		book->newcomer_count++;
	}
	book->rows[index].sibling = book->row_of[tenant];
	put32(&book->row_of[tenant], index);
	own_row(&book->rows[index], tenant, name, signal);
	return index;
}

// The account is a name's: who has no number of its own yet goes on in it with that.
static bool is_of(const struct sl_ledger_book *book, const struct sl_ledger_row *row,
		  struct sl_bytes name, enum sl_signal signal)
{
	return row->signal == signal &&
	       (SL_LIKELY(row->tenant != book->newcomers) ||
		sl_bytes_equal(sl_bytes(row->name, row->name_bytes), name));
}

static uint32_t row_index(struct sl_ledger_book *book, sl_tenant_id tenant, struct sl_bytes name,
			  enum sl_signal signal)
{
	uint32_t index;

	if (SL_UNLIKELY(tenant == SL_TENANT_NONE))
		return SL_LEDGER_UNKNOWN + signal;
	assert(tenant * sizeof(uint32_t) < book->row_of_bytes);
	index = book->row_of[tenant];
	while (index && !is_of(book, &book->rows[index], name, signal))
		index = book->rows[index].sibling;
	return SL_LIKELY(index) ? index : open_row(book, tenant, name, signal);
}

static uint32_t find_extra(const struct sl_ledger_book *book, const struct sl_ledger_row *row,
			   uint32_t key)
{
	uint32_t index = row->extra;

	while (index && book->extras[index].key != key)
		index = book->extras[index].next;
	return index;
}

static bool by_destination(uint32_t key)
{
	return sl_ledger_kinds[sl_ledger_kind_of(key)].by == SL_LEDGER_BY_DESTINATION &&
	       sl_ledger_index_of(key);
}

// The last of them are kept for the fixed rows, whose keys without names of destinations are not
// more than they are.
static uint32_t take_extra(struct sl_ledger_book *book, bool fixed, uint32_t key)
{
	const uint32_t most = !fixed                ? book->extras_shared
			      : by_destination(key) ? book->extras_named
						    : book->extras_max;
	const uint32_t index = book->free_extra;

	if (index) {
		book->free_extra = book->extras[index].next;
		return index;
	}
	return book->extra_count < most ? book->extra_count++ : 0;
}

// Adds to a count of the row that has been begun; to one of `_other` when there is no room.
static void add_extra(struct sl_ledger_book *book, struct sl_ledger_row *row, uint32_t key,
		      uint64_t items, uint64_t bytes, uint64_t requests)
{
	const bool fixed = row < &book->rows[SL_LEDGER_FIXED_ROWS];
	uint32_t index = find_extra(book, row, key);

	if (SL_UNLIKELY(!index)) {
		index = take_extra(book, fixed, key);
		if (!index && fixed) {
			assert(by_destination(key));
			sl_count(&book->overflows, 1);
			add_extra(book, row, key & ~UINT32_C(0xffff), items, bytes, requests);
			return;
		}
		if (!index) {
			struct sl_ledger_row *other = &book->rows[SL_LEDGER_OTHER + row->signal];

			sl_count(&book->overflows, 1);
			begin(other);
			add_extra(book, other, key, items, bytes, requests);
			end(other);
			return;
		}
		put32(&book->extras[index].key, key);
		put32(&book->extras[index].next, row->extra);
		put32(&row->extra, index);
	}
	add_cell(&book->extras[index].cell, items, bytes, requests);
}

// --- what is counted -----------------------------------------------------------------------------

static void receive(struct sl_ledger_book *book, struct sl_part *part, enum sl_signal signal,
		    uint32_t items, uint64_t bytes)
{
	struct sl_ledger_row *row;

	part->account = row_index(book, part->tenant, part->tenant_name, signal);
	row = &book->rows[part->account];
	begin(row);
	add_cell(&row->received, items, bytes, 1);
	add_cell(&row->in_flight, items, bytes, 1);
	end(row);
}

void sl_ledger_received(struct sl_ledger_book *book, struct sl_request *request)
{
	if (!book)
		return;
	for (uint16_t i = 0; i < request->part_count; i++)
		receive(book, &request->parts[i], request->signal, request->parts[i].offered_items,
			request->parts[i].offered_bytes);
	if (SL_LIKELY(request->part_count))
		return;
	// Refused before it had parts.
	request->first_part.tenant = request->tenant;
	request->first_part.tenant_name = request->tenant_name;
	receive(book, &request->first_part, request->signal, request->view.item_count,
		request->view.body.size);
}

static void refuse(struct sl_ledger_book *book, struct sl_ledger_row *row, enum sl_reason reason,
		   uint64_t items, uint64_t bytes, uint64_t requests)
{
	const enum sl_ledger_kind kind = sl_ledger_refusal(reason);

	add_extra(book, row, sl_ledger_key(kind, (enum sl_signal)row->signal, reason), items, bytes,
		  requests);
}

// What became of a part of a request that was taken, all or in part.
static void accept_part(struct sl_ledger_book *book, struct sl_ledger_row *row,
			const struct sl_part *part)
{
	const uint32_t offered = part->offered_items - sl_part_cut_items(part);

	for (unsigned i = 0; i < SL_CUTS; i++)
		if (SL_UNLIKELY(part->cut_items[i]))
			refuse(book, row, sl_cut_reasons[i], part->cut_items[i],
			       i == SL_CUT_CARDINALITY ? 0 : part->cut_bytes, 0);
	if (SL_UNLIKELY(part->rejected_items)) // its bytes and itself are with what was accepted
		refuse(book, row, SL_REASON_REJECTED, part->rejected_items, 0, 0);
	add_cell(&row->accepted, offered - part->rejected_items,
		 part->offered_bytes - part->cut_bytes, 1);
	if (part->kept_items != offered)
		add(&row->sampled_out, offered - part->kept_items);
	if (part->routed_items != part->kept_items)
		add(&row->dropped, part->kept_items - part->routed_items);
	if (part->adjusted_q8)
		add(&row->adjusted, part->adjusted_q8);
}

static void answer_part(struct sl_ledger_book *book, const struct sl_part *part,
			enum sl_reason reason, uint32_t items, uint64_t bytes)
{
	struct sl_ledger_row *row = &book->rows[part->account];

	begin(row);
	add_cell(&row->in_flight, -(uint64_t)items, -bytes, UINT64_MAX);
	if (SL_UNLIKELY(reason != SL_REASON_NONE))
		refuse(book, row, reason, items, bytes, 1);
	else
		accept_part(book, row, part);
	end(row);
}

void sl_ledger_answered(struct sl_ledger_book *book, const struct sl_request *request)
{
	if (!book)
		return;
	for (uint16_t i = 0; i < request->part_count; i++) {
		const struct sl_part *part = &request->parts[i];

		answer_part(book, part,
			    request->reason != SL_REASON_NONE ? request->reason : part->reason,
			    part->offered_items, part->offered_bytes);
	}
	if (!request->part_count)
		answer_part(book, &request->first_part, request->reason, request->view.item_count,
			    request->view.body.size);
}

void sl_ledger_turned_away(struct sl_ledger_book *book, const struct sl_request *request,
			   enum sl_reason reason)
{
	struct sl_ledger_row *row;

	if (!book)
		return;
	row = &book->rows[row_index(book, request->tenant, request->tenant_name, request->signal)];
	begin(row);
	add_cell(&row->received, 0, 0, 1);
	refuse(book, row, reason, 0, 0, 1);
	end(row);
}

void sl_ledger_ended(void *self, const struct sl_ending *ending)
{
	static const uint8_t kinds[SL_ENDS] = {
		[SL_END_DELIVERED] = SL_LEDGER_DELIVERED,
		[SL_END_REJECTED] = SL_LEDGER_REJECTED,
		[SL_END_DROPPED] = SL_LEDGER_GIVEN_UP,
		[SL_END_RETURNED] = SL_LEDGER_RETURNED,
		[SL_END_LOST] = SL_LEDGER_LOST,
		[SL_END_SPOOLED] = SL_LEDGER_SPOOLED,
		[SL_END_DEAD_LETTERED] = SL_LEDGER_DEAD_LETTERED,
	};
	struct sl_ledger_book *book = self;
	struct sl_ledger_row *row;

	if (!book)
		return;
	row = &book->rows[row_index(book, ending->tenant, ending->tenant_name, ending->signal)];
	begin(row);
	add_extra(book, row,
		  sl_ledger_key((enum sl_ledger_kind)kinds[ending->end], ending->signal,
				ending->destination),
		  ending->items, ending->bytes, ending->records);
	end(row);
}

// --- giving rows back ----------------------------------------------------------------------------

static void unlink_row(struct sl_ledger_book *book, uint32_t index)
{
	uint32_t *link = &book->row_of[book->rows[index].tenant];

	while (*link != index)
		link = &book->rows[*link].sibling;
	put32(link, book->rows[index].sibling);
}

// Nobody reads the row until it has our answer.
static void clear_row(struct sl_ledger_book *book, uint32_t index)
{
	struct sl_ledger_row *row = &book->rows[index];
	uint32_t extra = row->extra;

	unlink_row(book, index);
	book->newcomer_count -= row->tenant == book->newcomers;
	while (extra) {
		const uint32_t next = book->extras[extra].next;

		add_cell(&book->extras[extra].cell, -book->extras[extra].cell.items,
			 -book->extras[extra].cell.bytes, -book->extras[extra].cell.requests);
		put32(&book->extras[extra].next, book->free_extra);
		book->free_extra = extra;
		extra = next;
	}
	begin(row);
	__atomic_store_n(&row->name, NULL, __ATOMIC_RELEASE);
	put32(&row->extra, 0);
	add_cell(&row->received, -row->received.items, -row->received.bytes,
		 -row->received.requests);
	add_cell(&row->accepted, -row->accepted.items, -row->accepted.bytes,
		 -row->accepted.requests);
	put(&row->adjusted, 0);
	put(&row->sampled_out, 0);
	put(&row->dropped, 0);
	end(row);
	row->sibling = book->free_row;
	book->free_row = index;
}

void sl_ledger_book_turn(struct sl_ledger_book *book)
{
	void *asked;

	if (!book)
		return;
	for (unsigned i = 0; i < GIVEN_A_TURN && (asked = sl_ring_pop(&book->asked)); i++) {
		const uint64_t words = (uint64_t)(uintptr_t)asked;
		const uint32_t index = (uint32_t)words;
		const struct sl_ledger_row *row = &book->rows[index];
		const bool still = row->stamp == (uint32_t)(words >> 32) &&
				   !row->in_flight.requests;

		assert(index >= SL_LEDGER_FIXED_ROWS && index < book->row_count);
		if (still)
			clear_row(book, index);
		// It never asks for more than this ring holds.
		if (!sl_ring_push(&book->given, (void *)(uintptr_t)((uint64_t)index << 1 | still)))
			abort();
	}
}
