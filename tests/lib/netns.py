"""Hosts of a test's own: network namespaces joined by veth pairs, gone when the test ends."""

import contextlib
import ctypes
import itertools
import os
import subprocess

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_number = itertools.count()


def ip(*arguments, check=True):
    return subprocess.run(["ip", *map(str, arguments)], check=check, capture_output=True, text=True)


def possible():
    """Whether this machine lets us make namespaces."""
    name = f"sl-{os.getpid()}-probe"
    if ip("netns", "add", name, check=False).returncode:
        return False
    ip("netns", "del", name)
    return True


@contextlib.contextmanager
def inside(name):
    """This thread, its sockets and the processes it starts are in that namespace."""
    with open("/proc/thread-self/ns/net") as back, open(f"/run/netns/{name}") as there:
        def enter(file):
            if _libc.setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        enter(there)
        try:
            yield
        finally:
            enter(back)


class Network:
    """Namespaces with names of this process; `with` removes them."""

    def __init__(self):
        self.tag = f"sl{os.getpid()}n{next(_number)}"
        self.names = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in self.names:
            ip("netns", "del", name, check=False)

    def host(self, short):
        name = f"{self.tag}-{short}"
        ip("netns", "add", name)
        self.names.append(name)
        ip("-n", name, "link", "set", "lo", "up")
        return name

    def join(self, one, address_one, other, address_other):
        """A cable; each end is named after the namespace it leads to."""
        ends = [other[len(self.tag) + 1:], one[len(self.tag) + 1:]]
        ip("-n", one, "link", "add", ends[0], "type", "veth", "peer", "name", ends[1],
           "netns", other)
        for host, end, address in ((one, ends[0], address_one), (other, ends[1], address_other)):
            ip("-n", host, "address", "add", address, "dev", end)
            ip("-n", host, "link", "set", end, "up")
