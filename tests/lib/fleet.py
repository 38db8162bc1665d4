"""Several gateways that share their tenants' quotas, and clients that offer too much to them."""

import itertools
import time

from lib import otlp
from lib.pipelined import Pipelined


def tenants(count, per_s, burst="200ms"):
    return {"classes": {"fleet": {"quota": {"spans": f"{per_s}/s", "burst": burst}}},
            "tenants": {f"t{i}": {"class": "fleet"} for i in range(count)}}


def config(redis, **quotas):
    """`redis`: the list as in the configuration."""
    return {"quotas": {"redis": redis, **quotas},
            "tenants": {"file": "tenants.yaml", "identify": [{"header": "X-Scope-OrgID"}]},
            "destinations": {"nowhere": {"blackhole": {}}}, "routes": [{"to": ["nowhere"]}]}


class Offer(Pipelined):
    """Offers `per_s` requests a second to each tenant at one gateway, in turn. A connection that
    serves many tenants is not slowed down by the retry hints of one. `answers` gets (time, tenant's
    number, admitted)."""

    def __init__(self, port, count, per_s, items):
        super().__init__(port, per_s * count)
        body = otlp.request("traces", items).SerializeToString()
        calls = [b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: t%d\r\n"
                 b"Content-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n"
                 % (i, len(body)) + body for i in range(count)]
        self.turn = itertools.cycle([(data, tenant) for tenant, data in enumerate(calls)])
        self.items, self.answers = items, []

    def call(self):
        return next(self.turn)

    def answered(self, tenant, now, status):
        self.answers.append((now, tenant, status == 200))


def offer(gateways, count, per_s, items, seconds, shares):
    """Runs one Offer a gateway at `shares` of `per_s` (requests a second for each tenant)."""
    offers = [Offer(g.http_port, count, per_s * share / sum(shares), items)
              for g, share in zip(gateways, shares)]
    for one in offers:
        one.start()
    time.sleep(seconds)
    return offers


def admitted(offers, begin, end, tenant=None):
    """Items taken between two times."""
    return sum(one.items for one in offers for at, number, ok in list(one.answers)
               if ok and begin <= at < end and tenant in (None, number))
