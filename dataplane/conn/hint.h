#pragma once

#include "dataplane/request/request.h"

// What a connection's client was told to wait for, and whether it does. A tenant over its quota is
// answered with the time after which it may come again. Coming before is answered the same way; but
// whoever does so more often than `early_calls` a second floods, and waits all the same: on HTTP/1
// its connection is not read, on HTTP/2 its streams are refused, and then the connection goes. A
// connection that also serves somebody else is left alone.
//
// Threading: one shard. Memory: plain value. Time: passed in.
struct sl_hint {
	sl_tenant_id tenant;
	uint8_t signal;             // enum sl_signal
	uint32_t strikes;           // early calls in a row beyond what is allowed
	uint64_t early_calls;       // since told_ns
	uint64_t told_ns, until_ns; // 0: nothing was told
};

// An answer takes so long to be heard; what was on its way meanwhile is no offence.
#define SL_HINT_GRACE_NS       (5 * SL_MS)
#define SL_HINT_GRACE_HTTP2_NS (100 * SL_MS)
// HTTP/2: strikes that are answered; then so many streams refused before GOAWAY.
#define SL_HINT_ANSWERED    8
#define SL_HINT_REFUSED     64
#define SL_HINT_WAIT_MAX_NS (30 * SL_S) // HTTP/1: not read for longer

// A call of that tenant comes. True: before its time.
bool sl_hint_is_early(struct sl_hint *hint, sl_tenant_id tenant, enum sl_signal signal,
		      uint64_t grace_ns, uint64_t now_ns);
// It is told to wait; `early`: it should have known, and `early_max` such calls a second are taken
// (0: any number). Returns whether this one was beyond them.
bool sl_hint_told(struct sl_hint *hint, sl_tenant_id tenant, enum sl_signal signal, bool early,
		  uint64_t early_max, uint64_t retry_after_ns, uint64_t now_ns);
// A call of that tenant was taken.
void sl_hint_served(struct sl_hint *hint, sl_tenant_id tenant);
