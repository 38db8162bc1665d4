#include "tenants/sources.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/log.h"
#include "dataplane/tls/tls.h"
#include "tenants/table.h"

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

static int took(struct sl_sources *sources, int error)
{
	if (error)
		return error;
	sources->files[sources->count++] = sources->loaded[sources->loaded_count++].object;
	return 0;
}

static int load(struct sl_sources *sources, const char *path, struct sl_errors *errors)
{
	return took(sources, sl_settings_load(&sl_tenants_file_settings, path,
					      &sources->loaded[sources->loaded_count], errors));
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

// At start: what Redis has, or else what it had last.
static int first_text(struct sl_sources *sources, const struct sl_tenants_redis_config *config,
		      bool check_only, struct sl_errors *errors)
{
	char error[200] = "--check asks nobody", name[400];
	const char *cache = "not configured";
	struct sl_tls_context *context;
	int failed = sl_redis_tls(&config->redis, &context, error, sizeof(error));

	if (failed) {
		sl_errors_add(errors, &config->redis.where, "tenants.redis: %s", error);
		return failed;
	}
	sl_tls_context_put(context);
	failed = check_only ? -ENODATA
			    : sl_source_fetch(config, NULL, NULL, &sources->text, error,
					      sizeof(error));
	if (failed >= 0)
		return 0;
	sl_source_name(config, name);
	failed = config->cache ? sl_source_cache_read(config->cache, &sources->text) : -ENOENT;
	if (!failed)
		cache = "taken";
	else if (config->cache)
		cache = strerror(-failed);
	if (!check_only)
		sl_log(SL_LOG_WARN, "tenants_redis", "from=%s reason=\"%s\" cache=\"%s\"", name,
		       error, cache);
	if (!failed || !config->required || check_only)
		return 0;
	sl_errors_add(errors, &config->redis.where, "tenants.redis: %s: %s; and the cache: %s",
		      name, error, cache);
	return -EINVAL;
}

static int load_redis(struct sl_sources *sources, const struct sl_tenants_redis_config *config,
		      const struct sl_tenants *before, bool check_only, struct sl_errors *errors)
{
	char name[400];
	int error = 0;

	if (!before)
		error = first_text(sources, config, check_only, errors);
	else if (before->registry->offered)
		sources->text = sl_source_text_get(before->registry->offered);
	else if (before->source)
		sources->text = sl_source_text_get(before->source);
	if (error || !sources->text)
		return error;
	sl_source_name(config, name);
	return took(sources,
		    sl_settings_load_text(&sl_tenants_file_settings, name, sources->text->text,
					  sources->text->size,
					  &sources->loaded[sources->loaded_count], errors));
}

int sl_sources_load(struct sl_sources *sources, const struct sl_tenants_config *config,
		    const struct sl_tenants *before, bool check_only, struct sl_errors *errors)
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
	sources->files = calloc((size_t)count + 3, sizeof(*sources->files));
	sources->loaded = calloc((size_t)count + 2, sizeof(*sources->loaded));
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
	if (config->redis && sources->count) {
		const int failed = load_redis(sources, config->redis, before, check_only, errors);

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
	sl_source_text_put(sources->text);
	free(sources->loaded);
	free(sources->files);
	*sources = (struct sl_sources){0};
}
