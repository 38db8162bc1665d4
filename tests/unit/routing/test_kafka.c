#include "routing/kafka.h"

#include <librdkafka/rdkafka_mock.h> // needs rdkafka.h before it

#include "tests/unit/routing/rig.h"

// The Kafka driver against librdkafka's mock cluster: errors of brokers, lost producers, full
// queues, and what the settings say to librdkafka.

#define PRODUCE 0 // ApiKey

// They need only be there: nothing is read before a producer is made.
#define CA_FILE          "/etc/passwd"
#define CERTIFICATE_FILE "/etc/group"
#define KEY_FILE         "/etc/hosts"

static void begin(struct rig *rig, const char *settings, const char *properties)
{
	char yaml[1024];

	snprintf(yaml, sizeof(yaml),
		 "destinations:\n"
		 "  k:\n"
		 "    kafka:\n"
		 "      brokers: [x]\n"
		 "      producers: 1\n"
		 "      %s\n"
		 "      properties: {test.mock.num.brokers: 1, reconnect.backoff.max.ms: 100, "
		 "retry.backoff.ms: 10%s}\n"
		 "    retry: {initial: 10ms, max: 50ms}\n"
		 "routes: [{to: [k]}]\n",
		 settings, properties);
	*rig = (struct rig){0};
	set_up(rig, yaml);
}

static struct kafka *kafka_of(const struct rig *rig)
{
	return rig->routing[0]->destinations[0]->self;
}

static rd_kafka_mock_cluster_t *cluster_of(const struct rig *rig)
{
	return rd_kafka_handle_mock_cluster(kafka_of(rig)->producers[0].handle);
}

static void check_end(const struct rig *rig, const char *why, const char *end, uint64_t items)
{
	char counter[64];

	snprintf(counter, sizeof(counter), "sluice_%s_items", end);
	if (count(rig, counter, "k") != items)
		fail_msg("%s: %s %llu", why, counter, (unsigned long long)count(rig, counter, "k"));
	assert_int_equal(count(rig, "sluice_taken_items", "k"),
			 count(rig, "sluice_delivered_items", "k") +
				 count(rig, "sluice_rejected_items", "k") +
				 count(rig, "sluice_returned_items", "k"));
}

static void test_errors_of_brokers(void **state)
{
	static const struct {
		const char *why;
		rd_kafka_resp_err_t error;
		const char *idempotence, *end;
		enum sl_reason reason;
	} rows[] = {
		{"the leader moved: librdkafka tries again",
		 RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, "true", "delivered", SL_REASON_NONE},
		{"too few replicas for now", RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, "true",
		 "delivered", SL_REASON_NONE},
		{"a broker that had no time", RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, "true",
		 "delivered", SL_REASON_NONE},
		{"an error that librdkafka gives back is ours to try again",
		 RD_KAFKA_RESP_ERR_UNKNOWN, "false", "delivered", SL_REASON_NONE},
		{"no leave", RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "false", "rejected",
		 SL_REASON_REJECTED},
		{"too large for the topic", RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, "false",
		 "rejected", SL_REASON_REJECTED},
		{"not as the topic's policy has it", RD_KAFKA_RESP_ERR_POLICY_VIOLATION, "false",
		 "rejected", SL_REASON_REJECTED},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct rig rig;
		struct call call;
		char settings[64];

		snprintf(settings, sizeof(settings), "idempotence: %s", rows[i].idempotence);
		begin(&rig, settings, "");
		rd_kafka_mock_push_request_errors(cluster_of(&rig), PRODUCE, 1, rows[i].error);
		offer(&rig, &call, "t", SL_TRACES, TRACES(RESOURCE("x", SPAN(ID1))));
		pump(&rig, &call);
		check_end(&rig, rows[i].why, rows[i].end, 1);
		assert_int_equal(call.request.reason, rows[i].reason);
		tear_down(&rig);
	}
}

static void test_errors_of_topics(void **state)
{
	static const struct {
		const char *why;
		rd_kafka_resp_err_t error;
	} rows[] = {
		{"nobody made it", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART},
		{"no name for a topic", RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION},
	};

	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		struct rig rig;
		struct call call;

		begin(&rig, "topic: t", ", topic.metadata.propagation.max.ms: 50");
		rd_kafka_mock_topic_set_error(cluster_of(&rig), "t", rows[i].error);
		offer(&rig, &call, "t", SL_TRACES, TRACES(RESOURCE("x", SPAN(ID1))));
		pump(&rig, &call);
		check_end(&rig, rows[i].why, "rejected", 1);
		assert_int_equal(call.request.reason, SL_REASON_REJECTED);
		tear_down(&rig);
	}
}

// A fatal error ends what the producer holds; it goes again by a new one.
static void test_a_fatal_error_replaces_the_producer(void **state)
{
	struct rig rig;
	struct call calls[20];
	struct kafka_side *side;
	rd_kafka_t *old;

	(void)state;
	// None is sent before the error, however slow this is.
	begin(&rig, "linger: 1s\n      idempotence: true", "");
	old = kafka_of(&rig)->producers[0].handle;
	side = rig.shard->egresses->side;
	for (size_t i = 0; i < SL_COUNT_OF(calls); i++) {
		offer(&rig, &calls[i], "t", SL_TRACES, TRACES(RESOURCE("x", SPAN(ID1))));
		if (i != 9)
			continue;
		// As produce() does: the producer's thread may see the error, and let go of the
		// handle, before the call is back.
		__atomic_store_n(&side->using, old, __ATOMIC_SEQ_CST);
		assert_int_equal(
			rd_kafka_test_fatal_error(
				old, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, "test"),
			RD_KAFKA_RESP_ERR_NO_ERROR);
		__atomic_store_n(&side->using, NULL, __ATOMIC_RELEASE);
	}
	for (size_t i = 0; i < SL_COUNT_OF(calls); i++) {
		pump(&rig, &calls[i]);
		assert_int_equal(calls[i].request.reason, SL_REASON_NONE);
	}
	sl_routing_poll(rig.shard, sl_clock_now_ns());
	check_end(&rig, "all go by the new one", "delivered", SL_COUNT_OF(calls));
	// What came between was no attempt: it waited for the new one.
	assert_int_equal(count(&rig, "sluice_retried_records", "k"), 10);
	assert_int_equal(count(&rig, "sluice_replaced_producers", "k"), 1);
	assert_ptr_not_equal(kafka_of(&rig)->producers[0].handle, old);
	tear_down(&rig);
}

static void test_a_full_queue_presses_back(void **state)
{
	struct rig rig;
	struct call calls[10];

	(void)state;
	begin(&rig, "queue_records: 2", "");
	for (size_t i = 0; i < SL_COUNT_OF(calls); i++)
		offer(&rig, &calls[i], "t", SL_TRACES, TRACES(RESOURCE("x", SPAN(ID1))));
	assert_int_equal(count(&rig, "sluice_queue_records", "k"), SL_COUNT_OF(calls));
	assert_true(rd_kafka_outq_len(kafka_of(&rig)->producers[0].handle) <= 2);
	for (size_t i = 0; i < SL_COUNT_OF(calls); i++)
		pump(&rig, &calls[i]);
	check_end(&rig, "none is lost", "delivered", SL_COUNT_OF(calls));
	assert_int_equal(count(&rig, "sluice_retried_records", "k"), 0);
	tear_down(&rig);
}

static void test_one_item_that_is_too_long_is_refused(void **state)
{
	struct rig rig;
	struct call call;
	char json[3000];

	(void)state;
	begin(&rig, "max_message_bytes: 2000", "");
	snprintf(json, sizeof(json),
		 TRACES("{\"scopeSpans\":[{\"spans\":[{\"name\":\"%02500d\"}]}]}"), 0);
	offer(&rig, &call, "t", SL_TRACES, json);
	pump(&rig, &call);
	check_end(&rig, "longer than any record", "rejected", 1);
	tear_down(&rig);
}

static void test_settings_reach_librdkafka(void **state)
{
	static const struct {
		const char *name, *want;
	} rows[] = {
		{"bootstrap.servers", "a:1,b:2"},
		{"client.id", "sluice"},
		{"acks", "-1"},
		{"enable.idempotence", "true"},
		{"partitioner", "fnv1a_random"},
		{"compression.codec", "zstd"},
		{"linger.ms", "7"},
		{"message.timeout.ms", "300000"}, // the answer's deadline is ours
		{"message.max.bytes", "1000000"},
		{"queue.buffering.max.kbytes", "262144"},
		{"security.protocol", "sasl_ssl"},
		{"ssl.ca.location", CA_FILE},
		{"ssl.certificate.location", CERTIFICATE_FILE},
		{"ssl.key.location", KEY_FILE},
		{"ssl.key.password", "opened"},
		{"enable.ssl.certificate.verification", "true"},
		{"ssl.endpoint.identification.algorithm", "https"},
		{"sasl.mechanisms", "SCRAM-SHA-512"},
		{"sasl.username", "me"},
		{"sasl.password", "secret"},
		{"socket.timeout.ms", "1234"}, // a property
	};
	const struct sl_kafka_config *config;
	struct rig rig = {.errors = sl_errors_create(), .check_only = true};

	(void)state;
	if (!build(&rig, 0,
		   "destinations:\n"
		   "  k:\n"
		   "    kafka:\n"
		   "      brokers: ['a:1', 'b:2']\n"
		   "      compression: zstd\n"
		   "      linger: 7ms\n"
		   "      idempotence: true\n"
		   "      tls: {ca_file: " CA_FILE ", certificate_file: " CERTIFICATE_FILE ", "
		   "key_file: " KEY_FILE ", key_password: opened}\n"
		   "      sasl: {mechanism: SCRAM-SHA-512, username: me, password: secret}\n"
		   "      properties: {socket.timeout.ms: 1234}\n"
		   "routes: [{to: [k]}]\n"))
		fail_msg("%s", sl_errors_line(rig.errors, 0));
	config = rig.routing[0]->configs[0].kafka;
	assert_int_equal(config->properties.count, 1);
	for (size_t i = 0; i < SL_COUNT_OF(rows); i++) {
		char value[256] = "";
		size_t size = sizeof(value);

		assert_int_equal(
			rd_kafka_conf_get(kafka_of(&rig)->conf, rows[i].name, value, &size),
			RD_KAFKA_CONF_OK);
		if (strcmp(value, rows[i].want) != 0)
			fail_msg("%s: %s", rows[i].name, value);
	}
	sl_routing_module.destroy(rig.routing[0]);
	sl_loaded_fini(&rig.loaded[0]);
	sl_errors_destroy(rig.errors);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errors_of_brokers),
		cmocka_unit_test(test_errors_of_topics),
		cmocka_unit_test(test_a_fatal_error_replaces_the_producer),
		cmocka_unit_test(test_a_full_queue_presses_back),
		cmocka_unit_test(test_one_item_that_is_too_long_is_refused),
		cmocka_unit_test(test_settings_reach_librdkafka),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
