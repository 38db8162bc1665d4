#pragma once

#include "dataplane/base/base.h"

// Limits of server sessions, each with its preset in dataplane/shard's settings table.
// Threading: read-only.
struct sl_server_limits {
	uint64_t body_bytes_max; // compressed and inflated alike
	uint64_t header_bytes_max;
	uint64_t connections_max;         // a shard
	uint64_t streams_max;             // a connection
	uint64_t idle_timeout_ns;         // no open call
	uint64_t header_timeout_ns;       // first byte of a head to its end; TLS handshake too
	uint64_t body_timeout_ns;         // without any progress
	double body_rate_min_bytes_per_s; // below it after body_timeout_ns: cut
	uint64_t age_max_ns;              // 0: never; jittered by a tenth
	uint64_t age_grace_ns;            // between the first GOAWAY and the close
	uint64_t answer_within_ns;
	uint64_t json_depth_max, value_depth_max;
	uint64_t items_max;
	uint64_t connection_reserved_share; // 1/n of the budget for unread bodies of a connection
	uint64_t tenant_reserved_share;     // 1/n of it for bodies of a tenant that wait
	uint64_t early_calls_max; // a second and connection, before their retry hint; 0: any number
	bool json_enum_names;
	const char *challenge;           // WWW-Authenticate of a 401 (RFC 9110, section 11.6.1)
	const char *const *cors_origins; // allowed origins, or "*"
	uint32_t cors_origin_count;
};
