#!/usr/bin/env python3
"""What a span costs on its way to Kafka and to an OTLP upstream, as a multiple of the bare sink's.

CPU of the whole sluice process (its producers' threads too), one shard, pinned to core 0; generator,
broker and upstream on core 1. Every row takes turns with the sink (perf/limit) in one run: on a noisy
machine only ratios of the same run can be compared. A bar is what the row should stay under. Writes a
section of perf/RESULTS.md.

    routes.py [--rounds N] [--seconds S] [--keep]
"""

import argparse
import datetime
import hashlib
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import bench

sys.path.insert(0, str(bench.ROOT / "tests"))
from lib import kafka  # noqa: E402

# title, destination's kind and settings, items a request, coding, calls at a time on each of the 8
# connections, bar (None: reported only). What is merged needs calls to merge: 4 would wait for each
# other's delay. The sink takes plain bodies in each row, as where the bars come from.
ROWS = [
    ("Kafka, null keys", "kafka", {}, 8, "identity", 4, None),
    ("Kafka, null keys", "kafka", {}, 100, "identity", 4, 3.5),
    ("Kafka, null keys", "kafka", {}, 1000, "identity", 4, 3.0),
    ("Kafka, by trace", "kafka", {"partition_by": "trace"}, 100, "identity", 4, None),
    ("OTLP, merged", "otlp", {"merge": {"delay": "5ms"}}, 8, "identity", 64, 2.1),
    ("OTLP", "otlp", {}, 100, "identity", 4, 2.6),
    ("OTLP", "otlp", {}, 1000, "identity", 4, 2.6),
    ("OTLP, gzip untouched", "otlp", {"compression": "gzip"}, 100, "gzip", 4, 3.5),
]


def start_sluice(folder, kind, settings, upstream, broker):
    port, admin = bench.free_port(), bench.free_port()
    folder.mkdir()
    merge = settings.get("merge")
    own = {k: v for k, v in settings.items() if k != "merge"}
    kinds = {"kafka": {"brokers": [broker.address], "topic": "routes", **own},
             "otlp": {"endpoint": f"http://127.0.0.1:{upstream}", **own}}
    digest = "sha256:" + hashlib.sha256(bench.TOKEN.encode()).hexdigest()
    (folder / "tenants.yaml").write_text(json.dumps({"tenants": {"bench": {"credentials": [digest]}}}))
    (folder / "sluice.yaml").write_text(json.dumps({
        "shards": 1, "listen": [f"127.0.0.1:{port}"], "admin": f"127.0.0.1:{admin}",
        "memory_budget": "256MiB", "tenants": {"file": "tenants.yaml"},
        "destinations": {"out": {kind: kinds[kind], **({"merge": merge} if merge else {})}},
        "routes": [{"to": ["out"]}]}))
    return bench.Server("sluice", [bench.BUILD / "sluice", "--config", folder / "sluice.yaml"],
                        port, folder)


def pinned(core, command):
    return ["taskset", "-c", str(core), *command]


class Broker(kafka.Broker):
    """On the other core."""

    def _java(self, *arguments, memory="512m"):
        return pinned(1, super()._java(*arguments, memory=memory))


def measure_row(row, limit, server, options):
    items, coding, options.streams = row[3:6]
    ours, floor = [], []
    bench.measure(server, items, coding, options, 0)  # connections, the broker's compiler
    for _ in range(options.rounds):
        floor.append(bench.measure(limit, items, "identity", options, 0)[0])
        ours.append(bench.measure(server, items, coding, options, 0)[0])
    return statistics.median(ours), statistics.median(floor)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--keep", action="store_true", help="do not write perf/RESULTS.md")
    options = parser.parse_args()
    subprocess.run(["cmake", "--preset", "release"], cwd=bench.ROOT, check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", bench.BUILD, "--quiet", "sluice", "sluice-load",
                    "sluice-limit"], cwd=bench.ROOT, check=True)
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        broker = Broker(folder / "kafka")
        upstream_port = bench.free_port()
        upstream = subprocess.Popen(pinned(1, [str(bench.BUILD / "bin/sluice-limit"),
                                               str(upstream_port)]))
        try:
            broker.start()
            broker.create("routes", 4)
            bench.wait_port(upstream_port)
            limit = bench.start_limit(folder)
            for number, row in enumerate(ROWS):
                server = start_sluice(folder / str(number), row[1], row[2], upstream_port, broker)
                try:
                    ours, floor = measure_row(row, limit, server, options)
                finally:
                    server.stop()
                bar = f"{row[6]:.1f}" if row[6] else ""
                lines.append(f"| {row[0]} | {row[3]} | {floor:.3f} | {ours:.3f} |"
                             f" {ours / floor:.2f} | {bar} |")
                print(lines[-1], flush=True)
            limit.stop()
        finally:
            upstream.terminate()
            broker.remove()
    if not options.keep:
        bench.write_section("On the way to Kafka and OTLP", [
            "Written by `make bench-routes`: CPU seconds of sluice alone per million spans, as a"
            " multiple of the bare sink's in the same run; closed loop, one shard, acks=all, no"
            " codec, one tenant, no sampling. The sink reads plain bodies in each row. Merged: 512"
            " calls at a time, else 32.", "",
            f"{datetime.date.today()}, median of {options.rounds} rounds of"
            f" {options.seconds:g} s.", "",
            "| route | spans a request | sink | sluice | times | bar |",
            "|---|---|---|---|---|---|", *lines])
    return 0


if __name__ == "__main__":
    sys.exit(main())
