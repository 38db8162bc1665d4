"""What upstreams answer, by the book and beside it: who is told what, and what is sent once more."""

import gzip
import time

import pytest
from lib.sluice import wait_for
from lib.upstream import Upstream, retry_info
from test_upstream import config, ends, send

PARTIAL = b"\x0a\x02\x08\x01"  # one item refused
ONCE, TWICE = 1, 2
OK, INVALID, UNAVAILABLE = 0, 3, 14


def raw(head, body=b"", length=True, more=True):
    """An answer of HTTP/1.1 as it is written here."""
    lines = head.strip().splitlines() + ([f"content-length: {len(body)}"] if length else [])
    data = "\r\n".join(line.strip() for line in lines).encode() + b"\r\n\r\n" + body

    def answer(connection, *_):
        connection.sendall(data)
        return more
    return {"do": answer}


def frames(*parts):
    """HEADERS for a list of fields, DATA for bytes; the last ends the stream."""
    def answer(_, h2c, stream):
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            if isinstance(part, bytes):
                h2c.send_data(stream, part, end_stream=last)
            else:
                h2c.send_headers(stream, part, end_stream=last)
        return True
    return {"do": answer}


def head(status=200, kind="application/grpc", **fields):
    return [(":status", str(status)), ("content-type", kind),
            *((name.replace("_", "-"), value) for name, value in fields.items())]


HTTP = {
    "in chunks, partly": (raw("HTTP/1.1 200 OK\ncontent-type: application/x-protobuf\n"
                              "transfer-encoding: chunked", b"1\r\n\x0a\r\n3\r\n\x02\x08\x01\r\n"
                              b"0\r\n\r\n", length=False), OK, ONCE),
    "a page that looks like it": (raw("HTTP/1.1 200 OK\ncontent-type: text/html", PARTIAL), OK, ONCE),
    "compressed, unasked": (raw("HTTP/1.1 200 OK\ncontent-type: application/x-protobuf\n"
                                "content-encoding: gzip", gzip.compress(PARTIAL)), OK, ONCE),
    "nothing to say": (raw("HTTP/1.1 204 No Content", length=False), OK, ONCE),
    "until it closes": (raw("HTTP/1.0 200 OK", PARTIAL, length=False, more=False), OK, ONCE),
    "elsewhere": (raw("HTTP/1.1 307 Temporary Redirect\nlocation: http://127.0.0.1:1/v1/traces"),
                  INVALID, ONCE),
    "too large": (raw("HTTP/1.1 413 Content Too Large"), INVALID, ONCE),
    "too many headers": (raw("HTTP/1.1 431 Request Header Fields Too Large"), INVALID, ONCE),
    "broken": (raw("HTTP/1.1 500 Internal Server Error\nretry-after: 1"), INVALID, ONCE),
    "a date": (raw("HTTP/1.1 503 Service Unavailable\ndate: Sun, 06 Nov 1994 08:49:37 GMT\n"
                   "retry-after: Sun, 06 Nov 1994 08:49:38 GMT"), OK, TWICE),
    "a date that is far": (raw("HTTP/1.1 429 Too Many\ndate: Sun, 06 Nov 1994 08:49:37 GMT\n"
                               "retry-after: Sun, 06 Nov 2094 08:49:38 GMT"), UNAVAILABLE, ONCE),
    "twice framed": (raw("HTTP/1.1 200 OK\ncontent-length: 4\ntransfer-encoding: chunked",
                         b"0\r\n\r\n", length=False, more=False), OK, TWICE),
}

GRPC = {
    "trailers only": (frames(head(grpc_status="14")), OK, TWICE),
    "after a message": (frames(head(), bytes(5), [("grpc-status", "14")]), OK, TWICE),
    "an interim head": (frames([(":status", "103")], head(), bytes(5), [("grpc-status", "0")]),
                        OK, ONCE),
    "no status": (frames(head()), INVALID, ONCE),
    "no status, unavailable": (frames(head(503, "text/html"), b"<p>busy"), OK, TWICE),
    "a page": (frames(head(200, "text/html", grpc_status="0"), b"<p>sign in"), INVALID, ONCE),
    "OK and unavailable": (frames(head(503, grpc_status="0")), OK, TWICE),
    "elsewhere": (frames(head(307, "text/html", location="http://127.0.0.1:1/")), INVALID, ONCE),
    "too large": (frames(head(413, "text/plain")), INVALID, ONCE),
    "too many headers": (frames(head(431, "text/plain")), INVALID, ONCE),
    "exhausted for good": (frames(head(grpc_status="8")), INVALID, ONCE),
    "exhausted for now": (frames(head(grpc_status="8", grpc_status_details_bin=retry_info(8, 0.1))),
                          OK, TWICE),
    "exhausted for ages": (frames(head(grpc_status="8",
                                       grpc_status_details_bin=retry_info(8, 10 ** 11))),
                           UNAVAILABLE, ONCE),
    "compressed, unasked": (frames([*head(), ("grpc-encoding", "gzip")],
                                   b"\1\0\0\0\x18" + gzip.compress(PARTIAL)[:24],
                                   [("grpc-status", "0")]), OK, ONCE),
    "details that are none": (frames(head(grpc_status="14", grpc_status_details_bin="!!")), OK, TWICE),
}


@pytest.mark.parametrize("http", [False, True], ids=["grpc", "http"])
def test_each_answer(start, http):
    """One after the other on one gateway: what a sender is told, how often it was sent, and that all
    ends in the books."""
    with Upstream(http) as upstream:
        sluice = start(config=config(upstream, http, connections=1))
        for why, (step, wanted, calls) in (HTTP if http else GRPC).items():
            before, began = len(upstream.calls), time.monotonic()
            upstream.script.append(step)
            assert send(sluice).grpc_status == wanted, why
            assert len(upstream.calls) - before == calls, why
            if why == "a date":
                assert upstream.calls[-1].at - upstream.calls[-2].at >= 0.9
            elif wanted == UNAVAILABLE:  # told at once, when it would be in vain to wait
                assert time.monotonic() - began < 3.5, why
            assert not upstream.script, why
        wait_for("all ends",
                 lambda: not sluice.metric("sluice_destination_in_flight_items", destination="up"))
        told = {"partial": sluice.metric("sluice_partially_rejected_items_total", destination="up"),
                "redirected": sluice.metric("sluice_destination_refused_records_total",
                                            answer="http_3xx", reason="rejected"),
                "later": sluice.metric("sluice_destination_refused_records_total",
                                       answer="http_503" if http else "grpc_unavailable",
                                       reason="undelivered")}
        # Of those that look partial two are: the chunked one, and the one until it closes.
        assert told == {"partial": 2 if http else 0, "redirected": 1, "later": 1 if http else 3}
        assert sum(ends(sluice).values()) == 2 * len(HTTP if http else GRPC)


def test_interim_answers(start):
    with Upstream(True, script=[raw("HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nlink: x\n\n"
                                    "HTTP/1.1 200 OK", PARTIAL)]) as upstream:
        sluice = start(config=config(upstream, True))
        assert send(sluice).grpc_status == OK and send(sluice).grpc_status == OK
        assert upstream.connections == 1 and len(upstream.calls) == 2


def test_an_old_connection_that_closes_costs_nothing(start):
    """GOAWAY with a last stream below ours, each time a connection has served three calls: they go
    again at once on a new one, which is no retry, and no breaker counts it."""
    served = {}

    def judge(call):
        served[call.connection] = served.get(call.connection, 0) + 1
        return {"do": "goaway"} if served[call.connection] > 3 else {}
    with Upstream(judge=judge) as upstream:
        settings = config(upstream, connections=1, retry={"initial": "1h", "max": "1h"})
        settings["destinations"]["up"]["breaker"] = {"failures": 1, "wait": "1h", "wait_max": "1h"}
        sluice = start(config=settings)
        for _ in range(12):
            assert send(sluice).grpc_status == OK
        assert len(upstream.taken) == 12 and upstream.connections >= 4
        assert sluice.metric("sluice_retried_records_total", destination="up") == 0
        assert sluice.metric("sluice_breaker_opened_total", destination="up") == 0
        assert sluice.metric("sluice_destination_refused_records_total", answer="unprocessed") >= 3
