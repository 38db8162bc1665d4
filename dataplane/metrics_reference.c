#include "dataplane/metrics_reference.h"

#include "config/control/internal.h"
#include "config/control/metrics.h"
#include "config/control/usage.h"
#include "dataplane/conn/session.h"
#include "dataplane/io/dpdk/counters.h"
#include "dataplane/shard/books.h"
#include "dataplane/shard/datagram.h"
#include "routing/answers.h"
#include "routing/counters.h"
#include "routing/endpoints.h"
#include "routing/failover.h"
#include "sampling/counters.h"
#include "tenants/fleet/fleet.h"
#include "tenants/ledger/ledger.h"
#include "tenants/shard.h"

// Each table that is registered anywhere. Counts are elsewhere than in their rows: by pointer.
#define TABLE(title_, rows_, labels_)                                                              \
	{                                                                                          \
		.title = title_, .rows = rows_##_rows, .count = &rows_##_row_count,                \
		.labels = labels_                                                                  \
	}
#define ARRAY(title_, rows_, labels_)                                                              \
	{                                                                                          \
		.title = title_, .rows = rows_, .fixed = SL_COUNT_OF(rows_), .labels = labels_     \
	}
static const struct {
	const char *title; // NULL: more of the table before
	const struct sl_metric_row *rows;
	const uint32_t *count;
	uint32_t fixed; // where `count` is NULL
	const char *labels;
} tables[] = {
	TABLE("Metrics of requests and shards", sl_shard_counter, ""),
	ARRAY(NULL, sl_books_rows, ""),
	TABLE("Metrics of connections and calls", sl_conn_counter, ""),
	TABLE("Metrics of tenants and quotas", sl_tenants_counter, ""),
	TABLE(NULL, sl_quota_thread_counter, ""),
	TABLE(NULL, sl_source_counter, ""),
	TABLE("Metrics of `quotas.redis`", sl_fleet_counter, ""),
	TABLE("Metrics of sampling", sl_sampling_counter, ""),
	TABLE("Metrics of a destination", sl_destination_counter, "destination"),
	ARRAY(NULL, sl_delivery_duration_rows, "destination"),
	ARRAY(NULL, sl_refusal_rows, "destination"),
	TABLE("Metrics of an endpoint of an OTLP destination", sl_endpoint_counter,
	      "destination, endpoint"),
	TABLE("Metrics of a failover group", sl_failover_counter, "group"),
	TABLE("Metrics of the ledger", sl_ledger_thread_counter, ""),
	TABLE("Metrics of the configuration and the process", sl_control_counter, ""),
	ARRAY(NULL, sl_build_rows, "version"),
	ARRAY(NULL, sl_usage_rows, ""),
	TABLE("Metrics of `datagrams`", sl_datagram_counter, ""),
	TABLE("Metrics of a shard over `io: dpdk`", sl_dpdk_counter, ""),
	TABLE("Metrics of a port of `io: dpdk`", sl_dpdk_port_counter, "port"),
	TABLE("Metrics of all ports of `io: dpdk`", sl_dpdk_pool_counter, ""),
};

static void print_reasons(FILE *out)
{
	static const char *const codes[] = {
		[SL_GRPC_OK] = "OK",
		[SL_GRPC_CANCELLED] = "CANCELLED",
		[SL_GRPC_INVALID_ARGUMENT] = "INVALID_ARGUMENT",
		[SL_GRPC_DEADLINE_EXCEEDED] = "DEADLINE_EXCEEDED",
		[SL_GRPC_PERMISSION_DENIED] = "PERMISSION_DENIED",
		[SL_GRPC_RESOURCE_EXHAUSTED] = "RESOURCE_EXHAUSTED",
		[SL_GRPC_UNIMPLEMENTED] = "UNIMPLEMENTED",
		[SL_GRPC_INTERNAL] = "INTERNAL",
		[SL_GRPC_UNAVAILABLE] = "UNAVAILABLE",
		[SL_GRPC_UNAUTHENTICATED] = "UNAUTHENTICATED",
	};

	fputs("\n## Reasons\n\n"
	      "Why a call, or a tenant's part of one, is refused: the label `reason`. With a retry "
	      "hint the sender is told when to come again (RetryInfo, Retry-After).\n\n"
	      "| Reason | HTTP | gRPC | Retry hint | Meaning |\n|---|---|---|---|---|\n",
	      out);
	for (unsigned i = SL_REASON_NONE + 1; i < SL_REASONS; i++) {
		const struct sl_reason_row *row = &sl_reasons[i];

		assert(row->grpc < SL_COUNT_OF(codes) && codes[row->grpc]);
		fprintf(out, "| `%s` | %u | %s | %s | %s |\n", row->name, row->http,
			codes[row->grpc], row->retry ? "yes" : "", row->help);
	}
}

void sl_metrics_reference(FILE *out)
{
	fputs("\n# Reference of the metrics\n\n"
	      "At `/metrics` of the admin address, in Prometheus' text format or, to who asks for "
	      "it, OpenMetrics 1.0. Sums over all shards; `?by=shard` gives each shard's with the "
	      "label `shard` instead. Of metrics with two labels only what has happened is "
	      "there.\n",
	      out);
	for (size_t i = 0; i < SL_COUNT_OF(tables); i++)
		sl_metrics_print_reference(out, tables[i].title, tables[i].rows,
					   tables[i].count ? *tables[i].count : tables[i].fixed,
					   tables[i].labels);
	sl_ledger_print_reference(out);
	print_reasons(out);
}
