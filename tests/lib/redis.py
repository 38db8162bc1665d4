"""A real Redis on a free loopback port, for tests that pause, kill and spoil it."""

import pathlib
import shutil
import signal
import subprocess
import tempfile

from lib import ports
from lib.sluice import wait_for


class Redis:
    """`arguments` are added to redis-server's; `cli` to every redis-cli call."""

    def __init__(self, *arguments, cli=(), tls=False):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sluice-redis-"))
        self.port = ports.free(1)[0]
        listen = ("--port", "0", "--tls-port") if tls else ("--port",)
        self.arguments = [*listen, str(self.port), *map(str, arguments)]
        self.cli = list(map(str, cli))
        self.process = None

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir",
             self.folder, *self.arguments], stdout=subprocess.DEVNULL)
        wait_for("Redis", lambda: self.call("PING") == "PONG")
        return self

    def call(self, *words):
        """What redis-cli prints."""
        return subprocess.run(["redis-cli", "-p", str(self.port), *self.cli, *words],
                              capture_output=True, text=True).stdout.strip()

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def remove(self):
        if self.process and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
