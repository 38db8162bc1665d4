"""A destination that fails is spared, and comes back by itself."""

import time

import pytest
from lib import otlp, wire
from lib.sluice import wait_for
from lib.upstream import Upstream

KINDS = pytest.mark.parametrize("http", [False, True], ids=["grpc", "http"])


def send(sluice):
    client = wire.Http2(sluice.grpc_port)
    try:
        return client.call(otlp.SERVICES["traces"],
                           wire.frame(otlp.request("traces", 2).SerializeToString())).grpc_status
    finally:
        client.close()


def breakers(sluice):
    return {state: sluice.metric("sluice_breaker_shards", destination="up", state=state)
            for state in ("closed", "half_open", "open")}


@KINDS
def test_it_opens_and_a_probe_closes_it(start, http):
    down = [True]

    def judge():
        return ({"status": 503} if http else {"status": 14}) if down[0] else {}
    with Upstream(http, script=[judge] * 1000) as upstream:
        sluice = start(config={
            "destinations": {"up": {
                "otlp": {"endpoint": f"http://127.0.0.1:{upstream.port}",
                         "protocol": "http" if http else "grpc"},
                "retry": {"initial": "10ms", "max": "20ms"},
                # Longer than anybody waits, until the probe.
                "breaker": {"failures": 3, "wait": "3s"}}},
            "routes": [{"to": ["up"]}], "answer_within": "2s"})
        began = time.monotonic()
        assert send(sluice) == 14
        assert len(upstream.calls) == 3
        wait_for("the breaker", lambda: "breaker_open" in sluice.log())
        # Open: an answer at once and nothing sent, for as long as the probe is further away than
        # the answer's deadline.
        if time.monotonic() - began < 0.5:
            assert send(sluice) == 14 and len(upstream.calls) == 3
        assert breakers(sluice)["closed"] == 0
        # Nobody sends: it says by itself that a probe may go.
        wait_for("its time", lambda: breakers(sluice) == {"closed": 0, "half_open": 1, "open": 0})
        down[0] = False
        wait_for("a success", lambda: send(sluice) == 0)
        assert breakers(sluice) == {"closed": 1, "half_open": 0, "open": 0}
        assert sluice.metric("sluice_breaker_opened_total", destination="up") == 1
        assert "breaker_open" in sluice.log() and "breaker_closed" in sluice.log()
