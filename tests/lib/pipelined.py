"""An open-loop client: calls go out at their time, whether or not others have been answered."""

import collections
import re
import socket
import threading
import time

WAITING_MAX = 60  # of 64 that a connection may have on their way
STATUS = re.compile(rb"HTTP/1\.1 (\d\d\d) ")


class Pipelined(threading.Thread):
    """`per_s` calls a second over one connection of HTTP/1 that never waits for an answer; a new
    connection when it ends. call() makes a call's bytes and a token, answered() is told its end."""

    def __init__(self, port, per_s):
        super().__init__(daemon=True)
        self.port, self.per_s = port, per_s
        self.waiting, self.slowest = collections.deque(), 0.0
        self.longest_turn = 0.0  # of 5 ms; much longer: the machine had no time for it
        self.sent, self.dropped, self.connections = 0, 0, 0
        self.broken, self.ended = None, threading.Event()
        self.outlives = False  # try again when nobody listens

    def call(self):
        raise NotImplementedError

    def answered(self, token, now, status):
        raise NotImplementedError

    def run(self):
        while not self.ended.is_set():
            try:
                self.connection()
            except OSError as error:
                if not self.outlives:
                    self.broken = error
                    return
                time.sleep(0.01)

    def connection(self):
        """Until it ends, or the server ends it: what was sent after that is nobody's."""
        owed, last, rest, out = 0.0, time.monotonic(), b"", b""
        with socket.create_connection(("127.0.0.1", self.port)) as to:
            to.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            to.setblocking(False)
            self.connections += 1
            while not self.ended.is_set() or self.waiting:
                now = time.monotonic()
                owed += (now - last) * self.per_s
                self.longest_turn = max(self.longest_turn, now - last)
                last = now
                owed = min(owed, WAITING_MAX - len(self.waiting))
                if self.ended.is_set():
                    owed = 0
                chosen = [self.call() for _ in range(int(owed))]
                owed -= len(chosen)
                out += b"".join(data for data, _ in chosen)
                self.waiting.extend((now, token) for _, token in chosen)
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
            sent, token = self.waiting.popleft()
            self.slowest = max(self.slowest, now - sent)
            self.answered(token, now, int(found[1]))
            end = found.end()
        return data[max(end, len(data) - 12):]

    def finish(self):
        self.ended.set()
        self.join(60)
        assert not self.is_alive(), "answers are missing"
