"""What hangs or floods stays its own: by counts, not by times."""

import concurrent.futures
import threading

import pytest
from lib import otlp, wire
from lib.gated import Gated
from lib.sluice import wait_for
from lib.upstream import Upstream

TENANTS = {"tenants": {"demo": {}, "a": {}, "b": {}}}


@pytest.fixture
def gated():
    """Takes calls and answers none until its gate opens."""
    upstream = Gated()
    yield upstream
    upstream.close()


def send(sluice, tenant="demo", items=2, client=None):
    own = client or wire.Http2(sluice.grpc_port)
    try:
        return own.call(otlp.SERVICES["traces"],
                        wire.frame(otlp.request("traces", items).SerializeToString()),
                        {"x-scope-orgid": tenant})
    finally:
        if not client:
            own.close()


def delivered(sluice, name):
    return sluice.metric("sluice_delivered_items_total", destination=name)


def test_a_destination_that_hangs_leaves_the_other_alone(start, gated):
    """Its senders fill its queue and are told to come again; of the other's calls none is."""
    gated_config = {"destinations": {"hangs": gated.destination,
                                     "works": {"file": {"path": "works"}}},
                    "routes": [{"match": {"tenant": "a"}, "to": ["hangs"]}, {"to": ["works"]}],
                    "memory_budget": "16MiB", "limits": {"body_bytes": "2MiB"}, "answer_within": "20s"}
    sluice = start(config=gated_config, tenants=TENANTS)
    with concurrent.futures.ThreadPoolExecutor(48) as pool:
        stuck = [pool.submit(lambda: send(sluice, "a", 3000).grpc_status) for _ in range(40)]
        # As many as its cap has room for wait; the others are refused at once.
        wait_for("its cap", lambda: sluice.metric("sluice_egress_full_parts_total",
                                                  destination="hangs") > 0)
        client = wire.Http2(sluice.grpc_port)
        statuses = [send(sluice, "b", 50, client).grpc_status for _ in range(200)]
        client.close()
        assert statuses == [0] * 200 and delivered(sluice, "works") == 200 * 50
        assert delivered(sluice, "hangs") == 0
        gated.gate.set()
        found = [one.result() for one in stuck]
    assert set(found) == {0, 14} and found.count(0) * 3000 == delivered(sluice, "hangs")


def test_best_effort_that_hangs_costs_no_answer(start, gated):
    """A copy for a destination that takes nothing: every answer comes, and none is late."""
    sluice = start(config={
        "destinations": {"hangs": gated.destination, "works": {"file": {"path": "works"}}},
        "routes": [{"to": ["works", {"destination": "hangs", "required": False}]}],
        "memory_budget": "16MiB", "limits": {"body_bytes": "2MiB"}})
    client = wire.Http2(sluice.grpc_port)
    statuses = [send(sluice, "demo", 2000, client).grpc_status for _ in range(60)]
    client.close()
    assert statuses == [0] * 60 and delivered(sluice, "works") == 60 * 2000
    assert sluice.metric("sluice_late_requests_total") == 0
    dropped = sluice.metric("sluice_dropped_items_total", destination="hangs")
    assert 0 < dropped < 60 * 2000  # it has its quarter, and no more
    gated.gate.set()
    wait_for("the rest", lambda: delivered(sluice, "hangs") == 60 * 2000 - dropped)


def test_a_tenant_that_fills_its_share_leaves_room(start, gated):
    """One destination for both: what one tenant cannot get in does not keep the other out."""
    sluice = start(config=gated.config(memory_budget="16MiB", limits={"body_bytes": "2MiB"}, answer_within="20s"),
                   tenants=TENANTS)
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        flood = [pool.submit(lambda: send(sluice, "a", 3000).grpc_status) for _ in range(40)]
        wait_for("its share", lambda: sluice.metric("sluice_egress_full_parts_total") > 0)
        others = [pool.submit(lambda: send(sluice, "b", 20).grpc_status) for _ in range(20)]
        wait_for("the other's", lambda: sluice.metric("sluice_taken_items_total") >=
                 20 * 20 + 3000 * sum(not one.done() for one in flood))
        gated.gate.set()
        assert [one.result() for one in others] == [0] * 20
        found = [one.result() for one in flood]
    assert found.count(14) > 0 and set(found) == {0, 14}
    assert delivered(sluice, "slow") == 3000 * found.count(0) + 400


def test_tenants_take_turns_behind_a_slow_destination(start):
    """One call at a time: a tenant that came first with many does not go first with all."""
    gate = threading.Event()
    with Upstream(http=True, judge=lambda _: gate.wait(60) and {"delay": 0.02}) as upstream:
        sluice = start(config={
            "destinations": {"slow": {"otlp": {
                "endpoint": f"http://127.0.0.1:{upstream.port}", "protocol": "http",
                "concurrency": 1, "tenant_header": "X-Scope-OrgID", "timeout": "1m"}}},
            "routes": [{"to": ["slow"]}], "answer_within": "1m"}, tenants=TENANTS)
        with concurrent.futures.ThreadPoolExecutor(70) as pool:
            flood = [pool.submit(lambda: send(sluice, "a", 100).grpc_status) for _ in range(60)]
            wait_for("the flood", lambda: sluice.metric("sluice_queue_records") == 60)
            others = [pool.submit(lambda: send(sluice, "b", 2).grpc_status) for _ in range(5)]
            wait_for("the others", lambda: sluice.metric("sluice_queue_records") == 65)
            gate.set()
            assert [one.result() for one in flood + others] == [0] * 65
        order = [call.headers["x-scope-orgid"] for call in upstream.calls]
    # Behind all of the flood they came; each of its turns lets at most a quantum's worth go.
    last = len(order) - 1 - order[::-1].index("b")
    assert order[:last].count("a") <= 12, "".join(order)


def test_a_request_above_its_cap_passes_when_it_is_alone(start):
    """Two tenants and many resources in one body: its memory counts once, and alone it always
    fits. It was refused for ever."""
    message = otlp.REQUESTS["traces"]()
    for i in range(15000):
        resource = message.resource_spans.add()
        resource.resource.attributes.add(key="tenant.id").value.string_value = "ab"[i % 2]
        resource.scope_spans.add().spans.add(trace_id=b"\1" * 16, span_id=b"\2" * 8, name="x")
    sluice = start(config={
        "memory_budget": "8MiB", "limits": {"body_bytes": "2MiB"},
        "tenants": {"file": "tenants.yaml", "default": "demo",
                    "identify": ["credential", {"by": "resource"}]}}, tenants=TENANTS)
    for _ in range(3):
        client = wire.Http2(sluice.grpc_port)
        stream = client.call(otlp.SERVICES["traces"], wire.frame(message.SerializeToString()))
        client.close()
        assert stream.grpc_status == 0, stream
    wait_for("all of it", lambda: delivered(sluice, "file") == 45000)
    assert sluice.metric("sluice_pinned_bytes") == 0
