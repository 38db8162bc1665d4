#include "routing/kafka.h"

#include "dataplane/base/clock.h"
#include "dataplane/base/hash.h"
#include "dataplane/base/log.h"
#include "routing/counters.h"
#include "routing/dead_letter.h"

// The Kafka driver's shard side: a record becomes one produce() call. One piece is handed over
// where it lies (the request is held until the report); several are gathered once, in the
// request's arena. Reports come back from the producer's thread (kafka_producer.c, base/sides.h).

static void *open_side(void *self, const struct sl_driver_env *env)
{
	struct kafka *kafka = self;
	struct kafka_producer *producer = &kafka->producers[env->shard % kafka->producer_count];
	struct kafka_side *side = sl_side_open(&producer->sides, env->waker);

	if (!side)
		return NULL;
	side->kafka = kafka;
	side->producer = producer;
	// The first of a producer's shards counts for it.
	side->counters = env->shard < kafka->producer_count ? env->counters : NULL;
	side->replaced = __atomic_load_n(&producer->replaced, __ATOMIC_RELAXED);
	return side;
}

static void close_side(void *side)
{
	sl_side_close(side);
}

// Several pieces become one, which stays for further attempts.
static bool gather(struct sl_record *record)
{
	uint8_t *all;
	size_t at = 0;

	if (record->piece_count == 1)
		return true;
	all = sl_arena_alloc(record->arena, record->bytes);
	if (!all)
		return false;
	for (uint32_t i = 0; i < record->piece_count; i++) {
		memcpy(all + at, record->pieces[i].iov_base, record->pieces[i].iov_len);
		at += record->pieces[i].iov_len;
	}
	record->pieces[0] = (struct iovec){all, record->bytes};
	record->piece_count = 1;
	return true;
}

static void append(char *out, size_t *at, size_t size, struct sl_bytes text)
{
	const size_t room = size - 1 - *at;
	const size_t count = SL_MIN(room, text.size);

	memcpy(out + *at, text.data, count);
	*at += count;
	out[*at] = 0;
}

// {signal} and {tenant} of the topic's template.
static void topic_of(const struct kafka *kafka, const struct sl_record *record,
		     char topic[KAFKA_TOPIC_BYTES])
{
	size_t at = 0;

	topic[0] = 0;
	for (const char *from = kafka->topic; *from;) {
		if (strncmp(from, "{signal}", 8) == 0) {
			append(topic, &at, KAFKA_TOPIC_BYTES,
			       sl_bytes_of(sl_signal_topic_names[record->signal]));
			from += 8;
		} else if (strncmp(from, "{tenant}", 8) == 0) {
			append(topic, &at, KAFKA_TOPIC_BYTES, record->tenant_name);
			from += 8;
		} else {
			append(topic, &at, KAFKA_TOPIC_BYTES, sl_bytes(from++, 1));
		}
	}
}

// NULL: none. A list of our own, which librdkafka takes with the record or leaves to us: one that
// rd_kafka_produceva() made of single headers, 2.0.2 frees twice when the topic is not there.
static rd_kafka_headers_t *headers_of(const struct kafka *kafka, const struct sl_record *record)
{
	const size_t count = (kafka->tenant_header ? 1 : 0) + kafka->header_count +
			     (record->letter ? SL_DEAD_LETTER_HEADERS : 0);
	rd_kafka_headers_t *headers;

	if (!count)
		return NULL;
	headers = rd_kafka_headers_new(count);
	if (kafka->tenant_header)
		rd_kafka_header_add(headers, kafka->tenant_header, -1, record->tenant_name.data,
				    (ssize_t)record->tenant_name.size);
	for (uint32_t i = 0; i < kafka->header_count; i++)
		rd_kafka_header_add(headers, kafka->headers[i].name, -1, kafka->headers[i].value,
				    -1);
	for (uint32_t i = 0; record->letter && i < SL_DEAD_LETTER_HEADERS; i++)
		rd_kafka_header_add(headers, sl_dead_letter_texts[i], -1,
				    record->letter->values[i].data,
				    (ssize_t)record->letter->values[i].size);
	return headers;
}

static rd_kafka_resp_err_t produce(struct kafka_side *side, rd_kafka_t *handle,
				   struct sl_record *record)
{
	const struct kafka *kafka = side->kafka;
	rd_kafka_vu_t values[6];
	rd_kafka_headers_t *headers;
	char topic[KAFKA_TOPIC_BYTES];
	size_t count = 0;
	rd_kafka_error_t *error;
	rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;

	topic_of(kafka, record, topic);
	values[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = topic};
	values[count++] = (rd_kafka_vu_t){
		.vtype = RD_KAFKA_VTYPE_VALUE,
		.u.mem = {record->pieces[0].iov_base, record->pieces[0].iov_len}};
	// Without flags the value is neither copied nor freed: it stays until the report.
	values[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = 0};
	values[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = record};
	if (record->key.data)
		values[count++] = (rd_kafka_vu_t){
			.vtype = RD_KAFKA_VTYPE_KEY,
			.u.mem = {(void *)(uintptr_t)record->key.data, record->key.size}};
	headers = headers_of(kafka, record);
	if (headers)
		values[count++] = (rd_kafka_vu_t){.vtype = RD_KAFKA_VTYPE_HEADERS,
						  .u.headers = headers};
	error = rd_kafka_produceva(handle, values, count);
	if (error) {
		code = rd_kafka_error_code(error);
		rd_kafka_error_destroy(error);
		if (headers)
			rd_kafka_headers_destroy(headers);
	}
	return code;
}

static void end(struct sl_record *record, rd_kafka_resp_err_t code)
{
	const enum sl_outcome outcome = sl_kafka_outcome(code);

	if (SL_UNLIKELY(code))
		sl_egress_answered(record, sl_kafka_answer(code), outcome);
	sl_egress_end(record, outcome, 0);
}

static void tell_unproduced(struct kafka_side *side, const struct sl_record *record,
			    rd_kafka_resp_err_t code)
{
	char topic[KAFKA_TOPIC_BYTES], cluster[KAFKA_CLUSTER_BYTES];
	uint64_t count;

	topic_of(side->kafka, record, topic);
	count = sl_kafka_told(&side->unproduced, sl_hash(sl_bytes_of(topic)) + (uint64_t)code,
			      sl_clock_now_ns());
	if (count)
		sl_log(SL_LOG_WARN, "kafka_not_produced",
		       "destination=%s topic=%s brokers=%s reason=\"%s\" count=%llu",
		       side->kafka->name, topic, sl_kafka_cluster(side->kafka, cluster),
		       rd_kafka_err2str(code), (unsigned long long)count);
}

static enum sl_reason submit(void *state, struct sl_record *record)
{
	struct kafka_side *side = state;
	struct kafka_producer *producer = side->producer;
	rd_kafka_resp_err_t code;
	rd_kafka_t *handle;

	if (sl_side_is_full(&side->base))
		return SL_REASON_EGRESS_FULL;
	if (!gather(record))
		return SL_REASON_MEMORY_FULL;
	// The producer may be replaced at any moment: its thread keeps the old one until no shard
	// says that it uses it. Both sides store, then load (sequentially consistent).
	do {
		handle = __atomic_load_n(&producer->handle, __ATOMIC_SEQ_CST);
		__atomic_store_n(&side->using, handle, __ATOMIC_SEQ_CST);
	} while (handle != __atomic_load_n(&producer->handle, __ATOMIC_SEQ_CST));
	record->driver_data = side;
	code = produce(side, handle, record);
	// The code of a fatal error is that of its cause.
	if (SL_UNLIKELY(code) && rd_kafka_fatal_error(handle, NULL, 0))
		code = RD_KAFKA_RESP_ERR__FATAL;
	__atomic_store_n(&side->using, NULL, __ATOMIC_RELEASE);
	if (code == RD_KAFKA_RESP_ERR_NO_ERROR) {
		sl_side_gave(&side->base);
		return SL_REASON_NONE;
	}
	if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL || code == RD_KAFKA_RESP_ERR__FATAL)
		return SL_REASON_EGRESS_FULL;
	tell_unproduced(side, record, code);
	record->refusal = rd_kafka_err2name(code);
	end(record, code);
	return SL_REASON_NONE;
}

static void poll_side(void *state, uint64_t now_ns)
{
	struct kafka_side *side = state;
	const uint64_t replaced = __atomic_load_n(&side->producer->replaced, __ATOMIC_RELAXED);
	struct sl_record *record;

	(void)now_ns;
	if (SL_UNLIKELY(replaced != side->replaced)) {
		if (side->counters)
			sl_count(&side->counters->replaced[0], replaced - side->replaced);
		side->replaced = replaced;
	}
	while ((record = sl_side_settle(&side->base)))
		end(record, (rd_kafka_resp_err_t)(intptr_t)record->driver_data);
}

static uint64_t record_bytes_max(void *self)
{
	return ((struct kafka *)self)->record_bytes_max;
}

static uint64_t memory_max(void *self)
{
	return ((struct kafka *)self)->memory_max;
}

static bool by_trace(void *self)
{
	return ((struct kafka *)self)->by_trace;
}

const struct sl_driver sl_driver_kafka = {
	.name = "kafka",
	.create = sl_kafka_create,
	.destroy = sl_kafka_destroy,
	.lingers = true,
	.open = open_side,
	.close = close_side,
	.submit = submit,
	.poll = poll_side,
	.memory_max = memory_max,
	.record_bytes_max = record_bytes_max,
	.by_trace = by_trace,
};
