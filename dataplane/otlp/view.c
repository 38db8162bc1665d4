#include "dataplane/otlp/view.h"

#include "dataplane/otlp/scan.h"

// One message with children, while it is being scanned.
struct level {
	uint32_t envelope; // index, or SL_TOP
	uint32_t children_at, children_end;
	bool has_children, dense;
};

static uint32_t offset_of(const struct sl_scan *scan, const uint8_t *at)
{
	return (uint32_t)(at - scan->body);
}

// A larger array in the arena; the old one stays behind until the request ends. How many there will
// be is told by the body so far: `done` bytes held `count`, so one copy mostly suffices.
static void *grow(struct sl_scan *scan, const void *old, uint32_t count, uint32_t *capacity,
		  size_t size, const uint8_t *at, uint32_t first)
{
	const uint64_t done = SL_MAX(offset_of(scan, at) - first, 1);
	const uint64_t left = scan->view->body.size - offset_of(scan, at);
	const uint64_t guess = count + left * count / done * 9 / 8 + 8;
	const uint32_t more = (uint32_t)SL_MIN(SL_MAX(guess, count + count / 2), count * 32ull);
	void *bigger = sl_arena_alloc(scan->arena, more * size);

	if (!bigger)
		return NULL;
	memcpy(bigger, old, count * size);
	*capacity = more;
	scan->newest = bigger;
	return bigger;
}

static bool envelope_room(struct sl_scan *scan, const uint8_t *at)
{
	struct sl_view *view = scan->view;

	if (SL_LIKELY(view->envelope_count < scan->envelope_capacity))
		return true;

	void *bigger = grow(scan, view->envelopes, view->envelope_count, &scan->envelope_capacity,
			    sizeof(struct sl_envelope), at, 0);

	if (!bigger)
		return sl_scan_fail(scan, at, SL_VIEW_NO_MEMORY);
	view->envelopes = bigger;
	return true;
}

static bool item_room(struct sl_scan *scan, const uint8_t *at)
{
	struct sl_view *view = scan->view;

	if (SL_UNLIKELY(view->item_count >= scan->limits->items_max))
		return sl_scan_fail(scan, at, SL_VIEW_TOO_MANY_ITEMS);
	if (SL_LIKELY(view->item_count < scan->item_capacity))
		return true;

	void *bigger = grow(scan, view->items, view->item_count, &scan->item_capacity,
			    sizeof(struct sl_item), at, view->items->at);

	if (!bigger)
		return sl_scan_fail(scan, at, SL_VIEW_NO_MEMORY);
	view->items = bigger;
	return true;
}

static void add_child(struct sl_scan *scan, struct level *level, const uint8_t *at,
		      const uint8_t *end)
{
	const uint32_t from = offset_of(scan, at);

	if (!level->has_children)
		level->children_at = from;
	else if (level->children_end != from)
		level->dense = false;
	level->has_children = true;
	level->children_end = offset_of(scan, end);
}

static void open_level(struct sl_scan *scan, struct level *level, uint32_t parent,
		       enum sl_envelope_kind kind, uint32_t field, const uint8_t *at,
		       const uint8_t *payload, const uint8_t *end)
{
	struct sl_view *view = scan->view;

	*level = (struct level){.envelope = view->envelope_count, .dense = true};
	view->envelopes[view->envelope_count++] = (struct sl_envelope){
		.at = offset_of(scan, at),
		.bytes = (uint32_t)(end - at),
		.parent = parent,
		.kind = (uint8_t)kind,
		.head = (uint8_t)(payload - at),
		.field = (uint8_t)field,
		.first_item = view->item_count,
	};
}

static void close_level(struct sl_scan *scan, const struct level *level)
{
	struct sl_envelope *envelope = &scan->view->envelopes[level->envelope];
	const uint32_t end = envelope->at + envelope->bytes;

	envelope->item_count = scan->view->item_count - envelope->first_item;
	scan->view->has_empty |= !envelope->item_count;
	envelope->children_at = level->has_children ? level->children_at : end;
	envelope->children_end = level->has_children ? level->children_end : end;
	envelope->flags = level->dense ? SL_ENVELOPE_DENSE : 0;
}

// The schema of the points in a Metric's member; NULL for other fields.
static const struct sl_message *points_of(uint32_t tag)
{
	const struct sl_field *member;

	if ((tag & 7) != 2)
		return NULL;
	member = sl_schema_field(&sl_schema_metric, tag >> 3);
	return member && member->oneof ? member->message->fields[0].message : NULL;
}

// One item whose payload is [payload, end). `point` is the schema of a data point, in the metric's
// member `field`.
SL_INLINE const uint8_t *item(struct sl_scan *scan, const struct level *level, const uint8_t *at,
			      const uint8_t *payload, const uint8_t *end, uint32_t field,
			      const struct sl_message *point)
{
	struct sl_view *view = scan->view;

	if (SL_UNLIKELY(!item_room(scan, at)))
		return NULL;

	struct sl_item *const new = &view->items[view->item_count++];
	const struct sl_item fresh = {
		.at = offset_of(scan, at),
		.bytes = (uint32_t)(end - at),
		.envelope = level->envelope,
		.trace_at = SL_TRACE_AT_UNKNOWN,
	};
	const uint8_t *next = NULL;

	*new = fresh;
	if (SL_LIKELY(!scan->generic)) {
		if (point)
			next = sl_scan_plain_point(scan, payload, end, field, point);
		else if (view->signal == SL_TRACES)
			next = sl_scan_plain_span(scan, payload, end, new);
		else
			next = sl_scan_plain_log(scan, payload, end, new);
		if (SL_LIKELY(next))
			return next;
		*new = fresh;
	}
	if (point)
		return sl_scan_message(scan, payload, end, point, 0);
	return view->signal == SL_TRACES ? sl_scan_span(scan, payload, end, new)
					 : sl_scan_log(scan, payload, end, new);
}

// Items one after the other, up to the first with a tag or length of another form (one byte; one or
// two). NULL after a failure.
static const uint8_t *items(struct sl_scan *scan, struct level *level, const uint8_t *at,
			    const uint8_t *end, uint8_t tag, uint32_t field,
			    const struct sl_message *point)
{
	const uint8_t *const from = at;

	while (at < end && at[0] == tag) {
		// Without a branch: lengths around 128 would mispredict it.
		const uint32_t head = sl_wire_load_u16(at + 1), two = head >> 7 & 1;
		const uint32_t length = (head & 0x7f) | ((head >> 1 & 0x3f80) & -two);
		const uint8_t *payload = at + 2 + two;

		if ((head & 0x8080) == 0x8080 || (ptrdiff_t)length > end - payload)
			break;
		if (SL_UNLIKELY(!item(scan, level, at, payload, payload + length, field, point)))
			return NULL;
		at = payload + length;
	}
	if (at != from)
		add_child(scan, level, from, at);
	return at;
}

static const uint8_t *points(struct sl_scan *scan, uint32_t parent, const uint8_t *at,
			     const uint8_t *payload, const uint8_t *end, uint32_t field,
			     const struct sl_message *point)
{
	struct level level;
	uint32_t tag = 0, length = 0;

	if (!envelope_room(scan, at))
		return NULL;
	open_level(scan, &level, parent, SL_ENVELOPE_POINTS, field, at, payload, end);
	for (at = payload; at < end;) {
		at = items(scan, &level, at, end, 0x0a, field, point);
		if (!at || at == end)
			break;

		const uint8_t *value = sl_scan_tag(scan, at, &tag);

		if (!value)
			return NULL;
		if (tag != 0x0a) {
			at = sl_scan_value(scan, value, end, tag, NULL, 0);
		} else {
			value = sl_scan_length(scan, value, end, &length);
			if (!value || !item(scan, &level, at, value, value + length, field, point))
				return NULL;
			add_child(scan, &level, at, value + length);
			at = value + length;
		}
		if (!at)
			return NULL;
	}
	if (!at)
		return NULL;
	close_level(scan, &level);
	return end;
}

// A Metric's data are a oneof. Decoders keep its last member and forget the others, so their
// points are not items: they were never data to whoever receives them, and counting them would
// charge and report what nobody sees. Their bytes are checked and stay where they are. The same
// member twice merges: the points of both are items. Forgotten bytes cannot come back to life by
// a splice: the metric goes with the last of its items, and kept members stay whole.
static const uint8_t *metric(struct sl_scan *scan, uint32_t parent, const uint8_t *at,
			     const uint8_t *payload, const uint8_t *end)
{
	struct sl_view *view = scan->view;
	const struct sl_message *point;
	struct level level;
	uint32_t tag = 0, length = 0, member = 0;

	if (!envelope_room(scan, at))
		return NULL;
	open_level(scan, &level, parent, SL_ENVELOPE_METRIC, 2, at, payload, end);
	at = payload;
	if (!scan->generic) // name, description, unit
		at = sl_scan_plain_strings(at, end, 0x1a);
	while (at < end) {
		const uint8_t *value = sl_scan_tag(scan, at, &tag);

		if (!value || value > end)
			return value ? sl_scan_fail(scan, end, SL_VIEW_MALFORMED) : NULL;
		point = points_of(tag);
		if (!point) {
			at = sl_scan_value(scan, value, end, tag, &sl_schema_metric, 0);
			if (!at)
				return NULL;
			continue;
		}
		value = sl_scan_length(scan, value, end, &length);
		if (!value)
			return NULL;
		if (member && member != tag) {
			view->envelope_count = level.envelope + 1;
			view->item_count = view->envelopes[level.envelope].first_item;
			level.has_children = false;
			level.dense = true;
		} else if (member) {
			level.dense = false; // two members merge: a splice looks at each
		}
		member = tag;
		if (!points(scan, level.envelope, at, value, value + length, tag >> 3, point))
			return NULL;
		add_child(scan, &level, at, value + length);
		at = value + length;
	}
	close_level(scan, &level);
	return end;
}

// A Resource or an InstrumentationScope.
static const uint8_t *describe(struct sl_scan *scan, const uint8_t *at, const uint8_t *end,
			       bool scope)
{
	if (!scan->generic)
		at = scope ? sl_scan_plain_strings(at, end, 0x12) : sl_scan_plain_resource(at, end);
	return sl_scan_message(scan, at, end, scope ? &sl_schema_scope : &sl_schema_resource, 0);
}

// ResourceX and ScopeX have one shape: 1 is what they describe, 2 are their children.
static const uint8_t *outer(struct sl_scan *scan, uint32_t parent, const uint8_t *at,
			    const uint8_t *payload, const uint8_t *end)
{
	const bool scope = parent != SL_TOP;
	const bool metrics = scan->view->signal == SL_METRICS;
	const bool items_inside = scope && !metrics;
	struct level level;
	uint32_t tag = 0, length = 0;

	if (!envelope_room(scan, at))
		return NULL;
	open_level(scan, &level, parent, scope ? SL_ENVELOPE_SCOPE : SL_ENVELOPE_RESOURCE,
		   scope ? 2 : 1, at, payload, end);
	for (at = payload; at < end;) {
		if (items_inside && at[0] == 0x12) {
			at = items(scan, &level, at, end, 0x12, 0, NULL);
			if (!at)
				return NULL;
			if (at == end)
				break;
		}

		const uint8_t *value = sl_scan_tag(scan, at, &tag), *next;

		if (!value || value > end)
			return value ? sl_scan_fail(scan, end, SL_VIEW_MALFORMED) : NULL;
		if (tag != 0x0a && tag != 0x12) {
			at = sl_scan_value(scan, value, end, tag, NULL, 0);
			if (!at)
				return NULL;
			continue;
		}
		value = sl_scan_length(scan, value, end, &length);
		if (!value)
			return NULL;
		next = value + length;
		if (tag == 0x0a)
			value = describe(scan, value, next, scope);
		else if (!scope)
			value = outer(scan, level.envelope, at, value, next);
		else if (metrics)
			value = metric(scan, level.envelope, at, value, next);
		else
			value = item(scan, &level, at, value, next, 0, NULL);
		if (SL_UNLIKELY(!value))
			return NULL;
		if (tag == 0x12)
			add_child(scan, &level, at, next);
		at = next;
	}
	close_level(scan, &level);
	return end;
}

static bool request(struct sl_scan *scan)
{
	const uint8_t *at = scan->body, *end = at + scan->view->body.size;
	uint32_t tag = 0, length = 0;

	while (at < end) {
		const uint8_t *value = sl_scan_tag(scan, at, &tag);

		if (!value || value > end)
			return value ? sl_scan_fail(scan, end, SL_VIEW_MALFORMED) : NULL;
		if (tag != 0x0a) {
			scan->view->only_field_1 = false;
			at = sl_scan_value(scan, value, end, tag, NULL, 0);
			if (!at)
				return false;
			continue;
		}
		value = sl_scan_length(scan, value, end, &length);
		if (!value || !outer(scan, SL_TOP, at, value, value + length))
			return false;
		at = value + length;
	}
	return true;
}

enum sl_view_result sl_scan_request(struct sl_view *view, enum sl_signal signal,
				    struct sl_bytes body, const struct sl_view_limits *limits,
				    struct sl_arena *arena, bool generic, uint32_t *error_at)
{
	static const uint8_t nothing[SL_BODY_SLACK];
	struct sl_scan scan = {
		.view = view,
		.body = body.size ? body.data : nothing,
		.arena = arena,
		.limits = limits,
		// For small requests; in large ones the first few tell how many will come.
		.envelope_capacity = (uint32_t)SL_MIN(body.size / 128, 24) + 8,
		.item_capacity = (uint32_t)SL_MIN(body.size / 128, 56) + 8,
		.generic = generic,
	};

	assert(body.size <= SL_BODY_BYTES_MAX);
	*view = (struct sl_view){.signal = signal, .body = body, .only_field_1 = true};
	view->envelopes = sl_arena_alloc(arena, scan.envelope_capacity * sizeof(*view->envelopes));
	view->items = sl_arena_alloc(arena, scan.item_capacity * sizeof(*view->items));
	scan.newest = view->items;
	if (!view->envelopes || !view->items)
		sl_scan_fail(&scan, scan.body, SL_VIEW_NO_MEMORY);
	else if (request(&scan) && scan.newest == view->items)
		sl_arena_shrink(arena, view->items, scan.item_capacity * sizeof(*view->items),
				view->item_count * sizeof(*view->items));
	if (error_at)
		*error_at = scan.error_at;
	return scan.result;
}

enum sl_view_result sl_view_scan(struct sl_view *view, enum sl_signal signal, struct sl_bytes body,
				 const struct sl_view_limits *limits, struct sl_arena *arena,
				 uint32_t *error_at)
{
	return sl_scan_request(view, signal, body, limits, arena, false, error_at);
}
