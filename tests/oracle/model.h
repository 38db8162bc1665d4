#pragma once

#include "dataplane/otlp/splice.h"

// A splice done twice: by edits of the bytes, and by protobuf-c on the decoded request. The model
// finds the decoded message of each item and envelope; an edit then changes both, and the two
// results are compared as protobuf-c writes them, unknown fields included.
//
// Threading: one owner. Memory: one arena, the caller's; a test's allocations never fail.
struct sl_model {
	const struct sl_view *view;
	struct sl_arena *arena;
	void *decoded;       // the whole request
	void **envelopes;    // ProtobufCMessage of each envelope
	void **items;        // and of each item
	const char *problem; // what went wrong, or NULL
};

// What a round did, so that a test can see that it did something.
struct sl_model_counts {
	uint64_t rounds, items, kept, removed, replaced, inserted, unknown, in_items, in_envelopes;
	uint64_t identical, emptied; // rounds in which nothing changed; in which nothing was left
	uint64_t refused;            // bodies that the scan or protobuf-c refuses: no round
};

enum sl_model_change {
	SL_MODEL_REMOVE,  // all fields of one number
	SL_MODEL_REPLACE, // the same, with one new field at the first one's place
	SL_MODEL_INSERT,  // one new field behind those of its number
};

struct sl_random;

// Scans and decodes `body`, changes both alike (which items stay and which fields change comes
// from `random`), and compares. Returns NULL, or what differs.
const char *sl_model_round(enum sl_signal signal, struct sl_bytes body, unsigned edits_max,
			   unsigned keep_percent, struct sl_random *random,
			   struct sl_memory *memory, struct sl_model_counts *counts);
