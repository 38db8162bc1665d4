#include "config/control/ledger_usage.h"

#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/log.h"
#include "routing/kafka_conf.h"

#define OUT_MOST 10000
#define AGAIN_NS SL_S

static void reported(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque)
{
	struct sl_usage_sender *sender = opaque;

	(void)handle;
	assert(sender->out > 0);
	sender->out--;
	if (!message->err) {
		sender->confirmed++;
		sl_ledger_usage_confirm(sender->ledger, (uint32_t)(uintptr_t)message->_private);
		return;
	}
	sender->failures++;
	sender->failed = true;
	sl_log(SL_LOG_WARN, "usage_not_delivered", "topic=%s reason=\"%s\"", sender->topic,
	       rd_kafka_err2str(message->err));
}

static void erred(rd_kafka_t *handle, int code, const char *reason, void *opaque)
{
	const struct sl_usage_sender *sender = opaque;

	(void)handle;
	sl_log(SL_LOG_WARN, "usage_kafka_error", "topic=%s code=%s reason=\"%s\"", sender->topic,
	       rd_kafka_err2name((rd_kafka_resp_err_t)code), reason);
}

// What is out ends as failed, and is sent again.
static void drop_handle(struct sl_usage_sender *sender)
{
	if (!sender->handle)
		return;
	rd_kafka_purge(sender->handle, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
	while (rd_kafka_outq_len(sender->handle))
		rd_kafka_poll(sender->handle, 10);
	rd_kafka_destroy(sender->handle);
	sender->handle = NULL;
	assert(!sender->out);
	sender->next = 0;
	sender->failed = false;
}

void sl_usage_sender_fini(struct sl_usage_sender *sender)
{
	drop_handle(sender);
	if (sender->conf)
		rd_kafka_conf_destroy(sender->conf);
	sender->conf = NULL;
}

static bool same_conf(rd_kafka_conf_t *a, rd_kafka_conf_t *b)
{
	size_t a_count, b_count;
	const char **one = rd_kafka_conf_dump(a, &a_count);
	const char **other = rd_kafka_conf_dump(b, &b_count);
	bool same = one && other && a_count == b_count;

	// Names and values by turns; callbacks of the one that has them are no settings.
	for (size_t i = 0; same && i < a_count; i++)
		same = strcmp(one[i], other[i]) == 0;
	rd_kafka_conf_dump_free(one, a_count);
	rd_kafka_conf_dump_free(other, b_count);
	return same;
}

void sl_usage_sender_configure(struct sl_usage_sender *sender, rd_kafka_conf_t *conf,
			       const char *topic)
{
	if (conf && sender->conf && strcmp(sender->topic, topic) == 0 &&
	    same_conf(conf, sender->conf)) {
		rd_kafka_conf_destroy(conf);
		return;
	}
	sl_usage_sender_fini(sender);
	sender->conf = conf;
	snprintf(sender->topic, sizeof(sender->topic), "%s", topic ? topic : "");
}

static bool make_handle(struct sl_usage_sender *sender)
{
	rd_kafka_conf_t *conf;
	char error[512];

	if (sender->handle)
		return true;
	if (!sender->conf)
		return false;
	conf = rd_kafka_conf_dup(sender->conf);
	rd_kafka_conf_set_opaque(conf, sender);
	rd_kafka_conf_set_dr_msg_cb(conf, reported);
	rd_kafka_conf_set_error_cb(conf, erred);
	sender->handle = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof(error));
	if (sender->handle)
		return true;
	rd_kafka_conf_destroy(conf);
	sl_log(SL_LOG_ERROR, "usage_no_producer", "topic=%s reason=\"%s\"", sender->topic, error);
	return false;
}

static bool produce(struct sl_usage_sender *sender, const struct sl_ledger_usage *usage)
{
	const rd_kafka_resp_err_t code = rd_kafka_producev(
		sender->handle, RD_KAFKA_V_TOPIC(sender->topic),
		RD_KAFKA_V_KEY(usage->key, strlen(usage->key)),
		RD_KAFKA_V_VALUE(usage->value, strlen(usage->value)),
		RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
		RD_KAFKA_V_OPAQUE((void *)(uintptr_t)usage->index), RD_KAFKA_V_END);

	if (!code) {
		sender->out++;
		return true;
	}
	if (code != RD_KAFKA_RESP_ERR__QUEUE_FULL) {
		sender->failures++;
		sender->failed = true;
		sl_log(SL_LOG_WARN, "usage_not_produced", "topic=%s reason=\"%s\"", sender->topic,
		       rd_kafka_err2str(code));
	}
	return false;
}

static void send_some(struct sl_usage_sender *sender)
{
	struct sl_ledger_usage usage;

	while (sender->out < OUT_MOST && !sender->failed &&
	       sl_ledger_usage_next(sender->ledger, sender->next, &usage)) {
		const bool taken = produce(sender, &usage);

		free(usage.key);
		free(usage.value);
		if (!taken)
			break;
		sender->next = usage.index + 1;
	}
}

void sl_usage_sender_run(struct sl_usage_sender *sender, uint64_t now_ns, int wait_ms)
{
	struct sl_ledger_stats stats;
	char reason[256];

	if (now_ns < sender->again_ns)
		return;
	sl_ledger_stats(sender->ledger, &stats);
	if (stats.sequence != sender->sequence) { // another cut
		assert(!sender->out);
		sender->sequence = stats.sequence;
		sender->next = 0;
	}
	if (stats.pending && make_handle(sender))
		send_some(sender);
	if (!sender->handle)
		return;
	rd_kafka_poll(sender->handle, wait_ms);
	if (rd_kafka_fatal_error(sender->handle, reason, sizeof(reason))) {
		sl_log(SL_LOG_WARN, "usage_producer_replaced", "topic=%s reason=\"%s\"",
		       sender->topic, reason);
		drop_handle(sender);
		sender->again_ns = now_ns + AGAIN_NS;
	} else if (sender->failed && !sender->out) {
		// All of them have ended: what failed goes again, from the first on.
		sender->failed = false;
		sender->next = 0;
		sender->again_ns = now_ns + AGAIN_NS;
	}
}
