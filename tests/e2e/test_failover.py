"""Failover groups: the first destination that works; what waits goes along, and nothing twice."""

import json
import subprocess
import threading

import pytest
from lib import otlp, ports, wire
from lib.sluice import BINARY, wait_for
from lib.upstream import Upstream


def config(a, b, after="300ms", return_after="1s", breaker=None, more=None, health=None, **group):
    def upstream(one):
        return {"otlp": {"endpoint": f"http://127.0.0.1:{one.port}",
                         **({"health": health} if health else {})},
                "retry": {"initial": "20ms", "max": "50ms"},
                **({"breaker": breaker} if breaker else {})}
    return {"destinations": {
        "a": upstream(a), "b": upstream(b),
        "both": {"failover": {"to": ["a", "b"], "after": after, "return_after": return_after,
                              **group}}},
            "routes": [{"to": ["both"]}], **(more or {})}


def send(sluice, items=2):
    client = wire.Http2(sluice.grpc_port)
    try:
        return client.call(otlp.SERVICES["traces"], wire.frame(
            otlp.request("traces", items).SerializeToString())).grpc_status
    finally:
        client.close()


def books(sluice, name):
    return {end: sluice.metric(f"sluice_{end}_items_total", destination=name)
            for end in ("taken", "delivered", "returned", "moved", "lost", "dropped", "rejected")
            if sluice.metric(f"sluice_{end}_items_total", destination=name)}


def away(sluice):
    return sluice.metric("sluice_failover_away_shards", group="both")


def spans_of(upstream):
    return [span.span_id for message in upstream.messages() for rs in message.resource_spans
            for ss in rs.scope_spans for span in ss.spans]


@pytest.mark.shards
def test_it_moves_on_and_returns(start):
    """The first fails retryably: its records go to the second, and nobody is told no. When it works
    again it is used again, by every shard."""
    down = [True]
    judge = [lambda: {"status": 14} if down[0] else {}] * 100000
    with Upstream(script=judge) as a, Upstream() as b:
        sluice = start(shards=2, config=config(a, b))
        taken = 0
        while away(sluice) < 1:
            assert send(sluice) == 0
            taken += 2
        assert a.calls and b.calls
        for _ in range(5):
            assert send(sluice) == 0
            taken += 2
        assert len(spans_of(b)) == taken == len(set(spans_of(b)))
        moved = books(sluice, "a")["moved"]
        assert books(sluice, "a") == {"taken": moved, "moved": moved}
        assert books(sluice, "b")["delivered"] == taken
        assert 'from=a to=b why=fails' in sluice.log()
        down[0] = False

        def back():
            assert send(sluice) == 0
            return away(sluice) == 0
        wait_for("the return", back)
        before = len(b.calls)
        for _ in range(10):
            assert send(sluice) == 0
        assert len(b.calls) == before and "from=b to=a why=returns" in sluice.log()
        assert sluice.metric("sluice_failover_switches_total") >= 2


def test_an_open_breaker_moves_on_at_once(start):
    with Upstream(script=[{"status": 14}] * 100000) as a, Upstream() as b:
        sluice = start(config=config(a, b, after="1h", return_after="1h",
                                     breaker={"failures": 3, "wait": "1h", "wait_max": "1h"}))
        assert send(sluice) == 0
        assert len(a.calls) == 3 and len(b.calls) == 1
        for _ in range(10):
            assert send(sluice) == 0
        assert len(a.calls) == 3 and len(b.calls) == 11
        assert "why=not_available" in sluice.log()


def test_checks_move_on_before_anything_is_sent(start):
    with Upstream() as a, Upstream() as b:
        sluice = start(config=config(a, b, health={"check": "tcp", "interval": "50ms"},
                                     return_after="100ms"))
        assert send(sluice) == 0 and len(a.calls) == 1
        a.close()
        wait_for("the checks", lambda: sluice.metric("sluice_endpoint_healthy_shards",
                                                     destination="a") == 0)
        for _ in range(5):
            assert send(sluice) == 0
        assert len(b.calls) == 5 and sluice.metric("sluice_retried_records_total") == 0
        with Upstream(port=a.port) as again:
            wait_for("the return", lambda: away(sluice) == 0)
            assert send(sluice) == 0 and len(again.calls) == 1


def test_what_was_acknowledged_goes_along(start):
    """Many wait at the first when it is given up: all of them arrive at the second, once."""
    port = ports.free()[0]

    class Nobody:
        pass
    Nobody.port = port
    with Upstream() as b:
        sluice = start(config=config(Nobody, b, after="1s", return_after="1h",
                                     more={"acknowledge": "queued"}))
        for _ in range(50):
            assert send(sluice) == 0
        wait_for("them to arrive", lambda: len(spans_of(b)) == 100)
        assert len(set(spans_of(b))) == 100
        assert books(sluice, "a").get("lost", 0) == 0
        wait_for("the books", lambda: books(sluice, "b").get("delivered") == 100)
        assert books(sluice, "a")["moved"] > 0 and books(sluice, "b")["taken"] == 100


def test_one_that_hangs_is_left(start):
    """No answer at all: who waits there is told to come again, who comes later goes elsewhere."""
    with Upstream(script=[{"do": "silent"}] * 100000) as a, Upstream() as b:
        sluice = start(config=config(a, b, after="500ms", return_after="1h",
                                     more={"answer_within": "3s"}))
        waits = threading.Thread(target=lambda: send(sluice))
        waits.start()
        wait_for("the move", lambda: away(sluice) == 1)
        for _ in range(5):
            assert send(sluice) == 0
        assert len(a.calls) == 1 and len(b.calls) == 5
        waits.join()
        sluice.clean = False  # its call is still open
        sluice.kill()


def test_both_down_and_one_comes_back(start):
    down = {"a": True, "b": True}

    def judge(name):
        return [lambda: {"status": 14} if down[name] else {}] * 100000
    with Upstream(script=judge("a")) as a, Upstream(script=judge("b")) as b:
        sluice = start(config=config(a, b, after="200ms", return_after="1h",
                                     more={"acknowledge": "queued"}))
        for _ in range(20):
            assert send(sluice) == 0
        wait_for("both to be tried", lambda: len(a.calls) > 3 and len(b.calls) > 3)
        down["b"] = False
        wait_for("all to arrive", lambda: books(sluice, "b").get("delivered", 0) +
                 books(sluice, "a").get("delivered", 0) == 40)
        assert not books(sluice, "a").get("lost") and not books(sluice, "b").get("lost")


@pytest.mark.shards
def test_a_reload_keeps_what_is_in_use(start):
    """Other settings of the group, and then no group: what waits stays where it is, and ends."""
    with Upstream(script=[{"status": 14}] * 100000) as a, Upstream() as b:
        sluice = start(shards=2, config=config(a, b, return_after="1h"))
        while away(sluice) < 1:
            assert send(sluice) == 0
        before = away(sluice)
        sluice.config.update(config(a, b, return_after="2h"))
        sluice.reload()
        assert away(sluice) == before
        sluice.config["destinations"].pop("both")
        sluice.config["routes"] = [{"to": ["b"]}]
        sluice.reload()
        assert send(sluice) == 0 and away(sluice) == 0


def test_to_another_kind_with_other_limits(start, tmp_path):
    """Records are made anew as the second destination wants them: here files of whole requests."""
    with Upstream() as a:
        a.close()
        sluice = start(config={
            "destinations": {
                "a": {"otlp": {"endpoint": f"http://127.0.0.1:{a.port}", "max_call_bytes": 1000},
                      "retry": {"initial": "20ms", "max": "50ms"}},
                "disk": {"file": {"path": str(tmp_path / "out")}},
                "both": {"failover": {"to": ["a", "disk"], "after": "100ms",
                                      "return_after": "1h"}}},
            "routes": [{"to": ["both"]}]})
        assert send(sluice, 100) == 0
        taken = books(sluice, "a")["taken"]
        assert taken == 100 == books(sluice, "a")["moved"] == books(sluice, "disk")["delivered"]
        found = []
        for path in (tmp_path / "out").glob("traces-*"):
            found += otlp.read_delimited("traces", path.read_bytes())
        spans = [s.span_id for m in found for rs in m.resource_spans for ss in rs.scope_spans
                 for s in ss.spans]
        assert len(spans) == len(set(spans)) == 100


@pytest.mark.parametrize("group, wanted", [
    (["a", "cc"], "no destination is named \"cc\"; did you mean \"c\"?"),
    (["a", "a"], "\"a\" is named twice"),
    (["a"], "names 1 destinations, not 2 to 8"),
    (["both", "a"], "both names itself"),
    (["a", "other"], "\"other\" is a group itself"),
])
def test_mistakes_are_found(tmp_path, group, wanted):
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({
        "listen": [], "admin": "",
        "destinations": {"a": {"blackhole": {}}, "c": {"blackhole": {}},
                         "other": {"failover": ["a", "c"]}, "both": {"failover": group}},
        "routes": [{"to": ["both"]}]}, indent=1))
    found = subprocess.run([BINARY, "--check", path], capture_output=True, text=True)
    assert found.returncode == 78
    lines = [line for line in (found.stdout + found.stderr).splitlines() if wanted in line]
    assert lines and lines[0].startswith(f"{path}:"), found.stdout + found.stderr
    assert int(lines[0].split(":")[1]) > 1  # with its place


@pytest.mark.parametrize("section, match", [
    ("routes", {"match": {"class": "glod"}, "to": ["a"]}),
    ("sampling", {"match": {"class": "glod"}, "mode": "proportional", "rate": "10%"}),
])
def test_classes_that_are_not_there(tmp_path, section, match):
    """Named with its line; a pattern, and a tenant without a class, need none."""
    path = tmp_path / "config.yaml"

    def check(*names):
        rules = [{**match, "match": {"class": name}} for name in names]
        path.write_text(json.dumps({
            "listen": ["127.0.0.1:4317"], "admin": "", "destinations": {"a": {"blackhole": {}}},
            "tenants": {"classes": {"gold": {}, "free": {}}}, "sampling": [], "routes": [],
            section: rules} | {"routes": (rules if section == "routes" else []) + [{"to": ["a"]}]},
                                   indent=1))
        return subprocess.run([BINARY, "--check", path], capture_output=True, text=True)
    found = check("gold", "gl*", "")
    assert found.returncode == 0, found.stderr
    found = check("gold", "glod", "free")
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if "glod" in text)
    assert found.returncode == 78
    assert found.stderr.startswith(f"{path}:{line}:"), found.stderr
    assert f'{section}: match: class: no class is named "glod", expected "gold"' in found.stderr


def test_the_last_resort_is_a_disk(start, tmp_path):
    """Region a, region b, then b's neighbour's disk: nobody is told no while all are down, what came
    meanwhile is delivered from the disk, and a region that is back is used at once."""
    a, b, c = (Upstream() for _ in range(3))
    for one in (a, b, c):
        one.close()

    def upstream(one, **more):
        return {"otlp": {"endpoint": f"http://127.0.0.1:{one.port}",
                         "health": {"check": "tcp", "interval": "50ms"}},
                "retry": {"initial": "20ms", "max": "50ms"}, **more}
    sluice = start(config={
        "destinations": {
            "a": upstream(a), "b": upstream(b),
            "c": upstream(c, spool={"path": str(tmp_path / "spool"), "after": "50ms"}),
            "all": {"failover": {"to": ["a", "b", "c"], "after": "200ms", "return_after": "1h"}}},
        "routes": [{"to": ["all"]}]})
    wait_for("the checks", lambda: sluice.log().count("endpoint_unhealthy") == 3)
    for _ in range(20):
        assert send(sluice) == 0
    assert books(sluice, "c")["taken"] == 40
    wait_for("the figures", lambda: sluice.metric("sluice_spool_items", destination="c") == 40)
    with Upstream(port=b.port) as b:
        wait_for("the checks", lambda: sluice.metric("sluice_endpoint_healthy_shards",
                                                     destination="b") == 1)
        for _ in range(5):
            assert send(sluice) == 0
        assert len(b.calls) == 5 and not sluice.spools_are_empty()
        with Upstream(port=c.port) as c:
            wait_for("the disk", sluice.spools_are_empty)
            wait_for("the books", lambda: books(sluice, "c").get("delivered") == 40)
            found = spans_of(b) + spans_of(c)
            assert len(found) == len(set(found)) == 50
