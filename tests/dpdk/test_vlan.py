"""A port in a VLAN, or in two: frames carry the tag, those of others are none of its business."""

import os
import socket
import struct

import pytest
from lib import otlp, veth
from lib.sluice import wait_for

pytestmark = pytest.mark.skipif(not veth.ON, reason="runs by tests/dpdk/run.py")

VLAN = 100
OTHERS = 60  # frames


@pytest.fixture
def tagged(start):
    def in_vlan(sluice):
        sluice.port.vlan = VLAN
        sluice.config["dpdk"]["vlan"] = VLAN
        sluice.config["listen"] = [f"[::]:{sluice.http_port}"]
        sluice.config["datagrams"] = {"listen": [{"address": f"{sluice.host}:{sluice.http_port}",
                                                  "signal": "traces"}]}

    return start(edit=in_vlan)


@pytest.fixture
def twice(start):
    """One port in two VLANs, each with its subnet; the first also names the VIP."""
    def in_two(sluice):
        port = sluice.port
        port.vlan, port.second_vlan = VLAN, VLAN + 1
        number, eal = port.number, sluice.config["dpdk"]["eal"]
        sluice.config["dpdk"] = {"eal": eal, "interfaces": [
            {"vlan": VLAN, "addresses": [f"10.77.{number}.2/24", f"fd77:{number}::2/64",
                                         f"203.0.113.{number}/32"]},
            {"vlan": VLAN + 1, "mtu": 1400, "addresses": [f"10.78.{number}.2/24",
                                                          f"fd78:{number}::2/64"]}]}
        sluice.config["listen"] = [f"[::]:{sluice.http_port}"]

    return start(edit=in_two)


def post(address, port, body):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as one:
        one.settimeout(30)
        one.connect((address, port))
        one.sendall(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n" % len(body) + body)
        answer = one.recv(4096)
        segment = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    return answer, segment


def total(data):
    value = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while value >> 16:
        value = (value & 0xffff) + (value >> 16)
    return value ^ 0xffff


def echo(address, size):
    """An ICMP echo of so many bytes; what comes back behind the header."""
    sample = os.urandom(size)
    head = struct.pack("!BBHHH", 8, 0, 0, 77, 1)
    head = struct.pack("!BBHHH", 8, 0, total(head + sample), 77, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as one:
        one.settimeout(30)
        one.connect((address, 0))
        one.send(head + sample)
        while True:
            packet = one.recv(65536)
            if packet[20] == 0 and packet[24:26] == head[4:6]:
                return packet[28:] == sample


def test_whole_packets_both_ways(tagged):
    """The MTU is the IP packet's: the tag's four bytes come on top of it."""
    number = tagged.port.number
    for address, head in ((tagged.host, 40), (f"fd77:{number}::2", 60)):
        answer, segment = post(address, tagged.http_port,
                               b'{"resourceSpans":[]}' + b" " * 200_000)
        assert answer.startswith(b"HTTP/1.1 200"), address
        assert 1500 - head - 12 <= segment <= 1500 - head  # 12: time stamps
    assert echo(tagged.host, 1472)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(otlp.request("traces", 3).SerializeToString(), (tagged.host, tagged.http_port))
    wait_for("the datagram", lambda: tagged.metric("sluice_datagram_accepted_total") == 1)
    assert tagged.port.relay.others == 0


def test_frames_of_others_are_dropped_and_counted(tagged):
    other = "sluice_dpdk_other_vlan_packets_total"
    assert post(tagged.host, tagged.http_port, b"{}")[0].startswith(b"HTTP/1.1 200")
    target = bytes.fromhex(tagged.port.mac().replace(":", ""))

    def ask(tag, last):
        """Who has the port's address? Asked by a neighbour that ends with `last`."""
        mac = bytes([2, 0, 0, 0, 0, last])
        sender = mac + socket.inet_aton(f"10.77.{tagged.port.number}.{last}")
        raw.send(target + mac + tag + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) +
                 sender + bytes(6) + socket.inet_aton(tagged.host) + bytes(18))

    tags = [b"", struct.pack("!HH", 0x8100, VLAN + 1), struct.pack("!HH", 0x8100, 0xe000)]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as raw:
        raw.bind((tagged.port.outside, 3))
        raw.settimeout(30)
        before = tagged.metric(other)
        for index in range(OTHERS):
            ask(tags[index % len(tags)], 50)
        ask(struct.pack("!HH", 0x8100, VLAN), 51)
        answered = None
        while answered != 51:  # in their order: none of those before
            frame = raw.recv(2048)
            if frame[:5] == b"\x02\0\0\0\0":
                answered = frame[5]
                assert answered != 50
    wait_for("the frames", lambda: tagged.metric(other) >= before + OTHERS)
    assert post(tagged.host, tagged.http_port, b"{}")[0].startswith(b"HTTP/1.1 200")
    assert tagged.port.relay.others == 0  # whatever it sends has the tag


def test_two_vlans_of_one_port(twice):
    number, port = twice.port.number, twice.port
    veth.ip("route", "add", f"203.0.113.{number}/32", "via", f"10.77.{number}.2")
    body = b'{"resourceSpans":[]}' + b" " * 100_000
    for address, largest in ((f"10.77.{number}.2", 1460), (f"fd77:{number}::2", 1440),
                             (f"203.0.113.{number}", 1460), (f"10.78.{number}.2", 1360),
                             (f"fd78:{number}::2", 1340)):
        answer, segment = post(address, twice.http_port, body)
        assert answer.startswith(b"HTTP/1.1 200"), address
        assert largest - 12 <= segment <= largest  # each interface's own MTU
    assert port.relay.others == 0
    # The first VLAN's address from the second one: nobody is asked, and nobody answers.
    for address in (f"10.77.{number}.2", f"203.0.113.{number}"):
        veth.ip("route", "replace", f"{address}/32", "via", f"10.78.{number}.2")
        before = twice.metric("sluice_dpdk_other_interface_packets_total")
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, f"sle{number}".encode())
            one.settimeout(0.5)
            with pytest.raises(TimeoutError):
                one.connect((address, twice.http_port))
        wait_for("it", lambda: twice.metric("sluice_dpdk_other_interface_packets_total") > before)
    # A third VLAN, and none.
    before = twice.metric("sluice_dpdk_other_vlan_packets_total")
    target = bytes.fromhex(port.mac().replace(":", ""))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((port.outside, 0))
        for tag in (b"", struct.pack("!HH", 0x8100, VLAN + 2)) * OTHERS:
            raw.send(target + b"\x02\0\0\0\0\x09" + tag + b"\x08\x06" + bytes(46))
    wait_for("them", lambda: twice.metric("sluice_dpdk_other_vlan_packets_total") >=
             before + 2 * OTHERS)
    assert post(f"10.78.{number}.2", twice.http_port, body)[0].startswith(b"HTTP/1.1 200")
