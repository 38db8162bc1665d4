#include "tenants/cardinality/distinct.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "dataplane/base/hash.h"

#define TAG_BITS   16
#define TAG_MASK   UINT64_C(0xffff)
#define READ_MAX   10000 // a reader's patience with the flag
#define SLOTS_MIN  64
#define PAGE_BYTES 4096

// Two thirds full at most: a value that is not there is told by three looks or so.
static uint64_t slots_for(uint64_t limit)
{
	uint64_t slots = SLOTS_MIN;

	while (slots < limit + limit / 2)
		slots *= 2;
	return slots;
}

size_t sl_distinct_bytes(uint64_t limit)
{
	const size_t bytes = slots_for(limit) * sizeof(uint64_t) +
			     SL_HLL_BYTES(SL_DISTINCT_HLL_BITS) + sizeof(struct sl_distinct_notes);

	return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

// --- memory --------------------------------------------------------------------------------------

struct sl_distinct_memory {
	uint8_t *memory;
	size_t bytes;
	uint32_t references;
};

static struct sl_distinct_memory *take_memory(size_t bytes)
{
	struct sl_distinct_memory *memory = malloc(sizeof(*memory));

	if (!memory)
		return NULL;
	*memory = (struct sl_distinct_memory){.bytes = bytes, .references = 1};
	memory->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory->memory != MAP_FAILED)
		return memory;
	free(memory);
	return NULL;
}

static void put_memory(struct sl_distinct_memory *memory)
{
	if (!memory || --memory->references)
		return;
	munmap(memory->memory, memory->bytes);
	free(memory);
}

void sl_distinct_block_end(struct sl_distinct_block *block)
{
	put_memory(block->memory);
	block->memory = NULL;
}

// --- making --------------------------------------------------------------------------------------

struct sl_distinct *sl_distinct_create(uint64_t limit, uint64_t window_ns)
{
	struct sl_distinct_block alone = {.most = 1};
	struct sl_distinct *distinct = sl_distinct_create_in(&alone, limit, window_ns);

	sl_distinct_block_end(&alone);
	return distinct;
}

struct sl_distinct *sl_distinct_create_in(struct sl_distinct_block *block, uint64_t limit,
					  uint64_t window_ns)
{
	struct sl_distinct *distinct = calloc(1, sizeof(*distinct));
	uint8_t *memory;

	assert(limit > 0 && limit <= SL_DISTINCT_LIMIT_MAX && window_ns);
	assert(block->used < block->most);
	if (!distinct)
		return NULL;
	distinct->memory_bytes = sl_distinct_bytes(limit);
	if (!block->memory)
		block->memory = take_memory(distinct->memory_bytes * block->most);
	if (!block->memory) {
		free(distinct);
		return NULL;
	}
	memory = block->memory->memory + block->used++ * distinct->memory_bytes;
	distinct->memory = block->memory;
	distinct->memory->references++;
	distinct->limit = limit;
	distinct->window_ns = window_ns;
	distinct->per_ns_q64 = UINT64_MAX / window_ns;
	distinct->mask = slots_for(limit) - 1;
	distinct->slots = (uint64_t *)(void *)memory;
	distinct->registers = memory + (distinct->mask + 1) * sizeof(uint64_t);
	distinct->notes = (struct sl_distinct_notes *)(void *)(distinct->registers +
							       SL_HLL_BYTES(SL_DISTINCT_HLL_BITS));
	distinct->references = 1;
	return distinct;
}

void sl_distinct_put(struct sl_distinct *distinct)
{
	if (!distinct || --distinct->references)
		return;
	put_memory(distinct->memory);
	free(distinct);
}

void sl_distinct_reset(struct sl_distinct *distinct)
{
	// Pages that are none read as zeroes.
	if (madvise(distinct->slots, distinct->memory_bytes, MADV_DONTNEED))
		memset(distinct->slots, 0, distinct->memory_bytes);
	__atomic_store_n(&distinct->told, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&distinct->cut, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&distinct->state, 0, __ATOMIC_RELAXED);
}

static bool is_newer(uint32_t window, uint64_t state)
{
	return (int32_t)(window - (uint32_t)(state >> 32)) > 0;
}

// The window of the state, after a new one has begun where it was time.
static uint32_t enter(struct sl_distinct *distinct, uint32_t window)
{
	uint64_t state = __atomic_load_n(&distinct->state, __ATOMIC_RELAXED);

	if (SL_LIKELY(!is_newer(window, state)))
		return (uint32_t)(state >> 32);
	while (is_newer(window, state))
		if (__atomic_compare_exchange_n(&distinct->state, &state, (uint64_t)window << 32,
						false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
			// Others may add meanwhile, to an estimate.
			for (size_t i = 0; i < SL_HLL_BYTES(SL_DISTINCT_HLL_BITS); i++)
				__atomic_store_n(&distinct->registers[i], 0, __ATOMIC_RELAXED);
			return window;
		}
	return (uint32_t)(state >> 32);
}

enum place { PLACE_TAKEN, PLACE_NONE, PLACE_LATE };

// A place among the window's values; LATE: another window has begun.
static enum place take_place(struct sl_distinct *distinct, uint32_t window)
{
	uint64_t state = __atomic_load_n(&distinct->state, __ATOMIC_RELAXED);

	do {
		if ((uint32_t)(state >> 32) != window)
			return PLACE_LATE;
		if ((uint32_t)state >= distinct->limit)
			return PLACE_NONE;
	} while (!__atomic_compare_exchange_n(&distinct->state, &state, state + 1, true,
					      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	return PLACE_TAKEN;
}

static void give_place(struct sl_distinct *distinct, uint32_t window)
{
	uint64_t state = __atomic_load_n(&distinct->state, __ATOMIC_RELAXED);

	while ((uint32_t)(state >> 32) == window &&
	       !__atomic_compare_exchange_n(&distinct->state, &state, state - 1, true,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

enum sl_seen sl_distinct_see(struct sl_distinct *distinct, uint64_t hash, uint32_t window)
{
	const uint32_t now = enter(distinct, window);
	const uint64_t tag = 1 + now % TAG_MASK, word = (hash & ~TAG_MASK) | tag;
	uint64_t at = (hash >> TAG_BITS) & distinct->mask, looked = 0;
	bool placed = false;

	while (looked <= distinct->mask) {
		uint64_t *slot = &distinct->slots[at];
		uint64_t there = __atomic_load_n(slot, __ATOMIC_RELAXED);

		if (there == word) {
			if (placed)
				give_place(distinct, now);
			return SL_SEEN_KNOWN;
		}
		if ((there & TAG_MASK) == tag) {
			at = (at + 1) & distinct->mask;
			looked++;
			continue;
		}
		if (!placed) {
			const enum place place = take_place(distinct, now);

			if (place == PLACE_LATE) // at most once a window
				return sl_distinct_see(distinct, hash, window);
			if (place == PLACE_NONE)
				break;
			placed = true;
		}
		if (__atomic_compare_exchange_n(slot, &there, word, false, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED))
			return SL_SEEN_NEW;
	}
	if (placed)
		give_place(distinct, now);
	sl_hll_add(distinct->registers, SL_DISTINCT_HLL_BITS, hash);
	return SL_SEEN_OVER;
}

// --- notes ---------------------------------------------------------------------------------------

static void copy_text(struct sl_distinct_text *to, struct sl_bytes text)
{
	to->bytes = (uint8_t)SL_MIN(text.size, SL_DISTINCT_TEXT_MAX);
	if (to->bytes)
		memcpy(to->text, text.data, to->bytes);
}

// The name's entry; in place of the lightest when there is none.
static struct sl_distinct_name *find_name(struct sl_distinct_notes *notes, struct sl_bytes name)
{
	const uint64_t hash = sl_hash(name);
	struct sl_distinct_name *lightest = &notes->names[0];

	for (uint32_t i = 0; i < notes->name_count; i++) {
		if (notes->names[i].hash == hash)
			return &notes->names[i];
		if (notes->names[i].count < lightest->count)
			lightest = &notes->names[i];
	}
	if (notes->name_count < SL_DISTINCT_NAMES)
		lightest = &notes->names[notes->name_count++];
	memset(lightest->registers, 0, sizeof(lightest->registers));
	lightest->hash = hash; // its count is inherited: it is at most as heavy as that
	copy_text(&lightest->name, name);
	return lightest;
}

// One that comes again and again is in the list once, as it is told (by its beginning), and as the
// newest: those that came after it move up.
static void note_value(struct sl_distinct_notes *notes, struct sl_bytes value)
{
	const uint32_t count = SL_MIN(notes->sample_count, SL_DISTINCT_SAMPLES);
	const struct sl_bytes told = sl_bytes(value.data, SL_MIN(value.size, SL_DISTINCT_TEXT_MAX));
	struct sl_distinct_text *samples = notes->samples;
	uint32_t at = notes->sample_count - count;

	while (at < notes->sample_count &&
	       !sl_bytes_equal(sl_bytes(samples[at % SL_DISTINCT_SAMPLES].text,
					samples[at % SL_DISTINCT_SAMPLES].bytes),
			       told))
		at++;
	if (at == notes->sample_count)
		notes->sample_count++;
	for (; at + 1 < notes->sample_count; at++)
		samples[at % SL_DISTINCT_SAMPLES] = samples[(at + 1) % SL_DISTINCT_SAMPLES];
	copy_text(&samples[at % SL_DISTINCT_SAMPLES], told);
}

void sl_distinct_note(struct sl_distinct *distinct, uint32_t window, uint64_t hash,
		      struct sl_bytes name, struct sl_bytes value)
{
	struct sl_distinct_notes *notes = distinct->notes;

	if (__atomic_exchange_n(&distinct->busy, 1, __ATOMIC_ACQUIRE))
		return;
	if ((int32_t)(window - notes->window) > 0) {
		memset(notes, 0, sizeof(*notes));
		notes->window = window;
	}
	if (name.data) {
		struct sl_distinct_name *of = find_name(notes, name);

		of->count += sl_hll_add(of->registers, SL_DISTINCT_NAME_BITS, hash);
	}
	if (value.data)
		note_value(notes, value);
	__atomic_store_n(&distinct->busy, 0, __ATOMIC_RELEASE);
}

bool sl_distinct_tell(struct sl_distinct *distinct, uint32_t window)
{
	return __atomic_load_n(&distinct->told, __ATOMIC_RELAXED) != window + 1 &&
	       __atomic_exchange_n(&distinct->told, window + 1, __ATOMIC_RELAXED) != window + 1;
}

struct sl_distinct_count sl_distinct_count(const struct sl_distinct *distinct)
{
	const uint64_t state = __atomic_load_n(&distinct->state, __ATOMIC_RELAXED);
	const double over = sl_hll_estimate(distinct->registers, SL_DISTINCT_HLL_BITS);

	return (struct sl_distinct_count){
		.window = (uint32_t)(state >> 32),
		.admitted = (uint32_t)state,
		.all = (double)(uint32_t)state + over,
	};
}

bool sl_distinct_notes(struct sl_distinct *distinct, struct sl_distinct_notes *notes)
{
	for (unsigned i = 0; __atomic_exchange_n(&distinct->busy, 1, __ATOMIC_ACQUIRE); i++) {
		if (i == READ_MAX)
			return false;
		sched_yield();
	}
	*notes = *distinct->notes;
	__atomic_store_n(&distinct->busy, 0, __ATOMIC_RELEASE);
	return true;
}
