"""The disk as last resort: what cannot be delivered is kept there, and delivered when it can be."""

import contextlib
import os
import pathlib
import subprocess
import time

import pytest
from lib import otlp, ports, wire
from lib.sluice import wait_for
from lib.upstream import Upstream

TRACES = otlp.SERVICES["traces"]


def config(port, folder, more=None, **spool):
    return {"destinations": {"up": {
        "otlp": {"endpoint": f"http://127.0.0.1:{port}"},
        "retry": {"initial": "10ms", "max": "50ms"},
        "spool": {"path": str(folder), "after": "50ms", **spool}}},
        "routes": [{"to": ["up"]}], **(more or {})}


def messages(count, items=3):
    """Each told apart by its service."""
    return [otlp.request("traces", items, service=f"s{number:05}") for number in range(count)]


def send(sluice, each):
    """The statuses of one connection's calls, one after the other."""
    client = wire.Http2(sluice.grpc_port)
    try:
        return [client.call(TRACES, wire.frame(one.SerializeToString())).grpc_status for one in each]
    finally:
        client.close()


def services(upstream):
    return [one.resource_spans[0].resource.attributes[0].value.string_value
            for one in upstream.messages(taken=True)]


def names(each):
    return [one.resource_spans[0].resource.attributes[0].value.string_value for one in each]


def wait_empty(sluice):
    wait_for("the spool to drain", sluice.spools_are_empty)


def segments(folder):
    return sorted(pathlib.Path(folder).glob("*.spool"))


def check_books(sluice):
    def total(name):
        return sluice.metric(f"sluice_{name}")

    wait_for("the spool's books", lambda: total("spool_recovered_items_total") +
             total("spooled_items_total") + total("put_back_items_total") ==
             total("unspooled_items_total") + total("spool_dropped_items_total") +
             total("spool_items"))


def test_kept_over_kill_9_and_delivered_in_order(start, tmp_path):
    port, each = ports.free()[0], messages(40)
    sluice = start(config=config(port, tmp_path / "spool"))
    assert send(sluice, each) == [0] * 40
    wait_for("the figures", lambda: sluice.metric("sluice_spool_items") == 120)
    check_books(sluice)
    sluice.kill()
    sluice.start()
    wait_for("what was found", lambda: sluice.metric("sluice_spool_recovered_items_total") == 120)
    with Upstream(port=port) as upstream:
        wait_empty(sluice)
        assert sorted(services(upstream)) == names(each)
        firsts = {}
        for at, name in enumerate(services(upstream)):
            firsts.setdefault(name, at)
        # Calls in flight together may overtake each other; one end does not pass the other.
        assert firsts[names(each)[0]] < firsts[names(each)[-1]]
        check_books(sluice)
        # It delivers again without the disk.
        wait_for("a way past the disk", lambda: (send(sluice, messages(1)), sluice.metric(
            "sluice_delivered_items_total") > sluice.metric("sluice_unspooled_items_total"))[1])
        assert not [one for one in segments(tmp_path / "spool") if one.stat().st_size > 4096]


def test_a_busy_destination_is_none_that_fails(start, tmp_path):
    """What comes out while there is no room waits for it: nothing is put back, or put last."""
    port, each = ports.free()[0], messages(60)
    settings = config(port, tmp_path / "spool")
    settings["destinations"]["up"]["otlp"]["concurrency"] = 1
    sluice = start(config=settings)
    assert send(sluice, each) == [0] * 60
    sluice.stop()
    with Upstream(port=port, judge=lambda call: {"delay": 0.01}) as upstream:
        sluice.start()
        wait_for("what was found",
                 lambda: sluice.metric("sluice_spool_recovered_items_total") == 180)
        wait_empty(sluice)
        assert services(upstream) == names(each)
        assert sluice.metric("sluice_unspooled_items_total") == 180
        assert sluice.metric("sluice_spooled_items_total") == 0


def test_sigterm_leaves_it_on_disk(start, tmp_path):
    port, each = ports.free()[0], messages(20)
    sluice = start(config=config(port, tmp_path / "spool"))
    assert send(sluice, each) == [0] * 20
    sluice.stop()
    sluice.start()
    with Upstream(port=port) as upstream:
        wait_for("all of them", lambda: set(services(upstream)) == set(names(each)))
        wait_empty(sluice)


def test_a_bit_that_flips_is_named_and_the_rest_delivered(start, tmp_path):
    port, each = ports.free()[0], messages(30)
    sluice = start(config=config(port, tmp_path / "spool"))
    assert send(sluice, each) == [0] * 30
    sluice.kill()
    files = segments(tmp_path / "spool")
    blob = bytearray(files[0].read_bytes())
    at = blob.index(b"s00011")
    blob[at] ^= 4
    files[0].write_bytes(blob)
    sluice.start()
    with Upstream(port=port) as upstream:
        wanted = set(names(each)) - {"s00011"}
        wait_for("the others", lambda: set(services(upstream)) == wanted)
        assert f'file="{files[0]}" offset=' in sluice.log() and "spool_damaged" in sluice.log()
        wait_for("the count", lambda: sluice.metric("sluice_spool_damaged_total") == 1)
        wait_empty(sluice)
        check_books(sluice)


def test_a_record_is_counted_as_spooled_once(start, tmp_path):
    """However often it is tried meanwhile: what comes out and goes in again is counted by itself."""
    port, each = ports.free()[0], messages(10)
    sluice = start(config=config(port, tmp_path / "spool"))
    assert send(sluice, each) == [0] * 10
    wait_for("attempts", lambda: sluice.metric("sluice_unspooled_items_total") >= 9)
    with Upstream(port=port):
        wait_empty(sluice)
        assert sluice.metric("sluice_spooled_items_total") == 30
        assert sluice.metric("sluice_put_back_items_total") > 0
        check_books(sluice)


def test_a_torn_tail_is_cut(start, tmp_path):
    port, each = ports.free()[0], messages(10)
    sluice = start(config=config(port, tmp_path / "spool"))
    assert send(sluice, each) == [0] * 10
    sluice.kill()
    last = [one for one in segments(tmp_path / "spool") if one.stat().st_size > 100][-1]
    os.truncate(last, last.stat().st_size - 7)
    sluice.start()
    assert "spool_tail_cut" in sluice.log() and str(last) in sluice.log()
    with Upstream(port=port) as upstream:
        wait_for("the others", lambda: set(services(upstream)) == set(names(each)[:-1]))
        wait_empty(sluice)


@contextlib.contextmanager
def small_disk(folder, size):
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder],
                      capture_output=True).returncode:
        pytest.skip("not allowed to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_refuses_and_corrupts_nothing(start, tmp_path):
    port = ports.free()[0]
    with small_disk(tmp_path / "disk", "2m") as disk:
        sluice = start(config=config(port, disk / "spool"))
        each = messages(300, items=100)
        client, statuses = wire.Http2(sluice.grpc_port), []
        while 14 not in statuses and len(statuses) < len(each):
            body = each[len(statuses)].SerializeToString()
            statuses.append(client.call(TRACES, wire.frame(body)).grpc_status)
        client.close()
        assert 14 in statuses and 0 in statuses and set(statuses) == {0, 14}
        assert "spool_refuses" in sluice.log() and "No space left" in sluice.log()
        taken = {name for name, status in zip(names(each), statuses) if status == 0}
        with Upstream(port=port) as upstream:
            wait_empty(sluice)
            assert taken <= set(services(upstream))
            assert sluice.metric("sluice_spool_damaged_total") == 0
            wait_for("room again", lambda: send(sluice, messages(1)) == [0])
        sluice.stop()


def test_full_by_its_own_bound(start, tmp_path):
    """refuse: retryable. drop_oldest: counted, the newest stay."""
    port, each = ports.free()[0], messages(80, items=600)
    assert 80 * len(each[0].SerializeToString()) > 4 << 20
    refusing = start(config=config(port, tmp_path / "refuse", max_bytes="4MiB",
                                   segment_bytes="1MiB"))
    taken = 0
    while send(refusing, each[taken:taken + 1]) == [0]:
        taken += 1
    assert 40 < taken < 80 and send(refusing, each[:1]) == [14]
    assert sum(one.stat().st_size for one in segments(tmp_path / "refuse")) <= 4 << 20
    wait_for("the gauge", lambda: refusing.metric("sluice_spool_refusing") == 1)
    with Upstream(port=port):
        wait_empty(refusing)
        wait_for("its end", lambda: refusing.metric("sluice_spool_refusing") == 0)
    refusing.kill()
    dropping = start(config=config(port, tmp_path / "drop", max_bytes="4MiB",
                                   segment_bytes="1MiB", when_full="drop_oldest"))
    assert set(send(dropping, each)) == {0}
    wait_for("the count", lambda: dropping.metric("sluice_spool_dropped_items_total") > 0)
    check_books(dropping)
    with Upstream(port=port) as upstream:
        wait_empty(dropping)
        found = services(upstream)
        assert names(each)[-1] in found and names(each)[0] not in found
        check_books(dropping)


@pytest.mark.shards
def test_what_can_never_fit_refuses_nobody_else(start, tmp_path):
    port = ports.free()[0]
    sluice = start(config=config(port, tmp_path / "spool", {"acknowledge": "spooled"},
                                 max_bytes="4MiB"))
    giant = otlp.request("traces", 1)
    giant.resource_spans[0].scope_spans[0].spans[0].name = "x" * (5 << 20)
    client = wire.Http2(sluice.grpc_port)
    waiting = client.start(TRACES)
    client.data(waiting, wire.frame(giant.SerializeToString()), end_stream=True)
    for _ in range(10):
        assert send(sluice, messages(20)) == [0] * 20
        time.sleep(0.05)
    assert client.finish(waiting).grpc_status == 14
    client.close()


def test_acknowledged_once_on_disk(start, tmp_path):
    """No answer waits for a destination, and all of it goes there by the disk."""
    port, each = ports.free()[0], messages(50)
    sluice = start(shards=2, config=config(port, tmp_path / "spool", after="1h",
                                           more={"acknowledge": "spooled"}))
    began = time.monotonic()
    assert send(sluice, each) == [0] * 50
    assert time.monotonic() - began < 30
    sluice.kill()
    sluice.start()
    with Upstream(port=port) as upstream:
        more = messages(60)[50:]
        assert send(sluice, more) == [0] * 10
        wait_for("all", lambda: set(services(upstream)) == set(names(messages(60))))
        wait_empty(sluice)
        check_books(sluice)


def test_a_key_as_long_as_a_client_likes(start, tmp_path):
    """What says where it goes has no bound on the wire; it has one on disk."""
    port = ports.free()[0]
    settings = config(port, tmp_path / "spool")
    settings["destinations"]["up"]["otlp"]["balance"] = {
        "hash": "attribute", "attribute": "service.name"}
    each = [otlp.request("traces", 3, service="s" * size) for size in (255, 256, 100_000)]
    sluice = start(config=settings)
    assert send(sluice, each) == [0] * 3
    with Upstream(port=port) as upstream:
        wait_for("all of them", lambda: set(services(upstream)) == set(names(each)))
        wait_empty(sluice)
        check_books(sluice)
        assert sluice.metric("sluice_spool_damaged_total") == 0


@pytest.mark.shards
def test_a_reload_that_changes_the_destination_keeps_the_spool(start, tmp_path):
    old, new = ports.free(2)
    each = messages(20)
    sluice = start(config=config(old, tmp_path / "spool"))
    assert send(sluice, each) == [0] * 20
    sluice.config["destinations"]["up"]["otlp"]["endpoint"] = f"http://127.0.0.1:{new}"
    sluice.reload()
    with Upstream(port=new) as upstream:
        wait_for("all of them", lambda: set(services(upstream)) == set(names(each)))
        wait_empty(sluice)


def test_a_destination_taken_out_and_put_back_finds_its_own(start, tmp_path):
    """What the process itself has left in the folder is in its books: it is no recovered item."""
    port, each = ports.free()[0], messages(20)
    sluice = start(config=config(port, tmp_path / "spool"))
    with_spool = dict(sluice.config["destinations"])
    assert send(sluice, each) == [0] * 20
    sluice.config["destinations"] = {"up": {"blackhole": {}}}
    sluice.reload()
    wait_for("its end", lambda: "spool_left" in sluice.log())
    sluice.config["destinations"] = with_spool
    sluice.reload()
    check_books(sluice)
    assert sluice.metric("sluice_spool_recovered_items_total") == 0
    with Upstream(port=port) as upstream:
        wait_for("all of them", lambda: set(services(upstream)) == set(names(each)))
        wait_empty(sluice)
        check_books(sluice)


def test_a_reload_that_is_refused_leaves_the_spool_its_settings(start, tmp_path):
    """What is wrong is found after destinations have been built: in what needs a restart."""
    port, each = ports.free()[0], messages(80, items=600)
    sluice = start(config=config(port, tmp_path / "spool", max_bytes="4MiB",
                                 segment_bytes="1MiB"))
    taken = 0
    while send(sluice, each[taken:taken + 1]) == [0]:
        taken += 1
    sluice.config["destinations"]["up"]["spool"]["max_bytes"] = "1GiB"
    sluice.config["shards"] = 2
    sluice.write_config()
    assert sluice.admin("/reload", "POST")[0] != 200
    time.sleep(1.2)  # for a second after a failure it does not even try
    assert send(sluice, each[:1]) == [14]
    sluice.config["shards"] = 1
    sluice.reload()
    wait_for("room", lambda: send(sluice, each[:1]) == [0])


@pytest.mark.parametrize("change, wanted", [
    ({"acknowledge": "spooled", "destinations": {"up": {"blackhole": {}}}},
     'acknowledge: spooled needs a spool in "up"'),
    ({"destinations": {"up": {"blackhole": {}, "spool": {"path": "a"}},
                       "two": {"blackhole": {}, "spool": {"path": "a"}}}},
     "destination up has the same path"),
    ({"destinations": {"up": {"blackhole": {}, "spool": {"path": "/proc/nowhere/x"}}}},
     "spool: /proc/nowhere/x"),
])
def test_mistakes_are_named(start, tmp_path, change, wanted):
    sluice = start(config={"destinations": {"up": {"blackhole": {}}}, "routes": [{"to": ["up"]}]})
    sluice.config.update(change)
    sluice.write_config()
    status, text = sluice.admin("/reload", "POST")
    assert status != 200 and wanted in text, text


def test_one_that_fails_does_not_hold_up_the_others(start, tmp_path):
    port, each = ports.free()[0], messages(40)
    sluice = start(config=config(port, tmp_path / "spool"))
    assert send(sluice, each) == [0] * 40
    well = []
    with Upstream(port=port, judge=lambda call: {"status": 14} if b"s00005" in call.body and
                  not well else {}) as upstream:
        wanted = set(names(each)) - {"s00005"}
        wait_for("the others", lambda: len(upstream.taken) >= 39)
        more = messages(60)[40:]
        assert send(sluice, more) == [0] * 20
        wait_for("what came later", lambda: len(upstream.taken) >= 59)
        assert set(services(upstream)) == wanted | set(names(more))
        assert "spool_put_last" in sluice.log()
        well.append(True)
        wait_empty(sluice)
        assert "s00005" in services(upstream)
        check_books(sluice)


def test_one_that_always_fails_ends_by_its_age(start, tmp_path):
    """However often it was put last, behind what is newer: its age is its own."""
    port = ports.free()[0]
    sluice = start(config=config(port, tmp_path / "spool", max_age="2s"))
    assert send(sluice, [otlp.request("traces", 3, service="poison")]) == [0]
    with Upstream(port=port, judge=lambda call: {"status": 14} if b"poison" in call.body else {}):
        def dropped():
            assert send(sluice, messages(1)) == [0]  # behind it
            return sluice.metric("sluice_spool_dropped_items_total")
        wait_for("its end", lambda: dropped() == 3)
        wait_empty(sluice)
        check_books(sluice)
    assert "spool_dropped" in sluice.log() and "items=3 reason=age" in sluice.log()


def test_an_outage_is_told_when_it_begins_and_ends(start, tmp_path):
    """One pair of lines; another so soon after is not told."""
    down = [True]
    with Upstream(judge=lambda call: {"status": 14} if down[0] else {}) as upstream:
        sluice = start(config=config(upstream.port, tmp_path / "spool"))

        def lines():
            return [line for line in sluice.log().splitlines()
                    if "event=spool_begins" in line or "event=spool_empty" in line]

        for _ in range(2):
            assert send(sluice, messages(10)) == [0] * 10
            wait_for("the beginning", lambda: len(lines()) >= 1)
            down[0] = False
            wait_empty(sluice)
            wait_for("the end", lambda: len(lines()) == 2)
            down[0] = True
    assert 'destination=up folder="' in lines()[0] and 'cause="not delivered in time"' in lines()[0]
    assert "destination=up" in lines()[1] and "items=30" in lines()[1]
