"""A disk that does not give what is on it, and two processes that want the same files."""

import pathlib
import subprocess

import pytest
from lib import otlp, ports, wire
from lib.sluice import BINARY, PATIENCE, Sluice, wait_for
from lib.upstream import Upstream

TRACES = otlp.SERVICES["traces"]


def destination(port, folder, **more):
    return {"otlp": {"endpoint": f"http://127.0.0.1:{port}"},
            "retry": {"initial": "10ms", "max": "50ms"},
            "spool": {"path": str(folder), "after": "50ms"}, **more}


def two(ports_, tmp_path):
    """Each tenant has a destination with a spool of its own."""
    return {"answer_within": "1s", "destinations": {name: destination(port, tmp_path / name)
                             for name, port in zip(("sick", "well"), ports_)},
            "routes": [{"match": {"tenant": "gold"}, "to": ["sick"]}, {"to": ["well"]}]}


def send(sluice, name, token=None):
    client = wire.Http2(sluice.grpc_port)
    try:
        body = otlp.request("traces", 3, service=name).SerializeToString()
        return client.call(TRACES, wire.frame(body),
                           {"authorization": f"Bearer {token}"} if token else None).grpc_status
    finally:
        client.close()


def services(upstream):
    return {one.resource_spans[0].resource.attributes[0].value.string_value
            for one in upstream.messages(taken=True)}


def test_a_segment_that_the_disk_does_not_give(start, tmp_path):
    """It is put aside and named; the rest, and the neighbour, go on. It comes when it can be read."""
    numbers = ports.free(2)
    sluice = start(config=two(numbers, tmp_path))
    assert [send(sluice, "old", "gold-token"), send(sluice, "other")] == [0, 0]
    sluice.kill()
    folder = tmp_path / "sick"
    segment = max(folder.glob("*.spool"), key=lambda one: one.stat().st_size)
    segment.rename(tmp_path / "kept")
    segment.mkdir()  # what no open for writing gets through
    sluice.start()
    aside = pathlib.Path(f"{segment}.unread")
    assert aside.is_dir() and "event=spool_segment_put_aside" in sluice.log()
    wait_for("the figure", lambda: sluice.metric("sluice_spool_unread_files",
                                                 destination="sick") == 1)
    assert sluice.metric("sluice_spool_unread_files", destination="well") == 0
    assert send(sluice, "new", "gold-token") == 0
    with Upstream(port=numbers[0]) as sick, Upstream(port=numbers[1]) as well:
        wait_for("the rest", lambda: services(sick) == {"new"} and services(well) == {"other"})
        sluice.stop()
        aside.rmdir()
        (tmp_path / "kept").rename(aside)  # somebody has seen to it
        sluice.start()
        wait_for("what was aside", lambda: services(sick) == {"new", "old"})
        wait_for("its end", sluice.spools_are_empty)
        assert not list(folder.glob("*.unread"))


def test_a_folder_that_the_disk_does_not_give(start, tmp_path):
    """That destination goes without a spool until it has one; the process starts, neighbours spool."""
    numbers, folder = ports.free(2), tmp_path / "sick"
    blocked = [folder / "cursor", folder / "cursor.unread"]
    for one in blocked:
        one.mkdir(parents=True)
    sluice = start(config=two(numbers, tmp_path))
    assert f'event=spool_refuses destination=sick folder="{folder}"' in sluice.log()
    wait_for("the figure", lambda: sluice.metric("sluice_spool_refusing", destination="sick") == 1)
    assert sluice.metric("sluice_spool_refusing", destination="well") == 0
    assert send(sluice, "one", "gold-token") == 14 and send(sluice, "other") == 0
    blocked[1].rmdir()
    wait_for("a spool", lambda: send(sluice, "two", "gold-token") == 0)
    assert f'event=spool_takes_again destination=sick folder="{folder}"' in sluice.log()
    with Upstream(port=numbers[0]) as sick, Upstream(port=numbers[1]) as well:
        wait_for("all", lambda: "two" in services(sick) and services(well) == {"other"})


@pytest.mark.parametrize("which", ["spool", "ledger", "volumes"])
def test_two_processes(start, tmp_path, which):
    """Who comes second is told who has it, and ends; it may have it once that one is gone."""
    config = {"spool": {"destinations": {"up": destination(ports.free()[0], tmp_path / "it")},
                        "routes": [{"to": ["up"]}]},
              "ledger": {"ledger": {"path": str(tmp_path / "it")}},
              "volumes": {"quotas": {"volume_file": str(tmp_path / "it")}}}[which]
    first = start(config=config)
    first.reload()  # keeps what it has
    second = Sluice(tmp_path / "second", config=config)
    second.write_config()

    def ends(*arguments):
        return subprocess.run([BINARY, *arguments, second.folder / "config.yaml"],
                              capture_output=True, text=True, timeout=PATIENCE)

    assert ends("--check").returncode == 0  # looks only
    done = ends("--config")
    assert done.returncode != 0 and str(tmp_path / "it") in done.stderr
    assert f"another process has it: {first.process.pid}" in done.stderr
    first.kill()
    second.start()
    second.stop()
