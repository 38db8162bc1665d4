#pragma once

#include "dataplane/base/address.h"
#include "dataplane/base/log.h"
#include "tenants/fleet/link.h"

// Carries a link's bytes: resolves the name, dials, TLS, reads, writes, hangs up. Never blocks.
//
// Threading: the quota thread; init and fini before and after it. Time: passed in.
struct sl_lookup;
struct sl_memory;
struct sl_tls;
struct sl_tls_context;

struct sl_carrier {
	struct sl_fleet_link *link;
	const char *address; // as configured; for the log
	char host[256];
	uint16_t port;
	int fd; // -1: none
	bool connected, told_up;
	struct sl_log_spell lost;        // as the log tells it
	uint64_t told_failures, down_ns; // down_ns: since when; 0: up
	uint32_t dials;                  // another address each time
	struct sl_lookup *lookup;
	struct sl_tls_context *tls_context; // NULL: plain
	struct sl_tls *tls;
	struct sl_memory *memory;
	size_t pulled; // of the cipher bytes that wait, so many have gone
	uint64_t now_ns;
};

void sl_carrier_fini(struct sl_carrier *carrier);

// At a tick, before sl_fleet_tick(): silence, dials.
void sl_carrier_tick(struct sl_carrier *carrier, uint64_t now_ns);
// What poll() is to wait for.
short sl_carrier_events(const struct sl_carrier *carrier);
// Something may have come, or may go: also after sl_fleet_tick().
void sl_carrier_run(struct sl_carrier *carrier, uint64_t now_ns);
