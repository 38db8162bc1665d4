"""Overload with the project's own load generator."""

import json
import pathlib
import subprocess
import time

from lib.sluice import BINARY, wait_for

LOAD = pathlib.Path(BINARY).parent / "bin/sluice-load"


def rss(process):
    for line in open(f"/proc/{process.pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def run_load(sluice, seconds, rate=0, items=100):
    """Starts the generator; rate 0 is as fast as it can."""
    return subprocess.Popen(
        [LOAD, "--target", f"127.0.0.1:{sluice.grpc_port}", "--connections", "8", "--streams", "16",
         "--items", str(items), "--seconds", str(seconds), "--rate", str(rate), "--json"],
        stdout=subprocess.PIPE, text=True)


def flat_memory(start, broker, config, seconds, warm, growth):
    """Measures capacity, then offers twice of it: after `warm` seconds memory may grow by `growth`.

    Prints what it saw; a short run has not settled, so it is allowed more than a long one.
    """
    topic = f"flat-{seconds}"
    broker.create(topic, retention_bytes=50_000_000, segment_bytes=20_000_000)
    sluice = start(config=config(broker, topic))
    measured = json.loads(run_load(sluice, 5).communicate(timeout=60)[0])
    assert measured["requests_ok"], "nothing was acknowledged"
    rate = 2 * measured["requests_ok"] / measured["seconds"]
    load = run_load(sluice, seconds, rate=int(rate))
    began, settled, highest = time.monotonic(), 0, 0
    while load.poll() is None:
        # Pages come and go: peaks are compared, of the warm-up's second half and of what follows.
        now, seen = time.monotonic() - began, rss(sluice.process)
        if warm / 2 <= now < warm:
            settled = max(settled, seen)
        elif now >= warm:
            highest = max(highest, seen)
        time.sleep(0.2)
    seen = json.loads(load.communicate()[0])
    print(f"offered {rate:.0f} requests/s, {seen['requests_ok']} acknowledged,"
          f" {seen['requests_failed']} refused; RSS {settled / 2**20:.1f} MiB after {warm} s,"
          f" at most {highest / 2**20:.1f} MiB until {seconds} s")
    assert highest <= settled * (1 + growth), f"{settled} grew to {highest}"
    wait_for("requests to end", lambda: sluice.metric("sluice_in_flight_items") == 0, 60)
