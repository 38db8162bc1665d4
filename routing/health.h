#pragma once

#include "dataplane/base/address.h"
#include "dataplane/base/base.h"
#include "routing/settings.h"

// Active checks of one endpoint: a TCP connect, gRPC's health service (grpc.health.v1.Health/Check)
// or an HTTP GET, every interval. So many failures in a row make it unhealthy, so many successes
// healthy again; before the first verdict it counts as healthy.
//
// Or the health service's Watch: a call that stays, on which the server says what it is whenever
// that changes. What it says counts at once; a stream that ends, or says nothing within the
// timeout, is a check that failed, and the next one is made when a check would be. Keepalives find
// out a peer that has died silently. A server that does not have Watch is asked with Check until it
// has been down.
//
// Threading: one shard. Memory: by malloc; a check that is on its way when its endpoint goes ends
// by itself. Time: passed in.
struct sl_io;
struct sl_memory;
struct sl_timers;
struct sl_random;
struct sl_tls_context;
struct sl_health;

struct sl_health_env {
	const struct sl_health_config *config; // as long as the endpoint
	const char *authority;
	struct sl_address address;  // with the check's port
	struct sl_tls_context *tls; // NULL: plain
	struct sl_io *io;
	struct sl_memory *memory;
	struct sl_timers *timers;
	struct sl_random *random;
};

// What the results of checks say: kept apart from how they are made.
struct sl_health_state {
	bool down;
	uint32_t in_row; // results that speak against `down`
};
// Returns whether `down` changed.
bool sl_health_note(struct sl_health_state *state, const struct sl_health_config *config,
		    bool succeeded);

// NULL when out of memory. The first check is due at once.
struct sl_health *sl_health_create(const struct sl_health_env *env, uint64_t now_ns);
void sl_health_destroy(struct sl_health *health); // NULL is fine
// Starts the check that is due; returns when the next is. Call it once a turn.
uint64_t sl_health_run(struct sl_health *health, uint64_t now_ns);
// A call found nobody there: it is down without further checks, and they decide when it is back.
void sl_health_fail(struct sl_health *health, const char *why, uint64_t now_ns);
bool sl_health_is_down(const struct sl_health *health); // NULL: no
uint64_t sl_health_next_ns(const struct sl_health *health);
// Whether it changed since this was asked last; `why` gets the last failure, a text of its own.
bool sl_health_changed(struct sl_health *health, const char **why);
