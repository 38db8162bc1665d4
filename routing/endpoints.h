#pragma once

#include "dataplane/base/outage.h"
#include "dataplane/conn/client.h"
#include "dataplane/conn/resolver.h"
#include "routing/breaker.h"
#include "routing/driver.h"
#include "routing/health.h"
#include "routing/outlier.h"

// One shard's endpoints of an upstream: every address that the configured names have, resolved
// anew now and then, each with its own connections, breaker, checks and ejection. It says which of
// them a call goes to: the one with the fewest in flight, or the owner of the call's keys.
//
//   usable = named (still) + healthy + not ejected + breaker lets it
//
// Threading: one shard. Memory: by malloc, on changes only. Time: passed in.

extern const struct sl_label sl_label_handshake;
#define SL_LABEL_COUNT_handshake 2

//      field     kind     name                              labels  help
#define SL_ENDPOINT_COUNTERS(X)                                                                    \
	X(healthy, GAUGE, "sluice_endpoint_healthy_shards", none,                                  \
	  "Shards on which the endpoint gets calls: its checks succeed, it is not ejected and "    \
	  "its "                                                                                   \
	  "breaker is not open.")                                                                  \
	X(in_flight, GAUGE, "sluice_endpoint_in_flight_calls", none,                               \
	  "Calls now with the endpoint.")                                                          \
	X(calls, COUNTER, "sluice_endpoint_calls", none, "Calls that have ended.")                 \
	X(failed, COUNTER, "sluice_endpoint_failed_calls", none,                                   \
	  "Of those, calls that did not deliver.")                                                 \
	X(ejected, COUNTER, "sluice_endpoint_ejections", none,                                     \
	  "Times that a shard left it out because its errors stood out.")                          \
	X(handshakes, COUNTER, "sluice_endpoint_tls_handshakes", handshake,                        \
	  "TLS handshakes with it, whole ones and those that resumed a session.")                  \
	X(share, GAUGE, "sluice_endpoint_key_permille", none,                                      \
	  "Balanced by hash: keys of a thousand that it owns, summed over shards.")

SL_COUNTERS(endpoint, SL_ENDPOINT_COUNTERS)

// As configured; all belong to the destination and live longer than any set.
struct sl_endpoint_target {
	char *host, *authority; // authority: host:port
	uint16_t port;
	struct sl_tls_context *tls; // NULL: plain
};

struct sl_endpoints_config {
	const char *destination;
	struct sl_endpoint_target *targets;
	uint32_t target_count;
	bool listed; // by `endpoints`: a name with one address keeps its keys when that changes
	bool http2, checked;
	uint32_t connections, concurrency;
	uint64_t connect_ns, idle_ns, ping_ns;
	struct sl_breaker_config breaker; // failures 0: none
	struct sl_outlier_config outlier; // interval 0: none
	struct sl_health_config health;   // if `checked`
	enum sl_spread spread;
	double bound;
};

struct sl_endpoint {
	struct sl_endpoint *next;
	struct sl_endpoints *set;
	const struct sl_endpoint_target *target;
	struct sl_address address;
	char name[SL_ADDRESS_TEXT_MAX];
	struct sl_client_pool *pool;
	struct sl_health *health; // NULL: not checked
	struct sl_breaker breaker;
	struct sl_outlier outlier;
	uint32_t in_flight;
	uint64_t avoided_until_ns,
		avoid_ns;        // not checked and not reached: only if there is no other
	bool gone;               // no name means it any more; goes when nothing is in flight
	bool out;                // as last said in the log and the metrics
	int told;                // of the breaker, in the metrics
	struct sl_outage outage; // its driver's: calls that fail, to be tried again
	struct sl_endpoint_counters counters;
};

struct sl_endpoints_target; // a name being resolved
struct sl_ring;

struct sl_endpoints {
	const struct sl_endpoints_config *config;
	struct sl_driver_env env;
	struct sl_endpoint *first;
	uint32_t count; // not gone
	uint32_t at;    // where the next search begins
	struct sl_endpoints_target *targets;
	struct sl_ring *ring;                          // NULL: the fewest in flight
	struct sl_endpoint *members[SL_ENDPOINTS_MAX]; // of the ring; NULL: gone
	uint32_t member_count;
	uint64_t up;           // a bit a member
	uint32_t generation;   // of who owns what
	uint64_t judge_ns;     // outliers, next
	struct sl_timer timer; // only ends a wait
};

int sl_endpoints_init(struct sl_endpoints *set, const struct sl_endpoints_config *config,
		      const struct sl_driver_env *env, uint64_t now_ns);
void sl_endpoints_fini(struct sl_endpoints *set); // nothing is in flight
// Once a turn: names, checks, ejections, who owns what; writes what the turn gathered.
void sl_endpoints_poll(struct sl_endpoints *set, uint64_t now_ns);

// 0 when some endpoint is usable; else when to ask again.
uint64_t sl_endpoints_until(struct sl_endpoints *set, uint64_t now_ns);
// Where a call goes: to `owner`, or with owner 0 to the one with the fewest in flight. NULL: none
// has room now.
struct sl_endpoint *sl_endpoints_pick(struct sl_endpoints *set, uint32_t owner, uint64_t now_ns);
// A call is given to it; it was not taken after all; it has ended.
void sl_endpoint_sent(struct sl_endpoint *endpoint);
void sl_endpoint_unsent(struct sl_endpoint *endpoint);
struct sl_endpoint_verdict {
	bool delivered;
	bool failing;     // speaks against the endpoint: its breaker counts it
	bool unreachable; // no connection came up
	bool passed_on;   // not looked at, and sent again: says nothing of it
};
void sl_endpoint_heard(struct sl_endpoint *endpoint, struct sl_endpoint_verdict verdict,
		       uint64_t now_ns);

// Who owns a key now, never 0; and whether that still is so.
uint32_t sl_endpoints_owner(const struct sl_endpoints *set, struct sl_bytes key);
bool sl_endpoints_owns(const struct sl_endpoints *set, uint32_t owner);
