"""OTLP's JSON mapping: items 44-49 of the protocol's checklist."""

import json

import pytest
from lib import otlp, wire


def send(shared, signal, tree):
    body = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    return wire.post(shared.http_port, f"/v1/{signal}", body, "application/json")


def spans(*many):
    return {"resourceSpans": [{"scopeSpans": [{"spans": list(many)}]}]}


def stored(shared):
    return shared.files("traces")[-1].resource_spans[0].scope_spans[0].spans[0]


IDS = {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174"}


def test_44_ids_are_hex_of_any_case(shared):
    span = {"traceId": IDS["traceId"].upper(), "spanId": IDS["spanId"],
            "parentSpanId": "EEE19B7EC3C1B173", "links": [dict(IDS)]}
    assert send(shared, "traces", spans(span))[0] == 200
    kept = stored(shared)
    assert kept.trace_id.hex() == IDS["traceId"] and kept.parent_span_id.hex() == "eee19b7ec3c1b173"
    assert kept.links[0].trace_id.hex() == IDS["traceId"]


@pytest.mark.parametrize("text", ["AP8=", "AP8", "_-8="])
def test_44_48_bytes_are_base64(shared, text):
    value = {"key": "b", "value": {"bytesValue": text}}
    assert send(shared, "traces", spans({**IDS, "attributes": [value]}))[0] == 200
    assert stored(shared).attributes[0].value.bytes_value in (b"\0\xff", b"\xff\xef")


def test_45_enums_are_integers(shared):
    assert send(shared, "traces", spans({**IDS, "kind": 3, "status": {"code": 2}}))[0] == 200
    assert stored(shared).kind == 3 and stored(shared).status.code == 2


def test_45_names_are_refused_unless_lenient(shared, start):
    assert send(shared, "traces", spans({**IDS, "kind": "SPAN_KIND_CLIENT"}))[0] == 400
    lenient = start(config={"json_enum_names": True})
    assert send(lenient, "traces", spans({**IDS, "kind": "SPAN_KIND_CLIENT"}))[0] == 200
    assert stored(lenient).kind == 3


def test_46_unknown_names_are_ignored(shared):
    span = {**IDS, "name": "n", "unknown": {"a": [1, {"b": None}]}, "trace_flags": 1}
    assert send(shared, "traces", spans(span))[0] == 200
    assert stored(shared).name == "n"


@pytest.mark.parametrize("value", [5, "5", 5.0, "5e0", 5e0])
def test_47_48_integers(shared, value):
    span = {**IDS, "startTimeUnixNano": value, "attributes": [{"key": "i",
            "value": {"intValue": value}}], "droppedAttributesCount": value}
    assert send(shared, "traces", spans(span))[0] == 200
    kept = stored(shared)
    assert kept.start_time_unix_nano == 5 and kept.attributes[0].value.int_value == 5
    assert kept.dropped_attributes_count == 5


def test_47_large_integers_are_exact(shared):
    span = {**IDS, "startTimeUnixNano": "18446744073709551615",
            "attributes": [{"key": "i", "value": {"intValue": "-9223372036854775808"}}]}
    assert send(shared, "traces", spans(span))[0] == 200
    assert stored(shared).start_time_unix_nano == 2**64 - 1
    assert stored(shared).attributes[0].value.int_value == -2**63


@pytest.mark.parametrize("value", ["18446744073709551616", -1, "x", 1.5, True, [], {}])
def test_47_not_an_unsigned_integer(shared, value):
    status, _, body = send(shared, "traces", spans({**IDS, "startTimeUnixNano": value}))
    assert status == 400 and "startTimeUnixNano" in json.loads(body)["message"]


def test_48_null_is_unset(shared):
    assert send(shared, "traces", spans({**IDS, "name": None, "attributes": None}))[0] == 200
    assert stored(shared).name == ""


@pytest.mark.parametrize("text, wanted", [("Infinity", float("inf")), ("-Infinity", -float("inf")),
                                          ("0.5", 0.5), (0.25, 0.25), (7, 7.0)])
def test_48_doubles(shared, text, wanted):
    value = {"key": "d", "value": {"doubleValue": text}}
    assert send(shared, "traces", spans({**IDS, "attributes": [value]}))[0] == 200
    assert stored(shared).attributes[0].value.double_value == wanted


@pytest.mark.parametrize("change", [{"traceId": "5b8e"}, {"traceId": "zz" * 16}, {"spanId": "00"},
                                    {"traceId": 5}])
def test_49_ids_of_wrong_length(shared, change):
    status, _, body = send(shared, "traces", spans({**IDS, **change}))
    assert status == 400 and list(change)[0] in json.loads(body)["message"]


def test_49_empty_ids(shared):
    assert send(shared, "traces", spans({**IDS, "parentSpanId": ""}))[0] == 200


@pytest.mark.parametrize("text, wanted", [
    (r"\ud83d\ude00", "\U0001f600"), (r"\uD83D\uDE00", "\U0001f600"),
    (r"a\ud83d", "a\ufffd"), (r"\ude00a", "\ufffda"), (r"\ud83dx", "\ufffdx"),
    (r"\ude00\ud83d", "\ufffd\ufffd"), (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
    (r"\ud83d\n", "\ufffd\n"), (r"\\ud83d", r"\ud83d"), (r"\\\ud83d", "\\\ufffd"),
    (r"\ud83d\\ude00", "\ufffd" + r"\ude00"), (r"\u00e9\uffff\ud7ff\ue000",
                                               "\u00e9\uffff\ud7ff\ue000"),
])
def test_halves_of_a_pair_that_stand_alone(shared, text, wanted):
    """What JSON.stringify makes of a string that was cut within an emoji costs no batch."""
    tree = json.dumps(spans({**IDS, "name": "@", "attributes": [
        {"key": "@", "value": {"stringValue": "@"}}]})).replace("@", text).encode()
    assert send(shared, "traces", tree)[0] == 200
    kept = stored(shared)
    assert [kept.name, kept.attributes[0].key, kept.attributes[0].value.string_value] == [wanted] * 3


def test_a_mistake_behind_a_lone_half_is_found_where_it_is(shared):
    body = rb'{"a": "\ud83d", "b": ?}'
    status, _, answer = send(shared, "traces", body)
    assert status == 400 and f"(byte {body.index(b'?') + 1})" in json.loads(answer)["message"]
    for cut in (rb'{"a": "\ud83d', rb'{"a": "\ud83', rb'{"a": "\ud83d\ude0', rb'{"a": "\u', rb'"\ud83d"'):
        assert send(shared, "traces", cut)[0] == 400


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b'{"resourceSpans": 1}', b"{} x",
                                  b'{"resourceSpans": [1]}', b'{"a": "\xff"}'], ids=repr)
def test_malformed(shared, body):
    assert send(shared, "traces", body)[0] == 400


def test_deep_nesting_is_refused(shared):
    assert send(shared, "traces", b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}")[0] == 400
    value = {"stringValue": "x"}
    for _ in range(90):
        value = {"arrayValue": {"values": [value]}}
    tree = spans({**IDS, "attributes": [{"key": "k", "value": value}]})
    assert send(shared, "traces", tree)[0] == 400


@pytest.mark.parametrize("signal", otlp.SIGNALS)
def test_json_and_protobuf_are_stored_alike(shared, signal):
    message = otlp.request(signal, 5)
    assert send(shared, signal, otlp.to_json(message))[0] == 200
    assert shared.files(signal)[-1] == message
