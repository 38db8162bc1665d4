#include "tenants/shard.h"

#include "dataplane/base/varint.h"

// A request's parts: one for each tenant that its resources name, or the one that its headers did.

#define KEYS_MAX (SL_IDENTITY_CLAIMS_MAX * SL_IDENTITY_ATTRIBUTES_MAX)

// The attributes that count, those of the first claim first.
struct keys {
	uint32_t count;
	struct sl_bytes keys[KEYS_MAX];
};

static void add_keys(struct keys *keys, const struct sl_identity_claim_rule *rule)
{
	for (uint32_t i = 0; i < rule->attribute_count; i++)
		keys->keys[keys->count++] = sl_bytes_of(rule->attributes[i]);
}

static uint32_t find_key(const struct keys *keys, struct sl_bytes key)
{
	uint32_t i = 0;

	while (i < keys->count && !sl_bytes_equal(keys->keys[i], key))
		i++;
	return i;
}

// --- claims that do not count --------------------------------------------------------------------

static uint8_t *put_field(uint8_t *at, uint8_t tag, struct sl_bytes value)
{
	*at++ = tag;
	at += sl_varint_put(at, value.size);
	memcpy(at, value.data, value.size);
	return at + value.size;
}

// `attributes` of a Resource: a KeyValue of that key and string (opentelemetry/proto/common/v1).
static struct sl_bytes make_pair(struct sl_arena *arena, struct sl_bytes key, struct sl_bytes name)
{
	uint8_t value[4 + SL_TENANT_NAME_MAX];
	uint8_t pair[8 + SL_IDENTITY_KEY_BYTES_MAX + sizeof(value)];
	uint8_t *at = pair, *made = sl_arena_alloc(arena, sizeof(pair) + 4);
	size_t size;

	assert(name.size <= SL_TENANT_NAME_MAX && key.size <= SL_IDENTITY_KEY_BYTES_MAX);
	if (!made)
		return SL_BYTES_NONE;
	size = (size_t)(put_field(value, 1 << 3 | 2, name) - value);
	at = put_field(at, 1 << 3 | 2, key);
	at = put_field(at, 2 << 3 | 2, sl_bytes(value, size));
	size = (size_t)(put_field(made, 1 << 3 | 2, sl_bytes(pair, (size_t)(at - pair))) - made);
	return sl_bytes(made, size);
}

struct rewrite {
	struct sl_part *part;
	const struct keys *keys;
	bool strip;
	struct sl_bytes pairs[KEYS_MAX]; // the overwritten pairs, made when first needed
	uint32_t about_at;               // the Resource at work, and how much longer it becomes
	struct sl_wire_field about;
	int64_t grown;
};

static bool add_edit(struct rewrite *rewrite, uint32_t at, uint32_t cut, struct sl_bytes put)
{
	struct sl_part *part = rewrite->part;

	return sl_edits_add(&part->edits, &part->request->arena, at, cut, put) == 0;
}

// The Resource has a length of its own, which the splicer does not know.
static bool end_resource(struct rewrite *rewrite)
{
	const struct sl_wire_field *about = &rewrite->about;
	const uint64_t size = (uint64_t)((int64_t)about->data.size + rewrite->grown);
	uint8_t *head;
	unsigned bytes;

	if (!rewrite->grown)
		return true;
	rewrite->grown = 0;
	head = sl_arena_alloc(&rewrite->part->request->arena, 1 + SL_VARINT_BYTES_MAX);
	if (!head)
		return false;
	head[0] = 1 << 3 | 2;
	bytes = 1 + sl_varint_put(head + 1, size);
	return add_edit(rewrite, rewrite->about_at, about->bytes - (uint32_t)about->data.size,
			sl_bytes(head, bytes));
}

static bool rewrite_resource(struct rewrite *rewrite, uint32_t resource)
{
	const struct sl_part *part = rewrite->part;
	const struct sl_view *view = &part->request->view;
	struct sl_attributes walk = sl_view_attributes(view, resource);
	struct sl_bytes key;
	struct sl_any any;

	while (sl_attributes_next(&walk, &key, &any)) {
		const uint32_t which = find_key(rewrite->keys, key);
		struct sl_bytes put = SL_BYTES_NONE;
		uint32_t about_at;

		if (which == rewrite->keys->count)
			continue;
		if (!rewrite->strip && any.type == SL_ANY_STRING &&
		    sl_bytes_equal(any.text, part->tenant_name))
			continue;
		if (!rewrite->strip && !rewrite->pairs[which].size)
			rewrite->pairs[which] = make_pair(&part->request->arena, key,
							  part->tenant_name);
		put = rewrite->pairs[which];
		if (!rewrite->strip && !put.size)
			return false;
		about_at = (uint32_t)(walk.payload.data - view->body.data) + walk.about.at;
		if (rewrite->grown && rewrite->about_at != about_at && !end_resource(rewrite))
			return false;
		rewrite->about_at = about_at;
		rewrite->about = walk.about;
		rewrite->grown += (int64_t)put.size - walk.pair.bytes;
		if (!add_edit(rewrite,
			      (uint32_t)(walk.about.data.data - view->body.data) + walk.pair.at,
			      walk.pair.bytes, put))
			return false;
	}
	return end_resource(rewrite);
}

// Every claim of every resource says what the tenant is, or nothing.
static enum sl_reason rewrite_claims(const struct sl_tenants *tenants, struct sl_part *part)
{
	const struct sl_view *view = &part->request->view;
	struct keys keys = {0};
	struct rewrite rewrite = {
		.part = part, .keys = &keys, .strip = tenants->claimed == SL_CLAIMED_STRIP};

	for (uint32_t i = 0; i < tenants->rules.claim_count; i++)
		add_keys(&keys, &tenants->rules.claims[i]);
	for (uint32_t i = 0; i < view->envelope_count; i++)
		if (view->envelopes[i].kind == SL_ENVELOPE_RESOURCE &&
		    !rewrite_resource(&rewrite, i))
			return SL_REASON_MEMORY_FULL;
	return SL_REASON_NONE;
}

// --- claims that count ---------------------------------------------------------------------------

// Who a resource belongs to.
struct owner {
	sl_tenant_id tenant; // SL_TENANT_NONE: nobody, for `reason`
	enum sl_reason reason;
	struct sl_bytes name; // in the body, of a tenant that has not been made yet; else empty
};

// Whoever names nobody.
static struct owner by_default(const struct sl_request *request)
{
	const struct sl_claimant *claimant = request->claimant;

	return (struct owner){
		claimant->otherwise,
		claimant->otherwise == SL_TENANT_NONE ? SL_REASON_NO_CREDENTIAL : SL_REASON_NONE,
		claimant->otherwise_name,
	};
}

// The first key that is set decides. A key that is set twice must say the same: what is behind us
// may read the other one.
static struct owner owner_of(const struct sl_tenants *tenants, const struct sl_request *request,
			     const struct keys *keys, uint32_t resource)
{
	struct sl_attributes walk = sl_view_attributes(&request->view, resource);
	uint32_t best = keys->count;
	bool valid = false;
	struct sl_bytes name = SL_BYTES_NONE, key;
	struct sl_any any;
	sl_tenant_id tenant;

	while (sl_attributes_next(&walk, &key, &any)) {
		const uint32_t which = find_key(keys, key);
		const bool again = which == best;

		if (which > best || which == keys->count)
			continue;
		valid = (!again || (valid && sl_bytes_equal(name, any.text))) &&
			any.type == SL_ANY_STRING && sl_tenant_name_valid(any.text);
		best = which;
		name = any.text;
	}
	if (best == keys->count)
		return by_default(request);
	tenant = valid ? sl_identity_of_name(tenants, name) : SL_TENANT_NONE;
	if (tenant == SL_TENANT_NONE)
		return (struct owner){SL_TENANT_NONE,
				      valid ? sl_identity_no_tenant(tenants)
					    : SL_REASON_UNKNOWN_TENANT,
				      SL_BYTES_NONE};
	if (!tenants->creates || tenant != tenants->created->newcomers)
		name = SL_BYTES_NONE;
	return (struct owner){tenant, SL_REASON_NONE, name};
}

// The parts as they are found.
struct split {
	struct sl_request *request;
	uint32_t count, last; // last: where the newest resource went
	struct owner owners[SL_PARTS_MAX];
	uint64_t bytes[SL_PARTS_MAX];
	uint32_t items[SL_PARTS_MAX];
};

static bool is_same(const struct owner *a, const struct owner *b)
{
	return a->tenant == b->tenant && a->reason == b->reason && sl_bytes_equal(a->name, b->name);
}

// Returns false when there are too many.
static bool find_part(struct split *split, struct owner owner)
{
	const struct owner *owners = split->owners;

	if (split->count && is_same(&owners[split->last], &owner))
		return true;
	for (split->last = 0; split->last < split->count; split->last++)
		if (is_same(&owners[split->last], &owner))
			return true;
	if (split->count == SL_PARTS_MAX)
		return false;
	split->owners[split->count++] = owner;
	return true;
}

static enum sl_reason find_parts(const struct sl_tenants *tenants, const struct keys *keys,
				 struct split *split, uint8_t *part_of)
{
	const struct sl_view *view = &split->request->view;

	for (uint32_t i = 0; i < view->envelope_count; i++) {
		const struct sl_envelope *envelope = &view->envelopes[i];

		// What holds no items concerns nobody, unless there are none at all.
		if (envelope->kind != SL_ENVELOPE_RESOURCE ||
		    (!envelope->item_count && view->item_count))
			continue;
		if (!find_part(split, owner_of(tenants, split->request, keys, i)))
			return SL_REASON_TOO_MANY_TENANTS;
		part_of[i] = (uint8_t)split->last;
		split->bytes[split->last] += envelope->bytes;
		split->items[split->last] += envelope->item_count;
	}
	if (!split->count) {
		find_part(split, by_default(split->request));
	}
	return SL_REASON_NONE;
}

static void set_bits(uint64_t *bits, uint32_t first, uint32_t count)
{
	while (count) {
		const uint32_t low = first % 64, some = SL_MIN(64 - low, count);

		bits[first / 64] |= (some == 64 ? UINT64_MAX : (UINT64_C(1) << some) - 1) << low;
		first += some;
		count -= some;
	}
}

// Several parts: each keeps its own items only.
static bool share_items(struct split *split, const uint8_t *part_of)
{
	struct sl_request *request = split->request;
	const struct sl_view *view = &request->view;
	const size_t words = SL_KEEP_WORDS(view->item_count);

	for (uint32_t i = 0; i < split->count; i++) {
		request->parts[i].keep = sl_arena_zalloc(&request->arena, words * sizeof(uint64_t));
		if (!request->parts[i].keep)
			return false;
	}
	for (uint32_t i = 0; i < view->envelope_count; i++) {
		const struct sl_envelope *envelope = &view->envelopes[i];

		if (envelope->kind == SL_ENVELOPE_RESOURCE && envelope->item_count)
			set_bits(request->parts[part_of[i]].keep, envelope->first_item,
				 envelope->item_count);
	}
	return true;
}

static const char *class_name(const struct sl_tenants *tenants, sl_tenant_id tenant)
{
	const uint16_t index = tenant < tenants->entry_count ? tenants->entries[tenant].class_index
							     : UINT16_MAX;

	return index == UINT16_MAX ? "" : tenants->classes[index].name;
}

// What is known of a part before any quota.
static void judge_part(struct sl_tenants_shard *self, struct sl_part *part)
{
	struct sl_tenant_info info;

	if (!sl_tenants_info(self->tenants, part->tenant, &info)) {
		part->reason = SL_REASON_UNKNOWN_TENANT; // gone since the head came
		return;
	}
	if (!part->tenant_name.size)
		part->tenant_name = info.name;
	part->class_name = class_name(self->tenants, part->tenant);
	if (info.suspended)
		part->reason = SL_REASON_SUSPENDED;
	else if (info.body_bytes_max && part->offered_bytes > info.body_bytes_max)
		part->reason = SL_REASON_BODY_TOO_LARGE;
	else
		part->reason = sl_tenants_take_in_flight(self, part->tenant, part->offered_bytes,
							 &part->retry_after_ns);
	part->in_flight = part->reason == SL_REASON_NONE;
}

static enum sl_reason split_request(struct sl_tenants_shard *self, struct sl_request *request)
{
	const struct sl_identity_rules *rules = &self->tenants->rules;
	const struct sl_claimant *claimant = request->claimant;
	struct split split = {.request = request};
	struct keys keys = {0};
	uint8_t *part_of = sl_arena_alloc(&request->arena, request->view.envelope_count + 1);
	enum sl_reason reason;

	if (!part_of)
		return SL_REASON_MEMORY_FULL;
	for (uint32_t i = 0; i < rules->claim_count; i++)
		if (sl_identity_trusts(&rules->claims[i], &claimant->peer, claimant->certified))
			add_keys(&keys, &rules->claims[i]);
	reason = find_parts(self->tenants, &keys, &split, part_of);
	if (reason != SL_REASON_NONE)
		return reason;
	request->parts = &request->first_part;
	if (split.count > 1)
		request->parts = sl_arena_alloc(&request->arena,
						split.count * sizeof(*request->parts));
	if (!request->parts)
		return SL_REASON_MEMORY_FULL;
	for (uint32_t i = 0; i < split.count; i++)
		request->parts[i] = (struct sl_part){
			.request = request,
			.index = (uint16_t)i,
			.tenant = split.owners[i].tenant,
			.tenant_name = split.owners[i].name,
			.reason = split.owners[i].reason,
			.offered_items = split.items[i],
			.kept_items = split.items[i],
			.offered_bytes = split.count > 1 ? split.bytes[i] : request->view.body.size,
		};
	if (split.count > 1 && !share_items(&split, part_of))
		return SL_REASON_MEMORY_FULL;
	request->part_count = (uint16_t)split.count;
	for (uint32_t i = 0; i < split.count; i++)
		if (request->parts[i].reason == SL_REASON_NONE)
			judge_part(self, &request->parts[i]);
	return SL_REASON_NONE;
}

enum sl_reason sl_tenants_make_parts(struct sl_tenants_shard *self, struct sl_request *request)
{
	const struct sl_tenants *tenants = self->tenants;

	if (SL_UNLIKELY(request->claimant != NULL))
		return split_request(self, request);
	request->parts = &request->first_part;
	request->part_count = 1;
	request->first_part = (struct sl_part){
		.request = request,
		.tenant = request->tenant,
		.tenant_name = request->tenant_name,
		.class_name = class_name(tenants, request->tenant),
		.offered_items = request->view.item_count,
		.kept_items = request->view.item_count,
		.offered_bytes = request->view.body.size,
	};
	if (SL_LIKELY(!tenants->rules.attribute_count) || tenants->claimed == SL_CLAIMED_KEEP)
		return SL_REASON_NONE;
	return rewrite_claims(tenants, &request->first_part);
}

void sl_tenants_end_parts(struct sl_tenants_shard *self, struct sl_request *request)
{
	for (uint16_t i = 0; i < request->part_count; i++) {
		struct sl_part *part = &request->parts[i];

		if (!part->in_flight)
			continue;
		part->in_flight = false;
		sl_tenants_give_in_flight(self, part->tenant, part->offered_bytes);
	}
}

bool sl_tenants_partial(const struct sl_tenants *tenants)
{
	return tenants->partial;
}
