#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/clock.h"
#include "routing/dead_letter.h"
#include "routing/spool/internal.h"
#include "tests/sim/delivery/sim.h"

// A plain model beside each spool's store; the linker lets the spool's calls pass here. What was
// appended comes out in this order, each first before the next one, as it was; what was synced
// comes out over any crash. Only what a limit drops may be passed over, and that is counted.

#define ENTRIES_MAX 20000
#define POOL_MAX    (ENTRIES_MAX * 8)

struct entry {
	uint64_t number, at; // segment and place in it: in the order of these
	uint64_t wall_ns;
	unsigned place; // whose items it has: of a dead letter, who has refused them
	uint32_t first, count;
	bool synced, gone, excused, out; // out: came out since the process began
};

struct model {
	struct sl_spool_store *store;
	struct entry *entries;
	uint32_t count, passed;
	uint64_t dropped, dropped_before;   // items, by the model; by the store's figures
	uint32_t by_slot[SL_SPOOL_OUT_MAX]; // entry and one; 0: not in the model
};

static struct {
	struct sl_sim_spool_limits limits;
	struct model models[SL_SIM_PLACES];
	uint32_t *pool;
	uint32_t pool_count;
	uint64_t out;
} all;

static struct model *model_of(const struct sl_spool_store *store)
{
	return &all.models[store->folder[strlen(store->folder) - 1] - 'a'];
}

static unsigned place_of(const struct model *model)
{
	return (unsigned)(model - all.models);
}

static struct sl_spool_limits limits_of(void)
{
	return (struct sl_spool_limits){.bytes_max = all.limits.bytes_max,
					.segment_bytes = all.limits.segment_bytes,
					.age_max_ns = all.limits.age_max_ns,
					.drop_oldest = all.limits.drops};
}

static uint64_t dropped_items(const struct model *model)
{
	const struct sl_spool_figures *figures = sl_spool_store_figures(model->store);
	uint64_t items = model->dropped_before;

	for (unsigned i = 0; i < SL_SIGNALS; i++)
		items += figures->dropped_items[i];
	return items;
}

// --- the store's door ----------------------------------------------------------------------------

struct sl_spool_store *__real_sl_spool_store_open(const char *folder,
						  const struct sl_spool_limits *limits, int *error);
struct sl_spool_store *__wrap_sl_spool_store_open(const char *folder,
						  const struct sl_spool_limits *limits, int *error)
{
	const struct sl_spool_limits ours = limits_of();
	struct sl_spool_store *store = __real_sl_spool_store_open(folder, &ours, error);

	(void)limits;
	if (store)
		model_of(store)->store = store;
	return store;
}

void __real_sl_spool_store_close(struct sl_spool_store *store);
void __wrap_sl_spool_store_close(struct sl_spool_store *store)
{
	if (store) {
		struct model *model = model_of(store);

		if (model->store == store) // not dead before
			model->dropped_before = dropped_items(model);
		model->store = NULL;
	}
	__real_sl_spool_store_close(store);
}

void __real_sl_spool_store_limit(struct sl_spool_store *store,
				 const struct sl_spool_limits *limits);
void __wrap_sl_spool_store_limit(struct sl_spool_store *store, const struct sl_spool_limits *limits)
{
	const struct sl_spool_limits ours = limits_of();

	(void)limits;
	__real_sl_spool_store_limit(store, &ours);
}

static void mark_synced(struct model *model, uint64_t number)
{
	for (uint32_t i = model->count; i > 0 && model->entries[i - 1].number >= number; i--)
		model->entries[i - 1].synced |= model->entries[i - 1].number == number;
}

int __real_sl_spool_store_sync(struct sl_spool_store *store);
int __wrap_sl_spool_store_sync(struct sl_spool_store *store)
{
	const uint64_t number = store->active ? store->active->number : 0;
	const int failed = __real_sl_spool_store_sync(store);

	if (model_of(store)->store && !failed && number)
		mark_synced(model_of(store), number);
	return failed;
}

static void excuse(struct entry *entry)
{
	entry->excused = true;
	for (uint32_t i = 0; i < entry->count; i++)
		sl_sim_excuse(entry->place, all.pool[entry->first + i]);
}

static bool is_old(const struct entry *entry)
{
	return all.limits.age_max_ns && sl_clock_wall_ns() > entry->wall_ns + all.limits.age_max_ns;
}

// An entry that will not come out any more: only where a limit has dropped it, and counted so.
static void pass_over(struct model *model, struct entry *entry, uint64_t oldest)
{
	if (entry->out || entry->gone || entry->excused)
		return;
	if ((entry->number >= oldest && !is_old(entry)) ||
	    !(all.limits.drops || all.limits.age_max_ns))
		sl_sim_broken("the spool of %u passes over %u items at %llx.%llx", place_of(model),
			      entry->count, (unsigned long long)entry->number,
			      (unsigned long long)entry->at);
	model->dropped += entry->count;
	excuse(entry);
	if (sl_sim_tells())
		printf("the spool of %u dropped %u items at %llx.%llx\n", place_of(model),
		       entry->count, (unsigned long long)entry->number,
		       (unsigned long long)entry->at);
	if (model->dropped > dropped_items(model))
		sl_sim_broken("the spool of %u dropped %llu items and counted %llu",
			      place_of(model), (unsigned long long)model->dropped,
			      (unsigned long long)dropped_items(model));
}

// After a restart numbers may be used again, of segments that nothing can come from any more.
static void forget_later(struct model *model, uint64_t number, uint64_t at)
{
	while (model->count) {
		struct entry *entry = &model->entries[model->count - 1];

		if (entry->number < number || (entry->number == number && entry->at < at))
			return;
		entry->out = false;
		pass_over(model, entry, UINT64_MAX);
		model->count--;
		model->passed = SL_MIN(model->passed, model->count);
	}
}

static unsigned place_of_write(const struct model *model, const struct sl_spool_write *write)
{
	const struct sl_bytes body = write->front.size ? write->front
						       : sl_bytes(write->pieces->iov_base,
								  write->pieces->iov_len);
	struct sl_bytes values[SL_DEAD_LETTER_HEADERS];

	if (write->entry.letter != (place_of(model) == SL_SIM_PLACES - 1))
		sl_sim_broken("the spool of %u has what is not its own", place_of(model));
	if (!write->entry.letter)
		return place_of(model);
	if (!sl_dead_letter_read(body, values))
		sl_sim_broken("a letter without its headers");
	return (unsigned)values[3].data[0] - 'a';
}

int __real_sl_spool_store_append(struct sl_spool_store *store, const struct sl_spool_write *writes,
				 uint32_t count, bool sync);
int __wrap_sl_spool_store_append(struct sl_spool_store *store, const struct sl_spool_write *writes,
				 uint32_t count, bool sync)
{
	struct model *model = model_of(store);
	const int failed = __real_sl_spool_store_append(store, writes, count, sync);
	uint64_t at;

	if (failed || !model->store)
		return failed;
	at = store->active->bytes;
	for (uint32_t i = 0; i < count; i++)
		at -= sl_spool_entry_bytes(&writes[i].entry);
	forget_later(model, store->active->number, at);
	for (uint32_t i = 0; i < count; i++) {
		struct entry *entry = &model->entries[model->count++];

		assert(model->count < ENTRIES_MAX);
		assert(all.pool_count + SL_SIM_UIDS_MAX < POOL_MAX);
		*entry = (struct entry){.number = store->active->number,
					.at = at,
					.wall_ns = writes[i].entry.wall_ns,
					.place = place_of_write(model, &writes[i]),
					.first = all.pool_count};
		entry->count = sl_sim_uids(writes[i].pieces, writes[i].piece_count,
					   all.pool + all.pool_count);
		if (entry->count != writes[i].entry.items)
			sl_sim_broken("an entry of %u items says %u", entry->count,
				      writes[i].entry.items);
		all.pool_count += entry->count;
		at += sl_spool_entry_bytes(&writes[i].entry);
	}
	if (sync)
		mark_synced(model, store->active->number);
	return 0;
}

static struct entry *find(struct model *model, uint64_t number, uint64_t at)
{
	uint32_t low = 0, high = model->count;

	while (low < high) {
		const uint32_t middle = (low + high) / 2;
		const struct entry *entry = &model->entries[middle];

		if (entry->number < number || (entry->number == number && entry->at < at))
			low = middle + 1;
		else
			high = middle;
	}
	if (low == model->count || model->entries[low].number != number ||
	    model->entries[low].at != at)
		return NULL;
	return &model->entries[low];
}

static void check_order(struct model *model, struct entry *entry)
{
	const uint32_t index = (uint32_t)(entry - model->entries);
	const uint64_t oldest = model->store->segments->number;

	if (index < model->passed)
		sl_sim_broken("the spool of %u is out of order at %llx.%llx", place_of(model),
			      (unsigned long long)entry->number, (unsigned long long)entry->at);
	for (; model->passed < index; model->passed++)
		pass_over(model, &model->entries[model->passed], oldest);
	model->passed = index + 1;
	entry->out = true;
}

static bool is_same(const struct entry *entry, const struct sl_spool_read *read)
{
	static uint32_t uids[SL_SIM_UIDS_MAX];
	const struct iovec piece = {(void *)(uintptr_t)read->body.data, read->body.size};

	return sl_sim_uids(&piece, 1, uids) == entry->count &&
	       memcmp(uids, all.pool + entry->first, entry->count * sizeof(*uids)) == 0;
}

struct sl_spool_read *__real_sl_spool_store_next(struct sl_spool_store *store, bool new_first);
struct sl_spool_read *__wrap_sl_spool_store_next(struct sl_spool_store *store, bool new_first)
{
	struct model *model = model_of(store);
	struct sl_spool_read *read = __real_sl_spool_store_next(store, new_first);
	const struct sl_spool_slot *slot = read ? &store->slots[read->slot] : NULL;
	struct entry *entry;

	if (!read || !model->store)
		return read;
	all.out++;
	if (sl_sim_tells())
		printf("the spool of %u gives %u items at %llx.%llx, oldest %llx\n",
		       place_of(model), read->entry.items,
		       (unsigned long long)slot->segment->number, (unsigned long long)slot->at,
		       (unsigned long long)store->segments->number);
	entry = find(model, slot->segment->number, slot->at);
	// One of an append that failed, and could not be taken back, may come out besides; or in
	// the place of one that is gone, when the segment's number is used again.
	if (entry && !is_same(entry, read)) {
		if (!entry->gone && !entry->excused)
			sl_sim_broken("the spool of %u gives back something else", place_of(model));
		entry = NULL;
	}
	model->by_slot[read->slot] = entry ? (uint32_t)(entry - model->entries) + 1 : 0;
	if (!entry)
		return read;
	if (!entry->out)
		check_order(model, entry);
	return read;
}

void __real_sl_spool_store_end(struct sl_spool_store *store, uint32_t slot, bool gone);
void __wrap_sl_spool_store_end(struct sl_spool_store *store, uint32_t slot, bool gone)
{
	struct model *model = model_of(store);
	struct entry *entry = NULL;
	const bool dropped = !gone && !store->slots[slot].segment;

	if (model->store && model->by_slot[slot])
		entry = &model->entries[model->by_slot[slot] - 1];
	if (entry)
		entry->gone |= gone; // at once: the process may die in there
	__real_sl_spool_store_end(store, slot, gone);
	if (!entry || !dropped || !model->store)
		return;
	entry->out = false;
	pass_over(model, entry, UINT64_MAX);
}

// --- a run ---------------------------------------------------------------------------------------

// What a limit dropped while it was out is neither counted nor kept when the process dies.
static void excuse_dropped(struct model *model)
{
	for (uint32_t i = 0; i < SL_SPOOL_OUT_MAX; i++) {
		const struct sl_spool_slot *slot = &model->store->slots[i];

		if (slot->state == SL_SPOOL_OUT && !slot->segment && model->by_slot[i])
			excuse(&model->entries[model->by_slot[i] - 1]);
	}
}

void sl_sim_spools_restart(bool power)
{
	for (unsigned i = 0; i < SL_SIM_PLACES; i++) {
		struct model *model = &all.models[i];

		if (model->store) {
			excuse_dropped(model);
			model->dropped_before = dropped_items(model);
		}
		model->store = NULL;
		model->passed = 0;
		memset(model->by_slot, 0, sizeof(model->by_slot));
		for (uint32_t j = 0; j < model->count; j++) {
			struct entry *entry = &model->entries[j];

			entry->out = false;
			if (power && !entry->synced && !entry->gone && !entry->excused)
				excuse(entry);
		}
	}
}

void sl_sim_spools_check_empty(void)
{
	for (unsigned i = 0; i < SL_SIM_PLACES; i++) {
		struct model *model = &all.models[i];

		for (uint32_t j = 0; model->store && j < model->count; j++) {
			struct entry *entry = &model->entries[j];

			entry->out = false;
			pass_over(model, entry, UINT64_MAX);
		}
	}
}

uint64_t sl_sim_spools_out(void)
{
	return all.out;
}

void sl_sim_spools_init(const struct sl_sim_spool_limits *limits)
{
	if (!all.pool)
		all.pool = malloc(POOL_MAX * sizeof(*all.pool));
	all.pool_count = 0;
	all.limits = *limits;
	for (unsigned i = 0; i < SL_SIM_PLACES; i++) {
		struct entry *entries = all.models[i].entries;

		if (!entries)
			entries = malloc(ENTRIES_MAX * sizeof(*entries));
		all.models[i] = (struct model){.entries = entries};
	}
}
