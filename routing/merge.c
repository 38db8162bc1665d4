#include <stdlib.h>

#include "dataplane/base/hash.h"
#include "routing/internal.h"

// Merging by concatenation: records of one tenant, signal and key wait for each other, until they
// are enough or the first has waited long enough. Two records whose keys fall on one bucket do not
// wait for each other: the earlier goes.
//
// Of a member's books and deadline nothing changes: only what the driver sees is one record.

#define BUCKETS 256

struct bucket {
	struct bucket *next, **link; // open ones, by the time they were opened
	struct sl_record *first, **last;
	uint64_t opened_ns, bytes;
	uint32_t count;
};

struct sl_merger {
	struct bucket *open, **open_last;
	struct bucket buckets[BUCKETS];
};

// In an arena of its own, which goes with it.
struct merged {
	struct sl_record record; // first
	struct sl_arena arena;
};

struct sl_merger *sl_merger_create(void)
{
	struct sl_merger *self = calloc(1, sizeof(*self));

	if (self)
		self->open_last = &self->open;
	return self;
}

void sl_merger_destroy(struct sl_merger *self)
{
	assert(!self || !self->open);
	free(self);
}

static sl_tenant_id tenant_of(const struct sl_record *record)
{
	return ((const struct sl_flow *)record->delivery)->tenant;
}

static bool same_key(const struct sl_record *a, const struct sl_record *b)
{
	return a->signal == b->signal && tenant_of(a) == tenant_of(b) && a->owner == b->owner &&
	       !a->key.data == !b->key.data && sl_bytes_equal(a->key, b->key);
}

// What other bodies may stand beside: nothing but field 1 at top level, strings that a strict
// receiver takes.
static bool mergeable(const struct sl_record *record)
{
	struct sl_request *request = record->delivery->part->request;

	if (!request->view.only_field_1)
		return false;
	if (request->text == SL_TEXT_UNKNOWN)
		request->text = sl_view_text_valid(&request->view) ? SL_TEXT_VALID
								   : SL_TEXT_INVALID;
	return request->text == SL_TEXT_VALID;
}

static struct sl_record *merge(struct sl_egress *egress, struct sl_record *members)
{
	struct sl_arena arena;
	struct merged *merged;
	struct sl_record *record;
	struct iovec *list;
	uint32_t pieces = 0;

	for (struct sl_record *member = members; member; member = member->next)
		pieces += member->piece_count;
	sl_arena_init(&arena, egress->shard->env.memory);
	merged = sl_arena_zalloc(&arena, sizeof(*merged));
	list = sl_arena_alloc(&arena, pieces * sizeof(struct iovec));
	if (!merged || !list) {
		sl_arena_fini(&arena);
		return NULL;
	}
	record = &merged->record;
	record->pieces = list;
	record->destination = egress;
	record->members = members;
	record->key = members->key;
	record->owner = members->owner;
	record->signal = members->signal;
	record->tenant_name = members->tenant_name;
	for (struct sl_record *member = members; member; member = member->next) {
		memcpy(record->pieces + record->piece_count, member->pieces,
		       member->piece_count * sizeof(struct iovec));
		record->piece_count += member->piece_count;
		record->items += member->items;
		record->bytes += member->bytes;
	}
	merged->arena = arena;
	record->arena = &merged->arena;
	return record;
}

struct sl_record *sl_merged_open(struct sl_record *record)
{
	struct sl_record *members = record->members;
	struct sl_arena arena = ((struct merged *)record)->arena;

	sl_arena_fini(&arena);
	return members;
}

static void send_alone(struct sl_egress *egress, struct sl_record *record)
{
	struct sl_record *next;

	for (; record; record = next) {
		next = record->next;
		record->next = NULL;
		sl_egress_offer(egress, record);
	}
}

static void close_bucket(struct sl_egress *egress, struct bucket *bucket)
{
	struct sl_merger *self = egress->merger;
	struct sl_record *together = NULL, **last = &together, *alone = NULL, *record;
	const bool single = bucket->count == 1; // it may be open anew before this is over
	uint32_t count = 0;

	*bucket->link = bucket->next;
	if (bucket->next)
		bucket->next->link = bucket->link;
	else
		self->open_last = bucket->link;
	record = bucket->first;
	bucket->first = NULL;
	for (struct sl_record *next; !single && record; record = next) {
		next = record->next;
		record->next = NULL;
		if (mergeable(record)) {
			*last = record;
			last = &record->next;
			count++;
		} else {
			record->next = alone;
			alone = record;
		}
	}
	send_alone(egress, alone);
	record = count > 1 ? merge(egress, together) : record;
	if (!record) { // one at most, or no memory to merge in
		send_alone(egress, together);
		return;
	}
	if (record->members)
		sl_count(&egress->meter->counters.merged_records[0], 1);
	sl_egress_offer(egress, record);
}

static uint64_t bytes_max(const struct sl_egress *egress)
{
	const struct sl_destination *destination = egress->destination;

	return destination->record_bytes_max
		       ? SL_MIN(destination->merge.bytes, destination->record_bytes_max)
		       : destination->merge.bytes;
}

static void open_bucket(struct sl_egress *egress, struct bucket *bucket)
{
	struct sl_merger *self = egress->merger;

	*bucket = (struct bucket){.link = self->open_last,
				  .last = &bucket->first,
				  .opened_ns = egress->shard->now_ns};
	*self->open_last = bucket;
	self->open_last = &bucket->next;
}

bool sl_merger_take(struct sl_egress *egress, struct sl_record *record)
{
	const uint64_t most = bytes_max(egress);
	const uint64_t hash = (record->key.size ? sl_hash(record->key) : 0) + record->owner * 31 +
			      tenant_of(record) * SL_SIGNALS + record->signal;
	struct bucket *bucket = &egress->merger->buckets[hash % BUCKETS];

	if (record->bytes >= most)
		return false;
	// What is sent may come back at once, as its keys have other owners: into this very bucket.
	while (bucket->first &&
	       (!same_key(bucket->first, record) || bucket->bytes + record->bytes > most))
		close_bucket(egress, bucket);
	if (!bucket->first)
		open_bucket(egress, bucket);
	*bucket->last = record;
	bucket->last = &record->next;
	bucket->bytes += record->bytes;
	if (++bucket->count >= egress->destination->merge.requests)
		close_bucket(egress, bucket);
	return true;
}

uint64_t sl_merger_run(struct sl_egress *egress)
{
	const struct sl_merger *self = egress->merger;
	const uint64_t delay_ns = egress->destination->merge.delay_ns;

	while (self->open && egress->shard->now_ns >= self->open->opened_ns + delay_ns)
		close_bucket(egress, self->open);
	return self->open ? self->open->opened_ns + delay_ns : UINT64_MAX;
}
