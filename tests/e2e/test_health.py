"""gRPC's health service on the listeners: what load balancers and other gateways ask."""

import time

import grpc
import pytest
from lib import otlp, wire
from lib.sluice import wait_for
from test_endpoints import send

SERVICE = "/grpc.health.v1.Health/"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"


def ask(sluice, service="", method="Check"):
    """The raw answer, as grpcio's own client reads it."""
    request = bytes([10, len(service)]) + service.encode() if service else b""
    with grpc.insecure_channel(f"{sluice.host}:{sluice.grpc_port}") as channel:
        return channel.unary_unary(SERVICE + method)(request, timeout=10)


@pytest.mark.parametrize("service", ["", *(path.split("/")[1] for path in otlp.SERVICES.values())])
def test_it_serves(start, service):
    assert ask(start(), service) == SERVING


@pytest.mark.parametrize("service, method, code", [
    ("nobody.knows.It", "Check", grpc.StatusCode.NOT_FOUND),
    ("x" * 120, "Check", grpc.StatusCode.NOT_FOUND),
    ("", "List", grpc.StatusCode.UNIMPLEMENTED),
])
def test_what_is_not_there(start, service, method, code):
    with pytest.raises(grpc.RpcError) as error:
        ask(start(), service, method)
    assert error.value.code() == code


@pytest.mark.parametrize("message, code", [
    (b"\x18\x07" + b"\x15abcd" + b"\x1a\x02xy" + b"\x21" + b"12345678", 0),  # fields to come
    (b"\x0a\x01x" + b"\x0a\x00", 0),  # the last one counts
    (b"\x0a\x05x", 13), (b"\x0b", 13), (b"\x80", 13),
], ids=repr)
def test_how_it_reads(shared, message, code):
    client = wire.Http2(shared.grpc_port)
    assert client.call(SERVICE + "Check", wire.frame(message)).grpc_status == code
    client.close()


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd", "deflate"])
def test_it_reads_every_coding(shared, coding):
    """A channel that compresses all it sends asks for health too."""
    client = wire.Http2(shared.grpc_port)
    name = otlp.SERVICES["logs"].split("/")[1].encode()
    for service, status in ((name, 0), (name + b"x", 5)):
        message = otlp.compress(coding, bytes([10, len(service)]) + service)
        for flag in {0, int(coding != "identity")}:
            body = message if flag else bytes([10, len(service)]) + service
            stream = client.call(SERVICE + "Check", wire.frame(body, flag),
                                 {"grpc-encoding": coding})
            assert stream.grpc_status == status
            assert stream.data == (wire.frame(SERVING) if status == 0 else b"")
    for wrong in (b"", b"no such bytes", otlp.compress("gzip", bytes(10000))):
        assert client.call(SERVICE + "Check", wire.frame(wrong, 1),
                           {"grpc-encoding": coding}).grpc_status == 13
    for none in (b"", wire.frame(b"") * 2):
        assert client.call(SERVICE + "Check", none).grpc_status == 12  # item 20
    client.close()


class Watcher:
    """One Watch as grpcio's own client sees it: what it was told, and how it ended."""

    def __init__(self, channel, service=""):
        request = bytes([10, len(service)]) + service.encode() if service else b""
        self.call = channel.unary_stream(SERVICE + "Watch")(request, timeout=60)

    def next(self):
        return next(self.call)

    def end(self):
        with pytest.raises(grpc.RpcError) as error:
            next(self.call)
        return error.value.code()


def test_a_watch_is_told_what_changes(start):
    """SERVING at once, NOT_SERVING when a drain is announced; it ends with its connection, before
    drain_timeout: a watch holds up nothing."""
    sluice = start(config={"drain_delay": "1h", "drain_timeout": "50s"})
    with grpc.insecure_channel(f"{sluice.host}:{sluice.grpc_port}") as channel:
        watchers = [Watcher(channel), Watcher(channel, "nobody.knows.It"),
                    Watcher(channel, next(iter(otlp.SERVICES.values())).split("/")[1])]
        assert [one.next() for one in watchers] == [SERVING, SERVICE_UNKNOWN, SERVING]
        assert sluice.admin("/drain", "POST")[0] == 202
        assert [watchers[0].next(), watchers[2].next()] == [NOT_SERVING, NOT_SERVING]
        assert sluice.metric("sluice_connections_open") == 1  # told before its connection is
        sluice.config["drain_delay"] = "0s"
        sluice.reload()
        assert {one.end() for one in watchers} == {grpc.StatusCode.UNAVAILABLE}
        wait_for("the connection to go", lambda: sluice.metric("sluice_connections_open") == 0)
    assert sluice.metric("sluice_requests_total") == 0  # in no books
    sluice.stop(check_books=False)


def watch(client):
    number = client.start(SERVICE + "Watch")
    client.data(number, wire.frame(b""), end_stream=True)
    return number


def test_watches_are_cut_off_by_who_asked_for_them(start):
    """A cancelled watch is forgotten: the place it had is free again."""
    sluice = start()
    client = wire.Http2(sluice.grpc_port)
    for _ in range(3):
        numbers = [watch(client) for _ in range(8)]
        client.pump(lambda: all(client.streams[n].data == wire.frame(SERVING) for n in numbers))
        assert client.call(SERVICE + "Watch", wire.frame(b"")).grpc_status == 8  # no ninth
        assert client.call(SERVICE + "Check", wire.frame(b"")).data == wire.frame(SERVING)
        for number in numbers:
            client.h2.reset_stream(number, 8)
        client.flush()
    # One message, and one that decodes: as Check (item 20).
    assert client.call(SERVICE + "Watch", b"").grpc_status == 12
    assert client.call(SERVICE + "Watch", wire.frame(b"\x0a\x05x")).grpc_status == 13
    client.close()


def test_a_watch_keeps_no_connection(start):
    """Who only watches is idle; and one whose connection is too old is told to ask anew."""
    for connection in ({"idle_timeout": "1s"}, {"age_max": "1s", "age_grace": "50s"}):
        sluice = start(config={"connection": connection})
        client = wire.Http2(sluice.grpc_port)
        number = watch(client)
        client.pump(lambda: client.streams[number].data == wire.frame(SERVING))
        wait_for("the end", lambda: sluice.metric("sluice_connections_open") == 0)
        client.close()
        sluice.stop()


def test_a_watch_that_takes_nothing_holds_up_no_drain(start):
    """Its window is shut from the first byte on: what it would be told is not waited for."""
    sluice = start(config={"drain_timeout": "2m"})
    client = wire.Http2(sluice.grpc_port)
    client.h2.update_settings({4: 0})  # SETTINGS_INITIAL_WINDOW_SIZE
    client.flush()
    watch(client)
    wait_for("the watch", lambda: sluice.metric("sluice_connections_open") == 1)
    begin = time.monotonic()
    sluice.stop()
    assert time.monotonic() - begin < 60
    client.close()


def test_a_gateway_watches_another(start):
    """The news comes at once: the interval between checks is an hour."""
    behind = start(config={"drain_delay": "1h"})
    front = start(config={
        "destinations": {"up": {"otlp": {
            "endpoint": f"http://{behind.host}:{behind.grpc_port}",
            "health": {"check": "grpc_watch", "interval": "1h", "up": 1, "down": 1}}}},
        "routes": [{"to": ["up"]}]})
    assert send(front).grpc_status == 0
    healthy = lambda: front.metric("sluice_endpoint_healthy_shards")
    wait_for("it to be healthy", lambda: healthy() == 1)
    behind.admin("/drain", "POST")
    wait_for("it to be seen", lambda: healthy() == 0)
    behind.clean = False
    behind.kill()


def test_it_needs_no_tenant_and_costs_nothing(start):
    """Where every sender must say who he is, a prober need not; it is in no books."""
    sluice = start(config={"tenants": {"file": "tenants.yaml", "identify": ["credential"],
                                       "unknown": "refuse"}})
    assert ask(sluice) == SERVING
    assert sluice.metric("sluice_requests_total") == 0
    assert sluice.metric("sluice_refused_requests_total") == 0


def test_it_says_so_before_it_drains(start):
    sluice = start(config={"drain_delay": "3s"})
    with grpc.insecure_channel(f"{sluice.host}:{sluice.grpc_port}") as channel:
        check = channel.unary_unary(SERVICE + "Check")
        assert check(b"", timeout=10) == SERVING
        assert sluice.admin("/drain", "POST")[0] == 202
        assert sluice.admin("/readyz")[0] == 503
        wait_for("it to say so", lambda: check(b"", timeout=10) == NOT_SERVING)
    sluice.stop(check_books=False)


def test_one_gateway_checks_another(start):
    """What drains is left before its connections are."""
    behind = [start(config={"drain_delay": delay}) for delay in ("1h", "0s")]
    front = start(config={
        "destinations": {"up": {"otlp": {
            "endpoints": [f"http://{one.host}:{one.grpc_port}" for one in behind],
            "health": {"check": "grpc", "interval": "50ms"}}}},
        "routes": [{"to": ["up"]}]})
    for _ in range(10):
        assert send(front).grpc_status == 0
    assert all(one.metric("sluice_received_items_total") > 0 for one in behind)
    behind[0].admin("/drain", "POST")
    wait_for("it to be seen", lambda: front.metric(
        "sluice_endpoint_healthy_shards",
        endpoint=f"{behind[0].host}:{behind[0].grpc_port}") == 0)
    before = behind[0].metric("sluice_received_items_total")
    for _ in range(10):
        assert send(front).grpc_status == 0
    assert behind[0].metric("sluice_received_items_total") == before
    behind[0].clean = False
    behind[0].kill()
