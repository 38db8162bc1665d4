"""A sluice with two DPDK ports, each a cable to one router, and clients behind that: what a machine
with two uplinks has. The router spreads connections to the shared addresses over both (ECMP).

    client == router == two ports of the gateway: 10.9N.1.2 and 10.9N.2.2, fd90:1::2 and fd90:2::2

As lib.veth: only inside a network namespace of the test's own. Both gateways of IPv6 are fe80::1.
"""

import itertools
import subprocess

from lib import netns, veth

VIP, VIP6 = "203.0.113.7", "2001:db8::7"
_numbers = itertools.count(1)


class Uplinks:
    def __init__(self, network):
        self.number = next(_numbers)
        self.host = VIP
        self.router, self.client = network.host("router"), network.host("client")
        self.names = [f"{veth.DRIVER}{index}" for index in (0, 1)]
        self.inside = [f"slu{self.number}{side}" for side in "ab"]
        self.outside = [f"slr{self.number}{side}" for side in "ab"]
        self.up = False
        network.join(self.client, "10.90.9.2/24", self.router, "10.90.9.1/24")
        for host in (self.client, self.router):
            leads = {self.client: "router", self.router: "client"}[host]
            number = {self.client: 2, self.router: 1}[host]
            netns.ip("-n", host, "-6", "addr", "add", f"fd90:9::{number}/64", "dev", leads, "nodad")
        netns.ip("-n", self.client, "route", "add", "default", "via", "10.90.9.1")
        netns.ip("-n", self.client, "-6", "route", "add", "default", "via", "fd90:9::1")
        with netns.inside(self.router):
            for path in ("ipv4/ip_forward", "ipv4/fib_multipath_hash_policy",
                         "ipv6/conf/all/forwarding", "ipv6/fib_multipath_hash_policy"):
                with open(f"/proc/sys/net/{path}", "w") as file:
                    file.write("1")

    def config(self):
        return {"eal": ["--no-pci", "--no-huge", "-m", "256", "--no-telemetry",
                        f"--file-prefix={veth.PREFIX}-u{self.number}",
                        *(f"--vdev={name},iface={inside}{veth.OPTIONS[veth.DRIVER]}"
                          for name, inside in zip(self.names, self.inside))],
                "addresses": [f"{VIP}/32", f"{VIP6}/128"],
                "interfaces": [{"device": name, "gateway4": f"10.90.{side}.1",
                                "gateway6": "fe80::1",
                                "addresses": [f"10.90.{side}.2/24", f"fd90:{side}::2/64"]}
                               for side, name in enumerate(self.names, 1)]}

    def make(self):
        if self.up:
            return
        self.up = True
        for side, (inside, outside) in enumerate(zip(self.inside, self.outside), 1):
            veth.ip("link", "add", inside, "type", "veth", "peer", "name", outside)
            veth.ip("link", "set", inside, "addrgenmode", "none")
            for end in (inside, outside):
                for what in ("tx", "tso", "gso", "gro", "sg"):
                    subprocess.run(["ethtool", "-K", end, what, "off"], capture_output=True)
            veth.ip("link", "set", outside, "netns", self.router)
            veth.ip("link", "set", inside, "up")
            self.connect(side)
        self.spread(1, 2)

    def connect(self, side):
        """The router's end of a cable, with its addresses: they go when it is taken down."""
        def there(*words):
            netns.ip("-n", self.router, *words)

        outside = self.outside[side - 1]
        there("link", "set", outside, "up")
        there("addr", "replace", f"10.90.{side}.1/24", "dev", outside)
        there("-6", "addr", "replace", f"fd90:{side}::1/64", "dev", outside, "nodad")
        there("-6", "addr", "replace", "fe80::1/64", "dev", outside, "nodad")
        for version in ("4", "6"):
            via = f"10.90.{side}.2" if version == "4" else f"fd90:{side}::2"
            there("nexthop", "replace", "id", version + str(side), "via", via, "dev", outside)

    def cut(self, side):
        netns.ip("-n", self.router, "link", "set", self.outside[side - 1], "down")

    def spread(self, *sides):
        """Connections to the shared addresses go by these cables."""
        for version, vip in (("4", f"{VIP}/32"), ("6", f"{VIP6}/128")):
            netns.ip("-n", self.router, "nexthop", "replace", "id", version + "0", "group",
                     "/".join(version + str(side) for side in sides))
            netns.ip("-n", self.router, f"-{version}", "route", "replace", vip, "nhid",
                     version + "0")

    def close(self):
        pass  # the namespaces take it down
