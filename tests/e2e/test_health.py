"""gRPC's health service on the listeners: what load balancers and other gateways ask."""

import grpc
import pytest
from lib import otlp
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
