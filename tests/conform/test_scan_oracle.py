"""What the scan accepts, protobuf accepts, and the other way round; the differences are a table."""

import os
import pathlib
import random
import struct
import subprocess

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REQUESTS = [ExportTraceServiceRequest, ExportMetricsServiceRequest, ExportLogsServiceRequest]
TRACES, METRICS, LOGS = range(3)
OK, MALFORMED, TOO_DEEP = 0, -1, -2  # enum sl_view_result


def without_utf8():
    """The same messages with `bytes` for each `string`: protobuf without its UTF-8 check."""
    pool = descriptor_pool.DescriptorPool()

    def loosen(message):
        for field in message.field:
            if field.type == field.TYPE_STRING:
                field.type = field.TYPE_BYTES
        for nested in message.nested_type:
            loosen(nested)

    def add(file):
        for dependency in file.dependencies:
            add(dependency)
        copy = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(copy)
        for message in copy.message_type:
            loosen(message)
        pool.AddSerializedFile(copy.SerializeToString())

    for request in REQUESTS:
        add(request.DESCRIPTOR.file)
    return [message_factory.GetMessageClass(
        pool.FindMessageTypeByName(request.DESCRIPTOR.full_name)) for request in REQUESTS]


LOOSE = without_utf8()


def takes(request, body):
    try:
        request.FromString(body)
    except DecodeError:
        return False
    return True


class Oracle:
    def __init__(self):
        root = pathlib.Path(__file__).resolve().parents[2]
        build = pathlib.Path(os.environ.get("SLUICE", root / "build/dev/sluice")).parent
        self.process = subprocess.Popen([build / "bin/scan_oracle"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def _ask(self, signal, odd, protobuf_c, data):
        self.process.stdin.write(struct.pack("<BBHI", signal, odd, protobuf_c, len(data)) + data)
        self.process.stdin.flush()
        result, taken, items, self.error_at, size = struct.unpack("<iIIII", self.process.stdout.read(20))
        return result, bool(taken), items, self.process.stdout.read(size)

    def scan(self, signal, body, protobuf_c=False):
        return self._ask(signal, 255, protobuf_c, body)[:3]

    def request(self, signal, odd, seed):
        result, _, items, body = self._ask(signal, odd, False, struct.pack("<Q", seed))
        assert result == OK
        return body, items


@pytest.fixture(scope="module")
def oracle():
    it = Oracle()
    yield it
    it.process.stdin.close()
    assert it.process.wait(10) == 0


# --- the table --------------------------------------------------------------------------------------

def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def span(payload):
    return field(1, field(2, field(2, payload)))


def metric(payload):
    return span(payload)  # the same numbers lead there


def nested(levels):
    value = b""
    for _ in range(levels):
        value = field(5, field(1, value))
    return span(field(9, field(2, value)))


POINT = field(1, b"")
INT64 = b"\x18"  # AnyValue.int_value
TAKES, REFUSES, UNSAFE = True, False, None

# why, signal, body, the scan, protobuf-c 1.4, Python's protobuf (upb)
TABLE = [
    # The scan is laxer than Python.
    ("bad UTF-8 passes: a gateway does not lose a request over one byte of one name, decoders that "
     "care refuse it themselves, and the check would cost as much as the scan",
     TRACES, span(field(5, b"\xff")), OK, TAKES, REFUSES),
    ("an overlong UTF-8 form is bad UTF-8", TRACES, span(field(5, b"\xc0\x80")), OK, TAKES, REFUSES),
    ("a lone surrogate is bad UTF-8", TRACES, span(field(5, b"\xed\xa0\x80")), OK, TAKES, REFUSES),
    ("bad UTF-8 in bytes is nobody's business", TRACES, span(field(1, b"\xff")), OK, TAKES, TAKES),
    # The scan is stricter than Python.
    ("65 bits do not fit: Go refuses them (so does Java), and one bad body must not spoil a merge",
     TRACES, span(b"\x30" + b"\xff" * 9 + b"\x02"), MALFORMED, TAKES, TAKES),
    ("65 bits in a packed value", METRICS,
     metric(field(10, field(1, field(8, field(2, b"\xff" * 9 + b"\x7f"))))), MALFORMED, TAKES,
     TAKES),
    ("65 bits in an unknown field", TRACES, b"\xf8\x3e" + b"\xff" * 9 + b"\x02", MALFORMED, TAKES,
     TAKES),
    ("field number 0 inside a group: Python steps over groups without looking; no encoder writes "
     "it, and others refuse it", TRACES, b"\x7b\x00\x01\x7c", MALFORMED, REFUSES, TAKES),
    ("41 arrays in each other: a limit of ours, here set to 40", TRACES, nested(41), TOO_DEEP,
     TAKES, TAKES),
    ("60 arrays: Python's own limit of 100 messages is reached too; protobuf-c recurses as far as "
     "it is led, and its stack ends before a body does", TRACES, nested(60), TOO_DEEP, UNSAFE,
     REFUSES),
    ("40 arrays fit", TRACES, nested(40), OK, TAKES, TAKES),
    ("41 groups in each other: the same limit", TRACES, b"\x7b" * 41 + b"\x7c" * 41, TOO_DEEP,
     REFUSES, TAKES),
    # protobuf-c differs from both of us.
    ("a group is an unknown field; protobuf-c knows none", TRACES, b"\x7b\x08\x01\x7c", OK, REFUSES,
     TAKES),
    ("a group in a span", TRACES, span(b"\xa3\x06\x0a\x01x\xa4\x06"), OK, REFUSES, TAKES),
    ("groups in each other", TRACES, b"\x7b\x83\x01\x84\x01\x7c", OK, REFUSES, TAKES),
    ("a known number with an unexpected wire type is an unknown field", TRACES,
     span(b"\x28\x01"), OK, REFUSES, TAKES),
    ("a string as 64 bits", TRACES, span(b"\x29" + bytes(8)), OK, REFUSES, TAKES),
    ("a time as a string", TRACES, span(field(7, b"12345678")), OK, REFUSES, TAKES),
    ("a request's field as a number", TRACES, b"\x08\x01", OK, REFUSES, TAKES),
    ("a message as a group of its number is an unknown field", TRACES, b"\x0b\x0c", OK, REFUSES,
     TAKES),
    ("an AnyValue twice, both empty, merges to an empty one; protobuf-c reads in front of its "
     "field table (and mostly refuses)", TRACES, span(field(9, b"\x12\x00\x12\x00")), OK, UNSAFE,
     TAKES),
    ("field numbers end at 2^29 - 1; protobuf-c drops the bits above", TRACES,
     b"\x80\x80\x80\x80\x10\x01", MALFORMED, TAKES, REFUSES),
    ("a length above 2^31 is longer than any body", TRACES, b"\x0a\xff\xff\xff\xff\x0f", MALFORMED,
     REFUSES, REFUSES),
    # All agree: what looks as if it might differ.
    ("field number 0 is none", TRACES, b"\x02\x00", MALFORMED, REFUSES, REFUSES),
    ("field number 0 inside a span", TRACES, span(b"\x00\x00"), MALFORMED, REFUSES, REFUSES),
    ("eleven bytes of varint in a pack", METRICS,
     metric(field(10, field(1, field(8, field(2, b"\x80" * 10 + b"\x00"))))), MALFORMED, REFUSES,
     REFUSES),
    ("a number that its pack cuts", METRICS,
     metric(field(10, field(1, field(8, field(2, b"\x01\x80"))))), MALFORMED, REFUSES, REFUSES),
    ("an empty body", TRACES, b"", OK, TAKES, TAKES),
    ("2^29 - 1 is a field number", TRACES, b"\xf8\xff\xff\xff\x0f\x01", OK, TAKES, TAKES),
    ("eleven bytes of varint", TRACES, span(b"\x30" + b"\x80" * 10 + b"\x00"), MALFORMED, REFUSES,
     REFUSES),
    ("ten bytes that hold a small number", TRACES, span(b"\x30" + b"\x81" + b"\x80" * 8 + b"\x00"),
     OK, TAKES, TAKES),
    ("64 bits in a 32-bit field are cut", TRACES, span(b"\x50" + b"\xff" * 9 + b"\x01"), OK, TAKES,
     TAKES),
    ("a bool of 2", TRACES, span(field(9, field(2, b"\x10\x02"))), OK, TAKES, TAKES),
    ("an unknown enum value", TRACES, span(b"\x30\x4d"), OK, TAKES, TAKES),
    ("a tag in five bytes", TRACES, b"\x8a\x80\x80\x80\x00\x00", OK, TAKES, TAKES),
    ("a tag in six bytes", TRACES, b"\x8a\x80\x80\x80\x80\x00\x00", MALFORMED, REFUSES, REFUSES),
    ("a length in five bytes", TRACES, b"\x0a\x80\x80\x80\x80\x00", OK, TAKES, TAKES),
    ("a length in six bytes", TRACES, b"\x0a\x80\x80\x80\x80\x80\x00", MALFORMED, REFUSES, REFUSES),
    ("wire type 6", TRACES, b"\x0e\x00", MALFORMED, REFUSES, REFUSES),
    ("wire type 7", TRACES, b"\x0f\x00", MALFORMED, REFUSES, REFUSES),
    ("an end without a group", TRACES, b"\x0c", MALFORMED, REFUSES, REFUSES),
    ("a group without an end", TRACES, b"\x7b\x08\x01", MALFORMED, REFUSES, REFUSES),
    ("a group that ends in its parent's parent", TRACES, field(1, b"\x7b") + b"\x7c", MALFORMED,
     REFUSES, REFUSES),
    ("a group that another number ends", TRACES, b"\x7b\x84\x01", MALFORMED, REFUSES, REFUSES),
    ("a cut tag", TRACES, b"\x8a", MALFORMED, REFUSES, REFUSES),
    ("a tag without value", TRACES, b"\x0a", MALFORMED, REFUSES, REFUSES),
    ("a tag without value in a span", TRACES, span(b"\x30"), MALFORMED, REFUSES, REFUSES),
    ("a cut varint", TRACES, span(b"\x30\x80"), MALFORMED, REFUSES, REFUSES),
    ("a cut time", TRACES, span(b"\x39" + bytes(7)), MALFORMED, REFUSES, REFUSES),
    ("cut flags", TRACES, span(b"\x85\x01" + bytes(3)), MALFORMED, REFUSES, REFUSES),
    ("a length beyond the body", TRACES, b"\x0a\x05\x12", MALFORMED, REFUSES, REFUSES),
    ("a length beyond its parent", TRACES, b"\x0a\x02\x12\x02\x12\x00", MALFORMED, REFUSES, REFUSES),
    ("64-bit values packed in seven bytes", METRICS,
     metric(field(9, field(1, field(6, bytes(7))))), MALFORMED, REFUSES, REFUSES),
    ("packed doubles", METRICS, metric(field(9, field(1, field(7, bytes(16))))), OK, TAKES, TAKES),
    ("the same unpacked", METRICS, metric(field(9, field(1, b"\x39" + bytes(8)))), OK, TAKES, TAKES),
    ("both forms in one message", METRICS,
     metric(field(9, field(1, field(7, bytes(8)) + b"\x39" + bytes(8)))), OK, TAKES, TAKES),
    ("an empty pack", METRICS, metric(field(9, field(1, field(7, b"")))), OK, TAKES, TAKES),
    ("a status twice", TRACES, span(field(15, b"\x18\x01") * 2), OK, TAKES, TAKES),
    ("a resource twice", TRACES, field(1, field(1, b"\x10\x01") * 2), OK, TAKES, TAKES),
    ("a wrong trace id's length is not the wire's matter", TRACES, span(field(1, b"short")), OK,
     TAKES, TAKES),
    ("a broken message in a oneof that a later member replaces is still broken", METRICS,
     metric(field(5, b"\x0a\x05") + field(7, POINT)), MALFORMED, REFUSES, REFUSES),
]


@pytest.mark.parametrize("why, signal, body, scan, protobuf_c, python", TABLE,
                         ids=[row[0][:60] for row in TABLE])
def test_table(oracle, why, signal, body, scan, protobuf_c, python):
    result, taken, _ = oracle.scan(signal, body, protobuf_c is not UNSAFE)
    assert result == scan, why
    assert takes(REQUESTS[signal], body) == python, why
    if protobuf_c is not UNSAFE:
        assert taken == protobuf_c, why


# --- what is an item --------------------------------------------------------------------------------

def items(signal, message):
    if signal == METRICS:
        return sum(len(getattr(metric, metric.WhichOneof("data") or "").data_points)
                   for resource in message.resource_metrics for scope in resource.scope_metrics
                   for metric in scope.metrics if metric.WhichOneof("data"))
    if signal == LOGS:
        return sum(len(scope.log_records) for resource in message.resource_logs
                   for scope in resource.scope_logs)
    return sum(len(scope.spans) for resource in message.resource_spans
               for scope in resource.scope_spans)


ONEOF = [
    ("the last member counts", field(5, POINT * 3) + field(7, POINT), 1),
    ("the same member twice merges (protobuf-c replaces it)", field(5, POINT) + field(5, POINT * 2),
     3),
    ("a member that returns begins anew", field(5, POINT) + field(7, POINT) + field(5, POINT * 2), 2),
    ("an empty member forgets the others", field(5, POINT) + field(11, b""), 0),
    ("a member of another wire type is no member", field(5, POINT) + b"\x38\x01", 1),
]


@pytest.mark.parametrize("why, payload, count", ONEOF, ids=[row[0] for row in ONEOF])
def test_oneof(oracle, why, payload, count):
    body = metric(payload)
    assert oracle.scan(METRICS, body) == (OK, False, count), why
    assert items(METRICS, REQUESTS[METRICS].FromString(body)) == count, why


# --- random and mutated bytes -----------------------------------------------------------------------

def mutate(rnd, body):
    out = bytearray(body)
    for _ in range(rnd.choice([1, 1, 2, 4])):
        at, how = rnd.randrange(len(out) + 1), rnd.random()
        if how < 0.4 and at < len(out):
            out[at] = rnd.choice([0, 1, 2, 4, 0x7b, 0x7c, 0x7f, 0x80, 0xff, rnd.randrange(256)])
        elif how < 0.55 and at < len(out):
            out[at] ^= 1 << rnd.randrange(8)
        elif how < 0.7:
            out[at:at] = rnd.randbytes(rnd.randrange(1, 4))
        elif how < 0.8:
            del out[at:at + rnd.randrange(1, 4)]
        elif how < 0.9:
            out[at:at] = bytes([rnd.choice([0x80, 0xff])]) * rnd.randrange(1, 11)
        else:
            del out[at:]
    return bytes(out)


def within_64_bits(body):
    """The body with each varint of ten bytes cut to the 64 bits that fit (lengths do not change)."""
    out = bytearray(body)
    run = 0
    for at, byte in enumerate(body):
        if run >= 9 and 1 < byte < 128:
            out[at] = 1
        run = run + 1 if byte > 127 else 0
    return bytes(out)


def argued(oracle, signal, body):
    """Whether a body that only Python takes is one of the table's rows."""
    if oracle.error_at < len(body) and body[oracle.error_at] < 8:
        return any(start in body for start in range(0x0b, 0x80, 8))  # number 0, in a group
    return oracle.scan(signal, within_64_bits(body))[0] == OK


@pytest.mark.parametrize("seed", range(24))
def test_mutated_requests(oracle, seed):
    rnd = random.Random(seed)
    seen = {OK: 0, MALFORMED: 0, "utf8": 0}
    for _ in range(40):
        signal = rnd.randrange(3)
        body, count = oracle.request(signal, rnd.choice([0, 30]), rnd.getrandbits(40))
        assert items(signal, LOOSE[signal].FromString(body)) == count
        for _ in range(12):
            mutant = mutate(rnd, body)
            result, _, count = oracle.scan(signal, mutant)
            ours, theirs = result == OK, takes(REQUESTS[signal], mutant)
            seen[result] = seen.get(result, 0) + 1
            if ours and theirs:
                assert items(signal, REQUESTS[signal].FromString(mutant)) == count, mutant.hex()
            elif ours:  # bad UTF-8, and nothing but that
                assert takes(LOOSE[signal], mutant), mutant.hex()
                seen["utf8"] += 1
            elif takes(LOOSE[signal], mutant):
                assert argued(oracle, signal, mutant), mutant.hex()
    assert seen[OK] > 40 and seen[MALFORMED] > 100, seen


@pytest.mark.parametrize("seed", range(8))
def test_random_bytes(oracle, seed):
    """Short bodies from few byte values: tags, lengths, group marks and their edges."""
    rnd = random.Random(seed)
    alphabet = [0, 1, 2, 4, 8, 0x0a, 0x0b, 0x0c, 0x0d, 0x12, 0x1a, 0x2a, 0x3a, 0x4a, 0x7b, 0x7c,
                0x80, 0x81, 0xff]
    taken = 0
    for _ in range(3000):
        signal = rnd.randrange(3)
        body = bytes(rnd.choices(alphabet, k=rnd.randrange(14)))
        if rnd.random() < 0.7:
            body = span(body)
        ours = oracle.scan(signal, body)[0] == OK
        taken += ours
        if ours != takes(LOOSE[signal], body):
            assert not ours and argued(oracle, signal, body), body.hex()
    assert taken > 100, taken
