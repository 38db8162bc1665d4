"""Clients close to the wire: HTTP/1.1 over a socket, HTTP/2 by the `h2` package, frame by frame."""

import base64
import socket
import ssl
import struct
import time
import typing

import h2.config
import h2.connection
import h2.events
import h2.settings
from google.protobuf import any_pb2  # noqa: F401  (registers Any)
from google.rpc import error_details_pb2, status_pb2
from lib import ports

TIMEOUT = 20


def dial(port):
    """A connection whose small writes are not held back (Nagle's algorithm costs 40 ms a call)."""
    connection = socket.create_connection((ports.host(port), port), timeout=TIMEOUT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Http1:
    """Raw HTTP/1.1: what is sent is exactly what the test says."""

    def __init__(self, port):
        self.socket = dial(port)
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data)

    def _more(self):
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def read_response(self):
        """(status, {header: value}, body); (None, {}, b"") when the peer closed first."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                return None, {}, b""
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
        if status == 100:
            return status, headers, b""
        length = int(headers.get("content-length", "0"))
        while len(self.buffer) < length:
            assert self._more(), "the answer is cut"
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return status, headers, body

    def closed(self, seconds=5):
        """Whether the peer closes within the time (what it still sends is ignored)."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                if not self.socket.recv(65536):
                    return True
            except ConnectionResetError:
                return True
            except TimeoutError:
                return False
        return False

    def close(self):
        self.socket.close()


def post(port, path, body, content_type="application/x-protobuf", headers=None, method="POST"):
    """One HTTP/1.1 call on a connection of its own."""
    client = Http1(port)
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"{k}: {v}" for k, v in (headers or {}).items()]
    client.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    try:
        return client.read_response()
    finally:
        client.close()


def frame(message, flag=0):
    """gRPC's length-prefixed message."""
    return struct.pack(">BI", flag, len(message)) + message


class GoAway(typing.NamedTuple):
    last_stream_id: int
    error_code: int
    additional_data: bytes


class Stream:
    def __init__(self):
        self.headers, self.trailers, self.data = {}, {}, b""
        self.header_events = 0
        self.ended = False
        self.reset = None

    @property
    def grpc_status(self):
        value = self.trailers.get("grpc-status", self.headers.get("grpc-status"))
        return None if value is None else int(value)

    @property
    def grpc_message(self):
        return self.trailers.get("grpc-message", self.headers.get("grpc-message", ""))

    @property
    def details(self):
        """The google.rpc.Status of grpc-status-details-bin, or None."""
        value = self.trailers.get("grpc-status-details-bin",
                                  self.headers.get("grpc-status-details-bin"))
        if value is None:
            return None
        return status_pb2.Status.FromString(base64.b64decode(value + "=" * (-len(value) % 4)))

    @property
    def retry_delay(self):
        """Seconds of RetryInfo, or None."""
        return retry_delay(self.details)


def retry_delay(status):
    for one in status.details if status else []:
        info = error_details_pb2.RetryInfo()
        if one.Unpack(info):
            return info.retry_delay.seconds + info.retry_delay.nanos / 1e9
    return None


def bad_field(status):
    """What the status' BadRequest names, or None."""
    for one in status.details:
        bad = error_details_pb2.BadRequest()
        if one.Unpack(bad):
            return bad.field_violations[0].field
    return None


class Http2:
    """An HTTP/2 client whose every frame the test can see and shape."""

    def __init__(self, port, settings=None, sock=None):
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8",
                                           validate_outbound_headers=False,
                                           normalize_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        if settings:
            self.h2.local_settings = h2.settings.Settings(client=True, initial_values=settings)
        self.socket = sock or dial(port)
        self.streams = {}
        self.events = []
        self.goaways = []
        self.held = b""
        self.closed = False
        self.h2.initiate_connection()
        self.flush()

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.socket.sendall(data)

    def pump(self, until, seconds=TIMEOUT):
        """Reads until `until()` holds; False when the time is over or the peer closed."""
        end = time.monotonic() + seconds
        self.take_waiting()
        while not until():
            left = end - time.monotonic()
            if left <= 0 or self.closed:
                return until()
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                return until()
            except ConnectionResetError:
                data = b""
            if not data:
                self.closed = True
                return until()
            self.receive(data)
        return True

    def take_waiting(self):
        """What has come already, without waiting."""
        self.socket.setblocking(False)
        try:
            while True:
                data = self.socket.recv(65536)
                if not data:
                    self.closed = True
                    return
                self.receive(data)
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except ConnectionResetError:
            self.closed = True
        finally:
            self.socket.settimeout(TIMEOUT)

    def receive(self, data):
        for frame in self.split(data):
            for event in self.h2.receive_data(frame):
                self.take(event)
        self.flush()

    def split(self, data):
        """Whole frames; GOAWAY is noted here, because `h2` would take nothing after it."""
        self.held += data
        frames = []
        while len(self.held) >= 9:
            size = 9 + int.from_bytes(self.held[:3], "big")
            if len(self.held) < size:
                break
            one, self.held = self.held[:size], self.held[size:]
            if one[3] == 7:
                last, code = struct.unpack(">II", one[9:17])
                self.goaways.append(GoAway(last, code, one[17:]))
            else:
                frames.append(one)
        return frames

    def take(self, event):
        self.events.append(event)
        stream = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.ResponseReceived):
            stream.headers.update(dict(event.headers))
            stream.header_events += 1
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers.update(dict(event.headers))
            stream.header_events += 1
        elif isinstance(event, h2.events.DataReceived):
            stream.data += event.data
            if event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset) and stream:
            stream.reset = event.error_code

    def start(self, path, headers=None, content_type="application/grpc", method="POST",
              end_stream=False):
        number = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "http"), (":authority", "localhost"),
                  (":path", path)]
        if content_type is not None:
            fields.append(("content-type", content_type))
        if content_type and content_type.startswith("application/grpc"):
            fields.append(("te", "trailers"))
        fields += (headers.items() if isinstance(headers, dict) else headers or [])
        self.streams[number] = Stream()
        self.h2.send_headers(number, fields, end_stream=end_stream)
        self.flush()
        return number

    def data(self, number, data, end_stream=False):
        """Sends DATA, as the windows allow, until the stream is answered and reset."""
        while True:
            self.take_waiting()
            if self.streams[number].reset is not None:
                return
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            piece, data = data[:room], data[room:]
            if piece or not data:
                self.h2.send_data(number, piece, end_stream=end_stream and not data)
                self.flush()
            if not data:
                return
            stream = self.streams[number]
            assert self.pump(lambda: stream.reset is not None or
                             self.h2.local_flow_control_window(number) > 0), \
                "the window never opened"

    def finish(self, number, seconds=TIMEOUT):
        """The stream, once it has ended or was reset."""
        stream = self.streams[number]
        self.pump(lambda: stream.ended or stream.reset is not None, seconds)
        return stream

    def call(self, path, body=b"", headers=None, content_type="application/grpc"):
        """One whole gRPC call: a framed message, the answer."""
        number = self.start(path, headers, content_type)
        self.data(number, body, end_stream=True)
        return self.finish(number)

    def ping(self, payload=b"12345678"):
        self.h2.ping(payload)
        self.flush()

    def close(self):
        self.socket.close()
