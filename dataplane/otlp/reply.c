#include "dataplane/otlp/reply.h"

#include <stdarg.h>
#include <stdio.h>

#include "dataplane/otlp/reply.pb-c.h"
#include "dataplane/otlp/text.h"

#define RETRY_TYPE      "type.googleapis.com/google.rpc.RetryInfo"
#define BAD_TYPE        "type.googleapis.com/google.rpc.BadRequest"
#define FIELD_BYTES_MAX 256

// Two messages (the status' and the violation's), a field and less than 512 bytes of the rest.
static_assert(2 * SL_REPLY_MESSAGE_MAX + FIELD_BYTES_MAX + 512 <= SL_REPLY_BYTES_MAX,
	      "every answer fits");

static const char *const rejected_names[SL_SIGNALS] = {
	[SL_TRACES] = "rejectedSpans",
	[SL_METRICS] = "rejectedDataPoints",
	[SL_LOGS] = "rejectedLogRecords",
};

// A terminated copy of `text`, cut at a character's border so that it takes at most `max` bytes.
// What is not UTF-8 is replaced: a reader may refuse the whole answer for it. `json` escapes.
static void copy_text(char *out, size_t max, struct sl_bytes text, bool json)
{
	size_t size = 0;

	for (size_t at = 0; at < text.size;) {
		uint8_t character[SL_JSON_ESCAPE_MAX];
		unsigned count = sl_utf8_bytes(text, at);

		if (json || count == 0) {
			count = sl_json_escape(character, text, &at);
		} else if (text.data[at] == '\0') {
			character[0] = ' '; // protobuf-c's strings end at it
			at++;
		} else {
			memcpy(character, text.data + at, count);
			at += count;
		}
		if (size + count > max)
			break;
		memcpy(out + size, character, count);
		size += count;
	}
	out[size] = '\0';
}

struct writer {
	char *at;
	size_t left;
};

static void write_text(struct writer *writer, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void write_text(struct writer *writer, const char *format, ...)
{
	va_list arguments;
	int size;

	va_start(arguments, format);
	size = vsnprintf(writer->at, writer->left, format, arguments);
	va_end(arguments);
	assert(size >= 0 && (size_t)size < writer->left);
	writer->at += size;
	writer->left -= (size_t)size;
}

size_t sl_reply_success(uint8_t *out, bool json, enum sl_signal signal, uint64_t rejected,
			struct sl_bytes message)
{
	Sl__Reply__Success success = SL__REPLY__SUCCESS__INIT;
	Sl__Reply__Partial partial = SL__REPLY__PARTIAL__INIT;
	struct writer writer = {(char *)out, SL_REPLY_BYTES_MAX};
	char text[SL_REPLY_MESSAGE_MAX + 1];

	rejected = SL_MIN(rejected, INT64_MAX);
	copy_text(text, SL_REPLY_MESSAGE_MAX, message, json);
	if (!json) {
		partial.rejected = (int64_t)rejected;
		partial.error_message = text;
		if (rejected || text[0])
			success.partial_success = &partial;
		return sl__reply__success__pack(&success, out);
	}
	write_text(&writer, "{");
	if (rejected || text[0])
		write_text(&writer, "\"partialSuccess\":{");
	if (rejected)
		write_text(&writer, "\"%s\":\"%llu\"%s", rejected_names[signal],
			   (unsigned long long)rejected, text[0] ? "," : "");
	if (text[0])
		write_text(&writer, "\"errorMessage\":\"%s\"", text);
	write_text(&writer, rejected || text[0] ? "}}" : "}");
	return SL_REPLY_BYTES_MAX - writer.left;
}

// 0, 3, 6 or 9 digits of a second's fraction: proto3 JSON's canonical form.
static void write_duration(struct writer *writer, uint64_t ns)
{
	const unsigned long long seconds = ns / SL_S, part = ns % SL_S;

	if (part == 0)
		write_text(writer, "\"%llus\"", seconds);
	else if (part % SL_MS == 0)
		write_text(writer, "\"%llu.%03llus\"", seconds, part / SL_MS);
	else if (part % SL_US == 0)
		write_text(writer, "\"%llu.%06llus\"", seconds, part / SL_US);
	else
		write_text(writer, "\"%llu.%09llus\"", seconds, part);
}

static size_t status_json(uint8_t *out, int code, const char *message, uint64_t retry_after_ns,
			  const char *field)
{
	struct writer writer = {(char *)out, SL_REPLY_BYTES_MAX};

	write_text(&writer, "{\"code\":%d,\"message\":\"%s\"", code, message);
	if (retry_after_ns || field[0])
		write_text(&writer, ",\"details\":[");
	if (retry_after_ns) {
		write_text(&writer, "{\"@type\":\"" RETRY_TYPE "\",\"retryDelay\":");
		write_duration(&writer, retry_after_ns);
		write_text(&writer, "}%s", field[0] ? "," : "]");
	}
	if (field[0])
		write_text(&writer,
			   "{\"@type\":\"" BAD_TYPE
			   "\",\"fieldViolations\":[{\"field\":\"%s\",\"description\":\"%s\"}]}]",
			   field, message);
	write_text(&writer, "}");
	return SL_REPLY_BYTES_MAX - writer.left;
}

static size_t status_protobuf(uint8_t *out, int code, char *message, uint64_t retry_after_ns,
			      char *field)
{
	Sl__Reply__Status status = SL__REPLY__STATUS__INIT;
	Sl__Reply__Duration delay = SL__REPLY__DURATION__INIT;
	Sl__Reply__RetryInfo retry = SL__REPLY__RETRY_INFO__INIT;
	Sl__Reply__Violation violation = SL__REPLY__VIOLATION__INIT;
	Sl__Reply__Violation *violations[] = {&violation};
	Sl__Reply__BadRequest bad = SL__REPLY__BAD_REQUEST__INIT;
	Sl__Reply__Any any[2] = {SL__REPLY__ANY__INIT, SL__REPLY__ANY__INIT};
	Sl__Reply__Any *details[] = {&any[0], &any[1]};
	uint8_t retry_bytes[32], bad_bytes[FIELD_BYTES_MAX + SL_REPLY_MESSAGE_MAX + 32];
	size_t count = 0, size;

	status.code = code;
	status.message = message;
	if (retry_after_ns) {
		delay.seconds = (int64_t)(retry_after_ns / SL_S);
		delay.nanos = (int32_t)(retry_after_ns % SL_S);
		retry.retry_delay = &delay;
		any[count].type_url = RETRY_TYPE;
		any[count].value.data = retry_bytes;
		any[count++].value.len = sl__reply__retry_info__pack(&retry, retry_bytes);
	}
	if (field[0]) {
		violation.field = field;
		violation.description = message;
		bad.n_field_violations = 1;
		bad.field_violations = violations;
		any[count].type_url = BAD_TYPE;
		any[count].value.data = bad_bytes;
		any[count++].value.len = sl__reply__bad_request__pack(&bad, bad_bytes);
	}
	status.n_details = count;
	status.details = details;
	size = sl__reply__status__get_packed_size(&status);
	assert(size <= SL_REPLY_BYTES_MAX);
	return sl__reply__status__pack(&status, out);
}

size_t sl_reply_status(uint8_t *out, bool json, int code, struct sl_bytes message,
		       uint64_t retry_after_ns, struct sl_bytes bad_field)
{
	char text[SL_REPLY_MESSAGE_MAX + 1], field[FIELD_BYTES_MAX + 1];

	copy_text(text, SL_REPLY_MESSAGE_MAX, message, json);
	copy_text(field, FIELD_BYTES_MAX, bad_field, json);
	return json ? status_json(out, code, text, retry_after_ns, field)
		    : status_protobuf(out, code, text, retry_after_ns, field);
}

size_t sl_reply_base64(char *out, struct sl_bytes bytes)
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t size = 0;
	uint32_t bits = 0;

	for (size_t i = 0; i < bytes.size; i++) {
		bits = bits << 8 | bytes.data[i];
		out[size++] = alphabet[bits >> (2 * (i % 3 + 1)) & 63];
		if (i % 3 == 2)
			out[size++] = alphabet[bits & 63];
	}
	if (bytes.size % 3)
		out[size++] = alphabet[bits << (6 - 2 * (bytes.size % 3)) & 63];
	return size;
}
