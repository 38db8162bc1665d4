#!/usr/bin/env python3
"""CPU per million spans: sluice (one shard, all policies on, blackhole) beside the bare sink.

Both servers are pinned to one core, the generator to another, and take turns within one run: on a
noisy machine only figures of the same run can be compared. Writes perf/RESULTS.md.

    bench.py [--rounds N] [--seconds S] [--items 8,100,1000] [--codings identity,gzip,zstd]
"""

import argparse
import datetime
import hashlib
import json
import os
import pathlib
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build/release"
TOKEN = "bench-token"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_port(port):
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise SystemExit(f"nothing listens on {port}")


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Server:
    """A process pinned to core 0, from its port's opening to its end."""

    def __init__(self, name, command, port, folder):
        self.name, self.port = name, port
        self.log = open(folder / f"{name}.log", "w")
        self.process = subprocess.Popen(["taskset", "-c", "0", *map(str, command)],
                                        stdout=self.log, stderr=self.log)
        wait_port(port)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def start_sluice(folder):
    port, admin = free_port(), free_port()
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    many = {f"tenant-{i}": {"credentials": ["sha256:" + hashlib.sha256(
        f"token-{i}".encode()).hexdigest()], "quota": {"spans": "1M/s"}} for i in range(1000)}
    (folder / "tenants.yaml").write_text(json.dumps({"tenants": {
        **many, "bench": {"credentials": ["sha256:" + digest],
                          "quota": {"spans": "100M/s", "bytes": "50GiB/s", "requests": "10M/s"}}}}))
    (folder / "bench.yaml").write_text(json.dumps({
        "shards": 1, "listen": [f"127.0.0.1:{port}"], "admin": f"127.0.0.1:{admin}",
        "memory_budget": "256MiB",
        "tenants": {"file": "tenants.yaml"},
        "sampling": [{"match": {"signal": "traces"}, "mode": "proportional", "rate": "10%",
                      "keep": ["error"]}],
        "destinations": {"out": {"blackhole": {}}}, "routes": [{"to": ["out"]}]}))
    return Server("sluice", [BUILD / "sluice", "--config", folder / "bench.yaml"], port, folder)


def start_limit(folder):
    port = free_port()
    return Server("limit", [BUILD / "bin/sluice-limit", port], port, folder)


# Open loop: requests/s that leave the server mostly idle, so that wake-ups count as in service.
RATES = {8: 40000, 100: 8000, 1000: 1000}


def measure(server, items, coding, options, rate):
    """CPU seconds of the server per million spans, and what the generator saw."""
    before = cpu_seconds(server.process.pid)
    done = subprocess.run(
        ["taskset", "-c", "1", BUILD / "bin/sluice-load", "--target", f"127.0.0.1:{server.port}",
         "--items", str(items), "--coding", coding, "--seconds", str(options.seconds),
         "--warm-up", "0", "--connections", "8", "--streams", str(options.streams), "--json",
         "--rate", str(rate), "--header", f"authorization: Bearer {TOKEN}"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{server.name}: {done.stdout}{done.stderr}")
    seen = json.loads(done.stdout)
    if seen["requests_failed"]:
        raise SystemExit(f"{server.name}: failures: {done.stdout}")
    used = cpu_seconds(server.process.pid) - before
    return used / (seen["items_ok"] / 1e6), seen


def inflate_cost():
    """{items: CPU seconds per million spans of inflating alone}, by the codec's own benchmark."""
    micro = BUILD / "bin/micro_codec"
    if not micro.exists():
        return {}
    out = subprocess.run(["taskset", "-c", "0", micro, "--json"], capture_output=True, text=True)
    return {tuple(key.split("/")): value for key, value in json.loads(out.stdout).items()}


def compare(servers, items, coding, options, rate, inflate):
    """One row: rounds in which the servers take turns, medians of each."""
    runs = {s.name: [] for s in servers}
    for _ in range(options.rounds):
        for server in servers:
            runs[server.name].append(measure(server, items, coding, options, rate))

    def median(name, value):
        return statistics.median(value(run) for run in runs[name])

    limit, ours = median("limit", lambda r: r[0]), median("sluice", lambda r: r[0])
    floor = limit + inflate.get((coding, str(items)), 0)
    row = {"loop": "open" if rate else "closed", "coding": coding, "items": items, "limit": limit,
           "floor": floor, "ours": ours, "share": floor / ours,
           "rate": median("sluice", lambda r: r[1]["items_ok"] / r[1]["seconds"]),
           "p99": median("sluice", lambda r: r[1]["p99_ms"]),
           "busy": median("sluice", lambda r: r[1]["generator_busy"])}
    spread = [r[0] for r in runs["sluice"]]
    print(f"{row['loop']:6} {coding:8} {items:5} spans: limit {limit:.3f} (+inflate {floor:.3f}),"
          f" sluice {ours:.3f} [{min(spread):.3f}..{max(spread):.3f}], share {row['share']:.2f},"
          f" {row['rate'] / 1e6:.2f} M spans/s, p99 {row['p99']:.2f} ms,"
          f" generator busy {row['busy']:.0%}", flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--items", default="8,100,1000")
    parser.add_argument("--codings", default="identity,gzip,zstd")
    parser.add_argument("--streams", type=int, default=4, help="calls at a time on each connection")
    parser.add_argument("--keep", action="store_true", help="do not write perf/RESULTS.md")
    options = parser.parse_args()
    subprocess.run(["cmake", "--preset", "release"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", BUILD, "--quiet", "sluice", "sluice-load", "sluice-limit",
                    "micro_codec"], cwd=ROOT, check=True)
    inflate = inflate_cost()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        servers = [start_limit(folder), start_sluice(folder)]
        try:
            for rate in (0, 1):
                for coding in options.codings.split(","):
                    for items in map(int, options.items.split(",")):
                        rows.append(compare(servers, items, coding, options,
                                            rate and RATES.get(items, 1000), inflate))
        finally:
            for server in servers:
                server.stop()
    if not options.keep:
        write(rows, options)
    return 0


def write_section(title, lines):
    """Puts a section of perf/RESULTS.md in the place of the one with that title, or at the end."""
    path = ROOT / "perf/RESULTS.md"
    head, *sections = path.read_text().split("\n## ")
    text = "\n".join([title, "", *lines]) + "\n"
    places = [i for i, section in enumerate(sections) if section.startswith(title + "\n")]
    if places:
        sections[places[0]] = text
    else:
        sections.append(text)
    path.write_text("\n## ".join([head, *sections]))


def write(rows, options):
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo")
                if line.startswith("model name")), platform.machine())
    lines = [
        "# Measured", "",
        "Written by `make bench`. CPU seconds of the server per million spans (about 349 bytes"
        " each), one shard pinned to one core with tenant (one of 1,001, by bearer token), quota,"
        " 10 % proportional sampling and full structural validation on, to a blackhole; the"
        f" generator (8 connections of {options.streams} calls) on the other core. Closed loop is"
        " as fast as answers come; open loop is a set rate that leaves the server mostly idle."
        " The limit is `perf/limit/limit.c`, a bare nghttp2 sink, in the same run; for compressed"
        " bodies inflating alone (`micro_codec`) is added to it. Share: limit ÷ sluice, higher is"
        " better.", "",
        f"{datetime.date.today()}, {cpu}, {os.cpu_count()} cores; median of"
        f" {options.rounds} interleaved rounds of {options.seconds:g} s.", "",
        "| loop | coding | spans a request | limit | with inflating | sluice | share |"
        " M spans/s | p99 ms | generator busy |",
        "|---|---|---|---|---|---|---|---|---|---|"]
    for r in rows:
        lines.append(f"| {r['loop']} | {r['coding']} | {r['items']} | {r['limit']:.3f} |"
                     f" {r['floor']:.3f} | {r['ours']:.3f} | {r['share']:.2f} |"
                     f" {r['rate'] / 1e6:.2f} | {r['p99']:.2f} | {r['busy']:.0%} |")
    path = ROOT / "perf/RESULTS.md"
    rest = path.read_text().split("\n## ", 1) if path.exists() else [""]
    tail = "\n## " + rest[1] if len(rest) > 1 else ""
    path.write_text("\n".join(lines) + "\n" + tail)


if __name__ == "__main__":
    sys.exit(main())
