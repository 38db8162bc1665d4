"""Frames of 9,000 bytes over a virtio pair, in one piece each."""

import json
import os
import subprocess

import pytest
from lib import veth
from lib.sluice import BINARY, wait_for

# Devices of its own: once is enough.
pytestmark = pytest.mark.skipif(not veth.ON or veth.DRIVER != "net_af_xdp",
                                reason="runs by tests/dpdk/run.py, with net_af_xdp")
PKTGEN = os.path.join(os.path.dirname(BINARY), "bin/sluice-pktgen")
EAL = ["--no-pci", "--no-huge", "--no-telemetry"]


def test_jumbo_frames(start, tmp_path):
    def edit(sluice):
        sluice.config["dpdk"] |= {"mtu": 9000, "packets": 8192, "eal": [
            *EAL, "-m", "512", f"--file-prefix={veth.PREFIX}-g",
            f"--vdev=net_vhost0,iface={tmp_path}/v,queues=1"]}
        sluice.config["datagrams"] = {"listen": [
            {"address": f"{sluice.port.host}:4319", "signal": "logs"}]}

    sluice = start(edit=edit)

    def run(*options):
        done = subprocess.run(
            [PKTGEN, *(f"--eal={one}" for one in [*EAL, "-m", "512"]),
             f"--eal=--file-prefix={veth.PREFIX}-p",
             f"--eal=--vdev=net_virtio_user0,path={tmp_path}/v,queues=1,queue_size=1024",
             "--address", f"10.77.{sluice.port.number}.1/24", "--admin", str(sluice.admin_port),
             "--warm-up", "0", "--seconds", "1", "--json", "--mtu", "9000",
             *options],
            capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads([one for one in done.stdout.splitlines() if one[0] == "{"][-1])

    def port(what):
        return sluice.metric(f"sluice_dpdk_port_received_{what}_total")

    seen = run("--tcp", "--rate", "50", "--connections", "4", "--signal", "traces", "--items",
               "300", "--target", f"{sluice.host}:{sluice.grpc_port}")
    assert (seen["failed"], seen["connections_lost"]) == (0, 0)
    assert 0 < seen["received"] == seen["sent"]
    assert sluice.metric("sluice_accepted_items_total", signal="traces") == 300 * seen["received"]
    wait_for("the counts", lambda: port("bytes") > 100_000 * seen["sent"])  # 345 bytes a span
    assert port("bytes") / port("packets") > 6000
    seen = run("--rate", "100", "--items", "35", "--target", f"{sluice.host}:4319")
    assert 7000 < seen["frame_bytes"] <= 9014
    assert seen["received"] == sluice.metric("sluice_datagram_received_total") > 0
    assert sluice.metric("sluice_dpdk_broken_datagrams_total") == 0
