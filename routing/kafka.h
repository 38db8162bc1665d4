#pragma once

#include "dataplane/base/log.h"
#include "dataplane/base/sides.h"
#include "routing/driver.h"
#include "routing/kafka_conf.h"

// The Kafka driver's own types: producers with a thread each, and shards' sides.
//
// Threading: a producer's thread polls it, passes reports to the shards' sides, and replaces it
// after a fatal error. It is made by create(), as librdkafka's own threads are.
#define KAFKA_RECORDS_MAX 16384 // of one shard with its producer
#define KAFKA_TOPIC_BYTES 250   // Kafka's limit is 249
#define KAFKA_HEADERS_MAX 16

// What the log tells of an error: one of another kind is told at once.
struct kafka_told {
	uint64_t key;
	struct sl_log_spell spell;
};

struct kafka_side {
	struct sl_side base;
	struct kafka *kafka;
	struct kafka_producer *producer;
	struct kafka_told unproduced;
	uint64_t replaced;                        // the producer's, as counted so far
	struct sl_destination_counters *counters; // NULL: another shard counts for this producer
	rd_kafka_t *using;                        // writer: the shard; inside produce()
};

struct kafka_producer {
	struct kafka *kafka;
	rd_kafka_t *handle; // writer: its thread
	struct sl_sides sides;
	uint32_t fatal;
	uint64_t replaced;                    // writer: its thread
	struct kafka_told undelivered, erred; // its thread's
};

struct kafka {
	char *name, *topic, *tenant_header;
	struct sl_name_value_config *headers; // copies
	uint32_t header_count;
	uint64_t record_bytes_max, memory_max;
	bool by_trace;
	rd_kafka_conf_t *conf; // what producers are made of
	struct kafka_producer *producers;
	uint32_t producer_count;
};

// How many of such errors to tell now, this one included; 0: none.
uint64_t sl_kafka_told(struct kafka_told *told, uint64_t key, uint64_t now_ns);
// The cluster as its settings name it, for the log.
#define KAFKA_CLUSTER_BYTES 128
const char *sl_kafka_cluster(const struct kafka *kafka, char text[KAFKA_CLUSTER_BYTES]);
void *sl_kafka_create(const struct sl_destination_config *config, bool check_only,
		      struct sl_errors *errors);
void sl_kafka_destroy(void *self);
