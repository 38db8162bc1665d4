"""OTLP over gRPC: items 12-29 of the protocol's checklist, frame by frame."""

import time

import h2.settings
import pytest
import zstandard
from lib import otlp, wire
from lib.sluice import wait_for

TRACES = otlp.SERVICES["traces"]
BODY = otlp.request("traces", 2).SerializeToString()


@pytest.fixture
def client(shared):
    connection = wire.Http2(shared.grpc_port)
    yield connection
    connection.close()


@pytest.mark.parametrize("path", [
    "/opentelemetry.proto.collector.trace.v1.TraceService/export",
    "/opentelemetry.proto.collector.trace.v1.traceservice/Export",
    "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
    "/v1/traces", "/", "/x"])
def test_12_unknown_path(client, path):
    stream = client.call(path, wire.frame(BODY))
    assert stream.grpc_status == 12 and stream.headers[":status"] == "200"


@pytest.mark.parametrize("signal", otlp.SIGNALS)
def test_12_both_ports_take_grpc(shared, signal):
    for port in (shared.grpc_port, shared.http_port):
        client = wire.Http2(port)
        body = wire.frame(otlp.request(signal, 1).SerializeToString())
        assert client.call(otlp.SERVICES[signal], body).grpc_status == 0
        client.close()


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto",
                                  "application/grpc;x=y", "Application/GRPC"])
def test_13_content_type(client, kind):
    number = client.start(TRACES, content_type=kind)
    client.data(number, wire.frame(BODY), end_stream=True)
    assert client.finish(number).grpc_status == 0


@pytest.mark.parametrize("kind", ["text/plain", "application/grp", "application/grpc-web", None])
def test_13_other_content_type_is_415(client, kind):
    stream = client.call(TRACES, wire.frame(BODY), content_type=kind)
    assert stream.headers[":status"] == "415"


def test_14_header_split_byte_by_byte(client):
    number = client.start(TRACES)
    for byte in wire.frame(BODY)[:12]:
        client.data(number, bytes([byte]))
    client.data(number, wire.frame(BODY)[12:], end_stream=True)
    assert client.finish(number).grpc_status == 0


def test_14_empty_last_data_frame(client):
    number = client.start(TRACES)
    client.data(number, wire.frame(BODY))
    client.data(number, b"", end_stream=True)
    assert client.finish(number).grpc_status == 0


def test_14_body_cut_at_many_places(client):
    body = wire.frame(BODY)
    for cut in list(range(1, 12)) + list(range(12, len(body), 37)):
        number = client.start(TRACES)
        client.data(number, body[:cut])
        client.data(number, body[cut:], end_stream=True)
        assert client.finish(number).grpc_status == 0, cut


def test_15_flag_without_coding(client):
    assert client.call(TRACES, wire.frame(BODY, 1)).grpc_status == 13
    assert client.call(TRACES, wire.frame(BODY, 1), {"grpc-encoding": "identity"}).grpc_status == 13


def test_15_unsupported_coding(client):
    stream = client.call(TRACES, wire.frame(BODY, 1), {"grpc-encoding": "lz4"})
    assert stream.grpc_status == 12
    accepted = stream.headers["grpc-accept-encoding"].split(",")
    assert accepted == ["identity", "gzip", "zstd", "deflate", "snappy"]


@pytest.mark.parametrize("coding", ["gzip", "zstd", "deflate"])
def test_15_corrupt(client, coding):
    whole = otlp.compress(coding, BODY * 3) if coding != "zstd" else zstandard.ZstdCompressor(
        write_checksum=True).compress(BODY * 3)
    body = bytearray(whole)
    body[len(body) // 2] ^= 0x55
    for wrong in (bytes(body), b"not compressed at all", otlp.compress(coding, BODY)[:-3]):
        assert client.call(TRACES, wire.frame(wrong, 1),
                           {"grpc-encoding": coding}).grpc_status == 13


def test_15_plain_message_under_gzip_is_legal(client):
    assert client.call(TRACES, wire.frame(BODY), {"grpc-encoding": "gzip"}).grpc_status == 0


def test_15_bad_flag(client):
    assert client.call(TRACES, wire.frame(BODY, 2)).grpc_status == 13


def test_16_success_has_three_parts(client):
    stream = client.call(TRACES, wire.frame(BODY))
    assert stream.headers[":status"] == "200"
    assert stream.headers["content-type"].startswith("application/grpc")
    assert stream.data == b"\0\0\0\0\0"
    assert stream.trailers["grpc-status"] == "0" and stream.header_events == 2


def test_17_error_is_trailers_only(client):
    stream = client.call(TRACES, wire.frame(b"\xff\xff"))
    assert stream.header_events == 1 and stream.data == b""
    assert stream.headers["grpc-status"] == "3"
    assert stream.headers[":status"] == "200"


def test_18_message_is_printable(client):
    message = client.call(TRACES, wire.frame(b"\xff\xff")).grpc_message
    assert message and all(0x20 <= ord(c) <= 0x7e for c in message)


def test_19_early_answer_is_followed_by_reset(client):
    number = client.start("/unknown")
    client.data(number, b"\0")
    stream = client.streams[number]
    assert client.pump(lambda: stream.reset is not None)
    assert stream.grpc_status == 12 and stream.reset == 0


def test_20_not_exactly_one_message(client):
    assert client.call(TRACES, b"").grpc_status == 12
    assert client.call(TRACES, wire.frame(BODY) * 2).grpc_status == 12


@pytest.mark.parametrize("size", [1, 4, 5, 6, -1])
def test_20_message_cut_by_the_end(client, size):
    assert client.call(TRACES, wire.frame(BODY)[:size]).grpc_status == 13


@pytest.mark.parametrize("body", [b"\x0a\x05abc", b"\x00", b"\x0b", b"\x0a\x02\x0a\x05",
                                  b"\x0a" + b"\xff" * 10])
def test_21_undecodable(client, body):
    stream = client.call(TRACES, wire.frame(body))
    assert stream.grpc_status == 3 and stream.retry_delay is None


def test_22_details_repeat_code_and_message(client):
    stream = client.call(TRACES, wire.frame(b"\xff\xff"))
    assert stream.details.code == 3 and stream.details.message == stream.grpc_message
    assert wire.bad_field(stream.details) == "body"


def test_22_23_quota_has_retry_info(shared):
    client = wire.Http2(shared.grpc_port)
    body = wire.frame(otlp.request("traces", 600).SerializeToString())
    headers = {"authorization": "Bearer free-token"}

    def refused():
        stream = client.call(TRACES, body, headers)
        return stream if stream.grpc_status else None

    stream = wait_for("a refusal", refused)
    assert stream.grpc_status == 8 and 0 < stream.retry_delay < 30
    assert stream.details.code == 8 and stream.details.message == stream.grpc_message
    client.close()


def test_24_timeout_of_a_request_that_never_ends(client):
    number = client.start(TRACES, {"grpc-timeout": "200m"})
    client.data(number, wire.frame(BODY)[:20])
    stream = client.finish(number)
    assert stream.reset == 8 or stream.grpc_status in (4, 14)


@pytest.mark.parametrize("value", ["123456789S", "5", "S", "5x", "-1S"])
def test_24_malformed_timeout(client, value):
    assert client.call(TRACES, wire.frame(BODY), {"grpc-timeout": value}).grpc_status != 0


@pytest.mark.parametrize("value", ["99999999H", "20S", "1M", "20000m", "20000000u", "99999999n"])
def test_24_legal_timeouts(client, value):
    assert client.call(TRACES, wire.frame(BODY), {"grpc-timeout": value}).grpc_status == 0


def test_25_header_list_limit(shared):
    client = wire.Http2(shared.grpc_port)
    fine = {"x-filler": "a" * 6000}
    assert client.call(TRACES, wire.frame(BODY), fine).grpc_status == 0
    number = client.start(TRACES, {"x-filler": "a" * 12000})
    client.data(number, wire.frame(BODY), end_stream=True)
    stream = client.finish(number)
    assert stream.reset is not None or stream.headers[":status"] == "431"
    client.close()


def test_26_27_odd_metadata_does_not_fail_the_call(client):
    headers = [("x-bin", "AAE,AgM="), ("x-odd", "\x7e !#"), ("grpc-foo", "bar"),
               ("user-agent", "grpc-go/1.80")]
    number = client.start(TRACES, headers)
    client.data(number, wire.frame(BODY), end_stream=True)
    assert client.finish(number).grpc_status == 0


def test_28_pipelined_calls(client):
    numbers = [client.start(TRACES) for _ in range(50)]
    for number in reversed(numbers):
        client.data(number, wire.frame(BODY), end_stream=True)
    assert all(client.finish(number).grpc_status == 0 for number in numbers)


def test_28_too_many_streams_are_refused(start):
    sluice = start(config={"limits": {"streams": 4}})
    client = wire.Http2(sluice.grpc_port)
    client.pump(lambda: client.h2.remote_settings.max_concurrent_streams == 4)
    assert client.h2.remote_settings.max_concurrent_streams == 4
    client.close()


def test_29_age_goes_in_two_steps(start):
    sluice = start(config={"connection": {"age_max": "1s", "age_grace": "3s"}})
    client = wire.Http2(sluice.grpc_port)
    assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
    number = client.start(TRACES)  # open while the connection ages
    assert client.pump(lambda: client.goaways)
    assert client.goaways[0].error_code == 0
    assert client.goaways[0].last_stream_id == 2**31 - 1
    assert client.goaways[0].additional_data == b"max_age"
    client.data(number, wire.frame(BODY), end_stream=True)
    assert client.finish(number).grpc_status == 0
    assert client.pump(lambda: len(client.goaways) > 1)
    assert client.goaways[-1].last_stream_id == number
    assert client.pump(lambda: client.closed)
    client.close()


def test_29_goaway_before_close_when_idle(start):
    sluice = start(config={"connection": {"idle_timeout": "1s"}})
    client = wire.Http2(sluice.grpc_port)
    assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
    assert client.pump(lambda: client.closed)
    assert client.goaways and client.goaways[-1].error_code == 0
    client.close()


def test_window_of_one_byte(shared):
    client = wire.Http2(shared.grpc_port,
                        {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1})
    assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
    client.close()


def test_stalled_client_does_not_hold_others(shared):
    stalled = wire.Http2(shared.grpc_port)
    number = stalled.start(TRACES)
    stalled.data(number, wire.frame(BODY)[:30])
    began = time.monotonic()
    client = wire.Http2(shared.grpc_port)
    assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
    assert time.monotonic() - began < 15
    client.close()
    stalled.close()
