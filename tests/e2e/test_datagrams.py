"""OTLP in datagrams: one Export request in each, by the same way as a call, and never answered."""

import socket

import pytest
from lib import otlp, ports, veth
from lib.sluice import wait_for

MTU = 1472 if veth.ON else 9000  # what a datagram has room for


def datagrams(**more):
    """start()'s `edit`: a port for each signal."""
    def edit(sluice):
        host = sluice.port.host if veth.ON else "127.0.0.1"
        sluice.udp = dict(zip(("traces", "metrics", "logs"), ports.free(3)))
        sluice.config["datagrams"] = {
            "listen": [{"address": f"{host}:{port}", "signal": signal}
                       for signal, port in sluice.udp.items()], **more}
        sluice.udp_host = host
    return edit


def send(sluice, body, signal="traces", times=1):
    if veth.ON and not getattr(sluice, "is_neighbour", False):
        # Of what waits for the neighbour's address the kernel keeps only some.
        socket.create_connection((sluice.udp_host, sluice.grpc_port), timeout=60).close()
        sluice.is_neighbour = True
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((sluice.udp_host, sluice.udp[signal]))
        for _ in range(times):
            one.send(body if isinstance(body, bytes) else body.SerializeToString())


def ended(sluice, count):
    """Waits until so many datagrams were received, and checks their books."""
    try:
        wait_for(f"{count} datagrams", lambda: sluice.metric("sluice_datagram_received_total") >=
                 count and sluice.metric("sluice_datagram_in_flight") == 0)
    except AssertionError as error:
        raise AssertionError({name: value for name, value in sluice.metrics().items()
                              if ("datagram" in name or "dpdk" in name) and value}) from error
    found = {name: sluice.metric(f"sluice_datagram_{name}_total")
             for name in ("received", "accepted", "refused")}
    assert found["received"] == count == found["accepted"] + found["refused"]
    return found


def refused(sluice, reason):
    return sluice.metric("sluice_datagram_refused_total", reason=reason)


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_each_signal_on_its_port(start, signal):
    sluice = start(edit=datagrams())
    body = otlp.request(signal, 3)
    send(sluice, body, signal, 20)
    assert ended(sluice, 20)["accepted"] == 20
    wait_for("the file", lambda: len(sluice.files(signal)) == 20)
    assert sluice.files(signal)[7] == body
    assert sluice.metric("sluice_accepted_items_total", signal=signal) == sum(
        otlp.count(signal, one) for one in sluice.files(signal))


@pytest.mark.shards
def test_flows_of_many_senders_over_shards(start):
    sluice = start(shards=2, edit=datagrams())
    body = otlp.request("traces", 2)
    for _ in range(64):
        send(sluice, body, times=5)
    assert ended(sluice, 320)["accepted"] == 320
    by_shard = sluice.metrics(by_shard=True)
    for shard in "01":
        assert by_shard[f'sluice_datagram_received_total{{shard="{shard}"}}'] > 20


def test_tenant_by_prefix_and_its_quota(start):
    sluice = start(edit=datagrams(tenants=[
        {"prefix": "192.0.2.0/24", "tenant": "gold"},
        {"prefix": "10.77.0.0/16" if veth.ON else "127.0.0.0/8", "tenant": "free"}]))
    send(sluice, otlp.request("traces", 5), times=600)  # 3000 spans; the quota is 1000/s
    found = ended(sluice, 600)
    assert found["accepted"] >= 100
    assert found["refused"] == refused(sluice, "quota_exceeded") > 50
    # Another tenant by a reload, which a shard sees in its next turn; one not known is refused.
    for tenant, reason in (("gone", "suspended"), ("nobody", "unknown_tenant")):
        sluice.config["datagrams"]["tenants"] = [{"prefix": "0.0.0.0/0", "tenant": tenant}]
        sluice.reload()
        wait_for(reason, lambda: send(sluice, otlp.request("traces", 1)) or refused(sluice, reason))


def test_tenant_by_resource(start):
    def edit(sluice):
        datagrams()(sluice)
        sluice.config["tenants"] = {"file": "tenants.yaml", "identify": [
            {"by": "resource", "open": True}]}

    sluice = start(edit=edit)
    send(sluice, otlp.request("traces", 2, **{"tenant.id": "gold"}), times=4)
    send(sluice, otlp.request("traces", 2))
    found = ended(sluice, 5)
    assert (found["accepted"], refused(sluice, "no_credential")) == (4, 1)


def test_what_is_too_long_or_broken(start):
    sluice = start(edit=datagrams(bytes=1000))
    send(sluice, otlp.request("traces", 1), times=2)
    send(sluice, b"\x0a\x05xx")  # a length that runs beyond its end
    send(sluice, b"\x0a" * 1001, times=3)
    send(sluice, b"")  # an empty request: legal, no items
    found = ended(sluice, 7)
    assert found["accepted"] == 3
    assert refused(sluice, "malformed") == 1
    assert refused(sluice, "body_too_large") == 3
    assert sluice.metric("sluice_datagram_truncated_total") == 3


def test_a_whole_mtu(start):
    sluice = start(edit=datagrams())
    body, items = otlp.request("logs", 1), 1
    while True:
        more = otlp.request("logs", items + 1)
        if more.ByteSize() > MTU:
            break
        body, items = more, items + 1
    send(sluice, body, "logs", 10)
    assert ended(sluice, 10)["accepted"] == 10
    wait_for("the file", lambda: len(sluice.files("logs")) == 10)
    assert sluice.files("logs")[9] == body


def test_off_by_default_and_clashes_are_told(start, tmp_path):
    sluice = start()
    assert sluice.metric("sluice_datagram_received_total") == 0
    sluice.config["datagrams"] = {"listen": ["127.0.0.1:4319",
                                             {"address": "127.0.0.1:4319", "signal": "logs"}]}
    before = sluice.metric("sluice_config_reloads_total", result="failure")
    sluice.reload()
    wait_for("a refusal of it", lambda: "each signal needs its own port" in sluice.log())
    assert sluice.metric("sluice_config_reloads_total", result="failure") >= before
