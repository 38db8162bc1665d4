#pragma once

#include "sampling/tracestate.h"

// One rate and how it is kept: decides a single item from its randomness and what earlier stages
// left in it. Knows nothing of parts, bodies or where the state is written.
//
// Threading: read-only after init. Memory: plain value. Time: none.
enum sl_sampling_mode {
	SL_SAMPLING_PROPORTIONAL, // keep this share of what arrives
	SL_SAMPLING_EQUALIZING,   // bring all to this probability; what is rarer passes
	SL_SAMPLING_HASH_SEED,    // the Collector's hash
};

struct sl_sampler {
	uint8_t mode; // enum sl_sampling_mode
	bool all;     // 100 %: nothing is dropped and nothing written
	bool fail_closed;
	uint8_t precision;
	uint32_t seed, scaled; // hash_seed
	double rate;
	uint64_t threshold; // for an item that no earlier stage sampled
	double excess;      // what an item that is kept by it stands for beyond itself
};

enum sl_verdict { SL_VERDICT_DROP, SL_VERDICT_KEEP, SL_VERDICT_REWRITE };

enum sl_sample_note {
	SL_SAMPLE_PLAIN,
	SL_SAMPLE_NO_RANDOMNESS, // nothing to decide by
	SL_SAMPLE_INCONSISTENT,  // it should not have got here by its own th and rv
};

// An item's sampling state: in as it arrived, out as it shall be written (REWRITE only).
struct sl_sample {
	bool has_threshold, has_randomness, has_id;
	uint64_t threshold, randomness; // randomness: valid with has_randomness
	uint64_t id_low;                // last 8 bytes of the trace id; valid with has_id
	struct sl_bytes hashed;         // hash_seed: what is hashed; empty: nothing
	enum sl_sample_note note;       // out
};

void sl_sampler_init(struct sl_sampler *sampler, enum sl_sampling_mode mode, double rate,
		     unsigned precision, uint32_t seed, bool fail_closed);

enum sl_verdict sl_sampler_decide(const struct sl_sampler *sampler, struct sl_sample *sample);
