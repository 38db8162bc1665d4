"""gRPC's health service on the listeners: what load balancers and other gateways ask."""

import grpc
import pytest
from lib import otlp, wire
from lib.sluice import wait_for
from test_endpoints import send

SERVICE = "/grpc.health.v1.Health/"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


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
    ("", "Watch", grpc.StatusCode.UNIMPLEMENTED),
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
