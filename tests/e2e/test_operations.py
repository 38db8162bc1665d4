"""Running it: configuration, admin, drain, TLS, books, and what a request may cost."""

import json
import os
import pathlib
import re
import signal
import ssl
import socket
import subprocess
import threading
import time
import urllib.request

import pytest
from lib import otlp, wire
from lib.sluice import BINARY, ROOT, SANITIZED, wait_for

TRACES = otlp.SERVICES["traces"]
BODY = otlp.request("traces", 2).SerializeToString()


def run(*arguments, **options):
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=30,
                          **options)


def test_command_line():
    assert run("--version").stdout.startswith("sluice ")
    assert "--config" in run("--help").stdout
    assert run("--nonsense").returncode == 64
    assert run().returncode == 64
    assert run("--check", "/nonexistent.yaml").returncode == 78


@pytest.mark.parametrize("arguments", [
    ["--help"], ["--version"], ["--reference"],
    ["--dump", "embedded.yaml"], ["--check", "embedded.yaml"]])
def test_what_could_not_be_printed_is_a_failure(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run([BINARY, *arguments], stdout=full, stderr=subprocess.PIPE, text=True,
                              timeout=60, cwd=ROOT / "config/examples")
    assert done.returncode == 70 and "No space left on device" in done.stderr


def test_other_signals_are_nothing_to_it(start):
    sluice = start()
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGWINCH):
        sluice.process.send_signal(number)
    sluice.reload()  # SIGHUP: taken in after them
    assert wire.post(sluice.http_port, "/v1/logs", b"")[0] == 200


def test_the_image_s_configuration_is_valid():
    checked = run("--check", ROOT / "docker/sluice.yaml")
    assert checked.returncode == 0, checked.stderr


def test_the_manifest_s_configuration_fits_its_memory(tmp_path):
    """docker/kubernetes: valid, without warnings, and at worst within the container's limit, of
    which `auto` takes a quarter for bodies."""
    manifest = (ROOT / "docker/kubernetes/sluice.yaml").read_text()
    config = re.search(r"  sluice.yaml: \|\n((?:    .*\n)+)", manifest)[1]
    cores, mib = (int(re.search(rf"limits: {{cpu: \"(\d+)\", memory: (\d+)Gi}}", manifest)[i])
                  for i in (1, 2))
    mib *= 1024
    (tmp_path / "tenants.yaml").write_text("tenants: {demo: {}}\n")
    path = tmp_path / "sluice.yaml"
    path.write_text(config.replace("    ", "", 1).replace("\n    ", "\n").replace(
        "memory_budget: auto", f"memory_budget: {mib // 4 // cores}MiB\nshards: {cores}").replace(
        "/etc/sluice/tenants/", ""))
    assert run("--check", path).stderr == ""
    # The program itself, its libraries and what allocators keep take the rest.
    assert worst_of(path)["in all"] < 0.85 * mib


def test_example_is_valid_and_dump_loads_again(tmp_path):
    example = ROOT / "config/examples/embedded.yaml"
    checked = run("--check", example)
    assert checked.returncode == 0, checked.stderr
    dumped = run("--dump", example)
    assert dumped.returncode == 0
    again = tmp_path / "again.yaml"
    again.write_text(dumped.stdout)
    (tmp_path / "embedded-tenants.yaml").write_text(
        (ROOT / "config/examples/embedded-tenants.yaml").read_text())
    second = run("--dump", again)
    assert second.returncode == 0, second.stderr


def worst_of(path):
    """{'bodies': MiB} as --check tells it, whose sum is what it says."""
    found = run("--check", path)
    assert found.returncode == 0, found.stderr
    line = found.stdout.splitlines()[2]
    parts = {name.strip(" :"): float(size) for size, name in
             re.findall(r"([0-9.]+) ([^0-9,:]+)", line.split("MiB:")[1])}
    assert abs(sum(v for k, v in parts.items() if k != "in all") - parts["in all"]) < 0.5
    return parts


def dpdk_config(folder):
    path = folder / "dpdk.yaml"
    path.write_text(MINIMAL + "io: dpdk\nshards: 2\n"
                    "dpdk: {addresses: [10.0.0.2/24], packets: 10000}\n")
    return path


def test_the_worst_of_memory_is_all_that_the_configuration_bounds(tmp_path):
    """Each part as its settings have it, and their sum."""
    def worst(**changes):
        text = {"producers": 3, "queue": "64MiB", "records": 16384, "segment": "1MiB",
                "accounts": 1000, "shards": 2, "budget": "64MiB", "connections": 1000} | changes
        path = tmp_path / "config.yaml"
        path.write_text("""
listen: ['127.0.0.1:4317']
shards: {shards}
memory_budget: {budget}
limits: {{connections: {connections}}}
ledger: {{accounts: {accounts}}}
destinations:
  main:
    kafka: {{brokers: ['127.0.0.1:9092'], producers: {producers}, queue_bytes: {queue},
            queue_records: {records}}}
    spool: {{path: spool, segment_bytes: {segment}, max_bytes: 1GiB}}
routes: [{{to: [main]}}]
""".format(**text))
        return worst_of(path)
    first = worst()
    assert first["bodies"] == 2 * 64 and first["connections"] == round(2 * 1000 * 80 / 1024, 1)
    assert first["Kafka's queues"] == 3 * (64 + 16384 * 512 / 2 ** 20)
    assert first["out of spools"] == 8 + 1  # what may be out at a time, and one more
    for change, part, by in (({"producers": 4}, "Kafka's queues", 64 + 8),
                             ({"queue": "80MiB"}, "Kafka's queues", 3 * 16),
                             ({"records": 32768}, "Kafka's queues", 3 * 8),
                             ({"segment": "3MiB"}, "out of spools", 2),
                             ({"budget": "80MiB"}, "bodies", 2 * 16)):
        second = worst(**change)
        assert second[part] - first[part] == by and second["in all"] > first["in all"], change
        assert {k: v for k, v in second.items() if k not in (part, "in all")} == {
            k: v for k, v in first.items() if k not in (part, "in all")}, change
    if "no DPDK" not in run("--check", dpdk_config(tmp_path)).stderr:
        # A buffer is 2 KiB of room and what DPDK and the stack keep beside it; a stack 48 MiB.
        parts = worst_of(dpdk_config(tmp_path))
        assert first["ports of DPDK"] == 0
        assert 2 * 48 + 10000 * (2048 + 300) / 2 ** 20 < parts["ports of DPDK"] < (
            2 * 48 + 10000 * (2048 + 450) / 2 ** 20)
    # A row is 128 bytes, its name 255, and what is counted beside it 4 times 32, at the least.
    assert worst(accounts=101000)["ledger"] - first["ledger"] > 2 * 100000 * 511 / 2 ** 20


def test_reference_is_up_to_date():
    assert run("--reference").stdout == (ROOT / "config/REFERENCE.md").read_text()


MINIMAL = ("listen: ['127.0.0.1:4317']\ndestinations: {main: {blackhole: {}}}\n"
           "routes: [{to: [main]}]\n")
KAFKA = MINIMAL.replace("blackhole: {}", "kafka: {brokers: ['127.0.0.1:9092'], %s}")


@pytest.mark.parametrize("text, line, words", [
    ("shard: 1\n", 1, ["shard", "shards"]),
    ("shards: 1\nshards: 2\n", 2, ["shards", "twice"]),
    ("shards: many\n", 1, ["shards"]),
    ("answer_within: 4\n", 1, ["answer_within", "duration"]),
    ("routes: [{to: [nowhere]}]\ndestinations: {main: {blackhole: {}}}\n", 1, ["nowhere"]),
    ("limits: {body_bytes: 1}\n", 1, ["body_bytes"]),
    ("limits: {body_bytes: 64MiB}\nlisten: [':4317']\nadmin: ''\n"
     "destinations: {main: {blackhole: {}}}\nroutes: [{to: [main]}]\n", 1,
     ["body_bytes", "memory_budget"]),
    ("admin: ${env:SLUICE_NO_SUCH_VARIABLE}\n", 1, ["SLUICE_NO_SUCH_VARIABLE"]),
    ("listen: [\n", 2, []),
    ("listen: ['127.0.0.1:4317', '127.0.0.1:4317']\n", 1, ["127.0.0.1:4317", "taken"]),
    ("listen:\n  - 127.0.0.1:4317\n  - 0.0.0.0:4317\n", 3, ["0.0.0.0:4317", "taken"]),
    ("listen: [':4317', '127.0.0.1:4317']\n", 1, ["127.0.0.1:4317", "taken"]),
    (MINIMAL + "admin: '127.0.0.1:4317'\n", 4, ["admin", "listen"]),
    (MINIMAL + "tenants: {default: nobody}\n", 4, ["tenants.default", "nobody"]),
    (MINIMAL + "tenants: {identify: [{by: claim}]}\n", 4, ["identify"]),
    (KAFKA % "topic: 'otlp_{signl}'", 2, ["topic", "{signl}", "{signal}"]),
    (KAFKA % "topic: 'a b'", 2, ["topic"]),
    (KAFKA % "topic: ''", 2, ["topic"]),
    (KAFKA % "tls: {ca_file: /nonexistent/ca}", 2, ["/nonexistent/ca", "No such file"]),
    (KAFKA % "sasl: {username: u, password: <secret>}", 2, ["password", "--dump"]),
    (MINIMAL.replace("blackhole: {}", "file: {path: /etc/passwd}"), 2, ["/etc/passwd", "Not a dir"]),
    (MINIMAL.replace("blackhole: {}", "file: {path: /etc/passwd/x}"), 2, ["/etc/passwd/x"]),
    ("listen: [{address: ':1', tls: {certificates: [{certificate_file: /no/c, key_file: /no/k}]}}]"
     "\ndestinations: {main: {blackhole: {}}}\nroutes: [{to: [main]}]\n", 1, ["/no/c"]),
])
def test_config_mistakes_are_named(tmp_path, text, line, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    done = run("--check", path)
    assert done.returncode == 78
    assert f"bad.yaml:{line}:" in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_metrics_of_the_process(shared):
    """Under the names that every Prometheus dashboard knows, and as the system says."""
    proc = pathlib.Path(f"/proc/{shared.process.pid}")
    assert abs(shared.metric("process_open_fds") - len(list((proc / "fd").iterdir()))) <= 4
    assert shared.metric("process_max_fds") >= 1024
    resident = int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    assert 0.5 < shared.metric("process_resident_memory_bytes") / resident < 2
    assert shared.metric("process_virtual_memory_bytes") > resident
    assert abs(shared.metric("process_start_time_seconds") - proc.stat().st_mtime) < 5
    before = shared.metric("process_cpu_seconds_total")
    wait_for("CPU time", lambda: shared.metric("process_cpu_seconds_total") > before > 0)
    text = shared.admin("/metrics")[1]
    assert text.count("# TYPE process_cpu_seconds_total counter\n") == 1


def test_reload_changes_all_or_nothing(start):
    sluice = start()
    good = dict(sluice.config)
    sluice.config["routes"] = [{"to": ["nowhere"]}]
    sluice.write_config()
    sluice.process.send_signal(signal.SIGHUP)
    wait_for("the refusal", lambda: sluice.metric("sluice_config_reloads_total", result="failure"))
    assert wire.post(sluice.http_port, "/v1/traces", BODY)[0] == 200
    sluice.config = dict(good, routes=[{"drop": True}])
    sluice.reload()
    wait_for("the drop", lambda: wire.post(sluice.http_port, "/v1/traces", BODY)[0] == 200 and
             sluice.metric("sluice_dropped_by_rule_items_total") > 0)


def test_admin(shared):
    assert shared.admin("/healthz")[0] == 200
    assert shared.admin("/livez")[0] == 200
    assert shared.admin("/readyz")[0] == 200
    assert "gold-token" not in shared.admin("/config")[1]
    assert shared.admin("/nonsense")[0] == 404
    assert shared.admin("/metrics", "DELETE")[0] == 405
    assert shared.admin("/log-level?level=debug", "POST")[0] == 200
    assert shared.admin("/log-level?level=loud", "POST")[0] in (400, 422)
    assert shared.admin("/log-level?level=info", "POST")[0] == 200
    metrics = shared.metrics()
    for name in ("sluice_memory_budget_bytes", "sluice_memory_used_bytes"):
        assert metrics[name] >= 0
    assert any(series.startswith("sluice_build_info{") for series in metrics)


@pytest.mark.parametrize("text, told", [
    ("dpdk: {vlan: 7}", "dpdk has no effect here: only with `io: dpdk`"),
    ("poll: {busy: true, spin: 1ms}", "poll.spin has no effect here: not with `busy`"),
    ("ledger: {interval: 1s}", "ledger.interval has no effect"),
    ("quotas: {without_redis: open}", "quotas.without_redis has no effect here: only with `redis`"),
    ("tenants: {template: x, classes: {x: {}}}", "tenants.template has no effect"),
    ("tenants: {identify: [{by: credential, trusted_from: [10.0.0.0/8]}]}",
     "tenants.identify.trusted_from has no effect"),
    ("tenants: {classes: {x: {quota: {algorithm: leaky, burst: 2s}}}}",
     "tenants.classes.x.quota.burst has no effect"),
    ("sampling: [{mode: proportional, rate: 1%, seed: 4}]", "sampling.seed has no effect"),
    ("destinations: {main: {otlp: {endpoint: 'http://x:1', health: {path: /up}}}}",
     "main.otlp.health.path has no effect here: only with `check: http`"),
    ("destinations: {main: {otlp: {endpoint: 'http://x:1', tls: {}}}}", "otlp: tls has no effect"),
    ("destinations: {main: {otlp: {endpoint: 'http://x:1', merge_compressed: true}}}",
     "main.otlp.merge_compressed has no effect"),
    ("destinations: {main: {blackhole: {}, retry: {initial: 1s}}}",
     "main.retry has no effect here: not with `blackhole`"),
])
def test_what_has_no_effect_is_told(tmp_path, text, told):
    """With its place; and it is no mistake. Where it has one, nothing is told."""
    path = tmp_path / "config.yaml"
    lines = [line for line in MINIMAL.splitlines() if line.split(":")[0] != text.split(":")[0]]
    path.write_text("\n".join([*lines, text, ""]))
    checked = run("--check", path)
    assert checked.returncode == 0, checked.stderr
    assert re.fullmatch(rf"{path}:{len(lines) + 1}:\d+: warning: .*{re.escape(told)}.*\n",
                        checked.stderr), checked.stderr
    assert run("--check", ROOT / "config/examples/embedded.yaml").stderr == ""
    dumped = run("--dump", path).stdout  # it names all settings, and most as they are preset
    path.write_text(dumped)
    assert run("--check", path).stderr.count("warning: ") <= 1


def test_a_reload_tells_what_has_no_effect_and_all_that_needs_a_restart(start):
    sluice = start()
    good = dict(sluice.config)
    sluice.config["poll"] = {"busy": True, "spin": "1ms"}
    sluice.config["memory_budget"] = "80MiB"
    sluice.write_config()
    status, text = sluice.admin("/reload", "POST")
    assert status == 422
    lines = sorted(line.split(": ", 1)[1] for line in text.splitlines())
    assert lines == ["memory_budget: needs a restart: it is 64MiB now, and would be 80MiB",
                     "poll.busy: needs a restart: it is false now, and would be true",
                     "poll.spin: needs a restart: it is 0s now, and would be 1ms"]
    assert all(re.match(r"[^:]+:\d+:\d+: ", line) for line in text.splitlines())
    assert "event=config_warning" in sluice.log()
    sluice.config = good
    sluice.reload()


def test_every_metric_is_in_the_reference(start):
    """With its type and its labels, and named as Prometheus would have it: who only grows ends in
    _total, nobody else does."""
    sluice = start(shards=2, config={
        "datagrams": {"listen": ["127.0.0.1:0"]},
        "destinations": {"file": {"file": {"path": "out"}, "spool": {"path": "spool"}},
                         "up": {"otlp": {"endpoint": "http://127.0.0.1:1"}},
                         "both": {"failover": ["up", "file"]}},
        "routes": [{"to": ["both"]}]})
    wait_for("a delivery", lambda: wire.post(sluice.http_port, "/v1/traces", BODY)[0] == 200)
    wire.post(sluice.http_port, "/v1/traces", b"x")
    text = sluice.admin("/metrics")[1]
    said = {name: (kind, set(filter(None, labels.split(", ")))) for name, kind, labels in re.findall(
        r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([\w, ]*) \|",
        (ROOT / "config/REFERENCE.md").read_text(), re.M)}
    assert len(said) > 200
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M):
        assert said[name][0] == kind, name
        assert name.endswith("_total") == (kind == "counter"), name
        for labels in re.findall(rf"^{name}(?:_bucket|_sum|_count)?(?:{{(.*)}})? \S+$", text, re.M):
            assert set(re.findall(r'(\w+)="', labels)) - {"le"} == said[name][1], name


def test_metrics_as_openmetrics(shared):
    call = urllib.request.Request(f"http://127.0.0.1:{shared.admin_port}/metrics", headers={
        "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3"})
    with urllib.request.urlopen(call, timeout=10) as answer:
        text = answer.read().decode()
        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1")
    assert text.endswith("\n# EOF\n") and text.count("# EOF") == 1
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    assert families["sluice_requests"] == "counter" and not any(
        name.endswith("_total") for name in families)
    assert "process_cpu_seconds_total " in text


def test_metrics_are_wellformed(shared):
    seen = set()
    family = None
    series = [line.rsplit(" ", 1)[0] for line in shared.admin("/metrics")[1].splitlines()
              if line and not line.startswith("#")]
    assert len(series) == len(set(series)), "a series twice"
    for line in shared.admin("/metrics")[1].splitlines():
        if line.startswith("# TYPE "):
            family = line.split(" ")[2]
            assert family not in seen, f"{family} twice"
            seen.add(family)
        elif line and not line.startswith("#"):
            assert line.split("{")[0].split(" ")[0].startswith(family.removesuffix("_total"))


def test_a_drain_turns_new_connections_away(start):
    """They fail over at once instead of waiting in a queue that nobody serves."""
    sluice = start()
    assert sluice.admin("/drain", "POST")[0] == 202

    def refused():
        try:
            wire.post(sluice.http_port, "/v1/traces", BODY)
        except OSError:
            return True
        return False

    wait_for("the refusal", refused)


def test_a_drain_by_its_verb_leaves_the_process(start, tmp_path):
    """Nobody is told that it stops, the metrics stay, and SIGTERM ends it at once."""
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(tmp_path / "notify"))
    told.settimeout(10)
    sluice = start(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert b"READY=1" in told.recv(4096)
    client = wire.Http2(sluice.grpc_port)
    assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
    for _ in range(2):
        assert sluice.admin("/drain", "POST")[0] == 202
    assert client.pump(lambda: client.closed)
    client.close()
    wait_for("no connection", lambda: sluice.metric("sluice_connections_open") == 0)
    assert sluice.metric("sluice_draining") == 1 and sluice.process.poll() is None
    told.setblocking(False)
    with pytest.raises(BlockingIOError):
        while b"STOPPING" not in told.recv(4096):
            pass
    sluice.check_books()
    sluice.process.send_signal(signal.SIGTERM)
    assert sluice.process.wait(20) == 0
    assert b"STOPPING=1" in told.recv(4096)
    told.close()


@pytest.mark.shards
def test_drain_answers_what_was_taken(start):
    sluice = start(shards=2)
    clients = [wire.Http2(sluice.grpc_port) for _ in range(6)]
    half = []
    for client in clients:
        assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
        number = client.start(TRACES)
        client.data(number, wire.frame(BODY)[:25])
        half.append(number)
    sluice.process.send_signal(signal.SIGTERM)
    for client, number in zip(clients, half):
        assert client.pump(lambda: client.goaways)
        client.data(number, wire.frame(BODY)[25:], end_stream=True)
        assert client.finish(number).grpc_status == 0
    assert sluice.process.wait(30) == 0, sluice.log()
    assert len(sluice.files("traces")) == 12


def test_drain_with_nothing_open_is_quick(start):
    sluice = start()
    began = time.monotonic()
    sluice.process.send_signal(signal.SIGTERM)
    assert sluice.process.wait(30) == 0
    assert time.monotonic() - began < 20


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA, a server certificate for localhost, and a client's."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
            "-subj", "/CN=test ca", "-days", "30")
    for name, alt in (("server", "DNS:localhost,IP:127.0.0.1"), ("client", "DNS:gold")):
        (folder / f"{name}.ext").write_text(f"subjectAltName={alt}\n")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out",
                f"{name}.csr", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
                "-CAcreateserial", "-out", f"{name}.pem", "-days", "30", "-extfile", f"{name}.ext")
    return folder


def tls_client(port, certificates, alpn, client=None):
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    context.set_alpn_protocols([alpn])
    if client:
        context.load_cert_chain(certificates / f"{client}.pem", certificates / f"{client}.key")
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10),
                               server_hostname="localhost")


def tls_config(certificates, **more):
    return {"certificates": [{"certificate_file": str(certificates / "server.pem"),
                              "key_file": str(certificates / "server.key")}], **more}


@pytest.mark.shards
def test_tls(start, certificates):
    sluice = start(shards=2)
    assert sluice.config["listen"]
    sluice.stop()
    sluice = start(config={"listen": [
        {"address": f"127.0.0.1:{sluice.grpc_port}", "tls": tls_config(certificates)},
        f"127.0.0.1:{sluice.http_port}"]})
    sluice.grpc_port = int(sluice.config["listen"][0]["address"].split(":")[1])
    sock = tls_client(sluice.grpc_port, certificates, "h2")
    assert sock.selected_alpn_protocol() == "h2"
    client = wire.Http2(None, sock=sock)
    large = otlp.request("traces", 5000).SerializeToString()
    for body in (BODY, large):
        assert client.call(TRACES, wire.frame(body)).grpc_status == 0
    client.close()
    sock = tls_client(sluice.grpc_port, certificates, "http/1.1")
    sock.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
                 b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
    assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    sock.close()
    assert sluice.metric("sluice_tls_certificate_expiry_timestamp_seconds") > time.time()


def test_mtls(start, certificates):
    sluice = start()
    port = sluice.grpc_port
    sluice.stop()
    sluice = start(config={"listen": [{"address": f"127.0.0.1:{port}", "tls": tls_config(
        certificates, client_ca_file=str(certificates / "ca.pem"), require_client=True)}]})
    client = wire.Http2(None, sock=tls_client(port, certificates, "h2", "client"))
    assert client.call(TRACES, wire.frame(BODY)).grpc_status == 0
    client.close()
    with pytest.raises((OSError, AssertionError)):
        sock = tls_client(port, certificates, "h2")
        other = wire.Http2(None, sock=sock)
        assert other.call(TRACES, wire.frame(BODY)).grpc_status == 0


@pytest.mark.shards
def test_books_balance_after_everything_mixed(start):
    """Good, bad, refused, sampled, dropped, cut, over a reload: sums are exact (checked at stop)."""
    sluice = start(shards=2, config={
        "sampling": [{"match": {"signal": "traces", "service": "checkout"}, "mode": "proportional",
                      "rate": "50%"}],
        "routes": [{"match": {"signal": "metrics"}, "drop": True}, {"to": ["file"]}]})
    sent = {"traces": 0, "metrics": 0, "logs": 0}

    def work(seed):
        client = wire.Http2(sluice.grpc_port)
        for index in range(60):
            signal_name = otlp.SIGNALS[(index + seed) % 3]
            body = otlp.request(signal_name, 7).SerializeToString()
            kind = (index * 7 + seed) % 10
            headers = {"authorization": "Bearer free-token"} if kind in (3, 4, 5) else {}
            if kind == 0:
                body = body[:-1]
            if kind == 1:
                headers["authorization"] = "Bearer nobody"
            if kind == 2:
                number = client.start(otlp.SERVICES[signal_name])
                client.data(number, wire.frame(body)[:40])
                client.h2.reset_stream(number)
                client.flush()
                continue
            client.call(otlp.SERVICES[signal_name], wire.frame(body), headers)
            if kind not in (0, 1):
                with lock:
                    sent[signal_name] += 7
        client.close()

    lock = threading.Lock()
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    sluice.reload()
    for thread in threads:
        thread.join()
    for signal_name, items in sent.items():
        assert sluice.metric("sluice_received_items_total", signal=signal_name) == items
    stored = sum(otlp.count("traces", m) for m in sluice.files("traces"))
    assert stored == sluice.metric("sluice_routed_items_total", signal="traces")
    assert sluice.metric("sluice_sampled_out_items_total", signal="traces") > 0


def test_steady_state_allocates_nothing_and_calls_once(start):
    """No buffer is allocated, and a connection costs one read and one write a turn."""
    sluice = start(config={"destinations": {"file": {"blackhole": {}}}})
    client = wire.Http2(sluice.grpc_port)
    body = wire.frame(otlp.request("traces", 100).SerializeToString())
    for _ in range(200):
        client.call(TRACES, body)
    before = sluice.metrics()
    calls = 500
    for _ in range(calls):
        assert client.call(TRACES, body).grpc_status == 0
    after = sluice.metrics()

    def grown(name):
        return after[name] - before[name]

    assert grown("sluice_memory_allocations_total") == 0
    # A call may come in a few pieces, and the client's own frames (WINDOW_UPDATE) cost reads.
    assert grown("sluice_io_writes_total") <= calls * 1.5 + 20
    assert grown("sluice_io_reads_total") <= calls * 4 + 20
    client.close()


@pytest.mark.skipif(SANITIZED, reason="the sanitizers bring allocators of their own")
def test_our_code_allocates_nothing_on_a_request_s_way(start, tmp_path):
    """A preloaded library counts malloc and its kin by caller: ours, on a shard, must not call it."""
    library, counts = tmp_path / "count.so", tmp_path / "count"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-D_GNU_SOURCE", "-o", library,
                    ROOT / "tests/lib/malloc_count.c", "-ldl"], check=True)
    sluice = start(environment={"LD_PRELOAD": str(library), "MALLOC_COUNT_FILE": str(counts)},
                   config={"destinations": {"file": {"blackhole": {}}},
                           "sampling": [{"match": {"signal": "traces"}, "mode": "proportional",
                                         "rate": "50%"}]})

    def count():
        counts.unlink(missing_ok=True)
        sluice.process.send_signal(signal.SIGUSR2)
        text = wait_for("the count", lambda: counts.exists() and counts.read_text())
        return int(text.split()[0]), text

    bodies = [otlp.request(name, 50).SerializeToString() for name in otlp.SIGNALS]

    # One connection throughout: nghttp2 is part of the program, and takes two for a new one.
    client = wire.Http2(sluice.grpc_port)

    def load(calls):
        for index in range(calls):
            name = otlp.SIGNALS[index % 3]
            coding = ("identity", "gzip", "zstd")[index % 3]
            body = wire.frame(otlp.compress(coding, bodies[index % 3]), coding != "identity")
            assert client.call(otlp.SERVICES[name], body,
                               {"authorization": "Bearer gold-token",
                                "grpc-encoding": coding}).grpc_status == 0
            assert wire.post(sluice.http_port, f"/v1/{name}", bodies[index % 3])[0] == 200

    load(60)
    before, _ = count()
    load(120)
    after, text = count()
    client.close()
    assert after == before, f"{after - before} allocations in 240 calls, the last at {text}"


def test_json_log_format(start):
    sluice = start(config={"log": {"format": "json"}})
    sluice.stop()
    lines = [line for line in sluice.log().splitlines() if line.startswith("{")]
    assert lines and all(json.loads(line)["event"] for line in lines)


def test_a_file_that_cannot_be_written_is_counted_as_such(start):
    """A folder that goes away: who sends is told to come again, and the metric says why."""
    sluice = start(config={"answer_within": "1s"})
    client = wire.Http2(sluice.grpc_port)
    sluice.data.rmdir()
    assert client.call(TRACES, wire.frame(BODY)).grpc_status == 14
    wait_for("the answer", lambda: sluice.metric(
        "sluice_destination_refused_records_total", destination="file", answer="file_error",
        reason="undelivered") > 0)
    sluice.data.mkdir()
    wait_for("the folder", lambda: client.call(TRACES, wire.frame(BODY)).grpc_status == 0)
    client.close()
