#include "tenants/sources.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define DIRECTORY_FILES_MAX 10000

static bool has_ending(const char *name, const char *ending)
{
	const size_t size = strlen(name), tail = strlen(ending);

	return size > tail && strcmp(name + size - tail, ending) == 0;
}

// Editors' own files (.#a.yaml) begin with a dot.
static int is_tenants_file(const struct dirent *entry)
{
	return entry->d_name[0] != '.' &&
	       (has_ending(entry->d_name, ".yaml") || has_ending(entry->d_name, ".yml"));
}

static int load(struct sl_sources *sources, const char *path, struct sl_errors *errors)
{
	struct sl_loaded *loaded = &sources->loaded[sources->loaded_count];
	const int error = sl_settings_load(&sl_tenants_file_settings, path, loaded, errors);

	if (error)
		return error;
	sources->loaded_count++;
	sources->files[sources->count++] = loaded->object;
	return 0;
}

static int load_in(struct sl_sources *sources, const char *folder, const char *name,
		   struct sl_errors *errors)
{
	char *path = NULL;
	int error = -ENOMEM;

	if (asprintf(&path, "%s/%s", folder, name) >= 0)
		error = load(sources, path, errors);
	free(path);
	return error;
}

int sl_sources_load(struct sl_sources *sources, const struct sl_tenants_config *config,
		    struct sl_errors *errors)
{
	struct dirent **entries = NULL;
	int count = 0, error = 0;

	*sources = (struct sl_sources){0};
	if (config->directory)
		count = scandir(config->directory, &entries, is_tenants_file, alphasort);
	if (count < 0) {
		sl_errors_add(errors, &config->where, "tenants.directory: %s: %s",
			      config->directory, strerror(errno));
		return -EINVAL;
	}
	if (count > DIRECTORY_FILES_MAX) {
		sl_errors_add(errors, &config->where, "tenants.directory: more than %d files",
			      DIRECTORY_FILES_MAX);
		error = -EINVAL;
	}
	sources->files = calloc((size_t)count + 2, sizeof(*sources->files));
	sources->loaded = calloc((size_t)count + 1, sizeof(*sources->loaded));
	if (!sources->files || !sources->loaded) {
		sl_errors_add(errors, NULL, "tenants: out of memory");
		error = -ENOMEM;
	}
	if (!error)
		sources->files[sources->count++] = &config->inline_;
	if (!error && config->file)
		error = load(sources, config->file, errors);
	// The rest is read all the same: all problems are told at once.
	for (int i = 0; i < count && sources->count; i++) {
		const int failed = load_in(sources, config->directory, entries[i]->d_name, errors);

		error = failed ? failed : error;
	}
	for (int i = 0; i < count; i++)
		free(entries[i]);
	free(entries);
	return error;
}

void sl_sources_fini(struct sl_sources *sources)
{
	for (uint32_t i = 0; i < sources->loaded_count; i++)
		sl_loaded_fini(&sources->loaded[i]);
	free(sources->loaded);
	free(sources->files);
	*sources = (struct sl_sources){0};
}
