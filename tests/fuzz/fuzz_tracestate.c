// A tracestate that can be read is written so that it says the same, is stable from then on, and
// lies within its bounds; what cannot be read is refused without a trace.

#include <stdlib.h>

#include "sampling/tracestate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
	if (!holds)
		abort();
}

// Each member of `now` is one of `before`, in its order.
static void check_members(const struct sl_tracestate *before, const struct sl_tracestate *now)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < now->member_count; i++) {
		while (at < before->member_count &&
		       !sl_bytes_equal(before->members[at], now->members[i]))
			at++;
		check(at++ < before->member_count);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t first[SL_TRACESTATE_WRITE_MAX], second[SL_TRACESTATE_WRITE_MAX];
	struct sl_tracestate state, again;
	size_t first_bytes, second_bytes;

	if (!sl_tracestate_parse(sl_bytes(data, size), &state))
		return 0;
	check(size <= SL_TRACESTATE_BYTES_MAX && state.member_count <= SL_TRACESTATE_MEMBERS_MAX);
	check(state.has_threshold || !state.threshold);
	check(state.has_randomness || !state.randomness);
	first_bytes = sl_tracestate_write(&state, first);
	check(first_bytes <= SL_MAX(size, (size_t)SL_TRACESTATE_KEPT_BYTES));
	check(sl_tracestate_parse(sl_bytes(first, first_bytes), &again));
	check(again.has_threshold == state.has_threshold && again.threshold == state.threshold);
	check(again.has_randomness == state.has_randomness && again.randomness == state.randomness);
	check_members(&state, &again);
	second_bytes = sl_tracestate_write(&again, second);
	check(second_bytes == first_bytes && memcmp(first, second, first_bytes) == 0);
	// A sampler's own threshold, the longest there is, finds room too.
	state.has_threshold = state.has_randomness = true;
	state.threshold = 0xfffffffffffff1;
	state.randomness = 0xfffffffffffffe;
	first_bytes = sl_tracestate_write(&state, first);
	check(first_bytes <= SL_TRACESTATE_WRITE_MAX);
	check(sl_tracestate_parse(sl_bytes(first, SL_MIN(first_bytes, 1024u)), &again) ||
	      first_bytes > SL_TRACESTATE_BYTES_MAX);
	return 0;
}
