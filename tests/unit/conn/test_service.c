#include "tests/unit/test.h"

#include "dataplane/conn/session.h"

static const struct {
	const char *why, *path;
	enum sl_service service;
	enum sl_signal signal;
} services[] = {
	{"gRPC traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
	 SL_SERVICE_EXPORT_GRPC, SL_TRACES},
	{"gRPC metrics", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
	 SL_SERVICE_EXPORT_GRPC, SL_METRICS},
	{"gRPC logs", "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
	 SL_SERVICE_EXPORT_GRPC, SL_LOGS},
	{"HTTP traces", "/v1/traces", SL_SERVICE_EXPORT_HTTP, SL_TRACES},
	{"HTTP metrics", "/v1/metrics", SL_SERVICE_EXPORT_HTTP, SL_METRICS},
	{"HTTP logs", "/v1/logs", SL_SERVICE_EXPORT_HTTP, SL_LOGS},
	{"no path at all", "", SL_SERVICE_UNKNOWN, SL_TRACES},
	{"the root", "/", SL_SERVICE_UNKNOWN, SL_TRACES},
	{"a prefix is not the path", "/v1/trace", SL_SERVICE_UNKNOWN, SL_TRACES},
	{"nor is what goes on", "/v1/traces/", SL_SERVICE_UNKNOWN, SL_TRACES},
	{"case matters", "/V1/Traces", SL_SERVICE_UNKNOWN, SL_TRACES},
	{"dots are not resolved", "/v1/x/../traces", SL_SERVICE_UNKNOWN, SL_TRACES},
	{"escapes are not undone", "/v1/%74races", SL_SERVICE_UNKNOWN, SL_TRACES},
	{"another method of the service",
	 "/opentelemetry.proto.collector.trace.v1.TraceService/Query", SL_SERVICE_UNKNOWN,
	 SL_TRACES},
	{"profiles are not taken", "/v1development/profiles", SL_SERVICE_UNKNOWN, SL_TRACES},
};

static void test_services(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(services); i++) {
		enum sl_signal signal = SL_TRACES;

		if (sl_service_of(sl_bytes_of(services[i].path), &signal) != services[i].service ||
		    signal != services[i].signal)
			fail_msg("%s: %s", services[i].why, services[i].path);
	}
}

static const struct {
	const char *why, *type;
	enum sl_media media;
} media[] = {
	{"gRPC", "application/grpc", SL_MEDIA_GRPC},
	{"gRPC, its message format named", "application/grpc+proto", SL_MEDIA_GRPC},
	{"gRPC with a parameter", "application/grpc;charset=utf-8", SL_MEDIA_GRPC},
	{"gRPC with JSON messages is not spoken", "application/grpc+json", SL_MEDIA_OTHER},
	{"gRPC-Web is another protocol", "application/grpc-web", SL_MEDIA_OTHER},
	{"and so is this one", "application/grpc-web+proto", SL_MEDIA_OTHER},
	{"protobuf", "application/x-protobuf", SL_MEDIA_PROTOBUF},
	{"protobuf's newer name is not OTLP's", "application/protobuf", SL_MEDIA_OTHER},
	{"JSON", "application/json", SL_MEDIA_JSON},
	{"JSON with a charset", "application/json; charset=utf-8", SL_MEDIA_JSON},
	{"blanks before the parameter", "application/json \t;a=b", SL_MEDIA_JSON},
	{"blanks at the end", "application/json  ", SL_MEDIA_JSON},
	{"case does not matter", "Application/JSON", SL_MEDIA_JSON},
	{"blanks at the beginning belong to no type", " application/json", SL_MEDIA_OTHER},
	{"a longer name", "application/json5", SL_MEDIA_OTHER},
	{"a shorter name", "application/jso", SL_MEDIA_OTHER},
	{"a parameter alone", ";application/json", SL_MEDIA_OTHER},
	{"none", "", SL_MEDIA_OTHER},
	{"a list", "application/json, application/x-protobuf", SL_MEDIA_OTHER},
};

static void test_media(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(media); i++) {
		if (sl_media_of(sl_bytes_of(media[i].type)) != media[i].media)
			fail_msg("%s: %s", media[i].why, media[i].type);
	}
}

static const struct {
	const char *why;
	bool grpc;
	unsigned code, index;
} codes[] = {
	{"OK is the first", true, 0, 0},
	{"gRPC's last", true, 16, 16},
	{"a code that gRPC does not have", true, 17, SL_CODES - 1},
	{"HTTP's 200 is not gRPC's", false, 200, 17},
	{"a method nobody knows", false, 501, 32},
	{"a refusal", false, 503, 33},
	{"what has no row of its own", false, 418, SL_CODES - 1},
	{"a number of gRPC's under HTTP", false, 0, SL_CODES - 1},
};

static void test_codes(void **state)
{
	(void)state;
	for (size_t i = 0; i < SL_COUNT_OF(codes); i++) {
		struct sl_conn_counters counters = {0};
		const uint64_t *row = counters.requests + SL_PROTOCOL_HTTP_JSON * SL_CODES;

		sl_conn_count_request(&counters, SL_PROTOCOL_HTTP_JSON, codes[i].grpc,
				      codes[i].code);
		if (row[codes[i].index] != 1)
			fail_msg("%s", codes[i].why);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_services),
		cmocka_unit_test(test_media),
		cmocka_unit_test(test_codes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
