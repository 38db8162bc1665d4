#pragma once

#include "config/module.h"
#include "dataplane/base/metrics.h"
#include "dataplane/request/request.h"

// Consistent probability sampling (OpenTelemetry tracestate `ot=th;rv`) and the Collector's
// hash_seed mode. Decisions clear bits in a part's `keep`; a changed threshold is an edit.
//
// Threading: the snapshot's part is read-only; a shard's side belongs to it.
extern const struct sl_module sl_sampling_module; // key `sampling`

// A part may be thinned in so many steps, each half of what the step before it keeps.
#define SL_SAMPLING_THINNINGS 6

struct sl_sampling;       // the snapshot's part
struct sl_sampling_shard; // counters of one shard

struct sl_sampling_shard *sl_sampling_shard_create(uint32_t shard, struct sl_metrics *metrics);
void sl_sampling_shard_destroy(struct sl_sampling_shard *self);
void sl_sampling_shard_turn(struct sl_sampling_shard *self, const struct sl_sampling *sampling);

// Stage: the first rule that matches a part's tenant, signal and service decides for each item. A
// part that no rule matches, or whose rate is 100 %, is left untouched. A part with no item left
// stays in the batch with kept_items 0 (it is answered as accepted; routing sends nothing).
//
// A part with `thinning` n keeps 1/2^n of what its rule would, with thresholds that say so; spans
// and log records that no rule is for as well. Metrics are never sampled.
void sl_sampling_stage(void *self, struct sl_batch *batch);
