"""Segments that the device cuts (TSO) and joins (LRO), over a virtio pair that does so."""

import json
import os
import subprocess

import pytest
from lib import veth
from lib.sluice import BINARY, wait_for

pytestmark = pytest.mark.skipif(not veth.ON or veth.DRIVER != "net_af_xdp",
                                reason="runs by tests/dpdk/run.py, with net_af_xdp")
PKTGEN = os.path.join(os.path.dirname(BINARY), "bin/sluice-pktgen")
EAL = ["--no-pci", "--no-huge", "--no-telemetry"]
CALLS = ["--tcp", "--rate", "50", "--connections", "4", "--signal", "traces", "--items", "300"]
BYTES = 300 * 340  # a call's, at least


@pytest.fixture
def run(start, tmp_path):
    """Calls of 100 kB to a gateway behind a virtio pair. Gives (the gateway, what the generator
    said, frames received a call)."""
    def go(device, own=()):
        def edit(sluice):
            sluice.port.up = True  # no veth pair
            sluice.config["dpdk"] |= {"packets": 8192, "eal": [
                *EAL, "-m", "512", f"--file-prefix={veth.PREFIX}-g",
                f"--vdev=net_vhost0,iface={tmp_path}/v,queues=1,{device}"]}

        sluice = start(edit=edit)
        done = subprocess.run(
            [PKTGEN, *(f"--eal={one}" for one in [*EAL, "-m", "512"]),
             f"--eal=--file-prefix={veth.PREFIX}-p",
             f"--eal=--vdev=net_virtio_user0,path={tmp_path}/v,queues=1,queue_size=1024",
             "--address", f"10.77.{sluice.port.number}.1/24", "--admin", str(sluice.admin_port),
             "--warm-up", "0", "--seconds", "1", "--json",
             "--target", f"{sluice.host}:{sluice.grpc_port}", *CALLS, *own],
            capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        seen = json.loads([one for one in done.stdout.splitlines() if one[0] == "{"][-1])
        assert (seen["failed"], seen["connections_lost"]) == (0, 0)
        assert 0 < seen["received"] == seen["sent"]
        assert sluice.metric("sluice_accepted_items_total",
                             signal="traces") == 300 * seen["received"]
        wait_for("the device's counts", lambda: sluice.metric(
            "sluice_dpdk_port_received_bytes_total") > BYTES * seen["sent"])
        return sluice, seen, sluice.metric("sluice_dpdk_port_received_packets_total") / seen["sent"]

    return go


def large(sluice):
    return sluice.metric("sluice_dpdk_large_packets_total")


def test_joined_segments_are_one_frame(run):
    sluice, seen, frames = run("tso=1")
    assert frames < BYTES / 1448 / 3
    wait_for("large frames", lambda: large(sluice) >= seen["sent"])


@pytest.mark.parametrize("device, own", [("tso=0", []), ("tso=1", ["--no-offloads"])],
                         ids=["not offered", "not wanted"])
def test_else_segments_fit_the_wire(run, device, own):
    sluice, seen, _ = run(device, own)
    wait_for("all frames", lambda: sluice.metric(
        "sluice_dpdk_port_received_packets_total") >= seen["sent"] * BYTES / 1448)
    assert large(sluice) == 0
