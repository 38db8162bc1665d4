"""Every limit of a connection and a request: its refusal, its metric, and that it harms nobody else."""

import socket
import ssl
import subprocess
import threading
import time

import h2.settings
import pytest
from lib import otlp, wire
from lib.sluice import ROOT, Sluice, wait_for

TRACES = otlp.SERVICES["traces"]
BODY = otlp.request("traces", 2).SerializeToString()
HEAD = (b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/x-protobuf\r\n")
BODY_MAX = 1 << 20
SLACK = 512 * 1024  # pools keep their slabs
CONNECTIONS = 40
PRESETS = {  # what REFERENCE.md promises, and every dashboard relies on
    "body_bytes": "16MiB", "header_bytes": "8KiB", "connections": "100k", "streams": "1024",
    "items": "0", "value_depth": "64", "json_depth": "200", "connection_share": "16",
    "idle_timeout": "5m", "header_timeout": "10s", "body_timeout": "15s",
    "body_rate_min": "1KiB/s", "age_max": "0s", "age_grace": "30s",
}


@pytest.fixture(scope="module")
def tight(tmp_path_factory):
    """One gateway with every limit within a test's reach; its TLS listener takes `http_port`."""
    folder = tmp_path_factory.mktemp("tight")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout",
                    folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=localhost",
                    "-days", "30"], check=True, capture_output=True)
    sluice = Sluice(folder / "sluice", config={
        "limits": {"body_bytes": BODY_MAX, "header_bytes": 2048, "connections": CONNECTIONS,
                   "streams": 8, "items": 100, "value_depth": 8, "json_depth": 20},
        "connection": {"header_timeout": "1s", "body_timeout": "1s", "body_rate_min": "100KiB/s",
                       "idle_timeout": "30s"},
        "memory_budget": "8MiB",
    })
    sluice.config["listen"][1] = {
        "address": sluice.config["listen"][1],
        "tls": {"certificates": [{"certificate_file": str(folder / "cert.pem"),
                                  "key_file": str(folder / "key.pem")}]}}
    sluice.start()
    yield sluice
    sluice.stop()


@pytest.fixture(autouse=True)
def unharmed(request):
    """After each test: others are served, memory is back, connections are counted right."""
    if "tight" not in request.fixturenames:
        yield
        return
    sluice = request.getfixturevalue("tight")
    before = sluice.metric("sluice_memory_used_bytes")
    assert sluice.metric("sluice_connections_open") == 0
    yield
    wait_for("connections to end", lambda: sluice.metric("sluice_connections_open") < CONNECTIONS)
    assert wire.post(sluice.grpc_port, "/v1/traces", BODY)[0] == 200
    wait_for("connections to be closed", lambda: sluice.metric("sluice_connections_open") == 0)
    wait_for("memory to be back",
             lambda: sluice.metric("sluice_memory_used_bytes") <= before + SLACK)


def counted(sluice, protocol, code):
    return sluice.metric("sluice_requests_total", protocol=protocol, code=code)


def test_presets(tight):
    text = (ROOT / "config/REFERENCE.md").read_text()
    rows = [line.split("|") for section in ("limits", "connection")
            for line in text.split(f"\n## {section}\n")[1].split("\n## ")[0].splitlines()
            if line.startswith("| `")]
    found = {row[1].strip(" `"): row[3].strip(" `") for row in rows}
    for name, preset in PRESETS.items():
        assert found[name] == preset, name


@pytest.mark.parametrize("size, compressed", [(BODY_MAX + 1, False), (1 << 30, False),
                                              (BODY_MAX + 1, True)])
def test_body(tight, size, compressed):
    before = counted(tight, "http/protobuf", "413"), counted(tight, "grpc", "RESOURCE_EXHAUSTED")
    coding = {"Content-Encoding": "gzip"} if compressed else {}
    body = otlp.compress("gzip", bytes(size)) if compressed else None
    client = wire.Http1(tight.grpc_port)
    if body:
        status = wire.post(tight.grpc_port, "/v1/traces", body, headers=coding)[0]
    else:
        client.send(HEAD + b"Content-Length: %d\r\n\r\n" % size)  # refused by its head
        status = client.read_response()[0]
    assert status == 413
    client.close()
    client = wire.Http2(tight.grpc_port)
    number = client.start(TRACES, {"grpc-encoding": "gzip"} if compressed else None)
    prefix = wire.frame(body, 1) if body else (b"\0" + size.to_bytes(4, "big"))
    client.data(number, prefix, end_stream=compressed)
    stream = client.finish(number)
    assert stream.grpc_status == 8
    assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0  # the connection goes on
    client.close()
    after = counted(tight, "http/protobuf", "413"), counted(tight, "grpc", "RESOURCE_EXHAUSTED")
    assert [b - a for a, b in zip(before, after)] == [1, 1]


def test_body_of_the_largest_size(tight):
    filler = otlp.request("logs", 1)
    record = filler.resource_logs[0].scope_logs[0].log_records[0]
    record.body.string_value = "x" * (BODY_MAX - len(filler.SerializeToString()) - 20)
    while len(filler.SerializeToString()) < BODY_MAX:
        record.body.string_value += "x"
    body = filler.SerializeToString()
    assert len(body) == BODY_MAX
    for extra, status in ((b"", 200), (b"x", 413)):
        assert wire.post(tight.grpc_port, "/v1/logs", body + extra)[0] == status
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in
                      (body[at:at + 60000] for at in range(0, len(body), 60000)))
    client = wire.Http1(tight.grpc_port)
    client.send(HEAD.replace(b"traces", b"logs") + b"Transfer-Encoding: chunked\r\n\r\n" + chunks +
                b"0\r\n\r\n")
    assert client.read_response()[0] == 200
    client.close()


def test_header(tight):
    client = wire.Http1(tight.grpc_port)
    client.send(HEAD + b"X-Filler: " + b"a" * 4000 + b"\r\n\r\n")
    assert client.read_response()[0] == 431
    assert client.closed()
    client.close()
    client = wire.Http2(tight.grpc_port)
    stream = client.finish(client.start(TRACES, {"x-filler": "a" * 4000}))
    assert stream.headers[":status"] == "431"
    assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
    client.close()


def test_connections(tight):
    refused = tight.metric("sluice_connections_refused_total")
    clients = [wire.Http2(tight.grpc_port) for _ in range(CONNECTIONS)]
    for client in clients:
        assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
    assert tight.metric("sluice_connections_open") == CONNECTIONS
    for _ in range(3):
        more = wire.Http1(tight.grpc_port)
        assert more.closed()
        more.close()
    assert tight.metric("sluice_connections_refused_total") == refused + 3
    for client in clients:  # those that are open go on
        assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
    clients.pop().close()
    wait_for("room", lambda: tight.metric("sluice_connections_open") == CONNECTIONS - 1)
    assert wire.post(tight.grpc_port, "/v1/traces", BODY)[0] == 200
    for client in clients:
        client.close()


def test_streams(tight):
    client = wire.Http2(tight.grpc_port)
    client.pump(lambda: client.h2.remote_settings.max_concurrent_streams == 8)
    client.h2.remote_settings.update({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 100})
    client.h2.remote_settings.acknowledge()
    numbers = [client.start(TRACES) for _ in range(12)]
    client.pump(lambda: all(client.streams[number].reset is not None for number in numbers[8:]))
    refused = [number for number in numbers if client.streams[number].reset is not None]
    assert refused == numbers[8:]
    assert {client.streams[number].reset for number in refused} == {7}  # REFUSED_STREAM
    for number in numbers[:8]:
        client.data(number, wire.frame(BODY), end_stream=True)
        assert client.finish(number).grpc_status == 0
    client.close()


@pytest.mark.parametrize("head", [b"", b"P", b"POST /v1/tra", HEAD, HEAD + b"Content-Le"])
def test_head_that_never_ends(tight, head):
    client = wire.Http1(tight.grpc_port)
    client.send(head)
    began = time.monotonic()
    assert client.closed()
    assert time.monotonic() - began > 0.9
    client.close()


def test_head_that_trickles(tight):
    """A byte now and then does not put the timeout off, on a fresh connection or a kept one."""
    fresh, kept = wire.Http1(tight.grpc_port), wire.Http1(tight.grpc_port)
    kept.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    assert kept.read_response()[0] == 200
    for client in (fresh, kept):
        client.send(b"P")
    left = {fresh, kept}
    for byte in b"OST /v1/traces HTTP/1.1\r\nX-Slow: " + b"a" * 200:
        for client in list(left):
            try:
                client.send(bytes([byte]))
            except OSError:
                left.discard(client)
            if client in left and client.closed(0.01):
                left.discard(client)
        if not left:
            break
        time.sleep(0.1)
    assert not left
    fresh.close()
    kept.close()


def test_head_behind_a_whole_request_must_end_too(tight):
    client = wire.Http1(tight.grpc_port)
    client.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY + b"POST /v1")
    assert client.read_response()[0] == 200
    assert client.closed()
    client.close()


def test_kept_connection_is_not_in_its_head(tight):
    """What follows an early refusal is discarded; the idle connection then lives on."""
    client = wire.Http1(tight.grpc_port)
    client.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    assert client.read_response()[0] == 404
    client.send(bytes(1000))
    assert not client.closed(2.5)
    client.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    assert client.read_response()[0] == 200
    client.close()


def test_handshake_that_stalls(tight):
    failures = tight.metric("sluice_tls_failures_total")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    hello, incoming = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, hello, server_hostname="localhost").do_handshake()
    first = hello.read()
    clients = []
    for part in (b"", first[:20], first):
        clients.append(wire.Http1(tight.http_port))
        clients[-1].send(part)
    for client in clients:
        assert client.closed()
        client.close()
    broken = wire.Http1(tight.http_port)
    broken.send(b"GET / HTTP/1.1\r\n\r\n")
    assert broken.closed()
    broken.close()
    assert tight.metric("sluice_tls_failures_total") > failures


@pytest.mark.parametrize("sent", [0, 10])
def test_body_that_stops(tight, sent):
    before = tight.metric("sluice_slow_bodies_total")
    client = wire.Http1(tight.grpc_port)
    client.send(HEAD + b"Content-Length: 1000\r\n\r\n" + bytes(sent))
    status, headers, _ = client.read_response()
    assert status == 408 and headers["connection"] == "close"
    assert client.closed()
    client.close()
    client = wire.Http2(tight.grpc_port)
    number = client.start(TRACES)
    client.data(number, (b"\0\0\0\x03\xe8" + bytes(sent)) if sent else b"")
    assert client.finish(number).grpc_status == 4
    assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
    client.close()
    assert tight.metric("sluice_slow_bodies_total") == before + 2


def test_body_that_trickles(tight):
    """Progress alone is not enough: the minimum rate counts."""
    before = tight.metric("sluice_slow_bodies_total")
    http1, http2 = wire.Http1(tight.grpc_port), wire.Http2(tight.grpc_port)
    http1.send(HEAD + b"Content-Length: 100000\r\n\r\n")
    number = http2.start(TRACES)
    http2.data(number, b"\0" + (100000).to_bytes(4, "big"))
    began = time.monotonic()
    while tight.metric("sluice_slow_bodies_total") < before + 2:
        assert time.monotonic() - began < 30
        try:
            http1.send(b"x" * 10)
        except OSError:
            pass
        if http2.streams[number].reset is None:
            http2.data(number, b"x" * 10)
        time.sleep(0.2)
    assert http1.read_response()[0] == 408
    assert http2.finish(number).grpc_status == 4
    http1.close()
    http2.close()


def test_body_that_trickles_at_its_end(start):
    """What came fast at first is no credit: else it would do for an hour, and hold its memory."""
    sluice = start(config={"connection": {"body_timeout": "2s"}})
    size = 4 * 2**20
    http1, http2 = wire.Http1(sluice.http_port), wire.Http2(sluice.grpc_port)
    http1.send(HEAD + b"Content-Length: %d\r\n\r\n" % size + bytes(size - 1000))
    number = http2.start(TRACES)
    http2.data(number, b"\0" + size.to_bytes(4, "big") + bytes(size - 1000))
    for _ in range(900):
        if http2.streams[number].grpc_status is not None:
            break
        http2.data(number, b"x")
        try:
            http1.send(b"x")
        except OSError:
            pass
        time.sleep(0.05)
    assert http2.streams[number].grpc_status == 4
    assert http1.read_response()[0] == 408
    assert sluice.metric("sluice_slow_bodies_total") == 2
    http1.close()
    http2.close()


def test_answers_that_are_not_read(tight):
    """A client that pipelines and never reads is cut; its neighbour notices nothing."""
    with socket.create_connection(("127.0.0.1", tight.grpc_port)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.settimeout(0.5)
        one = (b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
               b"Content-Length: 1\r\n\r\n{")
        began = time.monotonic()
        try:
            while time.monotonic() - began < 10:
                deaf.send(one * 50)
        except TimeoutError:
            pass
        except OSError:
            return
        wait_for("the cut", lambda: tight.metric("sluice_connections_open") == 0)


def test_answers_without_a_window(tight):
    """HTTP/2: a stream window of zero holds an answer back only for so long."""
    client = wire.Http2(tight.grpc_port, {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    numbers = [client.start(TRACES) for _ in range(8)]
    for number in numbers:
        client.data(number, wire.frame(BODY), end_stream=True)
    for number in numbers:
        stream = client.finish(number)
        assert stream.headers[":status"] == "200"
        assert stream.reset is not None, "held for ever"
    client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    client.flush()
    assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
    client.close()


def test_items(tight):
    for signal in otlp.SIGNALS:
        for items, status, grpc in ((100, 200, 0), (101, 413, 8)):
            body = otlp.request(signal, items).SerializeToString()
            assert wire.post(tight.grpc_port, f"/v1/{signal}", body)[0] == status
            client = wire.Http2(tight.grpc_port)
            assert client.call(otlp.SERVICES[signal], wire.frame(body)).grpc_status == grpc
            client.close()


@pytest.mark.parametrize("depth, status", [(6, 200), (50, 400), (5000, 400)])
def test_value_depth(tight, depth, status):
    value = b""
    for _ in range(depth):  # AnyValue{array_value{values{...}}}
        value = b"\x0a" + varint(len(value)) + value
        value = b"\x2a" + varint(len(value)) + value
    record = b"\x2a" + varint(len(value)) + value
    for tag in (b"\x12", b"\x12", b"\x0a"):
        record = tag + varint(len(record)) + record
    assert wire.post(tight.grpc_port, "/v1/logs", record)[0] == status


def varint(number):
    out = b""
    while number > 0x7f:
        out += bytes([number & 0x7f | 0x80])
        number >>= 7
    return out + bytes([number])


@pytest.mark.parametrize("text, status", [
    (b'{"x":' + b"[" * 10 + b"]" * 10 + b"}", 200),
    (b'{"x":' + b"[" * 40 + b"]" * 40 + b"}", 400),
    (b'{"x":' + b"[" * 400000, 400),
    (b'{"x":' * 100000, 400),
])
def test_json_depth(tight, text, status):
    assert wire.post(tight.grpc_port, "/v1/traces", text, "application/json")[0] == status


def test_idle(start):
    """An idle connection goes, whatever it speaks; one with a call in progress stays."""
    sluice = start(config={"connection": {"idle_timeout": "1s"}})
    kept, gone = wire.Http1(sluice.http_port), wire.Http2(sluice.grpc_port)
    kept.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    assert kept.read_response()[0] == 200
    busy = wire.Http2(sluice.grpc_port)
    number = busy.start(TRACES)
    assert kept.closed()
    assert gone.pump(lambda: gone.closed) and gone.goaways[-1].additional_data == b"max_idle"
    busy.data(number, wire.frame(BODY), end_stream=True)
    assert busy.finish(number).grpc_status == 0
    for client in (kept, gone, busy):
        client.close()
    wait_for("the end", lambda: sluice.metric("sluice_connections_open") == 0)


def test_many_at_their_limits_at_once(tight):
    """Slow heads, slow bodies and silent ones together hold nobody up."""
    slow = []
    for index in range(30):
        client = wire.Http1(tight.grpc_port)
        client.send((b"", HEAD, HEAD + b"Content-Length: 1000000\r\n\r\nx")[index % 3])
        slow.append(client)
    worst = 0
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        began = time.monotonic()
        status = wire.post(tight.grpc_port, "/v1/traces", BODY)[0]
        worst = max(worst, time.monotonic() - began)
        assert status in (200, 503)
        time.sleep(0.05)
    assert worst < 5
    threads = [threading.Thread(target=client.closed) for client in slow]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in slow:
        client.close()
