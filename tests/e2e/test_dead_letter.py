"""What a destination refuses for good is kept by another, with what is known of it."""

import datetime
import json
import subprocess

import pytest
from lib import otlp, wire
from lib.sluice import BINARY, wait_for
from lib.upstream import Upstream

HEADERS = ["sluice-reason", "sluice-tenant", "sluice-time", "sluice-destination"]


def refusing():
    return Upstream(judge=lambda call: {"status": 3})


def config(upstream, dead, required=True, more=None):
    return {"destinations": {
        "up": {"otlp": {"endpoint": f"http://127.0.0.1:{upstream.port}"}, "dead_letter": "dead",
               "retry": {"initial": "20ms", "max": "100ms"}, **(more or {})}, "dead": dead},
        "routes": [{"to": [{"destination": "up", "required": required}]}]}


def send(sluice, message, signal="traces", token=None):
    client = wire.Http2(sluice.grpc_port)
    try:
        return client.call(otlp.SERVICES[signal], wire.frame(message.SerializeToString()),
                           {"authorization": f"Bearer {token}"} if token else None)
    finally:
        client.close()


def reply(stream, signal="traces"):
    return otlp.RESPONSES[signal].FromString(stream.data[5:]).partial_success


def fields(blob):
    """The delimited requests of a file, each as (headers in front, request)."""
    at, found = 0, []

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            value |= (blob[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if blob[at - 1] < 0x80:
                return value
    while at < len(blob):
        size = varint()
        end, headers = at + size, []
        for number in range(101, 105):
            assert varint() == number << 3 | 2
            length = varint()
            headers.append(blob[at:at + length].decode())
            at += length
        found.append((headers, blob[at:end]))
        at = end
    return found


def recent(text):
    at = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return abs((datetime.datetime.now(datetime.timezone.utc) - at).total_seconds()) < 600


def books(sluice, items):
    """They close for both destinations, to the item."""
    wait_for("the books", lambda: sluice.metric("sluice_queue_records") == 0)
    sluice.check_destinations()
    assert sluice.metric("sluice_dead_lettered_items_total", destination="up") == items
    assert sluice.metric("sluice_taken_items_total", destination="dead") == items


def test_to_a_file(start, tmp_path):
    """The request as it came, behind its headers; what reads OTLP reads it as if they were not."""
    message = otlp.request("traces", 5)
    with refusing() as upstream:
        sluice = start(config=config(upstream, {"file": {"path": str(tmp_path / "dead")}}))
        stream = send(sluice, message, token="gold-token")
        assert stream.grpc_status == 0
        assert reply(stream).rejected_spans == 0 and "dead letter" in reply(stream).error_message
        books(sluice, 5)
        assert sluice.metric("sluice_rejected_items_total", destination="up") == 0
        assert sluice.metric("sluice_delivered_items_total", destination="dead") == 5
    blob = next((tmp_path / "dead").glob("traces-*.binpb")).read_bytes()
    (headers, body), = fields(blob)
    assert body == message.SerializeToString()
    assert headers[:2] + headers[3:] == ["grpc 3", "gold", "up"] and recent(headers[2])
    seen, = otlp.read_delimited("traces", blob)
    assert seen.resource_spans == message.resource_spans


def test_to_a_file_as_json(start, tmp_path):
    message = otlp.request("logs", 2)
    with refusing() as upstream:
        sluice = start(config=config(upstream, {"file": {"path": str(tmp_path / "dead"),
                                                         "format": "json"}}))
        assert send(sluice, message, "logs").grpc_status == 0
        assert send(sluice, message, "logs").grpc_status == 0
    lines = next((tmp_path / "dead").glob("logs-*.jsonl")).read_text().splitlines()
    assert len(lines) == 2
    for line in lines:
        tree = json.loads(line)
        letter = tree.pop("sluiceDeadLetter")
        assert recent(letter.pop("time"))
        assert letter == {"reason": "grpc 3", "tenant": "demo", "destination": "up"}
        assert len(tree["resourceLogs"][0]["scopeLogs"][0]["logRecords"]) == 2


@pytest.mark.parametrize("http", [False, True], ids=["grpc", "http"])
def test_to_an_upstream(start, http):
    message = otlp.request("metrics", 3)
    with refusing() as upstream, Upstream(http) as dead:
        sluice = start(config=config(upstream, {"otlp": {
            "endpoint": f"http://127.0.0.1:{dead.port}", "protocol": "http" if http else "grpc"},
            "merge": {"requests": 100, "delay": "1ms"}}))
        assert send(sluice, message, "metrics").grpc_status == 0
        books(sluice, 3)
        assert dead.messages("metrics") == [message]
        found = [dead.calls[0].headers[name] for name in HEADERS]
        assert found[:2] + found[3:] == ["grpc 3", "demo", "up"] and recent(found[2])


def test_best_effort(start, tmp_path):
    with refusing() as upstream:
        sluice = start(config=config(upstream, {"blackhole": {}}, required=False))
        stream = send(sluice, otlp.request("traces", 4))
        assert stream.grpc_status == 0 and not reply(stream).error_message
        wait_for("the letter", lambda: sluice.metric("sluice_delivered_items_total",
                                                     destination="dead") == 4)
        books(sluice, 4)


@pytest.mark.parametrize("how", ["refuses", "fails"])
def test_that_cannot_be_kept(start, how):
    """The sender is told what it would be told without: it is refused for good, and counted."""
    status = 3 if how == "refuses" else 14
    with refusing() as upstream, Upstream(judge=lambda call: {"status": status}) as dead:
        sluice = start(config={**config(upstream, {
            "otlp": {"endpoint": f"http://127.0.0.1:{dead.port}"},
            "retry": {"initial": "20ms", "max": "50ms"}}), "answer_within": "2s"})
        stream = send(sluice, otlp.request("traces", 6))
        # The answer may fall due while a try is under way, and says that then.
        assert stream.grpc_status in ((3,) if how == "refuses" else (3, 14))
        assert len(dead.calls) == 1 if how == "refuses" else len(dead.calls) > 5
        wait_for("its end", lambda: sluice.metric("sluice_lost_dead_letter_items_total",
                                                  destination="dead") == 6)
        books(sluice, 6)
        assert sluice.metric("sluice_rejected_items_total", destination="dead") == 6
        assert len(upstream.calls) == 1


def test_merged_calls_are_taken_apart_first(start, tmp_path):
    """Of four requests in a call one is bad: it alone is a dead letter."""
    def judge(call):
        return {"status": 3} if b"poison" in call.body else {}
    with Upstream(judge=judge) as upstream:
        sluice = start(config=config(upstream, {"file": {"path": str(tmp_path / "dead")}},
                                     more={"merge": {"requests": 4, "delay": "3s"}}))
        clients = [wire.Http2(sluice.grpc_port) for _ in range(4)]
        for index, client in enumerate(clients):
            message = otlp.request("traces", 2, "poison" if index == 2 else "checkout")
            number = client.start(otlp.SERVICES["traces"])
            client.data(number, wire.frame(message.SerializeToString()), end_stream=True)
            client.number = number
        answers = [client.finish(client.number) for client in clients]
        assert [one.grpc_status for one in answers] == [0] * 4
        assert [bool(reply(one).error_message) for one in answers] == [False, False, True, False]
        books(sluice, 2)
        assert sluice.metric("sluice_delivered_items_total", destination="up") == 6
        for client in clients:
            client.close()


def test_reload_without_it(start, tmp_path):
    """A destination for dead letters stays open until those that name it have ended."""
    with refusing() as upstream:
        sluice = start(config=config(upstream, {"file": {"path": str(tmp_path / "dead")}}))
        assert send(sluice, otlp.request("traces")).grpc_status == 0
        del sluice.config["destinations"]["up"]["dead_letter"]
        del sluice.config["destinations"]["dead"]
        sluice.reload()
        assert send(sluice, otlp.request("traces")).grpc_status == 3


def test_out_of_a_spool(start, tmp_path):
    """It was acknowledged: refused for good, and its dead letter not kept either, it stays on disk
    until one of the two takes it."""
    status = {"up": 14, "dead": 14}
    message = otlp.request("traces", 5)
    with Upstream(judge=lambda call: {"status": status["up"]}) as upstream, \
            Upstream(judge=lambda call: {"status": status["dead"]}) as dead:
        retry = {"initial": "10ms", "max": "50ms", "max_elapsed": "200ms"}
        sluice = start(config=config(
            upstream, {"otlp": {"endpoint": f"http://127.0.0.1:{dead.port}"}, "retry": retry},
            more={"retry": retry, "spool": {"path": str(tmp_path / "spool"), "after": "50ms"}}))
        assert send(sluice, message).grpc_status == 0
        wait_for("the spool", lambda: sluice.metric("sluice_spool_items") == 5)
        status["up"] = 3
        wait_for("it to come back", lambda: sluice.metric("sluice_moved_items_total",
                                                          destination="dead") > 0)
        status["dead"] = 0
        wait_for("the letter", lambda: len(dead.taken) == 1)
        assert dead.messages(taken=True) == [message]
        assert [dead.taken[0].headers[name] for name in HEADERS[:2] + HEADERS[3:]] == [
            "grpc 3", "demo", "up"]
        wait_for("the spool", lambda: sluice.metric("sluice_spool_items") == 0)
        wait_for("the books", lambda: sluice.metric("sluice_queue_records") == 0)
        sluice.check_destinations()
        assert sluice.metric("sluice_lost_dead_letter_items_total") == 0
        assert sluice.metric("sluice_delivered_items_total", destination="dead") == 5


def test_a_spool_of_their_own(start, tmp_path):
    """Their destination is down: they wait on its disk, over a kill -9, and come there as they were
    made. Nobody is told that they are lost, and none is."""
    message, folder = otlp.request("traces", 5), tmp_path / "spool"
    down = [True]
    with refusing() as upstream, \
            Upstream(judge=lambda call: {"status": 14} if down[0] else {}) as dead:
        sluice = start(config=config(upstream, {
            "otlp": {"endpoint": f"http://127.0.0.1:{dead.port}"},
            "retry": {"initial": "10ms", "max": "50ms"},
            "spool": {"path": str(folder), "after": "50ms"}}))
        stream = send(sluice, message, token="gold-token")
        assert stream.grpc_status == 0 and "dead letter" in reply(stream).error_message
        wait_for("the spool", lambda: sluice.metric("sluice_spool_items", destination="dead") == 5)
        books(sluice, 5)
        assert sluice.metric("sluice_lost_dead_letter_items_total") == 0
        made = dead.calls[0].headers["sluice-time"]
        sluice.kill()
        segment = max(folder.glob("*.spool"), key=lambda one: one.stat().st_size)
        done = subprocess.run([BINARY, "replay", "--check", segment], capture_output=True, text=True)
        assert "1 requests, 1 of them dead letters, 0 damaged" in done.stdout
        sluice.start()
        down[0] = False
        wait_for("the letter", lambda: len(dead.taken) == 1)
        assert dead.messages(taken=True) == [message]
        assert [dead.taken[0].headers[name] for name in HEADERS] == ["grpc 3", "gold", made, "up"]
        wait_for("an empty spool", sluice.spools_are_empty)
        sluice.check_destinations()
        assert sluice.metric("sluice_delivered_items_total", destination="dead") == 5


def test_from_one_spool_to_the_other(start, tmp_path):
    """Acknowledged, on disk and then refused for good: it leaves the one only for the other."""
    status, message = {"up": 14, "dead": 14}, otlp.request("traces", 5)
    with Upstream(judge=lambda call: {"status": status["up"]}) as upstream, \
            Upstream(judge=lambda call: {"status": status["dead"]}) as dead:
        retry = {"initial": "10ms", "max": "50ms"}

        def spool(name):
            return {"retry": retry, "spool": {"path": str(tmp_path / name), "after": "50ms"}}

        sluice = start(config=config(upstream, {
            "otlp": {"endpoint": f"http://127.0.0.1:{dead.port}"}, **spool("dead")},
            more=spool("up")))
        assert send(sluice, message).grpc_status == 0
        wait_for("the one", lambda: sluice.metric("sluice_spool_items", destination="up") == 5)
        status["up"] = 3
        wait_for("the other", lambda: sluice.metric("sluice_spool_items", destination="dead") == 5 and
                 sluice.metric("sluice_spool_items", destination="up") == 0)
        assert sluice.metric("sluice_spooled_items_total", destination="dead") == 5
        status["dead"] = 0
        wait_for("the letter", lambda: len(dead.taken) == 1)
        assert dead.messages(taken=True) == [message]
        wait_for("an empty spool", sluice.spools_are_empty)
        sluice.check_destinations()
        assert sluice.metric("sluice_lost_dead_letter_items_total") == 0


@pytest.mark.kafka
def test_an_item_too_large_for_kafka(start, broker):
    """It alone goes to the dead letters, with the broker library's reason; the others are sent."""
    for topic in ("small", "large"):
        broker.create(topic, max_message_bytes=10**6)
    message = otlp.request("traces", 20)
    message.resource_spans[0].scope_spans[0].spans[7].attributes.add(
        key="blob").value.string_value = "x" * 50000
    sluice = start(config={"destinations": {
        "up": {"kafka": {"brokers": [broker.address], "topic": "small",
                         "max_message_bytes": "20KB"}, "dead_letter": "dead"},
        "dead": {"kafka": {"brokers": [broker.address], "topic": "large"}}},
        "routes": [{"to": ["up"]}]})
    stream = send(sluice, message, token="gold-token")
    assert stream.grpc_status == 0 and reply(stream).rejected_spans == 0
    assert reply(stream).error_message
    books(sluice, 1)
    (_, _, value, headers), = broker.read("large")
    assert headers.pop("sluice-time") and {key: value.decode() for key, value in headers.items()} == {
        "sluice-reason": "MSG_SIZE_TOO_LARGE", "sluice-tenant": "gold", "sluice-destination": "up"}
    spans = message.resource_spans[0].scope_spans[0].spans
    wanted = {span.span_id for span in spans}
    dead = {span.span_id for span in otlp.items(
        "traces", otlp.REQUESTS["traces"].FromString(value))}
    found = {span.span_id for record in broker.read("small") for span in otlp.items(
        "traces", otlp.REQUESTS["traces"].FromString(record[2]))}
    assert dead == {spans[7].span_id} and found == wanted - dead
