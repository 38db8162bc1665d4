#pragma once

#include <librdkafka/rdkafka.h>

#include "dataplane/request/request.h"
#include "routing/answers.h"
#include "routing/settings.h"

// What every producer of ours is made of: the driver's (kafka_producer.c), and that of usage
// records (config/control/ledger_usage.c).
//
// Threading: control thread. Memory: the conf is the caller's to destroy, or goes with its handle.

// NULL after lines in `errors`. Callbacks but the log's are the caller's to set.
// Records are given up after `timeout_max_ns` at the latest.
rd_kafka_conf_t *sl_kafka_conf(const struct sl_kafka_config *config, uint64_t timeout_max_ns,
			       struct sl_errors *errors);
// What one producer holds at most, as configured: the bytes of its queue (they are copied only
// where they are compressed), and what librdkafka has beside each record.
#define SL_KAFKA_BESIDE_RECORD 512
SL_INLINE uint64_t sl_kafka_producer_bytes(const struct sl_kafka_config *config)
{
	return config->queue_bytes_max + config->queue_records_max * SL_KAFKA_BESIDE_RECORD;
}
// What an error code means for a record.
enum sl_outcome sl_kafka_outcome(rd_kafka_resp_err_t code);
// Of one that is no success, the metric's word.
enum sl_answer sl_kafka_answer(rd_kafka_resp_err_t code);
