"""What only the DPDK port has: addresses, neighbours, flows of several shards, broken frames."""

import json
import random
import socket
import subprocess

import pytest
from lib import otlp, veth
from lib.sluice import BINARY, wait_for

pytestmark = pytest.mark.skipif(not veth.ON, reason="runs by tests/dpdk/run.py")


def received(sluice):
    return sluice.metric("sluice_dpdk_received_packets_total")


def hello(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as one:
        one.settimeout(20)
        one.connect((address, port))
        one.sendall(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                    b"content-length: 2\r\n\r\n{}")
        return one.recv(4096)


def test_traffic_passes_the_port(start):
    sluice = start()
    before = received(sluice)
    assert hello(sluice.host, sluice.http_port).startswith(b"HTTP/1.1 200")
    assert received(sluice) >= before + 4  # SYN, ACK, the call, FIN
    wait_for("buffers to come back",
             lambda: sluice.metric("sluice_dpdk_free_buffers") > 12000)


def test_ipv6_and_several_addresses(start):
    def more(sluice):
        sluice.config["dpdk"]["addresses"].append("10.99.0.1/32")
        sluice.config["listen"] = [f"[::]:{sluice.http_port}"]

    sluice = start(edit=more)
    number = sluice.port.number
    veth.ip("route", "add", "10.99.0.1/32", "via", f"10.77.{number}.2")
    for address in (f"10.77.{number}.2", "10.99.0.1", f"fd77:{number}::2"):
        assert hello(address, sluice.http_port).startswith(b"HTTP/1.1 200"), address


def test_flows_spread_over_shards_and_none_is_reset(start):
    sluice = start(shards=2)
    for _ in range(64):
        assert hello(sluice.host, sluice.http_port).startswith(b"HTTP/1.1 200")
    by_shard = sluice.metrics(by_shard=True)
    for shard in "01":
        assert by_shard[f'sluice_connections_accepted_total{{shard="{shard}"}}'] > 5
    assert by_shard['sluice_dpdk_foreign_packets_total{shard="0"}'] > 0


def test_a_drain_ends_though_the_peer_falls_silent(start):
    """FINs of both shards are under way, by one lane's queue, when the shards end."""
    sluice = start(shards=2)
    assert "spread=software" in sluice.log()
    clients = []
    try:
        for _ in range(40):
            clients.append(socket.create_connection((sluice.host, sluice.http_port), timeout=20))
            clients[-1].sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert clients[-1].recv(4096).startswith(b"HTTP/1.1 ")
        for shard in "01":
            wait_for("connections of both", lambda series=f'{{shard="{shard}"}}':
                     sluice.metrics(by_shard=True)["sluice_connections_open" + series] > 0)
        veth.ip("addr", "del", f"10.77.{sluice.port.number}.1/24", "dev", sluice.port.outside)
        sluice.process.terminate()
        assert sluice.process.wait(60) == 0, sluice.log()
    finally:
        for client in clients:
            client.close()
    assert "event=stopped drained=yes" in sluice.log()


def test_a_closed_port_answers_at_once(start):
    sluice = start()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((sluice.host, 9), timeout=20)


def test_broken_frames_do_no_harm(start):
    sluice = start()
    assert hello(sluice.host, sluice.http_port).startswith(b"HTTP/1.1 200")
    chance = random.Random(1)
    target = bytes.fromhex(sluice.port.mac().replace(":", ""))
    before = received(sluice)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((sluice.port.outside, 0))
        for index in range(5000):
            kind = (b"\x08\x00\x45", b"\x86\xdd\x60", b"\x08\x06\x00", b"\x81\x00\x00")[index % 4]
            body = bytearray(chance.randbytes(chance.randrange(60, 400)))
            if index % 4 == 0:
                body[8] = 6  # TCP
                body[15:19] = socket.inet_aton(sluice.host)
            raw.send(target + b"\x02\0\0\0\0\x09" + kind + body)
            if index % 200 == 199:  # no more at once than a ring holds, however late it is read
                wait_for("the frames", lambda: received(sluice) >= before + (index + 1) * 4 // 5)
    assert hello(sluice.host, sluice.http_port).startswith(b"HTTP/1.1 200")


def test_as_few_packets_as_can_be(start):
    sluice = start(edit=lambda sluice: sluice.config["dpdk"].update(packets=4096 + 512))
    body = b'{"resourceSpans":[]}' + b" " * 200_000
    with socket.create_connection((sluice.host, sluice.http_port), timeout=30) as one:
        for _ in range(20):
            one.sendall(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n"
                        b"content-type: application/json\r\n\r\n" % len(body) + body)
            assert one.recv(4096).startswith(b"HTTP/1.1 200")


SMALL = ["--no-pci", "--no-huge", "-m", "64"]
RINGS = ["--vdev=net_ring0", "--vdev=net_ring1"]  # ports without a device beneath


@pytest.mark.skipif(veth.DRIVER != "net_af_packet", reason="no driver of its own: once is enough")
@pytest.mark.parametrize("check, dpdk, says", [
    (False, {"eal": SMALL, "addresses": ["10.0.0.2/24"]}, "there is no port"),
    (False, {"eal": ["--no-pci", "--no-huge", "-m", "256", "--vdev=net_af_packet0,iface=lo"],
             "mtu": 9000, "packets": 8192, "addresses": ["10.0.0.2/24"]},
     "the frames of net_af_packet0 hold 2048 bytes"),
    (True, {"addresses": ["10.0.0.2/40"]}, "10.0.0.2/40"),
    (True, {"addresses": []}, "addresses"),
    (True, {"addresses": ["10.0.0.2/24"], "packets": 300}, "packets of 300 are too few"),
    (True, {"interfaces": [{"device": "a", "addresses": ["10.0.0.2/24"]}], "vlan": 5},
     "vlan is each interface's own"),
    (True, {"interfaces": [{"device": "a", "addresses": ["10.0.0.2/24"]},
                           {"device": "a", "addresses": ["10.0.1.2/24"]}]},
     "interface 2 (a, vlan 0): interface 1 is the same device and VLAN"),
    (True, {"interfaces": [{"device": "a", "addresses": ["10.0.0.2/24"]},
                           {"device": "b", "addresses": ["10.0.0.3/24"]}]},
     "is in the subnet of interface 1"),
    (False, {"eal": [*SMALL, *RINGS], "interfaces": [
        {"device": "net_ring0", "addresses": ["10.0.0.2/24"]},
        {"device": "net_ring7", "addresses": ["10.0.1.2/24"]}]}, "there is no port net_ring7"),
    (False, {"eal": [*SMALL, *RINGS], "interfaces": [
        {"addresses": ["10.0.0.2/24"]},
        {"device": "net_ring0", "addresses": ["10.0.1.2/24"]}]},
     "interfaces 1 and 2 are the same port, net_ring0, and VLAN, 0"),
    (False, {"eal": [*SMALL, "--vdev=net_null0"], "addresses": ["10.0.0.2/24"], "packets": 8192},
     "net_null0: its 8 queues of 1024 frames would hold all of its 8192 packet buffers"),
    (False, {"eal": [*SMALL, "--vdev=net_null0"], "addresses": ["10.0.0.2/24"],
             "packets": 100_000}, "give the EAL more memory (-m, or hugepages), or lower"),
])
def test_a_clear_line(tmp_path, check, dpdk, says):
    dpdk["eal"] = dpdk.get("eal", []) + ["--no-telemetry", f"--file-prefix={veth.PREFIX}-x"]
    (tmp_path / "c.yaml").write_text(
        f"shards: 8\nio: dpdk\ndpdk: {json.dumps(dpdk)}\n"
        "listen: ['0.0.0.0:4317']\nadmin: ''\ntenants: {file: t.yaml, default: a}\n"
        "destinations: {b: {blackhole: {}}}\nroutes: [{to: [b]}]\n")
    (tmp_path / "t.yaml").write_text("tenants: {a: {}}\n")
    done = subprocess.run([BINARY, "--check" if check else "--config", tmp_path / "c.yaml"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert says in done.stderr.splitlines()[-1]


@pytest.mark.skipif(veth.DRIVER != "net_af_packet", reason="af_xdp takes a page at most")
def test_jumbo_frames(start):
    """9,000 bytes a packet both ways, and a datagram of as much."""
    def wide(sluice):
        sluice.config["dpdk"] = sluice.port.jumbo()
        sluice.config["datagrams"] = {"listen": [{"address": f"{sluice.host}:{sluice.http_port}",
                                                  "signal": "traces"}]}

    sluice = start(edit=wide)
    body = b'{"resourceSpans":[]}' + b" " * 200_000
    before = received(sluice)
    with socket.create_connection((sluice.host, sluice.http_port), timeout=30) as one:
        one.sendall(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n" % len(body) + body)
        assert one.recv(4096).startswith(b"HTTP/1.1 200")
        assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) > 8000
    assert received(sluice) - before < 60  # 140 at 1,500 bytes
    datagram = otlp.request("traces", 3)
    datagram.resource_spans[0].resource.attributes.add(key="long").value.string_value = "x" * 8000
    assert 8200 < datagram.ByteSize() < 8972
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(datagram.SerializeToString(), (sluice.host, sluice.http_port))
    wait_for("the datagram", lambda: sluice.metric("sluice_datagram_accepted_total") == 1)
