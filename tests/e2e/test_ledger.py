"""The ledger of the real binary: sums to the item, over ends, kills, reloads and damage.

`make ledger` runs the same mix for a minute over a real Kafka.
"""

import contextlib
import json

import pytest
from lib import ledger, otlp, wire
from lib.sluice import wait_for
from test_spool import small_disk


def files(sluice, name):
    return [(signal, message) for signal in otlp.SIGNALS
            for path in sorted((sluice.folder / name).rglob(f"*{signal}*"))
            for message in otlp.read_delimited(signal, path.read_bytes())]


def destinations():
    return {name: {"file": {"path": name, "format": "protobuf"}} for name in ("main", "archive")}


@pytest.mark.shards
def test_a_mix_of_everything_adds_up(start):
    sluice = start(shards=3, tenants=ledger.tenants(), config=ledger.config(
        destinations(), ["main", {"destination": "archive", "required": False}],
        path="ledger", interval="200ms"))
    ledger.drill(sluice, 3, "main", lambda: files(sluice, "main"))


@pytest.mark.kafka
def test_usage_records_add_up_over_a_kill_with_kafka_away(start, broker):
    broker.create("usage")
    broker.create("items")
    kafka = {"brokers": [broker.address], "topic": "items"}
    sluice = start(shards=2, tenants=ledger.tenants(), config=ledger.config(
        {"main": {"file": {"path": "main"}}, "bus": {"kafka": kafka}}, ["main"], path="ledger",
        interval="200ms", usage={"destination": "bus", "topic": "usage", "interval": "300ms"}))
    tally = ledger.Tally()
    with ledger.Load(sluice, tally, clients=2):
        wait_for("some records", lambda: sluice.metric("sluice_ledger_usage_records_total") > 20)
        broker.pause()
        wait_for("records that nobody confirms",
                 lambda: sluice.metric("sluice_ledger_usage_pending_records") > 0)
        ledger.saved(sluice)
        sluice.kill()
    broker.resume()
    sluice.start()
    with ledger.Load(sluice, tally, clients=2, seed=7):
        more = sluice.metric("sluice_ledger_usage_records_total")
        wait_for("more", lambda: sluice.metric("sluice_ledger_usage_records_total") > more + 20)
    found = ledger.settled(sluice)
    sluice.stop()
    ledger.check_usage(found, broker.read("usage"))


def send(sluice, items, token="gold-token"):
    headers = {"Authorization": f"Bearer {token}"}
    return wire.post(sluice.http_port, "/v1/traces",
                     otlp.request("traces", items).SerializeToString(), headers=headers)[0]


def test_a_torn_file_is_kept_aside(start):
    sluice = start(config={"ledger": {"path": "ledger"}})
    assert send(sluice, 3) == 200
    sluice.stop()
    path = sluice.folder / "ledger"
    text = path.read_bytes()
    path.write_bytes(text[:-20])
    sluice.start()
    assert "event=ledger_refused" in sluice.log() and "torn" in sluice.log()
    assert [one.read_bytes() for one in sluice.folder.glob("ledger.refused-*")] == [text[:-20]]
    assert json.loads(sluice.admin("/tenants")[1])["tenants"] == 0
    assert send(sluice, 4) == 200
    assert ledger.settled(sluice)["gold"]["traces"]["accepted"]["items"] == 4


def test_it_starts_while_its_disk_is_full(start, tmp_path):
    """Of spools perhaps, which only a process that runs empties; saved once there is room."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        sluice = start(config={"ledger": {"path": str(disk / "ledger"), "interval": "100ms"}})
        assert send(sluice, 3) == 200
        sluice.stop()
        with open(disk / "fill", "wb", buffering=0) as fill, contextlib.suppress(OSError):
            while True:
                fill.write(bytes(4096))
        sluice.start()
        assert "event=ledger_not_saved" in sluice.log() and "No space left" in sluice.log()
        assert send(sluice, 4) == 200
        (disk / "fill").unlink()
        wait_for("a save", lambda: sluice.metric("sluice_ledger_saves_total") > 0)
        sluice.stop()
        sluice.start()
        assert ledger.settled(sluice)["gold"]["traces"]["accepted"]["items"] == 7
        sluice.stop()


def test_admin_names_tenants_and_their_accounts(start):
    sluice = start(config={"ledger": {"export": 1}})
    for items, token in ((30, "gold-token"), (2, "free-token"), (0, "nobody")):
        send(sluice, items, token)
        ledger.settled(sluice)  # who comes first is told by name
    listed = json.loads(sluice.admin("/tenants?limit=2")[1])
    assert (listed["tenants"], [one["tenant"] for one in listed["list"]]) == (3, ["gold", "free"])
    assert json.loads(sluice.admin("/tenants?skip=2")[1])["list"][0]["tenant"] == "_unknown"
    assert json.loads(sluice.admin("/tenants/gold")[1])["ledger"]["signals"]["traces"][
        "accepted"]["items"] == 30
    assert json.loads(sluice.admin("/tenants/demo")[1])["ledger"] is None
    assert sluice.admin("/tenants/demo/ledger")[1] == "null"
    assert sluice.admin("/tenants/nobody/ledger")[0] == 404
    # One is told by name, the rest is summed.
    assert sluice.metric("sluice_tenant_accepted_items_total", tenant="_other") == 2
    assert sluice.metric("sluice_tenant_accepted_items_total", tenant="gold") == 30
    assert sluice.metric("sluice_tenant_refused_requests_total", reason="unknown_credential") == 1


@pytest.mark.parametrize("settings, wanted", [
    ({"usage": {"destination": "file"}}, "needs ledger.path"),
    ({"path": "x", "usage": {"destination": "file"}}, "no kafka destination is named"),
    ({"path": "x", "usage": {}}, "say one of destination and kafka"),
    ({"path": "x", "usage": {"kafka": {"brokers": ["x:1"], "acks": "1"}}}, "acks: all"),
])
def test_settings_that_cannot_be_are_refused(start, settings, wanted):
    sluice = start()
    sluice.config["ledger"] = settings
    sluice.write_config()
    status, text = sluice.admin("/reload", "POST")
    assert status == 422 and wanted in text
