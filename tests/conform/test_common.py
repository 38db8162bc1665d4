"""OTLP, common rules: items 1-11 of the protocol's checklist."""

import gzip

import pytest
from google.rpc import status_pb2
from lib import otlp, snappy, wire

GZIP_BOMB = gzip.compress(bytes(20 * 2**20), 9)


def grpc(sluice, signal, message, headers=None, flag=0):
    client = wire.Http2(sluice.grpc_port)
    try:
        return client.call(otlp.SERVICES[signal], wire.frame(message, flag), headers)
    finally:
        client.close()


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd", "deflate", "snappy",
                                    "x-snappy-framed"])
@pytest.mark.parametrize("signal", otlp.SIGNALS)
def test_01_codings(shared, signal, coding):
    message = otlp.request(signal, 30)
    body = otlp.compress(coding, message.SerializeToString())
    stream = grpc(shared, signal, body, {"grpc-encoding": coding}, 0 if coding == "identity" else 1)
    assert stream.grpc_status == 0
    status, _, _ = wire.post(shared.http_port, f"/v1/{signal}", body,
                             headers={"Content-Encoding": coding})
    assert status == 200
    assert shared.files(signal)[-2:] == [message, message]


def test_02_too_large_as_it_comes(shared):
    body = bytes(17 * 2**20)
    client = wire.Http1(shared.http_port)
    client.send(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
                b"Content-Length: %d\r\n\r\n" % len(body))
    status, _, answer = client.read_response()
    client.close()
    assert status == 413 and status_pb2.Status.FromString(answer).message
    stream = grpc(shared, "traces", body)
    assert stream.grpc_status == 8 and stream.retry_delay is None


def test_02_too_large_as_it_is_announced(shared):
    """A gRPC message's length is known with its prefix: nothing of it need come."""
    client = wire.Http2(shared.grpc_port)
    number = client.start(otlp.SERVICES["traces"])
    client.data(number, b"\0" + (16 * 2**20 + 1).to_bytes(4, "big"))
    stream = client.finish(number)
    assert stream.grpc_status == 8 and stream.retry_delay is None and stream.reset == 0
    client.close()


def test_02_too_large_inflated(shared):
    before = shared.metric("sluice_memory_used_bytes")
    stream = grpc(shared, "traces", GZIP_BOMB, {"grpc-encoding": "gzip"}, 1)
    assert stream.grpc_status == 8 and stream.retry_delay is None
    status, _, _ = wire.post(shared.http_port, "/v1/traces", GZIP_BOMB,
                             headers={"Content-Encoding": "gzip"})
    assert status == 413
    # A block says its size: neither a true one nor one that it cannot hold is waited for.
    for bomb, want in ((snappy.varint(20 * 2**20) + snappy.literal(b"0") +
                        snappy.copy(1, 64) * (20 * 2**20 // 64), 8),
                       (snappy.varint(2**32 - 1) + snappy.literal(b"0"), 13)):
        assert grpc(shared, "traces", bomb, {"grpc-encoding": "snappy"}, 1).grpc_status == want
    assert shared.metric("sluice_memory_used_bytes") <= before + 2**20


@pytest.mark.parametrize("coding", ["snappy", "x-snappy-framed"])
def test_01_either_form_of_snappy_by_either_name(shared, coding):
    """gRPC has the framed form under the name of snappy, older Collectors have it in HTTP, too."""
    message = otlp.request("logs", 30)
    for form in ("snappy", "x-snappy-framed"):
        body = otlp.compress(form, message.SerializeToString())
        assert grpc(shared, "logs", body, {"grpc-encoding": coding}, 1).grpc_status == 0
        assert wire.post(shared.http_port, "/v1/logs", body,
                         headers={"Content-Encoding": coding})[0] == 200
        assert shared.files("logs")[-2:] == [message, message]


@pytest.mark.parametrize("signal", otlp.SIGNALS)
def test_04_05_empty_request(shared, signal):
    stream = grpc(shared, signal, b"")
    assert stream.grpc_status == 0 and stream.data == b"\0\0\0\0\0"
    assert wire.post(shared.http_port, f"/v1/{signal}", b"")[::2] == (200, b"")
    status, _, body = wire.post(shared.http_port, f"/v1/{signal}", b"{}", "application/json")
    assert (status, body) == (200, b"{}")


@pytest.mark.parametrize("signal", otlp.SIGNALS)
def test_04_empty_envelopes_are_not_passed_on(shared, signal):
    message = otlp.request(signal, 3)
    padded = type(message)()
    top = message.DESCRIPTOR.fields[0].name
    resources = getattr(padded, top)
    resources.add().resource.attributes.add(key="nothing")
    resources.extend(getattr(message, top))
    scopes = message.DESCRIPTOR.fields[0].message_type.fields_by_number[2].name
    getattr(resources[1], scopes).add().scope.name = "nothing"
    if signal == "metrics":
        resources[1].scope_metrics[0].metrics.add(name="nothing").gauge.SetInParent()
    before = len(shared.files(signal))
    for coding in ("identity", "gzip"):
        stream = grpc(shared, signal, otlp.compress(coding, padded.SerializeToString()),
                      {"grpc-encoding": coding}, 0 if coding == "identity" else 1)
        assert stream.grpc_status == 0
    assert grpc(shared, signal, type(message)(**{top: [resources[0]]}).SerializeToString()
                ).grpc_status == 0
    assert shared.files(signal)[before:] == [message] * 2


def test_09_unknown_fields_survive(shared):
    message = otlp.request("traces", 1)
    unknown = b"\xfa\x7f\x03abc"  # field 2047, length-delimited
    body = message.SerializeToString() + unknown
    assert grpc(shared, "traces", body).grpc_status == 0
    assert shared.files("traces")[-1].SerializeToString() == body


def test_09_attribute_values_of_every_kind(shared):
    message = otlp.request("logs", 1)
    record = message.resource_logs[0].scope_logs[0].log_records[0]
    record.attributes.add(key="empty")
    record.attributes.add(key="bytes").value.bytes_value = b"\0\xff"
    values = record.attributes.add(key="mixed").value.array_value.values
    values.add().int_value = -1
    values.add().double_value = 0.5
    values.add().kvlist_value.values.add(key="x").value.bool_value = True
    assert grpc(shared, "logs", message.SerializeToString()).grpc_status == 0
    assert shared.files("logs")[-1] == message


def test_10_string_indexes_are_not_an_error(shared):
    message = otlp.request("logs", 1)
    attribute = message.resource_logs[0].scope_logs[0].log_records[0].attributes.add()
    attribute.ParseFromString(b"\x18\x05\x12\x02\x40\x07")
    assert grpc(shared, "logs", message.SerializeToString()).grpc_status == 0


def test_11_flags_are_forwarded(shared):
    message = otlp.request("traces", 1)
    message.resource_spans[0].scope_spans[0].spans[0].flags = 0xFFFFFDFF
    assert grpc(shared, "traces", message.SerializeToString()).grpc_status == 0
    assert shared.files("traces")[-1] == message
