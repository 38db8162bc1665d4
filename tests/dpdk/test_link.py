"""The port's TCP over a link that is bad, and against peers that are worse."""

import random
import socket
import struct
import threading

import pytest
from lib import veth
from lib.segments import ACK, FIN, PSH, RST, SYN, Connection, Neighbour
from lib.sluice import wait_for

pytestmark = pytest.mark.skipif(not veth.ON, reason="runs by tests/dpdk/run.py")

MSS = b"\x02\x04\x05\xb4"


def call(spans=0):
    """An HTTP/1.1 call with so many spans, JSON."""
    span = ('{"traceId":"%032x","spanId":"%016x","name":"a name that takes some bytes"}' % (1, 1))
    body = ('{"resourceSpans":[{"scopeSpans":[{"spans":[%s]}]}]}' % ",".join([span] * spans)).encode()
    return (b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(body) + body)


def answered(one):
    """Reads one answer; its status line."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = one.recv(65536)
        assert more, data
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(rest) < length:
        rest += one.recv(65536)
    return head.split(b"\r\n")[0]


def test_calls_over_a_bad_link_are_answered_and_counted(start):
    def bad(sluice):
        sluice.port.bad_link = {"seed": 7, "lose": 0.02, "repeat": 0.03, "delay": 0.2,
                                "delay_s": 0.02}

    sluice = start(edit=bad)
    sizes = [1, 20, 200, 600]  # up to 50 kB: many segments
    done = []

    def client():
        with socket.create_connection((sluice.host, sluice.http_port), timeout=60) as one:
            for size in sizes:
                one.sendall(call(size))
                done.append(answered(one))

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [b"HTTP/1.1 200 OK"] * len(sizes) * 8
    assert sluice.metric("sluice_received_items_total", signal="traces") == 8 * sum(sizes)
    assert sluice.metric("sluice_accepted_items_total", signal="traces") == 8 * sum(sizes)
    counts = sluice.port.relay.counts
    assert all(counts[what] > 10 for what in ("lost", "repeated", "delayed")), counts
    wait_for("buffers to come back",
             lambda: sluice.metric("sluice_dpdk_free_buffers") > 12000)


@pytest.fixture
def by_hand(start):
    """(sluice, a neighbour whose segments are made by hand)."""
    sluice = start()
    neighbour = Neighbour(sluice.port.outside, f"10.77.{sluice.port.number}.50", sluice.host,
                          sluice.port.mac())
    yield sluice, neighbour
    neighbour.close()


def test_a_closed_window_is_probed_and_opens(by_hand):
    sluice, neighbour = by_hand
    one = Connection(neighbour, 40001, sluice.http_port, window=0)
    one.say(call())
    one.expect(lambda s: s[2] == one.seq)
    probe = one.expect(lambda s: s[4], seconds=30)  # one byte, though there is no room
    assert len(probe[4]) == 1
    one.send(ACK, window=0)
    one.window = 65535
    one.send(ACK)
    data, end = b"", one.ack
    while not data.endswith(b"}"):
        got = one.expect(lambda s: s[4])
        if got[1] == end:
            data, end = data + got[4], (end + len(got[4])) & 0xffffffff
        one.ack = end
        one.send(ACK)
    assert data.startswith(b"HTTP/1.1 200 OK")
    one.send(RST | ACK)


def test_a_reset_counts_only_in_its_place(by_hand):
    """RFC 5961: one out of the window does nothing; one in it, not at its edge, must not end the
    connection either."""
    sluice, neighbour = by_hand
    one = Connection(neighbour, 40002, sluice.http_port)
    one.send(RST, offset=-100)
    one.send(RST, offset=1 << 30)
    one.send(RST, offset=1000)
    got = one.expect(lambda s: True)  # a challenge
    assert got[0] == ACK and got[2] == one.seq
    one.say(call())
    got = one.expect(lambda s: s[4] or s[0] & RST)
    assert got[4].startswith(b"HTTP/1.1 200")
    one.ack += len(got[4])
    wait_for("the connection", lambda: sluice.metric("sluice_connections_open") == 1)
    one.send(RST)
    wait_for("the reset", lambda: sluice.metric("sluice_connections_open") == 0)


@pytest.mark.parametrize("case", ["half", "with the last byte", "twice", "before the data",
                                  "at once"])
def test_an_end_in_every_state(by_hand, case):
    """FIN behind a half call, with a call, again, ahead of what it follows, right behind SYN."""
    sluice, neighbour = by_hand
    one = Connection(neighbour, 40003, sluice.http_port)
    wait_for("the connection", lambda: sluice.metric("sluice_connections_open") == 1)
    whole = call(1)
    if case == "half":
        one.say(whole[:50])
        one.send(FIN | ACK)
        one.seq += 1
    elif case == "at once":
        one.send(FIN | ACK)
        one.seq += 1
    elif case == "before the data":
        one.send(FIN | ACK, offset=len(whole))
        one.send(ACK | PSH, whole)
        one.seq += len(whole) + 1
    else:
        one.send(FIN | ACK | PSH, whole)
        if case == "twice":
            one.send(FIN | ACK, offset=len(whole))
        one.seq += len(whole) + 1
    data = b""
    while True:
        got = one.expect(lambda s: s[1] == one.ack and (s[4] or s[0] & (FIN | RST)))
        data += got[4]
        one.ack = (got[1] + len(got[4]) + bool(got[0] & FIN)) & 0xffffffff
        if got[0] & (FIN | RST):
            break
        one.send(ACK)
    assert got[2] == one.seq or got[0] & RST
    assert data.startswith(b"HTTP/1.1 200 OK") or case in ("half", "at once")
    one.send(ACK)
    wait_for("the end", lambda: sluice.metric("sluice_connections_open") == 0)


def test_a_port_is_used_again(by_hand):
    """The same four words at once after a reset, and after an orderly end."""
    sluice, neighbour = by_hand
    for turn in range(6):
        one = Connection(neighbour, 40004, sluice.http_port, seq=1000 + turn * 100000)
        one.say(call(1))
        got = one.expect(lambda s: s[4])
        assert got[4].startswith(b"HTTP/1.1 200 OK")
        one.ack = (got[1] + len(got[4])) & 0xffffffff
        if turn % 2:
            one.send(RST | ACK)
            continue
        one.send(FIN | ACK)
        one.seq += 1
        got = one.expect(lambda s: s[0] & FIN)
        one.ack = (got[1] + len(got[4]) + 1) & 0xffffffff
        one.send(ACK)
    assert sluice.metric("sluice_received_items_total", signal="traces") == 6


def test_a_flood_of_syns_harms_no_connection(by_hand):
    """Half-open connections are bounded, and counted; who is in goes on."""
    sluice, neighbour = by_hand
    chance = random.Random(3)
    with socket.create_connection((sluice.host, sluice.http_port), timeout=30) as one:
        one.sendall(call(1))
        assert answered(one) == b"HTTP/1.1 200 OK"
        for _ in range(4000):
            source = struct.pack("!BBBB", 10, 77, sluice.port.number, chance.randrange(100, 250))
            neighbour.segment(chance.randrange(1024, 65536), sluice.http_port, SYN,
                              chance.getrandbits(32), options=MSS, source=source)
            if chance.random() < 0.01:
                one.sendall(call(1))
                assert answered(one) == b"HTTP/1.1 200 OK"
        wait_for("full", lambda: sluice.metric("sluice_dpdk_half_open_full_packets_total") > 2000)
        one.sendall(call(1))
        assert answered(one) == b"HTTP/1.1 200 OK"
    wait_for("buffers", lambda: sluice.metric("sluice_dpdk_free_buffers") > 12000)
