#include "tenants/fleet/link.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>

#define SILENCE_NS     (200 * SL_MS) // and two round trips
#define DIAL_NS        (2 * SL_S)
#define BACKOFF_MIN_NS (100 * SL_MS)
// While some instances are back and others are not, both spend: so not longer.
#define BACKOFF_MAX_NS (500 * SL_MS)
#define BEAT_NS        SL_S
// The script's reply is a quarter of this at most.
#define UNREAD_MAX (32 * SL_KIB)

enum awaited { AWAIT_OK, AWAIT_SHA, AWAIT_CALL, AWAIT_VOLUME_SHA, AWAIT_VOLUME };

// The reader's objects: the one reply of ours that is being read. Nothing here ever answers with an
// array, so there are none.
static void *read_string(const redisReadTask *task, char *text, size_t size)
{
	struct sl_fleet_link_reply *reply = task->privdata;

	if (size >= sizeof(reply->bytes))
		return NULL;
	memcpy(reply->bytes, text, size);
	reply->bytes[size] = 0;
	reply->size = size;
	reply->type = task->type;
	return reply;
}

static void *read_array(const redisReadTask *task, int count)
{
	(void)task;
	(void)count;
	return NULL;
}

static void *read_integer(const redisReadTask *task, long long value)
{
	struct sl_fleet_link_reply *reply = task->privdata;

	reply->type = task->type;
	reply->integer = value;
	reply->size = 0;
	return reply;
}

static void *read_nil(const redisReadTask *task)
{
	return read_integer(task, 0);
}

static void read_free(void *object)
{
	(void)object;
}

static redisReplyObjectFunctions reader_functions = {read_string, read_array, read_integer,
						     read_nil, read_free};

static char *copy_of(const char *text)
{
	return text && *text ? strdup(text) : NULL;
}

int sl_fleet_link_init(struct sl_fleet_link *link, const struct sl_fleet_link_options *options,
		       uint64_t seed)
{
	const char *prefix = options->prefix ? options->prefix : "sluice";

	*link = (struct sl_fleet_link){.backoff_ns = BACKOFF_MIN_NS, .rtt_s = 0.001};
	memcpy(link->instance, options->instance, SL_FLEET_INSTANCE);
	link->database = options->database;
	link->user = copy_of(options->user);
	link->password = copy_of(options->password);
	// Braces: in a Redis Cluster both keys lie together.
	snprintf(link->keys[0], sizeof(link->keys[0]), "{%.40s}:quota", prefix);
	snprintf(link->prefix, sizeof(link->prefix), "{%.40s}", prefix);
	snprintf(link->keys[1], sizeof(link->keys[1]), "{%.40s}:alive", prefix);
	sl_random_init(&link->random, seed);
	link->argument = malloc(SL_FLEET_ARGUMENT_MAX);
	link->out_max = 2 * (SL_FLEET_ARGUMENT_MAX + SL_KIB) + strlen(sl_fleet_quota_script) +
			SL_FLEET_VOLUME_ARGUMENT_MAX + SL_KIB + strlen(sl_fleet_volume_script);
	link->out = malloc(link->out_max);
	if (!link->argument || !link->out || (options->user && *options->user && !link->user) ||
	    (options->password && *options->password && !link->password)) {
		sl_fleet_link_fini(link);
		return -ENOMEM;
	}
	return 0;
}

void sl_fleet_link_fini(struct sl_fleet_link *link)
{
	if (link->reader)
		redisReaderFree(link->reader);
	free(link->out);
	free(link->argument);
	free(link->user);
	free(link->password);
	*link = (struct sl_fleet_link){0};
}

static void end_calls(struct sl_fleet_link *link, uint64_t now_ns)
{
	while (link->call_count) {
		struct sl_fleet_call *call = &link->calls[link->first_call];

		link->first_call = (link->first_call + 1) % SL_FLEET_CALLS;
		link->call_count--;
		link->lost++;
		link->ended(link->owner, link, call, SL_FLEET_LOST, NULL, now_ns);
	}
}

static void end_volume_call(struct sl_fleet_link *link, struct sl_bytes reply, uint64_t now_ns)
{
	link->volume_asking = false;
	link->volume_ended(link->owner, link, reply, now_ns);
}

void sl_fleet_link_failed(struct sl_fleet_link *link, const char *problem, uint64_t now_ns)
{
	if (link->state == SL_FLEET_LINK_DOWN) {
		link->hang_up = false;
		return;
	}
	snprintf(link->problem, sizeof(link->problem), "%s", problem);
	link->failures++;
	link->state = SL_FLEET_LINK_DOWN;
	link->hang_up = true;
	link->answered = false;
	link->dial_ns = now_ns + link->backoff_ns / 2 +
			sl_random_below(&link->random, link->backoff_ns / 2);
	link->backoff_ns = SL_MIN(link->backoff_ns * 2, BACKOFF_MAX_NS);
	link->out_at = link->out_size = 0;
	link->awaited_count = 0;
	link->volume_sha[0] = 0;
	link->volume_loading = false;
	end_calls(link, now_ns);
	if (link->volume_asking)
		end_volume_call(link, SL_BYTES_NONE, now_ns);
}

bool sl_fleet_link_tick(struct sl_fleet_link *link, uint64_t now_ns)
{
	const uint64_t silence_ns = SILENCE_NS + (uint64_t)(2 * link->rtt_s * (double)SL_S);

	switch (link->state) {
	case SL_FLEET_LINK_DOWN:
		if (now_ns < link->dial_ns)
			return false;
		link->hang_up = false;
		link->state = SL_FLEET_LINK_DIALING;
		link->since_ns = now_ns;
		return true;
	case SL_FLEET_LINK_DIALING:
		if (now_ns > link->since_ns + DIAL_NS)
			sl_fleet_link_failed(link, "no connection in time", now_ns);
		return false;
	case SL_FLEET_LINK_GREETING:
		if (now_ns > link->since_ns + DIAL_NS)
			sl_fleet_link_failed(link, "no greeting in time", now_ns);
		// fall through
	case SL_FLEET_LINK_UP:
		if ((link->call_count &&
		     now_ns > link->calls[link->first_call].sent_ns + silence_ns) ||
		    (link->volume_asking && now_ns > link->volume_sent_ns + silence_ns))
			sl_fleet_link_failed(link, "no answer in time", now_ns);
	}
	return false;
}

static void await(struct sl_fleet_link *link, enum awaited kind)
{
	assert(link->awaited_count < SL_COUNT_OF(link->awaited));
	link->awaited[(link->first_awaited + link->awaited_count++) % SL_COUNT_OF(link->awaited)] =
		(uint8_t)kind;
}

static void send_command(struct sl_fleet_link *link, enum awaited kind, uint32_t count,
			 const char **words, const size_t *sizes)
{
	char *command = NULL;
	const int size = redisFormatCommandArgv(&command, (int)count, words, sizes);

	assert(size > 0);
	if (link->out_at) {
		memmove(link->out, link->out + link->out_at, link->out_size - link->out_at);
		link->out_size -= link->out_at;
		link->out_at = 0;
	}
	assert(link->out_size + (size_t)size <= link->out_max);
	memcpy(link->out + link->out_size, command, (size_t)size);
	link->out_size += (size_t)size;
	free(command);
	await(link, kind);
}

static void load_script(struct sl_fleet_link *link, uint64_t now_ns)
{
	const char *words[] = {"SCRIPT", "LOAD", sl_fleet_quota_script};

	link->state = SL_FLEET_LINK_GREETING;
	link->since_ns = now_ns;
	send_command(link, AWAIT_SHA, 3, words, NULL);
}

void sl_fleet_link_connected(struct sl_fleet_link *link, uint64_t now_ns)
{
	assert(link->state == SL_FLEET_LINK_DIALING);
	if (link->reader)
		redisReaderFree(link->reader);
	link->reader = redisReaderCreateWithFunctions(&reader_functions);
	if (!link->reader) {
		sl_fleet_link_failed(link, "no memory", now_ns);
		return;
	}
	link->reader->privdata = &link->reply;
	link->beat_ns = 0;
	if (link->password) {
		const char *words[] = {"AUTH", link->user, link->password};

		if (link->user)
			send_command(link, AWAIT_OK, 3, words, NULL);
		else
			send_command(link, AWAIT_OK, 2, (const char *[]){"AUTH", link->password},
				     NULL);
	}
	if (link->database) {
		char number[16];

		snprintf(number, sizeof(number), "%u", link->database);
		send_command(link, AWAIT_OK, 2, (const char *[]){"SELECT", number}, NULL);
	}
	load_script(link, now_ns);
}

static void finish_call(struct sl_fleet_link *link, enum sl_fleet_end end,
			const struct sl_fleet_reply *reply, uint64_t now_ns)
{
	struct sl_fleet_call *call = &link->calls[link->first_call];

	assert(link->call_count);
	link->first_call = (link->first_call + 1) % SL_FLEET_CALLS;
	link->call_count--;
	if (end == SL_FLEET_LOST)
		link->lost++;
	link->ended(link->owner, link, call, end, reply, now_ns);
}

static void take_answer(struct sl_fleet_link *link, uint64_t now_ns)
{
	const struct sl_fleet_call *call = &link->calls[link->first_call];
	const struct sl_fleet_link_reply *got = &link->reply;
	const double rtt_s = (double)(now_ns - call->sent_ns) / (double)SL_S;
	struct sl_fleet_reply reply;

	if (got->type == REDIS_REPLY_ERROR &&
	    sl_bytes_start(sl_bytes(got->bytes, got->size), SL_LITERAL("NOSCRIPT"))) {
		finish_call(link, SL_FLEET_UNHEARD, NULL, now_ns);
		if (link->state == SL_FLEET_LINK_UP)
			load_script(link, now_ns);
		return;
	}
	if (got->type == REDIS_REPLY_ERROR) {
		sl_fleet_link_failed(link, (const char *)got->bytes, now_ns);
		return;
	}
	if (got->type != REDIS_REPLY_STRING ||
	    sl_fleet_parse_reply(sl_bytes(got->bytes, got->size), &reply) || reply.id != call->id ||
	    (reply.status == SL_FLEET_DONE && reply.count != call->count)) {
		sl_fleet_link_failed(link, "not the script's reply", now_ns);
		return;
	}
	link->rtt_s += 0.2 * (rtt_s - link->rtt_s);
	link->mended += reply.mended;
	link->told_us = reply.now_us;
	link->told_ns = now_ns;
	if (reply.alive)
		link->alive = reply.alive;
	link->backoff_ns = BACKOFF_MIN_NS;
	link->answered = true;
	if (reply.status == SL_FLEET_DUPLICATE)
		finish_call(link, SL_FLEET_LOST, NULL, now_ns);
	else
		finish_call(link, SL_FLEET_ANSWERED, &reply, now_ns);
}

static void take_volume_answer(struct sl_fleet_link *link, uint64_t now_ns)
{
	const struct sl_fleet_link_reply *got = &link->reply;
	const struct sl_bytes text = sl_bytes(got->bytes, got->size);

	if (got->type == REDIS_REPLY_ERROR && sl_bytes_start(text, SL_LITERAL("NOSCRIPT"))) {
		link->volume_sha[0] = 0; // it restarted; loaded anew by the next
		end_volume_call(link, SL_BYTES_NONE, now_ns);
	} else if (got->type == REDIS_REPLY_ERROR) {
		sl_fleet_link_failed(link, (const char *)got->bytes, now_ns);
	} else if (got->type != REDIS_REPLY_STRING || got->size < SL_FLEET_VOLUME_REPLY_HEAD ||
		   got->bytes[0] != 0) {
		sl_fleet_link_failed(link, "not the volumes' reply", now_ns);
	} else {
		end_volume_call(link, text, now_ns);
	}
}

static void take_reply(struct sl_fleet_link *link, uint64_t now_ns)
{
	const struct sl_fleet_link_reply *got = &link->reply;
	const enum awaited kind = link->awaited[link->first_awaited];

	link->first_awaited = (link->first_awaited + 1) % SL_COUNT_OF(link->awaited);
	link->awaited_count--;
	if (kind == AWAIT_CALL) {
		take_answer(link, now_ns);
		return;
	}
	if (kind == AWAIT_VOLUME) {
		take_volume_answer(link, now_ns);
		return;
	}
	if (got->type == REDIS_REPLY_ERROR) {
		sl_fleet_link_failed(link, (const char *)got->bytes, now_ns);
		return;
	}
	if (kind == AWAIT_SHA) {
		if (got->type != REDIS_REPLY_STRING || got->size != sizeof(link->sha) - 1) {
			sl_fleet_link_failed(link, "not a script's digest", now_ns);
			return;
		}
		memcpy(link->sha, got->bytes, sizeof(link->sha));
		link->state = SL_FLEET_LINK_UP;
	}
	if (kind == AWAIT_VOLUME_SHA) {
		link->volume_loading = false;
		if (got->type == REDIS_REPLY_STRING && got->size == sizeof(link->volume_sha) - 1)
			memcpy(link->volume_sha, got->bytes, sizeof(link->volume_sha));
		else
			sl_fleet_link_failed(link, "not a script's digest", now_ns);
	}
}

void sl_fleet_link_received(struct sl_fleet_link *link, struct sl_bytes bytes, uint64_t now_ns)
{
	if (link->state < SL_FLEET_LINK_GREETING || bytes.size == 0)
		return;
	if (redisReaderFeed(link->reader, (const char *)bytes.data, bytes.size) != REDIS_OK) {
		sl_fleet_link_failed(link, "no memory", now_ns);
		return;
	}
	while (link->state >= SL_FLEET_LINK_GREETING) {
		void *reply = NULL;

		if (redisReaderGetReply(link->reader, &reply) != REDIS_OK) {
			sl_fleet_link_failed(link, "not Redis' protocol", now_ns);
			return;
		}
		if (!reply)
			break;
		if (link->awaited_count == 0) {
			sl_fleet_link_failed(link, "an answer that nobody asked for", now_ns);
			return;
		}
		take_reply(link, now_ns);
	}
	if (link->state >= SL_FLEET_LINK_GREETING &&
	    link->reader->len - link->reader->pos > UNREAD_MAX)
		sl_fleet_link_failed(link, "an answer without an end", now_ns);
}

struct sl_bytes sl_fleet_link_output(const struct sl_fleet_link *link)
{
	return sl_bytes(link->out + link->out_at, link->out_size - link->out_at);
}

void sl_fleet_link_sent(struct sl_fleet_link *link, size_t bytes)
{
	assert(bytes <= link->out_size - link->out_at);
	link->out_at += bytes;
}

struct sl_fleet_call *sl_fleet_link_begin(struct sl_fleet_link *link)
{
	struct sl_fleet_call *call;

	if (link->state != SL_FLEET_LINK_UP || link->call_count == SL_FLEET_CALLS)
		return NULL;
	call = &link->calls[(link->first_call + link->call_count) % SL_FLEET_CALLS];
	call->count = 0;
	return call;
}

void sl_fleet_link_call(struct sl_fleet_link *link, struct sl_fleet_call *call,
			const struct sl_fleet_ask *asks, const struct sl_bytes *fields,
			uint64_t now_ns)
{
	struct sl_fleet_head head = {
		.id = ++link->last_id,
		.beat = now_ns >= link->beat_ns,
		.count = (uint16_t)call->count,
	};
	size_t size;

	assert(link->state == SL_FLEET_LINK_UP && call->count <= SL_FLEET_CALL_MAX);
	memcpy(head.instance, link->instance, sizeof(head.instance));
	if (head.beat)
		link->beat_ns = now_ns + BEAT_NS;
	size = sl_fleet_pack_head(link->argument, &head);
	for (uint32_t i = 0; i < call->count; i++) {
		call->wants[i] = (int64_t)asks[i].want;
		size += sl_fleet_pack_ask(link->argument + size, fields[i], &asks[i]);
	}
	call->id = head.id;
	call->sent_ns = now_ns;
	link->call_count++;

	const char *words[] = {"EVALSHA",     link->sha,     "2",
			       link->keys[0], link->keys[1], (const char *)link->argument};
	const size_t sizes[] = {7, 40, 1, strlen(link->keys[0]), strlen(link->keys[1]), size};

	send_command(link, AWAIT_CALL, 6, words, sizes);
}

bool sl_fleet_link_volume_begin(struct sl_fleet_link *link)
{
	const char *words[] = {"SCRIPT", "LOAD", sl_fleet_volume_script};

	if (link->state != SL_FLEET_LINK_UP || link->volume_asking || link->volume_loading)
		return false;
	if (link->volume_sha[0])
		return true;
	link->volume_loading = true;
	send_command(link, AWAIT_VOLUME_SHA, 3, words, NULL);
	return false;
}

void sl_fleet_link_volume_call(struct sl_fleet_link *link, const char *period,
			       struct sl_bytes argument, uint64_t now_ns)
{
	char key[96];
	const int key_size = snprintf(key, sizeof(key), "%s:volume:%s", link->prefix, period);
	const char *words[] = {"EVALSHA", link->volume_sha, "1", key, (const char *)argument.data};
	const size_t sizes[] = {7, 40, 1, (size_t)key_size, argument.size};

	assert(link->state == SL_FLEET_LINK_UP && !link->volume_asking && link->volume_sha[0]);
	link->volume_asking = true;
	link->volume_sent_ns = now_ns;
	send_command(link, AWAIT_VOLUME, 5, words, sizes);
}
