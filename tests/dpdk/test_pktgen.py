"""sluice-pktgen: against a gateway over a pair of virtio devices, and into a pcap file."""

import ipaddress
import json
import os
import struct
import subprocess

import pytest
from lib import otlp, veth
from lib.sluice import BINARY

pytestmark = pytest.mark.skipif(not veth.ON, reason="runs by tests/dpdk/run.py")
PKTGEN = os.path.join(os.path.dirname(BINARY), "bin/sluice-pktgen")
EAL = ["--no-pci", "--no-huge", "-m", "256", "--no-telemetry"]


@pytest.fixture
def run(start, tmp_path):
    """run(options): a gateway, and what the generator says of it."""
    socket = tmp_path / "v"

    def edit(sluice):
        sluice.config["dpdk"]["eal"] = [*EAL, f"--file-prefix={veth.PREFIX}-g",
                                        f"--vdev=net_vhost0,iface={socket},queues=1"]
        sluice.config["datagrams"] = {"listen": [
            {"address": f"{sluice.port.host}:4319", "signal": "logs"}]}

    def go(*options):
        sluice = start(edit=edit)
        port = sluice.grpc_port if "--tcp" in options else 4319
        done = subprocess.run(
            [PKTGEN, *(f"--eal={one}" for one in EAL), f"--eal=--file-prefix={veth.PREFIX}-p",
             f"--eal=--vdev=net_virtio_user0,path={socket},queues=1,queue_size=1024",
             "--address", f"10.77.{sluice.port.number}.1/24", "--admin", str(sluice.admin_port),
             "--target", f"{sluice.port.host}:{port}", "--warm-up", "0", "--seconds", "2", "--json",
             *options], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return sluice, json.loads([one for one in done.stdout.splitlines() if one[0] == "{"][-1])

    return go


def test_datagrams(run):
    sluice, seen = run("--rate", "500", "--flows", "50", "--sources", "5")
    assert seen["offered"] == 1000
    assert seen["offered"] == seen["received"] + seen["lost"]
    assert 0 < seen["received"] == sluice.metric("sluice_datagram_received_total")
    assert sluice.metric("sluice_accepted_items_total", signal="logs") == seen["received"]


def test_calls(run):
    sluice, seen = run("--tcp", "--rate", "200", "--connections", "40", "--signal", "traces",
                       "--items", "8")
    assert (seen["failed"], seen["connections_lost"]) == (0, 0)
    assert 0 < seen["received"] == seen["sent"]
    assert 0 < seen["p50_ms"] <= seen["p99_ms"]
    assert sluice.metric("sluice_accepted_items_total", signal="traces") == 8 * seen["received"]


def test_a_pcap_file(tmp_path):
    path = tmp_path / "d.pcap"
    subprocess.run([PKTGEN, "--pcap", path, "--target", "10.0.0.2:4319", "--address", "10.1.0.1/16",
                    "--mac", "02:00:00:00:00:02", "--packets", "500", "--flows", "100",
                    "--sources", "10", "--signal", "logs"], check=True, timeout=60)
    blob = path.read_bytes()
    assert struct.unpack("<IHH", blob[:8]) == (0xa1b2c3d4, 2, 4)
    at, flows, count = 24, set(), 0
    while at < len(blob):
        size = struct.unpack("<I", blob[at + 8:at + 12])[0]
        frame = blob[at + 16:at + 16 + size]
        at += 16 + size
        count += 1
        assert frame[:6] == bytes([2, 0, 0, 0, 0, 2])
        assert sum(struct.unpack(">10H", frame[14:34])) % 0xffff == 0  # the header's checksum
        flows.add((str(ipaddress.ip_address(frame[26:30])), frame[34:36]))
        assert struct.unpack(">H", frame[36:38])[0] == 4319
        message = otlp.REQUESTS["logs"].FromString(frame[42:])
        assert otlp.count("logs", message) == 1
    assert (count, len(flows), len({flow[0] for flow in flows})) == (500, 100, 10)
