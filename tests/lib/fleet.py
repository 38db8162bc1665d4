"""Several gateways that share their tenants' quotas, and clients that offer too much to them."""

import collections
import itertools
import re
import socket
import threading
import time

from lib import otlp

WAITING_MAX = 60  # of 64 that a connection may have on their way
STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")


def tenants(count, per_s, burst="200ms"):
    return {"classes": {"fleet": {"quota": {"spans": f"{per_s}/s", "burst": burst}}},
            "tenants": {f"t{i}": {"class": "fleet"} for i in range(count)}}


def config(redis, **quotas):
    """`redis`: the list as in the configuration."""
    return {"quotas": {"redis": redis, **quotas},
            "tenants": {"file": "tenants.yaml", "identify": [{"header": "X-Scope-OrgID"}]},
            "destinations": {"nowhere": {"blackhole": {}}}, "routes": [{"to": ["nowhere"]}]}


class Offer(threading.Thread):
    """Offers `per_s` requests a second to each tenant at one gateway, in turn, over one connection
    of HTTP/1 that never waits for an answer. A connection that serves many tenants is not slowed
    down by the retry hints of one. `answers` gets (time, tenant's number, admitted)."""

    def __init__(self, port, count, per_s, items):
        super().__init__(daemon=True)
        body = otlp.request("traces", items).SerializeToString()
        self.calls = [b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: t%d\r\n"
                      b"Content-Type: application/x-protobuf\r\nContent-Length: %d\r\n\r\n"
                      % (i, len(body)) + body for i in range(count)]
        self.port, self.per_s, self.items = port, per_s, items
        self.answers, self.waiting, self.slowest = [], collections.deque(), 0.0
        self.turn = itertools.cycle(range(count))
        self.sent, self.dropped = 0, 0
        self.broken, self.ended = None, threading.Event()

    def run(self):
        try:
            while not self.ended.is_set():
                self.connection()
        except OSError as error:
            self.broken = error

    def connection(self):
        """Until it ends, or the server ends it: what was sent after that is nobody's."""
        turn, owed, last, rest, out = self.turn, 0.0, time.monotonic(), b"", b""
        with socket.create_connection(("127.0.0.1", self.port)) as to:
            to.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            to.setblocking(False)
            while not self.ended.is_set() or self.waiting:
                now = time.monotonic()
                owed += (now - last) * self.per_s * len(self.calls)
                last = now
                owed = min(owed, WAITING_MAX - len(self.waiting))
                if self.ended.is_set():
                    owed = 0
                chosen = [next(turn) for _ in range(int(owed))]
                owed -= len(chosen)
                out += b"".join(self.calls[i] for i in chosen)
                self.waiting.extend((now, i) for i in chosen)
                self.sent += len(chosen)
                try:
                    out = self.push(to, out)
                    rest = self.pull(to, rest)
                except (EOFError, ConnectionResetError, BrokenPipeError):
                    self.dropped += len(self.waiting)
                    self.waiting.clear()
                    return
                time.sleep(0.005)

    @staticmethod
    def push(to, out):
        try:
            return out[to.send(out):] if out else out
        except BlockingIOError:
            return out

    def pull(self, to, rest):
        try:
            got = to.recv(1 << 20)
        except BlockingIOError:
            return rest
        if not got:
            raise EOFError("closed")
        data, now, end = rest + got, time.monotonic(), 0
        for found in STATUS.finditer(data):
            sent, tenant = self.waiting.popleft()
            self.slowest = max(self.slowest, now - sent)
            self.answers.append((now, tenant, found[1] == b"200"))
            end = found.end()
        return data[max(end, len(data) - 12):]

    def finish(self):
        self.ended.set()
        self.join(60)
        assert not self.is_alive(), "answers are missing"


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
