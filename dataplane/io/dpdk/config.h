#pragma once

#include "dataplane/io/dpdk/dpdk.h"
#include "dataplane/io/dpdk/stack.h"

// The configuration as the stack wants it; without a port, so in every build.
//
// Threading: any. Returns 0, or -EINVAL with a text for the operator.
int sl_dpdk_stack_config(const struct sl_dpdk_config *config, struct sl_stack_config *stack,
			 char *error, size_t error_size);
