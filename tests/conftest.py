"""Fixtures for every suite that drives the real binary."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from lib import kafka  # noqa: E402
from lib.sluice import Sluice  # noqa: E402


@pytest.fixture
def start(tmp_path):
    """start(config={...}, tenants={...}) runs a sluice; all are drained and checked at the end."""
    running = []

    def begin(**arguments):
        sluice = Sluice(tmp_path / f"sluice-{len(running)}", **arguments)
        running.append(sluice)
        sluice.start()
        return sluice

    yield begin
    for sluice in running:
        try:
            sluice.stop()
        finally:
            if sluice.port:
                sluice.port.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One sluice for a whole module of tests that leave nothing behind: file destination, JSON."""
    sluice = Sluice(tmp_path_factory.mktemp("shared"))
    sluice.start()
    yield sluice
    sluice.stop()


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    """A real Kafka broker on loopback, started once."""
    server = kafka.Broker(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server
    server.remove()
