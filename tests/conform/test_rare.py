"""Forms that few clients use and all of RFC 9113, RFC 7541 and RFC 9112 allow, by hand-made frames."""

import struct

import pytest
from hpack import Decoder, Encoder
from lib import otlp, wire

TRACES = otlp.SERVICES["traces"]
BODY = wire.frame(otlp.request("traces", 2).SerializeToString())
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 2, 3, 4, 6, 7, 8, 9)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 1, 1, 4, 8, 0x20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIELDS = [(":method", "POST"), (":scheme", "http"), (":path", TRACES), (":authority", "localhost"),
          ("content-type", "application/grpc"), ("te", "trailers")]


def frame(kind, flags=0, stream=0, payload=b""):
    return (struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) +
            struct.pack(">I", stream) + payload)


def padded(payload, count):
    return bytes([count]) + payload + bytes(count)


class Frames:
    """Writes what the test says and reads frames; acknowledges nothing by itself."""

    def __init__(self, port, settings=b"", preface=True):
        self.socket = wire.dial(port)
        self.buffer = b""
        self.encoder, self.decoder = Encoder(), Decoder()
        if preface:
            self.send(PREFACE + frame(SETTINGS, payload=settings))

    def send(self, data):
        self.socket.sendall(data)

    def next(self):
        """(kind, flags, stream, payload), or None when the peer has closed."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + int.from_bytes(self.buffer[:3], "big"):
            data = self.socket.recv(65536)
            if not data:
                return None
            self.buffer += data
        size = int.from_bytes(self.buffer[:3], "big")
        head, payload = self.buffer[:9], self.buffer[9:9 + size]
        self.buffer = self.buffer[9 + size:]
        return head[3], head[4], int.from_bytes(head[5:], "big"), payload

    def until(self, condition):
        while True:
            one = self.next()
            assert one is not None, "closed"
            if condition(*one):
                return one

    def head(self, fields=FIELDS):
        return self.encoder.encode(fields)

    def status(self, number):
        """The stream's grpc-status; a failure when it was reset."""
        while True:
            kind, flags, stream, payload = self.until(lambda *f: f[0] != GOAWAY)
            if kind == HEADERS:
                fields = dict(self.decoder.decode(payload))
                if stream == number and flags & END_STREAM:
                    return int(fields["grpc-status"])
            assert not (kind == RST_STREAM and stream == number), payload

    def close(self):
        self.socket.close()


def goaway(frames):
    """The error code of the GOAWAY that ends the connection."""
    code = struct.unpack(">I", frames.until(lambda kind, *_: kind == GOAWAY)[3][4:8])[0]
    while frames.next() is not None:
        pass
    return code


@pytest.fixture
def frames(shared):
    one = Frames(shared.grpc_port)
    yield one
    one.close()


def call(frames, number, fields=FIELDS, body=BODY):
    frames.send(frame(HEADERS, END_HEADERS, number, frames.head(fields)) +
                frame(DATA, END_STREAM, number, body))
    return frames.status(number)


def test_preface_byte_by_byte(shared):
    frames = Frames(shared.grpc_port, preface=False)
    for byte in PREFACE + frame(SETTINGS):
        frames.send(bytes([byte]))
    assert call(frames, 1) == 0
    frames.close()


def test_everything_in_one_segment(shared):
    frames = Frames(shared.grpc_port, preface=False)
    frames.send(PREFACE + frame(SETTINGS) + frame(HEADERS, END_HEADERS, 1, frames.head()) +
                frame(DATA, END_STREAM, 1, BODY))
    assert frames.status(1) == 0
    frames.close()


def test_every_byte_by_itself(frames):
    for byte in (frame(HEADERS, END_HEADERS, 1, frames.head()) + frame(DATA, END_STREAM, 1, BODY)):
        frames.send(bytes([byte]))
    assert frames.status(1) == 0


@pytest.mark.parametrize("count", [0, 1, 255])
def test_padding(frames, count):
    half = len(BODY) // 2
    frames.send(frame(HEADERS, END_HEADERS | PADDED, 1, padded(frames.head(), count)) +
                frame(DATA, PADDED, 1, padded(BODY[:half], count)) +
                frame(DATA, PADDED, 1, padded(b"", count)) +
                frame(DATA, PADDED | END_STREAM, 1, padded(BODY[half:], count)))
    assert frames.status(1) == 0


def test_head_with_priority_and_padding(frames):
    payload = padded(struct.pack(">IB", 0x80000000, 15) + frames.head(), 9)
    frames.send(frame(HEADERS, END_HEADERS | PADDED | WITH_PRIORITY, 1, payload) +
                frame(DATA, END_STREAM, 1, BODY))
    assert frames.status(1) == 0


def test_head_in_continuations(frames):
    """Cut anywhere, some empty; more than eight are a flood to nghttp2 (CVE-2024-28182)."""
    block = frames.head()
    cuts = [0, 1, 1, 2, 5, 40, len(block) - 1, len(block)]
    frames.send(frame(HEADERS, 0, 1) +
                b"".join(frame(CONTINUATION, 0, 1, block[at:to]) for at, to in zip(cuts, cuts[1:])) +
                frame(CONTINUATION, END_HEADERS, 1) + frame(DATA, END_STREAM, 1, BODY))
    assert frames.status(1) == 0


def test_nothing_comes_between_continuations(frames):
    frames.send(frame(HEADERS, 0, 1, frames.head()) + frame(PING, 0, 0, bytes(8)))
    one = frames.until(lambda kind, *_: kind == GOAWAY)
    assert struct.unpack(">I", one[3][4:8])[0] == 1  # PROTOCOL_ERROR


def test_trailers_of_the_client_in_continuations(frames):
    head, trailers = frames.head(), frames.head([("x-checksum", "abc")])
    frames.send(frame(HEADERS, END_HEADERS, 1, head) + frame(DATA, 0, 1, BODY) +
                frame(HEADERS, END_STREAM, 1, trailers[:2]) +
                frame(CONTINUATION, END_HEADERS, 1, trailers[2:]))
    assert frames.status(1) == 0
    # The encoder's table has grown by the trailers: the next head must still be understood.
    assert call(frames, 3) == 0


def test_a_refused_call_s_head_keeps_the_tables_together(frames):
    odd = FIELDS[:2] + [(":path", "/nowhere")] + FIELDS[3:] + [("x-first-seen-here", "value")]
    assert call(frames, 1, odd) == 12
    assert call(frames, 3, FIELDS + [("x-first-seen-here", "value")]) == 0


@pytest.mark.parametrize("size", [0, 64, 4096])
def test_the_client_s_table_size(shared, size):
    """SETTINGS_HEADER_TABLE_SIZE of any value: our encoder obeys, the client's decoder tells."""
    frames = Frames(shared.grpc_port, struct.pack(">HI", 1, size))
    frames.decoder.max_allowed_table_size = size
    for number in range(1, 41, 2):
        assert call(frames, number) == 0
    frames.close()


def test_table_size_updates_within_heads(frames):
    for number, sizes in [(1, [0]), (3, [4096]), (5, [0, 100]), (7, [100, 4096])]:
        for size in sizes:
            frames.encoder.header_table_size = size
        block = frames.head()  # begins with the updates
        assert block[0] & 0xe0 == 0x20
        frames.send(frame(HEADERS, END_HEADERS, number, block) +
                    frame(DATA, END_STREAM, number, BODY))
        assert frames.status(number) == 0


def test_table_larger_than_allowed_ends_the_connection(frames):
    frames.send(frame(HEADERS, END_HEADERS, 1, b"\x3f\xe2\x1f" + frames.head()))  # 4097
    one = frames.until(lambda kind, *_: kind == GOAWAY)
    assert struct.unpack(">I", one[3][4:8])[0] == 9  # COMPRESSION_ERROR


def test_settings_are_each_acknowledged(frames):
    for _ in range(50):
        frames.send(frame(SETTINGS, payload=struct.pack(">HIHI", 4, 100000, 0x4242, 7)))
        frames.until(lambda kind, flags, *_: kind == SETTINGS and flags & ACK)
    assert call(frames, 1) == 0


def test_frame_size_of_the_client(shared):
    frames = Frames(shared.grpc_port, struct.pack(">HI", 5, 16777215))
    assert call(frames, 1) == 0
    frames.close()


def test_frame_larger_than_ours(frames):
    frames.send(frame(HEADERS, END_HEADERS, 1, frames.head()) + frame(DATA, 0, 1, bytes(16385)))
    one = frames.until(lambda kind, *_: kind == GOAWAY)
    assert struct.unpack(">I", one[3][4:8])[0] == 6  # FRAME_SIZE_ERROR


def test_31_ping_is_echoed(frames):
    frames.send(frame(PING, 0, 0, b"\xff\x00abcde\x80"))
    assert frames.until(lambda kind, *_: kind == PING) == (PING, ACK, 0, b"\xff\x00abcde\x80")


def test_priority_of_streams_that_are_not(frames):
    for number in (1, 9, 1):
        frames.send(frame(PRIORITY, 0, number, struct.pack(">IB", 3, 200)))
    assert call(frames, 1) == 0
    frames.send(frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 1)))  # closed
    assert call(frames, 3) == 0


def test_priority_of_no_stream_ends_the_connection(frames):
    frames.send(frame(PRIORITY, 0, 0, struct.pack(">IB", 3, 200)))
    assert goaway(frames) == 1  # PROTOCOL_ERROR: RFC 9113, section 6.3


@pytest.mark.parametrize("end", ["answered", "reset by the client", "never begun"])
def test_late_heads_end_the_connection(frames, end):
    """RFC 9113, sections 5.1 and 5.1.1: who has ended a stream, or passed its number over, says
    nothing more on it."""
    number = 3 if end == "never begun" else 5
    if end == "reset by the client":
        frames.send(frame(HEADERS, END_HEADERS, number, frames.head()) +
                    frame(RST_STREAM, 0, number, struct.pack(">I", 8)))
    else:
        assert call(frames, 5) == 0
    frames.send(frame(HEADERS, END_STREAM | END_HEADERS, number, frames.head()))
    assert goaway(frames) == 5  # STREAM_CLOSED


@pytest.mark.parametrize("cut", ["the path is unknown", "the head is malformed"])
def test_late_frames_of_what_we_ended_are_passed_over(frames, cut):
    """The client cannot know yet: body and trailers are on their way."""
    fields = FIELDS + [("connection", "close")]
    if cut == "the path is unknown":
        fields = [(name, "/nowhere" if name == ":path" else value) for name, value in FIELDS]
    frames.send(frame(HEADERS, END_HEADERS, 1, frames.head(fields)))
    frames.until(lambda kind, flags, stream, payload: (
        kind == RST_STREAM or kind == HEADERS and not frames.decoder.decode(payload)))
    frames.send(frame(DATA, 0, 1, BODY) + frame(DATA, 0, 1, BODY) +
                frame(HEADERS, END_HEADERS | END_STREAM, 1, frames.head([("x", "y")])))
    assert call(frames, 3) == 0


def test_frames_on_a_closed_stream(frames):
    assert call(frames, 1) == 0
    frames.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 10)) +
                frame(RST_STREAM, 0, 1, struct.pack(">I", 8)))
    assert call(frames, 3) == 0


def test_window_of_one(shared):
    """One byte at a time, for the stream and then for the connection."""
    frames = Frames(shared.grpc_port, struct.pack(">HI", 4, 1))
    frames.send(frame(HEADERS, END_HEADERS, 1, frames.head()) + frame(DATA, END_STREAM, 1, BODY))
    sizes = []
    for _ in range(5):
        one = frames.until(lambda kind, *_: kind == DATA)
        sizes.append(len(one[3]))
        frames.send(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)))
    assert sizes == [1] * 5
    assert frames.status(1) == 0
    frames.close()


def test_window_that_overflows_resets_the_stream(frames):
    frames.send(frame(HEADERS, END_HEADERS, 1, frames.head()) +
                frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 0x7fffffff)))
    one = frames.until(lambda kind, *_: kind == RST_STREAM)
    assert one[2] == 1 and struct.unpack(">I", one[3])[0] == 3  # FLOW_CONTROL_ERROR
    assert call(frames, 3) == 0


def test_empty_data_before_and_between(frames):
    frames.send(frame(HEADERS, END_HEADERS, 1, frames.head()) +
                b"".join(frame(DATA, 0, 1) + frame(DATA, 0, 1, BODY[i:i + 20])
                         for i in range(0, len(BODY), 20)) + frame(DATA, END_STREAM, 1))
    assert frames.status(1) == 0


def test_informational_and_odd_fields(frames):
    fields = FIELDS + [("cookie", "a=1"), ("cookie", "b=2"), ("x", ""), ("x" * 300, "y"),
                       ("priority", "u=3, i"), ("expect", "100-continue")]
    assert call(frames, 1, fields) == 0


def test_never_indexed_fields(frames):
    block = Encoder().encode([(name, value, True) for name, value in FIELDS], huffman=False)
    frames.send(frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, BODY))
    assert frames.status(1) == 0


def test_without_authority_but_host(frames):
    assert call(frames, 1, [f for f in FIELDS if f[0] != ":authority"] + [("host", "x")]) == 0


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_h2c_upgrade_is_answered_in_http_1(shared, version):
    """RFC 9113 has no upgrade any more: the field is ignored, as RFC 9110 (7.8) allows."""
    body = BODY[5:]
    client = wire.Http1(shared.grpc_port)
    client.send(f"POST /v1/traces HTTP/{version}\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings"
                "\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
                f"Content-Type: application/x-protobuf\r\nContent-Length: {len(body)}\r\n\r\n"
                .encode() + body)
    assert client.read_response()[0] == 200
    client.close()


def test_connect_and_upgrade_are_no_way_in(shared):
    for head in (b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
                 b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"):
        client = wire.Http1(shared.http_port)
        client.send(head)
        assert client.read_response()[0] in (400, 404, 405)
        client.close()


def test_hundreds_of_pipelined_requests(shared):
    """All that one write carries are answered, in order, and the connection lives on."""
    client = wire.Http1(shared.http_port)
    body = otlp.request("traces", 1).SerializeToString()
    head = ("POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode()
    for _ in range(2):
        client.send((head + body) * 400)
        assert [client.read_response()[0] for _ in range(400)] == [200] * 400
    client.close()


def test_pipelining_of_all_kinds(shared):
    """Chunked, of known length, empty, refused: the answers come in order, and in one place each."""
    head = (b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n")
    body = BODY[5:]
    chunked = b"%X;a=b\r\n%s\r\n0\r\nX-Trailer: y\r\n\r\n" % (len(body), body)
    kinds = [(head + b"Content-Length: %d\r\n\r\n" % len(body) + body, 200),
             (head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked, 200),
             (head + b"\r\n", 200),
             (head.replace(b"/v1/traces", b"/no") + b"Content-Length: 4\r\n\r\nPOST", 404),
             (head + b"Content-Length: 3\r\n\r\nabc", 400)]
    client = wire.Http1(shared.http_port)
    client.send(b"".join(one for one, _ in kinds) * 5)
    assert [client.read_response()[0] for _ in range(25)] == [want for _, want in kinds] * 5
    client.close()
