"""More to do than a shard can: priorities, thresholds that stay true, and the way back."""

import socket

import pytest
from lib import otlp, wire
from lib.sluice import TENANTS, wait_for

PRIORITIES = dict(TENANTS, classes={"first": {"priority": 10}},
                  tenants=dict(TENANTS["tenants"],
                               gold=dict(TENANTS["tenants"]["gold"], **{"class": "first"})))
GOLD = {"Authorization": "Bearer gold-token"}


@pytest.fixture
def pressed(start):
    """A gateway whose memory is held by a body that does not come; `pressed.hog` holds it."""
    def begin(**settings):
        sluice = start(tenants=PRIORITIES, config={
            "memory_budget": "8MiB", "limits": {"body_bytes": "1MiB"},
            "overload": {"memory": "5%", "busy": "100%", "after": "100ms", "halvings": 2,
                         **settings}})
        sluice.hog = socket.create_connection(("127.0.0.1", sluice.http_port))
        sluice.hog.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                           b"application/x-protobuf\r\nContent-Length: 1000000\r\n\r\n\x0a")
        return sluice
    return begin


def step(sluice):
    return sluice.metric("sluice_overload_step")


def post(sluice, signal, message, headers=None):
    return wire.post(sluice.http_port, f"/v1/{signal}", message.SerializeToString(),
                     headers=headers)


def spans(sluice):
    return [s for m in sluice.files("traces") for r in m.resource_spans
            for sc in r.scope_spans for s in sc.spans]


def test_priorities_and_thresholds(pressed):
    sluice = pressed()
    wait_for("the last step", lambda: step(sluice) == 5)  # two priorities, two halvings; refusal
    status, headers = post(sluice, "traces", otlp.request("traces", 1))[:2]
    assert status == 503 and int(headers["retry-after"]) >= 1
    message = otlp.request("traces", 400)
    assert post(sluice, "traces", message, GOLD)[0] == 200
    wanted = {s.span_id for s in message.resource_spans[0].scope_spans[0].spans
              if int.from_bytes(s.trace_id[-7:], "big") >= 0xc0 << 48}
    assert {s.span_id for s in spans(sluice)} == wanted
    assert {s.trace_state for s in spans(sluice)} == {"ot=th:c"}  # each stands for four
    assert post(sluice, "metrics", otlp.request("metrics", 50), GOLD)[0] == 200
    assert sluice.metric("sluice_delivered_items_total", signal="metrics") == 50
    assert sluice.metric("sluice_refused_requests_total", reason="overloaded") == 1
    assert "overload" in sluice.log()

    sluice.hog.close()
    wait_for("the way back", lambda: step(sluice) == 0)
    message = otlp.request("traces", 40)
    before = len(spans(sluice))
    assert post(sluice, "traces", message)[0] == 200
    assert len(spans(sluice)) == before + 40
    assert [s.trace_state for s in spans(sluice)[before:]] == [""] * 40


def test_without_refusal_the_lowest_is_only_sampled(pressed):
    sluice = pressed(refuse=False)
    wait_for("the last step", lambda: step(sluice) == 4)
    message = otlp.request("logs", 200)
    assert post(sluice, "logs", message)[0] == 200
    wanted = sum(int.from_bytes(r.trace_id[-7:], "big") >= 0xc0 << 48
                 for r in message.resource_logs[0].scope_logs[0].log_records)
    assert sluice.metric("sluice_delivered_items_total", signal="logs") == wanted
    sluice.hog.close()
