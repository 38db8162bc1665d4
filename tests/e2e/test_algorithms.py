"""Leaky buckets and sliding windows over the wire."""

import json
import subprocess
import time

import h2.events
import pytest
from lib import otlp, wire
from lib.redis import Redis
from lib.sluice import BINARY, Sluice, digest, wait_for

ITEMS = 50
BODY = wire.frame(otlp.request("traces", ITEMS).SerializeToString())
BEARER = {"authorization": "Bearer token"}


def tenants(**quota):
    return {"classes": {"only": {"quota": {"spans": "1000/s", **quota}}},
            "tenants": {"demo": {}, "acme": {"class": "only", "credentials": [digest("token")]}}}


def burst(client, count):
    """Starts `count` calls at once; their numbers."""
    numbers = []
    for _ in range(count):
        numbers.append(client.start(otlp.SERVICES["traces"], BEARER))
        client.data(numbers[-1], BODY, end_stream=True)
    return numbers


def ended(client):
    return [event.stream_id for event in client.events
            if isinstance(event, h2.events.StreamEnded)]


def send(client):
    return client.call(otlp.SERVICES["traces"], BODY, BEARER)


def test_leaky_smooths_a_burst_and_keeps_its_order(start):
    sluice = start(tenants=tenants(algorithm="leaky", delay_max="2500ms"))
    client = wire.Http2(sluice.grpc_port)
    began = time.monotonic()
    numbers = burst(client, 30)
    assert client.pump(lambda: len(ended(client)) == len(numbers))
    elapsed = time.monotonic() - began
    assert [client.streams[number].grpc_status for number in numbers] == [0] * len(numbers)
    assert ended(client) == numbers
    # 1,500 spans at 1,000 a second; the first leave at once.
    assert elapsed >= 1.3
    client.close()


def test_leaky_refuses_beyond_the_bound_with_a_true_hint(start):
    sluice = start(tenants=tenants(algorithm="leaky", delay_max="300ms"))
    client = wire.Http2(sluice.grpc_port)
    numbers = burst(client, 40)
    assert client.pump(lambda: len(ended(client)) == len(numbers))
    streams = [client.streams[number] for number in numbers]
    refused = [stream for stream in streams if stream.grpc_status != 0]
    assert 0 < len(refused) < len(streams)
    assert {stream.grpc_status for stream in refused} == {8}
    assert all(stream.retry_delay > 0 for stream in refused)
    # Told when to come back, whoever does is taken.
    stream = send(client)
    while stream.grpc_status == 0:
        burst(client, 10)
        stream = send(client)
    time.sleep(stream.retry_delay + 0.02)
    assert send(client).grpc_status == 0
    client.close()


def test_what_is_held_is_drained(start):
    sluice = start(tenants=tenants(algorithm="leaky", delay_max="2500ms"))
    gone, stays = wire.Http2(sluice.grpc_port), wire.Http2(sluice.grpc_port)
    burst(gone, 10)
    numbers = burst(stays, 20)
    stays.pump(lambda: ended(stays))
    gone.close()
    sluice.stop()  # checks that it ended by itself, and that the books balance
    stays.pump(lambda: len(ended(stays)) == len(numbers))
    assert [stays.streams[number].grpc_status for number in numbers] == [0] * len(numbers)
    stays.close()


def test_leaky_observed_neither_refuses_nor_holds(start):
    sluice = start(tenants=tenants(algorithm="leaky", delay_max="100ms", mode="observe"))
    client = wire.Http2(sluice.grpc_port)
    numbers = burst(client, 40)
    assert client.pump(lambda: len(ended(client)) == len(numbers))
    assert {client.streams[number].grpc_status for number in numbers} == {0}
    assert sluice.metric("sluice_quota_observed_requests_total", dimension="spans") > 0
    client.close()


def test_sliding_window_has_no_second_one_at_its_boundary(start):
    """A limit just before a boundary; after it comes what slides out, not another limit."""
    window, limit = 2.0, 2000
    sluice = start(tenants=tenants(algorithm="sliding_window", window=f"{window:.0f}s"))
    client = wire.Http2(sluice.grpc_port)
    # Boundaries are whole windows of the monotonic clock, which is the same here.
    time.sleep((1.4 - time.monotonic() % window) % window)
    began, admitted, late = time.monotonic(), 0, 0
    while time.monotonic() - began < 1.8 * window:
        sent = time.monotonic()
        stream = send(client)
        if stream.grpc_status == 0:
            admitted += ITEMS
            late += ITEMS * (sent - began > window)
        else:
            assert stream.grpc_status == 8 and stream.retry_delay > 0
        # The limit, what has slid out at the rate of the last window, and a request.
        assert admitted <= limit * (1 + (time.monotonic() - began) / window) + 2 * ITEMS
    assert admitted >= limit and late > 0
    client.close()


@pytest.fixture
def redis():
    server = Redis().start()
    yield server
    server.remove()


def together(start, redis, **quota):
    """Two gateways that have found each other, and a client of each."""
    both = [start(config={"quotas": {"redis": [redis.address]}}, tenants=tenants(**quota))
            for _ in range(2)]
    for one in both:
        wait_for("the other", lambda: one.metric("sluice_fleet_instances") == 2)
    return both, [wire.Http2(one.grpc_port) for one in both]


def test_sliding_window_of_a_fleet(start, redis):
    """One window for both, beyond which they go by what is lent to them, and no further."""
    limit = 600
    both, clients = together(start, redis, algorithm="sliding_window", spans="10/s", window="60s")
    admitted, in_vain = 0, 0
    while in_vain < 40:
        for client in clients:
            stream = send(client)
            assert stream.grpc_status in (0, 8)
            admitted += ITEMS * (stream.grpc_status == 0)
            in_vain = 0 if stream.grpc_status == 0 else in_vain + 1
        assert admitted <= limit + 2 * (0.2 * 10 + 2 * ITEMS)
        if in_vain:
            time.sleep(0.05)
    assert admitted >= limit - 2 * ITEMS
    assert all(one.metric("sluice_fleet_damaged_answers_total") == 0 for one in both)
    for client in clients:
        client.close()


def test_a_fleet_does_not_leak(tmp_path):
    one = Sluice(tmp_path, config={"quotas": {"redis": ["127.0.0.1:1"]}},
                 tenants=tenants(algorithm="leaky"))
    one.write_config()
    done = subprocess.run([BINARY, "--check", tmp_path / "config.yaml"], capture_output=True,
                          text=True)
    assert done.returncode != 0 and "holds for one instance, not for the fleet" in done.stderr


def volume(bearer="token", per="month", **rest):
    return {"classes": {"only": {"quota": {"volume": {"spans": 20 * ITEMS, "per": per, **rest}}}},
            "tenants": {"demo": {}, "acme": {"class": "only", "credentials": [digest(bearer)]}}}


def used(sluice):
    return json.loads(sluice.admin("/tenants/acme")[1])["volume"]["spans"]["used"]


def test_volume_soft_mark_hard_mark_and_a_restart(start):
    sluice = start(config={"quotas": {"volume_file": "volumes"}}, tenants=volume())
    client = wire.Http2(sluice.grpc_port)
    for _ in range(17):
        assert send(client).grpc_status == 0
    wait_for("the soft mark", lambda: "event=volume_soft_mark tenant=acme volume=spans per=month"
             in sluice.log())
    assert sluice.metric("sluice_volume_soft_marks_total") == 1
    path = sluice.folder / "volumes"
    wait_for("the file", lambda: path.exists() and f" {17 * ITEMS} " in path.read_text())
    assert used(sluice) == 17 * ITEMS
    client.close()
    sluice.kill()  # what is in the file stays
    sluice.start()
    wait_for("what was used", lambda: used(sluice) == 17 * ITEMS)
    client = wire.Http2(sluice.grpc_port)
    for _ in range(2):
        assert send(client).grpc_status == 0
    client.close()
    sluice.stop()  # what was not in the file yet is
    sluice.start()
    client = wire.Http2(sluice.grpc_port)
    assert send(client).grpc_status == 0
    stream = send(client)
    assert stream.grpc_status == 8 and stream.retry_delay >= 60
    assert stream.grpc_message == \
        f"Tenant acme has used up its volume of {20 * ITEMS} spans a month."
    answer = wire.post(sluice.http_port, "/v1/traces", b"", headers={"Authorization": "Bearer token"})
    assert answer[0] == 429 and int(answer[1]["retry-after"]) >= 60
    assert sluice.metric("sluice_volume_refused_requests_total", dimension="spans") == 2
    wait_for("the log", lambda: "event=volume_used_up tenant=acme" in sluice.log())
    client.close()


@pytest.fixture
def redis():
    server = Redis().start()
    yield server
    server.remove()


def test_volume_of_a_fleet_is_one(start, redis):
    """Two instances share it. A Redis that has lost all is told anew, and tells a third."""
    config = {"quotas": {"redis": [redis.address]}}
    both = [start(config=config, tenants=volume()) for _ in range(2)]
    clients = [wire.Http2(one.grpc_port) for one in both]
    for client in clients:
        for _ in range(8):
            assert send(client).grpc_status == 0
    # 16 of 20 between them, each knows.
    for one in both:
        wait_for("the soft mark", lambda: "event=volume_soft_mark" in one.log() or
                 send(clients[both.index(one)]).grpc_status == 8)
    for client in clients:
        wait_for("the hard mark", lambda: send(client).grpc_status == 8)
    # Each alone would have taken 20.
    assert all(20 * ITEMS <= used(one) < 2 * 20 * ITEMS for one in both)
    redis.kill()
    redis.start()
    for one in both:
        wait_for("Redis", lambda: one.metric("sluice_fleet_links_down") == 0)
    # A sum, and what each of the two has told: anew, by themselves.
    wait_for("the sum", lambda: redis.call("KEYS", "*volume*") and
             int(redis.call("HLEN", redis.call("KEYS", "*volume*"))) == 3)
    clients.append(wire.Http2(start(config=config, tenants=volume()).grpc_port))
    wait_for("the third to hear of it", lambda: send(clients[2]).grpc_status == 8)
    for client in clients:
        assert send(client).grpc_status == 8
        client.close()
