"""A sluice's DPDK port without a NIC: one end of a veth pair, its client side the other end.

Only inside a network namespace of the test's own (tests/dpdk/run.py): what is made here goes with
it. SLUICE_IO=dpdk turns it on for every test, SLUICE_DRIVER is net_af_xdp or net_af_packet.
"""

import itertools
import json
import os
import subprocess

from lib.bad_link import BadLink
from lib.trunk import Trunk

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
        self.mtu, self.options = 1500, OPTIONS[DRIVER]
        self.bad_link = None  # BadLink's arguments: the client's side lies behind one
        self.vlan = None  # of a switch that the client's side lies behind
        self.second_vlan = None  # of it: the client's side has a leg there too, 10.78.N.1
        self.relay = None

    def config(self):
        return {"eal": ["--no-pci", "--no-huge", "-m", "256", "--no-telemetry",
                        f"--file-prefix={PREFIX}-{self.number}",
                        f"--vdev={DRIVER}0,iface={self.inside}{self.options}"],
                "addresses": [f"{self.host}/24", f"fd77:{self.number}::2/64"]}

    def jumbo(self):
        """What a configuration needs for packets of 9,000 bytes."""
        self.mtu, self.options = 9000, ",blocksz=36864,framesz=9216,framecnt=2048"
        return {**self.config(), "mtu": 9000, "packets": 8192}

    def make(self):
        if self.up:
            return  # the namespace takes it down
        ip("link", "add", self.inside, "type", "veth", "peer", "name", self.outside)
        self.up = True
        ends, client = [self.inside, self.outside], self.outside
        if self.bad_link is not None or self.vlan:
            client = f"slc{self.number}"
            ip("link", "add", client, "type", "veth", "peer", "name", f"sld{self.number}")
            ends += [client, f"sld{self.number}"]
        if self.vlan:  # all frames from there are the port's
            ip("link", "set", self.inside, "addrgenmode", "none")
        for end in ends:
            # The stack sees packets as a NIC would bring them: with checksums, none larger than
            # the MTU.
            for what in ("tx", "tso", "gso", "gro", "sg"):
                subprocess.run(["ethtool", "-K", end, what, "off"], capture_output=True)
            ip("link", "set", end, "mtu", self.mtu)
            ip("link", "set", end, "up")
        ip("addr", "add", f"10.77.{self.number}.1/24", "dev", client)
        ip("-6", "addr", "add", f"fd77:{self.number}::1/64", "dev", client, "nodad")
        if self.second_vlan:
            self.relay = Trunk([self.outside, f"sld{self.number}", self.second_leg()],
                               [self.vlan, self.second_vlan])
        elif self.vlan:
            self.relay = Trunk([self.outside, f"sld{self.number}"], [self.vlan])
        elif self.bad_link is not None:
            self.relay = BadLink([self.outside, f"sld{self.number}"], **self.bad_link)

    def second_leg(self):
        """The switch's end of it."""
        leg, end = f"sle{self.number}", f"slf{self.number}"
        ip("link", "add", leg, "type", "veth", "peer", "name", end)
        for one in (leg, end):
            for what in ("tx", "tso", "gso", "gro", "sg"):
                subprocess.run(["ethtool", "-K", one, what, "off"], capture_output=True)
            ip("link", "set", one, "up")
        ip("addr", "add", f"10.78.{self.number}.1/24", "dev", leg)
        ip("-6", "addr", "add", f"fd78:{self.number}::1/64", "dev", leg, "nodad")
        return end

    def close(self):
        if self.relay:
            self.relay.stop()
            self.relay = None

    def mac(self):
        shown = subprocess.run(["ip", "-j", "link", "show", "dev", self.inside], check=True,
                               capture_output=True).stdout
        return json.loads(shown)[0]["address"]
