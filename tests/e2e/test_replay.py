"""`sluice replay` sends again what files hold: all of it, once, and says where it stopped."""

import json
import signal
import subprocess

import pytest
from lib import otlp, ports, wire
from lib.sluice import BINARY, wait_for
from lib.upstream import Upstream

TRACES = otlp.SERVICES["traces"]


def replay(*arguments, **more):
    return subprocess.run([BINARY, "replay", *map(str, arguments)], capture_output=True, text=True,
                          timeout=60, **more)


def varint(value):
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def delimited(messages):
    return b"".join(varint(len(one)) + one for one in (m.SerializeToString() for m in messages))


def write(path, messages, kind="binpb"):
    path.write_bytes(delimited(messages) if kind == "binpb" else
                     b"".join(otlp.to_json(one) + b"\n" for one in messages))
    return path


def ids(messages):
    return sorted(span.span_id for one in messages for span in otlp.items("traces", one))


def url(upstream):
    return f"http://127.0.0.1:{upstream.port}"


@pytest.mark.parametrize("http", [False, True], ids=["grpc", "http"])
def test_what_a_file_destination_wrote(start, http):
    """Into another gateway's port, as an operator does: protobuf and JSON, all signals."""
    sent = {name: [otlp.request(name, 3) for _ in range(20)] for name in otlp.SIGNALS}
    with Upstream(http) as upstream:
        for kind in ("protobuf", "json"):
            sluice = start()
            sluice.config["destinations"]["file"]["file"]["format"] = kind
            sluice.reload()
            client = wire.Http2(sluice.grpc_port)
            for name, messages in sent.items():
                for one in messages:
                    assert client.call(otlp.SERVICES[name],
                                       wire.frame(one.SerializeToString())).grpc_status == 0
            client.close()
            sluice.stop()
            upstream.calls.clear()
            files = sorted(sluice.data.iterdir())
            assert len(files) == 3
            done = replay("--to", url(upstream), *(["--http"] if http else []), *files)
            assert done.returncode == 0, done.stderr
            assert done.stderr.count("done: 100 %") == 3
            for name, messages in sent.items():
                paths = ("/v1/" + name, otlp.SERVICES[name])
                found = [otlp.REQUESTS[name].FromString(call.body[0 if http else 5:])
                         for call in upstream.calls if call.path in paths]
                assert sorted(map(str, found)) == sorted(map(str, messages))


def test_dead_letters_come_back_as_their_tenants(start, tmp_path):
    """Refused for good, kept, mended, sent again: without the headers, in the tenant's name."""
    with Upstream(judge=lambda call: {"status": 3}) as upstream:
        for kind in ("protobuf", "json"):
            folder = tmp_path / kind
            sluice = start(config={"destinations": {
                "up": {"otlp": {"endpoint": url(upstream)}, "dead_letter": "dead"},
                "dead": {"file": {"path": str(folder), "format": kind}}},
                "routes": [{"to": ["up"]}]})
            client = wire.Http2(sluice.grpc_port)
            sent = {}
            for tenant in ("gold", "free"):
                sent[tenant] = otlp.request("traces", 2)
                assert client.call(TRACES, wire.frame(sent[tenant].SerializeToString()),
                                   {"authorization": f"Bearer {tenant}-token"}).grpc_status == 0
            client.close()
            sluice.stop()
            with Upstream() as mended:
                done = replay("--to", url(mended), "--tenant-header", "X-Scope-OrgID",
                              "--header", "X-Fixed: yes", *folder.iterdir())
                assert done.returncode == 0, done.stderr
                found = {call.headers["x-scope-orgid"]: message
                         for call, message in zip(mended.calls, mended.messages())}
                assert found == sent
                assert all(call.headers["x-fixed"] == "yes" for call in mended.calls)
            checked = replay("--check", *folder.iterdir())
            assert checked.returncode == 0
            assert "2 requests, 2 of them dead letters" in checked.stdout


def test_through_a_destination_of_a_configuration(start, tmp_path):
    """Its merging, headers and retries are used; tenants do not mix; nothing else is started."""
    messages = [otlp.request("traces", 2) for _ in range(8)]
    path = write(tmp_path / "traces-1.binpb", messages)
    with Upstream(script=[{"status": 14}]) as upstream:
        sluice = start(config={"destinations": {
            "up": {"otlp": {"endpoint": url(upstream), "tenant_header": "X-Tenant"},
                   "merge": {"requests": 8, "delay": "1s"}, "retry": {"initial": "10ms"},
                   "dead_letter": "none"}, "none": {"blackhole": {}}},
            "routes": [{"to": ["up"]}]})
        done = replay("--config", sluice.folder / "config.yaml", "--destination", "up",
                      "--tenant", "acme", path)
        assert done.returncode == 0, done.stderr
        assert len(upstream.calls) == 2 and len(upstream.taken) == 1
        assert ids(upstream.messages(taken=True)) == ids(messages)
        assert upstream.taken[0].headers["x-tenant"] == "acme"
        for name, what in (("nobody", "no destination is named"),):
            done = replay("--config", sluice.folder / "config.yaml", "--destination", name, path)
            assert done.returncode == 78 and what in done.stderr


@pytest.mark.kafka
def test_into_kafka(start, broker, tmp_path):
    """By the name of a destination that is a Kafka cluster: whole, by tenant and key; a topic that
    is not there is told for each, with nothing sent."""
    broker.create("replayed-spans")
    messages = [otlp.request("traces", 2) for _ in range(200)]
    path = write(tmp_path / "traces-1.binpb", messages)
    to = {"brokers": [broker.address], "partition_by": "trace", "tenant_header": "x-tenant"}
    sluice = start(config={"destinations": {
        "main": {"kafka": {**to, "topic": "replayed-{signal}"}},
        "lost": {"kafka": {**to, "topic": "nowhere", "message_timeout": "3s"}}},
        "routes": [{"to": ["main"]}]})
    config = ["--config", sluice.folder / "config.yaml"]
    done = replay(*config, "--destination", "main", "--tenant", "acme", path)
    assert done.returncode == 0, done.stderr
    records = broker.read("replayed-spans")
    found = [(headers, otlp.REQUESTS["traces"].FromString(value))
             for _, _, value, headers in records]
    assert ids([message for _, message in found]) == ids(messages)
    assert all(headers["x-tenant"] == b"acme" for headers, _ in found)
    done = replay(*config, "--destination", "lost", "--parallel", 1, "--retry", 20,
                  write(tmp_path / "traces-2.binpb", messages[:2]))
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("A destination refused it") == 2


def test_goes_on_where_it_stopped(tmp_path):
    """What answers 14 in the end is not the file's fault: the offset says where to go on."""
    messages = [otlp.request("traces", 1) for _ in range(30)]
    path = write(tmp_path / "traces-1.binpb", messages)
    with Upstream(script=[{}] * 11, judge=lambda call: {"status": 14}) as upstream:
        done = replay("--to", url(upstream), "--parallel", 1, "--retry", 1, path)
        assert done.returncode == 75
        assert ids(upstream.messages(taken=True)) == ids(messages[:11])
    offset = int(done.stderr.split("--from ")[1].split()[0])
    assert offset == len(delimited(messages[:11]))
    with Upstream() as upstream:
        done = replay("--to", url(upstream), "--parallel", 1, "--from", offset, path)
        assert done.returncode == 0, done.stderr
        assert upstream.messages() == messages[11:]  # in their order


def test_a_signal_stops_it_with_an_offset(tmp_path):
    path = write(tmp_path / "traces-1.binpb", [otlp.request("traces") for _ in range(50)])
    with Upstream(script=[{}] * 10, judge=lambda call: {"do": "silent"}) as upstream:
        process = subprocess.Popen([BINARY, "replay", "--to", url(upstream), "--parallel", "1",
                                    path], stderr=subprocess.PIPE, text=True)
        wait_for("calls", lambda: len(upstream.calls) == 11)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 75 and "--from" in said


def test_what_is_refused_is_named_and_the_rest_is_sent(tmp_path):
    messages = [otlp.request("traces", 1, "poison" if i == 3 else "fine") for i in range(10)]
    path = write(tmp_path / "traces-1.binpb", messages)
    with Upstream(judge=lambda call: {"status": 3} if b"poison" in call.body else {}) as upstream:
        done = replay("--to", url(upstream), path)
        assert done.returncode == 1
        assert f"offset {len(delimited(messages[:3]))}: A destination refused it" in done.stderr
        assert ids(upstream.messages(taken=True)) == ids(messages[:3] + messages[4:])


@pytest.mark.parametrize("http, answer", [
    (False, {"status": 16}), (False, {"status": 7}),
    (True, {"status": 401}), (True, {"status": 403})], ids=["16", "7", "401", "403"])
def test_who_is_refused_stops(tmp_path, http, answer):
    """Every call would be refused for the same reason: what was not sent stays to be sent."""
    messages = [otlp.request("traces", 1) for _ in range(30)]
    path = write(tmp_path / "traces-1.binpb", messages)
    other = write(tmp_path / "traces-2.binpb", messages)
    with Upstream(http, script=[{}] * 3, judge=lambda call: answer) as upstream:
        done = replay("--to", url(upstream), "--parallel", 1, *(["--http"] if http else []),
                      path, other)
        assert done.returncode == 77, done.stderr
        assert len(upstream.calls) == 4
    assert "mend the credentials (--header)" in done.stderr
    assert "traces-2.binpb and what follows it is not begun" in done.stderr
    assert f"--from {len(delimited(messages[:3]))}" in done.stderr
    assert "refused for good" not in done.stderr


@pytest.mark.parametrize("kind, spoil, code, what", [
    ("binpb", lambda blob: blob[:-3], 65, "ends inside"),
    ("jsonl", lambda blob: blob[:-3], 65, "ends inside"),
    ("binpb", lambda blob: blob[:2] + b"\xff" * 8 + blob[10:], 1, "offset 0: not a request"),
    ("jsonl", lambda blob: b"{" + blob, 1, "offset 0: not a request"),
], ids=["cut", "cut-json", "spoilt", "spoilt-json"])
def test_broken_files(tmp_path, kind, spoil, code, what):
    """What stands before and behind a broken entry is sent, as long as its end can be told."""
    messages = [otlp.request("traces", 1) for _ in range(5)]
    path = write(tmp_path / f"traces-1.{kind}", messages, kind)
    path.write_bytes(spoil(path.read_bytes()))
    with Upstream() as upstream:
        done = replay("--to", url(upstream), path)
        assert done.returncode == code and what in done.stderr, done.stderr
        assert ids(upstream.messages()) == ids(messages[:4] if code == 65 else messages[1:])


def test_what_a_sender_puts_in_front_is_no_dead_letter(start, tmp_path):
    """Fields of its own where the headers of dead letters stand: nobody's tenant is taken of them."""
    message = otlp.request("traces", 1)
    forged = b"".join(varint(number << 3 | 2) + varint(len(text)) + text for number, text in
                      zip(range(101, 105), (b"grpc 3", b"gold", b"now", b"up")))
    sluice = start()
    client = wire.Http2(sluice.grpc_port)
    body = forged + message.SerializeToString()
    assert client.call(TRACES, wire.frame(body)).grpc_status == 0
    client.close()
    sluice.stop()
    files = list(sluice.data.iterdir())
    assert "1 requests, 0 of them dead letters" in replay("--check", *files).stdout
    with Upstream() as upstream:
        done = replay("--to", url(upstream), "--tenant-header", "X-Tenant", "--tenant", "me", *files)
        assert done.returncode == 0, done.stderr
        assert upstream.calls[0].headers["x-tenant"] == "me"
        assert upstream.calls[0].body[5:] == body


def test_a_segment_of_a_spool(start, tmp_path):
    """With a bit that has flipped: that entry is named and left out, the others are sent."""
    messages = [otlp.request("traces", 2, f"s{number:05}") for number in range(10)]
    sluice = start(config={"destinations": {"up": {
        "otlp": {"endpoint": f"http://127.0.0.1:{ports.free(1)[0]}"},
        "retry": {"initial": "10ms", "max": "50ms"},
        "spool": {"path": str(tmp_path / "spool"), "after": "50ms"}}}, "routes": [{"to": ["up"]}]})
    client = wire.Http2(sluice.grpc_port)
    for one in messages:
        assert client.call(TRACES, wire.frame(one.SerializeToString()),
                           {"authorization": "Bearer gold-token"}).grpc_status == 0
    client.close()
    sluice.stop()
    path = max((tmp_path / "spool").glob("*.spool"), key=lambda one: one.stat().st_size)
    assert "10 requests" in replay("--check", path).stdout
    blob = bytearray(path.read_bytes())
    blob[blob.index(b"s00003")] ^= 4
    path.write_bytes(blob)
    assert "9 requests, 0 of them dead letters, 1 damaged" in replay("--check", path).stdout
    with Upstream() as upstream:
        done = replay("--to", url(upstream), "--tenant-header", "X-Tenant", path)
        assert done.returncode == 1 and "damaged, and left out" in done.stderr, done.stderr
        assert ids(upstream.messages()) == ids(messages[:3] + messages[4:])
        assert {call.headers["x-tenant"] for call in upstream.calls} == {"gold"}


def test_mistakes_on_the_command_line(tmp_path):
    path = write(tmp_path / "traces-1.binpb", [otlp.request("traces")])
    other = write(tmp_path / "other.binpb", [otlp.request("traces")])
    to = f"http://127.0.0.1:{ports.free(1)[0]}"
    for arguments, code, what in (
            (["--to", to], 64, "name at least one file"),
            ([path], 64, "say either --to or"),
            (["--to", to, "--config", "x", "--destination", "y", path], 64, "say either"),
            (["--to", to, "--from", "x", path], 64, "not a number"),
            (["--to", to, "--from", "99999", path], 64, "no offset"),
            (["--to", to, "--signal", "spans", path], 64, "no signal"),
            (["--to", to, other], 64, "use --signal"),
            (["--to", to, tmp_path / "traces-none"], 66, "No such file"),
            (["--to", to, tmp_path], 66, "not a file"),
            (["--to", "127.0.0.1:1", path], 64, "http://host:port"),
            (["--to", "ftp://127.0.0.1:1", path], 64, "http://host:port"),
            (["--to", "http://", path], 64, "http://host:port"),
            (["--to", "http://127.0.0.1:99999", path], 64, "http://host:port"),
            (["--config", tmp_path / "none.yaml", "--destination", "x", path], 78, "none.yaml"),
            (["--nonsense"], 64, "nonsense")):
        done = replay(*arguments)
        assert (done.returncode, what in done.stderr) == (code, True), (arguments, done.stderr)
    assert "--from OFFSET" in replay("--help").stdout
    assert json.dumps(replay("--check", "--signal", "traces", other).returncode) == "0"
