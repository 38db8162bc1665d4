#pragma once

#include "dataplane/base/arena.h"
#include "dataplane/otlp/schema.h"

// The same message for protobuf-c 1.4, which reads two rare forms wrongly: a message in a oneof
// that comes twice replaces the first instead of merging with it, and merging two messages whose
// oneof is unset in both reads in front of the field table (the verdict is then chance). Here
// every message that may come once does come once: the concatenation of its payloads is the merge
// by protobuf's definition, and a oneof's last member is the only one.
// `bytes` must be valid. Memory: the arena's, which must suffice.
struct sl_bytes sl_merged(const struct sl_message *message, struct sl_bytes bytes,
			  struct sl_arena *arena);
