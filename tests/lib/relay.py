"""A TCP relay on loopback that can be slow, hold bytes back, and cut."""

import selectors
import socket
import threading
import time


class Relay:
    """Whoever connects to `port` speaks to `target` (a port)."""

    def __init__(self, target=0, gather=0.0):
        """`gather`: what is sent within so many seconds arrives as one piece."""
        self.target, self.gather = target, gather
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.lock, self.pairs = threading.Lock(), set()
        self.delay, self.flowing, self.open = 0.0, threading.Event(), True
        self.flowing.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.open = False
        self.listener.close()
        self.flowing.set()
        self.cut(0)

    def slow(self, seconds):
        """Every piece comes 50 ms late."""
        self.delay = 0.05
        time.sleep(seconds)
        self.delay = 0.0

    def stall(self, seconds):
        """Nothing moves; nothing is lost."""
        self.flowing.clear()
        time.sleep(seconds)
        self.flowing.set()

    def cut(self, seconds):
        """All connections end in the middle of whatever they carry, and new ones too for a while."""
        end = time.monotonic() + seconds
        while True:
            with self.lock:
                pairs, self.pairs = self.pairs, set()
            for pair in pairs:
                for one in pair:
                    try:
                        one.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
            if time.monotonic() >= end:
                return
            time.sleep(0.02)

    def _accept(self):
        while self.open:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                continue
            pair = (client, server)
            with self.lock:
                self.pairs.add(pair)
            threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, client, server):
        other = {client: server, server: client}
        try:
            with selectors.DefaultSelector() as ready:
                for one in other:
                    ready.register(one, selectors.EVENT_READ)
                while True:
                    for key, _ in ready.select():
                        time.sleep(self.gather)
                        data = key.fileobj.recv(65536)
                        if not data:
                            return
                        time.sleep(self.delay)
                        self.flowing.wait()
                        other[key.fileobj].sendall(data)
        except OSError:
            pass
        finally:
            for one in other:
                one.close()
            with self.lock:
                self.pairs.discard((client, server))
