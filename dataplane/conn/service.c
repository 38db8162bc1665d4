#include "dataplane/conn/session.h"

#include <strings.h>

enum sl_service sl_service_of(struct sl_bytes path, enum sl_signal *signal)
{
	for (unsigned i = 0; i < SL_SIGNALS; i++) {
		const bool grpc = sl_bytes_equal(path, sl_signal_grpc_paths[i]);

		if (grpc || sl_bytes_equal(path, sl_signal_http_paths[i])) {
			*signal = (enum sl_signal)i;
			return grpc ? SL_SERVICE_EXPORT_GRPC : SL_SERVICE_EXPORT_HTTP;
		}
	}
	return SL_SERVICE_UNKNOWN;
}

// Whether the media type, without its parameters, is `name`.
static bool media_is(struct sl_bytes type, struct sl_bytes name)
{
	return type.size == name.size &&
	       strncasecmp((const char *)type.data, (const char *)name.data, name.size) == 0;
}

enum sl_media sl_media_of(struct sl_bytes content_type)
{
	const uint8_t *semicolon = content_type.size
					   ? memchr(content_type.data, ';', content_type.size)
					   : NULL;
	struct sl_bytes type = content_type;

	if (semicolon)
		type.size = (size_t)(semicolon - type.data);
	while (type.size && (type.data[type.size - 1] == ' ' || type.data[type.size - 1] == '\t'))
		type.size--;
	if (media_is(type, SL_LITERAL("application/grpc")) ||
	    media_is(type, SL_LITERAL("application/grpc+proto")))
		return SL_MEDIA_GRPC;
	if (media_is(type, SL_LITERAL("application/x-protobuf")))
		return SL_MEDIA_PROTOBUF;
	if (media_is(type, SL_LITERAL("application/json")))
		return SL_MEDIA_JSON;
	return SL_MEDIA_OTHER;
}

static const char *const code_names[SL_CODES] = {
	"OK",
	"CANCELLED",
	"UNKNOWN",
	"INVALID_ARGUMENT",
	"DEADLINE_EXCEEDED",
	"NOT_FOUND",
	"ALREADY_EXISTS",
	"PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED",
	"FAILED_PRECONDITION",
	"ABORTED",
	"OUT_OF_RANGE",
	"UNIMPLEMENTED",
	"INTERNAL",
	"UNAVAILABLE",
	"DATA_LOSS",
	"UNAUTHENTICATED",
	"200",
	"204",
	"400",
	"401",
	"403",
	"404",
	"405",
	"408",
	"413",
	"415",
	"417",
	"429",
	"431",
	"499",
	"500",
	"501",
	"503",
	"505",
	"other",
};
static const struct sl_label label_code = {.name = "code", .values = code_names, .count = SL_CODES};

#define ROW(field_, kind_, name_, help_)                                                           \
	{                                                                                          \
		.name = name_, .help = help_, .kind = SL_METRIC_##kind_,                           \
		.offset = offsetof(struct sl_conn_counters, field_), .count = 1, .labels = {       \
			&sl_label_none                                                             \
		}                                                                                  \
	}

const struct sl_metric_row sl_conn_counter_rows[] = {
	{.name = "sluice_requests",
	 .help = "Export calls, by protocol and status code (gRPC's name, HTTP's number); "
		 "CANCELLED "
		 "and 499: ended by the client before the answer.",
	 .kind = SL_METRIC_COUNTER,
	 .offset = offsetof(struct sl_conn_counters, requests),
	 .count = SL_PROTOCOLS * SL_CODES,
	 .labels = {&sl_label_protocol, &label_code}},
	{.name = "sluice_refused_requests",
	 .help = "Export calls refused, by reason; before its body is read a call has no items.",
	 .kind = SL_METRIC_COUNTER,
	 .offset = offsetof(struct sl_conn_counters, refused),
	 .count = SL_REASONS,
	 .labels = {&sl_label_reason}},
	ROW(connections, COUNTER, "sluice_connections_accepted", "Connections taken."),
	ROW(connections_open, GAUGE, "sluice_connections_open", "Connections now open."),
	ROW(connections_refused, COUNTER, "sluice_connections_refused",
	    "Connections closed at once: at limits.connections, draining, or out of memory."),
	ROW(tls_failures, COUNTER, "sluice_tls_failures", "Connections whose TLS failed."),
	ROW(protocol_errors, COUNTER, "sluice_protocol_errors",
	    "Connections ended for breaking HTTP/1.1 or HTTP/2."),
	ROW(slow_bodies, COUNTER, "sluice_slow_bodies", "Bodies cut for being too slow."),
	ROW(paused_reads, COUNTER, "sluice_paused_reads",
	    "HTTP/1 connections not read for a time: their client came before its retry hint."),
	ROW(hint_refused_streams, COUNTER, "sluice_hint_refused_streams",
	    "HTTP/2 streams refused: their client keeps coming before its retry hint."),
};
const uint32_t sl_conn_counter_row_count = SL_COUNT_OF(sl_conn_counter_rows);

void sl_conn_count_request(struct sl_conn_counters *counters, enum sl_protocol protocol, bool grpc,
			   unsigned code)
{
	unsigned index = SL_CODES - 1;

	if (grpc && code <= SL_GRPC_UNAUTHENTICATED)
		index = code;
	for (unsigned i = SL_GRPC_UNAUTHENTICATED + 1; !grpc && i < SL_CODES - 1; i++) {
		const char *name = code_names[i];

		if ((unsigned)(name[0] - '0') * 100 + (unsigned)(name[1] - '0') * 10 +
			    (unsigned)(name[2] - '0') ==
		    code) {
			index = i;
			break;
		}
	}
	sl_count(&counters->requests[protocol * SL_CODES + index], 1);
}
