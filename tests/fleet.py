#!/usr/bin/env python3
"""Four gateways and one Redis hold the quotas of 20 tenants together; prints what was admitted.

Each row gives the least and the most that windows of 10 s admitted, in quotas: of any tenant, and of
all together. Windows begin every second, from 10 s after the row's load began (5 s windows in rows of
15 s, from 5 s on). Ends with 1 when a row misses its bound.
"""

import pathlib
import shutil
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from lib import fleet  # noqa: E402
from lib.redis import Redis  # noqa: E402
from lib.sluice import Sluice, wait_for  # noqa: E402

TENANTS, QUOTA, ITEMS, GATEWAYS = 20, 200, 1, 4  # a request is 1/200 of the quota a second
CONNECTIONS = 3  # for each gateway: one alone ends now and then, and its load with it
bad = []


def updates(gateways):
    """Of each gateway that lives."""
    return {g: g.metric("sluice_fleet_updates_total") for g in gateways if g.process.poll() is None}


def bins(offers, began, seconds):
    counts = [[0] * seconds for _ in range(TENANTS)]
    for one in offers:
        for at, tenant, ok in list(one.answers):
            if ok and began <= at < began + seconds:
                counts[tenant][int(at - began)] += one.items
    return counts


def row(name, offers, began, seconds, window, rate, bound, refused_max):
    """`rate`: updates a second. `bound`: (least, most) of the fleet's windows."""
    counts = bins(offers, began, seconds)
    whole = [sum(column) for column in zip(*counts)]
    starts = range(window, seconds - window + 1)

    def spans(line, quota):
        return [sum(line[at:at + window]) / (quota * window) for at in starts]

    each = [value for line in counts for value in spans(line, QUOTA)]
    all_ = spans(whole, QUOTA * TENANTS)
    answers = sum(len(one.answers) for one in offers)
    refused = sum(not ok for one in offers for _, _, ok in one.answers) / max(answers, 1)
    offered = sum(one.sent for one in offers) * ITEMS / (seconds * QUOTA * TENANTS)
    good = bound[0] <= min(all_) and max(all_) <= bound[1] and refused <= refused_max
    if not good:
        bad.append(name)
    print(f"{name:30} {window:3} s {offered:6.2f}x {min(each):6.3f} .. {max(each):.3f}   "
          f"{min(all_):6.3f} .. {max(all_):.3f}  {100 * refused:6.2f} %  {rate:7.0f}  "
          f"{1000 * max(one.slowest for one in offers):6.0f} ms"
          f"{'' if good else f'  <- outside {bound}, refused {refused_max}'}", flush=True)


def load(gateways, factor, shares):
    per_s = factor * QUOTA / ITEMS / sum(shares) / CONNECTIONS
    offers = [fleet.Offer(g.http_port, TENANTS, per_s * share, ITEMS)
              for g, share in zip(gateways, shares) if share for _ in range(CONNECTIONS)]
    for one in offers:
        one.start()
    return offers


def finish(offers):
    for one in offers:
        one.ended.set()
    for one in offers:
        one.join(30)


def run(name, gateways, factor, steps, bound, window=10, refused_max=1.0):
    """`steps`: [(seconds, shares, what happens at its begin or None)]"""
    before, began, offers = updates(gateways), time.monotonic(), []
    seconds = sum(step[0] for step in steps)
    until, current = began, []
    for length, shares, happens in steps:
        for one in current:
            one.ended.set()
        current = load(gateways, factor, shares)
        offers += current
        if happens:
            happens()
        until += length
        time.sleep(max(0, until - time.monotonic()))
    rate = sum(now - before[g] for g, now in updates(gateways).items()) / seconds
    finish(offers)
    row(name, offers, began, seconds, window, rate, bound, refused_max)


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sluice-fleet-"))
    server = Redis().start()
    gateways = [Sluice(folder / str(i), config=fleet.config([server.address]),
                       tenants=fleet.tenants(TENANTS, QUOTA)) for i in range(GATEWAYS)]

    def empty():
        server.kill()
        time.sleep(1)
        server.start()

    def pause():
        server.pause()
        time.sleep(3)
        server.resume()

    try:
        for one in gateways:
            one.start()
        wait_for("the fleet", lambda: all(g.metric("sluice_fleet_instances") == GATEWAYS
                                          for g in gateways))
        print(f"{'':30} {'window':5} offered  of a tenant's quota   of all quotas"
              f"        refused  updates/s  slowest")
        run("3:1:1:1, then 1:0:0:0", gateways, 3,
            [(30, (3, 1, 1, 1), None), (30, (1, 0, 0, 0), None)], (0.99, 1.01))
        run("0.95x, 3:1:1:1", gateways, 0.95, [(60, (3, 1, 1, 1), None)], (0.93, 0.97),
            refused_max=0.005)
        run("Redis killed, back empty", gateways, 3,
            [(7, (3, 1, 1, 1), None), (8, (3, 1, 1, 1), empty)], (0.85, 1.1), 5)
        run("Redis paused for 3 s", gateways, 3,
            [(7, (3, 1, 1, 1), None), (8, (3, 1, 1, 1), pause)], (0.85, 1.1), 5)
        run("an instance killed", gateways, 3,
            [(7, (3, 1, 1, 1), None), (8, (3, 1, 1, 0), gateways[3].kill)], (0.9, 1.1), 5)
    finally:
        for one in gateways:
            if one.process and one.process.poll() is None:
                one.kill()
        server.remove()
        shutil.rmtree(folder, ignore_errors=True)
    print("outside its bound: " + ", ".join(bad) if bad else "every row holds its bound")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
