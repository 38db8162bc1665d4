#include "config/control/worst.h"

#include "config/control/ledger.h"
#include "config/control/process.h"
#include "routing/kafka_conf.h"
#include "routing/routing.h"
#include "tenants/ledger/ledger.h"
#include "tenants/table.h"

#define CONNECTION_BYTES (80 * SL_KIB) // with TLS; without it less than half

// Accounts are of tenants that are there, can be made, or have left.
static uint64_t ledger_bytes(const struct sl_snapshot *snapshot, uint32_t shards)
{
	const struct sl_process_config *config = snapshot->parts[SL_MODULE_PROCESS];
	const struct sl_tenants *tenants = snapshot->parts[SL_MODULE_TENANTS];
	const struct sl_tenants_module_config *module = snapshot->configs[SL_MODULE_TENANTS];
	const bool creates = strcmp(module->tenants.unknown, "create") == 0;
	const uint64_t accounts = tenants->entry_count + SL_LEDGER_DEPARTED_MAX +
				  (creates ? module->tenants.created_max : 0);

	return shards * sl_ledger_shard_bytes((uint32_t)config->ledger.accounts, SL_TENANTS_MAX) +
	       accounts * SL_LEDGER_ACCOUNT_BYTES;
}

struct sl_worst sl_control_worst(const struct sl_snapshot *snapshot, uint64_t body_bytes_max,
				 uint64_t connections_max, uint64_t ports_bytes)
{
	const struct sl_process_config *config = snapshot->parts[SL_MODULE_PROCESS];
	const struct sl_tenants *tenants = snapshot->parts[SL_MODULE_TENANTS];
	const struct sl_kafka_config *usage = sl_control_usage_kafka(snapshot);
	const struct sl_routing_memory routing = sl_routing_memory_max(
		snapshot->parts[SL_MODULE_ROUTING], body_bytes_max);
	const uint32_t shards = sl_process_shards(config);
	struct sl_worst worst = {
		.shards = shards,
		.budget_bytes = sl_process_memory_budget(config, shards),
		.connection_bytes = CONNECTION_BYTES,
		.connections_max = connections_max,
		.drivers = routing.driver_bytes + (usage ? sl_kafka_producer_bytes(usage) : 0),
		.spools = routing.spool_bytes,
		.ledger = ledger_bytes(snapshot, shards),
		.cardinality = tenants->cardinality_bytes,
		.ports = ports_bytes,
	};

	worst.bodies = shards * worst.budget_bytes;
	worst.connections = shards * worst.connections_max * CONNECTION_BYTES;
	worst.sum = worst.bodies + worst.connections + worst.drivers + worst.spools + worst.ledger +
		    worst.cardinality + worst.ports;
	return worst;
}
