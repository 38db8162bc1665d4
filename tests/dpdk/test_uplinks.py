"""Two ports with one shared address: flows over each, and from one to the other."""

import socket
import threading

import pytest
from lib import netns, otlp, veth
from lib.sluice import wait_for
from lib.uplinks import VIP, VIP6, Uplinks

pytestmark = pytest.mark.skipif(not veth.ON or not netns.possible(),
                                reason="runs by tests/dpdk/run.py")
CLIENTS = 8  # of each version
once = pytest.mark.skipif(veth.DRIVER != "net_af_packet", reason="over one driver is enough")


@pytest.fixture
def scene(start):
    """(sluice, its uplinks)"""
    def two(sluice):
        sluice.port = Uplinks(network)
        sluice.config["dpdk"] = sluice.port.config()
        sluice.config["listen"] = [f"[::]:{sluice.http_port}"]
        sluice.config["datagrams"] = {"listen": [
            {"address": f"[::]:{sluice.http_port}", "signal": "traces"}]}

    with netns.Network() as network:
        sluice = start(edit=two, shards=2)
        yield sluice, sluice.port
        sluice.stop()


class Client(threading.Thread):
    """One connection that sends calls, each when the last one is acknowledged."""

    def __init__(self, uplinks, address, port):
        super().__init__(daemon=True)
        self.where, self.address, self.port = uplinks.client, address, port
        self.sent = self.acknowledged = self.spans = 0
        self.over = threading.Event()
        self.failed = None
        self.start()

    def run(self):
        try:
            with netns.inside(self.where):
                one = socket.create_connection((self.address, self.port), timeout=60)
            with one:
                while not self.over.is_set():
                    self.call(one)
                    self.over.wait(0.005)
        except Exception as error:  # told by the test
            self.failed = error

    def call(self, one):
        size = 1 + self.sent % 40  # some in several segments
        body = otlp.request("traces", size).SerializeToString()
        one.sendall(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\n"
                    b"content-type: application/x-protobuf\r\n"
                    b"content-length: %d\r\n\r\n" % len(body) + body)
        self.sent += 1
        data = b""
        while b"\r\n\r\n" not in data:
            more = one.recv(65536)
            assert more, "the connection has ended"
            data += more
        assert data.startswith(b"HTTP/1.1 200"), data
        self.acknowledged += 1
        self.spans += size


def begin(uplinks, port):
    return [Client(uplinks, address, port) for address in (VIP, VIP6) for _ in range(CLIENTS)]


def go_on(clients):
    """Until each has had calls acknowledged from here on."""
    before = [client.acknowledged for client in clients]

    def beyond():
        for client in clients:
            assert not client.failed, client.failed
        return all(client.acknowledged >= old + 5 for client, old in zip(clients, before))

    wait_for("acknowledgements", beyond)


def passed(sluice, what):
    """Frames by each port, as the device counts them."""
    return [sluice.metric(f"sluice_dpdk_port_{what}_packets_total", port=name)
            for name in sluice.port.names]


def look(sluice):
    """The counts are of now: a look at the ports later."""
    turns = sluice.metric("sluice_dpdk_port_sent_packets_total")
    wait_for("a look", lambda: sluice.metric("sluice_dpdk_port_sent_packets_total") != turns)


def test_a_link_goes_and_its_flows_go_on(scene):
    sluice, uplinks = scene
    clients = begin(uplinks, sluice.http_port)
    go_on(clients)
    # Over each, and back the way they came: neither port is one way only.
    wait_for("both", lambda: min(passed(sluice, "received") + passed(sluice, "sent")) >= 50)
    assert sluice.metric("sluice_dpdk_other_interface_packets_total") == 0
    for gone, left in ((1, 2), (2, 1)):
        moved = sluice.metric("sluice_dpdk_moved_connections_total")
        uplinks.cut(gone)
        wait_for("the link", lambda: sluice.metric("sluice_dpdk_link_up",
                                                   port=uplinks.names[gone - 1]) == 0)
        assert sluice.metric("sluice_dpdk_link_up", port=uplinks.names[left - 1]) == 1
        uplinks.spread(left)
        go_on(clients)
        assert sluice.metric("sluice_dpdk_moved_connections_total") > moved
        uplinks.connect(gone)
        wait_for("the link", lambda: sluice.metric("sluice_dpdk_link_up") == 2)
        uplinks.spread(1, 2)
        go_on(clients)
    for client in clients:
        client.over.set()
    for client in clients:
        client.join()
        assert not client.failed, client.failed
        assert client.acknowledged == client.sent  # on one connection, all through
    assert sluice.metric("sluice_connections_accepted_total") == len(clients)
    assert sluice.metric("sluice_accepted_items_total", signal="traces") == sum(
        client.spans for client in clients)


@once
def test_an_answer_leaves_where_its_call_came_in(scene):
    """The router moves flows while both links are there: none leaves by the old one."""
    sluice, uplinks = scene
    clients = begin(uplinks, sluice.http_port)
    go_on(clients)
    for side in (1, 2):
        uplinks.spread(side)
        go_on(clients)
        look(sluice)
        before = passed(sluice, "sent")
        go_on(clients)
        look(sluice)
        after = passed(sluice, "sent")
        assert after[side - 1] - before[side - 1] >= 5 * len(clients)
        assert after[2 - side] - before[2 - side] < 20  # neighbours ask
    for client in clients:
        client.over.set()
    for client in clients:
        client.join()
        assert not client.failed, client.failed


@once
def test_what_is_no_connection(scene):
    """A reset, an echo and a datagram, by each way; another interface's address is none here."""
    sluice, uplinks = scene
    for side in (1, 2):
        uplinks.spread(side)
        with netns.inside(uplinks.client):
            for address in (VIP, VIP6, f"10.90.{side}.2", f"fd90:{side}::2"):
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection((address, 9), timeout=30)
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                with socket.socket(family, socket.SOCK_DGRAM) as one:
                    one.sendto(otlp.request("traces", 3).SerializeToString(),
                               (address, sluice.http_port))
        wait_for("the datagrams",
                 lambda: sluice.metric("sluice_datagram_accepted_total") == 4 * side)
    # By the first cable to the second one's address: the router is made to.
    netns.ip("-n", uplinks.router, "route", "replace", "10.90.2.2/32", "via", "10.90.1.2")
    with netns.inside(uplinks.client), socket.socket() as one:
        one.settimeout(1)
        with pytest.raises(TimeoutError):
            one.connect(("10.90.2.2", sluice.http_port))
    assert sluice.metric("sluice_dpdk_other_interface_packets_total") >= 1
