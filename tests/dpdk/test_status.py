"""What the port says of itself at /metrics: frames, bytes, link, buffers, turns."""

import socket
import subprocess

import pytest
from lib import veth
from lib.sluice import wait_for

pytestmark = pytest.mark.skipif(not veth.ON, reason="runs by tests/dpdk/run.py")

CALL = (b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n")


def call(sluice, size):
    body = b"{" + b" " * (size - 2) + b"}"
    with socket.create_connection((sluice.host, sluice.http_port), timeout=30) as one:
        one.sendall(CALL % len(body) + body)
        assert one.recv(4096).startswith(b"HTTP/1.1 200")


def test_frames_and_bytes_are_counted(start):
    sluice = start()
    name = f"{veth.DRIVER}0"

    def port(what):
        return sluice.metric(f"sluice_dpdk_port_{what}_total", port=name)

    before = {what: port(what) for what in ("received_packets", "received_bytes", "sent_packets",
                                            "sent_bytes")}
    for _ in range(10):
        call(sluice, 100_000)
    wait_for("the received", lambda: port("received_bytes") - before["received_bytes"] > 1e6)
    received = port("received_packets") - before["received_packets"]
    assert 690 <= received < 5000  # 10 times 69 segments of 1,460 bytes, and little beside
    assert port("received_bytes") - before["received_bytes"] < 1.5e6
    wait_for("the sent", lambda: port("sent_packets") - before["sent_packets"] >= 10)
    sent = port("sent_bytes") - before["sent_bytes"]
    assert 10 * 100 < sent < 300_000  # answers and acknowledgements
    for what in ("receive_errors", "send_errors", "no_buffer_packets"):
        assert port(what) == 0, what
    # What the shard took and gave is what the device counts, once it has been looked at again.
    wait_for("both counts", lambda: sluice.metric("sluice_dpdk_received_packets_total") ==
             port("received_packets"))


def test_turns_and_buffers(start):
    sluice = start(shards=2)

    def turns(kind):
        seen = sluice.metrics(by_shard=True)
        return [seen[f'sluice_dpdk_{kind}_turns_total{{shard="{shard}"}}'] for shard in "01"]

    busy, idle = turns("busy"), turns("idle")
    wait_for("idle turns", lambda: all(b > a for a, b in zip(idle, turns("idle"))))
    for _ in range(40):  # flows of both shards
        call(sluice, 100)
    assert all(b > a for a, b in zip(busy, turns("busy")))
    assert sluice.metric("sluice_dpdk_free_buffers") > 0
    wait_for("both of one look", lambda: sluice.metric("sluice_dpdk_free_buffers") +
             sluice.metric("sluice_dpdk_used_buffers") == 2 * 16384)


def test_a_link_that_goes_and_comes(start):
    """A gauge, and a line in the log."""
    sluice = start()
    assert sluice.metric("sluice_dpdk_link_up", port=f"{veth.DRIVER}0") == 1
    call(sluice, 100)
    before = sluice.log().count("event=dpdk_link_up")
    veth.ip("link", "set", sluice.port.outside, "down")
    wait_for("down", lambda: sluice.metric("sluice_dpdk_link_up") == 0)
    assert sluice.metric("sluice_dpdk_link_bits_per_second") == 0
    wait_for("its line", lambda: f"event=dpdk_link_down port={veth.DRIVER}0" in sluice.log())
    veth.ip("link", "set", sluice.port.outside, "up")
    wait_for("up", lambda: sluice.metric("sluice_dpdk_link_up") == 1)
    wait_for("its line", lambda: sluice.log().count("event=dpdk_link_up") == before + 1)
    veth.ip("-6", "addr", "replace", f"fd77:{sluice.port.number}::1/64", "dev",
            sluice.port.outside, "nodad")
    call(sluice, 100)


def test_a_virtio_peer_is_the_link(start, tmp_path):
    """Down until somebody is at the other end, and after."""
    def edit(sluice):
        sluice.config["dpdk"]["eal"] = [
            "--no-pci", "--no-huge", "-m", "256", "--no-telemetry",
            f"--file-prefix={veth.PREFIX}-g", f"--vdev=net_vhost0,iface={tmp_path}/v,queues=1"]

    sluice = start(edit=edit)
    assert sluice.metric("sluice_dpdk_link_up", port="net_vhost0") == 0
    peer = subprocess.Popen(
        ["dpdk-testpmd", "--no-pci", "--no-huge", "-m", "128", "--no-telemetry", "-l", "0-1",
         f"--file-prefix={veth.PREFIX}-t",
         f"--vdev=net_virtio_user0,path={tmp_path}/v,queues=1", "--", "--tx-first",
         "--total-num-mbufs=2048"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_for("up", lambda: sluice.metric("sluice_dpdk_link_up") == 1)
        assert sluice.metric("sluice_dpdk_link_bits_per_second") == 10e9
    finally:
        peer.communicate(b"\n", timeout=60)
    wait_for("down", lambda: sluice.metric("sluice_dpdk_link_up") == 0)
    wait_for("its line", lambda: "event=dpdk_link_down port=net_vhost0" in sluice.log())
