#pragma once

#include <string.h>

#include "tenants/cardinality/cut.h"

// What our cut makes of a request's bytes, for tests that compare it with a model's.
struct ours {
	struct sl_request request; // arena: the caller's until ours_written()
	struct sl_part part;
};

static inline void ours_cut(struct ours *ours, struct sl_memory *memory, struct sl_bytes body,
			    enum sl_signal signal, const struct sl_cardinality *cardinality,
			    const struct sl_trim_limits *trim, struct sl_cardinality_counts *counts)
{
	static const struct sl_view_limits limits = {.items_max = 1000, .depth_max = 20};
	struct sl_request *request = &ours->request;

	*ours = (struct ours){.request.signal = signal};
	ours->part = (struct sl_part){.request = request, .tenant_name = SL_LITERAL("t")};
	sl_arena_init(&request->arena, memory);
	assert_int_equal(sl_view_scan(&request->view, signal, body, &limits, &request->arena, NULL),
			 SL_VIEW_OK);
	ours->part.offered_items = ours->part.kept_items = request->view.item_count;
	assert_true(sl_cardinality_cut(cardinality, trim, &ours->part, SL_S, counts));
}

// The bytes that go on; `out` has room for them. Returns how many they are.
static inline size_t ours_written(struct ours *ours, uint8_t *out)
{
	struct sl_pieces pieces;
	size_t bytes = 0;

	assert_int_equal(sl_splice(&ours->request.view, ours->part.keep, &ours->part.edits,
				   &ours->request.arena, &pieces),
			 0);
	for (uint32_t i = 0; i < pieces.count; i++) {
		memcpy(out + bytes, pieces.pieces[i].iov_base, pieces.pieces[i].iov_len);
		bytes += pieces.pieces[i].iov_len;
	}
	sl_arena_fini(&ours->request.arena);
	return bytes;
}
