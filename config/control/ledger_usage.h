#pragma once

#include <librdkafka/rdkafka.h>

#include "tenants/ledger/ledger.h"

// Sends the records of the ledger's last cut to a Kafka topic until all are confirmed: each at
// least once, with a key that never stands for other counts.
//
// Threading: the ledger's thread; librdkafka's own are made by it and are pinned nowhere.
// Memory: owns the conf it is given. Time: passed in.
struct sl_usage_sender {
	struct sl_ledger *ledger;
	rd_kafka_conf_t *conf; // NULL: nothing is sent
	char topic[250];
	rd_kafka_t *handle; // made when there is something to send
	uint64_t sequence;  // of the cut that is sent
	uint32_t next;      // record to send
	uint32_t out;       // sent and not heard of
	bool failed;        // some of those that were sent
	uint64_t again_ns;  // not before
	uint64_t confirmed, failures;
};

void sl_usage_sender_fini(struct sl_usage_sender *sender);
// Other settings: takes `conf`, with what is unconfirmed to be sent again. The same: destroys it.
void sl_usage_sender_configure(struct sl_usage_sender *sender, rd_kafka_conf_t *conf,
			       const char *topic);
// Sends what can be sent and hears what has come; waits `wait_ms` for the latter. Call it while
// records are pending, and only once they are on disk.
void sl_usage_sender_run(struct sl_usage_sender *sender, uint64_t now_ns, int wait_ms);
