#!/usr/bin/env python3
"""CPU of one shard over a port of DPDK beside the kernel's sockets (root).

The gateway is pinned to one core, the generator to another; paths take turns within one run. On a
machine that others use only CPU a call (or a datagram) can be compared, so that is what is told: of
the whole process, its polling included. Adds a section to perf/RESULTS.md.

    bench_dpdk.py [--rounds N] [--seconds S] [--connections N] [--keep]
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import bench

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build/release"
TITLE = "Over a port of DPDK"
EAL = ["--no-pci", "--no-huge", "-m", "512", "--no-telemetry"]
ADMIN, HOST, PORT, UDP = 8080, "10.9.0.2", 4317, 4319


def sh(*words):
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


class Gateway:
    """One gateway on `path`: kernel or af_xdp at the end of a veth pair, or vhost, with checksums
    computed at both ends as over a wire, or left to the devices; of one shard, or of two where
    its name says so."""

    def __init__(self, path, folder):
        self.path, self.folder = path, folder
        self.socket = folder / "v"
        self.virtio = path.startswith("vhost")
        shards = 2 if path.endswith("2 shards") else 1
        device = (f"net_vhost0,iface={self.socket},queues=1" if self.virtio else
                  "net_af_xdp0,iface=in0")
        config = {"shards": shards, "listen": [f"{HOST}:{PORT}"], "admin": f"127.0.0.1:{ADMIN}",
                  "memory_budget": "256MiB", "tenants": {"file": "t.yaml", "default": "a"},
                  "datagrams": {"listen": [{"address": f"{HOST}:{UDP}", "signal": "logs"}]},
                  "sampling": [{"mode": "proportional", "rate": "10%"}],
                  "destinations": {"b": {"blackhole": {}}}, "routes": [{"to": ["b"]}]}
        if path != "kernel":
            config |= {"io": "dpdk", "dpdk": {"addresses": [f"{HOST}/24"], "packets": 32768,
                                              "offloads": path == "vhost+sums", "eal": [
                *EAL, f"--file-prefix=bench-{os.getpid()}", f"--vdev={device}"]}}
        (folder / "t.yaml").write_text(json.dumps({"tenants": {"a": {"quota": {
            "spans": "100M/s", "log_records": "100M/s"}}}}))
        (folder / "c.yaml").write_text(json.dumps(config))
        self.holder = subprocess.Popen(["unshare", "--net", "sh", "-c",
                                        "ip link set lo up; echo; exec sleep 1000"],
                                       stdout=subprocess.PIPE)
        self.holder.stdout.readline()
        if not self.virtio:
            self.wire()
        inside = [] if self.virtio else ["nsenter", "-t", str(self.holder.pid), "--net"]
        self.log = open(folder / "log", "w")
        self.process = subprocess.Popen(
            [*inside, "taskset", "-c", "0" if shards == 1 else "0,1", BUILD / "sluice", "--config", folder / "c.yaml"],
            stdout=self.log, stderr=self.log)
        for _ in range(600):
            if "event=started" in (folder / "log").read_text():
                return
            time.sleep(0.1)
        raise SystemExit((folder / "log").read_text())

    def wire(self):
        sh("ip", "link", "add", "in0", "type", "veth", "peer", "name", "out0")
        sh("ip", "link", "set", "in0", "netns", self.holder.pid)
        there = ["nsenter", "-t", self.holder.pid, "--net"]
        for end, name in ([], "out0"), (there, "in0"):
            for what in ("tx", "tso", "gso", "gro", "sg"):
                subprocess.run([*map(str, end), "ethtool", "-K", name, what, "off"],
                               capture_output=True)
            sh(*end, "ip", "link", "set", name, "up")
        sh("ip", "addr", "add", "10.9.0.1/24", "dev", "out0")
        if self.path == "kernel":
            sh(*there, "ip", "addr", "add", f"{HOST}/24", "dev", "in0")

    def stop(self):
        for process in (self.process, self.holder):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        subprocess.run(["ip", "link", "del", "out0"], capture_output=True)
        for one in (f"bench-{os.getpid()}", f"bench-p{os.getpid()}"):  # the EAL's files
            shutil.rmtree(f"/run/dpdk/{one}", ignore_errors=True)

    def calls(self, items, connections, options):
        """The generator's command, by the path."""
        if self.virtio:
            return self.pktgen("--tcp", "--target", f"{HOST}:{PORT}", "--rate", "0", "--signal",
                               "traces", "--items", items, "--connections", connections,
                               "--streams", "1" if connections > 100 else "4",
                               "--seconds", options.seconds, "--warm-up", "0.5")
        return [BUILD / "bin/sluice-load", "--target", f"{HOST}:{PORT}", "--items", items,
                "--connections", connections, "--streams", "1" if connections > 100 else "4",
                "--seconds", options.seconds, "--warm-up", "0.5", "--pid",
                self.process.pid, "--json"]

    def pktgen(self, *words):
        return [BUILD / "bin/sluice-pktgen", *(f"--eal={one}" for one in EAL),
                f"--eal=--file-prefix=bench-p{os.getpid()}", "--eal=--vdev=net_virtio_user0,"
                f"path={self.socket},queues=1,queue_size=1024", "--address", "10.9.0.1/24",
                "--admin", ADMIN, "--pid", self.process.pid, "--json",
                *(["--no-offloads"] if self.path != "vhost+sums" else []), *words]

    def datagrams(self, items, rate, options):
        return self.pktgen("--target", f"{HOST}:{UDP}", "--rate", rate, "--items", items,
                           "--seconds", options.seconds, "--warm-up", "0")


def measure(path, make):
    """(microseconds of CPU each, how many a second, what the generator said)."""
    with tempfile.TemporaryDirectory() as name:
        gateway = Gateway(path, pathlib.Path(name))
        try:
            done = subprocess.run(["taskset", "-c", "1", *map(str, make(gateway))],
                                  capture_output=True, text=True, timeout=180)
        finally:
            gateway.stop()
    found = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not found:
        raise SystemExit(f"{path}: {done.stdout[-500:]}{done.stderr[-2000:]}")
    seen = json.loads(found[-1])
    count = seen.get("answered") or seen["received"]  # calls, or datagrams
    return seen["cpu_seconds"] * 1e6 / max(count, 1), count / seen["seconds"], seen


def cases(options):
    many = options.connections
    for items, connections in ((100, 8), (8, 16), (8, many)):
        yield (f"calls of {items} spans, {connections} connections",
               ("kernel", "af_xdp", "vhost", "vhost+sums") + (("vhost, 2 shards",)
                                                              if connections == 16 else ()),
               lambda g, i=items, c=connections: g.calls(i, c, options))
    for items, rate in ((1, 2350000), (5, 820000)):
        yield (f"datagrams of {507 if items == 1 else 1459} B, {rate} offered", ("vhost",),
               lambda g, i=items, r=rate: g.datagrams(i, r, options))


def write(rows, options, load):
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo")
                if line.startswith("model name")), "")
    lines = ["Written by `make bench-dpdk`. One shard on one core, the generator on the other; CPU of"
             " the whole gateway in the measured time for each call or datagram (lower is better),"
             " polling included."
             " kernel: sockets at the end of a veth pair, MTU 1500, offloads off; af_xdp: DPDK at the"
             " same place; vhost: a virtio pair of DPDK devices, the copy between them on the"
             " gateway's core, `sluice-pktgen` at the other end; +sums: with checksums left to the"
             " devices (`dpdk.offloads`), else both ends compute them; 2 shards: a shard on each of"
             " two cores, one of them the generator's: flows are handed over by ring.", "",
             f"{datetime.date.today()}, {cpu}, {os.cpu_count()} cores; medians of {options.rounds}"
             f" interleaved rounds of {options.seconds:g} s; load average before and after:"
             f" {load[0]:.1f}, {load[1]:.1f}.", "",
             "| what | path | CPU us each | a second | of the kernel's cost | received |",
             "|---|---|---|---|---|---|"]
    for what, path, us, rate, share, got in rows:
        lines.append(f"| {what} | {path} | {us:.2f} | {rate:,.0f} | {share} | {got} |")
    bench.write_section(TITLE, lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=10000)
    parser.add_argument("--keep", action="store_true", help="do not write perf/RESULTS.md")
    options = parser.parse_args()
    if os.environ.get("BENCH_DPDK") != str(os.getppid()):  # in a network namespace of its own
        return subprocess.run(["unshare", "--net", "sh", "-c", "ip link set lo up; ulimit -n 65536 2>/dev/null;"
                               ' BENCH_DPDK=$$ "$@"', "sh", sys.executable, *sys.argv]).returncode
    before, rows = os.getloadavg()[0], []
    for what, paths, make in cases(options):
        runs = {path: [] for path in paths}
        for _ in range(options.rounds):
            for path in paths:
                runs[path].append(measure(path, make))
        for path in paths:
            us, rate = (statistics.median(run[n] for run in runs[path]) for n in (0, 1))
            kernel = statistics.median(run[0] for run in runs[paths[0]])
            got = statistics.median(run[2]["received"] / max(run[2]["offered"], 1) if "offered" in
                                    run[2] else 1 for run in runs[path])
            share = f"{us / kernel:.2f}" if "kernel" in runs else ""
            rows.append((what, path, us, rate, share, f"{got:.1%}"))
            print(*rows[-1], sep="  ", flush=True)
    if not options.keep:
        write(rows, options, (before, os.getloadavg()[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
