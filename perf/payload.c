#include "perf/payload.h"

#include <stdio.h>
#include <stdlib.h>

#include "dataplane/base/random.h"
#include "dataplane/base/varint.h"

#define SCOPE_ITEMS 250 // items in one scope
#define LENGTH_MAX  3   // bytes left open for a message's length: closed to its minimum

struct writer {
	uint8_t *at, *end;
	struct sl_random random;
	bool full;
};

static const char *const routes[] = {"/api/v1/checkout/cart", "/api/v1/orders/{orderId}/items",
				     "/api/v1/products/search", "/api/v1/users/{userId}/profile"};
static const char *const operations[] = {"POST checkout", "GET orders/{orderId}/items",
					 "GET products/search", "GET users/{userId}/profile"};

static void bytes(struct writer *writer, const void *data, size_t size)
{
	if ((size_t)(writer->end - writer->at) < size) {
		writer->full = true;
		return;
	}
	memcpy(writer->at, data, size);
	writer->at += size;
}

static void varint(struct writer *writer, uint64_t value)
{
	uint8_t scratch[SL_VARINT_BYTES_MAX];

	bytes(writer, scratch, sl_varint_put(scratch, value));
}

static void number(struct writer *writer, unsigned field, uint64_t value)
{
	varint(writer, field << 3);
	varint(writer, value);
}

static void fixed(struct writer *writer, unsigned field, uint64_t value)
{
	varint(writer, field << 3 | 1);
	bytes(writer, &value, sizeof(value));
}

static void data(struct writer *writer, unsigned field, const void *from, size_t size)
{
	varint(writer, field << 3 | 2);
	varint(writer, size);
	bytes(writer, from, size);
}

static void text(struct writer *writer, unsigned field, const char *from)
{
	data(writer, field, from, strlen(from));
}

static void random_id(struct writer *writer, unsigned field, unsigned size)
{
	const uint64_t id[2] = {sl_random_next(&writer->random), sl_random_next(&writer->random)};

	data(writer, field, id, size);
}

// Opens a message; `closed` moves what was written over the length's unused bytes.
static uint8_t *opened(struct writer *writer, unsigned field)
{
	static const uint8_t nothing[LENGTH_MAX + 1];

	varint(writer, field << 3 | 2);
	bytes(writer, nothing, sizeof(nothing));
	return writer->at;
}

static void closed(struct writer *writer, uint8_t *payload)
{
	const size_t size = (size_t)(writer->at - payload);
	uint8_t *length = payload - (LENGTH_MAX + 1);

	if (writer->full)
		return;

	const unsigned count = sl_varint_bytes(size);

	assert(count <= LENGTH_MAX + 1);
	memmove(length + count, payload, size);
	sl_varint_put(length, size);
	writer->at = length + count + size;
}

static void attribute(struct writer *writer, unsigned field, const char *key, const char *value)
{
	uint8_t *pair = opened(writer, field);

	text(writer, 1, key);
	uint8_t *any = opened(writer, 2);

	text(writer, 1, value);
	closed(writer, any);
	closed(writer, pair);
}

static void attribute_number(struct writer *writer, unsigned field, const char *key, uint64_t value)
{
	uint8_t *pair = opened(writer, field);

	text(writer, 1, key);
	uint8_t *any = opened(writer, 2);

	number(writer, 3, value);
	closed(writer, any);
	closed(writer, pair);
}

static void span(struct writer *writer)
{
	const uint64_t start_ns = UINT64_C(1760000000000000000) +
				  sl_random_below(&writer->random, SL_S);
	const unsigned which = (unsigned)sl_random_below(&writer->random, SL_COUNT_OF(routes));
	const bool failed = sl_random_below(&writer->random, 100) < 3;
	uint8_t *item = opened(writer, 2);

	random_id(writer, 1, 16);
	random_id(writer, 2, 8);
	if (sl_random_below(&writer->random, 4))
		random_id(writer, 4, 8);
	text(writer, 5, operations[which]);
	number(writer, 6, 2);
	fixed(writer, 7, start_ns);
	fixed(writer, 8, start_ns + sl_random_below(&writer->random, 400 * SL_MS));
	attribute(writer, 9, "http.request.method", which ? "GET" : "POST");
	attribute(writer, 9, "http.route", routes[which]);
	attribute(writer, 9, "server.address", "shop.internal.example");
	attribute(writer, 9, "user_agent.original", "okhttp/4.12.0");
	attribute(writer, 9, "client.address", "10.41.7.133");
	attribute_number(writer, 9, "http.response.status_code", failed ? 500 : 200);
	attribute(writer, 9, "network.protocol.version", "1.1");

	uint8_t *status = opened(writer, 15);

	if (failed)
		number(writer, 3, 2);
	closed(writer, status);
	varint(writer, 16 << 3 | 5);
	bytes(writer, (const uint8_t[]){1, 1, 0, 0}, 4);
	closed(writer, item);
}

static void log_record(struct writer *writer)
{
	const uint64_t at_ns = UINT64_C(1760000000000000000) +
			       sl_random_below(&writer->random, SL_S);
	const unsigned which = (unsigned)sl_random_below(&writer->random, SL_COUNT_OF(routes));
	char line[160];
	uint8_t *item = opened(writer, 2);

	fixed(writer, 1, at_ns);
	number(writer, 2, 9);
	text(writer, 3, "INFO");
	snprintf(line, sizeof(line), "handled %s in %u us, cache %s", routes[which],
		 (unsigned)sl_random_below(&writer->random, 90000), which & 1 ? "hit" : "miss");

	uint8_t *body = opened(writer, 5);

	text(writer, 1, line);
	closed(writer, body);
	attribute(writer, 6, "http.route", routes[which]);
	attribute(writer, 6, "thread.name", "worker-17");
	attribute(writer, 6, "code.function", "handle_request");
	varint(writer, 8 << 3 | 5);
	bytes(writer, (const uint8_t[]){1, 0, 0, 0}, 4);
	random_id(writer, 9, 16);
	random_id(writer, 10, 8);
	fixed(writer, 11, at_ns + 1000);
	closed(writer, item);
}

// A Metric of `points` number points: a cumulative sum.
static void metric(struct writer *writer, uint32_t points)
{
	const uint64_t at_ns = UINT64_C(1760000000000000000);
	uint8_t *item = opened(writer, 2);

	text(writer, 1, "http.server.request.count");
	text(writer, 2, "Requests handled since the start of the process.");
	text(writer, 3, "{request}");

	uint8_t *sum = opened(writer, 7);

	for (uint32_t i = 0; i < points; i++) {
		uint8_t *point = opened(writer, 1);

		fixed(writer, 2, at_ns);
		fixed(writer, 3, at_ns + 10 * SL_S);
		fixed(writer, 6, sl_random_below(&writer->random, 1000000));
		attribute(writer, 7, "http.route", routes[i % SL_COUNT_OF(routes)]);
		attribute(writer, 7, "http.request.method", i & 1 ? "GET" : "POST");
		attribute_number(writer, 7, "http.response.status_code", 200 + i % 3 * 100);
		closed(writer, point);
	}
	number(writer, 2, 2);
	number(writer, 3, 1);
	closed(writer, sum);
	closed(writer, item);
}

static void resource(struct writer *writer)
{
	uint8_t *about = opened(writer, 1);

	attribute(writer, 1, "service.name", "checkout");
	attribute(writer, 1, "service.version", "2026.11.3");
	attribute(writer, 1, "service.instance.id", "checkout-7d9c5b6f4-x2x9p");
	attribute(writer, 1, "deployment.environment.name", "production");
	attribute(writer, 1, "k8s.namespace.name", "shop");
	attribute(writer, 1, "telemetry.sdk.language", "java");
	closed(writer, about);
}

size_t sl_payload_build(uint8_t *out, size_t size, enum sl_signal signal, uint32_t items,
			uint64_t seed)
{
	struct writer writer = {.at = out, .end = out + size};

	sl_random_init(&writer.random, seed);

	uint8_t *top = opened(&writer, 1);

	resource(&writer);
	for (uint32_t done = 0; done < items;) {
		const uint32_t now = SL_MIN(items - done, SCOPE_ITEMS);
		uint8_t *scope = opened(&writer, 2), *about = opened(&writer, 1);

		text(&writer, 1, "io.opentelemetry.http-server");
		text(&writer, 2, "2.20.1");
		closed(&writer, about);
		for (uint32_t i = 0; i < now; i += signal == SL_METRICS ? 10 : 1) {
			if (signal == SL_TRACES)
				span(&writer);
			else if (signal == SL_LOGS)
				log_record(&writer);
			else
				metric(&writer, SL_MIN(now - i, 10));
		}
		closed(&writer, scope);
		done += now;
	}
	closed(&writer, top);
	return writer.full ? 0 : (size_t)(writer.at - out);
}
