"""Items 44-49 by protobuf's own JSON mapping: random requests of every signal, both ways."""

import base64
import json
import math
import os
import pathlib
import random
import struct
import subprocess

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REQUESTS = [ExportTraceServiceRequest, ExportMetricsServiceRequest, ExportLogsServiceRequest]
ID_BYTES = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
IDS = {"traceId", "spanId", "parentSpanId"}
RANGES = {
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1), FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1), FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_INT32: (-2**31, 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-2**31, 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-2**63, 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-2**63, 2**63 - 1),
}
DOUBLES = [0.0, -0.0, 0.1, 1.5, math.inf, -math.inf, math.nan, 5e-324, 1.7976931348623157e308]


class Oracle:
    def __init__(self):
        root = pathlib.Path(__file__).resolve().parents[2]
        build = pathlib.Path(os.environ.get("SLUICE", root / "build/dev/sluice")).parent
        self.process = subprocess.Popen([build / "bin/json_oracle"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def ask(self, read, signal, data):
        self.process.stdin.write(struct.pack("<BBI", read, signal, len(data)) + data)
        self.process.stdin.flush()
        result, size = struct.unpack("<iI", self.process.stdout.read(8))
        return result, self.process.stdout.read(size)


@pytest.fixture(scope="module")
def oracle():
    it = Oracle()
    yield it
    it.process.stdin.close()
    assert it.process.wait(10) == 0


def scalar(rnd, field):
    if field.type == FieldDescriptor.TYPE_STRING:
        return rnd.choice(["", "a", "Ünï\U0001f40c", '"\\\n\x01\x7f', "x" * 200])
    if field.type == FieldDescriptor.TYPE_BYTES:
        size = ID_BYTES.get(field.name)
        return rnd.randbytes(rnd.choice([0, size] if size else [0, 1, 2, 3, 4, 200]))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return rnd.random() < 0.5
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return rnd.choice(DOUBLES + [rnd.gauss(0, 1e5)])
    if field.type == FieldDescriptor.TYPE_ENUM:
        return rnd.choice([0, 1, 2, 77, -1])
    low, high = RANGES[field.type]
    return rnd.choice([0, low, high, rnd.randint(low, high), rnd.randint(0, 100)])


def fill(rnd, message, depth=0):
    for field in message.DESCRIPTOR.fields:
        envelope = depth < 5 and field.message_type and field.is_repeated
        if (rnd.random() < 0.35 and not envelope) or (field.message_type and depth > 14):
            continue
        value = getattr(message, field.name)
        if field.message_type and field.is_repeated:
            for _ in range(rnd.choice([0, 1, 1, 2])):
                fill(rnd, value.add(), depth + 1)
        elif field.message_type:
            value.SetInParent()
            fill(rnd, value, depth + 1)
        elif field.is_repeated:
            value.extend(scalar(rnd, field) for _ in range(rnd.choice([0, 1, 3, 40])))
        else:
            setattr(message, field.name, scalar(rnd, field))


def map_ids(value, change):
    if isinstance(value, dict):
        return {key: change(one) if key in IDS else map_ids(one, change)
                for key, one in value.items()}
    return [map_ids(one, change) for one in value] if isinstance(value, list) else value


def parse(signal, value):
    to_base64 = map_ids(value, lambda text: base64.b64encode(bytes.fromhex(text)).decode())
    return json_format.ParseDict(to_base64, REQUESTS[signal]())


def canonical(message):
    return message.SerializeToString(deterministic=True)


@pytest.mark.parametrize("seed", range(60))
def test_agrees_with_protobuf(oracle, seed):
    signal = seed % 3
    message = REQUESTS[signal]()
    fill(random.Random(seed), message)
    wire = message.SerializeToString()

    result, text = oracle.ask(False, signal, wire)
    assert result == 0
    assert canonical(parse(signal, json.loads(text))) == canonical(message)

    result, again = oracle.ask(True, signal, text)
    assert result == 0, again
    assert again == wire

    theirs = map_ids(json_format.MessageToDict(message, use_integers_for_enums=True),
                     lambda value: base64.b64decode(value).hex())
    result, again = oracle.ask(True, signal, json.dumps(theirs, indent=1).encode())
    assert result == 0, again
    assert canonical(REQUESTS[signal].FromString(again)) == canonical(message)

    # Concatenation merges on the wire; the writer has to see it so too.
    result, text = oracle.ask(False, signal, wire + wire)
    assert result == 0
    merged = REQUESTS[signal].FromString(wire + wire)
    assert canonical(parse(signal, json.loads(text))) == canonical(merged)
