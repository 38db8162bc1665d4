#include "dataplane/otlp/splice.h"

#include "dataplane/base/varint.h"

// One walk from the body's end to its start. Backwards, an envelope's new size is known when its
// length prefix is reached, so nothing is measured first; only kept items are visited, since what
// lies between children (SL_ENVELOPE_DENSE) need not be searched.

#define NONE          UINT32_MAX
#define LEVELS_MAX    5 // the body, resource, scope, metric, points
#define HEADERS_BYTES 496

struct level {
	uint32_t envelope; // index, or SL_TOP for the body
	uint32_t later;    // the child handled last (it follows in the body), or NONE
	uint32_t cursor;   // where that child begins
	uint64_t bytes;    // written behind this envelope
};

struct splice {
	const struct sl_view *view;
	const struct sl_edit *edits;
	uint32_t edits_left; // those behind are done
	struct sl_arena *arena;
	struct iovec *pieces; // filled from the end
	uint32_t first, capacity;
	uint64_t bytes;
	uint8_t *headers; // room for length prefixes, filled from the end
	uint32_t headers_left;
	struct level levels[LEVELS_MAX];
	uint32_t depth; // levels in use
	bool spent;     // the budget
};

int sl_edits_add(struct sl_edits *edits, struct sl_arena *arena, uint32_t at, uint32_t cut,
		 struct sl_bytes put)
{
	uint32_t low = edits->count;

	// Behind all that begin before it; an insertion goes before a cut at the same place.
	while (low > 0) {
		const struct sl_edit *before = &edits->edits[low - 1];

		if (before->at < at || (before->at == at && before->cut == 0))
			break;
		low--;
	}
	if (low > 0 && edits->edits[low - 1].at + edits->edits[low - 1].cut > at)
		return -EEXIST;
	if (low < edits->count && at + cut > edits->edits[low].at)
		return -EEXIST;
	if (edits->count == edits->capacity) {
		const uint32_t capacity = SL_MAX(16, edits->capacity * 2);
		struct sl_edit *more = sl_arena_alloc(arena, capacity * sizeof(*more));

		if (!more)
			return -ENOMEM;
		if (edits->count)
			memcpy(more, edits->edits, edits->count * sizeof(*more));
		edits->edits = more;
		edits->capacity = capacity;
	}
	memmove(&edits->edits[low + 1], &edits->edits[low],
		(edits->count - low) * sizeof(*edits->edits));
	edits->edits[low] = (struct sl_edit){at, cut, put};
	edits->count++;
	return 0;
}

struct sl_edit *sl_edits_find(const struct sl_edits *edits, uint32_t at, uint32_t cut)
{
	uint32_t low = 0, high = edits->count;

	assert(cut > 0);
	while (low < high) { // an insertion at the same place lies before it
		const uint32_t middle = low + (high - low) / 2;
		const struct sl_edit *edit = &edits->edits[middle];

		if (edit->at < at || (edit->at == at && edit->cut == 0))
			low = middle + 1;
		else
			high = middle;
	}
	if (low == edits->count || edits->edits[low].at != at || edits->edits[low].cut != cut)
		return NULL;
	return &edits->edits[low];
}

static bool more_pieces(struct splice *self)
{
	const uint32_t count = self->capacity - self->first;
	const uint32_t capacity = SL_MAX(32, self->capacity * 2);
	struct iovec *pieces = sl_arena_alloc(self->arena, capacity * sizeof(*pieces));

	if (!pieces) {
		self->spent = true;
		return false;
	}
	if (count)
		memcpy(pieces + capacity - count, self->pieces + self->first,
		       count * sizeof(*pieces));
	self->pieces = pieces;
	self->first = capacity - count;
	self->capacity = capacity;
	return true;
}

SL_INLINE void push(struct splice *self, const uint8_t *data, size_t size)
{
	if (size == 0)
		return;
	self->bytes += size;
	if (self->first < self->capacity && self->pieces[self->first].iov_base == data + size) {
		self->pieces[self->first].iov_base = (void *)(uintptr_t)data;
		self->pieces[self->first].iov_len += size;
		return;
	}
	if (SL_UNLIKELY(self->first == 0) && !more_pieces(self))
		return;
	self->pieces[--self->first] = (struct iovec){(void *)(uintptr_t)data, size};
}

// Whether an edit lies at or behind `to`: then it belongs to what was left out, for all that is
// kept there has been written. An insertion at `to` still belongs to what ends there.
SL_INLINE bool behind(const struct sl_edit *edit, uint32_t to)
{
	return edit->at > to || (edit->at == to && edit->cut);
}

static void forget_edits(struct splice *self, uint32_t to)
{
	uint32_t low = 0, high = self->edits_left;

	if (!high || !behind(&self->edits[high - 1], to))
		return;
	while (low < high) {
		const uint32_t middle = (low + high) / 2;

		if (behind(&self->edits[middle], to))
			high = middle;
		else
			low = middle + 1;
	}
	self->edits_left = low;
}

// Writes the body's [from, to) with its edits. An insertion at `to` is inside, one at `from` only
// when `closed`: else it belongs to the child that ends there.
static void emit(struct splice *self, uint32_t from, uint32_t to, bool closed)
{
	const uint8_t *body = self->view->body.data;

	assert(from <= to);
	forget_edits(self, to);
	while (self->edits_left) {
		const struct sl_edit *edit = &self->edits[self->edits_left - 1];

		if (edit->at < from || (edit->at == from && !edit->cut && !closed))
			break;
		assert(edit->cut <= to - edit->at);
		push(self, body + edit->at + edit->cut, to - edit->at - edit->cut);
		push(self, edit->put.data, edit->put.size);
		to = edit->at;
		self->edits_left--;
	}
	push(self, body + from, to - from);
}

// Writes the tag and length of a field whose payload is `size` bytes now. The old ones serve when
// the size is the same.
static void emit_header(struct splice *self, uint32_t at, uint32_t head, uint32_t old_size,
			uint64_t size)
{
	const uint8_t *tag = self->view->body.data + at;
	uint32_t tag_bytes = 1;

	if (size == old_size) {
		push(self, tag, head);
		return;
	}
	while (tag[tag_bytes - 1] >= 0x80)
		tag_bytes++;

	const uint32_t bytes = tag_bytes + sl_varint_bytes(size);

	if (self->headers_left < bytes) {
		self->headers = sl_arena_alloc(self->arena, HEADERS_BYTES);
		self->headers_left = self->headers ? HEADERS_BYTES : 0;
		if (!self->headers) {
			self->spent = true;
			return;
		}
	}
	self->headers_left -= bytes;

	uint8_t *header = self->headers + self->headers_left;

	memcpy(header, tag, tag_bytes);
	sl_varint_put(header + tag_bytes, size);
	push(self, header, bytes);
}

static uint32_t head_of(const uint8_t *field)
{
	uint32_t bytes = 0;

	while (field[bytes++] >= 0x80) // the tag
		;
	while (field[bytes++] >= 0x80) // the length
		;
	return bytes;
}

static void emit_item(struct splice *self, const struct sl_item *item)
{
	const uint32_t end = item->at + item->bytes;

	forget_edits(self, end);
	if (!self->edits_left || self->edits[self->edits_left - 1].at <= item->at) {
		push(self, self->view->body.data + item->at, item->bytes);
		return;
	}

	const uint32_t head = head_of(self->view->body.data + item->at);
	const uint64_t before = self->bytes;

	emit(self, item->at + head, end, true);
	emit_header(self, item->at, head, item->bytes - head, self->bytes - before);
}

struct span {
	uint32_t payload, end, children_at, children_end;
	bool dense, items; // its children are items
};

static struct span span_of(const struct sl_view *view, uint32_t index)
{
	if (index == SL_TOP) {
		const uint32_t end = (uint32_t)view->body.size;
		const struct sl_envelope *first = view->envelopes;

		// All top-level fields are children, or each gap has to be looked for.
		return (struct span){
			0, end, view->only_field_1 ? 0 : first->at, end, view->only_field_1, false};
	}

	const struct sl_envelope *envelope = &view->envelopes[index];

	return (struct span){
		.payload = envelope->at + envelope->head,
		.end = envelope->at + envelope->bytes,
		.children_at = envelope->children_at,
		.children_end = envelope->children_end,
		.dense = envelope->flags & SL_ENVELOPE_DENSE,
		.items = envelope->kind == SL_ENVELOPE_POINTS ||
			 (envelope->kind == SL_ENVELOPE_SCOPE && view->signal != SL_METRICS),
	};
}

static void between(struct splice *self, struct level *level, uint32_t child, uint32_t child_end);

static void open_level(struct splice *self, uint32_t envelope)
{
	assert(self->depth < LEVELS_MAX);
	self->levels[self->depth++] = (struct level){
		.envelope = envelope, .later = NONE, .bytes = self->bytes};
}

// Writes what stands before the first kept child, then the envelope's own prefix.
static void close_level(struct splice *self)
{
	struct level *level = &self->levels[self->depth - 1];
	const struct span span = span_of(self->view, level->envelope);

	between(self, level, NONE, span.children_at);
	emit(self, span.payload, span.children_at, true);
	self->depth--;
	if (level->envelope == SL_TOP)
		return;

	const struct sl_envelope *envelope = &self->view->envelopes[level->envelope];

	emit_header(self, envelope->at, envelope->head, envelope->bytes - envelope->head,
		    self->bytes - level->bytes);
	self->levels[self->depth - 1].later = level->envelope;
	self->levels[self->depth - 1].cursor = envelope->at;
}

// The bytes of `level` between its child `child` and the one handled before, without the children
// that were dropped in between. A metric's members (more than one: they merge) are not dropped but
// emptied: each may hold fields that the whole needs.
static void search(struct splice *self, struct level *level, const struct span *span,
		   uint32_t child, uint32_t child_end, uint32_t to)
{
	const struct sl_view *view = self->view;
	const uint32_t envelope = level->envelope;
	uint32_t index = level->later;

	if (index == NONE && envelope == SL_TOP) {
		index = view->envelope_count;
	} else if (index == NONE && span->items) {
		index = view->envelopes[envelope].first_item + view->envelopes[envelope].item_count;
	} else if (index == NONE) {
		for (index = envelope + 1;
		     index < view->envelope_count && view->envelopes[index].at < span->end;)
			index++;
	}
	while (index-- > 0) {
		uint32_t at, bytes;

		if (index == child)
			break;
		if (span->items) {
			if (view->items[index].envelope != envelope)
				break;
			at = view->items[index].at;
			bytes = view->items[index].bytes;
		} else {
			if (index == envelope)
				break;
			if (view->envelopes[index].parent != envelope)
				continue;
			at = view->envelopes[index].at;
			bytes = view->envelopes[index].bytes;
		}
		emit(self, at + bytes, to, false);
		if (!span->items && view->envelopes[index].kind == SL_ENVELOPE_POINTS) {
			open_level(self, index);
			close_level(self);
		}
		to = at;
	}
	emit(self, child_end, to, child == NONE);
}

static void between(struct splice *self, struct level *level, uint32_t child, uint32_t child_end)
{
	const struct span span = span_of(self->view, level->envelope);
	uint32_t to = level->cursor;

	if (level->later == NONE) {
		emit(self, span.children_end, span.end, span.children_at == span.children_end);
		to = span.children_end;
	}
	if (!span.dense)
		search(self, level, &span, child, child_end, to);
}

// Makes `envelope` the innermost open one, closing those that it is not inside of.
static void go_to(struct splice *self, uint32_t envelope)
{
	uint32_t chain[LEVELS_MAX], count = 0, shared = 1;

	for (; envelope != SL_TOP; envelope = self->view->envelopes[envelope].parent) {
		assert(count < LEVELS_MAX - 1);
		chain[count++] = envelope;
	}
	while (shared < self->depth && shared <= count &&
	       self->levels[shared].envelope == chain[count - shared])
		shared++;
	while (self->depth > shared)
		close_level(self);
	for (; shared <= count; shared++) {
		const uint32_t next = chain[count - shared];
		const struct sl_envelope *opened = &self->view->envelopes[next];

		between(self, &self->levels[self->depth - 1], next, opened->at + opened->bytes);
		open_level(self, next);
	}
}

static void keep_item(struct splice *self, uint32_t index)
{
	const struct sl_item *item = &self->view->items[index];

	if (self->levels[self->depth - 1].envelope != item->envelope)
		go_to(self, item->envelope);

	struct level *level = &self->levels[self->depth - 1];

	if (level->later == NONE || level->cursor != item->at + item->bytes)
		between(self, level, index, item->at + item->bytes);
	emit_item(self, item);
	level->later = index;
	level->cursor = item->at;
}

// The kept items as bits or as a list, whichever is given.
struct kept {
	const uint64_t *keep;
	const uint32_t *list;
	uint32_t count; // of the list
};

static void keep_items(struct splice *self, const struct kept *kept)
{
	const uint32_t items = self->view->item_count;

	if (kept->list) {
		for (uint32_t i = kept->count; i-- > 0;) {
			assert(i + 1 == kept->count || kept->list[i] < kept->list[i + 1]);
			keep_item(self, kept->list[i]);
		}
		return;
	}
	for (uint32_t word = SL_KEEP_WORDS(items); word-- > 0;) {
		uint64_t bits = kept->keep ? kept->keep[word] : UINT64_MAX;

		if (items - word * 64 < 64)
			bits &= (UINT64_C(1) << (items - word * 64)) - 1;
		while (bits) {
			const unsigned bit = 63 - (unsigned)__builtin_clzl(bits);

			keep_item(self, word * 64 + bit);
			bits ^= UINT64_C(1) << bit;
		}
	}
}

static uint32_t count_kept(const struct sl_view *view, const struct kept *kept)
{
	uint32_t count = 0;

	if (kept->list)
		return kept->count;
	if (!kept->keep)
		return view->item_count;
	for (uint32_t word = 0; word < view->item_count / 64; word++)
		count += (uint32_t)__builtin_popcountl(kept->keep[word]);
	for (uint32_t item = view->item_count & ~63u; item < view->item_count; item++)
		count += sl_keep_has(kept->keep, item);
	return count;
}

static int apply(const struct sl_view *view, const struct kept *kept, const struct sl_edits *edits,
		 struct sl_arena *arena, struct sl_pieces *out)
{
	const uint32_t count = count_kept(view, kept);
	struct splice self = {
		.view = view,
		.edits = edits ? edits->edits : NULL,
		.edits_left = edits ? edits->count : 0,
		.arena = arena,
	};

	*out = (struct sl_pieces){0};
	if (count == view->item_count && self.edits_left == 0 && !view->has_empty) {
		push(&self, view->body.data, view->body.size);
	} else if (count) {
		open_level(&self, SL_TOP);
		keep_items(&self, kept);
		go_to(&self, SL_TOP);
		close_level(&self);
	}
	if (self.spent)
		return -ENOMEM;
	out->pieces = self.pieces ? self.pieces + self.first : NULL;
	out->count = self.capacity - self.first;
	out->bytes = self.bytes;
	return 0;
}

int sl_splice(const struct sl_view *view, const uint64_t *keep, const struct sl_edits *edits,
	      struct sl_arena *arena, struct sl_pieces *out)
{
	return apply(view, &(struct kept){.keep = keep}, edits, arena, out);
}

int sl_splice_items(const struct sl_view *view, const uint32_t *items, uint32_t count,
		    const struct sl_edits *edits, struct sl_arena *arena, struct sl_pieces *out)
{
	static const uint32_t none;

	return apply(view, &(struct kept){.list = items ? items : &none, .count = count}, edits,
		     arena, out);
}
