#include "tenants/source.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/by_tenant.h"
#include "dataplane/base/disk.h"
#include "dataplane/base/hash.h"
#include "tenants/registry.h"

#define SCAN_COUNT      "1000"
#define ATTEMPTS        3 // when what is there changes while it is read
#define VALUE_BYTES_MAX (64 * SL_KIB)
#define TEXT_BYTES_MAX  (200 * SL_MIB)
#define CACHE_HEAD      "# sluice tenants 1 "

struct sl_source_text *sl_source_text_get(struct sl_source_text *text)
{
	__atomic_fetch_add(&text->references, 1, __ATOMIC_RELAXED);
	return text;
}

void sl_source_text_put(struct sl_source_text *text)
{
	if (!text || __atomic_sub_fetch(&text->references, 1, __ATOMIC_ACQ_REL))
		return;
	free(text->text);
	free(text);
}

void sl_source_name(const struct sl_tenants_redis_config *config, char name[400])
{
	snprintf(name, 400, "redis:%.250s/%.*s:tenants", config->redis.address, SL_QUOTA_PREFIX_MAX,
		 config->redis.prefix);
}

// --- the text ------------------------------------------------------------------------------------

static int by_name(const void *a, const void *b)
{
	const struct sl_source_field *one = a, *other = b;
	const int order = memcmp(one->name, other->name, SL_MIN(one->name_size, other->name_size));

	return order ? order
		     : (one->name_size > other->name_size) - (one->name_size < other->name_size);
}

// A value at its place in the file. JSON goes into one line; YAML below its name, line by line. A
// dollar is none of the environment's: that is this machine's, not the control plane's.
static void put_value(FILE *out, const char *value, size_t size)
{
	const char *end = value + size;
	bool json;

	while (value < end && strchr(" \t\r\n", *value) && *value)
		value++;
	json = value < end && *value == '{';
	if (value == end) {
		fputs(" {}\n", out);
		return;
	}
	fputs(json ? " " : "\n    ", out);
	for (; value < end; value++) {
		if (*value == '$')
			fputs("$$", out);
		else if (*value == '\r')
			continue;
		else if (*value == '\n')
			fputs(json ? " " : "\n    ", out);
		else
			fputc(*value, out);
	}
	fputc('\n', out);
}

static int check_field(const struct sl_source_field *field, char *error, size_t error_size)
{
	if (!sl_tenant_name_valid(sl_bytes(field->name, field->name_size))) {
		const bool reserved = sl_tenant_name_reserved(
			sl_bytes(field->name, field->name_size));

		snprintf(error, error_size, "field %.*s is no name of a tenant%s",
			 (int)SL_MIN(field->name_size, 40), field->name,
			 reserved ? ": the ledger's own account has it" : "");
		return -EBADMSG;
	}
	if (field->value_size > VALUE_BYTES_MAX || memchr(field->value, 0, field->value_size)) {
		snprintf(error, error_size, "tenant %.*s: its value is %s", (int)field->name_size,
			 field->name, field->value_size > VALUE_BYTES_MAX ? "too long" : "no text");
		return -EBADMSG;
	}
	return 0;
}

static struct sl_source_text *make_text(const char *version)
{
	struct sl_source_text *text = calloc(1, sizeof(*text));

	if (!text)
		return NULL;
	text->references = 1;
	snprintf(text->version, sizeof(text->version), "%s", version);
	return text;
}

struct sl_source_text *sl_source_compose(struct sl_source_field *fields, uint32_t count,
					 const char *version, char *error, size_t error_size)
{
	struct sl_source_text *text = make_text(version);
	FILE *out = text ? open_memstream(&text->text, &text->size) : NULL;
	bool failed = !out;

	snprintf(error, error_size, "out of memory");
	if (count)
		qsort(fields, count, sizeof(*fields), by_name);
	if (out)
		fputs(count ? "tenants:\n" : "tenants: {}\n", out);
	for (uint32_t i = 0; i < count && !failed; i++) {
		const struct sl_source_field *field = &fields[i];

		if (i && by_name(field, field - 1) == 0)
			continue; // a scan may tell of a field twice
		if (check_field(field, error, error_size)) {
			failed = true;
			break;
		}
		fprintf(out, "  \"%.*s\":", (int)field->name_size, field->name);
		put_value(out, field->value, field->value_size);
		text->count++;
		if (ftell(out) > (long)TEXT_BYTES_MAX) {
			snprintf(error, error_size, "more than %llu bytes",
				 (unsigned long long)TEXT_BYTES_MAX);
			failed = true;
		}
	}
	failed |= out && (ferror(out) || fclose(out));
	if (!failed)
		return text;
	sl_source_text_put(text);
	return NULL;
}

struct sl_bytes sl_source_tenant_at(const struct sl_source_text *text, uint32_t line)
{
	const char *at = text->text, *end = text->text + text->size, *name = NULL;

	for (uint32_t i = 1; at && at < end && i <= line; i++) {
		if (end - at > 3 && memcmp(at, "  \"", 3) == 0)
			name = at + 3;
		at = memchr(at, '\n', (size_t)(end - at));
		at = at ? at + 1 : NULL;
	}
	at = name ? memchr(name, '"', (size_t)(end - name)) : NULL;
	return at ? sl_bytes(name, (size_t)(at - name)) : SL_BYTES_NONE;
}

// --- Redis ---------------------------------------------------------------------------------------

struct fetch {
	struct sl_redis *redis;
	char hash[SL_QUOTA_PREFIX_MAX + 16], version[SL_QUOTA_PREFIX_MAX + 24];
	struct sl_source_field *fields;
	uint32_t count, room;
	char *error;
	size_t error_size;
};

// What a server says may hold anything.
static int fail(struct fetch *fetch, int error, const char *what)
{
	snprintf(fetch->error, fetch->error_size, "%s", what);
	for (char *at = fetch->error; *at; at++)
		*at = (uint8_t)*at < ' ' || *at == '"' || *at == 0x7f ? '\'' : *at;
	return error;
}

// The answer of the wanted type, or NULL after a message.
static redisReply *call(struct fetch *fetch, int type, int count, const char **words, int *error)
{
	redisReply *reply = sl_redis_call(fetch->redis, count, words);

	if (!reply) {
		*error = fail(fetch, -EPIPE, fetch->redis->problem);
	} else if (reply->type == REDIS_REPLY_ERROR) {
		*error = fail(fetch, strncmp(reply->str, "WRONGTYPE", 9) ? -EIO : -EBADMSG,
			      reply->str);
	} else if (reply->type != type && reply->type != REDIS_REPLY_NIL) {
		*error = fail(fetch, -EBADMSG, "an answer of another type");
	} else {
		return reply;
	}
	freeReplyObject(reply);
	return NULL;
}

static int no_version(struct fetch *fetch)
{
	char what[sizeof(fetch->version) + 64];

	snprintf(what, sizeof(what), "nothing is published: there is no key %s", fetch->version);
	return fail(fetch, -ENODATA, what);
}

static int get_version(struct fetch *fetch, char version[65])
{
	int error = 0;
	redisReply *reply = call(fetch, REDIS_REPLY_STRING, 2,
				 (const char *[]){"GET", fetch->version}, &error);

	if (!reply)
		return error;
	if (reply->type == REDIS_REPLY_NIL)
		error = no_version(fetch);
	else if (reply->len == 0 || reply->len > 64)
		error = fail(fetch, -EBADMSG, "the version is not 1 to 64 bytes long");
	else
		snprintf(version, 65, "%s", reply->str);
	freeReplyObject(reply);
	return error;
}

static int add_field(struct fetch *fetch, const redisReply *name, const redisReply *value)
{
	struct sl_source_field *field;

	if (name->type != REDIS_REPLY_STRING || value->type != REDIS_REPLY_STRING)
		return fail(fetch, -EBADMSG, "an answer of another type");
	if (fetch->count == SL_TENANTS_MAX)
		return fail(fetch, -EBADMSG, "more tenants than there can be");
	if (fetch->count == fetch->room) {
		const uint32_t room = SL_MAX(fetch->room * 2, 1024);

		field = realloc(fetch->fields, room * sizeof(*field));
		if (!field)
			return fail(fetch, -ENOMEM, "out of memory");
		fetch->fields = field;
		fetch->room = room;
	}
	field = &fetch->fields[fetch->count];
	*field = (struct sl_source_field){malloc(name->len + 1), malloc(value->len + 1), name->len,
					  value->len};
	fetch->count++; // also when one is missing: it is freed with the others
	if (!field->name || !field->value)
		return fail(fetch, -ENOMEM, "out of memory");
	memcpy(field->name, name->str, name->len + 1);
	memcpy(field->value, value->str, value->len + 1);
	return 0;
}

static void drop_fields(struct fetch *fetch)
{
	for (uint32_t i = 0; i < fetch->count; i++) {
		free(fetch->fields[i].name);
		free(fetch->fields[i].value);
	}
	fetch->count = 0;
}

static int scan(struct fetch *fetch)
{
	char cursor[32] = "0";
	int error = 0;

	drop_fields(fetch);
	do {
		redisReply *reply = call(
			fetch, REDIS_REPLY_ARRAY, 5,
			(const char *[]){"HSCAN", fetch->hash, cursor, "COUNT", SCAN_COUNT},
			&error);

		if (!reply)
			return error;
		if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
		    reply->element[0]->type != REDIS_REPLY_STRING ||
		    reply->element[1]->type != REDIS_REPLY_ARRAY || reply->element[1]->elements % 2)
			error = fail(fetch, -EBADMSG, "not the answer of a scan");
		else
			snprintf(cursor, sizeof(cursor), "%s", reply->element[0]->str);
		for (size_t i = 0; !error && i < reply->element[1]->elements; i += 2)
			error = add_field(fetch, reply->element[1]->element[i],
					  reply->element[1]->element[i + 1]);
		freeReplyObject(reply);
	} while (!error && strcmp(cursor, "0") != 0);
	return error;
}

static int fetch_all(struct fetch *fetch, const char *known, struct sl_source_text **text)
{
	char before[65], after[65];
	int error;

	for (unsigned i = 0; i < ATTEMPTS; i++) {
		error = get_version(fetch, before);
		if (error)
			return error;
		if (known && strcmp(before, known) == 0)
			return 0;
		error = scan(fetch);
		if (!error)
			error = get_version(fetch, after);
		if (error)
			return error;
		if (strcmp(before, after) != 0)
			continue; // written meanwhile
		*text = sl_source_compose(fetch->fields, fetch->count, after, fetch->error,
					  fetch->error_size);
		return *text ? 1 : -EBADMSG;
	}
	return fail(fetch, -EAGAIN, "it changes faster than it can be read");
}

// A connection that was kept may have been closed since: then another is made. Who did not answer
// in time is asked again when it is time for the next look.
static int ask(struct fetch *fetch, const struct sl_tenants_redis_config *config, const char *known,
	       struct sl_source_text **text)
{
	const bool kept = fetch->redis->stream;
	bool again;
	int result = kept ? 0 : sl_redis_open(fetch->redis, &config->redis);

	if (result)
		return fail(fetch, -EIO, fetch->redis->problem);
	result = fetch_all(fetch, known, text);
	if (result != -EPIPE)
		return result;
	again = kept && !fetch->redis->silent;
	sl_redis_close(fetch->redis);
	return again ? ask(fetch, config, known, text) : -EIO;
}

int sl_source_fetch(const struct sl_tenants_redis_config *config, struct sl_redis *redis,
		    const char *known, struct sl_source_text **text, char *error, size_t error_size)
{
	struct sl_redis own = {0};
	struct fetch fetch = {
		.redis = redis ? redis : &own, .error = error, .error_size = error_size};
	int result;

	*text = NULL;
	snprintf(fetch.hash, sizeof(fetch.hash), "%s:tenants", config->redis.prefix);
	snprintf(fetch.version, sizeof(fetch.version), "%s:version", fetch.hash);
	result = ask(&fetch, config, known, text);
	drop_fields(&fetch);
	free(fetch.fields);
	sl_redis_close(&own);
	return result;
}

int sl_source_listen(const struct sl_tenants_redis_config *config, struct sl_redis *ear)
{
	char channel[SL_QUOTA_PREFIX_MAX + 64];
	struct sl_quota_redis_place place;
	redisReply *reply = NULL;
	bool heard;
	int error = sl_redis_open(ear, &config->redis);

	if (error)
		return error;
	sl_quota_redis_place(&config->redis, &place);
	snprintf(channel, sizeof(channel), "__keyspace@%u__:%s:tenants:version", place.database,
		 config->redis.prefix);
	reply = sl_redis_call(ear, 2, (const char *[]){"SUBSCRIBE", channel});
	heard = reply && reply->type == REDIS_REPLY_ARRAY;
	if (reply && !heard)
		snprintf(ear->problem, sizeof(ear->problem), "%.*s", (int)reply->len, reply->str);
	freeReplyObject(reply);
	if (!heard)
		sl_redis_close(ear);
	return heard ? 0 : -EIO;
}

// --- the cache -----------------------------------------------------------------------------------

static uint64_t sum(const char *text, size_t size)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); // FNV-1a: the same in every process

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ (uint8_t)text[i]) * UINT64_C(0x100000001b3);
	return hash;
}

int sl_source_cache_write(const char *path, const struct sl_source_text *text)
{
	char *whole = NULL;
	size_t size = 0;
	FILE *file = open_memstream(&whole, &size);
	int error = -ENOMEM;

	if (!file)
		return error;
	fprintf(file, CACHE_HEAD "%u %016llx %zu %s\n", text->count,
		(unsigned long long)sum(text->text, text->size), strlen(text->version),
		text->version);
	fwrite(text->text, 1, text->size, file);
	if (fclose(file) == 0)
		error = sl_disk_replace(path, sl_bytes(whole, size));
	free(whole);
	return error;
}

// The head as written, then the text as it was summed up.
static int read_cache(FILE *file, struct sl_source_text *text)
{
	unsigned long long want;
	char *line = NULL, *version;
	size_t room = 0, length, got;
	ssize_t size = getline(&line, &room, file);
	int used = 0, error = -EBADMSG;

	if (size > 0 && line[size - 1] == '\n' &&
	    sscanf(line, CACHE_HEAD "%u %llx %zu %n", &text->count, &want, &length, &used) == 3 &&
	    used && length < sizeof(text->version) && (size_t)(size - 1 - used) == length) {
		version = line + used;
		memcpy(text->version, version, length);
		error = 0;
	}
	free(line);
	for (room = 0; !error; text->size += got) {
		if (text->size == room) {
			char *grown = realloc(text->text, room * 2 + 65536);

			if (!grown)
				return -ENOMEM;
			text->text = grown;
			room = room * 2 + 65536;
		}
		got = fread(text->text + text->size, 1, room - text->size, file);
		if (!got)
			break;
	}
	if (!error && (ferror(file) || sum(text->text, text->size) != want))
		error = -EBADMSG;
	return error;
}

int sl_source_cache_read(const char *path, struct sl_source_text **text)
{
	FILE *file = fopen(path, "re");
	int error;

	*text = NULL;
	if (!file)
		return -errno;
	*text = make_text("");
	error = *text ? read_cache(file, *text) : -ENOMEM;
	fclose(file);
	if (!error)
		return 0;
	sl_source_text_put(*text);
	*text = NULL;
	return error;
}
