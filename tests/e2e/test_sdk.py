"""Python's OpenTelemetry SDK, unchanged but for the endpoint; the file holds what was sent."""

import logging

import pytest
from lib import otlp
from lib.sluice import wait_for
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http import Compression as HttpCompression
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from grpc import Compression as GrpcCompression

pytestmark = pytest.mark.shards
RESOURCE = Resource.create({"service.name": "sdk", "service.version": "1.2.3"})
WAYS = [("grpc", False), ("grpc", True), ("http", False), ("http", True)]


def exporter(sluice, way, gzip, grpc_class, http_class, signal):
    if way == "grpc":
        return grpc_class(endpoint=f"http://{sluice.host}:{sluice.grpc_port}", insecure=True,
                          compression=GrpcCompression.Gzip if gzip else None)
    return http_class(endpoint=f"http://{sluice.host}:{sluice.http_port}/v1/{signal}",
                      compression=HttpCompression.Gzip if gzip else HttpCompression.NoCompression)


@pytest.mark.parametrize("way, gzip", WAYS)
def test_traces(shared, way, gzip):
    before = len(shared.files("traces"))
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(BatchSpanProcessor(
        exporter(shared, way, gzip, GrpcSpans, HttpSpans, "traces")))
    tracer = provider.get_tracer("tests", "1")
    sent = {}
    for index in range(1000):
        with tracer.start_as_current_span(f"span {index}", attributes={"index": index}) as span:
            span.add_event("event", {"n": index})
            sent[span.get_span_context().span_id] = (f"span {index}", index)
    provider.shutdown()
    found = {}
    for message in shared.files("traces")[before:]:
        for resource in message.resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            assert names["service.name"] == "sdk" and names["service.version"] == "1.2.3"
            for span in (s for scope in resource.scope_spans for s in scope.spans):
                found[int.from_bytes(span.span_id, "big")] = (
                    span.name, span.attributes[0].value.int_value)
                assert span.events[0].name == "event"
    assert found == sent


@pytest.mark.parametrize("way, gzip", WAYS)
def test_metrics(shared, way, gzip):
    before = len(shared.files("metrics"))
    reader = PeriodicExportingMetricReader(
        exporter(shared, way, gzip, GrpcMetrics, HttpMetrics, "metrics"), 10**8)
    provider = MeterProvider(resource=RESOURCE, metric_readers=[reader])
    meter = provider.get_meter("tests")
    counter, histogram = meter.create_counter("requests"), meter.create_histogram("latency")
    for index in range(500):
        counter.add(2, {"route": f"/{index % 7}"})
        histogram.record(index)
    provider.shutdown()
    metrics = {}
    for message in shared.files("metrics")[before:]:
        for resource in message.resource_metrics:
            for scope in resource.scope_metrics:
                metrics.update({m.name: m for m in scope.metrics})
    points = metrics["requests"].sum.data_points
    assert len(points) == 7 and sum(p.as_int for p in points) == 1000
    assert metrics["latency"].histogram.data_points[0].count == 500
    assert metrics["latency"].histogram.data_points[0].sum == sum(range(500))


@pytest.mark.parametrize("way, gzip", WAYS)
def test_logs(shared, way, gzip):
    before = len(shared.files("logs"))
    provider = LoggerProvider(resource=RESOURCE)
    provider.add_log_record_processor(BatchLogRecordProcessor(
        exporter(shared, way, gzip, GrpcLogs, HttpLogs, "logs")))
    logger = logging.getLogger(f"sdk-{way}-{gzip}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(LoggingHandler(logger_provider=provider))
    for index in range(700):
        logger.info("line %d", index)
    provider.shutdown()
    lines = [record.body.string_value for message in shared.files("logs")[before:]
             for resource in message.resource_logs for scope in resource.scope_logs
             for record in scope.log_records]
    assert sorted(lines) == sorted(f"line {i}" for i in range(700))


def test_many_exporters_over_several_shards(start):
    sluice = start(shards=2)
    providers = []
    for number in range(8):
        provider = TracerProvider(resource=RESOURCE)
        way = ("grpc", "http")[number % 2]
        provider.add_span_processor(BatchSpanProcessor(
            exporter(sluice, way, number % 3 == 0, GrpcSpans, HttpSpans, "traces"),
            max_export_batch_size=50))
        providers.append(provider)
    for index in range(300):
        for provider in providers:
            provider.get_tracer("t").start_span(f"s{index}").end()
    for provider in providers:
        provider.shutdown()
    wait_for("all spans", lambda: sum(otlp.count("traces", m)
                                      for m in sluice.files("traces")) == 8 * 300)
    if sluice.port:
        return  # spread by a hash: so few may fall together (tests/dpdk has many)
    by_shard = sluice.metrics(by_shard=True)
    for shard in "01":
        assert by_shard[f'sluice_connections_accepted_total{{shard="{shard}"}}'] > 0
