#pragma once

#include "tenants/settings.h"
#include "tenants/source.h"

// Where tenants come from: the main configuration, tenants.file, the files of tenants.directory and
// tenants.redis.
// All are loaded before a snapshot is built; one that is wrong makes the whole load fail.
//
// Threading: control thread. Memory: what is loaded lives until sl_sources_fini().
struct sl_sources {
	const struct sl_tenants_file **files;
	struct sl_loaded *loaded; // those of them that were read
	uint32_t count, loaded_count;
	struct sl_source_text *text; // what Redis has; NULL: nothing
};
struct sl_tenants;

// `before`: the snapshot's part that is in force; NULL: at start, where Redis is waited for, unless
// `check_only`. Later ones are offered (tenants.h). Returns 0, or -errno with lines in `errors`.
int sl_sources_load(struct sl_sources *sources, const struct sl_tenants_config *config,
		    const struct sl_tenants *before, bool check_only, struct sl_errors *errors);
void sl_sources_fini(struct sl_sources *sources); // also after a load that failed
