#pragma once

#include <stdarg.h>

#include "config/settings.h"

// What the files of the engine share: memory that goes at once, the tree of a YAML document, and
// scalars as they are written.

// --- memory: blocks that are freed together -----------------------------------------------------
struct sl_loaded_memory;
struct sl_loaded_memory *sl_blocks_create(void);
void sl_blocks_destroy(struct sl_loaded_memory *blocks);
// Aligned to 16, zeroed; NULL without memory.
void *sl_blocks_take(struct sl_loaded_memory *blocks, size_t bytes);
// Whether any take has failed: callers go on and look once, at the end.
bool sl_blocks_failed(const struct sl_loaded_memory *blocks);
char *sl_blocks_text(struct sl_loaded_memory *blocks, const char *text, size_t size);

// --- a document ----------------------------------------------------------------------------------
enum sl_node_kind { SL_NODE_SCALAR, SL_NODE_SEQUENCE, SL_NODE_MAPPING };

struct sl_node {
	struct sl_node *next; // sibling; in a mapping keys and values take turns
	union {
		struct sl_node *first;
		const char *text; // terminated
	};
	uint32_t count; // of a sequence: elements; a mapping: pairs; a scalar: bytes
	uint32_t line, column;
	uint8_t kind;
	bool plain; // a scalar without quotes
};

// The document's tree in `blocks`, or NULL with lines in `errors`; an empty document is an empty
// mapping. Aliases, anchors, tags and further documents are refused, so a tree is never larger
// than its text; nesting is bounded, so recursion over it is too.
#define SL_YAML_DEPTH_MAX 48
struct sl_node *sl_yaml_parse(struct sl_loaded_memory *blocks, const char *name, const char *text,
			      size_t size, struct sl_errors *errors);

// --- scalars -------------------------------------------------------------------------------------
// Sizes of the C field of a type that is no object.
size_t sl_value_bytes(enum sl_setting_type type);
// Reads `text` to `field` for types of a number, BOOL, ENUM, ADDRESS and CIDR. Returns 0, -EINVAL
// (not of that type) or -ERANGE (out of the row's bounds).
int sl_value_parse(const struct sl_setting *row, enum sl_setting_type type, const char *text,
		   void *field);
// As it would be written; text that parses to the same. At most SL_VALUE_TEXT_MAX bytes.
#define SL_VALUE_TEXT_MAX 96
void sl_value_text(const struct sl_setting *row, enum sl_setting_type type, const void *field,
		   char text[SL_VALUE_TEXT_MAX]);
// "a duration such as 250ms".
const char *sl_value_expected(enum sl_setting_type type);
bool sl_value_has_min(const struct sl_setting *row);
bool sl_value_has_max(const struct sl_setting *row);
// A bound of a row, as it would be written.
void sl_value_bound_text(enum sl_setting_type type, double bound, char text[SL_VALUE_TEXT_MAX]);

// --- rows ----------------------------------------------------------------------------------------
// Notes where a field's value stands; and finds it, or NULL.
struct sl_places;
void sl_places_note(struct sl_loaded_memory *blocks, struct sl_places **places, const void *field,
		    const struct sl_where *where);
const struct sl_where *sl_places_find(const struct sl_places *places, const void *field);
// Whether a row has no effect, by its `only`, in an object that is filled.
bool sl_setting_is_idle(const struct sl_settings *settings, const struct sl_setting *row,
			const char *object);
#define SL_ONLY_TEXT_MAX 120
// Whether a row's values in two objects of its table differ.
bool sl_setting_differs(const struct sl_setting *row, const void *before, const void *after);
const struct sl_setting *sl_setting_named(const struct sl_settings *settings, const char *name,
					  size_t size);

// The C size of one element of a list or map.
size_t sl_element_bytes(const struct sl_setting *row);

// A text that grows.
struct sl_text {
	char *data;
	size_t size, capacity;
	bool failed;
};
void sl_text_add(struct sl_text *text, const char *bytes, size_t size);
void sl_text_print(struct sl_text *text, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
// "only with `check: http`", of a row that has an `only`.
void sl_setting_only_text(const struct sl_setting *row, struct sl_text *text);

// Where problems are that nobody gives a place; NULL: nowhere.
void sl_errors_otherwise(struct sl_errors *errors, const struct sl_where *where);
