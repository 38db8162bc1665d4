#include "config/module.h"

#include <stdlib.h>

#define ROWS_MAX 128
#define ALIGN    16

// The merged table, and the modules it is made of: `check` has no other way to them.
static struct {
	const struct sl_module *modules;
	uint32_t count;
	size_t offsets[SL_MODULES];
	struct sl_setting rows[ROWS_MAX];
	struct sl_settings settings;
} merged;

static void check_all(const void *object, struct sl_errors *errors)
{
	for (uint32_t i = 0; i < merged.count; i++) {
		const struct sl_settings *settings = merged.modules[i].settings;

		if (settings->check)
			settings->check((const char *)object + merged.offsets[i], errors);
	}
}

const struct sl_settings *sl_modules_settings(const struct sl_module *modules, uint32_t count)
{
	uint32_t row_count = 0;
	size_t bytes = 0;

	assert(count <= SL_MODULES);
	if (merged.modules == modules && merged.count == count)
		return &merged.settings;
	for (uint32_t i = 0; i < count; i++) {
		const struct sl_settings *from = modules[i].settings;

		merged.offsets[i] = bytes;
		assert(row_count + from->row_count <= ROWS_MAX);
		for (uint32_t j = 0; j < from->row_count; j++) {
			struct sl_setting *row = &merged.rows[row_count++];

			*row = from->rows[j];
			row->offset += bytes;
			if (row->present_offset)
				row->present_offset += bytes;
			if (row->where_offset)
				row->where_offset += bytes;
		}
		bytes += (from->bytes + ALIGN - 1) / ALIGN * ALIGN;
	}
	merged.modules = modules;
	merged.count = count;
	merged.settings = (struct sl_settings){
		.name = "configuration",
		.help = "The keys at the top.",
		.bytes = bytes,
		.rows = merged.rows,
		.row_count = row_count,
		.check = check_all,
	};
	return &merged.settings;
}

void *sl_modules_config(const struct sl_module *modules, uint32_t count, enum sl_module_id id,
			void *object)
{
	size_t offset = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (modules[i].id == id)
			return (char *)object + offset;
		offset += (modules[i].settings->bytes + ALIGN - 1) / ALIGN * ALIGN;
	}
	return NULL;
}

// Every module builds even when one before it failed, so that all problems are told at once.
static void build_parts(const struct sl_module *modules, uint32_t count,
			const struct sl_snapshot *before, bool check_only,
			struct sl_snapshot *snapshot, struct sl_errors *errors)
{
	const struct sl_build build = {
		.before = before,
		.errors = errors,
		.configs = (const void *const *)snapshot->configs,
		.check_only = check_only,
	};

	for (uint32_t i = 0; i < count; i++) {
		const struct sl_module *module = &modules[i];
		const uint32_t problems = sl_errors_count(errors);

		if (!module->build)
			continue;
		snapshot->parts[module->id] = module->build(snapshot->configs[module->id], &build);
		if (!snapshot->parts[module->id] && problems == sl_errors_count(errors))
			sl_errors_add(errors, NULL, "%s: could not be built", module->name);
	}
}

struct sl_snapshot *sl_snapshot_load(const struct sl_module *modules, uint32_t count,
				     const char *file, const struct sl_snapshot *before,
				     bool check_only, struct sl_errors *errors)
{
	const struct sl_settings *settings = sl_modules_settings(modules, count);
	const uint32_t problems = sl_errors_count(errors);
	struct sl_snapshot *snapshot = calloc(1, sizeof(*snapshot));

	if (!snapshot) {
		sl_errors_add(errors, NULL, "%s: no memory", file);
		return NULL;
	}
	if (sl_settings_load(settings, file, &snapshot->loaded, errors) < 0) {
		free(snapshot);
		return NULL;
	}
	for (uint32_t i = 0; i < count; i++)
		snapshot->configs[modules[i].id] = sl_modules_config(modules, count, modules[i].id,
								     snapshot->loaded.object);
	snapshot->generation = before ? before->generation + 1 : 1;
	build_parts(modules, count, before, check_only, snapshot, errors);
	if (problems == sl_errors_count(errors))
		return snapshot;
	sl_snapshot_destroy(modules, count, snapshot);
	return NULL;
}

void sl_snapshot_destroy(const struct sl_module *modules, uint32_t count,
			 struct sl_snapshot *snapshot)
{
	if (!snapshot)
		return;
	for (uint32_t i = count; i-- > 0;) {
		if (modules[i].destroy)
			modules[i].destroy(snapshot->parts[modules[i].id]);
	}
	sl_loaded_fini(&snapshot->loaded);
	free(snapshot);
}
