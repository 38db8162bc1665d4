#pragma once

#include "tenants/redis.h"

// Tenants that a control plane keeps in Redis: a hash PREFIX:tenants, a field for each tenant's
// name whose value says what the tenants file would (JSON or YAML), and PREFIX:tenants:version,
// which is changed after them. What is there is copied as a whole when the version is another one,
// and taken for a tenants file: so it is good as a whole or not taken at all.
//
// Threading: any one thread; calls block, for seconds when Redis is silent: never a shard's, nor
// the quota thread's. Memory: a text has references, counted atomically.
struct sl_source_text {
	uint32_t references;
	uint32_t count; // tenants
	char version[65];
	size_t size;
	char *text; // as a tenants file
};

struct sl_source_text *sl_source_text_get(struct sl_source_text *text);
void sl_source_text_put(struct sl_source_text *text); // NULL is fine

// What messages call it: "redis:HOST:PORT/PREFIX:tenants".
void sl_source_name(const struct sl_tenants_redis_config *config, char name[400]);

// Fetches what is there unless its version is `known` (NULL: fetch always). Returns 1 with a text
// to put; 0, nothing new; -errno with `error`: -ENODATA, nothing was published; -EBADMSG, what is
// there cannot be tenants; else Redis could not be asked. `redis` is kept open for the next call
// (NULL: it is not).
int sl_source_fetch(const struct sl_tenants_redis_config *config, struct sl_redis *redis,
		    const char *known, struct sl_source_text **text, char *error,
		    size_t error_size);

// Subscribes to what Redis tells of the version's key. Returns 0 or -errno.
int sl_source_listen(const struct sl_tenants_redis_config *config, struct sl_redis *ear);

// Whose value that line of the text is; empty: nobody's.
struct sl_bytes sl_source_tenant_at(const struct sl_source_text *text, uint32_t line);

// Fields and values, as a control plane wrote them: the text of a tenants file. Sorts them; of a
// name that is there twice the first counts. Returns NULL with `error`.
struct sl_source_field {
	char *name, *value; // malloc'ed
	size_t name_size, value_size;
};
struct sl_source_text *sl_source_compose(struct sl_source_field *fields, uint32_t count,
					 const char *version, char *error, size_t error_size);

// The last good text in a file of this machine. Return 0 or -errno; -EBADMSG: it is not whole.
int sl_source_cache_write(const char *path, const struct sl_source_text *text);
int sl_source_cache_read(const char *path, struct sl_source_text **text);
