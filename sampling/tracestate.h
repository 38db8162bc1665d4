#pragma once

#include "sampling/threshold.h"

// The W3C tracestate and OpenTelemetry's member in it, `ot=rv:...;th:...;more:...`.
// https://www.w3.org/TR/trace-context/#tracestate-header and the OpenTelemetry specification,
// "TraceState: OpenTelemetry probability sampling".
//
// Threading: pure functions. Memory: a parsed state points into the text it was parsed from.
#define SL_TRACESTATE_BYTES_MAX   1024 // longer text is not parsed; the Collector's limit
#define SL_TRACESTATE_MEMBERS_MAX 32
#define SL_TRACESTATE_KEPT_BYTES  512 // every party passes on at least as much
#define SL_TRACESTATE_OT_MAX      256
#define SL_TRACESTATE_LONG_MEMBER 128 // goes first when something has to go
// Room for what sl_tracestate_write makes.
#define SL_TRACESTATE_WRITE_MAX (SL_TRACESTATE_BYTES_MAX + SL_TRACESTATE_OT_MAX + 8)

struct sl_tracestate {
	bool has_threshold, has_randomness;
	uint64_t threshold, randomness;
	struct sl_bytes extras; // the `ot` value's other keys lie in here, between th and rv
	struct sl_bytes members[SL_TRACESTATE_MEMBERS_MAX]; // all but `ot`, in order
	uint32_t member_count;
	size_t text_bytes; // of the text it was parsed from
};

// Reads a tracestate (which may be empty). Returns false when it is malformed or too large.
bool sl_tracestate_parse(struct sl_bytes text, struct sl_tracestate *state);

// Writes a state: `ot` moves to the left with rv, th and the other keys in this order, and goes
// when nothing is left in it; other members keep their order. Where the new text has too many
// members, or has grown beyond 512 bytes, members of more than 128 bytes go first, then from the
// right. Returns the bytes written.
size_t sl_tracestate_write(const struct sl_tracestate *state,
			   uint8_t text[SL_TRACESTATE_WRITE_MAX]);
