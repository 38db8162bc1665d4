#pragma once

#include "config/settings.h"

// The configuration of destinations and routes, as the tables in settings.c fill it.
//
// Threading: built on the control thread, constant afterwards.
// Memory: goes with the loaded configuration.
enum sl_match_kind { SL_MATCH_EQUAL, SL_MATCH_PREFIX, SL_MATCH_GLOB };

struct sl_blackhole_config {
	struct sl_where where;
};

enum sl_file_format { SL_FILE_PROTOBUF, SL_FILE_JSON };

struct sl_file_config {
	struct sl_where where;
	const char *path;
	uint32_t format; // enum sl_file_format
	uint64_t rotate_bytes, rotate_age_ns;
	bool fsync;
};

struct sl_name_value_config {
	const char *name, *value;
};

struct sl_kafka_tls_config {
	const char *ca_file, *certificate_file, *key_file, *key_password;
	bool verify;
};

struct sl_kafka_sasl_config {
	uint32_t mechanism;
	const char *username, *password;
};

enum sl_partition_by { SL_PARTITION_NONE, SL_PARTITION_TRACE };

struct sl_kafka_config {
	struct sl_where where;
	struct sl_list brokers; // const char *
	const char *topic;
	uint32_t partition_by; // enum sl_partition_by
	const char *partitioner;
	uint32_t acks, compression;
	bool idempotence;
	uint64_t linger_ns, message_timeout_ns, message_bytes_max, queue_bytes_max;
	uint64_t queue_records_max, producers;
	const char *tenant_header;
	const char *client_id;
	struct sl_list headers; // struct sl_name_value_config
	struct sl_kafka_tls_config *tls;
	struct sl_kafka_sasl_config *sasl;
	struct sl_list properties; // struct sl_name_value_config
};

struct sl_otlp_tls_config {
	const char *ca_file, *certificate_file, *key_file;
	bool verify;
};

// How records are spread over a destination's endpoints: the fewest calls in flight, or by the hash
// of a key.
enum sl_spread { SL_SPREAD_LEAST, SL_SPREAD_TRACE, SL_SPREAD_TENANT, SL_SPREAD_ATTRIBUTE };

#define SL_ENDPOINTS_MAX 64

struct sl_balance_config {
	struct sl_where where;
	uint32_t hash; // enum sl_spread, less 1
	const char *attribute;
	double bound;
};

enum sl_health_check { SL_HEALTH_TCP, SL_HEALTH_GRPC, SL_HEALTH_HTTP, SL_HEALTH_WATCH };
#define SL_HEALTH_SERVICE_MAX 120

struct sl_health_config {
	struct sl_where where;
	uint32_t check; // enum sl_health_check
	uint64_t interval_ns, timeout_ns, up, down, port;
	const char *service, *path;
};

struct sl_outlier_config {
	uint64_t interval_ns, calls_min, wait_ns, wait_max_ns;
	double error_rate, share_max;
};

struct sl_otlp_config {
	struct sl_where where;
	const char *endpoint, *tenant_header;
	struct sl_list endpoints; // const char *; instead of `endpoint`
	uint32_t protocol;        // 0 gRPC, 1 HTTP
	uint32_t compression;     // enum sl_coding
	uint64_t timeout_ns, concurrency, connections, call_bytes_max;
	bool merge_compressed;
	struct sl_list headers; // struct sl_name_value_config
	struct sl_otlp_tls_config *tls;
	struct sl_balance_config *balance; // NULL: the fewest calls in flight
	struct sl_health_config *health;   // NULL: none
	struct sl_outlier_config *outlier; // NULL: none
};

struct sl_retry_config {
	uint64_t initial_ns, max_ns, max_elapsed_ns;
	double multiplier, budget;
};

struct sl_breaker_config {
	uint64_t failures, calls_min, probes, wait_ns, wait_max_ns;
	double error_rate;
};

struct sl_merge_config {
	uint64_t bytes, requests, delay_ns;
};

struct sl_failover_to_config {
	struct sl_where where;
	const char *destination;
};

struct sl_failover_config {
	struct sl_where where;
	struct sl_list to; // struct sl_failover_to_config
	uint64_t after_ns, return_after_ns;
};

enum sl_spool_fsync { SL_SPOOL_FSYNC_ALWAYS, SL_SPOOL_FSYNC_INTERVAL, SL_SPOOL_FSYNC_NEVER };
enum sl_spool_when_full { SL_SPOOL_REFUSE, SL_SPOOL_DROP_OLDEST };

struct sl_spool_config {
	struct sl_where where;
	const char *path;
	uint64_t bytes_max, segment_bytes, age_max_ns;
	uint32_t fsync; // enum sl_spool_fsync
	uint64_t fsync_interval_ns;
	uint32_t when_full; // enum sl_spool_when_full
	uint64_t after_ns;
	char destination[65]; // whose it is, for the log; set where that is made
};

struct sl_destination_config {
	const char *name;
	struct sl_where where;
	struct sl_retry_config retry;
	struct sl_where retry_where; // line 0: not said
	uint64_t pinned_bytes_max;   // 0: half of each shard's budget
	double tenant_share;
	struct sl_breaker_config *breaker; // NULL: none
	struct sl_spool_config *spool;     // NULL: none
	struct sl_merge_config *merge;     // NULL: each request by itself
	struct sl_blackhole_config *blackhole;
	struct sl_file_config *file;
	struct sl_kafka_config *kafka;
	struct sl_otlp_config *otlp;
	struct sl_failover_config *failover;
	const char *dead_letter; // a destination's name; NULL: none
};

struct sl_route_attribute_config {
	const char *name, *value;
};

struct sl_route_match_config {
	const char *tenant, *class_name, *service;
	struct sl_where class_where;
	uint32_t signal;         // enum sl_signal + 1; 0: any
	struct sl_list resource; // struct sl_route_attribute_config
};

struct sl_route_target_config {
	struct sl_where where;
	const char *destination;
	bool required;
};

struct sl_route_config {
	struct sl_where where;
	struct sl_route_match_config *match;
	struct sl_list to; // struct sl_route_target_config
	bool drop;
};

struct sl_routing_config {
	uint32_t acknowledge;        // enum sl_acknowledge
	struct sl_list destinations; // struct sl_destination_config
	struct sl_list routes;       // struct sl_route_config
};

extern const struct sl_settings sl_routing_settings, sl_destination_settings;
// Of parts of a destination, for the tables of the others.
extern const struct sl_settings sl_otlp_settings, sl_header_settings, sl_kafka_settings;

// The destination of that name, or NULL.
const struct sl_destination_config *sl_destination_find(const struct sl_routing_config *config,
							const char *name);
// Whether two structs that `settings` describes say the same; places in the file do not matter.
bool sl_settings_same(const struct sl_settings *settings, const void *a, const void *b);

// The kafka setting's index as librdkafka writes it.
extern const char *const sl_kafka_acks[];
extern const char *const sl_kafka_compressions[];
extern const char *const sl_kafka_sasl[];
