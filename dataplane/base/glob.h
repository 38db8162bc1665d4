#pragma once

#include "dataplane/base/base.h"

// Shell-like patterns over bytes: `*` is any run, `?` one byte, `\` takes the next literally.
// Case-sensitive; no character classes. Linear time (one place to fall back to).
// Threading: any.
bool sl_glob_match(struct sl_bytes pattern, struct sl_bytes text);
