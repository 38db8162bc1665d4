"""A sluice's DPDK port without a NIC: one end of a veth pair, its client side the other end.

Only inside a network namespace of the test's own (tests/dpdk/run.py): what is made here goes with
it. SLUICE_IO=dpdk turns it on for every test, SLUICE_DRIVER is net_af_xdp or net_af_packet.
"""

import itertools
import json
import os
import subprocess

ON = os.environ.get("SLUICE_IO") == "dpdk"
DRIVER = os.environ.get("SLUICE_DRIVER", "net_af_xdp")
# A frame of its ring for each packet; many, as a full ring would spill to other queues.
OPTIONS = {"net_af_xdp": "", "net_af_packet": ",blocksz=4096,framesz=2048,framecnt=16384"}
PREFIX = os.environ.get("SLUICE_PREFIX", "sluice")  # of files in /run/dpdk
_numbers = itertools.count(1)


def ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True, capture_output=True)


class Port:
    """10.77.N.2 on a port of DPDK, beside the kernel's 10.77.N.1."""

    def __init__(self):
        self.number = next(_numbers)
        self.inside, self.outside = f"sla{self.number}", f"slb{self.number}"
        self.host = f"10.77.{self.number}.2"
        self.up = False

    def config(self):
        return {"eal": ["--no-pci", "--no-huge", "-m", "256", "--no-telemetry",
                        f"--file-prefix={PREFIX}-{self.number}",
                        f"--vdev={DRIVER}0,iface={self.inside}{OPTIONS[DRIVER]}"],
                "addresses": [f"{self.host}/24", f"fd77:{self.number}::2/64"]}

    def make(self):
        if self.up:
            return  # the namespace takes it down
        ip("link", "add", self.inside, "type", "veth", "peer", "name", self.outside)
        self.up = True
        # The stack sees packets as a NIC would bring them: with checksums, none larger than the MTU.
        for what in ("tx", "tso", "gso", "gro", "sg"):
            subprocess.run(["ethtool", "-K", self.outside, what, "off"], capture_output=True)
        ip("link", "set", self.inside, "up")
        ip("link", "set", self.outside, "up")
        ip("addr", "add", f"10.77.{self.number}.1/24", "dev", self.outside)
        ip("-6", "addr", "add", f"fd77:{self.number}::1/64", "dev", self.outside, "nodad")

    def mac(self):
        shown = subprocess.run(["ip", "-j", "link", "show", "dev", self.inside], check=True,
                               capture_output=True).stdout
        return json.loads(shown)[0]["address"]
