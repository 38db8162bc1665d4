#include <stdio.h>

#include "dataplane/io/dpdk/dpdk.h"

// A build without DPDK: the configuration has been refused before any of this is asked.
bool sl_dpdk_is_built_in(void)
{
	return false;
}

struct sl_dpdk *sl_dpdk_open(const struct sl_dpdk_config *config, uint32_t shards,
			     struct sl_metrics *metrics, char *error, size_t error_size)
{
	(void)metrics;
	if (sl_dpdk_check(config, shards, error, error_size) == 0)
		snprintf(error, error_size, "io: dpdk: this build has no DPDK");
	return NULL;
}

void sl_dpdk_finish(struct sl_dpdk *dpdk)
{
	(void)dpdk;
}

void sl_dpdk_close(struct sl_dpdk *dpdk)
{
	(void)dpdk;
}

bool sl_dpdk_serves(const struct sl_dpdk *dpdk, const struct sl_address *address)
{
	(void)dpdk;
	(void)address;
	return false;
}

struct sl_io_backend *sl_dpdk_backend(struct sl_dpdk *dpdk, uint32_t shard)
{
	(void)dpdk;
	(void)shard;
	return NULL;
}
