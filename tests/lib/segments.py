"""TCP by hand: a neighbour that the kernel does not know sends and sees single segments."""

import select
import socket
import struct
import time

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MAC = b"\x02\0\0\0\0\x50"


def summed(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


class Neighbour:
    """An address of its own beyond the port; answers for it when asked by ARP."""

    def __init__(self, interface, address, peer, peer_mac):
        self.raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.raw.bind((interface, 0))
        self.address, self.peer = socket.inet_aton(address), socket.inet_aton(peer)
        self.mac = bytes.fromhex(peer_mac.replace(":", ""))
        self.damaged = None  # this bit of what is sent, counted from the IP header's first byte

    def close(self):
        self.raw.close()

    def ip(self, protocol, payload, source=None):
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0,
                           source or self.address, self.peer)
        head = head[:10] + struct.pack("!H", summed(head)) + head[12:]
        packet = bytearray(head + payload)
        if self.damaged is not None:
            packet[self.damaged // 8] ^= 1 << self.damaged % 8
        self.raw.send(self.mac + MAC + b"\x08\x00" + packet)

    def segment(self, port, to, flags, seq, ack=0, data=b"", window=65535, options=b"",
                source=None):
        source = source or self.address
        head = struct.pack("!HHIIBBHHH", port, to, seq & 0xffffffff, ack & 0xffffffff,
                           (5 + len(options) // 4) << 4, flags, window, 0, 0) + options
        pseudo = source + self.peer + struct.pack("!BBH", 0, 6, len(head) + len(data))
        check = summed(pseudo + head + data)
        self.ip(6, head[:16] + struct.pack("!H", check) + head[18:] + data, source)

    def next(self, port, seconds=20):
        """The next segment to `port`: (flags, seq, ack, window, data, the IP packet), or None."""
        end = time.monotonic() + seconds
        while True:
            ready = select.select([self.raw], [], [], max(0.0, end - time.monotonic()))[0]
            if not ready:
                return None
            frame, address = self.raw.recvfrom(65536)
            if address[2] == 4 or frame[6:12] != self.mac:
                continue
            if frame[12:14] == b"\x08\x06" and frame[21] == 1 and frame[38:42] == self.address:
                self.raw.send(self.mac + MAC + frame[12:20] + b"\0\x02" + MAC + self.address +
                              frame[22:32])
            if frame[12:14] != b"\x08\x00" or frame[23] != 6 or frame[30:34] != self.address:
                continue
            size = struct.unpack("!H", frame[16:18])[0]
            tcp = frame[34:14 + size]
            if struct.unpack("!H", tcp[2:4])[0] != port:
                continue
            seq, ack = struct.unpack("!II", tcp[4:12])
            head = (tcp[12] >> 4) * 4
            return tcp[13], seq, ack, struct.unpack("!H", tcp[14:16])[0], tcp[head:], frame[14:]


class Connection:
    """One that was opened by the hand: its numbers, and what it got."""

    def __init__(self, neighbour, port, to, seq=1000, options=b"", window=65535):
        self.neighbour, self.port, self.to = neighbour, port, to
        self.seq, self.ack, self.window = seq, 0, window
        self.send(SYN, options=options)
        self.seq += 1
        flags, self.ack = self.expect(lambda one: one[0] & (SYN | RST))[:2]
        assert flags & (SYN | ACK) == SYN | ACK
        self.ack = (self.ack + 1) & 0xffffffff
        self.send(ACK)

    def send(self, flags, data=b"", offset=0, **more):
        more.setdefault("window", self.window)
        self.neighbour.segment(self.port, self.to, flags, self.seq + offset, self.ack, data, **more)

    def say(self, data):
        self.send(ACK | PSH, data)
        self.seq += len(data)

    def expect(self, condition, seconds=20):
        """The first segment that fits; everything before it is passed over."""
        end = time.monotonic() + seconds
        while True:
            one = self.neighbour.next(self.port, max(0.0, end - time.monotonic()))
            assert one, "no such segment came"
            if condition(one):
                return one
