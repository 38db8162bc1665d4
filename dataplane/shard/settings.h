#pragma once

#include "config/module.h"
#include "dataplane/conn/limits.h"
#include "dataplane/shard/overload.h"

// The SERVER module: listeners, their TLS, and the limits of sessions. Keys `listen`,
// `datagrams`, `answer_within`, `limits`, `connection`, `overload`, `json_enum_names`,
// `cors_origins`.
//
// Threading: built by the control thread, read by shards. Memory: the snapshot's.
struct sl_tls_context;
struct sl_datagrams_config;

extern const struct sl_module sl_server_module;

struct sl_server_listen {
	struct sl_address address;
	struct sl_tls_context *tls; // NULL: plain; one reference held
	uint64_t files_hash;        // of the TLS files it was made of
};

struct sl_server_part {
	struct sl_server_limits limits;
	char challenge[256]; // of the limits
	struct sl_overload_limits overload;
	struct sl_server_listen *listens;
	uint32_t listen_count;
	const struct sl_datagrams_config *datagrams; // NULL: none taken
	int64_t certificate_expiry;                  // the first, seconds since the epoch; 0: none
};
