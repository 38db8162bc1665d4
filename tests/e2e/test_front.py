"""The front under unkind clients: HTTP/1.1 and HTTP/2 abuse, disconnects, memory, drain, crowds."""

import os
import random
import resource
import signal
import socket
import struct
import subprocess
import threading
import time

import h2.exceptions
import h2.settings
import pytest
from lib import load, otlp, wire
from lib.sluice import SANITIZED, wait_for
from lib.gated import Gated

TRACES = otlp.SERVICES["traces"]
BODY = otlp.request("traces", 2).SerializeToString()
HEAD = (b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/x-protobuf\r\n")
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
SETTING = h2.settings.SettingCodes
CALM, CANCEL = 11, 8


@pytest.fixture
def upstream():
    one = Gated()
    yield one
    one.close()


# --- HTTP/1.1 -----------------------------------------------------------------------------------

def test_half_close_gets_the_delayed_answer(start, upstream):
    sluice = start(config=upstream.config())
    client = wire.Http1(sluice.http_port)
    client.send(WHOLE + WHOLE)
    client.socket.shutdown(socket.SHUT_WR)
    upstream.arrived.acquire(timeout=30)
    time.sleep(0.2)
    upstream.gate.set()
    assert [client.read_response()[0] for _ in range(2)] == [200, 200]
    assert client.closed()
    client.close()
    wait_for("the end", lambda: sluice.metric("sluice_connections_open") == 0)


@pytest.mark.parametrize("sent", [b"", b"POST", HEAD, WHOLE[:-1],
                                  HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc"])
def test_half_close_before_the_end_closes(shared, sent):
    client = wire.Http1(shared.http_port)
    client.send(sent)
    client.socket.shutdown(socket.SHUT_WR)
    assert client.closed()
    client.close()


def test_half_close_in_the_second_request_answers_the_first(start, upstream):
    sluice = start(config=upstream.config())
    client = wire.Http1(sluice.http_port)
    client.send(WHOLE + WHOLE[:-1])
    client.socket.shutdown(socket.SHUT_WR)
    upstream.arrived.acquire(timeout=30)
    upstream.gate.set()
    assert client.read_response()[0] == 200
    assert client.closed()
    client.close()


@pytest.mark.parametrize("bad, status", [
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    (b"NONSENSE\r\n\r\n", 400),
    (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    (b"GET / HTTP/3.0\r\n\r\n", 505),
])
def test_pipeline_with_one_bad_in_the_middle(start, upstream, bad, status):
    """The first is answered though it is slow, the bad one after it, the third never."""
    sluice = start(config=upstream.config(connection={"body_timeout": "1s"}, answer_within="60s"))
    client = wire.Http1(sluice.http_port)
    client.send(WHOLE + bad + WHOLE)
    upstream.arrived.acquire(timeout=30)
    time.sleep(2.2)  # beyond the bad one's body_timeout
    upstream.gate.set()
    assert client.read_response()[0] == 200
    assert client.read_response()[0] == status
    assert client.closed()
    assert upstream.items() == 2
    client.close()


def test_errors_leave_the_connection_usable(shared):
    client = wire.Http1(shared.http_port)
    small = b"Content-Length: 3\r\n\r\nabc"
    for request, status in [
            (HEAD + small, 400),
            (HEAD.replace(b"/v1/traces", b"/nowhere") + small, 404),
            (HEAD.replace(b"POST", b"PUT") + small, 405),
            (HEAD.replace(b"x-protobuf", b"text") + small, 415),
            (HEAD + b"Content-Encoding: br\r\n" + small, 415),
            (HEAD + b"Authorization: Bearer nobody\r\n" + small, 401),
            (HEAD + b"Content-Encoding: gzip\r\n" + small, 400)]:
        for _ in range(2):
            client.send(request)
            assert client.read_response()[0] == status
            client.send(WHOLE)
            assert client.read_response()[0] == 200
    client.close()


def test_http_1_0(shared):
    old = WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host: localhost\r\n", b"")
    client = wire.Http1(shared.http_port)
    client.send(old)
    assert client.read_response()[0] == 200
    assert client.closed()
    client.close()
    client = wire.Http1(shared.http_port)
    for _ in range(2):
        client.send(old.replace(b"HTTP/1.0\r\n", b"HTTP/1.0\r\nConnection: keep-alive\r\n"))
        status, headers, _ = client.read_response()
        assert (status, headers["connection"]) == (200, "keep-alive")
    client.close()


def test_expect_continue(shared):
    expect = HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    client = wire.Http1(shared.http_port)
    for _ in range(3):
        client.send(expect)
        assert client.read_response()[0] == 100
        client.send(BODY)
        assert client.read_response()[0] == 200
    client.send(expect + BODY)  # did not wait
    status = client.read_response()[0]
    assert (client.read_response()[0] if status == 100 else status) == 200
    client.send(WHOLE + expect)  # behind another
    assert client.read_response()[0] == 200
    assert client.read_response()[0] == 100
    client.send(BODY)
    assert client.read_response()[0] == 200
    client.send(HEAD + b"Authorization: Bearer nobody\r\nExpect: 100-continue\r\n"
                b"Content-Length: 100000\r\n\r\n")
    assert client.read_response()[0] == 401  # the verdict instead
    assert client.closed()
    client.close()


@pytest.mark.parametrize("length", [b"Content-Length: 8000000", b"Transfer-Encoding: chunked"])
def test_early_refusal_while_a_large_body_comes(shared, length):
    """The answer is read although the client goes on sending for a while."""
    client = wire.Http1(shared.http_port)
    client.send(HEAD + b"Authorization: Bearer nobody\r\n" + length + b"\r\n\r\n")
    sent = 0
    try:
        while sent < 400_000:
            client.send(b"2710\r\n" + bytes(10000) + b"\r\n")
            sent += 10000
    except OSError:
        pass
    assert client.read_response()[0] == 401
    client.close()


# --- HTTP/2 -------------------------------------------------------------------------------------

class Raw(wire.Http2):
    """Frames that no honest client sends."""

    blind = False

    def frame(self, kind, flags=0, stream=0, payload=b""):
        return (struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) +
                struct.pack(">I", stream) + payload)

    def head(self):
        """A request's head as a header block, all fields literal and not indexed."""
        fields = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", TRACES),
                  ("content-type", "application/grpc"), ("te", "trailers")]
        return b"".join(b"\0" + bytes([len(k)]) + k.encode() + bytes([len(v)]) + v.encode()
                        for k, v in fields)

    def receive(self, data):
        if not self.blind:
            super().receive(data)
        else:
            self.split(data)  # answers to what it did not send would be errors to it

    def pour(self, data, times, seconds):
        """Sends until the server has had enough; True when it closes within the time."""
        self.blind = True
        try:
            for _ in range(times):
                self.socket.sendall(data)
        except OSError:
            pass
        try:
            return self.pump(lambda: self.closed, seconds)
        except OSError:
            return True


def rapid_reset(raw):
    raw.flush()
    block = raw.head()
    return b"".join(raw.frame(1, 4, number, block) + raw.frame(3, 0, number, b"\0\0\0\x08")
                    for number in range(1, 8001, 2)), 1


FLOODS = {
    "rapid reset": rapid_reset,
    "ping": lambda raw: (raw.frame(6, 0, 0, bytes(8)) * 5000, 1),
    "settings": lambda raw: (raw.frame(4, 0, 0, b"\0\x03\0\0\0\x64") * 5000, 1),
    "empty settings": lambda raw: (raw.frame(4) * 5000, 1),
    "empty data": lambda raw: (raw.frame(1, 4, 1, raw.head()) + raw.frame(0, 0, 1) * 5000, 1),
    "padding alone": lambda raw: (raw.frame(1, 4, 1, raw.head()) +
                                  raw.frame(0, 8, 1, b"\x04\0\0\0\0") * 5000, 1),
    "continuation": lambda raw: (raw.frame(1, 0, 1, raw.head()) + raw.frame(9, 0, 1, b"") * 5000, 1),
    "fat continuation": lambda raw: (
        raw.frame(1, 0, 1, raw.head()) +
        raw.frame(9, 0, 1, b"\0\x01x\x7f\x9e\x01" + b"a" * 285) * 5000, 1),
    "priority": lambda raw: (raw.frame(2, 0, 1, b"\0\0\0\x03\x10") * 5000, 1),
    "unknown frames": lambda raw: (raw.frame(0xbe, 0, 0, b"grease") * 5000, 1),
    "window updates": lambda raw: (raw.frame(8, 0, 0, b"\0\0\0\x01") * 20000, 1),
    "malformed heads": lambda raw: (b"".join(
        raw.frame(1, 5, number, b"\0\x01X\x01y") for number in range(1, 8001, 2)), 1),
    "huge heads": lambda raw: (b"".join(
        raw.frame(1, 5, number, raw.head() + b"\0\x01x\x7f\xfd\x7c" + b"a" * 16124)
        for number in range(1, 4001, 2)), 1),
}


@pytest.mark.parametrize("name", FLOODS)
def test_flood(shared, name):
    """The flooding connection is told off; a neighbour's calls succeed meanwhile."""
    neighbour = wire.Http2(shared.grpc_port)
    assert neighbour.call(TRACES, wire.frame(BODY)).grpc_status == 0
    raw = Raw(shared.grpc_port)
    raw.pump(lambda: raw.events)
    data, times = FLOODS[name](raw)
    closed = []
    # Frames that are skipped unread: the connection may live.
    harmless = name in ("priority", "unknown frames", "window updates")
    flood = threading.Thread(
        target=lambda: closed.append(raw.pour(data, times, 1 if harmless else wire.TIMEOUT)))
    flood.start()
    worst = 0
    while flood.is_alive():
        began = time.monotonic()
        assert neighbour.call(TRACES, wire.frame(BODY)).grpc_status == 0
        worst = max(worst, time.monotonic() - began)
    flood.join()
    assert worst < 5
    if not harmless:
        assert closed == [True]
        if raw.goaways:
            assert raw.goaways[-1].error_code in (CALM, 1, 2), raw.goaways
        if name in ("rapid reset", "ping", "settings", "empty data", "malformed heads",
                    "huge heads"):
            assert raw.goaways and raw.goaways[-1].error_code == CALM, raw.goaways
    assert neighbour.call(TRACES, wire.frame(BODY)).grpc_status == 0
    raw.close()
    neighbour.close()


def test_head_in_continuation_that_never_ends(start):
    sluice = start(config={"connection": {"header_timeout": "1s"}})
    raw = Raw(sluice.grpc_port)
    raw.pump(lambda: raw.events)
    raw.socket.sendall(raw.frame(1, 0, 1, raw.head()))
    assert raw.pump(lambda: raw.closed)
    raw.close()


def test_preface_that_never_ends(start):
    """Who has begun to speak HTTP/2 owes the rest as others owe a head; then it may be silent."""
    sluice = start(config={"connection": {"header_timeout": "1s"}})
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    cut = [wire.dial(sluice.grpc_port) for _ in range(4)]
    for connection, begun in zip(cut, (preface[:3], preface[:-1], preface, preface + bytes(8))):
        connection.sendall(begun)
    quiet = wire.Http2(sluice.grpc_port)
    quiet.pump(lambda: quiet.events)
    for connection in cut:
        try:
            while connection.recv(1000):
                pass
        except ConnectionResetError:
            pass
        connection.close()
    assert quiet.call(TRACES, wire.frame(BODY)).grpc_status == 0
    quiet.close()


def test_windows_opened_late_and_by_the_byte(shared):
    client = wire.Http2(shared.grpc_port, {SETTING.INITIAL_WINDOW_SIZE: 0})
    numbers = [client.start(TRACES) for _ in range(20)]
    for number in numbers:
        client.data(number, wire.frame(BODY), end_stream=True)
    time.sleep(0.3)
    assert not any(client.streams[number].data for number in numbers)
    for number in numbers[:10]:
        for _ in range(5):
            client.h2.increment_flow_control_window(1, number)
            client.flush()
    client.h2.update_settings({SETTING.INITIAL_WINDOW_SIZE: 5})
    client.flush()
    for number in numbers:
        assert client.finish(number).grpc_status == 0
    client.close()


def test_goaway_from_the_client(start, upstream):
    """Streams that are open are answered; then the connection is closed by us."""
    sluice = start(config=upstream.config())
    client = Raw(sluice.grpc_port)
    number = client.start(TRACES)
    client.data(number, wire.frame(BODY), end_stream=True)
    client.socket.sendall(client.frame(7, 0, 0, bytes(8)))
    upstream.arrived.acquire(timeout=30)
    upstream.gate.set()
    assert client.finish(number).grpc_status == 0
    assert client.pump(lambda: client.closed)
    client.close()


def test_trailers_from_the_client(shared):
    before = len(shared.files("traces"))
    client = wire.Http2(shared.grpc_port)
    number = client.start(TRACES)
    client.data(number, wire.frame(BODY))
    client.h2.send_headers(number, [("x-checksum", "1")], end_stream=True)
    client.flush()
    assert client.finish(number).grpc_status == 0
    assert len(shared.files("traces")) == before + 1
    client.close()


def test_reset_in_a_body_stores_nothing_and_is_counted(shared):
    def cancelled(protocol, code):
        return shared.metric("sluice_requests_total", protocol=protocol, code=code)
    before, stored = cancelled("grpc", "CANCELLED"), len(shared.files("traces"))
    client = wire.Http2(shared.grpc_port)
    for cut in (0, 3, 5, 20, len(BODY) + 4):
        number = client.start(TRACES)
        client.data(number, wire.frame(BODY)[:cut])
        client.h2.reset_stream(number, CANCEL)
        client.flush()
    assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
    assert len(shared.files("traces")) == stored + 1
    assert cancelled("grpc", "CANCELLED") == before + 5
    client.close()
    before = cancelled("http/protobuf", "499")
    client = wire.Http1(shared.http_port)
    client.send(WHOLE[:-1])
    time.sleep(0.1)
    client.close()
    wait_for("the count", lambda: cancelled("http/protobuf", "499") == before + 1)


def test_priority_and_unknown_frames_are_ignored(shared):
    client = Raw(shared.grpc_port)
    client.pump(lambda: client.events)
    client.socket.sendall(client.frame(2, 0, 1, b"\0\0\0\0\x10") + client.frame(0xbe, 9, 7, b"x") +
                          client.frame(16, 0, 0, b"\0\0\0\x01u=1"))
    assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
    client.close()


# --- deadlines and disconnects ------------------------------------------------------------------

def test_deadline_while_the_destination_is_slow(start, upstream):
    sluice = start(config=upstream.config())
    client = wire.Http2(sluice.grpc_port)
    began = time.monotonic()
    stream = client.call(TRACES, wire.frame(BODY), {"grpc-timeout": "300m"})
    assert stream.grpc_status == 14 and stream.retry_delay
    assert 0.2 < time.monotonic() - began < 3.9  # not at answer_within
    upstream.gate.set()
    wait_for("the late end", lambda: sluice.metric("sluice_late_requests_total") == 1)
    assert sluice.metric("sluice_delivered_items_total") == 2  # delivery went on
    assert client.call(TRACES, wire.frame(BODY), {"grpc-timeout": "5S"}).grpc_status == 0
    client.close()


def test_client_leaves_before_the_answer(start, upstream):
    sluice = start(config=upstream.config())
    clients = [wire.Http2(sluice.grpc_port) for _ in range(3)]
    for client in clients:
        number = client.start(TRACES)
        client.data(number, wire.frame(BODY), end_stream=True)
        assert upstream.arrived.acquire(timeout=30)
    clients[0].h2.reset_stream(number, CANCEL)
    clients[0].flush()
    clients[1].close()
    clients[2].socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    clients[2].close()
    old = wire.Http1(sluice.http_port)
    old.send(WHOLE)
    assert upstream.arrived.acquire(timeout=30)
    old.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    old.close()
    wait_for("them to be missed", lambda: sluice.metric("sluice_abandoned_requests_total") == 4)
    upstream.gate.set()
    wait_for("deliveries", lambda: sluice.metric("sluice_delivered_items_total") == 8)
    clients[0].close()
    wait_for("the end", lambda: sluice.metric("sluice_connections_open") == 0)


# --- memory -------------------------------------------------------------------------------------

def test_bomb_costs_at_most_the_limit(start):
    """1:1000 and more: refused when the limit is reached, not after."""
    sluice = start(config={"memory_budget": "64MiB"})
    wire.post(sluice.http_port, "/v1/traces", BODY)
    for coding in ("gzip", "zstd"):
        bomb = otlp.compress(coding, bytes(1 << 28))
        assert len(bomb) < 1 << 19
        before = load.rss(sluice.process)
        for _ in range(3):
            assert wire.post(sluice.http_port, "/v1/traces", bomb,
                             headers={"Content-Encoding": coding})[0] == 413
        if not SANITIZED:
            assert load.rss(sluice.process) < before + (48 << 20)
    assert wire.post(sluice.http_port, "/v1/traces", BODY)[0] == 200


def test_bodies_over_the_budget_are_refused_and_others_served(start):
    """40 bodies of 4 MiB at once in a budget of 32: refusals carry a retry delay, all else is fine."""
    sluice = start(config={"memory_budget": "32MiB",
                           "limits": {"body_bytes": "4MiB", "tenant_share": 1},
                           "destinations": {"file": {"blackhole": {}}}})
    large = otlp.request("logs", 1)
    large.resource_logs[0].scope_logs[0].log_records[0].body.string_value = "x" * 4_000_000
    body = wire.frame(large.SerializeToString())
    clients = [wire.Http2(sluice.grpc_port) for _ in range(40)]
    numbers = []
    for client in clients:  # each holds its reservation open
        numbers.append(client.start(otlp.SERVICES["logs"]))
        client.data(numbers[-1], body[:1000])
    time.sleep(0.2)
    assert sluice.metric("sluice_memory_used_bytes") <= sluice.metric("sluice_memory_budget_bytes")
    codes = []
    for client, number in zip(clients, numbers):
        client.data(number, body[1000:], end_stream=True)
        stream = client.finish(number)
        codes.append(stream.grpc_status)
        if stream.grpc_status:
            assert stream.grpc_status == 14 and stream.retry_delay > 0
    assert 3 <= codes.count(0) <= 12, codes
    for client, number in zip(clients, numbers):  # whoever comes again is served
        assert client.call(otlp.SERVICES["logs"], body).grpc_status == 0
        client.close()
    status, headers, _ = wire.post(sluice.http_port, "/v1/traces", BODY)
    assert status == 200
    if not SANITIZED:
        assert load.rss(sluice.process) < 120 << 20
    wait_for("memory", lambda: sluice.metric("sluice_memory_used_bytes") < 2 << 20)


def test_share_of_a_connection(start):
    """One connection reserves its share (or one body), whatever it announces on its streams."""
    sluice = start(config={"memory_budget": "64MiB", "limits": {
        "body_bytes": "4MiB", "connection_share": 16}})
    greedy = wire.Http2(sluice.grpc_port)
    numbers = [greedy.start(TRACES) for _ in range(10)]
    for number in numbers:
        greedy.data(number, b"\0" + (1 << 20).to_bytes(4, "big") + b"x")
    greedy.pump(lambda: sum(greedy.streams[n].ended for n in numbers) >= 6)
    refused = [n for n in numbers if greedy.streams[n].ended]
    assert len(refused) == 6 and all(greedy.streams[n].grpc_status == 14 for n in refused)
    other = wire.Http2(sluice.grpc_port)
    assert other.call(TRACES, wire.frame(BODY)).grpc_status == 0
    other.close()
    greedy.close()


def test_slow_large_bodies_leave_room_for_others(start):
    """Whoever announces the largest bodies and sends no more takes half of the budget at most."""
    sluice = start()
    slow = []
    for _ in range(10):
        slow.append(wire.Http1(sluice.http_port))
        slow[-1].send(HEAD + b"Content-Length: %d\r\n\r\nx" % (16 << 20))
    slow.append(wire.Http2(sluice.grpc_port))
    for _ in range(10):
        slow[-1].data(slow[-1].start(TRACES), b"\0" + (16 << 20).to_bytes(4, "big") + b"x")
    wait_for("them", lambda: sluice.metric("sluice_connections_open") == 11)
    wait_for("bodies", lambda: sluice.metric("sluice_memory_used_bytes") > 16 << 20)
    budget = sluice.metric("sluice_memory_budget_bytes")
    assert sluice.metric("sluice_memory_used_bytes") < 0.7 * budget
    for _ in range(5):
        assert wire.post(sluice.http_port, "/v1/traces", BODY)[0] == 200
    body = otlp.request("traces", 1500).SerializeToString()
    assert wire.post(sluice.http_port, "/v1/traces", body)[0] == 200
    for client in slow:
        client.close()


@pytest.mark.skipif(SANITIZED, reason="the sanitizers bring allocators of their own")
def test_idle_connections_are_small(start):
    """Thousands of idle HTTP/2 connections, each after a call: at most 36 KiB of memory each, and
    none of it from the bodies' budget."""
    sluice = start(config={"memory_budget": "16MiB", "limits": {"body_bytes": "4MiB"}})
    warm = wire.Http2(sluice.grpc_port)
    assert warm.call(TRACES, wire.frame(BODY)).grpc_status == 0
    count = 2000
    hello = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + warm_frame(4) +
             warm_frame(1, 4, 1, Raw.head(warm)) +
             warm_frame(0, 1, 1, wire.frame(BODY)))
    before = load.rss(sluice.process)
    sockets = []
    for _ in range(count):
        sockets.append(wire.dial(sluice.grpc_port))
        sockets[-1].sendall(hello)
    wait_for("all", lambda: sluice.metric("sluice_requests_total", code="OK") == count + 1)
    assert sluice.metric("sluice_connections_open") == count + 1
    each = (load.rss(sluice.process) - before) / count
    assert each <= 36 * 1024, f"{each / 1024:.1f} KiB a connection"
    assert sluice.metric("sluice_memory_used_bytes") < 1 << 20
    assert sluice.metric("sluice_connection_memory_bytes") < (count + 100) * 36 * 1024
    large = otlp.request("traces", 5000).SerializeToString()
    assert warm.call(TRACES, wire.frame(large)).grpc_status == 0
    for one in sockets:
        one.close()
    wait_for("closing", lambda: sluice.metric("sluice_connections_open") == 1)
    assert warm.call(TRACES, wire.frame(BODY)).grpc_status == 0
    warm.close()


def warm_frame(*arguments):
    return Raw.frame(None, *arguments)


# --- drain --------------------------------------------------------------------------------------

@pytest.mark.shards
def test_drain_under_load_loses_nothing(start):
    """Every call that was answered with success is stored; everyone is told to go."""
    sluice = start(shards=2)
    stop, begun, taken, told = threading.Event(), [], [], []

    def by_grpc():
        client, count = wire.Http2(sluice.grpc_port), 0
        while not client.goaways and not client.closed and not stop.is_set():
            stream = client.call(TRACES, wire.frame(BODY))
            count += stream.grpc_status == 0
            if count == 1:
                begun.append("grpc")
        taken.append(count)
        told.append(bool(client.goaways))

    def by_http():
        client, count, close = wire.Http1(sluice.http_port), 0, False
        try:
            while not close and not stop.is_set():
                client.send(WHOLE)
                status, headers, _ = client.read_response()
                if status is None:
                    break
                count += status == 200
                if count == 1:
                    begun.append("http")
                close = headers.get("connection") == "close"
        except OSError:
            pass
        taken.append(count)

    threads = [threading.Thread(target=one) for one in [by_grpc] * 4 + [by_http] * 4]
    for thread in threads:
        thread.start()
    wait_for("an answer to each", lambda: len(begun) == 8)  # who has said nothing is not told
    time.sleep(0.5)
    began = time.monotonic()
    sluice.process.send_signal(signal.SIGTERM)
    assert sluice.process.wait(50) == 0, sluice.log()
    assert time.monotonic() - began < 25
    stop.set()
    for thread in threads:
        thread.join(10)
    assert told == [True] * 4
    assert len(sluice.files("traces")) == sum(taken) > 0


@pytest.mark.parametrize("end", ["age", "drain"])
def test_open_calls_outlive_the_end_of_their_connection(start, upstream, end):
    """Age and drain wait for what is open, on either protocol; then the connections close."""
    connection = {"age_max": "1s", "age_grace": "30s"} if end == "age" else {}
    sluice = start(config=upstream.config(answer_within="60s", connection=connection))
    http1, http2 = wire.Http1(sluice.http_port), wire.Http2(sluice.grpc_port)
    http1.send(WHOLE)
    number = http2.start(TRACES)
    http2.data(number, wire.frame(BODY), end_stream=True)
    for _ in range(2):
        assert upstream.arrived.acquire(timeout=30)
    if end == "drain":
        sluice.process.send_signal(signal.SIGTERM)
    # Well behind the final GOAWAY, which comes a second after the first.
    assert http2.pump(lambda: len(http2.goaways) == 2)
    time.sleep(1.2)
    upstream.gate.set()
    assert http2.finish(number).grpc_status == 0
    status, headers, _ = http1.read_response()
    assert status == 200 and headers["connection"] == "close"
    assert http1.closed() and http2.pump(lambda: http2.closed)
    http1.close()
    http2.close()
    if end == "drain":
        assert sluice.process.wait(30) == 0


def test_drain_ends_by_its_timeout(start, upstream):
    """A call that never ends is given up at drain_timeout, and the exit code says so."""
    # What a destination still holds is not given back: the process is about to end.
    sluice = start(config=upstream.config(drain_timeout="1s", answer_within="60s"),
                   environment={"ASAN_OPTIONS": "detect_leaks=0"})
    sluice.clean = False
    client = wire.Http2(sluice.grpc_port)
    number = client.start(TRACES)
    client.data(number, wire.frame(BODY), end_stream=True)
    assert upstream.arrived.acquire(timeout=30)
    half = wire.Http1(sluice.http_port)
    half.send(WHOLE[:-1])
    began = time.monotonic()
    sluice.process.send_signal(signal.SIGTERM)
    assert sluice.process.wait(50) == 1
    assert time.monotonic() - began > 0.9
    client.close()
    half.close()


def test_out_of_descriptors(start):
    """Clients wait in the listener's queue until there are descriptors; those inside go on."""
    sluice = start()
    inside = wire.Http2(sluice.grpc_port)
    assert inside.call(TRACES, wire.frame(BODY)).grpc_status == 0
    used = len(os.listdir(f"/proc/{sluice.process.pid}/fd"))
    _, hard = resource.prlimit(sluice.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(sluice.process.pid, resource.RLIMIT_NOFILE, (used + 5, hard))
    crowd = [wire.Http1(sluice.http_port) for _ in range(20)]
    time.sleep(0.3)
    assert inside.call(TRACES, wire.frame(BODY)).grpc_status == 0
    for client in crowd[:10]:
        client.close()
    crowd[-1].send(WHOLE)
    resource.prlimit(sluice.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
    assert crowd[-1].read_response()[0] == 200
    for client in crowd[10:] + [inside]:
        client.close()


@pytest.mark.skipif(SANITIZED, reason="a crowd is slow under the sanitizers")
@pytest.mark.parametrize("arguments, path", [
    ([], "/nowhere"),
    (["-H", "content-type: application/grpc", "-H", "te: trailers"], TRACES),
])
def test_a_thousand_connections(start, tmp_path, arguments, path):
    """h2load with a thousand connections: no call fails, none is left."""
    sluice = start(config={"destinations": {"file": {"blackhole": {}}}})
    body = tmp_path / "body"
    body.write_bytes(wire.frame(BODY))
    done = subprocess.run(
        ["h2load", "-n", "10000", "-c", "1000", "-m", "4", *arguments,
         *(["-d", body] if arguments else []), f"http://127.0.0.1:{sluice.grpc_port}{path}"],
        capture_output=True, text=True, timeout=60)
    assert "10000 done" in done.stdout, done.stdout
    assert "0 failed, 0 errored, 0 timeout" in done.stdout or not arguments, done.stdout
    wait_for("closing", lambda: sluice.metric("sluice_connections_open") == 0)


@pytest.mark.shards
def test_chaos(start):
    """Clients that cut, reset, flood, stall and behave, all at once: nothing is left, books balance."""
    sluice = start(shards=2, config={
        "memory_budget": "16MiB", "limits": {"body_bytes": "1MiB", "connections": 60},
        "connection": {"header_timeout": "1s", "body_timeout": "1s", "age_max": "1s",
                       "age_grace": "1s"}})
    end = time.monotonic() + (6 if SANITIZED else 3)
    large = otlp.request("traces", 1500).SerializeToString()
    broken = []

    def one(dice):
        kind = dice.randrange(8)
        body = dice.choice([BODY, large, otlp.compress("gzip", large)])
        head = HEAD + (b"Content-Encoding: gzip\r\n" if body[:2] == b"\x1f\x8b" else b"")
        whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        if kind < 4:
            client = wire.Http1(sluice.http_port)
            if kind == 0:
                client.send(whole * dice.randrange(1, 5))
                client.read_response()
            elif kind == 1:
                client.send((whole * 2)[:dice.randrange(2 * len(whole))])
                client.socket.shutdown(socket.SHUT_WR)
                client.closed(0.5)
            elif kind == 2:
                client.send(bytes(dice.randrange(256) for _ in range(200)))
            else:
                client.send(whole[:dice.randrange(len(whole))])
            client.close()
            return
        client = Raw(sluice.grpc_port)
        numbers = [client.start(TRACES, {"grpc-encoding": "gzip"})
                   for _ in range(dice.randrange(1, 6))]
        message = wire.frame(body, 1 if body[:2] == b"\x1f\x8b" else 0)
        for number in numbers:
            client.data(number, message[:dice.choice([0, 3, 50, len(message)])])
            if dice.random() < 0.5:
                client.h2.reset_stream(number)
                client.flush()
            elif dice.random() < 0.8:
                client.data(number, b"", end_stream=True)
        if kind == 4:
            data, times = FLOODS[dice.choice(sorted(FLOODS))](client)
            client.blind = True
            client.socket.sendall(data[:200_000] * times)
        elif kind == 5:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif kind == 6:
            client.pump(lambda: False, 0.2)
        client.close()

    def work(seed):
        source = random.Random(seed)
        while time.monotonic() < end:
            try:
                one(source)
            except (OSError, AssertionError, h2.exceptions.ProtocolError, KeyError):
                pass  # it was cut: that is what we came for
            if sluice.process.poll() is not None:
                broken.append(seed)
                return

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken, sluice.log()[-4000:]
    wait_for("connections to end", lambda: sluice.metric("sluice_connections_open") == 0)
    wait_for("memory", lambda: sluice.metric("sluice_memory_used_bytes") < 4 << 20)
    assert wire.post(sluice.http_port, "/v1/traces", BODY)[0] == 200
