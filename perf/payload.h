#pragma once

#include "dataplane/base/base.h"
#include "dataplane/otlp/signal.h"

// Realistic OTLP Export requests for load and benchmarks: a service's resource, one scope for each
// 250 items, fields in the order SDKs write them. A span takes about 344 bytes. The same seed gives
// the same bytes.
//
// Threading: any. Memory: the caller's.

// Enough for `items` of any signal.
#define SL_PAYLOAD_BYTES(items) (1024 + (size_t)(items)*640)

// Writes a request of `items` spans, data points or log records. Returns its bytes, or 0 when
// `size` does not suffice.
size_t sl_payload_build(uint8_t *out, size_t size, enum sl_signal signal, uint32_t items,
			uint64_t seed);
