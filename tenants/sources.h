#pragma once

#include "tenants/settings.h"

// Where tenants come from: the main configuration, tenants.file and the files of tenants.directory.
// All are loaded before a snapshot is built; one that is wrong makes the whole load fail.
//
// Threading: control thread. Memory: what is loaded lives until sl_sources_fini().
struct sl_sources {
	const struct sl_tenants_file **files;
	struct sl_loaded *loaded; // those of them that were read
	uint32_t count, loaded_count;
};

// Returns 0, or -errno with lines in `errors`.
int sl_sources_load(struct sl_sources *sources, const struct sl_tenants_config *config,
		    struct sl_errors *errors);
void sl_sources_fini(struct sl_sources *sources); // also after a load that failed
