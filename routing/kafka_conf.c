#include "routing/kafka_conf.h"

#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/log.h"

// What the settings mean to librdkafka.

#define UNKNOWN_TOPIC_MS "2000"

enum sl_outcome sl_kafka_outcome(rd_kafka_resp_err_t code)
{
	switch (code) {
	case RD_KAFKA_RESP_ERR_NO_ERROR:
		return SL_OUTCOME_DELIVERED;
	case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
	case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
	case RD_KAFKA_RESP_ERR__INVALID_ARG:
	case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
	case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
	case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
	case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
	case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
	case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
	case RD_KAFKA_RESP_ERR_INVALID_RECORD:
	case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
		return SL_OUTCOME_REJECTED;
	default:
		return SL_OUTCOME_RETRYABLE;
	}
}

enum sl_answer sl_kafka_answer(rd_kafka_resp_err_t code)
{
	switch (code) {
	case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
	case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
		return SL_ANSWER_KAFKA_TOO_LARGE;
	case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
	case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
	case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		return SL_ANSWER_KAFKA_UNKNOWN_TOPIC;
	case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
	case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
		return SL_ANSWER_KAFKA_DENIED;
	case RD_KAFKA_RESP_ERR__INVALID_ARG:
	case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
	case RD_KAFKA_RESP_ERR_INVALID_RECORD:
	case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
		return SL_ANSWER_KAFKA_INVALID;
	case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS:
	case RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND:
	case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
	case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
		return SL_ANSWER_KAFKA_REPLICAS;
	case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
	case RD_KAFKA_RESP_ERR__TIMED_OUT:
	case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
		return SL_ANSWER_KAFKA_TIMED_OUT;
	default:
		return SL_ANSWER_KAFKA_OTHER;
	}
}

static void logged(const rd_kafka_t *handle, int level, const char *facility, const char *text)
{
	(void)handle;
	// What fails comes as kafka_error, too.
	const bool told = strcmp(facility, "FAIL") == 0 || strcmp(facility, "ERROR") == 0 ||
			  strcmp(facility, "FATAL") == 0;

	sl_log(level <= 3 && !told ? SL_LOG_WARN : SL_LOG_DEBUG, "librdkafka",
	       "facility=%s text=\"%s\"", facility, text);
}

struct setter {
	rd_kafka_conf_t *conf;
	const struct sl_where *where;
	struct sl_errors *errors;
	bool failed;
};

static void set(struct setter *setter, const char *name, const char *value)
{
	char error[256];

	if (!value ||
	    rd_kafka_conf_set(setter->conf, name, value, error, sizeof(error)) == RD_KAFKA_CONF_OK)
		return;
	sl_errors_add(setter->errors, setter->where, "kafka: %s", error);
	setter->failed = true;
}

static void set_number(struct setter *setter, const char *name, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	set(setter, name, text);
}

static void set_security(struct setter *setter, const struct sl_kafka_config *config)
{
	const struct sl_kafka_tls_config *tls = config->tls;
	const struct sl_kafka_sasl_config *sasl = config->sasl;

	if (tls || sasl)
		set(setter, "security.protocol",
		    tls && sasl ? "sasl_ssl"
		    : tls       ? "ssl"
				: "sasl_plaintext");
	if (tls) {
		set(setter, "ssl.ca.location", tls->ca_file);
		set(setter, "ssl.certificate.location", tls->certificate_file);
		set(setter, "ssl.key.location", tls->key_file);
		set(setter, "ssl.key.password", tls->key_password);
		set(setter, "enable.ssl.certificate.verification", tls->verify ? "true" : "false");
		set(setter, "ssl.endpoint.identification.algorithm",
		    tls->verify ? "https" : "none");
	}
	if (sasl) {
		set(setter, "sasl.mechanism", sl_kafka_sasl[sasl->mechanism]);
		set(setter, "sasl.username", sasl->username);
		set(setter, "sasl.password", sasl->password);
	}
}

static void set_brokers(struct setter *setter, const struct sl_kafka_config *config)
{
	const char *const *brokers = config->brokers.items;
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	for (size_t i = 0; out && i < config->brokers.count; i++)
		fprintf(out, "%s%s", i ? "," : "", brokers[i]);
	if (out && fclose(out) == 0)
		set(setter, "bootstrap.servers", text);
	free(text);
}

rd_kafka_conf_t *sl_kafka_conf(const struct sl_kafka_config *config, uint64_t timeout_max_ns,
			       struct sl_errors *errors)
{
	const struct sl_name_value_config *properties = config->properties.items;
	struct setter setter = {
		.conf = rd_kafka_conf_new(), .where = &config->where, .errors = errors};

	set_brokers(&setter, config);
	set(&setter, "client.id", config->client_id);
	set(&setter, "acks", sl_kafka_acks[config->acks]);
	set(&setter, "enable.idempotence", config->idempotence ? "true" : "false");
	set(&setter, "compression.codec", sl_kafka_compressions[config->compression]);
	set(&setter, "partitioner", config->partitioner);
	set_number(&setter, "linger.ms", config->linger_ns / SL_MS);
	set_number(&setter, "message.timeout.ms",
		   SL_MIN(config->message_timeout_ns, timeout_max_ns) / SL_MS);
	set_number(&setter, "message.max.bytes", config->message_bytes_max);
	set_number(&setter, "queue.buffering.max.kbytes", config->queue_bytes_max / 1024);
	set_number(&setter, "queue.buffering.max.messages", config->queue_records_max);
	set(&setter, "socket.keepalive.enable", "true");
	// A topic that nobody has made after this is an error for good, told while the sender
	// still waits; the time covers a broker that makes topics at first sight.
	set(&setter, "topic.metadata.propagation.max.ms", UNKNOWN_TOPIC_MS);
	set_security(&setter, config);
	for (size_t i = 0; i < config->properties.count; i++)
		set(&setter, properties[i].name, properties[i].value);
	rd_kafka_conf_set_log_cb(setter.conf, logged);
	if (!setter.failed)
		return setter.conf;
	rd_kafka_conf_destroy(setter.conf);
	return NULL;
}
