#include "dataplane/io/dpdk/counters.h"

#define SL_COUNTER_STRUCT_ struct sl_dpdk_counters
SL_COUNTER_ROWS(dpdk, SL_DPDK_COUNTERS)

#undef SL_COUNTER_STRUCT_
#define SL_COUNTER_STRUCT_ struct sl_dpdk_port_counters
SL_COUNTER_ROWS(dpdk_port, SL_DPDK_PORT_COUNTERS)

#undef SL_COUNTER_STRUCT_
#define SL_COUNTER_STRUCT_ struct sl_dpdk_pool_counters
SL_COUNTER_ROWS(dpdk_pool, SL_DPDK_POOL_COUNTERS)
