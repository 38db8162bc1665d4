"""One thing that breaks, and what became of the items that were sent meanwhile.

A row is a function of a World; it returns an Account. Rows have a short form, which `make test`
runs, and a long one (world.long), which `make fault` runs. Whatever a row claims beside its account
it asserts itself.
"""

import pathlib
import random
import shutil
import socket
import subprocess
import threading
import time

from lib import kafka, netns, ports, spool
from lib.relay import Relay
from lib.sluice import Sluice, wait_for
from lib.tracked import Account, OverGrpc, OverHttp, acknowledged, item_ids
from lib.upstream import Upstream, retry_info


class World:
    """What rows share: a folder, one broker, and what has to be stopped in the end."""

    def __init__(self, folder, long=False, seed=0, broker=None):
        self.folder, self.long, self.seed = folder, long, seed
        self.random = random.Random(seed)
        self.own_broker, self.given_broker = None, broker
        self.held = False  # set by who judges the account
        self.running, self.logs, self.topics = [], [], 0

    @property
    def broker(self):
        if not self.given_broker:
            self.own_broker = self.given_broker = kafka.Broker(self.folder / "kafka").start()
        return self.given_broker

    def topic(self, partitions=2):
        self.topics += 1
        name = f"fault-{id(self):x}-{self.topics}"
        self.broker.create(name, partitions)
        return name

    def start(self, **arguments):
        sluice = Sluice(self.folder / f"sluice-{len(self.running)}", **arguments)
        self.running.append(sluice)
        self.logs.append(sluice.log_path)
        return sluice.start()

    def close(self):
        """Drains what still runs and checks its books; logs stay until the row is judged."""
        try:
            for sluice in self.running:
                sluice.stop()
        finally:
            self.kill()

    def kill(self):
        for sluice in self.running:
            if sluice.process and sluice.process.poll() is None:
                sluice.kill()
        self.running.clear()

    def remove(self, held):
        """Ends what a row that broke off has left; the folders go when the row held."""
        self.kill()
        if self.own_broker:
            self.own_broker.remove()
        if held:
            for log in self.logs:
                shutil.rmtree(log.parent, ignore_errors=True)


def to_kafka(brokers, topic, **more):
    return {"destinations": {"main": {"kafka": {"brokers": brokers, "topic": topic, **more}}},
            "routes": [{"to": ["main"]}]}


def clients(sluice, per_s=100, first=1, **bodies):
    """Two of each kind, running."""
    found = [OverHttp(sluice, first, per_s, **bodies), OverHttp(sluice, first + 1, per_s, **bodies),
             OverGrpc(sluice, first + 2, **bodies), OverGrpc(sluice, first + 3, **bodies)]
    for one in found:
        one.start()
    return found


def more_acknowledged(load, count=100):
    """Waits until so many more calls have been acknowledged."""
    wanted = acknowledged(load) + count
    wait_for(f"{count} acknowledgements", lambda: acknowledged(load) >= wanted, 90)


def finish(load):
    for one in load:
        one.ended.set()
    for one in load:
        one.finish()


def values(server, topic):
    return [value for _, _, value, _ in server.read(topic)]


def gateway_killed(world):
    """kill -9 of the gateway at a random moment, again and again, and started again."""
    topic = world.topic()
    sluice = world.start(shards=2, config=to_kafka([world.broker.address], topic))
    load = clients(sluice, per_s=50)
    for _ in range(50 if world.long else 3):
        more_acknowledged(load, world.random.randrange(1, 40))
        time.sleep(world.random.random() / 5)
        sluice.kill()
        sluice.start()
    more_acknowledged(load)
    finish(load)
    return Account(load, values(world.broker, topic))


def broker_killed(world):
    """kill -9 of the broker, which then comes back."""
    server = kafka.Broker(world.folder / "killed").start()
    try:
        server.create("killed")
        sluice = world.start(config=to_kafka([server.address], "killed"))
        load = clients(sluice)
        for _ in range(5 if world.long else 1):
            more_acknowledged(load)
            server.kill()
            time.sleep(world.random.random() * 2)
            server.start()
        more_acknowledged(load)
        finish(load)
        return Account(load, values(server, "killed"))
    finally:
        world.close()
        server.remove()


def leader_killed(world):
    """Three brokers, replication 3, two in sync: kill -9 of the leader under load."""
    cluster = kafka.Cluster(world.folder / "cluster").start()
    try:
        cluster.create("led", 3)
        sluice = world.start(config=to_kafka(cluster.addresses, "led"))
        load = clients(sluice)
        for _ in range(3 if world.long else 1):
            more_acknowledged(load)
            node = cluster.leader("led")
            node.kill()
            more_acknowledged(load)
            node.start()
        more_acknowledged(load)
        finish(load)
        return Account(load, values(cluster, "led"))
    finally:
        world.close()
        cluster.remove()


def broker_stopped(world):
    """The broker is stopped (SIGSTOP) for longer than answers may take, and goes on."""
    topic = world.topic()
    sluice = world.start(config={"answer_within": "1s",
                                 **to_kafka([world.broker.address], topic)})
    load = clients(sluice)
    more_acknowledged(load)
    world.broker.pause()
    try:
        time.sleep(30 if world.long else 3)
    finally:
        world.broker.resume()
    more_acknowledged(load)
    finish(load)
    wait_for("late ends", lambda: sluice.metric("sluice_destination_in_flight_items") == 0, 90)
    account = Account(load, values(world.broker, topic))
    assert account.refused[503] + account.refused[14] > 0, "nobody was told to come again"
    return account


def destination_removed(world):
    """A reload takes a destination away that has data in flight; the load goes on to another."""
    old, new = world.topic(), world.topic()
    sluice = world.start(config=to_kafka([world.broker.address], old))
    load = clients(sluice)
    for _ in range(5 if world.long else 1):
        more_acknowledged(load)
        world.broker.pause()
        try:
            wait_for("data in flight", lambda: sluice.metric("sluice_in_flight_items") > 0)
            sluice.config["destinations"] = {"next": {"kafka": {
                "brokers": [world.broker.address], "topic": new}}}
            sluice.config["routes"] = [{"to": ["next"]}]
            sluice.reload()
        finally:
            world.broker.resume()
        more_acknowledged(load)
        sluice.config.update(to_kafka([world.broker.address], old))
        sluice.reload()
    more_acknowledged(load)
    finish(load)
    return Account(load, values(world.broker, old) + values(world.broker, new))


def drained_on_a_slow_broker(world):
    """SIGTERM under load while the broker does not answer for a while."""
    topic = world.topic()
    sluice = world.start(shards=2, config={"drain_timeout": "30s",
                                           **to_kafka([world.broker.address], topic)})
    load = clients(sluice)
    for _ in range(5 if world.long else 1):
        more_acknowledged(load)
        world.broker.pause()
        try:
            wait_for("data in flight", lambda: sluice.metric("sluice_in_flight_items") > 0)
            sluice.process.terminate()
            time.sleep(1)
        finally:
            world.broker.resume()
        assert sluice.process.wait(40) == 0, sluice.log()[-2000:]
        sluice.start()
    more_acknowledged(load)
    finish(load)
    return Account(load, values(world.broker, topic))


class Deaf:
    """Takes connections and never reads."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.taken = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                self.taken.append(self.listener.accept()[0])
            except OSError:
                return

    def close(self):
        self.listener.close()
        for one in self.taken:
            one.close()


def two_destinations(world, topic, second, required, numbers):
    """Spans go to Kafka and to `second`, an OTLP upstream; log records go to Kafka alone. Returns
    the clients of spans and of log records, and the acknowledgements a second that each had."""
    config = to_kafka([world.broker.address], topic)
    config["destinations"].update({
        "logs": {"kafka": {"brokers": [world.broker.address], "topic": f"{topic}-logs"}},
        "second": {"otlp": {"endpoint": f"http://{second}"}, "pinned_bytes": "4MiB"}})
    config["routes"] = [
        {"match": {"signal": "logs"}, "to": ["logs"]},
        {"to": ["main", {"destination": "second", "required": required}]}]
    sluice = world.start(config={"answer_within": "2s", **config})
    spans = [OverHttp(sluice, number, 50) for number in numbers[:2]]
    logs = [OverHttp(sluice, number, 50, signal="logs") for number in numbers[2:]]
    for one in spans + logs:
        one.start()
    began = time.monotonic()
    time.sleep(30 if world.long else 3)
    seconds = time.monotonic() - began
    finish(spans + logs)
    assert required or sluice.metric("sluice_late_requests_total") == 0
    sluice.kill()  # what a dead one has taken stays there
    return spans, logs, acknowledged(spans) / seconds, acknowledged(logs) / seconds


def one_of_two_dead(world, required):
    """A destination that takes connections and nothing else: the others keep 95 % of the rate that
    they have while it is alive. Where it is required, these are those of the log records."""
    topic, spans, logs = world.topic(), [], []
    world.broker.create(f"{topic}-logs")
    # In the short form a stall of 150 ms is 5 %: it may try again.
    for attempt in range(0, 8 if world.long else 24, 8):
        dead, rates = Deaf(), []
        with Upstream() as alive:
            for first, second in ((1, f"127.0.0.1:{alive.port}"), (5, dead.address)):
                numbers = range(attempt + first, attempt + first + 4)
                run = two_destinations(world, topic, second, required, numbers)
                spans, logs = spans + run[0], logs + run[1]
                rates.append(run[3:] if required else run[2:])
        dead.close()
        if all(now >= 0.95 * then for then, now in zip(*rates)):
            break
    else:
        raise AssertionError(f"calls a second with it alive, and dead: {rates}")
    return (Account(spans, values(world.broker, topic)) +
            Account(logs, values(world.broker, f"{topic}-logs"), "logs"))


# What an upstream may do wrong, and how often in a row.
MISDEEDS = {
    "slow": [{"delay": 0.3}], "503": [{"status": 14}],
    "exhausted": [{"status": 8, "headers": {"grpc-status-details-bin": retry_info(8, 0.1)}}],
    "exhausted, no hint": [{"status": 8}], "garbage": [{"do": "garbage"}],
    "half-closed": [{"do": "half"}], "closed": [{"do": "close"}],
    "reset mid-stream": [{"do": "reset"}], "head only": [{"do": "head"}],
    "goaway": [{"do": "goaway"}], "late goaway": [{"do": "late_goaway"}],
}


def upstream_misbehaves(world):
    """An OTLP upstream that does every wrong thing in turn, each some times, between good answers."""
    steps = [step for each in MISDEEDS.values() for step in each] * (10 if world.long else 2)
    world.random.shuffle(steps)
    script = [one for step in steps for one in (step, {}, {})]
    with Upstream(script=script) as upstream:
        sluice = world.start(config={
            "destinations": {"up": {"otlp": {"endpoint": f"http://127.0.0.1:{upstream.port}"},
                                    "retry": {"initial": "20ms", "max": "200ms"}}},
            "routes": [{"to": ["up"]}]})
        load = clients(sluice, per_s=20)
        wait_for("all misdeeds", lambda: not upstream.script, 120)
        more_acknowledged(load, 20)
        finish(load)
        sluice.stop()
        return Account(load, upstream.messages(taken=True))


def upstream_answers_http(world):
    """The same over OTLP/HTTP: statuses with and without Retry-After, bodies cut, connections ended."""
    steps = [{"status": 503}, {"status": 503, "headers": {"retry-after": "1"}}, {"status": 429},
             {"status": 502}, {"delay": 0.3}, {"do": "close"}, {"do": "half"}, {"do": "garbage"}]
    steps *= 6 if world.long else 1
    world.random.shuffle(steps)
    with Upstream(http=True, script=[one for step in steps for one in (step, {}, {})]) as upstream:
        sluice = world.start(config={
            "destinations": {"up": {"otlp": {"endpoint": f"http://127.0.0.1:{upstream.port}",
                                             "protocol": "http"},
                                    "retry": {"initial": "20ms", "max": "200ms"}}},
            "routes": [{"to": ["up"]}]})
        load = clients(sluice, per_s=20)
        wait_for("all misdeeds", lambda: not upstream.script, 120)
        more_acknowledged(load, 20)
        finish(load)
        sluice.stop()
        return Account(load, upstream.messages(taken=True))


def bad_member_of_a_merge(world):
    """An upstream refuses for good every call that holds a certain item: the others of a merged call
    are delivered, the bad one alone is refused."""
    bad = b"poison"

    def judge(call):
        return {"status": 3} if bad in call.body else {}

    with Upstream(judge=judge) as upstream:
        sluice = world.start(config={
            "destinations": {"up": {"otlp": {"endpoint": f"http://127.0.0.1:{upstream.port}"},
                                    "merge": {"requests": 8, "delay": "20ms"}}},
            "routes": [{"to": ["up"]}]})
        good = clients(sluice, per_s=200 if world.long else 50)
        poison = OverHttp(sluice, 9, 5, service="poison")
        poison.start()
        more_acknowledged(good, 4000 if world.long else 200)
        wait_for("bad ones", lambda: sum(poison.refused.values()) >= 5)
        finish([*good, poison])
        assert not poison.acknowledged and set(poison.refused) == {400}, poison.refused
        assert not any(one.refused for one in good), [one.refused for one in good]
        assert sluice.metric("sluice_merged_records_total") > 0
        sluice.stop()
        return Account([*good, poison], upstream.messages(taken=True))


def network_cut(world):
    """The link between gateway and broker is a relay of the test's own that delays, stalls and cuts."""
    topic = world.topic()
    with Relay() as relay:
        # Whoever asks the broker is sent to the relay: it is what the broker says it listens on.
        server = kafka.Broker(world.folder / "behind")
        server.extra = f"""
advertised.listeners=PLAINTEXT://127.0.0.1:{relay.port}
"""
        relay.target = server.port
        server.start()
        try:
            server.create(topic)
            sluice = world.start(config=to_kafka([f"127.0.0.1:{relay.port}"], topic))
            load = clients(sluice)
            for _ in range(5 if world.long else 1):
                for trouble in (relay.slow, relay.stall, relay.cut):
                    more_acknowledged(load)
                    trouble(world.random.uniform(0.2, 3 if world.long else 0.5))
            more_acknowledged(load)
            finish(load)
            return Account(load, values(server, topic))
        finally:
            world.close()
            server.remove()


def spooled_to(port, folder, **spool):
    return {"destinations": {"up": {
        "otlp": {"endpoint": f"http://127.0.0.1:{port}"},
        "retry": {"initial": "10ms", "max": "50ms"},
        "spool": {"path": str(folder), "after": "50ms", **spool}}},
        "routes": [{"to": ["up"]}]}


def all_delivered(sluice):
    wait_for("an empty spool", sluice.spools_are_empty, 120)


def spool_killed(world):
    """kill -9 while nothing can be delivered and all goes to disk; in the end the upstream is there."""
    port = ports.free()[0]
    sluice = world.start(shards=2, config=spooled_to(port, world.folder / "spool"))
    load = clients(sluice, per_s=50)
    for _ in range(20 if world.long else 3):
        more_acknowledged(load, world.random.randrange(1, 60))
        sluice.kill()
        sluice.start()
    more_acknowledged(load)
    with Upstream(port=port) as upstream:
        more_acknowledged(load)
        finish(load)
        all_delivered(sluice)
        return Account(load, upstream.messages(taken=True))


def spool_disk_full(world):
    """The spool's disk (a small tmpfs) fills up while nothing can be delivered."""
    port, disk = ports.free()[0], world.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=True)
    try:
        sluice = world.start(config=spooled_to(port, disk / "spool"))
        load = clients(sluice, per_s=200, items=50)
        wait_for("a full disk", lambda: "spool_refuses" in sluice.log())
        time.sleep(5 if world.long else 0.5)
        with Upstream(port=port) as upstream:
            more_acknowledged(load)
            finish(load)
            all_delivered(sluice)
            assert sluice.metric("sluice_spool_damaged_total") == 0
            world.close()
            return Account(load, upstream.messages(taken=True))
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def spool_bit_flipped(world):
    """A byte of the spool's file changes while nobody looks: the place is named and counted, all
    others are delivered. What the one damaged entry held, and nothing else, may be missing."""
    port, folder = ports.free()[0], world.folder / "spool"
    sluice = world.start(config=spooled_to(port, folder))
    load = clients(sluice, per_s=50)
    more_acknowledged(load, 400 if world.long else 100)
    finish(load)
    sluice.kill()
    file = max(folder.glob("*.spool"), key=lambda one: one.stat().st_size)
    blob = bytearray(file.read_bytes())
    # In a body: of a damaged head nobody could tell how many items were behind it.
    at = blob.index(b"checkout", world.random.randrange(24, len(blob) * 3 // 4))
    start, body, end, items = next(one for one in spool.entries(blob) if one[2] > at)
    held = item_ids(bytes(blob[body:end]))
    assert items == len(held)
    blob[at] ^= 1 << world.random.randrange(8)
    file.write_bytes(blob)
    sluice.start()
    with Upstream(port=port) as upstream:
        all_delivered(sluice)
        wait_for("the count", lambda: sluice.metric("sluice_spool_dropped_items_total") > 0)
        assert f'file="{file}" offset={start} bytes={end - start}' in sluice.log()
        assert sluice.metric("sluice_spool_dropped_items_total") == items
        account = Account(load, upstream.messages(taken=True))
        account.lost -= len(held.intersection(account.missing))
        return account


def failing_disk(world, **flags):
    """What a gateway's environment needs for its disk to fail while a flag's file is there."""
    library = world.folder / "disk_fails.so"
    subprocess.run(["cc", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", library,
                    pathlib.Path(__file__).with_name("disk_fails.c")], check=True)
    return {"LD_PRELOAD": str(library), **{name: str(flag) for name, flag in flags.items()}}


def spool_not_synced(world):
    """The disk fails every sync: with `acknowledge: spooled` nobody is told that his data is safe,
    until syncs succeed again; what was acknowledged before and after is found, over a kill -9."""
    port, folder = ports.free()[0], world.folder / "spool"
    flag = world.folder / "sync-fails"
    sluice = world.start(config={"acknowledge": "spooled", **spooled_to(port, folder)},
                         environment=failing_disk(world, SYNC_FAILS=flag))
    load = clients(sluice, per_s=50)

    def all_refused():
        """Waits until each client was refused; answers come in the order of the calls."""
        before = [sum(one.refused.values()) for one in load]
        wait_for("refusals", lambda: all(sum(one.refused.values()) > then
                                         for one, then in zip(load, before)))

    for _ in range(10 if world.long else 2):
        more_acknowledged(load)
        flag.touch()
        sent = [one.count for one in load]
        all_refused()
        all_refused()
        wrong = [call for one, last in zip(load, sent) for call in one.acknowledged if call > last]
        assert not wrong, f"acknowledged what is on no disk: {wrong}"
        flag.unlink()
    more_acknowledged(load)
    flag.touch()
    all_refused()
    sluice.kill()
    flag.unlink()
    assert "spool_refuses" in sluice.log() and "spool_takes_again" in sluice.log()
    sluice.start()
    more_acknowledged(load)
    with Upstream(port=port) as upstream:
        finish(load)
        all_delivered(sluice)
        assert sluice.metric("sluice_spool_damaged_total") == 0
        return Account(load, upstream.messages(taken=True))


def spool_not_read(world):
    """A segment fails when it is its turn: it is put aside with what of it is gone, what is behind
    it goes on while it cannot be read, and all of it is delivered when it can."""
    port, folder = ports.free()[0], world.folder / "spool"
    flag = world.folder / "read-fails"
    sluice = world.start(config=spooled_to(port, folder),
                         environment=failing_disk(world, READ_FAILS=flag))
    load = clients(sluice, per_s=50)
    more_acknowledged(load, 400 if world.long else 50)
    flag.write_text(min(folder.glob("*.spool")).name)
    with Upstream(port=port) as upstream:
        wait_for("its name", lambda: "spool_segment_put_aside" in sluice.log())
        wait_for("the figure", lambda: sluice.metric("sluice_spool_unread_files") == 1)
        more_acknowledged(load)
        finish(load)
        wait_for("the rest", lambda: sluice.metric("sluice_spool_bytes") == 0)
        behind = Account(load, upstream.messages(taken=True))
        assert behind.found and behind.lost  # it has come, and the segment's has not
        assert sluice.metric("sluice_spool_items") >= behind.lost
        flag.unlink()
        sluice.kill()
        sluice.start()
        wait_for("what was aside",
                 lambda: sluice.metric("sluice_spool_recovered_items_total") >= behind.lost)
        all_delivered(sluice)
        assert not list(folder.glob("*.unread"))
        assert sluice.metric("sluice_spool_damaged_total") == 0
        return Account(load, upstream.messages(taken=True))


def link_down(world):
    """The cable between gateway and upstream is unplugged (a veth pair whose end goes down)."""
    with netns.Network() as network:
        gateway, behind = network.host("gateway"), network.host("upstream")
        network.join(gateway, "10.78.1.1/24", behind, "10.78.1.2/24")
        with netns.inside(behind):
            upstream = Upstream(host="10.78.1.2")
        try:
            with netns.inside(gateway):
                sluice = world.start(config={
                    "destinations": {"up": {
                        "otlp": {"endpoint": f"http://10.78.1.2:{upstream.port}"},
                        "retry": {"initial": "20ms", "max": "200ms"}}},
                    "routes": [{"to": ["up"]}]})
                load = clients(sluice, per_s=50)
                for _ in range(5 if world.long else 1):
                    more_acknowledged(load)
                    netns.ip("link", "set", "upstream", "down")
                    time.sleep(world.random.uniform(1, 8) if world.long else 1)
                    netns.ip("link", "set", "upstream", "up")
                    more_acknowledged(load)
                finish(load)
                world.close()
            return Account(load, upstream.messages(taken=True))
        finally:
            with netns.inside(gateway):
                world.close()
            upstream.close()


# number in the list of faults, name, function, arguments
ROWS = [
    ("1", "gateway: kill -9", gateway_killed, {}),
    ("2", "broker: kill -9, restarted", broker_killed, {}),
    ("3", "three brokers: leader killed", leader_killed, {}),
    ("4", "broker stopped", broker_stopped, {}),
    ("5a", "upstream misbehaves, gRPC", upstream_misbehaves, {}),
    ("5b", "upstream misbehaves, HTTP", upstream_answers_http, {}),
    ("6a", "network slow, stalled, cut", network_cut, {}),
    ("6b", "link down", link_down, {}),
    ("7a", "spool: disk full", spool_disk_full, {}),
    ("7b", "spool: kill -9", spool_killed, {}),
    ("7c", "spool: a bit flips", spool_bit_flipped, {}),
    ("7d", "spool: syncs fail", spool_not_synced, {}),
    ("7e", "spool: reads fail", spool_not_read, {}),
    ("8", "reload removes a destination", destination_removed, {}),
    ("9", "SIGTERM, slow broker", drained_on_a_slow_broker, {}),
    ("10a", "one of two dead, required", one_of_two_dead, {"required": True}),
    ("10b", "one of two dead, best effort", one_of_two_dead, {"required": False}),
    ("11", "merged call, one member bad", bad_member_of_a_merge, {}),
]
