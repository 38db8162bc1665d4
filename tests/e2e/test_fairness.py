"""What one tenant takes is not another's: memory for bodies that wait, and hints that are ignored."""

import time

import pytest
from lib import otlp, wire
from lib.sluice import TENANTS, digest, wait_for

GOLD = {"Authorization": "Bearer gold-token"}


def head(length, token, extra=""):
    return (f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: {length}\r\n{extra}\r\n").encode()


def test_a_tenant_may_reserve_a_quarter(start):
    """Bodies that do not come hold a quarter of the budget at most; the others do not feel it."""
    sluice = start(config={"memory_budget": "32MiB", "limits": {"body_bytes": "4MiB"}})
    held, refused = [], []
    for _ in range(8):
        client = wire.Http1(sluice.http_port)
        client.send(head(3 << 20, "gold-token", "Expect: 100-continue\r\n"))
        status, headers, _ = client.read_response()
        if status == 100:
            held.append(client)
        else:
            assert status == 503 and int(headers["retry-after"]) >= 1
            refused.append(client)
    assert len(held) == 2, "of 8 MiB, two of 3 MiB"
    body = otlp.request("traces", 1).SerializeToString()
    for _ in range(5):
        assert wire.post(sluice.http_port, "/v1/traces", body)[0] == 200  # another tenant
    held.pop().close()  # what it gives back is its own again

    def admitted():
        client = wire.Http1(sluice.http_port)
        client.send(head(3 << 20, "gold-token", "Expect: 100-continue\r\n"))
        status = client.read_response()[0]
        client.close()
        return status == 100

    wait_for("the share", admitted)
    for client in held + refused:
        client.close()
    wait_for("memory", lambda: sluice.metric("sluice_memory_used_bytes") < 1 << 20)


BODY = otlp.request("traces", 100).SerializeToString()
# One request is the burst, and the next is 50 s of the rate away.
SLOW = {"tenants": {**TENANTS["tenants"],
                    "slow": {"quota": {"spans": "2/s"}, "credentials": [digest("slow-token")]}}}


def post(client, token):
    client.send(head(len(BODY), token) + BODY)
    return client.read_response()


def test_early_calls_are_answered_each_time(start):
    """Below 10,000 a second nothing but the answer itself tells a client to wait."""
    sluice = start(tenants=SLOW)
    one, other = wire.Http1(sluice.http_port), wire.Http2(sluice.grpc_port)
    assert post(one, "slow-token")[0] == 200
    for _ in range(50):
        time.sleep(0.005)
        status, headers = post(one, "slow-token")[:2]
        assert status == 429 and int(headers["retry-after"]) >= 1
        stream = other.call(otlp.SERVICES["traces"], wire.frame(BODY),
                            {"authorization": "Bearer slow-token"})
        assert stream.grpc_status == 8 and stream.retry_delay > 0
    one.close()
    other.close()


def test_http1_that_ignores_its_hint_is_not_read(start):
    sluice = start(tenants=SLOW, config={"connection": {"early_calls": 1}})
    client = wire.Http1(sluice.http_port)
    assert post(client, "slow-token")[0] == 200
    assert post(client, "slow-token")[0] == 429
    time.sleep(0.05)  # the answer was heard

    def paused():  # one early call a second is taken, the second is not
        if not sluice.metric("sluice_paused_reads_total"):
            assert post(client, "slow-token")[0] == 429
        return sluice.metric("sluice_paused_reads_total")

    assert wait_for("a pause", paused) == 1
    refused = sluice.metric("sluice_refused_requests_total", reason="quota_exceeded")
    client.send(head(len(BODY), "slow-token") + BODY)
    client.socket.settimeout(1)
    with pytest.raises(TimeoutError):  # it waits inside the socket
        client.socket.recv(1)
    assert sluice.metric("sluice_refused_requests_total", reason="quota_exceeded") == refused
    # Others, on connections of their own, wait for nothing; and so does this one's end.
    assert wire.post(sluice.http_port, "/v1/traces", BODY)[0] == 200
    client.close()


def test_http1_is_read_again_after_its_hint(start):
    tenants = {"tenants": {**TENANTS["tenants"], "slow": {
        "quota": {"spans": "100/s"}, "credentials": [digest("slow-token")]}}}
    sluice = start(tenants=tenants, config={"connection": {"early_calls": 1}})
    client = wire.Http1(sluice.http_port)

    def paused():
        post(client, "slow-token")
        time.sleep(0.01)
        return sluice.metric("sluice_paused_reads_total")

    wait_for("a pause", paused)
    assert post(client, "slow-token")[0] in (200, 429)  # whatever it becomes, it is read
    client.close()


def test_http1_that_waits_is_read_at_once(start):
    sluice = start(tenants=SLOW)
    client = wire.Http1(sluice.http_port)
    post(client, "slow-token")
    assert post(client, "slow-token")[0] == 429
    # Another tenant's calls on the same connection are no offence.
    for _ in range(5):
        time.sleep(0.01)
        assert post(client, "gold-token")[0] == 200
    assert sluice.metric("sluice_paused_reads_total") == 0
    client.close()


def test_http2_that_ignores_its_hint_goes(start):
    """Answered for a while, then its streams are refused, then GOAWAY; a new connection begins anew."""
    sluice = start(tenants=SLOW, config={"connection": {"early_calls": 1}})
    client = wire.Http2(sluice.grpc_port)
    bearer = {"authorization": "Bearer slow-token"}

    def call():
        return client.call(otlp.SERVICES["traces"], wire.frame(BODY), bearer)

    assert call().grpc_status == 0
    for _ in range(20):  # before the hint can have been heard nothing is an offence
        assert call().grpc_status == 8
    time.sleep(0.2)
    answered = 0
    while (stream := call()).reset != 7:
        assert stream.grpc_status == 8
        answered += 1
    assert answered in range(9, 13), "one a second is taken, eight more are answered"
    refused = 1
    while not client.goaways and refused < 200:
        assert call().reset == 7
        refused += 1
    assert refused in range(60, 70), "64 streams are refused, then it goes"
    assert sluice.metric("sluice_hint_refused_streams_total") == refused
    client.close()
    again = wire.Http2(sluice.grpc_port)
    stream = again.call(otlp.SERVICES["traces"], wire.frame(BODY), bearer)
    assert stream.grpc_status == 8 and stream.retry_delay > 1
    again.close()


def test_those_over_quota_are_served_behind_the_others_but_served(start):
    """Thirty connections at a multiple of their quota, all at once: each call is answered, and so are
    those of another tenant, between them."""
    sluice = start()
    free, gold = ({"authorization": f"Bearer {name}-token"} for name in ("free", "gold"))
    flood = [wire.Http2(sluice.grpc_port) for _ in range(30)]
    victim = wire.Http2(sluice.grpc_port)
    statuses = []
    for _ in range(6):
        numbers = []
        for client in flood:
            numbers.append(client.start(otlp.SERVICES["traces"], free))
            client.data(numbers[-1], wire.frame(BODY), end_stream=True)
        for _ in range(3):
            assert victim.call(otlp.SERVICES["traces"], wire.frame(BODY), gold).grpc_status == 0
        statuses += [client.finish(number).grpc_status
                     for client, number in zip(flood, numbers)]
    assert set(statuses) == {0, 8} and statuses.count(8) > 100
    for client in [victim, *flood]:
        client.close()
