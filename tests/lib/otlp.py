"""OTLP messages for the tests, by the published Python package: what we did not write."""

import gzip
import io
import os
import zlib

import zstandard
from google.protobuf import json_format
from lib import snappy
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

REQUESTS = {
    "traces": traces.ExportTraceServiceRequest,
    "metrics": metrics.ExportMetricsServiceRequest,
    "logs": logs.ExportLogsServiceRequest,
}
RESPONSES = {
    "traces": traces.ExportTraceServiceResponse,
    "metrics": metrics.ExportMetricsServiceResponse,
    "logs": logs.ExportLogsServiceResponse,
}
SERVICES = {
    "traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
SIGNALS = list(REQUESTS)


def request(signal, items=1, service="checkout", **resource):
    """A request of `items` items with everything that commonly occurs."""
    message = REQUESTS[signal]()
    outer = getattr(message, {"traces": "resource_spans", "metrics": "resource_metrics",
                              "logs": "resource_logs"}[signal]).add()
    for key, value in {"service.name": service, **resource}.items():
        outer.resource.attributes.add(key=key).value.string_value = value
    outer.schema_url = "https://opentelemetry.io/schemas/1.30.0"
    inner = getattr(outer, {"traces": "scope_spans", "metrics": "scope_metrics",
                            "logs": "scope_logs"}[signal]).add()
    inner.scope.name, inner.scope.version = "tests", "1"
    if signal == "metrics":
        metric = inner.metrics.add(name="requests", unit="1")
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = 2, True
    for index in range(items):
        if signal == "traces":
            span = inner.spans.add(trace_id=os.urandom(16), span_id=os.urandom(8), kind=2,
                                   name=f"span {index}", start_time_unix_nano=10**18 + index,
                                   end_time_unix_nano=10**18 + index + 5 * 10**6)
            span.attributes.add(key="http.method").value.string_value = "GET"
            span.attributes.add(key="http.status_code").value.int_value = 200
            span.status.code = 1
        elif signal == "metrics":
            point = metric.sum.data_points.add(time_unix_nano=10**18 + index, as_int=index)
            point.attributes.add(key="path").value.string_value = f"/{index}"
        else:
            record = inner.log_records.add(time_unix_nano=10**18 + index, severity_number=9,
                                           severity_text="INFO", trace_id=os.urandom(16))
            record.body.string_value = f"line {index}"
    return message


def to_json(message):
    """OTLP JSON: as protobuf's JSON, but ids are hex and enums are numbers."""
    import base64
    tree = json_format.MessageToDict(message, use_integers_for_enums=True)

    def walk(node):
        if isinstance(node, list):
            for one in node:
                walk(one)
        if isinstance(node, dict):
            for key, value in node.items():
                if key in ("traceId", "spanId", "parentSpanId"):
                    node[key] = base64.b64decode(value).hex()
                else:
                    walk(value)

    walk(tree)
    import json
    return json.dumps(tree).encode()


def items(signal, message):
    """Spans, data points or log records of a request, in order."""
    if signal == "traces":
        return [i for r in message.resource_spans for s in r.scope_spans for i in s.spans]
    if signal == "logs":
        return [i for r in message.resource_logs for s in r.scope_logs for i in s.log_records]
    return [i for r in message.resource_metrics for s in r.scope_metrics for m in s.metrics
            if m.WhichOneof("data") for i in getattr(m, m.WhichOneof("data")).data_points]


def count(signal, message):
    return len(items(signal, message))


def compress(coding, body):
    if coding == "gzip":
        return gzip.compress(body)
    if coding == "zstd":
        return zstandard.ZstdCompressor().compress(body)
    if coding == "deflate":
        return zlib.compress(body)
    if coding == "snappy":
        return snappy.block(body)
    if coding == "x-snappy-framed":
        return snappy.stream(body, 500)
    return body


def decompress(coding, body):
    if coding == "gzip":
        return gzip.decompress(body)
    if coding == "zstd":
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body),
                                                           read_across_frames=True).read()
    return body


def read_delimited(signal, blob):
    """Varint length, message, again and again."""
    at, found = 0, []
    while at < len(blob):
        size = shift = 0
        while True:
            byte = blob[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        assert at + size <= len(blob), "the file ends inside a record"
        found.append(REQUESTS[signal].FromString(blob[at:at + size]))
        at += size
    return found
