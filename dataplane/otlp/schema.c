#include "dataplane/otlp/schema.h"

// Fields stand by number, rising; `by_number` is each message's index of them. The order and the
// agreement of the two are tested, not trusted.
#define SCALAR(n, json, kind)                                                                      \
	{                                                                                          \
		.number = n, .name = json, .type = SL_FIELD_##kind                                 \
	}
#define OPTIONAL(n, json, kind)                                                                    \
	{                                                                                          \
		.number = n, .name = json, .type = SL_FIELD_##kind, .optional = true               \
	}
#define MEMBER(n, json, kind)                                                                      \
	{                                                                                          \
		.number = n, .name = json, .type = SL_FIELD_##kind, .optional = true, .oneof = 1   \
	}
#define REPEATED(n, json, kind)                                                                    \
	{                                                                                          \
		.number = n, .name = json, .type = SL_FIELD_##kind, .repeated = true               \
	}
#define ENUM(n, json, table)                                                                       \
	{                                                                                          \
		.number = n, .name = json, .type = SL_FIELD_ENUM, .names = table                   \
	}
#define ID(n, json, size)                                                                          \
	{                                                                                          \
		.number = n, .name = json, .type = SL_FIELD_ID, .id_bytes = size                   \
	}
#define ONE(n, json, of)                                                                           \
	{                                                                                          \
		.number = n, .name = json, .type = SL_FIELD_MESSAGE, .message = &(of)              \
	}
#define ONE_OF(n, json, of)                                                                        \
	{                                                                                          \
		.number = n, .name = json, .type = SL_FIELD_MESSAGE, .message = &(of),             \
		.optional = true, .oneof = 1                                                       \
	}
#define MANY(n, json, of)                                                                          \
	{                                                                                          \
		.number = n, .name = json, .type = SL_FIELD_MESSAGE, .message = &(of),             \
		.repeated = true                                                                   \
	}
#define MESSAGE(symbol, text, ...)                                                                 \
	const struct sl_message symbol = {                                                         \
		.name = text,                                                                      \
		.fields = symbol##_fields,                                                         \
		.field_count = SL_COUNT_OF(symbol##_fields),                                       \
		.by_number = {__VA_ARGS__},                                                        \
	}

static const struct sl_enum_name span_kinds[] = {
	{"SPAN_KIND_UNSPECIFIED", 0},
	{"SPAN_KIND_INTERNAL", 1},
	{"SPAN_KIND_SERVER", 2},
	{"SPAN_KIND_CLIENT", 3},
	{"SPAN_KIND_PRODUCER", 4},
	{"SPAN_KIND_CONSUMER", 5},
	{NULL, 0},
};

static const struct sl_enum_name status_codes[] = {
	{"STATUS_CODE_UNSET", 0},
	{"STATUS_CODE_OK", 1},
	{"STATUS_CODE_ERROR", 2},
	{NULL, 0},
};

static const struct sl_enum_name temporalities[] = {
	{"AGGREGATION_TEMPORALITY_UNSPECIFIED", 0},
	{"AGGREGATION_TEMPORALITY_DELTA", 1},
	{"AGGREGATION_TEMPORALITY_CUMULATIVE", 2},
	{NULL, 0},
};

static const struct sl_enum_name severities[] = {
	{"SEVERITY_NUMBER_UNSPECIFIED", 0}, {"SEVERITY_NUMBER_TRACE", 1},
	{"SEVERITY_NUMBER_TRACE2", 2},      {"SEVERITY_NUMBER_TRACE3", 3},
	{"SEVERITY_NUMBER_TRACE4", 4},      {"SEVERITY_NUMBER_DEBUG", 5},
	{"SEVERITY_NUMBER_DEBUG2", 6},      {"SEVERITY_NUMBER_DEBUG3", 7},
	{"SEVERITY_NUMBER_DEBUG4", 8},      {"SEVERITY_NUMBER_INFO", 9},
	{"SEVERITY_NUMBER_INFO2", 10},      {"SEVERITY_NUMBER_INFO3", 11},
	{"SEVERITY_NUMBER_INFO4", 12},      {"SEVERITY_NUMBER_WARN", 13},
	{"SEVERITY_NUMBER_WARN2", 14},      {"SEVERITY_NUMBER_WARN3", 15},
	{"SEVERITY_NUMBER_WARN4", 16},      {"SEVERITY_NUMBER_ERROR", 17},
	{"SEVERITY_NUMBER_ERROR2", 18},     {"SEVERITY_NUMBER_ERROR3", 19},
	{"SEVERITY_NUMBER_ERROR4", 20},     {"SEVERITY_NUMBER_FATAL", 21},
	{"SEVERITY_NUMBER_FATAL2", 22},     {"SEVERITY_NUMBER_FATAL3", 23},
	{"SEVERITY_NUMBER_FATAL4", 24},     {NULL, 0},
};

// AnyValue contains itself, through ArrayValue and through KeyValueList's KeyValue.
static const struct sl_field array_value_fields[] = {MANY(1, "values", sl_schema_any_value)};
static MESSAGE(array_value, "ArrayValue", [1] = 1);

static const struct sl_field key_value_list_fields[] = {MANY(1, "values", sl_schema_key_value)};
static MESSAGE(key_value_list, "KeyValueList", [1] = 1);

static const struct sl_field sl_schema_any_value_fields[] = {
	MEMBER(1, "stringValue", STRING),     MEMBER(2, "boolValue", BOOL),
	MEMBER(3, "intValue", INT64),         MEMBER(4, "doubleValue", DOUBLE),
	ONE_OF(5, "arrayValue", array_value), ONE_OF(6, "kvlistValue", key_value_list),
	MEMBER(7, "bytesValue", BYTES),       MEMBER(8, "stringValueStrindex", INT32),
};
MESSAGE(sl_schema_any_value, "AnyValue", [1] = 1, 2, 3, 4, 5, 6, 7, 8);

static const struct sl_field sl_schema_key_value_fields[] = {
	SCALAR(1, "key", STRING),
	ONE(2, "value", sl_schema_any_value),
	SCALAR(3, "keyStrindex", INT32),
};
MESSAGE(sl_schema_key_value, "KeyValue", [1] = 1, 2, 3);

static const struct sl_field entity_ref_fields[] = {
	SCALAR(1, "schemaUrl", STRING),
	SCALAR(2, "type", STRING),
	REPEATED(3, "idKeys", STRING),
	REPEATED(4, "descriptionKeys", STRING),
};
static MESSAGE(entity_ref, "EntityRef", [1] = 1, 2, 3, 4);

static const struct sl_field sl_schema_resource_fields[] = {
	MANY(1, "attributes", sl_schema_key_value),
	SCALAR(2, "droppedAttributesCount", UINT32),
	MANY(3, "entityRefs", entity_ref),
};
MESSAGE(sl_schema_resource, "Resource", [1] = 1, 2, 3);

static const struct sl_field sl_schema_scope_fields[] = {
	SCALAR(1, "name", STRING),
	SCALAR(2, "version", STRING),
	MANY(3, "attributes", sl_schema_key_value),
	SCALAR(4, "droppedAttributesCount", UINT32),
};
MESSAGE(sl_schema_scope, "InstrumentationScope", [1] = 1, 2, 3, 4);

static const struct sl_field event_fields[] = {
	SCALAR(1, "timeUnixNano", FIXED64),
	SCALAR(2, "name", STRING),
	MANY(3, "attributes", sl_schema_key_value),
	SCALAR(4, "droppedAttributesCount", UINT32),
};
static MESSAGE(event, "Event", [1] = 1, 2, 3, 4);

static const struct sl_field link_fields[] = {
	ID(1, "traceId", 16),
	ID(2, "spanId", 8),
	SCALAR(3, "traceState", STRING),
	MANY(4, "attributes", sl_schema_key_value),
	SCALAR(5, "droppedAttributesCount", UINT32),
	SCALAR(6, "flags", FIXED32),
};
static MESSAGE(link, "Link", [1] = 1, 2, 3, 4, 5, 6);

static const struct sl_field status_fields[] = {
	SCALAR(2, "message", STRING),
	ENUM(3, "code", status_codes),
};
static MESSAGE(status, "Status", [2] = 1, 2);

static const struct sl_field sl_schema_span_fields[] = {
	ID(1, "traceId", 16),
	ID(2, "spanId", 8),
	SCALAR(3, "traceState", STRING),
	ID(4, "parentSpanId", 8),
	SCALAR(5, "name", STRING),
	ENUM(6, "kind", span_kinds),
	SCALAR(7, "startTimeUnixNano", FIXED64),
	SCALAR(8, "endTimeUnixNano", FIXED64),
	MANY(9, "attributes", sl_schema_key_value),
	SCALAR(10, "droppedAttributesCount", UINT32),
	MANY(11, "events", event),
	SCALAR(12, "droppedEventsCount", UINT32),
	MANY(13, "links", link),
	SCALAR(14, "droppedLinksCount", UINT32),
	ONE(15, "status", status),
	SCALAR(16, "flags", FIXED32),
};
MESSAGE(sl_schema_span, "Span", [1] = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);

static const struct sl_field sl_schema_log_record_fields[] = {
	SCALAR(1, "timeUnixNano", FIXED64),
	ENUM(2, "severityNumber", severities),
	SCALAR(3, "severityText", STRING),
	ONE(5, "body", sl_schema_any_value),
	MANY(6, "attributes", sl_schema_key_value),
	SCALAR(7, "droppedAttributesCount", UINT32),
	SCALAR(8, "flags", FIXED32),
	ID(9, "traceId", 16),
	ID(10, "spanId", 8),
	SCALAR(11, "observedTimeUnixNano", FIXED64),
	SCALAR(12, "eventName", STRING),
};
MESSAGE(sl_schema_log_record, "LogRecord", [1] = 1, 2, 3, [5] = 4, 5, 6, 7, 8, 9, 10, 11);

static const struct sl_field exemplar_fields[] = {
	SCALAR(2, "timeUnixNano", FIXED64),
	MEMBER(3, "asDouble", DOUBLE),
	ID(4, "spanId", 8),
	ID(5, "traceId", 16),
	MEMBER(6, "asInt", SFIXED64),
	MANY(7, "filteredAttributes", sl_schema_key_value),
};
static MESSAGE(exemplar, "Exemplar", [2] = 1, 2, 3, 4, 5, 6);

static const struct sl_field number_point_fields[] = {
	SCALAR(2, "startTimeUnixNano", FIXED64),
	SCALAR(3, "timeUnixNano", FIXED64),
	MEMBER(4, "asDouble", DOUBLE),
	MANY(5, "exemplars", exemplar),
	MEMBER(6, "asInt", SFIXED64),
	MANY(7, "attributes", sl_schema_key_value),
	SCALAR(8, "flags", UINT32),
};
static MESSAGE(number_point, "NumberDataPoint", [2] = 1, 2, 3, 4, 5, 6, 7);

static const struct sl_field histogram_point_fields[] = {
	SCALAR(2, "startTimeUnixNano", FIXED64),
	SCALAR(3, "timeUnixNano", FIXED64),
	SCALAR(4, "count", FIXED64),
	OPTIONAL(5, "sum", DOUBLE),
	REPEATED(6, "bucketCounts", FIXED64),
	REPEATED(7, "explicitBounds", DOUBLE),
	MANY(8, "exemplars", exemplar),
	MANY(9, "attributes", sl_schema_key_value),
	SCALAR(10, "flags", UINT32),
	OPTIONAL(11, "min", DOUBLE),
	OPTIONAL(12, "max", DOUBLE),
};
static MESSAGE(histogram_point, "HistogramDataPoint", [2] = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);

static const struct sl_field buckets_fields[] = {
	SCALAR(1, "offset", SINT32),
	REPEATED(2, "bucketCounts", UINT64),
};
static MESSAGE(buckets, "Buckets", [1] = 1, 2);

static const struct sl_field exponential_point_fields[] = {
	MANY(1, "attributes", sl_schema_key_value),
	SCALAR(2, "startTimeUnixNano", FIXED64),
	SCALAR(3, "timeUnixNano", FIXED64),
	SCALAR(4, "count", FIXED64),
	OPTIONAL(5, "sum", DOUBLE),
	SCALAR(6, "scale", SINT32),
	SCALAR(7, "zeroCount", FIXED64),
	ONE(8, "positive", buckets),
	ONE(9, "negative", buckets),
	SCALAR(10, "flags", UINT32),
	MANY(11, "exemplars", exemplar),
	OPTIONAL(12, "min", DOUBLE),
	OPTIONAL(13, "max", DOUBLE),
	SCALAR(14, "zeroThreshold", DOUBLE),
};
static MESSAGE(exponential_point, "ExponentialHistogramDataPoint", [1] = 1, 2, 3, 4, 5, 6, 7, 8, 9,
	       10, 11, 12, 13, 14);

static const struct sl_field quantile_fields[] = {
	SCALAR(1, "quantile", DOUBLE),
	SCALAR(2, "value", DOUBLE),
};
static MESSAGE(quantile, "ValueAtQuantile", [1] = 1, 2);

static const struct sl_field summary_point_fields[] = {
	SCALAR(2, "startTimeUnixNano", FIXED64),
	SCALAR(3, "timeUnixNano", FIXED64),
	SCALAR(4, "count", FIXED64),
	SCALAR(5, "sum", DOUBLE),
	MANY(6, "quantileValues", quantile),
	MANY(7, "attributes", sl_schema_key_value),
	SCALAR(8, "flags", UINT32),
};
static MESSAGE(summary_point, "SummaryDataPoint", [2] = 1, 2, 3, 4, 5, 6, 7);

static const struct sl_field gauge_fields[] = {MANY(1, "dataPoints", number_point)};
static MESSAGE(gauge, "Gauge", [1] = 1);

static const struct sl_field sum_fields[] = {
	MANY(1, "dataPoints", number_point),
	ENUM(2, "aggregationTemporality", temporalities),
	SCALAR(3, "isMonotonic", BOOL),
};
static MESSAGE(sum, "Sum", [1] = 1, 2, 3);

static const struct sl_field histogram_fields[] = {
	MANY(1, "dataPoints", histogram_point),
	ENUM(2, "aggregationTemporality", temporalities),
};
static MESSAGE(histogram, "Histogram", [1] = 1, 2);

static const struct sl_field exponential_fields[] = {
	MANY(1, "dataPoints", exponential_point),
	ENUM(2, "aggregationTemporality", temporalities),
};
static MESSAGE(exponential, "ExponentialHistogram", [1] = 1, 2);

static const struct sl_field summary_fields[] = {MANY(1, "dataPoints", summary_point)};
static MESSAGE(summary, "Summary", [1] = 1);

static const struct sl_field sl_schema_metric_fields[] = {
	SCALAR(1, "name", STRING),
	SCALAR(2, "description", STRING),
	SCALAR(3, "unit", STRING),
	ONE_OF(5, "gauge", gauge),
	ONE_OF(7, "sum", sum),
	ONE_OF(9, "histogram", histogram),
	ONE_OF(10, "exponentialHistogram", exponential),
	ONE_OF(11, "summary", summary),
	MANY(12, "metadata", sl_schema_key_value),
};
MESSAGE(sl_schema_metric, "Metric", [1] = 1, 2, 3, [5] = 4, [7] = 5, [9] = 6, 7, 8, 9);

// The three envelopes of a signal have one shape.
#define REQUEST(signal, Signal, items, item)                                                       \
	static const struct sl_field scope_##signal##_fields[] = {                                 \
		ONE(1, "scope", sl_schema_scope),                                                  \
		MANY(2, items, item),                                                              \
		SCALAR(3, "schemaUrl", STRING),                                                    \
	};                                                                                         \
	static MESSAGE(scope_##signal, "Scope" Signal, [1] = 1, 2, 3);                             \
	static const struct sl_field resource_##signal##_fields[] = {                              \
		ONE(1, "resource", sl_schema_resource),                                            \
		MANY(2, "scope" Signal, scope_##signal),                                           \
		SCALAR(3, "schemaUrl", STRING),                                                    \
	};                                                                                         \
	static MESSAGE(resource_##signal, "Resource" Signal, [1] = 1, 2, 3);                       \
	static const struct sl_field request_##signal##_fields[] = {                               \
		MANY(1, "resource" Signal, resource_##signal)};                                    \
	static MESSAGE(request_##signal, "Export" Signal "Request", [1] = 1)

REQUEST(spans, "Spans", "spans", sl_schema_span);
REQUEST(metrics, "Metrics", "metrics", sl_schema_metric);
REQUEST(logs, "Logs", "logRecords", sl_schema_log_record);

const struct sl_message *const sl_schema_requests[SL_SIGNALS] = {
	[SL_TRACES] = &request_spans,
	[SL_METRICS] = &request_metrics,
	[SL_LOGS] = &request_logs,
};

const struct sl_field *sl_schema_field(const struct sl_message *message, uint64_t number)
{
	if (number >= SL_COUNT_OF(message->by_number) || !message->by_number[number])
		return NULL;
	return &message->fields[message->by_number[number] - 1];
}

const struct sl_field *sl_schema_field_named(const struct sl_message *message, struct sl_bytes name)
{
	for (unsigned i = 0; i < message->field_count; i++) {
		const struct sl_field *field = &message->fields[i];

		if (strlen(field->name) == name.size &&
		    memcmp(field->name, name.data, name.size) == 0)
			return field;
	}
	return NULL;
}

unsigned sl_schema_wire_type(const struct sl_field *field)
{
	switch ((enum sl_field_type)field->type) {
	case SL_FIELD_UINT32:
	case SL_FIELD_UINT64:
	case SL_FIELD_INT32:
	case SL_FIELD_INT64:
	case SL_FIELD_ENUM:
	case SL_FIELD_SINT32:
	case SL_FIELD_BOOL:
		return 0;
	case SL_FIELD_FIXED64:
	case SL_FIELD_SFIXED64:
	case SL_FIELD_DOUBLE:
		return 1;
	case SL_FIELD_STRING:
	case SL_FIELD_BYTES:
	case SL_FIELD_ID:
	case SL_FIELD_MESSAGE:
		return 2;
	case SL_FIELD_FIXED32:
		return 5;
	}
	return 0;
}
