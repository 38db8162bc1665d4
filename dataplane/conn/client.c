#include "dataplane/conn/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/conn/client_link.h"

#define CONNECT_WITHIN_NS (5 * SL_S)
#define LOOK_EVERY_NS     (8 * SL_MS)
#define NAMES_FRESH_NS    (30 * SL_S) // after it a dial asks again, using the old ones meanwhile
#define BACKOFF_LEAST     (50 * SL_MS)
#define BACKOFF_MOST_NS   (5 * SL_S)

void sl_client_pool_note(struct sl_client_pool *pool, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(pool->error, sizeof(pool->error), format, arguments);
	va_end(arguments);
}

const char *sl_client_pool_error(const struct sl_client_pool *pool)
{
	return pool->error;
}

uint64_t sl_client_pool_handshakes(const struct sl_client_pool *pool, bool resumed)
{
	return pool->handshakes[resumed];
}

// --- the pool's life ----------------------------------------------------------------------------

static void free_pool(struct sl_client_pool *pool)
{
	sl_timer_cancel(pool->timers, &pool->timer);
	sl_lookup_drop(pool->lookup);
	sl_tls_tickets_drop(&pool->tickets);
	sl_tls_context_put(pool->options.tls);
	free((char *)(uintptr_t)pool->options.host);
	free(pool->clients);
	free(pool);
}

static bool all_free(const struct sl_client_pool *pool)
{
	for (uint32_t i = 0; i < pool->options.connections; i++) {
		if (pool->clients[i].state != SL_CLIENT_FREE)
			return false;
	}
	return true;
}

void sl_client_pool_enter(struct sl_client_pool *pool, uint64_t now_ns)
{
	pool->depth++;
	pool->now_ns = now_ns;
}

// An owner may destroy the pool from any upcall: it goes when nobody below is in it.
void sl_client_pool_leave(struct sl_client_pool *pool)
{
	void (*done)(void *user) = pool->done;
	void *user = pool->user;

	if (--pool->depth || !pool->closing || !all_free(pool))
		return;
	assert(!pool->open_calls);
	free_pool(pool);
	if (done)
		done(user);
}

static void pool_timer(struct sl_timer *timer, uint64_t now_ns);

// A literal address needs no resolver.
static bool parse_numeric(struct sl_client_pool *pool)
{
	struct sl_address *address = &pool->addresses[0];
	const char *host = pool->options.host;

	if (pool->options.address) {
		*address = *pool->options.address;
		pool->options.address = NULL; // the caller's
	} else if (inet_pton(AF_INET, host, &address->u.v4.sin_addr) == 1) {
		address->u.v4.sin_family = AF_INET;
		address->u.v4.sin_port = htons(pool->options.port);
		address->size = sizeof(address->u.v4);
	} else if (inet_pton(AF_INET6, host, &address->u.v6.sin6_addr) == 1) {
		address->u.v6.sin6_family = AF_INET6;
		address->u.v6.sin6_port = htons(pool->options.port);
		address->size = sizeof(address->u.v6);
	} else {
		return false;
	}
	pool->address_count = 1;
	return true;
}

struct sl_client_pool *sl_client_pool_create(const struct sl_client_options *options,
					     struct sl_io *io, struct sl_memory *memory,
					     struct sl_timers *timers)
{
	struct sl_client_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return NULL;
	pool->options = *options;
	pool->options.connections = SL_MAX(options->connections, 1u);
	pool->options.streams = SL_MAX(options->streams, 1u);
	if (!options->connect_timeout_ns)
		pool->options.connect_timeout_ns = CONNECT_WITHIN_NS;
	pool->options.host = strdup(options->host);
	pool->options.tls = options->tls ? sl_tls_context_get(options->tls) : NULL;
	pool->io = io;
	pool->memory = memory;
	pool->timers = timers;
	pool->timer.fire = pool_timer;
	pool->calls_max = pool->options.connections * pool->options.streams;
	pool->clients = calloc(pool->options.connections, sizeof(*pool->clients));
	if (!pool->options.host || !pool->clients) {
		free_pool(pool);
		return NULL;
	}
	for (uint32_t i = 0; i < pool->options.connections; i++)
		pool->clients[i].pool = pool;
	sl_random_init(&pool->random, (uintptr_t)pool);
	pool->numeric = parse_numeric(pool);
	return pool;
}

// --- calls --------------------------------------------------------------------------------------

static void enqueue(struct sl_client_pool *pool, struct sl_client_call *call)
{
	call->client = NULL;
	call->next = NULL;
	call->prev = pool->queue_last;
	if (call->prev)
		call->prev->next = call;
	else
		pool->queue = call;
	pool->queue_last = call;
}

static void dequeue(struct sl_client_pool *pool, struct sl_client_call *call)
{
	if (call->prev)
		call->prev->next = call->next;
	else
		pool->queue = call->next;
	if (call->next)
		call->next->prev = call->prev;
	else
		pool->queue_last = call->prev;
	call->next = call->prev = NULL;
}

void sl_client_call_end(struct sl_client_call *call, int result)
{
	struct sl_client_pool *pool = call->pool;

	sl_timer_cancel(pool->timers, &call->timer);
	call->pool = NULL;
	call->client = NULL;
	pool->open_calls--;
	call->ended(call, result, pool->now_ns);
}

static void end_open(struct sl_client_call *call, int result)
{
	if (call->client) {
		sl_client_revoke(call->client, call, result);
		return;
	}
	dequeue(call->pool, call);
	sl_client_call_end(call, result);
}

static void end_queue(struct sl_client_pool *pool, int result)
{
	// Only those that wait now: an owner may start again from ended().
	struct sl_client_call *last = pool->queue_last;
	struct sl_client_call *call;

	do {
		call = pool->queue;
		if (!call)
			return;
		dequeue(pool, call);
		sl_client_call_end(call, result);
	} while (call != last);
}

static void call_timer(struct sl_timer *timer, uint64_t now_ns)
{
	struct sl_client_call *call = SL_CONTAINER_OF(timer, struct sl_client_call, timer);
	struct sl_client_pool *pool = call->pool;

	sl_client_pool_enter(pool, now_ns);
	end_open(call, SL_CLIENT_TIMEOUT);
	sl_client_pool_leave(pool);
}

void sl_client_call_cancel(struct sl_client_call *call)
{
	struct sl_client_pool *pool = call->pool;

	if (!pool)
		return;
	sl_client_pool_enter(pool, pool->now_ns);
	end_open(call, SL_CLIENT_BROKEN);
	sl_client_pool_leave(pool);
}

// --- dialling -----------------------------------------------------------------------------------

static void back_off(struct sl_client_pool *pool)
{
	const uint64_t least_ns = BACKOFF_LEAST;

	pool->attempts = 0;
	pool->backoff_ns = SL_MIN(SL_MAX(pool->backoff_ns * 2, least_ns), BACKOFF_MOST_NS);
	// Jittered, so that those who lost the same peer do not all come back at once.
	pool->retry_ns = pool->now_ns + pool->backoff_ns / 2 +
			 sl_random_below(&pool->random, pool->backoff_ns);
	end_queue(pool, SL_CLIENT_UNREACHABLE);
}

static struct sl_client *free_slot(struct sl_client_pool *pool)
{
	struct sl_client *slot = NULL;

	for (uint32_t i = 0; i < pool->options.connections; i++) {
		struct sl_client *client = &pool->clients[i];

		// One dial at a time: a peer that is down is not asked by all slots at once.
		if (client->state == SL_CLIENT_CONNECTING || client->state == SL_CLIENT_SHAKING)
			return NULL;
		if (client->state == SL_CLIENT_FREE && !slot)
			slot = client;
	}
	return slot;
}

// Whether there are addresses to dial; asks for them when not, or when they are old.
static bool resolved(struct sl_client_pool *pool)
{
	const bool fresh = pool->address_count && pool->now_ns - pool->resolved_ns < NAMES_FRESH_NS;

	if (pool->numeric || fresh)
		return true;
	if (!pool->lookup) {
		pool->lookup = sl_lookup_start(pool->options.host, pool->options.port);
		if (!pool->lookup) {
			sl_client_pool_note(pool, "resolve %s: out of memory", pool->options.host);
			back_off(pool);
			return false;
		}
		sl_timer_set(pool->timers, &pool->timer, pool->now_ns + LOOK_EVERY_NS);
	}
	return pool->address_count != 0;
}

static void dial(struct sl_client_pool *pool)
{
	if (pool->closing)
		return;
	if (pool->now_ns < pool->retry_ns) {
		if (!sl_timer_armed(&pool->timer))
			sl_timer_set(pool->timers, &pool->timer, pool->retry_ns);
		return;
	}

	struct sl_client *client = free_slot(pool);

	if (!client || !resolved(pool))
		return;
	while (pool->attempts < pool->address_count) {
		const uint32_t index = pool->address_next++ % pool->address_count;

		pool->attempts++;
		if (sl_client_dial(client, &pool->addresses[index]) == 0)
			return;
	}
	back_off(pool);
}

void sl_client_pool_failed(struct sl_client_pool *pool)
{
	if (pool->closing)
		return;
	// The other addresses have their turn before anybody is told.
	if (pool->attempts && pool->attempts < pool->address_count) {
		dial(pool);
		return;
	}
	if (!pool->numeric)
		pool->resolved_ns = 0;
	for (uint32_t i = 0; i < pool->options.connections; i++) {
		if (pool->clients[i].state == SL_CLIENT_UP) {
			// The queue has somebody to wait for.
			pool->attempts = 0;
			pool->retry_ns = pool->now_ns + BACKOFF_MOST_NS;
			return;
		}
	}
	back_off(pool);
}

static void look(struct sl_client_pool *pool)
{
	struct sl_address found[SL_LOOKUP_ADDRESSES_MAX];
	const char *error = NULL;
	const int count = sl_lookup_look(pool->lookup, found, &error);

	if (count == 0) {
		sl_timer_set(pool->timers, &pool->timer, pool->now_ns + LOOK_EVERY_NS);
		return;
	}
	sl_lookup_drop(pool->lookup);
	pool->lookup = NULL;
	pool->resolved_ns = pool->now_ns;
	if (count > 0) {
		memcpy(pool->addresses, found, (size_t)count * sizeof(found[0]));
		pool->address_count = (uint32_t)count;
		pool->address_next = (uint32_t)sl_random_below(&pool->random, (uint64_t)count);
	} else {
		sl_client_pool_note(pool, "resolve %s: %s", pool->options.host, error);
		if (!pool->address_count)
			back_off(pool);
	}
}

static void pool_timer(struct sl_timer *timer, uint64_t now_ns)
{
	struct sl_client_pool *pool = SL_CONTAINER_OF(timer, struct sl_client_pool, timer);

	sl_client_pool_enter(pool, now_ns);
	if (pool->lookup)
		look(pool);
	sl_client_pool_dispatch(pool);
	sl_client_pool_leave(pool);
}

// --- choice -------------------------------------------------------------------------------------

// The open connection with the fewest calls that takes this one.
static bool give_to_least(struct sl_client_pool *pool, struct sl_client_call *call)
{
	struct sl_client *best = NULL;

	for (uint32_t i = 0; i < pool->options.connections; i++) {
		struct sl_client *client = &pool->clients[i];

		if (client->state == SL_CLIENT_UP && !client->ending &&
		    sl_http_client_room(client->http) && (!best || client->open < best->open))
			best = client;
	}
	return best && sl_client_give(best, call);
}

// Every connection has work: one more would share it.
static bool all_busy(const struct sl_client_pool *pool)
{
	for (uint32_t i = 0; i < pool->options.connections; i++) {
		const struct sl_client *client = &pool->clients[i];

		if (client->state == SL_CLIENT_UP && client->open <= 1)
			return false;
	}
	return true;
}

void sl_client_pool_dispatch(struct sl_client_pool *pool)
{
	while (pool->queue) {
		struct sl_client_call *call = pool->queue;

		dequeue(pool, call);
		if (!give_to_least(pool, call)) {
			// Back to the front.
			call->next = pool->queue;
			if (call->next)
				call->next->prev = call;
			else
				pool->queue_last = call;
			pool->queue = call;
			break;
		}
	}
	if (pool->queue || (pool->open_calls && all_busy(pool)))
		dial(pool);
}

int sl_client_call_start(struct sl_client_pool *pool, struct sl_client_call *call, uint64_t now_ns)
{
	if (pool->closing || pool->open_calls >= pool->calls_max)
		return -EAGAIN;
	sl_client_pool_enter(pool, now_ns);
	pool->open_calls++;
	call->pool = pool;
	call->result = SL_CLIENT_OK;
	call->over = false;
	call->timer = (struct sl_timer){.fire = call_timer};
	if (call->deadline_ns)
		sl_timer_set(pool->timers, &call->timer, call->deadline_ns);
	enqueue(pool, call);
	sl_client_pool_dispatch(pool);
	sl_client_pool_leave(pool);
	return 0;
}

void sl_client_pool_flush(struct sl_client_pool *pool, uint64_t now_ns)
{
	sl_client_pool_enter(pool, now_ns);
	for (uint32_t i = 0; i < pool->options.connections; i++)
		sl_client_flush(&pool->clients[i]);
	sl_client_pool_leave(pool);
}

void sl_client_pool_destroy(struct sl_client_pool *pool, void (*done)(void *user), void *user)
{
	if (!pool) {
		if (done)
			done(user);
		return;
	}
	sl_client_pool_enter(pool, pool->now_ns);
	pool->closing = true;
	pool->done = done;
	pool->user = user;
	end_queue(pool, SL_CLIENT_BROKEN);
	for (uint32_t i = 0; i < pool->options.connections; i++)
		sl_client_close(&pool->clients[i]);
	sl_client_pool_leave(pool);
}
