#!/usr/bin/env python3
"""A neighbour's flood: one tenant's latency with and without another at 100 times its quota.

One shard, pinned to one core; both generators on the other, the victim's with precedence there, so
that its latency is the gateway's and not the generator's. First a flood as fast as it goes tells
how much of it the shard can read; the flood of the rounds is at most half of that, over many
connections, and its tenant's quota a hundredth. Rounds without and with the flood take turns; the
table has the medians of the rounds. Exit code 1 when the victim was refused anything, or the flood
was not.

    flood.py [--rounds N] [--seconds S] [--connections C] [--items I] [--rate R]
"""

import argparse
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import bench

FIGURES = ("p50_ms", "p99_ms", "p999_ms")


def digest(token):
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


def ahead(command):
    """Before whatever else runs on its core, where that is allowed."""
    return ["chrt", "-f", "1", *command] if os.geteuid() == 0 else command


def start_sluice(folder, quota):
    port, admin = bench.free_port(), bench.free_port()
    folder.mkdir()
    (folder / "tenants.yaml").write_text(json.dumps({"tenants": {
        "victim": {"credentials": [digest("victim")]},
        "flood": {"credentials": [digest("flood")], "quota": {"spans": f"{quota}/s"}}}}))
    (folder / "flood.yaml").write_text(json.dumps({
        "shards": 1, "listen": [f"127.0.0.1:{port}"], "admin": f"127.0.0.1:{admin}",
        "memory_budget": "256MiB", "tenants": {"file": "tenants.yaml"},
        "destinations": {"out": {"blackhole": {}}}, "routes": [{"to": ["out"]}]}))
    return bench.Server("sluice", ahead([bench.BUILD / "sluice", "--config",
                                         folder / "flood.yaml"]), port, folder)


def load(server, token, rate, connections, options, seconds, first=False):
    """A generator on core 1; `first` before all others there."""
    command = ["taskset", "-c", "1", bench.BUILD / "bin/sluice-load", "--target",
               f"127.0.0.1:{server.port}", "--items", str(options.items), "--seconds",
               f"{seconds:g}", "--warm-up", "0.5", "--connections", str(connections), "--streams",
               "4", "--rate", f"{rate:g}", "--sleep", "--json", "--header", f"authorization: Bearer {token}"]
    return subprocess.Popen(ahead(command) if first else command, stdout=subprocess.PIPE, text=True)


def result(process):
    return json.loads(process.communicate()[0])


def raw_rate(folder, options):
    """Requests/s of a flood that a shard reads and refuses, as fast as they come."""
    # Hints so short that nobody is turned away for ignoring them: that would end the flood.
    server = start_sluice(folder / "raw", 10000)
    try:
        seen = result(load(server, "flood", 0, options.connections, options, 3))
    finally:
        server.stop()
    return seen["requests_sent"] / seen["seconds"]


def one_round(server, flood_rate, options):
    """The victim's figures, and the flood's."""
    flood = None
    if flood_rate:
        flood = load(server, "flood", flood_rate, options.connections, options,
                     options.seconds + 1)
    seen = result(load(server, "victim", options.rate, 8, options, options.seconds, first=True))
    return seen, result(flood) if flood else None


def percentile(runs, name):
    return statistics.median(run[name] for run in runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=64, help="of the flood")
    parser.add_argument("--items", type=int, default=100, help="spans a request")
    parser.add_argument("--rate", type=float, default=1000, help="the victim's requests/s")
    options = parser.parse_args()
    subprocess.run(["cmake", "--preset", "release"], cwd=bench.ROOT, check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", bench.BUILD, "--quiet", "sluice", "sluice-load"],
                   cwd=bench.ROOT, check=True)
    alone, beside, floods = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        raw = raw_rate(folder, options)
        rate = raw * 0.45  # with the victim's, half of what the shard can read
        quota = max(1, round(rate * options.items / 100))
        print(f"raw read rate {raw:,.0f} requests/s of {options.items} spans; flood "
              f"{rate:,.0f} requests/s over {options.connections} connections at a quota of "
              f"{quota:,} spans/s; victim {options.rate:,.0f} requests/s", flush=True)
        server = start_sluice(folder / "flood", quota)
        try:
            for _ in range(options.rounds):
                alone.append(one_round(server, 0, options)[0])
                seen, flood = one_round(server, rate, options)
                beside.append(seen)
                floods.append(flood)
        finally:
            server.stop()
    print("| victim | p50 ms | p99 ms | p99.9 ms | refused |\n|---|---|---|---|---|")
    for title, runs in (("alone", alone), ("beside the flood", beside)):
        row = " | ".join(f"{percentile(runs, figure):.3f}" for figure in FIGURES)
        print(f"| {title} | {row} | {sum(run['requests_failed'] for run in runs)} |")
    change = " | ".join(f"{percentile(beside, f) / percentile(alone, f) - 1:+.1%}" for f in FIGURES)
    print(f"| change | {change} | |")
    for figure in FIGURES:
        print(f"{figure} by round, alone and beside: " + ", ".join(
            f"{a[figure]:.3f}/{b[figure]:.3f}" for a, b in zip(alone, beside)))
    sent = sum(flood["requests_sent"] for flood in floods)
    taken = sum(flood["requests_ok"] for flood in floods)
    lost = sum(flood["connections_lost"] for flood in floods)
    each = statistics.median(flood["requests_sent"] / flood["seconds"] for flood in floods)
    print(f"flood: {sent:,} requests sent ({each:,.0f}/s), {taken:,} taken ({taken / sent:.2%}), "
          f"{lost} connections lost; generators busy "
          f"{statistics.median(f['generator_busy'] for f in floods):.0%} and "
          f"{statistics.median(b['generator_busy'] for b in beside):.0%} of core 1")
    refused = sum(run["requests_failed"] for run in alone + beside)
    return int(refused > 0 or taken > sent / 20)


if __name__ == "__main__":
    sys.exit(main())
