#pragma once

#include "config/settings.h"
#include "dataplane/base/metrics.h"
#include "dataplane/io/datagram.h"
#include "dataplane/request/request.h"

// OTLP in datagrams, an extension: one Export request of one signal in each, without compression,
// never answered. From admission on they are requests like any other.
//   received = accepted + refused + in flight
//
// Threading: settings are a snapshot's; the rest belongs to one shard.
struct sl_shard;

struct sl_datagram_listen_config {
	struct sl_where where;
	struct sl_address address;
	uint32_t signal;
};

struct sl_datagram_tenant_config {
	struct sl_where where;
	struct sl_cidr prefix;
	const char *tenant;
};

// Key `datagrams`; NULL: off.
struct sl_datagrams_config {
	struct sl_where where;
	struct sl_list listen; // struct sl_datagram_listen_config
	uint64_t bytes, buffer;
	struct sl_list tenants; // struct sl_datagram_tenant_config
};
extern const struct sl_settings sl_datagrams_settings;

//       field                kind     name                        labels  help
#define SL_DATAGRAM_COUNTERS(X)                                                                    \
	X(received, COUNTER, "sluice_datagram_received", none, "Datagrams that came.")             \
	X(received_bytes, COUNTER, "sluice_datagram_received_bytes", none, "Bytes in them.")       \
	X(accepted, COUNTER, "sluice_datagram_accepted", none,                                     \
	  "Datagrams whose request was taken, all of it or parts.")                                \
	X(refused, COUNTER, "sluice_datagram_refused", reason, "Datagrams refused, by reason.")    \
	X(truncated, COUNTER, "sluice_datagram_truncated", none,                                   \
	  "Of those refused as body_too_large: longer than datagrams.bytes.")                      \
	X(in_flight, GAUGE, "sluice_datagram_in_flight", none,                                     \
	  "Datagrams received and neither accepted nor refused yet.")                              \
	X(missed, COUNTER, "sluice_datagram_missed", none,                                         \
	  "Datagrams that the kernel dropped since the socket's buffer was full.")
SL_COUNTERS(datagram, SL_DATAGRAM_COUNTERS)

// Sources seen before: instead of a walk over the prefixes and a look-up by name.
#define SL_DATAGRAM_CACHE 1024
struct sl_datagram_cached {
	uint8_t address[16];
	uint64_t generation; // the snapshot's; 0: free
	sl_tenant_id tenant;
	bool known; // some prefix has the address
};

struct sl_shard_datagram_source {
	struct sl_datagram_source source; // first: the upcall casts back
	struct sl_shard *shard;
	enum sl_signal signal;
};

struct sl_shard_datagrams {
	struct sl_shard_datagram_source *sources; // NULL: off
	uint32_t count;
	struct sl_datagram_cached *cache;
	struct sl_datagram_counters counters;
};

// Takes datagrams as the first snapshot says, from the sockets in the shard's options. Returns 0 or
// -errno.
int sl_shard_datagrams_start(struct sl_shard *shard, const struct sl_datagrams_config *config);
void sl_shard_datagrams_leave(struct sl_shard *shard);
void sl_shard_datagrams_fini(struct sl_shard *shard);
// A tenth of a second has passed.
void sl_shard_datagrams_measure(struct sl_shard *shard);
// What would be its answer.
void sl_shard_datagrams_answered(struct sl_shard *shard, enum sl_reason reason);
