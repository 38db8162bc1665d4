"""The real binary as a test runs it: its own folder, ports and configuration."""

import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request

from lib import ports, veth

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BINARY = os.path.abspath(os.environ.get("SLUICE", ROOT / "build/dev/sluice"))
SANITIZED = os.environ.get("SLUICE_PRESET", "") in ("asan", "tsan")
PATIENCE = 60  # a noisy machine; what is waited for comes in milliseconds elsewhere


def digest(secret):
    """A credential as the tenants file holds it."""
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


TENANTS = {
    "tenants": {
        "demo": {},
        "gold": {"credentials": [digest("gold-token")]},
        "free": {"quota": {"spans": "1000/s"}, "credentials": [digest("free-token")]},
        "gone": {"suspended": True, "credentials": [digest("gone-token")]},
    }
}


def wait_for(what, condition, seconds=PATIENCE):
    """Polls until condition() is true; its value, or an AssertionError naming `what`."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.01)


class Sluice:
    """One running gateway. `config` is merged over a base of one file destination."""

    def __init__(self, folder, config=None, tenants=TENANTS, shards=1, environment=None,
                 edit=None):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.grpc_port, self.http_port, self.admin_port = ports.free(3)
        self.data = self.folder / "data"
        self.tenants = tenants
        self.environment = environment or {}
        self.config = {
            "shards": shards,
            "listen": [f"127.0.0.1:{self.grpc_port}", f"127.0.0.1:{self.http_port}"],
            "admin": f"127.0.0.1:{self.admin_port}",
            "tenants": {"file": "tenants.yaml", "default": "demo",
                        "identify": ["credential", {"header": "X-Scope-OrgID"}]},
            "destinations": {"file": {"file": {"path": str(self.data), "format": "protobuf"}}},
            "routes": [{"to": ["file"]}],
        }
        self.config.update(config or {})
        self.port = veth.Port() if veth.ON else None
        if self.port:
            self.move_to_port()
        if edit:
            edit(self)  # what needs to know the ports
        self.process = None
        self.log_path = self.folder / "log"
        self.clean = True  # expect exit code 0 and balanced books
        self.killed = False  # since it was started

    @property
    def host(self):
        return ports.host(self.grpc_port)

    def move_to_port(self):
        """The same listeners on a port of DPDK."""
        self.config.update({"io": "dpdk", "dpdk": self.port.config()})
        for index, address in enumerate(self.config["listen"]):
            if isinstance(address, str) and address.startswith("127.0.0.1:"):
                number = int(address.split(":")[1])
                ports.elsewhere[number] = self.port.host
                self.config["listen"][index] = f"{self.port.host}:{number}"

    # YAML is a superset of JSON: the tests need no YAML writer.
    def write_config(self):
        (self.folder / "tenants.yaml").write_text(json.dumps(self.tenants))
        (self.folder / "config.yaml").write_text(json.dumps(self.config, indent=1))

    def start(self):
        self.write_config()
        self.killed = False
        if self.port:
            self.port.make()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [BINARY, "--config", self.folder / "config.yaml"], stdout=log, stderr=log,
                cwd=self.folder, env=dict(os.environ, **self.environment))
        wait_for("readiness", self.ready)
        return self

    def ready(self):
        assert self.process.poll() is None, "sluice ended: " + self.log()
        try:
            return self.admin("/readyz")[0] == 200
        except OSError:
            return False

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def admin(self, path, method="GET", body=None):
        """(status, text) of an admin call."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin_port}{path}", method=method,
                                         data=body)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self, by_shard=False):
        """{'name{labels}': value}"""
        text = self.admin("/metrics" + ("?by=shard" if by_shard else ""))[1]
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
                for line in text.splitlines() if line and not line.startswith("#")}

    def metric(self, name, **labels):
        """The sum over all series of that name with those labels."""
        total = 0
        for series, value in self.metrics().items():
            if series.split("{")[0] == name and all(
                    re.search(rf'[{{,]{k}="{re.escape(v)}"', series) for k, v in labels.items()):
                total += value
        return total

    def spools_are_empty(self):
        """All that went to disk came out again or was dropped, and nothing is under way. Gauges of
        spools are some 100 ms old: the counts decide."""
        seen = self.metrics()

        def total(name):
            return sum(v for k, v in seen.items() if k.split("{")[0] == f"sluice_{name}")

        return (total("spooled_items_total") + total("spool_recovered_items_total") +
                total("put_back_items_total") ==
                total("unspooled_items_total") + total("spool_dropped_items_total") and
                not total("spool_items") and not total("destination_in_flight_items"))

    def reload(self):
        before = self.metric("sluice_config_reloads_total")
        self.write_config()
        self.process.send_signal(signal.SIGHUP)
        wait_for("a reload", lambda: self.metric("sluice_config_reloads_total") > before)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.killed = True

    def check_books(self):
        """received = accepted + refused + in flight; accepted = sampled out + dropped + routed."""
        for signal_name in ("traces", "metrics", "logs"):
            def count(name):
                return self.metric(f"sluice_{name}_items_total", signal=signal_name)
            in_flight = self.metric("sluice_in_flight_items", signal=signal_name)
            assert count("received") == count("accepted") + count("refused") + in_flight
            assert count("accepted") == (count("sampled_out") + count("dropped_by_rule") +
                                         count("routed"))
        self.check_destinations()

    def check_destinations(self):
        """Of each destination and signal: taken + unspooled = all ends + in flight."""
        sums, ends = {}, ("delivered", "rejected", "dropped", "returned", "lost", "moved",
                          "dead_lettered", "spooled", "put_back")
        for series, value in self.metrics().items():
            name, _, labels = series.partition("{")
            if name in ("sluice_taken_items_total", "sluice_unspooled_items_total"):
                sums.setdefault(labels, [0, 0])[0] += value
            elif (name == "sluice_destination_in_flight_items" or
                  name in [f"sluice_{end}_items_total" for end in ends]):
                sums.setdefault(labels, [0, 0])[1] += value
        for labels, (taken, ended) in sums.items():
            assert taken == ended, f"{labels} took {taken}, accounts for {ended}"

    def stop(self, check_books=True):
        """SIGTERM: drains and exits 0."""
        if self.process is None or self.process.poll() is not None:
            if self.clean and not self.killed and self.process is not None:
                assert self.process.returncode == 0, self.log()[-4000:]
            return
        try:
            if self.clean and check_books:
                wait_for("requests to end",
                         lambda: self.metric("sluice_in_flight_items") == 0)
                self.check_books()
        finally:
            self.process.terminate()
            try:
                code = self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError("sluice did not drain: " + self.log()[-4000:])
        if self.clean:
            assert code == 0, f"exit code {code}: " + self.log()[-6000:]

    def files(self, signal_name):
        """All Export requests in the file destination, decoded, in order of writing."""
        from lib import otlp
        found = []
        for path in sorted(self.data.glob(f"{signal_name}-*")):
            found += otlp.read_delimited(signal_name, path.read_bytes())
        return found
