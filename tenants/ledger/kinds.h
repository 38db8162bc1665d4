#pragma once

#include "dataplane/otlp/signal.h"
#include "dataplane/request/reason.h"

// What the ledger counts, one row each: of a tenant and a signal, and where the row says so by
// reason or by destination. A count is three numbers that are never estimates.
//
//   received  = accepted + throttled + refused + unanswered + in flight
//   accepted  = sampled out + dropped by rule + what went to destinations
//
// Threading: constants. Memory: none.

enum sl_ledger_by { SL_LEDGER_BY_NONE, SL_LEDGER_BY_REASON, SL_LEDGER_BY_DESTINATION };

// Which numbers of a kind are told: items always; bytes (of bodies, inflated; of records by
// destination); `requests`, which are records by destination.
enum sl_ledger_units { SL_LEDGER_ITEMS = 0, SL_LEDGER_BYTES = 1, SL_LEDGER_REQUESTS = 2 };
#define SL_LEDGER_ALL (SL_LEDGER_BYTES | SL_LEDGER_REQUESTS)

//        kind           label              by           units  help
#define SL_LEDGER_KINDS(X)                                                                         \
	X(RECEIVED, "received", NONE, ALL, "What came, whatever became of it.")                    \
	X(IN_FLIGHT, "in_flight", NONE, ALL, "Received and not yet answered.")                     \
	X(UNANSWERED, "unanswered", NONE, ALL,                                                     \
	  "In flight when a process ended: nobody knows its answer.")                              \
	X(ACCEPTED, "accepted", NONE, ALL, "Its sender was told success.")                         \
	X(SAMPLED_OUT, "sampled_out", NONE, ITEMS, "Accepted, dropped by sampling.")               \
	X(DROPPED, "dropped_by_rule", NONE, ITEMS, "Accepted, dropped by a route.")                \
	X(ADJUSTED, "adjusted", NONE, ITEMS,                                                       \
	  "What kept items stand for beyond themselves, in 1/256 items: 1/p - 1 each.")            \
	X(THROTTLED, "throttled", REASON, ALL, "Refused for now: quota, in flight, overload.")     \
	X(REFUSED, "refused", REASON, ALL, "Refused for any other reason.")                        \
	X(DELIVERED, "delivered", DESTINATION, ALL, "The destination has confirmed it.")           \
	X(REJECTED, "rejected", DESTINATION, ALL, "The destination refused it for good.")          \
	X(GIVEN_UP, "dropped", DESTINATION, ALL, "Best-effort, given up.")                         \
	X(RETURNED, "returned", DESTINATION, ALL, "Not delivered; its sender was told so.")        \
	X(LOST, "lost", DESTINATION, ALL, "Acknowledged early, then given up.")                    \
	X(SPOOLED, "spooled", DESTINATION, ALL, "Written to the destination's spool.")             \
	X(DEAD_LETTERED, "dead_lettered", DESTINATION, ALL, "Put aside as a dead letter.")

enum sl_ledger_kind {
#define SL_LEDGER_KIND_(kind, label, by, units, help) SL_LEDGER_##kind,
	SL_LEDGER_KINDS(SL_LEDGER_KIND_)
#undef SL_LEDGER_KIND_
		SL_LEDGER_KIND_COUNT
};

struct sl_ledger_kind_row {
	const char *label, *help;
	enum sl_ledger_by by;
	unsigned units;
};
extern const struct sl_ledger_kind_row sl_ledger_kinds[SL_LEDGER_KIND_COUNT];

// Names of accounts of its own, which no tenant may have: of what has no room of its own, and of
// who cannot be named.
#define SL_LEDGER_REST     "_other"
#define SL_LEDGER_NAMELESS "_unknown"

struct sl_ledger_cell {
	uint64_t items, bytes, requests;
};

// Which count: `index` is a reason or a destination's number, else 0.
SL_INLINE uint32_t sl_ledger_key(enum sl_ledger_kind kind, enum sl_signal signal, uint32_t index)
{
	return (uint32_t)signal << 24 | (uint32_t)kind << 16 | index;
}
SL_INLINE enum sl_signal sl_ledger_signal_of(uint32_t key)
{
	return (enum sl_signal)(key >> 24);
}
SL_INLINE enum sl_ledger_kind sl_ledger_kind_of(uint32_t key)
{
	return (enum sl_ledger_kind)(key >> 16 & 255);
}
SL_INLINE uint32_t sl_ledger_index_of(uint32_t key)
{
	return key & 0xffff;
}

// The kind that a refusal is.
SL_INLINE enum sl_ledger_kind sl_ledger_refusal(enum sl_reason reason)
{
	return reason == SL_REASON_QUOTA_EXCEEDED || reason == SL_REASON_VOLUME_EXCEEDED ||
			       reason == SL_REASON_IN_FLIGHT_EXCEEDED ||
			       reason == SL_REASON_OVERLOADED
		       ? SL_LEDGER_THROTTLED
		       : SL_LEDGER_REFUSED;
}

// Destinations have numbers for as long as the process runs; 0 is all beyond the last. A name that
// no count has any more is not in the file, so that its number is free again after a restart.
#define SL_LEDGER_DESTINATIONS_MAX 4096
// Of what is counted by destination.
#define SL_LEDGER_DESTINATION_KINDS (SL_LEDGER_KIND_COUNT - SL_LEDGER_DELIVERED)
