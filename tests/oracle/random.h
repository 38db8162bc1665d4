#pragma once

#include "dataplane/base/random.h"
#include "dataplane/otlp/schema.h"

// Random valid messages by the tables of schema.h: fields in any order, unset, empty, twice where
// `odd` says so, with unknown fields, overlong lengths, packed and unpacked. The same seed gives
// the same bytes.
struct sl_random_wire {
	struct sl_random random;
	uint8_t *at, *end;
	unsigned odd;   // of 100 messages: how many are written in a rare form
	unsigned depth; // of AnyValue so far
	bool full;
};

// Writes one Export request. Returns its bytes; 0 also when `size` does not suffice.
size_t sl_random_request(uint8_t *out, size_t size, enum sl_signal signal, unsigned odd,
			 uint64_t seed);

// Writes one field of a message, or one that no message knows.
void sl_random_field(struct sl_random_wire *wire, const struct sl_field *field);
void sl_random_unknown(struct sl_random_wire *wire);
