"""OTLP upstreams: what goes out is what came in, and every way an upstream can fail ends once."""

import concurrent.futures
import random
import ssl
import subprocess
import threading
import time

import grpc
import pytest
from lib import otlp, ports, wire
from lib.relay import Relay
from lib.sluice import wait_for
from lib.upstream import Upstream, retry_info

TRACES = otlp.SERVICES["traces"]
KINDS = pytest.mark.parametrize("http", [False, True], ids=["grpc", "http"])


def config(upstream, http=False, scheme="http", host="127.0.0.1", retry=None, more=None, **settings):
    port = upstream if isinstance(upstream, int) else upstream.port
    return {"destinations": {"up": {
        "otlp": {"endpoint": f"{scheme}://{host}:{port}", "protocol": "http" if http else "grpc",
                 **settings},
        "retry": {"initial": "20ms", "max": "200ms", **(retry or {})}}},
        "routes": [{"to": ["up"]}], **(more or {})}


def send(sluice, message=None, signal="traces"):
    """The stream of one gRPC call."""
    message = message or otlp.request(signal, 2)
    client = wire.Http2(sluice.grpc_port)
    try:
        return client.call(otlp.SERVICES[signal], wire.frame(message.SerializeToString()))
    finally:
        client.close()


def ends(sluice):
    return {name: sluice.metric(f"sluice_{name}_items_total", destination="up")
            for name in ("delivered", "rejected", "returned", "dropped", "lost")
            if sluice.metric(f"sluice_{name}_items_total", destination="up")}


# --- what goes out -------------------------------------------------------------------------------

@KINDS
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_all_signals_arrive(start, http, compression):
    with Upstream(http) as upstream:
        sluice = start(config=config(upstream, http, compression=compression,
                                     tenant_header="X-Scope-OrgID", headers={"X-Fixed": "yes"}))
        for signal in otlp.SIGNALS:
            message = otlp.request(signal, 50)
            assert send(sluice, message, signal).grpc_status == 0
            call = upstream.calls[-1]
            assert upstream.messages(signal)[-1] == message
            assert call.path == (f"/v1/{signal}" if http else otlp.SERVICES[signal])
            assert call.headers["x-scope-orgid"] == "demo" and call.headers["x-fixed"] == "yes"
            coding = call.headers.get("content-encoding" if http else "grpc-encoding", "none")
            assert coding == compression
            upstream.calls.clear()
        if not http:
            assert call.headers["te"] == "trailers" and call.headers["grpc-timeout"] == "10000m"


@KINDS
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_an_untouched_compressed_body_goes_as_it_came(start, http, coding):
    message = otlp.request("traces", 40)
    packed = otlp.compress(coding, message.SerializeToString())
    with Upstream(http) as upstream:
        sluice = start(config=config(upstream, http, compression=coding))
        client = wire.Http2(sluice.grpc_port)
        assert client.call(TRACES, wire.frame(packed, 1), {"grpc-encoding": coding}).grpc_status == 0
        assert wire.post(sluice.http_port, "/v1/traces", packed,
                         headers={"Content-Encoding": coding})[0] == 200
        client.close()
        for call in upstream.calls:
            assert call.body == (packed if http else wire.frame(packed, 1))
        assert len(upstream.calls) == 2


@KINDS
def test_what_cannot_go_as_it_came_is_packed_anew(start, http):
    message = otlp.request("traces", 40)
    body = message.SerializeToString()
    members = otlp.compress("gzip", body[:500]) + otlp.compress("gzip", body[500:])
    with Upstream(http) as upstream:
        sluice = start(config=config(upstream, http, compression="gzip"))
        for sent, kind, coding in (
                (members, "application/x-protobuf", "gzip"),  # some readers stop at one member
                (otlp.compress("zstd", body), "application/x-protobuf", "zstd"),
                (otlp.compress("gzip", otlp.to_json(message)), "application/json", "gzip"),
                (body, "application/x-protobuf", "identity")):
            assert wire.post(sluice.http_port, "/v1/traces", sent, kind,
                             {"Content-Encoding": coding})[0] == 200
            assert upstream.messages()[-1] == message
            assert upstream.calls[-1].body[0 if http else 5:][:2] == b"\x1f\x8b"


def test_to_a_grpc_server(start):
    """grpcio's own server: status, metadata and gzip as another implementation reads them."""
    seen = []

    def export(request, context):
        seen.append((request, dict(context.invocation_metadata()), context.time_remaining()))
        return otlp.RESPONSES["traces"]()

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
        TRACES.split("/")[1], {"Export": grpc.unary_unary_rpc_method_handler(
            export, otlp.REQUESTS["traces"].FromString,
            otlp.RESPONSES["traces"].SerializeToString)}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        sluice = start(config=config(port, compression="gzip", timeout="3s",
                                     tenant_header="X-Scope-OrgID"))
        message = otlp.request("traces", 1000)
        assert send(sluice, message).grpc_status == 0
        assert seen[0][0] == message and seen[0][1]["x-scope-orgid"] == "demo"
        assert 1 < seen[0][2] <= 3
        assert send(sluice, otlp.request("logs"), "logs").grpc_status == 3  # UNIMPLEMENTED there
    finally:
        server.stop(0)


@KINDS
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_sluice_to_sluice(start, http, compression):
    behind = start()
    port = behind.http_port if http else behind.grpc_port
    front = start(config=config(port, http, compression=compression))
    for signal in otlp.SIGNALS:
        messages = [otlp.request(signal, n) for n in (1, 30, 2000)]
        for message in messages:
            assert send(front, message, signal).grpc_status == 0
        assert behind.files(signal) == messages


# --- refusals ------------------------------------------------------------------------------------

@pytest.mark.parametrize("step, wait, again, status", [
    ({"status": 14}, 0, True, 0),
    ({"status": 14, "headers": {"grpc-status-details-bin": retry_info(14, 1)}}, 1, True, 0),
    ({"status": 8}, 0, False, 3),
    ({"status": 8, "headers": {"grpc-status-details-bin": retry_info(8, 1)}}, 1, True, 0),
    ({"status": 3}, 0, False, 3),
    ({"status": 2}, 0, False, 3),
    ({"status": 13}, 0, False, 3),
    ({"status": 16}, 0, False, 3),
    ({"status": 4}, 0, True, 0),
    ({"http": 503, "status": "", "do": "half"}, 0, True, 0),
    ({"do": "half"}, 0, False, 3),
])
def test_grpc_retries_what_may_be_retried(start, step, wait, again, status):
    with Upstream(script=[step]) as upstream:
        sluice = start(config=config(upstream))
        assert send(sluice).grpc_status == status
        assert len(upstream.calls) == 1 + again
        if again:
            assert wait <= upstream.calls[1].at - upstream.calls[0].at < wait + 1
        assert ends(sluice) == ({"rejected": 2} if status else {"delivered": 2})
        assert sluice.metric("sluice_retried_records_total") == again


@pytest.mark.parametrize("step, wait, again", [
    ({"status": 429, "headers": {"Retry-After": "1"}}, 1, True),
    ({"status": 503, "headers": {"Retry-After": "1"}}, 1, True),
    ({"status": 503}, 0, True),
    ({"status": 502}, 0, True),
    ({"status": 504}, 0, True),
    ({"status": 400}, 0, False),
    ({"status": 500, "headers": {"Retry-After": "1"}}, 0, False),
    ({"status": 404}, 0, False),
    ({"status": 301, "headers": {"Location": "http://127.0.0.1:1/"}}, 0, False),
])
def test_http_retries_what_may_be_retried(start, step, wait, again):
    with Upstream(True, [step]) as upstream:
        sluice = start(config=config(upstream, True))
        assert send(sluice).grpc_status == (0 if again else 3)
        assert len(upstream.calls) == 1 + again
        if again:
            assert wait <= upstream.calls[1].at - upstream.calls[0].at < wait + 1
        assert ends(sluice) == ({"delivered": 2} if again else {"rejected": 2})


def test_a_wait_beyond_the_answer_is_the_senders(start):
    """The upstream asks for a minute: the sender is told at once, and how long."""
    step = {"status": 14, "headers": {"grpc-status-details-bin": retry_info(14, 60)}}
    with Upstream(script=[step]) as upstream:
        sluice = start(config=config(upstream))
        began = time.monotonic()
        stream = send(sluice)
        assert stream.grpc_status == 14 and stream.retry_delay >= 60
        assert time.monotonic() - began < 1 and len(upstream.calls) == 1
        assert ends(sluice) == {"returned": 2}


@KINDS
def test_partial_success_is_counted_and_passed_on(start, http):
    answer = otlp.RESPONSES["traces"]()
    answer.partial_success.rejected_spans = 2
    answer.partial_success.error_message = "too long " * 100
    with Upstream(http, [{"body": answer.SerializeToString()}]) as upstream:
        sluice = start(config=config(upstream, http))
        stream = send(sluice, otlp.request("traces", 5))
        assert stream.grpc_status == 0 and len(upstream.calls) == 1
        told = otlp.RESPONSES["traces"].FromString(stream.data[5:]).partial_success
        assert told.rejected_spans == 2 and told.error_message
        assert sluice.metric("sluice_partially_rejected_items_total", destination="up") == 2
        assert ends(sluice) == {"delivered": 5}


# --- failures ------------------------------------------------------------------------------------

@pytest.mark.parametrize("do", ["close", "head", "reset", "goaway", "late_goaway", "garbage"])
def test_grpc_connections_break(start, do):
    with Upstream(script=[{}, {"do": do}]) as upstream:
        sluice = start(config=config(upstream))
        for _ in range(4):
            assert send(sluice).grpc_status == 0
        assert len(upstream.calls) == (4 if do == "late_goaway" else 5)
        assert ends(sluice) == {"delivered": 8}


@pytest.mark.parametrize("do", ["close", "head", "half", "garbage"])
def test_http_connections_break(start, do):
    with Upstream(True, [{}, {"do": do}]) as upstream:
        sluice = start(config=config(upstream, True))
        for _ in range(4):
            assert send(sluice).grpc_status == 0
        assert len(upstream.calls) == 5
        assert ends(sluice) == {"delivered": 8}


@KINDS
def test_nobody_listens_yet(start, http):
    port = ports.free()[0]
    sluice = start(config=config(port, http))
    result = []
    thread = threading.Thread(target=lambda: result.append(send(sluice).grpc_status))
    thread.start()
    time.sleep(0.5)
    with Upstream(http, port=port):
        thread.join()
        assert result == [0] and ends(sluice) == {"delivered": 2}


@KINDS
def test_an_outage_is_a_pair_of_lines(start, http):
    """However many calls fail in it; the next pair is a minute away, its calls counted all the same."""
    port = ports.free()[0]
    sluice = start(config=config(port, http, more={"answer_within": "1s"}))

    def told():
        return [line.split("event=")[1].split()[0] for line in sluice.log().splitlines()
                if "event=otlp_" in line]

    for outage in range(2):
        assert [send(sluice).grpc_status for _ in range(2)] == [14, 14]
        with Upstream(http, port=port):
            wait_for("the upstream", lambda: send(sluice).grpc_status == 0)
        assert told() == ["otlp_failed", "otlp_delivers_again"], outage
    lines = [line for line in sluice.log().splitlines() if "event=otlp_" in line]
    assert "how=unreachable" in lines[0] and "count=1 untold=0" in lines[0]
    assert int(lines[1].split("count=")[1]) > 2  # attempts, none of which had a line


@KINDS
def test_nobody_ever_listens(start, http):
    sluice = start(config=config(ports.free()[0], http, more={"answer_within": "1s"}))
    began = time.monotonic()
    stream = send(sluice)
    assert stream.grpc_status == 14 and stream.retry_delay > 0
    assert time.monotonic() - began < 3.9  # not at the preset
    wait_for("the end", lambda: ends(sluice) == {"returned": 2})


@KINDS
def test_a_silent_upstream_is_cut_at_the_timeout(start, http):
    with Upstream(http, [{"do": "silent"}]) as upstream:
        sluice = start(config=config(upstream, http, timeout="300ms"))
        assert send(sluice).grpc_status == 0
        assert 0.25 < upstream.calls[1].at - upstream.calls[0].at < 5
        assert ends(sluice) == {"delivered": 2}


@KINDS
def test_a_slow_upstream_is_answered_in_time_and_booked_late(start, http):
    with Upstream(http, [{"delay": 1.5}]) as upstream:
        sluice = start(config=config(upstream, http, more={"answer_within": "500ms"}))
        stream = send(sluice)
        assert stream.grpc_status == 14 and stream.retry_delay > 0
        wait_for("the late end", lambda: ends(sluice) == {"delivered": 2})
        assert len(upstream.calls) == 1


@KINDS
def test_best_effort_never_delays_the_answer(start, http):
    with Upstream(http, [{"delay": 5}]) as upstream:
        settings = config(upstream, http)
        settings["destinations"]["file"] = {"blackhole": {}}
        settings["routes"] = [{"to": ["file", {"destination": "up", "required": False}]}]
        sluice = start(config=settings)
        began = time.monotonic()
        assert send(sluice).grpc_status == 0
        assert time.monotonic() - began < 3
        wait_for("the late end", lambda: ends(sluice) == {"delivered": 2})


@KINDS
def test_what_was_acknowledged_early_and_given_up_is_lost_and_said_so(start, http):
    sluice = start(config=config(ports.free()[0], http, retry={"max_elapsed": "700ms"},
                                 more={"acknowledge": "queued"}))
    assert send(sluice).grpc_status == 0
    wait_for("the end", lambda: ends(sluice) == {"lost": 2})


@pytest.mark.shards
@KINDS
def test_a_reload_lets_what_is_in_flight_end_where_it_is(start, http):
    gate, more = threading.Event(), {"timeout": "60s", "more": {"answer_within": "60s"}}
    with (Upstream(http, [lambda: gate.wait(60) and {}]) as before, Upstream(http) as after):
        sluice = start(shards=2, config=config(before, http, **more))
        result = []
        thread = threading.Thread(target=lambda: result.append(send(sluice).grpc_status))
        thread.start()
        wait_for("the call", lambda: len(before.calls) == 1)
        sluice.config.update(config(after, http, **more))
        sluice.reload()
        assert send(sluice).grpc_status == 0 and not result
        assert len(after.calls) == 1 and len(before.calls) == 1
        # Only a destination that outlives its configuration tells of its end.
        wait_for("the old configuration to go",
                 lambda: sluice.metric("sluice_config_retired_snapshots") == 0)
        gate.set()
        thread.join()
        assert result == [0] and ends(sluice) == {"delivered": 4}
        wait_for("the old one to close", lambda: "destination_closed" in sluice.log())


def test_concurrency_is_bounded(start):
    running, most, lock = 0, 0, threading.Lock()

    def export(request, context):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1
        return b""

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
        TRACES.split("/")[1], {"Export": grpc.unary_unary_rpc_method_handler(export)}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        sluice = start(config=config(port, concurrency=3))
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            found = list(pool.map(lambda _: send(sluice).grpc_status, range(48)))
        assert found == [0] * 48 and most == 3
    finally:
        server.stop(0)


@pytest.mark.shards
@KINDS
def test_nothing_is_lost_and_nothing_ends_twice(start, http):
    """An upstream that fails one call in three, in every way it can."""
    chance = random.Random(1)
    bad = [{"do": "close"}, {"do": "head"}, {"do": "garbage"}, {"status": 503 if http else 14},
           {"delay": 0.3}, {"do": "silent"}, {"status": 400 if http else 3}]
    if not http:
        bad += [{"do": "reset"}, {"do": "goaway"}, {"do": "late_goaway"}]

    def step():
        return chance.choice(bad) if chance.random() < 0.33 else {}

    with Upstream(http, [step] * 100000) as upstream:
        sluice = start(shards=2, config=config(upstream, http, timeout="200ms",
                                               more={"answer_within": "1s"}))
        acknowledged, lock, statuses = set(), threading.Lock(), []

        def work(_):
            client = wire.Http2(sluice.grpc_port)
            for _ in range(40):
                message = otlp.request("traces", 3)
                stream = client.call(TRACES, wire.frame(message.SerializeToString()))
                with lock:
                    statuses.append(stream.grpc_status)
                    if stream.grpc_status == 0:
                        acknowledged.update(
                            s.span_id for s in message.resource_spans[0].scope_spans[0].spans)
            client.close()

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert len(statuses) == 320 and set(statuses) <= {0, 3, 14} and statuses.count(0) > 100
        found = {s.span_id for m in upstream.messages() for rs in m.resource_spans
                 for ss in rs.scope_spans for s in ss.spans}
        assert acknowledged <= found
        wait_for("all ends", lambda: sluice.metric("sluice_destination_in_flight_items") == 0)
        assert sum(ends(sluice).values()) == 960


# --- TLS -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA and a certificate for the name localhost only, and a CA that signed nothing."""
    folder = tmp_path_factory.mktemp("upstream-tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out",
                f"{name}.pem", "-subj", f"/CN={name}", "-days", "2")
    (folder / "ext").write_text("subjectAltName=DNS:localhost\n")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr",
            "-subj", "/CN=localhost")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", "server.pem", "-days", "2", "-extfile", "ext")
    return folder


@KINDS
@pytest.mark.parametrize("host, tls, wanted", [
    ("localhost", {"ca_file": "ca.pem"}, 0),
    ("127.0.0.1", {"ca_file": "ca.pem"}, 14),  # not a name of the certificate
    ("localhost", {"ca_file": "other.pem"}, 14),
    ("localhost", None, 14),  # the system's store does not know it
    ("127.0.0.1", {"verify": False}, 0),
])
def test_tls_verifies(start, certificates, http, host, tls, wanted):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.set_alpn_protocols(["http/1.1"] if http else ["h2"])
    if tls and "ca_file" in tls:
        tls = dict(tls, ca_file=str(certificates / tls["ca_file"]))
    with Upstream(http, tls=context) as upstream:
        sluice = start(config=config(upstream, http, "https", host, more={"answer_within": "1s"},
                                     **({"tls": tls} if tls else {})))
        message = otlp.request("traces", 3000)
        assert send(sluice, message).grpc_status == wanted
        assert upstream.messages() == ([] if wanted else [message])
        wait_for("the end", lambda: ends(sluice) == {"returned" if wanted else "delivered": 3000})


@KINDS
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(start, certificates, http, version):
    """Each connection but the first, as the server counts them; not with what was kept under other
    settings."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.set_alpn_protocols(["http/1.1"] if http else ["h2"])
    context.minimum_version = context.maximum_version = version
    with Upstream(http, tls=context, judge=lambda _: {"do": "close"} if closes[0] else {}) as upstream:
        closes = [False]
        sluice = start(config=config(upstream, http, "https", "localhost", connections=1,
                                     tls={"ca_file": str(certificates / "ca.pem")}))
        assert send(sluice).grpc_status == 0
        for count in range(2, 8):
            closes[0] = True
            thread = threading.Thread(target=send, args=(sluice,))
            thread.start()
            wait_for("another connection", lambda: len(upstream.resumed) >= count)
            closes[0] = False
            thread.join()
        assert send(sluice).grpc_status == 0
        assert upstream.resumed == [False] + [True] * (len(upstream.resumed) - 1)

        def handshakes(kind):
            return sluice.metric("sluice_endpoint_tls_handshakes_total", kind=kind,
                                 endpoint=f"127.0.0.1:{upstream.port}")
        assert handshakes("whole") == 1 and handshakes("resumed") == len(upstream.resumed) - 1
        before = len(upstream.resumed)
        sluice.config["destinations"]["up"]["otlp"]["headers"] = {"x-other": "1"}
        sluice.write_config()
        sluice.reload()
        wait_for("the new settings",
                 lambda: send(sluice).grpc_status == 0 and len(upstream.resumed) > before)
        assert not upstream.resumed[before]


def test_a_server_that_speaks_with_its_finished(start, certificates):
    """Under TLS 1.2 the server ends the handshake: its SETTINGS may come in the same piece."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.set_alpn_protocols(["h2"])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with Upstream(tls=context) as upstream, Relay(upstream.port, gather=0.1) as relay:
        sluice = start(config=config(relay, False, "https", "localhost", connections=1,
                                     tls={"ca_file": str(certificates / "ca.pem")}))
        assert send(sluice).grpc_status == 0
        assert len(upstream.calls) == upstream.connections == 1


def test_a_new_ca_file_is_taken_up(start, certificates, tmp_path):
    """The settings are the same; the file they name is not."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.set_alpn_protocols(["h2"])
    ca = tmp_path / "ca.pem"
    ca.write_bytes((certificates / "other.pem").read_bytes())
    with Upstream(tls=context) as upstream:
        sluice = start(config=config(upstream, False, "https", "localhost", tls={"ca_file": str(ca)},
                                     more={"answer_within": "500ms"}))
        assert send(sluice).grpc_status == 14
        ca.write_bytes((certificates / "ca.pem").read_bytes())
        wait_for("the reload", lambda: sluice.metric("sluice_config_reloads_total") >= 1)
        wait_for("the new trust", lambda: send(sluice).grpc_status == 0)
