"""Checksums by the device and by the stack: both right, and damage is found either way."""

import json
import os
import socket
import subprocess

import pytest
from lib import otlp, veth
from lib.segments import ACK, FIN, PSH, RST, Connection, Neighbour, summed
from lib.sluice import BINARY, wait_for
from lib.trunk import Trunk

# Devices of its own: once is enough.
pytestmark = pytest.mark.skipif(not veth.ON or veth.DRIVER != "net_af_xdp",
                                reason="runs by tests/dpdk/run.py, with net_af_xdp")
PKTGEN = os.path.join(os.path.dirname(BINARY), "bin/sluice-pktgen")
EAL = ["--no-pci", "--no-huge", "-m", "256", "--no-telemetry"]
CALL = (b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n")


def answered(sluice, to, size):
    body = b"{" + b" " * (size - 2) + b"}"
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with socket.socket(family) as one:
        one.settimeout(30)
        one.connect((to, sluice.http_port))
        one.sendall(CALL % len(body) + body)
        assert one.recv(4096).startswith(b"HTTP/1.1 200")


def over_tap(start, offloads, **more):
    """(a gateway, its interface) over net_tap, which checks and computes every sum, with the
    kernel at the other end, which does so, too."""
    def edit(sluice):
        port = sluice.port
        port.up = True  # no veth pair
        sluice.config["dpdk"] |= {"offloads": offloads, **more, "eal": [
            *EAL, f"--file-prefix={veth.PREFIX}-tap", f"--vdev=net_tap0,iface=slt{port.number}"]}
        sluice.config["datagrams"] = {"listen": [
            {"address": f"{port.host}:4319", "signal": "logs"}]}
        sluice.config["listen"] = [f"[::]:{sluice.http_port}"]

    sluice = start(edit=edit)
    sluice.port.inside = name = f"slt{sluice.port.number}"
    plain(name)
    who = "port" if offloads else "software"
    assert f"sums_in={who} sums_out={who}{':ip,tcp' if offloads else ''}" in sluice.log()
    return sluice, name


def plain(name):
    """The kernel's own offloads off: what it sends is whole."""
    for what in ("tx", "tso", "gso", "gro"):
        subprocess.run(["ethtool", "-K", name, what, "off"], capture_output=True)
    veth.ip("link", "set", name, "up")


def address(sluice, name):
    number = sluice.port.number
    veth.ip("addr", "add", f"10.77.{number}.1/24", "dev", name)
    veth.ip("-6", "addr", "add", f"fd77:{number}::1/64", "dev", name, "nodad")


@pytest.fixture(params=[True, False], ids=["by the device", "by the stack"])
def tap(request, start):
    """(sluice, its interface, offloads)."""
    sluice, name = over_tap(start, request.param)
    address(sluice, name)
    return sluice, name, request.param


def test_the_kernel_takes_what_is_sent(tap):
    sluice, _, _ = tap
    for to in (sluice.host, f"fd77:{sluice.port.number}::2"):
        for size in (2, 3, 1001, 200_000):
            answered(sluice, to, size)
    shown = subprocess.run(["ping", "-c1", "-W5", sluice.host], capture_output=True)
    assert shown.returncode == 0, shown.stdout  # ICMP's is never the device's
    assert sluice.metric("sluice_dpdk_bad_checksum_packets_total") == 0


def test_sums_behind_a_tag(start):
    """In a VLAN the headers lie four bytes further on for the device."""
    sluice, name = over_tap(start, True, vlan=100)
    number = sluice.port.number
    ends = [f"slc{number}", f"sld{number}"]
    veth.ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
    for end in ends:
        plain(end)
    address(sluice, ends[0])
    sluice.port.relay = Trunk([name, ends[1]], [100])  # the fixture stops it
    for to in (sluice.host, f"fd77:{number}::2"):
        for size in (2, 3, 50_000):
            answered(sluice, to, size)
    assert sluice.metric("sluice_dpdk_bad_checksum_packets_total") == 0


# Bits of the IP packet: TTL's lowest (the header's sum finds it), and one in the payload.
TTL, PAYLOAD = 8 * 8, 8 * (40 + 60)


def test_a_damaged_segment_is_not_taken(tap):
    sluice, name, by_device = tap
    neighbour = Neighbour(name, f"10.77.{sluice.port.number}.50", sluice.host, sluice.port.mac())
    try:
        one = Connection(neighbour, 40001, sluice.http_port)
        whole = CALL % 2 + b"{}"
        for bit in (TTL, PAYLOAD) * 5:
            neighbour.damaged = bit
            one.send(ACK | PSH, whole)
        neighbour.damaged = None
        # Not one of them was taken: what is next is the segment's first byte.
        one.send(ACK | PSH, b"x", offset=1000)
        got = one.expect(lambda s: s[0] & ACK)
        assert got[2] == one.seq and not got[0] & (RST | FIN) and not got[4]
        one.say(whole)
        got = one.expect(lambda s: s[4])
        assert got[4].startswith(b"HTTP/1.1 200")
        packet = got[5][:20 + len(got[5][20:])]
        size = int.from_bytes(packet[2:4], "big")
        assert summed(packet[:20]) == 0
        pseudo = packet[12:20] + bytes([0, 6]) + (size - 20).to_bytes(2, "big")
        assert summed(pseudo + packet[20:size]) == 0
        wait_for("the count", lambda: sluice.metric(
            "sluice_dpdk_bad_checksum_packets_total") == 10)
        one.ack = (got[1] + len(got[4])) & 0xffffffff
        one.send(RST | ACK)
    finally:
        neighbour.close()


def test_a_damaged_datagram_is_not_taken(tap):
    sluice, name, by_device = tap
    neighbour = Neighbour(name, f"10.77.{sluice.port.number}.50", sluice.host, sluice.port.mac())
    try:
        body = otlp.request("logs", 1).SerializeToString()
        head = bytes.fromhex("c350") + (4319).to_bytes(2, "big") + (8 + len(body)).to_bytes(2, "big")
        pseudo = neighbour.address + neighbour.peer + bytes([0, 17]) + head[4:6]
        check = summed(pseudo + head + b"\0\0" + body)
        for bit in (TTL, PAYLOAD, None):
            neighbour.damaged = bit
            neighbour.ip(17, head + check.to_bytes(2, "big") + body)
    finally:
        neighbour.close()
    wait_for("the whole one", lambda: sluice.metric("sluice_datagram_accepted_total") == 1)
    wait_for("the counts", lambda: [
        sluice.metric(f"sluice_dpdk_{what}_total") for what in (
            "bad_checksum_packets", "broken_datagrams")] == ([2, 0] if by_device else [0, 2]))
    assert sluice.metric("sluice_datagram_received_total") == 1


@pytest.mark.parametrize("here, there", [(True, False), (False, True)])
def test_a_virtio_pair(start, tmp_path, here, there):
    """One end without: sums that one leaves open are the other's to close. (Both: test_pktgen.py.)"""
    def edit(sluice):
        sluice.config["dpdk"] |= {"offloads": here, "eal": [
            *EAL, f"--file-prefix={veth.PREFIX}-g",
            f"--vdev=net_vhost0,iface={tmp_path}/v,queues=1"]}

    sluice = start(edit=edit)
    done = subprocess.run(
        [PKTGEN, *(f"--eal={one}" for one in EAL), f"--eal=--file-prefix={veth.PREFIX}-p",
         f"--eal=--vdev=net_virtio_user0,path={tmp_path}/v,queues=1,queue_size=1024",
         "--address", f"10.77.{sluice.port.number}.1/24", "--admin", str(sluice.admin_port),
         "--warm-up", "0", "--seconds", "1", "--json", *([] if there else ["--no-offloads"]),
         "--tcp", "--rate", "100", "--connections", "8", "--signal", "traces", "--items", "100",
         "--target", f"{sluice.host}:{sluice.grpc_port}"], capture_output=True, text=True,
        timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads([one for one in done.stdout.splitlines() if one[0] == "{"][-1])
    assert (seen["failed"], seen["connections_lost"]) == (0, 0)
    assert 0 < seen["received"] == seen["sent"]
    assert f"sums_out={'port:tcp' if here else 'software'}" in sluice.log()
