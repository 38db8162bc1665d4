"""A switch between the client's side of a port and the port: the first end is a trunk, to the port;
each other is an access port of a VLAN. Frames to the port get its tag; those from it must have one.
"""

import socket
import struct

from lib.bad_link import BadLink

SOL_PACKET, PACKET_AUXDATA = 263, 8
VLAN_VALID = 0x10  # in the status of struct tpacket_auxdata: the kernel has taken the tag off


class Trunk(BadLink):
    def __init__(self, ends, vlans):
        self.vlans, self.others = [None, *vlans], 0
        super().__init__(ends, seed=0)

    def open(self, end):
        one = super().open(end)
        one.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        return one

    def read(self, side):
        frame, beside, _, address = self.sockets[side].recvmsg(65536, socket.CMSG_SPACE(20))
        if side:
            return self.tag(side).join((frame[:12], frame[12:])), address
        for level, kind, data in beside:
            status, tci = struct.unpack_from("I12xH", data)
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA) and status & VLAN_VALID:
                frame = frame[:12] + struct.pack("!HH", 0x8100, tci) + frame[12:]
        return frame, address

    def tag(self, side):
        return struct.pack("!HH", 0x8100, self.vlans[side])

    def judge(self, side, frame):
        if side:
            self.send(0, frame)
            return
        for access in range(1, len(self.vlans)):
            if frame[12:16] == self.tag(access):
                self.send(access, frame[:12] + frame[16:])
                return
        self.others += 1
