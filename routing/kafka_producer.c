#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "dataplane/base/clock.h"
#include "dataplane/base/hash.h"
#include "dataplane/base/log.h"
#include "routing/kafka.h"

// Producers: their configuration, their threads, their replacement.

#define SPOOL_PATIENCE_NS (2 * SL_S) // answers are due after 4 s
#define POLL_MS           100
#define FLUSH_MS          1000
#define RECORD_OVERHEAD   512 // key and framing beside the value, for message.max.bytes
#define HEADER_OVERHEAD   10  // of one header: its lengths
#define PRODUCERS_PRESET  4

// --- a producer's thread -------------------------------------------------------------------------

uint64_t sl_kafka_told(struct kafka_told *told, uint64_t key, uint64_t now_ns)
{
	if (told->key != key)
		*told = (struct kafka_told){.key = key};
	return sl_log_spell_more(&told->spell, now_ns);
}

const char *sl_kafka_cluster(const struct kafka *kafka, char text[KAFKA_CLUSTER_BYTES])
{
	size_t size = KAFKA_CLUSTER_BYTES;

	if (rd_kafka_conf_get(kafka->conf, "bootstrap.servers", text, &size) != RD_KAFKA_CONF_OK)
		text[0] = 0;
	text[KAFKA_CLUSTER_BYTES - 1] = 0;
	return text;
}

static void tell_undelivered(struct kafka_producer *producer, const rd_kafka_message_t *message)
{
	const char *topic = message->rkt ? rd_kafka_topic_name(message->rkt) : "?";
	char cluster[KAFKA_CLUSTER_BYTES];
	const uint64_t count = sl_kafka_told(&producer->undelivered,
					     sl_hash(sl_bytes_of(topic)) + (uint64_t)message->err,
					     sl_clock_now_ns());

	if (count)
		sl_log(SL_LOG_WARN, "kafka_not_delivered",
		       "destination=%s topic=%s brokers=%s reason=\"%s\" count=%llu",
		       producer->kafka->name, topic, sl_kafka_cluster(producer->kafka, cluster),
		       rd_kafka_err2str(message->err), (unsigned long long)count);
}

static void report(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque)
{
	struct sl_record *record = message->_private;
	struct kafka_side *side = record->driver_data;
	struct kafka_producer *producer = opaque;

	(void)handle;
	if (message->err)
		tell_undelivered(producer, message);
	record->refusal = rd_kafka_err2name(message->err);
	record->denied = message->err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
			 message->err == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
	record->driver_data = (void *)(intptr_t)message->err;
	sl_helper_return(&side->base, record);
}

static void error_seen(rd_kafka_t *handle, int code, const char *reason, void *opaque)
{
	struct kafka_producer *producer = opaque;
	const uint64_t count = sl_kafka_told(&producer->erred, (uint64_t)(int64_t)code,
					     sl_clock_now_ns());

	(void)handle;
	if (count)
		sl_log(SL_LOG_WARN, "kafka_error",
		       "destination=%s code=%s reason=\"%s\" count=%llu", producer->kafka->name,
		       rd_kafka_err2name((rd_kafka_resp_err_t)code), reason,
		       (unsigned long long)count);
	if (code == RD_KAFKA_RESP_ERR__FATAL)
		producer->fatal = 1;
}

static void throttled(rd_kafka_t *handle, const char *broker, int32_t id, int wait_ms, void *opaque)
{
	const struct kafka_producer *producer = opaque;

	(void)handle, (void)id;
	sl_log(SL_LOG_WARN, "kafka_throttled", "destination=%s broker=%s wait_ms=%d",
	       producer->kafka->name, broker, wait_ms);
}

static rd_kafka_t *make_handle(struct kafka_producer *producer, char *error, size_t error_size)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_dup(producer->kafka->conf);
	rd_kafka_t *handle;

	rd_kafka_conf_set_opaque(conf, producer);
	handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, error_size);
	if (!handle)
		rd_kafka_conf_destroy(conf);
	return handle;
}

// Serves reports, waiting for the first; then wakes the shards that have some.
static void poll_handle(struct kafka_producer *producer, rd_kafka_t *handle, int wait_ms)
{
	rd_kafka_poll(handle, wait_ms);
	sl_sides_turn(&producer->sides);
	sl_sides_wake(&producer->sides);
}

// Ends all that the old producer holds as retryable, and destroys it once no shard is inside it.
static void replace(struct kafka_producer *producer)
{
	rd_kafka_t *old = producer->handle, *fresh;
	char error[512];

	fresh = make_handle(producer, error, sizeof(error));
	if (!fresh) {
		sl_log(SL_LOG_ERROR, "kafka_not_replaced", "destination=%s reason=\"%s\"",
		       producer->kafka->name, error);
		usleep(POLL_MS * 1000);
		return;
	}
	producer->fatal = 0;
	__atomic_store_n(&producer->replaced, producer->replaced + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&producer->handle, fresh, __ATOMIC_SEQ_CST);
	// Whoever opens a side after this turn sees the fresh one only.
	sl_sides_turn(&producer->sides);
	for (struct sl_side *side = producer->sides.first; side; side = side->next) {
		const struct kafka_side *own = (struct kafka_side *)side;

		while (__atomic_load_n(&own->using, __ATOMIC_SEQ_CST) == old)
			sched_yield();
	}
	rd_kafka_purge(old, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
	while (rd_kafka_outq_len(old))
		poll_handle(producer, old, 10);
	rd_kafka_destroy(old);
	producer->fatal = 0; // what the old one still said
	sl_log(SL_LOG_WARN, "kafka_replaced", "destination=%s count=%llu", producer->kafka->name,
	       (unsigned long long)producer->replaced);
}

static void *thread_main(void *argument)
{
	struct kafka_producer *producer = argument;

	while (!sl_sides_are_over(&producer->sides)) {
		poll_handle(producer, producer->handle, POLL_MS);
		if (SL_UNLIKELY(producer->fatal))
			replace(producer);
	}
	return NULL;
}

// --- control thread ------------------------------------------------------------------------------

// With a spool a record comes back while its sender waits.
static uint64_t patience_ns(const struct sl_destination_config *destination)
{
	return destination->spool ? SL_MAX(destination->spool->after_ns, SPOOL_PATIENCE_NS)
				  : UINT64_MAX;
}

static bool fill_conf(struct kafka *kafka, const struct sl_destination_config *destination,
		      struct sl_errors *errors)
{
	const struct sl_kafka_config *config = destination->kafka;

	kafka->conf = sl_kafka_conf(config, patience_ns(destination), errors);
	if (!kafka->conf)
		return false;
	rd_kafka_conf_set_dr_msg_cb(kafka->conf, report);
	rd_kafka_conf_set_error_cb(kafka->conf, error_seen);
	rd_kafka_conf_set_throttle_cb(kafka->conf, throttled);
	return true;
}

void sl_kafka_destroy(void *self)
{
	struct kafka *kafka = self;

	if (!kafka)
		return;
	for (uint32_t i = 0; kafka->producers && i < kafka->producer_count; i++) {
		struct kafka_producer *producer = &kafka->producers[i];

		sl_sides_end(&producer->sides);
		if (producer->handle) {
			rd_kafka_flush(producer->handle, FLUSH_MS);
			rd_kafka_destroy(producer->handle);
		}
	}
	for (uint32_t i = 0; i < kafka->header_count; i++) {
		free((void *)(uintptr_t)kafka->headers[i].name);
		free((void *)(uintptr_t)kafka->headers[i].value);
	}
	if (kafka->conf)
		rd_kafka_conf_destroy(kafka->conf);
	free(kafka->headers);
	free(kafka->producers);
	free(kafka->tenant_header);
	free(kafka->topic);
	free(kafka->name);
	free(kafka);
}

static int copy_names(struct kafka *kafka, const char *name, const struct sl_kafka_config *config)
{
	const struct sl_name_value_config *from = config->headers.items;

	kafka->name = strdup(name);
	kafka->topic = strdup(config->topic);
	kafka->tenant_header = config->tenant_header ? strdup(config->tenant_header) : NULL;
	kafka->headers = calloc(config->headers.count + 1, sizeof(*kafka->headers));
	if (!kafka->name || !kafka->topic || !kafka->headers ||
	    (config->tenant_header && !kafka->tenant_header))
		return -ENOMEM;
	for (size_t i = 0; i < config->headers.count; i++) {
		struct sl_name_value_config *to = &kafka->headers[kafka->header_count++];

		to->name = strdup(from[i].name);
		to->value = strdup(from[i].value);
		if (!to->name || !to->value)
			return -ENOMEM;
	}
	return 0;
}

// A record goes down by librdkafka, whose reports are what the thread waits for.
static const struct sl_sides_kind sides_kind = {
	.name = "kafka-reports",
	.side_bytes = sizeof(struct kafka_side),
	.down = KAFKA_RECORDS_MAX,
	.elsewhere = true,
};

static int start_producers(struct kafka *kafka, const struct sl_where *where,
			   struct sl_errors *errors)
{
	char error[512];

	for (uint32_t i = 0; i < kafka->producer_count; i++) {
		struct kafka_producer *producer = &kafka->producers[i];

		producer->handle = make_handle(producer, error, sizeof(error));
		if (!producer->handle) {
			sl_errors_add(errors, where, "kafka: %s", error);
			return -EINVAL;
		}
		if (sl_sides_init(&producer->sides, &sides_kind) < 0 ||
		    sl_sides_start(&producer->sides, thread_main, producer) < 0)
			return -EAGAIN;
	}
	return 0;
}

// The longest value that a record within `max_message_bytes` can carry beside its headers; 0: none.
static uint64_t value_bytes_max(const struct sl_kafka_config *config)
{
	const struct sl_name_value_config *headers = config->headers.items;
	uint64_t beside = RECORD_OVERHEAD;

	for (size_t i = 0; i < config->headers.count; i++)
		beside += HEADER_OVERHEAD + strlen(headers[i].name) + strlen(headers[i].value);
	if (config->tenant_header)
		beside += HEADER_OVERHEAD + strlen(config->tenant_header) + SL_TENANT_NAME_MAX;
	return beside < config->message_bytes_max ? config->message_bytes_max - beside : 0;
}

void *sl_kafka_create(const struct sl_destination_config *destination, bool check_only,
		      struct sl_errors *errors)
{
	const struct sl_kafka_config *config = destination->kafka;
	const long cores = sysconf(_SC_NPROCESSORS_ONLN);
	struct kafka *kafka = calloc(1, sizeof(*kafka));

	if (!kafka)
		return NULL;
	kafka->by_trace = config->partition_by == SL_PARTITION_TRACE;
	kafka->record_bytes_max = value_bytes_max(config);
	kafka->producer_count = config->producers
					? (uint32_t)config->producers
					: (uint32_t)SL_MAX(1, SL_MIN(cores, PRODUCERS_PRESET));
	kafka->memory_max = kafka->producer_count * sl_kafka_producer_bytes(config);
	kafka->producers = calloc(kafka->producer_count, sizeof(*kafka->producers));
	for (uint32_t i = 0; kafka->producers && i < kafka->producer_count; i++)
		kafka->producers[i].kafka = kafka;
	if (config->headers.count > KAFKA_HEADERS_MAX)
		sl_errors_add(errors, &config->where, "kafka: at most %d headers",
			      KAFKA_HEADERS_MAX);
	else if (!kafka->record_bytes_max)
		sl_errors_add(errors, &config->where,
			      "kafka: max_message_bytes has no room beside the headers");
	else if (kafka->producers && copy_names(kafka, destination->name, config) == 0 &&
		 fill_conf(kafka, destination, errors) &&
		 (check_only || start_producers(kafka, &config->where, errors) == 0))
		return kafka;
	sl_kafka_destroy(kafka);
	return NULL;
}
