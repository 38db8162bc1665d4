#include "dataplane/request/reason.h"

#define NO    false
#define RETRY true

const struct sl_reason_row sl_reasons[SL_REASONS] = {
	[SL_REASON_NONE] = {"none", "", 200, SL_GRPC_OK, false},
#define SL_REASON(name_, label_, http_, grpc_, retry_, help_)                                      \
	[SL_REASON_##name_] = {label_, help_, http_, SL_GRPC_##grpc_, retry_},
#include "dataplane/request/reason.def"
#undef SL_REASON
};

static const char *const labels[SL_REASONS] = {
	[SL_REASON_NONE] = "none",
#define SL_REASON(name_, label_, http_, grpc_, retry_, help_) [SL_REASON_##name_] = label_,
#include "dataplane/request/reason.def"
#undef SL_REASON
};
const struct sl_label sl_label_reason = {.name = "reason", .values = labels, .count = SL_REASONS};
