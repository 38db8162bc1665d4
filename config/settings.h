#pragma once

#include "dataplane/base/address.h"
#include "dataplane/base/base.h"

// The schema engine: a module declares its settings in one table beside its code; parser,
// validation, presets, `--dump`, REFERENCE.md and "did you mean" come from the table.
//
// A table describes a C struct, row by row. Loading fills the struct (presets first, then what the
// file says), all of whose memory lies in one block list that goes with the loaded configuration.
//
// Threading: control thread only. Errors: every problem found is reported, with file:line:column.

enum sl_setting_type {
	//                     C field                          written as
	SL_TYPE_BOOL,        // bool                            true, false
	SL_TYPE_COUNT,       // uint64_t                        17, 100k, 2M (thousands)
	SL_TYPE_BYTES,       // uint64_t                        4096, 64KiB, 1MiB, 10MB
	SL_TYPE_DURATION,    // uint64_t ns                     250ms, 4s, 5m, 2h, 1d
	SL_TYPE_PER_S,       // double, per second              1000/s, 100k/s, 90/m, 10/h, 1M/d
	SL_TYPE_BYTES_PER_S, // double, per second              50MiB/s
	SL_TYPE_RATIO,       // double, 0..1                    10%, 0.1
	SL_TYPE_NUMBER,      // double
	SL_TYPE_STRING,      // const char *; NULL when unset
	SL_TYPE_PATH,        // const char *; relative to the file's folder, made absolute
	SL_TYPE_ENUM,        // uint32_t index into `choices`
	SL_TYPE_ADDRESS,     // struct sl_address               127.0.0.1:4317
	SL_TYPE_CIDR,        // struct sl_cidr                  10.0.0.0/8
	SL_TYPE_OBJECT,      // the struct itself, embedded; rows in `object`
	SL_TYPE_OPTIONAL,    // pointer to the struct, NULL when absent; rows in `object`
	SL_TYPE_LIST,        // struct sl_list of `element`
	SL_TYPE_MAP,         // struct sl_list of `object`, whose first row of type KEY gets the key
	SL_TYPE_KEY,         // const char *; the key of the map entry (no name of its own)
	SL_TYPE_WHERE,       // struct sl_where of the enclosing mapping (no name of its own)
	SL_TYPE_CHOICE, // scalar or mapping: a string alone is taken for the row of `object` that
			// `shorthand` names (`{to: [main]}` for `{to: [{destination: main}]}`);
			// C field as OBJECT. Inside lists only, as element type
};

enum sl_setting_apply { SL_APPLY_LIVE, SL_APPLY_RESTART };

#define SL_SETTING_SECRET "<secret>" // stands for a secret in a dump; no value of one

struct sl_where {
	const char *file;
	uint32_t line, column;
};

struct sl_list {
	void *items; // array of the element's C type
	size_t count;
};

struct sl_settings;

struct sl_setting {
	const char *name;
	enum sl_setting_type type;
	enum sl_setting_apply apply;
	size_t offset;
	double min, max;    // in the field's unit; both 0: unbounded
	const char *preset; // as it would be written; NULL: zero, empty, unset
	bool required;
	bool secret; // never shown by --dump or /config
	// ENUM; ends with NULL. Of COUNT, BYTES, DURATION: words for 0, 1, ... (`auto`)
	const char *const *choices;
	const struct sl_settings *object; // OBJECT, OPTIONAL, MAP, CHOICE, or LIST of those
	enum sl_setting_type element;     // LIST
	const char *shorthand;            // CHOICE; MAP, OBJECT and OPTIONAL may have one too
	bool watched;          // PATH: a file that is read; a reload follows when it changes
	size_t present_offset; // > 0: a bool field set to true when the file names the key
	size_t where_offset;   // > 0: a struct sl_where field that gets the key's place
	size_t unless_offset;  // > 0: a pointer field; where it is set a dump leaves the row out
	// When it has an effect, by a row beside it: "check: http|tcp" (one of these words),
	// "redis" (set), "!busy" (not set); several with "; " between. Given otherwise, and not as
	// its preset, it earns a warning.
	const char *only;
	const char *help;
};

struct sl_errors;

struct sl_settings {
	const char *name; // for the reference: "destination.kafka"
	const char *help;
	size_t bytes; // sizeof the struct
	const struct sl_setting *rows;
	uint32_t row_count;
	// Checks a filled struct as a whole; reports by sl_errors_add(). NULL: nothing to check.
	void (*check)(const void *object, struct sl_errors *errors);
};

// A list of problems. Text lines are "file:line:column: what".
struct sl_errors *sl_errors_create(void);
void sl_errors_destroy(struct sl_errors *errors);
void sl_errors_add(struct sl_errors *errors, const struct sl_where *where, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
uint32_t sl_errors_count(const struct sl_errors *errors);
const char *sl_errors_line(const struct sl_errors *errors, uint32_t index);
// What is no error, but hardly meant: "file:line:column: warning: what". In a list of their own.
void sl_errors_warn(struct sl_errors *errors, const struct sl_where *where, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
uint32_t sl_errors_warnings(const struct sl_errors *errors);
const char *sl_errors_warning(const struct sl_errors *errors, uint32_t index);

// The closest of the names to `text`, or NULL when none is close.
const char *sl_nearest(const char *text, const char *(*name)(const void *self, uint32_t index),
		       const void *self, uint32_t count);

// A loaded file: the filled struct and all its memory.
struct sl_loaded {
	void *object;
	struct sl_loaded_memory *memory;
	struct sl_places *places; // of what needs a restart
};

// Reads and validates a YAML file. Unknown and duplicate keys, wrong types, bounds, missing
// required keys and unset environment variables (${env:NAME}, ${env:NAME:-default}; `$$` is one
// `$`) are errors, as are aliases, tags and second documents. A value that is null (or empty and
// not quoted) is as if its key were not there; "" switches an ADDRESS off. Returns 0, or -EINVAL
// with lines in `errors` (-ENOENT and the like too).
int sl_settings_load(const struct sl_settings *settings, const char *file, struct sl_loaded *loaded,
		     struct sl_errors *errors);
// The same from text; `name` stands for the file in messages.
int sl_settings_load_text(const struct sl_settings *settings, const char *name, const char *text,
			  size_t size, struct sl_loaded *loaded, struct sl_errors *errors);
void sl_loaded_fini(struct sl_loaded *loaded);

// Replaces in `base` what `own` names, key by key: rows with `present_offset`, also those of
// embedded objects. All other fields of `base` stay.
void sl_settings_override(const struct sl_settings *settings, void *base, const void *own);

// Every setting with its effective value, as YAML that loads to the same. malloc'ed.
char *sl_settings_dump(const struct sl_settings *settings, const void *object);
// The reference in Markdown. malloc'ed.
char *sl_settings_reference(const struct sl_settings *settings);
// "file:7:8: a.b: needs a restart: it is 1 now, and would be 2" for each row of SL_APPLY_RESTART
// that differs; `file` where the new one does not name it. Returns how many; `errors` may be NULL.
uint32_t sl_settings_restart_needed(const struct sl_settings *settings, const void *before,
				    const struct sl_loaded *after, const char *file,
				    struct sl_errors *errors);
// Calls `path` for each file that a loaded object names in a row with `watched`.
void sl_settings_watched(const struct sl_settings *settings, const void *object,
			 void (*path)(void *self, const char *path), void *self);
