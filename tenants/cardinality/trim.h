#pragma once

#include "config/settings.h"
#include "dataplane/request/request.h"

// Limits on how many attributes there are and how long values are, as OpenTelemetry's SDKs have
// them: the first attributes stay, what is more goes and is added to the message's
// dropped_attributes_count; a text that is too long is cut at a character's border. All of it is
// edits: what is within its limits is not touched.
//
// Threading: any. Memory: edits lie in the request's arena; limits are plain values of a snapshot.
struct sl_trim_config {
	uint64_t attributes, resource_attributes, scope_attributes; // 0: no limit
	uint64_t value_bytes, name_bytes, body_bytes;               // 0: no limit
	bool points;
	uint32_t mode; // 0: enforce, 1: observe
	struct {
		bool attributes, resource_attributes, scope_attributes, value, name, body, points,
			mode;
	} has; // which keys the file names
};
extern const struct sl_settings sl_trim_settings;

struct sl_trim_limits { // 0: no limit
	uint32_t attributes, resource_attributes, scope_attributes;
	uint32_t value_bytes, name_bytes, body_bytes;
	bool points, observe;
	bool is_set; // any of them
};
// From what was loaded; `observe` where the configuration names no mode.
struct sl_trim_limits sl_trim_limits(const struct sl_trim_config *config, bool observe);

struct sl_trim_counts {
	uint64_t attributes, values, observed; // dropped, cut, and let pass
};

// The fields of a message that has attributes; 0: it has no such.
struct sl_trim_shape {
	uint8_t attributes, dropped; // `dropped`: dropped_attributes_count
	uint8_t name, body;          // a string, an AnyValue
	uint8_t events, links;       // messages with attributes of their own
};
extern const struct sl_trim_shape sl_trim_resource, sl_trim_scope;
// Of an item in an envelope of that field number.
const struct sl_trim_shape *sl_trim_item(enum sl_signal signal, uint32_t envelope_field);

// One message at work.
struct sl_trim {
	const struct sl_trim_limits *limits;
	const struct sl_trim_shape *shape;
	struct sl_part *part;
	struct sl_trim_counts *counts;
	uint32_t most, kept;       // attributes; most: 0 for no limit
	uint64_t dropped;          // by us
	uint32_t before;           // by others, as it says
	bool edited;               // the part had edits before: what they took is not ours
	uint32_t run_at, run_size; // dropped attributes side by side, not yet an edit
	uint32_t old_at, old_size; // where it says what was dropped; old_size 0: it does not
	int64_t grown;             // by how much it becomes longer
	// sl_trim_message(): asked of each attribute that stays, as it is then. False: it goes too,
	// and nobody counts it as dropped. NULL: all stay.
	bool (*judge)(void *self, struct sl_bytes pair, struct sl_bytes whole);
	void *judge_self;
};

// An attribute, before it is judged by others: `*pair` is what is left of its KeyValue, `*put` the
// field to replace it, empty when it stays as it is.
enum sl_trimmed { SL_TRIM_KEPT, SL_TRIM_DROPPED, SL_TRIM_NO_MEMORY };
enum sl_trimmed sl_trim_pair(struct sl_trim *trim, uint32_t at, const struct sl_wire_field *field,
			     struct sl_bytes *pair, struct sl_bytes *put);
// It stays, as `put` if that is not empty. False: no memory.
bool sl_trim_keep(struct sl_trim *trim, uint32_t at, uint32_t bytes, struct sl_bytes put);
// Any other field. `base` is where the message's fields begin in the body.
bool sl_trim_field(struct sl_trim *trim, uint32_t base, const struct sl_wire_field *field);
// After the last field.
bool sl_trim_end(struct sl_trim *trim);

// A Resource or scope, all of it: `at` is where its field lies. One that comes in several fields is
// one message: `trim` goes on.
bool sl_trim_message(struct sl_trim *trim, uint32_t at, const struct sl_wire_field *field);
