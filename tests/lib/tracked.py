"""Load whose every item can be told from all others: what was acknowledged must be found."""

import collections
import struct
import threading
import time

from lib import otlp, wire
from lib.pipelined import Pipelined

PATHS = {"traces": "/v1/traces", "logs": "/v1/logs"}
MARKS = {"traces": ("scope_spans", "spans"), "logs": ("scope_logs", "log_records")}


class Bodies:
    """Requests of `items` items; the span id of each is made of the client's number, the call's and
    the item's."""

    def __init__(self, number, items, signal="traces", **resource):
        message = otlp.request(signal, items, **resource)
        for index, item in enumerate(otlp.items(signal, message)):
            item.span_id = self.mark(number, 0xfffffffe, index)
        self.number, self.items = number, items
        self.body = bytearray(message.SerializeToString())
        self.places = [self.body.index(self.mark(number, 0xfffffffe, i)) for i in range(items)]

    @staticmethod
    def mark(number, call, index):
        return struct.pack(">HIH", number, call, index)

    def make(self, call):
        for index, place in enumerate(self.places):
            self.body[place:place + 8] = self.mark(self.number, call, index)
        return bytes(self.body)

    def ids(self, calls):
        return {self.mark(self.number, call, i) for call in calls for i in range(self.items)}


class OverHttp(Pipelined):
    """Open loop, HTTP/1. A gateway that has gone is waited for."""

    def __init__(self, sluice, number, per_s, items=5, signal="traces", **resource):
        super().__init__(sluice.http_port, per_s)
        self.bodies, self.path = Bodies(number, items, signal, **resource), PATHS[signal]
        self.count, self.acknowledged, self.refused = 0, [], collections.Counter()
        self.outlives = True

    def call(self):
        self.count += 1
        body = self.bodies.make(self.count)
        return (b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
                b"Content-Length: %d\r\n\r\n" % (self.path.encode(), len(body)) + body, self.count)

    def answered(self, call, now, status):
        if status == 200:
            self.acknowledged.append(call)
        else:
            self.refused[status] += 1


class OverGrpc(threading.Thread):
    """One call after the other, gRPC."""

    def __init__(self, sluice, number, items=5, signal="traces", **resource):
        super().__init__(daemon=True)
        self.port, self.service = sluice.grpc_port, otlp.SERVICES[signal]
        self.bodies, self.count = Bodies(number, items, signal, **resource), 0
        self.acknowledged, self.refused = [], collections.Counter()
        self.ended = threading.Event()

    def run(self):
        while not self.ended.is_set():
            try:
                client = wire.Http2(self.port)
            except OSError:
                time.sleep(0.01)
                continue
            try:
                self.serve(client)
            except (OSError, AssertionError, wire.h2.exceptions.ProtocolError):
                pass  # it went away in the middle of a call
            finally:
                client.close()

    def serve(self, client):
        while not self.ended.is_set() and not client.closed and not client.goaways:
            self.count += 1
            stream = client.call(self.service, wire.frame(self.bodies.make(self.count)))
            if stream.grpc_status == 0:
                self.acknowledged.append(self.count)
            else:
                self.refused[stream.grpc_status] += 1
                time.sleep(0.05)

    def finish(self):
        self.ended.set()
        self.join(60)
        assert not self.is_alive(), "answers are missing"


class Account:
    """What became of all items. Lost: acknowledged and not found."""

    def __init__(self, clients, bodies, signal="traces"):
        """`bodies`: every request that a destination holds, as bytes or decoded."""
        found = collections.Counter()
        for body in bodies:
            message = otlp.REQUESTS[signal].FromString(body) if isinstance(body, bytes) else body
            found.update(item.span_id for item in otlp.items(signal, message))
        acknowledged = set().union(*(one.bodies.ids(one.acknowledged) for one in clients))
        self.sent = sum(one.count * one.bodies.items for one in clients)
        self.acknowledged = len(acknowledged)
        self.found = len(found)
        self.duplicates = found.total() - len(found)
        self.missing = sorted(acknowledged - found.keys())
        self.lost = len(self.missing)
        strange = found.keys() - set().union(
            *(one.bodies.ids(range(1, one.count + 1)) for one in clients))
        assert not strange, f"{len(strange)} items that nobody sent"
        self.refused = sum((one.refused for one in clients), collections.Counter())

    def __add__(self, other):
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


def item_ids(body, signal="traces"):
    return {item.span_id for item in otlp.items(signal, otlp.REQUESTS[signal].FromString(body))}


def acknowledged(clients):
    return sum(len(one.acknowledged) for one in clients)
