"""Free loopback ports."""

import itertools
import random
import socket

# Below the ports that the kernel hands to outgoing connections: nobody gets one of ours between
# the look and the server's own bind. A random start keeps runs side by side apart.
FIRST, COUNT = 10000, 22000
_next = itertools.count(random.SystemRandom().randrange(COUNT))


# Ports that something else than loopback serves, and where (tests/dpdk).
elsewhere = {}


def host(port):
    """The address that a test reaches a gateway's port by."""
    return elsewhere.get(port, "127.0.0.1")


def free(count=1):
    """`count` ports nobody listens on now, all different, and none that was given before."""
    found = []
    while len(found) < count:
        port = FIRST + next(_next) % COUNT
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found
