"""Three gateways behind a router that spreads connections over them (ECMP), sharing one address."""

import socket
import threading

import h2.exceptions
import pytest
from lib import netns, otlp, wire
from lib.sluice import Sluice, wait_for

TRACES = otlp.SERVICES["traces"]
VIP, PORT = "10.77.0.1", 4317
GATEWAYS = (1, 2, 3)
CALLS_A_CONNECTION = 20

pytestmark = pytest.mark.skipif(not netns.possible(), reason="no network namespaces here")


class Scene:
    """client -- router == gateways 1, 2, 3, each with the shared address on its loopback."""

    def __init__(self, network, folder):
        self.client, self.router = network.host("client"), network.host("router")
        network.join(self.client, "10.77.1.2/24", self.router, "10.77.1.1/24")
        netns.ip("-n", self.client, "route", "add", "default", "via", "10.77.1.1")
        self.sluices = {}
        with netns.inside(self.router):
            for path, value in (("ip_forward", 1), ("fib_multipath_hash_policy", 1)):
                with open(f"/proc/sys/net/ipv4/{path}", "w") as file:
                    file.write(str(value))
        for number in GATEWAYS:
            self.add(network, folder, number)
        self.spread("add", GATEWAYS)
        netns.ip("-n", self.router, "route", "add", VIP, "nhid", 10)

    def add(self, network, folder, number):
        host = network.host(f"gw{number}")
        network.join(self.router, f"10.77.{10 + number}.1/24", host, f"10.77.{10 + number}.2/24")
        netns.ip("-n", host, "address", "add", f"{VIP}/32", "dev", "lo")
        netns.ip("-n", host, "route", "add", "default", "via", f"10.77.{10 + number}.1")
        netns.ip("-n", self.router, "nexthop", "add", "id", number, "via",
                 f"10.77.{10 + number}.2", "dev", f"gw{number}")
        sluice = Sluice(folder / f"gw{number}", shards=2, config={
            "listen": [f"{VIP}:{PORT}"], "drain_delay": "300ms",
            "connection": {"body_timeout": "500ms"}})  # of calls whose route went away
        sluice.namespace = host
        self.sluices[number] = sluice
        with netns.inside(host):
            sluice.start()

    def spread(self, verb, numbers):
        """The router's choice is by the connection's addresses and ports."""
        netns.ip("-n", self.router, "nexthop", verb, "id", 10, "group",
                 "/".join(map(str, numbers)))

    def metric(self, number, name):
        with netns.inside(self.sluices[number].namespace):
            return self.sluices[number].metric(name)

    def ready(self, number):
        with netns.inside(self.sluices[number].namespace):
            return self.sluices[number].admin("/readyz")[0] == 200

    def stop(self):
        for sluice in self.sluices.values():
            with netns.inside(sluice.namespace):
                sluice.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sluice in self.sluices.values():
            if sluice.process and sluice.process.poll() is None:
                sluice.kill()  # the test has failed


class Sender(threading.Thread):
    """Sends one message after another, each until it is acknowledged; a new connection now and
    then, and whenever the old one ends."""

    def __init__(self, client):
        super().__init__(daemon=True)
        self.client, self.acknowledged, self.statuses = client, set(), set()
        self.message = None
        self.finished = threading.Event()
        self.failed = None

    def run(self):
        try:
            with netns.inside(self.client):
                while not self.finished.is_set():
                    self.connection()
        except Exception as error:  # told by the test
            self.failed = error

    def connection(self):
        try:
            connection = wire.Http2(0, sock=socket.create_connection((VIP, PORT), timeout=5))
        except OSError:
            return  # a gateway that has gone: the next connection may lead elsewhere
        try:
            for _ in range(CALLS_A_CONNECTION):
                self.message = self.message or otlp.request("traces", 3)
                stream = connection.call(TRACES, wire.frame(self.message.SerializeToString()))
                if not stream.ended:
                    return
                self.statuses.add(stream.grpc_status)
                if stream.grpc_status != 0:
                    return
                self.acknowledged |= {s.span_id for s in
                                      self.message.resource_spans[0].scope_spans[0].spans}
                self.message = None
        except (OSError, AssertionError, h2.exceptions.ProtocolError):
            pass  # the connection ended below the call, which is sent again
        finally:
            connection.close()


@pytest.mark.shards
@pytest.mark.parametrize("first", ["connections", "route"])
def test_a_gateway_leaves(tmp_path, first):
    """Its connections are asked to go, then its route; or the other way round, which breaks them."""
    with netns.Network() as network, Scene(network, tmp_path) as scene:
        senders = [Sender(scene.client) for _ in range(8)]
        for sender in senders:
            sender.start()
        for number in GATEWAYS:
            wait_for(f"calls at {number}",
                     lambda n=number: scene.metric(n, "sluice_accepted_items_total") > 30)
        leaving = scene.sluices[2]
        leaving.process.terminate()
        if first == "route":
            wait_for("it to say so", lambda: not scene.ready(2))
            scene.spread("replace", (1, 3))
        assert leaving.process.wait(60) == 0, leaving.log()
        if first == "connections":
            scene.spread("replace", (1, 3))
        before = sum(len(s.acknowledged) for s in senders)
        wait_for("calls at the others",
                 lambda: sum(len(s.acknowledged) for s in senders) > before + 300)
        for sender in senders:
            sender.finished.set()
        for sender in senders:
            sender.join(60)
            assert sender.failed is None and not sender.is_alive(), sender.failed
            assert sender.statuses <= {0, 14}, sender.statuses  # nothing was refused for good
        scene.stop()
        acknowledged = set().union(*(s.acknowledged for s in senders))
        found = [s.span_id for sluice in scene.sluices.values() for m in sluice.files("traces")
                 for r in m.resource_spans for sc in r.scope_spans for s in sc.spans]
        print(f"acknowledged {len(acknowledged)}, found {len(found)},"
              f" twice {len(found) - len(set(found))}")
        assert acknowledged <= set(found), f"{len(acknowledged - set(found))} lost"
