#!/usr/bin/env python3
"""make ledger: a minute of everything at once, and every item accounted for.

Three shards, a real Kafka (merged records, by signal) and a file beside it, best effort. Clients name
their tenants by credential and by resource, are over quota, sampled, dropped by rule, malformed, too
large, refused. A reload in the middle, an end and a start, a kill and a start. After each: the
ledger, the shards' own books, what clients were told, what Kafka holds and the usage records say the
same, to the item; after the kill, all that had been saved is there, and nothing is claimed twice.
"""

import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from lib import kafka, ledger, otlp  # noqa: E402
from lib.sluice import Sluice  # noqa: E402

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 60
TOPICS = {"traces": "spans", "metrics": "metrics", "logs": "logs"}


def main():
    with tempfile.TemporaryDirectory() as folder:
        broker = kafka.Broker(pathlib.Path(folder) / "kafka").start()
        try:
            for name in TOPICS.values():
                broker.create(f"items-{name}", 4)
            broker.create("usage")
            brokers = [broker.address]
            # Idempotence: else a slow broker may have a record twice, which is no item lost.
            main_ = {"kafka": {"brokers": brokers, "topic": "items-{signal}", "idempotence": True},
                     "merge": {"requests": 20, "delay": "2ms"}}
            gateway = Sluice(
                pathlib.Path(folder) / "sluice", shards=3, tenants=ledger.tenants(),
                config=ledger.config(
                    {"main": main_, "archive": {"file": {"path": "archive"}}},
                    ["main", {"destination": "archive", "required": False}], path="ledger",
                    interval="1s", usage={"destination": "main", "topic": "usage",
                                          "interval": "2s"}))
            gateway.start()
            ledger.drill(
                gateway, SECONDS, "main",
                lambda: [(signal, otlp.REQUESTS[signal].FromString(record[2]))
                         for signal, topic in TOPICS.items()
                         for record in broker.read(f"items-{topic}")],
                lambda: broker.read("usage"))
        finally:
            if "gateway" in locals() and gateway.process and gateway.process.poll() is None:
                print(gateway.log()[-3000:])
                gateway.kill()
            broker.remove()


main()
