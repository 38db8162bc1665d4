"""OTLP upstreams of the tests' own: they keep what came and answer, or misbehave, as they are told."""

import base64
import collections
import socket
import struct
import threading
import time

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from lib import otlp

Call = collections.namedtuple("Call", "path headers body connection at")


def retry_info(code, seconds):
    """grpc-status-details-bin with RetryInfo."""
    status = status_pb2.Status(code=code, message="later")
    info = error_details_pb2.RetryInfo(
        retry_delay=duration_pb2.Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9)))
    status.details.add().Pack(info)
    return base64.b64encode(status.SerializeToString()).decode().rstrip("=")


class Upstream:
    """Listens on loopback. `script` says what to do with each call, in order; then all succeed.

    A step is a dict: status, headers, body, delay (the answer), or do: one of
      close      end the connection instead of answering
      head       send the head of an answer, then close
      half       end the stream without a status (HTTP: cut the body short)
      reset      RST_STREAM (gRPC)
      goaway     say that the call was not processed and take no more (gRPC)
      late_goaway  GOAWAY after which the call is still answered (gRPC)
      garbage    bytes that are no protocol, then close
      silent     nothing
      a function of connection, h2c (HTTP: None) and stream (HTTP: 0) that says whether to go on
    """

    def __init__(self, http=False, script=(), port=0, tls=None, judge=None, host="127.0.0.1"):
        """`judge`: the step of a call when the script has ended. `taken`: the calls whose answer
        was, or should have been, success."""
        self.http, self.tls, self.judge = http, tls, judge
        self.script = collections.deque(script)
        self.calls, self.taken, self.lock = [], [], threading.Lock()
        self.connections = 0
        self.resumed = []  # of each TLS connection, whether it resumed a session
        self.open = set()
        self.stopped = False
        self.listener = socket.create_server((host, port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        if self.stopped:
            return
        self.stopped = True
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self.lock:
            for one in self.open:
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def messages(self, signal="traces", taken=False):
        """All bodies that came, or were taken, decoded."""
        found = []
        for call in list(self.taken if taken else self.calls):
            body, coding = call.body, call.headers.get("content-encoding")
            if not self.http:
                assert len(body) == 5 + struct.unpack(">I", body[1:5])[0]
                coding = call.headers["grpc-encoding"] if body[0] else None
                body = body[5:]
            found.append(otlp.REQUESTS[signal].FromString(otlp.decompress(coding, body)))
        return found

    def _accept(self):
        while not self.stopped:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection, self.connections),
                             daemon=True).start()

    def _serve(self, connection, number):
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
                self.resumed.append(connection.session_reused)
            with self.lock:
                self.open.add(connection)
            (self._serve_http if self.http else self._serve_grpc)(connection, number)
        except (OSError, h2.exceptions.ProtocolError):
            pass
        finally:
            with self.lock:
                self.open.discard(connection)
            connection.close()

    def _step(self, path, headers, body, number):
        call = Call(path, headers, body, number, time.monotonic())
        with self.lock:
            self.calls.append(call)
            step = self.script.popleft() if self.script else self.judge(call) if self.judge else {}
        if callable(step):
            step = step()
        if step.get("status", 0) in (0, 200) and step.get("do", "late_goaway") == "late_goaway":
            with self.lock:
                self.taken.append(call)
        time.sleep(step.get("delay", 0))
        return step

    # --- HTTP/1.1 ---

    def _serve_http(self, connection, number):
        held = b""
        while True:
            while b"\r\n\r\n" not in held:
                data = connection.recv(65536)
                if not data:
                    return
                held += data
            head, held = held.split(b"\r\n\r\n", 1)
            lines = head.decode().split("\r\n")
            headers = {k.lower(): v.strip() for k, v in (one.split(":", 1) for one in lines[1:])}
            length = int(headers["content-length"])
            while len(held) < length:
                held += connection.recv(65536)
            body, held = held[:length], held[length:]
            step = self._step(lines[0].split(" ")[1], headers, body, number)
            if not self._answer_http(connection, step):
                return

    def _answer_http(self, connection, step):
        do, body = step.get("do"), step.get("body", b"")
        head = f"HTTP/1.1 {step.get('status', 200)} X\r\ncontent-type: application/x-protobuf\r\n"
        head += "".join(f"{k}: {v}\r\n" for k, v in step.get("headers", {}).items())
        if callable(do):
            return do(connection, None, 0)
        if do == "silent":
            return True
        if do == "garbage":
            connection.sendall(b"\x16\x03\x01 what is this\r\n\r\n" * 20)
        elif do == "head":
            connection.sendall(head.encode())
        elif do == "half":
            connection.sendall(f"{head}content-length: 100\r\n\r\nhalf".encode())
        elif do is None:
            connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            return True
        return False

    # --- gRPC ---

    def _serve_grpc(self, connection, number):
        h2c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False,
                                                                   header_encoding="utf-8"))
        h2c.initiate_connection()
        connection.sendall(h2c.data_to_send())
        streams = {}
        while True:
            data = connection.recv(65536)
            if not data:
                return
            for event in h2c.receive_data(data):
                stream = getattr(event, "stream_id", None)
                if isinstance(event, h2.events.RequestReceived):
                    streams[stream] = (dict(event.headers), [])
                elif isinstance(event, h2.events.DataReceived):
                    h2c.acknowledge_received_data(event.flow_controlled_length, stream)
                    streams[stream][1].append(event.data)
                elif isinstance(event, h2.events.StreamReset):
                    streams.pop(stream, None)
                elif isinstance(event, h2.events.StreamEnded):
                    headers, body = streams.pop(stream)
                    step = self._step(headers[":path"], headers, b"".join(body), number)
                    if not self._answer_grpc(connection, h2c, stream, step):
                        return
            connection.sendall(h2c.data_to_send())

    def _answer_grpc(self, connection, h2c, stream, step):
        do = step.get("do")
        head = [(":status", str(step.get("http", 200))), ("content-type", "application/grpc")]
        status = [("grpc-status", str(step.get("status", 0))), *step.get("headers", {}).items()]
        if callable(do):
            return do(connection, h2c, stream)
        if do == "silent":
            return True
        if do in ("goaway", "late_goaway"):
            last = stream - 2 if do == "goaway" else stream
            connection.sendall(h2c.data_to_send() +
                               struct.pack(">HBBBIII", 0, 8, 7, 0, 0, max(last, 0), 0))
            if do == "goaway":
                time.sleep(0.3)
                return False
        if do == "garbage":
            connection.sendall(h2c.data_to_send() + b"\xff" * 200)
        elif do == "reset":
            h2c.reset_stream(stream, error_code=step.get("code", 2))
            return True
        elif do == "head":
            h2c.send_headers(stream, head)
            connection.sendall(h2c.data_to_send())
        elif do == "half":
            h2c.send_headers(stream, head)
            h2c.send_data(stream, b"\0\0\0\0\0", end_stream=True)
            return True
        elif do != "close" and step.get("status", 0):
            h2c.send_headers(stream, head + status, end_stream=True)
            return True
        elif do != "close":
            body = step.get("body", b"")
            h2c.send_headers(stream, head)
            h2c.send_data(stream, struct.pack(">BI", 0, len(body)) + body)
            h2c.send_headers(stream, status, end_stream=True)
            return True
        return False
