#pragma once

#include "config/settings.h"

// Modules and snapshots. A module owns top-level keys of the configuration and builds its part of a
// snapshot from them; a reload builds and checks all parts, then publishes the whole snapshot or
// changes nothing. dataplane/main.c holds the one table of modules.
//
// Threading: build and destroy run on the control thread. Snapshots are read by shards: a pointer
// into one lives for a turn; sl_snapshots_enter() is called at a turn's start, and the publisher
// wakes shards that block, so that each takes the new one soon.

enum sl_module_id {
	SL_MODULE_PROCESS, // shards, io, log, admin ...
	SL_MODULE_SERVER,  // listeners, limits, TLS, acknowledge
	SL_MODULE_TENANTS, // tenants, quotas
	SL_MODULE_SAMPLING,
	SL_MODULE_ROUTING, // destinations, routes
	SL_MODULES,
};

struct sl_snapshot {
	uint64_t generation;
	void *parts[SL_MODULES];   // what each module's build() made
	void *configs[SL_MODULES]; // the structs the parts were made of; live as long
	struct sl_loaded loaded;   // the file behind it
	struct sl_snapshot *next;  // retired, waiting for the shards
	uint64_t retired_epoch;
};

struct sl_build {
	const struct sl_snapshot *before; // NULL at start
	struct sl_errors *errors;         // reporting one makes the build fail
	const void *const *configs;       // all modules' structs, by id
	bool check_only;                  // --check: open no file for writing, connect nowhere
};

struct sl_module {
	enum sl_module_id id;
	const char *name;
	const struct sl_settings *settings; // its rows are top-level keys
	// Makes the module's part. On a problem reports to build->errors and returns NULL.
	void *(*build)(const void *config, const struct sl_build *build);
	void (*destroy)(void *part); // NULL is fine
};

// The module table merged to one top-level schema; static storage inside, made once.
const struct sl_settings *sl_modules_settings(const struct sl_module *modules, uint32_t count);
// Where a module's struct lies in a loaded object.
void *sl_modules_config(const struct sl_module *modules, uint32_t count, enum sl_module_id id,
			void *object);

// Loads `file` and builds a whole snapshot. NULL: lines in `errors`, nothing changed.
struct sl_snapshot *sl_snapshot_load(const struct sl_module *modules, uint32_t count,
				     const char *file, const struct sl_snapshot *before,
				     bool check_only, struct sl_errors *errors);
void sl_snapshot_destroy(const struct sl_module *modules, uint32_t count,
			 struct sl_snapshot *snapshot);

// The one published snapshot and who may still look at older ones (quiescent-state reclamation).
struct sl_snapshots;
struct sl_snapshots *sl_snapshots_create(uint32_t readers, struct sl_snapshot *first);
// Frees everything; no reader may be online.
void sl_snapshots_destroy(struct sl_snapshots *snapshots, const struct sl_module *modules,
			  uint32_t count);
// Reader `reader` begins a turn: forgets older pointers, gets the current snapshot.
struct sl_snapshot *sl_snapshots_enter(struct sl_snapshots *snapshots, uint32_t reader);
// Reader blocks: it holds no pointer until it enters again.
void sl_snapshots_leave(struct sl_snapshots *snapshots, uint32_t reader);
// Control thread: publish; the old one is retired.
void sl_snapshots_publish(struct sl_snapshots *snapshots, struct sl_snapshot *next);
// Control thread: free what no reader can see any more. Returns how many still wait.
uint32_t sl_snapshots_reclaim(struct sl_snapshots *snapshots, const struct sl_module *modules,
			      uint32_t count);
// Control thread only.
struct sl_snapshot *sl_snapshots_current(struct sl_snapshots *snapshots);
